"""The training loop: one process or several, resumable to the bit, stopped by a loss that is not finite."""

from __future__ import annotations

import json
import logging
import math
import os
import pickle
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.ops import box_convert, box_iou

from ckd_tracker_ros import __version__
from ckd_tracker_ros.engine.base import DeviceError
from ckd_tracker_ros.network import checkpoint
from ckd_tracker_ros.network.config import NetworkConfig
from ckd_tracker_ros.network.student import Student
from ckd_tracker_ros.training.config import ConfigError, TrainConfig, TrainingConfig
from ckd_tracker_ros.training.data import Feed, Feeds, Shape, open_feeds
from ckd_tracker_ros.training.distillation import CoupledDistillation, parameter_groups
from ckd_tracker_ros.training.initial import initial_student
from ckd_tracker_ros.training.journal import Journal
from ckd_tracker_ros.training.losses import predicted_boxes
from ckd_tracker_ros.training.replay import Replay, mixed
from ckd_tracker_ros.training.typed import merged

log = logging.getLogger(__name__)

STATE = "state.pt"

_PLACE = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0}
"""What torchrun tells each process, and what it is without."""


class TrainingError(RuntimeError):
    """Training cannot go on; says why, and what is kept."""


@dataclass(frozen=True)
class World:
    """The processes that train together, and this one's place among them."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    def device(self, name: str) -> torch.device:
        """This process's own.

        Raises:
            DeviceError: a device that is not there.
        """
        gpus = torch.cuda.device_count()
        if name == "auto":
            name = "cuda" if gpus else "cpu"
        if name == "cuda":
            name = f"cuda:{self.local_rank}"
        possible = ["cpu", *(f"cuda:{i}" for i in range(gpus))]
        if name not in possible:
            raise DeviceError(f"device {name!r} is not available; available: auto, cuda, {', '.join(possible)}")
        return torch.device(name)


@contextmanager
def joined(device: str) -> Iterator[tuple[World, torch.device]]:
    """The group that torchrun started, or this process alone."""
    world = World(*(int(os.environ.get(name, alone)) for name, alone in _PLACE.items()))
    own = world.device(device)
    if own.type == "cuda":
        torch.cuda.set_device(own)
    if world.size > 1:
        distributed.init_process_group("nccl" if own.type == "cuda" else "gloo")
    try:
        yield world, own
    finally:
        if world.size > 1:
            distributed.destroy_process_group()


def rate(step: int, config: TrainConfig) -> float:
    """Factor of the learning rates."""
    warm = min(1.0, (step + 1) / config.warm_up) if config.warm_up else 1.0
    if config.schedule == "constant":
        return warm
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, step / config.steps)))
    return warm * (config.floor + (1 - config.floor) * fall)


class Training:
    """All that changes while training, how it is written and how it is read again."""

    def __init__(self, config: TrainingConfig, out: Path, world: World, device: torch.device) -> None:
        if config.train.batch % world.size or (config.train.fresh and world.size > 1):
            raise ConfigError(
                f"train.batch is {config.train.batch} and train.fresh {config.train.fresh} in {world.size} processes; "
                "allowed: a multiple of the processes, and fresh 0 in more than one"
            )
        self.config, self.out, self.world, self.device = config, out, world, device
        torch.manual_seed(config.train.seed)
        self.task = CoupledDistillation(config.network, config.distillation, self._network).to(device)
        groups = parameter_groups(self.task, config.train.rates)
        self.rates = [group["lr"] for group in groups]
        self.optimiser = torch.optim.AdamW(groups, weight_decay=config.train.weight_decay)
        self.average = config.train.average
        self.averaged = (
            AveragedModel(self.task, multi_avg_fn=get_ema_multi_avg_fn(self.average), use_buffers=True).eval()
            if self.average
            else None
        )
        self.step = 0
        self.wrapped: nn.Module = self.task

    def _network(self, network: NetworkConfig) -> Student:
        taught = network == self.config.network
        source = self.config.init if taught else self.config.init_teachers or self.config.init
        return initial_student(network, source, self.config.train.drop_path)

    @property
    def result(self) -> CoupledDistillation:
        """What is validated and written: the averaged weights, or the last."""
        return self.task if self.averaged is None else self.averaged.module

    def wrap(self) -> None:
        """Share gradients between processes."""
        if self.world.size > 1:
            ids = [self.device] if self.device.type == "cuda" else None
            self.wrapped = DistributedDataParallel(self.task, device_ids=ids)

    # ---- states

    def _parts(self) -> dict[str, Any]:
        parts = {"task": self.task, "optimiser": self.optimiser}
        return parts if self.averaged is None else {**parts, "averaged": self.averaged}

    def resume(self) -> bool:
        """Take over the state in the folder, if there is one.

        Raises:
            TrainingError: it is of another network, or damaged.
        """
        file = self.out / STATE
        if not file.exists():
            return False
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
            before = merged(TrainingConfig().to_dict(), json.loads(state["config"]))  # may lack settings of today
            changed = _differences(before, self.config.to_dict())
        except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError, TypeError) as error:
            raise TrainingError(f"{file} cannot be resumed: {error}; remove it to start anew") from error
        parts = self._parts()
        other = [name for name in changed if name.startswith(("network.", "distillation."))]
        if other or parts.keys() - state.keys():
            raise TrainingError(
                f"{file} is of another training: {', '.join(other) or 'train.average'} changed; "
                "expected: the same, or another --out"
            )
        for name, part in parts.items():
            part.load_state_dict(state[name])
        self.step = state["step"]
        if changed:
            log.warning("resumed with changed settings: %s", ", ".join(changed))
        return True

    def write(self) -> None:
        """The state, then the networks; a kill at any moment leaves whole files."""
        if self.world.rank:
            return
        self.out.mkdir(parents=True, exist_ok=True)
        state = {name: part.state_dict() for name, part in self._parts().items()}
        state |= {"step": self.step, "config": json.dumps(self.config.to_dict())}
        part = self.out / f"{STATE}.part"
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.out / STATE)
        networks = {"student": self.result.student} | {f"teacher_{n}": t for n, t in self.result.teachers.items()}
        for name, network in networks.items():
            unfinished = self.out / f"{name}.part"
            checkpoint.save(unfinished, network, self.provenance())
            unfinished.replace(self.out / f"{name}{checkpoint.SUFFIX}")

    def provenance(self) -> dict[str, Any]:
        """What goes into the weight files; folders by their last name only."""
        config = self.config.to_dict()
        data = config["data"]
        data["stills"] = Path(data["stills"]).name
        data["sequences"] = [{**group, "root": Path(group["root"]).name} for group in data["sequences"]]
        config |= {"init": Path(config["init"]).name, "init_teachers": Path(config["init_teachers"]).name}
        config.pop("network")  # stands beside it
        return {"trained_by": f"ckd-tracker {__version__} train", "steps": self.step, "training": config}

    # ---- a step

    def learn(self, batch: Any) -> dict[str, Tensor]:
        """One step of the optimiser; returns the losses, of all processes' samples together.

        Raises:
            TrainingError: loss or gradient is not finite; nothing was changed.
        """
        config = self.config.train
        torch.manual_seed(mixed(config.seed, self.step, self.world.rank))  # of drop path
        self.wrapped.train()
        if config.batch_norm == "eval":
            for module in self.task.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            losses = self.wrapped(batch)
        total = self.config.distillation.weighted(losses)
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        trained = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
        norm = nn.utils.clip_grad_norm_(trained, config.clip or math.inf)
        values = torch.stack([*(loss.detach() for loss in losses.values()), total.detach(), norm.detach()])
        if self.world.size > 1:
            distributed.all_reduce(values)
            values /= self.world.size
        names = [*losses, "total", "gradient"]
        if not values.isfinite().all():
            wrong = ", ".join(f"{name} {value:g}" for name, value in zip(names, values.tolist()))
            kept = self.out / STATE
            rest = f"the last good state is {kept}" if kept.exists() else "no state was written yet"
            raise TrainingError(f"the loss is not finite at step {self.step + 1} ({wrong}); {rest}")
        for group, base in zip(self.optimiser.param_groups, self.rates):
            group["lr"] = base * rate(self.step, config)
        self.optimiser.step()
        if self.averaged is not None:
            self.averaged.update_parameters(self.task)
        self.step += 1
        return dict(zip(names, values))


def _differences(before: Any, now: Any, where: str = "") -> list[str]:
    """Names of the settings that are not the same."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [] if before == now else [where]
    keys = sorted(before.keys() | now.keys())
    return [n for k in keys for n in _differences(before.get(k), now.get(k), f"{where}.{k}" if where else k)]


@torch.no_grad()
def validate(task: CoupledDistillation, feed: Feed, samples: int, batch: int) -> dict[str, float]:
    """Mean IoU at the best cell, share of best cells within a cell of the truth; both over visible targets."""
    task.eval()
    overlaps, near = [], []
    orders = [range(first, min(first + batch, samples)) for first in range(0, samples, batch)]
    for drawn in feed.batches(orders):
        maps = task.maps(drawn)
        visible, truth = drawn.visible.flatten(), drawn.boxes.flatten(0, 1)
        grid = maps.score.shape[-1]
        best = maps.score.flatten(1).argmax(1)
        cells = torch.stack([best % grid, best // grid], dim=1)
        overlaps.append(box_iou(predicted_boxes(maps, cells), box_convert(truth, "xywh", "xyxy")).diagonal()[visible])
        middle = (truth[:, :2] + truth[:, 2:] / 2) * grid
        near.append((cells - middle).abs().amax(1).lt(1.5)[visible])
    return {"iou": torch.cat(overlaps).mean().item(), "near": torch.cat(near).float().mean().item()}


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """A list that gets the number of the first signal; a second one interrupts at once."""
    got: list[int] = []
    before = {}

    def note(number: int, _: object) -> None:
        got.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, note)
    try:
        yield got
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class Outcome:
    """How a training ended: `finished`, `time is up` or `stopped`."""

    reason: str
    step: int
    problems: int


def train(
    config: TrainingConfig, out: Path, device: str, minutes: float, console: Console, feeds: Feeds | None = None
) -> Outcome:
    """Train until the last step, the time limit or a signal, resuming what `out` holds.

    Writes `state.pt`, `student.safetensors` and one file per teacher, `log.csv`, `losses.png` and, where tensorboard is
    installed, `tensorboard/`.

    Args:
        minutes: for all, reading of the data included; 0 for no limit.
        feeds: where samples come from, if they were opened before; by default what `config.data` names.

    Raises:
        ConfigError, DataError, DeviceError, CheckpointError, SequenceError: see there.
        TrainingError: a loss that is not finite, or a state that does not fit.
    """
    deadline = time.monotonic() + 60 * minutes if minutes else math.inf
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    with joined(device) as (world, own):
        training = Training(config, out, world, own)
        resumed = training.resume()
        training.wrap()
        if feeds is None:
            feeds = open_feeds(Shape(config.network, config.samples, config.data), config.train.seed, own)
        console = console if world.rank == 0 else Console(quiet=True)
        console.print(f"{config.name}: {feeds.training.description}, {own}, {world.size} processes")
        if resumed:
            console.print(f"resumed at step {training.step}")
        with Journal(out, training.step, world.rank == 0) as journal, _asked_to_stop() as signals:
            reason = _run(training, feeds, journal, deadline, signals, console)
        problems = len(feeds.training.problems)
        if problems:
            console.print(f"{problems} images or annotations could not be used and were left out")
        return Outcome(reason, training.step, problems)


def _run(
    training: Training, feeds: Any, journal: Journal, deadline: float, signals: Sequence[int], console: Console
) -> str:
    """The steps; returns why it ended."""
    config, world = training.config.train, training.world
    own = config.batch // world.size
    replay = Replay(config) if config.fresh else None
    first = training.step
    numbers = (range(step * config.batch + world.rank * own, step * config.batch + (world.rank + 1) * own)
               for step in range(first, config.steps))  # fmt: skip
    batches = feeds.training.batches(replay.orders(first) if replay else numbers)
    held_back = partial(validate, feed=feeds.held_back, samples=config.validation, batch=own)
    saved, reason = time.monotonic(), "finished"
    with journal.progress(console, config.steps, first) as bar:
        while training.step < config.steps:
            batch = replay.take(training.step, training.task, batches) if replay else next(batches)
            losses = training.learn(batch)
            last = training.step == config.steps
            journal.add(losses)
            row = {}
            if training.step % config.log_every == 0 or last:
                row = journal.means(training.step, training.optimiser.param_groups[0]["lr"])
            if (training.step % config.validate_every == 0 or last) and config.validation and world.rank == 0:
                row |= held_back(training.result)
            if row:
                journal.write(training.step, row, console)
            bar(training.step, losses["total"])
            reason = _agreed(training, "stopped" if signals else "time is up" if time.monotonic() > deadline else "")
            due = time.monotonic() - saved > config.save_seconds
            if training.step % config.save_every == 0 or due or last or reason:
                training.write()
                saved = time.monotonic()
            if reason and not last:
                return reason
    return "finished"


REASONS = ("", "time is up", "stopped")


def _agreed(training: Training, reason: str) -> str:
    """All processes end at the same step, for the gravest reason of any."""
    if training.world.size == 1:
        return reason
    number = torch.tensor(REASONS.index(reason), device=training.device)
    distributed.all_reduce(number, distributed.ReduceOp.MAX)
    return REASONS[int(number)]
