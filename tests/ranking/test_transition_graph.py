"""Rings of the transition graph, against a search through it by hand."""

from __future__ import annotations

import numpy as np
import pytest

from diffgrm import Recipe
from diffgrm.data import mapped
from diffgrm.data.dataset import Ragged
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import ModelFolderError, RecipeError
from diffgrm.foundation.storage import State
from diffgrm.ranking.transition_graph import TransitionGraph

TRAIN = Ragged.from_lists([[0, 1, 2], [0, 1], [], [0, 3, 3, 4], [5]])


def unit(rows):
    vectors = np.array(rows, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def order(scores):
    return np.argsort(-scores, kind="stable").tolist()


@pytest.mark.parametrize("at_once", [1, 2**20])
def test_edges_are_steps_of_one_user_and_repeats_are_none(at_once, monkeypatch):
    monkeypatch.setattr(mapped, "BLOCK", at_once)
    found = TransitionGraph().fit(TRAIN, 6).toarray()
    wanted = np.zeros((6, 6))
    wanted[0, 1], wanted[1, 2], wanted[0, 3], wanted[3, 4] = 2, 1, 1, 1
    assert (found == wanted).all()


def test_rings_come_in_turn_and_each_in_order_of_text_and_frequency():
    """Of item 0: ring 1 is 1 (taken twice) and 3, ring 2 is 2 and 4; 5 is in none."""
    vectors = unit([[1, 0], [1, 2], [1, 3], [2, 1], [3, 1], [1, 0.1]])
    graph = TransitionGraph(last_rings=(1, 1), previous_rings=(), edge_weight=0)
    counts = graph.fit(TRAIN, 6)
    scores = graph.scores(Ragged.from_lists([[5, 0]]), counts, vectors)[0]
    assert order(scores)[:4] == [3, 4, 1, 2]  # the nearest text of each ring, then the next ones
    assert np.allclose(scores[[3, 4, 1, 2]], [1, 1 / 2, 1 / 3, 1 / 4])
    assert scores[5] == pytest.approx(vectors[0] @ vectors[5] - 2) and scores[5] < 0
    often = TransitionGraph(last_rings=(1, 1), previous_rings=(), edge_weight=2.0)
    # 3: .894 + 2 log(2) / log(3) = 2.156; 1: .447 + 2 = 2.447
    assert order(often.scores(Ragged.from_lists([[0]]), counts, vectors)[0])[:4] == [1, 4, 3, 2]


def test_the_item_before_the_last_has_places_of_its_own():
    vectors = unit(np.eye(6) + 0.1)
    graph = TransitionGraph(last_rings=(1,), previous_rings=(2,), edge_weight=1.0)
    counts = graph.fit(TRAIN, 6)
    alone, both = graph.scores(Ragged.from_lists([[1], [0, 1]]), counts, vectors)
    assert alone[2] == 1 and (np.delete(alone, 2) < 0).all()
    # places 0: ring of 1 (item 2); 1 and 2: ring of 0 (item 1, taken twice, then 3)
    assert np.allclose(both[[2, 1, 3]], [1, 1 / 2, 1 / 3])


@pytest.mark.parametrize("seed", range(3))
def test_lists_are_those_of_a_search_through_the_graph(seed):
    generator = np.random.default_rng(seed)
    n_items, budgets = 30, ((3, 2, 1), (2, 1))
    train = Ragged.from_lists([generator.integers(0, n_items, size) for size in generator.integers(0, 5, 25)])
    vectors = unit(generator.normal(size=(n_items, 4)))
    graph = TransitionGraph(*budgets, edge_weight=0.3)
    counts = graph.fit(train, n_items)
    histories = [generator.integers(0, n_items, size) for size in generator.integers(1, 4, 12)]
    found = graph.scores(Ragged.from_lists(histories), counts, vectors)
    dense = counts.toarray()
    for history, scores in zip(histories, found, strict=True):
        rounds = []
        for back, rings in enumerate(budgets[: len(history)]):
            source = int(history[-1 - back])
            seen, edge = {source}, [source]
            for number, budget in enumerate(rings):
                edge = sorted({int(j) for i in edge for j in np.flatnonzero(dense[i])} - seen)
                seen |= set(edge)
                often = np.log1p(dense[source]) / max(np.log1p(dense[source]).max(), 1e-9) * (0.3 if number == 0 else 0)
                ranked = sorted(edge, key=lambda j: (-(vectors[source] @ vectors[j] + often[j]), j))
                rounds.append((number, back, budget, ranked))
        wanted = []
        while any(ranked for *_, ranked in rounds):
            for _, _, budget, ranked in sorted(rounds, key=lambda ring: ring[:2]):
                wanted += ranked[:budget]
                del ranked[:budget]
        wanted = list(dict.fromkeys(wanted))
        assert order(scores)[: len(wanted)] == wanted
        assert (np.delete(scores, wanted) < 0).all() and (scores[wanted] > 0).all()


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(RecipeError, match="model.last_rings"):
        Recipe(recommender="transition_graph", model={"last_rings": []})
    with pytest.raises(RecipeError, match="model.last_rings"):
        Recipe(recommender="transition_graph", model={"last_rings": [0, 1]})
    recipe = Recipe(recommender="transition_graph", model="text_knn")
    with pytest.raises(RecipeError, match="'text_knn' has no fit; leave model.name out"):
        resolve("recommender", "transition_graph")(recipe).new_parts()


def test_a_damaged_graph_is_refused_and_new_items_are_found_by_text(toy, tmp_path):
    recipe = Recipe(recommender="transition_graph", embedding={"width": 16})
    model = resolve("recommender", "transition_graph")(recipe).fit(toy, progress=False)
    row = model.item_table.head(1).with_columns(item_id=model.item_table["item_id"].head(1) + " again")
    grown = model.add_items(row)
    new = row["item_id"][0]
    assert grown.recommend([toy.items.ids([0])], k=5, only=[new])["item_id"].to_list() == [new]
    assert grown.recommend([[new]], k=1)["score"][0] < 0
    folder = grown.save(tmp_path / "model")
    path = folder / "transitions.safetensors"
    state = State.load(path)
    State({**state.arrays, "data": state.arrays["data"] * 0}).save(path)
    with pytest.raises(ModelFolderError):
        type(model).load(folder)
