"""How the items of a list were found."""

from __future__ import annotations

import numpy as np
import pytest

import diffgrm
from diffgrm.foundation.schema import DataError

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
        told = np.log(rows["confidence"].to_numpy()).sum()
        if "catalogue_beam" in str(overrides):  # by which digits that follow from others are certain
            assert told <= score + 1e-3
        else:
            assert told == pytest.approx(score, abs=1e-3)
    assert recommender.explanation_note() == ""


@pytest.mark.parametrize(
    "overrides",
    [[], ["decoding.steps=2"], ["decoding.finish=items"], ["decoding.name=catalogue_beam"], ["decoding.constrained=false"]],
)
def test_the_beams_of_every_step_grow_from_those_before_and_end_in_the_list(saved, overrides):
    recommender = diffgrm.load(saved).override(overrides)
    table = recommender.beams(HISTORY, k=4, show=1000)
    listed = recommender.recommend([HISTORY], k=4)
    before = [[None] * recommender.semantic_ids.n_digits]
    for _, rows in table.group_by("step", maintain_order=True):
        assert rows["score"].is_sorted(descending=True) and rows["place"].to_list() == list(range(1, rows.height + 1))
        digits = [tuple(found) for found in rows["digits"].to_list()]
        assert len(set(digits)) == len(digits)
        for found in digits:
            assert any(all(a is None or a == b for a, b in zip(old, found, strict=True)) for old in before)
        before = digits
    codes = recommender.semantic_ids.codes[recommender.items.positions(listed["item_id"])]
    legal = [found for found in before if found in {tuple(code) for code in codes.tolist()}]
    assert legal == [tuple(code) for code in codes.tolist()]
    assert recommender.beams(HISTORY, k=4, show=3).group_by("step").len()["len"].max() == 3
    for show in (0, -1, 1.5, True, "3"):
        with pytest.raises(
            DataError, match=f"show is {show!r}; expected how many partial semantic IDs of each step, a whole"
        ):
            recommender.beams(HISTORY, k=4, show=show)


@pytest.mark.parametrize("overrides", [[], ["decoding.finish=items"], ["decoding.name=catalogue_beam"]])
def test_nothing_is_searched_for_a_user_who_has_seen_everything(saved, overrides):
    recommender = diffgrm.load(saved).override(overrides)
    everything = recommender.items.series.to_list()
    beside = recommender.recommend({0: everything, 1: HISTORY})
    assert beside["item_id"].equals(recommender.recommend([HISTORY])["item_id"])
    assert recommender.recommend([everything]).is_empty() and recommender.explain(everything).is_empty()
    found = recommender.beams(everything)
    assert found.is_empty() and found.schema == recommender.beams(HISTORY).schema


def test_a_variant_shares_the_tables_and_leaves_the_recommender_as_it_was(saved):
    recommender = diffgrm.load(saved)
    before = recommender.recommend([HISTORY], k=4)
    wider = recommender.variant(["decoding.beam=40"])
    assert wider.recommend([HISTORY], k=4).equals(
        diffgrm.load(saved).override(["decoding.beam=40"]).recommend([HISTORY], k=4)
    )
    assert wider.ranker().catalogue is recommender.ranker().catalogue
    assert recommender.recipe.decoding.options["beam"] == 16 and recommender.recommend([HISTORY], k=4).equals(before)


def test_among_items_a_code_is_likelier_than_among_all_codes(saved):
    """The first digit of an item is filled where nothing is known yet, in both searches."""
    plain, among = (
        diffgrm.load(saved).override([f"decoding.name={name}", "decoding.beam=20"]).explain(HISTORY, k=4)
        for name in ("any_order_beam", "catalogue_beam")
    )
    keys = ["step", "digit", "code"]
    both = (
        plain.filter(step=1).join(among.filter(step=1), on=keys, suffix="_among").select("confidence", "confidence_among")
    )
    assert both.height and (both["confidence_among"] >= both["confidence"] - 1e-6).all()


def test_what_cannot_be_explained_is_told(fitted):
    with pytest.raises(DataError, match="k is 0"):
        fitted.explain(HISTORY, k=0)
    with pytest.raises(DataError):
        fitted.explain(["nothing"])
