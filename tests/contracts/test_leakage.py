"""Nothing is learnt from held-out events: no model, no tokenizer and no text encoder."""

from __future__ import annotations

import polars as pl
import pytest

from diffgrm import InteractionDataset, toy_world
from diffgrm.foundation.registry import names, resolve
from diffgrm.recommenders.ensemble import member_file
from diffgrm.recommenders.epic import BACKBONE
from helpers.recipes import SMALL_SCORER, methods, small_generation, small_recipe, unfitted
from helpers.sid_files import drawn_sids

FUTURE = "item 479"  # the planted item
SMALL_SIDS = ["tokenizer.n_digits=3", "tokenizer.codebook_size=16"]


def planted(dataset: InteractionDataset, last: int) -> InteractionDataset:
    """The dataset with the future item in place of every user's event that has ``last`` others behind it."""
    table = dataset.event_table().with_columns(behind=pl.len().over("user_id") - 1 - pl.int_range(pl.len()).over("user_id"))
    long_enough = pl.len().over("user_id") >= 3
    chosen = (pl.col("behind") == last) & long_enough
    table = table.with_columns(item_id=pl.when(chosen).then(pl.lit(FUTURE)).otherwise("item_id"))
    return InteractionDataset.from_tables(table.drop("behind"), dataset.item_table)


@pytest.fixture(scope="module")
def world():
    dataset = toy_world(users=60, seed=4).dataset
    table = dataset.event_table().filter(pl.col("item_id") != FUTURE)  # nobody meets it otherwise
    return InteractionDataset.from_tables(table, dataset.item_table)


def learnt(recommender, folder):
    """Every file that holds what a recommender has learnt; of those inside of it theirs, without their model cards."""
    recommender.save(folder)
    files = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    inner = {member_file(number): member for number, member in enumerate(getattr(recommender, "members", []))}
    if (backbone := getattr(recommender, "backbone", None)) is not None:
        inner[BACKBONE] = backbone
    for name, recommender in inner.items():
        files[name] = learnt(recommender, folder.with_name(f"{folder.name}.{name}"))
    return files


@pytest.mark.parametrize("name", methods())
def test_a_planted_test_event_changes_nothing_that_is_learnt(name, world, tmp_path):
    found = []
    for number, dataset in enumerate((world, planted(world, last=0))):
        recommender = unfitted(name).fit(dataset, progress=False)
        found.append((learnt(recommender, tmp_path / str(number)), recommender.item_counts.tolist()))
    assert found[0] == found[1]


def first_trained(recommender, item_table):
    """What an item scorer that is fitted first leaves: its weights, and the vectors and semantic IDs made of it."""
    scorer = recommender.encoder.scorer
    vectors, codes = recommender.encoder.encode(item_table), recommender.semantic_ids.codes
    weights = {name: weight.tolist() for name, weight in scorer.network.state_dict().items()}
    return weights, vectors.tolist(), codes.tolist(), scorer.item_counts.tolist()


@pytest.mark.parametrize("last", [0, 1], ids=["test", "validation"])
def test_a_planted_event_changes_nothing_of_an_item_scorer_that_is_fitted_first(last, world, tmp_path, monkeypatch):
    """Validation may choose its epoch, and there is one here."""
    one = f"embedding.changes=[{', '.join(SMALL_SCORER)}, training.epochs=1]"
    found = []
    for number, dataset in enumerate((world, planted(world, last))):
        monkeypatch.setenv("DIFFGRM_CACHE", str(tmp_path / str(number)))  # what was learnt once is not learnt again
        recommender = resolve("recommender", "diffgrm")(small_generation(one, "training.epochs=1"))
        found.append(first_trained(recommender.fit(dataset, progress=False), dataset.item_table))
    assert found[0] == found[1]


def test_a_planted_test_event_changes_nothing_of_an_item_scorer_that_goes_on_nor_of_what_it_teaches(world):
    recommender = resolve("recommender", "diffgrm")(small_generation("training.epochs=1")).fit(world, progress=False)
    found = []
    for dataset in (world, planted(world, last=0)):
        more = recommender.fit_more(dataset, overrides=["training.epochs=1"], progress=False)
        weights = {name: weight.tolist() for name, weight in more.network.state_dict().items()}
        found.append((first_trained(more, world.item_table), weights))
    assert found[0] == found[1]


@pytest.mark.parametrize("name", names("tokenizer"))
def test_a_planted_validation_event_changes_no_semantic_id(name, world, tmp_path):
    """Validation may choose the epoch, so weights may differ; what comes before training may not."""
    found = []
    for number, dataset in enumerate((world, planted(world, last=1))):
        recipe = small_recipe("hybrid").override([f"tokenizer.name={name}", "training.epochs=1", *SMALL_SIDS])
        if name == "from_file":
            recipe = recipe.override([f"tokenizer.path={drawn_sids(tmp_path, dataset.items.series, 3, 16)}"])
        recommender = resolve("recommender", "hybrid")(recipe).fit(dataset, progress=False)
        files = learnt(recommender, tmp_path / str(number))
        found.append({part: content for part, content in files.items() if part != "model.safetensors"})
    assert found[0] == found[1] and len(found[0]) == 6
