"""What a search through crops has seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ckd_tracker_ros import boxes
from ckd_tracker_ros.calibration import doubted
from ckd_tracker_ros.looks import COUNT


@dataclass(frozen=True, eq=False)
class Sightings:
    """What may be a target, wherever it was looked for: the likeliest first.

    Attributes:
        boxes: (N, 4) xywh in RGB pixels.
        scores: (N,) of the network before any window, 0..1.
        doubts: (N,) by how much, as a logit, colours and heat are not the target's, see `looks.Looks.doubt`.
        crops: (N,) in which search crop each was seen.
        looks: (N, C) which colours and which heat each has, see `looks.Looks.read`; NaN where it was not looked at.
        squares: (M, 3) centre x, y and side in RGB pixels of the search crops in which it was looked for.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    doubts: NDArray[np.float64]
    crops: NDArray[np.int64]
    looks: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def of(cls, rows: NDArray, looks: NDArray | None = None, squares: ArrayLike = ()) -> Sightings:
        """From (N, 7) rows, in any order, of a box, score, doubt and crop, and the looks of each if any are known."""
        looks = np.full((len(rows), COUNT), np.nan) if looks is None else looks
        order = np.argsort(-doubted(rows[:, 4], rows[:, 5]), kind="stable")
        rows, squares = rows[order], np.reshape(np.asarray(squares, np.float64), (-1, 3))
        return cls(rows[:, :4], rows[:, 4], rows[:, 5], rows[:, 6].astype(int), looks[order], squares)

    def __getitem__(self, chosen: NDArray | slice) -> Sightings:
        boxes, scores, doubts = self.boxes[chosen], self.scores[chosen], self.doubts[chosen]
        return Sightings(boxes, scores, doubts, self.crops[chosen], self.looks[chosen], self.squares)

    @property
    def likely(self) -> NDArray[np.float64]:
        """(N,) scores 0..1, lower where looks are doubted."""
        return doubted(self.scores, self.doubts)

    @property
    def known_doubts(self) -> NDArray[np.float64]:
        """(N,) `doubts`, NaN where looks were not looked at."""
        return np.where(np.isfinite(self.looks).any(axis=1), self.doubts, np.nan)

    def plus(self, box: NDArray[np.float64], score: float, doubt: float, looks: NDArray[np.float64]) -> Sightings:
        """These and another one, which was seen in no crop of theirs: -1."""
        row = np.array([*box, score, doubt, -1])
        rows = np.vstack([np.column_stack([self.boxes, self.scores, self.doubts, self.crops]), row])
        return Sightings.of(rows, np.vstack([self.looks, looks]), self.squares)

    def looked_at(self, places: NDArray[np.float64], share: float) -> NDArray[np.bool_]:
        """(K,) whether a search crop had (K, 2) places in its middle, `share` sides of it from its centre at most."""
        off = np.abs(places[:, None] - self.squares[:, :2])
        return (off <= share * self.squares[:, 2:]).all(axis=-1).any(axis=-1)

    def beside(self) -> Sightings:
        """The next one of the same crop as the first, if there is one."""
        return self[1:][self.crops[1:] == self.crops[0]][:1] if len(self.scores) else self

    def single(self, distance: float, first: NDArray[np.bool_]) -> Sightings:
        """The likeliest of all whose centres are within `distance` RGB pixels of each other.

        Args:
            first: (N,) which of them come before the others, however likely those are.
        """
        centres = boxes.xywh_to_cxcywh(self.boxes)[:, :2]
        near = np.linalg.norm(centres[:, None] - centres, axis=-1) < distance
        kept: list[int] = []
        for number in np.argsort(~first, kind="stable"):
            if not near[number, kept].any():
                kept.append(number)
        return self[np.sort(np.array(kept, int))]
