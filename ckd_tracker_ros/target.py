"""The life of a target: its name, its tracker state, and whether it is still to be believed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

from ckd_tracker_ros.frame import Estimate
from ckd_tracker_ros.tracker import TargetState


class Status(IntEnum):
    """As in TrackedTarget.msg."""

    TRACKING = 1
    UNCERTAIN = 2
    LOST = 3
    REMOVED = 4


@dataclass(frozen=True)
class LostSettings:
    """Hysteresis of the confidence.

    Attributes:
        confidence: under it a target is lost.
        recover: from here on a lost target is tracked again; at least `confidence`.

    Raises:
        ValueError: outside 0..1, or `recover` under `confidence`.
    """

    confidence: float = 0.4
    recover: float = 0.6

    def __post_init__(self) -> None:
        if not 0 <= self.confidence <= self.recover <= 1:
            raise ValueError(
                f"lost.confidence {self.confidence} and lost.recover {self.recover}; allowed: 0 <= confidence <= "
                "recover <= 1"
            )


@dataclass(frozen=True, eq=False)
class Target:
    """One target at one moment.

    Attributes:
        id: unique in a tracker node.
        label: whatever the user wrote.
        state: for the tracker's next step.
        estimate: of the last frame; None before the first step after its start.
        status: TRACKING from the start on.
        frames_lost: frames in a row that ended as LOST.
    """

    id: str
    label: str
    state: TargetState
    estimate: Estimate | None = None
    status: Status = Status.TRACKING
    frames_lost: int = 0


def advance(target: Target, state: TargetState, estimate: Estimate, settings: LostSettings) -> Target:
    """The target after a tracker step that gave `state` and `estimate`."""
    threshold = settings.recover if target.status == Status.LOST else settings.confidence
    lost = estimate.confidence < threshold
    return replace(
        target,
        state=state,
        estimate=estimate,
        status=Status.LOST if lost else Status.TRACKING,
        frames_lost=target.frames_lost + 1 if lost else 0,
    )
