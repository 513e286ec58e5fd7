"""One bidirectional stream over the digits of history and target, any of which may be hidden.

The encoder-only networks of MaskGR (arXiv 2511.23021: rotary positions, output tied) and LLaDA-Rec (arXiv 2511.06254:
learnt positions, RMSNorm, output of its own). Codes of one digit compete with one another; in MaskGR those of all do.

Letters: B histories, S history length, T = S + 1 items of a sequence, n digits, K codes, Q partial SIDs a user, d width.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from diffgrm.foundation.schema import RecipeError
from diffgrm.networks.blocks import Dropout, Gated, at_once, scale_by_fan_in, unrounded
from diffgrm.networks.history import DropoutRate, FeedForward, Heads, MaxLen, Width
from diffgrm.networks.inputs import ItemFeatures
from diffgrm.networks.item_vectors import DigitEmbedding
from diffgrm.networks.stream import Norm, Rotation, StreamLayer, norm_of

Layers = Annotated[int, Field(ge=1, le=1024), "layers over the digits of history and target"]
StreamPositions = Annotated[
    Literal["learned", "rotary"],
    "learned: a vector for each place in a history, counted from the target, and one for each digit; rotary: attention "
    "knows how far apart two digits of the sequence stand",
]
Tied = Annotated[bool, "logits compare with the vectors of codes that enter; else with others"]
Temperature = Annotated[float, Field(gt=0), "logits are divided by it"]

TOKENS_AT_ONCE = 2**15  # of sequences that a CPU reads together where nothing is learnt, which bounds memory


@dataclass(frozen=True)
class RawHistory:
    """The memory of a network that reads histories anew with every question: their digits.

    Attributes:
        codes: [B, S, n]; any value where padded.
        valid: [B, S] bool, true for the first places of each row.
    """

    codes: Tensor
    valid: Tensor

    def __len__(self) -> int:
        return len(self.codes)

    def rows(self, chosen: Tensor) -> RawHistory:
        """The chosen users [b]."""
        return RawHistory(self.codes[chosen], self.valid[chosen])


class Stream(NamedTuple):
    """Sequences on their way through the layers.

    Attributes:
        x: [B, T n, d] their tokens.
        seen: [B, T n] bool, which of them are real.
        rotation: of their places, where those are not in x.
    """

    x: Tensor
    seen: Tensor
    rotation: Rotation | None


class MaskedHistory(nn.Module):
    """Tokens are digits: a row for each code of each digit, and one for all that is hidden.

    Every partial SID is read together with its whole history, since what a history means here depends on what is asked.

    Raises:
        RecipeError: a width that the heads do not divide, or rotary positions and heads of an odd size.
    """

    causal = False
    multiples: ClassVar[tuple[tuple[str, str], ...]] = (("width", "heads"),)

    def __init__(
        self,
        n_digits: int,
        codebook_size: int,
        width: Width = 128,
        heads: Heads = 4,
        layers: Layers = 2,
        feed_forward: FeedForward = 512,
        dropout: DropoutRate = 0.1,
        max_len: MaxLen = 20,
        positions: StreamPositions = "learned",
        norm: Norm = "layer",
        tied: Tied = True,
        temperature: Temperature = 1.0,
        gated: Gated = False,
    ) -> None:
        super().__init__()
        if width % heads:
            raise RecipeError(f"model.width {width} is not a multiple of model.heads {heads}")
        if positions == "rotary" and width // heads % 2:
            raise RecipeError(
                f"model.positions=rotary turns pairs of numbers, but heads are of the odd size {width // heads} "
                f"(model.width {width} / model.heads {heads}); choose an even one, or model.positions=learned"
            )
        self.max_len, self.heads, self.temperature = max_len, heads, temperature
        self.digits = DigitEmbedding(n_digits, codebook_size, width, width**0.5)
        self.masked = nn.Parameter(torch.empty(1, width))  # what a hidden digit looks like
        tables = [self.digits.codes, self.masked]
        self.item_position: nn.Parameter | None = None
        self.digit_position: nn.Parameter | None = None
        self.output: nn.Parameter | None = None
        if positions == "learned":
            self.item_position = nn.Parameter(torch.empty(max_len + 1, width))
            self.digit_position = nn.Parameter(torch.empty(n_digits, width))
            tables += [self.item_position, self.digit_position]
        if not tied:
            self.output = nn.Parameter(torch.empty(n_digits * codebook_size, width))
            tables.append(self.output)
        sizes = (width, heads, feed_forward, dropout, norm, gated)
        self.layers = nn.ModuleList(StreamLayer(*sizes) for _ in range(layers))
        self.norm, self.drop = norm_of(norm, width), Dropout(dropout)
        scale_by_fan_in(self, layers)
        for table in tables:
            nn.init.normal_(table, std=width**-0.5)

    def item_vectors(self, items: ItemFeatures) -> Tensor:
        """[M, n] what stands for items in histories: their digits themselves."""
        assert items.codes is not None
        return items.codes

    def encode_history(self, vectors: Tensor, index: Tensor, valid: Tensor) -> RawHistory:
        """See :class:`diffgrm.networks.contracts.EncodesHistories`; nothing is computed yet."""
        return RawHistory(vectors[index], valid)

    def denoise(self, codes: Tensor, mask: Tensor, memory: RawHistory) -> Tensor:
        """See :class:`diffgrm.networks.contracts.Denoises`; logits [B, Q, n, K] are 0 where a digit is known."""
        return self.digit_logits(self.digit_states(codes, mask, memory)) * mask[..., None]

    def digit_states(self, codes: Tensor, mask: Tensor, memory: RawHistory) -> Tensor:
        """See :class:`diffgrm.networks.contracts.DenoisesByStates`; [B, Q, n, d]."""
        (batch, questions, n), length = codes.shape, memory.valid.shape[1]
        target, hidden = codes.flatten(0, 1), F.pad(mask.flatten(0, 1)[:, None], (0, 0, length, 0))
        most = max(1, at_once(TOKENS_AT_ONCE, codes.device) // (n * (length + 1)))
        together = len(target) if torch.is_grad_enabled() else most
        states = []
        for some in torch.arange(len(target), device=codes.device).split(together):
            asked = self._entered(target[some], hidden[some], memory.rows(some // questions))
            states.append(self.norm(self._through(asked, self.layers, last=n).x))  # [b, n, d]
        return torch.cat(states).view(batch, questions, n, -1)

    def denoise_sequence(self, target: Tensor, mask: Tensor, memory: RawHistory) -> Tensor:
        """See :class:`diffgrm.networks.contracts.DenoisesSequences`; logits [B, T, n, K] of all digits."""
        read = self._through(self._entered(target, mask, memory), self.layers)
        return self.digit_logits(self.norm(read.x).view(*mask.shape, -1))

    def _entered(self, target: Tensor, mask: Tensor, memory: RawHistory) -> Stream:
        """Histories and the targets [B, n] after them, of which mask [B, T, n] hides digits, before the first layer."""
        codes, n = torch.cat([memory.codes, target[:, None]], 1), target.shape[1]
        valid = F.pad(memory.valid, (0, 1), value=True)
        x = self._tokens(codes, mask, memory)
        age = (valid.flip(1).cumsum(1).flip(1) - 1).clamp(min=0)  # real items after each item
        rotation = None
        if self.item_position is not None and self.digit_position is not None:
            x = x + self.item_position[age][:, :, None] + self.digit_position
        else:
            place = torch.arange(n, device=codes.device) - age[..., None] * n
            rotation = Rotation.of(place.flatten(1), x.shape[-1] // self.heads)
        return Stream(self.drop(x * self.digits.scale).flatten(1, 2), valid.repeat_interleave(n, dim=1), rotation)

    def _tokens(self, codes: Tensor, mask: Tensor, memory: RawHistory) -> Tensor:
        """[B, T, n, d] what stands for the digits of sequences, each of norm about 1, before their places are added."""
        token = torch.where(mask, len(self.digits.codes), codes + self.digits.digit_start)
        return F.embedding(token, torch.cat([self.digits.codes, self.masked]))

    def _through(self, stream: Stream, layers: Iterable[nn.Module], last: int | None = None) -> Stream:
        """Sequences after some layers.

        Args:
            last: only so many tokens at their end come out.
        """
        x, stack = stream.x, list(layers)
        for number, layer in enumerate(stack, start=1):
            x = layer(x, stream.seen, stream.rotation, last if number == len(stack) else None)
        return stream._replace(x=x)

    def digit_logits(self, states: Tensor) -> Tensor:
        """See :class:`diffgrm.networks.contracts.DenoisesByStates`; [B, Q, n, K] of states [B, Q, n, d]."""
        tables = self.digits.tables if self.output is None else self.output.view(self.digits.tables.shape)
        with unrounded(states.device):
            return torch.einsum("bqnd,nkd->bqnk", states.float(), tables.float()) / self.temperature
