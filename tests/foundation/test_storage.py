"""What has been written is on the disk, as far as the system can be asked for it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from diffgrm.foundation.model_folder import writing
from diffgrm.foundation.schema import DataError, ModelFolderError
from diffgrm.foundation.storage import State, atomic_file, cached, flush_folder, write_parquet
from helpers.folders import full_disk


@pytest.fixture
def folder(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    return tmp_path


def flushed(folder, monkeypatch):
    """The names that ``flush_folder`` asks the disk for."""
    found, fsync = [], os.fsync

    def told(handle):
        fsync(handle)
        found.append(os.fstat(handle).st_ino)

    monkeypatch.setattr(os, "fsync", told)
    flush_folder(folder)
    return {path.name for path in [*folder.iterdir(), folder] if path.stat().st_ino in found}


def test_files_and_their_folder_are_flushed_and_stay_as_they_are(folder, monkeypatch):
    assert flushed(folder, monkeypatch) == {"one", "two", folder.name}
    assert (folder / "one").read_text() == "one"


def test_where_folders_cannot_be_opened_as_on_windows_the_files_are_flushed(folder, monkeypatch):
    def refused(path, flags, *more):
        if Path(path).is_dir():
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, flags, *more)

    opened = os.open
    monkeypatch.setattr(os, "open", refused)
    assert flushed(folder, monkeypatch) == {"one", "two"}


def test_files_that_may_only_be_read_are_flushed_too(folder, monkeypatch):
    (folder / "one").chmod(0o444)
    monkeypatch.setattr(os, "access", lambda path, mode: path.name != "one")  # whoever runs the tests
    assert flushed(folder, monkeypatch) == {"one", "two", folder.name}


def test_a_disk_that_refuses_is_told(folder, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        flush_folder(folder)


ODD = {"fine": np.ones(2), "lift": np.array([0.5, -np.inf], np.float32), "gap": np.array([np.nan])}


def test_states_that_could_not_be_loaded_are_not_saved(tmp_path):
    path = tmp_path / "s.safetensors"
    with pytest.raises(DataError, match=r"s\.safetensors is not saved: gap, lift should hold finite numbers"):
        State(ODD).save(path)
    assert not path.exists()
    save_file(ODD, path)
    with pytest.raises(ModelFolderError, match=r"s\.safetensors cannot be used: gap, lift should hold finite numbers"):
        State.load(path)


def test_states_that_are_not_saved_are_not_cached(tmp_path, caplog):
    assert cached(tmp_path, "s.safetensors", "vectors", lambda: State(ODD)).arrays is ODD
    assert not list(tmp_path.iterdir()) and "The vectors could not be cached" in caplog.text


def test_two_writers_of_one_file_do_not_write_into_each_others(tmp_path):
    """In one process too."""
    path = tmp_path / "file"
    with atomic_file(path) as slow:
        slow.write_text("half")
        with atomic_file(path) as quick:
            quick.write_text("quick")
        assert path.read_text() == "quick" and slow.read_text() == "half"
        slow.write_text("slow")
    assert path.read_text() == "slow" and list(tmp_path.iterdir()) == [path]


def test_a_save_that_is_refused_leaves_nothing(tmp_path):
    with pytest.raises(DataError, match="gap, lift"), writing(tmp_path / "model", {}) as new:
        State(ODD).save(new / "s.safetensors")
    assert {path.name for path in tmp_path.iterdir()} <= {".model.lock"}


@pytest.mark.parametrize("room", [0.1, 0.5, 0.9])
def test_a_parquet_file_that_a_disk_has_no_room_for_is_told_in_the_disk_s_words(tmp_path, room):
    table = pl.DataFrame({f"column {n}": ["a", "b", "c"] for n in range(200)})  # so that most of it is no data
    write_parquet(table, tmp_path / "whole")
    with full_disk(int(room * (tmp_path / "whole").stat().st_size)), pytest.raises(OSError, match="File too large"):
        write_parquet(table, tmp_path / "half")
