from __future__ import annotations

import logging
import socket
import sys

import numpy as np
import polars as pl
import pytest

from diffgrm import toy_world
from diffgrm.embeddings import ItemEncoder, check_embeddings, embed_items
from diffgrm.embeddings.lsa import LSA
from diffgrm.embeddings.precomputed import Precomputed
from diffgrm.embeddings.sentence_transformer import SentenceTransformer
from diffgrm.schema import DataError, MissingExtraError
from diffgrm.storage import State
from servers import HubServer

TEXTS = ["red lamp", "blue lamp", "red wooden chair", "blue wooden chair", "wooden lamp"]


def table(*texts, ids=None):
    return pl.DataFrame({"item_id": ids or [f"i{n}" for n in range(len(texts))], "text": list(texts)})


@pytest.fixture(scope="module")
def shop():
    return toy_world(users=10).dataset.item_table


# ---- LSA ------------------------------------------------------------------------------------------------------------


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
    assert LSA(min_items=2).fit(table(*many)).state().facts["words"] == ["common", "twice"]
    assert "number2" in LSA(min_items=2).fit(table(*many[:199])).state().facts["words"]


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


# ---- precomputed ----------------------------------------------------------------------------------------------------

MATRIX = np.array([[3, 4], [0, 2], [5, 0]], dtype=np.float64)
UNIT = np.array([[0.6, 0.8], [0, 1], [1, 0]], dtype=np.float32)
THREE = table("x", "y", "z", ids=["a", "b", "c"])


@pytest.fixture
def npy(tmp_path):
    def write(content, name="vectors.npy"):
        np.save(tmp_path / name, content)
        return Precomputed(str(tmp_path / name))

    return write


@pytest.fixture
def parquet(tmp_path):
    def write(columns, **settings):
        pl.DataFrame(columns).write_parquet(tmp_path / "vectors.parquet")
        return Precomputed(str(tmp_path / "vectors.parquet"), **settings)

    return write


def test_npy_rows_are_those_of_the_item_table(npy):
    vectors = npy(MATRIX).encode(THREE)
    assert vectors == pytest.approx(UNIT) and vectors.dtype == np.float32


def test_parquet_rows_are_found_by_item(parquet):
    columns = {"item_id": ["c", "unused", "a", "b"], "embedding": [[5.0, 0.0], [9.0, 9.0], [3.0, 4.0], [0.0, 2.0]]}
    assert parquet(columns).encode(THREE) == pytest.approx(UNIT)


def test_parquet_may_hold_arrays_in_another_column(parquet):
    columns = {"item_id": ["b", "c", "a"], "vector": MATRIX[[1, 2, 0]].astype(np.float32)}
    assert parquet(columns, column="vector").encode(THREE) == pytest.approx(UNIT)


def test_parquet_ids_may_be_text_where_the_table_has_numbers(parquet):
    columns = {"item_id": ["30", "none", "10", "20"], "embedding": [[5, 0], [1, 1], [3, 4], [0, 2]]}
    assert parquet(columns).encode(table("x", "y", "z", ids=[10, 20, 30])) == pytest.approx(UNIT)


def test_the_first_of_repeated_parquet_rows_counts(parquet):
    columns = {"item_id": ["a", "b", "c", "a"], "embedding": [*MATRIX.tolist(), [1.0, 0.0]]}
    assert parquet(columns).encode(THREE) == pytest.approx(UNIT)


def test_missing_items_are_named(parquet):
    columns = {"item_id": ["b", "a"], "embedding": [[1.0], None]}
    with pytest.raises(DataError, match="2 items have no vector: a, c"):
        parquet(columns).encode(THREE)


def test_vectors_that_are_not_finite_are_named(npy, parquet):
    matrix = MATRIX.copy()
    matrix[1, 0] = np.nan
    with pytest.raises(DataError, match="embeddings of 1 items hold NaN or infinity: b; mend"):
        npy(matrix).encode(THREE)
    with pytest.raises(DataError, match="embeddings of 2 items hold NaN or infinity: a, c; mend"):
        parquet({"item_id": ["c", "b", "a"], "embedding": [[1.0, None], [1.0, 1.0], [float("inf"), 0.0]]}).encode(THREE)


@pytest.mark.parametrize("shape", [(2, 2), (3,), (3, 0), (3, 2, 1)])
def test_another_shape_is_an_error(npy, shape):
    with pytest.raises(DataError) as caught:
        npy(np.ones(shape)).encode(THREE)
    assert f"embeddings have shape {shape}; expected (3, width)" in str(caught.value)


def test_vectors_of_different_widths_are_an_error(parquet):
    with pytest.raises(DataError, match="different widths, from 1 to 2"):
        parquet({"item_id": ["a", "b", "c"], "embedding": [[1.0, 2.0], [1.0], [1.0, 2.0]]}).encode(THREE)


def test_matrices_of_words_are_an_error(npy):
    with pytest.raises(DataError, match="expected numbers"):
        npy(np.array([["x"], ["y"], ["z"]])).encode(THREE)
    with pytest.raises(DataError, match="is not a NumPy matrix"):
        npy(np.array([[None], ["y"], ["z"]], dtype=object)).encode(THREE)


@pytest.mark.parametrize(
    ("embedding", "message"),
    [
        (["x", "y", "z"], "has type String; expected lists of numbers"),
        ([1.0, 2.0, 3.0], "has type Float64; expected lists of numbers"),
        ([["x"], ["y"], ["z"]], "does not hold numbers"),
    ],
)
def test_parquet_columns_without_vectors_are_an_error(parquet, embedding, message):
    with pytest.raises(DataError, match=message):
        parquet({"item_id": ["a", "b", "c"], "embedding": embedding}).encode(THREE)


def test_a_missing_parquet_column_is_named(parquet):
    with pytest.raises(DataError, match=r"has columns \['item_id', 'vector'\]; expected also \['embedding'\]"):
        parquet({"item_id": ["a"], "vector": [[1.0]]}).encode(THREE)


@pytest.mark.parametrize(
    ("name", "message"),
    [("x.npy", "not a NumPy matrix"), ("x.parquet", "not a parquet file"), ("x.txt", "x.txt: precomputed embeddings are")],
)
def test_files_that_are_something_else_are_an_error(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(DataError, match=message):
        Precomputed(str(tmp_path / name)).encode(THREE)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=f"there is no embedding file {tmp_path}/none.npy"):
        Precomputed(str(tmp_path / "none.npy")).encode(THREE)


def test_precomputed_vectors_are_read_anew_each_time(npy, tmp_path):
    everything = np.ones(3, bool)
    assert embed_items(npy(MATRIX), THREE, everything, tmp_path / "cache") == pytest.approx(UNIT)
    assert embed_items(npy(MATRIX[::-1]), THREE, everything, tmp_path / "cache") == pytest.approx(UNIT[::-1])
    assert not (tmp_path / "cache").exists()


# ---- cache ----------------------------------------------------------------------------------------------------------


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


def test_lsa_from_the_cache_is_the_lsa_that_was_fitted(embed, monkeypatch):
    fitted, cached = LSA(), LSA()
    items, training = table(*TEXTS), np.array([True, True, True, True, False])
    vectors = embed(fitted, items, training)
    monkeypatch.setattr(LSA, "fit", None)
    assert np.array_equal(embed(cached, items, training), vectors)
    assert np.array_equal(cached.encode(table("blue chair")), fitted.encode(table("blue chair")))


# ---- sentence-transformers ------------------------------------------------------------------------------------------


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


def test_sentence_vectors_come_from_the_cache_until_the_folder_changes(sentence_model, embed, monkeypatch, tmp_path):
    import sentence_transformers

    vectors = embed(SentenceTransformer(str(sentence_model)))
    loads = []
    whole = sentence_transformers.SentenceTransformer
    monkeypatch.setattr(
        sentence_transformers, "SentenceTransformer", lambda *args, **more: loads.append(args) or whole(*args, **more)
    )
    assert np.array_equal(embed(SentenceTransformer(str(sentence_model))), vectors) and not loads
    (sentence_model / "note.txt").write_text("another version")
    assert np.array_equal(embed(SentenceTransformer(str(sentence_model))), vectors) and len(loads) == 1


def test_without_sentence_transformers_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'diffgrm\[sentence\]'"):
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


def test_the_log_says_what_is_embedded(embed, caplog):
    caplog.set_level(logging.INFO)
    embed(Counted())
    assert "Embedding 3 items with Counted" in caplog.text
