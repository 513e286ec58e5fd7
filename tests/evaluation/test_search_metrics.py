"""Metrics of a search, by hand and by their definitions (test_evaluation has them beside trec_eval's)."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from diffgrm.data.ids import IdMap
from diffgrm.evaluation.retrieval import evaluate_search
from diffgrm.foundation.schema import DataError


class Listed:
    """Gives the lists that it was told."""

    def __init__(self, lists, documents):
        self.lists, self.documents = lists, IdMap(pl.Series(documents))

    def search(self, queries, k):
        rows = [
            (query, document, -float(place), place + 1)
            for query in queries["query_id"]
            for place, document in enumerate(self.lists[query][:k])
        ]
        kinds = {"query_id": pl.String, "doc_id": pl.String, "score": pl.Float64, "rank": pl.Int32}
        return pl.DataFrame(rows, kinds, orient="row")


def test_by_hand():
    retriever = Listed({"p": ["a", "b", "c"], "q": ["c", "a", "b"], "r": ["a"]}, ["a", "b", "c"])
    queries = pl.DataFrame({"query_id": ["p", "q", "r", "s"], "text": list("wxyz")})
    qrels = pl.DataFrame({"query_id": ["p", "q", "q", "r"], "doc_id": ["b", "c", "b", "c"]})
    found = evaluate_search(retriever, queries, qrels, queries_at_once=2)
    assert (found.n_queries, found.n_skipped) == (3, 1)
    ndcg = [1 / np.log2(3), (1 + 1 / 2) / (1 + 1 / np.log2(3)), 0]
    assert found.per_query["ndcg@10"].to_list() == pytest.approx(ndcg)
    assert found.per_query["mrr@10"].to_list() == [0.5, 1, 0]
    assert found.metrics["hit@1"] == pytest.approx(1 / 3) and found.metrics["hit@10"] == pytest.approx(2 / 3)
    assert found.metrics["recall@100"] == pytest.approx(2 / 3)
    assert found.ranks.rows() == [("p", "b", 2), ("q", "c", 1), ("q", "b", 3), ("r", "c", 0)]
    assert found.to_dict()["metrics"] == found.metrics
    with pytest.raises(DataError, match="queries_at_once=0: expected a whole number from 1 on"):
        evaluate_search(retriever, queries, qrels, queries_at_once=0)


def by_definition(found, relevant):
    """The metrics of one list, a place at a time."""
    gains = [document in relevant for document in found]
    first = next((place for place, gain in enumerate(gains[:10]) if gain), None)
    best = sum(1 / np.log2(place + 2) for place in range(min(10, len(relevant))))
    return {
        "hit@1": float(any(gains[:1])),
        "hit@10": float(any(gains[:10])),
        "mrr@10": 0.0 if first is None else 1 / (first + 1),
        "ndcg@10": sum(gain / np.log2(place + 2) for place, gain in enumerate(gains[:10])) / best,
        "recall@10": sum(gains[:10]) / len(relevant),
        "recall@100": sum(gains[:100]) / len(relevant),
    }


def test_as_they_are_defined():
    generator = np.random.default_rng(0)
    documents = [f"d{number:03}" for number in range(150)]
    lists = {f"q{query}": generator.permutation(documents)[:120].tolist() for query in range(30)}
    relevant = {query: generator.choice(documents, generator.integers(1, 20), replace=False).tolist() for query in lists}
    pairs = [(query, document) for query, found in relevant.items() for document in found]
    queries = pl.DataFrame({"query_id": list(lists), "text": "x"})
    qrels = pl.DataFrame(pairs, ["query_id", "doc_id"], orient="row")
    found = evaluate_search(Listed(lists, documents), queries, qrels, queries_at_once=7)
    wanted = [by_definition(lists[query], set(relevant[query])) for query in lists]
    for name in found.metrics:
        assert found.per_query[name].to_list() == pytest.approx([of_query[name] for of_query in wanted])
        assert found.metrics[name] == pytest.approx(np.mean([of_query[name] for of_query in wanted]))
