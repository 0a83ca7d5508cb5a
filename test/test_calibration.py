"""Confidences are probabilities: the features, the fit, and what is said of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from recordings import write_recording
from safetensors.torch import load_file

from ckd_tracker_ros import boxes
from ckd_tracker_ros.calibration import FEATURES, Calibration, features, probability
from ckd_tracker_ros.evaluation import confidence, reliability
from ckd_tracker_ros.network import checkpoint
from ckd_tracker_ros.sequences import SequenceError
from ckd_tracker_ros.synthetic import Scene, SceneConfig
from ckd_tracker_ros.tracker import Tracker


def scores(peak: float = 0.8, second: float = 0.1) -> tuple[float, float]:
    return peak, second


def drawn(n: int, weights: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Features and outcomes of which the truth is known."""
    rng = np.random.default_rng(0)
    rows = np.column_stack([np.ones(n), rng.normal(size=(n, len(weights) - 1))])
    return rows, rng.random(n) < probability(weights, rows)


def test_features_of_one_and_of_many():
    rows = features([0.5, 0.9], [0.5, 0.1])
    assert rows.shape == (2, len(FEATURES))
    np.testing.assert_allclose(rows, [(1, 0, 0), (1, np.log(9), -np.log(9))], atol=1e-12)
    np.testing.assert_array_equal(features(0.9, 0.1), rows[1])
    assert np.isfinite(features([0, 1], [0, 1])).all()


def test_confidence_weighs_the_evidence():
    calibration = Calibration((-0.5, 1.0, -0.5))
    assert calibration.confidence(*scores()) == pytest.approx(1 / (1 + np.exp(0.5 - np.log(4) - 0.5 * np.log(9))))
    assert calibration.confidence(*scores(second=0.7)) < calibration.confidence(*scores())
    assert calibration.confidence(*scores(peak=0.4)) < calibration.confidence(*scores())


@pytest.mark.parametrize("weights", [(), (1.0,), (0.0, 1.0, float("nan"))])
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
    assert (lost, recover) == (pytest.approx(0.525), pytest.approx(0.54))
    apart = reliability.thresholds(np.concatenate([hits, misses / 2]), iou)
    assert apart.recover == apart.lost == pytest.approx(0.525)
    assert reliability.thresholds(np.concatenate([hits, misses + 0.5]), iou).recover == pytest.approx(0.75)
    with pytest.raises(reliability.FitError, match="0 misses"):
        reliability.thresholds(hits, np.full(101, 0.8))


def test_plot_is_written(tmp_path):
    rows, good = drawn(500, (0.0, 1.0))
    reliability.plot(tmp_path / "new" / "plot.png", [("raw", probability((0, 1), rows), good)])
    assert (tmp_path / "new" / "plot.png").read_bytes().startswith(b"\x89PNG")


# ---- from a model to a calibrated model


def clips_of(folder: Path, spoilt: dict | None = None) -> tuple[Path, Path]:
    """Two labelled clips of six frames, and the folder of their labels."""
    for name in ("one", "two"):
        truth = np.loadtxt(write_recording(folder / "clips" / name, 6, 8) / "groundtruth.txt", delimiter=",")
        rows = [*truth[1:5].tolist(), None]
        (folder / "labels").mkdir(exist_ok=True)
        label = {"kind": "thing", "first_frame": 1, "boxes_xywh": rows}
        (folder / "labels" / f"{name}.json").write_text(json.dumps(spoilt or {"body": label, "far": label}))
    return folder / "clips", folder / "labels"


def samples_of(n: int) -> list[confidence.Sample]:
    """Steps of which the truth is known: a high peak is a hit, more often than not."""
    rng = np.random.default_rng(0)
    peaks = rng.uniform(0.1, 0.9, n)
    hits = rng.random(n) < probability((0.5, 2.0), features(peaks, 0.1)[:, :2])
    return [
        confidence.Sample("scenes", f"video_{i % 10}", "body", i, 2, peak, peak, peak, 0.1, 9.0, 8.0, 8.0, 0.8 * hit)
        for i, (peak, hit) in enumerate(zip(peaks.tolist(), hits.tolist()))
    ]


def command(capsys, *arguments: object) -> str:
    """What a run prints."""
    confidence.main([str(argument) for argument in arguments])
    return capsys.readouterr().out


def test_a_labelled_clip_is_followed_as_the_tracker_does(tmp_path, tiny_tracker):
    cases = list(confidence.clip_cases(*clips_of(tmp_path), ["two"]))
    assert [(case.video, case.target, case.cameras) for case in cases] == [
        ("two", "body", ("rgb", "thermal")), ("two", "body", ("rgb",)),
        ("two", "far", ("rgb", "thermal")), ("two", "far", ("thermal",)),
    ]  # fmt: skip
    samples = list(confidence.follow(tiny_tracker, cases[0]))
    sequence = cases[0].open()
    state = tiny_tracker.start(sequence.frame(1), sequence.boxes[0])
    for sample in samples[:3]:
        state, estimate = tiny_tracker.step(state, sequence.frame(sample.frame))
        assert (sample.peak, sample.second_peak, sample.cameras) == (estimate.peak, estimate.second_peak, 2)
        assert sample.iou == boxes.iou(estimate.box, sequence.boxes[sample.frame - 1])
    assert [sample.frame for sample in samples] == [2, 3, 4, 5]
    assert samples[3].iou == 0, "the target is not there"
    assert next(iter(confidence.follow(tiny_tracker, cases[3]))).cameras == 1


def test_each_target_of_a_clip_is_looked_at_in_every_way(tmp_path):
    clips = list(confidence.clip_cases(*clips_of(tmp_path), [], "thing"))
    views = list(confidence.view_cases(clips))
    assert len(views) == 4 * len(confidence.VIEWS)  # two targets in two clips, each counted once
    assert {case.video for case in views} == {"one", "two"}, "a view is left out together with its clip"
    assert {case.cameras for case in views} == {("rgb", "thermal"), ("rgb",), ("thermal",)}
    first, second = (case.open() for case in views[:2])
    assert len(first) > 100 and not np.array_equal(first.boxes[:50], second.boxes[:50])
    assert not list(confidence.clip_cases(*clips_of(tmp_path / "again"), [], "person"))


def test_scenes_are_the_same_each_time_and_some_have_one_camera():
    first, second = (list(confidence.scene_cases(4)) for _ in range(2))
    assert [case.cameras for case in first] == [("rgb", "thermal"), ("rgb", "thermal"), ("rgb",), ("thermal",)]
    np.testing.assert_array_equal(first[1].open().boxes, second[1].open().boxes)
    assert len({case.video for case in first}) == 4


def test_samples_come_back_from_their_file(tmp_path):
    samples = samples_of(5)
    confidence.write_samples(tmp_path / "new" / "samples.csv", samples)
    assert confidence.read_samples(tmp_path / "new" / "samples.csv") == samples
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="other.csv is no table of group, video"):
        confidence.read_samples(tmp_path / "other.csv")


def test_a_model_gets_its_calibration_and_keeps_its_weights(tmp_path, tiny_checkpoint, capsys):
    confidence.write_samples(tmp_path / "samples.csv", samples_of(2000))
    model = tmp_path / "calibrated.safetensors"
    text = command(
        capsys, "--model", tiny_checkpoint, "--samples", tmp_path / "samples.csv", "--results", tmp_path,
        "--write", model,
    )  # fmt: skip
    assert "lost.confidence" in text and (tmp_path / "reliability.png").is_file()
    before, after = (load_file(path) for path in (tiny_checkpoint, model))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    (old, source), (new, provenance) = (checkpoint.read_metadata(path) for path in (tiny_checkpoint, model))
    assert new == replace(old, calibration=new.calibration) and old.calibration is None
    assert provenance.items() > source.items()
    summary = provenance["calibration"]
    assert (summary["samples"], summary["videos"]) == (2000, 10)
    assert summary["ece"] < 0.05 and summary["auroc"] > 0.7
    assert 0 < summary["lost_confidence"] <= summary["lost_recover"] < 1

    raw, calibrated = (Tracker.from_checkpoint(path, device="cpu") for path in (tiny_checkpoint, model))
    scene = Scene(SceneConfig(width=160, height=120, frames=2, size=(30.0, 40.0)), seed=4)
    estimates = [
        tracker.step(tracker.start(scene.frame(0), scene.boxes(0)[0]), scene.frame(1))[1]
        for tracker in (raw, calibrated)
    ]
    assert estimates[0].confidence == estimates[0].peak == estimates[1].peak
    found = Calibration(new.calibration).confidence(estimates[0].peak, estimates[0].second_peak)
    assert estimates[1].confidence == found != estimates[0].confidence
    np.testing.assert_array_equal(estimates[0].box, estimates[1].box)


def test_from_recordings_to_samples_without_a_fit(tmp_path, tiny_checkpoint, capsys):
    write_recording(tmp_path / "data" / "one", 4, 8)
    out = tmp_path / "out"
    text = command(
        capsys, "--model", tiny_checkpoint, "--device", "cpu", "--results", out, "--evaluate", tmp_path / "data"
    )
    samples = confidence.read_samples(out / "samples.csv")
    assert [sample.frame for sample in samples] == [1, 2, 3]
    assert "calibration (" not in text and (out / "reliability.png").is_file()


def test_every_twentieth_drone_video(tmp_path):
    records = []
    for number in range(20):
        recording = write_recording(tmp_path / f"video_{number:02}", 2, 8) if number == 19 else tmp_path
        for frame in range(2):
            file = f"{recording.name}/infrared/{frame:06}.png"
            records.append({"file": file, "boxes_xywh": [[50 + frame, 40, 30, 30]], "sequence": f"v{number:02}"})
    (tmp_path / "annotations.json").write_text(json.dumps(records))
    (case,) = confidence.drone_cases(tmp_path)
    sequence = case.open()
    assert (case.video, case.cameras, len(sequence)) == ("v19", ("thermal",), 2)
    np.testing.assert_array_equal(sequence.boxes, [[50, 40, 30, 30], [51, 40, 30, 30]])
    assert sequence.frame(1).present == (False, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--clips", "here"), "go together"),
        (("--views",), "--views needs --clips"),
        (("--model", "nonesuch"), "no model 'nonesuch'"),
        (("--samples", "nowhere.csv"), "nowhere.csv"),
        (("--evaluate", "data", "--write", "model"), "only judges"),
        (("--drones", "nowhere"), "nowhere"),
        (("--clips", "CLIPS", "--labels", "LABELS", "--only", "three"), "no clip 'three'; it has: one, two"),
        (("--clips", "CLIPS", "--labels", "nowhere"), "first_frame, boxes_xywh"),
    ],
)
def test_wrong_options_end_with_one_line(tmp_path, tiny_checkpoint, capsys, arguments, words):
    clips, labels = clips_of(tmp_path)
    places = {"CLIPS": clips, "LABELS": labels}
    arguments = [str(places.get(argument, argument)) for argument in arguments]
    with pytest.raises(SystemExit) as end:
        confidence.main(["--model", str(tiny_checkpoint), "--results", str(tmp_path), "--scenes", "0", *arguments])
    assert end.value.code == 2
    assert words in capsys.readouterr().err


def test_spoilt_labels_are_named(tmp_path):
    with pytest.raises(SequenceError, match=r"labels cannot be used: .*expected: clip -> target"):
        list(confidence.clip_cases(*clips_of(tmp_path, {"body": {"boxes": []}}), []))
