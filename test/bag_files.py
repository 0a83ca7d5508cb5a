"""Bags for the tests: generated scenes, written with rosbags' own writer as cameras and a recorder would have."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from ckd_tracker_ros.synthetic import Scene, SceneConfig

STORE = get_typestore(Stores.ROS2_HUMBLE)
FIRST_NS = 1_700_000_000_000_000_000
PERIOD_NS = 33_333_333
LATE_NS = 4_000_000
"""Between a stamp and its arrival at the recorder; the thermal image arrives once more as late."""
TOPICS = ("/rgb/image_raw", "/thermal/image_raw")
_NAMED = STORE.types


@dataclass
class Sent:
    """One message on its way into a bag."""

    topic: str
    received_ns: int
    message: Any


def header(stamp_ns: int, frame_id: str) -> Any:
    stamp = _NAMED["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return _NAMED["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)


def raw(pixels: np.ndarray, stamp_ns: int, frame_id: str) -> Any:
    """sensor_msgs/Image of (H, W, 3) BGR or (H, W) grey pixels of 8 or 16 bits."""
    encoding = "bgr8" if pixels.ndim == 3 else f"mono{8 * pixels.itemsize}"
    return _NAMED["sensor_msgs/msg/Image"](
        header=header(stamp_ns, frame_id), height=pixels.shape[0], width=pixels.shape[1], encoding=encoding,
        is_bigendian=0, step=pixels[0].nbytes, data=np.frombuffer(pixels.tobytes(), np.uint8),
    )  # fmt: skip


def compressed(pixels: np.ndarray, stamp_ns: int, frame_id: str) -> Any:
    """sensor_msgs/CompressedImage: JPEG of 8-bit pixels, PNG of 16-bit ones."""
    kind = "jpeg" if pixels.dtype == np.uint8 else "png"
    data = cv2.imencode(f".{kind}", pixels)[1]
    return _NAMED["sensor_msgs/msg/CompressedImage"](header=header(stamp_ns, frame_id), format=kind, data=data.ravel())


@functools.cache
def scene(frames: int, thermal_bits: int = 16) -> Scene:
    config = SceneConfig(width=160, height=120, frames=frames, size=(30.0, 40.0), thermal_bits=thermal_bits)
    return Scene(config, seed=4)


def recording(
    frames: int, thermal_bits: int = 16, images: Any = raw, topics: tuple[str, str] = TOPICS, period_ns: int = PERIOD_NS
) -> list[Sent]:
    """Both cameras of a scene in step, the thermal stamps 3 ms behind; boxes are those of `scene`."""
    sent, seen = [], scene(frames, thermal_bits)
    for index in range(frames):
        stamp_ns = FIRST_NS + index * period_ns
        for camera, image in enumerate(seen.frame(index).images):
            message = images(image.pixels, stamp_ns + camera * 3_000_000, ("rgb_camera", "thermal_camera")[camera])
            sent.append(Sent(topics[camera], stamp_ns + (1 + camera) * LATE_NS, message))
    return sent


def write(
    path: Path, sent: list[Sent], storage: str = "sqlite3", compression: str = "", others: tuple[str, ...] = ()
) -> Path:
    """A bag of these messages, and of one std_msgs/Header on each of the other topics; gives its path back."""
    writer = Writer(path, version=8, storage_plugin=StoragePlugin[storage.upper()])
    if compression:
        writer.set_compression(CompressionMode[compression.upper()], CompressionFormat.ZSTD)
    with writer:
        types = {each.topic: each.message.__msgtype__ for each in sent} | dict.fromkeys(others, "std_msgs/msg/Header")
        connections = {topic: writer.add_connection(topic, kind, typestore=STORE) for topic, kind in types.items()}
        for topic in others:
            data = STORE.serialize_cdr(header(1, "other"), types[topic])
            writer.write(connections[topic], FIRST_NS, data)
        for each in sorted(sent, key=lambda each: each.received_ns):
            data = STORE.serialize_cdr(each.message, types[each.topic])
            writer.write(connections[each.topic], each.received_ns, data)
    return path
