"""`ckd-tracker evaluate` on generated recordings with a real network, and what it says when something is wrong."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from recordings import write_recording
from rich.console import Console
from test_cli import read_boxes, refused, run

from ckd_tracker_ros.evaluation import batch, provenance
from ckd_tracker_ros.frame import RgbtFrame
from ckd_tracker_ros.network import checkpoint
from ckd_tracker_ros.network.student import Student
from ckd_tracker_ros.sequences import LazySequence, open_data_set

FRAMES = 5
NAMES = ("dusk", "night", "noon")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name in NAMES:
        write_recording(folder / name, FRAMES)
    return folder


@pytest.fixture
def evaluate(tiny_checkpoint, tmp_path):
    """Runs the command with the tiny network on the CPU into tmp_path/out."""
    torch.set_num_threads(1)

    def call(data: Path, *more: object):
        return run("evaluate", data, "--model", tiny_checkpoint, "--device", "cpu", "--out", tmp_path / "out", *more)

    return call


def tracked(tracker, sequence, keep=(True, True)) -> list[np.ndarray]:
    """Boxes as the tracker's three calls give them, of the cameras that are kept."""

    def seen(i: int) -> RgbtFrame:
        images = sequence.frame(i).images
        return RgbtFrame(tuple(image if kept else None for image, kept in zip(images, keep)))

    state = tracker.start(seen(0), sequence.boxes[0])
    found = [sequence.boxes[0]]
    for i in range(1, len(sequence)):
        state, estimate = tracker.step(state, seen(i))
        found.append(estimate.box)
    return found


def test_every_sequence_becomes_files_of_what_the_tracker_says(data, evaluate, tiny_tracker, tiny_checkpoint, tmp_path):
    result = evaluate(data)
    assert result.exit_code == 0, result.output
    for sequence in open_data_set(data):
        boxes, confidences, times = (
            np.loadtxt(f, delimiter=",") for f in provenance.result_files(tmp_path / "out", sequence.name)
        )
        assert boxes == pytest.approx(np.array(tracked(tiny_tracker, sequence)), abs=1e-4)
        assert confidences[0] == 1 and len(confidences) == FRAMES and ((confidences >= 0) & (confidences <= 1)).all()
        assert len(times) == FRAMES and (times > 0).all()
    what = json.loads((tmp_path / "out" / "run.json").read_text())
    assert what["model"] == tiny_checkpoint.stem and what["network"] == "random" and len(what["model_sha256"]) == 64
    precision = tiny_tracker.description["precision"]
    assert (what["device"], what["precision"], what["modality"]) == ("cpu", precision, "both")
    assert what["data"] == data.name and "20" in what["date"]


def test_a_restart_does_what_is_not_done_and_only_that(data, evaluate, tmp_path):
    out = tmp_path / "out"
    assert evaluate(data, "--names", "dusk,noon").exit_code == 0
    (out / "noon.txt").rename(out / "noon.txt.part")  # as a process leaves it that dies while it writes
    (out / "dusk.txt").write_text("as it was\n")
    result = evaluate(data)
    assert result.exit_code == 0 and "3 sequences, 1 done before" in result.output
    assert (out / "dusk.txt").read_text() == "as it was\n"
    assert all(len(read_boxes(out / f"{name}.txt")) == FRAMES for name in ("night", "noon"))
    assert not list(out.glob("*.part"))
    assert "3 done before" in evaluate(data).output


def test_a_bad_sequence_costs_itself_alone(tmp_path, evaluate):
    for name in NAMES:
        write_recording(tmp_path / "data" / name, FRAMES)
    (tmp_path / "data" / "night" / "visible" / "000002.png").write_bytes(b"cut")
    result = evaluate(tmp_path / "data")
    assert result.exit_code == 1
    assert "error: 1 of 3 sequences failed: night" in result.stderr
    assert "failed: night: SequenceError" in result.output and "000002.png" in result.output
    assert {file.stem for file in (tmp_path / "out").glob("*_time.txt")} == {"dusk_time", "noon_time"}
    assert not (tmp_path / "out" / "night.txt").exists()
    assert "Traceback" in (tmp_path / "out" / batch.ERRORS).read_text()


class Deadly(LazySequence):
    """Kills the process that reads it, as a fault in a driver or the want of memory does."""

    def __reduce__(self):
        return Deadly, (self.path, self.kind, self.name, self.track)

    def frame(self, i: int) -> RgbtFrame:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def test_processes_share_the_work_and_one_that_dies_costs_one_sequence(data, tiny_checkpoint, tiny_tracker, tmp_path):
    job = batch.Job(str(tiny_checkpoint), "cpu", "auto", 1, batch.BOTH, tmp_path)
    sequences = open_data_set(data, names=["dusk", "noon"])
    sequences.insert(1, Deadly(data / "night", "folder", "night"))
    outcomes = batch.evaluate(job, sequences, 2, job.tracker(), Console(quiet=True))
    told = {outcome.name: outcome.error for outcome in outcomes}
    assert told == {"dusk": "", "noon": "", "night": f"its process ended with exit code {-signal.SIGKILL}"}
    for sequence in sequences[::2]:
        found = read_boxes(tmp_path / f"{sequence.name}.txt")
        assert found == pytest.approx(np.array(tracked(tiny_tracker, sequence)), abs=1e-4)


@pytest.mark.parametrize(("modality", "keep"), [("rgb", (True, False)), ("thermal", (False, True))])
def test_one_camera_alone(data, evaluate, tiny_tracker, tmp_path, modality, keep):
    assert evaluate(data, "--modality", modality, "--names", "noon").exit_code == 0
    (sequence,) = open_data_set(data, names=["noon"])
    found = read_boxes(tmp_path / "out" / "noon.txt")
    assert found == pytest.approx(np.array(tracked(tiny_tracker, sequence, keep)), abs=1e-4)
    assert found[1:] != pytest.approx(np.array(tracked(tiny_tracker, sequence))[1:], abs=1e-4)


def test_a_camera_that_is_not_there_fails_the_sequence(tmp_path, evaluate):
    images = write_recording(tmp_path / "whole", FRAMES)
    (tmp_path / "data").mkdir()
    (images / "infrared").rename(tmp_path / "lost")
    images.rename(tmp_path / "data" / "day")
    result = evaluate(tmp_path / "data", "--modality", "thermal")
    assert result.exit_code == 1 and "day has no thermal image" in result.output


@pytest.fixture
def other_checkpoint(tiny_student, tmp_path) -> Path:
    torch.manual_seed(1)
    path = tmp_path / "other.safetensors"
    checkpoint.save(path, Student(replace(tiny_student.config, name="other")).eval(), {"source": "random numbers"})
    return path


def test_results_of_two_models_do_not_mix(data, evaluate, other_checkpoint, tmp_path):
    assert evaluate(data, "--names", "dusk,noon").exit_code == 0
    before = (tmp_path / "out" / "noon.txt").read_text()
    others = "--model", other_checkpoint, "--names", "noon"

    refusal = evaluate(data, *others)
    assert refusal.exit_code == 2
    assert "holds results of model random" in refusal.stderr and "this run has model other" in refusal.stderr
    assert (tmp_path / "out" / "noon.txt").read_text() == before

    refusal = evaluate(data, "--modality", "rgb")
    assert "modality both; this run has modality rgb" in refusal.stderr

    assert evaluate(data, *others, "--overwrite").exit_code == 0
    assert (tmp_path / "out" / "noon.txt").read_text() != before
    assert not (tmp_path / "out" / "dusk.txt").exists()
    assert json.loads((tmp_path / "out" / "run.json").read_text())["model"] == "other"


def test_files_of_unknown_origin_are_left_alone(data, evaluate, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "noon.txt").write_text("1,2,3,4\n")
    result = evaluate(data, "--overwrite")
    assert result.exit_code == 2 and "no run.json that says what they are" in result.stderr
    assert (tmp_path / "out" / "noon.txt").read_text() == "1,2,3,4\n"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--modality", "radar"], "--modality 'radar'; allowed: rgb, thermal, both"),
        (["--kind", "vot"], "--kind 'vot'; allowed: gtot"),
        (["--names", "dusk,dawn"], "no sequence 'dawn'; it has: dusk, night, noon"),
        (["--device", "cuda:99"], "device 'cuda:99' is not available"),
        (["--model", "nobody"], "no model 'nobody'"),
    ],
)
def test_bad_requests_are_refused(data, tmp_path, tiny_checkpoint, more, message):
    told = refused("evaluate", data, "--out", tmp_path / "out", "--model", tiny_checkpoint, *more)
    assert message in told
    assert not (tmp_path / "out").exists()


def test_a_damaged_run_file_is_told(data, evaluate, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text("{")
    result = evaluate(data)
    assert result.exit_code == 2 and "run.json is damaged" in result.stderr


def test_threads_are_shared_out():
    assert batch.threads_for(1, 0) == 0
    assert batch.threads_for(4, 3) == 3
    assert batch.threads_for(2 * os.cpu_count(), 0) == 1
