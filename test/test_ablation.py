"""The ablation trains every variant once, compares all on the same data, and does not repeat what is finished."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from test_benchmarks import benchmark, invoke, write_peer_data  # noqa: F401

from ckd_tracker_ros.network.config import NetworkConfig
from ckd_tracker_ros.training.config import load_config
from ckd_tracker_ros.training.contexts import scene_tracks, stack
from ckd_tracker_ros.training.samples import SampleConfig, Sampler

TINY = {
    "patch": 8, "template_size": 16, "search_size": 32, "width": 16, "depth": 2, "heads": 2, "head_channels": 16,
    "joint_from": 1, "shared": True, "elimination_blocks": [],
}  # fmt: skip


def command(folder: Path, model: Path) -> list[object]:
    """A whole ablation of seconds."""
    values = {
        "network": TINY,
        "data": {"scenes": 4, "every": 2, "processes": 1, "held_back": 0.5},
        "samples": {"targets": 2, "hidden": 0.25},
        "distillation": {"early_frozen": True},
        "train": {
            "steps": 2, "batch": 2, "rates": {"head": 1e-2, "joint": 1e-2, "early": 0}, "average": 0, "validation": 0,
            "threads": 1, "warm_up": 0,
        },
    }  # fmt: skip
    (folder / "small.yaml").write_text(yaml.safe_dump(values))
    return [
        "--config", folder / "small.yaml", "--out", folder / "out", "--seeds", 1, "--scenes", 1, "--frames", 3,
        "--evaluate", write_peer_data(folder / "data") / "m3svd", "--model", model, "--seconds", 0, "--device", "cpu",
    ]  # fmt: skip


def test_every_variant_is_trained_once_and_compared(benchmark, tmp_path, tiny_checkpoint):  # noqa: F811
    module, arguments = benchmark("ablation"), command(tmp_path, tiny_checkpoint)
    done = invoke(module, *arguments)
    assert done.exit_code == 0, done.output
    variants, tracks, elimination = json.loads((tmp_path / "out" / "ablation.json").read_text())["tables"]
    assert [row["variant"] for row in variants["rows"]] == list(module.VARIANTS)
    assert all(0 <= row["pairs"]["mean"] <= 1 and row["scenes"]["deviation"] is None for row in variants["rows"])
    assert variants["rows"][0]["scenes - full"]["mean"] == 0
    learned = {file.read_bytes() for file in (tmp_path / "out").glob("*/student.safetensors")}
    assert len(learned) == len(module.VARIANTS), "each learns otherwise"
    assert all(row["body"]["mean"] == v["m3svd"]["mean"] for row, v in zip(tracks["rows"], variants["rows"]))
    assert [row["elimination"] for row in elimination["rows"]] == ["off", "multimodal", "independent"]
    assert [row["search tokens"] for row in elimination["rows"]] == ["64", "64 > 45", "64 > 45"]
    assert elimination["rows"][0]["of off"]["median"] == 1
    assert not list((tmp_path / "out").glob("*/state.pt"))

    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*/student.safetensors")}
    assert len(files) == len(module.VARIANTS)
    assert invoke(module, *arguments).exit_code == 0
    assert {file: file.stat().st_mtime_ns for file in files} == files
    refused = invoke(module, *arguments, "--steps", 3)
    assert refused.exit_code == 2 and "other settings" in " ".join(refused.output.split())


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--config", "nonesuch"), "nonesuch"),
        (("--model", "nonesuch"), "nonesuch"),
        (("--set", "samples.hiden=1"), "hiden"),
        (("--data", "nowhere", "--scenes", 1, "--frames", 2), "nowhere"),
    ],
)
def test_what_cannot_be_compared_is_refused(benchmark, tmp_path, arguments, reason):  # noqa: F811
    done = invoke(benchmark("ablation"), "--out", tmp_path, *arguments)
    assert done.exit_code == 2 and reason in done.output


def test_the_installed_configuration_is_the_full_method():
    config = load_config("ablation")
    method = config.distillation
    assert (method.style, method.content, method.teachers, config.samples.hidden) == (0.01, 0.1, True, 0.25)


def test_networks_of_one_modality_get_the_same_samples():
    tracks = scene_tracks(1, 2, side=48)
    bank, config = stack(tracks, [1.0] * len(tracks)), SampleConfig(targets=2, missing=1.0)
    both, rgb, thermal = (
        Sampler(bank, NetworkConfig.from_dict({**TINY, "modalities": names}), config).draw(range(6), 0)
        for names in (["rgb", "thermal"], ["rgb"], ["thermal"])
    )
    for i, one in enumerate((rgb, thermal)):
        assert torch.equal(one.searches, both.searches[:, i : i + 1])
        assert torch.equal(one.templates, both.templates[:, :, i : i + 1])
        assert one.present.shape == (6, 1) and one.present.all(), "the only camera is never missing"
    assert (both.present.sum(1) == 1).all()
