from __future__ import annotations

import io
import shutil
import socket
import sys
import types

import numpy as np
import polars as pl
import pytest

from diffgrm.foundation.schema import DataError, MissingExtraError
from diffgrm.foundation.terminal import Terminal
from diffgrm.semantic_ids.embeddings import sentence_transformer as module
from diffgrm.semantic_ids.embeddings.base import embed_items
from diffgrm.semantic_ids.embeddings.sentence_transformer import SentenceTransformer
from helpers.servers import HubServer

TEXTS = ["red lamp", "blue lamp", "red wooden chair", "blue wooden chair", "wooden lamp"]


def table(*texts):
    return pl.DataFrame({"item_id": [f"i{n}" for n in range(len(texts))], "text": list(texts)})


@pytest.fixture(scope="module")
def sentence_model(tmp_path_factory):
    """A real sentence encoder with random weights: BERT of two layers and the mean of its tokens."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("sentence")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "lamp", "chair", "wooden", "##s", "."]
    (folder / "vocab.txt").write_text("\n".join(words))
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=32, **size)).save_pretrained(folder / "bert")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder / "bert")
    sentence_transformers.SentenceTransformer(str(folder / "bert"), device="cpu").save(str(folder / "model"))
    return folder / "model"


def test_a_sentence_encoder_from_a_folder(sentence_model):
    import sentence_transformers

    vectors = SentenceTransformer(str(sentence_model), batch_size=2, device="cpu").encode(table(*TEXTS))
    assert vectors.shape == (5, 16) and vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    direct = sentence_transformers.SentenceTransformer(str(sentence_model), device="cpu").encode(TEXTS)
    assert vectors == pytest.approx(direct / np.linalg.norm(direct, axis=1, keepdims=True), abs=1e-5)


def test_a_sentence_encoder_tells_texts_apart_and_needs_no_others(sentence_model):
    encoder = SentenceTransformer(str(sentence_model), device="cpu")
    vectors = encoder.encode(table(*TEXTS, "red lamp"))
    assert vectors[0] == pytest.approx(vectors[5], abs=1e-5) and np.abs(vectors[0] - vectors[2]).max() > 0.01
    assert encoder.encode(table("red lamp"))[0] == pytest.approx(vectors[0], abs=1e-5)


def test_sentence_vectors_come_from_the_cache_until_the_folder_changes(sentence_model, monkeypatch, tmp_path):
    import sentence_transformers

    folder = shutil.copytree(sentence_model, tmp_path / "model")

    def embed():
        encoder = SentenceTransformer(str(folder), device="cpu")
        return embed_items(encoder, table(*TEXTS), np.ones(5, bool), tmp_path / "cache")

    vectors, loads, load = embed(), [], sentence_transformers.SentenceTransformer
    monkeypatch.setattr(
        sentence_transformers, "SentenceTransformer", lambda *args, **more: loads.append(args) or load(*args, **more)
    )
    assert np.array_equal(embed(), vectors) and not loads
    (folder / "note.txt").write_text("another version")
    assert np.array_equal(embed(), vectors) and len(loads) == 1


def test_a_sentence_encoder_is_loaded_for_every_table_unless_it_is_to_stay(sentence_model, monkeypatch):
    import sentence_transformers

    loads, load = [], sentence_transformers.SentenceTransformer
    monkeypatch.setattr(
        sentence_transformers, "SentenceTransformer", lambda *args, **more: loads.append(args) or load(*args, **more)
    )
    for encoder, count in ((SentenceTransformer(str(sentence_model), device="cpu"), 2), (None, 3)):
        encoder = encoder or SentenceTransformer(str(sentence_model), device="cpu").stay_loaded()
        first, again = encoder.encode(table(*TEXTS)), encoder.encode(table(*TEXTS))
        assert np.array_equal(first, again) and len(loads) == count


@pytest.mark.parametrize(("terminal", "texts", "shown"), [(True, 5, True), (False, 5, False), (True, 2, False)])
def test_the_progress_bar_is_for_terminals(monkeypatch, terminal, texts, shown):
    asked = []

    class Encoder:
        def __init__(self, *args, **more):
            pass

        def encode(self, texts, *, show_progress_bar, **more):
            asked.append(show_progress_bar)
            return np.ones((len(texts), 3))

    stand_in = types.ModuleType("sentence_transformers")
    stand_in.SentenceTransformer, stand_in.__version__ = Encoder, "6.2.0"
    monkeypatch.setitem(sys.modules, "sentence_transformers", stand_in)
    monkeypatch.setattr(module, "errors", Terminal(file=io.StringIO(), force_terminal=terminal))
    assert SentenceTransformer("any/model", batch_size=2).encode(table(*TEXTS[:texts])).shape == (texts, 3)
    assert asked == [shown]


def test_without_sentence_transformers_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'diffgrm\[sentence\]'"):
        SentenceTransformer("any/model").encode(table("red lamp"))


def test_versions_that_run_code_of_encoders_are_refused(monkeypatch):
    old = types.ModuleType("sentence_transformers")
    old.__version__ = "5.1.0"
    monkeypatch.setitem(sys.modules, "sentence_transformers", old)
    with pytest.raises(
        DataError, match=r"sentence-transformers 5\.1\.0 may run code .* expected 6 or later: pip install -U"
    ):
        SentenceTransformer("any/model").encode(table("red lamp"))


def test_offline_an_unknown_model_is_an_error_and_the_network_is_not_tried(monkeypatch, tmp_path):
    pytest.importorskip("sentence_transformers")
    from huggingface_hub import constants

    tried = []

    def refuse(self, address):
        tried.append(address)
        raise OSError("no network in this test")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # read from the environment when it was imported
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(DataError, match=r"'someone/nothing' could not be loaded; give a model id .* or a local folder"):
        SentenceTransformer("someone/nothing").encode(table("red lamp"))
    assert not tried


@pytest.mark.parametrize("folder", ["no/such/folder", "a folder that is none", "empty"])
def test_a_folder_that_holds_no_model_is_an_error(monkeypatch, tmp_path, folder):
    pytest.importorskip("sentence_transformers")
    (tmp_path / "empty").mkdir()
    with HubServer() as hub, pytest.raises(DataError, match="could not be loaded"):
        hub.use(monkeypatch, tmp_path)
        SentenceTransformer(str(tmp_path / folder)).encode(table("red lamp"))


def test_a_sentence_encoder_from_the_hub(sentence_model, monkeypatch, tmp_path):
    from huggingface_hub import HfApi

    with HubServer() as hub:
        hub.use(monkeypatch, tmp_path)
        with pytest.raises(DataError, match="'me/tiny' could not be loaded"):
            SentenceTransformer("me/tiny").encode(table("red lamp"))
        api = HfApi()
        api.create_repo("me/tiny")
        api.upload_folder(repo_id="me/tiny", folder_path=sentence_model)
        vectors = SentenceTransformer("me/tiny", device="cpu").encode(table(*TEXTS))
    assert vectors == pytest.approx(SentenceTransformer(str(sentence_model), device="cpu").encode(table(*TEXTS)), abs=1e-6)
