"""The results of a suite as tables: JSON, CSV and markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from diffgrm.apps.bench.runner import LOCK, Runner
from diffgrm.evaluation.kinds import by_kind
from diffgrm.evaluation.protocol import sentences
from diffgrm.evaluation.statistics import GAINS, holm, interval_of_difference, list_gains, list_owners, signed_rank_p
from diffgrm.foundation.manifest import MANIFEST
from diffgrm.foundation.outputs import check_own_folder
from diffgrm.foundation.shown import markdown as as_markdown
from diffgrm.foundation.storage import atomic_file

SHOWN = ("recall@10", "ndcg@10", "recall@10_unfiltered", "ndcg@10_unfiltered", "coverage@10", "validity")


def summarise(found: list[tuple[dict[str, Any], pl.DataFrame]], reference_run: str) -> list[dict[str, Any]]:
    """One row for each dataset and run: means and spread over seeds, differences to the reference with intervals.

    A difference is of the mean over the seeds that both have, paired by user; its interval is a bootstrap over users, ``p``
    that of Wilcoxon's signed-rank test, and ``p_holm`` the same after Holm over all runs of the dataset, for each metric.
    Runs that are asked for other targets than the reference, since they read the events otherwise, have none.

    Args:
        found: see :meth:`Runner.results`.
    """
    by_run: dict[tuple[str, str], list[tuple[dict[str, Any], pl.DataFrame]]] = {}
    for content, ranks in found:
        by_run.setdefault((content["dataset"], content["run"]), []).append((content, ranks))
    rows = []
    for (dataset, run), cells in by_run.items():
        contents = [content for content, _ in cells]
        metrics = {name: [c["metrics"][name] for c in contents if name in c["metrics"]] for name in contents[0]["metrics"]}
        row: dict[str, Any] = {
            "dataset": dataset,
            "run": run,
            "seeds": [c["seed"] for c in contents],
            "identities": [c["identity"] for c in contents],
            "users": contents[0]["users"],
            "lists": contents[0].get("lists", contents[0]["users"]),
            "protocol": contents[0].get("protocol", {}),
            "events": contents[0].get("events", {}),
            "metrics": {name: float(np.mean(values)) for name, values in metrics.items()},
            "standard_deviation": {name: _spread(values) for name, values in metrics.items()},
            "parameters": contents[0]["facts"].get("parameters"),
            "epochs": _mean(c["facts"].get("epochs") for c in contents),
            "fit_seconds": _mean(c["facts"].get("fit_seconds") for c in contents),
            "ms_per_list": None if contents[0].get("peer") else _mean(c["ms_per_list"] for c in contents),
            "choice": contents[0].get("choice") or {},
            "peer": contents[0].get("peer", False),
            "kinds": by_kind([ranks for _, ranks in cells]),
        }
        reference = by_run.get((dataset, reference_run))
        asked = {side[0][0].get("asked") for side in (cells, reference or cells)}  # None: of older results
        row["comparable"] = None in asked or len(asked) == 1
        if reference is not None and run != reference_run and row["comparable"]:
            row["difference"] = {
                f"{metric}{suffix}": _difference(cells, reference, metric, column)
                for metric in GAINS
                for suffix, column in (("", "rank"), ("_unfiltered", "rank_unfiltered"))
            }
        rows.append(row)
    _correct(rows)
    return rows


def _correct(rows: list[dict[str, Any]]) -> None:
    """Add ``p_holm`` to the differences."""
    for dataset in {row["dataset"] for row in rows}:
        compared = [row["difference"] for row in rows if row["dataset"] == dataset and "difference" in row]
        for name in compared[0] if compared else ():
            corrected = holm([difference[name]["p"] for difference in compared])
            for difference, value in zip(compared, corrected, strict=True):
                difference[name]["p_holm"] = value


def _difference(cells: list, reference: list, metric: str, column: str) -> dict[str, float]:
    seeds = {content["seed"] for content, _ in cells} & {content["seed"] for content, _ in reference}
    both = [[ranks for content, ranks in side if content["seed"] in seeds or not seeds] for side in (cells, reference)]
    gain, baseline = (list_gains(tables, metric, column) for tables in both)
    owners = list_owners(both[0][0])
    low, high = interval_of_difference(gain, baseline, owners)
    p = signed_rank_p(gain, baseline, owners)
    return {"mean": float((gain - baseline).mean()), "low": low, "high": high, "p": p}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


def _spread(values: list[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def check_place(out: Path) -> None:
    """Make sure that a suite may be begun in a folder, or went on with there.

    Raises:
        DataError: it holds files of something else, or one may not write there.
    """
    try:
        there = json.loads((out / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        there = None
    written = ("results.json",) if isinstance(there, dict) and {"suite", "rows"} <= there.keys() else ()
    check_own_folder(out, "a suite", (*written, LOCK, "runs/*/*/seed-*", "models/*.run", f"models/*/{MANIFEST}"))


def write_tables(runner: Runner, machine: dict[str, Any]) -> list[dict[str, Any]]:
    """Write ``results.json``, ``results.csv`` and ``results.md`` of a suite that has run into its folder; returns the rows.

    Raises:
        DataError: it has no result.
    """
    suite, out = runner.suite, runner.out
    rows = summarise(runner.results(), suite.reference)
    content = {"suite": suite.name, "reference": suite.reference, "machine": machine, "rows": rows}
    texts = {
        "results.json": json.dumps(content, indent=1) + "\n",
        "results.csv": _csv(rows),
        "results.md": markdown(rows, suite.reference),
    }
    for name, text in texts.items():
        with atomic_file(out / name) as path:
            path.write_text(text, encoding="utf-8")
    return rows


def _csv(rows: list[dict[str, Any]]) -> str:
    flat = []
    for row in rows:
        line = {
            name: row[name] for name in ("dataset", "run", "users", "parameters", "epochs", "fit_seconds", "ms_per_list")
        }
        line["seeds"] = len(row["seeds"])
        line |= row["metrics"]
        line |= {f"{name}_sd": value for name, value in row["standard_deviation"].items()}
        for name, difference in row.get("difference", {}).items():
            line |= {f"{name}_difference{part}": difference[key] for part, key in _PARTS}
        flat.append(line)
    return pl.DataFrame(flat, infer_schema_length=None).write_csv()


_PARTS = (("", "mean"), ("_low", "low"), ("_high", "high"), ("_p", "p"), ("_p_holm", "p_holm"))


def markdown(rows: list[dict[str, Any]], reference: str) -> str:
    """A table for each dataset, best NDCG@10 first."""
    parts = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        mine = sorted((r for r in rows if r["dataset"] == dataset), key=lambda r: -r["metrics"]["ndcg@10"])
        parts += [
            f"## {as_markdown(dataset)}",
            "",
            f"{compared(mine)[0]['users']:,} test users; differences are to {as_markdown(reference)}.",
            "",
            *(as_markdown(sentence) for sentence in sentences_of(mine)),
            "",
        ]
        head = ["run", "seeds", *SHOWN, "NDCG@10 difference (95%)", "p (Holm)", "parameters", "fit", "ms a list"]
        parts += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        parts += ["| " + " | ".join(_cells(row)) + " |" for row in mine]
        parts.append("")
        if kinds := kinds_of(mine):
            head = ["NDCG@10 of", *(f"{kind} ({share:.1%})" for (_, kind), share in kinds.items())]
            parts += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
            parts += ["| " + " | ".join([as_markdown(row["run"]), *cells_by_kind(row, kinds)]) + " |" for row in mine]
            parts.append("")
    return "\n".join(parts)


def sentences_of(rows: list[dict[str, Any]]) -> list[str]:
    """How the events of a dataset were held out, and which runs are asked for other targets; none of older results."""
    ours = compared(rows)
    told = sentences(ours[0]["protocol"]) if ours[0].get("protocol") else []
    return told + [
        f"{row['run']} is not compared: by its section events {json.dumps(row.get('events', {}))} it is asked for other "
        f"targets, of {row['users']:,} users."
        for row in rows
        if row not in ours
    ]


def compared(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs that are asked for the same targets as the reference; of older results all."""
    return [row for row in rows if row.get("comparable", True)] or rows


def kinds_of(rows: list[dict[str, Any]]) -> dict[tuple[str, str], float]:
    """The kinds of test events of a dataset, each with its share; they are the same for all runs that are compared.

    >>> kinds_of([{"kinds": {"popularity": {"head": {"share": 0.9}, "tail": {"share": 0.1}}}}])
    {('popularity', 'head'): 0.9, ('popularity', 'tail'): 0.1}
    """
    return {
        (name, kind): values["share"]
        for row in compared(rows)
        for name, kinds in row.get("kinds", {}).items()
        for kind, values in kinds.items()
    }


def cells_by_kind(row: dict[str, Any], kinds: Iterable[tuple[str, str]]) -> list[str]:
    """A run's NDCG@10 for each kind of test events; empty where it was not measured."""
    found = [row.get("kinds", {}).get(name, {}).get(kind) for name, kind in kinds]
    return ["" if values is None else short(values["ndcg@10"]) for values in found]


def _cells(row: dict[str, Any]) -> list[str]:
    cells = [as_markdown(row["run"]) + (" (peer)" if row["peer"] else ""), str(len(row["seeds"]))]
    for name in SHOWN:
        value, spread = row["metrics"].get(name), row["standard_deviation"].get(name)
        cells.append("" if value is None else short(value) + (f" ± {short(spread)}" if spread is not None else ""))
    difference = row.get("difference", {}).get("ndcg@10")
    cells.append("" if difference is None else "{mean:+.4f} ({low:+.4f} to {high:+.4f})".format(**difference))
    cells.append(chance(difference))
    cells.append(f"{row['parameters']:,}" if row["parameters"] else "")
    cells.append(f"{row['fit_seconds']:.0f} s" if row["fit_seconds"] is not None else "")
    return [*cells, "" if row["ms_per_list"] is None else f"{row['ms_per_list']:.2f}"]


def chance(difference: dict[str, float] | None) -> str:
    """The corrected p of a difference; empty without one, as in older results.

    >>> chance({"p_holm": 0.0312}), chance({"p_holm": 1e-9}), chance(None)
    ('.0312', '<.0001', '')
    """
    if difference is None or "p_holm" not in difference:
        return ""
    return short(difference["p_holm"]) if difference["p_holm"] >= 1e-4 else "<.0001"


def short(value: float) -> str:
    """A share with four places and no leading zero.

    >>> short(0.0481), short(1.0)
    ('.0481', '1.0000')
    """
    return f"{value:.4f}".removeprefix("0")
