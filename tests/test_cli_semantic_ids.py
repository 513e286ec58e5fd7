"""diffgrm semantic-ids: export and churn."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

import diffgrm
from diffgrm.semantic_ids.sid_files import read_sids, write_sids
from helpers.commands import caller, save_tables


@pytest.fixture
def run(monkeypatch, capsys):
    return caller(monkeypatch, capsys)


@pytest.mark.parametrize("name", ["sids.parquet", "sids.json"])
def test_what_is_exported_is_read_by_from_file_and_has_no_churn(run, saved, toy, tmp_path, name):
    out = tmp_path / name
    code, shown, _ = run("semantic-ids", "export", saved, "--out", out)
    assert code == 0 and "480 semantic IDs of 3 digits written to" in shown
    model = diffgrm.load(saved)
    table = read_sids(out)
    assert table.items.equals(model.items.series) and np.array_equal(table.codes, model.semantic_ids.codes)
    settings = "tokenizer.name=from_file", "tokenizer.n_digits=3", "tokenizer.codebook_size=16", f"tokenizer.path={out}"
    tables = save_tables(toy, tmp_path)
    code, _, err = run("tokenize", *tables, "--out", tmp_path / "again.parquet", *settings)
    assert code == 0, err
    again = pl.read_parquet(tmp_path / "again.parquet")
    assert np.array_equal(again.drop("item_id").to_numpy(), model.semantic_ids.codes)
    for other in (saved, tmp_path / "again.parquet"):
        code, shown, err = run("semantic-ids", "churn", out, other, "--json", tmp_path / "churn.json")
        assert code == 0 and "semantic ID changed" in shown and "480" in shown, err
        found = json.loads((tmp_path / "churn.json").read_text())
        assert found["changed"] == 0 and found["items"] == 480 and found["digits"] == [0, 0, 0]


def test_columns_of_a_file_with_several_sets_are_named(run, tmp_path):
    sets = {"item_id": ["a", "b"], "one": [[0, 1], [1, 1]], "two": [[0, 1], [1, 0]]}
    pl.DataFrame(sets).write_parquet(tmp_path / "x.parquet")
    code, _, err = run("semantic-ids", "churn", tmp_path / "x.parquet", tmp_path / "x.parquet", "--column", "one")
    assert code == 2 and "no column 'semantic_id'" in err
    pair = "churn", tmp_path / "x.parquet", tmp_path / "x.parquet", "--column", "one", "--column-after", "two"
    code, out, _ = run("semantic-ids", *pair)
    assert code == 0 and "0.0%, 50.0%" in out


def test_models_without_semantic_ids_and_outputs_of_other_kinds_are_refused(run, toy, saved, tmp_path):
    diffgrm.PopularityRecommender().fit(toy, progress=False).save(tmp_path / "popular")
    code, _, err = run("semantic-ids", "export", tmp_path / "popular", "--out", tmp_path / "x.json")
    assert code == 2 and "the recommender 'popularity', which has no semantic IDs" in err
    code, _, err = run("semantic-ids", "export", saved, "--out", tmp_path / "x.csv")
    assert code == 2 and "cannot write x.csv: expected one of .parquet, .json" in err
    write_sids(pl.Series(["a"]), np.array([[1]]), tmp_path / "y.json")
    code, _, err = run("semantic-ids", "churn", saved, tmp_path / "y.json", "--column", "letter")
    assert code == 2 and "is a model folder, of which there is no column 'letter'" in err
    assert not (tmp_path / "x.json").exists()
