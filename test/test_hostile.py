"""Hostile input: whatever arrives, files and messages alike, ends in a result or in the one error that says why."""

from __future__ import annotations

import math
import resource
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recordings import write_recording
from typer.testing import CliRunner

from ckd_tracker_ros import cli, crop, images
from ckd_tracker_ros.frame import Image, RgbtFrame
from ckd_tracker_ros.network import checkpoint
from ckd_tracker_ros.network.checkpoint import CheckpointError
from ckd_tracker_ros.network.config import NetworkConfig
from ckd_tracker_ros.pairing import PairingSettings
from ckd_tracker_ros.tracker import BoxError

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import hostile  # noqa: E402 - what fuzz.py sends lies beside it

FEW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
DAMAGE = st.tuples(st.sampled_from(["cut", "flip", "head"]), st.integers(0, 2**30), st.integers(1, 20))


def damaged(data: bytes, damage: tuple[str, int, int], head: int = 2000) -> bytes:
    """Bytes cut off, or with flipped bits anywhere or near their beginning."""
    kind, seed, bits = damage
    if kind == "cut":
        return data[: seed % len(data)]
    return hostile.flipped(data, seed, bits, 0, min(len(data), head) if kind == "head" else None)


@FEW
@given(DAMAGE)
def test_a_damaged_weight_file_is_a_checkpoint_error(tiny_checkpoint, tmp_path_factory, damage):
    file = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    data = tiny_checkpoint.read_bytes()
    file.write_bytes(damaged(data, damage, head=int.from_bytes(data[:8], "little")))
    try:
        student = checkpoint.load(file)
    except CheckpointError as error:
        assert file.name in str(error)
    else:  # a weight that is another number now
        assert all(tensor.isfinite().all() for tensor in student.state_dict().values())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"heads": 0}, "heads is 0; allowed: 1 to 256"),
        ({"patch": 0}, "patch is 0; allowed"),
        ({"depth": 10**9}, "depth is 1000000000; allowed: 1 to 256"),
        ({"depth": "5"}, "depth is '5'; it has to be like 12"),
        ({"shared": 1}, "shared is 1; it has to be like False"),
        ({"mean": [0.5] * 4}, "three numbers each"),
        ({"std": [0.0, 1.0, 1.0]}, r"std is \(0.0, 1.0, 1.0\); allowed"),
        ({"search_factor": math.nan}, "search_factor is nan"),
        ({"width": 2**14, "heads": 1}, "tensors do not fit its configuration"),
    ],
)
def test_a_configuration_is_refused_before_anything_is_built_of_it(
    tiny_checkpoint, tmp_path, change, text, monkeypatch
):
    config, _ = checkpoint.read_metadata(tiny_checkpoint)
    file = tmp_path / "changed.safetensors"
    wrong = SimpleNamespace(to_dict=lambda: {**config.to_dict(), **change})
    checkpoint.rewrite(tiny_checkpoint, file, wrong, {})
    with pytest.raises(CheckpointError, match=text):
        checkpoint.load(file)


def test_every_configuration_here_goes_through_json():
    for config in (NetworkConfig(), NetworkConfig(calibration=(1, 2.0, 3), size_rate=1)):
        assert NetworkConfig.from_dict(config.to_dict()) == config


@pytest.fixture(scope="module", params=[("sqlite3", ""), ("mcap", "storage")], ids=lambda each: each[0])
def walk(request, tmp_path_factory) -> Path:
    bag_files = pytest.importorskip("bag_files", reason="bags are read with rosbags: pip install rosbags")
    folder = tmp_path_factory.mktemp("bags") / "walk"
    return bag_files.write(folder, bag_files.recording(2), *request.param)


@settings(FEW, max_examples=25)
@given(DAMAGE, st.integers(0, 1))
def test_a_damaged_bag_is_a_bag_error(walk, tmp_path_factory, damage, which):
    from ckd_tracker_ros.sequences.bags import Bag, BagError, pairs

    copy = tmp_path_factory.getbasetemp() / "damaged bag"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(walk, copy)
    file = sorted(copy.iterdir())[which]
    file.write_bytes(damaged(file.read_bytes(), damage))
    try:
        with Bag(copy) as opened:
            for pair in pairs(opened, opened.cameras(), PairingSettings().start()):
                images.decode_pair(pair)
    except (BagError, images.ImageError) as error:
        assert str(error)


@settings(FEW, max_examples=100)
@given(hostile.MESSAGES)
def test_any_message_decodes_or_says_why_in_a_few_words(fields):
    try:
        image = images.decode(fields)
    except images.ImageError as error:
        assert len(str(error)) < 600
    else:
        assert max(image.width, image.height) <= images.MOST_SIDE
        assert image.pixels.dtype.newbyteorder("=") in (np.uint8, np.uint16, np.float32)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (hostile.BOMBS[0], "is 12000x6000 pixels large; allowed: 1 to 64,000,000 pixels"),
        (hostile.BOMBS[1], "is 65500x65500 pixels large"),
        (hostile.BOMBS[2], "is 0x9 pixels large"),
        (hostile.BOMBS[3], "is 4294967295x4294967295 pixels large"),
        (hostile.lying_tiff(8, 8)[:40], "it does not say its size"),
        (hostile.FILES[-2], "does not decode; jpeg, png and tiff are supported"),
        (hostile.FILES[-1], "does not decode; jpeg, png and tiff are supported"),
    ],
    ids=["png", "jpeg", "nothing", "tiff", "cut", "bmp", "hdr"],
)
def test_bombs_and_strangers_are_refused_before_they_are_decoded(data, text, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it went to the decoder"))
    with pytest.raises(images.ImageError, match=text):
        images.decode(SimpleNamespace(format="png", data=data))


def test_tiff_of_floats_and_what_opencv_has_no_place_for():
    celsius = np.random.default_rng(0).normal(20, 5, (6, 8))
    for pixels in (celsius.astype(np.float32), celsius, celsius.astype(np.int16)):
        data = cv2.imencode(".tiff", pixels)[1].tobytes()
        image = images.decode(SimpleNamespace(format="32FC1; tiff compressed ", data=data))
        assert (image.order, image.pixels.dtype) == ("mono", np.float32)
        np.testing.assert_allclose(image.pixels, pixels, rtol=1e-6)
    data = cv2.imencode(".tiff", np.dstack([celsius] * 3).astype(np.float32))[1].tobytes()
    with pytest.raises(images.ImageError, match="3 channels of float32; colours are of 8 or 16 bits"):
        images.decode(SimpleNamespace(format="tiff", data=data))


def test_every_stamp_comes_back_as_a_stamp():
    for sec, nanosec in ((2**31 - 1, 2**32 - 1), (-(2**31), 0), (-1, 999_999_999), (5, 10**9)):
        seconds, nanoseconds = divmod(images.to_ns(SimpleNamespace(sec=sec, nanosec=nanosec)), 10**9)
        assert (seconds, nanoseconds) == (sec, min(nanosec, 999_999_999))


def pair(width: int, height: int) -> RgbtFrame:
    rng = np.random.default_rng(0)
    tile = rng.integers(0, 255, (min(height, 97), min(width, 97), 3), np.uint8)
    rgb = np.tile(tile, (math.ceil(height / 97), math.ceil(width / 97), 1))[:height, :width]
    return RgbtFrame((Image(rgb), Image(rgb[..., 0] * np.uint16(100), "mono")))


def test_images_of_1x1_and_of_8000x6000(tiny_tracker):
    with pytest.raises(BoxError, match="more than twice as large as the image of 1x1"):
        tiny_tracker.start(pair(1, 1), (-2, -2, 4, 4))
    state = tiny_tracker.start(pair(160, 120), (50, 40, 30, 30))
    for size in ((1, 1), (8000, 6000), (160, 120)):  # a camera that loses its mind, and finds it again
        state, estimate = tiny_tracker.step(state, pair(*size))
        assert np.isfinite(estimate.box).all()


def test_a_target_that_fills_a_huge_image_takes_no_gigabytes(tiny_tracker, monkeypatch):
    frame = pair(8000, 6000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    state = tiny_tracker.start(frame, (-1000, -1000, 10_000, 8000))
    _, estimate = tiny_tracker.step(state, frame)
    assert np.isfinite(estimate.box).all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # kB; padded it would be 2 GB
    small, square = frame.images[0].pixels[:600, :800], crop.square_around((100, 100, 500, 400), 4.0, 128)
    padded = crop.cut(Image(small), square, 128, np.eye(3), None)
    monkeypatch.setattr(crop, "_LARGEST_COPY", 0)
    sampled = crop.cut(Image(small), square, 128, np.eye(3), None)
    # the same but for rounding and the last row and column, which only the first leaves out
    assert np.percentile(np.abs(padded.astype(int) - sampled), 95) <= 2


def run(*arguments: object):
    return CliRunner().invoke(cli.app, [*map(str, arguments)])


def test_paths_with_spaces_and_other_scripts(tmp_path, tiny_checkpoint):
    folder = tmp_path / "mein Ordner 目标 (1)"
    model, source, out = folder / "mödel 1.safetensors", folder / "восток", folder / "out put ü"
    folder.mkdir()
    shutil.copy(tiny_checkpoint, model)
    write_recording(source, 3)
    done = run("track", source, "--box", "50,40,30,30", "--model", model, "--device", "cpu", "--out", out, "--video")
    assert done.exit_code == 0, done.output
    assert (out / "results.csv").read_text().count("\n") == 4 and (out / "overlay.mp4").stat().st_size
    bag_files = pytest.importorskip("bag_files", reason="bags are read with rosbags: pip install rosbags")
    recorded = bag_files.write(folder / "бэг 1", bag_files.recording(3))
    wanted = ("--box", "ein Ziel=50,40,30,30", "--model", model, "--device", "cpu", "--out", folder / "бэг 2")
    done = run("bag", recorded, *wanted)
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("command", ["track", "bag"])
def test_an_out_folder_that_cannot_be_made_is_one_line(tmp_path, tiny_checkpoint, command):
    if command == "track":
        source = tmp_path / "recording"
        write_recording(source, 3)
    else:
        bag_files = pytest.importorskip("bag_files", reason="bags are read with rosbags: pip install rosbags")
        source = bag_files.write(tmp_path / "bag", bag_files.recording(3))
    # no folder can be made in there, whoever asks: root is refused nothing on a disk that is only marked read-only
    for out in (Path("/proc/out"), tiny_checkpoint / "out"):
        options = ("--box", "50,40,30,30", "--model", tiny_checkpoint, "--device", "cpu", "--out", out)
        done = run(command, source, *options)
        assert done.exit_code == cli.USAGE_ERROR and done.exception.__class__ is SystemExit, done.output
        assert str(out) in done.output.replace("\n", "") and "Traceback" not in done.output


def test_a_full_disk_is_one_line(tmp_path, tiny_checkpoint):
    """A limit on the size of files stands for it: writing fails behind so many bytes."""
    source = write_recording(tmp_path / "recording", 3)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        options = ("--box", "50,40,30,30", "--model", tiny_checkpoint, "--device", "cpu", "--out", tmp_path / "out")
        done = run("track", source, *options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert done.exit_code == cli.USAGE_ERROR and "File too large" in done.output, done.output
    assert "Traceback" not in done.output
