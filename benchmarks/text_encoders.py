"""How much embeddings of item texts say of what comes next: the rate at which the next item is a near text of the last one.

    python benchmarks/text_encoders.py DATA/amazon-beauty-titles --column title --json docs/results/text-encoders.json \\
        lsa universal_sentence_encoder '{name: sentence_transformer, model: FOLDER}'

An encoder is the recipe's ``embedding``: a name, or a mapping with its settings. Nothing is trained on events: of every
user the last event (leave-one-out) is looked for among the ``--k`` items whose texts are nearest to that of the event
before. ``--column`` is read in place of the text; items without a value keep their text.
"""

from __future__ import annotations

import argparse
import json
import shlex
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from diffgrm import leave_one_out
from diffgrm.apps.machine import machine
from diffgrm.data.dataset import InteractionDataset, Split
from diffgrm.foundation.parts import Part, as_part, named
from diffgrm.foundation.schema import Columns
from diffgrm.semantic_ids.embeddings.base import embed_items
from workload import dataset_of

BLOCK = 1024  # users whose similarities to all items are held at once


def texts_of(dataset: InteractionDataset, column: str | None) -> pl.DataFrame:
    """The item table with another column as its text."""
    if column is None:
        return dataset.item_table
    return dataset.item_table.with_columns(pl.coalesce(pl.col(column).replace("", None), Columns.TEXT).alias(Columns.TEXT))


def ranks_of_next(vectors: np.ndarray, last: np.ndarray, following: np.ndarray) -> np.ndarray:
    """[U] which nearest text of the last item, itself left out, that of the next item is, from 1.

    Of equal texts the next item's counts as the middle one. An item with the zero vector has nothing near and comes last.
    """
    found = np.full(len(last), len(vectors) - 1, dtype=np.float64)
    for start in range(0, len(last), BLOCK):
        here = slice(start, start + BLOCK)
        near = vectors[last[here]] @ vectors.T
        rows = np.arange(len(near))
        own = near[rows, following[here]]
        near[rows, last[here]] = -np.inf
        better, equal = (near > own[:, None]).sum(1), (near == own[:, None]).sum(1)
        found[here] = better + (equal + 1) / 2
    found[~vectors[last].any(1) | ~vectors[following].any(1)] = len(vectors) - 1
    return found


def without_folders(raw: dict[str, Any]) -> dict[str, Any]:
    """An encoder as a mapping; where it lies on this machine is left out."""
    return {key: Path(value).name if key == "model" else value for key, value in raw.items()}


def measured(part: Part, split: Split, items: pl.DataFrame, k: int, seed: int) -> dict[str, Any]:
    """Hit rates of an encoder, and the seconds that it took to encode all items, loading included."""
    histories, targets = split.test.histories, split.test.targets
    last, following = histories.values[histories.offsets[1:] - 1], targets.values[targets.offsets[:-1]]
    moved = last != following  # who repeats an item needs no text
    with tempfile.TemporaryDirectory() as cache:
        started = time.perf_counter()
        vectors = embed_items(part.build(seed=seed), items, split.item_counts > 0, Path(cache))
        seconds = time.perf_counter() - started
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    ranks = ranks_of_next(vectors, last[moved], following[moved])
    return {
        "width": vectors.shape[1],
        f"among the {k} nearest": round(float((ranks <= k).mean()), 4),
        "the nearest": round(float((ranks <= 1).mean()), 4),
        "median rank": float(np.median(ranks)),
        "users": int(moved.sum()),
        "encode_seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("encoders", nargs="+")
    parser.add_argument("--column")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    dataset = dataset_of(arguments.data)
    split, items = leave_one_out(dataset), texts_of(dataset, arguments.column)
    raws = [named(yaml.safe_load(written)) for written in arguments.encoders]
    options = ["--column", arguments.column] if arguments.column else []
    files = [f"DATA/{dataset.name}", *options, "--k", str(arguments.k), "--seed", str(arguments.seed)]
    files += ["--json", f"docs/results/{arguments.json.name}"] if arguments.json is not None else []
    shown = [json.dumps(without_folders(raw)) for raw in raws]
    content: dict[str, Any] = {
        "command": shlex.join(["python", "benchmarks/text_encoders.py", *files, *shown]),
        "machine": machine(),
        "dataset": dataset.name,
        "items": dataset.n_items,
        "encoders": [],
    }
    for raw in raws:
        found = {
            "encoder": without_folders(raw),
            **measured(as_part("embedding", raw), split, items, arguments.k, arguments.seed),
        }
        content["encoders"].append(found)
        print(json.dumps(found), flush=True)
        if arguments.json is not None:  # after each, since some take long
            arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
