"""The demo: a player, the tracker node and a client as three processes over DDS, and what came of it.

The client runs in the process that calls `run`; the two others are started and always ended here.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table

from ckd_tracker_ros.share import share_folders

if TYPE_CHECKING:
    from ckd_tracker_ros.ros.demo_client import Result

PACKAGE = "ckd_tracker_ros"
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
USER_VARIABLES = (*PROFILE_VARIABLES, "FASTDDS_BUILTIN_TRANSPORTS")
"""Whoever set one of these has decided how Fast DDS sends."""
LARGEST_DOMAIN_ID = 101
"""Above it the ports collide with those that the system hands out."""
END_LIMIT_S = 10.0
LOG_LINES = 15


class DemoError(RuntimeError):
    """The demo failed; the message says why."""


class OptionError(ValueError):
    """An option has a value that makes no demo; the message names it and what is allowed."""


@dataclass(frozen=True)
class Options:
    """What the demo shows.

    Attributes:
        out: folder for everything that it writes.
        data: a folder or video that `sequences.open_sequence` reads; "" for a generated scene.
        track: of the data; "" for its first.
        model, device: see the node's parameters.
        seconds: length; recordings may be shorter.
        rate: pairs per second; 0 as recorded, 30 for the scene.
        seed: of the scene.
        skip: pairs in a row that the node may skip: for a slower one the player waits, and plays slower; 0: none, each
            pair is sent after the result of the one before; -1: any number.
    """

    out: Path
    data: str = ""
    track: str = ""
    model: str = "ckd_tiny"
    device: str = "auto"
    seconds: float = 15.0
    rate: float = 0.0
    seed: int = 0
    skip: int = 4


class Child:
    """A process of the demo with a log of its own; ends with the `with` block."""

    def __init__(self, title: str, module: str, parameters: dict[str, object], log: Path) -> None:
        # JSON is YAML: a quoted text stays a text, whatever it looks like.
        arguments = [word for name, value in parameters.items() for word in ("-p", f"{name}:={json.dumps(value)}")]
        self.title, self.log = title, log
        self._file = log.open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{PACKAGE}.ros.{module}", "--ros-args", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "RCUTILS_LOGGING_BUFFERED_STREAM": "0"},
            # Ctrl-C reaches this process alone, which ends the others in order.
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def check(self, *, may_end: bool) -> None:
        """Raises DemoError when it has ended: at all, or, if it may end, with an error."""
        code = self._process.poll()
        if code is not None and (code or not may_end):
            raise self.failed(f"the {self.title} ended with exit code {code}")

    def failed(self, reason: str) -> DemoError:
        """An error with the last lines of this process's log."""
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return DemoError("\n".join([reason, f"--- end of {self.log} ---", *lines]))

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGINT)
                self._process.wait(END_LIMIT_S)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self._process.kill()
            self._process.wait()
        finally:
            self._file.close()


def set_environment() -> None:
    """Sets how this process and its children find each other and send images, as far as the user has not.

    A domain of their own and no traffic beyond this machine; shared memory that is large enough for images.

    Raises:
        DemoError: the Fast DDS profile is not installed.
    """
    os.environ.setdefault("ROS_DOMAIN_ID", str(random.SystemRandom().randint(1, LARGEST_DOMAIN_ID)))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    if not any(os.environ.get(name) for name in USER_VARIABLES):
        candidates = [folder / "config" / "fastdds.xml" for folder in share_folders()]
        profile = next((path for path in candidates if path.is_file()), None)
        if profile is None:
            raise DemoError(f"no Fast DDS profile; looked for {', '.join(map(str, candidates))}")
        os.environ.update(dict.fromkeys(PROFILE_VARIABLES, str(profile)))


class Interrupts:
    """Inside the `with` block Ctrl-C, SIGTERM and the end of the terminal all raise KeyboardInterrupt."""

    _NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self._holding = self._came = False

    def __enter__(self) -> Interrupts:
        self._before = [signal.signal(number, self._stop) for number in self._NUMBERS]
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in zip(self._NUMBERS, self._before, strict=True):
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._came = True
        if not self._holding:
            raise KeyboardInterrupt

    @contextmanager
    def held(self) -> Iterator[None]:
        """A signal waits for the end of this block: a process that starts in it cannot be forgotten half-way."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._came:
            raise KeyboardInterrupt


def run(options: Options, console: Console) -> None:
    """Plays, tracks, compares, and writes results.csv, plot.png, overlay.mp4, still.png and the logs.

    Raises:
        DemoError: no results; the message says why, with the end of the node's log.
        OptionError: an option that makes no demo.
        SequenceError: the data cannot be read.
        ValueError: a scene that cannot be generated.
    """
    began = time.monotonic()
    set_environment()
    # Only now: DDS reads the environment once.
    from ckd_tracker_ros.ros import demo_client, demo_report
    from ckd_tracker_ros.ros.player import DEPTH, RATE_HZ, RESULT_LIMIT_S, open_source

    if not (0 < options.seconds < math.inf and 0 <= options.rate < math.inf):
        raise OptionError(
            f"seconds {options.seconds:g}, rate {options.rate:g}; allowed: finite, seconds above 0, rate 0 or more"
        )
    if options.skip < -1:
        raise OptionError(f"skip {options.skip}; allowed: 0 or more, or -1 for any number")
    rate = options.rate or RATE_HZ
    source = str(Path(options.data).resolve()) if options.data else ""
    sequence = open_source(source, options.track, max(2, round(options.seconds * rate)), rate, options.seed)
    rate = options.rate or sequence.rate
    if sequence.boxes is None:
        raise OptionError(f"{sequence.name} has no true boxes: nothing to follow, nothing to compare with")
    if not all(sequence.frame(sequence.first_frame).present):
        raise OptionError(f"{sequence.name} is of one camera; the demo needs RGB and thermal")
    frames = min(max(2, round(options.seconds * rate)), len(sequence.boxes))
    options.out.mkdir(parents=True, exist_ok=True)

    playing = {
        "source": source, "track": options.track, "rate": float(rate), "frames": frames,
        "first_frame": sequence.first_frame, "seed": options.seed, "skip": options.skip, "autostart": False,
    }  # fmt: skip
    tracking = {
        "model": options.model, "device": options.device, "diagnostics.period": 0.5, "qos.depth": DEPTH,
    }  # fmt: skip
    if options.skip >= 0:  # the player waits for a result: no pair may grow too old for one
        tracking["sync.max_age"] = RESULT_LIMIT_S
    ticker = Ticker(console, rate)
    console.print(f"{sequence.name}: starting the player and the tracker node ({options.model})")
    with Interrupts() as interrupts, ExitStack() as children:
        with interrupts.held():
            node = children.enter_context(Child("tracker node", "node", tracking, options.out / "node.log"))
            player = children.enter_context(Child("player", "player", playing, options.out / "player.log"))

        def check() -> None:
            node.check(may_end=False)
            player.check(may_end=True)

        client = demo_client.Client(sequence, check, ticker.show)
        try:
            with ticker:
                outcome = client.run()
        except demo_client.ClientError as error:
            raise node.failed(str(error)) from error
        finally:
            client.close()
    if not any(result.state for result in outcome.results):
        raise DemoError(f"no pair with the target in it was processed; see {options.out / 'node.log'}")
    demo_report.write(options.out, sequence, outcome, console)
    console.print(demo_report.summary(outcome, ticker.first_s - began))
    console.print(f"{options.out}: overlay.mp4 plot.png still.png results.csv node.log player.log", soft_wrap=True)


class Ticker:
    """Shows results as they come: a table that is redrawn on a terminal, else a line a second."""

    def __init__(self, console: Console, rate: float) -> None:
        self.first_s = 0.0
        self._console = console
        self._next_s = 0.0
        waiting = Spinner("dots", "the node loads its model")
        self._live = Live(waiting, console=console, refresh_per_second=8) if console.is_terminal else None

    def __enter__(self) -> Ticker:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, result: Result) -> None:
        """Takes one result; most are not drawn, which would cost more than tracking."""
        self.first_s = self.first_s or time.monotonic()
        if result.time_s < self._next_s or not result.state:
            return
        self._next_s = result.time_s + (0.1 if self._live is not None else 1.0)
        x, y, width, height = result.box
        values = {
            "time (s)": f"{result.time_s:.1f}",
            "pair": str(result.number),
            "box (px)": f"{x:.0f} {y:.0f} {width:.0f} {height:.0f}",
            "IoU": f"{result.iou:.2f}",
            "confidence": f"{result.confidence:.2f}",
            "state": result.state,
            "processing (ms)": f"{1e3 * result.processing_s:.0f}",
        }
        if self._live is None:
            self._console.print("  ".join(f"{name} {value}" for name, value in values.items()), soft_wrap=True)
            return
        table = Table(*values)
        table.add_row(*values.values())
        self._live.update(table)
