"""Commands on a public dataset by its name whose networks are told of users: its own table is read."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import polars as pl
import pytest

from diffgrm import load, movielens
from diffgrm.data.sources import listing
from diffgrm.data.sources.movielens import movielens_users
from helpers.commands import caller
from helpers.published import zipped
from helpers.servers import FileServer

GENDERS = ["events.user_columns={gender: [F, M]}"]
SMALL = ["recommender=sasrec", "model.width=8", "model.max_len=4", "training.epochs=1", "training.batch_size=64"]


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Commands for which movielens-1m is a small one in the publisher's format."""
    ratings = [f"{user}::{film}::5::{1000 + film}" for user in range(1, 31) for film in range(1, 9) if (user + film) % 4]
    files = {
        "ml-1m/ratings.dat": "\n".join(ratings),
        "ml-1m/movies.dat": "\n".join(f"{film}::Film {film} (1990)::Drama" for film in range(1, 9)),
        "ml-1m/users.dat": "\n".join(f"{user}::{'FM'[user % 2]}::25::{user % 21}::48067" for user in range(1, 31)),
    }
    with FileServer({"ml-1m.zip": zipped(files)}) as server:
        here = {"cache": tmp_path / "cache", "base_url": server.url, "checksum": None}
        real = listing.SOURCES["movielens-1m"]
        small = replace(real, load=partial(movielens, "1m", **here), users=partial(movielens_users, "1m", **here))
        monkeypatch.setitem(listing.SOURCES, "movielens-1m", small)
        yield caller(monkeypatch, capsys)


def test_fit_and_evaluate_take_the_columns_of_users_by_name_of_the_dataset(run, tmp_path):
    code, _, err = run("fit", "--dataset", "movielens-1m", "--out", tmp_path / "m", "--quiet", *SMALL, *GENDERS)
    assert code == 0, err
    kept = load(tmp_path / "m").profiles
    assert kept.of(pl.Series(["1", "2", "31"])).tolist() == [[2], [1], [0]]
    code, out, err = run("evaluate", tmp_path / "m", "--dataset", "movielens-1m", "--quiet")
    assert code == 0 and "ndcg@10" in out, err
    code, _, err = run("fit", "--dataset", "movielens-1m", "--out", tmp_path / "n", *SMALL, *GENDERS, "--profiles", "u.csv")
    assert code == 2 and "with its own table of users if it has one" in " ".join(err.split())


def test_the_table_of_users_is_written_beside_the_others(run, tmp_path):
    code, out, err = run("datasets", "movielens-1m", "--out", tmp_path / "tables")
    assert code == 0 and "users.parquet" in out, err
    users = pl.read_parquet(tmp_path / "tables" / "users.parquet")
    assert users.height == 30 and users.columns == ["user_id", "gender", "age_group", "occupation", "zip"]
    given = [f"--{name}" for name in ("interactions", "items", "profiles")]
    files = [tmp_path / "tables" / f"{name}.parquet" for name in ("interactions", "items", "users")]
    tables = [part for pair in zip(given, files, strict=True) for part in pair]
    code, _, err = run("fit", *tables, "--out", tmp_path / "m", "--quiet", *SMALL, *GENDERS)
    assert code == 0, err
