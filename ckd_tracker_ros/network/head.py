"""The fused head: search tokens of all students to maps of centre score, size and offset."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class Maps(NamedTuple):
    """What the network says about a search crop of F x F cells, in units of the crop.

    Attributes:
        score: (N, 1, F, F) probability that the target's centre lies in a cell, in [1e-4, 1 - 1e-4].
        size: (N, 2, F, F) width and height of the target if its centre lies there.
        offset: (N, 2, F, F) centre within the cell, in cells: x, y.
    """

    score: Tensor
    size: Tensor
    offset: Tensor


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class CenterHead(nn.Module):
    """Three towers of four 3 x 3 convolutions and a 1 x 1 one. Parameter names as published."""

    TOWERS = {"ctr": 1, "offset": 2, "size": 2}

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        widths = [inputs, *(channels // 2**i for i in range(4))]
        for tower, outputs in self.TOWERS.items():
            for i in range(4):
                self.add_module(f"conv{i + 1}_{tower}", _conv(widths[i], widths[i + 1]))
            self.add_module(f"conv5_{tower}", nn.Conv2d(widths[4], outputs, 1))

    def forward(self, features: Tensor) -> Maps:
        """(N, inputs, F, F) fused features -> maps."""
        score, offset, size = (self._tower(tower, features) for tower in self.TOWERS)
        return Maps(_probability(score), _probability(size), offset)

    def fold_norms(self) -> None:
        """Batch norms become part of the convolutions before them: for running, not for learning."""
        for name, layer in self.named_children():
            if isinstance(layer, nn.Sequential):
                convolution, norm, activation = layer
                setattr(self, name, nn.Sequential(fuse_conv_bn_eval(convolution, norm), activation))

    def _tower(self, tower: str, x: Tensor) -> Tensor:
        for i in range(5):
            x = self.get_submodule(f"conv{i + 1}_{tower}")(x)
        return x


def _probability(x: Tensor) -> Tensor:
    return x.float().sigmoid().clamp(1e-4, 1 - 1e-4)
