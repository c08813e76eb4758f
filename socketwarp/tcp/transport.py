"""
A TCP connection as a transport, made for bulk: large reads, and pieces written as they are.

What is written goes to the kernel at once. Only what the kernel doesn't take is kept, as views of the same bytes, and
then the producer is paused. Each direction ends on its own.
"""

import os
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import cast

from twisted.internet.error import ConnectionAborted, ConnectionLost
from twisted.internet.interfaces import IProducer, IPushProducer, ITransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..coalescing import Bulk, Pace
from ..interfaces import Address, ITcp, ITcpProtocol, Piece, plainAddress
from .poll import BROKEN, FINISHED, QUIET, READABLE, WRITABLE, IPoll, ISocketEvents

#: Bytes read at a time, as long as there are as many: what four flights of the QUIC carrier hold, whatever the path
#: MTU. A little more would be a fifth flight, of a packet or two.
BULK_READ = 250_000
#: Bytes read when the last read brought less than this. Memory for more would come from mmap(2), each time anew
#: (10 µs for a read of one byte, as measured), and what a connection sends before anybody is there to take it is kept.
FIRST_READ = 64 * 1024
#: Bytes kept for the kernel above which the producer is paused. It is resumed when all have gone.
HIGH_WATERMARK = 64 * 1024
#: Pieces that the kernel takes in one call.
PIECES_LIMIT = os.sysconf("SC_IOV_MAX")
#: What is asked for while the connection is read.
_READING = READABLE | FINISHED
#: SO_LINGER: on, for no time at all, which makes closing a reset.
RESET = struct.pack("ii", 1, 0)
#: SO_LINGER as it is when nobody sets it: what was written is sent after closing, too.
ORDERLY = struct.pack("ii", 0, 0)


def resetUnlessFinished(connection: socket.socket) -> None:
    """
    Have the kernel close it by RST until the transport has had it finished: that the process is killed must not look
    like the connection's end. What a listening socket accepts inherits this.
    """
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


@implementer(ITcp, ISocketEvents)
class TcpTransport:
    """
    See `ITcp`.

    The protocol is called from the constructor and from `ready`; besides, `writeConnectionLost` may come while it calls
    `loseWriteConnection`, and `connectionLost` while it calls `abortConnection` or `loseConnection`. A producer isn't
    told of the connection's end; the protocol is, and knows better what to do about it.
    """

    __slots__ = (
        "_bulk",
        "_events",
        "_fd",
        "_isAtEnd",
        "_isFinishing",
        "_isPaused",
        "_isProducerPaused",
        "_pace",
        "_poll",
        "_producer",
        "_protocol",
        "_queue",
        "_queued",
        "_readSize",
        "_socket",
    )

    _log = Logger()

    def __init__(self, poll: IPoll, connection: socket.socket, protocol: ITcpProtocol) -> None:
        """
        :param connection: connected and non-blocking, see `resetUnlessFinished`; it is the transport's from now on.
        :param protocol: gets its ``makeConnection`` now, and what has been sent already.
        """
        self._poll = poll
        self._socket: socket.socket | None = connection
        self._fd = connection.fileno()
        self._protocol = protocol
        self._producer: IPushProducer | None = None
        self._queue: list[Piece] = []
        self._queued = 0
        self._readSize = FIRST_READ
        self._bulk, self._pace = Bulk(), Pace()
        self._events = _READING
        self._isPaused = False
        self._isProducerPaused = False
        self._isAtEnd = False  # FIN has come
        self._isFinishing = False  # FIN follows what is queued
        poll.watch(self._fd, self, _READING)
        try:
            protocol.makeConnection(cast(ITransport, self))  # ITransport's rest is wanted by nobody
            # Who connects and speaks has often done both by now: that saves a wake-up, and a packet for the bytes.
            self.ready(READABLE)
        except Exception:
            self._log.failure("a connection's protocol failed at its start")
            self.abortConnection()

    def localAddress(self) -> Address:
        """See `ITcp`."""
        return ("", 0) if self._socket is None else plainAddress(self._socket.getsockname())

    # Reading

    def pauseProducing(self) -> None:
        """Read no more for now."""
        self._isPaused = True
        self._watch()

    def resumeProducing(self) -> None:
        """Read again."""
        if self._isPaused:
            self._isPaused = False
            self._watch()

    def stopProducing(self) -> None:
        """Nothing: how the consumer ended is the protocol's to act on."""

    def ready(self, events: int) -> None:
        """See `ISocketEvents`."""
        if self._socket is None:
            return
        if not (self._isPaused or self._isAtEnd):
            if events & ~WRITABLE:
                self._read(self._socket)
            # A short answer often comes with its end: read together, they travel together.
            isShort = self._readSize == FIRST_READ and not (self._isPaused or self._isAtEnd)
            if events & FINISHED and isShort and self._socket is not None:
                self._read(self._socket)
        elif events & BROKEN:
            self._fail(OSError(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), ""))
        if events & WRITABLE and self._queue:
            self._flush()

    def _read(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(self._readSize)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(error)
            return
        self._readSize = BULK_READ if len(data) >= FIRST_READ else FIRST_READ
        if data:
            self._protocol.dataReceived(data)
            self._rest(len(data))
        else:
            self._isAtEnd = True
            self._protocol.readConnectionLost()
            self._watch()  # unless that was the connection's end

    def _rest(self, size: int) -> None:
        """After a read of `size` bytes: leave what comes next in the kernel for a moment?"""
        isBulk = self._bulk.add(size)
        if isBulk and self._pace.isSlow(size, self._poll.seconds()) and self._socket is not None:
            self._poll.rest(self._fd, self._events)

    # Writing

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """
        See `IConsumer`; push producers only.

        :raises RuntimeError: there is one already.
        """
        if self._producer is not None:
            raise RuntimeError("a producer is registered already")
        assert streaming, "push producers only"
        self._producer = cast(IPushProducer, producer)

    def unregisterProducer(self) -> None:
        """See `IConsumer`."""
        self._producer = None
        self._isProducerPaused = False

    def writeSequence(self, pieces: Sequence[Piece], isLast: bool = False) -> None:
        """See `ITcp`."""
        if self._socket is None or self._isFinishing or not pieces:
            return
        self._bulk.size = 0  # what comes next may be waited for
        if not self._queue:
            with suppress(OSError):  # a broken connection will be writable, and tells then
                pieces = self._send(self._socket, pieces, socket.MSG_MORE if isLast else 0)
            if not pieces:
                return
        self._queue += pieces
        self._queued += sum(map(len, pieces))
        self._watch()
        if self._queued > HIGH_WATERMARK and self._producer is not None and not self._isProducerPaused:
            self._isProducerPaused = True
            self._producer.pauseProducing()

    @staticmethod
    def _send(connection: socket.socket, pieces: Sequence[Piece], flags: int = 0) -> Sequence[Piece]:
        """
        Give the kernel what it takes.

        :param flags: see sendmsg(2).
        :return: the rest.
        :raises OSError: the connection is broken.
        """
        while pieces:
            head = pieces[:PIECES_LIMIT]
            try:
                sent = connection.sendmsg(head, (), flags)
            except BlockingIOError:
                return pieces
            if sent < sum(map(len, head)):
                return _after(sent, pieces)
            pieces = pieces[PIECES_LIMIT:]
        return pieces

    def _flush(self) -> None:
        """The kernel takes more."""
        assert self._socket is not None
        try:
            self._queue = list(self._send(self._socket, self._queue))
        except OSError as error:
            self._fail(error)
            return
        self._queued = sum(map(len, self._queue))
        if self._queue:
            return
        self._watch()
        if self._isProducerPaused and self._producer is not None:
            self._isProducerPaused = False
            self._producer.resumeProducing()
        if self._isFinishing and self._socket is not None:
            self._finish(self._socket)

    # Ending

    def loseWriteConnection(self) -> None:
        """See `ITcp`."""
        if self._socket is not None and not self._isFinishing:
            self._isFinishing = True
            if not self._queue:
                self._finish(self._socket)

    def _finish(self, connection: socket.socket) -> None:
        with suppress(OSError):  # a broken connection; reading tells
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ORDERLY)
            connection.shutdown(socket.SHUT_WR)
        self._protocol.writeConnectionLost()

    def loseConnection(self) -> None:
        """See `ITcp`."""
        self._lose(connectionDone)

    def abortConnection(self) -> None:
        """See `ITcp`."""
        if self._socket is not None:
            resetUnlessFinished(self._socket)
            self._lose(Failure(ConnectionAborted()))

    def failed(self, reason: Failure) -> None:
        """See `ISocketEvents`."""
        self.abortConnection()

    def _fail(self, error: OSError) -> None:
        self._lose(Failure(ConnectionLost(os.strerror(error.errno or 0))))

    def _lose(self, reason: Failure) -> None:
        connection, self._socket = self._socket, None
        if connection is None:
            return
        connection.close()
        self._poll.closed(self._fd)
        self._queue.clear()
        self._producer = None
        self._protocol.connectionLost(reason)
        del self._protocol  # no cycle is left for the collector, nor is anybody told any more

    def _watch(self) -> None:
        """Tell the kernel what to tell us, if that has changed."""
        reading = 0 if self._isPaused or self._isAtEnd else _READING
        events = reading | (WRITABLE if self._queue else 0) or QUIET
        if events != self._events and self._socket is not None:
            self._events = events
            self._poll.watch(self._fd, self, events)


def _after(sent: int, pieces: Sequence[Piece]) -> list[Piece]:
    """What is left of the pieces, which are longer than `sent`."""
    for number, piece in enumerate(pieces):
        if sent < len(piece):
            return [memoryview(piece)[sent:], *pieces[number + 1 :]]
        sent -= len(piece)
    raise AssertionError("the kernel took more than there is")
