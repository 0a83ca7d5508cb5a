"""Annotated still images: a list of records beside the pictures.

`annotations.json` is a list of {file, boxes_xywh, modality, sequence}: the picture's path from the list's folder, the
(n, 4) boxes in its pixels, rgb or thermal (thermal without it), and the video it is a frame of, if any. Other keys are
allowed and not read.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ckd_tracker_ros.frame import MODALITIES
from ckd_tracker_ros.sequences.recording import Boxes
from ckd_tracker_ros.sequences.sources import SequenceError

log = logging.getLogger(__name__)

ANNOTATIONS = "annotations.json"


@dataclass(frozen=True, eq=False)
class AnnotatedStill:
    """One picture.

    Attributes:
        path: of the image file, which has not been opened.
        modality: one of `MODALITIES`.
        boxes: (n, 4) xywh, n may be 0.
        sequence: name shared by the frames of one video of one target; None: no other picture shows the targets.
    """

    path: Path
    modality: str
    boxes: Boxes
    sequence: str | None = None


class AnnotatedStills(NamedTuple):
    """What a list holds.

    Attributes:
        stills: in the order of the list.
        skipped: how many records were wrong; each has been logged.
    """

    stills: list[AnnotatedStill]
    skipped: int


def read_stills(path: Path) -> AnnotatedStills:
    """The pictures of a list, or of the folder that `annotations.json` lies in. Wrong records are logged and skipped.

    Raises:
        SequenceError: there is no such file, or it is not a list.
    """
    path = path / ANNOTATIONS if path.is_dir() else path
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(records, list):
            raise ValueError(f"it holds one {type(records).__name__}")
    except (OSError, ValueError) as error:
        raise SequenceError(
            f"{path} cannot be used: {error}; expected: a list of {{file, boxes_xywh, modality, sequence}}"
        ) from error
    stills, skipped = [], 0
    for number, record in enumerate(records):
        try:
            stills.append(_still(record, path.parent))
        except ValueError as error:
            name = record.get("file") if isinstance(record, dict) else None
            log.warning("%s, record %d (%s): %s; left out", path, number, name, error)
            skipped += 1
    return AnnotatedStills(stills, skipped)


def _still(record: Any, folder: Path) -> AnnotatedStill:
    """Raises ValueError for what is wrong."""
    if not isinstance(record, dict):
        raise ValueError(f"it is {record!r}; expected: an object")
    for key in ("file", "boxes_xywh"):
        if key not in record:
            raise ValueError(f"it has no {key}; it has: {', '.join(record) or 'nothing'}")
    for key in ("file", "sequence"):
        if not isinstance(record.get(key, ""), str):
            raise ValueError(f"{key} is {record[key]!r}; expected: a name")
    modality = record.get("modality", "thermal")
    if modality not in MODALITIES:
        raise ValueError(f"modality is {modality!r}; allowed: {', '.join(MODALITIES)}")
    if not isinstance(record["boxes_xywh"], list):
        raise ValueError(f"boxes_xywh is {record['boxes_xywh']!r}; expected: a list")
    for box in record["boxes_xywh"]:
        whole = isinstance(box, list) and len(box) == 4 and all(type(value) in (int, float) for value in box)
        if not (whole and np.isfinite(box).all() and min(box[2:]) >= 0):
            raise ValueError(f"box {box!r}; expected: left, top, width, height, sizes not below 0")
    boxes = np.array(record["boxes_xywh"], np.float64).reshape(-1, 4)
    return AnnotatedStill(folder / record["file"], modality, boxes, record.get("sequence"))
