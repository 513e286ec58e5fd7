"""What the pictures of methods are drawn with: small recommenders of the toy storefront, and cells for digits.

Recipes are the shipped ones, made small. On one machine the same pictures come out again, byte for byte.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import matplotlib
import numpy as np
import torch
from pictures import GREY, INK, SECOND, Axes, plt
from torch import Tensor

from diffgrm import Recipe, leave_one_out, toy_world
from diffgrm.data.dataset import Split
from diffgrm.foundation.presets import preset_names
from diffgrm.foundation.registry import resolve
from diffgrm.learning.context import LearningContext
from diffgrm.learning.noising.base import NoisingContext, Views

HISTORY = ["item 121", "item 133", "item 145"]  # a camera, a lens and a memory card of one brand
SMALL = (
    "tokenizer.codebook_size=16",
    "tokenizer.iterations=5",
    "model.width=32",
    "model.heads=2",
    "model.feed_forward=64",
    "model.max_len=10",
    "model.dropout=0.1",
    "training.batch_size=64",
    "training.epochs=10",
    "training.learning_rate=0.01",
    "training.warmup_steps=20",
    "training.validate_every=10",
)
DIGITS = (*SMALL, "embedding.width=32", "training.validation_users=20", "training.patience=10")


# ---- what is drawn ------------------------------------------------------------------------------------------------


@lru_cache
def split() -> Split:
    """The toy storefront, cut as usual."""
    return leave_one_out(toy_world(users=300).dataset)


def fitted(recipe: str, *changes: str) -> Any:
    """A recommender of a shipped recipe, or of the defaults of a recommender, small and fitted on the storefront."""
    return fit(Recipe.preset(recipe, changes) if recipe in preset_names() else Recipe(recommender=recipe).override(changes))


def fit(recipe: Recipe) -> Any:
    """A recommender, fitted on the storefront."""
    return resolve("recommender", recipe.recommender)(recipe).fit(split().dataset, progress=False)


def asked(model: Any) -> tuple[Any, Any, Tensor]:
    """A model's ranker, its memory of the history, and the digits [1, n] of the item that it recommends."""
    ranker = model.ranker()
    _, history = model.read_histories([HISTORY])
    _, memory = next(ranker.encoded(history, 1))
    best = model.recommend([HISTORY], k=1)["item_id"]
    return ranker, memory, ranker.catalogue.codes_of(torch.from_numpy(model.items.positions(best)))


def scores(model: Any, *changes: str) -> np.ndarray:
    """[I] what a model says of every item after the history, by position."""
    found = model.variant(changes).recommend([HISTORY], k=len(model.items), exclude_seen=False)
    every = np.full(len(model.items), np.nan)
    every[model.items.positions(found["item_id"])] = found["score"].to_numpy()
    return every


def drawn_views(noising: Any, codes: Tensor, history: Tensor | None = None, progress: float = 0.0) -> Views:
    """Views of one target [1, n] by a schedule that does not ask the network; history [1, S, n]."""

    def nobody(codes: Tensor, mask: Tensor) -> Tensor:
        raise AssertionError("this schedule asks the network")

    def past() -> tuple[Tensor, Tensor]:
        assert history is not None
        return history, torch.ones(history.shape[:2], dtype=torch.bool)

    learning = LearningContext(step=round(100 * progress), steps=100, epoch=0, epochs=1)
    return noising.views(codes, NoisingContext(nobody, torch.Generator().manual_seed(0), learning, past))


# ---- how it is drawn ----------------------------------------------------------------------------------------------


def cells(axis: Axes, shade: Any, texts: Any = None, left: float = 0.0, top: float = 0.0) -> None:
    """A grid of cells: shade [R, C] from 0 (pale) to 1 (blue), texts in them; None leaves a cell out."""
    for row, line in enumerate(shade):
        for column, value in enumerate(line):
            if value is None:
                continue
            colour = matplotlib.colormaps["Blues"](0.05 + 0.75 * float(value))
            axis.add_patch(
                plt.Rectangle((left + column, top + row), 0.92, 0.88, facecolor=colour, linewidth=0, clip_on=False)
            )
            if texts is not None and texts[row][column] is not None:
                ink = "white" if value > 0.6 else INK
                place = left + column + 0.46, top + row + 0.46
                axis.text(*place, str(texts[row][column]), ha="center", va="center", fontsize=7, color=ink)


def grid(axis: Axes, title: str, columns: float, rows: float, x: str = "", y: str = "") -> None:
    """An axis for cells: no frame, rows from the top."""
    axis.set(title=title, xlim=(-0.1, columns), ylim=(rows, -0.1), xlabel=x, ylabel=y)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)


def masks(axis: Axes, mask: Any, title: str, y: str = "") -> None:
    """Hidden digits, a view a row."""
    cells(axis, np.asarray(mask, dtype=float))
    grid(axis, title, mask.shape[1], mask.shape[0], "digit (blue: hidden)", y)


def beams(axis: Axes, model: Any, show: int = 4) -> None:
    """The best partial semantic IDs after every step of the search."""
    table, n = model.beams(HISTORY, k=10, show=show), model.semantic_ids.n_digits
    steps = table["step"].max()
    for step in range(1, steps + 1):
        rows = [row["digits"] for row in table.filter(table["step"] == step).iter_rows(named=True)]
        known = [[float(code is not None) * 0.5 for code in row] for row in rows]
        cells(axis, known, rows, left=(step - 1) * (n + 0.8))
        axis.text((step - 1) * (n + 0.8) + n / 2, show + 0.35, f"step {step}", ha="center", fontsize=8)
    grid(axis, f"the {show} best partial semantic IDs after each step (numbers: codes)", steps * (n + 0.8), show + 0.6)


def steps_of(model: Any, k: int = 3) -> np.ndarray:
    """[k, n] the step, from 1, in which each digit of the k best items was filled."""
    table = model.explain(HISTORY, k=k)
    found = np.zeros((k, model.semantic_ids.n_digits), dtype=int)
    found[table["rank"].to_numpy() - 1, table["digit"].to_numpy()] = table["step"].to_numpy()
    return found


def fill_steps(axis: Axes, model: Any, title: str) -> None:
    """In which step each digit of the best items is filled."""
    steps = steps_of(model)
    cells(axis, 1 - (steps - 1) / steps.max(), steps)
    grid(axis, title, steps.shape[1], len(steps), "digit (number: step in which it is filled)", "item of the list")


def by_sum(axis: Axes, x: np.ndarray, y: np.ndarray, total: np.ndarray, labels: tuple[str, str], title: str) -> None:
    """Items by two scores, the ten best by their sum marked."""
    best = np.argsort(-total, kind="stable")[:10]
    axis.scatter(x, y, s=5, color=GREY, linewidths=0, rasterized=True)
    axis.scatter(x[best], y[best], s=16, color=SECOND, linewidths=0)
    axis.set(xlabel=labels[0], ylabel=labels[1], title=title)
