"""An autoencoder whose inner vectors are rows of codebooks (VQ-VAE, arXiv 1711.00937), with its gradients, in NumPy.

Letters: B rows of a batch, e width of item vectors, d of inner ones, n digits, K codes, w width of a row of a codebook.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Self

import numpy as np
import scipy.sparse as sp

from diffgrm.semantic_ids.tokenizers.codebooks import Codebooks


@dataclass
class Perceptron:
    """Linear layers with ReLU between them.

    Attributes:
        weights: [in, out] of each layer.
        biases: [out] of each layer.
    """

    weights: list[np.ndarray]
    biases: list[np.ndarray]

    @classmethod
    def drawn(cls, widths: Sequence[int], generator: np.random.Generator) -> Self:
        """Weights uniform after Glorot and Bengio (2010), biases 0.

        Args:
            widths: of the input, of the hidden layers and of the output.
        """
        ends = [(6 / (before + after)) ** 0.5 for before, after in pairwise(widths)]
        shapes = list(pairwise(widths))
        weights = [generator.uniform(-end, end, shape).astype(np.float32) for end, shape in zip(ends, shapes, strict=True)]
        return cls(weights, [np.zeros(after, dtype=np.float32) for _, after in shapes])

    @property
    def parameters(self) -> list[np.ndarray]:
        """All that is learnt."""
        return [*self.weights, *self.biases]

    def states(self, rows: np.ndarray) -> list[np.ndarray]:
        """The input [B, in] of every layer, then the output [B, out]."""
        states = [rows]
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            state = states[-1] @ weight + bias
            states.append(np.maximum(state, 0) if layer < len(self.weights) - 1 else state)
        return states

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """The output [B, out]."""
        return self.states(rows)[-1]

    def gradients(self, states: list[np.ndarray], gradient: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """Gradients of the parameters, and of the input [B, in], by that of the output [B, out]."""
        weights, biases = [], []
        for layer in reversed(range(len(self.weights))):
            if layer < len(self.weights) - 1:
                gradient = gradient * (states[layer + 1] > 0)
            weights.append(states[layer].T @ gradient)
            biases.append(gradient.sum(0))
            gradient = gradient @ self.weights[layer].T
        return [*reversed(weights), *reversed(biases)], gradient


class Losses(NamedTuple):
    """Of a batch: mean squared errors of the vectors put together again, and of the codebooks' rows."""

    reconstruction: float
    quantisation: float


@dataclass
class Autoencoder:
    """Encoder, codebooks and decoder: vectors [B, e] -> inner vectors [B, d] -> rows of codebooks -> vectors [B, e]."""

    encoder: Perceptron
    codebooks: Codebooks
    decoder: Perceptron

    @property
    def parameters(self) -> list[np.ndarray]:
        """All that is learnt."""
        return [*self.encoder.parameters, self.codebooks.books, *self.decoder.parameters]

    def reconstruction_error(self, rows: np.ndarray) -> float:
        """Mean squared error of vectors [B, e] that were put together again of their nearest codes."""
        books = self.codebooks
        again = self.decoder(books.joined(books.rows(books.codes(self.encoder(rows)))))
        return float(((again - rows) ** 2).mean())

    def gradients(
        self, rows: np.ndarray, commitment: float, last: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> tuple[Losses, list[np.ndarray]]:
        """The losses of a batch [B, e], and the gradients of all parameters.

        The loss is the mean squared error of the output; plus that of the codes' rows to what each is to be near, by which
        the codebooks learn; plus ``commitment`` times the same, by which the encoder learns. To the encoder, the output's
        gradient goes straight through the choice of codes. What a digit is to be near depends on the digits before it by
        its value only.

        Args:
            last: see :meth:`Codebooks.codes`.
        """
        books = self.codebooks
        inner = self.encoder.states(rows)
        codes = books.codes(inner[-1], last)
        outer = self.decoder.states(books.joined(books.rows(codes)))
        wrong, gap = outer[-1] - rows, books.targets(inner[-1], codes) - books.rows(codes)
        of_decoder, straight = self.decoder.gradients(outer, 2 / wrong.size * wrong)
        pull = 2 / gap.size * gap
        of_encoder, _ = self.encoder.gradients(inner, straight + commitment * books.joined(pull))
        losses = Losses(float((wrong**2).mean()), float((gap**2).mean()))
        return losses, [*of_encoder, -_by_code(pull, codes, books.books.shape[1]), *of_decoder]


def _by_code(rows: np.ndarray, codes: np.ndarray, size: int) -> np.ndarray:
    """[n, K, w] sums of rows [B, n, w] by their codes [B, n]."""
    ones, place = np.ones(len(codes), dtype=rows.dtype), np.arange(len(codes))
    return np.stack(
        [sp.csr_array((ones, (column, place)), shape=(size, len(codes))) @ rows[:, j] for j, column in enumerate(codes.T)]
    )


class AdamW:
    """Adam with decoupled weight decay (arXiv 1711.05101), which changes the parameters in place."""

    def __init__(self, parameters: list[np.ndarray], learning_rate: float, weight_decay: float) -> None:
        self.parameters, self.learning_rate, self.weight_decay = parameters, learning_rate, weight_decay
        self.moments = [(np.zeros_like(parameter), np.zeros_like(parameter)) for parameter in parameters]
        self.steps = 0

    def step(self, gradients: list[np.ndarray]) -> None:
        """One step against the gradients."""
        self.steps += 1
        first, second = 1 - 0.9**self.steps, 1 - 0.999**self.steps
        for parameter, (mean, square), gradient in zip(self.parameters, self.moments, gradients, strict=True):
            mean += 0.1 * (gradient - mean)
            square += 0.001 * (gradient**2 - square)
            parameter *= 1 - self.learning_rate * self.weight_decay
            parameter -= self.learning_rate / first * mean / (np.sqrt(square / second) + 1e-8)


def balanced(distances: np.ndarray, epsilon: float, rounds: int) -> np.ndarray:
    """[B] codes such that all K of them get about as many rows (Sinkhorn, arXiv 1306.0895).

    Distances are brought to -1..1 first. Then the plan exp(-distance / epsilon) is scaled in turn so that all codes, and
    all rows, have equal sums; each row takes the code that has most of it. With B = K, many rounds and a small epsilon,
    that is the cheapest of all permutations.

    Args:
        distances: [B, K].
        epsilon: at least .002.
    """
    low, high = distances.min(), distances.max()
    centred = (distances.astype(np.float64) - (low + high) / 2) / max((high - low) / 2, 1e-12)
    plan = np.exp(-centred / epsilon)
    for _ in range(rounds):
        plan /= plan.sum(0) * plan.shape[1]
        plan /= plan.sum(1, keepdims=True) * plan.shape[0]
    return plan.argmax(1)
