"""Metrics of a search for documents: over all documents, by judgements of several relevant ones a query."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import polars as pl

from diffgrm.data.dataset import Ragged
from diffgrm.data.documents import JudgedQueries
from diffgrm.data.ids import IdMap
from diffgrm.evaluation.metrics import lists_of, ndcg, ranks_in_lists, recall, reciprocal_rank
from diffgrm.foundation.schema import Columns, DataError

logger = logging.getLogger(__name__)

DEPTH = 100  # documents that are looked at


class Searches(Protocol):
    """What ``evaluate_search`` needs of a retriever."""

    @property
    def documents(self) -> IdMap:
        """Ids of the documents that it finds."""
        ...

    def search(self, queries: pl.DataFrame, k: int) -> pl.DataFrame:
        """Table of query_id, doc_id, score, rank (from 1)."""
        ...


def hit(ranks: Ragged, k: int) -> np.ndarray:
    """Hit@k per query [Q]: 1 where a relevant document is among the first k, else 0.

    >>> hit(Ragged.from_lists([[3, 1], [0], [0, 2]]), 1).tolist(), hit(Ragged.from_lists([[0, 2]]), 2).tolist()
    ([1.0, 0.0, 0.0], [1.0])
    """
    return (recall(ranks, k) > 0).astype(float)


METRICS: Mapping[str, Callable[[Ragged], np.ndarray]] = {
    "hit@1": lambda ranks: hit(ranks, 1),
    "hit@10": lambda ranks: hit(ranks, 10),
    "mrr@10": lambda ranks: reciprocal_rank(ranks, 10),
    "ndcg@10": lambda ranks: ndcg(ranks, 10),
    "recall@10": lambda ranks: recall(ranks, 10),
    "recall@100": lambda ranks: recall(ranks, DEPTH),
}


@dataclass(frozen=True)
class SearchEvaluation:
    """What ``evaluate_search`` found.

    Attributes:
        metrics: name -> mean over queries.
        per_query: query_id and every metric of it, a row a query.
        ranks: query_id, doc_id (relevant), rank (0: not among the first 100), a row a judgement.
        n_queries: evaluated; n_skipped: left out, for no document is relevant to them.
        share_of_fit: which share of the queries the retriever was fitted on, by its own account; None: it cannot tell.
    """

    metrics: dict[str, float]
    per_query: pl.DataFrame
    ranks: pl.DataFrame
    n_queries: int
    n_skipped: int
    share_of_fit: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        counts = {"n_queries": self.n_queries, "n_skipped": self.n_skipped, "share_of_fit": self.share_of_fit}
        return {**counts, "metrics": self.metrics}


def evaluate_search(
    retriever: Searches,
    queries: Any,
    qrels: Any,
    *,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    queries_at_once: int = 1024,
    progress: Callable[[int], None] | None = None,
) -> SearchEvaluation:
    """Rank all documents for every query that has a relevant one, and look where those stand.

    Hit@1 and @10, MRR@10, NDCG@10, Recall@10 and @100, means over queries. What is judged above 0 is relevant; grades are
    not told apart.

    Args:
        retriever: anything with ``search`` and ``documents``; a warning tells where one that has ``asked_in_fit`` was
            fitted on some of the queries.
        queries, qrels, split, columns: as ``DocumentRetriever.fit`` takes them.
        queries_at_once: queries in one call of ``search``.
        progress: called with the number of queries done since the last call.

    Raises:
        DataError: see :meth:`JudgedQueries.from_tables`; or no query has a relevant document; or
            ``queries_at_once`` is below 1.
    """
    if queries_at_once < 1:
        raise DataError(f"queries_at_once={queries_at_once!r}: expected a whole number from 1 on")
    documents = retriever.documents
    asked = JudgedQueries.from_tables(queries, qrels, documents, split, columns)
    judged = asked.answerable()
    sketch = getattr(retriever, "asked_in_fit", None)
    share = None if sketch is None else sketch.share(judged.table[Columns.TEXT])
    if share:
        logger.warning(
            "about %.0f%% of these queries are among those that the retriever learnt from or was chosen by, and figures "
            "are too good; measure it with queries that were held out of its fit (command line: --split)",
            max(100 * share, 1),
        )
    found, k = [], min(DEPTH, len(documents))
    for start in range(0, len(judged), queries_at_once):
        part = judged.rows(np.arange(start, min(start + queries_at_once, len(judged))))
        table = retriever.search(part.table, k)
        lists = lists_of(table, Columns.QUERY, documents.positions(table[Columns.DOCUMENT]), part.table[Columns.QUERY], k)
        found.append(ranks_in_lists(lists, part.relevant).values)
        if progress:
            progress(len(part))
    ranks = Ragged(np.concatenate(found), judged.relevant.offsets)
    ids, relevant = judged.table[Columns.QUERY], judged.relevant
    of_query = {name: metric(ranks) for name, metric in METRICS.items()}
    rows = pl.DataFrame(
        {
            Columns.QUERY: ids.gather(np.repeat(np.arange(len(judged)), relevant.lengths)),
            Columns.DOCUMENT: documents.gather(relevant.values),
            Columns.RANK: ranks.values,
        }
    )
    means = {name: float(values.mean()) for name, values in of_query.items()}
    return SearchEvaluation(
        means, pl.DataFrame({Columns.QUERY: ids, **of_query}), rows, len(judged), len(asked) - len(judged), share
    )
