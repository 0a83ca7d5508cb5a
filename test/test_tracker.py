"""Crops, the tracking loop and the tracker's promises."""

from __future__ import annotations

import copy
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ckd_tracker_ros import boxes
from ckd_tracker_ros.crop import cut, find_peak, hann_window, square_around, to_image
from ckd_tracker_ros.engine import DeviceError, create
from ckd_tracker_ros.frame import Image, RgbtFrame
from ckd_tracker_ros.network.config import BASE
from ckd_tracker_ros.network.student import Student
from ckd_tracker_ros.registration import Registration, RegistrationError
from ckd_tracker_ros.tracker import BoxError, Tracker, TrackerSettings


def test_crops_equal_the_published_ones(golden):
    data = np.load(golden / "crops.npz")
    image = Image(data["image"])
    for kind, factor, size in (("template", 2.0, 128), ("search", 4.0, 256)):
        for box, crop, scale in zip(data["boxes"], data[kind], data[f"{kind}_scale"]):
            square = square_around(box, factor, size)
            assert square.scale == pytest.approx(scale, abs=1e-9)
            np.testing.assert_allclose(cut(image, square, size, np.eye(3), None).astype(int), crop, atol=1)


@pytest.mark.parametrize("kind", ["full", "mce"])
def test_tracking_loop_equals_the_published_one(golden, kind):
    sys.path.insert(0, str(golden))
    from fill_weights import filled

    student = Student(BASE if kind == "mce" else replace(BASE, elimination_blocks=()))
    student.load_state_dict(filled(student.state_dict()))
    tracker = Tracker(create(student, device="cpu", precision="float32"), TrackerSettings(min_box_size=10))
    frames, expected = np.load(golden / "track_frames.npz"), np.load(golden / f"track_{kind}.npz")
    sequence = [RgbtFrame((Image(v), Image(i, "mono"))) for v, i in zip(frames["visible"], frames["infrared"])]
    state = tracker.start(sequence[0], expected["boxes_xywh"][0])
    for frame, box, peak in zip(sequence[1:], expected["boxes_xywh"][1:], expected["score_peak"]):
        state, estimate = tracker.step(state, frame)
        np.testing.assert_allclose(estimate.box, box, atol=0.05)
        assert estimate.windowed_peak == pytest.approx(peak, abs=1e-4)


@pytest.mark.parametrize("order, channels", [("bgr", [2, 1, 0]), ("rgba", [0, 1, 2, 3]), ("bgra", [2, 1, 0, 3])])
@pytest.mark.parametrize("matrix", [np.eye(3), np.diag([0.5, 0.5, 1])], ids=["same size", "scaled"])
def test_colour_order_is_undone_on_the_crop(order, channels, matrix):
    rgba = np.random.default_rng(0).integers(0, 255, (60, 80, 4), np.uint8)
    square = square_around((30, 20, 20, 16), 2.0, 32)
    expected = cut(Image(np.ascontiguousarray(rgba[..., :3])), square, 32, matrix, None)
    found = cut(Image(np.ascontiguousarray(rgba[..., channels]), order), square, 32, matrix, None)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("box", [(-60.0, 10.0, 10.0, 10.0), (75.0, 55.0, 30.0, 30.0), (0.0, 0.0, 80.0, 60.0)])
@pytest.mark.parametrize("matrix", [np.eye(3), np.diag([0.999, 0.999, 1])], ids=["cut", "warp"])
def test_outside_the_image_is_black(box, matrix):
    pixels = np.full((60, 80), 20000, ">u2")
    crop = cut(Image(pixels, "mono"), square_around(box, 2.0, 32), 32, matrix, (10000.0, 20000.0))
    assert set(np.unique(crop[[0, -1]][:, [0, -1]])) <= {0, 255} and (crop == 0).any()


def test_a_thermal_image_of_other_size_shows_the_same_place():
    rng = np.random.default_rng(1)
    import cv2

    small = cv2.GaussianBlur(rng.integers(0, 255, (120, 160), np.uint8), (0, 0), 3)
    large = cv2.resize(small, (640, 480))
    registration = Registration()
    square = square_around((300, 200, 60, 50), 4.0, 128)
    matrix = registration.matrix("thermal", (640, 480), (160, 120))
    a = cut(Image(large, "mono"), square, 128, np.eye(3), None).astype(float)
    b = cut(Image(small, "mono"), square, 128, matrix, None).astype(float)
    assert np.abs(a - b).mean() < 1.0
    np.testing.assert_allclose(registration.thermal_box((300, 200, 60, 48), (640, 480), (160, 120)), (75, 50, 15, 12))


@given(st.sampled_from([0.5, 1.0, 3.0]), st.sampled_from([0.25, 1.0, 2.0]))
def test_a_homography_follows_cameras_that_change_their_size(rgb, thermal):
    nine = (1.9, 0.1, 30.0, -0.1, 2.1, 10.0, 1e-4, 0.0, 1.0)
    box, factors = np.array([130.0, 110, 40, 20]), np.array([rgb] * 4)
    known = Registration(nine, (640, 480, 320, 240))
    sizes = (int(640 * rgb), int(480 * rgb)), (int(320 * thermal), int(240 * thermal))
    expected = thermal * Registration(nine).thermal_box(box, (640, 480), (320, 240))
    np.testing.assert_allclose(known.thermal_box(box * factors, *sizes), expected, rtol=1e-9)


def test_geometry_that_does_not_fit_is_refused():
    with pytest.raises(RegistrationError, match="640x512.*1920x1080.*thermal_to_rgb"):
        Registration().matrix("thermal", (1920, 1080), (640, 512))
    with pytest.raises(RegistrationError, match="nine"):
        Registration((1.0, 2.0))
    with pytest.raises(RegistrationError, match="inverted"):
        Registration((0.0,) * 9)
    with pytest.raises(RegistrationError, match="sizes is .640, 480, 0, 0."):
        Registration(sizes=(640, 480, 0, 0))
    with pytest.raises(RegistrationError, match="RGB image 640x360 and registration.sizes, 640x480"):
        Registration((1, 0, 0, 0, 1, 0, 0, 0, 1), (640, 480, 320, 240)).matrix("thermal", (640, 360), (320, 240))
    shift = Registration((2, 0, 30, 0, 2, 10, 0, 0, 1))
    np.testing.assert_allclose(shift.thermal_box((130, 110, 40, 20), (640, 480), (320, 200)), (50.25, 50.25, 20, 10))


@given(
    st.tuples(st.floats(-50, 700), st.floats(-50, 500), st.floats(4, 400), st.floats(4, 400)),
    st.floats(0.1, 0.9), st.floats(0.1, 0.9),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_the_way_back_inverts_the_way_in(box, x, y):
    square = square_around(box, 4.0, 256)
    there = np.array([x, y, box[2] * square.scale / 256, box[3] * square.scale / 256])
    back = to_image(there, square, 256)
    np.testing.assert_allclose(back[2:], box[2:], rtol=1e-9)
    centre = back[:2] + back[2:] / 2 - (np.array(box[:2]) + np.array(box[2:]) / 2)
    np.testing.assert_allclose(centre, (np.array([x, y]) - 0.5) * 256 / square.scale, atol=1e-6)


def test_peak_reports_its_rival():
    score, size, offset = np.full((1, 8, 8), 0.01), np.full((2, 8, 8), 0.25), np.zeros((2, 8, 8))
    score[0, 4, 4], score[0, 4, 5], score[0, 1, 4] = 0.8, 0.7, 0.6
    offset[:, 1, 4] = 0.3, -0.1
    peak = find_peak(score, size, offset, hann_window(8))
    np.testing.assert_allclose(peak.box, (0.5, 0.5, 0.25, 0.25))
    assert (peak.score, peak.second_score, peak.second_distance) == (0.8, 0.6, 3 / 8)
    np.testing.assert_allclose(peak.others, [(4.3 / 8, 0.9 / 8, 0.6)])  # 0.7 is the slope of the peak
    assert peak.windowed < peak.score


def test_window_is_centred():
    window = hann_window(16)
    np.testing.assert_allclose(window, window[::-1, ::-1])
    assert 0 < window.min() and window.max() < 1


def frames(n: int, size: tuple[int, int] = (120, 160)) -> list[RgbtFrame]:
    rng = np.random.default_rng(5)
    return [
        RgbtFrame((Image(rng.integers(0, 255, (*size, 3), np.uint8), "bgr"),
                   Image(rng.integers(7000, 9000, size).astype(np.uint16), "mono")), i)
        for i in range(n)
    ]  # fmt: skip


def test_steps_are_pure_and_targets_are_one_batch(tiny_tracker):
    first, second, third = frames(3)
    states = [tiny_tracker.start(first, box) for box in ((40, 30, 30, 20), (90, 60, 24, 30))]
    once, again = (tiny_tracker.step_many(states, second) for _ in range(2))
    for a, b in zip(once[1], again[1]):
        np.testing.assert_array_equal(a.box, b.box)
    for state, estimate in zip(states, once[1]):
        np.testing.assert_allclose(tiny_tracker.step(state, second)[1].box, estimate.box, atol=1e-3)
        assert 0 <= estimate.windowed_peak <= estimate.peak <= 1
        assert estimate.present == (True, True)
    assert tiny_tracker.step_many([], third) == ([], [])


def test_size_moves_as_fast_as_the_network_says(tiny_student):
    first, second = frames(2)
    found, start = {}, np.array([70.0, 50, 24, 20])
    for rate in (1.0, 0.25):
        student = Student(replace(tiny_student.config, size_rate=rate))
        student.load_state_dict(tiny_student.state_dict())
        tracker = Tracker(create(student, "cpu"))
        found[rate] = tracker.step(tracker.start(first, start), second)[1].box
    np.testing.assert_allclose(found[0.25][2:], start[2:] ** 0.75 * found[1.0][2:] ** 0.25, rtol=1e-6)
    np.testing.assert_allclose(*(box[:2] + box[2:] / 2 for box in found.values()), atol=1e-6)


def test_size_moves_less_where_the_score_is_low(tiny_student):
    first, second = frames(2)
    found, start = {}, np.array([70.0, 50, 24, 20])
    for trust in (0.0, 2.0):
        student = Student(replace(tiny_student.config, size_rate=1.0, size_trust=trust))
        student.load_state_dict(tiny_student.state_dict())
        tracker = Tracker(create(student, "cpu"))
        found[trust] = tracker.step(tracker.start(first, start), second)[1]
    rate = found[2.0].peak ** 2
    assert 0 < rate < 1
    np.testing.assert_allclose(found[2.0].box[2:], start[2:] ** (1 - rate) * found[0.0].box[2:] ** rate, rtol=1e-6)


def test_a_missing_camera_is_an_input_like_any_other(tiny_tracker):
    first, second = frames(2)
    state = tiny_tracker.start(first, (40, 30, 30, 20))
    for gone in (0, 1):
        images = tuple(None if i == gone else image for i, image in enumerate(second.images))
        after, estimate = tiny_tracker.step(state, RgbtFrame(images))
        assert estimate.present == (gone == 1, gone == 0)
        assert np.isfinite(estimate.box).all()
        assert after.limits[1] is not None
    alone = tiny_tracker.start(RgbtFrame((first.images[0], None)), (40, 30, 30, 20))
    assert np.isfinite(tiny_tracker.step(alone, second)[1].box).all()
    with pytest.raises(ValueError, match="at least one image"):
        tiny_tracker.step(state, RgbtFrame((None, None)))


@pytest.mark.parametrize(
    "box, words",
    [
        ((float("nan"), 0, 10, 10), "nan.*not finite"),
        ((10, 10, 3, 20), "10, 10, 3, 20.*smallest box, 4"),
        ((300, 10, 20, 20), "centre outside.*160x120"),
        ((10, 10, 20), "not four numbers"),
        ((-1000, -1000, 2100, 2100), "twice"),
    ],
)
def test_boxes_that_cannot_be_tracked_are_refused(tiny_tracker, box, words):
    with pytest.raises(BoxError, match=words):
        tiny_tracker.start(frames(1)[0], box)


def test_device_and_precision_mean_what_they_say(tiny_student):
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="cuda.*no CUDA GPU.*cpu"):
            create(tiny_student, device="cuda")
    with pytest.raises(DeviceError, match="tpu.*available: auto, cpu"):
        create(tiny_student, device="tpu")
    with pytest.raises(DeviceError, match="int3.*float32, bfloat16"):
        create(tiny_student, device="cpu", precision="int3")
    with pytest.raises(DeviceError, match="threads is -1"):
        create(tiny_student, device="cpu", threads=-1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("precision, tolerance", [("float32", 1e-3), ("bfloat16", 0.03), ("float16", 0.01)])
def test_the_gpu_agrees_with_the_cpu_and_gives_its_memory_back(tiny_checkpoint, tiny_tracker, precision, tolerance):
    first, second = frames(2)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    tracker = Tracker.from_checkpoint(tiny_checkpoint, "cuda", precision)
    tracker.warm_up(2)
    peaks = [t.step(t.start(first, (40, 30, 30, 20)), second)[1].peak for t in (tiny_tracker, tracker)]
    assert peaks[1] == pytest.approx(peaks[0], abs=tolerance)
    tracker.close()
    assert torch.cuda.memory_reserved() <= before


def test_low_precision_agrees_with_float32(tiny_student):
    first, second = frames(2)
    found = []
    for precision in ("float32", "bfloat16"):
        tracker = Tracker(create(copy.deepcopy(tiny_student), "cpu", precision))
        assert tracker.description["precision"] == precision
        found.append(tracker.step(tracker.start(first, (40, 30, 30, 20)), second)[1].peak)
    assert found[0] == pytest.approx(found[1], abs=0.02)


@given(st.lists(st.floats(-1e3, 1e3), min_size=4, max_size=4), st.floats(1, 10))
@settings(max_examples=80, deadline=None)
def test_clipped_boxes_lie_in_the_image(box, min_size):
    left, top, right, bottom = boxes.xywh_to_xyxy(boxes.clip(box, 200, 100, min_size))
    assert left >= 0 and top >= 0 and right <= 200 + 1e-9 and bottom <= 100 + 1e-9
    assert right - left >= min_size - 1e-9 and bottom - top >= min_size - 1e-9


@given(st.lists(st.floats(0.5, 100), min_size=4, max_size=4), st.lists(st.floats(0.5, 100), min_size=4, max_size=4))
@settings(max_examples=80, deadline=None)
def test_iou_is_symmetric_and_bounded(a, b):
    assert boxes.iou(a, b) == pytest.approx(boxes.iou(b, a))
    assert 0 <= boxes.iou(a, b) <= 1 + 1e-12
    assert boxes.iou(a, a) == pytest.approx(1)
    np.testing.assert_allclose(boxes.xywh_to_cxcywh(boxes.cxcywh_to_xywh(a)), a, atol=1e-9)
    np.testing.assert_allclose(boxes.xyxy_to_xywh(boxes.xywh_to_xyxy(a)), a, atol=1e-9)


def test_iou_of_nothing_is_nothing():
    assert boxes.iou([0, 0, 0, 0], [0, 0, 0, 0]) == 0
