"""Tables on the command line: paths, times, ids and filters."""

from __future__ import annotations

import gzip
import json
import zipfile

import fsspec
import numpy as np
import polars as pl
import pyarrow as pa
import pytest

import diffgrm
from diffgrm.apps.cli.shared import write_table, write_tables
from diffgrm.data import mapped
from diffgrm.foundation.schema import DataError
from helpers.commands import caller

ITEMS = range(1, 13)


@pytest.fixture
def run(monkeypatch, capsys):
    return caller(monkeypatch, capsys)


@pytest.fixture
def tables(tmp_path):
    """Five users who go through items 1 to 12, their days written month first; beside them a file that a pattern finds."""
    folder = tmp_path / "data[1]"
    folder.mkdir()
    rows = [(u, i, f"{1 + i % 12:02}/{1 + u:02}/2019") for u in range(5) for i in ITEMS if i > u]
    events = pl.DataFrame(rows, ["user_id", "item_id", "timestamp"], orient="row")
    events.write_csv(folder / "events?.csv")
    events.head(3).write_csv(folder / "events1.csv")
    pl.DataFrame({"item_id": ITEMS, "text": [f"thing {i}" for i in ITEMS]}).write_parquet(folder / "items.parquet")
    return ["--interactions", folder / "events?.csv", "--items", folder / "items.parquet"]


@pytest.fixture
def model(run, tables, tmp_path):
    place = tmp_path / "model"
    code, _, err = run("fit", *tables, "--time-format", "%m/%d/%Y", "--out", place, "--quiet", "recommender=popularity")
    assert code == 0, err
    return place


def test_days_are_not_guessed_but_read_as_told(run, tables, tmp_path, model):
    code, _, err = run("fit", *tables, "--out", tmp_path / "no", "--quiet", "recommender=popularity")
    assert code == 2 and "can be read as '%d/%m/%Y' and as '%m/%d/%Y'" in err and "--time-format" in err
    assert diffgrm.load(model).facts["events"] == sum(12 - user for user in range(5))
    ask = "recommend", model, *tables[:2], "--k", 1, "--out", tmp_path / "r.csv", "--quiet"
    assert "can be read as" in run(*ask)[2]
    assert run(*ask, "--time-format", "%m/%d/%Y")[0] == 0
    code, _, err = run("evaluate", model, *tables, "--time-format", "%Y", "--quiet")
    assert code == 2 and "no timestamp reads as time_format='%Y'" in err


def test_columns_to_rename_are_there_and_bear_names_of_ours(run, tables, tmp_path, model):
    timed = "--time-format", "%m/%d/%Y", "--quiet"
    ask = "recommend", model, *tables[:2], "--k", 1, "--out", tmp_path / "r.csv", *timed
    later = "update", model, "--out", tmp_path / "later", *timed
    for wrong, said in (
        ("timestamp=timestmap", "no column to rename in the interaction table: - 'timestmap'; did you mean 'timestamp'?"),
        ("foo=item_id", "cannot rename to 'foo': the columns of the interaction table are user_id, item_id, timestamp"),
        ("txet=item_id", "cannot rename to 'txet': the columns of the interaction table are"),
    ):
        for command in (ask, (*later, *tables[:2])):
            code, _, err = run(*command, "--column", wrong)
            assert code == 2 and said in " ".join(err.split()), err
    code, _, err = run(*later, *tables, "--column", "text=txet")
    assert code == 2 and "interaction table and the item table: - 'txet'; did you mean 'text'?" in " ".join(err.split())
    tokenize = "tokenize", *tables[2:], "--out", tmp_path / "s.csv"
    code, _, err = run(*tokenize, "--column", "text=txet")
    assert code == 2 and "no column to rename in the item table: - 'txet'; did you mean 'text'?" in " ".join(err.split())
    assert not (tmp_path / "r.csv").exists() and not (tmp_path / "later").exists()
    assert run(*ask, "--column", "timestamp=timestamp", "--column", "text=item_id")[0] == 0  # of the other table


def packed_json(path, table):
    path.write_bytes(gzip.compress(table.write_json().encode()))


def zipped_csv(path, table):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("table.csv", table.write_csv())


def parts(path, table):
    path.mkdir()
    for number, rows in enumerate(table.iter_slices(7)):
        rows.write_parquet(path / f"part-{number}.parquet")


FORMS = {
    "x.json": lambda path, table: table.write_json(path),
    "x.json.gz": packed_json,
    "x.csv.zip": zipped_csv,
    "x.zip": zipped_csv,
    "x.csv.zst": lambda path, table: path.write_bytes(pa.compress(table.write_csv().encode(), "zstd", asbytes=True)),
    "x": parts,
    "x.parquet": parts,
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("place", ["here", "file", "memory"])
def test_tables_are_read_in_every_form_from_every_place(run, tmp_path, name, place):
    events = pl.DataFrame(
        [(u, i, i) for u in range(5) for i in ITEMS if i > u], ["user_id", "item_id", "timestamp"], orient="row"
    )
    options = []
    for what, table in (
        ("interactions", events),
        ("items", pl.DataFrame({"item_id": ITEMS, "text": [f"thing {i}" for i in ITEMS]})),
    ):
        (tmp_path / what).mkdir()
        FORMS[name](path := tmp_path / what / name, table)
        address = {"here": path, "file": f"file://{path}", "memory": f"memory:/{path}"}[place]
        if place == "memory":
            fsspec.filesystem("memory").put(str(path), str(path), recursive=True)
        options += [f"--{what}", address]
    code, _, err = run("fit", *options, "--out", tmp_path / "model", "--quiet", "recommender=popularity")
    assert code == 0, err
    assert diffgrm.load(tmp_path / "model").facts["events"] == events.height


def test_other_forms_are_refused_with_what_to_do(run, tmp_path):
    (tmp_path / "x.xlsx").write_bytes(b"PK")
    items = "--items", tmp_path / "x.xlsx"
    code, _, err = run("fit", "--interactions", tmp_path / "x.xlsx", *items, "--out", tmp_path / "model", "--quiet")
    assert code == 2 and "x.xlsx has an unknown format" in err and "read_excel" in err
    code, _, err = run("fit", "--interactions", "s3://bucket/x.csv", *items, "--out", tmp_path / "model", "--quiet")
    assert code == 2 and "copy the file here first" in err


def test_filters_are_files_whose_paths_mean_themselves(run, model, tmp_path):
    (tmp_path / "only[1].csv").write_text("item_id\n4\n5\nnothing\n")
    (tmp_path / "only1.csv").write_text("item_id\n6\n")
    ask = "recommend", model, "--history", 1, "--k", 2, "--out", tmp_path / "r.csv"
    code, _, err = run(*ask, "--only", tmp_path / "only[1].csv")
    assert code == 0 and "'only' names 1 items that are not in the catalogue: nothing" in err
    assert sorted(pl.read_csv(tmp_path / "r.csv")["item_id"]) == [4, 5]
    (tmp_path / "only1.csv").write_text("item_id\n007\n")
    code, _, err = run(*ask, "--without", tmp_path / "only1.csv")
    assert code == 2 and "'without' names 1 items, none of which is in the catalogue: 007" in err
    (tmp_path / "only1.csv").write_text("item\n7\n")
    code, _, err = run(*ask, "--without", tmp_path / "only1.csv")
    assert code == 2 and "expected 'item_id'; did you mean 'item'" in err


@pytest.mark.parametrize("item", ["007", "+7", "7.0", "7.9", "True"])
def test_what_is_nearly_an_id_is_none(run, model, item):
    assert "hold no known item" in run("recommend", model, "--history", item)[2]
    assert run("items", "remove", model, item)[0] == 2
    assert run("items", "remove", model, "7")[0] == 0


def test_users_without_events_are_told(run, model, tables, tmp_path):
    ask = "recommend", model, *tables[:2], "--time-format", "%m/%d/%Y", "--k", 1, "--out", tmp_path / "r.csv", "--quiet"
    code, _, err = run(*ask, "--user", 1, "--user", 9, "--user", "01")
    assert code == 2 and "2 users have no event in the interaction table: 01, 9" in err
    assert run(*ask, "--user", 1)[0] == 0 and pl.read_csv(tmp_path / "r.csv")["user_id"].to_list() == [1]


def test_a_csv_adds_items_to_whole_numbers(run, model, tmp_path):
    (tmp_path / "new.csv").write_text("item_id,text\n600,new thing\n")
    code, out, err = run("items", "add", model, "--items", tmp_path / "new.csv")
    assert code == 0 and "13 items" in out
    assert diffgrm.load(model).items.ids([12]) == [600]
    (tmp_path / "new.csv").write_text("item_id,text\n0600,new thing\n")
    code, out, err = run("items", "add", model, "--items", tmp_path / "new.csv")
    assert code == 2 and "are whole numbers, 1 of the new ones are not: '0600'" in err


def test_users_without_a_known_item_are_evaluated_or_counted(run, model, tmp_path):
    events = [(0, i, i) for i in (1, 2, 3, 4)] + [(9, i, i) for i in (70, 71, 72)]
    pl.DataFrame(events, ["user_id", "item_id", "timestamp"], orient="row").write_csv(tmp_path / "e.csv")
    ids = [*ITEMS, 70, 71, 72]
    pl.DataFrame({"item_id": ids, "text": [f"thing {i}" for i in ids]}).write_csv(tmp_path / "i.csv")
    ask = "evaluate", model, "--interactions", tmp_path / "e.csv", "--items", tmp_path / "i.csv", "--quiet"
    code, _, err = run(*ask, "evaluation.ks=[5]")
    assert code == 2 and "1 of 2 histories hold no known item" in err and "command line: --on-empty skip" in err
    code, out, err = run(*ask, "evaluation.ks=[5]", "--on-empty", "skip", "--json", tmp_path / "e.json")
    assert code == 0 and "1 users of" in out and "1 of 2 lists have no known item in their history" in err
    assert {"n_users": 1, "n_skipped": 1}.items() <= json.loads((tmp_path / "e.json").read_text()).items()


def test_users_without_a_known_item_are_left_out_of_lists_or_refused(run, model, tmp_path):
    (tmp_path / "e.csv").write_text("user_id,item_id\nu,1\nv,70\n")
    ask = "recommend", model, "--interactions", tmp_path / "e.csv", "--k", 2, "--quiet", "--out", tmp_path / "r.csv"
    code, _, err = run(*ask)
    assert code == 0 and "1 users have no known item and get no recommendations" in err
    assert set(pl.read_csv(tmp_path / "r.csv")["user_id"]) == {"u"}
    code, _, err = run(*ask, "--on-empty", "error")
    assert code == 2 and "1 of 2 histories hold no known item" in err and "(command line: --on-empty skip)" in err
    for nobody in (ask, ask[:-2]):
        code, _, err = run(*nobody, "--user", "v")
        assert code == 0 and f"so that nobody gets any; the catalogue has items such as {ITEMS[0]}, {ITEMS[1]}, " in err
    assert (tmp_path / "r.csv").read_text() == "user_id,item_id,score,rank\n"
    for nobody in ([*ask, "--user", "v", "--on-empty", "error"], ["recommend", model, "--history", 70]):
        code, _, err = run(*nobody)
        assert code == 2 and "1 of 1 histories hold no known item" in err and "skip" not in err
        assert f"the catalogue has items such as {ITEMS[0]}, {ITEMS[1]}, " in err and "give some of them" in err
    code, _, err = run("recommend", model, "--history", 1, "--on-empty", "skip")
    assert code == 2 and "--on-empty is for users of --interactions" in err


@pytest.mark.parametrize(
    ("command", "options", "why"),
    [
        (("recommend", "m", "--history", "1"), ("--user", "u"), "with --history no table is read"),
        (("recommend", "m", "--history", "1"), ("--time-format", "%d"), "with --history no table is read"),
        (("recommend", "m", "--history", "1"), ("--column", "a=b"), "with --history no table is read"),
        (("fit", "--dataset", "toy", "--out", "o"), ("--column", "a=b"), "--dataset toy is read as its publisher has it"),
        (
            ("evaluate", "MODEL", "--dataset", "toy"),
            ("--time-format", "%d"),
            "--dataset toy is read as its publisher has it",
        ),
        (("tokenize", "--items", "i.csv", "--out", "o.csv"), ("--time-format", "%d"), "no --interactions are given"),
        (("tokenize", "--items", "i.csv", "--out", "o.csv"), ("--profiles", "p.csv"), "no --interactions are given"),
    ],
)
def test_options_that_would_do_nothing_are_refused(run, request, command, options, why, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = [request.getfixturevalue("model") if word == "MODEL" else word for word in command]
    code, _, err = run(*command, *options)
    assert code == 2 and f"{options[0]} would do nothing, since {why}; leave it out" in err
    assert not (tmp_path / "o").exists() and not (tmp_path / "o.csv").exists()


def test_all_idle_options_are_told_at_once(run):
    code, _, err = run("recommend", "m", "--history", "1", "--column", "a=b", "--user", "u", "--user", "v")
    assert (
        code == 2 and "--user and --column would do nothing, since with --history no table is read; leave them out" in err
    )


def test_words_of_texts_are_counted_only_where_diversity_is_wanted(run, model, tmp_path, monkeypatch):
    events = [(user, i, i) for user in (0, 1) for i in (1, 2, 3, 4)]
    pl.DataFrame(events, ["user_id", "item_id", "timestamp"], orient="row").write_csv(tmp_path / "e.csv")
    pl.DataFrame({"item_id": ITEMS, "text": [f"thing {i}" for i in ITEMS]}).write_csv(tmp_path / "i.csv")
    ask = "evaluate", model, "--interactions", tmp_path / "e.csv", "--items", tmp_path / "i.csv", "--quiet"
    code, out, _ = run(*ask)
    assert code == 0 and "diversity@10" in out
    monkeypatch.setattr("diffgrm.semantic_ids.embeddings.lsa.word_vectors", lambda table: pytest.fail("counted"))
    code, out, err = run(*ask, "evaluation.diversity=false")
    assert code == 0 and "novelty@10" in out and "diversity@10" not in out, err


def test_accuracy_by_segments_of_users(run, model, tmp_path):
    events = [(user, i, i) for user in (0, 1) for i in (1, 2, 3, 4)]
    pl.DataFrame(events, ["user_id", "item_id", "timestamp"], orient="row").write_csv(tmp_path / "e.csv")
    pl.DataFrame({"item_id": ITEMS, "text": [f"thing {i}" for i in ITEMS]}).write_csv(tmp_path / "i.csv")
    pl.DataFrame({"user_id": [0, 1], "country": ["FR", "JP"]}).write_csv(tmp_path / "u.csv")
    ask = "evaluate", model, "--interactions", tmp_path / "e.csv", "--items", tmp_path / "i.csv", "--quiet"
    code, out, _ = run(*ask, "--segments", f"{tmp_path / 'u.csv'}:country", "--json", tmp_path / "e.json")
    assert code == 0 and "segment:country" in out and "Split: leave_one_out." in out
    written = json.loads((tmp_path / "e.json").read_text())
    assert set(written["kinds"]["segment:country"]) == {"FR", "JP"} and written["protocol"] == {"split": "leave_one_out"}
    assert {"novelty@10", "diversity@10"} <= set(written["metrics"])
    code, _, err = run(*ask, "--segments", f"{tmp_path / 'u.csv'}:countri")
    assert code == 2 and "expected column 'countri'; did you mean 'country'? Name one of these" in " ".join(err.split())
    assert "--column countri" not in err
    code, _, err = run(*ask, "--segments", "country")
    assert code == 2 and "--segments is written FILE:COLUMN, such as users.parquet:country; found 'country'" in err
    twice = [option for file in ("u.csv", "other.csv") for option in ("--segments", f"{tmp_path / file}:country")]
    code, _, err = run(*ask, *twice)
    assert code == 2 and "segments by the column 'country' are asked for twice" in err


def test_parse_trouble_is_told_with_its_line(run, model, tmp_path):
    (tmp_path / "e.csv").write_text('user_id,item_id\nu,1\nu\nu,"2\n')
    code, _, err = run("recommend", model, "--interactions", tmp_path / "e.csv")
    assert code == 2 and "line 3 has 1 fields; expected 2" in err and "line 4 begins a field with a quotation mark" in err


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_lists_that_are_written_by_blocks_are_one_table(tmp_path, suffix):
    tables = [
        pl.DataFrame({"user_id": [f"u{n}", f"u{n}"], "item_id": ["a", "b"], "score": [0.1 + n, 1e-9], "rank": [1, 2]})
        for n in range(3)
    ]
    assert write_tables(iter(tables), tmp_path / f"blocks[1]{suffix}") == (6, 3)
    write_table(pl.concat(tables), tmp_path / f"whole{suffix}")
    assert diffgrm.read_table(tmp_path / f"blocks[1]{suffix}").equals(diffgrm.read_table(tmp_path / f"whole{suffix}"))
    with pytest.raises(DataError, match="second"):
        write_tables(broken(tables[0]), tmp_path / f"half{suffix}")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"blocks[1]{suffix}", f"whole{suffix}"]


def broken(table):
    yield table
    raise DataError("the second block cannot be had")


def test_tables_larger_than_memory_give_the_same_on_the_command_line(run, tmp_path, monkeypatch):
    draw = np.random.default_rng(0)
    users, items, times = (draw.integers(0, most, 300) for most in (30, 12, 50))
    events = pl.DataFrame({"user_id": users, "item_id": 1 + items, "timestamp": times})
    (tmp_path / "events").mkdir()
    for number, rows in enumerate(events.iter_slices(70)):
        rows.write_parquet(tmp_path / "events" / f"{number}.parquet")
    events.write_csv(tmp_path / "events.csv")
    pl.DataFrame({"item_id": ITEMS, "text": [f"thing {i}" for i in ITEMS]}).write_parquet(tmp_path / "items.parquet")
    found = []
    for source in ("events.csv", "events/*.parquet"):
        if source.startswith("events/"):
            monkeypatch.setattr(mapped, "BLOCK", 40)
            monkeypatch.setattr(mapped, "IN_MEMORY", 20)
        tables, model = ("--interactions", tmp_path / source, "--items", tmp_path / "items.parquet"), tmp_path / "model"
        assert run("fit", *tables, "--out", model, "--quiet", "recommender=item_knn")[0] == 0
        assert run("evaluate", model, *tables, "--json", tmp_path / "e.json", "--quiet")[0] == 0
        ask = "recommend", model, *tables[:2], "--out", tmp_path / "r.csv", "--quiet"
        assert run(*ask)[0] == 0
        lists = pl.read_csv(tmp_path / "r.csv")
        assert run(*ask, "--user", 3, "--user", 17)[0] == 0
        assert pl.read_csv(tmp_path / "r.csv").equals(lists.filter(pl.col("user_id").is_in([3, 17])))
        code, _, err = run(*ask, "--user", 99)
        assert code == 2 and "1 users have no event in the interaction table: 99" in err
        facts = diffgrm.load(model).facts
        found.append((lists.rows(), json.loads((tmp_path / "e.json").read_text()), facts["training_fingerprint"]))
    assert found[0] == found[1]
