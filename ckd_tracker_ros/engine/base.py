"""What every engine offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from ckd_tracker_ros.network.config import NetworkConfig

Prepared = Any
"""A target's templates as the engine that made them keeps them; nobody else looks inside."""


class DeviceError(RuntimeError):
    """A device or precision that this machine cannot give; the message says what it can."""


class HostMaps(NamedTuple):
    """The head's maps in host memory, float32: score (N, 1, F, F), size (N, 2, F, F), offset (N, 2, F, F)."""

    score: NDArray
    size: NDArray
    offset: NDArray


class Engine(Protocol):
    """Runs a network for N targets of M modalities in one batch. Holds nothing about any target or video."""

    config: NetworkConfig
    description: dict[str, str]
    """`model`, `device`, `precision`, `runner`: for logs and diagnostics."""

    def prepare(self, templates: NDArray, present: NDArray, extent: NDArray) -> Prepared:
        """Templates of one target, (M, T, T, 3) uint8, present (M,) bool, extent (2,) -> what `run` wants of them.

        The extent is the width and height of the target's box, which is in the middle, in units of the crop.

        Done once per target: whatever of the template does not depend on the search crop is computed here.
        """

    def run(self, templates: Sequence[Prepared], crops: NDArray, present: NDArray) -> HostMaps:
        """One step.

        Args:
            templates: N of `prepare`.
            crops: (N, M, S, S, 3) uint8 search crops.
            present: (N, M) bool, modalities to use.
        """

    def batches(self, targets: int) -> Sequence[int]:
        """Numbers of targets, up to that many, whose first `run` does something that later ones find done."""

    def close(self) -> None:
        """Give the device's memory back; the engine cannot be used afterwards."""
