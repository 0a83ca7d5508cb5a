"""Messages to dataclasses and back: the only place that knows both."""

from __future__ import annotations

import array
import math
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import ArrayLike, NDArray
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from ckd_tracker_msgs.msg import Box2D, TrackedTarget, TrackedTargetArray
from ckd_tracker_msgs.srv import ReinitializeTargets
from ckd_tracker_ros.registration import Registration, RegistrationError, Size
from ckd_tracker_ros.ros.roster import Start
from ckd_tracker_ros.target import Target

BILLION = 1_000_000_000


def to_ns(stamp: Time) -> int:
    """Nanoseconds of a stamp; 0 when it is not set."""
    return stamp.sec * BILLION + stamp.nanosec


def to_time(ns: int) -> Time:
    """The stamp of some nanoseconds."""
    return Time(sec=ns // BILLION, nanosec=ns % BILLION)


def starts(request: ReinitializeTargets.Request) -> list[Start]:
    """What a request asks to start."""
    return [Start(t.id, t.label, (t.box.x, t.box.y, t.box.width, t.box.height)) for t in request.targets]


def box_of(target: Target) -> NDArray[np.float64]:
    """(4,) xywh in RGB pixels: the last estimate, or the start box where there is none yet."""
    return target.state.box if target.estimate is None else target.estimate.box


def box_message(box: ArrayLike | None) -> Box2D:
    """Box2D of an xywh box; NaN where the box is not known."""
    x, y, width, height = (math.nan,) * 4 if box is None else map(float, np.asarray(box))
    return Box2D(x=x, y=y, width=width, height=height)


def target_message(target: Target, registration: Registration, sizes: tuple[Size | None, ...]) -> TrackedTarget:
    """One target; `sizes` are those of the RGB and the thermal image, None = unknown.

    A target that no step has judged yet has confidence 1: somebody has just drawn it.
    """
    box = box_of(target)
    return TrackedTarget(
        id=target.id,
        label=target.label,
        state=int(target.status),
        confidence=1.0 if target.estimate is None else float(target.estimate.confidence),
        box=box_message(box),
        thermal_box=box_message(_thermal_box(box, registration, sizes)),
        frames_lost=target.frames_lost,
    )


def _thermal_box(
    box: NDArray[np.float64], registration: Registration, sizes: tuple[Size | None, ...]
) -> NDArray[np.float64] | None:
    """The box in thermal pixels; None where nobody can say, as when the images have just changed their sizes."""
    try:
        return registration.thermal_box(box, *sizes) if all(sizes) else None
    except RegistrationError:
        return None


def targets_message(
    header: Header,
    targets: tuple[Target, ...],
    registration: Registration,
    sizes: tuple[Size | None, ...],
    present: tuple[bool, ...],
    **fields: Any,
) -> TrackedTargetArray:
    """All targets after one pair; `fields` are further fields of the message, by name."""
    width, height = sizes[0] or (0, 0)
    return TrackedTargetArray(
        header=header,
        image_width=width,
        image_height=height,
        modalities=sum(bool(there) << bit for bit, there in enumerate(present)),
        targets=[target_message(target, registration, sizes) for target in targets],
        **fields,
    )


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
