"""One attempt to reach a listener: resolve its name, then race its addresses (RFC 8305, for UDP)."""

from collections.abc import Callable

import attrs
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IHostnameResolver, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import Code, SessionLost, SocketwarpError
from ..interfaces import Address, ISession
from .names import MAXIMUM_ADDRESSES, place, resolve
from .refusals import explain

#: Seconds that resolving the listener's name may take.
RESOLVE_TIMEOUT = 10.0
#: Seconds after which the next address is tried beside those that haven't answered (RFC 8305 §5).
STAGGER = 0.25

Connect = Callable[[Address], Deferred[ISession]]


class Attempts:
    """
    Attempts to reach one listener. The address that worked last is tried first.

    The first session wins, and the others are given up before they have said anything: a listener asks who somebody is
    only after hello. One that speaks nothing but hq-29 can't tell two sessions of one connector from two connectors;
    but it is the original, and refuses the second.
    """

    def __init__(
        self, name: str, port: int, resolver: IHostnameResolver, clock: IReactorTime, connect: Connect
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
        race = _Race(await self._addresses(), self._clock, self._connect)
        self._worked, session = await race.run()
        return session

    async def _addresses(self) -> list[Address]:
        """The listener's addresses, at least one: what worked first, then the families in turn."""

        def timedOut(result: object, seconds: float) -> None:
            raise SessionLost(f"{self._name} could not be resolved in {seconds:g} s")

        resolving = resolve(self._resolver, self._name, self._port, "UDP")
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


@attrs.define(eq=False)
class _Race:
    """Connecting to several addresses, each a little after the one before, until one of them answers."""

    _addresses: list[Address]
    _clock: IReactorTime
    _connect: Connect
    _running: list[Deferred[None]] = attrs.field(factory=list, init=False)
    _call: IDelayedCall | None = attrs.field(default=None, init=False)
    _won: Deferred[tuple[Address, ISession]] = attrs.field(init=False)

    _log = Logger(namespace="socketwarp.connector.attempt")

    def run(self) -> Deferred[tuple[Address, ISession]]:
        """Fires with the winner; fails with the reason of the last that failed. Cancelling gives all up."""
        self._won = Deferred(lambda _: self._giveUp())
        self._next()
        return self._won

    def _next(self) -> None:
        self._call = None
        address = self._addresses.pop(0)
        if self._addresses:
            self._call = self._clock.callLater(STAGGER, self._next)
        connecting = maybeDeferred(self._connect, address)
        entry: Deferred[None] = connecting.addCallback(self._succeeded, address)
        self._running.append(entry)
        entry.addErrback(self._failed, address, entry)

    def _succeeded(self, session: ISession, address: Address) -> None:
        if self._won.called:
            session.close(Code.NO_ERROR, "another address was faster")
            return
        won = self._won
        self._stopTimer()
        won.callback((address, session))
        self._giveUp()

    def _failed(self, failure: Failure, address: Address, entry: Deferred[None]) -> None:
        self._running.remove(entry)
        if self._won.called:
            return
        if not isinstance(failure.value, SocketwarpError | OSError):
            self._won.errback(failure)
            self._giveUp()
        elif self._addresses:
            self._log.info("{address}: {why}", address=place(*address), why=explain(failure.value))
            self._stopTimer()
            self._next()
        elif not self._running:
            self._won.errback(failure)

    def _giveUp(self) -> None:
        self._stopTimer()
        for entry in tuple(self._running):
            entry.cancel()

    def _stopTimer(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None
