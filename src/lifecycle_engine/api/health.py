"""`/livez` and `/readyz`: is the process alive, and can it do its work now."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

Check = Callable[[], Awaitable[bool]]
"""Whether one thing that the process needs is there now."""

CHECK_SECONDS = 1.0

router = APIRouter(tags=["Operate"])


class Health:
    """What the process needs in order to be ready. `draining` is set when it has been told to stop."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = dict(checks)
        self.draining = asyncio.Event()

    async def report(self) -> dict[str, bool]:
        """Each check by name; one that takes longer than a second has failed."""
        results = await asyncio.gather(*(_passes(check) for check in self._checks.values()))
        return {**dict(zip(self._checks, results, strict=True)), "not_stopping": not self.draining.is_set()}


@router.get("/livez", summary="Is the process alive?")
async def livez() -> dict[str, str]:
    """Always 200 while the process runs: one whose inner task has died ends by itself."""
    return {"status": "alive"}


@router.get(
    "/readyz",
    summary="Can the process do its work?",
    responses={503: {"description": "Something that it needs is missing"}},
)
async def readyz(request: Request) -> JSONResponse:
    """200 when everything that this process needs is there, else 503; `checks` tells which is missing."""
    health: Health = request.app.state.services.health
    checks = await health.report()
    is_ready = all(checks.values())
    body: dict[str, Any] = {"status": "ready" if is_ready else "not ready", "checks": checks}
    return JSONResponse(body, 200 if is_ready else 503)


async def _passes(check: Check) -> bool:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await check()
    except Exception:
        return False
