"""Masked diffusion that knows the catalogue, against sums written out."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from diffgrm import DiffGRMRecommender, HybridRecommender
from diffgrm.data.dataset import Ragged
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import RecipeError
from diffgrm.learning.batches import Batch
from diffgrm.learning.item_losses import Sample
from diffgrm.learning.noising.base import Views
from diffgrm.learning.objectives import catalogue
from diffgrm.learning.objectives.catalogue import CatalogueDiffusionObjective
from diffgrm.learning.objectives.diffusion import DiffusionObjective
from helpers.commands import called, save_tables
from helpers.networks import SMALL, START, build, features, learning_task, one_batch
from helpers.recipes import small_generation, small_recipe
from helpers.runs import killed_fit, same_weights

N, K, ITEMS = 3, 4, 30
ALONE = torch.from_numpy(np.random.default_rng(0).permutation(list(itertools.product(range(K), repeat=N)))[:ITEMS])
SHARED = ALONE[torch.from_numpy(np.random.default_rng(1).integers(0, 12, ITEMS))]  # several items behind most
CODES = pytest.mark.parametrize("codes", [ALONE, SHARED], ids=["a semantic ID each", "shared semantic IDs"])
MASKS = torch.tensor(list(itertools.product([True, False], repeat=N)))  # every view, that which hides nothing last
TARGETS = Batch(None, torch.arange(ITEMS), None, None)  # every item
COUNTS = np.arange(ITEMS) % 4  # a quarter has no training events
GENERATOR = torch.Generator()


def objective(codes=ALONE, counts=COUNTS, network=None, noising=None, settings=(0.0, 0.0), teacher=None, **item_loss):
    schedule = noising or resolve("noising", "full_mask")()
    task = learning_task(network, codes, schedule, counts=counts, teacher=teacher, **item_loss)
    return CatalogueDiffusionObjective(task, *settings)


class Opinion:
    """A teacher that likes items as a table says."""

    def __init__(self):
        self.table = torch.randn(ITEMS, ITEMS, generator=torch.Generator().manual_seed(5))

    def users(self, batch):
        return self.table[batch.target]

    def items(self, items):
        return torch.eye(ITEMS)[items]


def every_view(seed=0):
    """Logits [I, V, n, K] of all items as targets in every view, 0 where digits are known."""
    mask = MASKS.expand(ITEMS, -1, -1)
    logits = 2 * torch.randn(*mask.shape, K, generator=torch.Generator().manual_seed(seed))
    return logits.masked_fill(~mask[..., None], 0).requires_grad_(), Views.equal(mask)


def oracle(codes, logits, mask, target):
    """The cross-entropy of one target, and of those that share its semantic ID, among the items that fit a view."""
    rows, own = codes.tolist(), codes[target].tolist()
    mass = together = 0.0
    for row in rows:
        if all(hidden or row[j] == own[j] for j, hidden in enumerate(mask.tolist())):
            weight = math.exp(sum(logits[j, row[j]].item() for j in range(N) if mask[j]))
            mass, together = mass + weight, together + weight * (row == own)
    return math.log(mass / together)


@CODES
def test_every_view_is_a_question_about_the_items_that_fit_it(codes):
    """Items without training events are rivals as all others are."""
    logits, views = every_view()
    found = objective(codes).item_losses(logits, TARGETS, views, GENERATOR)
    for target in range(ITEMS):
        for view, mask in enumerate(MASKS):
            assert found[target, view].item() == pytest.approx(oracle(codes, logits[target, view], mask, target), abs=1e-4)
    assert (found >= -1e-5).all() and (found[:, -1] == 0).all()
    found.sum().backward()
    assert logits.grad.isfinite().all() and (logits.grad[~views.mask].abs() < 1e-5).all() and (logits.grad != 0).any()


def test_who_shares_a_semantic_id_is_no_rival():
    """Where nobody else fits, nothing is left to learn."""
    codes = torch.tensor([[0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 1, 1]])
    logits = torch.randn(4, 2, N, K, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True, True, True], [False, True, True]]).expand(4, -1, -1)
    losses = objective(codes, np.ones(4, int)).item_losses(
        logits.masked_fill(~mask[..., None], 0), TARGETS._replace(target=torch.arange(4)), Views.equal(mask), GENERATOR
    )
    assert torch.allclose(losses[:, 1], torch.zeros(4), atol=1e-6) and (losses[:, 0] > 0.01).all()
    assert losses[0, 0].item() == pytest.approx(oracle(codes, logits[0, 0], mask[0, 0], 0), abs=1e-5)


@CODES
@pytest.mark.parametrize("logq", [True, False])
def test_with_every_item_drawn_once_the_sampled_loss_is_the_full_one(codes, logq, monkeypatch):
    """Another order of them changes nothing, and neither do the target and who shares its semantic ID among them."""
    logits, views = every_view()
    wanted = objective(codes).item_losses(logits, TARGETS, views, GENERATOR)
    drawn = Sample(torch.randperm(ITEMS, generator=GENERATOR), torch.zeros(ITEMS) if logq else None)
    monkeypatch.setattr(catalogue, "draw", lambda *_: drawn)
    sampled = objective(codes, kind="sampled_softmax", logq=logq)
    found = sampled.item_losses(logits, TARGETS, views, GENERATOR)
    assert torch.allclose(found, wanted, atol=1e-5)
    sampled.item_losses(logits, TARGETS, views, GENERATOR).sum().backward()
    assert logits.grad.isfinite().all()


@CODES
@pytest.mark.parametrize("power", [0.0, 0.5])
def test_many_negatives_estimate_the_full_loss(codes, power):
    """Corrected for how often each is drawn; items without events are drawn where all are alike."""
    counts = COUNTS if power == 0 else COUNTS + 1
    logits, views = every_view()
    logits, views = logits.detach()[:, :1], Views(*(part[:, :1] for part in views))
    wanted = objective(codes).item_losses(logits, TARGETS, views, GENERATOR)
    many = objective(codes, counts, kind="sampled_softmax", negatives=60_000, negative_power=power)
    found = many.item_losses(logits, TARGETS, views, torch.Generator().manual_seed(0))
    assert torch.allclose(found, wanted, atol=0.05)


@pytest.mark.parametrize("drawn", [False, True], ids=["all items", "every item drawn once"])
def test_a_teachers_opinion_stands_beside_the_target(drawn, monkeypatch):
    """Of views that hide all digits: its probabilities of all items, at its temperature, by its share."""
    logits, views = every_view()
    monkeypatch.setattr(catalogue, "draw", lambda *_: Sample(torch.arange(ITEMS)) if drawn else None)
    plain = objective().item_losses(logits, TARGETS, views, GENERATOR)
    taught = objective(settings=(0.0, 0.0, 0.3, 2.0), teacher=Opinion()).item_losses(logits, TARGETS, views, GENERATOR)
    assert torch.allclose(taught[:, 1:], plain[:, 1:], atol=1e-6)
    scores = torch.stack([logits[:, 0, j, ALONE[:, j]] for j in range(N)]).sum(0)  # [I targets, I items]
    wanted = -((Opinion().table / 2).softmax(1) * scores.log_softmax(1)).sum(1)
    assert torch.allclose(taught[:, 0], 0.3 * wanted + 0.7 * plain[:, 0], atol=1e-4)
    taught.sum().backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("drawn", [False, True], ids=["all items", "every item drawn once"])
def test_a_teachers_opinion_of_a_semantic_id_is_that_of_all_items_behind_it(drawn, monkeypatch):
    """Cross-entropy over semantic IDs, enumerated, where several items share most of them."""
    logits, views = every_view()
    monkeypatch.setattr(catalogue, "draw", lambda *_: Sample(torch.randperm(ITEMS)) if drawn else None)
    made = objective(SHARED, settings=(0.0, 0.0, 1.0, 2.0), teacher=Opinion())
    taught = made.item_losses(logits, TARGETS, views, GENERATOR)[:, 0]
    sids = sorted({tuple(row) for row in SHARED.tolist()})
    behind = torch.tensor([[float(tuple(row) == sid) for row in SHARED.tolist()] for sid in sids])  # [D, I]
    assert len(sids) < ITEMS and behind.sum(1).max() > 1
    opinion = (Opinion().table / 2).softmax(1) @ behind.T  # [I targets, D]
    scores = torch.stack([logits[:, 0, j, SHARED[:, j]] for j in range(N)]).sum(0)
    probability = scores.softmax(1) @ behind.T
    assert torch.allclose(taught, -(opinion * probability.log()).sum(1), atol=1e-4)
    taught.sum().backward()
    assert logits.grad.isfinite().all()


def test_there_must_be_a_teacher_to_learn_from():
    with pytest.raises(RecipeError, match=r"objective.teacher_weight needs an item scorer to learn from; choose embedding"):
        objective(settings=(0.0, 0.0, 0.3))


# ---- the loss of a batch ----------------------------------------------------------------------------------------------

EVENTS = Ragged.from_lists([[1, 2, 3, 4, 5, 6], [7, 8], [9, 10, 7, 0], [2, 6, 1]])
FEATURES = features()


def batch_loss(made, seed=0):
    return made.loss(one_batch(EVENTS, made.shared), torch.Generator().manual_seed(seed), START).item()


@pytest.mark.parametrize("noising", ["full_mask", "coherent", "random", "confidence"])
def test_the_loss_is_that_of_items_and_that_of_digits_by_its_weight(noising):
    network, schedule = build("diffgrm", **SMALL), resolve("noising", noising)()
    items, both = (
        objective(FEATURES.codes, np.ones(12, int), network, schedule, (weight, smoothing))
        for weight, smoothing in ((0.0, 0.0), (0.3, 0.2))
    )
    digits = DiffusionObjective(items.task, "view_mean", 0.2)
    assert batch_loss(both) == pytest.approx(batch_loss(items) + 0.3 * batch_loss(digits), rel=1e-5)


def test_of_a_single_view_the_loss_is_the_mean_over_targets():
    network = build("diffgrm", **SMALL)
    made = objective(FEATURES.codes, np.ones(12, int), network)
    batch = one_batch(EVENTS, made.shared)
    views, logits = made.asked(batch, made.encode(batch), GENERATOR, START)
    wanted = [oracle(FEATURES.codes, logits[row, 0], views.mask[row, 0], item) for row, item in enumerate(batch.target)]
    assert batch_loss(made) == pytest.approx(np.mean(wanted), rel=1e-5)


def test_every_item_of_a_view_that_counts_nothing_is_left_out():
    """A schedule that hides nothing in some views gives them no weight."""
    network = build("diffgrm", **SMALL)
    made = objective(FEATURES.codes, np.ones(12, int), network, resolve("noising", "random")(draw="fixed_p", p=0.01))
    assert np.isfinite([batch_loss(made, seed) for seed in range(3)]).all()


# ---- what it cannot work with -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bce", "gbce"])
def test_losses_that_compare_no_item_with_all_others_are_refused(kind):
    with pytest.raises(
        RecipeError, match=f"item_loss.kind = {kind} tells no item .*set item_loss.kind to softmax or sampled"
    ):
        objective(kind=kind)


REFUSED = {
    "item_loss.kind=bce": "item_loss.kind = bce tells no item from all others",
    "item_loss.kind=gbce": "item_loss.kind = gbce tells no item from all others",
    "item_loss.cosine=true": "item_loss.cosine = True does nothing with the objective 'catalogue_diffusion'",
    "item_loss.temperature=0.5": "item_loss.temperature = 0.5 does nothing with the objective",
    "item_loss.label_smoothing=0.1": "item_loss.label_smoothing = 0.1 does nothing with the objective",
    "objective.label_smoothing=0.1": "objective.label_smoothing is of the loss of single digits, which .*digit_weight = 0",
    "objective.teacher_temperature=2": "objective.teacher_temperature does nothing with objective.teacher_weight = 0",
    "item_loss.logq=false": "item_loss.logq = False does nothing with item_loss.kind = softmax",
}


@pytest.mark.parametrize(("setting", "message"), REFUSED.items())
def test_settings_that_do_nothing_are_refused_before_anything_is_learnt(setting, message, toy, monkeypatch):
    monkeypatch.setattr("diffgrm.recommenders.texts.embed_items", lambda *_, **__: pytest.fail("it embeds"))
    recipe = small_recipe("diffgrm").override(["objective.name=catalogue_diffusion", setting])
    with pytest.raises(RecipeError, match=message):
        DiffGRMRecommender(recipe).fit(toy, progress=False)


def test_all_that_is_wrong_is_told_at_once_on_the_command_line_too(toy, tmp_path, monkeypatch, capsys):
    settings = ["item_loss.kind=bce", "item_loss.cosine=true", "objective.label_smoothing=0.1"]
    (tmp_path / "recipe.yaml").write_text(
        small_recipe("diffgrm").override(["objective.name=catalogue_diffusion"]).to_yaml()
    )
    fit = ["fit", "--recipe", tmp_path / "recipe.yaml", *save_tables(toy, tmp_path), "--out", tmp_path / "model"]
    code, _, err = called(monkeypatch, capsys, *fit, *settings)
    assert code == 2 and all(REFUSED[setting].split(", ")[0] in err for setting in settings)


def test_beside_whole_items_their_settings_do_something(toy):
    """Items go by cosines; the digits learnt beside them by the same draws."""
    recipe = small_recipe("hybrid").override(
        [
            "objective.digits.name=catalogue_diffusion",
            "item_loss.cosine=true",
            "item_loss.temperature=0.1",
            "training.epochs=1",
        ]
    )
    recommender = HybridRecommender(recipe).fit(toy, progress=False)
    assert recommender.recommend([["item 3"]]).height == 10
    with pytest.raises(RecipeError, match="item_loss.kind = bce tells no item from all others"):
        HybridRecommender(recipe.override(["item_loss.kind=bce"])).fit(toy, progress=False)


# ---- in a recommender -------------------------------------------------------------------------------------------------


def test_it_learns_and_a_killed_run_goes_on_as_if_nothing_had_happened(toy, tmp_path):
    recipe = small_recipe("diffgrm").override(
        [
            "objective.name=catalogue_diffusion",
            "objective.digit_weight=0.2",
            "objective.label_smoothing=0.1",
            "noising.name=coherent",
            "noising.shown=[0, 1]",
            "item_loss.kind=sampled_softmax",
            "item_loss.negatives=32",
            "training.epochs=4",
            "training.schedule=constant",
            "decoding.name=one_pass",
        ]
    )
    whole = DiffGRMRecommender(recipe).fit(toy, run_folder=tmp_path / "whole", progress=False)
    killed_fit(recipe, tmp_path / "run", epoch=3, step=3)
    resumed = DiffGRMRecommender(recipe).fit(toy, run_folder=tmp_path / "run", resume=True, progress=False)
    assert same_weights(resumed, whole)


def test_it_fits_where_items_share_semantic_ids(toy):
    recipe = small_recipe("diffgrm").override(
        [
            "objective.name=catalogue_diffusion",
            "noising.name=coherent",
            "semantic_ids.collisions=share",
            "training.epochs=2",
        ]
    )
    recommender = DiffGRMRecommender(recipe).fit(toy, progress=False)
    assert recommender.semantic_ids.codes.shape[0] > len(np.unique(recommender.semantic_ids.codes, axis=0))
    assert recommender.recommend([["item 3"]], k=300).height == 300


def test_it_learns_from_a_scorer_where_items_share_semantic_ids(toy):
    shared = ["semantic_ids.collisions=share", "tokenizer.codebook_size=4", "training.epochs=1", "training.precision=bf16"]
    recipe = small_generation(*shared)
    recommender = DiffGRMRecommender(recipe).fit(toy, progress=False)
    assert len(np.unique(recommender.semantic_ids.codes, axis=0)) < len(recommender.semantic_ids.codes)
    assert recommender.recommend([["item 3"]], k=300).height == 300
