"""ID embeddings that are drawn to the texts of their items."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

import diffgrm
from diffgrm import Recipe
from diffgrm.data.dataset import Ragged
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import RecipeError
from diffgrm.learning.context import LearningContext
from diffgrm.learning.objectives.next_item import NextItemObjective
from helpers.networks import SMALL, build, features, learning_task, one_batch
from helpers.recipes import TINY, small_recipe

FEATURES = features()  # the last item has no training events
EVENTS = Ragged.from_lists([[1, 2, 3, 4, 5, 6], [7, 8], [9, 10, 7, 0], [2, 6, 1]])
TRAINED = len(FEATURES) - 1


def network(*branches):
    return build("sasrec", **SMALL, branches=list(branches))


def align(found, factor=1.0):
    """Put every ID embedding where its text is projected to."""
    branch = found.item.aligned_id
    with torch.no_grad():
        branch.ids.copy_(branch.projection(FEATURES.text) * factor)


def loss_of(found, weight, **item_loss):
    task = learning_task(found, items=FEATURES, counts=np.bincount(EVENTS.values, minlength=len(FEATURES)), **item_loss)
    objective = NextItemObjective(task, weight)
    return objective.loss(one_batch(EVENTS, True), torch.Generator().manual_seed(0), LearningContext.start())


def test_where_embeddings_are_aligned_there_is_no_loss_however_long_they_are():
    found = network("aligned_id")
    assert found.text_alignment(FEATURES).item() > 0.5
    align(found, 3.0)
    assert found.text_alignment(FEATURES).item() == pytest.approx(0, abs=1e-6)
    align(found, -1.0)
    assert found.text_alignment(FEATURES).item() == pytest.approx(2, abs=1e-6)


def test_the_loss_is_that_over_items_and_the_weighted_mean_of_cosines():
    found = network("aligned_id")
    branch = found.item.aligned_id
    cosines = torch.cosine_similarity(branch.ids, branch.projection(FEATURES.text))[:TRAINED]
    wanted = loss_of(found, 0.0) + 0.2 * (1 - cosines.mean())
    assert loss_of(found, 0.2).item() == pytest.approx(wanted.item(), rel=1e-5)
    sampled = {"kind": "sampled_softmax", "negatives": 1}  # over the items that the step asks for only
    apart = (loss_of(found, 1.0, **sampled) - loss_of(found, 0.0, **sampled)).item()
    assert apart == pytest.approx((1 - cosines[np.unique(EVENTS.values)]).mean().item(), rel=1e-4)


def test_only_embeddings_and_projection_learn_by_it_and_the_projection_by_it_alone():
    found = network("text", "aligned_id")
    found.text_alignment(FEATURES).backward()
    learnt = {name for name, p in found.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    ids, projection = "item.aligned_id.ids", {"item.aligned_id.projection.weight", "item.aligned_id.projection.bias"}
    assert learnt == {ids, *projection}
    assert not found.item.aligned_id.ids.grad[TRAINED].any()
    found.zero_grad()
    loss_of(found, 0.0).backward()
    learnt = {name for name, p in found.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert ids in learnt and not learnt & projection


def test_other_branches_have_nothing_to_align():
    assert network("text", "id").text_alignment(FEATURES) is None


def test_items_without_events_have_their_projected_text_at_the_usual_length():
    found = network("aligned_id").eval()
    branch, later = found.item.aligned_id, replace(FEATURES, row=torch.where(FEATURES.row == 3, -1, FEATURES.row))
    vectors = found.item_vectors(later)
    for item in (3, TRAINED):
        projected = branch.projection(FEATURES.text[item])
        assert torch.cosine_similarity(vectors[item], projected, dim=0).item() == pytest.approx(1, abs=1e-5)
        assert vectors[item].norm().item() == pytest.approx(branch.ids.norm(dim=1).mean().item(), rel=1e-5)
    assert torch.equal(vectors[:3], branch.ids[:3])
    assert torch.equal(found.item_vectors(FEATURES.of(torch.arange(5))), branch.ids[:5])


@pytest.mark.parametrize("size", ["n_items", "text_width"])
def test_without_texts_or_items_it_is_refused(size):
    sizes = {"n_items": 4, "text_width": 4, size: 0}
    with pytest.raises(RecipeError, match=f"model.branches has 'aligned_id', but there is nothing to make it of: {size}"):
        resolve("model", "sasrec")(**sizes, branches=("aligned_id",))


# ---- in recipes -------------------------------------------------------------------------------------------------------


def aligned(**objective):
    small = small_recipe("sasrec").to_dict()
    model = {**small["model"], "branches": ["aligned_id"]}
    return Recipe.from_dict({**small, "embedding": TINY["embedding"], "model": model, "objective": objective})


def test_a_sasrec_with_aligned_embeddings_takes_new_items(toy, tmp_path):
    found = resolve("recommender", "sasrec")(aligned(name="next_item", text_alignment=0.15)).fit(toy, progress=False)
    again = diffgrm.load(found.save(tmp_path / "model"))
    history = [["item 3", "item 77"]]
    assert again.recommend(history).equals(found.recommend(history))
    twin = found.item_table.filter(item_id="item 9").with_columns(item_id=pl.lit("twin"))
    assert found.add_items(twin).recommend(history, only=["twin"]).height == 1


@pytest.mark.parametrize(
    ("recipe", "text"),
    [
        (
            lambda: aligned(name="next_item"),
            "the branch 'aligned_id' is drawn to texts by objective.text_alignment, which is 0",
        ),
        (
            lambda: small_recipe("sasrec").override(["objective.text_alignment=0.1"]),
            r"text_alignment = 0.1 draws ID embeddings to texts, but model.branches \['id'\] has none that can be",
        ),
        (
            lambda: small_recipe("hybrid").override(["objective.text_alignment=0.1"]),
            r"model.branches \['text', 'id'\] has none that can be",
        ),
        (
            lambda: small_recipe("diffgrm").override(["model.branches=[sid, aligned_id]"]),
            "or which the objective 'diffusion' does not have",
        ),
    ],
)
def test_a_weight_without_a_projection_and_a_projection_without_a_weight_are_refused(toy, recipe, text):
    recipe = recipe()
    with pytest.raises(RecipeError, match=text):
        resolve("recommender", recipe.recommender)(recipe).fit(toy, progress=False)


def test_items_beside_digits_can_be_aligned_too(toy):
    recipe = small_recipe("hybrid").override(["model.branches=[text, aligned_id]", "objective.text_alignment=0.1"])
    found = resolve("recommender", "hybrid")(recipe).fit(toy, progress=False)
    assert found.recommend([["item 3"]], k=3).height == 3
