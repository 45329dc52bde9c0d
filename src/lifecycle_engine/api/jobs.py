"""`/v1/jobs`: work that goes on behind an answer, and how far it has come.

There are two kinds: after an activation, every customer is folded under the new set of definitions; and an endpoint
is sent again what it has missed.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.api.cursors import Page, PageQuestion, decode_cursor, encode_cursor
from lifecycle_engine.api.door.paths import Part
from lifecycle_engine.api.keys.authentication import Key, requires
from lifecycle_engine.api.problems import ProblemError, responses
from lifecycle_engine.api.services import Services
from lifecycle_engine.api.values import Instant
from lifecycle_engine.store.lifecycles import RETIRED, Switch, customers_behind_set, find_switch, newest_switches
from lifecycle_engine.store.recoveries import RecoveryRow, find_recovery, newest_recoveries

router = APIRouter(prefix="/v1/jobs", tags=["operate"], responses=responses(401, 403, 422, 503))

_ACTIVATIONS, _RECOVERIES = "lifecycles:read", "webhooks:read"
_Asker = Annotated[Key, Depends(requires(_ACTIVATIONS, _RECOVERIES))]
_PREFIX = "activation-"
_FIRST = (2**31 - 1, 2**62, "")
"""Before which activation, and before which recovery (its instant and id), the first page begins."""


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


class RecoveryJob(BaseModel):
    """An endpoint is sent again what it has missed. It can stop anywhere, and goes on wherever a dispatcher runs."""

    id: str = Field(examples=["rec_01M0PF1C00J6K8N2P4R6T8V0XA"])
    kind: Literal["recovery"]
    endpoint_id: str = Field(examples=["ep_01M0PF1C00R5W3Q0X8M4T6B2ZD"])
    since: Instant = Field(description="What was recorded at this instant or later.")
    until: Instant = Field(description="What was recorded before this instant.")
    status: Literal["running", "finished", "stopped"] = Field(
        description="`stopped`: the endpoint was disabled or removed meanwhile."
    )
    changes: int = Field(description="How many changes it looks at.", examples=[1200])
    done: int = Field(description="How many of them it has looked at.", examples=[800])
    queued: int = Field(description="How many it has queued to be sent again.", examples=[17])
    created_at: Instant
    finished_at: Instant | None = Field(description="Null while it runs.")


AnyJob = Annotated[Job | RecoveryJob, Field(discriminator="kind")]


class JobPage(Page[AnyJob]):
    """Some of the jobs."""


@router.get("", operation_id="list_jobs", summary="All jobs", responses=responses(400))
async def list_jobs(request: Request, key: _Asker, question: Annotated[PageQuestion, Query()]) -> JobPage:
    """The jobs, the newest first: activations with `lifecycles:read`, recoveries with `webhooks:read`."""
    services: Services = request.app.state.services
    seen = sorted(key.scopes & {_ACTIVATIONS, _RECOVERIES})
    asked = ("jobs", *seen)
    number, at, id_ = decode_cursor(question.cursor, asked, tuple[int, int, str]) if question.cursor else _FIRST
    limit = question.limit + 1
    async with services.database.transaction() as connection:
        switches = await newest_switches(connection, number, limit) if _ACTIVATIONS in seen else []
        recoveries = await newest_recoveries(connection, (at, id_), limit) if _RECOVERIES in seen else []
        found: list[Switch | RecoveryRow] = [*switches, *recoveries]
        found.sort(key=lambda one: -(one.activated_at if isinstance(one, Switch) else one.created_at))
        jobs: list[Job | RecoveryJob] = []
        for one in found[: question.limit]:
            if isinstance(one, Switch):
                jobs.append(await job_of(connection, one))
                number = one.number
            else:
                jobs.append(recovery_job(one))
                at, id_ = one.created_at, one.id
    cursor = encode_cursor(asked, (number, at, id_)) if len(found) > question.limit else None
    return JobPage(items=jobs, next_cursor=cursor)


@router.get("/{id}", operation_id="get_job", summary="How far a job has come", responses=responses(404))
async def get_job(
    request: Request, key: _Asker, id: Annotated[Part, Path(description="The id of a job.", examples=["activation-7"])]
) -> AnyJob:
    """What the job does, and how far it has come."""
    services: Services = request.app.state.services
    number = id.removeprefix(_PREFIX)
    async with services.database.transaction() as connection:
        if id != number and number.isascii() and number.isdigit() and len(number) < 10 and _ACTIVATIONS in key.scopes:
            switch = await find_switch(connection, int(number))
            if switch is not None and id == _id(switch):
                return await job_of(connection, switch)
        elif _RECOVERIES in key.scopes and (recovery := await find_recovery(connection, id)) is not None:
            return recovery_job(recovery)
    raise ProblemError(404, "job_not_found", f"there is no job {id!r}")


def recovery_job(row: RecoveryRow) -> RecoveryJob:
    """The job that sends an endpoint again what it has missed."""
    status: Literal["running", "finished", "stopped"] = "running"
    if row.finished_at is not None:
        status = "finished" if row.done >= row.total else "stopped"
    return RecoveryJob(
        id=row.id,
        kind="recovery",
        endpoint_id=row.endpoint,
        since=row.since,
        until=row.until,
        status=status,
        changes=row.total,
        done=row.done,
        queued=row.queued,
        created_at=row.created_at,
        finished_at=row.finished_at,
    )


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
