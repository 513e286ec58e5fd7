"""What the rest of the house may ask of a network, and the one place where it is checked.

Letters: B batch, S history length, M items, N targets, n digits, K codes, Q partial SIDs a user, d width.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from diffgrm.foundation.schema import RecipeError
from diffgrm.networks.inputs import Histories, ItemFeatures
from diffgrm.networks.item_posterior import Choose, Steered
from diffgrm.networks.item_vectors import DigitEmbedding
from diffgrm.networks.memory import Memory


class EncodesHistories(Protocol):
    """Every network that is trained: items to vectors, histories of such vectors to a memory.

    A network that reads texts itself, not by a branch of its item vectors, says so (``reads_texts = True``).

    Attributes:
        max_len: most recent items of a history that are looked at.
        causal: whether one pass over a history serves all targets in it (what stands at a place knows no later item).
    """

    max_len: int
    causal: bool

    def item_vectors(self, items: ItemFeatures) -> Tensor:
        """[M, ...] what stands for items in histories: mostly vectors [M, d]; a network over raw digits returns those."""
        ...

    def encode_history(self, vectors: Tensor, index: Tensor, valid: Tensor) -> Any:
        """The memory of B histories: has a length, ``rows(chosen)`` and, for causal networks, ``slots(length)``.

        Args:
            vectors: [M, ...] of the distinct items that occur (:meth:`item_vectors`).
            index: [B, S] which of them stands where, oldest first, any number below M where padded; S at most ``max_len``.
            valid: [B, S] bool, true for the first places of each row, at least one a row.
        """
        ...


class TakesTypes(EncodesHistories, Protocol):
    """What an event was (a view, a purchase) is told of every place of a history."""

    def take_types(self, count: int) -> None:
        """Be ready for so many types of events; to be called once, before training or weights are read."""
        ...

    def typed(self, vectors: Tensor, types: Tensor) -> Tensor:
        """Vectors [M, ...] of items in histories, met by events of types [M]."""
        ...


class TakesContext(EncodesHistories, Protocol):
    """What else is told of every place of a history: times, categories of the event and of the user."""

    def take_context(self, count: int) -> None:
        """Be ready for inputs with so many values together; to be called once, before training or weights are read."""
        ...

    def in_context(self, vectors: Tensor, context: Tensor) -> Tensor:
        """Vectors [V, ...] of places of histories, of which the inputs have the values [V, C]."""
        ...


class Denoises(EncodesHistories, Protocol):
    """Masked diffusion: any subset of the digits may be known.

    A network whose digits are independent of each other, given the history, says so (``independent_digits = True``): it
    pays no heed to known digits.
    """

    def denoise(self, codes: Tensor, mask: Tensor, memory: Any) -> Tensor:
        """Logits [B, Q, n, K] of every digit where mask [B, Q, n] is true, given the codes [B, Q, n] where it is not."""
        ...


class DenoisesByStates(Denoises, Protocol):
    """Masked diffusion whose logits come of a state of each hidden digit, for a head that goes by states.

    Attributes:
        digits: tells n and K, and has the vectors of codes.
    """

    digits: DigitEmbedding

    def digit_states(self, codes: Tensor, mask: Tensor, memory: Any) -> Tensor:
        """[B, Q, n, d] what is made of every digit where mask [B, Q, n] is true; anything where it is not."""
        ...

    def digit_logits(self, states: Tensor) -> Tensor:
        """[B, Q, n, K] of states [B, Q, n, d]; those of hidden digits are what ``denoise`` gives."""
        ...


class SteersDigits(Denoises, Protocol):
    """Masked diffusion by a frozen network, with a learnt posterior over the items that digits lead to.

    ``denoise`` is that of the frozen network alone.

    Attributes:
        backbone: the frozen network.
    """

    backbone: nn.Module

    def steered(self, codes: Tensor, mask: Tensor, memory: Any, choose: Choose) -> Steered:
        """Logits [B, Q, n, K] as of ``denoise``, to which the posterior over items is added, and the posterior.

        Args:
            choose: gives the items that fit each of the B Q partial SIDs.
        """
        ...


class DenoisesSequences(Denoises, Protocol):
    """Masked diffusion of history and target in one stream: digits of past items may be unknown too."""

    def denoise_sequence(self, target: Tensor, mask: Tensor, memory: Any) -> Tensor:
        """Logits [B, S + 1, n, K] of every digit where mask [B, S + 1, n] is true, given those where it is not.

        Args:
            target: [B, n] codes of the item that stands last, behind the S places of its history.
            memory: of the histories; of their padding, mask is false.
        """
        ...


class GivesCodeTables(EncodesHistories, Protocol):
    """Digits have vectors, by which codes are alike or not."""

    def code_tables(self) -> Tensor:
        """[n, K, d] the vectors that what is predicted of each digit is compared with."""
        ...


class PairsDigits(Denoises, Protocol):
    """Whole semantic IDs have a score for every two of their digits, beside the logits of single ones while all are hidden.

    It is the product of what a user and a semantic ID have.
    """

    def pair_users(self, memory: Any) -> Tensor | None:
        """[B, T, r] of what each of T slots of B users knows; None: there are no such scores."""
        ...

    def pair_vectors(self, codes: Tensor) -> Tensor | None:
        """[M, r] of the semantic IDs [M, n]; None: there are no such scores."""
        ...


class DenoisesPlaces(Denoises, Protocol):
    """Masked diffusion in which nothing depends on what a mask holds, so that one graph serves all masks (export).

    Attributes:
        digits: tells n and K.
    """

    digits: DigitEmbedding

    def denoise_places(self, codes: Tensor, mask: Tensor, memory: Memory, wanted: Tensor | None) -> Tensor:
        """What ``denoise`` returns.

        Args:
            memory: of which no more than keys, values, ``valid`` and the states of newest items may be needed.
            wanted: [B, C] places among the Q n digits of every row where its mask is true, and where that are fewer than C
                some more, each place once; None: all places.
        """
        ...


class PredictsDigits(EncodesHistories, Protocol):
    """Left to right: a digit from those before it."""

    def predict(self, codes: Tensor, memory: Any) -> Tensor:
        """Logits [B, Q, n, K] of every digit, given the true ones [B, Q, n] before it."""
        ...

    def next_digit(self, code: Tensor | None, prefix: Any, memory: Any) -> tuple[Tensor, Any]:
        """Logits [B, Q, K] of the digit that follows the code [B, Q] filled last, and the prefix with that digit."""
        ...


class BorrowsVectors(EncodesHistories, Protocol):
    """Items without training events have a part of their vectors from others."""

    def borrowed_vectors(self, weights: Tensor) -> Tensor | None:
        """[M, d] what is added to the vectors of M items, by their weights [M, J] on those at fit, a sparse tensor; None:
        nothing."""
        ...


class AlignsTexts(EncodesHistories, Protocol):
    """ID embeddings that are drawn to the texts of their items."""

    def text_alignment(self, items: ItemFeatures) -> Tensor | None:
        """How far items are from their texts, as one number, 0 where they are aligned; None: nothing is aligned."""
        ...


class ScoresItems(EncodesHistories, Protocol):
    """A user's vector times an item's is the score of the item.

    A network with weights for this alone says so (``user_head = True``), so that they are not left without a teacher.
    """

    def user_vectors(self, memory: Any, history: Tensor | None = None, length: Tensor | None = None) -> Tensor:
        """[N, d] what the first ``length`` [N] items of the histories ``history`` [N] say; None: all of each, [B, d]."""
        ...


class ComparesApart(ScoresItems, Protocol):
    """Users are compared with something else of items than what stands for them in histories."""

    def compared(self, vectors: Tensor) -> Tensor:
        """[M, d] what users are compared with, of ``item_vectors`` [M, ...]."""
        ...


class DenoisesItems(DenoisesSequences, ScoresItems, Protocol):
    """Of items all of whose digits are hidden, the vector that users are compared with is told too."""

    def denoise_items(self, target: Tensor, mask: Tensor, memory: Any) -> tuple[Tensor, Tensor]:
        """What ``denoise_sequence`` returns; and [B, S + 1, d] the vectors of the items of which mask hides all digits."""
        ...


class DenoisesVectors(ScoresItems, Protocol):
    """Gaussian diffusion over the vectors of items: what ``user_vectors`` says is what noise is denoised to."""

    def denoised(self, vectors: Tensor, memory: Any, history: Tensor, length: Tensor, generator: torch.Generator) -> Tensor:
        """[N, d] what vectors [N, d] of items are told to be, after noise was added to them; compared as users are.

        Args:
            vectors: of N targets, as ``item_vectors`` gives them.
            history, length: [N] whose history it is that each target follows, and how many of its items.
            generator: draws the noise and all else that is drawn besides dropout.
        """
        ...


class ItemsInBranches(ScoresItems, Protocol):
    """What branches say of an item stands side by side in its vector, and is not summed."""

    def vectors_of_branches(self, vectors: Tensor) -> tuple[Tensor, ...]:
        """[M, d] of each branch, in order, of vectors of items [M, b d]."""
        ...


P = TypeVar("P")


def compared(network: object, vectors: Tensor) -> Tensor:
    """[M, d] what users are compared with, of what a network says of items: the same, unless it tells them apart."""
    kind: type = type(network)
    return vectors if lacks(kind, ComparesApart) else contract(network, ComparesApart).compared(vectors)


@lru_cache
def lacks(network: type, protocol: type) -> tuple[str, ...]:
    """The methods of a protocol that a class does not have."""
    wanted = [name for name, value in inspect.getmembers(protocol, inspect.isfunction) if not name.startswith("_")]
    return tuple(name for name in wanted if not callable(getattr(network, name, None)))


def check_network(name: str, network: type, needs: Iterable[tuple[type, str]]) -> None:
    """Refuse a network that cannot do what a recipe asks of it, before anything is made for it.

    Args:
        name: the network's name in messages.
        needs: protocols, and who needs each.

    Raises:
        RecipeError: with all methods that are missing, and for whom.
    """
    problems = [
        f"{who} needs {', '.join(missing)} ({protocol.__name__})"
        for protocol, who in dict.fromkeys(needs)
        if (missing := lacks(network, protocol))
    ]
    if problems:
        raise RecipeError(
            f"the model {name!r} lacks what this recipe asks of it: {'; '.join(problems)}. model.name=diffgrm denoises, "
            "model.name=masked_history denoises whole sequences, model.name=diqdiff vectors of items, "
            "model.name=epic (recommender=epic) steers digits by items, model.name=autoregressive predicts digits from "
            "left to right, and all of this library's but masked_history and epic score items"
        )


def contract(network: object, protocol: type[P]) -> P:
    """A network as somebody who does what a protocol says.

    Raises:
        RecipeError: it does not, or does not say how far back it looks (``max_len``) and whether it is ``causal``.
    """
    name = type(network).__name__
    check_network(name, type(network), [(protocol, "what is asked of it")])
    for attribute, kind in (("max_len", int), ("causal", bool)):
        if not isinstance(found := getattr(network, attribute, None), kind):
            raise RecipeError(f"the model {name!r} must have {attribute}: {kind.__name__}, found {found!r}")
    return cast(P, network)


def entered(network: nn.Module, vectors: Tensor, histories: Histories) -> tuple[Tensor, Tensor]:
    """What stands in histories, with what is known of the events: vectors [V, ...], and [B, S] which of them stands where.

    Args:
        vectors: [M, ...] of the items that stand in the histories (``item_vectors``).
    """
    _, index, _, types, context = histories
    if types is not None:
        vectors = contract(network, TakesTypes).typed(vectors, types)
    if context is None:
        return vectors, index
    places = vectors[index].flatten(0, 1)
    everywhere = torch.arange(index.numel(), device=index.device).view_as(index)
    return contract(network, TakesContext).in_context(places, context.flatten(0, 1)), everywhere


def encoded(network: nn.Module, vectors: Tensor, histories: Histories) -> Any:
    """The memory of histories: their items' vectors, with what is known of the events, through the network.

    Args:
        vectors: [M, ...] of the items that stand in the histories (``item_vectors``).
    """
    return contract(network, EncodesHistories).encode_history(*entered(network, vectors, histories), histories.valid)
