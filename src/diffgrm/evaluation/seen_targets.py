"""Targets that filtered lists cannot hold, since their items count as seen."""

from __future__ import annotations

import logging

import numpy as np

from diffgrm.data.dataset import EvaluationSet
from diffgrm.foundation.event_settings import EventSettings

logger = logging.getLogger(__name__)

LARGE = 0.2  # share from which on it is told: filtered recall then ends at four fifths or less, whatever the model


def seen_targets(asked: EvaluationSet) -> int:
    """How many targets are of items that the history of their list counts as seen."""
    found = 0
    for rows, block in asked.histories.blocks():
        targets, seen = asked.targets.rows(np.arange(rows.start, rows.stop)), block.seen()
        # ids of lists and items are joined to one number, so that one look-up serves the whole block
        size = 1 + max(targets.values.max(initial=0), seen.values.max(initial=0))
        of_target, of_seen = (
            np.repeat(np.arange(len(some)), some.lengths) * size + some.values for some in (targets, seen)
        )
        found += int(np.isin(of_target, of_seen).sum())
    return found


def warn_of_seen(asked: EvaluationSet, what: str) -> None:
    """Say so where many targets are of items that are left out of lists.

    Args:
        what: the targets are of, such as ``"validation"``.
    """
    count, found = len(asked.targets.values), seen_targets(asked)
    if count and found > LARGE * count:
        logger.warning(
            "%.0f%% of the %s targets (%d of %d) are of items that their history counts as seen and that filtered lists "
            "leave out, so that recall and NDCG are 0 there: %s, or go by the metrics that end in _unfiltered",
            100 * found / count,
            what,
            found,
            count,
            _mend(asked.histories.marks.settings),
        )


def _mend(settings: EventSettings) -> str:
    if settings.event is None:
        return "keep one event of each item in a history (events.repeats=first)"
    seen = settings.types if settings.seen is None else settings.seen
    by = f"an item counts as seen by events of the types {', '.join(seen)} (events.seen)"
    if set(seen) <= set(settings.targets):
        return f"{by}; set events.seen=[] where it shall come again"
    return f"{by}; name only those after which it shall not come again, such as events.seen=[{','.join(settings.targets)}]"
