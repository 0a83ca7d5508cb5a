"""Messages to dataclasses and back, with the message classes of rclpy."""

from __future__ import annotations

import array
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from ckd_tracker_msgs.msg import Box2D, TrackedTarget, TrackedTargetArray
from ckd_tracker_msgs.srv import ReinitializeTargets
from ckd_tracker_ros.ros.roster import Start
from ckd_tracker_ros.target_messages import MessageTypes

BILLION = 1_000_000_000
TYPES = MessageTypes(Box2D, TrackedTarget, TrackedTargetArray)


def to_time(ns: int) -> Time:
    """The stamp of some nanoseconds."""
    return Time(sec=ns // BILLION, nanosec=ns % BILLION)


def starts(request: ReinitializeTargets.Request) -> list[Start]:
    """What a request asks to start."""
    return [Start(t.id, t.label, (t.box.x, t.box.y, t.box.width, t.box.height)) for t in request.targets]


def detections_message(message: TrackedTargetArray) -> Any:
    """The same as vision_msgs/Detection2DArray, targets that are removed left out.

    Raises:
        ImportError: vision_msgs is not installed.
    """
    from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

    detections = Detection2DArray(header=message.header)
    for target in message.targets:
        if target.state == TrackedTarget.REMOVED:
            continue
        detection = Detection2D(header=message.header, id=target.id)
        detection.bbox.center.position.x = target.box.x + target.box.width / 2
        detection.bbox.center.position.y = target.box.y + target.box.height / 2
        detection.bbox.size_x, detection.bbox.size_y = target.box.width, target.box.height
        result = ObjectHypothesisWithPose()
        result.hypothesis.class_id, result.hypothesis.score = target.label, target.confidence
        detection.results.append(result)
        detections.detections.append(detection)
    return detections


def image_message(header: Header, picture: NDArray[np.uint8]) -> Image:
    """sensor_msgs/Image of a (H, W, 3) BGR picture."""
    height, width = picture.shape[:2]
    message = Image(header=header, height=height, width=width, encoding="bgr8", step=3 * width)
    # The setter takes an array of bytes as it is; of anything else it looks at every element.
    message.data = array.array("B", picture.tobytes())
    return message
