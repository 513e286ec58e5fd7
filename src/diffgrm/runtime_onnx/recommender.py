"""OnnxRecommender: an exported model, asked as every recommender is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from diffgrm.data.collate import in_batches
from diffgrm.data.dataset import IdMap, Ragged
from diffgrm.data.histories import read_histories
from diffgrm.foundation import model_folder
from diffgrm.foundation.schema import Columns, DataError, ModelFolderError
from diffgrm.foundation.storage import State
from diffgrm.ranking.item_scoring.co_occurrence import CoOccurrence
from diffgrm.recommenders.answers import allowed_items, answer_table
from diffgrm.runtime_onnx.network import Network
from diffgrm.runtime_onnx.numpy_catalogue import Catalogue, Excluded
from diffgrm.runtime_onnx.proposals import ItemScores, proposals
from diffgrm.runtime_onnx.search import Order, Task, decode

ITEMS, SIDS, OFFERED, VECTORS = "items.parquet", "semantic_ids.safetensors", "_recommendable", "item_vectors.safetensors"
CO_OCCURRENCE = "co_occurrence.safetensors"
LOGITS_AT_ONCE = 2**19  # numbers that the network gives back in one call; more would leave the cache


class OnnxRecommender:
    """Recommends from an export, with the answers of the recommender that was exported (rounding aside).

    Args:
        network: the graphs.
        catalogue: the items that may be recommended.
        items: ids of all items.
        vectors: [I, d] float32 of all items.
        max_len: most recent history items that are looked at.
        beam: partial SIDs or candidates kept for each user (raised to k where k is larger).
        order: in which a beam search fills digits; None where item scores propose candidates.
        scoring: how item scores are made and weighed; None for a beam search.
    """

    def __init__(
        self,
        network: Network,
        catalogue: Catalogue,
        items: IdMap,
        vectors: np.ndarray,
        max_len: int,
        beam: int,
        order: Order | None,
        scoring: ItemScores | None,
    ) -> None:
        self.items, self.beam = items, beam
        self._network, self._catalogue, self._vectors, self._max_len = network, catalogue, vectors, max_len
        self._order: Order = order or "confidence"
        self._scoring = scoring
        self._recommendable = None if catalogue.recommendable.all() else catalogue.recommendable
        self._restricted: tuple[np.ndarray, Catalogue] | None = None  # by the last filter; its tables are worth keeping

    def recommend(
        self,
        histories: Any,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        only: Iterable[Any] | None = None,
        without: Iterable[Any] | None = None,
        on_empty: Literal["error", "skip"] = "error",
        progress: Callable[[int], None] | None = None,
    ) -> pl.DataFrame:
        """The k best items for each history; arguments, answer and errors as of ``Recommender.recommend``, which see.

        Raises:
            DataError: k out of range, unusable histories, or filters that leave no item.
        """
        catalogue = self._allowing(allowed_items(self.items, self._recommendable, k, only, without))
        user_ids, positions = read_histories(histories, self.items, on_empty)
        found, scores = self._rank(catalogue, positions, k, exclude_seen, progress)
        return answer_table(user_ids, self.items, found, scores)

    def _allowing(self, allowed: np.ndarray | None) -> Catalogue:
        """The catalogue of the items that ``allowed`` [I] marks; None is all that are recommendable."""
        whole = self._catalogue
        if allowed is None or allowed is self._recommendable:
            return whole
        if self._restricted is None or not np.array_equal(self._restricted[0], allowed):
            self._restricted = allowed, whole.restricted(allowed)
        return self._restricted[1]

    def _rank(
        self, catalogue: Catalogue, histories: Ragged, k: int, exclude_seen: bool, progress: Callable[[int], None] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Item positions [U, k], best first, -1 after the last, and their scores [U, k]."""
        items = np.full((len(histories), k), -1, dtype=np.int64)
        scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
        logits = catalogue.n_digits * catalogue.codebook_size * max(self.beam, k)  # of a user
        for users, (distinct, places, valid) in in_batches(histories, self._max_len, max(1, LOGITS_AT_ONCE // logits)):
            memory = self._network.encode_history(self._vectors[distinct], places, valid)
            excluded = Excluded(histories.rows(users), len(self.items)) if exclude_seen else None
            task = Task(self._network, memory, catalogue, k, excluded, self._order)
            if self._scoring is None:
                items[users], scores[users] = decode(task, self.beam)
            else:
                items[users], scores[users] = proposals(task, histories.rows(users), self._scoring, self.beam)
            if progress:
                progress(len(users))
        return items, scores


def load_onnx(folder: str | Path, *, threads: int | None = None, beam: int | None = None) -> OnnxRecommender:
    """Load what ``diffgrm export`` has written. Needs ONNX Runtime and NumPy; PyTorch is not loaded.

    Args:
        threads: that ONNX Runtime computes with; None is all cores.
        beam: partial SIDs (or candidates, where item scores propose them) kept for each user; None is the export's own.

    Raises:
        ModelFolderError: not an export, or one that is not whole.
        MissingExtraError: ONNX Runtime is not installed.
    """
    for name, value in (("threads", threads), ("beam", beam)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise DataError(f"{name} is {value!r}; expected a whole number from 1, or None")
    place = Path(folder)

    def take(manifest: dict[str, Any]) -> OnnxRecommender:
        sids, table = State.load(place / SIDS), pl.read_parquet(place / ITEMS)
        try:
            settings = manifest["onnx"]
            codes, codebook_size = sids.arrays["codes"].astype(np.int64), sids.facts["codebook_size"]
            catalogue = Catalogue(codes, codebook_size, table[OFFERED].to_numpy())
            vectors, max_len = State.load(place / VECTORS).arrays["vectors"], settings["max_len"]
            order, scoring = settings.get("order"), None
            if settings["decoding"] == "item_proposals":
                neighbours = CoOccurrence.of_state(State.load(place / CO_OCCURRENCE))
                scoring = ItemScores(
                    vectors,
                    settings["cosine"],
                    settings["temperature"],
                    settings["weight"],
                    neighbours,
                    settings["co_occurrence"],
                    settings["new_items"],
                )
            width = beam or settings["candidates" if scoring else "beam"]
        except KeyError as error:
            raise ModelFolderError(f"{place} is damaged: {error} is missing in it; export the model again") from error
        items = IdMap(table[Columns.ITEM])
        return OnnxRecommender(Network(place, threads), catalogue, items, vectors, max_len, width, order, scoring)

    return model_folder.read(place, take, model_folder.EXPORT)
