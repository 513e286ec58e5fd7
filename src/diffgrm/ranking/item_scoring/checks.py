"""Refuses what scorers say that no list can be made of: other shapes, and scores that are no numbers.

Letters: B users, I items.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from diffgrm.foundation.schema import DiffGRMError

Array = Any
"""A ``torch.Tensor`` or a ``numpy.ndarray``."""


def checked(scorer: object, method: str, found: Any, *shapes: tuple[int, ...]) -> Array:
    """What a scorer's method gave, an array of one of some shapes.

    Raises:
        DiffGRMError: it is none.
    """
    torch = sys.modules.get("torch")
    kinds = (np.ndarray,) if torch is None else (np.ndarray, torch.Tensor)
    shape = tuple(found.shape) if isinstance(found, kinds) else None
    if shape not in shapes:
        wanted = " or ".join(str(list(one)) for one in dict.fromkeys(shapes))
        given = type(found).__name__ if shape is None else f"the shape {list(shape)}"
        raise DiffGRMError(
            f"the scorer {_name(scorer)} must give an array or a tensor of the shape {wanted} from {method}, found {given}"
        )
    return found


def rankable(scores: Array) -> bool:
    """Whether scores [B, I] can be ranked by: no NaN, no infinite one but -inf, which leaves an item out."""
    highest = scores.max(axis=1) if isinstance(scores, np.ndarray) else scores.amax(1)
    return bool((highest < math.inf).all())  # the largest of numbers and NaN is NaN


def unrankable(said: Sequence[tuple[object, Array]], vectors: Sequence[Array]) -> DiffGRMError:
    """The error where a sum is not :func:`rankable`.

    Args:
        said: scorers, and what each added to the sum.
        vectors: of users and items, by which the network had its say.
    """
    wrong = [(_name(scorer), _not_numbers(scores), scores) for scorer, scores in said]
    told = [f"{name} ({count} of {math.prod(scores.shape):,})" for name, count, scores in wrong if count]
    who = f"of {', '.join(told)}" if told else f"in the sum of {', '.join(name for name, _, _ in wrong)}"
    lost = any(bool((part != part).any()) or bool((abs(part) == math.inf).any()) for part in vectors)
    network = "; the network's own vectors of users or items hold such already, so that its weights are the place to look"
    return DiffGRMError(
        f"no list can be made of item scores that are NaN or +inf, {who}; expected finite numbers, or -inf for an item "
        f"that is to be left out{network * lost}"
    )


def finite(scorer: object, method: str, found: np.ndarray) -> np.ndarray:
    """What items are looked up by, in which every number is finite.

    Raises:
        DiffGRMError: there are others.
    """
    if not np.isfinite(found).all():
        raise DiffGRMError(
            f"the scorer {_name(scorer)} gave NaN or infinite numbers from {method}, by which no item can be looked up; "
            "expected finite ones (-inf leaves an item out of scores alone)"
        )
    return found


def _not_numbers(scores: Array) -> int:
    return int(((scores != scores) | (scores == math.inf)).sum())


def _name(scorer: object) -> str:
    return type(scorer).__name__
