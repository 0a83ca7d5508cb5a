"""From a rough alignment to an exact one: blocks of both images are matched, a model is laid through the matches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ckd_tracker_ros.alignment.edges import Field, field_of, shrink, warp

MODELS = {"similarity": 2, "affine": 3, "homography": 4}
"""What may lie between the cameras, and how many matches settle it."""
TOLERANCE = 2.0
"""Pixels within which a match agrees with a model."""

_GRID = (10, 8)
_SMALLEST = 12  # half the side of a block, pixels
_CLEAR = 1.15  # of the second best place in a block's window
_AROUND = 3  # pixels around the best place that are no other place
_SEEN = 0.8  # of a block's window, by the thermal camera
_EMPTY = 1e-3  # mean power of a block without edges


@dataclass(frozen=True, eq=False)
class Matches:
    """Blocks of the thermal image that were found in the RGB image.

    Attributes:
        rgb, thermal: (n, 2) centres of the blocks in the pixels of each picture.
        black: (n,) whether it is a black or a white field of the chequered image.
        tried: blocks with anything to find in them.
    """

    rgb: NDArray[np.float64]
    thermal: NDArray[np.float64]
    black: NDArray[np.bool_]
    tried: int = 0

    def __len__(self) -> int:
        return len(self.rgb)

    def only(self, chosen: NDArray[np.bool_]) -> Matches:
        """Some of them, by an (n,) mask."""
        return Matches(self.rgb[chosen], self.thermal[chosen], self.black[chosen], self.tried)


def match(rgb: Sequence[Field], thermal: Sequence[NDArray], matrix: NDArray, reach: int) -> Matches:
    """Finds blocks near the places where a homography puts them.

    Args:
        rgb: fields of the RGB pictures.
        thermal: (H, W) grey pictures of the same moments.
        matrix: (3, 3) thermal to RGB pixels.
        reach: how far a block may lie from there, RGB pixels.
    """
    size = rgb[0].shape[1::-1]
    warped = [warp(*shrink(picture, matrix), size) for picture in thermal]
    moved, seen = [field_of(*each) for each in warped], warped[0][1]
    found, centres, black, tried = [], [], [], 0
    half, blocks = _blocks(seen, reach)
    for x, y, is_black in blocks:
        block = np.s_[y - half : y + half, x - half : x + half]
        window = np.s_[y - half - reach : y + half + reach, x - half - reach : x + half + reach]
        full = [number for number, field in enumerate(moved) if (field[block] ** 2).mean() > _EMPTY]
        if seen[window].mean() < 255 * _SEEN or not full:
            continue
        tried += 1
        # the thermal block is looked for in RGB: all its places then compare the same thermal pixels
        fits = [cv2.matchTemplate(rgb[each][window], moved[each][block], cv2.TM_CCORR_NORMED) for each in full]
        if (place := _clear_peak(sum(fits))) is not None:
            centres.append((x - 0.5, y - 0.5))
            found.append(centres[-1] + place - reach)
            black.append(is_black)
    points = np.reshape(np.array(centres, np.float64), (-1, 1, 2))
    there = cv2.perspectiveTransform(points, np.linalg.inv(matrix)) if len(points) else points
    return Matches(np.reshape(found, (-1, 2)), there.reshape(-1, 2), np.array(black, bool), tried)


def _blocks(seen: NDArray[np.uint8], reach: int) -> tuple[int, list[tuple[int, int, bool]]]:
    """Half the side of the blocks; their centres (x, y) and colours on a chequered board over what is seen."""
    left, top, width, height = cv2.boundingRect(seen)
    columns, rows = _GRID
    half = max(round(max(width / columns, height / rows) / 2), _SMALLEST)
    margin = half + reach
    if min(width, height) < 2 * margin:
        return half, []
    xs, ys = (
        np.linspace(first + margin, first + length - margin, count).astype(int)
        for first, length, count in ((left, width, columns), (top, height, rows))
    )
    return half, [(x, y, (row + column) % 2 == 0) for row, y in enumerate(ys) for column, x in enumerate(xs)]


def _clear_peak(score: NDArray) -> NDArray[np.float64] | None:
    """(x, y) of the highest place, between pixels; None at the rim, or where another one is nearly as high."""
    row, column = np.unravel_index(int(score.argmax()), score.shape)
    top = float(score[row, column])
    if top <= 0 or not (0 < row < score.shape[0] - 1 and 0 < column < score.shape[1] - 1):
        return None
    others = score.copy()
    others[max(row - _AROUND, 0) : row + _AROUND + 1, max(column - _AROUND, 0) : column + _AROUND + 1] = -1
    if top < _CLEAR * others.max():
        return None
    sides = np.array([score[row, [column - 1, column + 1]], score[[row - 1, row + 1], column]], np.float64)
    bend = sides.sum(axis=1) - 2 * top
    between = np.divide(0.5 * (sides[:, 0] - sides[:, 1]), bend, out=np.zeros(2), where=bend < 0)
    return np.array([column, row]) + between


def fit(model: str, matches: Matches) -> NDArray[np.float64] | None:
    """(3, 3) thermal to RGB pixels that most matches agree with; None where they are too few.

    Args:
        model: one of `MODELS`.
    """
    if len(matches) < 2 * MODELS[model]:
        return None
    points, consensus = (matches.thermal, matches.rgb), {"maxIters": 5000, "confidence": 0.999}
    if model == "homography":
        matrix, _ = cv2.findHomography(*points, cv2.RANSAC, TOLERANCE, **consensus)
        return None if matrix is None else matrix / matrix[2, 2]
    estimate = cv2.estimateAffinePartial2D if model == "similarity" else cv2.estimateAffine2D
    matrix, _ = estimate(*points, method=cv2.RANSAC, ransacReprojThreshold=TOLERANCE, refineIters=20, **consensus)
    return None if matrix is None else np.vstack([matrix, [0, 0, 1]])


def distances(matrix: NDArray, matches: Matches) -> NDArray[np.float64]:
    """(n,) RGB pixels between where a homography puts each match and where it was found."""
    if not len(matches):
        return np.empty(0)
    return np.linalg.norm(cv2.perspectiveTransform(matches.thermal[None], matrix)[0] - matches.rgb, axis=1)
