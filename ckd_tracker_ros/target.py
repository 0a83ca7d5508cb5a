"""The life of a target: its name, its tracker state, whether it is to be believed, and how it is found again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from ckd_tracker_ros import boxes, search
from ckd_tracker_ros.calibration import doubted
from ckd_tracker_ros.contest import SEEN
from ckd_tracker_ros.frame import Estimate, RgbtFrame
from ckd_tracker_ros.looks import COUNT
from ckd_tracker_ros.motion import CLOSE_S, Motion
from ckd_tracker_ros.search import Search
from ckd_tracker_ros.settings import LostSettings
from ckd_tracker_ros.sightings import Sightings
from ckd_tracker_ros.state import TargetState
from ckd_tracker_ros.tracker import DOUBTED, Tracker


class Status(IntEnum):
    """As in TrackedTarget.msg."""

    TRACKING = 1
    UNCERTAIN = 2
    LOST = 3
    REMOVED = 4


SURE, SURE_OF_ONE, ALONE, IN_COMPANY = 0.95, 0.9, 0.2, 0.4
"""Confidence from which, with all cameras and with one gone, where scores are lower, and score of anything else up to
which, an appearance is certainly the target's: where it has its usual looks, and where it has not, but no look-alike
has been near."""
LEAP, IN_SIGHT = 0.5, 1.5
"""What is not believed any more is still what it was as long as something is seen in its place, meets nobody, and moves
by no more than so many sizes in a step. Then it is so much likelier, as a logit, than what turns up elsewhere."""
TRIAL_S, TRIAL_CROPS = 5.0, 2
"""For so long after a target was found again it is looked for elsewhere, too, in so many crops of a step."""
TOLD = 15.0
"""Or until its looks have told: so much likelier the target's than a known look-alike's, as a logit, in the sum over
the frames, of which none counts for more than `search.MOST_TOLD`. What is lost after that is searched for from where it
was then, and not from where it was before it was found."""
BETTER, MUCH_BETTER, BETTER_FOR = 0.7, 1.5, 5
"""What is so much likelier than what was found, as a logit, for so many frames, is the target instead; the second where
no look-alike is known by its looks, and scores are all that there is to go by."""
BESIDE_S = 1.0
"""What is seen beside a target on trial for so many seconds, and is no likelier, is another thing."""
LEARN_USUAL = 0.05
LEARN_SIZE = 0.1
"""Share of a target's size that a step can change; half hidden or half outside it looks smaller than it is."""


@dataclass(frozen=True, eq=False)
class Target:
    """One target at one moment.

    Attributes:
        id: unique in a tracker node.
        label: whatever the user wrote.
        state: for the tracker's next step.
        size: (2,) usual width and height, RGB pixels: of when it was all in view.
        estimate: of the last frame; None before the first step after its start.
        status: TRACKING from the start on.
        frames_lost: frames in a row that ended as LOST.
        frames_uncertain: frames in a row in which it was not believed.
        believed: its state when it was last TRACKING; None while it is, and not on trial.
        usual: logit of the score that it usually has, see `search.trusted`.
        search: what was found so far; None while it is TRACKING and not on trial.
        trial: seconds for which it is still doubted that what was found again is the target.
        told: what its looks have said for it so far in this time, see `TOLD`.
        renewed_ns: stamp of the frame whose appearance is the second template.
        in_sight: whether it was seen in every step since it was last TRACKING, see `IN_SIGHT`.
    """

    id: str
    label: str
    state: TargetState
    size: NDArray[np.float64]
    estimate: Estimate | None = None
    status: Status = Status.TRACKING
    frames_lost: int = 0
    frames_uncertain: int = 0
    believed: TargetState | None = None
    usual: float = search.trusted(1.0)
    search: Search | None = None
    trial: float = 0.0
    told: float = 0.0
    renewed_ns: int = 0
    in_sight: bool = True

    @classmethod
    def begin(cls, id: str, label: str, state: TargetState) -> Target:
        """A target that has just been started."""
        return cls(id, label, state, state.box[2:], renewed_ns=state.motion.stamp_ns)

    @property
    def on_trial(self) -> bool:
        """Whether it is TRACKING, and may turn out to be another thing."""
        return self.trial > 0 and self.status is Status.TRACKING

    @property
    def box(self) -> NDArray[np.float64]:
        """(4,) xywh in RGB pixels: the last estimate, or the start box where there is none yet."""
        return self.state.box if self.estimate is None else self.estimate.box

    @property
    def confidence(self) -> float:
        """0..1; 1 where no step has judged it yet: somebody has just drawn it."""
        return 1.0 if self.estimate is None else self.estimate.confidence


def follow(tracker: Tracker, targets: Sequence[Target], frame: RgbtFrame, settings: LostSettings) -> list[Target]:
    """All targets one frame later: all are tracked, and those that are not believed are searched for besides.

    Returns:
        The targets in the same order. One that is given up has the status REMOVED, and stays as it is from then on.

    Raises:
        ValueError, RegistrationError: see `Tracker.step_many`.
    """
    tracked = [number for number, target in enumerate(targets) if target.status is not Status.REMOVED]
    targets = [resized(target, frame) if number in tracked else target for number, target in enumerate(targets)]
    now = list(targets)
    for number, state, estimate in zip(
        tracked, *tracker.step_many([targets[number].state for number in tracked], frame), strict=True
    ):
        now[number] = _renewed(tracker, judge(targets[number], state, estimate, frame, settings), frame, settings)
    searched = [number for number in tracked if now[number].search is not None]
    if searched:
        _search(tracker, targets, now, searched, frame, settings)
    return now


def resized(target: Target, frame: RgbtFrame) -> Target:
    """The target in the pixels of this frame: a camera that changes its resolution takes it along."""
    if target.state.image_size == frame.size:
        return target
    factor = boxes.resizing(target.state.image_size, frame.size)
    estimate = target.estimate and replace(target.estimate, box=target.estimate.box * factor)
    return replace(
        target,
        state=target.state.resized(frame.size),
        size=target.size * factor,
        estimate=estimate,
        believed=target.believed and target.believed.resized(frame.size),
        search=target.search and target.search.scaled(factor),
    )


def judge(target: Target, state: TargetState, estimate: Estimate, frame: RgbtFrame, settings: LostSettings) -> Target:
    """The target after a tracker step on this frame that gave `state` and `estimate`."""
    believed = target.status is Status.TRACKING
    if believed and estimate.confidence >= settings.confidence:
        seconds = target.state.motion.elapsed(frame.stamp_ns)
        return _still_on_trial(_believed(target, state, estimate, frame), target, target.trial - seconds)
    if not believed and estimate.confidence >= _half_way(settings):
        plan = replace(target.search, seconds=target.search.seconds + target.state.motion.elapsed(frame.stamp_ns))
        held = target.status is Status.UNCERTAIN
        if search.may_be(plan, target.believed, frame.size, estimate.box, estimate.peak, estimate.doubt, held):
            if held:
                return _still_on_trial(_believed(target, state, estimate, frame), target, target.trial)
        elif search.certainly_another(plan, target.believed, estimate.box, estimate.peak, estimate.doubt):
            state, estimate = _passed_over(target.believed, plan, state, estimate, frame)
        else:
            estimate = replace(estimate, confidence=settings.confidence)  # sure of what is likely not the target
    anchor, plan = target.believed, target.search
    if believed and plan is None:
        whole = _of_size(target.size, target.state.box)
        anchor = replace(target.state, box=whole, looks=target.state.looks.as_known())
        plan = Search.of(anchor)
    elif believed and target.told >= TOLD / 2:  # it was the target, as it seems: what was beside it is not
        plan = plan.knowing(Search.of(target.state).others, math.sqrt(np.prod(target.size)))
    uncertain = target.frames_uncertain + 1
    status = Status.UNCERTAIN if uncertain <= settings.after else Status.LOST
    if status is Status.UNCERTAIN:  # what is not believed does not teach how the target moves
        state = replace(state, motion=replace(state.motion, velocity=target.state.motion.velocity))
    elif target.trial:  # it may have been the target, which has come back then
        anchor = replace(anchor, motion=replace(anchor.motion, velocity=np.zeros(2)))
    in_sight = target.in_sight and _seen_on(target.state, state, estimate, frame)
    # it is for the search to say whether it is where a look-alike was
    state = replace(state, looks=anchor.looks, motion=replace(state.motion, put_off=0.0))
    return replace(
        target,
        state=state,
        size=anchor.box[2:],  # on trial it may have been another thing's
        estimate=estimate,
        status=status,
        frames_lost=target.frames_lost + (status is Status.LOST),
        frames_uncertain=uncertain,
        believed=anchor,
        search=plan,  # what was on trial is searched for as before it was found
        trial=target.trial if status is Status.UNCERTAIN else 0.0,
        in_sight=in_sight,
    )


def _seen_on(before: TargetState, state: TargetState, estimate: Estimate, frame: RgbtFrame) -> bool:
    """Whether what the tracker holds on to after this frame is what it held on to before it, and no look-alike."""
    place, expected = (
        boxes.xywh_to_cxcywh(of) for of in (state.box, before.motion.expected(before.box, frame.stamp_ns))
    )
    steady = np.linalg.norm((place - expected)[:2]) <= LEAP * np.sqrt(np.prod(place[2:]))
    return bool(steady) and estimate.peak >= SEEN and not state.motion.crowded


def _passed_over(
    anchor: TargetState, plan: Search, state: TargetState, estimate: Estimate, frame: RgbtFrame
) -> tuple[TargetState, Estimate]:
    """For what is certainly another thing's: the place where the target should be, and nothing seen there."""
    box = search.expected(anchor, plan.seconds, frame.size)
    state = replace(state, box=box, motion=Motion(frame.stamp_ns, rivals=plan.rivals))
    return state, replace(estimate, box=box, confidence=0.0, peak=0.0, windowed_peak=0.0, doubt=0.0)


def _still_on_trial(now: Target, before: Target, trial: float) -> Target:
    """The believed target with the doubts of before, while its trial, of which so many seconds are left, lasts."""
    seen = now.estimate
    against = seen.another if seen.doubt <= 0 else seen.doubt
    told = max(0.0, before.told - float(np.clip(against, -search.MOST_TOLD, search.MOST_TOLD)))
    if trial <= 0 or told >= TOLD:
        return now
    motion = replace(now.state.motion, put_off=0.0)  # as in `judge`
    state = replace(now.state, looks=before.believed.looks, motion=motion)  # it may be another thing's
    return replace(now, state=state, believed=before.believed, search=before.search, trial=trial, told=told)


def _put_on_trial(target: Target, believed: TargetState, plan: Search) -> Target:
    """A target that was just found again: what is in its place is no look-alike, as long as it is believed."""
    plan = plan.without_found().without(target.box)
    return replace(target, believed=believed, search=plan, trial=TRIAL_S, told=0.0)


def _believed(target: Target, state: TargetState, estimate: Estimate, frame: RgbtFrame) -> Target:
    """A target that is where the estimate says."""
    left, top, right, bottom = boxes.xywh_to_xyxy(estimate.box)
    whole = left > 1 and top > 1 and right < frame.size[0] - 1 and bottom < frame.size[1] - 1
    size = target.size + LEARN_SIZE * estimate.confidence * whole * (estimate.box[2:] - target.size)
    learn = 0.0 if target.trial else LEARN_USUAL
    usual = target.usual + learn * (search.trusted(estimate.peak) - target.usual)
    return Target(target.id, target.label, state, size, estimate, usual=usual, renewed_ns=target.renewed_ns)


def _half_way(settings: LostSettings) -> float:
    """Confidence from which what the tracker holds on to may be the target."""
    return (settings.confidence + settings.recover) / 2


def _renewed(tracker: Tracker, target: Target, frame: RgbtFrame, settings: LostSettings) -> Target:
    """The target with its present appearance, where that is due and cannot be another thing's.

    A target that was started while a camera was missing is due as soon as that camera sees it.
    """
    estimate, motion = target.estimate, target.state.motion
    enough = SURE if target.state.looks.whole else SURE_OF_ONE
    sure = target.status is Status.TRACKING and not target.trial and not motion.put_off
    sure = sure and estimate.confidence >= enough
    alone = estimate.second_peak <= ALONE and estimate.doubt <= 0
    # smoke and light change looks; as long as it has met nobody, what is in its place is still itself
    unmet = estimate.second_peak <= IN_COMPANY and estimate.another <= 0 and not motion.crowded
    if not sure or not (alone or unmet) or frame.repeated:  # by a camera that stands still it may be elsewhere
        return target
    if alone and target.state.partial is not None:
        target = replace(target, state=tracker.complete(target.state, frame))
    due = frame.stamp_ns - target.renewed_ns >= settings.renew * 1e9 or frame.stamp_ns < target.renewed_ns
    if not (settings.renew and due):
        return target
    return replace(target, state=tracker.renew(target.state, frame), renewed_ns=frame.stamp_ns)


def _of_size(size: NDArray[np.float64], box: search.Box) -> search.Box:
    """(4,) xywh with this (2,) size around the centre of another box."""
    return boxes.cxcywh_to_xywh(np.concatenate([boxes.xywh_to_cxcywh(box)[:2], size]))


def _search(
    tracker: Tracker,
    before: Sequence[Target],
    now: list[Target],
    searched: Sequence[int],
    frame: RgbtFrame,
    settings: LostSettings,
) -> None:
    """One step of the search for the targets with these numbers in `now`, which are replaced."""
    lost = [before[number].status is Status.LOST for number in searched]
    counts = _crops_of([now[number] for number in searched], lost, settings.crops)
    queries, plans = [], []
    for number, lost_before, count in zip(searched, lost, counts):
        target = now[number]
        sweep_only = target.search.found is None and (not lost_before or _looked_there(before[number], target, frame))
        chosen, plan = search.places(
            target.search, target.believed, frame.size, tracker.search_factor, count, sweep_only
        )
        queries.append(chosen)
        plans.append(plan)
    states, sightings = tracker.look([now[number].believed for number in searched], queries, frame)
    for number, plan, state, seen in zip(searched, plans, states, sightings):
        if state.looks.forgotten_ns == frame.stamp_ns:
            plan = plan.undoubted()
        others = [other.box for k, other in enumerate(now) if k != number and other.status is Status.TRACKING]
        now[number] = _found(tracker, before[number], now[number], state, plan, seen, others, frame, settings)


def _held(target: Target, found: search.Box) -> bool:
    """Whether the tracker held on to what was found in a (4,) xywh box, while it was lost, and to all of it."""
    whole = search.fits(target.box[None], target.believed.box[2:], target.search.seconds)[0]
    return bool(target.status is Status.LOST and whole and search.same(found, target.box))


def _looked_there(before: Target, target: Target, frame: RgbtFrame) -> bool:
    """Whether the tracker has just looked where a lost target should be.

    In every other step only: the tracker says of one thing where it is, a search crop shows everything in it.
    """
    place = search.expected(target.believed, target.search.seconds, frame.size)
    looked = before.state.motion.expected(before.state.box, frame.stamp_ns)
    off = boxes.xywh_to_cxcywh(place)[:2] - boxes.xywh_to_cxcywh(looked)[:2]
    return target.search.steps % 2 == 1 and bool(np.linalg.norm(off) <= search.NEAR * np.sqrt(place[2] * place[3]))


def _crops_of(searched: Sequence[Target], lost: Sequence[bool], crops: int) -> list[int]:
    """How many search crops of a step each target has; one that was lost before it has a first one from the tracker.

    One on trial is in view, and what else there is matters less than where a lost one is: it has one, or two where
    none is missing.
    """
    trials = sum(target.on_trial for target in searched)
    missing = len(searched) - trials
    of_trial = min(1 if missing else TRIAL_CROPS, crops // len(searched))
    of_missing = (crops - of_trial * trials) // max(missing, 1) - 1
    return [of_trial if target.on_trial else max(of_missing, int(was_lost)) for target, was_lost in zip(searched, lost)]


def _found(
    tracker: Tracker,
    before: Target,
    target: Target,
    believed: TargetState,
    plan: Search,
    seen: Sightings,
    others: Sequence[search.Box],
    frame: RgbtFrame,
    settings: LostSettings,
) -> Target:
    """A target after its search saw this."""
    seconds = before.state.motion.elapsed(frame.stamp_ns)
    if target.status is Status.LOST:  # where the tracker holds on to something, that is seen best
        held = target.estimate
        looks = np.full(COUNT, np.nan)
        if held.peak >= DOUBTED:
            looks = believed.looks.read(frame, tracker.settings.registration, held.box)
        seen = seen.plus(held.box, held.peak, held.doubt - IN_SIGHT * target.in_sight, looks)
    if target.on_trial:  # what it was found as is not found once more
        others = [*others, target.box]
    plan, free, wrong = search.update(plan, believed, frame.size, seen, others, seconds)
    for looks in wrong.looks:
        believed = replace(believed, looks=believed.looks.beside(looks))
    if before.status is not Status.LOST and not target.on_trial:
        # the tracker itself says where it is; the search learns what it is not
        return replace(target, believed=believed, search=plan)
    best, doubt = (float(of[:1].sum()) for of in (free.scores, free.doubts))
    second, second_doubt = (float(of.sum()) for of in (free.beside().scores, free.beside().doubts))
    held = len(free.crops) and free.crops[0] < 0  # by the tracker, which saw what is beside it too
    likely = float(doubted(best, min(doubt, 0.0)))
    confidence = target.estimate.confidence if held else tracker.confidence(likely, second, doubt - second_doubt)
    good = confidence >= (_half_way(settings) if held else settings.recover)
    evidence = search.trusted(best, doubt)
    weight = good * search.weight(evidence, target.usual)
    told_apart = len(believed.looks.others) > 0
    if target.on_trial:
        better = evidence - search.trusted(target.estimate.peak, target.estimate.doubt)
        weight *= better > (BETTER if told_apart else MUCH_BETTER)
    another = believed.looks.another(free.looks[0], frame.stamp_ns) if len(free.looks) else 0.0
    plan = search.weigh(plan, free, weight, confidence < settings.confidence, another, seconds)
    frames = BETTER_FOR if target.on_trial else search.CONFIRM
    if plan.settled(frames, told_apart):
        if target.on_trial:
            plan = search.is_another(plan, target.box, target.estimate.peak, target.estimate.doubt)
        # where a look-alike is near, it may have been found, or both: it is judged as where two have met
        met = told_apart and search.beside_another(plan, plan.found)
        box, motion = plan.found, Motion(frame.stamp_ns, rivals=plan.rivals)
        if _held(target, box):  # the tracker knows its size, how it moves and what is near it from many frames
            box, motion = _of_size(target.box[2:], box), target.state.motion
        motion = replace(motion, crowded=max(motion.crowded, CLOSE_S if met else 0.0))
        state = replace(believed, box=box, motion=motion, case=0.0)
        estimate = replace(
            target.estimate,
            box=box,
            confidence=confidence,
            peak=best,
            windowed_peak=best,
            second_peak=second,
            doubt=doubt,
        )
        now = replace(target, state=state, estimate=estimate, status=Status.TRACKING, in_sight=True)
        return _put_on_trial(replace(now, frames_lost=0, frames_uncertain=0), believed, plan)
    if target.on_trial:
        if plan.seen >= BESIDE_S and not plan.unseen and not plan.confirmed:
            plan = search.is_another(plan, plan.found, best, free.known_doubts[0], certain=True).without_found()
        return replace(target, believed=believed, search=plan)
    status = Status.REMOVED if 0 < settings.give_up <= plan.seconds else target.status
    return replace(target, believed=believed, status=status, search=plan)
