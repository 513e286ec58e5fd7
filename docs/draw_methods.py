"""Draw docs/methods/*.svg, the pictures of docs/methods.md, with the library's own code on the toy storefront.

Some or all of them: ``python docs/draw_methods.py [NAME...]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from drawing import (
    DIGITS,
    HISTORY,
    SMALL,
    asked,
    beams,
    by_sum,
    cells,
    drawn_views,
    fill_steps,
    fit,
    fitted,
    grid,
    masks,
    scores,
    split,
    steps_of,
)
from drawn_vectors import aligned_ids, diffugr, diqdiff, ensemble, h2rec, sid_sasrec, tokenizers
from pictures import ACCENT, GREY, INK, SECOND, Axes, Figure, Pictures, draw_named, panels
from torch import Tensor

from diffgrm import Recipe
from diffgrm.foundation.registry import resolve
from diffgrm.learning.context import LearningContext
from diffgrm.learning.noising.base import NoisingContext
from diffgrm.learning.noising.confidence import confidence
from diffgrm.learning.noising.sequence import hide
from diffgrm.networks.item_posterior import Steered, log_marginals
from diffgrm.ranking.decoding.base import Task
from diffgrm.ranking.decoding.beams import Beams
from diffgrm.ranking.decoding.group_sizes import digits_per_step, divergence, planned_sizes
from diffgrm.ranking.decoding.item_posterior import ItemPosterior
from diffgrm.ranking.decoding.learnt_item_posterior import LearntItemPosterior
from diffgrm.ranking.digit_sums import sum_of_digits

FOLDER = Path(__file__).with_name("methods")


def diffgrm() -> Figure:
    """Nested views by confidence, the search in any order, and which digit comes when."""
    model = fitted("diffgrm", *DIGITS)
    ranker, memory, codes = asked(model)

    def probe(codes: Tensor, mask: Tensor) -> Tensor:
        with torch.no_grad():
            return ranker.network.eval().denoise(codes, mask, memory)

    context = NoisingContext(probe, torch.Generator(), LearningContext.start(), lambda: (codes[:, None], codes[:, :1] >= 0))
    views = model.recipe.noising.build(seed=0).views(codes, context)
    hidden = torch.ones_like(codes, dtype=torch.bool)[:, None]
    sure = confidence(probe(codes[:, None], hidden)[0, 0], "msp").tolist()
    figure, (first, second, third) = panels(1.9, 5.2, 2.0)
    masks(first, views.mask[0].numpy(), "views of a target", "view")
    for digit, p in enumerate(sure):
        first.text(digit + 0.46, -0.1, f"p={p:.2f}", ha="center", va="bottom", fontsize=7)
    first.set_ylim(len(sure), -0.45)
    beams(second, model)
    evaluation = split().validation.sample(100, 0)
    shares = model.fill_order(evaluation.histories)
    cells(third, shares, [[f"{share:.0%}" for share in row] for row in shares])
    grid(third, "best item: filled when", len(shares), len(shares), "step", "digit")
    return figure


def generative_best() -> Figure:
    """One answer to a question with all digits hidden; its sums beside the item scorer's scores."""
    scorer = f"embedding.changes=[{', '.join(c for c in DIGITS if not c.startswith('tokenizer'))}, item_loss.negatives=256]"
    small = [change for change in SMALL if change != "model.dropout=0.1"]
    model = fitted("generative-best", scorer, *small, "tokenizer.n_digits=8", "item_loss.negatives=256")
    ranker, memory, codes = asked(model)
    hidden = torch.ones_like(codes, dtype=torch.bool)[:, None]
    with torch.no_grad():
        log_p = ranker.network.eval().denoise(codes[:, None], hidden, memory)[:, 0].log_softmax(-1)
    everything = ranker.catalogue.codes_of(torch.arange(len(model.items)))
    summed = sum_of_digits(log_p, everything)[0].numpy()
    of_scorer = scores(model.encoder.scorer)
    figure, (first, second) = panels(5.0, 3.6)
    chosen = [[code if code == own else None for code in range(log_p.shape[2])] for own in codes[0].tolist()]
    cells(first, log_p[0].exp().numpy() ** 0.5, chosen)
    title = "one answer: probability of each code (numbers: the best item's)"
    grid(first, title, log_p.shape[2], log_p.shape[1], "code", "digit")
    labels = "score of the item scorer", "sum of log p over digits"
    by_sum(second, of_scorer, summed, summed, labels, "all items; orange: the best ten")
    return figure


def left_to_right() -> Figure:
    """What each digit is told from, the digits of the best items, and what the catalogue leaves."""
    model = fitted("autoregressive", *DIGITS)
    ranker, memory, codes = asked(model)
    n, network = codes.shape[1], ranker.network.eval()
    with torch.no_grad():
        plain = network.predict(codes[None], memory)[0, 0]
        told = np.zeros((n, n))
        for digit in range(n):
            other = codes.clone()
            other[0, digit] = (other[0, digit] + 1) % plain.shape[1]
            told[:, digit] = (network.predict(other[None], memory)[0, 0] != plain).any(-1).numpy()
        found = model.recommend([HISTORY], k=4)["item_id"]
        best = ranker.catalogue.codes_of(torch.from_numpy(model.items.positions(found)))
        p = network.predict(best[None], memory)[0].softmax(-1).gather(2, best[..., None])[..., 0]
    left = [
        [
            int(ranker.catalogue.allowed(row[None, None], (torch.arange(n) < digit)[None, None])[0, 0, digit].sum())
            for digit in range(n)
        ]
        for row in best
    ]
    figure, (first, second, third) = panels(2.6, 3.0, 3.0)
    cells(first, told)
    grid(first, "blue: is told from", n, n, "digit before", "digit")
    cells(second, p.numpy(), [[f"{code}" for code in row] for row in best.tolist()])
    grid(second, "the list (shade: p of the code)", n, len(best), "digit", "item of the list")
    cells(third, np.array(left) / plain.shape[1], left)
    grid(third, "codes that still lead to an item", n, len(best), "digit")
    return figure


def rpg() -> Figure:
    """The walk along the graph of similar items, a round a panel."""
    model = fitted("rpg", *DIGITS, "tokenizer.n_digits=8", "tokenizer.pca_width=32", "decoding.beam=10")
    ranker = model.ranker()
    everything = ranker.catalogue.codes_of(torch.arange(len(model.items)))
    tables = ranker.network.code_tables().detach()
    vectors = torch.nn.functional.normalize(tables, dim=-1)[torch.arange(tables.shape[0]), everything].mean(1)
    vectors = (vectors - vectors.mean(0)).numpy()
    plane = vectors @ np.linalg.svd(vectors, full_matrices=False)[2][:2].T
    exact = model.variant(["decoding.edges=null"]).recommend([HISTORY], k=10)
    figure, axes = panels(2.5, 2.5, 2.5, height=2.5)
    for rounds, axis in enumerate(axes, start=1):
        kept = model.variant([f"decoding.rounds={rounds}", "decoding.edges=20"]).recommend([HISTORY], k=10)
        axis.scatter(*plane.T, s=5, color=GREY, linewidths=0, rasterized=True)
        best = plane[model.items.positions(exact["item_id"])]
        axis.scatter(*best.T, s=40, facecolors="none", edgecolors=SECOND, linewidths=1)
        axis.scatter(*plane[model.items.positions(kept["item_id"])].T, s=14, color=ACCENT, linewidths=0)
        same = len(set(kept["item_id"]) & set(exact["item_id"]))
        axis.set(title=f"after round {rounds}: {same} of the 10 best", xticks=[], yticks=[])
    axes[0].set_xlabel("items by their code vectors, in a plane")
    axes[1].set_xlabel("blue: kept")
    axes[2].set_xlabel("ringed: best of all items scored")
    return figure


def mdgr() -> Figure:
    """Views at the start, half-way and at the end of the ramp, and the steps of a search that warms up."""
    model = fitted("mdgr", *DIGITS, "tokenizer.pca_width=32", "model.encoder_layers=1", "decoding.beam=16")
    ranker, _, codes = asked(model)
    best = int(model.items.positions(model.recommend([HISTORY], k=1)["item_id"])[0])
    alike = [3 * (best // 3) + colour for colour in range(3) if colour != best % 3]  # the same product in other colours
    history = ranker.catalogue.codes_of(torch.tensor([*model.items.positions(HISTORY).tolist(), *alike]))[None]
    noising = resolve("noising", "curriculum")(views=6)
    figure, axes = panels(2.0, 2.0, 2.0, 3.0)
    for axis, progress in zip(axes, (0.0, 0.125, 0.25), strict=False):
        mask = drawn_views(noising, codes, history, progress).mask[0].numpy()
        masks(axis, mask, f"{progress:.0%} of training", "view" if not progress else "")
        for digit, times in enumerate((history[0] == codes).sum(0).tolist()):
            axis.text(digit + 0.46, -0.1, times, ha="center", va="bottom", fontsize=7)
        axis.set_ylim(len(mask), -0.75)
    axes[1].set_xlabel("on top: items with the code")
    axes[2].set_xlabel("")
    fill_steps(axes[3], model, "steps of 1, 1, then 2 digits")
    return figure


def sprint() -> Figure:
    """Mostly all digits are hidden; items by what their digits and their whole semantic IDs say."""
    small = [c for c in DIGITS if "iterations" not in c]
    model = fitted("sprint", *small, "tokenizer.pca_width=32", "model.decoder_layers=2", "item_loss.negatives=100")
    _, _, codes = asked(model)
    noising = model.recipe.noising
    mask = drawn_views(noising.build(seed=0), codes.expand(12, -1)).mask[:, 0].numpy()
    total = scores(model)
    digits = model.recipe.decoding.options["weight"] * scores(model, "decoding.name=one_pass")
    figure, (first, second) = panels(2.2, 4.2, height=2.6)
    masks(first, mask, "12 targets, one view each", "target")
    items = total - digits
    labels = "0.3 times the sum of log p", "cosine over 0.1 (highest: 0)"
    by_sum(second, digits, items - items.max(), total, labels, "all items; orange: the best ten by the sum")
    return figure


def streams(axis: Axes, mask: np.ndarray, title: str, names: Sequence[str]) -> None:
    """Sequences of items [R, T, n], the last item the target."""
    rows, length, n = mask.shape
    for item in range(length):
        cells(axis, mask[:, item].astype(float), left=item * (n + 0.6))
        label = "target" if item == length - 1 else f"item {item + 1}"
        axis.text(item * (n + 0.6) + n / 2, rows + 0.4, label, ha="center", fontsize=8)
    for row, name in enumerate(names):
        axis.text(-0.4, row + 0.46, name, ha="right", va="center", fontsize=8)
    grid(axis, title, length * (n + 0.6), rows + 0.6)
    axis.set_xlim(-3.5, length * (n + 0.6))


def maskgr() -> Figure:
    """One rate a sequence, and the search."""
    hidden = hide("uniform_t", (4, 5), 4, torch.Generator().manual_seed(4))
    figure, (first, second) = panels(4.6, 5.2)
    names = [f"t = {rate:.2f}" for rate in hidden.rate[:, 0].tolist()]
    streams(first, hidden.mask.numpy(), "four sequences, all digits hidden alike (blue: hidden)", names)
    beams(second, fitted("maskgr", *DIGITS, "model.layers=1"))
    return figure


def llada_rec() -> Figure:
    """First the target after a clean history, then the sequence."""
    noising, codes = Recipe.preset("llada-rec").noising.build(seed=0), torch.zeros(4, 4, dtype=torch.long)
    target = drawn_views(noising, codes).mask[:, 0].numpy()
    clean = np.zeros((4, 5, 4), dtype=bool)
    clean[:, -1] = target
    second_pass = hide("k_of_n", (4, 5), 4, torch.Generator().manual_seed(0))
    figure, axes = panels(4.6, 4.6)
    streams(axes[0], clean, "first pass: k of 4 digits of the target", [f"k = {k}" for k in target.sum(1)])
    streams(axes[1], second_pass.mask.numpy(), "second pass: k of each item, drawn anew", [""] * 4)
    return figure


def codes_of_digit(axis: Axes, digit: int, shown: Sequence[tuple[Tensor, str, str]]) -> None:
    """What three say of the codes [K] of a digit: probabilities, colour and name of each."""
    place = np.arange(len(shown[0][0]))
    for number, (p, colour, label) in enumerate(shown):
        axis.bar(place + 0.27 * (number - 1), p.numpy(), 0.27, color=colour, label=label)
    axis.set(title=f"digit {digit}", xticks=place[::5], xlabel="code")


class Noted(ItemPosterior):
    """Remembers the questions of a search, and the marginals of their answers."""

    def log_marginals(self, task: Task, beams: Beams, log_p: Tensor) -> Tensor:
        """See :meth:`ItemPosterior.log_marginals`."""
        found = super().log_marginals(task, beams, log_p)
        self.notes = [*getattr(self, "notes", []), (beams, log_p, found)]
        return found


def item_posterior() -> Figure:
    """What network, items and both together say of the open digits of a partial semantic ID."""
    model = fitted("hybrid", *DIGITS, "tokenizer.pca_width=32", "item_loss.negatives=100", "decoding.name=item_posterior")
    _, history = model.read_histories([HISTORY])
    noted = Noted(beam=8)
    next(replace(model.ranker(), decoder=noted).decode(history, 5, exclude_seen=True))
    partial, log_p, marginal = noted.notes[1]  # one digit is known
    both = log_p + noted.gate * (marginal - log_p).clamp(-noted.clip, noted.clip)
    known, code = partial.known[0, 0].tolist(), partial.codes[0, 0].tolist()
    open_ = [digit for digit, told in enumerate(known) if not told]
    figure, axes = panels(*[2.9] * len(open_), height=2.2)
    for digit, axis in zip(open_, axes, strict=True):
        shown = (
            (log_p.exp(), GREY, "network"),
            (marginal.exp(), SECOND, "items that fit"),
            (both.softmax(-1), ACCENT, "both"),
        )
        codes_of_digit(axis, digit, [(p[0, 0, digit], colour, label) for p, colour, label in shown])
    axes[0].set_ylabel("probability")
    axes[1].set_title(f"digit {open_[1]}, of a semantic ID whose digit {known.index(True)} is {code[known.index(True)]}")
    axes[-1].legend(frameon=False, fontsize=7)
    return figure


class Steering(LearntItemPosterior):
    """Remembers the questions of a search, and their answers."""

    def _steered(self, task: Task, beams: Beams) -> Steered:
        self.notes = [*getattr(self, "notes", []), (beams, told := super()._steered(task, beams))]
        return told


def epic() -> Figure:
    """What a frozen network, the learnt posterior and both say of a partial semantic ID, and the items behind it."""
    first = Recipe(recommender="diffgrm").override((*DIGITS, "training.epochs=4", "training.validate_every=4"))
    backbone = {section: settings for section, settings in first.to_dict().items() if section not in ("data", "events")}
    training = {"batch_size": 64, "epochs": 10, "validate_every": 10, "learning_rate": 0.01, "warmup_steps": 20}
    model = fit(Recipe(recommender="epic", model={"backbone": backbone, "width": 32}, training=training))
    noted, (ranker, memory, _) = Steering(beam=8), asked(model)
    next(replace(ranker, decoder=noted).decode(model.read_histories([HISTORY])[1], 5, exclude_seen=True))
    partial, told = noted.notes[1]  # one digit is known
    with torch.no_grad():
        frozen = model.network.denoise(partial.codes, ~partial.known, memory)[0, 0].log_softmax(-1)
    found, here, both = told.candidates, told.candidates.row == 0, told.logits[0, 0].softmax(-1)
    marginal = log_marginals(told.log_share, found, len(frozen[0]))[0].exp()
    known, code = partial.known[0, 0].tolist(), partial.codes[0, 0].tolist()
    open_, given = [digit for digit, is_known in enumerate(known) if not is_known], known.index(True)
    figure, axes = panels(2.9, 2.9, 3.2, height=2.2)
    for digit, axis in zip(open_[:2], axes[:2], strict=True):
        shown = (frozen[digit].exp(), GREY, "frozen network"), (marginal[digit], SECOND, "learnt posterior")
        codes_of_digit(axis, digit, (*shown, (both[digit], ACCENT, "both")))
    axes[0].set(ylabel="probability", title=f"digit {open_[0]}, where digit {given} is {code[given]}")
    axes[1].legend(frameon=False, fontsize=7)
    by_digits = frozen.masked_fill(partial.known[0, 0, :, None], 0)
    by_digits = by_digits[torch.arange(len(frozen)), found.codes[found.place[here]]].sum(1).softmax(0)
    share = told.log_share[here].exp()
    best = share.argsort(descending=True)[:8]
    for number, (p, colour, label) in enumerate(((by_digits, GREY, "by their digits"), (share, SECOND, "posterior"))):
        axes[2].bar(np.arange(len(best)) + 0.4 * (number - 0.5), p[best].numpy(), 0.4, color=colour, label=label)
    names = [name.removeprefix("item ") for name in model.items.ids(found.item[here][best].numpy())]
    axes[2].set_xticks(np.arange(len(best)), names, fontsize=7)
    axes[2].set(title=f"the best of {int(found.fitting[0])} items that fit", xlabel="item")
    axes[2].legend(frameon=False, fontsize=7)
    return figure


def fewer_steps() -> Figure:
    """Groups of digits that hardly depend on each other, and sizes planned by how hard digits are."""
    small = (*DIGITS, "tokenizer.n_digits=16", "tokenizer.pca_width=32", "noising.name=random", "noising.views=4")
    model = fitted("diffgrm", *small)
    punt = model.variant(["decoding.name=independent_groups", "decoding.beam=8", "decoding.tolerance=0.1"])
    found = split().validation.sample(200, 0)
    ids = model.items.series
    histories = [ids.gather(found.histories[user]) for user in range(len(found))]
    difficulty = model.digit_difficulty(
        histories, [ids.gather(found.targets[user][:1]).item() for user in range(len(found))]
    )
    figure, (first, second) = panels(4.8, 3.8, height=2.4)
    fill_steps(first, punt, f"independent_groups: {steps_of(punt).max()} steps for 16 digits")
    second.plot(difficulty, "o-", ms=3, lw=1, color=INK)
    sizes = {"even": digits_per_step(16, 4), "planned": planned_sizes(difficulty, 4)}
    for place, (name, plan) in enumerate(sizes.items()):
        height = max(difficulty) * (1.12 + 0.16 * place)
        start = 0
        for size in plan:
            second.plot(
                [start - 0.3, start + size - 0.7],
                [height, height],
                lw=5,
                color=(GREY, ACCENT)[place],
                solid_capstyle="butt",
            )
            start += size
        second.text(15.6, height, f"{name}: loses {divergence(difficulty, plan):.2f}", va="center", fontsize=8)
    second.set(
        xlabel="digits known",
        ylabel="nats of a hidden digit",
        title="four steps for 16 digits",
        xlim=(-0.8, 23),
        ylim=(0, None),
    )
    second.set_xticks([0, 5, 10, 15])
    return figure


PICTURES: Pictures = {
    "diffgrm": diffgrm,
    "generative-best": generative_best,
    "left-to-right": left_to_right,
    "rpg": rpg,
    "mdgr": mdgr,
    "sprint": sprint,
    "maskgr": maskgr,
    "llada-rec": llada_rec,
    "item-posterior": item_posterior,
    "epic": epic,
    "ensemble": ensemble,
    "fewer-steps": fewer_steps,
    "diqdiff": diqdiff,
    "sid-sasrec": sid_sasrec,
    "h2rec": h2rec,
    "aligned-ids": aligned_ids,
    "diffugr": diffugr,
    "tokenizers": tokenizers,
}


if __name__ == "__main__":
    torch.set_num_threads(1)
    draw_named(PICTURES, FOLDER, "docs/methods.md")
