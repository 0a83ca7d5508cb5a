"""A network as one ONNX file, for ONNX Runtime: elimination inside, any number of targets."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from ckd_tracker_ros.network import checkpoint
from ckd_tracker_ros.network.student import Student

INPUTS = ("templates", "extents", "crops", "present")
OUTPUT = "maps"
CONFIG, PROVENANCE = "config", "provenance"
"""Keys of the file's own metadata; JSON."""
OPSET = 18
_TRACED = 2
"""Targets while the graph is made; 1 would become a constant."""


class ExportError(RuntimeError):
    """The file cannot be made; the message says why."""


class Whole(nn.Module):
    """All of a step, from uint8 crops to maps, without a state: the template goes through the network each time."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def forward(self, templates: Tensor, extents: Tensor, crops: Tensor, present: Tensor) -> Tensor:
        """Maps of N targets.

        Args:
            templates: (N, M, T, T, 3) uint8.
            extents: (N, 2) width and height of the target's box in units of the template crop.
            crops: (N, M, S, S, 3) uint8.
            present: (N, M) bool: both crops of a modality are there.

        Returns:
            (N, 5, F, F): score, size, offset.
        """
        student = self.student
        maps = student(student.normalize(templates), student.normalize(crops), present, extents)
        return torch.cat([m.float() for m in maps], dim=1)


def export(source: Path | str, destination: Path) -> Path:
    """Turn a model file into an ONNX file, float32.

    Raises:
        checkpoint.CheckpointError: no such model, or a damaged one.
        ExportError: the packages for it are missing, or a destination that is no .onnx file.
    """
    destination = Path(destination)
    if destination.suffix != ".onnx":
        raise ExportError(f"destination {destination}; allowed: a file that ends in .onnx")
    path = checkpoint.find_model(str(source))
    config, provenance = checkpoint.read_metadata(path)
    whole = Whole(checkpoint.load(path)).eval().requires_grad_(False)
    whole.student.box_head.fold_norms()
    modalities = len(config.modalities)
    example = (
        torch.zeros(_TRACED, modalities, config.template_size, config.template_size, 3, dtype=torch.uint8),
        torch.full((_TRACED, 2), 1 / config.template_factor),
        torch.zeros(_TRACED, modalities, config.search_size, config.search_size, 3, dtype=torch.uint8),
        torch.ones(_TRACED, modalities, dtype=torch.bool),
    )
    targets = torch.export.Dim("targets", min=1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter's own making
            logging.getLogger("torch.onnx").setLevel(logging.ERROR)
            program = torch.onnx.export(
                whole, example, dynamo=True, opset_version=OPSET, verbose=False,
                input_names=list(INPUTS), output_names=[OUTPUT], dynamic_shapes=[{0: targets}] * len(INPUTS),
            )  # fmt: skip
    except ImportError as error:
        raise ExportError(f"exporting needs more packages ({error}): pip install ckd_tracker_ros[export]") from error
    metadata = {CONFIG: json.dumps(config.to_dict()), PROVENANCE: json.dumps(provenance)}
    program.model.metadata_props.update(metadata)
    part = destination.with_suffix(".part")
    program.save(str(part), external_data=False)
    part.replace(destination)
    return destination
