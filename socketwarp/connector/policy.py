"""
Which targets the listener may make us dial. Pure: no name is resolved and nothing is opened here.

Without rules everything may be dialled but what is built in as refused. With rules, only what one of them allows. A
rule with a host pattern speaks about the name that was asked for, whatever it resolves to; a rule with a network speaks
about addresses. What is built in as refused stays refused, unless a rule names a network inside of it.
"""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

import attrs

from ..errors import TargetDenied
from ..settings import TargetRule
from .names import IPAddress, literal, place

#: What no visitor should reach through us, and why. The metadata services are those that cloud-init and the clouds' own
#: manuals name; most of them are at 169.254.169.254 as well.
REFUSED: Sequence[tuple[IPv4Network | IPv6Network, str]] = tuple(
    (ip_network(network), why)
    for network, why in (
        ("169.254.0.0/16", "link-local, where clouds keep their metadata service"),  # RFC 3927
        ("fe80::/10", "link-local"),  # RFC 4291 §2.5.6
        ("fd00:ec2::/32", "the metadata service of AWS"),
        ("fd20:ce::254/128", "the metadata service of Google Cloud"),
        ("100.100.100.200/32", "the metadata service of Alibaba Cloud"),
        ("fd00:100::100:200/128", "the metadata service of Alibaba Cloud"),
        ("fd00:a9fe:a9fe::1/128", "the metadata service of Akamai"),
        ("fd00:42::42/128", "the metadata service of Scaleway"),
        ("168.63.129.16/32", "the platform service of Azure"),
        ("192.0.0.192/32", "the metadata service of Oracle Cloud"),
        ("fd00:c1::a9fe:a9fe/128", "the metadata service of Oracle Cloud"),
        ("0.0.0.0/8", "no address of a host"),  # RFC 1122 §3.2.1.3; Linux takes 0.0.0.0 for itself
        ("::/128", "no address of a host"),
    )
)
#: IPv6 addresses that carry an IPv4 address in their last 32 bits, which some gateway would reach for us.
_LAST_32_BITS = tuple(
    IPv6Network(network)
    for network in (
        "::/96",  # IPv4-compatible, RFC 4291 §2.5.5.1
        "64:ff9b::/96",  # NAT64, RFC 6052 §2.1
        "::ffff:0:0:0/96",  # IPv4-translated, RFC 2765 §2.1
    )
)
#: Characters of a rule that a refusal names: its text has to fit an answer (docs/protocol.rst).
RULE_SHOWN = 200
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")  # RFC 8215
_NO_HOST = IPv4Network("0.0.0.0/8")
_ISATAP = (0x00005EFE, 0x02005EFE)  # RFC 5214 §6.1, bits 64 to 95


def forms(address: IPAddress) -> list[IPAddress]:
    """
    What `address` leads to: itself (an IPv4-mapped one counts as IPv4, as it does for the kernel) and the IPv4
    addresses inside of it.
    """
    if isinstance(address, IPv4Address):
        return [address]
    if address.ipv4_mapped:
        return [address.ipv4_mapped]
    return [address, *_embedded(address)]


def _embedded(address: IPv6Address) -> Iterator[IPv4Address]:
    last = IPv4Address(int(address) & 0xFFFFFFFF)
    if address.sixtofour:
        yield address.sixtofour
    if address.teredo:
        yield from address.teredo
    if int(address) > 1 and (
        any(address in network for network in _LAST_32_BITS) or (int(address) >> 32) & 0xFFFFFFFF in _ISATAP
    ):
        yield last
    if address in _LOCAL_NAT64:
        yield from _translated(address.packed)


def _translated(octets: bytes) -> Iterator[IPv4Address]:
    """
    What a NAT64 for local use may make of an address (RFC 6052 §2.2): its prefix has 96 bits, or 48, 56 or 64, and then
    the eighth byte is none of the IPv4 address. Only its operator knows which; read by another, it begins with zeros,
    and is no host's, unless it happens to be one's as well.
    """
    for packed in (octets[12:], *((octets[begin:8] + octets[9:])[:4] for begin in (6, 7, 8))):
        if (inner := IPv4Address(packed)) not in _NO_HOST:
            yield inner


@attrs.frozen
class Policy:
    """
    Decides on targets.

    :ivar rules: what may be dialled; empty: everything but the built-in refusals.
    """

    rules: Sequence[TargetRule] = ()

    def check(self, host: str, address: IPAddress, port: int) -> None:
        """
        Decide on one address of a target.

        :param host: the target as the listener named it, a name or an address.
        :param address: what `host` is, or resolved to; it is to be dialled if this returns.
        :raises errors.TargetDenied: with the reason.
        """
        named = self.rules and any(_allowsName(rule, host) and port in rule.ports for rule in self.rules)
        for form in forms(address):
            self._checkRefused(host, form, port)
            if self.rules and not named and not self._allowsAddress(form, port):
                why = self._nearest(host, form)
                raise TargetDenied(f"{_asked(host, form, port)} is not among the targets that our rules allow: {why}")

    def _allowsAddress(self, address: IPAddress, port: int) -> bool:
        return any(
            not isinstance(rule.host, str) and address in rule.host and port in rule.ports for rule in self.rules
        )

    def _nearest(self, host: str, address: IPAddress) -> str:
        """What of the rules has to do with a target that they don't allow; no more of them than that."""
        for rule in self.rules:
            if _allowsName(rule, host) if isinstance(rule.host, str) else address in rule.host:
                return f"{str(rule)[:RULE_SHOWN]} of {rule.origin} is for other ports"
        return f"none of {' and '.join(sorted({rule.origin for rule in self.rules}))} names it"

    def _checkRefused(self, host: str, address: IPAddress, port: int) -> None:
        for network, why in _refusedIn(address):
            if not self._lifts(network, address, port):
                asked = _asked(host, address, port)
                raise TargetDenied(f"{asked} is refused by the built-in rule about {network}: {why}")

    def _lifts(self, refused: IPv4Network | IPv6Network, address: IPAddress, port: int) -> bool:
        """Whether a rule names a network inside the refused one: a wide rule such as 0.0.0.0/0 doesn't mean it."""
        return any(
            _within(rule.host, refused) and address in rule.host and port in rule.ports
            for rule in self.rules
            if not isinstance(rule.host, str)
        )


@lru_cache(256)
def _refusedIn(address: IPAddress) -> Sequence[tuple[IPv4Network | IPv6Network, str]]:
    """Which of `REFUSED` an address is in; remembered, as targets are few and visitors many."""
    return [each for each in REFUSED if address in each[0]]


def _allowsName(rule: TargetRule, host: str) -> bool:
    """A pattern speaks about names; only ``*`` about addresses, too."""
    if not isinstance(rule.host, str):
        return False
    return rule.host == "*" or (literal(host) is None and fnmatchcase(host.lower().removesuffix("."), rule.host))


def _within(inner: IPv4Network | IPv6Network, outer: IPv4Network | IPv6Network) -> bool:
    return inner.version == outer.version and inner.prefixlen >= outer.prefixlen and inner.network_address in outer


def _asked(host: str, address: IPAddress, port: int) -> str:
    asked = place(host, port)
    return asked if host == str(address) else f"{asked} ({address})"
