"""Faults and requests of all kinds for a long time: does the node leak memory, threads or files, does it ever hang?

One fault after the other (`schedules.py`) is played faster than the node follows, each of random length with healthy
images around it, while a user starts and removes targets, pauses, sets parameters and deactivates at random moments.
"""

from __future__ import annotations

import subprocess
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from common import JsonOption
from faults import SIZE, Stage, inits
from node_client import Client, NoAnswer
from processes import resources
from rich.console import Console
from schedules import FAULTS, Fault, Span, pictures, play, schedule

from ckd_tracker_ros.evaluation.timing import Report, Spread
from ckd_tracker_ros.ros.demo import DemoError
from ckd_tracker_ros.ros.worker import REQUEST_LIMIT_S, STOP_LIMIT_S
from ckd_tracker_ros.synthetic import SceneConfig

LIMITS_S = {"reinitialize": REQUEST_LIMIT_S + 1, "change_state": STOP_LIMIT_S + 1}
"""Within which a service has to answer; those that are not named, within `LIMIT_S`."""
LIMIT_S = 5.0
SILENCE_S = 15.0
"""Longest time without a result: no fault, pause and change of state together last as long."""
FAULT_S, HEALTHY_S = (0.3, 3.0), (0.3, 1.0)
"""Shortest and longest fault, and time before and after it."""
REST_S = 0.4
"""Mean time between two requests."""
TARGETS = 4
SCENE_FRAMES = 240
WARM_UP, WARM_UP_S = 0.1, 180.0
"""Share of the time that does not count for slopes, at least so many seconds, at most half of it: the buffers for every
number of targets and of search crops come one after the other."""
GROWTH = 0.05
"""Of the memory after the warm-up: what may come on top of it until the end, by the slope."""
MORE = 2
"""Threads, and files, that the last fifth of the time may have more than the first after the warm-up."""
TELL_S = 30.0
HELD = ("memory [MB]", "threads", "files", "GPU memory [MB]")
FILMED = [fault for fault in FAULTS if not (fault.parameters or fault.hidden)]


class Endless(Sequence):
    """A film that is played forwards, backwards, forwards and so on: the pictures of any moment from 0 on."""

    def __init__(self, film: Sequence[Any]) -> None:
        self._film = film

    def __len__(self) -> int:
        return 2 * len(self._film) - 2

    def frame(self, number: int) -> int:
        """Of the film, at that moment."""
        place = number % len(self)
        return min(place, len(self) - place)

    def __getitem__(self, number: int) -> Any:
        return self._film[self.frame(number)]


@dataclass
class Answers:
    """Of one service: seconds of each answer, how many refused, how many never came."""

    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    missing: int = 0


class User(threading.Thread):
    """Sends requests at random moments until it is stopped, and notes how soon they are answered.

    Every action leaves the node as it should be: active, not paused.
    """

    def __init__(self, client: Client, truths: Callable[[], Sequence[Any]], rng: np.random.Generator) -> None:
        """`truths` gives the boxes of this moment."""
        super().__init__(name="user", daemon=True)
        self.answers: dict[str, Answers] = defaultdict(Answers)
        self.stopping = threading.Event()
        self._client, self._truths, self._rng = client, truths, rng
        self._actions = {
            self._start: 6, self._remove: 2, self._reset: 1, self._pause: 2, self._state: 2, self._set: 3,
            self._deactivate: 1,
        }  # fmt: skip

    def run(self) -> None:
        actions, weights = list(self._actions), np.array([*self._actions.values()], float)
        while not self.stopping.wait(self._rng.exponential(REST_S)):
            actions[self._rng.choice(len(actions), p=weights / weights.sum())]()

    def ask(self, name: str, **fields: Any) -> bool:
        """Whether it was done."""
        answers = self.answers[name]
        try:
            response, seconds = self._client.call(name, LIMITS_S.get(name, LIMIT_S), **fields)
        except NoAnswer:
            answers.missing += 1
            return False
        answers.seconds.append(seconds)
        results = getattr(response, "results", None)
        done = all(one.successful for one in results) if results else getattr(response, "success", True)
        answers.refused += not done
        return done

    def _start(self) -> None:
        truths = self._truths()[: self._rng.integers(1, TARGETS + 1)]
        self.ask("reinitialize", targets=inits(truths), replace_all=bool(self._rng.integers(2)))

    def _remove(self) -> None:
        self.ask("remove_targets", ids=[str(self._rng.integers(TARGETS))])

    def _reset(self) -> None:
        self.ask("reset")

    def _state(self) -> None:
        self.ask("get_state")

    def _pause(self) -> None:
        self.ask("pause", data=True)
        self.stopping.wait(self._rng.exponential(REST_S))
        self.ask("pause", data=False)

    def _set(self) -> None:
        from rclpy.parameter import Parameter

        choices = {
            "sync.reuse": bool(self._rng.integers(2)),
            "sync.thermal_delay": self._rng.uniform(-0.01, 0.01),
            "modality.timeout": self._rng.uniform(0.2, 0.6),
            "modality.on_missing": str(self._rng.choice(["degrade", "wait"])),
            "thermal.smoothing": self._rng.uniform(0.5, 0.95),
            "lost.crops": int(self._rng.integers(1, 9)),
            "lost.give_up": self._rng.uniform(1, 30),
        }
        name = str(self._rng.choice(list(choices)))
        self.ask("set_parameters", parameters=[Parameter(name, value=choices[name]).to_parameter_msg()])

    def _deactivate(self) -> None:
        from lifecycle_msgs.msg import Transition

        self.ask("change_state", transition=Transition(id=Transition.TRANSITION_DEACTIVATE))
        self.stopping.wait(self._rng.exponential(REST_S))
        self.ask("change_state", transition=Transition(id=Transition.TRANSITION_ACTIVATE))


def segment(fault: Fault, first: int, rate: float, rng: np.random.Generator) -> tuple[list[Any], int]:
    """The schedule of a fault with healthy images before and after it, from that frame on; the frame after it."""
    before, after, length = rng.uniform(*HEALTHY_S), rng.uniform(*HEALTHY_S), rng.uniform(*FAULT_S)
    last = first + round((before + length + after) * rate)
    span = Span(before, before + length, first + round(before * rate))
    return fault.apply(schedule(range(first, last), rate), span, rng), last


def graphics_memory() -> float:
    """MB in use on the first GPU, by whomever."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def warm_up(seconds: float) -> float:
    """The part of a soak of that length that does not count."""
    return max(WARM_UP * seconds, min(WARM_UP_S, seconds / 2))


def course(samples: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    """A row for each tenth of the time: medians of `HELD`."""
    values = np.array(samples, float)
    tenths = np.minimum(10 * values[:, 0] // values[-1, 0], 9)
    return [
        {
            "until [min]": float(part[-1, 0] / 60),
            **{name: float(np.median(column)) for name, column in zip(HELD, part.T[1:])},
        }
        for part in (values[tenths == tenth] for tenth in range(10))
        if len(part)
    ]


def trends(samples: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    """A row for each of `HELD`, from (N, 1 + n) samples: seconds, and n of them."""
    values = np.array(samples, float)
    values = values[values[:, 0] >= warm_up(values[-1, 0])]
    fifth = max(1, len(values) // 5)
    rows = []
    for name, column in zip(HELD, values.T[1:]):
        slope = np.polyfit(values[:, 0], column, 1)[0] if len(values) > 1 else 0.0
        first, last = np.median(column[:fifth]), np.median(column[-fifth:])
        rows.append({
            "what": name, "first fifth": float(first), "last fifth": float(last), "most": float(column.max()),
            "slope [1/h]": float(3600 * slope),
        })  # fmt: skip
    return rows


def leaks(rows: Sequence[dict[str, Any]], seconds: float) -> list[str]:
    """What of `trends` has grown over that time by more than it may."""
    grown = []
    for each in rows:
        if each["what"].endswith("[MB]"):
            more = each["slope [1/h]"] * (seconds - warm_up(seconds)) / 3600 > GROWTH * each["first fifth"]
        else:
            more = each["last fifth"] > each["first fifth"] + MORE
        grown += [each["what"]] * more
    return grown


def served(answers: dict[str, Answers]) -> list[dict[str, Any]]:
    """A row for each service."""
    return [
        {
            "service": name,
            "requests": len(each.seconds) + each.missing,
            "refused": each.refused,
            "answer [ms]": Spread.of([1e3 * seconds for seconds in each.seconds]),
            "slowest [s]": max(each.seconds, default=float("nan")),
            "limit [s]": LIMITS_S.get(name, LIMIT_S),
            "unanswered": each.missing,
        }
        for name, each in sorted(answers.items())
    ]


class Soak:
    """What happens, and what has happened so far.

    Args:
        stage: with an active node.
        seed: of the scene, the faults and the requests.
        rate: pairs per second.
        gpu: whether to look at its memory.
    """

    def __init__(self, stage: Stage, seed: int, rate: float, gpu: bool) -> None:
        film = SceneConfig(*SIZE, frames=SCENE_FRAMES, fps=30.0, targets=TARGETS, size=(40.0, 75.0), clutter=12)
        self._scene, messages = pictures(film, seed)
        self._film, self._moment = Endless(messages), 0
        self._rng, own = (np.random.default_rng([seed, number]) for number in range(2))
        self._stage, self._rate, self._gpu = stage, rate, gpu
        self._user = User(stage.client, lambda: self._scene.boxes(self._film.frame(self._moment)), own)
        self._began = self._heard = time.perf_counter()
        self._samples: list[tuple[float, ...]] = []
        self._faults = self._images = self._results = 0
        self._silence = 0.0
        self._ended = ""

    def run(self, seconds: float, tell: Callable[[], None]) -> None:
        """Faults and requests for that time, or until the node ends; calls `tell` from time to time."""
        self._stage.start(self._film, self._scene.boxes(0))
        self._began = self._heard = time.perf_counter()
        self._user.start()
        told = 0.0
        try:
            self._look()
            while self._seconds < seconds:
                fault = FILMED[self._rng.integers(len(FILMED))]
                events, self._moment = segment(fault, self._moment, self._rate, self._rng)
                self._images += len(play(self._stage.cameras, self._film, events))
                self._faults += 1
                self._look()
                if self._seconds > told + TELL_S:
                    told = self._seconds
                    tell()
        except DemoError as error:
            self._ended = str(error).splitlines()[0]
        finally:
            self._user.stopping.set()
            self._user.join(2 * max(LIMITS_S.values()))

    @property
    def _seconds(self) -> float:
        return time.perf_counter() - self._began

    def _look(self) -> None:
        """Takes the results that have come, and a sample of what the node holds.

        Raises:
            DemoError: it has ended.
        """
        client = self._stage.client
        heard, client.messages = client.messages, []  # an hour of them would fill the memory of this process
        client.diagnostics.clear()
        moments = [self._heard, *(moment for moment, _ in heard)]
        silences = [self._silence, time.perf_counter() - moments[-1], *np.diff(moments)]
        self._silence = float(max(silences))
        self._heard, self._results = moments[-1], self._results + len(heard)
        self._stage.node.check(may_end=False)
        threads, files, memory = resources(self._stage.node.pid)
        self._samples.append((self._seconds, memory, threads, files, *([graphics_memory()] if self._gpu else [])))

    def fill(self, report: Report) -> bool:
        """Puts the tables into a report; whether all is well."""
        grown, services = trends(self._samples), served(dict(self._user.answers))
        wrong = [f"grown: {what}" for what in leaks(grown, self._samples[-1][0])]
        wrong += [f"unanswered: {each['service']}" for each in services if each["unanswered"]]
        wrong += [f"no result for {self._silence:.0f} s"] * (self._silence > SILENCE_S)
        wrong += [self._ended] * bool(self._ended)
        overview = {
            "minutes": self._seconds / 60, "faults": self._faults, "images": self._images, "results": self._results,
            "longest silence [s]": self._silence, "errors": self._stage.errors(), "alive": self._stage.alive,
            "verdict": "; ".join(wrong) or "ok",
        }  # fmt: skip
        report.add("Soak", "nothing", [overview], "Silence: without a result, also in faults and pauses.")
        note = (
            f"Medians of a fifth of the time after a warm-up of {warm_up(self._samples[-1][0]) / 60:.1f} min; "
            f"{len(self._samples)} samples."
        )
        report.add("What the node holds", "the first fifth", grown, note)
        report.add("By tenths of the time", "the first tenth", course(self._samples))
        if services:
            report.add("Services", "their limits", services)
        return not wrong


def main(
    minutes: Annotated[float, typer.Option(min=0.1, help="how long")] = 60.0,
    rate: Annotated[float, typer.Option(min=2, max=120, help="pairs per second; what is too much is skipped")] = 30.0,
    model: Annotated[str, typer.Option(help="model file, or the name of an installed one")] = "ckd_tiny",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N")] = "cpu",
    seed: Annotated[int, typer.Option(min=0, help="of the scene, the faults and the requests")] = 2000,
    json_file: JsonOption = None,
) -> None:
    """Plays faults and sends requests for so long; what is known so far is in the JSON file meanwhile."""
    report = Report("soak", {"model": model, "device": device, "rate [Hz]": rate, "minutes": minutes, "seed": seed})
    report.header()
    with tempfile.TemporaryDirectory() as name, Stage(Path(name), {"model": model, "device": device}) as stage:
        stage.set({})
        soak = Soak(stage, seed, rate, gpu=device.startswith("cuda"))

        def tell() -> None:
            partial = replace(report, tables=[], console=Console(quiet=True))
            soak.fill(partial)
            partial.write(json_file)

        with report.console.status("soaking"):
            soak.run(60 * minutes, tell)
        well = soak.fill(report)
    report.write(json_file)
    if not well:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
