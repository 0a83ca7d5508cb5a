"""Which colours and which heat a target has: what tells it from others of its shape.

The network looks for shapes. Of two people it scores both high, whatever they wear; a coat and a warm body are known
by what most of their pixels have in common. That is found by mean shift (Comaniciu and Meer 2002) in all channels of
both cameras at once, in the images as the cameras gave them: 8 bits of a thermal image show all warm bodies white.
How much it varies on a target is learnt with it: on one that walks through smoke it says little, on one in plain
sight a few grey levels say a lot.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ckd_tracker_ros import boxes
from ckd_tracker_ros.frame import MODALITIES, Image, RgbtFrame
from ckd_tracker_ros.pattern import AROUND, BORDERED, SAMPLES, SURROUNDINGS, WELL_APART, Pattern, weights
from ckd_tracker_ros.registration import Registration
from ckd_tracker_ros.thermal import Limits

CHANNELS = {"rgb": 3, "thermal": 1}
"""How many channels of a modality say something of their own."""
COUNT = sum(CHANNELS.values())
FIRST = np.cumsum([0, *CHANNELS.values()])[:-1]
"""(M,) number of each modality's first channel."""
SHIFTS = 6
MIDDLE = 0.4
"""Share of the sides of a target, around its centre, where it is read for the first time."""
UNKNOWN, FLOOR = 6.0, 1.5
"""How much the looks of a new target vary, and how much at least, grey levels as standard deviations."""
UNKNOWN_S = 0.1
"""So many seconds of seeing it count as much as that first guess; a box that was given, as seeing it for so many."""
MEAN_S, SPREAD_S = 1.0, 3.0
"""What was seen so many seconds ago is forgotten by and by."""
KNOWN_S = 0.5
"""Nothing is doubted before it was seen for so long."""
AS_USUAL, MOST = 1.5, 4.0
"""Logarithms: what is so unlike the mean is usual, and nothing is doubted more than that: looks do change."""
LONGEST_S = 4.0
"""After so long a time what a target looks like changes no more."""
MOST_CREDIT = 2.0
"""Logarithm: what looks like the target and not like the others is believed by so much more at most."""
AWAY_S = 1.0
"""A camera that gave nothing for longer comes back to another light, or to smoke: what it saw before counts no more."""
LIGHT, LIGHT_S, LIGHT_SAMPLES = 40.0, 1.0, 24
"""So does one whose whole image, read in so many rows and columns, has become so many grey levels lighter or darker in
about so many seconds: there was light, or another exposure."""
LEARN_OTHER, MOST_OTHERS = 0.2, 8
"""Share that one sighting has in what another thing looks like; of how many that is remembered."""
UNMISTAKABLE = 12.0
"""Logarithm: what is so unlike the target need not be remembered, nobody takes it for that."""
TAILS = 3.0
"""Degrees of freedom of a Student distribution: looks may jump, say in shadow, without ruling a target out."""


@dataclass(frozen=True, eq=False)
class Looks:
    """What most of a target's pixels have in common: the colour image's channels in its order, and heat (C = 4).

    Attributes:
        units: (C,) sensor values in a grey level, as at the start: 1 for images of 8 bits; NaN for a camera that was
            missing then, or is not used.
        mean: (C,) grey levels; NaN where it was never seen.
        spread: (C, C) covariance about this mean.
        seconds: for which it was learnt.
        stamp_ns: when it was seen last.
        others: (K, C) what things that look like it have in common, as `mean`; those seen last come first.
        frame_ns: stamp of the last frame.
        given_ns: (C,) stamps of the last frames that had these channels.
        level: (C,) usual grey level of whole images, see `levels`; NaN for a camera that has given none.
        forgotten_ns: stamp of the frame in which what a camera saw before was forgotten, see `AWAY_S` and `LIGHT`.
        pattern: which of its pixels show them.
    """

    units: NDArray[np.float64]
    mean: NDArray[np.float64] = field(default_factory=lambda: np.full(COUNT, np.nan))
    spread: NDArray[np.float64] = field(default_factory=lambda: np.eye(COUNT) * UNKNOWN**2)
    seconds: float = 0.0
    stamp_ns: int = 0
    others: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, COUNT)))
    frame_ns: int = 0
    given_ns: NDArray[np.int64] = field(default_factory=lambda: np.zeros(COUNT, np.int64))
    level: NDArray[np.float64] = field(default_factory=lambda: np.full(COUNT, np.nan))
    forgotten_ns: int = -1
    pattern: Pattern = Pattern()

    @property
    def whole(self) -> bool:
        """Whether the last frame had an image of every camera that is used."""
        return bool((self.given_ns == self.frame_ns)[np.isfinite(self.units)].all())

    @property
    def known(self) -> bool:
        """Whether it was seen for long enough to doubt anything."""
        return self.seconds >= KNOWN_S

    @classmethod
    def unknown(cls, limits: tuple[Limits | None, ...], present: tuple[bool, ...]) -> Looks:
        """Of a target that nothing is known of, in images whose grey lies between these values.

        Args:
            present: per modality, whether it is there and used.
        """
        units = [1.0 if pair is None or pair[1] <= pair[0] else (pair[1] - pair[0]) / 255 for pair in limits]
        return cls(_per_channel(np.where(present, units, np.nan)))

    def complete(self, limits: tuple[Limits | None, ...], present: tuple[bool, ...]) -> Looks:
        """With grey levels also of a camera that was missing at the start, if it is there now."""
        return replace(self, units=np.where(np.isnan(self.units), Looks.unknown(limits, present).units, self.units))

    def started(self, seen: NDArray, stamp_ns: int) -> Looks:
        """After a target looked like that, (C,), in a box that is certainly its own."""
        given = np.full(COUNT, stamp_ns)
        return replace(self, mean=seen, seconds=UNKNOWN_S, stamp_ns=stamp_ns, frame_ns=stamp_ns, given_ns=given)

    def at(self, stamp_ns: int, present: tuple[bool, ...], level: ArrayLike = np.nan) -> Looks:
        """For a frame of this time: without what a camera saw before it was away, or before the light changed.

        Args:
            present: per modality, whether it is there and used.
            level: (C,) sensor values of whole images, see `levels`; NaN where that is not known.
        """
        given = _per_channel(present)
        # Away for as long as frames came without it: when all cameras stop, or clocks jump, none of them was.
        back = given & (self.frame_ns - self.given_ns > AWAY_S * 1e9)
        grey = np.asarray(level) / self.units
        off = np.nan_to_num(grey - self.level)
        lit = given & _per_channel(np.logical_or.reduceat(np.abs(off) > LIGHT, FIRST))
        share = np.where(lit, 1.0, np.clip((stamp_ns - self.frame_ns) / 1e9 / LIGHT_S, 0.0, 1.0))
        usual = np.where(np.isfinite(self.level), self.level + share * off, grey)
        now = replace(self, frame_ns=stamp_ns, given_ns=np.where(given, stamp_ns, self.given_ns), level=usual)
        forgotten = back | lit
        if not forgotten.any():
            return now
        mean, others = (np.where(forgotten, np.nan, of) for of in (self.mean, self.others))
        return replace(now, mean=mean, others=others, forgotten_ns=stamp_ns)

    def as_known(self) -> Looks:
        """The same for a target that is lost: what little was seen of it is better than nothing."""
        if self.known or not np.isfinite(self.mean).any():
            return self
        return replace(self, spread=np.eye(COUNT) * UNKNOWN**2, seconds=KNOWN_S)

    def read(self, frame: RgbtFrame, registration: Registration, box: NDArray) -> NDArray[np.float64]:
        """(C,) what most pixels in a (4,) xywh box have in common, grey levels; NaN where no camera saw it.

        Where the target was seen before, the nearest such to what it looked like then.
        """
        pixels = self._pixels(frame, registration, box, 1.0)
        channels = np.isfinite(pixels).any(axis=0)
        seen = np.full(COUNT, np.nan)
        if not channels.any():
            return seen
        found = self.mean
        if not np.isfinite(found[channels]).all():
            middle = self._pixels(frame, registration, box, MIDDLE)
            middle = middle if np.isfinite(middle).any(axis=0)[channels].all() else pixels
            found = np.where(np.isfinite(found), found, np.nanmedian(np.where(channels, middle, 0), axis=0))
        seen[channels] = _mode(pixels[:, channels], found[channels])
        return seen

    def learned(self, seen: NDArray, seconds: float, stamp_ns: int) -> Looks:
        """After it looked like that, (C,), NaN where no camera saw it, for so many seconds more up to this time.

        What is more like a thing that is known to be another teaches nothing.
        """
        if self.another(seen) > 0:
            return self
        mean, known = np.where(np.isfinite(self.mean), self.mean, seen), np.isfinite(seen)
        off = np.where(known, seen - mean, 0.0)
        age = self.seconds + seconds
        quick = min(1.0, seconds / min(MEAN_S, age))
        slow = min(1.0, seconds / (UNKNOWN_S + min(SPREAD_S, age)))
        spread = self.spread + slow * np.outer(known, known) * (np.outer(off, off) - self.spread)
        return replace(self, mean=mean + quick * off, spread=spread, seconds=age, stamp_ns=stamp_ns)

    def patterned(self, frame: RgbtFrame, registration: Registration, box: NDArray) -> Looks:
        """After it was in this (4,) xywh box of a frame, and nothing in front of it."""
        if not self.pattern.due(frame.stamp_ns):
            return self
        pixels = self._pixels(frame, registration, box, BORDERED / SAMPLES, BORDERED)
        return replace(self, pattern=self.pattern.learned(pixels, self.mean, frame.stamp_ns))

    def surrounded(self, frame: RgbtFrame, registration: Registration, box: NDArray) -> Looks:
        """With what stands beside it and looks like it in a frame in which it is certainly in this (4,) xywh box."""
        pixels = self._pixels(frame, registration, box, SURROUNDINGS, SURROUNDINGS * SAMPLES)
        channels = np.isfinite(self.mean)
        others = []
        for of in self.pattern.alike(pixels, self.mean):
            other = np.full(COUNT, np.nan)
            other[channels] = _mode(of[:, channels], self.mean[channels])
            if self.pattern.told_apart(self.mean, other, WELL_APART):
                others.append(other)
        return replace(self, others=np.reshape(others, (-1, COUNT))[:MOST_OTHERS])

    @property
    def tells_apart(self) -> bool:
        """Whether `apart` can tell the target from something else, by what the cameras of this frame show."""
        learnt, given = self.pattern.learnt, self.given_ns == self.frame_ns
        seen = given[learnt].all() and np.isfinite(self.mean[learnt]).all()
        told = any(self.pattern.told_apart(self.mean, other) for other in self.others)
        return bool(self.pattern.stands_out and seen and told)

    def apart(
        self, frame: RgbtFrame, registration: Registration, box: NDArray
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """A (4,) xywh box that may lie around the target and another thing: where the target's own pixels are, and the
        (2,) centre of the other thing, None where there is none."""
        pixels = self._pixels(frame, registration, box, AROUND, AROUND * SAMPLES)
        spread = self.spread if self.known else np.zeros_like(self.spread)
        offset, other = self.pattern.places(pixels, self.mean, self.others, spread)
        moved = np.concatenate([box[:2] + offset * box[2:], box[2:]])
        return moved, None if other is None else box[:2] + (0.5 + other) * box[2:]

    def beside(self, seen: NDArray) -> Looks:
        """After something that is not the target was seen, and looked like that, (C,)."""
        if not self.known or not np.isfinite(seen).any():
            return self
        unlike = np.array([self._unlike(seen, other) for other in self.others])
        own = self.unlike(seen)
        if len(unlike) and unlike.min() < min(AS_USUAL, own):
            nearest = int(unlike.argmin())
            other = self.others[nearest]
            other = np.where(np.isfinite(other), other + LEARN_OTHER * np.nan_to_num(seen - other), seen)
            rest = np.delete(self.others, nearest, axis=0)
            return replace(self, others=np.concatenate([other[None], rest]))
        if not AS_USUAL < own < UNMISTAKABLE:
            return self
        return replace(self, others=np.concatenate([seen[None], self.others])[:MOST_OTHERS])

    def doubt(self, seen: NDArray, stamp_ns: int, clear: float = 1.0) -> float:
        """By how much, as a logit, a sighting that looks like that, (C,), is less likely to be the target for it.

        Below 0: likelier, as it looks like the target and like none of the others.

        Args:
            clear: its score, 0..1: where that is low, the box is poor, what is read partly of something else, and its
                looking like the target chance.
        """
        if not self.known:
            return 0.0
        unlike = self.unlike(seen, (stamp_ns - self.stamp_ns) / 1e9) - AS_USUAL
        another = self.another(seen, stamp_ns)
        if unlike > 0 or another > 0:
            return min(MOST, max(unlike, another))
        return max(-MOST_CREDIT, another) * clear**2

    def another(self, seen: NDArray, stamp_ns: int | None = None) -> float:
        """By how much, as a logit, what looks like that, (C,), is likelier one of the others than the target; below 0:
        less likely. 0 where nothing is known.

        With a camera missing, or what it saw forgotten, never above 0: to one camera of two things look alike that to
        both do not.
        """
        if not len(self.others):
            return 0.0
        seconds = 0.0 if stamp_ns is None else (stamp_ns - self.stamp_ns) / 1e9
        common = np.where(np.isfinite(self.others) & np.isfinite(self.mean), seen, np.nan)
        likelier = max(
            self._unlike(of, self.mean, seconds) - self._unlike(of, other) for of, other in zip(common, self.others)
        )
        used = np.isfinite(self.units)
        return likelier if np.isfinite(seen[used] + self.mean[used]).all() else min(likelier, 0.0)

    def unlike(self, seen: NDArray, seconds: float = 0.0) -> float:
        """How much less likely a target looks like that, (C,), than like its mean: as a logarithm, 0 and more.

        Args:
            seconds: since it was last seen; it may have changed as far as it does in that time.
        """
        return self._unlike(seen, self.mean, seconds)

    def _unlike(self, seen: NDArray, mean: NDArray, seconds: float = 0.0) -> float:
        """As `unlike`, of something that varies as the target does, with another mean, (C,)."""
        known = np.isfinite(seen) & np.isfinite(mean)
        if not known.any():
            return 0.0
        off = (seen - mean)[known]
        growth = np.clip(seconds, MEAN_S, LONGEST_S) / MEAN_S
        spread = self.spread[np.ix_(known, known)] * growth + FLOOR**2 * np.eye(len(off))
        distance = max(0.0, off @ np.linalg.solve(spread, off))  # rounding may leave less of a vast spread
        return float((TAILS + len(off)) / 2 * np.log1p(distance / TAILS))

    def _pixels(
        self, frame: RgbtFrame, registration: Registration, box: NDArray, share: float, samples: int = SAMPLES
    ) -> NDArray[np.float64]:
        """(P, C) grey levels of so many rows and columns in a (4,) xywh box of RGB pixels, or in a share of its sides
        around its centre."""
        x, y, width, height = boxes.xywh_to_cxcywh(box)
        line = share * ((np.arange(samples) + 0.5) / samples - 0.5)
        grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
        points = (grid * (width, height) + (x - 0.5, y - 0.5))[:, None]
        values = np.full((len(points), COUNT), np.nan)
        first = 0
        for name, image in zip(MODALITIES, frame.images):
            channels = slice(first, first + CHANNELS[name])
            first = channels.stop
            if image is not None and np.isfinite(self.units[channels]).all():
                matrix = registration.matrix(name, frame.size, (image.width, image.height))
                places = np.rint(cv2.perspectiveTransform(points, matrix)[:, 0]).astype(int)
                values[:, channels] = _at(image, places, CHANNELS[name])
        return values / self.units


def levels(frame: RgbtFrame) -> NDArray[np.float64]:
    """(C,) sensor values of whole images: the median of each channel; NaN where there is no image."""
    found = np.full(COUNT, np.nan)
    for first, (name, image) in zip(FIRST, zip(MODALITIES, frame.images)):
        if image is not None:
            line = (np.arange(LIGHT_SAMPLES) + 0.5) / LIGHT_SAMPLES
            places = np.stack(np.meshgrid(line * image.width, line * image.height), axis=-1).reshape(-1, 2)
            values = _at(image, places.astype(int), CHANNELS[name])
            values = values[np.isfinite(values).all(axis=1)]
            if len(values):
                found[first : first + CHANNELS[name]] = np.median(values, axis=0)
    return found


def _per_channel(of_modalities: ArrayLike) -> NDArray:
    """(C,) of something that each modality has: its value for all of its channels."""
    return np.repeat(np.asarray(of_modalities), list(CHANNELS.values()))


def _mode(pixels: NDArray, start: NDArray) -> NDArray[np.float64]:
    """(D,) where (P, D) pixels are densest, uphill from a place; that of the median if none is near it."""
    pixels = pixels[np.isfinite(pixels).all(axis=1)]
    if not len(pixels):
        return np.full(len(start), np.nan)
    found = start
    for _ in range(SHIFTS):
        share = weights(pixels, found)
        total = share.sum()
        if total < 1e-6:
            return np.median(pixels, axis=0)
        found = share @ pixels / total
    return found


def _at(image: Image, places: NDArray, channels: int) -> NDArray[np.float64]:
    """(P, C) values of an image at (P, 2) places x, y; NaN outside it, and where it has none."""
    columns, rows = places.T
    inside = (columns >= 0) & (columns < image.width) & (rows >= 0) & (rows < image.height)
    picked = image.pixels[rows[inside], columns[inside]].astype(np.float64)
    picked = picked[:, None] if picked.ndim == 1 else picked[:, :3]
    if channels == 1 and picked.shape[1] > 1:
        picked = picked.mean(axis=1, keepdims=True)
    picked[np.isinf(picked)] = np.nan
    values = np.full((len(places), channels), np.nan)
    values[inside] = picked
    return values
