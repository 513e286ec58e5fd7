"""What every item encoder must do."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from diffgrm import InteractionDataset, leave_one_out
from diffgrm.foundation.registry import names, resolve
from diffgrm.foundation.storage import State
from diffgrm.semantic_ids.embeddings.base import EventContext
from helpers.recipes import SMALL_SCORER
from helpers.sentence_encoders import stand_in

KINDS = ["pot", "pan", "cup", "jug", "mug", "tin", "can", "jar", "box", "bag"]
THINGS = [f"{colour} {kind}" for colour in ["red", "blue", "green"] for kind in KINDS]
ITEMS = pl.DataFrame(
    {
        "item_id": [f"i{i}" for i in range(30)],
        "text": [f"{thing} number {i}" for i, thing in enumerate(THINGS)],
    }
)


@pytest.fixture(params=names("embedding"))
def make(request, tmp_path, monkeypatch):
    if request.param == "precomputed":
        vectors = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32)
        table = ITEMS.select("item_id").with_columns(embedding=pl.Series(vectors))
        table.write_parquet(tmp_path / "e.parquet")
        return lambda: resolve("embedding", "precomputed")(str(tmp_path / "e.parquet"))
    if request.param == "sentence_transformer":
        library = pytest.importorskip("sentence_transformers")

        class Stub:
            """Stands in for a downloaded model: one number a letter."""

            def __init__(self, *args, **kwargs):
                pass

            def encode(self, texts, **kwargs):
                return np.array([[t.count(c) for c in "abcdefghij"] for t in texts], dtype=np.float32)

        monkeypatch.setattr(library, "SentenceTransformer", Stub)
        return lambda: resolve("embedding", "sentence_transformer")("stub")
    if request.param == "universal_sentence_encoder":  # its weights take seconds to read; its own tests do
        stand_in(monkeypatch)
    if request.param == "item_scorer":
        return lambda: resolve("embedding", "item_scorer")(changes=SMALL_SCORER)
    return resolve("embedding", request.param)


def fitted(encoder, items):
    """An encoder that has seen items and, where it reads them, events."""
    if not encoder.reads_events:
        return encoder.fit(items)
    places = np.random.default_rng(0).integers(0, len(items), 200)
    events = pl.DataFrame(
        {"user_id": [f"u{place // 8}" for place in range(200)], "item_id": items["item_id"].gather(places)}
    )
    return encoder.fit_events(EventContext(leave_one_out(InteractionDataset.from_tables(events, items))))


def test_vectors_are_finite_rows_of_float32_of_length_1_unless_it_reads_events(make):
    encoder = fitted(make(), ITEMS)
    vectors = encoder.encode(ITEMS)
    assert vectors.dtype == np.float32 and vectors.shape[0] == 30 and np.isfinite(vectors).all()
    lengths = np.linalg.norm(vectors, axis=1)
    assert (lengths > 0).all() and np.allclose(lengths, 1, atol=1e-5) != encoder.reads_events  # lengths mean something


def test_a_row_does_not_depend_on_the_others(make):
    encoder = fitted(make(), ITEMS)
    assert np.allclose(encoder.encode(ITEMS[11:13]), encoder.encode(ITEMS)[11:13], atol=1e-6)
    assert np.allclose(encoder.encode(ITEMS.reverse()), encoder.encode(ITEMS)[::-1], atol=1e-6)


def test_what_was_learnt_survives_saving(make, tmp_path):
    encoder = fitted(make(), ITEMS[:25])
    encoder.state().save(tmp_path / "s.safetensors")
    again = make().load_state(State.load(tmp_path / "s.safetensors"))
    assert np.array_equal(again.encode(ITEMS), encoder.encode(ITEMS))


def test_the_identity_is_json(make):
    import json

    assert json.dumps(make().identity())
