"""From the evidence of a step to a probability: how likely its box and the target have an IoU above 0.5.

Weights are fitted on sequences that the network was not trained on (`evaluation.confidence`), and travel in the weight
file. Without them the confidence of an estimate is its raw peak.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FEATURES = ("constant", "peak", "rival")
"""What is weighed, see `features`. More of an estimate was tried (the winner's place in the crop, the rival's distance,
the number of cameras) and changed nothing on videos that the fit had not seen."""

_CLIP = 1e-3  # scores nearer to 0 or 1 say no more than this


def features(peak: ArrayLike, second_peak: ArrayLike) -> NDArray[np.float64]:
    """The evidence of estimates, see `frame.Estimate`: (...) scores -> (..., 3) of 1, logit of the peak and logit of
    the second peak."""
    columns = (np.ones(np.shape(peak)), logit(peak), logit(second_peak))
    return np.stack(np.broadcast_arrays(*columns), axis=-1)


def logit(score: ArrayLike) -> NDArray[np.float64]:
    """Of scores 0..1; those near 0 or 1 say no more than `_CLIP`."""
    score = np.clip(np.asarray(score, np.float64), _CLIP, 1 - _CLIP)
    return np.log(score / (1 - score))


def doubted(score: ArrayLike, doubt: ArrayLike) -> NDArray[np.float64]:
    """Scores 0..1 with logits that are lower by doubts, higher by those below 0; unchanged without them."""
    return np.where(np.asarray(doubt) != 0, 1 / (1 + np.exp(doubt - logit(score))), score)


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

    def confidence(self, peak: float, second_peak: float) -> float:
        """Probability, 0..1, that a box with this evidence and the target have an IoU above 0.5."""
        return float(probability(self.weights, features(peak, second_peak)))
