"""Real processes over DDS for the tests of the node: the node itself, cameras, and calls to its services."""

from __future__ import annotations

import array
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

# Set before rclpy is imported anywhere in this process, and inherited by the node: no other graph on this machine or
# network is seen.
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 101)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"

import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Log
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool, Trigger

from ckd_tracker_msgs.msg import Box2D, TargetInit, TrackedTargetArray
from ckd_tracker_msgs.srv import ReinitializeTargets, RemoveTargets
from ckd_tracker_ros.network.checkpoint import save
from ckd_tracker_ros.network.config import NetworkConfig
from ckd_tracker_ros.network.student import Student

NODE = "/ckd_tracker"
LIMIT_S = 30.0
STEP_NS = 33_333_333
SERVICES = {
    "reinitialize": ReinitializeTargets,
    "remove_targets": RemoveTargets,
    "reset": Trigger,
    "pause": SetBool,
    "change_state": ChangeState,
    "get_state": GetState,
}


def tiny_checkpoint(path: Path, width: int = 32) -> Path:
    """A small network with random weights: what a target does with it is noise, but the same noise every time."""
    torch.manual_seed(0)
    config = NetworkConfig(
        name="random",
        template_size=64,
        search_size=128,
        width=width,
        depth=2,
        heads=2,
        elimination_blocks=(1,),
        head_channels=16,
    )
    save(path, Student(config), {"source": "random weights of a test"}, torch.float32)
    return path


def raw_image(pixels: np.ndarray, encoding: str, stamp_ns: int, frame_id: str = "camera") -> Image:
    """A sensor_msgs/Image of (H, W) or (H, W, C) pixels."""
    message = Image(height=pixels.shape[0], width=pixels.shape[1], encoding=encoding, step=pixels[0].nbytes)
    message.header.frame_id = frame_id
    message.header.stamp = Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    message.data = array.array("B", pixels.tobytes())
    return message


def scene(index: int, size: tuple[int, int] = (160, 120)) -> tuple[np.ndarray, np.ndarray]:
    """RGB and 8-bit thermal image of a bright block that moves over a fixed texture."""
    width, height = size
    rng = np.random.default_rng(5)
    rgb, thermal = rng.integers(0, 120, (height, width, 3), np.uint8), rng.integers(0, 90, (height, width), np.uint8)
    left, top = 30 + 2 * index % 60, 40 + index % 30
    rgb[top : top + 24, left : left + 20] = (220, 180, 60)
    thermal[top : top + 24, left : left + 20] = 240
    return rgb, thermal


def until(condition: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> Any:
    """The first true value of a condition; fails with what was waited for."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.01)  # between two looks, not instead of one
    raise AssertionError(f"waited {limit_s:g} s for {what}")


class NodeProcess:
    """The tracker node in its own process."""

    def __init__(
        self,
        log: Path,
        *parameters: str,
        arguments: tuple[str, ...] = (),
        program: tuple[str, ...] = ("-m", "ckd_tracker_ros.ros.node"),
    ) -> None:
        words = [word for parameter in parameters for word in ("-p", parameter)]
        self.log = log
        self._file = log.open("wb")
        self._process = subprocess.Popen(
            [sys.executable, *program, "--ros-args", *words, *arguments],
            stdout=self._file,
            stderr=subprocess.STDOUT,
            # a crash, seen once in many runs when a signal meets the loading of a model, shall say where it was
            env={**os.environ, "RCUTILS_LOGGING_BUFFERED_STREAM": "0", "PYTHONFAULTHANDLER": "1"},
        )

    @property
    def output(self) -> str:
        """All that it has written so far."""
        return self.log.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def says(self, text: str, limit_s: float = LIMIT_S) -> str:
        """Waits for the first line with a text in it."""

        def find() -> str:
            assert self.alive or text in self.output, f"the node ended:\n{self.output}"
            return next((line for line in self.output.splitlines() if text in line), "")

        try:
            return until(find, f"{text!r} in the node's log", limit_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; it says\n{self.output}") from None

    def loads(self, library: str) -> None:
        """Waits until a library is mapped into the process: it is in the middle of its imports then."""
        maps = Path(f"/proc/{self._process.pid}/maps")
        until(lambda: library in maps.read_text(), f"{library} in the node's memory")

    def end(self, number: signal.Signals = signal.SIGINT, limit_s: float = LIMIT_S) -> int:
        """Sends a signal and waits; the exit code."""
        if self.alive:
            self._process.send_signal(number)
        try:
            return self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"the node did not end after {number.name}; it says\n{self.output}") from None
        finally:
            self._file.close()


class Robot:
    """Cameras, a subscriber of everything the node says, and a caller of its services, in this process."""

    def __init__(self, reliability: str = "reliable") -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("robot", context=self.context)
        self.targets: list[TrackedTargetArray] = []
        self.diagnostics: list[DiagnosticArray] = []
        self.logs: list[str] = []
        self._clients = {name: self.node.create_client(kind, f"{NODE}/{name}") for name, kind in SERVICES.items()}
        self.node.create_subscription(TrackedTargetArray, f"{NODE}/targets", self.targets.append, 100)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self.diagnostics.append, 100)
        logs = QoSProfile(depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.node.create_subscription(Log, "/rosout", lambda log: self.logs.append(log.msg), logs)
        self.cameras: list[Any] = [self.camera(name, reliability) for name in ("rgb", "thermal")]
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def camera(self, name: str, reliability: str = "reliable", kind: type = Image) -> Any:
        """A publisher of /<name>/image_raw."""
        policy = ReliabilityPolicy.RELIABLE if reliability == "reliable" else ReliabilityPolicy.BEST_EFFORT
        topic = f"/{name}/image_raw" + ("" if kind is Image else "/compressed")
        return self.node.create_publisher(kind, topic, QoSProfile(depth=10, reliability=policy))

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return

    def ask(self, name: str, limit_s: float = LIMIT_S, **fields: Any) -> Any:
        """Calls one of the node's services; the future of its response."""
        client = self._clients[name]
        assert client.wait_for_service(limit_s), f"no service {name}"
        return client.call_async(SERVICES[name].Request(**fields))

    def call(self, name: str, limit_s: float = LIMIT_S, **fields: Any) -> Any:
        """The response of one of the node's services."""
        future = self.ask(name, limit_s, **fields)
        until(future.done, f"the answer of {name}", limit_s)
        return future.result()

    def insist(self, name: str, attempts: int = 6, **fields: Any) -> Any:
        """The response of a service that may be called twice: asked again where none comes.

        A service is two topics that DDS matches one after the other: the answer to a first request may be lost.
        """
        for _ in range(attempts - 1):
            try:
                return self.call(name, LIMIT_S / attempts, **fields)
            except AssertionError:
                continue
        return self.call(name, **fields)

    def state(self) -> str:
        return self.insist("get_state").current_state.label

    def change(self, transition: str) -> bool:
        request = ChangeState.Request()
        request.transition.label = transition
        return self.call("change_state", transition=request.transition).success

    def start(self, *targets: tuple, stamp_ns: int = 0, replace_all: bool = False) -> Any:
        """Calls reinitialize with (id, label, box) for each target."""
        inits = [
            TargetInit(id=id, label=label, box=Box2D(**dict(zip(("x", "y", "width", "height"), map(float, box)))))
            for id, label, box in targets
        ]
        stamp = Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
        return self.call("reinitialize", targets=inits, stamp=stamp, replace_all=replace_all)

    def connected(self) -> None:
        """Waits until the node hears both cameras, is heard and answers."""
        until(lambda: all(camera.get_subscription_count() for camera in self.cameras), "the node's subscriptions")
        until(lambda: self.node.count_publishers(f"{NODE}/targets"), "the node's publisher")
        self.insist("get_state")

    def show(self, stamp_ns: int, rgb: Image | None, thermal: Image | None) -> None:
        """Publishes a pair."""
        for camera, message in zip(self.cameras, (rgb, thermal), strict=True):
            if message is not None:
                camera.publish(message)

    def play(self, index: int, stamp_ns: int, size: tuple[int, int] = (160, 120)) -> None:
        """Publishes a pair of the moving scene."""
        rgb, thermal = scene(index, size)
        self.show(stamp_ns, raw_image(rgb, "rgb8", stamp_ns), raw_image(thermal, "mono8", stamp_ns, "thermal"))

    def result(self, stamp_ns: int, limit_s: float = LIMIT_S) -> TrackedTargetArray:
        """Waits for the message of the pair with that stamp."""
        return until(
            lambda: next((m for m in reversed(self.targets) if to_ns(m.header.stamp) == stamp_ns), None),
            f"targets of stamp {stamp_ns}",
            limit_s,
        )

    def diagnosed(self, text: str, limit_s: float = LIMIT_S) -> DiagnosticArray:
        """Waits for diagnostics with that text in the message or a value."""

        def find() -> DiagnosticArray | None:
            for array_ in reversed(self.diagnostics):
                status = array_.status[0]
                if text in status.message or any(text in f"{value.key}: {value.value}" for value in status.values):
                    return array_
            return None

        return until(find, f"{text!r} in the diagnostics, the last of which are {self.diagnostics[-1:]}", limit_s)

    def close(self) -> None:
        self.context.try_shutdown()
        self._thread.join(LIMIT_S)
        self._executor.shutdown()
        self.node.destroy_node()


def to_ns(stamp: Time) -> int:
    return stamp.sec * 10**9 + stamp.nanosec


@contextmanager
def running(log: Path, *parameters: str, **robot: Any) -> Iterator[tuple[NodeProcess, Robot]]:
    """A node and a robot around it. A node that was not asked for anything wrong ends without a traceback."""
    process = NodeProcess(log, *parameters)
    around = Robot(**robot)
    try:
        yield process, around
    finally:
        code = process.end()
        around.close()
    assert code == 0, f"exit code {code}; the node says\n{process.output}"
    assert "Traceback" not in process.output, process.output
