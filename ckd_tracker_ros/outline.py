"""Where a target ends, by the one box that is known: how the network reads it corrects how it is read later.

A network that was trained on people may end a target at its hips where the user drew it to the feet. It does so in all
frames alike: on held-back sequences its error of height in the first frame, where the truth is known, is that of the
later ones (correlation 0.9), so the error is measured there, from several views, and taken away ever after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ckd_tracker_ros import boxes

Box = NDArray[np.float64]

VIEWS = ((0, 0, 1), (0, 0, 0.8), (0, 0, 1.25), (0.3, 0, 1), (-0.3, 0, 1), (0, 0.3, 1), (0, -0.3, 1))
"""Search crops of the first frame: right and down by sizes (sqrt(width * height)) of the target, and how large."""
VIEWS_OF_SOME = VIEWS[:3]
"""Those in which it is also read with some of the cameras alone, in case the others go."""
OWN_CELLS = 1.6
"""How far from its known centre a target's own scores are, in cells of the score map."""
TRUST = np.array([0.5, 0.35, 0.6, 0.95])
"""Shares of the errors of x, y, width and height that come back, as regression of later on first errors has it."""
LARGEST_SHIFT, LARGEST_GROWTH = 0.3, 1.0


@dataclass(frozen=True, eq=False)
class Outline:
    """What the network adds to a target's boxes.

    Attributes:
        shift: (2,) of the centre, in widths and heights.
        growth: (2,) of width and height, logarithm.
    """

    shift: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    growth: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))

    @classmethod
    def between(cls, box: Box, readings: Sequence[Box]) -> Outline:
        """From what the network says, (4,) xywh each, of a target whose (4,) xywh box is known."""
        true, read = boxes.xywh_to_cxcywh(box), boxes.xywh_to_cxcywh(np.stack(readings))
        errors = np.hstack([(read[:, :2] - true[:2]) / true[2:], np.log(read[:, 2:] / true[2:])])
        shift, growth = np.split(TRUST * np.median(errors, axis=0), 2)
        return cls(np.clip(shift, -LARGEST_SHIFT, LARGEST_SHIFT), np.clip(growth, -LARGEST_GROWTH, LARGEST_GROWTH))

    def corrected(self, box: Box) -> Box:
        """A (4,) xywh box that the network found, without what it adds."""
        found = boxes.xywh_to_cxcywh(box)
        size = found[2:] / np.exp(self.growth)
        return boxes.cxcywh_to_xywh(np.concatenate([found[:2] - self.shift * size, size]))


def views(box: Box) -> list[Box]:
    """The (4,) xywh boxes around which search crops of the first frame are cut."""
    x, y, width, height = boxes.xywh_to_cxcywh(box)
    size = np.sqrt(width * height)
    places = [(x + right * size, y + down * size, scale * width, scale * height) for right, down, scale in VIEWS]
    return list(boxes.cxcywh_to_xywh(np.array(places)))
