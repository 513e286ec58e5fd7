"""Where models are saved to and read from: strange names mean themselves, links stay, what is deleted is gone."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap

import pytest

import diffgrm
from diffgrm import DiffGRMRecommender, PopularityRecommender
from diffgrm.apps.serving.live import LiveModel
from diffgrm.foundation import model_folder, outputs, storage
from diffgrm.foundation.schema import DataError, ModelFolderError, TrainingError

HISTORY = ["item 3", "item 77"]
NAMES = ["lr[0.1]", "x?", "s*", "~", "a%20b", "{a,b}", "file:", "[!x]", " ", "-", "ü 中", "**"]


@pytest.fixture(scope="module")
def other(toy):
    """A small model that is quickly saved."""
    return PopularityRecommender().fit(toy)


def beside(folder):
    return sorted(path.name for path in folder.parent.iterdir() if path.suffix != ".lock")


# ---- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("relative", [True, False])
def test_a_name_means_itself(other, fitted, tmp_path, monkeypatch, name, relative):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    for neighbour in ("xy", "s1", "a", "b", "a b"):
        fitted.save(tmp_path / neighbour)
    folder = name if relative else tmp_path / name
    other.save(folder)
    assert (tmp_path / name / "items.parquet").is_file() and not list(home.iterdir())
    again = diffgrm.load(folder)
    assert again.item_table.equals(other.item_table) and again.recommend(HISTORY).equals(other.recommend(HISTORY))
    with pytest.raises(ModelFolderError, match="there is no model folder"):
        diffgrm.load(tmp_path / "??")


@pytest.mark.parametrize("name", NAMES)
def test_tables_of_ours_mean_their_names_too(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    table, decoy = (storage.pl.DataFrame({"a": [number]}) for number in (1, 2))
    for folder in ("xy", "s1", name):
        outputs.Path(folder).mkdir()
        storage.write_parquet(table if folder == name else decoy, outputs.Path(folder, "t.parquet"))
    assert storage.read_parquet(outputs.Path(name, "t.parquet")).equals(table)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({"xy", "s1", name})


def test_a_run_folder_may_have_any_name(toy, tiny_recipe, tmp_path):
    run = tmp_path / "lr[0.1]{x}*?"
    once = DiffGRMRecommender(tiny_recipe).fit(toy, run_folder=run, progress=False)
    again = DiffGRMRecommender(tiny_recipe).fit(toy, run_folder=run, resume=True, progress=False)
    assert again.recommend(HISTORY).equals(once.recommend(HISTORY))


# ---- links ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def link(other, tmp_path):
    """``current -> v1``, beside ``v2``."""
    for name in ("v1", "v2"):
        other.save(tmp_path / "models" / name)
    path = tmp_path / "current"
    path.symlink_to(tmp_path / "models" / "v1")
    return path


def test_a_save_goes_through_a_link_again_and_again(link, fitted, tmp_path):
    for _ in range(3):
        fitted.save(link)
        assert link.is_symlink() and type(diffgrm.load(link)) is DiffGRMRecommender
        assert beside(tmp_path / "models" / "v1") == ["v1", "v2"] and beside(link) == ["current", "models"]
    assert type(diffgrm.load(tmp_path / "models" / "v1")) is DiffGRMRecommender
    assert type(diffgrm.load(tmp_path / "models" / "v2")) is PopularityRecommender


def test_a_link_to_nothing_yet_makes_it(other, tmp_path):
    (tmp_path / "current").symlink_to("models/v1")
    other.save(tmp_path / "current")
    assert (tmp_path / "current").is_symlink() and (tmp_path / "models" / "v1" / "manifest.json").is_file()


def test_links_in_a_circle_are_refused(other, tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for action in (other.save, diffgrm.load):
        with pytest.raises(ModelFolderError, match="lead nowhere"):
            action(tmp_path / "a")


def test_what_a_link_led_to_is_gone_when_it_is_deleted(link, fitted, tmp_path):
    fitted.save(link)
    shutil.rmtree(tmp_path / "models" / "v1")
    with pytest.raises(ModelFolderError, match="there is no model folder"):
        diffgrm.load(link)
    link.unlink()
    with pytest.raises(ModelFolderError, match="there is no model folder"):
        diffgrm.load(link)


def test_a_server_follows_a_link_that_is_turned(link, fitted, tmp_path):
    live = LiveModel(link, device="cpu")
    fitted.save(tmp_path / "models" / "v2")
    assert not live.refresh()
    link.unlink()
    link.symlink_to(tmp_path / "models" / "v2")
    assert live.refresh() and type(live.current.saved) is DiffGRMRecommender


def test_a_change_under_way_when_a_link_is_turned_is_refused(link, fitted, tmp_path):
    live = LiveModel(link, device="cpu")
    fitted.save(tmp_path / "models" / "v2")

    def turn(recommender):
        link.unlink()
        link.symlink_to(tmp_path / "models" / "v2")
        return recommender.remove_items(["item 3"])

    with pytest.raises(ModelFolderError, match="turned to another model during the change; send it again"):
        live.change(turn)
    assert type(diffgrm.load(link)) is DiffGRMRecommender and diffgrm.load(link).recommendable.all()
    assert diffgrm.load(tmp_path / "models" / "v1").recommendable.all()
    assert live.refresh() and type(live.current.saved) is DiffGRMRecommender


# ---- kills and deletions ------------------------------------------------------------------------------------------------


def killed(folder, moment):
    """A save of another process that is killed."""
    code = f"""
        import os, signal, shutil
        from pathlib import Path
        import diffgrm
        from diffgrm.foundation import manifest, model_folder
        model = diffgrm.load({str(folder)!r})
        def die(*args, **kwargs):
            os.kill(os.getpid(), signal.SIGKILL)
        replace = Path.replace
        def between(self, target):
            die() if self.name.endswith(".new") else replace(self, target)
        if {moment!r} == "between the renames":
            Path.replace = between
        elif {moment!r} == "after them":
            rmtree = shutil.rmtree
            shutil.rmtree = lambda path, **more: die() if str(path).endswith(".old") else rmtree(path, **more)
        else:
            manifest.write = die
        model.save({str(folder)!r})
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False, capture_output=True)
    assert done.returncode == -9, done.stderr.decode()


@pytest.mark.parametrize("through", ["the folder", "a link"])
def test_a_save_that_was_killed_between_its_renames_is_taken_back(link, tmp_path, through):
    folder = link if through == "a link" else tmp_path / "models" / "v1"
    killed(folder, "between the renames")
    assert not (tmp_path / "models" / "v1").exists()
    assert diffgrm.load(folder).recommend(HISTORY).height == 10 and link.is_symlink()


@pytest.mark.parametrize("moments", [["after them"], ["after them", "while it is written"], ["while it is written"]])
def test_what_is_deleted_after_a_kill_stays_deleted(other, tmp_path, moments):
    folder = other.save(tmp_path / "model")
    for moment in moments:
        killed(folder, moment)
    assert diffgrm.load(folder).recommend(HISTORY).height == 10
    shutil.rmtree(folder)
    for _ in range(2):
        with pytest.raises(ModelFolderError, match="there is no model folder"):
            diffgrm.load(folder)
    other.save(folder)
    assert beside(folder) == ["model"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OSError])
def test_what_ends_a_save_between_its_renames_loses_nothing(other, tmp_path, monkeypatch, error):
    folder = other.save(tmp_path / "model")
    replace = outputs.Path.replace

    def ending(path, target):
        if path.name.endswith(".new"):
            raise error
        return replace(path, target)

    monkeypatch.setattr(outputs.Path, "replace", ending)
    with pytest.raises(error):
        other.save(folder)
    monkeypatch.undo()
    assert beside(folder) == ["model"] and diffgrm.load(folder).recommend(HISTORY).height == 10


# ---- places that cannot be written ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [".", "..", "/", "inner/..", "{here}", "{here}/.."])
def test_the_current_folder_and_those_around_it_stay(other, tmp_path, monkeypatch, name):
    here = tmp_path / "outer" / "here"
    (here / "inner").mkdir(parents=True)
    monkeypatch.chdir(here)
    with pytest.raises(ModelFolderError, match="is the current folder or holds it"):
        other.save(name.format(here=here))
    assert here.is_dir() and outputs.Path.cwd() == here and beside(here) == ["here"]


def test_a_model_is_not_replaced_under_the_feet_of_who_stands_in_it(other, tmp_path, monkeypatch):
    monkeypatch.chdir(other.save(tmp_path / "model"))
    with pytest.raises(ModelFolderError, match="is the current folder"):
        other.save(".")
    assert diffgrm.load(".").recommend(HISTORY).height == 10


def test_missing_parents_are_made_and_files_among_them_told(other, tmp_path):
    assert diffgrm.load(other.save(tmp_path / "a" / "b" / "model")).recommend(HISTORY).height == 10
    (tmp_path / "file").write_text("precious")
    for place in (tmp_path / "file" / "model", tmp_path / "file" / "a" / "model"):
        with pytest.raises(ModelFolderError, match=r"cannot write .*file is no folder"):
            model_folder.check_target(place)
    with pytest.raises(ModelFolderError, match="File name too long"):
        model_folder.check_target(tmp_path / ("x" * 255))


def test_a_place_where_one_may_not_write_is_told(tmp_path, monkeypatch):
    def denied(**more):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(outputs.tempfile, "TemporaryDirectory", denied)
    with pytest.raises(ModelFolderError, match="cannot write .*Permission denied; choose another place"):
        model_folder.check_target(tmp_path / "model")
    for check in (outputs.check_file, outputs.check_folder):
        with pytest.raises(DataError, match="cannot write .*Permission denied"):
            check(tmp_path / "out")


def test_mounts_are_told(tmp_path, monkeypatch):
    (tmp_path / "mount").mkdir()
    monkeypatch.setattr(model_folder.os.path, "ismount", lambda path: path == tmp_path / "mount")
    with pytest.raises(ModelFolderError, match="is where a disk is mounted"):
        model_folder.check_target(tmp_path / "mount")


def test_a_run_folder_is_looked_at_before_anything_is_learnt(toy, tiny_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(diffgrm.recommenders.texts.TextVectors, "fit", lambda *args: pytest.fail("it began"))
    (tmp_path / "file").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.ckpt").write_text("precious")
    for place, resume, message in (
        ("file", False, "is a file"),
        ("run", False, "already holds a run"),
        ("x", True, "cannot resume"),
    ):
        with pytest.raises(TrainingError, match=message):
            DiffGRMRecommender(tiny_recipe).fit(toy, run_folder=tmp_path / place, resume=resume, progress=False)


def test_without_a_home_there_is_a_warning_and_no_cache(monkeypatch, caplog, toy):
    for name in ("DIFFGRM_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)

    def nobody(number):
        raise KeyError(number)

    monkeypatch.setattr("pwd.getpwuid", nobody)
    made = storage.cached(None, "x.safetensors", "embeddings", lambda: storage.State(facts={"a": 1}))
    assert made.facts == {"a": 1} and "nothing is cached; name a folder in DIFFGRM_CACHE" in caplog.text
    with pytest.raises(OSError, match="DIFFGRM_CACHE"):
        diffgrm.movielens("100k")
