"""What each part of the method is worth: short trainings that differ in one thing, and elimination at test time.

All trainings share one bank of training data and take the same samples, the same number of steps and, seed by seed, the
same random numbers. They are compared on generated scenes and on tracks that no training saw. A training that is
finished is not repeated: its result lies in its folder.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from common import JsonOption
from numpy.typing import NDArray
from peers import paired_recordings
from rich.console import Console

from ckd_tracker_ros import boxes
from ckd_tracker_ros.engine import DeviceError, create
from ckd_tracker_ros.evaluation.speed import MIN_ROUNDS, Case, find_student, milliseconds
from ckd_tracker_ros.evaluation.timing import Report, noise_frame, ratios
from ckd_tracker_ros.frame import RgbtFrame
from ckd_tracker_ros.network import checkpoint
from ckd_tracker_ros.network.config import CONFIGS, ELIMINATIONS, NetworkConfig
from ckd_tracker_ros.sequences import SequenceError, true_box
from ckd_tracker_ros.synthetic import Scene, random_config
from ckd_tracker_ros.tracker import Tracker
from ckd_tracker_ros.training import loop
from ckd_tracker_ros.training.config import TrainingConfig, load_config
from ckd_tracker_ros.training.contexts import MIN_SIZE, Bank, misplaced
from ckd_tracker_ros.training.data import DataError, Feeds, Shape, memory_feeds, read_bank
from ckd_tracker_ros.training.distillation import PLAIN, CoupledDistillation
from ckd_tracker_ros.training.typed import ConfigError

FULL = "full"
VARIANTS = {
    FULL: [],
    "rgb only": ["network.modalities=[rgb]"],
    "thermal only": ["network.modalities=[thermal]"],
    "without style and content": ["distillation.style=0", "distillation.content=0"],
    "without masking": ["samples.hidden=0"],
}
"""Name -> changes of the configuration."""

SCENE_SEED = 1_000_000
"""Of the first scene that is evaluated on; those of training are counted from 0."""
SCENE_SIZE = (640, 480)
STRIDE = 3
"""Frames of a scene from one step to the next: faster than in training is not asked for, slower would be too easy."""
MOST_TARGETS = 2
"""Of one scene."""
SEEN = 0.5
"""Share of a target that has to be visible for its box to count."""
PAIRS, PAIR_BATCH = 48, 8
RESULT = "result.json"
KEEP = 0.7
"""Share of the search tokens that elimination keeps in a network that was trained without."""
OFF = "off"


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames in memory.

    Attributes:
        name: of the scene or track.
        frames: in order; targets start in the first.
        truths: (frames, targets, 4) xywh in RGB pixels, NaN where a target does not count.
    """

    name: str
    frames: list[RgbtFrame]
    truths: NDArray[np.float64]


@dataclass(frozen=True)
class Mean:
    """Mean and standard deviation over seeds."""

    mean: float
    deviation: float
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """Deviation NaN of fewer than two."""
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
        return cls(float(np.mean(values)), deviation, tuple(values))

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.deviation:.3f}" if np.isfinite(self.deviation) else f"{self.mean:.3f}"


def generated_clips(count: int, frames: int) -> Iterator[Clip]:
    """Scenes that no training sees, of random difficulty; those without a visible target at the start are skipped."""
    seed = SCENE_SEED
    while count:
        width, height = SCENE_SIZE
        config = random_config(
            np.random.default_rng(seed), width=width, height=height, frames=STRIDE * frames, homography=None,
            thermal_size=None,
        )  # fmt: skip
        scene, numbers = Scene(config, seed), range(0, STRIDE * frames, STRIDE)
        seed += 1
        truths = np.array([scene.boxes(i) for i in numbers], np.float64)
        truths[np.array([scene.visible(i) for i in numbers]) <= SEEN] = np.nan
        usable = [
            k
            for k, box in enumerate(truths[0])
            if np.sqrt(box[2] * box[3]) >= MIN_SIZE and not misplaced(box, SCENE_SIZE)
        ]
        if usable:
            yield Clip(f"scene {seed - 1}", [scene.frame(i) for i in numbers], truths[:, usable[:MOST_TARGETS]])
            count -= 1


def recorded_clips(folder: Path, frames: int) -> Iterator[Clip]:
    """The first frames of each track of a folder of paired videos.

    Raises:
        SequenceError: a recording that cannot be read.
    """
    for sequence in paired_recordings(folder):
        numbers = range(sequence.first_frame, sequence.first_frame + min(frames, len(sequence.boxes)))
        truths = np.array([[true_box(sequence, i)] for i in numbers])
        yield Clip(sequence.name, [sequence.frame(i) for i in numbers], truths)


def mean_iou(tracker: Tracker, clip: Clip) -> float:
    """Mean IoU of all targets behind the first frame, each followed to the end without a restart."""
    states = [tracker.start(clip.frames[0], box) for box in clip.truths[0]]
    ious: list[float] = []
    for frame, truth in zip(clip.frames[1:], clip.truths[1:]):
        states, estimates = tracker.step_many(states, frame)
        counts = np.isfinite(truth).all(axis=1)
        ious += boxes.iou(np.stack([estimate.box for estimate in estimates]), truth)[counts].tolist()
    return float(np.mean(ious))


Clips = dict[str, list[Clip]]
"""Clips to evaluate on, by the name of their kind."""


def tracked(tracker: Tracker, clips: Clips) -> dict[str, dict[str, float]]:
    """Mean IoU of each clip, by kind and name."""
    return {kind: {clip.name: mean_iou(tracker, clip) for clip in group} for kind, group in clips.items()}


class Ablation:
    """Trainings on one bank, evaluated on the same clips and pairs.

    Args:
        bank: on the training device.
        problems: what could not be read of the data.
    """

    def __init__(self, bank: Bank, problems: list[str], clips: Clips, device: str) -> None:
        self._bank, self._problems, self._clips, self._device = bank, problems, clips, device

    def run(self, config: TrainingConfig, out: Path) -> dict[str, Any]:
        """Train and evaluate, unless `out` has the result already.

        Raises:
            typer.BadParameter: it has that of other settings.
            typer.Exit: interrupted; the next call goes on from there.
        """
        evaluated = {kind: [f"{c.name}, {len(c.frames)} frames" for c in group] for kind, group in self._clips.items()}
        settings = {**config.to_dict(), "evaluated": evaluated}
        file = out / RESULT
        if file.is_file():
            found = json.loads(file.read_text())
            if found["settings"] != settings:
                raise typer.BadParameter(f"{file} is of other settings; remove it, or name another folder with --out")
            return found
        began = time.monotonic()
        feeds = self._feeds(config, config.train.seed)
        outcome = loop.train(config, out, self._device, 0, Console(quiet=True), feeds)
        if outcome.reason != "finished":
            raise typer.Exit(1)
        trained = time.monotonic()
        weights = out / f"student{checkpoint.SUFFIX}"
        result = {
            "settings": settings,
            "tracked": tracked(Tracker.from_checkpoint(weights, self._device), self._clips),
            "pairs": self._pairs(config, weights),
            "seconds": {"training": trained - began, "evaluation": time.monotonic() - trained},
        }
        file.write_text(json.dumps(result, indent=1) + "\n")
        for large in (loop.STATE, *(f"teacher_{name}{checkpoint.SUFFIX}" for name in config.network.modalities)):
            (out / large).unlink(missing_ok=True)
        return result

    def _feeds(self, config: TrainingConfig, seed: int) -> Feeds:
        return memory_feeds(self._bank, Shape(config.network, config.samples, config.data), seed, self._problems)

    def _pairs(self, config: TrainingConfig, weights: Path) -> dict[str, float]:
        """IoU at the best cell on held-back tracks: the same pairs for all, both cameras there, nothing hidden."""
        seen_whole = replace(config, samples=replace(config.samples, missing=0.0, hidden=0.0))
        task = CoupledDistillation(config.network, PLAIN, lambda _: checkpoint.load(weights))
        task.to(self._bank.pixels.device)
        return loop.validate(task, self._feeds(seen_whole, 0).held_back, PAIRS, PAIR_BATCH)


def compare_variants(report: Report, runs: dict[str, list[dict[str, Any]]], clips: Clips) -> None:
    """Adds a table of all measures, and one of each recorded track."""

    def overlap(result: dict[str, Any], kind: str) -> float:
        return float(np.mean(list(result["tracked"][kind].values())))

    rows = []
    for variant, results in runs.items():
        row: dict[str, Any] = {"variant": variant}
        for kind in clips:
            row[kind] = Mean.of([overlap(result, kind) for result in results])
            gains = [overlap(result, kind) - overlap(full, kind) for result, full in zip(results, runs[FULL])]
            row[f"{kind} - full"] = Mean.of(gains)
        row["pairs"] = Mean.of([result["pairs"]["iou"] for result in results])
        row["pairs near"] = Mean.of([result["pairs"]["near"] for result in results])
        row["seconds"] = float(np.mean([sum(result["seconds"].values()) for result in results]))
        rows.append(row)
    note = "Mean IoU, ± standard deviation over seeds; near: best cell within a cell of the truth."
    report.add("Trainings that differ in one thing", f"{FULL}, seed by seed", rows, note)
    for kind in list(clips)[1:]:
        rows = [
            {"variant": variant} | {c.name: Mean.of([r["tracked"][kind][c.name] for r in results]) for c in clips[kind]}
            for variant, results in runs.items()
        ]
        report.add(f"Tracks of {kind}", "none; not used to choose anything", rows, "Mean IoU, ± over seeds.")


def eliminations(config: NetworkConfig) -> dict[str, NetworkConfig]:
    """The network without elimination, and with each kind: where it has it, else at its first joint block."""
    blocks, keep = config.elimination_blocks, config.elimination_keep
    if not blocks:
        blocks, keep = (config.joint_from,), KEEP
    changed = {
        kind: replace(config, elimination=kind, elimination_blocks=blocks, elimination_keep=keep)
        for kind in ELIMINATIONS
    }
    return {OFF: replace(config, elimination_blocks=()), **changed}


def compare_eliminations(report: Report, model: str, device: str, clips: Clips, seconds: float) -> None:
    """Adds a table of one network: accuracy (not of random weights) and step time by kind of elimination."""
    student, weights = find_student(model)
    configs = eliminations(student.config)
    engine = create(student, device)  # runs `student` itself, whose configuration is read at every step
    case, tracker = Case(engine, noise_frame(SCENE_SIZE), 1), Tracker(engine)
    times: dict[str, list[float]] = {kind: [] for kind in configs}
    case.step()
    end = time.monotonic() + seconds
    while len(times[OFF]) < MIN_ROUNDS or time.monotonic() < end:
        for kind, student.config in configs.items():
            times[kind].append(case.step())
    rows = []
    for kind, student.config in configs.items():
        measured = {} if weights == "random" else tracked(tracker, clips)
        accuracy = {name: float(np.mean(list(ious.values()))) for name, ious in measured.items()}
        tokens = (student.config.search_grid**2, *student.config.kept_tokens)
        rows.append(
            {"elimination": kind, "search tokens": " > ".join(map(str, tokens)), **accuracy}
            | {"step [ms]": milliseconds(times[kind]), "of off": ratios(times[kind], times[OFF])}
        )
    blocks = ", ".join(map(str, student.config.elimination_blocks))
    note = f"After the attention of block {blocks} of 0 to {student.config.depth - 1}; weights: {weights}."
    report.add(f"Elimination at test time, {model}", "off, in the same round", rows, note)


def main(
    out: Annotated[Path, typer.Option(help="folder of the trainings and their results")] = Path("out/ablation"),
    config: Annotated[str, typer.Option(help="training configuration, a file or an installed name")] = "ablation",
    data: Annotated[Path | None, typer.Option(help="folder of annotated stills and clips; none: scenes alone")] = None,
    init: Annotated[str, typer.Option(help="weights that all trainings start from")] = "",
    seeds: Annotated[int, typer.Option(min=1, help="trainings of each variant")] = 3,
    steps: Annotated[int, typer.Option(min=0, help="of each training; 0: what the configuration says")] = 0,
    changes: Annotated[list[str] | None, typer.Option("--set", help="key.sub=value, over the configuration")] = None,
    scenes: Annotated[int, typer.Option(min=1, help="to track in")] = 8,
    frames: Annotated[int, typer.Option(min=2, help="of each scene")] = 24,
    evaluate: Annotated[Path | None, typer.Option(help="also report on this folder of paired videos")] = None,
    recorded: Annotated[int, typer.Option(min=2, help="frames of each of its tracks")] = 60,
    model: Annotated[list[str] | None, typer.Option(help="for elimination; ckd_tiny and base by default")] = None,
    seconds: Annotated[float, typer.Option(help="of timing each model")] = 15.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    json_file: JsonOption = None,
) -> None:
    """Accuracy of trainings that differ in one thing, and what elimination costs and saves at test time."""
    models = model or ["ckd_tiny", "base"]
    given = [*(changes or [])]
    given += [f"init={json.dumps(init)}"] * bool(init) + [f"train.steps={steps}"] * bool(steps)
    given += [] if data is None else [f"data.stills={json.dumps(str(data))}"]
    try:
        planned = {
            (name, seed): load_config(config, [*given, *changed, f"train.seed={seed}"])
            for seed in range(seeds)
            for name, changed in VARIANTS.items()
        }
        for name in set(models) - set(CONFIGS):
            checkpoint.find_model(name)
        settings = planned[FULL, 0]
        report = Report("ablation", {"steps": settings.train.steps, "batch": settings.train.batch, "seeds": seeds})
        report.header()
        clips = {"scenes": list(generated_clips(scenes, frames))}
        if evaluate is not None:
            clips[evaluate.name] = list(recorded_clips(evaluate, recorded))
        problems: list[str] = []
        bank = read_bank(Shape(settings.network, settings.samples, settings.data), problems)
        ablation = Ablation(bank.to(loop.World().device(device)), problems, clips, device)
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in VARIANTS}
        for number, ((name, seed), each) in enumerate(planned.items(), 1):
            runs[name].append(ablation.run(each, out / f"{name.replace(' ', '_')}-{seed}"))
            taken = sum(runs[name][-1]["seconds"].values())
            report.console.print(f"{number} of {len(planned)}: {name}, seed {seed}: {taken:.0f} s", highlight=False)
    except (
        ConfigError, DataError, DeviceError, SequenceError, checkpoint.CheckpointError, loop.TrainingError,
    ) as error:  # fmt: skip
        raise typer.BadParameter(str(error)) from error
    compare_variants(report, runs, clips)
    for name in models:
        compare_eliminations(report, name, device, clips, seconds)
    report.write(json_file or out / "ablation.json")


if __name__ == "__main__":
    typer.run(main)
