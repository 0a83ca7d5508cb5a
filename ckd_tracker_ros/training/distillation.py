"""Coupled knowledge distillation (paper section 3): students that learn from two online teachers, as one module.

The student does not know that it is taught: it is the network that runs on the robot. A teacher is the same network
with one modality and a head of its own, so that it can be saved and used as a tracker for one camera.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ckd_tracker_ros.network.config import NetworkConfig
from ckd_tracker_ros.network.head import Maps
from ckd_tracker_ros.network.student import Features, Student
from ckd_tracker_ros.training.losses import WEIGHTS, content_gaps, shared_counts, style_gaps, task_losses
from ckd_tracker_ros.training.samples import Batch

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class DistillationConfig:
    """What is learned from. The defaults are the paper's.

    Attributes:
        style, content: weights of the two distillation losses; one that weighs 0 is not computed.
        teachers: off, the fused head's task loss is all there is, whatever the other weights.
        teacher_task: weight of the teachers' task losses beside the fused head's.
        giou, l1, focal: weights within a task loss.
        soft_centre: the cells beside the centre's learn the box too, and are not told that they are wrong
            (`losses.heat_maps`); for coarse grids. The published way: off.
        early_frozen: blocks before `joint_from` keep the pretrained weights, the same in all branches. They run once
            for students and teachers, without gradient.
        early_precision: in which they run then, one of `PRECISIONS`.
    """

    style: float = 0.01
    content: float = 0.1
    teachers: bool = True
    teacher_task: float = 1.0
    giou: float = WEIGHTS["giou"]
    l1: float = WEIGHTS["l1"]
    focal: float = WEIGHTS["focal"]
    soft_centre: bool = False
    early_frozen: bool = False
    early_precision: str = "bfloat16"

    def __post_init__(self) -> None:
        for name in ("style", "content", "teacher_task", "giou", "l1", "focal"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: 0 or more")
        if self.early_precision not in PRECISIONS:
            raise ValueError(f"early_precision is {self.early_precision!r}; allowed: {', '.join(PRECISIONS)}")

    def weighted(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The sum that is minimised, of losses as `CoupledDistillation` returns them."""
        return torch.stack([self._weight(name) * loss for name, loss in losses.items()]).sum()

    def _weight(self, name: str) -> float:
        head, _, term = name.rpartition("/")
        return getattr(self, term) * (self.teacher_task if head not in ("", FUSED) else 1.0)


PLAIN = DistillationConfig(teachers=False)
"""No teachers: the task loss alone."""

FUSED = "fused"
"""Name of the student's head among the losses; a teacher's is that of its modality."""


@dataclass(frozen=True)
class Rates:
    """Learning rates; what has 0 is frozen. The defaults are the paper's first stage, `STAGE_2` its second.

    Attributes:
        head: of the student's and the teachers' heads.
        joint: blocks in which template and search meet, their positions and marks, and the last norm.
        early: everything before: patch embedding, positions, blocks before `joint_from`.
    """

    head: float = 5e-5
    joint: float = 5e-6
    early: float = 5e-6


STAGE_2 = Rates(joint=0.0, early=0.0)
"""Only the head learns: for a network with elimination, and `PLAIN`."""


class Tokens(NamedTuple):
    """A batch after its frozen early blocks: what a replay memory keeps, row by row.

    Attributes:
        templates: (N, K, M, T, C), targets not yet marked.
        searches: (N, M, S, C) search tokens as students see them, some hidden.
        whole: (N, M, S, C) search tokens as teachers see them; those of the students where nothing is hidden.
        extents, present, boxes, visible: as in `Batch`. Tokens are those of crops that are there; absent ones are
            replaced when they are used, so `present` may be drawn anew.
    """

    templates: Tensor
    searches: Tensor
    whole: Tensor
    extents: Tensor
    present: Tensor
    boxes: Tensor
    visible: Tensor


class CoupledDistillation(nn.Module):
    """The student, with its branches and fused head, and one online teacher per modality with a head of its own.

    Args:
        network: of the student.
        make: builds a network of a configuration, with the weights that training starts from; called for the student,
            then for each teacher (`teacher_config`).

    Raises:
        ValueError: elimination takes tokens from the students that content compares, or the student's branches differ
            in early blocks that are to be frozen and run once for all.
    """

    def __init__(
        self,
        network: NetworkConfig,
        config: DistillationConfig,
        make: Callable[[NetworkConfig], Student] = Student,
    ) -> None:
        super().__init__()
        if config.teachers and config.content and network.elimination_blocks:
            raise ValueError(
                f"content is {config.content} and elimination is on at blocks {network.elimination_blocks}: it takes "
                "tokens from the students that content compares; allowed: content 0 or no elimination"
            )
        self.config = config
        self.student = make(network)
        names = network.modalities if config.teachers else ()
        self.teachers = nn.ModuleDict({name: make(teacher_config(network, name)) for name in names})
        if config.early_frozen:
            self._freeze_early(PRECISIONS[config.early_precision])

    @property
    def networks(self) -> list[Student]:
        """The student and all teachers."""
        return [self.student, *self.teachers.values()]

    def forward(self, batch: Batch | Tokens) -> dict[str, Tensor]:
        """Unweighted losses (see `DistillationConfig.weighted`), float32 scalars.

        `fused/giou`, `fused/l1` and `fused/focal`, the same of each teacher by its modality (`rgb/giou`), `style` and
        `content`. An absent modality has no part in style, content and its teacher's losses.

        Style and content compare the joint blocks. Blocks before `joint_from` see template and search apart; frozen,
        they are the same in student and teacher, and neither loss could teach them anything.

        Args:
            batch: crops, or what `early` made of them.
        """
        batch = self._prepared(batch)
        targets = batch.boxes.shape[1]
        boxes, visible = batch.boxes.flatten(0, 1), batch.visible.flatten()  # (N * K, 4), (N * K,)
        present = batch.present.repeat_interleave(targets, dim=0)  # (N * K, M)
        masks = {FUSED: visible, "style": present.all(dim=1)}
        for name, seen in zip(self.teachers, present.T):
            masks |= {name: visible & seen, f"{name}/content": seen}
        counts = dict(zip(masks, shared_counts(torch.stack([mask.sum() for mask in masks.values()]))))

        student = self._features(self.student, batch, slice(None), taught=True)
        losses = _named(FUSED, self._task(self.student.head(student.tokens), boxes, visible, counts[FUSED]))
        if self._compares("style") and present.shape[1] > 1:
            gaps = sum(style_gaps(block[:, 0], block[:, 1]) for block in student.blocks)
            losses["style"] = (gaps * masks["style"]).sum() / counts["style"]
        for i, (name, teacher) in enumerate(self.teachers.items()):
            samples = batch.present[:, i].nonzero()[:, 0]
            if not len(samples):  # one that counts nowhere: every process has to have every gradient
                samples = samples.new_zeros(1)
            # only those: absent crops would count in the statistics of the teacher's BatchNorm
            lesson = type(batch)(*(tensor[samples] for tensor in batch))
            rows = (samples[:, None] * targets + torch.arange(targets, device=samples.device)).flatten()
            features = self._features(teacher, lesson, slice(i, i + 1), taught=False)
            maps = teacher.head(features.tokens)
            task = self._task(maps, boxes[rows], visible[rows], counts[name])
            losses |= _named(name, {term: loss * batch.present[:, i].any() for term, loss in task.items()})
            if self._compares("content"):
                blocks = zip(student.blocks, features.blocks)
                gaps = sum(content_gaps(ours[rows, i], theirs[:, 0]) for ours, theirs in blocks)
                content = (gaps * present[rows, i]).sum() / counts[f"{name}/content"]
                losses["content"] = losses.get("content", 0) + content
        return losses

    def maps(self, batch: Batch | Tokens) -> Maps:
        """What the student says about each of the N * K targets."""
        features = self._features(self.student, self._prepared(batch), slice(None), taught=True)
        return self.student.head(features.tokens)

    @torch.no_grad()
    def early(self, batch: Batch) -> Tokens:
        """Run the frozen early blocks, once for all branches; search crops twice where tokens are hidden."""
        batch, precision = self._normalized(batch), self.absent_z.dtype
        templates, searches = batch.templates.to(precision), batch.searches.to(precision)
        everything = torch.ones_like(batch.present)
        with torch.autocast(searches.device.type, enabled=False):
            z = self.frozen.embed(templates, everything[:, None].expand(templates.shape[:3]), "z")
            seen = whole = None
            if batch.hidden.any():
                seen = self.frozen.embed(searches, everything, "x", batch.hidden[:, None])
            if seen is None or self.teachers:
                whole = self.frozen.embed(searches, everything, "x")
        seen, whole = (whole if seen is None else seen), (seen if whole is None else whole)
        return Tokens(z, seen, whole, batch.extents, batch.present, batch.boxes, batch.visible)

    def train(self, mode: bool = True) -> CoupledDistillation:
        """Training mode for what learns; frozen parts keep their statistics and skip nothing."""
        super().train(mode)
        for module in self.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()
        return self

    def _task(self, maps: Maps, boxes: Tensor, visible: Tensor, count: Tensor) -> dict[str, Tensor]:
        return task_losses(maps, boxes, visible, count, self.config.soft_centre)

    def _compares(self, name: str) -> bool:
        return self.config.teachers and getattr(self.config, name) > 0

    def _prepared(self, batch: Batch | Tokens) -> Batch | Tokens:
        """Tokens where early blocks are frozen, else normalised crops."""
        if isinstance(batch, Tokens):
            return batch
        return self.early(batch) if self.config.early_frozen else self._normalized(batch)

    def _normalized(self, batch: Batch) -> Batch:
        """Crops as networks want them; zero where absent, since pixels of NaN would have gradients of NaN."""
        flags = batch.present[:, :, None, None, None]
        templates, searches = (
            torch.where(flag, (crops - self.student.mean) / self.student.std, 0)
            for crops, flag in ((batch.templates, flags[:, None]), (batch.searches, flags))
        )
        return batch._replace(templates=templates, searches=searches)

    def _features(self, network: Student, batch: Batch | Tokens, part: slice, taught: bool) -> Features:
        """A network over all N * K targets; it has the modalities of `part`. Tokens are hidden from who is taught."""
        targets = batch.boxes.shape[1]
        present = batch.present[:, part]
        each = present.repeat_interleave(targets, dim=0)
        if isinstance(batch, Tokens):
            z, x = batch.templates[:, :, part].flatten(0, 1), (batch.searches if taught else batch.whole)[:, part]
            z = torch.where(each[..., None, None], z, self.absent_z).float()
            x = torch.where(present[..., None, None], x, self.absent_x).float()
        else:
            z = network.embed(batch.templates[:, :, part].flatten(0, 1), each, "z")
            x = network.embed(batch.searches[:, part], present, "x", hidden=batch.hidden if taught else None)
        z = network.mark(z, each, batch.extents.flatten(0, 1))
        compared = self._compares("style") or self._compares("content")
        return network.join(z, x.repeat_interleave(targets, dim=0), each, keep_blocks=compared)

    @torch.no_grad()
    def _freeze_early(self, precision: torch.dtype) -> None:
        """One copy of the early blocks runs for all; teachers take over the student's."""
        first = self.student.branches[0][0]
        joint_from = self.student.config.joint_from
        for network in self.networks:
            for branch, _ in network.branches:
                for name, parameter in branch.named_parameters():
                    if _group(name, joint_from) != "early":
                        continue
                    source = first.get_parameter(name)
                    if network is self.student and not torch.equal(parameter, source):
                        raise ValueError(
                            f"early_frozen, but the student's branches differ in {name}: early blocks run once for "
                            "all branches, which has to start from the same pretrained weights"
                        )
                    parameter.copy_(source).requires_grad_(False)
        self.frozen = copy.deepcopy(first).requires_grad_(False).eval().to(precision)
        del self.frozen.blocks[joint_from:]
        for side, size in (("z", self.student.config.template_size), ("x", self.student.config.search_size)):
            nothing = torch.zeros(1, 3, size, size, dtype=precision)
            tokens = self.frozen.embed(nothing, torch.zeros(1, dtype=torch.bool), side)  # (1, T, C)
            self.register_buffer(f"absent_{side}", tokens)


def teacher_config(network: NetworkConfig, modality: str) -> NetworkConfig:
    """The same network for one modality. Elimination is of the students: it needs them both."""
    name = f"{network.name}_{modality}"
    return replace(network, name=name, modalities=(modality,), shared=False, elimination_blocks=())


def parameter_groups(module: CoupledDistillation, rates: Rates) -> list[dict[str, Any]]:
    """The parameters that learn, for an optimiser: `name`, `params` and `lr` of each group. All others are frozen.

    Raises:
        ValueError: nothing would learn, a rate below 0, or one for early blocks that are `early_frozen`.
    """
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in vars(rates)}
    for network in module.networks:
        for name, parameter in network.named_parameters():
            groups[_group(name, network.config.joint_from)].append(parameter)
    if min(vars(rates).values()) < 0 or not any(vars(rates).values()):
        raise ValueError(f"rates are {vars(rates)}; allowed: 0 (frozen) or more, and not all 0")
    if module.config.early_frozen and rates.early:
        raise ValueError(f"early_frozen, and a rate of {rates.early} for the early blocks; allowed: 0")
    for name, rate in vars(rates).items():
        for parameter in groups[name]:
            parameter.requires_grad_(rate > 0)
    module.train(module.training)
    return [{"name": name, "params": groups[name], "lr": rate} for name, rate in vars(rates).items() if rate > 0]


def _group(name: str, joint_from: int) -> str:
    """The field of `Rates` that a parameter of a network, or of a branch, belongs to."""
    if name.startswith("box_head."):
        return "head"
    block = re.search(r"\bblocks\.(\d+)\.", name)
    early = int(block[1]) < joint_from if block else re.search(r"\b(patch_embed|pos_embed_[zx])\b", name) is not None
    return "early" if early else "joint"


def _named(head: str, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{head}/{term}": loss for term, loss in losses.items()}
