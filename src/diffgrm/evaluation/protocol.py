"""What figures are of: how events were held out, how many, and whether training saw what came later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from diffgrm.data.dataset import InteractionDataset, Ragged, Split

TARGETS = {
    "all": "one list for each user against all that they met after the cut",
    "last": "the last event of each user after the cut",
    "successive": "every event after the cut, each with what came before it",
}


def protocol(split: Split) -> dict[str, Any]:
    """What a result tells of its split: the name, ``split.facts``, and of leave-one-out what training saw of the future.

    Only times that are a clock tell: a column that counts each user's events in steps of one does not.

    Returns:
        With a clock and leave-one-out also ``future_seen``: ``test_events``, the share that comes before a training event
        of another user; and ``training_events``, the share that is later than the test event, mean over test events. The
        leak is that of arXiv 2010.11060; both measures are ours.
    """
    found = {"split": split.name, **split.facts}
    if split.name == "leave_one_out" and (seen := _future_seen(split)) is not None:
        found["future_seen"] = seen
    return found


def _future_seen(split: Split) -> dict[str, float] | None:
    times, events = split.dataset.timestamps, split.dataset.events
    users = np.flatnonzero(events.lengths > split.train.lengths)
    if times is None or not len(users) or not _is_clock(split.dataset):
        return None
    moments = np.sort(times[events.offsets[users] + events.target_places(0)[users]])  # of the test events
    later, latest = 0, -np.inf
    for rows, block in Ragged(times, events.offsets).blocks():
        trained = block.part(0, split.train.lengths[rows]).values
        later += int(np.searchsorted(moments, trained, side="left").sum())
        latest = max(latest, trained.max(initial=moments.min()))
    return {
        "test_events": float((moments < latest).mean()),  # a user's own training events are never later
        "training_events": later / (len(split.train.values) * len(moments)),
    }


def _is_clock(dataset: InteractionDataset) -> bool:
    """Whether times are more than the number of each event in its user's row.

    Such numbers have gaps where rows of the table are no events: as many in all as were left out, at most.
    """
    assert dataset.timestamps is not None
    left_out = 0 if dataset.report is None else dataset.report.rows - len(dataset.events.values)
    missing = 0
    for _, block in Ragged(dataset.timestamps, dataset.events.offsets).blocks():
        steps = np.diff(block.values)[block.follows()]
        if (steps < 1).any() or (steps % 1 != 0).any():
            return True
        missing += int((steps - 1).sum())
    return missing > left_out


def sentences(found: Mapping[str, Any]) -> list[str]:
    """A protocol in words, for people; a warning where training saw the future.

    >>> sentences({"split": "validation_only"})
    ['Split: validation_only.']
    """
    lines = [f"Split: {found['split']}."]
    if "target" in found:
        test = found["test"]
        lines = [
            f"Split in time: training before {found['validation_from']}, test from {found['test_from']}; asked for: "
            f"{TARGETS[found['target']]}.",
            f"Test: {test['lists']:,} lists of {test['users']:,} users with {test['targets']:,} targets. Without training "
            f"events: {test['cold_users']:,} of the users, {test['cold_targets']:,} of the targets, and "
            f"{test['dropped_cold_events']:,} events that are no targets for it. {test['users_without_history']:,} users "
            "have no history to ask with.",
        ]
    if (seen := found.get("future_seen")) and seen["test_events"]:
        lines.append(
            f"Warning: leave-one-out lets a model see other users' future: {seen['test_events']:.1%} of the test events "
            f"come before training events of other users, and {seen['training_events']:.1%} of the training events are "
            "later than the test event (mean). data.split=temporal cuts in time."
        )
    if count := found.get("events_without_time"):
        lines.append(f"{count:,} events without a time were left out.")
    return lines
