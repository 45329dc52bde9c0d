"""Which addresses webhooks go to: each network's first and last address, and the neighbours on either side of it."""

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest

from lifecycle_engine.webhook.addresses import DENIED, NEVER, Address, Guard, Network, canonical

# Where a denied network's neighbour is open to webhooks. None: it belongs to another denied network, or to none at all.
OPEN_NEIGHBOURS: dict[str, tuple[str | None, str | None]] = {
    "0.0.0.0/8": (None, "1.0.0.0"),
    "10.0.0.0/8": ("9.255.255.255", "11.0.0.0"),
    "100.64.0.0/10": ("100.63.255.255", "100.128.0.0"),
    "127.0.0.0/8": ("126.255.255.255", "128.0.0.0"),
    "168.63.129.16/32": ("168.63.129.15", "168.63.129.17"),
    "169.254.0.0/16": ("169.253.255.255", "169.255.0.0"),
    "172.16.0.0/12": ("172.15.255.255", "172.32.0.0"),
    "192.0.0.0/24": ("191.255.255.255", "192.0.1.0"),
    "192.0.2.0/24": ("192.0.1.255", "192.0.3.0"),
    "192.88.99.0/24": ("192.88.98.255", "192.88.100.0"),
    "192.168.0.0/16": ("192.167.255.255", "192.169.0.0"),
    "198.18.0.0/15": ("198.17.255.255", "198.20.0.0"),
    "198.51.100.0/24": ("198.51.99.255", "198.51.101.0"),
    "203.0.113.0/24": ("203.0.112.255", "203.0.114.0"),
    "224.0.0.0/4": ("223.255.255.255", None),
    "240.0.0.0/4": (None, None),
    "::/96": (None, None),
    "::ffff:0:0:0/96": (None, None),
    "64:ff9b::/96": (None, None),
    "64:ff9b:1::/48": (None, None),
    "100::/64": (None, None),
    "2001::/23": ("2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:200::"),
    "2001:db8::/32": ("2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9::"),
    "2002::/16": ("2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2003::"),
    "3fff::/20": ("3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff:1000::"),
    "5f00::/16": (None, None),
    "fc00::/7": (None, None),
    "fe80::/10": (None, None),
    "fec0::/10": (None, None),
    "ff00::/8": (None, None),
    "::/3": (None, "2000::"),
    "4000::/2": ("3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None),
    "8000::/1": (None, None),
}


def edges() -> Iterator[tuple[str, Address]]:
    for network in DENIED:
        parsed = ip_network(network)
        yield network, parsed[0]
        yield network, parsed[-1]
        yield network, parsed[parsed.num_addresses // 2]


@pytest.mark.parametrize(("network", "address"), list(edges()), ids=str)
def test_the_edges_of_a_denied_network_are_denied(network: str, address: Address) -> None:
    assert Guard().is_denied(address)


@pytest.mark.parametrize("network", DENIED)
def test_what_is_beside_a_denied_network_is_open(network: str) -> None:
    parsed = ip_network(network)
    for neighbour, distance in zip(OPEN_NEIGHBOURS[network], (-1, parsed.num_addresses), strict=True):
        if neighbour is not None:
            assert int(ip_address(neighbour)) == int(parsed[0]) + distance
            assert not Guard().is_denied(ip_address(neighbour))


@pytest.mark.parametrize(
    "address",
    [  # is_global calls these global in some version of Python
        "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "::127.0.0.1", "192.0.0.8", "224.0.0.1", "fec0::1", "224.1.2.3",
        "192.88.99.3", "192.0.0.255", "2002:c0a8:1::1", "64:ff9b::c0a8:0", "64:ff9b:1::1", "3fff::", "5f00::",
        "ff02::1",
        # metadata
        "169.254.169.254", "100.100.100.200", "fd00:ec2::254", "168.63.129.16", "192.0.0.192", "fd20:ce::254",
        # IPv4 in IPv6
        "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:10.0.0.1", "::ffff:0:127.0.0.1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "::", "::1", "0.0.0.0", "255.255.255.255",
    ],
)  # fmt: skip
def test_ways_to_an_address_inside_are_denied(address: str) -> None:
    assert Guard().is_denied(canonical(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "::ffff:8.8.8.8", "93.184.215.14", "2606:4700::1111", "2a00:1450::1"])
def test_addresses_outside_are_open(address: str) -> None:
    assert not Guard().is_denied(canonical(address))
    assert not Guard().is_allowed_network(canonical(address))


def test_a_mapped_address_is_what_it_maps_to() -> None:
    assert str(canonical("::ffff:7f00:1")) == "127.0.0.1"


@pytest.mark.parametrize("text", ["fe80::1%eth0", "127.1", "0x7f000001", "", "1.2.3.4/32", "example.com"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        canonical(text)


def guard(*networks: str) -> Guard:
    parsed: list[Network] = [ip_network(network) for network in networks]
    return Guard(parsed)


def test_an_allowed_network_is_open_to_its_edges() -> None:
    allowing = guard("10.1.0.0/16", "fd00:1::/32")
    for address in ("10.1.0.0", "10.1.255.255", "::ffff:10.1.2.3", "fd00:1::", "fd00:1:ffff:ffff:ffff:ffff:ffff:ffff"):
        assert not allowing.is_denied(canonical(address))
        assert allowing.is_allowed_network(canonical(address))
    for address in ("10.0.255.255", "10.2.0.0", "127.0.0.1", "fd00:0:ffff::", "fd00:2::"):
        assert allowing.is_denied(canonical(address))
        assert not allowing.is_allowed_network(canonical(address))


@pytest.mark.parametrize("network", NEVER)
def test_metadata_stays_denied_in_whatever_network_is_allowed(network: str) -> None:
    allowing = guard("0.0.0.0/0", "::/0", "100.64.0.0/10", "169.254.169.254/32", "fc00::/7")
    parsed = ip_network(network)
    for address in (parsed[0], parsed[-1]):
        assert allowing.is_denied(address)
        assert not allowing.is_allowed_network(address)
