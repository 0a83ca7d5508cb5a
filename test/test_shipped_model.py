"""The model that ships really tracks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ckd_tracker_ros import boxes
from ckd_tracker_ros.network import checkpoint
from ckd_tracker_ros.network.config import TINY
from ckd_tracker_ros.sequences import open_sequence, true_box
from ckd_tracker_ros.synthetic import Scene, SceneConfig
from ckd_tracker_ros.tracker import Tracker

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
