"""One fit at a time is at work in a run folder; whoever comes second is refused at once."""

from __future__ import annotations

import errno

import pytest
from lightning.pytorch.utilities import rank_zero_only

from diffgrm import PopularityRecommender, Recipe, SASRecRecommender, toy_world
from diffgrm.foundation.outputs import held_folder
from diffgrm.foundation.run_folder import LOCK, drop_checkpoints, holds_checkpoint
from diffgrm.foundation.schema import DataError
from diffgrm.recommenders.documents import DocumentRetriever
from helpers.commands import called, save_tables
from helpers.documents import library, small_documents
from helpers.runs import same_weights
from helpers.worlds import NETWORK

HELD = "another fit is at work in .*run; wait for it, or name another folder"
RECIPE = Recipe(recommender="sasrec", model=NETWORK, training={"epochs": 2, "batch_size": 64})


@pytest.fixture(scope="module")
def world():
    return toy_world(users=40, seed=3).dataset


def fit(world, run, *changes, **how):
    return SASRecRecommender(RECIPE.override(changes)).fit(world, run_folder=run, progress=False, **how)


@pytest.fixture(scope="module")
def alone(world, tmp_path_factory):
    return fit(world, tmp_path_factory.mktemp("runs") / "alone")


def test_a_second_fit_does_not_get_its_weights_into_the_first(world, alone, tmp_path):
    run, resumed = tmp_path / "run", []

    def meanwhile(epoch, score):
        resumed.append(holds_checkpoint(run))
        with pytest.raises(DataError, match=HELD):
            fit(world, run, "seed=3", resume=resumed[-1])

        with pytest.raises(DataError, match=HELD):
            fit(world, run)  # which is not told to delete what the other one is at work with

    first = fit(world, run, watch=meanwhile)
    assert resumed == [False, True] and same_weights(first, alone)
    fit(world, run, resume=True)  # nobody is at work there any more


def test_all_that_trains_holds_its_run_folder(world, alone, tmp_path, monkeypatch, capsys):
    run, tables = tmp_path / "run", save_tables(world, tmp_path)
    fitted, settings = alone.save(tmp_path / "model"), ("--run-folder", run, "--quiet", "training.epochs=1")
    (tmp_path / "recipe.yaml").write_text(RECIPE.to_yaml())
    with held_folder(run, LOCK, "fit"):
        with pytest.raises(DataError, match=HELD):
            alone.fit_more(world, run_folder=run, progress=False)
        with pytest.raises(DataError, match=HELD):
            DocumentRetriever(small_documents()).fit(*library(), run_folder=run, progress=False)
        for command in (["fit", "--recipe", tmp_path / "recipe.yaml", *tables], ["update", fitted, *tables[:2]]):
            code, _, said = called(monkeypatch, capsys, *command, "--out", tmp_path / "new", *settings)
            assert code == 2 and "another fit is at work in" in said and not (tmp_path / "new").exists()
        PopularityRecommender().fit(world, run_folder=run)  # which trains nothing
    PopularityRecommender().fit(world, run_folder=tmp_path / "none")
    assert [path.name for path in run.iterdir()] == [LOCK] and not (tmp_path / "none").exists()


def test_of_several_processes_the_first_holds_it_for_all(world, tmp_path, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    with held_folder(tmp_path / "run", LOCK, "fit"):
        fitted = fit(world, tmp_path / "run", "training.epochs=1")
    assert same_weights(fitted, fit(world, tmp_path / "alone", "training.epochs=1"))


def test_checkpoints_that_another_fit_goes_on_from_are_not_dropped(world, tmp_path):
    fit(world, tmp_path / "run", "training.epochs=1")
    with held_folder(tmp_path / "run", LOCK, "fit"):
        drop_checkpoints(tmp_path / "run")
    assert holds_checkpoint(tmp_path / "run")
    drop_checkpoints(tmp_path / "run")
    assert not list(tmp_path.rglob("*.ckpt"))


def test_nor_those_of_what_is_trained_in_a_folder_of_its_own(world, tmp_path):
    run = tmp_path / "run"
    fit(world, run / "member_0", "training.epochs=1")
    with held_folder(run / "member_0", LOCK, "fit"):
        drop_checkpoints(run)
    assert holds_checkpoint(run)
    drop_checkpoints(run)
    assert not holds_checkpoint(run)


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "No locks available"), NotImplementedError("flock")])
def test_a_disk_without_locks_is_warned_of(error, world, tmp_path, monkeypatch, caplog):
    def refuse(path, **options):
        raise error

    monkeypatch.setattr("diffgrm.foundation.outputs.acquired", refuse)
    fit(world, tmp_path / "run", "training.epochs=1")
    assert "has no locks" in caplog.text and "see to it that no other fit is at work there" in caplog.text
    drop_checkpoints(tmp_path / "run")
    assert not holds_checkpoint(tmp_path / "run")
