"""Cornac's DiffGRM and TIGER (PyPI: cornac==3.0.1) as peers of a suite.

Settings: ``model`` (DiffGRM or TIGER), ``options`` of its constructor, and ``semantic_ids_of`` or ``vectors_of`` a run of
the suite, whose semantic IDs (DiffGRM) or item vectors (TIGER) are taken.
"""

from __future__ import annotations

import time
from types import SimpleNamespace

from common import Exchange, best
from cornac.data import SequentialDataset
from cornac.models import TIGER, DiffGRM


def sessions(rows: dict, items: int) -> SequentialDataset:
    """One session a user; every item is known, in order of position."""
    data = [(user, user, item, time_) for user, row in rows.items() for time_, item in enumerate(row)]
    known = {item: item for item in range(items)}
    return SequentialDataset.build(data, fmt="USIT", global_iid_map=known)


def main() -> None:
    given = Exchange()
    options = {"seed": given.settings["seed"], "device": "cpu", **given.settings.get("options", {})}
    train = sessions(given.train, len(given.items))
    validation = sessions(
        {user: [*given.train[user], target] for user, target in given.validation.items()}, len(given.items)
    )
    if given.settings["model"] == "DiffGRM":
        model = DiffGRM(item_sids=given.codes, **options)
    else:
        train.item_feature = SimpleNamespace(features=given.vectors)
        model = TIGER(**options)
    started = time.perf_counter()
    model.fit(train, validation)
    fit_seconds = time.perf_counter() - started
    filtered, unfiltered = {}, {}
    for user, history in given.histories.items():
        scores = model.score(0, history)
        filtered[user] = best(scores, history, given.settings["k"])
        unfiltered[user] = best(scores, [], given.settings["k"])
    parameters = sum(p.numel() for p in model.model.parameters())
    given.write(filtered, unfiltered, parameters=parameters, fit_seconds=round(fit_seconds, 1))


if __name__ == "__main__":
    main()
