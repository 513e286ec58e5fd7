"""The section ``events`` of a recipe: which rows of an interaction table are events, and what models are told of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import numpy as np
import polars as pl
from pydantic import BeforeValidator, Field, model_validator

from diffgrm.foundation.schema import Columns, bullet_list
from diffgrm.foundation.sections import Section

ColumnName = Annotated[str | None, Field(min_length=1)]


def spelled_value(value: Any) -> str | None:
    """A value of a category as text: whole numbers without a fraction, which a gap in their column may have given them.

    >>> spelled_value(5.0), spelled_value("5.0"), spelled_value(0.00001), spelled_value(True), spelled_value(None)
    ('5', '5.0', '0.00001', 'true', None)
    """
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    if isinstance(value, float | np.floating):
        return pl.Series([value]).cast(pl.String)[0].removesuffix(".0")  # as a column of them is spelled
    return None if value is None else str(value)


def _spelled(value: object) -> object:
    """Categories that are numbers or truth values by their spelling, as those of a table are compared."""
    if isinstance(value, list | tuple):
        return tuple(spelled_value(one) if isinstance(one, bool | int | float) else one for one in value)
    return value


Types = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_spelled)]
Values = Annotated[
    dict[Annotated[str, Field(min_length=1)], Annotated[Types, Field(min_length=1, max_length=1000)]], Field()
]
TimeInput = Literal["gap", "recency", "hour", "weekday"]
CLOCK: tuple[TimeInput, ...] = ("hour", "weekday")


class EventSettings(Section):
    """How the rows of an interaction table are read; columns are named as the table names them.

    The same settings read what a model learns from and the histories that it is asked with, so they stand in its recipe.
    """

    event: ColumnName = Field(None, description="column of the type of each event (view, purchase...); null: all are alike")
    targets: Types = Field((), description="event: types that are learnt, recommended and measured, for example [purchase]")
    context: Types = Field(
        (), description="event: types that histories hold besides and that are never targets, for example [view, dislike]"
    )
    seen: Types | None = Field(
        None, description="event: types by which an item counts as seen and is left out of lists; null: all of them"
    )
    type_input: bool = Field(True, description="event: networks know of each event of a history what type it is")
    rating: ColumnName = Field(None, description="column of ratings that events are chosen by; null: none")
    min_rating: float | None = Field(None, description="rating: rows below it, or without a rating, are dropped")
    weight: ColumnName = Field(
        None,
        description="column of what each event counts for in losses and in counts (ratings, for example); only "
        "ratios matter; null: all count alike",
    )
    repeats: Literal["keep", "first", "last", "consecutive"] = Field(
        "keep",
        description="events of one user with the same item and type: keep all; only the first or the last of them; "
        "consecutive: the first of those that stand one behind the other",
    )
    session: ColumnName = Field(None, description="column of the session that each event is of; null: none")
    history: Literal["session", "user"] = Field(
        "session",
        description="session: every session is a history of its own; user: a user's sessions one behind the other, so that "
        "the newest has the older ones before it",
    )

    time_inputs: tuple[TimeInput, ...] = Field(
        (),
        description="what networks know of the times of a history: gap: from the event before each; recency: to the moment "
        "asked for; hour, weekday: on the clock, of each event and of that moment; []: their order only",
    )
    time_unit: Literal["s", "ms", "us", "ns", "day"] = Field(
        "s", description="time_inputs: unit of timestamps that are numbers (hours and weekdays count from 1970)"
    )
    utc_offset: float = Field(
        0.0, ge=-12, le=14, description="time_inputs hour, weekday: hours by which the users' clock is ahead of UTC"
    )
    event_columns: Values = Field(
        {},
        description="columns of categories of the events that networks know, with the values that are told apart, for "
        "example {device: [phone, desktop]}; all others are one value",
    )
    user_columns: Values = Field(
        {},
        description="columns of categories in the table of users (profiles) that networks know, with the values that are "
        "told apart, for example {plan: [free, paid]}; all others are one value",
    )

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        """Refuse what contradicts itself, or does nothing."""
        problems, default = [], type(self).model_fields
        for key, needed in (("min_rating", "rating"), ("rating", "min_rating"), ("history", "session")):
            if getattr(self, key) != default[key].default and getattr(self, needed) is None:
                problems.append(f"events.{key} = {getattr(self, key)} does nothing without events.{needed}; {MEND[key]}")
        if self.event is None:
            problems += [
                f"events.{key} = {value} does nothing without events.event, the column of the types; name it, or leave "
                f"events.{key} out"
                for key in ("targets", "context", "seen", "type_input")
                if (value := getattr(self, key)) != default[key].default
            ]
        elif not self.targets:
            problems.append("events.targets is empty: name the types of events.event to learn, for example [purchase]")
        if twice := sorted({one for one in self.types if self.types.count(one) > 1}):
            problems.append(f"events.targets and events.context name {twice[0]!r} twice; every type is one or the other")
        if strange := [one for one in self.seen or () if one not in self.types]:
            problems.append(
                f"events.seen names {strange[0]!r}, which is neither in events.targets nor in events.context, so that "
                "histories never hold it; add it to one of them, or leave it out"
            )
        problems += self._input_problems()
        if problems:
            raise ValueError(bullet_list(problems).removeprefix("  - ").replace("\n  - ", "\n"))
        return self

    def _input_problems(self) -> list[str]:
        """What is wrong with settings of what networks are told besides types."""
        problems = []
        if self.time_unit != "s" and not self.time_inputs:
            problems.append(f"events.time_unit = {self.time_unit} does nothing without events.time_inputs; leave it out")
        if self.utc_offset and not set(CLOCK) & set(self.time_inputs):
            problems.append(
                f"events.utc_offset = {self.utc_offset:g} does nothing without hour or weekday in events.time_inputs; "
                "leave it out"
            )
        if twice := sorted({one for one in self.time_inputs if self.time_inputs.count(one) > 1}):
            problems.append(f"events.time_inputs names {twice[0]!r} twice; once is enough")
        if self.time_inputs and self.history == "user" and self.session is not None:
            problems.append(
                "events.time_inputs needs histories in order of time, and events.history=user puts whole sessions one "
                "behind the other; set events.history=session, or leave one of them out"
            )
        ids = (Columns.USER, Columns.ITEM, Columns.TIMESTAMP)
        for key in ("event_columns", "user_columns"):
            problems += [
                f"events.{key} names {column!r}, which is no column of categories; leave it out"
                for column in getattr(self, key)
                if column in ids
            ]
            for column, named in getattr(self, key).items():
                if twice := sorted({one for one in named if named.count(one) > 1}):
                    problems.append(f"events.{key} names the value {twice[0]!r} of {column!r} twice; once is enough")
        if self.event is not None and self.event in self.event_columns:
            problems.append(
                f"events.event_columns names {self.event!r}, the column of the types (events.event), which networks know "
                "already (events.type_input); leave it out"
            )
        return problems

    @property
    def types(self) -> tuple[str, ...]:
        """All types that are kept, by their number: targets first."""
        return *self.targets, *self.context

    @property
    def n_inputs(self) -> int:
        """How many types networks tell apart; 0: none."""
        return len(self.types) if self.type_input else 0

    def __hash__(self) -> int:  # of mappings too
        return hash(self.model_dump_json())

    @property
    def tells_context(self) -> bool:
        """Whether networks are told of times, or of columns of events or users."""
        return bool(self.time_inputs or self.event_columns or self.user_columns)

    @property
    def asks_when(self) -> bool:
        """Whether it counts at which moment a recommendation is asked for."""
        return bool({"recency", *CLOCK} & set(self.time_inputs))

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the table that are read besides those of users, items and times."""
        named = (self.event, self.rating, self.weight, self.session, *self.event_columns)
        return tuple(dict.fromkeys(name for name in named if name is not None))

    @property
    def said(self) -> dict[str, Any]:
        """What is not as usual, as YAML has it."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def of_histories(self, columns: tuple[str, ...]) -> Self:
        """How histories that a model is asked with are read: ratings and sessions need not be there, weights say nothing.

        Args:
            columns: of their table.
        """
        absent: dict[str, Any] = {"weight": None}
        if self.rating not in columns:
            absent |= {"rating": None, "min_rating": None}
        if self.session not in columns:
            absent |= {"session": None, "history": "session"}
            if self.history == "user":  # in histories of several sessions, within which repeats would be told
                absent |= {"repeats": "keep"}
        return self.model_copy(update=absent)


MEND = {
    "min_rating": "name the column of the ratings, or leave it out",
    "rating": "say from which rating on, or weigh by ratings with events.weight",
    "history": "name the column of the sessions, or leave it out",
}
