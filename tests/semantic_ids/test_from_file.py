"""Semantic IDs of a file: every item has its own, others those of a neighbour; collisions go by price."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import diffgrm
from diffgrm import DiffGRMRecommender
from diffgrm.foundation.schema import DataError, TokenizerError
from diffgrm.foundation.storage import State
from diffgrm.semantic_ids.semantic_ids import SemanticIds, tokenize_items
from diffgrm.semantic_ids.sid_files import write_sids
from diffgrm.semantic_ids.tokenizers.context import TokenizerContext
from diffgrm.semantic_ids.tokenizers.from_file import FromFileTokenizer

IDS = pl.Series("item_id", ["a", "b", "c", "d", "e"])
PLACES = np.array([[0, 0], [0, 1], [4, 0], [4, 1], [9, 9]], dtype=np.float32)
CODES = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [2, 3]])
ALL = TokenizerContext.of(PLACES, items=IDS)


@pytest.fixture
def made(tmp_path):
    """A tokenizer of a file with these digits of these items."""

    def make(codes=CODES, ids=IDS, n_digits=2, codebook_size=4, name="sids.parquet", **settings):
        write_sids(ids, np.asarray(codes), tmp_path / name)
        return FromFileTokenizer(n_digits, codebook_size, str(tmp_path / name), **settings)

    return make


def test_items_have_their_own_digits_whatever_the_order_of_the_file_and_of_equal_vectors(made):
    rows = [3, 0, 4, 2, 1]
    context = replace(ALL, embeddings=np.zeros_like(PLACES))
    tokenizer = made(CODES[rows], IDS[rows]).fit(context)
    ids, report = SemanticIds.build(tokenizer, context.embeddings, "share", IDS)
    assert np.array_equal(ids.codes, CODES) and report.colliding_items == report.moved_items == 0
    assert np.array_equal(tokenizer.encode(context.embeddings), CODES[[0] * 5])  # the first item's, if nobody is known


@pytest.mark.parametrize(
    ("count", "cells", "size"),
    [
        (200, 100, 16),  # no more than two of one code
        (200, 2, 16),  # a crowd of each code
        (250, 128, 16),  # few codes are free
    ],
)
def test_equal_texts_of_other_digits_move_as_few_as_can_be(made, count, cells, size):
    ids, vectors = pl.Series(map(str, range(count))), np.ones((count, 4), dtype=np.float32) / 2
    codes = np.stack(np.divmod(np.arange(count) % cells, size), axis=1)
    tokenizer = made(codes, ids, codebook_size=size).fit(TokenizerContext.of(vectors, items=ids))
    report = SemanticIds.build(tokenizer, vectors, "reassign", ids)[1]
    assert report.distinct_sids == count and report.moved_items == count - cells


def test_the_file_may_hold_more_items_and_spell_ids_otherwise(made):
    context = replace(ALL, items=pl.Series([10, 20, 30, 40, 50]))
    file = pl.Series(["50", "40", "30", "20", "10", "none", "010"])
    codes = [*CODES[::-1].tolist(), [3, 3], [3, 3]]
    for name in ("sids.parquet", "sids.json"):
        tokenizer = made(codes, file, name=name).fit(context)
        assert np.array_equal(tokenizer.encode(PLACES, context.items), CODES)


def test_missing_items_are_an_error_or_get_their_neighbours_digits(made):
    with pytest.raises(
        TokenizerError, match=r"no semantic ID for 2 of 5 items: a, e; leave them out .* tokenizer.missing=ne"
    ):
        made(CODES[1:4], IDS[1:4]).fit(ALL)
    tokenizer = made(CODES[1:4], IDS[1:4], missing="nearest").fit(ALL)
    assert tokenizer.encode(PLACES, IDS).tolist() == CODES[[1, 1, 2, 3, 3]].tolist()
    with pytest.raises(TokenizerError, match="no semantic ID for 5 of 5 items: .*; do its ids go with those"):
        made(CODES, IDS.str.to_uppercase(), missing="nearest").fit(ALL)


def test_neighbours_are_training_items_and_later_items_have_theirs(made):
    tokenizer = made().fit(replace(ALL, in_training=np.array([True, True, False, True, False])))
    assert np.array_equal(tokenizer.encode(PLACES, IDS), CODES)
    assert tokenizer.encode(PLACES[[4, 2, 0]]).tolist() == CODES[[3, 3, 0]].tolist()
    with pytest.raises(TokenizerError, match="no semantic ID for any training item"):
        made(CODES[:2], IDS[:2], missing="nearest").fit(replace(ALL, in_training=np.arange(5) > 1))


def test_a_change_costs_the_distance_of_the_mean_texts(made):
    tokenizer = made().fit(ALL)
    costs = tokenizer.digit_costs(PLACES[:1], CODES[:1])[0]
    middle = [PLACES[[0, 1]].mean(0), PLACES[[2, 3]].mean(0), PLACES[4]]
    expected = [0, *(((middle[0] - other) ** 2).sum() for other in middle[1:])]
    assert costs[0] == pytest.approx([*expected, max(expected)])  # nobody has code 3
    other = PLACES[[0, 2]].mean(0), PLACES[[1, 3]].mean(0), PLACES[4]
    expected = [0, *(((other[0] - place) ** 2).sum() for place in other[1:])]
    assert costs[1] == pytest.approx([0, expected[1], max(expected), expected[2]])
    unknown = tokenizer.digit_costs(PLACES[:1], np.array([[3, 2]]))[0]
    assert unknown.tolist() == [[1, 1, 1, 0], [1, 1, 0, 1]]


def test_of_colliding_items_the_fewest_digits_change_at_the_least_price(made):
    codes = [[0, 0], [0, 0], [1, 0], [1, 1], [2, 3]]  # a and b collide; [0, 1] is free, and nearest by texts
    tokenizer = made(codes).fit(ALL)
    ids, report = SemanticIds.build(tokenizer, PLACES, "reassign", IDS)
    assert report.colliding_items == 2 and report.moved_items == 1 and report.quantisation_error == 0
    assert sorted(ids.codes[:2].tolist()) == [[0, 0], [0, 1]] and np.array_equal(ids.codes[2:], codes[2:])
    shared = SemanticIds.build(tokenizer, PLACES, "share", IDS)[0]
    assert np.array_equal(shared.codes, codes)
    extra = SemanticIds.build(tokenizer, PLACES, "extra_digit", IDS)[0]
    assert extra.codes[:, 2].tolist() == [0, 1, 0, 0, 0]


def test_a_number_behind_the_digits_is_a_digit_or_is_left_out(made):
    codes = [[0, 0, 1], [0, 0, 0], [1, 0, 0], [1, 1, 0], [2, 3, 0]]
    whole = made(codes, n_digits=3, codebook_size=(4, 4, 2)).fit(ALL)
    ids, report = SemanticIds.build(whole, PLACES, "reassign", IDS)
    assert np.array_equal(ids.codes, codes) and report.colliding_items == 0
    bare = made(codes, numbered=True).fit(ALL)
    ids, report = SemanticIds.build(bare, PLACES, "extra_digit", IDS)
    assert report.colliding_items == 2 and ids.codes[:, :2].tolist() == [row[:2] for row in codes]
    assert ids.codes[:, 2].tolist() == [0, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"n_digits": 3}, r"have 2 digits; expected 3: set tokenizer.n_digits=2"),
        ({"numbered": True}, r"have 2 digits, the last of which is left out .*; expected 3: set tokenizer.n_digits=1"),
        (
            {"codebook_size": 3},
            r"(?s)codebook_size; set it to 4, or to \[3, 4\]:\n.*digit 1 has codes up to 3; expected 0 to 2",
        ),
        ({"codebook_size": (2, 4)}, "digit 0 has codes up to 2; expected 0 to 1"),
    ],
)
def test_sizes_that_are_not_those_of_the_file_are_refused_with_the_right_ones(made, settings, text):
    with pytest.raises(TokenizerError, match=text):
        made(**settings).check(IDS)
    with pytest.raises(TokenizerError, match=text):
        made(**settings).fit(ALL)


def test_without_a_file_or_ids_it_says_so(tmp_path, made):
    with pytest.raises(TokenizerError, match="needs a file of semantic IDs, .* set tokenizer.path=FILE"):
        FromFileTokenizer(2, 4).fit(ALL)
    with pytest.raises(DataError, match="there is no file of semantic IDs"):
        tokenize_items(FromFileTokenizer(2, 4, str(tmp_path / "no.json")), ALL, "share", {}, tmp_path)
    with pytest.raises(TokenizerError, match="goes by the ids of items, and there are none"):
        made().fit(TokenizerContext.of(PLACES))
    with pytest.raises(TokenizerError, match="items are 4 ids for 5 vectors; expected one an item"):
        TokenizerContext.of(PLACES, items=IDS[:4])


def test_the_cache_knows_the_files_content_and_the_items(made, tmp_path):
    def found(codes, context=ALL):
        return tokenize_items(made(codes), context, "share", {}, tmp_path / "cache")[0].codes.tolist()

    assert found(CODES) == CODES.tolist() and found(CODES[::-1]) == CODES[::-1].tolist()
    assert found(CODES, replace(ALL, items=IDS[[1, 0, 2, 3, 4]])) == CODES[[1, 0, 2, 3, 4]].tolist()


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"codes": np.array([[0, 4], [0, 0]])}, r"do not lie in codebooks of the sizes \(4, 4\)"),
        ({"codes": np.array([[0, -1], [0, 0]])}, "do not lie in codebooks"),
        ({"codes": np.zeros((2, 2))}, "do not lie in codebooks"),
        ({"codes": np.zeros((0, 2), np.int32), "vectors": np.zeros((0, 2), np.float32)}, "do not lie in codebooks"),
        ({"codes": np.zeros((3, 2), np.int32)}, "the arrays of the tokenizer have the shapes"),
        ({"codes": np.array(3)}, "the arrays of the tokenizer have the shapes"),
        ({"vectors": np.full((2, 2), np.nan, np.float32)}, "NaN or infinity"),
    ],
)
def test_a_strangers_tables_are_checked(arrays, text, made):
    state = made(CODES[:2], IDS[:2], missing="nearest").fit(ALL).state()
    with pytest.raises((TokenizerError, DataError), match=text):
        FromFileTokenizer(2, 4).load_state(State({**state.arrays, **arrays}, state.facts))


def test_a_model_keeps_its_tables_and_not_the_file_and_takes_new_items(toy, tiny_recipe, tmp_path):
    """Exported semantic IDs of a model, read from a file, are the same; the model they are fitted into lives without it."""
    codes = np.random.default_rng(0).integers(0, 16, (toy.n_items, 3))
    write_sids(toy.items.series, codes, tmp_path / "sids.json")
    recipe = tiny_recipe.override(
        [
            f"tokenizer={{name: from_file, n_digits: 3, codebook_size: 16, path: {tmp_path / 'sids.json'}}}",
            "training.epochs=1",
        ]
    )
    first = DiffGRMRecommender(recipe).fit(toy, progress=False)
    kept = (first.semantic_ids.codes == codes).all(1)
    assert kept.mean() > 0.9 and len(np.unique(first.semantic_ids.codes, axis=0)) == toy.n_items
    write_sids(first.items.series, first.semantic_ids.codes, tmp_path / "sids.json")
    again = DiffGRMRecommender(recipe).fit(toy, progress=False)
    assert np.array_equal(again.semantic_ids.codes, first.semantic_ids.codes) and again.report.moved_items == 0
    folder = again.save(tmp_path / "model")
    (tmp_path / "sids.json").unlink()
    loaded = diffgrm.load(folder)
    assert loaded.recipe.tokenizer.options["path"] is None and str(tmp_path) not in (folder / "recipe.yaml").read_text()
    twin = toy.item_table[[5]].with_columns(item_id=pl.lit("new"))
    grown = loaded.add_items(twin).semantic_ids.codes
    assert np.array_equal(grown[:-1], again.semantic_ids.codes) and (grown[-1] == grown[5]).sum() == 2
    with pytest.raises(DataError, match="there is no file of semantic IDs"):
        DiffGRMRecommender(recipe.override(["embedding.width=31"])).fit(toy, progress=False)
