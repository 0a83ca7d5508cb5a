"""Plays a recording or a generated scene as two camera topics: `python -m ckd_tracker_ros.ros.player`.

Publishes `rgb/image_raw` and `thermal/image_raw`. The stamp of pair `n` is that of pair 0 plus `n` periods, whatever
the moment at which it really leaves. `~/state` (diagnostic_msgs/DiagnosticStatus, latched) tells the stamp of pair 0,
the period and the first frame, so that a subscriber that opens the same source knows which frame a stamp means: frame
`(first_frame + n) % length`.
"""

from __future__ import annotations

import array
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.duration import Duration
from rclpy.exceptions import InvalidParameterTypeException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMessage
from std_srvs.srv import Trigger

from ckd_tracker_msgs.msg import TrackedTargetArray
from ckd_tracker_ros.frame import MODALITIES, Image
from ckd_tracker_ros.sequences import SceneSequence, Sequence, SequenceError, open_sequence
from ckd_tracker_ros.synthetic import Scene, SceneConfig

RATE_HZ = 30.0
AHEAD = 45
"""Pairs that are prepared before their time."""
DEPTH = 30
"""Pairs that are kept for a subscriber that stalls: a second of them, well inside the profile's shared memory."""
SETTLE_S = 0.5
"""Between the subscribers' appearance and the first pair: DDS tells one side of a match before the other."""
RESULT_LIMIT_S = 60.0
"""How long a result is waited for."""
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class PlayerError(RuntimeError):
    """It cannot be played; the message says why."""


def demo_scene(frames: int, rate: float, seed: int) -> SceneConfig:
    """The scene of the demo: a walker with a look-alike, briefly half hidden, and in the dark for a while.

    Args:
        frames: its length; RGB is dark from 45 % to 75 % of it.
        rate: pairs per second.
    """
    return SceneConfig(
        width=640,
        height=480,
        frames=frames,
        fps=rate,
        targets=1,
        look_alikes=1,
        distractors=2,
        kind="person",
        size=(80.0, 120.0),
        occlusion=0.5,
        rgb_fault="dark",
        fault_level=0.95,
        fault_frames=(round(0.45 * frames), round(0.75 * frames)),
        thermal_bits=16,
    )


def open_source(source: str, track: str, frames: int, rate: float, seed: int) -> Sequence:
    """What is played; equal arguments give equal frames and boxes in every process.

    Args:
        source: a folder or a video that `sequences.open_sequence` reads; "" for the scene of the demo.
        track: name of the track whose boxes are the truth; "" for the first one.
        frames: length of the scene; a recording has its own.
        rate: pairs per second of the scene.
        seed: of the scene.

    Raises:
        SequenceError: the source cannot be read.
        ValueError: a scene that cannot be made.
    """
    if source:
        return open_sequence(source, track or None)
    return SceneSequence(Scene(demo_scene(frames, rate, seed), seed))


def image_message(image: Image) -> ImageMessage:
    """sensor_msgs/Image of an image, its header unset.

    Raises:
        PlayerError: ROS has no encoding for it.
    """
    pixels = np.ascontiguousarray(image.pixels)
    if pixels.dtype.kind == "f" and image.order == "mono":
        encoding = f"{8 * pixels.itemsize}FC1"
    elif pixels.dtype.kind == "u" and (pixels.itemsize == 1 or image.order == "mono"):
        encoding = f"{image.order}{8 * pixels.itemsize}"
    else:
        raise PlayerError(f"no encoding for {image.order} images of {pixels.dtype}; allowed: 8-bit, or mono")
    message = ImageMessage(height=image.height, width=image.width, encoding=encoding, step=pixels[0].nbytes)
    message.is_bigendian = int(pixels.dtype.newbyteorder(">") == pixels.dtype and pixels.itemsize > 1)
    # The setter takes an array of bytes as it is; of anything else it looks at every element.
    message.data = array.array("B", pixels.tobytes())
    return message


def compressed_message(image: Image) -> CompressedImage:
    """sensor_msgs/CompressedImage of an image: JPEG for 8 bits, PNG for 16, its header unset.

    Raises:
        PlayerError: it is neither.
    """
    pixels = np.ascontiguousarray(image.pixels)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise PlayerError(f"images of {pixels.dtype} cannot be compressed; allowed: uint8, uint16")
    suffix = "jpeg" if pixels.dtype == np.uint8 else "png"
    if image.order in ("rgb", "rgba"):
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR if image.order == "rgb" else cv2.COLOR_RGBA2BGR)
    encoded = cv2.imencode(f".{suffix}", pixels)[1]
    bits = 8 * pixels.itemsize
    kind = f"mono{bits}" if image.order == "mono" else f"{image.order}{bits}"
    target = f"mono{bits}" if image.order == "mono" else f"bgr{bits}"
    message = CompressedImage(format=f"{kind}; {suffix} compressed {target}")
    message.data = array.array("B", encoded.tobytes())
    return message


class Player(Node):
    """Two cameras. `play` runs in the main thread, what ROS calls back in another.

    Raises:
        PlayerError: a parameter cannot be used.
        SequenceError: the source cannot be read.
    """

    def __init__(self, stopping: threading.Event) -> None:
        """Playing ends soon after `stopping` is set."""
        super().__init__("player")
        self._stopping = stopping
        source = self._setting("source", "", "folder or video to play; empty: a generated scene")
        track = self._setting("track", "", "track of the source; empty: its first")
        rate = self._setting("rate", 0.0, "pairs per second [Hz]; 0: as recorded")
        frames = self._setting("frames", 0, "pairs to play; 0: all of the source")
        self._first = self._setting("first_frame", 0, "frame of the source to begin with")
        seed = self._setting("seed", 0, "of the generated scene")
        self._loop = self._setting("loop", False, "begin again at the end; stamps go on rising")
        self._skip = self._setting("skip", -1, "pairs in a row that the tracker may skip, it is waited for; -1: any")
        compressed = self._setting("compressed", False, "publish CompressedImage on .../image_raw/compressed")
        reliability = self._setting("reliability", "reliable", "of the image publishers: reliable or best_effort")
        self._released = self._setting("autostart", True, "begin when both topics have subscribers; else at ~/start")
        if rate < 0 or frames < 0 or seed < 0:
            raise PlayerError(f"rate {rate}, frames {frames}, seed {seed}; allowed: 0 or more")
        if self._skip < -1:
            raise PlayerError(f"skip {self._skip}; allowed: 0 or more, or -1 for any number")
        policies = {"reliable": ReliabilityPolicy.RELIABLE, "best_effort": ReliabilityPolicy.BEST_EFFORT}
        if reliability not in policies:
            raise PlayerError(f"reliability is {reliability!r}; allowed: {', '.join(policies)}")

        self.sequence = open_source(source, track, frames or round(10 * RATE_HZ), rate or RATE_HZ, seed)
        self._rate = rate or self.sequence.rate
        if not 0 <= self._first < len(self.sequence):
            raise PlayerError(f"first_frame {self._first}; allowed: 0 to {len(self.sequence) - 1}")
        rest = len(self.sequence) - self._first
        self._frames = frames if frames and self._loop else min(frames or rest, rest)
        self._endless = self._loop and not frames
        self._to_message: Callable[[Image], Any] = compressed_message if compressed else image_message
        kind, suffix = (CompressedImage, "/compressed") if compressed else (ImageMessage, "")
        quality = QoSProfile(depth=DEPTH, reliability=policies[reliability])
        self._cameras = [self.create_publisher(kind, f"{name}/image_raw{suffix}", quality) for name in MODALITIES]
        self._state = self.create_publisher(DiagnosticStatus, "~/state", LATCHED)
        self.create_service(Trigger, "~/start", self._start)
        self._result = threading.Condition()
        self._result_stamp_ns = -1
        if self._skip >= 0:
            self.create_subscription(TrackedTargetArray, "ckd_tracker/targets", self._arrived, 100)

    def _setting(self, name: str, default: Any, meaning: str) -> Any:
        descriptor = ParameterDescriptor(description=meaning, read_only=True)
        try:
            return self.declare_parameter(name, default, descriptor).value
        except InvalidParameterTypeException as error:
            raise PlayerError(f"parameter {name}: {error}") from error

    def _start(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._released = True
        response.success = True
        return response

    def _arrived(self, message: TrackedTargetArray) -> None:
        with self._result:
            self._result_stamp_ns = Time.from_msg(message.header.stamp).nanoseconds
            self._result.notify()

    def play(self) -> None:
        """Waits for subscribers, then sends everything; returns at the end.

        Raises:
            PlayerError: a result that is waited for did not come.
            SequenceError: a frame cannot be read.
        """
        # One thread, so that frames are read in order; it works while this one waits.
        with ThreadPoolExecutor(1, "prepare") as pool:
            try:
                self._play(pool)
            finally:
                pool.shutdown(cancel_futures=True)

    def _play(self, pool: ThreadPoolExecutor) -> None:
        prepared = deque(self._prepare(pool, number) for number in range(AHEAD))
        self.get_logger().info(f"{self.sequence.name}: waiting for subscribers")
        while not (self._released and all(camera.get_subscription_count() for camera in self._cameras)):
            if self._stopping.wait(0.05):
                return
        self._stopping.wait(SETTLE_S)
        period_ns = round(1e9 / self._rate)
        first_ns, began_ns = self.get_clock().now().nanoseconds, time.monotonic_ns()
        sent = late = 0
        facts = {"first_stamp_ns": first_ns, "period_ns": period_ns, "first_frame": self._first}
        self._tell("playing", **facts)
        while (self._endless or sent < self._frames) and not self._stopping.is_set():
            messages = prepared.popleft().result()
            behind_ns = time.monotonic_ns() - began_ns - sent * period_ns
            late += behind_ns > period_ns
            if self._stopping.wait(max(0, -behind_ns) / 1e9):
                break
            stamp_ns = first_ns + sent * period_ns
            for camera, message in zip(self._cameras, messages, strict=True):
                if message is not None:
                    message.header.stamp = Time(nanoseconds=stamp_ns).to_msg()
                    camera.publish(message)
            sent += 1
            prepared.append(self._prepare(pool, sent + AHEAD - 1))
            if 0 <= self._skip < sent:
                self._wait_for_result(stamp_ns - self._skip * period_ns)
        played_ns = time.monotonic_ns() - began_ns
        for camera in self._cameras:
            camera.wait_for_all_acked(Duration(seconds=5))
        self._tell("finished", **facts, sent=sent, late=late, played_ns=played_ns)
        self._state.wait_for_all_acked(Duration(seconds=5))
        self.get_logger().info(f"{sent} pairs sent, {late} of them more than a period late")

    def _prepare(self, pool: ThreadPoolExecutor, number: int) -> Future[list[Any]]:
        return pool.submit(self._messages, number)

    def _messages(self, number: int) -> list[Any]:
        """The messages of one pair, None for an image that is absent; nothing behind the end."""
        if not self._endless and number >= self._frames:
            return []
        messages = []
        for name, image in zip(
            MODALITIES, self.sequence.frame((self._first + number) % len(self.sequence)).images, strict=True
        ):
            message = None if image is None else self._to_message(image)
            if message is not None:
                message.header.frame_id = f"{name}_camera"
            messages.append(message)
        return messages

    def _wait_for_result(self, stamp_ns: int) -> None:
        """Returns when the tracker has a result for the pair of this stamp or a later one."""
        end = time.monotonic() + RESULT_LIMIT_S
        with self._result:
            while self._result_stamp_ns < stamp_ns and not self._stopping.is_set():
                if time.monotonic() > end:
                    raise PlayerError(f"no result for the pair of stamp {stamp_ns} within {RESULT_LIMIT_S:g} s")
                self._result.wait(0.1)  # short, so that a signal is seen

    def _tell(self, message: str, **values: int) -> None:
        pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        self._state.publish(DiagnosticStatus(name="player", message=message, values=pairs))


def main(args: list[str] | None = None) -> int:
    """Plays once; the process's exit code."""
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        player = Player(stopping)
        with spinning(player):
            player.play()
    except (PlayerError, SequenceError, ValueError, OSError) as error:
        rclpy.logging.get_logger("player").error(str(error))
        return 2
    finally:
        rclpy.try_shutdown()
    return 0


@contextmanager
def spinning(node: Node) -> Iterator[None]:
    """Runs a node's callbacks in a thread; the node is destroyed at the end."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    done = threading.Event()

    def spin() -> None:
        while not done.is_set():
            executor.spin_once(timeout_sec=0.1)

    thread = threading.Thread(target=spin, name="executor")
    thread.start()
    try:
        yield
    finally:
        done.set()
        executor.wake()
        thread.join()
        executor.shutdown()
        node.destroy_node()


if __name__ == "__main__":
    sys.exit(main())
