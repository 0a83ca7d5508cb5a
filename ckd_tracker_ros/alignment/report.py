"""An alignment for people and for the node: a table, a picture, parameters."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from ckd_tracker_ros.alignment.edges import field_of, grey, warp
from ckd_tracker_ros.alignment.estimate import Alignment
from ckd_tracker_ros.frame import RgbtFrame
from ckd_tracker_ros.overlay import Picture, to_bgr, write
from ckd_tracker_ros.registration import scaling

_EDGES = (60, 140, 255)  # BGR
_DIM = 0.55
ALIGNED = 2.0
"""RGB pixels at the corners below which scaling by image size is as good."""


def numbers(alignment: Alignment) -> list[float]:
    """The nine of registration.thermal_to_rgb, to seven digits."""
    matrix = alignment.matrix / alignment.matrix[2, 2]
    return [float(f"{value:.7g}") + 0.0 for value in matrix.ravel()]


def as_yaml(alignment: Alignment, source: str) -> str:
    """The parameter file that the node takes."""
    sizes = (f"{name} {width}x{height}" for name, (width, height) in _sizes(alignment))
    source = "".join(letter if letter.isprintable() else "?" for letter in source)
    return (
        f"# Written by `ckd-tracker calibrate`: {alignment.model}, from {alignment.pairs} pairs of {source}.\n"
        f"# For images of these sizes: {', '.join(sizes)}. Thermal pixels to RGB pixels, row major.\n"
        f"# Two halves of the images differ by {alignment.spread:.2f} RGB pixels in the centre.\n"
        "/**:\n  ros__parameters:\n    registration:\n"
        f"      thermal_to_rgb: [{', '.join(map(repr, numbers(alignment)))}]\n"
        f"      sizes: [{', '.join(str(side) for _, size in _sizes(alignment) for side in size)}]\n"
    )


def _sizes(alignment: Alignment) -> list[tuple[str, tuple[int, int]]]:
    return [("RGB", alignment.rgb_size), ("thermal", alignment.thermal_size)]


def table(alignment: Alignment) -> Table:
    """For people: what lies between the cameras, and what speaks for it."""
    middle = (np.array(alignment.thermal_size) - 1) / 2
    at = cv2.perspectiveTransform(middle[None, None], alignment.matrix)[0, 0]
    (a, _), (c, _) = alignment.matrix[:2, :2] / alignment.matrix[2, 2]
    rows = {
        "images": ", ".join(f"{name} {width}x{height}" for name, (width, height) in _sizes(alignment)),
        "model": alignment.model,
        "one thermal pixel": f"{math.sqrt(abs(np.linalg.det(_slopes(alignment.matrix, middle)))):.4f} RGB pixels",
        "turned by": f"{math.degrees(math.atan2(c, a)):+.2f} degrees, from x to y",
        "centre of thermal": f"RGB pixel {at[0]:.1f}, {at[1]:.1f}",
        "against scaling by size": f"{alignment.shift:.1f} RGB pixels at the worst corner",
        "edges fit": f"{alignment.before:.2f} scaled by size, {alignment.after:.2f} with the matrix (1: the same)",
        "blocks that agree": f"{alignment.agreeing} of {alignment.found}, {alignment.residual:.2f} RGB pixels off",
        "halves are apart": f"{alignment.spread:.2f} RGB pixels (centre), {alignment.spread_corners:.2f} (corners)",
    }
    shown = Table("calibration", f"from {alignment.pairs} pairs")
    for row in rows.items():
        shown.add_row(*row)
    return shown


def _slopes(matrix: NDArray, point: NDArray) -> NDArray[np.float64]:
    """(2, 2) derivative of a homography at a (2,) point."""
    x, y, depth = matrix @ [*point, 1]
    return (matrix[:2, :2] - np.outer([x / depth, y / depth], matrix[2, :2])) / depth


def as_text(alignment: Alignment) -> list[str]:
    """For people: what to do with it."""
    lines = [f"--thermal-to-rgb {','.join(map(str, numbers(alignment)))}"]
    if alignment.shift < max(ALIGNED, alignment.spread_corners):
        lines.append("the images line up by their size already, as well as this can be told: nothing needs to be set")
    return lines


def overlay(frame: RgbtFrame, alignment: Alignment) -> Picture:
    """The edges of a thermal image on the RGB image, scaled by size on the left, with the matrix on the right.

    Returns:
        (H, 2 W, 3) BGR.
    """
    rgb, thermal = frame.images
    size, panels = alignment.rgb_size, []
    by_size = scaling(alignment.thermal_size, size)
    for caption, matrix in (("before: scaled by size", by_size), ("after: thermal_to_rgb", alignment.matrix)):
        warped, seen = warp(grey(thermal), matrix, size)
        strength = np.linalg.norm(field_of(warped, seen), axis=2, keepdims=True).clip(0, 1)
        panel = to_bgr(rgb) * (_DIM * (1 - strength)) + strength * np.float32(_EDGES)
        panels.append(panel.astype(np.uint8))
        write(panels[-1], caption, (0, 0))
    return np.concatenate(panels, axis=1)
