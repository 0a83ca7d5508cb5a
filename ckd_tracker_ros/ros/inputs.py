"""The two image subscriptions: quality of service that fits the publishers, pairs out, and facts about what arrives."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image

from ckd_tracker_ros.causes import Facts, StreamFacts
from ckd_tracker_ros.frame import MODALITIES
from ckd_tracker_ros.images import to_ns
from ckd_tracker_ros.pairing import NearestPairing, Pair
from ckd_tracker_ros.parameters import Parameters
from ckd_tracker_ros.ros.filters import FilterPairing

WINDOW_S = 1.4
"""How long nothing has to arrive before that is worth a warning."""
_TYPES = {
    "raw": ("sensor_msgs/msg/Image", Image, ""),
    "compressed": ("sensor_msgs/msg/CompressedImage", CompressedImage, "/compressed"),
}
_RELIABILITY = {"reliable": ReliabilityPolicy.RELIABLE, "best_effort": ReliabilityPolicy.BEST_EFFORT}


def make_pairing(parameters: Parameters) -> NearestPairing | FilterPairing:
    """The pairing of sync.policy.

    Raises:
        ParameterError: a policy of message_filters where that is not installed.
    """
    if parameters.sync_policy == "nearest":
        return parameters.pairing_settings.start()
    slop, size, delay = parameters.sync_slop, parameters.sync_queue_size, parameters.sync_thermal_delay
    return FilterPairing(parameters.sync_policy, round(slop * 1e9), size, round(delay * 1e9))


@dataclass(eq=False)
class _Camera:
    """One subscription."""

    modality: str
    topic: str
    type_name: str
    type: type
    other_topic: str
    reliability: str
    subscription: Subscription | None = None
    received: int = 0
    unset: int = 0


class Inputs:
    """Subscribes to both cameras from construction until `close`."""

    def __init__(self, node: Node, parameters: Parameters, on_pair: Callable[[Pair], None]) -> None:
        """`on_pair` is called from the callback of the image that completes the pair.

        Raises:
            ParameterError: see `make_pairing`.
        """
        self._node = node
        self._on_pair = on_pair
        self._pairing = make_pairing(parameters)
        self._slop_ns = round(parameters.sync_slop * 1e9)
        self._auto = parameters.qos_reliability == "auto"
        self._depth = parameters.qos_depth
        self._group = MutuallyExclusiveCallbackGroup()
        self._lock = threading.Lock()
        self.pairs = 0
        transports = (parameters.rgb_transport, parameters.thermal_transport)
        self._cameras = [self._camera(*pair, parameters) for pair in zip(MODALITIES, transports, strict=True)]
        self._history: deque[tuple[float, tuple[int, ...]]] = deque([(time.monotonic(), self._totals())])
        for stream, camera in enumerate(self._cameras):
            self._subscribe(stream, camera)

    def _camera(self, modality: str, transport: str, parameters: Parameters) -> _Camera:
        type_name, message_type, suffix = _TYPES[transport]
        topic, plain = (self._node.resolve_topic_name(f"{modality}/image_raw{end}") for end in (suffix, ""))
        other = plain if suffix else f"{plain}/compressed"
        # Best effort matches every publisher but loses images; so reliable, until a publisher turns out to need it.
        reliability = "reliable" if self._auto else parameters.qos_reliability
        return _Camera(modality, topic, type_name, message_type, other, reliability)

    def _subscribe(self, stream: int, camera: _Camera) -> None:
        if self._auto:
            camera.reliability = self._offered(camera)
        qos = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=self._depth, reliability=_RELIABILITY[camera.reliability]
        )
        camera.subscription = self._node.create_subscription(
            camera.type,
            camera.topic,
            partial(self._arrived, stream),
            qos,
            callback_group=self._group,
            # rclpy's own warning comes too early with `auto`; `why_nothing` has the cause either way
            event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
        )

    def _arrived(self, stream: int, message: Image | CompressedImage) -> None:
        camera = self._cameras[stream]
        stamp_ns = to_ns(message.header.stamp)
        camera.received += 1
        camera.unset += stamp_ns == 0
        for pair in self._pairing.push(stream, stamp_ns, time.monotonic_ns(), message):
            self.pairs += None not in pair.items
            self._on_pair(pair)

    def look(self) -> None:
        """Looks at the graph: with `auto`, subscribes anew where a publisher needs another reliability."""
        with self._lock:
            for stream, camera in enumerate(self._cameras):
                if self._auto and camera.subscription is not None and self._offered(camera) != camera.reliability:
                    self._node.destroy_subscription(camera.subscription)
                    self._subscribe(stream, camera)
                    self._node.get_logger().info(f"{camera.topic}: now subscribed as {camera.reliability}")
            self._history.append((time.monotonic(), self._totals()))
            while len(self._history) > 1 and self._history[1][0] <= time.monotonic() - WINDOW_S:
                self._history.popleft()

    def _publishers(self, topic: str) -> list[tuple[str, str]]:
        names = {policy: name for name, policy in _RELIABILITY.items()}
        return [
            (info.topic_type, names.get(info.qos_profile.reliability, "reliable"))
            for info in self._node.get_publishers_info_by_topic(topic)
        ]

    def _offered(self, camera: _Camera) -> str:
        """The reliability that reaches every publisher of the topic; without one, as it is."""
        offered = {reliability for kind, reliability in self._publishers(camera.topic) if kind == camera.type_name}
        return "best_effort" if "best_effort" in offered else "reliable" if offered else camera.reliability

    def set_live(self, parameters: Parameters) -> None:
        """Takes over what may change while images arrive."""
        self._pairing.thermal_delay_ns = round(parameters.sync_thermal_delay * 1e9)
        if isinstance(self._pairing, NearestPairing):
            self._pairing.reuse = parameters.sync_reuse
            silence = parameters.modality_settings.silence
            self._pairing.timeout_ns = None if silence is None else round(silence * 1e9)

    @property
    def received(self) -> dict[str, int]:
        """Images so far, by modality."""
        return {camera.modality: camera.received for camera in self._cameras}

    @property
    def reliability(self) -> dict[str, str]:
        """What the subscriptions ask for now, by modality."""
        return {camera.modality: camera.reliability for camera in self._cameras}

    @property
    def drops(self) -> Counter[str]:
        """Images that left without a partner, by reason."""
        return Counter({reason.value: count for reason, count in self._pairing.counts.items() if count})

    def facts(self) -> Facts | None:
        """What arrived over the last `WINDOW_S`, None while it is too early to tell."""
        with self._lock:
            since, before = self._history[0]
            if time.monotonic() - since < WINDOW_S:
                return None
            counts = [now - then for now, then in zip(self._totals(), before, strict=True)]
            streams = tuple(
                StreamFacts(
                    camera.modality,
                    camera.topic,
                    camera.type_name,
                    tuple(self._publishers(camera.topic)),
                    camera.reliability,
                    counts[1 + 2 * index],
                    counts[2 + 2 * index],
                    camera.other_topic if self._publishers(camera.other_topic) else "",
                )
                for index, camera in enumerate(self._cameras)
            )
        return Facts(streams, counts[0], self._pairing.nearest_offset_ns, self._slop_ns)

    def _totals(self) -> tuple[int, ...]:
        counts = [number for camera in self._cameras for number in (camera.received, camera.unset)]
        return (self.pairs, *counts)

    def close(self) -> None:
        """Ends the subscriptions."""
        with self._lock:
            for camera in self._cameras:
                self._node.destroy_subscription(camera.subscription)
                camera.subscription = None
