"""How well confidences keep their promise, and the fit that makes them do so: functions of arrays.

`good` is (N,) bool: whether an estimate's IoU is above 0.5. Expected calibration error as in Guo et al., "On
Calibration of Modern Neural Networks" (ICML 2017): 15 bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ckd_tracker_ros.calibration import probability

BINS = 15
RIDGE = 1.0
"""Of the fit: weight of the squared weights, the constant's apart, against the summed loss of all samples. It only
shows where samples are few or can be told apart without an error."""


class FitError(ValueError):
    """The samples do not say what a confidence should be; the message says what is missing."""


class Bins(NamedTuple):
    """Confidences in groups: (B,) number of samples, their mean confidence, and the share that is good."""

    count: NDArray[np.int64]
    confidence: NDArray[np.float64]
    good: NDArray[np.float64]


class Thresholds(NamedTuple):
    """`lost.confidence` and `lost.recover`."""

    lost: float
    recover: float


def bins_of(confidence: NDArray, good: NDArray, count: int = BINS, adaptive: bool = False) -> Bins:
    """Bins of equal width in 0..1, or, adaptive, of equal numbers of samples; without the empty ones."""
    if adaptive:
        parts = np.array_split(np.argsort(confidence, kind="stable"), count)
    else:
        place = np.clip((confidence * count).astype(int), 0, count - 1)
        parts = [np.flatnonzero(place == bin) for bin in range(count)]
    parts = [part for part in parts if len(part)]
    means = ([values[part].mean() for part in parts] for values in (confidence, good))
    return Bins(np.array([len(part) for part in parts]), *map(np.array, means))


def calibration_error(confidence: NDArray, good: NDArray, adaptive: bool = False) -> float:
    """Expected calibration error: mean distance of confidence and share of good ones over the bins, by their size."""
    bins = bins_of(confidence, good, adaptive=adaptive)
    return float(np.average(np.abs(bins.confidence - bins.good), weights=bins.count))


def auroc(confidence: NDArray, good: NDArray) -> float:
    """Chance that a good estimate has a larger confidence than a bad one, a tie being half; NaN with only one kind."""
    _, inverse, count = np.unique(confidence, return_inverse=True, return_counts=True)
    ranks = (count.cumsum() - (count - 1) / 2)[inverse]  # the mean rank of those that are equal
    positive, negative = int(good.sum()), int((~good).sum())
    if not positive or not negative:
        return float("nan")
    return float((ranks[good].sum() - positive * (positive + 1) / 2) / (positive * negative))


def fit(rows: NDArray, good: NDArray, ridge: float = RIDGE) -> NDArray[np.float64]:
    """Logistic regression by Newton's method.

    Args:
        rows: (N, F), the first column 1.
        good: (N,) bool.

    Returns:
        (F,) weights.

    Raises:
        FitError: all samples are good, or none is, or there are none.
    """
    if not good.any() or good.all():
        kind = "above 0.5" if len(good) else "at all"
        share = "all" if good.any() else "none"
        raise FitError(f"{share} of {len(good)} samples have an IoU {kind}: a calibration needs hits and misses")
    penalty = ridge * np.eye(rows.shape[1])
    penalty[0, 0] = 0
    weights = np.zeros(rows.shape[1])
    for _ in range(100):
        found = probability(weights, rows)
        gradient = rows.T @ (found - good) + penalty @ weights
        # the tiny share keeps a column that never changes, such as a camera that was never missing, from being singular
        hessian = (rows * (found * (1 - found))[:, None]).T @ rows + penalty + 1e-9 * np.eye(len(weights))
        step = np.linalg.solve(hessian, gradient)
        weights -= np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-8:
            break
    return weights


def left_out(rows: NDArray, good: NDArray, videos: NDArray) -> NDArray[np.float64]:
    """(N,) confidences of each video's samples, by a fit to all the other videos.

    Raises:
        FitError: there is only one video, or see `fit`.
    """
    names = np.unique(videos)
    if len(names) < 2:
        raise FitError(f"samples of {len(names)} video: leaving one out needs two")
    confidence = np.empty(len(good))
    for name in names:
        inside = videos == name
        confidence[inside] = probability(fit(rows[~inside], good[~inside]), rows[inside])
    return confidence


def thresholds(confidence: NDArray, iou: NDArray) -> Thresholds:
    """Where a target should count as lost, and as found again.

    Lost: under the confidence of 95 % of the good estimates (IoU above 0.5), so that one in twenty of them is given up.
    Found: above that of 90 % of those that miss the target (IoU under 0.1), but never so high that half of the good
    ones would not bring it back.

    Raises:
        FitError: no good estimate, or no miss.
    """
    good, missed = confidence[iou > 0.5], confidence[iou < 0.1]
    if not len(good) or not len(missed):
        raise FitError(f"{len(good)} hits and {len(missed)} misses: thresholds need both")
    lost = float(np.percentile(good, 5))
    return Thresholds(lost, float(np.clip(np.percentile(missed, 90), lost, np.percentile(good, 50))))


def plot(file: Path, curves: Sequence[tuple[str, NDArray, NDArray]]) -> None:
    """Reliability plot of (name, confidence, good) each, with the number of samples in each bin below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color="0.6", linestyle="--")
    for name, confidence, good in curves:
        bins = bins_of(confidence, good)
        label = f"{name}: ECE {calibration_error(confidence, good):.3f}, AUROC {auroc(confidence, good):.3f}"
        upper.plot(bins.confidence, bins.good, marker="o", label=label)
        lower.step(bins.confidence, bins.count, where="mid")
    upper.set(ylabel="share with IoU above 0.5", ylim=(-0.02, 1.02))
    lower.set(xlabel="confidence", ylabel="samples", xlim=(0, 1), yscale="log")
    upper.legend(fontsize="small")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
