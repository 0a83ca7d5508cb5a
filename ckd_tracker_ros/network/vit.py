"""A branch: a plain vision transformer over template and search tokens, made of timm's parts."""

from __future__ import annotations

from functools import partial

import torch
from timm.layers import PatchEmbed, trunc_normal_
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from ckd_tracker_ros.network.config import NetworkConfig


class TokenBlock(Block):
    """timm's block in two halves, since elimination removes tokens between attention and MLP."""

    mix = staticmethod(F.scaled_dot_product_attention)
    """(B, heads, R, d) queries, (B, heads, T, d) keys and values -> (B, heads, R, d); an engine may bring its own."""

    def attend(self, x: Tensor, query: int | None = None, since: int = 0) -> tuple[Tensor, Tensor | None]:
        """First half: x + attention(norm(x)).

        Args:
            x: (..., T, C) tokens.
            query: a token whose attention is wanted as well.
            since: tokens before it are read by the others and left out of the result.

        Returns:
            (..., T - since, C) tokens, and (..., heads, T) softmaxed attention of `query` to all tokens (None without
            one). Only that one row is computed explicitly; the full attention matrix is never stored.
        """
        *batch, T, C = x.shape
        attn = self.attn
        qkv = attn.qkv(self.norm1(x)).reshape(-1, T, 3, attn.num_heads, C // attn.num_heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)  # (B, heads, T, d)
        row = None
        if query is not None:
            row = (q[:, :, query : query + 1] * attn.scale @ k.transpose(-2, -1)).softmax(-1)
            row = row.view(*batch, attn.num_heads, T)
        mixed = self.mix(q[:, :, since:], k, v).transpose(1, 2).reshape(*batch, T - since, C)
        return x[..., since:, :] + self.drop_path1(attn.proj(mixed)), row

    def transform(self, x: Tensor) -> Tensor:
        """Second half: x + mlp(norm(x))."""
        return x + self.drop_path2(self.mlp(self.norm2(x)))

    def forward(self, x: Tensor) -> Tensor:
        """Both halves with nothing between them."""
        return self.transform(self.attend(x)[0])


class Branch(nn.Module):
    """Parameters of one student: patch embedding, positions, blocks, norm. The student walks all branches together.

    Parameter names are those of the published checkpoints.
    """

    def __init__(self, config: NetworkConfig, drop_path: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.joint_from = config.joint_from
        self.patch_embed = PatchEmbed(config.search_size, config.patch, embed_dim=config.width, strict_img_size=False)
        self.pos_embed_z = nn.Parameter(torch.zeros(1, config.template_grid**2, config.width))
        self.pos_embed_x = nn.Parameter(torch.zeros(1, config.search_grid**2, config.width))
        if config.joint_from:
            self.joint_embed_z = nn.Parameter(torch.zeros_like(self.pos_embed_z))
            self.joint_embed_x = nn.Parameter(torch.zeros_like(self.pos_embed_x))
        if config.target_embed:
            self.target_embed = nn.Parameter(torch.zeros(1, 1, config.width))
        norm = partial(nn.LayerNorm, eps=1e-6)
        rates = [drop_path * i / max(config.depth - 1, 1) for i in range(config.depth)]
        self.blocks = nn.ModuleList(
            TokenBlock(config.width, config.heads, config.mlp_ratio, qkv_bias=True, norm_layer=norm, drop_path=rate)
            for rate in rates
        )
        self.norm = norm(config.width)
        trunc_normal_(self.pos_embed_z, std=0.02)
        trunc_normal_(self.pos_embed_x, std=0.02)

    def embed(
        self,
        crops: Tensor,
        present: Tensor,
        side: str,
        hidden: Tensor | None = None,
    ) -> Tensor:
        """Crops to tokens before the first joint block; those of an absent modality start as zero, positions stay.

        Args:
            crops: (..., 3, S, S) normalised crops.
            present: (...) bool.
            side: `z` for templates, `x` for search crops.
            hidden: (..., T) bool, tokens that start as zero too (masked modelling).

        Returns:
            (..., T, C) tokens.
        """
        tokens = self.patch_embed(crops.flatten(0, -4)).unflatten(0, crops.shape[:-3])
        # where, not a product: a crop of NaN times zero would still be NaN
        seen = present[..., None] if hidden is None else present[..., None] & ~hidden
        tokens = torch.where(seen[..., None], tokens, 0) + self.get_parameter(f"pos_embed_{side}")
        for block in self.blocks[: self.joint_from]:
            tokens = block(tokens)
        return tokens

    def mark(self, templates: Tensor, present: Tensor, extents: Tensor) -> Tensor:
        """Template tokens that know how much of them is target (`NetworkConfig.target_embed`, else unchanged).

        Args:
            templates: (N, M, T, C) from `embed`.
            present: (N, M) bool; an absent template stays as it is.
            extents: (N, 2) width and height of the target's box in units of the template crop.
        """
        if not self.config.target_embed:
            return templates
        coverage = box_coverage(extents, self.config.template_grid)[:, None] * present[..., None]  # (N, M, T)
        return templates + coverage[..., None].to(templates.dtype) * self.target_embed

    def meet(self, templates: Tensor, searches: Tensor) -> Tensor:
        """(N, M, T, C) and (N, M, S, C) tokens from `embed` -> (N, M, T + S, C), the sequence of the joint blocks."""
        if self.joint_from:
            templates, searches = templates + self.joint_embed_z, searches + self.joint_embed_x
        return torch.cat([templates, searches], dim=2)


def box_coverage(extents: Tensor, grid: int) -> Tensor:
    """How much of each cell a centred box covers.

    Args:
        extents: (..., 2) width and height of the box in units of the crop.
        grid: cells along one side.

    Returns:
        (..., grid * grid) in 0..1, row by row.
    """
    edges = torch.linspace(-0.5, 0.5, grid + 1, device=extents.device)
    half = extents.float()[..., None] / 2  # (..., 2, 1)
    reach = torch.minimum(edges[1:], half) - torch.maximum(edges[:-1], -half)  # (..., 2, grid)
    across, down = (reach.clamp(min=0) * grid).unbind(-2)
    return (down[..., :, None] * across[..., None, :]).flatten(-2)
