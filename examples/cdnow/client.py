"""The service over HTTP: posting until every touchpoint is accepted, asking until every question is answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import httpx

from examples.cdnow.purchases import Touchpoint

ARRAY = 500
"""Touchpoints of one request."""
POSTING, ASKING = 4, 16
"""Requests that are under way at a time."""
PATIENCE = 60.0
"""Seconds without an answer that helps, after which to give up."""

_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)
_JOURNEY = "/v1/customers/{}/journeys/five-stages"

Progress = Callable[[int], None]
"""Told how many more are done."""


class ClientError(Exception):
    """The service cannot be used; the text says why and what to do."""


class Client:
    """`http` knows the service's address and the key."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def check(self) -> None:
        """Raises ClientError unless the service answers there and takes the key."""
        try:
            answer = await self._http.get("/v1/touchpoints/cdnow-000001")
        except httpx.ConnectError:
            raise ClientError(
                f"nothing answers at {self._http.base_url}: start the service (`make run`) or name its address (--base)"
            ) from None
        except httpx.TransportError as error:
            raise ClientError(f"{self._http.base_url} does not answer as a web server does: {_named(error)}") from None
        known = answer.status_code == 200 and _media_type(answer) == "application/json"
        if not known and not (answer.status_code in (404, 503) and _problem(answer)):
            raise _refused(answer)

    async def post(self, touchpoints: Sequence[Touchpoint], progress: Progress) -> list[Sequence[Touchpoint]]:
        """Posts all in their order, a few arrays at a time; gives the arrays, in the order of their acceptance.

        What was not accepted is posted again with the same id, so nothing is lost and nothing is counted twice.
        Raises ClientError where something is refused, or where nothing is accepted for a minute.
        """
        accepted: list[Sequence[Touchpoint]] = []

        async def post(array: Sequence[Touchpoint]) -> None:
            await self._post_array(array)
            accepted.append(array)
            progress(len(array))

        arrays = [touchpoints[start : start + ARRAY] for start in range(0, len(touchpoints), ARRAY)]
        await each(post, arrays, POSTING)
        return accepted

    async def wait_until_applied(self, accepted: Sequence[Sequence[Touchpoint]], progress: Progress) -> None:
        """Waits for what `post` gave. Raises ClientError where nothing is applied for a minute.

        A partition of the log is applied in the order in which it was written. So the customers in the last arrays, of
        which at least three were sent after all the others had been accepted, speak for everything before.
        """
        early, late = accepted[: -(POSTING + 2)], accepted[-(POSTING + 2) :]
        for array in early:
            await self._wait_for_receipt(array[-1]["id"])
            progress(len(array))
        by_customer: dict[str, list[Touchpoint]] = {}
        for touchpoint in chain.from_iterable(late):
            by_customer.setdefault(touchpoint["customer_id"], []).append(touchpoint)

        async def wait(touchpoints: Sequence[Touchpoint]) -> None:
            await self._wait_for_receipt(touchpoints[-1]["id"])
            progress(len(touchpoints))

        await each(wait, by_customer.values(), ASKING)

    async def stage(self, customer_id: str, as_of: str) -> str | None:
        """The customer's stage at an instant; None before the journey began. Raises ClientError."""
        return (await self._ask(_JOURNEY.format(customer_id), as_of=as_of))["stage"]  # type: ignore[no-any-return]

    async def stages(self, questions: Iterable[tuple[str, str]], progress: Progress) -> list[tuple[str, str | None]]:
        """The stage for each (customer_id, as_of), as pairs of as_of and stage, in no order. Raises ClientError."""
        answers: list[tuple[str, str | None]] = []

        async def ask(question: tuple[str, str]) -> None:
            answers.append((question[1], await self.stage(*question)))
            progress(1)

        await each(ask, questions, ASKING)
        return answers

    async def _post_array(self, touchpoints: Sequence[Touchpoint]) -> None:
        patience = _Patience()
        while touchpoints:
            try:
                answer = await self._http.post("/v1/touchpoints", json=touchpoints)
            except httpx.TransportError as error:
                await patience.wait(_named(error))
                continue
            if answer.status_code in (429, 503):
                await patience.wait(_reason(answer))
                continue
            if answer.status_code != 207:
                raise _refused(answer)
            items = answer.json()["items"]
            for item in items:
                if item["status"] == "rejected":
                    raise ClientError(f"{touchpoints[item['index']]['id']} was refused: {item['problem']['detail']}")
            unknown = [touchpoints[item["index"]] for item in items if item["status"] == "unknown"]
            if len(unknown) == len(touchpoints):
                await patience.wait("whether anything was accepted is unknown")
            touchpoints = unknown

    async def _wait_for_receipt(self, id_: str) -> None:
        patience = _Patience()
        while (receipt := await self._ask(f"/v1/touchpoints/{id_}"))["status"] == "pending":
            await patience.wait("accepted touchpoints are not applied: is a worker running?")
        if receipt["status"] == "dead_letter":
            raise ClientError(f"{id_} could not be applied and was set aside")

    async def _ask(self, path: str, **parameters: str) -> dict[str, Any]:
        patience = _Patience()
        while True:
            try:
                answer = await self._http.get(path, params=parameters)
            except httpx.TransportError as error:
                await patience.wait(_named(error))
                continue
            if answer.status_code in (429, 503):
                await patience.wait(_reason(answer))
                continue
            if answer.status_code != 200:
                raise _refused(answer)
            return answer.json()  # type: ignore[no-any-return]


async def each(work: Callable[[Any], Awaitable[None]], items: Iterable[Any], at_a_time: int) -> None:
    """Works through the items in their order, so many at a time; the first failure ends all."""
    waiting = iter(items)

    async def lane() -> None:
        for item in waiting:
            await work(item)

    try:
        async with asyncio.TaskGroup() as lanes:
            for _ in range(at_a_time):
                lanes.create_task(lane())
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


class _Patience:
    """Longer and longer pauses between tries, until it ends."""

    def __init__(self) -> None:
        self._until = time.monotonic() + PATIENCE
        self._pauses: Iterator[float] = iter(_PAUSES)

    async def wait(self, reason: str) -> None:
        if time.monotonic() > self._until:
            raise ClientError(f"gave up after {PATIENCE:.0f} s: {reason}")
        await asyncio.sleep(next(self._pauses, _PAUSES[-1]))


def _refused(answer: httpx.Response) -> ClientError:
    if answer.status_code in (401, 403):
        return ClientError(f"the key was refused ({_reason(answer)}): give another with --key or LIFECYCLE_API_KEY")
    if _problem(answer) is None:
        return ClientError(f"what answers at {answer.request.url} is no Lifecycle Engine ({_reason(answer)})")
    return ClientError(f"{answer.request.method} {answer.request.url} was answered with {_reason(answer)}")


def _reason(answer: httpx.Response) -> str:
    problem = _problem(answer)
    return f"{answer.status_code} {problem['detail'] if problem else answer.reason_phrase}"


def _problem(answer: httpx.Response) -> dict[str, Any] | None:
    if _media_type(answer) != "application/problem+json":
        return None
    return answer.json()  # type: ignore[no-any-return]


def _media_type(answer: httpx.Response) -> str:
    return str(answer.headers.get("content-type", "")).partition(";")[0]


def _named(error: Exception) -> str:
    return f"{type(error).__name__} {error}".rstrip()
