"""The words that every part shares: an image, a pair of images, an estimate of a target."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MODALITIES = ("rgb", "thermal")
"""The order of modalities in every tuple, array axis and bit mask of this project."""

CHANNEL_ORDERS = ("rgb", "bgr", "rgba", "bgra", "mono")


@dataclass(frozen=True, eq=False)
class Image:
    """One camera image as the camera gave it: usually a read-only view of the message's own bytes.

    Attributes:
        pixels: (H, W) for `mono`, else (H, W, C); uint8, uint16 (either byte order) or float32.
        order: what the channels mean, one of `CHANNEL_ORDERS`. Conversion to RGB happens on the crop.
    """

    pixels: NDArray
    order: str = "rgb"

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    @property
    def height(self) -> int:
        return self.pixels.shape[0]


@dataclass(frozen=True, eq=False)
class RgbtFrame:
    """What all cameras saw at one moment.

    Attributes:
        images: one entry per modality, in the order of `MODALITIES`; None where the camera gave nothing.
        stamp_ns: time of the moment, nanoseconds of the RGB camera's clock.
        rgb_size: width and height of RGB images where this frame has none; None = not known.
        repeated: whether an image is that of the frame before: of a slow camera, or of one that stands still.
    """

    images: tuple[Image | None, ...]
    stamp_ns: int = 0
    rgb_size: tuple[int, int] | None = None
    repeated: bool = False

    @property
    def present(self) -> tuple[bool, ...]:
        """Per modality, whether there is an image."""
        return tuple(image is not None for image in self.images)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height that boxes are measured in: the RGB image's, else `rgb_size`, else the first image's.

        Raises:
            ValueError: no modality is present.
        """
        absent = self.images[0] is None
        if absent and self.rgb_size is not None and any(self.present):
            return self.rgb_size
        for image in self.images:
            if image is not None:
                return image.width, image.height
        raise ValueError(f"a frame needs at least one image of {', '.join(MODALITIES)}; this one has none")


@dataclass(frozen=True, eq=False)
class Estimate:
    """Where a target is in one frame, how sure that is, and why.

    Attributes:
        box: (4,) left, top, width, height in RGB pixels.
        confidence: 0..1. Of a calibrated model the probability that the box has an IoU above 0.5, else `peak`.
        peak: largest score of the search map before the Hann window, 0..1.
        windowed_peak: score that won after the Hann window, 0..1; its cell gives the box.
        second_peak: largest score before the window outside the winner's neighbourhood: a look-alike, when high.
        second_distance: from the winner to that second peak, RGB pixels.
        doubt: by how much, as a logit, its colours and its heat are not the target's; 0: may be; below 0: they are,
            and not those of what was seen beside it.
        present: per modality, whether it was used.
        another: by how much, as a logit, its looks are likelier those of a look-alike that is known; below 0: less.
    """

    box: NDArray[np.float64]
    confidence: float
    peak: float
    windowed_peak: float
    second_peak: float
    second_distance: float
    present: tuple[bool, ...]
    doubt: float = 0.0
    another: float = 0.0
