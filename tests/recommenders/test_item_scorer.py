"""The item vectors of a trained item scorer as an embedding, by what they are said to be."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from diffgrm import DiffGRMRecommender, InteractionDataset, Recipe, leave_one_out, load
from diffgrm.foundation import registry
from diffgrm.foundation.schema import DataError, ModelFolderError, RecipeError
from diffgrm.foundation.storage import State
from diffgrm.recommenders.item_scorer import FILE, ItemScorerVectors
from diffgrm.recommenders.scorer_teacher import table_of
from diffgrm.semantic_ids.embeddings.base import EventContext
from helpers.commands import called, save_tables
from helpers.folders import rehash
from helpers.recipes import SMALL_SCORER, small_generation, small_recipe

TEXTS = ["a red pot", "a blue pan", "item 3 and item 4 of their kind"]
NEW = pl.DataFrame({"item_id": ["new 0", "new 1", "new 2"], "text": TEXTS})


def scorer_recipe(*changes):
    return Recipe.preset("item-scorer", [*SMALL_SCORER, *changes])


@pytest.fixture(scope="module")
def split(toy):
    return leave_one_out(toy)


@pytest.fixture(scope="module")
def scorer(toy):
    """What an encoder fits first, fitted by itself."""
    return registry.resolve("recommender", "sasrec")(scorer_recipe()).fit(toy, progress=False)


@pytest.fixture(scope="module")
def model(scorer, tmp_path_factory):
    return scorer.save(tmp_path_factory.mktemp("scorer") / "model")


@pytest.fixture(scope="module")
def encoder(model, split):
    """Tests must not change it."""
    return ItemScorerVectors(str(model)).fit_events(EventContext(split))


@pytest.fixture(scope="module")
def recommender(toy):
    """Tests must not change it."""
    return DiffGRMRecommender(small_generation()).fit(toy, progress=False)


def user_vectors(scorer, split):
    """The vector before every training event but a user's first, one user after the other."""
    found, ranker = [], scorer.ranker()
    for user in range(len(split.train)):
        history = torch.from_numpy(split.train[user][:-1].copy())
        if len(history):
            valid, network = torch.ones(1, len(history), dtype=torch.bool), ranker.network
            memory = network.encode_history(ranker.items.vectors[history], torch.arange(len(history))[None], valid)
            found.append(memory.hidden[0].detach().numpy())
    return np.concatenate(found).astype(np.float64)


# ---- what the vectors are ---------------------------------------------------------------------------------------------


def test_a_squared_distance_is_what_it_changes_in_the_scores_of_users(encoder, scorer, split, toy):
    """The mean over users' vectors u of (u v_a - u v_b)^2."""
    vectors, own = encoder.encode(toy.item_table), scorer.ranker().items.vectors.numpy()
    met = np.flatnonzero(split.item_counts)
    scores = user_vectors(scorer, split) @ own[met].T.astype(np.float64)  # [U, I]
    assert len(scores) == (split.train.lengths - 1).clip(0).sum()
    for a, b in np.random.default_rng(0).integers(0, len(met), (50, 2)):
        wanted = ((scores[:, a] - scores[:, b]) ** 2).mean()
        assert ((vectors[met[a]] - vectors[met[b]]) ** 2).sum() == pytest.approx(wanted, rel=1e-3, abs=1e-6)


def test_in_the_measure_of_vectors_they_are_the_scorers_own(model, scorer, split, toy):
    plain = ItemScorerVectors(str(model), measure="vectors").fit_events(EventContext(split))
    met = split.item_counts > 0
    np.testing.assert_array_equal(plain.encode(toy.item_table)[met], scorer.ranker().items.vectors.numpy()[met])


@pytest.mark.parametrize("measure", ["scores", "vectors"])
def test_the_way_back_leads_to_the_vectors_that_users_are_multiplied_with(measure, model, scorer, split, toy):
    encoder = ItemScorerVectors(str(model), measure=measure).fit_events(EventContext(split))
    met, own = split.item_counts > 0, scorer.ranker().items.vectors.numpy()
    back = encoder.item_space(encoder.encode(toy.item_table))
    np.testing.assert_allclose(back[met], own[met], atol=2e-3 * np.abs(own).max())


def test_items_without_events_borrow_from_those_of_nearest_text(encoder, scorer, split, toy):
    """What their text gives, and the ID embeddings of the nearest items, as the scorer's own lists do not have."""
    plain, vectors = scorer.ranker().items.vectors.numpy(), encoder.item_space(encoder.encode(toy.item_table))
    lonely = np.flatnonzero(split.item_counts == 0)
    table = table_of(scorer)
    wanted = table.vectors.numpy()[lonely]
    np.testing.assert_allclose(vectors[lonely], wanted, atol=2e-3 * np.abs(plain).max())
    assert len(lonely) and (np.abs(wanted - plain[lonely]).max(1) > 1e-4).all()
    weights = table.neighbours.weights[lonely].toarray()
    assert (weights[:, split.item_counts == 0] == 0).all() and np.allclose(weights.sum(1), 1, atol=1e-5)


def test_its_table_is_made_where_its_network_is(scorer):
    """On the device on which it has taught, say; this one has no numbers."""
    elsewhere = copy.copy(scorer)
    elsewhere.parts = copy.deepcopy(scorer.parts)
    elsewhere.network.to("meta")
    assert table_of(elsewhere).features.device.type == "meta" and table_of(scorer).features.device.type == "cpu"


def test_new_items_have_the_vectors_that_the_scorers_add_items_gives(encoder, scorer):
    grown = table_of(scorer.add_items(NEW)).comparable.numpy()[-3:]
    np.testing.assert_allclose(encoder.encode(NEW), grown @ encoder._into, atol=1e-5)


@pytest.mark.parametrize("branches", ["[text, id]", "[sid, text, id]"])
def test_a_row_depends_on_no_other_and_on_no_order(branches, toy, split, tmp_path):
    """New rows, changed rows with and without events, and rows as they were; free semantic IDs go to who comes first."""
    sids = ["tokenizer.n_digits=3", "tokenizer.codebook_size=16"] if "sid" in branches else []
    made = registry.resolve("recommender", "sasrec")(scorer_recipe(f"model.branches={branches}", *sids))
    folder = made.fit(toy, progress=False).save(tmp_path / "model")
    encoder = ItemScorerVectors(str(folder)).fit_events(EventContext(split))
    met, lonely = np.flatnonzero(split.item_counts), np.flatnonzero(split.item_counts == 0)
    before = toy.item_table[[met[0], met[1], lonely[0], lonely[1], met[2]]].select("item_id", "text")
    changed = before[:4].with_columns(text=pl.Series([*TEXTS, "a red pot"]))
    rows = pl.concat([NEW, NEW[:1].with_columns(item_id=pl.lit("twin")), changed, before[4:]])
    together = encoder.encode(rows)
    for order in (np.arange(len(rows))[::-1], np.random.default_rng(0).permutation(len(rows))):
        np.testing.assert_allclose(encoder.encode(rows[order]), together[order], atol=1e-5)
    for row in range(len(rows)):
        np.testing.assert_allclose(encoder.encode(rows[row : row + 1])[0], together[row], atol=1e-5)
    old = encoder.encode(before)
    assert (np.abs(old[:4] - together[4:8]).max(1) > 1e-4).all()
    np.testing.assert_array_equal(old[4], together[8])


def test_a_change_of_any_column_that_the_scorer_reads_counts(toy, split, tmp_path):
    """Of the item at hand and of the cache."""
    kinds = toy.item_table.with_columns(kind=pl.Series([f"kind{place % 7}" for place in range(toy.n_items)]))
    dataset = InteractionDataset.from_tables(toy.event_table(), kinds)
    recipe = scorer_recipe("embedding.columns=[kind]")
    folder = registry.resolve("recommender", "sasrec")(recipe).fit(dataset, progress=False).save(tmp_path / "model")
    encoder = ItemScorerVectors(str(folder)).fit_events(EventContext(leave_one_out(dataset)))
    other = dataset.item_table.with_columns(kind=pl.lit("kind3"))
    before, after = encoder.encode(dataset.item_table[:2]), encoder.encode(other[:2])
    assert (np.abs(before - after).max(1) > 1e-4).all()
    assert encoder.documents(dataset.item_table) != encoder.documents(other)


# ---- fitted first, or read --------------------------------------------------------------------------------------------


def test_one_that_is_fitted_first_is_the_shipped_recipe_with_changes_on_the_same_split_and_seed(toy, scorer, split):
    context = EventContext(split, {"split": "leave_one_out"}, seed=0)
    encoder = ItemScorerVectors(changes=SMALL_SCORER).fit_events(context)
    wanted = ItemScorerVectors(measure="scores")
    assert encoder.scorer.recipe == scorer.recipe and wanted.recipe == "item-scorer"
    same = [encoder.scorer.network.state_dict(), scorer.network.state_dict()]
    assert all(torch.equal(same[0][key], same[1][key]) for key in same[1])
    other = ItemScorerVectors(changes=SMALL_SCORER).fit_events(replace(context, seed=5))
    assert other.scorer.recipe.seed == 5
    production = EventContext(split, {"split": "validation_only"})
    assert ItemScorerVectors(changes=SMALL_SCORER)._recipe(production).data.split == "validation_only"


def test_a_hybrid_will_do_too(toy, split, tmp_path):
    hybrid = registry.resolve("recommender", "hybrid")(small_recipe("hybrid").override(["training.epochs=1"]))
    folder = hybrid.fit(toy, progress=False).save(tmp_path / "hybrid")
    vectors = ItemScorerVectors(str(folder), measure="vectors").fit_events(EventContext(split)).encode(toy.item_table)
    met = split.item_counts > 0
    np.testing.assert_array_equal(vectors[met], hybrid.ranker().items.vectors.numpy()[met])


@pytest.mark.parametrize("name", ["popularity", "text_knn", "item_knn", "diffgrm"])
def test_recommenders_without_vectors_of_items_are_refused(name, toy, split, tmp_path):
    recipe = small_recipe(name)
    if name == "diffgrm":
        recipe = recipe.override(["training.epochs=1"])
    folder = registry.resolve("recommender", name)(recipe).fit(toy, progress=False).save(tmp_path / "model")
    with pytest.raises(DataError, match=f"the recommender '{name}' has no vectors of items .*use sasrec, or hybrid"):
        ItemScorerVectors(str(folder)).fit_events(EventContext(split))


def test_what_is_no_model_and_models_of_other_data_are_refused(model, toy, split, tmp_path):
    with pytest.raises(DataError, match=r"embedding.model: .*nowhere"):
        ItemScorerVectors(str(tmp_path / "nowhere")).fit_events(EventContext(split))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"embedding.model: .*empty"):
        ItemScorerVectors(str(tmp_path / "empty")).fit_events(EventContext(split))
    events = toy.event_table()
    other = InteractionDataset.from_tables(events.filter(pl.col("user_id") != events["user_id"][0]), toy.item_table)
    with pytest.raises(DataError, match=r"was not fitted on the training events of this split, so it may have learnt"):
        ItemScorerVectors(str(model)).fit_events(EventContext(leave_one_out(other)))
    more = InteractionDataset.from_tables(events, pl.concat([toy.item_table, NEW], how="diagonal"))
    with pytest.raises(
        DataError, match=r"knows nothing of 3 items of this dataset: new 0, new 1, new 2; fit it on the same"
    ):
        ItemScorerVectors(str(model)).fit_events(EventContext(leave_one_out(more)))


def test_a_folder_that_does_not_say_what_it_was_fitted_on_is_refused(scorer, split, tmp_path):
    old = registry.resolve("recommender", "sasrec")(scorer.recipe)
    facts = {key: value for key, value in scorer.facts.items() if key != "training_fingerprint"}
    old.take(scorer.parts, scorer.catalogue, facts)
    with pytest.raises(DataError, match="was not fitted on the training events of this split"):
        ItemScorerVectors(str(old.save(tmp_path / "old"))).fit_events(EventContext(split))


def test_wrong_settings_are_refused_before_anything_is_fitted(model, toy, monkeypatch):
    with pytest.raises(RecipeError, match=r"embedding.changes are of a recipe that is fitted first, but embedding.model"):
        ItemScorerVectors(str(model), changes=("seed=1",))
    monkeypatch.setattr(registry.resolve("recommender", "sasrec"), "fit", lambda *_, **__: pytest.fail("it fits"))
    for changes, message in (
        ("embedding.recipe=best-of-all", "best-of-all"),
        ("embedding.changes=[model.widht=8]", "widht.*did you mean 'width'"),
        ("embedding.changes=[model]", "an override is written section.key=value, found 'model'"),
        ("embedding.changes=seed", "expected a list"),
    ):
        with pytest.raises(RecipeError, match=f"(?s){message}"):
            DiffGRMRecommender(small_recipe("diffgrm").override(["embedding.name=item_scorer", changes])).fit(
                toy, progress=False
            )


def test_a_scorer_without_texts_knows_no_new_items(toy, split, tmp_path):
    without = [change for change in SMALL_SCORER if not change.startswith("embedding")]
    recipe = Recipe.preset("item-scorer", [*without, "embedding=null", "model.branches=[id]"])
    made = registry.resolve("recommender", "sasrec")(recipe).fit(toy, progress=False).save(tmp_path / "model")
    encoder = ItemScorerVectors(str(made)).fit_events(EventContext(split))
    assert len(encoder.encode(toy.item_table.with_columns(text=pl.lit("other")))) == toy.n_items
    with pytest.raises(DataError, match="knows items by their events only, and there are none of new 0, new 1, new 2; use"):
        encoder.encode(pl.concat([toy.item_table, NEW], how="diagonal"))


def test_before_it_is_fitted_it_has_no_scorer():
    with pytest.raises(DataError, match="there is none yet: call fit first"):
        ItemScorerVectors().encode(NEW)


# ---- in a recommender: saved, loaded, changed -------------------------------------------------------------------------


def test_a_loaded_recommender_gives_the_same_and_unpacks_the_scorer_when_it_needs_it(
    recommender, toy, tmp_path, monkeypatch
):
    asked = [["item 0", "item 15"], ["item 3"]]
    folder = recommender.save(tmp_path / "model")
    unpacked, unpack = [], ItemScorerVectors._unpacked
    monkeypatch.setattr(ItemScorerVectors, "_unpacked", lambda self, files: unpacked.append(1) or unpack(self, files))
    again = load(folder)
    assert again.recommend(asked).equals(recommender.recommend(asked))
    copy = load(again.save(tmp_path / "copy"))
    assert not unpacked and copy.recipe == again.recipe
    mine, other = (State.load(tmp_path / name / "encoder.safetensors").arrays for name in ("model", "copy"))
    assert mine.keys() == other.keys() and all(np.array_equal(mine[name], other[name]) for name in mine)
    wanted = recommender.encoder.encode(toy.item_table)
    for each in (again, copy):
        assert np.array_equal(each.encoder.encode(toy.item_table), wanted) and len(unpacked) == 1
        assert np.array_equal(each.encoder.encode(NEW), recommender.encoder.encode(NEW)) and len(unpacked) == 1
        unpacked.clear()
    assert again.similar_items("item 3").equals(recommender.similar_items("item 3"))
    assert load(again.save(tmp_path / "third")).recommend(asked).equals(recommender.recommend(asked))


def test_a_model_folder_need_not_be_there_any_more(model, toy, tmp_path):
    folder = shutil.copytree(model, tmp_path / "scorer")
    recipe = small_generation("embedding.changes=[]", f"embedding.model={folder}")
    made = DiffGRMRecommender(recipe).fit(toy, progress=False)
    shutil.rmtree(folder)
    again = load(made.save(tmp_path / "model"))
    assert again.recipe.embedding.options["model"] is None and str(folder) not in again.recipe.to_yaml()
    assert np.array_equal(again.encoder.encode(NEW), made.encoder.encode(NEW))
    assert again.add_items(NEW).recommend([["new 0", "item 3"]]).height == 10


def test_items_come_change_and_go(recommender):
    grown = recommender.add_items(NEW)
    vectors = grown.encoder.encode(NEW)
    np.testing.assert_array_equal(vectors, recommender.encoder.encode(NEW))
    found, freely = grown.semantic_ids.codes[-3:], grown.tokenizer.encode(vectors)
    assert (found == freely).mean() > 0.5  # free semantic IDs near to what their vectors say
    moved = grown.update_items(NEW[:1].with_columns(text=pl.lit(TEXTS[1])), "move")
    assert moved.items.positions(["new 0"])[0] == grown.items.positions(["new 0"])[0]
    assert moved.semantic_ids.codes[-3].tolist() != grown.semantic_ids.codes[-3].tolist()
    assert "new 1" in set(grown.similar_items("new 0", k=len(grown.items) - 1)["item_id"])
    fewer = grown.remove_items(["new 0"])
    everything = fewer.recommend([["item 3"]], k=len(fewer.items) - 2)["item_id"]
    assert "new 0" not in set(everything) and "new 1" in set(everything)


# ---- folders of strangers ---------------------------------------------------------------------------------------------


def tampered(recommender, folder, change):
    """A saved recommender whose scorer's files were changed, whole by its hashes."""
    recommender.save(folder)
    path = folder / "encoder.safetensors"
    state = State.load(path)
    change(state.arrays)
    state.save(path)
    rehash(folder)
    return folder


def bytes_of(text):
    return np.frombuffer(text.encode(), dtype=np.uint8)


NESTED = {
    "another byte": lambda a: a.update({f"{FILE}model.safetensors": a[f"{FILE}model.safetensors"] ^ 1}),
    "a file less": lambda a: a.pop(f"{FILE}model.safetensors"),
    "no manifest": lambda a: a.pop(f"{FILE}manifest.json"),
    "another recipe": lambda a: a.update({f"{FILE}recipe.yaml": bytes_of("recommender: os:system")}),
}
OUTSIDE = {
    "no file": lambda a: [a.pop(name) for name in list(a) if name.startswith(FILE)],
    "a file elsewhere": lambda a: a.update({f"{FILE}../escaped": bytes_of("x")}),
    "the folder above": lambda a: a.update({f"{FILE}..": bytes_of("x")}),
    "a file without a name": lambda a: a.update({FILE: bytes_of("x")}),
    "a matrix less": lambda a: a.pop("into"),
    "no square": lambda a: a.update({"back": a["back"][:3]}),
    "another array": lambda a: a.update({"more": a["back"]}),
}


@pytest.mark.parametrize("change", NESTED.values(), ids=NESTED)
def test_a_nested_folder_that_was_changed_is_refused_when_it_is_needed(change, recommender, tmp_path):
    again = load(tampered(recommender, tmp_path / "model", change))
    with pytest.raises(ModelFolderError):
        again.add_items(NEW)
    assert again.recommend([["item 3"]]).height == 10


def test_matrices_of_another_scorer_are_refused(recommender, tmp_path):
    def other(arrays):
        arrays.update(into=np.eye(3, dtype=np.float32), back=np.eye(3, dtype=np.float32))

    again = load(tampered(recommender, tmp_path / "model", other))
    with pytest.raises(ModelFolderError, match="vectors of width 16, the matrices 3"):
        again.add_items(NEW)


@pytest.mark.parametrize("change", OUTSIDE.values(), ids=OUTSIDE)
def test_what_cannot_be_a_scorer_is_refused_on_loading(change, recommender, tmp_path):
    with pytest.raises(ModelFolderError, match="an item scorer's|a recommender inside of another's cannot have the files"):
        load(tampered(recommender, tmp_path / "model", change))
    assert not (tmp_path / "escaped").exists()


# ---- commands ---------------------------------------------------------------------------------------------------------


def test_the_command_line_tells_the_same(model, toy, tmp_path, monkeypatch, capsys):
    recipe = small_generation("embedding.changes=[]")
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    fit = ["fit", "--recipe", tmp_path / "recipe.yaml", *save_tables(toy, tmp_path), "--out", tmp_path / "made", "--quiet"]
    for settings, message in (
        ([f"embedding.model={tmp_path / 'nowhere'}"], "embedding.model: "),
        ([f"embedding.model={model}", "data.split=validation_only"], "was not fitted on the training events of this split"),
        ([f"embedding.model={model}", "embedding.changes=[seed=1]"], "embedding.changes are of a recipe"),
        (["embedding.recipe=best-of-all"], "best-of-all"),
    ):
        code, _, err = called(monkeypatch, capsys, *fit, *settings)
        assert code == 2 and message in err and not (tmp_path / "made").exists()
    code, _, err = called(monkeypatch, capsys, *fit, f"embedding.model={model}")
    assert code == 0, err
    assert load(tmp_path / "made").recommend([["item 3"]]).height == 10
