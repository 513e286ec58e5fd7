"""What a search has found, as tables and as a recipe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from diffgrm.apps.tuning.plan import Plan, written
from diffgrm.apps.tuning.trials import Trial
from diffgrm.foundation.storage import atomic_file

BEST, TABLE, CSV = "best.yaml", "trials.json", "trials.csv"


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The one that did best on validation, the first of equals; None where none came to its end."""
    done = [trial for trial in trials if trial.state == "done" and trial.score is not None]
    return max(done, key=lambda trial: (trial.score, -trial.number), default=None)


def write_tables(out: Path, plan: Plan, trials: Sequence[Trial], machine: dict[str, Any]) -> None:
    """Write ``trials.json`` and ``trials.csv``, and ``best.yaml`` once a trial has come to its end."""
    best = best_of(trials)
    content = {
        **{key: value for key, value in plan.identity.items() if key != "choose"},
        "choose": written(plan.choose),
        "machine": machine,
        "best": None if best is None else best.number,
        "trials": [asdict(trial) for trial in trials],
    }
    texts = {TABLE: json.dumps(content, indent=1) + "\n", CSV: _csv(trials)}
    if best is not None:
        head = f"# The best of {len(trials)} trials of diffgrm tune: {best.score:.4f} on validation.\n"
        texts[BEST] = head + plan.trial_recipe(best.settings).to_yaml()
    for name, text in texts.items():
        with atomic_file(out / name) as path:
            path.write_text(text, encoding="utf-8")


def _csv(trials: Sequence[Trial]) -> str:
    rows = [
        {
            "trial": trial.number,
            "state": trial.state,
            "score": trial.score,
            **{
                key: value if isinstance(value, int | float | str) else json.dumps(value)
                for key, value in trial.settings.items()
            },
            "epochs": trial.facts.get("epochs"),
            "seconds": trial.facts.get("seconds"),
        }
        for trial in trials
    ]
    return pl.DataFrame(rows, infer_schema_length=None, strict=False).write_csv()
