"""How two cameras lie to each other, from their images: `ckd-tracker calibrate`. Needs no checkerboard and no ROS."""

from ckd_tracker_ros.alignment.choose import spread_pairs
from ckd_tracker_ros.alignment.estimate import AUTO, Alignment, AlignmentError, estimate
from ckd_tracker_ros.alignment.report import as_text, as_yaml, overlay, table

__all__ = [
    "AUTO",
    "Alignment",
    "AlignmentError",
    "as_text",
    "as_yaml",
    "estimate",
    "overlay",
    "spread_pairs",
    "table",
]
