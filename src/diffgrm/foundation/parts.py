"""Parts as values: a chosen class and its settings, which may be parts again.

A constructor says that it takes parts like this, and turns what it gets into :class:`Part` objects, so that names and plain
mappings do where it is called from Python::

    def __init__(
        self,
        digits: Annotated[PartLike, PartOf("objective"), "how digits are learnt"] = "diffusion",
        branches: Annotated[PartsLike, PartsOf("branch"), "what an item's vector is the sum of"] = ("sid",),
    ) -> None:
        self.digits = as_part("objective", digits).build()
        self.branches = [branch.build(width=8) for branch in as_parts("branch", branches)]
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from diffgrm.foundation import registry
from diffgrm.foundation.meant import as_meant
from diffgrm.foundation.moved import moved
from diffgrm.foundation.part_settings import Local, PartsOf, Setting
from diffgrm.foundation.part_settings import PartOf as PartOf  # named here for constructors
from diffgrm.foundation.schema import RecipeError, did_you_mean, ordinary, readable
from diffgrm.foundation.storage import content_digest


@dataclass(frozen=True)
class Part:
    """A chosen class and its settings: ``{"name": "opq", "n_digits": 4}``.

    Attributes:
        kind: in the registry.
        name: a registered one, or ``module:Class``.
        options: every setting, checked; nested parts are Parts.
    """

    kind: str
    name: str
    options: dict[str, Any]

    def build(self, **supplied: Any) -> Any:
        """Construct the part; ``supplied`` are the arguments that the caller, not the recipe, gives.

        A ``seed`` is given only to parts that take one.
        """
        part = registry.resolve(self.kind, self.name)
        if "seed" not in inspect.signature(part).parameters:
            supplied.pop("seed", None)
        return part(**self.options, **supplied)

    @property
    def usual(self) -> dict[str, Any]:
        """The settings where nothing is said."""
        return {key: setting.default for key, setting in registry.settings(self.kind, self.name).items()}

    def with_nested(self) -> Iterator[Part]:
        """This part and all that are nested in it."""
        return (part for _, part in self.with_paths(""))

    def with_paths(self, path: str) -> Iterator[tuple[str, Part]]:
        """The same with where each stands in the recipe, if this part stands at ``path``."""
        yield path, self
        for key, option in self.options.items():
            several = isinstance(option, tuple)
            for inner in option if several else (option,):
                if isinstance(inner, Part):
                    yield from inner.with_paths(f"{path}.{key}.{inner.name}" if several else f"{path}.{key}")

    def portable(self) -> Part:
        """The part without what means something on one machine only, nor of the parts that are nested in it."""
        return self._changed(lambda local, value: None if local.holds(value) else value)

    def located(self, folder: Path) -> Part:
        """The part, and those nested in it, with paths that are relative to a folder.

        A name that may be something else than a path (``Local(paths=True)``) is left as it is.
        """
        return self._changed(lambda local, value: value if local.paths else _in_folder(folder, value))

    def files(self) -> list[Path]:
        """The files and folders that this part, and those nested in it, are told to read, as far as they are there."""
        found: list[Path] = []

        def noted(local: Local, value: Any) -> Any:
            texts = [text for text in (value if isinstance(value, tuple) else (value,)) if isinstance(text, str)]
            found.extend(Path(text) for text in texts if local.holds(text) and os.path.lexists(text))
            return value

        self._changed(noted)
        return found

    def by_content(self) -> Part:
        """The part, and those nested in it, with digests of files and folders in place of their paths, for identities."""
        return self._changed(lambda local, value: _by_content(value))

    def _changed(self, change: Callable[[Local, Any], Any]) -> Part:
        """The part with a change of every setting that means something on one machine only, and of nested parts."""

        def changed(setting: Setting, value: Any) -> Any:
            if isinstance(value, Part):
                return value._changed(change)
            if isinstance(setting.nested, PartsOf):
                return tuple(part._changed(change) for part in value)
            return value if setting.local is None else change(setting.local, value)

        known = registry.settings(self.kind, self.name)
        return replace(self, options={key: changed(known[key], value) for key, value in self.options.items()})

    def flat(self) -> dict[str, Any]:
        """Name and settings as one mapping, as YAML shows them; nested parts as short as they can be."""
        return {"name": self.name, **{key: plain(value) for key, value in self.options.items()}}


def _in_folder(folder: Path, value: Any) -> Any:
    """A path, or several, as they lie in a folder; anything else as it is."""
    if isinstance(value, tuple):
        return tuple(_in_folder(folder, entry) for entry in value)
    return str(folder / value) if isinstance(value, str) else value


def _by_content(value: Any) -> Any:
    """A digest of what lies at a path, or at several; anything else as it is."""
    if isinstance(value, tuple):
        return tuple(_by_content(entry) for entry in value)
    found = None if not isinstance(value, str) else content_digest(Path(value))
    return value if found is None else f"content {found}"


PartLike = Part | str | Mapping[str, Any]  # what stands for a part: itself, its name, or a mapping with name and settings
PartsLike = Sequence[PartLike]


def plain(value: Any) -> Any:
    """A value as YAML has it: parts by name, where they have settings other than their defaults as mappings."""
    if isinstance(value, Part):
        return value.name if value == as_part(value.kind, value.name) else value.flat()
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def as_part(kind: str, raw: Any) -> Part:
    """A part from what stands for it: a Part, a name, or a mapping with ``name`` and settings.

    Raises:
        RecipeError: with every problem found.
    """
    return _checked(read_part(kind, raw, kind))


def as_parts(kind: str, raw: Any) -> tuple[Part, ...]:
    """Parts from a list of what stands for each; see :func:`as_part`.

    Raises:
        RecipeError: with every problem found.
    """
    return _checked(_read_parts(kind, raw, kind))


def _checked(found: tuple[Any, list[str]]) -> Any:
    value, problems = found
    if problems:
        raise RecipeError("\n".join(problems))
    return value


def read_part(kind: str, raw: Any, path: str) -> tuple[Part, list[str]]:
    """A part and the problems found (one line each).

    Args:
        path: where the part stands in the recipe, for the messages.
    """
    raw = named(raw)
    nothing = Part(kind, "", {})
    if not isinstance(raw, Mapping):
        return nothing, [f"{path}: expected a name or a mapping with 'name' and settings, found {raw!r}"]
    if "name" not in raw:
        return nothing, [f"{path}: which {kind}? Give its 'name': {', '.join(registry.names(kind))}, or module:Class"]
    name = str(raw["name"])
    options, problems = check_options(kind, name, {key: value for key, value in raw.items() if key != "name"}, path)
    return Part(kind, name, options), problems


def _read_parts(kind: str, raw: Any, path: str) -> tuple[tuple[Part, ...], list[str]]:
    if not isinstance(raw, list | tuple):
        return (), [f"{path}: expected a list of parts ({kind}), each a name or a mapping with 'name', found {raw!r}"]
    found = [read_part(kind, entry, f"{path}.{place}") for place, entry in enumerate(raw)]
    return tuple(part for part, _ in found), [problem for _, problems in found for problem in problems]


def check_options(kind: str, name: str, options: Mapping[str, Any], path: str) -> tuple[dict[str, Any], list[str]]:
    """Typed options with defaults filled in, and the problems found (one line each); see :func:`read_part`."""
    where = "" if path == kind else f"{path}: "
    try:
        known = registry.settings(kind, name)
    except RecipeError as error:
        return dict(options), [f"{where}{error}"]
    unknown = [str(key) for key in options if key not in known]
    problems = [f"{where}{kind} {name!r} has no setting {key!r}{_hint(kind, key, known, path)}" for key in unknown]
    values = {}
    for setting in known.values():
        if setting.name not in options and setting.default is inspect.Parameter.empty:
            problems.append(f"{where}{kind} {name!r} needs the setting {setting.name!r} ({setting.help})")
            continue
        raw = setting.default
        if setting.name in options:
            given = options[setting.name]
            raw = merge(raw, given) if setting.nested and isinstance(given, Mapping) else given
        values[setting.name], found = _read_value(setting, raw, f"{path}.{setting.name}")
        problems += found
    for whole, divisor in () if problems else registry.constant(kind, name, "multiples", ()):
        if whole in values and divisor in values and values[whole] % values[divisor]:
            problems.append(
                f"{path}.{whole} {values[whole]} is not a multiple of {path}.{divisor} {values[divisor]}; change either"
            )
    return values, problems


def _hint(kind: str, key: str, known: Mapping[str, Setting], path: str) -> str:
    """Where a setting went that a part does not have, what was meant by it, or what there is."""
    if went := moved(f"{kind}.{key}"):
        return went
    for setting in known.values():  # of the part inside, where that is the usual one
        inner, usual = setting.nested, setting.default
        if isinstance(inner, PartOf) and isinstance(usual, str) and key in registry.settings(inner.kind, usual):
            return f"; did you mean {f'{path}.{setting.name}.{key}'!r}?"
    return did_you_mean(key, known) if known else "; it has none"


def _read_value(setting: Setting, raw: Any, path: str) -> tuple[Any, list[str]]:
    if setting.nested is not None:
        return (_read_parts if isinstance(setting.nested, PartsOf) else read_part)(setting.nested.kind, raw, path)
    try:
        return ordinary(setting.adapter.validate_python(as_meant(raw, setting.hint))), []
    except ValidationError as error:
        reason = "; ".join(readable(e) for e in error.errors())
        return raw, [f"{path} = {raw!r}: {reason}"]
    except ValueError as error:
        return raw, [f"{path} = {raw!r}: {error}"]


def named(raw: Any) -> Any:
    """What stands for a part as a mapping with its name; anything else as it is."""
    if isinstance(raw, Part):
        return raw.flat()
    return {"name": raw} if isinstance(raw, str) else raw


def merge(base: Any, given: Any) -> Any:
    """Settings with others over them, at every depth.

    A mapping changes what it names: of a part, which starts anew where it gets another name; of a list of parts, by the
    name or the number of each (see :func:`changed_entry`). Anything else takes the place of what was there.

    >>> merge({"digits": "diffusion", "item_weight": 3.0}, {"digits": {"label_smoothing": 0}})
    {'digits': {'name': 'diffusion', 'label_smoothing': 0}, 'item_weight': 3.0}
    >>> merge(["text", "id"], {"id": {"start": 1.0}})
    ['text', {'name': 'id', 'start': 1.0}]
    """
    if not isinstance(given, Mapping):
        return given
    if isinstance(base, list | tuple):
        for key, value in given.items():
            base = changed_entry(base, str(key), partial(merge, given=value))
        return base
    base = named(base)
    if not isinstance(base, Mapping) or given.get("name", base.get("name")) != base.get("name"):
        return dict(given)
    return {**base, **{key: merge(base.get(key), value) for key, value in given.items()}}


def changed_entry(parts: Sequence[Any], key: str, change: Callable[[Any], Any]) -> list[Any]:
    """A list of parts with one of them changed: what has the number or the name ``key``, else a new one of that name.

    Args:
        change: gives the new entry; ``None`` takes it out, if there is one.

    Raises:
        RecipeError: none is there to take out, nor could one be: no part has this name.
    """
    places = {str(place): place for place in range(len(parts))}
    for place, entry in reversed(list(enumerate(map(named, parts)))):
        if isinstance(entry, Mapping):
            places[str(entry.get("name"))] = place
    entries = [*parts] if key in places else [*parts, {"name": key}]
    place = places.get(key, len(parts))
    before = named(entries[place])
    entries[place] = change(before)
    if entries[place] is None and key not in places and not registry.is_name(key):
        raise RecipeError(f"there is no part {key!r} to take out{did_you_mean(key, places)}")
    if isinstance(before, Mapping) and isinstance(entries[place], Mapping):  # the part it was, where nothing else is said
        entries[place] = {"name": before.get("name"), **entries[place]}
    return [entry for entry in entries if entry is not None]


def _name_problems(kind: str, name: str, path: str) -> list[str]:
    """What is wrong with the name of a part whose settings are not read."""
    try:
        registry.path_of(kind, name)
    except RecipeError as error:
        return [f"{path}: {error}"]
    return []


@dataclass(frozen=True)
class ItemScoring:
    """What an item's score is the sum of.

    Attributes:
        scorers: by name.
    """

    scorers: dict[str, Part]


def read_scorers(raw: Any) -> ItemScoring:
    """The scorers of a mapping from their names to their settings; one with ``None`` as its settings is left out.

    The name of one that is left out has to be one too.

    Raises:
        RecipeError: with every problem found.
    """
    if isinstance(raw, ItemScoring):
        return raw
    if not isinstance(raw, Mapping):
        raise RecipeError(f"item_scoring: expected a mapping from scorers to their settings, found {raw!r}")
    scorers, problems = {}, []
    for name, options in raw.items():
        path = f"item_scoring.{name}"
        if options is None:
            problems += _name_problems("scorer", str(name), path)
            continue
        if not isinstance(options, Mapping):
            problems.append(f"{path}: expected a mapping of its settings ({{}}: its defaults) or null, found {options!r}")
            continue
        values, found = check_options("scorer", str(name), options, path)
        scorers[str(name)] = Part("scorer", str(name), values)
        problems += found
    return _checked((ItemScoring(scorers), problems))
