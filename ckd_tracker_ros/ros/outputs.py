"""What leaves the node for every processed pair: targets, detections, and the picture for people."""

from __future__ import annotations

import importlib.util
import math
import time

import cv2
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from ckd_tracker_msgs.msg import TrackedTargetArray
from ckd_tracker_ros import images, overlay
from ckd_tracker_ros.causes import clock_off
from ckd_tracker_ros.frame import RgbtFrame
from ckd_tracker_ros.parameters import Parameters
from ckd_tracker_ros.registration import Registration
from ckd_tracker_ros.ros import messages
from ckd_tracker_ros.ros.statistics import Statistics
from ckd_tracker_ros.ros.worker import Outcome
from ckd_tracker_ros.target import Target
from ckd_tracker_ros.target_messages import targets_message

CLOCKS_AGREE_S = 10.0
"""Stamps further than this from the node's clock say nothing about latency."""
INSET_WIDTH = 0.25
"""Of the thermal image in the picture for people, as a share of the picture."""


class Outputs:
    """The publishers of results. `publish` is for one thread, the worker's."""

    def __init__(self, node: LifecycleNode, parameters: Parameters, statistics: Statistics) -> None:
        reliable = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        self.parameters = parameters
        self._node = node
        self._statistics = statistics
        self._registration = parameters.tracker_settings.registration
        self._frame_id = ""
        self._next_picture = 0.0
        self._targets = node.create_lifecycle_publisher(TrackedTargetArray, "~/targets", reliable)
        self._debug = node.create_lifecycle_publisher(Image, "~/debug_image", QoSProfile(depth=1))
        self._detections = None
        if importlib.util.find_spec("vision_msgs"):
            from vision_msgs.msg import Detection2DArray

            self._detections = node.create_lifecycle_publisher(Detection2DArray, "~/detections", reliable)

    def publish(self, outcome: Outcome) -> None:
        """Sends what one pair has come to."""
        pair = outcome.pair
        rgb = pair.items[0]
        self._frame_id = rgb.header.frame_id if rgb is not None else self._frame_id
        header = Header(stamp=messages.to_time(pair.rgb_stamp_ns), frame_id=self._frame_id)
        latency = self._latency(pair.rgb_stamp_ns)
        processing = (time.monotonic_ns() - outcome.taken_ns) / 1e9
        message = targets_message(
            messages.TYPES,
            header,
            outcome.targets + outcome.removed,
            self._registration,
            self._statistics.last_sizes,
            outcome.frame.present if outcome.frame else tuple(item is not None for item in pair.items),
            sync_offset=pair.offset_ns / 1e9,
            latency=latency,
            processing_time=processing,
            skipped_pairs=outcome.skipped,
        )
        own = (time.monotonic_ns() - pair.arrival_ns - outcome.step_ns) / 1e9
        self._targets.publish(message)
        if self._detections is not None:
            self._detections.publish(messages.detections_message(message))
        self._statistics.took(
            latency=latency,
            processing_time=processing,
            sync_offset=pair.offset_ns / 1e9,
            step_time=outcome.step_ns / 1e9,
            overhead=own,  # from the later image's callback to the publish call, without the tracker's step
        )
        self._publish_picture(header, outcome)

    def _latency(self, stamp_ns: int) -> float:
        """Seconds since the stamp, NaN when the clocks do not agree."""
        latency = (self._node.get_clock().now().nanoseconds - stamp_ns) / 1e9
        if abs(latency) <= CLOCKS_AGREE_S:
            return latency
        self._statistics.warn_once(str(clock_off(latency)))
        return math.nan

    def _publish_picture(self, header: Header, outcome: Outcome) -> None:
        now = time.monotonic()
        if now < self._next_picture or not self._debug.get_subscription_count():
            return
        self._next_picture = now + 1 / self.parameters.debug_rate
        try:
            frame = outcome.frame or images.decode_pair(outcome.pair)
        except ValueError as error:
            self._statistics.unusable(error)
            return
        self._debug.publish(messages.image_message(header, picture(frame, outcome.targets, self._registration)))

    def close(self) -> None:
        """Takes the publishers away."""
        for publisher in filter(None, (self._targets, self._debug, self._detections)):
            self._node.destroy_lifecycle_publisher(publisher)


def picture(frame: RgbtFrame, targets: tuple[Target, ...], registration: Registration) -> overlay.Picture:
    """A BGR picture of the RGB image with every target's box, id, confidence and state, the thermal image inset."""
    rgb, thermal = frame.images
    limits = next((target.state.limits[1] for target in targets), None)
    canvas = overlay.to_bgr(rgb if rgb is not None else thermal, None if rgb is not None else limits)
    overlay.draw(canvas, [_mark(target, target.box) for target in targets])
    if rgb is not None and thermal is not None:
        small = overlay.to_bgr(thermal, limits)
        sizes = (rgb.width, rgb.height), (thermal.width, thermal.height)
        boxes = [registration.thermal_box(target.box, *sizes) for target in targets]
        width = max(1, round(rgb.width * INSET_WIDTH))
        height = min(rgb.height, max(1, round(width * thermal.height / thermal.width)))
        scale = width / thermal.width
        small = cv2.resize(small, (width, height), interpolation=cv2.INTER_AREA)
        marks = [_mark(target, box * scale, named=False) for target, box in zip(targets, boxes, strict=True)]
        overlay.draw(small, marks)
        canvas[:height, -width:] = small
    return canvas


def _mark(target: Target, box: overlay.ArrayLike, named: bool = True) -> overlay.Mark:
    text = f"{target.id} {target.label} {target.confidence:.2f}" if named else ""
    return overlay.Mark(box, text, overlay.STATUS_COLORS[target.status])
