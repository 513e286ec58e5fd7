"""The command line: diffgrm update."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffgrm.apps.cli import ends
from diffgrm.apps.cli.items import reading
from diffgrm.apps.cli.shared import (
    Column,
    Model,
    ProfilesFile,
    Quiet,
    TimeFormat,
    TrustCode,
    as_text,
    check_model_place,
    renamings,
    run_folder_of,
)
from diffgrm.foundation.run_folder import drop_checkpoints, holds_checkpoint
from diffgrm.foundation.schema import DataError

if TYPE_CHECKING:
    from diffgrm.data.dataset import InteractionDataset
    from diffgrm.recommenders import Recommender


def update(
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder of the model that has gone on; it may be the same.")],
    interactions: Annotated[
        Path, typer.Option(help="Events to learn from now, best old and new ones: user_id, item_id, timestamp.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings of the update, for example training.epochs=2 training.learning_rate=1e-4."),
    ] = None,
    items: Annotated[
        Path | None, typer.Option(help="New items: item_id, text (parquet, csv, jsonl...); those that are known stay.")
    ] = None,
    vectors: Annotated[
        Path | None,
        typer.Option(
            help="Where the embedding is precomputed: the .parquet file with the items' vectors; where it is a sentence "
            "encoder of a folder: that folder."
        ),
    ] = None,
    column: Column = None,
    time_format: TimeFormat = None,
    profiles: ProfilesFile = None,
    run_folder: Annotated[
        Path | None, typer.Option(help="Folder of checkpoints and logs, one that several devices see; else temporary.")
    ] = None,
    quiet: Quiet = False,
    trust_code: TrustCode = False,
) -> None:
    """Go on learning from a saved model: later events, new users, new items.

    Weights continue in a short training, and known items keep their semantic IDs. Until the new
    model is saved, which is whole or not at all, the old one is as it was.
    """
    from diffgrm.apps.console import show_metrics
    from diffgrm.foundation.terminal import say
    from diffgrm.recommenders import load

    check_model_place(out, read=(interactions, items, vectors, profiles))
    if run_folder is not None:
        run_folder_of(out, run_folder)
    if vectors is not None and vectors.suffix == ".npy":
        raise DataError(
            f"{vectors.name} goes by rows, and those of the item table are not all given here; give --vectors as .parquet "
            "with the columns item_id and embedding"
        )
    recommender = reading(load(model, trust_code=trust_code), vectors)
    dataset = _dataset(recommender, interactions, items, renamings(column), time_format, profiles)
    say(f"{interactions.name}: {dataset.report}.")
    settings = list(map(as_text, overrides or []))
    with ends.hint(lambda: _how_to_begin_again(run_folder)):
        after = recommender.fit_more(dataset, overrides=settings, run_folder=run_folder, progress=not quiet)
    from diffgrm.learning.machine import is_first_process

    if not is_first_process():
        return
    after.save(out)
    if run_folder is not None:
        drop_checkpoints(run_folder)
    if before := after.facts.get("validation_before"):
        found = {"before": before, "after": after.facts["validation"]}
        show_metrics("Validation (by item, history filtered)", found)
        if found["before"] == found["after"]:  # those of the weights that stay are the ones before, to the last digit
            trained = after.facts["epochs"] > 0
            why = "No epoch was better than the weights as they were, so that these" if trained else "Weights"
            say(f"{why} stayed; items and counts are those of the events given.")
    came = len(after.items) - len(recommender.items)
    say(f"Saved to {out} after {after.facts['fit_seconds']} s: {len(after.items):,} items, {came:,} of them new.")


def _how_to_begin_again(run_folder: Path | None) -> str:
    """What is said where an update is ended by a signal."""
    if run_folder is not None and holds_checkpoint(run_folder):
        return f"No model was saved, and an update cannot be resumed; delete {run_folder}, then start it again."
    return "No model was saved; start the update again."


def _dataset(
    recommender: Recommender,
    interactions: Path,
    items: Path | None,
    renamed: dict[str, str],
    time_format: str | None,
    profiles: Path | None,
) -> InteractionDataset:
    """The events, over the items of the model and those that come."""
    from diffgrm.data.blocks import open_rows
    from diffgrm.data.dataset import InteractionDataset
    from diffgrm.data.frames import load_frame
    from diffgrm.data.tables import OF_EVENTS, OURS, read_items, renamings_for
    from diffgrm.foundation.schema import Columns

    table, header = recommender.item_table, open_rows(interactions).header
    if items is None:
        (theirs,) = renamings_for(renamed, header, what="the interaction table", ours=OF_EVENTS, known=OURS)
    else:
        frame = load_frame(items, "item table")
        theirs, of_items = renamings_for(renamed, header, frame, what="the interaction table and the item table")
        rows = read_items(frame, of_items)
        new = rows.filter(recommender.items.positions(rows[Columns.ITEM]) < 0)
        if new.height:
            table = recommender.catalogue.with_new(new)[0].table
    label = interactions.resolve().parent.name or interactions.stem
    read_as = theirs, label, time_format, recommender.recipe.events, profiles
    return InteractionDataset.from_tables(interactions, table, *read_as)
