"""Tokenizers that learn by gradient: items' vectors through an encoder, whose output is quantised, and back."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from diffgrm.foundation.schema import OnlyWith
from diffgrm.semantic_ids.tokenizers.autoencoder import AdamW, Autoencoder, Perceptron, balanced
from diffgrm.semantic_ids.tokenizers.base import CodebookSize, NDigits, Tokenizer, check_shapes
from diffgrm.semantic_ids.tokenizers.codebooks import Codebooks
from diffgrm.semantic_ids.tokenizers.context import TokenizerContext

logger = logging.getLogger(__name__)

KMEANS_ITERATIONS = 100


@dataclass(frozen=True)
class Check:
    """What a check in training found of the training items.

    Attributes:
        epoch: after which it was made, from 1.
        surplus: items that have the digits of another one before them.
        utilisation: per digit, share of its codes in use.
        reconstruction_error: mean squared error of the vectors, scaled, that were put together again of their codes.
    """

    epoch: int
    surplus: int
    utilisation: tuple[float, ...]
    reconstruction_error: float


class VQTokenizer(Tokenizer):
    """Trains an autoencoder; digits are the nearest rows of its codebooks to what the encoder makes of an item.

    Vectors are centred and divided by one number, so that their entries have variance 1. Codebooks begin with K-means of
    what the untrained encoder makes of all training items. Every ``check_every`` epochs, and after the last, all of them
    are encoded; of the second half of training, the state with the fewest items in surplus is kept, of equal ones the one
    with the least reconstruction error (K-means of an untrained encoder has few collisions too, and no other merit).
    Errors and costs are squared distances of the encoder's output to the rows, so that repair needs no decoder. It is
    written with NumPy: PyTorch is not loaded, nor needed where items come later.

    Attributes:
        residual: how digits share the encoder's output, see :class:`Codebooks`.
        checks: what the checks in training found, in order; not saved.
    """

    residual: ClassVar[bool]
    costs_add = True
    only_with: ClassVar[OnlyWith] = (
        ("epsilon", "last_digit", ("sinkhorn",)),
        ("rounds", "last_digit", ("sinkhorn",)),
    )

    def __init__(
        self,
        n_digits: NDigits = 4,
        codebook_size: CodebookSize = 256,
        width: Annotated[int, Field(ge=1), "w, width of a row of a codebook"] = 32,
        hidden: Annotated[
            tuple[Annotated[int, Field(ge=1)], ...], "widths of the encoder's hidden layers; the decoder's are mirrored"
        ] = (512, 256),
        commitment: Annotated[float, Field(ge=0), "how strongly the encoder is drawn to the rows of its codes"] = 0.25,
        last_digit: Annotated[
            Literal["sinkhorn", "nearest"],
            "how the last digit is chosen in training: sinkhorn: so that its codes are used alike; nearest: as in use",
        ] = "sinkhorn",
        epsilon: Annotated[float, Field(ge=0.002), "sinkhorn: the smaller, the nearer to the cheapest choice"] = 0.003,
        rounds: Annotated[int, Field(ge=1), "sinkhorn: rounds of scaling"] = 10,
        epochs: Annotated[int, Field(ge=1), "passes over the training items"] = 100,
        batch_size: Annotated[int, Field(ge=1), "items of a step"] = 256,
        learning_rate: Annotated[float, Field(gt=0), "of AdamW"] = 0.001,
        weight_decay: Annotated[float, Field(ge=0), "of AdamW"] = 0.0001,
        check_every: Annotated[int, Field(ge=1), "epochs from one check to the next"] = 10,
        seed: int = 0,
    ) -> None:
        super().__init__(n_digits, codebook_size, seed)
        self.width, self.hidden, self.commitment = width, tuple(hidden), commitment
        self.last_digit, self.epsilon, self.rounds = last_digit, epsilon, rounds
        self.epochs, self.batch_size, self.check_every = epochs, batch_size, check_every
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.checks: list[Check] = []
        self.mean: np.ndarray | None = None  # [e]
        self.scale = np.ones(1, dtype=np.float32)
        self.encoder: Perceptron | None = None
        self.codebooks: Codebooks | None = None

    @property
    def _inner_width(self) -> int:
        return self.width if self.residual else self.width * self.n_digits

    # ---- fit ----------------------------------------------------------------------------------------------------

    def _fit(self, context: TokenizerContext) -> None:
        vectors, generator = context.training_embeddings, np.random.default_rng(self.seed)
        self.mean = vectors.mean(0, dtype=np.float64).astype(np.float32)
        self.scale = np.maximum(np.sqrt(np.mean((vectors - self.mean) ** 2, keepdims=True)[0]), 1e-12)
        rows = self._scaled(vectors)
        widths = [rows.shape[1], *self.hidden, self._inner_width]
        encoder, decoder = (Perceptron.drawn(ends, generator) for ends in (widths, widths[::-1]))
        books = Codebooks.clustered(encoder(rows), self.codebook_sizes, self.residual, KMEANS_ITERATIONS, self.seed)
        best = self._trained(Autoencoder(encoder, books, decoder), rows, generator)
        self.encoder, self.codebooks = best.encoder, best.codebooks

    def _trained(self, network: Autoencoder, rows: np.ndarray, generator: np.random.Generator) -> Autoencoder:
        """The network as it was at the best check of its training on rows [T, e]."""
        last = partial(balanced, epsilon=self.epsilon, rounds=self.rounds) if self.last_digit == "sinkhorn" else None
        optimiser = AdamW(network.parameters, self.learning_rate, self.weight_decay)
        best, self.checks = network, []
        for epoch in range(1, self.epochs + 1):
            order = generator.permutation(len(rows))
            for start in range(0, len(rows), self.batch_size):
                batch = rows[order[start : start + self.batch_size]]
                optimiser.step(network.gradients(batch, self.commitment, last)[1])
            if epoch % self.check_every == 0 or epoch == self.epochs:
                self.checks.append(check := self._check(network, rows, epoch))
                late = [c for c in self.checks if 2 * c.epoch > self.epochs]
                if late and check is min(late, key=lambda c: (c.surplus, c.reconstruction_error)):
                    best = copy.deepcopy(network)
        return best

    def _check(self, network: Autoencoder, rows: np.ndarray, epoch: int) -> Check:
        codes = network.codebooks.codes(network.encoder(rows))
        used = tuple(len(np.unique(codes[:, j])) / size for j, size in enumerate(self.codebook_sizes))
        surplus = len(codes) - len(np.unique(codes, axis=0))
        check = Check(epoch, surplus, used, network.reconstruction_error(rows))
        shares = ", ".join(f"{share:.0%}" for share in used)
        logger.info(
            "Epoch %d: %d items in surplus, codes in use %s, error %.4f", epoch, surplus, shares, check.reconstruction_error
        )
        return check

    # ---- use ----------------------------------------------------------------------------------------------------

    def _scaled(self, embeddings: np.ndarray) -> np.ndarray:
        assert self.mean is not None
        return (embeddings - self.mean) / self.scale

    def _inner(self, embeddings: np.ndarray) -> tuple[np.ndarray, Codebooks]:
        """[N, d] what the encoder makes of vectors, and the codebooks."""
        assert self.encoder is not None and self.codebooks is not None
        return self.encoder(self._scaled(embeddings)), self.codebooks

    def _encode(self, embeddings: np.ndarray) -> np.ndarray:
        inner, books = self._inner(embeddings)
        return books.codes(inner)

    def _digit_costs(self, embeddings: np.ndarray, codes: np.ndarray) -> np.ndarray:
        inner, books = self._inner(embeddings)
        return books.costs(inner, codes)

    def _error(self, embeddings: np.ndarray, codes: np.ndarray) -> np.ndarray:
        inner, books = self._inner(embeddings)
        return books.errors(inner, codes)

    def _arrays(self) -> dict[str, np.ndarray]:
        assert self.mean is not None and self.encoder is not None and self.codebooks is not None
        layers = {f"weight_{j}": weight for j, weight in enumerate(self.encoder.weights)}
        layers |= {f"bias_{j}": bias for j, bias in enumerate(self.encoder.biases)}
        return {"mean": self.mean, "scale": self.scale, "codebooks": self.codebooks.books, **layers}

    def _load_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        e = self.embedding_width
        widths, layers = [e, *self.hidden, self._inner_width], range(len(self.hidden) + 1)
        shapes: dict[str, tuple[int | None, ...]] = {f"weight_{j}": (widths[j], widths[j + 1]) for j in layers}
        shapes |= {f"bias_{j}": (widths[j + 1],) for j in layers}
        books = (self.n_digits, self.codebook_size, self.width)
        check_shapes(arrays, {"mean": (e,), "scale": (1,), "codebooks": books, **shapes})
        self.mean, self.scale = arrays["mean"], arrays["scale"]
        self.encoder = Perceptron([arrays[f"weight_{j}"] for j in layers], [arrays[f"bias_{j}"] for j in layers])
        self.codebooks = Codebooks(arrays["codebooks"], self.codebook_sizes, self.residual)


class MultiHeadVQVAE(VQTokenizer):
    """The encoder's output is cut into n pieces, each quantised by a codebook of its own: unordered digits.

    After LLaDA-Rec (arXiv 2511.06254): four heads of 32, hidden layers 512 and 256, commitment .25, Sinkhorn for the last
    head, the state with fewest collisions; there on vectors reduced to 128 by PCA (``embedding.width=128``), with batches
    of 2048 and 10,000 epochs. Its last rounds of Sinkhorn over colliding items are ``semantic_ids.collisions`` here.
    """

    residual = False


class ResidualVQVAE(VQTokenizer):
    """Each codebook quantises what those before it left over of the encoder's output (RQ-VAE): ordered digits.

    After TIGER (arXiv 2305.05065), which has hidden layers 512, 256, 128, three digits and one more for collisions
    (``semantic_ids.collisions=extra_digit``), commitment .25, and Adagrad over 20,000 epochs. It takes the nearest code
    throughout (``last_digit=nearest``); Sinkhorn for the last is LC-Rec's (arXiv 2311.09049). Losses are means over
    entries, as in LLaDA-Rec, where TIGER has sums; that a digit's target leaves the gradients of the digits before it
    alone is our reading.
    """

    residual = True
