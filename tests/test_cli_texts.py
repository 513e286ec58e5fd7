"""Item texts on the command line: scripts without spaces, and items of which nothing is known."""

from __future__ import annotations

import re

import polars as pl
import pytest

from helpers.commands import caller
from helpers.titles import titles


@pytest.fixture
def run(monkeypatch, capsys):
    return caller(monkeypatch, capsys)


def tables(folder, items: pl.DataFrame):
    """Options that name an item table and one of two users who met all of it."""
    items.write_csv(folder / "items.csv")
    users = pl.DataFrame({"user_id": ["u", "v"]})
    items.select("item_id").join(users, how="cross").write_csv(folder / "events.csv")
    return ["--interactions", folder / "events.csv", "--items", folder / "items.csv"]


def test_japanese_titles_have_neighbours_and_unknown_ones_are_told(run, tmp_path):
    items, group = titles("japanese")
    place = tmp_path / "model"
    code, _, err = run("fit", *tables(tmp_path, items), "--out", place, "--quiet", "recommender=text_knn")
    assert code == 0 and "zero vector" not in err
    code, out, _ = run("similar", place, "japanese 0", "--k", 5)
    near = [int(row) for row in re.findall(r"japanese (\d+)", out) if row != "0"]
    assert code == 0 and len(near) == 5 and (group[near] == group[0]).mean() >= 0.8
    pl.DataFrame({"item_id": ["new"], "text": ["\U0001f600"]}).write_csv(tmp_path / "new.csv")
    code, _, err = run("items", "add", place, "--items", tmp_path / "new.csv")
    assert code == 0 and "1 of 1 items get the zero vector" in err and "new ('\U0001f600')" in err


@pytest.mark.parametrize(
    ("texts", "setting", "said"),
    [
        (["\U0001f600"] * 5, "embedding.min_items=null", "no words in the texts of"),
        (["a", "b", "c", "d", "e"], "embedding.min_items=3", "words that at least 3 items have (embedding.min_items)"),
        (["a", "b", "c", "d", "e"], "embedding.min_items=9", "words that at least 9 items have"),
    ],
)
def test_texts_to_learn_nothing_from_are_refused_in_our_words(run, tmp_path, texts, setting, said):
    items = pl.DataFrame({"item_id": list("vwxyz"), "text": texts})
    fit = "fit", *tables(tmp_path, items), "--out", tmp_path / "model", "--quiet", "recommender=text_knn", setting
    code, _, err = run(*fit)
    assert code == 2 and said in err and "stop words" not in err and "min_df" not in err
    assert not (tmp_path / "model").exists()
    code, _, err = run("tokenize", "--items", tmp_path / "items.csv", "--out", tmp_path / "s.parquet", setting)
    assert code == 2 and said in err


def test_items_that_get_a_semantic_id_without_a_known_word_are_told(run, tmp_path):
    items, _ = titles("japanese", 60)
    more = pl.DataFrame({"item_id": ["new"], "text": ["\U0001f600"]})
    tables(tmp_path, pl.concat([items, more]))
    small = "tokenizer.codebook_size=8", "tokenizer.n_digits=2", "tokenizer.pca_width=8", "embedding.width=16"
    code, _, err = run("tokenize", "--items", tmp_path / "items.csv", "--out", tmp_path / "s.parquet", *small)
    assert code == 0, err
    assert "1 of 61 items get the zero vector" in err and "new ('\U0001f600')" in err
