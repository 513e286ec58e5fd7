"""Going on learning where semantic IDs are made of an item scorer: it goes on first, and the network learns from it."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

import diffgrm
from diffgrm import DiffGRMRecommender, InteractionDataset, Recipe
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import DataError, DiffGRMError, ModelFolderError, RecipeError, TrainingError
from diffgrm.foundation.storage import State
from diffgrm.learning.batches import TrainingBatches
from diffgrm.learning.loop import TrainingTask
from diffgrm.networks.history import HistoryNetwork
from diffgrm.recommenders.item_scorer import FILE
from diffgrm.recommenders.parts import LearntPart
from diffgrm.recommenders.scorer_teacher import ScorerTeacher, table_of
from diffgrm.recommenders.texts import TextVectors
from diffgrm.recommenders.trained_network import network_of
from helpers.commands import called, interrupted_update, save_tables
from helpers.folders import rehash
from helpers.recipes import SMALL_SCORER, small_generation
from helpers.runs import same_weights

HISTORY = ["item 3", "item 77", "item 410"]
LATE = [f"item {number}" for number in range(200, 220)]
SHORT = ["training.epochs=3", "training.learning_rate=1e-3"]
WILD = ["training.learning_rate=30", "training.warmup_steps=0", "training.gradient_clip=0"]
NEW = pl.DataFrame({"item_id": ["new 0", "new 1"], "text": ["a red pot", "a blue pan"]})


@pytest.fixture(scope="module")
def early(toy):
    """The storefront before some items came."""
    events = toy.event_table().filter(~pl.col("item_id").is_in(LATE))
    return InteractionDataset.from_tables(events, toy.item_table.filter(~pl.col("item_id").is_in(LATE)))


@pytest.fixture(scope="module")
def late_rows(toy):
    """The rows of the items that come."""
    return toy.item_table.filter(pl.col("item_id").is_in(LATE))


@pytest.fixture(scope="module")
def recommender(early):
    """Taught by two scorers. Tests must not change it."""
    return DiffGRMRecommender(small_generation("embedding.scorers=2")).fit(early, progress=False)


@pytest.fixture(scope="module")
def later(recommender, toy):
    """What comes of it. Tests must not change it."""
    return recommender.fit_more(toy, overrides=SHORT, progress=False)


def scorer_of(recommender):
    return recommender.encoder.scorer


def listed(recommender, k=20):
    return recommender.recommend([HISTORY], k=k)


# ---- what goes on -----------------------------------------------------------------------------------------------------


def test_scorer_and_network_move_and_neither_is_worse_by_validation(recommender, later):
    assert not same_weights_of_known_rows(scorer_of(recommender), scorer_of(later))
    assert not same_weights(recommender, later)
    for told in (later.facts, later.facts["item_scorer"]):
        assert told["validation"]["val_score"] >= told["validation_before"]["val_score"] and told["epochs"] == 3
    assert scorer_of(later).facts["went_on"]["new_items"] == len(LATE)
    assert set(scorer_of(later).items.series) == set(later.items.series)


def same_weights_of_known_rows(before, after):
    old, new = before.network.state_dict(), after.network.state_dict()
    return all(torch.equal(weights, new[name][: len(weights)]) for name, weights in old.items())


def test_it_begins_at_the_networks_own_weights_and_not_at_the_scorer(recommender, early, monkeypatch):
    monkeypatch.setattr(HistoryNetwork, "start_from", lambda *_: pytest.fail("it starts at the scorer"))
    more = recommender.fit_more(early, overrides=["training.epochs=0"], progress=False)
    assert same_weights(more, recommender)


def test_the_teacher_is_the_scorer_that_went_on_alone(recommender, toy, later, monkeypatch):
    taught, begin = [], ScorerTeacher.__init__

    def watched(self, tables, places):
        taught.append((list(tables), list(places)))
        begin(self, tables, places)

    monkeypatch.setattr(ScorerTeacher, "__init__", watched)
    more = recommender.fit_more(toy, overrides=SHORT, progress=False)
    [([table], [place])] = taught
    assert table.network is network_of(scorer_of(more).parts).network
    assert np.array_equal(place, scorer_of(more).items.positions(more.items.series))
    assert same_weights(scorer_of(more), scorer_of(later)) and same_weights(more, later)


def test_what_comes_of_it_does_not_depend_on_whether_the_model_was_saved_in_between(recommender, later, toy, tmp_path):
    loaded = diffgrm.load(recommender.save(tmp_path / "before")).fit_more(toy, overrides=SHORT, progress=False)
    again = diffgrm.load(later.save(tmp_path / "after"))
    for other in (loaded, again):
        assert same_weights(other, later) and same_weights(scorer_of(other), scorer_of(later))
        assert np.array_equal(other.semantic_ids.codes, later.semantic_ids.codes) and listed(other).equals(listed(later))
        assert other.similar_items("item 3").equals(later.similar_items("item 3"))
        assert np.array_equal(other.encoder.encode(NEW), later.encoder.encode(NEW))
    card = (tmp_path / "after" / "README.md").read_text()
    assert "Its item scorer went on before it, for 3 epochs: " in card
    assert "of 2 that the first fit learnt from, it is the one that is left." in card
    twice = [model.fit_more(toy, overrides=["training.epochs=1"], progress=False) for model in (later, again)]
    assert twice[0].facts["went_on"]["times"] == scorer_of(twice[0]).facts["went_on"]["times"] == 2
    assert same_weights(*twice) and same_weights(*map(scorer_of, twice))
    assert np.array_equal(twice[0].semantic_ids.codes, later.semantic_ids.codes)


def test_a_folder_that_gave_the_scorer_stays_and_the_one_in_the_model_goes_on(early, toy, tmp_path):
    scorer = resolve("recommender", "sasrec")(Recipe.preset("item-scorer", SMALL_SCORER)).fit(early, progress=False)
    folder = scorer.save(tmp_path / "scorer")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    recipe = small_generation("embedding.changes=[]", f"embedding.model={folder}")
    model = DiffGRMRecommender(recipe).fit(early, progress=False)
    more = model.fit_more(toy, progress=False)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    assert same_weights(scorer_of(model), scorer) and not same_weights_of_known_rows(scorer, scorer_of(more))
    assert "first fit learnt from" not in (more.save(tmp_path / "model") / "README.md").read_text()


def test_settings_of_the_update_are_those_of_both_trainings_and_the_split_is_one(recommender, early, toy):
    more = recommender.fit_more(toy, overrides=["training.epochs=1", "data.split=validation_only"], progress=False)
    assert more.facts["epochs"] == more.facts["item_scorer"]["epochs"] == 1
    assert more.recipe.data == scorer_of(more).recipe.data and more.recipe.data.split == "validation_only"
    kept = scorer_of(recommender).recipe
    assert scorer_of(more).recipe.training == kept.training and kept.data.split == "leave_one_out"
    wild = recommender.fit_more(early, overrides=["training.epochs=1", *WILD], progress=False)
    assert same_weights(wild, recommender) and same_weights(scorer_of(wild), scorer_of(recommender))


def test_without_epochs_items_and_counts_are_taken_in_and_nothing_is_trained(recommender, toy, late_rows):
    more = recommender.fit_more(toy, overrides=["training.epochs=0"], progress=False)
    assert more.facts["epochs"] == more.facts["item_scorer"]["epochs"] == 0
    assert scorer_of(more).item_counts.tolist() == more.item_counts.tolist() and len(more.items) == toy.n_items
    grown = recommender.add_items(late_rows)
    assert same_weights(more, recommender) and np.array_equal(more.semantic_ids.codes, grown.semantic_ids.codes)
    before = np.append(recommender.item_counts, np.zeros(len(late_rows)))
    began = more.item_table[np.flatnonzero((before == 0) & (more.item_counts > 0))]
    vectors = [model.encoder.encode(began) for model in (more, grown)]
    np.testing.assert_allclose(*vectors, atol=1e-5)  # rows of ID embeddings begin at what was borrowed
    assert len(began) and np.abs(vectors[0]).max() > 0.1


# ---- items ------------------------------------------------------------------------------------------------------------


def test_items_that_come_get_their_semantic_ids_by_the_scorer_that_went_on_and_known_ones_keep_theirs(recommender, later):
    known, before = len(recommender.items), recommender.semantic_ids
    assert np.array_equal(later.semantic_ids.codes[:known], before.codes)
    vectors = later.encoder.encode(later.item_table[known:])
    assert np.array_equal(later.semantic_ids.codes, before.extended(recommender.tokenizer, vectors).codes)
    assert np.abs(vectors - recommender.encoder.encode(later.item_table[known:])).max() > 1e-3
    assert np.array_equal(later.encoder._into, recommender.encoder._into)
    assert np.array_equal(later.encoder._back, recommender.encoder._back)
    assert later.recommend([HISTORY], k=20, only=LATE)["item_id"].sort().to_list() == LATE


def test_scorers_are_asked_by_ids_wherever_they_have_an_item(recommender, toy, late_rows):
    """Items that were added one batch after the other stand in their order here, and in that of their ids there."""
    grown = recommender.add_items(late_rows[10:]).add_items(late_rows[:10])
    more = grown.fit_more(toy, overrides=["training.epochs=0"], progress=False)
    assert not scorer_of(more).items.series.equals(more.items.series)
    teacher, table = more.encoder.teacher(more.items.series), table_of(scorer_of(more))
    asked = more.items.positions([LATE[15], "item 3", LATE[2]])
    wanted = table.comparable[torch.tensor(scorer_of(more).items.positions([LATE[15], "item 3", LATE[2]]))]
    assert torch.equal(teacher.items(torch.tensor(asked)), wanted)
    sorted_there = recommender.fit_more(toy, overrides=["training.epochs=0"], progress=False)
    users = [asked_users(model) for model in (more, sorted_there)]
    assert torch.allclose(*users, atol=1e-5) and users[0].abs().max() > 0.01


def asked_users(model):
    """[N, d] what the teacher makes of the first batch of histories."""
    batch = next(iter(TrainingBatches(model._fitted_split.train, 50, 64, 0, True)))
    return model.encoder.teacher(model.items.series).users(batch)


def test_items_that_have_events_now_are_new_no_more(recommender, later, late_rows):
    came = [item for item, count in zip(later.items.series, later.item_counts, strict=True) if item in LATE and count]
    grown = recommender.add_items(late_rows)
    for model, lifted in ((grown, True), (later, False)):
        plain, high = (
            model.variant([f"decoding.new_items={lift}"]).recommend([HISTORY], k=len(model.items) - len(HISTORY))
            for lift in (0, 100)
        )
        gain = dict(zip(high["item_id"], high["score"], strict=True))
        less = dict(zip(plain["item_id"], plain["score"], strict=True))
        assert came and all(gain[item] - less[item] == pytest.approx(100 * lifted, abs=1e-2) for item in came)


def test_afterwards_it_is_used_as_any_other(later, toy):
    history = {"history": HISTORY, "k": 3}
    rows = later.explain(**history)
    assert rows.unique("item_id", maintain_order=True)["item_id"].to_list() == listed(later, 3)["item_id"].to_list()
    grown = later.add_items(NEW)
    assert set(NEW["item_id"]) <= set(grown.recommend([HISTORY], k=len(grown.items) - len(HISTORY))["item_id"])
    codes = grown.semantic_ids.codes
    assert len(np.unique(codes, axis=0)) == len(codes) == toy.n_items + len(NEW)
    assert LATE[0] in set(later.similar_items("item 3", k=len(later.items) - 1)["item_id"])
    unit = later.encoder.encode(later.item_table)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    wanted = later.similar_items("item 3", k=5)
    cosines = unit[later.items.positions(wanted["item_id"])] @ unit[later.items.positions(["item 3"])[0]]
    np.testing.assert_allclose(wanted["score"], cosines, atol=1e-5)


def test_items_that_the_later_events_lack_stay_known_to_the_scorer_and_the_network(recommender, early, late_rows):
    """Those that were added without events among them, so that it may teach of all that the network knows."""
    events = early.event_table()
    some = events.filter(pl.col("user_id").is_in(events["user_id"].unique().sort()[:30].to_list()))
    rows = early.item_table.filter(pl.col("item_id").is_in(some["item_id"].unique().to_list()))
    grown = recommender.add_items(late_rows)
    more = grown.fit_more(InteractionDataset.from_tables(some, rows), overrides=["training.epochs=1"], progress=False)
    assert rows.height < len(early.items) and more.items.series.equals(grown.items.series)
    assert set(scorer_of(more).items.series) == set(more.items.series) and more.facts["went_on"]["new_items"] == 0
    assert np.array_equal(more.semantic_ids.codes, grown.semantic_ids.codes)
    assert more.recommend([HISTORY], k=20, only=LATE).height == len(LATE)


def test_texts_beside_digits_stay_those_that_the_network_has_learnt(early, toy):
    recipe = small_generation("model.branches=[{name: sid, compose: sum}, text]", "model.start=drawn", "training.epochs=1")
    model = DiffGRMRecommender(recipe).fit(early, progress=False)
    more = model.fit_more(toy, overrides=["training.epochs=1"], progress=False)
    before, after = (part.parts["texts"].vectors for part in (model, more))
    assert np.array_equal(after[: len(before)], before) and len(after) == len(more.items)
    assert np.array_equal(after[len(before) :], more.encoder.encode(more.item_table[len(before) :]))


# ---- failures ---------------------------------------------------------------------------------------------------------


def test_a_failure_leaves_the_old_model_as_it_was(recommender, toy, monkeypatch):
    before = listed(recommender)
    weights = [weight.clone() for weight in weights_of(recommender)]
    for training in (1, 2):  # the scorer's, and the network's
        trained = []

        def failing(self, trained=trained, training=training):
            trained.append(self)
            if len(trained) == training:
                raise MemoryError("full")

        monkeypatch.setattr(TrainingTask, "on_train_epoch_end", failing)
        with pytest.raises(MemoryError):
            recommender.fit_more(toy, overrides=["training.epochs=1"], progress=False)
        assert len(trained) == training
    assert all(map(torch.equal, weights, weights_of(recommender))) and listed(recommender).equals(before)
    assert len(scorer_of(recommender).items) == len(recommender.items)


def weights_of(recommender):
    return [*recommender.network.state_dict().values(), *scorer_of(recommender).network.state_dict().values()]


def test_what_stands_in_the_way_of_the_scorer_is_told_before_anything_is_learnt(recommender, toy, tmp_path, monkeypatch):
    monkeypatch.setattr(TextVectors, "before_items", lambda *_: pytest.fail("it goes on"))
    with pytest.raises(TrainingError, match="training.strategy fsdp shares weights out"):
        recommender.fit_more(toy, overrides=["training.strategy=fsdp"], progress=False)
    with pytest.raises(RecipeError, match=r"takes settings of training and data only, not embedding.scorers=1; fit anew"):
        recommender.fit_more(toy, overrides=["embedding.scorers=1"], progress=False)
    (tmp_path / "run" / "item_scorer").mkdir(parents=True)
    (tmp_path / "run" / "item_scorer" / "last.ckpt").write_bytes(b"")
    with pytest.raises(
        TrainingError, match="already holds a run; an update cannot be resumed; choose another run folder, or delete it"
    ):
        recommender.fit_more(toy, run_folder=tmp_path / "run", progress=False)

    folder = recommender.save(tmp_path / "model")
    state = State.load(folder / "encoder.safetensors")
    state.arrays[f"{FILE}model.safetensors"] = state.arrays[f"{FILE}model.safetensors"] ^ 1
    state.save(folder / "encoder.safetensors")
    rehash(folder)
    with pytest.raises(ModelFolderError):
        diffgrm.load(folder).fit_more(toy, progress=False)

    monkeypatch.setitem(scorer_of(recommender).parts, "more", LearntPart())
    with pytest.raises(DiffGRMError, match="'sasrec' cannot go on learning, since its LearntPart cannot; fit it anew"):
        recommender.fit_more(toy, progress=False)


def test_a_scorer_without_texts_places_items_by_the_events_with_which_they_come(early, toy):
    changes = [change for change in SMALL_SCORER if not change.startswith("embedding")]
    without = f"embedding.changes=[{', '.join(changes)}, embedding=null, 'model.branches=[id]']"
    model = DiffGRMRecommender(small_generation(without, "training.epochs=1")).fit(early, progress=False)
    more = model.fit_more(toy, overrides=["training.epochs=1"], progress=False)
    known, vectors = len(early.items), more.encoder.encode(more.item_table)
    assert np.array_equal(more.semantic_ids.codes, model.semantic_ids.extended(model.tokenizer, vectors[known:]).codes)
    with pytest.raises(DataError, match="knows items by their events only, and there are none of new 0, new 1; use one"):
        more.add_items(NEW)


# ---- by commands ------------------------------------------------------------------------------------------------------


def test_the_command_does_the_same_and_keeps_a_run_folder_of_each(
    recommender, toy, late_rows, tmp_path, monkeypatch, capsys
):
    model, tables = recommender.save(tmp_path / "model"), save_tables(toy, tmp_path)
    late_rows.write_parquet(tmp_path / "new.parquet")
    run = ["--run-folder", tmp_path / "run", "--quiet", "training.epochs=1"]
    items = ["--items", tmp_path / "new.parquet"]
    code, out, err = called(monkeypatch, capsys, "update", model, *tables[:2], *items, "--out", tmp_path / "out", *run)
    assert code == 0 and "480 items, 20 of them new." in " ".join(out.split()), err
    here = recommender.fit_more(toy, overrides=["training.epochs=1"], progress=False)
    there = diffgrm.load(tmp_path / "out")
    assert listed(there).equals(listed(here)) and same_weights(scorer_of(there), scorer_of(here))
    found = sorted(str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").rglob("*.*") if path.is_file())
    own = ["fit.lock", "logs/part_0/metrics.csv"]
    assert found == sorted([*own, *(f"item_scorer/{name}" for name in own)])  # and no checkpoints


def test_an_interrupted_command_leaves_the_model_as_it_was(recommender, early, tmp_path, monkeypatch, capsys):
    interrupted_update(recommender, early, tmp_path, monkeypatch, capsys)
