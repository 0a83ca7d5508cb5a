"""Weight files: one safetensors file holds the tensors, the network's configuration and where they came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ckd_tracker_ros.network.config import NetworkConfig
from ckd_tracker_ros.network.student import Student
from ckd_tracker_ros.share import share_folders

SUFFIX = ".safetensors"
CONFIG_ERRORS = (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What reading a damaged configuration may raise."""
_CONFIG, _PROVENANCE = "ckd_tracker_ros.config", "ckd_tracker_ros.provenance"


class CheckpointError(RuntimeError):
    """A weight file that is missing, damaged, or not what it should be; the message says which and what to do."""


def find_model(name_or_path: str) -> Path:
    """The weight file for a path or a model's name (`ckd_tiny`), looked up in the folders of `share`.

    Raises:
        CheckpointError: there is none; lists where it was looked for.
    """
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    candidates = [folder / "models" / f"{name_or_path}{SUFFIX}" for folder in share_folders()]
    for candidate in candidates:
        if path.parent == Path() and candidate.is_file():
            return candidate
    looked = "\n  ".join(str(place) for place in [path, *candidates])
    raise CheckpointError(f"no model {name_or_path!r}; looked for\n  {looked}")


def save(path: Path | str, student: Student, provenance: dict[str, Any], dtype: torch.dtype = torch.float16) -> None:
    """Write a network as one file.

    Args:
        provenance: where the weights come from (source, licence, training); JSON values.
        dtype: of the stored floating-point tensors.
    """
    tensors = {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous().cpu()
        for name, tensor in student.state_dict().items()
    }
    metadata = {_CONFIG: json.dumps(student.config.to_dict()), _PROVENANCE: json.dumps(provenance)}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(path), metadata)


def rewrite(source: Path | str, destination: Path | str, config: NetworkConfig, provenance: dict[str, Any]) -> None:
    """Copy a weight file with another configuration and provenance; its tensors stay as they are, to the bit.

    Args:
        destination: may be `source`.

    Raises:
        CheckpointError: the source is missing or damaged.
    """
    read_metadata(source)
    with safe_open(str(source), "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    metadata = {_CONFIG: json.dumps(config.to_dict()), _PROVENANCE: json.dumps(provenance)}
    part = Path(destination).with_suffix(".part")
    save_file(tensors, str(part), metadata)
    part.replace(destination)


def read_metadata(path: Path | str) -> tuple[NetworkConfig, dict[str, Any]]:
    """Configuration and provenance of a weight file, without reading its tensors.

    Raises:
        CheckpointError: missing, damaged, or not of this project.
    """
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
    except FileNotFoundError as error:
        raise CheckpointError(f"no weight file {path}") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a readable safetensors file ({error}); published checkpoints are turned into one with "
            "'ckd-tracker convert'"
        ) from error
    if _CONFIG not in metadata:
        raise CheckpointError(f"{path} holds no network configuration; make it with 'ckd-tracker convert'")
    try:
        return NetworkConfig.from_dict(json.loads(metadata[_CONFIG])), json.loads(metadata.get(_PROVENANCE, "{}"))
    except CONFIG_ERRORS as error:
        raise CheckpointError(f"{path}: its configuration is damaged or of another version: {error}") from error


def load(path: Path | str) -> Student:
    """A network, float32 on the CPU, in evaluation mode.

    Raises:
        CheckpointError: missing, damaged, or tensors that do not fit the configuration.
    """
    config, _ = read_metadata(path)
    try:
        with safe_open(str(path), "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    with torch.device("meta"):  # only shapes, so that a damaged configuration allocates nothing
        try:
            expected = {name: tuple(tensor.shape) for name, tensor in Student(config).state_dict().items()}
        except (ValueError, RuntimeError, TypeError, ArithmeticError) as error:
            raise CheckpointError(f"{path}: its configuration makes no network: {error}") from error
    wrong = [
        f"{name}: {tuple(tensors[name].shape) if name in tensors else 'missing'}, not {expected.get(name, 'expected')}"
        for name in sorted(expected.keys() | tensors.keys())
        if name not in tensors or tuple(tensors[name].shape) != expected.get(name)
    ]
    if wrong:
        raise CheckpointError(f"{path}: {len(wrong)} tensors do not fit its configuration: {'; '.join(wrong[:3])}")
    bad = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if bad:
        raise CheckpointError(f"{path}: values that are not finite in {', '.join(bad[:3])}")
    student = Student(config)
    student.load_state_dict({n: t.float() if t.is_floating_point() else t for n, t in tensors.items()})
    return student.eval()
