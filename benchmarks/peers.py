"""This project's tracker beside NanoTrack-v2, an open tracker of one camera, on the same frames in one run.

NanoTrack-v2 (HonglinChu/SiamTrackers, Apache-2.0) runs in OpenCV from two ONNX files, `nanotrackv2_*backbone*.onnx` and
`nanotrackv2_*head_*.onnx`, which are not part of this repository. On videos its third digit depends on the decoder.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol

import cv2
import numpy as np
import typer
from common import JsonOption
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from ckd_tracker_ros import boxes
from ckd_tracker_ros.engine import DeviceError
from ckd_tracker_ros.evaluation.timing import Report, Spread
from ckd_tracker_ros.frame import MODALITIES, RgbtFrame
from ckd_tracker_ros.network.checkpoint import CheckpointError
from ckd_tracker_ros.overlay import to_bgr
from ckd_tracker_ros.sequences import Sequence, SequenceError, list_tracks, open_sequence, true_box
from ckd_tracker_ros.state import TargetState
from ckd_tracker_ros.tracker import Tracker

SHARED = Path(__file__).resolve().parents[2] / "shared"
PAIRED, SINGLE = "m3svd", "single_modality_eval"
SMALL_TARGETS = ("uav_truck4_1",)
"""Of a few pixels: the mean over the other sequences is given too."""
MISS = 0.1
"""IoU under which a target counts as lost."""
CAMERAS = {"fused": MODALITIES} | {name: (name,) for name in MODALITIES}
"""This project's tracker, by what it is called, and the cameras it gets."""
NANOTRACK = "nanotrack"


class Follower(Protocol):
    """A tracker of one target, with a past."""

    def start(self, frame: RgbtFrame, box: NDArray) -> None:
        """Take the target in a (4,) xywh box."""

    def step(self, frame: RgbtFrame) -> NDArray[np.float64]:
        """(4,) xywh of the target in the next frame."""


class Student:
    """This project's tracker with some of the cameras."""

    def __init__(self, tracker: Tracker, cameras: tuple[str, ...]) -> None:
        self._tracker, self._cameras = tracker, cameras
        self._state: TargetState | None = None

    def start(self, frame: RgbtFrame, box: NDArray) -> None:
        self._state = self._tracker.start(self._seen(frame), box)

    def step(self, frame: RgbtFrame) -> NDArray[np.float64]:
        self._state, estimate = self._tracker.step(self._state, self._seen(frame))
        return estimate.box

    def _seen(self, frame: RgbtFrame) -> RgbtFrame:
        images = (image if name in self._cameras else None for name, image in zip(MODALITIES, frame.images))
        return RgbtFrame(tuple(images), frame.stamp_ns)


class NanoTrack:
    """OpenCV's NanoTrack on one camera."""

    def __init__(self, weights: Path, camera: str) -> None:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # it warns of its network's engine each time
        parameters = cv2.TrackerNano_Params()
        parameters.backbone, parameters.neckhead = map(str, nanotrack_files(weights))
        self._tracker, self._camera = cv2.TrackerNano_create(parameters), MODALITIES.index(camera)

    def start(self, frame: RgbtFrame, box: NDArray) -> None:
        self._tracker.init(self._picture(frame), tuple(int(value) for value in box.tolist()))

    def step(self, frame: RgbtFrame) -> NDArray[np.float64]:
        return np.array(self._tracker.update(self._picture(frame))[1], np.float64)

    def _picture(self, frame: RgbtFrame) -> NDArray[np.uint8]:
        return to_bgr(frame.images[self._camera])


def nanotrack_files(folder: Path) -> tuple[Path, Path]:
    """Backbone and head.

    Raises:
        FileNotFoundError: one of them is not there.
    """
    found = [sorted(folder.glob(f"nanotrackv2_*{part}*.onnx")) for part in ("backbone", "head_")]
    if not all(found):
        raise FileNotFoundError(
            f"no nanotrackv2_*backbone*.onnx and nanotrackv2_*head_*.onnx in {folder}: name their folder with "
            f"--peer-weights, or leave NanoTrack out with --only {','.join(CAMERAS)}"
        )
    return found[0][0], found[1][0]


@dataclass(eq=False)
class Course:
    """How a tracker did on a sequence.

    Attributes:
        first_frame: number of the frame behind the start.
        ious: with the truth, one for each frame from there on.
        seconds: of each step.
    """

    first_frame: int
    ious: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def mean_iou(self) -> float:
        return float(np.mean(self.ious))

    @property
    def longest_miss(self) -> int:
        """Most frames in a row with an IoU under `MISS`."""
        longest = run = 0
        for iou in self.ious:
            run = run + 1 if iou < MISS else 0
            longest = max(longest, run)
        return longest

    @property
    def lost_from(self) -> int | None:
        """First frame of a miss that lasts to the end; None if there is none."""
        last_hit = max((i for i, iou in enumerate(self.ious) if iou >= MISS), default=-1)
        return None if last_hit == len(self.ious) - 1 else self.first_frame + last_hit + 1


Courses = dict[str, dict[str, Course]]
"""Sequence -> tracker -> course."""


def compare(sequence: Sequence, followers: dict[str, Follower], console: Console) -> dict[str, Course]:
    """All trackers through one sequence: each frame is read once and given to all in turn."""
    start = sequence.first_frame
    end = start + len(sequence.boxes)
    first = sequence.frame(start)
    for follower in followers.values():
        follower.start(first, true_box(sequence, start))
    courses = {name: Course(start + 1) for name in followers}
    numbers = range(start + 1, end)
    for number in track(numbers, sequence.name, console=console, transient=True, disable=not console.is_terminal):
        frame, truth = sequence.frame(number), true_box(sequence, number)
        for name, follower in followers.items():
            began = time.perf_counter()
            box = follower.step(frame)
            courses[name].seconds.append(time.perf_counter() - began)
            courses[name].ious.append(float(boxes.iou(box, truth)))
    return courses


def paired_recordings(folder: Path) -> Iterator[Sequence]:
    """Tracks through recordings of both cameras."""
    for name in list_tracks(folder):
        sequence = open_sequence(folder, name)
        if sequence.boxes is not None:
            yield sequence


def single_recordings(folder: Path) -> Iterator[tuple[Sequence, str]]:
    """Sequences of one camera, and which it is."""
    for path in sorted(path for path in folder.iterdir() if path.is_dir()):
        camera = "thermal" if path.name.startswith("tir_") else "rgb"
        yield open_sequence(path, modality=camera), camera


def iou_rows(courses: Courses, means: dict[str, list[str]]) -> list[dict[str, Any]]:
    """A row for each sequence and each mean over some of them."""
    rows = [
        {"sequence": name, "frames": len(next(iter(row.values())).ious), **{t: c.mean_iou for t, c in row.items()}}
        for name, row in courses.items()
    ]
    trackers = next(iter(courses.values()))
    for title, names in means.items():
        frames = sum(row["frames"] for row in rows if row["sequence"] in names)
        row = {t: float(np.mean([courses[name][t].mean_iou for name in names])) for t in trackers}
        rows.append({"sequence": title, "frames": frames, **row})
    return rows


def report_courses(report: Report, title: str, courses: Courses, means: dict[str, list[str]]) -> None:
    """Tables of accuracy, of misses and of time."""
    baseline = "the true boxes; frames behind the start"
    report.add(f"{title}: mean IoU", baseline, iou_rows(courses, means))
    note = f"In brackets, of a target that was lost for good: the frame from which on IoU < {MISS} to the end."
    rows = [{"sequence": name} | {t: _miss(course) for t, course in row.items()} for name, row in courses.items()]
    report.add(f"{title}: longest run of frames with IoU < {MISS}", baseline, rows, note)
    times = [
        {"tracker": t, "step [ms]": Spread.of([1e3 * s for row in courses.values() for s in row[t].seconds])}
        for t in next(iter(courses.values()))
    ]
    report.add(f"{title}: time of a step", "none; images are decoded before", times)


def _miss(course: Course) -> str:
    lost = course.lost_from
    return f"{course.longest_miss}" if lost is None else f"{course.longest_miss} (from {lost})"


def parse_trackers(text: str) -> list[str]:
    """`fused,nanotrack` as names.

    Raises:
        typer.BadParameter: another name.
    """
    allowed = [*CAMERAS, NANOTRACK]
    names = text.split(",")
    if unknown := [name for name in names if name not in allowed]:
        raise typer.BadParameter(f"{unknown[0]!r} in --only; allowed: {', '.join(allowed)}, separated by commas")
    return names


def main(
    data: Annotated[Path, typer.Option(help=f"folder with {PAIRED}/, {SINGLE}/ or both")] = SHARED / "data",
    peer_weights: Annotated[Path, typer.Option(help="folder of NanoTrack's ONNX files")] = SHARED / "weights",
    model: Annotated[str, typer.Option(help="model file, or the name of an installed one")] = "ckd_tiny",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    threads: Annotated[int, typer.Option(help="of the CPU, for all trackers; 0: as it is")] = 0,
    only: Annotated[str, typer.Option(help="trackers to run")] = ",".join([*CAMERAS, NANOTRACK]),
    json_file: JsonOption = None,
) -> None:
    """Accuracy of this project's tracker and of NanoTrack-v2, side by side."""
    names = parse_trackers(only)
    nano, cameras = NANOTRACK in names, {name: CAMERAS[name] for name in names if name in CAMERAS}
    present = [name for name in (PAIRED, SINGLE) if (data / name).is_dir()]
    if not present:
        raise typer.BadParameter(f"no recordings: neither {PAIRED} nor {SINGLE} in {data}; name their folder: --data")
    settings: dict[str, Any] = {"recordings": ", ".join(present), "trackers": only}
    if threads:
        cv2.setNumThreads(threads)
    try:
        if nano:
            nanotrack_files(peer_weights)
        tracker = Tracker.from_checkpoint(model, device, threads=threads) if cameras else None
    except (FileNotFoundError, CheckpointError, DeviceError) as error:
        raise typer.BadParameter(str(error)) from error
    report = Report("peers", settings | (tracker.description if tracker else {}))
    report.header()

    def followers(seen: tuple[str, ...]) -> dict[str, Follower]:
        """For a recording of these cameras; with only one, all of this project's are the same."""
        own = {name: Student(tracker, c) for name, c in cameras.items()}
        if cameras and len(seen) == 1:
            own = {tracker.description["model"]: Student(tracker, seen)}
        peers = {f"{NANOTRACK} {camera}": NanoTrack(peer_weights, camera) for camera in seen if nano}
        return own | peers

    try:
        if PAIRED in present:
            courses = {
                sequence.name: compare(sequence, followers(MODALITIES), report.console)
                for sequence in paired_recordings(data / PAIRED)
            }
            report_courses(report, "Both cameras", courses, {"mean": list(courses)})
        if SINGLE in present:
            courses = {}
            for sequence, camera in single_recordings(data / SINGLE):
                found = compare(sequence, followers((camera,)), report.console)
                courses[sequence.name] = {name.split()[0]: course for name, course in found.items()}
            large = [name for name in courses if name not in SMALL_TARGETS]
            report_courses(report, "One camera", courses, {"mean": list(courses), "mean without small": large})
    except SequenceError as error:
        raise typer.BadParameter(str(error)) from error
    report.write(json_file)


if __name__ == "__main__":
    typer.run(main)
