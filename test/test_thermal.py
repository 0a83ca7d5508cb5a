"""Thermal images to 8 bits: limits from the scene, safe on every kind of pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ckd_tracker_ros.frame import Image
from ckd_tracker_ros.thermal import ThermalSettings, measure, smooth, to_uint8

PERCENTILE = ThermalSettings()
RANGE = ThermalSettings(normalization="range", range=(1000, 2000))


@pytest.fixture
def counts() -> np.ndarray:
    """(512, 640) sensor counts of a plausible scene: a warm gradient, noise, a few hot pixels."""
    rng = np.random.default_rng(0)
    image = np.linspace(28_000, 30_000, 512 * 640).reshape(512, 640) + rng.normal(0, 20, (512, 640))
    image[100:105, 200:205] = 65_535
    return image.astype(np.uint16)


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<f4", ">f4"])
def test_same_image_in_every_type(counts, dtype):
    image = Image(counts.astype(dtype), "mono")
    limits = measure(image, PERCENTILE)
    assert limits == pytest.approx(np.percentile(counts, (1, 99)), abs=20)  # the grid samples; hot pixels do not count
    grey = to_uint8(image.pixels[50:300, 60:200], limits)
    expected = np.clip((counts[50:300, 60:200] - limits[0]) / (limits[1] - limits[0]) * 255, 0, 255)
    assert grey.dtype == np.uint8
    assert np.abs(grey - expected).max() <= 0.51


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3), (4, 5, 4)])
def test_8_bit_images_pass_unchanged(shape):
    pixels = np.arange(math.prod(shape), dtype=np.uint8).reshape(shape)
    assert measure(Image(pixels, "mono" if len(shape) == 2 else "bgr"), PERCENTILE) is None
    assert to_uint8(pixels, None) is pixels
    assert to_uint8(pixels, (10.0, 20.0)) is pixels  # a camera that changed to 8 bits


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_constant_image_is_mid_grey_and_the_rest_is_told_apart(dtype):
    pixels = np.full((40, 40), 30_000, dtype)
    limits = measure(Image(pixels, "mono"), PERCENTILE)
    assert limits == (30_000, 30_000)
    pixels[0, :2] = 29_000, 31_000
    grey = to_uint8(pixels, limits)
    assert grey[0, :3].tolist() == [0, 255, 128]
    assert (grey[1:] == 128).all()


def test_not_finite_pixels_do_not_count():
    pixels = np.linspace(20, 30, 10_000, dtype=np.float32).reshape(100, 100)
    clean = measure(Image(pixels, "mono"), PERCENTILE)
    broken = pixels.copy()
    broken[::7] = np.nan
    broken[1::7] = np.inf
    broken[2::7] = -np.inf
    limits = measure(Image(broken, "mono"), PERCENTILE)
    assert limits == pytest.approx(clean, abs=0.5)
    grey = to_uint8(broken, limits)
    assert (grey[::7] == 0).all()
    assert (grey[1::7] == 255).all()
    assert (grey[2::7] == 0).all()


def test_image_without_a_finite_value_says_nothing():
    pixels = np.full((8, 8), np.nan, np.float32)
    assert measure(Image(pixels, "mono"), PERCENTILE) is None
    assert smooth((1.0, 2.0), None, PERCENTILE) == (1.0, 2.0)
    assert (to_uint8(pixels, None) == 0).all()


def test_16_bit_without_limits_is_a_mistake():
    with pytest.raises(ValueError, match="uint16 thermal pixels need limits"):
        to_uint8(np.zeros((2, 2), np.uint16), None)


def test_limits_move_slowly_and_jump_with_the_gain():
    assert smooth(None, None, PERCENTILE) is None
    assert smooth(None, (10.0, 20.0), PERCENTILE) == (10.0, 20.0)
    assert smooth((10.0, 20.0), (20.0, 40.0), PERCENTILE) == pytest.approx((11.0, 22.0))
    assert smooth((10.0, 20.0), (300.0, 400.0), PERCENTILE) == (300.0, 400.0)
    assert smooth((10.0, 20.0), (20.0, 40.0), ThermalSettings(smoothing=0)) == (20.0, 40.0)


def test_fixed_range_ignores_the_scene(counts):
    limits = measure(Image(counts, "mono"), RANGE)
    assert limits == (1000, 2000)
    assert smooth((500.0, 1500.0), limits, RANGE) == limits
    assert to_uint8(np.array([[0, 1000, 1500, 2000, 65535]], np.uint16), limits).tolist() == [[0, 0, 128, 255, 255]]


PIXELS = st.one_of(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)),
    hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)),
)


@settings(max_examples=150, deadline=None)
@given(PIXELS, st.booleans())
def test_anything_becomes_8_bits_in_order(pixels, swapped):
    """Any values: no warning, no wrap-around, and a hotter pixel is never darker."""
    if swapped:
        pixels = pixels.astype(pixels.dtype.newbyteorder())
    limits = measure(Image(pixels, "mono"), PERCENTILE)
    finite = pixels[np.isfinite(pixels)]
    assert (limits is None) == (finite.size == 0)
    grey = to_uint8(pixels, limits)
    assert grey.shape == pixels.shape
    in_order = grey[np.isfinite(pixels)][np.argsort(finite, kind="stable")]
    assert (np.diff(in_order.astype(int)) >= 0).all()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"normalization": "minmax"}, "'minmax'; allowed: percentile, range"),
        ({"percentiles": (99, 1)}, r"percentiles is \(99.0, 1.0\); allowed: two rising numbers in 0..100"),
        ({"percentiles": (1, 101)}, "101"),
        ({"percentiles": (1, 2, 3)}, "two rising numbers"),
        ({"range": (5, 5)}, r"range is \(5.0, 5.0\)"),
        ({"range": (0, math.nan)}, "nan"),
        ({"range": (0, math.inf)}, "inf"),
        ({"smoothing": 1.0}, "smoothing is 1.0; allowed: 0 <= smoothing < 1"),
        ({"smoothing": math.nan}, "nan"),
    ],
)
def test_bad_settings_name_value_and_allowed(arguments, text):
    with pytest.raises(ValueError, match=text):
        ThermalSettings(**arguments)


def test_settings_take_lists_and_stay_comparable():
    assert ThermalSettings(percentiles=[1, 99]) == PERCENTILE
    assert hash(ThermalSettings(range=[0, 65535])) == hash(PERCENTILE)
