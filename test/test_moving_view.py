"""A short recording seen by a camera that moves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ckd_tracker_ros.frame import RgbtFrame
from ckd_tracker_ros.sequences import MovingView, SceneSequence, SequenceError, ViewConfig
from ckd_tracker_ros.synthetic import Scene, SceneConfig

PLAIN = SceneConfig(
    width=320,
    height=240,
    frames=8,
    size=(40.0, 50.0),
    kind="blob",
    thermal_contrast=1.0,
    thermal_noise=0.0,
    rgb_noise=0.0,
)


@pytest.fixture(scope="module")
def recording() -> SceneSequence:
    return SceneSequence(Scene(PLAIN, 3))


def levels(frame: RgbtFrame, box: np.ndarray) -> list[np.ndarray]:
    """Both images inside a box."""
    x, y, w, h = box.round().astype(int).tolist()
    return [image.pixels[max(y, 0) : y + h, max(x, 0) : x + w].astype(float) for image in frame.images]


def test_the_box_goes_where_its_pixels_go(recording):
    view = MovingView(recording, ViewConfig(frames=40, shake=0.0), seed=1)
    own = [part.mean() for part in levels(recording.frame(0), recording.boxes[0])]
    for i in range(0, 40, 5):
        if np.isfinite(view.boxes[i]).all():
            seen = [part.mean() for part in levels(view.frame(i), view.boxes[i])]
            np.testing.assert_allclose(seen, own, atol=15)


def test_a_view_is_the_same_each_time_and_another_with_another_seed(recording):
    config = ViewConfig(frames=30, smoke=0.9)
    first, again, other = (MovingView(recording, config, seed) for seed in (1, 1, 2))
    for a, b in zip(first.frame(17).images, again.frame(17).images):
        np.testing.assert_array_equal(a.pixels, b.pixels)
    assert not np.array_equal(first.boxes, other.boxes)
    assert len(first) == len(first.boxes) == 30


def test_sizes_change_as_far_as_asked_and_a_stride_is_a_lower_rate(recording):
    fast, slow = (
        MovingView(recording, ViewConfig(frames=n, stride=s, zoom=(1.0, 3.0)), 1) for n, s in ((90, 1), (30, 3))
    )
    np.testing.assert_array_equal(slow.boxes, fast.boxes[::3])
    assert (fast.rate, slow.rate) == (30.0, 10.0)
    assert slow.frame(1).stamp_ns == fast.frame(3).stamp_ns == 100_000_000
    sides = np.sqrt(np.nanmax(fast.boxes[:, 2:].prod(axis=1)) / np.nanmin(fast.boxes[:, 2:].prod(axis=1)))
    assert 1.8 < sides < 4


def test_smoke_hides_rgb_alone_and_faint_heat_thermal_alone(recording):
    plain = ViewConfig(frames=30)
    clear, smoke, faint = (
        MovingView(recording, config, 1) for config in (plain, replace(plain, smoke=0.95), replace(plain, contrast=0.2))
    )
    spread = [[image.pixels.std() for image in view.frame(25).images] for view in (clear, smoke, faint)]
    assert spread[1][0] < 0.7 * spread[0][0] and spread[1][1] == spread[0][1]
    assert spread[2][0] == spread[0][0] and spread[2][1] == pytest.approx(0.2 * spread[0][1], rel=0.1)


def test_what_cannot_be_played_is_refused(recording):
    with pytest.raises(SequenceError, match="boxes in 2 or more frames"):
        MovingView(SceneSequence(Scene(replace(PLAIN, frames=1), 3)), ViewConfig(), 0)
