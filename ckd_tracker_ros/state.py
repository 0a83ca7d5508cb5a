"""What a target's past means for its next step: the state that goes into the tracker and comes out of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ckd_tracker_ros import boxes
from ckd_tracker_ros.engine import Prepared
from ckd_tracker_ros.looks import Looks
from ckd_tracker_ros.motion import Motion
from ckd_tracker_ros.outline import Outline
from ckd_tracker_ros.thermal import Limits


@dataclass(frozen=True, eq=False)
class Appearance:
    """How a target looks in one frame.

    Attributes:
        crops: (M, T, T, 3) uint8 template crops, black where a modality was absent.
        present: (M,) bool.
        extent: (2,) width and height of the target's box in units of the crop.
    """

    crops: NDArray[np.uint8]
    present: NDArray[np.bool_]
    extent: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Later:
    """A later appearance of a target.

    Attributes:
        templates: as the engine keeps it.
        present: (M,) bool, the modalities that it was seen with.
        growth: (2,) how much larger the network reads the target's width and height by it than by the first one, with
            those modalities, logarithm, as far as that is taken off again (`tracker.LATER_GROWTH`).
    """

    templates: Prepared
    present: NDArray[np.bool_]
    growth: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))


@dataclass(frozen=True, eq=False)
class TargetState:
    """All that a target's past means for its next step. Opaque to clients: keep it and hand it back.

    Attributes:
        box: (4,) xywh in RGB pixels, where it was last.
        limits: per modality, the values that became 0 and 255 in the last crop; None for 8-bit images.
        templates: the target's first appearance, as the engine keeps it.
        motion: how it moves.
        outlines: how the network reads where it ends, by which of its modalities are present.
        looks: which colours and which heat it has.
        recent: a later appearance, which has half a say where the first one does not suffice; None: there is none.
        partial: the first appearance, where it still lacks a camera; None: it is complete.
        image_size: width and height of the images in whose pixels it is; None = not known.
        case: how much has lately spoken for its being another thing that is known by its looks, as a logit.
    """

    box: NDArray[np.float64]
    limits: tuple[Limits | None, ...]
    templates: Prepared
    motion: Motion
    outlines: dict[tuple[bool, ...], Outline]
    looks: Looks
    recent: Later | None = None
    partial: Appearance | None = None
    image_size: tuple[int, int] | None = None
    case: float = 0.0

    def outline(self, present: NDArray[np.bool_]) -> Outline:
        """How the network reads it with these modalities, (M,); as at the start where it never did."""
        default = next(iter(self.outlines.values()), Outline())
        return self.outlines.get(tuple(present.tolist()), default)

    def resized(self, image_size: tuple[int, int]) -> TargetState:
        """In the pixels of images of another size; with other proportions pixels stay as they are."""
        factor = boxes.resizing(self.image_size, image_size)
        if factor == 1:
            return self if self.image_size == image_size else replace(self, image_size=image_size)
        motion = self.motion.scaled(factor)
        return replace(self, box=self.box * factor, motion=motion, image_size=image_size)
