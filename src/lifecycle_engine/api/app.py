"""The application: routes, errors and keys put together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI
from starlette.routing import Route
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from lifecycle_engine import __version__
from lifecycle_engine.api import changes, dead_letters, jobs, metrics, openapi, problems
from lifecycle_engine.api.customers import explanations, identities, journeys, mergers, overrides, standing
from lifecycle_engine.api.door.idempotency import pruned
from lifecycle_engine.api.door.load import Bounded
from lifecycle_engine.api.door.parameters import asked_once
from lifecycle_engine.api.door.paths import SentPath
from lifecycle_engine.api.health import Health
from lifecycle_engine.api.health import router as health_routes
from lifecycle_engine.api.keys import routes as keys
from lifecycle_engine.api.keys.authentication import requires
from lifecycle_engine.api.lifecycles import activations, definitions, diagrams, versions
from lifecycle_engine.api.problems import responses
from lifecycle_engine.api.services import Services
from lifecycle_engine.api.touchpoints import events, ingest, receipts, retractions, tracking
from lifecycle_engine.api.webhooks.events import describe_events
from lifecycle_engine.api.webhooks.routes import ROUTERS as WEBHOOKS


class _Application(FastAPI):
    """Finds the ways in before FastAPI looks: its layers cost a touchpoint as much as taking it does.

    `ways_in` are by their paths as they are sent; each has the door's own layers before it.
    """

    ways_in: Mapping[bytes, ASGIApp] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_post = scope["type"] == "http" and scope["method"] == "POST"
        way = self.ways_in.get(scope.get("raw_path") or b"") if is_post else None
        if way is None:
            return await super().__call__(scope, receive, send)
        scope["app"] = self
        return await way(scope, receive, send)


def create_app(services: Services, gathered: metrics.Metrics | None = None) -> FastAPI:
    """The ASGI application; it starts and stops the appender and keeps the keys fresh."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await services.appender.start()
        async with services.keys.kept_fresh(), pruned(services.database, services.clock):
            yield
        await services.appender.stop()

    app = assemble(lifespan)
    app.state.services = services
    app.state.streams = changes.Streams(services)
    app.state.health = services.health
    app.state.metrics = gathered or metrics.Metrics()
    return app


def create_health_app(health: Health, gathered: metrics.Metrics) -> FastAPI:
    """The ASGI application of a process that answers no questions but whether it is well, and what it has done."""
    app = FastAPI(title="Lifecycle Engine", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.health = health
    app.state.metrics = gathered
    app.include_router(health_routes)
    app.include_router(metrics.router)
    problems.install(app)
    return app


def assemble(lifespan: Lifespan[FastAPI] | None = None) -> FastAPI:
    """The routes, their errors and their description, without what they work with."""
    app = _Application(
        title="Lifecycle Engine",
        version=__version__,
        summary="Which lifecycle stage each customer is in, since when and why, now and as of any day.",
        lifespan=lifespan,
        dependencies=[Depends(asked_once)],
        redirect_slashes=False,
        # It would look for its configuration at each request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    ways_in: dict[str, ASGIApp] = {
        ingest.PATH: ingest.PostTouchpoints(),
        ingest.VALIDATE_PATH: ingest.ValidateTouchpoints(),
        events.PATH: events.PostEvents(),
        **{path: tracking.PostCalls(kind) for kind, path in tracking.PATHS.items()},
    }
    app.ways_in = {path.encode(): problems.Requests(Bounded(way)) for path, way in ways_in.items()}
    # For whoever asks for them in another way, and is told how.
    app.router.routes += [Route(path, way, methods=["POST"]) for path, way in ways_in.items()]
    for router in (
        health_routes,
        standing.router,
        journeys.router,
        overrides.router,
        identities.router,
        mergers.router,
        explanations.router,
        receipts.router,
        changes.router,
        retractions.router,
        definitions.router,
        versions.router,
        activations.router,
        jobs.router,
        dead_letters.router,
        keys.router,
        *WEBHOOKS,
        diagrams.router,
    ):
        app.include_router(router)
    app.include_router(metrics.router, dependencies=[Depends(requires("metrics:read"))], responses=responses(401, 403))
    describe_events(app)
    openapi.install(app)
    app.add_middleware(Bounded)
    problems.install(app)
    app.add_middleware(SentPath)
    return app


def document() -> dict[str, Any]:
    """The OpenAPI document, made without a running service."""
    return assemble().openapi()
