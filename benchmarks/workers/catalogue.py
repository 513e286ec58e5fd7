"""Benchmark worker of a generated catalogue: every stage from tables to the first list, at one number of items.

What a stage makes is kept in the workload's folder, so that those after it can begin there, in another process too. What a
stage needs is read before its time begins (``prepare``). Texts are eight words of 20,000 (Zipf), the first three those of
the item's cluster; a user meets ten items of two clusters; one item in twenty has no events.
"""

from __future__ import annotations

import time
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from protocol import serve

from diffgrm import HybridRecommender, InteractionDataset, Recipe, leave_one_out, load
from diffgrm.data.dataset import Ragged
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.storage import State
from diffgrm.learning.batches import TrainingBatches
from diffgrm.learning.context import LearningContext
from diffgrm.learning.objectives.base import LearningTask, TrainingItems
from diffgrm.networks.inputs import ItemFeatures
from diffgrm.ranking.catalogue import Catalogue
from diffgrm.ranking.item_scoring.co_occurrence import CoOccurrenceScorer
from diffgrm.ranking.item_scoring.text_neighbours import TextNeighbours
from diffgrm.ranking.ranker import Ranker
from diffgrm.recommenders.base import Recommender
from diffgrm.recommenders.item_catalogue import ItemCatalogue
from diffgrm.recommenders.parts import LearntPart
from diffgrm.recommenders.scorers import ItemScorers
from diffgrm.recommenders.sids import Identifiers
from diffgrm.recommenders.texts import TextVectors
from diffgrm.recommenders.trained_network import TrainedNetwork
from diffgrm.semantic_ids.semantic_ids import SemanticIds
from diffgrm.semantic_ids.tokenizers.context import TokenizerContext

WORDS, TEXT_WORDS, EVENTS, WIDTH, NEW = 20_000, 8, 10, 128, 20
TOKENIZERS: dict[str, dict[str, Any]] = {  # of the default recipe and of generative-best, with a tenth of their rounds
    "4": {"n_digits": 4, "codebook_size": 256, "pca_width": WIDTH, "iterations": 5},
    "16": {"n_digits": 16, "codebook_size": 256, "pca_width": WIDTH, "iterations": 5, "whiten": False, "unit": False},
}
HYBRID = Recipe(embedding={"width": WIDTH}, tokenizer=TOKENIZERS["4"])
GENERATIVE = Recipe.preset("generative-best", ["objective.teacher_weight=0", "model.start=drawn"])
FACTS = {"dataset": "generated", "split": "leave_one_out", "versions": {}, "fitted_at": "", "machine": "", "fit_seconds": 0}


class GeneratedCatalogue:
    """The folder, and what has been made in it."""

    def load(self, workload: str, items: int, seed: int = 0) -> dict[str, Any]:
        """Take a folder, and generate the tables where they are missing."""
        self.folder, self.n_items, self.seed = Path(workload), items, seed
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(seed)
        if not (self.folder / "interactions.parquet").exists():
            self._generate()
        return {}

    def _generate(self) -> None:
        generator = np.random.default_rng(self.seed)
        clusters = max(2, round(self.n_items**0.5))
        cluster = np.arange(self.n_items) % clusters
        words = (WORDS ** generator.random((self.n_items, TEXT_WORDS))).astype(np.int64)
        words[:, :3] = generator.integers(0, WORDS, (clusters, 3))[cluster]
        texts = pl.DataFrame([" ".join(f"w{word}" for word in row) for row in words.tolist()])
        texts.select(pl.format("item {}", pl.int_range(pl.len())).alias("item_id"), text="column_0").write_parquet(
            self.folder / "items.parquet"
        )
        interests = generator.integers(0, clusters, (self.n_items, 2))
        chosen = np.take_along_axis(interests, generator.integers(0, 2, (self.n_items, EVENTS)), 1)
        place = generator.integers(0, self.n_items // clusters, chosen.shape)
        met = (chosen + clusters * place).ravel()
        met += met % NEW == 0  # nobody meets one item in twenty
        user = np.repeat(np.arange(self.n_items), EVENTS)
        table = pl.DataFrame({"user": user, "item": met % self.n_items, "timestamp": np.arange(len(met))})
        ids = {"user_id": pl.format("user {}", "user"), "item_id": pl.format("item {}", "item")}
        table.select(**ids, timestamp="timestamp").write_parquet(self.folder / "interactions.parquet")

    # ---- what stages need ---------------------------------------------------------------------------------------

    @cached_property
    def dataset(self) -> InteractionDataset:
        """The tables, read."""
        return InteractionDataset.from_tables(self.folder / "interactions.parquet", self.folder / "items.parquet")

    @cached_property
    def train(self) -> Ragged:
        """Training events of all users."""
        return leave_one_out(self.dataset).train

    @cached_property
    def counts(self) -> np.ndarray:
        """[I] training events of every item."""
        return leave_one_out(self.dataset).item_counts

    @cached_property
    def vectors(self) -> np.ndarray:
        """[I, e] of the texts."""
        return State.load(self.folder / "vectors.safetensors").arrays["vectors"]

    @cached_property
    def model(self) -> Recommender:
        """What was saved."""
        return load(self.folder / "model")

    def tokenizer(self, digits: str) -> Any:
        """A fitted one."""
        found = resolve("tokenizer", "opq")(**TOKENIZERS[digits], seed=self.seed)
        return found.load_state(State.load(self.folder / f"tokenizer-{digits}.safetensors"))

    def sids(self, digits: str) -> SemanticIds:
        """All items' own."""
        return SemanticIds.load(self.folder / f"sids-{digits}.safetensors")

    def prepare(self, stage: str, needs: list[str]) -> dict[str, Any]:
        """Read what a stage needs, before its time begins."""
        for name in needs:
            getattr(self, name)
        return {"stage": stage}

    # ---- stages -------------------------------------------------------------------------------------------------

    def read(self) -> dict[str, Any]:
        """Tables to integers."""
        vars(self).pop("dataset", None)
        return {"events": len(self.dataset.events.values)}

    def lsa(self) -> dict[str, Any]:
        """Texts to vectors."""
        encoder = HYBRID.embedding.build(seed=self.seed).fit(self.dataset.item_table.filter(self.counts > 0))
        vectors = encoder.encode(self.dataset.item_table)
        encoder.state().save(self.folder / "encoder.safetensors")
        State({"vectors": vectors}).save(self.folder / "vectors.safetensors")
        return {}

    def opq(self, digits: str) -> dict[str, Any]:
        """PCA and OPQ, fitted."""
        tokenizer = resolve("tokenizer", "opq")(**TOKENIZERS[digits], seed=self.seed)
        tokenizer.fit(TokenizerContext(self.vectors, self.counts > 0, seed=self.seed))
        tokenizer.state().save(self.folder / f"tokenizer-{digits}.safetensors")
        return {}

    def semantic_ids(self, digits: str) -> dict[str, Any]:
        """Digits of all items, collisions reassigned, and the report."""
        sids, report = SemanticIds.build(self.tokenizer(digits), self.vectors, "reassign")
        sids.save(self.folder / f"sids-{digits}.safetensors")
        return {"moved": report.moved_items}

    def co_occurrence(self) -> dict[str, Any]:
        """The neighbours of every item by its users."""
        scorer = CoOccurrenceScorer().fit(self.train, self.n_items)
        scorer.state().save(self.folder / "co_occurrence.safetensors")
        return {"pairs": scorer.similarity.nnz}

    def text_neighbours(self) -> dict[str, Any]:
        """From whom items without events borrow."""
        found = TextNeighbours.fit(self.train, self.n_items, self.vectors)
        found.state().save(self.folder / "text_neighbours.safetensors")
        return {"borrowers": int((~found.has_events).sum())}

    def training_step(self, steps: int = 3) -> dict[str, Any]:
        """Steps of the recipe generative-best's network, after one that makes the tables."""
        codes = torch.from_numpy(self.sids("16").codes.astype(np.int64))
        network = GENERATIVE.model.build(n_digits=16, codebook_size=256)
        items = TrainingItems(ItemFeatures(codes, trained=torch.from_numpy(self.counts > 0)), self.counts)
        task = LearningTask(network, items, lambda *_: None, GENERATIVE.item_loss, GENERATIVE.noising.build())
        objective = GENERATIVE.objective.build(task=task)
        optimiser, generator = torch.optim.AdamW(network.parameters()), torch.Generator().manual_seed(self.seed)
        batches = TrainingBatches(self.train, network.max_len, GENERATIVE.training.batch_size, self.seed, network.causal)
        started = 0.0
        for step, number in enumerate(batches.plan(0)[: steps + 1]):
            if step == 1:
                started = time.perf_counter()
            optimiser.zero_grad()
            objective.loss(batches.batch(number), generator, LearningContext.start()).backward()
            optimiser.step()
        return {"seconds": (time.perf_counter() - started) / steps}

    def decode(self, name: str, users: int = 8) -> dict[str, Any]:
        """Lists of some users by generation, after one that makes the tables; seconds a user."""
        network = GENERATIVE.model.build(n_digits=16, codebook_size=256)
        codes = torch.from_numpy(self.sids("16").codes.astype(np.int64))
        ranker = Ranker.over_codes(network, resolve("decoding", name)(), Catalogue(codes, 256))
        histories = self.train.rows(np.arange(users))
        ranker.rank(histories.rows(np.arange(1)), 10, True)
        started = time.perf_counter()
        ranker.rank(histories, 10, True)
        return {"seconds": (time.perf_counter() - started) / users}

    def save(self) -> dict[str, Any]:
        """The default recipe's model, whose network is not trained, to a folder."""
        folder = self._assembled().save(self.folder / "model")
        return {"mb": round(sum(file.stat().st_size for file in folder.iterdir()) / 2**20, 1)}

    def _assembled(self) -> HybridRecommender:
        """The parts that the stages have made, as a recommender."""
        texts, sids, scorers, network = TextVectors(True), Identifiers(), ItemScorers(), TrainedNetwork()
        texts.encoder = HYBRID.embedding.build(seed=self.seed).load_state(State.load(self.folder / "encoder.safetensors"))
        texts.vectors = self.vectors
        sids.tokenizer, sids.semantic_ids = self.tokenizer("4"), self.sids("4")
        scorers.neighbours = TextNeighbours.of_state(State.load(self.folder / "text_neighbours.safetensors"))
        state = State.load(self.folder / "co_occurrence.safetensors")
        scorers.scorers = {name: part.build() for name, part in HYBRID.item_scoring.scorers.items()}
        scorers.scorers["co_occurrence"].load_state(state)
        network.sizes = {"n_items": self.n_items, "n_digits": 4, "codebook_size": 256, "text_width": self.vectors.shape[1]}
        network.network = network._built(HYBRID).eval()
        parts: dict[str, LearntPart] = {"texts": texts, "sids": sids, "scorers": scorers, "network": network}
        recommender = HybridRecommender(HYBRID)
        catalogue = ItemCatalogue(self.dataset.items, self.dataset.item_table, self.counts)
        sizes = {"users": self.dataset.n_users, "items": self.n_items, "events": len(self.dataset.events.values)}
        recommender.take(parts, catalogue, FACTS | sizes | {"training_events": len(self.train.values)})
        return recommender

    def load_model(self) -> dict[str, Any]:
        """Read the model folder."""
        vars(self).pop("model", None)
        return {"items": len(self.model.items)}

    def first_list(self) -> dict[str, Any]:
        """The first list of the model that was read, with its tables and the index."""
        return self._listed(0, 1)

    def lists(self, users: int = 64) -> dict[str, Any]:
        """More lists, one user at a time, and what they share with those of all items."""
        seconds = [self._listed(user, 1)["seconds"] for user in range(1, users + 1)]
        asked = [self.dataset.items.ids(self.train[user]) for user in range(1, users + 1)]
        exact = self.model.variant(["retrieval.index=exact"])
        started = time.perf_counter()
        ours, theirs = (model.recommend(asked, k=10).select("user_id", "item_id") for model in (self.model, exact))
        found = {"recall@10": round(ours.join(theirs, on=["user_id", "item_id"]).height / theirs.height, 4)}
        found["p99_ms"] = round(1e3 * float(np.percentile(seconds, 99)), 1)
        return {"seconds": float(np.median(seconds)), "both_seconds": round(time.perf_counter() - started, 2), **found}

    def _listed(self, first: int, users: int) -> dict[str, Any]:
        asked = [self.dataset.items.ids(self.train[user]) for user in range(first, first + users)]
        started = time.perf_counter()
        self.model.recommend(asked, k=10)
        return {"seconds": time.perf_counter() - started}


if __name__ == "__main__":
    worker = GeneratedCatalogue()
    stages = ("read", "lsa", "opq", "semantic_ids", "co_occurrence", "text_neighbours", "training_step", "decode", "save")
    stages += ("load_model", "first_list", "lists")
    serve({name: getattr(worker, name) for name in ("load", "prepare", *stages)})
