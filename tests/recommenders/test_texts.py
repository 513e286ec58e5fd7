"""Texts of items: scripts without spaces, and items of which an embedding says nothing, at fit and later."""

from __future__ import annotations

from functools import cache

import numpy as np
import polars as pl
import pytest

import diffgrm
from diffgrm import InteractionDataset, Recipe
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import DataError
from diffgrm.recommenders.neighbours import TextKNNRecommender
from diffgrm.semantic_ids.embeddings.base import ItemEncoder, normalise
from helpers.titles import titles

RECIPE = Recipe(recommender="text_knn")
NEW = pl.DataFrame({"item_id": ["n1", "n2"], "text": ["\u65b0\u54c1\u306e\u7dd1\u8336", "\U0001f600"]})
TOLD = "1 of 2 items get the zero vector, so that they are like no other item: n2 ('\U0001f600')"


def dataset(items: pl.DataFrame) -> InteractionDataset:
    """Every user meets all items."""
    events = pl.DataFrame({"item_id": items["item_id"]}).join(pl.DataFrame({"user_id": [0, 1]}), how="cross")
    return InteractionDataset.from_tables(events, items)


@pytest.fixture(scope="module")
def japanese():
    items, group = titles("japanese")
    return TextKNNRecommender(RECIPE).fit(dataset(items), progress=False), group


def test_new_items_of_which_nothing_is_known_are_told(japanese, caplog, tmp_path):
    recommender, _ = japanese
    assert "zero vector" not in caplog.text
    newer = diffgrm.load(recommender.save(tmp_path / "model")).add_items(NEW)
    assert TOLD in caplog.text and newer.vectors[-2:].any(axis=1).tolist() == [True, False]
    caplog.clear()
    changed = newer.update_items(NEW.with_columns(text=NEW["text"].reverse()), semantic_ids="move")
    assert "1 of 2 items get the zero vector" in caplog.text and "n1 ('\U0001f600')" in caplog.text
    assert changed.vectors[-2:].any(axis=1).tolist() == [False, True]
    with pytest.raises(DataError, match="1 items have no text: n3; give them at least a title"):
        newer.add_items(pl.DataFrame({"item_id": ["n3"], "text": [" "]}))


def test_similar_items_are_of_the_same_group(japanese, tmp_path):
    recommender, group = japanese
    loaded = diffgrm.load(recommender.save(tmp_path / "model"))
    assert np.array_equal(loaded.vectors, recommender.vectors)
    similar = [loaded.similar_items(f"japanese {row}", k=5)["item_id"].str.slice(9).cast(int) for row in range(30)]
    assert np.mean([group[near.to_numpy()] == group[row] for row, near in enumerate(similar)]) > 0.95


def test_vectors_of_a_file_that_are_zero_are_told(caplog, tmp_path):
    items = pl.DataFrame({"item_id": ["a", "b", "c", "d"], "text": ["x"] * 4})
    np.save(tmp_path / "v.npy", np.array([[1.0, 0], [0, 0], [0, 1], [1, 1]]))
    recipe = RECIPE.override([f"embedding={{name: precomputed, path: {tmp_path / 'v.npy'}}}"])
    TextKNNRecommender(recipe).fit(dataset(items), progress=False)
    assert (
        "1 of 4 items get the zero vector" in caplog.text and "b ('x'); their vectors in the file are zero" in caplog.text
    )


class Written(ItemEncoder):
    """Vectors that are written in the texts."""

    cached = False

    def encode(self, items):
        return normalise(np.array([[float(number) for number in text.split()] for text in items["text"]]))

    def identity(self):
        return {}


SMALL = ["tokenizer={name: random, n_digits: 2, codebook_size: 4}", "training.epochs=1", "model={width: 8, max_len: 4}"]


@cache
def written(name):
    """A recommender of four items."""
    items = pl.DataFrame({"item_id": ["a", "b", "c", "d"], "text": ["1 0", "0 1", "1 1", "1 -1"]})
    overrides = [f"embedding={{name: '{__name__}:Written'}}", *(SMALL if name != "text_knn" else [])]
    recipe = Recipe(recommender=name).override(overrides)
    return resolve("recommender", name)(recipe).fit(dataset(items), progress=False)


def row(item, text):
    return pl.DataFrame({"item_id": [item], "text": [text]})


def later(recommender, text):
    """The changes that give an item this text, and which item that is."""
    return [
        ("new", lambda: recommender.add_items(row("new", text))),
        ("b", lambda: recommender.update_items(row("b", text), semantic_ids="move")),
    ]


WRONG = [
    ("1 0 0", "embeddings are 3 wide, but the {fitted} was fitted on 2; use the same encoder"),
    ("1", "embeddings are 1 wide, but the {fitted} was fitted on 2; use the same encoder"),
    ("nan 1", "embeddings of 1 items hold NaN or infinity: {item}; mend or leave them out"),
    ("1 inf", "embeddings of 1 items hold NaN or infinity: {item}; mend or leave them out"),
]


@pytest.mark.parametrize(
    ("name", "fitted"), [("text_knn", "recommender"), ("hybrid", "recommender"), ("diffgrm", "tokenizer")]
)
@pytest.mark.parametrize(("text", "message"), WRONG)
def test_vectors_of_items_that_come_or_change_are_checked_as_those_at_fit(name, fitted, text, message):
    for item, change in later(written(name), text):
        with pytest.raises(DataError) as caught:
            change()
        assert str(caught.value).startswith(message.format(item=item, fitted=fitted))


@pytest.mark.parametrize("name", ["text_knn", "hybrid", "diffgrm"])
def test_vectors_that_are_as_wide_are_taken(name):
    for item, change in later(written(name), "1 -0.1"):
        assert change().similar_items(item, k=1)["item_id"].to_list() == ["a"]


def test_vectors_of_all_items_are_checked_where_similar_ones_are_asked_for():
    recommender = written("diffgrm").update_items(row("b", "nan 1"), semantic_ids="keep")
    with pytest.raises(DataError, match="embeddings of 1 items hold NaN or infinity: b"):
        recommender.similar_items("a", k=1)


def test_items_that_come_twice_are_refused():
    twice = pl.concat([row("new", "1 0")] * 2)
    with pytest.raises(DataError, match=r"1 item ids have more than one row \(expected one each\): new; keep one with"):
        written("text_knn").add_items(twice)


def test_tiny_vectors_of_a_file_are_not_told_to_be_zero(caplog, tmp_path):
    items = pl.DataFrame({"item_id": ["a", "b", "c", "d"], "text": ["x"] * 4})
    path, tiny = tmp_path / "v.parquet", np.float32(1e-30)
    pl.DataFrame(
        {"item_id": ["a", "b", "c", "d", "e"], "embedding": np.array([[1, 0], [0, 1], [1, 1], [1, -1], [0, tiny]])}
    ).write_parquet(path)
    recipe = RECIPE.override([f"embedding={{name: precomputed, path: {path}}}"])
    recommender = TextKNNRecommender(recipe).fit(dataset(items), progress=False)
    grown = recommender.add_items(row("e", "x"))
    assert grown.vectors[-1].tolist() == [0, 1] and "zero vector" not in caplog.text
    assert grown.similar_items("e", k=1)["item_id"].to_list() == ["b"]


def test_columns_may_be_lists_of_lists_also_of_new_items(tmp_path):
    items = pl.DataFrame(
        {
            "item_id": ["a", "b", "c", "d", "held out", "too"],
            "text": ["one", "two", "three", "four", "five", "six"],
            "categories": [[["Beauty", "Bath"]], [["Beauty"], ["Bath"]], [["Garden"], None], None, [[]], [[None]]],
        }
    )
    recipe = RECIPE.override(["embedding.columns=[categories]"])
    recommender = TextKNNRecommender(recipe).fit(dataset(items), progress=False)
    assert recommender.similar_items("a", k=1)["item_id"].to_list() == ["b"]
    loaded = diffgrm.load(recommender.save(tmp_path / "model"))
    rows = pl.DataFrame({"item_id": ["e"], "text": ["seven"], "categories": [[["Garden"]]]})
    assert loaded.add_items(rows).similar_items("e", k=1)["item_id"].to_list() == ["c"]
    with pytest.raises(DataError, match="categories is .*; expected values of type List"):
        loaded.add_items(rows.with_columns(categories=pl.lit("Garden")))


def test_similar_items_go_by_the_texts_of_the_recommender_that_is_asked(saved, tmp_path):
    """Of a method that keeps no vectors of texts, whoever is asked first."""
    recommender, wanted = diffgrm.load(saved), diffgrm.load(saved).similar_items("item 3")
    text = recommender.item_table.filter(item_id="item 200")["text"][0]
    row = recommender.item_table.filter(item_id="item 3").with_columns(text=pl.lit(text))
    newer = recommender.update_items(row, semantic_ids="keep")
    theirs = newer.similar_items("item 3")
    assert theirs["item_id"][0] == "item 200" and wanted["item_id"][0] != "item 200"
    assert recommender.similar_items("item 3").equals(wanted) and newer.similar_items("item 3").equals(theirs)
    assert diffgrm.load(newer.save(tmp_path / "newer")).similar_items("item 3").equals(theirs)


def test_similar_items_go_by_the_embedding_of_now(toy, tiny_recipe, tmp_path):
    """The file that an embedding reads may change after fit."""
    generator = np.random.default_rng(0)
    for name in "ab":
        vectors = generator.normal(size=(toy.n_items, 8)).astype(np.float32)
        pl.DataFrame({"item_id": toy.items.series, "embedding": vectors}).write_parquet(tmp_path / f"{name}.parquet")
    paths = [f"embedding.path={tmp_path / name}.parquet" for name in "ab"]
    recipe = tiny_recipe.override([f"embedding={{name: precomputed, path: {tmp_path / 'a.parquet'}}}", "training.epochs=1"])
    recommender = resolve("recommender", "diffgrm")(recipe).fit(toy, progress=False)
    wanted = recommender.variant(paths[1:]).similar_items("item 3")
    before = recommender.similar_items("item 3")
    assert not before.equals(wanted) and recommender.variant(paths[1:]).similar_items("item 3").equals(wanted)
    assert recommender.variant(paths[1:]).variant(paths[:1]).similar_items("item 3").equals(before)
