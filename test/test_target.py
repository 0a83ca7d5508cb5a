"""The life of a target: when it is believed, how it is searched for, and what is taken for it."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckd_tracker_ros import boxes, look_alikes, search
from ckd_tracker_ros import target as target_module
from ckd_tracker_ros.frame import Image, RgbtFrame
from ckd_tracker_ros.looks import COUNT, Looks
from ckd_tracker_ros.motion import Motion
from ckd_tracker_ros.search import Search
from ckd_tracker_ros.sightings import Sightings
from ckd_tracker_ros.state import TargetState
from ckd_tracker_ros.synthetic import Scene, SceneConfig
from ckd_tracker_ros.target import BESIDE_S, LostSettings, Status, Target, _renewed, follow, judge, resized
from ckd_tracker_ros.tracker import DOUBTED, SUFFICIENT, Tracker

T, U, L, R = Status.TRACKING, Status.UNCERTAIN, Status.LOST, Status.REMOVED
SIZE = (640, 480)
STEP = 1 / 30


@pytest.fixture(scope="module")
def tracker() -> Tracker:
    return Tracker.from_checkpoint("ckd_tiny", device="cpu", threads=1)


def state_at(x: float, y: float, side: float = 40, velocity: tuple[float, float] = (0, 0)) -> TargetState:
    box = np.array([x - side / 2, y - side / 2, side, side])
    motion, looks = Motion(0, velocity=np.array(velocity)), Looks.unknown((None, None), (True, True))
    return TargetState(box, (None, None), None, motion, {}, looks)


def sightings(*places: tuple[float, ...], side: float = 40) -> Sightings:
    """Of (x, y, score) and perhaps doubt, in one crop; without a doubt nobody has looked at colours and heat."""
    rows = [(x - side / 2, y - side / 2, side, side, score, *(doubt or (0,)), 0) for x, y, score, *doubt in places]
    looks = [np.full(COUNT, 50.0 + len(doubt) if doubt else np.nan) for _, _, _, *doubt in places]
    return Sightings.of(np.reshape(rows, (-1, 7)), np.reshape(looks, (-1, COUNT)))


def others_of(*rows: tuple[float, ...]) -> np.ndarray:
    """As in `look_alikes`, from rows with or without a usual doubt; nothing speaks for something else in a place."""
    return np.array([(*row, np.nan, 0.0) if len(row) == look_alikes.DOUBT else (*row, 0.0) for row in rows])


@pytest.fixture(scope="module")
def judged(tracker):
    """A frame, a target in it, and what a step of it says."""
    scene = Scene(SceneConfig(frames=1), 0)
    state = tracker.start(scene.frame(0), scene.boxes(0)[0])
    return scene.frame(0), state, *tracker.step(state, scene.frame(0))


def test_uncertain_then_lost_with_hysteresis(judged):
    frame, start, state, estimate = judged
    target, seen = Target.begin("a", "name", start), []
    for confidence in (0.9, 0.25, 0.1, 0.3, 0.5, 0.3, 0.1, 0.1, 0.1):
        target = judge(target, state, replace(estimate, confidence=confidence), frame, LostSettings(0.2, 0.4, after=2))
        seen.append(target.status)
    assert seen == [T, T, U, U, T, T, U, U, L]
    assert target.frames_lost == 1 and target.label == "name" and target.search is not None


def test_a_target_is_resized_with_the_images(tracker):
    scene = Scene(SceneConfig(frames=3), 0)
    frames = [scene.frame(i) for i in range(3)]
    halves = tuple(Image(cv2.resize(i.pixels, None, fx=0.5, fy=0.5), i.order) for i in frames[1].images)
    targets = [Target.begin("a", "", tracker.start(frames[0], scene.boxes(0)[0]))]
    (smaller,) = targets = follow(tracker, targets, replace(frames[1], images=halves), LostSettings())
    assert smaller.status is T and boxes.iou(2 * smaller.box, scene.boxes(1)[0]) > 0.7
    (larger,) = follow(tracker, targets, frames[2], LostSettings())
    assert larger.status is T and boxes.iou(larger.box, scene.boxes(2)[0]) > 0.7
    lost = replace(smaller, believed=smaller.state, search=Search(others=others_of((10.0, 20.0, 0.5, 1.0, 1.0, 2.0))))
    again = resized(lost, frames[2])
    assert again.search.others.tolist() == [[20.0, 40.0, 0.5, 1.0, 1.0, 2.0, 0.0]]
    np.testing.assert_allclose(again.believed.box, 2 * smaller.state.box)
    np.testing.assert_allclose(again.size, 2 * smaller.size)
    cut = replace(smaller, state=smaller.state.resized((320, 320)))
    assert cut.state.box is smaller.state.box, "other proportions: part of the view is missing, nobody knows which"


def test_what_is_not_believed_teaches_no_velocity(judged):
    frame, start, state, estimate = judged
    moving = replace(start, motion=replace(start.motion, velocity=np.array([30.0, 0.0])))
    jumped = replace(state, motion=replace(state.motion, velocity=np.array([-900.0, 0.0])))
    target = judge(Target.begin("a", "", moving), jumped, replace(estimate, confidence=0.0), frame, LostSettings())
    assert target.state.motion.velocity.tolist() == [30.0, 0.0]
    np.testing.assert_allclose(target.believed.box, moving.box)
    again = judge(target, jumped, replace(estimate, confidence=0.0), frame, LostSettings())
    assert again.believed is target.believed, "the last state that was believed stays"


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"confidence": 0.5, "recover": 0.4}, "0.5.*0.4"),
        ({"after": -1}, "lost.after is -1; allowed: 0 or more"),
        ({"give_up": float("nan")}, "lost.give_up is nan"),
        ({"crops": 0}, "lost.crops is 0; allowed: 1 or more"),
    ],
)
def test_settings_that_make_no_sense(wrong, said):
    with pytest.raises(ValueError, match=said):
        LostSettings(**wrong)


def test_a_lost_target_goes_on_ever_slower_and_stays_in_the_image():
    state = state_at(300, 200, velocity=(100, 0))
    xs = [search.expected(state, seconds, SIZE)[0] for seconds in (0, 0.1, 1, 10)]
    assert xs == sorted(xs) and xs[0] == 280 and xs[3] < 280 + 100 * search.COAST_S + 1
    assert search.expected(state_at(630, 200, velocity=(500, 0)), 10, SIZE)[0] == 640 - 20


@given(
    st.floats(0, 640), st.floats(0, 480), st.floats(4, 300), st.integers(1, 8), st.booleans(),
)  # fmt: skip
def test_the_sweep_reaches_every_place(x, y, side, count, sweep_only):
    state, plan, seen = state_at(x, y, side), Search(), []
    columns, rows = (int(np.ceil(n / (search.STRIDE * 4 * side))) for n in SIZE)
    for _ in range((columns * rows + 1) * (1 if count > 1 or sweep_only else 2)):
        chosen, plan = search.places(plan, state, SIZE, 4.0, count, sweep_only)
        assert len(chosen) <= count
        seen += chosen
        if len(seen) > 400:
            return  # tiny targets: the order is the same
    centres = boxes.xywh_to_cxcywh(np.array(seen))[:, :2]
    if count == 1 and not sweep_only:
        np.testing.assert_array_equal(seen[::2], [seen[0]] * len(seen[::2]), "every other one where it should be")
    corners = np.array([(a, b) for a in (0, 320, 640) for b in (0, 240, 480)])
    reach = np.abs(centres[:, None] - corners).max(axis=-1).min(axis=0)
    assert (reach <= 4 * side / 2 + 1e-6).all(), "every corner lies in a crop"


def test_one_crop_a_step_goes_to_the_sweep_too_beside_a_look_alike_that_is_never_seen():
    plan, state, chosen = Search(seconds=3.0, others=others_of((420.0, 100, 0.9, 0.1, 1))), state_at(100, 100), []
    for _ in range(8):
        (place,), plan = search.places(plan, state, SIZE, 4.0, 1, False)
        chosen.append(tuple(boxes.xywh_to_cxcywh(place)[:2]))
    assert chosen[::2] == [(100, 100)] * 4 and chosen[3::4] == [(420, 100)] * 2
    assert chosen[1] != chosen[5] and not {chosen[1], chosen[5]} & {(420, 100)}


def test_what_is_too_far_away_to_be_the_target_never_becomes_it():
    state = state_at(100, 100)
    plan = Search.of(state)
    far = (400.0, 100.0)
    for step in range(90):  # three seconds later it could have come so far; a thing that was there before is not it
        far = far[0] - 1.5, far[1]
        plan, free, _ = search.update(plan, state, SIZE, sightings((*far, 0.9)), (), STEP)
        assert not len(free.scores), step
    plan, free, _ = search.update(plan, state, SIZE, sightings((*far, 0.9), (220, 180, 0.8)), (), STEP)
    assert free.scores.tolist() == [0.8], "what turns up now may be it"


def test_known_look_alikes_and_other_targets_are_not_the_target():
    motion = Motion(0, rivals=np.array([[150.0, 100.0, 0.8, 0.0, 0.0]]))
    state = replace(state_at(100, 100), motion=motion)
    both = sightings((152, 100, 0.9), (110, 130, 0.7), (100, 100, 0.6))
    _, free, _ = search.update(Search.of(state), state, SIZE, both, (np.array([90.0, 110, 40, 40]),), STEP)
    assert free.scores.tolist() == [0.6]


def test_a_sighting_has_to_be_confirmed_in_its_place():
    plan = search.weigh(Search(), sightings((30, 30, 0.9)), 1.0, bad=False)
    assert plan.confirmed == 1
    assert search.weigh(plan, sightings((32, 30, 0.9)), 1.0, bad=False).confirmed == 2
    assert search.weigh(plan, sightings((32, 30, 0.7)), 0.25, bad=False).confirmed == 1.25, "less than usual"
    assert search.weigh(plan, sightings((220, 30, 0.9)), 1.0, bad=False).confirmed == 1, "in another place"
    assert search.weigh(plan, sightings((32, 30, 0.4)), 0.0, bad=True).confirmed == 0
    assert search.weigh(plan, sightings((32, 30, 0.6)), 0.0, bad=False).confirmed == 0
    blinked = search.weigh(plan, sightings(), 0.0, bad=True, seconds=STEP)
    assert search.weigh(blinked, sightings((32, 30, 0.9)), 1.0, bad=False).confirmed == 2, "out of sight for a frame"
    for _ in range(3):
        blinked = search.weigh(blinked, sightings((32, 30, 0.2)), 0.0, bad=True, seconds=STEP)
    assert blinked.found is None
    assert search.weigh(Search(), sightings((32, 30, 0.6, 4.0)), 0.0, bad=True).found is None, "not worth a crop"
    assert search.weigh(Search(), sightings((32, 30, 0.9, 4.0)), 0.0, bad=True).found is not None


def test_what_is_certainly_another_thing_is_not_followed(judged):
    frame, start, state, estimate = judged
    there = boxes.xywh_to_cxcywh(estimate.box)[:2]
    away = replace(start, box=start.box + (0, 60, 0, 0))
    sure = replace(estimate, confidence=0.9, peak=0.9, doubt=0.0)
    for certain, followed in ((1, False), (0, True)):
        plan = Search(others=others_of((*there, 0.9, 0.0, certain)))
        target = replace(Target.begin("a", "", away), status=U, believed=away, search=plan)
        target = judge(target, state, sure, frame, LostSettings())
        assert target.status is U and target.confidence < LostSettings().recover
        np.testing.assert_allclose(target.box, estimate.box if followed else away.box, atol=1)
        np.testing.assert_allclose(target.state.box, state.box if followed else away.box, atol=1)


def test_who_is_missing_has_the_crops_and_who_is_on_trial_one():
    lost, there = (Target.begin("a", "", state_at(100, 100)) for _ in range(2))
    lost, there = replace(lost, status=L, search=Search()), replace(there, trial=3.0, search=Search())
    for searched, crops, shares in (
        ([lost], 4, [3]),
        ([there], 4, [2]),
        ([lost, there], 4, [2, 1]),
        ([lost, lost], 4, [1, 1]),
        ([lost, lost, there], 2, [1, 1, 0]),
        ([lost] * 9, 4, [1] * 9),
    ):
        assert target_module._crops_of(searched, [each is lost for each in searched], crops) == shares
    assert target_module._crops_of([replace(lost, status=U)], [False], 1) == [0], "it has its step"


def test_what_is_seen_beside_a_target_on_trial_and_is_no_likelier_is_another_thing(tracker):
    scene = Scene(SceneConfig(frames=40, look_alikes=1), 5)
    known = Looks.unknown((None, None), (True, True))
    begun = replace(tracker.start(scene.frame(0), scene.boxes(0)[0]), looks=known)  # nobody knows its looks
    there = replace(tracker.start(scene.frame(0), scene.boxes(0)[0]), looks=known)
    target = Target.begin("a", "", there)
    targets = [replace(target, believed=begun, search=Search(seconds=1.0), trial=5.0)]
    others = []
    for number in range(1, 40):
        targets = follow(tracker, targets, scene.frame(number), LostSettings(renew=0.0))
        look_alike = boxes.xywh_to_cxcywh(scene.look_alike_boxes(number)[0])
        near = np.linalg.norm(targets[0].search.others[:, :2] - look_alike[:2], axis=1) < 0.3 * look_alike[3]
        others.append(bool((near & (targets[0].search.others[:, look_alikes.CERTAIN] > 0)).any()))
    assert targets[0].on_trial and boxes.iou(targets[0].box, scene.boxes(39)[0]) > 0.5
    assert not any(others[: round(BESIDE_S / STEP) - 2]) and any(others)


def test_what_scores_less_than_the_target_does_has_to_be_seen_for_longer():
    usual = search.trusted(0.9)
    weights = [search.weight(search.trusted(score), usual) for score in (0.99, 0.9, 0.8, 0.6)]
    assert weights[:2] == [1, 1] and weights == sorted(weights, reverse=True) and 0 < weights[3] < 0.2
    assert search.weight(search.trusted(0.6), search.trusted(0.5)) == 1, "more than usual"
    assert search.weight(search.trusted(0.9, doubt=2.0), usual) == pytest.approx(np.exp(-2)), "of other colours"


def test_a_target_learns_what_it_usually_scores_but_not_from_what_may_be_another(judged):
    frame, start, state, estimate = judged
    weak = replace(estimate, confidence=0.9, peak=0.5)
    target = on_trial = Target.begin("a", "", start)
    on_trial = replace(on_trial, trial=9.0, search=Search(), believed=start)
    for _ in range(100):
        target, on_trial = (judge(each, state, weak, frame, LostSettings()) for each in (target, on_trial))
    assert target.usual == pytest.approx(0, abs=0.05) and target.search is None
    assert on_trial.usual == search.trusted(1.0) and 0 < on_trial.trial < 9 and on_trial.search is not None
    for _ in range(300):
        on_trial = judge(on_trial, state, weak, frame, LostSettings())
    assert on_trial.trial == 0 and on_trial.search is None and on_trial.believed is None


def test_what_fails_its_trial_is_searched_for_as_before(judged):
    frame, start, state, estimate = judged
    where = boxes.cxcywh_to_xywh(np.array([*boxes.xywh_to_cxcywh(state.box)[:2], 50, 50]))
    original = replace(start, box=where)
    plan = Search(seconds=2.0, others=others_of((9.0, 9, 0.5, 0, 1)))
    target = replace(Target.begin("a", "", start), size=np.array([9.0, 9]), believed=original, search=plan, trial=4.0)
    weak, strong = replace(estimate, confidence=0.1), replace(estimate, box=where, confidence=0.9, peak=0.9)
    doubted = judge(target, state, weak, frame, LostSettings())
    assert doubted.status is U and doubted.believed is original and doubted.search is plan
    assert doubted.size.tolist() == [50, 50] and doubted.trial == 4 and not doubted.on_trial
    again = judge(doubted, state, strong, frame, LostSettings())
    assert again.on_trial and again.believed is original, "a look away is no acquittal"
    for _ in range(6):
        doubted = judge(doubted, state, weak, frame, LostSettings())
    assert doubted.status is L and not doubted.trial and doubted.search is plan


def test_what_stands_where_a_look_alike_was_is_not_that_if_its_looks_are_the_targets():
    plan, state = Search(seconds=1.0, others=others_of((120.0, 100, 0.98, 0.2, 1, 2.8))), state_at(100, 100)
    for doubt, taken in ((2.5, []), (-1.5, [0.9])):
        _, free, _ = search.update(plan, state, SIZE, sightings((122, 100, 0.9, doubt)), (), STEP)
        assert free.scores.tolist() == taken
    _, free, _ = search.update(plan, state, SIZE, sightings((122, 100, 0.9)), (), STEP)
    assert not len(free.scores), "nobody has looked"
    box = boxes.cxcywh_to_xywh(np.array([122.0, 100, 40, 40]))
    assert search.may_be(plan, state, SIZE, box, 0.9, doubt=-1.5)
    assert not search.may_be(plan, state, SIZE, box, 0.9, doubt=2.5)


def test_one_frame_in_which_a_look_alike_looks_like_the_target_is_chance_and_several_are_not():
    free = []
    for doubts in ((-0.5, 2.0, 2.0, -0.5, 2.0), (-0.5, -0.5, -0.5)):
        plan, state = Search(seconds=1.0, others=others_of((120.0, 100, 0.98, 0.0, 0, 2.0))), state_at(100, 100)
        for doubt in doubts:
            plan, now, _ = search.update(plan, state, SIZE, sightings((122, 100, 0.9, doubt)), (), STEP)
            free.append(len(now.scores))
    assert free == [0, 0, 0, 0, 0, 0, 0, 1]


def test_a_certain_look_alike_goes_on_as_itself_whatever_it_looks_like_while_it_is_seen():
    state = state_at(100, 100)
    for step, taken in ((STEP, 0), (0.2, 1)):
        plan = Search(seconds=1.0, others=others_of((120.0, 100, 0.4, 0.0, 1, 4.0)))
        for number in range(10):
            plan, free, _ = search.update(plan, state, SIZE, sightings((120 + number, 100, 0.9, -1.0)), (), step)
            if step > STEP:
                break
        assert len(free.scores) == taken, "in its place after a while there may be something else"


def test_what_is_not_certain_to_be_another_thing_and_looks_like_the_target_is_none():
    state = state_at(100, 100)
    for certain, kept in ((1, 1), (0, 0)):
        plan = Search(seconds=1.0, others=others_of((120.0, 100, 0.98, 0.0, certain, look_alikes.EXCUSED)))
        plan, _, _ = search.update(plan, state, SIZE, sightings((122, 100, 0.9, look_alikes.EXCUSED - 0.5)), (), STEP)
        assert len(plan.others) == kept


def test_what_looks_like_another_thing_for_some_frames_is_believed_less_and_less(tracker):
    scene = Scene(SceneConfig(frames=8), 0)
    state = tracker.start(scene.frame(0), scene.boxes(0)[0])
    own = replace(state.looks, others=state.looks.mean[None] + 5, seconds=2.0)
    twin = replace(own, mean=own.mean + 5, others=own.mean[None])
    states = [replace(state, looks=own), replace(state, looks=twin), replace(state, looks=twin)]
    for number in range(1, 8):
        forgetful = replace(states[2], case=0.0)  # judges each frame by itself
        states, estimates = tracker.step_many([*states[:2], forgetful], scene.frame(number))
    assert states[0].case == 0 < states[2].case < states[1].case
    assert estimates[0].confidence > estimates[2].confidence > estimates[1].confidence + 0.01


def test_what_is_found_is_no_look_alike():
    others = others_of((100.0, 100, 0.9, 0.0, 0), (150.0, 100, 0.9, 0.0, 1))
    found = Search(others=others).without(boxes.cxcywh_to_xywh(np.array([110.0, 100, 40, 40])))
    assert found.others[:, 0].tolist() == [150]


def test_of_two_that_cross_a_look_alike_is_the_one_with_its_looks():
    plan, state = Search(seconds=1.0, others=others_of((120.0, 100, 0.98, 0.0, 1, 2.0))), state_at(100, 100)
    crossing = sightings((112, 100, 0.9, 0.0), (136, 104, 0.9, 2.0))
    plan, free, _ = search.update(plan, state, SIZE, crossing, (), STEP)
    assert free.doubts.tolist() == [0.0] and plan.others[0, :2].tolist() == [136, 104]


def test_where_look_alikes_are_known_it_takes_likeness_or_patience():
    def frames_until_settled(another, told_apart=True, step=STEP):
        plan = Search()
        for frame in range(1, 200):
            plan = search.weigh(plan, sightings((30, 30, 0.95)), 1.0, bad=False, another=another, seconds=step)
            if plan.settled(search.CONFIRM, told_apart):
                return frame
        return None

    assert frames_until_settled(9.0, told_apart=False) == frames_until_settled(-9.0) == search.CONFIRM
    assert frames_until_settled(-1.0) == 4
    assert frames_until_settled(0.0) == 8 and frames_until_settled(0.0, step=1 / 12) == 3, "a quarter of a second"
    assert frames_until_settled(1.0) in (89, 90) and frames_until_settled(1.0, step=1 / 12) == 36, "or three seconds"


def test_the_looks_of_a_look_alike_are_followed_and_known_once_they_were_seen():
    state, plan = state_at(500, 400), Search(others=others_of((100.0, 100, 0.9, 0.0, 1)))
    plan, _, wrong = search.update(plan, state, SIZE, sightings((100, 100, 0.9, 3.0), (300, 90, 0.8, 1.0)), (), STEP)
    assert sorted(plan.others[:, look_alikes.DOUBT].tolist()) == [1.0, 3.0] and wrong.scores.tolist() == [0.8, 0.9]
    plan, _, wrong = search.update(plan, state, SIZE, sightings((100, 100, 0.9, 2.0), (510, 400, 0.5, 0.0)), (), STEP)
    assert plan.others[0, look_alikes.DOUBT] == pytest.approx(3.0 - look_alikes.LEARN_DOUBT), "by and by"
    assert wrong.scores.tolist() == [0.9], "what may be the target is not certainly another thing"
    tracked = np.array([80.0, 80, 40, 40])
    _, free, wrong = search.update(Search(), state_at(100, 100), SIZE, sightings((100, 100, 0.9, 0.0)), [tracked], STEP)
    assert not len(free.scores) and not len(wrong.scores), "another target that is tracked, perhaps this one on trial"


def test_what_is_looked_at_and_is_not_the_target_is_another_thing():
    plan = Search()
    for score in (0.5, 0.6, 0.4):
        plan = search.weigh(plan, sightings((30, 30, score)), 0.0, bad=True)
        assert plan.found is not None and not len(plan.others)
    plan = search.weigh(plan, sightings((30, 30, 0.5)), 0.0, bad=True)
    assert plan.found is None and plan.others[:, : look_alikes.DOUBT].tolist() == [[30, 30, 0.5, 0, 0]]
    _, free, _ = search.update(plan, state_at(30, 30), SIZE, sightings((30, 30, 0.7), (56, 30, 0.95)), (), STEP)
    assert free.scores.tolist() == [0.95]


def test_look_alikes_in_one_place_are_one():
    others = others_of((100.0, 100, 0.4, 0.0, 0), (104, 100, 0.9, 0.5, 1), (300, 100, 0.6, 0.1, 0))
    plan, _, _ = search.update(Search(others=others), state_at(500, 400), SIZE, sightings(), (), STEP)
    assert plan.others[:, [0, 1, 2, 4]].tolist() == [[100, 100, 0.9, 1], [300, 100, 0.6, 0]]


def test_a_strong_look_alike_that_was_not_seen_is_looked_at():
    def second(*others, seconds=3.0):
        plan = Search(seconds=seconds, others=others_of(*others))
        chosen, _ = search.places(plan, state_at(100, 100), SIZE, 4.0, 3, False)
        return tuple(boxes.xywh_to_cxcywh(chosen[1])[:2])

    unseen, covered, weak = (420, 100, 0.9, 0.1, 1), (120, 100, 0.9, 0.5, 1), (300, 300, 0.2, 0.5, 1)
    assert second(unseen, covered, weak) == (420, 100)
    assert second(unseen, (500, 300, 0.9, 0.3, 1)) == (500, 300), "unseen for longest"
    assert second((420, 100, 0.9, 0.0, 1)) != (420, 100), "just seen"
    assert second(unseen, seconds=0.1) != (420, 100), "too far away to be taken for it soon"


@pytest.mark.parametrize(("certain", "taken"), [(1, []), (0, [0.9])])
def test_a_look_alike_that_comes_out_of_hiding_is_still_itself(certain, taken):
    plan = Search(seconds=1.0, others=others_of((120.0, 100, 0.3, 0.0, certain)))
    for score in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        plan, free, _ = search.update(plan, state_at(100, 100), SIZE, sightings((122, 100, score)), (), STEP)
    assert free.scores.tolist() == taken, "what only scored too little may have been the target all the time"


def test_a_target_that_was_found_as_another_thing_changes_over_to_itself(tracker):
    scene = Scene(SceneConfig(frames=40, targets=2, distractors=0), seed=2)
    states = [tracker.start(scene.frame(0), box) for box in scene.boxes(0)]
    wrong, lost = replace(states[0], box=states[1].box), replace(states[0], looks=states[0].looks.as_known())
    targets = [replace(Target.begin("a", "", wrong), believed=lost, search=Search(seconds=2.0), trial=5.0)]
    for i in range(1, 40):
        targets = follow(tracker, targets, scene.frame(i), LostSettings(confidence=0.0))
        assert targets[0].status is T
    assert boxes.iou(targets[0].box, scene.boxes(39)[0]) > 0.5
    plain = [Target.begin("a", "", wrong)]
    for i in range(1, 40):
        plain = follow(tracker, plain, scene.frame(i), LostSettings(confidence=0.0))
    assert boxes.iou(plain[0].box, scene.boxes(39)[0]) < 0.1, "not by itself"


def test_what_is_much_larger_or_flatter_is_not_the_target():
    seen = sightings((100, 100, 0.9))
    for width, height, count in ((40, 40, 1), (60, 30, 1), (80, 40, 0), (20, 20, 0)):
        box = boxes.cxcywh_to_xywh(np.array([[100.0, 100, width, height]]))
        _, free, _ = search.update(Search(), state_at(100, 100), SIZE, replace(seen, boxes=box), (), STEP)
        assert len(free.scores) == count, (width, height)
        assert search.may_be(Search(), state_at(100, 100), SIZE, box[0], 0.9) == bool(count)


@pytest.mark.parametrize("hiding", ["behind", "outside"])
def test_a_hidden_target_is_lost_and_found(tracker, hiding):
    scene = Scene(SceneConfig(frames=130, hidden=(40, 100), hiding=hiding, distractors=0), seed=5)
    targets = [Target.begin("a", "", tracker.start(scene.frame(0), scene.boxes(0)[0]))]
    states, overlaps = [], []
    for i in range(1, 130):
        targets = follow(tracker, targets, scene.frame(i), LostSettings())
        states.append(targets[0].status)
        overlaps.append(boxes.iou(targets[0].box, scene.boxes(i)[0]))
    hidden = [states[i - 1] for i in range(1, 130) if scene.visible(i)[0] == 0]
    assert hidden.count(L) >= len(hidden) - 10
    assert states[-1] is T and overlaps[-1] > 0.5


def test_a_target_that_is_gone_for_good_is_given_up(tracker):
    scene = Scene(SceneConfig(frames=60, hidden=(20, 60), distractors=0), seed=5)
    targets, states = [Target.begin("a", "", tracker.start(scene.frame(0), scene.boxes(0)[0]))], []
    for i in range(1, 60):
        targets = follow(tracker, targets, scene.frame(i), LostSettings(give_up=0.5))
        states.append(targets[0].status)
    assert states[-1] is R and states[states.index(R) - 1] is L
    assert states[states.index(R) :] == [R] * (len(states) - states.index(R)), "and stays so"


def test_several_targets_share_the_crops_and_do_not_become_each_other(tracker):
    scene = Scene(SceneConfig(frames=80, targets=3, hidden=(20, 60), distractors=0), seed=2)
    settings = LostSettings(crops=2)
    targets = [Target.begin(str(k), "", tracker.start(scene.frame(0), box)) for k, box in enumerate(scene.boxes(0))]
    for i in range(1, 80):
        targets = follow(tracker, targets, scene.frame(i), settings)
        believed = [target.box for target in targets if target.status is T]
        for k, box in enumerate(believed):
            assert all(boxes.iou(box, other) < 0.7 for other in believed[:k]), i
    again = [Target.begin(str(k), "", tracker.start(scene.frame(0), box)) for k, box in enumerate(scene.boxes(0))]
    for i in range(1, 80):
        again = follow(tracker, again, scene.frame(i), settings)
    for one, other in zip(targets, again):
        np.testing.assert_array_equal(one.box, other.box)


def test_a_second_template_has_half_a_say_where_the_first_does_not_suffice(tracker):
    scene = Scene(SceneConfig(frames=40, distractors=0), seed=5)
    begun = Target.begin("a", "", tracker.start(scene.frame(0), scene.boxes(0)[0]))
    plain, renewed = [begun], [begun]
    for i in range(1, 40):
        plain = follow(tracker, plain, scene.frame(i), LostSettings(renew=0))
        renewed = follow(tracker, renewed, scene.frame(i), LostSettings(renew=0.5))
    assert plain[0].state.recent is None and renewed[0].state.recent is not None
    assert renewed[0].state.templates is begun.state.templates, "the first one stays"
    assert renewed[0].renewed_ns % 500_000_000 < 40_000_000, "at half seconds"
    assert boxes.iou(renewed[0].box, scene.boxes(39)[0]) > 0.5
    frame, state = scene.frame(39), renewed[0].state

    def score(state: TargetState, frame: RgbtFrame) -> float:
        return tracker.look([state], [[renewed[0].box]], frame)[1][0].scores[0]

    blurred, smeared = (
        replace(frame, images=tuple(replace(i, pixels=cv2.blur(i.pixels, (side, side))) for i in frame.images))
        for side in (23, 45)
    )
    alone, later = replace(state, recent=None), replace(state, templates=state.recent.templates, recent=None)
    assert score(alone, frame) >= SUFFICIENT and score(state, frame) == score(alone, frame)
    assert score(state, smeared) == score(alone, smeared) < DOUBTED < score(alone, blurred) < SUFFICIENT
    assert score(state, blurred) == pytest.approx((score(alone, blurred) + score(later, blurred)) / 2, abs=0.02)
    blind = replace(blurred, images=(None, blurred.images[1]), rgb_size=frame.size)
    of_rgb = replace(state, recent=replace(state.recent, present=np.array([True, False])))
    assert score(of_rgb, blind) == score(alone, blind) != score(state, blind), "it was not seen by that camera then"


def test_what_may_be_another_thing_is_no_second_template(judged, tracker):
    frame, start, state, estimate = judged
    sure = replace(estimate, confidence=0.99, second_peak=0.0, doubt=0.0)
    target, later = Target.begin("a", "", start), replace(frame, stamp_ns=10**9)

    def renewed(**evidence) -> bool:
        now = judge(target, state, replace(sure, **evidence), later, LostSettings())
        return _renewed(tracker, now, later, LostSettings()).state.recent is not None

    assert renewed()
    assert not renewed(confidence=0.9) and not renewed(second_peak=0.5) and not renewed(doubt=0.5)


@pytest.mark.parametrize("late", [0, 1])
def test_a_target_started_on_one_camera_learns_the_other_when_it_comes(tracker, late):
    scene = Scene(SceneConfig(width=320, height=240, frames=40, size=(40.0, 60.0), distractors=0), seed=6)

    def frame(i: int, gone: int | None) -> RgbtFrame:
        seen = scene.frame(i)
        images = tuple(None if place == gone else image for place, image in enumerate(seen.images))
        return replace(seen, images=images, rgb_size=(320, 240))

    begun = Target.begin("a", "", tracker.start(frame(0, late), scene.boxes(0)[0]))
    first = begun.state.partial
    assert first.present.tolist() == [late != 0, late != 1]
    (alone,) = follow(tracker, [begun], frame(1, late), LostSettings())
    assert alone.state.partial is first and alone.state.templates is begun.state.templates
    targets = [alone]
    for i in range(2, 10):
        targets = follow(tracker, targets, frame(i, None), LostSettings())
    assert targets[0].state.partial is None and targets[0].state.recent is None
    for i in range(10, 24):  # now the first camera is gone
        targets = follow(tracker, targets, frame(i, 1 - late), LostSettings())
    assert boxes.iou(targets[0].box, scene.boxes(23)[0]) > 0.5
    whole = tracker.start(frame(0, None), scene.boxes(0)[0])
    assert whole.partial is None and tracker.complete(whole, frame(1, None)) is whole
