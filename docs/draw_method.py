"""Draw docs/method/*.svg, the pictures of docs/method.md, with the library's own code on the toy storefront.

Some or all of them: ``python docs/draw_method.py [pse] [ocn] [cpd]``.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from drawing import DIGITS, HISTORY, asked, cells, drawn_views, fitted, grid, masks, split
from pictures import GREY, INK, SECOND, Axes, Figure, Pictures, draw_named, panels, plt
from torch import Tensor

from diffgrm import Recipe
from diffgrm.foundation.registry import resolve
from diffgrm.learning.context import LearningContext
from diffgrm.learning.noising.base import NoisingContext, Views
from diffgrm.learning.noising.confidence import confidence
from diffgrm.semantic_ids.semantic_ids import SemanticIds
from diffgrm.semantic_ids.tokenizers.context import TokenizerContext

FOLDER = Path(__file__).with_name("method")
SHOWN = 40  # numbers of a vector


@lru_cache
def model() -> Any:
    """The paper's method, small and fitted on the storefront until it has learnt something."""
    return fitted("diffgrm", *DIGITS, "training.epochs=40", "training.validate_every=20")


# ---- PSE ----------------------------------------------------------------------------------------------------------


@lru_cache
def encoded() -> tuple[np.ndarray, SemanticIds, SemanticIds]:
    """Of every item of the storefront: its text vector, its digits before and after collisions are repaired."""
    table, seen = split().dataset.item_table, split().item_counts > 0
    vectors = Recipe(embedding={"name": "lsa", "width": 64}).embedding.build(seed=0).fit(table.filter(seen)).encode(table)
    tokenizer = resolve("tokenizer", "opq")(n_digits=4, codebook_size=16, seed=0)
    tokenizer.fit(TokenizerContext(vectors, seen))
    before, _ = SemanticIds.build(tokenizer, vectors, "share")
    after, _ = SemanticIds.build(tokenizer, vectors, "reassign")
    return vectors, before, after


def chosen() -> list[int]:
    """Items to show: a product in its three colours, of which two collide; another one of the brand; two of elsewhere."""
    _, before, after = encoded()
    table = split().dataset.item_table
    brand, department = (np.array(table[name].to_list()) for name in ("brand", "department"))
    moved = (before.codes != after.codes).any(1)
    for first in range(0, len(before), 3):
        product = np.arange(first, first + 3)
        still = np.flatnonzero(~moved & ~np.isin(np.arange(len(moved)), product))
        sibling, other = still[brand[still] == brand[first]], still[department[still] != department[first]]
        two_collide = len(np.unique(before.codes[product], axis=0)) == 2
        if two_collide and moved[product].sum() == 1 and len(sibling):
            return [*product.tolist(), int(sibling[0]), int(other[0]), int(other[-1])]
    raise AssertionError("no product of which exactly one colour moves")


def pse() -> Figure:
    """Texts, their vectors, the digits of product quantisation, and the semantic IDs after repair."""
    vectors, before, after = encoded()
    rows = chosen()
    titles = split().dataset.item_table["title"].gather(rows).to_list()
    figure, (text, vector, digits, own) = panels(2.0, 3.4, 1.55, 1.55, height=2.5)
    for row, title in enumerate(titles):
        text.text(2, row + 0.46, title, ha="right", va="center", fontsize=8)
    grid(text, "text", 2, len(rows))
    text.set_xlim(0, 2)
    shown = vectors[rows][:, :SHOWN]
    largest = np.abs(shown).max()
    for row, numbers in enumerate(shown):
        vector.imshow(numbers[None], extent=(0, SHOWN, row + 0.88, row), cmap="RdBu_r", vmin=-largest, vmax=largest)
    grid(vector, f"vector (its first {SHOWN} of {vectors.shape[1]} numbers)", SHOWN, len(rows))
    vector.set_aspect("auto")
    for axis, ids, title in ((digits, before, "digits (OPQ)"), (own, after, "its own semantic ID")):
        codes, moved = ids.codes[rows], ids.codes[rows] != before.codes[rows]
        shade = [[None if change else 0.3 for change in line] for line in moved]
        cells(axis, shade, codes.tolist())
        for row, digit in np.argwhere(moved):
            box(axis, digit, row, str(codes[row, digit]), SECOND)
        grid(axis, title, ids.n_digits, len(rows))
    digits.set_xlabel("4 digits of 16 codes each", fontsize=8)
    own.set_xlabel("orange: moved to a free one", fontsize=8)
    return figure


def box(axis: Axes, column: float, row: float, text: str, colour: str) -> None:
    """One cell of a colour of its own."""
    axis.add_patch(plt.Rectangle((column, row), 0.92, 0.88, facecolor=colour, linewidth=0, clip_on=False))
    axis.text(column + 0.46, row + 0.46, text, ha="center", va="center", fontsize=7, color="white")


# ---- OCN ----------------------------------------------------------------------------------------------------------


def noised(recommender: Any) -> tuple[list[float], Views]:
    """How sure a network is of each digit of a target of which nothing is known, and the views that follow from it."""
    ranker, memory, codes = asked(recommender)

    def probe(codes: Tensor, mask: Tensor) -> Tensor:
        with torch.no_grad():
            return ranker.network.eval().denoise(codes, mask, memory)

    hidden = torch.ones_like(codes, dtype=torch.bool)[:, None]
    sure = confidence(probe(codes[:, None], hidden)[0, 0], "msp").tolist()
    context = NoisingContext(probe, torch.Generator(), LearningContext.start(), lambda: (codes[:, None], codes[:, :1] >= 0))
    return sure, resolve("noising", "confidence")().views(codes, context)


def ocn(recommender: Any = None) -> Figure:
    """The network's confidence in each digit, the nested views that it makes, and masks drawn at random beside them."""
    sure, views = noised(recommender or model())
    n = len(sure)
    random = drawn_views(Recipe(noising={"name": "random", "views": n}).noising.build(seed=0), torch.zeros(1, n).long())
    figure, (bars, nested, drawn) = panels(2.9, 2.3, 2.3, height=2.5)
    place = np.arange(n)
    bars.bar(place, sure, 0.6, color=matplotlib.colormaps["Blues"](0.75))
    for digit, p in enumerate(sure):
        bars.text(digit, p + 0.02, f"{p:.2f}", ha="center", fontsize=8)
    bars.set(xticks=place, xlabel="digit", ylim=(0, max(sure) + 0.15), title="1. all hidden: how sure is the network?")
    bars.set_yticks([])
    masks(nested, views.mask[0].numpy(), "2. views: the least sure hidden most", "view")
    masks(drawn, random.mask[0].numpy(), "beside it: masks at random", "view")
    for axis in (nested, drawn):
        axis.set_xlabel("digit 0 to " + str(n - 1) + " (blue: hidden, to be told)", fontsize=8)
    return figure


# ---- CPD ----------------------------------------------------------------------------------------------------------


def cpd(recommender: Any = None, show: int = 4) -> Figure:
    """The best partial semantic IDs after each step, what the catalogue still allows, and the items at the end."""
    recommender = recommender or model()
    ranker, _, _ = asked(recommender)
    n, size = recommender.semantic_ids.n_digits, recommender.semantic_ids.codebook_size
    table = recommender.beams(HISTORY, k=10, show=show)
    figure, (steps, items) = panels(1.45 * n, 2.2, height=2.5)
    width = n + 0.9
    for step in range(1, table["step"].max() + 1):
        rows = [row["digits"] for row in table.filter(table["step"] == step).iter_rows(named=True)]
        left = (step - 1) * width
        cells(steps, [[0.75 if code is not None else 0.0 for code in row] for row in rows], rows, left=left)
        steps.text(left + n / 2, -0.3, f"step {step}", ha="center", fontsize=8)
        may = allowed(ranker, rows[0])
        told = f"best: {may} of {(n - step) * size} codes\nlead to an item" if step < n else "every one is an item"
        steps.text(left + n / 2, show + 0.25, told, ha="center", va="top", fontsize=7, color=GREY)
    grid(steps, "the best partial semantic IDs (pale: not known yet)", n * width, show + 1.2)
    steps.set_ylim(show + 1.2, -0.8)
    found = recommender.recommend([HISTORY], k=show)["item_id"]
    titles = recommender.item_table["title"].gather(recommender.items.positions(found).tolist()).to_list()
    for row, title in enumerate(titles):
        items.text(0, row + 0.46, f"{row + 1}. {title}", va="center", fontsize=8, color=INK)
    grid(items, "the list", 1, show + 1.2)
    items.set_ylim(show + 1.2, -0.8)
    return figure


def allowed(ranker: Any, digits: list[int | None]) -> int:
    """How many codes of the unknown digits of a partial semantic ID still lead to an item."""
    known = torch.tensor([digit is not None for digit in digits])
    codes = torch.tensor([digit or 0 for digit in digits])
    return int(ranker.catalogue.allowed(codes[None, None], known[None, None]).sum())


PICTURES: Pictures = {"pse": pse, "ocn": ocn, "cpd": cpd}

if __name__ == "__main__":
    torch.set_num_threads(1)
    draw_named(PICTURES, FOLDER, "docs/method.md")
