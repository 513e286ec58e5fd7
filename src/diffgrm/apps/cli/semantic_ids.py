"""The command line: diffgrm semantic-ids export, churn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffgrm.apps.cli.shared import JsonFile, Model, TrustCode, check_outputs, write_json

if TYPE_CHECKING:
    from diffgrm.semantic_ids.sid_files import SidTable

semantic_ids_app = typer.Typer(help="Semantic IDs as files: write those of a model, compare two sets.")
PLACE = "a model folder, or a file: .parquet (item_id and lists of digits) or .json ({item: digits})."


@semantic_ids_app.command()
def export(
    model: Model,
    out: Annotated[Path, typer.Option(help="Write item_id and semantic_id here (.parquet), or {item: digits} (.json).")],
    trust_code: TrustCode = False,
) -> None:
    """Write the semantic IDs of all items of a model, as tokenizer.name=from_file reads them.

    A digit that numbers items of the same digits (semantic_ids.collisions=extra_digit) comes last. Removed items are there
    too.
    """
    from diffgrm.foundation.terminal import say
    from diffgrm.semantic_ids.sid_files import write_sids

    check_outputs(out, suffixes=(".parquet", ".json"), read=())
    table = _of_model(model, trust_code)
    write_sids(table.items, table.codes, out)
    say(f"{len(table.items):,} semantic IDs of {table.codes.shape[1]} digits written to {out}")


@semantic_ids_app.command()
def churn(
    before: Annotated[Path, typer.Argument(help=f"Semantic IDs before: {PLACE}")],
    after: Annotated[Path, typer.Argument(help="Semantic IDs after, as BEFORE.")],
    column: Annotated[str | None, typer.Option(help="Column of the digits in a parquet file BEFORE.")] = None,
    column_after: Annotated[str | None, typer.Option(help="The same of AFTER.")] = None,
    json_file: JsonFile = None,
    trust_code: TrustCode = False,
) -> None:
    """Tell how much the semantic IDs of the same items differ between two sets, also up to the names of codes."""
    from diffgrm.apps.console import show_pairs
    from diffgrm.semantic_ids import churn as churns

    check_outputs(None, json_file, read=(before, after))
    found = churns.churn(_read(before, column, trust_code), _read(after, column_after, trust_code))
    show_pairs("Churn of semantic IDs", found.rows())
    if json_file is not None:
        write_json(json_file, found.to_dict())


def _read(place: Path, column: str | None, trust_code: bool) -> SidTable:
    from diffgrm.foundation.schema import DataError
    from diffgrm.semantic_ids.sid_files import read_sids

    if not place.is_dir():
        return read_sids(place, column)
    if column is not None:
        raise DataError(f"{place} is a model folder, of which there is no column {column!r}; leave the column out")
    return _of_model(place, trust_code)


def _of_model(model: Path, trust_code: bool) -> SidTable:
    from diffgrm.apps.semantic_ids import semantic_ids_of
    from diffgrm.foundation.schema import DiffGRMError
    from diffgrm.recommenders import load
    from diffgrm.semantic_ids.sid_files import SidTable

    recommender = load(model, trust_code=trust_code)
    if (sids := semantic_ids_of(recommender)) is None:
        raise DiffGRMError(
            f"{model} holds a model of the recommender {recommender.recipe.recommender!r}, which has no semantic IDs; "
            "give one that has, such as diffgrm or hybrid"
        )
    return SidTable(recommender.items.series, sids.codes)
