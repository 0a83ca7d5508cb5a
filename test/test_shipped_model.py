"""The model that ships really tracks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ckd_tracker_ros import boxes
from ckd_tracker_ros.engine import supported
from ckd_tracker_ros.frame import Image, RgbtFrame
from ckd_tracker_ros.network import checkpoint
from ckd_tracker_ros.network.config import TINY
from ckd_tracker_ros.registration import Registration
from ckd_tracker_ros.sequences import open_sequence, true_box
from ckd_tracker_ros.synthetic import Scene, SceneConfig
from ckd_tracker_ros.tracker import Tracker, TrackerSettings

MODELS = Path(__file__).parents[1] / "models"


@pytest.fixture(scope="module")
def tracker() -> Tracker:
    return Tracker.from_checkpoint("ckd_tiny", device="cpu")


def test_models_say_where_they_come_from_and_are_small_enough():
    config, provenance = checkpoint.read_metadata(checkpoint.find_model("ckd_tiny"))
    assert replace(config, calibration=None) == TINY
    assert provenance["licence"] == "Apache-2.0" and provenance["init"] and provenance["training"]
    assert not {"m3svd", "single_modality_eval"} & set(provenance["data"])
    assert sum(path.stat().st_size for path in MODELS.iterdir()) < 24e6


@pytest.mark.parametrize("name", ["stairs_man", "banner_walker"])
def test_people_are_followed_through_real_recordings(shared, tracker, name):
    sequence = open_sequence(shared / "data" / "m3svd", name)
    frames = [i for i in range(sequence.first_frame, len(sequence)) if np.isfinite(true_box(sequence, i)).all()]
    state = tracker.start(sequence.frame(frames[0]), true_box(sequence, frames[0]))
    overlaps = []
    for i in frames[1:]:
        state, estimate = tracker.step(state, sequence.frame(i))
        overlaps.append(boxes.iou(estimate.box, true_box(sequence, i)))
    assert np.mean(overlaps) >= 0.5


def test_an_easy_scene_is_followed_and_thermal_carries_it_through_darkness(tracker):
    scene = Scene(SceneConfig(frames=60, distractors=0, rgb_fault="dark", fault_frames=(10, 60)), seed=0)
    state = tracker.start(scene.frame(0), scene.boxes(0)[0])
    overlaps = []
    for i in range(1, 60):
        state, estimate = tracker.step(state, scene.frame(i))
        overlaps.append(boxes.iou(estimate.box, scene.boxes(i)[0]))
    assert np.mean(overlaps) >= 0.5


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.mark.parametrize(
    "device, precision",
    [
        ("cpu", "bfloat16"),
        ("cpu", "int8"),
        pytest.param("cuda", "float16", marks=needs_gpu),
        pytest.param("cuda", "bfloat16", marks=needs_gpu),
    ],
)
def test_low_precision_gives_the_same_boxes(device, precision):
    if precision not in supported(device):
        pytest.skip(f"this {device} has no {precision}")
    exact = Tracker.from_checkpoint("ckd_tiny", device, "float32")
    rounded = Tracker.from_checkpoint("ckd_tiny", device, precision)
    scene = Scene(SceneConfig(frames=40), seed=3)
    first = scene.frame(0), scene.boxes(0)[0]
    state, templates = exact.start(*first), rounded.start(*first).templates
    apart = []
    for i in range(1, 40):
        frame = scene.frame(i)
        _, found = rounded.step(replace(state, templates=templates), frame)
        state, expected = exact.step(state, frame)
        apart.append(np.abs(found.box - expected.box).mean())
    assert np.mean(apart) < 1, "pixels"


def test_registration_gives_back_what_cameras_that_do_not_line_up_cost(tracker):
    """A tenth of scale, 5 degrees and 20 pixels; the same scene as its cameras would see it lined up."""
    scene, turn = Scene(SceneConfig(frames=40), seed=3), cv2.getRotationMatrix2D((319.5, 239.5), -5, 1.1)
    turn[0, 2] += 20
    matrix = np.vstack([turn, [0, 0, 1]])

    def apart(frame: RgbtFrame) -> RgbtFrame:
        rgb, thermal = frame.images
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        moved = cv2.warpPerspective(thermal.pixels, matrix, (640, 480), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return RgbtFrame((rgb, Image(moved, thermal.order)), frame.stamp_ns)

    def mean_iou(see, registration: Registration) -> float:
        follower = Tracker.from_checkpoint(
            "ckd_tiny", device="cpu", settings=TrackerSettings(registration=registration)
        )
        state, overlaps = follower.start(see(scene.frame(0)), scene.boxes(0)[0]), []
        for i in range(1, len(scene)):
            state, estimate = follower.step(state, see(scene.frame(i)))
            overlaps.append(boxes.iou(estimate.box, scene.boxes(i)[0]))
        return float(np.mean(overlaps))

    lined_up = mean_iou(lambda frame: frame, Registration())
    assert lined_up > 0.5
    assert mean_iou(apart, Registration()) < lined_up - 0.02
    assert mean_iou(apart, Registration(tuple(matrix.ravel()))) == pytest.approx(lined_up, abs=0.02)
