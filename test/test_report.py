"""`ckd-tracker report` on generated data sets: numbers, the forms that results and attributes come in, refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_cli import refused, run

FRAMES = 6
BOX = np.array([20.0, 30, 20, 10])
LEFT = np.tile(BOX, (FRAMES, 1))  # the truth of the sequence `left`
RIGHT = LEFT + np.arange(FRAMES)[:, None] * [2, 0, 0, 0]
HALF = [0, 5, 0, 0]  # a shift by half the height: IoU 1/3, 5 px
TRUTHS = {"left": LEFT, "right": RIGHT}


def write_sequence(folder: Path, truth: np.ndarray, kind: str = "plain") -> Path:
    """A sequence of grey images in the layout of a benchmark."""
    names = {"gtot": ("v", "i"), "plain": ("visible", "infrared"), "lasher": ("visible", "infrared")}[kind]
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(FRAMES):
            cv2.imwrite(str(folder / name / f"{number:03d}.png"), np.full((60, 90), 40, np.uint8))
    if kind == "plain":
        np.savetxt(folder / "groundtruth.txt", truth, "%g", ",")
    elif kind == "lasher":
        for name in ("visible", "infrared"):
            np.savetxt(folder / f"{name}.txt", truth, "%d", ",")
    else:
        corners = np.concatenate([truth[:, :2], truth[:, :2] + truth[:, 2:]], axis=1)
        np.savetxt(folder / "groundTruth_v.txt", corners, "%d", " ")
        np.savetxt(folder / "groundTruth_i.txt", corners + [100, 0, 100, 0], "%d", " ")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name, truth in TRUTHS.items():
        write_sequence(folder / name, truth)
    return folder


def write_results(folder: Path, shift=(0, 0, 0, 0), delimiter: str = ",") -> Path:
    folder.mkdir(parents=True)
    for name, truth in TRUTHS.items():
        np.savetxt(folder / f"{name}.txt", truth + shift, "%.3f", delimiter)
    return folder


def report(*arguments: object, out: Path) -> dict:
    result = run("report", *arguments, "--out", out)
    assert result.exit_code == 0, result.output
    content = json.loads((out / "report.json").read_text())
    return content | {"printed": result.output}


def test_trackers_side_by_side(data, tmp_path):
    good = write_results(tmp_path / "good")
    poor = write_results(tmp_path / "poor", HALF, "\t")
    (poor / "run.json").write_text('{"model": "poor"}')
    content = report(good, poor, "--data", data, out=tmp_path / "report")
    assert content["kind"] == "plain" and content["data"] == data.name
    trackers = content["trackers"]
    assert trackers["good"]["scores"] == {"mIoU": 1, "PR": 1}
    assert trackers["poor"]["scores"]["mIoU"] == pytest.approx(1 / 3)
    assert trackers["poor"]["sequences"]["left"]["mIoU"] == pytest.approx(1 / 3)
    assert trackers["poor"]["run"] == {"model": "poor"} and trackers["good"]["run"] is None
    curve = trackers["poor"]["curves"]["PR"]
    assert curve["thresholds"][:6] == [0, 1, 2, 3, 4, 5] and curve["shares"][4:6] == [0, 1]
    for shown in ("good", "poor", "1.000", "0.333", "left", "right", "mIoU by sequence"):
        assert shown in content["printed"]


def test_plots_are_pictures_that_differ_by_metric(data, tmp_path):
    report(write_results(tmp_path / "it", HALF), "--data", data, out=tmp_path / "report")
    pictures = [cv2.imread(str(tmp_path / "report" / f"{metric}.png")) for metric in ("mIoU", "PR")]
    assert all(picture.shape[0] > 400 and picture.std() > 5 for picture in pictures)
    assert (pictures[0] != pictures[1]).any()


def test_without_plots_there_is_no_matplotlib_and_never_torch(data, tmp_path):
    results = write_results(tmp_path / "it")
    arguments = ["report", str(results), "--data", str(data), "--out", str(tmp_path / "report"), "--no-plots"]
    code = (
        f"import sys\nfrom ckd_tracker_ros import cli\ncli.app({arguments!r}, standalone_mode=False)\n"
        "heavy = {'torch', 'matplotlib', 'rclpy'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [file.name for file in (tmp_path / "report").iterdir()] == ["report.json"]


def test_names_choose_sequences(data, tmp_path):
    results = write_results(tmp_path / "it")
    (results / "left.txt").unlink()
    listed = tmp_path / "some.txt"
    listed.write_text("right\n\n")
    for names in ("right", listed, "right," * 200):
        content = report(results, "--data", data, "--names", names, "--no-plots", out=tmp_path / "report")
        assert list(content["trackers"]["it"]["sequences"]) == ["right"]


def test_folders_of_one_name_are_told_apart(data, tmp_path):
    folders = [write_results(tmp_path / place / "results") for place in ("ours", "theirs")]
    content = report(*folders, "--data", data, "--no-plots", out=tmp_path / "report")
    assert set(content["trackers"]) == {"ours/results", "theirs/results"}


@pytest.fixture
def benchmark(tmp_path):
    """A data set of two sequences in the layout of LasHeR or GTOT."""

    def make(kind: str, name: str = "") -> Path:
        folder = tmp_path / (name or kind)
        for sequence, truth in TRUTHS.items():
            write_sequence(folder / sequence, truth, kind)
        return folder

    return make


def test_lasher_by_its_own_metric_and_attributes(benchmark, tmp_path):
    folder = benchmark("lasher")
    (folder / "attributes").mkdir()
    (folder / "attributes" / "Attributes_order.txt").write_text("NO, PO, TO")
    for name, flags in {"left": "1,0,0", "right": "1,1,0"}.items():
        (folder / "attributes" / f"{name}.txt").write_text(flags + "\n")
    results = write_results(tmp_path / "it", HALF)
    np.savetxt(results / "left.txt", LEFT, "%d", " ")
    content = report(results, "--data", folder, "--no-plots", out=tmp_path / "report")
    assert content["kind"] == "lasher"
    # Whole pixels, the first row given; 20/21: no overlap is above the last threshold.
    third = ((FRAMES - 1) * 7 + 20) / FRAMES / 21
    expected = {"PR": 1.0, "NPR": 0.5 * (1 + 1 / FRAMES), "SR": (20 / 21 + third) / 2}
    tracker = content["trackers"]["it"]
    assert tracker["scores"] == pytest.approx(expected)
    assert set(tracker["attributes"]) == {"NO", "PO"}
    assert tracker["attributes"]["NO"] == tracker["scores"]
    assert tracker["attributes"]["PO"] == tracker["sequences"]["right"]
    assert "PR / SR by attribute" in content["printed"]


def test_gtot_takes_the_better_of_two_truths(benchmark, tmp_path):
    content = report(
        write_results(tmp_path / "it", [100, 0, 0, 0]), "--data", benchmark("gtot"), out=tmp_path / "report"
    )
    assert content["trackers"]["it"]["scores"] == pytest.approx({"MPR": 1, "MSR": 0.975})
    assert {file.name for file in (tmp_path / "report").iterdir()} == {"report.json", "MPR.png", "MSR.png"}


def test_vtuav_has_a_row_for_every_tenth_frame(tmp_path):
    folder, truth = tmp_path / "data" / "drone", np.array([[10, 10, 8, 8], [30, 10, 8, 8], [50, 10, 8, 8]], float)
    for name in ("rgb", "ir"):
        (folder / name).mkdir(parents=True)
        for number in range(25):
            cv2.imwrite(str(folder / name / f"{number:06d}.jpg"), np.full((40, 70), 90, np.uint8))
        np.savetxt(folder / f"{name}.txt", truth, "%d", " ")
    frames = np.full((25, 4), 500.0)
    frames[[0, 10]] = truth[:2]  # the third is lost
    scores = []
    for name, rows in (("all", frames), ("annotated", frames[::10]), ("too few", frames[:15])):
        (tmp_path / name).mkdir()
        np.savetxt(tmp_path / name / "drone.txt", rows, "%d", ",")
    for name in ("all", "annotated"):
        content = report(tmp_path / name, "--data", tmp_path / "data", "--no-plots", out=tmp_path / "report")
        scores.append(content["trackers"][name]["scores"])
    assert scores[0] == scores[1] == pytest.approx({"MPR": 2 / 3, "MSR": 2 / 3 * 20 / 21})
    told = refused("report", tmp_path / "too few", "--data", tmp_path / "data", "--out", tmp_path / "report")
    assert "has 15 rows; expected for drone: 3 (annotated frames) or 21 to 25 (frames)" in told


def test_attributes_in_files_of_their_own(benchmark, tmp_path):
    folder = benchmark("lasher", "RGBT234")
    (folder / "attr_txt").mkdir()
    (folder / "attr_txt" / "SequencesName.txt").write_text("right\r\nother\r\nleft\r\n")
    (folder / "attr_txt" / "LI.txt").write_text("0\r\n1\r\n1\r\n")
    content = report(write_results(tmp_path / "it"), "--data", folder, "--no-plots", out=tmp_path / "report")
    tracker = content["trackers"]["it"]
    assert content["kind"] == "rgbt234" and tracker["attributes"] == {"LI": tracker["sequences"]["left"]}


def test_a_layout_of_several_benchmarks_asks_which(benchmark, tmp_path):
    folder, results = benchmark("lasher", "some"), write_results(tmp_path / "it")
    told = refused("report", results, "--data", folder, "--out", tmp_path / "report")
    assert "say how to score: --kind lasher, rgbt234, rgbt210, gtot, vtuav, plain" in told
    for kind, metric in (("rgbt210", "PR"), ("rgbt234", "MPR"), ("plain", "mIoU")):
        content = report(results, "--data", folder, "--kind", kind, "--no-plots", out=tmp_path / "report")
        assert content["trackers"]["it"]["scores"][metric] == 1


def test_rgbt210_is_scored_with_its_initial_boxes_file(benchmark, tmp_path):
    folder, results = benchmark("lasher", "rgbt210"), write_results(tmp_path / "it", [50, 0, 0, 0])
    for name, truth in TRUTHS.items():
        np.savetxt(folder / name / "init.txt", truth + [50, 0, 0, 0], "%d", ",")
    content = report(results, "--data", folder, "--no-plots", out=tmp_path / "report")
    assert content["kind"] == "rgbt210" and content["trackers"]["it"]["scores"] == {"PR": 1, "SR": 20 / 21}


def test_a_benchmark_without_the_truth_it_is_scored_with_is_refused(benchmark, tmp_path):
    folder, results = benchmark("lasher"), write_results(tmp_path / "it")
    (folder / "left" / "infrared.txt").unlink()
    told = refused("report", results, "--data", folder, "--kind", "rgbt234", "--out", tmp_path / "report")
    assert "left has no visible and infrared truth, which rgbt234 is scored with" in told


def test_long_results_are_cut_only_where_the_benchmark_does(data, benchmark, tmp_path):
    results = write_results(tmp_path / "it")
    np.savetxt(results / "left.txt", np.vstack([LEFT, LEFT]), "%d", ",")
    content = report(results, "--data", benchmark("lasher"), "--no-plots", out=tmp_path / "report")
    assert content["trackers"]["it"]["scores"]["PR"] == 1
    told = refused("report", results, "--data", data, "--out", tmp_path / "report")
    assert f"left.txt has {2 * FRAMES} rows; expected for left: {FRAMES} (annotated frames)" in told


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "lacks 1 of 2 sequences: left.txt"),
        ("", "left.txt is empty"),
        ("1,2,3,4\n", f"left.txt has 1 rows; expected for left: {FRAMES} (annotated frames)"),
        ("1,2,3,4\n\n1,2,nan,4\n", "left.txt, line 3 is '1,2,nan,4'; expected: four finite numbers"),
        ("1,2,3,4\n1,2,3\n", "left.txt, line 2 is '1,2,3'"),
        ("1,2,3,4\nlost\n", "left.txt, line 2 is 'lost'"),
    ],
)
def test_results_that_cannot_be_scored_are_refused(data, tmp_path, text, message):
    results = write_results(tmp_path / "it")
    (results / "left.txt").unlink()
    if text is not None:
        (results / "left.txt").write_text(text)
    assert message in refused("report", results, "--data", data, "--out", tmp_path / "report")
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"left.txt": "0,1"}, "right.txt is missing"),
        ({"left.txt": "0,1", "right.txt": "1"}, "right.txt has 1 flags; expected: 2"),
        ({"left.txt": "0,1", "right.txt": "0,2"}, "right.txt holds '2'; expected: 0 and 1"),
        ({"SequencesName.txt": "left", "LI.txt": "0\n1"}, "LI.txt has 2 flags; expected: at most 1"),
    ],
)
def test_attributes_that_cannot_be_used_are_refused(benchmark, tmp_path, files, message):
    folder = benchmark("lasher")
    (folder / "attributes").mkdir()
    for name, text in {"Attributes_order.txt": "NO,PO", **files}.items():
        (folder / "attributes" / name).write_text(text)
    if "SequencesName.txt" in files:
        (folder / "attributes" / "Attributes_order.txt").unlink()
    assert message in refused("report", write_results(tmp_path / "it"), "--data", folder, "--out", tmp_path / "report")


def test_other_bad_requests_are_refused(data, tmp_path):
    results = write_results(tmp_path / "it")
    assert "--kind 'vot'; allowed: lasher" in refused("report", results, "--data", data, "--kind", "vot")
    assert "is no folder" in refused("report", tmp_path / "none", "--data", data, "--out", tmp_path / "report")
    told = refused("report", results, "--data", data, "--kind", "gtot", "--out", tmp_path / "report")
    assert "v/ and i/ with images" in told


def test_nothing_to_count_is_null(tmp_path):
    truth = LEFT.copy()
    truth[1:] = np.nan
    write_sequence(tmp_path / "data" / "left", truth)
    results = write_results(tmp_path / "it")
    content = report(results, "--data", tmp_path / "data", "--no-plots", out=tmp_path / "report")
    assert content["trackers"]["it"]["scores"] == {"mIoU": None, "PR": None}


def test_real_tracks_score_as_their_truth(shared, tmp_path):
    tracks = json.loads((shared / "data" / "m3svd" / "tracks.json").read_text())
    results = tmp_path / "truth"
    results.mkdir()
    for name, entry in tracks.items():
        np.savetxt(results / f"{name}.txt", entry["boxes_xywh"], "%.2f", ",")
    content = report(results, "--data", shared / "data" / "m3svd", "--no-plots", out=tmp_path / "report")
    assert set(content["trackers"]["truth"]["sequences"]) == set(tracks)
    assert content["trackers"]["truth"]["scores"]["mIoU"] == pytest.approx(1, abs=1e-3)
