"""What a search through crops has seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ckd_tracker_ros import boxes
from ckd_tracker_ros.calibration import doubted


@dataclass(frozen=True, eq=False)
class Sightings:
    """What may be a target, wherever it was looked for: the likeliest first.

    Attributes:
        boxes: (N, 4) xywh in RGB pixels.
        scores: (N,) of the network before any window, 0..1.
        doubts: (N,) by how much, as a logit, colours and heat are not the target's, see `looks.Looks.doubt`.
        crops: (N,) in which search crop each was seen.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    doubts: NDArray[np.float64]
    crops: NDArray[np.int64]

    @classmethod
    def of(cls, rows: NDArray) -> Sightings:
        """From (N, 7) rows, in any order, of a box, score, doubt and crop."""
        rows = rows[np.argsort(-doubted(rows[:, 4], rows[:, 5]), kind="stable")]
        return cls(rows[:, :4], rows[:, 4], rows[:, 5], rows[:, 6].astype(int))

    def __getitem__(self, chosen: NDArray | slice) -> Sightings:
        return Sightings(self.boxes[chosen], self.scores[chosen], self.doubts[chosen], self.crops[chosen])

    @property
    def likely(self) -> NDArray[np.float64]:
        """(N,) scores 0..1, lower where looks are doubted."""
        return doubted(self.scores, self.doubts)

    def plus(self, box: NDArray[np.float64], score: float, doubt: float) -> Sightings:
        """These and another one, which was seen in no crop of theirs: -1."""
        row = np.array([*box, score, doubt, -1])
        return Sightings.of(np.vstack([np.column_stack([self.boxes, self.scores, self.doubts, self.crops]), row]))

    def beside(self) -> Sightings:
        """The next one of the same crop as the first, if there is one."""
        return self[1:][self.crops[1:] == self.crops[0]][:1] if len(self.scores) else self

    def single(self, distance: float) -> Sightings:
        """The likeliest of all whose centres are within `distance` RGB pixels of each other."""
        centres = boxes.xywh_to_cxcywh(self.boxes)[:, :2]
        near = np.linalg.norm(centres[:, None] - centres, axis=-1) < distance
        kept: list[int] = []
        for number in range(len(self.scores)):
            if not near[number, kept].any():
                kept.append(number)
        return self[np.array(kept, int)]
