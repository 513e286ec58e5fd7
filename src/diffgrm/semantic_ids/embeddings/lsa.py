"""Latent semantic analysis: TF-IDF and truncated SVD. Needs no download; the default."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache, cached_property, partial
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import polars as pl
import scipy.sparse as sp
from pydantic import Field
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from diffgrm.foundation.schema import Columns, DataError, ModelFolderError, did_you_mean
from diffgrm.foundation.storage import State
from diffgrm.semantic_ids.embeddings.base import ItemEncoder, named_texts, normalise
from diffgrm.semantic_ids.embeddings.column_words import ColumnWords
from diffgrm.semantic_ids.threads import one_thread

# Scripts that put no spaces between words (Thai, Lao, Burmese, Khmer, Chinese, Japanese, Yi), and Korean, which glues
# particles to them.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f\u1780-\u17ff"
    "\u3005-\u3007\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U0001aff0-\U0001b16f\U00020000-\U0003ffff\ua000-\ua48f"
    "\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff"
)
WORD = re.compile(r"\w+")
HALF_AND_FULL_WIDTH = range(0xFF01, 0xFFE7)
LOOKS_OF_IDEOGRAPHS, LOOKS_OF_SYMBOLS = range(0xE0100, 0xE01F0), range(0xFE00, 0xFE10)  # variation selectors


def word_vectors(items: pl.DataFrame) -> sp.csr_array:
    """[I, features] TF-IDF weighted words of the texts of all items, rows of length 1; 0 where a text has none.

    With them lists are told how unlike their items are, whatever a model reads of the texts.
    """
    encoder = LSA()
    try:
        found = encoder._new_vectorizer(max_features=encoder.max_features).fit_transform(encoder.documents(items))
    except ValueError:  # no text has a word
        found = sp.csr_array((items.height, 1), dtype=np.float32)
    return sp.csr_array(found)


class LSA(ItemEncoder):
    """TF-IDF weighted words projected on the leading singular directions of the training items' texts.

    Args:
        analyzer: what a text's features are. ``"auto"`` goes by script: words, and of scripts without spaces (Chinese,
            Japanese, Korean, Thai, Lao, Khmer, Burmese) runs of up to ``longest_ngram + 1`` characters. Half and full
            width are one; accents are part of their letter. ``"word"`` takes all that stands between spaces and
            punctuation for a word; ``"char_wb"`` takes characters of all scripts.
    """

    zero_vector: ClassVar[str] = (
        "the embedding knows none of their words, since too few training items have them (embedding.min_items); give them "
        "texts with words that others have too, or fit again with embedding.min_items=1, with embedding.analyzer=char_wb "
        "and embedding.longest_ngram=3 (parts of words), or with embedding.name=sentence_transformer"
    )

    def __init__(
        self,
        width: Annotated[int, Field(ge=1), "length of an item's vector (less where the texts span less)"] = 256,
        analyzer: Annotated[
            Literal["auto", "word", "char_wb"],
            "auto: words, and character n-grams of scripts without spaces; word: words; char_wb: character n-grams inside "
            "words (typos, endings)",
        ] = "auto",
        longest_ngram: Annotated[
            int,
            Field(ge=1, le=6),
            "longest run of words (or characters) that is a feature; auto: characters of scripts without spaces run one "
            "longer",
        ] = 1,
        min_items: Annotated[
            int | None, Field(ge=1), "a feature must occur in this many items; null: 2, or 1 where items are under 200"
        ] = None,
        max_features: Annotated[int, Field(ge=2), "most frequent features that are kept"] = 20_000,
        columns: Annotated[
            tuple[str, ...], "further columns of the item table (brand, category ids...), each value of which is a word"
        ] = (),
        seed: int = 0,
    ) -> None:
        self.width, self.analyzer, self.longest_ngram = width, analyzer, longest_ngram
        self.min_items, self.max_features, self.columns, self.seed = min_items, max_features, tuple(columns), seed
        self._vectorizer: TfidfVectorizer | None = None
        self._directions: np.ndarray | None = None  # [e, features]
        # Whether values of columns are words of their own: not in models of before 0.2, nor where words are cut into parts.
        self._escapes = analyzer != "char_wb"

    def identity(self) -> dict[str, Any]:
        """See :meth:`ItemEncoder.identity`."""
        return {k: v for k, v in vars(self).items() if not k.startswith("_")}

    def documents(self, items: pl.DataFrame) -> list[str]:
        """What is read of each item: its text, and one word for each value of the chosen columns.

        Values may be texts, numbers, or lists of them, however nested; how they are spelled: see :class:`ColumnWords`.

        Raises:
            DataError: the item table lacks a chosen column, or it holds something else.
        """
        if missing := [c for c in self.columns if c not in items.columns]:
            raise DataError(
                f"embedding.columns: the item table has no {missing[0]!r}{did_you_mean(missing[0], items.columns)}"
            )
        parts = [items[Columns.TEXT].fill_null("")]
        for column in self.columns:
            values = pl.element().cast(pl.String)
            word: Callable[[str], str] = cache(partial(self._column_words.word, column))
            if not self._escapes:
                values, word = values.str.replace_all(r"\W+", "_"), f"{column}_".__add__
            rows = _lists_of_values(items[column]).list.eval(values.drop_nulls()).to_list()
            parts.append(pl.Series([" ".join(map(word, row or ())) for row in rows], dtype=pl.String))
        return pl.select(pl.concat_str(parts, separator=" ")).to_series().to_list()

    @cached_property
    def _column_words(self) -> ColumnWords:
        return ColumnWords(self.columns, self._folded, self._is_whole)

    def _folded(self, text: str) -> str:
        """What the analyzer makes of a text before it looks for words."""
        text = text.lower()
        if self.analyzer != "auto" or text.isascii():
            return text
        return unicodedata.normalize("NFC", text.translate(_patterns()[0]))

    def _is_whole(self, text: str) -> bool:
        """Whether the analyzer takes a folded text for one word."""
        pattern = WORD if self.analyzer == "word" or text.isascii() else _patterns()[1]
        return pattern.fullmatch(text) is not None

    def _new_vectorizer(self, **more: Any) -> TfidfVectorizer:
        weights: dict[str, Any] = {"sublinear_tf": True, "dtype": np.float32, **more}
        if self.analyzer == "auto":
            return TfidfVectorizer(analyzer=self.features, **weights)
        pattern = r"(?u)\b\w+\b" if self.analyzer == "word" else None
        ngrams = 1, self.longest_ngram
        return TfidfVectorizer(analyzer=self.analyzer, ngram_range=ngrams, token_pattern=pattern, **weights)

    def features(self, text: str) -> list[str]:
        """Runs of words, and runs of characters of scripts without spaces; a value of a chosen column is one word."""
        text = self._folded(text)
        if text.isascii():
            return list(_runs(WORD.findall(text), self.longest_ngram, " "))
        _, word, piece, character = _patterns()
        plain = [f"{column}_".lower() for column in self.columns]  # as models of before 0.2 have it
        whole = tuple(word.findall(start)[-1] for start in (self._column_words.beginnings() if self._escapes else plain))
        words: list[str] = []
        features: list[str] = []
        for token in word.findall(text):
            for spaced, unspaced in [(token, "")] if token.startswith(whole) else piece.findall(token):
                words += [spaced] if spaced else []
                features += _runs(character.findall(unspaced), self.longest_ngram + 1, "")
        return [*features, *_runs(words, self.longest_ngram, " ")]

    @one_thread()
    def fit(self, items: pl.DataFrame) -> Self:
        """Learn the vocabulary and the directions from training items.

        Raises:
            DataError: the texts hold no features to learn from.
        """
        texts = self.documents(items)
        min_items = self.min_items or (2 if len(texts) >= 200 else 1)
        vectorizer = self._new_vectorizer(min_df=min(min_items, len(texts)), max_features=self.max_features)
        try:
            counts = vectorizer.fit_transform(texts)
        except ValueError:
            counts = None
        if counts is None or min_items > len(texts):
            raise DataError(self._nothing_learnt(items, texts, min_items))
        width = min(self.width, min(counts.shape) - 1)
        if width < 1:
            raise DataError(
                "LSA needs at least two items and two different words that it learns from, found "
                f"{counts.shape[0]} and {counts.shape[1]}; give items with other texts"
            )
        with np.errstate(invalid="ignore"):  # texts that do not differ have no variance to explain
            svd = TruncatedSVD(width, n_iter=4, random_state=self.seed).fit(counts)
        learnt = {"directions": np.ascontiguousarray(svd.components_, np.float32), "idf": vectorizer.idf_}
        words = vectorizer.get_feature_names_out().tolist()
        return self.load_state(State(learnt, self._facts(words)))  # so that a loaded encoder gives the same bits

    @one_thread()
    def encode(self, items: pl.DataFrame) -> np.ndarray:
        """Vectors [N, e]; a text without a single known word is the zero vector."""
        assert self._vectorizer is not None and self._directions is not None, "fit first"
        return normalise(self._vectorizer.transform(self.documents(items)) @ self._directions.T)

    def _nothing_learnt(self, items: pl.DataFrame, texts: list[str], min_items: int) -> str:
        analyze = self._new_vectorizer().build_analyzer()
        if not any(map(analyze, texts)):
            return (
                f"LSA found no words in the texts of {len(texts)} training items: {named_texts(items)}; give texts with "
                "letters or digits"
            )
        return (
            f"LSA learns from words that at least {min_items} items have (embedding.min_items), and none is in so many of "
            f"the {len(texts)} training items: {named_texts(items)}; set embedding.min_items=1, or give texts that share "
            "words"
        )

    def state(self) -> State:
        """Vocabulary, idf weights and directions."""
        assert self._vectorizer is not None and self._directions is not None, "fit first"
        words = self._vectorizer.get_feature_names_out().tolist()
        return State({"directions": self._directions, "idf": self._vectorizer.idf_}, self._facts(words))

    def _facts(self, words: list[str]) -> dict[str, Any]:
        return {"words": words, "escaped": self._escapes} if self.columns else {"words": words}

    def load_state(self, state: State) -> Self:
        """Take back what :meth:`state` gave."""
        words, directions, idf = state.facts["words"], state.arrays["directions"], state.arrays["idf"]
        if directions.ndim != 2 or not len(words) == len(idf) == directions.shape[1]:
            raise ModelFolderError(
                f"{len(words)} words have weights {idf.shape} and directions {directions.shape}; expected as many"
            )
        self._escapes = not self.columns or bool(state.facts.get("escaped", False))
        self._vectorizer = self._new_vectorizer(vocabulary={word: i for i, word in enumerate(words)})
        self._vectorizer.idf_, self._directions = idf, directions
        return self


def _runs(units: list[str], longest: int, between: str) -> Iterator[str]:
    """All runs of up to ``longest`` neighbours."""
    for length in range(1, longest + 1):
        for start in range(len(units) - length + 1):
            yield between.join(units[start : start + length])


@cache
def _patterns() -> tuple[dict[int, str | None], re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """What characters are replaced by; a word with its marks; its pieces by script; and a character with its marks."""
    table: dict[int, str | None] = dict.fromkeys(LOOKS_OF_IDEOGRAPHS)
    table |= {code: unicodedata.normalize("NFKC", chr(code)) for code in HALF_AND_FULL_WIDTH}
    characters = (chr(code) for code in range(sys.maxunicode + 1) if code not in LOOKS_OF_SYMBOLS)
    marks = "".join(c for c in characters if unicodedata.category(c) in ("Mn", "Mc"))
    return (
        table,
        re.compile(rf"\w[\w{marks}]*"),
        re.compile(f"([^{UNSPACED}]+)|([{UNSPACED}]+)"),
        re.compile(f".[{marks}]*"),
    )


def _lists_of_values(column: pl.Series) -> pl.Series:
    """A column as lists of plain values, one list a row.

    Raises:
        DataError: it holds something else.
    """
    kind: Any = column.dtype
    while isinstance(kind, pl.List | pl.Array):
        kind = kind.inner
    if kind in (pl.Binary, pl.Object) or isinstance(kind, pl.Struct):
        raise DataError(
            f"embedding.columns: {column.name!r} has type {column.dtype}; expected texts, numbers, or lists of them"
        )
    if not isinstance(column.dtype, pl.List | pl.Array):
        return pl.select(pl.concat_list(column)).to_series()
    column = column.cast(_lists_for_arrays(column.dtype))
    while isinstance(column.dtype, pl.List) and isinstance(column.dtype.inner, pl.List):
        column = column.list.eval(pl.element().explode())
    return column


def _lists_for_arrays(kind: Any) -> Any:
    return pl.List(_lists_for_arrays(kind.inner)) if isinstance(kind, pl.List | pl.Array) else kind
