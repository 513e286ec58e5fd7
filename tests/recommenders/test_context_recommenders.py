"""Models that are told of times, events' columns and users': what they learn by it, and asked in every way."""

from __future__ import annotations

import datetime

import numpy as np
import polars as pl
import pytest
import torch

from diffgrm import InteractionDataset, Recipe, SASRecRecommender, evaluate, leave_one_out, load
from diffgrm.data.histories import HistoryEvent
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.run_folder import holds_checkpoint
from diffgrm.foundation.schema import DataError, ModelFolderError, RecipeError, TrainingError
from diffgrm.recommenders.by_blocks import recommend_blocks
from diffgrm.recommenders.trained_network import _check_moments
from helpers.networks import SMALL, build
from helpers.recipes import TINY
from helpers.worlds import EVERYTHING, HALF, ITEMS, NETWORK, SWITCHES, TRAINING, fitted, history_of, world


def found_in_half(recommender, dataset) -> float:
    """The share of test targets among the four best: all of them by who knows which half it is, half of them by chance."""
    split = leave_one_out(dataset)
    found = evaluate(recommender, split.test, dataset.items, split.item_counts, ks=(HALF,))
    return found.metrics[f"recall@{HALF}_unfiltered"]


@pytest.mark.parametrize("by", SWITCHES)
def test_what_decides_alone_is_learnt_with_the_switch_and_not_without(by):
    told, dataset = fitted(SWITCHES[by], by)
    assert found_in_half(told, dataset) > 0.9
    plain, dataset = fitted({}, by)
    assert found_in_half(plain, dataset) < 0.7


def test_times_in_too_small_a_unit_are_refused_where_the_model_learnt_from_later_ones(tmp_path):
    table, _ = world("hour")
    seconds = table.with_columns(pl.col("timestamp") + 50 * 365 * 86_400)
    told = {"time_inputs": ["recency", "hour"], "time_unit": "ms"}
    recipe = Recipe(recommender="sasrec", events=told, model=NETWORK, training=TRAINING | {"epochs": 1})

    def read(times):
        return InteractionDataset.from_tables(seconds.with_columns(timestamp=times), ITEMS, events=recipe.events)

    milliseconds = read(pl.col("timestamp") * 1000)
    model = SASRecRecommender(recipe).fit(milliseconds, progress=False)
    message = (
        r"all times would be of 1970, and the model learnt from events of 2019-12-2\d and later: it reads numbers in ms"
    )
    for again in (model, load(model.save(tmp_path / "model"))):
        with pytest.raises(DataError, match=message):
            again.recommend(seconds, k=3)
        with pytest.raises(DataError, match=message):
            again.fit_more(read(pl.col("timestamp")), progress=False)
        dates = seconds.with_columns(pl.from_epoch("timestamp"))
        assert again.recommend(dates, k=3).equals(again.recommend(milliseconds.event_table(), k=3))
        assert again.recommend([[HistoryEvent("i3", time=0)]], k=3).height == 3


# ---- nothing at first, and nothing without ------------------------------------------------------------------------------

SHORT = TRAINING | {"epochs": 1}
ONE_EPOCH = TINY["training"] | {"epochs": 1}
ASKED = ["u3", "u9"]


def weights(recommender):
    return recommender.network.state_dict()


def test_a_model_without_switches_is_the_same_to_the_bit_whatever_the_times_are():
    table, _ = world("hour")
    plain = [fitted({}, training=SHORT)[0]]
    recipe = plain[0].recipe
    shifted = table.with_columns(pl.col("timestamp") * 3 + 5, device=pl.lit("phone"))  # in the same order
    plain.append(
        resolve("recommender", "sasrec")(recipe).fit(InteractionDataset.from_tables(shifted, ITEMS), progress=False)
    )
    for name, weight in weights(plain[0]).items():
        assert torch.equal(weight, weights(plain[1])[name]) and "context" not in name
    assert plain[0].recommend(users=ASKED, k=8).equals(plain[1].recommend(users=ASKED, k=8))
    assert plain[0].facts["training_fingerprint"] == plain[1].facts["training_fingerprint"]


@pytest.mark.parametrize("name", ["sasrec", "diffgrm"])
def test_tables_that_are_still_zero_change_no_score(name):
    sections = {} if name == "sasrec" else {**TINY, "training": ONE_EPOCH, "embedding": {"name": "lsa", "min_items": 1}}
    sections.pop("recommender", None)
    if name == "diffgrm":
        sections["tokenizer"] = TINY["tokenizer"] | {"codebook_size": 4}
    told, dataset = fitted(EVERYTHING, name=name, **sections)
    with torch.no_grad():
        table = told.network.context
        assert table.abs().max() > 0  # it has learnt something
        table.zero_()
    told._forget()
    without = told.recipe.model_copy(update={"events": Recipe().events})
    rows = dataset.events.rows(np.arange(9))
    plain = resolve("recommender", name)(without)
    plain.take({key: part for key, part in told.parts.items() if key != "users"}, told.catalogue, told.facts)
    bare = [dataset.items.gather(rows[row]).to_list() for row in range(len(rows))]
    users = dataset.users.ids(np.arange(9))
    mine = told.recommend(users=users, k=8, at={users[0]: "2030-01-01"}).drop("user_id")
    assert mine.equals(plain.recommend(bare, k=8).drop("user_id"))


# ---- asked in every way -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def told():
    """A model that is told everything, and its dataset."""
    return fitted(EVERYTHING)


def lists(answer):
    return answer.drop("user_id").rows()


def test_tables_lists_users_blocks_and_saved_models_say_the_same(told, tmp_path):
    recommender, dataset = told
    table, listed = history_of(dataset, "u3")
    at = datetime.datetime(2001, 2, 3, 21, tzinfo=datetime.UTC)
    plan = dict(zip(*world("hour")[1], strict=True))["u3"]
    wanted = lists(recommender.recommend(users=["u3"], k=8, at=at))
    again = load(recommender.save(tmp_path / "model"))
    example = (tmp_path / "model" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    exec(example.replace("THIS_FOLDER", str(tmp_path / "model")).replace("k=10", "k=8"), {})  # as the card says
    for one in (recommender, again):
        assert lists(one.recommend(table, k=8, at=at)) == wanted  # what is known of u3 is kept with the model
        assert lists(one.recommend({"u3": listed}, k=8, at={"u3": "2001-02-03T21:00:00"})) == wanted
        assert lists(one.recommend(listed, k=8, at=at.timestamp(), profiles={0: {"plan": plan}})) == wanted
    other = "paid" if plan == "free" else "free"
    for change in ({"at": datetime.datetime(2001, 2, 3, 9)}, {"at": None}, {"at": at, "profiles": {"u3": {"plan": other}}}):
        assert lists(recommender.recommend(users=["u3"], k=8, **({"at": at} | change))) != wanted
    everybody = dataset.event_table()
    whole = again.recommend(everybody, k=3, at="2005-01-01").sort("user_id", "rank")
    blocks = pl.concat(recommend_blocks(again, everybody, 3, at="2005-01-01", users_at_once=40)).sort("user_id", "rank")
    assert blocks["item_id"].equals(whole["item_id"])


def test_evaluation_by_tables_is_that_of_validation_in_training(told):
    recommender, dataset = told
    split = leave_one_out(dataset)
    found = evaluate(recommender, split.validation, dataset.items, split.item_counts)
    assert found.metrics["ndcg@10"] == pytest.approx(recommender.facts["validation"]["val_ndcg@10"], abs=1e-6)


def test_what_a_request_lacks_or_says_for_nothing_is_told(told):
    recommender, dataset = told
    table, _ = history_of(dataset, "u3")
    with pytest.raises(DataError, match="2 of 2 events of the histories have none: i1, i2"):
        recommender.recommend(["i1", "i2"], k=2)
    with pytest.raises(DataError, match="events.event_columns names the column 'device'"):
        recommender.recommend(table.drop("device"), k=2)
    with pytest.raises(DataError, match="but the interaction table has no column 'timestamp'"):
        recommender.recommend(table.drop("timestamp"), k=2)
    plain, _ = fitted({}, training=SHORT)
    with pytest.raises(DataError, match="at= says when recommendations are asked for, of which the model is told nothing"):
        plain.recommend(["i1"], k=2, at="now")
    with pytest.raises(DataError, match="profiles were given, but the model is told of no columns of users"):
        plain.recommend(["i1"], k=2, profiles={0: {"plan": "free"}})


def test_resuming_goes_on_with_the_same_weights_and_not_with_other_times(tmp_path):
    whole, dataset = fitted(EVERYTHING, training=TRAINING | {"epochs": 2})
    recipe = whole.recipe

    class Killed(Exception):
        pass

    def kill(epoch, score):
        if holds_checkpoint(tmp_path / "run"):
            raise Killed

    run = {"run_folder": tmp_path / "run", "progress": False}
    with pytest.raises(Killed):
        resolve("recommender", "sasrec")(recipe).fit(dataset, watch=kill, **run)
    table, people = world("hour")
    later = table.with_columns(pl.col("timestamp") * 2)
    other = InteractionDataset.from_tables(later, ITEMS, events=recipe.events, profiles=people)
    with pytest.raises(TrainingError, match="other data|another"):
        resolve("recommender", "sasrec")(recipe).fit(other, resume=True, **run)
    resumed = resolve("recommender", "sasrec")(recipe).fit(dataset, resume=True, **run)
    for name, weight in weights(whole).items():
        assert torch.equal(weight, weights(resumed)[name])


def test_going_on_keeps_what_was_told_and_knows_new_users(told):
    recommender, _ = told
    table, people = world("hour", seed=1)
    table = table.with_columns(user_id=pl.lit("new ") + pl.col("user_id"))
    people = people.with_columns(user_id=pl.lit("new ") + pl.col("user_id"))
    later = InteractionDataset.from_tables(table, ITEMS, events=recommender.recipe.events, profiles=people)
    more = recommender.fit_more(later, overrides=["training.epochs=1"], progress=False)
    assert more.network.context.shape == recommender.network.context.shape
    known = more.profiles
    assert len(known.users) == 2 * len(recommender.profiles.users)
    assert known.of(pl.Series(["u3"])).tolist() == recommender.profiles.of(pl.Series(["u3"])).tolist()
    both = people.row(0)[1], known.of(pl.Series([people.row(0)[0]])).tolist()
    assert both in (("free", [[1]]), ("paid", [[2]]))


# ---- refused ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["popularity", "random", "item_knn", "transition_graph"])
def test_methods_that_know_of_no_times_refuse_them(name):
    with pytest.raises(RecipeError, match=f"{name}' knows of no times .* so that events.time_inputs would do nothing"):
        fitted({"time_inputs": ["gap"]}, name=name)


def test_networks_that_cannot_be_told_are_refused_before_anything_is_learnt():
    recipe = Recipe.preset("maskgr", ["events.time_inputs=[gap]"])
    dataset = InteractionDataset.from_tables(world("hour")[0], ITEMS, events=recipe.events)
    with pytest.raises(RecipeError, match="cannot be told of times or of columns of events or users; leave out"):
        resolve("recommender", recipe.recommender)(recipe).fit(dataset, progress=False)


def test_a_teacher_that_would_read_moments_otherwise_is_refused():
    causal, looking_ahead = build("sasrec", **SMALL), build("diffgrm", **SMALL)
    _check_moments(causal, [build("sasrec", **SMALL)])
    with pytest.raises(
        RecipeError, match="objective.teacher_weight: of the network and its item scorer only one is causal"
    ):
        _check_moments(looking_ahead, [causal])


def test_a_strangers_profiles_are_checked(told, tmp_path):
    folder = told[0].save(tmp_path / "model")
    path = folder / "users.parquet"
    table = pl.read_parquet(path)
    for bad, message in (
        (table.with_columns(pl.lit(9, pl.Int16).alias("0")), "numbers of values that the recipe lacks"),
        (pl.concat([table, table]), "users twice"),
        (table.rename({"0": "1"}), "has the columns"),
        (table.with_columns(pl.col("0").cast(pl.Int64)), "has the columns"),
        (table.head(1).select(pl.all().repeat_by(3_000_000).explode()), "it says that it has 3,000,000 rows"),
    ):
        bad.write_parquet(path)
        with pytest.raises(ModelFolderError, match=message):
            told[0].parts["users"].__class__().load(folder, told[0].recipe, None)
        with pytest.raises(ModelFolderError):
            load(folder)
