"""Settings over settings: dotted overrides, and the defaults of a recommender under what a recipe gives."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from diffgrm.foundation.parts import ItemScoring, changed_entry, merge, named
from diffgrm.foundation.presets import USUAL, defaults_of
from diffgrm.foundation.schema import RecipeError
from diffgrm.foundation.yaml_text import YamlError, read_yaml

PART_SECTIONS = ("embedding", "tokenizer", "model", "objective", "noising", "decoding")
VALIDATION = ("training", "validation_decoding")  # settings of the part of another section
OWN_SCORER = re.compile(r"(item_scoring)\.([\w.]+:\w+)(?:\.(.+))?")  # a class of one's own has dots in its name


def with_defaults(values: Mapping[str, Any], recommender: str) -> dict[str, Any]:
    """The values of a recipe over the settings that its recommender has instead of the usual ones.

    Those of a part hold only for the part of that name, and those of validation only for the decoder they were meant for.
    """
    defaults = dict(defaults_of(recommender))
    if _name(values.get("decoding")) not in (None, _name(defaults.get("decoding"))):
        defaults["training"] = _without(defaults.get("training", {}), "validation_decoding")
    result = dict(values)
    for section, settings in defaults.items():
        given = values.get(section, {})
        if section in PART_SECTIONS or section == "item_scoring":
            result[section] = merge(settings, named(given) if isinstance(given, str) else given)
        elif isinstance(given, Mapping):
            result[section] = {**settings, **given}
    return result


def _without(settings: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != key}


def written_scorers(scoring: ItemScoring, recommender: str) -> dict[str, Any]:
    """Item scoring as a mapping which, over the recommender's defaults, gives the same again."""
    written: dict[str, Any] = {name: _without(part.flat(), "name") for name, part in scoring.scorers.items()}
    absent = [name for name in defaults_of(recommender).get("item_scoring", {}) if name not in written]
    return {**written, **dict.fromkeys(absent)}


def apply_overrides(raw: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Nested mappings with ``section.key=value`` texts applied; values are read as YAML.

    Paths go as deep as parts are nested (``objective.digits.label_smoothing=0``); a part of a list goes by its name or
    number (``model.branches.id.start=1``; ``model.branches.id=null`` takes it out). A part that gets another name starts
    from that part's own defaults; with another decoder, that holds for ``training.validation_decoding`` too. Of that one,
    a path changes one setting (``training.validation_decoding.beam=16``) and leaves the recommender's other defaults.

    Raises:
        RecipeError: overrides without ``=``, values that are not YAML, or settings of what has none.
    """
    pairs = [text.partition("=") for text in overrides]
    if wrong := [path for path, equals, _ in pairs if not equals]:
        raise RecipeError(f"an override is written section.key=value, found {', '.join(map(repr, wrong))}")
    result: Any = dict(raw)
    for path, _, text in sorted(pairs, key=lambda pair: len(_whole(split_path(pair[0])))):  # a part before its settings
        try:
            value = read_yaml(text)
        except YamlError as error:
            raise RecipeError(f"{path}: {text!r} is not a YAML value: {error}") from error
        before, keys = _name(result.get("decoding")), split_path(path)
        result = _assigned(_with_usual(result, keys), keys, value, path, text)
        if _name(result.get("decoding")) != before and isinstance(training := result.get("training"), Mapping):
            result["training"] = _without(training, "validation_decoding")  # it was meant for the other decoder
    return result


def _with_usual(raw: Mapping[str, Any], keys: Sequence[str]) -> Mapping[str, Any]:
    """The recipe with ``training.validation_decoding`` written out, where a path reaches into it and only defaults give it.

    A recipe that gives that mapping replaces the whole of it, since settings of another decoder are no use to it.
    """
    section, key = VALIDATION
    given = {} if raw.get(section) is None else raw[section]
    if tuple(keys[:-1]) != VALIDATION or not isinstance(given, Mapping) or key in given:
        return raw
    usual = with_defaults({**raw, section: given}, str(raw.get("recommender", USUAL))).get(section, {})
    return {**raw, section: {**given, key: usual.get(key, {})}}


def _name(part: Any) -> Any:
    part = named(part)
    return part.get("name") if isinstance(part, Mapping) else None


def split_path(path: str) -> list[str]:
    """The steps of a dotted path.

    >>> split_path("model.width"), split_path("item_scoring.lab.parts:Mine.weight")
    (['model', 'width'], ['item_scoring', 'lab.parts:Mine', 'weight'])
    """
    if (own := OWN_SCORER.fullmatch(path)) is not None:
        section, scorer, rest = own.groups()
        return [section, scorer, *(rest.split(".") if rest else [])]
    return path.split(".")


def _entry_named(keys: Sequence[str]) -> tuple[str, list[str]]:
    """Which part of a list is meant, whose class may be of a module with dots in its name, and what of it."""
    last = next((place for place, key in enumerate(keys) if ":" in key), 0)
    return ".".join(keys[: last + 1]), list(keys[last + 1 :])


def _whole(keys: list[str]) -> list[str]:
    """Where the part stands that a path names."""
    return keys[:-1] if keys[-1] == "name" else keys


def _assigned(node: Any, keys: Sequence[str], value: Any, path: str, text: str) -> Any:
    """What ``node`` is with a value at the path of ``keys`` in it."""
    if not keys:
        return value
    key, *rest = keys
    node = {} if node is None else named(node)
    if isinstance(node, list | tuple):
        key, rest = _entry_named(keys)
        return changed_entry(node, key, lambda entry: _assigned(entry, rest, value, path, text))
    if not isinstance(node, Mapping):
        above = path.removesuffix("." + ".".join(keys))
        raise RecipeError(f"{path}: {above!r} is a single setting, write {above}={text}")
    if key == "name" and not rest:
        return dict(node) if node.get("name") == value else {"name": value}
    return {**node, key: _assigned(node.get(key), rest, value, path, text)}
