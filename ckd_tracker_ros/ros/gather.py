"""Pairs of images from a live graph, for `ckd-tracker calibrate`."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from ckd_tracker_ros.causes import why_nothing
from ckd_tracker_ros.doctor.facts import Settings, SetUp
from ckd_tracker_ros.frame import MODALITIES, RgbtFrame
from ckd_tracker_ros.images import ImageError, decode_pair, to_ns
from ckd_tracker_ros.pairing import NearestPairing, Pair
from ckd_tracker_ros.ros.observe import DISCOVERY_S, Topic, spin

NAME = "ckd_tracker_calibrate"
_STEP_S = 0.1


class GatherError(RuntimeError):
    """No pair came; the message says why and what to do."""


class _Stream(Topic):
    """One camera's topic whose images go into a pairing."""

    def __init__(self, node: Node, stream: int, name: str, reliability: str, gathered: _Gathered) -> None:
        super().__init__(node, MODALITIES[stream], name, reliability)
        self._stream, self._gathered = stream, gathered

    def arrived(self, message: Image | CompressedImage) -> None:
        self.seen.stamps_ns.append(to_ns(message.header.stamp))
        self.seen.arrivals_ns.append(time.time_ns())
        self._gathered.push(self._stream, message)


class _Gathered:
    """Pairs, not closer to each other than `step_s`."""

    def __init__(self, pairing: NearestPairing, step_s: float) -> None:
        self.pairs: list[Pair] = []
        self.first_s = 0.0
        self._pairing, self._step_s, self._next_s = pairing, step_s, 0.0

    def push(self, stream: int, message: Any) -> None:
        now_s = time.monotonic()
        for pair in self._pairing.push(stream, to_ns(message.header.stamp), round(now_s * 1e9), message):
            if None not in pair.items and now_s >= self._next_s:
                self.first_s = self.first_s or now_s
                self.pairs.append(pair)
                self._next_s = now_s + self._step_s


def gather(
    topics: tuple[str, str],
    count: int,
    seconds: float,
    settings: Settings | None = None,
    discovery_s: float = DISCOVERY_S,
) -> list[RgbtFrame]:
    """Pairs of images of a live graph, spread over some seconds, from a node and a context of its own.

    Args:
        topics: of RGB and thermal images; compressed ones end in /compressed.
        count: of pairs, at most.
        seconds: that they are spread over, from the first one on.
        settings: pairing and reliability, as the node has them.
        discovery_s: how long the first pair is waited for, besides `seconds`.

    Raises:
        GatherError: no pair came, or none that decodes.
        ValueError: a name that no topic can have.
    """
    settings = settings or Settings()
    context = rclpy.Context()
    rclpy.init(context=context)
    executor = SingleThreadedExecutor(context=context)
    try:
        node = rclpy.create_node(NAME, context=context)
        executor.add_node(node)
        gathered = _Gathered(settings.pairing.start(), seconds / count)
        streams = [_Stream(node, *each, settings.reliability, gathered) for each in enumerate(topics)]
        end = time.monotonic() + discovery_s + seconds
        while len(gathered.pairs) < count and time.monotonic() < (
            min(end, gathered.first_s + seconds) if gathered.first_s else end
        ):
            spin(executor, streams, _STEP_S)
        return _decoded(gathered.pairs) or _fail(streams, node, settings)
    finally:
        executor.shutdown()
        context.try_shutdown()


def _decoded(pairs: list[Pair]) -> list[RgbtFrame]:
    """Those that decode.

    Raises:
        GatherError: there are some, and none does.
    """
    frames, problem = [], None
    for pair in pairs:
        try:
            frames.append(decode_pair(pair))
        except ImageError as error:
            problem = error
    if problem is not None and not frames:
        raise GatherError(f"none of {len(pairs)} pairs can be used: {problem}")
    return frames


def _fail(streams: list[_Stream], node: Node, settings: Settings) -> list[RgbtFrame]:
    cameras = tuple(stream.camera(tuple(name for name, _ in node.get_topic_names_and_types())) for stream in streams)
    facts = replace(SetUp(cameras, settings).why_nothing, pairs=0)
    raise GatherError(f"no pair of images: {why_nothing(facts) or 'too few came'}")
