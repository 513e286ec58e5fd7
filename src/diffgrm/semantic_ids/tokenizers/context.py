"""TokenizerContext: what a tokenizer may learn from."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from diffgrm.data.dataset import Ragged
from diffgrm.foundation.schema import TokenizerError


@dataclass(frozen=True)
class TokenizerContext:
    """What a tokenizer is fitted on.

    Attributes:
        embeddings: [I, e] vectors of all items.
        in_training: [I] bool, items that occur in training events; nothing is learnt from the others.
        events: training events of every user, oldest first, as item positions; None where there are none.
        device: torch device of tokenizers that train.
        folder: where they keep checkpoints, see :meth:`working_folder`; None is a temporary folder.
        seed: of the run. Tokenizers that have a seed of their own go by that.
        items: [I] their ids; None where they have none.

    Raises:
        TokenizerError: ``in_training`` is not one truth value an item, or ``items`` not one id an item.
    """

    embeddings: np.ndarray
    in_training: np.ndarray
    events: Ragged | None = None
    device: str = "cpu"
    folder: Path | None = None
    seed: int = 0
    items: pl.Series | None = None

    def __post_init__(self) -> None:
        shape, kind = np.shape(self.in_training), np.asarray(self.in_training).dtype
        if shape != (len(self.embeddings),) or not np.issubdtype(kind, np.bool_):
            raise TokenizerError(
                f"in_training has shape {shape} and type {kind}; expected ({len(self.embeddings)},) and bool, one value an "
                "item: pass split.item_counts > 0"
            )
        if self.items is not None and len(self.items) != len(self.embeddings):
            raise TokenizerError(
                f"items are {len(self.items)} ids for {len(self.embeddings)} vectors; expected one an item"
            )

    @classmethod
    def of(cls, embeddings: np.ndarray, seed: int = 0, items: pl.Series | None = None) -> TokenizerContext:
        """All items [I, e] are in training, and there are no events."""
        return cls(embeddings, np.ones(len(embeddings), dtype=bool), seed=seed, items=items)

    @property
    def training_embeddings(self) -> np.ndarray:
        """Vectors [T, e] of the items in training, a copy."""
        return self.embeddings[self.in_training]

    @contextmanager
    def working_folder(self) -> Iterator[Path]:
        """The folder for checkpoints, which is there; a temporary one vanishes after the block."""
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            yield self.folder
            return
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
