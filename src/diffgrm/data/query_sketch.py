"""Which queries a retriever was fitted on, in a few kilobytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple, Self

KEPT = 1024  # hashes: a share of queries is told to some three hundredths


class QuerySketch(NamedTuple):
    """The smallest hashes of texts (a bottom-k sketch; Cohen and Kaplan, PODC 2007).

    Whether a text with a hash up to the largest of them is among the texts is known for sure, and hashes are spread evenly,
    so that such texts stand for all others.

    Attributes:
        hashes: in order; whole: they are those of all texts.
    """

    hashes: tuple[str, ...]
    whole: bool

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """The sketch of some texts."""
        hashes = sorted({_hash(text) for text in texts})
        return cls(tuple(hashes[:KEPT]), len(hashes) <= KEPT)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """What :meth:`to_dict` gave.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        hashes, whole = raw["hashes"], raw["whole"]
        if type(whole) is not bool or type(hashes) is not list or not all(type(one) is str for one in hashes):
            raise TypeError("expected a list of texts, and true or false")
        if not whole and not hashes:
            raise ValueError("expected the smallest hashes")
        return cls(tuple(hashes), whole)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"hashes": list(self.hashes), "whole": self.whole}

    def share(self, texts: Iterable[str]) -> float | None:
        """Which share of other texts is among those of the sketch; None: it cannot tell.

        >>> QuerySketch.of(["one", "two"]).share(["two", "three", "four", "five"])
        0.25
        """
        told = [one for one in {_hash(text) for text in texts} if self.whole or one <= self.hashes[-1]]
        return len(set(self.hashes).intersection(told)) / len(told) if told else None


def _hash(text: str) -> str:
    return blake2b(text.strip().encode(errors="surrogatepass"), digest_size=8).hexdigest()
