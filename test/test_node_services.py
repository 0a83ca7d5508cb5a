"""The active node as a real process: pairs in, targets out, every request and every bad image."""

from __future__ import annotations

import array
import math
import time

import numpy as np
import pytest
import ros_helpers
from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.parameter import Parameter
from ros_helpers import STEP_NS, Robot, raw_image, scene, to_ns, until
from sensor_msgs.msg import Image

from ckd_tracker_msgs.msg import TrackedTarget
from ckd_tracker_ros import images
from ckd_tracker_ros.frame import RgbtFrame
from ckd_tracker_ros.target import LostSettings, Target, follow
from ckd_tracker_ros.tracker import Tracker

BOX = (34, 42, 20, 24)


class Stamps:
    """Stamps at 30 Hz, for all tests of this module: time never goes back unless a test wants it to."""

    def __init__(self, first_ns: int) -> None:
        self.last_ns = first_ns

    def __next__(self) -> int:
        self.last_ns += STEP_NS
        return self.last_ns


_stamps = Stamps(time.time_ns())


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return ros_helpers.tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture(scope="module")
def pair_of_processes(tmp_path_factory, model):
    log = tmp_path_factory.mktemp("node") / "log.txt"
    # Replies are waited for here, so no pair may be too old on a busy machine.
    given = (
        f"model:={model}",
        "max_targets:=3",
        "sync.max_age:=60.0",
        "diagnostics.period:=0.2",
        "replay.seconds:=60.0",
    )
    with ros_helpers.running(log, *given) as (process, robot):
        robot.connected()
        yield process, robot


@pytest.fixture
def robot(pair_of_processes):
    """The robot, with no target in the node and the newest pair published."""
    _, robot = pair_of_processes
    assert robot.insist("reset").success
    step(robot)
    return robot


def step(robot: Robot, index: int = 0, size: tuple[int, int] = (160, 120)):
    """One more pair; the node's message about it."""
    stamp = next(_stamps)
    robot.play(index, stamp, size)
    return robot.result(stamp)


def ids(message) -> list[str]:
    return [target.id for target in message.targets]


def set_parameter(robot: Robot, name: str, value) -> str:
    """Sets one parameter over ROS; the reason of a refusal."""
    client = robot.node.create_client(SetParameters, f"{ros_helpers.NODE}/set_parameters")
    assert client.wait_for_service(ros_helpers.LIMIT_S)
    future = client.call_async(SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()]))
    until(future.done, "set_parameters")
    return future.result().results[0].reason


def test_every_pair_gets_a_message_with_the_rgb_header(robot):
    message = step(robot)
    assert message.targets == [] and (message.image_width, message.image_height, message.modalities) == (160, 120, 3)
    assert message.header.frame_id == "camera"
    assert message.processing_time > 0 and message.sync_offset == 0


def test_node_and_offline_run_give_the_same_boxes_to_the_last_bit(robot, model):
    def pair(index: int, stamp: int) -> tuple[Image, Image]:
        """16-bit thermal images that warm up: their limits have to move alike too."""
        rgb, thermal = scene(index)
        return raw_image(rgb, "bgr8", stamp), raw_image(20_000 + thermal * np.uint16(30 + 5 * index), "mono16", stamp)

    def played(index: int):
        stamp = next(_stamps)
        robot.show(stamp, *pair(index, stamp))
        return robot.result(stamp)

    played(0)
    boxes = [(34, 42, 20, 24), (80, 50, 30.5, 22.25)]
    assert robot.start(*((f"t{i}", "", box) for i, box in enumerate(boxes))).ids == ["t0", "t1"]
    tracker = Tracker.from_checkpoint(model)
    frames = [RgbtFrame(tuple(map(images.decode, pair(index, 0)))) for index in range(8)]
    targets = [Target.begin(f"t{i}", "", tracker.start(frames[0], box)) for i, box in enumerate(boxes)]
    for index in range(1, 8):
        message = played(index)
        targets = follow(tracker, targets, frames[index], LostSettings())
        for said, target in zip(message.targets, targets, strict=True):
            sent = [said.box.x, said.box.y, said.box.width, said.box.height]
            assert np.float32(sent).tobytes() == np.float32(target.box).tobytes()
            assert np.float32(said.confidence) == np.float32(target.confidence) and said.state == target.status


def test_a_target_starts_on_a_past_stamp_and_catches_up(robot):
    first = next(_stamps)
    robot.play(0, first)
    robot.result(first)
    robot.start(("live", "", BOX))
    for index in (1, 2, 3):
        message = step(robot, index)
    assert robot.start(("late", "", BOX), stamp_ns=first).success
    message = step(robot, 4)
    live, late = message.targets
    assert live.box == late.box and live.confidence == late.confidence


def test_restart_keeps_the_label_until_a_new_one_is_given(robot):
    robot.start(("a", "car", BOX), ("b", "man", BOX))
    robot.start(("a", "", (60, 60, 20, 20)))
    assert [(t.id, t.label) for t in step(robot).targets] == [("a", "car"), ("b", "man")]
    robot.start(("a", "truck", BOX))
    assert step(robot).targets[0].label == "truck"


def test_ids_are_assigned_and_replace_all_is_one_step(robot):
    first = robot.start(("", "", BOX), ("x", "", BOX))
    assert first.success and first.ids[1] == "x" and first.ids[0] not in ("", "x")
    assert robot.start(("x", "", BOX), ("y", "", BOX), ("z", "", BOX), replace_all=True).ids == ["x", "y", "z"]
    message = step(robot)
    assert ids(message) == ["x", "y", "z", first.ids[0]]
    assert message.targets[-1].state == TrackedTarget.REMOVED
    assert ids(step(robot)) == ["x", "y", "z"]


def test_remove_is_all_or_nothing_and_reported_once(robot):
    robot.start(("a", "", BOX), ("b", "", BOX))
    refused = robot.call("remove_targets", ids=["a", "ghost"])
    assert not refused.success and "'ghost'" in refused.message
    assert robot.call("remove_targets", ids=["a"]).success
    states = {target.id: target.state for target in step(robot).targets}
    assert states == {"a": TrackedTarget.REMOVED, "b": TrackedTarget.TRACKING}
    assert ids(step(robot)) == ["b"]
    assert robot.call("reset").message == "removed 1 targets"
    assert step(robot).targets[0].state == TrackedTarget.REMOVED
    assert step(robot).targets == []


@pytest.mark.parametrize(
    ("targets", "extra", "said"),
    [
        ([("n", "", (500, 50, 20, 20))], {}, "(500, 50, 20, 20) has its centre outside the image of 160x120"),
        ([("n", "", (50, 50, 20, 3))], {}, "smallest box, 4 px"),
        ([("n", "", (math.nan, 50, 20, 20))], {}, "not finite"),
        ([("n", "", (50, 50, math.inf, 20))], {}, "not finite"),
        ([("n", "", BOX), ("n", "", BOX)], {}, "'n' repeats"),
        ([(f"n{i}", "", BOX) for i in range(3)], {}, "at most 3 (max_targets)"),
        ([(f"n{i}", "", BOX) for i in range(4)], {"replace_all": True}, "too many targets: 4"),
        ([("n", "", BOX)], {"stamp_ns": 5 * 10**9}, "lies outside the pairs that are kept"),
        ([("n", "", BOX), ("m", "", (500, 0, 9, 9))], {"replace_all": True}, "target 'm'"),
        ([], {}, "names no target"),
    ],
)
def test_a_bad_request_is_refused_whole_and_loses_nothing(robot, targets, extra, said):
    robot.start(("kept", "label", BOX))
    before = step(robot, 1)
    response = robot.start(*targets, **extra)
    assert not response.success and said in response.message and response.ids == []
    after = step(robot, 2)
    assert [(t.id, t.label, t.state) for t in after.targets] == [(t.id, t.label, t.state) for t in before.targets]


def test_pause_holds_targets_and_says_so(robot):
    robot.start(("a", "", BOX))
    step(robot, 1)
    assert robot.call("pause", data=True).success
    robot.diagnosed("paused")
    stamp = next(_stamps)
    robot.play(2, stamp)
    robot.diagnosed("paused")
    assert robot.call("pause", data=False).success
    assert ids(step(robot, 3)) == ["a"]
    assert all(to_ns(message.header.stamp) != stamp for message in robot.targets)


def bad_images() -> dict[str, Image]:
    rgb, _ = scene(0)
    truncated, empty, foreign = (raw_image(rgb, "rgb8", 0) for _ in range(3))
    truncated.data = array.array("B", bytes(100))
    empty.width = empty.height = empty.step = 0
    empty.data = array.array("B")
    foreign.encoding = "teal12"
    return {"truncated image": truncated, "0x0": empty, "teal12": foreign}


@pytest.mark.parametrize("said", sorted(bad_images()))
def test_a_bad_image_warns_once_counts_and_keeps_the_target(pair_of_processes, robot, said):
    process, _ = pair_of_processes
    robot.start(("a", "", BOX))
    step(robot, 1)
    for _ in range(2):
        stamp = next(_stamps)
        message = bad_images()[said]
        message.header.stamp = raw_image(np.zeros((1, 1), np.uint8), "mono8", stamp).header.stamp
        robot.show(stamp, message, raw_image(scene(2)[1], "mono8", stamp))
        robot.diagnosed(said)
    after = step(robot, 3)
    assert ids(after) == ["a"] and after.skipped_pairs >= 1
    assert len([line for line in process.output.splitlines() if said in line and "WARN" in line]) == 1


def test_a_request_on_a_bad_image_is_refused_with_its_reason(robot):
    stamp = next(_stamps)
    message = bad_images()["teal12"]
    message.header.stamp = raw_image(np.zeros((1, 1), np.uint8), "mono8", stamp).header.stamp
    robot.show(stamp, message, raw_image(scene(2)[1], "mono8", stamp))
    robot.result(stamp)  # with no target it is not decoded
    response = robot.start(("a", "", BOX))
    assert not response.success and "teal12" in response.message


def test_image_sizes_may_change_in_mid_stream(pair_of_processes, robot):
    process, _ = pair_of_processes
    robot.start(("a", "", BOX))
    step(robot, 1)
    larger = step(robot, 2, (320, 240))
    assert ids(larger) == ["a"] and larger.image_width == 320
    assert "160x120 to 320x240" in process.says("rgb images changed")
    assert ids(step(robot, 3)) == ["a"]


def test_unset_and_backward_stamps_do_not_lose_the_target(robot):
    robot.start(("a", "", BOX))
    step(robot, 1)
    robot.play(2, 0)
    robot.diagnosed("images dropped, stamp_unset: 2")
    past = next(_stamps) - 100 * 10**9
    seen = len(robot.targets)
    for index in range(30):  # a recording that starts again
        robot.play(index, past + index * STEP_NS)
        if len(robot.targets) > seen:
            break
        time.sleep(STEP_NS / 1e9)
    until(lambda: len(robot.targets) > seen, "pairs after the jump")
    assert ids(robot.targets[-1]) == ["a"]
    for index in range(30):  # and back in the present
        robot.play(index, next(_stamps))
    last = next(_stamps)
    robot.play(0, last)
    assert ids(robot.result(last)) == ["a"]


def test_stamps_of_another_clock_have_no_latency_and_name_use_sim_time(pair_of_processes, robot):
    process, _ = pair_of_processes
    for _ in range(2):
        ahead = next(_stamps) + 1000 * 10**9
        robot.play(0, ahead)
        assert math.isnan(robot.result(ahead).latency)
        _stamps.last_ns = ahead
    process.says("use_sim_time")
    assert process.output.count("use_sim_time") == 1


def test_the_debug_image_comes_while_somebody_listens(robot):
    pictures = []
    subscription = robot.node.create_subscription(Image, f"{ros_helpers.NODE}/debug_image", pictures.append, 1)
    robot.start(("a", "", BOX))
    until(lambda: step(robot, 1) and pictures, "a picture")
    robot.node.destroy_subscription(subscription)
    assert (pictures[0].encoding, pictures[0].width, pictures[0].height) == ("bgr8", 160, 120)


def test_live_parameters_take_effect_and_bad_ones_are_refused(robot):
    assert "0.999" in set_parameter(robot, "thermal.smoothing", 2.0)
    assert "read-only" in set_parameter(robot, "sync.slop", 0.1)
    robot.start(("a", "", BOX))
    assert step(robot, 1).targets[0].state == TrackedTarget.TRACKING
    assert set_parameter(robot, "lost.recover", 1.0) == "" == set_parameter(robot, "lost.confidence", 1.0)
    assert step(robot, 2).targets[0].state == TrackedTarget.UNCERTAIN
    assert set_parameter(robot, "lost.after", 0) == ""
    lost = step(robot, 3).targets[0]
    assert (lost.state, lost.frames_lost) == (TrackedTarget.LOST, 1)
    assert set_parameter(robot, "lost.confidence", 0.0) == "" == set_parameter(robot, "lost.recover", 0.0)
    robot.start(("a", "", BOX))
    assert step(robot, 4).targets[0].state == TrackedTarget.TRACKING


def test_a_constant_delay_of_the_thermal_camera_can_be_taken_off_live(robot):
    assert set_parameter(robot, "sync.thermal_delay", 0.25) == ""
    stamp = next(_stamps)
    late = stamp + 256_000_000
    rgb, thermal = scene(0)
    robot.show(stamp, raw_image(rgb, "rgb8", stamp), raw_image(thermal, "mono8", late))
    message = robot.result(stamp)
    assert set_parameter(robot, "sync.thermal_delay", 0.0) == ""
    assert message.sync_offset == pytest.approx(0.006, abs=1e-6)
    _stamps.last_ns = late


def test_diagnostics_tell_rates_model_and_targets(robot):
    robot.start(("a", "", BOX))
    step(robot, 1)
    status = robot.diagnosed("TRACKING").status[0]
    values = {value.key: value.value for value in status.values}
    assert status.level == DiagnosticStatus.OK and status.hardware_id == "cpu"
    assert values["model"] == "random" and values["state"] == "active" and values["target a"] == "TRACKING"
    assert {"rgb rate [Hz]", "processed pairs rate [Hz]", "subscription rgb"} <= set(values)


def test_parameters_are_readable_while_tracking(robot):
    client = robot.node.create_client(GetParameters, f"{ros_helpers.NODE}/get_parameters")
    assert client.wait_for_service(ros_helpers.LIMIT_S)
    future = client.call_async(GetParameters.Request(names=["max_targets"]))
    until(future.done, "get_parameters")
    assert future.result().values[0].integer_value == 3
