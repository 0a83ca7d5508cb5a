"""Faults on purpose against the real node over DDS: is it alive, and are its targets kept or found again?

A case is a schedule of `schedules.py` with one of its faults, played in real time; what the node says is compared with
the truth of the moment that its stamp means.
"""

from __future__ import annotations

import math
import tempfile
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from common import JsonOption
from node_client import Client, NoAnswer, started
from numpy.typing import NDArray
from processes import PeerError, wait
from schedules import BOTH, FAULTS, Event, Fault, Sent, Span, pictures, play, schedule

from ckd_tracker_ros import boxes
from ckd_tracker_ros.evaluation.timing import Report
from ckd_tracker_ros.images import to_ns
from ckd_tracker_ros.ros.demo import Child, DemoError
from ckd_tracker_ros.ros.statistics import without_numbers
from ckd_tracker_ros.synthetic import Scene, SceneConfig
from ckd_tracker_ros.target import Status

SIZE = (320, 240)
DEPTH = 30
"""Of the publishers: a second of images and more for a node that stalls."""
BEGIN = 0.3
"""Share of a case after which the fault begins."""
BACK_S = 2.0
"""Within which a target has to be followed again, from the fault's end on."""
RIGHT, IN_A_ROW = 0.5, 3
"""A target is followed where it is TRACKING with a larger IoU than this; and back with the first of so many results."""
IN_SIGHT = 0.5
"""Share of a target that has to be seen for it to be back."""
QUIET_S = 0.4
"""Without a result, after the last image: nothing more is on its way."""
SAID = 110
"""Characters of a cause in the table."""


def matched(sent: Iterable[Sent], results: Iterable[tuple[float, Any]]) -> list[tuple[float, Any, Event]]:
    """The results (moment of arrival, message) with the event that each is about.

    A stamp may have been sent more than once: then it is the last one before the result came.
    """
    by_stamp: dict[int, list[Sent]] = defaultdict(list)
    for each in sent:
        by_stamp[each.stamp_ns].append(each)
    found = []
    for moment, message in results:
        candidates = by_stamp.get(to_ns(message.header.stamp), [])
        if number := bisect_right([each.at for each in candidates], moment):
            found.append((moment, message, candidates[number - 1].event))
    return found


@dataclass(frozen=True)
class Course:
    """What was said of T targets in N results.

    Attributes:
        at: (N,) when the image was due, seconds since the begin of the case.
        arrived: (N,) when the result came.
        ious: (N, T); 0 for a target that is not there.
        tracking: (N, T) bool.
    """

    at: NDArray[np.float64]
    arrived: NDArray[np.float64]
    ious: NDArray[np.float64]
    tracking: NDArray[np.bool_]

    @classmethod
    def of(cls, found: Sequence[tuple[float, Any, Event]], began: float, scene: Scene) -> Course:
        """Of `matched` results."""
        count = scene.config.targets
        width = scene.config.width
        rows = [
            seen(message, [box * (message.image_width / width) for box in scene.boxes(event.frame)])
            for _, message, event in found
        ]
        values = np.array(rows, float).reshape(-1, count, 2)
        times = np.array([(event.at, moment - began) for moment, _, event in found], float).reshape(-1, 2)
        return cls(times[:, 0], times[:, 1], values[..., 0], values[..., 1] > 0)

    def mean(self, begin: float, end: float) -> float:
        """IoU between two moments; NaN without a result."""
        part = self.ious[(begin <= self.at) & (self.at < end)]
        return float(part.mean()) if part.size else math.nan

    def back(self, end: float) -> NDArray[np.float64]:
        """(T,) seconds from the end of the fault to the first result that follows the target; infinite for never."""
        later = self.at >= end
        good = (self.tracking & (self.ious > RIGHT))[later]
        windows = np.lib.stride_tricks.sliding_window_view(good, IN_A_ROW, 0) if len(good) >= IN_A_ROW else None
        if windows is None:
            return np.full(self.ious.shape[1], math.inf)
        runs = windows.all(-1)  # (N - 2, T)
        return np.where(runs.any(0), self.arrived[later][runs.argmax(0)] - end, math.inf)


def seen(message: Any, truths: Sequence[NDArray]) -> list[tuple[float, bool]]:
    """Of every target IoU and whether it is TRACKING; ids are the numbers of the scene's targets."""
    said = {target.id: target for target in message.targets if target.state != Status.REMOVED}
    values = []
    for number, truth in enumerate(truths):
        target = said.get(str(number))
        if target is None:
            values.append((0.0, False))
            continue
        box = np.array([target.box.x, target.box.y, target.box.width, target.box.height])
        values.append((float(boxes.iou(box, truth)), target.state == Status.TRACKING))
    return values


def inits(truths: Sequence[NDArray]) -> list[Any]:
    """What ~/reinitialize takes: ids are the numbers of the targets."""
    from ckd_tracker_msgs.msg import Box2D, TargetInit

    names = ("x", "y", "width", "height")
    return [
        TargetInit(id=str(number), box=Box2D(**dict(zip(names, map(float, box), strict=True))))
        for number, box in enumerate(truths)
    ]


class Stage:
    """The node that is tried: started anew when it has ended, or when a case needs other parameters."""

    def __init__(self, folder: Path, parameters: Mapping[str, Any]) -> None:
        self._folder, self._common = folder, {"diagnostics.period": 0.25, **parameters}
        self._own: Mapping[str, Any] | None = None
        self._number = 0
        self._stack = ExitStack()
        self.node: Child
        self.client: Client
        self.cameras: list[Any]

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def alive(self) -> bool:
        """Whether a node's process runs."""
        if self._own is None:
            return False
        try:
            self.node.check(may_end=False)
        except DemoError:
            return False
        return True

    def end(self) -> None:
        """Ends the node: the next case gets another one."""
        self._own = None
        self._stack.close()

    def set(self, parameters: Mapping[str, Any]) -> None:
        """A node with these parameters besides the common ones, that has seen nothing of the last case."""
        if self._own != parameters:
            self.end()
            self._number += 1
            log = self._folder / f"node_{self._number}.log"
            self.node, self.client = self._stack.enter_context(started(log, **self._common, **parameters))
            self._own = parameters
            self.cameras = self.client.cameras(DEPTH)
        else:
            self.turn("deactivate")
            wait(lambda: not self._subscribers(), "the node's subscriptions to go")
            self.turn("activate")
        wait(lambda: self._subscribers() == len(self.cameras), "the node's subscriptions")

    def _subscribers(self) -> int:
        return sum(camera.get_subscription_count() for camera in self.cameras)

    def turn(self, transition: str) -> None:
        """A lifecycle transition.

        Raises:
            RuntimeError: refused.
        """
        from lifecycle_msgs.msg import Transition

        number = getattr(Transition, f"TRANSITION_{transition.upper()}")
        if not self.client.call("change_state", transition=Transition(id=number))[0].success:
            raise RuntimeError(f"the node did not {transition}")

    def start(self, messages: Sequence[Sequence[Any]], truths: Sequence[NDArray]) -> None:
        """Starts targets with these boxes on the first pair, which is sent until one has arrived."""

        def begun() -> bool:
            play(self.cameras, messages, schedule([0], 1.0))
            self.node.check(may_end=False)
            return self.client.call("reinitialize", targets=inits(truths), replace_all=True)[0].success

        wait(begun, "the targets to start")

    def quiet(self) -> bool:
        """Whether no result has come for a while."""
        return all(time.perf_counter() - moment > QUIET_S for moment, _ in self.client.messages[-1:])

    def dropped(self) -> tuple[int, int]:
        """Pairs that were not processed and images without a partner, from diagnostics that are made after the call."""
        before = len(self.client.diagnostics) + 1  # one may be under way
        wait(lambda: len(self.client.diagnostics) > before, "diagnostics")
        values = self.client.diagnostics[-1]
        return tuple(
            sum(int(value) for key, value in values.items() if key.startswith(f"{what} dropped"))
            for what in ("pairs", "images")
        )

    def errors(self) -> int:
        """Lines of the log so far that are errors."""
        lines = self.node.log.read_text(errors="replace").splitlines()
        return sum("[ERROR]" in line or "[FATAL]" in line or line.startswith("Traceback") for line in lines)


@dataclass(frozen=True)
class Case:
    """What all rows have in common: length [s] and rate [Hz] of a case, number of targets, seed of scene and chance."""

    seconds: float
    rate: float
    targets: int
    seed: int

    @property
    def frames(self) -> int:
        """Of a case."""
        return round(self.seconds * self.rate)

    def span(self, fault: Fault) -> Span:
        """When the fault is: it begins and ends between two frames."""
        first, count = round(BEGIN * self.frames), round(fault.seconds * self.rate)
        return Span((first - 0.5) / self.rate, (first + count - 0.5) / self.rate, first - 1)

    def in_sight(self, scene: Scene, span: Span) -> Span:
        """A span during which targets are hidden, up to the frame in which half of each is seen again."""
        last = next(i for i in range(round(span.end * self.rate), self.frames) if min(scene.visible(i)) >= IN_SIGHT)
        return replace(span, end=(last - 0.5) / self.rate)

    def scene(self, fault: Fault) -> SceneConfig:
        """Two bodies and others, in 8 bits; easy to follow, so that what goes wrong is the fault's."""
        first = self.span(fault).frame + 1
        return SceneConfig(
            *SIZE, frames=self.frames, fps=self.rate, targets=self.targets, size=(40.0, 75.0), speed=25.0,
            camera_motion=0.03, clutter=12, hidden=(first, first + round(fault.seconds * self.rate)) if fault.hidden
            else None,
        )  # fmt: skip


def row(stage: Stage, fault: Fault, case: Case) -> dict[str, Any]:
    """Plays a case and judges it."""
    span = case.span(fault)
    scene, messages = pictures(case.scene(fault), case.seed)
    if fault.hidden:
        span = case.in_sight(scene, span)
    events = fault.apply(schedule(range(case.frames), case.rate), span, np.random.default_rng(case.seed))
    result: dict[str, Any] = {"fault": fault.name, "strength": fault.strength}
    try:
        stage.set(fault.parameters)
        errors = stage.errors()
        pairs, images = stage.dropped()
        stage.start(messages, scene.boxes(0))
        heard, told = len(stage.client.messages), len(stage.client.diagnostics)
        sent = play(stage.cameras, messages, events)
        wait(stage.quiet, "the node to be done")
        stage.node.check(may_end=False)
        pairs_now, images_now = stage.dropped()
    except (DemoError, PeerError, NoAnswer, RuntimeError) as error:
        alive = stage.alive
        stage.end()
        return result | {"alive": alive, "says": str(error).splitlines()[0], "verdict": "failed"}
    began = sent[0].at - sent[0].event.at
    found = matched(sent, stage.client.messages[heard:])
    course = Course.of(found, began, scene)
    return result | {
        "images": "+".join(str(sum(each.event.stream == stream for each in sent)) for stream in BOTH),
        "results": len(found),
        "pairs dropped": pairs_now - pairs,
        "images alone": images_now - images,
        **judged(course, span, case.seconds),
        "errors": stage.errors() - errors,
        "alive": True,
        "says": cause(stage.client.diagnostics[told:]),
    }


def judged(course: Course, span: Span, seconds: float) -> dict[str, Any]:
    """Columns: what became of the targets. `after` is from `BACK_S` after the fault on."""
    back = course.back(span.end)
    after = course.mean(span.end + BACK_S, seconds)
    ok = bool((back <= BACK_S).all()) and after > RIGHT
    return {
        "kept [%]": 100 * float((back <= BACK_S).mean()),
        "before": course.mean(0, span.begin),
        "during": course.mean(span.begin, span.end),
        "after": after,
        "back [s]": float(back.max()),
        "verdict": "ok" if ok else "failed",
    }


def cause(diagnostics: Iterable[Mapping[str, str]]) -> str:
    """What the node said was wrong, each cause once, shortened."""
    causes = [text for values in diagnostics if (text := values.get("cause", ""))]
    return "; ".join({without_numbers(text): text[:SAID] for text in causes}.values())


COLUMNS = (
    "fault", "strength", "images", "results", "pairs dropped", "images alone", "kept [%]", "before", "during", "after",
    "back [s]", "errors", "alive", "verdict",
)  # fmt: skip


def main(
    only: Annotated[str, typer.Option(help="names of faults, with commas between; empty: all")] = "",
    model: Annotated[str, typer.Option(help="model file, or the name of an installed one")] = "ckd_tiny",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "cpu",
    seconds: Annotated[float, typer.Option(min=4, help="of a case; the fault begins after 30 % of it")] = 10.0,
    rate: Annotated[float, typer.Option(min=2, max=60, help="pairs per second")] = 12.0,
    targets: Annotated[int, typer.Option(min=1, max=8, help="in the scene")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="of the scene, and of what chance decides")] = 2000,
    json_file: JsonOption = None,
) -> None:
    """Plays every fault; the command fails if a row does."""
    names = [name.strip() for name in only.split(",")] if only else []
    if unknown := [name for name in names if name not in {fault.name for fault in FAULTS}]:
        known = ", ".join(dict.fromkeys(fault.name for fault in FAULTS))
        raise typer.BadParameter(f"--only {unknown[0]!r}; allowed: {known}")
    faults = [fault for fault in FAULTS if not names or fault.name in names]
    case = Case(seconds, rate, targets, seed)
    for fault in faults:
        if case.span(fault).end + BACK_S + IN_A_ROW / rate > seconds:
            raise typer.BadParameter(
                f"--seconds {seconds:g}: {fault.name}, {fault.strength}, ends {seconds - case.span(fault).end:.1f} s "
                f"before the end; allowed: more than {BACK_S + IN_A_ROW / rate:.1f} s"
            )
    report = Report("faults", {"model": model, "device": device, "rate [Hz]": rate, "seconds": seconds, "scene": seed})
    report.header()
    rows = []
    with tempfile.TemporaryDirectory() as name, Stage(Path(name), {"model": model, "device": device}) as stage:
        for number, fault in enumerate(faults):
            with report.console.status(f"{number + 1} of {len(faults)}: {fault.name}, {fault.strength}"):
                rows.append(row(stage, fault, case))
    note = (
        f"Kept: targets that were followed (TRACKING, IoU above {RIGHT}, {IN_A_ROW} results in a row) within "
        f"{BACK_S:g} s of the fault's end; back: the last of them. Before, during, after: mean IoU; after: from "
        f"{BACK_S:g} s after the end on. Ok: all kept, after above {RIGHT}. Images: RGB + thermal sent. "
        "Images alone: without a partner."
    )
    report.add("Faults", "no fault", [{name: each.get(name, "-") for name in COLUMNS} for each in rows], note)
    said = [{name: each[name] for name in ("fault", "strength", "says")} for each in rows]
    report.add("What /diagnostics said meanwhile", "no fault", said)
    report.write(json_file)
    if any(each["verdict"] != "ok" for each in rows):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
