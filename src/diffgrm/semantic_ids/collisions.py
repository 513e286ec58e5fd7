"""Collision repair: give every item its own semantic ID, moving the fewest items at the least error.

Items that share a SID compete for it and for free codes nearby. Which one stays and where the others go is one
assignment problem over short candidate lists: an item's list holds its own SID (cost 0) and the free codes of least
extra quantisation error. Items for which the lists were too short go to another round with longer ones. Large groups of
items with one and the same vector need no solver: whoever goes where, the sum is the same, so the nearest free codes are
dealt out in turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching

from diffgrm.foundation.schema import TokenizerError
from diffgrm.semantic_ids.tokenizers.base import Tokenizer, in_chunks

FIRST_LIST, LONGEST_LIST, SHORTEST_LIST = 64, 2**16, 4  # candidate codes of an item
LARGEST_PROBLEM, PROBLEM_BLOCK = 4000, 500  # items that compete with each other; items solved in one call
NOWHERE = -2


@dataclass(frozen=True)
class Repaired:
    """Distinct codes [N, n] of all rows, and which rows were moved [N] bool."""

    codes: np.ndarray
    moved: np.ndarray


def reassign(tokenizer: Tokenizer, embeddings: np.ndarray, codes: np.ndarray) -> Repaired:
    """Distinct codes for all items; deterministic.

    Args:
        tokenizer: fitted; its ``digit_costs`` price a move, or its ``error`` where they do not add up.
        embeddings: [N, e].
        codes: [N, n], what the tokenizer gave; rows may repeat.

    Raises:
        TokenizerError: fewer codes than items, or so crowded that an item finds no free code near it.
    """
    n_items, n_digits = codes.shape
    room = prod(tokenizer.codebook_sizes)
    if room < n_items:
        raise TokenizerError(
            f"{n_items} items cannot have a semantic ID each: {_sizes(tokenizer)} make only {room}; raise "
            "tokenizer.n_digits or tokenizer.codebook_size, or use semantic_ids.collisions=share"
        )
    codes = codes.astype(np.int32).copy()
    keys = CodeKeys(n_digits, tokenizer.codebook_size)
    own = keys(codes)
    _, group, sizes = np.unique(own, return_inverse=True, return_counts=True)
    waiting = np.flatnonzero(sizes[group] > 1)
    original, taken = codes.copy(), np.sort(own)
    for copies in _large_groups_of_copies(embeddings, waiting):
        codes[copies[1:]] = _nearest_free(tokenizer, embeddings, original, copies, keys, taken)  # one of them may stay
        taken = np.sort(np.concatenate([taken, keys(codes[copies[1:]])]))
        waiting = np.setdiff1d(waiting, copies[1:])
    if waiting.size:
        codes[waiting] = _settled(tokenizer, embeddings[waiting], original[waiting], keys, taken, own[waiting])
    if len(np.unique(codes, axis=0)) != n_items:  # two codes with one hash: one chance in 10^9 for 100,000 items
        raise TokenizerError("two semantic IDs got the same hash; use another tokenizer seed")
    return Repaired(codes, (codes != original).any(1))


def place(tokenizer: Tokenizer, embeddings: np.ndarray, codes: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Distinct codes [N, n] for items that come later: free ones nearest to them; those that are taken stay.

    Args:
        tokenizer, embeddings, codes: as in :func:`reassign`, of the new items.
        taken: [T, n] distinct codes of the items that are there.

    Raises:
        TokenizerError: as in :func:`reassign`.
    """
    n_digits = codes.shape[1]
    room = prod(tokenizer.codebook_sizes) - len(taken)
    if room < len(codes):
        raise TokenizerError(
            f"{len(codes)} new items cannot have a semantic ID each: {_sizes(tokenizer)} leave {room} beside the "
            f"{len(taken)} in use; fit again with a larger tokenizer.n_digits or codebook_size"
        )
    keys = CodeKeys(n_digits, tokenizer.codebook_size)
    codes, occupied = codes.astype(np.int32), np.sort(keys(taken))
    return _settled(tokenizer, embeddings, codes, keys, occupied, None) if len(codes) else codes


def _sizes(tokenizer: Tokenizer) -> str:
    sizes = sorted(set(tokenizer.codebook_sizes))
    return f"{tokenizer.n_digits} digits of {' to '.join(map(str, dict.fromkeys([sizes[0], sizes[-1]])))} codes"


def _settled(
    tokenizer: Tokenizer,
    embeddings: np.ndarray,
    original: np.ndarray,
    keys: CodeKeys,
    taken: np.ndarray,
    homes: np.ndarray | None,
) -> np.ndarray:
    """Distinct codes [N, n] for items whose codes clash.

    Args:
        original: [N, n] what the tokenizer gave.
        taken: keys that are in use, sorted.
        homes: [N] keys of the items' own codes, which one item each may keep though they are in use; None: none may.
    """
    codes, waiting = original.copy(), np.arange(len(original))
    room = prod(tokenizer.codebook_sizes)
    length, first_round = FIRST_LIST, homes is not None
    while waiting.size:
        candidates, costs = _free_candidates(tokenizer, embeddings[waiting], original[waiting], keys, taken, length)
        if not first_round and length >= min(LONGEST_LIST, room):
            stuck = int((costs[:, 0] == np.inf).sum())
            if stuck:
                raise TokenizerError(
                    f"the code space is too crowded: {len(taken)} of {room} codes are in use, and {stuck} items find none "
                    f"free among the {length} nearest; raise tokenizer.n_digits or tokenizer.codebook_size"
                )
        own = homes[waiting] if first_round and homes is not None else None
        placed, chosen = _assign(keys(candidates), costs, own)
        stays = placed & (chosen < 0)
        goes = np.flatnonzero(placed & ~stays)
        codes[waiting[goes]] = candidates[goes, chosen[goes]]
        taken = np.sort(np.concatenate([taken, keys(codes[waiting[goes]])]))
        waiting = waiting[~placed]
        length, first_round = min(2 * length, LONGEST_LIST, room), False
    return codes


def _large_groups_of_copies(embeddings: np.ndarray, items: np.ndarray) -> list[np.ndarray]:
    """Groups of more than ``FIRST_LIST`` of the items whose vectors are equal."""
    if not items.size:
        return []
    _, group, sizes = np.unique(embeddings[items], axis=0, return_inverse=True, return_counts=True)
    group = group.reshape(-1)
    return [items[group == number] for number in np.flatnonzero(sizes > FIRST_LIST)]


def _nearest_free(
    tokenizer: Tokenizer,
    embeddings: np.ndarray,
    codes: np.ndarray,
    copies: np.ndarray,
    keys: CodeKeys,
    taken: np.ndarray,
) -> np.ndarray:
    """The free codes nearest to items of one vector, one less than there are items."""
    wanted, one = len(copies) - 1, copies[:1]
    length = 2 * wanted
    while True:
        candidates, costs = _free_candidates(tokenizer, embeddings[one], codes[one], keys, taken, length)
        free = int(np.isfinite(costs).sum())
        if free >= wanted:
            return candidates[0, :wanted]
        if length >= min(64 * len(copies) + LONGEST_LIST, prod(tokenizer.codebook_sizes)):
            raise TokenizerError(
                f"the code space is too crowded: {len(copies)} items with one and the same vector find only {free} free "
                f"codes among the {length} nearest; raise tokenizer.n_digits or tokenizer.codebook_size"
            )
        length *= 2


class CodeKeys:
    """One uint64 a code row: exact mixed-radix numbers where they fit into 63 bits, else a sum of random words."""

    def __init__(self, n_digits: int, codebook_size: int) -> None:
        if n_digits * np.log2(codebook_size) <= 63:
            place = np.array([codebook_size**j for j in range(n_digits)], dtype=np.uint64)
            self.words: np.ndarray = place[:, None] * np.arange(codebook_size, dtype=np.uint64)
        else:
            shape = (n_digits, codebook_size)
            self.words = np.random.default_rng(20251021).integers(0, 2**64, shape, dtype=np.uint64)

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        """Keys [...] uint64 of codes [..., n]."""
        total = np.zeros(codes.shape[:-1], dtype=np.uint64)
        for digit, words in enumerate(self.words):
            total += words[codes[..., digit]]
        return total


def nearest_codes(costs: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``count`` combinations of one code a digit with the least sum of costs, least first. Exact.

    Args:
        costs: [N, n, K], not negative.

    Returns:
        codes [N, C, n] int32 and their sums [N, C], C = min(count, K^n).
    """
    rows = np.arange(len(costs))[:, None]
    width = min(count, costs.shape[-1])
    sums, digits = np.zeros((len(costs), 1)), np.zeros((len(costs), 1, 0), dtype=np.int32)
    for digit in range(costs.shape[1]):
        column = costs[:, digit]
        if width < column.shape[1]:
            best = np.argpartition(column, width - 1, axis=1)[:, :width]
            best.sort(axis=1)  # ties are settled by the smaller code, whatever the partition did
        else:
            best = np.broadcast_to(np.arange(width), column.shape)
        order = np.argsort(np.take_along_axis(column, best, 1), axis=1, kind="stable")
        best = np.take_along_axis(best, order, 1)
        # The pair (a-th best so far, b-th best code) has (a+1)(b+1) - 1 pairs before it, so most cannot be among `count`.
        a, b = np.nonzero(np.outer(np.arange(1, sums.shape[1] + 1), np.arange(1, width + 1)) <= count)
        total = sums[:, a] + np.take_along_axis(column, best, 1)[:, b]
        keep = np.argsort(total, axis=1, kind="stable")[:, :count]
        sums = np.take_along_axis(total, keep, 1)
        digits = np.concatenate([digits[rows, a[keep]], best[rows, b[keep]][..., None].astype(np.int32)], axis=2)
    return digits, sums


def _free_candidates(
    tokenizer: Tokenizer, embeddings: np.ndarray, codes: np.ndarray, keys: CodeKeys, taken: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Per item, the free codes among its ``length`` nearest, nearest first; cost inf where there is none.

    Nearest goes by the sum of the costs of changing single digits. Where those do not add up, the list is sorted again by
    the true error, and a cost is below 0 where a free code fits better than the tokenizer's own choice.
    """

    def block(embeddings: np.ndarray, codes: np.ndarray) -> np.ndarray:
        costs = tokenizer.digit_costs(embeddings, codes).astype(np.float64)
        here = np.take_along_axis(costs, codes[..., None].astype(np.int64), axis=-1)  # the error as it is
        near, extra = nearest_codes(np.maximum(costs - costs.min(-1, keepdims=True), 0), length)
        extra = np.maximum(extra - (here - costs.min(-1, keepdims=True)).sum((1, 2))[:, None], 0)
        near_keys = keys(near)
        spot = np.minimum(np.searchsorted(taken, near_keys), len(taken) - 1)
        extra[taken[spot] == near_keys] = np.inf
        if not tokenizer.costs_add:
            which, place = np.nonzero(np.isfinite(extra))
            errors = tokenizer.pair_errors(embeddings, which, near[which, place]).astype(np.float64)
            extra[which, place] = errors - tokenizer.error(embeddings, codes)[which]
        order = np.argsort(extra, axis=1, kind="stable")
        row = np.arange(len(near))[:, None]
        return np.concatenate([near[row, order], extra[row, order][..., None]], axis=2)

    rows = max(1, 2**22 // (tokenizer.n_digits * tokenizer.codebook_size + length * tokenizer.n_digits * 8))
    joined = in_chunks(block, embeddings, codes, rows=rows)
    return joined[..., :-1].astype(np.int32), joined[..., -1]


def _assign(keys: np.ndarray, costs: np.ndarray, homes: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Least-cost assignment of items to distinct codes.

    Items that compete for no common code are solved apart, which keeps the problems small; where too many hang together,
    their lists are cut shorter first.

    Args:
        keys, costs: [N, C] candidate codes, nearest first, and what each costs (inf: not to be had).
        homes: [N] keys of the items' present codes, free of charge for one item each; None if they are gone.

    Returns:
        placed [N] bool, and the chosen candidate's column [N] (-1: stays at home).
    """
    costs = costs - min(costs.min(initial=0), 0)  # all moves alike, so that none is worth more than staying
    while True:
        edges = _edges(keys, costs, homes)
        order, starts = _components(edges, len(keys))
        sizes = np.diff(starts)
        if sizes.max(initial=0) <= LARGEST_PROBLEM or keys.shape[1] <= SHORTEST_LIST:
            break
        keys, costs = keys[:, : keys.shape[1] // 2], costs[:, : costs.shape[1] // 2]
    placed, choice = np.zeros(len(keys), dtype=bool), np.full(len(keys), -1)
    # Several small problems are solved in one call: cut where the rows pass a multiple of the block size.
    block = starts[:-1] // PROBLEM_BLOCK
    firsts = starts[:-1][np.concatenate([[True], block[1:] != block[:-1]])] if len(block) else starts[:-1]
    edges = edges.of_rows_in(order)
    for first, last in pairwise([*firsts, len(order)]):
        chosen = _solve(edges.between(first, last), last - first)
        placed[order[first:last]] = chosen > NOWHERE
        choice[order[first:last]] = chosen
    return placed, choice


@dataclass(frozen=True)
class Edges:
    """Which item may have which code, sorted by item: row [E], key [E], cost [E], candidate column [E] (-1: home)."""

    row: np.ndarray
    key: np.ndarray
    cost: np.ndarray
    choice: np.ndarray

    def of_rows_in(self, order: np.ndarray) -> Edges:
        """The same with the items renumbered so that item ``order[r]`` is row r."""
        number = np.empty(len(order), dtype=np.int64)
        number[order] = np.arange(len(order))
        row = number[self.row]
        sort = np.argsort(row, kind="stable")
        return Edges(row[sort], self.key[sort], self.cost[sort], self.choice[sort])

    def between(self, first: int, last: int) -> Edges:
        """The edges of rows first..last-1, renumbered from 0."""
        part = slice(*np.searchsorted(self.row, [first, last]))
        return Edges(self.row[part] - first, self.key[part], self.cost[part], self.choice[part])


def _edges(keys: np.ndarray, costs: np.ndarray, homes: np.ndarray | None) -> Edges:
    row, column = np.nonzero(np.isfinite(costs))
    cost = costs[row, column]
    if homes is None:
        return Edges(row, keys[row, column], cost, column)
    # Any move costs a little even when the error does not grow, so that the fewest items move.
    cost = cost + 1e-9 * (1 + cost.max(initial=0))
    everyone = np.arange(len(keys))
    return Edges(
        np.concatenate([row, everyone]),
        np.concatenate([keys[row, column], homes]),
        np.concatenate([cost, np.zeros(len(keys))]),
        np.concatenate([column, np.full(len(keys), -1)]),
    )


def _components(edges: Edges, n_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Items in an order in which those that compete, directly or by others, stand together; and where each group starts."""
    distinct, column = np.unique(edges.key, return_inverse=True)
    nodes = n_rows + len(distinct)
    graph = csr_array((np.ones(len(column), dtype=np.int8), (edges.row, n_rows + column)), shape=(nodes, nodes))
    label = connected_components(graph, directed=False)[1][:n_rows]
    order = np.argsort(label, kind="stable")
    starts = np.flatnonzero(np.diff(label[order], prepend=-1))
    return order, np.concatenate([starts, [n_rows]])


def _solve(edges: Edges, n_rows: int) -> np.ndarray:
    """[N] the chosen candidate column of each item, -1 for home, ``NOWHERE`` for those left over."""
    distinct, column = np.unique(edges.key, return_inverse=True)
    # A dear private column each keeps the problem feasible; whoever ends there waits for the next round.
    left_over = (edges.cost.max(initial=0) + 1) * (n_rows + 1)
    weights = np.concatenate([edges.cost, np.full(n_rows, left_over)]) + 1  # explicit zeros would count as no edge
    rows = np.concatenate([edges.row, np.arange(n_rows)])
    columns = np.concatenate([column, len(distinct) + np.arange(n_rows)])
    graph = csr_array((weights, (rows, columns)), shape=(n_rows, len(distinct) + n_rows))
    matched_row, matched_column = min_weight_full_bipartite_matching(graph)
    target = np.empty(n_rows, dtype=np.int64)
    target[matched_row] = matched_column
    chosen = np.full(n_rows, NOWHERE)
    used = column == target[edges.row]
    chosen[edges.row[used]] = edges.choice[used]
    return chosen
