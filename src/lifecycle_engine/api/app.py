"""The application: routes, errors and keys put together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import FastAPI
from starlette.routing import Route
from starlette.types import Lifespan

from lifecycle_engine.api import customers, health, ingest, journeys, lifecycles, openapi, problems, touchpoints
from lifecycle_engine.api.authentication import Keys
from lifecycle_engine.api.health import Health
from lifecycle_engine.api.paths import SentPath
from lifecycle_engine.engine.definitions import Definitions
from lifecycle_engine.ingest.intake import Intake
from lifecycle_engine.log.port import Appender
from lifecycle_engine.store.database import Database


@dataclass(frozen=True)
class Services:
    """What the routes work with; `clock` gives microseconds since the epoch, `log` names the positions' rows."""

    appender: Appender
    intake: Intake
    keys: Keys
    database: Database
    definitions: Definitions
    health: Health
    log: str
    clock: Callable[[], int]


def create_app(services: Services) -> FastAPI:
    """The ASGI application; it starts and stops the appender and keeps the keys fresh."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await services.appender.start()
        async with services.keys.kept_fresh():
            yield
        await services.appender.stop()

    app = assemble(lifespan)
    app.state.services = services
    return app


def assemble(lifespan: Lifespan[FastAPI] | None = None) -> FastAPI:
    """The routes, their errors and their description, without what they work with."""
    app = FastAPI(
        title="Lifecycle Engine",
        version="0.1.0",
        summary="Which lifecycle stage each customer is in, since when and why, now and as of any day.",
        lifespan=lifespan,
        redirect_slashes=False,
        # It would look for its configuration at each request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    # First, since routes are tried in their order and most requests are for this one.
    app.router.routes.insert(0, Route(ingest.PATH, ingest.PostTouchpoints(), methods=["POST"]))
    for router in (health.router, customers.router, journeys.router, touchpoints.router, lifecycles.router):
        app.include_router(router)
    openapi.install(app)
    problems.install(app)
    app.add_middleware(SentPath)
    return app
