"""What every objective must do, with every network that can do what it asks for."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from diffgrm.data.dataset import EvaluationSet, Ragged
from diffgrm.foundation.parts import as_part, plain
from diffgrm.foundation.registry import names, resolve, settings
from diffgrm.foundation.schema import RecipeError
from diffgrm.foundation.storage import digest
from diffgrm.learning.batches import TrainingBatches
from diffgrm.learning.context import LearningContext
from diffgrm.learning.objectives.digits import DigitObjective
from diffgrm.learning.objectives.next_item import NextItemObjective
from diffgrm.networks.contracts import ScoresItems, SteersDigits, lacks
from diffgrm.ranking.catalogue import Catalogue
from diffgrm.ranking.item_table import ItemTable
from diffgrm.ranking.ranker import Ranker
from helpers.networks import SMALL, START, K, N, S, build, features, learning_task, one_batch, trainable

OBJECTIVES = [resolve("objective", name) for name in names("objective")]
DIGITS = [name for name in names("objective") if issubclass(resolve("objective", name), DigitObjective)]


def can(*objectives):
    """Whether some network can do what all of these objectives ask for."""
    asked = [need for name in objectives for need in resolve("objective", name).needs]
    return any(not any(lacks(resolve("model", name), need) for need in asked) for name, _ in trainable())


ALL = [
    *({"name": name} for name in names("objective") if name != "joint"),
    *({"name": "joint", "digits": d} for d in DIGITS if can("joint", d)),
]
EVENTS = Ragged.from_lists([[1, 2, 3, 4, 5, 6], [7, 8], [9, 10, 7, 0], [2, 6, 1]])
FEATURES = features()
CODE_VECTORS = np.random.default_rng(0).normal(size=(N, K, 4))
KINDS = ("softmax", "sampled_softmax", "bce", "gbce")  # of the loss over whole items
COUNTS = np.bincount(EVENTS.values, minlength=len(FEATURES))
# Another value than the default for every setting that an objective, a schedule or the loss over items has.
CHANGED = {
    "until": 0.5,
    "reduction": "token_mean",
    "label_smoothing": 0.3,
    "smoothing_temperature": 0.5,
    "item_weight": 2.5,
    "digit_fraction": 0.5,
    "order": "most",
    "measure": "entropy",
    "refresh": "step",
    "draw": "fixed_p",
    "p": 0.25,
    "views": 2,
    "kind": "sampled_softmax",
    "negatives": 7,
    "negative_power": 0.5,
    "logq": False,
    "calibration": 0.1,
    "cosine": True,
    "temperature": 0.5,
    "text_alignment": 0.1,
    "digit_weight": 0.5,
    "legal": True,
    "teacher_weight": 0.5,
    "teacher_temperature": 2.0,
    "shown": [0, 1],
    "stream": "joint",
    "history_noise": "whole_items",
    "history_weight": 3.0,
    "last_phase": 0.25,
    "targets": "newest",
    "dense_every": 3,
    "dense_weight": 0.5,
    "context_decay": 0.5,
    "hidden_first": "random",
    "all_masked": 0.5,
    "contrast_weight": 0.5,
    "contrast_temperature": 0.5,
    "item_alignment": 0.5,
    "shared_codes": 1,
    "user_alignment": 0.5,
    "hidden_share": 0.5,
    "alignment_temperature": 0.5,
    "spread_weight": 0.5,
    "spread_temperature": 0.5,
}
# Of networks that draw for themselves in training: nothing is drawn.
STILL = {"guidance": 0.0, "noise_scale": 0.0, "steps": 1}


def needs(objective):
    """What the network must be able to do for an objective and those in it."""
    inner = [resolve("objective", objective["digits"])] if "digits" in objective else []
    return [need for part in (resolve("objective", objective["name"]), *inner) for need in part.needs]


def kinds(objective):
    """Of the loss over whole items, those that an objective and what is in it can work with."""
    parts = [resolve("objective", objective["name"]), resolve("objective", objective.get("digits", "diffusion"))]
    return set.intersection(*({*getattr(part, "kinds", KINDS)} for part in parts))


PAIRS = [
    (objective, name, options)
    for objective in ALL
    for name, options in trainable()
    if not any(lacks(resolve("model", name), need) for need in needs(objective))
]
BY_KIND = [  # of the loss over whole items, for objectives that have one
    (*pair, kind)
    for pair in PAIRS
    for kind in KINDS
    if kind == "softmax" or ("item_loss" in resolve("objective", pair[0]["name"]).sections and kind in kinds(pair[0]))
]
EVERY_PAIR = pytest.mark.parametrize(("objective", "name", "options"), PAIRS, ids=str)
EVERY_OBJECTIVE = pytest.mark.parametrize(
    ("objective", "name", "options"), [next(pair for pair in PAIRS if pair[0] == objective) for objective in ALL], ids=str
)


class Opinion:
    """A teacher who finds the items alike that stand together."""

    def users(self, batch):
        return self.items(batch.target + 1)

    def items(self, items):
        return torch.stack([items / 3.0, torch.ones_like(items, dtype=torch.float32)], -1)


def make(objective, network, noising="full_mask", items=FEATURES, counts=COUNTS, ranking=lambda *_: None, **item_loss):
    schedule = as_part("noising", noising).build(seed=0)
    task = learning_task(network, None, schedule, ranking, items, counts, Opinion(), lambda: CODE_VECTORS, **item_loss)
    return as_part("objective", objective).build(task=task)


def undrawn(objective):
    """The objective without what it draws itself, whatever the schedule, and without what compares targets."""
    weights = "history_weight", "contrast_weight", "item_alignment", "user_alignment"
    found = objective | {key: 0 for key in weights if key in settings("objective", objective["name"])}
    return found | {"digits": undrawn({"name": objective["digits"]})} if "digits" in objective else found


def loss_of(objective, batch=None, seed=0, context=START):
    batch = one_batch(EVENTS, objective.shared) if batch is None else batch
    return objective.loss(batch, torch.Generator().manual_seed(seed), context)


def test_every_objective_meets_a_network():
    assert {str(objective) for objective, _, _ in PAIRS} == {str(objective) for objective in ALL}
    assert all(objective.needs for objective in OBJECTIVES)


# ---- the loss -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("objective", "name", "options", "kind"), BY_KIND, ids=str)
def test_the_loss_is_one_finite_number_and_everything_that_it_concerns_learns(objective, name, options, kind):
    network = build(name, **SMALL, **options).train()
    found = loss_of(make(objective, network, kind=kind, negatives=8))
    assert found.shape == () and found.isfinite() and found.item() > 0 and found.dtype == torch.float32
    found.backward()
    without = {key for key, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)
    idle = set()
    if all(ScoresItems in need.__mro__ for need in needs(objective)):  # what only serves digits has nothing to learn
        digits_only = ("decoder", "masked", "start", "heads", "norm", "output")
        idle = {key for key in without if key.split(".")[0] in digits_only}
        idle |= set() if hasattr(getattr(network, "item", None), "sid") else {"digits.codes"}
    parts = [resolve("objective", objective[key]) for key in ("name", "digits") if key in objective]
    if not any(part.teaches_pairs for part in parts):
        idle |= {key for key in without if key.split(".")[0] == "pairs"}
    if ScoresItems not in needs(objective):  # as has what only serves scores of whole items
        idle |= {key for key in without if key.split(".")[0] == "user"}
    frozen = "backbone" if SteersDigits in needs(objective) else "steering"  # of two parts, one learns
    idle |= {key for key in without if key.split(".")[0] == frozen}
    assert without <= idle


@EVERY_PAIR
@pytest.mark.parametrize("noising", names("noising"))
def test_every_schedule_gives_a_loss_however_far_training_is(objective, name, options, noising):
    made = make(objective, build(name, **SMALL, **options), noising)
    for step in (0, 99):
        assert loss_of(made, context=LearningContext(step, 100, step // 10, 10)).isfinite()


@EVERY_PAIR
def test_randomness_comes_from_the_generator_alone(objective, name, options):
    """Everything is drawn: views, the histories whose digits are learnt, negatives."""
    drawn = {**objective, "digit_fraction": 0.5} if "digits" in objective else objective
    network = build(name, **SMALL, **options).train()
    made = make(drawn, network, "random", kind="sampled_softmax", negatives=3)
    state = torch.random.get_rng_state()
    first, again, other = (loss_of(made, seed=seed).item() for seed in (3, 3, 4))
    assert first == again and (torch.random.get_rng_state() == state).all()
    if objective["name"] != "left_to_right":  # which draws nothing
        assert first != other


@EVERY_PAIR
@pytest.mark.parametrize("noising", ["full_mask", "confidence"])
def test_the_order_of_rows_does_not_matter_where_nothing_is_drawn(objective, name, options, noising):
    made = make(undrawn(objective), build(name, **SMALL, **STILL, **options), noising)
    batches = TrainingBatches(EVENTS, S, 64, seed=0, shared=made.shared)
    rows = np.arange(len(batches.start))
    wanted = loss_of(made, batches.batch(rows)).item()
    for seed in range(3):
        shuffled = batches.batch(np.random.default_rng(seed).permutation(rows))
        assert loss_of(made, shuffled).item() == pytest.approx(wanted, rel=1e-5)


@EVERY_PAIR
def test_the_loss_of_two_batches_together_is_their_mean_by_targets(objective, name, options):
    made = make(undrawn(objective), build(name, **SMALL, **STILL, **options))
    batches = TrainingBatches(EVENTS, S, 64, seed=0, shared=made.shared)
    rows = np.arange(len(batches.start))
    parts = [batches.batch(rows[:2]), batches.batch(rows[2:])]
    wanted = sum(loss_of(made, part).item() * len(part.target) for part in parts) / sum(len(p.target) for p in parts)
    assert loss_of(made, batches.batch(rows)).item() == pytest.approx(wanted, rel=1e-5)


@EVERY_PAIR
def test_a_target_counts_as_much_as_its_weight_says(objective, name, options):
    made = make(undrawn(objective), build(name, **SMALL, **STILL, **options))
    batches = TrainingBatches(EVENTS, S, 64, seed=0, shared=made.shared)
    rows = np.arange(len(batches.start))
    whole, generator = batches.batch(rows), torch.Generator().manual_seed(0)
    plain, count = loss_of(made, whole).item(), len(whole.target)
    assert loss_of(made, whole._replace(weight=torch.ones(count))).item() == pytest.approx(plain, rel=1e-5)
    weight = 2 * torch.rand(count, generator=generator)
    both = [loss_of(made, whole._replace(weight=some)).item() for some in (weight, 2 - weight)]
    assert sum(both) == pytest.approx(2 * plain, rel=1e-5)
    first = batches.batch(rows[:1])
    alone = (whole.slot // whole.length.shape[1] == 0).float()
    wanted = loss_of(made, first).item() * len(first.target) / count
    assert loss_of(made, whole._replace(weight=alone)).item() == pytest.approx(wanted, rel=1e-5)


@EVERY_PAIR
def test_a_shared_history_gives_the_loss_of_each_target_alone(objective, name, options):
    """Where a causal encoder serves many targets in one pass; positions are left out, since some count from the newest."""
    network = build(name, **SMALL, **STILL, **options)
    made = make(undrawn(objective), network, "confidence")
    if made.shared:
        with torch.no_grad():
            for key, weight in network.named_parameters():
                if key.endswith("encoder.position"):
                    weight.zero_()
    events = EVENTS if made.shared else Ragged.from_lists([[3, 4], [7, 8]])
    found = [loss_of(made, one_batch(events, shared)).item() for shared in (True, False)]
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.parametrize(
    ("objective", "name", "options"), [pair for pair in PAIRS if pair[2].get("history") == "causal"], ids=str
)
def test_of_one_item_a_causal_and_a_bidirectional_encoder_make_the_same(objective, name, options):
    causal = build(name, **SMALL, **options)
    both = build(name, **SMALL, **{**options, "history": "bidirectional"})
    both.load_state_dict(causal.state_dict())
    first, second = (make(objective, network, "confidence") for network in (causal, both))
    assert first.shared and not second.shared
    events = Ragged.from_lists([[3, 4], [7, 8], [1, 0]])
    assert loss_of(first, one_batch(events, True)).item() == pytest.approx(
        loss_of(second, one_batch(events, False)).item(), rel=1e-6
    )
    longer = Ragged.from_lists([[3, 4, 5, 6], [7, 8, 9]])
    assert loss_of(first, one_batch(longer, True)).item() != pytest.approx(
        loss_of(second, one_batch(longer, False)).item(), rel=1e-6
    )


@EVERY_PAIR
def test_asking_for_a_loss_changes_neither_the_network_nor_the_items(objective, name, options):
    network = build(name, **SMALL, **options).train()
    made = make(objective, network, "confidence", kind="sampled_softmax")
    before, identity = copy.deepcopy(network.state_dict()), digest(made.identity())
    loss_of(made)
    assert network.training and all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert digest(made.identity()) == identity


@EVERY_OBJECTIVE
def test_weights_of_the_network_are_the_only_ones(objective, name, options):
    """What is kept and decayed is the network's; an objective brings none of its own."""
    network = build(name, **SMALL, **options)
    made = make(objective, network)
    assert {id(p) for p in made.parameters()} == {id(p) for p in network.parameters()} and made.network is network


# ---- what the losses follow from ------------------------------------------------------------------------------------


@EVERY_OBJECTIVE
def test_its_identity_changes_with_each_of_its_settings(objective, name, options):
    network = build(name, **SMALL, **options)
    known = settings("objective", objective["name"])
    changes = {key: CHANGED[key] for key in known if key != "digits"}
    variants = [{**objective, key: value} for key, value in changes.items()]
    if "digits" in objective:
        inner = settings("objective", objective["digits"])
        variants += [{**objective, "digits": {"name": objective["digits"], key: CHANGED[key]}} for key in inner]
    found = [digest(make(variant, network).identity()) for variant in (objective, *variants)]
    assert len(set(found)) == len(found) >= 1
    assert found[0] == digest(make(objective, network).identity())
    assert all(plain(as_part("objective", objective)) != plain(as_part("objective", variant)) for variant in variants)


@EVERY_OBJECTIVE
def test_its_identity_changes_with_the_sections_that_it_reads(objective, name, options):
    network = build(name, **SMALL, **options)
    inner = [resolve("objective", objective["digits"])] if "digits" in objective else []
    sections = {s for part in (resolve("objective", objective["name"]), *inner) for s in part.sections}
    found = [digest(make(objective, network).identity())]
    if "noising" in sections:
        for schedule in names("noising"):
            known = settings("noising", schedule)
            variants = [{"name": schedule}, *({"name": schedule, key: CHANGED[key]} for key in known)]
            found += [digest(make(objective, network, v).identity()) for v in variants if v != {"name": "full_mask"}]
    if "item_loss" in sections:
        task = make(objective, network).task
        for key in type(task.item_loss).model_fields:
            found.append(digest(make(objective, network, **{key: CHANGED[key]}).identity()))
    assert len(set(found)) == len(found) > len(sections)


@EVERY_OBJECTIVE
def test_its_identity_changes_with_the_items(objective, name, options):
    network = build(name, **SMALL, **options)
    other = features(seed=1)
    more = COUNTS + (np.arange(len(COUNTS)) == 3)
    changed = [{"items": replace(FEATURES, codes=other.codes)}, {"items": replace(FEATURES, text=other.text)}]
    found = [digest(make(objective, network, **change).identity()) for change in ({}, *changed, {"counts": more})]
    assert len(set(found)) == 4


# ---- validation -----------------------------------------------------------------------------------------------------


@EVERY_PAIR
def test_what_is_observed_is_finite_and_leaves_everything_alone(objective, name, options):
    network = build(name, **{**SMALL, "dropout": 0.3}, **options).train()
    table = ItemTable(network, FEATURES)
    ranking = Ranker(network, resolve("decoding", "exhaustive")(), Catalogue(FEATURES.codes, K), table)
    made = make(objective, network, ranking=lambda *_: ranking)
    validation = EvaluationSet(
        pl.Series(["a", "b", "c"]), EVENTS.rows(np.arange(3)), Ragged.from_lists([[2], [4, 5], [11]])
    )
    state = torch.random.get_rng_state()
    assert made.ranking() is ranking
    found, again = (made.observe(ranking, validation) for _ in range(2))
    assert found == again and network.training and (torch.random.get_rng_state() == state).all()
    by_digits = not issubclass(resolve("objective", objective["name"]), NextItemObjective)
    assert list(found) == ([f"val_digit_{digit}_nll" for digit in range(N)] if by_digits else [])
    assert all(np.isfinite(nll) and nll > 0 for nll in found.values())


# ---- networks that cannot do it -------------------------------------------------------------------------------------


@EVERY_PAIR
def test_every_method_that_a_network_lacks_is_named(objective, name, options):
    """Each ability that the objective asks for, taken away in turn."""
    whole = build(name, **SMALL, **options)
    for method in sorted({method for need in needs(objective) for method in lacks(object, need)}):
        network = copy.deepcopy(whole)
        network.__class__ = type("Without", (type(network),), {method: None})
        made = make(objective, network)
        with pytest.raises(RecipeError, match=rf"the model 'Without' lacks .*{method}"):
            loss_of(made, one_batch(EVENTS, whole.causal))


def test_joint_learning_needs_an_objective_over_digits_inside():
    network = build("diffgrm", **SMALL)
    for inner in ("next_item", {"name": "joint"}):
        with pytest.raises(RecipeError, match=r"objective\.digits is '(next_item|joint)', which learns no digits"):
            make({"name": "joint", "digits": inner}, network)
