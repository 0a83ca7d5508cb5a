"""Topics that do not fit, cameras that are silent, other transports: the node says why, and goes on when it can."""

from __future__ import annotations

import array
import time

import cv2
import pytest
import ros_helpers
from ros_helpers import STEP_NS, Robot, raw_image, running, scene, until
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String

BOX = (34, 42, 20, 24)
RGB, THERMAL = "/rgb/image_raw", "/thermal/image_raw"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return ros_helpers.tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny.safetensors")


class Cameras:
    """Publishes at 30 Hz from a timer of the robot until it is told otherwise."""

    def __init__(self, robot: Robot) -> None:
        self._robot = robot
        self._timer = None

    def run(self, rgb=None, thermal=None, offset_ns: int = 0, stamped: bool = True) -> None:
        """From now on these publishers get images, thermal ones with stamps later by `offset_ns`."""
        self.stop()
        rgb_pixels, thermal_pixels = scene(0)

        def show() -> None:
            stamp = time.time_ns() if stamped else 0
            if rgb is not None:
                rgb.publish(raw_image(rgb_pixels, "rgb8", stamp))
            if thermal is not None:
                thermal.publish(raw_image(thermal_pixels, "mono8", stamp + offset_ns if stamped else 0))

        self._timer = self._robot.node.create_timer(STEP_NS / 1e9, show)

    def stop(self) -> None:
        if self._timer is not None:
            self._robot.node.destroy_timer(self._timer)


def test_the_causes_of_silence_one_after_the_other(tmp_path, model):
    """One node lives through everything that can be wrong, and says each of them once in log and diagnostics."""
    with running(tmp_path / "log", f"model:={model}", "diagnostics.period:=0.2") as (process, robot):
        cameras = Cameras(robot)
        for camera in robot.cameras:  # those of the robot stay out of this test
            robot.node.destroy_publisher(camera)
        process.says("model random")
        warning = process.says(f"no publisher on {RGB}")
        assert THERMAL in warning and "ckd-tracker doctor" in warning
        robot.diagnosed(f"no publisher on {RGB}")

        wrong = robot.node.create_publisher(String, RGB, 1)
        process.says(f"{RGB} carries std_msgs/msg/String, the node expects sensor_msgs/msg/Image")
        robot.node.destroy_publisher(wrong)

        packed = robot.camera("rgb", kind=CompressedImage)
        process.says(f"there is one on {RGB}/compressed: set rgb.transport to compressed")
        robot.node.destroy_publisher(packed)

        rgb, thermal = (robot.camera(name, "best_effort") for name in ("rgb", "thermal"))
        process.says(f"{THERMAL}: now subscribed as best_effort")  # auto has asked the graph
        process.says(f"{THERMAL} has a publisher but no image arrives")
        cameras.run(rgb)
        until(lambda: RGB not in robot.diagnosed(THERMAL).status[0].message, "only the silent camera to be named")

        cameras.run(rgb, thermal, offset_ns=500_000_000)
        process.says("the smallest offset seen, thermal less RGB, is +0.5")
        cameras.run(rgb, thermal, stamped=False)
        process.says("are not set (0)")
        cameras.run(rgb, thermal)
        process.says("pairs of images arrive")
        until(lambda: robot.targets, "messages about pairs")
        robot.diagnosed("no target: call ~/reinitialize")
        cameras.stop()
        assert process.output.count(f"no publisher on {RGB}: is") == 1


def test_a_qos_that_cannot_match_is_named(tmp_path, model):
    with running(tmp_path / "log", f"model:={model}", "qos.reliability:=reliable", reliability="best_effort") as (
        process,
        robot,
    ):
        line = process.says("cannot match")
        assert "publisher is best_effort, the node asks for reliable" in line
        robot.diagnosed("cannot match")


def test_compressed_images_and_a_simulated_clock_that_stands_still(tmp_path, model):
    """Timers that followed the simulated clock would never fire here: no /clock is published."""
    given = ("rgb.transport:=compressed", "use_sim_time:=true", "diagnostics.period:=0.2")
    with running(tmp_path / "log", f"model:={model}", *given) as (process, robot):
        robot.cameras[0] = robot.camera("rgb", kind=CompressedImage)
        robot.connected()
        for index in range(3):
            stamp = 10**9 + index * STEP_NS
            rgb, thermal = scene(index)
            packed = CompressedImage(format="bgr8; png compressed bgr8")
            packed.header = raw_image(rgb, "rgb8", stamp).header
            packed.data = array.array("B", cv2.imencode(".png", rgb[..., ::-1])[1].tobytes())
            robot.show(stamp, packed, raw_image(thermal, "mono8", stamp))
            message = robot.result(stamp)
            if index == 0:
                assert robot.start(("a", "", BOX)).success
        assert [t.id for t in message.targets] == ["a"] and message.image_width == 160
        assert message.latency == pytest.approx(-stamp / 1e9)  # the clock stands at 0
        robot.diagnosed("1 targets")
