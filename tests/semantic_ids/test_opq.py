"""OPQ: what its codes stand for, and lengths that are kept."""

from __future__ import annotations

import numpy as np
import pytest

from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import TokenizerError
from diffgrm.semantic_ids.tokenizers import opq
from diffgrm.semantic_ids.tokenizers.base import TokenizerContext
from diffgrm.semantic_ids.tokenizers.opq import OPQTokenizer

GENERATOR = np.random.default_rng(0)
VECTORS = (GENERATOR.normal(size=(200, 12)) * np.linspace(3, 0.2, 12) + 1).astype(np.float32)
SIZES = {"n_digits": 3, "codebook_size": 8, "iterations": 4}


def fitted(**options):
    return OPQTokenizer(**{**SIZES, **options}).fit(TokenizerContext.of(VECTORS))


@pytest.mark.parametrize("rotate", [True, False])
@pytest.mark.parametrize("whiten", [True, False])
@pytest.mark.parametrize("pca_width", [12, 6])
@pytest.mark.parametrize("n_digits", [1, 3])
def test_the_vectors_of_an_items_codes_add_up_to_it_but_for_the_error(rotate, whiten, pca_width, n_digits):
    """In the space after PCA; and in that before it, where that turns only."""
    tokenizer = fitted(unit=False, rotate=rotate, whiten=whiten, pca_width=pca_width, n_digits=n_digits)
    codes, table = tokenizer.encode(VECTORS), tokenizer.code_vectors()
    assert table.shape == (n_digits, 8, 12) and table.dtype == np.float32
    summed = table[np.arange(n_digits), codes].sum(1)
    apart = (VECTORS - summed) @ tokenizer.projection
    np.testing.assert_allclose((apart**2).sum(1), tokenizer.error(VECTORS, codes), rtol=1e-3, atol=1e-3)
    other = GENERATOR.integers(0, 8, codes.shape)
    apart = (VECTORS - table[np.arange(n_digits), other].sum(1)) @ tokenizer.projection
    np.testing.assert_allclose((apart**2).sum(1), tokenizer.error(VECTORS, other), rtol=1e-3, atol=1e-3)
    if not whiten and pca_width == 12:
        squared = ((VECTORS - summed) ** 2).sum(1)
        np.testing.assert_allclose(squared, tokenizer.error(VECTORS, codes), rtol=1e-3, atol=1e-3)


def test_without_unit_lengths_count_and_with_it_they_do_not():
    longer = VECTORS.mean(0) + 2 * (VECTORS - VECTORS.mean(0))  # the same directions from the mean
    kept, normed = fitted(unit=False, whiten=False), fitted(whiten=False)
    assert (normed.encode(longer) == normed.encode(VECTORS)).mean() > 0.99
    assert (kept.encode(longer) == kept.encode(VECTORS)).mean() < 0.9


def test_codes_of_vectors_of_length_1_do_not_add_up():
    with pytest.raises(TokenizerError, match=r"tokenizer.unit=true .* set tokenizer.unit=false"):
        fitted().code_vectors()


@pytest.mark.parametrize("name", ["random", "residual_kmeans"])
def test_tokenizers_without_such_vectors_say_so(name):
    tokenizer = resolve("tokenizer", name)(n_digits=3, codebook_size=8).fit(TokenizerContext.of(VECTORS))
    with pytest.raises(TokenizerError, match=r"has no vectors of codes that add up to items'; use tokenizer.name=opq"):
        tokenizer.code_vectors()


def test_of_more_items_than_the_most_a_sample_in_training_is_learnt_from(monkeypatch):
    monkeypatch.setattr(opq, "MOST_POINTS", 60)
    in_training = np.arange(len(VECTORS)) % 2 == 0
    context = TokenizerContext(VECTORS, in_training)
    found = OPQTokenizer(**SIZES, seed=3).fit(context)
    sample = np.sort(np.random.default_rng(3).choice(np.flatnonzero(in_training), 60, replace=False))
    wanted = OPQTokenizer(**SIZES, seed=3).fit(TokenizerContext.of(VECTORS[sample]))
    assert all(np.array_equal(array, wanted.state().arrays[name]) for name, array in found.state().arrays.items())


@pytest.mark.parametrize(("pca_width", "n_digits", "width"), [(11, 4, 8), (8, 4, 8), (100, 5, 10), (3, 3, 3), (7, 1, 7)])
def test_the_width_after_pca_is_rounded_down_to_a_multiple_of_the_digits(pca_width, n_digits, width):
    assert fitted(pca_width=pca_width, n_digits=n_digits).projection.shape == (12, width)


def test_dimensions_that_do_not_suffice_are_told_by_what_leaves_them():
    with pytest.raises(TokenizerError) as caught:
        OPQTokenizer(4, 16, pca_width=2)
    assert str(caught.value) == (
        "tokenizer.pca_width=2 is less than tokenizer.n_digits=4, of which each takes a dimension at least; raise the "
        "first to a multiple of 4, or lower the second"
    )
    with pytest.raises(
        TokenizerError, match=r"^13 digits need at least as many .* 200 training vectors of width 12 leave 12;"
    ):
        fitted(n_digits=13)
    with pytest.raises(
        TokenizerError, match=r"^9 digits need at least as many .* 9 training vectors of width 12 leave 8; lower"
    ):
        OPQTokenizer(9, 8).fit(TokenizerContext(VECTORS, np.arange(200) < 9))
