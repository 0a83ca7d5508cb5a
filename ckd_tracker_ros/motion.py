"""How a target moves: where its next search crop lies, and how far from there a score is believed.

An alpha-beta filter whose gains are the scores. The window is as wide as the target has been surprising: a steady
target that is well seen is looked for close to where it should be, so that a look-alike far away does not take its
place; one whose scores are low, or which moves in jumps because frames are far apart, is looked for further around.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ckd_tracker_ros import boxes
from ckd_tracker_ros.calibration import doubted

Box = NDArray[np.float64]

NEAREST, WIDEST = 0.3, 0.9
"""Smallest and largest spread of the window, and the spread at the start is the largest; in sizes of the target."""
UNSEEN = 0.6
"""Spread of a target that is not seen at all, in sizes of the target."""
FAR = 0.1
"""Weight of a score far away, where no look-alike has been seen."""
REACH = 0.7
"""How far around its place a look-alike is reckoned with, in sizes of the target."""
KEEP_RIVAL, FORGOTTEN = 0.97, 0.05
"""Share of a look-alike's score that still counts where it was seen, a step; what counts for less is forgotten."""
MOST_RIVALS = 8
"""How many look-alikes are remembered: the best."""
LEARN_SPREAD = 0.1
LEARN_VELOCITY = 0.3
KEEP_VELOCITY = 0.9
"""Shares a step; the gains are times the score."""
TRUST_PLACE = 0.5
"""Exponent of the score in the share of the way from the expected to the found place."""
CLOSE, CLOSE_SCORE, CLOSE_S = 0.9, 0.2, 1.0
"""A look-alike that is nearer than so many widths and heights, and likely enough to be the target, may be mistaken for
it for so many seconds from then on: where two are in one place there is but one to be seen. Where pixels tell the two
apart its score counts, whatever its looks: a box soon lies around both."""
CLAIM_SCORE, CLAIM_S = 0.1, 0.2
"""A look-alike that scored so much, so many seconds ago at most, claims what is seen in its place."""
CLAIM_FROM, CLAIM_REACH = 0.3, 0.5
"""From how far on from where the target should be, and how far around itself, in sizes of the target."""
MERGED_S = 0.6
"""So many seconds after one was seen by itself it may still be in a box that is around both."""
PUT_OFF_S = 0.6
"""For so long, in seconds, what scores higher in a claimed place than the target in its own is not the target; and for
as long as it is not believed, or on trial: then a search says where else it is."""
STEP_S = 1 / 30
"""Time of a step that the shares are for, and of one whose stamps do not say."""
SHORTEST_S, LONGEST_S = 1 / 60, 0.5
"""No velocity is learned from less, where errors would count most; nothing is predicted further ahead than that."""


@dataclass(frozen=True, eq=False)
class Motion:
    """What is known of how a target moves.

    Attributes:
        stamp_ns: of the last frame.
        velocity: (2,) of the centre, RGB pixels per second.
        spread: root mean square of how far it was from where it was expected, in sizes (sqrt(width * height)).
        rivals: (N, 5) look-alikes of the last seconds: x and y in RGB pixels, score 0..1, by how much, as a logit,
            their looks are not the target's, and seconds since they were seen; those that count for most first.
        crowded: seconds for which one of them may still be mistaken for it, see `CLOSE`.
        put_off: seconds for which it would have been found in the place of one of them, see `PUT_OFF_S`.
    """

    stamp_ns: int
    velocity: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    spread: float = WIDEST
    rivals: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 5)))
    crowded: float = 0.0
    put_off: float = 0.0

    def scaled(self, factor: float) -> Motion:
        """In images that are so much larger."""
        return replace(self, velocity=self.velocity * factor, rivals=self.rivals * (factor, factor, 1, 1, 1))

    def elapsed(self, stamp_ns: int) -> float:
        """Seconds since the last frame; a usual step where stamps are unset, stand still or go back."""
        seconds = (stamp_ns - self.stamp_ns) / 1e9
        return min(seconds, LONGEST_S) if seconds > 0 else STEP_S

    def expected(self, box: Box, stamp_ns: int) -> Box:
        """(4,) xywh: the last box where it should be at a time."""
        return np.concatenate([box[:2] + self.velocity * self.elapsed(stamp_ns), box[2:]])

    def window(self, grid: int, factor: float, expected: Box) -> NDArray[np.float64]:
        """(grid, grid) weights of the scores around the (4,) xywh box where the target is expected, 1 at its centre.

        Nowhere less than `FAR` where no look-alike was seen: what is there now is the target after a jump. Where one
        was seen, what is seen now is that.

        Args:
            grid: cells along a side of the search crop.
            factor: side of the search crop in sizes of the target.
        """
        cells = ((np.arange(grid) + 0.5) / grid - 0.5) * factor
        near = _bells(cells, np.zeros((1, 2)), float(np.clip(self.spread, NEAREST, WIDEST)))[0]
        places = (self.rivals[:, :2] - boxes.xywh_to_cxcywh(expected)[:2]) / np.sqrt(np.prod(expected[2:]))
        taken = (_bells(cells, places, REACH) * _counting(self.rivals)[:, None, None]).max(axis=0, initial=0.0)
        far = FAR * (1 - taken) ** 2
        return far + (1 - far) * near

    def claims(self, places: NDArray, expected: Box, in_full: bool = False) -> NDArray[np.bool_]:
        """(...) whether (..., 2) places x, y in RGB pixels are nearer to a look-alike, which was seen there just now,
        than to where the target is expected, in a (4,) xywh box: what is seen there is it, unless that goes on.

        Args:
            in_full: whether the look-alike has to be just there, and the target far off.
        """
        size = np.sqrt(np.prod(expected[2:]))
        rivals = self._claiming(expected)
        away = np.linalg.norm(places[..., None, :] - rivals, axis=-1).min(axis=-1, initial=np.inf) / size
        moved = np.linalg.norm(places - boxes.xywh_to_cxcywh(expected)[:2], axis=-1) / size
        if in_full:
            return (away < CLAIM_REACH / 2) & (moved > CLAIM_REACH)
        return (away < moved) & (away < CLAIM_REACH)

    def claims_in(self, box: Box, expected: Box, least: float = CLAIM_SCORE) -> bool:
        """Whether a look-alike that was seen lately, with such a score at least, is inside a (4,) xywh box."""
        off = np.abs(self._claiming(expected, MERGED_S, least) - boxes.xywh_to_cxcywh(box)[:2])
        return bool((off < box[2:] / 2).all(axis=1).any())

    def _claiming(self, expected: Box, seconds: float = CLAIM_S, least: float = CLAIM_SCORE) -> NDArray[np.float64]:
        """(N, 2) x and y, RGB pixels, of the look-alikes that claim a place: seen so many seconds ago at most, with
        such a score at least, and not put off for too long."""
        if self.put_off >= PUT_OFF_S:
            return np.zeros((0, 2))
        away = np.linalg.norm(self.rivals[:, :2] - boxes.xywh_to_cxcywh(expected)[:2], axis=1)
        claims = (self.rivals[:, 2] >= max(least, CLAIM_SCORE)) & (self.rivals[:, 4] <= seconds)
        return self.rivals[claims & (away >= CLAIM_FROM * np.sqrt(np.prod(expected[2:]))), :2]

    def seen(
        self,
        expected: Box,
        found: Box,
        score: float,
        rivals: NDArray,
        stamp_ns: int,
        put_off: bool = False,
        told_apart: bool = False,
    ) -> tuple[Motion, Box]:
        """After the network found a target in a (4,) xywh box, with a score in 0..1, that was expected in another.

        Args:
            rivals: (N, 4) what scores high elsewhere, the first four columns of `rivals`.
            put_off: whether something scored higher in a place that is claimed, see `claims`.
            told_apart: whether pixels tell the target from a look-alike that overlaps it.

        Returns:
            How it moves now, and the box that is believed: the lower the score, the nearer to the expected place.
        """
        off = (boxes.xywh_to_cxcywh(found) - boxes.xywh_to_cxcywh(expected))[:2]
        surprise = float(off @ off) / float(np.prod(expected[2:]))
        aim = score * surprise + (1 - score) * UNSEEN**2
        spread = np.sqrt(self.spread**2 + LEARN_SPREAD * (aim - self.spread**2))
        velocity = KEEP_VELOCITY * self.velocity + LEARN_VELOCITY * score * off / max(
            self.elapsed(stamp_ns), SHORTEST_S
        )
        believed = np.concatenate([found[:2] - (1 - score**TRUST_PLACE) * off, found[2:]])
        overlapping = np.abs(rivals[:, :2] - boxes.xywh_to_cxcywh(believed)[:2]) < CLOSE * believed[2:]
        likely = rivals[:, 2] if told_apart else doubted(rivals[:, 2], rivals[:, 3])
        close = (overlapping.all(axis=1) & (likely >= CLOSE_SCORE)).any()
        crowded = CLOSE_S if close else max(0.0, self.crowded - self.elapsed(stamp_ns))
        known = self._remembered(believed, rivals, self.elapsed(stamp_ns))
        waits = self.put_off + self.elapsed(stamp_ns) if put_off else 0.0
        return Motion(stamp_ns, velocity, float(min(spread, WIDEST)), known, crowded, waits), believed

    def _remembered(self, box: Box, rivals: NDArray, seconds: float) -> NDArray[np.float64]:
        """The look-alikes seen now, and earlier ones that neither they nor the target stand in place of.

        One that claims a place is remembered close to the target, too: two that meet are one peak for a while.

        Args:
            seconds: since the last frame.
        """
        size, earlier = float(np.sqrt(np.prod(box[2:]))), self.rivals + np.array([0, 0, 0, 0, seconds])
        away = np.linalg.norm(earlier[:, None, :2] - rivals[:, :2], axis=-1).min(axis=1, initial=np.inf)
        off = np.linalg.norm(earlier[:, :2] - boxes.xywh_to_cxcywh(box)[:2], axis=-1)
        claims = (earlier[:, 2] >= CLAIM_SCORE) & (earlier[:, 4] <= MERGED_S)
        earlier = earlier[(away > REACH * size) & (off > np.where(claims, CLAIM_FROM, REACH) * size)]
        known = np.concatenate([np.column_stack([rivals, np.zeros(len(rivals))]), earlier])
        counting = _counting(known)
        order = np.argsort(-counting, kind="stable")
        return known[order[counting[order] >= FORGOTTEN]][:MOST_RIVALS]


def _counting(rivals: NDArray) -> NDArray[np.float64]:
    """(N,) scores of (N, 5) look-alikes, as far as they still count where they were seen."""
    return rivals[:, 2] * KEEP_RIVAL ** (rivals[:, 4] / STEP_S)


def _bells(cells: NDArray, places: NDArray, width: float) -> NDArray[np.float64]:
    """(N, F, F) Gaussians, 1 at their (N, 2) places x, y, over the (F,) places of a square grid's columns and rows."""
    columns, rows = np.exp(-0.5 * ((cells - places.T[..., None]) / width) ** 2)
    return rows[:, :, None] * columns[:, None, :]
