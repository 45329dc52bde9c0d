"""The text of an API key: `le_<8>_<32><6>`.

A prefix by which scanners find it, an id that may be shown, a secret, and a CRC-32 of all before it, which tells a key
from a lookalike, and a mistyped one, without asking anybody.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib

MAX_BYTES = 256
"""Of anything that is taken for a key; what the operator chose as a first key need not be of this form."""

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_FORM = re.compile(rb"le_[0-9A-Za-z]{8}_[0-9A-Za-z]{38}").fullmatch
_CHECKSUM_DIGITS = 6


def generate_key() -> str:
    """A new key's text."""
    body = f"le_{_random(8)}_{_random(32)}"
    return body + _checksum(body.encode())


def key_id(text: str) -> str:
    """The part of a key that may be shown."""
    return text[3:11]


def digest(text: bytes) -> bytes:
    """What is stored of a key, and what it is found by, so that the time that takes tells nothing about any key."""
    return hashlib.sha256(text).digest()


def may_be_key(text: bytes) -> bool:
    """Whether the text has the form of a key and its checksum is right. Nobody ever made another one."""
    body, checksum = text[:-_CHECKSUM_DIGITS], text[-_CHECKSUM_DIGITS:]
    return _FORM(text) is not None and _checksum(body).encode() == checksum


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _checksum(body: bytes) -> str:
    number, digits = zlib.crc32(body), []
    for _ in range(_CHECKSUM_DIGITS):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
