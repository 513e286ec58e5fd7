"""The split that a recipe names, and the one by time: what is trained on lies before all that is asked about."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import polars as pl

from diffgrm.data import mapped
from diffgrm.data.asking import is_number
from diffgrm.data.dataset import EvaluationSet, InteractionDataset, Ragged, Split, asked_at, leave_one_out, validation_only
from diffgrm.data.times import read_times
from diffgrm.foundation import forks
from diffgrm.foundation.schema import DataError, bullet_list
from diffgrm.foundation.sections import DataSettings

OFFSET = r"(?:[zZ]|:\d\d(?:\.\d+)?\s*[+-]\d\d(?::?\d\d)?)$"  # at the end of a date-time


def make_split(dataset: InteractionDataset, settings: DataSettings) -> Split:
    """The split that a recipe's ``data`` section names.

    Raises:
        DataError: nothing to train on or to validate with, or times that cannot be cut so.
    """
    forks.check()
    if settings.split == "temporal":
        split = temporal(dataset, **settings.model_dump(exclude={"split"}))
    else:
        split = {"leave_one_out": leave_one_out, "validation_only": validation_only}[settings.split](dataset)
    problems = []
    if not (split.train.target_places(0) >= 1).any():
        problems.append("no user has two training events, so there is nothing to learn a next item from")
    if len(split.validation) == 0:
        problems.append("no user is left for validation")
    if problems:
        raise DataError(f"the {settings.split} split of {dataset!r} cannot be used:\n" + bullet_list(problems))
    return split


def temporal(
    dataset: InteractionDataset,
    validation_share: float = 0.1,
    test_share: float = 0.1,
    *,
    validation_from: str | None = None,
    test_from: str | None = None,
    target: str = "all",
    cold_targets: str = "keep",
) -> Split:
    """Global temporal split: two cuts in time, the same for everyone (arXiv 2507.16289).

    What lies before the first cut is trained on, what lies between the cuts validates, and what comes after the second is
    test. A cut at the quantile q of all events is ``test_share = 1 - q``. Users without an event before their targets are
    not evaluated; users and target items without a training event (*cold* ones) are counted in ``facts``. That a last
    target is the last that may be one, where cold items may not, is our reading.

    Args:
        validation_share, test_share: of all events, between the cuts and after the second; the first may be 0 (no event
            validates), while there is always one after the second cut.
        validation_from, test_from: the cuts as times, written as the timestamps are, in place of the shares.
        target: ``"all"``: one list for each user, whose targets are the different items met in the window and whose history
            is what was met before it; ``"last"``: the user's last event of the window, with all before it as history, those
            in the window too; ``"successive"``: every event of the window as a list of its own, with all before it.
        cold_targets: ``"drop"``: events of items without training events are no targets; they stay in histories.

    Raises:
        DataError: no timestamps, times that cannot be read, cuts that leave nothing to train on, or unknown words.
    """
    words = (("target", target, ("all", "last", "successive")), ("cold_targets", cold_targets, ("keep", "drop")))
    wrong = [f"{name} is {word!r}; expected {' or '.join(known)}" for name, word, known in words if word not in known]
    shares = (("validation_share", validation_share, "from 0"), ("test_share", test_share, "above 0"))
    wrong += [
        f"{name} is {share!r}; expected a number {least}, below 1"
        for name, share, least in shares
        if not (is_number(share) and 0 <= share < 1) or (least == "above 0" and share == 0)
    ]
    if wrong:
        raise DataError("a temporal split cannot be made so:\n" + bullet_list(wrong))
    times = dataset.timestamps
    if times is None:
        raise DataError("a temporal split needs a 'timestamp' column; use split='leave_one_out' without one")
    second = None if test_from is None else _moment(dataset, test_from, "test_from")
    after = test_share if second is None else _share_from(dataset, second, test_from)
    if validation_from is None and validation_share + after >= 1:
        raise DataError(f"validation_share {validation_share} + test_share {after:.4g} leave nothing to train on")
    by_share = _cuts(times, min(validation_share + after, 1), after)
    second = by_share[1] if second is None else second
    first = by_share[0] if validation_from is None else _moment(dataset, validation_from, "validation_from")
    if first > second:
        raise DataError(
            f"the first cut in time, {_spelled(dataset, first)}, is later than the second, {_spelled(dataset, second)}; "
            "expected validation_from before test_from"
        )
    before, earlier = (_events_before(dataset, times, cut) for cut in (first, second))
    train = dataset.events.part(0, before)
    if len(train.values) == 0:
        cut = (
            f"{_spelled(dataset, first)} (validation_share)"
            if validation_from is None
            else f"validation_from={validation_from!r}"
        )
        raise DataError(
            f"no event lies before the first cut in time, {cut}: timestamps go {_range(dataset)}; cut later, so that some "
            "are left to train on"
        )
    warm = np.bincount(train.targets().values, minlength=dataset.n_items) > 0
    facts: dict[str, Any] = {"target": target, "cold_targets": cold_targets}
    facts |= {"validation_from": _spelled(dataset, first), "test_from": _spelled(dataset, second)}
    sets = []
    for name, start, stop in (("validation", before, earlier), ("test", earlier, dataset.events.lengths)):
        window = _Window(dataset, start, stop, warm, before, target, cold_targets == "drop")
        sets.append(window.evaluation_set())
        facts[name] = window.facts(sets[-1])
    return Split(dataset, train, sets[0], sets[1], "temporal", facts)


class _Window:
    """The events of every user between two cuts, and which of them are asked for.

    Letters: U users, V events of the window, L lists.

    Args:
        start, stop: [U] events of each user before the window, and before its end.
        warm: [I] bool, items with training events.
        trained: [U] training events of each user.
    """

    def __init__(
        self,
        dataset: InteractionDataset,
        start: np.ndarray,
        stop: np.ndarray,
        warm: np.ndarray,
        trained: np.ndarray,
        target: str,
        drop_cold: bool,
    ) -> None:
        self.dataset, self.start, self.trained, self.warm = dataset, start, trained, warm
        self.target, self.drop_cold = target, drop_cold
        self.events = dataset.events.part(start, stop)
        self.user = np.repeat(np.arange(dataset.n_users), self.events.lengths)
        within = np.arange(len(self.user)) - self.events.offsets[self.user]
        self.place = start[self.user] + within  # of each event in all of its user's
        self.has_history = (start[self.user] if target == "all" else self.place) > 0
        self.cold = ~warm[self.events.values]
        may = self.events.marks.is_target
        self.eligible = self.has_history if may is None else self.has_history & may
        self.asked = self.eligible & ~(self.cold & drop_cold)
        if target == "last":
            self.asked &= self._last_of(self.asked)

    def _last_of(self, chosen: np.ndarray) -> np.ndarray:
        """[V] bool, the last one of each user among the chosen."""
        places = np.flatnonzero(chosen)
        user = self.user[places]
        last = np.zeros(len(chosen), dtype=bool)
        last[places[np.append(user[1:] != user[:-1], True)[: len(user)]]] = True
        return last

    def evaluation_set(self) -> EvaluationSet:
        """The lists to make."""
        events = self.dataset.events
        if self.target == "all":
            targets = self.events.filter(self.asked).bare().by_blocks(Ragged.distinct)
            users = np.flatnonzero(targets.lengths)
            targets, histories = targets.rows(users), events.part(0, self.start[users], users)
            asked = np.flatnonzero(self.asked)
            place = self.place[asked[np.searchsorted(self.user[asked], users)]]  # of the first target of each
        else:
            users, place = self.user[self.asked], self.place[self.asked]
            targets = Ragged(self.events.values[self.asked], np.arange(len(users) + 1))
            histories = events.part(0, place, users)
        histories = asked_at(histories, events, events.offsets[users] + place)
        return EvaluationSet(self.dataset.users.gather(users), histories, targets)

    def facts(self, found: EvaluationSet) -> dict[str, int]:
        """How many lists, users and targets there are, and what is cold, left out for it, or cannot be asked for."""
        users = np.unique(self.user[self.asked])
        with_history = np.unique(self.user[self.has_history])
        return {
            "lists": len(found),
            "users": len(users),
            "targets": len(found.targets.values),
            "cold_targets": int((~self.warm[found.targets.values]).sum()),
            "dropped_cold_events": int((self.eligible & self.cold).sum()) if self.drop_cold else 0,
            "cold_users": int((self.trained[users] == 0).sum()),
            "users_without_history": int(np.count_nonzero(self.events.lengths) - len(with_history)),
        }


def _moment(dataset: InteractionDataset, text: str, name: str) -> float:
    """A cut as a number of the dataset's own.

    Raises:
        DataError: it is not written as the timestamps are, or cannot be read.
    """
    kind = dataset.time_type
    if kind == pl.Date and (clock := re.match(r"\d+[-/]\d+[-/]\d+(?=\D)", str(text).strip())):
        raise DataError(
            f"{name} is {text!r}; timestamps are days, without a time of day or an offset, so that no cut lies inside of "
            f"one: expected a day, {clock[0]}, or the one after"
        )
    if kind in (pl.Date, pl.Datetime):
        found, faults = read_times(pl.Series([text]))
        if not faults and found.dtype in (pl.Date, pl.Datetime):
            found = found.cast(pl.Datetime)
            if (zone := getattr(kind, "time_zone", None)) is not None and re.search(OFFSET, str(text).strip()) is None:
                found = found.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")  # on their own clock
            cut = found.cast(kind, strict=False).to_physical()[0]  # type: ignore[arg-type]
            if cut is not None:  # as where its unit does not reach that far
                return float(cut)
        raise DataError(
            f"{name} is {text!r}; timestamps are {kind} and go {_range(dataset)}: expected one in ISO, such as 2024-01-31"
        )
    try:
        if math.isfinite(cut := float(text)):
            return cut
    except (TypeError, ValueError, OverflowError):
        pass
    raise DataError(f"{name} is {text!r}; expected a number, as the timestamps are, which go {_range(dataset)}")


def _range(dataset: InteractionDataset) -> str:
    """From when to when events are, in words."""
    assert dataset.timestamps is not None
    least, greatest = (_spelled(dataset, float(cut)) for cut in (dataset.timestamps.min(), dataset.timestamps.max()))
    return f"from {least} to {greatest}"


def _share_from(dataset: InteractionDataset, cut: float, text: str | None) -> float:
    """The share of events from a time on.

    Raises:
        DataError: it is none, or all.
    """
    times = dataset.timestamps
    assert times is not None
    later = sum(int((times[s : s + mapped.BLOCK] >= cut).sum()) for s in range(0, len(times), mapped.BLOCK))
    if not 0 < later < len(times):
        raise DataError(
            f"test_from is {text!r}, and {later:,} of {len(times):,} events are from then on; expected some, but not all: "
            f"timestamps go {_range(dataset)}"
        )
    return later / len(times)


def _spelled(dataset: InteractionDataset, cut: float) -> str:
    """A time as the dataset has it, such that :func:`_moment` reads it back."""
    kind = dataset.time_type
    if kind in (pl.Date, pl.Datetime):
        return str(pl.Series([int(cut)]).cast(kind)[0])  # type: ignore[arg-type]
    return str(int(cut)) if cut.is_integer() and abs(cut) < 2**63 else repr(cut)


def _cuts(times: np.ndarray, *shares: float) -> list[float]:
    """The times from which on some shares of all events lie."""
    places = [min(round(len(times) * (1 - share)), len(times) - 1) for share in shares]
    ordered = mapped.room(len(times), np.float64)
    for start in range(0, len(times), mapped.BLOCK):
        ordered[start : start + mapped.BLOCK] = times[start : start + mapped.BLOCK]
    ordered.partition(places)
    return [float(ordered[place]) for place in places]


def _events_before(dataset: InteractionDataset, times: np.ndarray, cut: float) -> np.ndarray:
    """[U] events of each user before a time: the first ones, since they are in order."""
    counts = np.zeros(dataset.n_users, dtype=np.int64)
    for rows, block in Ragged(times, dataset.events.offsets).blocks():
        owner = np.repeat(np.arange(len(block)), block.lengths)
        counts[rows] = np.bincount(owner[block.values.astype(np.float64) < cut], minlength=len(block))
    return counts
