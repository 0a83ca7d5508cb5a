"""Messages to images: views where the layout allows one, the right colours, and clear errors for the rest."""

from __future__ import annotations

import array
import importlib.metadata
import struct
import sys
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckd_tracker_ros.images import ENCODINGS, ImageError, decode

RNG = np.random.default_rng(0)


@dataclass
class RawImage:
    """The fields of sensor_msgs/Image."""

    encoding: str
    width: int
    height: int
    step: int
    data: Any
    is_bigendian: int = 0


@dataclass
class CompressedImage:
    """The fields of sensor_msgs/CompressedImage."""

    format: str
    data: Any


VIEWS = [
    ("rgb8", "u1", 3, "rgb"),
    ("bgr8", "u1", 3, "bgr"),
    ("8UC3", "u1", 3, "bgr"),
    ("rgba8", "u1", 4, "rgba"),
    ("bgra8", "u1", 4, "bgra"),
    ("8UC4", "u1", 4, "bgra"),
    ("mono8", "u1", 1, "mono"),
    ("8UC1", "u1", 1, "mono"),
    ("mono16", "u2", 1, "mono"),
    ("16UC1", "u2", 1, "mono"),
    ("32FC1", "f4", 1, "mono"),
]


def raw(pixels: np.ndarray, encoding: str, padding: int = 0) -> RawImage:
    """A message with these pixels, each row followed by `padding` bytes of noise."""
    height, width = pixels.shape[:2]
    rows = np.frombuffer(pixels.tobytes(), np.uint8).reshape(height, -1)
    rows = np.concatenate([rows, RNG.integers(0, 255, (height, padding), np.uint8)], axis=1)
    big = pixels.dtype.byteorder == ">"
    return RawImage(encoding, width, height, rows.shape[1], array.array("B", rows.tobytes()), int(big))


def noise(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    if dtype.endswith("f4"):
        return RNG.normal(20, 5, shape).astype(dtype)
    return RNG.integers(0, 2 ** (8 * np.dtype(dtype).itemsize), shape).astype(dtype)


@pytest.mark.parametrize("padding", [0, 12])
@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize(("encoding", "sample", "channels", "order"), VIEWS)
def test_usual_encodings_are_read_only_views(encoding, sample, channels, order, endian, padding):
    pixels = noise((5, 7) if channels == 1 else (5, 7, channels), endian + sample)
    message = raw(pixels, encoding, padding)
    image = decode(message)
    np.testing.assert_array_equal(image.pixels, pixels)
    assert image.order == order
    assert (image.width, image.height) == (7, 5)
    assert np.shares_memory(image.pixels, np.frombuffer(message.data, np.uint8))
    assert not image.pixels.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        image.pixels[0] = 0
    message.data[0] ^= 0xFF  # the same bytes, not a copy
    assert image.pixels[0, 0].tobytes() != pixels[0, 0].tobytes()


@pytest.mark.parametrize(("encoding", "sample"), [("mono8", "u1"), ("16UC1", "u2"), ("32FC1", "f4")])
def test_opencv_takes_rows_of_any_length(encoding, sample):
    pixels = noise((20, 30), sample)
    image = decode(raw(pixels, encoding, padding=13))
    np.testing.assert_array_equal(cv2.resize(image.pixels[2:, 3:], (8, 8)), cv2.resize(pixels[2:, 3:], (8, 8)))


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, lambda b: np.frombuffer(b, np.uint8)])
def test_data_of_other_libraries_is_viewed_too(wrap):
    pixels = noise((4, 6, 3), "u1")
    data = wrap(pixels.tobytes())
    image = decode(RawImage("rgb8", 6, 4, 18, data))
    np.testing.assert_array_equal(image.pixels, pixels)
    assert np.shares_memory(image.pixels, np.frombuffer(data, np.uint8))


def test_data_may_be_a_list():
    pixels = noise((4, 6), "u2")
    image = decode(RawImage("mono16", 6, 4, 12, list(pixels.tobytes())))
    np.testing.assert_array_equal(image.pixels, pixels)


def test_message_of_rclpy():
    sensor_msgs = pytest.importorskip("sensor_msgs.msg", reason="needs ROS 2's sensor_msgs")
    pixels = noise((4, 6, 3), "u1")
    message = sensor_msgs.Image(encoding="bgr8", width=6, height=4, step=18)
    message.data = array.array("B", pixels.tobytes())
    image = decode(message)
    np.testing.assert_array_equal(image.pixels, pixels)
    assert np.shares_memory(image.pixels, np.frombuffer(message.data, np.uint8))
    packed = sensor_msgs.CompressedImage(format="png")
    packed.data = array.array("B", cv2.imencode(".png", pixels)[1].tobytes())
    np.testing.assert_array_equal(decode(packed).pixels, pixels)


def test_last_row_may_lack_its_padding_and_data_may_be_longer():
    pixels = noise((3, 5), "u1")
    message = raw(pixels, "mono8", padding=3)
    whole = message.data
    for data in (whole[:-3], whole + array.array("B", [1, 2, 3])):
        message.data = data
        np.testing.assert_array_equal(decode(message).pixels, pixels)


# Colours by position: a mosaic of one flat colour must come back as that colour.
COLOUR = {"r": 200, "g": 120, "b": 40}


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize(("bits", "endian"), [(8, "<"), (16, "<"), (16, ">")])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer(pattern, bits, endian, padding):
    tile = np.array([COLOUR[name] for name in pattern]).reshape(2, 2)
    mosaic = np.tile(tile, (8, 10)).astype(f"{endian}u{bits // 8}")
    if bits == 16:
        mosaic = (mosaic << 8).astype(mosaic.dtype)
    image = decode(raw(mosaic, f"bayer_{pattern}{bits}", padding))
    assert (image.order, image.pixels.dtype, image.pixels.shape) == ("rgb", np.uint8, (16, 20, 3))
    assert (image.pixels == [COLOUR["r"], COLOUR["g"], COLOUR["b"]]).all()


@pytest.mark.parametrize("padding", [0, 4])
@pytest.mark.parametrize(
    ("encoding", "positions"),  # of U, Y, V, Y in two pixels
    [("yuv422", (0, 1, 2, 3)), ("uyvy", (0, 1, 2, 3)), ("yuv422_yuy2", (1, 0, 3, 2)), ("yuyv", (1, 0, 3, 2))],
)
def test_yuv422(encoding, positions, padding):
    red, green, blue = COLOUR.values()
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    u, v = 128 + (blue - luma) * 0.564 * 224 / 255, 128 + (red - luma) * 0.713 * 224 / 255
    y = 16 + luma * 219 / 255  # video range
    two_pixels = np.zeros(4)
    two_pixels[list(positions)] = u, y, v, y
    pixels = np.tile(two_pixels.round().astype(np.uint8), (4, 3)).reshape(4, 6, 2)
    image = decode(raw(pixels, encoding, padding))
    assert (image.order, image.pixels.shape) == ("rgb", (4, 6, 3))
    assert np.abs(image.pixels.astype(int) - [red, green, blue]).max() <= 3


@pytest.mark.parametrize(
    ("pixels", "order"),
    [
        (noise((9, 11), "u1"), "mono"),
        (noise((9, 11), "u2"), "mono"),
        (noise((9, 11, 3), "u1"), "bgr"),
        (noise((9, 11, 4), "u1"), "bgra"),
    ],
)
def test_png(pixels, order):
    image = decode(CompressedImage("png", array.array("B", cv2.imencode(".png", pixels)[1].tobytes())))
    np.testing.assert_array_equal(image.pixels, pixels)
    assert image.order == order
    assert not image.pixels.flags.writeable


def test_png_of_16_bit_colour_keeps_the_high_byte():
    pixels = noise((9, 11, 3), "u2")
    image = decode(CompressedImage("rgb16; png compressed bgr16", cv2.imencode(".png", pixels)[1].tobytes()))
    np.testing.assert_array_equal(image.pixels, pixels >> 8)


def test_jpeg_is_blue_first():
    pixels = np.full((32, 32, 3), (40, 120, 200), np.uint8)
    image = decode(CompressedImage("rgb8; jpeg compressed bgr8", cv2.imencode(".jpg", pixels)[1].tobytes()))
    assert image.order == "bgr"
    assert np.abs(image.pixels.astype(int) - pixels).max() <= 4


def test_compressed_depth():
    counts = noise((6, 8), "u2")
    png = cv2.imencode(".png", counts)[1].tobytes()
    header = struct.pack("<iff", 1, 10.0, 2.0)
    image = decode(CompressedImage("16UC1; compressedDepth png", header + png))
    np.testing.assert_array_equal(image.pixels, counts)
    counts[0, 0] = 0
    png = cv2.imencode(".png", counts)[1].tobytes()
    image = decode(CompressedImage("32FC1; compressedDepth", header + png))
    assert np.isnan(image.pixels[0, 0])
    np.testing.assert_allclose(image.pixels[1:], 10 / (counts[1:].astype(float) - 2), rtol=1e-5)
    with pytest.raises(ImageError, match="rvl"):
        decode(CompressedImage("16UC1; compressedDepth rvl", header + png))


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (RawImage("rgb8", 0, 4, 0, b""), "0x4"),
        (RawImage("mono16", 4, 0, 8, b""), "4x0"),
        (RawImage("mono8", 0, 0, 0, b""), "0x0"),
        (RawImage("rgb8", 4, 4, 11, bytes(48)), r"step 11 is too small: a row of 4 rgb8 pixels has 12 bytes"),
        (RawImage("mono16", 4, 4, 4, bytes(48)), "a row of 4 mono16 pixels has 8 bytes"),
        (RawImage("bgr8", 4, 4, 12, bytes(47)), "truncated image: 4x4 bgr8 with step 12 needs 48 bytes, got 47"),
        (RawImage("bgr8", 4, 4, 12, b""), "got 0"),
        (RawImage("bayer_rggb16", 4, 4, 8, bytes(31)), "needs 32 bytes, got 31"),
        (RawImage("mono8", 2**32 - 1, 2**32 - 1, 2**32 - 1, bytes(9)), f"needs {(2**32 - 1) ** 2} bytes, got 9"),
        (RawImage("yuv422", 3, 2, 6, bytes(12)), "even width, got 3x2"),
        (RawImage("mono8", 2, 1, 2, [1, 300]), "list is not bytes"),
        (RawImage("mono8", 2, 1, 2, None), "NoneType is not bytes"),
        (RawImage("mono8", 2, 1, 2, np.zeros(2, np.uint16)), "items of 2 bytes"),
        (RawImage("mono8", 2, 1, 2, np.zeros(4, np.uint8)[::2]), "contiguous"),
        (CompressedImage("jpeg", b""), "0 bytes"),
        (CompressedImage("png", b"\x89PNG\r\n\x1a\n\x9d\x86\xce\x82IDAT12341234IEND"), "28 bytes"),  # claims 2.6 GB
        (CompressedImage("jpeg", b"not an image"), "'jpeg' .* does not decode"),
        (CompressedImage("16UC1; compressedDepth png", b"short"), "0 bytes"),
    ],
)
def test_broken_images_are_named_with_numbers(message, text):
    with pytest.raises(ImageError, match=text) as caught:
        decode(message)
    assert caught.value.encoding == getattr(message, "encoding", getattr(message, "format", None))


@pytest.mark.parametrize("extension", [".png", ".jpg"])
@pytest.mark.parametrize("kept", [0.2, 0.6, 0.99])
def test_cut_off_files(extension, kept):
    data = cv2.imencode(extension, noise((40, 50, 3), "u1"))[1].tobytes()
    with pytest.raises(ImageError, match="truncated"):
        decode(CompressedImage(extension[1:], data[: int(len(data) * kept)]))


def test_not_an_image_message():
    with pytest.raises(ImageError, match="a dict is no image message"):
        decode({})


def test_unknown_encoding_names_itself_and_the_supported_ones(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv_bridge", None)  # as where it is not installed
    with pytest.raises(ImageError, match="'rgb99' is not supported; use one of rgb8, bgr8") as caught:
        decode(RawImage("rgb99", 4, 4, 12, bytes(48)))
    assert caught.value.encoding == "rgb99"
    assert all(encoding in str(caught.value) for encoding in ENCODINGS)


def test_other_encodings_go_to_cv_bridge():
    pytest.importorskip("cv_bridge", reason="needs ROS 2's cv_bridge, which only a ROS distribution has")
    version = importlib.metadata.version("cv_bridge")
    if int(version.split(".")[0]) < 2:
        pytest.skip(f"cv_bridge {version} is of ROS 1")
    celsius = RNG.normal(20, 30, (4, 6)).astype(np.int16)
    image = decode(raw(celsius, "16SC1"))
    np.testing.assert_array_equal(image.pixels, celsius.astype(np.float32))
    colour = noise((4, 6, 3), "u2")
    image = decode(raw(colour, "rgb16"))
    assert (image.order, image.pixels.shape, image.pixels.dtype) == ("bgr", (4, 6, 3), np.uint8)
    with pytest.raises(ImageError, match="'nonsense' is not supported"):
        decode(RawImage("nonsense", 4, 4, 12, bytes(48)))


@settings(max_examples=200, deadline=None)
@given(
    encoding=st.sampled_from(ENCODINGS),
    width=st.integers(0, 9),
    height=st.integers(0, 9),
    step=st.integers(0, 80),
    size=st.integers(0, 400),
    big=st.booleans(),
)
def test_any_raw_message_decodes_or_says_why(encoding, width, height, step, size, big):
    try:
        image = decode(RawImage(encoding, width, height, step, bytes(size), int(big)))
    except ImageError as error:
        assert error.encoding == encoding
    else:
        assert (image.width, image.height) == (width, height)
        assert size >= step * (height - 1) + width


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["png", "jpeg", "16UC1; compressedDepth png", ""]), st.binary(max_size=200), st.booleans())
def test_any_compressed_message_decodes_or_says_why(encoding, data, png_header):
    data = (b"\x89PNG\r\n\x1a\n" + data + b"IEND") if png_header else data
    try:
        assert decode(CompressedImage(encoding, data)).width > 0
    except ImageError as error:
        assert error.encoding == encoding
