"""EPIC (arXiv 2609.03522): a frozen masked-diffusion network whose digits are steered by a learnt posterior over items.

Letters: B users, S history length, Q partial SIDs a user, R = B Q, n digits, K codes, P pairs of a partial SID and an item
that fits it, d width of the frozen network's states, e width of items.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from diffgrm.foundation.part_settings import Local
from diffgrm.foundation.schema import OnlyWith
from diffgrm.networks.contracts import DenoisesByStates, contract
from diffgrm.networks.inputs import ItemFeatures
from diffgrm.networks.item_energy import ItemEnergy, Recent
from diffgrm.networks.item_posterior import (
    Candidates,
    Choose,
    Steered,
    fused,
    largest_of_rows,
    log_marginals,
    log_shares,
    sum_of_rows,
)

BACKBONE = {"recipe": "llada-rec"}  # as in the paper
FACTS = 5  # that a gate goes by besides the state


@dataclass(frozen=True)
class SteeredMemory:
    """What the frozen network remembers of histories, and their newest items.

    Attributes:
        read: the frozen network's memory.
        recent: of the B users.
    """

    read: Any
    recent: Recent

    def __len__(self) -> int:
        return len(self.recent.taste)

    def rows(self, chosen: Tensor) -> SteeredMemory:
        """The chosen users [b]."""
        return SteeredMemory(self.read.rows(chosen), Recent(*(part[chosen] for part in self.recent)))


class Epic(nn.Module):
    """A frozen network, the energy of items (:class:`ItemEnergy`), and the gate by which their posterior is heard.

    At a partial SID the M likeliest items that fit it have a posterior by the softmax of their energies. What it gives each
    code of an open digit in sum, its marginal, is added to the logits: logits + gate * clip(log marginal - log p, -c, c).
    The gate of a digit is strength * tanh of two layers over its state, log|C| / log I of the |C| items that fit, the
    posterior's entropy and how far its best item stands before the second, the share of digits that are open, and the
    entropy of the frozen network's probabilities. Its last layer is 0 at the start, where the answers are the frozen
    network's.

    That entropies are divided by their largest values, that the posterior's are those over items, and that the gate learns
    nothing through what it goes by, is our reading; the paper gives no values of strength and clip.

    Args:
        frozen: the network that is steered; it is not trained here, but by its own recipe (:attr:`backbone`).

    Raises:
        RecipeError: a frozen network without states of digits.
    """

    only_with: ClassVar[OnlyWith] = (("attention_temperature", "transition", (True,)),)
    causal = False

    def __init__(
        self,
        n_digits: int,
        codebook_size: int,
        n_items: int,
        frozen: nn.Module,
        backbone: Annotated[
            str | dict[str, Any] | None,
            Local(),
            "the network that is steered: the folder of a fitted recommender (diffgrm), or its recipe as a mapping "
            "({recipe: NAME, section: settings} for a shipped one with changes), which is fitted first. A saved model "
            "holds it and has null here",
        ] = BACKBONE,
        width: Annotated[int, Field(ge=1, le=2**14), "width of item vectors and of the layers over them"] = 128,
        candidates: Annotated[
            int, Field(ge=2, le=2**20), "M, most items looked at for a partial SID: those whose open digits are likeliest"
        ] = 128,
        recent: Annotated[int, Field(ge=1, le=1024), "newest items of a history that an item may follow"] = 4,
        transition: Annotated[
            bool, "true: energies count how an item follows each of the newest; false: what a partial SID asks for, alone"
        ] = True,
        temperature: Annotated[float, Field(gt=0), "kappa, energies are divided by it"] = 0.1,
        attention_temperature: Annotated[
            float, Field(gt=0), "of the choice among the newest items that an item may follow"
        ] = 0.25,
        strength: Annotated[float, Field(gt=0), "largest weight of the posterior, lambda"] = 1.0,
        clip: Annotated[float, Field(gt=0, le=50), "largest change of a log-probability, in nats, before the gate"] = 5.0,
    ) -> None:
        super().__init__()
        by_states = contract(frozen, DenoisesByStates)
        self.backbone, self.max_len = frozen, by_states.max_len
        self.candidates, self.strength, self.clip = candidates, strength, clip
        self.largest = math.log(candidates), math.log(max(n_items, 2)), math.log(max(codebook_size, 2))
        state_width = by_states.digits.tables.shape[-1]
        energy = ItemEnergy(n_digits, state_width, width, recent, transition, temperature, attention_temperature)
        gate = nn.Sequential(nn.Linear(state_width + FACTS, width), nn.GELU(), last := nn.Linear(width, 1))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.steering = nn.ModuleDict({"energy": energy, "gate": gate})  # all that is learnt here

    @property
    def _by_states(self) -> DenoisesByStates:
        return contract(self.backbone, DenoisesByStates)

    @property
    def _energy(self) -> ItemEnergy:
        energy = self.steering["energy"]
        assert isinstance(energy, ItemEnergy)
        return energy

    def _unit_items(self, codes: Tensor) -> Tensor:
        """[..., e] vectors of items by their digits [..., n]."""
        return self._energy.items(self._by_states.digits.rows(codes).detach())

    def item_vectors(self, items: ItemFeatures) -> Tensor:
        """[M, ...] those of the frozen network; where these are no digits, what the energy makes of items stands behind."""
        vectors = self._by_states.item_vectors(items)
        if not vectors.is_floating_point():
            return vectors
        assert items.codes is not None
        return torch.cat([vectors, self._unit_items(items.codes).to(vectors.dtype)], -1)

    def encode_history(self, vectors: Tensor, index: Tensor, valid: Tensor) -> SteeredMemory:
        """See :class:`diffgrm.networks.contracts.EncodesHistories`."""
        width = self._energy.history.hidden_size
        place = valid.sum(1, keepdim=True) - 1 - torch.arange(min(self._energy.recent, valid.shape[1]), device=valid.device)
        newest = index.gather(1, place.clamp(min=0))  # [B, H]
        if vectors.is_floating_point():
            own, units = vectors[:, :-width], vectors[newest][..., -width:]
        else:
            own, units = vectors, self._unit_items(vectors[newest])
        return SteeredMemory(self._by_states.encode_history(own, index, valid), self._energy.remember(units, place >= 0))

    def denoise(self, codes: Tensor, mask: Tensor, memory: SteeredMemory) -> Tensor:
        """See :class:`diffgrm.networks.contracts.Denoises`; by the frozen network alone."""
        return self._by_states.denoise(codes, mask, memory.read)

    def steered(self, codes: Tensor, mask: Tensor, memory: SteeredMemory, choose: Choose) -> Steered:
        """See :class:`diffgrm.networks.contracts.SteersDigits`."""
        batch, questions, n = codes.shape
        states = self._by_states.digit_states(codes, mask, memory.read)
        logits = self._by_states.digit_logits(states) * mask[..., None]
        log_p = logits.log_softmax(-1)
        found, rows = choose(log_p.detach(), self.candidates), batch * questions
        open_, states = mask.flatten(0, 1), states.flatten(0, 1)
        mean = (states * open_[..., None]).sum(1) / open_.sum(1, keepdim=True).clamp(min=1)  # [R, d]
        user = torch.arange(batch, device=codes.device).repeat_interleave(questions)
        recent = Recent(*(part[user] for part in memory.recent))
        queries, items = self._energy.queries(mean, recent.taste), self._unit_items(found.codes)
        log_share = log_shares(self._energy(queries, items, recent, found.row, found.place), found.row, rows)
        marginal = log_marginals(log_share, found, logits.shape[-1])
        gate = self._gates(states, open_, log_p.flatten(0, 1), found, log_share.detach())
        told = fused(logits, log_p, marginal.view(logits.shape), gate.view(batch, questions, n, 1), self.clip)
        return Steered(told * mask[..., None], found, log_share)

    def _gates(self, states: Tensor, open_: Tensor, log_p: Tensor, found: Candidates, log_share: Tensor) -> Tensor:
        """[R, n] what the posterior weighs at each digit.

        Args:
            states: [R, n, d]; open_: [R, n]; log_p: [R, n, K].
            log_share: [P] of the posterior.
        """
        items, catalogue, codebook = self.largest
        fitting = found.fitting.clamp(min=1).log() / catalogue
        share, rows = log_share.exp(), len(open_)
        entropy = sum_of_rows(-share * log_share, found.row, rows) / items
        hidden = open_.float().mean(1)
        of_row = torch.stack([fitting, entropy, _lead(share, found.row, rows), hidden], -1)  # [R, 4]
        of_digit = -(log_p.exp() * log_p).sum(-1, keepdim=True) / codebook  # [R, n, 1]
        facts = torch.cat([of_row[:, None].expand(-1, open_.shape[1], -1), of_digit], -1)
        return self.strength * self.steering["gate"](torch.cat([states, facts.to(states.dtype)], -1))[..., 0].tanh().float()


def _lead(share: Tensor, row: Tensor, rows: int) -> Tensor:
    """[R] how far the largest share of each row stands before the second; 1 of a single item, 0 where there is none.

    >>> _lead(torch.tensor([0.75, 0.25, 1.0, 0.5, 0.5]), torch.tensor([0, 0, 1, 3, 3]), 4).tolist()
    [0.5, 1.0, 0.0, 0.0]
    """
    first = largest_of_rows(share, row, rows)
    is_first = share == first[row]
    second = largest_of_rows(share.masked_fill(is_first, 0), row, rows)
    alone = sum_of_rows(is_first.float(), row, rows) == 1
    return torch.where(alone, first - second, 0)
