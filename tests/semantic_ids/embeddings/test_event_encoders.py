"""Encoders that learn from training events too, and the cache of what they made."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from diffgrm import DiffGRMRecommender, leave_one_out, toy_world
from diffgrm.data.dataset import validation_only
from diffgrm.foundation.schema import DataError
from diffgrm.semantic_ids.embeddings.base import EventContext, ItemEncoder, embed_items
from helpers.commands import called, save_tables
from helpers.recipes import SMALL_SCORER, small_recipe


class Met(ItemEncoder):
    """How often an item is met in training, and whether it is; counts its fits."""

    reads_events = True
    fits: list[EventContext] = []

    def fit(self, items):
        pytest.fail("fit is not asked of an encoder that reads events")

    def fit_events(self, context):
        self.fits.append(context)
        self.counts = dict(zip(context.split.dataset.items.series, context.split.item_counts, strict=True))
        return self

    def encode(self, items):
        counts = np.array([self.counts[item] for item in items["item_id"]], dtype=np.float32)
        return np.stack([counts, counts > 0], axis=1)

    def identity(self):
        return {}


@pytest.fixture
def embed(tmp_path):
    Met.fits.clear()

    def run(context):
        split = context.split
        return embed_items(Met(), split.dataset.item_table, split.item_counts > 0, tmp_path, context)

    return run


@pytest.fixture(scope="module")
def dataset():
    return toy_world(users=40, seed=3).dataset


def test_such_an_encoder_is_given_the_events(embed, dataset):
    split = leave_one_out(dataset)
    vectors = embed(EventContext(split, seed=3))
    assert np.array_equal(vectors[:, 0], split.item_counts) and [c.seed for c in Met.fits] == [3]


def test_without_events_it_is_refused(dataset):
    table = dataset.item_table
    with pytest.raises(
        DataError, match=r"Met learns from training events, and there are none; give interactions, or choose"
    ):
        embed_items(Met(), table, np.ones(table.height, dtype=bool))


def test_one_that_says_so_and_cannot_is_told_what_it_lacks(dataset):
    class Silent(Met):
        fit_events = ItemEncoder.fit_events

    split = leave_one_out(dataset)
    with pytest.raises(NotImplementedError, match="Silent says that it reads events; it needs a method fit_events"):
        embed_items(Silent(), dataset.item_table, split.item_counts > 0, context=EventContext(split))


def test_events_mean_nothing_to_other_encoders(dataset, tmp_path):
    """Nor to their cache."""
    split, encoder = leave_one_out(dataset), small_recipe("diffgrm").embedding
    rows = dataset.item_table, split.item_counts > 0, tmp_path
    without, given = (embed_items(encoder.build(), *rows, context) for context in (None, EventContext(split, seed=4)))
    assert np.array_equal(without, given) and len(list(tmp_path.iterdir())) == 1


def test_the_cache_goes_by_events_validation_seed_and_settings_of_the_split(embed, dataset, tmp_path):
    split = leave_one_out(dataset)
    context = EventContext(split, {"split": "leave_one_out"}, seed=1)
    embed(context), embed(replace(context, folder=tmp_path / "x", resume=True, progress=True))
    embed(replace(context, split=leave_one_out(dataset)))
    assert len(Met.fits) == 1
    held = split.validation
    other = [
        replace(context, seed=2),
        replace(context, data={"split": "temporal"}),
        replace(context, split=validation_only(dataset)),
        replace(context, split=replace(split, validation=replace(held, targets=held.histories))),
    ]
    for number, changed in enumerate(other):
        embed(changed), embed(changed)
        assert len(Met.fits) == 2 + number
    assert len(list(tmp_path.iterdir())) == 1 + len(other)


# ---- commands ---------------------------------------------------------------------------------------------------------


def test_tokenizing_needs_interactions_for_it_and_gives_what_a_fit_gives(dataset, tmp_path, monkeypatch, capsys):
    changes = f"[{', '.join(SMALL_SCORER)}]"
    settings = ["embedding.name=item_scorer", f"embedding.changes={changes}"]
    recipe = small_recipe("diffgrm").override([*settings, "tokenizer.unit=false", "training.epochs=1"])
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    interactions, items = np.split(np.array(save_tables(dataset, tmp_path)), 2)
    asked = ["tokenize", "--recipe", tmp_path / "recipe.yaml", *items, "--out", tmp_path / "sids.parquet"]
    code, _, err = called(monkeypatch, capsys, *asked)
    assert code == 2 and "learns from training events, and there are none; give interactions" in err
    assert not (tmp_path / "sids.parquet").exists()
    code, _, err = called(monkeypatch, capsys, *asked, *interactions)
    assert code == 0, err
    found = pl.read_parquet(tmp_path / "sids.parquet").drop("item_id").to_numpy()
    assert np.array_equal(found, DiffGRMRecommender(recipe).fit(dataset, progress=False).semantic_ids.codes)
