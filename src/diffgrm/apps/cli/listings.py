"""The command line: diffgrm recipes, datasets: what there is to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

TABLES = "interactions", "items", "users"


def recipes(
    name: Annotated[str | None, typer.Argument(help="Recipe to print; without it, all names are listed.")] = None,
) -> None:
    """List the recipes that ship with the package, or print one as YAML."""
    from diffgrm.apps.console import show_names
    from diffgrm.foundation.presets import preset_names, preset_summary, preset_text

    if name is not None:
        typer.echo(preset_text(name), nl=False)
        return
    show_names((known, preset_summary(known)) for known in preset_names())


def datasets(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Dataset to fetch, such as movielens-1m, amazon-2018:Gift_Cards, steam:10-core (users and items with ten "
            "events at least; 0-core: all) or yelp:FILE; without it, all names are listed."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write interactions.parquet, items.parquet and, where there is one, users.parquet into this folder."
        ),
    ] = None,
) -> None:
    """List the public datasets with their sizes and licences, or fetch one from its publisher."""
    from diffgrm.apps.console import show_names
    from diffgrm.data.sources.listing import SOURCES, rated_table, user_table_of
    from diffgrm.foundation.outputs import check_folder
    from diffgrm.foundation.schema import DataError, first_few
    from diffgrm.foundation.storage import atomic_file, write_parquet
    from diffgrm.foundation.terminal import say

    if out is not None:
        if name is None:
            raise DataError("--out is for the tables of a dataset: name one too, of those that 'diffgrm datasets' lists")
        check_folder(out)
        if taken := [file for what in TABLES if (out / (file := f"{what}.parquet")).exists()]:
            raise DataError(f"{out} holds {first_few(taken)} already; write to another folder, or move what is there")
    if name is None:
        rows = ((source.shown(name), f"{source.about}; {source.licence}") for name, source in SOURCES.items())
        show_names(rows)
        return
    data = rated_table(name)
    say(f"{data!r}")
    if out is not None:
        tables = dict(zip(TABLES, (data.event_table(), data.item_table, user_table_of(name)), strict=True))
        there = {f"{what}.parquet": table for what, table in tables.items() if table is not None}
        for file, table in there.items():
            with atomic_file(out / file) as path:
                write_parquet(table, path)
        say(f"Written to {' and '.join(str(out / file) for file in there)}")
