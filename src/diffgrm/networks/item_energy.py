"""The energy by which EPIC tells apart the items that fit a partial semantic ID (arXiv 2609.03522).

What items are worth together with a history is learnt; what stands for an item are the vectors of its codes, as a frozen
network has them, so that items of equal semantic IDs are worth the same and items that come later have an energy too.

Letters: B users, R partial SIDs, M items, P pairs of a partial SID and an item, H newest items of a history, n digits, d
width of codes and states, e width of items.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffgrm.networks.blocks import at_once

PAIRS_AT_ONCE = 2**13  # that a CPU scores together where nothing is learnt, which bounds memory


class Recent(NamedTuple):
    """The newest items of histories, newest first, and what they make together.

    Attributes:
        vectors: [B, H, e]; seen: [B, H] bool, false where a history is shorter.
        taste: [B, e] of all of them, oldest to newest.
    """

    vectors: Tensor
    seen: Tensor
    taste: Tensor


class ItemEnergy(nn.Module):
    """How well items go with a partial semantic ID and the newest items of a history.

    With unit item vectors z and a unit query q the energy of item i is (q z_i + tanh(g) sum_r a_r phi(z_i, z_r)) / kappa:
    what the state of the partial SID asks for, and how i follows each of the newest items r, in which
    a = softmax(q z_r / tau + a learnt bias of the item's age).

    The widths of the hidden layers (e), GELU between them, the GRU's order (oldest first), a projection of digits to e, and
    that all three gates g are 0 at the start, are our reading.

    Args:
        n_digits: n; state_width: d; width: e; recent: H.
        transition: whether the second summand is there.
        temperature: kappa; attention: tau.
    """

    def __init__(
        self,
        n_digits: int,
        state_width: int,
        width: int,
        recent: int,
        transition: bool,
        temperature: float,
        attention: float,
    ) -> None:
        super().__init__()
        self.recent, self.temperature, self.attention = recent, temperature, attention
        self.position = nn.Parameter(torch.randn(n_digits, state_width) * state_width**-0.5)
        self.item = _layers(n_digits * state_width, width, width)
        self.digit, self.pair = nn.Linear(state_width, width), _layers(width, width, width)
        self.query, self.history = _layers(state_width, width, width), nn.GRUCell(width, width)
        self.pair_gate, self.history_gate = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))
        self.transition: nn.Sequential | None = None
        if transition:
            self.transition = _layers(2 * width, width, 1)
            self.transition_gate = nn.Parameter(torch.zeros(()))
            self.age_bias = nn.Parameter(torch.zeros(recent))

    def items(self, rows: Tensor) -> Tensor:
        """[..., e] unit vectors of items, by the frozen vectors [..., n, d] of their codes."""
        x = rows.to(self.position.dtype) + self.position
        u, n = self.digit(x), x.shape[-2]
        pairs = (u.sum(-2) ** 2 - (u**2).sum(-2)) / max(n * (n - 1), 1)  # mean of the products of two digits
        return F.normalize(self.item(x.flatten(-2)) + self.pair_gate.tanh() * self.pair(pairs), dim=-1)

    def remember(self, vectors: Tensor, seen: Tensor) -> Recent:
        """What the newest items [B, H, e] of histories make together."""
        taste = vectors.new_zeros(len(vectors), vectors.shape[2])
        for age in reversed(range(vectors.shape[1])):
            taste = torch.where(seen[:, age, None], self.history(vectors[:, age], taste), taste)
        return Recent(vectors, seen, taste)

    def queries(self, states: Tensor, taste: Tensor) -> Tensor:
        """[R, e] of partial SIDs, by the mean states [R, d] of their open digits and the tastes [R, e] of their users."""
        return F.normalize(self.query(states.to(taste.dtype)) + self.history_gate.tanh() * taste, dim=-1)

    def forward(self, queries: Tensor, items: Tensor, recent: Recent, row: Tensor, place: Tensor) -> Tensor:
        """[P] energies of pairs.

        Args:
            queries: [R, e]; items: [M, e].
            recent: of the R partial SIDs' users: [R, H, e].
            row: [P] which of the R; place: [P] which of the M.
        """
        asked = [(queries[r] * items[p]).sum(-1) for r, p in _parts(row, place)]
        energy = torch.cat(asked)
        if self.transition is not None:
            weight = (
                torch.einsum("re,rhe->rh", queries, recent.vectors) / self.attention + self.age_bias[: recent.seen.shape[1]]
            )
            weight = weight.masked_fill(~recent.seen, -torch.inf).softmax(-1)
            follows = [self._follows(weight[r], items[p], recent.vectors[r]) for r, p in _parts(row, place)]
            energy = energy + self.transition_gate.tanh() * torch.cat(follows)
        return energy.float() / self.temperature

    def _follows(self, weight: Tensor, items: Tensor, recent: Tensor) -> Tensor:
        """[p] how items [p, e] follow recent ones [p, H, e], of weights [p, H]."""
        assert self.transition is not None
        items = items[:, None]
        both = torch.cat([items * recent, (items - recent).abs()], -1)
        return (weight * self.transition(both)[..., 0]).sum(-1)


def _parts(row: Tensor, place: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Pairs, in parts where nothing is learnt."""
    together = max(1, len(row)) if torch.is_grad_enabled() else at_once(PAIRS_AT_ONCE, row.device)
    return list(zip(row.split(together), place.split(together), strict=True))


def _layers(width: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, out))
