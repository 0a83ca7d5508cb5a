"""Where a point of the RGB image lies in the thermal image, and back."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ckd_tracker_ros import boxes

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
        sizes: RGB width and height, thermal width and height that the homography was found with; images of other sizes
            show the same views, scaled. None: the homography is for the images as they are.

    Raises:
        RegistrationError: not nine finite numbers, a matrix that cannot be inverted, or not four sizes above 0.
    """

    thermal_to_rgb: tuple[float, ...] | None = None
    sizes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.sizes is not None and (len(self.sizes) != 4 or min(self.sizes) < 1):
            raise RegistrationError(
                f"sizes is {list(self.sizes)}; it needs RGB width and height and thermal width and height, above 0"
            )
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
            RegistrationError: no homography is set and the images differ in aspect ratio; or one is, and an image has
                another aspect ratio than what it was found with.
        """
        if modality == "rgb":
            return np.eye(3)
        if self.thermal_to_rgb is None:
            if not boxes.same_proportions(rgb_size, image_size):
                raise RegistrationError(
                    f"thermal image {image_size[0]}x{image_size[1]} and RGB image {rgb_size[0]}x{rgb_size[1]} differ "
                    "in aspect ratio: set registration.thermal_to_rgb, which `ckd-tracker calibrate` finds"
                )
            return scaling(rgb_size, image_size)
        matrix = np.linalg.inv(np.reshape(self.thermal_to_rgb, (3, 3)))
        if self.sizes is not None:
            rgb, thermal = self.sizes[:2], self.sizes[2:]
            for name, size, wanted in (("RGB", rgb_size, rgb), ("thermal", image_size, thermal)):
                if not boxes.same_proportions(size, wanted):
                    raise RegistrationError(
                        f"{name} image {size[0]}x{size[1]} and registration.sizes, {wanted[0]}x{wanted[1]}, differ in "
                        "aspect ratio: run `ckd-tracker calibrate` with these images"
                    )
            matrix = scaling(thermal, image_size) @ matrix @ scaling(rgb_size, rgb)
        return matrix / matrix[2, 2]

    def thermal_box(self, box: ArrayLike, rgb_size: Size, thermal_size: Size) -> NDArray[np.float64]:
        """(4,) xywh box in RGB pixels -> the upright box around it in thermal pixels, not clipped."""
        left, top, right, bottom = boxes.xywh_to_xyxy(box) - 0.5  # edges of pixels to coordinates of their centres
        corners = np.array([[[left, top], [right, top], [right, bottom], [left, bottom]]])
        mapped = cv2.perspectiveTransform(corners, self.matrix("thermal", rgb_size, thermal_size))[0] + 0.5
        return boxes.xyxy_to_xywh(np.concatenate([mapped.min(axis=0), mapped.max(axis=0)]))


def scaling(before: ArrayLike, after: ArrayLike) -> NDArray[np.float64]:
    """(3, 3) from pixels of an image to those of the same image in another size; sizes are width, height.

    Centres of pixels, not corners, lie at whole numbers: as cv2.resize has it.
    """
    x, y = np.asarray(after, np.float64) / np.asarray(before, np.float64)
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])
