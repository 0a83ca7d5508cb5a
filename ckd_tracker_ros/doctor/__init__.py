"""What is wrong with a set-up, and what to set: facts from a bag or a live graph in, findings out.

`recorded.look` and `ros.observe.look` collect the same facts (`SetUp`); `examine` runs every check on them.
"""

from ckd_tracker_ros.doctor.facts import Settings, SetUp
from ckd_tracker_ros.doctor.report import as_json, as_text, examine, is_healthy, measured, table

__all__ = ["SetUp", "Settings", "as_json", "as_text", "examine", "is_healthy", "measured", "table"]
