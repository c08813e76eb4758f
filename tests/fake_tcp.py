"""
TCP connections in memory: the true transport on a socket that isn't one.

What happens with producers, half-closing and aborting is thus the real thing; only the kernel is played here. A
`FakeReactor` is a `Clock` whose turns also tell of the sockets that are ready, as the kernel would.
"""

import errno
import socket
from collections.abc import Callable, Sequence

from twisted.internet.task import Clock
from zope.interface import implementer

from socketwarp.coalescing import COALESCING_SECONDS
from socketwarp.interfaces import ITcpProtocol, Piece
from socketwarp.tcp.poll import BROKEN, ENDED, FINISHED, QUIET, READABLE, WRITABLE, IPoll, ISocketEvents
from socketwarp.tcp.transport import ORDERLY, TcpTransport, resetUnlessFinished

#: Bytes that the kernel takes for a reader who doesn't read.
KERNEL_BUFFER = 100_000


@implementer(IPoll)
class FakeReactor(Clock):
    """
    A `Clock` that polls its sockets. Use `tests.fakes.settle` to let it run.

    :ivar sockets: by number.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sockets: dict[int, FakeSocket] = {}
        self._watched: dict[int, tuple[ISocketEvents, int]] = {}
        self._told: dict[int, int] = {}  # what edges have been told of
        self._polling = False

    def watch(self, fd: int, owner: ISocketEvents, events: int) -> None:
        self._watched[fd] = owner, events
        self._told.pop(fd, None)
        self.wake()

    def forget(self, fd: int) -> None:
        del self._watched[fd]

    closed = forget

    def rest(self, fd: int, events: int) -> None:
        owner, _ = self._watched[fd]
        self._watched[fd] = resting = owner, events & ~(READABLE | FINISHED) or QUIET
        self.callLater(COALESCING_SECONDS, self._rested, fd, resting, events)

    def _rested(self, fd: int, resting: tuple[ISocketEvents, int], events: int) -> None:
        if self._watched.get(fd) is resting:
            self.watch(fd, resting[0], events)
            resting[0].ready(READABLE)

    def soon(self, call: Callable[[], None]) -> None:
        self.callLater(0, call)

    def wake(self) -> None:
        """Something may be ready."""
        if not self._polling:
            self._polling = True
            self.callLater(0, self._poll)

    def _poll(self) -> None:
        self._polling = False
        for fd, (owner, wanted) in list(self._watched.items()):
            events = self.sockets[fd].events & (wanted | BROKEN | ENDED)
            if wanted & QUIET and events == self._told.get(fd):
                continue
            self._told[fd] = events
            if events:
                owner.ready(events)
                self.wake()


class FakeSocket:
    """
    A connected socket, as far as it is used, and the remote end of it.

    :ivar received: what the remote end has read.
    :ivar packets: how many went to it, FIN among them; all that is sent in one call is one.
    :ivar sawFin: whether it has read FIN; ``sawReset``: whether RST reached it.
    """

    def __init__(self, reactor: FakeReactor) -> None:
        self.received = bytearray()
        self.packets = 0
        self.sawFin = False
        self.sawReset = False
        self.closed = False
        self._reactor = reactor
        self._in = bytearray()
        self._finIn = False
        self._resetIn = False
        self._out = bytearray()
        self._finOut = False
        self._held = 0  # bytes sent with MSG_MORE, and nothing after them
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
            self._reactor.wake()

    def remoteReads(self, size: int = 1 << 30) -> None:
        """Some of what is there, and FIN behind it."""
        size = min(size, len(self._out) - self._held)
        self.received += self._out[:size]
        del self._out[:size]
        self.sawFin = self.sawFin or (self._finOut and not (self._out or self._resetIn or self.sawReset))
        self._reactor.wake()

    @property
    def unread(self) -> int:
        """Bytes that have come and that nobody has read."""
        return len(self._in)

    @property
    def _deaf(self) -> bool:
        return self._finIn or self._resetIn or self.sawReset

    # the reactor's poll

    @property
    def events(self) -> int:
        """What epoll_wait(2) would say."""
        readable = READABLE if self._in or self._finIn or self._resetIn else 0
        writable = WRITABLE if self._resetIn or len(self._out) < KERNEL_BUFFER else 0
        ended = ENDED if self._resetIn or (self._finIn and self._finOut) else 0
        finished = FINISHED if self._finIn or self._resetIn else 0
        return readable | finished | writable | ended | (BROKEN if self._resetIn else 0)

    # socket.socket

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

    def sendmsg(self, pieces: Sequence[Piece], ancillary: Sequence[object] = (), flags: int = 0) -> int:
        if self._resetIn or self._finOut:
            raise BrokenPipeError(errno.EPIPE, "broken")
        data = b"".join(pieces)
        room = KERNEL_BUFFER - len(self._out)
        if room <= 0:
            raise BlockingIOError(errno.EAGAIN, "full")
        self._out += data[:room]
        self._held = self._held + len(data) if flags & socket.MSG_MORE and len(data) <= room else 0
        self.packets += not self._held
        return min(len(data), room)

    def getsockname(self) -> tuple[str, int]:
        return "203.0.113.1", 18080

    def getsockopt(self, level: int, option: int) -> int:
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_ERROR)
        return errno.ECONNRESET if self._resetIn else 0

    def shutdown(self, how: int) -> None:
        self._finOut = True
        self._held = 0
        self.packets += 1

    def setsockopt(self, level: int, option: int, value: object) -> None:
        if (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER):
            self._linger = value == ORDERLY

    def close(self) -> None:
        self.closed = True
        self._held = 0
        if not self._linger or self._in:
            self.sawReset = not self._resetIn
            self._out.clear()
        else:
            self._finOut = True


def connect(reactor: FakeReactor, protocol: ITcpProtocol) -> FakeSocket:
    """Give `protocol` a TCP connection; the result plays the remote end."""
    remote = FakeSocket(reactor)
    reactor.sockets[remote.fileno()] = remote
    resetUnlessFinished(remote)  # type: ignore[arg-type]  # a fake
    TcpTransport(reactor, remote, protocol)  # type: ignore[arg-type]  # a fake
    return remote
