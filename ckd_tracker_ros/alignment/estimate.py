"""The homography between two cameras from pairs of their images, and how sure it is.

Roughly by `search`, exactly by `blocks`, coarse to fine. Then two halves that share neither a moment nor a place, the
black fields of a chequered board in the first half of the pairs and the white ones in the second, each say what they
would have found alone: each has to explain what the other saw, else nothing is claimed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ckd_tracker_ros.alignment.blocks import MODELS, TOLERANCE, Matches, distances, fit, match
from ckd_tracker_ros.alignment.edges import field_of, grey, shrink, warp
from ckd_tracker_ros.alignment.search import guesses
from ckd_tracker_ros.frame import RgbtFrame
from ckd_tracker_ros.registration import Size, scaling

AUTO = "auto"
LEAST_AGREEING, LEAST_SHARE = 8, 0.3
"""Blocks that have to agree with what the other half says, and their share of all that were found."""
LARGEST_SPREAD = 4.0
"""Pixels of the pictures that are compared by which the halves may differ in the image's centre."""

_GUESSES, _SEARCHED = 10, 6  # guesses that are followed; pairs that they are made of
_ROUGH = ((160, 10, "similarity"), (160, 8, "similarity"), (320, 10, "affine"))  # side, reach, model
_SIDES = (400, 640)  # longer sides of the RGB pictures that the answer is made of
_REACHES, _HALF_REACH = (10, 6, 6), 10
_KEPT = 0.6  # of the agreeing blocks, that finer pictures have to agree with as well
_COARSEST = 2.0  # RGB pixels for a thermal one: finer pictures than that would only show its pixels
_BETTER = 0.9  # a richer model has to miss less than that share of what a simpler one misses
_FLAT = 0.5  # grey levels


class AlignmentError(ValueError):
    """The images do not say how the cameras lie to each other; the message says why, and what may help."""


@dataclass(frozen=True, eq=False)
class Alignment:
    """How two cameras lie to each other, and what speaks for it.

    Attributes:
        matrix: (3, 3) thermal pixels to RGB pixels, centres of pixels at whole numbers.
        model: one of `MODELS`.
        rgb_size, thermal_size: width, height.
        pairs: looked at.
        found: blocks that were found in both images, by halves that share neither moment nor place.
        agreeing: those that the other half's matrix puts where they were found, to `TOLERANCE` working pixels.
        residual: median distance of the agreeing ones from there, RGB pixels.
        spread: how far the halves' matrices are apart in the image's centre, RGB pixels.
        spread_corners: and at the worst corner of what both cameras see.
        before, after: how well the edges fit, -1..1: images laid over each other by their size, and by `matrix`.
    """

    matrix: NDArray[np.float64]
    model: str
    rgb_size: Size
    thermal_size: Size
    pairs: int
    found: int
    agreeing: int
    residual: float
    spread: float
    spread_corners: float
    before: float
    after: float

    @property
    def shift(self) -> float:
        """RGB pixels that it moves the thermal image by, at most at a corner, against scaling it by its size."""
        by_size = scaling(self.thermal_size, self.rgb_size)
        return max(_apart(self.matrix, [self.matrix, by_size], self.rgb_size, self.thermal_size))


@dataclass(frozen=True, eq=False)
class _Views:
    """Grey pictures of both cameras at the same moments, each camera's of one size."""

    rgb: list[NDArray[np.float32]]
    thermal: list[NDArray[np.float32]]

    @property
    def sizes(self) -> tuple[Size, Size]:
        return self.rgb[0].shape[::-1], self.thermal[0].shape[::-1]

    def at(self, side: float, pairs: slice = slice(None)) -> _Level:
        """Some of them, RGB shrunk to a longer side of so many pixels."""
        size = self.sizes[0]
        scale = min(side / max(size), 1)
        small = (max(round(size[0] * scale), 8), max(round(size[1] * scale), 8))
        fields = [field_of(cv2.resize(each, small, interpolation=cv2.INTER_AREA)) for each in self.rgb[pairs]]
        return _Level(fields, self.thermal[pairs], scaling(size, small))


@dataclass(frozen=True, eq=False)
class _Level:
    """Pictures to match at one size: fields of RGB, grey thermal pictures, and (3, 3) RGB pixels to this size."""

    fields: list[NDArray[np.float32]]
    thermal: list[NDArray[np.float32]]
    scale: NDArray[np.float64]

    def match(self, matrix: NDArray, reach: int) -> Matches:
        return match(self.fields, self.thermal, self.scale @ matrix, reach)

    def full(self, matrix: NDArray) -> NDArray[np.float64]:
        """A matrix to this level's pixels as one to RGB pixels."""
        moved = np.linalg.inv(self.scale) @ matrix
        return moved / moved[2, 2]

    def score(self, matrix: NDArray) -> float:
        """How well the edges fit under a matrix to RGB pixels, -1..1."""
        size, products = self.fields[0].shape[1::-1], np.zeros(3)
        for field, picture in zip(self.fields, self.thermal, strict=True):
            warped, seen = warp(*shrink(picture, self.scale @ matrix), size)
            other, inside = field_of(warped, seen), seen[..., None] > 0
            products += [float((a * b * inside).sum()) for a, b in ((field, other), (field, field), (other, other))]
        return float(products[0] / np.sqrt(max(products[1] * products[2], 1e-12)))


def estimate(pairs: Sequence[RgbtFrame], model: str = AUTO) -> Alignment:
    """How the thermal camera lies to the RGB camera.

    Args:
        pairs: with both images, each camera's of one size; several that differ say more than one.
        model: one of `MODELS`; auto: the richest one that says better than a simpler one what it has not seen.

    Raises:
        AlignmentError: nothing in the images, or too little in common; no matrix is given then.
        ValueError: an unknown model.
    """
    if model not in (AUTO, *MODELS):
        raise ValueError(f"model is {model!r}; allowed: {', '.join((AUTO, *MODELS))}")
    views = _views(pairs)
    matrix = _rough(views)
    alignment = _exact(views, matrix, model, _SIDES[0])
    for side in _SIDES[1:]:  # finer pictures help where they show more, and only there
        try:
            finer = _exact(views, alignment.matrix, model, side)
        except AlignmentError:
            break
        if finer.spread > alignment.spread or finer.agreeing < _KEPT * alignment.agreeing:
            break
        alignment = finer
    return alignment


def _exact(views: _Views, matrix: NDArray, model: str, side: int) -> Alignment:
    """The alignment with RGB pictures of a longer side of so many pixels, around where a matrix puts it.

    Raises:
        AlignmentError: too few blocks agree.
    """
    zoom = np.sqrt(abs(np.linalg.det(matrix[:2, :2])))
    side = min(side, _COARSEST * max(views.sizes[0]) / zoom)
    middle = len(views.rgb) // 2
    halves = (views.at(side, slice(0, max(middle, 1))), views.at(side, slice(middle, None)))
    level = views.at(side)
    chosen = _better(_halves(halves, matrix, _REACHES[0])) if model == AUTO else model
    for reach in _REACHES:
        found = level.match(matrix, reach)
        if (fitted := fit(chosen, found)) is None:
            raise _too_weak(f"only {len(found)} of {found.tried} blocks of the images can be found in both")
        matrix = level.full(fitted)
    return _judge(views, halves, matrix, chosen)


def _views(pairs: Sequence[RgbtFrame]) -> _Views:
    if not pairs:
        raise AlignmentError("there is no pair of images to look at")
    views = _Views(*([grey(pair.images[modality]) for pair in pairs] for modality in (0, 1)))
    for name, pictures in (("RGB", views.rgb), ("thermal", views.thermal)):
        sizes = {picture.shape for picture in pictures}
        if len(sizes) > 1:
            shown = ", ".join(f"{width}x{height}" for height, width in sorted(sizes))
            raise AlignmentError(f"the {name} images change their size: {shown}")
        if max(float(picture.std()) for picture in pictures) < _FLAT:
            raise AlignmentError(
                f"the {name} images show nothing: every pixel is about {pictures[0].mean():.0f} of 255"
            )
        if min(pictures[0].shape) < 48:
            raise AlignmentError(
                f"{name} images of {pictures[0].shape[1]}x{pictures[0].shape[0]} are too small; from 48"
            )
    return views


def _rough(views: _Views) -> NDArray[np.float64]:
    """The guess that most blocks agree with once it has been refined."""
    picked = np.unique(np.linspace(0, len(views.rgb) - 1, _SEARCHED).astype(int))
    few = _Views([views.rgb[i] for i in picked], [views.thermal[i] for i in picked])
    levels = {side: few.at(side) for side, _, _ in _ROUGH}
    best, most = None, 0
    for guess in guesses(few.rgb, few.thermal, _GUESSES):
        matrix = guess.matrix
        for side, reach, model in _ROUGH:
            found = levels[side].match(matrix, reach)
            if (fitted := fit(model, found)) is None:
                break
            matrix = levels[side].full(fitted)
        else:
            agreeing = int((distances(fitted, found) < TOLERANCE).sum())
            if agreeing > most and _plausible(matrix, *views.sizes):
                best, most = matrix, agreeing
    if best is None:
        raise _too_weak("no scale, rotation and shift lays their edges over each other")
    return best


def _plausible(matrix: NDArray, rgb: Size, thermal: Size) -> bool:
    """Whether a matrix keeps the thermal image's corners in their order, before the camera and in reach."""
    corners = np.array([[0, 0], [thermal[0], 0], thermal, [0, thermal[1]]], np.float64)
    if (np.c_[corners, np.ones(4)] @ matrix[2] <= 0).any():
        return False
    mapped = cv2.perspectiveTransform(corners[None], matrix)[0]
    edges = np.roll(mapped, -1, axis=0) - mapped
    turns = edges[:, 0] * np.roll(edges[:, 1], -1) - edges[:, 1] * np.roll(edges[:, 0], -1)
    area = cv2.contourArea(mapped.astype(np.float32)) / (rgb[0] * rgb[1])
    return bool((turns > 0).all()) and 0.15 < area < 8


def _halves(levels: tuple[_Level, _Level], matrix: NDArray, reach: int) -> tuple[Matches, Matches]:
    """What two halves find that share neither a moment nor a place (of a single pair: no place)."""
    first, second = (level.match(matrix, reach) for level in levels)
    return first.only(first.black), second.only(~second.black)


def _crossed(model: str, halves: tuple[Matches, Matches]) -> NDArray[np.float64]:
    """(n,) distances of each half's matches from where the other half's matrix puts them; infinite without one."""
    fits = [fit(model, half) for half in halves]
    return np.concatenate(
        [
            np.full(len(own), np.inf) if other is None else distances(other, own)
            for own, other in zip(halves, fits[::-1])
        ]
    )


def _better(halves: tuple[Matches, Matches]) -> str:
    """The model that best says where the blocks of the other half are; of two that are alike the simpler one."""
    chosen, least = "similarity", np.inf
    for model in MODELS:
        missed = _crossed(model, halves)
        error = float(np.minimum(missed, 2 * TOLERANCE).mean()) if len(missed) else np.inf
        if error < _BETTER * least:
            chosen, least = model, error
    return chosen


def _judge(views: _Views, levels: tuple[_Level, _Level], matrix: NDArray, model: str) -> Alignment:
    """The alignment, if the halves agree.

    Raises:
        AlignmentError: they do not.
    """
    halves = _halves(levels, matrix, _HALF_REACH)
    missed = _crossed(model, halves)
    good = missed < TOLERANCE
    agreeing, found, fits = int(good.sum()), len(missed), [fit(model, half) for half in halves]
    weak = agreeing < LEAST_AGREEING or agreeing < LEAST_SHARE * found or any(each is None for each in fits)
    if weak or not _plausible(matrix, *views.sizes):
        raise _too_weak(f"{agreeing} of {found} blocks lie where the other half of the images puts them")
    level = levels[0]
    unit = views.sizes[0][0] / level.fields[0].shape[1]  # RGB pixels for a working pixel
    centre, corners = _apart(matrix, [level.full(each) for each in fits], *views.sizes)
    if centre > LARGEST_SPREAD * unit:
        raise _too_weak(f"its two halves differ by {centre:.1f} RGB pixels in the centre")
    coarse = views.at(_ROUGH[-1][0])
    return Alignment(
        matrix, model, *views.sizes, len(views.rgb), found, agreeing, float(np.median(missed[good])) * unit, centre,
        corners, coarse.score(scaling(*views.sizes[::-1])), coarse.score(matrix),
    )  # fmt: skip


def _apart(matrix: NDArray, others: Sequence[NDArray], rgb: Size, thermal: Size) -> tuple[float, float]:
    """RGB pixels between two other matrices: in the image's centre, and at most at the corners of what both see."""
    corners = np.array([[0, 0], [thermal[0], 0], thermal, [0, thermal[1]]], np.float64)
    seen = cv2.perspectiveTransform(corners[None], matrix)[0].clip(0, rgb)
    points = np.concatenate([[np.array(rgb) / 2], seen])[None]
    back = cv2.perspectiveTransform(points, np.linalg.inv(matrix))
    first, second = (cv2.perspectiveTransform(back, other)[0] for other in others)
    distance = np.linalg.norm(first - second, axis=1)
    return float(distance[0]), float(distance[1:].max())


def _too_weak(what: str) -> AlignmentError:
    return AlignmentError(
        f"the images say too little about how the cameras lie to each other: {what}; no matrix is given. Show both "
        "cameras one scene with edges in light and in heat (buildings, people, a window), and move them or let move"
    )
