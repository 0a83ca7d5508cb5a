"""What arrives from one camera, image by image: little is kept of each, so that looking does not cost images."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ckd_tracker_ros.frame import Image
from ckd_tracker_ros.images import ImageError, decode, to_ns
from ckd_tracker_ros.overlay import to_bgr
from ckd_tracker_ros.thermal import is_palette

THUMBNAIL_WIDTH = 160
_HEIGHTS = (16, 640)  # of thumbnails; images of 2x8000 pixels are squeezed
_SAMPLED_WIDTH = 640  # larger images are looked at in steps of several pixels


class Look(NamedTuple):
    """What one image is like.

    Attributes:
        number: of its arrival.
        thumbnail: (h, THUMBNAIL_WIDTH) uint8, grey; of deep images stretched to what the image holds.
        low, high: 1st and 99th percentile of its values, over all channels.
        dtype: of its samples, as numpy names it.
        colourful: whether it is coloured as by a palette (`thermal.is_palette`).
    """

    number: int
    thumbnail: NDArray[np.uint8]
    low: float
    high: float
    dtype: str
    colourful: bool


@dataclass(eq=False)
class Watch:
    """One camera's images as they were received.

    Attributes:
        stamps_ns, arrivals_ns: of every image, in the order of arrival.
        looks: of those that decode.
        sizes: images by (width, height).
        encodings: images by encoding, or by format where they are compressed.
        problems: images that do not decode, by reason.
        bytes: of the largest one.
        lost: images that the middleware knows of and did not get, by its sequence numbers; more may have been lost.
    """

    stamps_ns: list[int] = field(default_factory=list)
    arrivals_ns: list[int] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    encodings: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    lost: int = 0

    def __len__(self) -> int:
        return len(self.stamps_ns)

    @property
    def unset(self) -> int:
        """Images without a stamp."""
        return self.stamps_ns.count(0)

    def add(self, message: Any, arrival_ns: int) -> None:
        """Takes an image message (see `images.decode`) as it arrives; one that does not decode is noted."""
        self.stamps_ns.append(to_ns(message.header.stamp))
        self.arrivals_ns.append(arrival_ns)
        self.encodings[getattr(message, "encoding", "") or getattr(message, "format", "")] += 1
        self.bytes = max(self.bytes, len(message.data))
        try:
            image = decode(message)
        except ImageError as error:
            self.problems[str(error)] += 1
            return
        self.sizes[image.width, image.height] += 1
        self.looks.append(look_at(image, len(self) - 1))


def look_at(image: Image, number: int = 0) -> Look:
    """What an image is like; see `Look`."""
    step = max(1, max(image.width, image.height) // _SAMPLED_WIDTH)
    part = Image(image.pixels[::step, ::step], image.order)
    sample = part.pixels[::4, ::4].astype(np.float64)
    finite = sample[np.isfinite(sample)]
    low, high = np.percentile(finite, (1, 99)) if finite.size else (0.0, 0.0)
    grey = cv2.cvtColor(to_bgr(part), cv2.COLOR_BGR2GRAY)
    height = min(max(round(THUMBNAIL_WIDTH * image.height / image.width), _HEIGHTS[0]), _HEIGHTS[1])
    thumbnail = cv2.resize(grey, (THUMBNAIL_WIDTH, height), interpolation=cv2.INTER_AREA)
    return Look(
        number, thumbnail, float(low), float(high), image.pixels.dtype.newbyteorder("=").name, is_palette(image)
    )
