"""DiQDiff's network (arXiv 2501.17670): Gaussian diffusion over the next item's vector, guided by a code of the history.

Letters: B batch, S history length, N targets, M vectors of items, C codes, L longest history, T steps, d width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from diffgrm.networks.blocks import Gated, at_once
from diffgrm.networks.gaussian import GaussianDiffusion
from diffgrm.networks.history import DropoutRate, EncoderSettings, FeedForward, Heads, HistoryNetwork, MaxLen, Width
from diffgrm.networks.item_vectors import Branches, Sizes

USERS_AT_ONCE = 128  # that a CPU denoises together in use

Beta = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True)
class ItemStretches:
    """Histories as they are: what is made of them depends on the noisy vector that is asked about.

    Attributes:
        vectors: [M, d] of the distinct items; index: [B, S] which of them stands where, oldest first.
        valid: [B, S] bool, false where padded.
    """

    vectors: Tensor
    index: Tensor
    valid: Tensor

    def __len__(self) -> int:
        return len(self.valid)

    def rows(self, chosen: Tensor) -> ItemStretches:
        """The chosen users [b], no wider than the longest needs."""
        return replace(self, index=self.index[chosen], valid=self.valid[chosen])._narrowed()

    def beginnings(self, history: Tensor, length: Tensor) -> ItemStretches:
        """The first ``length`` [N] items of histories ``history`` [N]."""
        place = torch.arange(self.index.shape[1], device=length.device)
        return replace(self, index=self.index[history], valid=place < length[:, None])._narrowed()

    def _narrowed(self) -> ItemStretches:
        longest = int(self.valid.sum(1).max()) if len(self) else 0
        return replace(self, index=self.index[:, :longest], valid=self.valid[:, :longest])


class DiQDiff(HistoryNetwork):
    """A denoiser that is SASRec's encoder, to whose every input something is added: a noisy vector, and a code.

    The input of each item of a history x is sqrt(d) (item + position) + noise_scale (x_t + time_t) + guidance * code, and
    the state of the newest item is what the target's vector is told to be, x_0. Vectors are diffused at sqrt(d) times their
    size, so that each coordinate has variance about 1, as the noise has. A code is a sequence of vectors, one a place, the
    newest first. Which of them a history has is drawn in training, by Gumbel-softmax over a linear map of the mean of its
    items; the hard choice goes forward, the soft one gives the gradient. In use it is the most likely one.

    In the release codes are means of the sequences of the current batch, at use too, and the noise of every step is drawn.
    Here codes are weights, the first noisy vector is one that was drawn when the network was made and is kept with it, and
    the T steps back draw nothing (DDIM), so that the answer to a history is always the same, whoever else asks. Time has a
    learnt vector a step (release: sinusoids through two layers). The map of the mean of items, in place of one of the whole
    padded sequence, is our choice.

    A history is encoded anew for each target and step, so that one pass does not serve several targets (``causal`` is
    false), though its items look back only. With ``guidance`` and ``noise_scale`` 0 all of it is SASRec, with SASRec's
    weights. Other arguments as of ``DiffGRM``.
    """

    def __init__(
        self,
        n_digits: int = 0,
        codebook_size: int = 0,
        n_items: int = 0,
        text_width: int = 0,
        width: Width = 128,
        heads: Heads = 2,
        layers: Annotated[int, Field(ge=1, le=1024), "layers over the history"] = 2,
        feed_forward: FeedForward = 256,
        dropout: DropoutRate = 0.3,
        max_len: MaxLen = 50,
        guidance: Annotated[float, Field(ge=0), "what a history's code counts for beside its items; 0: no codes"] = 1.0,
        guidance_codes: Annotated[int, Field(ge=2, le=2**16), "codes that histories are told apart by"] = 8,
        code_temperature: Annotated[float, Field(gt=0), "of the choice among codes, in training"] = 0.1,
        noise_scale: Annotated[
            float, Field(ge=0), "what the noisy vector counts for beside the history's items; 0: no diffusion"
        ] = 0.001,
        steps: Annotated[int, Field(ge=1, le=1024), "steps of the diffusion, there and back"] = 32,
        betas: Annotated[
            tuple[Beta, Beta], "variance that the first and the last step add; it grows evenly between them"
        ] = (0.0131, 0.635),
        branches: Branches = ({"name": "id", "start": 1.0, "untrained": "drawn"},),
        gated: Gated = False,
    ) -> None:
        encoder = EncoderSettings(layers, heads, feed_forward, dropout, max_len, causal=True, from_start=False, gated=gated)
        super().__init__(Sizes(n_digits, codebook_size, n_items, text_width, width), branches, encoder)
        self.causal = False
        self.guidance, self.noise_scale, self.code_temperature = guidance, noise_scale, code_temperature
        self.diffusion = GaussianDiffusion.linear(steps, *betas)
        tables = [(self.digits.codes, 1.0)] if self.digits is not None else []
        tables += [*self.branch_tables(), (self.encoder.position, 1.0)]
        if noise_scale:
            self.start: Tensor
            self.register_buffer("start", torch.randn(width))
            self.time = nn.Parameter(torch.empty(steps, width))
            tables.append((self.time, width**0.5))
        if guidance:
            self.choice = nn.Linear(width, guidance_codes)
            self.codebook = nn.Parameter(torch.empty(guidance_codes, max_len, width))
            tables.append((self.codebook, width**0.5))
        self.initialise(tables)

    def encode_history(self, vectors: Tensor, index: Tensor, valid: Tensor) -> ItemStretches:  # type: ignore[override]
        """See :class:`diffgrm.networks.contracts.EncodesHistories`; the histories as they are."""
        return ItemStretches(vectors, index, valid)

    def user_vectors(  # type: ignore[override]
        self, memory: ItemStretches, history: Tensor | None = None, length: Tensor | None = None
    ) -> Tensor:
        """See :class:`diffgrm.networks.contracts.ScoresItems`; what T steps make of the kept noise."""
        if history is not None and length is not None:
            memory = memory.beginnings(history, length)
        order = memory.valid.sum(1).argsort(stable=True)  # those of like length together, so that little is padded
        together = at_once(USERS_AT_ONCE, order.device)
        found = [self._denoised_start(memory.rows(some)) for some in order.split(together)]
        return torch.cat(found)[order.argsort()]

    def _denoised_start(self, memory: ItemStretches) -> Tensor:
        """[B, d] what T steps make of the kept noise for histories."""
        code = self._code(memory, None)
        if not self.noise_scale:
            return self._told(memory, code, None)
        noisy = told = self.start.float().expand(len(memory), -1)
        for step in reversed(range(len(self.diffusion.betas))):
            told = self._told(memory, code, noisy + self.time[step])
            noisy = self.diffusion.before(noisy, told.float(), step)
        return told

    def denoised(
        self, vectors: Tensor, memory: ItemStretches, history: Tensor, length: Tensor, generator: torch.Generator
    ) -> Tensor:
        """See :class:`diffgrm.networks.contracts.DenoisesVectors`."""
        memory, device = memory.beginnings(history, length), vectors.device
        noisy = drawn = None
        if self.noise_scale:
            step = torch.randint(len(self.diffusion.betas), (len(vectors),), generator=generator, device=device)
            noise = torch.randn(vectors.shape, generator=generator, device=device)
            noisy = self.diffusion.noised(vectors * self.encoder.scale, step, noise) + self.time[step]
        if self.guidance:
            shape = len(memory), self.choice.out_features
            drawn = -torch.empty(shape, device=device).exponential_(generator=generator).log()
        return self._told(memory, self._code(memory, drawn), noisy)

    def _code(self, memory: ItemStretches, drawn: Tensor | None) -> Tensor | None:
        """[B, S, d] the code of each history at its places, times the guidance; None: there are none.

        Args:
            drawn: [B, C] Gumbel noise of the choice; None: the most likely code.
        """
        if not self.guidance:
            return None
        valid = memory.valid[..., None]
        mean = (memory.vectors[memory.index] * valid).sum(1) / valid.sum(1)
        logits = self.choice(mean * self.encoder.scale).float()
        soft = ((logits if drawn is None else logits + drawn) / self.code_temperature).softmax(-1)
        hard = F.one_hot(soft.argmax(-1), soft.shape[-1]) + (soft - soft.detach())
        code = torch.einsum("bc,cld->bld", hard.to(self.codebook.dtype), self.codebook)
        place = self.encoder.places(memory.index, memory.valid)  # [B, S]
        return self.guidance * code.gather(1, place[..., None].expand(-1, -1, code.shape[-1]))

    def _told(self, memory: ItemStretches, code: Tensor | None, noisy: Tensor | None) -> Tensor:
        """[B, d] what the target's vector is told to be, of noisy ones [B, d] with their time."""
        beside = code
        if noisy is not None:
            noisy = (self.noise_scale * noisy)[:, None].to(memory.vectors.dtype)
            beside = noisy if code is None else code + noisy
        hidden = self.encoder(memory.vectors, memory.index, memory.valid, beside)
        last = memory.valid.sum(1) - 1
        return hidden[torch.arange(len(last), device=last.device), last]
