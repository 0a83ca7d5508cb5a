"""Multi-modal candidate elimination (paper section 3.4): all branches keep the same search tokens."""

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


def take_tokens(tokens: Tensor, indices: Tensor) -> Tensor:
    """(N, ..., S, C) tokens and (N, keep) indices -> (N, ..., keep, C): the same tokens in every branch."""
    shape = (indices.shape[0], *[1] * (tokens.dim() - 3), indices.shape[1], 1)
    return tokens.gather(-2, indices.view(shape).expand(*tokens.shape[:-2], -1, tokens.shape[-1]))


def restore_tokens(tokens: Tensor, indices: Tensor, total: int) -> Tensor:
    """(N, ..., keep, C) kept tokens back to their places among `total`; removed places are zero."""
    restored = tokens.new_zeros(*tokens.shape[:-2], total, tokens.shape[-1])
    shape = (indices.shape[0], *[1] * (tokens.dim() - 3), indices.shape[1], 1)
    return restored.scatter(-2, indices.view(shape).expand_as(tokens), tokens)


def all_candidates(targets: int, total: int, device: torch.device) -> Tensor:
    """(targets, total) indices of all search tokens: the state before the first elimination."""
    return torch.arange(total, device=device).expand(targets, total)
