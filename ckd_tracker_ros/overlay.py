"""Boxes drawn on images for people: both images of a pair side by side, and videos of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ckd_tracker_ros import thermal
from ckd_tracker_ros.frame import MODALITIES, Image, RgbtFrame
from ckd_tracker_ros.registration import Registration

Picture = NDArray[np.uint8]
Color = tuple[int, int, int]

TRUTH_COLOR: Color = (255, 255, 255)
STATUS_COLORS: dict[int, Color] = {1: (80, 220, 60), 2: (0, 190, 255), 3: (60, 60, 240), 4: (150, 150, 150)}
"""BGR by target status: tracking green, uncertain amber, lost red, removed grey."""
PALETTE: tuple[Color, ...] = ((80, 220, 60), (255, 170, 40), (230, 90, 230), (0, 215, 255), (220, 220, 80))
"""BGR by target number, where several are drawn at once."""

_TO_BGR = {
    "rgb": cv2.COLOR_RGB2BGR,
    "rgba": cv2.COLOR_RGBA2BGR,
    "bgra": cv2.COLOR_BGRA2BGR,
    "mono": cv2.COLOR_GRAY2BGR,
}


class VideoError(RuntimeError):
    """A video file cannot be written."""


@dataclass(frozen=True, eq=False)
class Mark:
    """One box to draw.

    Attributes:
        box: (4,) left, top, width, height in pixels of the picture; a box with NaN is not drawn.
        text: written above the box.
        color: blue, green, red.
        dashed: dashed lines, for what is known rather than found.
    """

    box: ArrayLike
    text: str = ""
    color: Color = PALETTE[0]
    dashed: bool = False


def to_bgr(image: Image, limits: thermal.Limits | None = None) -> Picture:
    """A (H, W, 3) uint8 BGR copy of an image of any kind.

    Deeper images are mapped to 8 bits with `limits`, or, where there are none, with what this image alone says.
    """
    pixels = image.pixels
    if pixels.dtype != np.uint8:
        limits = limits or thermal.limits_of(image, thermal.ThermalSettings())
        pixels = thermal.to_uint8(pixels, limits)
    if image.order == "bgr":
        return np.array(pixels, order="C")
    return cv2.cvtColor(np.ascontiguousarray(pixels), _TO_BGR[image.order])


def draw(picture: Picture, marks: Iterable[Mark]) -> Picture:
    """Draws boxes with their texts into a (H, W, 3) picture, in place; gives the picture back."""
    height, width = picture.shape[:2]
    thickness = max(1, round(height / 300))
    for mark in marks:
        box = np.asarray(mark.box, np.float64)
        if not np.isfinite(box).all():
            continue
        # A box far outside would overflow OpenCV's coordinates; a margin keeps its lines out of sight.
        corners = np.stack([box[:2], box[:2] + box[2:]]).clip((-width, -height), (2 * width, 2 * height))
        (left, top), (right, bottom) = corners.round().astype(int).tolist()
        if mark.dashed:
            _dashed_rectangle(picture, (left, top), (right, bottom), mark.color, thickness)
        else:
            cv2.rectangle(picture, (left, top), (right, bottom), mark.color, thickness, cv2.LINE_AA)
        if mark.text:
            (text_width, text_height), _ = cv2.getTextSize(mark.text, cv2.FONT_HERSHEY_SIMPLEX, _text_scale(picture), 1)
            strip_height = text_height + text_height // 3 + 6 + thickness
            x = min(max(left, 0), max(0, width - text_width - 6))
            y = top - strip_height if top >= strip_height else min(bottom + thickness, height - strip_height)
            write(picture, mark.text, (x, y), mark.color)
    return picture


def write(picture: Picture, text: str, position: tuple[int, int], color: Color = TRUTH_COLOR) -> None:
    """Writes one line on a darkened strip, the strip's top left corner at `position`, in place."""
    scale, margin = _text_scale(picture), 3
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    left, top = max(position[0], 0), max(position[1], 0)
    # A strip rather than an outline: the same text with a thicker pen is wider in OpenCV 5's fonts.
    strip = picture[top : top + height + 2 * margin + height // 3, left : left + width + 2 * margin]
    strip //= 3
    cv2.putText(
        picture, text, (left + margin, top + margin + height), cv2.FONT_HERSHEY_SIMPLEX, scale, color, 1, cv2.LINE_AA
    )


def _text_scale(picture: Picture) -> float:
    return max(0.35, picture.shape[0] / 1000)


def side_by_side(
    frame: RgbtFrame,
    marks: tuple[Iterable[Mark], Iterable[Mark]],
    caption: str = "",
    limits: thermal.Limits | None = None,
) -> Picture:
    """Both images of a pair, RGB on the left, thermal on the right, at the height of the frame.

    Args:
        frame: at least one image; an absent one becomes a dark panel that says so.
        marks: per modality, what to draw, each in the pixels of its own image.
        caption: written at the bottom.
        limits: how a 16-bit or float thermal image becomes grey levels, see `to_bgr`.
    """
    width, height = frame.size
    panels = []
    for name, image, drawn in zip(MODALITIES, frame.images, marks, strict=True):
        if image is None:
            panel = np.full((height, width, 3), 40, np.uint8)
            write(panel, f"no {name} image", (width // 3, height // 2))
        else:
            panel = draw(to_bgr(image, limits if name == "thermal" else None), drawn)
            if panel.shape[0] != height:
                panel = cv2.resize(panel, (round(panel.shape[1] * height / panel.shape[0]), height))
        write(panel, name, (0, 0))
        panels.append(panel)
    picture = np.concatenate(panels, axis=1)
    if caption:
        write(picture, caption, (0, height - max(20, height // 24)))
    return picture


def in_thermal(marks: Iterable[Mark], frame: RgbtFrame, registration: Registration | None = None) -> list[Mark]:
    """Marks in RGB pixels, in pixels of the thermal image; none where that is absent."""
    image = frame.images[MODALITIES.index("thermal")]
    if image is None:
        return []
    registration, size = registration or Registration(), (image.width, image.height)
    return [replace(mark, box=registration.thermal_box(mark.box, frame.size, size)) for mark in marks]


def steady_limits(previous: thermal.Limits | None, frame: RgbtFrame) -> thermal.Limits | None:
    """Limits for the thermal image of a frame that follow those of the frame before slowly: a video without flicker."""
    image, settings = frame.images[MODALITIES.index("thermal")], thermal.ThermalSettings()
    return previous if image is None else thermal.smooth(previous, thermal.measure(image, settings), settings)


class Video:
    """An mp4 file that is written picture by picture: `with Video(path, 30.0) as video: video.add(picture)`.

    Raises:
        VideoError: the file cannot be opened; at the first picture, since that one settles the size.
    """

    def __init__(self, path: Path, rate: float) -> None:
        """The file's path, and its pictures per second."""
        self.path = path
        self._rate = rate
        self._size: tuple[int, int] | None = None
        self._writer: cv2.VideoWriter | None = None

    def add(self, picture: Picture) -> None:
        """Appends a (H, W, 3) BGR picture; one of another size than the first is resized to it."""
        if self._writer is None:
            # The codec wants even sides.
            self._size = (picture.shape[1] // 2 * 2, picture.shape[0] // 2 * 2)
            self._writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter_fourcc(*"mp4v"), self._rate, self._size)
            if not self._writer.isOpened():
                raise VideoError(f"cannot write {self.path}: is the folder writable, and OpenCV built with FFmpeg?")
        if picture.shape[1::-1] != self._size:
            picture = cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA)
        self._writer.write(picture)

    def close(self) -> None:
        """Completes the file; without this it cannot be played."""
        if self._writer is not None:
            self._writer.release()

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _dashed_rectangle(
    picture: Picture, first: tuple[int, int], last: tuple[int, int], color: Color, thickness: int
) -> None:
    corners = np.array([first, (last[0], first[1]), last, (first[0], last[1]), first], np.float64)
    for start, end in zip(corners[:-1], corners[1:], strict=True):
        # An odd number of pieces, every other one drawn, so that each side begins and ends in a dash.
        pieces = max(1, int(np.abs(end - start).max() / (5 * thickness))) | 1
        points = np.linspace(start, end, pieces + 1).round().astype(int).tolist()
        for piece in range(0, pieces, 2):
            cv2.line(picture, points[piece], points[piece + 1], color, thickness, cv2.LINE_AA)
