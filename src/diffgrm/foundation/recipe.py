"""Recipe: every setting of a run, once, typed and described; YAML in and out; dotted overrides.

A recipe is frozen. Plain sections (``data``, ``training``...) are in :mod:`diffgrm.foundation.sections`. A *part* section
(``embedding``, ``tokenizer``, ``model``, ``objective``, ``noising``, ``decoding``) has a ``name`` and that part's own
settings, which are the described arguments of its constructor (see :mod:`diffgrm.foundation.registry`) and may be parts
again. ``item_scoring`` has one entry a scorer. No part is imported by reading a recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, ValidationError

from diffgrm.foundation import registry
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.moved import SECTIONS, moved
from diffgrm.foundation.overrides import PART_SECTIONS, apply_overrides, with_defaults, written_scorers
from diffgrm.foundation.part_settings import PartsOf, readable_type
from diffgrm.foundation.parts import ItemScoring, Part, as_part, check_options, merge, named, read_scorers
from diffgrm.foundation.presets import USUAL, defaults_of, is_preset, preset_names, preset_text
from diffgrm.foundation.schema import RecipeError, bullet_list, did_you_mean, idle, readable
from diffgrm.foundation.sections import (
    DataSettings,
    DocumentSettings,
    EvaluationSettings,
    ItemLossSettings,
    RetrievalSettings,
    Section,
    Seed,
    SemanticIdSettings,
    TrainingSettings,
)
from diffgrm.foundation.yaml_text import YamlError, read_yaml, text_of


class SettingRow(NamedTuple):
    """One line of the settings table."""

    path: str
    type: str
    default: Any
    help: str


def _part(kind: str, default: str) -> PlainValidator:
    """Reads a section that is a part; settings without a name are those of the default."""

    def read(raw: Any) -> Part:
        raw = named(raw)
        return as_part(kind, {"name": default, **raw} if isinstance(raw, Mapping) else raw)

    return PlainValidator(read)


def _is_recommender(name: str) -> str:
    registry.constant(registry.door(name), name, "sections", ())
    return name


class Recipe(BaseModel):
    """Every setting of a run.

    >>> recipe = Recipe(model={"width": 64}, seed=3)
    >>> recipe.model.options["width"], recipe.override(["model.width=32"]).model.options["width"]
    (64, 32)

    A section that is None (``null``) is left out.

    Raises:
        RecipeError: with every problem found, each with the known names or the nearest one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    recommender: Annotated[str, AfterValidator(_is_recommender)] = Field(
        USUAL, description="which recommender the recipe is for; documents: a retriever of documents"
    )
    seed: Seed = Field(0, description="seed of everything that is drawn at random")
    data: DataSettings = DataSettings()  # type: ignore[call-arg]
    events: EventSettings = EventSettings()  # type: ignore[call-arg]
    embedding: Annotated[Part, _part("embedding", "lsa")] = "lsa"  # type: ignore[assignment]
    tokenizer: Annotated[Part, _part("tokenizer", "opq")] = "opq"  # type: ignore[assignment]
    semantic_ids: SemanticIdSettings = SemanticIdSettings()  # type: ignore[call-arg]
    model: Annotated[Part, _part("model", "diffgrm")] = "diffgrm"  # type: ignore[assignment]
    objective: Annotated[Part, _part("objective", "diffusion")] = "diffusion"  # type: ignore[assignment]
    noising: Annotated[Part, _part("noising", "confidence")] = "confidence"  # type: ignore[assignment]
    item_loss: ItemLossSettings = ItemLossSettings()  # type: ignore[call-arg]
    item_scoring: Annotated[ItemScoring, PlainValidator(read_scorers)] = ItemScoring({})
    retrieval: RetrievalSettings = RetrievalSettings()  # type: ignore[call-arg]
    training: TrainingSettings = TrainingSettings()  # type: ignore[call-arg]
    decoding: Annotated[Part, _part("decoding", "any_order_beam")] = "any_order_beam"  # type: ignore[assignment]
    evaluation: EvaluationSettings = EvaluationSettings()  # type: ignore[call-arg]
    documents: DocumentSettings = DocumentSettings()  # type: ignore[call-arg]

    def __init__(self, **values: Any) -> None:
        fields = type(self).model_fields
        values = {section: value for section, value in values.items() if value is not None or section not in fields}
        try:
            super().__init__(**with_defaults(values, str(values.get("recommender", USUAL))))
            problems = [*self._validation_problems(), *self._idle_problems(values)]
        except ValidationError as error:
            problems = explained(error)
        if problems:
            raise RecipeError("the recipe has problems:\n" + bullet_list(problems)) from None

    def _validation_problems(self) -> list[str]:
        if "decoding" not in self.sections and self.training.validation_decoding:
            return [
                f"training.validation_decoding: the recommender {self.recommender!r} decodes nothing; leave it out, or {{}}"
            ]
        wanted = merge(self.decoding.options, self.training.validation_decoding)
        return check_options("decoding", self.decoding.name, wanted, "training.validation_decoding")[1]

    def _idle_problems(self, given: Mapping[str, Any]) -> list[str]:
        used = self.sections
        idle = [section for section in type(self).model_fields if section in given and section not in used]
        objective = f" with the objective {self.objective.name!r}" if "objective" in used else ""
        return [
            f"the recommender {self.recommender!r}{objective} does not use {', '.join(idle)}; leave it out, or null"
        ] * bool(idle)

    def refuse_idle(self) -> None:
        """Refuse settings that have been changed and do nothing beside the others.

        It is asked before anything is made by the recipe, not on reading: a model that was fitted with such settings can be
        loaded.

        Raises:
            RecipeError: with every such setting, and with what it would do something.
        """
        if problems := self.idle_settings():
            raise RecipeError("the recipe has problems:\n" + bullet_list(problems))

    def idle_settings(self) -> list[str]:
        """What is wrong with every setting that has been changed and does nothing beside the others."""
        problems, usual = [], defaults_of(self.recommender)
        for section in self.sections:
            value, said = getattr(self, section), usual.get(section, {})
            if isinstance(value, Section):
                known = {key: field.default for key, field in type(value).model_fields.items()}
                problems += idle(section, value.only_with, value.model_dump(), known, said)
            elif isinstance(value, Part):
                for path, part in value.with_paths(section):
                    meant = said if part is value and said.get("name") == part.name else {}
                    problems += _idle_of_part(path, part, meant)
            elif isinstance(value, ItemScoring):
                for scorer, whole in value.scorers.items():
                    for path, part in whole.with_paths(f"{section}.{scorer}"):
                        problems += _idle_of_part(path, part, said.get(scorer) or {} if part is whole else {})
        if "training" in self.sections and "decoding" in self.sections:
            said = defaults_of(self.recommender).get("training", {}).get("validation_decoding", {})
            decoder = self.validation_decoder
            known = {**self.decoding.options, **(said if isinstance(said, Mapping) else {})}
            problems += _idle_of_part("training.validation_decoding", decoder, known)
        return problems

    @property
    def sections(self) -> tuple[str, ...]:
        """The top-level settings that this recipe's recommender, objective and model use."""
        door = registry.door(self.recommender)
        used = {"recommender", "seed", *registry.constant(door, self.recommender, "sections", ())}
        used |= {"data", "events", "evaluation"} if door == "recommender" else set()
        for part in (self.model, self.objective):
            if part.kind in used:
                for inner in part.with_nested():
                    used.update(registry.constant(inner.kind, inner.name, "sections", ()))
        return tuple(section for section in type(self).model_fields if section in used)

    def portable(self) -> Self:
        """The recipe without what means something on this machine only, for model folders."""
        return type(self).from_dict(self._with_parts(Part.portable))

    def located(self, folder: Path) -> Self:
        """The recipe with the relative paths of its files taken from a folder, such as that of the file it stands in."""
        return type(self).from_dict(self._with_parts(lambda part: part.located(folder)))

    def files(self) -> list[Path]:
        """The files and folders that its parts are told to read, as far as they are there."""
        whole = [part for section in self.sections for part in _whole_parts(getattr(self, section))]
        return [path for part in whole for path in part.files()]

    def by_content(self) -> dict[str, Any]:
        """Plain nested mappings as :meth:`to_dict` gives, but files by what they hold, so that they may lie anywhere."""
        return self._with_parts(Part.by_content)

    def _with_parts(self, change: Callable[[Part], Part]) -> dict[str, Any]:
        """The same with a change of every part that is a section, or a scorer in one."""
        written = self.to_dict()
        for section in written:
            value = getattr(self, section)
            if isinstance(value, Part):
                written[section] = change(value).flat()
            elif isinstance(value, ItemScoring):
                changed = ItemScoring({name: change(part) for name, part in value.scorers.items()})
                written[section] = written_scorers(changed, self.recommender)
        return written

    @property
    def own_classes(self) -> tuple[str, ...]:
        """What the recipe names as ``module:Class``, outside the registry; reading the recipe imports it."""
        used = [getattr(self, section) for section in self.sections]
        named = {(part.kind, part.name) for value in used for part in _parts_in(value)} | {
            (registry.door(self.recommender), self.recommender)
        }
        return tuple(sorted(name for kind, name in named if name not in registry.names(kind)))

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """A recipe from nested mappings."""
        return cls(**{str(key): value for key, value in raw.items()})

    @classmethod
    def preset(cls, name: str, overrides: Iterable[str] = ()) -> Self:
        """A recipe that ships with the package, such as ``"best"``, then ``section.key=value`` overrides.

        Raises:
            RecipeError: no such recipe, or wrong overrides.
        """
        return cls.from_dict(apply_overrides(_mapping(preset_text(name), name), overrides))

    @classmethod
    def from_yaml(cls, path: str | Path, overrides: Iterable[str] = ()) -> Self:
        """A recipe from a YAML file, then ``section.key=value`` overrides.

        Args:
            path: the file, or the name of a recipe that ships with the package (see :meth:`preset`).

        Raises:
            RecipeError: unreadable file, wrong YAML, or any wrong setting.
        """
        return cls.from_dict(apply_overrides(read_sections(path), overrides))

    def override(self, overrides: Iterable[str]) -> Self:
        """A copy with dotted overrides such as ``["model.width=128", "objective.digits.label_smoothing=0"]``."""
        return type(self).from_dict(apply_overrides(self.to_dict(), overrides))

    def to_dict(self) -> dict[str, Any]:
        """Plain nested mappings that :meth:`from_dict` reads back."""
        written: dict[str, Any] = {}
        for section in self.sections:
            value = getattr(self, section)
            if isinstance(value, ItemScoring):
                written[section] = written_scorers(value, self.recommender)
            elif isinstance(value, Part):
                written[section] = value.flat()
            else:
                written[section] = value.model_dump(mode="json") if isinstance(value, Section) else value
        return written

    def to_yaml(self) -> str:
        """The whole recipe as YAML, every setting written out."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    @property
    def validation_decoder(self) -> Part:
        """The decoding part with ``training.validation_decoding`` applied."""
        return as_part("decoding", merge(self.decoding.flat(), self.training.validation_decoding))

    def table(self) -> Iterator[SettingRow]:
        """Every setting of this recipe with its type, value and explanation."""
        for name in self.sections:
            field, value = type(self).model_fields[name], getattr(self, name)
            if isinstance(value, Part):
                yield from _part_rows(name, value, f"which {value.kind}")
            elif isinstance(value, ItemScoring):
                what = (
                    "what an item's score is the sum of, {SCORER: settings}, fitted for a decoder that uses it, now or "
                    "later; null as settings takes a scorer out"
                )
                yield SettingRow(name, "scorers", list(value.scorers), f"{what}: {_known('scorer')}")
                for scorer, part in value.scorers.items():
                    yield from _option_rows(f"{name}.{scorer}", part)
            elif isinstance(value, Section):
                for key, inner in type(value).model_fields.items():
                    type_name = readable_type(inner.annotation)
                    yield SettingRow(f"{name}.{key}", type_name, getattr(value, key), inner.description or "")
            else:
                yield SettingRow(name, readable_type(field.annotation), value, field.description or "")


def _idle_of_part(path: str, part: Part, meant: Mapping[str, Any]) -> list[str]:
    """What is wrong with settings of a part that do nothing beside its others; ``meant``: those of its recommender."""
    rules, not_with = (registry.constant(part.kind, part.name, name, ()) for name in ("only_with", "not_with"))
    return idle(path, rules, part.options, part.usual, meant, not_with=not_with)


def read_sections(path: str | Path) -> dict[str, Any]:
    """What a recipe file says, section by section; arguments and errors as of :meth:`Recipe.from_yaml`."""
    if is_preset(path):
        return _mapping(preset_text(str(path)), path)
    try:
        text = text_of(Path(path))
    except FileNotFoundError as error:
        hint = f"; that recipe ships with diffgrm: give its name, {Path(path).stem}"
        raise RecipeError(f"there is no recipe file {path}{hint * (Path(path).stem in preset_names())}") from error
    except (OSError, YamlError) as error:
        raise RecipeError(f"the recipe file {path} cannot be read: {error}") from error
    return _mapping(text, path)


def rows_of_other_parts(recipe: Recipe) -> Iterator[SettingRow]:
    """The settings of every registered part that a recipe does not use; the help begins with the part's name."""
    for section in PART_SECTIONS:
        chosen: Part = getattr(recipe, section)
        for name in _others(section, [chosen.name]):
            yield from _rows_of_class(section, section, name)
        for key, setting in registry.settings(section, chosen.name).items():
            if isinstance(setting.nested, PartsOf):
                kind = setting.nested.kind
                for name in _others(kind, [part.name for part in chosen.options[key]]):
                    yield from _rows_of_class(f"{section}.{key}.{name}", kind, name)
    for name in _others("scorer", recipe.item_scoring.scorers):
        yield from _rows_of_class(f"item_scoring.{name}", "scorer", name)


def _others(kind: str, used: Iterable[str]) -> list[str]:
    return [name for name in registry.names(kind) if name not in set(used)]


def _rows_of_class(path: str, kind: str, name: str) -> Iterator[SettingRow]:
    for setting in registry.settings(kind, name).values():
        yield SettingRow(f"{path}.{setting.name}", setting.type_name, setting.default, f"[{name}] {setting.help}")


def _part_rows(path: str, part: Part, what: str) -> Iterator[SettingRow]:
    yield SettingRow(f"{path}.name", "text", part.name, f"{what}: {_known(part.kind)}")
    yield from _option_rows(path, part)


def _option_rows(path: str, part: Part) -> Iterator[SettingRow]:
    for key, setting in registry.settings(part.kind, part.name).items():
        value, inner = part.options[key], f"{path}.{key}"
        if isinstance(value, Part):
            yield from _part_rows(inner, value, setting.help)
        elif isinstance(setting.nested, PartsOf):
            text = f"{setting.help}: {_known(setting.nested.kind)}"
            yield SettingRow(inner, setting.type_name, [entry.name for entry in value], text)
            for entry in value:
                yield from _option_rows(f"{inner}.{entry.name}", entry)
        else:
            yield SettingRow(inner, setting.type_name, value, setting.help)


def _known(kind: str) -> str:
    return f"{', '.join(registry.names(kind))}, or module:Class"


def _parts_in(value: Any) -> Iterator[Part]:
    """All parts of a section: one, several, those of item scoring, and what is nested in them; of other values none."""
    for part in _whole_parts(value):
        yield from part.with_nested()


def _whole_parts(value: Any) -> list[Part]:
    """The parts that a section is, or has."""
    parts = value.scorers.values() if isinstance(value, ItemScoring) else value if isinstance(value, tuple) else (value,)
    return [part for part in parts if isinstance(part, Part)]


def _mapping(text: str, source: str | Path) -> dict[str, Any]:
    """The sections of a recipe's YAML."""
    try:
        raw = read_yaml(text)
    except YamlError as error:
        raise RecipeError(f"{source} cannot be read as YAML: {error}") from error
    if raw is None:  # an empty file, or comments only: all the defaults
        return {}
    if not isinstance(raw, dict):
        raise RecipeError(f"{source}: expected a mapping of sections, found {type(raw).__name__}")
    return raw


def explained(error: ValidationError, of: type[BaseModel] | None = None) -> list[str]:
    """Pydantic's errors as lines that name the setting and the way out; ``of``: what was read, if no recipe."""
    lines = []
    for item in error.errors():
        path = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden" and path in SECTIONS and isinstance(old := item["input"], Mapping) and old:
            lines += [f"there is no setting {f'{path}.{key}'!r}{moved(f'{path}.{key}')}" for key in old]
        elif item["type"] == "extra_forbidden" and path == "choose":
            lines.append("choose: says what diffgrm tune may choose, and a fit has one value a setting; leave it out")
        elif item["type"] == "extra_forbidden":
            section = item["loc"][0] if len(item["loc"]) > 1 else None
            fields = (of or Recipe).model_fields
            known = fields if section is None else _fields_of(fields[str(section)].annotation)
            lines.append(f"there is no setting {path!r}{did_you_mean(str(item['loc'][-1]), known)}")
        elif item["type"] == "value_error":
            where = f"{path}: " if of is not None and path else ""  # what is wrong with a recipe names its settings itself
            lines += [f"{where}{line}" for line in str(item["ctx"]["error"]).split("\n")]
        else:
            lines.append(f"{path} = {item['input']!r}: {readable(item)}")
    return lines


def _fields_of(annotation: Any) -> Iterable[str]:
    return annotation.model_fields if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []
