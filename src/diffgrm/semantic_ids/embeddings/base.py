"""ItemEncoder, the interface of every embedding, and the cache around it."""

from __future__ import annotations

import hashlib
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
import polars as pl

from diffgrm.data.dataset import Split
from diffgrm.foundation.schema import Columns, DataError, bullet_list, first_few
from diffgrm.foundation.storage import State, cached, code_digests, digest
from diffgrm.semantic_ids import threads

logger = logging.getLogger(__name__)

SMALLEST = 1e-18  # length of a vector whose squared numbers 32 bits still hold


@dataclass(frozen=True)
class EventContext:
    """What an encoder that learns from events too may see.

    Attributes:
        split: of which only the training events, and validation to choose by, may be used.
        data: the recipe's settings that made the split, by name.
        seed: of the run.
        folder: for checkpoints; None: a temporary one.
        resume: go on from them where there are any.
        progress: show progress bars.
    """

    split: Split
    data: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    folder: Path | None = None
    resume: bool = False
    progress: bool = False

    def identity(self) -> str:
        """Hex digest of all that may decide what is learnt: events, settings of the split, seed."""
        held = self.split.validation
        arrays = [held.histories.values, held.histories.offsets, held.targets.values, held.targets.offsets]
        marks = held.histories.marks
        known = [*marks.arrays, *held.histories.facts.arrays, *marks.settings.said.items()]
        return digest([self.split.fingerprint, self.seed, sorted(self.data.items()), *arrays, *known])


class ItemEncoder(ABC):
    """Rows of an item table -> vectors [N, e] float32, of length 1 unless the class says otherwise.

    ``fit`` sees the items that occur in training, ``encode`` any item, now or later. A row's vector depends on that
    row alone. An encoder that computes with BLAS does so inside ``diffgrm.semantic_ids.threads.one_thread``, so that its
    vectors do not depend on the number of threads.
    """

    reads_events: ClassVar[bool] = False  # whether training events decide the vectors too: fit_events in place of fit
    cached: bool = True  # whether encoding is slow enough to keep the result on disk
    zero_vector: ClassVar[str] = "the embedding says nothing of them"  # why an item has one, and what helps

    @property
    def goes_by_rows(self) -> bool:
        """Whether the vectors are those of the rows of a table, whatever they hold; then ``encode`` gets all, as given."""
        return False

    def fit(self, items: pl.DataFrame) -> Self:
        """Learn what is needed from training items; encoders that come trained need nothing."""
        return self

    def fit_events(self, context: EventContext) -> Self:
        """Learn from training items and events, for encoders that read those."""
        raise NotImplementedError(f"{type(self).__name__} says that it reads events; it needs a method fit_events")

    @abstractmethod
    def encode(self, items: pl.DataFrame) -> np.ndarray:
        """Vectors [N, e] float32 of the rows of an item table with columns ``item_id`` and ``text``."""

    def stay_loaded(self) -> Self:
        """Keep in memory what :meth:`encode` loads, for those who call it for one table after the other."""
        return self

    def documents(self, items: pl.DataFrame) -> list[str]:
        """What is read of each item; a change of it makes the cached vectors stale."""
        return items[Columns.TEXT].to_list()

    def state(self) -> State:
        """What ``fit`` learnt, for the model folder."""
        return State()

    def learnt(self) -> State:
        """What ``fit`` learnt, for the cache: :meth:`state`, and what only the rest of training needs."""
        return self.state()

    def load_state(self, state: State) -> Self:
        """Take back what :meth:`state` or :meth:`learnt` gave."""
        return self

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """JSON-able facts that, with the texts, determine the vectors; the key of the cache."""


@runtime_checkable
class ItemSpace(Protocol):
    """An embedding that was made of a trained item scorer, where a network over semantic IDs may begin."""

    def history_encoder(self) -> Any:
        """The scorer's history encoder, trained, which scores items by inner products with its states."""
        ...

    def planned_encoder(self) -> Any:
        """The same before anything is fitted, without weights; None where only a fitted scorer tells."""
        ...

    def item_space(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors [..., e] of the embedding as those that the scorer multiplies with users' vectors."""
        ...

    def teacher(self, items: pl.Series) -> Any:
        """The scorer, or several, as somebody to learn from, see :class:`diffgrm.learning.objectives.base.Teacher`.

        Args:
            items: [I] ids of the items that are asked about, by position.
        """
        ...

    def check_more(self, context: EventContext, overrides: Sequence[str]) -> None:
        """Complain of what stands in the way of :meth:`fit_more`.

        Raises:
            DiffGRMError: the scorer cannot go on learning.
        """
        ...

    def fit_more(self, context: EventContext, overrides: Sequence[str]) -> tuple[Self, dict[str, Any]]:
        """The embedding whose scorer has gone on learning from events, and what the model card tells of that.

        Args:
            overrides: settings of the update.
        """
        ...


def embed_items(
    encoder: ItemEncoder,
    items: pl.DataFrame,
    in_training: np.ndarray,
    cache: Path | None = None,
    context: EventContext | None = None,
    given: np.ndarray | None = None,
) -> np.ndarray:
    """Fit an encoder on the training items and encode all of them, through the cache.

    The key of the cache is the encoder's identity, the code of its class and of all that it inherits from, and what it
    reads of the items. Nothing is cached of an encoder whose class has no file. Items with the zero vector are told in a
    warning, from the cache too.

    Args:
        items: item table, I rows.
        in_training: [I] bool, items that occur in training rows; nothing is learnt from the others.
        cache: folder of cached embeddings; None is the user's cache folder.
        context: for encoders that learn from training events too.
        given: [I] see :func:`encode_rows`.

    Returns:
        [I, e] float32, finite.

    Raises:
        DataError: vectors that are not finite or of the wrong shape; or there are no events, and the encoder needs some.
    """
    if encoder.reads_events and context is None:
        raise DataError(
            f"{type(encoder).__name__} learns from training events, and there are none; give interactions, or choose "
            "another embedding.name"
        )

    def make() -> State:
        logger.info("Embedding %d items with %s ...", len(items), type(encoder).__name__)
        fitted = encoder.fit(items.filter(in_training)) if context is None else encoder.fit_events(context)
        found = encode_rows(fitted, items, given)
        vectors, state = check_embeddings(found, len(items), items[Columns.ITEM]), encoder.learnt()
        return State({**state.arrays, "embeddings": vectors}, state.facts)

    context = context if encoder.reads_events else None
    code = code_digests(type(encoder), Path(threads.__file__)) if encoder.cached else None
    if code is None:
        vectors = make().arrays["embeddings"]
        tell_zero_vectors(encoder, items, vectors)
        return vectors
    learnt_from = "" if context is None else context.identity()
    stored = cached(
        cache, f"{_content_hash(encoder, code, items, in_training, learnt_from)}.safetensors", "embeddings", make
    )
    vectors = stored.arrays.pop("embeddings")
    encoder.load_state(stored)
    tell_zero_vectors(encoder, items, vectors)
    return vectors


def tell_zero_vectors(encoder: ItemEncoder, items: pl.DataFrame, vectors: np.ndarray) -> None:
    """Warn of items with the zero vector [N, e], which are like no other item: how many, some of them, and what helps."""
    zero = np.logical_not(vectors.any(axis=1))
    if zero.any():
        logger.warning(
            "%d of %d items get the zero vector, so that they are like no other item: %s; %s",
            np.count_nonzero(zero),
            len(items),
            named_texts(items.filter(zero)),
            encoder.zero_vector,
        )


def named_texts(items: pl.DataFrame) -> str:
    """The first items of a table with their texts, for messages."""
    pairs = items.select(Columns.ITEM, Columns.TEXT).iter_rows()
    return first_few(f"{item} ({text if text is None else text[:40]!r})" for item, text in pairs)


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
        DataError: not a matrix, another number of rows, no columns, or values that are not real, or not finite in 32
            bits.
    """
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or vectors.shape[0] != rows or vectors.shape[1] == 0:
        raise DataError(f"embeddings have shape {vectors.shape}; expected ({rows}, width), one row an item")
    if vectors.dtype.kind not in "fiu":
        raise DataError(f"embeddings have type {vectors.dtype}; expected real numbers")
    with np.errstate(over="ignore"):  # told below
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        which = item_ids.gather(bad) if item_ids is not None else bad
        raise DataError(
            f"embeddings of {len(bad)} items hold NaN or infinity: {first_few(which)}; mend or leave them out (numbers of "
            "more than 3e38 are infinite, since 32 bits are kept of each)"
        )
    return vectors


@np.errstate(over="ignore", invalid="ignore")  # what is not finite stays so, and is told by check_embeddings
def normalise(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1 (zero rows stay zero), float32."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    odd = np.flatnonzero((norms < SMALLEST) | ~np.isfinite(norms))  # whose squares may leave the range of numbers
    odd = odd[vectors[odd].any(axis=1)]
    if odd.size:
        scaled = vectors[odd] / np.abs(vectors[odd]).max(axis=1, keepdims=True)
        vectors = np.array(vectors)
        vectors[odd], norms[odd] = scaled, np.linalg.norm(scaled, axis=1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)


def _content_hash(
    encoder: ItemEncoder, code: list[str], items: pl.DataFrame, in_training: np.ndarray, learnt_from: str
) -> str:
    kind = f"{type(encoder).__module__}:{type(encoder).__qualname__}"
    identity = {"encoder": kind, "code": code, **encoder.identity()}
    found = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
    found.update(np.packbits(in_training).tobytes())
    found.update(learnt_from.encode())
    for text in encoder.documents(items):
        encoded = text.encode()
        found.update(len(encoded).to_bytes(8, "little"))
        found.update(encoded)
    return found.hexdigest()


def missing_rows_error(what: str, missing: list[Any], called: str = "items") -> DataError:
    """The error for items that an embedding file does not have."""
    return DataError(f"{what}:\n" + bullet_list([f"{len(missing)} {called} have no vector: {first_few(missing)}"]))
