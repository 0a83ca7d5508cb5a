"""Where a target that is not seen any more is looked for, and what may be taken for it when something turns up.

A target that is lost cannot be far at first. What looks like it further away than it can have come is something else;
that is remembered and followed as a look-alike, and is still something else when the target has had the time to be
there. So while a target is gone the whole image is searched, a bounded number of crops a step, and it is taken back
where something turns up that has not been there before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ckd_tracker_ros import boxes, look_alikes
from ckd_tracker_ros.calibration import doubted, logit
from ckd_tracker_ros.look_alikes import CASE, CERTAIN, COLUMNS, DOUBT, PLACE, SAME, SCORE, UNSEEN
from ckd_tracker_ros.sightings import Sightings
from ckd_tracker_ros.state import TargetState

Box = NDArray[np.float64]

NEAR, FASTEST = 0.7, 4.0
"""How far a target may be from where it should be: sizes at once, and further sizes a second."""
OVER_EDGE = 0.6
"""So many further sizes a second for one that went over the edge of the image: it comes back over it, and is seen as it
does."""
COAST_S = 0.5
"""For about so long a target that is not seen goes on as it went."""
STRIDE, AROUND = 0.75, 1.25
"""From one search crop of the sweep to the next, in sides of it: a target between two is whole in one of them; and as
far from where the target should be as so many of these steps every other one lies."""
GROWTH, NEARER, MUCH_NEARER = 0.55, 0.15, 0.35
"""Of width and of height, as logarithms: what is so much larger or smaller than the target was is something else. One
that comes nearer is larger as a whole, by so much a second, at most by so much."""
WORTH_A_LOOK, HALF = 0.3, 0.5
"""From this score on a sighting is looked at in a crop of its own, where scores are more reliable; of its doubt, which
may be mistaken, so much counts."""
BLINK_S = 0.1
"""What is found may be out of sight for so many seconds: scores of what is far off or in smoke come and go."""
CONFIRM, REFUTE = 2, 4
"""Frames in a row in which a sighting has to be good enough to be the target, or too bad, to be another thing."""
TOLD_APART, MOST_TOLD = 3.0, 2.0
"""Where look-alikes are known by their looks, a sighting has to look so much more like the target than like them, as a
logit, in the sum over the frames in a row in which it is seen, of which none counts for more than so much."""
PATIENCE_S, LONG_PATIENCE_S = 0.25, 2.99
"""Or it has to be seen for so many seconds: some cannot be told apart; and the longer, up to so many, the less it looks
like the target: that may have changed."""
SHORT = 1.0
"""What scores less than the target usually does, by a logit of 1, has to be seen this power of e times as long."""
STRONG, COVERED = 0.4, 0.4
"""Look-alikes with this score are looked after: in a crop of their own, unless another one has them in its middle, so
many sides of it from its centre."""
SATURATED = 0.9
"""Scores above this say no more: how much above it a crop shows something depends on where it lies in the crop."""


@dataclass(frozen=True, eq=False)
class Search:
    """What the search for one target has come to.

    Attributes:
        seconds: since the target was last believed.
        others: (N, 8) look-alikes, see `look_alikes`.
        swept: crops of the sweep through the image so far.
        steps: in which it was searched for.
        found: (4,) xywh box that may be the target, None when there is none.
        confirmed: frames in a row in which it was good enough; one that scores less than usual counts for less.
        refuted: frames in a row in which it was too bad.
        seen: seconds for which it was seen, but for blinks.
        likeness: sum over these frames of how much likelier its looks are the target's than a known look-alike's, as a
            logit.
        unseen: seconds since it was seen last, see `BLINK_S`.
    """

    seconds: float = 0.0
    others: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, COLUMNS)))
    swept: int = 0
    steps: int = 0
    found: Box | None = None
    confirmed: float = 0.0
    refuted: int = 0
    seen: float = 0.0
    likeness: float = 0.0
    unseen: float = 0.0

    def scaled(self, factor: float) -> Search:
        """In images that are so much larger; where nothing is followed from one frame to the next."""
        return replace(self.without_found(), others=self.others * (factor, factor, 1, 1, 1, 1, 1, 1))

    def without_found(self) -> Search:
        """With nothing that may be the target."""
        return replace(self, found=None, confirmed=0.0, refuted=0, seen=0.0, likeness=0.0, unseen=0.0)

    def undoubted(self) -> Search:
        """With nothing known of what the look-alikes look like, as the light has changed."""
        others = self.others.copy()
        others[:, [DOUBT, CASE]] = math.nan, 0.0
        return replace(self, others=others, likeness=0.0)

    def knowing(self, others: NDArray[np.float64], size: float) -> Search:
        """With these (N, 8) look-alikes of a target of this size besides, see `look_alikes`."""
        return replace(self, others=look_alikes.remembered(np.concatenate([others, self.others]), size))

    def without(self, box: Box) -> Search:
        """With no look-alike in the place of this (4,) xywh box."""
        x, y, width, height = boxes.xywh_to_cxcywh(box)
        away = np.linalg.norm(self.others[:, PLACE] - (x, y), axis=1) > SAME * math.sqrt(width * height)
        return replace(self, others=self.others[away])

    def settled(self, frames: float, told_apart: bool) -> bool:
        """Whether what was found has been good enough for so many frames to be the target.

        Args:
            told_apart: whether look-alikes are known by what they look like.
        """
        unlike = min(1.0, max(0.0, -self.likeness / TOLD_APART))
        patience = PATIENCE_S + unlike * (LONG_PATIENCE_S - PATIENCE_S)
        enough = not told_apart or self.likeness >= TOLD_APART or self.seen >= patience
        return self.confirmed >= frames and enough

    @classmethod
    def of(cls, state: TargetState) -> Search:
        """A search for a target that was last believed in this state. What is faint in its box may be a part of it."""
        rivals = state.motion.rivals
        scores, doubts, unseen = rivals.T[2:]
        off = np.abs(rivals[:, :2] - boxes.xywh_to_cxcywh(state.box)[:2])
        certain = (off >= state.box[2:] / 2).any(axis=1) | (scores >= STRONG)
        doubts = np.where(doubts != 0, doubts, np.nan)  # 0: nobody has looked
        return cls(others=look_alikes.table(rivals[:, :2], scores, certain, doubts=doubts, unseen=unseen))

    @property
    def rivals(self) -> NDArray[np.float64]:
        """The look-alikes as `Motion.rivals`."""
        others = self.others
        columns = others[:, PLACE], others[:, SCORE], np.nan_to_num(others[:, DOUBT]), others[:, UNSEEN]
        return np.column_stack(columns)


def expected(state: TargetState, seconds: float, image_size: tuple[int, int]) -> Box:
    """(4,) xywh where a target should be, its centre inside the image: it goes on as it went, ever slower.

    Args:
        seconds: since it was believed in `state`.
        image_size: width and height.
    """
    box = _coasted(state, 1 - math.exp(-seconds / COAST_S))
    box[:2] = np.clip(box[:2], -box[2:] / 2, np.array(image_size) - box[2:] / 2)
    return box


def _coasted(state: TargetState, share: float) -> Box:
    """(4,) xywh after this share of all the way that a target goes on when it is not seen."""
    box = state.box.copy()
    box[:2] += state.motion.velocity * COAST_S * share
    return box


def places(
    search: Search, state: TargetState, image_size: tuple[int, int], factor: float, count: int, sweep_only: bool
) -> tuple[list[Box], Search]:
    """The (4,) xywh boxes around which search crops are cut in this step.

    First where something was found in the last step, else where the target should be (not with `sweep_only`: the
    tracker looks there anyway); then where the look-alike is that was not seen for longest, as it might be taken for
    the target where it has gone; then further and further away, and through the whole image again and again, every
    other one around where the target should be. Where there is but one crop a step, because several targets share
    them, they take turns.

    Args:
        factor: side of a crop in sizes of the target.
        count: at most so many.
    """
    middle = expected(state, search.seconds, image_size)
    turns = count == 1 and search.found is None
    chosen = [] if sweep_only or (turns and search.steps % 2) else [middle if search.found is None else search.found]
    size = math.sqrt(middle[2] * middle[3])
    if len(chosen) < count and not (turns and search.steps % 4 == 1):
        chosen += _unseen(search, chosen, middle, COVERED * factor * size)
    swept = range(search.swept, search.swept + max(count - len(chosen), 0))
    chosen += _sweep(swept, middle, image_size, STRIDE * factor * size)
    return chosen, replace(search, swept=swept.stop, steps=search.steps + 1)


def _sweep(swept: range, middle: Box, image_size: tuple[int, int], stride: float) -> list[Box]:
    """(4,) xywh boxes around which these crops of the sweep are cut: those with even numbers from the tiles of the
    image that lie around where the target should be, the others from all of them; each from near to far.

    Args:
        stride: from one tile to the next, RGB pixels, at most.
    """
    columns, rows = (max(1, math.ceil(side / stride)) for side in image_size)
    x, y = ((np.arange(n) + 0.5) * side / n for n, side in zip((columns, rows), image_size))
    tiles = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    distances = np.linalg.norm(tiles - boxes.xywh_to_cxcywh(middle)[:2], axis=1)
    tiles, around = tiles[np.argsort(distances, kind="stable")], int((distances <= AROUND * stride).sum())
    numbers = dict.fromkeys((around + k // 2) % len(tiles) if k % 2 else k // 2 % max(around, 1) for k in swept)
    return [np.concatenate([tiles[number] - middle[2:] / 2, middle[2:]]) for number in numbers]


def _unseen(search: Search, chosen: Sequence[Box], middle: Box, covered: float) -> list[Box]:
    """(4,) xywh box around the strong look-alike that was not seen for longest, if any was not, and is near enough to
    be taken for the target soon."""
    size, centre = math.sqrt(middle[2] * middle[3]), boxes.xywh_to_cxcywh(middle)[:2]
    due = (search.others[:, SCORE] >= STRONG) & (search.others[:, UNSEEN] > 0)
    due &= np.linalg.norm(search.others[:, PLACE] - centre, axis=1) <= reach(search.seconds + 1) * size
    for box in chosen:
        due &= (np.abs(search.others[:, PLACE] - boxes.xywh_to_cxcywh(box)[:2]) > covered).any(axis=1)
    if not due.any():
        return []
    other = search.others[np.argmax(np.where(due, search.others[:, UNSEEN], -1))]
    return [np.concatenate([other[PLACE] - middle[2:] / 2, middle[2:]])]


def update(
    search: Search,
    state: TargetState,
    image_size: tuple[int, int],
    sightings: Sightings,
    others: Sequence[Box],
    seconds: float,
) -> tuple[Search, Sightings, Sightings]:
    """What a step's sightings mean.

    Args:
        state: in which the target was last believed.
        sightings: in the crops of `places`.
        others: (4,) xywh boxes of targets that are tracked beside this one.
        seconds: since the last step.

    Returns:
        The search after it, the sightings that may be the target, the best first, and those that certainly are not.
    """
    age = search.seconds + seconds
    middle = boxes.xywh_to_cxcywh(expected(state, age, image_size))
    size = math.sqrt(middle[2] * middle[3])
    tracked = np.reshape([boxes.xywh_to_cxcywh(box)[:2] for box in others], (-1, 2))
    beside = look_alikes.table(tracked, np.ones(len(tracked)), certain=True)
    looked = sightings.looked_at(search.others[:, PLACE], COVERED)
    known = np.concatenate([look_alikes.older(search.others, seconds, looked), beside])
    # a sliver, held on to by the tracker, does not stand for all of it, nor what is too faint to say what it looks like
    first = fits(sightings.boxes, middle[2:], age) & (sightings.scores >= WORTH_A_LOOK)
    single = sightings.single(SAME * size, first)
    centres = boxes.xywh_to_cxcywh(single.boxes)[:, :2] if len(single.scores) else np.zeros((0, 2))
    doubts = single.known_doubts
    owner = look_alikes.owners(centres, single.scores, doubts, known, size)
    distances = np.linalg.norm(centres - middle[:2], axis=1) / size
    too_far, unlikely = distances > reach(age), distances > likely_reach(state, age, image_size)
    if search.found is not None:
        goes_on = np.array([same(box, search.found) for box in single.boxes], bool)
        unlikely &= ~goes_on  # it has come from where the target may be
        if len(known):  # and was no look-alike: none has come into its place from far since
            away = np.linalg.norm(centres - known[owner, PLACE], axis=1) > look_alikes.NOISE * size
            owner[goes_on & away] = -1
    free = (owner < 0) & ~unlikely & fits(single.boxes, middle[2:], age)
    wrong = too_far.copy()
    for number in np.flatnonzero(owner >= 0):
        seen = centres[number], single.scores[number], doubts[number], bool(too_far[number])
        entry = known[owner[number]] = look_alikes.seen_again(known[owner[number]], *seen, size)
        seen_now = not entry[UNSEEN]
        wrong[number] = bool(entry[CERTAIN]) and seen_now and owner[number] < len(search.others)
    known = known[: len(search.others)]  # those that are tracked will be handed in again
    new = np.flatnonzero((owner < 0) & unlikely)
    turned_up = look_alikes.table(centres[new], single.scores[new], certain=too_far[new], doubts=doubts[new])
    known = look_alikes.remembered(np.concatenate([known, turned_up]), size)
    return replace(search, seconds=age, others=known), single[free], single[wrong]


def reach(seconds: float) -> float:
    """How far a target may be from where it should be, in sizes, when it was last believed so many seconds ago."""
    return NEAR + FASTEST * seconds


def likely_reach(state: TargetState, seconds: float, image_size: tuple[int, int]) -> float:
    """As `reach`, of a target that was believed in this state: less far where it went over the edge of the image."""
    centre = boxes.xywh_to_cxcywh(_coasted(state, 1.0))[:2]
    gone = (centre < 0).any() or (centre > image_size).any()
    return NEAR + OVER_EDGE * seconds if gone else reach(seconds)


def may_be(
    search: Search,
    state: TargetState,
    image_size: tuple[int, int],
    box: Box,
    score: float,
    doubt: float = math.nan,
    held: bool = False,
) -> bool:
    """Whether a (4,) xywh box with this score may be the target: it can have come there, and no look-alike is there.

    Args:
        doubt: of its looks; NaN where they are not known.
        held: whether it was followed until now: then it did not have to come over the edge of the image.
    """
    middle = boxes.xywh_to_cxcywh(expected(state, search.seconds, image_size))
    size, centre = math.sqrt(middle[2] * middle[3]), boxes.xywh_to_cxcywh(box)[:2]
    within = reach(search.seconds) if held else likely_reach(state, search.seconds, image_size)
    if np.linalg.norm(centre - middle[:2]) > within * size or not fits(box[None], middle[2:], search.seconds)[0]:
        return False
    return _look_alike(search, state, box, score, doubt) is None


def certainly_another(search: Search, state: TargetState, box: Box, score: float, doubt: float = math.nan) -> bool:
    """Whether a (4,) xywh box with this score is where a thing is that is certainly not the target, see `may_be`."""
    other = _look_alike(search, state, box, score, doubt)
    return other is not None and bool(other[CERTAIN])


def _look_alike(search: Search, state: TargetState, box: Box, score: float, doubt: float) -> NDArray[np.float64] | None:
    """(8,) the look-alike that a (4,) xywh box with this score and doubt shows; None: none that is known."""
    size, centre = math.sqrt(state.box[2] * state.box[3]), boxes.xywh_to_cxcywh(box)[None, :2]
    owner = int(look_alikes.owners(centre, np.array([score]), np.array([doubt]), search.others, size)[0])
    return None if owner < 0 else search.others[owner]


def beside_another(search: Search, box: Box) -> bool:
    """Whether a strong look-alike may be so near a (4,) xywh box that the two overlap."""
    size, centre = math.sqrt(box[2] * box[3]), boxes.xywh_to_cxcywh(box)[:2]
    near = np.linalg.norm(search.others[:, PLACE] - centre, axis=1) <= look_alikes.reach(search.others, size) + size
    return bool((near & (search.others[:, SCORE] >= STRONG)).any())


def trusted(score: float, doubt: float = 0.0) -> float:
    """Logit of a score, as far as it says anything, less by a doubt."""
    return float(logit(min(score, SATURATED))) - doubt


def weight(evidence: float, usual: float) -> float:
    """0..1: how much a frame counts in which something has this evidence and the target usually that: `trusted`."""
    return math.exp(-SHORT * max(0.0, usual - evidence))


def fits(found: NDArray, size: NDArray, seconds: float) -> NDArray[np.bool_]:
    """(N,) whether (N, 4) xywh boxes are about as wide and high as a (2,) target that was so large so long ago."""
    growth = np.log(np.maximum(found[:, 2:], 1e-3) / size)
    growth -= np.clip(growth.mean(axis=1, keepdims=True), 0.0, min(NEARER * seconds, MUCH_NEARER))
    return (np.abs(growth) <= GROWTH).all(axis=1)


def weigh(
    search: Search, free: Sightings, weight: float, bad: bool, another: float = 0.0, seconds: float = 0.0
) -> Search:
    """After a step whose best sighting, if any, is good enough to be the target, or too bad, or neither.

    What the looks of many frames have told to be the target is not another for a few bad ones.

    Args:
        weight: how much it counts as good, 0..1.
        another: by how much its looks are likelier those of a known look-alike than the target's, as a logit.
        seconds: since the last step.
    """
    if not len(free.scores) or doubted(free.scores[0], HALF * max(0.0, free.doubts[0])) < WORTH_A_LOOK:
        unseen = search.unseen + seconds
        return replace(search, unseen=unseen) if unseen < BLINK_S else search.without_found()
    box = free.boxes[0]
    again = search.found is not None and same(box, search.found)
    confirmed = search.confirmed * again + weight if weight else 0.0
    refuted = search.refuted * again + 1 if bad else 0
    like = -another if another > 0 else -another * free.scores[0]  # a poor box may look like anything
    likeness = search.likeness * again + float(np.clip(like, -MOST_TOLD, MOST_TOLD))
    likeness, seen = max(likeness, -2 * TOLD_APART), search.seen * again + seconds
    if refuted >= REFUTE and likeness < TOLD_APART:
        return is_another(search, box, free.scores[0], free.known_doubts[0]).without_found()
    counts = {"confirmed": confirmed, "refuted": refuted, "seen": seen, "likeness": likeness}
    return replace(search, found=box, unseen=0.0, **counts)


def same(box: Box, before: Box) -> bool:
    """Whether two (4,) xywh boxes, of one frame and the next, may be of one thing."""
    off = boxes.xywh_to_cxcywh(box)[:2] - boxes.xywh_to_cxcywh(before)[:2]
    return bool(np.linalg.norm(off) <= SAME * math.sqrt(before[2] * before[3]))


def is_another(search: Search, box: Box, score: float, doubt: float = math.nan, certain: bool = False) -> Search:
    """After what has this (4,) xywh box, score and doubt now turned out to be a look-alike.

    Args:
        certain: see `Search.others`.
    """
    other = look_alikes.table(boxes.xywh_to_cxcywh(box)[None, :2], np.array([score]), certain=certain, doubts=doubt)
    return replace(search, others=np.concatenate([other, search.others]))
