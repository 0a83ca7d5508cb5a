"""Cameras of unlike pictures at the real node: what it says without a homography, and its boxes with one."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy needs ROS 2: a distribution, or the wheels that `make setup` installs")
pytest.importorskip("ckd_tracker_msgs", reason="ckd_tracker_msgs is not built: `make setup`")

import ros_helpers
from ros_helpers import STEP_NS, Robot, raw_image, running, scene, until
from typer.testing import CliRunner

from ckd_tracker_ros import cli
from ckd_tracker_ros.ros import gather

BOX = (34, 42, 20, 24)
TOPICS = ("rgb/image_raw", "thermal/image_raw")
_stamps = itertools.count(time.time_ns(), STEP_NS)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return ros_helpers.tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny.safetensors")


def show(robot: Robot, index: int, thermal_size: tuple[int, int]) -> int:
    """A pair with RGB images of 160x120; its stamp."""
    stamp = next(_stamps)
    rgb, thermal = scene(index)[0], scene(index, thermal_size)[1]
    robot.show(stamp, raw_image(rgb, "rgb8", stamp), raw_image(thermal, "mono8", stamp))
    return stamp


def test_unlike_aspect_ratios_without_a_homography_name_calibrate_and_cost_no_target(tmp_path, model):
    given = (f"model:={model}", "sync.max_age:=60.0", "modality.timeout:=5.0")
    with running(tmp_path / "log", *given) as (process, robot):
        robot.connected()
        robot.result(show(robot, 0, (160, 120)))
        assert robot.start(("a", "", BOX)).success
        show(robot, 1, (160, 90))
        said = process.says("image skipped, targets kept")
        assert "160x90" in said and "160x120" in said and "`ckd-tracker calibrate`" in said
        robot.diagnosed("ckd-tracker calibrate")
        refused = robot.start(("b", "", BOX))
        assert not refused.success and "aspect ratio" in refused.message
        after = robot.result(show(robot, 2, (160, 120)))
        assert [target.id for target in after.targets] == ["a"] and after.skipped_pairs == 1


def test_with_a_homography_both_boxes_are_right(tmp_path, model):
    scale_x, scale_y, left, top = 1.6, 1.2, 3.0, -2.0
    nine = [scale_x, 0.0, left, 0.0, scale_y, top, 0.0, 0.0, 1.0]
    given = (f"model:={model}", f"registration.thermal_to_rgb:={nine}", "sync.max_age:=60.0")
    with running(tmp_path / "log", *given) as (_, robot):
        robot.connected()
        robot.result(show(robot, 0, (100, 100)))
        assert robot.start(("a", "", BOX)).success
        (target,) = robot.result(show(robot, 1, (100, 100))).targets
        edges = np.array([target.box.x, target.box.y, target.box.width, target.box.height], np.float64)
        expected = [  # from edges of pixels to centres and back
            (edges[0] - 0.5 - left) / scale_x + 0.5, (edges[1] - 0.5 - top) / scale_y + 0.5,
            edges[2] / scale_x, edges[3] / scale_y,
        ]  # fmt: skip
        box = target.thermal_box
        np.testing.assert_allclose([box.x, box.y, box.width, box.height], expected, atol=1e-3)


# ---- pairs of a live graph, for `ckd-tracker calibrate`


@contextmanager
def playing(robot: Robot, thermal: bool = True) -> Iterator[None]:
    done = threading.Event()

    def play() -> None:
        for index in itertools.count():
            stamp = time.time_ns()
            rgb, heat = scene(index)
            robot.show(stamp, raw_image(rgb, "rgb8", stamp), raw_image(heat, "mono8", stamp) if thermal else None)
            if done.wait(STEP_NS / 1e9):
                return

    thread = threading.Thread(target=play)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.fixture
def robot() -> Iterator[Robot]:
    around = Robot("best_effort")
    yield around
    around.close()


def test_pairs_of_a_live_graph_are_spread_over_the_time_asked_for(robot):
    until(lambda: robot.node.count_publishers("/thermal/image_raw"), "the publishers")
    with playing(robot):
        frames = gather.gather(TOPICS, 4, 1.0)
    assert 2 <= len(frames) <= 4 and all(all(frame.present) for frame in frames)
    assert (np.diff([frame.stamp_ns for frame in frames]) > 0.2e9).all()
    assert frames[0].size == (160, 120) and frames[0].images[1].order == "mono"


def test_why_no_pair_comes_is_said(robot):
    with playing(robot, thermal=False), pytest.raises(gather.GatherError, match="/thermal/image_raw.*no image arrives"):
        gather.gather(TOPICS, 4, 0.5, discovery_s=1.0)
    with pytest.raises(gather.GatherError, match="no publisher on /infra/image_raw"):
        gather.gather(("rgb/image_raw", "infra/image_raw"), 4, 0.2, discovery_s=0.5)
    with pytest.raises(ValueError, match="--rgb 'no name' is no topic"):
        gather.gather(("no name", TOPICS[1]), 4, 0.2)


def test_the_command_says_why_a_live_graph_gives_nothing(tmp_path):
    words = ["calibrate", "--rgb", "/none/image_raw", "--seconds", "0.2", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 1 and not (tmp_path / "out").exists()
    assert "error: no pair of images: no publisher on /none/image_raw" in result.output
