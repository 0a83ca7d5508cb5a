"""Messages from and to dataclasses, and the words for why nothing arrives."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import ros_helpers  # noqa: F401 - first, it keeps this process's ROS graph apart
from hypothesis import given
from hypothesis import strategies as st

from ckd_tracker_ros.causes import Facts, StreamFacts, why_nothing
from ckd_tracker_ros.images import to_ns
from ckd_tracker_ros.registration import Registration
from ckd_tracker_ros.ros import messages
from ckd_tracker_ros.target import Status, Target
from ckd_tracker_ros.target_messages import target_message, targets_message

BOX = (34.0, 42.0, 20.0, 24.0)
SLOP_NS = 20_000_000


@given(st.integers(0, 2**31 * 10**9 - 1))
def test_stamps_go_both_ways(ns):
    assert to_ns(messages.to_time(ns)) == ns


def test_targets_message_has_both_boxes_and_the_images_used():
    target = Target("a", "car", SimpleNamespace(box=np.array(BOX)), np.array(BOX[2:]), None, Status.LOST, 3)
    message = targets_message(
        messages.TYPES,
        messages.Header(frame_id="cam"),
        (target,),
        Registration(),
        ((320, 240), (160, 120)),
        (True, True),
        latency=0.5,
    )
    assert (message.image_width, message.image_height, message.modalities) == (320, 240, 3)
    (sent,) = message.targets
    assert (sent.id, sent.label, sent.state, sent.frames_lost, sent.box.x) == ("a", "car", 3, 3, 34.0)
    assert (sent.thermal_box.width, sent.thermal_box.x) == (10.0, 17.0)
    for sizes in (((320, 240), None), ((320, 240), (240, 320))):  # not known, and not to be laid over each other
        unknown = target_message(messages.TYPES, target, Registration(), sizes)
        assert math.isnan(unknown.thermal_box.x) and not math.isnan(unknown.box.x)


IMAGE = "sensor_msgs/msg/Image"
FINE = ((IMAGE, "reliable"),)


def stream(modality="rgb", **facts):
    return StreamFacts(modality, f"/{modality}/image_raw", IMAGE, **{"publishers": FINE, "received": 40, **facts})


@pytest.mark.parametrize(
    ("rgb", "facts", "said"),
    [
        ({"publishers": (), "received": 0}, {}, "no publisher on /rgb/image_raw"),
        (
            {"publishers": (), "received": 0, "other_topic": "/rgb/image_raw/compressed"},
            {},
            "rgb.transport to compressed",
        ),
        ({"publishers": (("std_msgs/msg/String", "reliable"),), "received": 0}, {}, "carries std_msgs/msg/String"),
        ({"publishers": ((IMAGE, "best_effort"),), "received": 0}, {}, "QoS on /rgb/image_raw cannot match"),
        ({"received": 0}, {}, "fastdds.xml"),
        ({"unset": 40}, {}, "stamps on /rgb/image_raw are not set"),
        ({}, {"nearest_offset_ns": 34_000_000}, "+0.0340 s: raise sync.slop"),
        ({}, {"nearest_offset_ns": -9_000_000_000}, "clocks of the cameras differ"),
        ({}, {}, "never meet"),
        ({}, {"nearest_offset_ns": 1_000_000}, "do not go on"),
    ],
)
def test_the_cause_of_silence_is_named(rgb, facts, said):
    assert said in why_nothing(Facts((stream(**rgb), stream("thermal")), slop_ns=SLOP_NS, **facts))


def test_two_silent_cameras_are_both_named_and_no_cause_is_empty():
    both = why_nothing(Facts(tuple(stream(name, publishers=(), received=0) for name in ("rgb", "thermal"))))
    assert "/rgb/image_raw" in both and "/thermal/image_raw" in both
    assert why_nothing(Facts((stream(), stream("thermal")), pairs=3)) == ""


def test_what_is_left_over_when_both_cameras_stop_is_no_cause():
    left = Facts((stream(received=1), stream("thermal", received=2)), nearest_offset_ns=0, slop_ns=SLOP_NS)
    assert why_nothing(left) == ""
