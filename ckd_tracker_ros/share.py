"""Where the files lie that come with the package: models and configuration."""

from __future__ import annotations

import sys
from pathlib import Path

PACKAGE = "ckd_tracker_ros"


def share_folders() -> list[Path]:
    """Folders to look in, in this order: the share folder of a colcon install, `sys.prefix/share`, the source tree."""
    folders = []
    try:
        from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
    except ImportError:
        pass  # no ROS: the other places remain
    else:
        try:
            folders.append(Path(get_package_share_directory(PACKAGE)))
        except (PackageNotFoundError, LookupError, OSError):
            pass  # not installed by colcon
    return [*folders, Path(sys.prefix) / "share" / PACKAGE, Path(__file__).resolve().parents[1]]
