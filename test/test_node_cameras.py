"""The real node and troubled cameras: unlike rates with jitter and losses, one that stops, freezes or goes black."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy needs ROS 2: a distribution, or the wheels that `make setup` installs")
pytest.importorskip("ckd_tracker_msgs", reason="ckd_tracker_msgs is not built: `make setup`")

import ros_helpers
from ros_helpers import STEP_NS, Robot, raw_image, running, scene, to_ns, until

from ckd_tracker_msgs.msg import TrackedTarget, TrackedTargetArray
from ckd_tracker_ros import boxes
from ckd_tracker_ros.synthetic import Scene, SceneConfig

BOX = (34, 42, 20, 24)
RGB, THERMAL = range(2)
RGB_BIT, THERMAL_BIT, BOTH = 1, 2, 3


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return ros_helpers.tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny.safetensors")


def test_nine_hertz_beside_thirty_with_jitter_and_losses(tmp_path):
    """In the order of the schedule, each result waited for: every RGB image within reach is tracked, or was replaced by
    a newer one that left at the same moment, and is counted then."""
    seconds, slop_ns = 3, 60_000_000
    film = Scene(SceneConfig(width=320, height=240, frames=30 * seconds, size=(40.0, 60.0), distractors=0), seed=4)
    rng, begin, events = np.random.default_rng(1), time.time_ns(), []
    for camera, rate in ((RGB, 30), (THERMAL, 9)):
        moments = np.arange(seconds * rate) / rate
        stamps = begin + (1e9 * (moments + rng.uniform(-0.015, 0.015, len(moments)))).astype(np.int64)
        kept = rng.random(len(moments)) >= 0.1
        kept[0] = True
        events += zip(moments[kept], itertools.repeat(camera), stamps[kept].tolist())
    events.sort()
    thermal = np.array([stamp for _, camera, stamp in events if camera == THERMAL])
    rgb = {stamp: round(30 * moment) for moment, camera, stamp in events if camera == RGB}  # frame of the scene
    within_reach = [stamp for stamp in rgb if np.abs(thermal - stamp).min() <= slop_ns]
    assert 0.7 * len(rgb) < len(within_reach) < len(rgb)

    given = (f"sync.slop:={slop_ns / 1e9}", "sync.reuse:=true", "sync.max_age:=60.0", "modality.timeout:=20.0")
    with running(tmp_path / "log", *given) as (_, robot):
        robot.connected()
        warm = itertools.count(begin - 10**10, STEP_NS)
        until(lambda: robot.play(0, next(warm), (320, 240)) or robot.targets, "a first message")
        started, waiting, sent = 0, [], []
        for moment, camera, stamp in events:
            image = film.frame(round(30 * moment)).images[camera]
            robot.cameras[camera].publish(raw_image(image.pixels, ("rgb8", "mono8")[camera], stamp))
            waiting += [stamp] if camera == RGB else []
            sent += [stamp] if camera == THERMAL else []
            leaving = [one for one in waiting if any(abs(one - other) <= slop_ns for other in sent)]
            waiting = [one for one in waiting if one not in leaving]
            if leaving:  # of several that leave at once an earlier one may be replaced by the last
                robot.result(leaving[-1])
            if leaving and not started:
                assert robot.start(("a", "", film.boxes(rgb[leaving[-1]])[0]), stamp_ns=leaving[-1]).success
                started = leaving[-1]
        messages = [message for message in robot.targets if to_ns(message.header.stamp) > begin - 10**9]
    places = [within_reach.index(to_ns(message.header.stamp)) for message in messages]
    assert places[-1] == len(within_reach) - 1
    assert [after - before - 1 for before, after in zip(places, places[1:])] == [m.skipped_pairs for m in messages[1:]]
    assert len(messages) > 0.7 * len(within_reach)
    assert all(abs(message.sync_offset) <= slop_ns / 1e9 + 1e-6 for message in messages)
    assert {message.modalities for message in messages} == {BOTH}
    tracked = [message for message in messages if to_ns(message.header.stamp) > started]
    assert all(message.targets[0].state != TrackedTarget.LOST for message in tracked)
    ious = [boxes.iou(xywh(message), film.boxes(rgb[to_ns(message.header.stamp)])[0]) for message in tracked]
    assert np.mean(ious) > 0.6


def xywh(message: TrackedTargetArray) -> np.ndarray:
    box = message.targets[0].box
    return np.array([box.x, box.y, box.width, box.height])


class Player:
    """A pair of the moving scene at a time, with something wrong with it."""

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        self._numbers = itertools.count()
        self._begin = time.time_ns()

    def show(self, spoil: Callable[[list], list] = list) -> int:
        """Sends a pair of images as `spoil` makes them, None for no image; its stamp."""
        number = next(self._numbers)
        stamp = self._begin + number * STEP_NS
        pixels = spoil(list(scene(number)))
        self.robot.show(
            stamp,
            *(
                None if image is None else raw_image(image, encoding, stamp)
                for image, encoding in zip(pixels, ("rgb8", "mono8"))
            ),
        )
        return stamp

    def until_used(self, modalities: int, spoil: Callable[[list], list] = list) -> TrackedTargetArray:
        """Plays until a message says that these cameras were used."""

        def find() -> TrackedTargetArray | None:
            stamp = self.show(spoil)
            end = time.monotonic() + STEP_NS / 1e9
            while time.monotonic() < end and not any(to_ns(m.header.stamp) == stamp for m in self.robot.targets):
                time.sleep(0.001)
            return next((m for m in self.robot.targets[-1:] if m.modalities == modalities), None)

        return until(find, f"a message with modalities {modalities}")


def silent(camera: int) -> Callable[[list], list]:
    return lambda pixels: [None if place == camera else image for place, image in enumerate(pixels)]


def frozen(camera: int) -> Callable[[list], list]:
    return lambda pixels: [scene(0)[place] if place == camera else image for place, image in enumerate(pixels)]


def black(camera: int) -> Callable[[list], list]:
    return lambda pixels: [image * (place != camera) for place, image in enumerate(pixels)]


FAULTS = [
    (silent(RGB), "rgb images are missing", THERMAL_BIT),
    (silent(THERMAL), "thermal images are missing", RGB_BIT),
    (frozen(THERMAL), "thermal images are frozen", RGB_BIT),
    (frozen(RGB), "rgb images are frozen", THERMAL_BIT),
    (black(RGB), "rgb images are black", THERMAL_BIT),
    (black(THERMAL), "thermal images are black", RGB_BIT),
]


def test_the_node_goes_on_with_one_camera_and_both_come_back(tmp_path, model):
    given = (f"model:={model}", "modality.timeout:=0.2", "sync.max_age:=60.0", "diagnostics.period:=0.1")
    with running(tmp_path / "log", *given) as (process, robot):
        robot.connected()
        player = Player(robot)
        player.until_used(BOTH)
        assert robot.start(("a", "", BOX)).success
        for spoil, said, used in FAULTS:
            player.until_used(used, spoil)
            cut = [player.show(spoil) for _ in range(5)]
            message = robot.result(cut[-1])
            assert message.modalities == used and [target.id for target in message.targets] == ["a"]
            assert np.isnan(message.sync_offset) or spoil not in (FAULTS[0][0], FAULTS[1][0])
            robot.diagnosed(said)
            process.says(said)
            player.until_used(BOTH)
            robot.diagnostics.clear()
            robot.diagnosed("1 targets")
        assert process.output.count("images are back") == len(FAULTS)


def test_wait_tracks_only_what_both_cameras_saw(tmp_path, model):
    given = (f"model:={model}", "modality.on_missing:=wait", "modality.timeout:=0.1", "diagnostics.period:=0.1")
    with running(tmp_path / "log", *given, "sync.max_age:=60.0") as (_, robot):
        robot.connected()
        player = Player(robot)
        player.until_used(BOTH)
        assert robot.start(("a", "", BOX)).success
        robot.result(player.show())
        bad = []
        for number in range(1, 4):  # found out at the first image
            bad.append(player.show(black(RGB)))
            robot.diagnosed(f"pairs dropped, waiting for both cameras: {number}")
        robot.diagnosed("rgb images are black")
        refused = robot.start(("b", "", BOX))
        assert not refused.success and refused.message == "rgb images are black, and modality.on_missing is wait"
        back = robot.result(player.show())
        assert (back.modalities, back.skipped_pairs) == (BOTH, 3)
        end = time.monotonic() + 0.3
        until(lambda: bad.append(player.show(silent(THERMAL))) or time.monotonic() > end, "longer than the timeout")
        assert [target.id for target in robot.result(player.show()).targets] == ["a"]
        assert not {to_ns(message.header.stamp) for message in robot.targets} & set(bad)


@pytest.mark.parametrize(
    ("dead", "used", "said"),
    [(RGB, THERMAL_BIT, "boxes are taken to be in pixels of the thermal image, 160x120"),
     (THERMAL, RGB_BIT, "thermal images are missing")],
)  # fmt: skip
def test_a_camera_that_is_dead_from_the_start(tmp_path, model, dead, used, said):
    given = (f"model:={model}", "modality.timeout:=0.2", "sync.max_age:=60.0", "diagnostics.period:=0.1")
    with running(tmp_path / "log", *given) as (process, robot):
        robot.connected()
        player = Player(robot)
        player.until_used(used, silent(dead))
        robot.diagnosed(f"{('rgb', 'thermal')[dead]} images are missing")
        assert robot.start(("a", "", BOX)).success
        message = robot.result(player.show(silent(dead)))
        assert [target.id for target in message.targets] == ["a"] and message.image_width == 160
        process.says(said)
        assert [target.id for target in player.until_used(BOTH).targets] == ["a"]
