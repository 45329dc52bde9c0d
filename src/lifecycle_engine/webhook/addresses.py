"""Which addresses a webhook may be sent to. Pure: whoever resolves and dials asks here, and nothing is looked up.

The networks are named one by one, since `ipaddress.is_global` calls much global that isn't (multicast, NAT64 and 6to4
around a private address, and more). Sources: the special-purpose registries of IANA (RFC 6890 and its updates), and
the addresses at which the clouds answer their machines' questions.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

DENIED: dict[str, str] = {
    "0.0.0.0/8": "this network",
    "10.0.0.0/8": "private",
    "100.64.0.0/10": "shared by a provider's customers",
    "127.0.0.0/8": "loopback",
    "168.63.129.16/32": "metadata of a cloud",
    "169.254.0.0/16": "link-local, and metadata of most clouds",
    "172.16.0.0/12": "private",
    "192.0.0.0/24": "protocol assignments",
    "192.0.2.0/24": "documentation",
    "192.88.99.0/24": "6to4 relays",
    "192.168.0.0/16": "private",
    "198.18.0.0/15": "benchmarks",
    "198.51.100.0/24": "documentation",
    "203.0.113.0/24": "documentation",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved, and broadcast",
    "::/96": "unspecified, loopback, and IPv4-compatible",
    "::ffff:0:0:0/96": "IPv4-translated",
    "64:ff9b::/96": "NAT64",
    "64:ff9b:1::/48": "NAT64 of a local network",
    "100::/64": "discarded",
    "2001::/23": "protocol assignments, among them Teredo",
    "2001:db8::/32": "documentation",
    "2002::/16": "6to4",
    "3fff::/20": "documentation",
    "5f00::/16": "segment routing",
    "fc00::/7": "unique local",
    "fe80::/10": "link-local",
    "fec0::/10": "site-local",
    "ff00::/8": "multicast",
    # All that is global unicast is in 2000::/3 (RFC 4291); the rest, also where it isn't named above, is not.
    "::/3": "not global unicast",
    "4000::/2": "not global unicast",
    "8000::/1": "not global unicast",
}
"""Networks to which nothing is sent, unless they are allowed by name."""

NEVER: dict[str, str] = {
    "0.0.0.0/8": "this network",
    "100.100.100.200/32": "metadata of a cloud",
    "168.63.129.16/32": "metadata of a cloud",
    "169.254.0.0/16": "link-local, and metadata of most clouds",
    "192.0.0.192/32": "metadata of a cloud",
    "224.0.0.0/4": "multicast",
    "255.255.255.255/32": "broadcast",
    "::/128": "unspecified",
    "fd00:ec2::/32": "metadata of a cloud",
    "fd20:ce::254/128": "metadata of a cloud",
    "fe80::/10": "link-local",
    "ff00::/8": "multicast",
}
"""Networks to which nothing is sent, though a wider one around them be allowed."""


class Guard:
    """Says of an address whether it may be dialled. `allowed` names networks that are ours to reach."""

    def __init__(self, allowed: Iterable[Network] = ()) -> None:
        self._allowed = tuple(allowed)

    @property
    def allows_networks(self) -> bool:
        return bool(self._allowed)

    def is_allowed_network(self, address: Address) -> bool:
        """Whether the settings name its network: there also http, and every port, may be used."""
        return _within(address, self._allowed) and not _within(address, _NEVER)

    def can_be_allowed(self, address: Address) -> bool:
        """Whether the settings could name its network, be it that they do or not."""
        return not _within(address, _NEVER)

    def is_denied(self, address: Address) -> bool:
        """Whether nothing may be sent there. Of an address that embeds an IPv4 one, give the canonical form."""
        return _within(address, _DENIED) and not self.is_allowed_network(address)


def canonical(text: str) -> Address:
    """The address that a socket would really reach: `::ffff:a.b.c.d` is a.b.c.d. Raises ValueError."""
    address = ip_address(text)
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            raise ValueError("an address with a zone is link-local")
        return address.ipv4_mapped or address
    return address


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)


_DENIED = tuple(ip_network(network) for network in DENIED)
_NEVER = tuple(ip_network(network) for network in NEVER)
