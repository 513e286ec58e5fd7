from __future__ import annotations

import pytest
import torch
from torch import nn

from diffgrm import Recipe, SASRecRecommender
from diffgrm.foundation.schema import RecipeError
from diffgrm.learning import row_updates
from diffgrm.learning.row_updates import RowAdamW, branches_with_tables, choose_updates, clip_gradients
from diffgrm.recommenders.trained_network import planned_network

LEARNING = {"lr": 0.1, "weight_decay": 0.3}
START = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
ASKED = [[0, 1, 2], [1, 2], [2, 4, 1], [0, 2], [2, 1, 0]]  # nobody asks for row 3
RECIPE = {
    "recommender": "sasrec",
    "model": {"width": 16, "branches": ["id"]},
    "item_loss": {"kind": "sampled_softmax", "negatives": 4},
    "training": {"epochs": 2, "table_updates": "asked_rows"},
}


def gradient(step: int, row: int) -> torch.Tensor:
    return torch.randn(3, generator=torch.Generator().manual_seed(100 * step + row))


def sparse(step: int, rows: list[int]) -> torch.Tensor:
    return torch.sparse_coo_tensor(
        [rows], torch.stack([gradient(step, row) for row in rows]), (5, 3), check_invariants=True
    )


def test_rows_that_every_step_asks_for_learn_as_by_adamw():
    ours, theirs = nn.Parameter(START.clone()), nn.Parameter(START.clone())
    optimisers = RowAdamW([ours], **LEARNING), torch.optim.AdamW([theirs], **LEARNING)
    for step in range(6):
        ours.grad = sparse(step, [3, 0, 4, 1, 2])
        theirs.grad = ours.grad.to_dense()
        for optimiser in optimisers:
            optimiser.param_groups[0]["lr"] = 0.1 / (1 + step)
            optimiser.step()
    torch.testing.assert_close(ours, theirs)


def test_each_row_learns_as_a_parameter_of_its_own_that_is_there_when_it_is_asked_for():
    table, rows = nn.Parameter(START.clone()), [nn.Parameter(row.clone()) for row in START]
    together, alone = RowAdamW([table], **LEARNING), [torch.optim.AdamW([row], **LEARNING) for row in rows]
    for step, asked in enumerate(ASKED):
        table.grad = sparse(step, asked)
        together.step()
        for row in asked:
            rows[row].grad = gradient(step, row)
            alone[row].step()
    torch.testing.assert_close(table, torch.stack(list(rows)))
    assert torch.equal(table[3], START[3])  # not even decayed


def test_what_an_optimiser_has_learnt_goes_on_where_it_is_read_again():
    whole, stopped = (nn.Parameter(START.clone()) for _ in range(2))
    optimiser, before = RowAdamW([whole], **LEARNING), RowAdamW([stopped], **LEARNING)
    for step, asked in enumerate(ASKED):
        if step == 2:
            kept = before.state_dict()
            before = RowAdamW([stopped], **LEARNING)
            before.load_state_dict(kept)
        for table, one in ((whole, optimiser), (stopped, before)):
            table.grad = sparse(step, asked)
            one.step()
    assert torch.equal(whole, stopped)


def test_a_row_that_occurs_twice_in_a_gradient_has_their_sum():
    once, twice = (nn.Parameter(START.clone()) for _ in range(2))
    once.grad = sparse(0, [1]) * 2
    twice.grad = sparse(0, [1]) + sparse(0, [1])
    for table in (once, twice):
        RowAdamW([table], **LEARNING).step()
    torch.testing.assert_close(once, twice)


def test_parameters_with_dense_gradients_beside_a_table_learn_by_adamw():
    table, dense, alone = (nn.Parameter(START.clone()) for _ in range(3))
    optimisers = RowAdamW([table, dense], **LEARNING), torch.optim.AdamW([alone], **LEARNING)
    for step in range(3):
        table.grad, dense.grad = sparse(step, [1, 2]), sparse(step, [0, 1, 2, 3, 4]).to_dense()
        alone.grad = dense.grad.clone()
        for optimiser in optimisers:
            optimiser.step()
        assert table.grad is not None  # as an optimiser leaves it
    assert torch.equal(dense, alone) and not torch.equal(table, dense)


@pytest.mark.parametrize("most", [0.5, 100.0])
def test_gradients_are_clipped_by_the_norm_of_all_of_them(most):
    both = [[nn.Parameter(START.clone()), nn.Parameter(START.clone())] for _ in range(2)]
    for first, second in both:
        first.grad = sparse(0, [1, 4]) + sparse(1, [4])
        second.grad = START.clone()
    both[1][0].grad = both[1][0].grad.to_dense()
    clip_gradients(both[0], most)
    torch.nn.utils.clip_grad_norm_(both[1], most)
    torch.testing.assert_close(both[0][0].grad.to_dense(), both[1][0].grad)
    torch.testing.assert_close(both[0][1].grad, both[1][1].grad)


@pytest.mark.parametrize(
    ("settings", "few", "rows", "chosen"),
    [
        ({}, True, 10, True),
        ({}, True, 11, False),  # the table is not large
        ({}, False, 10, False),  # every step asks for all items
        ({"devices": 2}, True, 10, False),
        ({"table_updates": "all_rows"}, True, 10, False),
        ({"table_updates": "asked_rows"}, True, 11, True),
    ],
)
def test_auto_updates_asked_rows_of_large_tables_where_steps_ask_for_few(settings, few, rows, chosen, monkeypatch):
    monkeypatch.setattr(row_updates, "LARGE_TABLE", rows)
    part = Recipe(**RECIPE).model
    network, training = part.build(n_items=10, text_width=4), Recipe(recommender="sasrec", training=settings).training
    choose_updates(network, training, few)
    assert [branch.sparse for branch in branches_with_tables(network)] == [chosen]


def test_items_that_no_step_asks_for_stay_as_they_were_drawn(toy):
    recipe = Recipe(**RECIPE).override(["training.steps_per_epoch=1", "training.batch_size=8", "training.warmup_steps=0"])
    whole = SASRecRecommender(recipe).fit(toy, progress=False)
    assert whole.facts["steps"] == 2
    torch.manual_seed(recipe.seed)
    drawn = recipe.model.build(n_items=len(toy.items)).item.id.ids
    changed = (whole.network.item.id.ids != drawn).any(1)
    assert 0 < changed.sum() < len(changed) / 2
    everywhere = SASRecRecommender(recipe.override(["training.table_updates=all_rows"])).fit(toy, progress=False)
    assert (everywhere.network.item.id.ids != drawn).any(1).all()  # by the weight decay at least


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["item_loss={kind: softmax}"], "does nothing with item_loss.kind=softmax, which asks for all items in every step"),
        (["model.branches=[text]"], "is of ID embeddings, and model.branches has none; leave it out"),
        (["training.devices=2"], "asked_rows is for one process, found 2"),
    ],
)
def test_asked_rows_are_refused_where_they_are_not_what_is_updated(changes, message, toy):
    with pytest.raises(RecipeError, match=message):
        SASRecRecommender(Recipe(**RECIPE).override(changes)).fit(toy, progress=False)


def test_shipped_recipes_with_id_embeddings_have_tables():
    assert len(branches_with_tables(planned_network(Recipe()))) == 1
    assert not branches_with_tables(planned_network(Recipe(recommender="diffgrm")))
