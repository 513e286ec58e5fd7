"""What the routes of recommendations share: the model, its queue, users' histories, limits."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import polars as pl
from prometheus_client import Gauge

from diffgrm.apps.serving import messages as m
from diffgrm.apps.serving.changing import Changes
from diffgrm.apps.serving.live import LiveModel, Snapshot, UserHistories
from diffgrm.apps.serving.model_server import ModelServer
from diffgrm.apps.serving.problems import Problem, field_problem
from diffgrm.apps.serving.settings import Limits
from diffgrm.data.asking import moment_of
from diffgrm.data.histories import HistoryEvent
from diffgrm.data.marks import PLAIN
from diffgrm.data.profiles import profile_table, read_profiles
from diffgrm.foundation.schema import Columns, DataError
from diffgrm.ranking.item_rules import check_columns
from diffgrm.ranking.rules import Rules, read_rules
from diffgrm.recommenders import Recommender

SHORTEST_TOKEN = 16
MAKE_TOKEN = "python -c 'import secrets; print(secrets.token_urlsafe())'"
Filter = tuple[Any, ...] | None
"""Item ids, or None for no filter."""


def usable_token(token: str) -> str:
    """A token that can be sent in a header and is long enough.

    Raises:
        DataError: it is not.
    """
    if not (token.isascii() and token.isprintable()) or token != token.strip():
        raise DataError(
            "the token has characters that clients do not send alike in an HTTP header; use letters, digits and signs of "
            f"ASCII, for example those of: {MAKE_TOKEN}"
        )
    if len(token) < SHORTEST_TOKEN:
        raise DataError(
            f"the token has {len(token)} characters; use {SHORTEST_TOKEN} at least, for example those of: {MAKE_TOKEN}"
        )
    return token


class Server(ModelServer):
    """A recommender, whose catalogue may be changed, and histories of its users."""

    asked: ClassVar[str] = "histories"
    live: LiveModel
    limits: Limits

    def __init__(self, live: LiveModel, limits: Limits, token: str | None, users: UserHistories | None) -> None:
        self.token = None if token is None else usable_token(token)
        super().__init__(live, limits)
        self.users, self.changes = users, Changes(limits)
        items = Gauge("diffgrm_items", "Items that may be recommended", registry=self.registry)
        items.set_function(lambda: int(live.current.model.recommendable.sum()))

    def begin(self) -> None:
        """See :meth:`ModelServer.begin`."""
        super().begin()
        self.changes.begin()

    def end(self) -> None:
        """Refuse changes; the one under way is finished."""
        self.changes.end()

    async def close(self) -> None:
        """See :meth:`ModelServer.close`."""
        self.changes.close()
        await super().close()

    async def change(self, change: Callable[[Recommender], Recommender]) -> m.CatalogueAnswer:
        """Change the catalogue.

        Raises:
            Problem: see :meth:`Changes.run`.
            DiffGRMError: see :meth:`LiveModel.change`.
        """
        after = await self.changes.run(lambda: self.live.change(change))
        self.tell_version()
        recommender = after.saved
        return m.CatalogueAnswer(
            model=after.version,
            catalogue_version=recommender.facts.get("catalogue_version", 0),
            items=len(recommender.items),
            recommendable=int(recommender.recommendable.sum()),
        )

    # ---- checks ----------------------------------------------------------------------------------------------------

    def filters(self, snapshot: Snapshot, body: m.RecommendRequest) -> tuple[Filter, Filter]:
        """``only`` and ``without`` of known items.

        Raises:
            Problem: 422, also where no item is left.
        """
        recommender, found = snapshot.model, []
        allowed = recommender.recommendable.copy()
        for name, ids in (("only", body.only), ("without", body.without)):
            self.bound(name, None if ids is None else len(ids), self.limits.filter, f"the number of items in {name}")
            positions = recommender.items.positions(ids or [])
            named = np.zeros(len(allowed), dtype=bool)
            named[positions[positions >= 0]] = True
            if ids and not named.any():
                raise field_problem(f"#/{name}", "names no item of the catalogue")
            if ids is not None:
                allowed &= named if name == "only" else ~named
                if not allowed.any():
                    raise field_problem(f"#/{name}", "leaves no item that may be recommended")
            found.append(None if ids is None else tuple(i for i, p in zip(ids, positions, strict=True) if p >= 0))
        return found[0], found[1] or None

    def rules(self, snapshot: Snapshot, body: m.RecommendRequest) -> Rules | None:
        """The rules of a request, or the server's own where it says none; they look no deeper than the server lets them.

        Raises:
            Problem: 422, above a bound, or by columns that the item table has not.
        """
        rules = self.live.rules if body.rules is None else read_rules(body.rules)
        if rules is None:
            return None
        if body.rules is not None:
            self.bound("rules", rules.size, self.limits.filter, "the number of ids and values in rules")
            for name in rules.model_fields_set & {"depth", "deepest"}:
                self.bound(f"rules/{name}", getattr(rules, name), self.limits.deepest, name)
            with _pointing_at("#/rules"):
                check_columns(rules, snapshot.model.item_table)
        return rules if rules.deepest is not None else rules.model_copy(update={"deepest": self.limits.deepest})

    def besides(self, snapshot: Snapshot, body: m.RecommendRequest, histories: list[list[Any]]) -> dict[str, Any]:
        """The moment asked for and what is known of users, which go with histories of known items.

        It is tried here, since requests are answered together, and what is wrong with one must not end the others.

        Raises:
            Problem: 422, also where what the model is told of the events is missing or wrong.
        """
        recommender, profiles = snapshot.model, body.profiles
        events, count = recommender.recipe.events, len(body.histories or body.users or [])
        if profiles is not None and len(profiles) != count:
            raise field_problem("#/profiles", f"holds {len(profiles)} profiles for {count} histories; send one for each")
        if profiles is None and body.users is not None and recommender.profiles is not None:
            users = pl.Series(body.users)
            known = profile_table(users, recommender.profiles.of(users), events)
            profiles = [dict(row) for row in known.drop(Columns.USER).to_dicts()]
        at = self.moment(snapshot, body.at)
        told = any(isinstance(entry, HistoryEvent) for row in histories for entry in row)
        if told or events != PLAIN or at is not None or profiles is not None:
            given = {number: row for number, row in enumerate(profiles or []) if histories[number]}
            with _pointing_at("#/histories" if body.users is None else "#/users"):
                recommender.read_histories([row for row in histories if row], on_empty="skip", at=at)
            with _pointing_at("#/profiles"):
                if given:
                    read_profiles(given, events)
        return {"at": at, "profiles": profiles}

    def moment(self, snapshot: Snapshot, at: str | int | float | None) -> datetime.datetime | None:
        """The moment that a request asks for, the same one for all that is asked for its answer; None: it says none.

        Raises:
            Problem: 422.
        """
        if at is None:
            return None
        with _pointing_at("#/at"):
            return moment_of(at, snapshot.model.recipe.events)

    def histories(self, snapshot: Snapshot, body: m.RecommendRequest) -> tuple[list[Any], list[list[Any]]]:
        """Users and their histories.

        Raises:
            Problem: 422.
        """
        if body.histories is not None:
            self.bound("histories", len(body.histories), self.limits.histories, "the number of histories")
            if not body.histories:
                raise field_problem("#/histories", "holds no history")
            for number, history in enumerate(body.histories):
                self.bound(f"histories/{number}", len(history), self.limits.history, "the length of the history")
            return list(range(len(body.histories))), body.histories
        users = body.users or []
        if self.users is None:
            raise field_problem("#/users", "this server was started without --interactions; send histories instead")
        self.bound("users", len(users), self.limits.histories, "the number of users")
        if not users:
            raise field_problem("#/users", "names no user")
        found = self.users.of(users, self.limits.history, snapshot.model.recipe.events)
        unknown = {f"#/users/{number}": "is not a known user" for number, history in enumerate(found) if history is None}
        if unknown:
            raise Problem(422, f"{len(unknown)} users are unknown; send their histories instead", unknown)
        return users, [history for history in found if history is not None]


@contextmanager
def _pointing_at(pointer: str) -> Iterator[None]:
    """Let what is wrong with data in the block be a problem of a field.

    Raises:
        Problem: 422.
    """
    try:
        yield
    except DataError as error:
        raise field_problem(pointer, str(error)) from error
