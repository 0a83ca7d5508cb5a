"""The lifecycle node: what is built and taken down when, and the answers to service calls."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_srvs.srv import SetBool, Trigger

from ckd_tracker_msgs.srv import ReinitializeTargets, RemoveTargets
from ckd_tracker_ros.images import to_ns
from ckd_tracker_ros.parameters import Parameters
from ckd_tracker_ros.ros import messages
from ckd_tracker_ros.ros.inputs import Inputs, make_pairing
from ckd_tracker_ros.ros.monitor import Monitor, Running, View
from ckd_tracker_ros.ros.outputs import Outputs
from ckd_tracker_ros.ros.parameters import ParameterTable
from ckd_tracker_ros.ros.ring import Ring
from ckd_tracker_ros.ros.roster import RequestError, Roster
from ckd_tracker_ros.ros.statistics import Statistics
from ckd_tracker_ros.ros.worker import Settings, Worker
from ckd_tracker_ros.tracker import Tracker

NAME = "ckd_tracker"
EXPECTED = (ValueError, OSError, RuntimeError, MemoryError)
"""What a wrong parameter, a bad weight file, a missing device or too little memory raise."""
REQUESTS = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
"""Of the services. ROS's own depth of 10 forgets what does not fit: several clients at once would wait for ever."""

Transition = Callable[["TrackerNode", LifecycleState], TransitionCallbackReturn]


def reported(transition: Transition) -> Transition:
    """A transition whose exceptions are logged and shown in diagnostics: rclpy drops them without a word."""

    @functools.wraps(transition)
    def run(self: TrackerNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(self, state)
        except EXPECTED as error:
            self.refuse(f"{transition.__name__} failed: {error}")
            return TransitionCallbackReturn.FAILURE
        except Exception as error:
            self.refuse(f"{transition.__name__} failed: {type(error).__name__}: {error}\n{traceback.format_exc()}")
            raise

    return run


class TrackerNode(LifecycleNode):
    """Follows targets through two camera topics. See docs/architecture.md for the way of a pair through it."""

    def __init__(self) -> None:
        super().__init__(NAME)
        self._tracker: Tracker | None = None
        self._outputs: Outputs | None = None
        self._table = ParameterTable(self, self._set_live)
        log = self.get_logger()
        self.view = View(Statistics(log.warning, log.error), Roster(max_targets=0))
        self._monitor = Monitor(self, self.view, self.get_parameter("diagnostics.period").value)
        # Only reinitialize waits for the worker: in a group of its own it never holds more than one thread.
        waiting, immediate = MutuallyExclusiveCallbackGroup(), ReentrantCallbackGroup()
        for kind, name, answer, group in (
            (ReinitializeTargets, "reinitialize", self._reinitialize, waiting),
            (RemoveTargets, "remove_targets", self._remove, immediate),
            (Trigger, "reset", self._reset, immediate),
            (SetBool, "pause", self._pause, immediate),
        ):
            self.create_service(kind, f"~/{name}", answer, qos_profile=REQUESTS, callback_group=group)
        if self.get_parameter("autostart").value:
            # In the group of the lifecycle services, so that no transition runs beside another.
            steady = Clock(clock_type=ClockType.STEADY_TIME)
            self._autostart = self.create_timer(0.0, self._start_by_itself, clock=steady)

    def _start_by_itself(self) -> None:
        self._autostart.cancel()
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    @reported
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Loads the model and runs it once."""
        parameters = self._table.read()
        make_pairing(parameters)  # so that a policy that is not installed is known before the first image
        self.get_logger().info(f"loading {parameters.model} for {parameters.device}")
        tracker = Tracker.from_checkpoint(
            parameters.model, parameters.device, parameters.precision, parameters.threads, parameters.tracker_settings
        )
        tracker.warm_up(parameters.max_targets)
        self._tracker = tracker
        self.view.model = tracker.description
        self.view.roster.max_targets = parameters.max_targets
        self._outputs = Outputs(self, parameters, self.view.statistics)
        self._entered("inactive")
        self.get_logger().info(", ".join(f"{key} {value}" for key, value in tracker.description.items()))
        return super().on_configure(state)

    @reported
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Starts the worker and subscribes."""
        parameters = self._table.read()
        ring = Ring(parameters.replay_seconds, parameters.replay_max_mb * 1_000_000, lambda item: len(item.data))
        worker = Worker(
            self._tracker,
            self.view.roster,
            ring,
            _settings(parameters),
            self.view.statistics,
            self._outputs.publish,
        )
        result = super().on_activate(state)
        self.view.running = Running(Inputs(self, parameters, worker.offer), worker, ring)
        worker.start()
        self._entered("active")
        return result

    @reported
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops; targets are kept for the next activation."""
        self._halt()
        self._entered("inactive")
        return super().on_deactivate(state)

    @reported
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Frees the model and forgets the targets."""
        self._release()
        self._entered("unconfigured")
        return TransitionCallbackReturn.SUCCESS

    @reported
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops and frees everything, from any state."""
        self._release()
        self._entered("finalized")
        return TransitionCallbackReturn.SUCCESS

    @reported
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After an unforeseen exception: back to unconfigured."""
        self._release()
        self.view.state = "unconfigured"
        return TransitionCallbackReturn.SUCCESS

    def refuse(self, reason: str) -> None:
        """Notes why a transition failed."""
        self.view.failure = reason
        self.get_logger().error(reason)

    def close(self) -> None:
        """Ends what runs besides the executor, before the process ends."""
        self._halt()

    def _entered(self, state: str) -> None:
        self.view.state, self.view.failure = state, ""

    def _halt(self) -> None:
        running, self.view.running = self.view.running, None
        if running is not None:
            running.inputs.close()
            running.worker.stop()
            running.ring.clear()  # threads and callbacks refer to each other: its images would stay for a long time

    def _release(self) -> None:
        self._halt()
        if self._outputs is not None:
            self._outputs.close()
        if self._tracker is not None:
            self._tracker.close()
        self._tracker = self._outputs = None
        self.view.model = {}
        self.view.roster.clear()

    def _set_live(self, parameters: Parameters) -> None:
        self._monitor.set_period(parameters.diagnostics_period)
        if self._outputs is not None:
            self._outputs.parameters = parameters
        if (running := self.view.running) is not None:
            running.inputs.set_live(parameters)
            running.worker.settings = _settings(parameters)

    def _active(self) -> Running:
        if (running := self.view.running) is None:
            raise RequestError(f"not active: the node is {self.view.state}")
        return running

    def _answer(self, response: object, action: Callable[[], str]) -> object:
        """Fills in success and message of a response from what `action` returns or refuses."""
        try:
            response.message, response.success = action(), True
        except RequestError as error:
            response.message, response.success = str(error), False
        return response

    def _reinitialize(
        self, request: ReinitializeTargets.Request, response: ReinitializeTargets.Response
    ) -> ReinitializeTargets.Response:
        def start() -> str:
            slop_ns = round(self.get_parameter("sync.slop").value * 1e9)
            response.ids = self._active().worker.start_targets(
                messages.starts(request), to_ns(request.stamp), slop_ns, request.replace_all
            )
            return f"started {len(response.ids)} targets"

        return self._answer(response, start)

    def _remove(self, request: RemoveTargets.Request, response: RemoveTargets.Response) -> RemoveTargets.Response:
        def remove() -> str:
            self._active()
            self.view.roster.remove(request.ids)
            return f"removed {len(request.ids)} targets"

        return self._answer(response, remove)

    def _reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        def reset() -> str:
            self._active()
            return f"removed {self.view.roster.reset()} targets"

        return self._answer(response, reset)

    def _pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        def pause() -> str:
            self._active().worker.paused = request.data
            return "paused" if request.data else "running"

        return self._answer(response, pause)


def _settings(parameters: Parameters) -> Settings:
    return Settings(
        parameters.tracker_settings,
        parameters.lost_settings,
        round(parameters.sync_max_age * 1e9),
        parameters.modality_settings,
    )
