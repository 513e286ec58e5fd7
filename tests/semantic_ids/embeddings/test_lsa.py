from __future__ import annotations

import unicodedata

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffgrm import toy_world
from diffgrm.foundation.schema import DataError
from diffgrm.foundation.storage import State
from diffgrm.semantic_ids.embeddings.base import check_embeddings, embed_items
from diffgrm.semantic_ids.embeddings.lsa import LSA
from helpers.titles import WORDS, neighbour_precision, titles

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


SETTINGS = [{}, {"analyzer": "char_wb", "longest_ngram": 3}, {"analyzer": "word"}, {"longest_ngram": 2}]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.filterwarnings("error")
def test_lsa_state_gives_identical_vectors_after_saving(shop, tmp_path, settings):
    japanese = titles("japanese")[0]
    encoder = LSA(width=16, **settings).fit(pl.concat([shop.select("item_id", "text"), japanese]))
    encoder.state().save(tmp_path / "lsa.safetensors")
    loaded = LSA(width=16, **settings).load_state(State.load(tmp_path / "lsa.safetensors"))
    unseen = table("Moka coffee grinder, green", "nothing of the kind", *shop["text"], *japanese["text"])
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


RARE = [f"lamp{n}" for n in range(200)]


@pytest.mark.parametrize(
    ("settings", "texts", "said"),
    [
        ({}, ["!!!", "..."], r"no words in the texts of 2 training items: i0 \('!!!'\), i1 .*; give texts with letters"),
        ({"analyzer": "word"}, ["\U0001f600"] * 9, "no words in the texts of 9 training items"),
        ({"analyzer": "char_wb"}, [" ", " "], "no words in the texts of 2 training items"),
        ({}, [None, None], r"no words in the texts of 2 training items: i0 \(None\)"),
        ({}, [], "no words in the texts of 0 training items"),
        ({}, RARE, "words that at least 2 items have .embedding.min_items., and none is in so many of the 200 training"),
        ({"min_items": 9}, TEXTS, "at least 9 items have .* of the 5 training items: i0 .*set embedding.min_items=1, or"),
        ({"min_items": 4}, TEXTS, "at least 4 items have"),
    ],
)
def test_texts_to_learn_nothing_from_are_an_error_in_our_words(settings, texts, said):
    with pytest.raises(DataError, match=said) as error:
        LSA(**settings).fit(table(*texts).cast({"text": pl.String}))
    assert not {"stop words", "min_df", "max_df", "vocabulary"} & set(str(error.value).split())
    assert error.value.__cause__ is None


def test_lsa_from_the_cache_is_the_lsa_that_was_fitted(tmp_path, monkeypatch):
    fitted, cached = LSA(), LSA()
    items, training = table(*TEXTS), np.array([True, True, True, True, False])
    vectors = embed_items(fitted, items, training, tmp_path)
    monkeypatch.setattr(LSA, "fit", None)
    assert np.array_equal(embed_items(cached, items, training, tmp_path), vectors)
    assert np.array_equal(cached.encode(table("blue chair")), fitted.encode(table("blue chair")))


# ---- scripts ---------------------------------------------------------------------------------------------------------


def features(encoder, text):
    return sorted(encoder._new_vectorizer().build_analyzer()(text))


SPACED = [
    "M\u00fcller's Cr\u00e8me\u2122 \u00bd oz, N\u00ba5 \u2014 100% p\u00fbr",
    "1\ufe0f\u20e3 \u2139\ufe0finfo \U0001f600\u200d\U0001f525 under_score 3.5mm",
    "\u0447\u0430\u0439 \u0437\u0435\u043b\u0451\u043d\u044b\u0439",
    "\u03c4\u03c3\u03ac\u03b9 \u03a3\u03a4\u039f\u03a3",
    "\u0634\u0627\u064a \u0623\u062e\u0636\u0631 \u05ea\u05d4 \u05d9\u05e8\u05d5\u05e7",
]


@pytest.mark.parametrize("settings", [{}, {"longest_ngram": 2}, {"columns": ["category"]}, {"min_items": 3}])
def test_vectors_of_spaced_texts_are_those_of_words_to_the_bit(shop, settings):
    texts = [*shop["text"], *SPACED, *SPACED, *SPACED]
    items = table(*texts).with_columns(category=pl.Series([text[:9] for text in texts]))
    auto, word = LSA(width=32, **settings).fit(items), LSA(width=32, analyzer="word", **settings).fit(items)
    assert np.array_equal(auto.encode(items), word.encode(items)) and auto.state().facts == word.state().facts


latin = st.characters(max_codepoint=0x2FF)  # with control characters, superscripts, fractions
symbols = st.sampled_from("\u2122\u2139\ufe0f\u20e3\u200d\u00ad\u2019\u2713\u2160\u0416\u03c2\U0001f600 ").map(str)


@given(st.text(latin | symbols), st.integers(1, 3))
def test_any_text_of_spaced_scripts_has_the_features_of_words(text, longest):
    if "\u0130" not in text:  # whose lower case is an i and a mark
        assert features(LSA(longest_ngram=longest), text) == features(LSA(analyzer="word", longest_ngram=longest), text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("\u7dd1\u8336", ["\u7dd1", "\u7dd1\u8336", "\u8336"]),
        ("iPhone\u7528 2", ["2", "iphone", "\u7528"]),
        ("LED\uc870\uba85\uc744", ["led", "\uba85", "\uba85\uc744", "\uc744", "\uc870", "\uc870\uba85"]),
        ("\u0e19\u0e49\u0e33", ["\u0e19\u0e49", "\u0e19\u0e49\u0e33", "\u0e33"]),
        ("\u0939\u093f\u0928\u094d\u0926\u0940", ["\u0939\u093f\u0928\u094d\u0926\u0940"]),
        ("\u845b\U000e0100\u98fe", ["\u845b", "\u845b\u98fe", "\u98fe"]),
        ("\u7dd1\u30fb\u8336", ["\u7dd1", "\u8336"]),
        ("12345 67", ["12345", "67"]),
        ("\U0001f600\u2764\ufe0f", []),
    ],
)
def test_features_go_by_script(text, wanted):
    assert features(LSA(), text) == wanted


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("\uff21\uff22\uff23\u3000\uff11", "abc 1"),
        ("\uff76\uff9e\uff97\uff7d", "\u30ac\u30e9\u30b9"),
        *((unicodedata.normalize("NFD", text), text) for text in ("caf\u00e9", "\ud55c\uae00", "\u30ac\u30e9\u30b9")),
    ],
)
def test_ways_of_writing_the_same_are_one(one, other):
    assert one != other and features(LSA(), one) == features(LSA(), other) != []


def test_runs_of_characters_grow_with_runs_of_words():
    assert "\u4e00\u4e8c\u4e09" in features(LSA(longest_ngram=2), "\u4e00\u4e8c\u4e09")
    assert "\u4e00\u4e8c\u4e09" not in features(LSA(), "\u4e00\u4e8c\u4e09")


# precision at 10 among six groups (chance: .17): measured .95 to .99; words alone have 0, 0, .67 and .42
@pytest.mark.parametrize("language", [language for language in WORDS if language != "english"])
def test_neighbours_are_of_the_same_group_without_spaces_too(language):
    items, group = titles(language)
    vectors = LSA().fit(items).encode(items)
    assert vectors.any(axis=1).all() and neighbour_precision(vectors, group) > 0.93
    assert neighbour_precision(LSA(analyzer="word").fit(items).encode(items), group) < 0.7


@pytest.mark.parametrize("language", [language for language in WORDS if language != "english"])
def test_catalogues_in_two_languages_have_neighbours_in_both(language):
    (english, group), (other, groups) = titles("english", 150), titles(language, 150)
    both = pl.concat([english, other])
    auto, word = LSA().fit(both), LSA(analyzer="word").fit(both)
    assert neighbour_precision(auto.encode(english), group) >= neighbour_precision(word.encode(english), group) > 0.8
    assert neighbour_precision(auto.encode(other), groups) > 0.8
    assert neighbour_precision(word.encode(other), groups) < 0.6


# ---- columns ---------------------------------------------------------------------------------------------------------


def test_a_value_of_a_column_is_one_word_in_every_script():
    items = table("x", "y").with_columns(**{"\u5206\u985e": pl.Series(["\u7dd1 \u8336", "Hair Care"])})
    encoder = LSA(columns=["\u5206\u985e"])
    assert encoder.documents(items) == ["x _\u5206\u985e__\u7dd1_20_\u8336", "y _\u5206\u985e__hair_20_care"]
    words = encoder.fit(items).state().facts["words"]
    assert words == ["_\u5206\u985e__hair_20_care", "_\u5206\u985e__\u7dd1_20_\u8336", "x", "y"]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (["a b", None], ["_c__a_20_b", ""]),
        (["a_b", ""], ["c_a_b", "c_"]),
        ([1, 2], ["c_1", "c_2"]),
        ([["a", "b"], []], ["c_a c_b", ""]),
        ([[["Beauty", "Hair Care"], ["Bath", None], [], None], None], ["c_Beauty _c__hair_20_care c_Bath", ""]),
        ([[[["a"]], [["b"]]], [[[]]]], ["c_a c_b", ""]),
        (pl.Series([[[1, 2]], [[3, 4]]], dtype=pl.Array(pl.Int64, (1, 2))), ["c_1 c_2", "c_3 c_4"]),
        (pl.Series(["a", "b"], dtype=pl.Categorical), ["c_a", "c_b"]),
    ],
)
def test_columns_may_be_lists_however_nested(values, wanted):
    items = table("x", "x").with_columns(c=pl.Series(values))
    assert LSA(columns=["c"]).documents(items) == [f"x {words}" for words in wanted]


def words_of(encoder, columns, text=""):
    """The features of one item that has a text, and a value or more of some columns."""
    row = table(text).with_columns(pl.Series(name, [value]) for name, value in columns.items())
    return features(encoder, encoder.documents(row)[0])


SPELLINGS = ["C", "C++", "C#", "C-", "C+", "C_", "_C", "+C", "C +", " C", "", "-", "C_2b__2b_", "m", "m\u00b2", "\u00bd"]
SPELLINGS += ["i", "\u0130", "\u4ee4\u548c 7", "\u4ee4\u548c7", "\u0939\u093f\u0928\u094d", "\u0939", "a\u200cb"]
COLUMNS = {"x.n": "1", "y.n": "1", "size a": "1", "a": "1", "size": "a_1", "size_a": "1", "_size": "a", "__": "1"}
COLUMNS |= {"_": "_1"}


@pytest.mark.parametrize("analyzer", ["auto", "word"])
def test_values_and_columns_of_any_characters_are_words_of_their_own(analyzer):
    lang = LSA(analyzer=analyzer, columns=["lang"])
    found = [words_of(lang, {"lang": value}) for value in SPELLINGS]
    assert {len(words) for words in found} == {1} and len({*map(tuple, found)}) == len(SPELLINGS)
    assert words_of(lang, {"lang": ["C++", "C"]}, "a text") == ["_lang__c_2b__2b_", "a", "lang_c", "text"]
    words = words_of(LSA(analyzer=analyzer, columns=[*COLUMNS]), COLUMNS)
    assert len({*words}) == len(words) == len(COLUMNS)
    assert {"a_1", "size_a_1", "_size_a"} <= {*words}  # spelled as they are


@pytest.mark.parametrize("analyzer", ["auto", "word"])
@given(values=st.lists(st.tuples(st.sampled_from([*COLUMNS, "\u985e"]), st.text(max_size=6)), min_size=2))
def test_no_two_values_of_columns_are_one_word_but_for_what_is_one_in_texts(analyzer, values):
    encoder = LSA(analyzer=analyzer, columns=[*COLUMNS, "\u985e"])
    wanted = {(column, encoder._folded(value)) for column, value in values}
    words = [features(encoder, encoder._column_words.word(column, value)) for column, value in values]
    assert {len(found) for found in words} == {1}
    assert len({found for (found,) in words}) == len(wanted)


@pytest.mark.parametrize("analyzer", ["auto", "word"])
@given(value=st.text(st.characters(categories=["L", "Nd"], include_characters="_", exclude_characters="\u0130")))
def test_a_value_of_letters_and_digits_is_spelled_as_it_is(analyzer, value):
    assert LSA(analyzer=analyzer, columns=["c"])._column_words.word("c", value) == f"c_{value}"


def test_models_that_learnt_other_words_keep_them():
    """Before, what is neither letter nor digit was an underscore, and models with such words are about."""
    items = table("x", "y").with_columns(c=pl.Series([["C++"], ["Film-Noir", "d"]]))
    encoder = LSA(columns=["c"]).fit(items)
    new = encoder.state()
    assert new.facts == {"words": ["_c__c_2b__2b_", "_c__film_2d_noir", "c_d", "x", "y"], "escaped": True}
    before = LSA(columns=["c"]).load_state(State(new.arrays, {"words": ["c_c_", "c_film_noir", "c_d", "x", "y"]}))
    assert before.documents(items) == ["x c_C_", "y c_Film_Noir c_d"]
    assert np.array_equal(before.encode(items), encoder.encode(items)) and before.state().facts["escaped"] is False


@pytest.mark.parametrize("column", ["ﾌﾞﾗﾝﾄﾞ", "Marque e\u0301", "ブランド"])
def test_models_that_learnt_other_words_cut_texts_as_before(column):
    """A column's name was a beginning of words only as it was written, though what is read is folded."""
    known = LSA(columns=["c"]).fit(table("x", "y").with_columns(c=pl.Series(["a", "b"]))).state()
    encoder = LSA(columns=[column]).load_state(State(known.arrays, {"words": known.facts["words"]}))
    text = f"靴 赤 {column}_緑_茶"
    assert (encoder.features(text) != LSA().features(text)) == (column == "ブランド")


def test_character_ngrams_keep_the_words_that_they_had():
    items = table("x").with_columns(c=pl.Series([["Hair Care", "C++"]]))
    assert LSA(analyzer="char_wb", columns=["c"]).documents(items) == ["x c_Hair_Care c_C_"]


@pytest.mark.parametrize("values", [[{"a": 1}, {"a": 2}], [[{"a": 1}], []], [b"a", b"b"]])
def test_columns_of_other_values_are_refused(values):
    with pytest.raises(DataError, match=r"embedding.columns: 'c' has type .*; expected texts, numbers, or lists of them"):
        LSA(columns=["c"]).documents(table("x", "x").with_columns(c=pl.Series(values)))
    with pytest.raises(DataError, match="embedding.columns: the item table has no 'd'; known: c, item_id, text"):
        LSA(columns=["d"]).documents(table("x", "x").with_columns(c=pl.Series(values)))


# ---- zero vectors ----------------------------------------------------------------------------------------------------


def test_items_without_a_known_word_are_told_from_the_cache_too(tmp_path, caplog):
    items, training = table(*TEXTS, "quagga", "\U0001f600", None), np.array([True] * 5 + [False] * 3)
    for _ in range(2):
        caplog.clear()
        vectors = embed_items(LSA(), items, training, tmp_path)
        assert vectors.any(axis=1).tolist() == training.tolist()
        assert "3 of 8 items get the zero vector, so that they are like no other item: i5 ('quagga')" in caplog.text
        assert "i7 (None)" in caplog.text and "embedding.min_items=1" in caplog.text
    caplog.clear()
    embed_items(LSA(), items[:5], training[:5], tmp_path)
    assert "zero vector" not in caplog.text
