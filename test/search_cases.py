"""States, sightings and look-alikes for the tests of the search and of a target's life."""

from __future__ import annotations

import numpy as np

from ckd_tracker_ros import look_alikes
from ckd_tracker_ros.looks import COUNT, Looks
from ckd_tracker_ros.motion import Motion
from ckd_tracker_ros.sightings import Sightings
from ckd_tracker_ros.state import TargetState


def state_at(x: float, y: float, side: float = 40, velocity: tuple[float, float] = (0, 0)) -> TargetState:
    box = np.array([x - side / 2, y - side / 2, side, side])
    motion, looks = Motion(0, velocity=np.array(velocity)), Looks.unknown((None, None), (True, True))
    return TargetState(box, (None, None), None, motion, {}, looks)


def sightings(*places: tuple[float, ...], side: float = 40) -> Sightings:
    """Of (x, y, score) and perhaps doubt, in one crop; without a doubt nobody has looked at colours and heat."""
    rows = [(x - side / 2, y - side / 2, side, side, score, *(doubt or (0,)), 0) for x, y, score, *doubt in places]
    looks = [np.full(COUNT, 50.0 + len(doubt) if doubt else np.nan) for _, _, _, *doubt in places]
    return Sightings.of(np.reshape(rows, (-1, 7)), np.reshape(looks, (-1, COUNT)))


def others_of(*rows: tuple[float, ...]) -> np.ndarray:
    """As in `look_alikes`, from rows with or without a usual doubt; nothing speaks for something else in a place."""
    return np.array([(*row, np.nan, 0.0) if len(row) == look_alikes.DOUBT else (*row, 0.0) for row in rows])
