"""Cameras that do not line up: what it costs, and what registration gives back, true and as `calibrate` finds it.

The thermal images of generated scenes are seen by a camera that is turned, shifted and zoomed against the RGB camera.
The tracker follows the same target through the aligned images, through these without a word about it, with the true
homography, and with the one that `ckd-tracker calibrate` finds in them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated

import cv2
import numpy as np
import typer
from common import JsonOption
from numpy.typing import NDArray

from ckd_tracker_ros import boxes
from ckd_tracker_ros.alignment import AlignmentError, estimate
from ckd_tracker_ros.engine import DeviceError
from ckd_tracker_ros.evaluation.timing import Report
from ckd_tracker_ros.frame import Image, RgbtFrame
from ckd_tracker_ros.network.checkpoint import CheckpointError
from ckd_tracker_ros.registration import Registration
from ckd_tracker_ros.synthetic import Scene, SceneConfig
from ckd_tracker_ros.tracker import Tracker, TrackerSettings

PAIRS = 16
"""Of a scene, that are calibrated with."""


@dataclass(frozen=True)
class Seen:
    """A scene as two cameras see it; `frame` gives a pair.

    Attributes:
        scene: aligned.
        thermal_to_rgb: (3, 3) pixels of the other thermal camera to RGB pixels; None for the scene's own.
    """

    scene: Scene
    thermal_to_rgb: NDArray[np.float64] | None = None

    def frame(self, i: int) -> RgbtFrame:
        pair = self.scene.frame(i)
        if self.thermal_to_rgb is None:
            return pair
        rgb, thermal = pair.images
        size, flags = (thermal.width, thermal.height), cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        pixels = cv2.warpPerspective(
            thermal.pixels, self.thermal_to_rgb, size, flags=flags, borderMode=cv2.BORDER_REPLICATE
        )
        return replace(pair, images=(rgb, Image(pixels, thermal.order)))


def homography(size: tuple[int, int], scale: float, degrees: float, shift: float) -> NDArray[np.float64]:
    """(3, 3) about the centre of an image of `size` (width, height), then to the right."""
    centre = (np.array(size) - 1) / 2
    turn = cv2.getRotationMatrix2D(centre.tolist(), -degrees, scale)
    turn[0, 2] += shift
    return np.vstack([turn, [0, 0, 1]])


def mean_iou(tracker: Tracker, seen: Seen, matrix: NDArray | None) -> float:
    """Of all frames behind the first with the target in sight, which starts from its true box."""
    tracker.settings = TrackerSettings(
        registration=Registration(None if matrix is None else tuple(np.ravel(matrix).tolist()))
    )
    scene, ious = seen.scene, []
    state = tracker.start(seen.frame(0), scene.boxes(0)[0])
    for i in range(1, len(scene)):
        state, estimate_ = tracker.step(state, seen.frame(i))
        if scene.visible(i)[0] > 0:
            ious.append(float(boxes.iou(estimate_.box, scene.boxes(i)[0])))
    return float(np.mean(ious))


def centre_error(matrix: NDArray, truth: NDArray, size: tuple[int, int]) -> float:
    """RGB pixels between two homographies in the centre of the RGB image of `size` (width, height)."""
    centre = (np.array([[size]], np.float64) - 1) / 2
    there = cv2.perspectiveTransform(centre, np.linalg.inv(truth))
    return float(np.linalg.norm(cv2.perspectiveTransform(there, matrix) - centre))


def case(tracker: Tracker, seed: int, frames: int, move: tuple[float, float, float]) -> dict[str, object]:
    """A row of the table."""
    scene = Scene(SceneConfig(frames=frames, thermal_bits=8 if seed % 2 else 16), seed)
    size = scene.config.width, scene.config.height
    truth = homography(size, *move)
    apart = Seen(scene, truth)
    picked = np.linspace(0, frames - 1, PAIRS).round().astype(int).tolist()
    try:
        found = estimate([apart.frame(i) for i in picked]).matrix
    except AlignmentError:
        found = None
    return {
        "seed": seed,
        "aligned": mean_iou(tracker, Seen(scene), None),
        "not registered": mean_iou(tracker, apart, None),
        "registered": mean_iou(tracker, apart, truth),
        "calibrated": math.nan if found is None else mean_iou(tracker, apart, found),
        "calibration off [px]": math.nan if found is None else centre_error(found, truth, size),
    }


def main(
    model: Annotated[str, typer.Option(help="model file, or the name of an installed one")] = "ckd_tiny",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "cpu",
    seeds: Annotated[int, typer.Option(min=1, help="number of scenes")] = 4,
    first: Annotated[int, typer.Option(min=0, help="first seed")] = 0,
    frames: Annotated[int, typer.Option(min=2, help="of each scene")] = 120,
    scale: Annotated[float, typer.Option(help="RGB pixels for a thermal one")] = 1.1,
    degrees: Annotated[float, typer.Option(help="the thermal camera is turned by")] = 5.0,
    shift: Annotated[float, typer.Option(help="and shifted by, RGB pixels")] = 20.0,
    json_file: JsonOption = None,
) -> None:
    """Mean IoU of each scene, four ways."""
    try:
        tracker = Tracker.from_checkpoint(model, device, threads=1)
    except (CheckpointError, DeviceError) as error:
        raise typer.BadParameter(str(error)) from error
    move = (scale, degrees, shift)
    report = Report("misaligned", {**tracker.description, "scale, degrees, shift": move, "frames": frames})
    report.header()
    rows = [case(tracker, seed, frames, move) for seed in range(first, first + seeds)]
    means = {name: float(np.nanmean([row[name] for row in rows])) for name in rows[0] if name != "seed"}
    report.add("Mean IoU with cameras that do not line up", "the true boxes", [*rows, {"seed": "mean", **means}])
    report.write(json_file)


if __name__ == "__main__":
    typer.run(main)
