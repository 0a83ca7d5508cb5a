"""`ckd-tracker train`: settings, batches by number, resuming to the bit, several processes, the paper's two stages."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from rich.console import Console
from typer.testing import CliRunner

from ckd_tracker_ros.cli import app
from ckd_tracker_ros.network import checkpoint
from ckd_tracker_ros.network.config import NetworkConfig
from ckd_tracker_ros.network.convert import convert
from ckd_tracker_ros.network.student import Student
from ckd_tracker_ros.training import loop
from ckd_tracker_ros.training.config import FOLDER, ConfigError, from_dict, load_config
from ckd_tracker_ros.training.data import DataError, Feeds, Shape, open_feeds
from ckd_tracker_ros.training.initial import initial_student
from ckd_tracker_ros.training.journal import BOARD, LOG, PLOT, read_log

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
INSTALLED = sorted(path.stem for path in (ROOT / FOLDER).glob("*.yaml"))
SMALL = {
    "patch": 8, "template_size": 16, "search_size": 32, "width": 16, "depth": 3, "heads": 2, "head_channels": 16,
}  # fmt: skip


def lasher(root: Path, sequences: int = 3, frames: int = 6) -> Path:
    """A tree of LasHeR's form: a bright square wanders over noise."""
    rng = np.random.default_rng(0)
    for s in range(sequences):
        folder, rows = root / f"seq{s}", []
        for modality, letter in (("visible", "v"), ("infrared", "i")):
            (folder / modality).mkdir(parents=True)
            for i in range(frames):
                image = rng.integers(0, 100, (72, 96, 3), np.uint8)
                image[20 : 20 + 24, 10 + 5 * i : 10 + 5 * i + 18 + s] = 220
                cv2.imwrite(str(folder / modality / f"{letter}{i:03d}.jpg"), image)
        rows = [f"{10 + 5 * i},20,{18 + s},24" for i in range(frames)]
        for name in ("visible.txt", "infrared.txt", "init.txt"):
            (folder / name).write_text("\n".join(rows if name != "init.txt" else rows[:1]))
    return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    return lasher(tmp_path_factory.mktemp("LasHeR"))


def settings(tree: Path, **train) -> dict:
    """A training of a second: recordings in memory, a network of some thousand weights."""
    return {
        "name": "small",
        "network": {**SMALL, "joint_from": 1, "shared": True, "elimination_blocks": []},
        "data": {"sequences": [{"root": str(tree)}], "views": 4, "processes": 1, "held_back": 0, "workers": 0},
        "samples": {"targets": 2, "hidden": 0.2, "absent_target": 0, "missing": 0.3},
        "train": {
            "steps": 6, "batch": 4, "validation": 4, "save_every": 2, "log_every": 1, "validate_every": 3, "warm_up": 2,
            "rates": {"head": 1e-3, "joint": 1e-3, "early": 1e-3}, "drop_path": 0.2, "threads": 1, **train,
        },
    }  # fmt: skip


def written(values: dict, file: Path) -> str:
    file.write_text(yaml.safe_dump(values))
    return str(file)


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["train", *map(str, arguments), "--device", "cpu"])
    assert result.exit_code == code, result.output + str(result.exception)
    return result.output


def same(a: object, b: object) -> bool:
    """To the bit, for nested states."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def state(out: Path) -> dict:
    return torch.load(out / loop.STATE, weights_only=True)


# ---- settings


@pytest.mark.parametrize("name", INSTALLED)
def test_installed_configurations_are_found_by_name_and_survive_a_round_trip(name):
    config = load_config(name)
    assert config.name == name and from_dict(config.to_dict()) == config


def test_the_base_recipe_is_the_papers():
    first, second = load_config("base_stage1"), load_config("base_stage2")
    assert not first.network.elimination_blocks and second.network.elimination_blocks == (3, 6, 9)
    assert first.samples.hidden == 0.25 and second.samples.hidden == 0
    assert (first.train.rates.head, first.train.rates.joint) == (5e-5, 5e-6) and first.train.clip == 0.1
    assert second.train.rates.joint == second.train.rates.early == 0 and not second.distillation.teachers
    assert first.train.steps * first.train.batch == 30 * 60_000
    assert second.train.steps * second.train.batch == 10 * 30_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.stepz=3", r"unknown train.stepz; known: steps, batch"),
        ("colour=red", r"unknown colour; known: name, network"),
        ("train.steps=0", "train.steps is 0; allowed: at least 1"),
        ("train.steps=many", "train.steps is 'many'; expected: a whole number"),
        ("train.schedule=linear", "train.schedule is 'linear'; allowed: 'cosine', 'constant'"),
        ("data.held_back=0.9", "data.held_back is 0.9; allowed: at least 0, at most 0.5"),
        ("data.sequences=[{root: x, kind: got}]", r"data.sequences\[0\].kind is 'got'; allowed: 'auto', 'gtot'"),
        ("data.sequences=[{root: x}]", "views is 0 .* allowed: views of 1 or more"),
        ("distillation.teachers=1", "distillation.teachers is 1; expected: true or false"),
        ("distillation.early_precision=half", "early_precision is 'half'; allowed: float32, bfloat16"),
        ("network.start=huge", "network.start is 'huge'; allowed: base, ckd_tiny"),
        ("network.heads=5", "width 96 is not a multiple of the number of heads 5"),
        ("train.rates={head: 0, joint: 0, early: 0}", "all rates are 0"),
        ("train.fresh=2", "train.fresh is 2 without frozen early blocks"),
        ("train.fresh=99", "fresh is 99; allowed: at most batch"),
        ("train.steps", "expected: key.sub=value"),
        ("train=7", "train is 7; expected: a mapping"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(change, message):
    with pytest.raises(ConfigError, match=message):
        load_config("smoke", [change])


def test_settings_given_on_the_command_line_win_and_keep_their_types():
    config = load_config("smoke", ["train.rates.head=1e-4", "network.width=48", "init=weights.pth", "data.weights.a=2"])
    assert (config.train.rates.head, config.network.width, config.init) == (1e-4, 48, "weights.pth")
    assert config.train.rates.joint == 3e-4 and config.data.weights == {"a": 2.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no configuration 'nowhere'; expected: a file, or one of ablation, base_stage1"),
        (["smoke", "--set", "data.scenes=0"], "asked for: nothing"),
        (["smoke", "--set", "init=missing.safetensors"], "no model 'missing.safetensors'"),
        (["smoke", "--set", "data.stills=missing"], "data.stills is 'missing': no such folder"),
        (["base_stage1", "--set", "data.sequences=[{root: missing}]"], "missing is no folder"),
    ],
)  # fmt: skip
def test_the_command_line_reports_errors_in_one_line(arguments, message, tmp_path):
    small = [word for key, value in SMALL.items() for word in ("--set", f"network.{key}={value}")]
    output = run(*arguments[:1], *small, *arguments[1:], "--out", tmp_path, code=2)
    assert message in output and output.splitlines()[-1].startswith("error: "), output


# ---- batches


def feeds(values: dict) -> Feeds:
    config = from_dict(values)
    return open_feeds(Shape(config.network, config.samples, config.data), config.train.seed, CPU)


@pytest.mark.parametrize("views", [4, 0], ids=["memory", "streamed"])
def test_a_sample_depends_on_its_number_alone(tree, views):
    values = settings(tree)
    values["data"]["views"] = views
    together = next(feeds(values).training.batches([range(4)]))
    values["data"]["workers"] = 1
    apart = list(feeds(values).training.batches([[2, 3], [0], [1]]))
    for i, (batch, row) in enumerate([(apart[1], 0), (apart[2], 0), (apart[0], 0), (apart[0], 1)]):
        for a, b in zip(together, batch):
            torch.testing.assert_close(a[i], b[row], rtol=0, atol=1e-3)
    assert not torch.equal(together.searches[0], together.searches[1])


def test_streamed_pairs_show_the_target_where_the_box_says(tree):
    values = settings(tree)
    values["data"]["views"] = 0
    values["network"] |= {"template_size": 32, "search_size": 64}
    values["samples"] = {name: 0 for name in ("near", "paste", "absent_target", "fill", "blind", "missing", "occluded")}
    values["samples"] |= {"targets": 1, "photometry": 0, "misalignment": 0, "warp": 0, "turn": 0, "stretch": 0}
    batch = next(feeds(values).training.batches([range(8)]))
    for search, (x, y, w, h) in zip(batch.searches.mean(dim=(1, 2)), (batch.boxes[:, 0] * 64).tolist()):
        rows, columns = (slice(max(round(a) + 2, 0), round(a + b) - 2) for a, b in ((y, h), (x, w)))
        assert search[rows, columns].mean() > search.mean() + 40
    assert batch.templates.mean(dim=(1, 2, 3))[:, 14:18, 14:18].mean() > 180


def test_what_cannot_be_read_is_reported_once_and_replaced(tmp_path, caplog):
    root = lasher(tmp_path, sequences=2)
    bad = root / "seq0" / "visible" / "v002.jpg"
    bad.write_bytes(bad.read_bytes()[:200])
    truth = root / "seq1" / "visible.txt"
    rows = truth.read_text().splitlines()
    truth.write_text("\n".join([*rows[:3], "5000,5000,20,20", *rows[4:]]))
    values = settings(root)
    for views in (0, 6):
        caplog.clear()
        values["data"]["views"] = views
        feed = feeds(values).training
        assert len(list(feed.batches([range(16), range(16, 40)]))) == 2
        assert sorted(map(lambda text: ("v002.jpg" in text, "5000.0" in text and "seq1" in text), feed.problems)) == [
            (False, True), (True, False),
        ], feed.problems  # fmt: skip
        assert caplog.text.count("v002.jpg") == 1


def test_a_data_set_of_which_nothing_can_be_read_is_an_error(tmp_path):
    root = lasher(tmp_path, sequences=1, frames=2)
    for image in root.rglob("*.jpg"):
        image.write_bytes(b"")
    values = settings(root)
    with pytest.raises(DataError, match="no track in the training data.*sequences"):
        feeds(values)
    values["data"]["views"] = 0
    with pytest.raises(DataError, match="in a row could not be read"):
        next(feeds(values).training.batches([range(2)]))


# ---- the loop


def test_a_killed_training_goes_on_to_the_same_weights(tree, tmp_path):
    config = written(settings(tree, steps=40), tmp_path / "small.yaml")
    broken, unbroken = tmp_path / "broken", tmp_path / "unbroken"
    command = [sys.executable, "-m", "ckd_tracker_ros.cli", "train", config, "--device", "cpu", "--out", str(broken)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    while not (broken / loop.STATE).exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL, process.stderr.read()
    at = state(broken)["step"]
    assert 0 < at < 40
    assert f"resumed at step {at}" in run(config, "--out", broken)
    run(config, "--out", unbroken)
    assert same(state(broken), state(unbroken))
    assert [row["step"] for row in read_log(broken)] == [str(step) for step in range(1, 41)]


def test_frozen_early_blocks_with_replay_go_on_to_the_same_weights(tree, tmp_path):
    values = settings(tree, fresh=1, replay=10, precision="bfloat16")
    values["distillation"] = {"early_frozen": True}
    values["train"]["rates"]["early"] = 0
    for out, stops in (("once", [6]), ("twice", [4, 6])):
        for steps in stops:
            config = from_dict({**values, "train": {**values["train"], "steps": steps, "schedule": "constant"}})
            loop.train(config, tmp_path / out, "cpu", 0, Console(quiet=True))
    once, twice = state(tmp_path / "once"), state(tmp_path / "twice")
    assert once.pop("config") == twice.pop("config") and same(once, twice)


def test_a_training_leaves_weights_log_board_and_plot(tree, tmp_path):
    output = run(written(settings(tree), tmp_path / "small.yaml"), "--out", tmp_path / "run")
    assert "finished at step 6" in output
    student = checkpoint.load(tmp_path / "run" / "student.safetensors")
    assert student.config.width == 16 and student.config.modalities == ("rgb", "thermal")
    assert checkpoint.load(tmp_path / "run" / "teacher_thermal.safetensors").config.modalities == ("thermal",)
    provenance = checkpoint.read_metadata(tmp_path / "run" / "student.safetensors")[1]
    assert provenance["steps"] == 6 and str(tree) not in str(provenance)
    with (tmp_path / "run" / LOG).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 and 0 <= float(rows[-1]["iou"]) <= 1 and float(rows[-1]["thermal/giou"]) > 0
    assert cv2.imread(str(tmp_path / "run" / PLOT)).std() > 5
    pytest.importorskip("tensorboard")
    assert list((tmp_path / "run" / BOARD).glob("events*"))


def test_a_time_limit_stops_with_a_state_and_other_networks_are_refused(tree, tmp_path):
    config = written(settings(tree), tmp_path / "small.yaml")
    assert "time is up at step 1" in run(config, "--out", tmp_path / "run", "--minutes", 1e-9)
    assert state(tmp_path / "run")["step"] == 1
    output = run(config, "--out", tmp_path / "run", "--set", "network.width=32", code=1)
    assert "is of another training: network.width changed" in output
    (tmp_path / "run" / loop.STATE).write_bytes(b"half a file")
    assert "cannot be resumed" in run(config, "--out", tmp_path / "run", code=1)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(tree, tmp_path):
    values = settings(tree, clip=0, warm_up=0, save_every=1, rates={"head": 1e30, "joint": 1e30, "early": 1e30})
    output = run(written(values, tmp_path / "small.yaml"), "--out", tmp_path / "run", code=1)
    assert "the loss is not finite at step" in output and "last good state" in output.replace("\n", " ")
    kept = state(tmp_path / "run")
    assert kept["step"] >= 1 and all(t.isfinite().all() for t in kept["optimiser"]["state"][0].values())


def test_a_signal_is_noted_and_the_old_handler_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    with loop._asked_to_stop() as signals:
        signal.raise_signal(signal.SIGTERM)
        assert signals == [signal.SIGTERM] and signal.getsignal(signal.SIGTERM) == before
    assert signal.getsignal(signal.SIGTERM) == before


def test_two_processes_give_the_loss_of_one(tree, tmp_path):
    values = settings(tree, steps=3, batch_norm="eval", drop_path=0, save_every=3, validate_every=3)
    config = written(values, tmp_path / "small.yaml")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "ckd_tracker_ros.cli", "train", config, "--device", "cpu", "--out"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*command, str(tmp_path / "two")], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    run(config, "--out", tmp_path / "one")
    for a, b in zip(read_log(tmp_path / "one"), read_log(tmp_path / "two"), strict=True):
        for name in a.keys() - {"ms"}:
            assert float(a[name]) == pytest.approx(float(b[name]), rel=2e-3, abs=1e-5), name
    one, two = (state(tmp_path / name)["task"] for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, two[name], rtol=1e-2, atol=2e-4)


# ---- what a training starts from, and the paper's recipe


def ostrack_shaped(config: NetworkConfig) -> dict[str, torch.Tensor]:
    """A single-modality tracker under OSTrack's names."""
    torch.manual_seed(5)
    student = Student(replace(config, modalities=("rgb",), shared=False, elimination_blocks=()))
    return {name.replace("rgb_branch.", "backbone."): tensor for name, tensor in student.state_dict().items()}


def small_network(**changes) -> NetworkConfig:
    return NetworkConfig(**{"name": "base", "elimination_blocks": (), **SMALL, **changes})


def test_a_published_head_is_kept_and_a_teacher_gets_its_part_of_it(tmp_path):
    config = small_network()
    tensors = ostrack_shaped(config)
    torch.save({"net": tensors}, tmp_path / "ostrack.pth")
    convert(tmp_path / "ostrack.pth", tmp_path / "made.safetensors", config, dtype=torch.float32)
    for file in ("ostrack.pth", "made.safetensors"):
        student = initial_student(config, str(tmp_path / file))
        teacher = initial_student(replace(config, modalities=("thermal",)), str(tmp_path / file))
        for network in (student, teacher):
            torch.testing.assert_close(network.box_head.conv5_ctr.bias, tensors["box_head.conv5_ctr.bias"])
            torch.testing.assert_close(network.tir_branch.norm.weight, tensors["backbone.norm.weight"])
        first = teacher.box_head.conv1_size[0].weight
        torch.testing.assert_close(student.box_head.conv1_size[0].weight[:, config.width :], first)


def test_a_published_teacher_is_taken_over(tmp_path):
    config = small_network()
    torch.manual_seed(1)
    fused, single = Student(config).state_dict(), Student(replace(config, modalities=("thermal",))).state_dict()
    names = (("tir_branch.", "teacher_tir."), ("box_head.", "box_head_i."))
    taught = {name.replace(old, new): t for name, t in single.items() for old, new in names if name.startswith(old)}
    torch.save({"net": {**fused, **taught}}, tmp_path / "ckd.pth")
    teacher = initial_student(replace(config, modalities=("thermal",)), str(tmp_path / "ckd.pth"))
    assert same(dict(teacher.state_dict()), dict(single))
    assert same(dict(initial_student(config, str(tmp_path / "ckd.pth")).state_dict()), dict(fused))


def test_both_stages_of_the_base_recipe_train_on_a_lasher_tree_from_an_ostrack_file(tree, tmp_path):
    torch.save({"net": ostrack_shaped(small_network())}, tmp_path / "ostrack.pth")
    convert(tmp_path / "ostrack.pth", tmp_path / "start.safetensors", small_network(elimination_blocks=(1,)))
    short = {"steps": 3, "batch": 2, "validation": 2, "validate_every": 3, "log_every": 1, "save_every": 3}
    changes = [f"network.{key}={value}" for key, value in SMALL.items()]
    changes += [f"train.{key}={value}" for key, value in short.items()] + ["data.workers=1"]
    changes += [f"data.sequences=[{{root: {tree}, kind: lasher}}]"]
    for stage, init, more in (
        ("base_stage1", tmp_path / "start.safetensors", []),
        ("base_stage2", tmp_path / "base_stage1" / "student.safetensors", ["network.elimination_blocks=[1, 2]"]),
    ):
        options = [word for change in [*changes, f"init={init}", *more] for word in ("--set", change)]
        assert "finished at step 3" in run(stage, "--out", tmp_path / stage, *options)
    start, first, second = (
        checkpoint.load(path).state_dict()
        for path in (
            tmp_path / "start.safetensors",
            *(tmp_path / stage / "student.safetensors" for stage in ("base_stage1", "base_stage2")),
        )
    )
    weights = [name for name in start if name.endswith("weight")]
    assert {name.split(".")[0] for name in weights if not torch.equal(start[name], first[name])} >= {"box_head"}
    changed = {name.split(".")[0] for name in first if not torch.equal(first[name], second[name])}
    assert changed == {"box_head"}
    assert (tmp_path / "base_stage1" / "teacher_rgb.safetensors").exists()
    assert not (tmp_path / "base_stage2" / "teacher_rgb.safetensors").exists()
