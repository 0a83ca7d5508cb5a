"""The network that runs on the robot: one student branch per modality and the fused head."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ckd_tracker_ros.network.config import NetworkConfig
from ckd_tracker_ros.network.elimination import all_candidates, kept_in_branches, restore_tokens, take_tokens
from ckd_tracker_ros.network.head import CenterHead, Maps
from ckd_tracker_ros.network.vit import Branch

BRANCH_NAMES = {"rgb": "rgb_branch", "thermal": "tir_branch"}
"""Published names of the branches by modality."""

SHARED_BRANCH = "shared_branch"


class Features(NamedTuple):
    """Search tokens after the last norm.

    Attributes:
        tokens: (N, M, F * F, C); removed ones are zero.
        kept: (N, M, K) indices of the search tokens that no elimination removed, ascending; the same in all modalities
            unless each eliminates by itself.
        blocks: (N, M, T + S, C) output of each joint block, where asked for: what distillation compares.
    """

    tokens: Tensor
    kept: Tensor
    blocks: tuple[Tensor, ...] = ()


class Student(nn.Module):
    """Two students (or one shared) and the fused head: paper, figure 2, without the teachers.

    N targets and M modalities are batch axes everywhere. Branches with weights of their own hold one modality each,
    a shared one holds all of them: `self.branches` says which slice of the modality axis goes through which branch.

    Args:
        config: the shape; `config.modalities` gives the order of the modality axis.
        drop_path: rate of stochastic depth in the last block, rising linearly from 0 (training only).
    """

    def __init__(self, config: NetworkConfig, drop_path: float = 0.0) -> None:
        super().__init__()
        self.config = config
        count = len(config.modalities)
        if config.shared:
            self._slices = {SHARED_BRANCH: slice(0, count)}
        else:
            self._slices = {BRANCH_NAMES[name]: slice(i, i + 1) for i, name in enumerate(config.modalities)}
        for name in self._slices:
            self.add_module(name, Branch(config, drop_path))
        self.box_head = CenterHead(count * config.width, config.head_channels)
        self.register_buffer("mean", torch.tensor(config.mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(3, 1, 1) * 255, persistent=False)

    @property
    def branches(self) -> list[tuple[Branch, slice]]:
        """Each branch with its slice of the modality axis."""
        return [(self.get_submodule(name), part) for name, part in self._slices.items()]

    def replace_branches(self, name: str, branch: nn.Module) -> None:
        """One branch for all modalities takes the place of those that are there (see `engine.stacked`)."""
        for old in self._slices:
            delattr(self, old)
        self.add_module(name, branch)
        self._slices = {name: slice(0, len(self.config.modalities))}

    def normalize(self, crops: Tensor) -> Tensor:
        """(..., S, S, 3) uint8 crops -> (..., 3, S, S) floats by the mean and spread of natural images."""
        return (crops.movedim(-1, -3).to(self.mean.dtype) - self.mean) / self.std

    def forward(
        self, templates: Tensor, searches: Tensor, present: Tensor | None = None, extents: Tensor | None = None
    ) -> Maps:
        """Template and search crops to the head's maps.

        Args:
            templates: (N, M, 3, T, T) normalised.
            searches: (N, M, 3, S, S) normalised.
            present: (N, M) bool, all by default.
            extents: (N, 2) width and height of the target's box in units of the template crop; a square box by default.
        """
        if present is None:
            present = torch.ones(searches.shape[:2], dtype=torch.bool, device=searches.device)
        if extents is None:
            extents = searches.new_full((len(searches), 2), 1 / self.config.template_factor)
        z, x = self.embed(templates, present, "z", extents), self.embed(searches, present, "x")
        return self.head(self.join(z, x, present).tokens)

    def embed(
        self,
        crops: Tensor,
        present: Tensor,
        side: str,
        extents: Tensor | None = None,
        hidden: Tensor | None = None,
    ) -> Tensor:
        """What of a crop does not depend on the other crop: its tokens before the first joint block.

        Args:
            crops: (N, M, 3, S, S) normalised.
            present: (N, M) bool.
            side: `z` for templates, `x` for search crops.
            extents: (N, 2), see `forward`: marks the target in templates. Without them `mark` has to do it.
            hidden: (N, S) bool, search tokens that start as zero in every modality (paper: masked modelling).

        Returns:
            (N, M, T, C) tokens.
        """
        if hidden is not None:
            hidden = hidden[:, None]  # the same in every modality
        parts = [branch.embed(crops[:, part], present[:, part], side, hidden) for branch, part in self.branches]
        tokens = torch.cat(parts, dim=1)
        return tokens if extents is None else self.mark(tokens, present, extents)

    def mark(self, templates: Tensor, present: Tensor, extents: Tensor) -> Tensor:
        """See `Branch.mark`: (N, M, T, C) unmarked template tokens -> marked ones."""
        parts = [branch.mark(templates[:, part], present[:, part], extents) for branch, part in self.branches]
        return torch.cat(parts, dim=1)

    def join(self, templates: Tensor, searches: Tensor, present: Tensor, keep_blocks: bool = False) -> Features:
        """Template and search tokens through all branches, block by block, so that elimination sees every modality.

        Args:
            templates: (N, M, T, C) from `embed`.
            searches: (N, M, S, C) from `embed`.
            present: (N, M) bool.
            keep_blocks: return the output of every joint block too.
        """
        config = self.config
        # per branch (N, its modalities, T + S, C)
        streams = [branch.meet(templates[:, part], searches[:, part]) for branch, part in self.branches]
        first = template = config.template_grid**2  # search tokens follow the template's
        kept = all_candidates(present.shape, config.search_grid**2, searches.device)
        counts = dict(zip(config.elimination_blocks, config.kept_tokens))
        independent = config.elimination == "independent"
        blocks = []
        for i in range(config.joint_from, config.depth):
            query = config.central_template_token if i in counts else None
            if i == config.depth - 1 and not keep_blocks:
                first = 0  # nothing reads the template's tokens any more: they stay behind
            attended = [
                branch.blocks[i].attend(x, query, template - first) for (branch, _), x in zip(self.branches, streams)
            ]
            streams = [x for x, _ in attended]
            if i in counts:
                attention = torch.cat([row[..., template:] for _, row in attended], dim=1)
                chosen = kept_in_branches(attention, present, counts[i], independent)
                kept = kept.gather(2, chosen)
                streams = [
                    torch.cat([x[:, :, :first], take_tokens(x[:, :, first:], chosen[:, part])], dim=2)
                    for (_, part), x in zip(self.branches, streams)
                ]
            streams = [branch.blocks[i].transform(x) for (branch, _), x in zip(self.branches, streams)]
            if keep_blocks:
                blocks.append(torch.cat(streams, dim=1))

        tokens = torch.cat([branch.norm(x)[:, :, first:] for (branch, _), x in zip(self.branches, streams)], dim=1)
        restored = restore_tokens(tokens, kept, config.search_grid**2) if counts else tokens
        return Features(restored, kept, tuple(blocks))

    def head(self, tokens: Tensor) -> Maps:
        """(N, M, F * F, C) search tokens -> maps; modalities are concatenated on channels."""
        grid = self.config.search_grid
        fused = tokens.transpose(1, 2).flatten(2)  # channels stay last in memory, as they come and convolutions like it
        return self.box_head(fused.transpose(1, 2).unflatten(2, (grid, grid)))
