"""Two things that look alike and overlap: which pixels are the target's, and where it is for that."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckd_tracker_ros.frame import Image, RgbtFrame
from ckd_tracker_ros.looks import Looks
from ckd_tracker_ros.motion import CLOSE_S
from ckd_tracker_ros.pattern import EVERY_S, Pattern
from ckd_tracker_ros.registration import Registration
from ckd_tracker_ros.synthetic import Scene, SceneConfig
from ckd_tracker_ros.tracker import Tracker

SIZE = np.array([40.0, 60.0])
PLACE = np.array([100.0, 70.0])
"""Corner of the target's box."""
COAT, WARM, OTHER_COAT = (180, 60, 40), 200, (170, 66, 46)
LIMITS, BOTH = (None, None), (True, True)


def frame(*bodies, ground=(110, 110, 110), air=90, seed=0, stamp_ns=0) -> RgbtFrame:
    """Bodies, (corner, coat), the last in front, each a cross of the size `SIZE`, before an even background."""
    rng = np.random.default_rng(seed)
    colour = np.tile(np.array(ground, float), (200, 260, 1))
    heat = np.full((200, 260), float(air))
    for corner, coat in bodies:
        x, y = np.round(corner).astype(int)
        for rows, columns in ((slice(y, y + 60), slice(x + 14, x + 26)), (slice(y + 12, y + 26), slice(x, x + 40))):
            colour[rows, columns], heat[rows, columns] = coat, WARM
    colour, heat = (np.clip(of + rng.normal(0, 3, of.shape), 0, 255).astype(np.uint8) for of in (colour, heat))
    return RgbtFrame((Image(colour), Image(heat, "mono")), stamp_ns)


def box(corner=PLACE):
    return np.concatenate([corner, SIZE])


def known(others=(OTHER_COAT,), **kind) -> Looks:
    """Of a target that was seen for three seconds, and of others of which the coat is known."""
    looks = Looks.unknown(LIMITS, BOTH)
    for step in range(90):
        shown = frame((PLACE, COAT), seed=step, stamp_ns=round(step / 30 * 1e9), **kind)
        looks = looks.learned(looks.read(shown, Registration(), box()), 1 / 30, shown.stamp_ns)
        looks = looks.patterned(shown, Registration(), box())
    return replace(looks, others=np.array([[*coat, WARM] for coat in others], float).reshape(-1, 4))


KNOWN = known()


@given(st.floats(-0.4, 0.4), st.floats(-0.4, 0.4), st.sampled_from([-1, 1]), st.booleans())
def test_a_box_around_two_is_moved_to_the_target(x, y, side, in_front):
    other = PLACE + SIZE * (0.6 * side, 0.15)
    bodies = [(PLACE, COAT), (other, OTHER_COAT)]
    shown = frame(*(bodies[::-1] if in_front else bodies), seed=7)
    seen = PLACE + SIZE * (x, y)
    found, beside = KNOWN.apart(shown, Registration(), box(seen))
    np.testing.assert_allclose(found, box(), atol=0.12 * 60)
    if np.abs(other - seen).max() <= 0.45 * SIZE[0]:
        np.testing.assert_allclose(beside, other + SIZE / 2, atol=0.12 * 60)


def test_what_stands_alone_is_left_where_the_network_sees_it():
    found, beside = KNOWN.apart(frame((PLACE, COAT), seed=7), Registration(), box())
    np.testing.assert_array_equal(found, box())
    assert beside is None


@pytest.mark.parametrize(
    "looks",
    [
        pytest.param(lambda: known(others=()), id="no other is known"),
        pytest.param(lambda: replace(KNOWN, others=KNOWN.mean[None]), id="no pixel tells the two apart"),
        pytest.param(lambda: known(ground=COAT, air=WARM), id="it does not stand out"),
        pytest.param(lambda: Looks.unknown(LIMITS, BOTH), id="nothing is known"),
    ],
)
def test_what_cannot_be_told_moves_no_box(looks):
    looks, seen = looks(), box(PLACE + (12, 0))
    assert not looks.tells_apart
    found, beside = looks.apart(frame((PLACE, COAT), (PLACE + (24, 0), OTHER_COAT)), Registration(), seen)
    np.testing.assert_array_equal(found, seen)
    assert beside is None


def of_one_camera(shown: RgbtFrame) -> RgbtFrame:
    return RgbtFrame((shown.images[0], None), shown.stamp_ns)


def test_one_camera_is_enough_where_there_never_was_another_and_the_edge_of_the_image_no_harm():
    corner = np.array([-6.0, 70.0])
    shown = of_one_camera(frame((corner, COAT), (corner + (24, 9), OTHER_COAT), seed=7))
    looks = Looks.unknown(LIMITS, (True, False))
    for step in range(30):
        alone = of_one_camera(frame((PLACE, COAT), seed=step, stamp_ns=round(step / 10 * 1e9)))
        looks = looks.learned(looks.read(alone, Registration(), box()), 0.1, alone.stamp_ns)
        looks = looks.patterned(alone, Registration(), box())
    looks = replace(looks, others=np.array([[*OTHER_COAT, np.nan]]))
    found, _ = looks.apart(shown, Registration(), box(corner + (12, 0)))
    np.testing.assert_allclose(found, box(corner), atol=7)
    seen = box(corner + (12, 0))
    found, beside = KNOWN.apart(shown, Registration(), seen)
    np.testing.assert_array_equal(found, seen, "learnt with two cameras, it need not stand out in one")
    assert beside is None
    assert KNOWN.at(10**9, BOTH).tells_apart and not KNOWN.at(10**9, (True, False)).tells_apart


def test_what_is_less_like_the_other_one_than_the_target_itself_is_not_the_target_for_that():
    """A wall of a colour on the target's side of the other's, only further, says no more than the target's pixels."""
    other = np.array([174, 62, 42])
    looks = replace(KNOWN, others=np.array([[*other, WARM]], float))
    wall = COAT + 0.3 * (np.array(COAT) - OTHER_COAT)
    assert looks.tells_apart
    found, _ = looks.apart(frame((PLACE, COAT), ground=wall, air=WARM, seed=7), Registration(), box())
    np.testing.assert_array_equal(found, box())


def started(*beside) -> Looks:
    shown = frame((PLACE, COAT), *beside)
    looks = Looks.unknown(LIMITS, BOTH)
    looks = looks.started(looks.read(shown, Registration(), box()), 0).patterned(shown, Registration(), box())
    return looks.surrounded(shown, Registration(), box())


def test_what_stands_beside_a_new_target_and_has_its_shape_is_known_from_the_first_frame_on():
    assert started().others.shape == (0, 4)
    (other,) = started((PLACE + (46, 12), OTHER_COAT)).others
    np.testing.assert_allclose(other, [*OTHER_COAT, WARM], atol=3)
    assert not len(started((PLACE + (46, 12), COAT)).others), "nothing would tell it from the target"
    assert not len(started((PLACE + (46, 12), (20, 200, 250))).others), "nobody takes it for the target"


def test_a_pattern_is_learnt_so_often_and_not_where_nothing_is_seen():
    looks = KNOWN
    assert looks.patterned(frame((PLACE, COAT), stamp_ns=looks.pattern.stamp_ns + 1), Registration(), box()) is looks
    later = frame((PLACE, COAT), stamp_ns=looks.pattern.stamp_ns + round(EVERY_S * 1e9))
    assert looks.patterned(later, Registration(), box()).pattern.seconds == pytest.approx(looks.pattern.seconds + 0.1)
    away = looks.patterned(later, Registration(), box((900.0, 900.0)))
    assert away.pattern is looks.pattern
    night = replace(looks, mean=looks.mean + 1e6)
    assert night.patterned(later, Registration(), box()).pattern is looks.pattern
    back = frame((PLACE, COAT), stamp_ns=0)
    assert looks.patterned(back, Registration(), box()).pattern.stamp_ns == 0, "clocks may be set back"


def test_a_camera_that_comes_later_is_learnt_as_it_is():
    only = RgbtFrame((frame((PLACE, COAT)).images[0], None), 0)
    looks = Looks.unknown(LIMITS, (True, False))
    looks = looks.started(looks.read(only, Registration(), box()), 0).patterned(only, Registration(), box())
    assert looks.pattern.grain[3, 3] == 0
    both = frame((PLACE, COAT), stamp_ns=10**9)
    looks = looks.complete(LIMITS, BOTH)
    looks = looks.learned(looks.read(both, Registration(), box()), 1 / 30, both.stamp_ns)
    looks = looks.patterned(both, Registration(), box())
    assert 1 < looks.pattern.grain[3, 3] < 100


def test_nothing_is_told_by_a_pattern_that_was_never_seen():
    pattern = Pattern()
    assert not pattern.stands_out and pattern.due(0)
    assert not pattern.told_apart(np.zeros(4), np.full(4, 100.0))


def test_a_tracker_reckons_with_a_look_alike_that_stands_beside_its_target_at_the_start():
    scene = Scene(SceneConfig(frames=2, hidden=None, look_alikes=1, thermal_bits=16), 1018)
    tracker = Tracker.from_checkpoint("ckd_tiny", "cpu", threads=1)
    state = tracker.start(scene.frame(0), scene.boxes(0)[0])
    assert len(state.looks.others) == 1 and state.motion.crowded == CLOSE_S
    assert state.looks.doubt(state.looks.read(scene.frame(0), Registration(), scene.boxes(0)[0]), 0) == 0
    other = state.looks.read(scene.frame(0), Registration(), scene.look_alike_boxes(0)[0])
    assert state.looks.another(other) > 0 > state.looks.another(state.looks.mean)
