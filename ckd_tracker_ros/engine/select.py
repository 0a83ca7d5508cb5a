"""Which runner, device and precision: by a fixed table, never by a timing, so that equal settings give equal boxes."""

from __future__ import annotations

from pathlib import Path

import torch

from ckd_tracker_ros.engine import packed
from ckd_tracker_ros.engine.base import DeviceError, Engine
from ckd_tracker_ros.engine.eager import EagerEngine
from ckd_tracker_ros.engine.graph import GraphEngine
from ckd_tracker_ros.engine.onnx_runtime import OnnxEngine
from ckd_tracker_ros.network import checkpoint
from ckd_tracker_ros.network.student import Student

_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_BFLOAT16_UNITS = ("avx512_bf16", "amx_bf16")
"""CPU instructions that make bfloat16 quicker than float32; without them it is emulated and slower."""

_INT8_UNITS = ("avx512_vnni", "avx_vnni", "amx_int8")
"""CPU instructions that add up products of 8 bits in 32; without them the sums saturate."""


def create(network: Student, device: str = "auto", precision: str = "auto", threads: int = 0) -> Engine:
    """An engine for a network.

    Args:
        network: in evaluation mode; handed over, do not use it elsewhere.
        device: `auto` (the GPU where there is one), `cpu`, `cuda` or `cuda:N`.
        precision: `auto`, `float32`, `bfloat16`, `float16` (GPU) or `int8` (CPU).
        threads: CPU threads of torch for the whole process; 0 leaves them as they are.

    Raises:
        DeviceError: a device that is not there, or a precision that it does not run.
    """
    chosen = find_device(device)
    allowed = supported(chosen.type)
    if precision not in ("auto", *allowed):
        raise DeviceError(f"precision {precision!r} on {chosen.type}; allowed here: auto, {', '.join(allowed)}")
    if threads < 0:
        raise DeviceError(f"threads is {threads}; allowed: 0 (leave as it is) or more")
    if threads:
        torch.set_num_threads(threads)
    name = auto_precision(chosen.type) if precision == "auto" else precision
    if chosen.type == "cuda":
        return GraphEngine(network, chosen, _TYPES[name])
    if not packed.available():
        return EagerEngine(network, chosen, _TYPES[name])
    quick = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": _TYPES[auto_precision("cpu")]}
    return packed.engine(network, name, rest=quick[name])


def load(path: Path, device: str = "auto", precision: str = "auto", threads: int = 0) -> Engine:
    """An engine for a model file: ONNX Runtime's for an .onnx file, else see `create`.

    Raises:
        CheckpointError: no such file, or a damaged one.
        DeviceError: see `create`; or ONNX Runtime is not installed.
    """
    if path.suffix != ".onnx":
        return create(checkpoint.load(path), device, precision, threads)
    return OnnxEngine(path, device, precision, threads)


def supported(kind: str) -> tuple[str, ...]:
    """Precisions of a kind of device, `cpu` or `cuda`, on this machine."""
    if kind == "cuda":
        return ("float32", "bfloat16", "float16")
    bfloat16 = (
        packed.bfloat16_available() or not packed.available()
    )  # PyTorch's own, where there are no packed products
    int8 = packed.int8_available() and _has(_INT8_UNITS)
    return ("float32", *(["bfloat16"] if bfloat16 else []), *(["int8"] if int8 else []))


def auto_precision(kind: str) -> str:
    """`precision: auto`: float16 on GPUs, bfloat16 on CPUs with instructions for it, else float32.

    The same for every model: docs/performance.md has what each costs and saves. int8 is a tenth to a sixth faster than
    bfloat16 and twice as far from float32; it is for those who ask for it.
    """
    if kind == "cuda":
        return "float16"
    return "bfloat16" if _has(_BFLOAT16_UNITS) else "float32"


def _has(units: tuple[str, ...]) -> bool:
    """Whether the CPU has one of these instructions; no before torch 2.10 or so, which cannot say."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(unit) for unit in units)


def find_device(name: str) -> torch.device:
    """A device by its name.

    Raises:
        DeviceError: not there; the message lists what is.
    """
    gpus = torch.cuda.device_count()
    possible = ["auto", "cpu", *(["cuda"] if gpus else []), *(f"cuda:{i}" for i in range(gpus))]
    if name not in possible:
        why = "" if gpus or not name.startswith("cuda") else ": torch sees no CUDA GPU on this machine"
        raise DeviceError(f"device {name!r} is not available{why}; available: {', '.join(possible)}")
    if name == "auto":
        name = "cuda" if gpus else "cpu"
    return torch.device("cuda:0" if name == "cuda" else name)
