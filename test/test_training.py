"""Losses against recorded ones; contexts, pairs and the plain trainer on small generated data."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import pytest
import torch

from ckd_tracker_ros.frame import Image, RgbtFrame
from ckd_tracker_ros.network import checkpoint
from ckd_tracker_ros.network.config import NetworkConfig
from ckd_tracker_ros.network.head import Maps
from ckd_tracker_ros.training.contexts import SIDE, Bank, build, clip_tracks, jobs, make_context, still_tracks
from ckd_tracker_ros.training.losses import focal_losses, heat_maps, predicted_boxes, task_losses
from ckd_tracker_ros.training.plain import TrainConfig, train
from ckd_tracker_ros.training.samples import SampleConfig, Sampler

NETWORK = NetworkConfig(
    name="small", patch=8, template_size=32, search_size=64, width=32, depth=2, heads=2, joint_from=1, shared=True,
    elimination_blocks=(), head_channels=16,
)  # fmt: skip
EASY = SampleConfig(rivals=0, paste=0.0, absent_target=0.0, blind=0.0, missing=0.0)


def test_losses_equal_the_published_ones(golden):
    data = np.load(golden / "losses.npz")
    boxes = torch.from_numpy(data["gt_xywh"][0])
    np.testing.assert_allclose(heat_maps(boxes, 16), data["heatmaps"], atol=1e-6)
    focal = focal_losses(torch.from_numpy(data["score"]), torch.from_numpy(data["heatmaps"]))
    assert focal.mean().item() == pytest.approx(data["focal"].item(), rel=1e-5)
    # a head that predicts the recorded boxes in the cells of the true centres
    cells, predicted = torch.tensor([[8, 8], [6, 10]]), torch.from_numpy(data["pred_xyxy"])
    size, offset = torch.zeros(2, 2, 16, 16), torch.zeros(2, 2, 16, 16)
    for i, (column, row) in enumerate(cells.tolist()):
        size[i, :, row, column] = predicted[i, 2:] - predicted[i, :2]
        offset[i, :, row, column] = (predicted[i, 2:] + predicted[i, :2]) / 2 * 16 - cells[i]
    maps = Maps(torch.from_numpy(data["score"]), size, offset)
    torch.testing.assert_close(predicted_boxes(maps, cells), predicted)
    losses = task_losses(maps, boxes, torch.tensor([True, True]))
    assert losses["giou"].item() == pytest.approx(data["giou_loss"].item(), rel=1e-5)
    assert losses["l1"].item() == pytest.approx(data["l1"].item(), rel=1e-5)


def test_a_target_that_is_not_there_has_no_box_loss():
    maps = Maps(torch.full((1, 1, 8, 8), 0.1), torch.rand(1, 2, 8, 8), torch.rand(1, 2, 8, 8))
    losses = task_losses(maps, torch.tensor([[0.4, 0.4, 0.2, 0.2]]), torch.tensor([False]))
    assert losses["giou"] == losses["l1"] == 0 and losses["focal"] > 0


def white_target(n: int = 3) -> list:
    """Tracks of a white box on black: where it lies in a crop can be read off the pixels."""
    tracks = []
    for i in range(n):
        pixels = np.zeros((300, 400), np.uint8)
        x, y, w, h = 150 + 10 * i, 100, 40 + 5 * i, 60 - 8 * i
        pixels[y : y + h, x : x + w] = 255
        tracks.append([make_context(RgbtFrame((None, Image(pixels, "mono"))), np.array([x, y, w, h]))])
    return tracks


@pytest.fixture(scope="module")
def bank() -> Bank:
    return build([(1.0, partial(white_target, 3))], 1)


def test_a_context_keeps_the_box_and_the_border_of_the_image():
    context = white_target(1)[0][0]
    ys, xs = np.nonzero(context.pixels[3] > 127)
    found = (xs.min(), ys.min(), xs.max() + 1 - xs.min(), ys.max() + 1 - ys.min())
    np.testing.assert_allclose(found, context.box, atol=1.5)
    assert context.has.tolist() == [False, True] and not context.pixels[:3].any()
    edge = make_context(RgbtFrame((Image(np.full((100, 100, 3), 9, np.uint8)), None)), np.array([0.0, 0, 30, 30]))
    left, top, right, bottom = edge.inside.astype(int)
    assert 0 < left < right < SIDE and 0 < top < bottom < SIDE
    assert edge.pixels[:3, top + 1 : bottom, left + 1 : right].min() == 9


def test_boxes_of_drawn_pairs_lie_where_the_pixels_say(bank):
    sampler = Sampler(bank, replace(NETWORK, search_size=128), EASY, torch.Generator().manual_seed(0))
    batch = sampler.draw(24)
    assert batch.searches.shape == (24, 2, 3, 128, 128) and batch.templates.shape == (24, 2, 3, 32, 32)
    off = []
    for search, (x, y, w, h) in zip(batch.searches[:, 1].mean(1), (batch.boxes * 128).tolist()):
        inside = search[max(int(y + 2), 0) : int(y + h - 2), max(int(x + 2), 0) : int(x + w - 2)].mean()
        around = search.sum() - inside * w * h
        off.append((inside - around / (128 * 128 - w * h)).item())
    assert np.mean(np.array(off) > 40) > 0.9


def test_pairs_depend_on_the_seed_alone(bank):
    draws = [Sampler(bank, NETWORK, SampleConfig(), torch.Generator().manual_seed(s)).draw(6) for s in (1, 1, 2)]
    for a, b in zip(draws[0], draws[1]):
        torch.testing.assert_close(a, b)
    assert not torch.equal(draws[0].searches, draws[2].searches)
    assert draws[0].searches.isfinite().all() and 0 <= draws[0].searches.min() <= draws[0].searches.max() <= 255


def test_missing_and_absent_come_as_often_as_asked(bank):
    config = SampleConfig(missing=0.5, absent_target=0.4)
    batch = Sampler(bank, NETWORK, config, torch.Generator().manual_seed(0)).draw(400)
    assert batch.present.any(dim=1).all()  # never both
    assert batch.present.all(dim=1).float().mean().item() == pytest.approx(0.5, abs=0.1)
    assert batch.visible.float().mean().item() == pytest.approx(0.6, abs=0.1)


def test_annotated_images_and_clips_are_read_and_bad_ones_left_out(tmp_path, caplog):
    rng = np.random.default_rng(0)
    images = tmp_path / "set" / "images"
    images.mkdir(parents=True)
    cv2.imwrite(str(images / "a.png"), rng.integers(0, 255, (120, 160, 3), np.uint8))
    (images / "broken.png").write_bytes(b"not an image")
    records = [
        {"file": "images/a.png", "boxes_xywh": [[10, 10, 40, 30], [5, 5, 3, 3]], "modality": "rgb"},
        {"file": "images/broken.png", "boxes_xywh": [[1, 1, 50, 50]], "modality": "rgb"},
    ]
    (tmp_path / "set" / "annotations.json").write_text(json.dumps(records))
    for modality in ("visible", "infrared"):
        (tmp_path / "clips" / "one" / modality).mkdir(parents=True)
        for i in range(5):
            image = cv2.GaussianBlur(rng.integers(0, 255, (120, 160), np.uint8), (0, 0), 2) * 3
            cv2.imwrite(str(tmp_path / "clips" / "one" / modality / f"{i}.png"), image)
    assert len(still_tracks(records, tmp_path / "set", 4)) == 1 and "broken.png" in caplog.text
    tracks = clip_tracks(tmp_path / "clips" / "one", 3)
    assert len(tracks) == 3 and all(len(t) == 2 and t[0].has.all() for t in tracks)
    assert len(list(jobs(tmp_path, scenes=2))) == 2 + 1 + 2
    with pytest.raises(ValueError, match="no track"):
        build([], 1)


def test_training_learns_resumes_and_saves_a_network_that_loads(bank, tmp_path):
    config = TrainConfig(steps=50, batch=4, fresh=1, replay=100, head_rate=3e-3, joint_rate=1e-3, warm_up=5)

    def run(steps: int) -> list[dict[str, float]]:
        return list(
            train(
                NETWORK, bank, replace(config, steps=steps), tmp_path, init=None, samples=EASY,
                device=torch.device("cpu"), deadline=time.monotonic() + 120, provenance={"data": "white boxes"},
            )
        )  # fmt: skip

    rows = run(50)
    assert [row["step"] for row in rows] == [25, 50] and rows[1]["total"] < rows[0]["total"]
    assert [row["step"] for row in run(75)] == [75]
    student = checkpoint.load(tmp_path / "student.safetensors")
    assert student.config == NETWORK
    assert checkpoint.read_metadata(tmp_path / "student.safetensors")[1] == {"data": "white boxes", "steps": 75}


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(bank, tmp_path):
    with pytest.raises(FloatingPointError, match="step 25"):
        list(
            train(
                NETWORK, bank, TrainConfig(steps=25, batch=2, fresh=1, head_rate=1e30, warm_up=1), tmp_path,
                init=None, samples=EASY,
                device=torch.device("cpu"), deadline=time.monotonic() + 60, provenance={},
            )
        )  # fmt: skip
    assert not (tmp_path / "student.safetensors").exists()
