"""One attempt to reach a listener: resolve its name, then one address after the other."""

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHostnameResolver, IReactorTime
from twisted.logger import Logger

from ..errors import SessionLost
from ..interfaces import Address, ISession
from .names import MAXIMUM_ADDRESSES, place, resolve
from .refusals import explain

#: Seconds that resolving the listener's name may take.
RESOLVE_TIMEOUT = 10.0


class Attempts:
    """
    Attempts to reach one listener. The address that worked last is tried first.

    The addresses are not raced: a listener that speaks hq-29 can't tell two sessions of one connector from two
    connectors, and the loser of the race could take the winner's place.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        port: int,
        resolver: IHostnameResolver,
        clock: IReactorTime,
        connect: Callable[[Address], Deferred[ISession]],
    ) -> None:
        """:param connect: connects to one address, in a time of its own; fails with `errors.SessionLost`."""
        self._name = name
        self._port = port
        self._resolver = resolver
        self._clock = clock
        self._connect = connect
        self._worked: Address | None = None

    def __call__(self) -> Deferred[ISession]:
        """Try all addresses once; fails with the last one's reason. Cancelling gives up."""
        return Deferred.fromCoroutine(self._attempt())

    async def _attempt(self) -> ISession:
        addresses = await self._addresses()
        while True:
            address = addresses.pop(0)
            try:
                session = await self._connect(address)
            except (SessionLost, OSError) as error:
                if not addresses:
                    raise
                self._log.info("{address}: {why}", address=place(*address), why=explain(error))
            else:
                self._worked = address
                return session

    async def _addresses(self) -> list[Address]:
        """The listener's addresses, at least one."""

        def timedOut(result: object, seconds: float) -> None:
            raise SessionLost(f"{self._name} could not be resolved in {seconds:g} s")

        resolving = resolve(self._resolver, self._name, self._port, "UDP")
        found = await resolving.addTimeout(RESOLVE_TIMEOUT, self._clock, timedOut)
        if not found:
            raise SessionLost(f"{self._name} has no address: check the name, and this host's DNS")
        addresses = [(str(address), self._port) for address in found[:MAXIMUM_ADDRESSES]]
        return sorted(addresses, key=lambda address: address != self._worked)
