"""`…/activate`, `…/retire` and `…/activations` of `/v1/lifecycles/{lifecycle}`: which version judges, from when on."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from lifecycle_engine.api.cursors import Page, PageQuestion, decode_cursor, page_of
from lifecycle_engine.api.customers.journeys import lifecycle_not_found
from lifecycle_engine.api.door.bodies import described, read_object
from lifecycle_engine.api.door.idempotency import Idempotent
from lifecycle_engine.api.door.paths import LifecycleKey
from lifecycle_engine.api.jobs import Job, job_of
from lifecycle_engine.api.keys.authentication import requires
from lifecycle_engine.api.lifecycles.versions import version_not_found
from lifecycle_engine.api.problems import ProblemError, responses
from lifecycle_engine.api.services import Services
from lifecycle_engine.api.values import Instant, InstantParameter
from lifecycle_engine.lifecycle.checks.successions import hindrances
from lifecycle_engine.lifecycle.definitions import Definition
from lifecycle_engine.lifecycle.instants import format_instant
from lifecycle_engine.store.lifecycles import (
    RETIRED,
    Switch,
    activate_version,
    in_force,
    lock_definitions,
    newest_versions,
    switches,
)

router = APIRouter(
    prefix="/v1/lifecycles/{lifecycle}",
    route_class=Idempotent,
    tags=["lifecycles"],
    responses=responses(401, 403, 404, 422, 503),
)

MAX_BODY_BYTES = 64 * 1024


class Activation(BaseModel):
    """Which version is to take effect, and from when on."""

    model_config = ConfigDict(extra="forbid", strict=True)

    version: Annotated[int, Field(ge=1, le=2**31 - 1, examples=[2])]
    at: InstantParameter | None = Field(
        None,
        description="From when on it judges; not in the past. Absent: from now on. The first activation of a lifecycle "
        "holds from the beginning of time, and takes no `at`.",
    )


class Retirement(BaseModel):
    """From when on nobody judges by the lifecycle."""

    model_config = ConfigDict(extra="forbid", strict=True)

    at: InstantParameter | None = Field(
        None, description="From when on it is retired; not in the past. Absent: from now on."
    )


class ActivationAnswer(BaseModel):
    """From when on a version judges, and the job that brings every customer up to it."""

    lifecycle: str = Field(examples=["five-stages"])
    version: int | None = Field(description="Null: from then on the lifecycle is retired.", examples=[2])
    since: Instant | None = Field(description="From when on it judges; null: from the beginning of time.")
    activated_at: Instant = Field(description="When this was decided.")
    job: Job


class ActivationPage(Page[ActivationAnswer]):
    """Some of the versions that judge some time."""


class _Plan(NamedTuple):
    """What an activation comes to: an instant to switch at (None: the beginning), or what stands already."""

    since: int | None
    replaces: int | None
    standing: Switch | None


@router.post(
    "/activate",
    operation_id="activate_lifecycle",
    summary="Let a version take effect",
    status_code=202,
    response_description="Decided; every customer is brought up to it",
    dependencies=[Depends(requires("lifecycles:write"))],
    responses={
        200: {"model": ActivationAnswer, "description": "It judges then already, and nothing changes"},
        **responses(400, 409, 413, 415),
    },
    openapi_extra=described(Activation),
)
async def activate_lifecycle(request: Request, response: Response, lifecycle: LifecycleKey) -> ActivationAnswer:
    """What occurs before `at` is judged by the version before it, the rest by this one.

    A first version holds from the beginning of time, and nobody is told of what it makes of the past. A switch that was
    scheduled for the same instant or a later one is replaced; activating the version that is in force cancels it, and
    changes nothing where none is scheduled. Stages that the new version lacks are named in its `rename`, and `per`
    stays as it is; else the answer is 409.
    """
    services: Services = request.app.state.services
    activation = await read_object(request, Activation, MAX_BODY_BYTES, "an activation")
    following = await _definition(services, lifecycle, activation.version)
    checked: int | None = None
    while True:
        async with services.database.transaction() as connection:
            await lock_definitions(connection)
            now = await services.database.clock(connection)
            plan = _plan(await switches(connection, lifecycle), activation.version, activation.at, now)
            if plan.standing is not None:
                response.status_code = 200
                return _answer(plan.standing, await job_of(connection, plan.standing))
            if plan.replaces in (None, activation.version, checked):
                switch = await activate_version(connection, lifecycle, activation.version, now, plan.since)
                return _answer(switch, await job_of(connection, switch))
        # Compiled while nobody waits for the lock; versions never change, but which one is replaced may.
        checked = plan.replaces
        _check_succession(await _definition(services, lifecycle, checked), following, checked, activation.version)


@router.post(
    "/retire",
    operation_id="retire_lifecycle",
    summary="Retire a lifecycle",
    status_code=202,
    response_description="Decided; every customer is brought up to it",
    dependencies=[Depends(requires("lifecycles:write"))],
    responses={
        200: {"model": ActivationAnswer, "description": "It is retired then already, and nothing changes"},
        **responses(400, 409, 413, 415),
    },
    openapi_extra=described(Retirement),
)
async def retire_lifecycle(request: Request, response: Response, lifecycle: LifecycleKey) -> ActivationAnswer:
    """What occurs from `at` on changes nothing in it: no touchpoint, no timer, no window's end, no override.

    Journeys stay where they are, with their history; what occurred before `at` and comes late is still told of in it.
    What was scheduled for the same instant or a later one is replaced. Activate a version to take it up again: journeys
    go on from where they stood, with measures and clocks by all that happened meanwhile.
    """
    services: Services = request.app.state.services
    retirement = await read_object(request, Retirement, MAX_BODY_BYTES, "a retirement")
    async with services.database.transaction() as connection:
        await lock_definitions(connection)
        now = await services.database.clock(connection)
        made = await switches(connection, lifecycle)
        if not made:
            if not await newest_versions(connection, lifecycle, None, 1):
                raise lifecycle_not_found(lifecycle)
            detail = f"no version of {lifecycle!r} was ever active, so there is nothing to retire"
            raise ProblemError(409, "lifecycle_not_active", detail)
        plan = _plan(made, RETIRED, retirement.at, now)
        if plan.standing is not None:
            response.status_code = 200
            return _answer(plan.standing, await job_of(connection, plan.standing))
        switch = await activate_version(connection, lifecycle, RETIRED, now, plan.since)
        return _answer(switch, await job_of(connection, switch))


@router.get(
    "/activations",
    operation_id="list_activations",
    summary="Which version judges from when on",
    dependencies=[Depends(requires("lifecycles:read"))],
    responses=responses(400),
)
async def list_activations(
    request: Request, lifecycle: LifecycleKey, question: Annotated[PageQuestion, Query()]
) -> ActivationPage:
    """The versions that judge some time, in its order; each until the next one does. Empty while none was activated."""
    services: Services = request.app.state.services
    asked = ("activations", lifecycle)
    (after,) = decode_cursor(question.cursor, asked, tuple[int]) if question.cursor else (0,)
    async with services.database.transaction() as connection:
        standing = in_force(await switches(connection, lifecycle))
        if not standing and not await newest_versions(connection, lifecycle, None, 1):
            raise lifecycle_not_found(lifecycle)
        # One that judges later was made later.
        found = [switch for switch in standing if switch.number > after][: question.limit + 1]
        jobs = {switch.number: await job_of(connection, switch) for switch in found[: question.limit]}
    return page_of(
        ActivationPage,
        found,
        question.limit,
        asked,
        lambda switch: (switch.number,),
        lambda switch: _answer(switch, jobs[switch.number]),
    )


def _plan(made: list[Switch], version: int, at: int | None, now: int) -> _Plan:
    """What it comes to that a version, or RETIRED, takes effect at an instant (None: now). Raises ProblemError 422."""
    standing = in_force(made)
    if not standing:
        if at is not None:
            detail = (
                "at: the first version of a lifecycle holds from the beginning of time, so that history can be loaded; "
                "leave it out"
            )
            raise ProblemError(422, "first_activation", detail)
        return _Plan(None, None, None)
    if at is not None and at < now:
        detail = f"at: must not be in the past; the clock is at {format_instant(now)}. Leave it out for now"
        raise ProblemError(422, "in_the_past", detail)
    since = now if at is None else at
    current = [one for one in standing if one.since is None or one.since <= since][-1]
    if current.version == version and current is standing[-1]:
        return _Plan(since, None, current)
    # A lifecycle that is retired is taken up again from the version that it had last.
    judging = [one for one in standing if one.version != RETIRED]
    before = [one for one in judging if one.since is None or one.since < since][-1]
    return _Plan(since, before.version, None)


def _check_succession(replaced: Definition, following: Definition, was: int, version: int) -> None:
    if found := hindrances(replaced, following):
        problems = [one._asdict() for one in found]
        first = found[0]
        hint = f"; {first.hint}" if first.hint else ""
        detail = f"version {version} cannot take over from version {was}: {first.message}{hint}"
        raise ProblemError(409, "cannot_take_over", detail, more={"problems": problems})


async def _definition(services: Services, lifecycle: str, version: int) -> Definition:
    try:
        return await services.definitions.version(lifecycle, version)
    except LookupError:
        raise version_not_found(lifecycle, version) from None


def _answer(switch: Switch, job: Job) -> ActivationAnswer:
    return ActivationAnswer(
        lifecycle=switch.key,
        version=None if switch.version == RETIRED else switch.version,
        since=switch.since,
        activated_at=switch.activated_at,
        job=job,
    )
