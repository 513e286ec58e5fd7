"""A forked child says at once that it cannot go on; a spawned one works."""

from __future__ import annotations

import multiprocessing
import os

import polars as pl
import pytest

import diffgrm
from diffgrm import PopularityRecommender
from diffgrm.data.tables import read_items
from diffgrm.evaluation.metrics import evaluate
from diffgrm.foundation import forks
from diffgrm.foundation.schema import DiffGRMError

HISTORY = ["item 3", "item 77"]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


@pytest.fixture(scope="module")
def popular(toy, tmp_path_factory):
    recommender = PopularityRecommender().fit(toy)
    return recommender, recommender.save(tmp_path_factory.mktemp("models") / "popular")


def said_by(work, pipe):
    try:
        work()
        pipe.send("nothing")
    except DiffGRMError as error:
        pipe.send(str(error))


def in_child(kind, work):
    context = multiprocessing.get_context(kind)
    here, there = context.Pipe()
    child = context.Process(target=said_by, args=(work, there))
    child.start()
    assert here.poll(60), "the child hangs"
    said = here.recv()
    child.join()
    return said


def doors(toy, recommender, folder):
    split = diffgrm.leave_one_out(toy)
    return {
        "recommend": lambda: recommender.recommend([HISTORY], k=2),
        "filters": lambda: recommender.candidates(2, ["item 1"], None),
        "similar": lambda: recommender.similar_items("item 1"),
        "remove": lambda: recommender.remove_items(["item 1"]),
        "add": lambda: recommender.add_items(pl.DataFrame({"item_id": ["new"], "text": ["x"]})),
        "users": lambda: recommender.recommend(users=["user 1"], k=2),
        "save": lambda: recommender.save(folder.with_name("other")),
        "load": lambda: diffgrm.load(folder),
        "fit": lambda: PopularityRecommender().fit(toy),
        "evaluate": lambda: evaluate(recommender, split.test, toy.items, split.item_counts),
        "read": lambda: read_items(toy.item_table),
        "dataset": lambda: diffgrm.InteractionDataset.from_tables(toy.event_table(), toy.item_table),
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("door", list(doors(diffgrm.toy_world(users=5).dataset, None, None)))
def test_every_door_refuses_in_a_forked_child(popular, toy, door):
    said = in_child("fork", doors(toy, *popular)[door])
    assert "forked from one that had used diffgrm" in said and "get_context('spawn')" in said


def load_and_recommend(folder):
    return diffgrm.load(folder).recommend([HISTORY], k=2)["item_id"].to_list()


def test_a_spawned_child_works(popular):
    recommender, folder = popular
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(load_and_recommend, (folder,)) == recommender.recommend([HISTORY], k=2)["item_id"].to_list()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_of_a_parent_that_had_done_nothing_may_work(monkeypatch):
    monkeypatch.setitem(forks._state, "used", False)
    assert in_child("fork", forks.check) == "nothing"
