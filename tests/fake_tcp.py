"""
TCP connections in memory: Twisted's own transport on a socket that isn't one.

What Twisted does with producers, half-closing and aborting is thus the real thing; only the kernel is played here. A
`FakeReactor` is a `Clock` whose turns also read and write the sockets that are ready.
"""

import errno
import socket
from collections.abc import Callable

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IProtocol
from twisted.internet.posixbase import _DisconnectSelectableMixin
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection
from zope.interface import implementer

from socketwarp.watches import IHangups

#: Bytes that the kernel takes for a reader who doesn't read.
KERNEL_BUFFER = 100_000


@implementer(IHangups)
class FakeReactor(Clock, _DisconnectSelectableMixin):
    """A `Clock` that polls its sockets. Use `tests.fakes.settle` to let it run."""

    def __init__(self) -> None:
        super().__init__()
        self._readers: dict[Connection, None] = {}
        self._writers: dict[Connection, None] = {}
        self._watched: dict[int, Callable[[], None]] = {}
        self._polling = False

    def addReader(self, reader: Connection) -> None:
        self._readers[reader] = None
        self.wake()

    def addWriter(self, writer: Connection) -> None:
        self._writers[writer] = None
        self.wake()

    def removeReader(self, reader: Connection) -> None:
        self._readers.pop(reader, None)

    def removeWriter(self, writer: Connection) -> None:
        self._writers.pop(writer, None)

    def watch(self, fd: int, reset: Callable[[], None]) -> None:
        self._watched.setdefault(fd, reset)
        self.wake()

    def forget(self, fd: int) -> None:
        self._watched.pop(fd, None)

    def wake(self) -> None:
        """Something may be ready."""
        if not self._polling:
            self._polling = True
            self.callLater(0, self._poll)

    def _poll(self) -> None:
        self._polling = False
        for transport in list(self._readers):
            if transport in self._readers and transport.socket.readable:  # type: ignore[attr-defined]  # a FakeSocket
                self._after(transport, transport.doRead(), True)
        for transport in list(self._writers):
            if transport in self._writers and transport.socket.writable:  # type: ignore[attr-defined]  # a FakeSocket
                self._after(transport, transport.doWrite(), False)

    def _after(self, transport: Connection, why: Exception | None, isRead: bool) -> None:
        if why is not None:
            self._disconnectSelectable(transport, why, isRead)
        self.wake()

    def socketFailed(self, fd: int) -> None:
        """The kernel's EPOLLERR."""
        if fd in self._watched:
            self.callLater(0, self._watched.pop(fd))


class FakeSocket:
    """
    A connected socket, as far as Twisted uses one, and the remote end of it.

    :ivar received: what the remote end has read.
    :ivar sawFin: whether it has read FIN; ``sawReset``: whether RST reached it.
    """

    def __init__(self, reactor: FakeReactor) -> None:
        self.received = bytearray()
        self.sawFin = False
        self.sawReset = False
        self.closed = False
        self._reactor = reactor
        self._in = bytearray()
        self._finIn = False
        self._resetIn = False
        self._out = bytearray()
        self._finOut = False
        self._linger = True

    # the remote end

    def remoteSends(self, data: bytes) -> None:
        """Some bytes; nobody hears them on a closed connection."""
        if self._deaf:
            return
        if self.closed:
            self.sawReset = True
            return
        self._in += data
        self._reactor.wake()

    def remoteFinishes(self) -> None:
        """FIN."""
        if not self._deaf:
            self._finIn = True
            self._reactor.wake()

    def remoteResets(self) -> None:
        """RST: what the remote end hasn't read is lost."""
        if not self._resetIn:
            self._resetIn = True
            self._out.clear()
            self._reactor.socketFailed(self.fileno())
            self._reactor.wake()

    def remoteReads(self, size: int = 1 << 30) -> None:
        """Some of what is there, and FIN behind it."""
        self.received += self._out[:size]
        del self._out[:size]
        self.sawFin = self.sawFin or (self._finOut and not (self._out or self._resetIn or self.sawReset))
        self._reactor.wake()

    @property
    def _deaf(self) -> bool:
        return self._finIn or self._resetIn or self.sawReset

    # the reactor's poll

    @property
    def readable(self) -> bool:
        """Whether ``recv`` has something to say."""
        return bool(self._in) or self._finIn or self._resetIn

    @property
    def writable(self) -> bool:
        """Whether ``send`` has."""
        return self._resetIn or len(self._out) < KERNEL_BUFFER

    # socket.socket

    def setblocking(self, flag: bool) -> None:
        assert not flag

    def fileno(self) -> int:
        return id(self)

    def recv(self, size: int) -> bytes:
        if self._in:
            data = bytes(self._in[:size])
            del self._in[:size]
            return data
        if self._resetIn:
            raise ConnectionResetError(errno.ECONNRESET, "reset")
        if self._finIn:
            return b""
        raise BlockingIOError(errno.EAGAIN, "nothing there")

    def send(self, data: memoryview) -> int:
        if self._resetIn or self._finOut:
            raise BrokenPipeError(errno.EPIPE, "broken")
        room = KERNEL_BUFFER - len(self._out)
        if data and not room:
            raise BlockingIOError(errno.EAGAIN, "full")
        self._out += data[:room]
        return min(len(data), room)

    def shutdown(self, how: int) -> None:
        self._finOut = True

    def setsockopt(self, level: int, option: int, value: object) -> None:
        if (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER):
            self._linger = False

    def close(self) -> None:
        self.closed = True
        if not self._linger or self._in:
            self.sawReset = not self._resetIn
            self._out.clear()
        else:
            self._finOut = True


class LocalConnection(Connection):
    """A connection with an end here."""

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "203.0.113.1", 18080)


def connect(reactor: FakeReactor, protocol: IProtocol) -> FakeSocket:
    """Give `protocol` a TCP connection; the result plays the remote end."""
    remote = FakeSocket(reactor)
    transport = LocalConnection(remote, protocol, reactor)  # type: ignore[arg-type]  # both are fakes
    transport.connected = 1
    transport.startReading()
    protocol.makeConnection(transport)
    return remote
