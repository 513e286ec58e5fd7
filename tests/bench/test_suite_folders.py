"""Where a suite's data lie: in its folders, or else all of it with publishers."""

from __future__ import annotations

import pytest
import yaml

from diffgrm import toy_world
from diffgrm.apps.bench.suite import Suite
from diffgrm.apps.bench.world import World
from diffgrm.foundation.schema import DataError


def suite_of(folder, **said):
    raw = {"reference": "popularity", "runs": {"popularity": {"recommender": "popularity"}}, **said}
    (folder / "suite.yaml").write_text(yaml.safe_dump(raw))
    return Suite.from_yaml(folder / "suite.yaml")


def test_a_dataset_in_none_of_the_folders_is_told_with_where_was_looked_and_what_belongs_there(tmp_path):
    suite = suite_of(tmp_path, datasets=["shop"], folders=["data", "../more"], clock={"shop": "day"})
    with pytest.raises(DataError) as refused:
        World.load(suite, "shop")
    told = str(refused.value)
    assert str(tmp_path / "data" / "shop" / "interactions.parquet") in told
    assert str(tmp_path.parent / "more" / "shop" / "interactions.parquet") in told
    assert "interactions.parquet (user_id, item_id, timestamp, day) and items.parquet (item_id, text)" in told
    assert "diffgrm datasets" not in told  # nobody publishes it


def test_a_public_dataset_does_not_take_the_place_of_a_folder_that_is_absent(tmp_path):
    suite = suite_of(tmp_path, datasets=["toy"], folders=["data"])
    home = tmp_path / "data" / "toy"
    with pytest.raises(DataError, match="toy lies in none of the suite's folders") as refused:
        World.load(suite, "toy")
    assert f"diffgrm datasets toy --out {home}" in str(refused.value)
    assert "may be other data" in str(refused.value)
    assert World.load(suite_of(tmp_path, datasets=["toy"]), "toy").dataset.n_users == 800
    world = toy_world(users=40).dataset
    home.mkdir(parents=True)
    world.event_table().write_parquet(home / "interactions.parquet")
    world.item_table.write_parquet(home / "items.parquet")
    assert World.load(suite, "toy").dataset.n_users == 40
