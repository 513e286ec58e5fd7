"""The integer tables that tell which (digit, code) still lead to a recommendable item, for any set of known digits.

Three tables answer it without walking over the catalogue:

- nothing known: how many items have each (digit, code);
- one digit known: how many items have each pair of (digit, code)s, where n K is small enough for such a table;
- more known: the items that match two of the known digits, a contiguous stretch of a sorted list whose ends stand in a
  table, of which the other known digits keep some. With two digits known, few items are left in most catalogues.

Complete SIDs are looked up in the sorted list of all SIDs' keys. Every runtime looks up in these same tables
(:mod:`diffgrm.ranking.catalogue`, :mod:`diffgrm.runtime_onnx.numpy_catalogue`). Excluded items (a user's history) are
subtracted from the counts and dropped from the lists at look-up, so they cost no rebuild.
"""

from __future__ import annotations

from functools import cached_property
from itertools import combinations, pairwise

import numpy as np

from diffgrm.data.dataset import Ragged
from diffgrm.semantic_ids.code_keys import code_keys

PAIR_TABLE_LIMIT = 4096  # largest n K with a table of pair counts (64 MiB of int32)
PAIR_INDEX_DIGITS = 8  # most digits with a sorted list a pair; longer SIDs keep a sorted list a digit
PAIR_ENDS_LIMIT = 2**26  # largest number of pairs of codes, over all pairs of digits, with a sorted list a pair
LIST_BLOCK = 2**22  # matching items looked at together


class CatalogueTables:
    """The recommendable items by their codes; each table is built at first use and must not be changed.

    Letters: I items, R of them recommendable, n digits, K codes a digit, G groupings.

    Args:
        codes: [I, n] codes of all items, each below ``codebook_size``.
        codebook_size: K, of the digit with most codes.
        recommendable: [I] bool; None is all.
        trained: [I] bool, items with training events; None is all.
    """

    def __init__(
        self,
        codes: np.ndarray,
        codebook_size: int,
        recommendable: np.ndarray | None = None,
        trained: np.ndarray | None = None,
    ) -> None:
        self.codebook_size, self.trained = codebook_size, trained
        # Small numbers, since this is the largest table; not bytes, which PyTorch would take for a mask as an index.
        self.all_codes = np.require(codes, np.int16 if codebook_size <= 2**15 else np.int32, ["C", "W"])  # [I, n]
        self.recommendable = np.ones(len(codes), dtype=bool) if recommendable is None else np.array(recommendable)
        self.items = np.flatnonzero(self.recommendable).astype(np.int32)  # [R] positions
        self.codes = self.all_codes if len(self.items) == len(codes) else self.all_codes[self.items]  # [R, n]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def n_digits(self) -> int:
        """Digits of a SID, n."""
        return self.all_codes.shape[1]

    def restricted(self, recommendable: np.ndarray) -> CatalogueTables:
        """The tables of those recommendable items for which ``recommendable`` [I] is true too."""
        return CatalogueTables(self.all_codes, self.codebook_size, recommendable & self.recommendable, self.trained)

    # ---- numbers and keys ---------------------------------------------------------------------------------------

    @cached_property
    def first_number(self) -> np.ndarray:
        """[n] int64 number of each digit's first (digit, code) among all n K."""
        return np.arange(self.n_digits) * self.codebook_size

    @cached_property
    def code_keys(self) -> np.ndarray:
        """[n, K] int64 keys of single (digit, code)s (:mod:`diffgrm.semantic_ids.code_keys`)."""
        return code_keys(self.n_digits, self.codebook_size)

    def keys(self, codes: np.ndarray) -> np.ndarray:
        """[...] int64 keys of complete SIDs [..., n]."""
        keys = np.zeros(codes.shape[:-1], dtype=np.int64)
        for digit, keys_of in enumerate(self.code_keys):
            keys += keys_of[codes[..., digit]]
        return keys

    # ---- counts -------------------------------------------------------------------------------------------------

    @cached_property
    def counts(self) -> np.ndarray:
        """[n K] int32, items that have each (digit, code)."""
        columns = [np.bincount(column, minlength=self.codebook_size) for column in self.codes.T]
        return np.concatenate(columns).astype(np.int32)

    @cached_property
    def pair_counts(self) -> np.ndarray | None:
        """[n K, n K] int32, items that have both (digit, code)s; None where the table would be too large."""
        n, K = self.n_digits, self.codebook_size
        if n * K > PAIR_TABLE_LIMIT:
            return None
        counts = np.empty((n, K, n, K), dtype=np.int32)
        for a in range(n):
            for b in range(a, n):
                both = np.bincount(self._pair(a, b), minlength=K * K).reshape(K, K)
                counts[a, :, b], counts[b, :, a] = both, both.T
        return counts.reshape(n * K, n * K)

    def _pair(self, a: int, b: int) -> np.ndarray:
        """[R] number of the pair of codes at two digits, the first counting more."""
        return self.codes[:, a].astype(np.int64) * self.codebook_size + self.codes[:, b]

    # ---- sorted lists -------------------------------------------------------------------------------------------

    @cached_property
    def in_pairs(self) -> bool:
        """Whether lists are sorted by pairs of digits, or by single ones."""
        n = self.n_digits
        return 3 <= n <= PAIR_INDEX_DIGITS and n * (n - 1) // 2 * self.codebook_size**2 <= PAIR_ENDS_LIMIT

    @cached_property
    def groupings(self) -> np.ndarray:
        """[G, 2] what the lists are sorted by: pairs of digits, each digit first in one at least; or (j, j) for digit j."""
        n = self.n_digits
        if not self.in_pairs:
            return np.stack([np.arange(n)] * 2, axis=1)
        pairs = [*combinations(range(n), 2)]
        pairs[n - 2] = (n - 1, 0)  # instead of (0, n - 1)
        return np.array(pairs)

    @cached_property
    def grouping_of(self) -> np.ndarray:
        """[n, n] number of the grouping of two digits; on the diagonal, of one that the digit comes first in."""
        table = np.zeros((self.n_digits, self.n_digits), dtype=np.int64)
        for number, (a, b) in enumerate(self.groupings):
            table[a, b] = table[b, a] = table[a, a] = number
        return table

    @cached_property
    def list_factors(self) -> np.ndarray:
        """[G, n] what to multiply the known codes by: their sum is the place in ``ends`` where a SID's stretch starts."""
        factors = np.zeros((len(self.groupings), self.n_digits), dtype=np.int64)
        for number, (a, b) in enumerate(self.groupings):
            factors[number, a], factors[number, b] = (self.codebook_size, 1) if self.in_pairs else (1, 1)
        return factors

    @cached_property
    def lists(self) -> np.ndarray:
        """[G R] int32: for each grouping the indices into ``items`` in order of its codes, one after the other."""
        if not self.in_pairs:
            return self.codes.argsort(axis=0, kind="stable").T.astype(np.int32).ravel()
        orders = [np.lexsort((self.codes[:, b], self.codes[:, a])).astype(np.int32) for a, b in self.groupings]
        return np.concatenate(orders)

    @cached_property
    def ends(self) -> np.ndarray:
        """[G, K^2 + 1 (or K + 1)] int64, where in ``lists`` the stretch of every pair of codes (or code) ends, with a
        leading start."""
        size = self.codebook_size ** (1 + self.in_pairs)
        ends = np.zeros((len(self.groupings), size + 1), dtype=np.int64)
        for number, (a, b) in enumerate(self.groupings):
            stretches = np.bincount(self._pair(a, b) if self.in_pairs else self.codes[:, a], minlength=size)
            np.cumsum(stretches, out=ends[number, 1:])
            ends[number] += number * len(self)
        return ends

    # ---- complete SIDs ------------------------------------------------------------------------------------------

    @cached_property
    def sid_rows(self) -> np.ndarray:
        """[R] int32 indices into ``items`` in order of their SIDs' keys."""
        return self._item_keys.argsort(kind="stable").astype(np.int32)

    @cached_property
    def sid_keys(self) -> np.ndarray:
        """[R] int64 keys of the items' SIDs, in order."""
        return self._item_keys[self.sid_rows]

    @cached_property
    def _item_keys(self) -> np.ndarray:
        return self.keys(self.codes)

    @cached_property
    def _first_rows(self) -> np.ndarray:
        """[D] where in ``sid_keys`` each different SID stands first."""
        return np.flatnonzero(np.diff(self.sid_keys, prepend=self.sid_keys[:1] - 1))

    @cached_property
    def largest_group(self) -> int:
        """Most items of one SID; 1 for no items."""
        return int(np.diff(self._first_rows, append=len(self)).max(initial=1))

    @cached_property
    def distinct_codes(self) -> np.ndarray:
        """[D, n] the different SIDs of the recommendable items, in order of their keys: small integers, digit by digit."""
        return np.asfortranarray(self.codes[self.sid_rows[self._first_rows]])

    @cached_property
    def distinct_items(self) -> np.ndarray:
        """[D] int64, the position of an item of each of the different SIDs."""
        return self.items[self.sid_rows[self._first_rows]].astype(np.int64)

    @cached_property
    def new_sids(self) -> np.ndarray:
        """[D] bool, the different SIDs of which no recommendable item has training events."""
        if self.trained is None or not len(self):
            return np.zeros(len(self._first_rows), dtype=bool)
        return ~np.logical_or.reduceat(self.trained[self.items[self.sid_rows]], self._first_rows)


def excluded_keys(items: Ragged, n_items: int, everyone: np.ndarray | None = None) -> np.ndarray:
    """Sorted distinct ``user * n_items + item`` of what single users must not get.

    Args:
        items: item positions of each user, repeats allowed.
        n_items: items of the whole catalogue, I.
        everyone: item positions that no user must get; None is no such item.
    """
    user = np.arange(len(items))
    keys = np.repeat(user, items.lengths) * n_items + items.values
    if everyone is not None:
        keys = np.concatenate([keys, np.add.outer(user * n_items, everyone).ravel()])
    return np.unique(keys)


def blocks(length: np.ndarray) -> list[slice]:
    """Consecutive rows whose lengths [rows] of matching items add up to about ``LIST_BLOCK`` at most."""
    if len(length) == 0:
        return []
    cuts = np.flatnonzero(np.diff(length.cumsum() // LIST_BLOCK)) + 1
    return [slice(a, b) for a, b in pairwise([0, *cuts.tolist(), len(length)])]
