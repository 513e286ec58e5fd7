"""H2Rec: with one side and nothing aligned it is SASRec; what the gate and the two contrasts are, written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from diffgrm import Recipe, SASRecRecommender, load
from diffgrm.data.dataset import Ragged
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import ModelFolderError, RecipeError
from diffgrm.learning.objectives.aligned_next_item import AlignedNextItemObjective, mutual
from diffgrm.learning.objectives.next_item import NextItemObjective
from diffgrm.ranking.query import Query
from helpers.folders import change_recipe
from helpers.networks import ITEMS, SMALL, START, build, close, features, item_ranker, learning_task, one_batch
from helpers.recipes import SMALL_SIDES, small_recipe

EVENTS = Ragged.from_lists([[1, 2, 3, 4, 5, 6], [7, 8], [9, 10, 7, 0], [2, 6, 1]])
FEATURES = features()
ONE_SIDE = [["sid"], [{"name": "id", "start": 1.0}]]


def task(network, kind="softmax"):
    return learning_task(network, items=FEATURES, counts=np.arange(1, ITEMS + 1), kind=kind, negatives=5)


def loss(objective):
    return objective.loss(one_batch(EVENTS, objective.shared), torch.Generator().manual_seed(0), START)


def remember(network, vectors):
    index = torch.tensor([[3, 1, 4], [1, 5, 9]])
    return network.encode_history(vectors, index, torch.ones(2, 3, dtype=torch.bool))


# ---- SASRec ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("branches", ONE_SIDE, ids=str)
@pytest.mark.parametrize("kind", ["softmax", "sampled_softmax", "bce", "gbce"])
def test_one_side_with_nothing_aligned_is_sasrec(branches, kind):
    sasrec, h2rec = (build(name, **SMALL, branches=branches).eval() for name in ("sasrec", "h2rec"))
    h2rec.passes[0].load_state_dict(
        {key: w for key, w in sasrec.state_dict().items() if key in h2rec.passes[0].state_dict()}
    )
    wanted = NextItemObjective(task(sasrec, kind))
    found = AlignedNextItemObjective(task(h2rec, kind), item_alignment=0, user_alignment=0)
    assert found.shared and loss(found).item() == loss(wanted).item()
    lists, scores = (item_ranker(network, FEATURES).rank(Query(EVENTS, 5)) for network in (sasrec, h2rec))
    assert (lists[0] == scores[0]).all() and (lists[1] == scores[1]).all()


def test_its_side_of_semantic_ids_alone_is_the_recipe_sid_sasrec(toy):
    alone = ["model.branches=[sid]", "objective.item_alignment=0", "objective.user_alignment=0"]
    recipes = small_recipe("h2rec").override(alone), Recipe.preset("sid-sasrec", SMALL_SIDES)
    fitted = [resolve("recommender", recipe.recommender)(recipe).fit(toy, progress=False) for recipe in recipes]
    users = toy.users.series.head(40).to_list()
    side, plain = (recommender.recommend(users=users, k=5) for recommender in fitted)
    assert side.equals(plain)


# ---- the sum of scores ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drawn", [False, True], ids=["at the start", "later"])
def test_scores_are_the_gated_sum_of_those_of_both_sides(drawn):
    network = build("h2rec", **SMALL).eval()
    if drawn:
        torch.nn.init.normal_(network.gate.weight)
    vectors = network.item_vectors(FEATURES)
    users, apart = network.user_vectors(remember(network, vectors)), []
    for one, part in zip(network.passes, network.vectors_of_branches(vectors), strict=True):
        assert close(part, one.item_vectors(FEATURES))
        apart.append((one.user_vectors(remember(one, part)), part))
    for user in range(2):
        odds = (network.gate.weight @ torch.cat([states[user] for states, _ in apart])).exp()
        weights = [1.0, 1.0] if not drawn else (2 * odds / odds.sum()).tolist()
        wanted = sum(weight * (states[user] @ part.T) for weight, (states, part) in zip(weights, apart, strict=True))
        assert torch.allclose(users[user] @ vectors.T, wanted, atol=1e-4)


def test_items_without_events_borrow_on_the_side_of_ids_alone():
    network = build("h2rec", **SMALL)
    weights = torch.rand(2, ITEMS)
    sid, ids = network.vectors_of_branches(network.borrowed_vectors(weights))
    assert (sid == 0).all() and close(ids, weights @ network.passes[1].item.id.ids)
    assert build("h2rec", **SMALL, branches=["sid"]).borrowed_vectors(weights) is None


@pytest.mark.parametrize(
    ("branches", "message"), [([], "model.branches is empty"), (["id", "id"], "name each branch once")]
)
def test_branches_are_named_once_and_at_least_one(branches, message):
    with pytest.raises(RecipeError, match=message):
        build("h2rec", **SMALL, branches=branches)


# ---- what is aligned ------------------------------------------------------------------------------------------------


def test_what_is_alike_is_to_be_found_among_all():
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(4, 6, generator=generator) for _ in range(2))
    alike = torch.eye(4, dtype=torch.bool)
    alike[0, 2] = alike[2, 0] = True
    total = 0.0
    for rows, columns in ((one, other), (other, one)):
        for i in range(4):
            odds = [math.exp(F.cosine_similarity(rows[i], columns[j], dim=0).item() / 0.3) for j in range(4)]
            total -= math.log(sum(odds[j] for j in range(4) if alike[i, j]) / sum(odds))
    assert mutual(one, other, alike, 0.3).item() == pytest.approx(total / 8, abs=1e-5)
    assert mutual(one, other, torch.ones(4, 4, dtype=torch.bool), 0.3).item() == pytest.approx(0, abs=1e-6)
    assert mutual(torch.eye(4), torch.eye(4), torch.eye(4, dtype=torch.bool), 0.01).item() == pytest.approx(0, abs=1e-6)


def test_items_pass_for_each_other_that_share_so_many_codes():
    network, items = build("h2rec", **SMALL), torch.arange(ITEMS)
    sid, ids = network.vectors_of_branches(network.item_vectors(FEATURES))
    for shared in (1, 2, 3):
        alike = torch.tensor(
            [
                [sum(a == b for a, b in zip(x, y, strict=True)) >= shared for y in FEATURES.codes.tolist()]
                for x in FEATURES.codes.tolist()
            ]
        )
        found = AlignedNextItemObjective(task(network), shared_codes=shared).items_apart(items)
        assert found.item() == pytest.approx(mutual(sid, ids, alike, 0.1).item(), abs=1e-5)


def test_each_loss_is_added_with_its_weight():
    network = build("h2rec", **SMALL)

    def with_weights(items, users):
        return loss(AlignedNextItemObjective(task(network), item_alignment=items, user_alignment=users)).item()

    objective, batch = AlignedNextItemObjective(task(network)), one_batch(EVENTS, True)
    items = objective.items_apart(batch.target.unique()).item()
    views = objective.views_apart(batch, torch.Generator().manual_seed(0)).item()
    assert items > 0 and views > 0
    assert with_weights(0.5, 0) - with_weights(0, 0) == pytest.approx(0.5 * items, abs=1e-4)
    assert with_weights(0, 0.5) - with_weights(0, 0) == pytest.approx(0.5 * views, abs=1e-4)


def test_views_that_hide_next_to_nothing_are_of_the_history_itself():
    network, batch = build("h2rec", **SMALL), one_batch(EVENTS, True)
    items, index, valid, *_ = batch.histories
    users = network.user_vectors(network.encode_history(network.item_vectors(FEATURES)[items], index, valid))
    objective = AlignedNextItemObjective(task(network), hidden_share=1e-9)
    wanted = mutual(users, users, torch.eye(len(users), dtype=torch.bool), 0.1)
    assert objective.views_apart(batch, torch.Generator().manual_seed(0)).item() == pytest.approx(wanted.item(), abs=1e-5)
    objective.hidden_share = 0.5
    assert objective.views_apart(batch, torch.Generator().manual_seed(0)).item() > wanted.item()


def test_users_are_compared_by_two_views_that_are_drawn_apart():
    """Hidden items have the vector 0, in the one view others than in the other."""
    network, batch = build("h2rec", **SMALL), one_batch(EVENTS, True)
    items, index, valid, *_ = batch.histories
    vectors, generator, views = network.item_vectors(FEATURES)[items], torch.Generator().manual_seed(4), []
    for _ in range(2):
        hidden = torch.rand(index.shape, generator=generator) < 0.5
        shown = vectors[index] * ~hidden[..., None]  # [B, S, b d]
        places = torch.arange(index.numel()).view(index.shape)
        views.append(network.user_vectors(network.encode_history(shown.flatten(0, 1), places, valid)))
    assert not close(*views)
    wanted = mutual(*views, torch.eye(len(index), dtype=torch.bool), 0.3)
    objective = AlignedNextItemObjective(task(network), hidden_share=0.5, alignment_temperature=0.3)
    assert objective.views_apart(batch, torch.Generator().manual_seed(4)).item() == pytest.approx(wanted.item(), abs=1e-5)


# ---- what does nothing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["objective.item_alignment=0", "objective.shared_codes=1"], "shared_codes = 1 does nothing with"),
        (["objective.user_alignment=0", "objective.hidden_share=0.5"], r"hidden_share = 0\.5 does nothing with"),
        (
            ["objective.item_alignment=0", "objective.user_alignment=0", "objective.alignment_temperature=1"],
            r"alignment_temperature = 1\.0 does nothing with",
        ),
        (["model.branches=[sid]"], r"set objective\.item_alignment to 0, or model\.branches to \[sid, id\]"),
        (["objective.shared_codes=4"], r"shared_codes is 4, but semantic IDs have 3 digits"),
    ],
)
def test_settings_that_do_nothing_are_refused(toy, changes, message):
    with pytest.raises(RecipeError, match=message):
        SASRecRecommender(small_recipe("h2rec").override(changes)).fit(toy, progress=False)


def test_a_network_that_adds_its_branches_up_is_refused(toy):
    recipe = small_recipe("sasrec").override(["objective.name=aligned_next_item"])
    with pytest.raises(RecipeError, match=r"'sasrec' lacks .*vectors_of_branches \(ItemsInBranches\)"):
        SASRecRecommender(recipe).fit(toy, progress=False)


def test_weights_of_other_sides_are_refused(toy, tmp_path):
    recipe = small_recipe("h2rec").override(["training.epochs=2", "training.validate_every=1"])
    folder = SASRecRecommender(recipe).fit(toy, progress=False).save(tmp_path / "model")
    change_recipe(folder, {"model": {"branches": ["sid"]}})
    with pytest.raises(ModelFolderError, match=r"does not fit the recipe beside it: gate\.bias"):
        load(folder)
