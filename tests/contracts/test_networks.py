"""What every network that is trained must do, and more by what it says that it can."""

from __future__ import annotations

import inspect

import pytest
import torch

from diffgrm.foundation.registry import names, resolve
from diffgrm.learning.objectives.base import Objective
from diffgrm.networks.contracts import (
    Denoises,
    EncodesHistories,
    PairsDigits,
    PredictsDigits,
    ScoresItems,
    compared,
    contract,
    lacks,
)
from helpers.networks import (
    GENERATOR,
    ITEMS,
    K,
    N,
    S,
    build,
    close,
    encode,
    features,
    histories,
    questions,
    trainable,
    vectors,
)

ABILITIES = (Denoises, PredictsDigits, ScoresItems)
FEATURES = features()
TRAINABLE = trainable()


def those_that(protocol):
    return [(name, options) for name, options in TRAINABLE if not lacks(resolve("model", name), protocol)]


@pytest.fixture(params=TRAINABLE, ids=str)
def network(request):
    """Every registered network that is trained."""
    name, options = request.param
    return build(name, **options).eval()


@pytest.fixture(params=those_that(Denoises), ids=str)
def denoising(request):
    """Those for masked diffusion, over items that are known by their digits only."""
    name, options = request.param
    return build(name, **{**options, "branches": ["sid"]}).eval()


@pytest.fixture(params=those_that(PredictsDigits), ids=str)
def left_to_right(request):
    name, options = request.param
    return build(name, **{**options, "branches": ["sid"]}).eval()


def remember(network, index, valid):
    """Memory of histories of item positions [B, S]."""
    return network.encode_history(network.item_vectors(FEATURES), index, valid)


def some_histories(batch=6, length=S):
    index = torch.randint(0, ITEMS, (batch, length), generator=GENERATOR)
    lengths = torch.randint(1, length + 1, (batch,), generator=GENERATOR)
    lengths[0] = length
    return index, torch.arange(length) < lengths[:, None]


def answers(network, memory, codes, mask):
    """All that a network says of users, by the ability: each [B, ...]."""
    kind, found = type(network), {}
    if not lacks(kind, Denoises):
        found["denoise"] = network.denoise(codes, mask, memory)
    if not lacks(kind, PredictsDigits):
        found["predict"] = network.predict(codes, memory)
        found["next_digit"], prefix = network.next_digit(None, None, memory)
        first = codes[:, :, 0].new_zeros(len(codes), codes.shape[1])
        found["second digit"], _ = network.next_digit(codes[..., 0], prefix.take(first), memory)
    if not lacks(kind, ScoresItems):
        found["user_vectors"] = network.user_vectors(memory)
    if not lacks(kind, PairsDigits) and (users := network.pair_users(memory)) is not None:
        found["pair scores"] = users[:, 0] @ network.pair_vectors(FEATURES.codes).T
    return found


def same(a, b):
    assert a.keys() == b.keys() and a
    return [name for name in a if not close(a[name], b[name])] == []


# ---- what it claims -------------------------------------------------------------------------------------------------


def test_it_encodes_histories_and_says_how_far_back_it_looks(network):
    found = contract(network, EncodesHistories)
    assert isinstance(found.max_len, int) and found.max_len > 0 and isinstance(found.causal, bool)
    assert found.item_vectors(FEATURES).shape[0] == ITEMS
    memory = remember(network, *some_histories(6))
    assert len(memory) == 6 and len(memory.rows(torch.tensor([4, 1, 1]))) == 3
    if found.causal:
        assert len(memory.slots(torch.ones(6, S, dtype=torch.long))) == 6


def test_what_it_can_do_it_can_do_whole(network):
    """A network with one method of an ability has all of them, and takes the arguments by their names."""
    able = [protocol for protocol in ABILITIES if not lacks(type(network), protocol)]
    assert able, "a network that is trained denoises, predicts digits or scores items"
    for protocol in ABILITIES:
        own = {name for name, _ in inspect.getmembers(protocol, inspect.isfunction)}
        own -= {name for name, _ in inspect.getmembers(EncodesHistories, inspect.isfunction)}
        own = {name for name in own if not name.startswith("_")}
        assert own and (protocol in able or own <= set(lacks(type(network), protocol)))
    for protocol in (EncodesHistories, *able):
        for name, wanted in inspect.getmembers(protocol, inspect.isfunction):
            if not name.startswith("_"):
                expected = list(inspect.signature(wanted).parameters)
                assert list(inspect.signature(getattr(type(network), name)).parameters)[: len(expected)] == expected


def test_answers_have_their_shapes_and_differ_from_user_to_user(network):
    codes, mask = questions(6, 4)
    found = answers(network, remember(network, *some_histories(6)), codes, mask)
    width = compared(network, network.item_vectors(FEATURES)).shape[-1]
    shapes = {"denoise": (6, 4, N, K), "predict": (6, 4, N, K), "next_digit": (6, 1, K), "second digit": (6, 4, K)}
    shapes["pair scores"] = (6, ITEMS)
    for name, answer in found.items():
        assert answer.shape == shapes.get(name, (6, width)) and answer.isfinite().all()
        assert answer.std(0).max() > 1e-3


def test_an_objective_can_be_found_for_it(network):
    """Every registered network is of some use."""
    objectives = [resolve("objective", name) for name in names("objective")]
    assert any(
        issubclass(objective, Objective) and not any(lacks(type(network), need) for need in objective.needs)
        for objective in objectives
    )


# ---- histories ------------------------------------------------------------------------------------------------------


def test_nothing_changes_with_extra_padding(network):
    index, valid = some_histories(6, S - 2)
    ask = questions(6, 4)
    wanted = answers(network, remember(network, index, valid), *ask)
    garbage = torch.randint(0, ITEMS, (6, 2), generator=GENERATOR)
    padded = remember(network, torch.cat([index, garbage], 1), torch.cat([valid, torch.zeros(6, 2).bool()], 1))
    assert same(answers(network, padded, *ask), wanted)


def test_nothing_changes_with_what_stands_in_padding(network):
    index, valid = some_histories(6)
    other = torch.where(valid, index, (index + 3) % ITEMS)
    ask = questions(6, 4)
    assert same(
        answers(network, remember(network, index, valid), *ask), answers(network, remember(network, other, valid), *ask)
    )


def test_nothing_changes_with_the_other_rows_of_a_batch(network):
    index, valid = some_histories(6)
    codes, mask = questions(6, 4)
    together = answers(network, remember(network, index, valid), codes, mask)
    for row in range(6):
        one, length = slice(row, row + 1), int(valid[row].sum())
        alone = answers(network, remember(network, index[one, :length], valid[one, :length]), codes[one], mask[one])
        assert same(alone, {name: answer[one] for name, answer in together.items()})


def test_the_memory_of_some_users_is_theirs(network):
    index, valid = some_histories(6)
    codes, mask = questions(6, 4)
    memory, chosen = remember(network, index, valid), torch.tensor([5, 0, 0])
    wanted = {name: answer[chosen] for name, answer in answers(network, memory, codes, mask).items()}
    assert same(answers(network, memory.rows(chosen), codes[chosen], mask[chosen]), wanted)


def test_items_that_occur_several_times_are_encoded_once_with_the_same_result(network):
    index = torch.tensor([[0, 1, 0, 2], [2, 2, 1, 0]])
    valid = torch.tensor([[True] * 4, [True, True, True, False]])
    ask, some = questions(2, 3), FEATURES.of(index.flatten())
    apart = network.encode_history(network.item_vectors(some), torch.arange(8).view(2, 4), valid)
    assert same(answers(network, remember(network, index, valid), *ask), answers(network, apart, *ask))


def test_the_items_of_a_history_and_their_order_matter(network):
    index = torch.stack([torch.randperm(ITEMS, generator=GENERATOR)[:S] for _ in range(4)])
    valid, ask = torch.ones(4, S, dtype=torch.bool), questions(4, 1)
    ask[1][:] = True
    found = answers(network, remember(network, index, valid), *ask)
    for other in (index.flip(1), (index + 1) % ITEMS):
        changed = answers(network, remember(network, other, valid), *ask)
        assert all(not torch.allclose(changed[name], found[name], atol=1e-5) for name in found)


def test_dropout_acts_in_training_only():
    for name, options in TRAINABLE:
        network = build(name, **options, dropout=0.3).eval()
        index, valid = some_histories(4)
        ask = questions(4, 2)
        first, second = (answers(network, remember(network, index, valid), *ask) for _ in range(2))
        assert all(torch.equal(first[key], second[key]) for key in first)
        network.train()
        first, second = (answers(network, remember(network, index, valid), *ask) for _ in range(2))
        assert all(not torch.equal(first[key], second[key]) for key in first)


def test_the_global_random_state_is_left_alone_in_use(network):
    state = torch.random.get_rng_state()
    answers(network, remember(network, *some_histories(4)), *questions(4, 2))
    assert (torch.random.get_rng_state() == state).all()


def test_its_weights_are_all_that_it_is():
    for name, options in TRAINABLE:
        network = build(name, **options).eval()
        with torch.no_grad():
            for weight in network.parameters():
                weight.add_(0.01)
        again = build(name, **options).eval()
        again.load_state_dict(network.state_dict())
        index, valid = some_histories(4)
        ask = questions(4, 2)
        assert same(
            answers(network, remember(network, index, valid), *ask), answers(again, remember(again, index, valid), *ask)
        )


def test_it_answers_in_sixteen_bits_too(network):
    exact = answers(network, remember(network, *(asked := some_histories(4))), *(ask := questions(4, 2)))
    found = answers(network.to(torch.bfloat16), remember(network, *asked), *ask)
    for name, answer in found.items():
        assert answer.isfinite().all() and (answer.float() - exact[name]).abs().mean() < 0.1


# ---- several targets a history --------------------------------------------------------------------------------------


@pytest.fixture(params=[(name, options) for name, options in TRAINABLE if build(name, **options).causal], ids=str)
def causal(request):
    name, options = request.param
    return build(name, **options).eval()


def test_a_slot_knows_nothing_of_the_items_after_it(causal):
    """Through every ability, and for a vector of each beginning of a history."""
    index, _ = some_histories(3)
    valid, length = torch.ones(3, S, dtype=torch.bool), torch.arange(1, S + 1).expand(3, -1)
    codes, mask = questions(3, S)
    mask[..., 0] = True  # every slot is asked something
    history, places = torch.arange(3).repeat_interleave(S), length.flatten()

    def asked(items):
        memory = remember(causal, items, valid)
        slots = {}
        if not lacks(type(causal), Denoises):
            slots["denoise"] = causal.denoise(codes, mask, memory.slots(length))
        if not lacks(type(causal), PredictsDigits):
            slots["predict"] = causal.predict(codes, memory.slots(length))
        if not lacks(type(causal), ScoresItems):
            slots["user_vectors"] = causal.user_vectors(memory, history, places).view(3, S, -1)
        if not lacks(type(causal), PairsDigits) and (users := causal.pair_users(memory.slots(length))) is not None:
            slots["pair_users"] = users
        return slots

    before = asked(index)
    assert before
    for changed in range(S):
        other = index.clone()
        other[:, changed] = (other[:, changed] + 1) % ITEMS
        for name, answer in asked(other).items():
            assert close(answer[:, :changed], before[name][:, :changed])
            assert not close(answer[:, changed:], before[name][:, changed:])


@pytest.mark.parametrize("scoring", those_that(ScoresItems), ids=str)
def test_the_vector_of_a_whole_history_is_that_of_all_its_items(scoring):
    name, options = scoring
    network = build(name, **options).eval()
    index, valid = some_histories(6)
    memory = remember(network, index, valid)
    assert close(network.user_vectors(memory), network.user_vectors(memory, torch.arange(6), valid.sum(1)))


# ---- masked diffusion -----------------------------------------------------------------------------------------------


def test_logits_vary(denoising):
    codes, valid = histories(6)
    assert denoising.denoise(*questions(6, 4), encode(denoising, codes, valid)).std() > 1e-3


def test_folding_many_questions_into_one_call_changes_nothing(denoising):
    codes, valid = histories(4)
    memory = encode(denoising, codes, valid)
    ask_codes, ask_mask = questions(4, 9)
    together = denoising.denoise(ask_codes, ask_mask, memory)
    for q in range(9):
        assert close(denoising.denoise(ask_codes[:, q : q + 1], ask_mask[:, q : q + 1], memory), together[:, q : q + 1])


def test_what_stands_under_a_mask_does_not_matter_and_what_is_known_does(denoising):
    memory = encode(denoising, *histories(4))
    codes, mask = questions(4, 6)
    logits = denoising.denoise(codes, mask, memory)
    assert close(denoising.denoise(torch.where(mask, 0, codes), mask, memory), logits)
    other = denoising.denoise(torch.where(mask, codes, (codes + 1) % K), mask, memory)
    assert close(other, logits) == getattr(denoising, "independent_digits", False)


def test_known_digits_get_no_logits(denoising):
    codes, mask = questions(4, 6)
    mask[0], mask[1] = True, False
    logits = denoising.denoise(codes, mask, encode(denoising, *histories(4)))
    assert (logits[~mask] == 0).all() and (logits[mask] != 0).any(-1).all()


def test_vectors_of_digits_do_not_ask_for_other_features(denoising):
    assert vectors(denoising, FEATURES.codes).shape[0] == ITEMS


# ---- left to right --------------------------------------------------------------------------------------------------


def test_a_digit_follows_from_those_before_it_and_from_no_other(left_to_right):
    memory = encode(left_to_right, *histories(4))
    codes, _ = questions(4, 6)
    logits = left_to_right.predict(codes, memory)
    for digit in range(N):
        other = codes.clone()
        other[..., digit] = (codes[..., digit] + 1) % K
        changed = left_to_right.predict(other, memory)
        assert close(changed[..., : digit + 1, :], logits[..., : digit + 1, :])
        assert digit == N - 1 or not close(changed[..., digit + 1 :, :], logits[..., digit + 1 :, :])


def test_digit_by_digit_gives_what_all_at_once_do(left_to_right):
    memory = encode(left_to_right, *histories(4))
    codes, _ = questions(4, 6)
    wanted = left_to_right.predict(codes, memory)
    logits, prefix = left_to_right.next_digit(None, None, memory)
    assert close(logits.expand(-1, 6, -1), wanted[..., 0, :])
    prefix = prefix.take(torch.zeros(4, 6, dtype=torch.long))
    for digit in range(1, N):
        logits, prefix = left_to_right.next_digit(codes[..., digit - 1], prefix, memory)
        assert close(logits, wanted[..., digit, :])


def test_many_sids_at_once_are_told_what_each_is_told_alone(left_to_right):
    memory = encode(left_to_right, *histories(4))
    codes, _ = questions(4, 9)
    together = left_to_right.predict(codes, memory)
    for q in range(9):
        assert close(left_to_right.predict(codes[:, q : q + 1], memory), together[:, q : q + 1])
