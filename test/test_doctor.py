"""The doctor at bags that were broken on purpose, and at a healthy one."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from bag_files import FIRST_NS, LATE_NS, PERIOD_NS, TOPICS, Sent, compressed, raw, write
from typer.testing import CliRunner, Result

from ckd_tracker_ros import cli
from ckd_tracker_ros.doctor.checks import lost
from ckd_tracker_ros.doctor.facts import period_of
from ckd_tracker_ros.doctor.machine import unused_gpu
from ckd_tracker_ros.doctor.offset import delay_between, motion_of
from ckd_tracker_ros.doctor.watch import look_at
from ckd_tracker_ros.frame import Image
from ckd_tracker_ros.sequences import SceneSequence
from ckd_tracker_ros.sequences.moving_view import MovingView, ViewConfig
from ckd_tracker_ros.synthetic import Scene, SceneConfig

RGB, THERMAL = TOPICS
Streams = tuple[list[Sent], list[Sent]]


@functools.cache
def filmed(frames: int, seed: int = 1) -> list[tuple[np.ndarray, np.ndarray]]:
    """BGR and 16-bit thermal images of a generated scene, by a camera that wanders and shakes."""
    config = SceneConfig(width=160, height=120, frames=frames, size=(20.0, 30.0), camera_motion=0.02)
    view = MovingView(SceneSequence(Scene(config, seed)), ViewConfig(frames=frames), seed)
    pairs = (view.frame(index).images for index in range(frames))
    return [(rgb.pixels[..., ::-1].copy(), 7000 + 8 * thermal.pixels.astype(np.uint16)) for rgb, thermal in pairs]


def streams(frames: int = 60, images: Callable = lambda rgb, thermal: (rgb, thermal)) -> Streams:
    """Messages of both cameras in step, each image passed through `images`."""
    sent: Streams = ([], [])
    for index, pair in enumerate(filmed(frames)):
        for camera, pixels in enumerate(images(*pair)):
            stamp_ns = FIRST_NS + index * PERIOD_NS
            sent[camera].append(Sent(TOPICS[camera], stamp_ns + LATE_NS, raw(pixels, stamp_ns, f"camera{camera}")))
    return sent


def later(sent: list[Sent], seconds: float | np.ndarray, arrives: bool = True) -> list[Sent]:
    """Moves the stamps, and the times of recording where the stamps tell when images are sent."""
    for each, shift in zip(sent, np.broadcast_to(np.round(np.asarray(seconds) * 1e9), len(sent)), strict=True):
        stamp = each.message.header.stamp
        total = stamp.sec * 10**9 + stamp.nanosec + int(shift)
        stamp.sec, stamp.nanosec = divmod(total, 10**9)
        each.received_ns += int(shift) * arrives
    return sent


def restamped(sent: list[Sent], stamp_ns: int) -> list[Sent]:
    for each in sent:
        each.message.header.stamp.sec, each.message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
    return sent


def nothing(rgb: list[Sent], thermal: list[Sent]) -> list[Sent]:
    return rgb


def only_compressed(rgb: list[Sent], thermal: list[Sent]) -> list[Sent]:
    for each, (_, pixels) in zip(thermal, filmed(60), strict=True):
        each.message, each.topic = compressed(pixels, FIRST_NS, "t"), f"{THERMAL}/compressed"
    return rgb + thermal


def nine_hertz(rgb: list[Sent], thermal: list[Sent]) -> list[Sent]:
    return rgb + later(thermal[::3], np.arange(20) * (1 / 9 - 1 / 10))[:18]


def looped(rgb: list[Sent], thermal: list[Sent]) -> list[Sent]:
    again = streams()[0]
    for each in again:
        each.received_ns += 60 * PERIOD_NS
    return rgb + again + thermal


def lossy(rgb: list[Sent], thermal: list[Sent]) -> list[Sent]:
    return [each for index, each in enumerate(rgb) if index % 7 not in (2, 5)] + thermal


def jittery(rgb: list[Sent], thermal: list[Sent]) -> list[Sent]:
    return rgb + later(thermal, np.where(np.arange(60) % 3, 0.0, 0.026))


def unreadable(rgb: list[Sent], thermal: list[Sent]) -> list[Sent]:
    for each in thermal:
        each.message.encoding = "14UC1"
    return rgb + thermal


def frozen(rgb: np.ndarray, thermal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    still = filmed(60)[0][1].copy()
    still[0, :8] = thermal[0, :8]  # a camera's own line of numbers goes on counting
    return rgb, still


def with_palette(rgb: np.ndarray, thermal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return rgb, cv2.applyColorMap(((thermal - 7000) // 8).astype(np.uint8), cv2.COLORMAP_INFERNO)


BROKEN = {
    "no_publisher": (streams, nothing, "/thermal/image_raw: is the camera running"),
    "transport": (streams, only_compressed, "set thermal.transport to compressed"),
    "stamps_unset": (streams, lambda rgb, thermal: rgb + restamped(thermal, 0), f"the stamps on {THERMAL} are not set"),
    "stamps_back": (streams, looped, f"stamps on {RGB} go back 1 times, by up to 1.967 s"),
    "clocks_differ": (streams, lambda rgb, thermal: rgb + later(thermal, 3600, False), "+3600.0000 s from RGB stamps"),
    "clock_off": (streams, lambda *both: later(sum(both, []), -9e6, False), "set use_sim_time to true"),
    "rates": (streams, nine_hertz, "set sync.reuse to true and sync.slop to 0.1"),
    "few_pairs": (streams, jittery, "set sync.slop to 0.03"),
    "losses": (streams, lossy, f"images on {RGB} are lost"),
    "undecodable": (streams, unreadable, "'14UC1' is not supported"),
    "aspect": (
        functools.partial(streams, images=lambda rgb, thermal: (rgb, np.ascontiguousarray(thermal[:100]))),
        lambda rgb, thermal: rgb + thermal,
        "ckd-tracker calibrate",
    ),
    "empty_images": (
        functools.partial(streams, images=lambda rgb, thermal: (rgb // 40, thermal)),
        lambda rgb, thermal: rgb + thermal,
        f"rgb images on {RGB} are black",
    ),
    "frozen": (
        functools.partial(streams, images=frozen),
        lambda *both: sum(both, []),
        f"images on {THERMAL} are frozen",
    ),
    "palette": (functools.partial(streams, images=with_palette), lambda *both: sum(both, []), "white hot"),
}


def run(path: Path, *arguments: str, model: str = "") -> Result:
    given = ["doctor", path, "--rgb", RGB, "--thermal", THERMAL, "--model", model, *arguments]
    return CliRunner().invoke(cli.app, list(map(str, given)))


def wrong(result: Result) -> list[dict[str, str]]:
    """The findings of --json that are no remarks."""
    return [found for found in json.loads(result.stdout)["findings"] if found["level"] != "remark"]


@pytest.fixture(scope="module")
def healthy(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("bags") / "healthy", sum(streams(), []), "mcap")


def test_the_healthy_one_has_nothing(healthy, tiny_checkpoint):
    result = run(healthy, "--device", "cpu", model=str(tiny_checkpoint))
    assert (result.exit_code, result.stdout) == (0, "nothing wrong\n")
    for shown in ("160x120", "mono16", "30.0", "random"):
        assert shown in result.stderr


@pytest.mark.parametrize("cause", BROKEN)
def test_what_was_broken_is_named_and_nothing_else(cause, tmp_path):
    make, breaking, said = BROKEN[cause]
    path = write(tmp_path / "bag", breaking(*make()))
    result = run(path, "--json")
    assert result.exit_code == 1, result.output
    (found,) = wrong(result)
    assert found["cause"] == cause
    assert said in f"{found['what']}: {found['do']}"


def test_another_type_on_the_topic(tmp_path):
    path = write(tmp_path / "bag", streams()[0], others=(THERMAL,))
    (found,) = wrong(run(path, "--json"))
    assert found["cause"] == "wrong_type" and "carries std_msgs/msg/Header" in found["what"]


def test_stamps_that_never_meet(tmp_path):
    rgb, thermal = streams()
    (found,) = wrong(run(write(tmp_path / "bag", rgb + later(thermal, 0.012)), "--json", "--slop", "0.005"))
    assert found["cause"] == "no_pairs" and "+0.0120 s" in found["what"] and "raise sync.slop" in found["do"]


@pytest.mark.parametrize(
    ("given", "cause", "said"),
    [
        ({"model": "no_such_model"}, "model", "no model 'no_such_model'; looked for"),
        ({"device": "cuda:17"}, "device", "device 'cuda:17' is not available"),
        ({"precision": "float8"}, "device", "precision 'float8' on cpu"),
    ],
)
def test_a_machine_that_cannot_run_the_network(healthy, tiny_checkpoint, given, cause, said):
    given = {"model": str(tiny_checkpoint), "device": "cpu", **given}
    result = run(healthy, "--json", "--device", given["device"], *_precision(given), model=given["model"])
    assert result.exit_code == 1
    (found,) = wrong(result)
    assert (found["cause"], found["level"]) == (cause, "blocks") and said in found["what"]


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((1, 1), np.uint8),
        np.zeros((3, 8000, 3), np.uint8),
        np.zeros((8000, 2), np.uint16),
        np.full((40, 60), np.nan, np.float32),
        np.zeros((600, 800), ">u2"),
    ],
    ids=lambda pixels: f"{pixels.shape}-{pixels.dtype}",
)
def test_odd_images_are_looked_at(pixels):
    look = look_at(Image(pixels, "mono" if pixels.ndim == 2 else "bgr"))
    assert look.thumbnail.size <= 160 * 640 and not look.colourful
    assert not motion_of([0, 1], [look.thumbnail] * 2).path.any()


def test_a_gpu_that_is_not_used_is_remarked(tmp_path):
    assert unused_gpu(tmp_path) is None
    (tmp_path / "nvidia0").touch()
    assert unused_gpu(tmp_path).level == "remark" and str(tmp_path / "nvidia0") in unused_gpu(tmp_path).what


def _precision(given: dict[str, str]) -> list[str]:
    return ["--precision", given["precision"]] if "precision" in given else []


def test_what_blocks_comes_first_and_remarks_do_not_count(tmp_path):
    grey = functools.partial(streams, images=lambda rgb, thermal: (rgb // 40, (thermal // 8 - 870).astype(np.uint8)))
    rgb, thermal = grey()
    lines = run(write(tmp_path / "two", rgb + restamped(thermal, 0))).stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["blocks", "wrong", "remark"]
    result = run(write(tmp_path / "remark", streams()[0] + grey()[1]))
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "nothing wrong" and "have 8 bits" in result.stdout.splitlines()[1]


@pytest.mark.parametrize(("delay", "every"), [(0.08, 1), (-0.05, 1), (0.08, 2)])
def test_a_constant_delay_is_found_by_the_motion(delay, every, tmp_path):
    rgb, thermal = streams(150)
    path = write(tmp_path / "bag", rgb + later(thermal, delay)[::every])
    arguments = ("--slop", "0.11", "--reuse") if every > 1 else ("--slop", "0.02")
    (found,) = (each for each in wrong(run(path, "--json", *arguments)) if each["cause"] == "thermal_delay")
    assert float(found["do"].removeprefix("set sync.thermal_delay to ")) == pytest.approx(delay, abs=0.01)
    assert not wrong(run(path, "--json", *arguments, "--thermal-delay", str(delay)))


def test_no_delay_is_claimed_of_cameras_that_stand_still(tmp_path):
    still = [look_at(Image(filmed(150)[0][0], "bgr")).thumbnail] * 150
    times = np.arange(150) / 30
    found = delay_between(motion_of(times, still), motion_of(times + 0.08, still))
    assert found is None or not found.sure
    assert delay_between(motion_of(times[:40], still[:40]), motion_of(times[:40], still[:40])) is None


@pytest.mark.parametrize(("keep", "missing"), [(range(90), 0), ([i for i in range(90) if i % 3], 29)])
def test_losses_are_counted_in_periods_of_the_camera(keep, missing):
    times = np.array(keep) / 30 + np.random.default_rng(0).normal(0, 0.001, len(keep))
    assert period_of(times) == pytest.approx(1 / 30, rel=0.05)
    assert lost(times, 1 / 30)[0] == missing


def test_a_shutter_is_a_pause_not_a_loss():
    times = np.concatenate([np.arange(60), np.arange(90, 150)]) / 30
    missing, pauses = lost(times, period_of(times))
    assert missing == 0 and pauses == pytest.approx([31 / 30])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--reliability", "maybe"], "qos.reliability is 'maybe'; it has to be one of auto, reliable, best_effort"),
        (["--slop", "-1"], "slop is -1"),
        (["--thermal-to-rgb", "1,2"], "nine numbers"),
    ],
)
def test_wrong_options_are_refused(healthy, arguments, said):
    result = run(healthy, *arguments)
    assert result.exit_code == 2 and said in result.stderr and "Traceback" not in result.output


def test_a_bag_that_is_not_there_is_refused(tmp_path):
    result = run(tmp_path / "nowhere")
    assert result.exit_code == 2 and "does not exist" in result.stderr
