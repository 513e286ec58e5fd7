"""What people see in the terminal: tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from inspect import Parameter
from typing import TYPE_CHECKING, Any

import polars as pl
import yaml
from rich.filesize import decimal
from rich.padding import Padding
from rich.table import Table

from diffgrm.foundation.cache import DAY, NAMES
from diffgrm.foundation.parts import plain
from diffgrm.foundation.recipe import SettingRow
from diffgrm.foundation.schema import Columns
from diffgrm.foundation.shown import visible
from diffgrm.foundation.terminal import console, styled

if TYPE_CHECKING:
    from diffgrm.apps.tuning.trials import Trial
    from diffgrm.evaluation.kinds import Kinds
    from diffgrm.foundation.cache import Entry
    from diffgrm.semantic_ids.semantic_ids import TokenizerReport

NARROW = 120  # columns; with fewer, a table of settings would be hard to read


def show_pairs(title: str, rows: Iterable[tuple[str, str]]) -> None:
    """A two-column table."""
    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in rows:
        table.add_row(name, value)
    console.print(table)


def show_settings(title: str, rows: Iterable[SettingRow]) -> None:
    """Settings with type, default and explanation: a table, or a list where the terminal is narrow."""
    if console.width < NARROW:
        console.print()
        console.print(styled(title, "italic"))
        for row in rows:
            console.print(styled(row.path, "bold"), f" {row.type}, {_default(row)}")
            console.print(Padding(row.help, (0, 0, 0, 4)))
        return
    table = Table(title=title, title_justify="left")
    for name in ("setting", "type", "default", "what it does"):
        table.add_column(name, overflow="fold", no_wrap=name == "setting")
    for row in rows:
        table.add_row(row.path, row.type, _default(row), row.help)
    console.print(table)


def _default(row: SettingRow) -> str:
    """The default as YAML has it."""
    if row.default is Parameter.empty:
        return "needed"
    return yaml.safe_dump(plain(row.default), default_flow_style=True, width=math.inf).removesuffix("\n...\n").strip()


def show_cache(home: str, entries: Sequence[Entry], downloads: int, now: float, each: bool) -> None:
    """What a cache folder holds, a row a kind and, if asked for, below it a line an entry, whose name is never broken.

    Args:
        downloads: bytes of public datasets; now: in seconds since 1970.
    """
    table = Table(title=f"The cache {visible(home)}", title_justify="left")
    table.add_column("what")
    for name in ("entries", "size", "unused for"):
        table.add_column(name, justify="right")
    for kind in NAMES:
        own = [entry for entry in entries if entry.kind == kind]
        idle = max((entry.idle(now) for entry in own), default=0.0)
        rest = decimal(sum(entry.size for entry in own)), f"{idle / DAY:.1f} days" if own else ""
        table.add_row(kind, str(len(own)), *rest)
    table.add_row("datasets (downloads: delete them by hand)", "", decimal(downloads), "")
    console.print(table)
    for entry in entries if each else ():
        name = entry.path.name if entry.whole else f"{entry.path.name} (unfinished)"
        said = f"{entry.kind}  {decimal(entry.size)}  {entry.idle(now) / DAY:.1f} days  {name}"
        console.print(styled(said), soft_wrap=True)


def show_report(report: TokenizerReport) -> None:
    """The tokeniser report."""
    show_pairs("Tokeniser report", report.rows())


def show_metrics(title: str, by_model: Mapping[str, Mapping[str, float]], names: Iterable[str] | None = None) -> None:
    """Metrics, a row each, with a column for every model; the best accuracy of a row is bold."""
    table = Table(title=title, title_justify="left")
    table.add_column("metric")
    for model in by_model:
        table.add_column(model, justify="right")
    chosen = list(names) if names is not None else list(dict.fromkeys(n for metrics in by_model.values() for n in metrics))
    for name in chosen:
        values = [metrics.get(name) for metrics in by_model.values()]
        best = max((v for v in values if v is not None), default=0.0)
        higher_is_better = len(values) > 1 and name.startswith(("recall", "ndcg", "mrr"))
        styles = ["bold" if higher_is_better and v == best else "" for v in values]
        cells = [styled("" if v is None else f"{v:.4f}", s) for v, s in zip(values, styles, strict=True)]
        table.add_row(name, *cells)
    console.print(table)


def show_kinds(kinds: Kinds) -> None:
    """Accuracy by kinds of held-out events."""
    table = Table(title="By kinds of held-out events", title_justify="left")
    for name in ("", "kind", "share", "recall@10", "ndcg@10"):
        table.add_column(name, justify="left" if name in ("", "kind") else "right")
    for name, of in kinds.items():
        for number, (kind, values) in enumerate(of.items()):
            label = "" if number else name.replace("_", " ")
            table.add_row(label, kind, f"{values['share']:.1%}", f"{values['recall@10']:.4f}", f"{values['ndcg@10']:.4f}")
    console.print(table)


def show_runs(rows: Sequence[Mapping[str, Any]]) -> None:
    """The runs of a suite, best first, a table for each dataset; unf. is unfiltered, ms are milliseconds a list."""
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        table = Table(title=dataset, title_justify="left")
        table.add_column("run", min_width=16, overflow="fold")
        for name in ("R@10", "N@10", "N@10 unf.", "difference in N@10 (95%)", "ms"):
            table.add_column(name, justify="right", no_wrap=name != "difference in N@10 (95%)")
        mine = [row for row in rows if row["dataset"] == dataset]
        for row in sorted(mine, key=lambda row: -row["metrics"]["ndcg@10"]):
            metrics, difference = row["metrics"], row.get("difference", {}).get("ndcg@10")
            table.add_row(
                row["run"],
                *(f"{metrics[name]:.4f}" for name in ("recall@10", "ndcg@10", "ndcg@10_unfiltered")),
                "" if difference is None else "{mean:+.4f} ({low:+.4f}, {high:+.4f})".format(**difference),
                "" if row["ms_per_list"] is None else f"{row['ms_per_list']:.2f}",
            )
        console.print(table)


def show_trials(trials: Sequence[Trial], count: int = 10) -> None:
    """The best trials of a search, and how many there were of other ends."""
    done = sorted(
        (trial for trial in trials if trial.state == "done"), key=lambda trial: (-(trial.score or 0), trial.number)
    )
    table = Table(title="Best on validation", title_justify="left")
    for name in ("trial", "score", "settings"):
        table.add_column(name, justify="left" if name == "settings" else "right", overflow="fold")
    for trial in done[:count]:
        settings = ", ".join(f"{key}={value}" for key, value in trial.settings.items())
        table.add_row(str(trial.number), f"{trial.score:.4f}", settings)
    console.print(table)
    ends = {
        end: sum(trial.state == state for trial in trials) for state, end in (("pruned", "given up"), ("failed", "failed"))
    }
    if any(ends.values()):
        console.print(", ".join(f"{number} {end}" for end, number in ends.items() if number))


def show_recommendations(
    recommendations: pl.DataFrame, item_table: pl.DataFrame, users: int = 5, whose: str = "User"
) -> None:
    """The lists of the first few users, with titles where the item table has them; ``whose`` stands before each user."""
    label = Columns.TITLE if Columns.TITLE in item_table.columns else Columns.TEXT
    joined = recommendations.join(
        item_table.select(Columns.ITEM, label), on=Columns.ITEM, how="left", maintain_order="left"
    )
    for user in joined[Columns.USER].unique(maintain_order=True)[:users]:
        table = Table(title=f"{whose} {visible(user)}", title_justify="left")
        for name in ("rank", "item", "score"):
            table.add_column(name, justify="left" if name == "item" else "right", no_wrap=True)
        table.add_column(label, max_width=70)  # gives way where the terminal is narrow
        for row in joined.filter(pl.col(Columns.USER) == user).iter_rows(named=True):
            text = styled("" if row[label] is None else row[label], no_wrap=True, overflow="ellipsis")
            score = "" if row[Columns.SCORE] is None else f"{row[Columns.SCORE]:.3f}"
            table.add_row(str(row[Columns.RANK]), visible(row[Columns.ITEM]), score, text)
        console.print(table)
    more = joined[Columns.USER].n_unique() - users
    if more > 0:
        console.print(f"... and {more} more users (write all with --out FILE)")


def show_explanation(explanation: pl.DataFrame, item_table: pl.DataFrame) -> None:
    """How each item was found, a table each: what ``explain`` of a recommender gives."""
    label = Columns.TITLE if Columns.TITLE in item_table.columns else Columns.TEXT
    names = ("step", "digit", "code", "confidence", "likeliest other", "items left")
    for (rank, item), rows in explanation.group_by(Columns.RANK, Columns.ITEM, maintain_order=True):
        text = item_table.filter(pl.col(Columns.ITEM) == item)[label][0]
        text = "" if text is None else visible(text)
        table = Table(title=f"{rank}. {visible(item)}  {text[:60]}", title_justify="left")
        for name in names:
            table.add_column(name, justify="right")
        for row in rows.iter_rows(named=True):
            rival = f"{row['rival']} ({row['rival_confidence']:.1%})"
            cells = str(row["step"]), str(row["digit"]), str(row["code"]), f"{row['confidence']:.1%}", rival
            table.add_row(*cells, f"{row['items_left']:,}")
        console.print(table)


def show_beams(beams: pl.DataFrame) -> None:
    """The search step by step: what ``beams`` of a recommender gives; a dot is a digit that is not known yet."""
    table = Table(title="The search: the best partial semantic IDs after every step", title_justify="left")
    for name in ("step", "place", "digits", "score"):
        table.add_column(name, justify="right")
    for row in beams.iter_rows(named=True):
        digits = "  ".join("  ·" if code is None else f"{code:3d}" for code in row["digits"])
        table.add_row(str(row["step"]), str(row["place"]), digits, f"{row[Columns.SCORE]:.3f}")
    console.print(table)


def show_names(rows: Iterable[tuple[str, str]]) -> None:
    """What there is to choose from: a name and what it is, a row each."""
    table = Table("name", "what it is")
    for row in rows:
        table.add_row(*row)
    console.print(table)
