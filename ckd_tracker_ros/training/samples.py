"""Drawing training pairs from a bank of contexts, a whole batch at a time, on the training device.

Geometry is the same for both modalities, photometry is not. A modality that was never recorded is rendered from the
other one. The lesson behind the pasted rivals: on static pairs a network learns to find the salient object and forgets
to compare it with the template.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ckd_tracker_ros.network.config import NetworkConfig
from ckd_tracker_ros.training.contexts import SIDE, Bank


class Batch(NamedTuple):
    """Training pairs.

    Attributes:
        templates (N, 2, 3, T, T), searches (N, 2, 3, S, S): grey levels 0..255, float.
        present: (N, 2) bool.
        boxes: (N, 4) xywh in units of the search crop.
        visible: (N,) bool, whether the target is in the search crop at all.
    """

    templates: Tensor
    searches: Tensor
    present: Tensor
    boxes: Tensor
    visible: Tensor


@dataclass(frozen=True)
class SampleConfig:
    """How hard the pairs are; probabilities unless said otherwise.

    Attributes:
        scale_jitter: standard deviation of the logarithm of the search crop's side.
        centre_jitter: largest distance of the target from the crop's centre, share of its side.
        rivals: how many other targets are pasted into the search crop at most.
        paste: the target itself is pasted into another scene.
        absent_target: another place is searched.
        blind: one modality of the search crop is dark or fogged.
        missing: one modality is absent, in template and search.
    """

    scale_jitter: float = 0.3
    centre_jitter: float = 0.38
    rivals: int = 2
    paste: float = 0.25
    absent_target: float = 0.06
    blind: float = 0.3
    missing: float = 0.16


class _View(NamedTuple):
    """Which part of a context a crop shows: centre (N, 2) and side (N, 2) in context pixels, angle (N,)."""

    centre: Tensor
    side: Tensor
    angle: Tensor


class Sampler:
    """Draws batches; the same generator state gives the same batch."""

    def __init__(self, bank: Bank, network: NetworkConfig, config: SampleConfig, generator: torch.Generator) -> None:
        self._bank, self._network, self._config, self._generator = bank, network, config, generator
        self._device = bank.pixels.device

    def draw(self, n: int) -> Batch:
        """`n` training pairs."""
        config, bank = self._config, self._bank
        track = torch.multinomial(bank.weight, n, replacement=True, generator=self._generator)
        old, new = (self._context_of(track) for _ in range(2))
        flip = self._chance(n, 0.5)
        style = self._style(n)

        view = self._template_view(old)
        template = self._render(old, view, self._network.template_size, flip, style)[0]

        view = self._search_view(new)
        search, inside, boxes = self._render(new, view, self._network.search_size, flip, style)
        other = self._other(n)
        elsewhere, _, _ = self._render(other, self._search_view(other), self._network.search_size, flip, self._style(n))
        fill = torch.where(self._chance(n, 0.6)[:, None, None, None], elsewhere, 0)
        search = torch.where(inside, search, fill)

        cells = _cells(self._network.search_size, self._device)
        around = _soft_box(cells, boxes, self._uniform(n, 1.0, 1.5))
        pasted = around * search + (1 - around) * elsewhere
        search = torch.where(self._chance(n, config.paste)[:, None, None, None], pasted, search)
        visible = ~self._chance(n, config.absent_target)
        search = torch.where(visible[:, None, None, None], search, elsewhere)
        for _ in range(config.rivals):
            search = self._paste_rival(search, boxes, visible, cells)
        search = self._occlude(search, boxes, cells)

        present = self.present(n)
        return Batch(
            self._photometry(template, 0.7),
            self._photometry(self._blind(search), 1.0),
            present,
            boxes,
            visible,
        )

    # ---- random numbers

    def _uniform(self, n: int, low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(n, *shape, device=self._device, generator=self._generator) * (high - low) + low

    def _normal(self, n: int, *shape: int) -> Tensor:
        return torch.randn(n, *shape, device=self._device, generator=self._generator)

    def _chance(self, n: int, probability: float) -> Tensor:
        return self._uniform(n, 0, 1) < probability

    def _context_of(self, track: Tensor) -> Tensor:
        count = self._bank.count[track]
        return self._bank.first[track] + (self._uniform(len(track), 0, 1) * count).long().clamp(max=count - 1)

    def _other(self, n: int) -> Tensor:
        return self._context_of(torch.multinomial(self._bank.weight, n, replacement=True, generator=self._generator))

    # ---- geometry

    def _template_view(self, index: Tensor) -> _View:
        n, box = len(index), self._bank.boxes[index]
        size = (box[:, 2] * box[:, 3]).sqrt()[:, None]
        side = size * self._network.template_factor * (0.06 * self._normal(n, 1)).exp()
        centre = box[:, :2] + box[:, 2:] / 2 + size * 0.04 * self._normal(n, 2)
        return _View(centre, side.expand(-1, 2), torch.zeros(n, device=self._device))

    def _search_view(self, index: Tensor) -> _View:
        n, box, config = len(index), self._bank.boxes[index], self._config
        size = (box[:, 2] * box[:, 3]).sqrt()[:, None]
        scale = (config.scale_jitter * self._normal(n, 1)).clamp(-0.8, 0.6).exp()
        stretch = (0.08 * self._normal(n, 1)).exp()
        side = size * self._network.search_factor * scale * torch.cat([stretch, 1 / stretch], dim=1)
        far = self._uniform(n, -1, 1, 2) * config.centre_jitter
        near = (0.08 * self._normal(n, 2)).clamp(-config.centre_jitter, config.centre_jitter)
        shift = torch.where(self._chance(n, 0.5)[:, None], far, near)
        angle = torch.where(self._chance(n, 0.3), self._normal(n) * 0.08, torch.zeros(n, device=self._device))
        return _View(box[:, :2] + box[:, 2:] / 2 + shift * side, side, angle)

    def _render(
        self, index: Tensor, view: _View, size: int, flip: Tensor, style: _Style
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(N, 4, S, S) pixels, (N, 1, S, S) where they are of the image, (N, 4) xywh box in units of the crop."""
        bank = self._bank
        u, v = _cells(size, self._device)
        mirrored = torch.where(flip, -1.0, 1.0)[:, None, None]
        cos, sin = view.angle.cos()[:, None, None], view.angle.sin()[:, None, None]
        du, dv = (u - 0.5) * mirrored * view.side[:, 0, None, None], (v - 0.5) * view.side[:, 1, None, None]
        x = view.centre[:, 0, None, None] + cos * du - sin * dv
        y = view.centre[:, 1, None, None] + sin * du + cos * dv
        grid = torch.stack([x, y], dim=-1) * (2 / SIDE) - 1
        pixels = F.grid_sample(bank.pixels[index].float(), grid, align_corners=False)
        left, top, right, bottom = (edge[:, None, None] for edge in bank.inside[index].unbind(1))
        inside = ((x > left) & (x < right) & (y > top) & (y < bottom))[:, None]

        box = bank.boxes[index]
        middle = box[:, :2] + box[:, 2:] / 2
        offset = middle - view.centre
        c, s = view.angle.cos(), view.angle.sin()
        offset = torch.stack([c * offset[:, 0] + s * offset[:, 1], c * offset[:, 1] - s * offset[:, 0]], dim=1)
        offset = offset * torch.stack([torch.where(flip, -1.0, 1.0), torch.ones_like(c)], dim=1)
        wh = box[:, 2:] / view.side
        boxes = torch.cat([offset / view.side + 0.5 - wh / 2, wh], dim=1)

        hot = _soft_box((u, v), boxes, torch.ones_like(c), round_=True)
        return style.complete(pixels, bank.has[index], hot), inside, boxes

    def _paste_rival(self, search: Tensor, boxes: Tensor, visible: Tensor, cells: tuple[Tensor, Tensor]) -> Tensor:
        """Another target, about as large as the true one and sometimes as bright, beside it."""
        n, bank = len(search), self._bank
        other = self._other(n)
        place = self._uniform(n, 0.1, 0.9, 2)
        size = (boxes[:, 2] * boxes[:, 3]).sqrt().clamp(0.05, 0.6) * (0.25 * self._normal(n)).exp()
        box = bank.boxes[other]
        side = ((box[:, 2] * box[:, 3]).sqrt() / size)[:, None].expand(-1, 2)
        centre = box[:, :2] + box[:, 2:] / 2 - (place - 0.5) * side
        view = _View(centre, side, torch.zeros(n, device=self._device))
        none = torch.zeros(n, dtype=torch.bool, device=self._device)
        rival, inside, rival_boxes = self._render(other, view, search.shape[-1], none, self._style(n))
        mask = _soft_box(cells, rival_boxes, self._uniform(n, 1.0, 1.4)) * inside
        own = _soft_box(cells, boxes, torch.ones(n, device=self._device), soft=0.02) * visible[:, None, None, None]
        alike = self._chance(n, 0.3)[:, None, None, None]
        rival = torch.where(alike, rival + _mean_under(search, own) - _mean_under(rival, mask), rival)
        mask = mask * (1 - own) * self._chance(n, 0.6)[:, None, None, None]  # never over the target
        return mask * rival.clamp(0, 255) + (1 - mask) * search

    def _occlude(self, search: Tensor, boxes: Tensor, cells: tuple[Tensor, Tensor]) -> Tensor:
        """A plain patch over a part of the target, now and then."""
        n = len(search)
        wh = boxes[:, 2:] * self._uniform(n, 0.2, 0.7, 2)
        corner = boxes[:, :2] + self._uniform(n, 0, 1, 2) * (boxes[:, 2:] - wh)
        mask = _soft_box(cells, torch.cat([corner, wh], dim=1), torch.ones(n, device=self._device), soft=0.02)
        mask = mask * self._chance(n, 0.15)[:, None, None, None]
        return mask * self._uniform(n, 0, 255, 4, 1, 1) + (1 - mask) * search

    # ---- photometry

    def _style(self, n: int) -> _Style:
        """How a missing modality of these targets looks: drawn once for template and search."""
        device = self._device
        weights = torch.rand(n, 3, 1, 1, device=device, generator=self._generator) + 0.1
        return _Style(
            weights / weights.sum(dim=1, keepdim=True),
            self._lut(n, 1),
            self._lut(n, 3, shared=0.7),
            torch.where(self._chance(n, 0.5), self._uniform(n, -70, 130), torch.zeros(n, device=device)),
            self._chance(n, 0.6),
        )

    def _lut(self, n: int, channels: int, shared: float = 0.0) -> Tensor:
        """(N, channels, 9) grey curves: mostly rising or falling, sometimes neither."""
        steps = self._normal(n, channels, 8).abs() + 0.2
        steps = shared * steps.mean(dim=1, keepdim=True) + (1 - shared) * steps
        bumpy = self._chance(n, 0.3)[:, None, None]
        steps = torch.where(bumpy, steps * self._normal(n, 1, 8).sign(), steps)
        curve = F.pad(steps.cumsum(-1), (1, 0))
        low, high = curve.amin(-1, keepdim=True), curve.amax(-1, keepdim=True)
        curve = (curve - low) / (high - low).clamp(min=1e-3)
        curve = torch.where(self._chance(n, 0.3)[:, None, None], 1 - curve, curve)
        span = self._uniform(n, 0.3, 1.0, 1, 1)
        return 255 * (curve * span + (1 - span) * self._uniform(n, 0, 1, 1, 1))

    def _blind(self, search: Tensor) -> Tensor:
        """Darkness or fog over one modality of the search crop."""
        n, size = len(search), search.shape[-1]
        left = self._uniform(n, 0.0, 0.4)[:, None, None, None]
        fog = F.interpolate(self._uniform(n, 0, 1, 1, 4, 4), size=(size, size), mode="bilinear") * 120
        fog = fog + self._uniform(n, 0, 140, 1, 1, 1)
        fog = torch.where(self._chance(n, 0.4)[:, None, None, None], fog * 0.1, fog)
        fogged = left * search + (1 - left) * fog
        draw = self._uniform(n, 0, 1)[:, None, None, None]
        share = self._config.blind
        rgb, thermal_ = search.split([3, 1], dim=1)
        rgb = torch.where(draw < share * 0.7, fogged[:, :3], rgb)
        thermal_ = torch.where((draw >= share * 0.7) & (draw < share), fogged[:, 3:], thermal_)
        return torch.cat([rgb, thermal_], dim=1)

    def _photometry(self, pixels: Tensor, strength: float) -> Tensor:
        """Contrast, brightness, colour, blur and noise, for each modality by itself.

        Returns:
            (N, 2, 3, S, S); the thermal channel is repeated.
        """
        n = len(pixels)
        both = torch.stack([pixels[:, :3], pixels[:, 3:].expand(-1, 3, -1, -1)], dim=1)
        grey = both.mean(dim=2, keepdim=True)
        both = torch.where(self._chance(n, 0.1 * strength)[:, None, None, None, None], grey, both)
        gain = (0.2 * strength * self._normal(n, 2, 1, 1, 1)).exp()
        bias = 20 * strength * self._normal(n, 2, 1, 1, 1)
        tint = (0.06 * strength * self._normal(n, 1, 3, 1, 1)).exp()
        middle = both.mean(dim=(2, 3, 4), keepdim=True)
        both = (both - middle) * gain + middle + bias
        both = torch.cat([both[:, :1] * tint, both[:, 1:]], dim=1)
        flat = both.flatten(0, 1)
        blurred = F.avg_pool2d(F.pad(flat, (1, 1, 1, 1), mode="replicate"), 3, stride=1).view_as(both)
        soft = (self._chance(2 * n, 0.3).view(n, 2, 1, 1, 1) * self._uniform(n, 0.3, 1, 2, 1, 1, 1)) * strength
        both = both + soft * (blurred - both)
        noise = self._uniform(n, 0, 9, 2, 1, 1, 1) * strength * self._chance(2 * n, 0.5).view(n, 2, 1, 1, 1)
        both = both + noise * self._normal(n, *both.shape[1:])
        return both.clamp(0, 255)

    def present(self, n: int) -> Tensor:
        """(N, 2) bool, which modalities of `n` pairs are present."""
        draw, missing = self._uniform(n, 0, 1), self._config.missing
        return torch.stack([draw > missing / 2, draw < 1 - missing / 2], dim=1)


class _Style(NamedTuple):
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


def _curve(pixels: Tensor, lut: Tensor) -> Tensor:
    """(N, C, H, W) grey levels through (N, C, 9) piecewise linear curves."""
    place = pixels.clamp(0, 255).flatten(2) * (8 / 255)
    low = place.floor().clamp(max=7).long()
    share = place - low
    return (lut.gather(2, low) * (1 - share) + lut.gather(2, low + 1) * share).view_as(pixels)


def _cells(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Centres of a crop's pixels in units of the crop: (1, 1, S) across, (1, S, 1) down."""
    line = (torch.arange(size, device=device) + 0.5) / size
    return line[None, None, :], line[None, :, None]


def _soft_box(
    cells: tuple[Tensor, Tensor], boxes: Tensor, grow: Tensor, soft: float = 0.15, round_: bool = False
) -> Tensor:
    """(N, 1, S, S) 1 inside the xywh boxes grown by a factor, 0 outside, with a soft edge; an ellipse if `round_`."""
    half = (boxes[:, 2:] / 2 * grow[:, None]).clamp(min=1e-3)
    middle = boxes[:, :2] + boxes[:, 2:] / 2
    dx = ((cells[0] - middle[:, 0, None, None]) / half[:, 0, None, None]).abs()
    dy = ((cells[1] - middle[:, 1, None, None]) / half[:, 1, None, None]).abs()
    distance = (dx**2 + dy**2).sqrt() if round_ else torch.maximum(*torch.broadcast_tensors(dx, dy))
    return ((1 - distance) / soft + 0.5).clamp(0, 1)[:, None]


def _mean_under(pixels: Tensor, mask: Tensor) -> Tensor:
    return (pixels * mask).sum(dim=(2, 3), keepdim=True) / mask.sum(dim=(2, 3), keepdim=True).clamp(min=1)
