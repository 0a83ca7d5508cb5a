"""Makes a model's confidence a probability: `python -m ckd_tracker_ros.evaluation.confidence --model M --results DIR`.

Follows targets through sequences that the network was not trained on, failures included: generated scenes with rivals,
occlusion and absence, labelled clips of both cameras, the same clips seen by a moving camera, sparse drone videos of
one. Writes the evidence of every step and
its IoU with the truth, fits the calibration, judges it with each video left out of its own fit, and writes the model
with it; the weights of the network stay as they are. With --evaluate it only judges a model on given recordings.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ckd_tracker_ros import boxes
from ckd_tracker_ros.calibration import Calibration, features, probability
from ckd_tracker_ros.engine import DeviceError
from ckd_tracker_ros.evaluation import reliability
from ckd_tracker_ros.frame import MODALITIES, RgbtFrame
from ckd_tracker_ros.network import checkpoint
from ckd_tracker_ros.sequences import (
    MovingView,
    SceneSequence,
    Sequence,
    SequenceError,
    ViewConfig,
    list_tracks,
    open_sequence,
    true_box,
)
from ckd_tracker_ros.sequences.recording import Recording
from ckd_tracker_ros.sequences.stills import read_stills
from ckd_tracker_ros.synthetic import Scene, random_config
from ckd_tracker_ros.tracker import BoxError, Tracker

FIRST_SEED = 1_000_000
"""Of the scenes: far from those that training draws."""
SCENE_FRAMES = 90
VIEWS = {
    "clear": (ViewConfig(frames=160), MODALITIES),
    "clear, 10 Hz": (ViewConfig(frames=80, stride=3), MODALITIES),
    "jerks": (ViewConfig(frames=80, stride=3, shake=0.05), MODALITIES),
    "smoke": (ViewConfig(frames=160, smoke=0.95), MODALITIES),
    "smoke, faint heat": (ViewConfig(frames=160, smoke=0.95, contrast=0.35), MODALITIES),
    "thermal": (ViewConfig(frames=160), MODALITIES[1:]),
    "rgb": (ViewConfig(frames=160), MODALITIES[:1]),
}
"""Ways of looking at a clip with a moving camera, and the cameras that are used."""
DRONES_HELD_BACK = 20
"""Every so many-th drone video, in the order of their names, is used."""


@dataclass(frozen=True)
class Sample:
    """One step of the tracker: where, its evidence (see `frame.Estimate`), and its IoU; 0 without the target."""

    group: str
    video: str
    target: str
    frame: int
    cameras: int
    confidence: float
    peak: float
    windowed_peak: float
    second_peak: float
    second_distance: float
    width: float
    height: float
    iou: float


@dataclass(frozen=True)
class Case:
    """A target to follow.

    Attributes:
        group, video: that it belongs to; all cases of one video are left out together.
        target: for people.
        open: gives the sequence.
        cameras: that are used.
    """

    group: str
    video: str
    target: str
    open: Callable[[], Sequence]
    cameras: tuple[str, ...] = MODALITIES


def scene_cases(count: int) -> Iterator[Case]:
    """Generated scenes; of four in a row, one each is seen by only one camera."""
    for number in range(count):
        seed = FIRST_SEED + number

        def open_scene(seed: int = seed) -> Sequence:
            return SceneSequence(Scene(random_config(np.random.default_rng(seed), frames=SCENE_FRAMES), seed))

        cameras = {2: MODALITIES[:1], 3: MODALITIES[1:]}.get(number % 4, MODALITIES)
        yield Case("scenes", f"scene_{seed}", "target_0", open_scene, cameras)


def clip_cases(folder: Path, labels: Path, names: Iterable[str], kind: str | None = None) -> Iterator[Case]:
    """Labelled clips: each target with both cameras, and with one, in turn.

    Args:
        folder: of the clips.
        labels: <clip>.json, target -> {first_frame, boxes_xywh}, in this folder; or one file, clip -> the same.
        names: of the clips to use; none: all that are labelled.
        kind: of the targets to use, as the labels call it; None: all.

    Raises:
        SequenceError: the labels cannot be used, or a clip has none.
    """
    try:
        names, files = list(names), sorted(labels.glob("*.json"))
        found = {file.stem: json.loads(file.read_text()) for file in files} or json.loads(labels.read_text())
        if missing := sorted(set(names) - set(found)):
            raise SequenceError(f"{labels} has no clip {missing[0]!r}; it has: {', '.join(found)}")
        for clip in sorted(names or found):
            for number, (target, label) in enumerate(found[clip].items()):
                if kind not in (None, label.get("kind")):
                    continue
                rows = [[np.nan] * 4 if box is None else box for box in label["boxes_xywh"]]
                truth, first = np.array(rows, np.float64).reshape(-1, 4), int(label["first_frame"])

                def open_clip(path: Path = folder / clip, truth: NDArray = truth, first: int = first) -> Sequence:
                    return Recording(path.name, open_sequence(path).sources, truth, first)

                for cameras in (MODALITIES, (MODALITIES[number % 2],)):
                    yield Case("clips", clip, target, open_clip, cameras)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, SequenceError):
            raise
        raise SequenceError(
            f"{labels} cannot be used: {error!r}; expected: clip -> target -> {{first_frame, boxes_xywh}}"
        ) from error


def view_cases(clips: Iterable[Case], seed: int = FIRST_SEED) -> Iterator[Case]:
    """The targets of clips that a moving camera follows, each in every one of `VIEWS`."""
    unique = {(clip.video, clip.target): clip for clip in clips}
    for number, clip in enumerate(unique.values()):
        for place, (name, (config, cameras)) in enumerate(VIEWS.items()):
            movement = seed + len(VIEWS) * number + place

            def open_view(clip: Case = clip, config: ViewConfig = config, movement: int = movement) -> Sequence:
                return MovingView(clip.open(), config, movement)

            yield Case(f"views, {name}", clip.video, clip.target, open_view, cameras)


def drone_cases(folder: Path) -> Iterator[Case]:
    """Every `DRONES_HELD_BACK`-th of the drone videos: a few frames each, seconds apart, so that many targets get away.

    Raises:
        SequenceError: no annotations there.
    """
    videos: dict[str, list] = {}
    for still in read_stills(folder).stills:
        if still.sequence is not None and len(still.boxes) == 1:
            videos.setdefault(still.sequence, []).append(still)
    for name in sorted(videos)[DRONES_HELD_BACK - 1 :: DRONES_HELD_BACK]:
        stills = sorted(videos[name], key=lambda still: still.path)
        truth, modality = np.concatenate([still.boxes for still in stills]), stills[0].modality

        def open_video(path: Path = stills[0].path.parent, truth: NDArray = truth, camera: str = modality) -> Sequence:
            return Recording(path.name, open_sequence(path, modality=camera).sources, truth)

        yield Case("drones", name, name, open_video, (modality,))


def track_cases(folder: Path) -> Iterator[Case]:
    """Tracks through videos of both cameras, with both and with each alone; or, of a folder of sequences, each."""
    tracks = list_tracks(folder)
    for name in tracks:
        if open_sequence(folder, name).boxes is not None:
            for cameras in (MODALITIES, *((camera,) for camera in MODALITIES)):
                group = f"{folder.name}, {' and '.join(cameras)}"
                yield Case(group, name, name, lambda name=name: open_sequence(folder, name), cameras)
    for path in sorted(path for path in folder.iterdir() if path.is_dir()) if not tracks else ():
        camera = MODALITIES[path.name.startswith("tir_")]
        yield Case(folder.name, path.name, path.name, lambda p=path, c=camera: open_sequence(p, modality=c), (camera,))


def follow(tracker: Tracker, case: Case) -> Iterator[Sample]:
    """Steps from the first true box to the last one; a frame between them without one is one without the target.

    Raises:
        BoxError: the first box cannot be tracked.
        SequenceError: a frame cannot be read.
    """
    sequence = case.open()
    first = next(i for i in range(sequence.first_frame, len(sequence)) if np.isfinite(true_box(sequence, i)).all())

    def seen(i: int) -> RgbtFrame:
        frame = sequence.frame(i)
        images = (image if name in case.cameras else None for name, image in zip(MODALITIES, frame.images))
        return RgbtFrame(tuple(images), frame.stamp_ns)

    state = tracker.start(seen(first), true_box(sequence, first))
    for i in range(first + 1, sequence.first_frame + len(sequence.boxes)):
        state, estimate = tracker.step(state, seen(i))
        truth = true_box(sequence, i)
        overlap = float(boxes.iou(estimate.box, truth)) if np.isfinite(truth).all() else 0.0
        yield Sample(
            case.group, case.video, case.target, i, sum(estimate.present), estimate.confidence, estimate.peak,
            estimate.windowed_peak, estimate.second_peak, estimate.second_distance, *estimate.box[2:].tolist(), overlap,
        )  # fmt: skip


def collect(tracker: Tracker, cases: list[Case], console: Console) -> Iterator[Sample]:
    """All samples; a target whose first box is too small is left out, and said so."""
    for case in track(cases, "following", console=console, transient=True, disable=not console.is_terminal):
        try:
            yield from follow(tracker, case)
        except BoxError as error:
            console.print(f"{case.video} {case.target} left out: {error}", markup=False)


def write_samples(file: Path, samples: Iterable[Sample]) -> list[Sample]:
    """As a table with the names of `Sample`'s fields, each line as its sample comes; gives the samples back."""
    written = []
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as stream:
        table = csv.DictWriter(stream, [field.name for field in fields(Sample)])
        table.writeheader()
        for sample in samples:
            table.writerow(asdict(sample))
            written.append(sample)
    return written


def read_samples(file: Path) -> list[Sample]:
    """The way back.

    Raises:
        ValueError: it is not such a table.
        OSError: it cannot be read.
    """
    kinds = {field.name: {"str": str, "int": int, "float": float}[field.type] for field in fields(Sample)}
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    if not rows or set(rows[0]) != set(kinds):
        raise ValueError(f"{file} is no table of {', '.join(kinds)}")
    return [Sample(**{name: kinds[name](value) for name, value in row.items()}) for row in rows]


def column(samples: list[Sample], name: str) -> NDArray:
    """(N,) one field of all samples."""
    return np.array([getattr(sample, name) for sample in samples])


def judged(samples: list[Sample], confidences: dict[str, NDArray]) -> Table:
    """Errors of confidences by group: expected calibration error with equal and with adaptive bins, and AUROC."""
    groups, good = column(samples, "group"), column(samples, "iou") > 0.5
    table = Table("group", "samples", "IoU > 0.5", *(f"{name}: ECE, adaptive, AUROC" for name in confidences))
    for group in [*dict.fromkeys(groups.tolist()), "all"]:
        inside = (groups == group) | (group == "all")
        cells = []
        for confidence in confidences.values():
            pair = confidence[inside], good[inside]
            errors = (reliability.calibration_error(*pair, adaptive=adaptive) for adaptive in (False, True))
            cells.append(" ".join(f"{value:.3f}" for value in (*errors, reliability.auroc(*pair))))
        table.add_row(group, str(inside.sum()), f"{good[inside].mean():.3f}", *cells)
    return table


def calibrate(samples: list[Sample], results: Path, console: Console) -> tuple[Calibration, dict[str, float]]:
    """Fits to all samples and reports with each video left out; writes reliability.png.

    Returns:
        The calibration, and numbers for the model's provenance.

    Raises:
        FitError: too few videos, or no hits or no misses among them.
    """
    iou, videos, peak, second = (column(samples, name) for name in ("iou", "video", "peak", "second_peak"))
    rows = features(peak, second)
    good = iou > 0.5
    calibration = Calibration(tuple(round(value, 4) for value in reliability.fit(rows, good).tolist()))
    confidence = reliability.left_out(rows, good, videos)
    limits = reliability.thresholds(probability(calibration.weights, rows), iou)
    console.print(judged(samples, {"peak": peak, "calibrated, left out": confidence}))
    reliability.plot(results / "reliability.png", [("peak", peak, good), ("calibrated", confidence, good)])
    console.print(f"calibration {calibration.weights}", soft_wrap=True, highlight=False)
    console.print(f"lost.confidence {limits.lost:.2f}, lost.recover {limits.recover:.2f}", highlight=False)
    summary = {
        "samples": len(samples), "videos": len(set(videos.tolist())),
        "ece": round(reliability.calibration_error(confidence, good), 4),
        "auroc": round(reliability.auroc(confidence, good), 4),
        "lost_confidence": round(limits.lost, 2), "lost_recover": round(limits.recover, 2),
    }  # fmt: skip
    return calibration, summary


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ckd_tiny", help="model file, or the name of an installed one")
    parser.add_argument("--results", type=Path, required=True, help="folder for samples.csv and reliability.png")
    parser.add_argument("--scenes", type=int, default=40, help="number of generated scenes")
    parser.add_argument("--clips", type=Path, help="folder of clips of both cameras; needs --labels")
    parser.add_argument("--labels", type=Path, help="their boxes: a folder of <clip>.json, or one file for all")
    parser.add_argument("--only", default="", help="clips to use, separated by commas; default: all that have labels")
    parser.add_argument("--views", action="store_true", help="also the clips as a moving camera sees them")
    parser.add_argument("--drones", type=Path, help="folder of annotations.json with sparse videos of one camera")
    parser.add_argument("--samples", type=Path, help="fit to this samples.csv of an earlier run instead of following")
    parser.add_argument("--write", type=Path, help="model file to write, with the calibration; may be --model itself")
    parser.add_argument(
        "--evaluate", type=Path, action="append", help="only judge the model on this folder; repeatable"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    given = parser.parse_args(arguments)
    if (given.clips is None) != (given.labels is None):
        parser.error("--clips and --labels go together")
    if given.views and given.clips is None:
        parser.error("--views needs --clips")
    if given.evaluate and given.write:
        parser.error("--evaluate only judges; it cannot --write a model")
    console = Console()
    try:
        model = checkpoint.find_model(given.model)
        if given.samples:
            samples = read_samples(given.samples)
        else:
            if given.evaluate:
                cases = [case for folder in given.evaluate for case in track_cases(folder)]
            else:
                cases = list(scene_cases(given.scenes))
                if given.clips:
                    clips = list(clip_cases(given.clips, given.labels, filter(None, given.only.split(","))))
                    cases += [*clips, *(view_cases(clips) if given.views else ())]
                if given.drones:
                    cases += drone_cases(given.drones)
            tracker = Tracker.from_checkpoint(model, given.device)
            samples = write_samples(given.results / "samples.csv", collect(tracker, cases, console))
        if given.evaluate:
            own, peak, good = column(samples, "confidence"), column(samples, "peak"), column(samples, "iou") > 0.5
            console.print(judged(samples, {"peak": peak, "confidence": own}))
            reliability.plot(given.results / "reliability.png", [("peak", peak, good), ("confidence", own, good)])
            return
        calibration, summary = calibrate(samples, given.results, console)
        if given.write:
            config, provenance = checkpoint.read_metadata(model)
            config = replace(config, calibration=calibration.weights)
            checkpoint.rewrite(model, given.write, config, provenance | {"calibration": summary})
            console.print(f"written to {given.write}", soft_wrap=True)
    except (checkpoint.CheckpointError, DeviceError, SequenceError, ValueError, OSError) as error:
        parser.error(" ".join(str(error).split()))


if __name__ == "__main__":
    main()
