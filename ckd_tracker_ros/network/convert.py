"""Published checkpoints to this project's own format.

Every renaming stands in `_RENAMES`; whatever is then left over, or missing, is reported by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from torch import Tensor

from ckd_tracker_ros.network.checkpoint import CheckpointError, save
from ckd_tracker_ros.network.config import BASE, NetworkConfig
from ckd_tracker_ros.network.student import SHARED_BRANCH, Student
from ckd_tracker_ros.network.unpickle import load_tensors

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Report:
    """What became of a conversion.

    Attributes:
        kind: format that was recognised, one of the keys of `_RENAMES`.
        fresh: parameters of the new network that the file does not hold: they keep their initial values.
        unused: tensors of the file that have no place in the new network.
    """

    kind: str
    fresh: tuple[str, ...]
    unused: tuple[str, ...]


_VIT = r"^(patch_embed\.|blocks\.|norm\.|pos_embed|cls_token)"

# kind -> (a key that only this kind has, [(pattern, replacement)]); first match wins; "{branch}" is filled in for each
_RENAMES: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "ckd": (r"^(rgb|tir)_branch\.blocks\.", [(r"^(rgb_branch|tir_branch|shared_branch|box_head)\.", r"\1.")]),
    "ostrack": (r"^backbone\.blocks\.", [(r"^backbone\.", "{branch}."), (r"^box_head\.", "box_head.")]),
    "vit": (r"^blocks\.", [(_VIT, r"{branch}.\1")]),
}
_NEVER_USED = re.compile(
    r"(^|\.)(cls_token|mask_token|pos_embed|temporal_pos_embed_[zx]|mean|std)$"  # folded into the position tables
    r"|^(decoder_|fc_norm\.|head\.|mask_token)"  # MAE's decoder and classifiers
    r"|^(teacher_(rgb|tir)|box_head_[vi])\."  # of training
    r"|^box_head\.(indice|coord_[xy])$"
)


def convert(
    source: Path | str,
    destination: Path | str,
    config: NetworkConfig = BASE,
    *,
    allow_fresh: bool = False,
    allow_unused: bool = False,
    dtype: torch.dtype = torch.float16,
) -> Report:
    """Turn a published CKD, OSTrack, DropTrack, MAE or timm file into one safetensors file.

    Args:
        source: a `torch.save` file (read without running anything in it) or a safetensors file.
        destination: the file to write.
        config: the network to make. A transformer deeper than it is truncated; position tables and patch sizes are
            resampled. A single-modality tracker fills every branch, and its head the fused one, as the paper starts.
        allow_fresh: accept parameters that the file does not hold beyond the head, which is always allowed for
            backbone files (`vit`).
        allow_unused: accept tensors that have no place.

    Raises:
        CheckpointError: unreadable, unrecognised, shapes that do not fit, or names unmatched and not allowed.
    """
    tensors, report = converted(read(source), config)
    head_expected = report.kind == "vit"
    fresh = [name for name in report.fresh if not (head_expected and name.startswith("box_head."))]
    if fresh and not allow_fresh:
        raise CheckpointError(f"{source}: nothing in it for {_some(fresh)}; --allow-fresh keeps their initial values")
    if report.unused and not allow_unused:
        raise CheckpointError(f"{source}: no place for {_some(report.unused)}; --allow-unused leaves them out")
    torch.manual_seed(0)  # what stays fresh is the same each time
    student = Student(config)
    student.load_state_dict({**student.state_dict(), **tensors})
    provenance = {"converted_from": Path(source).name, "kind": report.kind, "fresh": list(report.fresh)}
    save(destination, student, provenance, dtype)
    return report


def read(source: Path | str) -> Tensors:
    """The state dict in a published file, whatever it is wrapped in.

    Raises:
        CheckpointError: unreadable, or holds no state dict.
    """
    if Path(source).suffix == ".safetensors":
        try:
            return load_file(str(source))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{source} is not a readable safetensors file: {error}") from error
    content = load_tensors(source)
    for key in ("net", "model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = {name: t for name, t in content.items() if isinstance(t, Tensor)} if isinstance(content, dict) else {}
    if not tensors:
        raise CheckpointError(f"{source}: no state dict in it, neither bare nor under 'net', 'model', 'state_dict'")
    return {str(name).removeprefix("module."): tensor for name, tensor in tensors.items()}


def converted(tensors: Tensors, config: NetworkConfig) -> tuple[Tensors, Report]:
    """State dict of a published file -> state dict for `Student(config)`, as far as it reaches.

    Raises:
        CheckpointError: the format is not recognised, or a shape does not fit.
    """
    kind = next((k for k, (mark, _) in _RENAMES.items() if any(re.match(mark, name) for name in tensors)), None)
    if kind is None:
        raise CheckpointError(
            f"not a CKD, OSTrack, DropTrack, MAE or timm ViT state dict; its first names: {_some(sorted(tensors))}"
        )
    tensors = _position_tables(_fold_layer_scale(tensors), config)
    target = {name: tensor for name, tensor in Student(config).state_dict().items()}
    branches = sorted({name.split(".")[0] for name in target} - {"box_head"})
    result: Tensors = {}
    unused = []
    for name, tensor in tensors.items():
        places = [place for place in _places(name, kind, branches) if place in target]
        if not places and not _NEVER_USED.search(name) and not _beyond(name, config):
            unused.append(name)
        for place in places:
            result[place] = _fit(place, tensor, target[place])
    fresh = [name for name in target if name not in result and not name.endswith("num_batches_tracked")]
    return result, Report(kind, tuple(sorted(fresh)), tuple(sorted(unused)))


def _places(name: str, kind: str, branches: list[str]) -> list[str]:
    for pattern, replacement in _RENAMES[kind][1]:
        if re.match(pattern, name):
            filled = [re.sub(pattern, replacement.replace("{branch}", branch), name) for branch in branches]
            if branches == [SHARED_BRANCH]:  # one published branch fills the shared one
                filled = [re.sub(r"^rgb_branch\.", f"{SHARED_BRANCH}.", place) for place in filled]
            return sorted(set(filled))
    return []


def _beyond(name: str, config: NetworkConfig) -> bool:
    """A block past the last one of a truncated transformer."""
    block = re.search(r"(?:^|\.)blocks\.(\d+)\.", name)
    return block is not None and int(block[1]) >= config.depth


def _fold_layer_scale(tensors: Tensors) -> Tensors:
    """LayerScale (DINOv2) is a constant factor behind a linear layer: part of its weights."""
    folded = dict(tensors)
    for name, gamma in tensors.items():
        for scale, layer in (("ls1.gamma", "attn.proj"), ("ls2.gamma", "mlp.fc2")):
            if name.endswith(scale):
                prefix = name.removesuffix(scale) + layer
                folded[f"{prefix}.weight"] = folded[f"{prefix}.weight"].float() * gamma.float()[:, None]
                folded[f"{prefix}.bias"] = folded[f"{prefix}.bias"].float() * gamma.float()
                del folded[name]
    return folded


def _position_tables(tensors: Tensors, config: NetworkConfig) -> Tensors:
    """`pos_embed_z` and `pos_embed_x` at this network's grids, from whatever tables the file has."""
    result = dict(tensors)
    grids = {"z": config.template_grid, "x": config.search_grid}
    prefixes = {name[: name.index("pos_embed")] for name in tensors if name.endswith(("pos_embed", "pos_embed_x"))}
    for prefix in prefixes:
        for suffix, grid in grids.items():
            own, plain = f"{prefix}pos_embed_{suffix}", tensors.get(f"{prefix}pos_embed")
            if own in tensors:
                table = _resample(tensors[own], grid, prefix_tokens=0)
            elif plain is not None:
                table = _resample(plain, grid, prefix_tokens=_prefix_tokens(plain))[:, -(grid**2) :]
            else:
                continue
            temporal = tensors.get(f"{prefix}temporal_pos_embed_{suffix}")  # DropTrack
            result[own] = table if temporal is None else table + _resample(temporal, grid, prefix_tokens=0)
    return result


def _prefix_tokens(table: Tensor) -> int:
    """Class tokens in front: what is left over from a square."""
    return table.shape[1] - int(table.shape[1] ** 0.5) ** 2


def _resample(table: Tensor, grid: int, prefix_tokens: int) -> Tensor:
    return resample_abs_pos_embed(table.float(), [grid, grid], num_prefix_tokens=prefix_tokens)


def _fit(name: str, tensor: Tensor, target: Tensor) -> Tensor:
    """Shape a tensor for its place: patch size by resampling, the fused head's first layer as cat([w, w])."""
    rules: list[tuple[bool, Callable[[Tensor], Tensor]]] = [
        (
            name.endswith("patch_embed.proj.weight") and tensor.shape[-1] != target.shape[-1],
            lambda t: resample_patch_embed(t.float(), list(target.shape[-2:])),
        ),
        (
            re.match(r"box_head\.conv1_\w+\.0\.weight", name) is not None and tensor.shape[1] < target.shape[1],
            lambda t: t.repeat(1, target.shape[1] // t.shape[1], 1, 1),
        ),
    ]
    for applies, rule in rules:
        if applies:
            tensor = rule(tensor)
    if tensor.shape != target.shape:
        raise CheckpointError(
            f"{name} is {tuple(tensor.shape)} in the file and {tuple(target.shape)} in the network that was asked for"
        )
    return tensor.to(target.dtype)


def _some(names: list[str] | tuple[str, ...], most: int = 6) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
