"""What some recommenders can do besides: asked for by name, never by class."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import polars as pl

from diffgrm.foundation import registry
from diffgrm.foundation.schema import DiffGRMError


@runtime_checkable
class Explains(Protocol):
    """Tells how a list was found, digit by digit."""

    def explain(
        self, history: Any, k: int = 5, *, exclude_seen: bool = True, at: Any = None, profiles: Any = None
    ) -> pl.DataFrame:
        """Which digit of each of the k best items was filled when, and how sure the network was."""
        ...

    def explanation_note(self) -> str:
        """What those confidences leave unsaid of how lists come about; empty where they say all."""
        ...

    def beams(
        self,
        history: Any,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        show: int = 10,
        at: Any = None,
        profiles: Any = None,
    ) -> pl.DataFrame:
        """The search for the k best items as it goes: the best partial SIDs after every step."""
        ...


@runtime_checkable
class Plans(Protocol):
    """Tells what the steps of its search may be planned by."""

    def digit_difficulty(self, histories: Any, targets: Any) -> list[float]:
        """Mean negative log-likelihood of a digit when so many others are known."""
        ...


def planning(recommender: object) -> Plans:
    """A recommender as one whose search can be planned.

    Raises:
        DiffGRMError: it cannot, or its digits say nothing of each other.
    """
    if not isinstance(recommender, Plans):
        raise DiffGRMError(
            f"{type(recommender).__name__} fills no digits in steps; the recommenders {_able('digit_difficulty')} do"
        )
    fitted: Any = recommender
    learnt_at_once = "noising" in fitted.recipe.sections and fitted.recipe.noising.name == "full_mask"
    if learnt_at_once or getattr(fitted.network, "independent_digits", False):
        raise DiffGRMError(
            "there are no steps to plan: this model has learnt its digits while all were hidden (noising.name=full_mask), "
            "or they are independent, so that known ones say nothing of the others; decoding.name=one_pass asks for all "
            "of them at once"
        )
    return recommender


def explaining(recommender: object) -> Explains:
    """A recommender as one that explains.

    Raises:
        DiffGRMError: it does not.
    """
    if not isinstance(recommender, Explains):
        raise DiffGRMError(
            f"{type(recommender).__name__} cannot explain its lists; the recommenders {_able('explain')} can, which fill "
            "digits in steps"
        )
    return recommender


def _able(method: str) -> str:
    """The registered recommenders that have a method."""
    able = [name for name in registry.names("recommender") if hasattr(registry.resolve("recommender", name), method)]
    return f"{', '.join(able[:-1])} and {able[-1]}"
