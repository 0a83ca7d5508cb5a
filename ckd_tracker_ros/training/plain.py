"""The plainest training of a student: task losses only, pairs drawn on the training device.

    python -m ckd_tracker_ros.training.plain --data DATA --init WEIGHTS --out RUN --minutes 30

`RUN/state.pt` is written at intervals and resumed from; `RUN/student.safetensors` is the averaged student.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ckd_tracker_ros.network import checkpoint
from ckd_tracker_ros.network.config import CONFIGS, NetworkConfig
from ckd_tracker_ros.network.convert import converted, read
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

    Attributes:
        steps: optimiser steps; the learning rate falls over them by a cosine.
        batch: pairs a step.
        head_rate, joint_rate, early_rate: learning rates of the head, of the blocks from `joint_from` on (with the last
            norm), and of what comes before, whose pretrained features are to be kept.
        average: decay of the averaged weights, which are what is saved.
    """

    steps: int = 8000
    batch: int = 256
    head_rate: float = 1e-3
    joint_rate: float = 1e-4
    early_rate: float = 2e-5
    weight_decay: float = 1e-4
    warm_up: int = 200
    clip: float = 1.0
    drop_path: float = 0.05
    average: float = 0.999
    seed: int = 0


def initial_student(config: NetworkConfig, init: Path | None, drop_path: float) -> Student:
    """A student with pretrained branches where `init` has them (see `network.convert`)."""
    student = Student(config, drop_path)
    if init is not None:
        tensors, report = converted(read(init), config)
        norms = {name for name in tensors if ".norm." in name}  # of the whole transformer, not of a truncated one
        student.load_state_dict({n: t for n, t in tensors.items() if n not in norms}, strict=False)
        log.info("%s: %d tensors taken, kind %s", init, len(tensors) - len(norms), report.kind)
    for name, module in student.box_head.named_modules():
        if name == "conv5_ctr":
            nn.init.constant_(module.bias, -math.log(99))  # one cell in a hundred holds a centre
        elif name == "conv5_size":
            nn.init.constant_(module.bias, -1.1)  # a quarter of the crop
    return student


def parameter_groups(student: Student, config: TrainConfig) -> list[dict[str, Any]]:
    """Parameters by learning rate."""
    groups: dict[float, list[nn.Parameter]] = {config.head_rate: [], config.joint_rate: [], config.early_rate: []}
    for name, parameter in student.named_parameters():
        parts = name.split(".")
        if parts[0] == "box_head":
            rate = config.head_rate
        elif parts[1] == "norm" or (parts[1] == "blocks" and int(parts[2]) >= student.config.joint_from):
            rate = config.joint_rate
        else:
            rate = config.early_rate
        groups[rate].append(parameter)
    return [{"params": parameters, "lr": rate} for rate, parameters in groups.items() if parameters]


def forward_losses(student: nn.Module, batch: Batch, device: torch.device) -> dict[str, Tensor]:
    """Unweighted task losses of a batch."""
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) * 255 for v in _statistics(student))
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        maps = student((batch.templates - mean) / std, (batch.searches - mean) / std, batch.present)
    maps = type(maps)(*(m.float() for m in maps))
    return task_losses(maps, batch.boxes, batch.visible)


def _statistics(student: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    network = student.module if isinstance(student, AveragedModel) else student
    return network.config.mean, network.config.std


@torch.no_grad()
def validate(student: nn.Module, batches: list[Batch], device: torch.device) -> dict[str, float]:
    """Mean IoU at the best cell, share of best cells within a cell of the truth, both over visible targets."""
    student.eval()
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) * 255 for v in _statistics(student))
    overlaps, near = [], []
    for batch in batches:
        maps = student((batch.templates - mean) / std, (batch.searches - mean) / std, batch.present)
        grid = maps.score.shape[-1]
        best = maps.score.flatten(1).argmax(1)
        cells = torch.stack([best % grid, best // grid], dim=1)
        boxes = torch.cat([batch.boxes[:, :2], batch.boxes[:, :2] + batch.boxes[:, 2:]], dim=1)
        overlaps.append(_iou(predicted_boxes(maps, cells), boxes)[batch.visible])
        middle = (batch.boxes[:, :2] + batch.boxes[:, 2:] / 2) * grid
        near.append((cells - middle).abs().amax(1).lt(1.5)[batch.visible])
    return {"iou": torch.cat(overlaps).mean().item(), "near": torch.cat(near).float().mean().item()}


def _iou(a: Tensor, b: Tensor) -> Tensor:
    sides = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0)
    areas = [(x[:, 2:] - x[:, :2]).clamp(min=0).prod(1) for x in (a, b)]
    overlap = sides.prod(1)
    return overlap / (areas[0] + areas[1] - overlap).clamp(min=1e-9)


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
    student = initial_student(network, init, config.drop_path).to(device)
    averaged = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(config.average), use_buffers=True)
    optimiser = torch.optim.AdamW(parameter_groups(student, config), weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, config))
    training, held_back = (part.to(device) for part in split(bank))
    generator = torch.Generator(device).manual_seed(config.seed)
    sampler = Sampler(training, network, samples, generator)
    fixed = Sampler(held_back, network, samples, torch.Generator(device).manual_seed(1))
    validation = [fixed.draw(min(config.batch, 256)) for _ in range(4)]

    step, state_file = 0, out / "state.pt"
    parts = {"student": student, "averaged": averaged, "optimiser": optimiser, "schedule": schedule}
    if state_file.exists():
        state = torch.load(state_file, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        generator.set_state(state["generator"])
        step = state["step"]
        log.info("resumed at step %d", step)

    def write() -> None:
        state = {name: part.state_dict() for name, part in parts.items()}
        out.mkdir(parents=True, exist_ok=True)
        torch.save({**state, "generator": generator.get_state(), "step": step}, state_file.with_suffix(".part"))
        state_file.with_suffix(".part").replace(state_file)
        checkpoint.save(out / "student.safetensors", averaged.module, {**provenance, "steps": step})

    sums: dict[str, Tensor] = {}
    since, rows = time.monotonic(), 0
    while step < config.steps and time.monotonic() < deadline:
        student.train()
        losses = forward_losses(student, sampler.draw(config.batch), device)
        total = weighted(losses)
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(student.parameters(), config.clip)
        optimiser.step()
        schedule.step()
        averaged.update_parameters(student)
        step, rows = step + 1, rows + 1
        for name, loss in {**losses, "total": total}.items():
            sums[name] = sums.get(name, 0) + loss.detach()
        if step % 250 == 0 or step == config.steps:
            means = {name: (value / rows).item() for name, value in sums.items()}
            if not math.isfinite(means["total"]):
                raise FloatingPointError(f"the loss is {means['total']} at step {step}; last good state: {state_file}")
            row = {"step": step, **means, "ms": 1e3 * (time.monotonic() - since) / rows}
            if step % 1000 == 0 or step == config.steps:
                row |= validate(averaged, validation, device)
                write()
            yield row
            sums, since, rows = {}, time.monotonic(), 0
    write()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of annotated sets and clips; without it, scenes alone")
    parser.add_argument("--scenes", type=int, default=600, help="generated scenes")
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

    bank = build(jobs(arguments.data, arguments.scenes), arguments.processes)
    log.info("%d tracks, %d contexts", len(bank.count), len(bank.pixels))
    provenance = {
        "trained_by": "ckd_tracker_ros.training.plain",
        "training": asdict(config) | asdict(samples),
        "init": arguments.init.name if arguments.init else None,
        "tracks": len(bank.count),
    }
    rows = train(
        network, bank, config, arguments.out, init=arguments.init, samples=samples,
        device=torch.device(arguments.device), deadline=deadline, provenance=provenance,
    )  # fmt: skip
    for row in rows:
        log.info("  ".join(f"{name} {value:.4g}" for name, value in row.items()))


if __name__ == "__main__":
    main()
