"""Names and errors that every other file shares."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from diffgrm.foundation.shown import unbroken_text

OnlyWith = tuple[tuple[str, str, tuple[str | bool | float | None, ...]], ...]  # a setting, another one, and values of that


class Columns:
    """Column names of the library's own tables; user tables are renamed to these on reading."""

    USER = "user_id"
    ITEM = "item_id"
    TIMESTAMP = "timestamp"
    EVENT = "event"
    WEIGHT = "weight"
    TEXT = "text"
    TITLE = "title"
    SCORE = "score"
    RANK = "rank"
    QUERY = "query_id"
    DOCUMENT = "doc_id"
    RELEVANCE = "relevance"
    SPLIT = "split"


class DiffGRMError(Exception):
    """Base of every error this library raises on purpose. Whatever it names, its text can be written as UTF-8."""

    def __str__(self) -> str:
        """The message."""
        return unbroken_text(super().__str__())


class DataError(DiffGRMError, ValueError):
    """A table, embedding or history is not usable. The message lists every problem found."""


class RecipeError(DiffGRMError, ValueError):
    """A recipe or an override is wrong. The message lists every problem found."""


class TokenizerError(DiffGRMError, ValueError):
    """Semantic IDs cannot be made from these items with these sizes."""


class TrainingError(DiffGRMError, RuntimeError):
    """Training cannot go on; the last good checkpoint is kept."""


class ModelFolderError(DiffGRMError, OSError):
    """A saved model folder is missing files, damaged, or not ours."""


class OutputError(DiffGRMError, OSError):
    """A file could not be written, as on a full disk; what was there before is whole."""


class DownloadError(DiffGRMError, OSError):
    """A public dataset could not be fetched whole."""


class MissingExtraError(DiffGRMError, ImportError):
    """A package is not installed: an optional dependency, or (``extra=None``) one that exports are used without."""

    def __init__(self, package: str, extra: str | None, purpose: str) -> None:
        wanted = "diffgrm" if extra is None else f"'diffgrm[{extra}]'"
        super().__init__(f"{purpose} needs the package {package!r}; install it with: pip install {wanted}")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is for want of memory; PyTorch's words for it differ by device."""
    return isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error)


@contextmanager
def needing_pytorch(purpose: str) -> Iterator[None]:
    """Say how to install PyTorch, and what comes with it, where the block imports it and it is not installed.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name in ("torch", "lightning", "sklearn"):
            raise MissingExtraError(error.name, None, purpose) from error
        raise


def bullet_list(problems: Iterable[str]) -> str:
    """Several problems as one message, a line each."""
    return "\n".join(f"  - {problem}" for problem in problems)


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """A hint for a misspelt word: ``"; did you mean 'width'?"`` or the known words.

    >>> did_you_mean("widht", ["width", "heads"])
    "; did you mean 'width'?"
    >>> did_you_mean("zzz", ["b", "a"])
    '; known: a, b'
    """
    names = sorted(known)
    return nearest(word, names) or f"; known: {', '.join(names)}"


def nearest(word: object, known: Iterable[str]) -> str:
    """The same where the known words are told already: nothing if none is near.

    >>> nearest("widht", ["width", "heads"]), nearest("zzz", ["width", "heads"])
    ("; did you mean 'width'?", '')
    >>> nearest("user_id", ["USER_ID", "used"]), nearest(0, ["width"])
    ("; did you mean 'USER_ID'?", '')
    """
    folded = {name.casefold(): name for name in sorted(known)}
    close = difflib.get_close_matches(str(word).casefold(), folded, n=1)
    return f"; did you mean {folded[close[0]]!r}?" if close else ""


def readable(error: Mapping[str, Any]) -> str:
    """What pydantic says of a value, in the words of YAML.

    >>> readable({"type": "tuple_type", "msg": "Input should be a valid tuple"})
    'expected a list, such as [a, b]'
    >>> choice = {"type": "literal_error", "ctx": {"expected": "'keep' or 'last'"}, "msg": "Input should be one"}
    >>> readable({**choice, "input": "lsat"}), readable({**choice, "input": 5})
    ("Input should be one; did you mean 'last'?", 'Input should be one')
    """
    if error["type"] == "tuple_type":
        return "expected a list, such as [a, b]"
    if error["type"] in ("model_type", "dict_type"):
        return "expected a mapping from settings to their values"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if error["type"] == "literal_error" and isinstance(word := error.get("input"), str):
        words = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        return f"{error['msg']}{nearest(word, words)}"
    return str(error["msg"])


LARGEST = 2**31 - 1
ORDINARY = 1e-30, 1e30  # what 32-bit floats can be multiplied with


def ordinary(value: Any) -> Any:
    """A setting of which no number is too large or too small to be computed with; lists are looked into.

    >>> ordinary([1e-3, 0, None, "all"])
    [0.001, 0, None, 'all']

    Raises:
        ValueError: a whole number beyond 32 bits, or another number that is infinite, none, or near that.
    """
    low, high = ORDINARY
    for number in value if isinstance(value, list | tuple) else (value,):
        if isinstance(number, int) and abs(number) > LARGEST:
            raise ValueError(f"expected a whole number of at most {LARGEST:,}")
        if isinstance(number, float) and number and not low <= abs(number) <= high:
            raise ValueError(f"expected a number, of a size from {low:g} to {high:g}, or 0")
    return value


def idle(
    path: str, rules: OnlyWith, values: Mapping[str, Any], *usual: Mapping[str, Any], not_with: OnlyWith = ()
) -> list[str]:
    """Settings that have been changed and do nothing beside the others, a line each.

    >>> idle("noising", (("p", "draw", ("fixed_p",)),), {"p": 0.3, "draw": "k_of_n"}, {"p": 0.5})
    ['noising.p = 0.3 does nothing with noising.draw = k_of_n; leave it out, or set noising.draw to fixed_p']
    >>> idle("decoding", (), {"rounds": 2, "edges": None}, {"rounds": 3}, not_with=(("rounds", "edges", (None,)),))
    ['decoding.rounds = 2 does nothing with decoding.edges = null; leave it out, or set decoding.edges to something else']

    Args:
        path: where the settings stand in the recipe.
        rules: settings that do something with some values of another one only; ``not_with``: with all but some.
        usual: what they are where nothing is said.
    """
    changed = {key for key in values if all(values[key] != known[key] for known in usual if key in known)}
    return [
        f"{path}.{key} = {values[key]} does nothing with {path}.{other} = {values[other]}; leave it out, or set "
        f"{path}.{other} to {' or '.join('null' if value is None else str(value) for value in wanted)}"
        for key, other, wanted in rules
        if values[other] not in wanted and key in changed
    ] + [
        f"{path}.{key} = {values[key]} does nothing with {path}.{other} = "
        f"{'null' if values[other] is None else values[other]}; leave it out, or set {path}.{other} to something else"
        for key, other, switching_off in not_with
        if values[other] in switching_off and key in changed
    ]


def switched_off(
    path: str, switch: str, settings: Iterable[str], values: Mapping[str, Any], usual: Mapping[str, Any]
) -> list[str]:
    """Settings that have been changed though a weight that they are of is 0, a line each.

    >>> switched_off("objective", "weight", ["noise"], {"weight": 0, "noise": 3}, {"noise": 2})
    ['objective.noise = 3 does nothing with objective.weight = 0; set it to 2, or raise objective.weight']

    Args:
        path: where the settings stand in the recipe.
        switch: the weight; where there is no such setting, nothing is switched off.
        usual: what they are where nothing is said.
    """
    if values.get(switch) != 0:
        return []
    return [
        f"{path}.{key} = {values[key]} does nothing with {path}.{switch} = 0; set it to {usual[key]}, or raise "
        f"{path}.{switch}"
        for key in settings
        if key in values and values[key] != usual[key]
    ]


def first_few(values: Iterable[object], limit: int = 5, count: int | None = None) -> str:
    """The first values of a long list, for messages.

    Args:
        count: how many there are, where ``values`` are only the first of them.

    >>> first_few(range(100), 3)
    '0, 1, 2, ... (100 in all)'
    """
    items = list(values)
    shown, count = ", ".join(str(v) for v in items[:limit]), len(items) if count is None else count
    return shown if count <= limit else f"{shown}, ... ({count} in all)"
