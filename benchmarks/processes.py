"""Processes at the other end of DDS, told what to do by lines of JSON: `python processes.py camera` or `listener`.

The environment decides how Fast DDS sends, and is read once in a process. So every set-up has processes of its own,
which are started once, stay, and take one case after the other; cases of different set-ups can be measured in turn.
"""

from __future__ import annotations

import array
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMIT_S = 60.0
SETTLE_S = 0.5
"""Between the match of publisher and subscriber and the first image: one side knows of a match before the other."""
QUIET_S = 0.3
"""Without an image, after the last was sent: nothing more is on its way."""
SLOP_NS = 10_000_000
DEPTH = 5
"""Of the subscriptions, as the node's."""
BUFFERS = 4
"""Different images that are sent in turn."""


class PeerError(RuntimeError):
    """A process ended or did not answer; the message says which, and how its log ends."""


class Peer:
    """One of these processes, seen from the benchmark. `with` ends it."""

    def __init__(self, role: str, log: Path, environment: dict[str, str]) -> None:
        self._role, self._log = role, log
        self._file = log.open("w")
        self._process = subprocess.Popen(
            [sys.executable, __file__, role],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._file, text=True, bufsize=1,
            env=environment,
        )  # fmt: skip
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def tell(self, **command: Any) -> None:
        """Sends a command; `answer` takes what comes of it."""
        self._process.stdin.write(json.dumps(command) + "\n")

    def answer(self, limit_s: float = LIMIT_S) -> dict[str, Any]:
        """The next answer.

        Raises:
            PeerError: none came.
        """
        try:
            line = self._answers.get(timeout=limit_s)
        except queue.Empty:
            raise PeerError(f"no answer of the {self._role} within {limit_s:g} s") from None
        if not line:
            tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-10:])
            raise PeerError(f"the {self._role} ended with code {self._process.wait()}:\n{tail}")
        return json.loads(line)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._process.stdin.close()  # the process ends when its input does
            self._process.wait(LIMIT_S)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()
            self._process.wait()
        self._file.close()


class Commands:
    """The lines that arrive and those that go back, seen from the process."""

    def __init__(self) -> None:
        # Libraries below rclpy write to the standard output what belongs into the log.
        self._answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        self._queue: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            self._queue.put(json.loads(line))
        self._queue.put(None)

    def next(self) -> dict[str, Any] | None:
        """Waits for a command; None at the end, however often it is asked."""
        command = self._queue.get()
        if command is None:
            self._queue.put(None)
        return command

    @property
    def waiting(self) -> bool:
        """Whether there is one."""
        return not self._queue.empty()

    def answer(self, **values: Any) -> None:
        """Sends what a command has come to."""
        self._answers.write(json.dumps(values) + "\n")
        self._answers.flush()


def quality(reliability: str, depth: int) -> Any:
    """A QoS profile; `reliable` or `best_effort`."""
    from rclpy.qos import QoSProfile, ReliabilityPolicy

    return QoSProfile(depth=depth, reliability=ReliabilityPolicy[reliability.upper()])


def camera(node: Any, commands: Commands) -> None:
    """Publishes pairs: `{"size": [w, h], "rate": 30, "pairs": 60, "reliability": "reliable"}`; 0 pairs: until the next
    command, which says stop. Answers with the number of pairs sent, and of those a period late."""
    from sensor_msgs.msg import Image

    from ckd_tracker_ros.frame import MODALITIES

    while command := commands.next():
        messages = [image_messages(command["size"], seed) for seed in range(BUFFERS)]
        qos = quality(command["reliability"], 10)
        publishers = [node.create_publisher(Image, f"{name}/image_raw", qos) for name in MODALITIES]
        for publisher in publishers:
            wait(publisher.get_subscription_count, f"a subscriber of {publisher.topic_name}")
        time.sleep(SETTLE_S)
        period, endless = 1 / command["rate"], not command["pairs"]
        began, sent, late = time.monotonic(), 0, 0
        while sent < command["pairs"] or (endless and not commands.waiting):
            left = began + sent * period - time.monotonic()
            late += left < -period
            time.sleep(max(0.0, left))
            pair = messages[sent % BUFFERS]
            # The moment of sending, not the planned one: what a busy machine delays before it is not the transport's.
            stamp = node.get_clock().now().to_msg()
            for publisher, message in zip(publishers, pair, strict=True):
                message.header.stamp = stamp
                publisher.publish(message)
            sent += 1
        if endless:
            commands.next()
        time.sleep(QUIET_S)  # a publisher that goes takes with it what it has not yet delivered
        for publisher in publishers:
            node.destroy_publisher(publisher)
        commands.answer(sent=sent, late=late)


def image_messages(size: list[int], seed: int) -> list[Any]:
    """sensor_msgs/Image of both modalities."""
    from sensor_msgs.msg import Image

    from ckd_tracker_ros.evaluation.timing import noise_images

    messages = []
    for pixels, encoding in zip(noise_images(tuple(size), seed), ("rgb8", "mono16"), strict=True):
        message = Image(height=pixels.shape[0], width=pixels.shape[1], encoding=encoding, step=pixels[0].nbytes)
        message.data = array.array("B", pixels.tobytes())
        messages.append(message)
    return messages


def listener(node: Any, commands: Commands) -> None:
    """Receives and pairs images: `{"reliability": "reliable"}`, answered when it has subscribed; then any command,
    answered with the images and pairs received, and the time [ms] from stamp to callback of each pair's last image."""
    import rclpy
    from sensor_msgs.msg import Image

    from ckd_tracker_ros.frame import MODALITIES
    from ckd_tracker_ros.images import to_ns
    from ckd_tracker_ros.pairing import NearestPairing

    while command := commands.next():
        pairing, latencies, last, images = NearestPairing(SLOP_NS, 10), [], [time.monotonic()], [0, 0]

        def arrived(stream: int, message: Image) -> None:
            pairs = pairing.push(stream, to_ns(message.header.stamp), time.monotonic_ns(), message)  # noqa: B023
            last[0] = time.monotonic()  # noqa: B023
            images[stream] += 1  # noqa: B023
            now_ns = node.get_clock().now().nanoseconds
            latencies.extend((now_ns - pair.rgb_stamp_ns) / 1e6 for pair in pairs)  # noqa: B023

        qos = quality(command["reliability"], DEPTH)
        subscriptions = [
            node.create_subscription(Image, f"{name}/image_raw", lambda message, i=i: arrived(i, message), qos)
            for i, name in enumerate(MODALITIES)
        ]
        commands.answer(ready=True)
        while not commands.waiting or time.monotonic() - last[0] < QUIET_S:
            rclpy.spin_once(node, timeout_sec=0.1)
        commands.next()
        for subscription in subscriptions:
            node.destroy_subscription(subscription)
        commands.answer(pairs=len(latencies), images=images, latencies_ms=latencies)


def wait(condition: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> Any:
    """The first true value of a condition.

    Raises:
        PeerError: not within the limit.
    """
    end = time.monotonic() + limit_s
    while not (value := condition()):
        if time.monotonic() > end:
            raise PeerError(f"waited {limit_s:g} s for {what}")
        time.sleep(0.01)
    return value


def resources(pid: int) -> tuple[int, int, float]:
    """Threads, open files and resident MB of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    values = dict(line.split(":", 1) for line in status.splitlines())
    return int(values["Threads"]), len(list(Path(f"/proc/{pid}/fd").iterdir())), int(values["VmRSS"].split()[0]) / 1e3


def main() -> None:
    """One role, until the input ends."""
    import rclpy

    role = {"camera": camera, "listener": listener}[sys.argv[1]]
    commands = Commands()
    rclpy.init()
    node = rclpy.create_node(sys.argv[1])
    try:
        role(node, commands)
    except KeyboardInterrupt:
        return
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
