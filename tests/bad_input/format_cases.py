"""The formats and encodings in which touchpoints come, each with what is wrong in its own way."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator

from tests.bad_input.requests import ONE, Case, chunk, chunked, post, touchpoint
from tests.bad_input.touchpoint_cases import WRONG

LINES = b"application/x-ndjson"
VALIDATE = f"{ONE}/validate"
BODY = touchpoint()


def _lines() -> Iterator[Case]:
    """A line is refused alone; so a body of which nothing is to be taken has one line."""
    for name, raw, code in WRONG[1::3]:
        yield Case(f"{name}, on a line", post(ONE, raw + b"\n", media_type=LINES), 207, code)
    for name, body, code in (
        ("a broken line", b"{", "malformed"),
        ("an array for a line", b"[%b]" % BODY, "wrong_type"),
        ("two objects on a line", BODY + BODY, "malformed"),
        ("an object over two lines", BODY.replace(b",", b",\n"), "malformed"),
        ("a byte order mark before lines", b"\xef\xbb\xbf" + BODY, "malformed"),
        ("lines in UTF-16", BODY.decode().encode("utf-16"), "malformed"),
        ("lines that are not UTF-8", touchpoint(customer_id=b'"\xff"'), "malformed"),
        ("a record separator before a line", b"\x1e" + BODY, "malformed"),
        ("lines that end in commas", BODY + b",\n", "malformed"),
        ("a line separator between objects", BODY + "\u2028".encode() + BODY, "malformed"),
        ("NUL after a line", BODY + b"\0\n", "malformed"),
        ("a line of 257 KiB", b'"%b"' % (b"x" * 257 * 1024), "too_large"),
        ("a line of 20,000 levels", b"[" * 20_000 + b"]" * 20_000, "wrong_type"),
    ):
        yield Case(name, post(ONE, body, media_type=LINES), 207, code)
    bombs: dict[str, Callable[[], bytes]] = {
        "10,001 lines": lambda: (BODY + b"\n") * 10_001,
        "a million lines": lambda: b"{}\n" * 1_000_000,
        "9 MB of numbers on lines": lambda: b"1\n" * 4_700_000,
        "10 MiB of blank lines": lambda: b"\n" * (10 * 1024**2),
        "11 MiB of lines": lambda: b"\n" * (11 * 1024**2),
    }
    for name, made in bombs.items():
        yield Case(name, lambda made=made: post(ONE, made(), media_type=LINES), 413, "too_large")  # type: ignore[misc]
    yield Case(
        "lines in Latin-1",
        post(ONE, BODY, media_type=LINES + b"; charset=iso-8859-1"),
        415,
        "unsupported_media_type",
    )


def _validate() -> Iterator[Case]:
    """Says what is wrong, and takes nothing."""
    for name, raw, code in WRONG[::10]:
        yield Case(f"{name}, only to be looked at", post(VALIDATE, raw), 200, code)
    yield Case("nothing to be looked at", post(VALIDATE, b""), 200, "malformed")
    yield Case("a broken array to be looked at", post(VALIDATE, b"["), 400, "malformed")
    yield Case("text to be looked at", post(VALIDATE, BODY, media_type=b"text/plain"), 415, "unsupported_media_type")
    yield Case("something to be looked at without a key", post(VALIDATE, BODY, key=None), 401, "key_missing")


def bomb(megabytes: int, wbits: int) -> bytes:
    """White space, packed a thousand times smaller."""
    packer = zlib.compressobj(9, wbits=wbits)
    return b"".join(packer.compress(b" " * 1024**2) for _ in range(megabytes)) + packer.flush()


def _encodings() -> Iterator[Case]:
    def packed(encoding: bytes, body: bytes) -> bytes:
        return post(ONE, body, headers=[(b"Content-Encoding", encoding)])

    whole = gzip.compress(BODY)
    for name, sent, status, code in (
        ("nothing, as gzip", packed(b"gzip", b""), 400, "malformed"),
        ("plain JSON, as gzip", packed(b"gzip", BODY), 400, "malformed"),
        ("half of gzip", packed(b"gzip", whole[: len(whole) // 2]), 400, "malformed"),
        ("gzip without its trailer", packed(b"gzip", whole[:-8]), 400, "malformed"),
        ("gzip with a wrong checksum", packed(b"gzip", whole[:-8] + b"\0" * 8), 400, "malformed"),
        ("gzip and something behind it", packed(b"gzip", whole + b"x"), 400, "malformed"),
        ("gzip in gzip", packed(b"gzip", gzip.compress(whole)), 400, "malformed"),
        ("gzip in gzip, as it says", packed(b"gzip, gzip", gzip.compress(whole)), 415, "unsupported_encoding"),
        ("gzip of UTF-16", packed(b"gzip", gzip.compress(BODY.decode().encode("utf-16"))), 400, "malformed"),
        ("gzip of what is wrong", packed(b"gzip", gzip.compress(b'{"type":"a"}')), 422, "no_customer"),
        ("gzip of a wrong array", packed(b"gzip", gzip.compress(b'[{"type":"a"}]')), 207, "no_customer"),
        ("gzip that nobody told of", post(ONE, whole), 400, "malformed"),
        ("gzip, as deflate", packed(b"deflate", whole), 400, "malformed"),
        ("deflate, as gzip", packed(b"gzip", zlib.compress(BODY)), 400, "malformed"),
        ("half of deflate", packed(b"deflate", zlib.compress(BODY)[:-6]), 400, "malformed"),
        ("rubbish, as deflate", packed(b"deflate", b"\xff" * 100), 400, "malformed"),
        ("plain JSON, as zstd", packed(b"zstd", BODY), 400, "malformed"),
        ("nothing, as zstd", packed(b"zstd", b""), 400, "malformed"),
        ("half of a head, as zstd", packed(b"zstd", b"\x28\xb5\x2f\xfd"), 400, "malformed"),
        (
            "zstd that would need 2 GiB",
            packed(b"zstd", b"\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00"),
            400,
            "malformed",
        ),
        (
            "zstd that says it is 2^63 bytes",
            packed(b"zstd", b"\x28\xb5\x2f\xfd\xe0" + b"\xff" * 8 + b"\x01\x00\x00"),
            413,
            "too_large",
        ),
        ("br", packed(b"br", BODY), 415, "unsupported_encoding"),
        (
            "two encodings in two headers",
            post(ONE, whole, headers=[(b"Content-Encoding", b"gzip"), (b"Content-Encoding", b"br")]),
            415,
            "unsupported_encoding",
        ),
        (
            "half of gzip in chunks",
            chunked(ONE, [chunk(whole[:20])], headers=[(b"Content-Encoding", b"gzip")]),
            400,
            "malformed",
        ),
    ):
        yield Case(name, sent, status, code)
    yield Case("a gzip bomb of 11 MiB", lambda: packed(b"gzip", bomb(11, 31)), 413, "too_large")
    yield Case("a gzip bomb of 200 MiB", lambda: packed(b"gzip", bomb(200, 31)), 413, "too_large")
    yield Case("a deflate bomb of 50 MiB", lambda: packed(b"deflate", bomb(50, 15)), 413, "too_large")
    yield Case("a raw deflate bomb of 50 MiB", lambda: packed(b"deflate", bomb(50, -15)), 413, "too_large")
    yield Case("a gzip bomb in members", lambda: packed(b"gzip", gzip.compress(b" " * 1024**2) * 20), 413, "too_large")
    yield Case("gzip of 10,000 empty members", lambda: packed(b"gzip", gzip.compress(b"") * 10_000), 400, "malformed")


CASES = [*_lines(), *_validate(), *_encodings()]
