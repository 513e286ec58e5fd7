"""Recipe: every setting of a run, once, typed and described; YAML in and out; dotted overrides.

A recipe is frozen. Plain sections (``data``, ``loss``, ``training``...) are listed here. A *part* section
(``embedding``, ``tokenizer``, ``model``, ``noising``, ``decoding``) has a ``name`` and that part's own settings,
which are the described arguments of its constructor (see :mod:`diffgrm.foundation.registry`).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from diffgrm.foundation import registry
from diffgrm.foundation.schema import RecipeError, bullet_list, did_you_mean


class Section(BaseModel):
    """A group of plain settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Part(BaseModel):
    """A chosen class and its settings: ``{"name": "opq", "n_digits": 4}``."""

    model_config = ConfigDict(frozen=True)
    name: str
    options: dict[str, Any]

    def build(self, kind: str, **supplied: Any) -> Any:
        """Construct the part; ``supplied`` are the arguments that the caller, not the recipe, gives.

        A ``seed`` is given only to parts that take one.
        """
        part = registry.resolve(kind, self.name)
        if "seed" not in inspect.signature(part).parameters:
            supplied.pop("seed", None)
        return part(**self.options, **supplied)

    def flat(self) -> dict[str, Any]:
        """Name and settings as one mapping, as YAML shows them."""
        return {"name": self.name, **self.options}


def _part(kind: str, default: str) -> BeforeValidator:
    def read(raw: Any) -> Part:
        if isinstance(raw, Part):
            raw = raw.flat()
        if isinstance(raw, str):
            raw = {"name": raw}
        if not isinstance(raw, Mapping):
            raise ValueError(f"expected a name or a mapping with 'name' and settings, found {raw!r}")
        raw = dict(raw)
        name = str(raw.pop("name", default))
        options, problems = registry.check_options(kind, name, raw)
        if problems:
            raise ValueError("\n".join(problems))
        return Part(name=name, options=options)

    return BeforeValidator(read)


class DataSettings(Section):
    """Which events are held out."""

    split: Literal["leave_one_out", "temporal", "validation_only"] = Field(
        "leave_one_out",
        description="leave_one_out: last event of a user is test, the one before validation; temporal: two cuts in time; "
        "validation_only: last event is validation and nothing is kept for test (for a model that goes to production)",
    )
    validation_share: float = Field(0.1, gt=0, lt=1, description="temporal: share of events between the two cuts")
    test_share: float = Field(0.1, gt=0, lt=1, description="temporal: share of events after the second cut")


class SemanticIdSettings(Section):
    """What happens when two items get the same digits."""

    collisions: Literal["reassign", "share"] = Field(
        "reassign",
        description="reassign: every item its own SID (fewest items moved, least extra error); share: several items may "
        "stand behind one SID",
    )


class LossSettings(Section):
    """How the losses of digits become one number, and what the loss over whole items counts for beside it."""

    reduction: Literal["view_mean", "token_mean"] = Field(
        "view_mean", description="view_mean: mean inside a view, then over views (paper); token_mean: all masked digits"
    )
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="probability mass spread over all codes of a digit")
    share: float = Field(
        1.0, gt=0, le=1, description="share of a step's histories whose digits are learnt; whole items are learnt from all"
    )
    item_weight: float = Field(
        0.0, ge=0, description="weight of the loss over whole items (item_loss) beside that of digits; 0: without (paper)"
    )


class ItemLossSettings(Section):
    """How whole items are told apart in training."""

    kind: Literal["softmax", "sampled_softmax", "bce", "gbce"] = Field(
        "softmax",
        description="softmax: over all items; sampled_softmax: over the target and negatives shared by the batch; bce: "
        "each target against negatives of its own; gbce: the same, calibrated for few negatives",
    )
    negatives: int = Field(256, ge=1, description="negatives: of a batch (sampled_softmax) or of each target (bce, gbce)")
    negative_power: float = Field(
        0.0, ge=0, le=1, description="negatives are drawn by training events to this power; 0: every item alike"
    )
    logq: bool = Field(True, description="sampled_softmax: correct scores for how often their item is drawn")
    calibration: float = Field(0.75, ge=0, le=1, description="gbce: t, from plain BCE (0) to fully calibrated (1)")
    cosine: bool = Field(False, description="compare directions only: scores are cosines over the temperature")
    temperature: float = Field(1.0, gt=0, description="scores are divided by it")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="softmax: probability mass spread over all items")


class TrainingSettings(Section):
    """The training loop."""

    batch_size: int = Field(256, ge=1, description="targets per optimiser step, over all devices together")
    epochs: int = Field(100, ge=1, description="most passes over the training targets; the cosine ends here")
    learning_rate: float = Field(1e-3, gt=0, description="peak learning rate of AdamW")
    weight_decay: float = Field(0.01, ge=0, description="AdamW weight decay on matrices (not on norms and biases)")
    warmup_steps: int = Field(500, ge=0, description="steps of linear warm-up")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="learning rate after the warm-up")
    gradient_clip: float = Field(1.0, ge=0, description="largest gradient norm; 0 turns clipping off")
    validate_every: int = Field(1, ge=1, description="epochs between validations (and checkpoints)")
    validation_users: int | None = Field(None, ge=1, description="validate on this many users, drawn once; null: all")
    validation_decoding: dict[str, Any] = Field(
        {}, description="decoding settings that differ during validation, for example {beam: 32}"
    )
    patience: int = Field(10, ge=1, description="validations without improvement before training stops")
    precision: Literal["auto", "32", "bf16"] = Field("auto", description="auto: bf16 on GPUs that have it, else 32-bit")
    compile: bool = Field(
        False, description="run the network through torch.compile: faster steps after minutes of compiling (long runs)"
    )
    accelerator: str = Field("auto", description="Lightning accelerator: auto, cpu, gpu...")
    devices: int = Field(1, ge=1, description="number of devices (processes)")
    strategy: str = Field("auto", description="Lightning strategy: auto, ddp...")
    loggers: tuple[Literal["csv", "tensorboard"], ...] = Field(
        ("csv",), description="where metrics of every epoch are written, in the run folder"
    )

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if self.epochs % self.validate_every:
            raise ValueError(
                f"training.epochs {self.epochs} is not a multiple of training.validate_every {self.validate_every}: the "
                "last epochs would never be validated, so never kept"
            )
        if self.batch_size < self.devices:
            raise ValueError(f"training.batch_size {self.batch_size} is less than training.devices {self.devices}")
        return self


class EvaluationSettings(Section):
    """What ``diffgrm evaluate`` reports."""

    ks: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (5, 10, 20), min_length=1, description="list lengths k of the metrics @k (10 is always among them)"
    )


class SettingRow(NamedTuple):
    """One line of the settings table."""

    path: str
    type: str
    default: Any
    help: str


PART_SECTIONS = ("embedding", "tokenizer", "model", "noising", "decoding")


class Recipe(BaseModel):
    """Every setting of a run.

    >>> recipe = Recipe(model={"width": 64}, seed=3)
    >>> recipe.model.options["width"], recipe.override(["model.width=32"]).model.options["width"]
    (64, 32)

    Raises:
        RecipeError: with every problem found, each with the known names or the nearest one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    recommender: str = Field("diffgrm", description="which recommender the recipe is for")
    seed: int = Field(0, ge=0, lt=2**31 - 2000, description="seed of everything that is drawn at random")
    data: DataSettings = DataSettings()  # type: ignore[call-arg]
    embedding: Annotated[Part, _part("embedding", "lsa")] = "lsa"  # type: ignore[assignment]
    tokenizer: Annotated[Part, _part("tokenizer", "opq")] = "opq"  # type: ignore[assignment]
    semantic_ids: SemanticIdSettings = SemanticIdSettings()  # type: ignore[call-arg]
    model: Annotated[Part, _part("model", "diffgrm")] = "diffgrm"  # type: ignore[assignment]
    noising: Annotated[Part, _part("noising", "confidence")] = "confidence"  # type: ignore[assignment]
    loss: LossSettings = LossSettings()  # type: ignore[call-arg]
    item_loss: ItemLossSettings = ItemLossSettings()  # type: ignore[call-arg]
    training: TrainingSettings = TrainingSettings()  # type: ignore[call-arg]
    decoding: Annotated[Part, _part("decoding", "any_order_beam")] = "any_order_beam"  # type: ignore[assignment]
    evaluation: EvaluationSettings = EvaluationSettings()  # type: ignore[call-arg]

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**_with_defaults(values))
        except ValidationError as error:
            raise RecipeError("the recipe has problems:\n" + bullet_list(_explain(error))) from None

    @model_validator(mode="after")
    def _check_validation_decoding(self) -> Self:
        overrides = self.training.validation_decoding
        _, problems = registry.check_options("decoding", self.decoding.name, self.decoding.options | overrides)
        if problems:
            raise ValueError("\n".join(f"training.validation_decoding: {p}" for p in problems))
        return self

    @model_validator(mode="after")
    def _check_sections(self) -> Self:
        try:
            used = self.sections
        except RecipeError as error:
            raise ValueError(str(error)) from None
        if idle := [s for s in type(self).model_fields if s in self.model_fields_set and s not in used]:
            raise ValueError(f"the recommender {self.recommender!r} does not use {', '.join(idle)}; leave it out")
        return self

    @property
    def sections(self) -> tuple[str, ...]:
        """The top-level settings that this recipe's recommender uses."""
        chosen: Any = registry.resolve("recommender", self.recommender)
        return ("recommender", "seed", "data", "evaluation", *chosen.sections)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """A recipe from nested mappings."""
        return cls(**{str(key): value for key, value in raw.items()})

    @classmethod
    def from_yaml(cls, path: str | Path, overrides: Iterable[str] = ()) -> Self:
        """A recipe from a YAML file, then ``section.key=value`` overrides.

        Raises:
            RecipeError: unreadable file, wrong YAML, or any wrong setting.
        """
        try:
            raw = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        except FileNotFoundError as error:
            raise RecipeError(f"there is no recipe file {path}") from error
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"the recipe file {path} cannot be read: {error}") from error
        except yaml.YAMLError as error:
            raise RecipeError(f"{path} is not YAML: {error}") from error
        if not isinstance(raw, dict):
            raise RecipeError(f"{path}: expected a mapping of sections, found {type(raw).__name__}")
        return cls.from_dict(apply_overrides(raw, overrides))

    def override(self, overrides: Iterable[str]) -> Self:
        """A copy with dotted overrides such as ``["model.width=128", "noising.name=random"]``."""
        return type(self).from_dict(apply_overrides(self.to_dict(), overrides))

    def to_dict(self) -> dict[str, Any]:
        """Plain nested mappings that :meth:`from_dict` reads back."""
        plain = {key: value for key, value in self.model_dump(mode="json").items() if key in self.sections}
        for section in (s for s in PART_SECTIONS if s in plain):
            plain[section] = {"name": plain[section]["name"], **plain[section]["options"]}
        return plain

    def to_yaml(self) -> str:
        """The whole recipe as YAML, every setting written out."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    @property
    def validation_decoder(self) -> Part:
        """The decoding part with ``training.validation_decoding`` applied."""
        wanted = self.decoding.options | self.training.validation_decoding
        return Part(name=self.decoding.name, options=registry.check_options("decoding", self.decoding.name, wanted)[0])

    def table(self) -> Iterator[SettingRow]:
        """Every setting of this recipe with its type, value and explanation."""
        for name, field in type(self).model_fields.items():
            if name not in self.sections:
                continue
            value = getattr(self, name)
            if isinstance(value, Part):
                known = ", ".join(registry.names(name))
                yield SettingRow(f"{name}.name", "text", value.name, f"which {name}: {known}, or module:Class")
                for setting in registry.settings(name, value.name).values():
                    yield SettingRow(f"{name}.{setting.name}", setting.type_name, value.options[setting.name], setting.help)
            elif isinstance(value, Section):
                for key, inner in type(value).model_fields.items():
                    type_name = registry.readable_type(inner.annotation)
                    yield SettingRow(f"{name}.{key}", type_name, getattr(value, key), inner.description or "")
            else:
                yield SettingRow(name, registry.readable_type(field.annotation), value, field.description or "")


def _with_defaults(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a recipe, with the settings that its recommender has instead of the usual ones where none are given.

    Those of a part hold only for the part of that name.
    """
    try:
        chosen: Any = registry.resolve("recommender", str(values.get("recommender", "diffgrm")))
    except RecipeError:
        return values  # said with the other problems
    for section, settings in getattr(chosen, "defaults", {}).items():
        given = values.get(section, {})
        given = {"name": given} if isinstance(given, str) else given
        if isinstance(given, Mapping) and given.get("name", settings.get("name")) == settings.get("name"):
            values = {**values, section: {**settings, **given}}
    return values


def rows_of_other_parts(recipe: Recipe) -> Iterator[SettingRow]:
    """The settings of every registered part that a recipe does not use; the help begins with the part's name."""
    for kind in PART_SECTIONS:
        for name in registry.names(kind):
            if name != getattr(recipe, kind).name:
                for setting in registry.settings(kind, name).values():
                    help_text = f"[{name}] {setting.help}"
                    yield SettingRow(f"{kind}.{setting.name}", setting.type_name, setting.default, help_text)


def apply_overrides(raw: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Nested mappings with ``section.key=value`` texts applied; values are read as YAML.

    A part that gets another name starts from that part's own defaults; with another decoder, that holds for
    ``training.validation_decoding`` too.

    Raises:
        RecipeError: an override without ``=`` or with more than one dot.
    """
    result = {key: dict(value) if isinstance(value, Mapping) else value for key, value in raw.items()}
    overrides = list(overrides)
    wrong = [text for text in overrides if "=" not in text]
    if wrong:
        raise RecipeError(f"an override is written section.key=value, found {wrong[0]!r}")
    pairs = [tuple(text.split("=", 1)) for text in overrides]
    for path, text in sorted(pairs, key=lambda pair: not pair[0].endswith(".name")):  # names first
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise RecipeError(f"{path}: {text!r} is not a YAML value") from error
        section, _, key = path.partition(".")
        if not key:
            result[section] = value
            continue
        inner = result.setdefault(section, {})
        if isinstance(inner, str):
            inner = {"name": inner}
        if not isinstance(inner, dict):
            raise RecipeError(f"{path}: {section!r} is a single setting, write {section}={text}")
        changed = key == "name" and inner.get("name") != value
        result[section] = {"name": value} if changed else {**inner, key: value}
        if changed and section == "decoding" and isinstance(result.get("training"), dict):
            result["training"].pop("validation_decoding", None)  # it was meant for the other decoder
    return result


def _explain(error: ValidationError) -> list[str]:
    """Pydantic's errors as lines that name the setting and the way out."""
    lines = []
    for item in error.errors():
        path = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            section = item["loc"][0] if len(item["loc"]) > 1 else None
            known = Recipe.model_fields if section is None else _section_fields(str(section))
            lines.append(f"there is no setting {path!r}{did_you_mean(str(item['loc'][-1]), known)}")
        elif item["type"] == "value_error":
            lines += str(item["ctx"]["error"]).split("\n")
        else:
            lines.append(f"{path} = {item['input']!r}: {item['msg']}")
    return lines


def _section_fields(section: str) -> Iterable[str]:
    annotation = Recipe.model_fields[section].annotation
    return annotation.model_fields if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []
