"""Models of events with types and weights: from the table to lists, through evaluation and a model folder."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from diffgrm import InteractionDataset, Recipe, evaluate, leave_one_out, load, toy_world
from diffgrm.apps.cli.shared import events_of
from diffgrm.data.histories import HistoryEvent
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import DataError, RecipeError
from helpers.commands import caller
from helpers.recipes import SMALL_MEMBERS, TINY

TOY = toy_world(users=60, seed=2).dataset
EVENTS = (
    TOY.event_table()
    .with_row_index("n", 1)
    .with_columns(pl.when(pl.col("n") % 3 == 0).then(pl.lit("view")).otherwise(pl.lit("buy")).alias("action"))
)
TYPES = {"event": "action", "targets": ["buy"], "context": ["view"]}
SASREC = {key: value for key, value in SMALL_MEMBERS[0].items() if key != "recommender"}
ONE_EPOCH = {"training": TINY["training"] | {"epochs": 1}}


def fitted(name, events=TYPES, table=EVENTS, **sections):
    recipe = Recipe(recommender=name, events=events, **sections)
    dataset = InteractionDataset.from_tables(table, TOY.item_table, events=recipe.events)
    return resolve("recommender", name)(recipe).fit(dataset, progress=False), dataset


def bought_then_viewed(bought, viewed):
    return pl.DataFrame({"user_id": ["u", "u"], "item_id": [bought, viewed], "action": ["buy", "view"]})


@pytest.mark.parametrize(
    ("name", "sections"), [("popularity", {}), ("item_knn", {}), ("sasrec", SASREC), ("diffgrm", TINY | ONE_EPOCH)]
)
def test_models_of_typed_events_are_evaluated_saved_and_asked(name, sections, tmp_path):
    sections = {key: value for key, value in sections.items() if key != "recommender"}
    recommender, dataset = fitted(name, TYPES | {"weight": "n"}, **sections)
    split = leave_one_out(dataset)
    table = EVENTS.filter(pl.col("user_id") == "user 3")
    answer = recommender.recommend(table, k=5)
    found = evaluate(recommender, split.test, dataset.items, split.item_counts)
    again = load(recommender.save(tmp_path / "model"))
    assert again.recipe.events == recommender.recipe.events
    assert again.recommend(table, k=5).equals(answer)
    assert evaluate(again, split.test, dataset.items, split.item_counts).metrics == found.metrics
    assert recommender.recommend(users=["user 3"], k=5)["item_id"].to_list() == answer["item_id"].to_list()
    assert "kept as events (buy" in (tmp_path / "model" / "README.md").read_text()
    with pytest.raises(DataError, match="events.event names the column 'action'"):
        again.recommend(table.drop("action"), k=5)


def test_the_type_of_an_event_changes_what_a_network_says():
    recommender, _ = fitted("sasrec", **SASREC)
    one, other = bought_then_viewed("item 0", "item 1"), bought_then_viewed("item 0", "item 1")
    other = other.with_columns(action=pl.Series(["view", "buy"]))
    assert recommender.recommend(one, k=3)["score"].to_list() != recommender.recommend(other, k=3)["score"].to_list()
    listed = recommender.recommend([["item 0", "item 1"]], k=3)  # of events whose type nobody tells: bought
    both = recommender.recommend(one.with_columns(action=pl.lit("buy")), k=3)
    assert listed["score"].to_list() == both["score"].to_list()


@pytest.mark.parametrize(("name", "sections"), [("popularity", {}), ("sasrec", SASREC), ("diffgrm", TINY | ONE_EPOCH)])
def test_seen_is_what_the_settings_say(name, sections):
    sections = {key: value for key, value in sections.items() if key != "recommender"}
    everything, n_items = {"k": TOY.n_items}, TOY.n_items
    table = bought_then_viewed("item 0", "item 1")
    by_all, _ = fitted(name, **sections)
    listed = set(by_all.recommend(table, **everything)["item_id"])
    assert not {"item 0", "item 1"} & listed and len(listed) == n_items - 2
    bought, _ = fitted(name, TYPES | {"seen": ["buy"]}, **sections)
    listed = set(bought.recommend(table, **everything)["item_id"])
    assert "item 0" not in listed and "item 1" in listed and len(listed) == n_items - 1


def test_popularity_adds_up_the_weights_of_targets():
    recommender, dataset = fitted("popularity", TYPES | {"weight": "n"})
    train = leave_one_out(dataset).train
    sums = np.zeros(dataset.n_items)
    np.add.at(sums, train.values, np.where(train.marks.types == 0, train.marks.weights, 0))
    order = recommender.recommend([["item 0"]], k=TOY.n_items, exclude_seen=False)
    found = sums[dataset.items.positions(order["item_id"])]
    assert (np.diff(found) <= 1e-3).all() and found[0] == sums.max()


@pytest.mark.parametrize(("name", "sections"), [("popularity", {}), ("item_knn", {}), ("sasrec", SASREC)])
def test_weights_that_are_all_alike_change_no_bit(name, sections):
    table = EVENTS.with_columns(n=pl.lit(2.5))
    weighted, _ = fitted(name, {"weight": "n"}, table, **sections)
    plain, _ = fitted(name, {}, table, **sections)
    ask = {"users": ["user 3", "user 9"], "k": 20}
    assert weighted.recommend(**ask).equals(plain.recommend(**ask))


def test_a_dataset_that_was_read_otherwise_is_refused():
    recipe = Recipe(recommender="popularity", events=TYPES)
    with pytest.raises(DataError, match=r"events.event is action in the recipe, the dataset was read with None.*\n.*\n"):
        resolve("recommender", "popularity")(recipe).fit(TOY)


def test_networks_that_cannot_be_told_of_types_are_refused_before_anything_is_learnt():
    recipe = Recipe.preset("maskgr", ["events.event=action", "events.targets=[buy]"])
    dataset = InteractionDataset.from_tables(EVENTS, TOY.item_table, events=recipe.events)
    with pytest.raises(RecipeError, match="cannot be told of what type an event is; set events.type_input=false"):
        resolve("recommender", recipe.recommender)(recipe).fit(dataset, progress=False)


def test_the_command_line_says_what_it_has_read(monkeypatch, capsys, tmp_path):
    EVENTS.write_csv(tmp_path / "events.csv")
    TOY.item_table.write_parquet(tmp_path / "items.parquet")
    run, tables = (
        caller(monkeypatch, capsys),
        ["--interactions", tmp_path / "events.csv", "--items", tmp_path / "items.parquet"],
    )
    chosen = ["recommender=popularity", "events.event=action", "events.targets=[buy]"]
    code, out, err = run("fit", *tables, "--out", tmp_path / "model", "--quiet", *chosen)
    rows, viewed = EVENTS.height, EVENTS["action"].to_list().count("view")
    said = f"{rows} rows read, {rows - viewed} kept as events (buy {rows - viewed}); dropped: {viewed} of type view"
    assert code == 0 and said in out, err
    for command in (
        ["evaluate", tmp_path / "model", *tables],
        ["recommend", tmp_path / "model", *tables[:2], "--user", "user 3"],
    ):
        code, out, err = run(*command, "--quiet")
        assert code == 0 and said in out, err
    code, _, err = run("fit", "--dataset", "toy", "--out", tmp_path / "no", *chosen)
    assert code == 2 and "events.event names the column 'action'" in err
    code, out, err = run(
        "fit", "--dataset", "toy", "--out", tmp_path / "m", "recommender=popularity", "events.repeats=last"
    )
    assert code == 0 and "toy: 5,530 rows read, " in out, err


def test_users_that_a_server_knows_have_the_types_of_their_events(tmp_path):
    live = pytest.importorskip("diffgrm.apps.serving.live")
    table = pl.DataFrame(
        {
            "user_id": [1, 2, 1, 1],
            "item_id": ["a", "b", "nowhere", "c"],
            "timestamp": [3, 1, 2, 1],
            "action": ["buy", "buy", "view", "scroll"],
        }
    )
    table.write_csv(tmp_path / "events.csv")
    users = live.UserHistories(events_of(tmp_path / "events.csv", None, None, EventSettings(**TYPES)))
    assert users.of([1], 9, EventSettings()) == [["nowhere", "a"]]  # a newer model may know no types
    assert users.of([1, 2, 3], 9, EventSettings(**TYPES)) == [
        [HistoryEvent("nowhere", "view"), HistoryEvent("a", "buy")],
        [HistoryEvent("b", "buy")],
        None,
    ]
    users = live.UserHistories(events_of(tmp_path / "events.csv", None, None, EventSettings()))
    assert users.of([1], 2, EventSettings()) == [["nowhere", "a"]]
