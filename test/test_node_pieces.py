"""The parts of the node that need no ROS graph: ring, roster and worker."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import ros_helpers
from hypothesis import given, settings
from hypothesis import strategies as st

from ckd_tracker_ros.images import decode_pair
from ckd_tracker_ros.pairing import Pair
from ckd_tracker_ros.registration import Registration
from ckd_tracker_ros.ros import worker as worker_module
from ckd_tracker_ros.ros.outputs import picture
from ckd_tracker_ros.ros.ring import Ring, RingError
from ckd_tracker_ros.ros.roster import Entry, RequestError, Roster, Start
from ckd_tracker_ros.ros.statistics import Statistics, Timing
from ckd_tracker_ros.ros.worker import Settings, Worker
from ckd_tracker_ros.target import LostSettings, Status, Target, follow
from ckd_tracker_ros.tracker import Tracker, TrackerSettings

BOX = (34.0, 42.0, 20.0, 24.0)
SLOP_NS = 20_000_000


def bare_pair(stamp_ns: int, arrival_ns: int = 0, size: int = 0) -> Pair:
    return Pair(stamp_ns, stamp_ns, (b"x" * size, b""), arrival_ns, 0)


# ring ---------------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(
    gaps=st.lists(st.integers(1, 400), min_size=1, max_size=30),
    seconds=st.floats(0, 1),
    limit=st.integers(1, 3000),
    size=st.integers(0, 900),
)
def test_ring_keeps_its_bounds_and_the_newest_pair(gaps, seconds, limit, size):
    ring, now = Ring(seconds, limit, len), 0
    for gap in gaps:
        now += gap * 1_000_000
        serial = ring.append(bare_pair(now, now, size))
    kept = ring.newer_than(0)
    assert kept[-1][0] == serial == len(gaps) and kept[-1][1].rgb_stamp_ns == now
    assert [number for number, _ in kept] == list(range(serial - len(kept) + 1, serial + 1))
    assert ring.bytes == size * len(kept)
    if len(kept) > 1:
        assert ring.bytes <= limit and now - kept[0][1].arrival_ns <= round(seconds * 1e9)


def test_ring_finds_the_nearest_pair_and_those_since():
    ring = Ring(10, 1000, len)
    with pytest.raises(RingError, match="no image yet"):
        ring.since(0, SLOP_NS)
    for stamp in (100, 133, 166):
        ring.append(bare_pair(stamp * 1_000_000))
    assert [serial for serial, _ in ring.since(130_000_000, SLOP_NS)] == [2, 3]
    assert [serial for serial, _ in ring.since(0, SLOP_NS)] == [3]
    assert [serial for serial, _ in ring.since(190_000_000, SLOP_NS)] == [3]  # its partner is still on the way
    for outside in (60_000_000, 300_000_000):
        with pytest.raises(RingError, match=r"0.100000000 to 0.166000000"):
            ring.since(outside, SLOP_NS)


def test_ring_starts_anew_when_a_recording_loops():
    ring = Ring(10, 1000, len)
    ring.append(bare_pair(500))
    assert ring.append(bare_pair(100)) == 2 and len(ring) == 1
    ring.clear()
    assert len(ring) == ring.bytes == 0 and ring.append(bare_pair(7)) == 3


# roster -------------------------------------------------------------------------------------------------------------


def entry(id: str, label: str = "", serial: int = 1) -> Entry:
    return Entry(Target(id, label, SimpleNamespace(box=np.array(BOX)), np.array(BOX[2:])), serial)


def start(id: str = "", label: str = "") -> Start:
    return Start(id, label, BOX)


def roster_with(*ids: str, room: int = 4) -> Roster:
    roster = Roster(room)
    roster.admit([entry(id, f"label of {id}") for id in ids], False, roster.generation)
    return roster


def ids(roster: Roster) -> list[str]:
    return [entry.target.id for entry in roster.entries]


def test_roster_assigns_ids_and_keeps_labels():
    roster = roster_with("1", "b")
    plan = roster.plan([start(), start("b"), start("c", "new")], False)
    assert [(s.id, s.label) for s in plan] == [("2", ""), ("b", "label of b"), ("c", "new")]


@pytest.mark.parametrize(
    ("starts", "replace_all", "said"),
    [
        ([start("a"), start("x"), start("a")], False, "id 'a' repeats"),
        ([start(), start(), start()], False, "too many targets: 5 .* at most 4"),
        ([start(f"n{i}") for i in range(5)], True, "too many targets: 5"),
        ([], False, "no target"),
    ],
)
def test_roster_refuses_and_keeps_what_it_has(starts, replace_all, said):
    roster = roster_with("a", "b")
    with pytest.raises(RequestError, match=said):
        roster.plan(starts, replace_all)
    assert ids(roster) == ["a", "b"]


def test_roster_removes_all_or_nothing_and_reports_once():
    roster = roster_with("a", "b", "c")
    with pytest.raises(RequestError, match="'x'"):
        roster.remove(["a", "x"])
    assert ids(roster) == ["a", "b", "c"]
    roster.remove(["a", "a", "c"])
    targets, removed = roster.report()
    assert [t.id for t in targets] == ["b"] and [(t.id, t.status) for t in removed] == [
        ("a", Status.REMOVED),
        ("c", Status.REMOVED),
    ]
    assert roster.report()[1] == ()


def test_roster_replaces_all_in_one_step():
    roster = roster_with("a", "b")
    roster.admit([entry("b"), entry("n")], True, roster.generation)
    assert ids(roster) == ["b", "n"] and [t.id for t in roster.report()[1]] == ["a"]


def test_a_step_that_outlives_its_target_changes_nothing():
    roster = roster_with("a", "b", "c")
    before = roster.entries
    roster.remove(["a"])
    roster.admit([entry("b", serial=9)], False, roster.generation)
    roster.commit([(old, entry(old.target.id, serial=5)) for old in before])
    assert [(e.target.id, e.serial) for e in roster.entries] == [("b", 9), ("c", 5)]


def test_a_reset_also_ends_what_is_being_started():
    roster = roster_with("a")
    generation = roster.generation
    assert roster.reset() == 1
    with pytest.raises(RequestError, match="reset"):
        roster.admit([entry("n")], False, generation)
    assert ids(roster) == []


# worker, with a real network ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tracker(tmp_path_factory) -> Tracker:
    return Tracker.from_checkpoint(ros_helpers.tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny.safetensors"))


class Bench:
    """A worker, and what it publishes and says."""

    def __init__(self, tracker: Tracker) -> None:
        self.outcomes, self.log = [], []
        self.roster, self.ring = Roster(4), Ring(10.0, 10**9, lambda item: len(item.data))
        self.statistics = Statistics(self.log.append, self.log.append)
        given = Settings(TrackerSettings(), LostSettings(), 10**12)
        self.worker = Worker(tracker, self.roster, self.ring, given, self.statistics, self.outcomes.append)

    def pair(self, index: int, encoding: str = "rgb8") -> Pair:
        rgb, thermal = ros_helpers.scene(index)
        stamp = (index + 1) * ros_helpers.STEP_NS
        items = ros_helpers.raw_image(rgb, encoding, stamp), ros_helpers.raw_image(thermal, "mono8", stamp)
        return Pair(stamp, stamp, items, time.monotonic_ns(), 0)

    def play(self, index: int, **kind):
        self.worker.offer(self.pair(index, **kind))
        stamp = (index + 1) * ros_helpers.STEP_NS
        return ros_helpers.until(
            lambda: next((o for o in self.outcomes if o.pair.rgb_stamp_ns == stamp), None), f"outcome {index}"
        )


@pytest.fixture
def bench(tracker):
    bench = Bench(tracker)
    yield bench
    bench.worker.stop()


class Gate:
    """A tracker that waits at each step until it is let through: a slow network whose slowness the test decides."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker, self.settings = tracker, tracker.settings
        self.entered, self.leave = threading.Semaphore(0), threading.Semaphore(0)
        self.start = tracker.start

    def __getattr__(self, name):
        return getattr(self._tracker, name)

    def step_many(self, states, frame):
        self.entered.release()
        assert self.leave.acquire(timeout=ros_helpers.LIMIT_S)
        return self._tracker.step_many(states, frame)


def test_without_a_target_nothing_is_decoded(bench):
    bench.worker.start()
    outcome = bench.play(0, encoding="no such encoding")
    assert outcome.frame is None and outcome.targets == () and bench.log == []


def test_a_past_stamp_gives_what_the_tracker_gives(bench, tracker):
    bench.worker.start()
    for index in range(5):
        bench.play(index)
    assert bench.worker.start_targets([start("a")], 2 * ros_helpers.STEP_NS, SLOP_NS, False) == ["a"]
    targets = [Target.begin("a", "", tracker.start(decode_pair(bench.pair(1)), BOX))]
    for index in (2, 3, 4):
        targets = follow(tracker, targets, decode_pair(bench.pair(index)), LostSettings())
    (target,) = (entry.target for entry in bench.roster.entries)
    np.testing.assert_array_equal(target.box, targets[0].box)


def test_a_target_that_is_given_up_leaves_and_is_told_once(bench):
    never = LostSettings(confidence=1.0, recover=1.0, after=0, give_up=0.05)
    bench.worker.settings = replace(bench.worker.settings, lost=never)
    bench.worker.start()
    bench.play(0)
    bench.worker.start_targets([start("a")], 0, SLOP_NS, False)
    outcomes = [bench.play(index) for index in range(1, 6)]
    assert [[t.status for t in o.targets] for o in outcomes] == [[Status.LOST], [], [], [], []]
    assert [[(t.id, t.status) for t in o.removed] for o in outcomes] == [[], [("a", Status.REMOVED)], [], [], []]


def test_a_replay_without_time_takes_strides_and_ends_at_the_newest_pair(bench, monkeypatch):
    monkeypatch.setattr(worker_module, "REPLAY_LIMIT_S", 0.0)
    bench.worker.start()
    for index in range(6):
        bench.play(index)
    bench.worker.start_targets([start("a")], ros_helpers.STEP_NS, SLOP_NS, False)
    assert [entry.serial for entry in bench.roster.entries] == [6]


def test_an_unusable_image_warns_once_and_keeps_the_target(bench):
    bench.worker.start()
    bench.play(0)
    bench.worker.start_targets([start("a")], 0, SLOP_NS, False)
    before = bench.play(1).targets
    for index in (2, 3):
        bench.worker.offer(bench.pair(index, encoding="teal9"))
        ros_helpers.until(
            lambda n=index - 1: bench.statistics.drops.get("unusable image") == n, "the image to be skipped"
        )
    assert "teal9" in bench.statistics.image_problem
    outcome = bench.play(4)
    assert len([line for line in bench.log if "teal9" in line]) == 1
    assert [t.id for t in outcome.targets] == [t.id for t in before] == ["a"]
    assert outcome.skipped == 2 and bench.statistics.image_problem == ""


def test_an_error_of_the_network_is_a_state_and_not_the_end(bench, tracker, monkeypatch):
    bench.worker.start()
    bench.play(0)
    bench.worker.start_targets([start("a")], 0, SLOP_NS, False)
    with monkeypatch.context() as patch:
        patch.setattr(tracker, "step_many", lambda *_: (_ for _ in ()).throw(RuntimeError("CUDA out of memory")))
        bench.worker.offer(bench.pair(1))
        ros_helpers.until(lambda: "out of memory" in bench.statistics.error, "the error state")
    outcome = bench.play(2)
    assert [t.id for t in outcome.targets] == ["a"] and bench.statistics.error == ""
    assert any("Traceback" in line for line in bench.log)


def test_newest_pair_wins_and_services_do_not_wait(tracker):
    gate = Gate(tracker)
    bench = Bench(gate)
    bench.worker.start()
    bench.play(0)
    bench.worker.start_targets([start("a"), start("b")], 0, SLOP_NS, False)
    bench.worker.offer(bench.pair(1))
    assert gate.entered.acquire(timeout=ros_helpers.LIMIT_S)
    for index in (2, 3, 4):
        bench.worker.offer(bench.pair(index))
    bench.roster.remove(["a"])  # while the step runs
    gate.leave.release(2)
    outcome = ros_helpers.until(lambda: bench.outcomes[2:], "the newest pair")[0]
    assert outcome.pair.rgb_stamp_ns == 5 * ros_helpers.STEP_NS
    assert sum(outcome.skipped for outcome in bench.outcomes) == 2
    assert [t.id for t in bench.outcomes[1].targets] == ["b"]
    assert [t.id for t in bench.outcomes[1].removed] == ["a"]
    bench.worker.stop()


def test_pairs_of_one_arrival_are_all_tracked_unless_a_newer_image_comes(tracker):
    """A thermal image that serves several RGB images completes several pairs at once."""
    gate, bench = in_the_middle_of_a_step(tracker)
    for index in (2, 3, 4):
        bench.worker.offer(replace(bench.pair(index), arrival_ns=bench.outcomes[0].pair.arrival_ns + 1))
    gate.leave.release(2)
    assert gate.entered.acquire(timeout=ros_helpers.LIMIT_S) and gate.entered.acquire(timeout=ros_helpers.LIMIT_S)
    bench.worker.offer(bench.pair(5))
    gate.leave.release(2)
    ros_helpers.until(lambda: bench.outcomes[4:], "the newest pair")
    assert [outcome.pair.rgb_stamp_ns // ros_helpers.STEP_NS for outcome in bench.outcomes[1:]] == [2, 3, 4, 6]
    assert sum(outcome.skipped for outcome in bench.outcomes) == 1
    bench.worker.stop()


def in_the_middle_of_a_step(tracker) -> tuple[Gate, Bench]:
    """A worker whose step of target "a" goes on until the gate lets it."""
    gate = Gate(tracker)
    bench = Bench(gate)
    bench.worker.start()
    bench.play(0)
    bench.worker.start_targets([start("a")], 0, SLOP_NS, False)
    bench.worker.offer(bench.pair(1))
    assert gate.entered.acquire(timeout=ros_helpers.LIMIT_S)
    return gate, bench


def test_pause_discards_the_step_that_is_running(tracker):
    gate, bench = in_the_middle_of_a_step(tracker)
    (before,) = bench.roster.entries
    bench.worker.paused = True
    gate.leave.release()
    ros_helpers.until(lambda: bench.statistics.drops.get("paused"), "the discarded result")
    assert bench.roster.entries == (before,) and len(bench.outcomes) == 1
    bench.worker.stop()


def test_a_request_that_gets_no_answer_in_time_changes_nothing(tracker):
    gate, bench = in_the_middle_of_a_step(tracker)
    with pytest.raises(RequestError, match="did not answer within"):
        bench.worker.start_targets([start("late")], 0, SLOP_NS, False, limit_s=0.05)
    gate.leave.release(2)
    bench.play(2)
    assert ids(bench.roster) == ["a"]
    bench.worker.stop()
    with pytest.raises(RequestError, match="not active"):
        bench.worker.start_targets([start("b")], 0, SLOP_NS, False)


def test_the_picture_for_people_shows_box_and_inset(tracker):
    bench = Bench(tracker)
    frame = decode_pair(bench.pair(0))
    shown = picture(frame, (Target.begin("a", "car", tracker.start(frame, BOX)),), Registration())
    plain = frame.images[0].pixels[..., ::-1]
    assert shown.shape == plain.shape
    assert (shown[:30, -40:] != plain[:30, -40:]).any() and (shown[42, 34:54] != plain[42, 34:54]).any()


def test_pairs_that_arrived_too_long_ago_are_dropped_and_counted(bench):
    bench.worker.settings = Settings(TrackerSettings(), LostSettings(), max_age_ns=10**9)
    old = bench.pair(0)
    bench.worker.offer(Pair(old.rgb_stamp_ns, old.thermal_stamp_ns, old.items, old.arrival_ns - 2 * 10**9, 0))
    bench.worker.start()
    ros_helpers.until(lambda: bench.statistics.drops.get("older than sync.max_age"), "the old pair to be dropped")
    assert bench.play(1).skipped == 1


# statistics -----------------------------------------------------------------------------------------------------------


def test_statistics_warn_once_per_cause_and_time_what_is_known():
    said = []
    statistics = Statistics(said.append, said.append)
    for size in ((640, 480), (0, 0), (640, 480), (320, 240)):
        statistics.sizes((size, None))
    statistics.warn_once("row 3 of -7.5 is short")
    statistics.warn_once("row 12 of 4 is short")
    assert said[0].startswith("rgb images changed from 640x480 to 320x240") and said[1:] == ["row 3 of -7.5 is short"]
    statistics.took(latency=float("nan"), processing_time=0.1)
    statistics.took(latency=float("nan"), processing_time=0.3)
    statistics.took(processing_time=0.11)
    timings = statistics.take_timings()
    assert timings["processing_time"] == Timing(pytest.approx(0.17), 0.11, 0.3)
    assert np.isnan(timings["latency"].mean) and statistics.take_timings() == {} and statistics.processed == 3
