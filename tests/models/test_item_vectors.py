from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from diffgrm.foundation.schema import RecipeError
from diffgrm.networks.diffgrm import DiffGRM
from diffgrm.networks.inputs import ItemFeatures

GENERATOR = torch.Generator().manual_seed(0)
SIZES = {"n_digits": 3, "codebook_size": 8, "n_items": 6, "text_width": 5, "width": 16, "heads": 2}
ITEMS = ItemFeatures(
    torch.randint(0, 8, (6, 3), generator=GENERATOR),
    torch.randn(6, 5, generator=GENERATOR),
    torch.tensor([0, 1, 2, -1, 4, 5]),
)


def network(*branches, **settings):
    torch.manual_seed(0)
    return DiffGRM(**SIZES, branches=branches, **settings)


def test_a_vector_is_the_sum_of_the_branches():
    whole = network("sid", "text", "id").eval()
    parts = []
    for branch in whole.branches:
        whole.branches = (branch,)
        parts.append(whole.item_vectors(ITEMS))
    whole.branches = ("sid", "text", "id")
    assert torch.allclose(whole.item_vectors(ITEMS), sum(parts))
    assert torch.allclose(parts[0].norm(dim=1), torch.ones(6), atol=0.01)
    assert torch.allclose(parts[1].norm(dim=1), torch.ones(6), atol=0.01)
    assert (parts[2][3] == 0).all() and torch.equal(parts[2][4], whole.ids[4])
    assert 0.1 < parts[2][0].norm() < 0.5  # ids begin as a small addition


def test_the_features_of_some_items_are_rows_of_all():
    whole = network("id", "sid", "text").eval()
    some = torch.tensor([4, 3, 3])
    assert torch.allclose(whole.item_vectors(ITEMS)[some], whole.item_vectors(ITEMS.of(some)), atol=1e-6)
    assert len(ITEMS.of(some)) == 3


def test_items_without_a_row_can_borrow():
    whole = network("text", "id").eval()
    lenders = torch.tensor([[0.5, 0.5, 0, 0, 0, 0]])
    assert torch.allclose(whole.borrowed_ids(lenders), (whole.ids[0] + whole.ids[1]) / 2)
    assert (network("text").borrowed_ids(lenders) == 0).all()


def test_only_what_a_branch_needs_is_there():
    names = {name.split(".")[0] for name, _ in network("text").named_parameters()}
    assert "text" in names and not names & {"item", "item_norm", "ids"}
    assert torch.allclose(
        network("sid").eval().item_vectors(replace(ITEMS, text=None, row=None)), network("sid").eval().item_vectors(ITEMS)
    )


def test_a_branch_is_named_once():
    with pytest.raises(RecipeError, match=r"model.branches \['id', 'id'\]: name each branch once"):
        network("id", "id")


def test_branches_without_their_size_are_refused():
    with pytest.raises(RecipeError, match="model.branches has 'id', but there is nothing to make it of: its size is 0"):
        DiffGRM(3, 8, text_width=4, branches=("text", "id"))
