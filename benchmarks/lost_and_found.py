"""Targets that are out of sight for 60 frames: are they said to be lost, and found again, or is a look-alike taken?

Generated scenes of a fixed recipe, each with a look-alike of the target: behind something that drives in front of the
target, and outside the image. The look-alike is meant to stay in view; where it does not, it may come out of hiding
first, and those scenes are counted apart, too. The recipe was written before anything was tuned on it; seeds from
`TUNING` on are for tuning, those below for the figures.
"""

from __future__ import annotations

import math
import multiprocessing
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
import torch
import typer
from common import JsonOption
from numpy.typing import NDArray
from rich.progress import track

from ckd_tracker_ros import boxes
from ckd_tracker_ros.engine import DeviceError
from ckd_tracker_ros.evaluation.timing import Report
from ckd_tracker_ros.network.checkpoint import CheckpointError
from ckd_tracker_ros.synthetic import HIDINGS, Scene, SceneConfig
from ckd_tracker_ros.target import LostSettings, Status, Target, follow
from ckd_tracker_ros.tracker import Tracker

TUNING = 1000
"""Seeds from here on are never reported."""
FRAMES, HIDDEN = 240, (90, 150)
IN_SIGHT = 0.5
"""Share of a target that has to be seen for it to be back."""
AROUND, OUT_OF_SIGHT = (70, 180), 0.3
"""Frames around the hiding; a look-alike of which less is seen in one of them is hidden, too."""
LOST_WITHIN, FOUND_WITHIN = 10, 15
"""Frames from the first one without the target, and from the first one with it."""


@dataclass(frozen=True)
class Outcome:
    """What became of one scene.

    Attributes:
        found: whether it was TRACKING on the target (IoU above 0.5) within `FOUND_WITHIN` frames of its coming back.
        frames: until it was; infinite when it never was.
        taken: whether it was ever TRACKING on the look-alike and not on the target (IoU above 0.5), from the hiding on.
        nearer: the same, also where the two overlap and the box is on both, but more on the look-alike.
        lost: whether it was LOST within `LOST_WITHIN` frames of the target's being gone.
        stayed: share of the later frames without the target in which it was LOST.
        right: frames with the target in sight and an IoU above 0.5.
        believed: of those, TRACKING ones.
        wrong: frames that are TRACKING with an IoU under 0.1.
        missing: whether the target had been lost sight of before it was hidden.
        both: whether the look-alike was out of sight, too, for some time around the hiding.
    """

    found: bool
    frames: float
    taken: bool
    nearer: bool
    lost: bool
    stayed: float
    right: int
    believed: int
    wrong: int
    missing: bool
    both: bool


def scene(seed: int, hiding: str) -> Scene:
    """The recipe."""
    bits = 8 if seed % 2 else 16
    return Scene(SceneConfig(frames=FRAMES, hidden=HIDDEN, hiding=hiding, look_alikes=1, thermal_bits=bits), seed)


def play(tracker: Tracker, settings: LostSettings, seed: int, hiding: str) -> NDArray[np.float64]:
    """(N, 5) of every frame behind the first: IoU with the target and with the look-alike, status, shares in sight."""
    shown = scene(seed, hiding)
    targets, rows = [Target.begin("target", "", tracker.start(shown.frame(0), shown.boxes(0)[0]))], []
    for i in range(1, FRAMES):
        targets = follow(tracker, targets, shown.frame(i), settings)
        ious = [float(boxes.iou(targets[0].box, box[0])) for box in (shown.boxes(i), shown.look_alike_boxes(i))]
        rows.append([*ious, targets[0].status, shown.visible(i)[0], shown.look_alikes_visible(i)[0]])
    return np.array(rows)


def judge(rows: NDArray[np.float64]) -> Outcome:
    """See `Outcome`."""
    iou, look_alike, status, sight, look_alike_sight = rows.T
    believed, lost = status == Status.TRACKING, status == Status.LOST
    gone = int(np.flatnonzero(sight == 0)[0])
    back = int(np.flatnonzero((sight >= IN_SIGHT) & (np.arange(len(sight)) >= HIDDEN[1] - 1))[0])
    again = np.flatnonzero(believed[back:] & (iou[back:] > 0.5))
    right = (iou > 0.5) & (sight >= IN_SIGHT)
    other = (believed & (look_alike > 0.5) & (look_alike > iou))[gone:]
    return Outcome(
        found=bool(len(again)) and bool(again[0] <= FOUND_WITHIN),
        frames=float(again[0]) if len(again) else math.inf,
        taken=bool((other & (iou[gone:] <= 0.5)).any()),
        nearer=bool(other.any()),
        lost=bool(lost[gone : gone + LOST_WITHIN + 1].any()),
        stayed=float(lost[gone + LOST_WITHIN : back].mean()),
        right=int(right.sum()),
        believed=int((right & believed).sum()),
        wrong=int((believed & (iou < 0.1)).sum()),
        missing=not right[max(gone - 40, 0) : gone].any(),
        both=bool((look_alike_sight[slice(*AROUND)] < OUT_OF_SIGHT).any()),
    )


_tracker: Tracker
"""Of a worker process."""


def _prepare(model: str, device: str) -> None:
    global _tracker
    torch.set_num_threads(1)
    _tracker = Tracker.from_checkpoint(model, device, threads=1)


def _run(settings: LostSettings, case: tuple[int, str]) -> tuple[tuple[int, str], Outcome]:
    return case, judge(play(_tracker, settings, *case))


def summed(name: str, outcomes: list[Outcome]) -> dict[str, object]:
    """A row of the table."""
    count = len(outcomes)
    return {
        "hidden": name,
        "scenes": count,
        "found [%]": 100 * sum(o.found for o in outcomes) / count,
        "median frames": float(np.median([o.frames for o in outcomes])),
        "look-alike taken [%]": 100 * sum(o.taken for o in outcomes) / count,
        "or on both, nearer to it [%]": 100 * sum(o.nearer for o in outcomes) / count,
        "lost in time [%]": 100 * sum(o.lost for o in outcomes) / count,
        "lost while gone [%]": 100 * float(np.mean([o.stayed for o in outcomes])),
        "right frames TRACKING [%]": 100 * sum(o.believed for o in outcomes) / max(1, sum(o.right for o in outcomes)),
        "wrong and TRACKING [frames]": float(np.mean([o.wrong for o in outcomes])),
        "missed before [%]": 100 * sum(o.missing for o in outcomes) / count,
    }


def main(
    model: Annotated[str, typer.Option(help="model file, or the name of an installed one")] = "ckd_tiny",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "cpu",
    seeds: Annotated[int, typer.Option(min=1, max=TUNING, help="number of scenes of each kind")] = 100,
    first: Annotated[int, typer.Option(min=0, help=f"first seed; {TUNING} and above for tuning")] = 0,
    processes: Annotated[int, typer.Option(min=1, help="one thread each")] = 2,
    confidence: Annotated[float, typer.Option(help="lost.confidence")] = LostSettings.confidence,
    recover: Annotated[float, typer.Option(help="lost.recover")] = LostSettings.recover,
    after: Annotated[int, typer.Option(help="lost.after")] = LostSettings.after,
    crops: Annotated[int, typer.Option(help="lost.crops")] = LostSettings.crops,
    json_file: JsonOption = None,
) -> None:
    """Plays all scenes of both kinds."""
    try:
        settings = LostSettings(confidence, recover, after, give_up=0, crops=crops)
        description = Tracker.from_checkpoint(model, device, threads=1).description
    except (CheckpointError, DeviceError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    report = Report("lost_and_found", {**description, "settings": settings, "seeds": f"{first}..{first + seeds - 1}"})
    report.header()
    cases = [(seed, hiding) for seed in range(first, first + seeds) for hiding in HIDINGS]
    found: dict[tuple[int, str], Outcome] = {}
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, _prepare, (model, device)) as pool:
        done = pool.imap_unordered(partial(_run, settings), cases)
        for case, outcome in track(done, "scenes", len(cases), console=report.console, transient=True):
            found[case] = outcome
    rows = [summed(hiding, [found[case] for case in cases if case[1] == hiding]) for hiding in HIDINGS]
    for name, both in (("look-alike in sight", False), ("look-alike hidden, too", True)):
        of_them = [outcome for outcome in found.values() if outcome.both == both]
        rows += [summed(name, of_them)] if of_them else []
    rows.append(summed("all", list(found.values())))
    report.add("Out of sight for 60 frames, beside a look-alike", "the true boxes", rows)
    failed = [
        {"seed": case[0], "hidden": case[1], "found": o.found, "taken": o.taken, "lost": o.lost, "missed": o.missing}
        for case, o in sorted(found.items())
        if o.taken or not (o.found and o.lost)
    ]
    report.add("Scenes that went wrong", "the true boxes", failed)
    report.write(json_file)


if __name__ == "__main__":
    typer.run(main)
