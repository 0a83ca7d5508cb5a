"""Box conventions, in one place.

A box is four numbers in the last axis of an array, pixels of one image, origin in that image's top left corner:

- ``xywh``: left, top, width, height. What users, messages and files speak.
- ``xyxy``: left, top, right, bottom.
- ``cxcywh``: centre, width, height. What the network predicts, in units of the search crop.

Every function takes ``(..., 4)`` arrays and returns float64 arrays of the broadcast shape.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Boxes = NDArray[np.float64]

SAME_PROPORTIONS = 0.02
"""By which the ratios of widths and of heights may differ: sizes are rounded, to multiples of 8 or 16."""


def xywh_to_xyxy(boxes: ArrayLike) -> Boxes:
    """(..., 4) left, top, width, height -> left, top, right, bottom."""
    boxes = np.asarray(boxes, np.float64)
    return np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)


def xyxy_to_xywh(boxes: ArrayLike) -> Boxes:
    """(..., 4) left, top, right, bottom -> left, top, width, height."""
    boxes = np.asarray(boxes, np.float64)
    return np.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)


def cxcywh_to_xywh(boxes: ArrayLike) -> Boxes:
    """(..., 4) centre x, centre y, width, height -> left, top, width, height."""
    boxes = np.asarray(boxes, np.float64)
    return np.concatenate([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., 2:]], axis=-1)


def xywh_to_cxcywh(boxes: ArrayLike) -> Boxes:
    """(..., 4) left, top, width, height -> centre x, centre y, width, height."""
    boxes = np.asarray(boxes, np.float64)
    return np.concatenate([boxes[..., :2] + boxes[..., 2:] / 2, boxes[..., 2:]], axis=-1)


def with_size(boxes: ArrayLike, size: ArrayLike, share: float) -> Boxes:
    """(..., 4) xywh boxes whose size moves towards another, about their centres.

    Args:
        boxes: with sides above 0.
        size: (..., 2) width and height above 0.
        share: 0 keeps the boxes, 1 takes `size`; between them the geometric mean, weighted.
    """
    boxes = xywh_to_cxcywh(boxes)
    mixed = boxes[..., 2:] ** (1 - share) * np.asarray(size, np.float64) ** share
    return cxcywh_to_xywh(np.concatenate([boxes[..., :2], mixed], axis=-1))


def iou(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of (..., 4) xywh boxes, pair by pair (shapes broadcast); 0 where a box has no area."""
    a, b = xywh_to_xyxy(a), xywh_to_xyxy(b)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    overlap = np.prod(np.maximum(sides, 0), axis=-1)
    area_a = np.prod(np.maximum(a[..., 2:] - a[..., :2], 0), axis=-1)
    area_b = np.prod(np.maximum(b[..., 2:] - b[..., :2], 0), axis=-1)
    union = area_a + area_b - overlap
    return np.divide(overlap, union, out=np.zeros_like(union), where=union > 0)


def clip(boxes: ArrayLike, width: int, height: int, min_size: float) -> Boxes:
    """(..., 4) xywh boxes cut to an image of `width` x `height`, at least `min_size` wide and high.

    The published rule: left and top stay `min_size` away from the far edges, right and bottom from the near ones,
    so a box that has left the image stays at its border. In an image smaller than `min_size` the size wins.
    """
    least = (0.0, 0.0, min_size, min_size)
    most = (max(0, width - min_size), max(0, height - min_size), width, height)
    corners = np.maximum(np.minimum(xywh_to_xyxy(boxes), most), least)
    corners[..., 2:] = np.maximum(corners[..., 2:] - corners[..., :2], min_size)
    return corners


def same_proportions(size: Sequence[float], other: Sequence[float]) -> bool:
    """Whether widths and heights differ by one factor, but for rounding."""
    return abs(size[0] * other[1] / (size[1] * other[0]) - 1) <= SAME_PROPORTIONS


def resizing(before: tuple[int, int] | None, now: tuple[int, int]) -> float:
    """From pixels of one image size (width, height) to those of another; 1 where the proportions are others, or one of
    the sizes is not known: then nothing says where anything is now."""
    known = before is not None and 0 not in before
    return now[0] / before[0] if known and same_proportions(now, before) else 1.0
