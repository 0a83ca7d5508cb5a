"""From a path to a recording, and to a clear answer where there is none."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ckd_tracker_ros.frame import MODALITIES
from ckd_tracker_ros.sequences.bags import BagSequence, is_bag
from ckd_tracker_ros.sequences.benchmarks import BENCHMARKS, layout_of, open_benchmark, read_rows, seen
from ckd_tracker_ros.sequences.recording import Boxes, Recording, Sequence
from ckd_tracker_ros.sequences.sources import SequenceError, Source, images_in, natural, source_at

PathLike = str | os.PathLike

FOLDERS = {"rgb": ("visible", "rgb"), "thermal": ("infrared", "thermal", "ir")}
"""Names of the folders, and ends of the names of the videos, of each camera."""

VIDEO_ENDS = (".mp4", ".avi", ".mkv", ".mov", ".m4v", ".webm")
TRACKS, TRUTH = "tracks.json", "groundtruth.txt"
EXPECTED = (
    "expected: a folder with visible/ and infrared/ (images), a folder of images, videos named <name>_visible.mp4 and "
    f"<name>_infrared.mp4, one video, a rosbag2 bag, or a sequence of {', '.join(BENCHMARKS)}"
)


def _per_camera(found: Mapping[str, Path]) -> tuple[Source | None, ...]:
    return tuple(source_at(found[modality]) if modality in found else None for modality in MODALITIES)


def _modality_of(path: Path) -> str:
    """Of the only camera: thermal where a name says so."""
    names = " ".join(path.parts[-2:]).lower()
    telling = "infrared" in names or "thermal" in names or {"tir", "ir"} & set(re.split(r"[^a-z0-9]+", names))
    return "thermal" if telling else "rgb"


def _split(file: Path) -> tuple[str, str] | None:
    """Common name and modality of `<name>_visible.mp4` and the like; None for another name."""
    if file.suffix.lower() not in VIDEO_ENDS:
        return None
    for modality, ends in FOLDERS.items():
        for end in ends:
            if file.stem.lower().endswith(f"_{end}"):
                return file.stem[: -len(end) - 1], modality
    return None


def _pairs(folder: Path) -> dict[str, dict[str, Path]]:
    """Common name -> modality -> video, for all of a folder."""
    pairs: dict[str, dict[str, Path]] = {}
    for file in sorted(folder.iterdir(), key=natural):
        if parts := _split(file):
            pairs.setdefault(parts[0], {})[parts[1]] = file
    return pairs


@dataclass(frozen=True, eq=False)
class _Track:
    """One entry of a track file."""

    video: str
    first_frame: int
    boxes: Boxes  # (n, 4) xywh


def read_tracks(folder: Path) -> dict[str, _Track]:
    """Name -> track, of a folder's track file; empty without one.

    Raises:
        SequenceError: the file is not as expected.
    """
    file = folder / TRACKS
    if not file.is_file():
        return {}
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        tracks = {}
        for name, entry in entries.items():
            boxes = np.asarray(entry["boxes_xywh"], np.float64)
            if boxes.ndim != 2 or boxes.shape[1] != 4:
                raise ValueError(f"boxes of {name} have shape {boxes.shape}, not (n, 4)")
            tracks[name] = _Track(str(entry["video"]), int(entry["first_frame"]), boxes)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        expected = "an object of name -> {video, first_frame, boxes_xywh}"
        raise SequenceError(f"{file} cannot be used: {error!r}; expected: {expected}") from error
    return tracks


def _videos(folder: Path, track: str | None, only: str | None = None) -> Recording:
    """A pair of videos of a folder.

    Args:
        track: name of a track, or of a pair of videos; None: the first track, else the first pair, without boxes.
        only: common name of the pair that was asked for; None: any. Without `track` it gets no boxes.

    Raises:
        SequenceError: there is no such track or pair; names those there are.
    """
    pairs = _pairs(folder)
    tracks = {name: entry for name, entry in read_tracks(folder).items() if only in (None, entry.video)}
    names = [*tracks, *(pair for pair in pairs if only in (None, pair) and pair not in tracks)]
    chosen = track or only or names[0]
    if chosen not in names:
        raise SequenceError(f"{folder} has no track {chosen!r}; it has: {', '.join(names)}")
    if chosen not in tracks:
        return Recording(chosen, _per_camera(pairs[chosen]))
    entry = tracks[chosen]
    if entry.video not in pairs:
        raise SequenceError(f"track {chosen!r} is of video {entry.video!r}; {folder} has: {', '.join(pairs) or 'none'}")
    return Recording(chosen, _per_camera(pairs[entry.video]), entry.boxes, entry.first_frame)


def list_tracks(path: PathLike) -> list[str]:
    """Names that `open_sequence` takes as `track` for this path, those with boxes first; empty where it takes none.

    Raises:
        SequenceError: a track file that cannot be used.
    """
    path = Path(path)
    folder, only = (path, None) if path.is_dir() else (path.parent, (_split(path) or ("", ""))[0])
    if not folder.is_dir() or only == "":
        return []
    tracks = [name for name, entry in read_tracks(folder).items() if only in (None, entry.video)]
    return [*tracks, *(pair for pair in _pairs(folder) if only in (None, pair) and pair not in tracks)]


def open_sequence(
    path: PathLike | tuple[PathLike, PathLike], track: str | None = None, modality: str | None = None
) -> Sequence:
    """The recording at a path; see the package for what is read.

    Args:
        path: a folder, a video or a bag; or two of them, RGB and thermal.
        track: one of `list_tracks(path)`; None: the first of a folder, and no boxes for a single file.
        modality: one of `MODALITIES`, of a recording of one camera; None: thermal where its name says
            thermal, infrared, tir or ir, else rgb.

    Raises:
        ValueError: no such modality.
        SequenceError: nothing readable there; says what was found and what is expected.
    """
    if modality not in (None, *MODALITIES):
        raise ValueError(f"modality is {modality!r}; allowed: {', '.join(MODALITIES)}, or None")
    if isinstance(path, tuple):
        rgb, thermal = map(Path, path)
        recording = Recording(rgb.stem, (source_at(rgb), source_at(thermal)))
    else:
        path = Path(path)
        if not path.exists():
            raise SequenceError(f"{path} does not exist; {EXPECTED}")
        if parts := _split(path):
            return _videos(path.parent, track, only=parts[0])
        if path.is_dir() and _pairs(path):
            return _videos(path, track)
        opened = _bag if is_bag(path) else _folder if path.is_dir() else _file
        recording = opened(path, modality or _modality_of(path))
    if track is not None:
        raise SequenceError(f"{recording.name} has no track {track!r}: only videos with {TRACKS} have named tracks")
    return recording


def _folder(path: Path, modality: str) -> Recording:
    """A benchmark's sequence, or a folder of images of both cameras or of the only one."""
    layout = None if (path / TRUTH).is_file() else layout_of(path)
    if layout is not None:
        return open_benchmark(path, layout)
    found = {
        modality: path / name
        for modality, names in FOLDERS.items()
        for name in reversed(names)
        if (path / name).is_dir()
    }
    if not found:
        holder = next((folder for folder in (path, path / "images") if folder.is_dir() and images_in(folder)), None)
        if holder is None:
            inside = sorted(entry.name + "/" * entry.is_dir() for entry in path.iterdir())
            listed = ", ".join(inside[:8]) + f" and {len(inside) - 8} more" * (len(inside) > 8)
            raise SequenceError(f"{path} holds {listed or 'nothing'}; {EXPECTED}")
        found = {modality: holder}
    truth = read_rows(path / TRUTH)
    return Recording(path.resolve().name, _per_camera(found), None if truth is None else seen(truth))


def _bag(path: Path, modality: str) -> BagSequence:
    """A bag of both cameras, whatever the modality; a row of the file of boxes for each pair."""
    truth = read_rows((path if path.is_dir() else path.parent) / TRUTH)
    return BagSequence(path, boxes=None if truth is None else seen(truth))


def _file(path: Path, modality: str) -> Recording:
    """A video of one camera."""
    if path.suffix.lower() not in VIDEO_ENDS:
        raise SequenceError(f"{path} is no video, by its name; {EXPECTED}, ending in {', '.join(VIDEO_ENDS)}")
    return Recording(path.stem, _per_camera({modality: path}))
