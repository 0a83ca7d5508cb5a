"""The constant delay between two cameras, from how their images move.

Each camera's motion is a path: where the view has got to by each stamp, and how much the picture has changed until
then. The speeds along both paths are laid over each other at every delay; the best fit is the delay. Each third of a
recording has to say what all of it says, else nothing is claimed: a slow, even motion fits at many delays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

REACH_S = 1.0
"""Delays up to this are looked for."""
_STEP_S = 0.005
_PARTS = 3  # of the recording, that have to agree
_AGREE_S = 0.02
_FIT = 0.6  # of at most 1
_SMOOTH = (0.5, 1.0, 2.0)  # of the slower camera's periods: a shaking camera needs little, a slow one much
_SHORTEST_S = 3.0
_LEAST_SPEED = 2e-3  # image widths per second
_CORNERS, _FEWEST = 120, 8


@dataclass(frozen=True, eq=False)
class Motion:
    """How one camera's images move.

    Attributes:
        times: (n,) stamps, seconds, rising.
        path: (n, 2) where the view is, image widths right and down, from the first image on.
        change: (n,) sum of the mean differences of successive images until then, in standard deviations of the grey
            levels.
    """

    times: NDArray[np.float64]
    path: NDArray[np.float64]
    change: NDArray[np.float64]


@dataclass(frozen=True)
class Delay:
    """How much later thermal stamps are than RGB stamps of the same moment.

    Attributes:
        seconds: of the whole recording.
        spread: largest distance of its parts' delays from that, seconds.
        fit: of the motions with that delay, at most 1.
    """

    seconds: float
    spread: float
    fit: float

    @property
    def sure(self) -> bool:
        """Whether it may be told to somebody."""
        return self.fit >= _FIT and self.spread <= _AGREE_S


def motion_of(times: Sequence[float], thumbnails: Sequence[NDArray[np.uint8]]) -> Motion:
    """The motion of a camera.

    Args:
        times: stamps, seconds.
        thumbnails: (h, w) grey images, one for each stamp.
    """
    path, changes = [np.zeros(2)] * len(thumbnails[:1]), [0.0] * len(thumbnails[:1])
    for before, now in zip(thumbnails, thumbnails[1:], strict=False):
        if before.shape != now.shape:  # the camera was set anew: nothing is known of the motion between
            path.append(path[-1])
            changes.append(changes[-1])
            continue
        difference = cv2.absdiff(cv2.GaussianBlur(before, (0, 0), 1.0), cv2.GaussianBlur(now, (0, 0), 1.0))
        path.append(path[-1] + _shift(before, now))
        changes.append(changes[-1] + float(difference.mean()) / max(float(now.std()), 1.0))
    order = np.argsort(np.asarray(times, np.float64), kind="stable")
    return Motion(np.asarray(times, np.float64)[order], np.reshape(path, (-1, 2))[order], np.asarray(changes)[order])


def _shift(before: NDArray[np.uint8], now: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(2,) image widths that most of a picture has moved by: the median of its corners' flow, 0 where it has none."""
    corners = cv2.goodFeaturesToTrack(before, _CORNERS, 0.01, 6)
    if corners is None:
        return np.zeros(2)
    moved, found, _ = cv2.calcOpticalFlowPyrLK(before, now, corners, None, winSize=(15, 15), maxLevel=3)
    flow = (moved - corners).reshape(-1, 2)[found.ravel() == 1]
    return np.median(flow, axis=0) / before.shape[1] if len(flow) >= _FEWEST else np.zeros(2)


def delay_between(rgb: Motion, thermal: Motion, around_s: float = 0.0) -> Delay | None:
    """The delay that lays the thermal motion over the RGB one.

    Args:
        around_s: delays within `REACH_S` of this one are looked for.

    Returns:
        None where the recording is too short or nothing moves.
    """
    periods = [float(np.median(np.diff(motion.times))) for motion in (rgb, thermal) if len(motion.times) > 2]
    if len(periods) < 2 or min(periods) <= 0:
        return None
    shifted = thermal.times - around_s
    begin, end = max(rgb.times[0], shifted[0]), min(rgb.times[-1], shifted[-1])
    if end - begin < _SHORTEST_S:
        return None
    grid = np.arange(begin, end, _STEP_S)
    found = []
    for name, smooth in product(("path", "change"), _SMOOTH):
        first, second = (
            _speed(grid, times, getattr(motion, name), smooth * max(periods))
            for times, motion in ((rgb.times, rgb), (shifted, thermal))
        )
        if name == "path" and min(np.sqrt((speed**2).sum(0).mean()) for speed in (first, second)) < _LEAST_SPEED:
            continue  # the cameras stand still; what moves before them still changes the images
        whole = _fit(first, second)
        bounds = np.linspace(0, len(grid), _PARTS + 1).astype(int)
        parts = [_fit(first[:, a:b], second[:, a:b]) for a, b in zip(bounds, bounds[1:], strict=False)]
        spread = max(abs(part[0] - whole[0]) for part in parts)
        found.append(Delay(around_s + whole[0], spread, whole[1]))
    sure = [delay for delay in found if delay.sure]
    return min(sure or found, key=lambda delay: delay.spread, default=None)


def _speed(grid: NDArray, times: NDArray, values: NDArray, smooth_s: float) -> NDArray[np.float64]:
    """(k, n) smoothed changes per second of values (m, k) or (m,) on a regular grid; of one value without its mean."""
    columns = values.reshape(len(values), -1).T
    speed = np.stack([np.gradient(np.interp(grid, times, column), _STEP_S) for column in columns])
    width = smooth_s / _STEP_S
    taps = np.exp(-0.5 * (np.arange(-round(3 * width), round(3 * width) + 1) / width) ** 2)
    speed = np.stack([np.convolve(np.pad(each, len(taps) // 2, "edge"), taps / taps.sum(), "valid") for each in speed])
    # Zero speed means something, zero change does not: noise changes every image.
    return speed - speed.mean(axis=1, keepdims=True) if len(speed) == 1 else speed


def _fit(first: NDArray, second: NDArray) -> tuple[float, float]:
    """How much later (k, n) `second` is than `first`, seconds, and how well they fit then, at most 1."""
    length = first.shape[1]
    reach = min(round(REACH_S / _STEP_S), length // 3)
    lags = np.arange(-reach, reach + 1)
    fits = np.empty(len(lags))
    for index, lag in enumerate(lags):
        a, b = first[:, max(0, -lag) : length - max(0, lag)], second[:, max(0, lag) : length + min(0, lag)]
        norm = np.sqrt((a**2).sum() * (b**2).sum())
        fits[index] = (a * b).sum() / norm if norm > 0 else 0.0
    best = int(fits.argmax())
    offset = 0.0
    if 0 < best < len(lags) - 1:
        left, middle, right = fits[best - 1 : best + 2]
        bend = left - 2 * middle + right
        offset = 0.5 * (left - right) / bend if bend < 0 else 0.0
    return float((lags[best] + offset) * _STEP_S), float(fits[best])
