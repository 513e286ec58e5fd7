"""What has been written is on the disk, as far as the system can be asked for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from diffgrm.foundation.storage import flush_folder


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
