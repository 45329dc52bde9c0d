"""What is wrong with a request before anyone looks at its body: its framing, its headers, its key and its path."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bad_input.requests import ADA, CLOSED, ONE, Case, chunk, chunked, get, post, request, touchpoint
from tests.processes import API_KEY

BODY = touchpoint()
KEY = API_KEY.encode()


def _framing() -> Iterator[Case]:
    both = [(b"Transfer-Encoding", b"chunked")]
    yield Case(
        "both Content-Length and Transfer-Encoding",
        post(ONE, chunk(BODY) + b"0\r\n\r\n", headers=both),
        400,
        "malformed_http",
    )
    yield Case(
        "both Transfer-Encoding and Content-Length",
        chunked(ONE, [chunk(BODY)], headers=[(b"Content-Length", b"%d" % len(BODY))]),
        400,
        "malformed_http",
    )
    yield Case("two lengths", post(ONE, BODY, headers=[(b"Content-Length", b"%d" % len(BODY))]), 400, "malformed_http")
    yield Case("two lengths that differ", post(ONE, BODY, headers=[(b"Content-Length", b"3")]), 400, "malformed_http")
    for name, length in {
        "a list": b"30, 30",
        "a word": b"many",
        "below zero": b"-1",
        "hexadecimal": b"0x1e",
        "with a plus": b"+30",
        "with 30 digits": b"9" * 30,
        "2^64": b"18446744073709551616",
        "half": b"1.5",
    }.items():
        yield Case(f"a length that is {name}", post(ONE, BODY, length=length), 400, "malformed_http")
    yield Case("a length that is too long, and no more comes", post(ONE, BODY, length=b"5000"), CLOSED, "", ends=True)
    yield Case("a length that is too short", post(ONE, BODY, length=b"5"), 400, "malformed")
    yield Case("no length at all", post(ONE, BODY, length=b""), 400, "malformed")
    yield Case("a chunk whose size is a word", chunked(ONE, [b"many\r\n" + BODY]), 400, "malformed_http")
    yield Case("a chunk whose size is below zero", chunked(ONE, [b"-1\r\n" + BODY]), 400, "malformed_http")
    yield Case("a chunk whose size has 20 digits", chunked(ONE, [b"f" * 20 + b"\r\n" + BODY]), 400, "malformed_http")
    yield Case("a chunk that is longer than it says", chunked(ONE, [b"5\r\n" + BODY + b"\r\n"]), 400, "malformed_http")
    yield Case("chunks without an end", chunked(ONE, [chunk(BODY)], end=b""), CLOSED, "", ends=True)
    for name, coding in {
        "gzip": b"gzip",
        "identity": b"identity",
        "a word": b"chunkedx",
    }.items():
        coded = request("POST", ONE, BODY, length=b"", headers=[(b"Transfer-Encoding", coding)])
        yield Case(f"a transfer encoding of {name}", coded, 400, "malformed_http")
    coded = request(
        "POST", ONE, chunk(BODY) + b"0\r\n\r\n", length=b"", headers=[(b"Transfer-Encoding", b"gzip, chunked")]
    )
    yield Case("a transfer encoding besides chunks", coded, 400, "unsupported_encoding")
    yield Case("no request", b"\r\n\r\n\r\n", CLOSED, "", ends=True)
    yield Case("rubbish", b"\x00\x01\x02\xff" * 100 + b"\r\n\r\n", 400, "malformed_http")
    yield Case(
        "a TLS greeting",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64 + b"\r\n\r\n",
        400,
        "malformed_http",
    )
    yield Case("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "malformed_http")
    yield Case("a request in HTTP/2.0", post(ONE, BODY).replace(b" HTTP/1.1", b" HTTP/2.0"), 400, "malformed_http")
    yield Case("HTTP/9.9", b"GET /livez HTTP/9.9\r\nHost: here\r\n\r\n", 400, "malformed_http")
    yield Case("a line without a path", b"GET\r\n\r\n", 400, "malformed_http")
    yield Case("half a head", b"GET /livez HTTP/1.1\r\nHost: he", CLOSED, "", ends=True)


def _headers() -> Iterator[Case]:
    yield Case("a header with NUL", get("/v1/lifecycles?x", [(b"X-Odd", b"a\0b")]), 400, "malformed_http")
    yield Case("a header without a name", get("/v1/lifecycles?x", [(b"", b"x")]), 400, "malformed_http")
    yield Case("a header with a space in its name", get("/v1/lifecycles?x", [(b"X Odd", b"x")]), 400, "malformed_http")
    yield Case("a header that goes on", get("/v1/lifecycles?x", [(b"X-Odd", b"a\r\n b")]), 400, "malformed_http")
    yield Case(
        "a header with a bare line feed", get("/v1/lifecycles?x", [(b"X-Odd", b"a\nX-Other: b")]), 400, "malformed_http"
    )
    yield Case("an Authorization with an escape", get("/v1/lifecycles", key=b"\x1b[2J"), 400, "malformed_http")
    for name, value in {"text": b"\xc3\xa9", "a line": b"a b", "200 characters": b"x" * 200}.items():
        yield Case(f"a Request-Id that is {name}", get("/v1/nowhere", [(b"Request-Id", value)]), 404, "not_found")
    for method in ("TRACE", "CONNECT", "PATCH", "PROPFIND", "PUT", "DELETE"):
        code = "method_not_allowed"
        yield Case(f"the method {method}", request(method, ONE, b"{}"), 405, code)
    yield Case("a method that is none", request("TOUCH", ONE, b"{}"), 400, "malformed_http")
    override = [(b"X-HTTP-Method-Override", b"DELETE")]
    yield Case(
        "a method that another one covers", post("/v1/lifecycles/five-stages", b"{}", headers=override), 405, code
    )


def _keys() -> Iterator[Case]:
    for name, key in {
        "unknown": b"le_12345678_abcdefghijklmnopqrstuvwxyz0123456789AB",
        "another's prefix": KEY[:12],
        "a letter too many": KEY + b"x",
        "not ASCII": b"\xc3\xa9",
        "not UTF-8": b"\xff\xfe",
        "with a line separator": "a\u2028b".encode(),
        "30 KB": b"x" * 30_000,
        "SQL": b"' OR '1'='1",
        "the hash of it": b"0" * 64,
        "two": KEY + b", Bearer " + KEY,
    }.items():
        yield Case(f"a key that is {name}", post(ONE, BODY, key=key), 401, "key_unknown")
    for name, value in {
        "absent": None,
        "nothing": b"",
        "a word": b"Bearer",
        "only spaces": b"Bearer    ",
        "the key alone": KEY,
        "of another scheme": b"Negotiate " + KEY,
        "with a tab": b"Bearer\t" + KEY,
    }.items():
        headers = [] if value is None else [(b"Authorization", value)]
        yield Case(f"an authorization that is {name}", post(ONE, BODY, key=None, headers=headers), 401, "key_missing")
    twice = [(b"Authorization", b"Bearer " + KEY), (b"Authorization", b"Bearer other")]
    yield Case("two authorizations", post(ONE, BODY, key=None, headers=twice), 401, "key_missing")
    yield Case("a key in the query", post(f"{ONE}?api_key={API_KEY}", BODY, key=None), 401, "key_missing")
    yield Case("a key in a cookie", post(ONE, BODY, key=None, headers=[(b"Cookie", b"key=" + KEY)]), 401, "key_missing")
    for path in ("/metrics", "/v1/lifecycles", ADA, f"{ADA}/history", f"{ONE}/x", "/v1/jobs"):
        yield Case(f"no key at {path}", get(path, key=None), 401, "key_missing")


def _paths() -> Iterator[Case]:
    for name, path in {
        "nowhere": "/v1/nowhere",
        "the root": "/",
        "a slash too many": f"{ONE}/",
        "two slashes": "//v1/touchpoints",
        "two slashes inside": "/v1//touchpoints/x",
        "a dot": "/v1/./lifecycles",
        "a way up": "/v1/customers/../lifecycles",
        "a way up, encoded": "/v1/customers/%2e%2e/lifecycles",
        "a way out": "/../../etc/passwd",
        "a way out, encoded": "/%2e%2e/%2e%2e/etc/passwd",
        "capitals": "/V1/Lifecycles",
        "an encoded slash for a slash": "/v1%2Flifecycles",
        "an encoded letter": "/v1/lifecycle%73",
        "a parameter of a part": "/v1/lifecycles;x=1",
        "NUL": "/v1/%00",
        "half a percent sign": "/v1/%",
        "a wrong percent sign": "/v1/%zz",
        "not UTF-8": "/v1/%ff",
        "a backslash": "/v1\\lifecycles",
        "another host": "http://elsewhere/v1/nowhere",
    }.items():
        yield Case(f"a path that is {name}", get(path), 404, "not_found")
    yield Case("a path with a raw letter beyond ASCII", get("/v1/é".encode()), 400, "malformed_http")
    yield Case("a path with a raw NUL", get(b"/v1/\0"), 400, "malformed_http")
    yield Case("a path with a space", get("/v1/a b"), 400, "malformed_http")
    yield Case("a path of 1 MB", get(f"/v1/customers/{'x' * 1024**2}"), 414, "too_large")
    for name, value, status, code in (
        ("NUL", "%00", 422, "invalid_request"),
        ("NUL among others", "a%00b", 422, "invalid_request"),
        ("not UTF-8", "%ff", 422, "invalid_request"),
        ("an overlong slash", "%c0%af", 422, "invalid_request"),
        ("a surrogate", "%ed%a0%80", 422, "invalid_request"),
        ("257 characters", "x" * 257, 422, "invalid_request"),
        ("30 KB", "x" * 30_000, 422, "invalid_request"),
        ("a slash", "a%2Fb", 404, "customer_not_found"),
        ("a way up", "%2e%2e%2fada", 404, "customer_not_found"),
        ("encoded twice", "%2561da", 404, "customer_not_found"),
        ("two dots", "..", 404, "customer_not_found"),
        ("a line break", "a%0d%0ab", 404, "customer_not_found"),
        ("an escape sequence", "%1b[2J", 404, "customer_not_found"),
        ("a line separator", "%e2%80%a8", 404, "customer_not_found"),
        ("a quote", "%27%20OR%201=1--", 404, "customer_not_found"),
        ("a format", "%7B0.__class__%7D", 404, "customer_not_found"),
        ("a percent sign", "%", 404, "customer_not_found"),
        ("a plus", "a+b", 404, "customer_not_found"),
    ):
        yield Case(f"a customer that is {name}", get(f"/v1/customers/{value}"), status, code)
    yield Case("a customer that is nothing", get("/v1/customers/"), 404, "not_found")


CASES = [*_framing(), *_headers(), *_keys(), *_paths()]
