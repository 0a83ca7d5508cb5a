"""Where a point of the RGB image lies in the thermal image, and back."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ckd_tracker_ros import boxes

ASPECT_TOLERANCE = 0.02
"""Aspect ratios may differ by this share before scaling by image size is refused (rounding of odd sizes)."""

Size = tuple[int, int]
"""Width, height in pixels."""


class RegistrationError(ValueError):
    """The two images cannot be laid over each other with the geometry at hand."""


@dataclass(frozen=True)
class Registration:
    """Geometry between the cameras.

    Attributes:
        thermal_to_rgb: nine numbers, row major: homography from thermal pixels to RGB pixels. None: the images show
            the same view and differ in size at most.

    Raises:
        RegistrationError: not nine finite numbers, or a matrix that cannot be inverted.
    """

    thermal_to_rgb: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.thermal_to_rgb is None:
            return
        matrix = np.asarray(self.thermal_to_rgb, np.float64).ravel()
        if matrix.size != 9 or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix.reshape(3, 3))) < 1e-12:
            raise RegistrationError(
                f"thermal_to_rgb is {list(matrix)}; it needs nine finite numbers, row major, that can be inverted"
            )

    def matrix(self, modality: str, rgb_size: Size, image_size: Size) -> NDArray[np.float64]:
        """(3, 3) homography from RGB pixels to pixels of that modality's image.

        Args:
            modality: one of `MODALITIES`.
            rgb_size: the image that boxes are measured in.
            image_size: the image of that modality.

        Raises:
            RegistrationError: no homography is set and the images differ in aspect ratio.
        """
        if modality == "rgb":
            return np.eye(3)
        if self.thermal_to_rgb is not None:
            inverse = np.linalg.inv(np.reshape(self.thermal_to_rgb, (3, 3)))
            return inverse / inverse[2, 2]
        scale_x, scale_y = image_size[0] / rgb_size[0], image_size[1] / rgb_size[1]
        if abs(scale_x / scale_y - 1) > ASPECT_TOLERANCE:
            raise RegistrationError(
                f"thermal image {image_size[0]}x{image_size[1]} and RGB image {rgb_size[0]}x{rgb_size[1]} differ in "
                "aspect ratio: set registration.thermal_to_rgb, which `ckd-tracker calibrate` finds"
            )
        # pixel centres, not corners, lie at whole numbers: as cv2.resize has it
        return np.array([[scale_x, 0, (scale_x - 1) / 2], [0, scale_y, (scale_y - 1) / 2], [0, 0, 1]])

    def thermal_box(self, box: ArrayLike, rgb_size: Size, thermal_size: Size) -> NDArray[np.float64]:
        """(4,) xywh box in RGB pixels -> the upright box around it in thermal pixels, not clipped."""
        left, top, right, bottom = boxes.xywh_to_xyxy(box) - 0.5  # edges of pixels to coordinates of their centres
        corners = np.array([[[left, top], [right, top], [right, bottom], [left, bottom]]])
        mapped = cv2.perspectiveTransform(corners, self.matrix("thermal", rgb_size, thermal_size))[0] + 0.5
        return boxes.xyxy_to_xywh(np.concatenate([mapped.min(axis=0), mapped.max(axis=0)]))
