"""What a retriever of documents learns from: queries, and parts of documents in the place of queries."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import polars as pl

from diffgrm.data.dataset import EvaluationSet, InteractionDataset, Ragged, Split
from diffgrm.data.documents import JudgedQueries, as_items, ordered
from diffgrm.data.ids import IdMap
from diffgrm.foundation.schema import Columns, DataError

# Full stops of scripts without spaces end a sentence wherever they stand, others before a space.
END_OF_SENTENCE = re.compile(r"(?<=[\u3002\uff01\uff1f])|(?<=[.!?])\s+")


def sentences(text: str) -> list[str]:
    """The sentences of a text.

    >>> sentences("東大寺の仏像。高さは? Read on."), sentences("flow past a wing . a study of 3.5 wings")
    (['東大寺の仏像。', '高さは?', 'Read on.'], ['flow past a wing .', 'a study of 3.5 wings'])
    """
    return [part.strip() for part in END_OF_SENTENCE.split(text) if part.strip()]


def _titles(documents: pl.DataFrame) -> Iterable[list[str]]:
    if Columns.TITLE not in documents.columns:
        raise DataError(
            "documents.index_documents names 'title', but the document table has no column 'title'; give one, or name "
            "first_sentence, sentences or text"
        )
    return ([title.strip()] if title and title.strip() else [] for title in documents[Columns.TITLE].cast(pl.String))


PSEUDO_QUERIES: Mapping[str, Callable[[pl.DataFrame], Iterable[list[str]]]] = {
    "title": _titles,
    "first_sentence": lambda documents: (sentences(text)[:1] for text in documents[Columns.TEXT]),
    "sentences": lambda documents: map(sentences, documents[Columns.TEXT]),
}


@dataclass(frozen=True)
class QuerySplit(Split):
    """What a retriever learns from and is chosen by: numbered queries, and the documents that each should find.

    ``train`` has a row for every query, in that numbering, with its relevant documents; rows of validation queries are
    empty. ``dataset`` has the queries of the table in place of users, the documents in place of items. In
    ``validation``, the history of a query is its number.

    Attributes:
        texts: [T] rows ``item_id, text...`` of the queries 0..T-1; pseudo-queries stand behind those of the table and have
            nothing but a text.
        own: whether the documents themselves are the queries T..T+D-1, each of which finds itself.
    """

    texts: pl.DataFrame = field(kw_only=True)
    own: bool = field(kw_only=True)

    @classmethod
    def of(
        cls,
        documents: pl.DataFrame,
        judged: JudgedQueries,
        index_documents: Iterable[str],
        validation_share: float,
        seed: int,
    ) -> QuerySplit:
        """Hold out a share of the queries, drawn by a seed, and add documents in the place of queries.

        Args:
            documents: ``doc_id, text...``, in any order; positions are those of :func:`ordered`.
            judged: queries with at least one relevant document each.
            index_documents: names of ``PSEUDO_QUERIES``, and ``text`` for the whole document.

        Raises:
            DataError: fewer than two queries, or pseudo-queries that the documents do not have.
        """
        if len(judged) < 2:
            raise DataError(
                f"there is {len(judged)} query with a relevant document; expected two at least, one of them for validation"
            )
        documents, given = ordered(documents)
        draw = np.random.default_rng(seed).permutation(len(judged))
        held = np.sort(draw[: min(len(judged) - 1, max(1, round(validation_share * len(judged))))])
        learnt = np.ones(len(judged), dtype=bool)
        learnt[held] = False
        queries = judged.relevant.filter(np.repeat(learnt, judged.relevant.lengths))
        texts, found, own = list[str](), list[int](), "text" in index_documents
        for name in index_documents:
            for place, parts in enumerate(PSEUDO_QUERIES[name](documents)) if name in PSEUDO_QUERIES else ():
                texts += parts
                found += [place] * len(parts)
        found += range(documents.height * own)
        values = np.concatenate([queries.values, np.array(found, dtype=np.int64)])
        train = Ragged(values, np.concatenate([queries.offsets, queries.offsets[-1] + 1 + np.arange(len(found))]))
        ids, items = judged.table[Columns.QUERY], IdMap(documents[Columns.DOCUMENT])
        dataset = InteractionDataset(IdMap(ids), items, as_items(documents), judged.relevant, name="documents", given=given)
        validation = EvaluationSet(ids.gather(held), Ragged(held, np.arange(len(held) + 1)), judged.relevant.rows(held))
        nobody = validation.rows(np.arange(0))
        parts_of_documents = pl.DataFrame({Columns.TEXT: pl.Series(texts, dtype=pl.String)})
        table = pl.concat([as_items(judged.table), parts_of_documents], how="diagonal")
        return cls(dataset, train, validation, nobody, "queries", texts=table, own=own)

    @property
    def learnable(self) -> np.ndarray:
        """See :attr:`Split.learnable`: all documents, since what is held out is queries."""
        return np.ones(self.dataset.n_items, dtype=bool)

    @cached_property
    def pairs(self) -> Ragged:
        """A history and its target for each pair to learn: the number of a query, and the position of a document."""
        query = np.repeat(np.arange(len(self.train)), self.train.lengths)
        return Ragged(np.stack([query, self.train.values], 1).ravel(), 2 * np.arange(len(query) + 1))
