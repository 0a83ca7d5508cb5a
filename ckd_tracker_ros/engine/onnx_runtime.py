"""ONNX Runtime: for a file that `ckd-tracker export` made. The way to TensorRT, and to a Jetson."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ckd_tracker_ros.engine.base import DeviceError, HostMaps
from ckd_tracker_ros.network.checkpoint import CONFIG_ERRORS, CheckpointError
from ckd_tracker_ros.network.config import NetworkConfig
from ckd_tracker_ros.network.export import CONFIG, OUTPUT

PROVIDERS = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
    "tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
}
"""By device; the first has to be there, the others take what it cannot."""

PRECISIONS = {"cpu": ("float32",), "cuda": ("float32",), "tensorrt": ("float16", "float32")}
"""By device; the first is `auto`. The file holds float32, TensorRT makes of it what it is told to."""


class Templates(NamedTuple):
    """Of one target: (M, T, T, 3) uint8, (M,) bool, (2,) float32."""

    crops: NDArray
    present: NDArray
    extent: NDArray


class OnnxEngine:
    """See `Engine`.

    Args:
        path: of an ONNX file made by this package.
        device: `auto` (cuda where this ONNX Runtime has it, else cpu), `cpu`, `cuda`, `cuda:N` or `tensorrt`.
        precision: `auto` or one of `PRECISIONS`.
        threads: of ONNX Runtime on the CPU; 0: its own choice.

    Raises:
        CheckpointError: no such file, a damaged one, or one of another origin.
        DeviceError: no ONNX Runtime, or a device or precision that it does not have.
    """

    def __init__(self, path: Path, device: str = "auto", precision: str = "auto", threads: int = 0) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise DeviceError(
                f"{path.name} needs ONNX Runtime ({error}): pip install onnxruntime, or onnxruntime-gpu"
            ) from error
        name, number = _device(device, onnxruntime.get_available_providers())
        allowed = PRECISIONS[name]
        if precision not in ("auto", *allowed):
            raise DeviceError(
                f"precision {precision!r} of {path.name} on {name}; allowed for an ONNX file: "
                f"auto, {', '.join(allowed)}"
            )
        precision = allowed[0] if precision == "auto" else precision
        if threads < 0:
            raise DeviceError(f"threads is {threads}; allowed: 0 (leave as it is) or more")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        providers = [(provider, _settings(provider, number, precision, path)) for provider in PROVIDERS[name]]
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers)
        except Exception as error:  # ONNX Runtime's own classes share no other base
            raise CheckpointError(f"{path} is not an ONNX file that can be run: {error}") from error
        got = self._session.get_providers()[0]
        if got != PROVIDERS[name][0]:
            raise DeviceError(f"device {device!r}: ONNX Runtime fell back to {got}; its GPU libraries do not load")
        metadata = self._session.get_modelmeta().custom_metadata_map
        if CONFIG not in metadata:
            raise CheckpointError(f"{path} holds no network configuration; make it with 'ckd-tracker export'")
        try:
            self.config = NetworkConfig.from_dict(json.loads(metadata[CONFIG]))
        except CONFIG_ERRORS as error:
            raise CheckpointError(f"{path}: its configuration is damaged or of another version: {error}") from error
        self.description = {
            "model": self.config.name,
            "device": name if name == "cpu" else f"{name}:{number}",
            "precision": precision,
            "runner": f"onnxruntime {got}",
        }

    def prepare(self, templates: NDArray, present: NDArray, extent: NDArray) -> Templates:
        """Keeps the crops: the graph has no state, they go through it at every step."""
        return Templates(templates, np.asarray(present, bool), np.asarray(extent, np.float32))

    def run(self, templates: Sequence[Templates], crops: NDArray, present: NDArray) -> HostMaps:
        """See `Engine.run`. A modality counts as present if both its template and its crop are."""
        inputs = {
            "templates": np.stack([template.crops for template in templates]),
            "extents": np.stack([template.extent for template in templates]),
            "crops": np.ascontiguousarray(crops),
            "present": present & np.stack([template.present for template in templates]),
        }
        (packed,) = self._session.run([OUTPUT], inputs)
        return HostMaps(packed[:, :1], packed[:, 1:3], packed[:, 3:])

    def batches(self, targets: int) -> Sequence[int]:
        """See `Engine.batches`. TensorRT builds an engine that covers all numbers between those that it has seen."""
        return (1, targets) if targets > 1 else (1,)

    def close(self) -> None:
        """See `Engine.close`."""
        del self._session


def _settings(provider: str, number: int, precision: str, path: Path) -> dict[str, Any]:
    """Of a provider of ONNX Runtime."""
    if provider.startswith("CPU"):
        return {}
    if not provider.startswith("Tensorrt"):
        return {"device_id": number}
    return {
        "device_id": number,
        "trt_fp16_enable": precision == "float16",
        "trt_engine_cache_enable": True,  # it takes minutes to build one
        "trt_engine_cache_path": f"{path}.tensorrt",
    }


def _device(text: str, providers: Sequence[str]) -> tuple[str, int]:
    """Name in `PROVIDERS` and number of the GPU."""
    there = [name for name, (first, *_) in PROVIDERS.items() if first in providers]
    name, _, number = text.partition(":")
    if name == "auto":
        name = "cuda" if "cuda" in there else "cpu"
    if name not in there or (number and (name == "cpu" or not number.isdecimal())):
        raise DeviceError(f"device {text!r} is not in this ONNX Runtime; available: auto, {', '.join(there)}")
    return name, int(number or 0)
