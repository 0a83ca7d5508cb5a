"""Faults on purpose against the real node over DDS: is it alive, and are its targets kept or found again?

A case is a schedule: what both cameras send, when, and with which stamp. A fault is a function that changes single
events of it, between a begin and an end. Schedules are played in real time; what the node says is compared with the
truth of the moment that its stamp means.
"""

from __future__ import annotations

import array
import math
import tempfile
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from common import JsonOption
from node_client import Client, NoAnswer, started
from numpy.typing import NDArray
from processes import PeerError, wait

from ckd_tracker_ros import boxes
from ckd_tracker_ros.evaluation.timing import Report
from ckd_tracker_ros.frame import MODALITIES
from ckd_tracker_ros.images import to_ns
from ckd_tracker_ros.pairing import RGB, THERMAL
from ckd_tracker_ros.ros.demo import Child, DemoError
from ckd_tracker_ros.ros.statistics import without_numbers
from ckd_tracker_ros.synthetic import Scene, SceneConfig
from ckd_tracker_ros.target import Status

BOTH = (RGB, THERMAL)
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
HOUR_S = 3600.0
SAID = 110
"""Characters of a cause in the table."""


@dataclass(frozen=True)
class Event:
    """An image on its way.

    Attributes:
        at: when it is sent, seconds since the begin of the case.
        stream: 0 RGB, 1 thermal.
        stamp: seconds since the begin of the case; None: unset.
        frame: of the scene, whose truth counts.
        shown: frame of the scene whose picture is sent.
        change: made to the message, one of `CHANGES`; "" for none.
    """

    at: float
    stream: int
    stamp: float | None
    frame: int
    shown: int
    change: str = ""


@dataclass(frozen=True)
class Span:
    """From when to when there is a fault, seconds since the begin of the case, and the last frame before it."""

    begin: float
    end: float
    frame: int = 0


def schedule(frames: Sequence[int], rate: float) -> list[Event]:
    """Both cameras as they should be: pairs of these frames, at this rate [Hz]."""
    return [Event(k / rate, stream, k / rate, i, i) for k, i in enumerate(frames) for stream in BOTH]


Change = Callable[[Event, Span, np.random.Generator], "Event | None"]
"""What becomes of one event inside the span; None: it is not sent."""


def kept(event: Event, span: Span, rng: np.random.Generator) -> Event:
    """As it should be."""
    return event


def stopped(event: Event, span: Span, rng: np.random.Generator) -> None:
    """Not sent."""
    return


def frozen(event: Event, span: Span, rng: np.random.Generator) -> Event:
    """The last picture of before, with stamps that go on."""
    return replace(event, shown=span.frame)


def altered(event: Event, span: Span, rng: np.random.Generator, change: str) -> Event:
    """Another message, see `CHANGES`."""
    return replace(event, change=change)


def thinned(event: Event, span: Span, rng: np.random.Generator, of: int) -> Event | None:
    """One of so many."""
    return None if event.frame % of else event


def jittered(event: Event, span: Span, rng: np.random.Generator, seconds: float) -> Event:
    """A stamp that is wrong by up to so much."""
    return replace(event, stamp=event.stamp + rng.uniform(-seconds, seconds))


def lost(event: Event, span: Span, rng: np.random.Generator, share: float) -> Event | None:
    """This share is not sent."""
    return None if rng.random() < share else event


def held_back(event: Event, span: Span, rng: np.random.Generator) -> Event:
    """Sent at the end of the fault, with all others."""
    return replace(event, at=span.end)


def shifted(event: Event, span: Span, rng: np.random.Generator, seconds: float) -> Event:
    """A clock that was set."""
    return replace(event, stamp=event.stamp + seconds)


def begun_again(event: Event, span: Span, rng: np.random.Generator, pictures: bool) -> Event:
    """A looped recording: stamps are those of the begin, pictures too if asked for."""
    again = replace(event, stamp=event.stamp - span.begin)
    first = span.frame + 1
    return replace(again, frame=event.frame - first, shown=event.shown - first) if pictures else again


def unstamped(event: Event, span: Span, rng: np.random.Generator) -> Event:
    """The stamp is not set."""
    return replace(event, stamp=None)


def broken(event: Event, span: Span, rng: np.random.Generator, share: float) -> Event:
    """This share has data that are too short, or an encoding that there is not."""
    return replace(event, change=str(rng.choice(["short", "encoding"]))) if rng.random() < share else event


@dataclass(frozen=True)
class Fault:
    """A row of the table.

    Attributes:
        name, strength: of the fault, in words.
        change: of its events.
        streams: that have it.
        seconds: how long; 0: from its begin to the end of the case, and what counts is how soon after its begin the
            target is followed again.
        parameters: that the node needs for it.
        hidden: whether the scene hides the targets meanwhile.
    """

    name: str
    strength: str
    change: Change = kept
    streams: tuple[int, ...] = BOTH
    seconds: float = 2.0
    parameters: Mapping[str, Any] = field(default_factory=dict)
    hidden: bool = False

    def apply(self, events: Iterable[Event], span: Span, rng: np.random.Generator) -> list[Event]:
        """The schedule with the fault in it, in the order of sending."""
        end = span.end if self.seconds else math.inf
        made = [
            self.change(event, span, rng) if event.stream in self.streams and span.begin <= event.at < end else event
            for event in events
        ]
        return sorted((event for event in made if event is not None), key=lambda event: event.at)


_ONE_RGB, _ONE_THERMAL = (RGB,), (THERMAL,)
FAULTS = (
    Fault("none", "-", seconds=0.0),
    *(Fault("thermal stops", f"{s:g} s", stopped, _ONE_THERMAL, s) for s in (1.0, 3.0)),
    *(Fault("RGB stops", f"{s:g} s", stopped, _ONE_RGB, s) for s in (1.0, 3.0)),
    *(Fault("both stop", f"{s:g} s", stopped, BOTH, s) for s in (1.0, 3.0)),
    *(Fault("thermal frozen", f"{s:g} s", frozen, _ONE_THERMAL, s) for s in (1.0, 3.0)),
    *(Fault("RGB frozen", f"{s:g} s", frozen, _ONE_RGB, s) for s in (1.0, 3.0)),
    Fault("RGB black", "3 s", partial(altered, change="black"), _ONE_RGB, 3.0),
    Fault("RGB saturated", "3 s", partial(altered, change="white"), _ONE_RGB, 3.0),
    Fault("thermal black", "3 s", partial(altered, change="black"), _ONE_THERMAL, 3.0),
    Fault("thermal saturated", "3 s", partial(altered, change="white"), _ONE_THERMAL, 3.0),
    Fault("thermal at a third of the rate", "3 s", partial(thinned, of=3), _ONE_THERMAL, 3.0),
    *(Fault("stamps jitter", f"±{ms} ms", partial(jittered, seconds=ms / 1e3), BOTH, 3.0) for ms in (5, 15, 40)),
    *(Fault("images lost", f"{p} %", partial(lost, share=p / 100), BOTH, 3.0) for p in (10, 30)),
    *(Fault("held back, then at once", f"{s:g} s", held_back, BOTH, s) for s in (1.0, 2.0)),
    *(Fault("both clocks set", f"{h:+d} h", partial(shifted, seconds=h * HOUR_S), BOTH, 0.0) for h in (1, -1)),
    *(Fault("both clocks off", f"{h:+d} h, 3 s", partial(shifted, seconds=h * HOUR_S), BOTH, 3.0) for h in (1, -1)),
    *(Fault("RGB clock off", f"{h:+d} h, 3 s", partial(shifted, seconds=h * HOUR_S), _ONE_RGB, 3.0) for h in (1, -1)),
    *(
        Fault("thermal clock off", f"{h:+d} h, 3 s", partial(shifted, seconds=h * HOUR_S), _ONE_THERMAL, 3.0)
        for h in (1, -1)
    ),
    Fault("looped recording", "stamps alone", partial(begun_again, pictures=False), BOTH, 0.0),
    Fault("looped recording", "pictures too", partial(begun_again, pictures=True), BOTH, 0.0),
    Fault("stamps unset", "thermal, 3 s", unstamped, _ONE_THERMAL, 3.0),
    Fault("stamps unset", "both, 2 s", unstamped, BOTH, 2.0),
    *(Fault("broken messages", f"{p} %", partial(broken, share=p / 100), BOTH, 3.0) for p in (20, 50)),
    Fault("RGB of half the size", "2 s", partial(altered, change="half"), _ONE_RGB, 2.0),
    Fault("thermal of half the size", "2 s", partial(altered, change="half"), _ONE_THERMAL, 2.0),
    Fault("target hidden", "1 s", seconds=1.0, hidden=True),
    # Last: it needs a node of its own.
    Fault(
        "thermal at a third of the rate", "3 s, sync.reuse", partial(thinned, of=3), _ONE_THERMAL, 3.0,
        {"sync.reuse": True, "sync.slop": 0.25},
    ),
)  # fmt: skip


def _filled(message: Any, value: int) -> dict[str, Any]:
    return {"data": array.array("B", bytes([value]) * len(message.data))}


def _half(message: Any) -> dict[str, Any]:
    pixels = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, -1)[::2, ::2]
    height, width = pixels.shape[:2]
    return {
        "height": height, "width": width, "step": pixels[0].nbytes, "data": array.array("B", pixels.tobytes()),
    }  # fmt: skip


CHANGES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "black": lambda message: _filled(message, 0),
    "white": lambda message: _filled(message, 255),
    "short": lambda message: {"data": message.data[: len(message.data) // 2]},
    "encoding": lambda message: {"encoding": "rgb9"},
    "half": _half,
}
"""Name -> the fields of an 8-bit image message that are others."""


def changed(message: Any, change: str) -> Any:
    """A message like this one, with a change of `CHANGES`."""
    names = ("header", "height", "width", "encoding", "is_bigendian", "step", "data")
    fields = {name: getattr(message, name) for name in names}
    return type(message)(**fields | CHANGES[change](message))


@lru_cache(2)
def pictures(config: SceneConfig, seed: int) -> tuple[Scene, list[list[Any]]]:
    """A scene, and per frame the messages of both cameras."""
    from ckd_tracker_ros.ros.player import image_message

    scene = Scene(config, seed)
    messages = [[image_message(image) for image in scene.frame(i).images] for i in range(len(scene))]
    for pair in messages:
        for name, message in zip(MODALITIES, pair, strict=True):
            message.header.frame_id = f"{name}_camera"
    return scene, messages


@dataclass(frozen=True)
class Sent:
    """An event that was sent: when, by `time.perf_counter`, and with which stamp."""

    at: float
    stamp_ns: int
    event: Event


def play(cameras: Sequence[Any], messages: Sequence[Sequence[Any]], events: Sequence[Event]) -> list[Sent]:
    """Sends a schedule in real time, with stamps that begin now."""
    from rclpy.time import Time

    began, first_ns, sent = time.perf_counter(), time.time_ns(), []
    for event in events:
        time.sleep(max(0.0, began + event.at - time.perf_counter()))
        message = messages[event.shown][event.stream]
        if event.change:
            message = changed(message, event.change)
        stamp_ns = 0 if event.stamp is None else first_ns + round(event.stamp * 1e9)
        message.header.stamp = Time(nanoseconds=stamp_ns).to_msg()
        sent.append(Sent(time.perf_counter(), stamp_ns, event))
        cameras[event.stream].publish(message)
    return sent


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
