"""Halves of surrogate pairs: refused by name, and shown so that whatever prints the message can."""

from __future__ import annotations

import pytest

from diffgrm.data.documents import asked_queries
from diffgrm.data.ids import user_ids_of
from diffgrm.foundation.plain_values import read_json
from diffgrm.foundation.schema import DataError, ModelFolderError, first_few
from diffgrm.ranking.rules import read_rules


def test_queries_and_users_that_are_no_texts_are_named():
    with pytest.raises(DataError, match=r"^'\\ud800' \(place 1\) holds half of a surrogate pair; ask with whole"):
        asked_queries(["red", "\ud800"])
    with pytest.raises(DataError, match=r"^'a\\udc00' \(place 0\) holds half"):
        asked_queries("a\udc00")
    with pytest.raises(DataError, match=r"^the user id '\\ud800' holds half of a surrogate pair; ids are whole"):
        user_ids_of(["a", "\ud800"])
    assert asked_queries("\U0001f9e6")["text"].to_list() == ["\U0001f9e6"]
    assert user_ids_of(["\U0001f9e6"]).to_list() == ["\U0001f9e6"]


@pytest.mark.parametrize("kind", [DataError, ModelFolderError])
def test_every_message_can_be_printed(kind):
    names = "a\ud800b", "\U0001f9e6"
    error = kind(f"unknown: {first_few(names)}")
    assert str(error) == "unknown: a\\ud800b, \U0001f9e6" and str(error).encode()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_rules_say_that_a_number_is_not_finite(number):
    with pytest.raises(DataError, match=r"boosts\.0\.by: Input should be a finite number"):
        read_rules({"boosts": [{"by": number, "items": ["item 3"]}]})
    with pytest.raises(DataError, match=r"where\.price\.max: Input should be a finite number"):
        read_rules({"where": {"price": {"max": number}}})


def test_json_says_every_key_once():
    assert read_json(b'{"a": [{"b": 1}, {"b": 2}]}') == {"a": [{"b": 1}, {"b": 2}]}
    for text in ('{"a": 1, "b": 2, "a": 1}', '[{"c": {"a": {}, "a": {}}}]'):
        with pytest.raises(ValueError, match="^an object says the key 'a' twice; say it once$"):
            read_json(text)
