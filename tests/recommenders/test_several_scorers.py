"""Several item scorers to learn from: whose opinion it is, what is kept of them, and where nothing would learn of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffgrm import DiffGRMRecommender, Recipe, leave_one_out, load
from diffgrm.foundation import registry
from diffgrm.foundation.schema import RecipeError
from diffgrm.foundation.storage import State
from diffgrm.learning.batches import TrainingBatches
from diffgrm.recommenders import item_scorer
from diffgrm.recommenders.base import Recommender
from diffgrm.recommenders.item_scorer import SEEDS_APART, ItemScorerVectors
from diffgrm.recommenders.scorer_teacher import Scorer, made_table
from diffgrm.semantic_ids.embeddings.base import EventContext, embed_items
from helpers.recipes import SMALL_SCORER, small_generation, unfitted
from helpers.runs import same_weights


@pytest.fixture(scope="module")
def split(toy):
    return leave_one_out(toy)


@pytest.fixture(scope="module")
def several(split):
    """Tests must not change it."""
    return ItemScorerVectors(changes=SMALL_SCORER, scorers=3).fit_events(EventContext(split, seed=4))


@pytest.fixture(scope="module")
def apart(split):
    """The same three, each fitted by itself."""
    recipes = [Recipe.preset("item-scorer", [*SMALL_SCORER, f"seed={4 + SEEDS_APART * number}"]) for number in range(3)]
    return [registry.resolve("recommender", "sasrec")(recipe).fit(split, progress=False) for recipe in recipes]


def opinion(teacher, split):
    """[N, I] scores of all items for every training target, by rows of training batches."""
    found, items = [], torch.arange(split.dataset.n_items)
    for batch in TrainingBatches(split.train, 50, 64, 0, True):
        found.append((teacher.users(batch) @ teacher.items(items).T).numpy())
    return np.concatenate(found)


def opinion_of(encoder, split):
    return opinion(encoder.teacher(split.dataset.items.series), split)


def alone(scorer, split):
    """The same of a scorer that is the only one."""
    encoder = ItemScorerVectors(changes=SMALL_SCORER)
    encoder._scorer = scorer
    return opinion_of(encoder, split)


def test_their_opinion_is_the_mean_of_the_scores_of_scorers_fitted_apart(several, apart, split):
    wanted = np.mean([alone(scorer, split) for scorer in apart], axis=0)
    found = opinion_of(several, split)
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
    assert np.abs(found - alone(apart[0], split)).max() > 0.05 * np.abs(wanted).max()


def test_vectors_are_those_of_the_first(several, split, toy):
    one = ItemScorerVectors(changes=SMALL_SCORER).fit_events(EventContext(split, seed=4))
    np.testing.assert_array_equal(several.encode(toy.item_table), one.encode(toy.item_table))
    assert same_weights(several.scorer, one.scorer)


def test_the_cache_keeps_all_and_a_model_folder_the_first(several, split, toy, tmp_path, monkeypatch):
    context, known = EventContext(split, seed=4), np.ones(toy.n_items, dtype=bool)

    def embedded():
        encoder = ItemScorerVectors(changes=SMALL_SCORER, scorers=3)
        return encoder, embed_items(encoder, toy.item_table, known, tmp_path, context)

    first, vectors = embedded()
    monkeypatch.setattr(ItemScorerVectors, "fit_events", lambda *_: pytest.fail("it fits again"))
    second, same = embedded()
    np.testing.assert_array_equal(same, vectors)
    for encoder in (first, second):
        np.testing.assert_array_equal(opinion_of(encoder, split), opinion_of(several, split))
    assert {*several.state().arrays} == {name for name in several.learnt().arrays if not name[0].isdigit()}
    loaded = ItemScorerVectors(changes=SMALL_SCORER, scorers=3).load_state(several.state())
    np.testing.assert_array_equal(loaded.encode(toy.item_table), several.encode(toy.item_table))
    np.testing.assert_array_equal(opinion_of(loaded, split), alone(several.scorer, split))


def test_a_network_learns_from_all_of_them_and_its_folder_is_no_larger(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFGRM_CACHE", str(tmp_path / "cache"))
    sizes, made, tables = [], [], list[Recommender]()
    monkeypatch.setattr(item_scorer, "made_table", lambda scorer: tables.append(scorer) or made_table(scorer))
    for scorers in (1, 3):
        recipe = small_generation(f"embedding.scorers={scorers}", "objective.teacher_weight=0.9")
        made.append(DiffGRMRecommender(recipe).fit(toy, run_folder=tmp_path / f"run-{scorers}", progress=False))
        folder = made[-1].save(tmp_path / f"model-{scorers}")
        sizes.append({*State.load(folder / "encoder.safetensors").arrays})
    assert same_weights(made[0].encoder.scorer, made[1].encoder.scorer) and not same_weights(*made)
    assert len(tables) == len({*map(id, tables)}) == (1 + 1) + (3 + 1)  # each once, the first as fitted and as cached
    assert sizes[0] == sizes[1]
    assert sorted(path.name for path in (tmp_path / "run-3").glob("item_scorer*")) == [
        "item_scorer",
        "item_scorer-2",
        "item_scorer-3",
    ]
    lists = [kept.recommend([["item 3", "item 7"]], k=5) for kept in (made[1], load(tmp_path / "model-3"))]
    assert lists[0].equals(lists[1])


def test_where_nothing_learns_from_them_they_are_refused(toy, tmp_path):
    for changes in (["objective.teacher_weight=0"], ["objective.name=diffusion", "item_loss=null"]):
        with pytest.raises(RecipeError, match=r"embedding.scorers = 2 fits item scorers for their opinion, from which"):
            DiffGRMRecommender(small_generation("embedding.scorers=2", *changes)).fit(toy, progress=False)
    with pytest.raises(RecipeError, match=r"embedding.scorers are of a recipe that is fitted first, but embedding.model"):
        ItemScorerVectors(str(tmp_path), scorers=2)


def test_who_teaches_on_another_device_stays_where_it_was_too(toy):
    table = made_table(unfitted("sasrec").fit(toy, progress=False))
    place = torch.arange(toy.n_items)
    there = Scorer.on(torch.device("meta"), table, place)
    assert {part.device.type for part in (there.vectors, there.comparable, there.place)} == {"meta"}
    assert {weights.device.type for weights in there.network.parameters()} == {"meta"}
    assert {weights.device.type for weights in table.network.parameters()} == {"cpu"}
    assert Scorer.on(torch.device("cpu"), table, place).network is table.network
