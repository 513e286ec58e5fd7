"""What everything that finds documents by queries must do: the retriever, BM25, the cosine of vectors."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from diffgrm import DocumentRetriever
from diffgrm.foundation.schema import DataError
from diffgrm.recommenders.searchers import BM25, DenseVectors
from helpers.documents import library, small_documents

DOCUMENTS, QUERIES, QRELS = library()
ASKED = QUERIES.head(9)
KINDS = {
    "retriever": lambda documents, qrels: DocumentRetriever(small_documents()).fit(
        documents, QUERIES, qrels, progress=False
    ),
    "bm25": lambda documents, qrels: BM25(documents),
    "dense": lambda documents, qrels: DenseVectors(documents),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def searcher(kind):
    return KINDS[kind](DOCUMENTS, QRELS)


def test_the_answer_is_a_table_of_real_distinct_documents_best_first(searcher):
    found = searcher.search(ASKED, k=5)
    assert found.schema == {"query_id": pl.String, "doc_id": pl.String, "score": pl.Float32, "rank": pl.Int32}
    assert found["query_id"].unique(maintain_order=True).to_list() == ASKED["query_id"].to_list()
    for _, rows in found.group_by("query_id"):
        assert rows["rank"].to_list() == [1, 2, 3, 4, 5] and rows["doc_id"].n_unique() == 5
        assert set(rows["doc_id"]) <= set(DOCUMENTS["doc_id"]) and rows["score"].is_sorted(descending=True)
        assert rows["score"].is_finite().all()


def test_the_same_question_gets_the_same_answer(searcher):
    assert searcher.search(ASKED, k=7).equals(searcher.search(ASKED, k=7))


def scores_of(found):
    """Of every document for every query; which of two whose scores differ by rounding stands first is left open."""
    return found.sort("query_id", "doc_id", maintain_order=True)["score"].to_numpy()


def test_every_form_of_queries_gives_the_same_answer(searcher, tmp_path):
    path = tmp_path / "queries.parquet"
    ASKED.write_parquet(path)
    wanted = searcher.search(ASKED, k=3)
    for form in (path, ASKED.to_pandas(), ASKED.to_arrow(), ASKED.with_columns(split=pl.lit("test"))):
        assert searcher.search(form, k=3).equals(wanted)
    texts = ASKED["text"].to_list()
    listed, alone = searcher.search(texts, k=3), searcher.search(texts[0], k=40)
    assert listed.drop("query_id").equals(wanted.drop("query_id"))
    assert listed["query_id"].unique(maintain_order=True).to_list() == list(range(9))
    assert alone["query_id"].to_list() == [0] * 40
    assert np.allclose(scores_of(alone), scores_of(searcher.search(ASKED[:1], k=40)), atol=1e-4)


def test_a_batch_of_queries_finds_what_each_finds_alone(searcher):
    together = searcher.search(ASKED, k=40)
    alone = pl.concat([searcher.search(ASKED[row], k=40) for row in range(ASKED.height)])
    assert np.allclose(scores_of(together), scores_of(alone), atol=1e-4)


def test_a_shorter_list_is_the_head_of_a_longer_one_which_may_hold_every_document(searcher):
    whole = searcher.search("the care of bread", k=40)
    assert set(whole["doc_id"]) == set(DOCUMENTS["doc_id"])
    assert searcher.search("the care of bread", k=4)["doc_id"].to_list() == whole["doc_id"].to_list()[:4]
    with pytest.raises(DataError, match="k is 41, but the catalogue has only 40 documents; ask for at most that many"):
        searcher.search("the care of bread", k=41)


@pytest.mark.parametrize("k", [0, -1, True, 2.0, "3", None])
def test_a_k_that_is_no_number_of_documents_is_refused(searcher, k):
    with pytest.raises(DataError, match=f"k is {k!r}; expected a whole number from 1"):
        searcher.search("violin", k=k)
    assert searcher.search("violin", k=np.int64(3)).equals(searcher.search("violin", k=3))


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        ([], "the query table is empty"),
        (["violin", " "], "1 queries have no text: 1"),
        (["violin", 7], "queries are texts, found 7"),
        (["\ud800"], "half of a surrogate pair"),
        (7, "cannot read a query table from int"),
        (None, "cannot read a query table from NoneType"),
        (pl.DataFrame({"query_id": ["a", "a"], "text": ["owl", "bread"]}), "more than one row"),
        (pl.DataFrame({"query": ["a"], "text": ["owl"]}), "query_id"),
    ],
)
def test_what_asks_for_nothing_is_refused(searcher, queries, message):
    with pytest.raises(DataError, match=message):
        searcher.search(queries, k=2)


def test_what_is_done_is_told(searcher):
    done = []
    searcher.search(ASKED, k=2, progress=done.append)
    assert sum(done) == ASKED.height


def test_ids_stay_what_they_are(kind):
    numbers = {name: 100 - place for place, name in enumerate(DOCUMENTS["doc_id"])}
    documents, qrels = (
        table.with_columns(pl.col("doc_id").replace_strict(numbers, return_dtype=pl.Int64)) for table in (DOCUMENTS, QRELS)
    )
    found = KINDS[kind](documents, qrels).search("origin of the violin", k=1)
    assert found["doc_id"].to_list() == [numbers["violin-origin"]]


def test_nothing_depends_on_the_order_of_the_documents(kind, searcher):
    shuffled = KINDS[kind](DOCUMENTS.sample(fraction=1, shuffle=True, seed=1), QRELS)
    assert shuffled.search(ASKED, k=5).equals(searcher.search(ASKED, k=5))


def test_a_saved_retriever_is_saved_again_to_the_same_bytes(tmp_path):
    retriever = KINDS["retriever"](DOCUMENTS, QRELS)
    first = retriever.save(tmp_path / "first")
    again = DocumentRetriever.load(first)
    assert again.search(ASKED, k=5).equals(retriever.search(ASKED, k=5))
    second = again.variant(["decoding.name=one_pass"]).variant(["decoding.name=any_order_beam", "decoding.beam=40"])
    assert {p.name: p.read_bytes() for p in again.save(tmp_path / "second").iterdir()} == {
        p.name: p.read_bytes() for p in first.iterdir()
    }
    assert second.search(ASKED, k=5).equals(retriever.search(ASKED, k=5))
