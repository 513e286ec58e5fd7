"""Every runtime's catalogue tells what looking at every item tells, on both sides of every limit of the tables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import diffgrm.semantic_ids.catalogue_tables as module
from diffgrm.data.dataset import Ragged
from diffgrm.ranking import catalogue as in_torch
from diffgrm.runtime_onnx import numpy_catalogue as in_numpy
from diffgrm.semantic_ids.catalogue_tables import CatalogueTables
from diffgrm.semantic_ids.code_keys import code_keys

USERS, BEAMS = 3, 5
LIMITS = {  # what each set of limits makes of a world of a few digits and codes
    "all tables": {},
    "lists by pairs": {"PAIR_TABLE_LIMIT": 0},
    "lists by digits, as SIDs are long": {"PAIR_TABLE_LIMIT": 0, "PAIR_INDEX_DIGITS": 0},
    "lists by digits, as codes are many": {"PAIR_TABLE_LIMIT": 0, "PAIR_ENDS_LIMIT": 0},
    "pair counts and lists by digits": {"PAIR_INDEX_DIGITS": 0},
}


@dataclass
class World:
    """Items and what users must not get: ``seen`` is a list of item positions a user, or None.

    Its methods are the oracle: they look at every item.
    """

    codes: np.ndarray
    codebook_size: int
    recommendable: np.ndarray
    seen: list[np.ndarray] | None = None

    @classmethod
    def random(cls, generator, n, codebook_size, n_items, *, excluded):
        """Codes with repeats, of which some are not recommendable, and histories with repeats, one of them empty."""
        codes = generator.integers(0, codebook_size, (n_items, n))
        codes[n_items // 2 :] = codes[generator.integers(0, n_items, n_items - n_items // 2)]  # shared SIDs
        seen = [generator.integers(0, n_items, size) for size in (0, 6, 1 + n_items // 5)] if excluded else None
        return cls(codes, codebook_size, generator.random(n_items) < 0.8, seen)

    def fitting(self, user, partial, known):
        """Positions of the items that a user may get and that agree with a partial SID."""
        away = set() if self.seen is None else set(self.seen[user].tolist())
        fits = self.recommendable & (self.codes[:, known] == partial[known]).all(1)
        return [item for item in np.flatnonzero(fits).tolist() if item not in away]

    def allowed(self, partial, known):
        result = np.zeros((*partial.shape, self.codebook_size), dtype=bool)
        for user, beam in np.ndindex(partial.shape[:2]):
            for item in self.fitting(user, partial[user, beam], known[user, beam]):
                result[user, beam, np.arange(partial.shape[2]), self.codes[item]] = True
        return result & ~known[..., None]

    def items_of(self, sids):
        """Sets of item positions, by user and beam."""
        every = np.ones(sids.shape[2], dtype=bool)
        return [[set(self.fitting(user, sid, every)) for sid in own] for user, own in enumerate(sids)]

    def only_item(self, partial, known):
        result = np.full(partial.shape[:2], -1)
        for user, beam in np.ndindex(result.shape):
            found = self.fitting(user, partial[user, beam], known[user, beam])
            result[user, beam] = found[0] if len(found) == 1 else -1
        return result


class InTorch:
    """The PyTorch catalogue, asked with arrays."""

    def __init__(self, codes, codebook_size, recommendable=None, seen=None):
        allowed = None if recommendable is None else torch.from_numpy(recommendable)
        self.catalogue = in_torch.Catalogue(torch.from_numpy(codes), codebook_size, allowed)
        self.excluded = None if seen is None else in_torch.Excluded.from_ragged(Ragged.from_lists(seen), len(codes))

    def allowed(self, partial, known):
        return self.catalogue.allowed(torch.from_numpy(partial), torch.from_numpy(known), self.excluded).numpy()

    def items_of(self, sids):
        return self.catalogue.items_of(torch.from_numpy(sids), self.excluded).numpy()

    def possible(self, users):
        return self.catalogue.possible(self.excluded, users).tolist()

    def restricted(self, recommendable):
        self.catalogue = self.catalogue.restricted(torch.from_numpy(recommendable))
        return self

    def of_users(self, chosen):
        self.excluded = self.excluded.rows(torch.from_numpy(chosen))
        return self


class InNumpy:
    """The NumPy catalogue."""

    def __init__(self, codes, codebook_size, recommendable=None, seen=None):
        self.catalogue = in_numpy.Catalogue(codes, codebook_size, recommendable)
        self.excluded = None if seen is None else in_numpy.Excluded(Ragged.from_lists(seen), len(codes))

    def allowed(self, partial, known):
        return self.catalogue.allowed(partial, known, self.excluded)

    def items_of(self, sids):
        return self.catalogue.items_of(sids, self.excluded)

    def possible(self, users):
        return self.catalogue.possible(self.excluded, users).tolist()

    def restricted(self, recommendable):
        self.catalogue = self.catalogue.restricted(recommendable)
        return self

    def of_users(self, chosen):
        self.excluded = self.excluded.rows(chosen)
        return self


RUNTIMES = pytest.mark.parametrize("runtime", [InTorch, InNumpy])


def over(runtime, world):
    """A runtime's catalogue of all items, restricted to those that the world recommends."""
    return runtime(world.codes, world.codebook_size, None, world.seen).restricted(world.recommendable)


def partial_sids(generator, world, count):
    """[USERS, BEAMS, n] SIDs that items have, or most likely have not, and which digits of them are known."""
    shape = USERS, BEAMS, world.codes.shape[1]
    sids = world.codes[generator.integers(0, len(world.codes), shape[:2])]
    sids = np.where(generator.random((USERS, BEAMS, 1)) < 0.7, sids, world.codebook_size - 1)
    known = generator.random(shape).argsort(axis=2) < count
    return np.where(known, sids, generator.integers(-9, 9, shape)), known  # any value where unknown


@st.composite
def worlds(draw):
    """A world of up to 40 items, and the generator that made it."""
    generator = np.random.default_rng(draw(st.integers(0, 10_000)))
    n, n_items = draw(st.sampled_from([1, 2, 3, 4, 9])), draw(st.integers(1, 40))
    world = World.random(generator, n, draw(st.sampled_from([2, 4])), n_items, excluded=draw(st.booleans()))
    return world, generator


def limited(patch, limits, block=module.LIST_BLOCK):
    for name, value in {**LIMITS[limits], "LIST_BLOCK": block}.items():
        patch.setattr(module, name, value)


BLOCKS = st.sampled_from([3, module.LIST_BLOCK])


# ---- properties ------------------------------------------------------------------------------------------------------


@RUNTIMES
@pytest.mark.parametrize("limits", LIMITS)
@given(drawn=worlds(), data=st.data(), block=BLOCKS)
@settings(max_examples=40, deadline=None)
def test_allowed_codes_are_those_of_matching_items(runtime, limits, drawn, data, block):
    world, generator = drawn
    partial, known = partial_sids(generator, world, data.draw(st.integers(0, world.codes.shape[1])))
    with pytest.MonkeyPatch.context() as patch:
        limited(patch, limits, block)
        assert (over(runtime, world).allowed(partial, known) == world.allowed(partial, known)).all()


@RUNTIMES
@given(drawn=worlds())
@settings(max_examples=60, deadline=None)
def test_items_of_complete_sids_are_those_that_have_them(runtime, drawn):
    world, generator = drawn
    world.recommendable[generator.integers(len(world.codes))] = True
    sids, _ = partial_sids(generator, world, world.codes.shape[1])
    found = over(runtime, world).items_of(sids)
    for user, wanted in enumerate(world.items_of(sids)):
        rows = [row[row >= 0].tolist() for row in found[user]]
        assert all(row == sorted(own) for row, own in zip(rows, wanted, strict=True))


@pytest.mark.parametrize("limits", LIMITS)
@given(drawn=worlds(), data=st.data(), block=BLOCKS)
@settings(max_examples=40, deadline=None)
def test_an_only_item_is_the_one_that_fits(limits, drawn, data, block):
    world, generator = drawn
    partial, known = partial_sids(generator, world, data.draw(st.integers(1, world.codes.shape[1])))
    with pytest.MonkeyPatch.context() as patch:
        limited(patch, limits, block)
        theirs = over(InTorch, world)
        found = theirs.catalogue.only_item(torch.from_numpy(partial), torch.from_numpy(known), theirs.excluded)
        assert (found.numpy() == world.only_item(partial, known)).all()


# ---- sizes that fall on either side of the real limits ---------------------------------------------------------------


@RUNTIMES
@pytest.mark.parametrize(("n_digits", "codebook_size"), [(1, 16), (3, 4), (4, 8), (9, 4), (10, 4), (3, 2048), (3, 6000)])
@pytest.mark.parametrize("excluded", [False, True])
def test_catalogues_of_any_size_tell_what_looking_at_every_item_tells(runtime, n_digits, codebook_size, excluded):
    generator = np.random.default_rng(n_digits)
    world = World.random(generator, n_digits, codebook_size, 200, excluded=excluded)
    ours = over(runtime, world)
    for count in range(n_digits + 1):
        partial, known = partial_sids(generator, world, count)
        assert np.array_equal(ours.allowed(partial, known), world.allowed(partial, known))
    nothing = np.zeros((USERS, 1, n_digits), dtype=np.int64)
    everything = [len(world.fitting(user, nothing[user, 0], nothing[user, 0] > 0)) for user in range(USERS)]
    assert ours.possible(USERS) == everything
    sids = world.codes[generator.integers(0, 200, (USERS, BEAMS))]
    found = ours.items_of(sids)
    assert [[set(row[row >= 0].tolist()) for row in own] for own in found] == world.items_of(sids)
    assert np.array_equal(found, over(InTorch, world).items_of(sids))  # unused places too
    if excluded:
        assert ours.of_users(np.array([2, 0])).possible(2) == [everything[2], everything[0]]


def test_tables_keep_to_their_limits(monkeypatch):
    def made(n, codebook_size):
        tables = CatalogueTables(np.zeros((1, n), dtype=np.int64), codebook_size)
        return tables.pair_counts is not None, tables.in_pairs

    assert [made(4, size) for size in (1024, 1025, 3344, 3345)] == [(True, True), *[(False, True)] * 2, (False, False)]
    assert [made(n, 4)[1] for n in (1, 2, 3, 8, 9)] == [False, False, True, True, False]
    monkeypatch.setattr(module, "LIST_BLOCK", 10)
    assert module.blocks(np.array([4, 4, 4, 30, 1])) == [slice(0, 2), slice(2, 3), slice(3, 5)]
    assert module.blocks(np.empty(0, dtype=np.int64)) == []


# ---- by hand ---------------------------------------------------------------------------------------------------------


@RUNTIMES
def test_items_of_complete_sids_with_sharing_and_exclusion(runtime):
    codes = np.array([[0, 1], [2, 3], [0, 1], [3, 3]])
    asked = np.array([[[0, 1], [1, 1]], [[0, 1], [3, 3]]])
    assert runtime(codes, 4).items_of(asked).tolist() == [[[0, 2], [-1, -1]], [[0, 2], [3, -1]]]
    excluded = runtime(codes, 4, seen=[[2, 2], [3, 0]])
    assert excluded.items_of(asked).tolist() == [[[0, -1], [-1, -1]], [[-1, 2], [-1, -1]]]


@RUNTIMES
def test_possible_items_count_exclusions_once_and_only_inside_the_catalogue(runtime):
    codes, recommendable = np.array([[0], [1], [2]]), np.array([True, True, False])
    assert runtime(codes, 4, recommendable, [[0, 0], [2], [], [0, 1, 2]]).possible(4) == [1, 2, 2, 0]
    assert runtime(codes, 4, recommendable, [[], []]).possible(2) == runtime(codes, 4, recommendable).possible(2) == [2, 2]


@RUNTIMES
def test_restrictions_add_up(runtime):
    once = runtime(np.array([[0], [1], [2]]), 4).restricted(np.array([True, True, False]))
    tables = once.restricted(np.array([False, True, True])).catalogue.tables
    assert tables.items.tolist() == [1] and len(tables.all_codes) == 3 and len(once.catalogue) == 1


@RUNTIMES
def test_where_nothing_may_be_recommended_nothing_is_allowed(runtime):
    empty = runtime(np.zeros((2, 3), dtype=np.int64), 4, np.zeros(2, dtype=bool))
    for count in range(4):
        known = np.arange(3)[None, None] < count
        assert not empty.allowed(np.zeros((1, 1, 3), dtype=np.int64), known).any()
    assert empty.possible(1) == [0]


def test_both_runtimes_take_the_same_tables_and_build_nothing():
    tables = CatalogueTables(np.array([[0, 1], [2, 3]]), 4)
    theirs, ours = in_torch.Catalogue.from_tables(tables), in_numpy.Catalogue.from_tables(tables)
    assert theirs.tables is tables and ours.tables is tables
    assert theirs.restricted(torch.tensor([True, False])).n_items == theirs.n_items == 2
    assert theirs.codes.data_ptr() == tables.codes.ctypes.data
    assert theirs.distinct_codes.tolist() == tables.distinct_codes.tolist() == [[0, 1], [2, 3]]


def test_tables_of_one_catalogue_are_the_same_every_time():
    codes = np.random.default_rng(0).integers(0, 3, (50, 3))
    first, second = CatalogueTables(codes, 3), CatalogueTables(codes.copy(), 3)
    for name in ("counts", "pair_counts", "lists", "ends", "sid_rows", "sid_keys", "distinct_codes"):
        assert np.array_equal(getattr(first, name), getattr(second, name))
    assert (np.diff(first.sid_keys) >= 0).all()
    assert first.largest_group == np.unique(codes, axis=0, return_counts=True)[1].max()
    ties = np.diff(first.sid_keys) == 0
    assert ties.any() and (np.diff(first.sid_rows)[ties] > 0).all()  # items of one SID stay in order


@pytest.mark.parametrize(("n", "size"), [(4, 256), (8, 256), (64, 1024), (3, 65536)])
def test_keys_name_sets_of_digits(n, size):
    keys = code_keys(n, size)
    generator = np.random.default_rng(0)
    codes = generator.integers(0, min(size, 5), (4000, n))
    known = generator.random((4000, n)) < 0.5
    found = np.where(known, keys[np.arange(n), codes], 0).sum(1)
    sets = np.unique(np.where(known, codes, -1), axis=0)
    assert len(np.unique(found)) == len(sets)
