"""
The control frames of streams and their flow control (RFC 9000 §19.4, §19.5, §19.9 to §19.14), written into a packet.

What is lost is due again, with the numbers of that later moment.
"""

from typing import Literal

from aioquic.quic.packet import QuicFrameType
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder

from .streams import Streams, StreamState

#: Bytes of a variable-length integer at the most (RFC 9000 §16).
VARINT = 8

ConnectionFrame = Literal["maxDataDue", "maxStreamsDue"]


class ControlFrames:
    """Writes what `Streams` says is due."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    @property
    def isDue(self) -> bool:
        """Whether `write` would write anything."""
        streams = self._streams
        return bool(streams.due or streams.maxDataDue or streams.maxStreamsDue or streams.blockedDue)

    def write(self, builder: QuicPacketBuilder, now: float, rtt: float) -> None:
        """
        Write all that is due at `now`; `rtt` is the path's least round-trip time, in seconds.

        :raises QuicPacketBuilderStop: the packet or the congestion window is full; the rest stays due.
        """
        streams = self._streams
        if streams.blockedDue:
            self._start(builder, QuicFrameType.STREAMS_BLOCKED_BIDI, streams.peerMaxStreams)
            streams.blockedDue = False
        if streams.maxDataDue:
            buffer = builder.start_frame(QuicFrameType.MAX_DATA, 1 + VARINT, self._onLimit, ("maxDataDue",))
            buffer.push_uint_var(streams.grantData(now, rtt))
        if streams.maxStreamsDue:
            buffer = builder.start_frame(QuicFrameType.MAX_STREAMS_BIDI, 1 + VARINT, self._onLimit, ("maxStreamsDue",))
            buffer.push_uint_var(streams.grantStreams())
        while streams.due:
            state = next(iter(streams.due))
            self._writeStream(builder, state, now, rtt)
            del streams.due[state]

    @staticmethod
    def _start(builder: QuicPacketBuilder, frameType: int, value: int) -> None:
        builder.start_frame(frameType, 1 + VARINT).push_uint_var(value)

    def _writeStream(self, builder: QuicPacketBuilder, state: StreamState, now: float, rtt: float) -> None:
        if state.grantDue:
            buffer = builder.start_frame(QuicFrameType.MAX_STREAM_DATA, 1 + 2 * VARINT, self._onGrant, (state,))
            buffer.push_uint_var(state.streamId)
            buffer.push_uint_var(self._streams.grantStreamData(state, now, rtt))
        if state.stopDue is not None:
            arguments = (state, state.stopDue)
            buffer = builder.start_frame(QuicFrameType.STOP_SENDING, 1 + 2 * VARINT, self._onStop, arguments)
            buffer.push_uint_var(state.streamId)
            buffer.push_uint_var(state.stopDue)
            state.stopDue = None
        if state.sending.resetDue and state.sending.resetCode is not None:
            buffer = builder.start_frame(QuicFrameType.RESET_STREAM, 1 + 3 * VARINT, self._onReset, (state,))
            buffer.push_uint_var(state.streamId)
            buffer.push_uint_var(state.sending.resetCode)
            buffer.push_uint_var(state.sending.sent)
            state.sending.resetDue = False

    def _onLimit(self, delivery: QuicDeliveryState, due: ConnectionFrame) -> None:
        if delivery != QuicDeliveryState.ACKED:
            setattr(self._streams, due, True)

    def _onGrant(self, delivery: QuicDeliveryState, state: StreamState) -> None:
        if delivery != QuicDeliveryState.ACKED and state.receiving.finalSize is None:
            state.grantDue = True
            self._streams.due[state] = None

    def _onStop(self, delivery: QuicDeliveryState, state: StreamState, errorCode: int) -> None:
        if delivery != QuicDeliveryState.ACKED and not state.receiving.isFinished:
            state.stopDue = errorCode
            self._streams.due[state] = None

    def _onReset(self, delivery: QuicDeliveryState, state: StreamState) -> None:
        self._streams.onResetDelivered(state, delivery == QuicDeliveryState.ACKED)
