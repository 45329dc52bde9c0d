"""`/v1/jobs`: work that goes on behind an answer, and how far it has come.

So far there is one kind: after an activation, every customer is folded under the new set of definitions.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.api.authentication import requires
from lifecycle_engine.api.cursors import DEFAULT_LIMIT, Cursor, Limit, Page, decode_cursor, page_of
from lifecycle_engine.api.paths import Part
from lifecycle_engine.api.problems import ProblemError, responses
from lifecycle_engine.api.services import Services
from lifecycle_engine.api.values import Instant
from lifecycle_engine.store.lifecycles import RETIRED, Switch, customers_behind_set, find_switch, newest_switches

router = APIRouter(
    prefix="/v1/jobs",
    tags=["operate"],
    dependencies=[Depends(requires("lifecycles:read"))],
    responses=responses(401, 403, 422, 503),
)
_PREFIX = "activation-"


class Job(BaseModel):
    """An activation on its way to every customer. It can stop anywhere, and goes on wherever a worker runs."""

    id: str = Field(examples=["activation-7"])
    kind: Literal["activation"]
    lifecycle: str = Field(examples=["five-stages"])
    version: int | None = Field(description="Null: the lifecycle is retired.", examples=[2])
    since: Instant | None = Field(
        description="From when on the version judges; null: from the beginning of time. May lie in the future, when "
        "all is prepared for it."
    )
    status: Literal["running", "finished"]
    customers: int = Field(description="How many have to be folded anew.", examples=[1200])
    done: int = Field(description="How many of them are. One that is not answers as before.", examples=[800])
    created_at: Instant
    finished_at: Instant | None = Field(description="Null while it runs.")


class JobPage(Page[Job]):
    """Some of the jobs."""


class JobsQuestion(BaseModel):
    """Which part of the list is asked for."""

    model_config = ConfigDict(extra="forbid")

    limit: Limit = DEFAULT_LIMIT
    cursor: Cursor = None


@router.get("", operation_id="list_jobs", summary="All jobs", responses=responses(400))
async def list_jobs(request: Request, question: Annotated[JobsQuestion, Query()]) -> JobPage:
    """The jobs, the newest first."""
    services: Services = request.app.state.services
    asked = ("jobs",)
    before = decode_cursor(question.cursor, asked, tuple[int])[0] if question.cursor else None
    async with services.database.transaction() as connection:
        found = await newest_switches(connection, before, question.limit + 1)
        jobs = {switch.number: await job_of(connection, switch) for switch in found[: question.limit]}
    return page_of(
        JobPage, found, question.limit, asked, lambda switch: (switch.number,), lambda switch: jobs[switch.number]
    )


@router.get("/{id}", operation_id="get_job", summary="How far a job has come", responses=responses(404))
async def get_job(
    request: Request, id: Annotated[Part, Path(description="The id of a job.", examples=["activation-7"])]
) -> Job:
    """What the job does, and how far it has come."""
    services: Services = request.app.state.services
    number = id.removeprefix(_PREFIX)
    async with services.database.transaction() as connection:
        switch = None
        if id == f"{_PREFIX}{number}" and number.isascii() and number.isdigit() and len(number) < 10:
            switch = await find_switch(connection, int(number))
        if switch is None or id != _id(switch):
            raise ProblemError(404, "job_not_found", f"there is no job {id!r}")
        return await job_of(connection, switch)


async def job_of(connection: AsyncConnection, switch: Switch) -> Job:
    """The job that brings every customer up to an activation."""
    behind = 0 if switch.finished_at is not None else await customers_behind_set(connection, switch.number)
    customers = behind if switch.customers is None else switch.customers
    return Job(
        id=_id(switch),
        kind="activation",
        lifecycle=switch.key,
        version=None if switch.version == RETIRED else switch.version,
        since=switch.since,
        status="running" if switch.finished_at is None else "finished",
        customers=customers,
        done=max(0, customers - behind),
        created_at=switch.activated_at,
        finished_at=switch.finished_at,
    )


def _id(switch: Switch) -> str:
    return f"{_PREFIX}{switch.number}"
