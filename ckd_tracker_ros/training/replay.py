"""Samples whose frozen early tokens are kept and trained on several times."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch

from ckd_tracker_ros.training.config import TrainConfig
from ckd_tracker_ros.training.data import Numbers
from ckd_tracker_ros.training.distillation import CoupledDistillation, Tokens


class Replay:
    """Frozen early blocks run once for a sample, which is then trained on several times.

    Samples come in groups of `fresh`, always embedded together, so that a group that is embedded again after a resume
    has the same bits. Which samples a step takes depends on its number alone.
    """

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._ahead = math.ceil(4 * config.batch / config.fresh)  # groups before the first step
        self._window = max(math.ceil(config.replay / config.fresh), 1)
        self._kept: dict[int, Tokens] = {}

    def rows(self, step: int) -> list[tuple[int, int]]:
        """Group and row of the step's samples: the newest group, and any others of the window."""
        config, newest = self._config, step + self._ahead
        oldest = max(newest - self._window + 1, 0)
        others = config.batch - config.fresh
        generator = torch.Generator().manual_seed(mixed(config.seed, step, 1))
        picked = torch.randint(oldest * config.fresh, (newest + 1) * config.fresh, (others,), generator=generator)
        return [(newest, i) for i in range(config.fresh)] + [divmod(i, config.fresh) for i in picked.tolist()]

    def orders(self, first: int) -> Iterator[Numbers]:
        """Sample numbers of the groups that steps from `first` on embed, in order."""
        kept: set[int] = set()
        for step in range(first, self._config.steps):
            for group in self._missing(step, kept):
                yield range(group * self._config.fresh, (group + 1) * self._config.fresh)
            kept = {group for group in kept | self._wanted(step) if group > step + self._ahead - self._window}

    def take(self, step: int, task: CoupledDistillation, batches: Iterator[Any]) -> Tokens:
        """The step's samples, taking what is missing from `batches`, which follow `orders`."""
        for group in self._missing(step, self._kept.keys()):
            self._kept[group] = task.early(next(batches))
        chosen = [[column[row] for column in self._kept[group]] for group, row in self.rows(step)]
        oldest = step + self._ahead - self._window
        self._kept = {group: tokens for group, tokens in self._kept.items() if group > oldest}
        return Tokens(*(torch.stack(column) for column in zip(*chosen)))

    def _wanted(self, step: int) -> set[int]:
        return {group for group, _ in self.rows(step)}

    def _missing(self, step: int, kept: Any) -> list[int]:
        return sorted(self._wanted(step) - set(kept))


def mixed(seed: int, *numbers: int) -> int:
    """One seed of several numbers."""
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % 2**62
    return seed
