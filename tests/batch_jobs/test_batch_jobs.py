"""Batch jobs without Ray: what is computed, what is refused, and what counts as done. The rest is in test_on_ray.py."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
from filelock import FileLock

import diffgrm
from diffgrm import InteractionDataset, Recipe
from diffgrm.apps.batch_jobs import embed_batch, embedding, engine, recommend_batch, recommending
from diffgrm.apps.batch_jobs.engine import Engine, Pool, Worker, require_ray
from diffgrm.apps.batch_jobs.user_events import EventTable
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import DataError, DiffGRMError, MissingExtraError, ModelFolderError, RecipeError
from diffgrm.semantic_ids.embeddings.base import embed_items
from diffgrm.semantic_ids.embeddings.precomputed import Precomputed
from helpers.batch_jobs import check_same_lists, in_this_process, lists, write_parts
from helpers.commands import called
from helpers.folders import full_disk

SOURCE = Path(diffgrm.__file__).parent


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch):
    for module in (recommending, embedding):
        monkeypatch.setattr(module, "engine", in_this_process)
    monkeypatch.setattr(recommending, "PIECE", 100)  # so that files are cut, and several of them put together


@pytest.fixture(scope="module")
def models(toy, saved, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    names = ("popularity", "item_knn")
    fitted = {name: resolve("recommender", name)(Recipe(recommender=name)).fit(toy, progress=False) for name in names}
    return {"diffgrm": saved} | {name: model.save(folder / name) for name, model in fitted.items()}


@pytest.fixture(scope="module")
def events(toy):
    return toy.event_table()


@pytest.fixture
def table(events, tmp_path):
    """The toy events in a folder of files, large, small and in between."""
    return write_parts(tmp_path / "events", events, [3, 250, 1, 90])


def plainly(model, table, k=5, **settings):
    return diffgrm.load(model).recommend(table, k, on_empty="skip", **settings)


# ---- the lists -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["popularity", "item_knn", "diffgrm"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"exclude_seen": False, "only": [f"item {n}" for n in range(0, 480, 3)]},
        {"without": {"item 1"}},
        {"rules": {"caps": {"brand": 1}, "pins": {2: "item 9"}}},
    ],
)
def test_lists_are_those_of_recommend(models, table, tmp_path, name, settings):
    out = tmp_path / "out[1]*"
    done = recommend_batch(models[name], table, out, 5, batch_size=7, partitions=5, progress=False, **settings)
    found = lists(out)
    check_same_lists(found, plainly(models[name], table, **settings))
    assert done["users"] == found["user_id"].n_unique() == 120 and done["rows"] == found.height == 600
    assert done["model"]["version"] == json.loads((out / "_manifest.json").read_text())["model"]["version"]
    whose = pl.concat(
        pl.read_parquet(path, glob=False).select("user_id").unique().with_columns(part=pl.lit(path.name))
        for path in out.glob("part-*.parquet")
    )
    assert whose["part"].n_unique() == 5 and not whose["user_id"].is_duplicated().any()
    assert not (out / "_job" / "events").exists()


def test_settings_for_use_are_taken(models, table, tmp_path):
    recommend_batch(models["diffgrm"], table, tmp_path / "out", 5, overrides=["decoding.beam=5"], progress=False)
    narrow = diffgrm.load(models["diffgrm"]).override(["decoding.beam=5"]).recommend(table, 5)
    assert not narrow.equals(plainly(models["diffgrm"], table))
    check_same_lists(lists(tmp_path / "out"), narrow)


def test_users_without_a_known_item_get_no_list_and_are_counted(models, events, tmp_path):
    cold = pl.DataFrame({"user_id": ["cold 1", "cold 2", "half"], "item_id": ["x", "y", "z"], "timestamp": [1, 2, 3]})
    half = pl.DataFrame({"user_id": ["half"], "item_id": ["item 3"], "timestamp": [4]})
    table = pl.concat([events, cold, half])
    table.write_parquet(tmp_path / "e.parquet")
    done = recommend_batch(models["diffgrm"], tmp_path / "e.parquet", tmp_path / "out", 5, partitions=40, progress=False)
    assert (done["users"], done["users_without_known_item"], done["events_of_unknown_items"]) == (121, 2, 3)
    check_same_lists(lists(tmp_path / "out"), plainly(models["diffgrm"], table))
    cold.write_parquet(tmp_path / "cold.parquet")
    with pytest.raises(DataError, match="none of 3 users has an item that the model knows; give ids of the kind"):
        recommend_batch(models["diffgrm"], tmp_path / "cold.parquet", tmp_path / "none", 5, progress=False)
    assert not (tmp_path / "none").exists()


def test_ids_may_be_numbers_and_columns_have_other_names(tmp_path):
    rows = [(u, i, 10 * i + u) for u in range(30) for i in range(20) if (u * i) % 3]
    events = pl.DataFrame(rows, ["shopper", "item_id", "when"], orient="row").sample(fraction=1, shuffle=True, seed=2)
    items = pl.DataFrame({"item_id": range(20), "text": [f"thing {i}" for i in range(20)]})
    ours = {"user_id": "shopper", "timestamp": "when"}
    data = InteractionDataset.from_tables(events, items, ours)
    model = (
        resolve("recommender", "item_knn")(Recipe(recommender="item_knn")).fit(data, progress=False).save(tmp_path / "m")
    )
    for name, kind in (("numbers", pl.Int32), ("unsigned", pl.UInt64), ("texts", pl.String)):
        table = write_parts(tmp_path / name, events.with_columns(pl.col("shopper").cast(kind)), [100, 50])
        recommend_batch(model, table, tmp_path / f"{name} out", 3, columns=ours, progress=False)
        check_same_lists(lists(tmp_path / f"{name} out"), plainly(model, diffgrm.read_table(table, ours), 3))
    beyond = pl.DataFrame({"shopper": [2**64 - 1], "item_id": [7], "when": [0]}, schema_overrides={"shopper": pl.UInt64})
    beyond.write_parquet(tmp_path / "unsigned" / "999.parquet")
    recommend_batch(model, tmp_path / "unsigned", tmp_path / "beyond", 3, columns=ours, progress=False)
    check_same_lists(lists(tmp_path / "beyond"), plainly(model, diffgrm.read_table(tmp_path / "unsigned", ours), 3))


# ---- what is done stays done -----------------------------------------------------------------------------------------


def stamps(out):
    return {path.name: path.stat().st_mtime_ns for path in out.glob("part-*.parquet")}


def test_a_job_that_ended_in_the_middle_goes_on_with_what_is_missing(models, table, tmp_path, monkeypatch):
    out, model = tmp_path / "out", models["popularity"]
    whole = Worker.do

    def ends(self, number):
        if number == 3 and "Ranking" in str(self._do):
            raise KeyboardInterrupt
        return whole(self, number)

    monkeypatch.setattr(Worker, "do", ends)
    with pytest.raises(KeyboardInterrupt):
        recommend_batch(model, table, out, 5, partitions=6, progress=False)
    before = stamps(out)
    assert sorted(before) == [f"part-{n:05}.parquet" for n in range(3)] and not (out / "_manifest.json").exists()
    monkeypatch.setattr(Worker, "do", whole)
    (out / ".part-00003.parquet.77.tmp").write_text("half of it")
    (out / "part-00004.parquet").write_text("of a worker that was killed before it marked it")
    (out / "part-00001.parquet").write_bytes((out / "part-00001.parquet").read_bytes()[:-9])  # of a machine that fell
    recommend_batch(model, table, out, 5, partitions=6, progress=False)
    after = stamps(out)
    assert len(after) == 6 and {n for n, at in before.items() if after[n] != at} == {"part-00001.parquet"}
    check_same_lists(lists(out), plainly(model, table))
    assert not list(out.rglob(".*.tmp"))
    manifest = (out / "_manifest.json").read_text()
    assert recommend_batch(model, table, out, 5, partitions=6, progress=False) == json.loads(manifest)
    assert stamps(out) == after
    (out / "part-00002.parquet").unlink()
    recommend_batch(model, table, out, 5, partitions=6, progress=False)
    assert {name for name, at in stamps(out).items() if after[name] != at} == {"part-00002.parquet"}
    check_same_lists(lists(out), plainly(model, table))


def test_a_folder_of_another_job_is_refused(models, table, tmp_path):
    out, model = tmp_path / "out", models["popularity"]
    recommend_batch(model, table, out, 5, progress=False)
    before = stamps(out)
    with pytest.raises(DataError, match=r"(?s)another job; choose another folder, or delete that one:\n  - k was 5, is 6$"):
        recommend_batch(model, table, out, 6, progress=False)
    with pytest.raises(DataError, match="model was .*, is "):
        recommend_batch(models["item_knn"], table, out, 5, progress=False)
    with pytest.raises(DataError, match="only was null, is "):
        recommend_batch(model, table, out, 5, only=["item 1", "item 2"], progress=False)
    write_parts(tmp_path / "others", diffgrm.read_table(table), [9])
    with pytest.raises(DataError, match="interactions was .*, is "):
        recommend_batch(model, tmp_path / "others", out, 5, progress=False)
    assert stamps(out) == before
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "letters.txt").write_text("dear")
    with pytest.raises(DataError, match=r"that are not of a batch job: letters\.txt; choose a new or empty folder"):
        recommend_batch(model, table, foreign, 5, progress=False)
    assert [path.name for path in foreign.iterdir()] == ["letters.txt"]
    FileLock(out / "_job" / "lock").acquire(timeout=0).lock.release()  # which the refusals above have given back
    with FileLock(out / "_job" / "lock"), pytest.raises(DataError, match="another process is at work in"):
        recommend_batch(model, table, out, 5, progress=False)
    (out / "_job" / "plan.json").write_text("{")
    with pytest.raises(DataError, match=r"plan\.json is damaged .*; choose another folder, or delete this one"):
        recommend_batch(model, table, out, 5, progress=False)


def test_what_an_earlier_run_has_done_is_kept_where_a_later_one_cannot_work(models, table, tmp_path, monkeypatch):
    out = tmp_path / "out"
    recommend_batch(models["popularity"], table, out, 5, partitions=3, progress=False)
    (out / "_manifest.json").unlink()  # as if it had been killed
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    @contextmanager
    def nowhere(pool):
        raise DataError("there is no Ray")
        yield

    monkeypatch.setattr(recommending, "engine", nowhere)
    with pytest.raises(DataError, match="there is no Ray"):
        recommend_batch(models["popularity"], table, out, 5, partitions=3, progress=False)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    with pytest.raises(DataError, match="there is no Ray"):
        recommend_batch(models["popularity"], table, tmp_path / "new", 5, progress=False)
    assert not (tmp_path / "new").exists()


def test_a_full_disk_while_events_are_brought_together_is_no_fault_of_the_data(models, table, tmp_path, caplog):
    out, rows = tmp_path / "out", diffgrm.read_table(table).height
    with full_disk(1200), pytest.raises(DiffGRMError, match=r"pieces are not done; .*the same command goes on") as error:
        recommend_batch(models["popularity"], table, out, 5, partitions=3, progress=False)
    assert not isinstance(error.value, DataError) and "could not be written: " in str(error.value)
    assert (out / "_job" / "plan.json").is_file() and "Traceback" not in caplog.text
    assert recommend_batch(models["popularity"], table, out, 5, partitions=3, progress=False)["events"] == rows
    check_same_lists(lists(out), plainly(models["popularity"], table))


def test_a_job_in_a_folder_that_was_there_leaves_it_empty_where_it_cannot_be_done(models, events, tmp_path):
    events.with_columns(item_id=pl.lit("unheard of")).write_parquet(tmp_path / "cold.parquet")
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="none of 120 users has an item that the model knows"):
        recommend_batch(models["popularity"], tmp_path / "cold.parquet", tmp_path / "out", 5, progress=False)
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(DataError, match="is a diffgrm model, and holds nothing else"):
        recommend_batch(models["popularity"], tmp_path / "cold.parquet", models["popularity"] / "out", 5, progress=False)


def test_a_model_that_changes_meanwhile_is_found_out(models, table, tmp_path, monkeypatch):
    folder, out = shutil.copytree(models["diffgrm"], tmp_path / "model"), tmp_path / "out"
    old = shutil.copytree(folder, tmp_path / "old")

    @contextmanager
    def changing(pool):
        yield SimpleNamespace(pool=pool, workers=1, do=change)

    def change(work):
        if work.what == "Recommending":
            diffgrm.load(folder).remove_items(["item 3"]).save(folder)
        return work.here()

    monkeypatch.setattr(recommending, "engine", changing)
    with pytest.raises(DiffGRMError, match="(?s)2 of 2 partitions are not done.*holds model .* now, and the job"):
        recommend_batch(folder, table, out, 5, partitions=2, progress=False)
    assert not list(out.glob("part-*"))
    monkeypatch.setattr(recommending, "engine", in_this_process)
    with pytest.raises(DataError, match="model was .*, is "):
        recommend_batch(folder, table, out, 5, partitions=2, progress=False)
    recommend_batch(old, table, out, 5, partitions=2, progress=False)
    check_same_lists(lists(out), plainly(old, table))


# ---- bad input -------------------------------------------------------------------------------------------------------


def spoil(path):
    """Other bytes in the middle of a parquet file, whose footer stays."""
    content = bytearray(path.read_bytes())
    content[4 : len(content) // 3] = b"\xff" * (len(content) // 3 - 4)
    path.write_bytes(content)


@pytest.mark.parametrize("where", ["footer", "pages"])
def test_damaged_files_stop_the_job_before_it_writes_or_are_left_out(models, events, table, tmp_path, where):
    out, bad = tmp_path / "out", table / "003.parquet"
    bad.write_bytes(bad.read_bytes()[:50]) if where == "footer" else spoil(bad)
    with pytest.raises(DataError, match=r"(?s)003\.parquet is damaged, or no parquet file.*--on-error skip"):
        recommend_batch(models["popularity"], table, out, 5, progress=False)
    assert not out.exists()
    done = recommend_batch(models["popularity"], table, out, 5, on_error="skip", progress=False)
    assert done["skipped"]["files"] == (where == "footer") and done["skipped"]["rows"] == (0 if where == "footer" else 90)
    assert all("003.parquet" in problem for problem in done["skipped"]["problems"])
    left = pl.concat([events[:254], events[344:]])
    check_same_lists(lists(out), plainly(models["popularity"], left))


def test_rows_that_cannot_be_used_are_named_with_their_file(models, events, table, tmp_path):
    events[:5].with_columns(item_id=pl.lit(None, pl.String)).write_parquet(table / "900.parquet")
    with pytest.raises(DataError, match=r"(?s)900\.parquet, rows 0 to 4: .*item_id is null in 5 rows"):
        recommend_batch(models["popularity"], table, tmp_path / "out", 5, progress=False)
    done = recommend_batch(models["popularity"], table, tmp_path / "out", 5, on_error="skip", progress=False)
    assert done["skipped"]["rows"] == 5 and done["events"] == events.height


def test_tables_that_are_none_are_told_before_anything_is_made(models, events, tmp_path):
    def complaint(source, **settings):
        with pytest.raises(DataError) as error:
            recommend_batch(models["popularity"], source, tmp_path / "out", progress=False, **settings)
        assert not (tmp_path / "out").exists()
        return str(error.value)

    (tmp_path / "empty").mkdir()
    assert "is a folder without parquet files" in complaint(tmp_path / "empty")
    assert "there is no interaction table" in complaint(tmp_path / "nothing")
    events.write_csv(tmp_path / "x.csv")
    assert "batch jobs read parquet files" in complaint(tmp_path / "x.csv")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more")
    assert "can be read" in complaint(tmp_path / "torn.parquet") and "torn.parquet" in complaint(tmp_path / "torn.parquet")
    events[:0].write_parquet(tmp_path / "rowless.parquet")
    assert "is empty: expected at least one row" in complaint(tmp_path / "rowless.parquet")
    folder = write_parts(tmp_path / "mixed", events, [100])
    events[:9].cast({"timestamp": pl.Float64}).write_parquet(folder / "2.parquet")
    assert "timestamp: Int64 in" in complaint(folder) and "give them the same columns and types" in complaint(folder)
    events[:9].drop("timestamp").write_parquet(folder / "2.parquet")
    assert "absent in" in complaint(folder)
    events.rename({"user_id": "shopper"}).write_parquet(tmp_path / "named.parquet")
    assert "--column user_id=YOUR_NAME" in complaint(tmp_path / "named.parquet")
    with pytest.raises(DataError, match="cannot rename to 'foo': the columns of the interaction table are user_id"):
        EventTable.at(tmp_path / "named.parquet", {"user_id": "shopper", "foo": "timestamp"}, None)
    events.cast({"timestamp": pl.String}).write_parquet(tmp_path / "texts.parquet")
    assert "name it with time_format=" in complaint(tmp_path / "texts.parquet")
    assert "nosuch://place cannot be listed" in complaint("nosuch://place")


def test_arguments_that_mean_nothing_are_refused_before_anything_is_made(models, table, tmp_path):
    def ask(k=5, **settings):
        return recommend_batch(models["popularity"], table, tmp_path / "out", k, progress=False, **settings)

    with pytest.raises(DataError, match="k is 0; expected a whole number from 1"):
        ask(0)
    with pytest.raises(DataError, match="the filters leave no item to recommend"):
        ask(only=["nothing"])
    with pytest.raises(DataError, match="(?s)batch_size is 0; expected a whole number from 1.*on_error is 'go on'"):
        ask(batch_size=0, on_error="go on")
    with pytest.raises(RecipeError, match="can change after fit, not seed=8"):
        ask(overrides=["seed=8"])
    with pytest.raises(ModelFolderError, match="there is no model folder"):
        recommend_batch(tmp_path / "nowhere", table, tmp_path / "out", progress=False)
    with pytest.raises(DataError, match="concurrency is 0; expected a number of workers from 1"):
        Pool(concurrency=0)
    with pytest.raises(DataError, match=r"gpus_per_worker is 1\.5; expected 0, a part of one such as 0\.5, or"):
        Pool(gpus_per_worker=1.5)
    assert not (tmp_path / "out").exists()


def test_want_of_memory_names_what_to_lower(models, table, tmp_path, monkeypatch):
    def hungry(*_arguments, **_settings):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 EiB")

    monkeypatch.setattr("diffgrm.recommenders.popularity.PopularityRecommender._rank", hungry)
    with pytest.raises(DiffGRMError, match=r"not memory enough \(RuntimeError\); lower --batch-size \(it is 50\) or --"):
        recommend_batch(models["popularity"], table, tmp_path / "out", 5, batch_size=50, progress=False)


# ---- vectors ---------------------------------------------------------------------------------------------------------


def test_vectors_are_those_of_the_encoder_and_a_model_is_fitted_on_them(toy, tmp_path, monkeypatch):
    recipe = Recipe.from_dict({"embedding": {"name": "lsa", "width": 16}})
    items = write_parts(tmp_path / "items", toy.item_table, [100, 7])
    done = embed_batch(items, tmp_path / "vectors", recipe=recipe, partitions=6, progress=False)
    assert done["rows"] == 480 and done["partitions"] == len(list((tmp_path / "vectors").glob("part-*"))) == 6
    wanted = embed_items(recipe.embedding.build(seed=recipe.seed), toy.item_table, [True] * 480, tmp_path / "cache")
    assert Precomputed(str(tmp_path / "vectors")).encode(toy.item_table) == pytest.approx(wanted, abs=1e-6)
    assert embed_batch(items, tmp_path / "vectors", recipe=recipe, partitions=6, progress=False) == done
    with pytest.raises(DataError, match=r"(?s)another job.*embedding was .*, is "):
        embed_batch(items, tmp_path / "vectors", recipe=recipe.override(["embedding.width=8"]), progress=False)


def test_items_that_cannot_be_embedded_are_told(toy, tmp_path):
    recipe = Recipe.from_dict({"embedding": {"name": "lsa", "width": 16}})
    items = write_parts(tmp_path / "items", toy.item_table, [100])
    bare = toy.item_table[:3].with_columns(text=pl.lit(" "), item_id="bare " + pl.col("item_id"))
    bare.write_parquet(items / "900.parquet")
    with pytest.raises(DataError, match=r"(?s)900\.parquet, rows 0 to 2: .*3 items have no text"):
        embed_batch(items, tmp_path / "out", recipe=recipe, progress=False)
    done = embed_batch(items, tmp_path / "out", recipe=recipe, on_error="skip", progress=False)
    assert done["rows"] == 480 and done["skipped"]["rows"] == 3
    for name, why in (("text_and_events", "learns from events"), ("precomputed", "has its vectors already")):
        with pytest.raises(RecipeError, match=why):
            embed_batch(items, tmp_path / "no", recipe=Recipe.from_dict({"embedding": {"name": name}}), progress=False)


# ---- Ray is an extra -------------------------------------------------------------------------------------------------


def test_nothing_imports_ray_but_the_jobs_when_they_run():
    for path in SOURCE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        lazy = {id(inner) for function in functions for inner in ast.walk(function)}
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", "") or ""]
            if isinstance(node, ast.Import | ast.ImportFrom) and any(name.split(".")[0] == "ray" for name in names):
                assert id(node) in lazy and path.parent.name == "batch_jobs", path
    code = (
        "import sys, diffgrm.apps.cli.main, diffgrm.apps.batch_jobs, diffgrm.recommenders; assert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_the_extra_the_message_says_how_to_install_it(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "ray.data", raising=False)
    with pytest.raises(MissingExtraError, match=r"needs the package 'ray\[data\]'; .* pip install 'diffgrm\[ray\]'"):
        require_ray("recommend_batch")
    for command in (["recommend-batch", "m", "--interactions", "e"], ["embed-batch", "--items", "i"]):
        code, _, err = called(monkeypatch, capsys, *command, "--out", tmp_path / "out")
        assert code == 2 and "pip install 'diffgrm[ray]'" in " ".join(err.split())


def test_an_address_where_nobody_answers_is_told_at_once():
    for address, why in (
        ("ray://127.0.0.1:1", "nobody answers at the Ray address"),
        ("nonsense", "is none; expected 'ray://"),
    ):
        with pytest.raises(DataError, match=why), engine.engine(Pool(address)):
            pass


def test_more_workers_than_there_is_room_for_are_refused_or_told(caplog):
    ray = SimpleNamespace(cluster_resources=lambda: {"CPU": 4.0, "GPU": 1.0})
    assert Engine(ray, Pool(), local=True).workers == 4
    assert Engine(ray, Pool(gpus_per_worker=0.5), local=True).workers == 2
    with pytest.raises(DataError, match="5 workers need a CPU each, and Ray has 4; lower --concurrency"):
        Engine(ray, Pool(concurrency=5), local=True)
    with pytest.raises(DataError, match="1 workers with 2 GPUs each need 2 GPUs, and Ray has 1"):
        Engine(ray, Pool(gpus_per_worker=2), local=True)
    Engine(ray, Pool(concurrency=5), local=False)
    assert "those that find no room wait for it" in caplog.text


def test_few_users_are_told_that_one_process_is_quicker(models, table, tmp_path, caplog):
    caplog.set_level("INFO", "diffgrm")
    recommend_batch(models["popularity"], table, tmp_path / "out", 5, progress=False)
    assert "120 users are few: below some 100,000, 'diffgrm recommend'" in caplog.text
