"""An extra digit numbers the items that the tokenizer's digits do not tell apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffgrm.foundation.schema import ModelFolderError, TokenizerError
from diffgrm.foundation.storage import State
from diffgrm.semantic_ids.extra_digit import numbered
from diffgrm.semantic_ids.semantic_ids import SemanticIds, tokenize_items
from diffgrm.semantic_ids.tokenizers.context import TokenizerContext
from diffgrm.semantic_ids.tokenizers.residual_kmeans import ResidualKMeansTokenizer

NOTHING = np.empty((0, 3), dtype=np.int32)
PLACES = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
GROUPS = np.repeat(np.arange(20), [1, 5, 2, 3] + [1] * 16)  # whose vector an item has
VECTORS = PLACES[GROUPS]


@pytest.fixture(scope="module")
def tokenizer():
    return ResidualKMeansTokenizer(2, 16).fit(TokenizerContext.of(VECTORS))


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), max_size=12), st.integers(0, 11))
def test_numbers_are_the_least_that_are_free_in_order(rows, cut):
    codes = np.array(rows, dtype=np.int32).reshape(-1, 2)
    first = numbered(codes[:cut], NOTHING, 12)
    second = numbered(codes[cut:], first, 12)
    together = np.concatenate([first, second])
    assert np.array_equal(together, numbered(codes, NOTHING, 12)) and np.array_equal(together[:, :2], codes)
    for place, row in enumerate(rows):
        assert together[place, 2] == rows[:place].count(row)


def test_gaps_are_filled_first():
    taken = np.array([[0, 0, 0], [0, 0, 2], [1, 1, 0]])
    assert numbered(np.array([[0, 0], [0, 0], [1, 0], [0, 0]]), taken, 5)[:, 2].tolist() == [1, 3, 0, 4]


def test_planted_groups_are_told_apart_by_the_last_digit_alone(tokenizer):
    ids, report = SemanticIds.build(tokenizer, VECTORS, "extra_digit")
    assert (ids.codes[:, :2] == tokenizer.encode(VECTORS)).all() and len(np.unique(ids.codes, axis=0)) == len(VECTORS)
    group = SemanticIds.build(tokenizer, VECTORS, "share")[0].sid_of_item()
    for number in np.unique(group):
        assert ids.codes[group == number, 2].tolist() == list(range((group == number).sum()))
    assert ids.codebook_sizes == (16, 16, report.largest_group) and report.largest_group >= 5
    assert ids.n_digits == report.n_digits == 3 and report.codebook_sizes == ids.codebook_sizes
    assert report.moved_items == 0 and report.distinct_sids == len(VECTORS) == len(ids)
    assert report.quantisation_error == report.error_before_repair
    assert len(report.utilisation) == len(report.entropy_bits) == 3 and report.utilisation[2] == 1
    assert dict(report.rows())["semantic ID"].startswith("3 digits x 16, 16, ")


def test_where_nothing_collides_the_digit_has_the_two_codes_that_every_digit_has(tokenizer):
    ids = SemanticIds.build(tokenizer, np.unique(VECTORS, axis=0)[:1], "extra_digit")[0]
    assert ids.codes[:, 2].tolist() == [0] and ids.codebook_sizes == (16, 16, 2)


def test_items_that_come_later_get_the_next_free_number_and_the_others_stay(tokenizer):
    ids = SemanticIds.build(tokenizer, VECTORS, "extra_digit")[0]
    grown = ids.extended(tokenizer, VECTORS[[1, 1, 0]])
    assert (grown.codes[:-3] == ids.codes).all() and len(np.unique(grown.codes, axis=0)) == len(grown)
    own = (tokenizer.encode(VECTORS) == tokenizer.encode(VECTORS[[1]])).all(1).sum()
    assert grown.codes[-3:-1, 2].tolist() == [own, own + 1]
    assert grown.codebook_sizes[:2] == (16, 16) and grown.codebook_sizes[2] >= own + 2
    assert grown.codebook_size == ids.codebook_size == 16  # a network of these sizes still fits


def test_an_item_that_moves_leaves_its_number_to_the_next(tokenizer):
    ids = SemanticIds.build(tokenizer, VECTORS, "extra_digit")[0]
    moved = ids.moved(np.array([1]), tokenizer, VECTORS[:1])  # the first of a group of five goes to item 0's
    assert len(np.unique(moved.codes, axis=0)) == len(ids) and (moved.codes[2:] == ids.codes[2:]).all()
    assert (moved.codes[1, :2] == ids.codes[0, :2]).all()
    assert (moved.extended(tokenizer, VECTORS[[1]]).codes[-1] == ids.codes[1]).all()
    everyone = np.arange(len(ids))
    assert (ids.moved(everyone, tokenizer, VECTORS).codes == ids.codes).all()


def test_groups_larger_than_a_codebook_are_refused_with_the_way_out(tokenizer):
    many = np.repeat(VECTORS[:1], 17, axis=0)
    with pytest.raises(
        TokenizerError,
        match=r"17 items have the digits \[.*\], and an extra digit of 16 codes .*; raise .* or use .*=reassign",
    ):
        SemanticIds.build(tokenizer, many, "extra_digit")
    full = SemanticIds.build(tokenizer, many[:16], "extra_digit")[0]
    assert full.codebook_sizes == (16, 16, 16)
    with pytest.raises(TokenizerError, match="17 items have the digits"):
        full.extended(tokenizer, many[:1])


def test_saving_and_the_cache_keep_the_extra_digit(tokenizer, tmp_path):
    ids, report = SemanticIds.build(tokenizer, VECTORS, "extra_digit")
    ids.save(tmp_path / "sids.safetensors")
    again = SemanticIds.load(tmp_path / "sids.safetensors")
    assert (again.codes == ids.codes).all() and again.codebook_sizes == ids.codebook_sizes
    assert again.collisions == "extra_digit" and again.tokenizer_sizes() == (16, 16)
    for _ in range(2):
        made = tokenize_items(
            ResidualKMeansTokenizer(2, 16), TokenizerContext.of(VECTORS), "extra_digit", {}, tmp_path / "cache"
        )
        assert (made[0].codes == ids.codes).all() and made[0].codebook_sizes == ids.codebook_sizes and made[1] == report


@pytest.mark.parametrize("sizes", [(4,), (2, 3)])
def test_a_file_whose_extra_digit_cannot_be_is_refused(sizes, tmp_path):
    facts = {"codebook_size": max(sizes), "codebook_sizes": sizes, "collisions": "extra_digit"}
    State({"codes": np.zeros((2, len(sizes)), dtype=np.int32)}, facts).save(tmp_path / "sids.safetensors")
    with pytest.raises(ModelFolderError, match="expected an extra digit behind others, with at most as many codes"):
        SemanticIds.load(tmp_path / "sids.safetensors")
