"""From the folder of a data set to its sequences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from ckd_tracker_ros.frame import RgbtFrame
from ckd_tracker_ros.sequences.benchmarks import BENCHMARKS, LAYOUTS, layout_of, open_benchmark
from ckd_tracker_ros.sequences.opening import FOLDERS, TRACKS, TRUTH, PathLike, open_sequence, read_tracks
from ckd_tracker_ros.sequences.recording import Boxes, Indices, Sequence
from ckd_tracker_ros.sequences.sources import IMAGE_ENDS, SequenceError, natural

DEPTH = 3
"""Folders below a data set in which sequences are looked for: VTUAV has <part>/<group>/<sequence>."""

KINDS = (*BENCHMARKS, "folder", "videos")
"""What a data set can be: a benchmark, folders of images, or videos with named tracks."""


class LazySequence:
    """A sequence that is opened when it is first used; may be pickled, and is opened anew by another process.

    Attributes:
        path: what it is opened from.
        kind: one of `KINDS`; None where several benchmarks share the layout and no folder above says which.
        track: of a folder of videos.
        name: of its folder or track; with the folders above it where two of a data set are named alike.

    Raises:
        SequenceError: on first use, for what `open_sequence` refuses.
    """

    def __init__(self, path: Path, kind: str | None, name: str, track: str | None = None) -> None:
        self.path, self.kind, self.name, self.track = path, kind, name, track

    def __reduce__(self) -> tuple[type, tuple]:
        return LazySequence, (self.path, self.kind, self.name, self.track)

    def __repr__(self) -> str:
        return f"LazySequence({self.name!r}, {self.kind}, {str(self.path)!r})"

    @cached_property
    def _opened(self) -> Sequence:
        layout = layout_of(self.path, self.kind) if self.kind in BENCHMARKS else None
        return open_sequence(self.path, self.track) if layout is None else open_benchmark(self.path, layout)

    def close(self) -> None:
        """Frees what is held open; the next use opens it again."""
        self.__dict__.pop("_opened", None)

    @property
    def rate(self) -> float:
        return self._opened.rate

    @property
    def first_frame(self) -> int:
        return self._opened.first_frame

    @property
    def boxes(self) -> Boxes | None:
        return self._opened.boxes

    @property
    def truths(self) -> tuple[Boxes | None, ...]:
        return self._opened.truths

    @property
    def annotated(self) -> Indices:
        return self._opened.annotated

    def __len__(self) -> int:
        return len(self._opened)

    def __bool__(self) -> bool:
        return True  # asking must not open it

    def frame(self, i: int) -> RgbtFrame:
        return self._opened.frame(i)


def open_data_set(root: PathLike, kind: str | None = None, names: Iterable[str] | None = None) -> list[LazySequence]:
    """The sequences in a folder and the folders below it, in natural order; no image and no truth is read yet.

    Args:
        root: of the data set, or of one part of it; a sequence is a data set of one.
        kind: one of `KINDS`: only such sequences, and a missing truth of a benchmark is an error when it is used;
            None: each is what its layout says.
        names: of the sequences wanted, such as those of a benchmark's list; None: all.

    Raises:
        ValueError: no such kind.
        SequenceError: no such folder, no sequence in it, or no sequence of a name.
    """
    if kind not in (None, *KINDS):
        raise ValueError(f"kind is {kind!r}; allowed: {', '.join(KINDS)}, or None")
    root = Path(root)
    if not root.is_dir():
        raise SequenceError(f"{root} is no folder; expected: {_expected(kind)}")
    found = list(_find(root, kind, DEPTH))
    if not found:
        inside = sorted(entry.name + "/" * entry.is_dir() for entry in root.iterdir())
        listed = ", ".join(inside[:8]) + f" and {len(inside) - 8} more" * (len(inside) > 8)
        raise SequenceError(f"{root} holds {listed or 'nothing'}; expected: {_expected(kind)}")
    often = Counter(sequence.name for sequence in found)
    for sequence in found:
        if often[sequence.name] > 1:
            above = sequence.path.relative_to(root).parts
            sequence.name = "_".join((*above, sequence.name) if sequence.track else above)
    if names is None:
        return found
    wanted = set(names)
    if absent := sorted(wanted - {sequence.name for sequence in found}):
        has = ", ".join(sequence.name for sequence in found[:8]) + f" and {len(found) - 8} more" * (len(found) > 8)
        raise SequenceError(f"{root} has no sequence {', '.join(map(repr, absent[:8]))}; it has: {has}")
    return [sequence for sequence in found if sequence.name in wanted]


def _find(folder: Path, kind: str | None, depth: int) -> Iterator[LazySequence]:
    """The sequence in a folder, else those of the folders in it."""
    if layout := None if (folder / TRUTH).is_file() else layout_of(folder, kind):
        yield LazySequence(folder, kind or _kind_of(folder, layout.kinds), folder.resolve().name)
        return
    if kind in (None, "folder") and _is_plain(folder):
        yield LazySequence(folder, "folder", folder.resolve().name)
        return
    if kind in (None, "videos"):
        for track in read_tracks(folder):  # a video without a track has no boxes, and one with several is one each
            yield LazySequence(folder, "videos", track, track)
    if depth:
        for below in sorted((entry for entry in folder.iterdir() if entry.is_dir()), key=natural):
            yield from _find(below, kind, depth - 1)


def _is_plain(folder: Path) -> bool:
    """Whether it is a recording by its folders of images or its file of boxes; images alone may be anything."""
    cameras = [folder / name for names in FOLDERS.values() for name in names]
    return (folder / TRUTH).is_file() or any(camera.is_dir() and _has_image(camera) for camera in cameras)


def _has_image(folder: Path) -> bool:
    return any(entry.suffix.lower() in IMAGE_ENDS for entry in folder.iterdir())


def _kind_of(folder: Path, kinds: tuple[str, ...]) -> str | None:
    """Which of the benchmarks that share a layout, by the names of the folders above."""
    if len(kinds) == 1:
        return kinds[0]
    return next((kind for part in reversed(folder.resolve().parts) for kind in kinds if kind in part.lower()), None)


def _expected(kind: str | None) -> str:
    """For people: folders of sequences of this kind."""
    plain = {
        "folder": f"visible/ and infrared/ with images, or images/ and {TRUTH}",
        "videos": f"<name>_visible.mp4, <name>_infrared.mp4 and {TRACKS}",
    }
    layouts = {kind: layout.expected() for layout in LAYOUTS for kind in layout.kinds} | plain
    named = [f"{name} ({text})" for name, text in layouts.items() if kind in (None, name)]
    return f"folders, at most {DEPTH} deep, of {'; '.join(named)}"
