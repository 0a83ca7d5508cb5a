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


class _Templates(NamedTuple):
    tokens: Tensor  # (1, M, T, C)
    present: NDArray  # (M,) bool


class EagerEngine:
    """See `Engine`."""

    def __init__(self, network: Student, device: torch.device, dtype: torch.dtype) -> None:
        self.config = network.config
        self.description = {
            "model": self.config.name,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "precision": str(dtype).removeprefix("torch."),
            "runner": "eager",
        }
        self._device, self._dtype = device, dtype
        self._network = network.eval().requires_grad_(False).to(device, dtype)
        nothing = np.zeros((1, len(self.config.modalities), *[self.config.template_size] * 2, 3), np.uint8)
        nobody = np.zeros(nothing.shape[:2], bool)
        self._absent = self._embed(nothing, nobody, np.zeros((1, 2)))  # templates of absent modalities

    def prepare(self, templates: NDArray, present: NDArray, extent: NDArray) -> _Templates:
        """See `Engine.prepare`."""
        return _Templates(self._embed(templates[None], present[None], extent[None]), np.asarray(present, bool))

    @torch.inference_mode()
    def run(self, templates: Sequence[_Templates], crops: NDArray, present: NDArray) -> HostMaps:
        """See `Engine.run`. A modality counts as present if both its template and its crop are."""
        usable = present & np.stack([template.present for template in templates])
        flags = torch.from_numpy(usable).to(self._device)
        tokens = torch.where(flags[..., None, None], torch.cat([t.tokens for t in templates]), self._absent)
        searches = self._network.embed(self._normalized(crops), flags, "x")
        maps = self._network.head(self._network.join(tokens, searches, flags).tokens)
        packed = torch.cat([m.float() for m in maps], dim=1).cpu().numpy()  # one copy back
        return HostMaps(packed[:, :1], packed[:, 1:3], packed[:, 3:])

    def close(self) -> None:
        """See `Engine.close`."""
        del self._network, self._absent
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _embed(self, templates: NDArray, present: NDArray, extents: NDArray) -> Tensor:
        flags = torch.from_numpy(np.ascontiguousarray(present)).to(self._device)
        boxes = torch.as_tensor(extents, dtype=torch.float32, device=self._device)
        return self._network.embed(self._normalized(templates), flags, "z", boxes)

    def _normalized(self, crops: NDArray) -> Tensor:
        return self._network.normalize(torch.from_numpy(np.ascontiguousarray(crops)).to(self._device))
