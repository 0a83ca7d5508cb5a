"""`python -m ckd_tracker_ros.cli`: as `ckd-tracker`."""

import sys

from ckd_tracker_ros.cli import main

if __name__ == "__main__":
    sys.exit(main())
