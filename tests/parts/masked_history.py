"""An encoder-only network that masks history and target, and its objective: one bidirectional stream of digits.

As in MaskGR (arXiv 2511.23021): no item vectors, no decoder; the memory is the raw digits of the history, and the target is
one more item at its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from diffgrm.learning.batches import Batch
from diffgrm.learning.context import LearningContext
from diffgrm.learning.objectives.base import LearningTask
from diffgrm.learning.objectives.digits import DigitObjective
from diffgrm.networks.blocks import EncoderLayer
from diffgrm.networks.contracts import Denoises
from diffgrm.networks.inputs import ItemFeatures


@dataclass(frozen=True)
class RawHistory:
    """The digits [B, S, n] of histories, and which items are real [B, S]."""

    codes: Tensor
    valid: Tensor

    def __len__(self) -> int:
        return len(self.codes)

    def rows(self, chosen: Tensor) -> RawHistory:
        return RawHistory(self.codes[chosen], self.valid[chosen])


class MaskedHistory(nn.Module):
    """Digits of history and target in one stream, each with its place in the item and the item's age."""

    causal = False

    def __init__(
        self,
        n_digits: int,
        codebook_size: int,
        width: Annotated[int, Field(ge=1), "width of the network"] = 32,
        layers: Annotated[int, Field(ge=1), "layers over all digits"] = 1,
        max_len: Annotated[int, Field(ge=1), "most recent history items that are looked at"] = 8,
    ) -> None:
        super().__init__()
        self.n_digits, self.codebook_size, self.max_len = n_digits, codebook_size, max_len
        self.tokens = nn.Embedding(n_digits * codebook_size, width)
        self.hidden = nn.Parameter(torch.randn(n_digits, width))
        self.digit, self.age = nn.Embedding(n_digits, width), nn.Embedding(max_len + 1, width)
        self.layers = nn.ModuleList(EncoderLayer(width, 2, 2 * width, 0.1) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def item_vectors(self, items: ItemFeatures) -> Tensor:
        """What stands in histories are the digits themselves."""
        assert items.codes is not None
        return items.codes

    def encode_history(self, vectors: Tensor, index: Tensor, valid: Tensor) -> RawHistory:
        return RawHistory(vectors[index], valid)

    def denoise_stream(self, codes: Tensor, mask: Tensor, valid: Tensor) -> Tensor:
        """Logits [B, S + 1, n, K] of histories and targets, oldest first, the target at the end of all places."""
        batch, items, n = codes.shape
        digit = torch.arange(n, device=codes.device)
        x = torch.where(mask[..., None], self.hidden, self.tokens(codes + digit * self.codebook_size))
        age = valid.flip(1).cumsum(1).flip(1) - 1  # the target has age 0
        x = x + self.digit(digit) + self.age(age.clamp(min=0))[:, :, None]
        x, seen = x.view(batch, items * n, -1), valid.repeat_interleave(n, dim=1)
        for layer in self.layers:
            x = layer(x, seen)
        tables = self.tokens.weight.view(n, self.codebook_size, -1)
        return torch.einsum("bsnd,nkd->bsnk", self.norm(x).view(batch, items, n, -1), tables)

    def denoise(self, codes: Tensor, mask: Tensor, memory: RawHistory) -> Tensor:
        batch, questions, n = codes.shape
        history = memory.codes.repeat_interleave(questions, dim=0)
        valid = F.pad(memory.valid.repeat_interleave(questions, dim=0), (0, 1), value=True)
        stream = torch.cat([history, codes.reshape(-1, 1, n)], 1)
        hidden = torch.cat([torch.zeros_like(history, dtype=torch.bool), mask.reshape(-1, 1, n)], 1)
        logits = self.denoise_stream(stream, hidden, valid)[:, -1]
        return logits.view(batch, questions, n, -1) * mask[..., None]


class MaskedHistoryObjective(DigitObjective):
    """Every digit of history and target is hidden with probability t, uniform in (0, 1]; cross-entropy times 1/t."""

    needs: ClassVar[tuple[type, ...]] = (Denoises,)
    sections: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        task: LearningTask,
        history_weight: Annotated[float, Field(ge=0), "of the history's digits beside the target's"] = 1.0,
    ) -> None:
        super().__init__(task)
        self.history_weight = history_weight

    def digit_loss(self, batch: Batch, memory: Any, generator: torch.Generator, context: LearningContext) -> Tensor:
        codes = torch.cat([memory.codes, self.codes[batch.target][:, None]], 1)  # [B, S + 1, n]
        valid = F.pad(memory.valid, (0, 1), value=True)
        t = 1 - torch.rand(len(codes), 1, 1, generator=generator, device=codes.device)
        mask = (torch.rand(codes.shape, generator=generator, device=codes.device) < t) & valid[..., None]
        logits = self.network.denoise_stream(codes, mask, valid)
        loss = F.cross_entropy(logits.flatten(0, 2), codes.flatten(), reduction="none").view(codes.shape)
        weight = loss.new_full((codes.shape[1],), self.history_weight)
        weight[-1] = 1.0
        weights = mask * weight[:, None] / t
        return (loss * weights).sum() / weights.sum().clamp(min=1e-6)

    def log_likelihood(self, codes: Tensor, memory: Any) -> Tensor:
        logits = self.network.denoise(codes[:, None], torch.ones_like(codes, dtype=torch.bool)[:, None], memory)[:, 0]
        return logits.log_softmax(-1).gather(2, codes[..., None])[..., 0]

    def identity(self) -> list[Any]:
        return ["masked history", self.history_weight, *self.items.identity()]
