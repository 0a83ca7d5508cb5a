"""What number formats cost: boxes of every precision of this machine beside those of float32, on recordings.

`same state`: both take the step from where float32 stood, so that only this step's rounding shows. `own way`: each
goes on from its own boxes, as on a robot; where a target can be confused with another, a rounding may decide. What any
rounding at all does own way is told by the plain float32 runner, whose sums only have another order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from common import JsonOption
from numpy.typing import NDArray
from peers import PAIRED, SHARED, SINGLE, paired_recordings, single_recordings
from rich.console import Console
from rich.progress import track

from ckd_tracker_ros import boxes
from ckd_tracker_ros.engine import DeviceError, find_device, supported
from ckd_tracker_ros.engine.eager import EagerEngine
from ckd_tracker_ros.evaluation.speed import PLAIN
from ckd_tracker_ros.evaluation.timing import Report, Spread
from ckd_tracker_ros.network import checkpoint
from ckd_tracker_ros.sequences import Sequence, SequenceError, true_box
from ckd_tracker_ros.tracker import Tracker

EXACT = "float32"


@dataclass
class Comparison:
    """Of one precision on one sequence, a value for each frame.

    Attributes:
        ious: with the truth, own way.
        gains: IoU from the same state less that of float32.
        same_state, own_way: how far the box's edges are from those of float32, RGB pixels: the mean of the four.
    """

    ious: list[float] = field(default_factory=list)
    gains: list[float] = field(default_factory=list)
    same_state: list[float] = field(default_factory=list)
    own_way: list[float] = field(default_factory=list)


def edges_apart(box: NDArray, other: NDArray) -> float:
    """Mean distance of left, top, right and bottom edge of two (4,) xywh boxes."""
    return float(np.abs(boxes.xywh_to_xyxy(box) - boxes.xywh_to_xyxy(other)).mean())


def compare(sequence: Sequence, trackers: dict[str, Tracker], console: Console) -> dict[str, Comparison]:
    """All precisions, float32 first, through one sequence."""
    start = sequence.first_frame
    first = sequence.frame(start)
    states = {name: tracker.start(first, true_box(sequence, start)) for name, tracker in trackers.items()}
    found: dict[str, Comparison] = defaultdict(Comparison)
    numbers = range(start + 1, start + len(sequence.boxes))
    for number in track(numbers, sequence.name, console=console, transient=True, disable=not console.is_terminal):
        frame, truth, before = sequence.frame(number), true_box(sequence, number), states[EXACT]
        exact = None
        for name, tracker in trackers.items():
            states[name], estimate = tracker.step(states[name], frame)
            exact = estimate.box if exact is None else exact
            found[name].ious.append(float(boxes.iou(estimate.box, truth)))
            found[name].own_way.append(edges_apart(estimate.box, exact))
            if name != EXACT:
                beside = tracker.step(replace(before, templates=states[name].templates), frame)[1]
                found[name].same_state.append(edges_apart(beside.box, exact))
                found[name].gains.append(float(boxes.iou(beside.box, truth) - boxes.iou(exact, truth)))
    return found


def recordings(data: Path) -> Iterator[Sequence]:
    """All that there are truths for, of both cameras and of one."""
    if (data / PAIRED).is_dir():
        yield from paired_recordings(data / PAIRED)
    if (data / SINGLE).is_dir():
        yield from (sequence for sequence, _ in single_recordings(data / SINGLE))


def row(sequence: str, name: str, found: Comparison, exact: Comparison) -> dict[str, Any]:
    """One line of the table."""
    iou = float(np.mean(found.ious))
    return {
        "sequence": sequence,
        "precision": name,
        "IoU": iou,
        "less float32": iou - float(np.mean(exact.ious)),
        "same state, less float32": float(np.mean(found.gains or [0.0])),
        "same state [px]": float(np.mean(found.same_state or [0.0])),
        "its 95 % [px]": Spread.percentile(found.same_state or [0.0], 95),
        "own way [px]": float(np.mean(found.own_way)),
    }


def main(
    data: Annotated[Path, typer.Option(help=f"folder with {PAIRED}/, {SINGLE}/ or both")] = SHARED / "data",
    model: Annotated[str, typer.Option(help="model file, or the name of an installed one")] = "ckd_tiny",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    json_file: JsonOption = None,
) -> None:
    """Boxes and mean IoU of every precision against float32."""
    try:
        chosen = find_device(device)
        lower = [precision for precision in supported(chosen.type) if precision != EXACT]
        trackers = {name: Tracker.from_checkpoint(model, device, name) for name in (EXACT, *lower)}
        network = checkpoint.load(checkpoint.find_model(model))
        trackers[PLAIN] = Tracker(EagerEngine(network, chosen, torch.float32))
    except (checkpoint.CheckpointError, DeviceError) as error:
        raise typer.BadParameter(str(error)) from error
    report = Report("precision", trackers[EXACT].description | {"precision": ", ".join(trackers)})
    report.header()
    try:
        found = {sequence.name: compare(sequence, trackers, report.console) for sequence in recordings(data)}
    except SequenceError as error:
        raise typer.BadParameter(str(error)) from error
    if not found:
        raise typer.BadParameter(f"no recordings: neither {PAIRED} nor {SINGLE} in {data}; name their folder: --data")
    rows = [row(s, name, each[name], each[EXACT]) for s, each in found.items() for name in trackers]
    for name in trackers:
        of = [line for line in rows if line["precision"] == name]
        means = {key: float(np.mean([line[key] for line in of])) for key in of[0] if isinstance(of[0][key], float)}
        rows.append({"sequence": "mean", "precision": name, **means})
    note = "Pixels: mean distance of the four edges."
    report.add("Low precision", "float32; frames behind the start", rows, note)
    report.write(json_file)


if __name__ == "__main__":
    typer.run(main)
