"""Sequences as the RGBT benchmarks store them: GTOT, RGBT210, RGBT234, LasHeR and VTUAV, read by one table."""

from __future__ import annotations

import logging
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ckd_tracker_ros.boxes import xyxy_to_xywh
from ckd_tracker_ros.sequences.recording import Boxes, Indices, Recording
from ckd_tracker_ros.sequences.sources import SequenceError, Stills

log = logging.getLogger(__name__)

INIT, START_NUMBERS = "init.txt", "init_frame.npy"

SLACK = 5
"""Frames by which cameras and truth may differ: copies of a data set may lack the last one or two. More missing means a
damaged download, and cutting would hide it."""


@dataclass(frozen=True)
class Layout:
    """How a benchmark stores a sequence; what separates the numbers of a row (commas, blanks, tabs) is found out.

    Attributes:
        kinds: the benchmarks that do so.
        folders: of images, per modality.
        truths: files of true boxes, per modality, in that image's pixels.
        corners: a row is two opposite corners, in any order, instead of xywh.
        every: frames from one row to the next.
        columns: of a row. Of 8, the first four are the file's own box, the others the other camera's.
    """

    kinds: tuple[str, ...]
    folders: tuple[str, ...]
    truths: tuple[str, ...]
    corners: bool = False
    every: int = 1
    columns: tuple[int, ...] = (4,)

    def expected(self) -> str:
        """For people."""
        folders = " and ".join(f"{folder}/" for folder in self.folders)
        return f"{folders} with images, {', '.join(self.truths)} or {INIT}"


LAYOUTS = (
    Layout(("gtot",), ("v", "i"), ("groundTruth_v.txt", "groundTruth_i.txt"), corners=True),
    Layout(("rgbt210", "rgbt234", "lasher"), ("visible", "infrared"), ("visible.txt", "infrared.txt")),
    Layout(("vtuav",), ("rgb", "ir"), ("rgb.txt", "ir.txt"), every=10, columns=(4, 8)),
)
BENCHMARKS = tuple(kind for layout in LAYOUTS for kind in layout.kinds)


def layout_of(folder: Path, kind: str | None = None) -> Layout | None:
    """The layout of a sequence folder, None where it is no benchmark's.

    Args:
        kind: one of `BENCHMARKS`: then its folders of images decide, and open_benchmark asks for the truth; None: a
            file of truth has to be there as well, since other recordings use the same names of folders.
    """
    for layout in LAYOUTS:
        truth = any((folder / file).is_file() for file in (*layout.truths, INIT))
        if kind in layout.kinds or (kind is None and truth):
            if any((folder / name).is_dir() for name in layout.folders):
                return layout
    return None


def open_benchmark(folder: Path, layout: Layout) -> Recording:
    """The sequence in a folder.

    Its `truths` are as published, as xywh. `boxes` are those `seen` of the first camera there is, NaN between annotated
    frames. The first box is that of init.txt, where there is one: the first visible row of RGBT234's `afterrain` is
    wrong.

    Where cameras, or frames and truth, differ by no more than `SLACK` frames, the shorter one counts, with a warning.

    Raises:
        SequenceError: nothing to read, a row that is no box, or lengths that differ by more.
    """
    sources = tuple(Stills(folder / name) if (folder / name).is_dir() else None for name in layout.folders)
    present = [source for source in sources if source is not None]
    if not present:
        raise SequenceError(f"{folder} has no images; expected: {layout.expected()}")
    _shorten({source.path.name: source.names for source in present}, folder, SLACK)
    truths, init = _truths(folder, layout)
    _shorten({name: t for name, t in zip(layout.truths, truths) if t is not None}, folder, _rows(layout))
    count = min(len(truth) for truth in truths if truth is not None)
    annotated = _annotated(folder, present[0], count, layout)
    kept = tuple(None if truth is None else np.array(truth[: len(annotated)]) for truth in truths)
    order = sorted(zip(sources, kept), key=lambda each: each[0] is None)  # cameras that are there first
    boxes = np.full((annotated[-1] - annotated[0] + 1, 4), np.nan)
    boxes[annotated - annotated[0]] = next(truth for _, truth in order if truth is not None)
    if init is not None:
        boxes[0] = init
    name = folder.resolve().name
    return Recording(name, sources, seen(boxes), int(annotated[0]), truths=kept, annotated=annotated)


def seen(rows: Boxes) -> Boxes:
    """(n, 4) xywh boxes, with NaN where width or height is not above 0: the target cannot be seen.

    A left or top of 0 is a target at the border: 1825 rows in RGBT234's files, 1757 in LasHeR's.
    """
    return np.where((rows[:, 2:] > 0).all(axis=1, keepdims=True), rows, np.nan)


def read_rows(file: Path, columns: tuple[int, ...] = (4,), expected: str = "left, top, width, height") -> Boxes | None:
    """(n, c) numbers of a text file, separated by commas, semicolons, blanks or tabs; None without the file.

    Raises:
        SequenceError: a line is not that many numbers, or not as many as the first; names the line.
    """
    if not file.is_file():
        return None
    rows: list[list[float]] = []
    for number, line in enumerate(file.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
        words = re.split(r"[,;\s]+", line.strip().strip(","))
        if words == [""]:
            continue
        try:
            row = [float(word) for word in words]
        except ValueError:
            row = []
        if len(row) not in columns or (rows and len(row) != len(rows[0])):
            raise SequenceError(f"{file}, line {number} is {line!r}; expected: {expected}")
        rows.append(row)
    return np.array(rows, np.float64).reshape(-1, len(rows[0]) if rows else columns[0])


def _truths(folder: Path, layout: Layout) -> tuple[list[Boxes | None], Boxes | None]:
    """Per modality the (n, 4) xywh boxes, and the (4,) initial one.

    An init.txt of one row is the initial box alone; a longer one is a truth of its own (the only one of RGBT210) and
    stands in for a file that is missing, as of LasHeR's `cameraman_1202`.
    """
    corners = "the corners x1, y1, x2, y2" if layout.corners else "left, top, width, height"
    expected = corners + ", of one camera or of both" * (8 in layout.columns)
    rows = [read_rows(folder / file, layout.columns, expected) for file in layout.truths]
    init = read_rows(folder / INIT)
    for own, other in ((0, 1), (1, 0)):
        if rows[own] is None and rows[other] is not None and rows[other].shape[1] == 8:
            rows[own] = rows[other][:, 4:]
    truths = [None if table is None else table[:, :4] for table in rows]
    if layout.corners:
        truths = [None if table is None else _sorted_corners(table) for table in truths]
    if init is not None and len(init) > 1:
        truths = [init if table is None else table for table in truths]
    if not any(truth is not None and len(truth) for truth in truths):
        raise SequenceError(f"{folder} has no row of truth; expected: {layout.expected()}")
    seen = init is not None and len(init) > 0 and (init[0, 2:] > 0).all()
    return truths, init[0] if seen else None


def _sorted_corners(corners: Boxes) -> Boxes:
    """(n, 4) xywh of two opposite corners each."""
    pairs = corners.reshape(-1, 2, 2)
    return xyxy_to_xywh(np.concatenate([pairs.min(axis=1), pairs.max(axis=1)], axis=-1))


def _rows(layout: Layout) -> int:
    """How many rows `SLACK` frames are."""
    return max(1, SLACK // layout.every)


def _shorten(lists: dict[str, Any], folder: Path, slack: int) -> None:
    """Cuts lists, by what they are of, to the shortest; arrays are only compared, for they are cut with the frames."""
    counts = {name: len(rows) for name, rows in lists.items()}
    if not counts or len(set(counts.values())) == 1:
        return
    told, least = ", ".join(f"{name}: {count}" for name, count in counts.items()), min(counts.values())
    if max(counts.values()) - least > slack:
        raise SequenceError(
            f"{folder} differs in length ({told}); expected: a difference of at most {slack}. Is the download whole?"
        )
    log.warning("%s differs in length (%s): the first %d count", folder, told, least)
    for rows in lists.values():
        if isinstance(rows, list):
            del rows[least:]


def _annotated(folder: Path, images: Stills, rows: int, layout: Layout) -> Indices:
    """(n,) frames that the rows belong to; rows behind the last frame are left out, with a warning.

    Where not every frame has a row, numbers in the names of the images tell: the start number, then in steps.

    Raises:
        SequenceError: a row's image is not there.
    """
    if layout.every == 1:
        wanted, there = np.arange(rows), np.arange(len(images))
    else:
        there = np.array([int((re.findall(r"\d+", name) or [str(i)])[-1]) for i, name in enumerate(images.names)])
        if (np.diff(there) <= 0).any():
            there = np.arange(len(images))  # names that do not count: their order does
        wanted = _start_number(folder, int(there[0])) + layout.every * np.arange(rows)
    inside = wanted[wanted <= there[-1]]
    missing = sorted(set(inside.tolist()) - set(there.tolist()))
    if missing or not len(inside) or rows - len(inside) > _rows(layout):
        lost = missing[0] if missing else int(wanted[len(inside)])
        raise SequenceError(
            f"{folder} has {rows} rows of truth, one for every {layout.every} of its {len(images)} frames, but no "
            f"image number {lost}. Is the download whole?"
        )
    if len(inside) < rows:
        log.warning("%s has %d rows of truth behind its last frame: left out", folder, rows - len(inside))
    return np.searchsorted(there, inside)


def _start_number(folder: Path, first: int) -> int:
    """Number of the image that the first row belongs to: from the list of VTUAV's training part, if one lies within
    three folders above the sequence, else the first image's (as the benchmark does in its test part)."""
    for above in list(folder.resolve().parents)[:3]:
        if (above / START_NUMBERS).is_file():
            return _start_numbers(above / START_NUMBERS).get(folder.resolve().name, first)
    return first


class _Inert:
    """Stands for everything that a pickle names, so that none of it runs."""

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Inspector(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        return _Inert


def _start_numbers(file: Path) -> dict[str, int]:
    """Sequence -> number, of a dictionary that numpy saved; it is a pickle, and nothing of it is executed.

    Raises:
        SequenceError: it is something else.
    """
    try:
        with file.open("rb") as data:
            np.lib.format.read_magic(data)
            np.lib.format.read_array_header_1_0(data)
            table = _Inspector(data).load().state[-1][0]
        return {str(name): _number(value) for name, value in table.items()}
    except (ValueError, TypeError, AttributeError, LookupError, EOFError, pickle.UnpicklingError) as error:
        expected = "a dictionary of sequence -> number, saved by numpy"
        raise SequenceError(f"{file} cannot be used: {error!r}; expected: {expected}") from error


def _number(value: Any) -> int:
    """A Python or numpy integer; numpy pickles one as its type and its bytes."""
    return int.from_bytes(value.args[1], "little") if isinstance(value, _Inert) else int(value)
