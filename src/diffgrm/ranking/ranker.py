"""Ranker: histories in, item positions out; the one path from a network and a decoder to a ranked list."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from diffgrm.data.collate import in_batches
from diffgrm.data.dataset import Ragged
from diffgrm.networks.blocks import at_once, evaluating
from diffgrm.networks.contracts import EncodesHistories, GivesCodeTables, PairsDigits, ScoresItems, contract, encoded
from diffgrm.networks.inputs import Histories, ItemFeatures
from diffgrm.ranking.catalogue import Catalogue, Excluded
from diffgrm.ranking.decoding.base import Decoded, Decoder, ItemScores, PairScores, Task, Watch
from diffgrm.ranking.finite_answers import check_finite, finite_answers
from diffgrm.ranking.first_stage import FirstStage, LookUp
from diffgrm.ranking.item_scoring.base import ItemScoring, SecondLook, Users
from diffgrm.ranking.item_table import ItemTable

LOGITS_AT_ONCE = 2**19  # numbers that the network gives back in one call on a CPU


@dataclass(frozen=True)
class Ranker:
    """A network, a decoder and a catalogue, ready to rank.

    Attributes:
        network: has ``encode_history``, ``max_len`` and the function that the decoder asks.
        decoder: how SIDs are searched.
        catalogue: recommendable items, on the device of the network.
        items: the network's view of all items.
        scoring: of all items, for decoders that use it.
        first_stage: looks up the best items of large catalogues, for decoders that need no others.
    """

    network: nn.Module
    decoder: Decoder
    catalogue: Catalogue
    items: ItemTable
    scoring: ItemScoring | None = None
    first_stage: FirstStage | None = None

    @classmethod
    def over_codes(cls, network: nn.Module, decoder: Decoder, catalogue: Catalogue) -> Ranker:
        """For a network that knows items by their digits only."""
        everything = torch.arange(catalogue.n_items, device=catalogue.codes.device)
        return cls(network, decoder, catalogue, ItemTable(network, ItemFeatures(catalogue.codes_of(everything))))

    def rank(
        self,
        histories: Ragged,
        k: int,
        exclude_seen: bool,
        progress: Callable[[int], None] | None = None,
        without: np.ndarray | None = None,
        offsets: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Item positions [U, k] best first (-1 after the last) and their scores [U, k].

        Args:
            histories: item positions of every user, oldest first, at least one each. Only the last ``max_len`` are
                encoded; all of them count as seen.
            progress: called with the number of users done since the last call.
            without: positions of a few items that nobody must get (for many, the catalogue is better restricted).
            offsets: [I] what is added to item scores, for decoders that take them (:attr:`Decoder.takes_offsets`).
        """
        items = np.full((len(histories), k), -1, dtype=np.int64)
        scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
        for users, decoded in self.decode(histories, k, exclude_seen, without=without, offsets=offsets):
            items[users], scores[users] = decoded.items.cpu().numpy(), decoded.scores.cpu().numpy()
            if progress:
                progress(len(users))
        return items, scores

    def top(self, histories: Ragged, k: int) -> np.ndarray:
        """Item positions [U, k] for histories, best first, what is in the history left out, -1 after the last."""
        return self.rank(histories, k, exclude_seen=True)[0]

    def decode(
        self,
        histories: Ragged,
        k: int,
        exclude_seen: bool,
        watch: Watch | None = None,
        without: np.ndarray | None = None,
        offsets: np.ndarray | None = None,
    ) -> Iterator[tuple[np.ndarray, Decoded]]:
        """Batches of users of similar history length: their row numbers, and what the decoder found for them.

        Args:
            watch: see :class:`Task`.
            without, offsets: see :meth:`rank`.
        """
        for users, task in self.tasks(histories, k, exclude_seen, watch, without, offsets):
            yield users, self.decoder.decode(task)

    def tasks(
        self,
        histories: Ragged,
        k: int,
        exclude_seen: bool,
        watch: Watch | None = None,
        without: np.ndarray | None = None,
        offsets: np.ndarray | None = None,
    ) -> Iterator[tuple[np.ndarray, Task]]:
        """The same with what the decoder is asked; the network is in use, without gradients, until the next batch."""
        device = self.catalogue.codes.device
        ask = finite_answers(self.network, self.decoder.asks)
        with torch.no_grad(), evaluating(self.network):
            tables = contract(self.network, GivesCodeTables).code_tables() if self.decoder.uses_code_tables else None
            first_stage = self._first_stage if offsets is None else None
            n_items = len(self.catalogue) if first_stage is None else first_stage.candidates
            for users, memory in self.encoded(histories, self.decoder.rows(n_items, k)):
                excluded = None
                if exclude_seen or without is not None:
                    seen = histories.rows(users).seen() if exclude_seen else Ragged.from_lists([[]] * len(users))
                    excluded = Excluded.from_ragged(seen, self.catalogue.n_items, device, without)
                seeds = torch.tensor([self.seed_of(histories[user]) for user in users], device=device)
                scores = None
                if self.decoder.uses_item_scores:
                    scores = self._item_scores(memory, histories.rows(users), first_stage, offsets)
                pairs = self._pair_scores(memory) if self.decoder.uses_pairs else None
                yield users, Task(ask, memory, self.catalogue, k, excluded, seeds, watch, scores, tables, pairs)

    @property
    def _first_stage(self) -> FirstStage | None:
        """The first stage, where it serves this decoder and catalogue."""
        serves = self.first_stage is not None and self.decoder.looks_up and self.first_stage.serves(len(self.catalogue))
        return self.first_stage if serves else None

    def seed_of(self, history: np.ndarray) -> int:
        """Where decoders that draw begin, by nothing but the user's history: the rest of the batch changes no answer."""
        return zlib.crc32(history.tobytes())

    def _item_scores(
        self,
        memory: Any,
        histories: Ragged,
        first_stage: FirstStage | None = None,
        offsets: np.ndarray | None = None,
    ) -> ItemScores:
        """What the scorers say of all items, or of the best, for encoded users, and their second look at candidates."""
        scoring = self.scoring
        assert scoring is not None
        users = Users(self.items.comparison.users(contract(self.network, ScoresItems).user_vectors(memory)), histories)
        second_look = SecondLook(scoring, users) if scoring.candidates else None
        if first_stage is not None:
            return ItemScores(None, scoring.candidates, second_look, LookUp(first_stage, users))
        scores = scoring.scores(users)
        if offsets is not None:
            scores = scores + torch.from_numpy(offsets).to(scores.device)
        return ItemScores(scores, scoring.candidates, second_look)

    def _pair_scores(self, memory: Any) -> PairScores | None:
        """What the network says of every two digits for encoded users, where it says something."""
        if (items := self.items.pair_vectors) is None:
            return None
        users = contract(self.network, PairsDigits).pair_users(memory)
        assert users is not None
        return PairScores(check_finite(self.network, "pair_users", users[:, 0]), items)

    def encoded(self, histories: Ragged, rows: int) -> Iterator[tuple[np.ndarray, Any]]:
        """Batches of users of similar history length: their row numbers, and their encoded histories.

        Args:
            rows: questions that will be asked of each user at once; they bound the batch.
        """
        network = contract(self.network, EncodesHistories)
        most = at_once(LOGITS_AT_ONCE, self.catalogue.codes.device)
        step = max(1, most // (self.catalogue.n_digits * self.catalogue.codebook_size * rows))
        for users, collated in in_batches(histories, network.max_len, step, network.causal):
            asked = Histories.of(collated).to(self.catalogue.codes.device)
            yield users, encoded(self.network, self.items.of(asked.items), asked)
