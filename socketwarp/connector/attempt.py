"""One attempt to reach a listener by one carrier: resolve a name, then race its addresses (RFC 8305)."""

from collections.abc import Callable
from typing import Literal

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHostnameResolver, IReactorTime

from ..errors import SessionLost
from ..interfaces import Address, ISession
from .names import MAXIMUM_ADDRESSES, place, resolve
from .race import Race

#: Seconds that resolving the listener's name may take.
RESOLVE_TIMEOUT = 10.0
#: Seconds after which the next address is tried beside those that haven't answered (RFC 8305 §5).
STAGGER = 0.25

Connect = Callable[[Address], Deferred[ISession]]


class Attempts:
    """
    Attempts to reach one listener. The address that worked last is tried first.
    """

    def __init__(
        self,
        name: str,
        port: int,
        resolver: IHostnameResolver,
        clock: IReactorTime,
        connect: Connect,
        transport: Literal["TCP", "UDP"] = "UDP",
    ) -> None:
        """
        :param name: the listener, or the proxy on the way to it; ``port``: its port.
        :param connect: connects to one address, in a time of its own; fails with `errors.SessionLost` or `OSError`.
        :param transport: what it connects by.
        """
        self._name = name
        self._port = port
        self._resolver = resolver
        self._clock = clock
        self._connect = connect
        self._transport: Literal["TCP", "UDP"] = transport
        self._worked: Address | None = None

    def __call__(self) -> Deferred[ISession]:
        """Try all addresses once; fails with the last one's reason. Cancelling gives up."""
        return Deferred.fromCoroutine(self._attempt())

    async def _attempt(self) -> ISession:
        addresses = await self._addresses()
        race = Race(addresses, STAGGER, self._clock, self._connect, lambda address: place(*address))
        self._worked, session = await race.run()
        return session

    async def _addresses(self) -> list[Address]:
        """The listener's addresses, at least one: what worked first, then the families in turn."""

        def timedOut(result: object, seconds: float) -> None:
            raise SessionLost(f"{self._name} could not be resolved in {seconds:g} s")

        resolving = resolve(self._resolver, self._name, self._port, self._transport)
        found = await resolving.addTimeout(RESOLVE_TIMEOUT, self._clock, timedOut)
        if not found:
            raise SessionLost(f"{self._name} has no address: check the name, and this host's DNS")
        turns: dict[int, int] = {}
        ordered: list[tuple[bool, int, Address]] = []
        for each in found:
            turns[each.version] = turn = turns.get(each.version, 0) + 1
            address = (str(each), self._port)
            ordered.append((address != self._worked, turn, address))
        return [address for _, _, address in sorted(ordered, key=lambda entry: entry[:2])[:MAXIMUM_ADDRESSES]]
