"""Training and use in bf16, which is what training takes by itself on a GPU, over every registered method that trains."""

from __future__ import annotations

import pytest
import torch

from diffgrm import SASRecRecommender, leave_one_out, toy_world
from diffgrm.apps.choosing import validation_score
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.sections import ItemLossSettings
from diffgrm.learning.item_losses import draw, item_loss
from diffgrm.learning.objectives.aligned_next_item import mutual
from diffgrm.learning.objectives.vector_diffusion import contrast
from diffgrm.networks.contracts import Denoises, PredictsDigits, lacks
from helpers.gpus import AsOnGPUs
from helpers.networks import build, encode, histories, questions, trainable
from helpers.recipes import methods, unfitted

HISTORIES = [["item 3", "item 77"], ["item 410"]]
TRAINED = [name for name in methods() if "training" in unfitted(name).recipe.sections]


def test_what_gpus_lack_is_told():
    sparse, dense = torch.eye(2).to_sparse(), torch.ones(2, 3)
    with AsOnGPUs():
        assert torch.equal(sparse @ dense, dense)
        with torch.autocast("cpu", torch.bfloat16), pytest.raises(NotImplementedError, match="not implemented on GPUs"):
            sparse @ dense


@pytest.mark.parametrize("name", TRAINED)
def test_it_is_fitted_and_asked_in_half_precision_by_what_gpus_have(name, toy):
    recommender = unfitted(name)
    shorter = ["training.precision=bf16", "training.epochs=1", "training.validate_every=1"]
    recommender = type(recommender)(recommender.recipe.override(shorter))
    with AsOnGPUs():
        table = recommender.fit(toy, progress=False).to("cpu", "bf16").recommend(HISTORIES, k=5)
    assert table.height == 10 and table["score"].is_finite().all()


def test_validation_ranks_in_32_bits_as_use_does():
    dataset = toy_world(users=1000, seed=3).dataset
    shorter = ["training.precision=bf16", "training.epochs=1", "training.validate_every=1"]
    recommender = SASRecRecommender(unfitted("sasrec").recipe.override(shorter)).fit(dataset, progress=False)
    told = recommender.facts["validation"]["val_score"]
    assert told == pytest.approx(validation_score(recommender, leave_one_out(dataset), anew=True), abs=1e-6)


@pytest.mark.parametrize("kind", ["softmax", "sampled_softmax", "bce", "gbce"])
def test_autocast_rounds_no_scores_of_items(kind):
    generator = torch.Generator().manual_seed(0)
    hidden, items = torch.randn(9, 8, generator=generator), torch.randn(30, 8, generator=generator)
    settings = ItemLossSettings(kind=kind, **({} if kind == "softmax" else {"negatives": 4}))
    sample = draw(settings, torch.ones(30), 9, generator)

    def loss():
        return item_loss(hidden, torch.arange(9), items, settings, sample, 30)

    exact = loss()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(), exact)


def test_autocast_rounds_no_cosines():
    one, other = torch.randn(2, 7, 8, generator=torch.Generator().manual_seed(0))
    exact = contrast(one, 0.07), mutual(one, other, torch.eye(7, dtype=torch.bool), 0.07)
    with torch.autocast("cpu", torch.bfloat16):
        found = contrast(one, 0.07), mutual(one, other, torch.eye(7, dtype=torch.bool), 0.07)
    assert found == exact


OF_DIGITS = [
    (name, options)
    for name, options in trainable()
    if not all(lacks(resolve("model", name), ability) for ability in (Denoises, PredictsDigits))
]


@pytest.mark.parametrize(("name", "options"), OF_DIGITS, ids=str)
def test_autocast_rounds_no_logits_of_digits(name, options):
    """Of numbers that were rounded to 16 bits, rounding takes nothing more."""
    network = build(name, **{**options, "branches": ["sid"]}).eval()
    memory, (codes, mask) = encode(network, *histories(4)), questions(4, 3)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        if lacks(type(network), Denoises):
            logits = [network.predict(codes, memory), network.next_digit(None, None, memory)[0]]
        else:
            logits = [network.denoise(codes, mask, memory)[mask]]
    for found in logits:
        assert found.dtype == torch.float32
        assert (found != found.bfloat16().float()).float().mean() > 0.9
