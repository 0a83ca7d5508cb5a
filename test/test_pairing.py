"""Pairs by stamp: never worse than message_filters, always in order, and every frame accounted for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckd_tracker_ros.pairing import RGB, THERMAL, NearestPairing, Pair, Reason

MS = 1_000_000
PATTERNS = (
    "aligned",
    "offset_10ms",
    "offset_minus_12ms",
    "jitter_5ms",
    "drops",
    "late_rgb_40ms",
    "late_thermal_60ms",
    "30_and_9hz",
    "wide_slop",
    "60_and_25hz",
    "late_rgb_50ms_wide_slop",
    "30_and_9hz_looped",
)


def play(pairing: NearestPairing, events: list[tuple[int, int, int]]) -> list[Pair]:
    """Push (arrival, stream, stamp) in order; the pairs that left. The item of a frame is its number."""
    return [
        pair for i, (arrival, stream, stamp) in enumerate(events) for pair in pairing.push(stream, stamp, arrival, i)
    ]


def camera(stream: int, stamps_ms: list[float], delay_ms: float = 1) -> list[tuple[int, int, int]]:
    """Events of a camera whose clock is right: each frame arrives `delay_ms` after its stamp."""
    return [(round((stamp + delay_ms) * MS), stream, round(stamp * MS)) for stamp in stamps_ms]


def assert_accounted(pairing: NearestPairing) -> None:
    for stream in (RGB, THERMAL):
        fates = (
            pairing.paired[stream]
            + pairing.alone[stream]
            + sum(pairing.dropped[stream].values())
            + pairing.waiting[stream]
        )
        assert fates == pairing.received[stream]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_at_least_message_filters(golden, pattern):
    recorded = np.load(golden / "pairing_message_filters.npz")
    events, theirs = recorded[f"{pattern}/events"].tolist(), recorded[f"{pattern}/pairs"]
    pairing = NearestPairing(slop_ns=round(float(recorded[f"{pattern}/slop"]) * 1e9), queue_size=10)
    ours = play(pairing, events)
    assert len(ours) >= (360 if pattern.endswith("looped") else len(theirs))
    our_offset = np.mean([abs(pair.offset_ns) for pair in ours])
    assert our_offset <= np.abs(theirs[:, 1] - theirs[:, 0]).mean() + 0.1 * MS
    for pair in ours:  # no added delay: it left when the later of the two arrived
        assert pair.arrival_ns == max(events[i][0] for i in pair.items)
    assert_accounted(pairing)


def test_every_recorded_pattern_is_tested(golden):
    recorded = np.load(golden / "pairing_message_filters.npz")
    assert {name.split("/")[0] for name in recorded.files} == set(PATTERNS)


STAMPS = st.one_of(st.integers(0, 40).map(lambda i: i * 7 * MS), st.integers(-(2**62), 2**63 - 1))
EVENTS = st.lists(st.tuples(st.sampled_from((RGB, THERMAL)), STAMPS), max_size=80)


@settings(max_examples=150, deadline=None)
@given(EVENTS, st.integers(0, 60), st.integers(1, 6), st.integers(-50, 50), st.booleans())
def test_invariants_on_anything(frames, slop_ms, queue_size, delay_ms, reuse):
    def run() -> tuple[NearestPairing, list[tuple[Pair, tuple[int, int]]]]:
        pairing, out = NearestPairing(slop_ms * MS, queue_size, delay_ms * MS, reuse), []
        for i, (stream, stamp) in enumerate(frames):
            pairs = pairing.push(stream, stamp, i, i)
            assert_accounted(pairing)
            assert max(pairing.waiting) <= queue_size
            out.extend((pair, pairing.jumps) for pair in pairs)
        return pairing, out

    pairing, out = run()
    used: list[tuple[int, ...]] = [pair.items for pair, _ in out]
    assert len(out) == pairing.pairs == pairing.paired[RGB] == len({items[RGB] for items in used})
    assert pairing.paired[THERMAL] == len({items[THERMAL] for items in used})
    assert reuse or pairing.paired[THERMAL] == len(out)
    for pair, _ in out:
        assert abs(pair.offset_ns) <= slop_ms * MS
        assert pair.offset_ns == pair.thermal_stamp_ns - delay_ms * MS - pair.rgb_stamp_ns
        assert frames[pair.items[RGB]] == (RGB, pair.rgb_stamp_ns)
        assert frames[pair.items[THERMAL]] == (THERMAL, pair.thermal_stamp_ns)
        assert pair.arrival_ns == max(pair.items)
        assert 0 not in (pair.rgb_stamp_ns, pair.thermal_stamp_ns)
    for (before, jumps), (after, later_jumps) in zip(out, out[1:], strict=False):  # only a jump goes back in time
        if jumps[RGB] == later_jumps[RGB]:
            assert after.rgb_stamp_ns > before.rgb_stamp_ns
        if jumps[THERMAL] == later_jumps[THERMAL]:
            assert after.thermal_stamp_ns - before.thermal_stamp_ns >= (0 if reuse else 1)
    again, out_again = run()
    assert [pair.items for pair, _ in out_again] == used
    assert again.counts == pairing.counts


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 250), min_size=40, max_size=40), st.integers(-15, 15), st.integers(0, 2**62))
def test_late_frames_are_no_jump(lateness_ms, offset_ms, start):
    """RGB frames arrive shuffled, up to 7 frames late: less than the buffer."""
    start += 50 * MS
    stamps = [start + 33 * MS * i for i in range(40)]
    arrivals = [33 * i + late for i, late in enumerate(lateness_ms)]
    events = [(33 * i * MS, THERMAL, stamp + offset_ms * MS) for i, stamp in enumerate(stamps)]
    events += [(at * MS, RGB, stamp) for at, stamp in zip(arrivals, stamps, strict=True)]
    pairing = NearestPairing(16 * MS, 10)
    pairs = play(pairing, sorted(events))
    assert pairing.jumps == (0, 0)
    left = [pair.rgb_stamp_ns for pair in pairs]
    assert left == sorted(set(left))
    assert all(pair.offset_ns == offset_ms * MS for pair in pairs)
    not_overtaken = {stamp for i, stamp in enumerate(stamps) if arrivals[i] <= min(arrivals[i:])}
    assert not_overtaken <= set(left)


@settings(max_examples=100, deadline=None)
@given(
    delays_ms=st.tuples(st.integers(0, 90), st.integers(0, 90)),
    length=st.integers(15, 40),
    passes=st.integers(2, 5),
    lost=st.sets(st.tuples(st.sampled_from((RGB, THERMAL)), st.integers(0, 199)), max_size=12),
)
def test_looped_bag_goes_on_at_once(delays_ms, length, passes, lost):
    """Streams jump back at different moments, and some frames are lost: hardly any pair is."""
    total = length * passes
    events = [
        ((33 * i + delays_ms[stream]) * MS, stream, (1000 + 33 * (i % length) + 3 * stream) * MS)
        for stream in (RGB, THERMAL)
        for i in range(total)
        if (stream, i) not in lost
    ]
    pairing = NearestPairing(16 * MS, 10)
    pairs = play(pairing, sorted(events))
    possible = total - len({i for _, i in lost if i < total})
    # at each jump: partners that the faster camera has jumped away from, and what depends on a lost first frame
    in_flight = abs(delays_ms[RGB] - delays_ms[THERMAL]) // 33 + 1
    assert len(pairs) >= possible - (passes - 1) * in_flight - len(lost)
    assert pairing.jumps == (passes - 1, passes - 1)
    assert all(pair.offset_ns == 3 * MS for pair in pairs)


def after_two_seconds(rgb_ms: list[float], thermal_ms: list[float]) -> tuple[NearestPairing, list[Pair]]:
    """Both cameras at 30 Hz, then frames with these stamps, 33 ms apart: the pairs made of the latter."""
    pairing = NearestPairing(16 * MS, 10)
    steady = [1000 + 33 * i for i in range(60)]
    assert len(play(pairing, sorted(camera(RGB, steady) + camera(THERMAL, steady)))) == 60
    events = [((3000 + 33 * i) * MS, RGB, round(stamp * MS)) for i, stamp in enumerate(rgb_ms)]
    events += [((3001 + 33 * i) * MS, THERMAL, round(stamp * MS)) for i, stamp in enumerate(thermal_ms)]
    return pairing, play(pairing, sorted(events))


def test_both_streams_jump_and_not_one_pair_is_lost():
    pairing, pairs = after_two_seconds([1000, 1033, 1066], [1002, 1035, 1068])
    assert [pair.rgb_stamp_ns // MS for pair in pairs] == [1000, 1033, 1066]
    assert pairing.jumps == (1, 1)
    assert not any(pairing.counts.values())


def test_one_stream_jumps_two_frames_before_the_other():
    pairing, pairs = after_two_seconds([1000, 1033, 1066, 1099], [2980, 3013, 1066, 1099])
    assert [(pair.rgb_stamp_ns // MS, pair.thermal_stamp_ns // MS) for pair in pairs] == [(1066, 1066), (1099, 1099)]
    assert pairing.jumps == (1, 1)


def test_slow_camera_jumps_by_less_than_its_own_buffer():
    """9 Hz beside 30 Hz, a bag of 0.8 s: ten thermal frames last longer than the whole bag."""
    events = []
    for loop in range(6):
        for stream, period, count in ((RGB, 33, 24), (THERMAL, 111, 7)):
            stamps = [1000 + period * i + stream for i in range(count)]
            events += [((800 * loop + stamp + 2) * MS, stream, stamp * MS) for stamp in stamps]
    pairing = NearestPairing(16 * MS, 10)
    assert len(play(pairing, sorted(events))) >= 5 * 6 + 7  # of 7 in each pass
    assert pairing.jumps == (5, 5)


def test_first_frame_after_a_jump_outlives_the_tail_of_the_slower_camera():
    pairing, _ = after_two_seconds([], [])
    frames = [(RGB, 2980), (RGB, 1000), (THERMAL, 2980), (THERMAL, 1000)]
    pairs = play(pairing, [(i, stream, stamp * MS) for i, (stream, stamp) in enumerate(frames)])
    assert [pair.rgb_stamp_ns // MS for pair in pairs] == [2980, 1000]
    assert pairing.jumps == (1, 1)


def test_camera_whose_clock_is_set_right_does_not_make_the_other_one_jumpy():
    pairing = NearestPairing(16 * MS, 10)
    play(pairing, camera(RGB, [6000 + 33 * i for i in range(20)]))
    right = [1000 + 33 * i for i in range(20)]
    assert len(play(pairing, sorted(camera(RGB, right) + camera(THERMAL, right)))) == 20
    assert pairing.jumps == (1, 0)
    play(pairing, camera(THERMAL, [1300, 1333]))  # two in a row, but inside the buffer
    assert pairing.jumps == (1, 0)
    assert pairing.dropped[THERMAL][Reason.OLDER_THAN_LAST_PAIR] == 2


def test_very_late_frame_still_meets_its_partner_and_is_no_jump():
    pairing = NearestPairing(16 * MS, 10)
    pairs = play(pairing, [(0, THERMAL, 1000 * MS), *camera(RGB, [1033 + 33 * i for i in range(12)])])
    assert not pairs
    (pair,) = play(pairing, camera(RGB, [1001]))
    assert (pair.rgb_stamp_ns // MS, pair.thermal_stamp_ns // MS) == (1001, 1000)
    assert pairing.jumps == (0, 0)
    assert pairing.waiting[RGB] > 0


def test_pair_made_before_a_jump_is_confirmed_stays_the_last():
    pairing = NearestPairing(16 * MS, 10)
    play(pairing, camera(RGB, [5000 + 33 * i for i in range(30)]))
    assert len(play(pairing, [(0, RGB, 1000 * MS), (1, THERMAL, 1000 * MS), (2, RGB, 1033 * MS)])) == 1
    assert pairing.jumps == (1, 0)
    assert not play(pairing, [(3, RGB, 990 * MS), (4, THERMAL, 1003 * MS)])


@pytest.mark.parametrize("late", [1000, 2800])
def test_single_late_frame_is_dropped_and_counted(late):
    pairing, pairs = after_two_seconds([2980, late, 3046, 3079], [2980, 3013, 3046, 3079])
    assert [pair.rgb_stamp_ns // MS for pair in pairs] == [2980, 3046, 3079]
    assert pairing.jumps == (0, 0)
    assert pairing.dropped[RGB][Reason.OLDER_THAN_LAST_PAIR] == 1
    assert_accounted(pairing)


def test_one_wild_stamp_in_both_streams_does_not_stop_pairing_for_good():
    ahead = [2980 + 33 * i for i in range(30)]
    _, pairs = after_two_seconds([10**6, *ahead], [10**6, *ahead])
    assert pairs[0].rgb_stamp_ns == 10**6 * MS
    assert pairs[-1].rgb_stamp_ns == ahead[-1] * MS
    assert len(pairs) >= 1 + 30 - 10  # the buffer's worth


def test_backward_clock_of_a_camera_without_partner():
    """With no pair ever made there is nothing to go back from; the frames of before do not linger."""
    pairing = NearestPairing(16 * MS, 10)
    play(pairing, camera(RGB, [5000 + 33 * i for i in range(30)]))
    assert pairing.dropped[RGB][Reason.PARTNER_SILENT] == 20
    again = [1000 + 33 * i for i in range(5)]
    assert len(play(pairing, sorted(camera(RGB, again) + camera(THERMAL, again)))) == 5
    assert pairing.jumps[RGB] == 1
    assert pairing.waiting == (0, 0)


@pytest.mark.parametrize(
    ("frames", "fates"),
    [
        ([(RGB, 0), (THERMAL, 0)], {"stamp_unset": 2}),
        ([(RGB, 100 + i) for i in range(8)], {"partner_silent": 5}),
        ([(s, 100 * i + 50 * s) for i in range(1, 9) for s in (RGB, THERMAL)], {"no_partner": 10}),
        ([(RGB, 100), (THERMAL, 100), (RGB, 100), (THERMAL, 90)], {"older_than_last_pair": 2}),
        ([(RGB, 96), (RGB, 99), (THERMAL, 100)], {"superseded": 1}),
        ([(RGB, 100), (THERMAL, 100), (RGB, 105), (RGB, 200), (THERMAL, 200)], {"superseded": 1}),
        ([(RGB, 100), (RGB, 150), (THERMAL, 150)], {"no_partner": 1}),
    ],
)
def test_fate_of_frames(frames, fates):
    pairing = NearestPairing(10 * MS, queue_size=3)
    play(pairing, [(i, stream, stamp * MS) for i, (stream, stamp) in enumerate(frames)])
    assert {reason.value: n for reason, n in pairing.counts.items() if n} == fates
    assert_accounted(pairing)


@pytest.mark.parametrize("stream", [RGB, THERMAL])
def test_lost_frame_does_not_shift_all_later_pairs(stream):
    """60 Hz with a slop above half the period, where the frame after the lost one meets its partner's predecessor."""
    stamps = [1000 + 17 * i for i in range(40)]
    events = camera(stream, stamps, delay_ms=2) + camera(1 - stream, stamps[:20] + stamps[21:], delay_ms=5)
    pairing = NearestPairing(20 * MS, 10)
    pairs = play(pairing, sorted(events))
    assert len(pairs) == 39
    assert all(pair.offset_ns == 0 for pair in pairs)
    events = camera(stream, stamps, delay_ms=5) + camera(1 - stream, stamps[:20] + stamps[21:], delay_ms=2)
    pairing = NearestPairing(20 * MS, 10)
    pairs = play(pairing, sorted(events))
    assert len(pairs) >= 37
    assert sum(pair.offset_ns != 0 for pair in pairs) == 1
    assert_accounted(pairing)


@pytest.mark.parametrize("later", [[(THERMAL, 105), (RGB, 106)], [(THERMAL, 111), (RGB, 99), (RGB, 80)]])
def test_suspects_behind_the_last_pair_do_not_leave(later):
    pairing = NearestPairing(12 * MS, queue_size=1)
    frames = [(RGB, 100), (THERMAL, 110), *later]
    assert len(play(pairing, [(i, stream, stamp * MS) for i, (stream, stamp) in enumerate(frames)])) == 1


def test_jump_right_after_a_late_frame_forgets_the_late_one():
    pairing, _ = after_two_seconds([2300, 1400, 1433], [])
    assert pairing.jumps == (1, 0)
    assert pairing.waiting[RGB] == 2
    assert pairing.dropped[RGB][Reason.OLDER_THAN_LAST_PAIR] == 1


def test_of_two_equally_near_frames_the_later_leaves():
    (pair,) = play(NearestPairing(10 * MS, 10), [(0, RGB, 95 * MS), (1, RGB, 105 * MS), (2, THERMAL, 100 * MS)])
    assert pair.items == (1, 2)


def test_what_a_warning_needs_to_name_the_cause():
    pairing = NearestPairing(10 * MS, 10)
    assert pairing.nearest_offset_ns is None
    assert pairing.last_arrival_ns == [None, None]
    play(pairing, camera(RGB, [100]) + camera(THERMAL, [125]))
    assert pairing.nearest_offset_ns == 25 * MS
    assert pairing.last_arrival_ns == [101 * MS, 126 * MS]
    assert pairing.received == (1, 1)


def test_delay_is_live_and_reaches_frames_that_wait():
    pairing = NearestPairing(5 * MS, 10)
    assert not play(pairing, camera(RGB, [1000]) + camera(THERMAL, [1040]))
    pairing.thermal_delay_ns = 8 * MS
    (pair,) = play(pairing, camera(RGB, [1033]))
    assert (pair.rgb_stamp_ns, pair.thermal_stamp_ns, pair.offset_ns) == (1033 * MS, 1040 * MS, -MS)


def test_reuse_serves_several_rgb_frames_and_can_be_switched_off():
    pairing = NearestPairing(60 * MS, 10, reuse=True)
    events = camera(RGB, [1000 + 33 * i for i in range(8)], delay_ms=5) + camera(THERMAL, [1001, 1112, 1223])
    pairs = play(pairing, sorted(events))
    assert [(pair.rgb_stamp_ns // MS, pair.thermal_stamp_ns // MS) for pair in pairs] == [
        (1000, 1001),
        (1033, 1001),
        (1066, 1112),  # being 65 ms after 1001, it had to wait, and the next one with it
        (1099, 1112),
        (1132, 1112),
        (1165, 1112),
        (1198, 1223),
        (1231, 1223),
    ]
    assert pairing.paired == (8, 3)
    assert_accounted(pairing)
    pairing.reuse = False
    assert not play(pairing, camera(RGB, [1264]))


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    slop_ms=st.integers(5, 250),
    latencies_ms=st.tuples(st.integers(0, 90), st.integers(0, 90)),
    timeout_ms=st.sampled_from((None, 300)),
)
def test_every_rgb_frame_within_reach_of_a_slow_thermal_camera_leaves_once(seed, slop_ms, latencies_ms, timeout_ms):
    """30 Hz and 9 Hz, stamps off by up to 15 ms, a tenth of both lost, each camera late in its own way."""
    rng, events = np.random.default_rng(seed), []
    for stream, rate in ((RGB, 30), (THERMAL, 9)):
        moments = 1000 + (np.arange(4 * rate) + rng.random()) * 1000 / rate
        stamps = moments + rng.uniform(-15, 15, len(moments))
        for moment, stamp in zip(moments[kept := rng.random(len(moments)) >= 0.1], stamps[kept], strict=True):
            events.append((round((moment + 15 + latencies_ms[stream]) * MS), stream, round(stamp * MS)))
    pairing = NearestPairing(slop_ms * MS, 10, reuse=True, timeout_ns=timeout_ms and timeout_ms * MS)
    pairs = play(pairing, sorted(events))
    thermal = np.array([stamp for _, stream, stamp in events if stream == THERMAL])
    rgb = [stamp for _, stream, stamp in events if stream == RGB]
    within_reach = [stamp for stamp in rgb if np.abs(thermal - stamp).min() <= slop_ms * MS]
    left = [pair.rgb_stamp_ns for pair in pairs]
    assert left == sorted(set(left))
    if timeout_ms is None:
        assert left == sorted(within_reach)
        return
    # What waits while the thermal camera is silent for longer than the timeout is overtaken by frames that leave alone.
    begins = [pair.rgb_stamp_ns for pair in pairs if None in pair.items]
    overtaken = {s for s in within_reach if any(0 < begin - s <= 450 * MS for begin in begins)}
    assert set(within_reach) - overtaken <= set(left)
    assert_accounted(pairing)


def test_clear_drops_what_waits_and_goes_on():
    pairing = NearestPairing(10 * MS, 10)
    play(pairing, camera(RGB, [5000, 5033]) + camera(THERMAL, [5000, 5100]))
    pairing.clear()
    assert pairing.waiting == (0, 0)
    assert_accounted(pairing)
    assert len(play(pairing, camera(RGB, [1000]) + camera(THERMAL, [1000]))) == 1


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from((RGB, THERMAL)), STAMPS, st.integers(0, 400)), max_size=80),
    st.integers(0, 60),
    st.integers(-50, 50),
    st.booleans(),
)
def test_invariants_with_silent_cameras(frames, slop_ms, delay_ms, reuse):
    pairing, out, now = NearestPairing(slop_ms * MS, 4, delay_ms * MS, reuse, 300 * MS), [], 0
    for i, (stream, stamp, passed_ms) in enumerate(frames):
        now += passed_ms * MS
        pairs = pairing.push(stream, stamp, now, i)
        assert_accounted(pairing)
        out.extend((pair, pairing.jumps) for pair in pairs)
    single = [pair for pair, _ in out if None in pair.items]
    assert sum(pairing.alone) == len(single) == len(out) - pairing.pairs
    for pair in single:
        assert np.isnan(pair.offset_ns)
        stream = RGB if pair.items[THERMAL] is None else THERMAL
        assert pair.rgb_stamp_ns == frames[pair.items[stream]][1] - (stream == THERMAL) * delay_ms * MS
    for (before, jumps), (after, later_jumps) in zip(out, out[1:], strict=False):
        if jumps == later_jumps:  # never twice, never back
            assert after.rgb_stamp_ns > before.rgb_stamp_ns


@pytest.mark.parametrize("gone", [RGB, THERMAL])
@pytest.mark.parametrize("how", ["silent", "unset", "stuck"])
def test_one_camera_goes_on_alone_and_pairs_return_at_once(gone, how):
    pairing = NearestPairing(16 * MS, 10, thermal_delay_ns=5 * MS, timeout_ns=300 * MS)
    events = []
    for i in range(120):
        for stream in (RGB, THERMAL):
            stamp = (1000 + 33 * i + 5 * stream) * MS
            if stream == gone and 30 <= i < 90:
                if how == "silent":
                    continue
                stamp = 0 if how == "unset" else (1000 + 33 * 29 + 5 * stream) * MS
            events.append(((1010 + 33 * i + stream) * MS, stream, stamp))
    pairs = play(pairing, events)
    stamps = [pair.rgb_stamp_ns // MS for pair in pairs]
    first = 39 + (gone == THERMAL)  # the last thermal frame before the gap comes behind the RGB frame
    assert stamps == [1000 + 33 * i for i in (*range(30), *range(first, 120))]
    assert [pair.items[gone] is None for pair in pairs[30:81]] == [True] * 51  # an RGB frame that returns does not wait
    assert all(None not in pair.items for pair in pairs[:30] + pairs[81:])
    assert_accounted(pairing)


@pytest.mark.parametrize("alive", [RGB, THERMAL])
def test_a_camera_that_never_came_is_waited_for_until_the_timeout(alive):
    frames = camera(alive, [1000 + 33 * i for i in range(60)])
    assert not play(NearestPairing(16 * MS, 10), frames)
    pairing = NearestPairing(16 * MS, 10, timeout_ns=300 * MS)
    assert [pair.rgb_stamp_ns // MS for pair in play(pairing, frames)] == [1000 + 33 * i for i in range(10, 60)]
    assert_accounted(pairing)


def test_slow_cameras_and_a_pause_of_both_are_not_silent():
    """Longer than the timeout between the frames of a camera, but not between those of a pair."""
    moments = [1000, 2000, 3000, 3033, 9000, 9033]
    pairing = NearestPairing(16 * MS, 10, timeout_ns=300 * MS)
    pairs = play(pairing, sorted(camera(RGB, moments) + camera(THERMAL, moments, delay_ms=50)))
    assert [pair.rgb_stamp_ns // MS for pair in pairs if None not in pair.items] == moments


def test_cameras_that_never_meet_do_not_leave_alone():
    """Clocks that disagree are another fault: both cameras are there."""
    pairing = NearestPairing(16 * MS, 10, timeout_ns=300 * MS)
    events = camera(RGB, [1000 + 33 * i for i in range(60)])
    events += [(arrival + MS, THERMAL, stamp + 7000 * MS) for arrival, _, stamp in events]
    assert not play(pairing, sorted(events))


def test_bad_arguments_name_value_and_allowed():
    with pytest.raises(ValueError, match=r"slop is -1 ns; allowed: 0 or more"):
        NearestPairing(-1, 10)
    with pytest.raises(ValueError, match=r"queue size is 0; allowed: 1 or more"):
        NearestPairing(0, 0)
    with pytest.raises(ValueError, match=r"stream is 2; allowed: 0 \(rgb\), 1 \(thermal\)"):
        NearestPairing(0, 1).push(2, 1, 1, None)
