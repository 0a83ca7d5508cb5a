"""Drawing training pairs from a bank of contexts, a whole batch at a time, on the training device.

Geometry is the same for both modalities up to a small misalignment, photometry is not. A modality that was never
recorded is rendered from the other one. Several targets are asked for in every search crop, those recorded beside the
first or others pasted into it: on crops with one target a network learns to find the salient object and forgets to
compare it with the template.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ckd_tracker_ros.frame import MODALITIES
from ckd_tracker_ros.network.config import NetworkConfig
from ckd_tracker_ros.training.appearance import Draws, Fog, Style, draw_style
from ckd_tracker_ros.training.contexts import ALONE, Bank


class Batch(NamedTuple):
    """N search crops with K targets each, in M modalities.

    Attributes:
        templates (N, K, M, 3, T, T), searches (N, M, 3, S, S): grey levels 0..255, float.
        extents: (N, K, 2) width and height of the target's box in units of the template crop.
        present: (N, M) bool.
        boxes: (N, K, 4) xywh in units of the search crop.
        visible: (N, K) bool, whether the target is in the search crop at all.
        hidden: (N, F * F) bool, search tokens hidden from the students, the same in all modalities.
    """

    templates: Tensor
    extents: Tensor
    searches: Tensor
    present: Tensor
    boxes: Tensor
    visible: Tensor
    hidden: Tensor


@dataclass(frozen=True)
class SampleConfig:
    """How hard the pairs are; probabilities unless said otherwise.

    Attributes:
        targets: K, how many targets are asked for in one search crop.
        beside: a target behind the first is one that was recorded beside it, where there is one, instead of one that
            is pasted into the crop: people beside people.
        scale_jitter: standard deviation of the logarithm of the search crop's side.
        centre_jitter: largest distance of the target from the crop's centre, share of its side.
        near: the target is close to the centre, as it is while it is being tracked, instead of anywhere.
        stretch: standard deviation of the logarithm of the change of aspect.
        warp: the target bends, by a few percent of its size.
        turn: the search crop is turned by a few degrees.
        misalignment: standard deviation of the shift of thermal against RGB, share of the target's size.
        paste: the target itself is pasted into another scene.
        absent_target: another place is searched.
        fill: another image lies behind the border of the search crop, instead of black.
        cut: the template is cut off at a side as by the border of an image; where it was recorded, the border is the
            same in both crops, and would be learned as a part of the target.
        blind: one modality of the search crop is dark or fogged, and in half of these cases of the template too.
        missing: one modality is absent, in template and search.
        hidden: a search token is hidden from the students (masked modelling).
        occluded: a plain patch covers a part of the target.
        photometry: strength of the changes of brightness, contrast, colour, blur and noise; 0 for none.
    """

    targets: int = 3
    beside: float = 0.7
    scale_jitter: float = 0.3
    centre_jitter: float = 0.38
    near: float = 0.5
    stretch: float = 0.12
    warp: float = 0.4
    turn: float = 0.3
    misalignment: float = 0.03
    paste: float = 0.25
    absent_target: float = 0.06
    fill: float = 0.6
    cut: float = 0.3
    blind: float = 0.45
    missing: float = 0.25
    hidden: float = 0.0
    occluded: float = 0.15
    photometry: float = 1.0


class _View(NamedTuple):
    """Which part of a context a crop shows.

    Attributes:
        centre, side: (N, 2) in context pixels.
        angle: (N,).
        bend: (N, 2, 4, 4) displacement in context pixels.
        thermal_shift: (N, 2) of thermal against RGB, in context pixels.
    """

    centre: Tensor
    side: Tensor
    angle: Tensor
    bend: Tensor
    thermal_shift: Tensor


class Sampler:
    """Draws batches; the same numbers and seed give the same samples, whatever batch they are drawn in.

    They are made in both modalities, and those of the network are handed out: networks of other modalities get the
    same samples.
    """

    def __init__(self, bank: Bank, network: NetworkConfig, config: SampleConfig) -> None:
        self._bank, self._network, self._config = bank, network, config
        self._device = bank.pixels.device
        self._cumulated = bank.weight.double().cumsum(0)
        self._track = torch.arange(len(bank.count), device=self._device).repeat_interleave(
            bank.count
        )  # of each context

    def draw(self, numbers: Iterable[int], seed: int) -> Batch:
        """Training samples of the given global numbers."""
        config, network = self._config, self._network
        draws = Draws(numbers, seed, self._device)
        targets = [self._target(draws) for _ in range(config.targets)]

        search, boxes, view, lit = self._scene(targets[0], draws)
        cells = _cells(network.search_size, self._device)
        present_target = ~draws.chance(config.absent_target)
        other = self._target(draws)
        elsewhere = self._render(other, self._search_view(other.new, draws), network.search_size).pixels
        pasted = draws.chance(config.paste)[:, None, None, None]
        around = _soft_box(cells, boxes, draws.uniform(1.0, 1.5))
        search = torch.where(pasted, around * search + (1 - around) * elsewhere, search)
        search = torch.where(present_target[:, None, None, None], search, elsewhere)
        lit = lit | pasted | ~present_target[:, None, None, None]

        taken = _soft_box(cells, boxes, torch.ones_like(boxes[:, 0]), soft=0.02) * present_target[:, None, None, None]
        all_boxes, visible, levels = [boxes], [present_target], [torch.zeros_like(search[:, :, :1, :1])]
        alone = pasted.flatten() | ~present_target
        for i, rival in enumerate(targets[1:], 1):
            neighbour, place, seen = self._beside(targets[0], view, draws)
            seen = seen & ~alone
            taken = torch.maximum(
                taken, seen[:, None, None, None] * _soft_box(cells, place, torch.ones_like(place[:, 0]))
            )
            search, taken, box, shown, level = self._paste_rival(rival, search, taken, lit, boxes, ~seen, cells, draws)
            targets[i] = _either(seen, neighbour, rival)
            all_boxes.append(torch.where(seen[:, None], place, box))
            visible.append(seen | shown)
            levels.append(level * ~seen[:, None, None, None])
        search = self._occlude(search, boxes, cells, draws)

        templates = [self._template(target, level, draws) for target, level in zip(targets, levels)]
        fog = self._fog(draws)
        shown = [MODALITIES.index(name) for name in network.modalities]
        return Batch(
            templates=torch.stack(
                [
                    self._photometry(fog.over(pixels, of_template=True), 0.7, draws) * uncut[:, None]
                    for pixels, uncut, _ in templates
                ],
                dim=1,
            )[:, :, shown],
            extents=torch.stack([extent for *_, extent in templates], dim=1),
            searches=self._photometry(fog.over(search, of_template=False), 1.0, draws)[:, shown] * lit[:, None],
            present=_some(self._present(draws)[:, shown]),
            boxes=torch.stack(all_boxes, dim=1),
            visible=torch.stack(visible, dim=1),
            hidden=draws.chance(config.hidden, network.search_grid**2),
        )

    # ---- what is shown

    def _target(self, draws: Draws) -> _Target:
        """A track, two of its contexts, and how it looks."""
        old, new = self._pick(draws)
        size = (self._bank.boxes[old, 2:].prod(1)).sqrt()[:, None]
        shift = draws.normal(2) * self._config.misalignment * size
        return _Target(old, new, draws.chance(0.5), draw_style(draws), shift)

    def _pick(self, draws: Draws) -> tuple[Tensor, Tensor]:
        """(N,) contexts of a track, for the template and for the search crop."""
        place = draws.uniform(0, 1).double() * self._cumulated[-1]
        track = torch.searchsorted(self._cumulated, place, right=True).clamp(max=len(self._cumulated) - 1)
        count, first = self._bank.count[track], self._bank.first[track]
        old, new = (first + (draws.uniform(0, 1) * count).long().clamp(max=count - 1) for _ in range(2))
        return old, new

    def _template(self, target: _Target, level: Tensor, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
        """(N, 4, T, T) pixels, (N, 1, T, T) whether they are of the image, and (N, 2) extent of the target.

        Args:
            level: is added to its grey levels.
        """
        box = self._bank.boxes[target.old]
        size = (box[:, 2] * box[:, 3]).sqrt()[:, None]
        side = size * self._network.template_factor * (0.06 * draws.normal(1)).exp()
        centre = box[:, :2] + box[:, 2:] / 2 + size * 0.04 * draws.normal(2)
        still = torch.zeros(len(box), 2, 4, 4, device=self._device)
        view = _View(centre, side.expand(-1, 2), torch.zeros_like(box[:, 0]), still, target.thermal_shift)
        shown = self._render(target._replace(new=target.old), view, self._network.template_size)
        u, v = torch.broadcast_tensors(*_cells(self._network.template_size, self._device))
        side = draws.uniform(0, 4).long().clamp(max=3)
        depth = draws.uniform(0, 0.3, 1, 1) * draws.chance(self._config.cut, 1, 1)
        uncut = torch.cat([u, v, 1 - u, 1 - v])[side] > depth
        return (shown.pixels + level).clamp(0, 255), shown.inside & uncut[:, None], shown.boxes[:, 2:]

    def _search_view(self, index: Tensor, draws: Draws) -> _View:
        box, config = self._bank.boxes[index], self._config
        size = (box[:, 2] * box[:, 3]).sqrt()[:, None]
        scale = (config.scale_jitter * draws.normal(1)).clamp(-0.8, 0.6).exp()
        stretch = (config.stretch * draws.normal(1)).exp()
        side = size * self._network.search_factor * scale * torch.cat([stretch, 1 / stretch], dim=1)
        far = draws.uniform(-1, 1, 2) * config.centre_jitter
        near = (0.08 * draws.normal(2)).clamp(-config.centre_jitter, config.centre_jitter)
        shift = torch.where(draws.chance(config.near, 1), near, far)
        angle = draws.normal() * 0.08 * draws.chance(config.turn)
        bend = draws.normal(2, 4, 4) * (0.05 * size * draws.chance(config.warp, 1))[:, :, None, None]
        still = torch.zeros_like(shift)
        return _View(box[:, :2] + box[:, 2:] / 2 + shift * side, side, angle, bend, still)

    def _scene(self, target: _Target, draws: Draws) -> tuple[Tensor, Tensor, _View, Tensor]:
        """(N, 4, S, S) search crops around the first target, (N, 4) its box, the view, and (N, 1, S, S) whether a pixel
        is of an image: of the target's, or of another one behind the border.
        """
        view = self._search_view(target.new, draws)._replace(thermal_shift=target.thermal_shift)
        shown = self._render(target, view, self._network.search_size)
        behind = self._target(draws)
        fill = self._render(behind, self._search_view(behind.new, draws), self._network.search_size).pixels
        filled = draws.chance(self._config.fill)[:, None, None, None]
        return torch.where(shown.inside, shown.pixels, fill), shown.boxes, view, shown.inside | filled

    def _beside(self, first: _Target, view: _View, draws: Draws) -> tuple[_Target, Tensor, Tensor]:
        """One of the targets that were recorded beside the first one.

        Returns:
            The target, looking as the first one's picture does, its boxes (N, 4) in units of the search crop, and
            whether there is one that counts (N,): largely in the crop, and about as large as the first one.
        """
        bank = self._bank
        choices = bank.beside[first.new]
        number = (choices != ALONE).sum(1)
        chosen = (draws.uniform(0, 1) * number).long().clamp(max=choices.shape[1] - 1)
        wanted = draws.chance(self._config.beside) & (number > 0)
        new = torch.where(wanted, choices.gather(1, chosen[:, None])[:, 0], first.new)
        track = self._track[new]
        old = bank.first[track] + (draws.uniform(0, 1) * bank.count[track]).long().clamp(max=bank.count[track] - 1)

        ours, theirs = bank.squares[first.new], bank.squares[new]
        ratio = ours[:, 2:] / theirs[:, 2:]
        box = bank.boxes[new]
        corner = box[:, :2] * ratio + (theirs[:, :2] - ours[:, :2]) * ours[:, 2:]
        box = torch.cat([corner, box[:, 2:] * ratio], dim=1)
        boxes = _placed(box, view, first.flip)
        size, own = (part[:, 2:].prod(1).sqrt() for part in (box, bank.boxes[first.new]))
        counts = (_share_inside(box, bank.inside[first.new]) > 0.65) & (
            _share_inside(boxes, torch.tensor([0.0, 0, 1, 1], device=self._device)) > 0.65
        )
        seen = wanted & counts & ((size / own).log().abs() < 0.5) & (bank.weight[track] > 0)
        style = first.style._replace(heat=torch.zeros_like(first.style.heat))
        return _Target(old, new, first.flip, style, first.thermal_shift / ratio), boxes, seen

    def _paste_rival(
        self,
        rival: _Target,
        search: Tensor,
        taken: Tensor,
        lit: Tensor,
        boxes: Tensor,
        wanted: Tensor,
        cells: tuple[Tensor, Tensor],
        draws: Draws,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Another target about as large as the first one, sometimes as bright; never over what is `taken`.

        Args:
            lit: (N, 1, S, S) bool, where an image is.
            boxes: (N, 4) of the first target.
            wanted: (N,) bool.

        Returns:
            Search crops, taken places, the rival's boxes (N, 4), whether it can be seen (N,), and the grey levels
            (N, 4, 1, 1) that were added to it.
        """
        place = draws.uniform(0.1, 0.9, 2)
        size = (boxes[:, 2] * boxes[:, 3]).sqrt().clamp(0.05, 0.6) * (0.25 * draws.normal()).exp()
        box = self._bank.boxes[rival.new]
        stretch = (self._config.stretch * draws.normal(1)).exp()
        side = ((box[:, 2] * box[:, 3]).sqrt() / size)[:, None] * torch.cat([stretch, 1 / stretch], dim=1)
        centre = box[:, :2] + box[:, 2:] / 2 - (place - 0.5) * side
        still = torch.zeros(len(box), 2, 4, 4, device=self._device)
        view = _View(centre, side, torch.zeros_like(box[:, 0]), still, rival.thermal_shift)
        shown = self._render(rival, view, search.shape[-1])
        whole = _soft_box(cells, shown.boxes, torch.ones_like(size), soft=0.02)
        mask = _soft_box(cells, shown.boxes, draws.uniform(1.0, 1.4)) * shown.inside * (1 - taken) * lit
        mask = mask * (wanted & draws.chance(0.85))[:, None, None, None]
        seen = (mask * whole).sum((1, 2, 3)) > 0.65 * whole.sum((1, 2, 3)).clamp(min=1)
        alike = draws.chance(0.3)[:, None, None, None]
        level = torch.where(alike, _mean_under(search, taken) - _mean_under(shown.pixels, mask), 0)
        search = mask * (shown.pixels + level).clamp(0, 255) + (1 - mask) * search
        return search, torch.maximum(taken, mask * whole), shown.boxes, seen, level

    def _render(self, target: _Target, view: _View, size: int) -> _Shown:
        """The target's newer context in a view."""
        bank, index = self._bank, target.new
        u, v = _cells(size, self._device)
        mirrored = torch.where(target.flip, -1.0, 1.0)
        cos, sin = view.angle.cos()[:, None, None], view.angle.sin()[:, None, None]
        du, dv = (
            (u - 0.5) * mirrored[:, None, None] * view.side[:, 0, None, None],
            (v - 0.5) * view.side[:, 1, None, None],
        )
        x = view.centre[:, 0, None, None] + cos * du - sin * dv
        y = view.centre[:, 1, None, None] + sin * du + cos * dv
        if view.bend.any():
            bend = F.interpolate(view.bend, size=(size, size), mode="bilinear", align_corners=True)
            x, y = x + bend[:, 0], y + bend[:, 1]
        pixels = torch.cat(
            [
                F.grid_sample(part.float(), _sampling(x + shift[:, 0], y + shift[:, 1], part), align_corners=False)
                for part, shift in zip(
                    (bank.pixels[index, :3], bank.pixels[index, 3:]),
                    (torch.zeros_like(view.thermal_shift)[:, :, None, None], view.thermal_shift[:, :, None, None]),
                )
            ],
            dim=1,
        )
        left, top, right, bottom = (edge[:, None, None] for edge in bank.inside[index].unbind(1))
        inside = ((x > left) & (x < right) & (y > top) & (y < bottom))[:, None]

        boxes = _placed(bank.boxes[index], view, target.flip)
        hot = _soft_box((u, v), boxes, torch.ones_like(view.angle), round_=True)
        return _Shown(target.style.complete(pixels, bank.has[index], hot), inside, boxes)

    def _occlude(self, search: Tensor, boxes: Tensor, cells: tuple[Tensor, Tensor], draws: Draws) -> Tensor:
        """A plain patch over a part of the first target, now and then."""
        wh = boxes[:, 2:] * draws.uniform(0.2, 0.7, 2)
        corner = boxes[:, :2] + draws.uniform(0, 1, 2) * (boxes[:, 2:] - wh)
        mask = _soft_box(cells, torch.cat([corner, wh], dim=1), torch.ones_like(wh[:, 0]), soft=0.02)
        mask = mask * draws.chance(self._config.occluded)[:, None, None, None]
        return mask * draws.uniform(0, 255, 4, 1, 1) + (1 - mask) * search

    # ---- photometry

    def _fog(self, draws: Draws) -> Fog:
        clouds = [
            F.interpolate(draws.uniform(0, 120, 1, 4, 4), size=(size, size), mode="bilinear")
            for size in (self._network.template_size, self._network.search_size)
        ]
        dark = draws.chance(0.4, 1, 1, 1)
        level, left, draw = draws.uniform(0, 140, 1, 1, 1), draws.uniform(0, 0.4, 1, 1, 1), draws.uniform(0, 1, 1, 1, 1)
        clouds = [torch.where(dark, 0.1 * (cloud + level), cloud + level) for cloud in clouds]
        # thin in places, as real smoke is: what stands behind it shows and the target does not
        thin = F.interpolate(draws.uniform(-1, 1, 1, 4, 4), size=(self._network.search_size,) * 2, mode="bilinear")
        through = (left + thin.clamp(min=0) * draws.uniform(0, 1, 1, 1, 1) * ~dark).clamp(max=1)
        share = self._config.blind
        hits = (draw < 0.7 * share, (draw >= 0.7 * share) & (draw < share))
        return Fog(clouds[0], clouds[1], left, through, hits, draws.chance(0.5, 1, 1, 1))

    def _photometry(self, pixels: Tensor, strength: float, draws: Draws) -> Tensor:
        """Contrast, brightness, colour, blur and noise, for each modality by itself.

        Returns:
            (N, 2, 3, S, S); the thermal channel is repeated.
        """
        strength = strength * self._config.photometry
        both = torch.stack([pixels[:, :3], pixels[:, 3:].expand(-1, 3, -1, -1)], dim=1)
        if not strength:
            return both
        grey = both.mean(dim=2, keepdim=True)
        both = torch.where(draws.chance(0.1 * strength, 1, 1, 1, 1), grey, both)
        gain = (0.2 * strength * draws.normal(2, 1, 1, 1)).exp()
        bias = 20 * strength * draws.normal(2, 1, 1, 1)
        tint = (0.06 * strength * draws.normal(1, 3, 1, 1)).exp()
        middle = both.mean(dim=(2, 3, 4), keepdim=True)
        both = (both - middle) * gain + middle + bias
        both = torch.cat([both[:, :1] * tint, both[:, 1:]], dim=1)
        flat = both.flatten(0, 1)
        blurred = F.avg_pool2d(F.pad(flat, (1, 1, 1, 1), mode="replicate"), 3, stride=1).view_as(both)
        soft = draws.chance(0.3, 2, 1, 1, 1) * draws.uniform(0.3, 1, 2, 1, 1, 1) * strength
        both = both + soft * (blurred - both)
        noise = draws.uniform(0, 9, 2, 1, 1, 1) * strength * draws.chance(0.5, 2, 1, 1, 1)
        rough = draws.normal(4, *both.shape[3:])  # thermal noise is grey
        both = both + noise * torch.stack([rough[:, :3], rough[:, 3:].expand(-1, 3, -1, -1)], dim=1)
        return both.clamp(0, 255)

    def _present(self, draws: Draws) -> Tensor:
        """(N, 2) bool."""
        draw, missing = draws.uniform(0, 1), self._config.missing
        return torch.stack([draw >= missing / 2, draw < 1 - missing / 2], dim=1)


def _some(present: Tensor) -> Tensor:
    """(N, M) bool: a sample whose only modality would be absent keeps it."""
    return present | ~present.any(dim=1, keepdim=True)


class _Shown(NamedTuple):
    pixels: Tensor  # (N, 4, S, S)
    inside: Tensor  # (N, 1, S, S) bool, where they are of the image
    boxes: Tensor  # (N, 4) xywh of the target, in units of the crop


class _Target(NamedTuple):
    """A target of each sample: contexts (N,) of template and search, and how it looks in both."""

    old: Tensor
    new: Tensor
    flip: Tensor
    style: Style
    thermal_shift: Tensor


def _either(flag: Tensor, one: _Target, other: _Target) -> _Target:
    """Row by row, where the (N,) flag is set the one, else the other."""

    def pick(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(flag.view(-1, *[1] * (a.ndim - 1)), a, b)

    style = Style(*map(pick, one.style, other.style))
    old, new, flip, _, shift = (pick(a, b) if isinstance(a, Tensor) else a for a, b in zip(one, other))
    return _Target(old, new, flip, style, shift)


def _placed(boxes: Tensor, view: _View, flip: Tensor) -> Tensor:
    """(N, 4) xywh boxes of a context in units of the crop that a view shows."""
    offset = boxes[:, :2] + boxes[:, 2:] / 2 - view.centre
    c, s = view.angle.cos(), view.angle.sin()
    across = (c * offset[:, 0] + s * offset[:, 1]) * torch.where(flip, -1.0, 1.0)
    offset = torch.stack([across, c * offset[:, 1] - s * offset[:, 0]], dim=1)
    wh = boxes[:, 2:] / view.side
    return torch.cat([offset / view.side + 0.5 - wh / 2, wh], dim=1)


def _share_inside(boxes: Tensor, area: Tensor) -> Tensor:
    """(N,) which share of xywh boxes lies in xyxy areas."""
    low, high = (
        torch.clamp(corner, area[..., :2], area[..., 2:]) for corner in (boxes[:, :2], boxes[:, :2] + boxes[:, 2:])
    )
    return (high - low).prod(1) / boxes[:, 2:].prod(1)


def _sampling(x: Tensor, y: Tensor, contexts: Tensor) -> Tensor:
    """(N, S, S, 2) places in (N, C, H, W) contexts, as `grid_sample` wants them."""
    return torch.stack([x, y], dim=-1) * (2 / contexts.shape[-1]) - 1


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
