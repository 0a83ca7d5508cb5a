"""What every measurement of speed shares: spreads, ratios within a run, the machine it ran on, table and JSON file."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ckd_tracker_ros.frame import Image, RgbtFrame

THERMAL_WIDTH = 640
"""Thermal cameras have no more pixels along a row than this."""
LOOK_S = 0.5
BUSY = 0.1
"""Share of the processor's time used by others, above which times are not to be believed."""


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
    return Spread.of([value / base for value, base in zip(values, baseline, strict=True)])


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
    console: Console = field(default_factory=lambda: Console(width=None if sys.stdout.isatty() else 140), repr=False)

    def header(self) -> None:
        """Prints where it runs, and how much to believe."""
        self.console.print(self.name, *(f"{k} {v}" for k, v in self.settings.items()), sep="  ", markup=False)
        self.console.print(
            "  ".join(f"{k} {v}" for k, v in (self.machine | self.versions).items() if k != "busy"), highlight=False
        )
        if self.machine["busy"]:
            self.console.print("[yellow]the processor is busy with other programs: believe ratios, not times[/yellow]")

    def add(self, title: str, baseline: str, rows: Sequence[dict[str, Any]], note: str = "") -> None:
        """Takes a table, and prints it."""
        self.tables.append({"title": title, "baseline": baseline, "note": note, "rows": list(rows)})
        spreads = "median (10 to 90 %); " if any(isinstance(v, Spread) for row in rows for v in row.values()) else ""
        caption = f"{spreads}baseline: {baseline}. {note}"
        table = Table(title=escape(title), caption=escape(caption), title_justify="left", caption_justify="left")
        for column in rows[0]:
            table.add_column(escape(column), justify="right", overflow="fold")
        for row in rows:
            table.add_row(*(_short(v) if isinstance(v, float) else escape(str(v)) for v in row.values()))
        self.console.print(table)

    def write(self, path: Path | None) -> None:
        """Writes all of it as JSON, if there is a path; numbers that do not exist become null."""
        if path is not None:
            content = {key: getattr(self, key) for key in ("name", "settings", "machine", "versions", "tables")}
            path.write_text(json.dumps(_plain(content), indent=1, allow_nan=False) + "\n")
            self.console.print(f"written to {path}", soft_wrap=True)


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def machine() -> dict[str, Any]:
    """Processor, cores, graphics card, and whether something else is running."""
    import torch  # late: the processes that only send images need not wait for it

    cpuinfo = Path("/proc/cpuinfo")
    names = [line for line in cpuinfo.read_text().splitlines() if "model name" in line] if cpuinfo.exists() else []
    cores = len(os.sched_getaffinity(0))
    others = used_by_others(LOOK_S)
    return {
        "CPU": names[0].split(":", 1)[1].strip() if names else platform.processor(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "used by others": f"{100 * others:.0f} %",
        "busy": others > BUSY,
    }


def used_by_others(seconds: float) -> float:
    """Share of the processor's time that other programs use, 0..1; looks for some seconds."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return math.nan

    def look() -> NDArray:
        return np.array(stat.read_text().split("\n", 1)[0].split()[1:9], float)  # user nice system idle iowait ...

    before = look()
    time.sleep(seconds)
    spent = look() - before
    return float(1 - (spent[3] + spent[4]) / max(spent.sum(), 1))


def versions() -> dict[str, str]:
    """Of Python and of what the times depend on."""
    found = {
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
        "opencv": cv2.__version__,
        "onnxruntime": importlib.metadata.version("onnxruntime") if importlib.util.find_spec("onnxruntime") else "-",
        "rmw": "-",
    }
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
