"""The tracker node as a process, and a client of its topics and services in this one."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from processes import LIMIT_S, Peer, wait

from ckd_tracker_ros.evaluation.speed import random_student
from ckd_tracker_ros.network import checkpoint
from ckd_tracker_ros.network.config import NetworkConfig
from ckd_tracker_ros.ros.demo import Child, set_environment

NODE = "/ckd_tracker"


class Client:
    """Keeps every message of the node with the moment at which it came, and its diagnostics; calls its services."""

    def __init__(self) -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.executors import SingleThreadedExecutor
        from std_srvs.srv import Trigger

        from ckd_tracker_msgs.msg import TrackedTargetArray
        from ckd_tracker_msgs.srv import ReinitializeTargets

        rclpy.init()
        self._node = rclpy.create_node("benchmark")
        self.messages: list[tuple[float, TrackedTargetArray]] = []
        self._node.create_subscription(TrackedTargetArray, f"{NODE}/targets", self._arrived, 100)
        self.diagnostics: list[dict[str, str]] = []
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._diagnosed, 100)
        self._reset = self._node.create_client(Trigger, f"{NODE}/reset")
        self._reinitialize = self._node.create_client(ReinitializeTargets, f"{NODE}/reinitialize")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        from rclpy.executors import ExternalShutdownException

        try:
            self._executor.spin()
        except ExternalShutdownException:
            return

    def _arrived(self, message: Any) -> None:
        self.messages.append((time.perf_counter(), message))

    def _diagnosed(self, message: Any) -> None:
        self.diagnostics += [{item.key: item.value for item in status.values} for status in message.status]

    def overheads(self, count: int) -> list[float]:
        """Waits for the next diagnostics that cover nothing else: medians of what the node adds to a step, seconds."""
        begin = len(self.diagnostics) + 1  # the next one reaches back to before the call

        def enough() -> list[float]:
            key = "overhead median [s]"
            found = [float(values[key]) for values in self.diagnostics[begin:] if key in values]
            return found if len(found) >= count else []

        return wait(enough, f"{count} diagnostics")[:count]

    def reset(self) -> tuple[float, float, bool]:
        """Calls ~/reset: when it was called and answered, by `time.perf_counter`, and whether it was carried out."""
        from std_srvs.srv import Trigger

        return self._call(self._reset, Trigger.Request())

    def start(self, size: tuple[int, int], targets: int, side: float = 48.0) -> None:
        """Starts targets in the middle of the newest image.

        Raises:
            RuntimeError: the node refused.
        """
        from ckd_tracker_msgs.msg import Box2D, TargetInit
        from ckd_tracker_msgs.srv import ReinitializeTargets

        x, y = (size[0] - side) / 2, (size[1] - side) / 2
        inits = [TargetInit(box=Box2D(x=x + 2 * i, y=y, width=side, height=side)) for i in range(targets)]
        if not self._call(self._reinitialize, ReinitializeTargets.Request(targets=inits, replace_all=True))[2]:
            raise RuntimeError(f"the node refused {targets} targets in an image of {size[0]}x{size[1]}")

    def _call(self, client: Any, request: Any) -> tuple[float, float, bool]:
        answered, moment = threading.Event(), [0.0]

        def done(_: object) -> None:
            moment[0] = time.perf_counter()
            answered.set()

        began = time.perf_counter()
        future = client.call_async(request)
        future.add_done_callback(done)
        if not answered.wait(LIMIT_S):
            raise RuntimeError(f"{client.srv_name} did not answer within {LIMIT_S:g} s")
        return began, moment[0], future.result().success

    def active(self, node: Child) -> None:
        """Waits until the node is active."""
        wait(self._reset.service_is_ready, "the node's services")

        def answers() -> bool:
            node.check(may_end=False)
            return self.reset()[2]

        wait(answers, "the node to become active")

    def collect(self, count: int, targets: int) -> list[Any]:
        """Waits for the next messages with that number of targets."""
        begin = len(self.messages)

        def enough() -> list[Any]:
            found = [message for _, message in self.messages[begin:] if len(message.targets) == targets]
            return found if len(found) >= count else []

        return wait(enough, f"{count} messages with {targets} targets")[:count]

    def close(self) -> None:
        """Leaves."""
        import rclpy

        rclpy.try_shutdown()
        self._thread.join(LIMIT_S)


@contextmanager
def running(config: NetworkConfig, **parameters: Any) -> Iterator[tuple[Client, Peer, Path]]:
    """A node with random weights, active and on the CPU, a camera to command, and a client; the weights' path too."""
    set_environment()  # before DDS reads it
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = folder / f"{config.name}.safetensors"
        checkpoint.save(weights, random_student(config), {"source": "random weights of a benchmark"}, torch.float16)
        settings = {"model": str(weights), "device": "cpu", **parameters}
        with (
            Child("tracker node", "node", settings, folder / "node.log") as node,
            Peer("camera", folder / "camera.log", dict(os.environ)) as camera,
        ):
            client = Client()
            try:
                client.active(node)
                yield client, camera, weights
            finally:
                client.close()
