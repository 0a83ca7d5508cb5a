"""How soon ~/reset is answered while the node runs a large network on the CPU, beside the same calls to an idle node.

A call counts as busy when it lies wholly within the processing of a pair with targets, as that pair's message tells it.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer
from common import JsonOption
from node_client import Client, running

from ckd_tracker_ros.evaluation.timing import Report, Spread
from ckd_tracker_ros.network.config import CONFIGS

SIZE = (640, 480)
PER_STEP = 5
"""Calls during one step: the first stops the target, but the step that runs is still finished."""
PAUSE_S = 0.02
"""Between two calls, and before the first."""
BUSY_S = 0.1
"""Processing of a message without a target takes far less, with the network far more."""


def main(
    network: Annotated[str, typer.Option(help=f"random weights of: {', '.join(CONFIGS)}")] = "base",
    calls: Annotated[int, typer.Option(min=1, help="of each kind")] = 50,
    threads: Annotated[int, typer.Option(help="of torch in the node; 0: as it is")] = 0,
    seconds: Annotated[float, typer.Option(help="to give up after")] = 60.0,
    json_file: JsonOption = None,
) -> None:
    """Time of ~/reset while the network runs."""
    if network not in CONFIGS:
        raise typer.BadParameter(f"network {network!r}; allowed: {', '.join(CONFIGS)}")
    report = Report("reset", {"network": network, "calls": calls, "threads": threads})
    report.header()
    with (
        report.console.status(f"starting the node with {network}"),
        running(CONFIGS[network], threads=threads) as (client, camera, _),
    ):
        idle = [client.reset() for _ in range(calls)]
        camera.tell(size=SIZE, rate=15, pairs=0, reliability="reliable")
        client.collect(2, 0)
        made, steps = call_while_busy(client, calls, seconds)
        camera.tell(stop=True)
        camera.answer()
    rest = Spread.of([1e3 * (answered - began) for began, answered, _ in idle])
    rows = []
    for name, found in {"idle": idle, f"running {network}": made}.items():
        taken = [1e3 * (answered - began) for began, answered, _ in found]
        spread = Spread.of(taken)
        rows.append(
            {
                "node": name,
                "calls": len(taken),
                "answer [ms]": spread,
                "worst [ms]": max(taken, default=float("nan")),
                "of idle": spread.median / rest.median,
            }
        )
    report.add(
        "Time until ~/reset is answered",
        "the median of an idle node",
        rows,
        f"{len(made)} of {calls} calls lay within one of {len(steps)} steps, of {Spread.of(steps)} s each.",
    )
    report.write(json_file)


def call_while_busy(client: Client, calls: int, limit_s: float) -> tuple[list[Any], list[float]]:
    """Calls that lay within a step of the network, and the seconds of those steps."""
    end, found, steps = time.monotonic() + limit_s, [], []
    while len(found) < calls and time.monotonic() < end:
        client.start(SIZE, 1)
        seen = len(client.messages)
        time.sleep(2 / 15)  # the next pair is on its way into the network
        made = []
        for _ in range(PER_STEP):
            time.sleep(PAUSE_S)
            made.append(client.reset())
        for arrived, message in wait_for_step(client, seen):
            began = arrived - message.processing_time
            within = [call for call in made if began <= call[0] and call[1] <= arrived]
            found += within
            if within:
                steps.append(message.processing_time)
    return found[:calls], steps


def wait_for_step(client: Client, seen: int, limit_s: float = 20.0) -> list[Any]:
    """The messages after `seen` that took as long as a network does; waits until nothing is left of the step."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        new = client.messages[seen:]
        if new and new[-1][1].processing_time < BUSY_S and any(m.processing_time > BUSY_S for _, m in new):
            break
        time.sleep(0.02)
    return [(arrived, message) for arrived, message in client.messages[seen:] if message.processing_time > BUSY_S]


if __name__ == "__main__":
    typer.run(main)
