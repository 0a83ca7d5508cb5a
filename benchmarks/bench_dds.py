"""Pairs that DDS delivers between two processes, and how late: Fast DDS as it comes, and with the shipped profile."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from common import JsonOption
from processes import Peer

from ckd_tracker_ros.cli import parse_sizes
from ckd_tracker_ros.evaluation.timing import Report, Spread, ratios
from ckd_tracker_ros.ros.demo import LARGEST_DOMAIN_ID, PROFILE_VARIABLES, USER_VARIABLES

PROFILE = Path(__file__).parents[1] / "config" / "fastdds.xml"
SET_UPS = {"default": "", "profile": str(PROFILE)}
RELIABILITIES = ("best_effort", "reliable")


class SetUp:
    """A camera and a listener that share a set-up of Fast DDS, alone in their domain."""

    def __init__(self, stack: ExitStack, logs: Path, index: int, name: str, profile: str) -> None:
        # Without what the user has set: it would be measured in both.
        environment = {name: value for name, value in os.environ.items() if name not in USER_VARIABLES}
        environment["ROS_DOMAIN_ID"] = str(1 + (os.getpid() + index) % LARGEST_DOMAIN_ID)
        environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        if profile:
            environment |= dict.fromkeys(PROFILE_VARIABLES, profile)
        self.camera, self.listener = (
            stack.enter_context(Peer(role, logs / f"{name}_{role}.log", environment)) for role in ("camera", "listener")
        )

    def deliver(self, size: tuple[int, int], reliability: str, rate: float, pairs: int) -> dict[str, Any]:
        """Sends pairs; what the camera and the listener say."""
        self.listener.tell(reliability=reliability)
        self.listener.answer()
        self.camera.tell(size=size, reliability=reliability, rate=rate, pairs=pairs)
        sent = self.camera.answer()
        self.listener.tell(finish=True)
        return sent | self.listener.answer()


def main(
    sizes: Annotated[str, typer.Option(help="of the RGB image")] = "640x480,1280x720",
    rate: Annotated[float, typer.Option(min=1, help="pairs per second")] = 30.0,
    pairs: Annotated[int, typer.Option(min=1, help="sent in a round of a case")] = 30,
    rounds: Annotated[int, typer.Option(min=1, help="of all cases")] = 2,
    json_file: JsonOption = None,
) -> None:
    """Pairs delivered by DDS set-up, reliability and image size."""
    image_sizes = parse_sizes(sizes)
    report = Report("dds", {"rate [Hz]": rate, "pairs": pairs, "rounds": rounds})
    report.header()
    cases = [(size, reliability) for size in image_sizes for reliability in RELIABILITIES]
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as logs, ExitStack() as stack, report.console.status("starting") as status:
        set_ups = {
            name: SetUp(stack, Path(logs), index, name, profile)
            for index, (name, profile) in enumerate(SET_UPS.items())
        }
        for number in range(rounds):
            for size, reliability in cases:
                for name, set_up in set_ups.items():
                    status.update(f"round {number + 1} of {rounds}: {size[0]}x{size[1]} {reliability}, {name}")
                    outcome = set_up.deliver(size, reliability, rate, pairs)
                    found.setdefault((size, reliability, name), []).append(outcome)
    report.add(
        f"Pairs delivered at {rate:g} Hz",
        "Fast DDS without a profile, in the same rounds",
        [row(size, reliability, name, found) for size, reliability in cases for name in SET_UPS],
        "Sent, late and pairs received: in all rounds together; late: sent more than a period late. p50, p95: from "
        "the stamp to the callback of a pair's last image.",
    )
    report.write(json_file)


def row(size: tuple[int, int], reliability: str, name: str, found: dict[tuple[Any, ...], Any]) -> dict[str, Any]:
    """One line of the table."""
    outcomes, baseline = found[size, reliability, name], found[size, reliability, "default"]
    latencies = [latency for outcome in outcomes for latency in outcome["latencies_ms"]]
    medians = [[Spread.of(outcome["latencies_ms"]).median for outcome in case] for case in (outcomes, baseline)]
    arrived, before = (sum(outcome["pairs"] for outcome in case) for case in (outcomes, baseline))
    return {
        "image": f"{size[0]}x{size[1]}",
        "reliability": reliability,
        "Fast DDS": name,
        "sent": sum(outcome["sent"] for outcome in outcomes),
        "late": sum(outcome["late"] for outcome in outcomes),
        "pairs": arrived,
        "a round [%]": Spread.of([100 * outcome["pairs"] / outcome["sent"] for outcome in outcomes]),
        "of default": arrived / before if before else float("nan"),
        "p50 [ms]": Spread.percentile(latencies, 50),
        "p95 [ms]": Spread.percentile(latencies, 95),
        "p50 of default": ratios(*medians),
    }


if __name__ == "__main__":
    typer.run(main)
