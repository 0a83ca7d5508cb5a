"""The GPU's runner: a step recorded once for each number of targets, and replayed: no launches, no copies but two."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ckd_tracker_ros.engine.base import HostMaps
from ckd_tracker_ros.engine.eager import EagerEngine, Templates
from ckd_tracker_ros.engine.stacked import stack
from ckd_tracker_ros.network.student import Student

COUNTS = (1, 2, 4, 8, 16, 32)
"""Numbers of targets that are recorded; others are filled up to the next one, more are cut into several steps."""

_WARM_UP = 3
"""Steps before recording, in which libraries choose their kernels and allocate what they keep."""


class _Recording:
    """The step of one number of targets: its buffers, at addresses that never change, and the recorded graph.

    Args:
        step: tokens (N, M, T, C), crops (N, M, S, S, 3) uint8 and flags (N, M) bool on the device -> (N, 5, F, F).
        tokens, crops, maps: shapes.
        pool: what lies between input and output is kept there, for all recordings: they are replayed one at a time.
    """

    def __init__(
        self,
        step: Callable[[Tensor, Tensor, Tensor], Tensor],
        tokens: tuple[int, ...],
        crops: tuple[int, ...],
        maps: tuple[int, ...],
        device: torch.device,
        dtype: torch.dtype,
        pool: tuple[int, int],
    ) -> None:
        pixels, flags = int(np.prod(crops)), int(np.prod(crops[:2]))
        upload = torch.zeros(pixels + flags, dtype=torch.uint8, pin_memory=True)
        received = torch.zeros(pixels + flags, dtype=torch.uint8, device=device)
        self.tokens = torch.zeros(tokens, dtype=dtype, device=device)
        download = torch.zeros(maps, pin_memory=True)
        self.crops: NDArray = upload[:pixels].view(crops).numpy()
        self.flags: NDArray = upload[pixels:].view(crops[:2]).numpy()
        self.maps: NDArray = download.numpy()
        self.templates: list[Templates | None] = [None] * crops[0]
        """Whose tokens lie where, so that those of a target are copied once and not at every step."""
        self._device, self._keep = device, (upload, received, download)

        def whole() -> None:
            received.copy_(upload, non_blocking=True)
            seen = received[pixels:].view(crops[:2]).bool()
            download.copy_(step(self.tokens, received[:pixels].view(crops), seen), non_blocking=True)

        self.graph = torch.cuda.CUDAGraph()
        aside = torch.cuda.Stream(device)
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP):
                whole()
        torch.cuda.current_stream(device).wait_stream(aside)
        with torch.cuda.graph(self.graph, pool=pool):
            whole()

    def replay(self) -> None:
        """Upload, step, download: when it returns, `maps` holds the result."""
        self.graph.replay()
        torch.cuda.current_stream(self._device).synchronize()


class GraphEngine(EagerEngine):
    """See `Engine`. Results are those of the eager runner, up to the order of sums of other kernels."""

    runner = "cuda_graph"

    def __init__(self, network: Student, device: torch.device, dtype: torch.dtype) -> None:
        torch.backends.cudnn.allow_tf32 = False  # float32 means float32, in convolutions too
        stacked = stack(network.eval().requires_grad_(False))
        stacked.box_head.fold_norms()
        super().__init__(stacked, device, dtype)
        self._recordings: dict[int, _Recording] = {}
        self._pool = torch.cuda.graph_pool_handle()

    @torch.inference_mode()
    def run(self, templates: Sequence[Templates], crops: NDArray, present: NDArray) -> HostMaps:
        """See `Engine.run`."""
        usable = present & np.stack([template.present for template in templates])
        most = COUNTS[-1]
        parts = [slice(i, i + most) for i in range(0, len(templates), most)]
        packed = np.concatenate([self._replay(templates[part], crops[part], usable[part]) for part in parts])
        return HostMaps(packed[:, :1], packed[:, 1:3], packed[:, 3:])

    def batches(self, targets: int) -> Sequence[int]:
        """See `Engine.batches`: one recording each."""
        return [count for count, below in zip(COUNTS, (0, *COUNTS)) if below < targets]

    def close(self) -> None:
        """See `Engine.close`."""
        self._recordings.clear()
        super().close()

    def _replay(self, templates: Sequence[Templates], crops: NDArray, usable: NDArray) -> NDArray:
        with torch.cuda.device(self._device):
            count = len(templates)
            recording = self._recording(next(size for size in COUNTS if size >= count))
            for i, template in enumerate(templates):
                if recording.templates[i] is not template:
                    recording.tokens[i].copy_(template.tokens[0], non_blocking=True)
                    recording.templates[i] = template
            np.copyto(recording.crops[:count], crops)
            np.copyto(recording.flags[:count], usable)
            recording.replay()
        return recording.maps[:count].copy()

    def _recording(self, count: int) -> _Recording:
        if count not in self._recordings:
            config = self.config
            modalities, grid = len(config.modalities), config.search_grid
            self._recordings[count] = _Recording(
                self._maps,
                (count, modalities, config.template_grid**2, config.width),
                (count, modalities, config.search_size, config.search_size, 3),
                (count, 5, grid, grid),
                self._device,
                self._dtype,
                self._pool,
            )
        return self._recordings[count]
