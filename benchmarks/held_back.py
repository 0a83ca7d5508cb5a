"""What a model's settings are chosen by: long sequences of nothing that it was trained on, or is judged by.

The targets of a held-back clip as a moving camera sees them, clear, in smoke, at a third of the rate and with one
camera alone, and generated scenes whose targets change their size. Each `--set` is compared with the model as it is.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import yaml
from common import JsonOption
from rich.progress import track

from ckd_tracker_ros.engine import DeviceError, create
from ckd_tracker_ros.evaluation.confidence import Case, clip_cases, follow, view_cases
from ckd_tracker_ros.evaluation.timing import Report
from ckd_tracker_ros.network import checkpoint
from ckd_tracker_ros.network.config import NetworkConfig
from ckd_tracker_ros.sequences import SceneSequence, Sequence, SequenceError
from ckd_tracker_ros.synthetic import Scene, SceneConfig, random_config
from ckd_tracker_ros.tracker import Tracker

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
FIRST_SEED = 2_000_000
SCENE_FRAMES = 200
CONFIGURABLE = ("size_rate", "size_trust", "motion", "outline")


def scene_cases(count: int) -> list[Case]:
    """Targets that never leave or hide, and become up to three times as large or small."""
    cases = []
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        rng = np.random.default_rng(seed)
        change, rivals = float(rng.uniform(1.5, 3)), int(rng.integers(0, 3))
        config = random_config(
            rng, frames=SCENE_FRAMES, absence=0.0, occlusion=0.0, scale_change=change, look_alikes=rivals, fps=15.0
        )

        def open_scene(config: SceneConfig = config, seed: int = seed) -> Sequence:
            return SceneSequence(Scene(config, seed))

        cases.append(Case("scenes", f"scene_{seed}", "target_0", open_scene))
    return cases


def parse_settings(texts: list[str]) -> list[dict[str, Any]]:
    """`size_rate=0.3,motion=true` as changes of a network's configuration.

    Raises:
        typer.BadParameter: no such setting, or not of the form.
    """
    settings = []
    for text in texts:
        pairs = [part.partition("=") for part in text.split(",")]
        if wrong := [name for name, equals, _ in pairs if name not in CONFIGURABLE or not equals]:
            raise typer.BadParameter(f"--set {wrong[0]!r}; allowed: NAME=VALUE of {', '.join(CONFIGURABLE)}")
        settings.append({name: yaml.safe_load(value) for name, _, value in pairs})
    return settings


def main(
    model: Annotated[str, typer.Option(help="model file, or the name of an installed one")] = "ckd_tiny",
    change: Annotated[
        list[str] | None, typer.Option("--set", help="e.g. size_rate=0.3,motion=true; repeatable")
    ] = None,
    clips: Annotated[Path, typer.Option(help="folder of clips of both cameras")] = SHARED / "data" / "m3svd_clips",
    labels: Annotated[Path, typer.Option(help="boxes of the clips")] = (
        ROOT / "config" / "train" / "m3svd_clips_held_back.json"
    ),
    kind: Annotated[str, typer.Option(help="of the targets in the clips")] = "person",
    scenes: Annotated[int, typer.Option(min=0, help="number of generated scenes")] = 16,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    json_file: JsonOption = None,
) -> None:
    """Mean IoU of a model under several settings on held-back sequences."""
    changes = parse_settings(change or [])
    try:
        network = checkpoint.load(checkpoint.find_model(model))
        cases = scene_cases(scenes)
        if clips.is_dir():
            cases = [*view_cases(clip_cases(clips, labels, (), kind)), *cases]
        if not cases:
            raise typer.BadParameter(f"nothing to follow: no clips in {clips} and --scenes 0")
        report = Report("held_back", {"model": model, "cases": len(cases)})
        report.header()
        rows, as_it_is = [], network.config
        for changed in [{}, *changes]:
            network.config = checked(as_it_is, changed)
            tracker = Tracker(create(copy.deepcopy(network), device))
            ious: dict[str, list[float]] = defaultdict(list)
            for case in track(cases, str(changed), console=report.console, transient=True):
                ious[case.group].append(float(np.mean([sample.iou for sample in follow(tracker, case)])))
            means = {group: float(np.mean(values)) for group, values in ious.items()}
            name = ", ".join(f"{key} {value}" for key, value in changed.items()) or "as it is"
            rows.append({"setting": name, **means, "mean": float(np.mean(list(means.values())))})
    except (checkpoint.CheckpointError, DeviceError, SequenceError) as error:
        raise typer.BadParameter(str(error)) from error
    report.add("Mean IoU", "the true boxes; 0 without the target; the mean is that of the groups", rows)
    report.write(json_file)


def checked(config: NetworkConfig, changed: dict[str, Any]) -> NetworkConfig:
    """The configuration with changes.

    Raises:
        typer.BadParameter: a value that is not allowed.
    """
    try:
        return replace(config, **changed)
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(str(error)) from error


if __name__ == "__main__":
    typer.run(main)
