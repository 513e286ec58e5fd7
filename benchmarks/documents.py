"""Documents by queries: BM25 and dense vectors beside semantic IDs, denoised in one pass and in several steps.

    python benchmarks/documents.py DATA/retrieval-cranfield tokenizer.codebook_size=64 --json cranfield.json
    python benchmarks/documents.py DATA/retrieval-jaquad tokenizer.n_digits=32 --queries 1000 --json jaquad.json

The folder has documents.parquet, queries.parquet and qrels.parquet. Where the queries have a split ``train``, the retriever
learns from those and all others are the test; else a third of the queries, drawn by --seed, is the test. In both cases the
recipe holds out a share of the training queries to choose by. Documents without text are left out, and judgements of them.
All rows rank all documents for the same test queries (--queries: so many, drawn by --seed); differences in NDCG@10 come
with paired 95% intervals. One pass and several steps ask the same fit; ``--fitted`` keeps it there, or takes it from there.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from diffgrm import DocumentRetriever, Recipe, evaluate_search
from diffgrm.apps.machine import machine
from diffgrm.evaluation.retrieval import Searches, SearchEvaluation
from diffgrm.evaluation.statistics import interval_of_difference
from diffgrm.foundation.terminal import log_to_terminal
from diffgrm.recommenders.searchers import BM25, DenseVectors
from turns import keep

TEST, REFERENCES = "test", ("bm25", "dense")


def tables(folder: Path, seed: int) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, int]:
    """Documents that have a text, queries that are split into train and test, qrels; and how many documents had none."""
    documents, queries, qrels = (pl.read_parquet(folder / f"{name}.parquet") for name in ("documents", "queries", "qrels"))
    written = documents.filter(pl.col("text").str.strip_chars() != "")
    qrels = qrels.join(written.select("doc_id"), on="doc_id", how="semi")
    if "split" in queries.columns and (queries["split"] == "train").any():
        split = pl.when(pl.col("split") == "train").then(pl.lit("train")).otherwise(pl.lit(TEST))
    else:
        draw = np.random.default_rng(seed).permutation(queries.height)
        split = pl.Series(np.where(draw < queries.height // 3, TEST, "train"))
    return written, queries.with_columns(split.alias("split")), qrels, documents.height - written.height


def row(found: SearchEvaluation, references: dict[str, SearchEvaluation], seconds: float) -> dict[str, Any]:
    """What stands in the result of one searcher."""
    gains = found.per_query["ndcg@10"].to_numpy()
    differences = {}
    for name, reference in references.items():
        theirs = reference.per_query["ndcg@10"].to_numpy()
        low, high = interval_of_difference(gains, theirs)
        differences[name] = {"mean": float((gains - theirs).mean()), "low": low, "high": high}
    metrics = {name: round(value, 4) for name, value in found.metrics.items()}
    return metrics | {"seconds": round(seconds, 1), "ndcg@10_over": differences}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("overrides", nargs="*", help="settings of the recipe, for example training.epochs=5")
    parser.add_argument("--recipe", default="diffugr")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--queries", type=int, help="test queries at most; without it all")
    parser.add_argument("--fitted", type=Path, help="folder of the retriever; fitted and kept there where it is not yet")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    log_to_terminal(False)
    started = time.perf_counter()
    documents, queries, qrels, bare = tables(arguments.data, arguments.seed)
    training, asked = queries.filter(pl.col("split") == "train"), queries.filter(pl.col("split") == TEST)
    if arguments.queries is not None and arguments.queries < asked.height:
        asked = asked.sample(arguments.queries, seed=arguments.seed)
    queries = pl.concat([training, asked])
    qrels = qrels.join(queries.select("query_id"), on="query_id", how="semi")
    drawn = [] if arguments.queries is None else [f"--queries {arguments.queries}"]
    recipe = Recipe.from_yaml(arguments.recipe, [*arguments.overrides, f"seed={arguments.seed}"])
    if arguments.fitted is not None and arguments.fitted.is_dir():
        retriever = DocumentRetriever.load(arguments.fitted)
    else:
        retriever = DocumentRetriever(recipe).fit(documents, queries, qrels, split="train", progress=False)
        if arguments.fitted is not None:
            retriever.save(arguments.fitted)
    searchers: dict[str, Searches] = {
        "bm25": BM25(documents),
        "dense": DenseVectors(documents, recipe.embedding, seed=recipe.seed),
        "one pass": retriever.variant(["decoding.name=one_pass"]),
        "2 steps": retriever.variant(["decoding.steps=2"]),
        f"{retriever.semantic_ids.n_digits} steps": retriever,
    }
    rows, references = {}, {}
    for name, searcher in searchers.items():
        began = time.perf_counter()
        found = evaluate_search(searcher, queries, qrels, split=TEST)
        rows[name] = row(found, references, time.perf_counter() - began)
        if name in REFERENCES:
            references[name] = found
        print(name, rows[name], flush=True)
    content = {
        "command": " ".join([f"python benchmarks/documents.py DATA/{arguments.data.name}", *arguments.overrides, *drawn]),
        "seed": arguments.seed,
        "recipe": recipe.to_dict(),
        "documents": documents.height,
        "documents_without_text": bare,
        "training_queries": training.height,
        "test_queries": found.n_queries,
        "fit": {key: retriever.facts[key] for key in ("fit_seconds", "epochs", "steps", "validation", "parameters")},
        "machine": machine(),
        "seconds": round(time.perf_counter() - started, 1),
        "rows": rows,
    }
    keep(content, arguments.json)


if __name__ == "__main__":
    main()
