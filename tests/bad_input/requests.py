"""Requests as bytes on the wire, and the rows of the table that say what each of them is answered with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from tests.processes import API_KEY

CLOSED = 0
"""In the place of a status: the connection is closed without an answer."""

ONE = "/v1/touchpoints"
ADA = "/v1/customers/ada"
"""A customer that there is; `door.py` brings its touchpoints in."""
JSON = b"application/json"


class Case(NamedTuple):
    """One row: what is sent, and the status and the `code` that it is answered with.

    With a status of 207 the code is that of the first item's problem, and nothing else of the request may be taken.
    Where the request is not sent to its end, `ends` says that the client stops sending there.
    """

    name: str
    request: bytes | Callable[[], bytes]
    status: int
    code: str
    ends: bool = False

    def sent(self) -> bytes:
        return self.request if isinstance(self.request, bytes) else self.request()


Headers = Iterable[tuple[bytes, bytes]]


def request(
    method: str,
    path: str | bytes,
    body: bytes | None = None,
    *,
    media_type: bytes | None = JSON,
    key: bytes | None = API_KEY.encode(),
    headers: Headers = (),
    length: bytes | None = None,
) -> bytes:
    """A whole request; `length` is said of the body in the place of its true one, and empty says none."""
    lines = [b"%b %b HTTP/1.1" % (method.encode(), path.encode() if isinstance(path, str) else path), b"Host: here"]
    if key is not None:
        lines.append(b"Authorization: Bearer " + key)
    if body is not None:
        if media_type is not None:
            lines.append(b"Content-Type: " + media_type)
        length = b"%d" % len(body) if length is None else length
        if length:
            lines.append(b"Content-Length: " + length)
    lines += [b"%b: %b" % header for header in headers]
    lines.append(b"Connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


def get(path: str | bytes, headers: Headers = (), key: bytes | None = API_KEY.encode()) -> bytes:
    return request("GET", path, headers=headers, key=key)


def post(
    path: str | bytes,
    body: bytes,
    *,
    media_type: bytes | None = JSON,
    headers: Headers = (),
    key: bytes | None = API_KEY.encode(),
    length: bytes | None = None,
) -> bytes:
    return request("POST", path, body, media_type=media_type, headers=headers, key=key, length=length)


def chunked(path: str, chunks: Iterable[bytes], headers: Headers = (), end: bytes = b"0\r\n\r\n") -> bytes:
    """A request whose body comes in chunks, each given as its size line and what follows."""
    head = request("POST", path, b"", length=b"", headers=[(b"Transfer-Encoding", b"chunked"), *headers])
    return head + b"".join(chunks) + end


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def touchpoint(**fields: bytes) -> bytes:
    """A touchpoint of type `a` about the customer `c`, but for what is given; each value is JSON already."""
    whole = {"type": b'"a"', "customer_id": b'"c"', **fields}
    return b"{%b}" % b",".join(b'"%b":%b' % (name.encode(), value) for name, value in whole.items())


def text(length: int, character: bytes = b"x") -> bytes:
    return b'"' + character * length + b'"'
