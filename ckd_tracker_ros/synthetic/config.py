"""What a generated scene holds and how hard it is."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

RGB_FAULTS = ("none", "dark", "smoke", "glare")
KINDS = ("person", "car", "animal", "blob", "polygon", "machine")
HIDINGS = ("behind", "outside")


@dataclass(frozen=True)
class SceneConfig:
    """What a scene holds and how hard it is.

    Attributes:
        width, height: size of the RGB image, pixels.
        frames, fps: length and rate.
        targets: how many bodies have boxes.
        look_alikes: copies of the targets (same size and shape, within 10 grey levels in both images) in turn.
        distractors: other bodies that move about.
        kind: shape of the targets, one of `KINDS`, or `any`.
        size: smallest and largest height or length of a target, at its middle scale, pixels.
        speed: typical speed, pixels per second.
        scale_change: largest over smallest size of one body over time, 1 for none.
        deform: how much bodies bend and turn, 0..1.
        occlusion: share of a target's height that a foreground object hides while it crosses, once in a cycle; 0 for
            none.
        absence: share of a cycle that every target spends outside the image; 0 for none. A cycle lasts the whole
            scene, at most 8 s; it begins with the targets in view.
        hidden: first frame in which nothing is seen of any target, and first after it; None for never.
        hiding: one of `HIDINGS`: something drives in front of every target and stays there, or the targets walk out of
            the image and come back in where they left.
        camera_motion: largest shift of the view, share of the image's width.
        clutter: number of static structures in the background.
        rgb_contrast, thermal_contrast: of bodies against the background's mean, 1 for clear, 0 for none.
        rgb_noise, thermal_noise: standard deviation, grey levels.
        rgb_fault: one of `RGB_FAULTS`. Thermal never changes with it.
        fault_level: strength of the fault, 0..1.
        fault_frames: first frame of the fault and first after it; None for all frames.
        thermal_bits: 8, or 16 for raw counts (about 7000 to 9000).
        thermal_blur: standard deviation of the thermal optics' blur, thermal pixels.
        thermal_size: width and height of the thermal image; None for those of the RGB image.
        homography: 3x3, thermal to RGB pixels, row major; None scales by image size.

    Raises:
        ValueError: a value is out of its range; names it and what is allowed.
    """

    width: int = 640
    height: int = 480
    frames: int = 300
    fps: float = 30.0
    targets: int = 1
    look_alikes: int = 0
    distractors: int = 2
    kind: str = "any"
    size: tuple[float, float] = (50.0, 130.0)
    speed: float = 60.0
    scale_change: float = 1.4
    deform: float = 0.5
    occlusion: float = 0.0
    absence: float = 0.0
    hidden: tuple[int, int] | None = None
    hiding: str = "behind"
    camera_motion: float = 0.04
    clutter: int = 18
    rgb_contrast: float = 1.0
    thermal_contrast: float = 1.0
    rgb_noise: float = 3.0
    thermal_noise: float = 2.0
    rgb_fault: str = "none"
    fault_level: float = 0.8
    fault_frames: tuple[int, int] | None = None
    thermal_bits: int = 8
    thermal_blur: float = 0.9
    thermal_size: tuple[int, int] | None = None
    homography: tuple[tuple[float, float, float], ...] | None = None

    def __post_init__(self) -> None:
        ranges = {
            "width": (32, 8192), "height": (32, 8192), "frames": (1, 10**7), "fps": (0.1, 1000.0), "targets": (0, 64),
            "look_alikes": (0, 64), "distractors": (0, 64), "speed": (0.0, 5000.0), "scale_change": (1.0, 4.0),
            "deform": (0.0, 1.0), "occlusion": (0.0, 1.0), "absence": (0.0, 0.6), "camera_motion": (0.0, 0.2),
            "clutter": (0, 500), "rgb_contrast": (0.0, 1.0), "thermal_contrast": (0.0, 1.0), "rgb_noise": (0.0, 40.0),
            "thermal_noise": (0.0, 40.0), "fault_level": (0.0, 1.0), "thermal_blur": (0.0, 10.0),
        }  # fmt: skip
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value!r}; allowed: {low} to {high}")
        choices = {
            "rgb_fault": RGB_FAULTS, "thermal_bits": (8, 16), "kind": ("any", *KINDS), "hiding": HIDINGS,
        }  # fmt: skip
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; allowed: {', '.join(map(str, allowed))}")
        if len(self.size) != 2 or not 4 <= self.size[0] <= self.size[1]:
            raise ValueError(f"size is {self.size!r}; allowed: smallest and largest, pixels, at least 4, in that order")
        if self.thermal_size is not None and (len(self.thermal_size) != 2 or min(self.thermal_size) < 32):
            raise ValueError(f"thermal_size is {self.thermal_size!r}; allowed: width and height from 32 on, or None")
        for name in ("fault_frames", "hidden"):
            span = getattr(self, name)
            if span is not None and (len(span) != 2 or span[0] > span[1]):
                raise ValueError(f"{name} is {span!r}; allowed: first and end frame in order, or None")
        if self.hidden is not None and (self.occlusion or self.absence):
            raise ValueError("hidden, occlusion and absence say three times when targets are seen; hidden goes alone")
        if self.homography is not None:
            matrix = np.asarray(self.homography, np.float64)
            if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-9:
                raise ValueError(f"homography is {self.homography!r}; allowed: an invertible 3x3 matrix, or None")
            width, height = self.thermal_width_height
            corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]])
            depths = corners @ matrix[2]
            if not ((depths > 1e-6).all() or (depths < -1e-6).all()):
                raise ValueError(f"homography is {self.homography!r}; it sends a part of the thermal image to infinity")

    @property
    def thermal_width_height(self) -> tuple[int, int]:
        """Size of the thermal image, pixels."""
        return self.thermal_size or (self.width, self.height)

    @property
    def thermal_to_rgb(self) -> NDArray[np.float64]:
        """(3, 3) the homography in use, thermal to RGB pixels."""
        if self.homography is not None:
            return np.asarray(self.homography, np.float64)
        width, height = self.thermal_width_height
        return np.diag([self.width / width, self.height / height, 1.0])


def random_config(rng: np.random.Generator, **fixed: object) -> SceneConfig:
    """A scene of random difficulty for training; `fixed` overrides fields of `SceneConfig` by name.

    Raises:
        ValueError: an unknown name in `fixed`, or a value that `SceneConfig` refuses.
    """
    unknown = sorted(set(fixed) - {field.name for field in fields(SceneConfig)})
    if unknown:
        raise ValueError(f"unknown: {', '.join(unknown)}; known: {', '.join(f.name for f in fields(SceneConfig))}")
    smallest = float(np.exp(rng.uniform(math.log(14), math.log(110))))
    drawn = SceneConfig(
        frames=120,
        targets=int(rng.integers(1, 4)),
        look_alikes=int(rng.choice([0, 0, 1, 2, 4])),
        distractors=int(rng.integers(0, 7)),
        size=(smallest, smallest * float(rng.uniform(1.2, 2.2))),
        speed=float(np.exp(rng.uniform(math.log(10), math.log(220)))),
        scale_change=float(rng.uniform(1, 1.9)),
        deform=float(rng.uniform(0, 1)),
        occlusion=float(rng.choice([0, 0, rng.uniform(0.2, 1)])),
        absence=float(rng.choice([0, 0, 0, rng.uniform(0.1, 0.4)])),
        camera_motion=float(rng.uniform(0, 0.12)),
        clutter=int(rng.integers(4, 60)),
        rgb_contrast=float(rng.uniform(0.25, 1)),
        thermal_contrast=float(rng.uniform(0.25, 1)),
        rgb_noise=float(rng.uniform(0, 10)),
        thermal_noise=float(rng.uniform(0.5, 8)),
        rgb_fault=str(rng.choice(["none", "none", *RGB_FAULTS])),
        fault_level=float(rng.uniform(0.3, 1)),
        thermal_bits=int(rng.choice([8, 16])),
        thermal_blur=float(rng.uniform(0, 2)),
    )
    return replace(drawn, **fixed)
