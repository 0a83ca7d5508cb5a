"""What pairing costs a frame, beside message_filters' ApproximateTimeSynchronizer on the same stamps.

No DDS, no images: messages with a header are handed to both in the order and at the rates of two cameras.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from common import JsonOption

from ckd_tracker_ros.evaluation.timing import Report, Spread, ratios, timed
from ckd_tracker_ros.pairing import RGB, THERMAL, PairingSettings

CHUNK = 200
"""Frames between two looks at the clock."""


class Cameras(NamedTuple):
    """Two streams: Hz, jitter of the stamps as a share of the period, share of frames that are missing."""

    rgb: float
    thermal: float
    jitter: float = 0.0
    missing: float = 0.0


PATTERNS = {
    "30 Hz, 30 Hz": Cameras(30, 30),
    "30 Hz, 30 Hz, jitter, losses": Cameras(30, 30, 0.3, 0.1),
    "30 Hz, 9 Hz": Cameras(30, 9),
    "200 Hz, 200 Hz": Cameras(200, 200, 0.1),
    "1000 Hz, thermal silent": Cameras(1000, 0.001),
}


def arrivals(cameras: Cameras, count: int, seed: int = 0) -> list[tuple[int, int]]:
    """Stream and stamp [ns] of that many frames of both cameras, in order of arrival."""
    rng = np.random.default_rng(seed)

    def stamps(rate: float) -> Iterator[float]:
        ticks = np.arange(1, count + 1)[rng.random(count) >= cameras.missing]
        return (ticks + rng.uniform(-cameras.jitter, cameras.jitter, len(ticks))) / rate

    both = [
        (stamp, stream) for stream, rate in ((RGB, cameras.rgb), (THERMAL, cameras.thermal)) for stamp in stamps(rate)
    ]
    return [(stream, round(stamp * 1e9)) for stamp, stream in sorted(both)[:count]]


def costs(frames: list[tuple[int, int]], push: Callable[[int, int], Any]) -> list[float]:
    """Microseconds a frame, chunk by chunk."""

    def some(part: list[tuple[int, int]]) -> None:
        for stream, stamp in part:
            push(stream, stamp)

    parts = [frames[i : i + CHUNK] for i in range(0, len(frames), CHUNK)]
    return [1e6 * timed(lambda: some(part)) / len(part) for part in parts]  # noqa: B023


def ours(settings: PairingSettings) -> tuple[Callable[[int, int], None], list[int]]:
    """A function that takes frames, and the number of pairs so far."""
    pairing, pairs = settings.start(), [0]

    def push(stream: int, stamp: int) -> None:
        pairs[0] += len(pairing.push(stream, stamp, stamp, None))

    return push, pairs


def theirs(settings: PairingSettings) -> tuple[Callable[[int, int], None], list[int]] | None:
    """The same of message_filters; None where it is not installed."""
    try:
        from message_filters import ApproximateTimeSynchronizer, SimpleFilter
        from sensor_msgs.msg import Image
    except ImportError:
        return None
    filters, pairs = [SimpleFilter(), SimpleFilter()], [0]
    synchronizer = ApproximateTimeSynchronizer(filters, settings.queue_size, settings.slop)

    def paired(*_: Any) -> None:
        pairs[0] += 1

    synchronizer.registerCallback(paired)

    def push(stream: int, stamp: int) -> None:
        message = Image()
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 1_000_000_000)
        filters[stream].signalMessage(message)

    return push, pairs


def main(
    frames: Annotated[int, typer.Option(min=CHUNK, help="of each case")] = 10_000,
    queue_size: Annotated[int, typer.Option(min=1, help="as sync.queue_size")] = PairingSettings.queue_size,
    json_file: JsonOption = None,
) -> None:
    """Microseconds that pairing takes for a frame."""
    settings = PairingSettings(queue_size=queue_size)
    report = Report("pairing", {"frames": frames, "queue size": queue_size, "slop [s]": settings.slop})
    report.header()
    rows = []
    for name, cameras in PATTERNS.items():
        sequence = arrivals(cameras, frames)
        push, pairs = ours(settings)
        spent = costs(sequence, push)
        row = {"cameras": name, "pairs": pairs[0], "pairing [us]": Spread.of(spent)}
        if (other := theirs(settings)) is not None:
            row["message_filters [us]"] = Spread.of(beside := costs(sequence, other[0]))
            row |= {"its pairs": other[1][0], "of message_filters": ratios(spent, beside)}
        rows.append(row)
    note = "message_filters' time includes making a message."
    report.add("Pairing, microseconds a frame", "message_filters on the same stamps, where it is installed", rows, note)
    report.write(json_file)


if __name__ == "__main__":
    typer.run(main)
