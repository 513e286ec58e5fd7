"""What every masked-diffusion network must do."""

from __future__ import annotations

import pytest
import torch

from diffgrm.foundation.registry import names, resolve
from helpers.networks import GENERATOR, K, N, S, close, encode, histories, questions, vectors

DENOISING = [name for name in names("model") if hasattr(resolve("model", name), "denoise")]


@pytest.fixture(params=[*((name, {}) for name in DENOISING), ("diffgrm", {"history": "causal"})], ids=str)
def network(request):
    torch.manual_seed(0)
    name, settings = request.param
    return resolve("model", name)(n_digits=N, codebook_size=K, **settings).eval()


def test_logits_do_not_change_with_extra_padding(network):
    codes, valid = histories(6)
    ask = questions(6, 4)
    wanted = network.denoise(*ask, encode(network, codes, valid))
    garbage = torch.randint(0, K, (6, 7, N), generator=GENERATOR)
    padded = encode(network, torch.cat([codes, garbage], 1), torch.cat([valid, torch.zeros(6, 7).bool()], 1))
    assert close(network.denoise(*ask, padded), wanted)
    assert wanted.shape == (6, 4, N, K) and wanted.std() > 1e-3


def test_logits_do_not_change_with_what_stands_in_padding(network):
    codes, valid = histories(6)
    other = torch.where(valid[..., None], codes, (codes + 3) % K)
    ask = questions(6, 4)
    assert close(
        network.denoise(*ask, encode(network, codes, valid)),
        network.denoise(*ask, encode(network, other, valid)),
    )


def test_logits_do_not_change_with_the_other_rows_of_a_batch(network):
    codes, valid = histories(6)
    ask_codes, ask_mask = questions(6, 4)
    together = network.denoise(ask_codes, ask_mask, encode(network, codes, valid))
    for row in range(6):
        one = slice(row, row + 1)
        length = int(valid[row].sum())
        memory = encode(network, codes[one, :length], valid[one, :length])
        assert close(network.denoise(ask_codes[one], ask_mask[one], memory), together[one])


def test_items_that_occur_several_times_are_encoded_once_with_the_same_result(network):
    items = torch.randint(0, K, (3, N), generator=GENERATOR)
    index = torch.tensor([[0, 1, 0, 2], [2, 2, 1, 0]])
    valid = torch.tensor([[True] * 4, [True, True, True, False]])
    ask = questions(2, 3)
    once = network.denoise(*ask, network.encode_history(vectors(network, items), index, valid))
    assert close(once, network.denoise(*ask, encode(network, items[index], valid)))


def test_folding_many_questions_into_one_call_changes_nothing(network):
    codes, valid = histories(4)
    memory = encode(network, codes, valid)
    ask_codes, ask_mask = questions(4, 9)
    together = network.denoise(ask_codes, ask_mask, memory)
    for q in range(9):
        assert close(network.denoise(ask_codes[:, q : q + 1], ask_mask[:, q : q + 1], memory), together[:, q : q + 1])


def test_what_stands_under_a_mask_does_not_matter_and_what_is_known_does(network):
    memory = encode(network, *histories(4))
    codes, mask = questions(4, 6)
    logits = network.denoise(codes, mask, memory)
    assert close(network.denoise(torch.where(mask, 0, codes), mask, memory), logits)
    assert not close(network.denoise(torch.where(mask, codes, (codes + 1) % K), mask, memory), logits)


def test_known_digits_get_no_logits(network):
    codes, mask = questions(4, 6)
    mask[0], mask[1] = True, False
    logits = network.denoise(codes, mask, encode(network, *histories(4)))
    assert (logits[~mask] == 0).all() and (logits[mask] != 0).any(-1).all()


def test_the_history_and_its_order_matter(network):
    codes, _ = histories(4)
    valid = torch.ones(4, S, dtype=torch.bool)
    ask = questions(4, 1)
    logits = network.denoise(*ask, encode(network, codes, valid))
    assert not torch.allclose(logits, network.denoise(*ask, encode(network, codes.flip(1), valid)), atol=1e-7)


def test_it_takes_integers_and_says_how_far_back_it_looks(network):
    assert isinstance(network.max_len, int) and network.max_len > 0


def test_dropout_acts_in_training_only(network):
    memory = encode(network, *histories(4))
    ask = questions(4, 2)
    assert torch.equal(network.denoise(*ask, memory), network.denoise(*ask, memory))
    network.train()
    assert not torch.equal(network.denoise(*ask, memory), network.denoise(*ask, memory))
