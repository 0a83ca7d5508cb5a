"""From the evidence of a step to a probability: how likely its box and the target have an IoU above 0.5.

Weights are fitted on sequences that the network was not trained on (`evaluation.confidence`), and travel in the weight
file. Without them the confidence of an estimate is its raw peak.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ckd_tracker_ros.frame import Estimate

FEATURES = ("constant", "peak", "rival", "shift", "one_camera")
"""What is weighed, see `features`."""

_CLIP = 1e-3  # scores nearer to 0 or 1 say no more than this


def features(peak: ArrayLike, windowed_peak: ArrayLike, second_peak: ArrayLike, cameras: ArrayLike) -> NDArray:
    """The evidence of estimates, see `frame.Estimate`; `cameras` is the number of those used.

    Returns:
        (..., 5): 1; logit of the peak; logit of the second peak; logarithm of the Hann window at the winner, 0 in the
        middle of the crop and below that elsewhere; 1 where only one camera was used, else 0.
    """
    peak, windowed, second = (np.asarray(value, np.float64) for value in (peak, windowed_peak, second_peak))
    shift = np.log(np.clip(windowed / np.maximum(peak, 1e-12), _CLIP, 1))
    columns = (np.ones_like(peak), _logit(peak), _logit(second), shift, np.asarray(cameras) < 2)
    return np.stack(np.broadcast_arrays(*columns), axis=-1).astype(np.float64)


def _logit(score: NDArray) -> NDArray:
    score = np.clip(score, _CLIP, 1 - _CLIP)
    return np.log(score / (1 - score))


def probability(weights: ArrayLike, rows: ArrayLike) -> NDArray[np.float64]:
    """Logistic model: (F,) weights and (..., F) features -> (...) 0..1."""
    return 1 / (1 + np.exp(-np.clip(np.asarray(rows) @ np.asarray(weights), -50, 50)))


@dataclass(frozen=True)
class Calibration:
    """What turns the evidence of an estimate into a confidence.

    Attributes:
        weights: one for each of `FEATURES`.

    Raises:
        ValueError: not as many weights as features, or one that is not finite.
    """

    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.weights) != len(FEATURES) or not np.isfinite(self.weights).all():
            raise ValueError(
                f"calibration {self.weights}; expected {len(FEATURES)} finite numbers, for {', '.join(FEATURES)}"
            )

    def confidence(self, estimate: Estimate) -> float:
        """Probability, 0..1, that the estimate's box and the target have an IoU above 0.5."""
        row = features(estimate.peak, estimate.windowed_peak, estimate.second_peak, sum(estimate.present))
        return float(probability(self.weights, row))
