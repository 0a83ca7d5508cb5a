"""Where a lost target is looked for, and what is taken for it: without a network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_cases import others_of, sightings, state_at

from ckd_tracker_ros import boxes, look_alikes, search
from ckd_tracker_ros.motion import Motion
from ckd_tracker_ros.search import Search

SIZE = (640, 480)
STEP = 1 / 30


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
    for _ in range(2 * (columns * rows + 1) * (1 if count > 1 or sweep_only else 2)):
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


def test_every_other_crop_of_the_sweep_lies_around_where_the_target_should_be():
    plan, away = Search(seconds=1.0), []
    for _ in range(20):
        chosen, plan = search.places(plan, state_at(100, 100), SIZE, 4.0, 3, True)
        away += np.linalg.norm(boxes.xywh_to_cxcywh(np.array(chosen))[:, :2] - 100, axis=1).tolist()
    near = np.array(away) <= search.AROUND * search.STRIDE * 4 * 40
    assert 0.5 <= near.mean() < 0.8 and len(away) >= 50


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


def test_what_went_over_the_edge_comes_back_over_it():
    leaving, staying = state_at(600, 240, velocity=(200, 0)), state_at(600, 240, velocity=(50, 0))
    for state, taken in ((leaving, []), (staying, [0.9])):
        plan, free, wrong = search.update(Search(seconds=2.0), state, SIZE, sightings((440, 240, 0.9)), (), STEP)
        assert free.scores.tolist() == taken
        assert not len(wrong.scores) and not plan.others[:, look_alikes.CERTAIN].any(), "it may have been missed"
        box = boxes.cxcywh_to_xywh(np.array([440.0, 240, 40, 40]))
        assert search.may_be(Search(seconds=2.0), state, SIZE, box, 0.9) == bool(taken)
        assert search.may_be(Search(seconds=2.0), state, SIZE, box, 0.9, held=True), "it was followed until now"
    plan, seen = Search(seconds=1.0), []
    for x in range(620, 400, -20):
        plan, free, _ = search.update(plan, leaving, SIZE, sightings((x, 240, 0.9)), (), STEP)
        plan = search.weigh(plan, free, 0.0, bad=False, seconds=STEP)
        seen += free.scores.tolist()
    assert len(seen) == 11, "what comes in there may go on as fast as it likes"


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
    assert search.weigh(plan, sightings((52, 30, 0.9)), 1.0, bad=False).confirmed == 2, "it is fast"
    assert search.weigh(plan, sightings((32, 30, 0.4)), 0.0, bad=True).confirmed == 0
    assert search.weigh(plan, sightings((32, 30, 0.6)), 0.0, bad=False).confirmed == 0
    blinked = search.weigh(plan, sightings(), 0.0, bad=True, seconds=STEP)
    assert search.weigh(blinked, sightings((32, 30, 0.9)), 1.0, bad=False).confirmed == 2, "out of sight for a frame"
    for _ in range(3):
        blinked = search.weigh(blinked, sightings((32, 30, 0.2)), 0.0, bad=True, seconds=STEP)
    assert blinked.found is None
    assert search.weigh(Search(), sightings((32, 30, 0.6, 4.0)), 0.0, bad=True).found is None, "not worth a crop"
    assert search.weigh(Search(), sightings((32, 30, 0.9, 4.0)), 0.0, bad=True).found is not None


def test_what_scores_less_than_the_target_does_has_to_be_seen_for_longer():
    usual = search.trusted(0.9)
    weights = [search.weight(search.trusted(score), usual) for score in (0.99, 0.9, 0.8, 0.6)]
    assert weights[:2] == [1, 1] and weights == sorted(weights, reverse=True) and 0 < weights[3] < 0.2
    assert search.weight(search.trusted(0.6), search.trusted(0.5)) == 1, "more than usual"
    assert search.weight(search.trusted(0.9, doubt=2.0), usual) == pytest.approx(np.exp(-2)), "of other colours"


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


@pytest.mark.parametrize(
    ("square", "seconds", "certain"), [((300, 300, 160), 0.2, 1), ((300, 300, 160), 0.3, 0), ((120, 100, 160), 0.2, 0)]
)
def test_a_certain_look_alike_at_which_nobody_looked_goes_on_for_longer(square, seconds, certain):
    state, plan = state_at(100, 100), Search(seconds=1.0, others=others_of((120.0, 100, 0.8, 0.0, 1, 4.0)))
    plan, _, _ = search.update(plan, state, SIZE, sightings(squares=[square]), (), seconds - STEP)
    plan, free, _ = search.update(plan, state, SIZE, sightings((122, 100, 0.9, -3.0)), (), STEP)
    assert len(free.scores) == 1 - certain


def test_one_frame_in_which_a_certain_look_alike_is_seen_elsewhere_is_noise_and_many_are_not():
    state, size = state_at(100, 100), 40
    aside = look_alikes.STEADY * size + 4
    for frames, certain, x in ((1, True, 120.0), (10, False, 120.0 + aside)):
        plan = Search(seconds=1.0, others=others_of((120.0, 100, 0.7, 0.0, 1)))
        for _ in range(frames):
            plan, free, wrong = search.update(plan, state, SIZE, sightings((120 + aside, 100, 0.5)), (), STEP)
            assert not len(free.scores) and not len(wrong.scores), "it is no other, and says nothing of its looks"
        plan, _, wrong = search.update(plan, state, SIZE, sightings((x, 100, 0.7)), (), STEP)
        assert plan.others[0, look_alikes.CERTAIN] == certain == len(wrong.scores)
        assert plan.others[0, 0] == x


def test_what_is_not_certain_to_be_another_thing_and_looks_like_the_target_is_none():
    state = state_at(100, 100)
    for certain, kept in ((1, 1), (0, 0)):
        plan = Search(seconds=1.0, others=others_of((120.0, 100, 0.98, 0.0, certain, look_alikes.EXCUSED)))
        plan, _, _ = search.update(plan, state, SIZE, sightings((122, 100, 0.9, look_alikes.EXCUSED - 0.5)), (), STEP)
        assert len(plan.others) == kept


def test_what_is_found_is_no_look_alike():
    others = others_of((100.0, 100, 0.9, 0.0, 0), (150.0, 100, 0.9, 0.0, 1))
    found = Search(others=others).without(boxes.cxcywh_to_xywh(np.array([110.0, 100, 40, 40])))
    assert found.others[:, 0].tolist() == [150]


@pytest.mark.parametrize(("distance", "found", "taken"), [(40, True, False), (40, False, True), (10, True, True)])
def test_what_was_found_is_not_taken_for_clutter_that_may_have_come_there_since(distance, found, taken):
    plan = Search(seconds=1.0, others=others_of((100.0 + distance, 100, 0.5, 0.9, 0)))
    plan = search.weigh(plan, sightings((100, 100, 0.6)), 1.0, bad=False) if found else plan
    _, free, _ = search.update(plan, state_at(100, 100), SIZE, sightings((102, 100, 0.6)), (), STEP)
    assert (len(free.scores) == 0) == taken


def test_of_two_that_cross_a_look_alike_is_the_one_with_its_looks():
    plan, state = Search(seconds=1.0, others=others_of((120.0, 100, 0.98, 0.0, 1, 2.0))), state_at(100, 100)
    crossing = sightings((107, 100, 0.9, 0.0), (131, 104, 0.9, 2.0))
    plan, free, _ = search.update(plan, state, SIZE, crossing, (), STEP)
    assert free.doubts.tolist() == [0.0] and plan.others[0, :2].tolist() == [131, 104]


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


@pytest.mark.parametrize(("another", "kept"), [(-2.0, True), (-0.2, False)])
def test_what_its_looks_have_told_to_be_the_target_is_no_other_for_a_few_bad_frames(another, kept):
    plan = Search()
    for _ in range(search.REFUTE):
        plan = search.weigh(plan, sightings((30, 30, 0.6)), 0.0, bad=True, another=another)
    assert (plan.found is not None) == kept and len(plan.others) == (not kept)


@pytest.mark.parametrize(
    ("off", "score", "certain"), [((3, -8), 0.15, False), ((3, -8), search.STRONG, True), ((3, -25), 0.15, True)]
)
def test_what_is_faint_inside_the_box_of_a_target_may_be_part_of_it(off, score, certain):
    state = state_at(100, 100)
    beside = np.array([[100.0 + off[0], 100 + off[1], score, 0.0, 0.0]])
    state = replace(state, motion=replace(state.motion, rivals=beside))
    plan, _, _ = search.update(Search.of(state), state, SIZE, sightings(), (), STEP)
    assert plan.others[:, look_alikes.CERTAIN].tolist() == [certain]
    _, free, _ = search.update(plan, state, SIZE, sightings((100, 100, 0.7, -0.7)), (), STEP)
    assert len(free.scores) == (not certain or abs(off[1]) > 20), "itself, which scores more by far"


def test_a_sliver_of_the_target_does_not_stand_for_all_of_it():
    sliver, whole, state = sightings((100, 100, 0.9), side=10), sightings((102, 100, 0.7)), state_at(100, 100)
    both = sliver.plus(whole.boxes[0], 0.7, 0.0, whole.looks[0])
    _, free, _ = search.update(Search(), state, SIZE, both, (), STEP)
    assert free.scores.tolist() == [0.7]
    _, free, _ = search.update(Search(), state, SIZE, sliver, (), STEP)
    assert not len(free.scores)
    apart = sightings((100, 100, 0.9), (300, 100, 0.7)).single(20, first=np.array([False, True]))
    assert apart.scores.tolist() == [0.9, 0.7], "the likeliest still comes first"


def test_what_is_too_faint_to_be_looked_at_hides_no_look_alike():
    state, plan = state_at(100, 100), Search(seconds=1.0, others=others_of((120.0, 100, 0.8, 0.0, 1, 4.0)))
    for _ in range(5):
        both = sightings((120, 100, 0.8, 4.0), (110, 100, 0.25))
        plan, free, wrong = search.update(plan, state, SIZE, both, (), STEP)
        assert wrong.scores.tolist() == [0.8] and not len(free.scores)


def test_look_alikes_in_one_place_are_one():
    for unseen, certain in ((0.05, 1), (0.5, 0)):
        others = others_of((100.0, 100, 0.4, 0.0, 0), (104, 100, 0.9, unseen, 1), (300, 100, 0.6, 0.1, 0))
        plan, _, _ = search.update(Search(others=others), state_at(500, 400), SIZE, sightings(), (), STEP)
        assert plan.others[:, [0, 1, 2, 4]].tolist() == [[100, 100, 0.9, certain], [300, 100, 0.6, 0]]


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


@pytest.mark.parametrize("sides", [(84, 80), (100, 60), (16, 20), (100, 36)])
def test_what_was_out_of_sight_for_long_may_have_come_nearer(sides):
    box = boxes.cxcywh_to_xywh(np.array([[100.0, 100, *sides]]))
    fitting = [bool(search.fits(box, np.array([40.0, 40]), seconds)[0]) for seconds in (0.0, 3.0)]
    assert fitting == [False, sides == (84, 80)]


def test_what_is_much_larger_or_flatter_is_not_the_target():
    seen = sightings((100, 100, 0.9))
    for width, height, count in ((40, 40, 1), (60, 30, 1), (80, 40, 0), (20, 20, 0)):
        box = boxes.cxcywh_to_xywh(np.array([[100.0, 100, width, height]]))
        _, free, _ = search.update(Search(), state_at(100, 100), SIZE, replace(seen, boxes=box), (), STEP)
        assert len(free.scores) == count, (width, height)
        assert search.may_be(Search(), state_at(100, 100), SIZE, box[0], 0.9) == bool(count)
