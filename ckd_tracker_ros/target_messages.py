"""Targets as messages: the only place that knows the fields, for the message classes of rclpy and of rosbags alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ckd_tracker_ros.registration import Registration, RegistrationError, Size
from ckd_tracker_ros.target import Target


@dataclass(frozen=True)
class MessageTypes:
    """Classes of ckd_tracker_msgs whose fields are keyword arguments.

    Attributes:
        box: Box2D.
        target: TrackedTarget.
        targets: TrackedTargetArray.
    """

    box: type
    target: type
    targets: type


def box_message(types: MessageTypes, box: ArrayLike | None) -> Any:
    """Box2D of an xywh box; NaN where the box is not known."""
    x, y, width, height = (math.nan,) * 4 if box is None else map(float, np.asarray(box))
    return types.box(x=x, y=y, width=width, height=height)


def target_message(
    types: MessageTypes, target: Target, registration: Registration, sizes: Sequence[Size | None]
) -> Any:
    """TrackedTarget; `sizes` are those of the RGB and the thermal image, None = unknown."""
    box = target.box
    return types.target(
        id=target.id,
        label=target.label,
        state=int(target.status),
        confidence=float(target.confidence),
        box=box_message(types, box),
        thermal_box=box_message(types, _thermal_box(box, registration, sizes)),
        frames_lost=target.frames_lost,
    )


def _thermal_box(
    box: NDArray[np.float64], registration: Registration, sizes: Sequence[Size | None]
) -> NDArray[np.float64] | None:
    """The box in thermal pixels; None where nobody can say, as when the images have just changed their sizes."""
    try:
        return registration.thermal_box(box, *sizes) if all(sizes) else None
    except RegistrationError:
        return None


def targets_message(
    types: MessageTypes,
    header: Any,
    targets: Sequence[Target],
    registration: Registration,
    sizes: Sequence[Size | None],
    present: Sequence[bool],
    **fields: Any,
) -> Any:
    """TrackedTargetArray: all targets after one pair; `fields` are further fields of the message, by name."""
    width, height = sizes[0] or (0, 0)
    return types.targets(
        header=header,
        image_width=width,
        image_height=height,
        modalities=sum(bool(there) << bit for bit, there in enumerate(present)),
        targets=[target_message(types, target, registration, sizes) for target in targets],
        **fields,
    )
