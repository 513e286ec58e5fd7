from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from diffgrm.data.dataset import Ragged
from diffgrm.learning.objectives.left_to_right import LeftToRightObjective
from diffgrm.networks.autoregressive import Autoregressive
from diffgrm.ranking.catalogue import Catalogue
from diffgrm.ranking.decoding.left_to_right import LeftToRight
from diffgrm.ranking.ranker import Ranker
from helpers.networks import START, K, N, S, close, encode, histories, learning_task, one_batch, vectors

GENERATOR = torch.Generator().manual_seed(0)


@pytest.fixture(params=["bidirectional", "causal"])
def network(request):
    torch.manual_seed(0)
    return Autoregressive(N, K, width=16, heads=2, decoder_layers=2, max_len=S, history=request.param).eval()


@pytest.mark.parametrize("beams", [5, 60], ids=["history as it is", "history folded"])
def test_digit_by_digit_with_the_cache_is_what_teacher_forcing_says(network, beams):
    codes, valid = histories(4)
    asked = torch.randint(0, K, (4, beams, N), generator=GENERATOR)
    with torch.no_grad():
        wanted = network.predict(asked, encode(network, codes, valid))
        memory = encode(network, codes, valid)
        logits, prefix = network.next_digit(None, None, memory)
        assert logits.shape == (4, 1, K) and close(logits.expand(-1, beams, -1), wanted[..., 0, :])
        prefix = prefix.take(torch.zeros(4, beams, dtype=torch.long))
        for digit in range(1, N):
            logits, prefix = network.next_digit(asked[..., digit - 1], prefix, memory)
            assert close(logits, wanted[..., digit, :])
            order = torch.randperm(beams, generator=GENERATOR).expand(4, -1)  # beams change places
            prefix, asked, wanted = prefix.take(order), asked[:, order[0]], wanted[:, order[0]]


@pytest.mark.parametrize("constrained", [True, False])
def test_a_wide_beam_ranks_every_item_by_its_likelihood(network, constrained):
    every = np.array(list(itertools.product(range(K), repeat=N)))
    catalogue = Catalogue(torch.from_numpy(every[np.random.default_rng(0).choice(len(every), 60, replace=False)]), K)
    rows = Ragged.from_lists([[1, 2, 3], [4], [50, 51, 52, 53, 54, 55]])
    decoder = LeftToRight(beam=600, constrained=constrained)
    items, scores = Ranker.over_codes(network, decoder, catalogue).rank(rows, 57, exclude_seen=True)
    objective = LeftToRightObjective(learning_task(network, catalogue.codes.long()))
    with torch.no_grad():
        for row in range(3):
            history = catalogue.codes_of(torch.from_numpy(rows[row][-S:]))
            places = torch.arange(len(history))[None], torch.ones(1, len(history)).bool()
            memory = network.encode_history(vectors(network, history), *places)
            log_p = objective.log_likelihood(catalogue.codes.long(), memory.rows(torch.zeros(60, dtype=torch.long))).sum(1)
            log_p[rows[row]] = -torch.inf
            found = items[row][items[row] >= 0]
            assert len(found) == min(57, 60 - len(rows[row]))
            assert np.allclose(scores[row][: len(found)], log_p.topk(len(found)).values, atol=1e-4)


def test_the_loss_of_shared_histories_is_the_loss_of_single_ones():
    torch.manual_seed(0)
    network = Autoregressive(N, K, width=16, heads=2, max_len=S, history="causal").eval()
    codes = torch.randint(0, K, (12, N), generator=GENERATOR)
    objective = LeftToRightObjective(learning_task(network, codes))
    events, found = Ragged.from_lists([[1, 2, 3, 4, 5, 6], [7, 8], [9, 10, 11, 0]]), []
    for shared in (True, False):
        found.append(objective.loss(one_batch(events, shared), GENERATOR, START).item())
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_every_parameter_learns(network):
    codes = torch.randint(0, K, (12, N), generator=GENERATOR)
    objective = LeftToRightObjective(learning_task(network, codes))
    events = Ragged.from_lists([[1, 2, 3, 4, 5, 6], [7, 8], [9, 10, 11, 0]])
    objective.loss(one_batch(events, objective.shared), GENERATOR, START).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without
