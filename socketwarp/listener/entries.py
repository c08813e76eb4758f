"""
One wished port: its socket, who may come in, who is here, and the end of its lease.
"""

from collections.abc import Callable
from ipaddress import ip_address
from itertools import count

import attrs
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IReactorTime
from twisted.python.failure import Failure

from ..deadlines import Deadlines
from ..errors import LimitReached, PortClosed, PortDenied, PortUnavailable, SocketwarpError, SourceDenied
from ..interfaces import Address, ITcpProtocol
from ..rules.policy import ANYTHING, Policy
from ..tcp.port import Accept
from .connectors import Connectors
from .events import Events
from .pacing import PortRate
from .store import IPortStore
from .visitors import Limits, Visitor
from .wishes import PortSpec

#: A lease's end is looked for at least so often, seconds: the system's clock may be set, and timers don't go by it.
LEASE_SECONDS = 60.0

#: Binds an address and port and asks for the connections' protocols; raises `errors.PortUnavailable`.
Listen = Callable[[Accept, str, int], IListeningPort]


@attrs.define(eq=False)
class Lobby:
    """
    What all ports of a listener share.

    :ivar count: visitors who are here.
    :ivar policy: the operator's rules, as they are now.
    :ivar answers: how long connectors may take to say that they have dialled.
    :ivar pausedBy: says why no visitor is accepted for now; empty while they are.
    """

    clock: IReactorTime
    listen: Listen
    connectors: Connectors
    store: IPortStore
    events: Events
    limits: Limits
    count: int = 0
    policy: Policy = ANYTHING
    pausedBy: Callable[[], str] = str
    answers: Deadlines = attrs.field(init=False)

    @answers.default
    def _makeAnswers(self) -> Deadlines:
        return Deadlines(self.clock, self.limits.answerSeconds)

    async def tryListening(self, address: str, port: int) -> None:
        """
        Bind and let go at once.

        :raises errors.PortUnavailable: the address or port can't be had.
        """
        await maybeDeferred(self.listen(_nobody, address, port).stopListening)


@attrs.define(eq=False)
class Entry:
    """
    One wished port.

    :ivar spec: the wish.
    :ivar number: unique in the life of the process.
    :ivar used: visitors accepted while there was a limit to their total.
    :ivar closing: it is on its way out.
    :ivar leaving: its wish is forgotten, and it is there only for visitors who may finish.
    :ivar isBound: visitors can come.
    :ivar waitsFor: why it can't be bound, as was told; empty when it is.
    :ivar visitors: who is here.
    """

    spec: PortSpec
    number: int
    used: int
    _lobby: Lobby
    _over: Callable[["Entry", str], None]
    closing: bool = attrs.field(default=False, init=False)
    leaving: bool = attrs.field(default=False, init=False)
    waitsFor: str = attrs.field(default="", init=False)
    _socket: IListeningPort | None = attrs.field(default=None, init=False)
    _stopped: bool = attrs.field(default=False, init=False)
    visitors: set[Visitor] = attrs.field(factory=set, init=False)
    _ended: int = attrs.field(default=0, init=False)
    _waiters: list[Deferred[None]] = attrs.field(factory=list, init=False)  # until nobody is here
    _end: IDelayedCall | None = attrs.field(default=None, init=False)
    _numbers: "count[int]" = attrs.field(factory=lambda: count(1), init=False)
    _rate: PortRate | None = attrs.field(default=None, init=False)

    @property
    def isBound(self) -> bool:
        """Whether visitors can come."""
        return self._socket is not None

    @property
    def isDraining(self) -> bool:
        """Whether it is there only for visitors who may finish: it is being closed, or the listener stops."""
        return self.closing or self._stopped

    def bind(self) -> None:
        """
        Let visitors come.

        :raises errors.PortUnavailable: the address or port can't be had.
        """
        spec = self.spec
        self._socket = self._lobby.listen(self._accept, spec.bindAddress, spec.port)
        self.waitsFor = ""
        self._lobby.events.emit("port.opened", port=spec.port, uid=spec.uid, target=spec.target)

    async def unbind(self, reason: str) -> None:
        """Let no visitors come until `bind`; those who are here stay."""
        self.wait(reason)
        await self._closeSocket()

    def wait(self, reason: str) -> None:
        """It can't be bound for now: told once, not at every attempt."""
        if self.waitsFor != reason:
            self.waitsFor = reason
            self._lobby.events.emit("port.waiting", port=self.spec.port, uid=self.spec.uid, reason=reason)

    async def change(self, spec: PortSpec) -> None:
        """
        Take another wish for the same port, for visitors to come; those who are here stay as they are.

        :raises errors.PortUnavailable: the new address can't be had; now the port isn't bound at all.
        """
        moves = self.isBound and spec.bindAddress != self.spec.bindAddress
        self.spec = spec
        if moves:
            await self._closeSocket()
            if not self._stopped:
                self.bind()

    async def rehearse(self, spec: PortSpec) -> None:
        """
        Find out whether `change` would find its address, and change nothing. What our own socket covers can't be asked
        for with the same number; there it is only asked whether the address is this host's.

        :raises errors.PortUnavailable: it would not.
        """
        if not self.isBound or spec.bindAddress == self.spec.bindAddress:
            return
        try:
            await self._lobby.tryListening(spec.bindAddress, spec.port)
        except PortUnavailable:
            if not _overlap(spec.bindAddress, self.spec.bindAddress):
                raise
            await self._lobby.tryListening(spec.bindAddress, 0)

    def watchLease(self) -> None:
        """Call `over` with this and the reason when the lease has ended; perhaps at once."""
        self._clearEnd()
        limits, now = self.spec.limits, self._lobby.events.now()
        if self._stopped:
            return
        if reason := limits.overBy(now, self.used):
            self._over(self, reason)
        elif limits.expires is not None:
            self._end = self._lobby.clock.callLater(min(limits.expires - now, LEASE_SECONDS), self.watchLease)

    def _clearEnd(self) -> None:
        if self._end is not None and self._end.active():
            self._end.cancel()

    async def stopListening(self) -> None:
        """No further visitors, and no end of the lease; who is here stays."""
        self._stopped = True
        self._clearEnd()
        await self._closeSocket()

    async def _closeSocket(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            await maybeDeferred(socket.stopListening)

    def finish(self, drain: float | None, error: SocketwarpError) -> Deferred[int]:
        """
        Let visitors finish; fires once they are gone, with the number of those who were ended with RST. When it is
        called again, the shortest time counts.

        :param drain: seconds after which they are ended; `None`: never.
        """

        def end() -> None:
            self._ended += len(self.visitors)
            for visitor in tuple(self.visitors):
                visitor.refuse(error)

        gone: Deferred[None] = Deferred()
        self._waiters.append(gone)
        self._tellIfEmpty()
        if drain is not None and self.visitors:
            timer = self._lobby.clock.callLater(drain, end)
            gone.addCallback(lambda _: timer.cancel() if timer.active() else None)
        return gone.addCallback(lambda _: self._ended)

    # -- visitors

    def _accept(self, address: Address) -> ITcpProtocol:
        lobby, rate = self._lobby, self._currentRate()
        name = f"{self.number}-{next(self._numbers)}"  # unique in the life of the process
        visitor = Visitor(
            name,
            address,
            self.spec,
            lobby.clock,
            lobby.connectors,
            lobby.events,
            lobby.limits,
            lobby.answers,
            self._left,
            lobby.policy,
            None if rate is None else rate.pace,
        )
        refusal = self._refusal(address, rate)
        self.visitors.add(visitor)
        lobby.count += 1
        if refusal is None:
            self._letIn(visitor)
        else:
            visitor.refuse(refusal)
        return visitor.protocol

    def _currentRate(self) -> PortRate | None:
        """What the rules limit the port to; a changed rule begins anew, with who comes now."""
        rule = self._lobby.policy.pace(self.spec.port)
        if rule is None:
            self._rate = None
        elif self._rate is None or self._rate.rule != rule:
            self._rate = PortRate(rule, self._lobby.clock)
        return self._rate

    def _refusal(self, address: Address, rate: PortRate | None) -> SocketwarpError | None:
        """Why a visitor may not come in."""
        here, limits, port = len(self.visitors), self.spec.limits, self.spec.port
        if not limits.allows(address[0]):
            return SourceDenied(f"port {port} is not for visitors from {address[0]}")
        if limits.total is not None and self.used >= limits.total:
            return LimitReached(f"port {port} has had its {limits.total} visitors")
        if limits.atOnce is not None and here >= limits.atOnce:
            return LimitReached(f"port {port} has {here} visitors, and that is its limit")
        if here >= self._lobby.limits.perPort:
            return LimitReached(f"port {port} has {here} visitors, and that is every port's limit")
        if self._lobby.count >= self._lobby.limits.total:
            return LimitReached(f"{self._lobby.count} visitors are here, and that is the limit")
        return self._refusalByPolicy(address[0], rate)

    def _refusalByPolicy(self, host: str, rate: PortRate | None) -> SocketwarpError | None:
        """Rules may have changed since the port was opened, so they are asked for each visitor."""
        port, policy = self.spec.port, self._lobby.policy
        try:
            policy.checkPort(self.spec, None)
            policy.checkVisitor(port, host)
        except (PortDenied, SourceDenied) as error:
            return error
        if rate is None or rate.letIn():
            return None
        return LimitReached(
            f"port {port} is for {rate.rule.connections_per_second:g} connections a second, says the policy"
        )

    def _letIn(self, visitor: Visitor) -> None:
        total = self.spec.limits.total
        if total is None:
            visitor.carry()
            return
        self.used += 1
        # On the disk first: after a crash the port must not be open for more visitors than it was opened for.
        counted = self._lobby.store.count(self.spec.port, self.used)
        counted.addCallbacks(lambda _: visitor.carry(), lambda failure: visitor.refuse(_errorOf(failure)))
        if self.used == total:
            self.watchLease()

    def _left(self, visitor: Visitor) -> None:
        self.visitors.discard(visitor)
        self._lobby.count -= 1
        self._tellIfEmpty()

    def _tellIfEmpty(self) -> None:
        if self._waiters and not self.visitors:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                waiter.callback(None)


def _nobody(address: Address) -> ITcpProtocol:
    """Whoever comes while it is only tried whether a port can be had: no reactor lets them."""
    raise PortClosed(f"{address[0]} came too early")


def _overlap(one: str, other: str) -> bool:
    """Whether a port can't be bound on both addresses at a time."""
    there = (ip_address(one), ip_address(other))
    wide = [each for each in there if each.is_unspecified]
    return any(each.version == 6 for each in wide) or (bool(wide) and there[0].version == there[1].version)


def _errorOf(failure: Failure) -> SocketwarpError:
    """What a store has failed with."""
    error = failure.value
    assert isinstance(error, SocketwarpError)
    return error
