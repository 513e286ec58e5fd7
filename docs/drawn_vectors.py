"""Pictures of methods whose lists are by vectors of items, sums of scores, or texts; docs/draw_methods.py draws them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from drawing import DIGITS, HISTORY, SMALL, by_sum, cells, drawn_views, fit, fitted, grid, scores, split
from pictures import ACCENT, GREY, INK, SECOND, Axes, Figure, panels
from torch import Tensor

from diffgrm import DocumentRetriever, Recipe
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import Columns
from diffgrm.networks.gaussian import GaussianDiffusion
from diffgrm.ranking.score_fusion import SHARPNESS, ScoreFusion, highest_probability
from diffgrm.semantic_ids.embeddings.base import EventContext
from diffgrm.semantic_ids.semantic_ids import SemanticIds
from diffgrm.semantic_ids.tokenizers.context import TokenizerContext

QUICK = ("training.validation_users=20", "training.patience=10")
VECTORS = (*(change for change in SMALL if not change.startswith("tokenizer")), *QUICK)


def histories() -> list[list[str]]:
    """Of all users, up to their validation item."""
    ids = split().dataset.items.series
    return [ids.gather(history).to_list() for history in map(split().validation.histories.__getitem__, range(300))]


def departments() -> list[str]:
    """Of the storefront, in the order of its items."""
    return split().dataset.item_table["department"].unique(maintain_order=True).to_list()


def remembered(model: Any, items: list[str]) -> Any:
    """What a network over item vectors remembers of a history."""
    places = torch.from_numpy(model.items.positions(items))[None]
    return model.network.encode_history(model.ranker().items.vectors, places, torch.ones_like(places, dtype=torch.bool))


@dataclass(frozen=True)
class Watched(GaussianDiffusion):
    """Remembers the noisy vectors on the way back, and what they were told to be."""

    noisy: list[Tensor] = field(default_factory=list)
    told: list[Tensor] = field(default_factory=list)

    def before(self, noisy: Tensor, told: Tensor, step: int) -> Tensor:
        """See :meth:`GaussianDiffusion.before`."""
        self.noisy.append(noisy[0])
        self.told.append(told[0])
        return super().before(noisy, told, step)


def diqdiff() -> Figure:
    """What noise leaves of a vector, the way back to it among the items, and which codes histories have."""
    model = fitted("diqdiff", *VECTORS)
    network, vectors = model.network.eval(), model.ranker().items.vectors
    way = network.diffusion = Watched(network.diffusion.betas)
    with torch.no_grad():
        network.user_vectors(remembered(model, HISTORY))
    figure, (first, second, third) = panels(2.5, 3.0, 3.9, height=2.7)
    kept, steps = np.array(way.kept), np.arange(1, len(way.kept) + 1)
    first.plot(steps, kept**0.5, color=ACCENT, label="of the item's vector")
    first.plot(steps, (1 - kept) ** 0.5, color=GREY, label="of noise")
    first.set(title="a noisy vector is so much", xlabel="step", ylim=(0, 1.35), yticks=[0, 0.5, 1])
    first.legend(frameon=False, fontsize=7, loc="upper center", ncols=2, columnspacing=1, handlelength=1)
    plane = torch.linalg.svd(vectors - vectors.mean(0), full_matrices=False).Vh[:2].T
    back = torch.stack([*way.noisy, way.told[-1]]) / network.encoder.scale
    items, back = (((some - vectors.mean(0)) @ plane).numpy() for some in (vectors, back))
    best = model.items.positions(model.recommend([HISTORY], k=10)["item_id"])
    second.scatter(*items.T, s=5, color=GREY, linewidths=0, rasterized=True)
    second.scatter(*items[best].T, s=40, facecolors="none", edgecolors=SECOND, linewidths=1)
    second.plot(*back.T, "o-", ms=2.5, lw=0.8, color=ACCENT)
    second.set(title=f"{len(steps)} steps back (ringed: the ten best)", xlabel="items, in a plane", xticks=[], yticks=[])
    codes: list[Tensor] = []
    network.choice.register_forward_hook(lambda module, asked, told: codes.append(told.argmax(-1)))
    names, table = departments(), split().dataset.item_table
    department = dict(zip(table[Columns.ITEM], table["department"], strict=True))
    times = np.zeros((len(names), network.choice.out_features))
    with torch.no_grad():
        for history in histories():
            network.user_vectors(remembered(model, history))
            times[names.index(department[history[-1]]), int(codes[-1])] += 1
    cells(third, times / times.max(), [[f"{count:.0f}" if count else None for count in row] for row in times])
    grid(third, "code of a history (number: users)", times.shape[1], len(names), "code", "")
    third.set_yticks(np.arange(len(names)) + 0.45, names, fontsize=7)
    third.tick_params(length=0)
    third.set_ylabel("its newest item is of", fontsize=8)
    return figure


def sid_sasrec() -> Figure:
    """How alike items are by vectors composed of digits and by ID embeddings, by how many digits they share."""
    small = (*VECTORS, "item_loss.kind=sampled_softmax", "item_loss.negatives=100")
    composed = fitted("sid-sasrec", *DIGITS, "item_loss.negatives=100", "tokenizer.pca_width=32")
    of_ids = fitted("sasrec", *small)
    codes = torch.from_numpy(composed.semantic_ids.codes.copy()).long()
    shared = (codes[:, None] == codes).sum(-1)
    apart = ~torch.eye(len(codes), dtype=torch.bool)
    units = [F.normalize(model.ranker().items.vectors.float(), dim=1) for model in (composed, of_ids)]
    shown = slice(120, 134)  # cameras and lenses
    figure, (first, second) = panels(3.6, 3.6, height=3.0)
    near = (units[0][shown] @ units[0][shown].T).clamp(min=0).numpy()
    cells(first, near, [[count or None for count in row] for row in shared[shown, shown].tolist()])
    grid(first, "14 items (blue: cosine; number: shared digits)", len(near), len(near))
    counts = range(codes.shape[1])
    for unit, colour, label in zip(units, (ACCENT, GREY), ("of semantic IDs", "ID embeddings"), strict=True):
        alike = unit @ unit.T
        second.plot(
            counts, [alike[(shared == n) & apart].mean() for n in counts], "o-", ms=3, lw=1, color=colour, label=label
        )
    second.set(title="two items", xlabel="digits that they share", ylabel="mean cosine", xticks=counts)
    second.legend(frameon=False, fontsize=7)
    return figure


def h2rec() -> Figure:
    """Whom the two sides take for an item, the two scores of all items, and what weight the gate gives to users."""
    model = fitted("h2rec", *DIGITS, "tokenizer.pca_width=32", "item_loss.negatives=100")
    network, items = model.network.eval(), model.ranker().items
    weights: list[Tensor] = []
    network.gate.register_forward_hook(lambda module, asked, told: weights.append(told.softmax(-1)[0, 0]))
    of_digits, of_ids = network.vectors_of_branches(items.vectors)
    with torch.no_grad():
        for history in [*histories(), HISTORY]:
            user = network.user_vectors(remembered(model, history))
    sides = [(side @ mine[0]).numpy() for side, mine in zip((of_digits, of_ids), user.chunk(2, -1), strict=True)]
    shown = torch.arange(120, 134)  # cameras and lenses
    codes = torch.from_numpy(model.semantic_ids.codes[shown.numpy()]).long()
    shared = (codes[:, None] == codes).sum(-1).numpy()
    told = F.normalize(of_digits[shown], dim=-1) @ F.normalize(of_ids[shown], dim=-1).T
    needed = model.recipe.objective.options["shared_codes"]
    figure, (first, second, third) = panels(3.3, 3.6, 2.7, height=3.0)
    cells(
        first, told.clamp(min=0).numpy(), [[count if count >= needed else None for count in row] for row in shared.tolist()]
    )
    grid(first, f"14 items (number: {needed} and more shared digits)", len(shown), len(shown))
    first.set(xlabel="by ID embeddings (blue: cosine)", ylabel="by semantic IDs")
    labels = "score by semantic IDs, gated", "score by ID embeddings, gated"
    by_sum(second, *sides, sides[0] + sides[1], labels, "all items; orange: the best ten by the sum")
    third.hist(torch.stack(weights).numpy(), bins=np.linspace(0, 1, 21), color=GREY)
    third.axvline(float(weights[-1]), color=INK, lw=1, ls=":")
    third.set(title="what semantic IDs count for", xlabel="weight (dotted: this user)", ylabel="users", xlim=(0, 1))
    return figure


def aligned_ids() -> Figure:
    """How near ID embeddings are to their texts by the weight of the alignment, and how alike they are inside of brands."""
    small = (
        *VECTORS,
        "item_loss.kind=sampled_softmax",
        "item_loss.negatives=100",
        "embedding.width=32",
        "training.epochs=30",
    )
    drawn = "embedding.width=32", "model.branches=[aligned_id]"
    brands = split().dataset.item_table["brand"].to_numpy()
    same = (brands[:, None] == brands) & ~np.eye(len(brands), dtype=bool)
    figure, (first, second, third) = panels(3.2, 3.2, 3.0, height=2.6)
    for number, (weight, colour) in enumerate({0.01: GREY, 0.2: ACCENT, 1.0: SECOND}.items()):
        model = fitted("sasrec", *small, *drawn, f"objective.text_alignment={weight}")
        network, items = model.network.eval(), model.ranker().items
        with torch.no_grad():
            apart = [network.text_alignment(items.features.of(item[None])) for item in torch.arange(len(brands))]
        near, times = 1 - np.array(apart), model.item_counts
        kinds, label = np.arange(1, 8), f"weight {weight}"
        first.hist(near[times > 0], bins=np.linspace(0, 1, 31), histtype="step", color=colour, lw=1.2, label=label)
        second.plot(kinds, [near[times == count].mean() for count in kinds], "o-", ms=3, lw=1, color=colour, label=label)
        unit = F.normalize(items.vectors.float(), dim=1)
        third.bar(number + 1, (unit @ unit.T).numpy()[same].mean(), 0.6, color=colour)
    texts = F.normalize(items.features.text.float(), dim=1)
    third.bar(0, (texts @ texts.T).numpy()[same].mean(), 0.6, color=INK)
    first.set(title="an ID embedding and its projected text", xlabel="cosine", ylabel="items")
    second.set(title="the same by training events", xlabel="training events of the item", ylabel="mean cosine", ylim=(0, 1))
    second.legend(frameon=False, fontsize=7, loc="lower right")
    third.set(title="two items of one brand", ylabel="mean cosine", ylim=(0, 1))
    third.set_xticks(range(4), ["texts", "IDs, 0.01", "0.2", "1.0"])
    return figure


def library() -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """The storefront's items as documents, and queries for a product of a brand, which its three colours answer."""
    table = split().dataset.item_table.with_columns(asked=pl.format("{} by {}", "kind", "brand"))
    documents = table.select(pl.col(Columns.ITEM).alias("doc_id"), "text")
    queries = table.select(query_id="asked", text="asked").unique(maintain_order=True)
    return documents, queries, table.select(pl.col("asked").alias("query_id"), pl.col(Columns.ITEM).alias("doc_id"))


def diffugr() -> Figure:
    """Digits hidden at a rate, the list of a query, and all documents by several steps beside one pass."""
    small = [change for change in SMALL if not change.startswith(("model.max_len", "model.width", "training"))]
    small += [
        "embedding.width=64",
        "model.width=64",
        "tokenizer.pca_width=64",
        "tokenizer.n_digits=4",
        "tokenizer.whiten=true",
    ]
    small += ["training.batch_size=64", "training.epochs=30", "training.learning_rate=0.003", "training.validate_every=10"]
    recipe = Recipe.preset("diffugr", [*small, "noising.draw=uniform_t", "decoding.beam=4000"])
    retriever = DocumentRetriever(recipe).fit(*library(), progress=False)
    query = "portrait lens by Opticus"
    titles = dict(split().dataset.item_table.select(Columns.ITEM, "title").iter_rows())
    views = drawn_views(recipe.noising.build(seed=0), torch.zeros(6, 4, dtype=torch.long))
    figure, (first, second, third) = panels(2.6, 4.0, 3.2, height=2.7)
    cells(first, views.mask[:, 0].float().numpy())
    for row, count in enumerate(views.digit_weight[:, 0].tolist()):
        first.text(-0.2, row + 0.44, f"t = {1 / count:.2f}", ha="right", va="center", fontsize=7)
        first.text(4.1, row + 0.44, f"{count:.1f}", ha="left", va="center", fontsize=7)
    grid(first, "six documents, hidden by t", 4, 6, "digit (blue: hidden; right: counts)")
    first.set_xlim(-1.9, 5.2)
    best = retriever.search(query, k=6)["doc_id"].to_list()
    codes = retriever.semantic_ids.codes[retriever.documents.positions(best)]
    cells(second, np.full(codes.shape, 0.4), codes.tolist())
    for row, document in enumerate(best):
        second.text(4.2, row + 0.44, titles[document], va="center", fontsize=7)
    grid(second, f'the list of "{query}"', 10, len(best), "", "rank")
    found = [scored(retriever.variant(changes), query) for changes in ([], ["decoding.name=one_pass"])]
    right = [
        place
        for place, document in enumerate(retriever.documents.series)
        if titles[document].startswith("Opticus portrait")
    ]
    third.scatter(*found, s=5, color=GREY, linewidths=0, rasterized=True)
    third.scatter(*(some[right] for some in found), s=16, color=SECOND, linewidths=0)
    third.set(xlabel="log p, in four steps", ylabel="log p, in one pass", title="all documents; orange: those that answer")
    return figure


def scored(retriever: DocumentRetriever, query: str) -> np.ndarray:
    """What a retriever says of every document, by position."""
    found = retriever.search(query, k=len(retriever.documents))
    every = np.full(len(retriever.documents), np.nan)
    every[retriever.documents.positions(found["doc_id"])] = found["score"].to_numpy()
    return every


def ensemble() -> Figure:
    """Items by two members' scores, and how much the second counts by how sure the first is."""
    small = [change for change in SMALL if not change.startswith("tokenizer")]
    small += ["item_loss.negatives=100", "training.validation_users=20", "training.patience=10"]
    text = Recipe.preset("item-scorer", [*small, "embedding.width=32", "model.branches=[text]"])
    ids = Recipe(recommender="sasrec").override([*small, "item_loss.kind=sampled_softmax"])
    members = [
        {key: value for key, value in recipe.to_dict().items() if key not in ("data", "events")} for recipe in (ids, text)
    ]
    model = fit(Recipe(recommender="ensemble", model={"members": members}))
    how, every = ScoreFusion(), np.arange(len(model.items))[None]
    first, second = (how.scaled(every, scores(member)[None], len(model.items))[0] for member in model.members)
    figure, (left, right) = panels(3.8, 3.4, height=2.6)
    weight = model.weights[0]
    labels = "score of sasrec, standardised", "score of its twin of texts"
    title = f"all items; orange: the best ten by {weight:.1f} and {1 - weight:.1f}"
    by_sum(left, first, second, weight * first + (1 - weight) * second, labels, title)
    sure = np.linspace(0, 1, 101)
    certain = ScoreFusion(weighting="certainty")
    for number, sharpness in enumerate(SHARPNESS):
        weights = certain.user_weights(np.array([sharpness, 0.3]), sure)
        right.plot(sure, weights[:, 1], color=ACCENT, alpha=0.25 + 0.25 * number, label=f"q = {sharpness:.0f}")
    ours = highest_probability(every, scores(model.members[0])[None])[0]
    right.axvline(ours, color=GREY, lw=1, ls=":")
    right.set(
        xlabel="p of the first's best item (dotted: this user)",
        ylabel="weight of the second",
        title="by certainty, tau = 0.3",
    )
    right.legend(frameon=False, fontsize=7)
    return figure


def tokenizers() -> Figure:
    """The digits of all items by each tokenizer, and how many need telling apart."""
    table = split().dataset.item_table
    seen = split().item_counts > 0
    lsa = {"name": "lsa", "width": 128}
    texts = Recipe(embedding=lsa).embedding.build(seed=0).fit(table.filter(seen)).encode(table)
    both = Recipe(embedding={"name": "text_and_events", "text": lsa}).embedding.build(seed=0)
    events = both.fit_events(EventContext(split())).encode(table)
    kinds = ("opq", "residual_kmeans", "rq_vae", "mh_vqvae", "simhash", "random")
    figure, axes = panels(*[1.25] * (len(kinds) + 1), 3.0, height=2.9)
    surplus: dict[str, list[int]] = {}

    def show(axis: Axes, ids: SemanticIds, title: str) -> None:
        axis.imshow(ids.codes, aspect="auto", cmap="viridis", interpolation="nearest")
        axis.set(title=title, xticks=range(ids.n_digits), yticks=[])

    for kind, place in zip(kinds, (0, 1, 3, 4, 5, 6), strict=True):
        for vectors in (texts, events):
            options = {"epochs": 30} if kind.endswith("vae") else {}
            tokenizer = resolve("tokenizer", kind)(n_digits=3, codebook_size=16, seed=0, **options)
            tokenizer.fit(TokenizerContext(vectors, seen))
            ids, _ = SemanticIds.build(tokenizer, vectors, "share")
            surplus.setdefault(kind, []).append(len(ids) - len(np.unique(ids.codes, axis=0)))
            if vectors is texts:
                show(axes[place], ids, kind)
            if vectors is texts and kind == "residual_kmeans":
                show(axes[2], SemanticIds.build(tokenizer, vectors, "extra_digit")[0], "+ extra_digit")
    axes[0].set_ylabel("items, by department and kind")
    axes[3].set_xlabel("digit (colour: code)")
    last, place = axes[-1], np.arange(len(kinds))
    last.barh(place - 0.2, [surplus[kind][0] for kind in kinds], 0.38, color=GREY, label="lsa")
    last.barh(place + 0.2, [surplus[kind][1] for kind in kinds], 0.38, color=ACCENT, label="text_and_events")
    last.set(yticks=place, yticklabels=kinds, title="items in surplus, of 480", ylim=(len(kinds) - 0.4, -0.6))
    last.legend(frameon=False, fontsize=7)
    return figure
