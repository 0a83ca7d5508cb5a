"""What an RGB and a thermal image have in common: where edges lie and which way they run.

Warm or cold, bright or dark: an edge has the same direction in both, only its sign is free. So an edge is a complex
number of twice its angle, which does not change when the contrast turns around.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ckd_tracker_ros.frame import Image
from ckd_tracker_ros.overlay import to_bgr
from ckd_tracker_ros.registration import Size, scaling

Field = NDArray[np.float32]
"""(H, W, 2) of a grey image: strength of each pixel's edge, 0 to about 1, times cosine and sine of twice its angle."""

_SMOOTH = 1.0  # of the gradient, pixels
_AROUND = 12.0  # an edge is as strong as it stands out of its surroundings, pixels
_FLOOR = 0.15  # of the image's mean edge: what is weaker fades away
_FAINT = 0.25  # grey levels per pixel: what is weaker is rounding


def grey(image: Image) -> NDArray[np.float32]:
    """(H, W) grey levels 0..255 of an image of any kind."""
    return cv2.cvtColor(to_bgr(image), cv2.COLOR_BGR2GRAY).astype(np.float32)


def field_of(picture: NDArray[np.float32], seen: NDArray[np.uint8] | None = None) -> Field:
    """The edges of a grey picture.

    Args:
        picture: (H, W) grey levels.
        seen: (H, W), 0 where the picture shows nothing; None: it shows something everywhere.
    """
    smooth = cv2.GaussianBlur(picture, (0, 0), _SMOOTH)
    across, down = (cv2.Scharr(smooth, cv2.CV_32F, *axis, scale=1 / 32) for axis in ((1, 0), (0, 1)))
    if seen is not None:
        # the rim of what is seen is no edge of the scene
        inside = cv2.erode(seen, np.ones((9, 9), np.uint8), borderType=cv2.BORDER_REPLICATE) > 0
        across, down = across * inside, down * inside
    power = across**2 + down**2
    floor = max(_FLOOR * float(np.sqrt(power.mean())), _FAINT)
    # |g|^2 / |g| / surroundings; the double angle is (gx^2 - gy^2, 2 gx gy) / |g|^2
    around = np.sqrt(cv2.GaussianBlur(power, (0, 0), _AROUND) + floor**2)
    scale = 1 / (np.sqrt(power) + 1e-6) / (around + np.sqrt(power))
    return cv2.merge([(across**2 - down**2) * scale, 2 * across * down * scale])


def warp(picture: NDArray[np.float32], matrix: NDArray, size: Size) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A picture moved by a (3, 3) homography (its own pixels to the target's), and where it shows something.

    Returns:
        (H, W, ...) of the target's `size` (width, height), 0 outside; (H, W) 255 inside, 0 outside.
    """
    moved = cv2.warpPerspective(picture, matrix, size, flags=cv2.INTER_LINEAR)
    seen = np.full(picture.shape[:2], 255, np.uint8)
    return moved, cv2.warpPerspective(seen, matrix, size, flags=cv2.INTER_NEAREST)


def shrink(picture: NDArray[np.float32], matrix: NDArray) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """A picture made smaller before a homography makes it smaller, so that nothing flickers; and what is left to do.

    Args:
        picture: (H, W).
        matrix: (3, 3) from its pixels.
    """
    zoom = float(np.sqrt(abs(np.linalg.det(matrix[:2, :2] / matrix[2, 2]))))
    if zoom >= 0.75:
        return picture, matrix
    height, width = picture.shape
    size = max(round(width * zoom), 2), max(round(height * zoom), 2)
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return small, matrix @ np.linalg.inv(scaling((width, height), size))
