"""How items were found: which digit was filled when, how sure the network was, and how many items were left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffgrm.data.dataset import Ragged
from diffgrm.foundation.schema import DataError
from diffgrm.ranking.decoding.base import Decoded
from diffgrm.ranking.decoding.beams import Beams
from diffgrm.ranking.ranker import Ranker


class FilledDigit(NamedTuple):
    """One digit of an item of a list.

    Attributes:
        rank, item: of the item in the list (from 1), and its position.
        step: in which the digit was filled, from 1.
        digit, code: from 0.
        confidence: probability of the code, given what was known before the step, by what the decoder goes by
            (:meth:`Decoder.log_p`).
        rival, rival_confidence: the likeliest other code.
        items_left: items that may be recommended and fit what is known after the step.
    """

    rank: int
    item: int
    step: int
    digit: int
    code: int
    confidence: float
    rival: int
    rival_confidence: float
    items_left: int


def filled_digits(
    ranker: Ranker, history: Ragged, k: int, exclude_seen: bool, recommendable: np.ndarray
) -> Iterator[FilledDigit]:
    """The digits of the k best items of one history, by item, then in the order in which they were filled.

    Args:
        recommendable: [I] bool, items that may be recommended.
    """
    everything = ranker.catalogue.codes_of(torch.arange(ranker.catalogue.n_items, device=ranker.catalogue.device))
    may = torch.from_numpy(recommendable.copy()).to(everything.device)
    if exclude_seen:
        may[torch.from_numpy(np.unique(history.seen().values)).to(everything.device)] = False
    for _, task in ranker.tasks(history, k, exclude_seen, watch=lambda *_: None):  # of the one history
        decoded = ranker.decoder.decode(task)
        items = decoded.items[0][decoded.items[0] >= 0]
        codes = ranker.catalogue.codes_of(items)  # [M, n]
        steps = _steps_of(decoded, codes)
        for rank, (item, code, step) in enumerate(zip(items.tolist(), codes, steps, strict=True), start=1):
            for now in sorted(set(step.tolist())):
                new = (step == now).nonzero()[:, 0]
                p = ranker.decoder.log_p(task, _before(code, step, now))[0, 0].exp()
                own, others = p[new, code[new]], p[new].scatter(1, code[new, None], -1.0)
                left = int((may & ((everything == code) | (step > now)).all(1)).sum())
                for place in own.argsort(descending=True).tolist():
                    digit, rival = int(new[place]), others[place]
                    found = (int(code[digit]), float(own[place]), int(rival.argmax()), float(rival.max()))
                    yield FilledDigit(rank, item, now + 1, digit, *found, left)


def _before(code: Tensor, step: Tensor, now: int) -> Beams:
    """A SID's digits [n] as far as they were known before a step, as the one beam of one user."""
    known = step < now
    codes, steps = torch.where(known, code, 0)[None, None], torch.where(known, step, -1)[None, None]
    zero = torch.zeros(1, 1, device=code.device)
    return Beams(codes, steps, zero, zero.long())


def unsaid(ranker: Ranker) -> str:
    """What confidences of digits leave unsaid of how lists come about, for people; empty where they say all."""
    pairs = "Scores of every two digits had a say in the list, and none in these confidences."
    counted = ranker.decoder.uses_pairs and ranker.items.pair_vectors is not None
    return " ".join(note for note in (pairs if counted else "", ranker.decoder.unsaid()) if note)


def _steps_of(decoded: Decoded, codes: Tensor) -> Tensor:
    """[M, n] in which step each digit of items with digits ``codes`` [M, n] was filled, for the first user."""
    found = (decoded.codes[0][None] == codes[:, None]).all(-1).int().argmax(1)  # where each item's SID stands
    return decoded.steps[0, found]


def searched(ranker: Ranker, history: Ragged, k: int, exclude_seen: bool, show: int) -> list[dict[str, Any]]:
    """The best ``show`` partial SIDs of one history after every step of the search.

    Returns:
        Rows of step (from 1), place (from 1), score (log-probability), digits (n codes, None where unknown).

    Raises:
        DataError: ``show`` is no number of them.
    """
    if isinstance(show, bool) or not isinstance(show, int | np.integer) or show < 1:
        raise DataError(f"show is {show!r}; expected how many partial semantic IDs of each step, a whole number from 1")
    steps: list[list[dict[str, Any]]] = []
    filled = 0

    def watch(codes: Tensor, known: Tensor, scores: Tensor) -> None:
        nonlocal filled
        if not (alive := scores[0] > -torch.inf).any():
            return
        now = int(known[0].sum(-1)[alive].min())
        if now <= filled:  # the search came short and starts again
            steps.clear()
        filled = now
        found = zip(codes[0, :show].tolist(), known[0, :show].tolist(), scores[0, :show].tolist(), strict=True)
        steps.append(
            [
                {"step": len(steps) + 1, "place": place, "score": score, "digits": _digits(code, known)}
                for place, (code, known, score) in enumerate(found, start=1)
                if score > -float("inf")
            ]
        )

    next(ranker.decode(history, k, exclude_seen, watch))
    return [row for step in steps for row in step]


def fill_order(ranker: Ranker, histories: Ragged) -> np.ndarray:
    """[n, n] share of users whose best item had digit j (row) filled in step s (column)."""
    n = ranker.catalogue.n_digits
    counts = np.zeros((n, n))
    for _, decoded in ranker.decode(histories, 1, exclude_seen=True, watch=lambda *_: None):
        found = decoded.items[:, 0] >= 0
        first = decoded.legal.int().argmax(1)
        steps = decoded.steps[torch.arange(len(first), device=first.device), first][found].cpu().numpy()
        for digit in range(n):
            counts[digit] += np.bincount(steps[:, digit], minlength=n)
    return counts / max(counts[0].sum(), 1)


def _digits(code: list[int], known: list[bool]) -> list[int | None]:
    return [c if k else None for c, k in zip(code, known, strict=True)]
