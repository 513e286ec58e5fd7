"""How settings are chosen: what may be chosen among (``choose:`` of suites and of ``diffgrm tune``), and by what.

choose:
  model.dropout: [0.2, 0.3, 0.5]                          # one of these; any values, parts with their settings too
  model.width: {min: 32, max: 128, step: 32}              # whole numbers, since all that is said is whole
  training.learning_rate: {min: 0.0003, max: 0.01, log: true}
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, StrictBool, ValidationError, model_validator

from diffgrm.data.dataset import Split
from diffgrm.evaluation.metrics import evaluate, selection_score
from diffgrm.foundation.overrides import split_path
from diffgrm.foundation.parts import named
from diffgrm.foundation.schema import RecipeError, readable
from diffgrm.recommenders.base import Recommender

Number = int | float  # pydantic leaves whole numbers whole
MOST = 1e300  # of a number of a range, so that their differences are numbers too
MOST_STEPS = 10_000
INCOMPARABLE = ("data", "events", "evaluation", "training.validation_users")  # what scores on validation must agree in


class Range(BaseModel):
    """Numbers from ``min`` to ``max``, both included: whole ones where all that is said of them is whole.

    Attributes:
        log: drawn evenly by their logarithm.
        step: only ``min``, ``min + step`` and so on; None: any number, or any whole one, between.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    min: Number
    max: Number
    log: StrictBool = False
    step: Annotated[Number, Field(gt=0)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _check_kinds(cls, raw: Any) -> Any:
        """True is no number here, as little as it is in a recipe."""
        if isinstance(raw, Mapping) and any(isinstance(raw.get(key), bool) for key in ("min", "max", "step")):
            raise ValueError("min, max and step are numbers, such as {min: 0.1, max: 0.5}")
        return raw

    @model_validator(mode="after")
    def _check_ends(self) -> Range:
        if max(abs(self.min), abs(self.max)) > MOST:
            raise ValueError(f"expected numbers from -{MOST:g} to {MOST:g}, found min {self.min} and max {self.max}")
        if not self.min < self.max:
            raise ValueError(f"expected min < max, found min {self.min} and max {self.max}")
        if self.log and self.min <= 0:
            raise ValueError(f"log needs min > 0, found {self.min}")
        if self.log and self.step is not None:
            raise ValueError("log and step do not go together; leave one out")
        if self.step is not None:
            if self.step > 2 * (self.max - self.min):
                raise ValueError(f"a step of {self.step} leads from {self.min} beyond {self.max}")
            steps = (self.max - self.min) / self.step
            if steps > MOST_STEPS:
                raise ValueError(f"{steps:,.0f} steps; expected at most {MOST_STEPS:,}")
            if abs(steps - round(steps)) > 1e-6:
                raise ValueError(f"steps of {self.step} do not lead from {self.min} to {self.max}")
        return self

    @property
    def whole(self) -> bool:
        """Whether its numbers are whole."""
        return all(isinstance(number, int) for number in (self.min, self.max, 1 if self.step is None else self.step))

    def values(self) -> list[Any]:
        """All of its numbers; none where it has no step, so that there is no end of them.

        >>> Range(min=0.1, max=0.3, step=0.1).values(), Range(min=0.1, max=0.3).values()
        ([0.1, 0.2, 0.3], [])
        """
        if self.step is None:
            return []
        count = round((self.max - self.min) / self.step) + 1
        if self.whole:
            return [self.min + number * self.step for number in range(count)]
        return [float(f"{self.min + number * self.step:.12g}") for number in range(count)]


def read_options(raw: Any) -> Options:
    """What a setting may be, as ``choose:`` says it.

    Raises:
        ValueError: neither a list of values nor a range.
    """
    if isinstance(raw, Range):
        return raw
    if isinstance(raw, list) and raw:
        try:
            return json.loads(json.dumps(raw))  # as files have them: tuples are lists
        except TypeError as error:
            raise ValueError(f"a value is neither text, number, list nor mapping ({error}); quote a date") from None
    if not isinstance(raw, Mapping):
        raise ValueError(f"expected a list of values, or a range such as {{min: 0.1, max: 0.5}}, found {raw!r}")
    try:
        return Range.model_validate(raw)
    except ValidationError as error:
        problems = {": ".join([*map(str, found["loc"][:1]), readable(found)]) for found in error.errors()}
        raise ValueError("; ".join(sorted(problems))) from None


Options = list[Any] | Range
Choose = dict[str, Annotated[Options, PlainValidator(read_options)]]  # dotted setting -> what it may be


def combinations(choose: Mapping[str, Options]) -> list[dict[str, Any]]:
    """Every combination of settings, as dotted overrides; one empty one where nothing is chosen.

    Args:
        choose: of lists, and ranges with a step.
    """
    values = [options if isinstance(options, list) else options.values() for options in choose.values()]
    return [dict(zip(choose, found, strict=True)) for found in itertools.product(*values)]


def without_end(choose: Mapping[str, Options]) -> list[str]:
    """The settings whose values cannot be counted up."""
    return [key for key, options in choose.items() if isinstance(options, Range) and not options.values()]


def incomparable(choose: Mapping[str, Options]) -> list[str]:
    """The settings under ``choose:`` by which scores on validation would be of different things.

    >>> incomparable({"training": [{"epochs": 1}, {"validation_users": 5}], "model.width": [8], "evaluation.ks": [[5]]})
    ['training.validation_users', 'evaluation.ks']
    """
    found = []
    for key, options in choose.items():
        for other in INCOMPARABLE:
            inner = other.removeprefix(f"{key}.")
            if key == other or key.startswith(f"{other}."):
                found.append(key)
            elif inner != other and any(isinstance(one, Mapping) and inner in one for one in _listed(options)):
                found.append(other)
    return found


def overlapping(choose: Mapping[str, Options]) -> list[tuple[str, str]]:
    """Settings under ``choose:`` that stand in a value of another one too, each with that one.

    >>> overlapping({"item_loss": ["softmax", {"kind": "bce", "negatives": 8}], "item_loss.negatives": [16]})
    [('item_loss.negatives', 'item_loss')]
    """
    found = []
    for outer, inner in itertools.permutations(choose, 2):
        above, steps = split_path(outer), split_path(inner)
        within = steps[: len(above)] == above
        if within and any(holds(value, steps[len(above) :]) for value in _listed(choose[outer])):
            found.append((inner, outer))
    return found


def holds(settings: object, steps: Sequence[str]) -> bool:
    """Whether nested settings have what stands at a path; a part of a list goes by its name or number.

    >>> holds({"branches": [{"name": "id", "start": 1}]}, ["branches", "id", "start"])
    True
    """
    return any(True for _ in _at(settings, steps))


def undoes(key: str, settings: Mapping[str, Any]) -> bool:
    """Whether a choice of a dotted setting would leave nothing of what nested settings say there.

    A whole entry of a list of parts, or a whole scorer, is chosen about what is said of it, as where it may be left out.

    >>> said = {"model": {"width": 8, "branches": ["id", "text"]}}
    >>> undoes("model.width", said), undoes("model.branches.text", said)
    (True, False)
    """
    *above, last = split_path(key)
    in_list = any(isinstance(parts, list) for parts in _at(settings, above))
    return not in_list and above != ["item_scoring"] and holds(settings, [*above, last])


def _at(settings: object, steps: Sequence[str]) -> Iterator[object]:
    """What stands at a path in nested settings."""
    if not steps:
        yield settings
        return
    settings, (first, *rest) = named(settings), steps
    if isinstance(settings, Mapping) and first in settings:
        yield from _at(settings[first], rest)
    for place, part in enumerate(map(named, settings)) if isinstance(settings, list) else ():
        if first == str(place) or (isinstance(part, Mapping) and part.get("name") == first):
            yield from _at(part, rest)


def _listed(options: Options) -> list[Any]:
    return options if isinstance(options, list) else []


def as_overrides(choice: Mapping[str, Any]) -> list[str]:
    """Chosen settings as overrides of a recipe.

    >>> as_overrides({"model.width": 32, "decoding": {"name": "one_pass"}})
    ['model.width=32', 'decoding={"name": "one_pass"}']
    """
    return [f"{key}={json.dumps(value)}" for key, value in choice.items()]


def checked(choices: Iterable[dict[str, Any]], build: Callable[[dict[str, Any]], Any]) -> list[str]:
    """What is wrong with choices, each problem once, with the first choice that has it.

    Args:
        build: makes a recipe of a choice.
    """
    problems: dict[str, str] = {}
    for choice in choices:
        try:
            build(choice)
        except RecipeError as error:
            problems.setdefault(str(error), ", ".join(as_overrides(choice)))
    return [f"{choice}: {problem}" for problem, choice in problems.items()]


def validation_score(recommender: Recommender, split: Split, anew: bool = False) -> float:
    """0.8 NDCG@10 + 0.2 Recall@10 on validation, history filtered: what training found, else found now.

    Args:
        anew: do not take what training found, because it holds for other late settings.
    """
    if not anew and (validation := recommender.facts.get("validation")):
        return float(validation["val_score"])
    metrics = evaluate(recommender, split.validation, split.dataset.items, split.item_counts).metrics
    return selection_score(metrics["ndcg@10"], metrics["recall@10"])
