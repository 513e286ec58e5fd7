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
    torch.tensor([True, True, True, False, True, False]),
)


def network(*branches, **settings):
    torch.manual_seed(0)
    return DiffGRM(**SIZES, branches=branches, **settings)


def test_a_vector_is_the_sum_of_the_branches():
    whole = network("sid", "text", "id").eval()
    sid, text, ids = (branch(ITEMS, whole.digits) for branch in whole.item.branches)
    assert torch.allclose(whole.item_vectors(ITEMS), sid + text + ids)
    assert torch.allclose(sid.norm(dim=1), torch.ones(6), atol=0.01)
    assert torch.allclose(text.norm(dim=1), torch.ones(6), atol=0.01)
    assert (ids[3] == 0).all() and torch.equal(ids[4], whole.item.id.ids[4])
    assert 0.1 < ids[0].norm() < 0.5  # ids begin as a small addition


def test_the_features_of_some_items_are_rows_of_all():
    whole = network("id", "sid", "text").eval()
    some = torch.tensor([4, 3, 3])
    assert torch.allclose(whole.item_vectors(ITEMS)[some], whole.item_vectors(ITEMS.of(some)), atol=1e-6)
    assert len(ITEMS.of(some)) == 3


def test_items_without_events_have_an_id_only_where_the_one_drawn_is_kept():
    found = {kept: network({"name": "id", "untrained": kept}).item_vectors(ITEMS) for kept in ("none", "drawn")}
    assert (found["none"][5] == 0).all() and (found["drawn"][5] != 0).any()
    assert (found["drawn"][3] == 0).all()  # what came after fit has none in any case
    assert torch.equal(found["none"][[0, 1, 2, 4]], found["drawn"][[0, 1, 2, 4]])


def test_ids_start_at_the_norm_that_is_asked_for():
    found = network({"name": "id", "start": 2.0}).item_vectors(ITEMS)[:3].norm(dim=1)
    assert torch.allclose(found, torch.full((3,), 2.0), rtol=0.5)
    assert torch.allclose(network({"name": "id", "start": 1.0}).item_vectors(ITEMS)[:3].norm(dim=1), found / 2)


def test_items_without_an_id_can_borrow():
    whole = network("text", "id").eval()
    ids = whole.item.id.ids
    assert torch.allclose(whole.borrowed_vectors(torch.tensor([[0.5, 0.5, 0, 0, 0, 0]])), ((ids[0] + ids[1]) / 2)[None])
    assert network("text").borrowed_vectors(torch.ones(1, 6)) is None


def test_only_what_a_branch_needs_is_there():
    names = {name.split(".")[1] for name, _ in network("text").named_parameters() if name.startswith("item.")}
    assert names == {"text"}
    assert torch.allclose(
        network("sid").eval().item_vectors(replace(ITEMS, text=None, row=None)), network("sid").eval().item_vectors(ITEMS)
    )


def test_digits_enter_an_item_as_large_as_the_decoder_sees_them_or_as_they_are_drawn():
    scaled, drawn = network("sid"), network({"name": "sid", "input_scale": False})
    codes = ITEMS.codes
    assert torch.equal(scaled.digits(codes), drawn.digits(codes))
    assert not torch.allclose(scaled.item_vectors(ITEMS), drawn.item_vectors(ITEMS))
    with torch.no_grad():  # digits drawn as large as they enter: the scale says no more than that
        drawn.digits.codes.mul_(drawn.digits.scale)
    assert torch.allclose(scaled.item_vectors(ITEMS), drawn.item_vectors(ITEMS), atol=1e-6)


def test_branches_that_nothing_is_made_of_or_that_are_named_twice_are_refused():
    with pytest.raises(RecipeError, match=r"model.branches \['id', 'id'\]: name each branch once"):
        network("id", "id")
    with pytest.raises(RecipeError, match="model.branches is empty; name at least one of sid, text, id"):
        network()


@pytest.mark.parametrize(("branch", "size"), [("sid", "n_digits"), ("text", "text_width"), ("id", "n_items")])
def test_branches_without_their_size_are_refused(branch, size):
    from diffgrm.networks.sasrec import SASRec

    sizes = {**SIZES, size: 0}
    with pytest.raises(RecipeError, match=f"model.branches has '{branch}', but there is nothing to make it of: {size}"):
        SASRec(**sizes, branches=(branch,))
