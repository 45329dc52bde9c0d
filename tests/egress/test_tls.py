"""Certificates: whoever answers must be who the URL names, at whatever address."""

import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
import trustme

from lifecycle_engine.webhook.exchange import Exchange, Failure
from lifecycle_engine.webhook.sender import default_tls
from tests.egress.receivers import HEADERS, receiver, sender

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """What the service verifies with, and our authority's certificate."""
    context = default_tls()
    authority.configure_trust(context)
    return context


def lookup(host: str, port: int) -> Sequence[str]:
    return ["127.0.0.1"]


def serving(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


async def send(tls: ssl.SSLContext, trusting: ssl.SSLContext, host: str = "receiver.test") -> Exchange:
    async with receiver(tls=tls) as one, sender(lookup=lookup, tls=trusting) as ours:
        result = await ours.send(one.url(scheme="https", host=host), HEADERS, b"{}")
    assert bool(one.requests) is (result.failure is None)
    return result


async def test_a_good_certificate(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    tls = serving(authority.issue_cert("receiver.test"))
    async with receiver(tls=tls) as good, sender(lookup=lookup, tls=trusting) as ours:
        for _ in range(3):
            result = await ours.send(good.url(scheme="https", host="receiver.test"), HEADERS, b"{}")
            assert result.succeeded, result
        assert good.connections == 1
        # Dialled by its address, yet TLS and HTTP are told the name.
        assert good.names == ["receiver.test"]
        assert good.requests[0].headers["host"] == f"receiver.test:{good.port}"


async def test_a_good_certificate_of_an_international_name(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    tls = serving(authority.issue_cert("xn--bcher-kva.test"))
    assert (await send(tls, trusting, host="bücher.test")).succeeded


async def test_a_good_certificate_of_an_address(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    assert (await send(serving(authority.issue_cert("127.0.0.1")), trusting, host="127.0.0.1")).succeeded
    assert (
        await send(serving(authority.issue_cert("receiver.test")), trusting, host="127.0.0.1")
    ).failure is Failure.TLS


@pytest.mark.parametrize(
    ("names", "says"),
    [(["other.test"], "Hostname mismatch"), (["127.0.0.1"], "Hostname mismatch"), (["*.receiver.test"], "mismatch")],
)
async def test_another_s_certificate(
    authority: trustme.CA, trusting: ssl.SSLContext, names: list[str], says: str
) -> None:
    result = await send(serving(authority.issue_cert(*names)), trusting)
    assert result.failure is Failure.TLS
    assert says in result.detail


async def test_an_expired_certificate(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    expired = authority.issue_cert(
        "receiver.test", not_before=NOW - timedelta(days=9), not_after=NOW - timedelta(days=1)
    )
    result = await send(serving(expired), trusting)
    assert result.failure is Failure.TLS
    assert "expired" in result.detail


async def test_a_certificate_that_is_not_valid_yet(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    early = authority.issue_cert("receiver.test", not_before=NOW + timedelta(days=1), not_after=NOW + timedelta(days=9))
    result = await send(serving(early), trusting)
    assert result.failure is Failure.TLS
    assert "not yet valid" in result.detail


async def test_a_certificate_of_nobody_we_trust(trusting: ssl.SSLContext) -> None:
    result = await send(serving(trustme.CA().issue_cert("receiver.test")), trusting)
    assert result.failure is Failure.TLS
    assert "certificate" in result.detail


async def test_without_our_authority_s_certificate_its_own_are_nobody_s(authority: trustme.CA) -> None:
    result = await send(serving(authority.issue_cert("receiver.test")), default_tls())
    assert result.failure is Failure.TLS


async def test_a_receiver_that_wants_a_certificate_of_ours(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    tls = serving(authority.issue_cert("receiver.test"))
    tls.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(tls)
    result = await send(tls, trusting)
    assert result.failure in (Failure.TLS, Failure.RESET)  # as the receiver says why, or just hangs up


async def test_tls_of_the_last_century(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    tls = serving(authority.issue_cert("receiver.test"))
    tls.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1 is deprecated"):
        tls.minimum_version = tls.maximum_version = ssl.TLSVersion.TLSv1
    result = await send(tls, trusting)
    assert result.failure in (Failure.TLS, Failure.RESET)
