"""Going on learning with later events and items, over every recommender."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import diffgrm
from diffgrm import DiffGRMRecommender, InteractionDataset
from diffgrm.foundation.schema import DataError, DiffGRMError
from helpers.recipes import methods, small_generation, unfitted

HISTORY = ["item 3", "item 77", "item 410"]
REFUSED = {"ensemble": "Members", "epic": "Backbone"}
LATE = [f"item {number}" for number in range(200, 220)]  # come after the fit, in the midst of the ids


@pytest.fixture(scope="module")
def early(toy):
    """The storefront before some items came."""
    events = toy.event_table().filter(~pl.col("item_id").is_in(LATE))
    return InteractionDataset.from_tables(events, toy.item_table.filter(~pl.col("item_id").is_in(LATE)))


@pytest.fixture(scope="module", params=[*(name for name in methods() if name not in REFUSED), "generative-best"])
def recommender(request, early):
    if request.param == "generative-best":  # two item scorers are fitted before it
        return DiffGRMRecommender(small_generation("embedding.scorers=2")).fit(early, progress=False)
    return unfitted(request.param).fit(early, progress=False)


def epochs(recommender, count):
    """Overrides that say how many, where there is training."""
    return [f"training.epochs={count}"] * ("training" in recommender.recipe.sections)


def test_the_same_events_and_no_epoch_give_the_same_lists(recommender, early):
    more = recommender.fit_more(early, overrides=epochs(recommender, 0), progress=False)
    assert type(more) is type(recommender) and more is not recommender and more.recipe == recommender.recipe
    assert more.recommend([HISTORY], k=20).equals(recommender.recommend([HISTORY], k=20))
    assert more.facts["training_fingerprint"] != recommender.facts["training_fingerprint"]


def test_new_items_are_recommended_known_ones_stay_and_the_old_model_is_as_it_was(recommender, toy, tmp_path):
    before, facts = recommender.recommend([HISTORY], k=20), dict(recommender.facts)
    weights = [weight.clone() for weight in weights_of(recommender)]
    more = recommender.fit_more(toy, overrides=epochs(recommender, 1), progress=False)
    assert recommender.recommend([HISTORY], k=20).equals(before) and recommender.facts == facts
    assert all((old == now).all() for old, now in zip(weights, weights_of(recommender), strict=True))

    known = len(recommender.items)
    assert more.items.series[:known].equals(recommender.items.series) and more.items.series[known:].to_list() == LATE
    assert more.recommend([HISTORY], k=20, only=LATE)["item_id"].sort().to_list() == LATE
    assert more.recommend([[LATE[3], "item 5"]], k=3).height == 3  # and may stand in histories
    assert more.recommend(users=["user 1"], k=3).height == 3
    if getattr(recommender, "semantic_ids", None) is not None:
        assert (more.semantic_ids.codes[:known] == recommender.semantic_ids.codes).all()
        assert len(np.unique(more.semantic_ids.codes, axis=0)) == len(more.items)
    assert more.facts["went_on"]["new_items"] == len(LATE) and more.facts["items"] == toy.n_items
    assert more.facts["went_on"]["fingerprint"] == facts["training_fingerprint"]

    loaded = diffgrm.load(recommender.save(tmp_path / "before"))  # goes on the same
    there = loaded.fit_more(toy, overrides=epochs(loaded, 1), progress=False)
    again = diffgrm.load(there.save(tmp_path / "model"))
    assert again.recommend([HISTORY], k=20).equals(more.recommend([HISTORY], k=20))
    assert again.facts["training_fingerprint"] == more.facts["training_fingerprint"]
    assert "It went on learning (1 times in all)" in (tmp_path / "model" / "README.md").read_text()


def weights_of(recommender):
    return list(recommender.network.state_dict().values()) if hasattr(recommender, "network") else []


@pytest.mark.parametrize("name", REFUSED)
def test_others_say_that_they_cannot(name, early):
    recommender = unfitted(name).fit(early, progress=False)
    with pytest.raises(
        DiffGRMError, match=f"{name!r} cannot go on learning, since its {REFUSED[name]} cannot; fit it anew"
    ):
        recommender.fit_more(early, progress=False)


def test_an_unfitted_one_is_refused(early):
    with pytest.raises(DiffGRMError, match="is not fitted"):
        unfitted("popularity").fit_more(early)


def test_another_catalogue_is_refused(early, toy):
    names = [f"other {number}" for number in range(toy.n_items)]
    renamed = toy.item_table.with_columns(item_id=pl.Series(names))
    events = toy.event_table().with_columns(
        item_id=pl.col("item_id").replace(dict(zip(toy.items.series, names, strict=True)))
    )
    with pytest.raises(DataError, match="none of the 480 items of the dataset is among the 460 of the model: 'other 0'"):
        unfitted("popularity").fit(early).fit_more(InteractionDataset.from_tables(events, renamed))
