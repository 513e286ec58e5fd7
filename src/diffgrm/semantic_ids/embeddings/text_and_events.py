"""Texts and co-occurrence side by side: vectors that tell apart items of one text which other users meet."""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import polars as pl
import scipy.sparse as sp
from pydantic import Field
from sklearn.decomposition import TruncatedSVD

from diffgrm.data.dataset import Ragged
from diffgrm.data.ids import IdMap
from diffgrm.foundation.parts import PartLike, PartOf, as_part
from diffgrm.foundation.schema import Columns, ModelFolderError
from diffgrm.foundation.storage import State, code_digests
from diffgrm.semantic_ids.embeddings.base import EventContext, ItemEncoder, check_embeddings, normalise
from diffgrm.semantic_ids.threads import one_thread

VECTORS, ITEMS, TEXT = "co_occurrence", "items", "text:"  # among the arrays; before the names of the text encoder's
LEAST = 1e-12  # share of an item's squared counts in the directions, below which they hold nothing of it but rounding


class TextAndEvents(ItemEncoder):
    """Vectors [N, t + r]: that of the item's text, of length 1, and one of its training events, of length ``weight``.

    The second is the item's row of the truncated SVD (singular vectors times singular values) of the matrix of
    co-occurrence: how many users met both items in training, plain counts, on the diagonal those of the item itself. It
    is zero for items without events, and for items that come later, which fall back to their texts. As input of a
    quantiser: ANR-DiffRec (arXiv 2608.23400, rank 64, beside sentence embeddings); that both parts are of length 1, and
    what is on the diagonal, is our reading.
    """

    reads_events: ClassVar[bool] = True
    zero_vector: ClassVar[str] = (
        "their texts say nothing, and they have no training events; give them texts with words that others have"
    )

    def __init__(
        self,
        text: Annotated[PartLike, PartOf("embedding"), "what reads the texts"] = "lsa",
        rank: Annotated[int, Field(ge=1), "r, singular directions of the co-occurrence (less where items are few)"] = 64,
        weight: Annotated[float, Field(gt=0), "length of the events' part; the text's has length 1"] = 1.0,
        seed: int = 0,
    ) -> None:
        part = as_part("embedding", text)
        self.rank, self.weight, self.seed = rank, weight, seed
        self._text: ItemEncoder = part.build(seed=seed)
        self._name, self.cached = part.name, self._text.cached and code_digests(type(self._text)) is not None
        self._items = IdMap(pl.Series([], dtype=pl.String))  # J items with training events
        self._vectors = np.zeros((0, 0), dtype=np.float32)  # [J, r], of length 1

    @property
    def goes_by_rows(self) -> bool:
        """See :meth:`ItemEncoder.goes_by_rows`; the text encoder decides."""
        return self._text.goes_by_rows

    def identity(self) -> dict[str, Any]:
        """See :meth:`ItemEncoder.identity`."""
        own = {"rank": self.rank, "weight": self.weight, "seed": self.seed}
        return {**own, "text": [self._name, code_digests(type(self._text)), self._text.identity()]}

    def documents(self, items: pl.DataFrame) -> list[str]:
        """See :meth:`ItemEncoder.documents`; the id tells which events are an item's."""
        texts = zip(items[Columns.ITEM], self._text.documents(items), strict=True)
        return [f"{item} {text}" for item, text in texts]

    def fit_events(self, context: EventContext) -> Self:
        """Learn from the texts of training items, and from who met which of them."""
        split = context.split
        if self._text.reads_events:
            self._text.fit_events(context)
        else:
            self._text.fit(split.dataset.item_table.filter(split.item_counts > 0))
        with one_thread():
            vectors = _co_occurrence_vectors(split.train, split.dataset.n_items, self.rank, self.seed)
        met = np.flatnonzero(vectors.any(1))
        self._items, self._vectors = IdMap(split.dataset.items.gather(met)), vectors[met]
        return self

    def encode(self, items: pl.DataFrame) -> np.ndarray:
        """See :meth:`ItemEncoder.encode`."""
        texts = normalise(check_embeddings(self._text.encode(items), len(items), items[Columns.ITEM]))
        position = self._items.positions(items[Columns.ITEM])
        events = np.zeros((len(items), self._vectors.shape[1]), dtype=np.float32)
        events[position >= 0] = self.weight * self._vectors[position[position >= 0]]
        return np.concatenate([texts, events], axis=1)

    def state(self) -> State:
        """See :meth:`ItemEncoder.state`; ids travel as JSON."""
        text = self._text.state()
        ids = np.frombuffer(json.dumps(self._items.series.to_list()).encode(), dtype=np.uint8)
        arrays = {f"{TEXT}{name}": array for name, array in text.arrays.items()}
        return State({**arrays, VECTORS: self._vectors, ITEMS: ids}, {"text": text.facts})

    def load_state(self, state: State) -> Self:
        """See :meth:`ItemEncoder.load_state`.

        Raises:
            ModelFolderError: vectors and ids that do not go together.
        """
        arrays = {name.removeprefix(TEXT): array for name, array in state.arrays.items() if name.startswith(TEXT)}
        self._text.load_state(State(arrays, state.facts["text"]))
        self._items, self._vectors = _read_ids(state.arrays[ITEMS]), state.arrays[VECTORS]
        if self._vectors.ndim != 2 or len(self._vectors) != len(self._items) or not np.isfinite(self._vectors).all():
            raise ModelFolderError(
                f"vectors of co-occurrence have shape {self._vectors.shape}; expected ({len(self._items)}, rank), finite"
            )
        return self


def _read_ids(stored: np.ndarray) -> IdMap:
    try:
        ids = json.loads(stored.tobytes())
    except ValueError as error:
        raise ModelFolderError(f"the ids of items with events cannot be read: {error}") from error
    if not isinstance(ids, list) or {type(item) for item in ids} not in (set(), {str}, {int}) or len({*ids}) < len(ids):
        raise ModelFolderError("the ids of items with events are no list of distinct texts or whole numbers")
    return IdMap(pl.Series(ids, dtype=pl.Int64 if ids and isinstance(ids[0], int) else pl.String))


def _co_occurrence_vectors(train: Ragged, n_items: int, rank: int, seed: int) -> np.ndarray:
    """[I, r] float32 rows of length 1; zero for items that no user met, or of which the directions hold nothing.

    Whole numbers are added up exactly, so that the order of the users does not count.
    """
    met = train.distinct()
    user = np.repeat(np.arange(len(met)), met.lengths)
    of_users = sp.coo_array((np.ones(len(user)), (user, met.values)), shape=(len(met), n_items)).tocsr()
    together = (of_users.T @ of_users).tocsr()
    together.sort_indices()
    vectors = TruncatedSVD(min(rank, n_items), n_iter=4, random_state=seed).fit_transform(together)
    held, whole = (vectors**2).sum(1), together.power(2).sum(1)
    return normalise(vectors * (held > LEAST * whole)[:, None])
