"""What decoders ask of a network, refused where no list can be made of the answer.

A logit that is no number would end in an empty list without a word: no search goes on from it.

Letters: B users, Q partial SIDs a user, n digits, K codes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from diffgrm.ranking.no_numbers import no_numbers


def finite_answers(network: nn.Module, method: str) -> Callable[..., Any]:
    """A function of a network that decoders ask for, which checks logits of digits that are asked for.

    A code that is out of question has -inf. What other functions than those of this library's decoders give is left alone.

    Args:
        method: the function's name, such as ``denoise`` or ``next_digit``.
    """
    ask = getattr(network, method)

    def asked(codes: Tensor, mask: Tensor, *more: Any) -> Any:
        answer = ask(codes, mask, *more)
        logits = answer if isinstance(answer, Tensor) else answer.logits
        _check(logits.amax(-1).isfinite() | ~mask, network, method)
        return answer

    def next_digit(*given: Any) -> Any:
        answer = ask(*given)
        _check(answer[0].amax(-1).isfinite(), network, method)
        return answer

    return {"denoise": asked, "steered": asked, "next_digit": next_digit}.get(method, ask)


def check_finite(network: nn.Module, method: str, found: Tensor) -> Tensor:
    """What else a network says, in which every number is finite.

    Raises:
        DiffGRMError: there are others.
    """
    _check(found.isfinite(), network, method)
    return found


def _check(fine: Tensor, network: nn.Module, method: str) -> None:
    if not fine.all():
        raise no_numbers(type(network).__name__, method, int((~fine).sum()), fine.numel())
