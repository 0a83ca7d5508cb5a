"""The demo's client: starts a target at its true box, and compares what the node says of it with the truth.

It knows which frame a message is about by its stamp (see `player`), so that nothing depends on when it arrives.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from numpy.typing import NDArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from rclpy.time import Time
from std_srvs.srv import Trigger

from ckd_tracker_msgs.msg import Box2D, TargetInit, TrackedTarget, TrackedTargetArray
from ckd_tracker_msgs.srv import ReinitializeTargets
from ckd_tracker_ros import boxes
from ckd_tracker_ros.frame import MODALITIES
from ckd_tracker_ros.ros.player import LATCHED
from ckd_tracker_ros.sequences import Sequence, true_box

NODE = "ckd_tracker"
TARGET = "target"
START_LIMIT_S = 180.0
"""How long the node may take to load its model."""
SILENCE_LIMIT_S = 30.0
"""How long nothing may come from a running node."""
REST_LIMIT_S = 5.0
"""How long results may be outstanding after the last pair was sent."""
STATES = {getattr(TrackedTarget, name): name for name in ("TRACKING", "UNCERTAIN", "LOST", "REMOVED")}


class ClientError(RuntimeError):
    """The demo cannot go on; the message says why."""


@dataclass(frozen=True, eq=False)
class Result:
    """What the node says about one pair, beside the truth.

    Attributes:
        number: of the pair, from 0.
        frame: of the sequence.
        time_s: of the pair, since the first one.
        box: (4,) xywh in RGB pixels; NaN while there is no target.
        truth: (4,) xywh in RGB pixels; NaN where the target is not in the image, or its box not known.
        iou: of the two; NaN where one of them is.
        confidence: 0..1; NaN while there is no target.
        state: TRACKING and so on; "" while there is no target.
        latency_s: from the stamp to the publishing of this result.
        processing_s: from taking the pair to publishing.
        skipped: pairs before this one that were replaced by a newer one.
    """

    number: int
    frame: int
    time_s: float
    box: NDArray[np.float64]
    truth: NDArray[np.float64]
    iou: float
    confidence: float
    state: str
    latency_s: float
    processing_s: float
    skipped: int


@dataclass(frozen=True)
class Run:
    """All that came of playing.

    Attributes:
        results: in the order of their arrival.
        sent: pairs that the player has published.
        late: those of them that left more than a period after their time.
        slower: how much longer playing took than it should have, as a factor.
        received: pairs that the node has made of them.
        dropped: received pairs that were not processed, by reason.
        unpaired: images without a partner, by reason.
        rate: pairs per second.
        first_frame: of the sequence, in pair 0.
    """

    results: list[Result]
    sent: int
    late: int
    slower: float
    received: int
    dropped: dict[str, int]
    unpaired: dict[str, int]
    rate: float
    first_frame: int


@dataclass(eq=False)
class _Playing:
    """What the player has told about itself."""

    values: dict[str, int] = field(default_factory=dict)
    finished: bool = False


class Client:
    """Drives one run. Everything happens in the thread that calls `run`.

    Args:
        sequence: what the player plays, for its boxes.
        check: called often; raises when one of the other processes has ended.
        show: called with each result.
    """

    def __init__(self, sequence: Sequence, check: Callable[[], None], show: Callable[[Result], None]) -> None:
        self._sequence, self._check, self._show = sequence, check, show
        self._context = rclpy.Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = node = rclpy.create_node("demo_client", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(node)
        self._reinitialize = node.create_client(ReinitializeTargets, f"{NODE}/reinitialize")
        self._start_player = node.create_client(Trigger, "player/start")
        node.create_subscription(TrackedTargetArray, f"{NODE}/targets", self._on_targets, 1000)
        node.create_subscription(DiagnosticStatus, "player/state", self._on_player, LATCHED)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self._player = _Playing()
        self._messages: list[TrackedTargetArray] = []
        self._handled = 0
        self._last_heard = time.monotonic()
        self._diagnostics: dict[str, str] = {}
        self._diagnosed = 0.0
        self._failure = ""
        self._request: Future | None = None
        self._results: list[Result] = []

    def run(self) -> Run:
        """Waits for the node, lets the player play, and listens to the end.

        Raises:
            ClientError: the node reports an error, refuses the target, or says nothing.
        """
        self._until(self._ready, START_LIMIT_S, "the tracker node did not become active")
        started = self._start_player.call_async(Trigger.Request())
        self._until(started.done, SILENCE_LIMIT_S, "the player did not start")
        self._last_heard = time.monotonic()
        while not self._complete():
            self._spin()
            self._handle_messages()
            if time.monotonic() - self._last_heard > SILENCE_LIMIT_S:
                raise ClientError(f"the tracker node has published no result for {SILENCE_LIMIT_S:g} s")
        heard = time.monotonic()  # the last pairs may have been dropped: only diagnostics tell
        self._until(lambda: self._diagnosed > heard, SILENCE_LIMIT_S, "the tracker node's diagnostics did not come")
        return self._outcome()

    def close(self) -> None:
        """Leaves the graph."""
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()

    def _spin(self) -> None:
        self._executor.spin_once(timeout_sec=0.05)
        self._check()
        if self._failure:
            raise ClientError(f"the tracker node reports: {self._failure}")

    def _until(self, condition: Callable[[], bool], limit_s: float, otherwise: str) -> None:
        end = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > end:
                raise ClientError(f"{otherwise} within {limit_s:g} s")
            self._spin()

    def _ready(self) -> bool:
        return (
            self._start_player.service_is_ready()
            and self._reinitialize.service_is_ready()
            and self._node.count_publishers(f"{NODE}/targets") > 0
            and self._diagnostics.get("state") == "active"
            and all(self._node.count_publishers(f"{name}/image_raw") for name in MODALITIES)
        )

    def _on_targets(self, message: TrackedTargetArray) -> None:
        self._messages.append(message)
        self._last_heard = time.monotonic()

    def _on_player(self, message: DiagnosticStatus) -> None:
        self._player.values = {pair.key: int(pair.value) for pair in message.values}
        self._player.finished = message.message == "finished"
        self._last_heard = time.monotonic()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.endswith(f"{NODE}: tracker"):
                self._diagnostics = {pair.key: pair.value for pair in status.values}
                self._diagnosed = time.monotonic()
                if status.level == DiagnosticStatus.ERROR:
                    self._failure = status.message

    def _handle_messages(self) -> None:
        if not self._player.values:  # the stamp of the first pair is on its way
            return
        while self._handled < len(self._messages):
            message = self._messages[self._handled]
            self._handled += 1
            result = self._result(message)
            self._results.append(result)
            if self._request is None and np.isfinite(result.truth).all():
                self._request = self._start_target(message, result.truth)
            self._show(result)
        if self._request is not None and self._request.done() and not self._request.result().success:
            raise ClientError(f"the tracker node refused the target: {self._request.result().message}")

    def _start_target(self, message: TrackedTargetArray, box: NDArray[np.float64]) -> Future:
        """Asks for the target on the very image that the message is about, however late the request arrives."""
        x, y, width, height = map(float, box)
        init = TargetInit(id=TARGET, label="demo", box=Box2D(x=x, y=y, width=width, height=height))
        request = ReinitializeTargets.Request(stamp=message.header.stamp, targets=[init], replace_all=True)
        return self._reinitialize.call_async(request)

    def _result(self, message: TrackedTargetArray) -> Result:
        values = self._player.values
        stamp_ns = Time.from_msg(message.header.stamp).nanoseconds
        number = round((stamp_ns - values["first_stamp_ns"]) / values["period_ns"])
        frame = (values["first_frame"] + number) % len(self._sequence)
        truth = true_box(self._sequence, frame)
        target = next((t for t in message.targets if t.id == TARGET), None)
        box = np.full(4, math.nan)
        if target is not None:
            box = np.array([target.box.x, target.box.y, target.box.width, target.box.height], np.float64)
        known = np.isfinite(box).all() and np.isfinite(truth).all()
        return Result(
            number,
            frame,
            number * values["period_ns"] / 1e9,
            box,
            truth,
            float(boxes.iou(box, truth)) if known else math.nan,
            math.nan if target is None else target.confidence,
            "" if target is None else STATES[target.state],
            message.latency,
            message.processing_time,
            message.skipped_pairs,
        )

    def _complete(self) -> bool:
        """Whether the last pair's result is here, or can no longer be expected."""
        if not self._player.finished or self._handled < len(self._messages):
            return False
        last = self._player.values["sent"] - 1
        all_here = bool(self._results) and self._results[-1].number >= last
        return all_here or time.monotonic() - self._last_heard > REST_LIMIT_S

    def _outcome(self) -> Run:
        def counted(what: str) -> dict[str, int]:
            prefix = f"{what} dropped, "
            found = self._diagnostics.items()
            return {key.removeprefix(prefix): int(value) for key, value in found if key.startswith(prefix)}

        dropped = counted("pairs")
        values = self._player.values
        return Run(
            self._results,
            values["sent"],
            values["late"],
            values["played_ns"] / (values["sent"] * values["period_ns"]),
            len(self._messages) + sum(dropped.values()),
            dropped,
            counted("images"),
            1e9 / values["period_ns"],
            values["first_frame"],
        )
