"""The one thread that tracks: it takes the newest pair, moves all targets, and hands the outcome to be published."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ckd_tracker_ros import images, thermal
from ckd_tracker_ros.frame import RgbtFrame
from ckd_tracker_ros.modality import NO_RGB_YET, ModalitySettings, Verdict, Watch, check, problem
from ckd_tracker_ros.pairing import RGB, THERMAL, Pair
from ckd_tracker_ros.ros.ring import Ring, RingError
from ckd_tracker_ros.ros.roster import Entry, RequestError, Roster, Start
from ckd_tracker_ros.ros.statistics import Statistics
from ckd_tracker_ros.target import LostSettings, Target, follow
from ckd_tracker_ros.tracker import Tracker, TrackerSettings

REQUEST_LIMIT_S = 10.0
"""How long a request to start targets waits for the worker before it is refused."""
REPLAY_LIMIT_S = 1.5
"""How long the replay of a request with a past stamp may take; it takes strides to stay inside."""
STOP_LIMIT_S = 10.0


@dataclass(frozen=True)
class Settings:
    """What may change from one pair to the next."""

    tracker: TrackerSettings
    lost: LostSettings
    max_age_ns: int
    modality: ModalitySettings = field(default_factory=ModalitySettings)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one processed pair has come to.

    Attributes:
        pair: the messages and their stamps.
        frame: the decoded pair, without images that cannot be believed; None when there was nothing to track in it.
        targets: all targets after it.
        removed: those that have gone since the last outcome.
        taken_ns: monotonic time at which the worker took the pair.
        step_ns: of that, how long the tracker's step took.
        skipped: pairs since the last outcome that were not processed: replaced by a newer one, too old, unusable.
    """

    pair: Pair
    frame: RgbtFrame | None
    targets: tuple[Target, ...]
    removed: tuple[Target, ...]
    taken_ns: int
    step_ns: int
    skipped: int


@dataclass(eq=False)
class _Request:
    """Targets to start; answered once, with ids or with the reason of the refusal."""

    starts: Sequence[Start]
    stamp_ns: int
    slop_ns: int
    replace_all: bool
    generation: int
    answered: threading.Event = field(default_factory=threading.Event)
    withdrawn: bool = False
    refusal: str = ""


class Worker:
    """Owns the tracking thread. All methods may be called from any thread; only `start_targets` and `stop` wait."""

    def __init__(
        self,
        tracker: Tracker,
        roster: Roster,
        ring: Ring,
        settings: Settings,
        statistics: Statistics,
        publish: Callable[[Outcome], None],
    ) -> None:
        """`publish` is called from the worker's thread."""
        self.settings = settings
        self._tracker = tracker
        self._roster = roster
        self._ring = ring
        self._statistics = statistics
        self._publish = publish
        self._watch = Watch()
        self._slot: deque[tuple[int, Pair]] = deque()  # of one arrival: a thermal image may complete several pairs
        self._requests: deque[_Request] = deque()
        self._skipped = 0
        self._paused = False
        self._stopping = False
        self._condition = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="tracker", daemon=True)

    def start(self) -> None:
        """Begins to work."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after the step that it is in; requests that wait are refused."""
        with self._condition:
            self._stopping = True
            self._slot.clear()
            self._condition.notify_all()
        if self._thread.is_alive():
            self._thread.join(STOP_LIMIT_S)
        with self._condition:
            for request in self._requests:
                self._answer(request, "not active: the node was deactivated")
            self._requests.clear()

    @property
    def paused(self) -> bool:
        """Whether pairs are kept for requests but not tracked."""
        return self._paused

    @paused.setter
    def paused(self, value: bool) -> None:
        with self._condition:
            self._paused = value
            while value and self._slot:
                self._slot.popleft()
                self._statistics.drop("paused")

    def offer(self, pair: Pair) -> None:
        """Hands over a new pair; those that still wait from an earlier arrival are replaced."""
        serial = self._ring.append(pair)
        with self._condition:
            if self._paused:
                self._statistics.drop("paused")
                return
            while self._slot and self._slot[0][1].arrival_ns != pair.arrival_ns:
                self._slot.popleft()
                self._skip("replaced by a newer pair")
            self._slot.append((serial, pair))
            self._condition.notify()

    def start_targets(
        self, starts: Sequence[Start], stamp_ns: int, slop_ns: int, replace_all: bool, limit_s: float = REQUEST_LIMIT_S
    ) -> list[str]:
        """Starts targets on the pair with that RGB stamp (0 = the newest) and brings them to the present.

        Returns:
            Their ids, in the order of `starts`.

        Raises:
            RequestError: refused, nothing has changed.
        """
        request = _Request(
            self._roster.plan(starts, replace_all), stamp_ns, slop_ns, replace_all, self._roster.generation
        )
        with self._condition:
            if self._stopping:
                raise RequestError("not active: the node was deactivated")
            self._requests.append(request)
            self._condition.notify()
        if not request.answered.wait(limit_s):
            with self._condition:
                if not request.answered.is_set():
                    request.withdrawn = True
                    raise RequestError(f"the tracker did not answer within {limit_s:g} s; nothing has changed")
        if request.refusal:
            raise RequestError(request.refusal)
        return [start.id for start in request.starts]

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._stopping or self._requests or self._slot)
                if self._stopping:
                    return
                request = self._requests.popleft() if self._requests else None
                if request is None:
                    serial, pair = self._slot.popleft()
            try:
                if request is not None:
                    self._handle(request)
                else:
                    self._process(serial, pair)
            except Exception as error:  # noqa: BLE001 - reported; a dead thread would be a tracker that says nothing
                self._statistics.failure(error)
                if request is not None:
                    with self._condition:
                        self._answer(request, f"{type(error).__name__}: {error}")
                else:
                    self._skip("error")

    def _process(self, serial: int, pair: Pair) -> None:
        taken_ns = time.monotonic_ns()
        settings = self.settings
        if taken_ns - pair.arrival_ns > settings.max_age_ns:
            self._skip("older than sync.max_age")
            return
        self._tracker.settings = settings.tracker
        entries = self._roster.entries
        frame, step_ns = None, 0
        if not entries:
            self._statistics.sizes(tuple(map(images.message_size, pair.items)))
            self._statistics.cameras(tuple(Verdict.MISSING if item is None else Verdict.OK for item in pair.items))
        else:
            try:
                frame = images.decode_pair(pair)
                self._statistics.sizes(tuple(image and (image.width, image.height) for image in frame.images))
                if frame.images[THERMAL] is not None and thermal.is_palette(frame.images[THERMAL]):
                    self._statistics.warn_once(thermal.PALETTE_WARNING)
                watch = replace(self._watch, rgb_size=self._statistics.last_sizes[0])
                self._watch, frame, verdicts = check(watch, frame, settings.modality)
                self._statistics.cameras(verdicts)
                if frame is None:
                    self._skip("waiting for both cameras")
                    return
                began_ns = time.monotonic_ns()
                steps = self._step([entry for entry in entries if entry.serial < serial], serial, frame)
                step_ns = time.monotonic_ns() - began_ns
            except ValueError as error:  # an image that cannot be used; the targets wait for a better one
                self._statistics.unusable(error)
                self._skip("unusable image")
                return
            with self._condition:
                if self._paused or self._stopping:
                    self._statistics.drop("paused")
                    return
                self._roster.commit(steps)
        targets, removed = self._roster.report()
        with self._condition:
            skipped, self._skipped = self._skipped, 0
        self._statistics.recovered()
        self._publish(Outcome(pair, frame, targets, removed, taken_ns, step_ns, skipped))

    def _step(self, entries: Sequence[Entry], serial: int, frame: RgbtFrame) -> list[tuple[Entry, Entry]]:
        targets = follow(self._tracker, [entry.target for entry in entries], frame, self.settings.lost)
        return [(entry, Entry(target, serial)) for entry, target in zip(entries, targets, strict=True)]

    def _handle(self, request: _Request) -> None:
        refusal = ""
        try:
            entries = self._start(request)
        except (RingError, ValueError) as error:
            refusal = str(error)
        with self._condition:
            if request.withdrawn:
                return
            if not refusal:
                try:
                    self._roster.admit(entries, request.replace_all, request.generation)
                except RequestError as error:
                    refusal = str(error)
            self._answer(request, refusal)

    def _start(self, request: _Request) -> list[Entry]:
        """New targets on the asked pair, then through the pairs since."""
        self._tracker.settings = self.settings.tracker
        serial, pair = self._ring.since(request.stamp_ns, request.slop_ns)[0]
        watch = Watch(rgb_size=self._statistics.last_sizes[0])
        watch, frame, verdicts = check(watch, images.decode_pair(pair), self.settings.modality)
        if frame is None:
            raise RequestError(f"{problem(verdicts)}, and modality.on_missing is wait")
        if frame.images[RGB] is None and frame.rgb_size is None:  # until one comes, as is said then
            self._statistics.sizes((frame.size, frame.size))
            self._statistics.warn_once(NO_RGB_YET.format(*frame.size))
        entries = []
        for start in request.starts:
            try:
                state = self._tracker.start(frame, start.box)
            except ValueError as error:
                raise RequestError(f"target {start.id!r}: {error}") from error
            entries.append(Entry(Target.begin(start.id, start.label, state), serial))
        if request.stamp_ns and entries:
            entries, watch = self._replay(entries, serial, watch)
        if not self._roster.entries:  # the same view of the cameras as offline, where nothing came before the start
            self._watch = watch
        return entries

    def _replay(self, entries: list[Entry], serial: int, watch: Watch) -> tuple[list[Entry], Watch]:
        """The entries after the pairs that came since `serial`; when time is short some are left out, never the last.

        The newest pair may be another one at the end than at the beginning: catching up goes on until it is reached.
        """
        began, steps = time.monotonic(), 0
        while pending := self._ring.newer_than(serial):
            used = time.monotonic() - began
            left = REPLAY_LIMIT_S - used
            stride = len(pending) if left <= 0 else max(1, math.ceil(len(pending) * used / max(steps, 1) / left))
            serial, pair = pending[min(stride, len(pending)) - 1]
            steps += 1
            try:
                watch, frame, _ = check(watch, images.decode_pair(pair), self.settings.modality)
                if frame is not None:
                    entries = [after for _, after in self._step(entries, serial, frame)]
            except ValueError as error:
                self._statistics.unusable(error)
            if left <= 0 or self._stopping:
                break
        return entries, watch

    def _answer(self, request: _Request, refusal: str) -> None:
        request.refusal = refusal
        request.answered.set()

    def _skip(self, reason: str) -> None:
        with self._condition:
            self._skipped += 1
        self._statistics.drop(reason)
