"""Time of a step of the tracker: by number of targets, by precision, by image size, and where it goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any

import typer
from common import JsonOption, Report, Spread, noise_frame, parse_counts, parse_sizes, ratios, timed
from numpy.typing import NDArray
from random_networks import random_student
from rich.console import Console

from ckd_tracker_ros.engine import DeviceError, Engine, HostMaps, Prepared, create
from ckd_tracker_ros.frame import RgbtFrame
from ckd_tracker_ros.network import checkpoint
from ckd_tracker_ros.network.config import CONFIGS
from ckd_tracker_ros.network.student import Student
from ckd_tracker_ros.tracker import TargetState, Tracker

BOX_SIDE = 48.0
"""Of every target, RGB pixels; the same in every image size."""
PRECISIONS = ("float32", "bfloat16", "float16")
PARTS = ("crop", "network", "decode")
MIN_ROUNDS = 3
FLOOR_S = 5.0
"""Nothing is left out for being slow below it."""
DEFAULT_SIZES = "320x240,640x480,1920x1080"


class TimedEngine:
    """An engine that notes when it was called, and when it had its result on the host. See `engine.base.Engine`."""

    def __init__(self, engine: Engine) -> None:
        self.config, self.description = engine.config, engine.description
        self._engine = engine
        self.began = self.ended = 0.0

    def prepare(self, templates: NDArray, present: NDArray, extent: NDArray) -> Prepared:
        return self._engine.prepare(templates, present, extent)

    def run(self, templates: list[Prepared], crops: NDArray, present: NDArray) -> HostMaps:
        self.began = time.perf_counter()
        maps = self._engine.run(templates, crops, present)
        self.ended = time.perf_counter()
        return maps


class Case:
    """One thing to measure: a step of a number of targets in a frame. The states never move, so every step is alike."""

    def __init__(self, engine: Engine, frame: RgbtFrame, targets: int) -> None:
        self._engine = TimedEngine(engine)
        self._tracker = Tracker(self._engine)
        self._frame = frame
        self._states: list[TargetState] = [self._tracker.start(frame, box) for box in boxes(frame, targets)]
        self.seconds: list[float] = []
        self.parts: dict[str, list[float]] = {part: [] for part in PARTS}

    def step(self) -> float:
        """Seconds of one step, not kept."""
        return timed(lambda: self._tracker.step_many(self._states, self._frame))

    def measure(self) -> None:
        """One step, kept."""
        began = time.perf_counter()
        self._tracker.step_many(self._states, self._frame)
        ended = time.perf_counter()
        self.seconds.append(ended - began)
        moments = (began, self._engine.began, self._engine.ended, ended)
        for part, since, until in zip(PARTS, moments, moments[1:]):
            self.parts[part].append(until - since)


def boxes(frame: RgbtFrame, count: int) -> list[tuple[float, ...]]:
    """Boxes around the middle of the image, a few pixels apart, so that all crops are of the same size."""
    width, height = frame.size
    side = min(BOX_SIDE, width / 4, height / 4)
    return [((width - side) / 2 + 2 * (i % 8), (height - side) / 2 + 2 * (i // 8), side, side) for i in range(count)]


def measure(cases: list[Case], seconds: float, console: Console) -> None:
    """Steps of all cases in turn, round after round, until the time is over."""
    with console.status("measuring") as status:
        for case in cases:
            case.step()
        end = time.monotonic() + seconds
        while (rounds := len(cases[0].seconds)) < MIN_ROUNDS or time.monotonic() < end:
            status.update(f"measuring, {rounds} rounds")
            for case in cases:
                case.measure()


def milliseconds(values: list[float]) -> Spread:
    """A spread of seconds, in milliseconds."""
    return Spread.of([1e3 * value for value in values])


def row(case: Case, baseline: list[float], what: str) -> dict[str, Any]:
    """Columns that every table has."""
    parts = {f"{part} [ms]": milliseconds(case.parts[part]).median for part in PARTS}
    return {"step [ms]": milliseconds(case.seconds), **parts, what: ratios(case.seconds, baseline)}


def affordable(engine: Engine, frame: RgbtFrame, counts: list[int], seconds: float) -> list[int]:
    """The counts of which `MIN_ROUNDS` rounds fit into the time, 1 always among them."""
    one = Case(engine, frame, 1)
    one.step()
    left, chosen = max(seconds, FLOOR_S) / MIN_ROUNDS, []
    cost = min(one.step() for _ in range(2))
    for count in sorted({1, *counts}):
        left -= cost * count
        if left >= 0 or count == 1:
            chosen.append(count)
    return chosen


def find_student(network: str) -> tuple[Student, str]:
    """A network and where its weights are from.

    Raises:
        typer.BadParameter: neither a model that is there nor the name of a configuration.
    """
    try:
        path = checkpoint.find_model(network)
    except checkpoint.CheckpointError as error:
        if network not in CONFIGS:
            raise typer.BadParameter(f"{error}\nor one of {', '.join(CONFIGS)} with random weights") from error
        return random_student(CONFIGS[network]), "random"
    return checkpoint.load(path), path.name


def by_targets(report: Report, engine: Engine, counts: list[int], seconds: float) -> None:
    """First table: how the time grows with the targets."""
    frame = noise_frame((640, 480))
    chosen = affordable(engine, frame, counts, seconds)
    cases = [Case(engine, frame, count) for count in chosen]
    measure(cases, seconds, report.console)
    rows = []
    for count, case in zip(chosen, cases):
        several = [count * value for value in cases[0].seconds]
        each = milliseconds(case.seconds).median / count
        rows.append({"targets": count, **row(case, several, "of N steps"), "per target [ms]": each})
    omitted = ", ".join(map(str, sorted(set(counts) - set(chosen))))
    report.add(
        "Step by number of targets, 640x480",
        "N times the step of one target in the same round",
        rows,
        f"Too slow for --seconds, left out: {omitted} targets." if omitted else "",
    )


def by_precision(report: Report, make: Callable[[str], Engine], counts: list[int], seconds: float) -> None:
    """Second table: what a smaller type of number saves."""
    frame, cases = noise_frame((640, 480)), {}
    for precision in PRECISIONS:
        try:
            engine = make(precision)
        except DeviceError:
            continue  # not on this device
        cases |= {(precision, count): Case(engine, frame, count) for count in counts}
    measure(list(cases.values()), seconds, report.console)
    rows = [
        {"precision": precision, "targets": count, **row(case, cases["float32", count].seconds, "of float32")}
        for (precision, count), case in cases.items()
    ]
    report.add("Step by precision, 640x480", "float32 in the same round", rows)


def by_size(report: Report, engine: Engine, sizes: list[tuple[int, int]], seconds: float) -> None:
    """Third table: the step works on crops, so the image's size should not show."""
    cases = [Case(engine, noise_frame(size), 1) for size in sizes]
    measure(cases, seconds, report.console)
    names = ["x".join(map(str, size)) for size in sizes]
    rows = [{"image": name, **row(case, cases[0].seconds, f"of {names[0]}")} for name, case in zip(names, cases)]
    report.add("Step by image size, one target", f"{names[0]} in the same round", rows)


def main(
    network: Annotated[str, typer.Option(help="a weight file, a shipped model, or base: random weights")] = "ckd_tiny",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    precision: Annotated[str, typer.Option(help="of the tables by targets and image size")] = "auto",
    threads: Annotated[int, typer.Option(help="of torch on the CPU; 0: as it is")] = 0,
    targets: Annotated[str, typer.Option(help="numbers of targets")] = "1,2,4,8,16,32",
    sizes: Annotated[str, typer.Option(help="of the RGB image; the first is the baseline")] = DEFAULT_SIZES,
    seconds: Annotated[float, typer.Option(help="for all three tables")] = 40.0,
    json_file: JsonOption = None,
) -> None:
    """Step time of the tracker by number of targets, precision and image size."""
    counts, image_sizes = parse_counts(targets), parse_sizes(sizes)
    weights = find_student(network)[1]

    def make(precision: str) -> Engine:
        return create(find_student(network)[0], device, precision, threads)

    try:
        engine = make(precision)
    except DeviceError as error:
        raise typer.BadParameter(str(error)) from error
    report = Report("step", {**engine.description, "weights": weights})
    report.header()
    by_targets(report, engine, counts, seconds / 2)
    by_precision(report, make, [1, 4], seconds / 4)
    by_size(report, engine, image_sizes, seconds / 4)
    report.write(json_file)


if __name__ == "__main__":
    typer.run(main)
