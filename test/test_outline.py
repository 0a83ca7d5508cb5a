"""What the network says of the one box that is known, and what is made of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckd_tracker_ros import boxes
from ckd_tracker_ros.engine import create
from ckd_tracker_ros.frame import Image, RgbtFrame
from ckd_tracker_ros.network.student import Student
from ckd_tracker_ros.outline import LARGEST_GROWTH, LARGEST_SHIFT, TRUST, VIEWS, Outline, views
from ckd_tracker_ros.tracker import Tracker

BOX = np.array([100.0, 50, 30, 40])
SIDES = st.tuples(*[st.floats(-1e4, 1e4)] * 2, *[st.floats(1, 1e4)] * 2).map(np.array)


def test_what_the_network_cuts_off_comes_back():
    short = BOX * [1, 1, 1, 0.6]  # its upper part
    corrected = Outline.between(BOX, [short] * 7).corrected(short)
    assert corrected[3] == pytest.approx(BOX[3] * 0.6 ** (1 - TRUST[3]))
    assert boxes.iou(corrected, BOX) > 0.75 > boxes.iou(short, BOX)
    twice = Outline.between(BOX, [short] * 7).corrected(short * 2)
    np.testing.assert_allclose(twice, corrected * 2)  # whatever its size later


def test_three_of_seven_views_that_fail_change_nothing():
    np.testing.assert_allclose(Outline.between(BOX, [BOX] * 4 + [BOX * 3] * 3).corrected(BOX), BOX)


def test_views_are_around_the_target():
    size = np.sqrt(np.prod(BOX[2:]))
    for box, (right, down, scale) in zip(views(BOX), VIEWS, strict=True):
        off = boxes.xywh_to_cxcywh(box) - boxes.xywh_to_cxcywh(BOX)
        np.testing.assert_allclose(off[:2], (right * size, down * size), atol=1e-9)
        np.testing.assert_allclose(box[2:], BOX[2:] * scale)


@given(box=SIDES, readings=st.lists(SIDES, min_size=1, max_size=7), found=SIDES)
@settings(max_examples=80, deadline=None)
def test_whatever_is_read_the_correction_is_bounded(box, readings, found):
    outline = Outline.between(box, readings)
    assert (np.abs(outline.shift) <= LARGEST_SHIFT).all() and (np.abs(outline.growth) <= LARGEST_GROWTH).all()
    corrected = outline.corrected(found)
    assert np.isfinite(corrected).all() and (corrected[2:] > 0).all()


@pytest.fixture(scope="module")
def frame() -> RgbtFrame:
    pixels = np.random.default_rng(0).integers(0, 255, (120, 160), np.uint8)
    return RgbtFrame((Image(np.dstack([pixels] * 3)), Image(255 - pixels, "mono")))


def seen_by(frame: RgbtFrame, *cameras: bool) -> RgbtFrame:
    images = tuple(image if there else None for image, there in zip(frame.images, cameras))
    return replace(frame, images=images, rgb_size=frame.size)


def tracker_of(student: Student, outline: bool) -> Tracker:
    same = Student(replace(student.config, outline=outline))
    same.load_state_dict(student.state_dict())
    return Tracker(create(same, "cpu"))


@pytest.mark.parametrize("cameras", [(True, True), (True, False), (False, True)])
def test_the_first_frame_is_read_where_the_network_asks_for_it(tiny_student, frame, cameras):
    start, there = (60, 40, 30, 40), np.array(cameras)
    frame = seen_by(frame, *cameras)
    assert not tracker_of(tiny_student, False).start(frame, start).outlines
    tracker = tracker_of(tiny_student, True)
    state, again = tracker.start(frame, start), tracker.start(frame, start)
    np.testing.assert_array_equal(again.outline(there).growth, state.outline(there).growth)
    assert state.outline(there).growth.any()
    plain, corrected = (tracker.step(s, frame)[1] for s in (replace(again, outlines={}), again))
    assert plain.peak == corrected.peak and not np.allclose(plain.box, corrected.box)


def test_one_camera_ends_a_target_where_it_alone_read_the_first_box(tiny_student, frame):
    tracker = tracker_of(tiny_student, True)
    both = tracker.start(frame, (60, 40, 30, 40))
    for cameras in ((True, False), (False, True)):
        alone = tracker.start(seen_by(frame, *cameras), (60, 40, 30, 40))
        assert list(alone.outlines) == [cameras], "what was never seen was never read"
        assert alone.outline(np.array([True, True])) is alone.outlines[cameras]
        known = tracker.complete(alone, frame)
        assert set(known.outlines) == set(both.outlines)
        assert known.outlines[cameras] is alone.outlines[cameras]
        boxes_seen = [
            tracker.step(replace(both, outlines={(True, True): outline}), seen_by(frame, *cameras))[1].box
            for outline in (both.outlines[cameras], both.outlines[True, True])
        ]
        np.testing.assert_array_equal(boxes_seen[0], tracker.step(both, seen_by(frame, *cameras))[1].box)
        assert not np.allclose(*boxes_seen)
