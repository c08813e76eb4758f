"""
Whole receive buffers to stream pieces: 1-RTT packets on the current path, opened by the batch (RFC 9001 §5, RFC 9000
§12.3, §13).

A busy tunnel's packets look the same: short header, the connection id in use, the address in use. Those are opened here
together, noted as runs of packet numbers, and acknowledged by the bytes; a whole flight is opened as one run, or else
packet by packet. Whatever looks different goes one by one, and in its turn, through aioquic's own path.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from aioquic.quic.connection import QuicConnectionError
from aioquic.quic.recovery import QuicPacketSpace

from ..interfaces import Piece
from .batch import Batch
from .frames import BULK, FIN, OFFSET_BITS, isBulk, isStream, parseBulk, parseRun, parseStream
from .numbers import ReceivedNumbers
from .protection import Keys, minimumSize
from .streams import Streams

#: Unacknowledged bytes received after which an ACK goes out at once instead of after `ACK_DELAY` seconds. 256 KiB are
#: four flights of 64 KiB; measured against an ACK for every other packet: 347 → 408 MB/s (FASTPATH, 1,452-byte
#: datagrams).
ACK_BYTES = 256 * 1024
ACK_DELAY = 0.001

#: Below these bytes nobody waits for the acknowledgement to send more, and it may take longer, in seconds: under the
#: 25 ms that we promise as max_ack_delay. Keystrokes and short connections then cost an ACK for many instead of one
#: for each.
FEW_BYTES = 2400
FEW_BYTES_DELAY = 0.015

#: Packets from which on it pays to look at them as one run; fewer take as long one by one, as measured.
LEAST_RUN = 6


class Connection(Protocol):
    """What the receiver needs of `engine.Engine`."""

    streams: Streams
    host_cid: bytes

    @property
    def isConfirmed(self) -> bool:
        """Whether the handshake is confirmed."""

    @property
    def isDeaf(self) -> bool:
        """Whether what comes in is dropped, because the connection closes."""

    @property
    def pathAddress(self) -> Any:  # Any: a socket address of whatever family
        """The peer's socket address on the current path."""

    @property
    def oneRtt(self) -> QuicPacketSpace:
        """The packet number space of application data."""

    def receiveKeys(self) -> Keys:
        """The keys in use."""

    def receiveOrdinary(self, datagram: memoryview, address: Any, now: float) -> None:
        """Take a datagram through aioquic's own path."""

    def handleFrames(self, plain: bytes, now: float) -> bool:
        """
        Handle a packet's frames; whether it asks for an acknowledgement.

        :raises QuicConnectionError: the connection has to be closed with it.
        """

    def close(self, error_code: int, frame_type: int | None, reason_phrase: str) -> None:
        """Close the connection."""

    def onReceived(self, first: int, size: int, now: float) -> None:
        """Packets of `size` bytes together have been handled, the last of them with this first byte."""


class Receiver:
    """
    Opens what arrives on one connection.

    :ivar unacknowledged: bytes that ask for an acknowledgement since the last one was sent.
    """

    def __init__(self, connection: Connection) -> None:
        self.unacknowledged = 0
        self._connection = connection
        # STREAM frames that follow one another: which stream, from where to where, and the last one's type.
        self._pieces: list[Piece] = []
        self._streamId = self._start = self._stop = -1
        self._frameType = 0
        # How a packet begins that continues them, by a sender such as `transmit`: with an offset of 8 bytes.
        self._head = self._next = b""

    def receive(self, batch: Batch, address: Any, now: float) -> None:
        """Take datagrams that came from `address` in this order."""
        if batch.isSingle:
            self._receiveEach((batch.data,), address, now)
        else:
            self._receiveEach(batch.split(self._receiveFlight(batch, address, now)), address, now)

    def _receiveFlight(self, batch: Batch, address: Any, now: float) -> int:
        """
        Take what is a flight such as `transmit` makes, as nearly all are when somebody sends much.

        :return: its bytes; nothing has happened if it is 0.
        """
        connection = self._connection
        cid, isOurs = self._expect(address)
        size, count = batch.size, len(batch.data) // batch.size
        if (
            count < LEAST_RUN
            or not isOurs
            or connection.isDeaf
            or batch.destination(len(cid)) != cid
            or size < minimumSize(cid)
        ):
            return 0
        keys = connection.receiveKeys()
        expected = connection.oneRtt.largest_received_packet + 1
        whole = count * size
        opened = keys.openRun(batch.data[:whole], size, cid, expected)
        if opened is None:
            return 0
        first, number, plains = opened
        try:
            run = parseRun(plains)
            if run is None:
                return 0
            connection.streams.onRun(*run)
        except QuicConnectionError as error:
            connection.close(error.error_code, error.frame_type, error.reason_phrase)
            return whole
        self.unacknowledged += len(plains) * len(plains[0])
        self._note(number, number + len(plains), now)
        connection.onReceived(first, whole, now)
        return whole

    def _receiveEach(self, datagrams: Sequence[memoryview], address: Any, now: float) -> None:
        batch: list[memoryview] = []
        connection = self._connection
        cid, isOurs = self._expect(address)
        size, least = 1 + len(cid), minimumSize(cid)
        for datagram in datagrams:
            if isOurs and datagram[1:size] == cid and datagram[0] & 0xC0 == 0x40 and len(datagram) >= least:
                batch.append(datagram)
            else:
                self._receiveBatch(batch, now)
                batch = []
                connection.receiveOrdinary(datagram, address, now)
                cid, isOurs = self._expect(address)
        self._receiveBatch(batch, now)

    def _expect(self, address: Any) -> tuple[bytes, bool]:  # Any: as above
        """The connection id in use, and whether packets to it that come from there are opened here."""
        connection = self._connection
        return connection.host_cid, connection.isConfirmed and connection.pathAddress == address

    def _receiveBatch(self, datagrams: list[memoryview], now: float) -> None:
        while datagrams and not self._connection.isDeaf:
            datagrams = self._receiveUnderKeys(datagrams, now)

    def _receiveUnderKeys(self, datagrams: list[memoryview], now: float) -> list[memoryview]:
        """Take them as far as the keys don't change; the rest."""
        connection = self._connection
        space, cid = connection.oneRtt, connection.host_cid
        keys = connection.receiveKeys()
        start = stop = space.largest_received_packet + 1
        first = size = 0
        rest = iter(datagrams)
        for datagram, (head, number, plain) in zip(rest, keys.open(datagrams, cid, stop), strict=True):
            if plain is None:  # under the keys before or after these, or forged: `OneRttKeys` knows how to tell
                self._endRun()
                self._note(start, stop, now)
                connection.receiveOrdinary(datagram, connection.pathAddress, now)
                start = stop = space.largest_received_packet + 1
                if connection.isDeaf:
                    return []
                if connection.receiveKeys() is not keys:
                    break
            else:
                if number != stop or number <= space.largest_received_packet:
                    self._note(start, stop, now)
                    start = stop = number
                    if number in space.received_packets:
                        start = stop = space.largest_received_packet + 1
                        continue
                if self._pieces and plain.startswith(self._next):
                    self._goOn(plain)
                else:
                    self._handle(plain, now)
                    if connection.isDeaf:
                        return []
                stop = number + 1
                size += len(datagram)
                first = head
        self._endRun()
        if connection.isDeaf:
            return []
        self._note(start, stop, now)
        if size:
            connection.onReceived(first, size, now)
        return list(rest)

    def _goOn(self, plain: bytes) -> None:
        """The run goes on with a frame that is as expected to the last bit of its header."""
        data = memoryview(plain)[len(self._next) :]
        self._pieces.append(data)
        self._stop += len(data)
        self._next = self._head + (self._stop | OFFSET_BITS).to_bytes(8)
        self.unacknowledged += len(plain)

    def _handle(self, plain: bytes, now: float) -> None:
        """A packet's frames; a STREAM frame that continues the run waits for the run's end."""
        connection = self._connection
        try:
            if plain and isBulk(plain[0]):
                streamId, offset, position = parseBulk(plain)
                if offset != self._stop or streamId != self._streamId:
                    self._endRun()
                    self._streamId, self._start = streamId, offset
                self._pieces.append(memoryview(plain)[position:])
                self._stop = offset + len(plain) - position
                self._frameType = plain[0]
                self.unacknowledged += len(plain)
                if plain[0] & FIN:
                    self._endRun()
                else:
                    self._head = bytes((BULK,)) + plain[1 : 1 + (1 << (plain[1] >> 6))]
                    self._next = self._head + (self._stop | OFFSET_BITS).to_bytes(8)
            else:
                self._endRun()
                if not connection.isDeaf:
                    self._handleFrames(plain, now)
        except QuicConnectionError as error:
            connection.close(error.error_code, error.frame_type, error.reason_phrase)

    def _handleFrames(self, plain: bytes, now: float) -> None:
        """STREAM frames of several streams, one after the other; from the first other frame on it is aioquic's."""
        streams, position = self._connection.streams, 0
        while position < len(plain) and isStream(frameType := plain[position]):
            streamId, offset, start, position = parseStream(plain, position)
            # A copy: one byte that waits for others must not keep the rest of its packet, which may be padding.
            streams.onStream(frameType, streamId, offset, plain[start:position], bool(frameType & FIN))
        isAckEliciting = position > 0
        if position < len(plain) or not plain:
            isAckEliciting |= self._connection.handleFrames(plain[position:], now)
        if isAckEliciting:
            self.unacknowledged += len(plain)

    def _endRun(self) -> None:
        """Give the run to its stream; flow control is checked once for all of it."""
        pieces, self._pieces = self._pieces, []
        if not pieces:
            return
        start, stop, self._stop = self._start, self._stop, -1
        fin = bool(self._frameType & FIN)
        try:
            self._connection.streams.onRun(self._frameType, self._streamId, start, pieces, stop - start, fin)
        except QuicConnectionError as error:
            self._connection.close(error.error_code, error.frame_type, error.reason_phrase)

    def _note(self, start: int, stop: int, now: float) -> None:
        """Packets `start` to before `stop` have been handled: have them acknowledged (RFC 9000 §13.2)."""
        if start == stop:
            return
        space = self._connection.oneRtt
        isInOrder = start == space.largest_received_packet + 1
        if stop > space.largest_received_packet:
            space.largest_received_packet = stop - 1
            space.largest_received_time = now
            space.expected_packet_number = stop
        space.ack_queue.add(start, stop)
        space.received_packets.add(start, stop)  # type: ignore[call-arg]  # it is a ReceivedNumbers, see engine
        if len(space.ack_queue) > ReceivedNumbers.MAX_RANGES:
            space.ack_queue.shift()
        if self.unacknowledged:
            if not isInOrder or self.unacknowledged >= ACK_BYTES:
                space.ack_at = now  # §13.2.1: at once when packets are missing or out of order
            else:
                later = now + (FEW_BYTES_DELAY if self.unacknowledged < FEW_BYTES else ACK_DELAY)
                space.ack_at = later if space.ack_at is None else min(space.ack_at, later)
