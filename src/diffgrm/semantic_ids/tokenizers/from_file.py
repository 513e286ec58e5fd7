"""Semantic IDs that were made elsewhere, from a file: published ones, those of another model, your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import polars as pl

from diffgrm.data.ids import IdMap, spelled
from diffgrm.foundation.part_settings import Local
from diffgrm.foundation.schema import TokenizerError, bullet_list, first_few
from diffgrm.foundation.storage import digest
from diffgrm.semantic_ids.embeddings.base import check_embeddings
from diffgrm.semantic_ids.sid_files import read_sids
from diffgrm.semantic_ids.tokenizers.base import (
    AT_ONCE,
    CodebookSize,
    NDigits,
    Tokenizer,
    check_shapes,
    in_chunks,
    squared_distances,
)
from diffgrm.semantic_ids.tokenizers.context import TokenizerContext


class FromFileTokenizer(Tokenizer):
    """Every item has the digits that a file gives it; one that the file lacks, or that comes later, those of a neighbour.

    The neighbour is the training item of the file whose vector is nearest (Euclidean distance; of equal vectors, the first
    item's digits). Collisions are settled by ``semantic_ids.collisions``, as with every tokenizer: ``share`` leaves the
    file's digits as they are. What codes stand for is not known of a file, so that the error of every code is 0. A change
    of a digit is priced by texts: it costs the squared distance between the mean vectors of the training items that have
    one code and the other (of equal vectors, the first item's), and codes that none of them has are as dear as the dearest;
    this price is ours.

    A model keeps digits and vectors of the training items, and neither the file nor its path.
    """

    needs_items_per_code = False
    reads_items: ClassVar[bool] = True
    costs_add = True

    def __init__(
        self,
        n_digits: NDigits = 4,
        codebook_size: CodebookSize = 256,
        path: Annotated[
            str | None,
            Local(),
            "the .parquet (item_id and lists of digits) or .json ({item: digits}) file; a saved model does not keep it",
        ] = None,
        column: Annotated[
            str | None, "parquet: the column of the digits; null: semantic_id, or digit_0, digit_1..."
        ] = None,
        numbered: Annotated[
            bool,
            "leave out the file's last digit, a number that tells apart items of the same digits (beside n_digits); "
            "semantic_ids.collisions then does what it did",
        ] = False,
        missing: Annotated[
            Literal["error", "nearest"],
            "items of the table that are not in the file: an error, or the digits of the item of nearest text",
        ] = "error",
        seed: int = 0,
    ) -> None:
        super().__init__(n_digits, codebook_size, seed)
        self.path, self.column, self.numbered, self.missing = path, column, numbered, missing
        self._listed: tuple[IdMap, np.ndarray] | None = None  # ids and digits of the file, until what was learnt is loaded
        self._vectors = np.zeros((0, 0), dtype=np.float32)  # [T, e] of training items of the file, each vector once
        self._codes = np.zeros((0, n_digits), dtype=np.int32)  # [T, n]
        self._meant: list[tuple[np.ndarray, np.ndarray]] | None = None  # see _means

    def check(self, items: pl.Series) -> None:
        """See :meth:`Tokenizer.check`; reads the file.

        Raises:
            DataError: a file that cannot be used. TokenizerError: one of other sizes, or without some of the items.
        """
        self._rows(items)

    def identity(self) -> list[str]:
        """See :meth:`Tokenizer.identity`."""
        table = read_sids(self._file(), self.column)
        return [digest([table.items.to_list(), table.codes])]

    def encode(self, embeddings: np.ndarray, items: pl.Series | None = None) -> np.ndarray:
        """See :meth:`Tokenizer.encode`; with their ids, items have what the file says."""
        if items is None or self._listed is None:
            return super().encode(embeddings)
        known, digits = self._listed
        row = known.positions(items)
        codes = digits[row]
        codes[row < 0] = super().encode(embeddings[row < 0])
        return codes

    def _file(self) -> Path:
        if self.path is None:
            raise TokenizerError(
                "the tokenizer from_file needs a file of semantic IDs, and a saved model does not keep where it lay; set "
                "tokenizer.path=FILE"
            )
        return Path(self.path)

    def _read(self, kind: pl.DataType) -> tuple[IdMap, np.ndarray]:
        """The ids of the file as items of a kind are spelled, and their digits [N, n]."""
        path = self._file()
        table = read_sids(path, self.column)
        width, wanted = table.codes.shape[1], self.n_digits + self.numbered
        if width != wanted:
            left = width - self.numbered
            last = ", the last of which is left out (tokenizer.numbered)" * self.numbered
            way = f"set tokenizer.n_digits={left}" if left else "set tokenizer.numbered=false"
            raise TokenizerError(f"the semantic IDs of {path} have {width} digits{last}; expected {wanted}: {way}")
        codes = table.codes[:, : self.n_digits]
        highest = codes.max(0)
        over = [
            f"digit {place} has codes up to {code}; expected 0 to {size - 1}"
            for place, (code, size) in enumerate(zip(highest.tolist(), self.codebook_sizes, strict=True))
            if code >= size
        ]
        if over:
            least = np.maximum(highest + 1, 2).tolist()
            raise TokenizerError(
                f"the semantic IDs of {path} do not fit tokenizer.codebook_size; set it to {max(least)}, or to {least}:\n"
                + bullet_list(over)
            )
        ids = spelled(table.items, kind)
        there = ids.is_not_null()
        return IdMap(ids.filter(there)), codes[there.to_numpy()]

    def _rows(self, items: pl.Series) -> tuple[tuple[IdMap, np.ndarray], np.ndarray]:
        """What the file holds, and the row [I] of each item in it, -1 of those that it lacks.

        Raises:
            TokenizerError: it lacks items, and none may be missing, or all of them.
        """
        listed = self._read(items.dtype)
        row = listed[0].positions(items)
        lacking = items.filter(pl.Series(row < 0))
        if len(lacking) == len(items) or (len(lacking) and self.missing == "error"):
            way = "leave them out of the item table, or set tokenizer.missing=nearest"
            if len(lacking) == len(items):
                way = "do its ids go with those of the item table?"
            raise TokenizerError(
                f"{self.path} has no semantic ID for {len(lacking)} of {len(items)} items: {first_few(lacking)}; {way}"
            )
        return listed, row

    def _fit(self, context: TokenizerContext) -> None:
        assert context.items is not None
        self._listed, row = self._rows(context.items)
        kept = np.flatnonzero((row >= 0) & context.in_training)
        if not kept.size:
            raise TokenizerError(f"{self.path} has no semantic ID for any training item, of which one at least is needed")
        first = np.sort(np.unique(context.embeddings[kept], axis=0, return_index=True)[1])
        self._vectors, self._codes = context.embeddings[kept[first]], self._listed[1][row[kept[first]]]
        self._meant = None

    def _encode(self, embeddings: np.ndarray) -> np.ndarray:
        def nearest(rows: np.ndarray) -> np.ndarray:
            return squared_distances(rows, self._vectors).argmin(1)

        return self._codes[in_chunks(nearest, embeddings, rows=max(1, AT_ONCE // len(self._vectors)))]

    def _means(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each digit the codes [C] that training items have, and the mean vectors [C, e] of those items."""
        if self._meant is None:
            self._meant = []
            for column in self._codes.T:
                used, which, counts = np.unique(column, return_inverse=True, return_counts=True)
                sums = np.zeros((len(used), self._vectors.shape[1]))
                np.add.at(sums, which, self._vectors)
                self._meant.append((used, (sums / counts[:, None]).astype(np.float32)))
        return self._meant

    def _digit_costs(self, embeddings: np.ndarray, codes: np.ndarray) -> np.ndarray:
        costs = np.ones((len(embeddings), self.n_digits, self.codebook_size), dtype=np.float32)
        for digit, (used, means) in enumerate(self._means()):
            place = np.minimum(np.searchsorted(used, codes[:, digit]), len(used) - 1)
            known = np.flatnonzero(used[place] == codes[:, digit])  # of other codes nothing is known
            distances = squared_distances(means[place[known]], means)
            dearest = distances.max(1, keepdims=True)
            costs[known, digit] = np.where(dearest > 0, dearest, 1)
            costs[known[:, None], digit, used] = distances
        np.put_along_axis(costs, codes[..., None].astype(np.int64), 0, axis=-1)
        return costs

    def _error(self, embeddings: np.ndarray, codes: np.ndarray) -> np.ndarray:
        return np.zeros(len(embeddings), dtype=np.float32)

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"vectors": self._vectors, "codes": self._codes}

    def _load_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        shape = arrays["codes"].shape if "codes" in arrays else ()
        rows = shape[0] if shape else 0
        check_shapes(arrays, {"vectors": (rows, self.embedding_width), "codes": (rows, self.n_digits)})
        codes = arrays["codes"]
        if (
            not rows
            or not np.issubdtype(codes.dtype, np.integer)
            or not ((codes >= 0) & (codes < self.codebook_sizes)).all()
        ):
            raise TokenizerError(f"the digits of the tokenizer do not lie in codebooks of the sizes {self.codebook_sizes}")
        self._vectors, self._codes = check_embeddings(arrays["vectors"], rows), codes.astype(np.int32)
        self._listed = self._meant = None
