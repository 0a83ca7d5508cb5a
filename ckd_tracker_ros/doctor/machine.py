"""Whether the network can run here: model, device and precision."""

from __future__ import annotations

from pathlib import Path

from ckd_tracker_ros.causes import Finding
from ckd_tracker_ros.doctor.facts import Machine

_GPU_FILES = ("nvidia0", "nvhost-gpu", "nvgpu/igpu0")  # desktop and server, Jetson, newer Jetson


def look(model: str, device: str = "auto", precision: str = "auto") -> Machine:
    """Loads a model as the node does. Arguments as the node's parameters."""
    try:
        from ckd_tracker_ros.engine import DeviceError
        from ckd_tracker_ros.engine.select import load
        from ckd_tracker_ros.network.checkpoint import CheckpointError, find_model
    except ImportError as error:
        return Machine(
            problem=Finding(
                "no_torch",
                "blocks",
                f"the network cannot run in this Python: {error}",
                "install torch, torchvision, timm and safetensors, or activate the environment that has them; see "
                "docs/installing.md",
            )
        )
    try:
        file = find_model(model)
        engine = load(file, device, precision)
        return Machine(dict(engine.description), unused_gpu() if engine.description["device"] == "cpu" else None)
    except CheckpointError as error:
        what, do = " ".join(str(error).split()), "set model to a file that is there, or to the name of an installed one"
        return Machine(problem=Finding("model", "blocks", what, do))
    except (DeviceError, RuntimeError, OSError) as error:  # torch says RuntimeError for most of what a driver can do
        what = " ".join(str(error).split())
        do = "set device and precision to what is there, or to auto; for a GPU see `nvidia-smi` and torch's build"
        return Machine(problem=Finding("device", "blocks", what, do))


def unused_gpu(devices: Path = Path("/dev")) -> Finding | None:
    """A remark where a driver shows an NVIDIA GPU and the network runs on the CPU."""
    found = next((devices / name for name in _GPU_FILES if (devices / name).exists()), None)
    if found is None:
        return None
    do = "install a torch that is built for it (docs/installing.md), and set device to cuda to be sure"
    return Finding("gpu_unused", "remark", f"the network runs on the CPU, and there is a GPU ({found})", do)
