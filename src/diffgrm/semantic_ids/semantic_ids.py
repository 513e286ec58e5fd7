"""SemanticIds: the digits of every item, how they were made distinct, and a report on their health."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np
import polars as pl

from diffgrm.foundation.schema import ModelFolderError, TokenizerError, first_few
from diffgrm.foundation.storage import State, cached, code_digests, digest
from diffgrm.semantic_ids.collisions import place, reassign
from diffgrm.semantic_ids.embeddings.base import normalise
from diffgrm.semantic_ids.extra_digit import numbered
from diffgrm.semantic_ids.threads import one_thread
from diffgrm.semantic_ids.tokenizers.base import LARGEST, Tokenizer, check_codes, in_chunks
from diffgrm.semantic_ids.tokenizers.context import TokenizerContext

HERE = Path(__file__).parent
EXTRA = "extra_digit"
ITEMS_AT_ONCE = 2**16  # that the report looks at together


@dataclass(frozen=True)
class TokenizerReport:
    """How good a set of semantic IDs is.

    Digits and report do not depend on the number of threads (see :func:`one_thread`). They may differ between processors
    for which BLAS has other code, and where a sentence encoder, which keeps all threads, gave other vectors.

    Attributes:
        n_items, n_digits, codebook_size: sizes; ``codebook_size`` is that of the digit with most codes.
        codebook_sizes: codes of each digit.
        colliding_items: items that shared a SID with another before repair.
        collision_groups, largest_group: SIDs with several items before repair, and the most items on one.
        moved_items: items whose digits the repair changed (0 for ``share`` and ``extra_digit``).
        distinct_sids: different SIDs after repair.
        utilisation: per digit, share of its codes in use.
        entropy_bits: per digit, entropy of the code distribution; at best log2 of its codes.
        quantisation_error, error_before_repair: mean squared distance between vector and centroids.
        neighbour_agreement: of an item's ten nearest items by embedding, the share found among the ten that have most
            digits in common with it (ties drawn at random, in expectation); ``chance_agreement`` is what random SIDs
            would get.
    """

    n_items: int
    n_digits: int
    codebook_size: int
    codebook_sizes: tuple[int, ...]
    colliding_items: int
    collision_groups: int
    largest_group: int
    moved_items: int
    distinct_sids: int
    utilisation: tuple[float, ...]
    entropy_bits: tuple[float, ...]
    quantisation_error: float
    error_before_repair: float
    neighbour_agreement: float
    chance_agreement: float

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """From what :meth:`to_dict` gave."""
        plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        return cls(**plain)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def rows(self) -> list[tuple[str, str]]:
        """The report as (what, value) lines for a reader."""
        sizes = self.codebook_sizes if len(set(self.codebook_sizes)) > 1 else self.codebook_sizes[:1]
        codes, bits = (", ".join(texts) for texts in zip(*((str(k), f"{np.log2(k):.3g}") for k in sizes), strict=True))
        return [
            ("items", f"{self.n_items:,}"),
            ("semantic ID", f"{self.n_digits} digits x {codes} codes"),
            ("items that collided", f"{self.colliding_items:,} in {self.collision_groups:,} groups"),
            ("largest group", f"{self.largest_group:,}"),
            ("items moved to a free SID", f"{self.moved_items:,}"),
            ("distinct SIDs", f"{self.distinct_sids:,}"),
            ("codes in use, per digit", ", ".join(f"{u:.1%}" for u in self.utilisation)),
            (f"entropy in bits (at best {bits})", ", ".join(f"{e:.2f}" for e in self.entropy_bits)),
            ("quantisation error", f"{self.quantisation_error:.4f} (before repair {self.error_before_repair:.4f})"),
            ("neighbour agreement", f"{self.neighbour_agreement:.3f} (by chance {self.chance_agreement:.3f})"),
        ]


@dataclass(frozen=True)
class SemanticIds:
    """The codes [I, n] int32 of every item; row i is item i of the dataset.

    With ``collisions="reassign"`` the rows are distinct; with ``"share"`` they may repeat; with ``"extra_digit"`` they are
    distinct by their last digit, which the tokenizer does not make, and which has as many codes as the largest group of
    items that the others do not tell apart: at most as many as a digit of the tokenizer. ``codebook_sizes`` says how many
    codes each digit has; ``codebook_size`` is the largest.
    """

    codes: np.ndarray
    codebook_sizes: tuple[int, ...]
    collisions: str = "reassign"

    def __post_init__(self) -> None:
        codes, sizes = np.array(self.codes), self.codebook_sizes  # the caller's own may be written to
        check_codes(codes, sizes)
        if self.collisions == EXTRA and (len(sizes) < 2 or sizes[-1] > max(sizes[:-1])):
            raise TokenizerError(
                f"codebook_sizes are {sizes}; expected an extra digit behind others, with at most as many codes"
            )
        codes.setflags(write=False)
        object.__setattr__(self, "codes", codes)

    @classmethod
    @one_thread()
    def build(
        cls, tokenizer: Tokenizer, embeddings: np.ndarray, collisions: str = "reassign", items: pl.Series | None = None
    ) -> tuple[SemanticIds, TokenizerReport]:
        """Encode all items with a fitted tokenizer, settle collisions, and report.

        Args:
            items: [I] their ids, for tokenizers that read items.

        Raises:
            TokenizerError: the code space is too small for distinct SIDs, or the tokenizer gave what are no codes or costs.
        """
        found = tokenizer.encode(embeddings, items)
        ids = cls._settled(tokenizer, embeddings, found, collisions)
        return ids, report(tokenizer, embeddings, found, ids)

    @classmethod
    def _settled(cls, tokenizer: Tokenizer, embeddings: np.ndarray, found: np.ndarray, collisions: str) -> SemanticIds:
        """The semantic IDs of what the tokenizer gave [I, n]."""
        codes = found
        if collisions == "reassign":
            codes = reassign(tokenizer, embeddings, found).codes
        elif collisions == EXTRA:
            codes = numbered(found, np.empty((0, tokenizer.n_digits + 1), np.int32), tokenizer.codebook_size)
        return cls.of(tokenizer, codes, collisions)

    @classmethod
    def of(cls, tokenizer: Tokenizer, codes: np.ndarray, collisions: str) -> SemanticIds:
        """Settled codes [I, n] with the sizes of a tokenizer's digits; an extra digit is as large as it must be."""
        sizes = tokenizer.codebook_sizes
        if collisions == EXTRA:
            sizes = *sizes, max(2, int(codes[:, -1].max(initial=0)) + 1)
        return cls(codes, sizes, collisions)

    def extended(self, tokenizer: Tokenizer, embeddings: np.ndarray) -> SemanticIds:
        """With items that come later, behind those that are there, whose SIDs do not move.

        With ``reassign``, new items get the free SIDs nearest to them; with ``extra_digit``, the next free numbers.

        Args:
            tokenizer: the fitted one.
            embeddings: [N, e] of the new items.

        Raises:
            TokenizerError: no free SIDs are left for them.
        """
        codes = self._beside(self.codes, tokenizer, embeddings)
        return self.of(tokenizer, np.concatenate([self.codes, codes.astype(self.codes.dtype)]), self.collisions)

    def moved(self, items: np.ndarray, tokenizer: Tokenizer, embeddings: np.ndarray) -> SemanticIds:
        """With SIDs made anew for some items [N], whose own SIDs become free; the others' do not move.

        Args:
            embeddings: [N, e] of those items.
        """
        stay = np.ones(len(self), dtype=bool)
        stay[items] = False
        codes = self.codes.copy()
        codes[items] = self._beside(self.codes[stay], tokenizer, embeddings)
        return self.of(tokenizer, codes, self.collisions)

    def _beside(self, taken: np.ndarray, tokenizer: Tokenizer, embeddings: np.ndarray) -> np.ndarray:
        """Codes [N, n] for items that come to others with codes [T, n]."""
        found = tokenizer.encode(embeddings)
        if self.collisions == "reassign":
            return (
                place(tokenizer, embeddings, found, taken) if len(taken) else reassign(tokenizer, embeddings, found).codes
            )
        return numbered(found, taken, tokenizer.codebook_size) if self.collisions == EXTRA else found

    def tokenizer_sizes(self) -> tuple[int, ...]:
        """``codebook_sizes`` of the tokenizer's own digits."""
        return self.codebook_sizes[: -1 if self.collisions == EXTRA else None]

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def n_digits(self) -> int:
        """n, digits of a SID."""
        return self.codes.shape[1]

    @property
    def codebook_size(self) -> int:
        """K, codes of the digit that has most."""
        return max(self.codebook_sizes)

    def sid_of_item(self) -> np.ndarray:
        """[I] the number of each item's SID among the distinct SIDs; items that share one have equal numbers."""
        return np.unique(self.codes, axis=0, return_inverse=True)[1].reshape(-1)

    def save(self, path: Path) -> None:
        """Write ``semantic_ids.safetensors``."""
        facts: dict[str, Any] = {"codebook_size": self.codebook_size, "collisions": self.collisions}
        if len(set(self.codebook_sizes)) > 1:
            facts["codebook_sizes"] = self.codebook_sizes
        State({"codes": self.codes.astype(np.int32)}, facts).save(path)

    @classmethod
    def load(cls, path: Path) -> SemanticIds:
        """Read what :meth:`save` wrote.

        Raises:
            ModelFolderError: missing, damaged or foreign file.
        """
        state = State.load(path)
        try:
            codes, facts = state.arrays["codes"], state.facts
            sizes = facts.get("codebook_sizes", [facts["codebook_size"]] * codes.shape[-1])
            if any(type(size) is not int or not 2 <= size <= LARGEST for size in sizes):
                raise TokenizerError(
                    f"its codebook sizes are {first_few(sizes)}; expected whole numbers from 2 to {LARGEST}"
                )
            return cls(codes, tuple(sizes), facts["collisions"])
        except (KeyError, IndexError, TypeError, TokenizerError) as error:
            raise ModelFolderError(f"{path} does not hold semantic IDs: {error}") from error


def tokenize_items(
    tokenizer: Tokenizer,
    context: TokenizerContext,
    collisions: str,
    settings: dict[str, Any],
    cache: Path | None = None,
) -> tuple[SemanticIds, TokenizerReport]:
    """Fit a tokenizer on the training items and give all items their SIDs, through the cache.

    The key of the cache is all that decides the digits: the context (events with what is known of them, and ids of items,
    where the tokenizer reads them), the settings, the tokenizer's own identity, and the code: of the tokenizer and what it
    inherits from, of repair and keys. Other modules that a tokenizer of your own calls are not followed; nothing is cached
    of one that has no file.

    Args:
        context: the items, and what may be learnt from.
        settings: JSON-able, what the tokenizer was built with.
        cache: folder of cached semantic IDs; None is the user's cache folder.

    Raises:
        TokenizerError: too few training items, or a code space too small for distinct SIDs.
    """

    def make() -> State:
        ids, report = SemanticIds.build(tokenizer.fit(context), context.embeddings, collisions, context.items)
        state = tokenizer.state()
        return State({**state.arrays, "semantic_ids": ids.codes}, {**state.facts, "report": report.to_dict()})

    code = code_digests(type(tokenizer), *HERE.rglob("*.py"))
    if code is None:
        stored = make()
    else:
        kind = f"{type(tokenizer).__module__}:{type(tokenizer).__qualname__}"
        identity = [kind, *code, json.dumps(settings, sort_keys=True), tokenizer.seed, context.seed, collisions]
        identity += [context.embeddings, context.in_training, *tokenizer.identity()]
        if tokenizer.reads_events and context.events is not None:
            events = context.events
            identity += [events.values, events.offsets, *events.marks.arrays, *events.facts.arrays]
            identity.append(events.marks.settings.said)
        if tokenizer.reads_items and context.items is not None:
            identity.append(context.items.to_list())
        stored = cached(cache, f"{digest(identity)}.safetensors", "semantic IDs", make)
    codes, report = stored.arrays.pop("semantic_ids"), stored.facts.pop("report")
    tokenizer.load_state(stored)
    return SemanticIds.of(tokenizer, codes, collisions), TokenizerReport.from_dict(report)


def report(tokenizer: Tokenizer, embeddings: np.ndarray, found: np.ndarray, ids: SemanticIds) -> TokenizerReport:
    """What there is to say of semantic IDs; ``found`` [I, n] are the digits that the tokenizer gave."""
    codes, own = ids.codes, ids.codes[:, : tokenizer.n_digits]
    _, sizes = np.unique(found, axis=0, return_counts=True)
    counts = [np.bincount(codes[:, j], minlength=size) for j, size in enumerate(ids.codebook_sizes)]
    return TokenizerReport(
        n_items=len(codes),
        n_digits=ids.n_digits,
        codebook_size=ids.codebook_size,
        codebook_sizes=ids.codebook_sizes,
        colliding_items=int(sizes[sizes > 1].sum()),
        collision_groups=int((sizes > 1).sum()),
        largest_group=int(sizes.max(initial=0)),
        moved_items=int((found != own).any(1).sum()),
        distinct_sids=len(np.unique(codes, axis=0)),
        utilisation=tuple(float((c > 0).mean()) for c in counts),
        entropy_bits=tuple(_entropy(c) for c in counts),
        quantisation_error=float(in_chunks(tokenizer.error, embeddings, own, rows=ITEMS_AT_ONCE).mean()),
        error_before_repair=float(in_chunks(tokenizer.error, embeddings, found, rows=ITEMS_AT_ONCE).mean()),
        neighbour_agreement=_neighbour_agreement(embeddings, own),
        chance_agreement=min(10, len(codes) - 1) / max(len(codes) - 1, 1),
    )


def _entropy(counts: np.ndarray) -> float:
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log2(p)).sum())


def _neighbour_agreement(embeddings: np.ndarray, codes: np.ndarray, sample: int = 1000, near: int = 10) -> float:
    n_items, n_digits = codes.shape
    near = min(near, n_items - 1)
    if near < 1:
        return 1.0
    chosen = np.random.default_rng(0).choice(n_items, min(sample, n_items), replace=False)
    neighbours, agreement = _nearest_items(embeddings, chosen, near), []
    columns = np.ascontiguousarray(codes.T)
    for item, nearest in zip(chosen, neighbours, strict=True):
        shared = np.zeros(n_items, dtype=np.uint8)  # digits in common; there are at most 65
        for column in columns:
            shared += column == column[item]
        others = np.array([np.count_nonzero(shared == count) for count in range(n_digits + 1)])
        others[n_digits] -= 1  # the item itself
        at_least = others[::-1].cumsum()[::-1]
        cut = int(np.flatnonzero(at_least >= near)[-1])  # digits shared by the last of the ten
        chance = (near - (at_least[cut] - others[cut])) / others[cut]
        agreement.append(((shared[nearest] > cut).sum() + (shared[nearest] == cut).sum() * chance) / near)
    return float(np.mean(agreement))


def _nearest_items(embeddings: np.ndarray, chosen: np.ndarray, count: int) -> np.ndarray:
    """[S, count] the other items that are most like each of the chosen ones [S], by cosine; a block of items at a time."""
    asked, found = normalise(embeddings[chosen]), np.empty((len(chosen), 0), dtype=np.int64)
    cosines = np.empty(found.shape, dtype=np.float32)
    for start in range(0, len(embeddings), ITEMS_AT_ONCE):
        block = normalise(embeddings[start : start + ITEMS_AT_ONCE])
        cosine, item = faiss.knn(asked, block, min(count + 1, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        cosine[item + start == chosen[:, None]] = -np.inf
        found, cosines = np.concatenate([found, item + start], axis=1), np.concatenate([cosines, cosine], axis=1)
        best = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
        found, cosines = np.take_along_axis(found, best, 1), np.take_along_axis(cosines, best, 1)
    return found
