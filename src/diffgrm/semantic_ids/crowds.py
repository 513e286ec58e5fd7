"""Crowds: more items than there are codes near them, such as thousands of nearly equal texts.

Lists of candidates for each item would have to be as long as the crowd is large, and their sum would grow with its square.
Here the crowd shares one pool of free codes, and the items take theirs from it a block at a time: each block solves an
assignment problem of its own over the codes of the pool that are nearest to it.
"""

from __future__ import annotations

import logging
from math import prod

import numpy as np
from scipy.optimize import linear_sum_assignment

from diffgrm.semantic_ids.free_codes import CodeKeys, free_candidates
from diffgrm.semantic_ids.tokenizers.base import Tokenizer

logger = logging.getLogger(__name__)

SHORTEST_LIST = 64  # codes that the pool takes from the neighbourhood of one item, at least
SEARCHED = 8  # codes that are looked at for the pool in a round, for each item
BLOCK = 128  # items that choose at once, each among twice as many codes
TOLD = 8192  # items after which a line tells how far it is


def deal(
    tokenizer: Tokenizer,
    embeddings: np.ndarray,
    original: np.ndarray,
    keys: CodeKeys,
    taken: np.ndarray,
    homes: np.ndarray | None,
) -> np.ndarray:
    """Distinct codes [N, n] for a crowd, in memory and (nearly) time that grow with its size only; deterministic.

    Args:
        original: [N, n] what the tokenizer gave.
        taken: keys that are in use, sorted. With the crowd, they must be no more than there are codes.
        homes: [N] keys of the items' own codes, of which each stays with one item though it is in use; None: none does.
    """
    cell = _cells(original, keys)
    order, codes = np.argsort(cell, kind="stable"), original.copy()
    pool = _pool(tokenizer, embeddings, original, keys, taken, order[np.diff(cell[order], prepend=-1) > 0])
    kept: set[int] = set()  # homes that have their item
    if len(order) >= TOLD:
        logger.info("%d items are nearly alike: they share %d free semantic IDs near them ...", len(order), len(pool))
    for start in range(0, len(order), BLOCK):
        items = order[start : start + BLOCK]
        choice, extra = _choice(tokenizer, embeddings[items], original[items], pool)
        block_homes = np.empty(0, np.uint64) if homes is None else np.unique(homes[items])
        block_homes = np.array([home for home in block_homes.tolist() if home not in kept], dtype=np.uint64)
        if homes is not None:
            kept.update(block_homes.tolist())
            extra = extra - min(extra.min(), 0)  # all moves alike, so that none is worth more than staying
            extra += 1e-9 * (1 + extra.max())  # and each costs a little, so that every home is kept
            own = np.where(homes[items][:, None] == block_homes, 0, np.inf)
            extra = np.concatenate([extra, own], axis=1)
        row, column = linear_sum_assignment(extra)
        moves = column < len(choice)
        codes[items[row[moves]]] = pool[choice[column[moves]]]
        pool = np.delete(pool, choice[column[moves]], axis=0)
        if (start + BLOCK) % TOLD == 0:
            logger.info("%d of them have a semantic ID of their own", start + BLOCK)
    return codes


def _cells(original: np.ndarray, keys: CodeKeys) -> np.ndarray:
    """[N] the number of each item's own code, in the order in which codes first occur."""
    _, first, cell = np.unique(keys(original), return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[cell]


def _pool(
    tokenizer: Tokenizer,
    embeddings: np.ndarray,
    original: np.ndarray,
    keys: CodeKeys,
    taken: np.ndarray,
    places: np.ndarray,
) -> np.ndarray:
    """Free codes [P, n] near a crowd of N items, twice as many as those where there are so many.

    The lists of free codes near single items grow, and become fewer, until together they are enough.

    Args:
        places: an item of every code that the crowd has.
    """
    wanted, room = 2 * len(original), prod(tokenizer.codebook_sizes)
    enough = min(wanted, room - len(taken))
    pool, length = np.empty((0, original.shape[1]), dtype=np.int32), SHORTEST_LIST
    while True:
        count = min(len(places), max(1, SEARCHED * len(original) // length))
        some = places[np.linspace(0, len(places) - 1, count).astype(np.int64)]
        near, costs = free_candidates(tokenizer, embeddings[some], original[some], keys, taken, length)
        pool = np.concatenate([pool, near[np.isfinite(costs)]])
        pool = pool[np.unique(keys(pool), return_index=True)[1]]
        if len(pool) >= enough:
            return pool
        length *= 2


def _choice(
    tokenizer: Tokenizer, embeddings: np.ndarray, original: np.ndarray, pool: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The codes of a pool [P, n] that are nearest to a block of items.

    Returns:
        [C] which they are, and [B, C] by how much the error of each item grows with each.
    """
    if tokenizer.costs_add:
        costs = tokenizer.digit_costs(embeddings, original).astype(np.float64)
        costs -= np.take_along_axis(costs, original[..., None].astype(np.int64), axis=-1)
        nearest = _nearest(_sums(costs.mean(0, keepdims=True), pool)[0])
        return nearest, _sums(costs, pool[nearest])
    middle = embeddings.mean(0, keepdims=True)
    nearest = _nearest(tokenizer.pair_errors(middle, np.zeros(len(pool), dtype=np.int64), pool))
    item, code = np.divmod(np.arange(len(original) * len(nearest)), len(nearest))
    errors = tokenizer.pair_errors(embeddings, item, pool[nearest[code]]).astype(np.float64)
    return nearest, errors.reshape(len(original), -1) - tokenizer.error(embeddings, original)[:, None]


def _nearest(costs: np.ndarray) -> np.ndarray:
    return np.argsort(costs, kind="stable")[: 2 * BLOCK]


def _sums(costs: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """[B, C] the costs [B, n, K] of the digits of each of some codes [C, n], added up."""
    return sum((costs[:, digit, code] for digit, code in enumerate(codes.T)), np.zeros((len(costs), len(codes))))
