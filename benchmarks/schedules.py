"""What two cameras send, and when: schedules, the faults that change them, and their playing in real time.

A schedule is a list of events, an image each. A fault is a function that changes single events of it, between a begin
and an end.
"""

from __future__ import annotations

import array
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from ckd_tracker_ros.frame import MODALITIES
from ckd_tracker_ros.pairing import RGB, THERMAL
from ckd_tracker_ros.synthetic import Scene, SceneConfig

BOTH = (RGB, THERMAL)
HOUR_S = 3600.0


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
    Fault("RGB dark", "3 s", partial(altered, change="dark"), _ONE_RGB, 3.0),
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
    Fault("target hidden and RGB dark", "1 s", partial(altered, change="dark"), _ONE_RGB, 1.0, hidden=True),
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
    "dark": lambda message: {"data": array.array("B", (np.frombuffer(message.data, np.uint8) // 20).tobytes())},
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
