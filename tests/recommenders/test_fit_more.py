"""What going on learning keeps, counts anew, begins with and refuses."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

import diffgrm
from diffgrm import InteractionDataset, Recipe
from diffgrm.data.dataset import validation_only
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.registry import resolve
from diffgrm.foundation.schema import DataError, DiffGRMError, RecipeError, TrainingError
from diffgrm.learning.noising.curriculum import CurriculumNoising
from diffgrm.networks.growing import take_weights
from diffgrm.recommenders.trained_network import network_of
from helpers.commands import called, interrupted_update, save_tables
from helpers.recipes import small_recipe

HISTORY = ["item 3", "item 77", "item 410"]
LATE = [f"item {number}" for number in range(200, 220)]


@pytest.fixture(scope="module")
def early(toy):
    """The storefront before some items came."""
    events = toy.event_table().filter(~pl.col("item_id").is_in(LATE))
    return InteractionDataset.from_tables(events, toy.item_table.filter(~pl.col("item_id").is_in(LATE)))


def fitted_on(dataset, name):
    return resolve("recommender", name)(small_recipe(name)).fit(dataset, progress=False)


@pytest.fixture(scope="module")
def hybrid(early):
    return fitted_on(early, "hybrid")


@pytest.mark.parametrize("name", ["item_knn", "popularity", "transition_graph"])
def test_counts_are_those_of_a_fit_on_the_later_events_alone(name, early, toy):
    more, anew = fitted_on(early, name).fit_more(toy), fitted_on(toy, name)
    if name == "transition_graph":  # its texts are read by the encoder as it was fitted
        place = anew.items.positions(more.items.series)
        counts = anew.parts["transitions"].counts.toarray()[np.ix_(place, place)]
        assert (more.parts["transitions"].counts.toarray() == counts).all()
        return
    scores = {model: model.recommend([HISTORY], k=20).sort("score", "item_id", descending=True) for model in (more, anew)}
    assert np.allclose(scores[more]["score"].round(0), scores[anew]["score"].round(0))
    assert dict(zip(more.items.series, more.item_counts, strict=True)) == dict(
        zip(anew.items.series, anew.item_counts, strict=True)
    )


def test_co_occurrence_is_counted_anew(hybrid, toy):
    more = hybrid.fit_more(toy, overrides=["training.epochs=0"], progress=False)
    anew = more.recipe.item_scoring.scorers["co_occurrence"].build().fit(more._fitted_split.train, len(more.items))
    found = more.parts["scorers"].scorers["co_occurrence"]
    assert (found.similarity != anew.similarity).nnz == 0 and found.similarity.nnz


def test_no_list_changes_by_id_embeddings_that_begin(hybrid, toy):
    """Before the first step, an item that gets a row is where it was without: at what it borrowed."""
    more = hybrid.fit_more(toy, overrides=["training.epochs=0"], progress=False)
    grown = hybrid.add_items(toy.item_table.filter(pl.col("item_id").is_in(LATE)))
    began = np.flatnonzero((more.item_counts > 0) & (grown.item_counts == 0))
    before, after = grown.ranker().items.vectors, more.ranker().items.vectors
    assert len(began) and torch.allclose(before[began], after[began], atol=1e-5)
    size = network_of(hybrid.parts).sizes["n_items"]
    now, then = network_of(more.parts).network.state_dict(), network_of(hybrid.parts).network.state_dict()
    kept = [row for row in range(size) if row not in began]
    tables = [name for name, weight in then.items() if weight.shape != now[name].shape]
    assert tables and all((now[name][kept] == then[name][kept]).all() for name in tables)
    assert all((now[name] == then[name]).all() for name in then if name not in tables)


def test_id_embeddings_begin_at_those_of_nearest_text_in_recommenders_that_rank_without_them_too(early, toy):
    recipe = small_recipe("sasrec").override(["model.branches=[text, id]", "embedding.width=32"])
    sasrec = resolve("recommender", "sasrec")(recipe).fit(early, progress=False)
    grown = sasrec.add_items(toy.item_table.filter(pl.col("item_id").is_in(LATE)))
    more = sasrec.fit_more(toy, overrides=["training.epochs=0"], progress=False)
    ids, now = (model.network.get_parameter("item.id.ids").detach().numpy() for model in (sasrec, more))
    texts, had = grown.parts["texts"].vectors, np.flatnonzero(sasrec.item_counts > 0)
    compared = 0
    for item in np.flatnonzero((grown.item_counts == 0) & (more.item_counts > 0)):
        cosine = np.maximum(texts[had] @ texts[item], 0)
        near = np.argsort(-cosine, kind="stable")[:5]
        wanted = cosine[near] @ ids[had[near]] / max(cosine[near].sum(), 1e-12)
        if np.diff(np.sort(cosine)[-6:-4]) > 1e-4:  # else another may be among the nearest
            compared += 1
            np.testing.assert_allclose(now[item], wanted, atol=1e-4)
    assert compared


def test_items_without_later_events_stay_learnt_where_weights_know_them(hybrid, early):
    events = early.event_table()
    later = InteractionDataset.from_tables(
        events.filter(pl.col("user_id").is_in(events["user_id"].unique()[:20].to_list())), early.item_table
    )
    more = hybrid.fit_more(later, overrides=["training.epochs=0"], progress=False)
    assert ((more.item_counts > 0) >= (hybrid.item_counts > 0)).all()
    assert (more._fitted_split.item_counts > 0).sum() < (hybrid.item_counts > 0).sum()
    assert torch.equal(more.ranker().items.vectors, hybrid.ranker().items.vectors)
    counted = fitted_on(early, "popularity").fit_more(later)
    assert (counted.item_counts == counted._fitted_split.item_counts).all()


@pytest.mark.parametrize(
    ("name", "overrides", "is_told"),
    [
        *((name, [], True) for name in ("item_knn", "popularity", "transition_graph")),
        *((name, [], False) for name in ("text_knn", "random")),
        ("popularity", ["events.weight=n"], True),
        ("hybrid", [], True),
        ("hybrid", ["item_scoring.co_occurrence.weight=0"], False),
    ],
)
def test_counts_of_fewer_events_than_before_are_told(name, overrides, is_told, early, caplog):
    recipe = small_recipe(name).override(overrides)
    table = early.event_table().with_columns(n=pl.lit(2))
    events = recipe.events
    all_events, few = (
        InteractionDataset.from_tables(some, early.item_table, events=events) for some in (table, table.head(700))
    )
    fitted = resolve("recommender", name)(recipe).fit(all_events, progress=False)
    short = ["training.epochs=0"] if "training" in recipe.sections else []
    caplog.clear()
    again = fitted.fit_more(all_events, overrides=short, progress=False)
    assert "counted anew" not in caplog.text
    now = again.fit_more(few, overrides=short, progress=False).facts["training_events"]
    said = f"of these {now} training events alone; the model had learnt from {fitted.facts['training_events']}: give all"
    assert (said in caplog.text) == is_told == ("counted anew" in caplog.text)


def test_where_no_epoch_is_better_the_weights_stay(hybrid, early):
    wild = ["training.epochs=1", "training.learning_rate=30", "training.warmup_steps=0", "training.gradient_clip=0"]
    more = hybrid.fit_more(early, overrides=wild, progress=False)
    assert more.facts["validation"] == more.facts["validation_before"]
    assert more.recommend([HISTORY], k=20).equals(hybrid.recommend([HISTORY], k=20))


def test_averaged_weights_go_on_too(early):
    recipe = small_recipe("sasrec").override(["training.ema_decay=0.9"])
    sasrec = resolve("recommender", "sasrec")(recipe).fit(early, progress=False)
    more = sasrec.fit_more(early, overrides=["training.epochs=1"], progress=False)
    assert more.facts["validation"]["val_score"] >= more.facts["validation_before"]["val_score"]
    assert more.facts["validation_before"]["val_score"] == pytest.approx(sasrec.facts["validation"]["val_score"])


def test_a_curriculum_goes_on_at_its_end(early, monkeypatch):
    """At the first step a fit hides one digit of a view, an update as many as the fit did at its last."""
    hidden, views = [], CurriculumNoising.views

    def watched(self, codes, context):
        found = views(self, codes, context)
        hidden.append(int(found.mask.sum(-1).max()))
        return found

    monkeypatch.setattr(CurriculumNoising, "views", watched)
    recipe = small_recipe("diffgrm").override(["noising.name=curriculum", "training.epochs=1"])
    fitted = resolve("recommender", "diffgrm")(recipe).fit(early, progress=False)
    assert hidden[0] == 1 and hidden[-1] == 3
    hidden.clear()
    fitted.fit_more(early, overrides=["training.epochs=1"], progress=False)
    assert hidden and set(hidden) == {3}


def test_settings_of_an_update_are_its_own(hybrid, early):
    more = hybrid.fit_more(early, overrides=["training.epochs=0", "data.split=validation_only"], progress=False)
    assert (
        more.recipe == hybrid.recipe.override(["data.split=validation_only"]) and more.facts["split"] == "validation_only"
    )
    twice = more.fit_more(early, overrides=["training.epochs=0"], progress=False)
    assert twice.facts["went_on"]["times"] == 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.width=3"], "takes settings of training and data only, not model.width=3; fit anew to change others"),
        (["training.epoch=3"], "there is no setting 'training.epoch'; did you mean 'epochs'"),
        (["training.epochs=-1"], "training.epochs = -1"),
        (["data.test_share=0.2"], "test_share"),
        (["training.strategy=fsdp"], "training.strategy fsdp shares weights out"),
    ],
)
def test_settings_that_cannot_be_are_refused(hybrid, early, overrides, message):
    with pytest.raises(DiffGRMError) as error:
        hybrid.fit_more(early, overrides=overrides, progress=False)
    assert message in str(error.value)


def test_settings_without_training_are_refused(early):
    with pytest.raises(RecipeError, match=r"takes settings of data only, not training\.epochs=2"):
        fitted_on(early, "item_knn").fit_more(early, overrides=["training.epochs=2"])


def test_other_data_are_refused(hybrid, early, toy):
    with pytest.raises(RecipeError, match="data.split=leave_one_out, but this is a validation_only split"):
        hybrid.fit_more(validation_only(early))
    typed = early.event_table().with_columns(kind=pl.lit("buy"))
    settings = EventSettings(event="kind", targets=("buy",))
    with pytest.raises(DataError, match="the dataset was read otherwise than the recipe says"):
        hybrid.fit_more(InteractionDataset.from_tables(typed, early.item_table, events=settings))
    with pytest.raises(RecipeError, match="training.epochs = 0"):  # is a number of epochs of updates alone
        Recipe().override(["training.epochs=0"])


def test_the_command_goes_on_with_new_items_alone_in_the_table(hybrid, toy, tmp_path, monkeypatch, capsys):
    model, tables = hybrid.save(tmp_path / "model"), save_tables(toy, tmp_path)
    new = tmp_path / "new.parquet"
    toy.item_table.filter(pl.col("item_id").is_in(LATE)).write_parquet(new)
    command = ["update", model, *tables[:2], "--out", tmp_path / "later", "--quiet", "training.epochs=1"]
    code, _, errors = called(monkeypatch, capsys, *command)
    assert code == 2 and "items that the item table does not have" in " ".join(errors.split())
    code, out, _ = called(monkeypatch, capsys, *command, "--items", new)
    assert code == 0 and "before" in out and "480 items, 20 of them new." in " ".join(out.split())
    here = hybrid.fit_more(toy, overrides=["training.epochs=1"], progress=False)
    there = diffgrm.load(tmp_path / "later")
    assert there.recommend([HISTORY], k=9).equals(here.recommend([HISTORY], k=9))
    code, _, errors = called(monkeypatch, capsys, *command, "--vectors", "rows.npy")
    assert code == 2 and "give --vectors as .parquet" in " ".join(errors.split())


def test_an_interrupted_update_leaves_the_model_as_it_was(hybrid, early, tmp_path, monkeypatch, capsys):
    model = interrupted_update(hybrid, early, tmp_path, monkeypatch, capsys)
    assert diffgrm.load(model).recommend([HISTORY], k=9).equals(hybrid.recommend([HISTORY], k=9))


def test_a_network_of_another_width_is_no_place_to_begin():
    with pytest.raises(
        TrainingError, match="the network cannot go on with more items: height, ids, width differ in more than rows"
    ):
        take_weights(_Table(7, 3, "width"), _Table(5, 4, "height"))
    more, fewer = _Table(7, 3, "width"), _Table(5, 3, "width")
    drawn = more.ids[5:].clone()
    take_weights(more, fewer)
    assert torch.equal(more.ids[:5], fewer.ids) and torch.equal(more.ids[5:], drawn)


class _Table(torch.nn.Module):
    """Rows of a width, and a number of some name."""

    def __init__(self, rows, width, name):
        super().__init__()
        self.ids = torch.nn.Parameter(torch.rand(rows, width))
        self.register_parameter(name, torch.nn.Parameter(torch.tensor(float(width))))
