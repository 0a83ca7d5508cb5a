"""The published way of running the network: the baseline of every ratio of speed.

float32, one operation after the other, one branch after the other, attention matrices in memory, the template through
the patch embedding at every step, elimination on. Its maps are those of the golden values, to 1e-5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ckd_tracker_ros.engine import HostMaps
from ckd_tracker_ros.network.student import Student
from ckd_tracker_ros.network.vit import TokenBlock


class PublishedBlock(TokenBlock):
    """A block whose attention is a matrix of all tokens by all tokens."""

    def attend(self, x: Tensor, query: int | None = None, since: int = 0) -> tuple[Tensor, Tensor | None]:
        *batch, T, C = x.shape
        attn = self.attn
        qkv = attn.qkv(self.norm1(x)).reshape(-1, T, 3, attn.num_heads, C // attn.num_heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        attention = (q @ k.transpose(-2, -1) * attn.scale).softmax(dim=-1)
        mixed = (attention @ v).transpose(1, 2).reshape(*batch, T, C)
        row = None if query is None else attention[:, :, query].reshape(*batch, attn.num_heads, T)
        return (x + attn.proj(mixed))[..., since:, :], row


class Template(NamedTuple):
    """Of one target: (M, T, T, 3) uint8, (M,) bool, (2,)."""

    crops: NDArray
    present: NDArray
    extent: NDArray


class PublishedEngine:
    """See `engine.base.Engine`."""

    def __init__(self, network: Student, device: str = "cpu") -> None:
        self.config = network.config
        self.description = dict(model=network.config.name, device=device, precision="float32", runner="published")
        self._device = torch.device(device)
        self._network = network.eval().requires_grad_(False).to(self._device)
        for branch, _ in network.branches:
            for block in branch.blocks:
                block.__class__ = PublishedBlock

    def prepare(self, templates: NDArray, present: NDArray, extent: NDArray) -> Template:
        """Keeps the crops: they go through the network at every step."""
        return Template(templates, np.asarray(present, bool), np.asarray(extent, np.float32))

    @torch.no_grad()
    def run(self, templates: Sequence[Template], crops: NDArray, present: NDArray) -> HostMaps:
        """One copy to the device for each input and one back for each map, as the published tracker does it."""
        flags = torch.from_numpy(present & np.stack([t.present for t in templates])).to(self._device)
        extents = torch.from_numpy(np.stack([t.extent for t in templates])).to(self._device)
        z, x = (
            self._network.normalize(torch.from_numpy(images).to(self._device))
            for images in (np.stack([t.crops for t in templates]), np.ascontiguousarray(crops))
        )
        network = self._network
        tokens = (network.embed(z, flags, "z", extents), network.embed(x, flags, "x"))
        features = network.join(*tokens, flags, keep_blocks=True)  # so that template tokens pass the last block too
        return HostMaps(*(m.cpu().numpy() for m in network.head(features.tokens)))

    def batches(self, targets: int) -> Sequence[int]:
        """As the eager runner's."""
        return (1,)

    def close(self) -> None:
        """Nothing to give back."""
