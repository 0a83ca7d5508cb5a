"""Numbered pictures of one camera: a folder of images or a video."""

from __future__ import annotations

import math
import re
from collections import deque
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ckd_tracker_ros.frame import Image

IMAGE_ENDS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
RECENT = 8  # decoded video frames that are kept: readers look back a little, never far
GREY_TOLERANCE = 4  # levels; a grey video comes back from its YUV with channels this far apart


class SequenceError(ValueError):
    """A recording cannot be read; names the path, what was found and what is expected."""


class Stills:
    """The images of a folder, in natural order: 2 comes before 10.

    Attributes:
        names: of the files, one per picture.

    Raises:
        SequenceError: there is none.
    """

    rate: float | None = None

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self.names = [file.name for file in images_in(folder)]
        if not self.names:
            raise SequenceError(f"{folder} holds no image; expected files ending in {', '.join(IMAGE_ENDS)}")

    def __len__(self) -> int:
        return len(self.names)

    def read(self, i: int) -> NDArray:
        """(H, W), (H, W, 3) or (H, W, 4), as stored."""
        file = self.path / self.names[i]
        try:
            data = file.read_bytes()
        except OSError as error:
            raise SequenceError(f"{file} cannot be read: {error.strerror}") from error
        # OpenCV fills the rest of a cut JPEG with grey and reports success.
        whole = not data.startswith(b"\xff\xd8") or b"\xff\xd9" in data[-4096:]
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data and whole else None
        if pixels is None:
            raise SequenceError(f"{file} is no image that can be decoded ({len(data)} bytes, empty, cut or corrupt)")
        return pixels


class Video:
    """The frames of a video file, decoded in order: seeking is not exact in most formats.

    Raises:
        SequenceError: it is no video that can be decoded.
    """

    def __init__(self, file: Path) -> None:
        self.path = file
        self._recent: deque[tuple[int, NDArray]] = deque(maxlen=RECENT)
        self._open()
        rate, count = self._capture.get(cv2.CAP_PROP_FPS), self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.rate: float | None = rate if math.isfinite(rate) and rate > 0 else None
        self._count = int(count) if count >= 1 else self._counted()

    def __len__(self) -> int:
        return self._count

    def read(self, i: int) -> NDArray:
        """(H, W, 3) BGR."""
        for index, pixels in self._recent:
            if index == i:
                return pixels
        if i < self._next:
            self._open()
        while self._next < i:
            self._advance(self._capture.grab())
        read, pixels = self._capture.read()
        self._advance(read)
        self._recent.append((i, pixels))
        return pixels

    def _open(self) -> None:
        self._capture, self._next = cv2.VideoCapture(str(self.path)), 0
        if not self._capture.isOpened():
            raise SequenceError(f"{self.path} is no video that can be decoded ({self.path.stat().st_size} bytes)")

    def _advance(self, success: bool) -> None:
        if not success:
            raise SequenceError(f"{self.path} ends or is corrupt at frame {self._next}; it announces {self._count}")
        self._next += 1

    def _counted(self) -> int:
        """Frames of a file that does not say how many it has."""
        count = 0
        while self._capture.grab():
            count += 1
        self._open()
        if not count:
            raise SequenceError(f"{self.path} holds no frame")
        return count


Source = Stills | Video


def source_at(path: Path) -> Source:
    """One camera's pictures.

    Raises:
        SequenceError: neither a folder of images nor a video.
    """
    if path.is_dir():
        return Stills(path)
    if not path.exists():
        raise SequenceError(f"{path} does not exist")
    return Video(path)


def natural(path: Path) -> list[tuple[int, int | str]]:
    """A key that sorts numbers inside a name by value."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"([0-9]+)", path.name.lower())]


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder in natural order."""
    return sorted((file for file in folder.iterdir() if file.suffix.lower() in IMAGE_ENDS), key=natural)


def to_image(pixels: NDArray, modality: str) -> Image:
    """Pictures as OpenCV reads them; thermal ones that are stored in colours but show none become one channel."""
    if pixels.ndim == 2:
        return Image(pixels, "mono")
    if modality == "thermal" and pixels.shape[2] == 3 and pixels.dtype == np.uint8:
        blue, green, red = cv2.split(pixels)
        apart = max(cv2.norm(blue, green, cv2.NORM_INF), cv2.norm(green, red, cv2.NORM_INF))
        if apart <= GREY_TOLERANCE:
            return Image(green, "mono")
    return Image(pixels, "bgra" if pixels.shape[2] == 4 else "bgr")
