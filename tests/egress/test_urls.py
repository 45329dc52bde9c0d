"""What an endpoint's URL may look like."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle_engine.webhook.urls import LONGEST, Target, URLError, parse


@pytest.mark.parametrize(
    ("url", "authority", "path"),
    [
        ("https://example.com", "example.com", "/"),
        ("HTTPS://Example.COM:443/Hooks", "example.com", "/Hooks"),
        ("https://example.com.:8443/a?b=c&d=%20", "example.com:8443", "/a?b=c&d=%20"),
        ("https://example.com?a=/?", "example.com", "/?a=/?"),
        ("http://10.0.0.1/", "10.0.0.1", "/"),
        ("http://receiver:9000/", "receiver:9000", "/"),
        ("https://my_service.internal/", "my_service.internal", "/"),
        ("https://[2606:4700::1111]:8443/", "[2606:4700::1111]:8443", "/"),
        ("https://bücher.example/stück?för=å", "xn--bcher-kva.example", "/st%C3%BCck?f%C3%B6r=%C3%A5"),
        ("https://ⓔⓧⓐⓜⓟⓛⓔ.com/", "example.com", "/"),
        ('https://example.com/"<>', "example.com", "/%22%3C%3E"),
    ],
)
def test_a_url_is_taken_apart(url: str, authority: str, path: str) -> None:
    target = parse(url)
    assert (target.authority, target.path) == (authority, path)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "must begin with https://"),
        ("example.com", "must begin with https://"),
        ("//example.com/", "must begin with https://"),
        ("file:///etc/passwd", "must begin with https://"),
        ("gopher://example.com/", "must begin with https://"),
        ("ftp://example.com/", "must begin with https://"),
        ("javascript:alert(1)", "must begin with https://"),
        ("https:/example.com", "host name"),
        ("https://", "host name"),
        ("https://:443/", "host name"),
        ("https://user@example.com/", "user name"),
        ("https://user:secret@example.com/", "user name"),
        ("https://1.1.1.1@127.0.0.1/", "user name"),
        ("https://@example.com/", "user name"),
        ("https://example.com/#part", "fragment"),
        ("https://example.com#@127.0.0.1/", "fragment"),
        ("https://example.com/a b", "space"),
        ("https://example.com/\r\nX-Injected: 1", "control character"),
        ("https://exam\tple.com/", "control character"),
        ("https://example.com\\@127.0.0.1/", "backslash"),
        ("https://example.com/\x00", "control character"),
        ("https://example.com/\u2028", "control character"),
        ("https://example.com/\ud800", "control character"),
        ("https://example.com:0/", "1 to 65535"),
        ("https://example.com:65536/", "is not a URL"),
        ("https://example.com:-1/", "is not a URL"),
        ("https://example.com:٤٤٣/", "is not a URL"),
        ("https://example.com:https/", "is not a URL"),
        ("https://[::1", "is not a URL"),
        ("https://[::1]x/", "is not a URL|IPv6"),
        ("https://[fe80::1%25eth0]/", "is not a URL|IPv6"),
        ("https://[v1.a]/", "is not a URL|IPv6"),
        ("https://a..b/", "host name"),
        ("https://-a.com/", "host name"),
        ("https://%31%32%37.0.0.1/", "host name"),
        ("https://exam!ple.com/", "host name"),
        ("https://" + "a" * 64 + ".com/", "host name"),
        ("https://" + "a." * 127 + "com/", "host name"),
        ("https://xn--zz.é/", "IDNA"),
        ("https://ex℀mple.com/", "is not a URL"),
        ("https://example.com/" + "a" * LONGEST, "longer than"),
    ],
)
def test_what_is_wrong_with_a_url_is_said(url: str, says: str) -> None:
    with pytest.raises(URLError, match=says):
        parse(url)


@pytest.mark.parametrize(
    "host",
    ["2130706433", "0x7f000001", "0x7f.1", "127.1", "127.0.1", "0", "0177.0.0.1", "017700000001", "127.0.0.01",
     "1.2.3.256", "1.2.3.4.5", "example.0x7f", "example.123", "0x", "127.0.0.0x1", "①②⑦.①"],
)  # fmt: skip
def test_an_odd_way_to_write_an_address_is_refused(host: str) -> None:
    with pytest.raises(URLError, match="IPv4"):
        parse(f"https://{host}/")


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("127。0。0。1", "127.0.0.1"),
        ("①②⑦.⓪.⓪.①", "127.0.0.1"),
        ("[::ffff:7f00:1]", "127.0.0.1"),
        ("[::ffff:169.254.169.254]", "169.254.169.254"),
        ("[0:0:0:0:0:0:0:1]", "::1"),
        ("[::]", "::"),
    ],
)
def test_an_address_is_known_for_one(host: str, address: str) -> None:
    target = parse(f"https://{host}/")
    assert (str(target.address), target.host) == (address, address)


def test_a_name_is_no_address() -> None:
    assert parse("https://1.2.3.4.example/").address is None
    assert parse("https://4x/").address is None


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("https://example.com/", True),
        ("https://example.com:8443/", True),
        ("https://example.com:25/", False),
        ("https://example.com:80/", False),
        ("http://example.com/", False),
        ("http://example.com:443/", False),
    ],
)
def test_only_https_on_its_ports_is_public(url: str, public: bool) -> None:
    assert parse(url).is_public is public


@given(st.text() | st.builds("https://{}{}".format, st.text(), st.sampled_from(["", "/", ":443/", "?", "@x", "]"])))
def test_whatever_is_given_is_a_target_that_can_be_sent_or_an_error(url: str) -> None:
    try:
        target = parse(url)
    except URLError:
        return
    assert isinstance(target, Target)
    sent = f"{target.authority}{target.path}"
    assert sent.isascii()
    assert sent.isprintable()
    assert " " not in sent
    assert "@" not in target.authority
    assert parse(f"{target.scheme}://{sent}") == target
