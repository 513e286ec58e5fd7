"""The command line: diffgrm tune: search for the settings that do best on validation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from diffgrm.apps.cli import ends
from diffgrm.apps.cli.shared import (
    Column,
    Dataset,
    Interactions,
    Items,
    Overrides,
    ProfilesFile,
    Quiet,
    TimeFormat,
    as_text,
    dataset_of,
)


def tune(
    recipe: Annotated[Path, typer.Argument(help="Recipe YAML, or a name that 'diffgrm recipes' lists.")],
    trials: Annotated[int, typer.Option(min=1, help="How many in all, with those that OUT holds already.")],
    out: Annotated[Path, typer.Option(help="Folder of the search; a killed one goes on there.")],
    overrides: Overrides = None,
    space: Annotated[
        Path | None, typer.Option(help="YAML of what may be chosen; without it, what the recipe has under choose:.")
    ] = None,
    interactions: Interactions = None,
    items: Items = None,
    dataset: Dataset = None,
    column: Column = None,
    time_format: TimeFormat = None,
    profiles: ProfilesFile = None,
    pruning: Annotated[
        Literal["median", "none"],
        typer.Option(help="median: give trials up whose validation is below the median of earlier ones at that epoch."),
    ] = "median",
    startup: Annotated[
        int, typer.Option(min=1, help="Trials drawn at random first; none is given up before as many have ended.")
    ] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of the proposals; every trial has the recipe's own seed.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Search for the settings of a recipe that do best on validation. No trial is given a test event.

    What may be chosen: 'model.dropout: [0.2, 0.5]' one of a list, 'model.width: {min: 32, max: 128, step: 32}' a range,
    'training.learning_rate: {min: 0.0003, max: 0.01, log: true}'.

    Writes OUT/best.yaml, which 'diffgrm fit --recipe' takes, trials.csv, trials.json and report.html.
    """
    from diffgrm.apps.console import show_trials
    from diffgrm.apps.tuning.plan import Plan
    from diffgrm.apps.tuning.search import check_place, search
    from diffgrm.foundation.terminal import say

    changes = list(map(as_text, overrides or []))
    plan = Plan.from_files(recipe, space, changes, seed=seed, pruning=pruning, startup=startup)
    check_place(out)
    data = dataset_of(interactions, items, dataset, column, time_format, plan.recipe.events, profiles)
    say(f"{data!r}")
    with ends.hint(lambda: f"What is done so far stands in {out}; the same command goes on there."):
        found = search(plan, data, trials, out, not quiet, say)
    show_trials(found.trials)
    say(f"Fit with the best settings: diffgrm fit --recipe {out}/best.yaml. A page with figures: {out}/report.html")
