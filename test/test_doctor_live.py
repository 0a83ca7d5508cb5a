"""The doctor at a live graph: real publishers over DDS, broken on purpose, and healthy ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy needs ROS 2: a distribution, or the wheels that `make setup` installs")
pytest.importorskip("ckd_tracker_msgs", reason="ckd_tracker_msgs is not built: `make setup`")

from rclpy.qos import QoSProfile
from ros_helpers import STEP_NS, Robot, raw_image, scene, until
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from ckd_tracker_ros.causes import Finding
from ckd_tracker_ros.doctor import Settings, SetUp, examine
from ckd_tracker_ros.ros import observe

RGB, THERMAL = "/rgb/image_raw", "/thermal/image_raw"
SECONDS = 1.0
LARGE = (480, 1280)
PROFILE = Path(__file__).parents[1] / "config" / "fastdds.xml"


def pictures(index: int) -> tuple[np.ndarray, np.ndarray]:
    """RGB and 16-bit thermal image of the moving block."""
    rgb, thermal = scene(index)
    return rgb, 7000 + 8 * thermal.astype(np.uint16)


@pytest.fixture(scope="module")
def robot() -> Iterator[Robot]:
    """A participant without cameras."""
    around = Robot()
    for camera in around.cameras:
        around.node.destroy_publisher(camera)
    yield around
    around.close()


@contextmanager
def playing(robot: Robot, reliability: str = "reliable", show: Callable = pictures) -> Iterator[None]:
    """Both cameras at 30 Hz, stamped evenly from now on; `show` makes the pictures, None sends nothing."""
    cameras = [robot.camera(name, reliability) for name in ("rgb", "thermal")]
    first_ns, done = time.time_ns(), threading.Event()

    def play() -> None:
        index = 0
        while not done.wait(max(0.0, (first_ns + index * STEP_NS - time.time_ns()) / 1e9)):
            for camera, pixels, encoding in zip(cameras, show(index), ("rgb8", "mono16"), strict=True):
                if pixels is not None:
                    camera.publish(raw_image(pixels, encoding, first_ns + index * STEP_NS))
            index += 1

    thread = threading.Thread(target=play)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        for camera in cameras:
            robot.node.destroy_publisher(camera)


def look(
    settings: Settings | None = None, seconds: float = SECONDS, rgb: str = RGB.lstrip("/")
) -> tuple[SetUp, dict[str, Finding]]:
    """What the doctor finds by cause, without remarks."""
    setup = observe.look((rgb, THERMAL), seconds, settings)
    return setup, {found.cause: found for found in examine(setup) if found.level != "remark"}


def command(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """`ckd-tracker doctor` as a process of its own."""
    words = [sys.executable, "-m", "ckd_tracker_ros.cli", "doctor", "--seconds", "2", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, env={**os.environ, **environment}, timeout=300)


def test_the_healthy_one_has_nothing(robot, tiny_checkpoint):
    with playing(robot):
        result = command("--model", tiny_checkpoint)
    assert (result.returncode, result.stdout) == (0, "nothing wrong\n"), result.stdout + result.stderr
    assert RGB in result.stderr and "mono16" in result.stderr


def test_large_images_through_the_default_transport(robot):
    """Whether some are lost, and how many, is up to the machine; what would help is the same."""
    noise = np.random.default_rng(0).integers(0, 255, (2, *LARGE, 3), np.uint8)
    with playing(robot, "best_effort", lambda index: (noise[index % 2], pictures(index)[1])):
        found = {each["cause"]: each for each in json.loads(command("--model", "", "--json").stdout)["findings"]}
        profile = {name: str(PROFILE) for name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")}
        told = command("--model", "", "--json", **profile).stdout
    assert found.keys() & {"losses", "dds_profile"} and "idle_publisher" not in found
    assert all("config/fastdds.xml" in found[cause]["do"] for cause in found.keys() & {"losses", "dds_profile"})
    assert "no Fast DDS profile" not in told and "set FASTDDS" not in told


def test_a_name_that_no_topic_can_have_is_refused():
    with pytest.raises(ValueError, match="--rgb 'bad name' is no topic"):
        observe.look(("bad name", THERMAL))


def test_no_publisher_and_a_subscription_that_cannot_match(robot):
    camera = robot.camera("thermal", "best_effort")
    listener = robot.node.create_subscription(Image, THERMAL, print, QoSProfile(depth=1))
    until(lambda: robot.node.count_publishers(THERMAL), "the publisher")
    try:
        setup, found = look(Settings(reliability="reliable"))
    finally:
        robot.node.destroy_publisher(camera)
        robot.node.destroy_subscription(listener)
    assert f"no publisher on {RGB}" in found["no_publisher"].what
    assert f"image topics here: {THERMAL}" in found["no_publisher"].do
    assert setup.cameras[1].deaf == ("/robot",)
    told = [str(each) for each in examine(setup) if each.cause == "qos"]
    assert any(f"QoS on {THERMAL} cannot match" in each for each in told)
    assert any("/robot asks for reliable" in each for each in told)


def test_an_empty_graph_asks_for_the_domain(robot):
    _, found = look()
    assert f"ROS_DOMAIN_ID is {os.environ['ROS_DOMAIN_ID']}" in found["no_publisher"].do


def test_another_type_and_compressed_images_only(robot):
    others = robot.node.create_publisher(String, "/words", 1), robot.camera("thermal", kind=CompressedImage)
    try:
        _, found = look(rgb="/words")
    finally:
        for each in others:
            robot.node.destroy_publisher(each)
    assert set(found) == {"wrong_type", "transport"}
    assert "/words carries std_msgs/msg/String" in found["wrong_type"].what
    assert found["transport"].do == "set thermal.transport to compressed"


def test_best_effort_cameras_of_which_one_is_doubled_and_one_idle(robot):
    doubled = robot.camera("rgb", "best_effort")
    try:
        with playing(robot, "best_effort", lambda index: (pictures(index)[0], None)):
            setup, found = look()
    finally:
        robot.node.destroy_publisher(doubled)
    assert set(found) == {"publishers", "idle_publisher"}
    assert found["publishers"].what == f"2 publishers on {RGB}: /robot, /robot"
    assert setup.cameras[0].stream.reliability == "best_effort" and len(setup.cameras[0].seen) > 10


def test_a_frozen_and_a_black_camera(robot):
    with playing(robot, show=lambda index: (pictures(index)[0] // 60, pictures(0)[1])):
        _, found = look()
    assert set(found) == {"frozen", "empty_images"}
    assert found["frozen"].what.startswith(f"thermal images on {THERMAL} are frozen")


def test_stamps_of_another_clock_with_and_without_simulated_time(robot):
    cameras = [robot.camera(name) for name in ("rgb", "thermal")]
    clock = robot.node.create_publisher(Clock, "/clock", 1)
    simulated, ticks = threading.Event(), iter(range(10**6))

    def tick() -> None:
        index = next(ticks)
        for camera, pixels, encoding in zip(cameras, pictures(index), ("rgb8", "mono16"), strict=True):
            camera.publish(raw_image(pixels, encoding, 10**9 + index * STEP_NS))
        if simulated.is_set():
            now = raw_image(pictures(0)[0], "rgb8", 10**9 + index * STEP_NS).header.stamp
            clock.publish(Clock(clock=now))

    timer = robot.node.create_timer(STEP_NS / 1e9, tick)
    try:
        _, without = look()
        simulated.set()
        _, found = look()
    finally:
        robot.node.destroy_timer(timer)
        for each in (*cameras, clock):
            robot.node.destroy_publisher(each)
    assert set(without) == set(found) == {"clock_off"}
    assert "synchronise the" in without["clock_off"].do
    assert found["clock_off"].do == "set use_sim_time to true: /clock is there and agrees with the stamps"


def test_a_camera_whose_images_are_lost_on_the_way(robot):
    """Every image is stamped, but of some only the stamp's step is seen, as when DDS loses them."""
    with playing(robot, show=lambda index: (pictures(index)[0] if index % 3 else None, pictures(index)[1])):
        _, found = look(seconds=2.0)
    assert "losses" in found and f"images on {RGB} are lost" in found["losses"].what
