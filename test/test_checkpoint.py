"""Weight files: our own, and published ones of every kind, generated at a small size."""

from __future__ import annotations

import os
import pickle
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ckd_tracker_ros.network import checkpoint
from ckd_tracker_ros.network.checkpoint import CheckpointError
from ckd_tracker_ros.network.config import TINY, NetworkConfig
from ckd_tracker_ros.network.convert import convert
from ckd_tracker_ros.network.student import Student

CONFIG = NetworkConfig(
    name="small", patch=4, template_size=16, search_size=32, width=16, depth=3, heads=2, elimination_blocks=(1,),
    head_channels=16,
)  # fmt: skip


def branch(seed: int, depth: int = 3) -> dict[str, torch.Tensor]:
    """A ViT as published: bare names, class token, one position table for 6 x 6 tokens."""
    student = Student(replace(CONFIG, depth=depth, modalities=("rgb",)))
    generator = torch.Generator().manual_seed(seed)
    state = {n.removeprefix("rgb_branch."): t for n, t in student.state_dict().items() if n.startswith("rgb_branch")}
    state = {n: torch.randn(t.shape, generator=generator) for n, t in state.items() if not n.startswith("pos_embed_")}
    return {
        **state,
        "cls_token": torch.zeros(1, 1, 16),
        "pos_embed": torch.randn(1, 37, 16, generator=generator),
    }


def tables(template: int, search: int) -> dict[str, torch.Tensor]:
    return {"pos_embed_z": torch.randn(1, template**2, 16), "pos_embed_x": torch.randn(1, search**2, 16)}


def head(inputs: int) -> dict[str, torch.Tensor]:
    from ckd_tracker_ros.network.head import CenterHead

    return {f"box_head.{name}": tensor for name, tensor in CenterHead(inputs, 16).state_dict().items()}


def ckd_state() -> dict[str, torch.Tensor]:
    state = {}
    for seed, name in enumerate(("rgb_branch", "tir_branch", "teacher_rgb", "teacher_tir")):
        state |= {f"{name}.{n}": t for n, t in {**branch(seed), **tables(4, 8)}.items()}
    state |= head(32)
    for teacher in ("v", "i"):
        state |= {n.replace("box_head", f"box_head_{teacher}"): t for n, t in head(16).items()}
    return state


@pytest.fixture
def foreign(monkeypatch):
    """Classes of a package that a reader of the file does not have."""
    module = types.ModuleType("authors_package")
    for name in ("Settings", "Meter"):
        setattr(module, name, type(name, (), {"__module__": "authors_package"}))
    monkeypatch.setitem(sys.modules, "authors_package", module)
    settings, meter = module.Settings(), module.Meter()
    settings.local, meter.history = {"a": meter}, [1.0, meter]
    return {"settings": settings, "stats": {"train": [meter]}}


def test_a_published_ckd_file_keeps_every_value(tmp_path, foreign, monkeypatch):
    state = ckd_state()
    torch.save({"net": state, "epoch": 30, **foreign}, tmp_path / "ckd.pth.tar")
    monkeypatch.delitem(sys.modules, "authors_package")
    with pytest.raises((pickle.UnpicklingError, ModuleNotFoundError)):
        torch.load(tmp_path / "ckd.pth.tar", weights_only=True)
    report = convert(tmp_path / "ckd.pth.tar", tmp_path / "ckd.safetensors", CONFIG, dtype=torch.float32)
    assert (report.kind, report.fresh, report.unused) == ("ckd", (), ())
    for name, tensor in checkpoint.load(tmp_path / "ckd.safetensors").state_dict().items():
        torch.testing.assert_close(tensor, state[name])
    config, provenance = checkpoint.read_metadata(tmp_path / "ckd.safetensors")
    assert config == CONFIG and provenance["converted_from"] == "ckd.pth.tar"


def test_a_bare_state_dict_in_the_old_format_is_accepted(tmp_path):
    torch.save(ckd_state(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert convert(tmp_path / "old.pth", tmp_path / "new.safetensors", CONFIG).kind == "ckd"


class Harm:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.system, (f"echo harmed > {self.path}",))


class Sneaky(Harm):
    def __reduce__(self):
        return (eval, (f"open({str(self.path)!r}, 'w').write('harmed')",))


@pytest.mark.parametrize("bad", [Harm, Sneaky])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_runs_nothing(tmp_path, bad, zipped):
    trap = tmp_path / "harmed"
    content = {"net": ckd_state(), "stats": bad(trap)}
    torch.save(content, tmp_path / "bad.pth", _use_new_zipfile_serialization=zipped)
    assert convert(tmp_path / "bad.pth", tmp_path / "good.safetensors", CONFIG).kind == "ckd"
    assert not trap.exists()
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(bad(trap)))
    with pytest.raises(CheckpointError):
        convert(tmp_path / "raw.pth", tmp_path / "none.safetensors", CONFIG)
    assert not trap.exists() and not (tmp_path / "none.safetensors").exists()
    torch.load(tmp_path / "bad.pth", weights_only=False)  # the trap is real
    assert trap.exists()


@pytest.mark.parametrize("drop", [False, True], ids=["OSTrack", "DropTrack"])
def test_a_single_modality_tracker_fills_both_branches(tmp_path, drop):
    state = {f"backbone.{n}": t for n, t in {**branch(0), **tables(6, 12)}.items()} | head(16)
    if drop:
        state |= {f"backbone.temporal_{n}": torch.full_like(t, 5.0) for n, t in tables(6, 12).items()}
    torch.save({"net": state}, tmp_path / "ostrack.pth")
    report = convert(tmp_path / "ostrack.pth", tmp_path / "o.safetensors", CONFIG, dtype=torch.float32)
    assert (report.kind, report.fresh, report.unused) == ("ostrack", (), ())
    found = checkpoint.load(tmp_path / "o.safetensors").state_dict()
    w = state["box_head.conv1_ctr.0.weight"]
    torch.testing.assert_close(found["box_head.conv1_ctr.0.weight"], torch.cat([w, w], dim=1))
    for name in ("rgb_branch", "tir_branch"):
        torch.testing.assert_close(
            found[f"{name}.blocks.2.attn.qkv.weight"], state["backbone.blocks.2.attn.qkv.weight"]
        )
        assert found[f"{name}.pos_embed_x"].shape == (1, 64, 16)
        assert (found[f"{name}.pos_embed_x"].mean() > 4) == drop


@pytest.mark.parametrize("kind", ["MAE", "timm"])
def test_a_plain_transformer_leaves_only_the_head_fresh(tmp_path, kind):
    state = branch(0, depth=5)
    if kind == "MAE":
        extra = {"decoder_embed.weight": torch.zeros(3, 3), "mask_token": torch.zeros(1, 1, 16)}
        torch.save({"model": state | extra}, tmp_path / "file.pth")
    else:
        gamma = {f"blocks.{i}.ls{j}.gamma": torch.full((16,), 0.5) for i in range(5) for j in (1, 2)}
        save_file(state | gamma, tmp_path / "file.safetensors")
    source = next(tmp_path.glob("file.*"))
    report = convert(source, tmp_path / "out.safetensors", CONFIG, dtype=torch.float32)
    assert report.kind == "vit" and report.unused == ()
    assert all(name.startswith("box_head.") for name in report.fresh)
    found = checkpoint.load(tmp_path / "out.safetensors").state_dict()
    scale = 1.0 if kind == "MAE" else 0.5
    torch.testing.assert_close(found["tir_branch.blocks.1.mlp.fc2.weight"], state["blocks.1.mlp.fc2.weight"] * scale)
    again = convert(source, tmp_path / "again.safetensors", CONFIG)
    assert again == report
    fresh = [load_file(tmp_path / f"{n}.safetensors")["box_head.conv1_ctr.0.weight"].float() for n in ("out", "again")]
    torch.testing.assert_close(*fresh, atol=1e-3, rtol=1e-2)


def test_dinov2_becomes_the_start_of_the_shipped_student(shared, tmp_path):
    source = shared / "weights" / "dinov2_vits14_timm_fp16.safetensors"
    report = convert(source, tmp_path / "start.safetensors", TINY, allow_fresh=True)
    own = ("box_head", "shared_branch.joint_embed", "shared_branch.target_embed")
    assert report.unused == () and all(name.startswith(own) for name in report.fresh)
    assert checkpoint.load(tmp_path / "start.safetensors").config == TINY


def test_what_does_not_fit_is_named(tmp_path):
    state = ckd_state()
    missing = state.pop("tir_branch.norm.weight")
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="tir_branch.norm.weight.*--allow-fresh"):
        convert(tmp_path / "a.pth", tmp_path / "out.safetensors", CONFIG)
    torch.save(state | {"tir_branch.norm.weight": missing, "rgb_branch.extra": missing}, tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match="rgb_branch.extra.*--allow-unused"):
        convert(tmp_path / "b.pth", tmp_path / "out.safetensors", CONFIG)
    assert convert(tmp_path / "b.pth", tmp_path / "out.safetensors", CONFIG, allow_unused=True).unused
    with pytest.raises(CheckpointError, match=r"\(16, 3, 4, 4\) in the file and \(32, 3, 4, 4\)"):
        convert(tmp_path / "b.pth", tmp_path / "out.safetensors", replace(CONFIG, width=32), allow_unused=True)
    torch.save({"layer1.0.weight": missing}, tmp_path / "resnet.pth")
    with pytest.raises(CheckpointError, match="not a CKD, OSTrack.*layer1.0.weight"):
        convert(tmp_path / "resnet.pth", tmp_path / "out2.safetensors", CONFIG)
    assert not (tmp_path / "out2.safetensors").exists()


@pytest.mark.parametrize("content", [b"", b"nonsense" * 100, b"\x80\x04", b"PK\x03\x04broken"])
def test_damaged_files_of_others_are_refused(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.pth"):
        convert(tmp_path / "x.pth", tmp_path / "out.safetensors", CONFIG)
    with pytest.raises(CheckpointError, match="no checkpoint file"):
        convert(tmp_path / "none.pth", tmp_path / "out.safetensors", CONFIG)


def test_our_own_files_come_back_as_they_were(tmp_path, tiny_student):
    checkpoint.save(tmp_path / "m.safetensors", tiny_student, {"licence": "Apache-2.0"}, torch.float32)
    again = checkpoint.load(tmp_path / "m.safetensors")
    assert again.config == tiny_student.config and not again.training
    for name, tensor in tiny_student.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor)
    assert checkpoint.read_metadata(tmp_path / "m.safetensors")[1] == {"licence": "Apache-2.0"}


def test_damaged_weight_files_are_refused_with_the_reason(tmp_path, tiny_checkpoint, tiny_student):
    whole = tiny_checkpoint.read_bytes()
    for name, content, words in (
        ("cut", whole[: len(whole) // 2], "not a readable safetensors|damaged"),
        ("empty", b"", "not a readable safetensors"),
        ("text", b"hello", "ckd-tracker convert"),
    ):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=words):
            checkpoint.load(path)
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="no network configuration"):
        checkpoint.load(tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="no weight file"):
        checkpoint.load(tmp_path / "none.safetensors")
    broken = Student(tiny_student.config)
    broken.box_head.conv5_ctr.bias.data[0] = float("nan")
    checkpoint.save(tmp_path / "nan.safetensors", broken, {})
    with pytest.raises(CheckpointError, match="not finite in box_head.conv5_ctr.bias"):
        checkpoint.load(tmp_path / "nan.safetensors")
    wider = Student(replace(tiny_student.config, head_channels=32))
    broken.config = wider.config
    checkpoint.save(tmp_path / "wrong.safetensors", broken, {})
    with pytest.raises(CheckpointError, match="tensors do not fit.*box_head"):
        checkpoint.load(tmp_path / "wrong.safetensors")


def test_models_are_found_by_name_and_by_path(tmp_path, tiny_checkpoint, monkeypatch):
    assert checkpoint.find_model(str(tiny_checkpoint)) == tiny_checkpoint
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    place = tmp_path / "share" / "ckd_tracker_ros" / "models" / "mine.safetensors"
    place.parent.mkdir(parents=True)
    place.write_bytes(tiny_checkpoint.read_bytes())
    assert checkpoint.find_model("mine") == place
    with pytest.raises(CheckpointError, match="(?s)no model 'nothing'.*share.*models"):
        checkpoint.find_model("nothing")
    assert checkpoint.load(place).state_dict()["box_head.conv5_ctr.bias"].isfinite().all()
