"""Dial a target: resolve its name once, check every address, dial what was checked."""

from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from ..errors import TargetDenied, TargetError, TargetRefused, TargetTimedOut, TargetUnreachable, TargetUnresolved
from ..interfaces import Address, ITcpProtocol
from ..wire.dialect import Dialled
from .names import MAXIMUM_ADDRESSES, IPAddress, place, resolve
from .policy import Policy

#: Makes the protocol of a new connection, given what was dialled and how long that took.
ProtocolMaker = Callable[[Dialled], ITcpProtocol]


@attrs.define(eq=False)
class Targets:
    """
    Dials targets.

    :ivar policy: decides on those to come; may be replaced.
    :ivar dialOne: see `tcp.dial.dial`.
    :ivar timeout: the longest time for one target, its name and all of its addresses together, seconds.
    """

    policy: Policy
    reactor: Any = attrs.field(repr=False)  # Any: IReactorTime and nameResolver; no one interface has both
    dialOne: Callable[[Address, float, Callable[[], ITcpProtocol]], Deferred[None]]
    timeout: float = 10.0

    def dial(self, host: str, port: int, connected: ProtocolMaker) -> Deferred[None]:
        """
        Connect to a target. Its addresses are tried in the resolver's order, each for its share of the time.

        :param connected: called once, for the connection that was made.
        :return: fires when the connection is made; fails with an `errors.TargetError`. Cancelling gives up.
        """

        return Deferred.fromCoroutine(self._dial(host, port, connected))

    async def _dial(self, host: str, port: int, connected: ProtocolMaker) -> None:
        began = self.reactor.seconds()
        deadline = began + self.timeout
        addresses = await self._checked(host, port)
        resolved = self.reactor.seconds()

        def made(where: str) -> ITcpProtocol:
            took = resolved - began, self.reactor.seconds() - resolved
            return connected(Dialled(where, *(round(max(0.0, each), 6) for each in took)))

        for left in range(len(addresses), 0, -1):
            address = addresses[-left]
            share = (deadline - self.reactor.seconds()) / left
            try:
                return await self._connect(address, port, share, made)
            except TargetError:
                if left == 1:
                    raise

    async def _checked(self, host: str, port: int) -> list[IPAddress]:
        """The addresses of a target that may be dialled, at least one."""

        def timedOut(result: object, seconds: float) -> None:
            raise TargetTimedOut(f"{place(host, port)} didn't answer in {seconds:g} s")

        resolving = resolve(self.reactor.nameResolver, host, port, "TCP")
        if not resolving.called:
            resolving.addTimeout(self.timeout, self.reactor, timedOut)
        found = await resolving
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

    async def _connect(
        self, address: IPAddress, port: int, timeout: float, made: Callable[[str], ITcpProtocol]
    ) -> None:
        where = place(address, port)
        try:
            await self.dialOne((str(address), port), timeout, partial(made, where))
        except OSError as error:
            raise _targetError(where, error) from error


def _targetError(place: str, error: OSError) -> TargetError:
    """What a failed connection means, in words that say what to look at."""
    if isinstance(error, ConnectionRefusedError):
        return TargetRefused(f"{place} refused the connection: nothing listens there")
    if isinstance(error, TimeoutError):
        return TargetTimedOut(f"{place} didn't answer in time")
    return TargetUnreachable(f"{place} can't be reached: {error}")
