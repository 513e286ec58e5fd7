"""The loss over whole items beside that of digits, through network, training, ranking, folders and export."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F

from diffgrm import DiffGRMRecommender, Recipe, load, load_onnx
from diffgrm.data.dataset import Ragged
from diffgrm.foundation.recipe import ItemLossSettings
from diffgrm.foundation.schema import RecipeError
from diffgrm.learning.batches import TrainingBatches
from diffgrm.learning.item_losses import draw, item_loss
from diffgrm.learning.noising.confidence import ConfidenceNoising
from diffgrm.learning.objectives.diffusion import DiffusionObjective
from diffgrm.networks.diffgrm import DiffGRM
from diffgrm.networks.inputs import ItemFeatures
from diffgrm.ranking.ranker import Ranker
from diffgrm.runtime_onnx.export import export_onnx
from helpers.networks import objective_parts

N, K, S = 3, 8, 5
GENERATOR = torch.Generator().manual_seed(0)
EVENTS = Ragged.from_lists([[1, 2, 3, 4, 5, 6], [7, 8], [9, 10, 11, 0]])
CODES = torch.randint(0, K, (12, N), generator=GENERATOR)
HISTORIES = {"a": ["item 3", "item 77", "item 410"], "b": ["item 5"], "c": [f"item {i}" for i in range(20)]}


@pytest.fixture(params=["causal", "bidirectional"])
def network(request):
    torch.manual_seed(0)
    return DiffGRM(N, K, width=16, heads=2, max_len=S, history=request.param).eval()


def objective(network, **loss):
    return DiffusionObjective(network, ConfidenceNoising(), *objective_parts(CODES, K, **loss))


def a_batch(network):
    (batch,) = TrainingBatches(EVENTS, S, 64, seed=0, shared=network.causal)
    return batch


def test_the_loss_is_that_of_digits_plus_the_weighted_one_of_items(network):
    batch = a_batch(network)
    both, digits = (objective(network, item_weight=w).loss(batch, GENERATOR).item() for w in (0.5, 0))
    vectors = network.item_vectors(objective(network).items)
    items = []
    for row in (EVENTS[user] for user in range(len(EVENTS))):
        for place in range(1, len(row)):
            history = torch.from_numpy(row[:place])
            memory = network.encode_history(
                vectors[history], torch.arange(place)[None], torch.ones(1, place, dtype=torch.bool)
            )
            items.append(F.cross_entropy(vectors @ memory.hidden[0, -1], torch.tensor(row[place])))
    assert both == pytest.approx(digits + 0.5 * torch.stack(items).mean().item(), rel=1e-5)


def test_digits_can_be_learnt_from_a_share_of_the_histories(network):
    batch = a_batch(network)
    partial = objective(network, share=0.4)
    found = {round(partial.loss(batch, torch.Generator().manual_seed(seed)).item(), 5) for seed in range(20)}
    rows = len(batch.length)
    assert len(found) >= 2
    chosen = torch.randperm(rows, generator=torch.Generator().manual_seed(7))[: max(1, round(0.4 * rows))]
    wanted = objective(network).loss(batch.rows(chosen), GENERATOR).item()
    assert partial.loss(batch, torch.Generator().manual_seed(7)).item() == pytest.approx(wanted, rel=1e-5)
    whole = objective(network, share=0.4, item_weight=1.0).loss(batch, torch.Generator().manual_seed(7)).item()
    items = objective(network, item_weight=1.0).loss(batch, GENERATOR).item() - objective(network).loss(batch, GENERATOR)
    assert whole == pytest.approx(wanted + items.item(), rel=1e-5)


@pytest.mark.parametrize("kind", ["sampled_softmax", "gbce"])
def test_vectors_of_the_items_that_are_asked_for_are_enough(network, kind):
    whole = ItemLossSettings(kind=kind, negatives=6, negative_power=0.5)
    loss, _, *rest = objective_parts(CODES, K, item_weight=1.0)
    batch = a_batch(network)
    found = DiffusionObjective(network, ConfidenceNoising(), loss, whole, *rest).loss(batch, GENERATOR.manual_seed(4))
    vectors = network.item_vectors(ItemFeatures(CODES))
    sample = draw(whole, torch.ones(12), len(batch.target), GENERATOR.manual_seed(4))
    memory = network.encode_history(vectors[batch.histories.items], batch.histories.places, batch.histories.valid)
    users = memory.hidden[batch.slot // batch.length.shape[1], batch.length.flatten()[batch.slot] - 1]
    wanted = item_loss(users, batch.target, vectors, whole, sample, 12) + objective(network).loss(batch, GENERATOR)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)


# ---- as a recommender ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recipe(tiny_recipe):
    raw = tiny_recipe.to_dict()
    raw["model"] |= {"branches": ["sid", "text", "id"], "history": "causal"}
    raw["loss"] |= {"item_weight": 1.0, "share": 0.5}
    raw["decoding"] = {"name": "item_proposals", "candidates": 24, "weight": 0.2, "co_occurrence": 1.5, "new_items": 0.0}
    raw["training"]["validation_decoding"] = {"candidates": 12}
    return Recipe.from_dict(raw)


@pytest.fixture(scope="module")
def whole(recipe, toy):
    return DiffGRMRecommender(recipe).fit(toy, progress=False)


def test_it_comes_back_from_its_folder(whole, tmp_path):
    again = load(whole.save(tmp_path / "model"))
    assert again.recommend(HISTORIES, k=9).equals(whole.recommend(HISTORIES, k=9))
    assert again.network.ids.shape[0] == len(whole.items)
    grown = again.add_items(pl.DataFrame({"item_id": ["new"], "text": [whole.item_table["text"][3]]}))
    twice = load(grown.save(tmp_path / "grown"))
    assert twice.recommend(HISTORIES, k=9).equals(grown.recommend(HISTORIES, k=9))


def test_a_new_item_stands_where_its_text_says(whole):
    """Its vector is that of an item of the same text and digits but for the row of ids."""
    grown = whole.add_items(pl.DataFrame({"item_id": ["new"], "text": [whole.item_table["text"][3]]}))
    vectors, features = grown.ranker().items.vectors, grown.ranker().items.features
    assert features.row[-1] == -1 and torch.equal(features.text[-1], features.text[3])
    network = whole.network
    network.branches = ("text",)
    try:
        text_only = network.item_vectors(features)
    finally:
        network.branches = ("sid", "text", "id")
    assert torch.equal(text_only[-1], text_only[3]) and not torch.equal(vectors[-1], vectors[3])
    found = grown.recommend(HISTORIES, k=3, only=["new", "item 3", "item 9"], exclude_seen=False)
    assert "new" in found["item_id"].to_list()


def test_an_item_whose_text_changes_moves_and_the_old_recommender_stays(whole):
    row = pl.DataFrame({"item_id": ["item 3"], "text": [whole.item_table["text"][200]]})
    before = whole.ranker().items.vectors.clone()
    moved = whole.update_items(row, "move")
    assert torch.equal(moved.ranker().items.features.text[3], whole.ranker().items.features.text[200])
    assert not torch.equal(moved.ranker().items.vectors[3], before[3])
    assert torch.equal(whole.ranker().items.vectors, before)
    assert torch.equal(whole.update_items(row, "keep").ranker().items.vectors, before)


def test_items_without_events_have_no_row_of_ids(recipe, toy):
    fitted = DiffGRMRecommender(recipe.override(["training.epochs=1"])).fit(toy, progress=False)
    row = fitted.ranker().items.features.row
    assert ((row >= 0).numpy() == (fitted.item_counts > 0)).all()


def test_co_occurrence_is_added_to_the_item_scores(whole):
    with_it = whole.variant(["decoding.weight=0"])
    without = with_it.variant(["decoding.co_occurrence=0"])
    history = [HISTORIES["a"]]
    k = len(whole.items) - 3
    ours, theirs = (model.recommend(history, k=k).sort("item_id") for model in (with_it, without))
    positions = whole.items.positions(HISTORIES["a"])
    bonus = 1.5 * whole.ranker().items.neighbours.scores(Ragged.from_lists([positions]))[0]
    bonus = bonus[whole.items.positions(ours["item_id"])]
    difference = ours["score"].to_numpy() - theirs["score"].to_numpy()
    assert difference - difference[bonus == 0][0] == pytest.approx(bonus, abs=1e-4)
    assert (bonus > 0).any()


def test_new_items_can_be_lifted(whole):
    rows = pl.DataFrame({"item_id": ["new 1", "new 2"], "text": whole.item_table["text"][3:5].to_list()})
    grown = whole.add_items(rows).variant(["decoding.weight=0"])
    lifted = grown.variant(["decoding.new_items=3"])
    histories, k = list(HISTORIES.values()), len(grown.items)
    before, after = (model.recommend(histories, k=k, exclude_seen=False) for model in (grown, lifted))
    both = before.join(after, on=["user_id", "item_id"])
    shift = both.with_columns(shift=pl.col("score_right") - pl.col("score"), new=pl.col("item_id").str.starts_with("new"))
    for _, user in shift.group_by("user_id"):
        low = user.filter(~pl.col("new"))["shift"]
        without_events = {grown.items.ids([i])[0] for i in np.flatnonzero(grown.item_counts == 0)}
        usual = user.filter(~pl.col("item_id").is_in(list(without_events)))["shift"]
        assert usual.max() - usual.min() < 1e-3 and low.max() <= usual.max() + 3 + 1e-3
        assert user.filter("new")["shift"].to_list() == pytest.approx([usual[0] + 3] * 2, abs=1e-3)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_export_gives_the_same_lists(whole, weight, tmp_path):
    model = whole.variant([f"decoding.weight={weight}", "decoding.new_items=0.7"])
    onnx = load_onnx(export_onnx(model, tmp_path / "export"), threads=1)
    for settings in ({"k": 5}, {"k": 40}, {"k": 3, "only": ["item 3", "item 9"]}, {"k": 4, "exclude_seen": False}):
        ours, theirs = onnx.recommend(HISTORIES, **settings), model.recommend(HISTORIES, **settings)
        assert ours["item_id"].equals(theirs["item_id"])
        np.testing.assert_allclose(ours["score"], theirs["score"], atol=1e-4)


def test_other_decoders_serve_the_same_weights(whole):
    for name in ("any_order_beam", "catalogue_beam", "one_pass"):
        assert whole.variant([f"decoding.name={name}"]).recommend(HISTORIES, k=5).height == 15


def test_reduced_precision_recommends_too(whole):
    assert whole.variant([]).to("cpu", precision="bf16").recommend(HISTORIES, k=5).height == 15


def test_it_explains_itself(whole):
    table = whole.explain(HISTORIES["a"], k=2)
    assert table["rank"].n_unique() == 2 and table.height == 2 * 3
    assert sorted(table.filter(pl.col("rank") == 1)["step"]) == [1, 2, 3]
    steps = whole.beams(HISTORIES["a"], k=2)
    assert steps["step"].unique().sort().to_list() == [1, 2, 3]


def test_item_scores_that_are_not_learnt_are_not_asked_for(recipe, toy):
    with pytest.raises(RecipeError, match=r"does not learn with loss.item_weight=0; set loss.item_weight=1"):
        DiffGRMRecommender(recipe.override(["loss.item_weight=0"])).fit(toy, progress=False)


def test_nor_afterwards(fitted):
    before = fitted.recipe
    with pytest.raises(RecipeError, match=r"does not learn with loss.item_weight=0"):
        fitted.override(["decoding.name=item_proposals"])
    assert fitted.recipe == before


def test_it_learns_more_than_digits_alone(recipe, toy):
    """The toy world has something to learn: the loss of items falls."""
    fitted = DiffGRMRecommender(recipe.override(["training.epochs=6", "training.patience=20"])).fit(toy, progress=False)
    assert isinstance(fitted.ranker(), Ranker)
    assert fitted.facts["validation"]["val_recall@10"] > 2 * 10 / toy.n_items
