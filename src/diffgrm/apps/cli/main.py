"""The command line: fit, recommend, explain, similar, evaluate, tokenize, export, tune, bench, report, serve...."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer

from diffgrm.apps.cli import ends
from diffgrm.apps.cli.batch import embed_batch, recommend_batch
from diffgrm.apps.cli.cache import cache
from diffgrm.apps.cli.documents import documents_app
from diffgrm.apps.cli.evaluating import evaluate
from diffgrm.apps.cli.items import items_app
from diffgrm.apps.cli.listings import datasets, recipes
from diffgrm.apps.cli.plan import plan
from diffgrm.apps.cli.results import bench, demo, export, report
from diffgrm.apps.cli.semantic_ids import semantic_ids_app
from diffgrm.apps.cli.serving import serve
from diffgrm.apps.cli.settings_help import CommandWithSettings
from diffgrm.apps.cli.shared import (
    At,
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
    RecipeFile,
    Resume,
    RulesFile,
    RunFolder,
    TimeFormat,
    TrustCode,
    as_text,
    check_idle,
    check_model_place,
    check_outputs,
    dataset_of,
    events_for,
    how_to_go_on,
    of_lists,
    recipe_files,
    recipe_of,
    renamings,
    run_folder_of,
    write_json,
    write_table,
    write_tables,
)
from diffgrm.apps.cli.told import HISTORY, ONE_USER, Profile, history_of, profile_of
from diffgrm.apps.cli.tune import tune
from diffgrm.apps.cli.updating import update
from diffgrm.foundation.run_folder import drop_checkpoints
from diffgrm.foundation.schema import Columns, DataError, DiffGRMError, out_of_memory

app = typer.Typer(
    name="diffgrm",
    help="Generative recommendation with masked diffusion over semantic IDs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(update)
app.command()(cache)
for _command in (evaluate, recipes, datasets, bench, report, tune, demo, export, plan, serve, recommend_batch, embed_batch):
    app.command()(_command)
app.add_typer(items_app, name="items", no_args_is_help=True)
app.add_typer(semantic_ids_app, name="semantic-ids", no_args_is_help=True)
app.add_typer(documents_app, name="documents", no_args_is_help=True)


@app.callback()
def _main(verbose: Annotated[bool, typer.Option("--verbose", help="Say more about what is being done.")] = False) -> None:
    from diffgrm.foundation.terminal import log_to_terminal

    log_to_terminal(verbose)


@app.command(cls=CommandWithSettings)
def fit(
    out: Annotated[Path, typer.Option(help="Folder of the model.")],
    overrides: Overrides = None,
    recipe: RecipeFile = None,
    interactions: Interactions = None,
    items: Items = None,
    dataset: Dataset = None,
    column: Column = None,
    time_format: TimeFormat = None,
    profiles: ProfilesFile = None,
    run_folder: RunFolder = None,
    resume: Resume = False,
    quiet: Quiet = False,
) -> None:
    """Learn a recommender from a table of events and a table of items, and save it.

    The last event of every user is kept for test and the one before it for validation (data.split).
    """
    from diffgrm.apps.console import show_metrics, show_report
    from diffgrm.foundation import registry
    from diffgrm.foundation.terminal import say

    chosen = recipe_of(recipe, overrides)
    check_model_place(out, read=(interactions, items, profiles))
    run = run_folder_of(out, run_folder)
    data = dataset_of(interactions, items, dataset, column, time_format, chosen.events, profiles)
    say(f"{data!r}")
    recommender = registry.resolve("recommender", chosen.recommender)(chosen)
    with ends.hint(lambda: how_to_go_on(run)):
        recommender.fit(data, run_folder=run, resume=resume, progress=not quiet)
    from diffgrm.learning.machine import is_first_process

    if not is_first_process():
        return
    recommender.save(out)
    drop_checkpoints(run)
    if getattr(recommender, "report", None) is not None:
        show_report(recommender.report)
    if validation := recommender.facts.get("validation"):
        show_metrics("Validation (by item, history filtered)", {"value": validation})
    say(f"Saved to {out} after {recommender.facts['fit_seconds']} s.")


@app.command()
def recommend(
    model: Model,
    overrides: Overrides = None,
    interactions: Interactions = None,
    history: Annotated[list[str] | None, HISTORY] = None,
    user: Annotated[list[str] | None, typer.Option(help="Only these users of --interactions (repeat the option).")] = None,
    k: Annotated[int, typer.Option("--k", help="Items for each user.")] = 10,
    out: Annotated[Path | None, typer.Option(help="Write all rows here (.parquet, .csv, .jsonl).")] = None,
    include_seen: Annotated[bool, typer.Option("--include-seen", help="Do not leave out items of the history.")] = False,
    only: Annotated[Path | None, typer.Option(help="Table whose item_id column lists what may be recommended.")] = None,
    without: Annotated[Path | None, typer.Option(help="Table whose item_id column lists what may not.")] = None,
    rules: RulesFile = None,
    column: Column = None,
    time_format: TimeFormat = None,
    at: At = None,
    profiles: ProfilesFile = None,
    profile: Profile = None,
    on_empty: Annotated[
        OnEmpty | None,
        typer.Option(
            help="Users of --interactions without an item that the model knows: an error, or left out (so without it)."
        ),
    ] = None,
    device: Device = "auto",
    precision: Precision = "32",
    quiet: Quiet = False,
    trust_code: TrustCode = False,
) -> None:
    """Recommend items: user_id, item_id, score, rank."""
    from diffgrm.apps.console import show_recommendations
    from diffgrm.foundation.terminal import progress_bar, say
    from diffgrm.recommenders import load
    from diffgrm.recommenders.by_blocks import recommend_blocks

    if (interactions is None) == (history is None):
        raise DataError("give either --interactions FILE or --history ITEM --history ITEM ...")
    if profiles is not None and history is not None:
        raise DataError("--profiles is of the users of --interactions; with --history, give --profile COLUMN=VALUE")
    if profile and interactions is not None:
        raise DataError("--profile is of the user of --history; with --interactions, give --profiles FILE")
    if on_empty is not None and history is not None:
        raise DataError("--on-empty is for users of --interactions; a --history that holds no known item is an error")
    if history is not None:
        check_idle("with --history no table is read", {"--user": user, "--column": column, "--time-format": time_format})
    check_outputs(out, read=(interactions, only, without, rules, profiles))
    recommender = load(model, trust_code=trust_code).override(of_lists(overrides)).to(device, precision)
    histories: Any = {ONE_USER: history_of(history or [])}
    if interactions is not None:
        histories = events_for(interactions, recommender.items, user, column, time_format, recommender.recipe.events)
    users = 1 if interactions is None else len(histories.users)
    left_out = on_empty or ("skip" if history is None else "error")
    asked: dict[str, Any] = {"only": only, "without": without, "rules": rules, "on_empty": left_out}
    asked |= {"at": at, "profiles": {ONE_USER: profile_of(profile)} if profile else profiles}
    with progress_bar("Recommending", users, quiet) as progress:
        found = recommend_blocks(recommender, histories, k, exclude_seen=not include_seen, progress=progress, **asked)
        if out is not None:
            rows, users = write_tables(found, out)
        else:
            shown = pl.concat(found)
    if out is None:
        show_recommendations(shown, recommender.item_table, whose="User" if history is None else "For the")
    else:
        say(f"{rows:,} rows for {users:,} users written to {out}")


@app.command(cls=CommandWithSettings)
def tokenize(
    out: Annotated[Path, typer.Option(help="Write item_id and the digits here (.parquet, .csv, .jsonl).")],
    overrides: Overrides = None,
    recipe: RecipeFile = None,
    items: Items = None,
    interactions: Interactions = None,
    dataset: Dataset = None,
    column: Column = None,
    time_format: TimeFormat = None,
    profiles: ProfilesFile = None,
    json_file: JsonFile = None,
) -> None:
    """Give every item its semantic ID, and report on their health.

    With events, only the items of training rows are learnt from; without, all items are.
    """
    import numpy as np

    from diffgrm.apps.console import show_report
    from diffgrm.data.frames import load_frame
    from diffgrm.data.ids import id_order
    from diffgrm.data.splits import make_split
    from diffgrm.data.tables import OF_ITEMS, OURS, read_items, renamings_for
    from diffgrm.foundation.terminal import say
    from diffgrm.semantic_ids.embeddings.base import EventContext, embed_items
    from diffgrm.semantic_ids.semantic_ids import tokenize_items
    from diffgrm.semantic_ids.tokenizers.context import TokenizerContext

    chosen = recipe_of(recipe, overrides)
    check_outputs(out, json_file, read=(interactions, items, profiles, *recipe_files(recipe, chosen)))
    given: np.ndarray | None
    if interactions is None and dataset is None:
        if items is None:
            raise DataError("give --items FILE (and --interactions FILE to learn from training items only)")
        check_idle("no --interactions are given", {"--time-format": time_format, "--profiles": profiles})
        frame = load_frame(items, "item table")
        (named,) = renamings_for(renamings(column), frame, what="the item table", ours=OF_ITEMS, known=OURS)
        table = read_items(frame, named)
        given = id_order(table[Columns.ITEM])
        table, in_training, events, learnt_from = table[given], np.ones(table.height, dtype=bool), None, None
    else:
        data = dataset_of(interactions, items, dataset, column, time_format, chosen.events, profiles)
        split = make_split(data, chosen.data)
        table, given, in_training, events = data.item_table, data.given, split.item_counts > 0, split.train
        learnt_from = EventContext(split, chosen.data.model_dump(), chosen.seed)
    tokenizer, collisions = chosen.tokenizer.build(seed=chosen.seed), chosen.semantic_ids.collisions
    tokenizer.check(table[Columns.ITEM])
    embeddings = embed_items(chosen.embedding.build(seed=chosen.seed), table, in_training, context=learnt_from, given=given)
    context = TokenizerContext(embeddings, in_training, events, seed=chosen.seed, items=table[Columns.ITEM])
    sids, report = tokenize_items(tokenizer, context, collisions, chosen.tokenizer.options)
    digits = {f"digit_{j}": sids.codes[:, j] for j in range(sids.n_digits)}
    write_table(table.select(Columns.ITEM).with_columns(**{k: pl.Series(v) for k, v in digits.items()}), out)
    show_report(report)
    if json_file is not None:
        write_json(json_file, report.to_dict())
    say(f"{table.height:,} semantic IDs written to {out}")


@app.command()
def explain(
    model: Model,
    history: Annotated[list[str], HISTORY],
    overrides: Overrides = None,
    k: Annotated[int, typer.Option("--k", help="Number of items.")] = 3,
    include_seen: Annotated[bool, typer.Option("--include-seen", help="Do not leave out items of the history.")] = False,
    show: Annotated[int, typer.Option(min=0, help="Partial semantic IDs shown of each step of the search.")] = 5,
    at: At = None,
    profile: Profile = None,
    trust_code: TrustCode = False,
) -> None:
    """Show how items were found: which digit was filled when, how sure the network was, and how many items were left.

    Then the search itself: the best partial semantic IDs after every step. The page of 'diffgrm serve' shows the same. Of a
    model that ranks whole items (hybrid), it shows how the network would fill in the digits of each item of the list.
    """
    from diffgrm.apps.console import show_beams, show_explanation
    from diffgrm.foundation.terminal import say
    from diffgrm.recommenders import load
    from diffgrm.recommenders.capabilities import explaining

    recommender = load(model, trust_code=trust_code).override(of_lists(overrides))
    explains = explaining(recommender)
    told, asked = history_of(history), {"at": at, "profiles": {0: profile_of(profile)} if profile else None}
    show_explanation(explains.explain(told, k, exclude_seen=not include_seen, **asked), recommender.item_table)
    if note := explains.explanation_note():
        say(note)
    if show:
        show_beams(explains.beams(told, k, exclude_seen=not include_seen, show=show, **asked))


@app.command()
def similar(
    model: Model,
    item: Annotated[str, typer.Argument(help="Item id.")],
    k: Annotated[int, typer.Option("--k", help="Number of items.")] = 10,
    trust_code: TrustCode = False,
) -> None:
    """The items most like one."""
    from diffgrm.apps.console import show_recommendations
    from diffgrm.recommenders import load

    recommender = load(model, trust_code=trust_code)
    item = as_text(item)
    found = recommender.similar_items(item, k)
    found = found.with_columns(pl.lit(item).alias(Columns.USER))
    show_recommendations(found, recommender.item_table, whose="Similar to")


def main() -> None:
    """Entry point: errors of ours are one message, without a stack trace; see :mod:`diffgrm.apps.cli.ends` on signals."""
    from diffgrm.foundation.terminal import complain, open_closed_streams, replace_unknown_characters

    open_closed_streams()
    replace_unknown_characters()
    with ends.ended_with_a_word():
        try:
            try:
                app()
            finally:
                sys.stdout.flush()
        except DiffGRMError as error:
            complain(type(error).__name__, str(error))
            sys.exit(2)
        except OSError as error:
            _leave_output()
            advice = "; is the disk full, or a file not there or not to be written?"
            if error.errno in (errno.EMFILE, errno.ENFILE):
                advice = "; raise the limit of open files (ulimit -n)"
            complain(type(error).__name__, f"{error}{advice}")
            sys.exit(2)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            complain("MemoryError", "there is not memory enough; lower model.width, decoding.beam or training.batch_size")
            sys.exit(2)


def _leave_output() -> None:
    """What cannot be written to standard output would end the process with another word at its very end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
