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
    # Until there is something to end in order, Ctrl-C ends the long imports below without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    import rclpy
    from rclpy.executors import MultiThreadedExecutor
    from rclpy.impl.implementation_singleton import rclpy_implementation
    from rclpy.signals import SignalHandlerOptions

    try:
        # rclpy's own handlers would take the context away under whatever is running.
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except rclpy_implementation.RCLError as error:  # arguments or a parameter file that cannot be read
        sys.stderr.write(f"{error}\n")
        return 2
    from ckd_tracker_ros.ros.tracker_node import TrackerNode

    stopping = threading.Event()
    for number in SIGNALS:
        signal.signal(number, lambda *_: stopping.set())
    try:
        node = TrackerNode()
        executor = MultiThreadedExecutor(THREADS)
        executor.add_node(node)
        spinner = threading.Thread(target=_spin, args=(executor, node, stopping), name="executor")
        spinner.start()
        while spinner.is_alive() and not stopping.wait(POLL_S):
            pass
        failed = not stopping.is_set()
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
    """Runs callbacks until told to stop; what rclpy refuses, as a transition that is not possible now, is logged."""
    from rclpy.impl.implementation_singleton import rclpy_implementation

    while not stopping.is_set():
        try:
            executor.spin_once(timeout_sec=POLL_S)
        except rclpy_implementation.RCLError as error:
            node.get_logger().error(str(error))


if __name__ == "__main__":
    sys.exit(main())
