"""What makes a sample's pixels: random numbers of its own, how an unrecorded modality looks, fog and darkness."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Draws:
    """Random numbers of N samples, each from a generator of its own: a sample does not depend on its batch."""

    def __init__(self, numbers: Iterable[int], seed: int, device: torch.device) -> None:
        self.device = device
        self._generators = [torch.Generator(device).manual_seed(seed * 1_000_000_007 + number) for number in numbers]

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """(N, *shape) between low and high."""
        rows = [torch.rand(shape, device=self.device, generator=g) for g in self._generators]
        return torch.stack(rows) * (high - low) + low

    def normal(self, *shape: int) -> Tensor:
        """(N, *shape) of mean 0 and spread 1."""
        return torch.stack([torch.randn(shape, device=self.device, generator=g) for g in self._generators])

    def chance(self, probability: float, *ones: int) -> Tensor:
        """(N, *ones) bool."""
        return self.uniform(0, 1, *ones) < probability


class Fog(NamedTuple):
    """Darkness or fog over one modality.

    Attributes:
        template, search: (N, 1, S, S) grey levels.
        left, through: (N, 1, 1, 1) and (N, 1, S, S) what is left of the template's and of the search crop's picture.
        hits: per modality (N, 1, 1, 1) bool.
        both: (N, 1, 1, 1) bool, of the template too.
    """

    template: Tensor
    search: Tensor
    left: Tensor
    through: Tensor
    hits: tuple[Tensor, Tensor]
    both: Tensor

    def over(self, pixels: Tensor, of_template: bool) -> Tensor:
        """(N, 4, S, S) pixels with the fog over them."""
        left, cloud = (self.left, self.template) if of_template else (self.through, self.search)
        fogged = left * pixels + (1 - left) * cloud
        parts = zip(self.hits, fogged.split([3, 1], dim=1), pixels.split([3, 1], dim=1))
        where = [torch.where(hit & self.both if of_template else hit, fog, clear) for hit, fog, clear in parts]
        return torch.cat(where, dim=1)


class Style(NamedTuple):
    """How a modality that was not recorded looks: the same in template and search."""

    weights: Tensor  # (N, 3, 1, 1) of colours in a rendered thermal image
    thermal: Tensor  # (N, 1, 9) grey curve of a rendered thermal image
    rgb: Tensor  # (N, 3, 9) curves of a rendered colour image
    heat: Tensor  # (N,) grey levels by which the target itself differs from what its colour says
    blur: Tensor  # (N,) bool

    def complete(self, pixels: Tensor, has: Tensor, hot: Tensor) -> Tensor:
        """Render the modality that was not recorded from the other one."""
        rgb, thermal_ = pixels.split([3, 1], dim=1)
        warmth = _curve((rgb * self.weights).sum(dim=1, keepdim=True), self.thermal) + hot * self.heat.view(-1, 1, 1, 1)
        soft = F.avg_pool2d(F.pad(warmth, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
        warmth = torch.where(self.blur.view(-1, 1, 1, 1), soft, warmth).clamp(0, 255)
        colours = _curve(thermal_.expand(-1, 3, -1, -1), self.rgb)
        has_rgb, has_thermal = has.view(-1, 2, 1, 1, 1).unbind(1)
        return torch.cat([torch.where(has_rgb, rgb, colours), torch.where(has_thermal, thermal_, warmth)], dim=1)


def draw_style(draws: Draws) -> Style:
    """How the targets of N samples look where they were not recorded."""
    weights = draws.uniform(0.1, 1.1, 3, 1, 1)
    heat = draws.uniform(-70, 130) * draws.chance(0.5)
    return Style(
        weights / weights.sum(dim=1, keepdim=True), _lut(draws, 1), _lut(draws, 3, 0.7), heat, draws.chance(0.6)
    )


def _lut(draws: Draws, channels: int, shared: float = 0.0) -> Tensor:
    """(N, channels, 9) grey curves: mostly rising or falling, sometimes neither."""
    steps = draws.normal(channels, 8).abs() + 0.2
    steps = shared * steps.mean(dim=1, keepdim=True) + (1 - shared) * steps
    steps = torch.where(draws.chance(0.3, 1, 1), steps * draws.normal(1, 8).sign(), steps)
    curve = F.pad(steps.cumsum(-1), (1, 0))
    low, high = curve.amin(-1, keepdim=True), curve.amax(-1, keepdim=True)
    curve = (curve - low) / (high - low).clamp(min=1e-3)
    curve = torch.where(draws.chance(0.3, 1, 1), 1 - curve, curve)
    span = draws.uniform(0.3, 1.0, 1, 1)
    return 255 * (curve * span + (1 - span) * draws.uniform(0, 1, 1, 1))


def _curve(pixels: Tensor, lut: Tensor) -> Tensor:
    """(N, C, H, W) grey levels through (N, C, 9) piecewise linear curves."""
    place = pixels.clamp(0, 255).flatten(2) * (8 / 255)
    low = place.floor().clamp(max=7).long()
    share = place - low
    return (lut.gather(2, low) * (1 - share) + lut.gather(2, low + 1) * share).view_as(pixels)
