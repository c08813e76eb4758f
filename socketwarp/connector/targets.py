"""Dial a target: resolve its name once, check every address, dial what was checked."""

from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionRefusedError, TCPTimedOutError, TimeoutError
from twisted.internet.interfaces import IAddress, IConnector, IProtocol
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

from ..errors import TargetDenied, TargetError, TargetRefused, TargetTimedOut, TargetUnreachable, TargetUnresolved
from .names import MAXIMUM_ADDRESSES, IPAddress, place, resolve
from .policy import Policy

#: Makes the protocol of a new connection, given what was dialled as ``address:port``.
ProtocolMaker = Callable[[str], IProtocol]


@attrs.frozen
class Targets:
    """
    Dials targets.

    :ivar timeout: the longest time for one target, its name and all of its addresses together, seconds.
    """

    policy: Policy
    reactor: Any = attrs.field(repr=False)  # Any: IReactorTCP, IReactorTime and nameResolver; no one interface has all
    timeout: float = 10.0

    def dial(self, host: str, port: int, connected: ProtocolMaker) -> Deferred[None]:
        """
        Connect to a target. Its addresses are tried in the resolver's order, each for its share of the time.

        :param connected: called once, for the connection that was made.
        :return: fires when the connection is made; fails with an `errors.TargetError`. Cancelling gives up.
        """

        def timedOut(result: object, seconds: float) -> None:
            raise TargetTimedOut(f"{place(host, port)} didn't answer in {seconds:g} s")

        dialling = Deferred.fromCoroutine(self._dial(host, port, connected))
        return dialling.addTimeout(self.timeout, self.reactor, timedOut)

    async def _dial(self, host: str, port: int, connected: ProtocolMaker) -> None:
        deadline = self.reactor.seconds() + self.timeout
        addresses = await self._checked(host, port)
        for left in range(len(addresses), 0, -1):
            address = addresses[-left]
            share = (deadline - self.reactor.seconds()) / left
            try:
                return await self._connect(address, port, share, connected)
            except TargetError:
                if left == 1:
                    raise

    async def _checked(self, host: str, port: int) -> list[IPAddress]:
        """The addresses of a target that may be dialled, at least one."""
        found = await resolve(self.reactor.nameResolver, host, port, "TCP")
        allowed: list[IPAddress] = []
        denied = None
        for address in found[:MAXIMUM_ADDRESSES]:
            try:
                self.policy.check(host, address, port)
                allowed.append(address)
            except TargetDenied as error:
                denied = denied or error
        if not allowed:
            raise denied or TargetUnresolved(f"{host} has no address")
        return allowed

    async def _connect(self, address: IPAddress, port: int, timeout: float, connected: ProtocolMaker) -> None:
        attempt = _Attempt(place(address, port), connected)
        self.reactor.connectTCP(str(address), port, attempt, timeout)
        await attempt.done


class _Attempt(ClientFactory):
    """
    One connection attempt. Not an endpoint, since an endpoint's wrapper would stand between TCP and the bridge for
    every byte of the connection's life.
    """

    noisy = False

    def __init__(self, place: str, connected: ProtocolMaker) -> None:
        self.done: Deferred[None] = Deferred(self._cancel)
        self._place = place
        self._connected = connected
        self._connector: IConnector | None = None
        self._over = False

    def startedConnecting(self, connector: IConnector) -> None:
        """The attempt begins."""
        self._connector = connector

    def buildProtocol(self, addr: IAddress | None) -> Any:  # Any: what Factory declares is a private type
        """The connection is made."""
        self._over = True
        protocol = self._connected(self._place)
        self.done.callback(None)
        return protocol

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        """It can't be made."""
        if not self._over:
            self._over = True
            self.done.errback(_targetError(self._place, reason))

    def _cancel(self, done: Deferred[None]) -> None:
        self._over = True
        if self._connector is not None:
            self._connector.stopConnecting()


def _targetError(place: str, reason: Failure) -> TargetError:
    """What a failed connection means, in words that say what to look at."""
    if reason.check(ConnectionRefusedError):
        return TargetRefused(f"{place} refused the connection: nothing listens there")
    if reason.check(TimeoutError, TCPTimedOutError):
        return TargetTimedOut(f"{place} didn't answer in time")
    detail = reason.value.osError if isinstance(reason.value, ConnectError) and reason.value.osError else reason.value
    return TargetUnreachable(f"{place} can't be reached: {detail}")
