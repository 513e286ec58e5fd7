from __future__ import annotations

import logging

import numpy as np
import polars as pl
import pytest

from diffgrm.foundation.schema import DataError
from diffgrm.foundation.storage import State
from diffgrm.semantic_ids.embeddings.base import ItemEncoder, embed_items


def table(*texts):
    return pl.DataFrame({"item_id": [f"i{n}" for n in range(len(texts))], "text": list(texts)})


class Counted(ItemEncoder):
    """Vectors of the length of the text and of the training texts; counts its calls."""

    def __init__(self, scale=1.0, result=None):
        self.scale, self.result, self.calls, self.longest = scale, result, 0, None

    def fit(self, items):
        self.longest = items["text"].str.len_chars().max()
        return self

    def encode(self, items):
        self.calls += 1
        lengths = items["text"].str.len_chars().to_numpy() * self.scale
        return np.stack([lengths, np.full(len(items), self.longest)], axis=1) if self.result is None else self.result

    def state(self):
        return State(facts={"longest": self.longest})

    def load_state(self, state):
        self.longest = state.facts["longest"]
        return self

    def identity(self):
        return {"scale": self.scale}


ALL, FIRST_TWO = np.array([True, True, True]), np.array([True, True, False])
WORDS = table("one", "three", "fourteen")


@pytest.fixture
def embed(tmp_path):
    def run(encoder, items=WORDS, in_training=ALL):
        return embed_items(encoder, items, in_training, tmp_path)

    return run


def test_the_second_call_does_not_encode(embed):
    first, second = Counted(), Counted()
    assert np.array_equal(embed(first), embed(second))
    assert (first.calls, second.calls) == (1, 0)


def test_an_encoder_from_the_cache_can_encode_new_items(embed):
    first, second = Counted(), Counted()
    embed(first), embed(second)
    assert np.array_equal(second.encode(table("new")), first.encode(table("new")))


@pytest.mark.parametrize(
    ("encoder", "items", "in_training"),
    [
        (Counted(), table("one", "three", "fifteen"), ALL),
        (Counted(), table("one", "threef", "ourteen"), ALL),
        (Counted(), table("three", "one", "fourteen"), ALL),
        (Counted(), WORDS, FIRST_TWO),
        (Counted(scale=2.0), WORDS, ALL),
    ],
    ids=["changed text", "moved border", "other order", "other training items", "other settings"],
)
def test_what_changes_the_vectors_makes_a_new_entry(embed, tmp_path, encoder, items, in_training):
    embed(Counted())
    vectors = embed(encoder, items, in_training)
    assert encoder.calls == 1 and len(list(tmp_path.iterdir())) == 2
    assert np.array_equal(vectors, encoder.fit(items.filter(in_training)).encode(items).astype(np.float32))


def test_another_encoder_with_equal_settings_makes_a_new_entry(embed):
    class Other(Counted):
        pass

    other = Other()
    embed(Counted()), embed(other)
    assert other.calls == 1


def test_ids_do_not_matter_to_the_cache(embed):
    encoder = Counted()
    embed(Counted()), embed(encoder, WORDS.with_columns(item_id=pl.Series([7, 8, 9])))
    assert encoder.calls == 0


@pytest.mark.parametrize("damage", [lambda content: content[:-5], lambda content: b"", lambda content: b"?" * 100])
def test_a_damaged_cache_file_is_made_again(embed, tmp_path, caplog, damage):
    vectors = embed(Counted())
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    second, third = Counted(), Counted()
    assert np.array_equal(embed(second), vectors) and second.calls == 1
    assert "damaged; making them again" in caplog.text
    assert np.array_equal(embed(third), vectors) and third.calls == 0


def test_bad_vectors_are_an_error_and_not_kept(embed, tmp_path):
    with pytest.raises(DataError, match="NaN or infinity: i2; mend"):
        embed(Counted(result=np.array([[1.0], [1.0], [np.nan]])))
    with pytest.raises(DataError, match=r"shape \(2, 1\); expected \(3, width\)"):
        embed(Counted(result=np.ones((2, 1))))
    assert not list(tmp_path.iterdir())


def test_the_cache_is_in_the_users_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFGRM_CACHE", str(tmp_path))
    embed_items(Counted(), WORDS, ALL)
    assert len(list((tmp_path / "embeddings").iterdir())) == 1


def test_the_log_says_what_is_embedded(embed, caplog):
    caplog.set_level(logging.INFO)
    embed(Counted())
    assert "Embedding 3 items with Counted" in caplog.text
