"""States, sightings and look-alikes for the tests of the search and of a target's life."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ckd_tracker_ros import look_alikes
from ckd_tracker_ros.looks import COUNT, Looks
from ckd_tracker_ros.motion import Motion
from ckd_tracker_ros.sightings import Sightings
from ckd_tracker_ros.state import TargetState


def state_at(x: float, y: float, side: float = 40, velocity: tuple[float, float] = (0, 0)) -> TargetState:
    box = np.array([x - side / 2, y - side / 2, side, side])
    motion, looks = Motion(0, velocity=np.array(velocity)), Looks.unknown((None, None), (True, True))
    return TargetState(box, (None, None), None, motion, {}, looks)


WHOLE_IMAGE = ((320, 240, 2000),)


def sightings(*places: tuple[float, ...], side: float = 40, squares: ArrayLike = WHOLE_IMAGE) -> Sightings:
    """Of (x, y, score) and perhaps doubt, in one crop; without a doubt nobody has looked at colours and heat.

    Args:
        squares: in which it was looked for, (M, 3) centre x, y and side in RGB pixels.
    """
    rows = [(x - side / 2, y - side / 2, side, side, score, *(doubt or (0,)), 0) for x, y, score, *doubt in places]
    looks = [np.full(COUNT, 50.0 + len(doubt) if doubt else np.nan) for _, _, _, *doubt in places]
    return Sightings.of(np.reshape(rows, (-1, 7)), np.reshape(looks, (-1, COUNT)), squares)


def others_of(*rows: tuple[float, ...]) -> np.ndarray:
    """As in `look_alikes`, from rows with or without a usual doubt; nothing speaks for something else in a place, and
    what was not seen was looked for."""
    doubts = [row[look_alikes.DOUBT] if len(row) > look_alikes.DOUBT else np.nan for row in rows]
    return np.array(
        [(*row[: look_alikes.DOUBT], doubt, 0.0, row[look_alikes.UNSEEN]) for row, doubt in zip(rows, doubts)]
    )
