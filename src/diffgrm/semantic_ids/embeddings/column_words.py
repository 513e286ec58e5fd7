"""Values of columns as words beside a text: a word for each value of each column, and none for two of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class ColumnWords:
    """Spells ``value`` of ``column`` so that an analyzer of texts takes it for one word.

    It is ``column_value`` where an analyzer keeps that whole, as it does letters, digits and underscores. Otherwise
    (``C++``, ``Film-Noir``, a column ``size a``) all characters that are neither letters nor digits are written by their
    code point, behind underscores with which no other word begins: ``_lang__c_2b__2b_``. What the analyzer takes for one,
    such as upper and lower case, is one here too.

    Args:
        columns: that are read together.
        fold: what the analyzer makes of a text before it looks for words.
        is_whole: whether it takes a folded text for one word.
    """

    def __init__(self, columns: Sequence[str], fold: Callable[[str], str], is_whole: Callable[[str], bool]) -> None:
        self._names = {column: fold(column) for column in columns}
        self._fold, self._is_whole = fold, is_whole
        underscores = [len(name) - len(name.lstrip("_")) for name in self._names.values()]
        self._mark = "_" * (1 + max(underscores, default=0))

    def word(self, column: str, value: str) -> str:
        """The word of a value.

        >>> words = ColumnWords(["lang", "lang_id"], str.lower, str.isidentifier)
        >>> [words.word("lang", value) for value in ("C", "C++", "C#")]
        ['lang_C', '_lang__c_2b__2b_', '_lang__c_23_']
        >>> words.word("lang_id", "7"), words.word("lang", "id_7")
        ('lang_id_7', '_lang__id_5f_7')
        """
        word = f"{column}_{value}"
        if self._is_plain(self._names[column], self._fold(word)):
            return word
        return f"{self._escaped_column(column)}{_escaped(self._fold(value))}"

    def beginnings(self) -> tuple[str, ...]:
        """What words of columns begin with, folded."""
        return tuple(start for column, name in self._names.items() for start in (f"{name}_", self._escaped_column(column)))

    def _is_plain(self, name: str, word: str) -> bool:
        """Whether a folded word can be read in one way only: it is whole, and begins with no longer name of a column."""
        longer = (f"{other}_" for other in self._names.values() if len(other) > len(name))
        return name.strip("_") != "" and self._is_whole(word) and not word.startswith(tuple(longer))

    def _escaped_column(self, column: str) -> str:
        return f"{self._mark}{_escaped(self._names[column])}__"


def _escaped(text: str) -> str:
    """A text of letters, digits, and the code points of all others between underscores.

    >>> _escaped("c++"), _escaped("a_b")
    ('c_2b__2b_', 'a_5f_b')
    """
    return "".join(letter if letter.isalnum() else f"_{ord(letter):x}_" for letter in text)
