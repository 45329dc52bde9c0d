"""What came of sending one request: the receiver's answer, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

KEPT_HEADERS = ("content-type", "retry-after", "webhook-delivery")
LONGEST_HEADER = 256
"""Characters of a kept header's value."""


class Failure(StrEnum):
    """Why an exchange has no complete answer. The values are stored and shown, so they do not change."""

    INVALID_URL = "invalid_url"
    """The URL may not be an endpoint's, or no longer: https, port, user name …"""
    INVALID_HEADER = "invalid_header"
    """A header that HTTP does not allow, or that the sender sets itself. Nothing was sent."""
    DENIED_ADDRESS = "denied_address"
    """At least one address of the host may not be reached. Nothing was sent."""
    DNS = "dns"
    REFUSED = "refused"
    """No address of the host takes connections."""
    TLS = "tls"
    """The certificate is not valid for the host, or the two ends have no TLS in common."""
    TIMEOUT = "timeout"
    RESET = "reset"
    """The connection ended before the answer did."""
    PROTOCOL = "protocol"
    """What came is not HTTP."""
    TOO_LARGE = "too_large"
    """The answer's headers go on and on. A long body is no failure: it is cut."""
    PROXY = "proxy"
    """Our own proxy does not work, or does not let us through."""
    LOCAL = "local"
    """This process has no socket left."""
    UNEXPECTED = "unexpected"
    """An error in the sender, which is in the process's log."""


OURS = frozenset({Failure.PROXY, Failure.LOCAL})
"""Failures that say nothing about the receiver, and so use up none of its attempts."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and what came of it. With a failure, `status` and what follows are what had come by then."""

    status: int | None
    failure: Failure | None
    detail: str
    """A sentence about the failure for whoever runs the receiver; empty without one."""
    headers: Mapping[str, str]
    """Those of the answer that matter to the delivery, by their names in lower case: KEPT_HEADERS."""
    response: bytes
    """The first 16 KiB of the body, as they came."""
    seconds: float

    @property
    def succeeded(self) -> bool:
        """Whether the receiver has taken it: a complete 2xx answer."""
        return self.failure is None and self.status is not None and 200 <= self.status < 300

    @property
    def ours(self) -> bool:
        """Whether it failed before the receiver came into play."""
        return self.failure in OURS


@dataclass(slots=True)
class Answer:
    """What has come so far; filled in while it comes, so that a failure leaves what there was."""

    status: int | None = None
    headers: Sequence[tuple[bytes, bytes]] = ()
    """All of them, their names as the receiver wrote them."""
    body: bytearray = field(default_factory=bytearray)

    def header(self, name: str) -> str | None:
        """The first value of this header, cut where it is absurdly long."""
        for key, value in self.headers:
            if key.lower() == name.encode("ascii"):
                return value.decode("latin-1")[:LONGEST_HEADER]
        return None

    def kept_headers(self) -> dict[str, str]:
        """Those that matter to a delivery."""
        found = ((name, self.header(name)) for name in KEPT_HEADERS)
        return {name: value for name, value in found if value is not None}


class ExchangeError(Exception):
    """The exchange has failed, for this reason."""

    def __init__(self, failure: Failure, detail: str) -> None:
        super().__init__(detail)
        self.failure = failure
        self.detail = detail
