"""Documents, queries and judgements as they are read, and what a retriever learns from them."""

from __future__ import annotations

import logging

import numpy as np
import polars as pl
import pytest

from diffgrm.data.documents import JudgedQueries, asked_queries, read_documents, read_qrels, read_queries
from diffgrm.data.ids import IdMap
from diffgrm.data.query_split import QuerySplit, sentences
from diffgrm.foundation.schema import DataError

DOCUMENTS = pl.DataFrame({"doc_id": ["b", "a", "c"], "title": ["B", None, "C"], "text": ["one. two.", "three", "four"]})
QUERIES = pl.DataFrame({"query_id": [1, 2, 3], "text": ["x", "y", "z"], "split": ["train", "train", "dev"]})
QRELS = pl.DataFrame({"query_id": [1, 1, 2, 3], "doc_id": ["a", "b", "c", "a"], "relevance": [1, 2, 0, 3]})
IDS = IdMap(pl.Series(["a", "b", "c"]))


def judged(queries=QUERIES, qrels=QRELS, **options):
    return JudgedQueries.from_tables(queries, qrels, IDS, **options)


def rows(ragged):
    return [ragged[row].tolist() for row in range(len(ragged))]


def test_what_is_judged_above_0_is_relevant_and_belongs_to_its_query():
    assert rows(judged().relevant) == [[0, 1], [], [0]]
    assert rows(judged(qrels=QRELS.drop("relevance")).relevant) == [[0, 1], [2], [0]]
    dev = judged(split="dev")
    assert dev.table["query_id"].to_list() == [3] and rows(dev.relevant) == [[0]]


def test_tables_may_be_files_with_columns_of_other_names(tmp_path):
    QUERIES.rename({"query_id": "qid"}).write_csv(tmp_path / "q.csv")
    QRELS.rename({"query_id": "qid", "doc_id": "pid"}).write_csv(tmp_path / "r.csv")  # where all values are texts
    DOCUMENTS.rename({"doc_id": "pid"}).write_parquet(tmp_path / "d.parquet")
    columns = {"query_id": "qid", "doc_id": "pid"}
    found = judged(tmp_path / "q.csv", tmp_path / "r.csv", columns=columns)
    assert rows(found.relevant) == rows(judged().relevant)
    assert read_documents(tmp_path / "d.parquet", columns)["doc_id"].to_list() == ["b", "a", "c"]


def test_queries_without_relevant_documents_are_counted_and_said(caplog):
    with caplog.at_level(logging.WARNING):
        found = judged().answerable()
    assert found.table["query_id"].to_list() == [1, 3] and rows(found.relevant) == [[0, 1], [0]]
    assert "1 of 3 queries have no relevant document and are left out: 2" in caplog.text
    with pytest.raises(DataError, match="none of 3 queries has a relevant document"):
        judged(qrels=QRELS.with_columns(relevance=pl.lit(0))).answerable()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"doc_id": ["a", "b"], "text": ["x", " "]}, "1 documents have no text: b; leave them out"),
        ({"doc_id": ["a", "a"], "text": ["x", "y"]}, r"1 document ids have more than one row .*: a; keep one"),
        ({"id": ["a"], "text": ["x"]}, r"the document table has columns .*expected column 'doc_id'"),
        ({"doc_id": [None, "a"], "text": ["x", "y"]}, "doc_id is null in 1 rows"),
    ],
)
def test_documents_that_cannot_be_used_are_told(table, message):
    with pytest.raises(DataError, match=f"(?s){message}"):
        read_documents(pl.DataFrame(table))


def test_queries_that_cannot_be_used_are_told():
    with pytest.raises(DataError, match="1 queries have no text: 2; an empty query asks for nothing"):
        read_queries(pl.DataFrame({"query_id": [1, 2], "text": ["x", ""]}))
    with pytest.raises(DataError, match="1 queries have no text: 0; an empty query"):
        asked_queries("  ")
    with pytest.raises(DataError, match="queries are texts, found 3; give a list of texts"):
        asked_queries(["x", 3])
    with pytest.raises(DataError, match="query table is empty"):
        asked_queries([])
    assert asked_queries(["x", "y"]).rows() == [(0, "x"), (1, "y")]


def test_qrels_that_cannot_be_used_are_told():
    with pytest.raises(DataError, match="2 rows judge a pair of query and document that another row judges too"):
        read_qrels(pl.DataFrame({"query_id": [1, 1], "doc_id": ["a", "a"]}))
    with pytest.raises(DataError, match="relevance is 'yes' in row 1; expected a number"):
        read_qrels(pl.DataFrame({"query_id": [1, 2], "doc_id": ["a", "a"], "relevance": ["1", "yes"]}))
    with pytest.raises(DataError, match="relevance is None in row 0; expected a number"):
        read_qrels(pl.DataFrame({"query_id": [1], "doc_id": ["a"], "relevance": [None]}))
    with pytest.raises(DataError) as error:
        judged(qrels=pl.DataFrame({"query_id": [9, 1, 8], "doc_id": ["a", "z", "a"]}))
    assert "2 queries of the qrels are in no row of the query table: 9, 8" in str(error.value)
    assert "1 documents of the qrels are in no row of the document table: z" in str(error.value)


def test_splits_and_renamings_that_are_not_there_are_told():
    with pytest.raises(DataError, match="no query has split = 'tran'; the query table has dev, train"):
        judged(split="tran")
    with pytest.raises(DataError, match="has no column 'split'"):
        judged(QUERIES.drop("split"), split="train")
    with pytest.raises(DataError, match="cannot rename to 'item_id': the columns of the .* are query_id, doc_id"):
        judged(columns={"item_id": "x"})
    with pytest.raises(DataError, match=r"to rename in the query table and the qrels table:\n  - 'relevanc'; did you mean"):
        judged(columns={"relevance": "relevanc"})
    with pytest.raises(DataError, match=r"no column to rename in the query table and the qrels table:\n  - 'part'; known"):
        judged(columns={"split": "part"})
    with pytest.raises(DataError, match=r"no column to rename in .*:\n  - 'query_idd'; did you mean 'query_id'"):
        judged(columns={"query_id": "query_idd"})
    with pytest.raises(DataError, match=r"no column to rename in the document table:\n  - 'name'; known: "):
        read_documents(DOCUMENTS, {"title": "name"})


def split_of(index_documents, qrels=QRELS.with_columns(relevance=pl.lit(1)), share=0.3):
    return QuerySplit.of(DOCUMENTS, judged(qrels=qrels), index_documents, share, seed=0)


def test_a_share_of_queries_is_held_out_and_never_learnt_from():
    split = split_of(())
    held = split.validation.histories.values
    assert len(held) == 1 and rows(split.validation.targets) == [
        rows(judged(qrels=QRELS.drop("relevance")).relevant)[held[0]]
    ]
    assert split.train[held[0]].size == 0 and set(split.pairs.values[::2]) == {0, 1, 2} - set(held)
    assert split_of(()).validation.histories.values.tolist() == held.tolist()  # by the seed
    assert split.learnable.all() and split.item_counts.sum() == split.train.values.size


def test_documents_are_asked_with_in_place_of_queries():
    split = split_of(("title", "sentences", "text"))
    assert split.texts["text"].to_list() == ["x", "y", "z", "B", "C", "three", "one.", "two.", "four"]
    places = [split.train[row].tolist() for row in range(3, len(split.train))]
    assert places == [[1], [2], [0], [1], [1], [2], [0], [1], [2]]  # documents in order of ids; then each itself
    assert split.own and len(split.train) == 9 + 3
    assert split_of(("first_sentence",)).texts["text"].to_list()[3:] == ["three", "one.", "four"]
    with pytest.raises(DataError, match="names 'title', but the document table has no column 'title'"):
        QuerySplit.of(DOCUMENTS.drop("title"), judged(), ("title",), 0.3, 0)
    with pytest.raises(DataError, match="there is 1 query with a relevant document; expected two"):
        QuerySplit.of(DOCUMENTS, judged().rows(np.array([0])), (), 0.3, 0)


def test_sentences_of_scripts_with_and_without_spaces():
    assert sentences("大仏は高い。15mです。そう!\uff1f ") == ["大仏は高い。", "15mです。", "そう!\uff1f"]
    assert sentences("version 3.5 is out. Read on") == ["version 3.5 is out.", "Read on"]
