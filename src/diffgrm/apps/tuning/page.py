"""The page of a search: its best settings, its trials, and what each setting did."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffgrm.apps.choosing import Range
from diffgrm.apps.reporting.figures import ACCENT, GREY, plot
from diffgrm.apps.reporting.page import document, escaped
from diffgrm.apps.tuning.plan import Plan
from diffgrm.apps.tuning.tables import best_of
from diffgrm.apps.tuning.trials import Trial
from diffgrm.foundation.storage import atomic_file

SCORE = "0.8 NDCG@10 + 0.2 Recall@10"
LONGEST = 24  # characters of a value under an axis


def write_page(out: Path, plan: Plan, trials: Sequence[Trial], machine: dict[str, Any]) -> Path:
    """Write ``report.html``, one page with table and figures; returns its path.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    best = best_of(trials)
    facts = ", ".join(f"{key} {value}" for key, value in machine.items() if value is not None)
    found = "No trial came to its end."
    if best is not None:
        settings = ", ".join(f"<code>{escaped(f'{key}={value}')}</code>" for key, value in best.settings.items())
        found = f"Trial {best.number} did best, with {best.score:.4f}: {settings}."
    figures = [
        ("What was found, trial by trial", by_trial(trials)),
        ("What each setting did", by_setting(plan, trials)),
        ("Validation through training", curves(trials)),
    ]
    shown = "\n".join(f"<h3>{title}</h3><figure>{svg}</figure>" for title, svg in figures if svg is not None)
    body = f"""<h1>A search of {len(trials)} trials</h1>
<p>{found} Settings were chosen on validation ({SCORE}, history filtered), which overstates what the best is worth;
no trial was given a test event.</p><p class="note">{escaped(facts)}</p>
{_table(plan, trials)}
{shown}"""
    with atomic_file(out / "report.html") as path:
        path.write_text(document("Search for settings", body), encoding="utf-8")
    return out / "report.html"


def by_trial(trials: Sequence[Trial]) -> str | None:
    """The score of every trial, and the best so far."""
    done = [trial for trial in trials if trial.state == "done"]
    if not done:
        return None

    def draw(figure: Any) -> None:
        axis = figure.add_subplot()
        scores = [float(trial.score or 0) for trial in done]
        numbers = [trial.number for trial in done]
        axis.plot(numbers, scores, "o", color=ACCENT, ms=5, label="ended")
        axis.step(
            [*numbers, len(trials) - 1], [*np.maximum.accumulate(scores), max(scores)], where="post", color=ACCENT, lw=1
        )
        _pruned(axis, trials, lambda trial: trial.number)
        axis.set(xlabel="trial; line: the best so far", ylabel=f"validation: {SCORE}")
        axis.grid(alpha=0.25)
        axis.legend(frameon=False, fontsize=8)

    return plot((8, 3.6), draw)


def by_setting(plan: Plan, trials: Sequence[Trial]) -> str | None:
    """The score of every trial over the value of each setting."""
    shown = [trial for trial in trials if trial.score is not None]
    if not shown:
        return None
    columns = min(3, len(plan.choose))
    rows = -(-len(plan.choose) // columns)

    def draw(figure: Any) -> None:
        for number, (key, options) in enumerate(plan.choose.items()):
            axis = figure.add_subplot(rows, columns, number + 1)
            if isinstance(options, Range):
                place = {trial.number: trial.settings[key] for trial in shown}
                axis.set_xscale("log" if options.log else "linear")
            else:
                texts, kinds = [str(value) for value in options], [json.dumps(value) for value in options]
                place = {trial.number: kinds.index(json.dumps(trial.settings[key])) for trial in shown}
                short = [text if len(text) <= LONGEST else text[: LONGEST - 1] + "…" for text in texts]
                axis.set_xticks(range(len(texts)), short, rotation=0 if max(map(len, short)) < 8 else 30, fontsize=8)
            done = [trial for trial in shown if trial.state == "done"]
            axis.plot([place[trial.number] for trial in done], [trial.score for trial in done], "o", color=ACCENT, ms=4)
            _pruned(axis, shown, lambda trial, place=place: place[trial.number])
            axis.set_xlabel(key)
            axis.grid(alpha=0.25)

    return plot((3.2 * columns, 2.6 * rows), draw)


def curves(trials: Sequence[Trial]) -> str | None:
    """The score of every validation; of trials that were given up, in grey."""
    shown = [trial for trial in trials if trial.curve]
    if not shown:
        return None
    best = best_of(trials)

    def draw(figure: Any) -> None:
        axis = figure.add_subplot()
        for trial in shown:
            first = trial is best
            colour = ACCENT if trial.state == "done" else GREY
            epochs, scores = zip(*trial.curve, strict=True)
            axis.plot(epochs, scores, ".-", color=colour, lw=2.4 if first else 0.9, alpha=1 if first else 0.6)
        axis.set(xlabel="epoch; thick: the best trial, grey: given up", ylabel=f"validation: {SCORE}")
        axis.grid(alpha=0.25)

    return plot((8, 3.6), draw)


def _pruned(axis: Any, trials: Sequence[Trial], place: Any) -> None:
    """Trials that were given up, where they stood then."""
    found = [trial for trial in trials if trial.state == "pruned" and trial.score is not None]
    if found:
        axis.plot(
            [place(trial) for trial in found], [trial.score for trial in found], "x", color=GREY, ms=5, label="given up"
        )


def _table(plan: Plan, trials: Sequence[Trial]) -> str:
    """All trials, best first, then those that were given up, then those that failed."""
    order = {"done": 0, "pruned": 1, "failed": 2}
    head = "".join(f"<th>{escaped(name)}</th>" for name in ("trial", "score", *plan.choose, "epochs", "seconds"))
    body = []
    for trial in sorted(trials, key=lambda trial: (order[trial.state], -(trial.score or 0), trial.number)):
        score = f"{trial.score:.4f}" if trial.state == "done" else "given up" if trial.state == "pruned" else "failed"
        facts = [trial.facts.get("epochs", ""), trial.facts.get("seconds", "")]
        cells = [trial.number, score, *(trial.settings[key] for key in plan.choose), *facts]
        mark = f' title="{escaped(trial.facts["why"])}"' if "why" in trial.facts else ""
        body.append(f"<tr{mark}>" + "".join(f"<td>{escaped(cell)}</td>" for cell in cells) + "</tr>")
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(body)}</table></div>'
