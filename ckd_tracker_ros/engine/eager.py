"""The plain runner: PyTorch, one operation after the other, on any device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ckd_tracker_ros.engine.base import HostMaps
from ckd_tracker_ros.network.student import Student


class Templates(NamedTuple):
    """Of one target, as this runner keeps them."""

    tokens: Tensor  # (1, M, T, C)
    present: NDArray  # (M,) bool


class EagerEngine:
    """See `Engine`.

    Args:
        network: in evaluation mode; handed over.
        device, dtype: where and in what it runs.
        description: `precision` and `runner`, where they are not what `dtype` and this class say.
    """

    runner = "eager"

    def __init__(
        self, network: Student, device: torch.device, dtype: torch.dtype, description: dict[str, str] | None = None
    ) -> None:
        self.config = network.config
        self.description = {
            "model": self.config.name,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "precision": str(dtype).removeprefix("torch."),
            "runner": self.runner,
            **(description or {}),
        }
        self._device, self._dtype = device, dtype
        self._network = network.eval().requires_grad_(False).to(device, dtype)
        nothing = np.zeros((1, len(self.config.modalities), *[self.config.template_size] * 2, 3), np.uint8)
        nobody = np.zeros(nothing.shape[:2], bool)
        self._absent = self._embed(nothing, nobody, np.zeros((1, 2)))  # templates of absent modalities

    def prepare(self, templates: NDArray, present: NDArray, extent: NDArray) -> Templates:
        """See `Engine.prepare`."""
        return Templates(self._embed(templates[None], present[None], extent[None]), np.asarray(present, bool))

    @torch.inference_mode()
    def run(self, templates: Sequence[Templates], crops: NDArray, present: NDArray) -> HostMaps:
        """See `Engine.run`. A modality counts as present if both its template and its crop are."""
        usable = present & np.stack([template.present for template in templates])
        tokens = torch.cat([template.tokens for template in templates])
        searches, flags = (torch.from_numpy(np.ascontiguousarray(a)).to(self._device) for a in (crops, usable))
        packed = self._maps(tokens, searches, flags).cpu().numpy()  # one copy back
        return HostMaps(packed[:, :1], packed[:, 1:3], packed[:, 3:])

    def batches(self, targets: int) -> Sequence[int]:
        """See `Engine.batches`: one step of any number loads the libraries."""
        return (1,)

    def close(self) -> None:
        """See `Engine.close`."""
        del self._network, self._absent
        if self._device.type == "cuda":
            # what cuBLAS keeps for each stream is no tensor of ours, and some 30 MB; there is no public name for it
            getattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: None)()
            torch.cuda.empty_cache()

    def _maps(self, tokens: Tensor, crops: Tensor, flags: Tensor) -> Tensor:
        """(N, M, T, C) template tokens, (N, M, S, S, 3) uint8, (N, M) bool -> (N, 5, F, F) score, size, offset."""
        network = self._network
        templates = torch.where(flags[..., None, None], tokens, self._absent)
        searches = network.embed(network.normalize(crops), flags, "x")
        maps = network.head(network.join(templates, searches, flags).tokens)
        return torch.cat([m.float() for m in maps], dim=1)

    @torch.inference_mode()
    def _embed(self, templates: NDArray, present: NDArray, extents: NDArray) -> Tensor:
        crops, flags = (torch.from_numpy(np.ascontiguousarray(a)).to(self._device) for a in (templates, present))
        boxes = torch.as_tensor(extents, dtype=torch.float32, device=self._device)
        return self._network.embed(self._network.normalize(crops), flags, "z", boxes)
