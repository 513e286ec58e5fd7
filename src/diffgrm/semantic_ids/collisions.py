"""Collision repair: give every item its own semantic ID, moving the fewest items at the least error.

Items that share a SID compete for it and for free codes nearby. Which one stays and where the others go is one
assignment problem over short candidate lists: an item's list holds its own SID (cost 0) and the free codes of least
extra quantisation error. Items for which the lists were too short go to another round with longer ones. Large groups of
items with one and the same vector and code need no solver: whoever goes where, the sum is the same, so the nearest free
codes are dealt out in turn. Where more items compete than there are codes on their lists, lists of their own would grow
without bound: such a crowd shares one (:mod:`diffgrm.semantic_ids.crowds`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod

import numpy as np
from scipy.sparse import csr_array, csr_matrix
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching

from diffgrm.foundation.fingerprints import fingerprints
from diffgrm.foundation.schema import TokenizerError
from diffgrm.semantic_ids.crowds import deal
from diffgrm.semantic_ids.free_codes import CodeKeys, free_candidates
from diffgrm.semantic_ids.tokenizers.base import Tokenizer

FIRST_LIST, LONGEST_LIST, SHORTEST_LIST = 64, 2**16, 4  # candidate codes of an item
MOST_CANDIDATES = 2**22  # of the items that are looked at together, which bounds the memory
LARGEST_PROBLEM, PROBLEM_BLOCK = 4000, 500  # items that compete with each other; items solved in one call
CROWD = 500  # more items than this that compete for fewer codes than they are share a list
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
        TokenizerError: fewer codes than items.
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
    original, taken, placed = codes.copy(), np.unique(own), np.zeros(n_items, dtype=bool)
    for copies in _large_groups_of_copies(embeddings, own, waiting):
        codes[copies[1:]] = _nearest_free(tokenizer, embeddings, original, copies, keys, taken)  # one of them may stay
        taken, placed[copies[1:]] = _with(taken, keys(codes[copies[1:]])), True
    waiting = waiting[~placed[waiting]]
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
    codes = original.copy()
    _, cell, sizes = np.unique(keys(original), return_inverse=True, return_counts=True)
    waiting = np.flatnonzero(sizes[cell] <= CROWD)
    block = np.cumsum(np.where(sizes <= CROWD, sizes, 0))[cell] * FIRST_LIST // MOST_CANDIDATES  # of cells that are whole
    crowds = [(items, homes) for items in _groups(cell, sizes, CROWD)]
    longest, length = min(LONGEST_LIST, prod(tokenizer.codebook_sizes)), FIRST_LIST
    while waiting.size:
        first_round, left = homes is not None, []
        if first_round:  # who may stay is settled among all items of a cell
            parts = [waiting[block[waiting] == number] for number in np.unique(block[waiting])]
        else:
            at_once = max(1, MOST_CANDIDATES // length)
            parts = np.split(waiting, range(at_once, len(waiting), at_once))
        for items in parts:
            candidates, costs = free_candidates(tokenizer, embeddings[items], original[items], keys, taken, length)
            placed, chosen, found = _assign(keys(candidates), costs, None if homes is None else homes[items])
            goes = np.flatnonzero(placed & (chosen >= 0))
            codes[items[goes]] = candidates[goes, chosen[goes]]
            taken = _with(taken, keys(codes[items[goes]]))
            if not first_round and length >= longest:
                far = np.flatnonzero(~placed & np.isinf(costs[:, 0]))  # of whom no code of the list is free
                found += [far] if len(far) else []
            crowds += [(items[crowd], homes) for crowd in found]
            left.append(np.setdiff1d(items[~placed], np.concatenate([items[crowd] for crowd in found] or [items[:0]])))
        waiting, homes = np.concatenate(left), None
        length = min(2 * length, longest)
    for items, own in crowds:
        codes[items] = deal(tokenizer, embeddings[items], original[items], keys, taken, None if own is None else own[items])
        taken = _with(taken, keys(codes[items]))
    return codes


def _with(taken: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Sorted distinct keys with others, in one pass over them.

    >>> _with(np.array([2, 5, 9]), np.array([7, 5, 1])).tolist()
    [1, 2, 5, 7, 9]
    """
    more = np.unique(more)
    place = np.searchsorted(taken, more)
    new = taken[np.minimum(place, len(taken) - 1)] != more
    return np.insert(taken, place[new], more[new])


def _groups(number: np.ndarray, sizes: np.ndarray, above: int) -> list[np.ndarray]:
    """Where the numbers [N] stand that occur more often than ``above``; ``sizes`` [G] says how often each of them does.

    >>> [places.tolist() for places in _groups(np.array([1, 0, 2, 1, 2]), np.array([1, 2, 2]), 1)]
    [[0, 3], [2, 4]]
    """
    order, ends = np.argsort(number, kind="stable"), np.cumsum(sizes)
    return [order[ends[group] - sizes[group] : ends[group]] for group in np.flatnonzero(sizes > above)]


def _large_groups_of_copies(embeddings: np.ndarray, own: np.ndarray, items: np.ndarray) -> list[np.ndarray]:
    """Groups of more than ``FIRST_LIST`` of the items whose vectors are equal, and the keys of their own codes [N] too."""
    _, group, sizes = np.unique(fingerprints(embeddings, items), return_inverse=True, return_counts=True)
    items = items[sizes[group] > FIRST_LIST]  # equal vectors are among them: sorting all rows would take longer
    if not items.size:
        return []
    vector = np.unique(embeddings[items], axis=0, return_inverse=True)[1].reshape(-1)
    code = np.unique(own[items], return_inverse=True)[1]
    _, group, sizes = np.unique(vector * len(items) + code, return_inverse=True, return_counts=True)
    return [items[places] for places in _groups(group, sizes, FIRST_LIST)]


def _nearest_free(
    tokenizer: Tokenizer,
    embeddings: np.ndarray,
    codes: np.ndarray,
    copies: np.ndarray,
    keys: CodeKeys,
    taken: np.ndarray,
) -> np.ndarray:
    """The free codes nearest to items of one vector and code, one less than there are items.

    The search ends: one item of every code may stay, so that there are free codes for all others.
    """
    wanted, one = len(copies) - 1, copies[:1]
    length = 2 * wanted
    while True:
        candidates, costs = free_candidates(tokenizer, embeddings[one], codes[one], keys, taken, length)
        free = int(np.isfinite(costs).sum())
        if free >= wanted:
            return candidates[0, :wanted]
        length *= 2


def _assign(
    keys: np.ndarray, costs: np.ndarray, homes: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Least-cost assignment of items to distinct codes.

    Items that compete for no common code are solved apart, which keeps the problems small; where too many hang together,
    their lists are cut shorter first. Crowds are left out.

    Args:
        keys, costs: [N, C] candidate codes, nearest first, and what each costs (inf: not to be had).
        homes: [N] keys of the items' present codes, free of charge for one item each; None if they are gone.

    Returns:
        placed [N] bool; the chosen candidate's column [N] (-1: stays at home); and the items of each crowd.
    """
    placed, choice = np.zeros(len(keys), dtype=bool), np.full(len(keys), -1)
    if crowds := _crowds(keys, costs, homes):
        rest = np.setdiff1d(np.arange(len(keys)), np.concatenate(crowds))
        placed[rest], choice[rest], _ = _assign(keys[rest], costs[rest], None if homes is None else homes[rest])
        return placed, choice, crowds
    costs = costs - min(costs.min(initial=0), 0)  # all moves alike, so that none is worth more than staying
    while True:
        edges = _edges(keys, costs, homes)
        order, starts = _components(edges, len(keys))
        sizes = np.diff(starts)
        if sizes.max(initial=0) <= LARGEST_PROBLEM or keys.shape[1] <= SHORTEST_LIST:
            break
        keys, costs = keys[:, : keys.shape[1] // 2], costs[:, : costs.shape[1] // 2]
    # Several small problems are solved in one call: cut where the rows pass a multiple of the block size.
    block = starts[:-1] // PROBLEM_BLOCK
    firsts = starts[:-1][np.concatenate([[True], block[1:] != block[:-1]])] if len(block) else starts[:-1]
    edges = edges.of_rows_in(order)
    for first, last in pairwise([*firsts, len(order)]):
        chosen = _solve(edges.between(first, last), last - first)
        placed[order[first:last]] = chosen > NOWHERE
        choice[order[first:last]] = chosen
    return placed, choice, crowds


def _crowds(keys: np.ndarray, costs: np.ndarray, homes: np.ndarray | None) -> list[np.ndarray]:
    """The items of every group of more than ``CROWD`` that compete for fewer codes than they are."""
    if len(keys) <= CROWD:
        return []
    order, starts = _components(_edges(keys, costs, homes), len(keys))
    groups = [order[starts[number] : starts[number + 1]] for number in np.flatnonzero(np.diff(starts) > CROWD)]
    found = []
    for items in groups:
        wanted = keys[items][np.isfinite(costs[items])]
        codes = np.unique(wanted if homes is None else np.concatenate([wanted, homes[items]]))
        if len(codes) < len(items):
            found.append(np.sort(items))
    return found


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
    # A matrix has indices of 32 bits where they suffice; an array may not, and matching in SciPy 1.13 takes no others.
    graph = csr_matrix((weights, (rows, columns)), shape=(n_rows, len(distinct) + n_rows))
    matched_row, matched_column = min_weight_full_bipartite_matching(graph)
    target = np.empty(n_rows, dtype=np.int64)
    target[matched_row] = matched_column
    chosen = np.full(n_rows, NOWHERE)
    used = column == target[edges.row]
    chosen[edges.row[used]] = edges.choice[used]
    return chosen
