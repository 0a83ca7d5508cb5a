"""The published numbers: against the package `rgbt` as an independent implementation, and against known values."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from ckd_tracker_ros.evaluation.metrics import PROTOCOLS, frame_values, overlap, summarize

rgbt = pytest.importorskip("rgbt", reason="the oracle of the metrics: pip install rgbt (extra `test`)")

NAMES = {"lasher": "LasHeR", "rgbt234": "RGBT234", "rgbt210": "RGBT210", "gtot": "GTOT"}
SEQUENCES = 12  # of each data set; the known values take all


@lru_cache
def oracle(kind: str):
    """The package's data set with the true boxes it brings; GTOT's corners as its manual says."""
    from rgbt import utils

    if kind == "gtot":
        utils.RGBT_start()
    try:
        return getattr(rgbt, NAMES[kind])()
    finally:
        utils.RGBT_end()


def truths_of(kind: str, sequence: str) -> list[np.ndarray]:
    truth = oracle(kind)[str(sequence)]
    return [np.array(boxes) for boxes in (truth.values() if isinstance(truth, dict) else [truth])]


def some_sequences(kind: str) -> list[str]:
    """Spread over the data set, the shortest and those with absent targets among them."""
    names = [str(name) for name in oracle(kind).seqs_name]
    by_length = sorted(names, key=lambda name: len(truths_of(kind, name)[0]))
    absent = [name for name in names if any((boxes <= 0).any() for boxes in truths_of(kind, name))]
    return list(dict.fromkeys([*by_length[: SEQUENCES // 2], *absent[:3], *names[:: len(names) // 3]]))


def noisy(truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A tracker of medium skill: follows, drifts, changes size, in whole pixels and in fractions."""
    drift = np.cumsum(rng.normal(0, 1.5, truth.shape), axis=0) * [1, 1, 0.2, 0.2]
    return truth + np.where(rng.random((len(truth), 1)) < 0.3, 0, drift)


def zeros_and_negatives(truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    result = noisy(truth, rng)
    rows = rng.random(len(truth)) < 0.4
    result[rows, 2:] = rng.integers(-30, 2, (rows.sum(), 2))
    return result


RESULTS = {
    "the truth": lambda truth, rng: truth.copy(),
    "random": lambda truth, rng: rng.uniform(-50, 600, truth.shape),
    "a tracker": noisy,
    "steps of a twentieth": lambda truth, rng: truth + truth[:, [2, 3, 2, 3]] * rng.integers(-8, 9, truth.shape) / 20,
    "constant": lambda truth, rng: np.tile(truth[0], (len(truth), 1)),
    "one point": lambda truth, rng: np.zeros(truth.shape),
    "zeros and negatives": zeros_and_negatives,
    "off by 5000": lambda truth, rng: truth + [5000, 5000, 0, 0],
    "halves": lambda truth, rng: truth + rng.integers(-6, 7, truth.shape) / 2,
    "too long": lambda truth, rng: np.vstack([noisy(truth, rng), truth[:5]]),
}


def theirs(kind: str, results: dict[str, np.ndarray], folder: Path) -> dict[str, float]:
    """The package's own numbers, from files."""
    for name, boxes in results.items():
        np.savetxt(folder / f"{name}.txt", boxes, "%.6f", ",")
    numbers = {}
    for metric in PROTOCOLS[kind].metrics:
        data_set = oracle(kind)
        data_set("it", str(folder), seqs=list(results))  # anew for each: the package writes into what it has loaded
        with np.errstate(divide="ignore", invalid="ignore"):
            numbers[metric] = float(getattr(data_set, metric)("it", seqs=list(results))[0])
    return numbers


def ours(kind: str, results: dict[str, np.ndarray]) -> dict[str, float]:
    protocol = PROTOCOLS[kind]
    values = [frame_values(protocol, boxes, truths_of(kind, name)) for name, boxes in results.items()]
    return {name: score.number for name, score in summarize(protocol, values).items()}


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("made", RESULTS)
def test_numbers_agree_with_the_oracle(kind, made, tmp_path):
    rng = np.random.default_rng(7)
    results = {name: RESULTS[made](truths_of(kind, name)[0].astype(float), rng) for name in some_sequences(kind)}
    results = {name: np.float32(boxes).round(6).astype(float) for name, boxes in results.items()}
    expected = theirs(kind, results, tmp_path)
    assert ours(kind, results) == pytest.approx(expected, abs=1e-6)
