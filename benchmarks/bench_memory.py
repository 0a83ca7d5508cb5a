"""Memory of a tracker that runs and runs: targets come and go, their number changes, the steps go on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from common import SMALL, JsonOption

from ckd_tracker_ros.engine import DeviceError, create
from ckd_tracker_ros.evaluation.speed import SIZE, boxes, find_student, random_student
from ckd_tracker_ros.evaluation.timing import Report, noise_frame
from ckd_tracker_ros.network.checkpoint import CheckpointError
from ckd_tracker_ros.tracker import Tracker

TARGETS = (1, 2, 3)
RESTART = 50
"""Steps after which the targets are started anew, one more or fewer of them."""
LOOKS = 20
SETTLED = 0.2
"""Share of the steps after which memory should be flat."""


def resident_mb() -> float:
    """Of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def main(
    network: Annotated[str, typer.Option(help=f"a model, base, or {SMALL.name}: random weights")] = SMALL.name,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    precision: Annotated[str, typer.Option(help="see the node's parameter")] = "auto",
    steps: Annotated[int, typer.Option(min=LOOKS, help="all together")] = 10_000,
    json_file: JsonOption = None,
) -> None:
    """Resident and GPU memory over many steps."""
    import torch

    try:
        student = random_student(SMALL) if network == SMALL.name else find_student(network)[0]
        tracker = Tracker(create(student, device, precision))
    except (CheckpointError, DeviceError) as error:
        raise typer.BadParameter(str(error)) from error
    gpu = torch.cuda.is_available() and tracker.description["device"] != "cpu"
    report = Report("memory", {**tracker.description, "steps": steps})
    report.header()
    frame = noise_frame(SIZE)
    places = boxes(frame, max(TARGETS))
    states, seen = [], []
    with report.console.status("stepping") as status:
        for number in range(steps + 1):
            if number % RESTART == 0:
                count = TARGETS[number // RESTART % len(TARGETS)]
                states = [tracker.start(frame, box) for box in places[:count]]
            if number % (steps // LOOKS) == 0:
                seen.append((number, resident_mb(), torch.cuda.memory_allocated() / 1e6 if gpu else 0.0))
                status.update(f"{number} of {steps} steps")
            states, _ = tracker.step_many(states, frame)
    numbers, resident, allocated = np.array(seen).T
    flat = numbers >= SETTLED * steps
    rows = [
        {
            "memory": name,
            "at the start [MB]": float(values[0]),
            "largest [MB]": float(values.max()),
            "at the end [MB]": float(values[-1]),
            "slope [kB per 1000 steps]": float(1e6 * np.polyfit(numbers[flat], values[flat], 1)[0]),
        }
        for name, values in (("resident", resident), *([("GPU", allocated)] if gpu else []))
    ]
    if gpu:
        reserved = torch.cuda.memory_reserved() / 1e6
        rows.append({"memory": "GPU, reserved at the end"} | dict.fromkeys(list(rows[0])[1:-1], reserved))
    note = f"The slope is that of a line through what was seen after {SETTLED:.0%} of the steps."
    report.add(f"Memory over {steps} steps, {min(TARGETS)} to {max(TARGETS)} targets", "its own start", rows, note)
    report.write(json_file)


if __name__ == "__main__":
    typer.run(main)
