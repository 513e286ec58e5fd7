"""Errors as problem details, RFC 9457, naming the fields that are wrong."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match, Mount

from diffgrm.foundation.model_keys import misspelt
from diffgrm.foundation.schema import DiffGRMError, ModelFolderError

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
MOST_ERRORS = 20  # of one request that are listed
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class FieldError(BaseModel):
    """What is wrong with one field of a request."""

    pointer: Annotated[
        str, Field(description="JSON pointer into the body, or the parameter's name", examples=["#/histories/0"])
    ]
    detail: str


class ProblemDetails(BaseModel):
    """RFC 9457 problem details."""

    model_config = ConfigDict(json_schema_extra={"description": "RFC 9457 problem details."})

    type: Annotated[str, Field(description="about:blank: the title says what the status means")] = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldError] = []


ERRORS = {
    400: "The body is not JSON",
    401: "No token, or a wrong one",
    403: "Changes are off",
    404: "No such item",
    408: "The body took too long to arrive",
    413: "The body is too large",
    421: "The request names a host that this server does not answer to",
    422: "A value that cannot be used; errors names the fields",
    503: "Too many requests are waiting, the model folder cannot be changed now, or the server ends",
    504: "The answer took too long",
}


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Errors of a route, for its OpenAPI description."""
    return {status: _described(ERRORS[status]) for status in statuses}


def _described(description: str) -> dict[str, Any]:
    schema = ProblemDetails.model_json_schema()
    schema.pop("$defs")
    schema["properties"]["errors"]["items"] = FieldError.model_json_schema()
    return {"description": description, "content": {MEDIA_TYPE: {"schema": schema}}}


BODY_ERRORS = problem_responses(400, 408, 413, 422)


class Problem(Exception):
    """A request that gets an error for an answer.

    Args:
        status: HTTP status.
        detail: what was expected, what was found, how to mend it.
        errors: pointer -> detail of single fields.
    """

    def __init__(
        self, status: int, detail: str, errors: Mapping[str, str] | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers
        self.errors = [FieldError(pointer=pointer, detail=what) for pointer, what in (errors or {}).items()]

    def response(self) -> JSONResponse:
        """As an HTTP answer."""
        content = ProblemDetails(
            title=HTTPStatus(self.status).phrase, status=self.status, detail=self.detail, errors=self.errors
        )
        return JSONResponse(content.model_dump(), self.status, headers=self.headers, media_type=MEDIA_TYPE)


def field_problem(pointer: str, detail: str) -> Problem:
    """A well-formed request with one value that cannot be used."""
    return Problem(422, detail, {pointer: detail})


def describe_problems(app: FastAPI) -> None:
    """Make every error of an app a problem; nothing of its inside is told."""

    @app.exception_handler(Problem)
    async def _problem(request: Request, error: Problem) -> JSONResponse:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        found = error.errors()
        body = request.scope["route"].body_field
        kind = None if body is None else body.field_info.annotation
        fields = {pointer_of(e["loc"]): _sentence(e, kind) for e in found[:MOST_ERRORS]}
        more = f" and {len(found) - MOST_ERRORS} more" if len(found) > MOST_ERRORS else ""
        detail = "; ".join(f"{pointer}: {what}" for pointer, what in fields.items()) + more
        return Problem(422, detail, fields).response()

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = _allowed(app, request)
            if request.method == "OPTIONS":
                return Response(status_code=204, headers=headers)
        return Problem(error.status_code, str(error.detail), headers=headers).response()

    @app.exception_handler(ModelFolderError)
    async def _folder(request: Request, error: ModelFolderError) -> JSONResponse:
        logger.error("%s", error)  # it names places of this machine, which are nobody's concern
        detail = "the model folder cannot be changed now; nothing has changed, and the server's log says why"
        return Problem(503, detail, headers={"Retry-After": "5"}).response()

    @app.exception_handler(OSError)
    async def _disk(request: Request, error: OSError) -> JSONResponse:
        logger.error("A file could not be read or written: %s", error)
        detail = "files of the server cannot be read or written now; nothing has changed, and the server's log says why"
        return Problem(503, detail, headers={"Retry-After": "5"}).response()

    @app.exception_handler(DiffGRMError)
    async def _ours(request: Request, error: DiffGRMError) -> JSONResponse:
        return Problem(422, str(error)).response()

    @app.exception_handler(Exception)
    async def _bug(request: Request, error: Exception) -> JSONResponse:
        return Problem(500, "the server failed to answer; its log says why").response()


def _allowed(app: FastAPI, request: Request) -> str:
    """The methods of a request's path; what is mounted is files."""
    found, scope = {"OPTIONS"}, request.scope
    scope = {**scope, "root_path": scope.get("app_root_path", scope.get("root_path", ""))}  # what was mounted changed it
    for method in METHODS:
        for route in app.routes:
            matches, _ = route.matches({**scope, "method": method})
            if matches == Match.FULL and not (isinstance(route, Mount) and method != "GET"):
                found.add(method)
    return ", ".join(method for method in METHODS if method in found or (method == "HEAD" and "GET" in found))


def pointer_of(location: Sequence[Any]) -> str:
    """``("body", "histories", 0)`` -> ``#/histories/0``; a parameter is its name.

    >>> pointer_of(("body", "histories", 0)), pointer_of(("query", "limit"))
    ('#/histories/0', 'limit')
    """
    place, *path = location
    if place != "body":
        return str(path[-1] if path else place)
    return "#" + "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _sentence(error: Mapping[str, Any], body: Any) -> str:
    """What a validator found, without echoing the value; ``body`` is the type of the body."""
    if error["type"] == "extra_forbidden":
        place = error["loc"]
        return f"there is no such field{misspelt(body, place[1:]) if place[0] == 'body' and len(place) > 1 else ''}"
    return str(error["msg"]).removeprefix("Value error, ")
