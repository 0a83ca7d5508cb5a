"""Why images do not become pairs, in plain words: for the node, for `ckd-tracker bag` and for `ckd-tracker doctor`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

LEVELS = ("blocks", "wrong", "remark")
"""No result can come; results come and are worse than they could be; it could be better."""
CLOCKS_DIFFER_NS = 1_000_000_000
"""Stamps of two cameras that stay this far apart come from clocks that are not synchronised."""
FEW = 2
"""Images of a camera that may be left over between a pair and the moment when the cameras stop."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes:
        cause: a name for machines that stays the same.
        level: one of `LEVELS`.
        what: is wrong, with its values.
        do: what to set or to change.
    """

    cause: str
    level: str
    what: str
    do: str

    def __str__(self) -> str:
        return f"{self.what}: {self.do}"


@dataclass(frozen=True)
class StreamFacts:
    """What is known about one camera's topic over the last seconds.

    Attributes:
        modality: rgb or thermal.
        topic: resolved name.
        type: message type that the node subscribes to.
        publishers: (message type, reliability) of every publisher in the graph; reliability as in qos.reliability.
        reliability: what the node's subscription asks for.
        received: images since the last look.
        unset: those without a stamp.
        other_topic: the topic of the other transport, if somebody publishes there, else "".
    """

    modality: str
    topic: str
    type: str
    publishers: tuple[tuple[str, str], ...] = ()
    reliability: str = "reliable"
    received: int = 0
    unset: int = 0
    other_topic: str = ""


@dataclass(frozen=True)
class Facts:
    """Everything that `find` looks at.

    Attributes:
        streams: per modality.
        pairs: made since the last look.
        nearest_offset_ns: corrected thermal stamp less RGB stamp of the last images that could be compared; None
            when there were none.
        slop_ns: allowed offset.
    """

    streams: tuple[StreamFacts, ...]
    pairs: int = 0
    nearest_offset_ns: int | None = None
    slop_ns: int = 0


def why_nothing(facts: Facts) -> str:
    """The cause, with its values and what to do, when there are no pairs; "" when there are."""
    return "; ".join(map(str, find(facts)))


def find(facts: Facts) -> list[Finding]:
    """What keeps images from becoming pairs; nothing where there are pairs."""
    if facts.pairs:
        return []
    if found := [finding for stream in facts.streams if (finding := silent(stream))]:
        return found
    if without := [stream.topic for stream in facts.streams if stream.unset == stream.received]:
        return [unset(without)]
    if facts.nearest_offset_ns is not None and abs(facts.nearest_offset_ns) <= facts.slop_ns:  # the last ones did pair
        return [stuck()] if min(stream.received for stream in facts.streams) > FEW else []
    return [no_pairs(facts.nearest_offset_ns, facts.slop_ns)]


def silent(stream: StreamFacts) -> Finding | None:
    """Why a topic gives no image; None where it does."""
    if stream.received:
        return None
    if not stream.publishers:
        what = f"no publisher on {stream.topic}"
        if not stream.other_topic:
            return Finding("no_publisher", "blocks", what, "is the camera running, is the topic remapped?")
        transport = "compressed" if stream.other_topic.endswith("compressed") else "raw"
        what = f"{what}; there is one on {stream.other_topic}"
        return Finding("transport", "blocks", what, f"set {stream.modality}.transport to {transport}")
    fitting = [reliability for type, reliability in stream.publishers if type == stream.type]
    if not fitting:
        types = ", ".join(sorted({type for type, _ in stream.publishers}))
        what = f"{stream.topic} carries {types}, the node expects {stream.type}"
        return Finding("wrong_type", "blocks", what, f"see {stream.modality}.transport")
    if stream.reliability == "reliable" and "reliable" not in fitting:
        what = f"QoS on {stream.topic} cannot match: the publisher is best_effort, the node asks for reliable"
        return Finding("qos", "blocks", what, "set qos.reliability to auto or best_effort")
    return Finding(
        "idle_publisher",
        "blocks",
        f"{stream.topic} has a publisher but no image arrives",
        "it may be idle, or DDS loses images of this size (see config/fastdds.xml; the camera's process needs it too)",
    )


def unset(topics: Iterable[str]) -> Finding:
    """Of topics whose images are not stamped."""
    what = f"the stamps on {' and '.join(topics)} are not set (0)"
    return Finding("stamps_unset", "blocks", what, "the driver has to stamp its images")


def stuck() -> Finding:
    """Of two cameras whose images paired before and do not any more."""
    what = "both cameras send images, but their stamps do not go on from those of the last pair"
    return Finding("stamps_stuck", "blocks", what, "does a driver repeat its stamps, was a clock set back?")


def no_pairs(nearest_offset_ns: int | None, slop_ns: int) -> Finding:
    """Of two cameras that send stamped images and share no moment; arguments as in `Facts`."""
    if nearest_offset_ns is None:
        what = "both cameras send images, but their stamps never meet"
        return Finding("no_pairs", "blocks", what, "does each camera count its own time? Both need one clock")
    if abs(nearest_offset_ns) >= CLOCKS_DIFFER_NS:
        return clocks_differ(nearest_offset_ns)
    what = (
        f"both cameras send images, but no pair is within sync.slop ({slop_ns / 1e9:g} s): the smallest offset seen, "
        f"thermal less RGB, is {nearest_offset_ns / 1e9:+.4f} s"
    )
    return Finding("no_pairs", "blocks", what, "raise sync.slop, or set sync.thermal_delay to what it always is")


def clocks_differ(offset_ns: float) -> Finding:
    """Of cameras that are stamped by two clocks; thermal less RGB."""
    return Finding(
        "clocks_differ",
        "blocks",
        f"the clocks of the cameras differ: thermal stamps are {offset_ns / 1e9:+.4f} s from RGB stamps",
        "synchronise the computers (chrony, PTP), or let the drivers stamp images on arrival",
    )


def clock_off(seconds: float) -> Finding:
    """Of stamps that are that far behind the clock of this computer."""
    return Finding(
        "clock_off",
        "wrong",
        f"image stamps are {seconds:.1f} s off this node's clock, so latency is NaN",
        "set use_sim_time to true when a recording is played with /clock",
    )
