"""Which camera can be believed: frozen, black, saturated and covered images become absent ones.

Nothing here remembers: what was seen so far is a `Watch` that is handed in and out, so that the node and an offline run
of the same frames agree. A wrong alarm costs more than a miss, so whatever a coarse grid suspects is confirmed on all
pixels, and the last image that is left is never taken away.
"""

from __future__ import annotations

import functools
import math
import zlib
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from ckd_tracker_ros.frame import MODALITIES, Image, RgbtFrame

ON_MISSING = ("degrade", "wait")
NO_RGB_YET = "no RGB image has come yet: boxes are taken to be in pixels of the thermal image, {}x{}"
"""A warning where targets are started all the same."""

_GRID_PIXELS = 2048
_GAP = 10  # timeouts between two frames, after which nothing is concluded from what came before
_KNOWN = 10  # changes after which it is known how long a stream stands still: a slow camera's driver may repeat images
_STILL, _KEEP_USUAL = 1.9, 0.95  # times that, it is frozen; share of it that is remembered at each change
_AGAIN_NS = 100_000_000  # between two looks at all pixels of images that hold nothing and go on to look like it
_CELL = 4  # pixels that are averaged to confirm: noise and dead pixels shrink, a target of 8 px fills one cell
_BLACK, _WHITE = 6.0, 250.0  # of 8 bits: no cell of a black image is brighter, none of a saturated one darker
_FLAT = 6.0  # of 8 bits: the cells of a covered image differ by less
_NOISE_RANGE = 9.0  # standard deviations between the extremes of cells that hold nothing but noise
_RELATED = 0.1  # correlation of neighbours: noise alone stays below


class Verdict(str, Enum):
    """What is thought of one camera's image."""

    OK = "ok"
    MISSING = "missing"
    FROZEN = "frozen"
    BLACK = "black"
    SATURATED = "saturated"
    COVERED = "covered"


@dataclass(frozen=True)
class ModalitySettings:
    """What to do about cameras that give nothing.

    Attributes:
        timeout: seconds after which a silent or unchanging camera is no longer waited for or believed;
            one whose images usually change more often is disbelieved sooner when they do not.
        on_missing: `degrade` goes on with the other camera, `wait` waits until both can be believed.

    Raises:
        ValueError: a timeout that is not above 0, or another word.
    """

    timeout: float = 0.3
    on_missing: str = ON_MISSING[0]

    def __post_init__(self) -> None:
        if not (math.isfinite(self.timeout) and self.timeout > 0):
            raise ValueError(f"modality.timeout is {self.timeout}; allowed: above 0")
        if self.on_missing not in ON_MISSING:
            raise ValueError(f"modality.on_missing is {self.on_missing!r}; allowed: {', '.join(ON_MISSING)}")

    @property
    def degrade(self) -> bool:
        """Whether to go on with one camera."""
        return self.on_missing == "degrade"

    @property
    def silence(self) -> float | None:
        """`PairingSettings.timeout`."""
        return self.timeout if self.degrade else None


@dataclass(frozen=True)
class Seen:
    """What is remembered of one stream.

    Attributes:
        fingerprint: of the last image, None before the first.
        changed_ns: stamp of the first frame with that image.
        changes: how often it has changed.
        usual_ns: how long it stands still between two changes at most, as far as it did so lately.
        suspect: what its images have looked like since `since_ns`, without a break; OK for nothing wrong.
        since_ns: stamp.
        looked_ns: stamp of the last frame of which all pixels were looked at.
    """

    fingerprint: int | None = None
    changed_ns: int = 0
    changes: int = 0
    usual_ns: float = 0
    suspect: Verdict = Verdict.OK
    since_ns: int = 0
    looked_ns: int = 0


@dataclass(frozen=True)
class Watch:
    """What was seen so far; opaque to clients.

    Attributes:
        streams: per modality.
        believed: per modality, whether its image was handed on in the last frame.
        rgb_size: width and height of the last RGB image: boxes are in its pixels, also without it.
        stamp_ns: of the last frame.
    """

    streams: tuple[Seen, ...] = field(default_factory=lambda: tuple(Seen() for _ in MODALITIES))
    believed: tuple[bool, ...] = (True,) * len(MODALITIES)
    rgb_size: tuple[int, int] | None = None
    stamp_ns: int = 0


def check(
    watch: Watch, frame: RgbtFrame, settings: ModalitySettings
) -> tuple[Watch, RgbtFrame | None, tuple[Verdict, ...]]:
    """Judge the images of a frame.

    Returns:
        What to hand in with the next frame; the frame without the images that cannot be believed, never without all of
        them, and with whether any of the others is `repeated`, or None where `wait` waits for a better one; a verdict
        per modality.
    """
    now, timeout_ns = frame.stamp_ns, round(settings.timeout * 1e9)
    if not 0 <= now - watch.stamp_ns <= _GAP * timeout_ns:  # a looped bag, a clock set: times of before mean nothing
        watch = replace(watch, streams=tuple(Seen() for _ in MODALITIES))
    streams = tuple(
        seen if image is None else _seen(seen, image, now)
        for seen, image in zip(watch.streams, frame.images, strict=True)
    )
    newest = max((seen.changed_ns for seen in streams if seen.fingerprint is not None), default=now)
    verdicts = tuple(
        _verdict(seen, image, newest, now, timeout_ns) for seen, image in zip(streams, frame.images, strict=True)
    )
    rgb = frame.images[0]
    size = watch.rgb_size if rgb is None else (rgb.width, rgb.height)
    if not settings.degrade and problem(verdicts):
        return Watch(streams, watch.believed, size, now), None, verdicts
    images = _believed(frame.images, verdicts, watch.believed)
    believed = tuple(image is not None for image in images)
    repeated = any(good and seen.changed_ns != now for good, seen in zip(believed, streams, strict=True))
    frame = replace(frame, images=images, rgb_size=size, repeated=repeated)
    return Watch(streams, believed, size, now), frame, verdicts


def problem(verdicts: tuple[Verdict, ...]) -> str:
    """Which cameras cannot be believed, and why; "" when all can."""
    wrong = [(name, verdict) for name, verdict in zip(MODALITIES, verdicts, strict=True) if verdict is not Verdict.OK]
    return "; ".join(f"{name} images are {verdict.value}" for name, verdict in wrong)


def _believed(
    images: tuple[Image | None, ...], verdicts: tuple[Verdict, ...], before: tuple[bool, ...]
) -> tuple[Image | None, ...]:
    """The images that are fine; where none is, those that were believed last; else as they are."""
    for keep in ([verdict is Verdict.OK for verdict in verdicts], before):
        kept = tuple(image if good else None for image, good in zip(images, keep, strict=True))
        if any(image is not None for image in kept):
            return kept
    return images


def _seen(seen: Seen, image: Image, now: int) -> Seen:
    stride = max(1, math.isqrt(image.width * image.height // _GRID_PIXELS))
    grid = np.ascontiguousarray(image.pixels[stride // 2 :: stride, stride // 2 :: stride])
    fingerprint = zlib.crc32(grid)
    if fingerprint != seen.fingerprint:
        usual = max(_KEEP_USUAL * seen.usual_ns, now - seen.changed_ns if seen.changes else 0)
        seen = replace(
            seen, fingerprint=fingerprint, changed_ns=now, changes=min(seen.changes + 1, _KNOWN), usual_ns=usual
        )
    suspect = Verdict.OK
    if _suspicious(grid):
        if seen.suspect is not Verdict.OK and now - seen.looked_ns < _AGAIN_NS:
            return seen
        suspect, seen = _look(image), replace(seen, looked_ns=now)
    return seen if suspect is seen.suspect else replace(seen, suspect=suspect, since_ns=now)


def _verdict(seen: Seen, image: Image | None, newest: int, now: int, timeout_ns: int) -> Verdict:
    if image is None:
        return Verdict.MISSING
    if seen.suspect in (Verdict.BLACK, Verdict.SATURATED):
        return seen.suspect
    if seen.suspect is Verdict.COVERED and now - seen.since_ns > timeout_ns:  # fog may pass; a cover stays
        return Verdict.COVERED
    # The other one has changed for longer since this one did than it may: not so in a scene where nothing moves.
    longest = min(timeout_ns, _STILL * seen.usual_ns) if seen.changes == _KNOWN else timeout_ns
    return Verdict.FROZEN if newest - seen.changed_ns > longest else Verdict.OK


def _suspicious(grid: NDArray) -> bool:
    """Whether a grid of pixels gives cause to look at all of them."""
    one = grid if grid.ndim == 2 else grid[..., 1]  # of the channels: cheap, and only a first look
    return _flat(_finite(one), grid.dtype == np.uint8, averaged=False)


def _look(image: Image) -> Verdict:
    """What one image looks like, from all its pixels."""
    eight_bits = image.pixels.dtype == np.uint8
    if min(image.width, image.height) < 4 * _CELL:
        return Verdict.OK  # too small to tell
    if eight_bits:  # in whole numbers it takes a third of the time, and is at most 1 off
        cells = _cells(image.pixels)
        low, high = int(cells.min()), int(cells.max())
        if high <= _BLACK - 1:
            return Verdict.BLACK
        if low >= _WHITE + 1:
            return Verdict.SATURATED
        if high - low > _FLAT + 2:
            return Verdict.OK
    cells = _cells(_finite(image.pixels))
    if eight_bits and cells.max() <= _BLACK:
        return Verdict.BLACK
    if eight_bits and cells.min() >= _WHITE:
        return Verdict.SATURATED
    return Verdict.COVERED if _flat(cells, eight_bits, averaged=True) else Verdict.OK


def _finite(pixels: NDArray) -> NDArray[np.float32]:
    """The same as float32; what is not finite becomes 0."""
    values = pixels.astype(np.float32)
    return values if pixels.dtype.kind == "u" else np.nan_to_num(values, copy=False, posinf=0, neginf=0)


def _cells(pixels: NDArray) -> NDArray:
    """(H, W) or (H, W, C) -> means over squares of `_CELL` pixels; the brightest of the first three channels."""
    import cv2  # here, so that the command line has the settings' defaults without it

    for _ in range(_CELL.bit_length() - 1):  # halves are what OpenCV is quick at
        pixels = cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return pixels if pixels.ndim == 2 else functools.reduce(np.maximum, (pixels[..., c] for c in range(3)))


def _flat(values: NDArray[np.float32], eight_bits: bool, averaged: bool) -> bool:
    """Whether (H, W) values hold nothing: all alike, or noise whose neighbours have nothing in common."""
    low, high = float(values.min()), float(values.max())
    if eight_bits and not averaged:  # room for noise: the cells decide
        return high - low <= 4 * _FLAT
    if averaged and eight_bits and high - low > _FLAT:
        return False
    centred = values - values.mean()
    spread = math.sqrt(float(np.vdot(centred, centred)) / centred.size)
    if high - low > _NOISE_RANGE * spread:
        return False
    if spread <= 1e-6 * max(abs(high), 1.0):
        return True
    related = [
        float(np.vdot(a, b)) / a.size for a, b in ((centred[1:], centred[:-1]), (centred[:, 1:], centred[:, :-1]))
    ]
    return max(map(abs, related)) < _RELATED * spread**2
