"""Tiny networks for tests: what they are given, what they answer, and the tasks they are trained for."""

from __future__ import annotations

import inspect

import numpy as np
import torch
from torch import nn

from diffgrm.data.dataset import Ragged
from diffgrm.foundation.registry import names, resolve, settings
from diffgrm.foundation.sections import ItemLossSettings
from diffgrm.learning.batches import TrainingBatches
from diffgrm.learning.context import LearningContext
from diffgrm.learning.noising.base import NoisingContext
from diffgrm.learning.objectives.base import LearningTask, TrainingItems
from diffgrm.networks.inputs import ItemFeatures
from diffgrm.ranking.item_ranker import ItemRanker
from diffgrm.ranking.item_scoring.base import ItemScoring, ScoredItems
from diffgrm.ranking.item_scoring.text_neighbours import TextNeighbours
from diffgrm.ranking.item_scoring.vectors import VectorScorer
from diffgrm.ranking.item_table import ItemTable

GENERATOR = torch.Generator().manual_seed(0)
N, K, S = 3, 8, 5  # digits, codes of each, length of histories
ITEMS, TEXT = 12, 6
SIZES = {"n_digits": N, "codebook_size": K, "n_items": ITEMS, "text_width": TEXT}  # what the data decide
SMALL = {"width": 16, "heads": 2, "max_len": S, "dropout": 0.0}
START = LearningContext.start()
FROZEN = "masked_history"  # the network that another one steers


def trainable() -> list[tuple[str, dict]]:
    """Every registered network that is trained, by its defaults and, where it has such settings, otherwise too."""
    found = []
    for name in names("model"):
        if issubclass(resolve("model", name), nn.Module):
            known = settings("model", name)
            found.append((name, {}))
            if "history" in known:
                found.append((name, {"history": "causal"}))
            if "branches" in known:
                found.append((name, {"branches": ["sid", "text", "id"]}))
            if "tied" in known:
                found.append((name, {"positions": "rotary", "norm": "rms", "tied": False, "temperature": 0.5}))
            if "skip" in known:
                found.append((name, {"skip": True, "history": "causal"}))
            if "gated" in known:
                found.append((name, {"gated": True}))
            if "pairwise_rank" in known:
                found.append((name, {"pairwise_rank": 2, "history": "causal"}))
    return found


def build(name: str, **options) -> nn.Module:
    """A registered network over the items of :func:`features`; settings that it does not have are left out.

    A decoder past which the newest state goes has begun to add something to it, and so has what steers a frozen network;
    pairs of digits have begun to say something.
    """
    network = resolve("model", name)
    known, supplied = settings("model", name), inspect.signature(network).parameters
    sizes = {key: value for key, value in SIZES.items() if key in supplied}
    if "frozen" in supplied:
        sizes["frozen"] = build(FROZEN, **options)
    torch.manual_seed(0)
    built = network(**sizes, **{key: value for key, value in options.items() if key in known})
    if options.get("skip") and "skip" in known:
        nn.init.ones_(built.decoder.gate)
    if options.get("pairwise_rank") and "pairwise_rank" in known:
        nn.init.normal_(built.pairs.user.weight, std=0.5)
    if "frozen" in supplied:
        begin(built)
    return built


def begin(steering: nn.Module) -> None:
    """Give some value to the gates that are 0 at the start of a network that steers another one."""
    with torch.no_grad():
        for name, weight in steering.named_parameters():
            if ".gate." in name or name.endswith("_gate"):
                weight.copy_(torch.linspace(-0.1, 0.2, weight.numel() + 2)[1:-1].view(weight.shape))


def features(items: int = ITEMS, seed: int = 0) -> ItemFeatures:
    """Of items that no two networks could confuse; one has no training events."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randperm(K**N, generator=generator)[:items, None] // K ** torch.arange(N) % K
    text = nn.functional.normalize(torch.randn(items, TEXT, generator=generator), dim=1)
    trained = torch.arange(items) != items - 1
    return ItemFeatures(codes, text, torch.arange(items), trained)


def vectors(network, codes):
    """Vectors of items given by their digits [M, n] only."""
    return network.item_vectors(ItemFeatures(codes))


def encode(network, codes, valid):
    """Memory of histories given by their digits [B, S, n]."""
    return network.encode_history(
        vectors(network, codes.flatten(0, 1)), torch.arange(valid.numel()).view(valid.shape), valid
    )


def histories(batch, length=S):
    codes = torch.randint(0, K, (batch, length, N), generator=GENERATOR)
    lengths = torch.randint(1, length + 1, (batch,), generator=GENERATOR)
    lengths[0] = length
    return codes, torch.arange(length) < lengths[:, None]


def questions(batch, count):
    codes = torch.randint(0, K, (batch, count, N), generator=GENERATOR)
    return codes, torch.rand(batch, count, N, generator=GENERATOR) < 0.6


def close(a, b):
    return torch.allclose(a, b, atol=2e-5)


def noising_context(probe, generator=GENERATOR, learning=START):
    """For schedules that do not ask for histories."""
    return NoisingContext(probe, generator, learning, lambda: None)


def learning_task(
    network,
    codes=None,
    noising=None,
    ranking=lambda *_: None,
    items=None,
    counts=None,
    teacher=None,
    code_vectors=None,
    **item_loss,
):
    """What an objective is about, for items known by their digits, or by all that ``items`` says."""
    items = items or ItemFeatures(codes)
    counts = np.ones(len(items), dtype=np.int64) if counts is None else counts
    settings = ItemLossSettings(**item_loss)
    return LearningTask(network, TrainingItems(items, counts), ranking, settings, noising, teacher, code_vectors)


def one_batch(events: Ragged, shared: bool, max_len: int = S):
    """All targets of some users in one batch."""
    (batch,) = TrainingBatches(events, max_len, 64, seed=0, shared=shared)
    return batch


def item_ranker(network, items: ItemFeatures, comparison=None) -> ItemRanker:
    """Ranks by the network's vectors alone."""
    table = ItemTable(network, items, comparison)
    nobody = TextNeighbours.alone(np.ones(len(items), dtype=bool))
    return ItemRanker(network, table, ItemScoring((VectorScorer(),), ScoredItems(table.comparable, nobody)))
