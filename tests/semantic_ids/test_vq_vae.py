"""Tokenizers that learn by gradient."""

from __future__ import annotations

import numpy as np
import pytest

from diffgrm import DiffGRMRecommender, Recipe, load
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import RecipeError, TokenizerError
from diffgrm.foundation.storage import State
from diffgrm.semantic_ids.tokenizers.autoencoder import balanced
from diffgrm.semantic_ids.tokenizers.context import TokenizerContext
from helpers.recipes import small_recipe

NAMES = pytest.mark.parametrize("name", ["mh_vqvae", "rq_vae"])
SMALL = {"n_digits": 3, "codebook_size": 16, "width": 4, "hidden": (32,), "batch_size": 64, "check_every": 5, "epochs": 40}
GENERATOR = np.random.default_rng(0)
VECTORS = (GENERATOR.normal(size=(500, 4)) @ GENERATOR.normal(size=(4, 24))).astype(np.float32)  # of four dimensions
WORLD = TokenizerContext.of(VECTORS)


def fitted(name, seed=0, world=WORLD, **settings):
    return resolve("tokenizer", name)(**{**SMALL, **settings}, seed=seed).fit(world)


@NAMES
def test_the_reconstruction_error_falls_and_what_checks_found_is_there_to_read(name):
    checks = fitted(name).checks
    errors = [check.reconstruction_error for check in checks]
    assert [check.epoch for check in checks] == list(range(5, 45, 5))
    assert errors[-1] < 0.5 * errors[0] and errors[-1] < 0.25  # entries have variance 1
    assert all(len(check.utilisation) == 3 and 0 < min(check.utilisation) <= 1 for check in checks)
    assert [check.epoch for check in fitted(name, epochs=12).checks] == [5, 10, 12]


@NAMES
def test_codebooks_begin_as_k_means_of_what_the_untrained_encoder_makes_of_training_items(name):
    """Every row is the mean of the points for which it is the nearest; of what is left over, or of a piece each."""
    tokenizer = fitted(name, epochs=1, learning_rate=1e-12, weight_decay=0.0)
    centred = VECTORS - VECTORS.mean(0)
    left = tokenizer.encoder(centred / np.sqrt((centred**2).mean()))
    for digit, book in enumerate(tokenizer.codebooks.books):
        points = left if name == "rq_vae" else left[:, 4 * digit : 4 * digit + 4]
        nearest = ((points[:, None] - book) ** 2).sum(-1).argmin(1)
        means = np.stack([points[nearest == code].mean(0) for code in range(16)])
        assert np.allclose(book, means, atol=1e-4)
        if name == "rq_vae":
            left = left - book[nearest]


@NAMES
def test_the_state_of_the_second_half_with_fewest_items_in_surplus_is_kept(name):
    tokenizer = fitted(name)
    codes = tokenizer.encode(VECTORS)
    surplus = len(codes) - len(np.unique(codes, axis=0))
    late = [check for check in tokenizer.checks if check.epoch > 20]
    assert surplus == min(check.surplus for check in late)
    best = min(late, key=lambda check: (check.surplus, check.reconstruction_error))
    used = [len(np.unique(codes[:, j])) / 16 for j in range(3)]
    assert used == list(best.utilisation)


@NAMES
def test_a_seed_decides_all_and_saving_keeps_the_codes(name, tmp_path):
    one, same, other = (fitted(name, seed, epochs=5) for seed in (0, 0, 1))
    assert (one.encode(VECTORS) == same.encode(VECTORS)).all() and (one.encode(VECTORS) != other.encode(VECTORS)).any()
    one.state().save(tmp_path / "t.safetensors")
    again = resolve("tokenizer", name)(**SMALL).load_state(State.load(tmp_path / "t.safetensors"))
    assert (again.encode(VECTORS) == one.encode(VECTORS)).all()
    assert (again.error(VECTORS, one.encode(VECTORS)) == one.error(VECTORS, one.encode(VECTORS))).all()
    with pytest.raises(TokenizerError, match=r"the arrays of the tokenizer have the shapes .*, expected"):
        resolve("tokenizer", name)(**{**SMALL, "hidden": (16,)}).load_state(one.state())


@NAMES
def test_new_items_get_the_nearest_codes_whatever_was_done_in_training(name, monkeypatch):
    tokenizer = fitted(name, epochs=5)
    monkeypatch.setattr("diffgrm.semantic_ids.tokenizers.vq_vae.balanced", lambda *_, **__: pytest.fail("in use"))
    new = VECTORS[:50] + np.float32(0.01)
    costs = tokenizer.digit_costs(new, codes := tokenizer.encode(new))
    assert (costs[:, -1].argmin(1) == codes[:, -1]).all()  # of both, the last digit is the nearest to what is left
    if name == "mh_vqvae":
        assert (costs.argmin(-1) == codes).all()


@NAMES
def test_sinkhorn_is_asked_for_the_last_digit_in_training_only_where_it_is_set(name, monkeypatch):
    seen = []

    def noted(distances, epsilon, rounds):
        seen.append((distances.shape, epsilon, rounds))
        return balanced(distances, epsilon, rounds)

    monkeypatch.setattr("diffgrm.semantic_ids.tokenizers.vq_vae.balanced", noted)
    fitted(name, epochs=2, codebook_size=(16, 8, 4), epsilon=0.01, rounds=7)
    assert set(seen) == {((64, 4), 0.01, 7), ((500 % 64, 4), 0.01, 7)} and len(seen) == 16
    seen.clear()
    fitted(name, epochs=2, last_digit="nearest")
    assert not seen


@NAMES
def test_training_tells_items_apart_that_k_means_of_the_vectors_does_not(name):
    """Digits of a curved line in 24 dimensions."""
    angle = np.sort(np.random.default_rng(1).uniform(0, 6, 400))
    line = np.stack([np.sin(k * angle) for k in range(1, 25)], axis=1).astype(np.float32)
    tokenizer = fitted(name, world=TokenizerContext.of(line), epochs=60)
    codes = tokenizer.encode(line)
    place = np.arange(400)
    spread = [np.ptp(place[(codes == row).all(1)]) for row in np.unique(codes, axis=0)]
    assert np.median(spread) < 10  # items of one semantic ID lie side by side


@NAMES
def test_settings_that_do_nothing_or_cannot_be_are_refused(name):
    def recipe(**settings):
        return Recipe(recommender="diffgrm", tokenizer={"name": name, **settings})

    recipe(last_digit="nearest").refuse_idle()
    for idle in ({"epsilon": 0.1}, {"rounds": 3}):
        with pytest.raises(RecipeError, match=r"does nothing with tokenizer\.last_digit = nearest"):
            recipe(last_digit="nearest", **idle).refuse_idle()
        recipe(**idle).refuse_idle()
    for wrong in ({"epsilon": 0.001}, {"epochs": 0}, {"hidden": [0]}, {"commitment": -1}, {"last_digit": "first"}):
        with pytest.raises(RecipeError, match=next(iter(wrong))):
            recipe(**wrong)


@NAMES
def test_a_recommender_fits_saves_and_grows_with_it(name, toy, tmp_path):
    raw = small_recipe("diffgrm").override(["training.epochs=1"]).to_dict()
    settings = {key: list(value) if isinstance(value, tuple) else value for key, value in SMALL.items()}
    recommender = DiffGRMRecommender(Recipe.from_dict(raw | {"tokenizer": {"name": name, **settings, "epochs": 5}}))
    recommender.fit(toy, progress=False)
    again = load(recommender.save(tmp_path / "model"))
    new = toy.item_table.head(2).with_columns(item_id=toy.item_table["item_id"].head(2) + " anew")
    grown, theirs = recommender.add_items(new), again.add_items(new)
    assert np.array_equal(grown.semantic_ids.codes, theirs.semantic_ids.codes)
    assert len(np.unique(grown.semantic_ids.codes, axis=0)) == toy.n_items + 2
