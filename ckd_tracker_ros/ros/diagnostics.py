"""Why nothing arrives, and the diagnostics message that says so with everything else a robot engineer asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

CLOCKS_DIFFER_NS = 1_000_000_000
"""Stamps of two cameras that stay this far apart come from clocks that are not synchronised."""


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
    """Everything that `why_nothing` looks at.

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
    if facts.pairs:
        return ""
    silent = [cause for stream in facts.streams if (cause := _why_silent(stream))]
    if silent:
        return "; ".join(silent)
    unset = [stream for stream in facts.streams if stream.unset == stream.received]
    if unset:
        topics = " and ".join(stream.topic for stream in unset)
        return f"the stamps on {topics} are not set (0): the driver has to stamp its images"
    return _why_no_pairs(facts)


def _why_silent(stream: StreamFacts) -> str:
    if stream.received:
        return ""
    if not stream.publishers:
        hint = ""
        if stream.other_topic:
            transport = "compressed" if stream.other_topic.endswith("compressed") else "raw"
            hint = f"; there is one on {stream.other_topic}: set {stream.modality}.transport to {transport}"
        return f"no publisher on {stream.topic}{hint or ': is the camera running, is the topic remapped?'}"
    fitting = [reliability for type, reliability in stream.publishers if type == stream.type]
    if not fitting:
        types = ", ".join(sorted({type for type, _ in stream.publishers}))
        return f"{stream.topic} carries {types}, the node expects {stream.type}: see {stream.modality}.transport"
    if stream.reliability == "reliable" and "reliable" not in fitting:
        return (
            f"QoS on {stream.topic} cannot match: the publisher is best_effort, the node asks for reliable: "
            "set qos.reliability to auto or best_effort"
        )
    return (
        f"{stream.topic} has a publisher but no image arrives: it may be idle, or DDS loses images of this size "
        "(see config/fastdds.xml; the camera's process needs it too)"
    )


def _why_no_pairs(facts: Facts) -> str:
    if facts.nearest_offset_ns is None:
        return "both cameras send images, but their stamps never meet"
    offset, slop = facts.nearest_offset_ns / 1e9, facts.slop_ns / 1e9
    text = f"both cameras send images, but no pair is within sync.slop ({slop:g} s): the smallest offset seen, "
    text += f"thermal less RGB, is {offset:+.4f} s"
    if abs(facts.nearest_offset_ns) >= CLOCKS_DIFFER_NS:
        return f"{text}: the clocks of the cameras differ"
    return f"{text}: raise sync.slop, or set sync.thermal_delay to what it always is"


def message(
    stamp: Time, name: str, hardware_id: str, level: bytes, text: str, values: Mapping[str, object]
) -> DiagnosticArray:
    """One status in a DiagnosticArray; numbers are rounded for people."""
    pairs = [KeyValue(key=key, value=_shown(value)) for key, value in values.items()]
    status = DiagnosticStatus(level=level, name=name, message=text, hardware_id=hardware_id, values=pairs)
    array = DiagnosticArray(status=[status])
    array.header.stamp = stamp
    return array


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
