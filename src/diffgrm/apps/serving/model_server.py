"""What the routes of every server share: a model, its queue, bounds, metrics."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, ClassVar, Protocol

from prometheus_client import CollectorRegistry, Gauge, Histogram

from diffgrm.apps.serving.batching import Engine
from diffgrm.apps.serving.live_folder import LiveFolder, Version
from diffgrm.apps.serving.problems import field_problem
from diffgrm.apps.serving.quiet import keep_quiet
from diffgrm.apps.serving.settings import Bounds

# loggers of what any client can bring about
QUIET = (
    "diffgrm.apps.serving.items",
    "diffgrm.ranking.item_rules",
    "diffgrm.recommenders.query_network",
    "uvicorn.error",
    "asyncio",
)

logger = logging.getLogger(__name__)


class Widths(Protocol):
    """A request that may say how far to search."""

    beam: int | None
    candidates: int | None


class ModelServer:
    """What routes share: the model, its queue, bounds.

    Attributes:
        asked: what lists are made for, in words and in names of metrics.
    """

    asked: ClassVar[str]

    def __init__(self, live: LiveFolder[Any], limits: Bounds) -> None:
        self.live, self.limits = live, limits
        keep_quiet(*QUIET)
        self.registry = CollectorRegistry()
        sizes = Histogram(
            "diffgrm_batch_requests", "Requests answered together", registry=self.registry, buckets=(1, 2, 4, 8, 16, 32, 64)
        )
        self.engine = Engine(limits, sizes, self.asked)
        waits = f"{self.asked.capitalize()} that wait for the model"
        waiting = Gauge(f"diffgrm_waiting_{self.asked}", waits, registry=self.registry)
        waiting.set_function(lambda: self.engine.waiting)
        failed = Gauge("diffgrm_failed_reloads", "Models in the folder that could not be used", registry=self.registry)
        failed.set_function(lambda: live.failed_reloads)
        self._info = Gauge("diffgrm_model", "1 for the model that answers", ["version"], registry=self.registry)

    def begin(self) -> None:
        """Take requests; also those of an app that is started again after its end."""
        self.tell_version()
        self.engine.begin()

    def end(self) -> None:
        """Refuse what need not be answered any more, and all of it that comes."""

    async def close(self) -> None:
        """Answer what is waiting, then end."""
        await self.engine.close()

    def tell_version(self) -> None:
        """Put the model's version into the metrics."""
        self._info.clear()
        self._info.labels(self.live.current.version).set(1)

    async def watch(self) -> None:
        """Look for a newer model in the folder, again and again."""
        while True:
            await asyncio.sleep(self.limits.reload_seconds)
            try:
                if await asyncio.to_thread(self.live.refresh):
                    self.tell_version()
            except Exception:  # whatever it was: the next look may go well
                logger.exception("Looking for a newer model failed")

    # ---- checks ----------------------------------------------------------------------------------------------------

    def bound(self, pointer: str, value: int | None, limit: int, what: str) -> None:
        """Refuse a value above a bound.

        Raises:
            Problem: 422.
        """
        if value is not None and value > limit:
            raise field_problem(f"#/{pointer}", f"{what} is {value:,}; this server allows at most {limit:,}")

    def check_k(self, snapshot: Version[Any], k: int) -> None:
        """Refuse a k that cannot be had.

        Raises:
            Problem: 422.
        """
        self.bound("k", k, self.limits.k, "k")
        self.bound("k", k, len(snapshot.titles), "k (the catalogue's size)")

    def width(self, snapshot: Version[Any], body: Widths) -> str | None:
        """The width of the search that a request asks for, see :meth:`Version.with_width`.

        Raises:
            Problem: 422, above a bound, or none that the model's decoding has.
        """
        width = None
        for name, own in snapshot.widths.items():
            value: int | None = getattr(body, name)
            self.bound(name, value, getattr(self.limits, name), name)
            if value is not None and own is None:
                raise field_problem(f"#/{name}", _no_width(snapshot, name))
            width = width if value is None else f"decoding.{name}={value}"
        return width


def _no_width(snapshot: Version[Any], name: str) -> str:
    """Why a model cannot be asked for a beam or candidates, and for what instead."""
    recipe = snapshot.model.recipe
    if "decoding" not in recipe.sections:
        return f"the recommender {recipe.recommender!r} has no {name}; leave it out"
    instead = [f"send {other} instead" for other, own in snapshot.widths.items() if own is not None]
    return f"the model's decoding {recipe.decoding.name!r} has no {name}; {instead[0] if instead else 'leave it out'}"
