"""Catalogue in NumPy: what :mod:`diffgrm.ranking.catalogue` is in PyTorch, over the same tables
(:mod:`diffgrm.semantic_ids.catalogue_tables`)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from diffgrm.data.dataset import Ragged
from diffgrm.semantic_ids.catalogue_tables import CatalogueTables, blocks, excluded_keys


class Excluded:
    """Items that single users must not get.

    Args:
        histories: item positions of B users, repeats allowed.
        n_items: items of the whole catalogue.
    """

    def __init__(self, histories: Ragged, n_items: int) -> None:
        self.histories, self.n_items = histories, n_items
        keys = excluded_keys(histories, n_items)
        ends = np.arange(len(histories) + 1) * n_items
        self._distinct = Ragged(keys % n_items, np.searchsorted(keys, ends))
        self._keys = np.append(keys, ends[-1])  # and one that is larger than any

    def rows(self, chosen: np.ndarray) -> Excluded:
        """Those of some users [b]."""
        return Excluded(self.histories.rows(chosen), self.n_items)

    def pairs(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Every (row, item) that the users [rows] of the rows must not get."""
        items = self._distinct.rows(users)
        return np.repeat(np.arange(len(users)), items.lengths), items.values

    def contains(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """[...] bool, whether each (user, item) is excluded."""
        wanted = user * self.n_items + item
        return self._keys[np.searchsorted(self._keys, wanted)] == wanted


class Catalogue:
    """The recommendable items by their codes.

    Args:
        codes: [I, n] codes of all items.
        codebook_size: K.
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
        self._look_up_in(CatalogueTables(codes, codebook_size, recommendable, trained))

    @classmethod
    def from_tables(cls, tables: CatalogueTables) -> Catalogue:
        """The catalogue whose tables are built already."""
        catalogue = cls.__new__(cls)
        catalogue._look_up_in(tables)
        return catalogue

    def _look_up_in(self, tables: CatalogueTables) -> None:
        self.tables, self.n_digits, self.codebook_size = tables, tables.n_digits, tables.codebook_size
        self.recommendable, self.code_keys, self.keys = tables.recommendable, tables.code_keys, tables.keys

    def __len__(self) -> int:
        return len(self.tables)

    def codes_of(self, items: np.ndarray) -> np.ndarray:
        """[..., n] int64 codes of item positions [...]."""
        return self.tables.all_codes[items].astype(np.int64)

    def restricted(self, recommendable: np.ndarray) -> Catalogue:
        """The catalogue of the items for which ``recommendable`` [I] is true."""
        return Catalogue.from_tables(self.tables.restricted(recommendable))

    def possible(self, excluded: Excluded | None, users: int) -> np.ndarray:
        """[users] how many items each user could get."""
        total = np.full(users, len(self))
        if excluded is not None:
            total -= np.bincount(self._excluded_rows(np.arange(users), excluded)[0], minlength=users)
        return total

    # ---- what may come next -------------------------------------------------------------------------------------

    def allowed(self, codes: np.ndarray, known: np.ndarray, excluded: Excluded | None = None) -> np.ndarray:
        """Which (digit, code) extend a partial SID to at least one item that its user may get.

        Args:
            codes: [B, W, n] partial SIDs, any value where unknown.
            known: [B, W, n] bool, with as many known digits in every row (rows with fewer may get any answer).
            excluded: items that single users must not get.

        Returns:
            [B, W, n, K] bool, false for known digits.
        """
        shape, n, K = codes.shape, self.n_digits, self.codebook_size
        count, user = int(known.sum(-1).max(initial=0)), np.repeat(np.arange(shape[0]), shape[1])
        codes, known = np.where(known, codes, 0).reshape(-1, n), known.reshape(-1, n)
        if count == 0 or (count == 1 and self.tables.pair_counts is not None):
            result = self._from_counts(codes, known, count, user, excluded)
        else:
            result = np.zeros((len(codes), n * K), dtype=bool)
            for row, match in self._matches(codes, known, count, user, excluded):
                result[row[:, None], self.tables.codes[match] + self.tables.first_number] = True
        result = result.reshape(len(codes), n, K)
        result[known] = False
        return result.reshape(*shape, K)

    def _from_counts(
        self, codes: np.ndarray, known: np.ndarray, count: int, user: np.ndarray, excluded: Excluded | None
    ) -> np.ndarray:
        """[rows, n K] bool, with no digit known, or one."""
        tables, digit = self.tables, known.argmax(1)
        code = codes[np.arange(len(codes)), digit]
        if count and tables.pair_counts is not None:
            left = tables.pair_counts[tables.first_number[digit] + code]
        else:
            left = np.tile(tables.counts, (len(codes), 1))
        if excluded is not None:
            row, item = self._excluded_rows(user, excluded)
            if count:
                same = tables.all_codes[item, digit[row]] == code[row]
                row, item = row[same], item[same]
            where = row[:, None] * left.shape[1] + tables.all_codes[item] + tables.first_number
            np.subtract.at(left.reshape(-1), where.ravel(), np.int32(1))
        return left > 0

    def _excluded_rows(self, user: np.ndarray, excluded: Excluded) -> tuple[np.ndarray, np.ndarray]:
        """Every (row, excluded recommendable item of the row's user)."""
        row, item = excluded.pairs(user)
        keep = self.recommendable[item]
        return row[keep], item[keep]

    def _matches(
        self, codes: np.ndarray, known: np.ndarray, count: int, user: np.ndarray, excluded: Excluded | None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """In parts, every (row, index into ``items``) that agrees with the known digits and is not excluded."""
        low, length = self._stretches(codes, known, count)
        for block in blocks(length):
            each = length[block]
            row = np.repeat(np.arange(block.start, block.stop), each)
            start = np.repeat(low[block] - (each.cumsum() - each), each)
            match = self.tables.lists[start + np.arange(len(row))]
            keep = ((self.tables.codes[match] == codes[row]) | ~known[row]).all(1)
            if excluded is not None:
                keep &= ~excluded.contains(user[row], self.tables.items[match])
            yield row[keep], match[keep]

    def _stretches(self, codes: np.ndarray, known: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """First index and length of the stretch of ``lists`` that holds all items matching each row [rows, n], whose codes
        are 0 where unknown."""
        tables = self.tables
        if tables.in_pairs and count > 1:
            first, second = np.argsort(~known, axis=1, kind="stable")[:, :2].T
        else:  # the known digit whose code the fewest items have
            counts = tables.counts[codes + tables.first_number]
            first = second = np.where(known, counts, np.iinfo(np.int32).max).argmin(1)
        number = tables.grouping_of[first, second]
        start = (codes * tables.list_factors[number]).sum(1)
        low = tables.ends[number, start]
        return low, tables.ends[number, start + (self.codebook_size if tables.in_pairs and count == 1 else 1)] - low

    # ---- complete SIDs ------------------------------------------------------------------------------------------

    def items_of(self, codes: np.ndarray, excluded: Excluded | None = None) -> np.ndarray:
        """The items behind complete SIDs.

        Args:
            codes: [B, W, n].

        Returns:
            [B, W, G] item positions that the user may get, -1 in unused places; G is 1 for injective SIDs.
        """
        tables = self.tables
        index = np.searchsorted(tables.sid_keys, self.keys(codes))[..., None] + np.arange(tables.largest_group)
        row = tables.sid_rows[index.clip(max=len(self) - 1)]
        found = (index < len(self)) & (tables.codes[row] == codes[:, :, None]).all(-1)
        item = np.where(found, tables.items[row], np.int64(-1))
        if excluded is not None:
            item[excluded.contains(np.arange(len(codes))[:, None, None], item)] = -1
        return item
