"""The command line on real files with a real network, and what it says when something is wrong."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from recordings import write_recording
from typer.testing import CliRunner, Result

from ckd_tracker_ros import boxes, cli, overlay
from ckd_tracker_ros.evaluation.run import COLUMNS
from ckd_tracker_ros.frame import Image, RgbtFrame
from ckd_tracker_ros.network.checkpoint import read_metadata
from ckd_tracker_ros.network.config import TINY
from ckd_tracker_ros.network.student import Student
from ckd_tracker_ros.sequences import open_sequence
from ckd_tracker_ros.target import LostSettings, Target, follow

FRAMES = 6


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    return write_recording(tmp_path_factory.mktemp("data") / "walk", FRAMES)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def refused(*arguments: object) -> str:
    """The one line that a wrong call ends with."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    lines = result.stderr.strip().splitlines()
    assert lines[-1].lower().startswith("error: "), result.stderr
    return result.stderr


def read_boxes(path: Path) -> np.ndarray:
    return np.loadtxt(path, delimiter=",", ndmin=2)


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_help_needs_neither_torch_nor_ros():
    code = (
        "import sys\n"
        "from ckd_tracker_ros import cli\n"
        "try:\n    cli.app(['--help'])\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'torch', 'rclpy', 'cv2', 'timm', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(command in done.stdout for command in ("track", "convert", "demo"))


def test_a_homography_moves_the_thermal_crops(recording, tiny_checkpoint, tmp_path):
    known = ("track", recording, "--model", tiny_checkpoint, "--device", "cpu", "--video", "--out")
    for name, options in (("as they are", ()), ("moved", ("--thermal-to-rgb", "1,0,25,0,1,-10,0,0,1"))):
        assert run(*known, tmp_path / name, *options).exit_code == 0
    as_they_are, moved = ((tmp_path / name / "results.csv").read_text() for name in ("as they are", "moved"))
    assert as_they_are != moved
    assert "expected nine numbers, row major" in refused(*known, tmp_path / "x", "--thermal-to-rgb", "1,0")


def test_track_writes_what_the_tracker_says(recording, tiny_checkpoint, tiny_tracker, tmp_path):
    result = run("track", recording, "--model", tiny_checkpoint, "--device", "cpu", "--out", tmp_path)
    assert result.exit_code == 0, result.output

    sequence = open_sequence(recording)
    truth = read_boxes(recording / "groundtruth.txt")
    targets, expected = [Target.begin("walk", "", tiny_tracker.start(sequence.frame(0), truth[0]))], [truth[0]]
    for index in range(1, FRAMES):
        targets = follow(tiny_tracker, targets, sequence.frame(index), LostSettings())
        expected.append(targets[0].box)
    np.testing.assert_allclose(read_boxes(tmp_path / "walk.txt"), expected, atol=1e-4)

    rows = read_table(tmp_path / "results.csv")
    assert tuple(rows[0]) == COLUMNS
    assert [int(row["frame"]) for row in rows] == list(range(FRAMES))
    ious = boxes.iou(expected, truth)
    np.testing.assert_allclose([float(row["iou"]) for row in rows], ious, atol=1e-3)
    assert f"{ious[1:].mean():.3f} ({FRAMES - 1} frames)" in result.output
    assert not (tmp_path / "overlay.mp4").exists()


def test_track_several_boxes_from_a_later_frame_with_video(recording, tiny_checkpoint, tmp_path):
    given = ["20,30,25,40", "80,40,30,30"]
    options = [word for text in given for word in ("--box", text)]
    result = run("track", recording, *options, "--start", 2, "--model", tiny_checkpoint, "--out", tmp_path, "--video")
    assert result.exit_code == 0, result.output
    for number, text in enumerate(given, 1):
        found = read_boxes(tmp_path / f"target_{number}.txt")
        assert found.shape == (FRAMES - 2, 4)
        np.testing.assert_allclose(found[0], [float(value) for value in text.split(",")])
    rows = read_table(tmp_path / "results.csv")
    assert [row["target"] for row in rows] == ["target_1", "target_2"] * (FRAMES - 2)
    assert {row["iou"] for row in rows} == {""}
    assert result.output.count("no truth") == 2
    video = cv2.VideoCapture(str(tmp_path / "overlay.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == FRAMES - 2
    picture = video.read()[1]
    frame = open_sequence(recording).frame(2)
    assert picture.shape == (frame.size[1], 2 * frame.size[0], 3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--box", "1,2,3"], "'1,2,3'; expected four numbers"),
        (["--box", "a,b,c,d"], "'a,b,c,d'; expected four numbers"),
        (["--box", "500,10,20,20"], "centre outside the image of 160x120"),
        (["--box", "nan,10,20,20"], "not finite"),
        (["--box", "10,10,20,1"], "smaller than the smallest box"),
        (["--start", "99"], "start frame 99; walk has frames 0 to 5"),
        (["--device", "tpu"], "'tpu' is not available"),
        (["--precision", "int3"], "'int3' on cpu; allowed"),
        (["--model", "nonsense"], "no model 'nonsense'; looked for"),
        (["--threads", "-1"], "--threads"),
        (["--speed", "3"], "--speed"),
    ],
)
def test_track_refuses(recording, tiny_checkpoint, tmp_path, options, said):
    out = tmp_path / "out"
    assert said in refused("track", recording, "--model", tiny_checkpoint, "--device", "cpu", "--out", out, *options)
    assert not out.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_track_names_a_gpu_that_is_not_there(recording, tiny_checkpoint):
    said = refused("track", recording, "--model", tiny_checkpoint, "--device", "cuda")
    assert "torch sees no CUDA GPU" in said and "available: auto, cpu" in said


def test_track_names_a_source_that_is_not_there(tmp_path, tiny_checkpoint):
    assert "nowhere" in refused("track", tmp_path / "nowhere", "--model", tiny_checkpoint)


def test_track_names_a_damaged_model(recording, tmp_path):
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"no tensors in here")
    assert "damaged.safetensors is not a readable" in refused("track", recording, "--model", damaged)


def test_track_asks_for_a_box_where_there_is_no_truth(tmp_path, tiny_checkpoint):
    bare = write_recording(tmp_path / "bare", 2)
    (bare / "groundtruth.txt").unlink()
    assert "--box x,y,w,h" in refused("track", bare, "--model", tiny_checkpoint)


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """A checkpoint under the published names, two tensors of it unexpected."""
    torch.manual_seed(0)
    tensors = {name.replace("shared_branch.", "rgb_branch."): t for name, t in Student(TINY).state_dict().items()}
    path = tmp_path_factory.mktemp("published") / "CKD.pth.tar"
    torch.save({"net": {**tensors, "surprise.weight": torch.zeros(2)}}, path)
    return path


def test_convert_reports_and_writes_a_model(published, tmp_path):
    destination = tmp_path / "model.safetensors"
    assert "surprise.weight; --allow-unused" in refused("convert", published, destination, "--network", "ckd_tiny")
    assert not destination.exists()
    result = run("convert", published, destination, "--network", "ckd_tiny", "--allow-unused")
    assert result.exit_code == 0, result.output
    assert re.search(r"ckd_tiny from a ckd file, \d+\.\d MB", result.output)
    assert "initial values kept: 0" in result.output
    assert "left out: 1\n  surprise.weight" in result.output
    config, provenance = read_metadata(destination)
    assert config == TINY and provenance["converted_from"] == published.name


def test_convert_refuses(published, tmp_path):
    destination = tmp_path / "model.safetensors"
    assert "'huge'; allowed: base, ckd_tiny" in refused("convert", published, destination, "--network", "huge")
    assert "missing.pth" in refused("convert", tmp_path / "missing.pth", destination)
    other = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(3)}, other)
    assert "not a CKD, OSTrack" in refused("convert", other, destination)


def test_overlay_shows_an_absent_camera_and_keeps_boxes_in_sight():
    thermal = np.full((60, 80), 7000, np.uint16)
    thermal[20:40, 30:50] = 8000
    frame = RgbtFrame((None, Image(thermal, "mono")))
    marks = [overlay.Mark((30, 20, 20, 20), "x"), overlay.Mark((np.nan,) * 4), overlay.Mark((-1e9, 0, 2e9, 10))]
    picture = overlay.side_by_side(frame, ((), marks))
    assert picture.shape == (60, 160, 3)
    left_side = picture[25:38, 80 + 30].astype(int)
    assert (left_side[:, 1] > left_side[:, 0] + 50).all()  # green
    assert picture[30, 80 + 40].min() > 200 > picture[55, 80 + 5].max()  # warm and cold


def test_a_video_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(overlay.VideoError, match="absent"), overlay.Video(tmp_path / "absent" / "v.mp4", 30) as video:
        video.add(np.zeros((16, 16, 3), np.uint8))
