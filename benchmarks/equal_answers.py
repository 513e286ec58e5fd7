"""Do two commits give the same answers? Losses, lists and saved folders of every recommender, before and after.

    (cd BEFORE && python THIS/benchmarks/equal_answers.py record --out before)
    python benchmarks/equal_answers.py record --out after
    python benchmarks/equal_answers.py compare before after            # fits anew, lists and losses
    python benchmarks/equal_answers.py load before                     # the old folders, read by this commit

``record`` fits every case on the toy storefront (or, with ``--data FOLDER``, on two tables; ``--cases`` names some of them)
and keeps lists, losses and the model folder. It runs on the commit before the item scorers had a section of their own as
well as after it, each case in the words of its time. Run it with one thread (OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1):
what came before depends on the number of threads.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import diffgrm
from diffgrm import InteractionDataset, Recipe, toy_world

try:  # where the registry lay before and lies now
    from diffgrm import registry
except ImportError:
    from diffgrm.foundation import registry

USERS, K = 200, 10
SIZES = {"width": 32, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "feed_forward": 64, "max_len": 8}
TEXT = {"embedding": {"width": 32}, "tokenizer": {"n_digits": 3, "codebook_size": 16, "iterations": 5, "pca_width": 32}}
TRAINING = {"batch_size": 64, "epochs": 3, "learning_rate": 0.01, "warmup_steps": 5}
BEAM = {"name": "any_order_beam", "beam": 16}
DIGITS = {
    **TEXT,
    "model": {
        "name": "diffgrm",
        "branches": ["sid"],
        "history": "bidirectional",
        "dropout": 0.1,
        "decoder_dropout": None,
        **SIZES,
    },
    "training": {**TRAINING, "validation_decoding": {"beam": 8}},
    "decoding": BEAM,
}
PAPER_LOSS = {"loss": {"item_weight": 0.0, "share": 1.0}}
TABLE = {"model": {"width": 32, "heads": 2, "layers": 1, "feed_forward": 64, "max_len": 8}, "training": TRAINING}
SAMPLED = {"kind": "sampled_softmax", "negatives": 64}
THREE = {**DIGITS["model"], "branches": ["sid", "text", "id"]}
AUTO = {key: value for key, value in DIGITS["model"].items() if key != "name"}
TOY: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # name: (the recipe before, the recipe now)
    "default": (
        {"recommender": "diffgrm", **TEXT, "model": SIZES, "training": TRAINING},
        {"recommender": "hybrid", **TEXT, "model": SIZES, "training": TRAINING},
    ),
    "digits": ({"recommender": "diffgrm", **DIGITS, **PAPER_LOSS}, {"recommender": "diffgrm", **DIGITS}),
    "digits, causal, random noise": (
        {
            "recommender": "diffgrm",
            **DIGITS,
            "model": {**DIGITS["model"], "history": "causal"},
            "loss": {"item_weight": 0.0, "share": 1.0, "reduction": "token_mean"},
            "noising": {"name": "random"},
        },
        {
            "recommender": "diffgrm",
            **DIGITS,
            "model": {**DIGITS["model"], "history": "causal"},
            "objective": {"name": "diffusion", "reduction": "token_mean"},
            "noising": {"name": "random"},
        },
    ),
    "three branches, digits weigh": (
        {
            "recommender": "diffgrm",
            **DIGITS,
            "model": THREE,
            "loss": {"item_weight": 1.0, "share": 1.0},
            "item_loss": {"kind": "softmax", "cosine": True, "temperature": 0.2},
            "training": TRAINING,
            "decoding": {"name": "item_proposals", "weight": 0.1, "co_occurrence": 1.0, "new_items": 0.0},
        },
        {
            "recommender": "hybrid",
            **DIGITS,
            "model": THREE,
            "objective": {"name": "joint", "item_weight": 1.0, "digit_fraction": 1.0},
            "item_loss": {"kind": "softmax", "cosine": True, "temperature": 0.2},
            "training": TRAINING,
            "decoding": {"name": "item_proposals", "weight": 0.1},
            "item_scoring": {"vectors": {}, "co_occurrence": {"weight": 1.0}, "new_items": None},
        },
    ),
    "items learnt, decoded by digits": (
        {"recommender": "diffgrm", **DIGITS, "model": THREE, "loss": {"item_weight": 1.0, "share": 0.5}},
        {
            "recommender": "hybrid",
            **DIGITS,
            "model": THREE,
            "objective": {"name": "joint", "item_weight": 1.0, "digit_fraction": 0.5},
        },
    ),
    "autoregressive": (
        {"recommender": "autoregressive", **DIGITS, "model": AUTO, "decoding": {"beam": 16}},
        {"recommender": "autoregressive", **DIGITS, "model": AUTO, "decoding": {"beam": 16}},
    ),
    "one_pass": (
        {"recommender": "one_pass", **DIGITS, "training": TRAINING, "decoding": {"name": "one_pass"}},
        {"recommender": "one_pass", **DIGITS, "training": TRAINING, "decoding": {"name": "one_pass"}},
    ),
    "sasrec": ({"recommender": "sasrec", **TABLE}, {"recommender": "sasrec", **TABLE}),
    "sasrec, sampled": (
        {"recommender": "sasrec", **TABLE, "item_loss": SAMPLED},
        {"recommender": "sasrec", **TABLE, "item_loss": SAMPLED},
    ),
    "sid_sasrec": (
        {"recommender": "sid_sasrec", **TABLE, **TEXT},
        {
            "recommender": "sid_sasrec",
            **TABLE,
            **TEXT,
            "model": {**TABLE["model"], "branches": [{"name": "sid", "input_scale": False}]},
        },
    ),
    **{name: ({"recommender": name}, {"recommender": name}) for name in ("item_knn", "text_knn", "popularity", "random")},
}
SHORT = {"epochs": 1, "validation_users": 500, "warmup_steps": 200}
REAL_DIGITS = {
    "recommender": "diffgrm",
    "model": {**DIGITS["model"], "history": "causal", "max_len": 20},
    "training": {**SHORT, "validation_decoding": {"beam": 8}},
    "decoding": BEAM,
    "embedding": {"width": 512},
    "tokenizer": {"pca_width": 512},
}
REAL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "default": (
        {"recommender": "diffgrm", "model": {"width": 64}, "training": SHORT},
        {"recommender": "hybrid", "model": {"width": 64}, "training": SHORT},
    ),
    "sasrec": (
        {"recommender": "sasrec", "item_loss": {"kind": "sampled_softmax"}, "training": SHORT},
        {"recommender": "sasrec", "item_loss": {"kind": "sampled_softmax"}, "training": SHORT},
    ),
    "digits": ({**REAL_DIGITS, **PAPER_LOSS}, REAL_DIGITS),
}


def world(data: Path | None) -> InteractionDataset:
    """The toy storefront, or the tables of a folder."""
    if data is None:
        return toy_world(users=120, seed=1).dataset
    return InteractionDataset.from_tables(data / "interactions.parquet", data / "items.parquet", name=data.name)


def lists(recommender: Any, dataset: InteractionDataset) -> pl.DataFrame:
    """The lists of some users, history left out."""
    users = {user: dataset.items.ids(dataset.events[row]) for row, user in enumerate(dataset.users.series[:USERS])}
    return recommender.recommend(users, k=K)


def record(out: Path, data: Path | None, names: list[str]) -> None:
    """Fit every case and keep what it gives."""
    dataset, now = world(data), "hybrid" in registry.PARTS["recommender"]
    for name, recipes in (REAL if data else TOY).items():
        if names and name not in names:
            continue
        folder = out / name.replace(" ", "-").replace(",", "")
        recipe = Recipe.from_dict(recipes[now])
        recommender = registry.resolve("recommender", recipe.recommender)(recipe)
        recommender.fit(dataset, run_folder=folder / "run", progress=False)
        recommender.save(folder / "model")
        lists(recommender, dataset).write_parquet(folder / "lists.parquet")
        logs = [pl.read_csv(path) for path in folder.glob("run/logs/*/metrics.csv")]
        losses = [logs[0][c].drop_nulls().to_list() for c in ("train_loss", "val_score")] if logs else []
        (folder / "losses.json").write_text(json.dumps(losses))
        print(f"{name}: {losses}", flush=True)


def difference(found: pl.DataFrame, wanted: pl.DataFrame) -> str:
    """What differs between two tables of lists."""
    columns = ["user_id", "rank"]
    both = wanted.join(found, on=columns, how="full", suffix="_found")
    moved = both.filter(pl.col("item_id").ne_missing(pl.col("item_id_found"))).height
    score = (both["score"] - both["score_found"]).abs().max()
    return f"{both.height:,} places, {moved} with another item, scores differ by at most {score:.1e}"


def compare(before: Path, after: Path) -> int:
    """Losses and lists of two recordings, a line each; the number of cases that differ."""
    wrong = 0
    for folder in sorted(path for path in before.iterdir() if (path / "lists.parquet").is_file()):
        wanted, found = (pl.read_parquet(side / folder.name / "lists.parquet") for side in (before, after))
        a, b = (json.loads((side / folder.name / "losses.json").read_text()) for side in (before, after))
        loss = max((float(np.abs(np.array(x) - np.array(y)).max()) for x, y in zip(a, b, strict=True)), default=0.0)
        said = difference(found, wanted)
        wrong += " 0 with another item" not in said or loss > 1e-4
        print(f"{folder.name:34s} losses differ by at most {loss:.1e}; {said}")
    return wrong


def load(before: Path, data: Path | None) -> int:
    """The recorded folders, read by this commit; the number of cases whose lists differ."""
    wrong, dataset = 0, world(data)
    for folder in sorted(path for path in before.iterdir() if (path / "model").is_dir()):
        said = difference(lists(diffgrm.load(folder / "model"), dataset), pl.read_parquet(folder / "lists.parquet"))
        wrong += " 0 with another item" not in said
        print(f"{folder.name:34s} {said}")
    return wrong


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("record", "compare", "load"))
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--cases", nargs="*", default=[])
    arguments = parser.parse_args()
    if arguments.what == "record":
        record(arguments.out, arguments.data, arguments.cases)
        return 0
    if arguments.what == "compare":
        return compare(*arguments.folders)
    return load(arguments.folders[0], arguments.data)


if __name__ == "__main__":
    sys.exit(main())
