"""A tokenizer that learns by gradient: a test of what the interface asks of those from outside the library."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from diffgrm.semantic_ids.threads import one_thread
from diffgrm.semantic_ids.tokenizers.base import CodebookSize, NDigits, Tokenizer, squared_distances
from diffgrm.semantic_ids.tokenizers.context import TokenizerContext


class GradientTokenizer(Tokenizer):
    """An autoencoder: project, quantise the residuals digit by digit, project back. Its error does not add over digits."""

    needs_items_per_code = False

    def __init__(
        self,
        n_digits: NDigits = 3,
        codebook_size: CodebookSize = (16, 8, 4),
        width: Annotated[int, Field(ge=1), "width of the codes' vectors"] = 8,
        steps: Annotated[int, Field(ge=1), "steps of gradient descent"] = 200,
        learning_rate: Annotated[float, Field(gt=0), "of gradient descent"] = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__(n_digits, codebook_size, seed)
        self.width, self.steps, self.learning_rate = width, steps, learning_rate
        self.arrays: dict[str, np.ndarray] = {}  # into [e, w], back [w, e], and a codebook [K_j, w] a digit

    def _fit(self, context: TokenizerContext) -> None:
        import torch

        with one_thread(), context.working_folder() as folder:  # anew, now that torch is loaded
            points = torch.from_numpy(context.training_embeddings).to(context.device)
            draw = torch.Generator().manual_seed(context.seed)
            e, w = points.shape[1], self.width
            shapes = {"into": (e, w), "back": (w, e)} | {f"book_{j}": (k, w) for j, k in enumerate(self.codebook_sizes)}
            learnt = {
                name: (torch.randn(shape, generator=draw) / shape[0] ** 0.5).to(context.device).requires_grad_()
                for name, shape in shapes.items()
            }
            optimiser = torch.optim.SGD(learnt.values(), self.learning_rate)
            for _ in range(self.steps):
                rows = torch.randint(len(points), (64,), generator=draw).to(context.device)
                target = points[rows]
                inner = target @ learnt["into"]
                residual, total = inner.detach(), torch.zeros_like(inner)
                for j in range(self.n_digits):
                    book = learnt[f"book_{j}"]
                    picked = book[torch.cdist(residual, book.detach()).argmin(1)]
                    residual, total = residual - picked.detach(), total + picked
                straight = inner + (total - inner).detach()
                losses = (straight @ learnt["back"] - target) ** 2, (total - inner.detach()) ** 2
                optimiser.zero_grad()
                sum(loss.mean() for loss in losses).backward()
                optimiser.step()
            torch.save(learnt, folder / "gradient_tokenizer.pt")
            self.arrays = {name: values.detach().cpu().numpy() for name, values in learnt.items()}

    def _encode(self, embeddings: np.ndarray) -> np.ndarray:
        residual, digits = embeddings @ self.arrays["into"], []
        for j in range(self.n_digits):
            book = self.arrays[f"book_{j}"]
            digits.append(squared_distances(residual, book).argmin(1))
            residual = residual - book[digits[-1]]
        return np.stack(digits, axis=1)

    def _error(self, embeddings: np.ndarray, codes: np.ndarray) -> np.ndarray:
        total = sum(self.arrays[f"book_{j}"][codes[:, j]] for j in range(self.n_digits))
        return ((total @ self.arrays["back"] - embeddings) ** 2).sum(1)

    def _arrays(self) -> dict[str, np.ndarray]:
        return self.arrays

    def _load_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        self.arrays = arrays
