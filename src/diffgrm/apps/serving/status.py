"""Routes for whoever looks after the server."""

from __future__ import annotations

from fastapi import APIRouter

from diffgrm.apps.serving import messages as m
from diffgrm.apps.serving.model_server import ModelServer
from diffgrm.apps.serving.problems import problem_responses
from diffgrm.apps.serving.server import Server
from diffgrm.apps.serving.strict import StrictRoute
from diffgrm.recommenders import Recommender
from diffgrm.recommenders.capabilities import Explains


def status(server: ModelServer) -> APIRouter:
    """Health and readiness."""
    router = APIRouter(tags=["server"])

    @router.get("/health")  # probes may send parameters of their own, here and below
    async def health() -> m.Status:
        """The process answers."""
        return m.Status()

    @router.get("/ready", responses=problem_responses(503))
    async def ready() -> m.Ready:
        """The model is loaded and the queue has room."""
        server.engine.check_room()
        return m.Ready(model=server.live.current.version)

    return router


def about(server: Server) -> APIRouter:
    """The recommender."""
    router = APIRouter(route_class=StrictRoute, tags=["server"], responses=problem_responses(422))

    @router.get("/model")
    def model() -> m.ModelAnswer:
        """What answers, and what it allows."""
        snapshot = server.live.current
        saved: Recommender = snapshot.saved
        return m.ModelAnswer(
            model=snapshot.version,
            recommender=saved.recipe.recommender,
            items=len(saved.items),
            recommendable=int(saved.recommendable.sum()),
            catalogue_version=saved.facts.get("catalogue_version", 0),
            explains=isinstance(saved, Explains),
            **snapshot.widths,
            told=m.Told.of(saved.recipe.events),
            limits=server.limits.model_dump(),
            facts=saved.facts,
        )

    return router
