"""The command line: diffgrm documents fit, search, explain, serve, evaluate, baselines: documents found by queries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffgrm.apps.cli import ends
from diffgrm.apps.cli.serving import AllowHost, Host, LimitsGiven, Port, ServedModel, begin_serving
from diffgrm.apps.cli.settings_help import CommandWithSettings
from diffgrm.apps.cli.shared import (
    Column,
    Device,
    JsonFile,
    Model,
    Overrides,
    Precision,
    Quiet,
    RecipeFile,
    Resume,
    RunFolder,
    TrustCode,
    as_text,
    check_idle,
    check_model_place,
    check_outputs,
    how_to_go_on,
    pairs_of,
    recipe_files,
    recipe_of,
    renamings,
    run_folder_of,
    write_json,
    write_table,
)
from diffgrm.foundation.run_folder import drop_checkpoints
from diffgrm.foundation.schema import Columns, DataError

if TYPE_CHECKING:
    from diffgrm.evaluation.retrieval import SearchEvaluation

documents_app = typer.Typer(
    help="Find documents by queries, through semantic IDs: fit, search, explain, serve, evaluate, baselines."
)
Documents = Annotated[Path, typer.Option(help="Documents: doc_id, text, perhaps title (parquet, csv, jsonl...).")]
Queries = Annotated[Path, typer.Option(help="Queries: query_id, text, perhaps split.")]
Qrels = Annotated[Path, typer.Option(help="Which documents answer which query: query_id, doc_id, perhaps relevance.")]
SplitName = Annotated[str | None, typer.Option("--split", help="Only queries whose column split holds this.")]


class CommandWithDocumentSettings(CommandWithSettings):
    """A command whose help ends with the settings of retrievers."""

    recommender = "documents"


@documents_app.command(cls=CommandWithDocumentSettings)
def fit(
    documents: Documents,
    queries: Queries,
    qrels: Qrels,
    out: Annotated[Path, typer.Option(help="Folder of the model.")],
    overrides: Overrides = None,
    recipe: RecipeFile = None,
    split: SplitName = None,
    column: Column = None,
    run_folder: RunFolder = None,
    resume: Resume = False,
    quiet: Quiet = False,
) -> None:
    """Learn to find documents from queries and the documents that answer them, and save the retriever."""
    from diffgrm.apps.console import show_metrics, show_report
    from diffgrm.foundation.manifest import DOCUMENTS
    from diffgrm.foundation.terminal import say
    from diffgrm.recommenders.documents import DocumentRetriever

    retriever = DocumentRetriever(recipe_of(recipe, overrides, {"recommender": "documents"}))
    check_model_place(out, DOCUMENTS, read=(documents, queries, qrels))
    run = run_folder_of(out, run_folder)
    with ends.hint(lambda: how_to_go_on(run)):
        options: dict[str, Any] = {"split": None if split is None else as_text(split), "columns": renamings(column)}
        retriever.fit(documents, queries, qrels, **options, run_folder=run, resume=resume, progress=not quiet)
    from diffgrm.learning.machine import is_first_process

    if not is_first_process():
        return
    retriever.save(out)
    drop_checkpoints(run)
    if retriever.report is not None:
        show_report(retriever.report)
    show_metrics("Validation (queries held out of training)", {"value": retriever.facts["validation"]})
    say(f"Saved to {out} after {retriever.facts['fit_seconds']} s.")


@documents_app.command()
def search(
    model: Model,
    overrides: Overrides = None,
    query: Annotated[list[str] | None, typer.Option(help="What is asked (repeat the option).")] = None,
    queries: Annotated[Path | None, typer.Option(help="Queries: query_id, text (parquet, csv, jsonl...).")] = None,
    k: Annotated[int, typer.Option("--k", help="Documents for each query.")] = 10,
    out: Annotated[Path | None, typer.Option(help="Write all rows here (.parquet, .csv, .jsonl).")] = None,
    column: Column = None,
    device: Device = "auto",
    precision: Precision = "32",
    quiet: Quiet = False,
    trust_code: TrustCode = False,
) -> None:
    """Find documents: query_id, doc_id, score, rank."""
    from diffgrm.apps.console import show_recommendations
    from diffgrm.data.documents import OF_QUERIES, asked_queries, read_queries
    from diffgrm.data.frames import load_frame
    from diffgrm.data.tables import renamings_for
    from diffgrm.foundation.terminal import progress_bar, say
    from diffgrm.recommenders.documents import DocumentRetriever

    if (query is None) == (queries is None):
        raise DataError("give either --query TEXT (which may be repeated) or --queries FILE")
    if query is not None:
        check_idle("with --query no table is read", {"--column": column})
    check_outputs(out, read=(queries,))
    retriever = DocumentRetriever.load(model, trust_code=trust_code).variant(map(as_text, overrides or []))
    retriever.to(device, precision)
    if query is not None:
        table = asked_queries(list(map(as_text, query)))
    else:
        assert queries is not None
        frame = load_frame(queries, "query table")
        renamings_for(renamings(column), frame, what="the query table", ours=OF_QUERIES)
        table = read_queries(frame, renamings(column))
    with progress_bar("Searching", table.height, quiet) as progress:
        found = retriever.search(table, k, progress=progress)
    if out is None:
        names = {Columns.QUERY: Columns.USER, Columns.DOCUMENT: Columns.ITEM}
        show_recommendations(found.rename(names), retriever.catalogue.table, whose="Query")
    else:
        write_table(found, out)
        say(f"{found.height:,} rows for {table.height:,} queries written to {out}")


@documents_app.command()
def explain(
    model: Model,
    query: Annotated[str, typer.Option(help="What is asked.")],
    overrides: Overrides = None,
    k: Annotated[int, typer.Option("--k", help="Number of documents.")] = 3,
    show: Annotated[int, typer.Option(min=0, help="Partial semantic IDs shown of each step of the search.")] = 5,
    trust_code: TrustCode = False,
) -> None:
    """Show how documents were found: which digit was filled when, how sure the network was, and how many were left.

    Then the search itself: the best partial semantic IDs after every step.
    """
    from diffgrm.apps.console import show_beams, show_explanation
    from diffgrm.foundation.terminal import say
    from diffgrm.recommenders.documents import DocumentRetriever

    retriever = DocumentRetriever.load(model, trust_code=trust_code).variant(map(as_text, overrides or []))
    found = retriever.explain(as_text(query), k)
    show_explanation(found.rename({Columns.DOCUMENT: Columns.ITEM}), retriever.catalogue.table)
    if note := retriever.explanation_note():
        say(note)
    if show:
        show_beams(retriever.beams(as_text(query), k, show=show))


@documents_app.command()
def serve(
    model: ServedModel,
    overrides: Overrides = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    allow_host: AllowHost = None,
    limit: LimitsGiven = None,
    device: Device = "auto",
    precision: Precision = "32",
    trust_code: TrustCode = False,
) -> None:
    """Answer over HTTP: documents for queries, and explanations. Nothing can be changed, so that there is no token.

    Bounds: body_bytes, queries, k, beam, candidates, queue, batch, seconds, head_seconds, idle_seconds, body_seconds,
    reload_seconds, connections; GET /model tells them.
    """
    begin_serving("diffgrm documents serve")
    from diffgrm.apps.serving.run import read_limits, run_search
    from diffgrm.apps.serving.settings import SearchLimits

    bounds, settings = read_limits(pairs_of(limit, "--limit", "NAME=VALUE"), SearchLimits), map(as_text, overrides or [])
    run_search(model, list(settings), bounds, host, port, allow_host or [], device, precision, trust_code)


@documents_app.command()
def evaluate(
    model: Model,
    queries: Queries,
    qrels: Qrels,
    overrides: Overrides = None,
    split: SplitName = None,
    column: Column = None,
    device: Device = "auto",
    precision: Precision = "32",
    json_file: JsonFile = None,
    ranks: Annotated[Path | None, typer.Option(help="Write the rank of every relevant document here (parquet).")] = None,
    quiet: Quiet = False,
    trust_code: TrustCode = False,
) -> None:
    """Measure a retriever on judged queries: all documents ranked, Hit, MRR, NDCG and Recall."""
    from diffgrm.apps.console import show_metrics
    from diffgrm.recommenders.documents import DocumentRetriever

    check_outputs(ranks, json_file, (".parquet",), read=(queries, qrels))
    retriever = DocumentRetriever.load(model, trust_code=trust_code).variant(map(as_text, overrides or []))
    result = _evaluated(retriever.to(device, precision), queries, qrels, split, column, quiet)
    show_metrics(_title(result), {"value": result.metrics})
    if json_file is not None:
        write_json(json_file, result.to_dict())
    if ranks is not None:
        write_table(result.ranks, ranks)


@documents_app.command()
def baselines(
    documents: Documents,
    queries: Queries,
    qrels: Qrels,
    overrides: Overrides = None,
    recipe: RecipeFile = None,
    split: SplitName = None,
    column: Column = None,
    json_file: JsonFile = None,
    quiet: Quiet = False,
) -> None:
    """Measure what learns from no query: BM25, and the cosine of the recipe's embedding (its settings: embedding.*)."""
    from diffgrm.apps.console import show_metrics
    from diffgrm.data.documents import open_tables
    from diffgrm.recommenders.searchers import BM25, DenseVectors

    chosen = recipe_of(recipe, overrides, {"recommender": "documents"})
    check_outputs(None, json_file, read=(documents, queries, qrels, *recipe_files(recipe, chosen)))
    names = renamings(column)
    table, asked, judged = open_tables(documents, queries, qrels, names)
    searchers = {"bm25": BM25(table, names), "dense": DenseVectors(table, chosen.embedding, names, chosen.seed)}
    results = {name: _evaluated(of, asked, judged, split, column, quiet) for name, of in searchers.items()}
    show_metrics(_title(results["bm25"]), {name: result.metrics for name, result in results.items()})
    if json_file is not None:
        write_json(json_file, {name: result.to_dict() for name, result in results.items()})


def _evaluated(
    retriever: Any, queries: Any, qrels: Any, split: str | None, column: list[str] | None, quiet: bool
) -> SearchEvaluation:
    from diffgrm.evaluation.retrieval import evaluate_search
    from diffgrm.foundation.terminal import progress_bar

    names, split = renamings(column), None if split is None else as_text(split)
    with progress_bar("Evaluating", None, quiet) as progress:
        return evaluate_search(retriever, queries, qrels, split=split, columns=names, progress=progress)


def _title(result: SearchEvaluation) -> str:
    skipped = f"; {result.n_skipped:,} without a relevant document left out" if result.n_skipped else ""
    return f"{result.n_queries:,} queries{skipped}"
