"""Hostile messages and requests against the real node over DDS: is it alive, does it answer, does it keep its targets?

`hostile.py` says what is sent. Between the hostile messages healthy cameras go on; each look waits for the node's
message about a healthy pair and compares the targets in it with those that were started before.
"""

from __future__ import annotations

import array
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import hostile
import numpy as np
import torch
import typer
from common import SMALL, JsonOption
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from processes import resources, wait

from ckd_tracker_ros.evaluation.speed import random_student
from ckd_tracker_ros.evaluation.timing import Report
from ckd_tracker_ros.frame import MODALITIES
from ckd_tracker_ros.network import checkpoint
from ckd_tracker_ros.parameters import Parameters
from ckd_tracker_ros.ros.demo import Child, set_environment

NODE = "/ckd_tracker"
KEPT = ("kept 1", "kept 2")
"""Ids of the healthy user's targets."""
LIMIT_S = 10.0
"""Within which every service has to answer; that of `reinitialize` in the node."""
BACK_S = 20.0
"""Within which a healthy pair has to come through again."""
LOOK_EVERY = 4
"""Hostile messages between two looks; fewer than a subscription's queue holds, so that none is lost unread."""
OPEN = 8
"""Requests that are open at a time, of a client."""
FLOOD_CLIENTS = 8
ANSWERS = 1000
"""Depth of a client's queue of answers: those to all other clients pass through it too, and ROS's own 10 loses some."""


class Attacker:
    """The healthy cameras and user, and a hostile participant beside them."""

    def __init__(self, transport: str, name: str = "attacker") -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from lifecycle_msgs.srv import GetState
        from rcl_interfaces.srv import SetParameters
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.qos import QoSProfile
        from sensor_msgs.msg import CompressedImage, Image
        from std_srvs.srv import SetBool, Trigger

        from ckd_tracker_msgs.msg import TrackedTargetArray
        from ckd_tracker_msgs.srv import ReinitializeTargets, RemoveTargets

        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self._node = rclpy.create_node(name, context=self._context)
        self._compressed = transport == "compressed"
        suffix, kind = ("/compressed", CompressedImage) if self._compressed else ("", Image)
        self._cameras = [self._node.create_publisher(kind, f"{name}/image_raw{suffix}", 10) for name in MODALITIES]
        self.latest: deque[Any] = deque(maxlen=100)
        self._node.create_subscription(TrackedTargetArray, f"{NODE}/targets", self._arrived, 100)
        kinds = {
            "reinitialize": ReinitializeTargets, "remove_targets": RemoveTargets, "reset": Trigger, "pause": SetBool,
            "get_state": GetState, "set_parameters": SetParameters,
        }  # fmt: skip
        self._refused: list[int] = []
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._diagnosed, 100)
        qos = QoSProfile(depth=ANSWERS)
        self._clients = {
            name: self._node.create_client(kind, f"{NODE}/{name}", qos_profile=qos) for name, kind in kinds.items()
        }
        self._kinds = kinds
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()
        rng = np.random.default_rng(0)
        width, height = hostile.SIZE
        self._pictures = [rng.integers(0, 255, (height, width, channels), np.uint8) for channels in (3, 1)]
        self.answers: list[float] = []
        """Seconds that each request took."""

    def _arrived(self, message: Any) -> None:
        self.latest.append(message)

    def _diagnosed(self, message: Any) -> None:
        values = {item.key: item.value for status in message.status for item in status.values}
        if "pairs dropped, unusable image" in values:
            self._refused.append(int(values["pairs dropped, unusable image"]))

    def _spin(self) -> None:
        from rclpy.executors import ExternalShutdownException

        try:
            self._executor.spin()
        except ExternalShutdownException:
            return

    def close(self) -> None:
        """Leaves."""
        self._context.try_shutdown()
        self._thread.join(LIMIT_S)
        self._executor.shutdown()
        self._node.destroy_node()

    def healthy(self, camera: int, stamp_ns: int) -> None:
        """Publishes an image of a healthy camera."""
        import cv2

        pixels = self._pictures[camera]
        if self._compressed:
            fields = hostile.Compressed(
                "png", cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
            )
            message = hostile.image_message(fields, stamp_ns)
        else:
            height, width, channels = pixels.shape
            encoding = ("mono8", "rgb8")[channels == 3]
            message = hostile.image_message(hostile.Raw(encoding, width, height, width * channels, 0), stamp_ns)
            message.data = array.array("B", pixels.tobytes())
        message.header.frame_id = "healthy"
        self._cameras[camera].publish(message)

    def attack(self, fields: hostile.Raw | hostile.Compressed | bytes, camera: int) -> None:
        """Publishes a hostile image, with a healthy one of the other camera and the same stamp; or bytes that are no
        message at all."""
        now_ns = time.time_ns()
        if isinstance(fields, bytes):
            self._cameras[camera].publish(fields)
            return
        message = hostile.image_message(fields, now_ns)
        self._cameras[camera].publish(message)
        self.healthy(1 - camera, message.header.stamp.sec * 10**9 + message.header.stamp.nanosec)

    def look(self) -> None:
        """Waits for the node's message about a healthy pair.

        Raises:
            PeerError: none came within the limit.
            AssertionError: a target is missing in it.
        """
        sent: set[int] = set()
        next_ns = 0

        def seen() -> Any:
            nonlocal next_ns
            if time.monotonic_ns() >= next_ns:  # as at 30 Hz: what was hostile may have to leave a queue first
                next_ns = time.monotonic_ns() + 33_000_000
                stamp_ns = time.time_ns()
                sent.add(stamp_ns)
                for camera in range(len(MODALITIES)):
                    self.healthy(camera, stamp_ns)
            stamped = [(m.header.stamp.sec * 10**9 + m.header.stamp.nanosec, m) for m in list(self.latest)]
            return next((m for stamp_ns, m in stamped if stamp_ns in sent and m.header.frame_id == "healthy"), None)

        message = wait(seen, "targets of a healthy pair", BACK_S)
        there = {target.id for target in message.targets}
        assert there >= set(KEPT), f"targets are {there}, started were {KEPT}"

    def refused(self) -> int:
        """Pairs that the node could not use, as its diagnostics say that were made after this was called."""
        made_before = len(self._refused) + 1  # one may be under way
        wait(lambda: len(self._refused) > made_before, "the node's diagnostics", LIMIT_S)
        return self._refused[-1]

    def ask(self, name: str, fields: dict[str, Any]) -> Any:
        """Calls a service; the future of the answer, which `answered` waits for."""
        client = self._clients[name]
        wait(client.service_is_ready, f"service {name}")
        began = time.monotonic()
        future = client.call_async(self._kinds[name].Request(**hostile.request_fields(fields, time.time_ns())))
        future.add_done_callback(lambda _: self.answers.append(time.monotonic() - began))
        future.name = name
        return future

    def answered(self, future: Any) -> Any:
        """The answer.

        Raises:
            PeerError: none within the limit.
        """
        wait(future.done, f"the answer of {future.name}", LIMIT_S)
        return future.result()

    def call(self, name: str, **fields: Any) -> Any:
        """The answer of a service."""
        return self.answered(self.ask(name, fields))

    def start(self) -> None:
        """Starts the healthy user's targets, on the first pair that the node hears."""

        def started() -> bool:
            stamp_ns = time.time_ns()
            for camera in range(len(MODALITIES)):
                self.healthy(camera, stamp_ns)
            targets = [{"id": id, "label": "", "box": (50.0, 40.0, 30.0, 30.0)} for id in KEPT]
            return self.call("reinitialize", targets=targets, replace_all=True).success

        wait(started, "the targets to start")


@contextmanager
def running(transport: str, folder: Path) -> Iterator[tuple[Child, Attacker]]:
    """A node with two targets, and an attacker."""
    weights = folder / "random.safetensors"
    checkpoint.save(weights, random_student(SMALL), {"source": "random weights of a benchmark"}, torch.float16)
    given_parameters = {
        "model": str(weights), "device": "cpu", "threads": 1, "max_targets": 8, "sync.max_age": 60.0,
        "rgb.transport": transport, "thermal.transport": transport,
    }  # fmt: skip
    with Child("tracker node", "node", given_parameters, folder / f"{transport}.log") as node:
        attacker = Attacker(transport)
        try:
            attacker.start()
            yield node, attacker
            node.check(may_end=False)
        finally:
            attacker.close()


def play(strategy: st.SearchStrategy, count: int, seed: int, act: Callable[[Any], None]) -> None:
    """Lets hypothesis draw so many examples; the first one that fails ends it, with what was drawn."""

    @seeded(seed)
    @settings(
        max_examples=count, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(strategy)
    def body(example: Any) -> None:
        act(example)

    body()


def attack_with_messages(transport: str, count: int, seed: int, folder: Path) -> dict[str, Any]:
    """One row of the table."""
    strategy = hostile.raw_images() if transport == "raw" else hostile.compressed_images()
    drawn = st.one_of(*[strategy] * 9, st.binary(max_size=300))
    with running(transport, folder) as (node, attacker):
        sent = 0
        before: list[tuple[int, int, float]] = []

        def act(example: tuple[Any, int]) -> None:
            nonlocal sent
            attacker.attack(*example)
            sent += 1
            if sent % LOOK_EVERY == 0:
                node.check(may_end=False)
                attacker.look()
            if sent == max(1, count // 10):
                before.append(resources(node.pid))

        play(st.tuples(drawn, st.integers(0, 1)), count, seed, act)
        attacker.look()
        attacker.call("get_state")
        row = {"sent": f"messages, {transport}", "number": sent, **growth(node, before[0]), **answers(attacker)}
        return {**row, "pairs refused": attacker.refused()}


def attack_with_requests(count: int, seed: int, folder: Path) -> list[dict[str, Any]]:
    """Rows: requests that leave the targets alone, others, parameters, and a flood."""
    rows = []
    with running("raw", folder) as (node, attacker):
        for what, strategy, share in (
            ("requests", hostile.REQUESTS, 0.6),
            ("requests that may remove or pause", st.one_of(hostile.REQUESTS, hostile.DESTRUCTIVE), 0.2),
            ("parameters", hostile.PARAMETERS, 0.2),
        ):
            open_requests: deque[Any] = deque()
            attacker.answers.clear()
            sent, before = 0, [resources(node.pid)]

            def act(example: Any) -> None:
                nonlocal sent
                name, fields = example if what != "parameters" else ("set_parameters", parameter_fields(*example))  # noqa: B023
                open_requests.append(attacker.ask(name, fields))  # noqa: B023
                sent += 1
                while len(open_requests) >= OPEN:  # noqa: B023
                    attacker.answered(open_requests.popleft())  # noqa: B023
                if sent % 50 == 0:
                    node.check(may_end=False)
                if sent % 50 == 0 and what == "requests":  # noqa: B023
                    tidy(attacker)
                    attacker.look()

            play(strategy, max(1, round(share * count)), seed, act)
            while open_requests:
                attacker.answered(open_requests.popleft())
            attacker.call("pause", data=False)
            if what == "parameters":  # a delay that was rightly taken keeps healthy cameras from pairing
                usual = Parameters()
                for name, value in (("thermal_delay", usual.sync_thermal_delay), ("max_age", usual.sync_max_age)):
                    (result,) = attacker.call("set_parameters", **parameter_fields(f"sync.{name}", value)).results
                    assert result.successful, result.reason
            if what != "requests":
                attacker.start()
            attacker.look()
            rows.append(
                {
                    "sent": what,
                    "number": sent,
                    **growth(node, before[0]),
                    **answers(attacker),
                }
            )
        rows.append(flood(node, attacker))
    return rows


def flood(node: Child, attacker: Attacker) -> dict[str, Any]:
    """A row: several clients at once, each with several requests open, all for the service that answers slowest."""
    clients = [attacker, *[Attacker("raw", f"attacker_{number}") for number in range(1, FLOOD_CLIENTS)]]
    fields = {"targets": [{"id": "x", "label": "", "box": (50.0, 40.0, 30.0, 30.0)}], "replace_all": False}
    try:
        for client in clients:
            wait(lambda client=client: client.call("get_state"), "a client to be heard")
            client.answers.clear()
        before = resources(node.pid)
        futures = [(client, client.ask("reinitialize", fields)) for _ in range(OPEN) for client in clients]
        for client, future in futures:
            assert client.answered(future).success
        attacker.look()
        attacker.answers += [seconds for client in clients[1:] for seconds in client.answers]
    finally:
        for client in clients[1:]:
            client.close()
    row = {"sent": f"a flood of {FLOOD_CLIENTS} clients", "number": len(futures)}
    return {**row, **growth(node, before), **answers(attacker)}


def tidy(attacker: Attacker) -> None:
    """Removes what hostile requests have started, so that there is room for more."""
    others = {target.id for message in list(attacker.latest)[-1:] for target in message.targets} - set(KEPT)
    if others:
        attacker.call("remove_targets", ids=sorted(others))


def parameter_fields(name: str, value: Any) -> dict[str, Any]:
    """Of a SetParameters request."""
    from rclpy.parameter import Parameter

    if isinstance(value, (str, bytes)) or not isinstance(value, list):
        parameter = Parameter(name, value=list(map(bytes, zip(value))) if isinstance(value, bytes) else value)
    elif not value:
        parameter = Parameter(name, Parameter.Type.DOUBLE_ARRAY, [])
    else:
        parameter = Parameter(name, value=value)
    return {"parameters": [parameter.to_parameter_msg()]}


def growth(node: Child, before: tuple[int, int, float]) -> dict[str, Any]:
    """Columns: what the process holds more than before."""
    now = resources(node.pid)
    names = ("threads more", "files more", "MB more")
    return dict(zip(names, (now[0] - before[0], now[1] - before[1], now[2] - before[2])))


def answers(attacker: Attacker) -> dict[str, Any]:
    """Columns: how long requests took."""
    times = np.array(attacker.answers) * 1e3
    return {"answer p50 [ms]": float(np.median(times)), "slowest [ms]": float(times.max())}


def main(
    messages: Annotated[int, typer.Option(min=20, help="hostile images, half of them compressed")] = 10_000,
    requests: Annotated[int, typer.Option(min=20, help="hostile service requests")] = 10_000,
    seed: Annotated[int, typer.Option(help="another one draws other examples")] = 0,
    json_file: JsonOption = None,
) -> None:
    """Hostile messages and requests against the node; the first that it does not survive ends this with an error."""
    set_environment()
    report = Report("fuzz", {"model": SMALL.name, "seed": seed})
    report.header()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with report.console.status("fuzzing"):
            rows = [attack_with_messages(kind, messages // 2, seed, folder) for kind in ("raw", "compressed")]
            rows += attack_with_requests(requests, seed, folder)
        lines = [line for log in folder.glob("*.log") for line in log.read_text(errors="replace").splitlines()]
    errors = [line for line in lines if "[ERROR]" in line or "Traceback" in line]
    note = (
        f"The node was alive after each, every service answered within {LIMIT_S:g} s, and a healthy pair came through "
        f"with its targets within {BACK_S:g} s after every {LOOK_EVERY} messages. Lines in the logs: {len(lines)}, "
        f"errors among them: {len(errors)}{''.join(f'; {line[:200]}' for line in errors[:5])}"
    )
    report.add("Hostile input", "its own start", rows, note)
    report.write(json_file)


if __name__ == "__main__":
    typer.run(main)
