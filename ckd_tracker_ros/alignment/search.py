"""Where the thermal image lies in the RGB image, roughly: every scale and rotation in reach, all shifts of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ckd_tracker_ros import boxes
from ckd_tracker_ros.alignment.edges import field_of, shrink, warp
from ckd_tracker_ros.registration import Size, scaling

SCALES, ANGLE, SHIFT = (0.5, 2.0), 15.0, 0.25
"""What is searched: scale against equal heights or widths, rotation up to degrees, shift up to a share of the image."""

_SIDE = 112  # the longer side of the RGB image that is searched in, pixels
_SCALE_STEP, _ANGLE_STEP = 1.07, 3.0
_LEAST_OVERLAP = 0.3  # of the smaller image
_APART = 0.06  # of the RGB image: guesses that differ less anywhere are the same


class Guess(NamedTuple):
    """One hypothesis.

    Attributes:
        score: how well the edges fit, -1..1.
        matrix: (3, 3) thermal pixels to RGB pixels.
    """

    score: float
    matrix: NDArray[np.float64]


def guesses(rgb: Sequence[NDArray], thermal: Sequence[NDArray], count: int) -> list[Guess]:
    """The best similarities between two cameras, best first, no two of them alike.

    Args:
        rgb, thermal: grey pictures (H, W) of each camera at the same moments.
        count: how many at most.
    """
    size = _size(rgb[0])
    small = tuple(max(round(length * _SIDE / max(size)), 8) for length in size)
    to_small = scaling(size, small)
    reach = tuple(math.ceil(SHIFT * length) for length in small)
    canvas = tuple(cv2.getOptimalDFTSize(length + 2 * margin) for length, margin in zip(small, reach, strict=True))
    place = np.array([[1, 0, reach[0]], [0, 1, reach[1]], [0, 0, 1.0]])
    known = [_spectra(picture, place @ to_small, canvas) for picture in rgb]
    found: list[Guess] = []
    for start in _hypotheses(_size(thermal[0]), size):
        seen = [_spectra(picture, place @ to_small @ start, canvas) for picture in thermal]
        score, shift = _best_shift(known, seen, reach, min(seen[0][3], known[0][3]))
        moved = np.array([[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1.0]])
        found.append(Guess(score, np.linalg.inv(to_small) @ moved @ to_small @ start))
    return _unlike(sorted(found, key=lambda guess: -guess.score), _size(thermal[0]), size, count)


def _size(picture: NDArray) -> Size:
    return picture.shape[1], picture.shape[0]


def _hypotheses(thermal: Size, rgb: Size) -> list[NDArray[np.float64]]:
    """(3, 3) thermal to RGB pixels, the images' centres on each other."""
    by_size = rgb[0] / thermal[0], rgb[1] / thermal[1]
    starts = [by_size]
    if not boxes.same_proportions(rgb, thermal):  # square pixels, or a picture that was stretched
        starts.insert(0, (math.sqrt(math.prod(by_size)),) * 2)
    steps = round(math.log(SCALES[1] / SCALES[0]) / math.log(_SCALE_STEP)) // 2 * 2
    turns = round(2 * ANGLE / _ANGLE_STEP)
    matrices = []
    for scale in np.geomspace(*SCALES, steps + 1):
        for angle in np.linspace(-ANGLE, ANGLE, turns + 1):
            turn = cv2.getRotationMatrix2D((0, 0), angle, scale)[:, :2]
            for start in starts:
                matrix = np.eye(3)
                matrix[:2, :2] = turn * start
                matrix[:2, 2] = (np.array(rgb) - 1) / 2 - matrix[:2, :2] @ (np.array(thermal) - 1) / 2
                matrices.append(matrix)
    return matrices


def _spectra(picture: NDArray, matrix: NDArray, size: Size) -> tuple[NDArray, NDArray, NDArray, float]:
    """Spectra of a picture's field, of the field's power and of what is seen; and the number of pixels seen."""
    moved, seen = warp(*shrink(picture, matrix), size)
    field = field_of(moved, seen)
    inside = (seen > 0).astype(np.float32)
    planes = field, (field**2).sum(axis=2), inside
    return *(cv2.dft(plane, flags=cv2.DFT_COMPLEX_OUTPUT) for plane in planes), float(inside.sum())


def _best_shift(known: list, seen: list, reach: Size, area: float) -> tuple[float, tuple[int, int]]:
    """Normalised correlation of the fields where it is largest, and the shift (x, y) of the second ones there."""

    def correlate(a: int, b: int) -> NDArray:
        products = [cv2.mulSpectrums(k[a], s[b], 0, conjB=True) for k, s in zip(known, seen, strict=True)]
        flags = cv2.DFT_INVERSE | cv2.DFT_SCALE | cv2.DFT_REAL_OUTPUT * (a != b or a == 2)
        back = cv2.dft(sum(products), flags=flags)
        return back if back.ndim == 2 else back[..., 0]

    fits, overlap = correlate(0, 0), correlate(2, 2) / len(known)
    powers = correlate(1, 2) * correlate(2, 1)
    fits = np.where((powers > 0) & (overlap > _LEAST_OVERLAP * area), fits / np.sqrt(np.maximum(powers, 1e-12)), -1.0)
    x, y = reach
    window = np.roll(fits, (y, x), axis=(0, 1))[: 2 * y + 1, : 2 * x + 1]
    row, column = np.unravel_index(int(window.argmax()), window.shape)
    return float(window[row, column]), (int(column) - x, int(row) - y)


def _unlike(sorted_guesses: list[Guess], thermal: Size, rgb: Size, count: int) -> list[Guess]:
    corners = np.array([[[0, 0], [thermal[0], 0], [0, thermal[1]], thermal]], np.float64)
    kept: list[tuple[Guess, NDArray]] = []
    for guess in sorted_guesses:
        mapped = cv2.perspectiveTransform(corners, guess.matrix)[0]
        if all(np.abs(mapped - other).max() > _APART * max(rgb) for _, other in kept):
            kept.append((guess, mapped))
        if len(kept) == count:
            break
    return [guess for guess, _ in kept]
