"""What a user may set of the tracker and of the life of its targets. No torch: parameters are read without it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ckd_tracker_ros.registration import Registration
from ckd_tracker_ros.thermal import ThermalSettings


@dataclass(frozen=True)
class TrackerSettings:
    """What may change between two steps.

    Attributes:
        min_box_size: smallest side of a box, RGB pixels.
        thermal: how 16-bit and float thermal images become 8 bits.
        registration: geometry between the cameras.
    """

    min_box_size: float = 4.0
    thermal: ThermalSettings = field(default_factory=ThermalSettings)
    registration: Registration = field(default_factory=Registration)


@dataclass(frozen=True)
class LostSettings:
    """When a target is believed, searched for, and given up.

    Attributes:
        confidence: under it a target is uncertain.
        recover: from here on a lost one is believed again; at least `confidence`. An uncertain one from half way.
        after: frames in a row that a target is uncertain before it is lost.
        give_up: seconds that a target is searched for before it is removed; 0: for ever.
        renew: seconds after which a target that is well seen, and is alone and of its usual colours and heat or has met
            no look-alike, gets its present appearance as a second template beside the first, which stays; 0: never.
        crops: of a step, in which targets that are not believed are searched for, all together; at least one for each
            lost target.

    Raises:
        ValueError: a value that is not allowed; the text names it.
    """

    confidence: float = 0.4
    recover: float = 0.85
    after: int = 5
    give_up: float = 30.0
    crops: int = 4
    renew: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.confidence <= self.recover <= 1:
            raise ValueError(
                f"lost.confidence {self.confidence} and lost.recover {self.recover}; allowed: 0 <= confidence <= "
                "recover <= 1"
            )
        for name, lowest in (("after", 0), ("give_up", 0), ("crops", 1), ("renew", 0)):
            if not getattr(self, name) >= lowest:
                raise ValueError(f"lost.{name} is {getattr(self, name)}; allowed: {lowest} or more")
