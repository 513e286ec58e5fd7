"""Going on learning beside fitting anew, slice by slice of time: quality, seconds, and what is forgotten.

    python benchmarks/fit_more.py best movielens-100k model.width=64 training.epochs=20 --json FILE
    python benchmarks/fit_more.py item-scorer DATA/amazon-beauty --clock clock --json FILE
    python benchmarks/fit_more.py generative-best DATA/amazon-beauty --clock clock --json FILE

The events are cut by time into slices of equal numbers (--slices, of which the last only answers); the first is fitted
on. Then, with each slice that comes, one model goes on (with all events so far, or with ``--later`` with those of the
slice), and one is fitted anew on all events so far. Both are asked for what users met next: the first item of each user in
the next slice, with all before it as the history. What is forgotten is told by the last event of users in the first slice,
which is held out of all training: it is asked for before and after going on. Items come with the slice of their first
event.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from diffgrm import InteractionDataset, Recipe
from diffgrm.apps.machine import machine
from diffgrm.data.clock import with_clock
from diffgrm.data.dataset import Ragged
from diffgrm.data.sources.listing import load_source
from diffgrm.evaluation.metrics import ndcg, ranks_in_lists, recall
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import Columns, DataError
from diffgrm.recommenders.base import Recommender
from turns import keep
from workload import dataset_of


def slices_of(dataset: InteractionDataset, count: int) -> pl.DataFrame:
    """All events in order of time, with the ``slice`` of each and whether it is ``held`` out of all training."""
    table = dataset.event_table()
    if Columns.TIMESTAMP not in table.columns:
        raise DataError("slices of time need a 'timestamp' column")
    table = table.sort(Columns.TIMESTAMP, maintain_order=True)
    table = table.with_columns(slice=pl.Series(np.arange(table.height) * count // table.height))
    last = pl.int_range(pl.len()).over(Columns.USER, "slice") == pl.len().over(Columns.USER, "slice") - 1
    enough = pl.len().over(Columns.USER, "slice") >= 4  # what is left still trains and validates
    return table.with_columns(held=last & enough & (pl.col("slice") == 0))


def dataset_of_slices(events: pl.DataFrame, items: pl.DataFrame, first: int, last: int) -> InteractionDataset:
    """What may be learnt from slices ``first`` to ``last``, over all items that were met up to then."""
    met = events.filter(pl.col("slice") <= last)[Columns.ITEM].unique()
    learnt = events.filter(~pl.col("held"), pl.col("slice").is_between(first, last)).drop("slice", "held")
    return InteractionDataset.from_tables(learnt, items.filter(pl.col(Columns.ITEM).is_in(met.to_list())))


def asked_next(events: pl.DataFrame, now: int) -> pl.DataFrame:
    """user_id, history, target: the first item of each user in the slice after ``now``, after all before it."""
    before = events.filter(pl.col("slice") <= now).group_by(Columns.USER, maintain_order=True)
    target = events.filter(pl.col("slice") == now + 1).group_by(Columns.USER, maintain_order=True)
    histories = before.agg(pl.col(Columns.ITEM).alias("history"))
    return histories.join(target.agg(pl.col(Columns.ITEM).first().alias("target")), on=Columns.USER)


def asked_first(events: pl.DataFrame) -> pl.DataFrame:
    """The same of what is held out: the last event of users in the first slice."""
    first = events.filter(pl.col("slice") == 0)
    histories = first.filter(~pl.col("held")).group_by(Columns.USER, maintain_order=True)
    targets = first.filter(pl.col("held")).select(Columns.USER, pl.col(Columns.ITEM).alias("target"))
    return histories.agg(pl.col(Columns.ITEM).alias("history")).join(targets, on=Columns.USER)


def measure(recommender: Recommender, asked: pl.DataFrame) -> dict[str, float]:
    """Recall and NDCG at 10, by item, history filtered; targets that the model does not know are misses."""
    lists = np.full((asked.height, 10), -1)
    found = recommender.recommend(dict(enumerate(asked["history"].to_list())), k=10, on_empty="skip")
    place = found[Columns.USER].to_numpy(), found[Columns.RANK].to_numpy() - 1
    lists[place] = recommender.items.positions(found[Columns.ITEM])
    targets = recommender.items.positions(asked["target"])
    targets = np.where(targets < 0, len(recommender.items), targets)  # which stands in no list
    ranks = ranks_in_lists(lists, Ragged(targets, np.arange(asked.height + 1)))
    return {"recall@10": round(float(recall(ranks, 10).mean()), 4), "ndcg@10": round(float(ndcg(ranks, 10).mean()), 4)}


def timed(make: Callable[[], Recommender]) -> tuple[Recommender, float]:
    """What is made, and the seconds that it took."""
    started = time.perf_counter()
    return make(), round(time.perf_counter() - started, 1)


def run(recipe: Recipe, whole: InteractionDataset, count: int, later: bool) -> list[dict[str, Any]]:
    """A row for each model and slice: the quality on the next slice, on what was held out of the first, and seconds."""
    events, items = slices_of(whole, count), whole.item_table
    first = asked_first(events)

    def fitted(last: int) -> Recommender:
        recommender: Recommender = resolve("recommender", recipe.recommender)(recipe)
        return recommender.fit(dataset_of_slices(events, items, 0, last), progress=False)

    rows: list[dict[str, Any]] = []

    def note(model: str, last: int, recommender: Recommender, seconds: float) -> None:
        asked = asked_next(events, last)
        after = {**measure(recommender, asked), "users": asked.height}
        held = {**measure(recommender, first), "users": first.height}
        rows.append({"model": model, "slices": last + 1, "seconds": seconds, "next_slice": after, "first_slice": held})
        print(json.dumps(rows[-1]), flush=True)

    going, seconds = timed(lambda: fitted(0))
    note("fitted once", 0, going, seconds)
    once = going
    for last in range(1, count - 1):
        dataset = dataset_of_slices(events, items, last if later else 0, last)
        going, seconds = timed(partial(going.fit_more, dataset, progress=False))
        note("going on", last, going, seconds)
        note("fitted once", last, once, 0.0)
        anew, seconds = timed(partial(fitted, last))
        note("fitted anew", last, anew, seconds)
    return rows


def main() -> None:
    """Run and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="recipe YAML, or the name of one that ships")
    parser.add_argument("data", help="folder of a dataset, or the name of a public one")
    parser.add_argument("overrides", nargs="*", help="settings, for example model.width=64")
    parser.add_argument("--slices", type=int, default=4, help="of time; of the last one, only what is asked comes")
    parser.add_argument("--clock", metavar="COLUMN", help="of real times, where 'timestamp' is only an order")
    parser.add_argument("--later", action="store_true", help="go on with the events of the slice alone")
    parser.add_argument("--json", type=Path, required=True)
    chosen = parser.parse_args()
    recipe, folder = Recipe.from_yaml(chosen.recipe, chosen.overrides), Path(chosen.data)
    whole, untimed = dataset_of(folder) if folder.is_dir() else load_source(chosen.data), 0
    if chosen.clock:
        events, untimed = with_clock(folder / "interactions.parquet", chosen.clock)
        whole = InteractionDataset.from_tables(events, whole.item_table, name=whole.name)
    rows = run(recipe, whole, chosen.slices, chosen.later)
    about = {"data": whole.name, "events_without_time": untimed, "later_alone": chosen.later}
    about |= {"machine": machine(), "recipe": recipe.to_dict()}
    keep({**about, "rows": rows}, chosen.json)


if __name__ == "__main__":
    main()
