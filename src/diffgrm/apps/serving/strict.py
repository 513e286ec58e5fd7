"""Routes that take what they know and nothing else: query parameters by name, each once; bodies that are one JSON value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel

from diffgrm.apps.serving.problems import MOST_ERRORS, Problem, field_problem
from diffgrm.foundation.plain_values import LONGEST_ID, read_json
from diffgrm.foundation.schema import did_you_mean


class StrictRoute(APIRoute):
    """A route that refuses parameters that it does not have or that stand twice, and bodies that are not JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See FastAPI."""
        handler, known = super().get_route_handler(), self._parameters()

        async def strict(request: Request) -> Response:
            _check_parameters(request, known)
            if self.body_field is None:
                return await handler(request)
            return await handler(_Read(request, await request.body()))

        return strict

    def _parameters(self) -> list[str]:
        """Names of the query parameters."""
        names: list[str] = []
        for field in self.dependant.query_params:
            kind: Any = field.field_info.annotation
            is_model = isinstance(kind, type) and issubclass(kind, BaseModel)
            names += list(kind.model_fields) if is_model else [field.alias]
        return names


class _Read(Request):
    """A request whose body has been read, as bytes and as JSON."""

    def __init__(self, request: Request, body: bytes) -> None:
        super().__init__(request.scope, request.receive)
        self._body, self._value = body, _value(request.headers.get("content-type", ""), body)

    async def json(self) -> Any:
        """The body's value."""
        return self._value


def _check_parameters(request: Request, known: list[str]) -> None:
    given = Counter(name for name, _ in request.query_params.multi_items())
    wrong = {
        name: "stands more than once; give it once"
        if name in known
        else f"there is no such parameter{did_you_mean(name, known) if known else '; this route has none'}"
        for name, times in given.items()
        if times > 1 or name not in known
    }
    if wrong:
        few = dict(list(wrong.items())[:MOST_ERRORS])
        raise Problem(422, "; ".join(f"{name[:LONGEST_ID]}: {what}" for name, what in few.items()), few)


def _value(kind: str, body: bytes) -> Any:
    """A body's value.

    Raises:
        Problem: 400, it is not JSON; 422, it does not say that it is.
    """
    if not body.strip():
        raise Problem(400, "the body is not JSON: it is empty; send an object")
    media = kind.partition(";")[0].strip().lower()
    if not (media == "application/json" or (media.startswith("application/") and media.endswith("+json"))):
        found = f"{kind[:60]!r}" if kind else "nothing"
        raise field_problem("Content-Type", f"is {found}; send the body with Content-Type: application/json (curl: --json)")
    try:
        return read_json(body)
    except ValueError as error:
        raise Problem(400, f"the body is not JSON: {error}") from None
