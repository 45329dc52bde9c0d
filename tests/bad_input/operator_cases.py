"""What operators may get wrong: overrides, links, merges, traits, retractions, definitions and activations."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bad_input.requests import ADA, ONE, Case, post, request, text

STAGE = f"{ADA}/journeys/five-stages/stage"
WHY = b'"reason":"r","actor":"a"'

DOORS: dict[str, tuple[str, str, bytes]] = {
    "an override": ("PUT", STAGE, b'{"stage":"purchase",%b}' % WHY),
    "a link": ("POST", f"{ADA}/identities", b'{"anonymous_id":"x",%b}' % WHY),
    "traits": ("POST", f"{ADA}/traits", b'{"traits":{"a":1}}'),
    "a merge": ("POST", f"{ADA}/merge", b'{"into":"bob",%b}' % WHY),
    "an unmerge": ("POST", f"{ADA}/unmerge", b"{%b}" % WHY),
    "an activation": ("POST", "/v1/lifecycles/five-stages/activate", b'{"version":1}'),
}
"""Each with a body in which nothing is wrong."""


def _bodies() -> Iterator[Case]:
    for name, (method, path, good) in DOORS.items():
        broken: dict[str, tuple[bytes, int, str]] = {
            "no body": (b"", 400, "malformed"),
            "a brace": (b"{", 400, "malformed"),
            "an array": (b"[]", 422, "invalid_request"),
            "null": (b"null", 422, "invalid_request"),
            "Latin-1": (good[:-1] + b',"id":"\xe9"}', 400, "malformed"),
            "UTF-16": (good.decode().encode("utf-16"), 400, "malformed"),
            "a byte order mark": (b"\xef\xbb\xbf" + good, 400, "malformed"),
            "an unknown field": (good[:-1] + b',"type":"$erase"}', 422, "invalid_request"),
            "a name twice": (good[:-1] + b"," + good[1:], 422, "duplicate_name"),
            "50,000 open brackets": (b"[" * 50_000, 422, "too_deep"),
            "25,000 levels": (good[:-1] + b',"x":' + b"[" * 25_000 + b"]" * 25_000 + b"}", 422, "too_deep"),
            "5,000 digits": (good[:-1] + b',"x":' + b"9" * 5000 + b"}", 422, "number_out_of_range"),
            "300 KB": (good[:-1] + b',"x":' + text(300 * 1024) + b"}", 413, "too_large"),
        }
        for what, (body, status, code) in broken.items():
            yield Case(f"{name} with {what}", request(method, path, body), status, code)
        yield Case(
            f"{name} as text",
            request(method, path, good, media_type=b"text/plain"),
            415,
            "unsupported_media_type",
        )
        if name != "an activation":
            for what, value in {
                "nothing": b'""',
                "129 characters": text(129),
                "a number": b"1",
            }.items():
                body = good[:-1] + b',"id":%b}' % value
                yield Case(f"{name} with an id of {what}", request(method, path, body), 422, "invalid_request")
            for what, value, code in (
                ("NUL", rb'"\u0000"', "invalid_character"),
                ("a line break", rb'"a\r\nb"', "control_character"),
                ("an escape sequence", rb'"\u001b[2J"', "control_character"),
            ):
                if name == "an unmerge" and code == "control_character":
                    continue  # there, it is first asked whether there is a merge
                body = good[:-1] + b',"id":%b}' % value
                yield Case(f"{name} with an id of {what}", request(method, path, body), 422, code)
            for what, value, code in (
                ("the end of time", b'"9999-12-31T23:59:59Z"', "in_the_future"),
                ("the year 1", b'"0001-01-01T00:00:00Z"', "invalid_time"),
                ("minus infinity", b'"-infinity"', "invalid_request"),
                ("a number", b"1767225600", "invalid_request"),
                ("the year 300000", b'"300000-01-01T00:00:00Z"', "invalid_request"),
            ):
                body = good[:-1] + b',"occurred_at":%b}' % value
                if name in ("an override", "an unmerge") and code in ("in_the_future", "invalid_time"):
                    continue  # there, it is first asked what holds at that instant
                yield Case(f"{name} at {what}", request(method, path, body), 422, code)


def _overrides() -> Iterator[Case]:
    def body(extra: bytes = b"", stage: bytes = b'"purchase"') -> bytes:
        return b'{"stage":%b,%b%b}' % (stage, WHY, extra)

    for name, sent, status, code in (
        ("to no stage", body(stage=b'"nowhere"'), 422, "unknown_stage"),
        ("to a stage with NUL", body(stage=rb'"\u0000"'), 422, "invalid_character"),
        ("to a stage of 100 KB", body(stage=text(100_000)), 422, "unknown_stage"),
        ("to a number", body(stage=b"1"), 422, "invalid_request"),
        ("with a subject that there is none of", body(b',"subject":"x"'), 422, "superfluous_subject"),
        ("that is over", body(b',"expires_at":"2020-01-01T00:00:00Z"'), 422, "invalid_time"),
        ("until the year 300000", body(b',"expires_at":"300000-01-01T00:00:00Z"'), 422, "invalid_request"),
        ("without a reason", b'{"stage":"purchase","actor":"a"}', 422, "invalid_request"),
        ("with a long reason", b'{"stage":"purchase","actor":"a","reason":%b}' % text(501), 422, "invalid_request"),
    ):
        yield Case(f"an override {name}", request("PUT", STAGE, sent), status, code)
    nowhere = f"{ADA}/journeys/nothing/stage"
    yield Case("an override in no lifecycle", request("PUT", nowhere, body()), 404, "lifecycle_not_found")
    yield Case(
        "an override for 257 characters",
        request("PUT", f"/v1/customers/{'x' * 257}/journeys/five-stages/stage", body()),
        422,
        "invalid_request",
    )
    yield Case(
        "an override at the end of time",
        request("PUT", STAGE, body(b',"occurred_at":"9999-12-31T23:59:59Z"')),
        422,
        "in_the_future",
    )
    yield Case(
        "an override in the year 1",
        request("PUT", STAGE, body(b',"occurred_at":"0001-01-01T00:00:00Z"')),
        422,
        "invalid_time",
    )


def _identities() -> Iterator[Case]:
    yield Case("a link to nobody", post(f"{ADA}/identities", b"{%b}" % WHY), 422, "invalid_request")
    yield Case("a link to NUL", post(f"{ADA}/identities", rb'{"anonymous_id":"\u0000"}'), 422, "invalid_character")
    yield Case(
        "a link to a control", post(f"{ADA}/identities", rb'{"anonymous_id":"\u001b"}'), 422, "control_character"
    )
    yield Case(
        "a link by its kind",
        post(f"{ADA}/identities?kind=anonymous_id", b'{"anonymous_id":"x"}'),
        422,
        "invalid_request",
    )
    yield Case(
        "a link of a control",
        post("/v1/customers/a%0d%0ab/identities", b'{"anonymous_id":"x"}'),
        422,
        "control_character",
    )
    yield Case("a merge into itself", post(f"{ADA}/merge", b'{"into":"ada",%b}' % WHY), 422, "merged_into_itself")
    yield Case(
        "a merge into a control character",
        post(f"{ADA}/merge", rb'{"into":"\u009b2J",%b}' % WHY),
        422,
        "control_character",
    )
    yield Case("a merge into NUL", post(f"{ADA}/merge", rb'{"into":"\u0000",%b}' % WHY), 422, "invalid_character")
    yield Case(
        "a merge into 257 characters",
        post(f"{ADA}/merge", b'{"into":%b,%b}' % (text(257), WHY)),
        422,
        "invalid_request",
    )
    for name, traits, status, code in (
        ("of a list", b"[]", 422, "invalid_request"),
        ("of null", b"null", 422, "invalid_request"),
        ("with NUL", rb'{"x":"\u0000"}', 422, "invalid_character"),
        ("with NUL in a name", rb'{"\u0000":1}', 422, "invalid_character"),
        ("with a lone surrogate", rb'{"x":"\ud800"}', 422, "invalid_character"),
        ("with NaN", b'{"x":NaN}', 422, "number_out_of_range"),
        ("with Infinity", b'{"x":Infinity}', 422, "number_out_of_range"),
        ("with 1e400", b'{"x":1e400}', 422, "number_out_of_range"),
        ("with 2^63", b'{"x":9223372036854775808}', 422, "number_out_of_range"),
        ("with a number of 5,000 digits", b'{"x":' + b"9" * 5000 + b"}", 422, "number_out_of_range"),
        ("of 40 levels", b'{"x":' * 40 + b"1" + b"}" * 40, 422, "too_deep"),
    ):
        yield Case(f"traits {name}", post(f"{ADA}/traits", b'{"traits":%b}' % traits), status, code)
    for name, query in {
        "no reason": "actor=a",
        "an unknown parameter": "actor=a&reason=r&x=1",
        "NUL": "actor=%00&reason=r",
        "an empty id": "actor=a&reason=r&retraction_id=",
    }.items():
        yield Case(f"a retraction with {name}", request("DELETE", f"{ONE}/ada-0?{query}"), 422, "invalid_request")
    yield Case("a retraction of nothing", request("DELETE", f"{ONE}/x?actor=a&reason=r"), 404, "touchpoint_not_found")
    yield Case(
        "a retraction with a line break",
        request("DELETE", f"{ONE}/ada-0?actor=a&reason=r&retraction_id=a%0d%0ab"),
        422,
        "control_character",
    )
    yield Case("an unlink with NUL", request("DELETE", f"{ADA}/identities/%00"), 422, "invalid_request")
    yield Case("an unlink with a line break", request("DELETE", f"{ADA}/identities/a%0ab"), 422, "control_character")


def _definitions() -> Iterator[Case]:
    yaml = b"application/yaml"
    documents: dict[str, tuple[bytes, bytes]] = {
        "nothing": (b"", yaml),
        "a word": (b"lifecycle", yaml),
        "a list": (b"[]", yaml),
        "NUL": (b"lifecycle: a\0b", yaml),
        "Latin-1": (b"lifecycle: \xe9", yaml),
        "UTF-16": ("lifecycle: a".encode("utf-16"), yaml),
        "a tag": (b"!!python/object/apply:os.system ['true']", yaml),
        "a billion laughs": (
            b"a: &a [x,x,x,x,x,x,x,x,x]\n"
            + b"".join(b"%c: &%c [%b]\n" % (98 + n, 98 + n, b",".join([b"*%c" % (97 + n)] * 9)) for n in range(10)),
            yaml,
        ),
        "an alias of itself": (b"a: &a [*a]", yaml),
        "two documents": (b"lifecycle: a\n---\nlifecycle: b", yaml),
        "50,000 open brackets": (b"[" * 50_000, yaml),
        "50,000 indents": (b"- " * 50_000, yaml),
        "5,000 digits": (b"lifecycle: " + b"9" * 5000, yaml),
        "a name twice": (b"lifecycle: a\nlifecycle: b", yaml),
        "broken JSON": (b"{", b"application/json"),
        "JSON with NaN": (b'{"lifecycle": NaN}', b"application/json"),
        "JSON with a name twice": (b'{"lifecycle":"a","lifecycle":"b"}', b"application/json"),
        "JSON of 20,000 levels": (b"[" * 20_000 + b"]" * 20_000, b"application/json"),
        "a JSON list": (b"[]", b"application/json"),
        "no stages": (b"lifecycle: a\ninitial: b", yaml),
        "an expression that escapes": (
            b"lifecycle: x\ninitial: a\nstages: [{key: a}]\nrules: [{on: b, when: ['().__class__'], to: a}]",
            yaml,
        ),
        "an expression of 200 parentheses": (
            b"lifecycle: x\ninitial: a\nstages: [{key: a}]\nrules: [{on: b, when: ['%b1 == 1%b'], to: a}]"
            % (b"(" * 200, b")" * 200),
            yaml,
        ),
        "an expression of nested macros": (
            b"lifecycle: x\ninitial: a\nstages: [{key: a}]\nrules: [{on: b, when: "
            b"['[1].all(a, [1].all(b, [1].all(c, a == b && b == c)))'], to: a}]",
            yaml,
        ),
        "a power of powers": (
            b"lifecycle: x\ninitial: a\nstages: [{key: a}]\nrules: [{on: b, when: ['9**9**9 > 1'], to: a}]",
            yaml,
        ),
        "a duration of a month": (
            b"lifecycle: x\ninitial: a\nstages: [{key: a}]\nrules: [{after: 1mo, from: [a], to: a}]",
            yaml,
        ),
    }
    for name, (document, media_type) in documents.items():
        yield Case(
            f"a definition that is {name}",
            post("/v1/lifecycles", document, media_type=media_type),
            422,
            "invalid_definition",
        )
    for path in ("/v1/lifecycles", "/v1/lifecycles/validate"):
        for other in (None, b"text/plain", b"application/xml", b"\xff"):
            yield Case(
                f"{path}: a definition of the type {other!r}",
                post(path, b"lifecycle: a", media_type=other),
                415,
                "unsupported_media_type",
            )
        yield Case(f"{path}: a definition of 257 KiB", post(path, b"#" * 257 * 1024, media_type=yaml), 413, "too_large")
    activate = "/v1/lifecycles/five-stages/activate"
    for name, sent, status, code in (
        ("of no version", b"{}", 422, "invalid_request"),
        ("of version 0", b'{"version":0}', 422, "invalid_request"),
        ("of version 2^63", b'{"version":9223372036854775808}', 422, "number_out_of_range"),
        ("of version 1.5", b'{"version":1.5}', 422, "invalid_request"),
        ("of version '1'", b'{"version":"1"}', 422, "invalid_request"),
        ("of version 77", b'{"version":77}', 404, "version_not_found"),
        ("in the past", b'{"version":1,"at":"2020-01-01T00:00:00Z"}', 422, "in_the_past"),
        ("in the year 300000", b'{"version":1,"at":"300000-01-01T00:00:00Z"}', 422, "invalid_request"),
    ):
        yield Case(f"an activation {name}", post(activate, sent), status, code)
    nothing = "/v1/lifecycles/nothing/activate"
    yield Case("an activation of nothing", post(nothing, b'{"version":1}'), 404, "version_not_found")


CASES = [*_bodies(), *_overrides(), *_identities(), *_definitions()]
