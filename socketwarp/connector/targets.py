"""Dial a target: resolve its name once, check every address, dial what was checked."""

from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from ..errors import TargetDenied, TargetError, TargetRefused, TargetTimedOut, TargetUnreachable, TargetUnresolved
from ..interfaces import Address, ITcpProtocol
from ..wire.dialect import Dialled
from .names import MAXIMUM_ADDRESSES, IPAddress, literal, place, resolve
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
        address = literal(host)
        if address is None:
            return Deferred.fromCoroutine(self._dial(host, port, connected))
        try:
            self.policy.check(host, address, port)
        except TargetDenied as error:
            return fail(error)
        now = self.reactor.seconds()
        return self._connect(address, port, self.timeout, partial(self._made, connected, now, now))

    async def _dial(self, host: str, port: int, connected: ProtocolMaker) -> None:
        began = self.reactor.seconds()
        deadline = began + self.timeout
        addresses = await self._checked(host, port)
        resolved = self.reactor.seconds()
        made = partial(self._made, connected, began, resolved)
        for left in range(len(addresses), 0, -1):
            address = addresses[-left]
            share = (deadline - self.reactor.seconds()) / left
            try:
                return await self._connect(address, port, share, made)
            except TargetError:
                if left == 1:
                    raise

    def _made(self, connected: ProtocolMaker, began: float, resolved: float, where: str) -> ITcpProtocol:
        """There is a connection; the times are those of the clock."""
        took = resolved - began, self.reactor.seconds() - resolved
        return connected(Dialled(where, *[round(max(0.0, each), 6) for each in took]))

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

    def _connect(
        self, address: IPAddress, port: int, timeout: float, made: Callable[[str], ITcpProtocol]
    ) -> Deferred[None]:
        host = str(address)
        where = place(host, port)
        return self.dialOne((host, port), timeout, partial(made, where)).addErrback(_explain, where)


def _explain(failure: Failure, where: str) -> None:
    error = failure.value
    if isinstance(error, OSError):
        raise _targetError(where, error) from error
    failure.raiseException()


def _targetError(place: str, error: OSError) -> TargetError:
    """What a failed connection means, in words that say what to look at."""
    if isinstance(error, ConnectionRefusedError):
        return TargetRefused(f"{place} refused the connection: nothing listens there")
    if isinstance(error, TimeoutError):
        return TargetTimedOut(f"{place} didn't answer in time")
    return TargetUnreachable(f"{place} can't be reached: {error.strerror or error}")
