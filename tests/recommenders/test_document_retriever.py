"""Documents are found by queries."""

from __future__ import annotations

import logging

import numpy as np
import polars as pl
import pytest
import torch

from diffgrm import DocumentRetriever, Recipe, evaluate_search, load
from diffgrm.foundation.schema import DataError, DiffGRMError, ModelFolderError, RecipeError
from diffgrm.recommenders.searchers import BM25, DenseVectors
from helpers.documents import library, small_documents, with_vectors
from helpers.folders import change_recipe

DOCUMENTS, QUERIES, QRELS = library()
ASKED = QUERIES.head(9)


@pytest.fixture(scope="module")
def retriever():
    return DocumentRetriever(small_documents()).fit(DOCUMENTS, QUERIES, QRELS, progress=False)


def test_the_right_documents_are_found(retriever):
    metrics = evaluate_search(retriever, QUERIES, QRELS).metrics
    assert metrics["hit@1"] > 0.8 and metrics["hit@10"] > 0.95  # by chance .025 and .25
    assert retriever.search("origin of the violin", k=1)["doc_id"].to_list() == ["violin-origin"]


@pytest.mark.parametrize("model", ["diffgrm", "autoregressive"])
def test_drawn_networks_learn_them_too(model):
    changes = ["model.start=drawn", "training.epochs=15", "training.learning_rate=0.01", "training.validate_every=15"]
    if model == "autoregressive":
        changes += ["model.name=autoregressive", "model.branches=[text]", "model.max_len=1", "model.width=24"]
        changes += ["model.heads=2", "objective.name=left_to_right", "decoding.name=left_to_right", "decoding.beam=40"]
        changes += ["training.validation_decoding={}", "noising=null"]
    retriever = DocumentRetriever(small_documents(*changes)).fit(DOCUMENTS, QUERIES, QRELS, progress=False)
    assert evaluate_search(retriever, QUERIES, QRELS).metrics["hit@1"] > 0.5
    if model == "autoregressive":
        with pytest.raises(DiffGRMError, match="decoding.name = left_to_right goes from left to right, and only digits"):
            retriever.explain("violin")


def test_one_pass_over_a_batch_of_queries_finds_what_each_finds_alone(retriever):
    retriever = retriever.variant(["decoding.name=one_pass"])
    together = retriever.search(ASKED, k=5)
    alone = pl.concat([retriever.search(ASKED[row], k=5) for row in range(ASKED.height)])
    assert together.drop("score").equals(alone.drop("score"))
    assert np.allclose(together["score"], alone["score"], atol=1e-4)


def test_a_random_order_goes_by_the_query_and_not_by_its_number(retriever):
    retriever = retriever.variant(["decoding.order=random", "decoding.beam=4"])
    together = retriever.search(ASKED, k=3)
    alone = pl.concat([retriever.search(ASKED[row], k=3) for row in range(ASKED.height)])
    assert together.drop("score").equals(alone.drop("score"))


def log_probabilities(retriever, text):
    """[n, K] of the digits of a document for a query, when all are hidden; by the network alone."""
    vector = torch.from_numpy(retriever.parts["texts"].encoder.encode(pl.DataFrame({"item_id": [0], "text": [text]})))
    n = retriever.semantic_ids.n_digits
    with torch.no_grad():
        state = retriever.network.item.text.linear(vector)
        state = torch.nn.functional.layer_norm(
            state, state.shape[1:], retriever.network.item.text.norm.weight, retriever.network.item.text.norm.bias
        )
        memory = retriever.network.encode_history(
            state * state.shape[1] ** -0.5, torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1, dtype=torch.bool)
        )
        hidden = torch.ones(1, 1, n, dtype=torch.bool)
        return retriever.network.denoise(hidden.long(), hidden, memory)[0, 0].log_softmax(-1).numpy()


def test_one_pass_is_the_sum_over_digits_of_every_document(retriever):
    text, codes = "the sound of a comet", retriever.semantic_ids.codes
    log_p = log_probabilities(retriever, text)
    scores = log_p[np.arange(codes.shape[1]), codes].sum(1)
    found = retriever.variant(["decoding.name=one_pass"]).search(text, k=len(codes))
    assert found["doc_id"].to_list() == retriever.documents.ids(np.argsort(-scores, kind="stable"))
    assert np.allclose(found["score"], np.sort(scores)[::-1], atol=1e-4)


def test_a_wide_beam_finds_what_looking_at_everything_finds(retriever):
    everything = retriever.variant(["decoding.name=exhaustive"]).search(ASKED, k=5)
    wide = retriever.variant(["decoding.beam=4096"]).search(ASKED, k=5)
    assert wide.drop("score").equals(everything.drop("score"))


@pytest.mark.parametrize("override", ["decoding.steps=3", "decoding.order=fixed", "decoding.name=one_pass"])
def test_explanations_lead_to_the_documents_found_and_account_for_their_scores(retriever, override):
    retriever, text = retriever.variant([override]), "the sound of a comet"
    found, table = retriever.search(text, k=4), retriever.explain(text, k=4)
    for rank, document, score in found.select("rank", "doc_id", "score").iter_rows():
        rows = table.filter(rank=rank)
        codes = retriever.semantic_ids.codes[retriever.documents.positions([document])[0]]
        assert set(rows["doc_id"]) == {document} and sorted(rows["digit"]) == list(range(retriever.semantic_ids.n_digits))
        assert rows["code"].to_list() == codes[rows["digit"].to_numpy()].tolist() and rows["items_left"][-1] == 1
        assert np.log(rows["confidence"].to_numpy()).sum() == pytest.approx(score, abs=1e-3)
    first = np.exp(log_probabilities(retriever, text))  # of the digits when all are hidden
    at_once = table.filter(step=1)
    told = [first[digit, code] for digit, code in at_once.select("digit", "code").iter_rows()]
    assert np.allclose(at_once["confidence"], told, atol=1e-5) and retriever.explanation_note() == ""
    beams = retriever.beams(text, k=4, show=3)
    if "one_pass" not in override:  # which takes no steps
        assert beams["place"].max() == 3 and beams["digits"][-1].null_count() == 0
    with pytest.raises(DataError, match="one query is explained at a time, found 2; ask for each"):
        retriever.explain(["violin", "comet"])
    with pytest.raises(DataError, match="k is 41, but the catalogue has only 40 documents"):
        retriever.explain(text, k=41)


def test_the_start_is_the_nearest_text(monkeypatch):
    """Before anything is learnt, scores are the inner products of a query with what codes say of documents."""
    from diffgrm.learning.loop import TrainingResult

    untrained = TrainingResult(0.0, 0, 0, {}, 0.0)
    monkeypatch.setattr("diffgrm.recommenders.trained_network.train", lambda *_, **__: untrained)
    retriever = DocumentRetriever(small_documents()).fit(DOCUMENTS, QUERIES, QRELS, progress=False)
    vectors = retriever.parts["texts"].encoder.encode(ASKED.rename({"query_id": "item_id"}))
    codes = retriever.semantic_ids.codes
    centroids = retriever.parts["sids"].code_vectors()
    documents = centroids[np.arange(codes.shape[1]), codes].sum(1)  # [D, e] as their codes say
    directions = np.linalg.svd(centroids.reshape(-1, centroids.shape[2]).astype(float), full_matrices=False)[2]
    states = vectors @ directions.T
    states = (states - states.mean(1, keepdims=True)) / states.std(1, keepdims=True)
    wanted = np.argsort(-(states @ (documents @ directions.T).T), axis=1, kind="stable")[:, 0]
    found = retriever.variant(["decoding.name=one_pass"]).search(ASKED, k=1)
    assert found["doc_id"].to_list() == retriever.documents.ids(wanted)


def test_what_is_saved_answers_the_same(retriever, tmp_path):
    folder = retriever.save(tmp_path / "model")
    loaded = DocumentRetriever.load(folder)
    assert loaded.search(ASKED, k=5).equals(retriever.search(ASKED, k=5))
    assert loaded.recipe == retriever.recipe and loaded.facts == retriever.facts
    card = (folder / "README.md").read_text()
    assert "DocumentRetriever.load" in card and "120 queries, 40 documents, 120 judgements" in card
    again = loaded.save(tmp_path / "model")
    assert DocumentRetriever.load(again).search("volcano", k=3).equals(retriever.search("volcano", k=3))


def test_it_computes_in_half_precision_too(retriever, tmp_path):
    half = DocumentRetriever.load(retriever.save(tmp_path / "model")).to("cpu", "bf16")
    found = half.variant(["decoding.name=one_pass"]).search(ASKED, k=3)
    exact = retriever.variant(["decoding.name=one_pass"]).search(ASKED, k=3)
    assert np.allclose(found["score"], exact["score"], atol=0.5)
    with pytest.raises(DiffGRMError, match="precision is '16'; expected '32' or 'bf16'"):
        half.to("cpu", "16")


def test_folders_of_something_else_and_of_strangers_are_refused(retriever, saved, tmp_path):
    folder = retriever.save(tmp_path / "model")
    with pytest.raises(
        ModelFolderError, match=r"a document retriever .* read it with diffgrm.DocumentRetriever.load, or 'diffgrm doc"
    ):
        load(folder)
    with pytest.raises(ModelFolderError, match="is a diffgrm model, not a document retriever"):
        DocumentRetriever.load(saved)
    change_recipe(folder, {"embedding": {"name": "stranger.module:Encoder"}})
    with pytest.raises(ModelFolderError, match="code that is not diffgrm's own: stranger.module:Encoder"):
        DocumentRetriever.load(folder)


def test_weights_of_other_sizes_are_refused(retriever, tmp_path):
    folder = retriever.save(tmp_path / "model")
    change_recipe(folder, {"model": {"width": 48}})
    with pytest.raises(ModelFolderError, match="does not fit|shape|expected"):
        DocumentRetriever.load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["model.branches=[sid]"], r"set model.branches=\[text\], found \['sid'\]"),
        (["model.max_len=3"], "model.max_len = 3 does nothing, since a query takes one place; set it to 1"),
        (["model.history=causal"], "model.history = causal does nothing"),
        (["embedding.name=item_scorer"], "embedding.name = item_scorer learns from events of users"),
        (["embedding.name=precomputed"], r"documents.index_documents = .* set it to \[text\] or \[\]"),
        (["noising.name=curriculum"], "noising.hidden_first = rare goes by digits of past items"),
        (["tokenizer.unit=true"], "choose tokenizer.name=opq with tokenizer.unit=false, or model.start=drawn"),
        (["model.skip=false"], "set model.skip=true"),
        (["decoding.name=item_proposals"], "ranks by item scores"),
    ],
)
def test_settings_that_do_not_go_with_queries_are_refused(changes, message):
    with pytest.raises(RecipeError, match=f"(?s){message}"):
        DocumentRetriever(small_documents(*changes)).fit(DOCUMENTS, QUERIES, QRELS)


def test_recipes_know_what_they_are_for():
    with pytest.raises(RecipeError, match="not for documents; write recommender: documents"):
        DocumentRetriever(Recipe())
    with pytest.raises(RecipeError, match="does not use documents"):
        Recipe(documents={"validation_share": 0.2})
    with pytest.raises(RecipeError, match="'documents' .*does not use item_scoring"):
        Recipe(recommender="documents", item_scoring={"vectors": {}})
    with pytest.raises(RecipeError, match="model.start=texts begins where a text is all that is asked"):
        from diffgrm import DiffGRMRecommender, toy_world

        recipe = Recipe(recommender="diffgrm", model={"start": "texts", "skip": True})
        DiffGRMRecommender(recipe).fit(toy_world(users=20).dataset, progress=False)
    assert Recipe.preset("diffugr") == Recipe(recommender="documents")


def test_what_cannot_be_searched_is_told(retriever, caplog):
    with pytest.raises(DiffGRMError, match=r"not fitted: call fit\(documents, queries, qrels\)"):
        DocumentRetriever().search("x")
    with pytest.raises(DataError, match="none of the 2 documents has a word that BM25 could count; give them texts"):
        BM25(pl.DataFrame({"doc_id": ["a", "b"], "text": ["?!", "..."]}))
    with caplog.at_level(logging.WARNING):
        assert retriever.search(["violin", "zzzz"], k=2).height == 4
    assert "1 of 2 queries say nothing that the embedding knows, so what they find is arbitrary: 'zzzz'" in caplog.text
    with pytest.raises(RecipeError, match="can change after fit, not model.width=8"):
        retriever.variant(["model.width=8"])
    with pytest.raises(RecipeError, match="decoding.single = 3 does nothing with decoding.group = even"):
        retriever.variant(["decoding.name=any_order_beam", "decoding.single=3"])


def test_vectors_that_were_made_elsewhere(tmp_path):
    recipe, queries = with_vectors(tmp_path)
    retriever = DocumentRetriever(recipe).fit(DOCUMENTS, queries, QRELS, progress=False)
    assert evaluate_search(retriever, queries, QRELS).metrics["hit@1"] > 0.8
    violin = queries.filter(pl.col("text").str.contains("violin"))[:1]
    assert set(retriever.explain(violin, k=2)["doc_id"]) == set(retriever.search(violin, k=2)["doc_id"])
    with pytest.raises(DataError, match="the query table needs the queries' vectors .* in a column 'embedding'"):
        retriever.search("violin")
    short = queries.with_columns(pl.col("embedding").list.head(3))
    with pytest.raises(DataError, match="vectors of queries have 3 numbers, those of documents 19"):
        retriever.search(short)


def test_a_run_goes_on_where_it_was_killed_but_not_with_other_queries(tmp_path):
    recipe = small_documents()
    DocumentRetriever(recipe).fit(DOCUMENTS, QUERIES, QRELS, run_folder=tmp_path / "run", progress=False)
    with pytest.raises(DiffGRMError, match="already holds a run"):
        DocumentRetriever(recipe).fit(DOCUMENTS, QUERIES, QRELS, run_folder=tmp_path / "run", progress=False)
    others = QUERIES.with_columns(text=pl.col("text") + " bread")
    with pytest.raises(DiffGRMError, match="belongs to other data"):
        again = DocumentRetriever(recipe)
        again.fit(DOCUMENTS, others, QRELS, run_folder=tmp_path / "run", resume=True, progress=False)


def test_baselines_find_by_words_and_by_vectors():
    for searcher in (BM25(DOCUMENTS), DenseVectors(DOCUMENTS)):
        metrics = evaluate_search(searcher, QUERIES, QRELS).metrics
        assert metrics["hit@1"] == 1
        assert searcher.search("violin", k=4)["doc_id"].str.starts_with("violin").all()


def test_bm25_is_what_its_formula_says():
    documents = pl.DataFrame({"doc_id": ["a", "b", "c"], "text": ["owl owl bread", "owl", "comet chess comet"]})
    found = dict(BM25(documents, k1=1.2, b=0.75).search("owl zebra", k=3).select("doc_id", "score").rows())
    idf, mean = np.log(1 + (3 - 2 + 0.5) / (2 + 0.5)), 7 / 3
    wanted = {name: idf * n / (n + 1.2 * (0.25 + 0.75 * size / mean)) for name, n, size in (("a", 2, 3), ("b", 1, 1))}
    assert found == pytest.approx(wanted | {"c": 0}, rel=1e-5)


def test_japanese_is_read_by_runs_of_characters():
    documents = pl.DataFrame(
        {"doc_id": [1, 2, 3], "text": ["東大寺の大仏は奈良にある", "富士山は日本一高い", "鮭は川を上る魚"]}
    )
    for searcher in (BM25(documents), DenseVectors(documents)):
        assert searcher.search(["大仏はどこ", "一番高い山", "川の魚"], k=1)["doc_id"].to_list() == [1, 2, 3]


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bm25s", None)
    with pytest.raises(ImportError, match=r"pip install 'diffgrm\[documents\]'"):
        BM25(DOCUMENTS)
