"""The offline twin beside the node itself: the same messages in, the same messages out."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy needs ROS 2: a distribution, or the wheels that `make setup` installs")
pytest.importorskip("ckd_tracker_msgs", reason="ckd_tracker_msgs is not built: `make setup`")
pytest.importorskip("rosbags", reason="bags are read with rosbags: pip install rosbags")

import ros_helpers
from bag_files import STORE, TOPICS, recording, scene, write
from rclpy.serialization import deserialize_message
from rosbags.rosbag2 import Reader
from sensor_msgs.msg import Image

from ckd_tracker_msgs.msg import TrackedTargetArray
from ckd_tracker_ros import bag
from ckd_tracker_ros.modality import ModalitySettings
from ckd_tracker_ros.pairing import PairingSettings
from ckd_tracker_ros.sequences.bags import Bag, pairs
from ckd_tracker_ros.tracker import Tracker

FRAMES = 10
SETTINGS = PairingSettings(slop=0.02, thermal_delay=0.003)
BOX = tuple(map(float, np.float32(scene(FRAMES).boxes(0)[0])))  # a request holds float32


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    """Ten frames of both cameras; two thermal ones are lost, and one arrives behind the next RGB image."""
    sent = [each for index, each in enumerate(recording(FRAMES)) if index not in (7, 13)]
    sent[5].received_ns += 35_000_000
    return write(tmp_path_factory.mktemp("bags") / "walk", sent)


@pytest.fixture(scope="module")
def troubled(tmp_path_factory) -> Path:
    """Thermal is frozen in frames 4 to 10, RGB black in 13 to 15. Two pairs a second: a busy machine that hands over an
    image late shall not make a camera silent."""
    sent = recording(18, period_ns=500_000_000)
    for index in range(5, 11):
        sent[2 * index + 1].message.data = sent[2 * 4 + 1].message.data
    for index in range(13, 16):
        sent[2 * index].message.data = np.zeros_like(sent[2 * index].message.data)
    return write(tmp_path_factory.mktemp("bags") / "troubled", sent)


def follow(path: Path, tracker: Tracker, out: Path, modality: ModalitySettings | None = None) -> Path:
    """The results of the offline twin, as a bag."""
    with Bag(path) as opened, bag.ResultBag(out, "mcap") as results:
        bag.follow(tracker, opened, TOPICS, {"a": BOX}, results, SETTINGS, modality=modality)
    return out


@pytest.fixture(scope="module")
def written(recorded, tiny_tracker, tmp_path_factory) -> Path:
    return follow(recorded, tiny_tracker, tmp_path_factory.mktemp("results") / "out")


def messages(path: Path) -> list[TrackedTargetArray]:
    with Reader(path) as reader:
        return [deserialize_message(data, TrackedTargetArray) for _, _, data in reader.messages()]


def test_ros_reads_what_was_written(written):
    sent = messages(written)
    assert len(sent) == FRAMES - 2
    assert [target.id for message in sent for target in message.targets] == ["a"] * len(sent)
    assert all(message.header.frame_id == "rgb_camera" for message in sent)


def test_the_type_hash_is_that_of_ros(written):
    """By which a player tells that a bag's messages are those that its own subscribers know."""
    file = Path(sys.prefix) / "share" / "ckd_tracker_msgs" / "msg" / "TrackedTargetArray.json"
    if not file.is_file():
        pytest.skip(f"no {file}: messages are built elsewhere, or without type hashes (Humble)")
    described = {each["type_name"]: each["hash_string"] for each in json.loads(file.read_text())["type_hashes"]}
    with Reader(written) as reader:
        (connection,) = reader.connections
        assert connection.digest == described[connection.msgtype]


def test_the_node_says_the_same_on_the_same_bag(recorded, written, tiny_checkpoint, tmp_path):
    compare(recorded, messages(written), tiny_checkpoint, tmp_path, "modality.timeout:=30.0")


@pytest.mark.parametrize(("on_missing", "used"), [("degrade", [3] * 8 + [1] * 3 + [3] * 2 + [2] * 3 + [3] * 2),
                                                  ("wait", [3] * 12)])  # fmt: skip
def test_the_node_says_the_same_of_bad_cameras(troubled, tiny_tracker, tiny_checkpoint, tmp_path, on_missing, used):
    written = messages(follow(troubled, tiny_tracker, tmp_path / "out", ModalitySettings(1.6, on_missing)))
    assert [message.modalities for message in written] == used
    given = ("modality.timeout:=1.6", f"modality.on_missing:={on_missing}")
    compare(troubled, written, tiny_checkpoint, tmp_path, *given)


def compare(path: Path, written: list[TrackedTargetArray], checkpoint: Path, tmp_path: Path, *parameters: str) -> None:
    """Plays a bag to the node, one image at a time; what it says has to be what was written, but for times."""
    with Bag(path) as opened:
        expected = list(pairs(opened, TOPICS, SETTINGS.start()))
        arrivals = [(each.key, each.message) for each in opened.messages(TOPICS)]
    completed = {pair.arrival_ns: pair.rgb_stamp_ns for pair in expected}
    given = (f"model:={checkpoint}", "sync.max_age:=60.0", f"sync.thermal_delay:={SETTINGS.thermal_delay}")
    answered = {ros_helpers.to_ns(message.header.stamp) for message in written}
    received, waited = [], 0
    given += ("diagnostics.period:=0.1", *parameters)
    with ros_helpers.running(tmp_path / "log.txt", *given) as (_, robot):
        robot.connected()
        for key, message in arrivals:
            data = STORE.serialize_cdr(message, "sensor_msgs/msg/Image")
            robot.cameras[TOPICS.index(key.topic)].publish(deserialize_message(bytes(data), Image))
            stamp_ns = completed.get(key.received_ns)
            if stamp_ns in answered:
                received.append(robot.result(stamp_ns))
                if len(received) == 1:
                    assert robot.start(("a", "", BOX), stamp_ns=stamp_ns).success
            elif stamp_ns is not None:
                waited += 1
                robot.diagnosed(f"waiting for both cameras: {waited}")
    assert len(received) + waited == len(expected)
    for online, offline in zip(received[1:], written[1:], strict=True):
        for message in (online, offline):  # what only the clock knows
            message.latency = message.processing_time = 0.0
        assert online == offline
