"""The life of a target: when it is believed, lost, given up and found again."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from search_cases import others_of, state_at

from ckd_tracker_ros import boxes, look_alikes, search
from ckd_tracker_ros import target as target_module
from ckd_tracker_ros.frame import Image, RgbtFrame
from ckd_tracker_ros.looks import COUNT, Looks
from ckd_tracker_ros.motion import CLOSE_S, WIDEST
from ckd_tracker_ros.search import Search
from ckd_tracker_ros.sightings import Sightings
from ckd_tracker_ros.state import TargetState
from ckd_tracker_ros.synthetic import Scene, SceneConfig
from ckd_tracker_ros.target import BESIDE_S, TOLD, LostSettings, Status, Target, _renewed, follow, judge, resized
from ckd_tracker_ros.tracker import DOUBTED, SUFFICIENT, Tracker

T, U, L, R = Status.TRACKING, Status.UNCERTAIN, Status.LOST, Status.REMOVED
STEP = 1 / 30


@pytest.fixture(scope="module")
def tracker() -> Tracker:
    return Tracker.from_checkpoint("ckd_tiny", device="cpu", threads=1)


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
    assert again.search.others.tolist() == [[20.0, 40.0, 0.5, 1.0, 1.0, 2.0, 0.0, 1.0]]
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


def test_a_lost_target_is_looked_for_elsewhere_too_where_the_tracker_looks_already(judged):
    frame, start, _, _ = judged
    held = replace(Target.begin("a", "", start), believed=start, status=L, search=Search(steps=1))
    away = replace(held, state=replace(start, box=start.box + (200, 0, 0, 0)))
    looked = [target_module._looked_there(before, held, frame) for before in (held, away)]
    assert looked == [True, False]
    assert not target_module._looked_there(held, replace(held, search=Search(steps=2)), frame)


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


def test_what_is_taken_for_another_thing_in_the_place_of_a_find_is_forgotten(tracker):
    scene = Scene(SceneConfig(frames=20), 0)
    state = tracker.start(scene.frame(0), scene.boxes(0)[0])
    x, y, width, height = boxes.xywh_to_cxcywh(state.box)
    plan = Search(seconds=0.5, others=others_of((x, y, 0.3, 0.5, 0), (x + 9 * width, y, 0.3, 0.5, 0)))
    lost = replace(Target.begin("a", "", state), status=L, frames_uncertain=9, believed=state, search=plan)
    targets = [lost]
    numbers = iter(range(1, 20))
    while targets[0].status is not T:
        targets = follow(tracker, targets, scene.frame(next(numbers)), LostSettings())
    assert targets[0].on_trial and not targets[0].state.motion.crowded
    off = np.abs(targets[0].search.others[:, look_alikes.PLACE] - boxes.xywh_to_cxcywh(targets[0].box)[:2])
    assert len(off) and not (off < (width / 2, height / 2)).all(axis=1).any()


@pytest.mark.parametrize(("away", "score", "crowded"), [(1.2, 0.9, CLOSE_S), (1.2, 0.2, 0.0), (4.0, 0.9, 0.0)])
def test_a_find_may_be_a_look_alike_where_one_is_near(tracker, away, score, crowded):
    scene = Scene(SceneConfig(frames=20), 0)
    state = tracker.start(scene.frame(0), scene.boxes(0)[0])
    looks = state.looks.as_known()
    state = replace(state, looks=replace(looks, others=looks.mean[None] + 30))
    lost = replace(Target.begin("a", "", state), status=L, frames_uncertain=9, believed=state)
    target, numbers = replace(lost, search=Search(seconds=0.5)), iter(range(1, 20))
    while target.status is not T:
        number = next(numbers)
        place = boxes.xywh_to_cxcywh(scene.boxes(number)[0])
        centre = place[None, :2] - (0, away * np.sqrt(place[2] * place[3]))
        others = look_alikes.table(centre, np.array([score]), certain=True)
        target = replace(target, search=replace(target.search, others=others))
        (target,) = follow(tracker, [target], scene.frame(number), LostSettings())
    assert target.state.motion.crowded == crowded


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


@pytest.mark.parametrize(
    ("another", "doubt", "frames"),
    [
        (-1.5, -0.5, TOLD / 1.5),
        (-9.0, -0.5, TOLD / search.MOST_TOLD),
        (-9.0, 3.0, None),
        (1.5, 1.5, None),
        (0, 0, None),
    ],
)
def test_a_trial_ends_when_looks_have_told(judged, another, doubt, frames):
    frame, start, state, estimate = judged
    seen = replace(estimate, confidence=0.9, another=another, doubt=doubt)
    target = replace(Target.begin("a", "", start), trial=9.0, search=Search(), believed=start)
    steps = 0
    while target.on_trial and steps < 60:
        target, steps = judge(target, state, seen, frame, LostSettings()), steps + 1
    assert steps == (60 if frames is None else np.ceil(frames))
    assert (target.search is None and target.believed is None and not target.told) == (frames is not None)


def test_what_speaks_against_a_target_on_trial_counts_against_what_spoke_for_it(judged):
    frame, start, state, estimate = judged
    target = replace(Target.begin("a", "", start), trial=9.0, search=Search(), believed=start, told=9.0)
    unlike = replace(estimate, confidence=0.9, another=-3.0, doubt=1.5)
    target = judge(target, state, unlike, frame, LostSettings())
    assert target.told == 7.5
    target = judge(target, state, replace(unlike, confidence=0.1), frame, LostSettings())
    assert not target.on_trial
    target = judge(target, state, unlike, frame, LostSettings())
    assert target.on_trial and target.told == 6, "a look away changes nothing"


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


@pytest.mark.parametrize(("told", "known"), [(TOLD / 2, [0.6, 0.5]), (TOLD / 3, [0.5])])
def test_what_was_beside_a_find_that_looks_like_the_target_is_known_when_it_fails_its_trial(judged, told, known):
    frame, start, state, estimate = judged
    beside = np.array([[*(start.box[:2] + 2 * start.box[2:]), 0.6, 0.0, 0.0]])
    found = replace(start, motion=replace(start.motion, rivals=beside))
    plan = Search(seconds=2.0, others=others_of((9.0, 9, 0.5, 0.3, 1)))
    target = replace(Target.begin("a", "", found), believed=start, search=plan, trial=4.0, told=told)
    doubted = judge(target, state, replace(estimate, confidence=0.1), frame, LostSettings())
    assert doubted.search.others[:, look_alikes.SCORE].tolist() == known


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


@pytest.mark.parametrize(
    ("away", "peak", "crowded", "in_sight"),
    [(0.1, 0.12, 0.0, True), (0.1, 0.08, 0.0, False), (0.6, 0.5, 0.0, False), (0.1, 0.5, CLOSE_S, False)],
    ids=["faint", "out of sight", "a leap", "beside a look-alike"],
)
def test_what_was_never_out_of_sight_is_still_itself(judged, away, peak, crowded, in_sight):
    frame, start, state, estimate = judged
    moved = replace(state, box=start.box + (away * np.sqrt(np.prod(start.box[2:])), 0, 0, 0))
    moved = replace(moved, motion=replace(state.motion, crowded=crowded, put_off=0.4))
    target = judge(
        Target.begin("a", "", start), moved, replace(estimate, confidence=0.2, peak=peak), frame, LostSettings()
    )
    assert target.in_sight == in_sight and target.status is U
    assert target.state.motion.put_off == 0, "where it is not believed it goes over to no look-alike by and by"
    seen = replace(estimate, confidence=0.2)
    assert judge(replace(target, state=start), state, seen, frame, LostSettings()).in_sight == in_sight, "nor is later"
    assert judge(target, state, replace(estimate, confidence=0.9), frame, LostSettings()).in_sight, "it is believed"


@pytest.mark.parametrize("in_sight", [True, False])
def test_something_else_turns_up_while_a_target_is_faint(judged, tracker, in_sight):
    frame, start, _, estimate = judged
    size = float(np.sqrt(np.prod(start.box[2:])))
    x, y, *_ = boxes.xywh_to_cxcywh(start.box)
    elsewhere = boxes.cxcywh_to_xywh(np.array([x + 4 * size, y, *start.box[2:]]))
    faint = replace(estimate, box=start.box, confidence=0.5, peak=0.45, doubt=0.0)
    lost = replace(
        Target.begin("a", "", start), status=L, believed=start, search=Search(seconds=2.0), in_sight=in_sight
    )
    target = lost = replace(lost, estimate=faint, usual=search.trusted(0.6))
    turned_up = Sightings.of(np.array([[*elsewhere, 0.65, 0.0, 0]]))
    for _ in range(search.CONFIRM + 2):
        if target.status is L:
            plan, believed = target.search, target.believed
            target = target_module._found(tracker, lost, target, believed, plan, turned_up, (), frame, LostSettings())
    assert (target.status is L) == in_sight
    np.testing.assert_allclose(target.search.found if in_sight else target.box, start.box if in_sight else elsewhere)


@pytest.mark.parametrize(("away", "share", "goes_on"), [(0.3, 1.0, True), (2.0, 1.0, False), (0.1, 0.3, False)])
def test_what_is_found_where_the_tracker_held_on_to_it_goes_on_as_it_was(judged, tracker, away, share, goes_on):
    frame, start, _, estimate = judged
    rival = np.array([[*(start.box[:2] + start.box[2:]), 0.5, 0.0, 0.1]])
    moving = replace(start, motion=replace(start.motion, velocity=np.array([30.0, 0.0]), spread=0.4, rivals=rival))
    x, y, *_ = boxes.xywh_to_cxcywh(start.box)
    wide = boxes.cxcywh_to_xywh(np.array([x + away * np.sqrt(np.prod(start.box[2:])), y, *start.box[2:] * (1.2, 1)]))
    lost = replace(Target.begin("a", "", moving), status=L, believed=start, search=Search(seconds=1.0), in_sight=False)
    held = boxes.cxcywh_to_xywh(np.array([x, y, *share * start.box[2:]]))
    target = lost = replace(lost, estimate=replace(estimate, box=held, confidence=0.2, peak=0.2, doubt=0.0))
    found = Sightings.of(np.array([[*wide, 0.9, 0.0, 0]]))
    while target.status is L:
        plan, believed = target.search, target.believed
        target = target_module._found(tracker, lost, target, believed, plan, found, (), frame, LostSettings())
    np.testing.assert_allclose(boxes.xywh_to_cxcywh(target.box)[:2], boxes.xywh_to_cxcywh(wide)[:2])
    np.testing.assert_allclose(target.box[2:], start.box[2:] if goes_on else wide[2:], err_msg="a sliver is not it")
    motion = target.state.motion
    assert (motion.velocity[0], motion.spread) == ((30.0, 0.4) if goes_on else (0.0, WIDEST))
    assert (len(motion.rivals) > 0) == goes_on


def test_a_target_that_has_come_back_over_the_edge_may_be_anywhere_when_it_is_lost_again(judged):
    frame, start, state, estimate = judged
    left = replace(start, box=start.box - (start.box[0], 0, 0, 0))
    left = replace(left, motion=replace(left.motion, velocity=np.array([-300.0, 0.0])))
    weak, strong = (replace(estimate, confidence=confidence) for confidence in (0.05, 0.9))
    came = replace(Target.begin("a", "", start), believed=left, search=Search(seconds=2.0), trial=4.0)
    came = judge(came, state, weak, frame, LostSettings())
    size = np.sqrt(np.prod(start.box[2:]))
    assert came.status is U and start.box[0] > search.likely_reach(left, 2.0, frame.size) * size
    assert judge(came, state, strong, frame, LostSettings()).status is T, "it did not come there unseen"
    while came.status is U:
        came = judge(came, state, weak, frame, LostSettings())
    assert search.likely_reach(came.believed, 2.0, frame.size) == search.reach(2.0)


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


def test_a_lost_target_is_found_when_the_light_has_changed(tracker):
    scene = Scene(SceneConfig(frames=25, distractors=0, kind="person", size=(80, 120), thermal_bits=16), seed=2)
    known = Target.begin("a", "", tracker.start(scene.frame(0), scene.boxes(0)[0]))
    for number in range(1, 20):
        (known,) = follow(tracker, [known], scene.frame(number), LostSettings())
    others = others_of((5.0, 5.0, 0.9, 0.0, 1, 2.0))
    plan = Search(seconds=0.5, others=others)
    lost = replace(known, status=L, frames_uncertain=9, believed=known.state, search=plan)
    unaware = replace(known.state, looks=replace(known.state.looks, level=np.full(COUNT, np.nan)))
    targets = [lost, replace(lost, id="b", state=unaware, believed=unaware)]
    for number in range(20, 25):
        frame = scene.frame(number)
        frame = replace(frame, images=(Image(frame.images[0].pixels // 20), frame.images[1]))
        targets = follow(tracker, targets, frame, LostSettings())
        if number == 20:
            doubts = [float(target.search.others[-1, look_alikes.DOUBT]) for target in targets]
    assert [target.status for target in targets] == [T, L]
    assert np.isnan(doubts[0]) and doubts[1] == 2, "what others looked like was seen in the other light, too"


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


def test_a_second_template_reads_sizes_as_the_first_does(tracker):
    """Each makes the network end a target elsewhere: how it did is measured where the template is taken."""
    scene = Scene(SceneConfig(frames=4, distractors=0), seed=5)
    frame, box = scene.frame(0), scene.boxes(0)[0]
    state = tracker.start(frame, box)
    narrow = boxes.cxcywh_to_xywh(boxes.xywh_to_cxcywh(box) * (1, 1, 0.8, 1))
    state = tracker.renew(replace(state, box=narrow), frame)
    assert np.abs(state.recent.growth).max() > 0.01
    faint = replace(frame, images=tuple(replace(i, pixels=cv2.blur(i.pixels, (31, 31))) for i in frame.images))

    def size(of: TargetState) -> np.ndarray:
        seen = tracker.look([of], [[box]], faint)[1][0]
        assert DOUBTED < seen.scores[0] < SUFFICIENT
        return seen.boxes[0, 2:]

    first = size(replace(state, recent=None))
    uncorrected = size(replace(state, recent=replace(state.recent, growth=np.zeros(2))))
    second = 2 * uncorrected - first
    np.testing.assert_allclose(size(state), (first + second / np.exp(state.recent.growth)) / 2, rtol=0.01)
    assert np.abs(size(state) / uncorrected - 1).max() > 0.005
    of_rgb = replace(state.recent, present=np.array([True, False]))
    np.testing.assert_allclose(
        size(replace(state, recent=of_rgb)), uncorrected, rtol=1e-4, err_msg="read with another camera"
    )


def test_what_may_be_another_thing_is_no_second_template(judged, tracker):
    frame, start, state, estimate = judged
    sure = replace(estimate, confidence=0.99, second_peak=0.0, doubt=0.0)
    target, later = Target.begin("a", "", start), replace(frame, stamp_ns=10**9)

    def renewed(state=state, crowded=0.0, frame=later, **evidence) -> bool:
        moved = replace(state, motion=replace(state.motion, crowded=crowded))
        now = judge(target, moved, replace(sure, **evidence), frame, LostSettings())
        return _renewed(tracker, now, frame, LostSettings()).state.recent is not None

    assert renewed()
    assert not renewed(confidence=0.92) and not renewed(second_peak=0.5)
    assert renewed(doubt=4.0) and renewed(second_peak=0.3), "in smoke, and in company, as long as it met nobody"
    assert not renewed(doubt=4.0, another=0.5) and not renewed(doubt=0.5, crowded=CLOSE_S)
    assert not renewed(second_peak=0.3, crowded=CLOSE_S) and renewed(crowded=CLOSE_S)
    assert not renewed(frame=replace(later, repeated=True)), "a camera that stands still shows it where it was"
    blind = replace(later, images=(None, later.images[1]), rgb_size=later.size)
    of_one = tracker.step(start, blind)[0]
    assert renewed(of_one, frame=blind, confidence=0.92) and not renewed(of_one, frame=blind, confidence=0.88)


def test_only_what_is_surely_itself_completes_a_first_template(judged, tracker):
    frame, start, _, _ = judged
    blind = replace(frame, images=(frame.images[0], None))
    begun = Target.begin("a", "", tracker.start(blind, start.box))
    state, estimate = tracker.step(begun.state, frame)

    def completed(**evidence) -> bool:
        sure = replace(estimate, confidence=0.99, second_peak=0.0, doubt=0.0)
        now = judge(begun, state, replace(sure, **evidence), frame, LostSettings())
        return _renewed(tracker, now, frame, LostSettings()).state.partial is None

    assert completed() and not completed(doubt=4.0) and not completed(second_peak=0.3)


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
