"""The demonstration: the default recommender on a generated storefront, in a few minutes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffgrm.apps.console import show_metrics, show_report
from diffgrm.data.dataset import leave_one_out
from diffgrm.data.toy import ToyWorld, toy_world
from diffgrm.evaluation.metrics import Evaluation, evaluate
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import Columns
from diffgrm.foundation.terminal import console, progress_bar, say, styled
from diffgrm.recommenders.base import Recommender
from diffgrm.recommenders.hybrid import HybridRecommender
from diffgrm.recommenders.popularity import PopularityRecommender
from diffgrm.recommenders.random import RandomRecommender

RECIPE = Recipe.from_dict(  # the library's defaults, made small
    {
        "embedding": {"width": 64},
        "tokenizer": {"codebook_size": 32},
        "model": {"width": 64, "dropout": 0.2, "max_len": 10},
        "item_loss": {"kind": "softmax"},
        "training": {
            "batch_size": 64,
            "epochs": 10,
            "learning_rate": 0.003,
            "warmup_steps": 100,
            "validation_users": 400,
        },
    }
)

NOTE = (
    "The lists are ranked by whole items: what the network, co-occurrence and a lift of new items say of each. Digits have "
    "no say in them; 'diffgrm explain' shows how the network would fill in the digits of each item of a list."
)


def run(out: Path | None, quiet: bool) -> None:
    """Fit, evaluate and recommend on the toy storefront; print what a user wants to see."""
    world = toy_world()
    say(f"{world.dataset!r}: shoppers follow known rules, {world.noise:.0%} of purchases are noise")
    recommender = HybridRecommender(RECIPE).fit(world.dataset, progress=not quiet)
    assert recommender.report is not None
    show_report(recommender.report)
    facts = recommender.facts
    say(f"Trained {facts['epochs']} epochs, {facts['parameters']:,} parameters, in {facts['fit_seconds']} s")
    models: dict[str, Recommender] = {
        "hybrid": recommender,
        "popularity": PopularityRecommender().fit(world.dataset),
        "random": RandomRecommender().fit(world.dataset),
    }
    results = {name: _evaluate(model, world, name, quiet).metrics for name, model in models.items()}
    names = ["recall@5", "ndcg@5", "recall@10", "ndcg@10", "ndcg@10_unfiltered", "coverage@10", "validity", "distinctness"]
    show_metrics("Test: next purchase of every shopper, by item, history filtered", results, names)
    _show_examples(recommender, world)
    say(NOTE)
    if out is not None:
        say(f"Model saved to {recommender.save(out)}")


def _evaluate(model: Recommender, world: ToyWorld, name: str, quiet: bool) -> Evaluation:
    split = leave_one_out(world.dataset)
    with progress_bar(f"Evaluating {name}", 2 * len(split.test), quiet) as progress:
        return evaluate(model, split.test, world.dataset.items, split.item_counts, progress=progress)


def _show_examples(recommender: Recommender, world: ToyWorld, users: int = 3, k: int = 5) -> None:
    """A few histories with their recommendations, and which of them the storefront's rules call right."""
    split = leave_one_out(world.dataset)
    titles = dict(world.dataset.item_table.select(Columns.ITEM, Columns.TITLE).iter_rows())
    chosen = np.random.default_rng(1).choice(len(split.test), users, replace=False)
    for row in chosen:
        user = str(split.test.user_ids[int(row)])
        history = world.dataset.items.ids(split.test.histories[row])
        found = recommender.recommend({user: history}, k)
        right = world.answers(history)
        console.print()
        console.print(styled(user, "bold"), "bought:", " → ".join(titles[item] for item in history[-4:]))
        for item, score, rank in found.select(Columns.ITEM, Columns.SCORE, Columns.RANK).iter_rows():
            mark = styled("✓" if item in right else " ", "green")
            console.print(f"  {rank}.", mark, f"{titles[item]}  ({score:.2f})")
    say("\n✓ marks what the rules of the storefront call right: three items for each history.")
