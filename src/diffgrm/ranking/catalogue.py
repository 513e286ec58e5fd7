"""Catalogue in PyTorch: which (digit, code) still lead to a recommendable item, for any subset of known digits.

Looks up in the tables of :mod:`diffgrm.semantic_ids.catalogue_tables`, where the way is told; each table moves to the
device at first use.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from diffgrm.data.dataset import Ragged
from diffgrm.ranking.digit_sums import places_of
from diffgrm.semantic_ids.catalogue_tables import CatalogueTables, blocks, excluded_keys


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
        keys = excluded_keys(items, n_items, everyone)
        offsets = np.searchsorted(keys, np.arange(len(items) + 1) * n_items)
        return cls(torch.from_numpy(Ragged(keys % n_items, offsets).padded(-1)).to(device), n_items)

    def rows(self, chosen: Tensor) -> Excluded:
        """Those of some users [b]."""
        return Excluded(self.padded[chosen], self.n_items)

    def ragged(self) -> Ragged:
        """Item positions of each user, as arrays."""
        padded = self.padded.cpu().numpy()
        used = padded >= 0
        return Ragged(padded[used], np.concatenate([[0], np.cumsum(used.sum(1))]))

    @cached_property
    def _keys(self) -> Tensor:
        """Sorted user * n_items + item, and one that is larger than any."""
        user = torch.arange(len(self.padded), device=self.padded.device)[:, None]
        keys = (user * self.n_items + self.padded)[self.padded >= 0].sort().values
        return torch.nn.functional.pad(keys, (0, 1), value=len(self.padded) * self.n_items)

    def contains(self, user: Tensor, item: Tensor) -> Tensor:
        """[T] bool, whether the pairs (row of the batch, item position) are excluded."""
        wanted = user * self.n_items + item
        return self._keys[torch.searchsorted(self._keys, wanted)] == wanted


class Catalogue:
    """The recommendable items by their codes, on the device of ``codes``.

    Args:
        codes: [I, n] codes of all items.
        codebook_size: K.
        recommendable: [I] bool; None is all.
        trained: [I] bool, items with training events; None is all.
    """

    def __init__(
        self, codes: Tensor, codebook_size: int, recommendable: Tensor | None = None, trained: Tensor | None = None
    ) -> None:
        of_items = [None if flags is None else flags.cpu().numpy() for flags in (recommendable, trained)]
        self._look_up_in(CatalogueTables(codes.cpu().numpy(), codebook_size, *of_items), codes.device)

    @classmethod
    def from_tables(cls, tables: CatalogueTables, device: torch.device | None = None) -> Catalogue:
        """The catalogue whose tables are built already; ``device`` None is the CPU."""
        catalogue = cls.__new__(cls)
        catalogue._look_up_in(tables, device or torch.device("cpu"))
        return catalogue

    def _look_up_in(self, tables: CatalogueTables, device: torch.device) -> None:
        self.tables, self.device = tables, device
        self.n_digits, self.codebook_size = tables.n_digits, tables.codebook_size

    def _here(self, table: np.ndarray) -> Tensor:
        return torch.from_numpy(table).to(self.device)

    def __len__(self) -> int:
        return len(self.tables)

    @property
    def n_items(self) -> int:
        """Items of the whole catalogue, recommendable or not."""
        return len(self.tables.all_codes)

    @cached_property
    def recommendable(self) -> Tensor:
        """[I] bool."""
        return self._here(self.tables.recommendable)

    @cached_property
    def items(self) -> Tensor:
        """[R] int32 positions of the recommendable items."""
        return self._here(self.tables.items)

    @cached_property
    def codes(self) -> Tensor:
        """[R, n] codes of the recommendable items, as small integers."""
        return self._all_codes if len(self) == self.n_items else self._here(self.tables.codes)

    @cached_property
    def distinct_codes(self) -> Tensor:
        """[D, n] the different SIDs of the recommendable items, as small integers."""
        return self._here(self.tables.distinct_codes)

    @cached_property
    def distinct_places(self) -> Tensor:
        """[D, n] int32 numbers of the (digit, code)s of the different SIDs, for sums of logits over all of them."""
        return places_of(self.distinct_codes, self.codebook_size).contiguous()

    @cached_property
    def distinct_items(self) -> Tensor:
        """[D] int64, the position of an item of each of the different SIDs."""
        return self._here(self.tables.distinct_items)

    @cached_property
    def new_sids(self) -> Tensor:
        """[D] bool, the different SIDs of which no recommendable item has training events."""
        return self._here(self.tables.new_sids)

    @cached_property
    def code_keys(self) -> Tensor:
        """[n, K] int64 keys of single (digit, code)s (:mod:`diffgrm.semantic_ids.code_keys`)."""
        return self._here(self.tables.code_keys)

    def keys(self, codes: Tensor) -> Tensor:
        """[...] int64 keys of complete SIDs [..., n]."""
        keys = torch.zeros(codes.shape[:-1], dtype=torch.long, device=codes.device)
        for digit, keys_of in enumerate(self.code_keys):
            keys += keys_of[codes[..., digit].long()]
        return keys

    def codes_of(self, items: Tensor) -> Tensor:
        """[..., n] int64 codes of item positions [...]."""
        return self._all_codes[items].long()

    def restricted(self, recommendable: Tensor) -> Catalogue:
        """The catalogue of the items for which ``recommendable`` [I] is true."""
        return Catalogue.from_tables(self.tables.restricted(recommendable.cpu().numpy()), self.device)

    def possible(self, excluded: Excluded | None, users: int) -> Tensor:
        """[users] how many items each user could get."""
        total = torch.full((users,), len(self), device=self.device)
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
        elif count == 1 and self._pair_counts is not None:
            result = self._from_pair_counts(self._pair_counts, codes.flatten(0, 1), known.flatten(0, 1), user, excluded)
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
        left = pairs[digit * self.codebook_size + code]  # [rows, n K], a copy
        if excluded is not None:
            row, item = self._excluded_rows(user, excluded)
            same = self._all_codes[item].gather(1, digit[row][:, None])[:, 0] == code[row]
            self._subtract(left, row[same], item[same])
        return left > 0

    def _excluded_rows(self, user: Tensor, excluded: Excluded) -> tuple[Tensor, Tensor]:
        """Every (row, excluded recommendable item of the row's user)."""
        padded = excluded.padded[user]  # [rows, E]
        row, column = ((padded >= 0) & self.recommendable[padded.clamp(min=0)]).nonzero(as_tuple=True)
        return row, padded[row, column]

    def _subtract(self, left: Tensor, row: Tensor, item: Tensor) -> None:
        """Take one off the counts [rows, n K] of every (digit, code) of each (row, item)."""
        where = row[:, None] * left.shape[1] + self._flat(self._all_codes[item])
        left.view(-1).scatter_add_(0, where.flatten(), left.new_full((), -1).expand(where.numel()))

    def _from_lists(self, codes: Tensor, known: Tensor, count: int, user: Tensor, excluded: Excluded | None) -> Tensor:
        result = torch.zeros(len(codes), self.n_digits * self.codebook_size, dtype=torch.bool, device=codes.device)
        for block, row, match in self._matches(codes, known, count, user, excluded):
            result[block].view(-1)[(row[:, None] * result.shape[1] + self._flat(self.codes[match])).flatten()] = True
        return result

    def only_item(self, codes: Tensor, known: Tensor, excluded: Excluded | None = None) -> Tensor:
        """The item of every partial SID that only one item fits which its user may get.

        Args:
            codes: [B, M, n] partial SIDs, any value where unknown.
            known: [B, M, n] bool, with as many known digits in every row, one at least (rows with fewer may get any
                answer).

        Returns:
            [B, M] item positions, -1 where no item fits, or several.
        """
        batch, rows, n = codes.shape
        user = torch.arange(batch, device=codes.device).repeat_interleave(rows)
        fits = torch.zeros(batch * rows, dtype=torch.long, device=codes.device)
        item = fits - 1
        codes, known = codes.view(-1, n), known.view(-1, n)
        for block, row, match in self._matches(codes, known, int(known.sum(-1).max()), user, excluded):
            fits[block] = fits[block].scatter_add(0, row, torch.ones_like(row))
            item[block] = item[block].scatter(0, row, self.items[match].long())
        return torch.where(fits == 1, item, -1).view(batch, rows)

    def fitting(self, codes: Tensor, known: Tensor, excluded: Excluded | None = None) -> tuple[Tensor, Tensor]:
        """Every pair of a partial SID and an item that fits it.

        Args:
            codes: [R, n] partial SIDs, any value where unknown.
            known: [R, n] bool, with as many known digits in every row, one at least.
            excluded: items that single rows must not get.

        Returns:
            [P] rows and [P] item positions; rows in order.
        """
        rows, items = [], []
        user = torch.arange(len(codes), device=codes.device)
        for block, row, match in self._matches(codes, known, int(known.sum(-1).max()), user, excluded):
            rows.append(row + block.start)
            items.append(self.items[match].long())
        return torch.cat(rows), torch.cat(items)

    def _matches(
        self, codes: Tensor, known: Tensor, count: int, user: Tensor, excluded: Excluded | None
    ) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Blocks of rows; of each every (row of the block, index into ``items``) that agrees with the known digits and is
        not excluded."""
        low, length = self._stretches(codes, known, count)
        lengths = length.cpu().numpy()
        for block in blocks(lengths):
            each, pairs = length[block], int(lengths[block].sum())
            row = torch.repeat_interleave(torch.arange(len(each), device=codes.device), each, output_size=pairs)
            start = torch.repeat_interleave(low[block] - (each.cumsum(0) - each), each, output_size=pairs)
            match = self._lists[start + torch.arange(len(row), device=codes.device)].long()
            keep = ((self.codes[match] == codes[block][row]) | ~known[block][row]).all(1)
            if excluded is not None:
                keep &= ~excluded.contains(user[block][row], self.items[match].long())
            kept = keep.nonzero()[:, 0]
            yield block, row[kept], match[kept]

    def _stretches(self, codes: Tensor, known: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """First index and length of the stretch of ``_lists`` that holds all items matching each row."""
        codes, in_pairs = codes.where(known, 0), self.tables.in_pairs
        if in_pairs and count > 1:
            first, second = known.int().argsort(dim=1, descending=True, stable=True)[:, :2].T
        else:  # the known digit whose code the fewest items have
            counts = self._counts[self._flat(codes)].masked_fill(~known, torch.iinfo(torch.int32).max)
            first = second = counts.argmin(1)
        number = self._grouping_of[first, second]
        start = (codes * self._list_factors[number]).sum(1)
        low = self._ends[number, start]
        return low, self._ends[number, start + (self.codebook_size if in_pairs and count == 1 else 1)] - low

    # ---- complete SIDs ------------------------------------------------------------------------------------------

    def items_of(self, codes: Tensor, excluded: Excluded | None = None) -> Tensor:
        """The items behind complete SIDs.

        Args:
            codes: [B, W, n].

        Returns:
            [B, W, G] item positions that the user may get, -1 in unused places; G is 1 for injective SIDs.
        """
        index = torch.searchsorted(self._sid_keys, self.keys(codes))[..., None]
        index = index + torch.arange(self.tables.largest_group, device=codes.device)
        row = self._sid_rows[index.clamp(max=len(self) - 1)]
        found = (index < len(self)) & (self.codes[row] == codes[:, :, None]).all(-1)
        item = torch.where(found, self.items[row].long(), -1)
        if excluded is not None:
            user = torch.arange(len(codes), device=codes.device)[:, None, None]
            item = torch.where(excluded.contains(user, item), -1, item)
        return item

    # ---- tables, each moved here at first use -------------------------------------------------------------------

    def _flat(self, codes: Tensor) -> Tensor:
        """[..., n] numbers of (digit, code)s among all n K."""
        return codes + self._first_number

    @cached_property
    def _first_number(self) -> Tensor:
        return self._here(self.tables.first_number)

    @cached_property
    def _all_codes(self) -> Tensor:
        return self._here(self.tables.all_codes)

    @cached_property
    def _counts(self) -> Tensor:
        return self._here(self.tables.counts)

    @cached_property
    def _pair_counts(self) -> Tensor | None:
        return None if self.tables.pair_counts is None else self._here(self.tables.pair_counts)

    @cached_property
    def _grouping_of(self) -> Tensor:
        return self._here(self.tables.grouping_of)

    @cached_property
    def _list_factors(self) -> Tensor:
        return self._here(self.tables.list_factors)

    @cached_property
    def _lists(self) -> Tensor:
        return self._here(self.tables.lists)

    @cached_property
    def _ends(self) -> Tensor:
        return self._here(self.tables.ends)

    @cached_property
    def _sid_keys(self) -> Tensor:
        return self._here(self.tables.sid_keys)

    @cached_property
    def _sid_rows(self) -> Tensor:
        return self._here(self.tables.sid_rows)
