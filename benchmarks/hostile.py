"""What a hostile or broken participant may send to the node, as hypothesis strategies: for `fuzz.py` and the tests."""

from __future__ import annotations

import array
import random
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from hypothesis import strategies as st

from ckd_tracker_ros.images import ENCODINGS

SIZE = (160, 120)
"""Of the images of the healthy cameras."""

NAMES = st.one_of(
    st.sampled_from(
        ["", "a", "ä ö", "目标", "x" * 10_000, "a\nb", "../../etc/passwd", "{}%s%n", "a b", "\u202e", "🎯"]
    ),
    st.text(max_size=20).map(lambda text: text.replace("\0", "")),
)
"""Ids, labels, frame ids. C strings end at a zero, and rclpy sends no lone surrogates."""

NUMBERS = st.one_of(
    st.floats(width=32),
    st.sampled_from([0.0, -0.0, 1.0, 3.9, 4.0, 20.0, 60.0, 160.0, 1e9, -1e9, 3.4e38, -3.4e38]),
    st.floats(0, 100, width=32),
)
SECONDS = st.sampled_from([0, 1, -1, -(2**31), 2**31 - 1, 1_700_000_000])
NANOSECONDS = st.one_of(st.sampled_from([0, 1, 999_999_999, 10**9, 2**32 - 1]), st.integers(0, 2**32 - 1))


@dataclass(frozen=True)
class Stamp:
    """builtin_interfaces/Time; or, if `seconds` is None, now plus some nanoseconds."""

    seconds: int | None
    nanoseconds: int


STAMPS = st.one_of(
    st.builds(Stamp, SECONDS, NANOSECONDS),
    st.builds(Stamp, st.none(), st.sampled_from([0, 1_000_000, -1_000_000_000, -10_000_000_000, 10_000_000_000])),
)


@dataclass(frozen=True)
class Raw:
    """The fields of sensor_msgs/Image; the data are `length` bytes of noise."""

    encoding: str
    width: int
    height: int
    step: int
    length: int
    seed: int = 0
    is_bigendian: int = 0
    stamp: Stamp = field(default=Stamp(None, 0))
    frame_id: str = ""

    @property
    def data(self) -> bytes:
        return random.Random(self.seed).randbytes(self.length)


@dataclass(frozen=True)
class Compressed:
    """The fields of sensor_msgs/CompressedImage."""

    format: str
    data: bytes
    stamp: Stamp = field(default=Stamp(None, 0))
    frame_id: str = ""


_CHANNELS = {"rgb8": 3, "bgr8": 3, "8UC3": 3, "rgba8": 4, "bgra8": 4, "8UC4": 4, "32FC1": 4}
_ODD_ENCODINGS = ("", "RGB8", "jpeg", "8UC2", "64FC1", "nv12", "mono8 ", "x" * 10_000, "\u202ergb8")


@st.composite
def raw_images(draw: st.DrawFn) -> Raw:
    """Half of them whole in themselves, of any size and type, the others with fields that contradict each other."""
    encoding = draw(st.one_of(st.sampled_from(ENCODINGS), st.sampled_from(_ODD_ENCODINGS), NAMES))
    width, height = draw(
        st.one_of(
            st.just(SIZE),
            st.sampled_from([(1, 1), (1, 120), (160, 1), (2, 2), (40_000, 1), (1, 40_000), (320, 240), (0, 0)]),
            st.tuples(st.integers(0, 300), st.integers(0, 300)),
        )
    )
    samples = _CHANNELS.get(encoding, 2 if encoding.endswith("16") or encoding in ("16UC1", *YUV) else 1)
    step, padding = width * samples, draw(st.sampled_from([0, 0, 0, 1, 7]))
    step += padding
    length = step * height
    if draw(st.booleans()):
        step = draw(st.sampled_from([step, 0, step - 1, step + 1, 2**32 - 1, 1]))
        length = draw(st.sampled_from([length, 0, length - 1, length + 1, length // 2, 1]))
        width, height = draw(st.sampled_from([(width, height), (2**32 - 1, 1), (height, width), (width, 2**31)]))
    return Raw(
        encoding,
        width,
        height,
        max(0, step) % 2**32,
        min(max(0, length), 2_000_000),
        draw(st.integers(0, 9)),
        draw(st.sampled_from([0, 1, 255])),
        draw(STAMPS),
        draw(NAMES),
    )


YUV = ("yuv422", "uyvy", "yuv422_yuy2", "yuyv")


def png_bomb(width: int, height: int, rows: int) -> bytes:
    """A PNG that claims a size, with some rows of black pixels: a thousandth of what they are when decoded."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj()
    black = [packer.compress(bytes(1 + 3 * width)) for _ in range(rows)]
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packed = b"".join([*black, packer.flush()])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def lying_jpeg(width: int, height: int) -> bytes:
    """A JPEG whose header claims a size of up to 65535 x 65535."""
    data = bytearray(cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def lying_tiff(width: int, height: int) -> bytes:
    """A TIFF whose directory claims a size."""
    data = bytearray(cv2.imencode(".tiff", np.zeros((8, 8), np.float32))[1].tobytes())
    (at,) = struct.unpack_from("<I", data, 4)
    for entry in range(struct.unpack_from("<H", data, at)[0]):
        tag = struct.unpack_from("<H", data, at + 2 + 12 * entry)[0]
        if tag in (256, 257):
            struct.pack_into("<HII", data, at + 4 + 12 * entry, 4, 1, width if tag == 256 else height)
    return bytes(data)


def _files() -> list[bytes]:
    """Whole images of the kinds that OpenCV writes."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)
    pictures = [colours, colours[..., 0], colours[..., 0] * np.uint16(200), colours[..., 0].astype(np.float32)]
    kinds = [(".jpg", 0), (".jpg", 1), (".png", 0), (".png", 2), (".tiff", 2), (".tiff", 3), (".bmp", 0), (".hdr", 3)]
    return [cv2.imencode(end, pictures[number])[1].tobytes() for end, number in kinds]


FILES = _files()
BOMBS = [
    png_bomb(12_000, 6000, 200), lying_jpeg(65_500, 65_500), lying_jpeg(0, 9), lying_tiff(2**32 - 1, 2**32 - 1),
    lying_tiff(60_000, 60_000), lying_jpeg(9000, 8000), lying_jpeg(2000, 1500), png_bomb(2000, 1500, 1500),
]  # fmt: skip


@st.composite
def compressed_images(draw: st.DrawFn) -> Compressed:
    """Whole, cut off, with flipped bits, bombs, and noise."""
    data = draw(st.one_of(st.sampled_from(FILES), st.sampled_from(BOMBS), st.binary(max_size=200)))
    damage = draw(st.sampled_from(["none", "cut", "flip", "flip", "twice"]))
    if damage == "cut":
        data = data[: draw(st.integers(0, len(data)))]
    elif damage == "flip" and data:
        data = flipped(data, draw(st.integers(0, 2**20)), draw(st.integers(1, 30)))
    elif damage == "twice":
        data += data
    formats = ["png", "jpeg", "rgb8; jpeg compressed bgr8", "16UC1; compressedDepth png", "32FC1; compressedDepth", ""]
    kind = draw(st.one_of(st.sampled_from(formats), NAMES))
    return Compressed(kind, data, draw(STAMPS), draw(NAMES))


def flipped(data: bytes, seed: int, bits: int, first: int = 0, last: int | None = None) -> bytes:
    """Bytes with some of the bits between two places turned round."""
    rng, copy = random.Random(seed), bytearray(data)
    for _ in range(bits):
        copy[rng.randrange(first, last or len(copy))] ^= 1 << rng.randrange(8)
    return bytes(copy)


MESSAGES = st.one_of(raw_images(), compressed_images())

TARGETS = st.lists(st.fixed_dictionaries({"id": NAMES, "label": NAMES, "box": st.tuples(*[NUMBERS] * 4)}), max_size=4)
"""Of a request: keyword arguments of TargetInit, the box still as four numbers."""

HUNDRED = [{"id": f"t{number}", "label": "", "box": (30.0, 30.0, 30.0, 30.0)} for number in range(100)]

REQUESTS = st.one_of(
    st.tuples(
        st.just("reinitialize"),
        st.fixed_dictionaries(
            {"targets": st.one_of(TARGETS, st.just(HUNDRED)), "stamp": STAMPS, "replace_all": st.just(False)}
        ),
    ),
    st.tuples(st.just("remove_targets"), st.fixed_dictionaries({"ids": st.lists(NAMES, max_size=20)})),
    st.tuples(st.just("pause"), st.just({"data": False})),
    st.tuples(st.just("get_state"), st.just({})),
)
"""(service, fields). None of them may remove the targets that the healthy user has started: those requests are for
`DESTRUCTIVE`."""

DESTRUCTIVE = st.one_of(
    st.tuples(st.just("reset"), st.just({})),
    st.tuples(st.just("pause"), st.just({"data": True})),
    st.tuples(
        st.just("reinitialize"),
        st.fixed_dictionaries({"targets": TARGETS, "stamp": STAMPS, "replace_all": st.just(True)}),
    ),
)

PARAMETERS = st.tuples(
    st.sampled_from([
        "thermal.range", "thermal.percentiles", "thermal.smoothing", "thermal.normalization", "sync.thermal_delay",
        "sync.reuse", "sync.max_age", "lost.confidence", "lost.recover", "diagnostics.period", "debug.rate", "model",
        "max_targets", "registration.thermal_to_rgb", "use_sim_time", "no.such.parameter", "",
    ]),
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), NAMES,
        st.lists(st.floats(), max_size=10), st.lists(NAMES, max_size=3), st.lists(st.booleans(), max_size=3),
        st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3), st.binary(max_size=4),
    ),
)  # fmt: skip


def image_message(fields: Raw | Compressed, now_ns: int) -> Any:
    """The message of sensor_msgs."""
    from sensor_msgs.msg import CompressedImage, Image

    if isinstance(fields, Raw):
        message = Image(
            encoding=fields.encoding, width=fields.width, height=fields.height, step=fields.step,
            is_bigendian=fields.is_bigendian,
        )  # fmt: skip
    else:
        message = CompressedImage(format=fields.format)
    message.data = array.array("B", fields.data)
    message.header.stamp = stamp_message(fields.stamp, now_ns)
    message.header.frame_id = fields.frame_id
    return message


def stamp_message(stamp: Stamp, now_ns: int) -> Any:
    """builtin_interfaces/Time."""
    from builtin_interfaces.msg import Time

    if stamp.seconds is not None:
        return Time(sec=stamp.seconds, nanosec=stamp.nanoseconds)
    seconds, nanoseconds = divmod(now_ns + stamp.nanoseconds, 10**9)
    return Time(sec=seconds, nanosec=nanoseconds)


def request_fields(fields: dict[str, Any], now_ns: int) -> dict[str, Any]:
    """Keyword arguments of the request's class."""
    from ckd_tracker_msgs.msg import Box2D, TargetInit

    made = dict(fields)
    if "stamp" in made:
        made["stamp"] = stamp_message(made["stamp"], now_ns)
    if "targets" in made:
        made["targets"] = [
            TargetInit(
                id=each["id"], label=each["label"], box=Box2D(**dict(zip(("x", "y", "width", "height"), each["box"])))
            )
            for each in made["targets"]
        ]
    return made
