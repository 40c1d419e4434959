"""This module says which addresses a caller may send this service to: public ones, and those that the operator
named."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Beside what `ipaddress` itself calls private, multicast and so on, in any version of Python that this runs on.
_CLOSED: tuple[Network, ...] = tuple(
    map(
        ip_network,
        (
            "100.64.0.0/10",  # carriers' inner networks; clouds answer for their metadata there
            "168.63.129.16/32",  # the same, at another cloud
            "192.0.0.0/24",  # IETF protocol assignments
            "192.88.99.0/24",  # 6to4 relays
            "198.18.0.0/15",  # benchmarks
            "240.0.0.0/4",
            "::/96",  # IPv4-compatible
            "64:ff9b:1::/48",  # NAT64, a network's own
            "2001::/32",  # Teredo
            "2002::/16",  # 6to4
            "fec0::/10",  # site-local
        ),
    )
)
_NAT64 = ip_network("64:ff9b::/96")  # RFC 6052


def is_public(address: Address) -> bool:
    """Return whether an address is one of the open internet, also where an IPv6 address embeds one of IPv4."""
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return False
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    if any(address in network for network in _CLOSED):
        return False
    special = address.is_multicast or address.is_reserved or address.is_unspecified or address.is_loopback
    return address.is_global and not special and not address.is_link_local


@dataclass(frozen=True, slots=True)
class Allowed:
    """The operator opens these beside public addresses: hosts by name, whatever address they have, and networks.

    `setting` is where the operator does so, for the remedy.
    """

    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()
    setting: str | None = None

    def permits(self, host: str, address: Address) -> bool:
        if host.lower() in self.hosts or is_public(address):
            return True
        plain = address.ipv4_mapped if isinstance(address, IPv6Address) and address.ipv4_mapped else address
        return any(plain in network for network in self.networks)


def read_allowed(words: Iterable[str], setting: str | None = None) -> Allowed:
    """Return what host names, addresses and networks open. A word that is no address is a name.

    Raises `ValueError` for a bad network.
    """
    hosts, networks = set(), []
    for word in words:
        if "/" in word:
            networks.append(ip_network(word))
            continue
        try:
            networks.append(ip_network(ip_address(word)))
        except ValueError:
            hosts.add(word.lower())
    return Allowed(frozenset(hosts), tuple(networks), setting)
