"""Candidate elimination (paper section 3.4): multi-modal, all branches keep the same search tokens; or each its own."""

from __future__ import annotations

import torch
from torch import Tensor


def keep_candidates(attention: Tensor, present: Tensor, keep: int) -> Tensor:
    """Choose the search tokens that any modality finds relevant to the target.

    Args:
        attention: (N, M, heads, S) softmaxed attention of the central template token to the S search tokens,
            for N targets and M modalities.
        present: (N, M) bool; an absent modality has no say.
        keep: how many tokens stay.

    Returns:
        (N, keep) indices into the S tokens, ascending: the largest by the maximum over modalities, mean over heads.
    """
    attention = attention.masked_fill(~present[:, :, None, None], 0)
    score = attention.amax(dim=1).mean(dim=1)  # (N, S)
    return score.topk(keep, dim=1).indices.sort(dim=1).values


def kept_in_branches(attention: Tensor, present: Tensor, keep: int, independent: bool) -> Tensor:
    """What `keep_candidates` chooses for all modalities together, or for each by itself: (N, M, keep) indices.

    By itself an absent modality chooses too: without a say all tokens would be equal, and every device keeps others.
    """
    if independent:
        alone, everyone = attention.flatten(0, 1)[:, None], torch.ones_like(present).flatten()[:, None]
        return keep_candidates(alone, everyone, keep).unflatten(0, present.shape)
    return keep_candidates(attention, present, keep)[:, None].expand(-1, present.shape[1], -1)


def take_tokens(tokens: Tensor, indices: Tensor) -> Tensor:
    """(N, M, S, C) tokens and (N, M, keep) indices -> (N, M, keep, C)."""
    return tokens.gather(-2, indices[..., None].expand(*indices.shape, tokens.shape[-1]))


def restore_tokens(tokens: Tensor, indices: Tensor, total: int) -> Tensor:
    """(N, M, keep, C) kept tokens back to their places (N, M, keep) among `total`; removed places are zero."""
    restored = tokens.new_zeros(*tokens.shape[:-2], total, tokens.shape[-1])
    return restored.scatter(-2, indices[..., None].expand_as(tokens), tokens)


def all_candidates(shape: torch.Size, total: int, device: torch.device) -> Tensor:
    """(N, M, total) indices of all search tokens, for a shape of (N, M): the state before the first elimination."""
    return torch.arange(total, device=device).expand(*shape, total)
