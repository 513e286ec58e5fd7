"""How hard digits are when others are known, against sums written out."""

from __future__ import annotations

import itertools
import shlex

import numpy as np
import pytest
import torch

from diffgrm import DiffGRMRecommender, HybridRecommender
from diffgrm.apps.cli.plan import planned_settings
from diffgrm.foundation.schema import DataError, DiffGRMError
from diffgrm.networks.diffgrm import DiffGRM
from diffgrm.ranking.decoding.any_order_beam import AnyOrderBeam
from diffgrm.ranking.difficulty import digit_difficulty
from diffgrm.ranking.ranker import Ranker
from diffgrm.recommenders.capabilities import planning
from diffgrm.recommenders.one_pass import OnePassRecommender
from diffgrm.recommenders.popularity import PopularityRecommender
from helpers.commands import called, save_tables
from helpers.networks import vectors
from helpers.recipes import small_recipe
from helpers.tiny_catalogues import HISTORIES, catalogue


def test_it_is_the_mean_over_what_is_known(monkeypatch):
    """With every order of the digits drawn once, of one user and one target."""
    torch.manual_seed(0)
    network, cat, n = DiffGRM(3, 4, width=16, heads=2).eval(), catalogue(), 3
    orders = np.array(list(itertools.permutations(range(n)))) / n
    monkeypatch.setattr(np.random, "default_rng", lambda _: type("Drawn", (), {"random": lambda *_: orders}))
    users = HISTORIES.rows(np.ones(len(orders), dtype=int))
    found = digit_difficulty(Ranker.over_codes(network, AnyOrderBeam(), cat), users, np.full(len(orders), 7))
    items = cat.codes_of(torch.from_numpy(HISTORIES[1]))
    memory = network.encode_history(vectors(network, items), torch.arange(3)[None], torch.ones(1, 3, dtype=torch.bool))
    code = cat.codes_of(torch.tensor(7))
    for j in range(n):
        losses = []
        for known in itertools.combinations(range(n), j):
            mask = torch.tensor([[[digit not in known for digit in range(n)]]])
            log_p = network.denoise(code[None, None], mask, memory)[0, 0].log_softmax(-1)
            losses += [-log_p[digit, code[digit]].item() for digit in range(n) if digit not in known]
        assert found[j] == pytest.approx(np.mean(losses), abs=1e-5)


@pytest.fixture(scope="module")
def fitted(toy):
    return DiffGRMRecommender(small_recipe("diffgrm")).fit(toy, progress=False)


def test_a_recommender_tells_it_of_items_that_followed(fitted):
    found = fitted.digit_difficulty([["item 3", "item 4"], ["item 7"]], ["item 5", "item 9"])
    assert len(found) == 3 and all(np.isfinite(found)) and min(found) > 0
    for targets, message in ((["item 5"], "of 2 histories, found 1"), (["item 5", "nothing"], "of which 1 are unknown")):
        with pytest.raises(DataError, match=message):
            fitted.digit_difficulty([["item 3", "item 4"], ["item 7"]], targets)


def test_who_fills_no_digits_is_refused(toy):
    with pytest.raises(DiffGRMError, match="PopularityRecommender fills no digits in steps"):
        planning(PopularityRecommender().fit(toy))


def test_the_command_gives_settings_that_the_model_takes(fitted, toy, tmp_path, monkeypatch, capsys):
    model, tables = fitted.save(tmp_path / "model"), save_tables(toy, tmp_path)
    code, out, _ = called(monkeypatch, capsys, "plan", model, *tables, "--steps", 2, "--steps", 3)
    assert code == 0 and "nats of a digit by how many others are known: " in out and "Warning" not in out
    _, two, nothing_lost, all_ = out.strip().splitlines()[-4:]
    assert nothing_lost == "3 steps: loses 0.000 nats, the mean over orders of the digits"
    assert all_ == "decoding.group=planned 'decoding.sizes=[1,1,1]'"
    settings = shlex.split(two)
    assert len(fitted.variant(settings).recipe.decoding.options["sizes"]) == 2
    assert fitted.variant(settings).recommend([["item 3"]], k=4).height == 4
    toy.event_table().head(200).write_parquet(tables[1])  # of some of the users
    _, out, _ = called(monkeypatch, capsys, "plan", model, *tables, "--steps", 2)
    assert out.index("this is not the split that the model was fitted on") < out.index("nats of a digit")


def test_what_is_printed_works_behind_the_model_of_another_decoder(toy, tmp_path, monkeypatch, capsys):
    """A shell reads the line as the command's arguments."""
    hybrid = HybridRecommender(small_recipe("hybrid")).fit(toy, progress=False)
    model, tables = hybrid.save(tmp_path / "model"), save_tables(toy, tmp_path)
    code, out, _ = called(monkeypatch, capsys, "plan", model, *tables, "--steps", 2)
    assert code == 0 and "decodes by item_proposals, of which no sizes of steps are planned" in " ".join(out.split())
    settings = shlex.split(out.strip().splitlines()[-1])
    assert settings[0] == "decoding.name=any_order_beam"
    code, out, errors = called(monkeypatch, capsys, "evaluate", model, *settings, *tables, "--users", 5, "--quiet")
    assert code == 0 and "ndcg@10" in out, errors
    decoding = hybrid.variant(settings).recipe.decoding
    assert decoding.name == "any_order_beam" and sum(decoding.options["sizes"]) == hybrid.semantic_ids.n_digits


def test_steps_that_say_something_else_are_taken_back(fitted):
    fewer = fitted.variant(["decoding.steps=2"])
    settings = planned_settings(fewer.recipe, [2, 1])
    assert fewer.variant(settings).recipe.decoding.options["sizes"] == (2, 1)


def test_more_steps_than_digits_are_refused(fitted, toy, tmp_path, monkeypatch, capsys):
    model, tables = fitted.save(tmp_path / "model"), save_tables(toy, tmp_path)
    code, _, errors = called(monkeypatch, capsys, "plan", model, *tables, "--steps", 2, "--steps", 9)
    assert code == 2 and "--steps 9 is more than the 3 digits of a semantic ID" in " ".join(errors.split())


def test_digits_that_say_nothing_of_each_other_are_not_planned(toy):
    one_pass = OnePassRecommender(small_recipe("one_pass")).fit(toy, progress=False)
    with pytest.raises(DiffGRMError, match=r"there are no steps to plan: .* \(noising.name=full_mask\)"):
        planning(one_pass)
