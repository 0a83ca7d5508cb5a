"""Square crops around a box, one for every modality, and the way from the network's maps back to image pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ckd_tracker_ros import boxes, thermal
from ckd_tracker_ros.frame import Image

_TO_RGB = {
    "bgr": cv2.COLOR_BGR2RGB,
    "rgba": cv2.COLOR_RGBA2RGB,
    "bgra": cv2.COLOR_BGRA2RGB,
    "mono": cv2.COLOR_GRAY2RGB,
}
_LARGEST_COPY = 8192
"""Side of a square, image pixels, that is copied with its black margins before it is resized. The squares of boxes that
fill an 8000x6000 image would take gigabytes; those are sampled."""


@dataclass(frozen=True)
class Square:
    """A square of the RGB image that is cut out and resized to a crop.

    Attributes:
        centre_x, centre_y: RGB pixels, where boxes are decoded from.
        left, top, side: whole RGB pixels, what is cut.
        scale: crop pixels per RGB pixel.
    """

    centre_x: float
    centre_y: float
    left: int
    top: int
    side: int
    scale: float


def square_around(box: ArrayLike, factor: float, size: int) -> Square:
    """The square for a (4,) xywh box: side `ceil(sqrt(w * h) * factor)`, resized to `size` crop pixels.

    Raises:
        ValueError: the box has no area.
    """
    x, y, w, h = np.asarray(box, np.float64).tolist()
    if not w * h > 0:
        raise ValueError(f"a box of {w} x {h} pixels has no area to cut a crop around")
    side = math.ceil(math.sqrt(w * h) * factor)
    centre_x, centre_y = x + w / 2, y + h / 2
    return Square(
        centre_x, centre_y, round(centre_x - side * 0.5), round(centre_y - side * 0.5), max(side, 1), size / side
    )


def cut(image: Image, square: Square, size: int, rgb_to_image: NDArray, limits: thermal.Limits | None) -> NDArray:
    """Cut a square out of one modality's image; only these pixels are ever converted.

    Args:
        image: of any channel order and depth.
        square: in RGB pixels.
        size: side of the crop in pixels.
        rgb_to_image: (3, 3) homography from RGB pixels to pixels of `image` (`Registration.matrix`).
        limits: values that become 0 and 255; None for 8-bit images.

    Returns:
        (size, size, 3) uint8 RGB; black outside the image.
    """
    if square.side <= _LARGEST_COPY and np.array_equal(rgb_to_image, np.eye(3)):
        crop = _cut_upright(image.pixels, square, size, limits)
    else:
        crop = _cut_warped(image.pixels, square, size, rgb_to_image, limits)
    crop = thermal.to_uint8(crop, limits)
    return crop if image.order == "rgb" else cv2.cvtColor(crop, _TO_RGB[image.order])


def _cut_upright(pixels: NDArray, square: Square, size: int, limits: thermal.Limits | None) -> NDArray:
    fill = _black(limits)
    height, width = pixels.shape[:2]
    right, bottom = square.left + square.side, square.top + square.side
    # as published, the image's last row and column do not count as inside
    x0, x1 = max(square.left, 0), min(right, width - 1)
    y0, y1 = max(square.top, 0), min(bottom, height - 1)
    if x0 >= x1 or y0 >= y1:
        return np.full((size, size, *pixels.shape[2:]), fill, _native(pixels).dtype)
    inside = _source(pixels[y0:y1, x0:x1], limits)
    margins = (y0 - square.top, bottom - y1, x0 - square.left, right - x1)
    if any(margins):
        inside = cv2.copyMakeBorder(inside, *margins, cv2.BORDER_CONSTANT, value=(fill,) * 4)
    return cv2.resize(inside, (size, size))


def _cut_warped(
    pixels: NDArray, square: Square, size: int, rgb_to_image: NDArray, limits: thermal.Limits | None
) -> NDArray:
    """One resampling straight from the image's own pixels, whatever lies between the cameras."""
    fill = _black(limits)
    step = square.side / size
    shift = (step - 1) / 2  # as cv2.resize: centres of crop pixels to centres of image pixels
    crop_to_rgb = np.array([[step, 0, square.left + shift], [0, step, square.top + shift], [0, 0, 1]])
    crop_to_image = rgb_to_image @ crop_to_rgb
    corners = np.array([[[-0.5, -0.5], [size - 0.5, -0.5], [size - 0.5, size - 0.5], [-0.5, size - 0.5]]])
    reach = cv2.perspectiveTransform(corners, crop_to_image)[0]
    height, width = pixels.shape[:2]
    x0, y0 = np.clip(np.floor(reach.min(axis=0)).astype(int) - 1, 0, (width, height)).tolist()
    x1, y1 = np.clip(np.ceil(reach.max(axis=0)).astype(int) + 2, 0, (width, height)).tolist()
    if x0 >= x1 or y0 >= y1:
        return np.full((size, size, *pixels.shape[2:]), fill, _native(pixels).dtype)
    # only the region that the crop reaches is read and byte-swapped
    crop_to_region = np.array([[1, 0, -x0], [0, 1, -y0], [0, 0, 1]]) @ crop_to_image
    return cv2.warpPerspective(
        _source(pixels[y0:y1, x0:x1], limits), crop_to_region, (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_CONSTANT, borderValue=(fill,) * 4,
    )  # fmt: skip


def _source(pixels: NDArray, limits: thermal.Limits | None) -> NDArray:
    """What is resized: dead pixels are repaired before they grow."""
    pixels = _native(pixels)
    return pixels if limits is None or pixels.dtype == np.uint8 else thermal.without_dead_pixels(pixels, limits)


def _black(limits: thermal.Limits | None) -> float:
    return 0.0 if limits is None else float(limits[0])


def _native(pixels: NDArray) -> NDArray:
    return pixels if pixels.dtype.isnative else pixels.astype(pixels.dtype.newbyteorder("="))


def hann_window(grid: int) -> NDArray[np.float64]:
    """(grid, grid) Hann window, above zero at its border: outer product of 0.5 (1 - cos(2 pi k / (grid + 1)))."""
    line = 0.5 * (1 - np.cos(2 * np.pi * np.arange(1, grid + 1) / (grid + 1)))
    return np.outer(line, line)


@dataclass(frozen=True)
class Peak:
    """The cell that won and the box it stands for.

    Attributes:
        box: (4,) centre x, centre y, width, height in units of the crop.
        score: before the window.
        windowed: after the window.
        second_score: largest score before the window outside the winner's 3 x 3 neighbourhood (0 if there is none).
        second_distance: between the two cells, in units of the crop.
        second_place: (2,) x and y of the middle of that second cell, in units of the crop.
        others: (N, 3) centre x and y of the box in units of the crop, and score before the window, of the cells outside
            that neighbourhood that score at least `LEAST_OTHER` and no less than the cells around them.
    """

    box: NDArray[np.float64]
    score: float
    windowed: float
    second_score: float
    second_distance: float
    second_place: NDArray[np.float64]
    others: NDArray[np.float64]


LEAST_OTHER = 0.1
"""Scores under this are no sighting of anything."""


def find_peak(score: NDArray, size: NDArray, offset: NDArray, window: NDArray) -> Peak:
    """The best cell after the window, as published: box centre = (cell + offset) / F, size as predicted there.

    Args:
        score: (1, F, F); size, offset: (2, F, F); window: (F, F).
    """
    grid = score.shape[-1]
    weighted = score[0] * window
    row, column = divmod(int(weighted.argmax()), grid)
    dx, dy = offset[:, row, column].tolist()
    box = np.array([(column + dx) / grid, (row + dy) / grid, *size[:, row, column].tolist()])
    others = score[0].copy()
    others[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = 0
    other_row, other_column = divmod(int(others.argmax()), grid)
    summits = np.argwhere((others >= LEAST_OTHER) & (others >= cv2.dilate(score[0], np.ones((3, 3), np.uint8))))
    return Peak(
        box,
        float(score[0, row, column]),
        float(weighted[row, column]),
        float(others[other_row, other_column]),
        math.hypot(other_row - row, other_column - column) / grid,
        (np.array([other_column, other_row]) + 0.5) / grid,
        np.column_stack([meant(offset)[tuple(summits.T)], others[tuple(summits.T)]]),
    )


def meant(offset: NDArray) -> NDArray[np.float64]:
    """(F, F, 2) centre x and y, in units of the crop, of the box that each cell stands for: offset (2, F, F)."""
    grid = offset.shape[-1]
    return (np.moveaxis(offset, 0, -1) + np.stack(np.meshgrid(*[np.arange(grid)] * 2), axis=-1)) / grid


def find_summits(score: NDArray, size: NDArray, offset: NDArray, least: float) -> NDArray[np.float64]:
    """(N, 5) every cell that scores at least `least` and no less than those around it: cxcywh box, units of the crop,
    and score.

    Args:
        score: (1, F, F); size, offset: (2, F, F).
    """
    summits = (score[0] >= least) & (score[0] >= cv2.dilate(score[0], np.ones((3, 3), np.uint8)))
    return np.column_stack([meant(offset)[summits], size[:, summits].T, score[0, summits]]).astype(np.float64)


def to_image(box: NDArray, square: Square, crop_size: int) -> NDArray[np.float64]:
    """(4,) cxcywh box in units of the crop -> xywh in RGB pixels, not clipped.

    As published: the side in image pixels is crop size / scale, and the rounding of the cut to whole pixels is ignored.
    """
    centre = place_in_image(box[:2], square, crop_size)
    return boxes.cxcywh_to_xywh(np.concatenate([centre, box[2:] * crop_size / square.scale]))


def place_in_image(places: NDArray, square: Square, crop_size: int) -> NDArray[np.float64]:
    """(..., 2) x, y in units of the crop -> RGB pixels, as `to_image`."""
    return np.array([square.centre_x, square.centre_y]) + (places - 0.5) * (crop_size / square.scale)
