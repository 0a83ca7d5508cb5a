"""The published numbers: against the package `rgbt` as an independent implementation, and against known values."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from ckd_tracker_ros.boxes import iou
from ckd_tracker_ros.evaluation.metrics import PROTOCOLS, frame_values, overlap, summarize

rgbt = pytest.importorskip("rgbt", reason="the oracle of the metrics: pip install rgbt (extra `test`)")

NAMES = {"lasher": "LasHeR", "rgbt234": "RGBT234", "rgbt210": "RGBT210", "gtot": "GTOT"}
SHORT = 5  # of the shortest sequences; the known values take all sequences


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
    return list(dict.fromkeys([*by_length[:SHORT], *absent[:2], names[0]]))


def followed(truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A tracker of medium skill: follows, drifts, changes size, in whole pixels and in fractions."""
    drift = np.cumsum(rng.normal(0, 1.5, truth.shape), axis=0) * [1, 1, 0.2, 0.2]
    return truth + np.where(rng.random((len(truth), 1)) < 0.3, 0, drift)


def zeros_and_negatives(truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    result = followed(truth, rng)
    rows = rng.random(len(truth)) < 0.4
    result[rows, 2:] = rng.integers(-30, 2, (rows.sum(), 2))
    return result


RESULTS = {
    "the truth": lambda truth, rng: truth.copy(),
    "random": lambda truth, rng: rng.uniform(-50, 600, truth.shape),
    "a tracker": followed,
    "steps of a twentieth": lambda truth, rng: truth + truth[:, [2, 3, 2, 3]] * rng.integers(-8, 9, truth.shape) / 20,
    "constant": lambda truth, rng: np.tile(truth[0], (len(truth), 1)),
    "one point": lambda truth, rng: np.zeros(truth.shape),
    "zeros and negatives": zeros_and_negatives,
    "off by 5000": lambda truth, rng: truth + [5000, 5000, 0, 0],
    "halves": lambda truth, rng: truth + rng.integers(-6, 7, truth.shape) / 2,
    "too long": lambda truth, rng: np.vstack([followed(truth, rng), truth[:5]]),
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


@pytest.mark.parametrize("kind", ["rgbt234", "rgbt210", "gtot"])
def test_rows_that_a_short_result_lacks_do_not_count(kind, tmp_path):
    rng = np.random.default_rng(3)
    results = {name: followed(truths_of(kind, name)[0].astype(float), rng)[:20] for name in some_sequences(kind)}
    assert ours(kind, results) == pytest.approx(theirs(kind, results, tmp_path), abs=1e-6)


def test_lasher_takes_no_short_result():
    name = some_sequences("lasher")[0]
    truth = truths_of("lasher", name)[0]
    with pytest.raises(ValueError, match=f"a result of 7 rows for a truth of {len(truth)}"):
        frame_values(PROTOCOLS["lasher"], truth[:7], [truth])


def every(kind: str, shift: float = 0) -> dict[str, float]:
    return ours(
        kind, {name: truths_of(kind, name)[0] + [shift, shift, 0, 0] for name in map(str, oracle(kind).seqs_name)}
    )


@pytest.mark.parametrize(
    ("kind", "shift", "known"),
    [
        ("lasher", 0, {"PR": 1.0, "NPR": 1.0, "SR": 0.9471}),
        ("lasher", 5000, {"PR": 0.0093, "SR": 0.0036}),
        ("rgbt234", 0, {"MPR": 1.0, "MSR": 0.9524}),
        ("gtot", 0, {"MPR": 1.0, "MSR": 0.975}),
    ],
)
def test_known_values(kind, shift, known):
    numbers = every(kind, shift)
    assert {name: numbers[name] for name in known} == pytest.approx(known, abs=5e-5)


def test_overlap_is_that_of_the_project():
    rng = np.random.default_rng(1)
    a, b = (np.float32(rng.uniform(0, 80, (200, 4))) for _ in range(2))
    assert overlap(a, b) == pytest.approx(iou(a, b), abs=1e-5)


TRUTH = np.array([[10, 10, 20, 20], [12, 10, 20, 20], [0, 0, 0, 0], [np.nan] * 4, [30, 40, 20, 20]], float)


def scores(kind: str, result: np.ndarray, *truths: np.ndarray) -> dict[str, float]:
    protocol = PROTOCOLS[kind]
    return {name: score.number for name, score in summarize(protocol, [frame_values(protocol, result, truths)]).items()}


def test_plain_counts_what_can_be_compared_behind_the_start():
    result = np.array([[500, 500, 5, 5], [12, 10, 20, 20], [1, 2, 3, 4], [1, 2, 3, 4], [40, 40, 20, 20]], float)
    assert scores("plain", result, TRUTH) == pytest.approx({"mIoU": (1 + 1 / 3) / 2, "PR": 1.0})
    assert np.isnan(scores("plain", result[2:4], TRUTH[2:4])["mIoU"])
    nothing, something = (frame_values(PROTOCOLS["plain"], result[rows], [TRUTH[rows]]) for rows in ([0, 2], [0, 1]))
    assert summarize(PROTOCOLS["plain"], [nothing, something])["mIoU"].number == 1


def test_vtuav_takes_the_better_camera_and_leaves_out_where_neither_sees_the_target():
    infrared = np.array([[10, 10, 20, 20], [90, 10, 20, 20], [5, 5, 10, 10], [0, 0, 0, 0], [0, 0, 0, 0]], float)
    result = np.array([[10, 10, 20, 20], [90, 10, 20, 20], [5, 5, 10, 10], [1, 1, 9, 9], [500, 0, 20, 20]], float)
    perfect = 20 / 21  # no overlap is above the last threshold
    assert scores("vtuav", result, TRUTH, infrared) == pytest.approx({"MPR": 3 / 4, "MSR": 3 / 4 * perfect})


@pytest.mark.parametrize(
    ("result", "truths", "message"),
    [
        (np.full((5, 4), np.nan), [TRUTH], "finite"),
        (np.zeros((5, 3)), [TRUTH], r"shape \(5, 3\)"),
        (np.zeros((4, 4)), [TRUTH], "4 rows for a truth of 5"),
        (np.zeros((5, 4)), [], r"0 truth\(s\)"),
    ],
)
def test_what_cannot_be_compared_is_refused(result, truths, message):
    with pytest.raises(ValueError, match=message):
        frame_values(PROTOCOLS["plain"], result, truths)
