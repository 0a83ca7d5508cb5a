"""A short recording seen by a camera that moves: long sequences of real targets, where only short ones were recorded.

The recording is played to and fro. A virtual camera zooms, wanders and shakes; smoke may drift over RGB. What a tracker
meets in it, sizes that change by a factor of two, rivals that pass, minutes instead of moments, is not in the recording
itself, but the pixels are real.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ckd_tracker_ros import boxes
from ckd_tracker_ros.frame import Image, RgbtFrame
from ckd_tracker_ros.sequences.recording import Boxes, Indices, Sequence, true_box
from ckd_tracker_ros.sequences.sources import SequenceError

FRAMES_PER_SECOND = 30.0
"""Of the movement, and at which the recording is played."""
CLOUD = (1280, 480)
"""Width and height of the smoke, which is twice as wide as the image."""
SMOKE_DRIFT = 4
"""Of its pixels, a frame."""
SHOWN = 0.5
"""Share of a box inside the image from which on the target counts as visible."""


@dataclass(frozen=True)
class ViewConfig:
    """How the camera moves.

    Attributes:
        frames: length of the sequence.
        stride: every so many-th frame of the movement is kept: 3 is a camera of a third of the rate.
        zoom: smallest and largest enlargement, at least 1; it goes from one end towards the other, or back.
        wander: largest way of the target from the middle of the image, share of the image's size.
        shake: standard deviation from frame to frame, share of the image's width.
        smoke: largest share of RGB that smoke hides, 0 for none; it comes within the first third.
        contrast: what is left of thermal contrast; 1 as recorded.
    """

    frames: int = 240
    stride: int = 1
    zoom: tuple[float, float] = (1.3, 2.6)
    wander: float = 0.25
    shake: float = 0.004
    smoke: float = 0.0
    contrast: float = 1.0


class MovingView:
    """A `Sequence` of one target; every frame is a function of recording, configuration, seed and index alone.

    Args:
        sequence: of both cameras, aligned, 8 bits; `boxes` from its first frame on.
        config: how the camera moves.
        seed: of the movement and of the smoke.

    Raises:
        SequenceError: it has no such boxes, or fewer than two frames.
    """

    def __init__(self, sequence: Sequence, config: ViewConfig, seed: int) -> None:
        if sequence.boxes is None or len(sequence.boxes) < 2 or not np.isfinite(sequence.boxes[0]).all():
            raise SequenceError(f"{sequence.name} cannot be played to and fro: it needs boxes in 2 or more frames")
        rng = np.random.default_rng(seed)
        self._sequence, self._config = sequence, config
        self._frames = [sequence.frame(sequence.first_frame + i) for i in range(len(sequence.boxes))]
        self._views = _views(rng, config, self._frames[0].size, true_box(sequence, sequence.first_frame))
        cloud = cv2.resize(rng.normal(size=(10, 24)).astype(np.float32), CLOUD, interpolation=cv2.INTER_CUBIC)
        self._thick = np.clip(1 + 0.5 * cloud, 0.2, 2)
        self._grey = 150 + 25 * np.roll(cloud, CLOUD[0] // 4, axis=1)
        self.name = f"{sequence.name}_view_{seed}"
        self.rate = FRAMES_PER_SECOND / config.stride
        self.first_frame = 0
        self.boxes: Boxes | None = np.array([self._box(i) for i in range(config.frames)])
        self.truths: tuple[Boxes | None, ...] = (self.boxes, None)
        self.annotated: Indices = np.arange(config.frames)

    def __len__(self) -> int:
        return self._config.frames

    def frame(self, i: int) -> RgbtFrame:
        """Frame `i`, stamped `i` / `rate` seconds."""
        zoom, left, top = self._views[i]
        visible, infrared = self._frames[self._source(i)].images
        matrix = np.array([[zoom, 0, -zoom * left], [0, zoom, -zoom * top]])
        seen = [
            cv2.warpAffine(image.pixels, matrix, (image.width, image.height), flags=cv2.INTER_LINEAR)
            for image in (visible, infrared)
        ]
        rgb = self._in_smoke(seen[0], i)
        faint = cv2.addWeighted(
            seen[1], self._config.contrast, seen[1], 0, (1 - self._config.contrast) * seen[1].mean()
        )
        images = Image(rgb, visible.order), Image(faint, infrared.order)
        return RgbtFrame(images, round(i * 1e9 / self.rate))

    def _source(self, i: int) -> int:
        """The recording's frame: to and fro, one a thirtieth of a second."""
        last = len(self._frames) - 1
        return last - abs(last - i * self._config.stride % (2 * last))

    def _box(self, i: int) -> NDArray[np.float64]:
        zoom, left, top = self._views[i]
        x, y, w, h = self._sequence.boxes[self._source(i)]
        box = np.array([(x - left) * zoom, (y - top) * zoom, w * zoom, h * zoom])
        width, height = self._frames[0].size
        inside = boxes.clip(box, width, height, 4)
        return inside if np.prod(inside[2:]) > SHOWN * np.prod(box[2:]) else np.full(4, np.nan)

    def _in_smoke(self, rgb: NDArray[np.uint8], i: int) -> NDArray[np.uint8]:
        hidden = self._config.smoke * min(1, (i + 1) / (0.3 * self._config.frames))
        if not hidden:
            return rgb
        height, width = rgb.shape[:2]
        drift = SMOKE_DRIFT * i * self._config.stride
        thick, grey = (
            cv2.resize(np.roll(cloud, -drift, axis=1)[:, : CLOUD[0] // 2], (width, height))[..., None]
            for cloud in (self._thick, self._grey)
        )
        through = (1 - hidden) ** thick
        return np.uint8(np.clip(through * rgb + (1 - through) * grey, 0, 255))


def _views(rng: np.random.Generator, config: ViewConfig, size: tuple[int, int], box: NDArray) -> NDArray[np.float64]:
    """(frames, 3) enlargement and left top corner of what the camera sees, pixels of the recording.

    Args:
        size: of the recording's images, width and height.
        box: (4,) xywh of the target in the first one.
    """
    time = np.arange(config.frames * config.stride) / FRAMES_PER_SECOND
    low, high = np.log(config.zoom)
    trend = np.linspace(0, 1, len(time))
    trend = trend if rng.random() < 0.5 else trend[::-1]
    swing = 0.15 * np.sin(2 * np.pi * (rng.uniform(0.1, 0.4) * time + rng.random()))
    zoom = np.exp(low + (high - low) * np.clip(trend + swing, 0, 1))[:, None]
    ways = [np.sin(2 * np.pi * (rng.uniform(0.08, 0.5) * time + rng.random())) for _ in range(2)]
    wander = 0.5 + config.wander * np.stack(ways, axis=1)
    shake = cv2.blur(rng.normal(0, 2 * config.shake, (len(time), 2)), (1, 3))
    corner = boxes.xywh_to_cxcywh(box)[:2] - (wander + shake) * size / zoom
    corner = np.clip(corner, 0, np.array(size) * (1 - 1 / zoom))  # nothing from outside the recording
    return np.hstack([zoom, corner])[:: config.stride]
