"""A small library with known right answers: every subject has documents, and is asked for in words of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from diffgrm import Recipe
from diffgrm.recommenders.searchers import DenseVectors

SUBJECTS = ("owl", "glacier", "violin", "bread", "comet", "harbour", "chess", "orchid", "bicycle", "volcano")
ASPECTS = ("origin", "care", "history", "sound")
SMALL = {
    "recommender": "documents",
    "embedding": {"name": "lsa", "width": 24},
    "tokenizer": {"name": "opq", "n_digits": 3, "codebook_size": 8, "pca_width": 24, "iterations": 5},
    "model": {"width": 24, "heads": 2, "feed_forward": 32},
    "training": {"batch_size": 64, "epochs": 2, "warmup_steps": 5, "validation_decoding": {"beam": 8}},
    "decoding": {"beam": 40},
}


def small_documents(*changes: str) -> Recipe:
    """A retriever's recipe that fits in seconds."""
    return Recipe.from_dict(SMALL).override(changes)


def library(seed: int = 0) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Documents (40), queries (120) and qrels: that of a subject and an aspect answers three questions about both."""
    generator = np.random.default_rng(seed)
    rows = [(f"{subject}-{aspect}", subject, aspect) for subject in SUBJECTS for aspect in ASPECTS]
    documents = [
        (name, subject.title(), f"The {aspect} of the {subject}. All about {subject} {subject} and its {aspect} {aspect}.")
        for name, subject, aspect in rows
    ]
    asked = [
        (f"q{number}", f"{word} {aspect} {subject}?", name)
        for number, (word, (name, subject, aspect)) in enumerate(
            (word, row) for word in ("what", "tell me", "where is") for row in rows
        )
    ]
    order = generator.permutation(len(asked))
    queries = pl.DataFrame([asked[place][:2] for place in order], ["query_id", "text"], orient="row")
    qrels = pl.DataFrame([(query, document) for query, _, document in asked], ["query_id", "doc_id"], orient="row")
    return pl.DataFrame(documents, ["doc_id", "title", "text"], orient="row"), queries, qrels


def with_vectors(folder: Path) -> tuple[Recipe, pl.DataFrame]:
    """A recipe of which the documents' vectors were made elsewhere and lie in a folder; the queries with theirs."""
    documents, queries, _ = library()
    encoder = DenseVectors(documents, {"name": "lsa", "width": 24})._encoder
    made, asked = (
        table.with_columns(pl.Series("embedding", encoder.encode(table.rename({key: "item_id"})).tolist()))
        for table, key in ((documents, "doc_id"), (queries, "query_id"))
    )
    path = folder / "vectors.parquet"
    made.select(pl.col("doc_id").alias("item_id"), "embedding").write_parquet(path)
    changes = ["embedding.name=precomputed", f"embedding.path={path}", "documents.index_documents=[text]"]
    return small_documents(*changes), asked
