"""
PROXY protocol headers, so that a target sees the visitor's address ("The PROXY protocol, versions 1 & 2", haproxy.org).

The listener sends one as the first of the visitor's bytes, so it needs nothing of the connector, and the original's
connector passes it on as well.
"""

from ipaddress import IPv4Address, IPv6Address, ip_address
from struct import pack
from typing import Literal

from ..interfaces import Address

#: §2.2 of the specification.
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
#: Version 2, command PROXY.
_VERSION_COMMAND = 0x21
#: TCP over IPv4, TCP over IPv6.
_FAMILY_4, _FAMILY_6 = 0x11, 0x21


def formatProxyHeader(version: Literal[1, 2], source: Address, destination: Address) -> bytes:
    """
    The header of that version.

    The header has one family for both addresses: when one is IPv4 and the other IPv6, the IPv4 one is written as an
    IPv4-mapped IPv6 address. It has no place for the scope of a link-local address.

    :param source: the visitor's address; ``destination``: what it connected to.
    """
    hosts = _sameFamily(*(ip_address(host.partition("%")[0]) for host in (source[0], destination[0])))
    isIPv6 = isinstance(hosts[0], IPv6Address)
    if version == 1:
        family = "TCP6" if isIPv6 else "TCP4"
        return f"PROXY {family} {hosts[0]} {hosts[1]} {source[1]} {destination[1]}\r\n".encode("ascii")
    addresses = hosts[0].packed + hosts[1].packed + pack("!HH", source[1], destination[1])
    return _SIGNATURE + pack("!BBH", _VERSION_COMMAND, _FAMILY_6 if isIPv6 else _FAMILY_4, len(addresses)) + addresses


def _sameFamily(
    one: IPv4Address | IPv6Address, other: IPv4Address | IPv6Address
) -> tuple[IPv4Address | IPv6Address, IPv4Address | IPv6Address]:
    if one.version == other.version:
        return one, other
    return _mapped(one), _mapped(other)


def _mapped(address: IPv4Address | IPv6Address) -> IPv6Address:
    return address if isinstance(address, IPv6Address) else IPv6Address(f"::ffff:{address}")
