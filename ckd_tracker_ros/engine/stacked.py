"""Branches with weights of their own in one pass: each layer is one batched product instead of one product a branch.

On a GPU a step of one target is launches and reading of weights, not arithmetic: half as many launches, each twice as
large. A shared branch needs none of it, its modalities are a batch already.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ckd_tracker_ros.network.student import Student
from ckd_tracker_ros.network.vit import Branch

_NAME = "stacked_branch"


class StackedLinear(nn.Module):
    """Linear layers of M modalities, (N, M, T, inputs) -> (N, M, T, outputs).

    Args:
        layers: one a modality.
        norms: the layers before them; their scales and shifts become part of the weights.
    """

    def __init__(self, layers: Sequence[nn.Linear], norms: Sequence[nn.LayerNorm] | None = None) -> None:
        super().__init__()
        weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
        if norms is not None:
            biases = [b + w @ norm.bias for w, b, norm in zip(weights, biases, norms)]
            weights = [w * norm.weight for w, norm in zip(weights, norms)]
        self.register_buffer("weight", torch.stack(weights).detach().transpose(1, 2).contiguous())  # (M, in, out)
        self.register_buffer("bias", torch.stack(biases).detach()[:, None])

    def forward(self, x: Tensor) -> Tensor:
        """N targets side by side are one product of N * T rows."""
        N, M, T, _ = x.shape
        rows = x.transpose(0, 1).reshape(M, N * T, -1)
        return torch.baddbmm(self.bias, rows, self.weight).view(M, N, T, -1).transpose(0, 1)


class StackedNorm(nn.Module):
    """Layer norms of M modalities over (N, M, T, C)."""

    def __init__(self, norms: Sequence[nn.LayerNorm]) -> None:
        super().__init__()
        self.register_buffer("weight", torch.stack([norm.weight for norm in norms]).detach()[:, None])
        self.register_buffer("bias", torch.stack([norm.bias for norm in norms]).detach()[:, None])
        self._eps = norms[0].eps

    def forward(self, x: Tensor) -> Tensor:
        """See `nn.LayerNorm`."""
        return F.layer_norm(x, x.shape[-1:], eps=self._eps) * self.weight + self.bias


class StackedPatchEmbed(nn.Module):
    """Patch embeddings of M modalities: one convolution in M groups."""

    def __init__(self, convolutions: Sequence[nn.Conv2d]) -> None:
        super().__init__()
        first = convolutions[0]
        self._modalities = len(convolutions)
        self.proj = nn.Conv2d(
            3 * len(convolutions), first.out_channels * len(convolutions), first.kernel_size, first.stride,
            groups=len(convolutions),
        )  # fmt: skip
        self.proj.weight.data = torch.cat([convolution.weight.detach() for convolution in convolutions])
        self.proj.bias.data = torch.cat([convolution.bias.detach() for convolution in convolutions])

    def forward(self, crops: Tensor) -> Tensor:
        """(N * M, 3, S, S) -> (N * M, T, C)."""
        patches = self.proj(crops.unflatten(0, (-1, self._modalities)).flatten(1, 2))
        return patches.unflatten(1, (self._modalities, -1)).flatten(0, 1).flatten(2).transpose(1, 2)


def stack(network: Student) -> Student:
    """The network with all its branches in one; in place. One that has a single branch already stays as it is."""
    parts = network.branches
    if len(parts) == 1:
        return network
    branches = [branch for branch, _ in parts]
    stacked: Branch = copy.deepcopy(branches[0])
    stacked.patch_embed = StackedPatchEmbed([branch.patch_embed.proj for branch in branches])
    for name, _ in branches[0].named_parameters(recurse=False):  # positions and marks, (1, T, C) each
        setattr(stacked, name, nn.Parameter(torch.cat([branch.get_parameter(name) for branch in branches])))
    for i, block in enumerate(stacked.blocks):
        peers = [branch.blocks[i] for branch in branches]
        block.attn.qkv = StackedLinear([p.attn.qkv for p in peers], [p.norm1 for p in peers])
        block.attn.proj = StackedLinear([p.attn.proj for p in peers])
        block.mlp.fc1 = StackedLinear([p.mlp.fc1 for p in peers], [p.norm2 for p in peers])
        block.mlp.fc2 = StackedLinear([p.mlp.fc2 for p in peers])
        for norm in ("norm1", "norm2"):
            old = getattr(block, norm)
            setattr(block, norm, nn.LayerNorm(old.normalized_shape, old.eps, elementwise_affine=False))
    stacked.norm = StackedNorm([branch.norm for branch in branches])
    network.replace_branches(_NAME, stacked)
    return network
