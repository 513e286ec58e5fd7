"""Catalogue: which (digit, code) still lead to a recommendable item, for any subset of known digits (floor 3).

Three tables answer it without walking over the catalogue:

- nothing known: how many items have each (digit, code);
- one digit known: how many items have each pair of (digit, code)s, where n K is small enough for such a table;
- more known: the items that match two of the known digits, a contiguous stretch of a sorted list whose ends stand in a
  table, of which the other known digits keep some. With two digits known, few items are left in most catalogues.

Excluded items (a user's history) are subtracted from the counts and dropped from the lists, so they cost no rebuild.
"""

from __future__ import annotations

from functools import cached_property
from itertools import combinations, pairwise

import numpy as np
import torch
from torch import Tensor

from diffgrm.data.dataset import Ragged
from diffgrm.semantic_ids.code_keys import words_of_codes

PAIR_TABLE_LIMIT = 4096  # largest n K with a table of pair counts (64 MiB of int32)
PAIR_INDEX_DIGITS = 8  # most digits with a sorted list a pair; longer SIDs keep a sorted list a digit
PAIR_ENDS_LIMIT = 2**26  # largest number of pairs of codes, over all pairs of digits, with a sorted list a pair
LIST_BLOCK = 2**22  # matching items looked at together


class Excluded:
    """Items that single users must not get, by row of a batch.

    Args:
        padded: [B, E] item positions, distinct in a row, -1 in unused places.
        n_items: items of the whole catalogue.
    """

    def __init__(self, padded: Tensor, n_items: int) -> None:
        self.padded, self.n_items = padded, n_items

    @classmethod
    def from_ragged(
        cls, items: Ragged, n_items: int, device: torch.device | None = None, everyone: np.ndarray | None = None
    ) -> Excluded:
        """From lists of item positions a user, and of items that no user must get; repeats are dropped."""
        user = np.repeat(np.arange(len(items)), items.lengths)
        keys = user * n_items + items.values
        if everyone is not None:
            keys = np.concatenate([keys, np.add.outer(np.arange(len(items)) * n_items, everyone).ravel()])
        keys = np.unique(keys)
        offsets = np.concatenate([[0], np.cumsum(np.bincount(keys // n_items, minlength=len(items)))])
        return cls(torch.from_numpy(Ragged(keys % n_items, offsets).padded(-1)).to(device), n_items)

    def rows(self, chosen: Tensor) -> Excluded:
        """Those of some users [b]."""
        return Excluded(self.padded[chosen], self.n_items)

    @cached_property
    def _keys(self) -> Tensor:
        """Sorted user * n_items + item."""
        user = torch.arange(len(self.padded), device=self.padded.device)[:, None]
        return (user * self.n_items + self.padded)[self.padded >= 0].sort().values

    def contains(self, user: Tensor, item: Tensor) -> Tensor:
        """[T] bool, whether the pairs (row of the batch, item position) are excluded."""
        if len(self._keys) == 0:
            return torch.zeros_like(user, dtype=torch.bool)
        wanted = user * self.n_items + item
        spot = torch.searchsorted(self._keys, wanted).clamp(max=len(self._keys) - 1)
        return self._keys[spot] == wanted


class Catalogue:
    """The recommendable items by their codes.

    Args:
        codes: [I, n] codes of all items.
        codebook_size: K.
        recommendable: [I] bool; None is all.
    """

    def __init__(self, codes: Tensor, codebook_size: int, recommendable: Tensor | None = None) -> None:
        self.n_digits, self.codebook_size = codes.shape[1], codebook_size
        # [I, n], small, since they are the largest table; not bytes, which PyTorch would take for a mask as an index.
        self._codes = codes.to(torch.int16 if codebook_size <= 2**15 else torch.int32)
        if recommendable is None:
            recommendable = torch.ones(len(codes), dtype=torch.bool, device=codes.device)
        self.recommendable = recommendable
        self.items = recommendable.nonzero()[:, 0].int()  # [R] positions
        self.codes = self._codes if len(self.items) == len(codes) else self._codes[self.items]  # [R, n]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def n_items(self) -> int:
        """Items of the whole catalogue, recommendable or not."""
        return len(self._codes)

    def codes_of(self, items: Tensor) -> Tensor:
        """[..., n] int64 codes of item positions [...]."""
        return self._codes[items].long()

    def restricted(self, recommendable: Tensor) -> Catalogue:
        """The catalogue of the items for which ``recommendable`` [I] is true."""
        return Catalogue(self._codes, self.codebook_size, recommendable & self.recommendable)

    def possible(self, excluded: Excluded | None, users: int) -> Tensor:
        """[users] how many items each user could get."""
        total = torch.full((users,), len(self), device=self.codes.device)
        if excluded is None or excluded.padded.shape[1] == 0:
            return total
        real = (excluded.padded >= 0) & self.recommendable[excluded.padded.clamp(min=0)]
        return total - real.sum(1)

    # ---- what may come next -------------------------------------------------------------------------------------

    def allowed(self, codes: Tensor, known: Tensor, excluded: Excluded | None = None) -> Tensor:
        """Which (digit, code) extend a partial SID to at least one item that its user may get.

        Args:
            codes: [B, W, n] partial SIDs, any value where unknown.
            known: [B, W, n] bool, with as many known digits in every row (rows with fewer may get any answer).
            excluded: items that single users must not get.

        Returns:
            [B, W, n, K] bool, false for known digits.
        """
        batch, beams, n = codes.shape
        count = int(known.sum(-1).max()) if known.numel() else 0
        user = torch.arange(batch, device=codes.device).repeat_interleave(beams)
        if count == 0:
            result = self._from_counts(user, excluded)
        elif count == 1 and (pairs := self._pair_counts) is not None:
            result = self._from_pair_counts(pairs, codes.flatten(0, 1), known.flatten(0, 1), user, excluded)
        else:
            result = self._from_lists(codes.flatten(0, 1), known.flatten(0, 1), count, user, excluded)
        result = result.view(batch, beams, n, self.codebook_size)
        return result & ~known[..., None]

    def _from_counts(self, user: Tensor, excluded: Excluded | None) -> Tensor:
        left = self._counts.expand(len(user), -1)
        if excluded is not None:
            row, item = self._excluded_rows(user, excluded)
            left = left.clone()
            self._subtract(left, row, item)
        return left > 0

    def _from_pair_counts(
        self, pairs: Tensor, codes: Tensor, known: Tensor, user: Tensor, excluded: Excluded | None
    ) -> Tensor:
        digit = known.int().argmax(1)
        code = codes.gather(1, digit[:, None])[:, 0]
        left = pairs[digit * self.codebook_size + code]  # [R, n K], a copy
        if excluded is not None:
            row, item = self._excluded_rows(user, excluded)
            same = self._codes[item].gather(1, digit[row][:, None])[:, 0] == code[row]
            self._subtract(left, row[same], item[same])
        return left > 0

    def _excluded_rows(self, user: Tensor, excluded: Excluded) -> tuple[Tensor, Tensor]:
        """Every (row, excluded recommendable item of the row's user)."""
        padded = excluded.padded[user]  # [rows, E]
        row, column = ((padded >= 0) & self.recommendable[padded.clamp(min=0)]).nonzero(as_tuple=True)
        return row, padded[row, column]

    def _subtract(self, left: Tensor, row: Tensor, item: Tensor) -> None:
        """Take one off the counts [rows, n K] of every (digit, code) of each (row, item)."""
        where = row[:, None] * left.shape[1] + self._flat(self._codes[item])
        left.view(-1).scatter_add_(0, where.flatten(), left.new_full((), -1).expand(where.numel()))

    def _from_lists(self, codes: Tensor, known: Tensor, count: int, user: Tensor, excluded: Excluded | None) -> Tensor:
        result = torch.zeros(len(codes), self.n_digits * self.codebook_size, dtype=torch.bool, device=codes.device)
        low, length = self._stretches(codes, known, count)
        for block in _blocks(length, LIST_BLOCK):
            row, match = self._matches(codes[block], known[block], low[block], length[block], user[block], excluded)
            result[block].view(-1)[(row[:, None] * result.shape[1] + self._flat(self.codes[match])).flatten()] = True
        return result

    def _matches(
        self, codes: Tensor, known: Tensor, low: Tensor, length: Tensor, user: Tensor, excluded: Excluded | None
    ) -> tuple[Tensor, Tensor]:
        """Every (row, place in ``self.items``) that agrees with the known digits and is not excluded."""
        row = torch.repeat_interleave(torch.arange(len(codes), device=codes.device), length)
        start = torch.repeat_interleave(low - (length.cumsum(0) - length), length)
        match = self._list[start + torch.arange(len(row), device=codes.device)].long()
        keep = ((self.codes[match] == codes[row]) | ~known[row]).all(1)
        if excluded is not None:
            keep &= ~excluded.contains(user[row], self.items[match].long())
        return row[keep], match[keep]

    def only_item(self, codes: Tensor, known: Tensor, excluded: Excluded | None = None) -> Tensor:
        """The item of every partial SID that only one item fits which its user may get.

        Args:
            codes: [B, M, n] partial SIDs, any value where unknown.
            known: [B, M, n] bool, with as many known digits in every row, one at least.

        Returns:
            [B, M] item positions, -1 where no item fits, or several.
        """
        batch, rows, n = codes.shape
        user = torch.arange(batch, device=codes.device).repeat_interleave(rows)
        codes, known = codes.view(-1, n), known.view(-1, n)
        fits = torch.zeros(len(codes), dtype=torch.long, device=codes.device)
        item = fits - 1
        low, length = self._stretches(codes, known, int(known[0].sum()))
        for block in _blocks(length, LIST_BLOCK):
            row, match = self._matches(codes[block], known[block], low[block], length[block], user[block], excluded)
            fits[block] = fits[block].scatter_add(0, row, torch.ones_like(row))
            item[block] = item[block].scatter(0, row, self.items[match].long())
        return torch.where(fits == 1, item, -1).view(batch, rows)

    # ---- complete SIDs ------------------------------------------------------------------------------------------

    def items_of(self, codes: Tensor, excluded: Excluded | None = None) -> Tensor:
        """The items behind complete SIDs.

        Args:
            codes: [B, W, n].

        Returns:
            [B, W, G] item positions that the user may get, -1 in unused places; G is 1 for injective SIDs.
        """
        batch, beams, _ = codes.shape
        wanted = self.words(codes.flatten(0, 1))
        low = torch.searchsorted(self._sid_keys, wanted)
        offset = torch.arange(self._largest_group, device=codes.device)
        place = low[:, None] + offset
        row = self._sid_rows[place.clamp(max=max(len(self) - 1, 0))]
        found = (place < len(self)) & (self.codes[row] == codes.flatten(0, 1)[:, None]).all(-1)
        item = torch.where(found, self.items[row].long(), -1)
        if excluded is not None:
            user = torch.arange(batch, device=codes.device).repeat_interleave(beams)[:, None].expand_as(item)
            bad = excluded.contains(user.reshape(-1), item.clamp(min=0).reshape(-1)).view_as(item)
            item = torch.where(bad, -1, item)
        return item.view(batch, beams, -1)

    def _flat(self, codes: Tensor) -> Tensor:
        """[..., n] numbers of (digit, code)s among all n K."""
        return codes + torch.arange(self.n_digits, device=codes.device) * self.codebook_size

    # ---- tables, each made at first use -------------------------------------------------------------------------

    @cached_property
    def _counts(self) -> Tensor:
        """[1, n K] items that have each (digit, code)."""
        counts = [torch.bincount(column, minlength=self.codebook_size) for column in self.codes.T]
        return torch.cat(counts).int()[None]

    @cached_property
    def _pair_counts(self) -> Tensor | None:
        """[n K, n K] items that have both (digit, code)s; None where it would be too large."""
        n, K = self.n_digits, self.codebook_size
        if n * K > PAIR_TABLE_LIMIT:
            return None
        counts = torch.empty(n, K, n, K, dtype=torch.int32, device=self.codes.device)
        for a in range(n):
            for b in range(a, n):
                both = torch.bincount(self._pair(a, b), minlength=K * K).view(K, K).int()
                counts[a, :, b], counts[b, :, a] = both, both.T
        return counts.view(n * K, n * K)

    def _pair(self, a: int, b: int) -> Tensor:
        """[R] number of the pair of codes at two digits, the first counting more."""
        return self.codes[:, a].long() * self.codebook_size + self.codes[:, b]

    @cached_property
    def _groupings(self) -> list[tuple[int, int]]:
        """What the lists are sorted by: pairs of digits, each digit first in one at least; or single digits, as (j, j)."""
        n, K = self.n_digits, self.codebook_size
        pairs = [*combinations(range(n), 2)]
        if n < 3 or n > PAIR_INDEX_DIGITS or len(pairs) * K * K > PAIR_ENDS_LIMIT:
            return [(j, j) for j in range(n)]
        pairs[n - 2] = (n - 1, 0)  # instead of (0, n - 1)
        return pairs

    @property
    def _in_pairs(self) -> bool:
        return self._groupings[0][0] != self._groupings[0][1]

    @cached_property
    def _sorted_lists(self) -> tuple[Tensor, Tensor]:
        """For each grouping the places in ``self.items`` in order of its codes, R each, one after the other; and where in
        them the stretch of every pair of codes (or code) ends, with a leading start: [groupings, K^2 + 1 (or K + 1)]."""
        size, codes = len(self), self.codebook_size ** (1 + self._in_pairs)
        lists = torch.empty(len(self._groupings) * size, dtype=torch.int32, device=self.codes.device)
        ends = torch.zeros(len(self._groupings), codes + 1, dtype=torch.long, device=self.codes.device)
        for number, (a, b) in enumerate(self._groupings):
            key = self._pair(a, b) if self._in_pairs else self.codes[:, a].long()
            lists[number * size : (number + 1) * size] = key.argsort(stable=True)
            ends[number, 1:] = torch.bincount(key, minlength=codes).cumsum(0)
            ends[number] += number * size
        return lists, ends

    @property
    def _list(self) -> Tensor:
        return self._sorted_lists[0]

    @cached_property
    def _grouping_of(self) -> Tensor:
        """[n, n] number of the grouping of two digits; on the diagonal, of one that the digit comes first in."""
        table = torch.zeros(self.n_digits, self.n_digits, dtype=torch.long)
        for number, (a, b) in enumerate(self._groupings):
            table[a, b] = table[b, a] = table[a, a] = number
        return table.to(self.codes.device)

    def _stretches(self, codes: Tensor, known: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """First place and length of the stretch of ``_list`` that holds all items matching each row."""
        K, ends, codes = self.codebook_size, self._sorted_lists[1], codes.clamp(0, self.codebook_size - 1)
        if not self._in_pairs or count == 1:
            digit = self._rarest_known(codes, known)
            number, code = self._grouping_of[digit, digit], codes.gather(1, digit[:, None])[:, 0]
            each = K if self._in_pairs else 1  # keys of a code
            first, last = code * each, (code + 1) * each
        else:
            pair = known.int().argsort(dim=1, descending=True, stable=True)[:, :2]  # the first two known
            number = self._grouping_of[pair[:, 0], pair[:, 1]]
            order = torch.tensor(self._groupings, device=codes.device)[number]  # [rows, 2]
            first = (codes.gather(1, order) * torch.tensor([K, 1], device=codes.device)).sum(1)
            last = first + 1
        low = ends[number, first]
        return low, ends[number, last] - low

    def _rarest_known(self, codes: Tensor, known: Tensor) -> Tensor:
        """[rows] the known digit whose code the fewest items have."""
        counts = self._counts[0][self._flat(codes)].masked_fill(~known, torch.iinfo(torch.int32).max)
        return counts.argmin(1)

    @cached_property
    def _word_table(self) -> Tensor:
        return code_words(self.n_digits, self.codebook_size, self.codes.device)

    def words(self, codes: Tensor) -> Tensor:
        """One int64 a complete SID: [..., n] -> [...]."""
        words = torch.zeros(codes.shape[:-1], dtype=torch.long, device=codes.device)
        for digit in range(self.n_digits):
            words += self._word_table[digit, codes[..., digit].long()]
        return words

    @cached_property
    def _sid_order(self) -> tuple[Tensor, Tensor]:
        keys, rows = self.words(self.codes).sort(stable=True)
        return keys, rows.int()

    @cached_property
    def distinct_codes(self) -> Tensor:
        """[D, n] the different SIDs of the recommendable items."""
        first = torch.ones(len(self), dtype=torch.bool, device=self.codes.device)
        first[1:] = self._sid_keys[1:] != self._sid_keys[:-1]
        return self.codes[self._sid_rows[first]].long()

    @property
    def _sid_keys(self) -> Tensor:
        return self._sid_order[0]

    @property
    def _sid_rows(self) -> Tensor:
        return self._sid_order[1]

    @cached_property
    def _largest_group(self) -> int:
        if len(self) == 0:
            return 1
        return int(torch.unique_consecutive(self._sid_keys, return_counts=True)[1].max())


def code_words(n_digits: int, codebook_size: int, device: torch.device | None = None) -> Tensor:
    """[n, K] int64 words whose sum over any set of (digit, code)s names that set (:mod:`diffgrm.semantic_ids.code_keys`)."""
    return torch.from_numpy(words_of_codes(n_digits, codebook_size)).to(device)


def _blocks(length: Tensor, limit: int) -> list[slice]:
    """Consecutive rows whose lengths add up to about ``limit`` at most."""
    if len(length) == 0:
        return []
    total = int(length.sum())
    if total <= limit:
        return [slice(0, len(length))]
    number = (length.cumsum(0) // limit).cpu().numpy()
    cuts = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(length)]
    return [slice(a, b) for a, b in pairwise(cuts)]
