"""The catalogue's constraint in NumPy: which (digit, code) still lead to a recommendable item (floor 6).

The same three tables as :mod:`diffgrm.ranking.catalogue` has: counts where nothing is known, counts of pairs where one digit is
known, and sorted lists of the items that match two known digits, of which the others keep some.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from diffgrm.data.dataset import Ragged
from diffgrm.semantic_ids.code_keys import words_of_codes

PAIR_TABLE_LIMIT = 4096  # largest n K with a table of pair counts (64 MiB of int32)
PAIR_LIST_DIGITS = 8  # most digits with a sorted list for each pair of them; longer SIDs have one for each digit


class Excluded:
    """Items that single users must not get.

    Args:
        histories: item positions of B users, repeats allowed.
        n_items: items of the whole catalogue.
    """

    def __init__(self, histories: Ragged, n_items: int) -> None:
        self.histories, self.n_items = histories, n_items
        user = np.repeat(np.arange(len(histories)), histories.lengths)
        self._keys = np.unique(user * n_items + histories.values)
        ends = np.searchsorted(self._keys, np.arange(len(histories) + 1) * n_items)
        self._distinct = Ragged(self._keys % n_items, ends)

    def rows(self, chosen: np.ndarray) -> Excluded:
        """Those of some users [b]."""
        return Excluded(self.histories.rows(chosen), self.n_items)

    def pairs(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Every (row, item) that the users [R] of the rows must not get."""
        items = self._distinct.rows(users)
        return np.repeat(np.arange(len(users)), items.lengths), items.values

    def contains(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """[...] bool, whether each (user, item) is excluded."""
        wanted = user * self.n_items + item
        spot = np.searchsorted(self._keys, wanted).clip(max=len(self._keys) - 1)
        return self._keys[spot] == wanted


class Catalogue:
    """The recommendable items by their codes.

    Args:
        codes: [I, n] codes of all items.
        codebook_size: K.
        recommendable: [I] bool; None is all.
    """

    def __init__(self, codes: np.ndarray, codebook_size: int, recommendable: np.ndarray | None = None) -> None:
        self.n_digits, self.codebook_size = codes.shape[1], codebook_size
        self.all_codes = codes
        self.recommendable = np.ones(len(codes), dtype=bool) if recommendable is None else recommendable
        self.items = np.flatnonzero(self.recommendable)  # [R] positions
        self.codes = codes[self.items]  # [R, n]
        self.words = words_of_codes(self.n_digits, codebook_size)  # [n, K]
        self._lists: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.items)

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
        batch, beams, n = codes.shape
        count = int(known.sum(-1).max())
        user, codes, known = np.repeat(np.arange(batch), beams), codes.reshape(-1, n), known.reshape(-1, n)
        if count == 0:
            left = np.tile(self._counts, (len(user), 1))
            if excluded is not None:
                self._subtract(left, *self._excluded_rows(user, excluded))
            result = left > 0
        elif count == 1 and (pairs := self._pair_counts) is not None:
            result = self._from_pair_counts(pairs, codes, known, user, excluded)
        else:
            result = np.zeros((len(codes), n * self.codebook_size), dtype=bool)
            row, match = self._matches(codes, known, count, user, excluded)
            result[row[:, None], self._flat(self.codes[match])] = True
        result = result.reshape(len(codes), n, self.codebook_size)
        result[known] = False
        return result.reshape(batch, beams, n, -1)

    def _from_pair_counts(
        self, pairs: np.ndarray, codes: np.ndarray, known: np.ndarray, user: np.ndarray, excluded: Excluded | None
    ) -> np.ndarray:
        digit = known.argmax(1)
        code = codes[np.arange(len(codes)), digit]
        left = pairs[digit * self.codebook_size + code]  # [R, n K], a copy
        if excluded is not None:
            row, item = self._excluded_rows(user, excluded)
            same = self.all_codes[item, digit[row]] == code[row]
            self._subtract(left, row[same], item[same])
        return left > 0

    def _excluded_rows(self, user: np.ndarray, excluded: Excluded) -> tuple[np.ndarray, np.ndarray]:
        """Every (row, excluded recommendable item of the row's user)."""
        row, item = excluded.pairs(user)
        keep = self.recommendable[item]
        return row[keep], item[keep]

    def _subtract(self, left: np.ndarray, row: np.ndarray, item: np.ndarray) -> None:
        """Take one off the counts [rows, n K] of every (digit, code) of each (row, item)."""
        np.subtract.at(left, (row[:, None], self._flat(self.all_codes[item])), 1)

    def _matches(
        self, codes: np.ndarray, known: np.ndarray, count: int, user: np.ndarray, excluded: Excluded | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Every (row, place in ``self.items``) that agrees with the known digits and is not excluded."""
        first, second = np.argsort(~known, axis=1, kind="stable")[:, :2].T if count > 1 else (known.argmax(1),) * 2
        if self.n_digits > PAIR_LIST_DIGITS:
            second = first
        which = first * self.n_digits + second
        rows, matches = [], []
        for number in np.unique(which):
            a, b = divmod(int(number), self.n_digits)
            here = np.flatnonzero(which == number)
            keys, places = self._sorted_list(a, b)
            wanted = self._pair(codes[here], a, b)
            low = np.searchsorted(keys, wanted)
            length = np.searchsorted(keys, wanted, side="right") - low
            start = np.repeat(low - (length.cumsum() - length), length)
            rows.append(np.repeat(here, length))
            matches.append(places[start + np.arange(len(start))])
        row, match = np.concatenate(rows), np.concatenate(matches)
        keep = ((self.codes[match] == codes[row]) | ~known[row]).all(1)
        if excluded is not None:
            keep &= ~excluded.contains(user[row], self.items[match])
        return row[keep], match[keep]

    # ---- complete SIDs ------------------------------------------------------------------------------------------

    def items_of(self, names: np.ndarray, excluded: Excluded | None = None) -> np.ndarray:
        """The items behind complete SIDs.

        Args:
            names: [B, M] sums of ``words`` over the digits of each SID.

        Returns:
            [B, M, G] item positions that the user may get, -1 in unused places; G is 1 for injective SIDs.
        """
        keys, places, largest = self._by_name
        low, high = (np.searchsorted(keys, names, side=side)[..., None] for side in ("left", "right"))
        place = low + np.arange(largest)
        item = np.where(place < high, self.items[places[place.clip(max=len(keys) - 1)]], -1)
        if excluded is not None:
            user = np.arange(len(names))[:, None, None]
            item[excluded.contains(user, item) & (item >= 0)] = -1
        return item

    # ---- tables, each made at first use -------------------------------------------------------------------------

    def _flat(self, codes: np.ndarray) -> np.ndarray:
        """[..., n] numbers of (digit, code)s among all n K."""
        return codes + np.arange(self.n_digits) * self.codebook_size

    def _pair(self, codes: np.ndarray, a: int, b: int) -> np.ndarray:
        """[R] number of the pair of codes that rows [R, n] have at two digits (or at one, twice)."""
        return codes[:, a].astype(np.int64) * self.codebook_size + codes[:, b]

    @cached_property
    def _counts(self) -> np.ndarray:
        """[n K] items that have each (digit, code)."""
        return np.bincount(self._flat(self.codes).ravel(), minlength=self.n_digits * self.codebook_size)

    @cached_property
    def _pair_counts(self) -> np.ndarray | None:
        """[n K, n K] items that have both (digit, code)s; None where it would be too large."""
        n, K = self.n_digits, self.codebook_size
        if n * K > PAIR_TABLE_LIMIT:
            return None
        counts = np.empty((n, K, n, K), dtype=np.int32)
        for a in range(n):
            for b in range(a, n):
                both = np.bincount(self._pair(self.codes, a, b), minlength=K * K).reshape(K, K)
                counts[a, :, b], counts[b, :, a] = both, both.T
        return counts.reshape(n * K, n * K)

    def _sorted_list(self, a: int, b: int) -> tuple[np.ndarray, np.ndarray]:
        """The pairs of codes at two digits in order, and the places in ``self.items`` that have them."""
        if (a, b) not in self._lists:
            keys = self._pair(self.codes, a, b)
            places = keys.argsort(kind="stable")
            self._lists[a, b] = keys[places], places
        return self._lists[a, b]

    @cached_property
    def _by_name(self) -> tuple[np.ndarray, np.ndarray, int]:
        """The names of all complete SIDs in order, the places in ``self.items`` that have them, and the most on one."""
        names = self.words[np.arange(self.n_digits), self.codes].sum(1)
        places = names.argsort(kind="stable")
        return names[places], places, int(np.unique(names, return_counts=True)[1].max())
