"""The command line: diffgrm recommend-batch, embed-batch: jobs on Ray Data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from diffgrm.apps.cli import ends
from diffgrm.apps.cli.shared import (
    At,
    Column,
    Overrides,
    Precision,
    ProfilesFile,
    Quiet,
    RecipeFile,
    RulesFile,
    TimeFormat,
    TrustCode,
    as_text,
    of_lists,
    recipe_of,
    renamings,
)

Out = Annotated[Path, typer.Option(help="Folder of the result, which all workers see; a killed job goes on there.")]
Address = Annotated[
    str | None,
    typer.Option(help="Of a Ray cluster: ray://HOST:10001, HOST:6379, auto; without it, one is started here."),
]
Concurrency = Annotated[int | None, typer.Option(min=1, help="Workers; without it, one a CPU, or as there are GPUs for.")]
Gpus = Annotated[float, typer.Option(min=0, help="GPUs of a worker: 0 is none, 0.5 lets two share one.")]
Partitions = Annotated[
    int | None, typer.Option(min=1, help="Parts in which the work is done and written; without it, by the number of rows.")
]
OnError = Annotated[
    Literal["stop", "skip"], typer.Option(help="Damaged files, and rows that cannot be used: stop, or leave them out.")
]


def recommend_batch(
    model: Annotated[Path, typer.Argument(help="Folder of the model, which all workers see and nobody changes.")],
    interactions: Annotated[
        str,
        typer.Option(
            help="Events: user_id, item_id, timestamp; a parquet file, a folder or a pattern of them, or an address."
        ),
    ],
    out: Out,
    overrides: Overrides = None,
    k: Annotated[int, typer.Option("--k", help="Items for each user.")] = 10,
    include_seen: Annotated[bool, typer.Option("--include-seen", help="Do not leave out items of the history.")] = False,
    only: Annotated[Path | None, typer.Option(help="Table whose item_id column lists what may be recommended.")] = None,
    without: Annotated[Path | None, typer.Option(help="Table whose item_id column lists what may not.")] = None,
    rules: RulesFile = None,
    at: At = None,
    profiles: ProfilesFile = None,
    column: Column = None,
    time_format: TimeFormat = None,
    address: Address = None,
    concurrency: Concurrency = None,
    gpus_per_worker: Gpus = 0.0,
    batch_size: Annotated[int, typer.Option(min=1, help="Users ranked for at once; fewer need less memory.")] = 10_000,
    partitions: Partitions = None,
    on_error: OnError = "stop",
    precision: Precision = "32",
    quiet: Quiet = False,
    trust_code: TrustCode = False,
) -> None:
    """Recommend items for all users of a large table, with several processes or machines (Ray Data).

    The lists are those of 'diffgrm recommend', which is quicker below some 100,000 users.
    """
    from diffgrm.apps.batch_jobs import recommend_batch
    from diffgrm.apps.batch_jobs.engine import Pool
    from diffgrm.foundation.terminal import say

    with ends.hint(lambda: _how_to_go_on(out)):
        done = recommend_batch(
            model,
            as_text(interactions),
            out,
            k,
            overrides=of_lists(overrides),
            exclude_seen=not include_seen,
            only=only,
            without=without,
            rules=rules,
            at=at,
            profiles=profiles,
            columns=renamings(column),
            time_format=time_format,
            pool=Pool(address, concurrency, gpus_per_worker),
            batch_size=batch_size,
            partitions=partitions,
            on_error=on_error,
            precision=precision,
            trust_code=trust_code,
            progress=not quiet,
        )
    say(
        f"{done['rows']:,} rows for {done['users']:,} users in {done['partitions']:,} parts written to {out}; "
        f"{done['users_without_known_item']:,} users have no item that the model knows{_left_out(done['skipped'])}"
    )


def embed_batch(
    items: Annotated[
        str, typer.Option(help="Items: item_id, text; a parquet file, a folder or a pattern of them, or an address.")
    ],
    out: Out,
    overrides: Overrides = None,
    recipe: RecipeFile = None,
    column: Column = None,
    address: Address = None,
    concurrency: Concurrency = None,
    gpus_per_worker: Gpus = 0.0,
    partitions: Partitions = None,
    on_error: OnError = "stop",
    quiet: Quiet = False,
) -> None:
    """Embed the texts of a large item table with several processes or machines (Ray Data).

    The recipe's embedding encodes, for example embedding.name=sentence_transformer; the result is for
    'diffgrm fit embedding.name=precomputed embedding.path=OUT'.
    """
    from diffgrm.apps.batch_jobs import embed_batch
    from diffgrm.apps.batch_jobs.engine import Pool
    from diffgrm.foundation.terminal import say

    with ends.hint(lambda: _how_to_go_on(out)):
        done = embed_batch(
            as_text(items),
            out,
            recipe=recipe_of(recipe, overrides),
            columns=renamings(column),
            pool=Pool(address, concurrency, gpus_per_worker),
            partitions=partitions,
            on_error=on_error,
            progress=not quiet,
        )
    say(f"{done['rows']:,} vectors in {done['partitions']:,} parts written to {out}{_left_out(done['skipped'])}")


def _how_to_go_on(out: Path) -> str:
    return f"What is done so far stands in {out}; the same command goes on there."


def _left_out(skipped: dict[str, Any]) -> str:
    if not skipped["problems"]:
        return ""
    return f"; left out were {skipped['files']:,} damaged files and {skipped['rows']:,} rows that cannot be used"
