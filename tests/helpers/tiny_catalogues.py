"""Items of three digits and four codes each, and some histories of them."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from diffgrm.data.dataset import Ragged
from diffgrm.ranking.catalogue import Catalogue
from diffgrm.ranking.ranker import Ranker

CODES = np.array(list(itertools.product(range(4), repeat=3)))
GENERATOR = np.random.default_rng(0)
HISTORIES = Ragged.from_lists([GENERATOR.integers(0, 40, size) for size in (1, 3, 7, 30, 2)])


def catalogue(share=False, items=40):
    return Catalogue(torch.from_numpy(CODES[np.random.default_rng(1).choice(64, items, replace=share)]), 4)


def rank(network, decoder, cat=None, k=15, exclude_seen=True):
    return Ranker.over_codes(network, decoder, cat or catalogue()).rank(HISTORIES, k, exclude_seen)
