"""What every noising schedule must do."""

from __future__ import annotations

import pytest
import torch

from diffgrm import DiffGRMRecommender, Recipe
from diffgrm.foundation.registry import names, resolve
from diffgrm.foundation.schema import RecipeError
from diffgrm.learning.context import LearningContext
from diffgrm.learning.noising.base import NoisingContext
from helpers.commands import called, save_tables
from helpers.recipes import small_recipe

ALL = pytest.mark.parametrize("name", names("noising"))
START = LearningContext.start()
CODES = torch.randint(0, 8, (50, 4), generator=torch.Generator().manual_seed(0))


def probe(codes, mask):
    """Logits that depend on the row, so that confidences differ."""
    generator = torch.Generator().manual_seed(int(mask.sum()))
    return 3 * torch.randn(*codes.shape, 8, generator=generator)


def histories():
    """Digits of three items before each target, of which the first one or more are known."""
    return CODES[:, None].expand(-1, 3, -1), torch.arange(3) <= torch.arange(50)[:, None] % 3


def views(name, seed=0, learning=START, **options):
    context = NoisingContext(probe, torch.Generator().manual_seed(seed), learning, histories)
    return resolve("noising", name)(**options).views(CODES, context)


@ALL
def test_views_have_their_shapes_and_something_is_hidden(name):
    mask, *weights = views(name)
    assert mask.dtype == torch.bool and mask.shape[0] == 50 and mask.shape[2] == 4
    assert mask.any()
    for weight in weights:
        assert weight.shape == mask.shape[:2] and torch.isfinite(weight).all() and (weight >= 0).all()
    assert (weights[0][~mask.any(-1)] == 0).all()


@ALL
def test_randomness_comes_from_the_generator_alone(name):
    state = torch.random.get_rng_state()
    first, second = views(name, 3), views(name, 3)
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    assert (torch.random.get_rng_state() == state).all()


@ALL
def test_targets_are_left_alone(name):
    before = CODES.clone()
    views(name)
    assert (before == CODES).all()


@ALL
def test_something_is_hidden_however_far_training_is(name):
    for step in (0, 50, 100):
        found = views(name, learning=LearningContext(step, 100, step // 10, 10))
        assert found.mask.any() and (found.view_weight >= 0).all() and found.view_weight.sum() > 0


@ALL
def test_one_target_alone_has_views_too(name):
    context = NoisingContext(probe, torch.Generator().manual_seed(0), START, lambda: tuple(x[:1] for x in histories()))
    mask = resolve("noising", name)().views(CODES[:1], context).mask
    assert mask.shape[0] == 1 and mask.shape[2] == 4


@ALL
def test_it_works_with_any_number_of_digits_unless_told_otherwise(name):
    assert resolve("noising", name)().check(1, 10) is None


# ---- coherent: views by how many digits they show -------------------------------------------------------------------


@pytest.mark.parametrize("shown", [(0,), (1,), (3,), (0, 1), (2, 0), (0, 1, 2, 3)])
def test_chosen_views_show_so_many_digits_of_one_order(shown):
    found = views("coherent", shown=shown)
    assert (~found.mask).sum(-1).tolist() == [list(shown)] * len(CODES)
    assert all(weight.shape == found.mask.shape[:2] and (weight == 1).all() for weight in found[1:])
    every = views("coherent")  # the same order is drawn
    for place, count in enumerate(shown):
        assert torch.equal(found.mask[:, place], every.mask[:, 3 - count])


@pytest.mark.parametrize(("shown", "told"), [((4,), "4"), ((0, 5, 7), "5, 7"), ((-1, 2), "-1")])
def test_views_that_would_hide_nothing_are_refused(shown, told):
    message = rf"noising.shown names views that show {told} of 4 digits.*expected 0 to 3"
    with pytest.raises(RecipeError, match=message):
        views("coherent", shown=shown)
    with pytest.raises(RecipeError, match=message):
        resolve("noising", "coherent")(shown=shown).check(4, 10)


def test_what_is_no_list_of_numbers_of_digits_is_refused_by_the_recipe():
    for shown in ([], [-1], 2, ["a"]):
        with pytest.raises(RecipeError, match="noising.shown"):
            Recipe(recommender="diffgrm", noising={"name": "coherent", "shown": shown})


def test_a_fit_is_refused_before_anything_is_learnt(toy, tmp_path, monkeypatch, capsys):
    """With the digits of the tokenizer, through Python and the command line."""
    monkeypatch.setattr("diffgrm.recommenders.texts.embed_items", lambda *_, **__: pytest.fail("it embeds"))
    changes = ["tokenizer.n_digits=3", "noising.name=coherent", "noising.shown=[0, 3]"]
    recipe = small_recipe("diffgrm").override(changes)
    with pytest.raises(RecipeError, match="views that show 3 of 3 digits"):
        DiffGRMRecommender(recipe).fit(toy, progress=False)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    tables = save_tables(toy, tmp_path)
    code, _, err = called(
        monkeypatch, capsys, "fit", "--recipe", tmp_path / "recipe.yaml", *tables, "--out", tmp_path / "m"
    )
    assert code == 2 and "views that show 3 of 3 digits" in err and not (tmp_path / "m").exists()
