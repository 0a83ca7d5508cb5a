"""Time of a step of the tracker: by runner, number of targets, image size and elimination, and where it goes."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from rich.console import Console

from ckd_tracker_ros.crop import hann_window
from ckd_tracker_ros.engine import Engine, HostMaps, Prepared, create, find_device, load, supported
from ckd_tracker_ros.engine.eager import EagerEngine
from ckd_tracker_ros.evaluation.timing import Report, Spread, noise_frame, ratios, timed
from ckd_tracker_ros.frame import RgbtFrame
from ckd_tracker_ros.network import checkpoint
from ckd_tracker_ros.network.config import CONFIGS, NetworkConfig
from ckd_tracker_ros.network.student import Student
from ckd_tracker_ros.state import TargetState
from ckd_tracker_ros.tracker import Tracker

SIZE = (640, 480)
"""Of the images where nothing else is said."""
BOX_SIDE = 48.0
"""Of every target, RGB pixels; the same in every image size."""
PLAIN = "plain float32"
"""PyTorch as it comes, the baseline of the other runners."""
PARTS = ("crop", "network", "decode")
MIN_ROUNDS = 3
FLOOR_S = 5.0
"""Nothing is left out for being slow below it."""


class TimedEngine:
    """An engine that notes when it was called, and when it had its result on the host. See `engine.base.Engine`."""

    def __init__(self, engine: Engine) -> None:
        self.config, self.description = engine.config, engine.description
        self._engine = engine
        self.began = self.ended = 0.0

    def prepare(self, templates: NDArray, present: NDArray, extent: NDArray) -> Prepared:
        """See `Engine.prepare`."""
        return self._engine.prepare(templates, present, extent)

    def run(self, templates: Sequence[Prepared], crops: NDArray, present: NDArray) -> HostMaps:
        """See `Engine.run`."""
        self.began = time.perf_counter()
        maps = self._engine.run(templates, crops, present)
        self.ended = time.perf_counter()
        return maps

    def batches(self, targets: int) -> Sequence[int]:
        """See `Engine.batches`."""
        return self._engine.batches(targets)

    def close(self) -> None:
        """See `Engine.close`."""
        self._engine.close()


class Steps(Protocol):
    """Something whose steps are measured: each appends to `seconds`."""

    seconds: list[float]

    def step(self) -> float:
        """Seconds of one step, not kept."""

    def measure(self) -> None:
        """One step, kept."""


class Case:
    """A step of a number of targets in a frame. The states never move, so every step is alike.

    Attributes:
        seconds: of every step that was measured.
        parts: of each of them, by part.
    """

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


def find_student(network: str) -> tuple[Student, str]:
    """A network, and where its weights are from: a model, or random ones for the name of a configuration.

    Raises:
        CheckpointError: neither of them.
    """
    try:
        path = checkpoint.find_model(network)
    except checkpoint.CheckpointError as error:
        if network not in CONFIGS:
            raise checkpoint.CheckpointError(f"{error}\nor one of {', '.join(CONFIGS)} with random weights") from error
        return random_student(CONFIGS[network]), "random"
    return checkpoint.load(path), path.name


def find_engines(student: Student, device: str, threads: int) -> dict[str, Engine]:
    """What this machine can run a network with: plain PyTorch, then the runner of every precision of the device.

    Raises:
        DeviceError: no such device.
    """
    chosen = find_device(device)
    found: dict[str, Engine] = {PLAIN: EagerEngine(copy.deepcopy(student), chosen, torch.float32)}
    for precision in supported(chosen.type):
        engine = create(copy.deepcopy(student), device, precision, threads)
        found[f"{engine.description['runner']} {precision}"] = engine
    return found


def measure(cases: Sequence[Steps], seconds: float, console: Console) -> None:
    """Steps of all cases in turn, round after round, until the time is over."""
    with console.status("measuring") as status:
        for case in cases:
            case.step()
        end = time.monotonic() + seconds
        while (rounds := len(cases[0].seconds)) < MIN_ROUNDS or time.monotonic() < end:
            status.update(f"measuring, {rounds} rounds")
            for case in cases:
                case.measure()


def milliseconds(values: Sequence[float]) -> Spread:
    """A spread of seconds, in milliseconds."""
    return Spread.of([1e3 * value for value in values])


def row(case: Case, baseline: Sequence[float], what: str) -> dict[str, Any]:
    """Columns that every table has."""
    parts = {f"{part} [ms]": milliseconds(case.parts[part]).median for part in PARTS}
    return {"step [ms]": milliseconds(case.seconds), **parts, what: ratios(case.seconds, baseline)}


def affordable(engine: Engine, frame: RgbtFrame, counts: Sequence[int], seconds: float) -> list[int]:
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


def by_runner(report: Report, engines: Mapping[str, Engine], seconds: float, targets: int = 1) -> None:
    """How much faster than plain PyTorch each runner is."""
    frame = noise_frame(SIZE)
    cases = {name: Case(engine, frame, targets) for name, engine in engines.items()}
    measure(list(cases.values()), seconds, report.console)
    plain = cases[PLAIN].seconds
    rows = [
        {
            "runner": name,
            **row(case, plain, "of plain"),
            "steps/s": 1e3 / milliseconds(case.seconds).median,
            "times as fast": ratios(plain, case.seconds),
        }
        for name, case in cases.items()
    ]
    title = f"Step by runner, {targets} target{'s' * (targets > 1)}, {_shown(SIZE)}"
    report.add(title, f"{PLAIN} in the same round", rows)


def by_targets(report: Report, engine: Engine, counts: Sequence[int], seconds: float) -> None:
    """How the time grows with the targets."""
    frame = noise_frame(SIZE)
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
        f"Step by number of targets, {_shown(SIZE)}",
        "N times the step of one target in the same round",
        rows,
        f"Too slow for --seconds, left out: {omitted} targets." if omitted else "",
    )


def by_size(report: Report, engine: Engine, sizes: Sequence[tuple[int, int]], seconds: float) -> None:
    """The step works on crops, so the image's size should not show."""
    cases = [Case(engine, noise_frame(size), 1) for size in sizes]
    measure(cases, seconds, report.console)
    names = list(map(_shown, sizes))
    rows = [{"image": name, **row(case, cases[0].seconds, f"of {names[0]}")} for name, case in zip(names, cases)]
    report.add("Step by image size, one target", f"{names[0]} in the same round", rows)


def by_elimination(report: Report, student: Student, device: str, precision: str, seconds: float) -> None:
    """What candidate elimination saves; nothing for a network without it."""
    if not student.config.elimination_blocks:
        return
    frame, cases = noise_frame(SIZE), {}
    for name, blocks in (("off", ()), ("on", student.config.elimination_blocks)):
        network = copy.deepcopy(student)
        network.config = replace(network.config, elimination_blocks=blocks)
        cases[name] = Case(create(network, device, precision), frame, 1)
    measure(list(cases.values()), seconds, report.console)
    rows = [{"elimination": name, **row(case, cases["off"].seconds, "of off")} for name, case in cases.items()]
    report.add(f"Step with and without elimination, one target, {_shown(SIZE)}", "without, in the same round", rows)


def bench(
    network: str,
    device: str,
    precision: str,
    threads: int,
    counts: Sequence[int],
    sizes: Sequence[tuple[int, int]],
    seconds: float,
) -> Report:
    """All tables of a network, printed as they come.

    Args:
        network: see `find_student`; or an ONNX file, which is one runner and has its elimination built in.
        device, precision, threads: see `engine.create`; the table by runner has every precision.
        counts: numbers of targets.
        sizes: of the RGB image, width and height; the first is the baseline.
        seconds: for all tables together.

    Raises:
        CheckpointError: no such network.
        DeviceError: no such device or precision.
    """
    if network.endswith(".onnx"):
        student, weights, engine = None, network, load(checkpoint.find_model(network), device, precision, threads)
    else:
        student, weights = find_student(network)
        engine = create(copy.deepcopy(student), device, precision, threads)
    report = Report("step", {**engine.description, "weights": weights})
    report.header()
    if student is not None:
        by_runner(report, find_engines(student, device, threads), seconds * 0.3)
    by_targets(report, engine, counts, seconds * 0.4)
    by_size(report, engine, sizes, seconds * 0.15)
    if student is not None:
        by_elimination(report, student, device, precision, seconds * 0.15)
    return report


def _shown(size: tuple[int, int]) -> str:
    return "x".join(map(str, size))
