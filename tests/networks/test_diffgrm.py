from __future__ import annotations

import pytest
import torch

from diffgrm.data.dataset import Ragged
from diffgrm.foundation.schema import RecipeError
from diffgrm.learning.losses import masked_cross_entropy
from diffgrm.learning.noising.confidence import ConfidenceNoising
from diffgrm.learning.objectives.diffusion import DiffusionObjective
from diffgrm.networks.blocks import Attention, Dropout, Residual, evaluating
from diffgrm.networks.diffgrm import DiffGRM
from helpers.networks import (
    START,
    K,
    N,
    S,
    close,
    encode,
    histories,
    learning_task,
    noising_context,
    one_batch,
    questions,
    vectors,
)

GENERATOR = torch.Generator().manual_seed(0)


@pytest.fixture(params=["scaled", "release"])
def network(request):
    torch.manual_seed(0)
    return DiffGRM(N, K, width=32, heads=4, encoder_layers=2, decoder_layers=2, dropout=0.1, init=request.param).eval()


def test_probing_loss_and_decoding_give_equal_logits_for_equal_input(network, monkeypatch):
    """One fully masked question, asked through the three paths that use the network."""
    from diffgrm.ranking.catalogue import Catalogue
    from diffgrm.ranking.decoding.any_order_beam import AnyOrderBeam
    from diffgrm.ranking.decoding.base import Task

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

    views = ConfidenceNoising().views(target, noising_context(probe, GENERATOR))
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
    context = noising_context(lambda c, m: network.denoise(c, m, encode(network, codes, valid)), GENERATOR)
    views = ConfidenceNoising().views(target, context)
    memory = encode(network, codes, valid)
    masked_cross_entropy(
        network.denoise(target[:, None].expand(views.mask.shape), views.mask, memory), target, views
    ).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without


def test_scaled_initialisation_lets_content_speak_as_loud_as_position():
    torch.manual_seed(0)
    scaled = DiffGRM(4, 256, width=64, init="scaled").eval()
    release = DiffGRM(4, 256, width=64, init="release").eval()

    def content_over_position(network):
        codes = torch.randint(0, 256, (64, 5, 4), generator=GENERATOR)
        return (vectors(network, codes.flatten(0, 1)).std() / network.encoder.position.std()).item()

    assert 0.8 < content_over_position(scaled) < 1.3 and content_over_position(release) < 0.3


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


@pytest.mark.parametrize("slots", [False, True], ids=["one history for all", "a part of it for each"])
@pytest.mark.parametrize("count", [1, 3, 50])
def test_folding_matrices_into_the_history_changes_nothing(count, slots):
    torch.manual_seed(1)
    attention = Attention(32, 4)
    torch.nn.init.normal_(attention.query.bias)
    torch.nn.init.normal_(attention.out.bias)
    _, valid = histories(6)
    valid = torch.arange(S) < torch.randint(1, S + 1, (6, count, 1)) if slots else valid[:, None]
    key, value = attention.project(torch.randn(6, S, 32))
    x = torch.randn(6, count, 32)
    direct = attention.out(attention.attend(attention.query(x), key, value, valid))
    folded = attention.fold(key, value)
    assert close(attention.weigh(x, folded, valid) @ folded.value + attention.out.bias, direct)


def test_sums_written_over_the_stream_are_the_sums_that_are_learnt_from():
    torch.manual_seed(1)
    add, layer = Residual(0.0), torch.nn.Linear(8, 6)
    x, y, a, b = torch.randn(4, 5, 6), torch.randn(4, 5, 8), torch.randn(4, 5, 3), torch.randn(4, 3, 6)
    kept = x.clone()
    learnt = add.linear(x, layer, y), add.product(x, layer.bias, a, b)
    assert torch.equal(x, kept)
    with torch.no_grad():
        add.eval()
        assert close(add.linear(x.clone(), layer, y), learnt[0]) and close(add.product(x, layer.bias, a, b), learnt[1])
    assert close(x, learnt[1]) and not close(x, kept)


def test_dropout_acts_without_gradients_too():
    torch.manual_seed(1)
    add, layer = Residual(0.5), torch.nn.Linear(64, 64)
    with torch.no_grad():
        added = add.linear(torch.zeros(1, 64), layer, torch.ones(1, 64))
    assert 10 < (added == 0).sum() < 54


def test_the_first_layers_table_changes_nothing(network):
    """In training the projections are made for each question, in use once for each code where that is less."""
    for module in network.modules():
        if isinstance(module, Dropout):
            module.dropped = 0
    memory = encode(network, *histories(4))
    codes, mask = questions(4, 40)
    fast = network.eval().denoise(codes, mask, memory)
    assert memory.table
    assert close(network.train().denoise(codes, mask, memory), fast)


@pytest.mark.parametrize("decoder_layers", [1, 2])
def test_one_causal_pass_serves_every_target_as_a_pass_of_its_own_would(decoder_layers):
    """Packed and unpacked: the slots of a shared history against histories cut off where each slot ends."""
    torch.manual_seed(0)
    network = DiffGRM(N, K, width=16, heads=2, max_len=S, history="causal", decoder_layers=decoder_layers).eval()
    codes, valid = histories(6)
    length = torch.arange(1, S + 1).expand(6, -1) * (torch.arange(S) < valid.sum(1, keepdim=True))
    ask_codes, ask_mask = questions(6, 3 * S)
    together = network.denoise(ask_codes, ask_mask, encode(network, codes, valid).slots(length))
    for row, slot in (length > 0).nonzero().tolist():
        alone = encode(network, codes[row : row + 1, : slot + 1], torch.ones(1, slot + 1, dtype=torch.bool))
        mine = slice(3 * slot, 3 * slot + 3)
        wanted = network.denoise(ask_codes[row : row + 1, mine], ask_mask[row : row + 1, mine], alone)
        assert close(together[row, mine], wanted[0])


def test_the_loss_of_shared_histories_is_the_loss_of_single_ones():
    """One batch of three users' stretches, and the same targets as ten rows."""
    torch.manual_seed(0)
    network = DiffGRM(N, K, width=16, heads=2, max_len=S, history="causal").eval()
    codes = torch.randint(0, K, (12, N), generator=GENERATOR)
    events = Ragged.from_lists([[1, 2, 3, 4, 5, 6], [7, 8], [9, 10, 11, 0]])
    objective = DiffusionObjective(learning_task(network, codes, noising=ConfidenceNoising()))
    found = []
    for shared in (True, False):
        batch = one_batch(events, shared)
        assert len(batch.target) == 9 and len(batch.length) == (3 if shared else 9)
        found.append(objective.loss(batch, GENERATOR, START))
    assert found[0].item() == pytest.approx(found[1].item(), rel=1e-5)


def test_what_is_kept_with_a_memory_belongs_to_its_rows(network):
    """Folded keys and code tables are made once for a batch; chosen users take their part of them along."""
    memory = encode(network, *histories(6))
    codes, mask = questions(6, 40)
    whole = network.denoise(codes, mask, memory)
    assert memory.folded and memory.table
    chosen = torch.tensor([4, 1])
    assert close(network.denoise(codes[chosen], mask[chosen], memory.rows(chosen)), whole[chosen])
    few = slice(0, 2)
    assert close(network.denoise(codes[:, few], mask[:, few], memory), whole[:, few])


def test_mixed_precision_serves_validation_too(network):
    """Lightning validates inside autocast, where sums must not be written over a stream of another precision."""
    codes, mask = questions(4, 40)
    memory = encode(network, *histories(4))
    with torch.no_grad():
        exact = network.denoise(codes, mask, memory)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = network.denoise(codes, mask, encode(network, *histories(4)))
    assert mixed.shape == exact.shape and mixed.isfinite().all()
