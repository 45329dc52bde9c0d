"""`/livez` and `/readyz`: is the process alive, and can it do its work now."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from lifecycle_engine.runners import Check

CHECK_SECONDS = 1.0

router = APIRouter(tags=["operate"])


class Health:
    """What the process needs in order to be ready. `draining` is set when it has been told to stop."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = dict(checks)
        self.draining = asyncio.Event()

    async def report(self) -> dict[str, bool | str]:
        """Each check by name, True or else what there is to say; one that takes longer than a second has failed."""
        results = await asyncio.gather(*(_passes(check) for check in self._checks.values()))
        return {**dict(zip(self._checks, results, strict=True)), "not_stopping": not self.draining.is_set()}


class Readiness(BaseModel):
    """What the process needs, and whether it is there."""

    status: Literal["ready", "not ready"]
    checks: dict[str, bool] = Field(examples=[{"log": True, "keys": True, "not_stopping": True}])
    reasons: dict[str, str] = Field(description="Why a check failed, and what to do, where that is known.")


@router.get("/livez", operation_id="livez", summary="Is the process alive?")
async def livez() -> dict[str, str]:
    """Always 200 while the process runs: one whose inner task has died ends by itself."""
    return {"status": "alive"}


@router.get(
    "/readyz",
    operation_id="readyz",
    summary="Can the process do its work?",
    response_model=Readiness,
    responses={503: {"description": "Something that it needs is missing", "model": Readiness}},
)
async def readyz(request: Request) -> JSONResponse:
    """200 when everything that this process needs is there, else 503; `checks` tells which is missing."""
    health: Health = request.app.state.health
    report = await health.report()
    checks = {name: found is True for name, found in report.items()}
    reasons = {name: found for name, found in report.items() if isinstance(found, str)}
    is_ready = all(checks.values())
    body = Readiness(status="ready" if is_ready else "not ready", checks=checks, reasons=reasons)
    return JSONResponse(body.model_dump(), 200 if is_ready else 503)


async def _passes(check: Check) -> bool | str:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await check()
    except Exception:
        return False
