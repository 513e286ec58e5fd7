"""The shipped recipes of other methods, each fitted for a step and served."""

from __future__ import annotations

import polars as pl
import pytest

from diffgrm import Recipe
from diffgrm.foundation.registry import resolve
from helpers.recipes import small_recipe
from helpers.serving import HISTORY, client_of, errors_of

pytest.importorskip("fastapi")
from diffgrm.apps.serving.app import create_app
from diffgrm.apps.serving.live import LiveModel

ONE_STEP = {"epochs": 1, "steps_per_epoch": 1, "validate_every": 1, "validation_users": 8}
EXPLAINED = {
    "diqdiff": False,
    "epic": True,
    "h2rec": False,
    "maskgr-dense": True,
    "mdgr": True,
    "rpg": True,
    "sprint": True,
}


@pytest.fixture(scope="module", params=EXPLAINED)
def served(request, toy, tmp_path_factory, limits):
    """The method, its recommender, the folder of it, and a client of a server of that."""
    name = request.param
    raw = small_recipe(name).to_dict()
    for fit in (raw, raw["model"].get("backbone", raw)):
        fit["training"] = fit["training"] | ONE_STEP
    recipe = Recipe.from_dict(raw)
    recommender = resolve("recommender", recipe.recommender)(recipe).fit(toy, progress=False)
    folder = recommender.save(tmp_path_factory.mktemp("models") / name)
    with client_of(create_app(LiveModel(folder), limits)) as client:
        yield name, recommender, folder, client


def listed(items):
    return [(item["item_id"], pytest.approx(item["score"], abs=1e-5)) for item in items]


def test_lists_are_those_of_the_recommender(served):
    _, recommender, _, client = served
    histories, without = [HISTORY, ["item 9"]], ["item 27", "item 5"]
    answer = client.post("/recommend", json={"histories": histories, "k": 5, "without": without})
    assert answer.status_code == 200
    wanted = recommender.recommend(histories, 5, without=without)
    for user, found in enumerate(answer.json()["lists"]):
        rows = wanted.filter(user_id=user)
        assert len(rows) == 5 and list(rows.select("item_id", "score").iter_rows()) == listed(found["items"])


def test_lists_are_explained_where_digits_are_denoised(served):
    name, recommender, _, client = served
    answer = client.post("/explain", json={"history": HISTORY, "k": 2, "show": 4})
    if not EXPLAINED[name]:
        assert errors_of(answer) == set()
        return
    found, digits, beams = answer.json(), recommender.explain(HISTORY, 2), recommender.beams(HISTORY, 2, show=4)
    assert found["note"] == recommender.explanation_note()
    assert [item["item_id"] for item in found["items"]] == recommender.recommend([HISTORY], 2)["item_id"].to_list()
    for rank, item in enumerate(found["items"], start=1):
        rows = digits.filter(rank=rank)
        assert len(rows) and [digit["code"] for digit in item["digits"]] == rows["code"].to_list()
        assert [digit["confidence"] for digit in item["digits"]] == pytest.approx(rows["confidence"].to_list(), abs=1e-5)
    steps = beams.group_by("step", maintain_order=True).agg(pl.col("digits"))["digits"].to_list()
    assert [[sid["digits"] for sid in step] for step in found["beams"]] == steps


def test_the_server_and_the_card_tell_which_model_it_is(served):
    name, recommender, folder, client = served
    found, recipe = client.get("/model").json(), recommender.recipe
    assert (found["recommender"], found["explains"]) == (recipe.recommender, EXPLAINED[name])
    assert found["items"] == found["recommendable"] == len(recommender.items)
    decoding = recipe.decoding.options if "decoding" in recipe.sections else {}
    assert (found["beam"], found["candidates"]) == (decoding.get("beam"), decoding.get("candidates"))
    card = (folder / "README.md").read_text()
    assert type(recommender).__name__ in card and f"name: {recipe.model.name}" in card
