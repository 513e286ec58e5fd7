"""The newest state going past the decoder, where places are counted from, and items as sums of their codes' vectors."""

from __future__ import annotations

import pytest
import torch
import yaml

from diffgrm import DiffGRMRecommender, HybridRecommender, Recipe
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import RecipeError
from diffgrm.networks.contracts import Denoises, lacks
from diffgrm.networks.inputs import ItemFeatures
from diffgrm.networks.item_vectors import SidBranch, Sizes
from helpers.folders import rehash
from helpers.networks import ITEMS, SMALL, K, N, S, build, close, encode, features, histories, questions, vectors
from helpers.recipes import small_recipe

BOTH = pytest.mark.parametrize("name", ["diffgrm", "autoregressive"])
CODES = features().codes


def answer(network, codes, mask, memory):
    """Logits [B, Q, n, K] of either network; one that goes from left to right is asked of all digits."""
    return network.predict(codes, memory) if lacks(type(network), Denoises) else network.denoise(codes, mask, memory)


def closed(name, **options):
    """A network as it is drawn: nothing is added to the newest state yet."""
    network = build(name, **SMALL, skip=True, **options).eval()
    torch.nn.init.zeros_(network.decoder.gate)
    return network


# ---- skip -------------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("history", ["bidirectional", "causal"])
def test_at_the_start_logits_are_the_newest_state_times_the_vectors_of_codes(name, history):
    torch.manual_seed(0)
    drawn = resolve("model", name)(N, K, **SMALL, skip=True, history=history).eval()
    assert not drawn.decoder.gate.any()
    codes, valid = histories(6)
    memory = encode(drawn, codes, valid)
    newest = torch.stack([memory.hidden[row, length - 1] for row, length in enumerate(valid.sum(1))])
    wanted = torch.einsum("bd,nkd->bnk", newest, drawn.digits.tables)[:, None]
    asked, mask = questions(6, 4)
    found = answer(drawn, asked, mask, memory)
    shown = torch.zeros_like(mask) if name == "autoregressive" else ~mask
    assert close(found, wanted.expand_as(found).masked_fill(shown[..., None], 0))


@BOTH
def test_without_it_nothing_is_different_from_before(name):
    plain, skipping = build(name, **SMALL), build(name, **SMALL, skip=True)
    assert plain.decoder.gate is None and plain.state_dict().keys() == skipping.state_dict().keys() - {"decoder.gate"}
    assert all(torch.equal(value, skipping.state_dict()[key]) for key, value in plain.state_dict().items())


@BOTH
def test_the_gate_says_what_the_layers_add(name):
    network, (codes, valid), ask = closed(name), histories(6), questions(6, 4)
    memory = encode(network, codes, valid)
    without = answer(network, *ask, memory)
    torch.nn.init.constant_(network.decoder.gate, 0.5)
    half = answer(network, *ask, memory) - without
    torch.nn.init.ones_(network.decoder.gate)
    assert close(answer(network, *ask, memory) - without, 2 * half) and half.abs().max() > 1e-3


@BOTH
@pytest.mark.parametrize("gate", [0.0, 1.0])
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_slots_that_share_a_history_are_told_what_each_is_told_alone(name, gate, share):
    """Whatever is masked, so whatever places the last layer is asked for; places are counted from the first item."""
    network = build(name, **SMALL, skip=True, history="causal", positions="first").eval()
    torch.nn.init.constant_(network.decoder.gate, gate)
    generator = torch.Generator().manual_seed(1)
    codes, _ = histories(4)
    whole = encode(network, codes, torch.ones(4, S, dtype=torch.bool))
    length = torch.arange(1, S + 1).expand(4, -1)
    each = 3  # questions of a slot
    asked = torch.randint(0, K, (4, S * each, N), generator=generator)
    mask = torch.rand(asked.shape, generator=generator) < share
    found = answer(network, asked, mask, whole.slots(length))
    for slot in range(S):
        alone = encode(network, codes[:, : slot + 1], torch.ones(4, slot + 1, dtype=torch.bool))
        part = slice(slot * each, (slot + 1) * each)
        assert close(found[:, part], answer(network, asked[:, part], mask[:, part], alone))
    if name == "diffgrm":
        assert (found[~mask] == 0).all()


@BOTH
def test_the_newest_state_of_a_slot_is_that_of_its_last_item(name):
    network = closed(name, history="causal")
    codes, valid = histories(5)
    memory = encode(network, codes, valid)
    length = torch.tensor([[1, 3, 5], [1, 0, 2], [1, 1, 1], [0, 0, 0], [2, 1, 4]])
    slots = memory.slots(length).newest_of_slots()
    for user in range(5):
        for slot, count in enumerate(length[user].clamp(min=1).tolist()):
            assert torch.equal(slots[user, slot], memory.hidden[user, count - 1])
    assert torch.equal(memory.newest(), memory.newest_of_slots()[:, 0])


# ---- positions --------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(("history", "usual"), [("bidirectional", "newest"), ("causal", "first")])
def test_places_are_counted_from_where_the_history_says_unless_told_otherwise(name, history, usual):
    usually, first, newest = (build(name, **SMALL, history=history, positions=p).eval() for p in (None, "first", "newest"))
    assert usually.encoder.from_start == (usual == "first")
    for network, place in ((first, 0), (newest, 2)):
        with torch.no_grad():
            network.encoder.position.zero_()
            before = network.encode_history(vectors(network, CODES), torch.tensor([[3, 4, 5]]), torch.ones(1, 3).bool())
            network.encoder.position[place] = torch.arange(16.0)  # the place of the oldest of three
            after = network.encode_history(vectors(network, CODES), torch.tensor([[3, 4, 5]]), torch.ones(1, 3).bool())
            alone = network.encode_history(vectors(network, CODES), torch.tensor([[5]]), torch.ones(1, 1).bool())
            network.encoder.position.zero_()
            plain = network.encode_history(vectors(network, CODES), torch.tensor([[5]]), torch.ones(1, 1).bool())
        assert not close(after.hidden[:, 0], before.hidden[:, 0])
        assert close(alone.hidden, plain.hidden) == (place == 2)  # one item stands at the place 0 in both


# ---- items as sums ----------------------------------------------------------------------------------------------------


@BOTH
def test_an_item_can_be_the_sum_of_the_vectors_of_its_codes(name):
    network = build(name, **SMALL, branches=[{"name": "sid", "compose": "sum"}])
    wanted = sum(network.digits.tables[digit, CODES[:, digit]] for digit in range(N))
    assert torch.allclose(network.item_vectors(ItemFeatures(CODES)), wanted, atol=1e-6) and len(CODES) == ITEMS
    assert not list(network.item.sid.parameters())
    with_text = build(name, **SMALL, branches=[{"name": "sid", "compose": "sum"}, "text"])
    both, text = with_text.item_vectors(features()), with_text.item.text(features(), None)
    assert torch.allclose(both - text, sum(with_text.digits.tables[j, CODES[:, j]] for j in range(N)), atol=1e-5)


def test_a_sum_needs_digits():
    with pytest.raises(RecipeError, match="sid"):
        SidBranch(Sizes(0, 0, 1, 0, 8), True, compose="sum")


@pytest.mark.parametrize("name", ["diffgrm", "hybrid", "sid_sasrec"])
def test_settings_that_a_sum_leaves_out_are_refused(name, toy, monkeypatch):
    """Settings of nested parts are looked at as those of all others."""
    recommender = resolve("recommender", name)
    monkeypatch.setattr("diffgrm.recommenders.fitting.learn", lambda *_: pytest.fail("it learns"))
    recipe = small_recipe(name).override(["model.branches=[{name: sid, compose: sum, input_scale: false}]"])
    message = (
        "model.branches.sid.input_scale = False does nothing with model.branches.sid.compose = sum; leave it out, or set "
        "model.branches.sid.compose to mlp"
    )
    with pytest.raises(RecipeError, match=message):
        recommender(recipe).fit(toy, progress=False)
    with pytest.raises(RecipeError, match=message):
        recipe.refuse_idle()


def test_nested_settings_that_do_something_are_let_be():
    Recipe(model={"branches": [{"name": "sid", "compose": "sum"}]}).refuse_idle()
    Recipe(model={"branches": [{"name": "sid", "input_scale": False}, "text"]}).refuse_idle()


# ---- in recommenders --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recommender", ["diffgrm", "autoregressive"])
def test_they_learn_are_saved_and_loaded(recommender, toy, tmp_path):
    settings = ["model.skip=true", "model.history=causal", "model.positions=newest", "training.epochs=2"]
    recipe = small_recipe(recommender).override([*settings, "model.branches=[{name: sid, compose: sum}]"])
    made = resolve("recommender", recommender)(recipe).fit(toy, progress=False)
    assert made.network.decoder.gate.abs().min() > 0
    asked = [["item 3", "item 4"], ["item 7"]]
    again = type(made).load(made.save(tmp_path / "model"))
    assert again.recommend(asked).equals(made.recommend(asked)) and again.recipe == made.recipe


def test_the_hybrid_can_have_it_too(toy):
    recipe = small_recipe("hybrid").override(["model.skip=true", "training.epochs=1"])
    assert HybridRecommender(recipe).fit(toy, progress=False).explain(["item 3"], k=2).height > 0


def test_models_of_before_are_read_as_they_were(folder, toy):
    """Their recipes have none of the settings."""
    path, before = folder / "recipe.yaml", DiffGRMRecommender.load(folder)
    raw = yaml.safe_load(path.read_text())
    gone = [raw["model"].pop(key) for key in ("skip", "positions", "start")]
    assert gone == [False, None, "drawn"] and raw["tokenizer"].pop("unit") is True
    raw["model"]["branches"] = ["sid"]
    path.write_text(yaml.safe_dump(raw))
    rehash(folder)
    again = DiffGRMRecommender.load(folder)
    assert again.recipe == before.recipe
    assert again.recommend([["item 3"]]).equals(before.recommend([["item 3"]]))
