"""Tokenizer, the interface from item vectors to digits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import polars as pl
from pydantic import AfterValidator, BeforeValidator, Field

from diffgrm.foundation import registry
from diffgrm.foundation.parts import Part
from diffgrm.foundation.schema import DataError, TokenizerError
from diffgrm.foundation.storage import State
from diffgrm.semantic_ids.embeddings.base import check_embeddings
from diffgrm.semantic_ids.threads import one_thread
from diffgrm.semantic_ids.tokenizers.context import TokenizerContext

LARGEST = 65_536  # codes of a digit
MOST_DIGITS = 64
AT_ONCE = 2**22  # numbers of a block


def _whole_numbers(value: int | tuple[int, ...]) -> int | tuple[int, ...]:
    sizes = value if isinstance(value, tuple) else (value,)
    if not sizes or any(size < 2 or size > LARGEST for size in sizes):
        raise ValueError(f"expected whole numbers from 2 to {LARGEST}, found {value}")
    return value


NDigits = Annotated[int, Field(ge=1, le=MOST_DIGITS), "n, digits of a semantic ID"]
CodebookSize = Annotated[
    int | tuple[int, ...],
    AfterValidator(_whole_numbers),
    "K, codes of a digit: 2 to 65536, or a list of n such numbers, one a digit",
]


def power_of_two(value: Any) -> int:
    """A codebook size that is a power of two.

    Raises:
        TokenizerError: it is none from 2 to 65536.
    """
    if not isinstance(value, int) or value < 2 or value > LARGEST or value & (value - 1):
        raise TokenizerError(
            f"expected a power of two from 2 to 65536, found {value}: this tokenizer counts the codes of a digit in bits, "
            "as many for every digit; for another codebook_size use tokenizer.name=residual_kmeans"
        )
    return value


PowerOfTwo = Annotated[int, BeforeValidator(power_of_two), "K, codes of a digit: a power of two up to 65536"]


class Tokenizer(ABC):
    """Item vectors [N, e] -> codes [N, n] int32, digit j in 0..K_j-1. Fitted on training items only.

    A row's codes depend on that row alone (its vector, and which item it is for those that read items), so an item that
    comes later gets its digits the same way. They do not depend on the number of threads: see :func:`one_thread`.

    Attributes:
        codebook_sizes: (K_0, ..., K_{n-1}), codes of each digit; ``codebook_size`` is the largest.
        needs_items_per_code: K-means needs at least as many items as codes.
        reads_events: training events decide the codes too; others are not shown them.
        reads_items: which items the rows are decides the codes too; others are not shown their ids.
        costs_add: the error is a sum over digits, up to a constant of the item, so that the costs of changing single
            digits add up. Collision repair asks the others for the true error of every code that it considers.

    Raises:
        TokenizerError: sizes out of range, or fewer training items than codes.
        DataError: vectors that are not finite or not as wide as those it was fitted on.
    """

    needs_items_per_code: ClassVar[bool] = True
    reads_events: ClassVar[bool] = False
    reads_items: ClassVar[bool] = False
    costs_add: ClassVar[bool] = False

    def __init__(self, n_digits: int, codebook_size: int | Sequence[int], seed: int) -> None:
        if not 1 <= n_digits <= MOST_DIGITS:
            raise TokenizerError(f"n_digits: expected 1 to {MOST_DIGITS}, found {n_digits}")
        sizes = (codebook_size,) * n_digits if isinstance(codebook_size, int) else tuple(codebook_size)
        if len(sizes) != n_digits:
            raise TokenizerError(
                f"codebook_size: expected one number, or a list of n_digits={n_digits} numbers; found {len(sizes)}: {sizes}"
            )
        try:
            _whole_numbers(sizes)
        except ValueError as error:
            raise TokenizerError(f"codebook_size: {error}") from None
        self.n_digits, self.codebook_sizes, self.seed = n_digits, sizes, seed
        self.embedding_width: int | None = None

    @property
    def codebook_size(self) -> int:
        """K, codes of the digit that has most."""
        return max(self.codebook_sizes)

    @one_thread()
    def fit(self, context: TokenizerContext) -> Self:
        """Learn the codebooks from training items."""
        embeddings = check_embeddings(context.embeddings, len(context.embeddings))
        count = int(context.in_training.sum())
        if self.needs_items_per_code and count < self.codebook_size:
            way = "give more items with training events"
            if count >= 2:  # codes that a digit has at least
                way = f"lower tokenizer.codebook_size to at most {self._largest_size(count)}"
            raise TokenizerError(f"{count} training items are fewer than the {self.codebook_size} codes of a digit; {way}")
        if self.reads_events and context.events is None:
            raise TokenizerError(
                f"{type(self).__name__} learns from training events, and there are none; give interactions, or choose "
                "another tokenizer.name"
            )
        if self.reads_items and context.items is None:
            raise TokenizerError(
                f"{type(self).__name__} goes by the ids of items, and there are none; give TokenizerContext(items=...), or "
                "choose another tokenizer.name"
            )
        self.embedding_width = embeddings.shape[1]
        events, items = context.events if self.reads_events else None, context.items if self.reads_items else None
        self._fit(replace(context, embeddings=embeddings, events=events, items=items))
        return self

    def check(self, items: pl.Series) -> None:
        """Complain of what stands in the way of fitting on these items [I] (their ids), before vectors are made of them."""

    def identity(self) -> list[str]:
        """What decides the codes besides settings and context, such as the digest of a file; in the key of the cache."""
        return []

    @one_thread()
    def encode(self, embeddings: np.ndarray, items: pl.Series | None = None) -> np.ndarray:
        """Nearest codes [N, n] int32 of vectors [N, e]; different items may get the same.

        Args:
            items: [N] their ids, for tokenizers that read items; None: of items that come later, which nothing is known of.

        Raises:
            TokenizerError: what the class gives are no codes of its sizes.
        """
        codes = np.asarray(self._encode(self._checked(embeddings)))
        try:
            check_codes(codes, self.codebook_sizes, len(embeddings))
        except TokenizerError as error:
            raise TokenizerError(f"what {type(self).__name__} gives is of no use: {error}") from None
        return codes.astype(np.int32)

    @one_thread()
    def digit_costs(self, embeddings: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Quantisation error [N, n, K] if one digit were changed and the others kept; inf for codes a digit lacks.

        Raises:
            TokenizerError: what the class gives are no finite numbers, or too few.
        """
        found = self._digit_costs(self._checked(embeddings), codes)
        costs = self._numbers("costs of digits", found, (len(embeddings), self.n_digits, self.codebook_size))
        for digit, size in enumerate(self.codebook_sizes):
            self._check_finite("costs of digits", costs[:, digit, :size])
            costs[:, digit, size:] = np.inf
        return costs

    @one_thread()
    def error(self, embeddings: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Squared distance [N] between the (transformed) vectors and what their codes stand for.

        Raises:
            TokenizerError: what the class gives are no finite numbers, or too few.
        """
        errors = self._numbers("errors", self._error(self._checked(embeddings), codes), (len(embeddings),))
        self._check_finite("errors", errors)
        return errors

    def pair_errors(self, embeddings: np.ndarray, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Errors [P] of pairs of a vector and codes, a block at a time.

        Args:
            embeddings: [N, e].
            rows: [P] which vector.
            codes: [P, n].
        """
        block = max(1, AT_ONCE // embeddings.shape[1])
        return in_chunks(lambda row, code: self.error(embeddings[row], code), rows, codes, rows=block)

    def _checked(self, embeddings: np.ndarray) -> np.ndarray:
        embeddings = check_embeddings(embeddings, len(embeddings))
        if self.embedding_width is None:
            raise TokenizerError("this tokenizer is not fitted yet: call fit first")
        if embeddings.shape[1] != self.embedding_width:
            raise DataError(
                f"embeddings are {embeddings.shape[1]} wide, but the tokenizer was fitted on {self.embedding_width}; "
                "use the same encoder"
            )
        return embeddings

    def _numbers(self, what: str, found: Any, shape: tuple[int, ...]) -> np.ndarray:
        """What the class computed, as floats of a shape."""
        numbers = np.asarray(found)
        if numbers.shape != shape or numbers.dtype.kind not in "fiu":
            raise TokenizerError(
                f"{what} of {type(self).__name__} have shape {numbers.shape} and type {numbers.dtype}; expected numbers "
                f"{shape}"
            )
        return numbers if numbers.dtype.kind == "f" else numbers.astype(np.float32)

    def _check_finite(self, what: str, numbers: np.ndarray) -> None:
        """Refuse what collision repair could compare with nothing."""
        if not np.isfinite(numbers).all():
            strange = np.count_nonzero(~np.isfinite(numbers.reshape(len(numbers), -1)).all(axis=1))
            raise TokenizerError(
                f"{what} of {type(self).__name__} are NaN or infinite for {strange} of {len(numbers)} items; expected "
                "finite numbers"
            )

    def _largest_size(self, items: int) -> int:
        """The largest codebook that so many items can fill."""
        return items

    def code_vectors(self) -> np.ndarray:
        """[n, K, e] what each code stands for, where an item's vector is about the sum of those of its codes.

        Raises:
            TokenizerError: the tokenizer has no such vectors.
        """
        raise TokenizerError(f"{type(self).__name__} has no vectors of codes that add up to items'; use tokenizer.name=opq")

    @abstractmethod
    def _fit(self, context: TokenizerContext) -> None: ...

    @abstractmethod
    def _encode(self, embeddings: np.ndarray) -> np.ndarray: ...

    @abstractmethod
    def _error(self, embeddings: np.ndarray, codes: np.ndarray) -> np.ndarray: ...

    def _digit_costs(self, embeddings: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Fresh costs [N, n, K], here by asking for the error of every change; what stands at missing codes is ignored."""
        costs = np.zeros((len(embeddings), self.n_digits, self.codebook_size), dtype=np.float32)
        for digit, size in enumerate(self.codebook_sizes):
            rows = np.repeat(np.arange(len(embeddings)), size)
            changed = codes[rows]
            changed[:, digit] = np.tile(np.arange(size), len(embeddings))
            costs[:, digit, :size] = self.pair_errors(embeddings, rows, changed).reshape(-1, size)
        return costs

    @abstractmethod
    def _arrays(self) -> dict[str, np.ndarray]: ...

    @abstractmethod
    def _load_arrays(self, arrays: dict[str, np.ndarray]) -> None: ...

    def state(self) -> State:
        """Everything learnt; with the settings, it gives the same codes again."""
        return State(self._arrays(), {"embedding_width": self.embedding_width})

    def load_state(self, state: State) -> Self:
        """Take back what :meth:`state` gave."""
        self.embedding_width = state.facts["embedding_width"]
        self._load_arrays(state.arrays)
        return self

    def __repr__(self) -> str:
        size = self.codebook_size if len(set(self.codebook_sizes)) == 1 else list(self.codebook_sizes)
        return f"{type(self).__name__}(n_digits={self.n_digits}, codebook_size={size})"


def gives_code_vectors(tokenizer: Part) -> bool:
    """Whether a tokenizer of these settings has vectors of codes, see :meth:`Tokenizer.code_vectors`."""
    kind: type[Tokenizer] = registry.resolve("tokenizer", tokenizer.name)
    return kind.code_vectors is not Tokenizer.code_vectors and not tokenizer.options.get("unit")


def check_codes(codes: np.ndarray, sizes: Sequence[int], rows: int | None = None) -> None:
    """Make sure that codes [N, n] are whole numbers, digit j from 0 to ``sizes[j] - 1``.

    Args:
        rows: N, where it is known.

    Raises:
        TokenizerError: of another kind or shape, or out of range.
    """
    if codes.ndim != 2 or not np.issubdtype(codes.dtype, np.integer) or (rows is not None and len(codes) != rows):
        raise TokenizerError(
            f"codes have shape {codes.shape} and type {codes.dtype}; expected whole numbers "
            f"[{'items' if rows is None else rows}, n]"
        )
    if codes.shape[1] != len(sizes):
        raise TokenizerError(
            f"codes have {codes.shape[1]} digits, but codebook_sizes are {len(sizes)}: {tuple(sizes)}; give one size a "
            "digit"
        )
    wrong = np.flatnonzero(((codes < 0) | (codes >= np.array(sizes))).any(axis=0))
    if wrong.size:
        ends = [(j, codes[:, j].min(), codes[:, j].max()) for j in wrong.tolist()]
        lines = [f"codes of digit {j} lie in {low}..{high}; expected 0..{sizes[j] - 1}" for j, low, high in ends]
        raise TokenizerError("\n".join(lines))


def check_shapes(arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int | None, ...]]) -> None:
    """Make sure that what was saved of a tokenizer goes together.

    Raises:
        TokenizerError: arrays of other shapes.
    """
    found = {name: arrays[name].shape if name in arrays else None for name in shapes}
    if found != shapes:
        raise TokenizerError(f"the arrays of the tokenizer have the shapes {found}, expected {dict(shapes)}")


def in_chunks(function: Any, *arrays: np.ndarray, rows: int) -> np.ndarray:
    """Apply a row-wise function to blocks of rows and join the results."""
    count = len(arrays[0])
    if count <= rows:
        return function(*arrays)
    return np.concatenate([function(*(a[i : i + rows] for a in arrays)) for i in range(0, count, rows)])


def squared_distances(points: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Squared distances [N, K] between points [N, d] and centroids [K, d]."""
    cross = points @ centroids.T
    return np.maximum((points**2).sum(1)[:, None] - 2 * cross + (centroids**2).sum(1), 0)
