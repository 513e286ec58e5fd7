"""Approximate search by inner product: what it finds, what it may find, and catalogues that change."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest

from diffgrm.ranking import item_index
from diffgrm.ranking.item_index import ItemIndex, KeptIndex

KINDS = pytest.mark.parametrize("kind", ["hnsw", "ivf_pq"])
GENERATOR = np.random.default_rng(0)
CENTRES = GENERATOR.normal(size=(40, 18)).astype(np.float32)
VECTORS = CENTRES[GENERATOR.integers(0, 40, 2000)] + 0.4 * GENERATOR.normal(size=(2000, 18)).astype(np.float32)
PEOPLE = CENTRES[GENERATOR.integers(0, 40, 50)] + 0.4 * GENERATOR.normal(size=(50, 18)).astype(np.float32)


@pytest.fixture(scope="module")
def indexes():
    return {kind: ItemIndex(kind, VECTORS) for kind in ("hnsw", "ivf_pq")}


def best(vectors, count, allowed=None):
    scores = PEOPLE @ vectors.T
    if allowed is not None:
        scores[:, ~allowed] = -np.inf
    return np.argsort(-scores, axis=1)[:, :count]


def recall(found, wanted):
    return np.mean([np.isin(row, some).mean() for row, some in zip(wanted, found, strict=True)])


@KINDS
def test_it_finds_most_of_the_best(indexes, kind):
    found = indexes[kind].search(PEOPLE, 200)
    assert found.shape[0] == 50 and found.shape[1] >= 200 and recall(found, best(VECTORS, 10)) > 0.95
    assert all(len(np.unique(row[row >= 0])) == (row >= 0).sum() for row in found)


@KINDS
def test_it_finds_what_is_allowed_only(indexes, kind):
    allowed = GENERATOR.random(2000) < 0.3
    found = indexes[kind].search(PEOPLE, 200, allowed)
    assert allowed[found[found >= 0]].all() and recall(found, best(VECTORS, 10, allowed)) > 0.9


@KINDS
def test_one_user_is_told_what_all_are_told_together(indexes, kind):
    together = indexes[kind].search(PEOPLE, 20)
    for row in range(5):
        assert np.array_equal(indexes[kind].search(PEOPLE[row : row + 1], 20)[0], together[row])


@KINDS
def test_what_is_not_there_is_minus_one(indexes, kind):
    allowed = np.zeros(2000, dtype=bool)
    allowed[[3, 1999]] = True
    found = indexes[kind].search(PEOPLE, 50, allowed)
    assert set(np.unique(found).tolist()) <= {-1, 3, 1999}
    assert indexes[kind].search(PEOPLE, 5000).shape[1] == 2000


@KINDS
def test_few_items_that_come_or_change_are_found_at_once(indexes, kind):
    after = np.concatenate([VECTORS, 3 * CENTRES[:5]])
    after[7] = 4 * CENTRES[11]
    after[best(VECTORS, 1)[0, 0]] = 0  # the best item of the first user is so no more
    other = indexes[kind].changed(after)
    found = other.search(PEOPLE, 200)
    assert other.n_items == 2005 and recall(found, best(after, 10)) > 0.95
    near = PEOPLE @ after[7] > np.sort(PEOPLE @ after.T, axis=1)[:, -5]
    assert near.any() and (found[near] == 7).any(axis=1).all()
    allowed = np.ones(2005, dtype=bool)
    allowed[[7, 2001]] = False
    assert not np.isin(other.search(PEOPLE, 200, allowed), [7, 2001]).any()
    assert (indexes[kind].search(PEOPLE, 200) < 2000).all()  # the old one is as it was
    again = other.changed(VECTORS)  # and comes back from the new one
    assert again.n_items == 2000 and np.array_equal(again.search(PEOPLE, 9), indexes[kind].search(PEOPLE, 9))


def test_too_many_changes_ask_for_a_new_index(indexes):
    index = indexes["hnsw"]
    assert index.changed(VECTORS + np.float32(0.1)) is None
    assert index.changed(VECTORS[:-1]) is None and index.changed(VECTORS[:, :-1]) is None
    assert index.changed(np.concatenate([VECTORS, VECTORS[:50]])) is None


def test_an_index_is_built_once_for_all_who_ask(monkeypatch):
    built, together = [], Barrier(4)

    class Counted(ItemIndex):
        def __init__(self, *given):
            built.append(given[0])
            super().__init__(*given)

    monkeypatch.setattr(item_index, "ItemIndex", Counted)
    kept = KeptIndex()

    def ask(_):
        together.wait()
        return kept.of("hnsw", VECTORS)

    with ThreadPoolExecutor(4) as pool:
        answers = [index.search(PEOPLE, 5) for index in pool.map(ask, range(4))]
    assert built == ["hnsw"] and all(np.array_equal(answer, answers[0]) for answer in answers)
    kept.of("hnsw", np.concatenate([VECTORS, VECTORS[:3]]))
    assert built == ["hnsw"]
    kept.of("ivf_pq", VECTORS)
    kept.of("ivf_pq", VECTORS * 2)
    assert built == ["hnsw", "ivf_pq", "ivf_pq"]
    copy.deepcopy(kept).of("ivf_pq", VECTORS * 2)  # locks cannot be copied, and an index is dear to
    assert len(built) == 4
