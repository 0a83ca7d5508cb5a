"""Colours and heat of a target: what is read of them, and what is doubted for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckd_tracker_ros import looks
from ckd_tracker_ros.engine import create
from ckd_tracker_ros.frame import Image, RgbtFrame
from ckd_tracker_ros.looks import Looks
from ckd_tracker_ros.network.student import Student
from ckd_tracker_ros.registration import Registration
from ckd_tracker_ros.sightings import Sightings
from ckd_tracker_ros.tracker import Tracker

STEP = 1 / 30
BOX = np.array([60.0, 40, 40, 60])
COAT, WARM = (180, 60, 40), 30_500
LIMITS = (None, (28_000.0, 30_000.0))
"""Under the warmth of a body: in 8 bits all bodies are white."""


def frame(coat=COAT, warm=WARM, box=BOX, dtype=np.uint16, seed=0) -> RgbtFrame:
    """A body of these colours in the middle 60 % of a box, before a background of noise; thermal half as large."""
    rng = np.random.default_rng(seed)
    colour = rng.integers(90, 130, (120, 160, 3)).astype(np.uint8)
    heat = rng.normal(28_500, 30, (60, 80)).astype(dtype)
    x, y, width, height = box + (0.2 * box[2], 0.2 * box[3], -0.4 * box[2], -0.4 * box[3])
    body = (slice(round(y), round(y + height)), slice(round(x), round(x + width)))
    colour[body] = np.clip(np.array(coat) + rng.normal(0, 3, colour[body].shape), 0, 255)
    half = tuple(slice(each.start // 2, each.stop // 2) for each in body)
    heat[half] = warm + rng.normal(0, 8, heat[half].shape)
    return RgbtFrame((Image(colour), Image(heat, "mono")), 0)


def learned(seconds: float = 2.0, start: Looks | None = None, **kind) -> Looks:
    known = start or Looks.unknown(LIMITS, (True, True))
    for step in range(round(seconds / STEP)):
        seen = known.read(frame(**kind, seed=step), Registration(), BOX)
        known = known.learned(seen, STEP, round(step * STEP * 1e9))
    return known


def doubt(known: Looks, seconds: float = 0.0, **kind) -> float:
    return known.doubt(known.read(frame(**kind, seed=99), Registration(), BOX), known.stamp_ns + round(seconds * 1e9))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_what_is_read_is_the_body_and_not_what_is_around_it(dtype):
    known = Looks.unknown(LIMITS, (True, True))
    seen = known.read(frame(dtype=dtype), Registration(), BOX)
    np.testing.assert_allclose(seen, [*COAT, WARM / (2000 / 255)], atol=6)
    half = RgbtFrame((frame().images[0], None), 0)
    np.testing.assert_allclose(known.read(half, Registration(), BOX), [*COAT, np.nan], atol=6)
    assert np.isnan(known.read(frame(), Registration(), BOX + [500, 0, 0, 0])).all(), "outside the image"


def test_a_twin_of_another_coat_or_another_warmth_is_doubted_and_the_target_is_not():
    known = learned()
    assert known.known and doubt(known) == 0
    assert doubt(known, coat=(160, 75, 60)) > 1.5
    assert doubt(known, warm=WARM + 400) > 1.5, "white in 8 bits, as the target is"
    assert doubt(known, coat=(20, 200, 250), warm=WARM - 900) == looks.MOST
    assert doubt(learned(0.3), coat=(20, 200, 250)) == 0, "nothing is doubted before it was seen for long enough"


def test_a_given_box_is_the_first_look_and_counts_once_the_target_is_lost():
    unknown = Looks.unknown(LIMITS, (True, True))
    started = unknown.started(seen_as(unknown), 0)
    assert not started.known and doubt(started, coat=(20, 200, 250)) == 0
    lost = started.as_known()
    assert lost.known and doubt(lost) == 0 < doubt(lost, coat=(20, 200, 250))
    assert unknown.as_known() is unknown, "nothing was seen of it"
    known = learned()
    assert known.as_known() is known


def test_a_poor_box_is_no_reason_to_believe_and_one_to_doubt_all_the_same():
    known = learned().beside(seen_as(learned(), **TWIN))
    target, twin = seen_as(known), seen_as(known, **TWIN)
    assert known.doubt(target, known.stamp_ns) < known.doubt(target, known.stamp_ns, 0.3) < 0
    assert known.doubt(twin, known.stamp_ns) == known.doubt(twin, known.stamp_ns, 0.3) > 0


def test_what_changes_all_the_time_and_what_was_not_seen_for_long_is_doubted_less():
    twin, darker = {"coat": (160, 75, 60)}, {"coat": tuple(channel - 12 for channel in COAT)}
    steady, changing = learned(), learned()
    for step in range(60):
        grey = round(20 * np.sin(step))
        coat = tuple(channel + grey for channel in COAT)
        changing = learned(STEP, start=changing, coat=coat)
    assert doubt(changing, **darker) < 0.2 < 1.5 < doubt(steady, **darker), "it was that dark before"
    assert doubt(changing, **twin) > 1.5, "never of another colour"
    shade = {"coat": tuple(channel - 3 for channel in COAT)}
    assert 0 < doubt(steady, 60.0, **shade) == doubt(steady, 5.0, **shade) < doubt(steady, 0.0, **shade) < looks.MOST


TWIN = {"coat": tuple(channel + 2 for channel in COAT), "warm": WARM + 8}
"""Hardly different, as look-alikes of generated scenes are."""


def seen_as(known: Looks, seed: int = 0, **kind) -> np.ndarray:
    return known.read(frame(**kind, seed=seed), Registration(), BOX)


def test_a_look_alike_that_was_seen_is_told_from_the_target_by_what_it_looks_like_itself():
    alone = learned()
    known = alone
    for seed in range(10):
        known = known.beside(seen_as(known, seed, **TWIN))
    assert len(known.others) == 1, "one thing, seen ten times"
    np.testing.assert_allclose(known.others[0], seen_as(known, 99, **TWIN), atol=1.5)
    assert doubt(known, **TWIN) > doubt(alone, **TWIN) + 1
    assert doubt(alone) == 0 and doubt(known) == -looks.MOST_CREDIT
    assert known.another(seen_as(known, **TWIN)) > 0 > known.another(seen_as(known))
    assert known.learned(seen_as(known, **TWIN), STEP, 0) is known, "another thing teaches nothing"
    assert known.learned(seen_as(known), STEP, 0) is not known


def test_only_what_may_be_taken_for_the_target_is_remembered():
    known = learned()
    assert not len(known.beside(seen_as(known)).others), "as the target looks itself"
    assert not len(known.beside(seen_as(known, coat=(20, 200, 250), warm=WARM - 900)).others), "nothing like it"
    assert not len(known.beside(np.full(4, np.nan)).others)
    assert not len(Looks.unknown(LIMITS, (True, True)).beside(seen_as(known, **TWIN)).others)
    for angle in np.arange(looks.MOST_OTHERS + 4) / (looks.MOST_OTHERS + 4) * 2 * np.pi:
        known = known.beside(last := known.mean + 14 * np.array([np.cos(angle), np.sin(angle), 0, 0]))
    assert len(known.others) == looks.MOST_OTHERS
    np.testing.assert_array_equal(known.others[0], last)


def test_a_look_alike_that_one_camera_saw_is_judged_by_that_camera():
    known = learned()
    twin = seen_as(known, **TWIN)
    half = np.where([True, True, True, False], twin, np.nan)
    known = known.beside(half)
    assert known.another(np.where([False] * 3 + [True], twin, np.nan)) == 0
    assert known.another(twin) == known.another(np.where(np.isnan(half), known.mean, twin)) > 0
    assert np.isfinite(known.beside(twin).others[0]).all(), "and completed when the other one sees it"


def test_one_camera_of_two_does_not_say_that_a_target_is_another_thing():
    known = learned()
    twin, own = seen_as(known, **TWIN), seen_as(known)
    known = known.beside(twin)
    for gone in ([True] * 3 + [False], [False] * 3 + [True]):
        assert known.another(np.where(gone, np.nan, twin)) == 0
        assert known.doubt(np.where(gone, np.nan, twin), 0) < known.doubt(twin, 0), "but that it has changed"
        assert known.another(np.where(gone, np.nan, own)) < 0, "nor does it take back what speaks for it"
        forgotten = replace(known, mean=np.where(gone, np.nan, known.mean))
        assert forgotten.another(twin) == 0, "what it saw before it was away counts no more"


def test_a_camera_that_is_missing_says_nothing_and_is_learnt_when_it_comes():
    blind = Looks.unknown((None, None), (True, False))
    half = RgbtFrame((frame().images[0], None), 0)
    for _ in range(30):
        blind = blind.learned(blind.read(half, Registration(), BOX), STEP, 0)
    assert np.isnan(blind.mean[3]) and doubt(blind, warm=WARM + 900) == 0
    seeing = learned(1.0, start=blind.complete(LIMITS, (True, True)))
    assert doubt(seeing) == 0 < doubt(seeing, warm=WARM + 900)
    assert seeing.complete((None, (0.0, 1.0)), (True, True)).units.tolist() == seeing.units.tolist()


def test_a_camera_that_was_away_comes_back_to_another_light():
    both, thermal_alone, smoke = (True, True), (False, True), (120, 120, 120)
    known = learned()
    known = known.beside(seen_as(known, **TWIN)).at(0, both)
    assert len(known.others) == 1 and doubt(known, coat=smoke) > 2

    def after(seconds: float, present: tuple[bool, bool]) -> Looks:
        now = known
        for step in range(1, round(seconds / STEP)):
            now = now.at(round(step * STEP * 1e9), present)
        return now.at(round(seconds * 1e9), both)

    for looks_now in (after(0.5, thermal_alone), after(2.0, both), known.at(3_600_000_000_000, both)):
        assert doubt(looks_now, coat=smoke) > 2, "nobody was away for long; and a clock that jumps takes no camera away"
    back = after(2.0, thermal_alone)
    assert doubt(back, coat=smoke) <= 0 and doubt(back, coat=smoke, warm=WARM - 800) > 2, "the other camera still knows"
    assert np.isfinite(back.others).tolist() == [[False, False, False, True]]
    again = learned(start=back, coat=smoke)
    assert doubt(again, coat=smoke) <= 0 and doubt(again, coat=(60, 60, 60)) > 2


@pytest.mark.parametrize(
    ("change", "seconds", "forgotten"),
    [
        ((-60, -60, -60, 0), STEP, [True, True, True, False]),
        ((0, 60, 0, 0), 0.5, [True, True, True, False]),  # it got greener: no channel of this camera can be relied on
        ((0, 0, 0, 60), STEP, [False, False, False, True]),
        ((30, 30, 30, 30), STEP, [False] * 4),  # what is in view may have changed so much
        ((-60, -60, -60, 0), 6.0, [False] * 4),  # dusk
        ((np.nan,) * 4, STEP, [False] * 4),  # no camera has given anything
    ],
)
def test_what_was_seen_in_another_light_counts_no_more(change, seconds, forgotten):
    both, level = (True, True), looks.levels(frame())
    known = learned()
    known = known.beside(seen_as(known, **TWIN)).at(0, both, level)
    after, steps, change = known, round(seconds / STEP), np.array(change) * known.units
    for step in range(1, steps + 1):
        after = after.at(round(step * STEP * 1e9), both, level + change * step / steps)
    assert np.isnan(after.mean).tolist() == forgotten and np.isnan(after.others).all(axis=0).tolist() == forgotten
    assert (0 < after.forgotten_ns <= round(seconds * 1e9)) == any(forgotten)
    seen = learned(start=after, coat=(60, 60, 60))
    again = seen.at(10**10, both, level + change)
    assert np.isfinite(again.mean).all() or np.isnan(change).any(), "once"


def test_the_level_of_images_is_the_median_of_each_channel():
    both = frame()
    np.testing.assert_allclose(looks.levels(both), [110, 110, 110, 28_500], rtol=0.02)
    half = RgbtFrame((None, Image(np.full((7, 900), np.nan, np.float32), "mono")), 0)
    assert np.isnan(looks.levels(half)).all()
    grey = Image(np.arange(100, dtype=np.uint8).reshape(10, 10), "mono")
    np.testing.assert_allclose(looks.levels(RgbtFrame((grey, None), 0)), [49.5] * 3 + [np.nan], atol=1)


def test_a_camera_that_the_network_does_not_use_need_not_be_registered(tiny_student):
    alone = Student(replace(tiny_student.config, modalities=("rgb",), motion=True))
    tracker, both = Tracker(create(alone, "cpu")), frame()
    square = RgbtFrame((both.images[0], Image(both.images[1].pixels[:, :60], "mono")), 0)
    state = tracker.start(square, BOX)
    state, estimate = tracker.step(state, square)
    assert estimate.present == (True, False)
    assert np.isnan(state.looks.read(square, Registration(), BOX)[3])


@given(st.lists(st.tuples(*[st.one_of(st.just(np.nan), st.floats(-1e5, 1e5))] * 4), min_size=1, max_size=20))
def test_whatever_is_seen_the_doubt_is_bounded(seen):
    known = Looks.unknown((None, None), (True, True))
    for values in seen:
        known = known.learned(np.array(values), 0.1, 0)
        known = known.beside(np.array(values)[::-1])
        assert -looks.MOST_CREDIT <= known.doubt(np.array(values), 0) <= looks.MOST
        assert len(known.others) <= looks.MOST_OTHERS
    assert known.doubt(np.full(4, np.nan), 10**9) == 0


def test_of_two_sightings_the_doubted_one_comes_second():
    rows = np.array([[0, 0, 10, 10, 0.9, 3.0, 0], [30, 0, 10, 10, 0.8, 0.0, 0], [60, 0, 10, 10, 0.5, 0.0, 1]])
    seen = Sightings.of(rows)
    assert seen.scores.tolist() == [0.8, 0.5, 0.9] and seen.likely[0] == 0.8 and 0.2 < seen.likely[2] < 0.5
    assert seen.beside().scores.tolist() == [0.9], "of the same crop"
    held = seen.plus(np.array([90.0, 0, 10, 10]), 0.95, 0.5, np.full(looks.COUNT, np.nan))
    assert held.crops[0] == -1 and not len(held.beside().scores)
    assert not len(Sightings.of(np.zeros((0, 7))).beside().scores)
    known = Sightings.of(rows, np.array([[1.0] * 4, [np.nan] * 4, [3.0, 3, 3, np.nan]]))
    assert known.looks[:, 0].tolist()[1:] == [3, 1] and np.isnan(known.looks[0]).all(), "each keeps its looks"
    np.testing.assert_array_equal(known.known_doubts, [np.nan, 0, 3])
    likelier = Sightings.of(rows + np.array([0, 0, 0, 0, 0, -3, 0]))
    assert likelier.likely[0] > 0.9, "below 0 a doubt is a reason to believe"
