"""The node's process from start to end: failures that can be mended, transitions, and signals at any moment."""

from __future__ import annotations

import importlib.util
import shutil
import signal
import time

import pytest
import rclpy
import ros_helpers
from lifecycle_msgs.msg import Transition
from rclpy.lifecycle import TransitionCallbackReturn
from ros_helpers import NodeProcess, Robot, running, until
from sensor_msgs.msg import Image

from ckd_tracker_ros.pairing import Pair
from ckd_tracker_ros.ros.tracker_node import TrackerNode

BOX = (34, 42, 20, 24)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return ros_helpers.tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def configured(model):
    """Configures a node of this process with some parameters: the result and what it says about a failure."""
    nodes = []

    def configure(*parameters: str):
        words = [word for parameter in (f"model:={model}", *parameters) for word in ("-p", parameter)]
        rclpy.init(args=["--ros-args", *words])
        nodes.append(TrackerNode())
        return nodes[0].trigger_configure(), nodes[0].view.failure

    yield configure
    for node in nodes:
        node.destroy_node()
    rclpy.try_shutdown()


def track(robot: Robot) -> None:
    """One target, one step."""
    robot.connected()
    stamp = time.time_ns()
    robot.play(0, stamp)
    robot.result(stamp)
    assert robot.start(("a", "", BOX)).success
    robot.play(1, stamp + ros_helpers.STEP_NS)
    assert [t.id for t in robot.result(stamp + ros_helpers.STEP_NS).targets] == ["a"]


def test_deactivation_lets_go_of_the_images(model):
    rclpy.init(args=["--ros-args", "-p", f"model:={model}"])
    node = TrackerNode()
    try:
        assert node.trigger_configure() == node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        ring = node.view.running.ring
        ring.append(Pair(1, 1, (Image(), Image()), 1, 0.0))
        assert len(ring) == 1
        assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
        assert len(ring) == 0
    finally:
        node.close()
        node.destroy_node()
        rclpy.try_shutdown()


def test_a_corrupt_model_fails_cleanly_and_can_be_replaced(tmp_path, model):
    path = tmp_path / "late.safetensors"
    path.write_bytes(model.read_bytes()[: model.stat().st_size // 2])
    with running(tmp_path / "log", f"model:={path}", "diagnostics.period:=0.2") as (process, robot):
        assert "late.safetensors" in process.says("on_configure failed")
        assert robot.state() == "unconfigured"
        status = robot.diagnosed("late.safetensors").status[0]
        assert status.level == b"\x02"
        assert "not active: the node is unconfigured" in robot.start(("a", "", BOX)).message
        for name in ("reset", "pause", "remove_targets"):
            response = robot.call(name)
            assert not response.success and "not active" in response.message
        assert not robot.change("configure")
        shutil.copy(model, path)
        assert robot.change("configure") and robot.state() == "inactive"
        assert "not active: the node is inactive" in robot.call("reset").message
        assert not robot.change("cleanup_now")  # no such transition
        robot.ask("change_state", transition=Transition(id=Transition.TRANSITION_CONFIGURE))  # not possible now
        process.says("Transition is not registered")
        assert robot.change("activate") and robot.state() == "active"
        track(robot)

        assert robot.change("deactivate")
        assert "not active" in robot.call("reset").message
        assert robot.change("activate")
        stamp = time.time_ns()
        robot.connected()
        robot.play(2, stamp)
        assert [t.id for t in robot.result(stamp).targets] == ["a"]  # kept while it was inactive

        assert robot.change("deactivate") and robot.change("cleanup") and robot.state() == "unconfigured"
        assert robot.change("configure") and robot.change("activate")
        track(robot)
        assert robot.change("shutdown") and robot.state() == "finalized"
        assert "finalized" in robot.call("reset").message


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["model:=no_such_model"], "no_such_model"),
        (["device:=cuda:77"], "cuda:77"),
        (["sync.slop:=-3.0", "thermal.transport:=theora"], "-3.0"),
        (["sync.slop:=-3.0", "thermal.transport:=theora"], "raw, compressed"),
        (["precision:=float7"], "float7"),
    ],
)
def test_what_cannot_be_configured_is_refused_with_its_reason(configured, given, said):
    result, failure = configured(*given)
    assert result == TransitionCallbackReturn.FAILURE and said in failure


@pytest.mark.parametrize("policy", ["approximate", "exact"])
def test_a_policy_without_message_filters_is_refused_with_what_works(configured, policy):
    if importlib.util.find_spec("message_filters"):
        pytest.skip("message_filters is installed here, so the policy works")
    result, failure = configured(f"sync.policy:={policy}")
    assert result == TransitionCallbackReturn.FAILURE
    assert f"{policy} needs message_filters, which is not installed; use nearest" in failure


MOMENTS = [
    ("while importing", signal.SIGINT),
    ("loading", signal.SIGTERM),
    ("model random", signal.SIGINT),
    ("tracking", signal.SIGTERM),
]


@pytest.mark.parametrize(("moment", "number"), MOMENTS)
def test_signals_end_the_node_at_any_moment(tmp_path, model, moment, number):
    process = NodeProcess(tmp_path / "log", f"model:={model}")
    robot = Robot() if moment == "tracking" else None
    try:
        if robot is not None:
            process.says("model random")
            track(robot)
            for index in range(5):
                robot.play(index, time.time_ns())
        elif moment == "while importing":
            process.loads("libtorch")
        else:
            process.says(moment)
        code = process.end(number)
    finally:
        if robot is not None:
            robot.close()
    assert code in (0, -number if moment == "while importing" else 0), process.output
    for word in ("Traceback", "Exception", "exception"):
        assert word not in process.output, process.output


def test_arguments_that_cannot_be_read_are_said_in_one_line(tmp_path):
    broken = tmp_path / "broken.yaml"
    broken.write_text("/**:\n  ros__parameters: [not, a, map\n")
    process = NodeProcess(tmp_path / "log", "model:=ckd_tiny", arguments=("--params-file", str(broken)))
    until(lambda: not process.alive, "the end of the process")
    assert process.end() == 2
    assert "broken.yaml" in process.output and "Traceback" not in process.output
