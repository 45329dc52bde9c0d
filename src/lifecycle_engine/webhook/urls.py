"""What an endpoint's URL may look like, and what of it is dialled and sent. Pure: no name is resolved here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, urlsplit

import idna

from lifecycle_engine.webhook.addresses import Address, canonical

LONGEST = 2048
"""Characters of a URL."""
PORTS = {"https": 443, "http": 80}
PUBLIC_PORTS = frozenset({443, 8443})
"""Where a receiver may listen that is outside of the allowed networks."""

_UNSEEN = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029\ud800-\udfff\\]")
_BRACKETS = re.compile(r"\[[0-9a-fA-F:.]+\](:[0-9]*)?")
_HOST = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
# What RFC 3986 lets stand in a path or a query; all else is sent percent-encoded.
_PATH = "/%:@!$&'()*+,;=-._~"


class URLError(ValueError):
    """The URL cannot be an endpoint's; the text says what is wrong, and what would be right."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart: where to dial, and what to ask for there."""

    scheme: str
    host: str
    """As it is resolved and named to TLS: lower case, IDNA, no final dot, no brackets."""
    port: int
    path: str
    """With the query, percent-encoded: the target of the request."""
    address: Address | None
    """The host, when it is an address."""

    @property
    def authority(self) -> str:
        """The value of the `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def is_public(self) -> bool:
        """Whether its scheme and port are fit for receivers outside of the allowed networks."""
        return self.scheme == "https" and self.port in PUBLIC_PORTS


def parse(url: str) -> Target:
    """Takes a URL apart. Raises URLError where it is none, or has what no endpoint may have."""
    if len(url) > LONGEST:
        raise URLError(f"is longer than {LONGEST} characters")
    if _UNSEEN.search(url):
        raise URLError("has a space, a backslash or a control character; percent-encode it")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise URLError("is not a URL such as https://example.com/hooks") from None
    if parts.scheme not in PORTS:
        raise URLError("must begin with https://")
    if "@" in parts.netloc:
        raise URLError("must not carry a user name or a password; the signature tells who sends")
    if "#" in url:
        raise URLError("must not have a fragment (#…), which is never sent")
    if port == 0:
        raise URLError("must have a port from 1 to 65535")
    host, address = _host(parts)
    path = quote(parts.path or "/", safe=_PATH) + (f"?{quote(parts.query, safe=_PATH + '?')}" if parts.query else "")
    return Target(parts.scheme, host, port or PORTS[parts.scheme], path, address)


def _host(parts: SplitResult) -> tuple[str, Address | None]:
    given = parts.hostname or ""
    if "[" in parts.netloc:
        try:
            address = canonical(given if _BRACKETS.fullmatch(parts.netloc) else "")
        except ValueError:
            raise URLError("has an IPv6 address that is none") from None
        return str(address), address
    # Wide forms and other scripts' dots are mapped first, so that what they stand for is what is judged.
    name = given if given.isascii() else _ascii(given)
    name = name.removesuffix(".")
    if len(name) > 253 or not _HOST.fullmatch(name):
        raise URLError("has no valid host name")
    if not _NUMBER.fullmatch(name.rpartition(".")[2]):
        return name, None
    # What ends in a number is an address to a resolver, in forms that few expect (0x7f000001, 127.1): one is enough.
    try:
        address = canonical(name)
    except ValueError:
        raise URLError("has an IPv4 address that is not of the form 192.0.2.1") from None
    return str(address), address


def _ascii(host: str) -> str:
    try:
        return idna.encode(host[:253], uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        raise URLError("has a host name that IDNA does not allow") from None
