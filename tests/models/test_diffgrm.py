from __future__ import annotations

import pytest
import torch

from diffgrm.data.batches import Batch
from diffgrm.decoding.ranker import evaluating
from diffgrm.losses import masked_cross_entropy
from diffgrm.models.blocks import Dropout
from diffgrm.models.diffgrm import DiffGRM
from diffgrm.noising.confidence import ConfidenceNoising
from diffgrm.schema import RecipeError

GENERATOR = torch.Generator().manual_seed(0)
N, K, S = 3, 8, 5


@pytest.fixture(params=["scaled", "release"])
def network(request):
    torch.manual_seed(0)
    return DiffGRM(N, K, width=32, heads=4, encoder_layers=2, decoder_layers=2, dropout=0.1, init=request.param).eval()


def encode(network, codes, valid):
    """Memory of histories given by their digits [B, S, n]."""
    return network.encode_history(codes.flatten(0, 1), torch.arange(valid.numel()).view(valid.shape), valid)


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
    once = network.denoise(*ask, network.encode_history(items, index, valid))
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


def test_the_history_and_its_order_matter(network):
    codes, _ = histories(4)
    valid = torch.ones(4, S, dtype=torch.bool)
    ask = questions(4, 1)
    logits = network.denoise(*ask, encode(network, codes, valid))
    assert not torch.allclose(logits, network.denoise(*ask, encode(network, codes.flip(1), valid)), atol=1e-7)


def test_probing_loss_and_decoding_give_equal_logits_for_equal_input(network, monkeypatch):
    """One fully masked question, asked through the three paths that use the network."""
    from diffgrm.catalogue import Catalogue
    from diffgrm.decoding.any_order_beam import AnyOrderBeam
    from diffgrm.decoding.base import Task

    codes, valid = histories(4)
    target = torch.randint(0, K, (4, N), generator=GENERATOR)
    seen = {}
    original = network.denoise

    def recording(path):
        def denoise(ask_codes, mask, memory):
            logits = original(ask_codes, mask, memory)
            if path not in seen:
                fully = mask.all(-1).nonzero()[:, 1][0]
                seen[path] = logits[:, fully]
            return logits

        return denoise

    def probe(ask_codes, mask):
        with torch.no_grad(), evaluating(network):
            return recording("probe")(ask_codes, mask, encode(network, codes, valid))

    views = ConfidenceNoising().views(target, probe, GENERATOR)
    memory = encode(network, codes, valid)
    logits = recording("loss")(target[:, None].expand(views.mask.shape), views.mask, memory)
    masked_cross_entropy(logits, target, views)
    catalogue = Catalogue(torch.cartesian_prod(*[torch.arange(K)] * N), K)
    task = Task(recording("decode"), memory, catalogue, 5, None, torch.arange(4))
    AnyOrderBeam(beam=4).decode(task)
    assert close(seen["probe"], seen["loss"]) and close(seen["probe"], seen["decode"])


def test_every_parameter_learns():
    torch.manual_seed(0)
    network = DiffGRM(N, K, width=16, heads=2, max_len=S)
    codes, valid = histories(8)
    target = torch.randint(0, K, (8, N), generator=GENERATOR)
    batch = Batch(codes, valid, target)
    views = ConfidenceNoising().views(target, lambda c, m: network.denoise(c, m, encode(network, codes, valid)), GENERATOR)
    memory = encode(network, batch.history, batch.valid)
    masked_cross_entropy(
        network.denoise(target[:, None].expand(views.mask.shape), views.mask, memory), target, views
    ).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without


def test_scaled_initialisation_lets_content_speak_louder_than_position():
    torch.manual_seed(0)
    scaled = DiffGRM(4, 256, width=64, init="scaled").eval()
    release = DiffGRM(4, 256, width=64, init="release").eval()

    def content_over_position(network):
        codes = torch.randint(0, 256, (64, 5, 4), generator=GENERATOR)
        items = network.item_norm(network.item(network._embed(codes).flatten(2)))
        return (items.std() / network.position.std()).item()

    assert content_over_position(scaled) > 3 and content_over_position(release) < 1


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(RecipeError, match=r"model\.width 30 is not a multiple of model\.heads 4"):
        DiffGRM(3, 8, width=30, heads=4)


def test_dropout_keeps_the_mean_and_drops_its_share():
    torch.manual_seed(0)
    drop = Dropout(0.1)
    x = torch.ones(400_003)
    y = drop(x)
    assert (y == 0).float().mean().item() == pytest.approx(26 / 256, abs=0.002)
    assert y.mean().item() == pytest.approx(1, abs=0.003)
    assert drop.eval()(x) is x and Dropout(0.0)(x) is x


def test_dropout_gradients_follow_the_mask():
    x = torch.ones(1000, requires_grad=True)
    y = Dropout(0.5)(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
