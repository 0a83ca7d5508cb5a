"""What a training starts from: published weights, a transformer, an earlier training, or random numbers."""

from __future__ import annotations

import logging
import math
import re
from pathlib import Path

import torch
from torch import Tensor, nn

from ckd_tracker_ros.frame import MODALITIES
from ckd_tracker_ros.network import checkpoint
from ckd_tracker_ros.network.checkpoint import CheckpointError
from ckd_tracker_ros.network.config import NetworkConfig
from ckd_tracker_ros.network.convert import converted, read
from ckd_tracker_ros.network.student import BRANCH_NAMES, SHARED_BRANCH, Student
from ckd_tracker_ros.network.vit import Branch

log = logging.getLogger(__name__)

Tensors = dict[str, Tensor]

_OPTIONAL = ("joint_embed_z", "joint_embed_x", "target_embed")  # older or simpler networks of the same kind have none
_PUBLISHED_TEACHERS = {
    "rgb": (r"^teacher_rgb\.", r"^box_head_v\."),
    "thermal": (r"^teacher_tir\.", r"^box_head_i\."),
}


def initial_student(config: NetworkConfig, source: str = "", drop_path: float = 0.0) -> Student:
    """A network with the weights that `source` has for it; the others are random, and ready to learn quickly.

    Args:
        config: a student, or a teacher: the same with one modality. A teacher takes its own part of a published file of
            the first stage, else the branch of its modality and that modality's part of the fused head.
        source: see `TrainingConfig.init`.
        drop_path: see `Student`.

    Raises:
        CheckpointError: no such file, or it does not fit the network.
    """
    student = Student(config, drop_path)
    if config.joint_from:
        for branch, _ in student.branches:
            _mark_target(branch, config)
    nn.init.constant_(student.box_head.conv5_ctr.bias, -math.log(99))  # one cell in a hundred holds a centre
    nn.init.constant_(student.box_head.conv5_size.bias, -1.1)  # a quarter of the crop
    if source:
        path = checkpoint.find_model(source)
        tensors, kind = _own(path, config) or _published(path, config)
        student.load_state_dict(
            {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}, strict=False
        )
        if config.target_embed and _names(tensors, "joint_embed_z") - _names(tensors, "target_embed"):
            _unmark(student)
        rest = len(student.state_dict()) - len(tensors)
        log.info(
            "%s (%s): %d tensors for %s, %d start new", path, kind, len(tensors), "+".join(config.modalities), rest
        )
    return student


def _names(tensors: Tensors, parameter: str) -> set[str]:
    """Branches that have a parameter."""
    return {name.removesuffix(f".{parameter}") for name in tensors if name.endswith(f".{parameter}")}


@torch.no_grad()
def _unmark(student: Student) -> None:
    for branch, _ in student.branches:
        branch.target_embed.zero_()


@torch.no_grad()
def _mark_target(branch: Branch, config: NetworkConfig) -> None:
    """Template tokens start out knowing whether they show the target or what is around it."""
    direction = torch.randn(config.width, generator=torch.Generator().manual_seed(0))
    if config.target_embed:
        branch.joint_embed_z.copy_(-direction.expand_as(branch.joint_embed_z))
        branch.target_embed.copy_(2 * direction.expand_as(branch.target_embed))
        return
    line = torch.linspace(-1, 1, config.template_grid)
    distance = (line[:, None] ** 2 + line[None, :] ** 2).flatten()
    sign = torch.tanh(4 * (0.4 - distance))  # 1 in the middle, -1 in the corners
    branch.joint_embed_z.copy_(sign[None, :, None] * direction)


def _own(path: Path, config: NetworkConfig) -> tuple[Tensors, str] | None:
    """Tensors of a file of this project; None for another one."""
    if path.suffix != checkpoint.SUFFIX:
        return None
    try:
        made_of, _ = checkpoint.read_metadata(path)
    except CheckpointError:
        return None  # a published file may be a safetensors file too; `read` tells what is wrong with it
    target = Student(config).state_dict()
    tensors = _head_part(_branch_part(read(path), config), config, made_of.modalities)
    wrong = [name for name, t in tensors.items() if name not in target or t.shape != target[name].shape]
    wrong += [name for name in target if name not in tensors and not name.endswith(_OPTIONAL)]
    if wrong:
        raise CheckpointError(
            f"{path} is a {made_of.name} that does not fit the network that was asked for: {', '.join(wrong[:4])}"
            + (f" and {len(wrong) - 4} more" if len(wrong) > 4 else "")
        )
    return tensors, f"our own {made_of.name}"


def _published(path: Path, config: NetworkConfig) -> tuple[Tensors, str]:
    """Tensors of a file that `network.convert` understands."""
    tensors = _head_part(_teacher_part(read(path), config), config, MODALITIES)
    depth = 1 + max(
        (int(found[1]) for name in tensors if (found := re.search(r"(?:^|\.)blocks\.(\d+)\.", name))), default=0
    )
    tensors, report = converted(tensors, config)
    if depth > config.depth:  # its norm is that of the whole transformer, not of a truncated one
        tensors = {name: t for name, t in tensors.items() if ".norm." not in name}
    return tensors, report.kind


def _teacher_part(tensors: Tensors, config: NetworkConfig) -> Tensors:
    """A published teacher's tensors under a student's names, if this is a teacher and the file has it."""
    if len(config.modalities) != 1:
        return tensors
    (modality,) = config.modalities
    branch, head = _PUBLISHED_TEACHERS[modality]
    if not any(re.match(branch, name) for name in tensors):
        return tensors
    names = ((branch, f"{BRANCH_NAMES[modality]}."), (head, "box_head."))
    return {
        re.sub(pattern, new, name): t
        for name, t in tensors.items()
        for pattern, new in names
        if re.match(pattern, name)
    }


def _branch_part(tensors: Tensors, config: NetworkConfig) -> Tensors:
    """Of a student's branches, the one that a teacher takes over: its modality's, or the shared one."""
    if len(config.modalities) != 1 or config.shared:
        return tensors
    own = BRANCH_NAMES[config.modalities[0]]
    renamed = {re.sub(rf"^{SHARED_BRANCH}\.", f"{own}.", name): tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in renamed.items() if name.startswith((f"{own}.", "box_head."))}


def _head_part(tensors: Tensors, config: NetworkConfig, modalities: tuple[str, ...]) -> Tensors:
    """With one modality of several, its channels of the fused head's first convolutions."""
    if len(config.modalities) != 1 or len(modalities) < 2 or config.modalities[0] not in modalities:
        return tensors
    i, result = modalities.index(config.modalities[0]), dict(tensors)
    for name, tensor in tensors.items():
        if re.match(r"box_head\.conv1_\w+\.0\.weight", name) and tensor.shape[1] == len(modalities) * config.width:
            result[name] = tensor[:, i * config.width : (i + 1) * config.width]
    return result
