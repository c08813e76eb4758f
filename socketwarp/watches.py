"""
What a bridge would not hear of by itself: a reset while nobody reads, and silence.

A reactor hears of RST by reading or writing. A connection that is paused for back-pressure, or whose FIN has come, does
neither, and its other side would wait for a dead peer. The kernel tells an epoll set about errors whatever else it
was asked for; and an epoll set is itself something that a reactor can watch.
"""

import select
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IPushProducer,
    IReactorFDSet,
    IReactorTime,
    IReadDescriptor,
    ISystemHandle,
    ITCPTransport,
)
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

#: Silence is looked for so many times in its time, so it is found at most a quarter late.
IDLE_CHECKS = 4


class IHangups(Interface):
    """Tells of sockets that fail while the reactor doesn't read them."""

    def watch(fd: int, reset: Callable[[], None]) -> None:  # noqa: N805 - zope interfaces have no self
        """Call `reset`, once, when the socket `fd` fails. Another call with the same `fd` does nothing."""

    def forget(fd: int) -> None:  # noqa: N805 - see above
        """Watch `fd` no more; also right after it was closed, and when it isn't watched."""


@implementer(IHangups, IReadDescriptor)
class Hangups:
    """`IHangups` by epoll. Make one for each reactor, and `close` it when all connections are gone."""

    def __init__(self, reactor: IReactorFDSet) -> None:
        self._reactor = reactor
        self._epoll = select.epoll()
        self._watched: dict[int, Callable[[], None]] = {}
        reactor.addReader(self)

    def watch(self, fd: int, reset: Callable[[], None]) -> None:
        """See `IHangups.watch`."""
        if fd not in self._watched and not self._epoll.closed:
            self._epoll.register(fd, 0)  # EPOLLERR and EPOLLHUP come unasked: epoll_ctl(2)
            self._watched[fd] = reset

    def forget(self, fd: int) -> None:
        """See `IHangups.forget`."""
        if self._watched.pop(fd, None) is not None:
            with suppress(OSError, ValueError):  # closing it has removed it; or we are closed ourselves
                self._epoll.unregister(fd)

    def close(self) -> None:
        """Release what the reactor and the kernel hold; nothing is told from here on."""
        self._reactor.removeReader(self)
        self._epoll.close()

    def doRead(self) -> None:
        """Some have failed (EPOLLERR), or have just ended in both directions (EPOLLHUP alone), which is no failure."""
        for fd, event in self._epoll.poll(0):
            reset = self._watched.get(fd)
            self.forget(fd)
            if reset is not None and event & select.EPOLLERR:
                reset()

    def fileno(self) -> int:
        """The epoll set."""
        return self._epoll.fileno()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor stops."""

    def logPrefix(self) -> str:
        """For Twisted's log of what a descriptor raises."""
        return "hangups"


class ITcp(ITCPTransport, ISystemHandle, IConsumer, IPushProducer):
    """What Twisted's TCP transports are."""


@implementer(IPushProducer)
class TcpProducer:
    """
    A TCP connection's bytes, to be paused and resumed by what consumes them, and not forgotten meanwhile.

    :ivar atEnd: FIN has come.
    """

    def __init__(self, hangups: IHangups | None, reset: Callable[[], None]) -> None:
        """
        :param hangups: told of RST while nobody reads. Without, such an RST is noticed with the next read or write.
        :param reset: called then.
        """
        self.atEnd = False
        self._hangups = hangups
        self._reset = reset
        self._tcp: ITcp | None = None
        self._fd = -1

    def begin(self, tcp: ITcp) -> None:
        """The connection is there; before that, the other methods do nothing."""
        handle: Any = tcp.getHandle()  # Any: Twisted gives a socket as an object
        self._tcp = tcp
        self._fd = handle.fileno()

    def pauseProducing(self) -> None:
        """Read no more for now."""
        if self._tcp is not None:
            self._tcp.pauseProducing()
            self._watch()

    def resumeProducing(self) -> None:
        """Read again. After FIN Twisted would tell of another FIN."""
        if self._tcp is not None and not self.atEnd:
            self._tcp.resumeProducing()
            self.forget()

    def stopProducing(self) -> None:
        """Nothing: a stream's receiver is told how the stream ended, and acts on that."""

    def end(self) -> None:
        """FIN has come; Twisted reads no more."""
        self.atEnd = True
        self._watch()

    def forget(self) -> None:
        """Somebody reads, or the connection is gone."""
        if self._hangups is not None:
            self._hangups.forget(self._fd)

    def _watch(self) -> None:
        if self._hangups is not None:
            self._hangups.watch(self._fd, self._reset)


class IdleWatch:
    """Finds out that a count has stood still for a time; nothing is noted when it moves."""

    def __init__(self, clock: IReactorTime, limit: float, count: Callable[[], int], idle: Callable[[], None]) -> None:
        """
        :param limit: seconds.
        :param count: what should move.
        :param idle: called once, when it hasn't.
        """
        self._clock = clock
        self._limit = limit
        self._count = count
        self._idle = idle
        self._seen = count()
        self._quiet = 0
        self._timer = self._later()

    def stop(self) -> None:
        """Watch no more."""
        if self._timer.active():
            self._timer.cancel()

    def _later(self) -> IDelayedCall:
        return self._clock.callLater(self._limit / IDLE_CHECKS, self._check)

    def _check(self) -> None:
        count = self._count()
        self._quiet = self._quiet + 1 if count == self._seen else 0
        self._seen = count
        if self._quiet == IDLE_CHECKS:
            self._idle()
        else:
            self._timer = self._later()
