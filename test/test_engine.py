"""Every runner gives the maps of the plain one; what a machine cannot run is refused by what it can."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ckd_tracker_ros.cli import app
from ckd_tracker_ros.engine import DeviceError, Engine, HostMaps, create, load, packed, select, supported
from ckd_tracker_ros.engine.eager import EagerEngine
from ckd_tracker_ros.engine.graph import COUNTS, GraphEngine
from ckd_tracker_ros.engine.stacked import stack
from ckd_tracker_ros.frame import Image, RgbtFrame
from ckd_tracker_ros.network import checkpoint
from ckd_tracker_ros.network.config import NetworkConfig
from ckd_tracker_ros.network.export import ExportError, export
from ckd_tracker_ros.network.student import Student
from ckd_tracker_ros.tracker import Tracker

TWO = NetworkConfig(
    name="two_branches", patch=8, template_size=24, search_size=48, width=32, depth=4, heads=2,
    elimination_blocks=(1, 2), head_channels=16,
)  # fmt: skip
SHAPES = {
    "two branches": TWO,
    "shared": replace(TWO, shared=True, joint_from=1, target_embed=True),
    "marked": replace(TWO, joint_from=2, target_embed=True, elimination_blocks=(2,)),
    "independent": replace(TWO, elimination="independent"),
    "no elimination": replace(TWO, elimination_blocks=()),
    "one camera": replace(TWO, modalities=("thermal",)),
}
CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def student_of(config: NetworkConfig) -> Student:
    """Random weights, none of them zero: positions, marks, biases and norms count too."""
    torch.manual_seed(0)
    student = Student(config).eval().requires_grad_(False)
    for parameter in student.parameters():
        parameter += 0.05 * torch.randn_like(parameter)
    return student


def maps_of(engine: Engine, count: int, seed: int = 0) -> HostMaps:
    """Of random crops; where there are two cameras, some targets lack one, now or from the start."""
    rng, config = np.random.default_rng(seed), engine.config
    modalities = len(config.modalities)
    templates, crops = (
        rng.integers(0, 256, (count, modalities, side, side, 3), np.uint8)
        for side in (config.template_size, config.search_size)
    )
    extents = rng.uniform(0.3, 0.7, (count, 2))
    known, present = np.ones((2, count, modalities), bool)
    if modalities > 1:
        known[1::3, 0] = False
        present[2::3, 1] = False
    prepared = [engine.prepare(*each) for each in zip(templates, known, extents)]
    return engine.run(prepared, crops, present)


def largest_difference(ours: HostMaps, theirs: HostMaps) -> float:
    assert [m.shape for m in ours] == [m.shape for m in theirs]
    assert all(m.dtype == np.float32 for m in ours)
    return max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(
    "make, tolerance",
    [
        (lambda student: create(student, "cpu", "float32"), 1e-5),
        (lambda student: create(student, "cpu", "bfloat16"), 0.1),
        (lambda student: EagerEngine(stack(student), CPU, torch.float32), 1e-5),
    ],
    ids=["float32", "bfloat16", "stacked"],
)
def test_runners_agree(make: Callable[[Student], Engine], tolerance: float, config: NetworkConfig, count: int) -> None:
    student = student_of(config)
    plain = maps_of(EagerEngine(copy.deepcopy(student), CPU, torch.float32), count)
    assert largest_difference(maps_of(make(student), count), plain) < tolerance


@pytest.mark.skipif("int8" not in supported("cpu"), reason="needs a CPU with 8-bit products (VNNI or AMX)")
def test_8_bit_products_are_close_and_not_the_same() -> None:
    student = student_of(SHAPES["no elimination"])
    plain = maps_of(EagerEngine(copy.deepcopy(student), CPU, torch.float32), 3)
    assert 1e-6 < largest_difference(maps_of(create(student, "cpu", "int8"), 3), plain) < 0.05


def test_what_runs_is_what_was_asked_for(tiny_student: Student) -> None:
    for precision in supported("cpu"):
        description = create(copy.deepcopy(tiny_student), "cpu", precision).description
        assert description["precision"] == precision
        assert description["runner"] == ("packed" if packed.available() else "eager")


@pytest.mark.parametrize(
    "units, automatic, allowed",
    [
        ({}, "float32", ("float32", "bfloat16")),
        ({"avx512_bf16": True}, "bfloat16", ("float32", "bfloat16")),
        ({"avx512_bf16": False, "avx512_vnni": True}, "float32", ("float32", "bfloat16", "int8")),
    ],
)
def test_the_table_follows_the_processor(monkeypatch, tiny_student, units, automatic, allowed) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units, raising=False)
    for name in ("available", "bfloat16_available", "int8_available"):
        monkeypatch.setattr(packed, name, lambda: True)
    assert select.auto_precision("cpu") == automatic
    assert supported("cpu") == allowed
    if "int8" not in allowed:
        with pytest.raises(DeviceError, match="'int8' on cpu; allowed here: auto, float32, bfloat16$"):
            create(tiny_student, "cpu", "int8")


def test_a_precision_that_the_products_lack_is_refused(monkeypatch, tiny_student) -> None:
    monkeypatch.setattr(packed, "available", lambda: True)
    monkeypatch.setattr(packed, "bfloat16_available", lambda: False)
    monkeypatch.setattr(packed, "int8_available", lambda: False)
    with pytest.raises(DeviceError, match="'bfloat16' on cpu; allowed here: auto, float32$"):
        create(tiny_student, "cpu", "bfloat16")


def test_without_packed_products_the_plain_runner_serves(monkeypatch, tiny_student) -> None:
    monkeypatch.setattr(packed, "available", lambda: False)
    assert create(tiny_student, "cpu", "float32").description["runner"] == "eager"


# --- ONNX Runtime


@pytest.fixture(scope="module", params=["two branches", "shared"])
def exported(request, tmp_path_factory) -> tuple[Path, Path]:
    """A weight file and what `export` made of it, in a folder with a blank and an umlaut."""
    pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install ckd_tracker_ros[export]")
    pytest.importorskip("onnxscript", reason="needs onnxscript: pip install ckd_tracker_ros[export]")
    folder = tmp_path_factory.mktemp("größe und form")
    weights = folder / "network.safetensors"
    checkpoint.save(weights, student_of(SHAPES[request.param]), {"source": "random"}, torch.float32)
    return weights, export(weights, folder / "network.onnx")


@pytest.mark.parametrize("count", [1, 2, 5])
def test_an_exported_file_gives_the_same_maps(exported, count) -> None:
    weights, file = exported
    engine = load(file, "cpu")
    assert engine.config == checkpoint.load(weights).config
    plain = maps_of(EagerEngine(checkpoint.load(weights), CPU, torch.float32), count)
    assert largest_difference(maps_of(engine, count), plain) < 1e-5
    assert engine.description["runner"] == "onnxruntime CPUExecutionProvider"


def test_what_an_exported_file_cannot_do_is_said(exported, tmp_path) -> None:
    weights, file = exported
    with pytest.raises(DeviceError, match="'int8' of network.onnx on cpu; allowed for an ONNX file: auto, float32"):
        load(file, "cpu", "int8")
    with pytest.raises(DeviceError, match="'cpu:1' is not in this ONNX Runtime; available: auto, cpu"):
        load(file, "cpu:1")
    with pytest.raises(DeviceError, match="threads is -1"):
        load(file, "cpu", threads=-1)
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(checkpoint.CheckpointError, match="damaged.onnx is not an ONNX file that can be run"):
        load(damaged, "cpu")
    with pytest.raises(ExportError, match="network.pt; allowed: a file that ends in .onnx"):
        export(weights, tmp_path / "network.pt")


def test_an_exported_file_is_a_model_like_any_other(exported) -> None:
    weights, file = exported
    rng = np.random.default_rng(0)
    colours, heat = rng.integers(0, 256, (2, 90, 120, 3), np.uint8), rng.integers(7000, 9000, (2, 90, 120), np.uint16)
    first, second = (RgbtFrame((Image(rgb, "rgb"), Image(grey, "mono"))) for rgb, grey in zip(colours, heat))
    found = []
    for model in (weights, file):
        tracker = Tracker.from_checkpoint(model, "cpu", "float32")
        tracker.warm_up(3)
        state = tracker.start(first, (40, 30, 30, 20))
        found.append(tracker.step_many([state, state], second)[1][1])
    np.testing.assert_allclose(found[1].box, found[0].box, atol=1e-3)
    assert found[1].confidence == pytest.approx(found[0].confidence, abs=1e-5)
    bench = ["bench", "--model", str(file), "--device", "cpu", "--targets", "1", "--seconds", "0.1"]
    done = CliRunner().invoke(app, bench)
    assert done.exit_code == 0 and "onnxruntime CPUExecutionProvider" in " ".join(done.output.split())


def test_a_damaged_onnx_file_is_refused_or_runs(exported, tmp_path) -> None:
    data, file, rng, refused = exported[1].read_bytes(), tmp_path / "damaged.onnx", np.random.default_rng(0), 0
    for number in range(20):
        wrong = bytearray(data)
        for place in rng.integers(0, len(data), 20):
            wrong[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(wrong if number % 3 else data[: rng.integers(len(data))])
        try:
            Tracker(load(file, "cpu")).warm_up()
        except checkpoint.CheckpointError:
            refused += 1
    assert refused > 7


def test_a_foreign_onnx_file_is_refused(exported, tmp_path) -> None:
    onnx = pytest.importorskip("onnx")
    foreign = onnx.load(exported[1])
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(checkpoint.CheckpointError, match="no network configuration; make it with 'ckd-tracker export'"):
        load(tmp_path / "foreign.onnx", "cpu")


# --- GPU


@needs_gpu
@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_a_recorded_step_gives_the_same_maps(config) -> None:
    student = student_of(config)
    plain = EagerEngine(copy.deepcopy(student), CPU, torch.float32)
    engine = create(student, "cuda", "float32")
    assert isinstance(engine, GraphEngine)
    for seed, count in enumerate((1, 3, 1, 5, COUNTS[-1] + 3)):  # filled up, recorded before, cut in two
        assert largest_difference(maps_of(engine, count, seed), maps_of(plain, count, seed)) < 1e-4


@needs_gpu
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_recorded_step_in_half_precision(precision) -> None:
    student = student_of(SHAPES["no elimination"])
    plain = EagerEngine(copy.deepcopy(student), CPU, torch.float32)
    assert largest_difference(maps_of(create(student, "cuda", precision), 3), maps_of(plain, 3)) < 0.1


@needs_gpu
def test_recorded_steps_do_not_grow_and_give_their_memory_back() -> None:
    gc.collect()
    before = torch.cuda.memory_allocated()
    engine = create(student_of(TWO), "cuda")
    maps_of(engine, 4)
    one = torch.cuda.memory_allocated()
    for seed in range(50):
        maps_of(engine, 1 + seed % 4, seed)
    recorded = torch.cuda.memory_allocated()
    for seed in range(50):
        maps_of(engine, 1 + seed % 4, seed)
    assert torch.cuda.memory_allocated() == recorded
    assert one > before
    engine.close()
    del engine
    gc.collect()
    assert torch.cuda.memory_allocated() <= before
