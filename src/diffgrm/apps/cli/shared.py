"""What commands share: options, and what they read and write."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import polars as pl
import typer

from diffgrm.foundation.manifest import MODEL
from diffgrm.foundation.outputs import check_file, check_folder, check_unread
from diffgrm.foundation.run_folder import holds_checkpoint
from diffgrm.foundation.schema import Columns, DataError, RecipeError, first_few
from diffgrm.foundation.storage import write_parquet

if TYPE_CHECKING:
    from diffgrm.data.coding import Events
    from diffgrm.data.dataset import InteractionDataset
    from diffgrm.data.ids import IdMap
    from diffgrm.foundation.event_settings import EventSettings
    from diffgrm.foundation.recipe import Recipe

Model = Annotated[Path, typer.Argument(help="Folder of the model.")]
RunFolder = Annotated[
    Path | None, typer.Option(help="Folder of checkpoints and logs; without it OUT.run beside the model.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint of the run folder.")]
Interactions = Annotated[
    Path | None,
    typer.Option(
        help="Events: user_id, item_id, timestamp (parquet, csv, jsonl..., a folder or a pattern of parquet files)."
    ),
]
Items = Annotated[Path | None, typer.Option(help="Items: item_id, text (parquet, csv, jsonl...).")]
Dataset = Annotated[str | None, typer.Option(help="A public dataset instead of two tables; see 'diffgrm datasets'.")]
Column = Annotated[
    list[str] | None, typer.Option(help="Rename a column of your tables: OURS=YOURS, for example user_id=reviewerID.")
]
TimeFormat = Annotated[
    str | None, typer.Option(help="How times in text are written, for example %d/%m/%Y; without it, numbers or ISO.")
]
OnEmpty = Literal["error", "skip"]


def _moment(text: str | None) -> str | float | None:
    """A time as an argument: a number where it is written as one, as over HTTP."""
    if text is None:
        return None
    for number in (int, float):
        with suppress(ValueError):
            return number(text)
    return text


At = Annotated[
    str | None,
    typer.Option(
        callback=_moment,
        help="When the lists are asked for: a time in ISO (UTC), a number as timestamps are, or now; without it, at each "
        "newest event.",
    ),
]
ProfilesFile = Annotated[
    Path | None,
    typer.Option("--profiles", help="Users: user_id and the columns that events.user_columns names (parquet, csv...)."),
]
RecipeFile = Annotated[
    Path | None, typer.Option(help="Recipe YAML, or a name that 'diffgrm recipes' lists; without it, the defaults.")
]
Overrides = Annotated[list[str] | None, typer.Argument(help="Settings, for example model.width=128 decoding.beam=64.")]
RulesFile = Annotated[
    Path | None,
    typer.Option("--rules", help="YAML or JSON of what else is wanted of lists: filters, caps, pins... (docs/rules.md)."),
]
Device = Annotated[
    str, typer.Option(help="torch device of the network: cpu, cuda, cuda:1...; auto is a GPU if there is one.")
]
Precision = Annotated[
    Literal["32", "bf16"],
    typer.Option(help="Of the network: bf16 is faster on GPUs and CPUs with AMX, and a little coarser."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-code", help="Also run classes of others that the model names, which it does with all rights of this user."
    ),
]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the result to this JSON file.")]

_WRITERS = {
    ".parquet": write_parquet,
    ".csv": lambda frame, path: frame.write_csv(path),
    ".jsonl": lambda frame, path: frame.write_ndjson(path),
}
_SINKS: dict[str, Callable[..., Any]] = {
    ".parquet": pl.LazyFrame.sink_parquet,
    ".csv": pl.LazyFrame.sink_csv,
    ".jsonl": pl.LazyFrame.sink_ndjson,
}


def as_text(argument: str) -> str:
    """An argument that is a text, such as an id; whatever the locale is, it is UTF-8.

    Raises:
        DataError: it is not.
    """
    try:
        return os.fsencode(argument).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"the argument {argument!r} is not UTF-8; ids and settings are") from error


def check_idle(why: str, options: Mapping[str, object]) -> None:
    """Complain about options that would do nothing beside the other ones.

    Args:
        why: they would do nothing.
        options: what was given for each, by its name; None or an empty list: nothing.
    """
    if idle := [name for name, given in options.items() if given is not None and given != []]:
        them = "it" if len(idle) == 1 else "them"
        raise DataError(f"{' and '.join(idle)} would do nothing, since {why}; leave {them} out")


def check_outputs(
    table: Path | None,
    json_file: Path | None = None,
    suffixes: tuple[str, ...] = tuple(_WRITERS),
    *,
    read: Iterable[Path | None],
) -> None:
    """Complain about files that cannot be written, or would be written over what is read, before the work is done.

    Args:
        table: in the format of its suffix, one of ``suffixes``.
        read: all tables and other files that the command is given.
    """
    if table is not None and table.suffix not in suffixes:
        raise DataError(f"cannot write {table.name}: expected one of {', '.join(suffixes)}")
    for path in (table, json_file):
        if path is not None:
            check_file(path)
    check_unread((table, json_file), read)


def check_model_place(out: Path, kind: str = MODEL, *, read: Iterable[Path | None]) -> None:
    """Complain about a place where no model can be saved before the work is done.

    Args:
        kind: format of the model's folder.
        read: all tables that the command is given, which no model may take the place of.
    """
    from diffgrm.foundation import model_folder

    model_folder.check_target(out, kind)
    folder = model_folder.place(out)
    if inside := [path for path in read if path is not None and path.resolve().is_relative_to(folder)]:
        raise DataError(
            f"{inside[0]} lies in {out}, which the model would replace; save to another folder, or copy it first"
        )


def write_table(table: pl.DataFrame, path: Path) -> None:
    """Write a table, whole or not at all, in the format of its suffix."""
    from diffgrm.foundation.storage import atomic_file

    with atomic_file(path) as temporary:
        _WRITERS[path.suffix](table, temporary)


def write_tables(tables: Iterable[pl.DataFrame], path: Path) -> tuple[int, int]:
    """Write tables, which may be larger than memory together, as one; returns how many rows and users it has.

    Args:
        tables: with different users.
        path: see :func:`write_table`.
    """
    from diffgrm.foundation.storage import atomic_file

    rows, users = 0, 0
    with atomic_file(path) as temporary, TemporaryDirectory(prefix=f".{path.name}.", dir=path.absolute().parent) as folder:
        parts: list[Path] = []
        for table in tables:
            rows, users = rows + table.height, users + table[Columns.USER].n_unique()
            parts.append(Path(folder) / f"{len(parts)}.parquet")
            write_parquet(table, parts[-1])
        try:
            _SINKS[path.suffix](pl.scan_parquet(parts, glob=False), temporary.absolute())
        except pl.exceptions.ComputeError as error:  # polars' word for what the disk says
            raise OSError(f"{path.name}: {error}") from error
    return rows, users


def run_folder_of(out: Path, given: Path | None) -> Path:
    """The folder of a run's checkpoints and logs, which can be written to: as given, else beside the model.

    Raises:
        DataError: it lies in the folder of the model.
    """
    from diffgrm.foundation import model_folder

    run = given or out.with_name(f"{out.name}.run")
    if model_folder.place(run).is_relative_to(model_folder.place(out)):
        raise DataError(f"the run folder {run} lies in {out}, which the model replaces; give another --run-folder")
    check_folder(run)
    return run


def how_to_go_on(run: Path) -> str:
    """What is said where fitting is ended by a signal."""
    if holds_checkpoint(run):
        return f"No model was saved; go on from the last checkpoint in {run} with the same command and --resume."
    return "No model was saved, and there is no checkpoint yet to go on from."


MEASURES = ("data.target=", "data.cold_targets=", "evaluation.")


def of_lists(overrides: list[str] | None) -> list[str]:
    """Overrides of a command that makes lists and measures none.

    Raises:
        RecipeError: some say how lists are measured, which would do nothing.
    """
    found = list(map(as_text, overrides or []))
    if idle := [override for override in found if override.startswith(MEASURES)]:
        raise RecipeError(f"{idle[0]} does nothing where no list is measured; leave it out (diffgrm evaluate takes it)")
    return found


def recipe_of(path: Path | None, overrides: list[str] | None, usual: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe by which something is made: of a file (or one that ships with the package), with settings of the command
    line over it.

    Args:
        usual: what it is without a file; None: the defaults.

    Raises:
        RecipeError: any wrong setting, or one that does nothing beside the others.
    """
    recipe = recipe_as_written(path, overrides, usual)
    recipe.refuse_idle()
    return recipe


def recipe_as_written(path: Path | None, overrides: list[str] | None, usual: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe of :func:`recipe_of`, in which settings may do nothing; arguments and other errors as there."""
    from diffgrm.foundation.overrides import apply_overrides
    from diffgrm.foundation.recipe import Recipe

    overrides = list(map(as_text, overrides or []))
    if path is not None:
        return Recipe.from_yaml(path, overrides)
    return Recipe.from_dict(apply_overrides(usual or {}, overrides))


def recipe_files(path: Path | None, recipe: Recipe) -> list[Path]:
    """The file that a recipe was read from, if it was one, and the files that its parts are told to read."""
    return [*([path] if path is not None and path.is_file() else []), *recipe.files()]


def pairs_of(given: list[str] | None, option: str, form: str) -> dict[str, str]:
    """The pairs of an option that is repeated, as a mapping.

    Args:
        form: how a pair is written, for example NAME=VALUE.

    Raises:
        DataError: other pairs, or a name twice.
    """
    pairs = list(map(as_text, given or []))
    if wrong := [pair for pair in pairs if "=" not in pair]:
        raise DataError(f"{option} is written {form}, found {wrong[0]!r}")
    split = [pair.split("=", 1) for pair in pairs]
    names = [name for name, _ in split]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{option} tells {twice[0]!r} twice; tell it once")
    return dict(split)


def renamings(column: list[str] | None) -> dict[str, str]:
    """OURS=YOURS pairs as a mapping; see :func:`pairs_of`."""
    return pairs_of(column, "--column", "OURS=YOURS")


def events_of(path: Path, column: list[str] | None, time_format: str | None, settings: EventSettings) -> pl.DataFrame:
    """user_id, item_id and what else the model reads of an interaction table, whatever items there are: ``event`` (its
    type), ``timestamp`` and the columns of ``events.event_columns``.

    A user's rows stand together, oldest first.

    Args:
        settings: how the model reads events.
    """
    from diffgrm.data.ids import IdMap

    none = IdMap(pl.Series([], dtype=pl.String))  # a catalogue that knows no item, so that each keeps its own id
    events = events_for(path, none, None, column, time_format, settings)
    user = np.repeat(np.arange(len(events.users)), np.diff(events.offsets))
    items = events.strange["id"].gather(-1 - events.items)
    table = pl.DataFrame({Columns.USER: events.users.gather(user), Columns.ITEM: items})
    table = table.with_columns(events.marks.request_columns())
    return table if settings.event is None else table.rename({settings.event: Columns.EVENT})


def events_for(
    path: Path,
    items: IdMap,
    users: list[str] | None,
    column: list[str] | None,
    time_format: str | None,
    settings: EventSettings,
) -> Events:
    """The events of an interaction table as positions of a model's items; of some users, None is all.

    Args:
        settings: how the model reads events.

    Raises:
        DataError: users without an event.
    """
    from diffgrm.data.blocks import open_rows
    from diffgrm.data.events import read_events
    from diffgrm.data.tables import OF_EVENTS, OURS, renamings_for
    from diffgrm.foundation.terminal import say

    rows = open_rows(path)
    settings = settings.of_histories(tuple(rows.header.columns))
    (named,) = renamings_for(renamings(column), rows.header, what="the interaction table", ours=OF_EVENTS, known=OURS)
    events = read_events(rows, items, named, time_format, "keep", settings)
    say(f"{path.name}: {events.report}.")
    if users is None:
        return events
    users, known = list(map(as_text, users)), events.users.cast(pl.String)
    if unknown := sorted(set(users) - set(known)):
        raise DataError(f"{len(unknown)} users have no event in the interaction table: {first_few(unknown)}")
    chosen = known.is_in(users).arg_true().to_numpy()
    theirs, ids = events.rows.rows(chosen), events.users.gather(chosen)
    return replace(events, users=ids, offsets=theirs.offsets, items=theirs.values, times=None, marks=theirs.marks)


def dataset_of(
    interactions: Path | None,
    items: Path | None,
    name: str | None,
    column: list[str] | None,
    time_format: str | None,
    settings: EventSettings,
    profiles: Path | None = None,
) -> InteractionDataset:
    """The dataset of two tables, or a public one; what was read of the table of events is said.

    Args:
        settings: which rows are events.
        profiles: the table of users.
    """
    from diffgrm.data.dataset import InteractionDataset
    from diffgrm.data.marks import PLAIN
    from diffgrm.data.sources.listing import load_source
    from diffgrm.foundation.terminal import say

    if name is not None:
        if interactions is not None or items is not None:
            raise DataError("give either --dataset NAME or --interactions and --items, not both")
        if profiles is not None:
            raise DataError(
                f"--profiles is for tables, and --dataset {name} is read as its publisher has it, with its own table of "
                "users if it has one; give both tables with --interactions and --items"
            )
        idle = {"--column": column, "--time-format": time_format}
        check_idle(f"--dataset {name} is read as its publisher has it", idle)
        found = load_source(name, settings)
        if settings != PLAIN:
            say(f"{name}: {found.report}.")
        return found
    if interactions is None or items is None:
        raise DataError("give --interactions FILE and --items FILE, or --dataset NAME")
    label = interactions.resolve().parent.name or interactions.stem
    read_as = renamings(column), label, time_format, settings, profiles
    dataset = InteractionDataset.from_tables(interactions, items, *read_as)
    say(f"{interactions.name}: {dataset.report}.")
    return dataset


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON, whole or not at all."""
    from diffgrm.foundation.storage import atomic_file

    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
