"""The command line: diffgrm plan: how many digits each step of a search had better fill."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffgrm.apps.cli.shared import Column, Dataset, Interactions, Items, TimeFormat, TrustCode, dataset_of
from diffgrm.foundation.schema import DataError


def plan(
    model: Annotated[Path, typer.Argument(help="Folder of the model.")],
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

    Prints decoding.sizes for decoding.group=planned, and what the steps lose in nats.
    """
    from diffgrm.data.splits import make_split
    from diffgrm.foundation.terminal import say
    from diffgrm.ranking.decoding.group_sizes import divergence, planned_sizes
    from diffgrm.recommenders import load
    from diffgrm.recommenders.capabilities import planning
    from diffgrm.recommenders.fitted_on import FittedOn

    recommender = load(model, trust_code=trust_code)
    plans = planning(recommender)
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
    for count in steps:
        sizes = planned_sizes(difficulty, min(count, len(difficulty)))
        typer.echo(f"decoding.group=planned decoding.sizes={sizes}  # loses {divergence(difficulty, sizes):.3f} nats")
