"""Each runner against the published way of running the same network: whole steps against its network alone.

NanoTrack-v2, what a user without a GPU would take for one camera, stands beside them where its files are (peers.py).
"""

from __future__ import annotations

import copy
import importlib.util
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from common import JsonOption
from peers import SHARED, NanoTrack, nanotrack_files
from published import PublishedEngine

from ckd_tracker_ros.cli import parse_counts
from ckd_tracker_ros.engine import DeviceError, Engine, find_device
from ckd_tracker_ros.evaluation import speed
from ckd_tracker_ros.evaluation.speed import Case, Steps, milliseconds
from ckd_tracker_ros.evaluation.timing import Report, noise_frame, ratios, timed
from ckd_tracker_ros.frame import RgbtFrame
from ckd_tracker_ros.network import checkpoint
from ckd_tracker_ros.network.export import export
from ckd_tracker_ros.network.student import Student

PUBLISHED, NANOTRACK = "published", "NanoTrack-v2, RGB alone"


class NanoCase:
    """NanoTrack on the RGB image, one target after the other. See `speed.Steps`."""

    def __init__(self, weights: Path, frame: RgbtFrame, targets: int) -> None:
        self._frame, self._trackers = frame, [NanoTrack(weights, "rgb") for _ in range(targets)]
        for tracker, box in zip(self._trackers, speed.boxes(frame, targets)):
            tracker.start(frame, np.array(box))
        self.seconds: list[float] = []

    def step(self) -> float:
        return timed(lambda: [tracker.step(self._frame) for tracker in self._trackers])

    def measure(self) -> None:
        self.seconds.append(self.step())


def engines(student: Student, device: str, threads: int) -> dict[str, Engine]:
    """The published way first, then what this machine has, then ONNX Runtime where it is installed."""
    kind = find_device(device).type
    found: dict[str, Engine] = {PUBLISHED: PublishedEngine(copy.deepcopy(student), kind)}
    found |= speed.find_engines(student, device, threads)
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnxscript"):
        from ckd_tracker_ros.engine.onnx_runtime import OnnxEngine

        with tempfile.TemporaryDirectory() as folder:
            weights = Path(folder) / "network.safetensors"
            checkpoint.save(weights, student, {})
            try:
                engine = OnnxEngine(export(weights, Path(folder) / "network.onnx"), kind, threads=threads)
                found[engine.description["runner"]] = engine
            except DeviceError:
                pass  # a GPU, and an ONNX Runtime without it
    return found


def compare(report: Report, name: str, found: dict[str, Engine], peer: Path | None, count: int, seconds: float) -> None:
    """A table of all runners for one number of targets."""
    frame = noise_frame(speed.SIZE)
    cases: dict[str, Steps] = {runner: Case(engine, frame, count) for runner, engine in found.items()}
    if peer is not None:
        cases[NANOTRACK] = NanoCase(peer, frame, count)
    speed.measure(list(cases.values()), seconds, report.console)
    base = cases[PUBLISHED].parts["network"]
    rows: list[dict[str, Any]] = [
        {
            "runner": runner,
            "step [ms]": milliseconds(case.seconds),
            "network [ms]": milliseconds(case.parts["network"]) if isinstance(case, Case) else "-",
            "steps/s": 1e3 / milliseconds(case.seconds).median,
            "times the published": ratios(base, case.seconds),
        }
        for runner, case in cases.items()
    ]
    targets = f"{count} target{'s' * (count > 1)}"
    report.add(f"{name}, {targets}, 640x480", "the published network alone, over the whole step of each runner", rows)


def main(
    networks: Annotated[str, typer.Option(help="weight files, shipped models, or base: random weights")] = (
        "ckd_tiny,base"
    ),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    threads: Annotated[int, typer.Option(help="on the CPU; 0: as it is")] = 0,
    targets: Annotated[str, typer.Option(help="numbers of targets")] = "1,8",
    seconds: Annotated[float, typer.Option(help="for each table")] = 30.0,
    peer_weights: Annotated[Path, typer.Option(help="folder of NanoTrack's ONNX files")] = SHARED / "weights",
    json_file: JsonOption = None,
) -> None:
    """Times and ratios of every runner that this machine has."""
    counts = parse_counts(targets)
    report = Report("runners", {"networks": networks})
    report.header()
    try:
        nanotrack_files(peer_weights)
    except FileNotFoundError:
        report.console.print(f"NanoTrack is left out: its files are not in {peer_weights}", soft_wrap=True)
        peer_weights = None
    for name in networks.split(","):
        try:
            student, weights = speed.find_student(name)
            found = engines(student, device, threads)
        except (checkpoint.CheckpointError, DeviceError) as error:
            raise typer.BadParameter(str(error)) from error
        for count in counts:
            compare(report, f"{name} ({weights} weights)", found, peer_weights, count, seconds)
    report.write(json_file)


if __name__ == "__main__":
    typer.run(main)
