"""diffgrm documents: from files to a retriever, its answers and its metrics."""

from __future__ import annotations

import json

import polars as pl
import pytest

from helpers.commands import caller
from helpers.documents import library, small_documents


@pytest.fixture
def run(monkeypatch, capsys):
    return caller(monkeypatch, capsys)


@pytest.fixture
def tables(tmp_path):
    """The library in files of three formats, with a column that is called otherwise and queries of two splits."""
    documents, queries, qrels = library()
    documents.rename({"doc_id": "pid"}).write_csv(tmp_path / "documents.csv")
    splits = pl.Series("split", ["train" if place % 3 else "test" for place in range(queries.height)])
    queries.with_columns(splits).write_parquet(tmp_path / "queries.parquet")
    qrels.rename({"doc_id": "pid"}).write_ndjson(tmp_path / "qrels.jsonl")
    judged = ["--queries", tmp_path / "queries.parquet", "--qrels", tmp_path / "qrels.jsonl", "--column", "doc_id=pid"]
    return ["--documents", tmp_path / "documents.csv"], judged


def test_fit_search_and_evaluate_from_files(run, tables, tmp_path):
    documents, judged = tables
    (tmp_path / "recipe.yaml").write_text(small_documents().to_yaml())
    model = tmp_path / "model"
    fit = [
        "documents",
        "fit",
        "--recipe",
        tmp_path / "recipe.yaml",
        *documents,
        *judged,
        "--split",
        "train",
        "--out",
        model,
    ]
    code, out, errors = run(*fit, "--quiet")
    assert code == 0, errors
    assert "Tokeniser report" in out and "Validation (queries held out of training)" in out and "Saved to" in errors + out
    assert run(*fit, "--quiet")[0] == 0  # again, over the old model

    code, out, _ = run("documents", "search", model, "--query", "origin of the violin", "--k", 3, "decoding.name=one_pass")
    assert code == 0 and "violin-origin" in out and "Query 0" in out

    explain = "documents", "explain", model, "--query", "origin of the violin", "--k", 1
    code, out, _ = run(*explain, "decoding.steps=3")
    assert code == 0 and "1. violin-origin" in out and "likeliest other" in out and "after every step" in out
    code, out, _ = run(*explain, "--show", 0, "decoding.name=refined")
    assert code == 0 and "after every step" not in out and "looked at again" in " ".join(out.split())

    found = tmp_path / "found.parquet"
    search = "documents", "search", model, "--queries", tmp_path / "queries.parquet", "--out", found
    code, _, errors = run(*search, "--column", "text=txet")
    assert code == 2 and "rename in the query table: - 'txet'; did you mean 'text'?" in " ".join(errors.split())
    assert not found.exists()
    code, _, _ = run("documents", "search", model, "--queries", tmp_path / "queries.parquet", "--k", 5, "--out", found)
    assert code == 0 and pl.read_parquet(found).columns == ["query_id", "doc_id", "score", "rank"]
    assert pl.read_parquet(found).height == 5 * 120

    ranks = tmp_path / "ranks.parquet"
    evaluate = ["documents", "evaluate", model, *judged, "--split", "test", "--json", tmp_path / "e.json", "--ranks", ranks]
    code, out, _ = run(*evaluate, "--quiet")
    written = json.loads((tmp_path / "e.json").read_text())
    assert code == 0 and "40 queries" in out and written["n_queries"] == 40 and written["metrics"]["hit@10"] > 0.9
    assert (pl.read_parquet(ranks)["rank"] == 1).mean() == pytest.approx(written["metrics"]["hit@1"])
    assert written["share_of_fit"] == 0

    for split, told in ((["--split", "train"], "about 100% of these queries"), ([], "about 67% of these queries")):
        code, _, errors = run("documents", "evaluate", model, *judged, *split, "--json", tmp_path / "e.json", "--quiet")
        assert code == 0 and f"{told} are among those that the retriever learnt from" in errors
    assert json.loads((tmp_path / "e.json").read_text())["share_of_fit"] == pytest.approx(2 / 3)

    code, out, _ = run("documents", "baselines", *documents, *judged, "--json", tmp_path / "b.json", "--quiet")
    assert code == 0 and {"bm25", "dense"} == set(json.loads((tmp_path / "b.json").read_text()))


def test_what_cannot_be_done_is_told(run, tables, tmp_path):
    documents, judged = tables
    code, _, errors = run("documents", "search", tmp_path / "nowhere", "--query", "x")
    assert code == 2 and "there is no model folder" in errors
    code, _, errors = run("documents", "search", tmp_path / "nowhere")
    assert code == 2 and "give either --query TEXT" in errors
    code, _, errors = run("documents", "search", tmp_path / "nowhere", "--query", "x", "--column", "text=words")
    assert code == 2 and "--column would do nothing, since with --query no table is read; leave it out" in errors
    out = ["--out", tmp_path / "model"]
    code, _, errors = run("documents", "fit", *documents, *judged, *out, "--split", "validation", "--quiet")
    assert code == 2 and "no query has split = 'validation'; the query table has test, train" in errors
    for command in (["fit", *out], ["baselines"]):
        code, _, errors = run("documents", *command, *documents, *judged, "--column", "text=txet", "--quiet")
        assert code == 2 and "the query table, the qrels table: - 'txet'; did you mean 'text'?" in " ".join(errors.split())
    code, _, errors = run("documents", "fit", *documents, *judged, *out, "--recipe", "best")
    assert code == 2 and "not for documents" in errors
    code, _, errors = run("fit", "--dataset", "toy", *out, "--recipe", "diffugr")
    assert code == 2 and "unknown recommender 'documents'; it is the name of a part of the kind 'retriever'" in errors
    assert not (tmp_path / "model").exists()


def test_help_tells_the_settings_of_retrievers(run):
    code, out, _ = run("documents", "fit", "--help")
    assert code == 0 and "documents.index_documents" in out and "item_scoring" not in out.split("Settings of the other")[0]
