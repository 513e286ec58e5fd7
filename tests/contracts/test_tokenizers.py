"""What every tokenizer must do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from diffgrm.foundation.parts import check_options
from diffgrm.foundation.registry import names, resolve
from diffgrm.foundation.schema import DataError, TokenizerError
from diffgrm.foundation.storage import State
from diffgrm.semantic_ids.semantic_ids import SemanticIds, tokenize_items
from diffgrm.semantic_ids.tokenizers.context import TokenizerContext
from helpers.sid_files import drawn_sids

GRADIENT = "parts.gradient_tokenizer:GradientTokenizer"
NAMES = [*names("tokenizer"), GRADIENT]
IN_BITS = ["opq", "simhash"]  # codes of a digit are a power of two
ANY_SIZES = [name for name in NAMES if name not in IN_BITS]
QUICK = {name: {"width": 4, "hidden": (16,), "epochs": 4, "batch_size": 64} for name in ("mh_vqvae", "rq_vae")}
ALL = pytest.mark.parametrize("name", NAMES)
SIZES = [(name, size) for name in NAMES for size in (8, (8, 3, 16, 5)) if size == 8 or name in ANY_SIZES]
ALL_SIZES = pytest.mark.parametrize(("name", "size"), SIZES)
VECTORS = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
WORLD = TokenizerContext.of(VECTORS, items=pl.Series([f"item {row}" for row in range(200)]))


@pytest.fixture(autouse=True, scope="module")
def _files(tmp_path_factory):
    """Where the files lie that tokenizers read."""
    global FOLDER
    FOLDER = tmp_path_factory.mktemp("sids")


def build(name, n_digits=4, codebook_size=8, seed=0):
    more = QUICK.get(name, {})
    if name == "from_file":
        more = {"path": drawn_sids(FOLDER, WORLD.items, n_digits, codebook_size)}
    return resolve("tokenizer", name)(n_digits=n_digits, codebook_size=codebook_size, seed=seed, **more)


def fitted(name, n_digits=4, codebook_size=8, seed=0):
    return build(name, n_digits, codebook_size, seed).fit(WORLD)


@pytest.mark.parametrize(
    ("name", "n", "size"),
    [(name, n, size) for name in NAMES for n, size in [(1, 2), (4, 8), (5, 16), (16, 2)]]
    + [(name, n, size) for name in ANY_SIZES for n, size in [(3, 7), (1, (100,)), (4, (8, 3, 16, 5)), (6, (2, 20) * 3)]],
)
def test_codes_have_the_right_shape_and_range(name, n, size):
    tokenizer = fitted(name, n, size)
    sizes = (size,) * n if isinstance(size, int) else size
    assert tokenizer.codebook_sizes == sizes and tokenizer.codebook_size == max(sizes)
    codes = tokenizer.encode(VECTORS)
    assert codes.shape == (200, n) and codes.dtype == np.int32
    assert codes.min() >= 0 and (codes < np.array(sizes)).all()


@ALL_SIZES
def test_the_same_seed_gives_the_same_codes(name, size):
    assert (fitted(name, 4, size).encode(VECTORS) == fitted(name, 4, size).encode(VECTORS)).all()


@ALL
def test_nothing_is_learnt_from_items_outside_training(name):
    in_training = np.arange(200) % 2 > 0
    changed = np.where(in_training[:, None], VECTORS, 100 * VECTORS)
    one, other = (build(name).fit(replace(WORLD, embeddings=v, in_training=in_training)) for v in (VECTORS, changed))
    assert (one.encode(VECTORS) == other.encode(VECTORS)).all()


@ALL_SIZES
def test_a_row_does_not_depend_on_the_others(name, size):
    tokenizer = fitted(name, 4, size)
    assert (tokenizer.encode(VECTORS)[17:18] == tokenizer.encode(VECTORS[17:18])).all()


@ALL_SIZES
def test_codes_and_sids_survive_saving_and_sids_are_distinct(name, size, tmp_path):
    tokenizer = fitted(name, 4, size)
    ids, report = SemanticIds.build(tokenizer, VECTORS)
    tokenizer.state().save(tmp_path / "t.safetensors")
    again = build(name, 4, size).load_state(State.load(tmp_path / "t.safetensors"))
    assert (again.encode(VECTORS) == tokenizer.encode(VECTORS)).all()
    assert (SemanticIds.build(again, VECTORS)[0].codes == ids.codes).all()
    assert len(np.unique(ids.codes, axis=0)) == 200 == report.distinct_sids
    assert (ids.codes < np.array(ids.codebook_sizes)).all()


@ALL_SIZES
def test_items_that_come_later_get_free_sids(name, size):
    tokenizer = fitted(name, 4, size)
    ids = SemanticIds.build(tokenizer, VECTORS)[0]
    grown = ids.extended(tokenizer, VECTORS[:50])
    assert len(np.unique(grown.codes, axis=0)) == 250 and (grown.codes[:200] == ids.codes).all()
    assert grown.codebook_sizes == tokenizer.codebook_sizes


@ALL_SIZES
def test_an_extra_digit_tells_apart_what_its_digits_do_not(name, size):
    tokenizer = fitted(name, 4, size)
    ids = SemanticIds.build(tokenizer, VECTORS, "extra_digit")[0].extended(tokenizer, VECTORS[:50])
    assert (ids.codes[:, :4] == tokenizer.encode(np.concatenate([VECTORS, VECTORS[:50]]))).all()
    assert len(np.unique(ids.codes, axis=0)) == 250 and ids.codebook_sizes[:4] == tokenizer.codebook_sizes


@ALL_SIZES
def test_digit_costs_price_a_change_of_one_digit(name, size):
    tokenizer = fitted(name, 4, size)
    codes, sizes = tokenizer.encode(VECTORS), np.array(tokenizer.codebook_sizes)
    costs = tokenizer.digit_costs(VECTORS, codes)
    assert costs.shape == (200, 4, sizes.max()) and (costs >= 0).all()
    assert (np.isinf(costs) == (np.arange(sizes.max()) >= sizes[:, None])).all()
    own = np.take_along_axis(costs, codes[..., None].astype(np.int64), axis=-1)[..., 0]
    assert np.allclose(own, tokenizer.error(VECTORS, codes)[:, None], atol=1e-4)
    if tokenizer.error(VECTORS, codes).any():
        other = codes.copy()
        other[:, 2] = (other[:, 2] + 3) % sizes[2]
        changed = np.take_along_axis(costs[:, 2], other[:, 2:3].astype(np.int64), axis=1)[:, 0]
        assert np.allclose(changed, tokenizer.error(VECTORS, other), atol=1e-4)


@ALL_SIZES
def test_sids_come_from_the_cache_with_a_tokenizer_that_encodes(name, size, tmp_path, monkeypatch):
    first, second = build(name, 4, size), build(name, 4, size)
    ids, report = tokenize_items(first, WORLD, "reassign", {}, tmp_path)
    monkeypatch.setattr(type(second), "_fit", lambda *_: pytest.fail("fitted again"))
    ids_again, report_again = tokenize_items(second, WORLD, "reassign", {}, tmp_path)
    assert (ids.codes == ids_again.codes).all() and report == report_again
    assert ids.codebook_sizes == ids_again.codebook_sizes == first.codebook_sizes
    assert (first.encode(VECTORS[::-1]) == second.encode(VECTORS[::-1])).all()


@ALL
def test_bad_vectors_are_refused(name):
    tokenizer = fitted(name)
    bad = VECTORS.copy()
    bad[3, 4], bad[5, 0] = np.nan, np.inf
    with pytest.raises(DataError, match="embeddings of 2 items hold NaN or infinity: 3, 5"):
        tokenizer.encode(bad)
    with pytest.raises(DataError, match="embeddings of 2 items hold NaN or infinity"):
        build(name).fit(TokenizerContext.of(bad))
    with pytest.raises(DataError, match="embeddings are 9 wide, but the tokenizer was fitted on 16"):
        tokenizer.encode(VECTORS[:, :9])
    with pytest.raises(DataError, match="expected \\(200, width\\), one row an item"):
        tokenizer.encode(VECTORS[:, :, None])


@pytest.mark.parametrize("in_training", [np.ones(199, dtype=bool), np.arange(200)])
def test_a_context_wants_one_truth_value_an_item(in_training):
    with pytest.raises(TokenizerError, match=r"in_training has shape .* expected \(200,\) and bool, one value an item"):
        TokenizerContext(VECTORS, in_training)


BAD_SIZES = [
    (4, 1, "whole numbers from 2 to 65536, found "),
    (4, (8, 4, 2, 65_537), r"whole numbers from 2 to 65536, found \(8, 4, 2, 65537\)"),
    (4, (8, 4), r"a list of n_digits=4 numbers; found 2: \(8, 4\)"),
]


@pytest.mark.parametrize(
    ("name", "n", "size", "text"),
    [(name, n, 8, "1 to 64") for name in NAMES for n in (0, 65)]
    + [(name, *bad) for name in ANY_SIZES for bad in BAD_SIZES]
    + [
        (name, 4, size, "power of two from 2 to 65536, found") for name in IN_BITS for size in (100, (8, 8, 8, 8), 1, 2**17)
    ],
)
def test_impossible_sizes_are_refused(name, n, size, text):
    with pytest.raises(TokenizerError, match=text):
        resolve("tokenizer", name)(n_digits=n, codebook_size=size)


def test_a_recipe_takes_one_size_or_a_list_and_refuses_others_at_once():
    assert check_options("tokenizer", "random", {"codebook_size": 100}, "tokenizer")[0]["codebook_size"] == 100
    assert check_options("tokenizer", "random", {"codebook_size": [4, 3]}, "tokenizer")[0]["codebook_size"] == (4, 3)
    for name, size, text in [
        ("random", [4, 1], "expected whole numbers from 2 to 65536, found (4, 1)"),
        (
            "opq",
            100,
            "expected a power of two from 2 to 65536, found 100: this tokenizer counts the codes of a digit in bits",
        ),
        ("opq", [4, 4], "expected a power of two from 2 to 65536, found [4, 4]: this tokenizer counts"),
    ]:
        (problem,) = check_options("tokenizer", name, {"codebook_size": size}, "tokenizer")[1]
        assert text in problem


@ALL
def test_an_unfitted_tokenizer_says_so(name):
    with pytest.raises(TokenizerError, match="not fitted yet: call fit first"):
        build(name).encode(VECTORS)


@pytest.mark.parametrize(("name", "largest"), [("opq", 16), ("residual_kmeans", 20)])
def test_fewer_items_than_codes_are_refused_with_the_largest_size_that_fits(name, largest):
    with pytest.raises(TokenizerError, match=f"20 training items are fewer than the 32 codes .* at most {largest}"):
        build(name, 4, 32).fit(TokenizerContext(VECTORS, np.arange(200) < 20))


def test_one_training_item_is_too_few_for_any_codebook():
    with pytest.raises(
        TokenizerError, match="^1 training items are fewer than the 2 codes of a digit; give more items with"
    ):
        build("opq", 1, 2).fit(TokenizerContext(VECTORS, np.arange(200) < 1))


def test_random_codes_are_equally_likely_whatever_their_number():
    many = np.random.default_rng(1).normal(size=(2000, 2)).astype(np.float32)
    codes = build("random", 4, 3 * 2**14).fit(TokenizerContext.of(many)).encode(many)
    assert (codes < 2**14).mean() == pytest.approx(1 / 3, abs=0.03)  # 16 bits alone would give a half


def test_a_gradient_tokenizer_learns_by_the_contexts_seed_alone_and_keeps_its_checkpoint(tmp_path):
    import torch

    before = torch.get_rng_state()
    contexts = [TokenizerContext.of(VECTORS, seed) for seed in (0, 0, 1)]
    one, same, other = (build(GRADIENT, 3, (16, 8, 4)).fit(context).encode(VECTORS) for context in contexts)
    assert (one == same).all() and (one != other).any()
    assert torch.equal(torch.get_rng_state(), before)
    short, long = (resolve("tokenizer", GRADIENT)(steps=steps) for steps in (1, 300))
    folder = tmp_path / "run" / "tokenizer"
    errors = [
        t.fit(TokenizerContext(VECTORS, WORLD.in_training, folder=folder)).error(VECTORS, t.encode(VECTORS)).mean()
        for t in (short, long)
    ]
    assert errors[1] < 0.8 * errors[0]
    assert [path.name for path in folder.iterdir()] == ["gradient_tokenizer.pt"]
