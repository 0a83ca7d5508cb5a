"""Batches by the numbers of their samples, from contexts in memory or from recordings that are read meanwhile.

Sample i is the same whatever batch, process or run draws it: resuming and several processes need no state.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ckd_tracker_ros import sequences
from ckd_tracker_ros.network.config import NetworkConfig
from ckd_tracker_ros.sequences import SequenceError, open_data_set, true_box
from ckd_tracker_ros.share import share_folders
from ckd_tracker_ros.training.config import FOLDER, DataConfig, SequenceSet
from ckd_tracker_ros.training.contexts import Bank, Context, Job, Track, build, jobs, make_context, misplaced, stack
from ckd_tracker_ros.training.samples import Batch, SampleConfig, Sampler

log = logging.getLogger(__name__)

ATTEMPTS = 100
"""Unreadable pairs of frames in a row after which the data set counts as broken."""

Numbers = Sequence[int]


class DataError(ValueError):
    """There is nothing to train on; says what was looked for."""


@dataclass(frozen=True)
class Shape:
    """What contexts look like and what is drawn from them."""

    network: NetworkConfig
    samples: SampleConfig
    data: DataConfig

    @property
    def side(self) -> int:
        """Of a context in pixels: as fine as the search crop."""
        return math.ceil(self.network.search_size * self.data.context / self.network.search_factor)

    def context(self, sequence: sequences.Sequence, i: int) -> Context:
        """The target in frame `i`.

        Raises:
            SequenceError: the frame cannot be read, or its box cannot be right.
        """
        frame, box = sequence.frame(i), true_box(sequence, i)
        if misplaced(box, frame.size):
            where = getattr(sequence, "path", sequence.name)
            width, height = frame.size
            raise SequenceError(f"{where}, frame {i}: box {box.tolist()} in an image of {width} x {height}")
        return make_context(frame, box, self.data.context, self.side)

    def usable(self, sequence: sequences.Sequence) -> NDArray[np.int64]:
        """Frames in which the target can be seen and is large enough, rising.

        Raises:
            SequenceError: the sequence cannot be opened, or has no box.
        """
        if sequence.boxes is None:
            raise SequenceError(f"{getattr(sequence, 'path', sequence.name)} has no boxes: nothing to learn from")
        sizes = np.sqrt(np.clip(sequence.boxes[:, 2], 0, None) * np.clip(sequence.boxes[:, 3], 0, None))
        rows = np.flatnonzero(np.nan_to_num(sizes) >= self.data.min_size)
        if not len(rows):
            where = getattr(sequence, "path", sequence.name)
            raise SequenceError(f"{where} has no target of at least {self.data.min_size:g} pixels: left out")
        return rows + sequence.first_frame


class Feed(Protocol):
    """Where batches come from.

    Attributes:
        problems: what could not be read, each once.
        description: for people.
    """

    problems: list[str]
    description: str

    def batches(self, orders: Iterable[Numbers]) -> Iterator[Batch]:
        """One batch for each list of sample numbers, in order."""
        ...


class MemoryFeed:
    """Samples drawn from a bank on the training device."""

    def __init__(self, bank: Bank, shape: Shape, seed: int, problems: list[str]) -> None:
        self._sampler = Sampler(bank, shape.network, shape.samples)
        self._seed, self.problems = seed, problems
        tracks = int((bank.weight > 0).sum())
        self.description = f"{tracks} tracks, {int(bank.count[bank.weight > 0].sum())} views in memory"

    def batches(self, orders: Iterable[Numbers]) -> Iterator[Batch]:
        return (self._sampler.draw(numbers, self._seed) for numbers in orders)


class StreamFeed:
    """Samples whose two frames are read from recordings by other processes, and rendered on the training device."""

    def __init__(
        self,
        found: Sequence[sequences.Sequence],
        weights: Sequence[float],
        shape: Shape,
        seed: int,
        device: torch.device,
    ) -> None:
        self._dataset = PairDataset(found, weights, shape, seed)
        self._shape, self._seed, self._device = shape, seed, device
        self.problems: list[str] = []
        self.description = f"{len(found)} recordings, read while training"

    def batches(self, orders: Iterable[Numbers]) -> Iterator[Batch]:
        loader = DataLoader(
            self._dataset,
            batch_sampler=orders,  # type: ignore[arg-type]  # any iterable of lists
            num_workers=self._shape.data.workers,
            # a fork of a process whose libraries run threads may wait for their locks for ever
            multiprocessing_context="spawn" if self._shape.data.workers else None,
            collate_fn=_collate,
            worker_init_fn=_one_thread,
        )
        for numbers, bank, problems in loader:
            for text in problems:
                if text not in self.problems:
                    log.warning("%s: another sample is drawn", text)
                    self.problems.append(text)
            sampler = PairSampler(bank.to(self._device), self._shape.network, self._shape.samples)
            yield sampler.draw(numbers, self._seed)


class Drawn(NamedTuple):
    """What one sample shows.

    Attributes:
        number: of the sample.
        pairs: older and newer context, of each `_Target` that the sampler asks for in turn.
        problems: what could not be read before.
    """

    number: int
    pairs: list[Track]
    problems: list[str]


class PairDataset(Dataset):
    """Contexts of sample number i: pairs of frames of recordings, drawn by a generator seeded with i."""

    def __init__(self, found: Sequence[sequences.Sequence], weights: Sequence[float], shape: Shape, seed: int) -> None:
        self._found, self._shape, self._seed = found, shape, seed
        self._cumulated = np.cumsum(weights)
        self._known: dict[int, NDArray[np.int64] | SequenceError] = {}

    def __getitem__(self, number: int) -> Drawn:
        rng = np.random.default_rng((self._seed, number))
        problems: list[str] = []
        samples = self._shape.samples
        pairs = [self._pair(rng, problems) for _ in range(samples.targets)]
        for needed in (samples.fill > 0, samples.paste > 0 or samples.absent_target > 0):  # behind, elsewhere
            pairs.append(self._pair(rng, problems, alone=True) if needed else [pairs[0][1]] * 2)
        return Drawn(number, pairs, problems)

    def _pair(self, rng: np.random.Generator, problems: list[str], alone: bool = False) -> Track:
        """Two contexts of one recording; `alone`: one of them, twice."""
        for _ in range(ATTEMPTS):
            place = rng.uniform(0, self._cumulated[-1])
            index = min(int(np.searchsorted(self._cumulated, place, side="right")), len(self._found) - 1)
            first, second, flip = rng.random(3)
            try:
                frames = self._frames(index)
                a = frames[int(first * len(frames))]
                near = frames[np.abs(frames - a) <= self._shape.data.max_gap]
                b = near[int(second * len(near))]
                old, new = (a, b) if flip < 0.5 else (b, a)
                newer = self._shape.context(self._found[index], int(new))
                return [newer if alone else self._shape.context(self._found[index], int(old)), newer]
            except SequenceError as error:
                problems.append(str(error))
        raise DataError(f"{ATTEMPTS} samples in a row could not be read; the last: {problems[-1]}")

    def _frames(self, index: int) -> NDArray[np.int64]:
        """Usable frames of a recording, looked for once."""
        if index not in self._known:
            try:
                self._known[index] = self._shape.usable(self._found[index])
            except SequenceError as error:
                self._known[index] = error
        known = self._known[index]
        if isinstance(known, SequenceError):
            raise known
        return known


class PairSampler(Sampler):
    """Of a bank whose tracks were chosen before: row n of the batch has tracks nJ to nJ + J - 1, in order of use."""

    def draw(self, numbers: Iterable[int], seed: int) -> Batch:
        numbers = list(numbers)
        self._per_row = len(self._bank.count) // len(numbers)
        self._turn = count()
        return super().draw(numbers, seed)

    def _pick(self, draws: object) -> tuple[Tensor, Tensor]:
        old = self._bank.first[next(self._turn) :: self._per_row]
        return old, old + 1


def _collate(drawn: list[Drawn]) -> tuple[list[int], Bank, list[str]]:
    tracks = [pair for one in drawn for pair in one.pairs]
    problems = [text for one in drawn for text in one.problems]
    return [one.number for one in drawn], stack(tracks, [1.0] * len(tracks)), problems


def _one_thread(_: int) -> None:
    cv2.setNumThreads(1)


class Feeds(NamedTuple):
    """For training and for validation."""

    training: Feed
    held_back: Feed


def open_feeds(shape: Shape, seed: int, device: torch.device) -> Feeds:
    """Everything that the configuration names, read as far as it is kept in memory.

    Raises:
        DataError: nothing to train on.
        SequenceError: a folder without recordings.
    """
    data = shape.data
    if data.sequences and not data.views:
        found = [(sequence, group.weight) for group in data.sequences for sequence in _open(group)]
        parts = zip(_split(found, data.held_back), _shapes(shape))
        return Feeds(*(StreamFeed(*zip(*part), each, seed + i, device) for i, (part, each) in enumerate(parts)))
    problems: list[str] = []
    return memory_feeds(read_bank(shape, problems).to(device), shape, seed, problems)


def read_bank(shape: Shape, problems: list[str]) -> Bank:
    """All that is kept in memory; what had to be left out is added to `problems`.

    Raises:
        DataError: nothing to train on.
        SequenceError: a folder without recordings.
    """
    try:
        return build(list(_memory_jobs(shape)), shape.data.processes, problems)
    except ValueError as error:
        raise DataError(f"{error}; asked for: {_asked(shape.data)}") from error


def memory_feeds(bank: Bank, shape: Shape, seed: int, problems: list[str]) -> Feeds:
    """Samples of a bank, which several trainings may share; its tracks are split by `DataConfig.held_back`."""
    held = torch.zeros(len(bank.count), dtype=torch.bool, device=bank.pixels.device)
    held[list(_held_back(len(held), shape.data.held_back))] = True
    weights = (torch.where(held, 0, bank.weight), torch.where(held, bank.weight, 0) if held.any() else bank.weight)
    parts = [replace(bank, weight=weight) for weight in weights]
    return Feeds(*(MemoryFeed(p, each, seed + i, problems) for i, (p, each) in enumerate(zip(parts, _shapes(shape)))))


def _shapes(shape: Shape) -> tuple[Shape, Shape]:
    """For training and for validation, which sees everything."""
    return shape, replace(shape, samples=replace(shape.samples, hidden=0.0))


def _memory_jobs(shape: Shape) -> Iterator[Job]:
    data = shape.data
    if data.stills and not Path(data.stills).is_dir():
        raise DataError(f"data.stills is {data.stills!r}: no such folder")
    stills = Path(data.stills) if data.stills else None
    labels = find_labels(data.labels) if data.labels else None
    everything = jobs(
        stills, data.scenes, weights=data.weights, boxes=data.boxes, labels=labels, factor=data.context, side=shape.side
    )
    yield from islice(everything, 0, None, data.every)
    for group in data.sequences:
        for sequence in _open(group):
            yield group.weight, partial(sequence_tracks, sequence, shape)


def find_labels(name_or_path: str) -> Path:
    """The file of a path, or of a name in the `config/train` of the share folders.

    Raises:
        DataError: there is none.
    """
    places = [Path(name_or_path).expanduser(), *(folder / FOLDER / name_or_path for folder in share_folders())]
    for place in places:
        if place.is_file():
            return place
    raise DataError(f"data.labels is {name_or_path!r}; looked for: {', '.join(map(str, places))}")


def sequence_tracks(sequence: sequences.Sequence, shape: Shape) -> list[Track]:
    """One track of `DataConfig.views` moments of a recording; what cannot be read is logged and left out."""
    try:
        frames = shape.usable(sequence)
    except SequenceError as error:
        log.warning("%s", error)
        return []
    track: Track = []
    for i in frames[np.linspace(0, len(frames) - 1, min(shape.data.views, len(frames))).round().astype(int)]:
        try:
            track.append(shape.context(sequence, int(i)))
        except SequenceError as error:
            log.warning("%s", error)
    return [track] if track else []


def _open(group: SequenceSet) -> Sequence[sequences.Sequence]:
    names = None
    if group.names:
        try:
            names = Path(group.names).read_text(encoding="utf-8").split()
        except OSError as error:
            raise DataError(f"the list of sequences {group.names!r} cannot be read: {error.strerror}") from error
    return open_data_set(group.root, None if group.kind == "auto" else group.kind, names)


def _held_back(total: int, share: float) -> range:
    """Every n-th of so many; none where there are fewer than n."""
    every = round(1 / share) if share else total + 1
    return range(every - 1, total, every)


def _split(found: list, share: float) -> tuple[list, list]:
    """For training and for validation; too few to hold one back are used for both."""
    held = _held_back(len(found), share)
    training = [item for i, item in enumerate(found) if i not in held]
    return training, [found[i] for i in held] or training


def _asked(data: DataConfig) -> str:
    parts = [f"stills {data.stills!r}"] * bool(data.stills) + [f"{data.scenes} scenes"] * bool(data.scenes)
    parts += [f"sequences {group.root!r}" for group in data.sequences]
    return ", ".join(parts) or "nothing (data.stills, data.scenes and data.sequences are empty)"
