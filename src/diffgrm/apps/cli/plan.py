"""The command line: diffgrm plan: how many digits each step of a search had better fill."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from diffgrm.apps.cli.shared import Column, Dataset, Interactions, Items, Model, TimeFormat, TrustCode, dataset_of
from diffgrm.foundation.schema import DataError, RecipeError

if TYPE_CHECKING:
    from diffgrm.foundation.recipe import Recipe

BY_STEPS = "any_order_beam"  # the decoder of which steps are planned


def plan(
    model: Model,
    steps: Annotated[list[int], typer.Option(min=1, help="Number of steps (repeat the option).")],
    interactions: Interactions = None,
    items: Items = None,
    dataset: Dataset = None,
    column: Column = None,
    time_format: TimeFormat = None,
    users: Annotated[int | None, typer.Option(min=1, help="Ask about this many users, drawn by the recipe's seed.")] = 1000,
    trust_code: TrustCode = False,
) -> None:
    """Plan how many digits each of fewer steps fills, by how hard the digits of validation items are.

    Prints what the steps lose in nats, and the settings for behind 'diffgrm evaluate MODEL' or 'diffgrm recommend MODEL'.
    """
    from diffgrm.apps.semantic_ids import semantic_ids_of
    from diffgrm.data.splits import make_split
    from diffgrm.foundation.terminal import say
    from diffgrm.ranking.decoding.group_sizes import divergence, planned_sizes
    from diffgrm.recommenders import load
    from diffgrm.recommenders.capabilities import planning
    from diffgrm.recommenders.fitted_on import FittedOn

    recommender = load(model, trust_code=trust_code)
    plans, sids = planning(recommender), semantic_ids_of(recommender)
    assert sids is not None  # who fills digits has some
    n_digits = sids.n_digits
    if (most := max(steps)) > n_digits:
        raise RecipeError(f"--steps {most} is more than the {n_digits} digits of a semantic ID; give {n_digits} or fewer")
    recommender.variant(planned_settings(recommender.recipe, [n_digits]))  # what cannot be decoded so is refused at once
    if recommender.recipe.events.tells_context:
        raise DataError(
            f"{model} is told of times or of columns of events or users, and steps are planned by items alone; plan them "
            "with a model without events.time_inputs, events.event_columns and events.user_columns"
        )
    data = dataset_of(interactions, items, dataset, column, time_format, recommender.recipe.events)
    split = make_split(data, recommender.recipe.data)
    for line in FittedOn.of(recommender.facts, split).sentences(recommender.recipe.data):
        say(line)
    chosen = split.validation.sample(users, recommender.recipe.seed)
    ids = data.items.series
    histories = [ids.gather(chosen.histories[user]) for user in range(len(chosen))]
    targets = [ids.gather(chosen.targets[user][:1]).item() for user in range(len(chosen))]
    difficulty = plans.digit_difficulty(histories, targets)
    say("nats of a digit by how many others are known: " + ", ".join(f"{nats:.3f}" for nats in difficulty))
    if (decoder := recommender.recipe.decoding.name) != BY_STEPS:
        say(f"{model} decodes by {decoder}, of which no sizes of steps are planned; the settings choose {BY_STEPS}.")
    for count in steps:
        sizes = planned_sizes(difficulty, count)
        lost = f"{divergence(difficulty, sizes):.3f} nats, the mean over orders of the digits"
        say(f"{count} step{'s' * (count > 1)}: loses {lost}")
        typer.echo(shlex.join(planned_settings(recommender.recipe, sizes)))


def planned_settings(recipe: Recipe, sizes: Sequence[int]) -> list[str]:
    """Overrides by which a fitted model fills so many digits in each step.

    >>> from diffgrm.foundation.recipe import Recipe
    >>> planned_settings(Recipe(recommender="hybrid"), [2, 1, 1])
    ['decoding.name=any_order_beam', 'decoding.group=planned', 'decoding.sizes=[2,1,1]']
    >>> planned_settings(Recipe(recommender="diffgrm", decoding={"steps": 2}), [2, 2])
    ['decoding.steps=null', 'decoding.group=planned', 'decoding.sizes=[2,2]']
    """
    chosen = recipe.decoding
    if chosen.name != BY_STEPS:
        first = [f"decoding.name={BY_STEPS}"]
    else:  # what says itself how many digits a step fills
        first = [f"decoding.{key}=null" for key in ("steps", "threshold") if chosen.options[key] is not None]
    return [*first, "decoding.group=planned", f"decoding.sizes=[{','.join(map(str, sizes))}]"]
