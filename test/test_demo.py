"""The demo with its real processes, and the player's messages."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from recordings import write_recording
from typer.testing import CliRunner

pytest.importorskip("rclpy", reason="rclpy needs ROS 2: a distribution, or the wheels that `make setup` installs")
pytest.importorskip("ckd_tracker_msgs", reason="ckd_tracker_msgs is not built: `make setup`")
# Before DDS is loaded, and inherited by all processes: no other graph on this machine or network is seen.
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 101)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMessage

from ckd_tracker_ros import cli, images
from ckd_tracker_ros.frame import MODALITIES, Image
from ckd_tracker_ros.ros import demo, player
from ckd_tracker_ros.sequences import open_sequence
from ckd_tracker_ros.target import LostSettings, Target, follow

LIMIT_S = 120.0
FILES = {"overlay.mp4", "plot.png", "still.png", "results.csv", "node.log", "player.log"}


def start_demo(*options: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ckd_tracker_ros.cli", "demo", "--device", "cpu", *map(str, options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def run_demo(*options: object, **environment: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    process = start_demo(*options, **environment)
    try:
        out, err = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        process.terminate()
        raise AssertionError(f"the demo did not end; it says\n{process.communicate()}") from None
    return process.returncode, out, err


def processes_with(text: str) -> list[str]:
    """Command lines of running processes that contain a text."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended meanwhile
            continue
        if text in command:
            found.append(command)
    return found


def numbers(text: str, label: str) -> list[float]:
    """The numbers behind a label of the summary."""
    line = next(line for line in text.splitlines() if line.strip().startswith(label))
    return [float(number) for number in re.findall(r"\d+\.\d+|\d+", line.split(label)[1])]


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_generated_scene_end_to_end_at_30_hz(tiny_checkpoint, tmp_path):
    """640x480 at 30 Hz over the shipped profile: every pair arrives. Those that a slow machine skips are counted."""
    out = tmp_path / "out"
    code, said, errors = run_demo("--model", tiny_checkpoint, "--seconds", 2, "--out", out)
    assert code == 0, errors
    assert {path.name for path in out.iterdir()} == FILES
    sent, rate = numbers(said, "pairs sent")[:2]
    assert (sent, rate) == (60, 30)
    assert numbers(said, "pairs received by the node") == [60]
    assert numbers(said, "pairs lost on the way") == [0]
    rows = read_rows(out / "results.csv")
    assert len(rows) + numbers(said, "pairs skipped by the node")[0] == 60
    pairs = [-1] + [int(row["pair"]) for row in rows]
    assert np.diff(pairs).max() <= 1 + demo.Options(out).skip, "for a slow node it is played slower"
    ious = [float(row["iou"]) for row in rows if row["iou"]]
    assert numbers(said, "mean IoU")[0] == pytest.approx(np.mean(ious), abs=1e-3)
    assert any(row["latency"] for row in rows)
    video = cv2.VideoCapture(str(out / "overlay.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 60
    assert cv2.imread(str(out / "plot.png")).std() > 10
    assert cv2.imread(str(out / "still.png")).shape == (480, 1280, 3)
    assert not processes_with(str(tiny_checkpoint))


def test_node_and_offline_run_agree_to_the_last_bit(tiny_checkpoint, tiny_tracker, tmp_path):
    """A recording with 16-bit thermal images, its player waiting for each result."""
    frames = 12
    folder = write_recording(tmp_path / "0117", frames)
    out = tmp_path / "out"
    code, said, errors = run_demo("--data", folder, "--model", tiny_checkpoint, "--skip", 0, "--out", out)
    assert code == 0, errors
    assert numbers(said, "pairs skipped by the node") == [0]
    rows = read_rows(out / "results.csv")
    assert [int(row["pair"]) for row in rows] == list(range(frames))

    sequence = open_sequence(folder)
    # A message holds float32.
    start = np.float32(np.loadtxt(folder / "groundtruth.txt", delimiter=",")[0])
    targets = [Target.begin("target", "", tiny_tracker.start(sequence.frame(0), start))]
    names, tracked = ("x", "y", "width", "height"), 0
    for row in rows[1:]:
        targets = follow(tiny_tracker, targets, sequence.frame(int(row["pair"])), LostSettings())
        if row["state"]:  # the first ones were processed before the target was asked for, and replayed after
            tracked += 1
            assert [np.float32(row[name]) for name in names] == list(np.float32(targets[0].box))
            assert np.float32(row["confidence"]) == np.float32(targets[0].confidence)
    assert tracked > frames // 2


def test_a_model_that_is_not_there_ends_the_demo_with_the_reason(tmp_path):
    code, _, errors = run_demo("--model", "nonsense", "--out", tmp_path / "out", "--seconds", 1)
    assert code == 1
    assert errors.startswith("error: the tracker node reports: on_configure failed: no model 'nonsense'")
    assert "node.log ---" in errors and "Traceback" not in errors


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--seconds", "0"], "seconds 0"),
        (["--seconds", "nan"], "seconds nan"),
        (["--rate", "inf"], "rate inf"),
        (["--rate", "-1"], "rate -1"),
        (["--rate", "5000"], "fps is 5000"),
        (["--skip", "-2"], "skip -2"),
        (["--data", "nowhere/at/all"], "nowhere/at/all"),
    ],
)
def test_options_that_make_no_demo_are_refused(tmp_path, options, said):
    before = dict(os.environ)
    try:
        result = CliRunner().invoke(cli.app, ["demo", "--out", str(tmp_path / "out"), *options])
    finally:
        os.environ.clear()
        os.environ.update(before)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.output
    assert result.stderr.startswith("error: ") and said in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_recording_that_makes_no_demo_is_refused(tmp_path):
    bare = write_recording(tmp_path / "bare", 2)
    (bare / "groundtruth.txt").rename(bare / "kept.txt")
    test_options_that_make_no_demo_are_refused(tmp_path, ["--data", str(bare)], "no true boxes")
    (bare / "kept.txt").rename(bare / "groundtruth.txt")
    (bare / "infrared").rename(bare / "elsewhere")
    test_options_that_make_no_demo_are_refused(tmp_path, ["--data", str(bare)], "of one camera")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_processes(tiny_checkpoint, tmp_path, number):
    seed = 100 * os.getpid() + number  # known by the player's command line
    process = start_demo("--model", tiny_checkpoint, "--seconds", 20, "--seed", seed, "--out", tmp_path / "out")
    end = time.monotonic() + LIMIT_S
    while not processes_with(f"seed:={seed}"):
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.01)  # between two looks
    process.send_signal(number)
    _, errors = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, errors) == (130, "error: stopped\n")
    assert not processes_with(f"seed:={seed}") and not processes_with(f'model:="{tiny_checkpoint}')


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_waits_until_the_processes_are_known(number):
    """One that came between a process's start and its entry into the `with` block would leave it alone for ever."""
    reached = []
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), demo.Interrupts() as interrupts:
        with interrupts.held():
            signal.raise_signal(number)
            reached.append("the end of the block")
        reached.append("what follows it")
    assert reached == ["the end of the block"] and signal.getsignal(number) is before
    with pytest.raises(KeyboardInterrupt), demo.Interrupts():
        signal.raise_signal(number)
        reached.append("what follows the signal")
    assert len(reached) == 1


def test_the_users_own_settings_of_dds_are_kept(monkeypatch):
    for name in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE", *demo.USER_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setenv("ROS_DOMAIN_ID", "7")
    monkeypatch.setenv("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4")
    demo.set_environment()
    assert os.environ["ROS_DOMAIN_ID"] == "7"
    assert not any(name in os.environ for name in demo.PROFILE_VARIABLES)
    monkeypatch.delenv("FASTDDS_BUILTIN_TRANSPORTS")
    demo.set_environment()
    assert all(Path(os.environ[name]).name == "fastdds.xml" for name in demo.PROFILE_VARIABLES)
    assert os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"


@pytest.mark.parametrize(
    ("order", "dtype"),
    [(order, np.uint8) for order in ("rgb", "bgr", "rgba", "bgra", "mono")]
    + [("mono", "<u2"), ("mono", ">u2"), ("mono", "<f4"), ("mono", ">f4")],
)
def test_messages_decode_to_the_same_pixels(order, dtype):
    shape = (6, 7) if order == "mono" else (6, 7, len(order))
    pixels = np.random.default_rng(1).integers(0, 250, shape).astype(dtype)
    decoded = images.decode(player.image_message(Image(pixels, order)))
    assert decoded.order == order
    np.testing.assert_array_equal(decoded.pixels, pixels)


def test_compressed_messages_decode(tmp_path):
    thermal = np.random.default_rng(1).integers(0, 65535, (16, 16)).astype(np.uint16)
    decoded = images.decode(player.compressed_message(Image(thermal, "mono")))
    np.testing.assert_array_equal(decoded.pixels, thermal)
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 200
    decoded = images.decode(player.compressed_message(Image(red, "rgb")))
    assert decoded.pixels[8, 8][decoded.order.index("r")] == pytest.approx(200, abs=4)


def test_images_without_an_encoding_are_refused():
    with pytest.raises(player.PlayerError, match="rgb images of uint16"):
        player.image_message(Image(np.zeros((4, 4, 3), np.uint16), "rgb"))
    with pytest.raises(player.PlayerError, match="float32 cannot be compressed"):
        player.compressed_message(Image(np.zeros((4, 4), np.float32), "mono"))


@pytest.mark.parametrize(
    ("kind", "topic", "reliability"), [(ImageMessage, "", "reliable"), (CompressedImage, "/compressed", "best_effort")]
)
def test_the_player_begins_again_with_rising_stamps(tmp_path, kind, topic, reliability):
    folder, length, rate = write_recording(tmp_path / "walk", 3), 3, 50
    options = {"source": f'"{folder}"', "rate": f"{rate}.0", "loop": "true", "frames": 2 * length + 1}
    options |= {"compressed": str(bool(topic)).lower(), "reliability": reliability}
    words = [word for name, value in options.items() for word in ("-p", f"{name}:={value}")]
    received: dict[str, list] = {name: [] for name in MODALITIES}
    states: list[DiagnosticStatus] = []
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("watcher", context=context)
    quality = QoSProfile(depth=20, reliability=ReliabilityPolicy[reliability.upper()])
    for name, messages in received.items():
        node.create_subscription(kind, f"{name}/image_raw{topic}", messages.append, quality)
    node.create_subscription(DiagnosticStatus, "player/state", states.append, player.LATCHED)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    command = [sys.executable, "-m", "ckd_tracker_ros.ros.player", "--ros-args", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + LIMIT_S
        while not states or states[-1].message != "finished":
            executor.spin_once(timeout_sec=0.1)
            assert time.monotonic() < end
    finally:
        process.terminate()
        _, errors = process.communicate()
        executor.shutdown()
        node.destroy_node()
        context.try_shutdown()
    assert process.returncode == 0, errors
    facts = {pair.key: int(pair.value) for pair in states[-1].values}
    assert (facts["sent"], facts["period_ns"]) == (2 * length + 1, 10**9 // rate)
    sequence = open_sequence(folder)
    for name, messages in received.items():
        assert messages  # best effort may lose some
        for message in messages:
            offset_ns = Time.from_msg(message.header.stamp).nanoseconds - facts["first_stamp_ns"]
            number, rest = divmod(offset_ns, facts["period_ns"])
            assert rest == 0 and 0 <= number < facts["sent"]
            assert message.header.frame_id == f"{name}_camera"
            expected = sequence.frame(number % length).images[MODALITIES.index(name)]
            difference = np.abs(images.decode(message).pixels.astype(int) - expected.pixels)
            assert difference.mean() < (3 if topic else 1e-9)  # JPEG
    if reliability == "reliable":
        assert [len(messages) for messages in received.values()] == [facts["sent"]] * 2


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ("reliability:=maybe", "reliability is 'maybe'; allowed: reliable, best_effort"),
        ("rate:=fast", "parameter rate"),
        ("skip:=-2", "skip -2; allowed: 0 or more, or -1"),
    ],
)
def test_the_player_refuses_a_parameter(parameter, said):
    command = [sys.executable, "-m", "ckd_tracker_ros.ros.player", "--ros-args", "-p", parameter]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    assert done.returncode == 2
    assert said in done.stderr and "Traceback" not in done.stderr
