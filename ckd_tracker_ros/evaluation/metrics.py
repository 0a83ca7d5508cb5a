"""The numbers that RGB-thermal benchmarks publish: pure functions from boxes to errors, and from errors to scores.

Boxes are left, top, width, height in pixels. What a benchmark counts, and what it does with rows that are no boxes, is
one entry of `PROTOCOLS`. LasHeR, RGBT234, RGBT210 and GTOT agree with the package `rgbt` 1.0.1, which gives the figures
of the papers, down to ties: 12/20 is above the threshold 0.6 in float32 and not in float64, and boxes of whole pixels
meet such thresholds often. So values are float32, in that package's order of operations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float32]
Curve = NDArray[np.float64]


def center_error(result: Values, truth: Values) -> Values:
    """(n,) pixels between the centres of (n, 4) boxes."""
    return _distance(_center(result), _center(truth))


def normalized_error(result: Values, truth: Values) -> Values:
    """(n,) distance of the centres of (n, 4) boxes, in widths and heights of the true box."""
    size = truth[:, 2:] + np.float32(1e-8)
    return _distance(_center(result) / size, _center(truth) / size)


def overlap(result: Values, truth: Values) -> Values:
    """(n,) intersection over union of (n, 4) boxes; 0 where neither has an area."""
    ends = [boxes[:, 2:] + boxes[:, :2] - 1 for boxes in (result, truth)]
    sides = np.maximum(np.minimum(*ends) - np.maximum(result[:, :2], truth[:, :2]) + 1, 0)
    shared = sides[:, 0] * sides[:, 1]
    union = result[:, 3] * result[:, 2] + truth[:, 3] * truth[:, 2] - shared
    return np.divide(shared, union, out=np.zeros_like(union), where=union != 0)


def _center(boxes: Values) -> Values:
    return (boxes[:, 2:] - 1) / 2 + boxes[:, :2]


def _distance(a: Values, b: Values) -> Values:
    squared = (a - b) ** 2
    return np.sqrt(squared[:, 0] + squared[:, 1])


@dataclass(frozen=True, eq=False)
class Metric:
    """One published number and the curve behind it.

    Attributes:
        of: (n, 4) result, (n, 4) truth -> (n,) values.
        better: of the values against two truths, the one that counts.
        hit: values, thresholds -> whether a frame counts.
        thresholds: (k,).
        number: (n,) values, (k,) share of hits -> the number.
        axis: what the thresholds are, for people.
    """

    of: Callable[[Values, Values], Values]
    better: Callable[[Values, Values], Values]
    hit: Callable[[NDArray, NDArray], NDArray[np.bool_]]
    thresholds: Curve
    number: Callable[[Values, Curve], float]
    axis: str

    def curve(self, values: Values) -> Curve:
        """(k,) share of the frames that count, per threshold."""
        return self.hit(values[:, None], self.thresholds).mean(axis=0)


def _errors(of: Callable, hit: Callable, limit: float, at: int, axis: str) -> Metric:
    return Metric(of, np.fmin, hit, np.linspace(0, limit, 51), lambda values, curve: curve[at], axis)


def _overlaps(number: Callable[[Values, Curve], float]) -> Metric:
    return Metric(overlap, np.fmax, np.greater, np.linspace(0, 1, 21), number, "overlap threshold")


PRECISION = _errors(center_error, np.less_equal, 50, 20, "location error threshold (pixels)")
PRECISION_GTOT = _errors(center_error, np.less, 25, 10, "location error threshold (pixels)")
NORMALIZED = _errors(normalized_error, np.less_equal, 0.5, 20, "location error threshold (target sizes)")
SUCCESS = _overlaps(lambda values, curve: curve.mean())
SUCCESS_GTOT = _overlaps(lambda values, curve: (curve[1:] + curve[:-1]).sum() / 2 * 0.05)
MEAN_IOU = _overlaps(lambda values, curve: values.mean())


Pair = tuple[Values, Values]  # (m, 4) result and (T, n, 4) truths


def _shortest(result: Values, truths: Values) -> Pair:
    """RGBT234, GTOT: whole pixels; rows without a partner do not count."""
    rows = min(len(result), truths.shape[1])
    return result[:rows].round(), truths[:, :rows]


def _rgbt210(result: Values, truths: Values) -> Pair:
    """As `_shortest`, the first row given."""
    result, truths = _shortest(result, truths)
    result[:1] = truths[0, :1]
    return result, truths


def _lasher(result: Values, truths: Values) -> Pair:
    """As `_rgbt210`; also, a row without an area repeats the one before, and a value of 0 or less is no truth."""
    rows = truths.shape[1]
    if len(result) < rows:
        raise ValueError(f"a result of {len(result)} rows for a truth of {rows}; expected: as many, or more")
    result, truths = result[:rows].round(), truths.round()
    result[:1] = truths[0, :1]
    usable = (result[:, 2:] > 0).all(axis=1)
    last_usable = np.maximum.accumulate(np.where(usable, np.arange(rows), 0))
    return result[last_usable], np.where((truths <= 0).any(axis=2, keepdims=True), np.float32(np.nan), truths)


def _annotated(result: Values, truths: Values) -> Pair:
    """Only rows where some truth is a box."""
    if len(result) != truths.shape[1]:
        raise ValueError(f"a result of {len(result)} rows for a truth of {truths.shape[1]}; expected: as many")
    usable = np.isfinite(truths).all(axis=2) & (truths[..., 2:] > 0).all(axis=2)
    kept = usable.any(axis=0)
    return result[kept], np.where(usable[..., None], truths, np.float32(np.nan))[:, kept]


def _vtuav(result: Values, truths: Values) -> Pair:
    return _annotated(result.round(), truths)


def _plain(result: Values, truths: Values) -> Pair:
    """As `_annotated`, not rounded, and without the start frame, whose box was given."""
    result, truths = result.copy(), truths.copy()
    truths[:, :1] = np.nan
    return _annotated(result, truths)


@dataclass(frozen=True, eq=False)
class Protocol:
    """How a benchmark scores.

    Attributes:
        metrics: name -> metric.
        truths: 1: the visible truth; 2: the better value of the visible and the infrared truth counts, frame by frame.
        clean: result, truths -> the rows to compare.
        pooled: all frames count the same; else all sequences.
    """

    metrics: Mapping[str, Metric]
    truths: int
    clean: Callable[[Values, Values], Pair]
    pooled: bool = False


PROTOCOLS: Mapping[str, Protocol] = {
    "lasher": Protocol({"PR": PRECISION, "NPR": NORMALIZED, "SR": SUCCESS}, 1, _lasher),
    "rgbt234": Protocol({"MPR": PRECISION, "MSR": SUCCESS}, 2, _shortest),
    "rgbt210": Protocol({"PR": PRECISION, "SR": SUCCESS}, 1, _rgbt210),
    "gtot": Protocol({"MPR": PRECISION_GTOT, "MSR": SUCCESS_GTOT}, 2, _shortest, pooled=True),
    "vtuav": Protocol({"MPR": PRECISION, "MSR": SUCCESS}, 2, _vtuav),
    "plain": Protocol({"mIoU": MEAN_IOU, "PR": PRECISION}, 1, _plain),
}
"""By kind of data set; `plain` is for those without a published metric: the mean IoU leads."""


class Score(NamedTuple):
    """A number, and the (k,) share of hits over the metric's thresholds."""

    number: float
    curve: Curve


def frame_values(protocol: Protocol, result: ArrayLike, truths: Sequence[ArrayLike]) -> dict[str, Values]:
    """What each metric takes of each frame of one sequence.

    Args:
        result: (m, 4) boxes of a tracker, row 0 of the start frame.
        truths: (n, 4) boxes, visible first; more than the protocol uses may be given.

    Returns:
        Per metric (k,) values, k the rows that the protocol compares; -1, which is a hit for errors and a miss for
        overlap, where a compared row has no truth (LasHeR).

    Raises:
        ValueError: a result that is no (m, 4) of finite numbers, or has a number of rows that the protocol does not
            take; too few truths.
    """
    boxes = np.asarray(result, np.float32)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
        raise ValueError(f"a result of shape {boxes.shape}; expected: (m, 4), all of it finite")
    if len(truths) < protocol.truths:
        raise ValueError(f"{len(truths)} truth(s); expected: {protocol.truths}, visible and infrared")
    boxes, cleaned = protocol.clean(boxes, np.asarray(truths[: protocol.truths], np.float32))
    values = {}
    for name, metric in protocol.metrics.items():
        each = [metric.of(boxes, truth) for truth in cleaned]
        values[name] = np.nan_to_num(each[0] if len(each) == 1 else metric.better(*each), nan=-1)
    return values


def summarize(protocol: Protocol, sequences: Sequence[Mapping[str, Values]]) -> dict[str, Score]:
    """Scores over sequences, given `frame_values` of each; those without a frame to compare do not count.

    Returns:
        Per metric; NaN where nothing is left to count.
    """
    scores = {}
    for name, metric in protocol.metrics.items():
        groups = [values[name] for values in sequences if len(values[name])]
        if protocol.pooled and groups:
            groups = [np.concatenate(groups)]
        curves = [metric.curve(values) for values in groups]
        if not curves:
            scores[name] = Score(float("nan"), np.full(len(metric.thresholds), np.nan))
            continue
        numbers = [metric.number(values, curve) for values, curve in zip(groups, curves, strict=True)]
        scores[name] = Score(float(np.mean(numbers)), np.mean(curves, axis=0))
    return scores
