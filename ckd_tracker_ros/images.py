"""Image messages to arrays, for anything shaped like sensor_msgs/Image or sensor_msgs/CompressedImage.

Messages of rclpy, of rosbags and plain objects are taken alike: only their fields are read. The usual raw encodings
become views of the message's own bytes. Colours are converted later, on the crop: a tracker looks at a few percent of
a frame, so converting all of it costs more than tracking does.
"""

from __future__ import annotations

import re
import struct
from importlib import metadata
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ckd_tracker_ros import compressed
from ckd_tracker_ros.frame import Image, RgbtFrame
from ckd_tracker_ros.pairing import Pair

# encoding: (sample type, channels, order). 8UC3 and 8UC4 name no colours: they come from an OpenCV matrix
# that was published as it was, and OpenCV's matrices are blue first.
_VIEWS = {
    "rgb8": ("u1", 3, "rgb"),
    "bgr8": ("u1", 3, "bgr"),
    "8UC3": ("u1", 3, "bgr"),
    "rgba8": ("u1", 4, "rgba"),
    "bgra8": ("u1", 4, "bgra"),
    "8UC4": ("u1", 4, "bgra"),
    "mono8": ("u1", 1, "mono"),
    "8UC1": ("u1", 1, "mono"),
    "mono16": ("u2", 1, "mono"),
    "16UC1": ("u2", 1, "mono"),
    "32FC1": ("f4", 1, "mono"),
}
_YUV = {
    "yuv422": cv2.COLOR_YUV2RGB_UYVY,
    "uyvy": cv2.COLOR_YUV2RGB_UYVY,
    "yuv422_yuy2": cv2.COLOR_YUV2RGB_YUY2,
    "yuyv": cv2.COLOR_YUV2RGB_YUY2,
}
# ROS names a mosaic by its first two rows, OpenCV by columns two and three of its second row: rggb is "BayerBG" there.
_BAYER = {
    "rggb": cv2.COLOR_BayerBG2RGB,
    "bggr": cv2.COLOR_BayerRG2RGB,
    "gbrg": cv2.COLOR_BayerGR2RGB,
    "grbg": cv2.COLOR_BayerGB2RGB,
}
_BAYER_ENCODINGS = {f"bayer_{name}{bits}": (code, bits) for name, code in _BAYER.items() for bits in (8, 16)}

ENCODINGS = (*_VIEWS, *_YUV, *_BAYER_ENCODINGS)
"""Raw encodings that are decoded here; all others need cv_bridge."""


MOST_SIDE = 32_766
"""Pixels: OpenCV maps no larger images."""


class ImageError(ValueError):
    """An image that cannot be used; the text says why, with the values.

    Attributes:
        encoding: `encoding` or `format` of the message, so that a caller can warn once for each instead of per frame.
    """

    def __init__(self, text: str, encoding: str = "") -> None:
        super().__init__(text)
        self.encoding = encoding


def to_ns(stamp: Any) -> int:
    """Nanoseconds of a message's stamp; 0 when it is not set. Fractions of a second or more count as just under one:
    every result is a stamp again."""
    return stamp.sec * 1_000_000_000 + min(stamp.nanosec, 999_999_999)


def message_size(message: Any) -> tuple[int, int] | None:
    """Width and height that an image message tells without being decoded; compressed ones do not."""
    return (message.width, message.height) if hasattr(message, "width") else None


def decode_pair(pair: Pair) -> RgbtFrame:
    """The images of a pair of messages.

    Raises:
        ImageError: one of them cannot be used.
    """
    return RgbtFrame(tuple(item if item is None else decode(item) for item in pair.items), pair.rgb_stamp_ns)


def decode(message: Any) -> Image:
    """Image of a message.

    Args:
        message: fields of sensor_msgs/Image (`encoding`, `width`, `height`, `step`, `is_bigendian`, `data`) or of
            sensor_msgs/CompressedImage (`format`, `data`); data is anything with bytes: array.array, bytes,
            a uint8 array, a list of numbers.

    Returns:
        A read-only view of the message's data, which it keeps alive. 16-bit and float samples at odd addresses are
        copied; YUV, Bayer (16-bit Bayer to its high 8 bits), compressed images and what only cv_bridge knows are
        converted whole.

    Raises:
        ImageError: unknown encoding, no pixels, fewer bytes than promised, or bytes that do not decode.
    """
    if hasattr(message, "encoding"):
        image = _decode_raw(message)
    elif hasattr(message, "format"):
        image = _decode_compressed(message)
    else:
        raise ImageError(f"a {type(message).__name__} is no image message: it has neither `encoding` nor `format`")
    if max(image.width, image.height) > MOST_SIDE:
        raise ImageError(f"an image of {image.width}x{image.height} pixels; allowed: {MOST_SIDE} a side")
    image.pixels.flags.writeable = False
    return image


def _decode_raw(message: Any) -> Image:
    encoding = message.encoding
    width, height = int(message.width), int(message.height)
    if width <= 0 or height <= 0:
        raise ImageError(f"an image of {width}x{height} pixels ({_short(encoding)}) has no content", encoding)
    if encoding in _VIEWS:
        sample, channels, order = _VIEWS[encoding]
        return Image(_view(message, sample, channels), order)
    if encoding in _YUV:
        if width % 2:
            raise ImageError(f"{encoding} needs an even width, got {width}x{height}", encoding)
        return Image(cv2.cvtColor(_view(message, "u1", 2), _YUV[encoding]), "rgb")
    if encoding in _BAYER_ENCODINGS:
        code, bits = _BAYER_ENCODINGS[encoding]
        mosaic = _view(message, f"u{bits // 8}", 1)
        return Image(cv2.cvtColor(_high_byte(mosaic), code), "rgb")
    return _decode_with_cv_bridge(message)


def _view(message: Any, sample: str, channels: int) -> NDArray:
    """(H, W) or (H, W, channels) view of a raw message, after checking that all its rows are there."""
    width, height, step, encoding = int(message.width), int(message.height), int(message.step), message.encoding
    dtype = np.dtype((">" if message.is_bigendian else "<") + sample)
    row = width * channels * dtype.itemsize
    if step < row:
        raise ImageError(f"step {step} is too small: a row of {width} {encoding} pixels has {row} bytes", encoding)
    data = _bytes(message.data, encoding)
    needed = step * (height - 1) + row  # some drivers leave out the padding of the last row
    if data.nbytes < needed:
        raise ImageError(
            f"truncated image: {width}x{height} {encoding} with step {step} needs {needed} bytes, got {data.nbytes}",
            encoding,
        )
    shape, strides = (height, width), (step, channels * dtype.itemsize)
    if channels > 1:
        shape, strides = (*shape, channels), (*strides, dtype.itemsize)
    view = np.ndarray(shape, dtype, buffer=data, strides=strides)
    return view if view.flags.aligned else view.copy()  # OpenCV refuses rows that start inside a sample


def _bytes(data: Any, encoding: str) -> memoryview:
    """The bytes of a message's data, without a copy where it has a buffer."""
    try:
        view = memoryview(data)
    except TypeError:
        try:
            view = memoryview(bytes(data))
        except (TypeError, ValueError) as error:
            raise ImageError(f"data of type {type(data).__name__} is not bytes: {error}", encoding) from error
    if view.itemsize != 1 or not view.c_contiguous:
        raise ImageError(
            f"data must be contiguous bytes, got {type(data).__name__} with items of {view.itemsize} bytes", encoding
        )
    return view.cast("B") if view.nbytes else view


def _high_byte(pixels: NDArray) -> NDArray[np.uint8]:
    """8 bits of each sample: all of them, or the upper half of 16."""
    return pixels if pixels.dtype.itemsize == 1 else (pixels >> 8).astype(np.uint8)


def _short(text: str) -> str:
    """A quoted text of somebody else's, of any length, for an error's text."""
    return repr(text if len(text) <= 60 else f"{text[:60]}...")


def _decode_compressed(message: Any) -> Image:
    encoding = message.format
    data = _bytes(message.data, encoding)
    header = b""
    if "compressedDepth" in encoding:
        if "rvl" in encoding.lower():
            raise ImageError(
                f"compressed format {_short(encoding)} is not supported; compressedDepth must use png", encoding
            )
        header, data = bytes(data[:12]), data[12:]
    content = bytes(data)
    what = f"compressed image of format {_short(encoding)} ({len(content)} bytes)"
    try:
        compressed.check(content)
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except compressed.CompressedError as error:
        raise ImageError(f"{what} {error}", encoding) from error
    except cv2.error as error:
        raise ImageError(f"{what} does not decode: {error}", encoding) from error
    if pixels is None:
        raise ImageError(f"{what} does not decode", encoding)
    if pixels.ndim == 2:
        return Image(_known_depth(_depth(pixels, header, encoding)), "mono")
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.shape[2] not in (3, 4):
        raise ImageError(
            f"{what} has {pixels.shape[2]} channels of {pixels.dtype}; colours are of 8 or 16 bits", encoding
        )
    return Image(_high_byte(pixels), "bgr" if pixels.shape[2] == 3 else "bgra")


def _known_depth(pixels: NDArray) -> NDArray:
    """Of one channel: the sample types of `Image`, anything else as float32."""
    return pixels if pixels.dtype in (np.uint8, np.uint16) else pixels.astype(np.float32, copy=False)


def _depth(pixels: NDArray, header: bytes, encoding: str) -> NDArray:
    """Undo the inverse-depth quantisation that compressedDepth applies to 32FC1; 16UC1 is stored as it is."""
    if not header or not encoding.startswith("32FC1"):
        return pixels
    _, scale, offset = struct.unpack("<iff", header)
    code = np.where(pixels == 0, np.nan, pixels)  # 0 stands for "no value"
    return (scale / (code - offset)).astype(np.float32)


def _decode_with_cv_bridge(message: Any) -> Image:
    """Anything that sensor_msgs names and this module does not, where a ROS 2 distribution is installed."""
    encoding = message.encoding
    unsupported = f"image encoding {_short(encoding)} is not supported; use one of {', '.join(ENCODINGS)}"
    try:
        from cv_bridge import CvBridge
    except ImportError as error:
        raise ImageError(f"{unsupported}, or install cv_bridge for ROS 2", encoding) from error
    if not _is_ros2_cv_bridge():
        raise ImageError(f"{unsupported}, or install cv_bridge for ROS 2 (the one here is of ROS 1)", encoding)
    single_channel = re.fullmatch(r"(8|16|32|64)[USF]C1", encoding) is not None
    try:
        pixels = CvBridge().imgmsg_to_cv2(message, "passthrough" if single_channel else "bgr8")
    except (ImportError, AttributeError, KeyError, TypeError, ValueError, RuntimeError, cv2.error) as error:
        # CvBridgeError is a TypeError; a cv_bridge built for another numpy fails only here, with the others
        raise ImageError(f"{unsupported}; cv_bridge failed: {error}", encoding) from error
    return Image(_known_depth(pixels), "mono") if pixels.ndim == 2 else Image(pixels, "bgr")


def _is_ros2_cv_bridge() -> bool:
    """Whether the importable cv_bridge is ROS 2's: registries and Debian carry ROS 1's, which ends at version 1."""
    try:
        return int(metadata.version("cv_bridge").split(".")[0]) >= 2
    except (metadata.PackageNotFoundError, ValueError):
        return True
