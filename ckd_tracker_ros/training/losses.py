"""Task losses of a tracking head (paper section 3.5): focal on the centre map, GIoU and L1 on the box."""

from __future__ import annotations

import torch
from torch import Tensor
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


def heat_maps(boxes: Tensor, grid: int) -> Tensor:
    """Centre score to learn: 1 in the cell of the centre, a Gaussian around it, 0 beyond its radius.

    Args:
        boxes: (N, 4) xywh in units of the crop.
        grid: F cells along one side.

    Returns:
        (N, F, F).
    """
    centre = centre_cells(boxes, grid)  # (N, 2) x, y
    radius = gaussian_radius(boxes[:, 2:] * grid)[:, None, None]
    cells = torch.arange(grid, device=boxes.device)
    dx, dy = (cells[None, :] - centre[:, i, None] for i in (0, 1))  # (N, F)
    sigma = (2 * radius + 1) / 6
    heat = torch.exp(-(dx[:, None, :] ** 2 + dy[:, :, None] ** 2) / (2 * sigma**2))
    inside = (dx.abs()[:, None, :] <= radius) & (dy.abs()[:, :, None] <= radius)
    return torch.where(inside, heat, 0)


def centre_cells(boxes: Tensor, grid: int) -> Tensor:
    """(N, 4) xywh in units of the crop -> (N, 2) column and row of the cell nearest to the centre."""
    return ((boxes[:, :2] + boxes[:, 2:] / 2) * grid).round().long().clamp(0, grid - 1)


def focal_loss(score: Tensor, target: Tensor, alpha: float = 2.0, beta: float = 4.0) -> Tensor:
    """CenterNet's focal loss of (N, 1, F, F) scores against (N, F, F) heat maps, per positive cell of the batch."""
    score = score[:, 0]
    positive = target.eq(1)
    hit = -(score.log() * (1 - score) ** alpha)[positive].sum()
    miss = -((1 - score).log() * score**alpha * (1 - target) ** beta)[~positive].sum()
    return (hit + miss) / positive.sum().clamp(min=1)


def predicted_boxes(maps: Maps, cells: Tensor) -> Tensor:
    """(N, 4) xyxy boxes, in units of the crop, that the maps give at (N, 2) cells (column, row)."""
    grid = maps.score.shape[-1]
    index = (cells[:, 1] * grid + cells[:, 0])[:, None, None].expand(-1, 2, 1)
    offset, size = (m.flatten(2).gather(2, index)[..., 0] for m in (maps.offset, maps.size))
    return box_convert(torch.cat([(cells + offset) / grid, size], dim=1), "cxcywh", "xyxy")


def task_losses(maps: Maps, boxes: Tensor, visible: Tensor) -> dict[str, Tensor]:
    """Losses of one head, unweighted (`WEIGHTS`): `focal`, `giou`, `l1`, and for the log the mean `iou`.

    The box is learned in the true centre's cell, so that it learns from the first step on.

    Args:
        boxes: (N, 4) xywh in units of the crop.
        visible: (N,) bool; where False the target is not in the crop: score 0 everywhere, no box.
    """
    grid = maps.score.shape[-1]
    target = heat_maps(boxes, grid) * visible[:, None, None]
    predicted = predicted_boxes(maps, centre_cells(boxes, grid))[visible]
    true = box_convert(boxes, "xywh", "xyxy")[visible]
    giou = generalized_box_iou_loss(predicted, true, reduction="none")
    return {
        "focal": focal_loss(maps.score, target),
        "giou": giou.sum() / visible.sum().clamp(min=1),
        "l1": F.l1_loss(predicted, true, reduction="sum") / (4 * visible.sum().clamp(min=1)),
    }


def weighted(losses: dict[str, Tensor]) -> Tensor:
    """The sum that is minimised."""
    return sum((WEIGHTS[name] * loss for name, loss in losses.items()), torch.zeros((), device=losses["l1"].device))
