"""The error where a network, in whatever runtime, answers with something that no list can be made of."""

from __future__ import annotations

from diffgrm.foundation.schema import DiffGRMError


def no_numbers(who: str, method: str, wrong: int, count: int) -> DiffGRMError:
    """For a network whose answer has so many wrong ones among so many.

    >>> print(no_numbers("Net", "denoise", 1, 3))  # doctest: +ELLIPSIS
    no list can be made of what Net says: 1 of 3 answers of denoise are NaN or infinite; its weights...
    """
    return DiffGRMError(
        f"no list can be made of what {who} says: {wrong:,} of {count:,} answers of {method} are NaN or infinite; its "
        "weights, or what it computes of them, are no finite numbers: fit it again, with a lower training.learning_rate if "
        f"its loss grew, and see to {method} of a network of your own"
    )
