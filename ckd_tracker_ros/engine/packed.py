"""The CPU's products: weights packed once for the processor; bias, GELU and ReLU in the same call; norms folded.

PyTorch's own layers put the weights of a bfloat16 product into the processor's order of blocks at every call: for the
published network 190 MB a step. Here that is done once.
"""

from __future__ import annotations

import platform
import warnings

import torch
from torch import Tensor, nn

from ckd_tracker_ros.engine.eager import EagerEngine
from ckd_tracker_ros.network.head import CenterHead
from ckd_tracker_ros.network.student import Student


class PackedLinear(nn.Module):
    """A linear layer of oneDNN: float32 or bfloat16, as its weights are.

    Args:
        linear: with weights of the type to compute in.
        gelu: the layer's result goes through a GELU.
    """

    def __init__(self, linear: nn.Linear, gelu: bool = False) -> None:
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self._bias = None if linear.bias is None else linear.bias.detach()
        self._after = "gelu" if gelu else "none"

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        return torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, self._after, [], "none")


class Int8Linear(nn.Module):
    """A linear layer of 8-bit weights, one scale per output; its input is measured and quantised at every call.

    Args:
        linear: float32.
        gelu: the layer's result goes through a GELU.
    """

    def __init__(self, linear: nn.Linear, gelu: bool = False) -> None:
        super().__init__()
        weight = linear.weight.detach()
        scales = (weight.abs().amax(dim=1).double() / 127).clamp(min=1e-12)
        zeros = torch.zeros(len(scales), dtype=torch.int64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it will go with some later PyTorch; `int8_available` looks for it
            quantised = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        self._weight = torch.ops.quantized.linear_prepack(quantised, linear.bias)
        self._gelu = gelu

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) float32 -> (..., outputs) float32."""
        y = torch.ops.quantized.linear_dynamic(x, self._weight, False)
        return nn.functional.gelu(y) if self._gelu else y


class PackedConvolution(nn.Module):
    """A convolution of oneDNN.

    Args:
        convolution: with weights of the type to compute in.
        side: of the input it will mostly get, pixels.
        relu: the layer's result goes through a ReLU.
    """

    def __init__(self, convolution: nn.Conv2d, side: int, relu: bool) -> None:
        super().__init__()
        c = convolution
        self._how = (c.padding, c.stride, c.dilation, c.groups)
        shape = (1, c.in_channels, side, side)
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(c.weight.detach(), *self._how, shape)
        self._bias, self._after, self._type = c.bias.detach(), "relu" if relu else "none", c.weight.dtype

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H', W') of the weights' type."""
        return torch.ops.mkldnn._convolution_pointwise(
            x.to(self._type), self._weight, self._bias, *self._how, self._after, [], ""
        )


def attend_in_bfloat16(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention as two products and a softmax in bfloat16; see `TokenBlock.mix`.

    The matrix is stored, a few MB that stay in the cache: at a few hundred tokens PyTorch's kernel that does without it
    takes half as long again on a CPU.
    """
    kind, scale = q.dtype, q.shape[-1] ** -0.5
    q, k, v = (t.to(torch.bfloat16) for t in (q * scale, k, v))
    return ((q @ k.transpose(-2, -1)).softmax(-1) @ v).to(kind)


def available() -> bool:
    """Whether this PyTorch has these products for this processor."""
    return platform.machine() in ("x86_64", "AMD64") and torch.backends.mkldnn.is_available()


def bfloat16_available() -> bool:
    """Whether they take bfloat16 here, slowly or not."""
    return available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def int8_available() -> bool:
    """Whether this PyTorch still has 8-bit products with inputs that are quantised on the way."""
    return available() and hasattr(torch, "quantize_per_channel") and hasattr(torch.ops.quantized, "linear_dynamic")


def engine(network: Student, precision: str, rest: torch.dtype) -> EagerEngine:
    """The CPU's engine for a precision: the eager one over packed products.

    Args:
        network: float32, in evaluation mode; changed in place.
        precision: of the linear layers: `float32`, `bfloat16` or `int8`.
        rest: of attention and of the head.
    """
    network.eval().requires_grad_(False).box_head.fold_norms()
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32  # of what lies between the products
    network.to(dtype)
    kind = Int8Linear if precision == "int8" else PackedLinear
    for branch, _ in network.branches:
        for block in branch.blocks:
            block.attn.qkv, block.attn.proj = kind(block.attn.qkv), kind(block.attn.proj)
            block.mlp.fc1, block.mlp.act = kind(block.mlp.fc1, gelu=True), nn.Identity()
            block.mlp.fc2 = kind(block.mlp.fc2)
            if rest is torch.bfloat16:
                block.mix = attend_in_bfloat16
    pack_head(network.box_head.to(rest), network.config.search_grid)
    return EagerEngine(network, torch.device("cpu"), dtype, {"precision": precision, "runner": "packed"})


def pack_head(head: CenterHead, grid: int) -> None:
    """In place."""
    for name, layer in head.named_children():
        last = isinstance(layer, nn.Conv2d)
        setattr(head, name, PackedConvolution(layer if last else layer[0], grid, relu=not last))
