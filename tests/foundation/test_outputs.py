"""Places to write to: not over what is read, not into a model's folder, not among files of something else."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest

from diffgrm.foundation import manifest, model_folder
from diffgrm.foundation.manifest import EXPORT
from diffgrm.foundation.outputs import check_file, check_folder, check_own_folder, check_unread
from diffgrm.foundation.schema import DataError, ModelFolderError


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "in.parquet"
    path.write_text("precious")
    return path


def test_what_is_read_is_not_written_over_by_whatever_name(table, tmp_path, monkeypatch):
    (tmp_path / "link.parquet").symlink_to(table)
    monkeypatch.chdir(tmp_path)
    for other in (table, tmp_path / "link.parquet", tmp_path / "new" / ".." / "in.parquet", type(table)("in.parquet")):
        with pytest.raises(DataError, match=r"it is read too \(.*in\.parquet\), and would be lost; choose another name"):
            check_unread([None, other], [None, table])
    with pytest.raises(DataError, match=r"it is read too \(.*i\*\.parquet\)"):
        check_unread([table], [tmp_path / "i*.parquet"])
    with pytest.raises(DataError, match="it would be a part of .*, which is read; choose another place"):
        check_unread([tmp_path / "new.parquet"], [tmp_path])
    check_unread([tmp_path / "out.parquet", None], [table, None, tmp_path / "no*.parquet", tmp_path / "missing"])


@pytest.mark.parametrize("name", ["n" * 300, "a\0b"])
def test_names_that_no_file_can_have_are_told(table, name):
    path = table.parent / name
    for check in (check_file, check_folder, lambda path: check_own_folder(path, "a search", ("search.json",))):
        with pytest.raises(DataError, match=r"choose another (place|name)"):
            check(path)
    with suppress(DataError):  # by whoever writes there
        check_unread([path], [table])
    check_unread([table], [table.parent / ("n" * 300)])
    with pytest.raises(ModelFolderError, match=r"is not a diffgrm model: it has no manifest\.json"):
        manifest.read(path, manifest.MODEL)
    assert manifest.version(path) is None
    for use in (model_folder.read_manifest, model_folder.check_target):
        with pytest.raises(ModelFolderError, match=r"there is no model folder|is no path|File name too long"):
            use(path)


def test_two_results_are_not_written_to_one_file(table, tmp_path):
    with pytest.raises(DataError, match="cannot write two things to .*x; give each a name of its own"):
        check_unread([tmp_path / "x", tmp_path / "y" / ".." / "x"], [])
    check_unread([tmp_path / "x", tmp_path / "y"], [])


@pytest.mark.parametrize("content", ["{", '{"name": "pwa"}', '{"format": "diffgrm-onnx"}', "[]"])
def test_a_model_s_folder_holds_the_model_only(tmp_path, content):
    manifest = {"format": EXPORT, "format_version": 3, "files": {}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    for check, place in ((check_file, "x.json"), (check_folder, "."), (check_folder, "run"), (check_folder, "a/b")):
        with pytest.raises(DataError, match="is an ONNX export of diffgrm, and holds nothing else; choose a place outside"):
            check(tmp_path / place)
    (tmp_path / "manifest.json").write_text(content)  # of another program
    check_file(tmp_path / "x.json")
    check_folder(tmp_path / "run")


def test_a_folder_for_one_thing_holds_nothing_else(tmp_path):
    check_own_folder(tmp_path / "new", "a search", ("search.json",))
    check_own_folder(tmp_path, "a search", ("search.json",))
    (tmp_path / "notes.txt").write_text("precious")
    with pytest.raises(DataError, match=r"holds files that are not of a search: notes\.txt; choose a new or empty folder"):
        check_own_folder(tmp_path, "a search", ("search.json",))
    (tmp_path / "search.json").write_text("{}")
    check_own_folder(tmp_path, "a search", ("search.json",))
