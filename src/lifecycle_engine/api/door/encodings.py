"""Content encodings of requests, undone without ever making more of them than is allowed."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping

import cramjam

_MAX_MEMBERS = 100
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_WINDOW = 8 * 1024 * 1024
"""What a decoder must be able to hold, and so the most that an encoder may ask for (RFC 9659, section 3)."""


class TooLongError(Exception):
    """It would be longer than it may be."""


def inflate(encoding: str, data: bytes, limit: int) -> bytes:
    """What data in one of the `ENCODINGS` stands for, of at most `limit` bytes.

    Raises TooLongError, having inflated no more than that, and ValueError for what is not in this encoding.
    """
    return _INFLATE[encoding](data, limit)


def _gzip(data: bytes, limit: int) -> bytes:
    """One member after the other (RFC 1952, section 2.2)."""
    parts: list[bytes] = []
    for _ in range(_MAX_MEMBERS):
        part, data = _zlib(data, limit, 16 + zlib.MAX_WBITS)
        parts.append(part)
        limit -= len(part)
        if not data:
            return b"".join(parts)
    raise ValueError(f"it has more than {_MAX_MEMBERS} members")


def _deflate(data: bytes, limit: int) -> bytes:
    """With zlib's wrapping, as HTTP means it, or without, as some send it."""
    try:
        inflated, rest = _zlib(data, limit, zlib.MAX_WBITS)
    except ValueError:
        inflated, rest = _zlib(data, limit, -zlib.MAX_WBITS)
    if rest:
        raise ValueError("something follows its end")
    return inflated


def _zlib(data: bytes, limit: int, wbits: int) -> tuple[bytes, bytes]:
    """What the first stream stands for, and what follows it."""
    stream = zlib.decompressobj(wbits)
    try:
        inflated = stream.decompress(data, limit + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if len(inflated) > limit:
        raise TooLongError
    if not stream.eof:
        raise ValueError("it ends too early")
    return inflated, stream.unused_data


def _zstd(data: bytes, limit: int) -> bytes:
    window, size = _zstd_header(data)
    if size is not None and size > limit:
        raise TooLongError
    if window > _ZSTD_WINDOW and size is None:
        raise ValueError(f"its window is larger than {_ZSTD_WINDOW} bytes")
    # Written into a place of a fixed length, past which the decoder cannot go.
    place = bytearray(limit + 1)
    try:
        length = cramjam.zstd.decompress_into(data, place)
    except cramjam.DecompressionError as error:
        if "whole buffer" in str(error):
            raise TooLongError from None
        raise ValueError(str(error)[:200]) from None
    if length > limit:
        raise TooLongError
    return bytes(memoryview(place)[:length])


def _zstd_header(data: bytes) -> tuple[int, int | None]:
    """Bytes of the window and of the content, where they are told (RFC 8878, section 3.1.1.1)."""
    if data[:4] != _ZSTD_MAGIC or len(data) < 6:
        raise ValueError("it does not begin as a frame does")
    descriptor = data[4]
    is_single = bool(descriptor & 0x20)
    at, window = 5, 0
    if not is_single:
        base = 1 << (10 + (data[5] >> 3))
        window = base + base // 8 * (data[5] & 7)
        at = 6
    at += (0, 1, 2, 4)[descriptor & 3]
    width = (1 if is_single else 0, 2, 4, 8)[descriptor >> 6]
    if width == 0:
        return window, None
    size = int.from_bytes(data[at : at + width], "little") + (256 if width == 2 else 0)
    return window, size


def _as_it_is(data: bytes, limit: int) -> bytes:
    if len(data) > limit:
        raise TooLongError
    return data


_INFLATE: Mapping[str, Callable[[bytes, int], bytes]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "zstd": _zstd,
    "identity": _as_it_is,
}
ENCODINGS = tuple(_INFLATE)
