"""What the node adds to a step of the tracker, by image size: camera process -> DDS -> node process -> DDS -> here.

The network is a small one, so that the node's own part shows. The step's time is measured in this process, between the
messages, with the same weights and images: `own` is latency less step.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer
from common import SMALL, JsonOption
from node_client import running

from ckd_tracker_ros.cli import parse_sizes
from ckd_tracker_ros.evaluation.timing import Report, Spread, noise_frame, ratios, timed
from ckd_tracker_ros.tracker import Tracker

DEFAULT_SIZES = "320x240,640x480,1280x720,1920x1080"
STEPS = 15
DIAGNOSTICS = 2
"""Messages waited for in a round of a case; one a second."""


def main(
    sizes: Annotated[str, typer.Option(help="of the RGB image; the first is the baseline")] = DEFAULT_SIZES,
    rate: Annotated[float, typer.Option(min=1, help="pairs per second")] = 20.0,
    count: Annotated[int, typer.Option("--messages", min=1, help="of the node, in a round of a case")] = 15,
    targets: Annotated[int, typer.Option(min=1, max=8, help="followed")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="of all sizes")] = 2,
    json_file: JsonOption = None,
) -> None:
    """Latency of the node by image size."""
    image_sizes = parse_sizes(sizes)
    report = Report("node", {"rate [Hz]": rate, "messages": count, "rounds": rounds, "targets": targets})
    report.header()
    found: dict[tuple[int, int], list[dict[str, list[float]]]] = {size: [] for size in image_sizes}
    with report.console.status("starting the node") as status, running(SMALL, threads=1) as (client, camera, weights):
        tracker = Tracker.from_checkpoint(weights, "cpu", threads=1)
        for number in range(rounds):
            for size in image_sizes:
                status.update(f"round {number + 1} of {rounds}: {size[0]}x{size[1]}")
                client.reset()
                camera.tell(size=size, rate=rate, pairs=0, reliability="reliable")
                client.collect(2, 0)  # the first ones are late: memory is being taken
                idle = client.collect(count, 0)
                client.start(size, targets)
                busy = client.collect(count, targets)
                overhead = [1e3 * value for value in client.overheads(DIAGNOSTICS)]
                camera.tell(stop=True)
                sent = camera.answer()
                alone = steps(tracker, size, targets, rate)
                found[size].append({**times(idle, busy), "overhead": overhead, **sent, "step": alone})
    report.add(
        f"Latency of the node, {targets} target{'s' if targets > 1 else ''}, one thread of torch [ms]",
        f"{'x'.join(map(str, image_sizes[0]))} in the same round",
        [row(size, found[size], found[image_sizes[0]]) for size in image_sizes],
        "Idle: without a target. Latency: stamp to publish; processing: taken from the mailbox to publish; "
        "own: latency less step; overhead: from the later image's callback to the publish call, less the step in the "
        "node (medians of a second each); late: pairs that the camera sent a period late.",
    )
    report.write(json_file)


def times(idle: list[Any], busy: list[Any]) -> dict[str, Any]:
    """Milliseconds, from messages without and with targets."""
    return {
        "idle latency": [1e3 * message.latency for message in idle],
        "latency": [1e3 * message.latency for message in busy],
        "processing": [1e3 * message.processing_time for message in busy],
        "skipped": sum(message.skipped_pairs for message in busy),
    }


def steps(tracker: Tracker, size: tuple[int, int], targets: int, rate: float) -> list[float]:
    """Milliseconds of the tracker's steps alone, the node at rest."""
    frame = noise_frame(size)
    box = ((size[0] - 48) / 2, (size[1] - 48) / 2, 48, 48)
    states = [tracker.start(frame, box)] * targets
    taken = []
    for _ in range(STEPS):
        time.sleep(1 / rate)  # as in the node: after a rest, a step finds cold caches, and a processor that is its own
        taken.append(1e3 * timed(lambda: tracker.step_many(states, frame)))
    return taken


def row(size: tuple[int, int], rounds: list[dict[str, Any]], baseline: list[dict[str, Any]]) -> dict[str, Any]:
    """One line of the table."""

    def together(name: str) -> list[float]:
        return [value for outcome in rounds for value in outcome[name]]

    def medians(outcomes: list[dict[str, Any]], name: str) -> list[float]:
        return [Spread.of(outcome[name]).median for outcome in outcomes]

    own = [value - Spread.of(outcome["step"]).median for outcome in rounds for value in outcome["latency"]]
    return {
        "image": f"{size[0]}x{size[1]}",
        **{name: Spread.of(together(name)) for name in ("idle latency", "latency", "processing", "step")},
        "own": Spread.of(own),
        "overhead": Spread.of(together("overhead")),
        "latency of first": ratios(medians(rounds, "latency"), medians(baseline, "latency")),
        "skipped": sum(outcome["skipped"] for outcome in rounds),
        "late": sum(outcome["late"] for outcome in rounds),
    }


if __name__ == "__main__":
    typer.run(main)
