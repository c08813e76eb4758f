"""
A UDP port as a reactor descriptor: batches both ways, segmentation offload, no fragments.

UDP_SEGMENT cuts one `sendmsg` into up to 64 datagrams, UDP_GRO delivers up to 64 in one `recvmsg` (Linux udp(7)). Where
the kernel lacks them, or a device refuses at run time, each datagram takes a call of its own.
"""

import errno
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..coalescing import COALESCING_SECONDS, Pace
from ..errors import AddressUnavailable
from .batch import Batch
from .transmission import BYTES_PER_CALL, Transmission

#: linux/udp.h; the socket module of Python 3.11 names neither.
UDP_SEGMENT = 103
UDP_GRO = 104

#: linux/in.h and linux/in6.h: set DF, and send what is larger than a cached path MTU all the same (RFC 8899 §4.4).
IP_MTU_DISCOVER, IP_PMTUDISC_PROBE = 10, 3
IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE = 23, 3

#: `recvmsg` calls, and bytes, for one wake-up, so that a busy socket leaves time to others.
READS_PER_TURN = 64
BYTES_PER_TURN = 1 << 20

#: Bytes that one `recvmsg` takes, and from how many on what was read is handed over before more is.
READ_SIZE = 1 << 16
GATHERED_BYTES = 1 << 15

#: Transmissions that may wait for the socket to take more; what comes beyond is dropped, as a router would.
MAX_WAITING = 256

#: Bytes asked for as socket buffers. The kernel doubles the number and caps it at net.core.rmem_max and wmem_max.
SOCKET_BUFFER = 4 << 20

_CONTROL_SPACE = socket.CMSG_SPACE(4)
#: Errors that turn segmentation offload off: no checksum offload on the device, or no such option.
_NO_OFFLOAD = (errno.EIO, errno.EINVAL, errno.EOPNOTSUPP)

log = Logger()


class Handler(Protocol):
    """Who takes datagrams."""

    def batchReceived(self, batch: Batch, address: Any) -> None:
        """Datagrams that came from one socket address; valid only during the call."""

    def turnEnded(self) -> bool:
        """
        All that was there has been given: answer now. Whether what comes next may wait for `COALESCING_SECONDS`.
        """

    def writable(self) -> None:
        """The port takes transmissions again."""


class Reactor(Protocol):
    """What the port needs of a reactor: `IReactorFDSet`'s readers and writers, and `IReactorTime`."""

    def seconds(self) -> float: ...
    def callLater(self, delay: float, callable: Callable[..., object], *args: object) -> Any: ...  # Any: IDelayedCall
    def addReader(self, reader: Any) -> None: ...  # Any: descriptors, which the reactor checks
    def addWriter(self, writer: Any) -> None: ...
    def removeReader(self, reader: Any) -> None: ...
    def removeWriter(self, writer: Any) -> None: ...


@implementer(IReadWriteDescriptor)
class DatagramPort:
    """
    A bound UDP socket.

    :ivar address: host and port that it is bound to, as the socket module gives them.
    """

    def __init__(self, reactor: Reactor, handler: Handler, bound: socket.socket) -> None:
        self._reactor = reactor
        self._handler = handler
        self._socket = bound
        self._buffer = memoryview(bytearray(GATHERED_BYTES + READ_SIZE))
        self._waiting: deque[Transmission] = deque()
        self._pace = Pace()
        self._pause: Any = None  # Any: IDelayedCall
        self._hasSegmentation = _enable(bound, socket.IPPROTO_UDP, UDP_SEGMENT, 0)
        _enable(bound, socket.IPPROTO_UDP, UDP_GRO, 1)
        self.address: Any = bound.getsockname()
        reactor.addReader(self)

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """What the reactor calls it."""
        return "DatagramPort"

    @property
    def isBlocked(self) -> bool:
        """Whether something waits for the socket."""
        return bool(self._waiting)

    def doRead(self) -> None:
        """Take what has arrived."""
        total = 0
        for batch, address in self._batches():
            total += len(batch.data)
            self._handler.batchReceived(batch, address)
            if self._socket.fileno() < 0:
                return
        mayCoalesce = self._handler.turnEnded() and self._pace.isSlow(total, self._reactor.seconds())
        if mayCoalesce and self._socket.fileno() >= 0:
            self._reactor.removeReader(self)
            self._pause = self._reactor.callLater(COALESCING_SECONDS, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self._reactor.addReader(self)
        self.doRead()

    def _batches(self) -> Iterator[tuple[Batch, Any]]:
        """What has arrived, and from where. Datagrams of one size are gathered, where the kernel hasn't done it."""
        buffer = self._buffer
        total = start = stop = segmentSize = 0
        source: Any = None
        for _ in range(READS_PER_TURN):
            try:
                size, control, _, address = self._socket.recvmsg_into([buffer[stop:]], _CONTROL_SPACE)
            except BlockingIOError:
                break
            except OSError:
                continue  # an ICMP error of an earlier datagram
            if not size:
                continue
            each = _sizeIn(control) or size
            if start < stop and (each != segmentSize or address != source):
                yield Batch(buffer[start:stop], segmentSize), source
                start = stop
            segmentSize, source = each, address
            stop += size
            if size % each or stop >= GATHERED_BYTES:
                yield Batch(buffer[start:stop], each), address
                total += stop
                start = stop = 0
                if total >= BYTES_PER_TURN:
                    break
        if start < stop:
            yield Batch(buffer[start:stop], segmentSize), source

    def send(self, transmission: Transmission) -> None:
        """See `transmission.Sender`."""
        if self._waiting or not self._trySend(transmission):
            if len(self._waiting) < MAX_WAITING:
                self._waiting.append(transmission)
            self._reactor.addWriter(self)

    def doWrite(self) -> None:
        """The socket takes more."""
        while self._waiting:
            if not self._trySend(self._waiting[0]):
                return
            self._waiting.popleft()
        self._reactor.removeWriter(self)
        self._handler.writable()

    def _trySend(self, transmission: Transmission) -> bool:
        """Send all of it; false when the socket is full."""
        pieces, segmentSize, address = transmission
        if not self._hasSegmentation or len(pieces) <= 2:
            return self._sendEach(transmission)
        control = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", segmentSize))]
        try:
            self._socket.sendmsg(pieces, control, 0, address)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _NO_OFFLOAD:
                self._hasSegmentation = False
                log.warn("segmentation offload is switched off: {error}", error=error)
                return self._sendEach(transmission)
        return True

    def _sendEach(self, transmission: Transmission) -> bool:
        pieces, segmentSize, address = transmission
        data = b"".join(pieces)
        for start in range(0, len(data), segmentSize):
            try:
                self._socket.sendto(data[start : start + segmentSize], address)
            except BlockingIOError:
                return False  # the ones before go out again: a receiver drops duplicates
            except OSError:
                continue  # too large for the path (EMSGSIZE), unreachable, …: lost, as far as QUIC knows
        return True

    def close(self) -> None:
        """Close the socket; nothing more is called."""
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._waiting.clear()
        self._socket.close()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor found the descriptor unusable."""
        log.error("the UDP port failed: {reason}", reason=reason.getErrorMessage())


def _sizeIn(control: list[tuple[int, int, bytes]]) -> int:
    """How many bytes each datagram has of those that one `recvmsg` brought; 0 if it was only one."""
    for level, kind, value in control:
        if level == socket.IPPROTO_UDP and kind == UDP_GRO:
            return int.from_bytes(value[:4], sys.byteorder)
    return 0


def _enable(bound: socket.socket, level: int, option: int, value: int) -> bool:
    try:
        bound.setsockopt(level, option, value)
    except OSError:
        return False
    return True


def bind(interface: str, port: int, bufferSize: int = SOCKET_BUFFER) -> socket.socket:
    """
    A UDP socket bound to `interface` (an IPv4 or IPv6 address; ``::`` takes IPv4 as well) and `port` (0: any free one).

    :raises AddressUnavailable: naming the address and the system's reason.
    """
    family = socket.AF_INET6 if ":" in interface else socket.AF_INET
    try:
        bound = socket.socket(family, socket.SOCK_DGRAM)
    except OSError as error:
        raise AddressUnavailable(f"no UDP socket for {interface}: {error.strerror}") from error
    try:
        bound.setblocking(False)
        _enable(bound, socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            _enable(bound, socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE)
        bound.bind((interface, port))
    except OSError as error:
        bound.close()
        raise AddressUnavailable(f"UDP {interface} port {port} can't be bound: {error.strerror}") from error
    _setBuffers(bound, bufferSize)
    return bound


def _setBuffers(bound: socket.socket, size: int) -> None:
    for option, forced in ((socket.SO_RCVBUF, 33), (socket.SO_SNDBUF, 32)):  # SO_RCVBUFFORCE, SO_SNDBUFFORCE: for root
        if not _enable(bound, socket.SOL_SOCKET, forced, size):
            bound.setsockopt(socket.SOL_SOCKET, option, size)
        given = bound.getsockopt(socket.SOL_SOCKET, option) // 2
        if given < size:
            log.warn(
                "UDP socket buffer: asked for {size} bytes, the kernel gave {given}; raise net.core.rmem_max and "
                "net.core.wmem_max",
                size=size,
                given=given,
            )


assert BYTES_PER_CALL <= 65_507 < READ_SIZE
