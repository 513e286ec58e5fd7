"""Draw docs/results/*.svg, the figures of the results pages, from the committed JSON beside them.

Some or all of them: ``python docs/draw_results.py [NAME...]``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pictures import ACCENT, GREY, INK, SECOND, Axes, Figure, Pictures, draw_named, panels

FOLDER = Path(__file__).with_name("results")
DATA = {"beauty": "Beauty", "sports": "Sports", "office": "Office", "movielens": "MovieLens"}
METRIC = "ndcg@10"


def content(name: str) -> dict[str, Any]:
    """A file of results."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def rows(name: str) -> dict[str, dict[str, Any]]:
    """The runs of a suite, by name."""
    return {row["run"]: row for row in content(name)["rows"]}


# ---- how it is drawn ----------------------------------------------------------------------------------------------


def by_data(axis: Axes, files: str, run: str, label: str) -> None:
    """NDCG@10 of SASRec and of a run on each data set, with the standard deviation over seeds where there are some."""
    for side, (name, colour, told) in enumerate((("sasrec", GREY, "SASRec"), (run, ACCENT, label))):
        found = [rows(files.format(data))[name] for data in DATA]
        values = [row["metrics"][METRIC] for row in found]
        spread = [row["standard_deviation"][METRIC] if len(row["seeds"]) > 1 else np.nan for row in found]
        place = np.arange(len(found)) + 0.38 * (side - 0.5)
        axis.bar(place, values, 0.36, color=colour, label=told, yerr=spread, error_kw={"lw": 1, "ecolor": INK})
        for x, value in zip(place, values, strict=True):
            axis.text(x, value + 0.003, f"{value:.4f}"[1:], ha="center", fontsize=7)
    axis.set(xticks=range(len(DATA)), xticklabels=DATA.values(), title="NDCG@10, history filtered, all test users")
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    axis.legend(frameon=False, fontsize=8, loc="upper left")


def differences(axis: Axes, found: Sequence[dict[str, Any]], title: str) -> None:
    """How far runs are from the reference in NDCG@10, with paired 95% intervals; the best on top."""
    found = sorted(found, key=lambda row: row["difference"][METRIC]["mean"])
    for place, row in enumerate(found):
        difference = row["difference"][METRIC]
        colour = ACCENT if difference["low"] > 0 else SECOND if difference["high"] < 0 else GREY
        axis.plot([difference["low"], difference["high"]], [place, place], color=colour, lw=1.5)
        axis.plot(difference["mean"], place, "o", ms=4, color=colour)
    axis.axvline(0, color=GREY, lw=0.8, ls=":")
    axis.set(yticks=range(len(found)), yticklabels=[row["run"] for row in found], title=title)
    axis.tick_params(labelsize=8)


# ---- figures ------------------------------------------------------------------------------------------------------


def values_of(axis: Axes, found: list[dict[str, Any]], plain: list[bool], title: str) -> None:
    """A bar with its value for every row, from below; those that are ``plain`` in grey."""
    values = [row["metrics"][METRIC] for row in found]
    axis.barh(range(len(found)), values, 0.6, color=[GREY if grey else ACCENT for grey in plain])
    for y, value in enumerate(values):
        axis.text(value + 0.0006, y, f"{value:.4f}"[1:], va="center", fontsize=7)
    axis.set(yticks=range(len(found)), yticklabels=[row["run"] for row in found], title=title)
    axis.set_xticks([])
    axis.tick_params(labelsize=8)
    axis.spines["bottom"].set_visible(False)


def by_value(axis: Axes, found: Sequence[dict[str, Any]], title: str) -> None:
    """Rows as bars, the best on top, SASRec in grey."""
    ordered = sorted(found, key=lambda row: row["metrics"][METRIC])
    values_of(axis, ordered, [row["run"] == "sasrec" for row in ordered], title)


def quality() -> Figure:
    """The best recipe beside SASRec, and the ladder from digits to it."""
    figure, (left, right) = panels(4.9, 4.7, height=3.0)
    by_data(left, "quality/best-{}", "best", "best")
    ladder = list(rows("quality/ladder").values())
    ladder.reverse()  # the first row on top
    plain = [not row["run"].startswith("+") for row in ladder]
    values_of(right, ladder, plain, "the ladder: Beauty, four epochs, NDCG@10")
    return figure


def generation() -> Figure:
    """Generation alone beside SASRec."""
    figure, (left, right) = panels(4.6, 4.0, height=2.6)
    by_data(left, "generation/{}", "generative-best", "generation alone")
    found = [rows(f"generation/{data}")["generative-best"] | {"run": name} for data, name in DATA.items()]
    differences(right, found, "NDCG@10 over SASRec, 95% interval")
    return figure


def generation_curves() -> Figure:
    """Masked diffusion beside left to right, by passes over the events, on digits of texts and of an item scorer."""
    figure, (left, right) = panels(4.2, 4.2, height=2.8)
    passes, curves = rows("generation/passes"), content("generation/ladder-validation")["rows"]
    by_epoch = {"masked": "begun at the scorer", "left to right": "left to right"}
    for name, colour in (("masked", ACCENT), ("left to right", SECOND)):
        lengths = sorted(int(run.split(", ")[1]) for run in passes if run.startswith(name))
        values = [passes[f"{name}, {length}"]["metrics"][METRIC] for length in lengths]
        left.plot(lengths, values, "o-", ms=4, color=colour, label=name)
        found = curves[by_epoch[name]]["by epoch"]
        right.plot([int(epoch) for epoch in found], [value for value, _ in found.values()], "o-", ms=4, color=colour)
    left.set(
        xscale="log",
        xticks=lengths,
        title="4 digits of texts, Office, test",
        xlabel="passes, each a training of its own",
    )
    left.set_xticks([], minor=True)
    left.set_xticklabels(lengths)
    left.set_ylabel("NDCG@10")
    right.set(title="8 digits of the scorer, Beauty, validation", xlabel="epochs of one training")
    for axis in (left, right):
        axis.set_ylim(bottom=0)
        axis.tick_params(labelsize=8)
    left.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def family() -> Figure:
    """The methods of the family on office products and on Beauty, whichever files tell of them."""
    sets = {"office": "office products", "beauty": "Beauty"}
    found = {data: of_family(data) for data in sets}
    most = max(map(len, found.values()))
    figure, axes = panels(3.9, 3.9, height=0.7 + 0.27 * most)
    for axis, (data, told) in zip(axes, sets.items(), strict=True):
        by_value(axis, found[data], f"{told}: NDCG@10, filtered, by item")
        axis.set_ylim(len(found[data]) - most - 0.5, len(found[data]) - 0.5)  # bars as wide as beside
    return figure


def of_family(data: str) -> list[dict[str, Any]]:
    """Rows of the family on a data set, each from the file with most seeds, of which the last counts."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((FOLDER / "family").glob(f"{data}*.json")):
        for name, row in rows(f"family/{path.stem}").items():
            if name not in found or len(row["seeds"]) >= len(found[name]["seeds"]):
                found[name] = row
    return list(found.values())


def sets() -> Figure:
    """Methods on games and on films."""
    sets = {"steam": "Steam", "movielens-1m": "MovieLens-1M"}
    named = {
        data: [
            row | ({"run": data} if row["run"] == "recipe of the set" else {}) for row in content(f"sets/{data}")["rows"]
        ]
        for data in sets
    }
    figure, axes = panels(4.5, 4.5, height=0.7 + 0.27 * max(map(len, named.values())))
    for axis, (data, found) in zip(axes, named.items(), strict=True):
        by_value(axis, found, f"{sets[data]}: NDCG@10, filtered, by item")
    return figure


def comparison() -> Figure:
    """Methods beside SASRec, and controls beside DiffGRM."""
    figure, (left, right) = panels(4.6, 4.4, height=3.6)
    beauty, controls = rows("comparison/beauty"), rows("comparison/beauty-controls")
    differences(left, [row for name, row in beauty.items() if name != "sasrec"], "Beauty: NDCG@10 over SASRec")
    differences(right, [row for name, row in controls.items() if name != "diffgrm"], "controls: NDCG@10 over DiffGRM")
    return figure


def context() -> Figure:
    """What times and columns of users and events change, each alone, and times and users together."""
    figure, (axis,) = panels(5.2, height=2.2)
    found = [row for name in ("context", "context-ratings") for row in content(name)["rows"] if "difference" in row]
    differences(axis, found, "NDCG@10 over the same network without")
    return figure


def updates() -> Figure:
    """Going on beside fitting anew and beside staying as it was, slice by slice of Beauty's time."""
    figure, (left, right) = panels(4.2, 4.2, height=2.6)
    told = {"fitted anew": GREY, "going on": ACCENT, "fitted once": SECOND}
    panel = (left, "next_slice", "what comes next"), (right, "first_slice", "held out of the first slice")
    for axis, asked, title in panel:
        first = next(row for row in content("updates/beauty")["rows"] if row["slices"] == 1)
        for model, colour in told.items():
            found = [row for row in content("updates/beauty")["rows"] if row["model"] == model and row["slices"] > 1]
            points = [(row["slices"], row[asked][METRIC]) for row in [first, *found]]
            axis.plot(*zip(*points, strict=True), "o-", ms=4, color=colour, label=model)
        axis.set(title=f"{title}: NDCG@10", xticks=[1, 2, 3], xlabel="quarters of all events that are known")
        axis.set_ylim(bottom=0)
        axis.tick_params(labelsize=8)
    right.legend(frameon=False, fontsize=8, loc="lower left")
    return figure


def temporal() -> Figure:
    """Methods after a cut in time of Beauty and of MovieLens-1M."""
    both = {"Beauty": "temporal/beauty", "MovieLens-1M": "temporal/movielens-1m"}
    found = {name: list(rows(file).values()) for name, file in both.items()}
    figure, axes = panels(4.5, 4.5, height=0.7 + 0.27 * max(map(len, found.values())))
    for axis, (name, methods) in zip(axes, found.items(), strict=True):
        by_value(axis, methods, f"{name}, last events: NDCG@10, filtered")
    return figure


def scale() -> Figure:
    """Seconds of every stage from ten to a hundred thousand items, and from a million to ten million events."""
    figure, (left, right) = panels(4.6, 4.4, height=3.4)
    for axis, name, size in ((left, "scale/catalogue", "items"), (right, "scale/events", "events")):
        stages: dict[str, list[tuple[float, float]]] = {}
        for case in content(name)["cases"]:
            if size not in case:  # how fast a stage grows
                continue
            stages.setdefault(case["stage"], []).append((case[size], case["seconds"]))
        stages = {stage: sorted(points) for stage, points in stages.items() if len(points) > 1}
        labels = spread_out({stage: np.log10(points[-1][1]) for stage, points in stages.items()})
        for stage, points in stages.items():
            growth = np.log(points[-1][1] / points[0][1]) / np.log(points[-1][0] / points[0][0])
            axis.loglog(*zip(*points, strict=True), "o-", ms=3, lw=1, color=SECOND if growth > 1.1 else ACCENT)
            axis.text(points[-1][0] * 1.15, 10 ** labels[stage], stage, fontsize=7, va="center")
        low, high = min(p[0][0] for p in stages.values()), max(p[-1][0] for p in stages.values())
        axis.set(xlabel=size, xlim=(low * 0.8, high * 7), title=f"seconds by {size} (orange: faster than the data)")
        axis.set_ylim(top=10 ** (max(labels.values()) + 0.2))
        axis.set_xticks([low, high], [f"{low:,}", f"{high:,}"])
        axis.minorticks_off()
    return figure


def spread_out(wanted: dict[str, float], apart: float = 0.24) -> dict[str, float]:
    """Places near the wanted ones, far enough from one another that labels do not meet."""
    ordered = sorted(wanted, key=lambda name: wanted[name])
    places = np.array([wanted[name] for name in ordered])
    for _ in range(200):
        gaps = np.maximum(apart - np.diff(places), 0) / 2
        places[1:] += gaps
        places[:-1] -= gaps
    return dict(zip(ordered, places.tolist(), strict=True))


PICTURES: Pictures = {
    "quality": quality,
    "generation": generation,
    "generation-curves": generation_curves,
    "family": family,
    "sets": sets,
    "comparison": comparison,
    "context": context,
    "updates": updates,
    "temporal": temporal,
    "scale": scale,
}

if __name__ == "__main__":
    draw_named(PICTURES, FOLDER, "docs/results")
