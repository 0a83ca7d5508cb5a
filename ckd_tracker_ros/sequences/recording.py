"""What a recording is, and the two kinds there are: of cameras, and of a generated scene."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ckd_tracker_ros.frame import MODALITIES, RgbtFrame
from ckd_tracker_ros.sequences.sources import SequenceError, Source, to_image
from ckd_tracker_ros.synthetic import Scene

Boxes = NDArray[np.float64]
Indices = NDArray[np.int64]

DEFAULT_RATE = 30.0
"""Frames per second where the recording does not say."""


class Sequence(Protocol):
    """A recording of one or both cameras.

    Attributes:
        name: for people and for the names of result files.
        rate: frames per second.
        first_frame: frame that the first box belongs to; 0 without boxes.
        boxes: (n, 4) xywh in RGB pixels of frames `first_frame` to `first_frame + n - 1`, rows of NaN where the target
            cannot be seen or is not annotated; None: not known. What a tracker starts with and learns from.
        truths: per modality (k, 4) xywh in that camera's pixels, as published, one row for each of `annotated`; None
            where there is none. What benchmarks measure with.
        annotated: (k,) frames, rising.
    """

    name: str
    rate: float
    first_frame: int
    boxes: Boxes | None
    truths: tuple[Boxes | None, ...]
    annotated: Indices

    def __len__(self) -> int:
        """Number of frames."""
        ...

    def frame(self, i: int) -> RgbtFrame:
        """Frame `i`, stamped `i` / `rate` seconds, or with the RGB stamp of a bag; cheap in rising order.

        Raises:
            IndexError: there is no such frame.
            SequenceError: it cannot be read.
        """
        ...


class SceneSequence:
    """A generated scene and the boxes of one of its targets.

    Raises:
        IndexError: the scene has no such target.
    """

    def __init__(self, scene: Scene, target: int = 0) -> None:
        if not 0 <= target < scene.config.targets:
            raise IndexError(f"target {target} of a scene with {scene.config.targets}")
        self.scene = scene
        self.name = f"scene_{scene.seed}"
        self.rate = scene.config.fps
        self.first_frame = 0
        seen = [scene.visible(i)[target] > 0 for i in range(len(scene))]
        self.boxes: Boxes | None = np.array(
            [scene.boxes(i)[target] if there else np.full(4, np.nan) for i, there in enumerate(seen)]
        )
        self.truths: tuple[Boxes | None, ...] = (self.boxes, None)
        self.annotated: Indices = np.arange(len(scene))

    def __len__(self) -> int:
        return len(self.scene)

    def frame(self, i: int) -> RgbtFrame:
        return self.scene.frame(i)


@dataclass(eq=False)
class Recording:
    """Pictures of one or both cameras as a `Sequence`; not for several threads at a time.

    Attributes:
        sources: per modality, None for a camera that is not there.
        truths: without them, `boxes` are the truth of the first camera there is.
        annotated: without them, all frames that have a row of `boxes`.

    Raises:
        SequenceError: no camera, unequal lengths or rates, or more boxes than frames.
    """

    name: str
    sources: tuple[Source | None, ...]
    boxes: Boxes | None = None
    first_frame: int = 0
    truths: tuple[Boxes | None, ...] = ()
    annotated: Indices = field(default_factory=lambda: np.empty(0, np.int64))

    def __post_init__(self) -> None:
        present = [source for source in self.sources if source is not None]
        if not present:
            raise SequenceError(f"{self.name} has no camera; expected: one or both of rgb and thermal")
        for what, values in (("frames", [len(s) for s in present]), ("frames per second", [s.rate for s in present])):
            if len({round(value, 2) for value in values if value is not None}) > 1:
                counts = ", ".join(f"{source.path}: {value}" for source, value in zip(present, values))
                raise SequenceError(f"the cameras differ in their number of {what} ({counts}); expected: equal numbers")
        self.rate = next((source.rate for source in present if source.rate is not None), DEFAULT_RATE)
        self._length = len(present[0])
        end = self.first_frame + (0 if self.boxes is None else len(self.boxes))
        if self.first_frame < 0 or end > self._length:
            boxes = f"boxes of frames {self.first_frame} to {end - 1}"
            raise SequenceError(f"{self.name} has {boxes}, but its frames are 0 to {self._length - 1}")
        if not self.truths:
            first = next(i for i, source in enumerate(self.sources) if source is not None)
            self.truths = tuple(self.boxes if i == first else None for i in range(len(self.sources)))
            self.annotated = np.arange(self.first_frame, end)

    def __len__(self) -> int:
        return self._length

    def frame(self, i: int) -> RgbtFrame:
        """Frame `i`, stamped `i` / `rate` seconds."""
        if not 0 <= i < self._length:
            raise IndexError(f"frame {i} of {self.name}, whose frames are 0 to {self._length - 1}")
        images = (
            None if source is None else to_image(source.read(i), modality)
            for modality, source in zip(MODALITIES, self.sources)
        )
        return RgbtFrame(tuple(images), round(i * 1e9 / self.rate))


def true_box(sequence: Sequence, i: int) -> Boxes:
    """(4,) xywh of the target in frame `i`, RGB pixels; NaN where it cannot be seen or is not known."""
    row = i - sequence.first_frame
    if sequence.boxes is None or not 0 <= row < len(sequence.boxes):
        return np.full(4, np.nan)
    return np.asarray(sequence.boxes[row], np.float64)
