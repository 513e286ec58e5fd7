"""What the cache holds is told and deleted; what others use, and what is not of the cache, stays."""

from __future__ import annotations

import os
import shutil
import time

import numpy as np
import pytest

from diffgrm.foundation import cache
from diffgrm.foundation.storage import State, cached
from helpers.commands import caller

HOUR = 3600.0


@pytest.fixture
def run(monkeypatch, capsys):
    return caller(monkeypatch, capsys)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A cache: vectors used 40 days ago, semantic IDs of 10 days ago, events of 2 hours ago and just now."""
    monkeypatch.setenv("DIFFGRM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    home = tmp_path / "cache"
    for kind, name, hours in (
        ("embeddings", f"{'a' * 64}.safetensors", 40 * 24),
        ("semantic_ids", f"{'b' * 64}.safetensors", 10 * 24),
        ("events", "c" * 32, 2),
        ("events", "d" * 32, 0),
        ("events", f".{'e' * 32}.12345678.tmp", 31),  # a process was killed
        ("events", f".{'f' * 32}.12345678.tmp", 2),  # one is at work, or was not long ago
        ("embeddings", "notes.txt", 99 * 24),
        ("datasets", "ml-1m.zip", 99 * 24),
    ):
        put(home / kind / name, hours, folder=kind == "events")
    return home


def put(path, hours, folder=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    files = [path]
    if folder:
        path.mkdir()
        files = [path / "items", path / "users.parquet", path]
    for file in files:
        if file != path or not folder:
            file.write_bytes(b"x" * 1000)
        os.utime(file, (time.time() - HOUR * hours,) * 2)
    os.utime(files[-1], (time.time() - HOUR * hours,) * 2)


def left(home):
    return {path.name[:2].strip(".") or path.name for path in home.glob("*/*")}


def test_sizes_and_ages_are_told_and_nothing_is_deleted(run, home):
    before = left(home)
    code, out, _ = run("cache")
    text = " ".join(out.replace("│", " ").split())
    assert code == 0 and "embeddings 1 1.0 kB 40.0 days" in text and "semantic_ids 1 1.0 kB 10.0 days" in text
    assert "events 4 8.0 kB 1.3 days" in text and "datasets (downloads: delete them by hand) 1.0 kB" in text
    assert "c" * 32 not in out
    code, out, _ = run("cache", "events", "--list")
    assert "c" * 32 in out and f".{'e' * 32}.12345678.tmp (unfinished)" in out and "a" * 64 not in out
    code, out, _ = run("cache", "--older-than", "20", "--list")
    assert "a" * 64 in out and "b" * 64 not in out
    assert left(home) == before


def test_clearing_leaves_what_is_in_use_being_written_or_not_of_the_cache(run, home):
    code, out, _ = run("cache", "--clear")
    assert code == 0 and out == "4 entries deleted, 6.0 kB. 2 are in use or being written, and stay."
    assert left(home) == {"dd", "f", "no", "ml"}


def test_only_what_nobody_has_used_for_so_long_is_deleted(run, home):
    code, out, _ = run("cache", "--older-than", "30", "--clear")
    assert (
        code == 0 and out == "1 entries deleted, 1.0 kB." and not (home / "embeddings" / f"{'a' * 64}.safetensors").exists()
    )
    code, out, _ = run("cache", "embeddings", "events", "--older-than", "1", "--clear")
    assert out == "1 entries deleted, 2.0 kB." and left(home) == {"bb", "cc", "dd", "f", "no", "ml"}


def test_to_read_an_entry_is_to_use_it(home):
    name = f"{'a' * 64}.safetensors"
    State({"embeddings": np.ones(3)}).save(home / "embeddings" / name)
    os.utime(home / "embeddings" / name, (0, 0))
    found = cached(home / "embeddings", name, "embeddings", lambda: pytest.fail("made again"))
    assert found.arrays["embeddings"].tolist() == [1, 1, 1]
    (entry,) = [entry for entry in cache.entries(home) if entry.path.name == name]
    assert not entry.is_free(time.time()) and entry.is_free(time.time() + 61)


def test_what_another_process_deletes_first_is_no_error(home):
    found = list(cache.entries(home))
    shutil.rmtree(home / "events")
    (home / "embeddings" / f"{'a' * 64}.safetensors").unlink()
    for entry in found:
        cache.remove(entry)
    assert left(home) == {"no", "ml"} and list(cache.entries(home)) == []


def test_a_folder_vanishes_as_a_whole_even_if_deleting_it_is_cut_short(home, monkeypatch):
    (entry,) = [entry for entry in cache.entries(home) if entry.path.name == "c" * 32]

    def killed(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        cache.remove(entry)
    assert not entry.path.exists()  # nobody finds half of it
    (rest,) = [entry for entry in cache.entries(home) if entry.path.name.startswith(f".{'c' * 32}")]
    assert not rest.whole and rest.is_free(time.time() + cache.DAY)


def test_what_cannot_be_deleted_is_told_and_the_rest_is(run, home, monkeypatch):
    remove = cache.remove

    def held(entry):
        if entry.kind == "embeddings":
            raise PermissionError(13, "Permission denied")
        remove(entry)

    monkeypatch.setattr(cache, "remove", held)
    code, _, err = run("cache", "--clear")
    assert code == 2 and "1 of 4 entries could not be deleted (are they in use, or another user's?)" in err
    assert "Permission denied" in err
    assert left(home) == {"aa", "dd", "f", "no", "ml"}


def test_links_are_taken_out_and_not_followed(home, tmp_path):
    put(tmp_path / "mine" / "kept", 99)
    link = home / "events" / ("0" * 32)
    link.symlink_to(tmp_path / "mine", target_is_directory=True)
    (entry,) = [entry for entry in cache.entries(home) if entry.path == link]
    cache.remove(entry)
    assert not link.is_symlink() and (tmp_path / "mine" / "kept").is_file()


def test_a_kind_that_there_is_not_gets_a_hint(run, home):
    code, _, err = run("cache", "embedings", "--clear")
    assert code == 2 and "the cache holds no 'embedings'; did you mean 'embeddings'?" in err and len(left(home)) == 8


def test_without_a_cache_there_is_nothing_to_show(run, monkeypatch, tmp_path):
    monkeypatch.setenv("DIFFGRM_CACHE", str(tmp_path / "nowhere"))
    code, out, _ = run("cache", "--clear")
    assert code == 0 and out == "0 entries deleted, 0 bytes." and not (tmp_path / "nowhere").exists()
