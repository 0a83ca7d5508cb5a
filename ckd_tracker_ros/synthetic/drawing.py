"""Paint for generated scenes: noise, anti-aliased outlines, backgrounds, faults of the RGB camera."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ckd_tracker_ros.synthetic.config import SceneConfig

TEXTURE = 64
"""Side of a body's texture, pixels."""

TEXTURE_SPAN = 1.5
"""What a texture covers, in units of a body's size."""

RGB_MEAN, THERMAL_MEAN = 112.0, 88.0
"""Grey levels of the backgrounds."""

TONE = 128  # what an 8-bit plane of differences counts from
LARGE = 40_000  # pixels of a patch that is drawn less finely
SHIFT = 5  # fractional bits of the vertices given to OpenCV
FAULT_RAMP = 15  # frames over which a fault appears and disappears
BANK_MARGIN = 61  # pixels by which a bank of noise exceeds the image: so many different offsets a side


def octaves(rng: np.random.Generator, width: int, height: int, coarsest: int, gain: float) -> NDArray[np.float32]:
    """(height, width) noise of mean 0 and unit deviation: octaves from `coarsest` pixels down, each `gain` weaker."""
    total = np.zeros((height, width), np.float32)
    cell, weight = max(coarsest, 2), 1.0
    while cell >= 2:
        grid = rng.standard_normal((height // cell + 3, width // cell + 3), np.float32)
        total += weight * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        cell, weight = cell // 2, weight * gain
    return (total - total.mean()) / max(float(total.std()), 1e-6)


def fill(canvas: NDArray, outline: NDArray, colour: tuple[float, ...] | float) -> None:
    """Draw one (n, 2) outline, anti-aliased; OpenCV counts from pixel centres, scenes from corners."""
    points = np.rint((outline - 0.5) * (1 << SHIFT)).astype(np.int32)
    cv2.fillPoly(canvas, [points], colour, lineType=cv2.LINE_AA, shift=SHIFT)


def transform(matrix: NDArray, points: NDArray) -> NDArray[np.float64]:
    """(n, 2) points through a (3, 3) homography."""
    mapped = points @ matrix[:, :2].T + matrix[:, 2]
    return mapped[:, :2] / mapped[:, 2:]


def shift(offset: NDArray) -> NDArray[np.float64]:
    """(3, 3) that adds a (2,) offset."""
    return np.array([[1, 0, offset[0]], [0, 1, offset[1]], [0, 0, 1.0]])


TO_TEXTURE = shift(np.full(2, TEXTURE / 2)) @ np.diag([TEXTURE / TEXTURE_SPAN, TEXTURE / TEXTURE_SPAN, 1.0])
HALF = shift(np.array([0.5, 0.5]))


def warp(source: NDArray, target_to_source: NDArray, size: tuple[int, int]) -> NDArray:
    """The image of `size` (width, height) whose corner coordinates a (3, 3) homography maps into those of `source`."""
    matrix = np.linalg.inv(HALF) @ target_to_source @ HALF
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    if np.abs(matrix[2, :2]).max() < 1e-12:
        return cv2.warpAffine(source, matrix[:2] / matrix[2, 2], size, flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return cv2.warpPerspective(source, matrix, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101)


@dataclass(frozen=True, eq=False)
class Look:
    """A body's surface in one image.

    Attributes:
        base: (C,) grey level of the body.
        tones: one entry per part, grey levels against the base, -127..127.
        texture: (TEXTURE, TEXTURE) grey levels about 0.
    """

    base: NDArray
    tones: list[float]
    texture: NDArray[np.float32]


def paint(image: NDArray, outlines: list[NDArray], look: Look, pose: NDArray, blur: float) -> None:
    """Draw a body into an image.

    Args:
        image: (H, W) float32 or (H, W, 3) uint8, changed.
        outlines: (n, 2) per part, image pixels, drawn in order.
        pose: (3, 3) body units to image pixels, carries the texture.
        blur: standard deviation in pixels.
    """
    points = np.concatenate(outlines)
    pad = int(3 * blur) + 2
    left, top = np.maximum(np.floor(points.min(0)).astype(int) - pad, 0)
    right, bottom = np.minimum(np.ceil(points.max(0)).astype(int) + pad, image.shape[1::-1])
    if left >= right or top >= bottom:
        return
    corner, size = np.array([left, top], np.float64), (right - left, bottom - top)
    # OpenCV's anti-aliased edges reach up to 2 pixels too far. Drawn finer and averaged, they are where they should be.
    finer = 4 if size[0] * size[1] < LARGE else 2
    fine = np.zeros((size[1] * finer, size[0] * finer), np.uint8)
    for outline, level in zip(outlines, look.tones):
        points = np.rint(((outline - corner) * finer - 0.5) * (1 << SHIFT)).astype(np.int32)
        cv2.fillPoly(fine, [points], round(min(max(TONE + level, 1), 255)), shift=SHIFT)
    planes = cv2.threshold(fine, 0, 255, cv2.THRESH_BINARY)[1], fine
    alpha, tone = (cv2.resize(plane, size, interpolation=cv2.INTER_AREA).astype(np.float32) for plane in planes)
    alpha /= 255
    to_texture = TO_TEXTURE @ np.linalg.inv(pose) @ shift(corner)
    surface = tone + alpha * (warp(look.texture, to_texture, size) - TONE)  # premultiplied: blur brings nothing in
    if blur > 0:
        surface, alpha = (cv2.GaussianBlur(plane, (0, 0), blur) for plane in (surface, alpha))
    patch = image[top:bottom, left:right]
    kept = cv2.multiply(patch, cv2.merge([1 - alpha] * len(look.base)), dtype=cv2.CV_32F)
    added = cv2.merge([surface + alpha * np.float32(base) for base in look.base])
    patch[...] = cv2.add(kept, added, dtype=cv2.CV_8U if image.dtype == np.uint8 else cv2.CV_32F)


def backdrops(
    rng: np.random.Generator, config: SceneConfig, size: tuple[int, int], blur: float
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """(H, W, 3) RGB canvas and (H, W) thermal canvas of the same place: shared edges, unlike levels."""
    width, height = size
    texture = octaves(rng, width, height, height // 3, 0.75)
    colour = RGB_MEAN + float(rng.uniform(12, 26)) * texture[..., None] + rng.uniform(-12, 12, 3).astype(np.float32)
    tint = octaves(rng, width // 4, height // 4, height // 16, 0.5)
    colour += cv2.resize(tint, size)[..., None] * rng.uniform(-12, 12, 3).astype(np.float32)
    heat = THERMAL_MEAN + float(rng.uniform(4, 12)) * octaves(rng, width, height, height // 2, 0.45)
    slope = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    colour += float(rng.uniform(-25, 25)) * slope[..., None]
    heat += float(rng.uniform(-5, 20)) * slope
    if rng.random() < 0.5:  # sky: bright for one camera, cold for the other
        horizon = int(height * rng.uniform(0.15, 0.45))
        colour[:horizon] = 0.35 * colour[:horizon] + rng.uniform(70, 130, 3).astype(np.float32)
        heat[:horizon] = 0.4 * heat[:horizon] + float(rng.uniform(5, 40))
    visible = np.clip(colour, 0, 255).astype(np.uint8)
    for _ in range(config.clutter):
        outline = _structure(rng, width, height)
        corner = outline.mean(0).clip(0, [width - 1, height - 1]).astype(int)
        levels = visible[corner[1], corner[0]].astype(float), float(heat[corner[1], corner[0]])
        kind = rng.random()  # signs and paint show in RGB alone, warm pipes and walls in thermal alone
        if kind < 0.8:
            fill(visible, outline, tuple(np.clip(levels[0] + rng.uniform(-65, 65) + rng.uniform(-25, 25, 3), 5, 250)))
        if kind > 0.25:
            fill(heat, outline, float(np.clip(levels[1] + rng.normal(0, 22), 5, 235)))
    grain = octaves(rng, width, height, 6, 0.9)  # flat structures get some texture too
    visible = np.clip(visible + float(rng.uniform(2, 8)) * grain[..., None], 0, 255).astype(np.uint8)
    return visible, np.clip(cv2.GaussianBlur(heat, (0, 0), max(blur, 0.7)), 0, 255)


def _structure(rng: np.random.Generator, width: int, height: int) -> NDArray[np.float64]:
    """(n, 2) outline of something static: a box, a pole or a heap."""
    centre = rng.uniform(0, 1, 2) * [width, height]
    kind, extent = rng.random(), height * np.exp(rng.uniform(np.log(0.03), np.log(0.3), 2))
    if kind < 0.45:
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) + rng.uniform(-0.08, 0.08, (4, 2))
        return centre + corners * extent
    if kind < 0.65:
        return centre + np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [rng.uniform(2, 9), extent.max() * 1.5]
    angle = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(5, 24))))
    return centre + np.c_[np.cos(angle), np.sin(angle)] * rng.uniform(0.6, 1, (len(angle), 1)) * extent


class Noise:
    """A bank of noise, drawn once and read at another place for every frame."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, ...], deviation: float, dtype: type) -> None:
        self._shape = shape
        bank = (shape[0] + BANK_MARGIN, shape[1] + BANK_MARGIN, *shape[2:])
        noise = deviation * rng.standard_normal(bank, np.float32)
        self._bank = (np.rint(noise) if dtype is np.int16 else noise).astype(dtype)

    def at(self, rng: np.random.Generator) -> NDArray:
        """A view of the image's shape."""
        y, x = rng.integers(0, BANK_MARGIN + 1, 2)
        return self._bank[y : y + self._shape[0], x : x + self._shape[1]]


class Fault:
    """What is wrong with the RGB camera's view."""

    def __init__(self, rng: np.random.Generator, config: SceneConfig) -> None:
        self._config = config
        width, height = 2 * config.width, 2 * config.height
        self._phase = rng.uniform(0, 2 * np.pi, 2)
        if config.rgb_fault == "smoke":
            density = np.clip(0.78 + 0.2 * octaves(rng, width, height, config.height // 2, 0.55), 0.1, 1)
            self._density = cv2.merge([np.uint8(255 * density)] * 3)
            self._smoke = np.uint8(np.clip(165 + 22 * octaves(rng, width, height, config.height // 3, 0.5), 0, 255))
            self._smoke = cv2.merge([self._smoke] * 3)
        elif config.rgb_fault == "glare":
            y, x = np.mgrid[0:height, 0:width].astype(np.float32)
            dx, dy = (x - width / 2) / config.height, (y - height / 2) / config.height
            radius = np.hypot(dx, dy)
            rays = np.abs(np.cos(3 * np.arctan2(dy, dx) + self._phase[0])) ** 24
            light = 330 * np.exp(-((radius / 0.33) ** 2)) + (90 + 90 * rays) * np.exp(-radius / 0.45) + 25
            self._light = cv2.merge([np.uint8(np.clip(light, 0, 255))] * 3)

    def level(self, i: int) -> float:
        """Strength in frame `i`, 0..1."""
        if self._config.rgb_fault == "none":
            return 0.0
        if self._config.fault_frames is None:
            return self._config.fault_level
        first, end = self._config.fault_frames
        ramp = min((i - first + 1) / FAULT_RAMP, (end - i) / FAULT_RAMP)
        return self._config.fault_level * float(np.clip(ramp, 0, 1))

    def apply(self, image: NDArray[np.uint8], i: int) -> NDArray[np.uint8]:
        """(H, W, 3) as the camera sees it in frame `i`."""
        level = self.level(i)
        if level == 0:
            return image
        height, width = image.shape[:2]
        time = i / self._config.fps
        sway = 0.5 + 0.45 * np.sin(np.array([0.31, 0.23]) * time + self._phase)
        x, y = (sway * [width, height]).astype(int)
        if self._config.rgb_fault == "dark":
            return cv2.convertScaleAbs(image, alpha=1 - 0.95 * level, beta=3 * level)
        if self._config.rgb_fault == "glare":
            washed = cv2.convertScaleAbs(image, alpha=1 - 0.35 * level)
            return cv2.add(washed, cv2.convertScaleAbs(self._light[y : y + height, x : x + width], alpha=level))
        density = cv2.convertScaleAbs(self._density[y : y + height, x : x + width], alpha=level)
        smoke = cv2.multiply(self._smoke[y : y + height, x : x + width], density, scale=1 / 255)
        return cv2.add(cv2.multiply(image, cv2.bitwise_not(density), scale=1 / 255), smoke)
