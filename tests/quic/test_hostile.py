"""A peer that breaks the rules, in the fast path's shape and in others, hears the same of us as of plain aioquic."""

# ruff: noqa: B023  (what is defined in a loop here is called in that turn of it)

import tracemalloc
from typing import Any

from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicErrorCode as Code
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.interfaces import Piece
from socketwarp.quic.engine import Engine
from socketwarp.quic.numbers import ReceivedNumbers
from socketwarp.quic.windows import Limits

from ..pump import CLIENT, SERVER, START, Pump, give, newClient, newServer
from .apps import apps, sealed, varint

#: aioquic's fixed number of streams; its windows are settings.
LIMITS = Limits(streamWindow=4000, sessionWindow=10_000, streams=128)
TOP = (1 << 62) - 1


def stream(streamId: int, offset: int, data: bytes = b"x", fin: bool = False) -> bytes:
    """A STREAM frame to the end of the packet: what the fast path takes."""
    return bytes((0x0C | fin,)) + varint(streamId, offset) + data


def withLength(streamId: int, offset: int, data: bytes = b"x", fin: bool = False) -> bytes:
    """A STREAM frame with a length, which others may follow."""
    return bytes((0x0E | fin,)) + varint(streamId, offset, len(data)) + data


def violations(theirs: int, ours: int) -> dict[str, tuple[Code, list[bytes]]]:
    """
    What a hostile peer sends, packet by packet; the last is the one that breaks a rule.

    :param theirs: the lowest number of a bidirectional stream of that peer.
    :param ours: of the other end, which has opened none.
    """
    found: dict[str, tuple[Code, list[bytes]]] = {}
    for shape, frame in (("", stream), (" with length", withLength)):
        found |= {
            f"beyond the stream's window{shape}": (Code.FLOW_CONTROL_ERROR, [frame(theirs, 4000)]),
            f"beyond the connection's window{shape}": (
                Code.FLOW_CONTROL_ERROR,
                [*(frame(theirs + 4 * each, 3332) for each in range(3)), frame(theirs + 12, 0, b"xy")],
            ),
            f"beyond the final size{shape}": (
                Code.FINAL_SIZE_ERROR,
                [frame(theirs, 10, b"", True), frame(theirs, 10)],
            ),
            f"another final size{shape}": (
                Code.FINAL_SIZE_ERROR,
                [frame(theirs, 10, b"", True), frame(theirs, 11, b"", True)],
            ),
            f"a final size below what has come{shape}": (
                Code.FINAL_SIZE_ERROR,
                [frame(theirs, 10), frame(theirs, 10, b"", True)],
            ),
            f"a stream that nobody opened{shape}": (Code.STREAM_STATE_ERROR, [frame(ours, 0)]),
            f"our unidirectional stream{shape}": (Code.STREAM_STATE_ERROR, [frame(ours + 2, 0)]),
            f"too many streams{shape}": (Code.STREAM_LIMIT_ERROR, [frame(theirs + 4 * 128, 0)]),
            f"too large an offset{shape}": (Code.FRAME_ENCODING_ERROR, [frame(theirs, TOP)]),
        }
    return found | {
        "no frame": (Code.PROTOCOL_VIOLATION, [b""]),
        "an unknown frame": (Code.FRAME_ENCODING_ERROR, [b"\x21"]),
        "half a frame type": (Code.FRAME_ENCODING_ERROR, [b"\x40"]),
        "a STREAM frame without its number": (Code.FRAME_ENCODING_ERROR, [b"\x0c"]),
        "a STREAM frame with half its number": (Code.FRAME_ENCODING_ERROR, [b"\x08\x40"]),
        "a STREAM frame without its offset": (Code.FRAME_ENCODING_ERROR, [b"\x0c" + varint(theirs)]),
        "a STREAM frame with half its offset": (Code.FRAME_ENCODING_ERROR, [b"\x0c" + varint(theirs) + b"\xc0\0"]),
        "a STREAM frame shorter than its length": (Code.FRAME_ENCODING_ERROR, [b"\x0a" + varint(theirs, 9) + b"x"]),
        "half an ACK": (Code.FRAME_ENCODING_ERROR, [b"\x02" + varint(3)]),
        "an ACK of negative numbers": (Code.FRAME_ENCODING_ERROR, [b"\x02" + varint(3, 0, 0, 9)]),
        "a reset beyond the window": (Code.FLOW_CONTROL_ERROR, [b"\x04" + varint(theirs, 0, 4001)]),
        "a reset with another final size": (
            Code.FINAL_SIZE_ERROR,
            [stream(theirs, 5, b"", True), b"\x04" + varint(theirs, 0, 4)],
        ),
        "a reset of a stream that nobody opened": (Code.STREAM_STATE_ERROR, [b"\x04" + varint(ours, 0, 0)]),
        "STOP_SENDING of a stream that nobody opened": (Code.STREAM_STATE_ERROR, [b"\x05" + varint(ours, 0)]),
        "STOP_SENDING of the peer's own direction": (Code.STREAM_STATE_ERROR, [b"\x05" + varint(theirs + 2, 0)]),
        "MAX_STREAM_DATA of a stream that nobody opened": (Code.STREAM_STATE_ERROR, [b"\x11" + varint(ours, 0)]),
        "MAX_STREAM_DATA of the peer's own direction": (Code.STREAM_STATE_ERROR, [b"\x11" + varint(theirs + 2, 0)]),
        "STREAM_DATA_BLOCKED of too high a stream": (Code.STREAM_LIMIT_ERROR, [b"\x15" + varint(theirs + 4 * 128, 0)]),
        "too high a MAX_STREAMS": (Code.FRAME_ENCODING_ERROR, [b"\x12" + varint((1 << 60) + 1)]),
        "an id that was never issued retired": (Code.PROTOCOL_VIOLATION, [b"\x19" + varint(99)]),
        "a CRYPTO frame far away": (Code.CRYPTO_BUFFER_EXCEEDED, [b"\x06" + varint(1 << 30, 1) + b"x"]),
    }


class ViolationTests(SynchronousTestCase):
    """Each against an engine and against plain aioquic with the same limits; the hostile peer is always plain."""

    def connect(self, isServer: bool, isOurs: bool) -> tuple[Pump, QuicConnection, QuicConnection]:
        """The victim and the hostile peer."""
        fields: dict[str, Any] = {"max_data": LIMITS.sessionWindow, "max_stream_data": LIMITS.streamWindow}
        client = newClient(isOurs and not isServer, LIMITS, **fields)
        server = newServer(client, isOurs and isServer, LIMITS, **fields)
        pump = Pump(client, server)
        pump.connect()
        return (pump, server, client) if isServer else (pump, client, server)

    def codeAfter(
        self, isServer: bool, isOurs: bool, packets: list[bytes], first: int = 0x40, isBatch: bool = False
    ) -> int | None:
        """What the hostile peer hears; the packets come one by one, or all in one batch."""
        pump, victim, peer = self.connect(isServer, isOurs)
        address = CLIENT if isServer else SERVER
        datagrams = [*(sealed(peer, plain) for plain in packets[:-1]), sealed(peer, packets[-1], first)]
        if not isBatch:
            give(victim, datagrams[:-1], address, pump.now)
            self.assertIsNone(victim._close_event)
            del datagrams[:-1]
        give(victim, datagrams, address, pump.now)
        pump.run(0.1)
        return peer._close_event.error_code if peer._close_event is not None else None

    def test_everyViolationIsAnsweredWithItsErrorCodeByServers(self) -> None:
        for name, (code, packets) in violations(theirs=0, ours=1).items():
            codes = [self.codeAfter(True, isOurs, packets) for isOurs in (False, True)]
            codes.append(self.codeAfter(True, True, packets, isBatch=True))
            self.assertEqual((name, [code] * 3), (name, codes))

    def test_everyViolationIsAnsweredWithItsErrorCodeByClients(self) -> None:
        for name, (code, packets) in violations(theirs=1, ours=0).items():
            codes = [self.codeAfter(False, isOurs, packets) for isOurs in (False, True)]
            codes.append(self.codeAfter(False, True, packets, isBatch=True))
            self.assertEqual((name, [code] * 3), (name, codes))

    def test_reservedBitsAreAProtocolViolation(self) -> None:
        for first in (0x48, 0x50):
            for isServer in (False, True):
                codes = [self.codeAfter(isServer, isOurs, [b"\x01"], first) for isOurs in (False, True)]
                self.assertEqual([Code.PROTOCOL_VIOLATION] * 2, codes)

    def test_unidirectionalStreamsOfThePeerAreOverTheLimit(self) -> None:
        """aioquic allows 128 of them; we have no use for any."""
        self.assertEqual(Code.STREAM_LIMIT_ERROR, self.codeAfter(True, True, [stream(2, 0)]))
        self.assertEqual(Code.STREAM_LIMIT_ERROR, self.codeAfter(False, True, [withLength(3, 0)]))

    def test_framesForServersOnlyOrClientsOnlyAreRefused(self) -> None:
        for frame in (b"\x1e", b"\x07" + varint(1) + b"t"):
            codes = [self.codeAfter(True, isOurs, [frame]) for isOurs in (False, True)]
            self.assertEqual([Code.PROTOCOL_VIOLATION] * 2, codes)

    def test_nothingIsDeliveredAfterAViolationInTheSameBatch(self) -> None:
        pump, victim, peer = self.connect(True, True)
        assert isinstance(victim, Engine)
        packets = [stream(0, 0, b"before"), stream(0, 4000), stream(0, 6, b"after")]
        give(victim, [sealed(peer, each) for each in packets], CLIENT, pump.now)
        self.assertEqual([b"before"], [bytes(each) for each in victim.streams.states[0].receiving.pieces])
        self.assertTrue(victim.isClosing)


class DuplicateTests(SynchronousTestCase):
    """RFC 9000 §12.3: a packet is handled once, however it comes again."""

    def test_packetsThatComeAgainInAnyOrderAreHandledOnce(self) -> None:
        client = newClient(False)
        server = newServer(client)
        assert isinstance(server, Engine)
        pump = Pump(client, server)
        pump.connect()
        count: list[int] = []
        handle = server.streams.onRun

        def spy(frameType: int, streamId: int, offset: int, pieces: list[Piece], size: int, fin: bool) -> None:
            count.extend(range(offset, offset + len(pieces)))
            handle(frameType, streamId, offset, pieces, size, fin)

        server.streams.onRun = spy  # type: ignore[method-assign]  # a spy
        packets = [sealed(client, stream(0, each)) for each in range(10)]
        for order in ([0, 1, 2, 5, 6, 9], [4, 5, 6, 3, 3], [2, 3, 4, 5], [7, 8, 9, 9, 0], list(range(10)), [8, 8]):
            give(server, [packets[each] for each in order], CLIENT, pump.now)
        self.assertEqual(list(range(10)), sorted(count))
        numbers = [number for run in server.oneRtt.ack_queue for number in run]
        self.assertEqual(sorted(set(numbers)), sorted(numbers))


class MemoryTests(SynchronousTestCase):
    def test_twelveSparseFramesAtTheEdgeOfTheWindowCostNoMemory(self) -> None:
        """At most 2 MiB by the acceptance table; plain aioquic takes 2 GiB."""
        for frame in (stream, withLength):
            for streams in (1, 12):
                limits = Limits(streamWindow=1 << 27, sessionWindow=1 << 31)
                client = newClient(False)
                server = newServer(client, True, limits)
                pump = Pump(client, server)
                pump.connect()
                edge = (1 << 27) - 20
                packets = [sealed(client, frame(4 * (each % streams), edge - 2 * each)) for each in range(12)]
                tracemalloc.start()
                give(server, packets, CLIENT, pump.now)
                used = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                self.assertLess(used, 200_000)
                self.assertIsNone(server._close_event)

    def test_aByteBeyondAGapDoesNotKeepThePaddingOfItsPacket(self) -> None:
        """A thousand gaps are a thousand bytes and what it takes to know of them, not a thousand packets."""
        client = newClient(False)
        server = newServer(client)
        pump = Pump(client, server)
        pump.connect()
        packets = [sealed(client, withLength(0, 2 + 2 * each) + bytes(12_000)) for each in range(1000)]
        tracemalloc.start()
        give(server, packets, CLIENT, pump.now)
        used = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        self.assertLess(used, 1 << 20)
        self.assertIsNone(server._close_event)

    def test_packetNumbersWithGapsAreAcknowledgedInSoManyRanges(self) -> None:
        """RFC 9000 §13.2.3."""
        client = newClient(False)
        server = newServer(client)
        assert isinstance(server, Engine)
        Pump(client, server).connect()
        first = client._packet_number + 1
        packets = [sealed(client, b"\x01", number=first + 2 * each) for each in range(300)]
        give(server, packets, CLIENT, START + 1)
        self.assertLessEqual(len(server.oneRtt.ack_queue), ReceivedNumbers.MAX_RANGES)
        self.assertEqual(first + 598, server.oneRtt.ack_queue.bounds().stop - 1)

    def test_aPeerThatOpensAllItsStreamsAtOnceIsBounded(self) -> None:
        """One frame on the last of 10,000 streams opens them all."""
        client = newClient(False)
        server = newServer(client)
        pump = Pump(client, server)
        pump.connect()
        tracemalloc.start()
        give(server, [sealed(client, stream(9999 * 4, 0))], CLIENT, pump.now)
        used = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        self.assertLess(used, 24 << 20)

    def test_aReaderThatDoesNotReadStopsThePeerAtItsWindow(self) -> None:
        """Not a byte more is held on each stream; nor on all of them together, once memory is short."""
        for isShort, held in ((False, 150_000), (True, 120_000)):
            window = Limits(50_000, 120_000)
            client = newClient(False)
            server = newServer(client, True, window)
            assert isinstance(server, Engine)
            server.streams.isMemoryShort = isShort
            pump = Pump(client, server)
            pump.connect()
            first, second = apps(pump)
            numbers = [first.open() for _ in range(3)]
            second.unread.update(numbers)
            for number in numbers:
                first.write(number, bytes(500_000))
            pump.run(20)
            sizes = [sum(map(len, server.streams.states[number].receiving.pieces)) for number in numbers]
            self.assertEqual(held, sum(sizes))
            self.assertLessEqual(max(sizes), 50_000)
            second.unread.clear()
            self.assertTrue(pump.run(20, lambda: all(len(second.received[number]) == 500_000 for number in numbers)))
