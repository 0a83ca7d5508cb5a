"""What a training leaves behind for people: rows in a file, TensorBoard, a plot, a progress bar."""

from __future__ import annotations

import csv
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

log = logging.getLogger(__name__)

LOG, PLOT, BOARD = "log.csv", "losses.png", "tensorboard"


class Journal:
    """The log of one training; rows of steps that a resumed training does again are dropped.

    Args:
        out: folder.
        step: rows up to this one stay.
        active: False writes nothing (all processes but the first).
    """

    def __init__(self, out: Path, step: int, active: bool = True) -> None:
        self._out, self._active = out, active
        self._sums: dict[str, Tensor] = {}
        self._count, self._since = 0, time.monotonic()
        self._rows: list[dict[str, str]] = []
        self._board: Any = None
        if not active:
            return
        out.mkdir(parents=True, exist_ok=True)
        self._rows = [row for row in read_log(out) if int(row["step"]) <= step]
        self._rewrite()
        try:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(out / BOARD), purge_step=step + 1)
        except ImportError:
            log.warning("no TensorBoard logs: the package tensorboard is not installed (pip install tensorboard)")

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._board is not None:
            self._board.close()
        if self._rows:
            plot(self._rows, self._out / PLOT)

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """The losses of one step."""
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0) + value
        self._count += 1

    def means(self, step: int, rate: float) -> dict[str, float]:
        """A row for the steps since the last one."""
        means = {name: (value / self._count).item() for name, value in self._sums.items()}
        row = {**means, "rate": rate, "ms": 1e3 * (time.monotonic() - self._since) / self._count}
        self._sums, self._count, self._since = {}, 0, time.monotonic()
        return row

    def write(self, step: int, row: Mapping[str, float], console: Console) -> None:
        """Log a row."""
        if not self._active:
            return
        before = self._names()
        self._rows.append({"step": str(step), **{name: f"{value:.6g}" for name, value in row.items()}})
        if self._names() == before:
            with (self._out / LOG).open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, before).writerow(self._rows[-1])
        else:
            self._rewrite()
        if self._board is not None:
            for name, value in row.items():
                self._board.add_scalar(name, value, step)
        shown = {
            name: value for name, value in row.items() if name in ("total", "iou", "near", "ms", "style", "content")
        }
        console.print(
            f"step {step}  " + "  ".join(f"{name} {value:.4g}" for name, value in shown.items()), soft_wrap=True
        )

    def _names(self) -> list[str]:
        return list(dict.fromkeys(name for row in self._rows for name in row))

    def _rewrite(self) -> None:
        part = self._out / f"{LOG}.part"
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._names() or ["step"])
            writer.writeheader()
            writer.writerows(self._rows)
        part.replace(self._out / LOG)

    @contextmanager
    def progress(self, console: Console, steps: int, first: int) -> Iterator[Callable[[int, Tensor], None]]:
        """A bar while there is a terminal; call it with the step and its loss."""
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]}"), TimeRemainingColumn())
        quiet = not (self._active and console.is_terminal)
        with Progress(*columns, console=console, transient=True, disable=quiet) as bar:
            task = bar.add_task("", total=steps, completed=first, loss="")

            def show(step: int, loss: Tensor) -> None:
                if not quiet:
                    bar.update(task, completed=step, loss=f"{float(loss):.3f}")

            yield show


def read_log(out: Path) -> list[dict[str, str]]:
    """The rows of a training's log; a last one that a kill has cut is left out."""
    file = out / LOG
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as text:
        return [
            {name: value for name, value in row.items() if name and value}
            for row in csv.DictReader(text)
            if (row.get("step") or "").isdigit() and None not in row and row.get("total") is not None
        ]


def plot(rows: list[dict[str, str]], file: Path) -> None:
    """Losses, and what validation said, over the steps; skipped with a warning without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        log.warning("no %s: the package matplotlib is not installed (pip install matplotlib)", file.name)
        return
    names = list(dict.fromkeys(name for row in rows for name in row if name not in ("step", "rate", "ms", "gradient")))
    measured = [name for name in names if name in ("iou", "near")]
    figure = Figure(figsize=(9, 7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 1, sharex=True)
    for axis, shown, label in (
        (axes[0], [n for n in names if n not in measured], "loss"),
        (axes[1], measured, "held back"),
    ):
        for name in shown:
            points = [(int(row["step"]), float(row[name])) for row in rows if name in row]
            points = [point for point in points if math.isfinite(point[1])]
            if points:
                axis.plot(*zip(*points), label=name, linewidth=2 if name == "total" else 1)
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        if shown:
            axis.legend(fontsize="small", ncols=2)
    axes[0].set_yscale("log")
    axes[1].set_xlabel("step")
    figure.savefig(file, dpi=100)
