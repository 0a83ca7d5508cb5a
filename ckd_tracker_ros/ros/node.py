"""The tracker node's process: `python -m ckd_tracker_ros.ros.node`, or `ros2 run ckd_tracker_ros tracker`."""

from __future__ import annotations

import signal
import sys

THREADS = 4


def main(args: list[str] | None = None) -> int:
    """Runs the node until SIGINT or SIGTERM; the process's exit code."""
    # Until rclpy has put in its own handler, Ctrl-C ends the long imports below without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    import rclpy
    from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor

    from ckd_tracker_ros.ros.tracker_node import TrackerNode

    rclpy.init(args=args)
    node = None
    try:
        node = TrackerNode()
        executor = MultiThreadedExecutor(THREADS)
        executor.add_node(node)
        executor.spin()
    except (ExternalShutdownException, RuntimeError):
        if rclpy.ok():  # else the signal came while something was being built, and it had to fail
            raise
    finally:
        if node is not None:
            node.close()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
