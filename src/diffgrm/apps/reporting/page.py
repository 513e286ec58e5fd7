"""One self-contained HTML page of a suite's results."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

from diffgrm.apps.bench.checks import slug
from diffgrm.apps.bench.runner import result_of
from diffgrm.apps.bench.tables import SHOWN, cells_by_kind, chance, compared, kinds_of, sentences_of, short
from diffgrm.apps.reporting import figures
from diffgrm.foundation.outputs import check_file
from diffgrm.foundation.schema import DataError
from diffgrm.foundation.shown import visible
from diffgrm.foundation.storage import atomic_file

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --line: #d9dee3; --soft: #f4f6f8; --accent: #0072b2 }
@media (prefers-color-scheme: dark) { figure { background: #fff; color: #1b1f24 } :root { --ink: #e6e9ec; --paper: #15181b;
  --line: #343a40; --soft: #1e2226; --accent: #5cb3e6 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 70rem;
  margin: 2rem auto; padding: 0 1.2rem }
h1 { font-size: 1.6rem } h2 { margin-top: 2.6rem; border-bottom: 1px solid var(--line); padding-bottom: .2rem }
h3 { margin-top: 2rem } nav a { margin-right: 1rem } a { color: var(--accent) }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .88rem }
th, td { padding: .28rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap }
th:first-child, td:first-child { text-align: left } tr.reference { background: var(--soft) } .best { font-weight: 700 }
.better { color: #1a7f37 } .worse { color: #c0392b } .note { opacity: .75; font-size: .88rem }
figure { margin: 0; padding: .6rem; border: 1px solid var(--line); border-radius: 6px; overflow-x: auto }
svg { max-width: 100%; height: auto } code { background: var(--soft); padding: 0 .25rem }
"""
SUMMARY_KEYS = {"suite", "reference", "machine", "rows"}
ROW_KEYS = {"dataset", "run", "seeds", "users", "metrics", "standard_deviation", "parameters", "fit_seconds", "ms_per_list"}
ROW_KEYS |= {"choice", "peer"}
NAMES = {
    "recall@10": "Recall@10",
    "ndcg@10": "NDCG@10",
    "recall@10_unfiltered": "Recall@10 unfiltered",
    "ndcg@10_unfiltered": "NDCG@10 unfiltered",
    "coverage@10": "coverage@10",
    "validity": "validity",
}


def write_report(out: Path) -> Path:
    """Write ``report.html`` into the folder of a suite that has run; returns its path.

    Raises:
        DataError: the folder holds no results. MissingExtraError: matplotlib is not installed.
    """
    summary = _summary(out)
    check_file(out / "report.html")
    found = [result for row in summary["rows"] for result in _results(out, row)]
    datasets = list(dict.fromkeys(row["dataset"] for row in summary["rows"]))
    links = " ".join(f'<a href="#{_anchor(name)}">{escaped(name)}</a>' for name in datasets)
    sections = "".join(_dataset(name, summary, [r for r in found if r[0]["dataset"] == name]) for name in datasets)
    machine = ", ".join(f"{key} {value}" for key, value in summary["machine"].items() if value is not None)
    body = f"""<h1>Suite “{escaped(summary["suite"])}”</h1>
<p>Full ranking over the whole catalogue, by item. Settings were chosen on validation; test was looked at once for each run
and seed. Differences are to <code>{escaped(summary["reference"])}</code>, paired by user, with a 95% bootstrap interval,
and p of Wilcoxon's signed-rank test after Holm over all runs of a dataset.</p>
<p class="note">{escaped(machine)}</p><nav>{links}</nav>
{sections}"""
    page = document(f"{summary['suite']}: recommenders compared", body)
    with atomic_file(out / "report.html") as path:
        path.write_text(page, encoding="utf-8")
    return out / "report.html"


def _summary(out: Path) -> dict[str, Any]:
    """What ``results.json`` holds.

    Raises:
        DataError: it is not there, or damaged.
    """
    path, run = out / "results.json", f"diffgrm bench SUITE.yaml --out {out}"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{out} holds no results.json; run the suite first: {run}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); run the suite again, which writes it anew: {run}") from error
    rows = found["rows"] if isinstance(found, dict) and found.keys() >= SUMMARY_KEYS else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and row.keys() >= ROW_KEYS for row in rows):
        raise DataError(f"{path} holds no tables of a suite; run the suite again, which writes it anew: {run}")
    return found


def _results(out: Path, row: dict[str, Any]) -> list[figures.Result]:
    """The results that a row of the tables is of; rows of older tables tell seeds only.

    Raises:
        DataError: some are not there any more.
    """
    folder = out / "runs" / row["dataset"] / slug(row["run"])
    found = [result_of(folder / f"seed-{seed}") for seed in row["seeds"]]
    found = [
        r for r in found if r[0]["run"] == row["run"] and r[0]["identity"] in row.get("identities", [r[0]["identity"]])
    ]
    if len(found) != len(row["seeds"]):
        raise DataError(
            f"the tables in {out} are of {len(row['seeds'])} results of {row['run']} on {row['dataset']}, of which it "
            f"holds {len(found)}, since the suite has run on; run the suite again, which writes its tables anew: "
            f"diffgrm bench SUITE.yaml --out {out}"
        )
    return found


def document(title: str, body: str) -> str:
    """A page that loads nothing from elsewhere.

    Args:
        body: HTML.
    """
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escaped(title)}</title><style>{STYLE}</style></head><body>
{body}</body></html>
"""


def _dataset(name: str, summary: dict[str, Any], results: list[figures.Result]) -> str:
    rows = [row for row in summary["rows"] if row["dataset"] == name]
    first_seed = [r for r in results if r[0]["seed"] == min(c["seed"] for c, _ in results if c["run"] == r[0]["run"])]
    for row in rows:
        row["family"] = _family(row["run"], first_seed)
    parts = [
        ("", _table(rows, summary["reference"])),
        ("NDCG@10 by kinds of test events", _kinds(rows)),
        ("Accuracy with intervals", figures.metric_by_run(rows, results)),
        ("Quality against time", figures.quality_against_time(rows)),
        ("Accuracy by popularity of the target", figures.accuracy_by("training_events", rows, results)),
        ("Accuracy by length of the history", figures.accuracy_by("history_length", rows, results)),
        ("How hard each digit is, through training", figures.digit_difficulty(_fitted_once(first_seed))),
        ("Use of the codes", figures.code_use(first_seed)),
        ("In which step each digit of the best item is filled", figures.fill_order(first_seed)),
    ]
    shown = [body if not title else f"<h3>{title}</h3><figure>{body}</figure>" for title, body in parts if body is not None]
    return f'<h2 id="{_anchor(name)}">{escaped(name)}</h2>' + "\n".join(shown)


def _family(run: str, results: list[figures.Result]) -> str:
    """A name that runs with one fitted model share."""
    for content, _ in results:
        if content["run"] == run and content.get("model"):
            return str(content["model"])
    return run


def _fitted_once(results: list[figures.Result]) -> list[figures.Result]:
    """The first run of every fitted model: runs that differ in decoding have one training curve."""
    seen: dict[str, figures.Result] = {}
    for result in results:
        seen.setdefault(_family(result[0]["run"], results), result)
    return list(seen.values())


def _table(rows: list[dict[str, Any]], reference: str) -> str:
    head = ["run", "seeds", *(NAMES[name] for name in SHOWN), "difference in NDCG@10", "p (Holm)"]
    head += ["parameters", "fit, s", "ms a list"]
    best = {name: max((row["metrics"].get(name, 0) for row in rows), default=0) for name in SHOWN[:4]}
    body = []
    for row in sorted(rows, key=lambda row: -row["metrics"]["ndcg@10"]):
        cells = [escaped(row["run"]) + (" <small>peer</small>" if row["peer"] else ""), str(len(row["seeds"]))]
        for name in SHOWN:
            value, spread = row["metrics"].get(name), row["standard_deviation"].get(name)
            text = "" if value is None else short(value) + (f" ± {short(spread)}" if spread is not None else "")
            cells.append(f'<span class="best">{text}</span>' if value is not None and value == best.get(name) else text)
        difference = row.get("difference", {}).get("ndcg@10")
        if difference is None:
            cells.append("")
        else:
            kind = "better" if difference["low"] > 0 else "worse" if difference["high"] < 0 else ""
            text = f"{difference['mean']:+.4f} ({difference['low']:+.4f} to {difference['high']:+.4f})"
            cells.append(f'<span class="{kind}">{text}</span>')
        cells.append(escaped(chance(difference)))
        cells.append(f"{row['parameters']:,}" if row["parameters"] else "")
        cells.append(f"{row['fit_seconds']:.0f}" if row["fit_seconds"] is not None else "")
        cells.append("" if row["ms_per_list"] is None else f"{row['ms_per_list']:.2f}")
        mark = ' class="reference"' if row["run"] == reference else ""
        body.append(f"<tr{mark}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    header = "".join(f"<th>{name}</th>" for name in head)
    told = " ".join(map(escaped, sentences_of(rows)))
    users = f'<p class="note">{compared(rows)[0]["users"]:,} test users. {told} {_choices(rows)}</p>'
    return f'{users}<div class="scroll"><table><tr>{header}</tr>{"".join(body)}</table></div>'


def _kinds(rows: list[dict[str, Any]]) -> str | None:
    """What each run is worth for each kind of test events; None where no run was measured so."""
    if not (kinds := kinds_of(rows)):
        return None
    head = "<th>run</th>" + "".join(f"<th>{escaped(kind)}<br>{share:.1%}</th>" for (_, kind), share in kinds.items())
    body = "".join(
        f"<tr><td>{escaped(row['run'])}</td>" + "".join(f"<td>{cell}</td>" for cell in cells_by_kind(row, kinds)) + "</tr>"
        for row in sorted(rows, key=lambda row: -row["metrics"]["ndcg@10"])
    )
    note = (
        "Memorised: training has the step from the newest item of the history to the target. Numbers: training events of "
        "the target. Head: the fifth of items with most training events. Items: of the history."
    )
    return f'<p class="note">{note}</p><div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _choices(rows: list[dict[str, Any]]) -> str:
    chosen = {row["run"]: row["choice"] for row in rows if row["choice"]}
    texts = [
        f"{escaped(run)}: " + ", ".join(f"<code>{escaped(f'{key}={value}')}</code>" for key, value in choice.items())
        for run, choice in chosen.items()
    ]
    return "Chosen on validation: " + "; ".join(texts) + "." if texts else ""


def _anchor(name: str) -> str:
    return escaped(name.replace(" ", "-"))


def escaped(value: object) -> str:
    """A value as a page shows it, also inside of quotation marks."""
    return html.escape(visible(value), quote=True)
