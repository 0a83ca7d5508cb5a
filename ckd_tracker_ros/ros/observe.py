"""Facts about a live graph for `ckd-tracker doctor`: publishers, subscribers, clock, and the images themselves."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import Any

import rclpy
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from rclpy.time import Time
from rclpy.topic_endpoint_info import TopicEndpointInfo
from rclpy.utilities import get_rmw_implementation_identifier
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image

from ckd_tracker_ros.causes import StreamFacts
from ckd_tracker_ros.doctor.facts import TYPES, Camera, Graph, Settings, SetUp, other_of, transport_of
from ckd_tracker_ros.doctor.watch import Watch
from ckd_tracker_ros.frame import MODALITIES

NAME = "ckd_tracker_doctor"
SECONDS = 10.0
DISCOVERY_S = 3.0
"""How long publishers are waited for."""
DEPTH = 30
_LOOK_S = 0.2
_CLASSES = {"raw": Image, "compressed": CompressedImage}
_RELIABILITY = {"reliable": ReliabilityPolicy.RELIABLE, "best_effort": ReliabilityPolicy.BEST_EFFORT}
_CHOSEN = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE", "FASTDDS_BUILTIN_TRANSPORTS")


class Topic:
    """One camera's topic: subscribed in the way that reaches its publishers, as the node does it."""

    def __init__(self, node: Node, modality: str, name: str, reliability: str) -> None:
        self._node, self._modality, self._asked = node, modality, reliability
        try:
            self.name = node.resolve_topic_name(name)
        except rclpy_implementation.RCLError as error:
            raise ValueError(f"--{modality} {name!r} is no topic: {error}") from error
        self.type = TYPES[transport_of(self.name)]
        self.seen = Watch()
        self.reliability = "reliable" if reliability == "auto" else reliability
        self._publishers: list[TopicEndpointInfo] = []
        self._subscription: Subscription | None = None

    def look(self) -> None:
        """Looks at the graph, and subscribes (anew) where that needs it. What has once been seen is remembered."""
        self._publishers = self._node.get_publishers_info_by_topic(self.name) or self._publishers
        kinds = {_reliability(info) for info in self._publishers if info.topic_type == self.type}
        if not kinds:
            return
        wanted = "best_effort" if "best_effort" in kinds else "reliable"
        wanted = wanted if self._asked == "auto" else self._asked
        if self._subscription is None or wanted != self.reliability:
            if self._subscription is not None:
                self._node.destroy_subscription(self._subscription)
            self.reliability = wanted
            quality = QoSProfile(depth=DEPTH, reliability=_RELIABILITY[wanted])
            kind = _CLASSES[transport_of(self.name)]
            events = SubscriptionEventCallbacks(message_lost=self._lost, use_default_callbacks=False)
            self._subscription = self._node.create_subscription(
                kind, self.name, self.arrived, quality, event_callbacks=events
            )

    def arrived(self, message: Image | CompressedImage) -> None:
        """Called for every image."""
        self.seen.add(message, time.time_ns())

    def _lost(self, event: Any) -> None:
        """The middleware has seen a gap in the publisher's sequence numbers."""
        self.seen.lost += event.total_count_change

    def camera(self, image_topics: tuple[str, ...]) -> Camera:
        """What is known of it."""
        other = other_of(self.name)
        publishers = tuple((info.topic_type, _reliability(info)) for info in self._publishers)
        stream = StreamFacts(
            self._modality,
            self.name,
            self.type,
            publishers,
            self.reliability,
            len(self.seen),
            self.seen.unset,
            other if other in image_topics else "",
        )
        listeners = self._node.get_subscriptions_info_by_topic(self.name)
        best_effort = any(reliability == "best_effort" for _, reliability in publishers)
        deaf = {_name(info) for info in listeners if info.node_name != NAME and _reliability(info) == "reliable"}
        return Camera(stream, self.seen, tuple(map(_name, self._publishers)), tuple(sorted(deaf)) * best_effort)


def look(topics: tuple[str, str], seconds: float = 0.0, settings: Settings | None = None) -> SetUp:
    """Watches a live graph from a node and a context of its own.

    Args:
        topics: of RGB and thermal images; compressed ones end in /compressed.
        seconds: how long images are watched once there are any; 0: `SECONDS`.

    Raises:
        ValueError: a name that no topic can have.
    """
    settings = settings or Settings()
    context = rclpy.Context()
    rclpy.init(context=context)
    executor = SingleThreadedExecutor(context=context)
    try:
        node = rclpy.create_node(NAME, context=context)
        executor.add_node(node)
        return _watch(node, executor, topics, seconds or SECONDS, settings)
    finally:
        executor.shutdown()
        context.try_shutdown()


def _watch(
    node: Node, executor: SingleThreadedExecutor, names: tuple[str, str], seconds: float, settings: Settings
) -> SetUp:
    topics = [Topic(node, *each, settings.reliability) for each in zip(MODALITIES, names, strict=True)]
    clock: list[float] = []
    node.create_subscription(Clock, "/clock", partial(_note_clock, clock), 1)
    deadline = time.monotonic() + DISCOVERY_S
    while time.monotonic() < deadline and not all(len(topic.seen) for topic in topics):
        spin(executor, topics, _LOOK_S)
    for topic in topics:
        topic.seen = Watch()  # the first images come while the subscriptions are being made
    began, used = time.monotonic(), time.process_time()
    while (left := began + seconds - time.monotonic()) > 0:
        spin(executor, topics, min(left, _LOOK_S))
    busy = (time.process_time() - used) / (time.monotonic() - began)
    kinds = dict(node.get_topic_names_and_types())
    image_topics = tuple(
        sorted(name for name, types in kinds.items() if {*types} & {*TYPES.values()} and node.count_publishers(name))
    )
    graph = Graph(
        os.environ.get("ROS_DOMAIN_ID", "0"),
        get_rmw_implementation_identifier(),
        any(os.environ.get(name) for name in _CHOSEN),
        clock[-1] if clock else float("nan"),
        busy,
    )
    return SetUp(tuple(topic.camera(image_topics) for topic in topics), settings, image_topics, graph)


def spin(executor: SingleThreadedExecutor, topics: list[Topic], seconds: float) -> None:
    """Looks at the graph, then takes what arrives for some time."""
    for topic in topics:
        topic.look()
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        executor.spin_once(timeout_sec=left)


def _note_clock(found: list[float], message: Clock) -> None:
    found.append(Time.from_msg(message.clock).nanoseconds / 1e9 - time.time())


def _reliability(info: TopicEndpointInfo) -> str:
    return "best_effort" if info.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT else "reliable"


def _name(info: TopicEndpointInfo) -> str:
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"
