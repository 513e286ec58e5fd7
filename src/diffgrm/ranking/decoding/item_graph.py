"""RPG's graph decoding (arXiv 2506.05781): walk from item to similar item, and score only what is met.

Two items are as alike as the mean over digits of (1 + cosine of their learnt code vectors) / 2, and each has an edge to the
items most like it, itself included. The search begins at some items that the user's seed draws; in every round the items
that the best of them have edges to are scored by the sum of their digits' log-probabilities, all masked, and the best are
kept. With an edge between any two items one round finds what ``one_pass`` finds.

Items that share a semantic ID are one node. Letters: B users, W items kept, E edges of each, D nodes, n digits, K codes.
"""

from __future__ import annotations

import logging
from typing import Annotated, ClassVar
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from diffgrm.foundation.schema import OnlyWith
from diffgrm.networks.contracts import Denoises, GivesCodeTables
from diffgrm.ranking.catalogue import Catalogue
from diffgrm.ranking.decoding.base import Decoded, Decoder, Task, items_from_sids, mixed
from diffgrm.ranking.decoding.one_pass import OnePass
from diffgrm.ranking.digit_sums import sum_of_digits

logger = logging.getLogger(__name__)

AT_ONCE = 2**24  # similarities that are held at once while a graph is built
_GRAPHS: WeakKeyDictionary[Catalogue, tuple[Tensor, Tensor]] = WeakKeyDictionary()  # code vectors, and the graph of them


class ItemGraph(Decoder):
    """Best items along a graph of similar ones; what share of the catalogue a search scores is logged (level DEBUG).

    A list has as many items as are possible, whatever is excluded: who may not get some items keeps as many more on the
    way, where they serve as stepping stones. The graph of a catalogue is built at its first question, in time that grows
    with the square of its size, and anew when code vectors or what may be recommended change.
    """

    not_with: ClassVar[OnlyWith] = (("rounds", "edges", (None,)), ("beam", "edges", (None,)))
    needs: ClassVar[tuple[type, ...]] = (Denoises, GivesCodeTables)
    uses_code_tables: ClassVar[bool] = True

    def __init__(
        self,
        beam: Annotated[int, Field(ge=1, le=2**16), "items kept for each user (raised to k where k is larger)"] = 20,
        edges: Annotated[
            int | None,
            Field(ge=1, le=2**20),
            "most similar items that an item leads to, itself included; null: all, so that everything is scored, as by "
            "one_pass",
        ] = 200,
        rounds: Annotated[int, Field(ge=1, le=1024), "times the search goes on to the items that those kept lead to"] = 3,
        seed: int = 0,
    ) -> None:
        self.beam, self.edges, self.rounds, self.seed, self.one_pass = beam, edges, rounds, seed, OnePass()

    def rows(self, n_items: int, k: int) -> int:
        """See :meth:`Decoder.rows`."""
        if self.edges is None:
            return self.one_pass.rows(n_items, k)
        return 1 + max(self.beam, k) * min(self.edges, n_items) // 256  # as many codes of items are looked up in a round

    @torch.no_grad()
    def decode(self, task: Task) -> Decoded:
        """See :meth:`Decoder.decode`."""
        if self.edges is None:
            return self.one_pass.decode(task)
        assert task.code_tables is not None
        sids, graph = task.catalogue.distinct_codes, neighbours(task.catalogue, task.code_tables, self.edges)
        log_p, width = task.log_p_all_hidden(), self._widths(task)
        nodes = self._starts(task.seeds, width, len(sids))  # [B, W], -1 after the last
        score = _scores(log_p, sids, nodes)
        met = [nodes]
        for _ in range(self.rounds):
            nodes = (
                torch.where(nodes[..., None] >= 0, graph[nodes.clamp(min=0)], -1).flatten(1).sort(dim=1).values
            )  # [B, W E]
            nodes[:, 1:].masked_fill_(nodes[:, 1:] == nodes[:, :-1], -1)
            score, best = _scores(log_p, sids, nodes).topk(min(int(width.max()), nodes.shape[1]), dim=1)
            met.append(nodes)
            kept = torch.arange(best.shape[1], device=best.device) < width[:, None]
            score = score.masked_fill(~kept, -torch.inf)
            nodes = torch.where(score > -torch.inf, nodes.gather(1, best), -1)
        if logger.isEnabledFor(logging.DEBUG):
            share = torch.stack([each[each >= 0].unique().numel() / torch.tensor(len(sids)) for each in torch.cat(met, 1)])
            logger.debug("%.4f of the catalogue was scored for each of %d users", share.mean().item(), len(share))
        return items_from_sids(task, sids[nodes.clamp(min=0)].long(), score)

    def _widths(self, task: Task) -> Tensor:
        """[B] items kept for each user: one more for each that it must not get."""
        excluded = 0 if task.excluded is None else (task.excluded.padded >= 0).sum(1)
        width = torch.full_like(task.seeds, max(self.beam, task.k))
        return (width + excluded).clamp(max=len(task.catalogue.distinct_codes))

    def _starts(self, seeds: Tensor, width: Tensor, count: int) -> Tensor:
        """[B, W] distinct nodes to begin at, -1 after the last: one drawn from each of as many equal parts of the catalogue
        as are kept for the user."""
        place = torch.arange(int(width.max()), device=seeds.device)
        low, high = place * count // width[:, None], (place + 1) * count // width[:, None]
        drawn = mixed(mixed(seeds + self.seed)[:, None] + place) % (high - low).clamp(min=1)
        return torch.where(place < width[:, None], low + drawn, -1)


def neighbours(catalogue: Catalogue, tables: Tensor, edges: int) -> Tensor:
    """[D, E] the nodes most like each, itself first, by their place in ``distinct_codes``; kept with the catalogue.

    Args:
        tables: [n, K, d] vectors of codes.
        edges: E, at most D.
    """
    sids = catalogue.distinct_codes
    edges = min(edges, len(sids))
    kept = _GRAPHS.get(catalogue)
    if kept is not None and kept[1].shape[1] == edges and torch.equal(kept[0], tables):
        return kept[1]
    sids = sids.long()
    unit = F.normalize(tables.float(), dim=-1)
    alike = (1 + unit @ unit.mT) / 2  # [n, K, K]
    digit, itself = torch.arange(sids.shape[1], device=sids.device), torch.arange(len(sids), device=sids.device)
    graph = torch.empty(len(sids), edges, dtype=torch.int32, device=sids.device)
    size = max(1, AT_ONCE // max(len(sids), alike[0, 0].numel() * sids.shape[1]))
    for rows in itself.split(size):
        similar = sum_of_digits(alike[digit, sids[rows]], sids)  # [rows, D]
        similar[torch.arange(len(rows), device=rows.device), rows] = torch.inf  # though others may have equal vectors
        graph[rows] = similar.topk(edges, dim=1).indices.int()
    _GRAPHS[catalogue] = tables.detach().clone(), graph
    return graph


def _scores(log_p: Tensor, sids: Tensor, nodes: Tensor) -> Tensor:
    """[B, M] sums of the log-probabilities [B, n, K] of the digits of nodes [B, M]; -inf where there is none (-1)."""
    codes = sids[nodes.clamp(min=0)].long()  # [B, M, n]
    return log_p.gather(2, codes.mT).sum(1).masked_fill(nodes < 0, -torch.inf)
