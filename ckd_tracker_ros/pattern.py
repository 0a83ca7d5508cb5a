"""Whose pixels are whose, where a target and things that look like it overlap.

The network draws one box around both. What most pixels of each have in common tells the two apart (`looks`), and where
in its box a target shows such pixels is learnt while it is alone. Where it stands beside another one, its box lies so
that where it shows them most are its own, and fewest are the other one's.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

SAMPLES, BORDER = 20, 4
"""Pixels read along each side of a target, and around it where its pattern has to stand out."""
BORDERED, WITHIN = SAMPLES + 2 * BORDER, slice(BORDER, BORDER + SAMPLES)
"""Along each side of a target with its border, and which of them are its own."""
AROUND, SURROUNDINGS = 2, 4
"""Whole numbers of sizes of its box: in which a target is placed, and in which others are sought when it is started."""
KERNEL = 25.0
"""Grey levels, as a standard deviation: pixels that far from the others are of something else."""
EVERY_S, LEARN_S = 0.1, 1.0
"""A pattern is learnt so often, in seconds, and what was seen so many seconds ago is forgotten by and by."""
FINEST, WIDE = 1.0, 8.0
"""Grey levels, as standard deviations: what pixels of one thing differ by at least; how much the means of two things
that look alike may differ."""
BELONGS, FOREIGN = 1.0, 4.0
"""Logarithms: how unlike its mean a pixel of a thing may be; how much one that is more unlike speaks against it."""
TELLING, MOST = 3.0, 3.0
"""How much further apart two things' pixels are than those of one, in the units of `FOREIGN`; and how much one pixel
can say about that, where 0.5 is expected of the target's, -0.5 of the other's."""
ENOUGH = 0.6
"""How much the pixels in one place can say together, in the units of `TELLING`: more than 0.5 is not the target's own,
but something else that is even less like the other one."""
APART, WELL_APART = 0.1, 0.2
"""Least squared distance of two things, in standard deviations of a pixel, which tells them apart; and the same where
one of them was seen but once."""
PULL, GAIN = 0.8, 0.2
"""What another place has to be better, a pixel: by the square of how many sizes it is away, and at least by so much."""
TWO, NO_WORSE, OTHERS = 0.2, 0.5, 0.25
"""There are two where the places of both are so many sizes apart, the other one's shows a thing no worse than by so
much a pixel, and its pixels say with so much of `TELLING` that they are not the target's."""
LEAST_CONTRAST, LEAST_ALIKE, SIMILAR = 0.6, 0.55, 0.65
"""Least correlation of a pattern with what is seen in its place and around it: of a target for anything to be told by
it, of something else for it to be an other, and the latter's share of the former."""
OWN, FEWEST, BESIDE = 0.5, 0.25, 0.5
"""From how much on a place shows the target's pixels; least share of these places that has to be seen of an other, and
how many sizes it is away at least."""


def weights(pixels: NDArray, mean: NDArray) -> NDArray[np.float64]:
    """(P,) 0..1: how much (P, D) pixels have a (D,) mean in common."""
    off = pixels - mean
    return np.exp(np.einsum("pd,pd->p", off, off) * (-0.5 / KERNEL**2))


@dataclass(frozen=True, eq=False)
class Pattern:
    """Where in its box a target shows the looks that most of its pixels have in common, and how they differ from them.

    Attributes:
        own: (SAMPLES, SAMPLES) 0..1 of each place, row by row: how much it shows them.
        grain: (C, C) covariance of those pixels about their mean, grey levels; (0, 0) where nothing was seen.
        contrast: -1..1, how well `own` is seen in its place and nowhere around it: correlation.
        seconds: for which it was learnt, `EVERY_S` each time.
        stamp_ns: when it was learnt last.
    """

    own: NDArray[np.float64] = field(default_factory=lambda: np.zeros((SAMPLES, SAMPLES)))
    grain: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    contrast: float = 0.0
    seconds: float = 0.0
    stamp_ns: int = 0

    @property
    def stands_out(self) -> bool:
        """Whether what is seen of the target is seen where it is, and not around it: else pixels tell nothing."""
        return self.contrast >= LEAST_CONTRAST

    @property
    def learnt(self) -> NDArray[np.intp]:
        """Numbers of the channels that it was learnt with."""
        return np.flatnonzero(np.diag(self.grain))

    def due(self, stamp_ns: int) -> bool:
        """Whether it is time to learn it again."""
        return not self.seconds or not 0 <= stamp_ns - self.stamp_ns < EVERY_S * 1e9

    def learned(self, pixels: NDArray, mean: NDArray, stamp_ns: int) -> Pattern:
        """After a target showed these pixels at this time, and nothing was in front of it.

        Args:
            pixels: (BORDERED squared, C) of its box and the border, row by row, grey levels; NaN outside the image.
            mean: (C,) what most have in common; NaN where no camera saw it.
        """
        known = np.isfinite(mean)
        seen = np.isfinite(pixels[:, known]).all(axis=1)
        off = np.where(seen[:, None] & known, pixels - np.where(known, mean, 0.0), 0.0)
        off, seen = (of.reshape(BORDERED, BORDERED, -1)[WITHIN, WITHIN].reshape(SAMPLES**2, -1) for of in (off, seen))
        share = weights(off, np.zeros(len(mean))) * seen[:, 0]
        if not known.any() or share.sum() < 1e-6:
            return self
        grain = np.einsum("p,pi,pj->ij", share, off, off) / share.sum()
        before = self.grain if len(self.grain) else np.zeros_like(grain)
        new = np.diag(before) == 0
        before = np.where(np.add.outer(new, new), grain, before)
        seconds = self.seconds + EVERY_S
        rate = EVERY_S / min(LEARN_S, seconds)
        grain = np.where(np.outer(known, known), before + rate * (grain - before), before)
        own = self.own + rate * (share.reshape(self.own.shape) - self.own) * seen.reshape(self.own.shape)
        now = replace(self, own=own, grain=grain, seconds=seconds, stamp_ns=stamp_ns)
        contrast = float(now._correlation(now._belongs(pixels, mean))[0, 0])
        return replace(now, contrast=self.contrast + rate * (contrast - self.contrast))

    def told_apart(self, mean: NDArray, other: NDArray, least: float = APART) -> bool:
        """Whether the pixels of two things with these means, (C,), NaN where not known, tell which of the two they are
        of."""
        known = np.isfinite(mean) & np.isfinite(other)
        if not known.any() or not len(self.grain):
            return False
        return bool(2 * _unlike(other[None, known], mean[known], self._precision(known, FINEST)) >= least)

    def alike(self, pixels: NDArray, mean: NDArray) -> list[NDArray[np.float64]]:
        """(P, C) pixels of each thing beside the target that has such as it has where it has them.

        Args:
            pixels: (SURROUNDINGS * SAMPLES squared, C) around it, row by row; NaN outside the image.
            mean: (C,) what most of its own have in common.
        """
        if not self.stands_out:
            return []
        side, own = SURROUNDINGS * SAMPLES, self.own >= OWN
        seen = self._correlation(self._belongs(pixels, mean))
        rows, columns = np.mgrid[: len(seen), : len(seen)] - len(seen) // 2
        summits = seen == cv2.dilate(seen, np.ones((SAMPLES // 2 + 1,) * 2))
        summits &= seen >= max(LEAST_ALIKE, SIMILAR * self.contrast)
        summits &= np.maximum(abs(rows), abs(columns)) >= BESIDE * SAMPLES
        free, low = np.isfinite(pixels).any(axis=1).reshape(side, side), (side - SAMPLES) // 2
        free[low : low + SAMPLES, low : low + SAMPLES] &= ~own
        found = []
        for place in zip(*np.nonzero(summits)):
            piece = tuple(slice(at + BORDER, at + BORDER + SAMPLES) for at in place)
            shown = own & free[piece]
            if shown.sum() >= FEWEST * own.sum():
                found.append(pixels.reshape(side, side, -1)[piece][shown])
        return found

    def places(
        self, pixels: NDArray, mean: NDArray, others: NDArray, spread: NDArray
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Where the target is, and where another thing that it overlaps: x and y, (2,), in sizes of its box, from where
        it was seen.

        Args:
            pixels: (AROUND * SAMPLES squared, C) around that place, row by row; NaN outside the image.
            mean: (C,) what most of its own have in common.
            others: (K, C) the same of things that look like it.
            spread: (C, C) how much these means vary.

        Returns:
            Both; the second is None where there is no other thing, or nothing can be told.
        """
        here, side = np.zeros(2), AROUND * SAMPLES
        known = np.isfinite(mean) & np.isfinite(pixels).any(axis=0)
        others = others[np.isfinite(others[:, known]).all(axis=1)][:, known]
        if not self.stands_out or not len(others) or not known[self.learnt].all() or not known.any():
            return here, None  # to one camera of two much looks like the target that to both does not
        precision = self._precision(known, FINEST, spread)
        apart = 2 * _unlike(others, mean[known], precision)
        if not (apart >= APART).any():
            return here, None
        nearest = np.argmin(np.where(apart >= APART, apart, np.inf))  # the others are clutter beside it
        inside = np.isfinite(pixels[:, known]).all(axis=1)
        pixels = np.where(inside[:, None], pixels[:, known], 0.0)
        own = -_unlike(pixels, mean[known], precision)
        foreign = -_unlike(pixels, others[nearest], precision)
        either = np.where(inside, np.maximum(own, foreign), -np.inf)
        told = TELLING * np.clip((own - foreign) / apart[nearest], -MOST, MOST) * (either > -BELONGS - FOREIGN)
        shows, says = (self._mean(of.reshape(side, side)) for of in (_clipped(either), told))
        says = np.minimum(says, ENOUGH * TELLING)
        steps = (np.arange(len(shows)) - len(shows) // 2) / SAMPLES
        value = shows + says - PULL * (steps[:, None] ** 2 + steps**2)
        target, other = (np.unravel_index(of.argmax(), of.shape) for of in (value, shows - says))
        place, beside = (steps[list(at)][::-1] for at in (target, other))
        two = np.abs(place - beside).max() >= TWO
        two &= shows[other] >= shows[target] - NO_WORSE and says[other] < -OTHERS * TELLING
        better = value[target] - value[len(steps) // 2, len(steps) // 2] >= GAIN
        return place if better else here, beside if two else None

    def _precision(self, known: NDArray, spread: float, of_means: NDArray | None = None) -> NDArray[np.float64]:
        """(D, D) inverse covariance of those channels, (C,), of pixels of things whose means vary by so much."""
        covariance = self.grain if of_means is None else self.grain + of_means
        return np.linalg.inv(covariance[np.ix_(known, known)] + spread**2 * np.eye(known.sum()))

    def _belongs(self, pixels: NDArray, mean: NDArray) -> NDArray[np.float64]:
        """(S, S) logarithm, 0 and less, of how like those of something that looks like the target (S * S, C) pixels
        are."""
        known, side = np.isfinite(mean), round(len(pixels) ** 0.5)
        inside = np.isfinite(pixels[:, known]).all(axis=1)
        some = np.where(inside[:, None], pixels[:, known], 0.0)
        like = np.where(inside, -_unlike(some, mean[known], self._precision(known, WIDE)), -np.inf)
        return _clipped(like).reshape(side, side)

    def _mean(self, value: NDArray) -> NDArray[np.float64]:
        """For each place of its box in a map, the mean of what is in it where it shows its own pixels."""
        sums = cv2.matchTemplate(value.astype(np.float32), self.own.astype(np.float32), cv2.TM_CCORR)
        return sums / self.own.sum()

    def _correlation(self, belongs: NDArray) -> NDArray[np.float64]:
        """-1..1 for each place of its box and border in a map: how well its pattern is seen there."""
        pattern = np.pad(self.own, BORDER).astype(np.float32)
        found = cv2.matchTemplate(belongs.astype(np.float32), pattern, cv2.TM_CCOEFF_NORMED)
        return np.where(np.abs(found) <= 1.001, found, 0.0)  # rounding where nothing varies


def _clipped(like: NDArray) -> NDArray[np.float64]:
    """Logarithms of how like a thing's pixels some are, -inf outside the image, as far as they count."""
    return np.clip(like + BELONGS, -FOREIGN, 0.0)


def _unlike(pixels: NDArray, mean: NDArray, precision: NDArray) -> NDArray[np.float64]:
    """(P,) half the squared distance of (P, D) pixels from a mean."""
    off = pixels - mean
    return 0.5 * np.einsum("pi,ij,pj->p", off, precision, off)
