"""How hard digits are to predict when some of the others are known: what the sizes of steps are planned by."""

from __future__ import annotations

import numpy as np
import torch

from diffgrm.data.dataset import Ragged
from diffgrm.networks.blocks import evaluating
from diffgrm.networks.contracts import Denoises, contract
from diffgrm.ranking.finite_answers import finite_answers
from diffgrm.ranking.ranker import Ranker


def digit_difficulty(ranker: Ranker, histories: Ragged, targets: np.ndarray, seed: int = 0) -> list[float]:
    """Mean negative log-likelihood in nats of a digit when j others are known, for j = 0..n-1.

    Which are known is drawn for each user: the first j of a random order of the digits. Of all that are unknown the mean is
    taken, so that it is f of arXiv 2602.20126 by the network's own opinion.

    Args:
        histories: item positions of U users, oldest first, at least one each.
        targets: [U] item positions that followed.
    """
    n, device = ranker.catalogue.n_digits, ranker.catalogue.codes.device
    contract(ranker.network, Denoises)
    denoise = finite_answers(ranker.network, "denoise")
    places = np.random.default_rng(seed).random((len(targets), n)).argsort(1)  # of each digit in the order
    total, count = torch.zeros(n, dtype=torch.float64), torch.arange(n, 0, -1)  # digits that are unknown
    with torch.no_grad(), evaluating(ranker.network):
        for users, memory in ranker.encoded(histories, rows=n):
            codes = ranker.catalogue.codes_of(torch.from_numpy(targets[users]).to(device))[:, None].expand(-1, n, -1)
            known = torch.arange(n, device=device)[:, None]  # of each question
            hidden = torch.from_numpy(places[users]).to(device)[:, None] >= known
            log_p = denoise(codes, hidden, memory).float().log_softmax(-1).gather(3, codes[..., None])[..., 0]
            total -= log_p.masked_fill(~hidden, 0).sum((0, 2)).cpu()
    return (total / count / max(len(targets), 1)).tolist()
