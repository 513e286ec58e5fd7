"""What every tokenizer must do."""

from __future__ import annotations

import numpy as np
import pytest

from diffgrm.foundation.registry import names, resolve
from diffgrm.foundation.schema import DataError, RecipeError, TokenizerError
from diffgrm.foundation.storage import State
from diffgrm.semantic_ids.semantic_ids import SemanticIds

ALL = pytest.mark.parametrize("name", names("tokenizer"))
VECTORS = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)


def build(name, n_digits=4, codebook_size=8, seed=0):
    return resolve("tokenizer", name)(n_digits=n_digits, codebook_size=codebook_size, seed=seed)


@ALL
@pytest.mark.parametrize(("n", "size"), [(1, 2), (4, 8), (5, 16), (16, 2)])
def test_codes_have_the_right_shape_and_range(name, n, size):
    codes = build(name, n, size).fit(VECTORS).encode(VECTORS)
    assert codes.shape == (200, n) and codes.dtype == np.int32
    assert codes.min() >= 0 and codes.max() < size


@ALL
def test_the_same_seed_gives_the_same_codes(name):
    assert (build(name).fit(VECTORS).encode(VECTORS) == build(name).fit(VECTORS).encode(VECTORS)).all()


@ALL
def test_a_row_does_not_depend_on_the_others(name):
    tokenizer = build(name).fit(VECTORS)
    assert (tokenizer.encode(VECTORS)[17:18] == tokenizer.encode(VECTORS[17:18])).all()


@ALL
def test_codes_survive_saving(name, tmp_path):
    tokenizer = build(name).fit(VECTORS)
    tokenizer.state().save(tmp_path / "t.safetensors")
    again = build(name).load_state(State.load(tmp_path / "t.safetensors"))
    assert (again.encode(VECTORS) == tokenizer.encode(VECTORS)).all()


@ALL
def test_sids_survive_saving_and_are_distinct(name, tmp_path):
    tokenizer = build(name).fit(VECTORS)
    ids = SemanticIds.build(tokenizer, VECTORS)[0]
    tokenizer.state().save(tmp_path / "t.safetensors")
    again = build(name).load_state(State.load(tmp_path / "t.safetensors"))
    assert (SemanticIds.build(again, VECTORS)[0].codes == ids.codes).all()
    assert len(np.unique(ids.codes, axis=0)) == 200


@ALL
def test_digit_costs_price_a_change_of_one_digit(name):
    tokenizer = build(name).fit(VECTORS)
    codes = tokenizer.encode(VECTORS)
    costs = tokenizer.digit_costs(VECTORS, codes)
    assert costs.shape == (200, 4, 8) and (costs >= 0).all()
    own = np.take_along_axis(costs, codes[..., None].astype(np.int64), axis=-1)[..., 0]
    assert np.allclose(own, tokenizer.error(VECTORS, codes)[:, None], atol=1e-4)
    if tokenizer.error(VECTORS, codes).any():
        other = codes.copy()
        other[:, 2] = (other[:, 2] + 3) % 8
        changed = np.take_along_axis(costs[:, 2], other[:, 2:3].astype(np.int64), axis=1)[:, 0]
        assert np.allclose(changed, tokenizer.error(VECTORS, other), atol=1e-4)


@ALL
def test_bad_vectors_are_refused(name):
    tokenizer = build(name).fit(VECTORS)
    bad = VECTORS.copy()
    bad[3, 4], bad[5, 0] = np.nan, np.inf
    with pytest.raises(DataError, match="embeddings of 2 items hold NaN or infinity: 3, 5"):
        tokenizer.encode(bad)
    with pytest.raises(DataError, match="embeddings of 2 items hold NaN or infinity"):
        build(name).fit(bad)
    with pytest.raises(DataError, match="embeddings are 9 wide, but the tokenizer was fitted on 16"):
        tokenizer.encode(VECTORS[:, :9])
    with pytest.raises(DataError, match="expected \\(200, width\\), one row an item"):
        tokenizer.encode(VECTORS[:, :, None])


@ALL
@pytest.mark.parametrize(("n", "size", "text"), [(0, 8, "1 to 64"), (65, 8, "1 to 64"), (4, 100, "power of two")])
def test_impossible_sizes_are_refused(name, n, size, text):
    with pytest.raises((TokenizerError, RecipeError), match=text):
        build(name, n, size)


@ALL
def test_an_unfitted_tokenizer_says_so(name):
    with pytest.raises(TokenizerError, match="not fitted yet: call fit first"):
        build(name).encode(VECTORS)


@pytest.mark.parametrize("name", [n for n in names("tokenizer") if resolve("tokenizer", n).needs_items_per_code])
def test_fewer_items_than_codes_are_refused_with_the_largest_size_that_fits(name):
    with pytest.raises(TokenizerError, match="20 training items are fewer than the 32 codes .* at most 16"):
        build(name, 4, 32).fit(VECTORS[:20])
