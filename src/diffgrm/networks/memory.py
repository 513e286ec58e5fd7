"""Memory: what a history encoder leaves for the decoder and for the scores of items.

Letters: B batch, S history length, d width, T slots for targets.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from diffgrm.networks.blocks import Attention, Folded


@dataclass(frozen=True)
class Memory:
    """Encoded histories: their states, and per decoder layer the projected keys and values.

    Attributes:
        keys, values: one [B, heads, S, d/heads] a decoder layer; none where the network has no decoder.
        valid: [B, T, S] bool, what each of T slots may look at; T is 1 unless a history is shared by several targets.
        hidden: [B, S, d] the encoded history itself; None where only the decoder is asked.
        states: [B, T, d] the states of :meth:`newest_of_slots`, where ``hidden`` is None and the decoder needs them.
        folded: by number of decoder layer, the same keys and values folded, once they have been needed so.
        table: vectors of all codes and the first decoder layer's projections of them, once they have been needed.
        plain: nothing is folded or kept, so that no choice depends on sizes: one graph serves them all (export).
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    valid: Tensor
    hidden: Tensor | None = None
    folded: dict[int, Folded] = field(default_factory=dict)
    table: list[Tensor] = field(default_factory=list)
    plain: bool = False
    states: Tensor | None = None

    def __len__(self) -> int:
        return len(self.valid)

    def rows(self, chosen: Tensor) -> Memory:
        """The chosen users [b]."""
        folded = {layer: Folded(*(part[chosen] for part in parts)) for layer, parts in self.folded.items()}
        keys, values = (tuple(part[chosen] for part in layers) for layers in (self.keys, self.values))
        hidden, states = (None if part is None else part[chosen] for part in (self.hidden, self.states))
        return replace(
            self, keys=keys, values=values, valid=self.valid[chosen], hidden=hidden, folded=folded, states=states
        )

    def newest(self) -> Tensor:
        """[B, d] the state of the newest item of each history that is not shared."""
        return self.newest_of_slots()[:, 0]

    def newest_of_slots(self) -> Tensor:
        """[B, T, d] the state of the newest item that each slot may look at."""
        if self.states is not None:
            return self.states
        assert self.hidden is not None
        last = self.valid.sum(2)[..., None] - 1
        return self.hidden.gather(1, last.expand(-1, -1, self.hidden.shape[2]))

    def history(self, layer: int, attention: Attention, questions: int) -> tuple[Tensor, Tensor] | Folded:
        """What a decoder layer attends to, folded where that is cheaper for so many questions or has been done before."""
        key, value = self.keys[layer], self.values[layer]
        if layer not in self.folded:
            if self.plain or not attention.folding_pays(questions, key.shape[2]):
                return key, value
            self.folded[layer] = attention.fold(key, value)
        return self.folded[layer]

    def slots(self, length: Tensor) -> Memory:
        """For T targets a user, of which each knows the first ``length`` [B, T] items (1 at least) of the history."""
        index = torch.arange(self.valid.shape[2], device=length.device)
        return replace(self, valid=index < length.clamp(min=1)[..., None])
