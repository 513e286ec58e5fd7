"""The command line: diffgrm evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from diffgrm.apps.cli.shared import (
    Column,
    Dataset,
    Device,
    Interactions,
    Items,
    JsonFile,
    Model,
    OnEmpty,
    Overrides,
    Precision,
    ProfilesFile,
    Quiet,
    TimeFormat,
    TrustCode,
    as_text,
    check_outputs,
    dataset_of,
    write_json,
    write_table,
)
from diffgrm.foundation.schema import DataError


def evaluate(
    model: Model,
    overrides: Overrides = None,
    interactions: Interactions = None,
    items: Items = None,
    dataset: Dataset = None,
    column: Column = None,
    time_format: TimeFormat = None,
    profiles: ProfilesFile = None,
    on: Annotated[Literal["test", "validation"], typer.Option(help="Which held-out events.")] = "test",
    users: Annotated[int | None, typer.Option(min=1, help="Evaluate this many users, drawn by the recipe's seed.")] = None,
    on_empty: Annotated[
        OnEmpty, typer.Option(help="Users without an item that the model knows: an error, or left out.")
    ] = "error",
    device: Device = "auto",
    precision: Precision = "32",
    json_file: JsonFile = None,
    ranks: Annotated[Path | None, typer.Option(help="Write the rank of every target here (parquet).")] = None,
    segments: Annotated[
        list[str] | None,
        typer.Option(help="Accuracy by a column of a table of users, FILE:COLUMN (repeat the option); it has user_id."),
    ] = None,
    quiet: Quiet = False,
    trust_code: TrustCode = False,
) -> None:
    """Measure a model on held-out events: full ranking, by item, with and without the history filtered."""
    from diffgrm.apps.console import show_kinds, show_metrics
    from diffgrm.data.splits import make_split
    from diffgrm.evaluation import metrics as evaluation
    from diffgrm.evaluation.kinds import by_kind, with_kinds
    from diffgrm.evaluation.protocol import protocol, sentences
    from diffgrm.evaluation.segments import check_known, check_names, joined, read_segment
    from diffgrm.foundation.terminal import progress_bar, say
    from diffgrm.recommenders import load
    from diffgrm.recommenders.fitted_on import FittedOn
    from diffgrm.semantic_ids.embeddings.lsa import word_vectors

    wanted = _wanted_segments(segments or [])
    check_names([named for _, named in wanted])
    check_outputs(ranks, json_file, (".parquet",), read=(interactions, items, profiles, *(file for file, _ in wanted)))
    of_users = [read_segment(file, named) for file, named in wanted]
    recommender = load(model, trust_code=trust_code).override(map(as_text, overrides or [])).to(device, precision)
    data = dataset_of(interactions, items, dataset, column, time_format, recommender.recipe.events, profiles)
    split = make_split(data, recommender.recipe.data)
    held_out = (split.test if on == "test" else split.validation).sample(users, recommender.recipe.seed)
    for table in of_users:
        check_known(table, held_out.user_ids)
    fitted_on = FittedOn.of(recommender.facts, split)
    for line in fitted_on.sentences(recommender.recipe.data):
        say(line)
    with progress_bar("Evaluating", 2 * len(held_out), quiet) as progress:
        known = recommender.items if on_empty == "skip" else None
        by = data.items, split.item_counts, recommender.recipe.evaluation.ks
        texts = word_vectors(data.item_table) if recommender.recipe.evaluation.diversity else None
        result = evaluation.evaluate(recommender, held_out, *by, progress=progress, known=known, texts=texts)
    show_metrics(f"{on.capitalize()}: {result.n_users:,} users of {data.name}", {"value": result.metrics})
    events = with_kinds(result.per_user, held_out, split.train, split.item_counts)
    for table in of_users:
        events = joined(events, table)
    show_kinds(kinds := by_kind([events]))
    held = protocol(split)
    say("\n".join(sentences(held)))
    if json_file is not None:
        write_json(json_file, result.to_dict() | fitted_on.to_dict() | {"protocol": held, "kinds": kinds})
    if ranks is not None:
        write_table(events, ranks)


def _wanted_segments(pairs: list[str]) -> list[tuple[Path, str]]:
    """Tables of users, each with a column of it.

    Raises:
        DataError: what is not written FILE:COLUMN.
    """
    if wrong := [pair for pair in pairs if ":" not in pair]:
        raise DataError(f"--segments is written FILE:COLUMN, such as users.parquet:country; found {wrong[0]!r}")
    return [(Path(file), named) for file, named in (as_text(pair).rsplit(":", 1) for pair in pairs)]
