"""The baseline of the speed benchmarks is the published network, and what is compared with it gives its boxes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ckd_tracker_ros.engine import Engine, create, load
from ckd_tracker_ros.frame import Estimate, Image, RgbtFrame
from ckd_tracker_ros.network import checkpoint
from ckd_tracker_ros.network.config import BASE
from ckd_tracker_ros.network.export import export
from ckd_tracker_ros.network.student import Student
from ckd_tracker_ros.tracker import Tracker, TrackerSettings

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def student(golden, monkeypatch) -> Student:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    sys.path.insert(0, str(golden))
    from fill_weights import filled

    network = Student(BASE).eval()
    network.load_state_dict(filled(network.state_dict()))
    return network


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def run(golden: Path, engine: Engine) -> list[tuple[Estimate, NDArray, float]]:
    """Six steps through the golden frames: estimate, recorded (4,) xywh box and windowed peak."""
    tracker = Tracker(engine, TrackerSettings(min_box_size=10))
    frames, expected = np.load(golden / "track_frames.npz"), np.load(golden / "track_mce.npz")
    sequence = [RgbtFrame((Image(v), Image(i, "mono"))) for v, i in zip(frames["visible"], frames["infrared"])]
    state = tracker.start(sequence[0], expected["boxes_xywh"][0])
    found = []
    for frame, box, peak in list(zip(sequence[1:], expected["boxes_xywh"][1:], expected["score_peak"]))[:6]:
        state, estimate = tracker.step(state, frame)
        found.append((estimate, box, peak))
    return found


def exported(student: Student, folder: Path) -> Engine:
    """By ONNX Runtime, from a file without its float16."""
    for package in ("onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason=f"needs {package}: pip install ckd_tracker_ros[export]")
    checkpoint.save(folder / "base.safetensors", student, {}, torch.float32)
    return load(export(folder / "base.safetensors", folder / "base.onnx"), "cpu")


@pytest.mark.parametrize(
    "runner", ["published", "cpu float32", "onnxruntime", pytest.param("cuda float32", marks=needs_gpu)]
)
@torch.no_grad()
def test_golden_boxes(golden, student, runner, tmp_path) -> None:
    from published import PublishedEngine

    if runner == "published":
        engine = PublishedEngine(student)
    elif runner == "onnxruntime":
        engine = exported(student, tmp_path)
    else:
        engine = create(student, *runner.split())
    for estimate, box, peak in run(golden, engine):
        np.testing.assert_allclose(estimate.box, box, atol=0.05)
        assert estimate.windowed_peak == pytest.approx(peak, abs=1e-4)
