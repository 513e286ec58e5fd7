"""Benchmark worker of this library."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from protocol import Workload, serve
from safetensors.torch import load_file

from diffgrm.data.dataset import Ragged
from diffgrm.foundation.sections import ItemLossSettings
from diffgrm.learning.batches import Batch, TrainingBatches
from diffgrm.learning.context import LearningContext
from diffgrm.learning.noising.confidence import ConfidenceNoising
from diffgrm.learning.objectives.base import LearningTask, TrainingItems
from diffgrm.learning.objectives.diffusion import DiffusionObjective
from diffgrm.networks.compiled import compile_layers
from diffgrm.networks.diffgrm import DiffGRM
from diffgrm.networks.inputs import Histories, ItemFeatures
from diffgrm.ranking.catalogue import Catalogue
from diffgrm.ranking.decoding.any_order_beam import AnyOrderBeam
from diffgrm.ranking.decoding.base import Decoder
from diffgrm.ranking.decoding.catalogue_beam import CatalogueBeam
from diffgrm.ranking.decoding.one_pass import OnePass
from diffgrm.ranking.ranker import Ranker


class Ours:
    """The network, its optimiser and a workload."""

    def load(
        self, workload: str, seed: int = 0, compiled: bool = False, bf16: bool = False, weights: str = "", **sizes: Any
    ) -> None:
        """Build the network.

        Args:
            compiled, bf16: how it is run; weights: file of a fitted network, else they are random.
            sizes: width, heads, encoder_layers, decoder_layers, feed_forward, history.
        """
        self.work = Workload(workload)
        torch.manual_seed(seed)
        self.codes = codes = torch.from_numpy(self.work.codes.astype(np.int64))
        self.network = DiffGRM(codes.shape[1], self.work.codebook_size, dropout=0.1, max_len=50, **sizes)
        if weights:
            self.network.load_state_dict(load_file(weights))
        if compiled:
            compile_layers(self.network)
        if bf16:
            self.network.to(torch.bfloat16)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=1e-3)
        self.catalogue = Catalogue(codes, self.work.codebook_size)
        self.generator = torch.Generator().manual_seed(seed)
        items = TrainingItems(ItemFeatures(codes), np.ones(len(codes)))
        task = LearningTask(self.network, items, lambda *_: None, ItemLossSettings(), ConfidenceNoising())
        self.objective = DiffusionObjective(task)

    def train(self, batch: int, steps: int, first: int = 0) -> dict[str, Any]:
        """Some optimiser steps with on-policy coherent noising; examples of like length share a batch, as in training."""
        self.network.train()
        examples = self.work.examples[first : first + batch * steps]
        examples = sorted(examples, key=lambda example: len(example[0]))
        for start in range(0, len(examples), batch):
            chosen = examples[start : start + batch]
            offsets = np.cumsum([0] + [len(history) for history, _ in chosen])
            events = np.concatenate([history for history, _ in chosen])
            histories = Histories.collate(events, offsets[:-1], offsets[1:])
            target, length = torch.tensor([target for _, target in chosen]), torch.from_numpy(np.diff(offsets)[:, None])
            self._step(Batch(histories, target, torch.arange(len(chosen)), length))
        return {"targets": len(examples)}

    def train_users(self, batch: int, steps: int) -> dict[str, Any]:
        """Some optimiser steps on all targets of the users; a causal encoder encodes a user once."""
        self.network.train()
        offsets = np.cumsum([0] + [len(history) for history in self.work.histories])
        events = Ragged(np.concatenate(self.work.histories), offsets)
        batches = TrainingBatches(events, self.network.max_len, batch, 0, shared=self.network.causal)
        targets = 0
        for number in batches.plan(0)[:steps]:
            one = batches.batch(number)
            self._step(one)
            targets += len(one.target)
        return {"targets": targets}

    def _step(self, batch: Batch) -> None:
        loss = self.objective.loss(batch, self.generator, LearningContext.start())
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()

    def decode(
        self,
        batch: int,
        beam: int,
        constrained: bool,
        first: int = 0,
        k: int = 10,
        decoder: str = "any_order_beam",
        **settings: Any,
    ) -> dict[str, Any]:
        """The k best items of some users, from histories to item positions; ``settings``: more of the beam search.

        Decoders: any_order_beam, catalogue_beam (which knows no unconstrained search) and one_pass (which has no beam).
        """
        chosen = self.work.histories[first : first + batch]
        offsets = np.cumsum([0] + [len(history) for history in chosen])
        search: Decoder
        if decoder == "any_order_beam":
            search = AnyOrderBeam(beam=beam, constrained=constrained, **settings)
        else:
            search = CatalogueBeam(beam=beam) if decoder == "catalogue_beam" else OnePass()
        ranker = Ranker.over_codes(self.network, search, self.catalogue)
        items, _ = ranker.rank(Ragged(np.concatenate(chosen), offsets), k, exclude_seen=False)
        return {"users": len(chosen), "found": int((items >= 0).sum())}

    def evaluate(self, users: int, beam: int, first: int = 0, decoder: str = "any_order_beam") -> dict[str, Any]:
        """Ranked lists for some users as evaluation makes them."""
        return self.decode(users, beam, constrained=True, first=first, decoder=decoder)


if __name__ == "__main__":
    worker = Ours()
    serve(
        {
            "load": worker.load,
            "train": worker.train,
            "train_users": worker.train_users,
            "decode": worker.decode,
            "evaluate": worker.evaluate,
        }
    )
