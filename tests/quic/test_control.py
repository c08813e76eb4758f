"""The control frames of streams: what is due is written, what doesn't fit stays due, what is lost is due again."""

from typing import Any, cast

from aioquic._buffer import Buffer
from aioquic.quic.packet import QuicFrameType
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder, QuicPacketBuilderStop
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.quic.engine import Engine
from socketwarp.quic.streams import StreamState
from socketwarp.quic.windows import Limits

from ..pump import pair
from .apps import apps

ACKED, LOST = QuicDeliveryState.ACKED, QuicDeliveryState.LOST


class Builder:
    """Stands in for aioquic's builder: keeps the frames, with their handlers, as far as there is room."""

    def __init__(self, room: int = 1000) -> None:
        self.room = room
        self.frames: list[tuple[QuicFrameType, Buffer, Any]] = []

    def start_frame(self, frameType: int, capacity: int, handler: Any = None, arguments: Any = ()) -> Buffer:
        if not self.room:
            raise QuicPacketBuilderStop
        self.room -= 1
        buffer = Buffer(capacity=capacity - 1)
        self.frames.append((QuicFrameType(frameType), buffer, lambda state: handler(state, *arguments)))
        return buffer

    @property
    def written(self) -> list[tuple[Any, ...]]:
        """Each frame's type and numbers."""
        found = []
        for kind, buffer, _ in self.frames:
            reader = Buffer(data=buffer.data)
            values: list[int] = []
            while not reader.eof():
                values.append(reader.pull_uint_var())
            found.append((kind.name, *values))
        return found

    def tell(self, state: QuicDeliveryState) -> None:
        frames, self.frames = self.frames, []
        for _, _, handler in frames:
            handler(state)


class ControlTests(SynchronousTestCase):
    def setUp(self) -> None:
        pump = pair("both", Limits(streamWindow=1000, sessionWindow=1000, streams=4))
        engine = pump.server
        assert isinstance(engine, Engine)
        self.streams, self.control = engine.streams, engine._control
        client, _ = apps(pump)
        client.write(client.open(), b"x")
        pump.run(1)
        self.state: StreamState = self.streams.states[0]
        self.assertFalse(self.control.isDue)

    def write(self, room: int = 1000) -> Builder:
        builder = Builder(room)
        self.control.write(cast(QuicPacketBuilder, builder), 1000.0, 0.01)
        return builder

    def everythingDue(self) -> None:
        self.streams.blockedDue = self.streams.maxDataDue = self.streams.maxStreamsDue = True
        self.state.grantDue = True
        self.streams.due[self.state] = None
        self.streams.stop(self.state, 6)
        self.streams.reset(self.state, 5)

    def test_whatIsDueIsWrittenOnce(self) -> None:
        self.everythingDue()
        self.assertTrue(self.control.isDue)
        written = self.write().written
        kinds = [
            "STREAMS_BLOCKED_BIDI",
            "MAX_DATA",
            "MAX_STREAMS_BIDI",
            "MAX_STREAM_DATA",
            "STOP_SENDING",
            "RESET_STREAM",
        ]
        self.assertEqual(kinds, [each[0] for each in written])
        self.assertEqual([("STOP_SENDING", 0, 6), ("RESET_STREAM", 0, 5, 0)], written[4:])
        self.assertFalse(self.control.isDue)
        self.assertEqual([], self.write().written)

    def test_whatDoesNotFitStaysDue(self) -> None:
        self.everythingDue()
        whole = [each[0] for each in self.write().written]
        for room in range(len(whole)):
            self.setUp()
            self.everythingDue()
            builder = Builder(room)
            self.assertRaises(QuicPacketBuilderStop, self.control.write, builder, 1000.0, 0.01)
            self.assertTrue(self.control.isDue)
            self.assertEqual(whole, [each[0] for each in builder.written + self.write().written])
            self.assertFalse(self.control.isDue)

    def test_whatIsLostIsDueAgainWithTheNumbersOfThatMoment(self) -> None:
        """But for STREAMS_BLOCKED, which is a courtesy."""
        self.everythingDue()
        self.streams.blockedDue = False
        first = self.write()
        kinds = [each[0] for each in first.written]
        first.tell(LOST)
        second = self.write()
        self.assertEqual(
            sorted(set(kinds) - {"MAX_STREAM_DATA"}), sorted({each[0] for each in second.written} - {"MAX_STREAM_DATA"})
        )
        second.tell(ACKED)
        self.assertFalse(self.control.isDue)
        self.assertTrue(self.state.sending.isFinished)

    def test_aLostGrantIsNotRepeatedWhenTheFinalSizeIsKnown(self) -> None:
        self.state.grantDue = True
        self.streams.due[self.state] = None
        builder = self.write()
        self.state.receiving.receive(1, b"", True)
        builder.tell(LOST)
        self.assertFalse(self.control.isDue)

    def test_aLostGrantIsRepeatedOtherwise(self) -> None:
        self.state.grantDue = True
        self.streams.due[self.state] = None
        self.write().tell(LOST)
        self.assertEqual(["MAX_STREAM_DATA"], [each[0] for each in self.write().written])

    def test_aLostStopIsNotRepeatedWhenTheStreamHasEnded(self) -> None:
        self.streams.stop(self.state, 6)
        builder = self.write()
        self.state.receiving.reset(1, 0)
        builder.tell(LOST)
        self.assertFalse(self.control.isDue)
