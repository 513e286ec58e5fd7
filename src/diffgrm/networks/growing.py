"""A network over more items that begins with the weights of one over fewer.

Letters: J items that have rows of ID embeddings, F items whose ID embeddings begin to be learnt, d width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffgrm.foundation.schema import TrainingError, first_few
from diffgrm.networks.blocks import evaluating
from diffgrm.networks.inputs import ItemFeatures
from diffgrm.networks.item_vectors import Branch, ItemVectors


def take_weights(network: nn.Module, old: nn.Module) -> None:
    """Let a network begin with the weights of another; where it has more rows, those behind stay as they were drawn.

    Raises:
        TrainingError: they differ in something else.
    """
    mine, theirs = network.state_dict(), old.state_dict()
    if unlike := [name for name in mine.keys() | theirs.keys() if not _holds(mine.get(name), theirs.get(name))]:
        raise TrainingError(
            f"the network cannot go on with more items: {first_few(sorted(unlike))} differ in more than rows; fit anew"
        )
    for name, weights in theirs.items():
        (mine[name][: len(weights)] if weights.ndim else mine[name]).copy_(weights)


def _holds(more: Tensor | None, fewer: Tensor | None) -> bool:
    """Whether a tensor has another's shape, or more rows of it."""
    if more is None or fewer is None or more.ndim != fewer.ndim:
        return False
    return more.shape == fewer.shape or (more.shape[1:] == fewer.shape[1:] and len(more) > len(fewer))


def begin_ids(network: nn.Module, old: nn.Module, rows: Tensor, items: ItemFeatures, borrowed: Tensor) -> None:
    """Let ID embeddings that begin to be learnt be what the branches gave these items without them.

    Where the items were ranked by what they borrow, lists do not change by it before the first step.

    Args:
        rows: [F] of the items; items: [F] as ``old`` knew them.
        borrowed: [F, J] what each item borrows of the ID embeddings of others, a sparse tensor.
    """
    device = next(old.parameters()).device
    items, borrowed = items.to(device), borrowed.to(device)
    for name, vectors in network.named_modules():
        if not isinstance(vectors, ItemVectors):
            continue
        before = old.get_submodule(name)
        assert isinstance(before, ItemVectors)
        for branch, known in zip(vectors.branches, before.branches, strict=True):
            if type(branch).begin is not Branch.begin:
                branch.begin(rows, _said(known, items, borrowed).to(rows.device))


def _said(branch: Branch, items: ItemFeatures, borrowed: Tensor) -> Tensor:
    """[F, d] what a branch gives items without ID embeddings of their own, and what they borrow."""
    with torch.no_grad(), evaluating(branch):
        own, more = branch(items, None), branch.borrowed(borrowed)
        return own if more is None else own + more
