"""Confidences are probabilities: the features, the fit, and what is said of them."""

from __future__ import annotations

import numpy as np
import pytest

from ckd_tracker_ros.calibration import FEATURES, Calibration, features, probability
from ckd_tracker_ros.evaluation import reliability
from ckd_tracker_ros.frame import Estimate


def estimate(peak=0.8, windowed=0.8, second=0.1, present=(True, True)) -> Estimate:
    return Estimate(np.array([10.0, 10.0, 20.0, 20.0]), peak, peak, windowed, second, 30.0, present)


def drawn(n: int, weights: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Features and outcomes of which the truth is known."""
    rng = np.random.default_rng(0)
    rows = np.column_stack([np.ones(n), rng.normal(size=(n, len(weights) - 1))])
    return rows, rng.random(n) < probability(weights, rows)


def test_features_of_one_and_of_many():
    rows = features([0.5, 0.9], [0.5, 0.09], [0.5, 0.1], [2, 1])
    assert rows.shape == (2, len(FEATURES))
    np.testing.assert_allclose(rows[0], (1, 0, 0, 0, 0), atol=1e-12)
    np.testing.assert_allclose(rows[1], (1, np.log(9), -np.log(9), np.log(0.1), 1))
    np.testing.assert_array_equal(features(0.9, 0.09, 0.1, 1), rows[1])
    assert np.isfinite(features([0, 1], [0, 1], [0, 1], 2)).all()


def test_confidence_weighs_the_evidence():
    calibration = Calibration((-0.5, 1.0, -0.5, 0.5, -1.0))
    both, one = (calibration.confidence(estimate(present=present)) for present in ((True, True), (False, True)))
    assert both == pytest.approx(1 / (1 + np.exp(0.5 - np.log(4) - 0.5 * np.log(9))))
    assert one < both
    assert calibration.confidence(estimate(second=0.7)) < both > calibration.confidence(estimate(windowed=0.2))


@pytest.mark.parametrize("weights", [(), (1.0,), (0.0, 1.0, 2.0, 3.0, float("nan"))])
def test_wrong_weights_are_refused(weights):
    with pytest.raises(ValueError, match=f"{len(FEATURES)} finite numbers, for constant, peak"):
        Calibration(weights)


def test_fit_finds_the_truth():
    truth = (-0.4, 1.5, -0.8, 0.0)
    rows, good = drawn(40_000, truth)
    np.testing.assert_allclose(reliability.fit(rows, good), truth, atol=0.06)


def test_fit_stays_finite_where_nothing_holds_it():
    rows = np.column_stack([np.ones(6), [-3, -2, -1, 1, 2, 3], np.zeros(6)])
    weights = reliability.fit(rows, np.arange(6) > 2)  # told apart without an error; one column says nothing
    assert np.isfinite(weights).all() and weights[1] > 0.5 and weights[2] == 0


@pytest.mark.parametrize(("good", "words"), [([True] * 3, "all of 3"), ([False] * 3, "none of 3"), ([], "none of 0")])
def test_fit_needs_both_kinds(good, words):
    with pytest.raises(reliability.FitError, match=words):
        reliability.fit(np.ones((len(good), 2)), np.array(good, bool))


def test_no_video_judges_itself():
    rows = np.ones((40, 1))
    good = np.array([True] * 10 + [True, False] * 15)
    confidence = reliability.left_out(rows, good, np.repeat(["a", "b", "c"], (10, 10, 20)))
    np.testing.assert_allclose(confidence[:10], 0.5, atol=1e-6)  # from the others, not from its own hits
    with pytest.raises(reliability.FitError, match="needs two"):
        reliability.left_out(rows, good, np.repeat("a", 40))


def test_calibration_error_by_hand():
    confidence, good = np.array([0.05, 0.05, 0.95, 0.95]), np.array([False, False, True, False])
    assert reliability.calibration_error(confidence, good) == pytest.approx((0.05 * 2 + 0.45 * 2) / 4)
    assert reliability.calibration_error(confidence, good, adaptive=True) == pytest.approx((0.05 * 3 + 0.95) / 4)
    assert reliability.calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0
    bins = reliability.bins_of(confidence, good)
    assert bins.count.tolist() == [2, 2] and bins.good.tolist() == [0, 0.5]


def test_true_probabilities_are_calibrated():
    weights = (0.3, 1.2)
    rows, good = drawn(50_000, weights)
    true, bold = probability(weights, rows), probability((0.9, 3.6), rows)
    assert reliability.calibration_error(true, good) < 0.01 < 0.05 < reliability.calibration_error(bold, good)
    assert reliability.auroc(true, good) == pytest.approx(reliability.auroc(bold, good))


@pytest.mark.parametrize(
    ("confidence", "good", "expected"),
    [
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], 1.0),
        ([0.1, 0.2, 0.8, 0.9], [1, 1, 0, 0], 0.0),
        ([0.5, 0.5, 0.5], [0, 1, 0], 0.5),
        ([0.1, 0.5, 0.5, 0.9], [0, 1, 0, 1], 3.5 / 4),
    ],
)
def test_auroc_by_hand(confidence, good, expected):
    assert reliability.auroc(np.array(confidence), np.array(good, bool)) == pytest.approx(expected)


def test_auroc_of_one_kind_is_not_a_number():
    assert np.isnan(reliability.auroc(np.array([0.1, 0.9]), np.array([True, True])))


def test_thresholds_lie_between_misses_and_hits():
    hits, misses = np.linspace(0.5, 1, 101), np.linspace(0, 0.6, 101)
    confidence, iou = np.concatenate([hits, misses]), np.repeat([0.8, 0.0], 101)
    lost, recover = reliability.thresholds(confidence, iou)
    assert (lost, recover) == (pytest.approx(0.525), pytest.approx(0.57))
    apart = reliability.thresholds(np.concatenate([hits, misses / 2]), iou)
    assert apart.recover == apart.lost == pytest.approx(0.525)
    assert reliability.thresholds(np.concatenate([hits, misses + 0.4]), iou).recover == pytest.approx(0.75)
    with pytest.raises(reliability.FitError, match="0 misses"):
        reliability.thresholds(hits, np.full(101, 0.8))


def test_plot_is_written(tmp_path):
    rows, good = drawn(500, (0.0, 1.0))
    reliability.plot(tmp_path / "new" / "plot.png", [("raw", probability((0, 1), rows), good)])
    assert (tmp_path / "new" / "plot.png").read_bytes().startswith(b"\x89PNG")
