"""Figures of a report, as SVG text."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from diffgrm.data.ragged import Ragged
from diffgrm.evaluation.metrics import ndcg
from diffgrm.evaluation.statistics import interval_of_difference, list_gains, list_owners
from diffgrm.foundation.schema import MissingExtraError

BINS = {
    "training_events": ("training events of the target", [0, 1, 5, 10, 20, 50]),
    "history_length": ("items in the history", [1, 4, 6, 10, 20, 50]),
}
INK, ACCENT, GREY = "#1b1f24", "#0072b2", "#8a939c"
Result = tuple[dict[str, Any], pl.DataFrame]


STYLE: Any = {
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "diffgrm",
    "text.parse_math": False,  # a name with two dollar signs is no formula
}


def check_matplotlib(purpose: str = "diffgrm report", extra: str = "report") -> None:
    """Make sure that figures can be drawn.

    Raises:
        MissingExtraError: matplotlib is not installed; names what it is for, and the extra that it comes with.
    """
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", extra, purpose) from error


def plot(size: tuple[float, float], draw: Callable[[Any], None]) -> str:
    """SVG of what ``draw(figure)`` draws; the figures and settings of the caller stay as they are."""
    check_matplotlib()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def metric_by_run(rows: list[dict[str, Any]], results: list[Result], metric: str = "ndcg@10") -> str:
    """Every run of a dataset with the 95% interval of its mean over users."""
    order = sorted(rows, key=lambda row: row["metrics"][metric])
    tables = {row["run"]: [ranks for content, ranks in results if content["run"] == row["run"]] for row in order}

    def draw(figure: Any) -> None:
        axis = figure.add_subplot()
        for place, row in enumerate(order):
            gains, owners = list_gains(tables[row["run"]], metric), list_owners(tables[row["run"]][0])
            low, high = interval_of_difference(gains, np.zeros_like(gains), owners)
            axis.plot([low, high], [place, place], color=ACCENT, lw=2, solid_capstyle="round")
            axis.plot(row["metrics"][metric], place, "o", color=ACCENT, ms=6)
            axis.annotate(f"{row['metrics'][metric]:.4f}", (high, place), (6, 0), textcoords="offset points", va="center")
        axis.set_yticks(range(len(order)), [row["run"] for row in order])
        axis.set_xlim(left=0)
        axis.margins(x=0.12)
        axis.grid(axis="x", alpha=0.25)
        axis.set_xlabel("NDCG@10 by item, history filtered; line: 95% interval over users")

    return plot((8, 0.9 + 0.34 * len(order)), draw)


def quality_against_time(rows: list[dict[str, Any]]) -> str:
    """NDCG@10 over the time of one list; runs that differ in decoding only are joined. Peers have no time of ours."""
    families: dict[str, list[dict[str, Any]]] = {}
    for row in (row for row in rows if row["ms_per_list"] is not None):
        families.setdefault(row["family"], []).append(row)

    def draw(figure: Any) -> None:
        axis = figure.add_subplot()
        for members in families.values():
            members.sort(key=lambda row: row["ms_per_list"])
            x = [row["ms_per_list"] for row in members]
            y = [row["metrics"]["ndcg@10"] for row in members]
            axis.plot(x, y, "o-" if len(members) > 1 else "o", ms=5, lw=1, alpha=0.9)
            for row, a, b in zip(members, x, y, strict=True):
                axis.annotate(row["run"], (a, b), (5, 4), textcoords="offset points", fontsize=8)
        axis.set_xscale("log")
        axis.margins(x=0.25, y=0.1)
        axis.grid(alpha=0.25)
        axis.set_xlabel("milliseconds a list (measured with the suite, other work included)")
        axis.set_ylabel("NDCG@10")

    return plot((8, 4.6), draw)


def digit_difficulty(results: list[Result]) -> str | None:
    """Negative log-likelihood of each digit on validation through training, for each run that logs it."""
    shown = [
        (content["run"], content["curves"])
        for content, _ in results
        if any(name.startswith("val_digit_") for name in content.get("curves", {}))
    ]
    if not shown:
        return None

    def draw(figure: Any) -> None:
        columns = min(3, len(shown))
        rows = -(-len(shown) // columns)
        first: Any = None
        for number, (run, curves) in enumerate(shown):
            axis = figure.add_subplot(rows, columns, number + 1, sharey=first)
            first = first or axis
            names = sorted((n for n in curves if n.startswith("val_digit_")), key=lambda n: int(n.split("_")[2]))
            for name in names:
                axis.plot(curves["epoch"], curves[name], label=f"digit {name.split('_')[2]}", lw=1.4)
            axis.set_title(run, fontsize=10)
            axis.set_xlabel("epoch")
            axis.grid(alpha=0.25)
            if len(names) <= 8:
                axis.legend(frameon=False, fontsize=8)
        first.set_ylabel("nats")

    return plot((3.2 * min(3, len(shown)), 2.8 * -(-len(shown) // 3)), draw)


def code_use(results: list[Result]) -> str | None:
    """How often each code of each digit is used, most used first; a flat line is a codebook used evenly."""
    seen: dict[str, list[list[int]]] = {}
    for content, _ in results:
        if "code_counts" in content:
            label = f"{content['recipe']['tokenizer']['name']}, {content['recipe']['semantic_ids']['collisions']}"
            seen.setdefault(label, content["code_counts"])
    if not seen:
        return None

    def draw(figure: Any) -> None:
        first: Any = None
        for number, (label, counts) in enumerate(seen.items()):
            axis = figure.add_subplot(1, len(seen), number + 1, sharey=first)
            first = first or axis
            for digit, column in enumerate(counts):
                axis.plot(np.sort(column)[::-1], lw=1.4, label=f"digit {digit}")
            axis.axhline(np.sum(counts[0]) / len(counts[0]), color=GREY, lw=1, ls=":")
            axis.set_title(label, fontsize=10)
            axis.set_xlabel("code, by use")
            if len(counts) <= 8:
                axis.legend(frameon=False, fontsize=8)
        first.set_ylabel("items")

    return plot((3.2 * len(seen), 3), draw)


def fill_order(results: list[Result]) -> str | None:
    """Share of users whose best item had digit j filled in step s."""
    shown = {content["run"]: content["fill_order"] for content, _ in results if "fill_order" in content}
    if not shown:
        return None

    def draw(figure: Any) -> None:
        columns = min(4, len(shown))
        for number, (run, shares) in enumerate(shown.items()):
            axis = figure.add_subplot(-(-len(shown) // columns), columns, number + 1)
            axis.imshow(shares, vmin=0, vmax=1, cmap="Blues", aspect="auto")
            if len(shares) <= 8:
                for row, column in np.ndindex(np.shape(shares)):
                    share = shares[row][column]
                    axis.text(
                        column, row, f"{share:.0%}", ha="center", va="center", fontsize=8, color="w" if share > 0.6 else INK
                    )
            axis.set(xticks=range(len(shares)), yticks=range(len(shares)), xlabel="step", ylabel="digit")
            axis.set_title(run, fontsize=10)

    return plot((2.6 * min(4, len(shown)), 2.5 * -(-len(shown) // 4)), draw)


def accuracy_by(column: str, rows: list[dict[str, Any]], results: list[Result], best: int = 6) -> str:
    """NDCG@10 of the best runs by bins of a column of the ranks, with the share of events in each bin."""
    label, edges = BINS[column]
    names = [row["run"] for row in sorted(rows, key=lambda row: -row["metrics"]["ndcg@10"])[:best]]
    limits = [*edges, np.inf]

    def draw(figure: Any) -> None:
        axis = figure.add_subplot()
        ticks: list[str] = []
        for number, name in enumerate(names):
            tables = [ranks for content, ranks in results if content["run"] == name]
            gain = np.mean([ndcg(_one_by_one(table["rank"].to_numpy()), 10) for table in tables], axis=0)
            value = tables[0][column].to_numpy()
            inside = [(value >= low) & (value < high) for low, high in pairwise(limits)]
            if not ticks:
                spans = pairwise(limits)
                ticks = [f"{_span(low, high)}\n{mask.mean():.0%}" for (low, high), mask in zip(spans, inside, strict=True)]
            heights = [gain[mask].mean() if mask.any() else 0 for mask in inside]
            place = np.arange(len(inside)) + (number - (len(names) - 1) / 2) * 0.8 / len(names)
            axis.bar(place, heights, 0.8 / len(names), label=name)
        axis.set_xticks(range(len(ticks)), ticks)
        axis.set_xlabel(f"{label}; below: share of test events")
        axis.set_ylabel("NDCG@10")
        axis.grid(axis="y", alpha=0.25)
        axis.legend(frameon=False, fontsize=8)

    return plot((8, 3.6), draw)


def _one_by_one(ranks: np.ndarray) -> Ragged:
    """The ranks of single events, each as a row of its own."""
    return Ragged(ranks, np.arange(len(ranks) + 1))


def _span(low: float, high: float) -> str:
    if high == np.inf:
        return f"{low:.0f}+"
    return f"{low:.0f}" if high == low + 1 else f"{low:.0f}-{high - 1:.0f}"
