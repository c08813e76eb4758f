"""
One TLS connection on a socket of its own: the handshake, records in, records out, its end.

OpenSSL reads and writes the socket itself, which is what makes this carrier fast: nothing is copied between it and
Python but the plaintext. What is written waits in order, and only whole frames of it can be taken back.
"""

import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from OpenSSL import SSL
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..coalescing import Bulk, Pace
from ..interfaces import Address, Piece, plainAddress
from ..tcp.poll import BROKEN, ENDED, QUIET, READABLE, WRITABLE, IPoll, ISocketEvents
from .contexts import Conduct

#: Bytes of plaintext in a record at most, RFC 8446 §5.1.
RECORD_SIZE = 2**14
#: Records read for one wake-up, so that others have their turn: 256 KiB, as much as is read from a TCP side.
RECORDS_PER_READ = 16
#: Bytes dropped at a time of what comes to a connection that ends.
DISCARD_SIZE = 2**16
#: SO_LINGER: on, for no time at all, which makes closing a reset.
_RESET = struct.pack("ii", 1, 0)
#: Seconds of silence after which the kernel asks whether the other side is there, between its questions, and how many
#: go unanswered before the connection is lost: a lane that waits for visitors must be one that works.
_KEEP_ALIVE = {socket.TCP_KEEPIDLE: 15, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}


class Owner(Protocol):
    """Whose connection it is."""

    def secured(self) -> None:
        """The handshake is over."""

    def received(self, chunks: list[bytes]) -> None:
        """Non-empty plaintext, in order."""

    def drained(self) -> None:
        """All that was written has gone to the kernel, some of it later than it was written."""

    def lost(self, reason: str) -> None:
        """The connection is gone, for a reason that isn't `TlsTransport.abort`. No other call follows."""


@implementer(ISocketEvents)
class TlsTransport:
    """
    A TLS connection.

    :ivar connection: OpenSSL's.
    :ivar owner: who is told; set it before `start`, and replace it at any time.
    :ivar queued: bytes that wait for the kernel.
    """

    __slots__ = ("_bulk", "_events", "_fd", "_frames", "_isFinishing", "_isPaused", "_isSecured", "_pace", "_poll",
                 "_queue", "_refused", "_socket", "_trouble", "connection", "owner", "queued")  # fmt: skip
    owner: Owner

    _log = Logger()

    def __init__(self, poll: IPoll, connection: socket.socket, context: SSL.Context, conduct: Conduct) -> None:
        """
        :param connection: connected and non-blocking; it is the transport's from now on.
        :raises OSError: it is broken already.
        """
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEP_ALIVE.items():
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
        self.connection = SSL.Connection(context, connection)
        self.connection.set_app_data(conduct)
        self.queued = 0
        self._poll = poll
        self._socket: socket.socket | None = connection
        self._fd = connection.fileno()
        self._queue: deque[Piece] = deque()
        self._frames: deque[int] = deque()  # bytes left of each frame in the queue
        self._refused = 0  # bytes of the queue's head, of which OpenSSL has made records already
        self._events = 0
        self._bulk, self._pace = Bulk(), Pace()
        self._trouble = ""  # writing has failed
        self._isSecured = False
        self._isPaused = False
        self._isFinishing = False

    def start(self, isServer: bool) -> None:
        """Begin the handshake."""
        if isServer:
            self.connection.set_accept_state()
        else:
            self.connection.set_connect_state()
        self._events = READABLE
        self._poll.watch(self._fd, self, READABLE)
        self._shakeHands()

    @property
    def isThere(self) -> bool:
        """Whether the connection isn't gone."""
        return self._socket is not None

    @property
    def peerAddress(self) -> Address:
        """Where the other side is; nowhere once the connection is gone."""
        try:
            return ("", 0) if self._socket is None else plainAddress(self._socket.getpeername())
        except OSError:
            return ("", 0)

    def soon(self, call: Callable[[], None]) -> None:
        """Call it when all sockets' events of this moment have been told."""
        self._poll.soon(call)

    # Reading

    def pauseReading(self) -> None:
        """Read no more for now."""
        self._isPaused = True
        self._watch()

    def resumeReading(self) -> None:
        """Go on."""
        self._isPaused = False
        self._watch()

    def ready(self, events: int) -> None:
        """See `ISocketEvents`."""
        if self._socket is None:
            return
        if not self._isSecured:
            self._shakeHands()
            return
        if events & WRITABLE:
            self._flush()
        if self._trouble:
            self._fail(self._trouble)
        if self._socket is None:
            return
        if self._isFinishing:
            self._discard(self._socket)
        elif not self._isPaused:
            if events & ~WRITABLE:
                self._read()
        elif events & (BROKEN | ENDED):
            self._fail("the connection broke")

    def _shakeHands(self) -> None:
        try:
            self.connection.do_handshake()
        except SSL.WantReadError:
            self._setEvents(READABLE)
        except SSL.WantWriteError:
            self._setEvents(WRITABLE)
        except SSL.Error as error:
            self._fail(describe(error))
        else:
            self._isSecured = True
            self._watch()
            self.owner.secured()
            self.flush()
            if self._socket is not None and not self._isPaused and not self._isFinishing:
                self._read()  # the first frame came with the end of the handshake

    def _read(self) -> None:
        chunks: list[bytes] = []
        size = 0
        trouble = None
        try:
            for _ in range(RECORDS_PER_READ):
                chunk = self.connection.recv(RECORD_SIZE)
                chunks.append(chunk)
                size += len(chunk)
                if len(chunk) < RECORD_SIZE:
                    break
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            trouble = describe(error)
        if chunks:
            self.owner.received(chunks)
        if trouble is not None:
            self._fail(trouble)
        else:
            self._rest(size)

    def _rest(self, size: int) -> None:
        """After a read of `size` bytes, 0 for a part of a record: leave what comes next in the kernel for a moment?"""
        isBulk = self._bulk.add(size) if size else self._bulk.isOne
        if isBulk and self._pace.isSlow(size, self._poll.seconds()) and self._socket is not None:
            self._poll.rest(self._fd, self._events)

    def _discard(self, connection: socket.socket) -> None:
        """What still comes to one that ends: nobody's, and not OpenSSL's to spend time on either."""
        try:
            if connection.recv(DISCARD_SIZE):
                return
            reason = "the other side closed the connection"
        except BlockingIOError:
            return
        except OSError as error:
            reason = str(error.strerror)
        self._fail(reason)

    # Writing

    def write(self, header: bytes, pieces: Sequence[Piece] = ()) -> None:
        """
        Queue one frame: its header, and the pieces of its payload, which must not be changed afterwards. `flush` sends
        it.
        """
        if self._isFinishing or self._socket is None:
            return
        self._bulk.size = 0  # what comes next may be waited for
        size = len(header) + sum(map(len, pieces))
        self._frames.append(size)
        self.queued += size
        if size <= RECORD_SIZE:
            self._queue.append(b"".join((header, *pieces)))
            return
        # The header shares its record with the first bytes.
        first = memoryview(pieces[0])
        room = RECORD_SIZE - len(header)
        self._queue.append(b"".join((header, first[:room])))
        if len(first) > room:
            self._queue.append(first[room:])
        self._queue.extend(pieces[1:])

    def flush(self) -> None:
        """Send what waits, as far as the kernel takes it; it tells when it takes more, and when it is broken."""
        if self._isSecured and not self._events & WRITABLE:
            self._flush()
            if self._trouble:
                self._setEvents(READABLE | WRITABLE)

    def _flush(self) -> None:
        if self._socket is None or not self._queue:
            return
        wasWaiting = bool(self._events & WRITABLE)
        try:
            while self._queue:
                self.connection.send(self._head())
                self._sent()
        except (SSL.WantWriteError, SSL.WantReadError):
            self._refused = len(self._queue[0])
        except SSL.Error as error:
            self._trouble = describe(error)
            return
        self._watch()
        if not self._queue:
            if self._isFinishing:
                self._finish()
            elif wasWaiting:
                self.owner.drained()

    def _head(self) -> Piece:
        """The next piece; small ones are joined to fill a record, unless OpenSSL insists on what it has."""
        queue = self._queue
        if self._refused or len(queue) == 1 or len(queue[0]) + len(queue[1]) > RECORD_SIZE:
            return queue[0]
        joined = bytearray(queue.popleft())
        while queue and len(joined) + len(queue[0]) <= RECORD_SIZE:
            joined += queue.popleft()
        queue.appendleft(joined)
        return joined

    def _sent(self) -> None:
        """OpenSSL takes a piece as a whole, or will be given it again."""
        self._refused = 0
        size = len(self._queue.popleft())
        self.queued -= size
        frames = self._frames
        while size and frames[0] <= size:
            size -= frames.popleft()
        if size:
            frames[0] -= size

    def takeBack(self) -> None:
        """
        Drop the queued frames of which nothing has been sent yet: those that aren't in the piece that OpenSSL has
        refused, not even in part.
        """
        kept, size = 0, 0
        while kept < len(self._frames) and size < self._refused:
            size += self._frames[kept]
            kept += 1
        queue, self._queue = self._queue, deque()
        self._frames = deque(list(self._frames)[:kept])
        self.queued = size
        for piece in queue:
            if not size:
                break
            self._queue.append(piece)
            size -= len(piece)

    # Ending

    def close(self) -> None:
        """End the connection once all that was written has gone; what still comes is dropped."""
        if self._socket is None or self._isFinishing:
            return
        self._isFinishing = True
        if not self._isSecured:
            self.abort()
        elif self._queue:
            self.resumeReading()
            self.flush()
        else:
            self._finish()

    def _finish(self) -> None:
        assert self._socket is not None
        with suppress(SSL.Error, OSError):  # a broken connection; reading tells
            self.connection.shutdown()
            self._socket.shutdown(socket.SHUT_WR)
        self.resumeReading()

    def abort(self) -> None:
        """RST, at once; the owner isn't told."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._lose()

    def failed(self, reason: Failure) -> None:
        """See `ISocketEvents`."""
        self._fail("an internal error")

    def _fail(self, reason: str) -> None:
        if self._socket is not None:
            self._lose()
            self.owner.lost(reason)

    def _lose(self) -> None:
        assert self._socket is not None
        connection, self._socket = self._socket, None
        connection.close()
        self._poll.closed(self._fd)
        del self.connection  # at once, not when the cycle of owner and transport is found: it is tens of KiB
        self._queue.clear()
        self._frames.clear()
        self.queued = 0

    def _watch(self) -> None:
        """Tell the kernel what to tell us, if that has changed."""
        if self._isSecured:
            reading = 0 if self._isPaused else READABLE
            self._setEvents(reading | (WRITABLE if self._refused else 0) or QUIET)

    def _setEvents(self, events: int) -> None:
        if events != self._events and self._socket is not None:
            self._events = events
            self._poll.watch(self._fd, self, events)


def describe(error: SSL.Error) -> str:
    """What OpenSSL means, in a few words."""
    if isinstance(error, SSL.ZeroReturnError):
        return "the other side closed the connection"
    if isinstance(error, SSL.SysCallError):
        return "the other side closed the connection" if error.args[0] == -1 else str(error.args[1])
    reasons = error.args[0] if error.args else []
    return f"TLS: {reasons[-1][2]}" if reasons else "TLS failed"
