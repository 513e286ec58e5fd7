"""Vectors for the texts of any number of items."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, Literal

import polars as pl

from diffgrm.apps.batch_jobs.engine import Pool, Work, engine, require_ray
from diffgrm.apps.batch_jobs.job_folder import JobFolder, Parts, check_arguments, job_folder
from diffgrm.apps.batch_jobs.parquet import Footers, ParquetFiles, Plan, Slice, cut, planned, read_slices
from diffgrm.data.ids import id_order
from diffgrm.data.tables import OF_ITEMS, OURS, as_ids, read_items, read_table, renamings_for
from diffgrm.foundation.recipe import Recipe
from diffgrm.foundation.schema import Columns, DataError, RecipeError, first_few
from diffgrm.foundation.storage import State, atomic_file, digest
from diffgrm.semantic_ids.embeddings.base import ItemEncoder, check_embeddings

logger = logging.getLogger(__name__)

PARTITION = 2**14  # items of a partition
VECTORS = {"embedding": pl.List(pl.Float32)}  # the column that the embedding 'precomputed' reads
STATE = "encoder.safetensors"


@dataclass(frozen=True)
class ItemTable:
    """Items in parquet files.

    Attributes:
        columns: how the library's names are called in them.
        repeats: what is wrong with pieces of files whose ids stand in earlier ones too, by file and first row.
        as_text: ids are text in all pieces, also where those of a piece are numbers that fit into Int64.
    """

    files: ParquetFiles
    columns: dict[str, str]
    repeats: Mapping[tuple[int, int], str] = field(default_factory=dict)
    as_text: bool = False

    def read(self, part: Slice) -> pl.DataFrame:
        """Some rows, checked.

        Raises:
            DataError: a damaged file, or rows that cannot be used.
        """
        frame = self.files.read(part)
        try:
            if (part.file, part.start) in self.repeats:
                raise DataError(self.repeats[part.file, part.start])
            items = read_items(frame, self.columns)
        except DataError as error:
            raise DataError(f"{self.place(part)}: {error}") from error
        return items.cast({Columns.ITEM: pl.String}) if self.as_text else items

    @property
    def id_type(self) -> pl.DataType:
        """Of the ids, in all pieces."""
        return pl.String() if self.as_text else pl.Int64()

    def compare_ids(self, pieces: Plan) -> tuple[list[tuple[Slice, str]], bool]:
        """The slices with ids that stand in earlier ones too, and what to say of them; and whether all ids are text.

        Ids count by a hash of their spelling first. What cannot be used is passed over: reading it for good tells of it.
        """
        slices = [Slice(*numbers) for piece in pieces for numbers in piece]
        hashes, as_text = [], False
        for part in slices:
            ids = self._read_ids(part)
            hashes.append(ids.cast(pl.String).hash())
            as_text |= ids.dtype == pl.String
        every = pl.concat(hashes)
        twice = every.filter(every.is_duplicated()).unique().implode()
        seen: dict[str, int] = {}
        found = []
        for number, (part, hashed) in enumerate(zip(slices, hashes, strict=True)):
            if not (suspects := hashed.is_in(twice)).any():
                continue
            try:
                ids = self.read(part)[Columns.ITEM].filter(suspects).cast(pl.String)
            except DataError:
                continue
            if not (earlier := [item for item in ids if item in seen]):
                seen |= dict.fromkeys(ids, number)
            else:
                where = self.place(slices[seen[earlier[0]]])
                found.append(
                    (
                        part,
                        f"{len(earlier)} item ids stand in earlier rows too (expected one row each): {first_few(earlier)}, "
                        f"the first of them in {where}; keep one row of each",
                    )
                )
        return found, as_text

    def _read_ids(self, part: Slice) -> pl.Series:
        """Int64 or text; none where they are something else, or cannot be read."""
        try:
            ids = as_ids(self.files.read(part, [self.columns.get(Columns.ITEM, Columns.ITEM)]).to_series())
        except DataError:
            return pl.Series(dtype=pl.Int64)
        return ids if ids.dtype in (pl.Int64, pl.String) else pl.Series(dtype=pl.Int64)

    def place(self, part: Slice) -> str:
        """How messages call some rows."""
        return f"{self.files.names[part.file]}, rows {part.start} to {part.stop - 1}"


@dataclass(frozen=True)
class Embedding:
    """Writes the vectors of each piece of the items.

    Attributes:
        recipe: whose embedding encodes.
        state: what it has learnt, if it learns.
        pieces: slices of the files, as the plan has them, by number of the partition.
        skip: count and pass over what cannot be read; else that is an error.
        gpus: of a worker; without one, none is looked for.
        parts: what is written.
    """

    recipe: Recipe
    state: Path | None
    table: ItemTable
    pieces: Plan
    skip: bool
    gpus: float
    parts: Parts

    def ready(self) -> Callable[[int], None]:
        """See :class:`diffgrm.apps.batch_jobs.engine.Task`."""
        if not self.gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        encoder = _encoder(self.recipe).stay_loaded()
        return partial(self._write, encoder if self.state is None else encoder.load_state(State.load(self.state)))

    def _write(self, encoder: ItemEncoder, number: int) -> None:
        started = time.perf_counter()
        tables, skipped = read_slices(self.pieces[number], self.table.read, self.skip)
        none = pl.DataFrame(schema={Columns.ITEM: self.table.id_type, **VECTORS})
        found = pl.concat([none, *(_vectors(encoder, items) for items in tables)])
        seconds = round(time.perf_counter() - started, 3)
        self.parts.write(number, found, {"rows": found.height, "skipped": skipped, "seconds": seconds})


def _vectors(encoder: ItemEncoder, items: pl.DataFrame) -> pl.DataFrame:
    vectors = check_embeddings(encoder.encode(items), items.height, items[Columns.ITEM])
    return items.select(Columns.ITEM, pl.Series("embedding", vectors).cast(VECTORS["embedding"]))


def embed_batch(
    items: str | Path,
    out: str | Path,
    *,
    recipe: Recipe | None = None,
    columns: Mapping[str, str] | None = None,
    pool: Pool | None = None,
    partitions: int | None = None,
    on_error: Literal["stop", "skip"] = "stop",
    progress: bool = True,
) -> dict[str, Any]:
    """Vectors of all items of a table, on Ray Data, for ``embedding.name=precomputed`` with ``embedding.path=OUT``.

    An embedding that learns from texts (``lsa``) is fitted on all of them first, in this process. A job that was killed
    goes on where it stopped when it is called again with the same arguments.

    Args:
        items: a parquet file, a folder or a pattern of them, or an address of a file or folder for fsspec: item_id, text.
        out: a folder that all workers see, new or empty or of the same job: part-00000.parquet and so on, with item_id and
            embedding; and ``_manifest.json``.
        recipe: whose ``embedding`` encodes; None is the default one.
        columns: how the library's names are called in the table.
        pool: where to compute; None is a Ray of this machine's with a worker a CPU.
        partitions: parts in which items are done and written; None is by the number of items.
        on_error: damaged files, and rows that cannot be used: ``"stop"``, or ``"skip"`` and count them.
        progress: show a progress bar.

    Returns:
        What ``_manifest.json`` holds.

    Raises:
        MissingExtraError: Ray Data is not installed.
        RecipeError: an embedding that needs events, or has vectors already; settings that do nothing.
        DataError: unusable tables or arguments, an output folder of another job, no such Ray.
        DiffGRMError: partitions failed; what is done is kept, and the same call goes on.
    """
    require_ray("embed_batch")
    check_arguments(on_error, partitions=partitions)
    recipe, target, pool = recipe or Recipe(), Path(out).absolute(), pool or Pool()
    recipe.refuse_idle()
    encoder = _encoder(recipe)
    table = ItemTable(ParquetFiles.at(items, "item table"), dict(columns or {}))
    files, footers = table.files, table.files.footers()
    renamings_for(table.columns, footers.row, what=f"the {files.what}", ours=OF_ITEMS, known=OURS)
    read_table(footers.row, table.columns, required=(Columns.ITEM, Columns.TEXT), what=files.what)
    footers.check_same(footers.row.columns, f"{files.what} {files.place}")
    if footers.problems and on_error == "stop":
        raise files.unusable(footers.problems)
    settings = {
        "job": "embed",
        "embedding": recipe.to_dict()["embedding"],
        "encoder": digest([encoder.identity()]),
        "seed": recipe.seed,
        "items": digest(files.stamps()),
        **footers.left_out,
        "columns": table.columns,
        "partitions": partitions,
    }

    def plan() -> dict[str, Any]:
        number = partitions or ceil(sum(footers.rows) / PARTITION)
        pieces = planned(cut(footers.rows, number))
        return {"partitions": number, "pieces": pieces, **of_ids(pieces)}

    def of_ids(pieces: Plan) -> dict[str, Any]:
        repeats, as_text = table.compare_ids(pieces)
        if repeats and on_error == "stop":
            raise files.unusable([f"{table.place(part)}: {problem}" for part, problem in repeats])
        return {"repeats": [[part.file, part.start, problem] for part, problem in repeats], "as_text": as_text}

    with job_folder(target, settings, plan) as job:
        if (done := job.finished()) is not None:
            logger.info("The job in %s was finished before.", target)
            return done
        ids = job.plan if "as_text" in job.plan else of_ids(job.plan["pieces"])  # plans of earlier versions lack them
        repeats = {(file, start): problem for file, start, problem in ids["repeats"]}
        table = replace(table, repeats=repeats, as_text=ids["as_text"])
        return _Job(job, table, footers, recipe, on_error == "skip", not progress).run(pool, encoder)


@dataclass(frozen=True)
class _Job:
    """Whatever of a job is not done yet."""

    job: JobFolder
    table: ItemTable
    footers: Footers
    recipe: Recipe
    skip: bool
    quiet: bool

    def run(self, pool: Pool, encoder: ItemEncoder) -> dict[str, Any]:
        started, plan = time.perf_counter(), self.job.plan
        state = self._state(encoder)
        work = Work(
            what="Embedding",
            task=Embedding(self.recipe, state, self.table, plan["pieces"], self.skip, pool.gpus_per_worker, self.job.parts),
            numbers=self.job.parts.missing(plan["partitions"]),
            total=plan["partitions"],
            own=self.job.own,
            hint="lower embedding.batch_size or --concurrency, or begin anew with more --partitions",
            quiet=self.quiet,
        )
        with engine(pool) as workers:
            self.job.parts.check_done(plan["partitions"], workers.do(work))
        return self._finish(time.perf_counter() - started)

    def _state(self, encoder: ItemEncoder) -> Path | None:
        """What an encoder that learns has learnt of all items, fitted if it is not there yet."""
        if type(encoder).fit is ItemEncoder.fit:
            return None
        path = self.job.own / STATE
        if not path.is_file():
            slices = [numbers for piece in self.job.plan["pieces"] for numbers in piece]
            tables, skipped = read_slices(slices, self.table.read, self.skip)
            if not tables:
                raise self.table.files.none_usable([problem for _, problem in skipped])
            items = pl.concat(tables, how="vertical_relaxed")
            encoder.fit(items[id_order(items[Columns.ITEM])])
            with atomic_file(path) as temporary:
                encoder.state().save(temporary)
        return path

    def _finish(self, seconds: float) -> dict[str, Any]:
        counts = self.job.counts()
        skipped = self.footers.skipped([entry for found in counts for entry in found["skipped"]])
        rows = sum(found["rows"] for found in counts)
        if not rows:
            raise self.job.given_up(self.table.files.none_usable(skipped["problems"]))
        return self.job.finish(
            {
                "job": "embed",
                "embedding": self.recipe.to_dict()["embedding"],
                "partitions": self.job.plan["partitions"],
                "rows": rows,
                "skipped": skipped,
                "seconds": {
                    "last_run": round(seconds, 3),
                    "workers": round(sum(found["seconds"] for found in counts), 3),
                },
            }
        )


def _encoder(recipe: Recipe) -> ItemEncoder:
    encoder: ItemEncoder = recipe.embedding.build(seed=recipe.seed)
    if encoder.reads_events:
        raise RecipeError(
            f"the embedding {recipe.embedding.name!r} learns from events, which embed_batch does not read; choose one that "
            "reads texts, such as sentence_transformer or lsa"
        )
    if recipe.embedding.name == "precomputed":
        raise RecipeError("the embedding 'precomputed' has its vectors already; choose the one that is to make them")
    return encoder
