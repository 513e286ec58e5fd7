"""Routes for the items; what changes them is behind the token."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from itertools import islice
from typing import Annotated, Any

import numpy as np
import polars as pl
from fastapi import APIRouter, Depends, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from diffgrm.apps.semantic_ids import semantic_ids_of
from diffgrm.apps.serving import messages as m
from diffgrm.apps.serving.live import Snapshot
from diffgrm.apps.serving.problems import BODY_ERRORS, MOST_ERRORS, Problem, pointer_of, problem_responses
from diffgrm.apps.serving.server import Server
from diffgrm.apps.serving.strict import StrictRoute
from diffgrm.data.conversions import column_of_kind, misfit
from diffgrm.data.ids import spelled
from diffgrm.data.tables import clean_text
from diffgrm.foundation.schema import Columns, did_you_mean

logger = logging.getLogger(__name__)

BEARER = HTTPBearer(auto_error=False, description="The server's token")


def catalogue(server: Server) -> APIRouter:
    """Find items, and change them."""
    router = APIRouter(route_class=StrictRoute, tags=["catalogue"])

    def with_token(request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]) -> None:
        if server.token is None:
            raise Problem(403, "changes are off: start the server with DIFFGRM_TOKEN or --token-file")
        given = credentials.credentials if credentials else ""
        if not secrets.compare_digest(given.encode(), server.token.encode()):
            if given:
                logger.warning(
                    "A wrong token came from %s", request.client.host if request.client else "an unknown address"
                )
            raise Problem(401, "a valid bearer token is needed", headers={"WWW-Authenticate": "Bearer"})

    guarded: dict[str, Any] = {
        "dependencies": [Depends(with_token)],
        "responses": BODY_ERRORS | problem_responses(401, 403, 503, 504),
        "tags": ["catalogue"],
    }

    @router.get("/items", responses=problem_responses(422))
    def find(asked: Annotated[m.ItemsQuery, Query()]) -> m.ItemsAnswer:
        """Items by the words of their titles, most frequent first."""
        snapshot = server.live.current
        rows = _search(snapshot, asked.query)
        return m.ItemsAnswer(
            model=snapshot.version, total=len(rows), items=[_item(snapshot, row) for row in rows[: asked.limit].tolist()]
        )

    @router.get("/items/{item_id:path}", responses=problem_responses(404, 422))
    def details(item_id: str) -> m.ItemDetails:
        """All that is known of an item."""
        snapshot = server.live.current
        row = int(snapshot.model.items.positions([item_id])[0])
        if row < 0:
            raise Problem(404, "there is no such item")
        sids = semantic_ids_of(snapshot.saved)
        return m.ItemDetails(
            **_item(snapshot, row).model_dump(),
            row=snapshot.saved.item_table.row(row, named=True),
            semantic_id=None if sids is None else sids.codes[row].tolist(),
        )

    @router.post("/items", status_code=201, **guarded)
    async def add(body: m.NewItems) -> m.CatalogueAnswer:
        """Add items, which can be recommended at once, without training."""
        table = _table(server, body, known=False)
        return await server.change(lambda recommender: recommender.add_items(table))

    @router.put("/items", **guarded)
    async def update(body: m.ChangedItems) -> m.CatalogueAnswer:
        """Change the rows of known items."""
        table = _table(server, body, known=True)
        return await server.change(lambda recommender: recommender.update_items(table, body.semantic_ids))

    @router.post("/items/remove", **guarded)
    async def remove(body: m.ItemIds) -> m.CatalogueAnswer:
        """Recommend these items no more; histories may still hold them."""
        ids = _known(server, body)
        return await server.change(lambda recommender: recommender.remove_items(ids))

    @router.post("/items/restore", **guarded)
    async def restore(body: m.ItemIds) -> m.CatalogueAnswer:
        """Recommend removed items again."""
        ids = _known(server, body)
        return await server.change(lambda recommender: recommender.restore_items(ids))

    return router


def _table(server: Server, body: m.NewItems, known: bool) -> pl.DataFrame:
    """Rows as a table.

    Args:
        known: whether the catalogue must have the items already, or must not.

    Raises:
        Problem: 422.
    """
    server.bound("items", len(body.items), server.limits.changes, "the number of items")
    there = server.live.current.saved.items.positions([row.item_id for row in body.items]) >= 0
    what = "is not in the catalogue" if known else "is in the catalogue already"
    wrong = {f"#/items/{number}/{Columns.ITEM}": what for number in np.flatnonzero(there != known).tolist()}
    schema = server.live.current.saved.item_table.schema
    wrong = wrong | _unusable_rows(schema[Columns.ITEM], body)
    if wrong := wrong | _strange_columns(list(schema), body) | _unfit_values(schema, body):
        raise Problem(422, f"{len(wrong)} values of the rows cannot be used", wrong)
    more = [row.model_extra or {} for row in body.items]
    extra = {name: kind for name, kind in schema.items() if any(name in row for row in more)}
    return pl.DataFrame(
        [pl.Series(name, [str(getattr(row, name)) for row in body.items]) for name in (Columns.ITEM, Columns.TEXT)]
        + [column_of_kind(name, [row.get(name) for row in more], kind) for name, kind in extra.items()]
    )


def _strange_columns(known: list[str], body: m.NewItems) -> dict[str, str]:
    """Pointer -> what is wrong with columns that the item table does not have; each where it stands first."""
    first = {name: number for number, row in reversed(list(enumerate(body.items))) for name in row.model_extra or {}}
    strange = [name for name in first if name not in known][:MOST_ERRORS]
    return {
        pointer_of(("body", "items", first[name], name)): f"there is no such column{did_you_mean(name, known)}"
        for name in strange
    }


def _unusable_rows(kind: pl.DataType, body: m.NewItems) -> dict[str, str]:
    """Pointer -> what is wrong with ids of the catalogue's kind, and with texts, that no table of items has."""
    wrong, seen = dict[str, str](), set[str]()
    spellings = spelled([row.item_id for row in body.items], kind)
    for number, (row, spelling) in enumerate(zip(body.items, spellings, strict=True)):
        item, pointer = str(row.item_id), f"#/items/{number}/{Columns.ITEM}"
        if spelling is None:
            wrong[pointer] = "is no whole number as the ids of this catalogue are, written 7 and not 007 or +7"
        elif not item.strip():
            wrong[pointer] = "is empty; every item needs an id"
        elif item in seen:
            wrong[pointer] = "stands in another row too; send one row for each item"
        seen.add(item)
        if not clean_text(str(row.text)):
            wrong[f"#/items/{number}/{Columns.TEXT}"] = "holds no text; give at least a title, a category or the id"
    return dict(islice(wrong.items(), MOST_ERRORS))


def _unfit_values(schema: Mapping[str, pl.DataType], body: m.NewItems) -> dict[str, str]:
    """Pointer -> what is wrong with values that columns of the item table do not hold as they are."""
    found = (
        (pointer_of(("body", "items", number, name)), what)
        for number, row in enumerate(body.items)
        for name, value in (row.model_extra or {}).items()
        if name in schema and (what := misfit(value, schema[name]))
    )
    return dict(islice(found, MOST_ERRORS))


def _known(server: Server, body: m.ItemIds) -> list[Any]:
    """Ids, all of which the catalogue knows.

    Raises:
        Problem: 422.
    """
    server.bound("item_ids", len(body.item_ids), server.limits.changes, "the number of items")
    positions = server.live.current.model.items.positions(body.item_ids)
    if (positions < 0).any():
        wrong = {f"#/item_ids/{number}": "is not in the catalogue" for number in np.flatnonzero(positions < 0).tolist()}
        raise Problem(422, f"{len(wrong)} items are not in the catalogue", wrong)
    return body.item_ids


def _search(snapshot: Snapshot, query: str) -> np.ndarray:
    """Positions of the items whose title or id has all words of a query: that of this very id, then most frequent first."""
    found = np.ones(len(snapshot.words), dtype=bool)
    for word in query.lower().split():
        found &= snapshot.words.str.contains(word, literal=True).to_numpy()
    rows = np.flatnonzero(found)
    exact = snapshot.saved.items.positions([query.strip()])[0]
    return rows[np.lexsort([-snapshot.saved.item_counts[rows], rows != exact])]


def _item(snapshot: Snapshot, row: int) -> m.CatalogueItem:
    saved = snapshot.saved
    return m.CatalogueItem(
        item_id=saved.items.ids([row])[0],
        title=snapshot.titles[row],
        recommendable=bool(saved.recommendable[row]),
        events=int(saved.item_counts[row]),
    )
