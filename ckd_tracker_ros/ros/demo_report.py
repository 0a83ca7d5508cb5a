"""What is left of a demo: results.csv, plot.png, overlay.mp4, still.png, and the numbers of its summary."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ckd_tracker_ros import overlay, thermal
from ckd_tracker_ros.ros.demo_client import STATES, TARGET, Result, Run
from ckd_tracker_ros.sequences import Sequence, true_box

SLOWER = 1.1
"""A run that took so much longer than it should have was slowed down by the node, see `demo.Options.skip`."""
STATE_COLORS = {STATES[number]: color for number, color in overlay.STATUS_COLORS.items()}


def write(out: Path, sequence: Sequence, run: Run, console: Console) -> None:
    """Writes all files into a folder that exists."""
    write_csv(out / "results.csv", run)
    write_plot(out / "plot.png", run)
    stills = _best_moment(run)
    with overlay.Video(out / "overlay.mp4", run.rate) as video:
        for number, picture in enumerate(
            track(
                pictures(sequence, run),
                "writing overlay.mp4",
                run.sent,
                console=console,
                transient=True,
                disable=not console.is_terminal,
            )
        ):
            video.add(picture)
            if number == stills:
                cv2.imwrite(str(out / "still.png"), picture)


def write_csv(path: Path, run: Run) -> None:
    """One line per result; empty where there is no value.

    Columns: pair, frame of the sequence, time [s], box x y width height [RGB pixels], truth likewise, iou,
    confidence, state, latency [s], processing [s], skipped.
    """
    names = [f"{kind}{name}" for kind in ("", "true_") for name in ("x", "y", "width", "height")]
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(
            ["pair", "frame", "time", *names, "iou", "confidence", "state", "latency", "processing", "skipped"]
        )
        for r in run.results:
            numbers = [r.time_s, *r.box, *r.truth, r.iou, r.confidence]
            rows.writerow(
                [
                    r.number,
                    r.frame,
                    *map(_shown, numbers),
                    r.state,
                    _shown(r.latency_s),
                    _shown(r.processing_s),
                    r.skipped,
                ]
            )


def write_plot(path: Path, run: Run) -> None:
    """IoU, confidence and processing time over time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tracked = [r for r in run.results if r.state]
    times = [r.time_s for r in tracked]
    rows = (
        ("IoU with the truth", [r.iou for r in tracked], (0, 1.02)),
        ("confidence", [r.confidence for r in tracked], (0, 1.02)),
        ("processing [ms]", [1e3 * r.processing_s for r in tracked], (0, None)),
    )
    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, values, limits), color in zip(
        figure.subplots(len(rows), sharex=True), rows, ("tab:green", "tab:blue", "tab:orange"), strict=True
    ):
        axes.plot(times, values, ".-", color=color, markersize=3, linewidth=1)
        axes.set_ylabel(title)
        axes.set_ylim(*limits)
        axes.grid(alpha=0.3)
        for r in tracked:
            if r.state == "LOST":
                axes.axvspan(r.time_s - 0.5 / run.rate, r.time_s + 0.5 / run.rate, color="red", alpha=0.12, linewidth=0)
    axes.set_xlabel("time [s]")
    figure.suptitle(f"mean IoU {mean_iou(run):.3f}; red: target reported as lost")
    figure.savefig(path, dpi=100)


def pictures(sequence: Sequence, run: Run) -> Iterator[overlay.Picture]:
    """Every pair that was sent, with the truth and the newest box that the node had for it or for an earlier pair."""
    by_number = {result.number: result for result in run.results}
    limits: thermal.Limits | None = None
    result: Result | None = None
    for number in range(run.sent):
        index = (run.first_frame + number) % len(sequence)
        frame = sequence.frame(index)
        result = by_number.get(number, result)
        limits = overlay.steady_limits(limits, frame)
        marks = [overlay.Mark(true_box(sequence, index), dashed=True, color=overlay.TRUTH_COLOR)]
        caption = f"{number / run.rate:5.1f} s"
        if result is not None and result.state:
            text = f"{TARGET} {result.confidence:.2f}"
            marks.append(overlay.Mark(result.box, text, STATE_COLORS[result.state]))
            caption += f"  IoU {result.iou:.2f}  {1e3 * result.processing_s:.0f} ms  {result.state}"
        yield overlay.side_by_side(frame, (marks, overlay.in_thermal(marks, frame)), caption, limits)


def mean_iou(run: Run) -> float:
    """Over the results with both a target and a true box."""
    values = [r.iou for r in run.results if math.isfinite(r.iou)]
    return float(np.mean(values)) if values else math.nan


def summary(run: Run, start_up_s: float) -> Table:
    """The numbers of a run, for people."""
    tracked = [r for r in run.results if r.state]
    dropped = ", ".join(f"{reason}: {count}" for reason, count in run.dropped.items())
    unpaired = ", ".join(f"{reason}: {count}" for reason, count in run.unpaired.items())
    slower, late = run.slower >= SLOWER, f" ({run.late} late)" if run.late else ""
    table = Table(show_header=False, box=None)
    for name, value in {
        "pairs sent": f"{run.sent} at {run.rate:g} Hz" + ("" if slower else late),
        "played": f"{run.slower:.1f} times slower, for the node to keep up" if slower else "",
        "pairs received by the node": str(run.received),
        "pairs lost on the way": str(run.sent - run.received) + (f" (images {unpaired})" if unpaired else ""),
        "pairs skipped by the node": f"{sum(run.dropped.values())}" + (f" ({dropped})" if dropped else ""),
        "results": f"{len(run.results)}, {len(tracked)} of them with the target",
        "mean IoU": f"{mean_iou(run):.3f}",
        "processing, median / 95 %": _percentiles([r.processing_s for r in tracked]),
        "latency, median / 95 %": "" if slower else _percentiles([r.latency_s for r in tracked]),
        "start-up": f"{start_up_s:.1f} s",
    }.items():
        if value:  # stamps of pairs that were kept back tell no latency
            table.add_row(name, value)
    return table


def _percentiles(seconds: list[float]) -> str:
    """Median and 95 % of what is known of them, in milliseconds."""
    known = [1e3 * each for each in seconds if math.isfinite(each)]
    return " / ".join(f"{value:.0f}" for value in np.percentile(known, (50, 95))) + " ms" if known else "not known"


def _best_moment(run: Run) -> int:
    """The number of the pair with the best IoU in the middle half of the run."""
    middle = [r for r in run.results if run.sent / 4 <= r.number < run.sent * 3 / 4 and math.isfinite(r.iou)]
    return max(middle, key=lambda r: r.iou).number if middle else 0


def _shown(value: float) -> str:
    return f"{value:.9g}" if math.isfinite(value) else ""
