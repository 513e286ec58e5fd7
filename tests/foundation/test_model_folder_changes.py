"""Changes of a model folder: others read and change it meanwhile, and nothing is lost."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import polars as pl
import pytest

import diffgrm
from diffgrm.foundation import model_folder
from diffgrm.foundation.outputs import held_folder
from diffgrm.foundation.schema import ModelFolderError
from diffgrm.recommenders.popularity import PopularityRecommender


@pytest.fixture
def folder(toy, tmp_path):
    return PopularityRecommender().fit(toy).save(tmp_path / "model")


def added(folder, item):
    return diffgrm.load(folder).add_items(pl.DataFrame({"item_id": [item], "text": ["new"]}))


def has(folder, *items):
    return (diffgrm.load(folder).items.positions(items) >= 0).all()


def test_others_may_change_the_folder_meanwhile_and_both_changes_are_kept(folder):
    made = []

    def make():
        changed = added(folder, "mine")
        if not made:  # another thread is not made to wait, which it would be for a minute
            with ThreadPoolExecutor(1) as pool:
                pool.submit(lambda: added(folder, "theirs").save(folder)).result(timeout=20)
        made.append(changed)
        return changed

    found = model_folder.change(folder, make, lambda changed: changed.save(folder))
    assert len(made) == 2 and found is made[1]
    assert has(folder, "mine", "theirs") and diffgrm.load(folder).facts["catalogue_version"] == 2


def test_others_who_change_it_all_the_time_are_made_to_wait(folder):
    rounds = []

    def make():
        rounds.append(len(rounds))
        changed = added(folder, "mine")
        if len(rounds) <= model_folder.TRIES:
            added(folder, f"theirs {len(rounds)}").save(folder)
        return changed

    model_folder.change(folder, make, lambda changed: changed.save(folder))
    assert len(rounds) == model_folder.TRIES + 1
    assert has(folder, "mine", *(f"theirs {number}" for number in range(1, model_folder.TRIES + 1)))


def test_many_changes_at_once_are_all_kept(folder):
    start = threading.Barrier(6)

    def change(number):
        start.wait()
        return model_folder.change(folder, lambda: added(folder, f"new {number}"), lambda changed: changed.save(folder))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(change, range(6)))
    assert has(folder, *(f"new {number}" for number in range(6))) and diffgrm.load(folder).facts["catalogue_version"] == 6


def test_what_cannot_be_made_changes_nothing(folder):
    before = model_folder.version(folder)
    with pytest.raises(ZeroDivisionError):
        model_folder.change(folder, lambda: 1 / 0, lambda changed: changed.save(folder))
    assert model_folder.version(folder) == before


@pytest.mark.parametrize(
    ("why", "told"),
    [
        (PermissionError("no"), r"cannot be changed: no; users who share a folder .* \(umask 002, and"),
        (OSError("there are no locks"), "cannot be changed: there are no locks$"),
    ],
)
def test_where_one_may_not_write_is_told_before_the_work(folder, monkeypatch, why, told):
    monkeypatch.setattr(model_folder, "acquired", Mock(side_effect=why))
    with pytest.raises(ModelFolderError, match=told):
        model_folder.change(folder, lambda: pytest.fail("the work began"), lambda changed: None)


def test_a_folder_that_another_user_made_for_himself_is_told(folder, monkeypatch):
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != folder and access(path, mode))
    with pytest.raises(ModelFolderError, match=r"cannot be replaced: one may not read and write there; users who share"):
        diffgrm.load(folder).save(folder)


@pytest.mark.skipif(os.name == "nt", reason="of rights by group")
@pytest.mark.parametrize(("shared", "rights"), [(0o2775, 0o664), (0o755, 0o644), (0o700, 0o600), (0o777, 0o666)])
def test_whoever_may_write_to_a_folder_may_lock_what_lies_there(tmp_path, shared, rights):
    tmp_path.chmod(shared)
    with model_folder.locked(tmp_path / "model"):
        assert (tmp_path / ".model.lock").stat().st_mode & 0o777 == rights
    with held_folder(tmp_path, "lock", "suite"):
        assert (tmp_path / "lock").stat().st_mode & 0o777 == rights
