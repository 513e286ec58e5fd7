from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from diffgrm import toy_world
from diffgrm.foundation.schema import DataError
from diffgrm.foundation.storage import State
from diffgrm.semantic_ids.embeddings.base import check_embeddings, embed_items
from diffgrm.semantic_ids.embeddings.lsa import LSA

TEXTS = ["red lamp", "blue lamp", "red wooden chair", "blue wooden chair", "wooden lamp"]


def table(*texts):
    return pl.DataFrame({"item_id": [f"i{n}" for n in range(len(texts))], "text": list(texts)})


@pytest.fixture(scope="module")
def shop():
    return toy_world(users=10).dataset.item_table


def test_lsa_vectors_have_length_one_and_the_asked_width(shop):
    vectors = LSA(width=16).fit(shop).encode(shop)
    assert vectors.shape == (480, 16) and vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)


def test_lsa_puts_alike_items_close(shop):
    vectors = LSA(width=32).fit(shop).encode(shop)
    place = {title: row for row, title in enumerate(shop["title"])}
    grinder, red, other = (
        vectors[place[title]] for title in ("Moka coffee grinder, blue", "Moka coffee grinder, red", "Velo bike lock, red")
    )
    assert grinder @ red > 0.8 > 0.3 > grinder @ other


def test_lsa_learns_nothing_from_items_outside_training(tmp_path):
    training = np.array([True, True, True, True, False])
    results = []
    for last in ("wooden lamp", "entirely foreign words red red red"):
        encoder = LSA()
        vectors = embed_items(encoder, table(*TEXTS[:4], last), training, tmp_path)
        results.append((vectors[:4], encoder.state()))
    (first, learnt), (second, learnt_again) = results
    assert np.array_equal(first, second)
    assert learnt.facts == learnt_again.facts == {"words": ["blue", "chair", "lamp", "red", "wooden"]}
    assert all(np.array_equal(learnt.arrays[name], learnt_again.arrays[name]) for name in ("directions", "idf"))


def test_a_vector_depends_on_its_own_text_alone(shop):
    encoder = LSA(width=16).fit(shop)
    together = encoder.encode(shop)
    assert np.array_equal(np.concatenate([encoder.encode(shop[row]) for row in range(0, 480, 40)]), together[::40])


@pytest.mark.parametrize("settings", [{}, {"analyzer": "char_wb", "longest_ngram": 3}, {"longest_ngram": 2}])
def test_lsa_state_gives_identical_vectors_after_saving(shop, tmp_path, settings):
    encoder = LSA(width=16, **settings).fit(shop)
    encoder.state().save(tmp_path / "lsa.safetensors")
    loaded = LSA(width=16, **settings).load_state(State.load(tmp_path / "lsa.safetensors"))
    unseen = table("Moka coffee grinder, green", "nothing of the kind", *shop["text"])
    assert np.array_equal(loaded.encode(unseen), encoder.encode(unseen))


def test_lsa_is_the_same_each_time(shop):
    assert np.array_equal(LSA(width=16).fit(shop).encode(shop), LSA(width=16).fit(shop).encode(shop))


def test_unknown_words_give_the_zero_vector():
    vectors = LSA().fit(table(*TEXTS)).encode(table("zebra quagga", "red zebra", "!!!"))
    assert not vectors[0].any() and vectors[1].any() and not vectors[2].any()
    assert np.isfinite(vectors).all()


def test_character_ngrams_recognise_a_misspelt_word():
    misspelt = table("wodden chair")
    assert not LSA().fit(table("wooden", "red lamp", "blue")).encode(misspelt).any()
    vectors = LSA(analyzer="char_wb", longest_ngram=3).fit(table("wooden", "red lamp", "blue")).encode(misspelt)
    assert vectors.any()


def test_lsa_can_learn_runs_of_words():
    words = LSA(longest_ngram=2).fit(table(*TEXTS)).state().facts["words"]
    assert "wooden chair" in words and "chair" in words


def test_rare_words_are_dropped_only_from_large_catalogues():
    many = [f"common number{n}" for n in range(200)]
    many[:2] = ["common twice", "common twice"]
    assert LSA().fit(table(*many)).state().facts["words"] == ["common", "twice"]
    assert "number2" in LSA().fit(table(*many[:199])).state().facts["words"]
    assert LSA(min_items=2).fit(table(*many[:199])).state().facts["words"] == ["common", "twice"]


def test_only_the_most_frequent_features_are_kept():
    assert LSA(max_features=2).fit(table(*TEXTS)).state().facts["words"] == ["lamp", "wooden"]


@pytest.mark.parametrize("texts", [["red lamp", "blue lamp"], ["a b", "a b"], ["a", "b"], TEXTS])
@pytest.mark.filterwarnings("error")
def test_tiny_catalogues_get_finite_vectors(texts):
    vectors = LSA().fit(table(*texts)).encode(table(*texts))
    assert vectors.shape[0] == len(texts) and vectors.shape[1] >= 1
    check_embeddings(vectors, len(texts))


@pytest.mark.parametrize("texts", [["one lamp"], ["same", "same"]])
def test_catalogues_too_small_to_learn_from_are_an_error(texts):
    with pytest.raises(DataError, match="at least two items and two different words"):
        LSA().fit(table(*texts))


def test_texts_without_words_are_an_error():
    with pytest.raises(DataError, match="no words in the texts of 2 items"):
        LSA().fit(table("!!!", "..."))


def test_lsa_from_the_cache_is_the_lsa_that_was_fitted(tmp_path, monkeypatch):
    fitted, cached = LSA(), LSA()
    items, training = table(*TEXTS), np.array([True, True, True, True, False])
    vectors = embed_items(fitted, items, training, tmp_path)
    monkeypatch.setattr(LSA, "fit", None)
    assert np.array_equal(embed_items(cached, items, training, tmp_path), vectors)
    assert np.array_equal(cached.encode(table("blue chair")), fitted.encode(table("blue chair")))
