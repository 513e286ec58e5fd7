"""ItemEncoder, the interface of every embedding, and the cache around it."""

from __future__ import annotations

import hashlib
import json
import logging
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl

from diffgrm.foundation.schema import Columns, DataError, bullet_list, first_few
from diffgrm.foundation.storage import State, cached, code_digests
from diffgrm.semantic_ids import threads

logger = logging.getLogger(__name__)


class ItemEncoder(ABC):
    """Rows of an item table -> vectors [N, e] float32, L2-normalised.

    ``fit`` sees the items that occur in training, ``encode`` any item, now or later. A row's vector depends on that
    row alone. An encoder that computes with BLAS does so inside ``diffgrm.semantic_ids.threads.one_thread``, so that its
    vectors do not depend on the number of threads.
    """

    cached: bool = True  # whether encoding is slow enough to keep the result on disk

    @property
    def goes_by_rows(self) -> bool:
        """Whether the vectors are those of the rows of a table, whatever they hold; then ``encode`` gets all, as given."""
        return False

    def fit(self, items: pl.DataFrame) -> Self:
        """Learn what is needed from training items; encoders that come trained need nothing."""
        return self

    @abstractmethod
    def encode(self, items: pl.DataFrame) -> np.ndarray:
        """Vectors [N, e] float32 of the rows of an item table with columns ``item_id`` and ``text``."""

    def documents(self, items: pl.DataFrame) -> list[str]:
        """What is read of each item; a change of it makes the cached vectors stale."""
        return items[Columns.TEXT].to_list()

    def state(self) -> State:
        """What ``fit`` learnt, for the model folder."""
        return State()

    def load_state(self, state: State) -> Self:
        """Take back what :meth:`state` gave."""
        return self

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """JSON-able facts that, with the texts, determine the vectors; the key of the cache."""


def embed_items(
    encoder: ItemEncoder,
    items: pl.DataFrame,
    in_training: np.ndarray,
    cache: Path | None = None,
    given: np.ndarray | None = None,
) -> np.ndarray:
    """Fit an encoder on the training items and encode all of them, through the cache.

    The key of the cache is the encoder's identity, the code of its class and of all that it inherits from, and what it
    reads of the items. Nothing is cached of an encoder whose class has no file.

    Args:
        items: item table, I rows.
        in_training: [I] bool, items that occur in training rows; nothing is learnt from the others.
        cache: folder of cached embeddings; None is the user's cache folder.
        given: [I] see :func:`encode_rows`.

    Returns:
        [I, e] float32, finite.

    Raises:
        DataError: vectors that are not finite or of the wrong shape.
    """

    def make() -> State:
        logger.info("Embedding %d items with %s ...", len(items), type(encoder).__name__)
        found = encode_rows(encoder.fit(items.filter(in_training)), items, given)
        vectors, state = check_embeddings(found, len(items), items[Columns.ITEM]), encoder.state()
        return State({**state.arrays, "embeddings": vectors}, state.facts)

    code = code_digests(type(encoder), Path(threads.__file__)) if encoder.cached else None
    if code is None:
        return make().arrays["embeddings"]
    stored = cached(cache, f"{_content_hash(encoder, code, items, in_training)}.safetensors", "embeddings", make)
    vectors = stored.arrays.pop("embeddings")
    encoder.load_state(stored)
    return vectors


def encode_rows(encoder: ItemEncoder, items: pl.DataFrame, given: np.ndarray | None) -> np.ndarray:
    """Vectors [N, e] of the rows of an item table.

    Args:
        given: [N] where each row stood in the table as it was given; None: where it stands.
    """
    if given is None or not encoder.goes_by_rows:
        return encoder.encode(items)
    return encoder.encode(items[np.argsort(given)])[given]


def check_embeddings(vectors: np.ndarray, rows: int, item_ids: pl.Series | None = None) -> np.ndarray:
    """The vectors as a contiguous float32 matrix [rows, e].

    Raises:
        DataError: not a matrix, another number of rows, no columns, or values that are not finite.
    """
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or vectors.shape[0] != rows or vectors.shape[1] == 0:
        raise DataError(f"embeddings have shape {vectors.shape}; expected ({rows}, width), one row an item")
    if not np.issubdtype(vectors.dtype, np.number):
        raise DataError(f"embeddings have type {vectors.dtype}; expected numbers")
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        which = item_ids.gather(bad) if item_ids is not None else bad
        raise DataError(f"embeddings of {len(bad)} items hold NaN or infinity: {first_few(which)}; mend or leave them out")
    return np.ascontiguousarray(vectors, dtype=np.float32)


def normalise(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1 (zero rows stay zero), float32."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)


def _content_hash(encoder: ItemEncoder, code: list[str], items: pl.DataFrame, in_training: np.ndarray) -> str:
    kind = f"{type(encoder).__module__}:{type(encoder).__qualname__}"
    identity = {"encoder": kind, "code": code, **encoder.identity()}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
    digest.update(np.packbits(in_training).tobytes())
    for text in encoder.documents(items):
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()


def missing_rows_error(what: str, missing: list[Any]) -> DataError:
    """The error for items that an embedding file does not have."""
    return DataError(f"{what}:\n" + bullet_list([f"{len(missing)} items have no vector: {first_few(missing)}"]))
