"""Questions that cannot be meant."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import msgspec

from tests.bad_input.requests import ADA, ONE, Case, get

LISTS = (
    f"{ADA}/history",
    f"{ADA}/touchpoints",
    f"{ADA}/identities",
    "/v1/lifecycles",
    "/v1/lifecycles/five-stages/versions",
    "/v1/lifecycles/five-stages/activations",
    "/v1/jobs",
)
JOURNEY = f"{ADA}/journeys/five-stages"


def _cursor(position: object) -> str:
    return base64.urlsafe_b64encode(b"12345678" + msgspec.msgpack.encode(position)).rstrip(b"=").decode()


CURSORS = {
    "a word": "next",
    "a star": "*",
    "NUL": "%00",
    "one letter": "A",
    "padded": "QUJD====",
    "a digest alone": "MTIzNDU2Nzg",
    "one of another question": _cursor(["ada"]),
    "one with numbers beyond 64 bits": _cursor([2**64 - 1]),
    "one with NUL": _cursor(["\0"]),
    "one of a thousand levels": base64.urlsafe_b64encode(b"12345678" + b"\x91" * 1000 + b"\x01").decode(),
    "not UTF-8": "%ff",
}


def _lists() -> Iterator[Case]:
    for path in LISTS:
        for value in ("0", "-1", "-9223372036854775808", "9" * 5000, "1.5", "1e3", "ten", "", "NaN", "0x10", "%00"):
            yield Case(f"{path}: limit {value[:20]!r}", get(f"{path}?limit={value}"), 422, "invalid_request")
        yield Case(f"{path}: an unknown parameter", get(f"{path}?sort=up"), 422, "invalid_request")
        yield Case(f"{path}: a parameter twice", get(f"{path}?limit=1&limit=2"), 422, "invalid_request")
        yield Case(f"{path}: an odd parameter", get(f"{path}?%1b[2J%0d%0a=x"), 422, "invalid_request")
        yield Case(f"{path}: a cursor of 5,000 letters", get(f"{path}?cursor={'A' * 5000}"), 422, "invalid_request")
        for name, cursor in CURSORS.items():
            yield Case(f"{path}: a cursor that is {name}", get(f"{path}?cursor={cursor}"), 400, "invalid_cursor")


def _instants() -> Iterator[Case]:
    for name, value in {
        "a word": "yesterday",
        "minus infinity": "-infinity",
        "without an offset": "2026-01-01T00:00:00",
        "a plus that was not encoded": "2026-01-01T00:00:00+01:00",
        "a number": "1767225600",
        "the year 0": "0000-01-01T00:00:00Z",
        "the year 300000": "300000-01-01T00:00:00Z",
        "a leap second": "2016-12-31T23:59:60Z",
        "nothing": "",
        "NUL": "%00",
        "5,000 digits": "2" * 5000,
    }.items():
        yield Case(f"as_of: {name}", get(f"{JOURNEY}?as_of={value}"), 422, "invalid_request")
        yield Case(f"known_at: {name}", get(f"{ADA}/history?known_at={value}"), 422, "invalid_request")
        yield Case(
            f"explain at: {name}", get(f"{ADA}/explain?lifecycle=five-stages&at={value}"), 422, "invalid_request"
        )
    late = "9999-12-31T23:59:59.999999Z"
    yield Case("as_of: the end of time", get(f"{JOURNEY}?as_of={late}"), 422, "in_the_future")
    yield Case("known_at: the end of time", get(f"{ADA}/history?known_at={late}"), 422, "in_the_future")
    yield Case(
        "explain at: the end of time", get(f"{ADA}/explain?lifecycle=five-stages&at={late}"), 422, "in_the_future"
    )
    early = "0001-01-01T00:00:00Z"
    yield Case("known_at: before anything", get(f"{ADA}/history?known_at={early}"), 404, "customer_not_found")


def _others() -> Iterator[Case]:
    unknown = "an unknown parameter"
    for path in (ADA, JOURNEY, f"{ADA}/explain", f"{ONE}/ada-0", "/v1/lifecycles/five-stages/diagram"):
        yield Case(f"{path}: {unknown}", get(f"{path}?stage=advocacy"), 422, "invalid_request")
    for value in ("e-mail", "", "CUSTOMER_ID", "customer_id%00", "customer_id&kind=x"):
        yield Case(f"kind: {value!r}", get(f"{ADA}?kind={value}"), 422, "invalid_request")
    yield Case("two customers' kinds", get(f"{ADA}?kind=customer_id&kind=customer_id"), 422, "invalid_request")
    yield Case("a subject with NUL", get(f"{JOURNEY}?subject=%00"), 422, "invalid_request")
    yield Case("a source with NUL", get(f"{ONE}/x?source=%00"), 422, "invalid_request")
    yield Case("a lifecycle with NUL", get(f"{ADA}/history?lifecycle=%00"), 422, "invalid_request")
    yield Case("an unknown lifecycle", get(f"{ADA}/history?lifecycle=nothing"), 404, "lifecycle_not_found")
    yield Case("an unknown inclusion", get(f"{ADA}/history?include=everything"), 422, "invalid_request")
    yield Case("10,000 inclusions", get(f"{ADA}/history?include={',' * 10_000}"), 422, "invalid_request")
    yield Case("nothing to explain", get(f"{ADA}/explain"), 422, "invalid_request")
    yield Case("two things to explain", get(f"{ADA}/explain?touchpoint=a&to=b"), 422, "invalid_request")
    yield Case(
        "an unknown stage to explain", get(f"{ADA}/explain?lifecycle=five-stages&to=nowhere"), 422, "unknown_stage"
    )
    yield Case("an unknown touchpoint to explain", get(f"{ADA}/explain?touchpoint=x"), 404, "touchpoint_not_found")
    yield Case("an unknown touchpoint", get(f"{ONE}/x"), 404, "touchpoint_not_found")
    yield Case("a touchpoint with NUL", get(f"{ONE}/%00"), 422, "invalid_request")
    yield Case("a touchpoint of 20 KB", get(f"{ONE}/{'x' * 20_000}"), 404, "touchpoint_not_found")
    yield Case("an unknown lifecycle to see", get("/v1/lifecycles/nothing"), 404, "lifecycle_not_found")
    yield Case("a lifecycle of 20 KB", get(f"/v1/lifecycles/{'x' * 20_000}"), 404, "lifecycle_not_found")
    for version in ("0", "-1", "2147483648", "9" * 5000, "one", "1.5", "%00"):
        path = f"/v1/lifecycles/five-stages/versions/{version}"
        yield Case(f"version: {version[:20]}", get(path), 422, "invalid_request")
    yield Case("version: 77", get("/v1/lifecycles/five-stages/versions/77"), 404, "version_not_found")
    for id_ in ("x", "activation-", "activation-0", "activation--1", "activation-" + "9" * 5000, "activation-1%00"):
        status, code = (422, "invalid_request") if "%00" in id_ else (404, "job_not_found")
        yield Case(f"job: {id_[:20]}", get(f"/v1/jobs/{id_}"), status, code)
    yield Case(
        "a diagram as a picture",
        get("/v1/lifecycles/five-stages/diagram", [(b"Accept", b"image/png")]),
        406,
        "not_acceptable",
    )
    yield Case(
        "a diagram in an unknown format", get("/v1/lifecycles/five-stages/diagram?format=dot"), 422, "invalid_request"
    )


CASES = [*_lists(), *_instants(), *_others()]
