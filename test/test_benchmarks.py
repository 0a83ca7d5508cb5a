"""The benchmarks run and say what they promise. What they measure is nobody's business here."""

from __future__ import annotations

import importlib
import json
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from ckd_tracker_ros.cli import app
from ckd_tracker_ros.engine import create, supported
from ckd_tracker_ros.evaluation import timing
from ckd_tracker_ros.evaluation.confidence import VIEWS
from ckd_tracker_ros.evaluation.speed import random_student
from ckd_tracker_ros.overlay import to_bgr
from ckd_tracker_ros.synthetic import Scene, SceneConfig
from ckd_tracker_ros.target import Status
from ckd_tracker_ros.tracker import Tracker

FOLDER = Path(__file__).parents[1] / "benchmarks"
LIMIT_S = 120
HOWS = ("absent", "black", "frozen")


@pytest.fixture
def benchmark(monkeypatch):
    """The module of that name in benchmarks/."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def invoke(module: ModuleType, *arguments: str | Path) -> Result:
    """Runs a benchmark in this process."""
    app = typer.Typer()
    app.command()(module.main)
    return CliRunner().invoke(app, [*map(str, arguments)])


def check_shape(content: dict, text: str) -> None:
    """What every benchmark writes and prints."""
    assert content["name"] in text
    assert {"CPU", "cores", "threads", "GPU", "used by others", "busy"} == set(content["machine"])
    assert {"python", "torch", "opencv", "onnxruntime", "rmw"} == set(content["versions"])
    for table in content["tables"]:
        assert table["title"] in " ".join(text.split())
        assert table["baseline"] and table["rows"]
        assert all(word in text for column in table["rows"][0] for word in column.split())


def run(tmp_path: Path, name: str, *arguments: str) -> list[dict]:
    """The rows of the only table of a benchmark that runs in a process of its own, and succeeds."""
    file = tmp_path / "result.json"
    command = [sys.executable, str(FOLDER / f"{name}.py"), *arguments, "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads(file.read_text())
    check_shape(content, done.stdout)
    (table,) = content["tables"]
    return table["rows"]


def test_bench_by_runner_targets_size_and_elimination(tmp_path, tiny_checkpoint):
    file = tmp_path / "result.json"
    command = [
        "bench", "--model", str(tiny_checkpoint), "--device", "cpu", "--targets", "1,2",
        "--sizes", "64x48,96x64", "--seconds", "0.1", "--json", str(file),
    ]  # fmt: skip
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    content = json.loads(file.read_text())
    check_shape(content, done.output)
    by_runner, by_targets, by_size, by_elimination = (table["rows"] for table in content["tables"])
    assert by_runner[0]["runner"] == "plain float32"
    assert [row["runner"].split()[1] for row in by_runner[1:]] == [*supported("cpu")]
    assert [row["targets"] for row in by_targets] == [1, 2]
    assert [row["image"] for row in by_size] == ["64x48", "96x64"]
    assert [row["elimination"] for row in by_elimination] == ["off", "on"]
    for baseline, column in (
        (by_targets[0], "of N steps"), (by_runner[0], "times as fast"), (by_size[0], "of 64x48"),
        (by_elimination[0], "of off"),
    ):  # fmt: skip
        assert baseline[column]["median"] == baseline[column]["low"] == baseline[column]["high"] == 1
    for row in (*by_runner, *by_targets, *by_size, *by_elimination):
        step = row["step [ms]"]
        assert 0 < step["low"] <= step["median"] <= step["high"]
        assert step["count"] >= 3
        assert all(0 < row[f"{part} [ms]"] <= step["high"] for part in ("crop", "network", "decode"))


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("bench_runners", ("--networks", "nonesuch"), "nonesuch"),
        ("bench_runners", ("--targets", "1,0"), "1,0"),
        ("bench_memory", ("--device", "toaster"), "toaster"),
        ("bench_node", ("--sizes", "640"), "640"),
        ("bench_reset", ("--network", "nonesuch"), "nonesuch"),
        ("precision", ("--data", "nowhere"), "nowhere"),
        ("run_all", ("--only", "runners,everything"), "everything"),
        ("faults", ("--only", "none,plague"), "plague"),
        ("faults", ("--only", "both stop", "--seconds", "6"), "both stop, 3 s"),
    ],
)
def test_what_cannot_be_measured_is_refused(benchmark, name, arguments, reason):
    done = invoke(benchmark(name), *arguments)
    assert done.exit_code == 2
    assert reason in done.output


def test_runners_beside_the_published_way(benchmark, tmp_path, tiny_checkpoint):
    file = tmp_path / "result.json"
    arguments = ("--networks", tiny_checkpoint, "--device", "cpu", "--targets", "2", "--seconds", "0.1")
    done = invoke(benchmark("bench_runners"), *arguments, "--peer-weights", tmp_path, "--json", file)
    assert done.exit_code == 0, done.output
    content = json.loads(file.read_text())
    check_shape(content, done.output)
    (table,) = content["tables"]
    runners = [row["runner"] for row in table["rows"]]
    assert runners[:2] == ["published", "plain float32"]
    assert len(runners) >= 2 + len(supported("cpu"))
    assert "NanoTrack is left out" in done.output
    assert all(row["times the published"]["median"] > 0 for row in table["rows"])


def test_pairing_counts_the_same_pairs_however_long_it_takes(benchmark, tmp_path):
    file = tmp_path / "result.json"
    done = invoke(benchmark("bench_pairing"), "--frames", "600", "--json", file)
    assert done.exit_code == 0, done.output
    content = json.loads(file.read_text())
    check_shape(content, done.output)
    pairs = {row["cameras"]: row["pairs"] for row in content["tables"][0]["rows"]}
    assert pairs["30 Hz, 30 Hz"] == 300
    assert pairs["1000 Hz, thermal silent"] == 0


def test_memory_is_watched(benchmark, tmp_path):
    file = tmp_path / "result.json"
    done = invoke(benchmark("bench_memory"), "--steps", "60", "--device", "cpu", "--json", file)
    assert done.exit_code == 0, done.output
    content = json.loads(file.read_text())
    check_shape(content, done.output)
    (row,) = content["tables"][0]["rows"]
    assert row["memory"] == "resident"
    assert 0 < row["at the start [MB]"] <= row["largest [MB]"]


def test_low_precision_is_compared_with_float32(benchmark, tmp_path, tiny_checkpoint):
    file = tmp_path / "result.json"
    data = write_peer_data(tmp_path / "data")
    done = invoke(benchmark("precision"), "--data", data, "--model", tiny_checkpoint, "--device", "cpu", "--json", file)
    assert done.exit_code == 0, done.output
    content = json.loads(file.read_text())
    check_shape(content, done.output)
    rows = content["tables"][0]["rows"]
    precisions = [*supported("cpu"), "plain float32"]
    assert [row["precision"] for row in rows] == precisions * 3, "two sequences and their mean"
    assert rows[0]["own way [px]"] == rows[0]["same state [px]"] == 0
    apart = dict(zip(precisions, (row["same state [px]"] for row in rows[-len(precisions) :])))
    assert 0 <= apart["plain float32"] < 0.01 < apart["bfloat16"] < 5


def test_a_cut_camera_is_compared_with_both(benchmark, tmp_path, tiny_checkpoint):
    from recordings import write_recording

    folder, file = write_recording(tmp_path / "stairs_man", 20, thermal_bits=8), tmp_path / "result.json"
    arguments = ["--data", folder, "--tracks", "", "--model", tiny_checkpoint, "--device", "cpu"]
    done = invoke(benchmark("cut_camera"), *arguments, "--moments", "1", "--json", file)
    assert done.exit_code == 0, done.output
    content = json.loads(file.read_text())
    check_shape(content, done.output)
    rows = content["tables"][0]["rows"]
    assert [row["cut"] for row in rows] == [f"{m} {how}" for m in ("rgb", "thermal") for how in HOWS]
    assert all(row["frames"] == "10..18" and row["falls by"] == row["both"] - row["with the cut"] for row in rows)


def test_what_became_of_a_hidden_target_is_judged(benchmark):
    module = benchmark("lost_and_found")
    rows = np.tile([0.8, 0.0, Status.TRACKING, 1.0, 1.0], (239, 1))  # the frames 1 to 239
    hidden = slice(89, 149)
    rows[hidden, 0], rows[hidden, 3] = 0.0, 0.0
    rows[96:152, 2] = Status.LOST
    good = module.judge(rows)
    assert (good.found, good.frames, good.taken, good.lost, good.stayed) == (True, 3.0, False, True, 1.0)
    assert not good.nearer
    assert (good.right, good.believed, good.wrong, good.missing) == (179, 176, 7, False)
    rows[110:120, 1:3] = 0.9, Status.TRACKING
    rows[149:, 2], rows[160, 4] = Status.LOST, 0.2
    bad = module.judge(rows)
    assert (good.both, bad.both) == (False, True), "the look-alike was hidden as well"
    assert (bad.found, bad.frames, bad.taken, bad.nearer) == (False, math.inf, True, True) and bad.stayed < 1
    rows[110:120, 0] = 0.6
    both = module.judge(rows)
    assert (both.taken, both.nearer) == (False, True), "on the target too, where the two overlap"
    summed = module.summed("all", [good, bad])
    assert summed["found [%]"] == summed["look-alike taken [%]"] == 50
    assert module.scene(3, "outside").config.look_alikes == 1


def test_all_benchmarks_are_run_and_a_failure_is_told(benchmark, tmp_path, monkeypatch, capfd):
    module = benchmark("run_all")
    monkeypatch.setattr(module, "RUNS", {"pairing": ["bench_pairing.py", "--frames", "400"], "broken": ["nowhere.py"]})
    done = invoke(module, "--only", "pairing,broken", "--out", tmp_path / "results")
    assert done.exit_code == 1
    assert "failed: broken" in done.output
    assert json.loads((tmp_path / "results" / "pairing.json").read_text())["name"] == "pairing"


def test_dds_counts_the_pairs_of_both_set_ups(tmp_path):
    pytest.importorskip("rclpy", reason="needs ROS 2")
    rows = run(tmp_path, "bench_dds", "--sizes", "64x48", "--pairs", "5", "--rounds", "1")
    assert [(row["reliability"], row["Fast DDS"]) for row in rows] == [
        (reliability, set_up) for reliability in ("best_effort", "reliable") for set_up in ("default", "profile")
    ]
    for row in rows:
        assert row["sent"] == 5
        assert row["pairs"] <= 5
    assert [row["pairs"] for row in rows if row["reliability"] == "reliable"] == [5, 5]


def test_node_latency_by_size(tmp_path):
    pytest.importorskip("rclpy", reason="needs ROS 2")
    (row,) = run(tmp_path, "bench_node", "--sizes", "96x72", "--messages", "3", "--rounds", "1")
    assert row["image"] == "96x72"
    assert row["latency"]["count"] == row["processing"]["count"] == row["idle latency"]["count"] == 3
    assert row["latency"]["low"] >= row["processing"]["low"] > 0
    assert 0 < row["overhead"]["median"] < row["latency"]["median"]
    assert row["latency of first"]["median"] == 1


def test_the_node_survives_hostile_messages_and_requests(tmp_path):
    pytest.importorskip("rclpy", reason="needs ROS 2")
    rows = run(tmp_path, "fuzz", "--messages", "80", "--requests", "40", "--seed", "3")
    assert [row["number"] for row in rows] == [40, 40, 24, 8, 8, 64]
    assert all(row["files more"] <= 2 and row["threads more"] <= 4 for row in rows)
    assert min(row["pairs refused"] for row in rows[:2]) > 0


def run_tables(tmp_path: Path, name: str, *arguments: str) -> tuple[int, dict[str, list[dict]]]:
    """Exit code and tables of a benchmark that may find that something is wrong."""
    file = tmp_path / "result.json"
    command = [sys.executable, str(FOLDER / f"{name}.py"), *arguments, "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    assert file.exists(), done.stdout + done.stderr
    return done.returncode, {table["title"]: table["rows"] for table in json.loads(file.read_text())["tables"]}


def test_faults_are_played_to_the_node(tmp_path, tiny_checkpoint):
    pytest.importorskip("rclpy", reason="needs ROS 2")
    given = ("--only", "both clocks set", "--seconds", "4", "--model", str(tiny_checkpoint))
    code, tables = run_tables(tmp_path, "faults", *given)
    rows = tables["Faults"]
    assert [row["strength"] for row in rows] == ["+1 h", "-1 h"]
    for row in rows:
        assert row["alive"] and row["errors"] == 0 and row["images"] == "48+48"
        assert 0 < row["results"] and row["results"] + row["pairs dropped"] >= 40, "a clock that was set stops nothing"
        assert row["before"] > 0, "results are compared with the truth of their stamp"
    assert code == any(row["verdict"] != "ok" for row in rows), "random weights need not keep their targets"


def test_a_soak_watches_the_node_and_its_services(tmp_path, tiny_checkpoint):
    pytest.importorskip("rclpy", reason="needs ROS 2")
    given = ("--minutes", "0.1", "--rate", "15", "--seed", "1", "--model", str(tiny_checkpoint))
    code, tables = run_tables(tmp_path, "soak", *given)
    (course,) = tables["Soak"]
    assert course["alive"] and course["errors"] == 0 and course["faults"] > 1 and course["results"] > 0
    assert course["minutes"] >= 0.1 and course["longest silence [s]"] < 15
    held = {row["what"]: row for row in tables["What the node holds"]}
    assert list(held) == ["memory [MB]", "threads", "files"] and all(row["most"] > 1 for row in held.values())
    assert tables["Services"] and all(row["unanswered"] == 0 for row in tables["Services"])
    assert code == (course["verdict"] != "ok")


def fault(module: ModuleType, name: str, strength: str = ""):
    return next(each for each in module.FAULTS if each.name == name and each.strength.startswith(strength))


def test_faults_change_schedules_between_their_begin_and_end(benchmark):
    module = benchmark("schedules")
    healthy, span = module.schedule(range(30), 10.0), module.Span(0.95, 1.95, 9)
    inside = [event for event in healthy if 10 <= event.frame < 20]

    def played(name: str, strength: str = ""):
        return fault(module, name, strength).apply(healthy, span, np.random.default_rng(0))

    assert played("none") == healthy
    assert [e.frame for e in played("RGB stops") if e.stream == 0] == [*range(10), *range(20, 30)]
    assert sum(e.stream for e in played("RGB stops")) == 30, "the other camera goes on"
    frozen = played("thermal frozen")
    assert [e.shown for e in frozen if e.stream] == [*range(10), *[9] * 10, *range(20, 30)]
    assert [(e.at, e.stamp, e.frame) for e in frozen] == [(e.at, e.stamp, e.frame) for e in healthy]
    late = played("held back, then at once")
    assert len(late) == 60 and sum(e.at == span.end for e in late) == 20
    assert [e.at for e in late] == sorted(e.at for e in late)
    off = [now.stamp - was.stamp for now, was in zip(played("thermal clock off", "-1"), healthy)]
    assert off == pytest.approx([-3600.0 * (e in inside and e.stream) for e in healthy])
    stays = [now.stamp - was.stamp for now, was in zip(played("both clocks set", "+1"), healthy)]
    assert stays == pytest.approx([3600.0 * (e.frame >= 10) for e in healthy])
    again = [e for e in played("looped recording", "pictures") if e.stream == 0]
    assert [e.frame for e in again] == [e.shown for e in again] == [*range(10), *range(20)]
    assert again[10].stamp == pytest.approx(0.05)
    assert sum(e.stamp is None for e in played("stamps unset", "both")) == 20
    jitter = np.abs([now.stamp - was.stamp for now, was in zip(played("stamps jitter", "±15"), healthy)])
    assert 0.005 < jitter.max() <= 0.015
    assert 40 < len(played("images lost", "30")) < 60 and played("images lost", "30") == played("images lost", "30")
    assert {e.change for e in played("broken messages", "50")} == {"", "short", "encoding"}
    assert len([e for e in played("thermal at a third of the rate") if e.stream]) == 23


def test_changed_messages_are_what_cameras_send_when_they_break(benchmark):
    pytest.importorskip("rclpy", reason="needs ROS 2")
    from ckd_tracker_ros import images
    from ckd_tracker_ros.ros.player import image_message

    module = benchmark("schedules")
    picture = images.Image(np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3), "bgr")
    whole = image_message(picture)
    assert np.array_equal(images.decode(module.changed(whole, "half")).pixels, picture.pixels[::2, ::2])
    assert not images.decode(module.changed(whole, "black")).pixels.any()
    assert (images.decode(module.changed(whole, "white")).pixels == 255).all()
    for change in ("short", "encoding"):
        with pytest.raises(ValueError):
            images.decode(module.changed(whole, change))
    assert np.array_equal(images.decode(whole).pixels, picture.pixels)


def test_what_became_of_targets_in_a_fault_is_judged(benchmark):
    module = benchmark("faults")
    at = np.arange(100) / 10
    good = np.ones((100, 2), bool)
    good[30:45, 0] = False  # back at 4.5 s; one good result among bad ones is not
    good[42, 0] = True
    course = module.Course(at, at + 0.1, np.where(good, 0.8, 0.2), np.ones_like(good))
    span = module.Span(2.95, 3.95)
    judged = module.judged(course, span, 10.0)
    assert judged["back [s]"] == pytest.approx(4.6 - 3.95) and judged["verdict"] == "ok" and judged["kept [%]"] == 100
    assert (judged["before"], judged["during"], judged["after"]) == pytest.approx((0.8, 0.5, 0.8))
    unsure = module.Course(at, at, course.ious, good & (at[:, None] < 3.95))
    assert module.judged(unsure, span, 10.0)["back [s]"] == math.inf, "right, and not TRACKING"
    late = module.Course(at, at + 1.9, course.ious, good)
    assert module.judged(late, span, 10.0)["kept [%]"] == 50
    silent = module.Course(at[:40], at[:40], course.ious[:40], good[:40])
    assert module.judged(silent, span, 10.0)["verdict"] == "failed"


def test_results_of_a_stamp_that_was_sent_twice_belong_to_the_later_one(benchmark):
    module = benchmark("faults")
    stamp = SimpleNamespace(sec=1, nanosec=5)
    message = SimpleNamespace(header=SimpleNamespace(stamp=stamp), targets=[])
    first, second = (module.Event(at, 0, 1.0, frame, frame) for at, frame in ((0.0, 3), (5.0, 40)))
    sent = [module.Sent(10.0, 1_000_000_005, first), module.Sent(15.0, 1_000_000_005, second)]
    found = module.matched(sent, [(9.0, message), (10.1, message), (15.1, message)])
    assert [event.frame for *_, event in found] == [3, 40]
    assert module.seen(message, [np.array([1.0, 2, 3, 4])]) == [(0.0, False)]


def test_what_grows_in_a_soak_is_told(benchmark):
    module = benchmark("soak")
    time_s = np.arange(0, 3601, 10.0)
    flat = np.column_stack([time_s, 500 + np.sin(time_s), np.full_like(time_s, 20), 23 + (time_s < 300) * 9])
    assert [row["files"] for row in module.course(flat)] == [32.0] + [23.0] * 9
    assert module.leaks(module.trends(flat), 3600) == [], "what only the warm-up held does not count"
    growing = flat + np.column_stack([0 * time_s, time_s / 60, time_s // 600, 0 * time_s])
    rows = module.trends(growing)
    assert rows[0]["slope [1/h]"] == pytest.approx(60, abs=1) and rows[1]["most"] == 26
    assert module.leaks(rows, 3600) == ["memory [MB]", "threads"]
    film = module.Endless("abcd")
    assert "".join(film[number] for number in range(14)) == "abcdcbabcdcbab"


def test_spread_and_ratios():
    spread = timing.Spread.of([3.0, math.nan, 1.0, 2.0])
    assert (spread.median, spread.count) == (2.0, 3)
    assert spread.low == pytest.approx(1.2) and spread.high == pytest.approx(2.8)
    assert timing.Spread.of([]).count == 0
    slow_second_round = timing.ratios([2.0, 20.0], [1.0, 10.0])
    assert (slow_second_round.low, slow_second_round.median, slow_second_round.high) == (2.0, 2.0, 2.0)
    with pytest.raises(ValueError):
        timing.ratios([1.0], [1.0, 2.0])


def test_a_target_of_random_weights_stays_where_it_is(benchmark):
    tracker = Tracker(create(random_student(benchmark("common").SMALL), "cpu"))
    frame = timing.noise_frame((320, 240))
    state = tracker.start(frame, (136, 96, 48, 48))
    for _ in range(10):
        state, _ = tracker.step(state, frame)
    np.testing.assert_allclose(state.box, (136, 96, 48, 48), atol=1)


def write_peer_data(folder: Path) -> Path:
    """Recordings as peers.py expects them, of one generated scene: a pair of videos, and one camera's images."""
    frames = 6
    scene = Scene(SceneConfig(width=160, height=120, frames=frames, size=(30.0, 40.0)), seed=4)
    (folder / "m3svd").mkdir(parents=True)
    (folder / "single_modality_eval" / "tir_body" / "images").mkdir(parents=True)
    for camera, end in enumerate(("visible", "infrared")):
        codec = cv2.VideoWriter.fourcc(*"mp4v")
        video = cv2.VideoWriter(str(folder / "m3svd" / f"scene_{end}.mp4"), codec, 30.0, (160, 120))
        for i in range(frames):
            video.write(to_bgr(scene.frame(i).images[camera]))
        video.release()
    truth = [scene.boxes(i)[0].tolist() for i in range(frames)]
    tracks = {"body": {"video": "scene", "first_frame": 1, "boxes_xywh": truth[1:]}}
    (folder / "m3svd" / "tracks.json").write_text(json.dumps(tracks))
    sequence = folder / "single_modality_eval" / "tir_body"
    for i in range(frames):
        cv2.imwrite(str(sequence / "images" / f"{i}.png"), scene.frame(i).images[1].pixels)
    np.savetxt(sequence / "groundtruth.txt", truth, "%.3f", ",")
    return folder


def run_peers(benchmark, tmp_path: Path, *arguments: str | Path) -> dict[str, list[dict]]:
    file = tmp_path / "result.json"
    done = invoke(benchmark("peers"), "--data", write_peer_data(tmp_path / "data"), *arguments, "--json", file)
    assert done.exit_code == 0, done.output
    content = json.loads(file.read_text())
    check_shape(content, done.output)
    return {table["title"]: table["rows"] for table in content["tables"]}


def test_students_beside_each_other(benchmark, tmp_path, tiny_checkpoint):
    tables = run_peers(benchmark, tmp_path, "--model", tiny_checkpoint, "--only", "fused,rgb,thermal")
    track, mean = tables["Both cameras: mean IoU"]
    assert (track["sequence"], track["frames"], mean["sequence"]) == ("body", 4, "mean")
    assert all(track[name] == mean[name] for name in ("fused", "rgb", "thermal"))
    assert len({track["fused"], track["rgb"], track["thermal"]}) == 3, "each sees other cameras"
    single, *means = tables["One camera: mean IoU"]
    assert (single["sequence"], single["frames"]) == ("tir_body", 5)
    assert [row["random"] for row in means] == [single["random"]] * 2
    times = tables["Both cameras: time of a step"]
    assert [row["tracker"] for row in times] == ["fused", "rgb", "thermal"]
    assert all(row["step [ms]"]["count"] == 4 for row in times)


def test_nanotrack_as_a_peer(benchmark, tmp_path, shared):
    if not (shared / "weights").is_dir():
        pytest.skip("NanoTrack's weights are not part of the repository")
    tables = run_peers(benchmark, tmp_path, "--only", "nanotrack", "--peer-weights", shared / "weights")
    assert all(tables["Both cameras: mean IoU"][0][f"nanotrack {camera}"] > 0.3 for camera in ("rgb", "thermal"))
    assert tables["One camera: mean IoU"][0]["nanotrack"] > 0.3


def test_misses_are_counted(benchmark):
    course = benchmark("peers").Course
    for ious, longest, lost in (
        ([0.5, 0.5], 0, None), ([0.0, 0.09, 0.5], 2, None), ([0.5, 0.0, 0.1, 0.0], 1, 13), ([0.0, 0.0], 2, 10)
    ):  # fmt: skip
        assert (course(10, ious).longest_miss, course(10, ious).lost_from) == (longest, lost)
    assert course(10, [0.5, 0.0]).mean_iou == 0.25


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--data", "nowhere"), "nowhere"),
        (("--only", "fused,kcf"), "kcf"),
        (("--peer-weights", "nowhere"), "--peer-weights"),
        (("--only", "rgb", "--model", "nonesuch"), "nonesuch"),
    ],
)
def test_what_peers_cannot_compare_is_refused(benchmark, tmp_path, arguments, reason):
    done = invoke(benchmark("peers"), "--data", write_peer_data(tmp_path), *arguments)
    assert done.exit_code == 2
    assert reason in done.output


def test_settings_are_compared_on_what_is_held_back(benchmark, tmp_path, tiny_checkpoint, monkeypatch):
    from recordings import write_recording

    module = benchmark("held_back")
    truth = np.loadtxt(write_recording(tmp_path / "clips" / "one", 4, 8) / "groundtruth.txt", delimiter=",")
    label = {"kind": "person", "first_frame": 0, "boxes_xywh": truth.tolist()}
    (tmp_path / "labels.json").write_text(json.dumps({"one": {"body": label}}))
    monkeypatch.setattr(module, "SCENE_FRAMES", 6)
    known = ("--model", tiny_checkpoint, "--clips", tmp_path / "clips", "--labels", tmp_path / "labels.json")
    file = tmp_path / "result.json"
    done = invoke(module, *known, "--scenes", "1", "--set", "size_rate=0.5,motion=true", "--json", file)
    assert done.exit_code == 0, done.output
    ((before, after),) = [table["rows"] for table in json.loads(file.read_text())["tables"]]
    assert (before["setting"], after["setting"]) == ("as it is", "size_rate 0.5, motion True")
    groups = [name for name in before if name not in ("setting", "mean")]
    assert groups == [*(f"views, {name}" for name in VIEWS), "scenes"]
    assert before["mean"] == pytest.approx(np.mean([before[name] for name in groups]))
    assert before != {**after, "setting": "as it is"}
    for wrong, reason in (("width=3", "allowed: NAME=VALUE of size_rate"), ("size_rate=2", "at most 1")):
        refused = invoke(module, *known, "--set", wrong)
        assert refused.exit_code and reason in " ".join(refused.output.replace("│", " ").split())


def test_misaligned_cameras_are_calibrated_and_followed_four_ways(tmp_path, tiny_checkpoint):
    given = ("--model", str(tiny_checkpoint), "--seeds", "1", "--first", "3", "--frames", "4")
    one, mean = run(tmp_path, "misaligned", *given)
    assert one["seed"] == 3 and mean["seed"] == "mean"
    assert one["calibration off [px]"] < 2
    assert one["registered"] != one["not registered"], "the homography reached the crops"
