"""Thermal images of 16 bits or floats to the 8 bits that the network was trained on.

Nothing here remembers: the limits that move slowly with the scene belong to each target's state and are handed in and
out, so that tracking the same frames gives the same boxes wherever it runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ckd_tracker_ros.frame import Image

Limits = tuple[float, float]
"""Sensor values (counts, degrees...) that become 0 and 255."""

NORMALIZATIONS = ("percentile", "range")

_GRID_PIXELS = 16_384
_TINY, _LARGEST = 1e-30, 1e38  # far enough inside float32 for products with 255


@dataclass(frozen=True)
class ThermalSettings:
    """How thermal images of more than 8 bits become 8 bits.

    Attributes:
        normalization: `percentile` follows the scene, `range` is fixed.
        percentiles: of the image's values, that become black and white; 0..100.
        range: sensor values that become black and white under `range`.
        smoothing: share of the previous limits in the next, 0 (each frame for itself) up to but not 1.

    Raises:
        ValueError: a value is outside what it allows; the text names both.
    """

    normalization: str = "percentile"
    percentiles: tuple[float, float] = (1.0, 99.0)
    range: tuple[float, float] = (0.0, 65535.0)
    smoothing: float = 0.9

    def __post_init__(self) -> None:
        if self.normalization not in NORMALIZATIONS:
            raise ValueError(f"thermal normalization is {self.normalization!r}; allowed: {', '.join(NORMALIZATIONS)}")
        for name, lowest, highest in (("percentiles", 0.0, 100.0), ("range", -_LARGEST, _LARGEST)):
            pair = tuple(float(value) for value in getattr(self, name))
            object.__setattr__(self, name, pair)  # parameters arrive as lists; settings are compared and hashed
            if len(pair) != 2 or not all(map(math.isfinite, pair)) or not lowest <= pair[0] < pair[1] <= highest:
                raise ValueError(f"thermal {name} is {pair}; allowed: two rising numbers in {lowest:g}..{highest:g}")
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"thermal smoothing is {self.smoothing}; allowed: 0 <= smoothing < 1")


def measure(image: Image, settings: ThermalSettings) -> Limits | None:
    """Limits that this frame alone asks for.

    Percentiles are taken on a regular grid of about 16 thousand pixels; NaN and infinities do not count.

    Returns:
        None when the frame says nothing: 8-bit and colour images, which pass unchanged, and images without one
        finite value.
    """
    pixels = image.pixels
    if pixels.dtype == np.uint8 or pixels.ndim != 2:
        return None
    if settings.normalization == "range":
        return settings.range
    stride = max(1, math.isqrt(pixels.size // _GRID_PIXELS))
    values = pixels[::stride, ::stride].astype(np.float32).ravel()
    if pixels.dtype.kind == "f":
        values = values[np.isfinite(values)]
    if not values.size:
        return None
    low, high = np.percentile(values, settings.percentiles)
    return float(low), float(high)


def smooth(previous: Limits | None, measured: Limits | None, settings: ThermalSettings) -> Limits | None:
    """Limits to use now: exponential smoothing of what the frames asked for.

    The first measurement is taken as it is. So is one that does not even overlap the previous limits: the camera
    changed its gain or unit, and gliding there would show black or white images for seconds. A frame that says
    nothing changes nothing. A fixed `range` is never smoothed.
    """
    if measured is None or previous is None:
        return measured or previous
    disjoint = measured[0] > previous[1] or measured[1] < previous[0]
    if disjoint or settings.normalization == "range":
        return measured
    keep = settings.smoothing
    return keep * previous[0] + (1 - keep) * measured[0], keep * previous[1] + (1 - keep) * measured[1]


def to_uint8(pixels: NDArray, limits: Limits | None) -> NDArray[np.uint8]:
    """Any crop of a thermal image, in either byte order, to 8 bits of the same shape.

    uint8 passes unchanged, the same array. Values outside the limits saturate, NaN becomes 0. Equal limits (a
    constant image) become mid grey, what lies above or below becomes white or black. Floats without limits (an image
    with no finite value) become 0.

    Raises:
        ValueError: integers of more than 8 bits without limits.
    """
    if pixels.dtype == np.uint8:
        return pixels
    if limits is None:
        if pixels.dtype.kind != "f":
            raise ValueError(f"{pixels.dtype} thermal pixels need limits; only 8-bit images pass without")
        return np.zeros(pixels.shape, np.uint8)
    low, high = limits
    resolution = max(float(np.spacing(np.float32(max(abs(low), abs(high))))), _TINY)
    if high - low <= resolution:
        middle = (low + high) / 2
        with np.errstate(invalid="ignore"):
            grey = np.where(pixels > middle + resolution, 255, np.where(pixels >= middle - resolution, 128, 0))
        return grey.astype(np.uint8)
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.subtract(pixels, np.float32(low), dtype=np.float32, casting="unsafe")
        values *= np.float32(255 / (high - low))
        values += np.float32(0.5)  # round, since the cast cuts off
    np.fmax(values, 0, out=values)  # of NaN and 0, fmax takes the 0
    np.fmin(values, 255, out=values)
    return values.astype(np.uint8)
