"""Recordings on disk for the tests: generated scenes in the layout of a benchmark sequence."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from ckd_tracker_ros.overlay import to_bgr
from ckd_tracker_ros.synthetic import Scene, SceneConfig


def write_recording(folder: Path, frames: int, thermal_bits: int = 16) -> Path:
    """A folder with visible/, infrared/ and groundtruth.txt of a small scene; gives the folder back."""
    config = SceneConfig(width=160, height=120, frames=frames, size=(30.0, 40.0), thermal_bits=thermal_bits)
    scene = Scene(config, seed=4)
    for name in ("visible", "infrared"):
        (folder / name).mkdir(parents=True)
    for index in range(frames):
        rgb, thermal = scene.frame(index).images
        cv2.imwrite(str(folder / "visible" / f"{index:06d}.png"), to_bgr(rgb))
        cv2.imwrite(str(folder / "infrared" / f"{index:06d}.png"), thermal.pixels)
    np.savetxt(folder / "groundtruth.txt", [scene.boxes(index)[0] for index in range(frames)], "%.3f", ",")
    return folder
