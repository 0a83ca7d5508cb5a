"""The plainest training of a student: task losses only, pairs drawn on the training device.

    python -m ckd_tracker_ros.training.plain --data DATA --init WEIGHTS --out RUN --minutes 30

`RUN/state.pt` is written at intervals and resumed from; `RUN/student.safetensors` is the averaged student.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.ops import box_convert, box_iou

from ckd_tracker_ros.network import checkpoint
from ckd_tracker_ros.network.config import CONFIGS, NetworkConfig
from ckd_tracker_ros.network.convert import converted, read
from ckd_tracker_ros.network.head import Maps
from ckd_tracker_ros.network.student import Student
from ckd_tracker_ros.training.contexts import Bank, build, jobs
from ckd_tracker_ros.training.losses import predicted_boxes, task_losses, weighted
from ckd_tracker_ros.training.samples import Batch, SampleConfig, Sampler

log = logging.getLogger(__name__)

HELD_BACK = 0.05
"""Share of the tracks that only validation sees."""


@dataclass(frozen=True)
class TrainConfig:
    """Schedule and rates.

    Everything before the joint blocks keeps its pretrained weights, so a pair's early tokens never change: they are
    computed once and trained on several times.

    Attributes:
        steps: optimiser steps; the learning rate falls over them by a cosine.
        batch: pairs a step.
        fresh: new pairs a step; each is used about `batch / fresh` times.
        replay: pairs that are kept.
        head_rate, joint_rate: learning rates of the head, and of the joint blocks with their positions and last norm.
        average: decay of the averaged weights, which are what is saved.
    """

    steps: int = 3000
    batch: int = 24
    fresh: int = 4
    replay: int = 3000
    head_rate: float = 1e-3
    joint_rate: float = 2e-4
    weight_decay: float = 1e-4
    warm_up: int = 50
    clip: float = 1.0
    average: float = 0.995
    seed: int = 0


class Tokens(NamedTuple):
    """Pairs whose early tokens are known: (N, M, T, C) and (N, M, S, C) tokens, (N, 4) xywh boxes, (N,) visible."""

    templates: Tensor
    searches: Tensor
    boxes: Tensor
    visible: Tensor


def initial_student(config: NetworkConfig, init: Path | None) -> Student:
    """A student with pretrained branches where `init` has them (see `network.convert`), ready to learn quickly."""
    student = Student(config)
    if init is not None:
        tensors, report = converted(read(init), config)
        norms = {name for name in tensors if ".norm." in name}  # of the whole transformer, not of a truncated one
        student.load_state_dict({n: t for n, t in tensors.items() if n not in norms}, strict=False)
        log.info("%s: %d tensors taken, kind %s", init, len(tensors) - len(norms), report.kind)
    if config.joint_from:
        for branch, _ in student.branches:
            _mark_target(branch.joint_embed_z, config.template_grid)
    nn.init.constant_(student.box_head.conv5_ctr.bias, -math.log(99))  # one cell in a hundred holds a centre
    nn.init.constant_(student.box_head.conv5_size.bias, -1.1)  # a quarter of the crop
    return student


@torch.no_grad()
def _mark_target(table: Tensor, grid: int) -> None:
    """Template tokens start out knowing whether they show the target (the middle) or what is around it."""
    line = torch.linspace(-1, 1, grid)
    distance = (line[:, None] ** 2 + line[None, :] ** 2).flatten()
    sign = torch.tanh(4 * (0.4 - distance))  # 1 in the middle, -1 in the corners
    direction = torch.randn(table.shape[-1], generator=torch.Generator().manual_seed(0))
    table.copy_(sign[None, :, None] * direction)


def parameter_groups(student: Student, config: TrainConfig) -> list[dict[str, Any]]:
    """The parameters that learn, by learning rate; all others are frozen."""
    joint = []
    for branch, _ in student.branches:
        branch.requires_grad_(False)
        late = [*branch.blocks[student.config.joint_from :].parameters(), *branch.norm.parameters()]
        late += [table for name, table in branch.named_parameters() if name.startswith("joint_embed")]
        joint += late
    for parameter in joint:
        parameter.requires_grad_(True)
    return [
        {"params": list(student.box_head.parameters()), "lr": config.head_rate},
        {"params": joint, "lr": config.joint_rate},
    ]


@torch.no_grad()
def early_tokens(network: Student, batch: Batch) -> Tokens:
    """Run the frozen part, in its own precision, with all modalities present."""
    dtype, everything = next(network.parameters()).dtype, torch.ones_like(batch.present)
    z, x = (
        network.embed(((crops - network.mean) / network.std).to(dtype), everything, side)
        for crops, side in ((batch.templates, "z"), (batch.searches, "x"))
    )
    return Tokens(z, x, batch.boxes, batch.visible)


class Trainee(nn.Module):
    """What learns: joint blocks and head, fed with early tokens."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def forward(self, pairs: Tokens, absent: Tokens, present: Tensor) -> Maps:
        """Maps for pairs in which some modalities are absent: their tokens are those of zeros."""
        flags = present[:, :, None, None]
        z, x = (torch.where(flags, t.float(), a.float()) for t, a in zip(pairs[:2], absent[:2]))
        with torch.autocast(x.device.type, torch.bfloat16):
            maps = self.student.head(self.student.join(z, x, present).tokens)
        return Maps(*(m.float() for m in maps))


@torch.no_grad()
def validate(trainee: nn.Module, batches: list[tuple[Tokens, Tensor]], absent: Tokens) -> dict[str, float]:
    """Mean IoU at the best cell, share of best cells within a cell of the truth, both over visible targets."""
    trainee.eval()
    overlaps, near = [], []
    for pairs, present in batches:
        maps = trainee(pairs, absent, present)
        grid = maps.score.shape[-1]
        best = maps.score.flatten(1).argmax(1)
        cells = torch.stack([best % grid, best // grid], dim=1)
        boxes = box_convert(pairs.boxes, "xywh", "xyxy")
        overlaps.append(box_iou(predicted_boxes(maps, cells), boxes).diagonal()[pairs.visible])
        middle = (pairs.boxes[:, :2] + pairs.boxes[:, 2:] / 2) * grid
        near.append((cells - middle).abs().amax(1).lt(1.5)[pairs.visible])
    return {"iou": torch.cat(overlaps).mean().item(), "near": torch.cat(near).float().mean().item()}


def split(bank: Bank) -> tuple[Bank, Bank]:
    """Tracks for training and tracks for validation."""
    held = torch.arange(len(bank.count)) % round(1 / HELD_BACK) == 0
    zero = torch.zeros(())
    return (
        replace(bank, weight=torch.where(held, zero, bank.weight)),
        replace(bank, weight=torch.where(held, bank.weight, zero)),
    )


def _rate(step: int, config: TrainConfig) -> float:
    warm = min(1.0, (step + 1) / config.warm_up)
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / config.steps))))


def train(
    network: NetworkConfig, bank: Bank, config: TrainConfig, out: Path, *, init: Path | None, samples: SampleConfig,
    device: torch.device, deadline: float, provenance: dict[str, Any],
) -> Iterator[dict[str, float]]:  # fmt: skip
    """Train until the last step or the deadline (`time.monotonic`), resuming what `out` holds; yields log rows.

    Raises:
        FloatingPointError: the loss is not finite; the last good state stays in `out`.
    """
    torch.manual_seed(config.seed)
    student = initial_student(network, init).to(device)
    trainee = Trainee(student)
    averaged = AveragedModel(trainee, multi_avg_fn=get_ema_multi_avg_fn(config.average), use_buffers=True)
    optimiser = torch.optim.AdamW(parameter_groups(student, config), weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, config))
    training, held_back = (part.to(device) for part in split(bank))

    step, state_file = 0, out / "state.pt"
    parts = {"trainee": trainee, "averaged": averaged, "optimiser": optimiser, "schedule": schedule}
    if state_file.exists():
        state = torch.load(state_file, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        step = state["step"]
        log.info("resumed at step %d", step)

    generator = torch.Generator(device).manual_seed(config.seed + step)
    sampler = Sampler(training, network, samples, generator)
    frozen = copy.deepcopy(student).eval().to(torch.bfloat16)
    frozen.mean, frozen.std = student.mean.float(), student.std.float()
    absent = _absent_tokens(frozen, network, device)
    fixed = Sampler(held_back, network, samples, torch.Generator(device).manual_seed(1))
    drawn = [fixed.draw(32) for _ in range(4)]
    validation = [(early_tokens(frozen, batch), batch.present) for batch in drawn]
    replay: deque[Tokens] = deque(maxlen=config.replay)

    def write() -> None:
        out.mkdir(parents=True, exist_ok=True)
        torch.save({**{n: p.state_dict() for n, p in parts.items()}, "step": step}, state_file.with_suffix(".part"))
        state_file.with_suffix(".part").replace(state_file)
        checkpoint.save(out / "student.safetensors", averaged.module.student, {**provenance, "steps": step})

    sums: dict[str, Tensor] = {}
    since, rows = time.monotonic(), 0
    while step < config.steps and time.monotonic() < deadline:
        wanted = config.fresh if len(replay) >= 4 * config.batch else 4 * config.batch
        fresh = early_tokens(frozen, sampler.draw(wanted))
        replay.extend(Tokens(*row) for row in zip(*fresh))
        chosen = torch.randint(len(replay), (config.batch,), device=device, generator=generator).tolist()
        pairs = Tokens(*(torch.stack(column) for column in zip(*(replay[i] for i in chosen))))

        trainee.train()
        losses = task_losses(trainee(pairs, absent, sampler.present(config.batch)), pairs.boxes, pairs.visible)
        total = weighted(losses)
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(trainee.parameters(), config.clip)
        optimiser.step()
        schedule.step()
        averaged.update_parameters(trainee)
        step, rows = step + 1, rows + 1
        for name, loss in {**losses, "total": total}.items():
            sums[name] = sums.get(name, 0) + loss.detach()
        if step % 25 == 0 or step == config.steps:
            means = {name: (value / rows).item() for name, value in sums.items()}
            if not math.isfinite(means["total"]):
                raise FloatingPointError(f"the loss is {means['total']} at step {step}; last good state: {state_file}")
            row = {"step": step, **means, "ms": 1e3 * (time.monotonic() - since) / rows}
            if step % 100 == 0 or step == config.steps:
                row |= validate(averaged, validation, absent)
                write()
            yield row
            sums, since, rows = {}, time.monotonic(), 0
    write()


def _absent_tokens(frozen: Student, network: NetworkConfig, device: torch.device) -> Tokens:
    """Early tokens of absent modalities: what zeros become."""
    m = len(network.modalities)
    nobody = torch.zeros(1, m, dtype=torch.bool, device=device)
    with torch.no_grad():
        z, x = (
            frozen.embed(torch.zeros(1, m, 3, size, size, dtype=torch.bfloat16, device=device), nobody, side)
            for size, side in ((network.template_size, "z"), (network.search_size, "x"))
        )
    return Tokens(z, x, torch.zeros(1, 4), nobody[:, 0])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of annotated sets and clips; without it, scenes alone")
    parser.add_argument("--scenes", type=int, default=600, help="generated scenes")
    parser.add_argument("--weight", action="append", default=[], metavar="SET=NUMBER", help="how often a set is drawn")
    parser.add_argument("--init", type=Path, help="pretrained transformer, see 'ckd-tracker convert'")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--network", default="ckd_tiny", choices=sorted(CONFIGS))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=JSON", help="any field of any configuration")
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--processes", type=int, default=2, help="for reading images")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")

    deadline = time.monotonic() + 60 * arguments.minutes
    changes = {key: json.loads(value) for key, _, value in (item.partition("=") for item in arguments.set)}
    network, config, samples = CONFIGS[arguments.network], TrainConfig(), SampleConfig()
    network = NetworkConfig.from_dict(network.to_dict() | {k: v for k, v in changes.items() if k in network.to_dict()})
    config, samples = (replace(c, **{k: v for k, v in changes.items() if k in asdict(c)}) for c in (config, samples))
    unknown = set(changes) - {*network.to_dict(), *asdict(config), *asdict(samples)}
    if unknown:
        parser.error(
            f"unknown --set {sorted(unknown)}; known: {[*network.to_dict(), *asdict(config), *asdict(samples)]}"
        )

    weights = {name: float(value) for name, _, value in (item.partition("=") for item in arguments.weight)}
    bank = build(jobs(arguments.data, arguments.scenes, weights=weights), arguments.processes)
    log.info("%d tracks, %d contexts", len(bank.count), len(bank.pixels))
    provenance = {
        "trained_by": "ckd_tracker_ros.training.plain",
        "training": asdict(config) | asdict(samples),
        "init": arguments.init.name if arguments.init else None,
        "data": sorted(path.name for path in arguments.data.iterdir()) if arguments.data else [],
        "scenes": arguments.scenes,
        "weights": weights,
    }
    rows = train(
        network, bank, config, arguments.out, init=arguments.init, samples=samples,
        device=torch.device(arguments.device), deadline=deadline, provenance=provenance,
    )  # fmt: skip
    for row in rows:
        log.info("  ".join(f"{name} {value:.4g}" for name, value in row.items()))


if __name__ == "__main__":
    main()
