"""Whose peak it is, where a look-alike may be near: the target's, or that of what claims the place (`Motion.claims`).

Two that stand a width apart have a peak each, which change places as the higher one from frame to frame. Closer
together they are one peak for a while, on whose slope there may still be cells whose boxes are the target's: a cell is
judged by where its box lies. Where there are none, of a box around both or of the look-alike's, the target is where it
was expected to be: what was seen was not it, or not it alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ckd_tracker_ros import boxes
from ckd_tracker_ros.crop import Peak, Square, find_peak, meant, place_in_image, to_image
from ckd_tracker_ros.motion import Motion

SEEN = 0.1
"""Score from which on something is seen in a place."""
APART = 2.0
"""Cells from the winner from which on something else is not the target itself."""
TWO_BOXES = 1.5
"""So many cells apart are the boxes of two things, where cells of one peak stand for both."""
UNLIKE_ITSELF = 2.0
"""By how much more, as a logit, what is where the target should be is doubted than what is where a look-alike was, for
the target to be the latter after all: the two were mixed up before."""
AROUND_BOTH, COMPARABLE = 1.2, 0.5
"""A box that is so much wider or higher in one step, and has a look-alike's place in it, whose score was at least such
a share of its own, is around both."""


class Contest(NamedTuple):
    """What came of it.

    Attributes:
        peak: that is believed to be the target's, or to hide it.
        others: (N, 3) what is seen of other things, as in `Peak`.
        put_off: whether a higher one, or all that is seen, was not believed to be the target's.
        hidden: whether the target was not seen apart from a look-alike: it is where it was expected.
    """

    peak: Peak
    others: NDArray[np.float64]
    put_off: bool = False
    hidden: bool = False

    @classmethod
    def won_by(cls, peak: Peak, put_off: bool = False) -> Contest:
        """It is the target's, and whatever else is seen is not."""
        return cls(peak, peak.others, put_off)


def decide(
    maps: tuple[NDArray, NDArray, NDArray],
    window: NDArray[np.float64],
    doubts: NDArray[np.float64],
    motion: Motion,
    expected: NDArray[np.float64],
    square: Square,
    crop_size: int,
) -> Contest:
    """Which peak is the target's.

    Args:
        maps: score (1, F, F), size and offset (2, F, F) of a search crop.
        window: (F, F) weights of the scores.
        doubts: (F, F) by how much, as a logit, what is in each cell is not the target by its looks.
        motion: of the target.
        expected: (4,) xywh, RGB pixels, where the target should be: the middle of the crop.
        square: that was cut out.
        crop_size: side of the crop in pixels.
    """
    peak, grid = find_peak(*maps, window), len(window)
    box = to_image(peak.box, square, crop_size)
    place = boxes.xywh_to_cxcywh(box)[:2]
    wider = bool((box[2:] / expected[2:]).max() >= AROUND_BOTH)
    both = wider and motion.claims_in(box, expected, COMPARABLE * peak.score)
    if not (both or motion.claims(place, expected)):
        return Contest.won_by(peak)
    shown = meant(maps[2])
    claimed = motion.claims(place_in_image(shown, square, crop_size), expected)
    own = find_peak(*maps, np.where(claimed | _of(peak, shown), 0.0, window))
    jumped = own.score < SEEN  # the view may have, and both with it
    if jumped:
        own = find_peak(*maps, np.where(claimed, 0.0, window))
    off = np.abs(own.box[:2] - peak.box[:2]).max()
    a_summit = np.isclose(peak.others[:, :2], own.box[:2]).all(axis=1).any()
    if off > TWO_BOXES / grid or a_summit:
        unlike = at(doubts, own.box[:2]) - at(doubts, peak.box[:2])
        return Contest.won_by(own, put_off=True) if unlike < UNLIKE_ITSELF else Contest.won_by(peak)
    on_it = not jumped and motion.claims(place, expected, in_full=True)
    if not (both or on_it):
        return Contest.won_by(peak)
    others = peak.others[np.abs(peak.others[:, :2] - 0.5).max(axis=1) > APART / grid]
    if on_it:
        others = np.vstack([[*peak.box[:2], peak.score], others])
    return Contest(peak, others, put_off=True, hidden=True)


def at(cells: NDArray[np.float64], places: NDArray) -> NDArray[np.float64]:
    """(...) values of an (F, F) map at (..., 2) places x, y in units of the crop."""
    columns, rows = np.moveaxis(np.clip((places * len(cells)).astype(int), 0, len(cells) - 1), -1, 0)
    return cells[rows, columns]


def middles(grid: int) -> NDArray[np.float64]:
    """(F, F, 2) x and y of the middle of each cell, in units of the crop."""
    return meant(np.full((2, grid, grid), 0.5))


def _of(peak: Peak, shown: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(F, F) which cells, of boxes with (F, F, 2) centres, show what is in a peak rather than in the crop's middle."""
    off = shown - peak.box[:2]
    nearer = np.linalg.norm(off, axis=-1) < np.linalg.norm(shown - 0.5, axis=-1)
    return nearer & (np.abs(off).max(axis=-1) <= APART / len(shown))
