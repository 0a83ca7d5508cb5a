"""Where a target is expected, and how far from there a score is believed."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ckd_tracker_ros import boxes
from ckd_tracker_ros.engine import create
from ckd_tracker_ros.frame import Image, RgbtFrame
from ckd_tracker_ros.motion import (
    CLAIM_S,
    CLOSE_S,
    LONGEST_S,
    MERGED_S,
    MOST_RIVALS,
    NEAREST,
    PUT_OFF_S,
    STEP_S,
    WIDEST,
    Motion,
)
from ckd_tracker_ros.network.student import Student
from ckd_tracker_ros.synthetic import Scene, SceneConfig
from ckd_tracker_ros.tracker import Tracker

BOX = np.array([100.0, 50, 30, 40])
STEP_NS = round(STEP_S * 1e9)
NO_RIVAL = np.zeros((0, 4))


def followed(path, score: float = 1.0, every_ns: int = STEP_NS) -> tuple[Motion, np.ndarray]:
    """A target of BOX's size whose left top corner was at each of `path`; its motion and its last box."""
    motion, box = Motion(0), np.concatenate([path[0], BOX[2:]])
    for i, corner in enumerate(path[1:], 1):
        expected, found = motion.expected(box, i * every_ns), np.concatenate([corner, BOX[2:]])
        (motion, _), box = motion.seen(expected, found, score, NO_RIVAL, i * every_ns), found
    return motion, box


@pytest.mark.parametrize("every_ns", [STEP_NS, 3 * STEP_NS])
def test_a_steady_velocity_is_expected_to_go_on_also_over_missing_frames(every_ns):
    path = np.array([4.0, -2.0]) * np.arange(60)[:, None]
    motion, box = followed(path, every_ns=every_ns)
    for frames in (1, 2, 4):
        there = motion.expected(box, motion.stamp_ns + frames * every_ns)
        assert np.linalg.norm(there[:2] - box[:2] - frames * np.array([4.0, -2.0])) < 1.5 * frames
    np.testing.assert_array_equal(there[2:], box[2:])
    ahead = [motion.expected(box, motion.stamp_ns + round(s * 1e9)) for s in (LONGEST_S, 100)]
    np.testing.assert_allclose(*ahead)  # no further ahead than that


def test_frames_that_come_close_together_do_not_make_an_error_a_velocity():
    error = BOX + [3, 0, 0, 0]
    slow, fast = (Motion(0).seen(BOX, error, 1.0, NO_RIVAL, stamp)[0].velocity[0] for stamp in (STEP_NS, 1_000_000))
    assert slow < fast <= 2 * slow


def test_what_is_hardly_seen_moves_the_velocity_hardly():
    path = np.array([4.0, 0.0]) * np.arange(10)[:, None]
    speeds = [np.linalg.norm(followed(path, score)[0].velocity) for score in (0.0, 0.3, 1.0)]
    assert speeds[0] == 0 and speeds[0] < speeds[1] < speeds[2]


def test_what_is_hardly_seen_is_believed_to_be_where_it_was_expected():
    away = BOX + [8, -4, 2, 3]
    places = [Motion(0).seen(BOX, away, score, NO_RIVAL, STEP_NS)[1] for score in (0.0, 0.4, 1.0)]
    np.testing.assert_allclose(places[0][:2] + places[0][2:] / 2, BOX[:2] + BOX[2:] / 2)
    np.testing.assert_allclose(places[2], away)
    assert BOX[0] < places[1][0] < away[0] and (places[1][2:] == away[2:]).all()


def test_the_window_is_narrow_for_what_is_steady_and_seen_and_wide_for_the_rest():
    rng = np.random.default_rng(0)
    still = np.zeros((60, 2))
    jumping = rng.normal(0, 25, (60, 2))
    assert followed(still)[0].spread < NEAREST < followed(still, 0.3)[0].spread < followed(jumping)[0].spread
    centres = [motion.window(12, 4.0, BOX) for motion in (followed(still)[0], Motion(0))]
    for weights in centres:
        np.testing.assert_allclose(weights, weights[::-1, ::-1])
        assert weights.max() == pytest.approx(weights[5, 5], rel=1e-9) and weights.max() <= 1
    assert (centres[0][0] < centres[1][0]).all()


def test_a_jump_is_believed_but_not_to_where_a_look_alike_was_seen():
    alone = followed(np.zeros((60, 2)))[0]
    box = np.concatenate([np.zeros(2), BOX[2:]])
    centre, size = BOX[2:] / 2, np.sqrt(np.prod(BOX[2:]))
    rivals = np.array([[*(centre + size * (np.array([10.5, 0.5]) / 12 - 0.5) * 4), 0.9, 0.0]])  # right, top
    beside = alone.seen(box, box, 1.0, rivals, 10**10)[0]
    before, after = alone.window(12, 4.0, box), beside.window(12, 4.0, box)
    assert after[0, 10] < 0.1 * before[0, 10]
    np.testing.assert_allclose(after[[0, 11, 11], [0, 0, 11]], before[[0, 11, 11], [0, 0, 11]], rtol=0.01)
    elsewhere = beside.window(12, 4.0, box + [size, 0, 0, 0])  # it stays where it is when the crop moves
    assert elsewhere[0, 7] < 0.1 * elsewhere[11, 7]
    for _ in range(120):
        beside = beside.seen(box, box, 1.0, NO_RIVAL, 10**10)[0]
    assert beside.window(12, 4.0, box)[0, 10] > 0.9 * before[0, 10], "it is forgotten"


def test_look_alikes_are_followed_and_the_target_is_none():
    box = BOX.copy()
    motion = Motion(0)
    for i in range(40):  # it walks, the target stands
        rivals = np.array([[160.0 + i, 70.0, 0.8, 1.0], [40.0, 70.0, 0.3, 0.0]])
        motion, box = motion.seen(box, box, 1.0, rivals, i * STEP_NS)
    np.testing.assert_allclose(motion.rivals[:, :4], rivals)
    there, near = BOX + [84, 0, 0, 0], BOX + [99, 0, 0, 0]
    found = motion.seen(box, there, 1.0, NO_RIVAL, 41 * STEP_NS)[0]
    np.testing.assert_allclose(found.rivals[:, :2], [[40.0, 70.0]])  # the target was found where the other one was
    motion = motion.seen(box, near, 1.0, NO_RIVAL, 41 * STEP_NS)[0]
    assert len(motion.rivals) == 2, "beside it: both may be one peak"
    for later in range(round(MERGED_S / STEP_S) + 1):
        motion = motion.seen(near, near, 1.0, NO_RIVAL, (42 + later) * STEP_NS)[0]
    np.testing.assert_allclose(motion.rivals[:, :2], [[40.0, 70.0]])  # but not for long


def test_a_look_alike_that_is_not_seen_any_more_keeps_its_score_and_its_age_until_it_is_forgotten():
    rivals = np.array([[40.0, 70.0, 0.8, 0.0]])
    motion, box = Motion(0).seen(BOX, BOX, 1.0, rivals, STEP_NS)
    for i in range(2, 17):
        motion, box = motion.seen(box, box, 1.0, NO_RIVAL, i * STEP_NS)
    np.testing.assert_allclose(motion.rivals, [[40, 70, 0.8, 0, 0.5]], rtol=1e-6)
    for i in range(17, 120):
        motion, box = motion.seen(box, box, 1.0, NO_RIVAL, i * STEP_NS)
    assert not len(motion.rivals)


def test_a_look_alike_that_overlaps_the_target_may_be_mistaken_for_it_for_a_second():
    centre = boxes.xywh_to_cxcywh(BOX)[:2]
    seen = []
    for away, doubt, told_apart in ((0.7, 0, False), (1.1, 0, True), (0.7, 4, False), (0.7, 4, True)):
        rivals = np.array([[*(centre + BOX[2:] * away), 0.8, doubt]])
        seen.append(Motion(0).seen(BOX, BOX, 1.0, rivals, STEP_NS, told_apart=told_apart)[0].crowded)
    assert seen == [CLOSE_S, 0, 0, CLOSE_S], "beside it, apart, of other looks, and where pixels can tell"
    motion, steps = Motion(0, crowded=CLOSE_S), 0
    while motion.crowded:
        steps += 1
        motion = motion.seen(BOX, BOX, 1.0, NO_RIVAL, steps * STEP_NS)[0]
    assert steps in (30, 31)


def claimed(motion: Motion) -> NDArray[np.bool_]:
    """(12, 12) of the cells of a search crop around `BOX`: whether a look-alike claims what is in their middles."""
    x, y = boxes.xywh_to_cxcywh(BOX)[:2]
    cells = (np.arange(12) - 5.5) * np.sqrt(np.prod(BOX[2:])) / 3
    return motion.claims(np.stack(np.meshgrid(x + cells, y + cells), axis=-1), BOX)


def test_what_is_seen_where_a_look_alike_was_just_seen_is_that_for_a_while():
    centre, size = boxes.xywh_to_cxcywh(BOX)[:2], np.sqrt(np.prod(BOX[2:]))
    beside = np.array([[*(centre + (size, 0)), 0.8, 0.0]])
    motion = Motion(0).seen(BOX, BOX, 1.0, beside, STEP_NS)[0]
    cells = claimed(motion)
    rows, columns = np.nonzero(cells)
    assert cells[5, 8] and columns.min() == 8 and columns.max() == 9 and rows.min() >= 4 and rows.max() <= 7
    near = np.array([[*(centre + (0.2 * size, 0)), 0.8, 0.0]])
    for rivals in (near, beside * (1, 1, 0.1, 1), NO_RIVAL):
        assert not claimed(Motion(0).seen(BOX, BOX, 1.0, rivals, STEP_NS)[0]).any()
    steps = 0
    while claimed(motion).any():
        steps += 1
        motion = motion.seen(BOX, BOX, 0.3, beside, (steps + 1) * STEP_NS, put_off=True)[0]
    assert steps == pytest.approx(PUT_OFF_S / STEP_S, abs=1), "it goes on: it is the target"
    motion = motion.seen(BOX, BOX, 0.3, beside, (steps + 2) * STEP_NS)[0]
    assert claimed(motion).any(), "and the next time it is put off again"
    for later in range(round(CLAIM_S / STEP_S) + 1):
        motion = motion.seen(BOX, BOX, 1.0, NO_RIVAL, (steps + 3 + later) * STEP_NS)[0]
    assert len(motion.rivals) and not claimed(motion).any(), "it has not been seen lately"


def test_a_place_is_claimed_by_what_is_nearer_to_it_than_the_target():
    centre, size = boxes.xywh_to_cxcywh(BOX)[:2], np.sqrt(np.prod(BOX[2:]))
    motion = Motion(0).seen(BOX, BOX, 1.0, np.array([[*(centre + (0.6 * size, 0)), 0.8, 0.0]]), STEP_NS)[0]
    places = [centre + (share * size, 0) for share in (0.2, 0.29, 0.31, 0.6, 1.0, 1.2)]
    assert [motion.claims(place, BOX) for place in places] == [False, False, True, True, True, False]
    assert [motion.claims(place, BOX, in_full=True) for place in places] == [False, False, False, True, False, False]
    around, beside = (boxes.cxcywh_to_xywh(np.array([*centre, side * size, size])) for side in (1.3, 1.1))
    assert motion.claims_in(around, BOX) and not motion.claims_in(beside, BOX)
    assert not Motion(0).claims(places[3], BOX) and not Motion(0).claims_in(around, BOX)


@pytest.mark.parametrize(("away", "remembered"), [(0.5, True), (0.2, False)])
def test_what_claims_a_place_near_the_target_is_not_forgotten_when_both_are_one_peak(away, remembered):
    centre, size = boxes.xywh_to_cxcywh(BOX)[:2], np.sqrt(np.prod(BOX[2:]))
    motion = Motion(0).seen(BOX, BOX, 1.0, np.array([[*(centre + (away * size, 0)), 0.8, 0.0]]), STEP_NS)[0]
    steps = 0
    while len(motion.rivals):
        steps += 1
        motion = motion.seen(BOX, BOX, 1.0, NO_RIVAL, (steps + 1) * STEP_NS)[0]
    assert steps == (pytest.approx(MERGED_S / STEP_S, abs=1.01) if remembered else 1)


@given(
    box=st.tuples(*[st.floats(-1e4, 1e4)] * 2, *[st.floats(1, 1e4)] * 2).map(np.array),
    found=st.tuples(*[st.floats(-1e4, 1e4)] * 2, *[st.floats(1, 1e4)] * 2).map(np.array),
    score=st.floats(0, 1),
    rivals=st.lists(st.tuples(*[st.floats(-1e4, 1e4)] * 2, st.floats(0, 1), st.floats(0, 4)), max_size=12),
    stamps=st.lists(st.integers(-(2**62), 2**62), min_size=2, max_size=5),
)
@settings(max_examples=80, deadline=None)
def test_whatever_is_found_and_however_the_clock_jumps_it_stays_finite(box, found, score, rivals, stamps):
    motion = Motion(stamps[0])
    for stamp in stamps[1:]:
        expected = motion.expected(box, stamp)
        motion, believed = motion.seen(expected, found, score, np.reshape(rivals, (-1, 4)), stamp)
        assert np.isfinite(believed).all() and (believed[2:] == found[2:]).all()
        assert np.isfinite(expected).all() and np.isfinite(motion.velocity).all()
        assert (
            0 <= motion.spread <= WIDEST
            and np.isfinite(motion.window(12, 4.0, believed)).all()
            and len(motion.rivals) <= MOST_RIVALS
        )


def moving_square(i: int, step: float) -> RgbtFrame:
    pixels = np.zeros((200, 400), np.uint8)
    left = round(20 + step * i)
    pixels[80:110, left : left + 30] = 255
    return RgbtFrame((Image(np.dstack([pixels] * 3)), Image(pixels, "mono")), i * STEP_NS)


def test_the_search_goes_ahead_of_the_target_only_where_the_network_asks_for_it(tiny_student):
    states = {}
    for on in (False, True):
        student = Student(replace(tiny_student.config, motion=on))
        student.load_state_dict(tiny_student.state_dict())
        tracker = Tracker(create(student, "cpu"))
        state = tracker.start(moving_square(0, 8), (20, 80, 30, 30))
        fast = replace(state, motion=replace(state.motion, velocity=np.array([300.0, 0.0]), stamp_ns=0))
        states[on] = [tracker.step(s, moving_square(1, 8))[1] for s in (state, fast)]
    still, moved = (estimate.box for estimate in states[False])
    np.testing.assert_array_equal(still, moved)  # as published
    still, moved = (estimate.box for estimate in states[True])
    assert not np.allclose(still, moved)


def test_a_target_expected_outside_the_image_is_looked_for_at_its_border(tiny_student):
    student = Student(replace(tiny_student.config, motion=True))
    student.load_state_dict(tiny_student.state_dict())
    tracker = Tracker(create(student, "cpu"))
    state = tracker.start(moving_square(0, 0), (20, 80, 30, 30))
    state = replace(state, motion=replace(state.motion, velocity=np.array([-1e6, 1e6])))
    box = tracker.step(state, moving_square(1, 0))[1].box
    assert np.isfinite(box).all() and (box[:2] + box[2:] > 0).all() and (box[:2] < (400, 200)).all()


def test_a_box_hardly_changes_its_size_where_its_pixels_tell_it_from_a_look_alike_that_is_near(tiny_student):
    student = Student(replace(tiny_student.config, motion=True, size_rate=0.5, size_trust=0.0))
    student.load_state_dict(tiny_student.state_dict())
    tracker = Tracker(create(student, "cpu"))
    state = tracker.start(moving_square(0, 0), (20, 80, 30, 30))
    changes = []
    for crowded, others in ((0.0, 1), (CLOSE_S, 0), (CLOSE_S, 1)):
        looks = replace(state.looks, others=state.looks.mean[None][:others] - 30)
        assert looks.tells_apart == bool(others)
        before = replace(state, motion=replace(state.motion, crowded=crowded), looks=looks)
        changes.append(np.abs(np.log(tracker.step(before, moving_square(1, 0))[1].box[2:] / 30)))
    assert changes[0].min() > 0.01
    np.testing.assert_allclose(changes[1], changes[0], rtol=0.2)
    np.testing.assert_array_less(changes[2], changes[0] / 2)


@pytest.mark.parametrize(
    ("rival", "waited", "changed", "crowded", "goes_over"),
    [
        pytest.param(False, 0.0, False, 0.0, True, id="after a jump it is elsewhere"),
        pytest.param(True, 0.0, False, 0.0, False, id="a look-alike was just seen there"),
        pytest.param(True, PUT_OFF_S, False, 0.0, True, id="and has scored higher for long"),
        pytest.param(True, 0.0, True, 0.0, True, id="and has the target's looks, what is in its place has not"),
        pytest.param(True, 0.0, False, CLOSE_S, True, id="pixels tell the two apart"),
    ],
)
def test_a_target_goes_over_to_where_a_look_alike_was_only_after_a_while(rival, waited, changed, crowded, goes_over):
    """A step in which the target is hardly seen, and what looks like it stands beside it."""
    tracker = Tracker.from_checkpoint("ckd_tiny", "cpu", threads=1)
    scene = Scene(SceneConfig(frames=1, distractors=0), seed=1)
    first, box = scene.frame(0), scene.boxes(0)[0]
    left, top, width, height = np.round(box).astype(int)
    away = round(np.sqrt(width * height))
    rows = slice(max(top - 3, 0), top + height + 3)
    images = []
    for image in first.images:
        pixels = image.pixels.copy()
        body = pixels[rows, left - 3 : left + width + 3].copy()
        pixels[rows, left - 3 + away : left + width + 3 + away] = body
        pixels[rows, left - 3 : left + width + 3] = body - body // 3 if changed else cv2.blur(body, (15, 15))
        images.append(replace(image, pixels=pixels))
    second = RgbtFrame(tuple(images), first.stamp_ns + STEP_NS)
    beside = box + (away, 0, 0, 0)
    state = tracker.start(first, box)
    rivals = np.array([[*boxes.xywh_to_cxcywh(beside)[:2], 0.5, 0.0, 0.0]])[: int(rival)]
    state = replace(
        state,
        motion=replace(state.motion, rivals=rivals, put_off=waited, crowded=crowded),
        looks=replace(state.looks, seconds=3.0, spread=np.eye(4) * 9.0, others=state.looks.mean[None] - 30),
    )
    assert state.looks.tells_apart
    now, estimate = tracker.step(state, second)
    assert boxes.iou(estimate.box, beside if goes_over else box) > 0.5
    assert bool(now.motion.put_off) != goes_over
