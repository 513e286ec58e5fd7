"""Confidence-guided Parallel Denoising in NumPy.

What :mod:`diffgrm.ranking.decoding.any_order_beam` does when the catalogue constrains every step, one digit is filled a
step, and one SID reached by several orders scores as its best one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from diffgrm.foundation.top_k import best_places
from diffgrm.runtime_onnx.network import Memory, Network
from diffgrm.runtime_onnx.numpy_catalogue import Catalogue, Excluded

LAST_PARTS = 4  # the last digit is filled in for a quarter of the beams at a time
FEWEST_BEAMS = 64  # but not for fewer beams of all users than this: small questions cost as much as larger ones
Order = Literal["confidence", "fixed"]


@dataclass(frozen=True)
class Task:
    """What to decode for a batch of B users.

    Attributes:
        memory: encoded histories of the users.
        k: items wanted for each user.
        excluded: items that single users must not get, or None.
        offsets: [I] what is added to item scores, for decodings that take it (:attr:`Decoding.takes_offsets`).
        order: ``"confidence"``: most probable digit first, each beam its own; ``"fixed"``: digit 0, 1, 2...
    """

    network: Network
    memory: Memory
    catalogue: Catalogue
    k: int
    excluded: Excluded | None
    order: Order = "confidence"
    offsets: np.ndarray | None = None

    def rows(self, users: np.ndarray) -> Task:
        """The task of some users [b]."""
        excluded = None if self.excluded is None else self.excluded.rows(users)
        return replace(self, memory=self.memory.rows(users), excluded=excluded)


@dataclass(frozen=True)
class Beams:
    """W partial SIDs of each of B users, best first.

    Attributes:
        codes: [B, W, n] int64, any value where unknown.
        known: [B, W, n] bool, which digits are filled.
        score: [B, W], -inf where there is no beam.
        key: [B, W] int64, equal for equal partial SIDs (:mod:`diffgrm.semantic_ids.code_keys`).
    """

    codes: np.ndarray
    known: np.ndarray
    score: np.ndarray
    key: np.ndarray

    @classmethod
    def empty(cls, batch: int, count: int, n: int, score: float) -> Beams:
        """``count`` beams a user with nothing known."""
        shape = (batch, count)
        codes, known = np.zeros((*shape, n), dtype=np.int64), np.zeros((*shape, n), dtype=bool)
        return cls(codes, known, np.full(shape, score, dtype=np.float32), np.zeros(shape, dtype=np.int64))

    def take(self, users: np.ndarray, beams: np.ndarray | slice) -> Beams:
        """Some beams of some users, as NumPy's index takes them."""
        return Beams(self.codes[users, beams], self.known[users, beams], self.score[users, beams], self.key[users, beams])

    def best(self, other: Beams, count: int) -> Beams:
        """The best ``count`` distinct ones of these and others."""
        pairs = ((self.codes, other.codes), (self.known, other.known), (self.score, other.score), (self.key, other.key))
        both = Beams(*(np.concatenate(pair, axis=1) for pair in pairs))
        return both.distinct(np.argsort(-both.score, axis=1, kind="stable"), count)

    def distinct(self, order: np.ndarray, count: int) -> Beams:
        """The first ``count`` distinct beams in an order [B, M], best first; what is left over scores -inf."""
        users = np.arange(len(order))[:, None]
        dead = ~first_of_each(self.key[users, order]) | (self.score[users, order] == -np.inf)
        keep = np.argsort(dead, axis=1, kind="stable")[:, :count]
        found = self.take(users, order[users, keep])
        return replace(found, score=np.where(dead[users, keep], np.float32(-np.inf), found.score))

    def put(self, users: np.ndarray, new: Beams) -> None:
        """Write other beams over those of some users [b]."""
        self.codes[users], self.known[users] = new.codes, new.known
        self.score[users], self.key[users] = new.score, new.key


def decode(task: Task, beam: int) -> tuple[np.ndarray, np.ndarray]:
    """Item positions [B, k], best first, -1 after the last, and log-probabilities [B, k].

    A user of whom the beam leaves fewer than k items (many partial SIDs may lead to one item) gets one twice as wide; who
    is still short gets the list completed by a search in fixed order, where every beam leads to items of its own.

    Args:
        beam: W, partial SIDs kept for each user (raised to k where k is larger).
    """
    width = max(beam, task.k)
    items, scores = _search(task, width)
    wanted = np.minimum(task.catalogue.possible(task.excluded, len(task.memory)), task.k)
    for remedy in ("wider", "fixed order"):
        short = np.flatnonzero((items >= 0).sum(1) < wanted)
        if len(short) == 0:
            break
        some = task.rows(short)
        if remedy == "wider":
            items[short], scores[short] = _search(some, 2 * width)
        else:
            more = _search(replace(some, order="fixed"), width)
            items[short], scores[short] = _completed((items[short], scores[short]), more)
    return items, scores


def _search(task: Task, width: int) -> tuple[np.ndarray, np.ndarray]:
    n = task.catalogue.n_digits
    beams = Beams.empty(len(task.memory), 1, n, 0.0)
    for filled in range(n - 1):
        beams = _fill_one(task, beams, filled, width)
    done = _fill_last(task, beams)
    return items_from_sids(task, done.codes, done.score)


def _fill_last(task: Task, beams: Beams) -> Beams:
    """The k best complete SIDs of beams that lack one digit, asking the network for as few beams as will do.

    A score only falls as digits are filled. The best beams go first; once k complete SIDs score above the next beam, no
    later beam can add to them.
    """
    batch, width, n = beams.codes.shape
    done = Beams.empty(batch, task.k, n, -np.inf)
    size = max(-(-width // LAST_PARTS), -(-FEWEST_BEAMS // batch))
    for start in range(0, width, size):
        next_score = beams.score[:, start]
        users = np.flatnonzero((next_score >= done.score[:, -1]) & (next_score > -np.inf))
        if len(users) == 0:
            break
        some = task if len(users) == batch else task.rows(users)
        part = _fill_one(some, beams.take(users, slice(start, start + size)), n - 1, task.k)
        done.put(users, done.take(users, slice(None)).best(part, task.k))
    return done


def _fill_one(task: Task, beams: Beams, filled: int, width: int) -> Beams:
    """Every beam with one digit more: the best ``width`` distinct ones, or as many as the user with most has.

    Args:
        filled: digits known so far.
    """
    catalogue, K = task.catalogue, task.catalogue.codebook_size
    batch, _, n = beams.codes.shape
    total = log_softmax(task.network.denoise(beams.codes, ~beams.known, task.memory))
    total += beams.score[..., None, None]
    np.copyto(total, -np.inf, where=~catalogue.allowed(beams.codes, beams.known, task.excluded))
    if task.order == "fixed":
        total[:, :, np.arange(n) != filled] = -np.inf
    # A partial SID of s digits has at most s parents, so among the best s W are at least W distinct ones.
    paths = filled + 1 if task.order == "confidence" else 1
    index = best_places(total.reshape(batch, -1), width * paths)  # [B, M]
    users, source, flat = np.arange(batch)[:, None], index // (n * K), index % (n * K)
    new = replace(beams.take(users, source), score=total.reshape(batch, -1)[users, index])
    digit = (flat // K)[..., None]
    np.put_along_axis(new.codes, digit, (flat % K)[..., None], axis=2)
    np.put_along_axis(new.known, digit, True, axis=2)
    new = replace(new, key=new.key + catalogue.code_keys.reshape(-1)[flat])
    new = new.distinct(np.broadcast_to(np.arange(index.shape[1]), index.shape), width)
    live = max(1, int((new.score > -np.inf).sum(1).max()))
    return new.take(users, np.arange(live))


def items_from_sids(task: Task, codes: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Item positions [B, k] and scores of distinct complete SIDs, best first. SIDs of several items give all of them.

    Args:
        codes: [B, M, n], score: [B, M], -inf where there is no SID.
    """
    found = task.catalogue.items_of(codes, task.excluded)  # [B, M, G]
    found[score == -np.inf] = -1
    users, score = np.arange(len(found))[:, None], np.repeat(score, found.shape[2], axis=1)
    flat = found.reshape(len(found), -1)
    order = np.argsort(flat < 0, axis=1, kind="stable")[:, : task.k]
    items = flat[users, order]
    return items, np.where(items < 0, np.float32(-np.inf), score[users, order])


def _completed(first: tuple[np.ndarray, np.ndarray], more: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The items of ``first``, then those of ``more`` that are not among them, none scored above what stands before it."""
    items, scores = (np.concatenate(pair, axis=1) for pair in zip(first, more, strict=True))
    keep = first_of_each(items) & (items >= 0)
    users, order = np.arange(len(items))[:, None], np.argsort(~keep, axis=1, kind="stable")[:, : first[0].shape[1]]
    items, scores = np.where(keep, items, -1)[users, order], np.where(keep, scores, -np.inf)[users, order]
    return items, np.minimum.accumulate(scores, axis=1)


def first_of_each(keys: np.ndarray) -> np.ndarray:
    """Keys [B, M] -> [B, M] bool, true at the first occurrence of each value in its row."""
    order = np.argsort(keys, axis=1, kind="stable")
    ordered = np.take_along_axis(keys, order, 1)
    new = np.ones(keys.shape, dtype=bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    result = np.empty_like(new)
    np.put_along_axis(result, order, new, 1)
    return result


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis; written over the logits."""
    logits -= logits.max(axis=-1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return logits
