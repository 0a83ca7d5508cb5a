"""Targets followed through a sequence: boxes to files."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence as Many
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ckd_tracker_ros import boxes, overlay, thermal
from ckd_tracker_ros.frame import RgbtFrame
from ckd_tracker_ros.modality import ModalitySettings, Watch, check
from ckd_tracker_ros.registration import Registration
from ckd_tracker_ros.sequences import Sequence, true_box
from ckd_tracker_ros.target import LostSettings, Target
from ckd_tracker_ros.target import follow as follow_targets
from ckd_tracker_ros.tracker import Tracker

COLUMNS = ("frame", "target", "x", "y", "width", "height", "confidence", "status", "iou")


class StartError(ValueError):
    """There is nothing to start on; the message says what can be given."""


@dataclass(frozen=True, eq=False)
class Start:
    """One target to follow.

    Attributes:
        name: of its file.
        box: (4,) xywh in RGB pixels of the start frame.
        is_truth: whether it is the one whose true boxes the sequence has.
    """

    name: str
    box: NDArray[np.float64]
    is_truth: bool = False


@dataclass(eq=False)
class Followed:
    """What has become of one target.

    Attributes:
        name: of the target.
        ious: with the truth, one for each frame behind the start that has a true box.
        frames_lost: frames that ended as LOST.
    """

    name: str
    ious: list[float] = field(default_factory=list)
    frames_lost: int = 0

    @property
    def mean_iou(self) -> float:
        """NaN without truth."""
        return float(np.mean(self.ious)) if self.ious else math.nan


def starts(sequence: Sequence, given: Many[Many[float]], frame: int | None = None) -> tuple[int, list[Start]]:
    """The start frame and the targets: the boxes given, else the sequence's own truth.

    Args:
        given: (4,) xywh boxes in RGB pixels.
        frame: where they were drawn; None for the first frame with truth, else 0.

    Raises:
        StartError: no such frame, or neither a box nor truth in it.
    """
    if frame is None:
        frame = sequence.first_frame
    if not 0 <= frame < len(sequence):
        raise StartError(f"start frame {frame}; {sequence.name} has frames 0 to {len(sequence) - 1}")
    if given:
        return frame, [Start(f"target_{number}", np.asarray(box)) for number, box in enumerate(given, 1)]
    truth = true_box(sequence, frame)
    if not np.isfinite(truth).all():
        raise StartError(f"{sequence.name} has no true box in frame {frame}: say what to follow with --box x,y,w,h")
    return frame, [Start(sequence.name, truth, is_truth=True)]


def begin(tracker: Tracker, frame: RgbtFrame, targets: Many[Start]) -> list[Target]:
    """The targets in their start frame.

    Raises:
        BoxError: a start box that cannot be tracked.
    """
    return [Target.begin(start.name, "", tracker.start(frame, start.box)) for start in targets]


def step(tracker: Tracker, frame: RgbtFrame, targets: Many[Target]) -> list[Target]:
    """The targets one frame later, by the tracker alone: no judgement, no search, as benchmarks are published."""
    states, estimates = tracker.step_many([target.state for target in targets], frame)
    return [replace(target, state=s, estimate=e) for target, s, e in zip(targets, states, estimates, strict=True)]


def proceed(tracker: Tracker, frame: RgbtFrame, targets: Many[Target]) -> list[Target]:
    """The targets one frame later; none is ever given up."""
    return follow_targets(tracker, targets, frame, LostSettings(give_up=0))


def format_box(box: NDArray[np.float64]) -> str:
    """A line of a result file: x,y,w,h."""
    return ",".join(f"{value:.4f}" for value in box) + "\n"


def follow(
    tracker: Tracker,
    sequence: Sequence,
    frame: int,
    targets: Many[Start],
    out: Path,
    video_rate: float | None,
    console: Console,
) -> list[Followed]:
    """Runs the tracker from the start frame to the end, all targets in one batch.

    Writes `<name>.txt` (x,y,w,h per line, the start box first), results.csv (`COLUMNS`; iou empty without truth) and,
    with a rate, overlay.mp4 into `out`.

    Raises:
        BoxError: a start box that cannot be tracked; nothing has been written then.
        OSError, VideoError: a file cannot be written.
    """
    current = begin(tracker, sequence.frame(frame), targets)
    followed = [Followed(start.name) for start in targets]
    limits, watch = None, Watch()
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as files:
        table = csv.writer(files.enter_context((out / "results.csv").open("w", newline="")))
        table.writerow(COLUMNS)
        texts = [files.enter_context((out / f"{start.name}.txt").open("w")) for start in targets]
        video = None if video_rate is None else files.enter_context(overlay.Video(out / "overlay.mp4", video_rate))
        numbers = range(frame, len(sequence))
        for number in track(
            numbers,
            f"{sequence.name}: {len(targets)} target(s)",
            console=console,
            transient=True,
            disable=not console.is_terminal,
        ):
            image_pair = sequence.frame(number)
            truth = true_box(sequence, number)
            if number > frame:
                watch, believed, _ = check(watch, image_pair, ModalitySettings())
                current = proceed(tracker, believed, current)
            for start, target, text, sums in zip(targets, current, texts, followed, strict=True):
                box = target.box
                iou = float(boxes.iou(box, truth)) if start.is_truth and np.isfinite(truth).all() else math.nan
                if number > frame and math.isfinite(iou):
                    sums.ious.append(iou)
                sums.frames_lost += target.frames_lost > 0
                text.write(format_box(box))
                values = [f"{value:.4f}" for value in (*box, target.confidence)]
                table.writerow([number, start.name, *values, target.status.name, f"{iou:.4f}" if iou == iou else ""])
            if video is not None:
                limits = overlay.steady_limits(limits, image_pair)
                video.add(
                    _picture(image_pair, current, truth, tracker.settings.registration, limits, f"frame {number}")
                )
    return followed


def summary(followed: Many[Followed]) -> Table:
    """For people: a line for each target."""
    table = Table("target", "mean IoU", "frames lost")
    for target in followed:
        iou = f"{target.mean_iou:.3f} ({len(target.ious)} frames)" if target.ious else "no truth"
        table.add_row(target.name, iou, str(target.frames_lost))
    return table


def _picture(
    frame: RgbtFrame,
    targets: Many[Target],
    truth: NDArray,
    registration: Registration,
    limits: thermal.Limits | None,
    caption: str,
) -> overlay.Picture:
    marks = [overlay.Mark(truth, color=overlay.TRUTH_COLOR, dashed=True)]
    for number, target in enumerate(targets):
        several = overlay.PALETTE[number % len(overlay.PALETTE)]
        color = several if len(targets) > 1 else overlay.STATUS_COLORS[target.status]
        marks.append(overlay.Mark(target.box, f"{target.id} {target.confidence:.2f}", color))
    return overlay.side_by_side(frame, (marks, overlay.in_thermal(marks, frame, registration)), caption, limits)
