"""
TCP ports that stop accepting before the process runs out of file descriptors.

A port that takes what it can't serve has to close it, and a visitor sees a clean empty answer. Here visitors wait in
the kernel's queue instead until descriptors are free again, and a reserve stays for the API, the verifier and the
database. A new descriptor always gets the lowest free number (POSIX), so the number of the latest one says how many are
in use without counting them. Who runs out of something else can have the ports wait, too.

A visitor over TLS needs two: his own, and that of the lane that carries him. So those whom a lane is owed count twice,
and the port where lanes come in never waits with the others: it uses the reserve.
"""

import os
import socket
from collections.abc import Callable

import attrs
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ..errors import PortUnavailable
from ..tcp.limit import NO_LIMIT
from ..tcp.poll import IPoll
from ..tcp.port import Accept, IUsher, Port, Take, bind, serve
from .events import Events

#: Descriptors kept for everything that isn't a visitor, 512 clients of the API among it; a quarter where there are few.
RESERVE = 768
#: The part of the reserve that lanes don't get, either.
KEPT_SHARE = 4
#: Seconds between two looks whether descriptors are free again.
LOOK_SECONDS = 0.25


def lowestFree(descriptor: int) -> int:
    """The number that the next descriptor would get, found by duplicating one; past every limit when none is left."""
    try:
        duplicate = os.dup(descriptor)
    except OSError:
        return NO_LIMIT
    os.close(duplicate)
    return duplicate


@implementer(IUsher)
@attrs.define(eq=False)
class Descriptors:
    """
    Says when to stop accepting, and makes the ports that obey.

    :ivar limit: descriptors this process may have open.
    :ivar owed: says how many visitors who are here wait for a lane.
    """

    _clock: IReactorTime
    _poll: IPoll
    _events: Events
    limit: int
    _lowestFree: Callable[[int], int] = lowestFree
    _sockets: set[Port] = attrs.field(factory=set, init=False)
    _look: IDelayedCall | None = attrs.field(default=None, init=False)
    _shortage: str = attrs.field(default="", init=False)  # of descriptors, while `_look` is set
    _held: str = attrs.field(default="", init=False)  # why, by `hold`
    owed: Callable[[], int] = attrs.field(default=lambda: 0, init=False)

    @property
    def pausedBy(self) -> str:
        """Why no visitor is accepted for now, for people; empty while they are."""
        return self._held or self._shortage

    @property
    def _reserve(self) -> int:
        return min(RESERVE, self.limit // 4)

    def listen(self, accept: Accept, address: str, port: int) -> IListeningPort:
        """
        Bind and listen.

        :raises errors.PortUnavailable: when the address or port can't be had.
        """
        listening = self._bind(address, port)
        opened = Port(self._poll, listening, serve(self._poll, listening, accept), self)
        self._sockets.add(opened)
        if self.pausedBy:
            opened.pause()
        return opened

    def listenFor(self, take: Take, address: str, port: int) -> IListeningPort:
        """
        Bind and listen for lanes; `take` gets their sockets.

        :raises errors.PortUnavailable: as there.
        """
        kept = max(1, self._reserve // KEPT_SHARE)
        usher = LaneUsher(self._clock, self.limit - kept, self._lowestFree)
        usher.port = Port(self._poll, self._bind(address, port), take, usher)
        return usher.port

    @staticmethod
    def _bind(address: str, port: int) -> socket.socket:
        try:
            return bind(address, port)
        except OSError as error:
            raise PortUnavailable(f"port {port} can't be opened on {address}: {error.strerror}") from error

    def hold(self, reason: str) -> None:
        """Accept nobody until `release`, for want of something that isn't a descriptor."""
        self._held = reason
        self._pausePorts(reason)

    def release(self) -> None:
        """It is there again: go on, if there are descriptors."""
        self._held = ""
        self._resumePorts()

    def closed(self, port: Port) -> None:
        """See `IUsher`."""
        self._sockets.discard(port)
        if not self._sockets and self._look is not None:
            self._look.cancel()
            self._look, self._shortage = None, ""

    def room(self, descriptor: int) -> int:
        """See `IUsher`; at 0, all sockets have paused."""
        free = self._free(descriptor)
        if free <= 0:
            self._pause(f"{self.limit - self._reserve} file descriptors are in use, or will be in a moment")
            return 0
        # Numbers further up may be in use, so that fewer are free than it seems: half the reserve covers that.
        return min(free, max(1, self._reserve // 2))

    def exhausted(self, error: OSError) -> None:
        """See `IUsher`."""
        self._pause(error.strerror or str(error))

    def _free(self, descriptor: int) -> int:
        used = self._lowestFree(descriptor)
        free = self.limit - self._reserve - used
        # Whom a lane is owed has a descriptor: with more free than in use nobody need be asked who that is.
        return free if free > used else free - self.owed()

    def _pause(self, reason: str) -> None:
        if self._look is not None:
            return
        self._look, self._shortage = self._clock.callLater(LOOK_SECONDS, self._lookAgain), reason
        self._pausePorts(reason)

    def _lookAgain(self) -> None:
        if self._free(next(iter(self._sockets)).fileno()) <= 0:
            self._look = self._clock.callLater(LOOK_SECONDS, self._lookAgain)
            return
        self._look, self._shortage = None, ""
        self._resumePorts()

    def _pausePorts(self, reason: str) -> None:
        for port in self._sockets:
            port.pause()
        self._events.emit("port.paused", reason=reason)

    def _resumePorts(self) -> None:
        """Nothing keeps the ports, unless something else still does."""
        if self.pausedBy:
            return
        for port in self._sockets:
            port.startListening()
        self._events.emit("port.resumed")


@implementer(IUsher)
@attrs.define(eq=False)
class LaneUsher:
    """
    Says how many lanes may come in, to a port of its own: visitors wait for them, so it pauses for nothing else.

    :ivar port: to be set as soon as there is one.
    """

    _clock: IReactorTime
    _limit: int
    _lowestFree: Callable[[int], int]
    port: Port = attrs.field(init=False)
    _look: IDelayedCall | None = attrs.field(default=None, init=False)

    _log = Logger()

    def room(self, descriptor: int) -> int:
        """See `IUsher`; at 0, the port has paused."""
        free = self._limit - self._lowestFree(descriptor)
        if free <= 0:
            self._pause(f"{self._limit} file descriptors are in use")
        return max(0, free)

    def exhausted(self, error: OSError) -> None:
        """See `IUsher`."""
        self._pause(error.strerror or str(error))

    def closed(self, port: Port) -> None:
        """See `IUsher`."""
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def _pause(self, reason: str) -> None:
        if self._look is None:
            self._log.warn("no connections of connectors over TLS are accepted for now: {reason}", reason=reason)
            self.port.pause()
            self._look = self._clock.callLater(LOOK_SECONDS, self._lookAgain)

    def _lookAgain(self) -> None:
        if self._lowestFree(self.port.fileno()) >= self._limit:
            self._look = self._clock.callLater(LOOK_SECONDS, self._lookAgain)
            return
        self._look = None
        self.port.startListening()
