"""Names to addresses, once: who asks keeps the answer and uses no name after."""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal

from twisted.internet.address import IPv4Address as IPv4Socket
from twisted.internet.address import IPv6Address as IPv6Socket
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IHostnameResolver, IHostResolution, IResolutionReceiver
from zope.interface import implementer

IPAddress = IPv4Address | IPv6Address
#: Addresses of one name that are tried; the rest is left out, since each costs time.
MAXIMUM_ADDRESSES = 8


@lru_cache(1024)
def literal(host: str) -> IPAddress | None:
    """The address that `host` is, or `None` for a name; remembered, as targets are few and visitors many."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def place(host: str | IPAddress, port: int) -> str:
    """``host:port`` for people and logs, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def resolve(
    resolver: IHostnameResolver, host: str, port: int, transport: Literal["TCP", "UDP"]
) -> Deferred[list[IPAddress]]:
    """
    The addresses of `host`, in the resolver's order and without repetition; none when the name has none.

    The resolver can't be stopped: who cancels the Deferred just doesn't hear of the answer any more.
    """
    address = literal(host)
    if address is not None:
        return succeed([address])
    try:
        host.encode("idna")  # the resolver would lose the error, and never answer
    except UnicodeError:
        return succeed([])
    answers = _Answers()
    resolver.resolveHostName(answers, host, port, transportSemantics=transport)
    return answers.done


@implementer(IResolutionReceiver)
class _Answers:
    """Collects a resolver's answers."""

    def __init__(self) -> None:
        self.done: Deferred[list[IPAddress]] = Deferred(lambda _: self._found.clear())
        self._found: dict[IPAddress, None] = {}

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Nothing to do: the answers follow."""

    def addressResolved(self, address: IAddress) -> None:
        """One more address."""
        if isinstance(address, IPv4Socket | IPv6Socket):
            self._found[ip_address(address.host)] = None

    def resolutionComplete(self) -> None:
        """That was all."""
        if not self.done.called:
            self.done.callback(list(self._found))
