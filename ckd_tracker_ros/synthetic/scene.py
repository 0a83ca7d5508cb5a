"""A generated scene: who is where at a time, and what both cameras see of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ckd_tracker_ros.boxes import xyxy_to_xywh
from ckd_tracker_ros.frame import Image, RgbtFrame
from ckd_tracker_ros.synthetic.bodies import Body, Wave, body_of, looks_of, screen_of, twin_of, wander
from ckd_tracker_ros.synthetic.config import SceneConfig
from ckd_tracker_ros.synthetic.drawing import Fault, Noise, backdrops, fill, paint, shift, transform, warp

CYCLE_S = 8.0  # longest time between two absences or two crossings of a target
AWAY_MIDDLE, AWAY_RAMP = 0.6, 0.16  # of an absence, shares of a cycle
COUNTS_OFFSET, COUNTS_PER_LEVEL = 7000.0, 8.0  # 16-bit thermal: as an uncooled 14-bit camera at room temperature
HIDE_RAMP = 50  # frames in which a target walks out of the image, and in
COVER = 2.4  # side of what stays in front of a target, in sizes of it
COVER_SPEED = 12.0  # of what drives in front of a target, against it, pixels per frame
BOX_TRIES = 16  # places tried for a target, to keep targets apart in the first frame


@dataclass(frozen=True, eq=False)
class _Actor:
    """A body with its part in the scene."""

    body: Body
    role: str  # target, look-alike, distractor or screen
    leaves: int = 0  # towards the left (-1) or right (1) when absent
    hides: int | None = None  # a screen's target


class _Placed(NamedTuple):
    """An actor at one time."""

    actor: _Actor
    pose: NDArray[np.float64]  # (3, 3) body units to RGB pixels
    outlines: list[NDArray[np.float64]]  # (n, 2) per part, RGB pixels

    @property
    def points(self) -> NDArray[np.float64]:
        return np.concatenate(self.outlines)


def _extent(points: NDArray) -> NDArray[np.float64]:
    """(4,) xywh of (n, 2) points."""
    return xyxy_to_xywh(np.concatenate([points.min(0), points.max(0)]))


class Scene:
    """A generated RGB-thermal recording: frames in any order, each a function of configuration, seed and index alone.

    Args:
        config: what it holds.
        seed: 0 or more.

    Raises:
        ValueError: a negative seed.
    """

    def __init__(self, config: SceneConfig, seed: int) -> None:
        if seed < 0:
            raise ValueError(f"seed is {seed}; allowed: 0 or more")
        self.config = config
        self.seed = seed
        rng = np.random.default_rng(seed)
        self._cycle = min(CYCLE_S, config.frames / config.fps)
        self._drift = config.camera_motion * config.width
        self._camera = tuple(Wave(self._drift * share, rng.uniform(0.3, 1.1)) for share in (1.0, 0.6))
        self._sizes = (config.width, config.height), config.thermal_width_height
        self._from_rgb = np.eye(3), np.linalg.inv(config.thermal_to_rgb)
        self._actors = self._cast(rng)
        # Blur of the thermal optics is given in thermal pixels; the canvas is in RGB pixels.
        zoom = math.sqrt(abs(np.linalg.det(config.thermal_to_rgb[:2, :2])))
        self._origin, canvas_size = self._canvas()
        self._canvases = backdrops(rng, config, canvas_size, config.thermal_blur * zoom)
        self._blurs = (0.0, config.thermal_blur)
        (width, height), (thermal_width, thermal_height) = self._sizes
        self._noises = (
            Noise(rng, (height, width, 3), config.rgb_noise, np.int16),
            Noise(rng, (thermal_height, thermal_width), config.thermal_noise, np.float32),
        )
        columns, rows = (rng.standard_normal(shape, np.float32) for shape in ((1, thermal_width), (thermal_height, 1)))
        self._pattern = np.float32(0.5 * config.thermal_noise) * (columns + 0.4 * rows)
        self._fault = Fault(rng, config)  # last: a fault must not change what chance gives to the rest

    def __len__(self) -> int:
        return self.config.frames

    def frame(self, i: int) -> RgbtFrame:
        """Both images of frame `i`: RGB as uint8 in `bgr` order, thermal as `mono`, uint8 or uint16.

        Raises:
            IndexError: there is no such frame.
        """
        placed = self._place(i)
        rng = np.random.default_rng([self.seed, i])
        camera = shift(self._camera_at(i / self.config.fps) - self._origin)
        images = []
        for modality, (canvas, size, from_rgb) in enumerate(zip(self._canvases, self._sizes, self._from_rgb)):
            image = warp(canvas, camera @ np.linalg.inv(from_rgb), size)
            for actor, pose, outlines in placed:
                outlines = self._mapped(from_rgb, outlines)
                paint(image, outlines, actor.body.looks[modality], self._local(from_rgb, pose), self._blurs[modality])
            images.append(image)
        visible, heat = images
        visible = cv2.add(self._fault.apply(visible, i), self._noises[0].at(rng), dtype=cv2.CV_8U)
        heat = heat + self._noises[1].at(rng) + self._pattern
        return RgbtFrame((Image(visible, "bgr"), Image(self._digitise(heat), "mono")), round(i * 1e9 / self.config.fps))

    def boxes(self, i: int) -> list[NDArray[np.float64]]:
        """(4,) xywh in RGB pixels per target: the extent of the whole body, also where it is hidden or outside."""
        return [_extent(placed.points) for placed in self._of(i, "target")]

    def thermal_boxes(self, i: int) -> list[NDArray[np.float64]]:
        """(4,) xywh in thermal pixels per target, exact: the extent of the body as that camera sees it."""
        return [_extent(transform(self._from_rgb[1], placed.points)) for placed in self._of(i, "target")]

    def look_alike_boxes(self, i: int) -> list[NDArray[np.float64]]:
        """(4,) xywh in RGB pixels per look-alike; the k-th copies target k modulo the number of targets."""
        return [_extent(placed.points) for placed in self._of(i, "look-alike")]

    def visible(self, i: int) -> list[float]:
        """Per target, the share 0..1 of its area that is inside the RGB image and not behind another body.

        Faults of the camera do not count.
        """
        return self._shares(i, "target")

    def look_alikes_visible(self, i: int) -> list[float]:
        """As `visible`, per look-alike, in the order of `look_alike_boxes`."""
        return self._shares(i, "look-alike")

    # ---- who takes part ----

    def _cast(self, rng: np.random.Generator) -> list[_Actor]:
        """Everybody, in the order of drawing."""
        config = self.config
        if not config.targets:
            twins, screens = 0, 0
        else:
            twins, screens = config.look_alikes, config.targets * (config.occlusion > 0 or self._covered)
        targets: list[_Actor] = []
        for _ in range(config.targets):
            body = body_of(rng, config, config.kind, self._size(rng))
            tries = [wander(rng, config, body) for _ in range(BOX_TRIES)]
            starts = [other.body.position(0) for other in targets]
            body = max(tries, key=lambda b: min((math.dist(b.position(0), start) for start in starts), default=0))
            targets.append(_Actor(body, "target", leaves=1 if body.centre[0] > config.width / 2 else -1))
        others = [_Actor(twin_of(rng, config, targets[k % len(targets)].body), "look-alike") for k in range(twins)]
        for _ in range(config.distractors):
            body = body_of(rng, config, "any", self._size(rng) * rng.uniform(0.5, 1.3))
            others.append(_Actor(body, "distractor"))
        self._targets = targets
        self._screens = [_Actor(self._screen(rng, target.body), "screen", hides=k) for k, target in enumerate(targets)]
        # Others pass behind and in front, but a target is begun with: those that hide it then go behind it.
        layers = rng.random(len(others)) < 0.5
        starts = [self._placed(target, 0.0) for target in targets]
        for k, other in enumerate(others):
            cover = self._placed(other, 0.0)
            layers[k] &= all(self._share(start, [cover]) > 0.97 for start in starts)
        behind = [other for other, front in zip(others, layers) if not front]
        front = [other for other, front in zip(others, layers) if front]
        self._others = others
        return [*behind, *targets, *front, *self._screens[:screens]]

    def _size(self, rng: np.random.Generator) -> float:
        """Of a new body, pixels; evenly on a logarithmic scale."""
        return float(np.exp(rng.uniform(*np.log(self.config.size))))

    def _screen(self, rng: np.random.Generator, target: Body) -> Body:
        """Something that passes in front of a target, from left to right or back."""
        parts = screen_of(rng)
        size = (COVER if self._covered else 1.7) * target.size * math.sqrt(self.config.scale_change)
        direction = float(rng.choice([-1, 1]))
        return Body(parts, size, looks_of(rng, self.config, parts), np.array([direction, 0.0]))

    def _actors_of(self, role: str) -> list[_Actor]:
        return [actor for actor in (*self._targets, *self._others) if actor.role == role]

    # ---- where they are ----

    def _camera_at(self, time: float) -> NDArray[np.float64]:
        """(2,) RGB pixels are world pixels less this."""
        return np.array([wave.at(time) for wave in self._camera])

    @property
    def _covered(self) -> bool:
        """Whether something stays in front of the targets for a while."""
        return self.config.hidden is not None and self.config.hiding == "behind"

    def _from_hidden(self, time: float) -> float:
        """Frames until the targets are hidden (below 0), or since they were."""
        frame, (first, end) = time * self.config.fps, self.config.hidden
        return min(frame - first, 0.0) + max(frame - (end - 1), 0.0)

    @property
    def _away(self) -> tuple[float, float]:
        """Ramp, and first moment of an absence, shares of a cycle."""
        ramp = min(AWAY_RAMP, 1 - AWAY_MIDDLE - self.config.absence / 2)
        return ramp, AWAY_MIDDLE - self.config.absence / 2

    def _centre(self, actor: _Actor, time: float) -> NDArray[np.float64]:
        """(2,) world pixels."""
        body, config = actor.body, self.config
        share = (time / self._cycle) % 1.0
        if actor.hides is not None:
            return self._screen_centre(actor, time, share)
        centre = body.position(time)
        leaves = config.hidden is not None and config.hiding == "outside"
        if actor.role == "target" and (leaves or config.absence > 0):
            if leaves:
                step = max(0.0, 1 - abs(self._from_hidden(time)) / HIDE_RAMP)
            else:
                ramp, _ = self._away
                nearness = abs(share - AWAY_MIDDLE) - config.absence / 2  # 0 and less: away
                step = float(np.clip(1 - nearness / ramp, 0, 1))
            edge = config.width if actor.leaves > 0 else 0.0
            border = edge + actor.leaves * (body.size * math.sqrt(config.scale_change) + self._drift + 4)
            centre[0] += (3 * step**2 - 2 * step**3) * (border - centre[0])
        return centre

    def _screen_centre(self, actor: _Actor, time: float, share: float) -> NDArray[np.float64]:
        """(2,) world pixels: slow while it crosses, out of view at both ends of the cycle."""
        config = self.config
        if self._covered:
            x, y, width, height = _extent(self._placed(self._targets[actor.hides], time, still=True).points)
            x += width / 2 + actor.body.centre[0] * COVER_SPEED * self._from_hidden(time)
            tall = np.ptp(actor.body.parts[0].outline[:, 1]) * actor.body.size
            return np.array([x, y + height / 2 - tall / 2])
        ramp, first = self._away
        meeting = first - ramp - 0.05 if config.absence > 0 else 0.35
        moment = (math.floor(time / self._cycle) + meeting) * self._cycle
        x, y, width, height = _extent(self._placed(self._targets[actor.hides], moment, still=True).points)
        step = (share - meeting) / meeting
        far = config.width + actor.body.size + self._drift
        x += width / 2 + actor.body.centre[0] * far * (0.2 * step + 0.8 * step**3)
        return np.array([x, y + height * (1 - 1.02 * config.occlusion)])

    def _placed(self, actor: _Actor, time: float, still: bool = False) -> _Placed:
        """An actor at a time, in RGB pixels; `still`, for a camera that rests: in world pixels."""
        camera = 0 if still else self._camera_at(time)
        pose = actor.body.pose(time, self._centre(actor, time) - camera)
        return _Placed(actor, pose, self._mapped(pose, actor.body.outlines(time)))

    def _place(self, i: int) -> list[_Placed]:
        """Everybody in frame `i`, in the order of drawing."""
        if not 0 <= i < len(self):
            raise IndexError(f"frame {i} of a scene with frames 0 to {len(self) - 1}")
        return [self._placed(actor, i / self.config.fps) for actor in self._actors]

    def _of(self, i: int, role: str) -> list[_Placed]:
        """Those of one role in frame `i`, in the order of their making."""
        if not 0 <= i < len(self):
            raise IndexError(f"frame {i} of a scene with frames 0 to {len(self) - 1}")
        return [self._placed(actor, i / self.config.fps) for actor in self._actors_of(role)]

    def _shares(self, i: int, role: str) -> list[float]:
        """`_share` of those of one role in frame `i`, in the order of their making."""
        placed = self._place(i)
        shares = {
            id(own.actor): self._share(own, placed[index + 1 :])
            for index, own in enumerate(placed)
            if own.actor.role == role
        }
        return [shares[id(actor)] for actor in self._actors_of(role)]

    def _share(self, own: _Placed, covers: list[_Placed]) -> float:
        """Of a body's area, inside the RGB image and not behind `covers`."""
        corner = np.floor(own.points.min(0)) - 2
        width, height = np.ceil(own.points.max(0) - corner).astype(int) + 3
        mask, seen = np.zeros((height, width), np.uint8), np.zeros((height, width), np.uint8)
        for outline in own.outlines:
            fill(mask, outline - corner, 255)
        left, top = np.maximum(-corner, 0).astype(int)
        right, bottom = np.clip(self._sizes[0] - corner, 0, [width, height]).astype(int)
        seen[top:bottom, left:right] = mask[top:bottom, left:right]
        for cover in covers:
            points = cover.points - corner
            if (points.max(0) < 0).any() or (points.min(0) > [width, height]).any():
                continue
            for outline in cover.outlines:
                fill(seen, outline - corner, 0)
        return float(seen.sum(dtype=np.int64) / max(mask.sum(dtype=np.int64), 1))

    # ---- what is seen ----

    def _canvas(self) -> tuple[NDArray[np.float64], tuple[int, int]]:
        """World pixel of the canvas's corner, (2,), and its width and height: all that the cameras ever see."""
        corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.float64)
        room = np.array(self._sizes[0])
        seen = [corners * room, transform(self.config.thermal_to_rgb, corners * self._sizes[1])]
        seen = np.concatenate(seen)
        low = np.maximum(np.floor(seen.min(0)), -room) - math.ceil(self._drift) - 2
        high = np.minimum(np.ceil(seen.max(0)), 2 * room) + math.ceil(self._drift) + 2
        size = (high - low).astype(int)
        return low, (int(size[0]), int(size[1]))

    @staticmethod
    def _mapped(matrix: NDArray, outlines: list[NDArray]) -> list[NDArray[np.float64]]:
        """(n, 2) per part through a (3, 3) homography, all at once."""
        points, end = transform(matrix, np.concatenate(outlines)), 0
        return [points[end - len(outline) : end] for outline in outlines if (end := end + len(outline))]

    @staticmethod
    def _local(homography: NDArray, pose: NDArray) -> NDArray[np.float64]:
        """(3, 3) affine body units to image pixels, right at the body's centre: carries a texture through."""
        matrix = homography @ pose
        middle = matrix[:2, 2] / matrix[2, 2]
        slopes = (matrix[:2, :2] - np.outer(middle, matrix[2, :2])) / matrix[2, 2]
        return np.array([[*slopes[0], middle[0]], [*slopes[1], middle[1]], [0, 0, 1.0]])

    def _digitise(self, heat: NDArray[np.float32]) -> NDArray:
        """Grey levels to what the camera gives."""
        if self.config.thermal_bits == 8:
            return np.clip(heat, 0, 255).astype(np.uint8)
        return (COUNTS_OFFSET + COUNTS_PER_LEVEL * np.maximum(heat, 0)).astype(np.uint16)
