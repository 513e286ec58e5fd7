"""Sentence encoders of the sentence-transformers library: any model id or local folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import polars as pl
from pydantic import Field

from diffgrm.foundation.part_settings import Local
from diffgrm.foundation.schema import Columns, DataError, MissingExtraError
from diffgrm.foundation.terminal import errors
from diffgrm.semantic_ids.embeddings.base import ItemEncoder, normalise

SAFE = 6  # version that imports no classes but its own, wherever a model comes from (trust_remote_code is off)


class SentenceTransformer(ItemEncoder):
    """The paper's choice of encoder (``sentence-transformers/sentence-t5-base``, 768 wide), or any other.

    It keeps all threads of the processor, so the last bits of its vectors may depend on their number.
    """

    def __init__(
        self,
        model: Annotated[
            str | None,
            Local(paths=True),
            "model id on the Hugging Face hub, or a local folder, which a saved model does not keep",
        ] = "sentence-transformers/sentence-t5-base",
        batch_size: Annotated[int, Field(ge=1), "texts encoded at once"] = 64,
        device: Annotated[str | None, "torch device; null: the library's own choice"] = None,
    ) -> None:
        self.model, self.batch_size, self.device = model, batch_size, device
        self._stays, self._loaded = False, None

    def stay_loaded(self) -> Self:
        """See :meth:`ItemEncoder.stay_loaded`; else a fit would hold the sentence encoder while the network trains."""
        self._stays = True
        return self

    def identity(self) -> dict[str, Any]:
        """The model's name; for a local folder also the size and time of its files."""
        folder = Path(self.model or "")
        there = bool(self.model) and os.path.lexists(folder) and folder.is_dir()
        files = sorted(p for p in folder.rglob("*") if p.is_file()) if there else []
        stamps = [(str(p.relative_to(folder)), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
        return {"model": self.model, "files": stamps}

    def encode(self, items: pl.DataFrame) -> np.ndarray:
        """Vectors [N, e], with the library's progress bar on a terminal; into a log it would write thousands of lines.

        Raises:
            MissingExtraError: sentence-transformers is not installed.
            DataError: the model cannot be loaded.
        """
        encoder = self._loaded or self._load(len(items))
        self._loaded = encoder if self._stays else None
        vectors = encoder.encode(
            items[Columns.TEXT].to_list(),
            batch_size=self.batch_size,
            show_progress_bar=len(items) > self.batch_size and errors.is_terminal,
            convert_to_numpy=True,
        )
        return normalise(np.asarray(vectors, dtype=np.float32))

    def _load(self, wanted: int) -> Any:
        try:
            import sentence_transformers
        except ImportError as error:
            raise MissingExtraError("sentence-transformers", "sentence", "the embedding 'sentence_transformer'") from error
        if int((found := sentence_transformers.__version__).partition(".")[0]) < SAFE:
            raise DataError(
                f"sentence-transformers {found} may run code that lies beside an encoder's weights; expected {SAFE} or "
                "later: pip install -U 'diffgrm[sentence]'"
            )
        if self.model is None:
            raise DataError(
                f"the vectors of {wanted} items are needed, and a saved model does not keep in which folder its "
                "sentence encoder lies, nor is a folder read that only its recipe names; give it again: "
                "embedding.model=FOLDER in the recipe, --vectors FOLDER on the command line, or "
                'recommender.override(["embedding.model=FOLDER"]) in Python'
            )
        try:
            return sentence_transformers.SentenceTransformer(self.model, device=self.device)
        except (OSError, ValueError, RuntimeError, AssertionError) as error:  # the last two: of devices
            raise DataError(
                f"the sentence encoder {self.model!r} could not be loaded; give a model id that the hub can be asked for, "
                f"or a local folder, and a device that is there: {error}"
            ) from error
