"""What every recommender must do, over every registered name."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import polars as pl
import pytest
import torch

import diffgrm
from diffgrm import Recipe, evaluate, leave_one_out
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import DataError, DiffGRMError, ModelFolderError, RecipeError
from diffgrm.recommenders.parts import LearntPart
from helpers.recipes import methods, small_recipe, unfitted

HISTORY = ["item 3", "item 77", "item 410"]


@pytest.fixture(scope="module", params=methods())
def recommender(request, toy):
    return unfitted(request.param).fit(toy, progress=False)


def test_the_answer_is_a_table_of_real_distinct_unseen_items(recommender, toy):
    table = recommender.recommend({"a": HISTORY, "b": HISTORY[:1]}, k=7)
    assert table.schema == {"user_id": pl.String, "item_id": pl.String, "score": pl.Float32, "rank": pl.Int32}
    assert table["user_id"].to_list() == ["a"] * 7 + ["b"] * 7
    assert table["rank"].to_list() == [*range(1, 8), *range(1, 8)]
    for user, seen in (("a", HISTORY), ("b", HISTORY[:1])):
        items = table.filter(pl.col("user_id") == user)["item_id"]
        assert items.n_unique() == 7 and set(items) <= set(toy.items.series) and not set(items) & set(seen)
    assert table.group_by("user_id").agg(pl.col("score").is_sorted(descending=True))["score"].all()


def test_every_form_of_history_gives_the_same_answer(recommender):
    wanted = recommender.recommend([HISTORY], k=5).select("item_id", "rank")
    table = pl.DataFrame({"user_id": ["x"] * 3, "item_id": HISTORY, "timestamp": [1, 2, 3]})
    for form in (HISTORY, {"x": HISTORY}, table, table.to_pandas(), table.sample(fraction=1, shuffle=True, seed=2)):
        assert recommender.recommend(form, k=5).select("item_id", "rank").equals(wanted)


def test_users_of_the_fitted_dataset_are_known_by_name(recommender, toy):
    user = toy.users.ids([4])[0]
    history = toy.items.ids(toy.events[4])
    assert recommender.recommend(users=[user], k=4).equals(recommender.recommend({user: history}, k=4))
    with pytest.raises(DataError, match="unknown users: nobody; pass their histories="):
        recommender.recommend(users=["nobody"])


def test_one_history_or_many_give_the_same_answer(recommender, toy):
    histories = {u: toy.items.ids(toy.events[i]) for i, u in enumerate(toy.users.series[:20])}
    together = recommender.recommend(histories, k=5)
    for user, history in list(histories.items())[:5]:
        alone = recommender.recommend({user: history}, k=5)
        assert alone["item_id"].to_list() == together.filter(pl.col("user_id") == user)["item_id"].to_list()


def test_filters_hold(recommender):
    chosen = [f"item {i}" for i in range(50, 60)]
    only = recommender.recommend([HISTORY], k=10, only=chosen)
    assert sorted(only["item_id"]) == sorted(chosen)
    fewer = recommender.recommend([HISTORY], k=10, only=[*chosen, "item 3"], without=chosen[:4])
    assert sorted(fewer["item_id"]) == sorted(chosen[4:])
    without = recommender.recommend([HISTORY], k=5, without=recommender.recommend([HISTORY], k=5)["item_id"].to_list())
    assert not set(without["item_id"]) & set(recommender.recommend([HISTORY], k=5)["item_id"])


def test_seen_items_come_back_when_asked_for(recommender, toy):
    everything = recommender.recommend([HISTORY], k=toy.n_items, exclude_seen=False)
    assert everything.height == toy.n_items
    assert recommender.recommend([HISTORY], k=toy.n_items).height == toy.n_items - len(HISTORY)


def test_filters_that_leave_nothing_are_refused(recommender):
    with pytest.raises(DataError, match="the filters leave no item to recommend"):
        recommender.recommend([HISTORY], only=["item 1"], without=["item 1"])
    with pytest.raises(DataError, match="the filters leave no item to recommend"):
        recommender.recommend([HISTORY], only=["no such item"])
    assert recommender.recommend([HISTORY], only=["item 3"]).height == 0  # allowed, but seen


@pytest.mark.parametrize(
    ("k", "text"),
    [
        (0, "k is 0; expected a whole number from 1"),
        (-2, "k is -2"),
        (2.5, "k is 2.5"),
        (True, "k is True"),
        (481, "k is 481, but the catalogue has only 480 items"),
    ],
)
def test_k_out_of_range_is_refused(recommender, k, text):
    with pytest.raises(DataError, match=text):
        recommender.recommend([HISTORY], k=k)


def test_histories_without_a_known_item_are_refused_or_skipped(recommender):
    histories = {"empty": [], "unknown": ["nothing", "like it"], "fine": ["nothing", *HISTORY]}
    with pytest.raises(DataError) as error:
        recommender.recommend(histories)
    assert "2 of 3 histories hold no known item (1 are empty, 1 have only unknown items): users empty, unknown" in str(
        error.value
    )
    table = recommender.recommend(histories, on_empty="skip")
    assert table["user_id"].unique().to_list() == ["fine"]
    assert table["item_id"].to_list() == recommender.recommend([HISTORY])["item_id"].to_list()
    of_nobody = pl.DataFrame({"user_id": ["u"], "item_id": ["nothing"]})
    for nobody, somebody in (([[]], [HISTORY]), ({"u": ["nothing"]}, histories), (of_nobody, histories)):
        with pytest.raises(DataError, match="1 of 1 histories hold no known item"):
            recommender.recommend(nobody)
        none, some = (recommender.recommend(asked, k=2, on_empty="skip") for asked in (nobody, somebody))
        assert none.height == 0 and none.schema == some.schema


def test_strange_mappings_and_choices_are_refused(recommender):
    with pytest.raises(DataError, match="expected a list of item ids for every user, found something else for: u"):
        recommender.recommend({"u": None})
    with pytest.raises(DataError, match="user ids must be all text or all whole numbers"):
        recommender.recommend({"u": HISTORY, 3: HISTORY})
    with pytest.raises(DataError, match="on_empty is 'ignore'; expected 'error' or 'skip'"):
        recommender.recommend([HISTORY], on_empty="ignore")


def test_a_recipe_for_another_method_is_refused(recommender):
    other = "random" if recommender.recipe.recommender == "popularity" else "popularity"
    with pytest.raises(RecipeError, match=f"the recipe is for the recommender '{other}', not for"):
        type(recommender)(Recipe(recommender=other))


def test_after_a_failed_fit_it_is_not_fitted(recommender, toy, monkeypatch):
    class Unlucky(LearntPart):
        def fit(self, task):
            raise RuntimeError("no luck")

    fresh = type(recommender)(small_recipe(recommender.recipe.recommender))
    monkeypatch.setattr(type(recommender), "new_parts", lambda self: {"unlucky": Unlucky()})
    with pytest.raises(RuntimeError, match="no luck"):
        fresh.fit(toy)
    with pytest.raises(DiffGRMError, match="is not fitted"):
        fresh.recommend([HISTORY])


@pytest.mark.parametrize("histories", [None, [], {}])
def test_no_history_at_all_is_refused(recommender, histories):
    with pytest.raises(DataError, match="give either histories or users|no histories were given"):
        recommender.recommend(histories)


def test_mixed_and_foreign_forms_are_refused(recommender):
    with pytest.raises(DataError, match="mix single items and lists"):
        recommender.recommend(["item 1", ["item 2"]])
    with pytest.raises(DataError, match="cannot read histories from int"):
        recommender.recommend(7)


def test_a_history_longer_than_the_model_looks_at_uses_its_end_and_filters_all(recommender, toy):
    long = [f"item {i}" for i in range(300)]
    table = recommender.recommend([long], k=20)
    assert table.height == 20 and not set(table["item_id"]) & set(long)


def test_a_saved_recommender_gives_the_same_answers(recommender, tmp_path):
    folder = recommender.save(tmp_path / "model")
    for again in (diffgrm.load(folder), type(recommender).load(folder), type(recommender).from_pretrained(folder)):
        assert type(again) is type(recommender)
        assert again.recommend([HISTORY], k=9).equals(recommender.recommend([HISTORY], k=9))
    with pytest.raises(DataError, match="does not keep the users' histories: pass histories="):
        diffgrm.load(folder).recommend(users=["user 1"])
    card = (folder / "README.md").read_text()
    assert "library_name: diffgrm" in card and "diffgrm.load" in card and "480 items" in card


def test_a_model_of_another_kind_is_not_taken_for_this_one(recommender, toy, tmp_path):
    other = "random" if recommender.recipe.recommender == "popularity" else "popularity"
    folder = resolve("recommender", other)().fit(toy).save(tmp_path / "other")
    with pytest.raises(ModelFolderError, match=f"not a {type(recommender).__name__}; use diffgrm.load"):
        type(recommender).load(folder)


def test_an_unfitted_recommender_says_so(recommender):
    fresh = type(recommender)()
    with pytest.raises(DiffGRMError, match=r"is not fitted: call fit\(dataset\) or load\(folder\) first"):
        fresh.recommend([HISTORY])
    for use in (lambda: fresh.save("nowhere"), lambda: fresh.to("cpu"), fresh.compile):
        with pytest.raises(DiffGRMError, match="is not fitted"):
            use()


def test_an_override_that_fails_changes_nothing(recommender):
    before = dict(vars(recommender))
    with pytest.raises(RecipeError):
        recommender.override(["evaluation.ks=[3]", "evaluation.nothing=1"])
    assert vars(recommender) == before
    assert recommender.variant(["evaluation.ks=[3]"]).recipe.evaluation.ks == (3,) and vars(recommender) == before


def test_it_can_be_evaluated(recommender, toy):
    split = leave_one_out(toy)
    metrics = evaluate(recommender, split.test, toy.items, split.item_counts).metrics
    assert metrics["validity"] == metrics["distinctness"] == 1
    assert 0 <= metrics["ndcg@10"] <= metrics["recall@10"] <= 1


def test_half_the_precision_in_use_leaves_the_saved_model_as_it_was(recommender, tmp_path):
    folder = recommender.save(tmp_path / "model")
    histories = [[f"item {i}", f"item {3 * i + 1}"] for i in range(30)]
    exact = recommender.recommend(histories, k=10)
    coarse_recommender = diffgrm.load(folder).to("cpu", "bf16")
    coarse = coarse_recommender.recommend(histories, k=10)
    assert coarse.join(exact, on=["user_id", "item_id"]).height > 0.9 * exact.height
    again = diffgrm.load(coarse_recommender.save(tmp_path / "again"))
    assert again.recommend(histories, k=10).equals(exact)
    assert coarse_recommender.to("cpu").recommend(histories, k=10).equals(exact)


def test_an_unknown_precision_is_refused(recommender, tmp_path):
    fresh = diffgrm.load(recommender.save(tmp_path / "model"))
    with pytest.raises(DiffGRMError, match="precision is '16'; expected '32' or 'bf16'"):
        fresh.to("cpu", "16")


@pytest.mark.parametrize("name", ["sasrec", "diffgrm"])
def test_a_variant_answers_on_after_its_network_was_moved(name, toy):
    """As if from another device: what a variant has made of the network is made anew where that is now."""
    whole = unfitted(name).fit(toy, progress=False)
    variant = whole.variant([])
    wanted = variant.recommend([HISTORY], k=5)
    kept = variant.ranker()
    elsewhere = SimpleNamespace(device=torch.device("meta"))
    moved = {"items": SimpleNamespace(features=elsewhere)} if name == "sasrec" else {"catalogue": elsewhere}
    variant._ranker = replace(kept, **moved)
    assert variant.recommend([HISTORY], k=5).equals(wanted)
    assert variant.ranker() is not kept
