"""Which runner, device and precision: by a fixed table, never by a timing, so that equal settings give equal boxes."""

from __future__ import annotations

import torch

from ckd_tracker_ros.engine.base import DeviceError, Engine
from ckd_tracker_ros.engine.eager import EagerEngine
from ckd_tracker_ros.network.student import Student

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_BFLOAT16_UNITS = ("avx512_bf16", "amx_bf16")
"""CPU instructions that make bfloat16 quicker than float32; without them it is emulated and slower."""

_SUPPORTED = {"cpu": ("float32", "bfloat16"), "cuda": ("float32", "bfloat16", "float16")}


def create(network: Student, device: str = "auto", precision: str = "auto", threads: int = 0) -> Engine:
    """An engine for a network.

    Args:
        network: in evaluation mode; handed over, do not use it elsewhere.
        device: `auto` (the GPU where there is one), `cpu`, `cuda` or `cuda:N`.
        precision: `auto` or one of `PRECISIONS`.
        threads: CPU threads of torch for the whole process; 0 leaves them as they are.

    Raises:
        DeviceError: a device that is not there, or a precision that it does not run.
    """
    chosen = _device(device)
    allowed = _SUPPORTED[chosen.type]
    if precision not in ("auto", *allowed):
        raise DeviceError(f"precision {precision!r} on {chosen.type}; allowed: auto, {', '.join(allowed)}")
    if threads < 0:
        raise DeviceError(f"threads is {threads}; allowed: 0 (leave as it is) or more")
    if threads:
        torch.set_num_threads(threads)
    name = auto_precision(chosen.type) if precision == "auto" else precision
    return EagerEngine(network, chosen, PRECISIONS[name])


def auto_precision(kind: str) -> str:
    """`precision: auto` by kind of device: bfloat16 on CPUs with instructions for it, else float32.

    docs/performance.md has what it costs and saves.
    """
    capabilities = getattr(torch.cpu, "get_capabilities", dict)  # since torch 2.10 or so
    native = kind == "cpu" and any(capabilities().get(unit) for unit in _BFLOAT16_UNITS)
    return "bfloat16" if native else "float32"


def _device(name: str) -> torch.device:
    gpus = torch.cuda.device_count()
    possible = ["auto", "cpu", *(["cuda"] if gpus else []), *(f"cuda:{i}" for i in range(gpus))]
    if name not in possible:
        why = "" if gpus or not name.startswith("cuda") else ": torch sees no CUDA GPU on this machine"
        raise DeviceError(f"device {name!r} is not available{why}; available: {', '.join(possible)}")
    if name == "auto":
        name = "cuda" if gpus else "cpu"
    return torch.device("cuda:0" if name == "cuda" else name)
