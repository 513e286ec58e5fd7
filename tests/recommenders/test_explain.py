"""How the items of a list were found."""

from __future__ import annotations

import numpy as np
import pytest

import diffgrm
from diffgrm.schema import DataError

HISTORY = ["item 3", "item 77", "item 410"]


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["decoding.steps=2"],
        ["decoding.order=fixed"],
        ["decoding.finish=items"],
        ["decoding.name=catalogue_beam", "decoding.beam=20"],
        ["decoding.name=one_pass"],
    ],
)
def test_the_steps_lead_to_the_items_of_the_list_and_account_for_their_scores(saved, overrides):
    recommender = diffgrm.load(saved).override(overrides)
    listed = recommender.recommend([HISTORY], k=4)
    table = recommender.explain(HISTORY, k=4)
    for rank, item, score in listed.select("rank", "item_id", "score").iter_rows():
        rows = table.filter(rank=rank)
        assert set(rows["item_id"]) == {item} and sorted(rows["digit"]) == list(range(recommender.semantic_ids.n_digits))
        codes = recommender.semantic_ids.codes[recommender.items.positions([item])[0]]
        assert all(codes[digit] == code for digit, code in rows.select("digit", "code").iter_rows())
        assert rows["step"].is_sorted() and rows["items_left"].is_sorted(descending=True)
        assert rows["items_left"][-1] == 1 and rows["confidence"].is_between(0, 1).all()
        if "catalogue_beam" not in str(overrides):  # whose scores are probabilities among items
            assert np.log(rows["confidence"].to_numpy()).sum() == pytest.approx(score, abs=1e-3)


def test_what_cannot_be_explained_is_told(fitted):
    with pytest.raises(DataError, match="k is 0"):
        fitted.explain(HISTORY, k=0)
    with pytest.raises(DataError):
        fitted.explain(["nothing"])
