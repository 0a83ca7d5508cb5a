"""What every benchmark shares: spreads, ratios within a run, the machine it ran on, the table and the JSON file."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any
from xml.etree import ElementTree

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ckd_tracker_ros.crop import hann_window
from ckd_tracker_ros.frame import Image, RgbtFrame
from ckd_tracker_ros.network.config import NetworkConfig
from ckd_tracker_ros.network.student import Student

JsonOption = Annotated[Path | None, typer.Option("--json", help="also write everything to this file")]

THERMAL_WIDTH = 640
"""Thermal cameras have no more pixels along a row than this."""

SMALL = NetworkConfig(
    name="random_small", template_size=64, search_size=128, width=32, depth=2, heads=2, elimination_blocks=(1,),
    head_channels=16,
)  # fmt: skip
"""A network of about a millisecond, so that what surrounds it shows."""


@dataclass(frozen=True)
class Spread:
    """Median, 10th and 90th percentile of repeated measurements."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of the values that are finite; NaN where there is none."""
        finite = [value for value in values if np.isfinite(value)]
        low, median, high = np.percentile(finite, (10, 50, 90)).tolist() if finite else [float("nan")] * 3
        return cls(median, low, high, len(finite))

    @staticmethod
    def percentile(values: Sequence[float], percent: float) -> float:
        """NaN where there is no value."""
        return float(np.percentile(values, percent)) if len(values) else float("nan")

    def __str__(self) -> str:
        median, low, high = map(_short, (self.median, self.low, self.high))
        return "-" if not self.count else median if low == high else f"{median} ({low} to {high})"


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def ratios(values: Sequence[float], baseline: Sequence[float]) -> Spread:
    """Each value over the baseline's of the same round: what slowed down the machine then slowed down both.

    Raises:
        ValueError: not as many values as baselines.
    """
    return Spread.of([value / base for value, base in zip(values, baseline, strict=True) if base])


@dataclass
class Report:
    """What a benchmark found.

    Attributes:
        name: of the benchmark.
        settings: what it was asked for.
        machine, versions: where it ran.
        tables: title, what ratios refer to, and rows of one value or `Spread` per column; columns name their unit.
    """

    name: str
    settings: dict[str, Any]
    machine: dict[str, Any] = field(default_factory=lambda: machine())
    versions: dict[str, str] = field(default_factory=lambda: versions())
    tables: list[dict[str, Any]] = field(default_factory=list)
    console: Console = field(default_factory=lambda: Console(width=None if sys.stdout.isatty() else 120), repr=False)

    def header(self) -> None:
        """Prints where it runs, and how much to believe."""
        self.console.print(f"[bold]{self.name}[/bold]  " + "  ".join(f"{k} {v}" for k, v in self.settings.items()))
        self.console.print("  ".join(f"{k} {v}" for k, v in (self.machine | self.versions).items()), highlight=False)
        if self.machine["busy"]:
            self.console.print("[yellow]other programs are using the processor: believe ratios, not times[/yellow]")

    def add(self, title: str, baseline: str, rows: Sequence[dict[str, Any]], note: str = "") -> None:
        """Takes a table, and prints it."""
        self.tables.append({"title": title, "baseline": baseline, "note": note, "rows": list(rows)})
        table = Table(
            title=title, title_justify="left", caption=f"median (10 to 90 %); baseline: {baseline}. {note}".strip(),
            caption_justify="left",
        )  # fmt: skip
        for column in rows[0]:
            table.add_column(column, justify="right")
        for row in rows:
            table.add_row(*(_short(v) if isinstance(v, float) else str(v) for v in row.values()))
        self.console.print(table)

    def write(self, path: Path | None) -> None:
        """Writes all of it as JSON, if there is a path; numbers that do not exist become null."""
        if path is not None:
            content = {key: getattr(self, key) for key in ("name", "settings", "machine", "versions", "tables")}
            path.write_text(json.dumps(_plain(content), indent=1, allow_nan=False) + "\n")
            self.console.print(f"written to {path}", soft_wrap=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Spread):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def machine() -> dict[str, Any]:
    """Processor, cores, graphics card, and whether something else is running."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [line for line in cpuinfo.read_text().splitlines() if "model name" in line] if cpuinfo.exists() else []
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    return {
        "CPU": names[0].split(":", 1)[1].strip() if names else platform.processor(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "load": round(load, 2),
        "busy": load > 0.3 * cores,
    }


def versions() -> dict[str, str]:
    """Of Python and of what the times depend on."""
    found = {"python": platform.python_version(), "torch": torch.__version__, "opencv": "-", "rmw": "-"}
    for name in ("opencv-python-headless", "opencv-python"):
        try:
            found["opencv"] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    try:
        from rclpy.utilities import get_rmw_implementation_identifier
    except ImportError:
        return found  # without ROS
    rmw = get_rmw_implementation_identifier()
    for prefix in (*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix):
        if (description := Path(prefix) / "share" / rmw / "package.xml").is_file():
            return found | {"rmw": f"{rmw} {ElementTree.parse(description).findtext('version')}"}
    return found | {"rmw": rmw}


def timed(action: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def parse_sizes(text: str) -> list[tuple[int, int]]:
    """`640x480,1280x720` as (width, height).

    Raises:
        typer.BadParameter: it is not of that form.
    """
    try:
        sizes = [tuple(map(int, size.split("x"))) for size in text.split(",")]
    except ValueError:
        sizes = [()]
    if any(len(size) != 2 or min(size) < 16 for size in sizes):
        raise typer.BadParameter(f"sizes {text!r}; expected WIDTHxHEIGHT of at least 16, separated by commas")
    return sizes


def parse_counts(text: str) -> list[int]:
    """`1,2,4` as numbers above zero.

    Raises:
        typer.BadParameter: it is not of that form.
    """
    if not all(word.strip().isdecimal() and int(word) for word in text.split(",")):
        raise typer.BadParameter(f"counts {text!r}; expected whole numbers above 0, separated by commas")
    return [int(word) for word in text.split(",")]


def noise_images(size: tuple[int, int], seed: int = 0) -> tuple[NDArray, NDArray]:
    """Pixels of a pair: (height, width, 3) uint8 RGB, and 16-bit thermal of the same shape, at most 640 wide."""
    width, height = size
    rng = np.random.default_rng(seed)
    scale = min(1.0, THERMAL_WIDTH / width)
    thermal = rng.integers(7000, 9000, (round(height * scale), round(width * scale)), np.uint16)
    return rng.integers(0, 256, (height, width, 3), np.uint8), thermal


def noise_frame(size: tuple[int, int]) -> RgbtFrame:
    """A pair for the tracker."""
    rgb, thermal = noise_images(size)
    return RgbtFrame((Image(rgb, "rgb"), Image(thermal, "mono")))


def random_student(config: NetworkConfig) -> Student:
    """Random weights, but for the last layers of its head: every box comes out where the last one was, a quarter of the
    crop wide and high. Random sizes would double the box at every step, and with it the pixels of the crop."""
    torch.manual_seed(0)
    student = Student(config)
    cell = int(hann_window(config.search_grid).argmax()) // config.search_grid
    share = 0.996 / config.search_factor  # the side of a crop is rounded up: exactly 1 / factor would grow
    biases = {"ctr": 0.0, "offset": config.search_grid / 2 - cell, "size": math.log(share / (1 - share))}
    with torch.no_grad():
        for tower, bias in biases.items():
            layer = student.box_head.get_submodule(f"conv5_{tower}")
            layer.weight.zero_()
            layer.bias.fill_(bias)
    return student.eval()
