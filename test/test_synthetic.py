"""Generated scenes: boxes are where the pictures say, in both images, in every process."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckd_tracker_ros.boxes import iou, xywh_to_xyxy
from ckd_tracker_ros.registration import Registration
from ckd_tracker_ros.synthetic import KINDS, RGB_FAULTS, Scene, SceneConfig, random_config

HOMOGRAPHY = ((1.02, 0.03, -12.0), (-0.02, 1.05, 8.0), (5e-5, -3e-5, 1.0))
QUIET = SceneConfig(
    width=320, height=240, frames=90, size=(40, 70), distractors=0, rgb_noise=0, thermal_noise=0, thermal_blur=0
)  # fmt: skip
HARD = SceneConfig(
    width=320, height=240, frames=240, size=(30, 50), targets=2, look_alikes=2, occlusion=0.8, absence=0.2,
    rgb_fault="smoke", thermal_bits=16, homography=HOMOGRAPHY, thermal_size=(300, 220),
)  # fmt: skip


def digest(scene: Scene, i: int) -> str:
    frame = scene.frame(i)
    arrays = [image.pixels for image in frame.images] + [np.array(scene.boxes(i)), np.array(scene.visible(i))]
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def drawn_extents(scene: Scene, i: int) -> list[np.ndarray]:
    """Per image, the xyxy extent of the pixels that a scene's single target changes when it is painted white."""
    (target,) = scene._actors
    looks = tuple(
        replace(look, base=np.full_like(look.base, 255.0), tones=[0.0] * len(look.tones), texture=look.texture * 0)
        for look in target.body.looks
    )
    extents = []
    scene._actors = [replace(target, body=replace(target.body, looks=looks))]
    with_target = scene.frame(i)
    scene._actors = []
    for image, empty in zip(with_target.images, scene.frame(i).images, strict=True):
        change = np.abs(image.pixels.astype(int) - empty.pixels).reshape(*image.pixels.shape[:2], -1).max(-1)
        y, x = np.nonzero(change > 0.2 * change.max())
        extents.append(np.array([x.min(), y.min(), x.max() + 1, y.max() + 1]))
    scene._actors = [target]
    return extents


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "geometry",
    [
        {},
        {"thermal_size": (160, 120), "thermal_blur": 0.4},
        {"homography": HOMOGRAPHY, "thermal_size": (300, 220), "thermal_bits": 16},
    ],
    ids=["same", "half-size", "homography"],
)
def test_boxes_are_the_drawn_extents_in_both_images(kind: str, geometry: dict) -> None:
    for seed in range(2):
        scene = Scene(replace(QUIET, kind=kind, deform=1.0, camera_motion=0.02, **geometry), seed)
        for i in (0, 41):
            for expected, drawn, image in zip(
                (scene.boxes(i)[0], scene.thermal_boxes(i)[0]),
                drawn_extents(scene, i),
                scene.frame(i).images,
                strict=True,
            ):
                inside = np.clip(xywh_to_xyxy(expected), 0, [image.width, image.height] * 2)
                assert np.abs(drawn - inside).max() <= 1.0, (seed, i)


def test_the_homography_carries_rgb_boxes_to_thermal_boxes() -> None:
    scene = Scene(replace(HARD, absence=0.0), 5)
    registration = Registration(tuple(np.ravel(HOMOGRAPHY)))
    for box, exact in zip(scene.boxes(20), scene.thermal_boxes(20), strict=True):
        around = registration.thermal_box(box, (320, 240), (300, 220))
        # The frame around a mapped box is a little larger than the frame around the mapped outline.
        assert iou(around, exact) > 0.85


def test_frames_depend_on_nothing_but_configuration_seed_and_index() -> None:
    forward, backward = Scene(HARD, 3), Scene(HARD, 3)
    indices = [0, 7, 60, 150, 239]
    expected = [digest(forward, i) for i in indices]
    assert [digest(backward, i) for i in reversed(indices)] == expected[::-1]
    assert digest(Scene(HARD, 4), 0) != expected[0]
    program = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_synthetic import HARD, Scene, digest
scene = Scene(HARD, 3)
print(*(digest(scene, i) for i in {indices}))
"""
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert output.stdout.split() == expected


def test_consecutive_frames_move_smoothly_and_stamps_follow_the_rate() -> None:
    scene = Scene(replace(HARD, fps=25.0, absence=0.0), 8)
    assert len(scene) == 240
    assert scene.frame(5).stamp_ns == 200_000_000
    boxes = np.array([scene.boxes(i) for i in range(200)])  # (frames, targets, 4)
    centres = boxes[..., :2] + boxes[..., 2:] / 2
    speeds = np.linalg.norm(np.diff(centres, axis=0), axis=-1)
    assert speeds.max() < 0.25 * boxes[..., 2:].max()  # a search region of four times the size never loses it
    assert np.ptp(centres, axis=0).max(-1).min() > 15, "every target goes somewhere"


def test_sizes_change_as_much_as_asked() -> None:
    config = replace(QUIET, frames=1200, kind="blob", deform=0.0, scale_change=2.0)
    scene = Scene(config, 1)
    sides = np.array([scene.boxes(i)[0][3] for i in range(0, 1200, 10)])
    assert sides.max() / sides.min() == pytest.approx(2.0, abs=0.05)
    still = Scene(replace(config, scale_change=1.0), 1)
    assert np.ptp([still.boxes(i)[0][3] for i in range(0, 1200, 50)]) < 1e-6


def test_look_alikes_have_the_targets_size_and_grey() -> None:
    config = replace(QUIET, targets=2, look_alikes=3, camera_motion=0.0, clutter=0)
    for seed in range(4):
        scene = Scene(config, seed)
        targets, twins = scene._actors_of("target"), scene._actors_of("look-alike")
        for i in (0, 50):
            boxes = scene.boxes(i)
            for k, twin in enumerate(scene.look_alike_boxes(i)):
                assert twin[2:] == pytest.approx(boxes[k % 2][2:])
        for k, twin in enumerate(twins):
            pictures = []
            for actor in (targets[k % 2], twin):
                body = replace(actor.body, centre=np.array([160.0, 120.0]), path=((), ()))
                scene._actors = [replace(actor, body=body)]
                pictures.append(scene.frame(0).images)
            for mine, other in zip(*pictures, strict=True):
                difference = np.abs(mine.pixels.astype(int) - other.pixels)
                assert 0 <= difference.max() <= 10


def test_thermal_counts_are_16_bit_and_show_the_same_scene() -> None:
    eight, sixteen = (Scene(replace(QUIET, thermal_bits=bits), 2).frame(10).images[1] for bits in (8, 16))
    assert (eight.pixels.dtype, sixteen.pixels.dtype) == (np.uint8, np.uint16)
    assert sixteen.order == "mono"
    assert 6500 < sixteen.pixels.min() and sixteen.pixels.max() < 9500
    assert np.ptp(sixteen.pixels) > 256, "more levels than 8 bits hold"
    assert np.abs((sixteen.pixels - 7000.0) / 8 - eight.pixels).max() <= 1.01


def test_thermal_is_no_grey_copy_of_rgb() -> None:
    correlations = []
    for seed in range(8):
        visible, heat = (image.pixels.astype(float) for image in Scene(QUIET, seed).frame(0).images)
        correlations.append(abs(np.corrcoef(visible.mean(-1).ravel(), heat.ravel())[0, 1]))
    assert np.mean(correlations) < 0.5


@pytest.mark.parametrize("fault", RGB_FAULTS[1:])
def test_faults_spoil_rgb_between_their_frames_and_never_thermal(fault: str) -> None:
    noisy = replace(QUIET, rgb_noise=2.0, thermal_noise=2.0)
    clear = Scene(noisy, 6)
    spoilt = Scene(replace(noisy, rgb_fault=fault, fault_frames=(20, 80)), 6)
    for i in (0, 19, 50, 80):
        (visible, heat), (spoilt_visible, spoilt_heat) = clear.frame(i).images, spoilt.frame(i).images
        assert np.array_equal(heat.pixels, spoilt_heat.pixels)
        change = np.abs(visible.pixels.astype(int) - spoilt_visible.pixels).mean()
        assert change > 20 if i == 50 else change == 0, i
    means = {name: Scene(replace(QUIET, rgb_fault=name), 6).frame(50).images[0].pixels.mean() for name in RGB_FAULTS}
    assert means["dark"] < 0.4 * means["none"] and means["glare"] > 1.2 * means["none"]


def test_noise_has_its_deviation_and_differs_from_frame_to_frame() -> None:
    config = replace(QUIET, targets=0, camera_motion=0.0, rgb_noise=6.0, thermal_noise=4.0)
    first, second = (Scene(config, 1).frame(i).images for i in (0, 1))
    for deviation, one, other in zip((6.0, 4.0), first, second, strict=True):
        difference = one.pixels.astype(float) - other.pixels  # of two independent draws
        assert difference.std() / np.sqrt(2) == pytest.approx(deviation, rel=0.15)


def test_absent_targets_are_outside_and_come_back() -> None:
    scene = Scene(replace(QUIET, frames=240, targets=2, absence=0.3), 4)
    for target in range(2):
        visible = np.array([scene.visible(i)[target] for i in range(240)])
        away = visible == 0
        assert visible[0] > 0.9 and visible[-1] > 0.9
        assert 0.3 <= away.mean() < 0.45
        for i in np.flatnonzero(away)[::10]:
            left, top, right, bottom = xywh_to_xyxy(scene.boxes(i)[target])
            assert right <= 0 or left >= 320 or bottom <= 0 or top >= 240


@pytest.mark.parametrize("share", [0.4, 1.0])
def test_occluders_hide_the_share_asked_for(share: float) -> None:
    scene = Scene(replace(QUIET, frames=240, occlusion=share, kind="blob", deform=0.0, camera_motion=0.0), 4)
    visible = np.array([scene.visible(i)[0] for i in range(240)])
    assert visible[0] == 1.0 and visible[-1] == 1.0
    assert visible.min() == pytest.approx(1 - share, abs=0.15 if share < 1 else 0.001)
    hidden = int(visible.argmin())
    before = scene.frame(hidden).images[0].pixels
    scene._actors = [actor for actor in scene._actors if actor.role != "screen"]
    assert np.abs(before.astype(int) - scene.frame(hidden).images[0].pixels).max() > 10, "the occluder is drawn"


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), index=st.integers(0, 59))
def test_random_scenes_are_consistent(seed: int, index: int) -> None:
    config = random_config(np.random.default_rng(seed), width=160, height=128, frames=60)
    scene = Scene(config, seed)
    frame = scene.frame(index)
    visible, heat = frame.images
    assert visible.pixels.shape == (128, 160, 3) and visible.pixels.dtype == np.uint8 and visible.order == "bgr"
    assert heat.pixels.shape == (128, 160) and heat.pixels.dtype == (
        np.uint16 if config.thermal_bits == 16 else np.uint8
    )
    assert len(scene.boxes(index)) == len(scene.thermal_boxes(index)) == len(scene.visible(index)) == config.targets
    assert np.allclose(scene.boxes(index), scene.thermal_boxes(index)), "no homography, equal sizes"
    everybody = scene.boxes(index) + scene.look_alike_boxes(index)
    for box, share in zip(everybody, scene.visible(index) + scene.look_alikes_visible(index), strict=True):
        assert box[2:].min() > 0 and 0 <= share <= 1
        if share > 0:
            assert iou(box, (-box[2], -box[3], 160 + 2 * box[2], 128 + 2 * box[3])) > 0


@pytest.mark.parametrize("index", [-1, 90])
def test_there_are_no_frames_outside_the_scene(index: int) -> None:
    scene = Scene(QUIET, 0)
    for ask in (scene.frame, scene.boxes, scene.thermal_boxes, scene.visible):
        with pytest.raises(IndexError, match=f"frame {index} of a scene with frames 0 to 89"):
            ask(index)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("width", 3, "32 to 8192"),
        ("absence", float("nan"), "0.0 to 0.6"),
        ("scale_change", 0.5, "1.0 to 4.0"),
        ("rgb_fault", "fog", "none, dark, smoke, glare"),
        ("thermal_bits", 12, "8, 16"),
        ("kind", "tree", "any, person"),
        ("size", (90.0, 20.0), "in that order"),
        ("thermal_size", (8, 8), "from 32 on"),
        ("fault_frames", (9, 3), "in order"),
        ("homography", ((1, 0, 0), (2, 0, 0), (0, 0, 1)), "invertible"),
        ("homography", ((1, 0, 0), (0, 1, 0), (-0.01, 0, 1)), "infinity"),
    ],
)
def test_bad_configurations_are_refused_with_the_choices(field: str, value: object, said: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){field} is .*{said}"):
        SceneConfig(**{field: value})
    with pytest.raises(ValueError, match=field):
        random_config(np.random.default_rng(0), **{field: value})


def test_unknown_fields_and_bad_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown: colour; known: .*rgb_fault"):
        random_config(np.random.default_rng(0), colour=1)
    with pytest.raises(ValueError, match="seed is -1"):
        Scene(QUIET, -1)
