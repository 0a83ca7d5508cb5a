"""Coupled distillation: recorded losses, who learns from what, and two processes against one."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from ckd_tracker_ros.frame import Image, RgbtFrame
from ckd_tracker_ros.network import checkpoint
from ckd_tracker_ros.network.config import NetworkConfig
from ckd_tracker_ros.network.student import Student
from ckd_tracker_ros.tracker import Tracker
from ckd_tracker_ros.training.distillation import (
    PLAIN,
    STAGE_2,
    CoupledDistillation,
    DistillationConfig,
    Rates,
    parameter_groups,
)
from ckd_tracker_ros.training.losses import content_gaps, style_gaps, task_losses, without_style
from ckd_tracker_ros.training.samples import Batch

PAPER = NetworkConfig(
    name="paper", patch=8, template_size=16, search_size=32, width=16, depth=3, heads=2, elimination_blocks=(),
    head_channels=16,
)  # fmt: skip
APART = replace(PAPER, name="apart", joint_from=2, shared=True, target_embed=True)
FULL = DistillationConfig()
FROZEN = DistillationConfig(early_frozen=True, early_precision="float32")
TERMS = ("focal", "giou", "l1")
TASKS = {f"{head}/{term}" for head in ("fused", "rgb", "thermal") for term in TERMS}


def module(network: NetworkConfig = PAPER, config: DistillationConfig = FULL, seed: int = 0) -> CoupledDistillation:
    torch.manual_seed(seed)
    made = CoupledDistillation(network, config)
    for student in made.networks:
        torch.manual_seed(seed)
        nn.init.normal_(student.box_head.conv5_ctr.weight)  # maps that depend on the tokens
    return made.eval()


def batch(n: int = 4, k: int = 2, network: NetworkConfig = PAPER, seed: int = 0) -> Batch:
    """Every third target is not there; sample 1 lacks the first modality, sample 2 the second."""
    rng, m = torch.Generator().manual_seed(seed), len(network.modalities)
    present = torch.ones(n, m, dtype=torch.bool)
    if m > 1:
        present[1:2, 0] = present[2:3, 1] = False

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=rng)

    return Batch(
        templates=255 * uniform(n, k, m, 3, network.template_size, network.template_size),
        extents=0.3 + 0.4 * uniform(n, k, 2),
        searches=255 * uniform(n, m, 3, network.search_size, network.search_size),
        present=present,
        boxes=0.2 + 0.3 * uniform(n, k, 4),
        visible=(torch.arange(n * k) % 3 != 2).view(n, k),
        hidden=uniform(n, network.search_grid**2) < 0.25,
    )


def values(losses: dict[str, Tensor]) -> dict[str, float]:
    return {name: loss.item() for name, loss in losses.items()}


def gradients(made: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in made.named_parameters() if p.grad is not None and p.grad.any()}


def test_style_and_content_equal_the_published_ones(golden):
    data, rng = np.load(golden / "losses.npz"), np.random.default_rng(6)
    teacher, rgb, thermal = (
        torch.from_numpy((rng.standard_normal((2, 320, 768)) * spread + mean).astype(np.float32))
        for spread, mean in ((2, 1), (1, 0), (0.5, -1))
    )
    assert content_gaps(rgb, teacher).mean().item() == pytest.approx(data["content"].item(), rel=1e-5)
    assert style_gaps(rgb, thermal).mean().item() == pytest.approx(data["style"].item(), rel=1e-5)


@pytest.mark.parametrize("shape", [(1, 2, 1), (3, 7, 5), (2, 180, 384)])
def test_content_is_what_is_left_without_style(shape):
    tokens, other = torch.randn(2, *shape).unbind()
    expected = F.instance_norm(tokens.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(without_style(tokens), expected, atol=1e-5, rtol=1e-4)
    restyled = other * (1 + torch.rand(shape[0], 1, shape[2])) + torch.randn(shape[0], 1, shape[2])
    assert content_gaps(other, restyled) == pytest.approx(torch.zeros(shape[0]), abs=1e-3)
    assert (style_gaps(other, restyled) > 0).all() and not style_gaps(other, other).any()


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize(
    ("network", "config", "expected"),
    [
        (PAPER, FULL, TASKS | {"style", "content"}),
        (
            replace(PAPER, patch=4, template_size=20, search_size=36, width=24, depth=1),
            FULL,
            TASKS | {"style", "content"},
        ),
        (APART, FROZEN, TASKS | {"style", "content"}),
        (replace(APART, shared=False), FULL, TASKS | {"style", "content"}),
        (PAPER, replace(FULL, style=0.0), TASKS | {"content"}),
        (PAPER, replace(FULL, content=0.0), TASKS | {"style"}),
        (replace(PAPER, modalities=("thermal",)), FULL, {n for n in TASKS if "rgb" not in n} | {"content"}),
        (APART, PLAIN, {f"fused/{term}" for term in TERMS}),
    ],
)
def test_any_size_gives_the_losses_asked_for(network, config, expected, k):
    made = module(network, config)
    rates = Rates(early=0.0) if config.early_frozen else Rates()
    groups = parameter_groups(made, rates)
    losses = made.train()(batch(k=k, network=network))
    assert set(losses) == expected
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    config.weighted(losses).backward()
    learn = [p for p in made.parameters() if p.requires_grad]
    assert sum(len(group["params"]) for group in groups) == len(learn)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learn)


def test_the_total_weighs_as_in_the_paper():
    losses = {name: torch.tensor(1.0) for name in TASKS | {"style", "content"}}
    assert FULL.weighted(losses).item() == pytest.approx(3 * (2 + 5 + 1) + 0.01 + 0.1)
    assert replace(FULL, teacher_task=0.5).weighted(losses).item() == pytest.approx(2 * 8 + 0.11)


def test_what_weighs_nothing_leaves_no_trace():
    full, bare = (module(config=config) for config in (FULL, replace(FULL, style=0.0, content=0.0)))
    losses, fewer = full(batch()), bare(batch())
    assert values(fewer) == {name: value for name, value in values(losses).items() if name in TASKS}
    plain = module(config=PLAIN)
    assert values(plain(batch())) == {name: v for name, v in values(losses).items() if name.startswith("fused/")}
    assert not any(name.startswith("teachers") for name in plain.state_dict())


@pytest.mark.parametrize("network", [PAPER, APART])
def test_task_losses_are_those_of_the_networks_as_they_track(network):
    made, given = module(network), batch(k=1, network=network)
    given = given._replace(hidden=torch.zeros_like(given.hidden))
    losses = made(given)
    for name, tracker, part in (("fused", made.student, slice(None)), ("rgb", made.teachers["rgb"], slice(0, 1))):
        rows = torch.tensor([0, 2, 3]) if name == "rgb" else torch.arange(4)
        crops = (
            (given.templates[rows, 0, part] - tracker.mean) / tracker.std,
            (given.searches[rows, part] - tracker.mean) / tracker.std,
        )
        maps = tracker(*crops, given.present[rows, part], given.extents[rows, 0])
        expected = task_losses(maps, given.boxes[rows, 0], given.visible[rows, 0])
        assert {f"{name}/{term}": pytest.approx(v.item(), rel=1e-5) for term, v in expected.items()}.items() <= (
            values(losses).items()
        )


def test_teachers_learn_from_their_task_alone_and_students_from_everything():
    made = module()
    for term, learners in {
        "content": {"student.rgb_branch", "student.tir_branch"},
        "style": {"student.rgb_branch", "student.tir_branch"},
        "fused/giou": {"student.rgb_branch", "student.tir_branch", "student.box_head"},
        "rgb/giou": {"teachers.rgb.rgb_branch", "teachers.rgb.box_head"},
    }.items():
        made.zero_grad()
        made(batch())[term].backward()
        found = {name.partition(".blocks")[0].partition(".conv")[0] for name in gradients(made)}
        assert {name for name in found if name.split(".")[-1] in ("rgb_branch", "tir_branch", "box_head")} == learners


@pytest.mark.parametrize(("network", "config"), [(PAPER, FULL), (APART, FROZEN)])
def test_hidden_tokens_are_hidden_from_students_in_both_modalities(network, config):
    made, given = module(network, config), batch(network=network)
    hidden = given.hidden.unflatten(1, (network.search_grid,) * 2)
    pixels = hidden.repeat_interleave(network.patch, 1).repeat_interleave(network.patch, 2)[:, None, None]
    assert 0 < hidden.sum() < hidden.numel()
    before = values(made(given))
    for modality, teacher in enumerate(network.modalities):
        noise = torch.zeros_like(given.searches)
        noise[:, modality] = 100
        under = values(made(given._replace(searches=given.searches + noise * pixels)))
        changed = {name for name in before if before[name] != under[name]}
        assert changed == {f"{teacher}/focal", f"{teacher}/giou", f"{teacher}/l1", "content"}
        beside = values(made(given._replace(searches=given.searches + noise * ~pixels)))
        assert {"fused/focal", "style"} <= {name for name in before if before[name] != beside[name]}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("network", "config"), [(PAPER, FULL), (APART, FROZEN)])
def test_an_absent_modality_has_no_part(network, config, training):
    """Its pixels change nothing, and its teacher's losses are those of a batch without the sample."""
    given, losses, learned = batch(network=network), [], []
    unseen = given._replace(templates=given.templates.clone(), searches=given.searches.clone())
    unseen.templates.transpose(1, 2)[~given.present] = torch.nan
    unseen.searches[~given.present] = torch.nan
    without = Batch(*(tensor[[0, 2, 3]] for tensor in given))
    for current in (given, unseen, without):
        made = module(network, config).train(training)
        losses.append(values(made(current)))
        config.weighted(made(current)).backward()
        learned.append(gradients(made))
    assert losses[0] == losses[1]
    torch.testing.assert_close(learned[0], learned[1])
    for term in TERMS:
        assert losses[0][f"rgb/{term}"] == pytest.approx(losses[2][f"rgb/{term}"], rel=1e-5)
    # style compares samples 0 and 3, which have both
    both = Batch(*(tensor[[0, 3]] for tensor in given))
    assert module(network, config)(both)["style"].item() == pytest.approx(losses[0]["style"], rel=1e-4)


@pytest.mark.parametrize("network", [PAPER, APART])
def test_finite_with_nothing_visible_and_no_pair(network):
    """Boxes of targets that are not there may be anything; every parameter gets a gradient all the same."""
    made, given = module(network).train(), batch(network=network)
    given.visible[:], given.boxes[:] = False, torch.nan
    given.present[:, 1] = False
    losses = made(given)
    found = values(losses)
    assert all(np.isfinite(value) for value in found.values())
    zero = {name for name, value in found.items() if value == 0}
    assert zero == {name for name in found if name.startswith("thermal/") or name.endswith(("giou", "l1"))} | {"style"}
    FULL.weighted(losses).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in made.parameters())


def test_second_stage_moves_only_the_head():
    made = module(replace(PAPER, elimination_blocks=(1,)), PLAIN)
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    groups = parameter_groups(made, STAGE_2)
    assert [group["name"] for group in groups] == ["head"] and groups[0]["lr"] == 5e-5
    optimiser = torch.optim.AdamW(groups, weight_decay=0.1)
    PLAIN.weighted(made.train()(batch())).backward()
    optimiser.step()
    changed = {name for name, tensor in made.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if name.startswith("student.box_head.")}


def test_what_is_frozen_is_in_evaluation_mode():
    made = module(APART, FROZEN)
    assert [g["name"] for g in parameter_groups(made, Rates(head=0.0, joint=1e-5, early=0.0))] == ["joint"]
    made.train()
    branch = made.student.branches[0][0]
    assert [block.training for block in branch.blocks] == [False, False, True]
    assert not any(m.training for m in made.modules() if isinstance(m, nn.BatchNorm2d))
    parameter_groups(made, Rates(early=0.0))
    assert all(m.training for m in made.modules() if isinstance(m, nn.BatchNorm2d))


@pytest.mark.parametrize("network", [APART, replace(APART, shared=False, joint_from=1)])
def test_frozen_early_blocks_run_once_for_all_and_change_nothing(network):
    def make(config: NetworkConfig) -> Student:
        torch.manual_seed(0)
        student = Student(config)
        first = student.branches[0][0]
        for branch, _ in student.branches:
            branch.load_state_dict(first.state_dict())
        return student

    given = batch(network=network)
    expected = values(CoupledDistillation(network, FULL, make).eval()(given))
    frozen = CoupledDistillation(network, FROZEN, make).eval()
    assert values(frozen(given)) == pytest.approx(expected, rel=1e-5)
    rough = CoupledDistillation(network, replace(FROZEN, early_precision="bfloat16"), make).eval()
    assert values(rough(given)) == pytest.approx(expected, rel=0.1)
    # tokens can be kept, and a camera left out later
    tokens = frozen.early(given._replace(present=torch.ones_like(given.present)))
    again = frozen(tokens._replace(present=given.present))
    assert values(again) == pytest.approx(expected, rel=1e-5)
    runs = []
    frozen.frozen.patch_embed.register_forward_hook(lambda _, crops, tokens: runs.append(len(crops[0])))
    frozen(given)
    frozen(given._replace(hidden=torch.zeros_like(given.hidden)))
    assert runs == [16, 8, 8, 16, 8]  # N * K * M templates; N * M searches, hidden and whole


def test_a_training_step_helps():
    made, given = module(config=replace(FULL, style=0.1)).train(), batch()
    optimiser = torch.optim.AdamW(parameter_groups(made, Rates(3e-3, 1e-3, 1e-3)))
    found = []
    for _ in range(12):
        losses = made(given)
        found.append(values(losses))
        optimiser.zero_grad()
        made.config.weighted(losses).backward()
        optimiser.step()
    assert {name for name in found[0] if found[-1][name] < found[0][name]} >= {
        "style", "content", *(name for name in TASKS if "l1" not in name)
    }  # fmt: skip


def test_mixed_precision_keeps_losses_in_float32():
    made, given = module(), batch()
    expected = values(made(given))
    with torch.autocast("cpu", torch.bfloat16):
        losses = made(given)
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    assert values(losses) == pytest.approx(expected, rel=0.1)


def test_a_teacher_is_a_tracker_for_one_camera(tmp_path):
    made = module(APART)
    frames = [
        RgbtFrame((Image(rgb), Image(thermal, "mono")))
        for rgb, thermal in zip(
            np.random.default_rng(0).integers(0, 255, (3, 90, 120, 3), np.uint8),
            np.random.default_rng(1).integers(0, 255, (3, 90, 120), np.uint8),
        )
    ]
    for name, teacher in made.teachers.items():
        checkpoint.save(tmp_path / name, teacher, {}, torch.float32)
        config, _ = checkpoint.read_metadata(tmp_path / name)
        assert config.modalities == (name,) and config.name == f"apart_{name}"
        tracker = Tracker.from_checkpoint(tmp_path / name, device="cpu")
        state = tracker.start(frames[0], np.array([40.0, 30, 20, 25]))
        for frame in frames[1:]:
            state, estimate = tracker.step(state, frame)
            assert np.isfinite(estimate.box).all() and sum(estimate.present) == 1
    assert set(made.teachers) == {"rgb", "thermal"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: DistillationConfig(style=-1), "style is -1; allowed: 0 or more"),
        (lambda: DistillationConfig(content=float("nan")), "content is nan"),
        (lambda: DistillationConfig(early_precision="int4"), "'int4'; allowed: float32, bfloat16"),
        (lambda: CoupledDistillation(replace(PAPER, elimination_blocks=(1,)), FULL), "content 0 or no elimination"),
        (lambda: CoupledDistillation(replace(APART, shared=False), FROZEN), "student's branches differ in pos_embed_z"),
        (lambda: parameter_groups(module(APART, FROZEN), Rates()), "rate of 5e-06 for the early blocks; allowed: 0"),
        (lambda: parameter_groups(module(), Rates(0, 0, 0)), "not all 0"),
        (lambda: parameter_groups(module(), Rates(head=-1.0)), "'head': -1.0"),
    ],
)
def test_bad_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


def uneven() -> Batch:
    """Four samples whose halves differ in visible targets, and of which the second has no thermal image."""
    given = batch()
    given.present[2:], given.visible[3] = torch.tensor([True, False]), False
    assert given.visible[:2].sum() != given.visible[2:].sum()
    return given


def half(rank: int, folder: Path) -> None:
    """One of two processes, on its half of the samples."""
    meeting = f"file://{folder / 'meeting'}"
    distributed.init_process_group("gloo", meeting, timeout=timedelta(minutes=3), world_size=2, rank=rank)
    try:
        made = DistributedDataParallel(module())
        losses = made(Batch(*(tensor[2 * rank : 2 * rank + 2] for tensor in uneven())))
        FULL.weighted(losses).backward()
        torch.save((values(losses), gradients(made.module)), folder / f"{rank}.pt")
    finally:
        distributed.destroy_process_group()


def test_two_processes_learn_what_one_does(tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    other = torch.multiprocessing.get_context("spawn").Process(target=half, args=(1, tmp_path), daemon=True)
    other.start()
    half(0, tmp_path)
    other.join(180)
    assert other.exitcode == 0
    (first, learned), (second, also_learned) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    made = module()
    losses = made(uneven())
    FULL.weighted(losses).backward()
    assert {name: (first[name] + second[name]) / 2 for name in first} == pytest.approx(values(losses), rel=1e-5)
    torch.testing.assert_close(learned, also_learned, rtol=0, atol=0)
    torch.testing.assert_close(learned, gradients(made), rtol=1e-4, atol=1e-6)
