"""Training data as contexts: square regions, by default six times a target's size, that crops are later drawn from.

A track is the same target in one or several contexts. Stills give tracks of one, videos and scenes of more. Reading
images is slow and done once; drawing crops from a bank of contexts runs on the training device.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ckd_tracker_ros import thermal
from ckd_tracker_ros.crop import cut, square_around
from ckd_tracker_ros.frame import Image, RgbtFrame
from ckd_tracker_ros.sequences.stills import ANNOTATIONS, AnnotatedStill, read_stills

log = logging.getLogger(__name__)

FACTOR, SIDE = 6.0, 256
"""Side of a context in units of sqrt(width * height) of the box, and in pixels, where nothing else is asked for."""

MIN_SIZE = 12.0
"""Targets under this sqrt(width * height), in pixels, are left out: mostly blur after enlarging."""


class Context(NamedTuple):
    """One view of a target.

    Attributes:
        pixels: (4, side, side) uint8, RGB and thermal; zero where a modality is missing.
        box: (4,) xywh in context pixels.
        inside: (4,) xyxy part of the context that lies in the image.
        has: (2,) which of RGB and thermal were recorded.
        square: (3,) left and top in pixels of the image, context pixels per pixel of the image.
        picture: number of the image, the same in all its contexts; `ALONE` where other targets in it do not matter.
    """

    pixels: NDArray[np.uint8]
    box: NDArray[np.float32]
    inside: NDArray[np.float32]
    has: NDArray[np.bool_]
    square: NDArray[np.float32]
    picture: int


ALONE = -1


Track = list[Context]


@dataclass(frozen=True)
class Bank:
    """All contexts on one device.

    Attributes:
        pixels (K, 4, side, side) uint8, boxes (K, 4), inside (K, 4), has (K, 2), squares (K, 3): see `Context`.
        beside: (K, J) contexts of other tracks in the same image, `ALONE` behind the last; J is 1 or more.
        first, count: (T,) the contexts of each track.
        weight: (T,) how often each track is drawn.
    """

    pixels: Tensor
    boxes: Tensor
    inside: Tensor
    has: Tensor
    squares: Tensor
    beside: Tensor
    first: Tensor
    count: Tensor
    weight: Tensor

    def to(self, device: torch.device) -> Bank:
        """The same on another device."""
        return Bank(*(tensor.to(device) for tensor in vars(self).values()))


def make_context(
    frame: RgbtFrame, box: NDArray, factor: float = FACTOR, side: int = SIDE, picture: int = ALONE
) -> Context:
    """Cut the context around an xywh box; 16-bit thermal is mapped by this frame's own limits."""
    square = square_around(box, factor, side)
    pixels = np.zeros((4, side, side), np.uint8)
    for image, channels in zip(frame.images, (slice(0, 3), slice(3, 4))):
        if image is not None:
            limits = thermal.limits_of(image, thermal.ThermalSettings())
            crop = cut(image, square, side, np.eye(3), limits)
            pixels[channels] = np.moveaxis(crop, -1, 0)[: channels.stop - channels.start]
    width, height = frame.size
    shift = np.array([square.left, square.top])
    inside = np.clip((np.array([0, 0, width - 1, height - 1]) - np.tile(shift, 2)) * square.scale, 0, side)
    placed = np.concatenate([(np.asarray(box)[:2] - shift), np.asarray(box)[2:]]) * square.scale
    placement = np.array([square.left, square.top, square.scale], np.float32)
    return Context(
        pixels, placed.astype(np.float32), inside.astype(np.float32), np.array(frame.present), placement, picture
    )


def picture_number(name: object) -> int:
    """A number for an image that is known by a name."""
    return int.from_bytes(hashlib.blake2b(str(name).encode(), digest_size=7).digest(), "big")


def misplaced(box: NDArray, size: tuple[int, int]) -> bool:
    """Whether a box cannot be right: its centre is outside an image of this (w, h), or it is larger."""
    centre = np.asarray(box)[:2] + np.asarray(box)[2:] / 2
    return not (((centre >= 0) & (centre <= size)).all() and (np.asarray(box)[2:] <= 1.2 * np.array(size)).all())


def still_tracks(stills: Iterable[AnnotatedStill], most: int, factor: float = FACTOR, side: int = SIDE) -> list[Track]:
    """Tracks of annotated images (all of one video, or one still): each box, at most `most` per image."""
    tracks: dict[str, Track] = {}
    for still in stills:
        mono = still.modality == "thermal"
        pixels = cv2.imread(str(still.path), cv2.IMREAD_GRAYSCALE if mono else cv2.IMREAD_COLOR)
        if pixels is None:
            log.warning("cannot read %s: left out", still.path)
            continue
        frame = RgbtFrame((None, Image(pixels, "mono")) if mono else (Image(pixels, "bgr"), None))
        boxes = [box for box in still.boxes if np.sqrt(box[2] * box[3]) >= MIN_SIZE]
        wrong = [box.tolist() for box in boxes if misplaced(box, frame.size)]
        if wrong:
            log.warning("%s has a wrong annotation %s (%d): left out", still.path, wrong[0], len(wrong))
            boxes = [box for box in boxes if not misplaced(box, frame.size)]
        rng = np.random.default_rng(len(boxes))
        for i in rng.permutation(len(boxes))[:most]:
            name = still.sequence or f"{still.path}/{i}"
            context = make_context(frame, boxes[i], factor, side, picture_number(still.path))
            tracks.setdefault(name, []).append(context)
    return list(tracks.values())


def clip_tracks(folder: Path, patches: int, factor: float = FACTOR, side: int = SIDE) -> list[Track]:
    """Any patch of an aligned RGB-thermal clip without boxes is a target: the camera hardly moves within it."""
    visible, infrared = (sorted((folder / name).iterdir()) for name in ("visible", "infrared"))
    frames = []
    for rgb, ir in zip(visible[::4], infrared[::4]):
        colour, grey = cv2.imread(str(rgb)), cv2.imread(str(ir), cv2.IMREAD_GRAYSCALE)
        if colour is None or grey is None:
            log.warning("cannot read %s or %s: left out", rgb, ir)
            continue
        frames.append(RgbtFrame((Image(colour, "bgr"), Image(grey, "mono"))))
    if not frames:
        return []
    width, height = frames[0].size
    rng = np.random.default_rng(sum(folder.name.encode()))
    tracks: list[Track] = []
    for _ in range(20 * patches):
        if len(tracks) == patches:
            break
        size, aspect = np.exp(rng.uniform(np.log(24), np.log(150))), np.exp(rng.uniform(-0.7, 0.7))
        w, h = size * np.sqrt(aspect), size / np.sqrt(aspect)
        box = np.array([rng.uniform(0, width - w), rng.uniform(0, height - h), w, h])
        tracks.append([make_context(frame, box, factor, side) for frame in frames])
        x, y, w, h = tracks[-1][0].box.astype(int)
        if tracks[-1][0].pixels[:, y : y + h, x : x + w].std(axis=(1, 2)).max() < 12:
            tracks.pop()  # sky or wall: cannot be found again
    return tracks


def labelled_tracks(folder: Path, labels: Mapping[str, Any], factor: float = FACTOR, side: int = SIDE) -> list[Track]:
    """The labelled targets of an aligned RGB-thermal clip, in every second frame.

    Args:
        folder: with `visible/` and `infrared/`.
        labels: target -> `first_frame` and `boxes_xywh`, a box for each frame from there on.
    """
    tracks: dict[str, Track] = {}
    visible, infrared = (sorted((folder / name).iterdir()) for name in ("visible", "infrared"))
    for i, paths in enumerate(zip(visible, infrared)):
        flags = (cv2.IMREAD_COLOR, cv2.IMREAD_GRAYSCALE)
        colour, grey = (cv2.imread(str(path), flag) for path, flag in zip(paths, flags))
        if colour is None or grey is None:
            log.warning("cannot read %s or %s: left out", *paths)
            continue
        frame = RgbtFrame((Image(colour, "bgr"), Image(grey, "mono")))
        for name, label in labels.items():
            row = i - label["first_frame"]
            if row % 2 or not 0 <= row < len(label["boxes_xywh"]):
                continue
            box = np.array(label["boxes_xywh"][row])
            if np.sqrt(box[2] * box[3]) >= MIN_SIZE:
                context = make_context(frame, box, factor, side, picture_number(paths[0]))
                tracks.setdefault(name, []).append(context)
    return list(tracks.values())


def scene_tracks(seed: int, views: int, factor: float = FACTOR, side: int = SIDE) -> list[Track]:
    """The targets of one generated scene at `views` moments."""
    from ckd_tracker_ros.synthetic import Scene, random_config

    rng = np.random.default_rng(seed)
    scene = Scene(random_config(rng, width=640, height=480, frames=240, homography=None, thermal_size=None), seed)
    tracks: dict[int, Track] = {}
    for i in sorted(rng.choice(len(scene), views, replace=False).tolist()):
        frame = scene.frame(i)
        for target, (box, share) in enumerate(zip(scene.boxes(i), scene.visible(i))):
            if share > 0.5 and np.sqrt(box[2] * box[3]) >= MIN_SIZE:
                context = make_context(frame, box, factor, side, picture_number(f"scene {seed}, {i}"))
                tracks.setdefault(target, []).append(context)
    return list(tracks.values())


Job = tuple[float, Callable[[], list[Track]]]
"""Weight of the tracks, and a function that reads them; it may be pickled."""


def jobs(
    data: Path | None,
    scenes: int,
    first_seed: int = 0,
    weights: Mapping[str, float] | None = None,
    boxes: Mapping[str, int] | None = None,
    labels: Path | None = None,
    factor: float = FACTOR,
    side: int = SIDE,
) -> Iterator[Job]:
    """Everything to read.

    Args:
        data: folder with `<set>/annotations.json` or `<set>/<clip>/visible|infrared` below it; None for scenes alone.
        scenes: how many generated scenes.
        weights: how often the tracks of a set are drawn, by the name of its folder; 1 for sets that are not named.
        boxes: most boxes that are taken of one image of a set; 4 for sets that are not named.
        labels: file of clip -> target -> `first_frame` and `boxes_xywh`, for clips without boxes; their weight is that
            of the set "labels".
        factor, side: of the contexts, see `FACTOR`.
    """
    weights, boxes = weights or {}, boxes or {}
    labelled = json.loads(labels.read_text(encoding="utf-8")) if labels else {}
    for path in sorted(data.glob(f"*/{ANNOTATIONS}")) if data else []:
        groups: dict[str, list[AnnotatedStill]] = {}
        for still in read_stills(path).stills:
            groups.setdefault(still.sequence or str(still.path), []).append(still)
        name = path.parent.name
        for group in groups.values():
            yield weights.get(name, 1.0), partial(still_tracks, group, boxes.get(name, 4), factor, side)
    for folder in sorted(data.glob("*/*/infrared")) if data else []:
        clip = folder.parent
        yield weights.get(clip.parent.name, 1.0), partial(clip_tracks, clip, 90, factor, side)
        if clip.name in labelled:
            read = partial(labelled_tracks, clip, labelled[clip.name], factor, side)
            yield weights.get("labels", 1.0), read
    for seed in range(first_seed, first_seed + scenes):
        yield weights.get("scenes", 1.0), partial(scene_tracks, seed, 8, factor, side)


class _Messages(logging.Handler):
    """Keeps what is logged: a process of a pool has no log of its own."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def _run(job: Job) -> tuple[float, list[Track], list[str]]:
    cv2.setNumThreads(1)
    messages = _Messages()
    logger = logging.getLogger(__package__.partition(".")[0])
    logger.addHandler(messages)
    try:
        return job[0], job[1](), messages.texts
    finally:
        logger.removeHandler(messages)


def build(work: Iterable[Job], processes: int, problems: list[str] | None = None) -> Bank:
    """Read all jobs in parallel; the order, and so the bank, does not depend on the number of processes.

    Args:
        problems: what had to be left out is added here, and logged.

    Raises:
        ValueError: not a single track.
    """
    tracks: list[Track] = []
    weights: list[float] = []
    with get_context("spawn").Pool(processes) as pool:
        for weight, found, left_out in pool.imap(_run, list(work), chunksize=8):
            tracks += found
            weights += [weight] * len(found)
            for text in left_out:
                log.warning(text)
            if problems is not None:
                problems += left_out
    if not tracks:
        raise ValueError("no track in the training data: no annotated image, no clip and no scene could be read")
    return stack(tracks, weights)


def stack(tracks: list[Track], weights: list[float]) -> Bank:
    """A bank of tracks, and how often each is drawn."""
    contexts = [context for track in tracks for context in track]
    count = torch.tensor([len(track) for track in tracks])
    *columns, pictures = zip(*contexts)
    stacked = (torch.from_numpy(np.stack(column)) for column in columns)
    beside = _same_picture(pictures, [number for number, track in enumerate(tracks) for _ in track])
    return Bank(*stacked, beside, count.cumsum(0) - count, count, torch.tensor(weights))


def _same_picture(pictures: Iterable[int], tracks: list[int]) -> Tensor:
    """(K, J) for each context those of other tracks in the same image, `ALONE` behind the last."""
    members: dict[int, list[int]] = {}
    for i, picture in enumerate(pictures):
        if picture != ALONE:
            members.setdefault(picture, []).append(i)
    rows: list[list[int]] = [[] for _ in tracks]
    for group in members.values():
        for i in group:
            rows[i] = [j for j in group if tracks[j] != tracks[i]]
    width = max(1, *map(len, rows))
    return torch.tensor([row + [ALONE] * (width - len(row)) for row in rows])
