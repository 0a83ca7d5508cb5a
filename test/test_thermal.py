"""Thermal images to 8 bits: limits from the scene, safe on every kind of pixel."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ckd_tracker_ros import thermal
from ckd_tracker_ros.frame import Image, RgbtFrame
from ckd_tracker_ros.thermal import Measured, ThermalSettings, limits_of, smooth, to_uint8

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
    limits = limits_of(image, PERCENTILE)
    assert limits == pytest.approx(np.percentile(counts, (1, 99)), abs=20)  # the grid samples; hot pixels do not count
    grey = to_uint8(image.pixels[50:300, 60:200], limits)
    expected = np.clip((counts[50:300, 60:200] - limits[0]) / (limits[1] - limits[0]) * 255, 0, 255)
    assert grey.dtype == np.uint8
    assert np.abs(grey - expected).max() <= 0.51


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<f4"])
def test_a_small_image_is_read_only(dtype):
    pixels = np.arange(40 * 50, 0, -1).reshape(40, 50).astype(dtype)
    before = pixels.copy()
    pixels.flags.writeable = False  # what a message or a file brings; small enough that every pixel is taken
    limits = limits_of(Image(pixels, "mono"), PERCENTILE)
    assert limits == pytest.approx(np.percentile(before, (1, 99)))
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3), (4, 5, 4)])
def test_8_bit_images_pass_unchanged(shape):
    pixels = np.arange(math.prod(shape), dtype=np.uint8).reshape(shape)
    assert limits_of(Image(pixels, "mono" if len(shape) == 2 else "bgr"), PERCENTILE) is None
    assert to_uint8(pixels, None) is pixels
    assert to_uint8(pixels, (10.0, 20.0)) is pixels  # a camera that changed to 8 bits


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_constant_image_is_mid_grey_and_the_rest_is_told_apart(dtype):
    pixels = np.full((40, 40), 30_000, dtype)
    limits = limits_of(Image(pixels, "mono"), PERCENTILE)
    assert limits == (30_000, 30_000)
    pixels[0, :2] = 29_000, 31_000
    grey = to_uint8(pixels, limits)
    assert grey[0, :3].tolist() == [0, 255, 128]
    assert (grey[1:] == 128).all()


def test_not_finite_pixels_do_not_count():
    pixels = np.linspace(20, 30, 10_000, dtype=np.float32).reshape(100, 100)
    clean = limits_of(Image(pixels, "mono"), PERCENTILE)
    broken = pixels.copy()
    broken[::7] = np.nan
    broken[1::7] = np.inf
    broken[2::7] = -np.inf
    limits = limits_of(Image(broken, "mono"), PERCENTILE)
    assert limits == pytest.approx(clean, abs=0.5)
    grey = to_uint8(broken, limits)
    assert (grey[::7] == 0).all()
    assert (grey[1::7] == 255).all()
    assert (grey[2::7] == 0).all()


def test_image_without_a_finite_value_says_nothing():
    pixels = np.full((8, 8), np.nan, np.float32)
    assert limits_of(Image(pixels, "mono"), PERCENTILE) is None
    assert smooth((1.0, 2.0), None, PERCENTILE) == (1.0, 2.0)
    assert (to_uint8(pixels, None) == 0).all()


def test_16_bit_without_limits_is_a_mistake():
    with pytest.raises(ValueError, match="uint16 thermal pixels need limits"):
        to_uint8(np.zeros((2, 2), np.uint16), None)


def asked(low: float, high: float) -> Measured:
    """By a frame whose values are spread evenly."""
    return Measured(low, high, np.linspace(low, high, 11)[1:-1])


def test_limits_move_slowly_and_jump_with_the_gain():
    assert smooth(None, None, PERCENTILE) is None
    assert smooth(None, asked(10, 20), PERCENTILE) == (10.0, 20.0)
    assert smooth((10.0, 20.0), asked(11, 24), PERCENTILE) == pytest.approx((10.1, 20.4))
    assert smooth((10.0, 20.0), asked(300, 400), PERCENTILE) == (300.0, 400.0)
    assert smooth((10.0, 20.0), asked(18, 40), PERCENTILE) == (18, 40)  # most of it would be white
    assert smooth((14.9, 15.1), asked(10, 20), PERCENTILE) == (10, 20)  # after a covered lens: black or white
    assert smooth((10.0, 20.0), asked(11, 24), ThermalSettings(smoothing=0)) == (11.0, 24.0)


def test_fixed_range_ignores_the_scene(counts):
    limits = limits_of(Image(counts, "mono"), RANGE)
    assert limits == (1000, 2000)
    assert smooth((500.0, 1500.0), thermal.measure(Image(counts, "mono"), RANGE), RANGE) == limits
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
    limits = limits_of(Image(pixels, "mono"), PERCENTILE)
    finite = pixels[np.isfinite(pixels)]
    assert (limits is None) == (finite.size == 0)
    grey = to_uint8(pixels, limits)
    assert grey.shape == pixels.shape
    in_order = grey[np.isfinite(pixels)][np.argsort(finite, kind="stable")]
    assert (np.diff(in_order.astype(int)) >= 0).all()


BACKGROUND = np.random.default_rng(1).normal(0, 1, (240, 320))


def frames_with_a_hot_object(share: float, excess: float, count: int = 120) -> list[np.ndarray]:
    """16-bit frames of a background of 20 000 +- 200 counts; from frame 20 to 70 an object fills a share of them."""
    side = round(math.sqrt(share * BACKGROUND.size))
    rng, frames = np.random.default_rng(2), []
    for number in range(count):
        frame = 20_000 + 200 * BACKGROUND + rng.normal(0, 5, BACKGROUND.shape)
        if 20 <= number < 70:
            frame[:side, 5 : 5 + side] += excess
        frames.append(np.clip(frame, 0, 65_535).astype(np.uint16))
    return frames


@pytest.mark.parametrize("share", [0.0005, 0.02, 0.1, 0.4])
@pytest.mark.parametrize("excess", [2_000, 40_000])
def test_a_hot_object_does_not_make_the_background_flicker(share, excess):
    limits, greys, after = None, [], []
    for frame in frames_with_a_hot_object(share, excess):
        limits = smooth(limits, thermal.measure(Image(frame, "mono"), PERCENTILE), PERCENTILE)
        greys.append(to_uint8(frame[200:, 280:], limits).mean())
        after.append(limits)
    assert np.abs(np.diff(greys)).max() < 7  # of 255; with limits that follow at once up to 130
    if share > 0.01:  # a hundredth of the pixels may be beyond the limits by what the percentiles say
        assert after[69][1] > 1.5 * (after[19][1] - 20_000) + 20_000  # it is on its way to show the object
    assert np.abs(np.subtract(after[-1], after[19])).max() < 0.25 * np.ptp(after[19])  # and comes back


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize("percentiles", [(1, 99), (0, 100)])
def test_dead_pixels_set_no_limits_and_leave_no_mark(dtype, percentiles):
    settings = ThermalSettings(percentiles=percentiles)
    clean = np.clip(20_000 + 200 * BACKGROUND, 0, 65_535).astype(dtype)
    dead = clean.copy()
    stuck = (0, 65_535) if dtype == np.uint16 else (np.nan, np.inf)
    for number, (row, column) in enumerate([(3, 5), (60, 80), (61, 90), (100, 200), (239, 319), (0, 0)]):
        dead[row, column] = stuck[number % 2]
    limits, broken = (limits_of(Image(pixels, "mono"), settings) for pixels in (clean, dead))
    np.testing.assert_allclose(broken, limits, atol=0.02 * np.ptp(limits))
    before = dead.copy()
    repaired = to_uint8(thermal.without_dead_pixels(dead, limits), limits)
    np.testing.assert_array_equal(dead, before)  # the message's own bytes
    off = np.abs(repaired.astype(int) - to_uint8(clean, limits))
    assert np.count_nonzero(off) <= 6 and off.max() < 200  # the six, which are like their neighbours now
    assert thermal.without_dead_pixels(clean, limits) is clean


@pytest.mark.parametrize("side", [2, 3, 12])
def test_small_hot_objects_are_no_dead_pixels(side):
    pixels = np.clip(20_000 + 20 * BACKGROUND, 0, 65_535).astype(np.uint16)
    limits = limits_of(Image(pixels, "mono"), PERCENTILE)
    pixels[50 : 50 + side, 70 : 70 + side] = 60_000
    assert thermal.without_dead_pixels(pixels, limits) is pixels


@pytest.mark.parametrize("name", ["HOT", "INFERNO", "JET", "RAINBOW", "PLASMA", "TURBO", "BONE"])
def test_palettes_are_detected_and_grey_is_not(name):
    grey = np.clip(128 + 40 * cv2.GaussianBlur(BACKGROUND, (0, 0), 4) * 8, 0, 255).astype(np.uint8)
    coloured = cv2.applyColorMap(grey, getattr(cv2, f"COLORMAP_{name}"))
    assert thermal.is_palette(Image(coloured, "bgr")) == (name != "BONE")  # nearly grey: used as it is
    for pixels in (grey, cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), cv2.cvtColor(grey, cv2.COLOR_GRAY2BGRA)):
        assert not thermal.is_palette(Image(pixels, "bgr"))
    jpeg = cv2.imdecode(cv2.imencode(".jpg", cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR))[1], cv2.IMREAD_COLOR)
    assert not thermal.is_palette(Image(jpeg, "bgr"))


def test_a_coloured_thermal_image_is_used_as_grey(tiny_tracker):
    grey = (np.arange(120 * 160) % 251).astype(np.uint8).reshape(120, 160)
    coloured = cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO)
    rgb, box = Image(np.dstack([grey] * 3), "rgb"), (50, 40, 30, 30)
    boxes = []
    for image in (
        Image(coloured, "bgr"),
        Image(cv2.cvtColor(cv2.cvtColor(coloured, cv2.COLOR_BGR2RGB), cv2.COLOR_RGB2GRAY), "mono"),
    ):
        frame = RgbtFrame((rgb, image))
        boxes.append(tiny_tracker.step(tiny_tracker.start(frame, box), frame)[1].box)
    np.testing.assert_allclose(*boxes, atol=1.0)  # resized before and after: a grey level apart


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
