"""What the doctor knows of a set-up, whether it looked at a bag or at a live graph."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ckd_tracker_ros.causes import Facts, Finding, StreamFacts
from ckd_tracker_ros.doctor.offset import Delay, delay_between, motion_of
from ckd_tracker_ros.doctor.watch import Watch
from ckd_tracker_ros.pairing import NearestPairing, PairingSettings
from ckd_tracker_ros.registration import Registration

TYPES = {"raw": "sensor_msgs/msg/Image", "compressed": "sensor_msgs/msg/CompressedImage"}
COMPRESSED = "/compressed"
CLOCKS_AGREE_S = 10.0
"""Stamps this far off are of another clock; the node publishes no latency then."""
_FITS = 0.1  # of a period: how far steps may be from whole multiples of it
_CLOSE_S = 0.5  # arrivals tell delays that are larger well enough to look around them


@dataclass(frozen=True)
class Settings:
    """What the node is, or would be, told.

    Attributes:
        pairing: sync.*
        registration: registration.*
        reliability: qos.reliability.
    """

    pairing: PairingSettings = PairingSettings()
    registration: Registration = Registration()
    reliability: str = "auto"


@dataclass(frozen=True, eq=False)
class Camera:
    """One camera.

    Attributes:
        stream: its topic, as the node's own warnings look at it.
        seen: its images.
        nodes: names of the publishers.
        deaf: names of other nodes whose subscriptions ask for reliable where a publisher is best effort.
    """

    stream: StreamFacts
    seen: Watch
    nodes: tuple[str, ...] = ()
    deaf: tuple[str, ...] = ()

    @cached_property
    def stamped(self) -> NDArray[np.int64]:
        """(n,) indices of the images with a stamp."""
        return np.flatnonzero(np.array(self.seen.stamps_ns, np.int64))

    @cached_property
    def stamps_s(self) -> NDArray[np.float64]:
        """(n,) stamps in the order of arrival, without unset ones, seconds from the first one on."""
        return (np.array(self.seen.stamps_ns, np.int64)[self.stamped] - self.first_ns) / 1e9

    @cached_property
    def first_ns(self) -> int:
        """The first stamp that is set, 0 without one."""
        return next(filter(None, self.seen.stamps_ns), 0)

    @cached_property
    def age_s(self) -> float:
        """Median of arrival less stamp, seconds; NaN without stamps."""
        arrivals, stamps = (np.array(each, np.int64) for each in (self.seen.arrivals_ns, self.seen.stamps_ns))
        return float(np.median((arrivals - stamps)[self.stamped])) / 1e9 if len(self.stamped) else float("nan")

    @cached_property
    def period_s(self) -> float:
        """Of the camera, by its stamps (or arrivals), also where images are lost; NaN where it cannot be told."""
        times = self.stamps_s if len(self.stamps_s) > 2 else np.array(self.seen.arrivals_ns, np.float64) / 1e9
        return period_of(times)


def period_of(times: NDArray[np.float64]) -> float:
    """The period of a camera by the (n,) stamps of the images that came; NaN for less than three.

    It is the median step, or, where many images are lost, the shorter one that all steps are whole multiples of.
    Single steps of it have to be as frequent as losses by chance leave them: a slow camera may be polled by a quick
    clock.
    """
    steps = np.diff(times)
    steps = steps[steps > 0]
    if len(steps) < 2:
        return float("nan")
    median = float(np.median(steps))
    for period in (median, float(np.percentile(steps, 25)), median / 2, median / 3, median / 4):
        counts = np.maximum(np.round(steps / period), 1)
        misfit = float(np.abs(steps / period - counts).mean())
        single, kept = float((counts == 1).mean()), len(steps) / counts.sum()
        if misfit < (_FITS if period == median else _FITS / 2) and single > kept / 2:
            return float(steps.sum() / counts.sum())
    return float(steps.mean()) if steps.max() < 1.5 * median else median


@dataclass(frozen=True)
class Graph:
    """What a live graph shows besides the cameras.

    Attributes:
        domain: ROS_DOMAIN_ID.
        middleware: rmw implementation.
        profile: whether this process has a Fast DDS profile or transports of the user's choice.
        sim_offset_s: simulated time less this computer's; NaN without /clock.
        busy: share of the time that receiving took; near 1 the doctor itself may lose images.
    """

    domain: str = "0"
    middleware: str = ""
    profile: bool = False
    sim_offset_s: float = float("nan")
    busy: float = 0.0


@dataclass(frozen=True)
class Machine:
    """What runs the network.

    Attributes:
        description: model, device, precision and runner, as the node's log has them.
        problem: why there is none.
    """

    description: dict[str, str] = field(default_factory=dict)
    problem: Finding | None = None


@dataclass(frozen=True, eq=False)
class SetUp:
    """All of it.

    Attributes:
        cameras: RGB, thermal.
        settings: of the node.
        image_topics: all that there are.
        graph: None for a bag.
        machine: None where nobody asked.
    """

    cameras: tuple[Camera, Camera]
    settings: Settings = Settings()
    image_topics: tuple[str, ...] = ()
    graph: Graph | None = None
    machine: Machine | None = None

    def paired(self, settings: PairingSettings) -> NearestPairing:
        """The node's pairing with other settings, after all images have gone through it as they arrived."""
        pairing = settings.start()
        for _, stream, stamp in sorted(self._arrivals()):
            pairing.push(stream, stamp, 0, None)
        return pairing

    def _arrivals(self) -> Iterable[tuple[int, int, int]]:
        for stream, camera in enumerate(self.cameras):
            for arrival, stamp in zip(camera.seen.arrivals_ns, camera.seen.stamps_ns, strict=True):
                yield arrival, stream, stamp

    @cached_property
    def pairing(self) -> NearestPairing:
        """After all images, with the settings at hand."""
        return self.paired(self.settings.pairing)

    @cached_property
    def why_nothing(self) -> Facts:
        """What the node would look at."""
        streams = tuple(camera.stream for camera in self.cameras)
        return Facts(streams, self.pairing.pairs, self.pairing.nearest_offset_ns, self.pairing.slop_ns)

    @cached_property
    def delay(self) -> Delay | None:
        """Of the thermal stamps, see `delay_between`; None also where stamps are unset or do not rise."""
        rgb, thermal = self.cameras
        if any(camera.seen.unset or (np.diff(camera.stamps_s) <= 0).any() for camera in self.cameras):
            return None
        motions = []
        for camera in self.cameras:
            looks = camera.seen.looks
            stamps = np.array([camera.seen.stamps_ns[look.number] for look in looks], np.int64) - rgb.first_ns
            motions.append(motion_of(stamps / 1e9, [look.thumbnail for look in looks]))
        apart = rgb.age_s - thermal.age_s
        return delay_between(*motions, around_s=apart if _CLOSE_S < abs(apart) < CLOCKS_AGREE_S else 0.0)


def transport_of(topic: str) -> str:
    """raw or compressed, by a topic's name."""
    return "compressed" if topic.endswith(COMPRESSED) else "raw"


def other_of(topic: str) -> str:
    """The topic of the same camera's other transport."""
    return topic.removesuffix(COMPRESSED) if topic.endswith(COMPRESSED) else topic + COMPRESSED
