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
from processes import LIMIT_S, Peer, quality, wait

from ckd_tracker_ros.evaluation.speed import random_student
from ckd_tracker_ros.frame import MODALITIES
from ckd_tracker_ros.network import checkpoint
from ckd_tracker_ros.network.config import NetworkConfig
from ckd_tracker_ros.ros.demo import Child, set_environment

NODE = "/ckd_tracker"


class NoAnswer(RuntimeError):
    """A service did not answer in time; the message says which."""


class Client:
    """Keeps every message of the node with the moment at which it came, and its diagnostics; calls its services."""

    def __init__(self) -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from lifecycle_msgs.srv import ChangeState, GetState
        from rcl_interfaces.srv import SetParameters
        from rclpy.executors import SingleThreadedExecutor
        from std_srvs.srv import SetBool, Trigger

        from ckd_tracker_msgs.msg import TrackedTargetArray
        from ckd_tracker_msgs.srv import ReinitializeTargets, RemoveTargets

        rclpy.init()
        self._node = rclpy.create_node("benchmark")
        self.messages: list[tuple[float, TrackedTargetArray]] = []
        self._node.create_subscription(TrackedTargetArray, f"{NODE}/targets", self._arrived, 100)
        self.diagnostics: list[dict[str, str]] = []
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._diagnosed, 100)
        self._kinds = {
            "reinitialize": ReinitializeTargets, "remove_targets": RemoveTargets, "reset": Trigger, "pause": SetBool,
            "get_state": GetState, "change_state": ChangeState, "set_parameters": SetParameters,
        }  # fmt: skip
        self._clients = {name: self._node.create_client(kind, f"{NODE}/{name}") for name, kind in self._kinds.items()}
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
        began, answered, response = self._call("reset", LIMIT_S)
        return began, answered, response.success

    def call(self, name: str, limit_s: float = LIMIT_S, **fields: Any) -> tuple[Any, float]:
        """The answer of one of the node's services to a request with these fields, and the seconds that it took.

        Raises:
            NoAnswer: none within the limit.
        """
        began, answered, response = self._call(name, limit_s, **fields)
        return response, answered - began

    def cameras(self, depth: int) -> list[Any]:
        """Publishers of raw images, by modality, which keep that many for a subscriber that stalls."""
        from sensor_msgs.msg import Image

        qos = quality("reliable", depth)
        return [self._node.create_publisher(Image, f"{name}/image_raw", qos) for name in MODALITIES]

    def start(self, size: tuple[int, int], targets: int, side: float = 48.0) -> None:
        """Starts targets in the middle of the newest image.

        Raises:
            RuntimeError: the node refused.
        """
        from ckd_tracker_msgs.msg import Box2D, TargetInit

        x, y = (size[0] - side) / 2, (size[1] - side) / 2
        inits = [TargetInit(box=Box2D(x=x + 2 * i, y=y, width=side, height=side)) for i in range(targets)]
        if not self.call("reinitialize", targets=inits, replace_all=True)[0].success:
            raise RuntimeError(f"the node refused {targets} targets in an image of {size[0]}x{size[1]}")

    def _call(self, name: str, limit_s: float, **fields: Any) -> tuple[float, float, Any]:
        answered, moment = threading.Event(), [0.0]

        def done(_: object) -> None:
            moment[0] = time.perf_counter()
            answered.set()

        began = time.perf_counter()
        future = self._clients[name].call_async(self._kinds[name].Request(**fields))
        future.add_done_callback(done)
        if not answered.wait(limit_s):
            raise NoAnswer(f"~/{name} did not answer within {limit_s:g} s")
        return began, moment[0], future.result()

    def active(self, node: Child) -> None:
        """Waits until the node is active."""
        wait(lambda: all(c.service_is_ready() for c in self._clients.values()), "the node's services")

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
        self._node.destroy_node()


@contextmanager
def started(log: Path, **parameters: Any) -> Iterator[tuple[Child, Client]]:
    """A node with these parameters, active, and a client."""
    set_environment()  # before DDS reads it
    with Child("tracker node", "node", parameters, log) as node:
        client = Client()
        try:
            client.active(node)
            yield node, client
        finally:
            client.close()


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
            started(folder / "node.log", **settings) as (_, client),
            Peer("camera", folder / "camera.log", dict(os.environ)) as camera,
        ):
            yield client, camera, weights
