"""Task losses of a tracking head (paper section 3.5) and the gaps that distillation closes (sections 3.2 and 3.3).

Means are sums over counts, and the counts those of all processes: see `shared_counts`.
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed
from torch.nn import functional as F
from torchvision.ops import box_convert, generalized_box_iou_loss

from ckd_tracker_ros.network.head import Maps

WEIGHTS = {"giou": 2.0, "l1": 5.0, "focal": 1.0}
MIN_OVERLAP = 0.7


def gaussian_radius(size: Tensor, min_overlap: float = MIN_OVERLAP) -> Tensor:
    """How far a box of (..., 2) width and height, in cells, may be moved and still overlap by `min_overlap`.

    The whole number of cells that CenterNet uses: the smallest root of its three cases.
    """
    w, h = size.unbind(-1)
    cases = (
        (1.0, h + w, w * h * (1 - min_overlap) / (1 + min_overlap)),
        (4.0, 2 * (h + w), (1 - min_overlap) * w * h),
        (4 * min_overlap, -2 * min_overlap * (h + w), (min_overlap - 1) * w * h),
    )
    # the published code divides by 2, not by 2 a
    roots = [(b + (b * b - 4 * a * c).sqrt()) / 2 for a, b, c in cases]
    return torch.stack(roots).amin(dim=0).clamp(min=0).floor()


def heat_maps(boxes: Tensor, grid: int, soft: bool = False) -> Tensor:
    """Centre score to learn: 1 in the cell of the centre, a Gaussian around it, 0 beyond its radius.

    Args:
        boxes: (N, 4) xywh in units of the crop.
        grid: F cells along one side.
        soft: the Gaussian is around the centre itself, not its cell, and reaches the neighbours at least. With targets
            of three cells the published radius is 0: a centre on the border of two cells belongs to one of them alone.

    Returns:
        (N, F, F).
    """
    centre = centre_cells(boxes, grid)  # (N, 2) x, y
    radius = gaussian_radius(boxes[:, 2:] * grid)[:, None, None]
    cells = torch.arange(grid, device=boxes.device)
    dx, dy = (cells[None, :] - centre[:, i, None] for i in (0, 1))  # (N, F)
    if soft:
        radius = radius.clamp(min=1)
    inside = (dx.abs()[:, None, :] <= radius) & (dy.abs()[:, :, None] <= radius)
    middle = (dx[:, None, :] == 0) & (dy[:, :, None] == 0)
    if soft:
        exact = (boxes[:, :2] + boxes[:, 2:] / 2) * grid
        dx, dy = (cells[None, :] - exact[:, i, None] for i in (0, 1))
    sigma = (2 * radius + 1) / 6
    heat = torch.exp(-(dx[:, None, :] ** 2 + dy[:, :, None] ** 2) / (2 * sigma**2))
    return torch.where(middle, 1, torch.where(inside, heat, 0))


def centre_cells(boxes: Tensor, grid: int) -> Tensor:
    """(N, 4) xywh in units of the crop -> (N, 2) column and row of the cell nearest to the centre."""
    return ((boxes[:, :2] + boxes[:, 2:] / 2) * grid).round().long().clamp(0, grid - 1)


def focal_losses(score: Tensor, target: Tensor, alpha: float = 2.0, beta: float = 4.0) -> Tensor:
    """(N,) CenterNet's focal loss of (N, 1, F, F) scores against (N, F, F) heat maps, summed over each map."""
    score = score[:, 0]
    hit = score.log() * (1 - score) ** alpha
    miss = (1 - score).log() * score**alpha * (1 - target) ** beta
    return -torch.where(target.eq(1), hit, miss).sum(dim=(1, 2))


def predicted_boxes(maps: Maps, cells: Tensor) -> Tensor:
    """(N, 4) xyxy boxes, in units of the crop, that the maps give at (N, 2) cells (column, row)."""
    return all_boxes(maps)[torch.arange(len(cells)), cells[:, 1] * maps.score.shape[-1] + cells[:, 0]]


def all_boxes(maps: Maps) -> Tensor:
    """(N, F * F, 4) xyxy boxes, in units of the crop, that the maps give in every cell, row by row."""
    grid = maps.score.shape[-1]
    line = torch.arange(grid, device=maps.score.device)
    cells = torch.stack(torch.meshgrid(line, line, indexing="xy"))  # (2, F, F) column, row
    boxes = torch.cat([(cells + maps.offset) / grid, maps.size], dim=1)
    return box_convert(boxes.flatten(2).transpose(1, 2), "cxcywh", "xyxy")


def task_losses(
    maps: Maps, boxes: Tensor, visible: Tensor, count: Tensor | None = None, soft: bool = False
) -> dict[str, Tensor]:
    """Losses of one head, unweighted (`WEIGHTS`), per visible target: `focal`, `giou`, `l1`.

    The box is learned in the true centre's cell, so that it learns from the first step on; `soft`, in its neighbours as
    well, as much as the heat map counts them as centres.

    Args:
        boxes: (N, 4) xywh in units of the crop.
        visible: (N,) bool; where False the target is not in the crop: score 0 everywhere, no box.
        count: visible targets; those of this batch by default.
        soft: see `heat_maps`.
    """
    maps = Maps(*(m.float() for m in maps))
    grid = maps.score.shape[-1]
    count = visible.sum().clamp(min=1) if count is None else count
    target = torch.where(visible[:, None, None], heat_maps(boxes, grid, soft), 0)
    learned = (target > 0 if soft else target == 1) & visible[:, None, None]
    share = (target / target.sum(dim=(1, 2), keepdim=True) if soft else torch.ones_like(target))[learned]
    predicted = all_boxes(maps)[learned.flatten(1)]
    true = box_convert(boxes, "xywh", "xyxy")[learned.nonzero()[:, 0]]
    return {
        "focal": focal_losses(maps.score, target).sum() / count,
        "giou": (generalized_box_iou_loss(predicted, true) * share).sum() / count,
        "l1": (F.l1_loss(predicted, true, reduction="none").mean(dim=1) * share).sum() / count,
    }


def style_gaps(a: Tensor, b: Tensor) -> Tensor:
    """How far the styles of two modalities lie apart: mean and unbiased spread of each channel over the tokens.

    Args:
        a, b: (N, T, C) output of one block.

    Returns:
        (N,) mean squared differences over the channels.
    """
    (var_a, mean_a), (var_b, mean_b) = (torch.var_mean(x.float(), dim=1) for x in (a, b))
    # the root of 0 has no gradient
    spread_a, spread_b = (var.clamp(min=1e-12).sqrt() for var in (var_a, var_b))
    return ((mean_a - mean_b) ** 2 + (spread_a - spread_b) ** 2).mean(dim=1)


def content_gaps(student: Tensor, teacher: Tensor) -> Tensor:
    """How far a student's content lies from its teacher's: what is left without style, token by token.

    Args:
        student, teacher: (N, T, C) output of one block; nothing flows back into the teacher.

    Returns:
        (N,) mean squared differences over tokens and channels.
    """
    return ((without_style(student) - without_style(teacher.detach())) ** 2).mean(dim=(1, 2))


def without_style(tokens: Tensor, eps: float = 1e-5) -> Tensor:
    """(N, T, C) tokens, each channel with mean 0 and spread 1 over the tokens (instance normalisation)."""
    var, mean = torch.var_mean(tokens.float(), dim=1, correction=0, keepdim=True)
    return (tokens - mean) * (var + eps).rsqrt()


def shared_counts(counts: Tensor) -> Tensor:
    """Divisors for sums over this process's samples, at least 1: with them, processes together do what one would.

    DistributedDataParallel averages gradients over processes. A sum divided by the mean count of all processes
    averages to the total sum over the total count, also where one process has more samples that count than another.

    Args:
        counts: (...) of this process.
    """
    counts = counts.detach().float()
    if not (distributed.is_available() and distributed.is_initialized()):
        return counts.clamp(min=1)
    distributed.all_reduce(counts)
    return counts.clamp(min=1) / distributed.get_world_size()
