"""Thermal images of 16 bits or floats to the 8 bits that the network was trained on.

Nothing here remembers: the limits that move slowly with the scene belong to each target's state and are handed in and
out, so that tracking the same frames gives the same boxes wherever it runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ckd_tracker_ros.frame import Image

Limits = tuple[float, float]
"""Sensor values (counts, degrees...) that become 0 and 255."""

NORMALIZATIONS = ("percentile", "range")

PALETTE_WARNING = (
    "the thermal images are coloured: a palette for people (ironbow, rainbow, ...), or another camera's topic. They "
    "are used as grey, which loses what the palette hides: set the camera's driver to mono16, or to mono8 (white-hot)"
)
"""Whoever sees `is_palette` for the first time should say this."""

_GRID_PIXELS = 16_384
_TINY, _LARGEST = 1e-30, 1e38  # far enough inside float32 for products with 255
_DECILES = np.arange(1, 10) / 10
_REACH = 0.5
"""Of the range between the limits: what a frame asks for beyond counts as that far away. A hot object that enters
may be ten times as hot as all else; at the usual smoothing the grey of all else then changes by 5 % a frame."""
_COLOURED, _COLOURED_SHARE = 40, 0.05
"""A pixel is coloured if its channels differ by more, an image if more of its pixels are: JPEG shifts grey by less."""
_RING = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], np.uint8)


class Measured(NamedTuple):
    """What one frame says.

    Attributes:
        low, high: limits that it asks for.
        deciles: (9,) of its values; what most of the image shows, whatever a hot object does to the limits.
    """

    low: float
    high: float
    deciles: NDArray[np.float64]


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


def measure(image: Image, settings: ThermalSettings) -> Measured | None:
    """What this frame alone asks for.

    Percentiles are taken on a regular grid of about 16 thousand pixels. NaN, infinities and the smallest and largest
    value of 16 bits do not count: dead pixels have them, as has what lies outside a registered image.

    Returns:
        None when the frame says nothing: 8-bit and colour images, which pass unchanged, and images without one
        value that counts, unless all of it is the smallest or the largest.
    """
    pixels = image.pixels
    if pixels.dtype == np.uint8 or pixels.ndim != 2:
        return None
    if settings.normalization == "range":
        return Measured(*settings.range, np.zeros(0))
    stride = max(1, math.isqrt(pixels.size // _GRID_PIXELS))
    values = pixels[::stride, ::stride].ravel()
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if pixels.dtype.kind == "f":
        values = values[np.isfinite(values)]
    if not values.size:
        return None
    # of 16 bits by radix, a third of the time of np.percentile; that is slow for floats
    ordered = np.sort(values, kind="stable" if pixels.dtype.kind == "u" else None)
    if pixels.dtype.kind == "u":
        first, last = np.searchsorted(ordered, [1, np.iinfo(ordered.dtype).max])
        ordered = ordered[first:last] if last > first else ordered
    low, high = (_quantile(ordered, percent / 100) for percent in settings.percentiles)
    return Measured(low, high, np.array([_quantile(ordered, share) for share in _DECILES]))


def _quantile(ordered: NDArray, share: float) -> float:
    """Of (N,) rising values, between two of them by linear interpolation, as numpy does it."""
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    low, high = (float(value) for value in ordered[[below, min(below + 1, len(ordered) - 1)]])
    return low + (place - below) * (high - low)


def smooth(previous: Limits | None, measured: Measured | None, settings: ThermalSettings) -> Limits | None:
    """Limits to use now: exponential smoothing of what frames ask for, in steps of at most a share of their range.

    The first measurement is taken as it is. So is one of a frame most of which lies outside the previous limits: the
    camera changed its gain or unit, and gliding there would show black or white images for seconds. A hot object, as
    long as it fills less than half of the image, is not that: it is white for some seconds while the limits glide
    there, and what is around it keeps its grey. A frame that says nothing changes nothing. A fixed `range` is never
    smoothed.
    """
    if measured is None:
        return previous
    wanted = (measured.low, measured.high)
    keep = settings.smoothing
    if previous is None or keep == 0 or settings.normalization == "range":
        return wanted
    shown = (previous[0] <= measured.deciles) & (measured.deciles <= previous[1])
    if 2 * shown.sum() < len(shown):
        return wanted
    # of a constant image nothing is left to move; a hundredth of what is asked for gets it going
    reach = _REACH * max(previous[1] - previous[0], 0.01 * (measured.high - measured.low))
    low, high = (old + (1 - keep) * min(max(new - old, -reach), reach) for old, new in zip(previous, wanted))
    return low, high


def limits_of(image: Image, settings: ThermalSettings) -> Limits | None:
    """Limits of an image without a past; None for what `measure` has no answer to."""
    return smooth(None, measure(image, settings), settings)


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


def without_dead_pixels(pixels: NDArray, limits: Limits) -> NDArray:
    """Pixels far outside the limits, with none such beside them, become the median of their surroundings.

    Args:
        pixels: (H, W) of 16 bits or floats, in this machine's byte order.
        limits: of the image; "far" is half of the range between them.

    Returns:
        The same array where there are none, else a copy. Floats that are not finite, and not single, become very
        small or very large numbers: resizing spreads NaN.
    """
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        pixels = np.nan_to_num(pixels, nan=-_LARGEST, posinf=_LARGEST, neginf=-_LARGEST)
    far = (limits[1] - limits[0]) / 2
    lowest, highest, *_ = cv2.minMaxLoc(pixels)
    if limits[0] - far <= lowest and highest <= limits[1] + far:
        return pixels
    inside = cv2.inRange(pixels, limits[0] - far, limits[1] + far)
    alone = cv2.bitwise_and(cv2.bitwise_not(inside), cv2.erode(inside, _RING))
    places = cv2.findNonZero(alone)
    if places is None:
        return pixels
    columns, rows = places.reshape(-1, 2).T
    height, width = pixels.shape
    steps_down, steps_right = np.mgrid[-1:2, -1:2].reshape(2, -1)
    around = pixels[
        np.clip(rows[:, None] + steps_down, 0, height - 1), np.clip(columns[:, None] + steps_right, 0, width - 1)
    ]
    repaired = pixels.copy()
    repaired[rows, columns] = np.median(around, axis=1)
    return repaired


def is_palette(image: Image) -> bool:
    """Whether a thermal image is coloured, as a palette for people does it; grey in three channels is not.

    A thermal camera measures one number a pixel. Of about 16 thousand pixels more than a twentieth have to differ
    clearly between their channels: grey images that went through JPEG have few of them.
    """
    pixels = image.pixels
    if pixels.ndim != 3:
        return False
    stride = max(1, math.isqrt(pixels.shape[0] * pixels.shape[1] // _GRID_PIXELS))
    colours = pixels[::stride, ::stride, :3]
    red, green, blue = (colours[..., channel] for channel in range(3))
    most, least = cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue)
    return bool(np.count_nonzero(most - least > _COLOURED) > _COLOURED_SHARE * most.size)


def to_grey(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) RGB -> the same shape, all channels its luminance."""
    return cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
