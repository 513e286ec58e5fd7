"""Benchmark worker of Cornac's DiffGRM (PyPI: cornac==3.0.1), driven through its own backbone, decoder and batch rules.

As Cornac does it: histories padded to 50, examples in random order, one history decoded at a time in evaluation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from cornac.models.diffgrm.diffgrm import DiffGRMBackbone, cpd_decode_batch
from protocol import Workload, serve

MAX_LEN = 50


class Cornac:
    """The backbone, its optimiser and a workload."""

    def load(
        self,
        workload: str,
        width: int,
        heads: int,
        encoder_layers: int,
        decoder_layers: int,
        feed_forward: int,
        seed: int = 0,
    ) -> None:
        """Build the backbone at these sizes."""
        self.work = Workload(workload)
        torch.manual_seed(seed)
        self.model = DiffGRMBackbone(
            self.work.codes.shape[1],
            self.work.codebook_size,
            MAX_LEN,
            d_model=width,
            encoder_n_layer=encoder_layers,
            decoder_n_layer=decoder_layers,
            n_head=heads,
            n_inner=feed_forward,
        )
        self.model.set_item_codes(self.work.codes)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.sids = {tuple(row) for row in self.work.codes.tolist()}

    def _padded(self, histories: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        items = np.full((len(histories), MAX_LEN), len(self.work.codes), dtype=np.int64)
        mask = np.zeros((len(histories), MAX_LEN), dtype=np.float32)
        for row, history in enumerate(histories):
            history = history[-MAX_LEN:]
            items[row, : len(history)], mask[row, : len(history)] = history, 1.0
        return torch.from_numpy(items), torch.from_numpy(mask)

    def train(self, batch: int, steps: int, first: int = 0) -> dict[str, Any]:
        """Some optimiser steps."""
        self.model.train()
        examples = self.work.examples[first : first + batch * steps]
        for start in range(0, len(examples), batch):
            chosen = examples[start : start + batch]
            items, mask = self._padded([history for history, _ in chosen])
            targets = torch.from_numpy(self.work.codes[[target for _, target in chosen]].astype(np.int64))
            self.optimiser.zero_grad()
            self.model(items, mask, targets).backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimiser.step()
        return {"targets": len(examples)}

    def decode(self, batch: int, beam: int, constrained: bool, first: int = 0, k: int = 10) -> dict[str, Any]:
        """The SIDs of some users' final beams that stand for items, at most k each."""
        self.model.eval()
        chosen = self.work.histories[first : first + batch]
        with torch.no_grad():
            memory, padding = self.model.encode_history(*self._padded(chosen))
            codes, _ = cpd_decode_batch(
                self.model,
                memory,
                padding,
                beam_size=beam,
                catalog_codes=self.work.codes if constrained else None,
                valid_code_set=self.sids,
                constrained=constrained,
            )
        return {"users": len(chosen), "found": sum(min(k, len(row)) for row in codes)}

    def evaluate(self, users: int, beam: int, first: int = 0) -> dict[str, Any]:
        """One history after another, its default scoring (not constrained)."""
        for user in range(first, first + users):
            self.decode(1, beam, constrained=False, first=user)
        return {"users": users}


if __name__ == "__main__":
    worker = Cornac()
    serve({"load": worker.load, "train": worker.train, "decode": worker.decode, "evaluate": worker.evaluate})
