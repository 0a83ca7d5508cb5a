"""Bodies of a generated scene: outlines that move, swing and bend along closed formulas of time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ckd_tracker_ros.synthetic.config import KINDS, SceneConfig
from ckd_tracker_ros.synthetic.drawing import RGB_MEAN, TEXTURE, THERMAL_MEAN, Look, octaves

TWIN_LEVELS = 8.0
"""Largest difference of a look-alike, grey levels: noise comes on top."""


@dataclass(frozen=True, eq=False)
class Part:
    """One rigid piece of a body, in units of the body's size; limbs swing about a pivot."""

    outline: NDArray  # (n, 2)
    grey: float = 0.0  # lightness against the body's, grey levels
    heat: float = 0.0  # against the body's, share of its heat
    pivot: tuple[float, float] = (0.0, 0.0)
    swing: float = 0.0  # radians


def _capsule(x0: float, y0: float, x1: float, y1: float, radius: float) -> NDArray[np.float64]:
    """(18, 2) a line with round ends."""
    along = math.atan2(y1 - y0, x1 - x0)
    half = np.linspace(math.pi / 2, 3 * math.pi / 2, 9) + along
    ends = ((x0, y0, half), (x1, y1, half + math.pi))
    return np.concatenate([np.c_[x + radius * np.cos(angle), y + radius * np.sin(angle)] for x, y, angle in ends])


def _ellipse(x: float, y: float, rx: float, ry: float) -> NDArray[np.float64]:
    """(20, 2) an ellipse."""
    angle = np.linspace(0, 2 * math.pi, 20, endpoint=False)
    return np.c_[x + rx * np.cos(angle), y + ry * np.sin(angle)]


def _radial(rng: np.random.Generator, corners: int, roughness: float) -> NDArray[np.float64]:
    """(corners, 2) a closed outline about the origin whose radius varies."""
    angle = np.linspace(0, 2 * math.pi, corners, endpoint=False)
    if corners > 12:  # smooth: low harmonics
        order = np.arange(2, 6)[:, None]
        waves = np.cos(order * angle + rng.uniform(0, 7, (4, 1))) * rng.uniform(0, 1, (4, 1)) / order
        radius = 1 + roughness * waves.sum(0)
    else:
        radius = 1 - roughness * rng.uniform(0, 1, corners)
    points = np.c_[radius * np.cos(angle), radius * np.sin(angle)] * [rng.uniform(0.5, 1), 1]
    return points / np.ptp(points, axis=0).max()


def parts_of(kind: str, rng: np.random.Generator) -> list[Part]:
    """The pieces of a body of this kind, about one unit long or high, main piece first."""
    limb, tone = rng.uniform(0.3, 0.6), rng.uniform(-55, 55, 6)
    warm = rng.uniform(-0.6, 0.6, 6)
    sides = (-1, 1)
    if kind == "person":
        wide = rng.uniform(0.8, 1.3)
        pieces = [Part(_capsule(0, -0.26, 0, 0.02, 0.12 * wide))]
        for s in sides:
            leg = _capsule(s * 0.06, 0.03, s * 0.07, 0.44, 0.06 * wide)
            pieces.append(Part(leg, tone[0], warm[0], (s * 0.05, 0.0), s * limb))
            arm = _capsule(s * 0.12, -0.26, s * 0.16, 0.02, 0.042)
            pieces.append(Part(arm, tone[1], warm[1], (s * 0.12, -0.27), -s * limb))
        pieces.append(Part(_ellipse(0, -0.43, 0.07, 0.085), tone[2], 0.5))
        if rng.random() < 0.5:  # a rucksack
            pieces.append(Part(_ellipse(0.02, -0.16, 0.08 * wide, 0.11), tone[3], -0.4))
        return pieces
    if kind == "car":
        roof = rng.uniform(0.18, 0.34)
        x = [-0.5, -0.5, -0.3, -0.2, 0.18, 0.33, 0.5, 0.5]
        y = [0.12, -0.04, -0.08, -roof, -roof, -0.06, 0.0, 0.12]
        window = np.array([[-0.22, -0.07], [-0.15, -roof + 0.04], [0.14, -roof + 0.04], [0.24, -0.07]])
        wheels = [Part(_ellipse(x, 0.13, 0.085, 0.085), -70, 0.4) for x in (-0.3, 0.3)]
        lamp = Part(_ellipse(0.42, 0.03, 0.06, 0.05), tone[0], 0.5)
        return [Part(np.c_[x, y]), Part(window, -60, -0.7), *wheels, lamp]
    if kind == "animal":
        pieces = [Part(_ellipse(0, 0, 0.36, 0.15))]
        for x, s in ((-0.28, 1), (-0.2, -1), (0.18, -1), (0.26, 1)):
            pieces.append(Part(_capsule(x, 0.05, x, 0.32, 0.035), tone[0], warm[0], (x, 0.05), limb * s))
        tail = Part(_capsule(-0.34, -0.03, -0.48, -0.16, 0.025), tone[1], -0.3, (-0.34, 0), 0.6)
        return [*pieces, tail, Part(_ellipse(0.38, -0.14, 0.12, 0.1), tone[2], 0.4, (0.3, -0.05), 0.2)]
    if kind == "machine":
        corners = [(sx, sy) for sx in sides for sy in sides]
        arms = [Part(_capsule(0, 0, 0.36 * sx, 0.2 * sy, 0.035), tone[0], warm[0]) for sx, sy in corners]
        discs = [Part(_ellipse(0.38 * sx, 0.21 * sy, 0.12, 0.08), tone[1], 0.5) for sx, sy in corners]
        return [Part(_radial(rng, 6, 0.3) * 0.34), *arms, *discs]
    outline = _radial(rng, 40, 0.7) if kind == "blob" else _radial(rng, int(rng.integers(3, 9)), 0.5)
    pieces = [Part(outline)]
    for i in range(int(rng.integers(1, 5))):
        spot = _radial(rng, int(rng.integers(3, 20)), 0.5) * rng.uniform(0.2, 0.4) + rng.uniform(-0.15, 0.15, 2)
        pieces.append(Part(spot, tone[i], warm[i]))
    return pieces


def screen_of(rng: np.random.Generator) -> list[Part]:
    """The pieces of something that passes in front: one unit wide, its straight upper edge at y = 0."""
    height = rng.uniform(0.7, 1.1)
    wall = np.array([[-0.5, 0], [0.5, 0], [0.52, height], [-0.52, height]])
    tone, warm = rng.uniform(-45, 45, 4), rng.uniform(-0.5, 0.5, 4)
    x, y = rng.uniform(-0.33, 0.33, 4), rng.uniform(0.2, 0.8, 4) * height
    panel = np.array([[-0.12, -0.1], [0.12, -0.1], [0.12, 0.1], [-0.12, 0.1]])
    return [Part(wall), *(Part(panel + [x[i], y[i]], tone[i], warm[i]) for i in range(4))]


@dataclass(frozen=True, eq=False)
class Wave:
    """Constants of a sine: amplitude, radians per second, phase."""

    amplitude: float = 0.0
    rate: float = 0.0
    phase: float = 0.0

    def at(self, time: float) -> float:
        return self.amplitude * math.sin(self.rate * time + self.phase)


@dataclass(frozen=True, eq=False)
class Body:
    """Something that moves: its shape, its looks, and the constants of its path.

    Attributes:
        size: pixels of one unit.
        looks: surface in the RGB and in the thermal image.
        centre: (2,) middle of the path, world pixels.
        path: waves in x and in y, pixels.
        scale: of the logarithm of the size.
        turn: of the whole body, radians.
        gait: of limbs; its amplitude multiplies each limb's own swing.
        bend: units.
        stretch: (2,) factors of width and height; a negative width mirrors.
    """

    parts: list[Part]
    size: float
    looks: tuple[Look, Look]
    centre: NDArray[np.float64]
    path: tuple[tuple[Wave, ...], tuple[Wave, ...]] = ((), ())
    scale: Wave = Wave()
    turn: Wave = Wave()
    gait: Wave = Wave()
    bend: float = 0.0
    stretch: tuple[float, float] = (1.0, 1.0)

    def position(self, time: float) -> NDArray[np.float64]:
        """(2,) where the path is, world pixels."""
        return self.centre + [sum(wave.at(time) for wave in waves) for waves in self.path]

    def pose(self, time: float, centre: NDArray) -> NDArray[np.float64]:
        """(3, 3) body units to world pixels."""
        size, angle = self.size * math.exp(self.scale.at(time)), self.turn.at(time)
        c, s = size * math.cos(angle), size * math.sin(angle)
        x, y = self.stretch
        return np.array([[c * x, -s * y, centre[0]], [s * x, c * y, centre[1]], [0, 0, 1.0]])

    def outlines(self, time: float) -> list[NDArray[np.float64]]:
        """Every part's (n, 2) outline in body units at this time: limbs swung, the whole bent."""
        shapes = []
        for part in self.parts:
            points = part.outline
            if part.swing:
                angle = part.swing * self.gait.at(time)
                c, s = math.cos(angle), math.sin(angle)
                points = (points - part.pivot) @ np.array([[c, s], [-s, c]]) + part.pivot
            bent = points.copy()
            bent[:, 0] += self.bend * np.sin(0.7 * self.gait.rate * time + self.gait.phase + 4 * points[:, 1])
            shapes.append(bent)
        return shapes


def looks_of(rng: np.random.Generator, config: SceneConfig, parts: list[Part]) -> tuple[Look, Look]:
    """Surfaces in both images, drawn independently: what is bright need not be warm."""
    side = 1 if rng.random() < 0.5 else -1
    colour = RGB_MEAN + config.rgb_contrast * (side * rng.uniform(35, 85) + rng.uniform(-45, 45, 3))
    rise = rng.uniform(45, 130) if rng.random() < 0.75 else -rng.uniform(30, 65)
    heat = np.array([THERMAL_MEAN + config.thermal_contrast * rise])
    gain = 45 * config.thermal_contrast
    tones = [config.rgb_contrast * part.grey for part in parts], [gain * part.heat for part in parts]
    grains = rng.uniform(4, 22), rng.uniform(1, 5)
    return tuple(
        Look(np.clip(base, 12, 243), tone, np.float32(grain) * octaves(rng, TEXTURE, TEXTURE, 24, 0.8))
        for base, tone, grain in zip((colour, heat), tones, grains)
    )


def _waves(rng: np.random.Generator, reach: float, speed: float) -> tuple[Wave, ...]:
    """A slow wave and a faster, smaller one that together stay within `reach` pixels."""
    rate = min(speed / max(reach, 1.0), 5.0)
    rates, phases = rate * rng.uniform([0.7, 1.8], [1.2, 2.6]), rng.uniform(0, 2 * math.pi, 2)
    return tuple(Wave(reach * share, *constants) for share, *constants in zip((0.8, 0.2), rates, phases))


def wander(rng: np.random.Generator, config: SceneConfig, body: Body) -> Body:
    """The same body on a new path that stays inside the image while the camera rests."""
    room = np.array([config.width, config.height], np.float64)
    inner = np.maximum(room / 2 - 0.55 * body.size * math.sqrt(config.scale_change), 1)
    reach = np.minimum(inner, room * rng.uniform([0.1, 0.05], [0.4, 0.25]))
    centre = room / 2 + rng.uniform(-1, 1, 2) * (inner - reach)
    speeds = config.speed * rng.uniform([0.6, 0.2], [1.4, 0.6])
    return replace(body, centre=centre, path=tuple(_waves(rng, r, s) for r, s in zip(reach, speeds)))


def body_of(rng: np.random.Generator, config: SceneConfig, kind: str, size: float) -> Body:
    """A new body of this kind on a random path."""
    chosen = str(rng.choice(KINDS)) if kind == "any" else kind
    parts = parts_of(chosen, rng)
    upright = 0.4 if chosen in ("person", "car") else 1.0
    return wander(
        rng,
        config,
        Body(
            parts=parts,
            size=size,
            looks=looks_of(rng, config, parts),
            centre=np.zeros(2),
            scale=Wave(math.log(config.scale_change) / 2, rng.uniform(0.3, 0.9), rng.uniform(0, 6.3)),
            turn=Wave(config.deform * upright * rng.uniform(0.1, 0.5), rng.uniform(0.4, 2), rng.uniform(0, 6.3)),
            gait=Wave(math.sqrt(config.deform), rng.uniform(3, 9), rng.uniform(0, 6.3)),
            bend=config.deform * rng.uniform(0.01, 0.05),
            stretch=(float(rng.choice([-1, 1]) * rng.uniform(0.8, 1.2)), 1.0),
        ),
    )


def twin_of(rng: np.random.Generator, config: SceneConfig, body: Body) -> Body:
    """A look-alike: same size and shape at every moment, within `TWIN_LEVELS` grey levels, near by on its own path."""
    looks = tuple(
        replace(look, base=np.clip(look.base + rng.uniform(-TWIN_LEVELS, TWIN_LEVELS), 12, 243)) for look in body.looks
    )
    twin = wander(rng, config, replace(body, looks=looks))
    away = rng.uniform(0, 2 * math.pi)
    middle = body.centre + body.size * rng.uniform(1.2, 3.5) * np.array([math.cos(away), math.sin(away)])
    inner = 0.5 * body.size
    return replace(twin, centre=np.clip(middle, [inner, inner], [config.width - inner, config.height - inner]))
