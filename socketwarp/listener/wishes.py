"""
What an operator wishes of a port: where visitors come in, who carries them, where they go, and what limits them.

Frozen records that check themselves, so that neither a call of the API nor a database brings in what makes no sense.
"""

import math
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any, Literal

import attrs
from attrs import validators

from .events import showAddress

#: A network from which visitors may come.
Source = IPv4Network | IPv6Network
#: More networks than anybody writes by hand; each is looked at for every visitor.
SOURCES_LIMIT = 1000
#: A century, in seconds: whoever writes more has mistaken the unit.
LONGEST = 100 * 366 * 86400.0
#: The shortest idle time, in seconds.
SHORTEST = 0.1
#: POSIX seconds: whoever writes more has mistaken the unit.
LATEST = 1e12
#: Above, JSON's numbers aren't whole everywhere (RFC 8259 §6).
MOST = 2**53


def _number(low: float, high: float) -> Any:  # Any: attrs' validators are not typed by what they check
    """From `low` to `high`, and neither infinite nor NaN."""

    def check(instance: object, attribute: "attrs.Attribute[Any]", value: float) -> None:  # Any: as above
        if not (math.isfinite(value) and low <= value <= high):
            raise ValueError(f"{attribute.name} must be from {low:.16g} to {high:.16g}, and is {value:.16g}")

    return check


def _address(value: str) -> str:
    """As `ipaddress` writes it, so that rules and wishes that mean the same address have the same text."""
    try:
        return str(ip_address(value))
    except ValueError:  # a name would be looked up, and block the process, when the port is bound
        raise ValueError(f"bindAddress must be an IP address, and is {value!r}") from None


@attrs.frozen(kw_only=True)
class PortLimits:
    """
    What a port may be used for; what is `None` has no limit.

    :ivar expires: when the port closes itself and ends its visitors, POSIX seconds.
    :ivar total: visitors in the port's life, restarts included, from when it got such a limit. After the last one it
        accepts nobody, and closes itself when they are gone.
    :ivar atOnce: visitors at a time.
    :ivar idleSeconds: a connection on which no byte passed for so long is ended.
    :ivar sources: networks from which visitors may come; empty: from everywhere.
    """

    expires: float | None = attrs.field(default=None, validator=validators.optional(_number(0, LATEST)))
    total: int | None = attrs.field(default=None, validator=validators.optional(_number(1, MOST)))
    atOnce: int | None = attrs.field(default=None, validator=validators.optional(_number(1, MOST)))
    idleSeconds: float | None = attrs.field(default=None, validator=validators.optional(_number(SHORTEST, LONGEST)))
    sources: tuple[Source, ...] = attrs.field(default=(), validator=validators.max_len(SOURCES_LIMIT))

    def allows(self, host: str) -> bool:
        """Whether a visitor from that address may come in."""
        if not self.sources:
            return True
        address = ip_address(host)
        return any(address in network for network in self.sources)

    def overBy(self, now: float, used: int) -> str:
        """
        Why the port has to close, for people; empty while it may stay open.

        :param now: POSIX seconds.
        :param used: how many visitors it has accepted.
        """
        if self.expires is not None and now >= self.expires:
            return "its time is over"
        if self.total is not None and used >= self.total:
            return f"it was for {self.total} connections, and has had them"
        return ""


@attrs.frozen(kw_only=True)
class PortOptions:
    """
    How a port's visitors are carried.

    :ivar proxyProtocol: the version of the PROXY protocol with which the target is told the visitor's address; `None`:
        it isn't told.
    """

    proxyProtocol: Literal[1, 2] | None = attrs.field(default=None, validator=validators.in_((None, 1, 2)))


@attrs.frozen
class PortSpec:
    """
    A wish: that this port be open.

    :ivar port: the TCP port visitors connect to; 0, before it is open: any that is allowed and free.
    :ivar uid: whose connector carries them.
    :ivar targetHost: what the connector dials, as it was written by who asked: an address or a name.
    :ivar targetPort: the target's TCP port.
    :ivar bindAddress: the local address visitors connect to; ``0.0.0.0`` is every IPv4 address, ``::`` every IPv6 one
        and, unless the system forbids it (net.ipv6.bindv6only), every IPv4 one.
    :raises ValueError: a value makes no sense.
    """

    port: int = attrs.field(validator=_number(0, 65535))
    uid: str
    targetHost: str
    targetPort: int = attrs.field(validator=_number(1, 65535))
    bindAddress: str = attrs.field(default="0.0.0.0", converter=_address)
    limits: PortLimits = PortLimits()
    options: PortOptions = PortOptions()

    @property
    def dialHost(self) -> str:
        """The target's host as the wire wants it: an IPv6 address without its brackets."""
        return self.targetHost.removeprefix("[").removesuffix("]")

    @property
    def target(self) -> str:
        """The target for people, ``host:port``."""
        return showAddress((self.dialHost, self.targetPort))
