"""The whole way at growing sizes: ``python benchmarks/run.py scale whole --json FILE --work FOLDER``.

A storefront is generated (``storefront.py``: as many users as items, ten events a user), read, and recommenders are
fitted, saved, loaded, evaluated on some users and served over HTTP, as anybody would at the library's door. None of the
processes may hold more than ``--cap`` GiB (``RLIMIT_DATA``: one that asks for more fails): one reads; for each
recommender one fits and saves, another loads, makes lists, evaluates and then asks the server, which is the last. Stages
are written to the JSON file when they are done, and a run that was killed goes on after the last; what they make stays
under ``--work``. ``own_mb`` is the most that a process held during a stage, ``cpu_seconds`` are those of processors,
which other work on the machine does not lengthen much, and exponents are of them.

``RECIPES`` are those of the command line (``diffgrm fit --recipe best embedding.width=128 ...``). Training is one epoch
of ``--steps`` steps, not a pass over all events, which would take hours on two cores, and OPQ has a tenth of its rounds;
nothing else is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scale_catalogue import done_before, growth, rounded
from turns import Worker, keep

EVALUATED, RATE = 300, 10.0  # users; requests a second
TRAINING = ("training.epochs=1", "training.batch_size=1024", "training.warmup_steps=50", "training.validation_users=200")
TRAINING += ("training.validate_every=1",)
WIDTH = "model.width=64"
SIZES = ("tokenizer.n_digits=8", "tokenizer.iterations=5", WIDTH)
RECIPES: dict[str, tuple[str, tuple[str, ...]]] = {
    "scorer": ("item-scorer", ("embedding=null", "model.branches=[id]", WIDTH, *TRAINING)),
    "hybrid": ("best", ("embedding.width=128", "tokenizer.pca_width=128", *SIZES, *TRAINING)),
    "generative": (
        "generative-best",
        (
            "embedding.model={work}/hybrid",
            "embedding.scorers=1",
            "model.positions=first",
            "tokenizer.pca_width=64",
            *SIZES,
            *TRAINING,
        ),
    ),
}
PARTS = {"texts": "item vectors", "sids": "semantic IDs", "scorers": "item scorers", "network": "network"}


def scale_whole(arguments: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What is measured, and the cases: one a stage and size, and one a stage with its exponents."""
    cap = int(arguments.cap * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (cap, cap))  # of every process that is started from here on
    done = done_before(arguments.json)
    for items in arguments.items:
        work = (arguments.work or folder) / str(items)
        os.environ["DIFFGRM_CACHE"] = str(work / "cache")
        for requests in _processes(arguments, work):
            if all((stage, items) in done for stage, _ in requests if stage):
                continue
            worker = Worker(sys.executable, "whole.py", arguments.threads, work, {"items": items})
            for stage, request in requests:
                answer = worker.ask(**request)
                if "error" in answer:
                    raise SystemExit(f"{stage}, {items:,} items: {answer['error']}")
                for name, case in _cases(stage, answer):
                    done[name, items] = {"stage": name, "items": items, **rounded(case)}
                    print(json.dumps(done[name, items]), flush=True)
                keep({"cases": list(done.values())}, arguments.json)
            worker.close()
    facts = {"grows": arguments.grows, "threads": arguments.threads, "cap_gib": arguments.cap, "steps": arguments.steps}
    stages = list(dict.fromkeys(stage for stage, _ in done))
    sizes = {stage: [items for items in arguments.items if (stage, items) in done] for stage in stages}
    cases = [done[stage, items] for items in arguments.items for stage in stages if (stage, items) in done]
    grown = [growth(stage, done, sizes[stage], "cpu_seconds") for stage in stages]
    return {**facts, "measured": time.strftime("%Y-%m-%d"), "recipes": RECIPES}, [*cases, *grown]


def _processes(arguments: argparse.Namespace, work: Path) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """What each process is asked for, one after the other: the name of a stage ("": not measured), and the request."""
    yield [("read", {"do": "read"}), ("read again", {"do": "read"})]
    for model in arguments.models:
        recipe, changes = RECIPES[model]
        asked = [
            *(change.format(work=work) for change in changes),
            f"training.steps_per_epoch={arguments.steps}",
            *arguments.changes,
        ]
        fit = {"do": "fit", "model": model, "recipe": recipe, "changes": asked}
        yield [("", {"do": "read"}), (f"{model}: fit", fit), (f"{model}: save", {"do": "save", "model": model})]
        stages: dict[str, dict[str, Any]] = {"load": {"do": "load_model"}, "first list": {"do": "first_list"}}
        stages |= {"a list": {"do": "lists"}, "evaluate": {"do": "evaluate", "users": EVALUATED}}
        stages |= {"serve": {"do": "serve", "rate": RATE, "seconds": arguments.seconds}}
        yield [(f"{model}: {stage}", {"model": model, **request}) for stage, request in stages.items()]


def _cases(stage: str, answer: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """A stage by its name, after the parts that it tells of."""
    parts = answer.pop("parts", {})
    answer.pop("peak_mb", None)
    if stage:
        yield from ((f"{stage}, {PARTS[name]}", part) for name, part in parts.items())
        yield stage, answer
