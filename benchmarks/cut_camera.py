"""One camera cut for three seconds at several moments: how much of the IoU with both cameras is left.

The images go the way they go in the node: `modality.check`, then `target.follow`. `absent`: nothing is sent; `black`
and `frozen` have to be found out first.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from common import JsonOption
from numpy.typing import NDArray
from rich.progress import track

from ckd_tracker_ros import boxes
from ckd_tracker_ros.engine import DeviceError
from ckd_tracker_ros.evaluation.run import proceed
from ckd_tracker_ros.evaluation.timing import Report
from ckd_tracker_ros.frame import MODALITIES, RgbtFrame
from ckd_tracker_ros.modality import ModalitySettings, Watch, check
from ckd_tracker_ros.network.checkpoint import CheckpointError
from ckd_tracker_ros.sequences import Sequence, SequenceError, open_sequence, true_box
from ckd_tracker_ros.target import Target
from ckd_tracker_ros.tracker import Tracker

SHARED = Path(__file__).resolve().parents[2] / "shared"
TRACKS = "smoke_away,smoke_puffer,stairs_man,banner_walker"
SEEN_BY_RGB = ("stairs_man", "banner_walker")
"""Tracks whose target the RGB camera alone can follow: the others walk through smoke."""
CUT_S = 3.0
FIRST = 10
"""Frames behind the start before which nothing is cut."""
HOWS = ("absent", "black", "frozen")


def spoiled(frame: RgbtFrame, before: RgbtFrame, place: int, how: str) -> RgbtFrame:
    """A frame whose camera number `place` gives nothing, black, or what it gave `before`."""
    images = list(frame.images)
    black = replace(images[place], pixels=np.zeros_like(images[place].pixels))
    images[place] = {"absent": None, "black": black, "frozen": before.images[place]}[how]
    return replace(frame, images=tuple(images))


def play(tracker: Tracker, sequence: Sequence, place: int, cut: range, how: str) -> NDArray[np.float64]:
    """(N,) IoU of every frame behind the start, NaN where there is no true box."""
    start, ious, watch, before = sequence.first_frame, [], Watch(), None
    targets: list[Target] = []
    for number in range(start, start + len(sequence.boxes)):
        frame, truth = sequence.frame(number), true_box(sequence, number)
        if number - start in cut:
            frame = spoiled(frame, before, place, how)
        else:
            before = frame
        watch, frame, _ = check(watch, frame, ModalitySettings())
        if not targets:
            targets = [Target.begin(sequence.name, "", tracker.start(frame, truth))]
            continue
        targets = proceed(tracker, frame, targets)
        ious.append(float(boxes.iou(targets[0].box, truth)) if np.isfinite(truth).all() else np.nan)
    return np.array(ious)


def main(
    data: Annotated[Path, typer.Option(help="recording of both cameras with these tracks")] = SHARED / "data" / "m3svd",
    tracks: Annotated[str, typer.Option(help="names, with commas between; empty: the only one")] = TRACKS,
    model: Annotated[str, typer.Option(help="model file, or the name of an installed one")] = "ckd_tiny",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    moments: Annotated[int, typer.Option(min=1, help="at which each camera is cut")] = 2,
    json_file: JsonOption = None,
) -> None:
    """Cuts RGB from every track, thermal from those that RGB alone can follow."""
    try:
        tracker = Tracker.from_checkpoint(model, device)
        sequences = [open_sequence(data, name or None) for name in tracks.split(",")]
    except (CheckpointError, DeviceError, SequenceError) as error:
        raise typer.BadParameter(str(error)) from error
    report = Report("cut_camera", {**tracker.description, "cut [s]": CUT_S})
    report.header()
    rows = []
    for sequence in track(sequences, "tracks", console=report.console, transient=True):
        both = play(tracker, sequence, 0, range(0), "absent")
        known, last = np.isfinite(both), max(3, len(both) // 10)
        length = round(CUT_S * sequence.rate)
        begins = np.unique(np.linspace(FIRST, max(len(both) - length - last, FIRST), moments, dtype=int))
        for place, gone in enumerate(MODALITIES):
            if gone == "thermal" and sequence.name.split("/")[-1] not in SEEN_BY_RGB:
                continue
            for how in HOWS:
                for begin in begins.tolist():
                    ious = play(tracker, sequence, place, range(begin, begin + length), how)
                    rows.append(
                        {
                            "track": sequence.name,
                            "cut": f"{gone} {how}",
                            "frames": f"{begin}..{min(begin + length, len(both)) - 1}",
                            "both": float(both[known].mean()),
                            "with the cut": float(ious[known].mean()),
                            "falls by": float(both[known].mean() - ious[known].mean()),
                            "last tenth, both": float(np.nanmean(both[-last:])),
                            "last tenth": float(np.nanmean(ious[-last:])),
                        }
                    )
    report.add("One camera cut", "both cameras, same track", rows, "Mean IoU over the whole track.")
    report.write(json_file)


if __name__ == "__main__":
    typer.run(main)
