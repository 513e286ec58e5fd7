"""Accuracy by kinds of held-out events: what memory can answer, and how often the target was met in training.

Whether the step from the newest item to the target was seen in training (*memorisation*) is the cut of arXiv 2603.19809.

Letters: T held-out events, I items.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import polars as pl

from diffgrm.data.dataset import EvaluationSet, Ragged
from diffgrm.evaluation.metrics import LIST, long_tail, ndcg, recall
from diffgrm.evaluation.segments import SEGMENT

MEMORISED, EVENTS, TAIL, HISTORY = "memorised", "training_events", "in_tail", "history_length"  # of held-out events
BINS = (0, 6, 11, 21)  # least training events of a target in each bin
HISTORY_BINS = (1, 5, 10, 21)  # fewest items of a history in each bin
Kinds = dict[str, dict[str, dict[str, float]]]
"""Of each way to part them, for each kind: ``events`` (how many), ``share``, ``recall@10`` and ``ndcg@10``."""


def seen_steps(train: Ragged, evaluation_set: EvaluationSet, n_items: int) -> np.ndarray:
    """[T] bool, whether training has the step from the newest item of the history to the target, by any user.

    Args:
        train: item positions of every user's training events, in order.
    """
    histories, targets = evaluation_set.histories, evaluation_set.targets
    newest = np.full(len(histories), -1, dtype=np.int64)
    met = histories.lengths > 0
    newest[met] = histories.values[histories.offsets[1:][met] - 1]
    before = np.repeat(newest, targets.lengths)
    wanted = before * n_items + targets.values
    different = np.unique(wanted[before >= 0])
    found = np.zeros(len(different), dtype=bool)
    for _, block in train.blocks():
        found |= np.isin(different, _steps(block, n_items))
    return (before >= 0) & np.isin(wanted, different[found])


def _steps(rows: Ragged, n_items: int) -> np.ndarray:
    """A number of every step from an item to the next one of its row."""
    steps: np.ndarray = (rows.values[:-1].astype(np.int64) * n_items + rows.values[1:])[rows.follows()]
    return steps


def with_kinds(
    per_user: pl.DataFrame, evaluation_set: EvaluationSet, train: Ragged, item_counts: np.ndarray
) -> pl.DataFrame:
    """What ``evaluate`` found of every held-out event, with what kind of event it is.

    Args:
        per_user: of an evaluation; it may have fewer lists than the set.
        item_counts: [I] training events of every item.
    """
    asked = evaluation_set.rows(per_user[LIST].unique(maintain_order=True).to_numpy())
    targets = asked.targets.values
    return per_user.with_columns(
        pl.Series(MEMORISED, seen_steps(train, asked, len(item_counts))),
        pl.Series(EVENTS, item_counts[targets]),
        pl.Series(TAIL, long_tail(item_counts)[targets]),
        pl.Series(HISTORY, np.repeat(asked.histories.lengths, asked.targets.lengths)),
    )


def by_kind(tables: Sequence[pl.DataFrame], column: str = "rank") -> Kinds:
    """Accuracy at 10 by kinds of held-out events, mean over seeds; an event counts for itself.

    Args:
        tables: of :func:`with_kinds`, one a seed, with the same events in the same order.
        column: of the ranks.

    Returns:
        ``memorisation``, ``training_events``, ``popularity`` (the head is the fifth of items with most training events),
        ``history_length``, and the segments of :func:`diffgrm.evaluation.segments.with_segment`, as far as the tables have
        their columns; a kind without events is left out.
    """
    each = [Ragged(table[column].to_numpy(), np.arange(table.height + 1)) for table in tables]
    gains = {
        f"{name}@10": np.mean([of(ranks, 10) for ranks in each], 0) for name, of in (("recall", recall), ("ndcg", ndcg))
    }
    found: Kinds = {}
    for name, kinds in _masks(tables[0]).items():
        found[name] = {
            kind: {
                "events": int(mask.sum()),
                "share": float(mask.mean()),
                **{metric: float(gain[mask].mean()) for metric, gain in gains.items()},
            }
            for kind, mask in kinds.items()
            if mask.any()
        }
    return found


def _masks(table: pl.DataFrame) -> dict[str, dict[str, np.ndarray]]:
    """[T] bool of every kind."""
    masks: dict[str, dict[str, np.ndarray]] = {}
    if MEMORISED in table.columns:
        seen = table[MEMORISED].to_numpy()
        masks["memorisation"] = {"memorised": seen, "rest": ~seen}
    if EVENTS in table.columns:
        count = table[EVENTS].to_numpy()
        spans = pairwise((*BINS, np.inf))
        masks["training_events"] = {_span(low, high): (count >= low) & (count < high) for low, high in spans}
    if TAIL in table.columns:
        tail = table[TAIL].to_numpy()
        masks["popularity"] = {"head": ~tail, "tail": tail}
    if HISTORY in table.columns:
        length = table[HISTORY].to_numpy()
        spans = pairwise((*HISTORY_BINS, np.inf))
        masks[HISTORY] = {f"{_span(low, high)} items": (length >= low) & (length < high) for low, high in spans}
    for column in (name for name in table.columns if name.startswith(SEGMENT)):
        values = table[column]
        masks[column] = {value: (values == value).to_numpy() for value in values.unique().sort()}
    return masks


def _span(low: float, high: float) -> str:
    """The name of a bin of training events.

    >>> _span(6, 11), _span(21, np.inf)
    ('6-10', '21+')
    """
    return f"{low:.0f}+" if high == np.inf else f"{low:.0f}-{high - 1:.0f}"
