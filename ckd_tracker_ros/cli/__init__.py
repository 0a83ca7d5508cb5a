"""`ckd-tracker`: what the node does, without ROS, on recordings; weight files; the demo.

Every command imports what it needs when it runs, so that `--help` answers at once and `track` works without ROS.
"""

from ckd_tracker_ros.cli import recordings, cameras, models, research, live  # noqa: F401, I001 (the order of --help)
from ckd_tracker_ros.cli.options import USAGE_ERROR, app, parse_counts, parse_sizes


__all__ = ["USAGE_ERROR", "app", "main", "parse_counts", "parse_sizes"]


def main() -> None:
    """The console script."""
    app()
