"""The network against the numbers of the published one, and what the published one never had."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from ckd_tracker_ros.network.config import BASE, TINY, NetworkConfig
from ckd_tracker_ros.network.elimination import keep_candidates, kept_in_branches, restore_tokens, take_tokens
from ckd_tracker_ros.network.student import Student


@pytest.fixture(scope="module")
def published(golden) -> Student:
    sys.path.insert(0, str(golden))
    from fill_weights import filled

    student = Student(BASE).eval()
    student.load_state_dict(filled(student.state_dict()))
    return student


@pytest.mark.parametrize("seed, batch", [(0, 1), (1, 2)])
@pytest.mark.parametrize("kind", ["full", "mce"])
@torch.inference_mode()
def test_maps_equal_the_published_network(golden, published, kind, seed, batch):
    expected = np.load(golden / f"network_{kind}_seed{seed}_b{batch}.npz")
    rng = np.random.default_rng(seed)
    z, x = (torch.from_numpy(rng.standard_normal((2, batch, 3, size, size), dtype=np.float32)) for size in (128, 256))
    config = published.config
    published.config = config if kind == "mce" else replace(config, elimination_blocks=())
    try:
        present = torch.ones(batch, 2, dtype=torch.bool)
        sides = {"z": z.transpose(0, 1), "x": x.transpose(0, 1)}
        features = published.join(*(published.embed(c, present, side) for side, c in sides.items()), present)
        maps = published.head(features.tokens)
    finally:
        published.config = config
    for name in ("score", "size", "offset"):
        np.testing.assert_allclose(getattr(maps, name), expected[f"{name}_map"], atol=1e-5)
    if kind == "mce":
        for kept in features.kept.unbind(1):
            np.testing.assert_array_equal(kept, expected["kept"])


SMALL = NetworkConfig(
    name="small", patch=8, template_size=24, search_size=48, width=32, depth=4, heads=2, elimination_blocks=(1, 2),
    head_channels=16,
)  # fmt: skip


def crops(config: NetworkConfig, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    m = len(config.modalities)
    return tuple(
        torch.randn(n, m, 3, size, size, generator=generator) for size in (config.template_size, config.search_size)
    )


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        replace(SMALL, shared=True),
        replace(SMALL, joint_from=1),
        replace(SMALL, shared=True, joint_from=2, elimination_blocks=(3,)),
        replace(SMALL, modalities=("thermal",)),
    ],
    ids=["published shape", "shared", "joint from 1", "shared, joint from 2", "one modality"],
)
@torch.inference_mode()
def test_targets_of_a_batch_do_not_see_each_other(config):
    torch.manual_seed(0)
    student = Student(config).eval()
    templates, searches = crops(config, 3)
    together = student(templates, searches)
    for i in range(3):
        for whole, alone in zip(together, student(templates[i : i + 1], searches[i : i + 1])):
            torch.testing.assert_close(whole[i : i + 1], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("config", [SMALL, replace(SMALL, shared=True, joint_from=1)], ids=["two", "shared"])
@torch.inference_mode()
def test_pixels_of_an_absent_modality_change_nothing(config):
    torch.manual_seed(0)
    student = Student(config).eval()
    templates, searches = crops(config, 2)
    present = torch.tensor([[True, False], [True, True]])
    before = student(templates, searches, present)
    templates[0, 1], searches[0, 1] = float("nan"), 7.0
    after = student(templates, searches, present)
    for a, b in zip(before, after):
        torch.testing.assert_close(a, b)
    everything = student(*crops(config, 2))
    assert not torch.allclose(before.score[0], everything.score[0])
    torch.testing.assert_close(before.score[1], everything.score[1])


def test_elimination_keeps_what_any_present_modality_finds():
    attention = torch.zeros(2, 2, 3, 5)
    attention[:, 0, :, 1], attention[:, 1, :, 4], attention[:, 0, :, 3] = 0.5, 0.9, 0.1
    present = torch.tensor([[True, True], [True, False]])
    assert keep_candidates(attention, present, 2).tolist() == [[1, 4], [1, 3]]
    attention[:, 1, :, 0] = 0.2
    assert kept_in_branches(attention, present, 2, independent=False).tolist() == [[[1, 4]] * 2, [[1, 3]] * 2]
    apart = kept_in_branches(attention, present, 2, independent=True)
    assert apart[0].tolist() == [[1, 3], [0, 4]]
    assert apart[1, 0].tolist() == [1, 3]


@torch.inference_mode()
def test_branches_that_eliminate_apart_keep_their_own_tokens():
    torch.manual_seed(0)
    student = Student(replace(SMALL, elimination="independent")).eval()
    crop_pair, present = crops(SMALL, 2), torch.ones(2, 2, dtype=torch.bool)
    z, x = (student.embed(c, present, side) for c, side in zip(crop_pair, "zx"))
    features = student.join(z, x, present)
    assert features.kept.shape == (2, 2, SMALL.kept_tokens[-1])
    assert (features.kept[:, 0] != features.kept[:, 1]).any()
    filled = features.tokens.abs().sum(-1) > 0  # (N, M, F * F)
    assert torch.equal(filled.nonzero()[:, 2].view_as(features.kept), features.kept)
    # what a branch keeps when it is alone with the same weights
    alone = Student(replace(SMALL, modalities=("thermal",))).eval()
    own = {n: t for n, t in student.state_dict().items() if n.startswith("tir_branch")}
    alone.load_state_dict(own, strict=False)
    assert torch.equal(alone.join(z[:, 1:], x[:, 1:], present[:, 1:]).kept[:, 0], features.kept[:, 1])


def test_removed_tokens_come_back_as_zeros_in_their_places():
    tokens = torch.arange(1.0, 11.0).view(1, 1, 5, 2)
    kept = torch.tensor([[[0, 3]]])
    restored = restore_tokens(take_tokens(tokens, kept), kept, 5)
    assert restored[0, 0].tolist() == [[1, 2], [0, 0], [0, 0], [7, 8], [0, 0]]


def test_counts_are_those_of_the_paper():
    assert BASE.kept_tokens == (180, 126, 89)
    assert BASE.central_template_token == 27
    assert (TINY.template_grid, TINY.search_grid) == (6, 12)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"search_size": 250}, "250.*16"),
        ({"heads": 5}, "768.*5"),
        ({"elimination_keep": 0.0}, "0.0"),
        ({"elimination": "none"}, "none.*independent"),
        ({"elimination_blocks": (12,)}, "12"),
        ({"joint_from": 12}, "12"),
        ({"size_rate": 0.0}, "0.0.*at most 1"),
        ({"size_trust": 9.0}, "9.0.*0 .always. to 8"),
        ({"modalities": ("radar",)}, "radar.*rgb"),
    ],
)
def test_a_shape_that_makes_no_network_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        replace(BASE, **change)


def test_configuration_survives_json_and_unknown_keys_do_not():
    assert NetworkConfig.from_dict(TINY.to_dict()) == TINY
    with pytest.raises(ValueError, match="colour.*known.*depth"):
        NetworkConfig.from_dict({"colour": 1})
