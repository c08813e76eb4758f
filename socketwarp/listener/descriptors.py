"""
TCP ports that stop accepting before the process runs out of file descriptors.

Left alone, Twisted's port takes what it can't serve and closes it: a visitor sees a clean empty answer. Here visitors
wait in the kernel's queue instead until descriptors are free again, and a reserve stays for the API, the verifier and
the database. A new descriptor always gets the lowest free number (POSIX), so the number of the latest one says how many
are in use without counting them.
"""

import os
import resource
from collections.abc import Callable
from typing import Any, cast

import attrs
from twisted.internet import tcp
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IProtocolFactory
from twisted.python.failure import Failure

from ..errors import PortUnavailable
from .events import Events

#: Descriptors kept for everything that isn't a visitor, 512 clients of the API among it; a quarter where there are few.
RESERVE = 768
#: Seconds between two looks whether descriptors are free again.
LOOK_SECONDS = 0.25
#: More descriptors than any kernel gives.
NO_LIMIT = 2**31
#: Visitors the kernel may keep waiting for `accept`, for each port; it cuts this at net.core.somaxconn.
BACKLOG = 1024


def raiseLimit() -> int:
    """
    Allow this process as many descriptors as it may allow itself.

    :returns: how many it may have open; the shell's usual 1,024 would be too few for 1,000 visitors.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return NO_LIMIT if hard == resource.RLIM_INFINITY else hard


def lowestFree(descriptor: int) -> int:
    """The number that the next descriptor would get, found by duplicating one; past every limit when none is left."""
    try:
        duplicate = os.dup(descriptor)
    except OSError:
        return NO_LIMIT
    os.close(duplicate)
    return duplicate


@attrs.define(eq=False)
class Descriptors:
    """
    Says when to stop accepting, and makes the ports that obey.

    :ivar limit: descriptors this process may have open.
    """

    _reactor: Any  # Any: IReactorTime, and what tcp.Port wants of a reactor, which Twisted leaves untyped
    _events: Events
    limit: int
    _lowestFree: Callable[[int], int] = lowestFree
    _sockets: "set[EntrySocket]" = attrs.field(factory=set, init=False)
    _look: IDelayedCall | None = attrs.field(default=None, init=False)

    @property
    def _reserve(self) -> int:
        return min(RESERVE, self.limit // 4)

    def listen(self, factory: IProtocolFactory, address: str, port: int) -> IListeningPort:
        """
        Bind and listen.

        :raises errors.PortUnavailable: when the address or port can't be had.
        """
        socket = EntrySocket(self, self._reactor, factory, address, port)
        try:
            socket.startListening()
        except CannotListenError as error:
            raise PortUnavailable(f"port {port} can't be opened on {address}: {error.socketError}") from error
        self._sockets.add(socket)
        if self._look is not None:
            socket.stopReading()
        # mypy-zope doesn't see through tcp.Port's untyped bases to its declaration.
        return cast(IListeningPort, socket)

    def forget(self, socket: "EntrySocket") -> None:
        """A socket was closed."""
        self._sockets.discard(socket)
        if not self._sockets and self._look is not None:
            self._look.cancel()
            self._look = None

    def room(self, descriptor: int) -> int:
        """How many visitors the socket with that descriptor may accept at once; at 0, all sockets have paused."""
        free = self.limit - self._reserve - self._lowestFree(descriptor)
        if free <= 0:
            self._pause()
            return 0
        # Numbers further up may be in use, so that fewer are free than it seems: half the reserve covers that.
        return min(free, max(1, self._reserve // 2))

    def _pause(self) -> None:
        if self._look is not None:
            return
        for socket in self._sockets:
            socket.stopReading()
        self._look = self._reactor.callLater(LOOK_SECONDS, self._lookAgain)
        self._events.emit("port.paused", reason=f"{self.limit - self._reserve} file descriptors are in use")

    def _lookAgain(self) -> None:
        descriptor = next(iter(self._sockets)).fileno()
        if self.limit - self._reserve - self._lowestFree(descriptor) <= 0:
            self._look = self._reactor.callLater(LOOK_SECONDS, self._lookAgain)
            return
        self._look = None
        for socket in self._sockets:
            socket.startReading()
        self._events.emit("port.resumed")


class EntrySocket(tcp.Port):
    """A listening socket that asks before it accepts."""

    def __init__(
        self, descriptors: Descriptors, reactor: object, factory: IProtocolFactory, address: str, port: int
    ) -> None:
        super().__init__(port, factory, BACKLOG, address, reactor)
        self._descriptors = descriptors

    def doRead(self) -> None:
        """Accept what waits, as far as there is room."""
        room = self._descriptors.room(self.fileno())
        if room:
            self.numberAccepts = min(self.numberAccepts, room)
            super().doRead()

    def connectionLost(self, reason: Failure) -> None:
        """The socket is closed."""
        self._descriptors.forget(self)
        super().connectionLost(reason)
