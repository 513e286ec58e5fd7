"""The stream that reads texts: where they enter, what is told of hidden items, and by which layer."""

from __future__ import annotations

import pytest
import torch

from diffgrm.foundation.schema import RecipeError
from diffgrm.networks.contracts import DenoisesItems, compared, contract
from diffgrm.networks.inputs import ItemFeatures
from diffgrm.networks.masked_history_dense import MaskedHistoryDense
from diffgrm.ranking.item_table import ItemTable
from helpers.networks import GENERATOR, ITEMS, TEXT, K, N, S, close, features

FEATURES = features()
SMALL = {"width": 16, "heads": 2, "layers": 3, "feed_forward": 32, "max_len": S, "dropout": 0.0, "text_rank": 4}
VARIANTS = {"defaults": {}, "rotary": {"positions": "rotary"}, "first layer": {"text_layer": 1}, "last": {"text_layer": 3}}


def built(**options):
    torch.manual_seed(0)
    return MaskedHistoryDense(N, K, TEXT, **{**SMALL, **options}).eval()


@pytest.fixture(params=VARIANTS)
def network(request):
    return built(**VARIANTS[request.param])


def remembered(network, index, valid, items=FEATURES):
    return network.encode_history(network.item_vectors(items), index, valid)


def asked(batch=6, length=S):
    """Histories of item positions, which places are real, and targets [B, n]."""
    index = torch.randint(0, ITEMS, (batch, length), generator=GENERATOR)
    lengths = torch.randint(1, length + 1, (batch,), generator=GENERATOR)
    lengths[0] = length
    target = torch.randint(0, K, (batch, N), generator=GENERATOR)
    return index, torch.arange(length) < lengths[:, None], target


def hidden_items(valid, *items):
    """[B, S + 1, n] masks of whole items; the target is -1."""
    mask = torch.zeros(len(valid), valid.shape[1] + 1, N, dtype=torch.bool)
    for item in items:
        mask[:, item] = True
    mask[:, :-1] &= valid[..., None]
    return mask


def other_texts(*items):
    text = FEATURES.text.clone()
    for item in items:
        text[item] = -text[item]
    return ItemFeatures(FEATURES.codes, text, FEATURES.row, FEATURES.trained)


# ---- where texts enter ------------------------------------------------------------------------------------------------


def test_a_digit_that_is_known_brings_its_piece_of_the_text_and_a_hidden_one_none(network):
    """Digit by digit: the text through both maps, cut into n, beside the vector of the code; then the norm."""
    index, valid, target = asked(2)
    memory, mask = remembered(network, index, valid), hidden_items(valid, 0)
    mask[0, 1, 2] = valid[0, 1]
    codes = torch.cat([memory.codes, target[:, None]], 1)
    found = network._tokens(codes, mask, memory) * network.digits.scale
    pieces = network.text.back(network.text.there(FEATURES.text)).view(ITEMS, N, -1)
    for user, place, digit in ((0, 0, 0), (0, 1, 1), (0, 1, 2), (0, 2, 0), (1, 0, 2)):
        hidden = mask[user, place, digit]
        row = network.masked[0] if hidden else network.digits.tables[digit, codes[user, place, digit]]
        wanted = row if hidden else row + pieces[index[user, place], digit]
        assert close(found[user, place, digit], network.entering(wanted))
    assert close(found[0, -1, 0], network.entering(network.digits.tables[0, target[0, 0]]))  # nothing of the target's text


def test_texts_of_hidden_items_change_nothing_and_those_of_others_do(network):
    index, _, target = asked(1)
    index[0] = torch.arange(S)
    valid = torch.ones(1, S, dtype=torch.bool)
    mask = hidden_items(valid, 1, 3, -1)
    before = network.denoise_items(target, mask, remembered(network, index, valid))
    hidden = network.denoise_items(target, mask, remembered(network, index, valid, other_texts(1, 3)))
    shown = network.denoise_items(target, mask, remembered(network, index, valid, other_texts(2)))
    assert all(close(a, b) for a, b in zip(before, hidden, strict=True))
    assert not any(torch.allclose(a, b, atol=1e-4) for a, b in zip(before, shown, strict=True))


def test_an_item_without_a_text_is_its_digits():
    network, (index, valid, target) = built(), asked()
    none = ItemFeatures(FEATURES.codes, torch.zeros_like(FEATURES.text))
    first, second = (
        network.denoise_sequence(target, hidden_items(valid, -1), remembered(network, index, valid, items))
        for items in (ItemFeatures(FEATURES.codes), none)
    )
    assert torch.equal(first, second)


def test_dropout_of_what_enters_is_its_own():
    assert (built(dropout=0.25, input_dropout=0.5).drop.dropped, built(dropout=0.25).drop.dropped) == (128, 64)


# ---- what is told -----------------------------------------------------------------------------------------------------


def test_users_are_what_is_told_of_a_hidden_target_behind_a_clean_history(network):
    contract(network, DenoisesItems)
    index, valid, target = asked()
    memory, mask = remembered(network, index, valid), hidden_items(valid, -1)
    logits, told = network.denoise_items(target, mask, memory)
    assert told.shape == (6, S + 1, TEXT) and close(network.user_vectors(memory), told[:, -1])
    assert close(logits[:, -1], network.denoise(target[:, None], mask[:, -1:], memory)[:, 0])
    assert close(logits, network.denoise_sequence(target, mask, memory))


def test_a_user_of_a_beginning_is_that_of_a_shorter_history(network):
    index, _, _ = asked(3)
    whole = remembered(network, index, torch.ones(3, S, dtype=torch.bool))
    found = network.user_vectors(whole, torch.tensor([2, 0]), torch.tensor([1, 4]))
    for row, (user, length) in enumerate(((2, 1), (0, 4))):
        short = remembered(network, index[[user], :length], torch.ones(1, length, dtype=torch.bool))
        assert close(network.user_vectors(short)[0], found[row])


def test_padding_and_other_rows_change_nothing_that_is_told(network):
    index, valid, target = asked()
    mask = hidden_items(valid, 0, -1)
    together = network.denoise_items(target, mask, remembered(network, index, valid))[1]
    garbage = remembered(network, torch.where(valid, index, (index + 5) % ITEMS), valid)
    real = torch.cat([valid, torch.ones(6, 1, dtype=torch.bool)], 1)
    assert close(network.denoise_items(target, mask, garbage)[1][real], together[real])
    for row in range(6):
        own = valid[row]
        memory = remembered(network, index[row : row + 1, own], valid[row : row + 1, own])
        alone = network.denoise_items(target[row : row + 1], mask[row : row + 1, real[row]], memory)[1]
        assert close(alone[0], together[row, real[row]])


@pytest.mark.parametrize(("layers", "text_layer", "wanted"), [(8, None, 6), (2, None, 2), (1, None, 1), (4, 2, 2)])
def test_the_layer_that_tells_texts(layers, text_layer, wanted):
    """Only layers up to it learn from what is told: of eight the sixth, as in the paper."""
    network, (index, valid, _) = built(layers=layers, text_layer=text_layer), asked(2)
    network.user_vectors(remembered(network, index, valid)).sum().backward()
    learns = [layer.attention.out.weight.grad is not None for layer in network.layers]
    assert learns == [number < wanted for number in range(layers)] and network.text_layer == wanted


def test_a_layer_that_is_not_there_is_refused():
    with pytest.raises(RecipeError, match=r"model\.text_layer 4 is not there with model\.layers 3; choose one from 1 to 3"):
        built(text_layer=4)


# ---- what they are compared with --------------------------------------------------------------------------------------


def test_what_stands_in_histories_is_not_what_users_are_compared_with():
    network = built()
    vectors = network.item_vectors(FEATURES)
    assert torch.equal(vectors[:, :N], FEATURES.codes.float()) and torch.equal(compared(network, vectors), FEATURES.text)
    table = ItemTable(network, FEATURES)
    assert torch.equal(table.comparable, FEATURES.text) and table.vectors.shape == (ITEMS, N + TEXT)


def test_digits_beyond_the_precision_of_sixteen_bits_are_read_exactly():
    network = MaskedHistoryDense(N, 4096, TEXT, **SMALL).to(torch.bfloat16).eval()
    codes = torch.tensor([[4095, 257, 1001]])
    items = ItemFeatures(codes, FEATURES.text[:1])
    memory = network.encode_history(network.item_vectors(items), torch.zeros(1, 1).long(), torch.ones(1, 1).bool())
    assert torch.equal(memory.codes[0], codes) and memory.text.dtype == torch.bfloat16
