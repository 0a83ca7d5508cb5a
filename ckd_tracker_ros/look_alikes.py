"""Things that look like a target and are others: where each is, and which of them a sighting shows.

They are rows of a table, (N, 8): centre x and y in RGB pixels; the highest score; seconds since it was last seen; 1
while it is certain that it is another thing (seen where the target could not be, or beside it, and step by step since
then); the usual doubt of its looks, see `Sightings.doubts`, NaN where that is not known; what speaks, as a logit, for
something else's being in its place by now, see `OTHER_LOOKS`; and for how many of the seconds since it was last seen
a search has looked there in vain.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ckd_tracker_ros.calibration import logit

PLACE, SCORE, UNSEEN, CERTAIN, DOUBT, CASE, MISSED, COLUMNS = slice(2), 2, 3, 4, 5, 6, 7, 8
"""Columns of the table, and their number."""
SAME = 0.6
"""Two sightings nearer to each other than this, in sizes, are of one thing."""
NOISE, DRIFT, LARGEST_DRIFT = 0.4, 1.0, 1.5
"""How far a look-alike may be from where it was seen: sizes at once, further sizes a second, at most so many more."""
UNLIKE_SIZES = 0.15
"""Of two sightings that may be a look-alike, one whose looks are doubted more or less than its own, by a logit of 1, is
as if it were so many sizes further away."""
BEATS_WEAK, BEATS_STRONG = 1.0, 2.0
"""A sighting whose score is so much better than that of a look-alike, as logits, is another thing: of clutter, and of
what the network takes for the target rather than not."""
OTHER_LOOKS, AS_LIKELY, LEARN_DOUBT = 3.0, 1.0, 0.2
"""And so is one whose looks are doubted by so much less, as a logit, in the sum over the frames in a row in which it is
there, each less what may be chance, as far as the look-alike is known by its score; share that one sighting has in the
usual doubt of a thing."""
STEADY, STEADY_S, UNWATCHED_S = 0.3, 0.1, 0.25
"""Unless it was seen so near, in sizes, so few seconds ago, and has come from where the target cannot be: then it goes
on as itself, whatever it looks like now: what comes out of hiding changes its looks and its score. A frame in which it
is seen elsewhere is noise, in smoke say, unless it is not back within that time. Only seconds count in which a search
crop had it in its middle, as there are few of them, but no more than the last number in all."""
RISE = 0.1
"""Share of a look-alike's rise that is believed in one step, where it does not go on like that and the target may be
there too: that comes out of hiding in less time."""
EXCUSED = -0.4
"""What is not certain to be another thing, and whose looks are usually doubted less than this, is none."""
MOST = 32
"""Of how many is remembered: those seen last."""


def table(
    centres: NDArray,
    scores: NDArray,
    certain: bool | NDArray[np.bool_],
    doubts: NDArray | float = math.nan,
    unseen: NDArray | float = 0.0,
) -> NDArray[np.float64]:
    """(N, 8) of what is seen now, or was so many seconds ago and not since, at (N, 2) places."""
    rows = np.zeros((len(centres), COLUMNS))
    rows[:, PLACE], rows[:, SCORE], rows[:, UNSEEN], rows[:, CERTAIN] = centres, scores, unseen, certain
    rows[:, DOUBT], rows[:, MISSED] = doubts, unseen
    return rows


def older(known: NDArray, seconds: float, looked: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(N, 8) so much later, when a search has looked where (N,) of them are, or has not."""
    known = known.copy()
    known[:, UNSEEN] += seconds
    known[:, MISSED] += seconds * looked
    return known


def reach(known: NDArray, size: float) -> NDArray[np.float64]:
    """(N,) how far (N, 8) look-alikes may be from where they were seen, RGB pixels.

    Args:
        size: of the target, RGB pixels.
    """
    return (NOISE + np.minimum(DRIFT * known[:, UNSEEN], LARGEST_DRIFT)) * size


def owners(centres: NDArray, scores: NDArray, doubts: NDArray, known: NDArray, size: float) -> NDArray[np.int64]:
    """(K,) which of (N, 8) look-alikes each of (K, 2) sightings shows, -1 for none; each at most once.

    Args:
        doubts: (K,) of their looks, NaN where they are not known.
        size: of the target, RGB pixels.
    """
    owner = np.full(len(centres), -1)
    distances = np.linalg.norm(centres[:, None] - known[:, PLACE], axis=-1)
    margin = np.where(known[:, SCORE] < 0.5, BEATS_WEAK, BEATS_STRONG)
    alike = logit(scores)[:, None] - logit(known[:, SCORE]) <= margin
    alike &= _case(known, doubts[:, None]) <= OTHER_LOOKS
    fits = (distances <= reach(known, size)) & (alike | _steady(known, distances, size))
    costs = distances / size + UNLIKE_SIZES * np.abs(np.nan_to_num(known[:, DOUBT] - doubts[:, None]))
    taken: set[int] = set()
    for number, other in zip(*np.unravel_index(np.argsort(costs, axis=None), costs.shape)):
        if owner[number] < 0 and other not in taken and fits[number, other]:
            owner[number] = other
            taken.add(int(other))
    return owner


def seen_again(
    entry: NDArray, centre: NDArray, score: float, doubt: float, too_far: bool, size: float
) -> NDArray[np.float64]:
    """(8,) a look-alike after it was seen at a (2,) place, with a score and a doubt, NaN where that is not known.

    Args:
        too_far: whether the target cannot be there.
        size: of the target, RGB pixels.

    Returns:
        It as it was, not seen now, where it is certain to be another thing and this may be noise: see `STEADY`.
    """
    steady = bool(_steady(entry, float(np.linalg.norm(centre - entry[PLACE])), size))
    certain = too_far or steady
    if not certain and entry[CERTAIN] and _lately(entry):
        return entry
    highest = entry[SCORE] + max(score - entry[SCORE], 0.0) * (1.0 if certain else RISE)
    usual = entry[DOUBT] + LEARN_DOUBT * (doubt - entry[DOUBT])
    usual = usual if np.isfinite(usual) else np.fmax(entry[DOUBT], doubt)  # the one that is known
    case = entry[CASE] if steady else _case(entry, doubt)
    return np.array([*centre, highest, 0.0, certain, usual, case, 0.0])


def remembered(known: NDArray, size: float) -> NDArray[np.float64]:
    """(N, 8) look-alikes that still are some, the last seen first.

    Two that stand in one place are one, with the higher score of both, and certain if one was and has been seen since:
    what was there some time ago says nothing about what is there now.
    """
    known = known[(known[:, CERTAIN] > 0) | ~(known[:, DOUBT] < EXCUSED)]
    kept: list[NDArray] = []
    for entry in known[np.argsort(known[:, UNSEEN], kind="stable")]:
        same = [other for other in kept if np.linalg.norm(other[PLACE] - entry[PLACE]) < SAME / 2 * size]
        if same:
            same[0][SCORE] = max(same[0][SCORE], entry[SCORE])
            same[0][CERTAIN] = max(same[0][CERTAIN], entry[CERTAIN] * (entry[UNSEEN] <= STEADY_S))
        else:
            kept.append(entry.copy())
    return np.reshape(kept[:MOST], (-1, COLUMNS))


def _steady(others: NDArray, distances: NDArray | float, size: float) -> NDArray[np.bool_]:
    """Whether (..., 8) look-alikes that are seen so far, RGB pixels, from where they were go on: see `STEADY`."""
    return (others[..., CERTAIN] > 0) & _lately(others) & (distances <= STEADY * size)


def _lately(others: NDArray) -> NDArray[np.bool_]:
    """Whether (..., 8) look-alikes were seen so lately that they go on: see `STEADY`."""
    return (others[..., MISSED] <= STEADY_S) & (others[..., UNSEEN] <= UNWATCHED_S)


def _case(others: NDArray, doubts: NDArray | float) -> NDArray[np.float64]:
    """(...) `CASE` of (..., 8) look-alikes after something with these doubts, NaN where not known, was seen there."""
    more = np.nan_to_num(others[..., DOUBT] - doubts - AS_LIKELY)
    return np.maximum(others[..., CASE] + others[..., SCORE] * more, 0.0)
