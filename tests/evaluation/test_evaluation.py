from __future__ import annotations

import random

import numpy as np
import polars as pl
import pytest
import torch

from diffgrm import DiffGRMRecommender, InteractionDataset, Recipe, evaluate
from diffgrm.data.dataset import EvaluationSet, Ragged, leave_one_out
from diffgrm.data.ids import IdMap
from diffgrm.evaluation.metrics import accuracy, gini, long_tail, ndcg, recall, selection_score
from diffgrm.evaluation.retrieval import hit
from diffgrm.foundation.schema import DataError

ITEMS = IdMap(pl.Series(["a", "b", "c", "d", "e"]))
HELD_OUT = EvaluationSet(
    pl.Series(["u", "v", "w"]), Ragged.from_lists([[0], [1, 2], [4]]), Ragged.from_lists([[1], [3], [0]])
)
COUNTS = np.array([5, 4, 3, 2, 1])


class Fixed:
    """Recommends the same order to everyone."""

    def __init__(self, order: str, **more) -> None:
        self.order = list(order)
        self.__dict__.update(more)

    def recommend(self, histories, k, *, exclude_seen):
        rows = []
        for user in histories["user_id"].unique(maintain_order=True):
            seen = set(histories.filter(pl.col("user_id") == user)["item_id"]) if exclude_seen else set()
            rows += [(user, item, -float(r), r + 1) for r, item in enumerate([i for i in self.order if i not in seen][:k])]
        return pl.DataFrame(rows, ["user_id", "item_id", "score", "rank"], orient="row").sample(fraction=1, shuffle=True)


def test_metrics_of_a_known_list():
    result = evaluate(Fixed("acbde"), HELD_OUT, ITEMS, COUNTS, ks=(1, 2, 5))
    # filtered ranks: u: c b -> 2; v: a d -> 2; w: a -> 1.  unfiltered: u: a c b -> 3; v: a c b d -> 4; w: 1
    assert result.per_user["rank"].to_list() == [2, 2, 1]
    assert result.per_user["rank_unfiltered"].to_list() == [3, 4, 1]
    assert result.n_users == 3
    metrics = result.metrics
    assert metrics["recall@1"] == pytest.approx(1 / 3) and metrics["recall@2"] == 1
    assert metrics["recall@2_unfiltered"] == pytest.approx(1 / 3)
    assert metrics["ndcg@2"] == pytest.approx((2 / np.log2(3) + 1) / 3)
    assert metrics["ndcg@5_unfiltered"] == pytest.approx((1 / np.log2(4) + 1 / np.log2(5) + 1) / 3)
    assert metrics["mrr@10"] == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)
    assert metrics["validity"] == 1 and metrics["distinctness"] == 1
    assert metrics["coverage@1"] == pytest.approx(2 / 5)  # c, a, a
    assert metrics["aplt@1"] == pytest.approx(1 / 3)  # only a is popular
    assert not any(name.startswith("sid_") for name in metrics)


def test_blocks_of_users_change_nothing():
    whole = evaluate(Fixed("acbde"), HELD_OUT, ITEMS, COUNTS)
    for size in (1, 2):
        assert evaluate(Fixed("acbde"), HELD_OUT, ITEMS, COUNTS, users_at_once=size).metrics == pytest.approx(whole.metrics)


def test_items_that_are_not_real_or_repeat_are_reported():
    class Broken(Fixed):
        def recommend(self, histories, k, *, exclude_seen):
            table = super().recommend(histories, k, exclude_seen=exclude_seen)
            return table.with_columns(
                pl.when(pl.col("rank") == 3).then(pl.lit("ghost")).otherwise("item_id").alias("item_id")
            )

    metrics = evaluate(Broken("aacbd"), HELD_OUT, ITEMS, COUNTS).metrics
    # Of the 4 + 3 + 4 items that each could have got (five in all, less the seen), the lists have 8 rows of real items.
    assert metrics["validity"] == pytest.approx(8 / 11)
    assert metrics["distinctness"] == pytest.approx(6 / 8)  # v and w get a twice


def test_items_that_the_recommender_does_not_know_do_not_lower_validity():
    """Those of their histories neither."""
    known = IdMap(pl.Series(["a", "b", "c"]))
    assert evaluate(Fixed("acb"), HELD_OUT.rows(np.arange(2)), ITEMS, COUNTS, known=known).metrics["validity"] == 1
    held_out = EvaluationSet(pl.Series(["u"]), Ragged.from_lists([[0, 3, 4]]), Ragged.from_lists([[1]]))
    assert evaluate(Fixed("acb"), held_out, ITEMS, COUNTS, known=known).metrics["validity"] == 1
    assert evaluate(Fixed("ac"), held_out, ITEMS, COUNTS, known=known).metrics["validity"] == 1 / 2


@pytest.mark.parametrize("wrong", [{"ks": (5, 0)}, {"users_at_once": 0}])
def test_numbers_that_are_none_are_refused(wrong):
    with pytest.raises(DataError, match="0.*: expected a whole number from 1 on"):
        evaluate(Fixed("acbde"), HELD_OUT, ITEMS, COUNTS, **wrong)


def test_metrics_count_items_not_semantic_ids():
    """b and c share a SID: recommending c is no hit for the item b, but a hit for its SID."""
    numbers = np.array([0, 1, 1, 2, 3])

    class Colliding(Fixed):
        def sid_numbers(self, item_ids):
            return numbers

        def recommend_sids(self, histories, k):
            users = histories["user_id"].unique(maintain_order=True)
            sids = list(dict.fromkeys(numbers[ITEMS.positions(self.order)].tolist()))
            rows = [(u, s, r + 1) for u in users for r, s in enumerate(sids[:k])]
            return pl.DataFrame(rows, ["user_id", "sid", "rank"], orient="row")

    held_out = EvaluationSet(pl.Series(["u"]), Ragged.from_lists([[0]]), Ragged.from_lists([[1]]))
    metrics = evaluate(Colliding("cdeab"), held_out, ITEMS, COUNTS, ks=(1, 2)).metrics
    assert metrics["recall@1_unfiltered"] == metrics["recall@2_unfiltered"] == 0
    assert metrics["sid_recall@1"] == 1


def test_sids_of_a_recommender_that_shares_them_are_ranked_as_sids(toy, tiny_recipe):
    shared = tiny_recipe.override(["semantic_ids.collisions=share", "training.epochs=1"])
    recommender = DiffGRMRecommender(shared).fit(toy, progress=False)
    split = leave_one_out(toy)
    numbers = recommender.sid_numbers(toy.items.series)
    assert len(np.unique(numbers)) < toy.n_items
    result = evaluate(recommender, split.test, toy.items, split.item_counts)
    table = recommender.recommend_sids({"u": toy.items.ids(split.test.histories[0])}, 10)
    assert table["rank"].to_list() == list(range(1, table.height + 1)) and table["sid"].n_unique() == table.height > 5
    assert result.metrics["sid_recall@10"] >= result.metrics["recall@10_unfiltered"]


def test_with_distinct_sids_both_levels_agree(toy, fitted):
    split = leave_one_out(toy)
    metrics = evaluate(fitted, split.test, toy.items, split.item_counts).metrics
    for name in ("recall@10", "ndcg@10"):
        assert metrics[f"sid_{name}"] == metrics[f"{name}_unfiltered"]


def test_evaluation_leaves_the_global_random_state_alone(toy, fitted):
    split = leave_one_out(toy)
    states = torch.random.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    evaluate(fitted, split.test, toy.items, split.item_counts)
    assert torch.equal(states[0], torch.random.get_rng_state())
    assert states[1:] == (np.random.get_state()[1].tolist(), random.getstate())


def test_trec_eval_agrees():
    pytrec_eval = pytest.importorskip("pytrec_eval")  # not beside the oldest supported versions
    generator = np.random.default_rng(0)
    users, k = 200, 20
    targets = [generator.choice(50, generator.integers(1, 4), replace=False) for _ in range(users)]
    lists = [generator.permutation(50)[: generator.integers(5, k + 1)] for _ in range(users)]
    judge = pytrec_eval.RelevanceEvaluator(
        {f"u{u}": {f"i{i}": 1 for i in t} for u, t in enumerate(targets)},
        {"recall.5,10", "ndcg_cut.5,10", "success.10", "recip_rank"},
    )

    def judged(depth):
        found = judge.evaluate(
            {f"u{u}": {f"i{i}": float(k - r) for r, i in enumerate(row[:depth])} for u, row in enumerate(lists)}
        )
        return {name: np.mean([one[name] for one in found.values()]) for name in found["u0"]}

    wanted, ten = judged(k), judged(10)  # whose reciprocal ranks know no depth of their own
    ranks = Ragged.from_lists(
        [
            [(np.flatnonzero(row == t)[0] + 1 if (row == t).any() else 0) for t in ts]
            for row, ts in zip(lists, targets, strict=True)
        ]
    )
    named = {f"{ours}@{depth}": wanted[f"{theirs}_{depth}"] for ours, theirs in THEIRS for depth in (5, 10)}
    assert accuracy(ranks, (5, 10)) == pytest.approx(named | {"mrr@10": ten["recip_rank"]}, abs=1e-9)
    assert hit(ranks, 10).mean() == pytest.approx(wanted["success_10"], abs=1e-9)


THEIRS = ("recall", "recall"), ("ndcg", "ndcg_cut")


def test_the_selection_score_weighs_ndcg_and_recall():
    ranks = Ragged.from_lists([[1], [3], [0], [11]])
    assert selection_score(ndcg(ranks, 10).mean(), recall(ranks, 10).mean()) == pytest.approx(0.8 * 1.5 / 4 + 0.2 * 2 / 4)


def test_gini_and_long_tail_at_their_ends():
    assert gini(np.zeros(4)) == 0 and gini(np.array([0, 0, 0, 8])) == pytest.approx(0.75)
    assert long_tail(np.arange(10)).sum() == 8 and not long_tail(np.arange(10))[[8, 9]].any()


def test_nobody_to_evaluate_is_an_error(toy):
    nobody = HELD_OUT.sample(1, 0)
    with pytest.raises(DataError, match="no users to evaluate"):
        evaluate(
            Fixed("a"),
            EvaluationSet(nobody.user_ids[:0], nobody.histories.rows(np.array([], int)), nobody.targets),
            ITEMS,
            COUNTS,
        )


def test_a_future_item_is_seen_by_no_fit(toy, tiny_recipe):
    """Two worlds that differ only in held-out events give the same SIDs and the same weights but for choice of epoch."""
    events = toy.event_table()
    last = events.with_row_index().group_by("user_id", maintain_order=True).agg(pl.col("index").last())["index"]
    planted = toy.item_table["item_id"][0]
    changed = events.with_row_index().with_columns(
        pl.when(pl.col("index").is_in(last.to_list())).then(pl.lit(planted)).otherwise("item_id").alias("item_id")
    )
    other = type(toy).from_tables(changed.drop("index"), toy.item_table)
    recipe = tiny_recipe.override(["training.epochs=1"])
    one, two = (DiffGRMRecommender(recipe).fit(world, progress=False) for world in (toy, other))
    assert (one.semantic_ids.codes == two.semantic_ids.codes).all()
    for a, b in zip(one.network.state_dict().values(), two.network.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert (one.item_counts == two.item_counts).all()
    assert Recipe().data.split == "leave_one_out"


def test_lists_that_are_shorter_than_they_could_be_are_reported():
    class Short(Fixed):
        def recommend(self, histories, k, *, exclude_seen):
            return super().recommend(histories, 2, exclude_seen=exclude_seen)

    assert evaluate(Short("acbde"), HELD_OUT, ITEMS, COUNTS).metrics["validity"] == pytest.approx(6 / 11)


def test_a_catalogue_smaller_than_the_lists_can_be_evaluated(tiny_recipe):
    items = pl.DataFrame({"item_id": list("abcdef"), "text": ["red pot", "blue pan", "green cup", "tin", "can", "jar"]})
    events = pl.DataFrame({"user_id": [u for u in "uvwx" for _ in range(4)], "item_id": list("abcdbcdecdefdefa")})
    dataset = InteractionDataset.from_tables(events, items)
    recipe = tiny_recipe.override(["tokenizer.codebook_size=4", "tokenizer.n_digits=2"])
    recommender = DiffGRMRecommender(recipe).fit(dataset, progress=False)
    split = leave_one_out(dataset)
    metrics = evaluate(recommender, split.test, dataset.items, split.item_counts, ks=(5,)).metrics
    assert metrics["validity"] == 1 and {"recall@5", "recall@10", "coverage@10"} <= set(metrics)


def test_several_targets_of_a_list_share_one_ideal():
    """Two of three targets found at 1 and 3 of the first 3: recall 2/3; DCG 1 + 1/2 over the ideal of three hits."""
    held_out = EvaluationSet(pl.Series(["u"]), Ragged.from_lists([[4]]), Ragged.from_lists([[0, 2, 3]]))
    metrics = evaluate(Fixed("abced"), held_out, ITEMS, COUNTS, ks=(1, 3)).metrics
    assert metrics["recall@3"] == pytest.approx(2 / 3) and metrics["recall@1"] == pytest.approx(1 / 3)
    assert metrics["ndcg@3"] == pytest.approx((1 + 1 / 2) / (1 + 1 / np.log2(3) + 1 / 2)) and metrics["ndcg@1"] == 1
