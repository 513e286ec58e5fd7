"""DiQDiff: without codes and noise it is SASRec; what codes and noise add, and what does not depend on others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from diffgrm import Recipe, SASRecRecommender, load
from diffgrm.data.dataset import Ragged
from diffgrm.foundation.schema import ModelFolderError, RecipeError
from diffgrm.learning.objectives.next_item import NextItemObjective
from diffgrm.learning.objectives.vector_diffusion import VectorDiffusionObjective, contrast
from diffgrm.networks.diqdiff import USERS_AT_ONCE
from diffgrm.ranking.query import Query
from diffgrm.recommenders.item_scorer import _encoder_of
from helpers.folders import change_recipe
from helpers.networks import ITEMS, SMALL, START, S, build, close, features, item_ranker, learning_task, one_batch
from helpers.recipes import small_recipe

EVENTS = Ragged.from_lists([[1, 2, 3, 4, 5, 6], [7, 8], [9, 10, 7, 0], [2, 6, 1]])
FEATURES = features()
PLAIN = {"guidance": 0.0, "noise_scale": 0.0, "steps": 1}


def encoded(network, histories):
    index = torch.zeros(len(histories), S, dtype=torch.long)
    for row, history in enumerate(histories):
        index[row, : len(history)] = torch.tensor(history)
    valid = torch.arange(S) < torch.tensor([len(history) for history in histories])[:, None]
    return network.encode_history(network.item_vectors(FEATURES), index, valid)


def loss(network, kind, weight=0.0, seed=0):
    task = learning_task(network, items=FEATURES, counts=np.arange(1, ITEMS + 1), kind=kind, negatives=5)
    return VectorDiffusionObjective(task, weight).loss(one_batch(EVENTS, False), torch.Generator().manual_seed(seed), START)


# ---- SASRec ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def twins():
    """SASRec, and DiQDiff without codes and noise, with the same weights: all of either's."""
    sasrec, diqdiff = build("sasrec", **SMALL).eval(), build("diqdiff", **SMALL, **PLAIN).eval()
    diqdiff.load_state_dict(sasrec.state_dict())
    return sasrec, diqdiff


@pytest.mark.parametrize("kind", ["softmax", "sampled_softmax", "bce", "gbce"])
def test_without_codes_and_noise_the_loss_is_that_of_sasrec(twins, kind):
    sasrec, diqdiff = twins
    task = learning_task(sasrec, items=FEATURES, counts=np.arange(1, ITEMS + 1), kind=kind, negatives=5)
    wanted = NextItemObjective(task).loss(one_batch(EVENTS, False), torch.Generator().manual_seed(0), START)
    found = loss(diqdiff, kind)
    assert found.item() == wanted.item()
    for one, other in zip(sasrec.parameters(), diqdiff.parameters(), strict=True):
        one.grad = other.grad = None
    wanted.backward()
    found.backward()
    for (name, one), other in zip(sasrec.named_parameters(), diqdiff.parameters(), strict=True):
        assert name == "digits.codes" or torch.equal(one.grad, other.grad)


def test_without_codes_and_noise_the_lists_are_those_of_sasrec(twins):
    wanted, found = (item_ranker(network, FEATURES).rank(Query(EVENTS, 5)) for network in twins)
    assert (found[0] == wanted[0]).all() and (found[1] == wanted[1]).all()


@pytest.mark.parametrize("change", [{"guidance": 1.0}, {"noise_scale": 0.1}], ids=str)
def test_codes_and_noise_change_loss_and_lists(twins, change):
    network = build("diqdiff", **SMALL, **{**PLAIN, **change}).eval()
    network.load_state_dict(twins[0].state_dict(), strict=False)
    assert loss(network, "softmax").item() != loss(twins[1], "softmax").item()
    wanted, found = (item_ranker(some, FEATURES).rank(Query(EVENTS, 5))[1] for some in (twins[1], network))
    assert not np.allclose(found, wanted, atol=1e-4)


# ---- codes and noise ------------------------------------------------------------------------------------------------


def test_a_history_is_guided_by_its_most_likely_code_place_by_place():
    """Added to SASRec's input by hand, at each place counted from the newest item."""
    network = build("diqdiff", **SMALL, **{**PLAIN, "guidance": 0.7, "guidance_codes": 3}).eval()
    histories, vectors = [[1, 2, 3, 4, 5], [7], [9, 4]], network.item_vectors(FEATURES)
    found, chosen = network.user_vectors(encoded(network, histories)), set()
    for row, history in enumerate(histories):
        code = network.choice(vectors[history].mean(0) * network.encoder.scale).argmax().item()
        chosen.add(code)
        x = (vectors[history] + network.encoder.position[: len(history)].flip(0)) * network.encoder.scale
        x = (x + 0.7 * network.codebook[code, : len(history)].flip(0))[None]
        for layer in network.encoder.layers:
            x = layer(x, torch.ones(1, len(history), dtype=torch.bool), causal=True)
        assert close(found[row], network.encoder.norm(x)[0, -1])
    assert len(chosen) > 1


def test_codes_are_drawn_by_their_odds_in_training_and_choices_learn():
    network = build("diqdiff", **SMALL, **{**PLAIN, "guidance": 1.0, "guidance_codes": 3})
    memory, generator, count = encoded(network, [[3, 1, 4]]), torch.Generator().manual_seed(0), 20_000
    wanted = network.choice(network.item_vectors(FEATURES)[[3, 1, 4]].mean(0) * network.encoder.scale).softmax(-1)
    with torch.no_grad():
        network.codebook.copy_(torch.arange(3.0)[:, None, None].expand(network.codebook.shape))
        many = memory.rows(torch.zeros(count, dtype=torch.long))
        drawn = -torch.empty(count, 3).exponential_(generator=generator).log()
        told = network._code(many, drawn)[:, 0, 0].round().long()
    assert torch.allclose(told.bincount(minlength=3) / count, wanted, atol=0.02)
    loss(network, "softmax").backward()
    assert network.choice.weight.grad.abs().sum() > 0


def test_in_training_the_noised_target_and_its_time_are_added_to_the_history():
    """Noised at sqrt(d) times its size: SASRec's input and .3 of (x_t + time), at every place; written out."""
    network = build("diqdiff", **SMALL, noise_scale=0.3, steps=3, betas=(0.1, 0.5), guidance=0.0).eval()
    histories, targets, vectors = [[1, 2, 3], [7], [9, 4]], [5, 8, 0], network.item_vectors(FEATURES)
    memory, lengths = encoded(network, histories), torch.tensor([3, 1, 2])
    generator, steps = torch.Generator().manual_seed(2), set()
    for seed in range(3):
        drawn = generator.manual_seed(seed)
        told = network.denoised(vectors[targets], memory, torch.arange(3), lengths, drawn)
        drawn = generator.manual_seed(seed)
        step = torch.randint(3, (3,), generator=drawn).tolist()
        noise = torch.randn(3, SMALL["width"], generator=drawn)
        for row, (history, target) in enumerate(zip(histories, targets, strict=True)):
            kept = [0.9, 0.9 * 0.7, 0.9 * 0.7 * 0.5][step[row]]
            noised = kept**0.5 * SMALL["width"] ** 0.5 * vectors[target] + (1 - kept) ** 0.5 * noise[row]
            x = (vectors[history] + network.encoder.position[: len(history)].flip(0)) * network.encoder.scale
            x = (x + 0.3 * (noised + network.time[step[row]]))[None]
            for layer in network.encoder.layers:
                x = layer(x, torch.ones(1, len(history), dtype=torch.bool), causal=True)
            assert close(told[row], network.encoder.norm(x)[0, -1])
        steps |= {*step}
    assert steps == {0, 1, 2}


def test_the_usual_variances_are_those_of_the_release():
    """Its schedule from .0001 to .02 of 1,000 steps, over 32, and .01 more; every value of it below 1."""
    wanted = np.linspace(1000 / 32 * 0.0001, 1000 / 32 * 0.02, 32) + 0.01
    for network in (build("diqdiff"), build("diqdiff", **Recipe.preset("diqdiff").model.options)):
        assert len(network.diffusion.betas) == 32 and np.allclose(network.diffusion.betas, wanted, atol=5e-5)


def test_the_answer_is_what_the_steps_back_make_of_the_kept_noise():
    network = build("diqdiff", **SMALL, noise_scale=0.5, steps=3, betas=(0.1, 0.5), guidance=0.0).eval()
    memory = encoded(network, [[1, 2, 3], [5]])
    first, second = 1 - 0.1, (1 - 0.1) * (1 - 0.3)
    third, noisy = second * (1 - 0.5), network.start.expand(2, -1)
    with torch.no_grad():
        for step, kept, earlier in ((2, third, second), (1, second, first), (0, first, 1.0)):
            told = network._told(memory, None, noisy + network.time[step])
            noise = (noisy - kept**0.5 * told) / (1 - kept) ** 0.5
            noisy = earlier**0.5 * told + (1 - earlier) ** 0.5 * noise
        assert close(network.user_vectors(memory), told) and close(noisy, told)


def test_nothing_is_drawn_in_use_and_nobody_else_counts():
    network = build("diqdiff", **SMALL, noise_scale=0.5).eval()
    ranker, state = item_ranker(network, FEATURES), torch.random.get_rng_state()
    together, scores = ranker.rank(Query(EVENTS, 5))
    for row in (3, 0, 2, 1):
        alone, score = ranker.rank(Query(EVENTS.rows(np.array([row])), 5))
        assert (alone[0] == together[row]).all() and np.allclose(score[0], scores[row], atol=1e-5)
    assert (torch.random.get_rng_state() == state).all()
    again = build("diqdiff", **SMALL, noise_scale=0.5).eval()
    again.start.neg_()
    assert not close(again.user_vectors(encoded(again, [[1, 2]])), network.user_vectors(encoded(network, [[1, 2]])))


def test_many_histories_of_any_length_are_answered_as_each_alone():
    network, generator = build("diqdiff", **SMALL, noise_scale=0.5).eval(), torch.Generator().manual_seed(0)
    lengths = torch.randint(1, S + 1, (USERS_AT_ONCE * 2 + 7,), generator=generator).tolist()
    histories = [torch.randint(0, ITEMS, (length,), generator=generator).tolist() for length in lengths]
    with torch.no_grad():
        together = network.user_vectors(encoded(network, histories))
        for row in range(0, len(histories), 13):
            assert close(network.user_vectors(encoded(network, histories[row : row + 1]))[0], together[row])


def test_its_encoder_alone_is_no_place_for_another_network_to_begin():
    with pytest.raises(RecipeError, match="'diqdiff' makes more of a history than its encoder does"):
        _encoder_of(build("diqdiff", **SMALL), small_recipe("diqdiff"))


def test_a_target_that_noise_hides_little_is_seen():
    """With little noise that counts for much, a denoiser learns to give back what it is shown, at every step of use too."""
    settings = {"noise_scale": 3.0, "steps": 2, "betas": (0.01, 0.02), "guidance": 0.0}
    network = build("diqdiff", **SMALL, **settings)
    optimiser, generator = torch.optim.Adam(network.parameters(), 0.01), torch.Generator().manual_seed(0)
    task = learning_task(network, items=FEATURES)
    chance = Ragged.from_lists(torch.randint(0, ITEMS, (64, 2), generator=generator).tolist())
    for _ in range(150):
        optimiser.zero_grad()
        found = VectorDiffusionObjective(task, 0.0).loss(one_batch(chance, False), generator, START)
        found.backward()
        optimiser.step()
    assert found.item() < 0.2 * np.log(ITEMS)


# ---- contrast -------------------------------------------------------------------------------------------------------


def test_contrast_is_the_cross_entropy_of_finding_oneself():
    vectors, total = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), 0.0
    for row in range(5):
        cosines = [F.cosine_similarity(vectors[row], other, dim=0).item() / 0.3 for other in vectors]
        total += np.log(np.exp(cosines).sum()) - cosines[row]
    assert contrast(vectors, 0.3).item() == pytest.approx(total / 5, abs=1e-5)
    assert contrast(vectors[:1], 0.3).item() == 0
    assert contrast(torch.ones(5, 4), 0.3).item() == pytest.approx(np.log(5), abs=1e-5)
    assert contrast(torch.eye(5), 0.01).item() == pytest.approx(0, abs=1e-5)


def test_contrast_is_added_with_its_weight():
    network = build("diqdiff", **SMALL, **PLAIN)
    users = network.user_vectors(*_asked(network))
    added = loss(network, "softmax", 2.0).item() - loss(network, "softmax").item()
    assert added == pytest.approx(2 * contrast(users, 0.07).item(), abs=1e-4)


def _asked(network):
    batch = one_batch(EVENTS, False)
    items, index, valid, *_ = batch.histories
    return network.encode_history(network.item_vectors(FEATURES)[items], index, valid), batch.slot, batch.length[:, 0]


# ---- what does nothing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ["objective.contrast_weight=0", "objective.contrast_temperature=0.5"],
            r"contrast_temperature = 0\.5 does nothing",
        ),
        (
            ["model.guidance=0", "model.guidance_codes=3"],
            r"model\.guidance_codes = 3 does nothing with model\.guidance = 0",
        ),
        (["model.guidance=0", "model.code_temperature=1"], r"code_temperature = 1\.0 does nothing"),
        (["model.noise_scale=0", "model.steps=4"], r"model\.steps = 4 does nothing with .*; set it to 1, or raise"),
        (["model.noise_scale=0", "model.steps=1", "model.betas=[0.1, 0.2]"], r"betas = \(0\.1, 0\.2\) does nothing"),
        (["model.steps=1", "model.betas=[0.1, 0.2]"], r"the second does nothing with model\.steps = 1"),
        (["objective=next_item"], r"'diqdiff' answers as DenoisesVectors, which the objective 'next_item'"),
    ],
)
def test_settings_that_do_nothing_are_refused(toy, changes, message):
    with pytest.raises(RecipeError, match=message):
        SASRecRecommender(small_recipe("diqdiff").override(changes)).fit(toy, progress=False)


def test_a_network_that_denoises_no_vectors_is_refused(toy):
    recipe = small_recipe("sasrec").override(["objective.name=vector_diffusion"])
    with pytest.raises(RecipeError, match=r"'sasrec' lacks .*denoised \(DenoisesVectors\)"):
        SASRecRecommender(recipe).fit(toy, progress=False)


def test_a_codebook_of_another_shape_is_refused(toy, tmp_path):
    recipe = small_recipe("diqdiff").override(["training.epochs=1"])
    folder = SASRecRecommender(recipe).fit(toy, progress=False).save(tmp_path / "model")
    change_recipe(folder, {"model": {"guidance_codes": 9}})
    with pytest.raises(ModelFolderError, match=r"codebook \(file: \(8, 8, 32\), recipe: \(9, 8, 32\)\)"):
        load(folder)
