"""What only a ROS distribution has: each test is skipped by name where its package cannot be imported."""

from __future__ import annotations

import time

import numpy as np
import pytest
import ros_helpers
from ros_helpers import STEP_NS, running

from ckd_tracker_ros.pairing import NearestPairing
from ckd_tracker_ros.ros.filters import FilterPairing

BOX = (34, 42, 20, 24)


@pytest.fixture(scope="module")
def message_filters():
    return pytest.importorskip("message_filters", reason="message_filters is part of ROS distributions only")


@pytest.fixture(scope="module")
def vision_msgs():
    return pytest.importorskip("vision_msgs.msg", reason="vision_msgs is part of ROS distributions only")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return ros_helpers.tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny.safetensors")


def recorded(golden) -> list[str]:
    with np.load(golden / "pairing_message_filters.npz") as data:
        return sorted({name.split("/")[0] for name in data.files if name.endswith("/events")})


def test_approximate_gives_the_recorded_pairs(message_filters, golden):
    with np.load(golden / "pairing_message_filters.npz") as data:
        for pattern in recorded(golden):
            pairing = FilterPairing("approximate", round(float(data[f"{pattern}/slop"]) * 1e9), 10, 0)
            pairs = [
                (pair.rgb_stamp_ns, pair.thermal_stamp_ns, pair.arrival_ns)
                for arrival, stream, stamp in data[f"{pattern}/events"].tolist()
                for pair in pairing.push(int(stream), int(stamp), int(arrival), None)
            ]
            assert pairs == [tuple(map(int, row)) for row in data[f"{pattern}/pairs"].tolist()], pattern


@pytest.mark.parametrize("policy", ["approximate", "exact"])
def test_policies_take_the_delay_off_and_give_raw_stamps_back(message_filters, policy):
    pairing = FilterPairing(policy, 5_000_000, 10, 40_000_000)
    nearest = NearestPairing(5_000_000, 10, 40_000_000)
    for push in (pairing.push, nearest.push):
        assert push(0, 10**9, 1, "rgb") == ()
        (pair,) = push(1, 10**9 + 40_000_000, 2, "thermal")
        assert (pair.rgb_stamp_ns, pair.thermal_stamp_ns, pair.offset_ns) == (10**9, 10**9 + 40_000_000, 0)
        assert pair.items == ("rgb", "thermal") and pair.arrival_ns == 2
    assert pairing.push(0, 0, 3, "unset") == () and sum(pairing.counts.values()) == 1


@pytest.mark.parametrize("policy", ["approximate", "exact"])
def test_the_node_tracks_with_a_policy_of_message_filters(message_filters, tmp_path, model, policy):
    with running(tmp_path / "log", f"model:={model}", f"sync.policy:={policy}") as (_, robot):
        robot.connected()
        stamp = time.time_ns()
        robot.play(0, stamp)
        robot.result(stamp)
        assert robot.start(("a", "", BOX)).success
        robot.play(1, stamp + STEP_NS)
        assert [target.id for target in robot.result(stamp + STEP_NS).targets] == ["a"]


def test_detections_say_the_same_as_targets(vision_msgs, tmp_path, model):
    with running(tmp_path / "log", f"model:={model}") as (_, robot):
        seen = []
        kind = vision_msgs.Detection2DArray
        robot.node.create_subscription(kind, f"{ros_helpers.NODE}/detections", seen.append, 10)
        robot.connected()
        ros_helpers.until(lambda: robot.node.count_publishers(f"{ros_helpers.NODE}/detections"), "detections")
        stamp = time.time_ns()
        robot.play(0, stamp)
        robot.result(stamp)
        assert robot.start(("a", "car", BOX)).success
        robot.play(1, stamp + STEP_NS)
        (target,) = robot.result(stamp + STEP_NS).targets
        message = ros_helpers.until(lambda: next((m for m in seen if m.detections), None), "a detection")
        (detection,) = message.detections
        assert ros_helpers.to_ns(message.header.stamp) == stamp + STEP_NS and detection.id == "a"
        assert detection.bbox.center.position.x == pytest.approx(target.box.x + target.box.width / 2)
        assert detection.bbox.size_y == pytest.approx(target.box.height)
        (result,) = detection.results
        assert result.hypothesis.class_id == "car" and result.hypothesis.score == pytest.approx(target.confidence)
