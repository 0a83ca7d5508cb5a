"""The tracker node's process: `python -m ckd_tracker_ros.ros.node`, or `ros2 run ckd_tracker_ros tracker_node`."""

from __future__ import annotations

import signal
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rclpy.executors import Executor
    from rclpy.node import Node

THREADS = 4
SIGNALS = (signal.SIGINT, signal.SIGTERM)
POLL_S = 0.2


def main(args: list[str] | None = None) -> int:
    """Runs the node until SIGINT or SIGTERM; the process's exit code."""
    # Until the signals are waited for below, Ctrl-C ends the long imports without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    import rclpy
    from rclpy.executors import MultiThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    from ckd_tracker_ros.ros.tracker_node import TrackerNode

    # rclpy's handlers would take the context away under whatever is running. Here a signal is an event like others:
    # blocked in every thread, taken by this one, which then lets things end in order.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = TrackerNode()
        executor = MultiThreadedExecutor(THREADS)
        executor.add_node(node)
        stopping = threading.Event()
        spinner = threading.Thread(target=_spin, args=(executor, node, stopping), name="executor")
        spinner.start()
        while spinner.is_alive() and signal.sigtimedwait(SIGNALS, POLL_S) is None:
            pass
        failed = not spinner.is_alive()
        stopping.set()
        executor.wake()
        node.close()
        spinner.join()
        executor._executor.shutdown()  # callbacks that still run; rclpy's own shutdown does not wait before Kilted
        executor.shutdown()
        node.destroy_node()
    finally:
        rclpy.try_shutdown()
    return int(failed)


def _spin(executor: Executor, node: Node, stopping: threading.Event) -> None:
    """Runs callbacks until told to stop. What rclpy itself refuses, such as a transition that is not possible now, is
    logged and goes on."""
    from rclpy.impl.implementation_singleton import rclpy_implementation

    while not stopping.is_set():
        try:
            executor.spin_once(timeout_sec=POLL_S)
        except rclpy_implementation.RCLError as error:
            node.get_logger().error(str(error))


if __name__ == "__main__":
    sys.exit(main())
