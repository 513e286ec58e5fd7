"""Items of three digits and four codes each, and some histories of them."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from diffgrm.data.dataset import Ragged
from diffgrm.networks.inputs import ItemFeatures
from diffgrm.ranking.catalogue import Catalogue
from diffgrm.ranking.item_scoring.base import ItemScoring, ScoredItems
from diffgrm.ranking.item_scoring.text_neighbours import TextNeighbours
from diffgrm.ranking.item_scoring.vectors import VectorScorer
from diffgrm.ranking.item_table import ItemTable
from diffgrm.ranking.ranker import Ranker

CODES = np.array(list(itertools.product(range(4), repeat=3)))
GENERATOR = np.random.default_rng(0)
HISTORIES = Ragged.from_lists([GENERATOR.integers(0, 40, size) for size in (1, 3, 7, 30, 2)])


def catalogue(share=False, items=40):
    return Catalogue(torch.from_numpy(CODES[np.random.default_rng(1).choice(64, items, replace=share)]), 4)


def rank(network, decoder, cat=None, k=15, exclude_seen=True):
    return Ranker.over_codes(network, decoder, cat or catalogue()).rank(HISTORIES, k, exclude_seen)


def scoring_ranker(network, decoder, cat, *scorers, comparison=None):
    """Ranks by the network's item scores and those of other scorers."""
    everything = ItemFeatures(cat.codes_of(torch.arange(cat.n_items)))
    table = ItemTable(network, everything, comparison)
    nobody = TextNeighbours.alone(np.ones(cat.n_items, dtype=bool))
    scoring = ItemScoring((VectorScorer(), *scorers), ScoredItems(table.comparable, nobody))
    return Ranker(network, decoder, cat, table, scoring)
