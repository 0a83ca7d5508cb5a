"""Looks at the node from time to time: a warning when nothing arrives, and /diagnostics."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode

from ckd_tracker_ros import causes
from ckd_tracker_ros.frame import MODALITIES
from ckd_tracker_ros.ros import diagnostics
from ckd_tracker_ros.ros.inputs import Inputs
from ckd_tracker_ros.ros.ring import Ring
from ckd_tracker_ros.ros.roster import Roster
from ckd_tracker_ros.ros.statistics import Statistics, without_numbers
from ckd_tracker_ros.ros.worker import Worker

LOOK_PERIOD_S = 0.5


@dataclass(frozen=True, eq=False)
class Running:
    """What an active node has and others have not."""

    inputs: Inputs
    worker: Worker
    ring: Ring


@dataclass(eq=False)
class View:
    """What the monitor sees; the node keeps it up to date.

    Attributes:
        state: label of the lifecycle state.
        failure: why the node could not be configured or activated, "" if it could.
        model: what the tracker says about itself.
        running: None while not active.
    """

    statistics: Statistics
    roster: Roster
    state: str = "unconfigured"
    failure: str = ""
    model: Mapping[str, str] = field(default_factory=dict)
    running: Running | None = None


class Monitor:
    """Two timers of the monotonic clock, so that a simulated clock that stands still does not silence them."""

    def __init__(self, node: LifecycleNode, view: View, period_s: float) -> None:
        self._node = node
        self._view = view
        self._cause = ""
        self._counted = (time.monotonic(), Counter())
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        group, clock = MutuallyExclusiveCallbackGroup(), Clock(clock_type=ClockType.STEADY_TIME)
        node.create_timer(LOOK_PERIOD_S, self._look, callback_group=group, clock=clock)
        self._timer = node.create_timer(period_s, self.publish, callback_group=group, clock=clock)

    def set_period(self, period_s: float) -> None:
        """How often diagnostics are published from now on."""
        self._timer.timer_period_ns = round(period_s * 1e9)

    def _look(self) -> None:
        """Warns when the cause of having no results changes, and says when it is over."""
        running = self._view.running
        if running is None:
            self._cause = ""
            return
        running.inputs.look()
        if (facts := running.inputs.facts()) is None:
            return
        before, self._cause = self._cause, causes.why_nothing(facts)
        if self._cause and without_numbers(self._cause) != without_numbers(before):
            self._node.get_logger().warning(f"{self._cause} (`ckd-tracker doctor` looks closer)")
        elif before and not self._cause:
            self._node.get_logger().info("pairs of images arrive")

    def publish(self) -> None:
        """Sends the diagnostics of this moment."""
        view, statistics, running = self._view, self._view.statistics, self._view.running
        entries = view.roster.entries
        cause = statistics.error or statistics.image_problem
        cause = cause or "; ".join(filter(None, (statistics.camera_problem, self._cause)))
        level, text = DiagnosticStatus.OK, view.state
        if view.failure or statistics.error:
            level, text = DiagnosticStatus.ERROR, view.failure or cause
        elif cause:
            level, text = DiagnosticStatus.WARN, cause
        elif running is not None and running.worker.paused:
            text = "paused"
        elif running is not None:
            text = f"{len(entries)} targets" if entries else "no target: call ~/reinitialize"
        values: dict[str, object] = {"state": view.state, **view.model}
        if running is not None:
            values.update(self._rates(running))
            values.update({f"images dropped, {reason}": n for reason, n in running.inputs.drops.items()})
            values.update({f"subscription {name}": kind for name, kind in running.inputs.reliability.items()})
            values["replay pairs"] = len(running.ring)
            values["replay MB"] = running.ring.bytes / 1e6
        values.update({f"pairs dropped, {reason}": count for reason, count in statistics.drops.items()})
        for name, timing in statistics.take_timings().items():
            values[f"{name} mean [s]"], values[f"{name} max [s]"] = timing.mean, timing.largest
            values[f"{name} median [s]"] = timing.median
        values.update({f"{n} images": v.value for n, v in zip(MODALITIES, statistics.verdicts, strict=True)})
        values["targets"] = len(entries)
        values.update({f"target {entry.target.id}": entry.target.status.name for entry in entries})
        values["cause"] = cause
        name = f"{self._node.get_fully_qualified_name()}: tracker"
        stamp = self._node.get_clock().now().to_msg()
        device = str(view.model.get("device", ""))
        self._publisher.publish(diagnostics.message(stamp, name, device, level, text, values))

    def _rates(self, running: Running) -> dict[str, float]:
        """Events per second since the last diagnostics message."""
        now = time.monotonic()
        counts = Counter(running.inputs.received)
        counts["pairs"], counts["processed pairs"] = running.inputs.pairs, self._view.statistics.processed
        (before, earlier), self._counted = self._counted, (now, counts)
        span = max(now - before, 1e-3)
        return {f"{name} rate [Hz]": max(0, count - earlier[name]) / span for name, count in counts.items()}
