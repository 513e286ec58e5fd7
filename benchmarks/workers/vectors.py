"""A worker that makes semantic IDs of generated vectors, and finds lists: by digits in one pass, by vectors in an index."""

from __future__ import annotations

import time
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from events import watched
from protocol import serve

from diffgrm import Recipe
from diffgrm.data.dataset import Ragged
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.storage import State
from diffgrm.ranking.catalogue import Catalogue
from diffgrm.ranking.item_index import ItemIndex
from diffgrm.ranking.ranker import Ranker
from diffgrm.semantic_ids.collisions import reassign
from diffgrm.semantic_ids.semantic_ids import SemanticIds, report
from diffgrm.semantic_ids.threads import one_thread
from diffgrm.semantic_ids.tokenizers.context import TokenizerContext

WIDTH, DIGITS, CODES, AT_ONCE = 64, 8, 256, 2**17
SPREAD = 0.5  # of the items around the centre of their cluster, beside 1 of the centres
DRAWN_DIGITS, HISTORY, USERS, CANDIDATES = 16, 20, 100, 200
GENERATIVE = Recipe.preset("generative-best", ["objective.teacher_weight=0", "model.start=drawn"])


class GeneratedVectors:
    """The folder, and what has been made in it."""

    def load(self, workload: str, items: int) -> dict[str, Any]:
        """Take a folder."""
        self.folder, self.n_items = Path(workload), items
        self.folder.mkdir(parents=True, exist_ok=True)
        return {}

    def prepare(self, stage: str, needs: list[str]) -> dict[str, Any]:
        """Nothing is read beforehand but what a stage maps."""
        return {}

    @cached_property
    def items(self) -> np.ndarray:
        """[I, 64] mapped."""
        return np.load(self.folder / "vectors.npy", mmap_mode="r")

    @cached_property
    def tokenizer(self) -> Any:
        """Fitted, once it was."""
        path = self.folder / "tokenizer.safetensors"
        found = resolve("tokenizer", "opq")(DIGITS, CODES, pca_width=WIDTH, iterations=5, unit=False, whiten=False)
        return found.load_state(State.load(path)) if path.exists() else found

    def vectors(self) -> dict[str, Any]:
        """Items around the centres of clusters, about as many as the root of the items."""

        def work() -> None:
            clusters = round(self.n_items**0.5)
            centres = np.random.default_rng(0).normal(size=(clusters, WIDTH)).astype(np.float32)
            file = np.lib.format.open_memmap(self.folder / "vectors.npy", "w+", np.float32, (self.n_items, WIDTH))
            for start in range(0, self.n_items, AT_ONCE):
                draw = np.random.default_rng((1, start))
                stop = min(start + AT_ONCE, self.n_items)
                around = draw.standard_normal((stop - start, WIDTH), dtype=np.float32)
                file[start:stop] = centres[np.arange(start, stop) % clusters] + SPREAD * around
            file.flush()

        return _measured(work)

    def first_by_digits(self) -> dict[str, Any]:
        """A list in one pass, with the tables of the catalogue."""
        draw = np.random.default_rng(2)
        self.codes = draw.integers(0, CODES, (self.n_items, DRAWN_DIGITS), dtype=np.int16)
        self.histories = Ragged.from_lists(list(draw.integers(0, self.n_items, (1 + USERS, HISTORY))))

        def work() -> None:
            network = GENERATIVE.model.build(n_digits=DRAWN_DIGITS, codebook_size=CODES)
            catalogue = Catalogue(torch.from_numpy(self.codes), CODES)
            self.ranker = Ranker.over_codes(network, GENERATIVE.decoding.build(), catalogue)
            self._by_digits(0)

        return _measured(work)

    def by_digits(self) -> dict[str, Any]:
        """More of them, one user at a time."""
        return self._lists(self._by_digits)

    def _by_digits(self, user: int) -> None:
        self.ranker.rank(self.histories.rows(np.array([user])), 10, True)

    @cached_property
    def index(self) -> ItemIndex:
        """Of the vectors."""
        return ItemIndex("ivf_pq", self.items)

    def first_by_vectors(self) -> dict[str, Any]:
        """Candidates from the index, which is built."""
        vars(self).pop("ranker", None)
        return _measured(lambda: self._by_vectors(0))

    def by_vectors(self) -> dict[str, Any]:
        """More of them, one user at a time."""
        return self._lists(self._by_vectors)

    def _by_vectors(self, user: int) -> None:
        self.index.search(self.items[user : user + 1], CANDIDATES)

    def _lists(self, find: Any) -> dict[str, Any]:
        clock, used = list[float](), list[float]()

        def work() -> None:
            for user in range(1, 1 + USERS):
                started, before = time.perf_counter(), time.process_time()
                find(user)
                clock.append(time.perf_counter() - started)
                used.append(time.process_time() - before)

        found = _measured(work) | {"seconds": float(np.median(clock)), "cpu_seconds": float(np.median(used))}
        return {**found, "p99_cpu_ms": round(1e3 * float(np.percentile(used, 99)), 1)}

    def opq(self) -> dict[str, Any]:
        """PCA, rotation and codebooks, a tenth of the rounds."""

        def work() -> None:
            self.tokenizer.fit(TokenizerContext.of(self.items)).state().save(self.folder / "tokenizer.safetensors")

        return _measured(work)

    def digits(self) -> dict[str, Any]:
        """Of all items, before repair."""
        return _measured(lambda: np.save(self.folder / "found.npy", self.tokenizer.encode(self.items)))

    def repair(self) -> dict[str, Any]:
        """A semantic ID for each item."""

        def work() -> dict[str, Any]:
            with one_thread():
                repaired = reassign(self.tokenizer, self.items, np.load(self.folder / "found.npy"))
            SemanticIds(repaired.codes, (CODES,) * DIGITS).save(self.folder / "sids.safetensors")
            return {"moved": int(repaired.moved.sum())}

        return _measured(work)

    def report(self) -> dict[str, Any]:
        """On those."""

        def work() -> dict[str, Any]:
            with one_thread():
                found = np.load(self.folder / "found.npy")
                told = report(self.tokenizer, self.items, found, SemanticIds.load(self.folder / "sids.safetensors"))
            return {"colliding": told.colliding_items, "largest_group": told.largest_group}

        return _measured(work)


def _measured(work: Any) -> dict[str, Any]:
    started, used = time.perf_counter(), time.process_time()
    found = watched(work)
    return {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - used, **found}


if __name__ == "__main__":
    worker = GeneratedVectors()
    stages = ("vectors", "first_by_digits", "by_digits", "first_by_vectors", "by_vectors")
    stages += ("opq", "digits", "repair", "report")
    serve({name: getattr(worker, name) for name in ("load", "prepare", *stages)})
