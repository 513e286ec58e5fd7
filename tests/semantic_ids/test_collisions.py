from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from diffgrm.foundation.schema import TokenizerError
from diffgrm.semantic_ids import collisions
from diffgrm.semantic_ids.collisions import reassign
from diffgrm.semantic_ids.free_codes import CodeKeys, nearest_codes
from diffgrm.semantic_ids.tokenizers.context import TokenizerContext
from diffgrm.semantic_ids.tokenizers.opq import OPQTokenizer

of = TokenizerContext.of


@pytest.fixture(scope="module")
def crowd():
    """Vectors with many near and exact copies, their tokenizer and colliding codes."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(60, 8))
    vectors = (centres[generator.integers(0, 60, 300)] + generator.normal(size=(300, 8)) * 0.02).astype(np.float32)
    vectors[:20] = vectors[0]
    tokenizer = OPQTokenizer(3, 16, pca_width=6, iterations=5).fit(of(vectors))
    return tokenizer, vectors, tokenizer.encode(vectors)


def test_every_item_gets_its_own_sid_and_as_few_as_can_be_are_moved(crowd):
    tokenizer, vectors, codes = crowd
    repaired = reassign(tokenizer, vectors, codes)
    assert len(np.unique(repaired.codes, axis=0)) == len(vectors)
    assert repaired.moved.sum() == len(vectors) - len(np.unique(codes, axis=0))
    _, group, sizes = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    assert not repaired.moved[sizes[group.reshape(-1)] == 1].any()


def test_the_repair_is_deterministic(crowd):
    tokenizer, vectors, codes = crowd
    assert (reassign(tokenizer, vectors, codes).codes == reassign(tokenizer, vectors, codes).codes).all()


def test_the_repair_costs_no_more_than_the_best_assignment_of_the_colliding_items(crowd):
    tokenizer, vectors, codes = crowd
    repaired = reassign(tokenizer, vectors, codes)
    _, group, sizes = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    items = np.flatnonzero(sizes[group.reshape(-1)] > 1)
    every = np.array(list(itertools.product(range(16), repeat=3)), dtype=np.int32)
    taken = {tuple(c) for c in codes}
    own = {tuple(codes[i]) for i in items}
    usable = np.array([c for c in every if tuple(c) not in taken or tuple(c) in own])
    distance = np.stack([tokenizer.error(np.repeat(vectors[[i]], len(usable), 0), usable) for i in items])
    # Moving is dearer than any error, so that the optimum moves as few as the repair does.
    cost = distance + 1e3 * (usable[None] != codes[items][:, None]).any(-1)
    row, column = linear_sum_assignment(cost)
    best = distance[row, column].sum()
    mine = tokenizer.error(vectors[items], repaired.codes[items]).sum()
    assert mine == pytest.approx(best, rel=0.02)


def test_many_items_are_settled_a_block_at_a_time(crowd, monkeypatch):
    """Whole cells in each, so that one item of each stays; the error hardly grows."""
    tokenizer, vectors, codes = crowd
    whole = reassign(tokenizer, vectors, codes)
    sizes, candidates = [], collisions.free_candidates

    def told(tokenizer, embeddings, *rest):
        sizes.append(len(embeddings) * rest[-1])
        return candidates(tokenizer, embeddings, *rest)

    monkeypatch.setattr(collisions, "free_candidates", told)
    monkeypatch.setattr(collisions, "MOST_CANDIDATES", 64 * 40)
    blocks = reassign(tokenizer, vectors, codes)
    largest = np.unique(codes, axis=0, return_counts=True)[1].max()
    assert len(sizes) > 5 and max(sizes) < 64 * (40 + largest)
    assert len(np.unique(blocks.codes, axis=0)) == len(vectors) and blocks.moved.sum() == whole.moved.sum()
    assert tokenizer.error(vectors, blocks.codes).sum() < 1.1 * tokenizer.error(vectors, whole.codes).sum()


def test_many_identical_items_find_room():
    vectors = np.random.default_rng(0).normal(size=(1500, 8)).astype(np.float32)
    vectors[:700] = vectors[0]
    tokenizer = OPQTokenizer(4, 32, pca_width=8, iterations=3).fit(of(vectors))
    assert len(np.unique(reassign(tokenizer, vectors, tokenizer.encode(vectors)).codes, axis=0)) == 1500


def test_a_full_code_space_can_be_filled_to_the_last_code():
    vectors = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    tokenizer = OPQTokenizer(3, 4, pca_width=3, iterations=3).fit(of(vectors))
    assert len(np.unique(reassign(tokenizer, vectors, tokenizer.encode(vectors)).codes, axis=0)) == 64


def test_too_few_codes_are_told_with_the_way_out():
    vectors = np.random.default_rng(0).normal(size=(65, 4)).astype(np.float32)
    tokenizer = OPQTokenizer(3, 4, pca_width=3, iterations=3).fit(of(vectors))
    with pytest.raises(TokenizerError, match="3 digits of 4 codes make only 64; raise tokenizer.n_digits"):
        reassign(tokenizer, vectors, tokenizer.encode(vectors))


def test_items_that_find_no_free_code_on_the_longest_list_get_one_farther_away(monkeypatch):
    monkeypatch.setattr("diffgrm.semantic_ids.collisions.LONGEST_LIST", 64)
    generator = np.random.default_rng(0)
    tokenizer = OPQTokenizer(9, 2, pca_width=9, iterations=2).fit(of(generator.normal(size=(100, 9)).astype(np.float32)))
    vectors = (1 + 1e-3 * generator.normal(size=(300, 9))).astype(np.float32)
    assert len(np.unique(reassign(tokenizer, vectors, tokenizer.encode(vectors)).codes, axis=0)) == 300


def test_nearest_codes_lists_the_cheapest_combinations_in_order():
    costs = np.random.default_rng(1).random((5, 3, 6))
    codes, sums = nearest_codes(costs, 40)
    every = np.array(list(itertools.product(range(6), repeat=3)))
    for row in range(5):
        total = costs[row][np.arange(3), every].sum(1)
        assert np.allclose(sums[row], np.sort(total)[:40])
        assert np.allclose(costs[row][np.arange(3), codes[row]].sum(1), sums[row])
        assert len(np.unique(codes[row], axis=0)) == 40


@pytest.mark.parametrize("count", [7, 40, 300])
def test_of_combinations_that_cost_the_same_those_of_smaller_codes_come_first(count):
    """Digit by digit, as a sort that keeps the order of equal sums gives them."""
    costs = np.random.default_rng(2).integers(0, 4, (20, 3, 6)).astype(float)
    for row, found in zip(costs, nearest_codes(costs, count)[0], strict=True):
        kept, sums = [()], np.zeros(1)
        for digit in row:
            best = np.argsort(digit, kind="stable")
            total = (sums[:, None] + digit[best]).ravel()
            order = np.argsort(total, kind="stable")[:count]
            kept = [(*kept[place // 6], int(best[place % 6])) for place in order]
            sums = total[order]
        assert [tuple(code) for code in found.tolist()] == kept


@pytest.mark.parametrize(("n", "size"), [(4, 256), (64, 256), (3, 65536)])
def test_keys_name_codes_without_confusion(n, size):
    codes = np.random.default_rng(0).integers(0, size, (20_000, n))
    codes = np.unique(codes, axis=0)
    assert len(np.unique(CodeKeys(n, size)(codes))) == len(codes)


def test_too_large_problems_are_cut_and_still_give_everyone_a_place(crowd, monkeypatch):
    tokenizer, vectors, codes = crowd
    monkeypatch.setattr("diffgrm.semantic_ids.collisions.LARGEST_PROBLEM", 5)
    monkeypatch.setattr("diffgrm.semantic_ids.collisions.PROBLEM_BLOCK", 7)
    repaired = reassign(tokenizer, vectors, codes)
    assert len(np.unique(repaired.codes, axis=0)) == len(vectors)
    assert repaired.moved.sum() == len(vectors) - len(np.unique(codes, axis=0))


def test_thousands_of_copies_are_dealt_the_nearest_free_codes():
    vectors = np.random.default_rng(0).normal(size=(3000, 8)).astype(np.float32)
    vectors[:2000] = vectors[0]
    tokenizer = OPQTokenizer(4, 32, pca_width=8, iterations=3).fit(of(vectors[1900:]))
    codes = tokenizer.encode(vectors)
    repaired = reassign(tokenizer, vectors, codes)
    assert len(np.unique(repaired.codes, axis=0)) == 3000
    assert repaired.moved.sum() == 3000 - len(np.unique(codes, axis=0))


@pytest.mark.parametrize(("n", "size", "items", "more"), [(3, 4, 50, 1), (2, 8, 30, 3), (4, 4, 200, 20), (2, 16, 250, 3)])
def test_items_come_into_a_code_space_that_one_list_holds(n, size, items, more):
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(items, 16)).astype(np.float32)
    vectors[items // 3 :] = vectors[0] + generator.normal(size=(items - items // 3, 16)) * 1e-3  # mostly one crowd
    tokenizer = OPQTokenizer(n, size).fit(of(vectors))
    there = reassign(tokenizer, vectors, tokenizer.encode(vectors)).codes
    new = vectors[:1] + generator.normal(size=(more, 16)).astype(np.float32)
    found = collisions.place(tokenizer, new, tokenizer.encode(new), there)
    assert len(np.unique(np.concatenate([there, found]), axis=0)) == items + more
