"""Losses against recorded ones; contexts and samples on small generated data."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import pytest
import torch

from ckd_tracker_ros.frame import Image, RgbtFrame
from ckd_tracker_ros.network.config import NetworkConfig
from ckd_tracker_ros.network.head import Maps
from ckd_tracker_ros.sequences.stills import read_stills
from ckd_tracker_ros.training.contexts import SIDE, Bank, build, clip_tracks, jobs, make_context, stack, still_tracks
from ckd_tracker_ros.training.losses import focal_losses, heat_maps, predicted_boxes, task_losses
from ckd_tracker_ros.training.samples import SampleConfig, Sampler

NETWORK = NetworkConfig(
    name="small", patch=8, template_size=32, search_size=64, width=32, depth=2, heads=2, joint_from=1, shared=True,
    elimination_blocks=(), head_channels=16,
)  # fmt: skip
EASY = SampleConfig(targets=1, paste=0.0, absent_target=0.0, blind=0.0, missing=0.0, misalignment=0.0)


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


def test_boxes_of_drawn_targets_lie_where_the_pixels_say(bank):
    sampler = Sampler(bank, replace(NETWORK, search_size=128), EASY)
    batch = sampler.draw(range(24), seed=0)
    assert batch.searches.shape == (24, 2, 3, 128, 128) and batch.templates.shape == (24, 1, 2, 3, 32, 32)
    off = []
    for search, (x, y, w, h) in zip(batch.searches[:, 1].mean(1), (batch.boxes[:, 0] * 128).tolist()):
        inside = search[max(int(y + 2), 0) : int(y + h - 2), max(int(x + 2), 0) : int(x + w - 2)].mean()
        around = search.sum() - inside * w * h
        off.append((inside - around / (128 * 128 - w * h)).item())
    assert np.mean(np.array(off) > 40) > 0.9


def test_extents_say_how_much_of_the_template_is_target(bank):
    batch = Sampler(bank, NETWORK, replace(EASY, photometry=0.0)).draw(range(12), seed=0)
    shown = (batch.templates[:, 0, 1, 0] > 127).float().mean(dim=(1, 2))  # a white box on black
    torch.testing.assert_close(shown, batch.extents[:, 0].prod(dim=1), atol=0.06, rtol=0)


def test_a_sample_depends_on_its_number_and_the_seed_alone(bank):
    sampler = Sampler(bank, NETWORK, SampleConfig(hidden=0.3))
    whole, part, other = sampler.draw(range(6), 1), sampler.draw([4, 2], 1), sampler.draw(range(6), 2)
    for a, b in zip(whole, part):
        torch.testing.assert_close(a[[4, 2]], b, atol=1e-3, rtol=1e-5)
    assert not torch.equal(whole.searches, other.searches)
    assert whole.searches.isfinite().all() and 0 <= whole.searches.min() <= whole.searches.max() <= 255


def test_every_visible_target_of_a_crop_has_a_box_in_it_and_no_two_the_same_place(bank):
    batch = Sampler(bank, NETWORK, SampleConfig(targets=3, missing=0.0)).draw(range(60), 0)
    assert batch.templates.shape[:2] == batch.boxes.shape[:2] == batch.visible.shape == (60, 3)
    middles = batch.boxes[..., :2] + batch.boxes[..., 2:] / 2
    assert ((middles > 0) & (middles < 1)).all(dim=-1)[batch.visible].all()
    both = batch.visible[:, 1] & batch.visible[:, 2]
    assert both.any() and ((middles[:, 1] - middles[:, 2]).norm(dim=1)[both] > 0.02).all()


@pytest.fixture(scope="module")
def couple() -> Bank:
    """A bright and a dim box of one picture on black, one track each."""
    pixels = np.zeros((300, 400), np.uint8)
    pixels[100:160, 130:170], pixels[110:170, 200:240] = 250, 120
    frame = RgbtFrame((None, Image(pixels, "mono")))
    tracks = [[make_context(frame, np.array([x, y, 40, 60]), picture=7)] for x, y in ((130, 100), (200, 110))]
    return stack(tracks, [1.0, 1.0])


STILL = replace(EASY, targets=2, beside=1.0, photometry=0.0, warp=0.0, turn=0.0, occluded=0.0, fill=0.0, near=1.0)


def recorded(batch) -> torch.Tensor:
    """(N,) whether the second target can be seen where `couple` has it: 70 and 10 px away, 40 by 60 px large."""
    apart = (batch.boxes[:, 1, :2] - batch.boxes[:, 0, :2]).abs() / batch.boxes[:, 1, 2:]
    return ((apart - torch.tensor([70 / 40, 10 / 60])).abs() < 0.02).all(dim=1) & batch.visible[:, 1]


def test_a_target_recorded_beside_the_first_is_asked_for_where_it_is(couple):
    batch = Sampler(couple, replace(NETWORK, search_size=128, template_size=64), STILL).draw(range(40), 0)
    rows = recorded(batch).nonzero()[:, 0].tolist()
    assert len(rows) > 20  # the others are not in the crop
    shown = set()
    for i in rows:
        x, y, w, h = (batch.boxes[i, 1] * 128).tolist()
        search, template = batch.searches[i, 1, 0], batch.templates[i, 1, 1, 0]
        there = search[int(max(y, 0) + h / 4) : int(y + h * 0.7), int(max(x, 0) + w / 4) : int(x + w * 0.7)].mean()
        level = template[28:36, 28:36].mean().item()
        assert level == pytest.approx(there.item(), abs=12)  # the template is of what lies in the box
        shown.add(round(level))
    assert shown == {250, 120}


def test_no_neighbour_is_asked_for_that_is_not_wanted_not_there_or_held_back(couple):
    held_back = replace(couple, weight=torch.tensor([1.0, 0.0]))  # the other one is for validation
    for bank, changes in ((couple, {"beside": 0.0}), (couple, {"absent_target": 1.0}), (held_back, {})):
        assert not recorded(Sampler(bank, NETWORK, replace(STILL, **changes)).draw(range(40), 0)).any()


def test_missing_absent_and_hidden_come_as_often_as_asked(bank):
    config = replace(EASY, missing=0.5, absent_target=0.4, hidden=0.25)
    batch = Sampler(bank, NETWORK, config).draw(range(400), 0)
    assert batch.present.any(dim=1).all()  # never both
    assert batch.present.all(dim=1).float().mean().item() == pytest.approx(0.5, abs=0.1)
    assert batch.visible.float().mean().item() == pytest.approx(0.6, abs=0.1)
    assert batch.hidden.shape == (400, 64) and batch.hidden.float().mean().item() == pytest.approx(0.25, abs=0.02)


def test_fog_hides_one_modality_of_the_search_crop(bank):
    clear, foggy = (Sampler(bank, NETWORK, replace(EASY, photometry=0.0, blind=b)).draw(range(60), 0) for b in (0, 1))
    changed = (clear.searches != foggy.searches).flatten(2).any(dim=2)
    assert (changed.sum(dim=1) == 1).all() and 0.5 < changed[:, 0].float().mean() < 0.9


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
    assert len(still_tracks(read_stills(tmp_path / "set").stills, 4)) == 1 and "broken.png" in caplog.text
    tracks = clip_tracks(tmp_path / "clips" / "one", 3)
    assert len(tracks) == 3 and all(len(t) == 2 and t[0].has.all() for t in tracks)
    assert len(list(jobs(tmp_path, scenes=2))) == 2 + 1 + 2
    with pytest.raises(ValueError, match="no track"):
        build([], 1)


def test_labelled_clips_give_a_track_for_each_target(tmp_path):
    for modality in ("visible", "infrared"):
        (tmp_path / "set" / "clip" / modality).mkdir(parents=True)
        for i in range(6):
            cv2.imwrite(
                str(tmp_path / "set" / "clip" / modality / f"{i}.png"), np.full((120, 160, 3), 20 * i, np.uint8)
            )
    target = {"kind": "thing", "first_frame": 1, "boxes_xywh": [[20 + i, 30, 40, 30] for i in range(5)]}
    (tmp_path / "labels.json").write_text(json.dumps({"clip": {"box": target}, "other": {"box": target}}))
    work = list(jobs(tmp_path, scenes=0, labels=tmp_path / "labels.json", weights={"labels": 7.0}))
    assert [weight for weight, _ in work] == [1.0, 7.0]
    (track,) = work[1][1]()
    assert len(track) == 3 and all(context.has.all() for context in track)  # every second frame
    x, y, w, h = track[1].box.astype(int)
    assert track[1].pixels[:, y + h // 2, x + w // 2].tolist() == [60] * 4


def test_a_soft_centre_spares_and_teaches_the_neighbours():
    boxes = torch.tensor([[0.30, 0.40, 0.25, 0.25]])  # centre at 3.4, 4.2 of 8 cells
    hard, soft = (heat_maps(boxes, 8, soft=flag)[0] for flag in (False, True))
    assert hard.nonzero().tolist() == [[4, 3]] and hard[4, 3] == soft[4, 3] == 1
    assert 0.4 < soft[4, 4] < 1 and soft[4, 2] < soft[4, 4] and (soft > 0).sum() == 9
    offset = torch.rand(1, 2, 8, 8).requires_grad_()
    maps = Maps(torch.full((1, 1, 8, 8), 0.1), torch.full((1, 2, 8, 8), 0.25), offset)
    for flag, cells in ((False, 1), (True, 9)):
        (gradient,) = torch.autograd.grad(task_losses(maps, boxes, torch.tensor([True]), soft=flag)["l1"], offset)
        assert gradient.abs().sum(dim=1).count_nonzero() == cells


def test_behind_the_border_it_is_black_whatever_the_light_and_the_template_is_cut_off_by_itself(bank):
    config = replace(EASY, photometry=1.0, blind=1.0, fill=0.0, paste=0.0, absent_target=0.0)
    dark = {}
    for cut in (0.0, 1.0):
        batch = Sampler(bank, NETWORK, replace(config, cut=cut)).draw(range(60), 0)
        dark[cut] = [(crops == 0).all(dim=-3).float().mean().item() for crops in (batch.templates, batch.searches)]
    assert dark[0.0][1] > 0.005, "as in an image, not as grey as the fog"
    assert dark[1.0][0] > dark[0.0][0] + 0.08, "the depth is 0.15 of the crop in the mean"
