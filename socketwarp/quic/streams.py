"""
A connection's streams (RFC 9000 §2 to §4): who may open them, how much each side may send, whose turn it is.

Knows frames' contents, not packets. Credit is given for what was consumed, never for what merely arrived, so a reader
that doesn't read stops its peer at the window. Costs grow with the streams that do something: an idle one is in no
queue.
"""

from collections import deque

from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from aioquic.quic.stream import FinalSizeError

from ..coalescing import Bulk
from ..interfaces import Piece
from .flight import SHORT, Segment, SendBuffer
from .frames import violation
from .reassembly import Reassembly, TooManyGaps
from .windows import Limits, Window

#: Bytes that a stream may be served before others that wait: some datagrams on a thin path, a quarter of a flight on a
#: fast one.
QUANTUM = 16 << 10


class StreamState:
    """
    One bidirectional stream.

    :ivar granted: the MAX_STREAM_DATA that the peer has been told, an offset; ``consumed``: bytes the application took.
    :ivar isPaused: nobody reads, for now or not yet; ``held``: bytes that wait for that, not counted against the
        session.
    :ivar turn: the round of service in which it may go first again, see `Streams.queue`; ``taken``: bytes that it has
        been served since the last time that it had to wait for that.
    :ivar stopCode: of the peer's STOP_SENDING.
    :ivar stopDue: the code of a STOP_SENDING of ours that is to be sent.
    """

    __slots__ = ("consumed", "grantDue", "granted", "held", "isPaused", "isQueued", "owner", "receiving", "sending",
    "stopCode", "stopDue",
                 "streamId", "streams", "taken", "turn", "window")  # fmt: skip

    def __init__(self, streams: "Streams", streamId: int, peerLimit: int) -> None:
        self.streams = streams
        self.streamId = streamId
        self.sending = SendBuffer(peerLimit)
        self.receiving = Reassembly()
        self.window = Window(streams.limits.streamWindow, streams.limits.streamLimit)
        self.granted = self.window.size
        self.consumed = 0
        self.isPaused = True
        self.held = 0
        self.grantDue = False
        self.isQueued = False
        self.turn = self.taken = 0
        self.stopCode: int | None = None
        self.stopDue: int | None = None
        self.owner: object = None

    @property
    def isOver(self) -> bool:
        """Whether both directions have ended and the peer knows."""
        return self.receiving.isFinished and self.sending.isFinished

    def segmentAcknowledged(self, segment: Segment) -> None:
        """See `flight.Streaming`."""
        self.sending.onAcknowledged(segment)
        self.streams.bytesAcknowledged += len(segment.data)
        if self.sending.isFinished:
            self.streams.touched[self] = None
            self.streams.discardIfOver(self)

    def segmentLost(self, segment: Segment) -> None:
        """See `flight.Streaming`."""
        self.sending.onLost(segment)
        self.streams.queue(self)


class Streams:
    """
    All streams of a connection.

    :ivar touched: streams of which something came in since the set was last emptied.
    :ivar served: streams of which something was sent since the set was last emptied.
    :ivar sendable: streams with something to send, in the order of service.
    :ivar due: streams with frames other than STREAM to send.
    :ivar isBulk: whether the last that came in is part of a bulk transfer; set it to false, and see whether more comes.
    :ivar isMemoryShort: see `ISession.saveMemory`.
    """

    def __init__(self, isClient: bool, limits: Limits) -> None:
        self.limits = limits
        self.states: dict[int, StreamState] = {}
        self.touched: dict[StreamState, None] = {}
        self.served: dict[StreamState, None] = {}
        self.sendable: deque[StreamState] = deque()
        self.due: dict[StreamState, None] = {}
        self.bytesAcknowledged = 0
        self.bytesDelivered = 0
        self.isBulk = False
        self._bulk = Bulk()
        self.isMemoryShort = False
        # What the peer grants us.
        self.peerMaxData = 0
        self.peerMaxStreams = 0
        self.peerWindowOfOurs = 0
        self.peerWindowOfTheirs = 0
        self.dataSent = 0
        self._starved: dict[StreamState, None] = {}
        self._round = 0
        # What we grant the peer: as it should be, and as the peer has been told.
        self._window = Window(limits.sessionWindow, limits.sessionLimit)
        self.maxData = self._window.size
        self.maxStreams = limits.streams
        self.maxDataDue = self.maxStreamsDue = self.blockedDue = False
        self._received = 0
        self._consumed = 0
        self._held = 0
        self._ended = 0
        self._isClient = isClient
        self._nextOurs = 0 if isClient else 1
        self._opened = 0

    @property
    def buffered(self) -> int:
        """Stream bytes held: not yet delivered, not yet sent, not yet acknowledged. Costs a look at every stream."""
        outgoing = sum(state.sending.unsentBytes + state.sending.unacknowledged for state in self.states.values())
        return self._received - self._consumed + outgoing

    # Opening and ending

    @property
    def canOpen(self) -> bool:
        """Whether the peer's limit allows another stream."""
        return self._nextOurs // 4 < self.peerMaxStreams

    def open(self) -> StreamState:
        """Make the next stream of ours; the caller has asked `canOpen`."""
        state = self.states[self._nextOurs] = StreamState(self, self._nextOurs, self.peerWindowOfOurs)
        self._nextOurs += 4
        return state

    def discardIfOver(self, state: StreamState) -> None:
        """Forget a stream that is over, and let the peer open another for it (§4.6)."""
        if state.isOver and self.states.pop(state.streamId, None) is not None:
            self.due.pop(state, None)
            if self._isTheirs(state.streamId):
                self._ended += 1
                self._considerStreams()

    def _considerStreams(self) -> None:
        """
        Let the peer have the places of streams that are over, in steps: a frame for each stream that ends would double
        the packets of short connections. The fewer places are left, the smaller the step; with none left it is one.
        """
        freed, left = self._ended + self.limits.streams - self.maxStreams, self.maxStreams - self._opened
        if freed and 2 * freed >= left:
            self.maxStreamsDue = True

    def grantStreams(self) -> int:
        """The number for a MAX_STREAMS frame."""
        self.maxStreams = self._ended + self.limits.streams
        self.maxStreamsDue = False
        return self.maxStreams

    def find(self, frameType: int, streamId: int) -> StreamState | None:
        """
        The stream that a frame is about; made if the peer may open it, `None` if it is over already.

        :raises QuicConnectionError: STREAM_STATE_ERROR, STREAM_LIMIT_ERROR (§4.6, §19).
        """
        state = self.states.get(streamId)
        if state is not None:
            return state
        if streamId & 2:
            isForSenders = frameType in (QuicFrameType.STOP_SENDING, QuicFrameType.MAX_STREAM_DATA)
            isState = isForSenders or not self._isTheirs(streamId)
            code = QuicErrorCode.STREAM_STATE_ERROR if isState else QuicErrorCode.STREAM_LIMIT_ERROR
            raise violation(code, frameType, "no unidirectional streams")
        if not self._isTheirs(streamId):
            if streamId < self._nextOurs:
                return None
            raise violation(QuicErrorCode.STREAM_STATE_ERROR, frameType, "a stream that was not opened")
        count = streamId // 4 + 1
        if count <= self._opened:
            return None
        if count > self.maxStreams:
            raise violation(QuicErrorCode.STREAM_LIMIT_ERROR, frameType, "too many streams")
        for number in range(self._opened, count):  # opening one opens all below it (§2.1)
            eachId = streamId + 4 * (number - count + 1)
            state = self.states[eachId] = StreamState(self, eachId, self.peerWindowOfTheirs)
            self.touched[state] = None
        self._opened = count
        self._considerStreams()
        return state

    def _isTheirs(self, streamId: int) -> bool:
        return bool(streamId & 1) == self._isClient

    # Receiving

    def onStream(self, frameType: int, streamId: int, offset: int, data: Piece, fin: bool) -> None:
        """A STREAM frame (§19.8), see `onRun`."""
        self.onRun(frameType, streamId, offset, [data], len(data), fin)

    def onRun(self, frameType: int, streamId: int, offset: int, pieces: list[Piece], size: int, fin: bool) -> None:
        """
        STREAM frames that follow one another: `pieces`, of `size` bytes together, begin at `offset`; the last one has
        the FIN bit or not.

        :raises QuicConnectionError: flow control, final size or state violated.
        """
        state = self.states.get(streamId) or self.find(frameType, streamId)
        self.isBulk = self._bulk.add(0 if fin else size)
        if state is None:
            return
        self._count(state, frameType, offset + size)
        receiving = state.receiving
        before = receiving.offset
        try:
            receiving.receiveRun(offset, pieces, size, fin)
        except FinalSizeError as error:
            raise violation(QuicErrorCode.FINAL_SIZE_ERROR, frameType, str(error)) from error
        except TooManyGaps as error:
            raise violation(QuicErrorCode.INTERNAL_ERROR, frameType, str(error)) from error
        if receiving.discarding:
            self.onConsumed(state, receiving.highest - state.consumed)
        elif receiving.offset != before or receiving.isFinished:
            self.touched[state] = None
        if state.isPaused:
            self._hold(state)
        if fin or receiving.finalSize is not None:
            self.discardIfOver(state)

    def _count(self, state: StreamState, frameType: int, stop: int) -> None:
        """Flow control for bytes up to `stop` (§4.1)."""
        if stop > state.granted:
            raise violation(QuicErrorCode.FLOW_CONTROL_ERROR, frameType, "over the stream's limit")
        new = stop - state.receiving.highest
        if new > 0:
            if self._received + new > self.maxData:
                raise violation(QuicErrorCode.FLOW_CONTROL_ERROR, frameType, "over the connection's limit")
            self._received += new

    def onReset(self, streamId: int, errorCode: int, finalSize: int) -> None:
        """
        A RESET_STREAM frame (§19.4).

        :raises QuicConnectionError: as `onStream`.
        """
        state = self.find(QuicFrameType.RESET_STREAM, streamId)
        if state is None:
            return
        self._count(state, QuicFrameType.RESET_STREAM, finalSize)
        try:
            state.receiving.reset(finalSize, errorCode)
        except FinalSizeError as error:
            raise violation(QuicErrorCode.FINAL_SIZE_ERROR, QuicFrameType.RESET_STREAM, str(error)) from error
        if state.receiving.resetCode is not None:
            state.receiving.pieces = []
            self.onConsumed(state, finalSize - state.consumed)
        self.touched[state] = None
        self.discardIfOver(state)

    def onStopSending(self, streamId: int, errorCode: int) -> None:
        """A STOP_SENDING frame (§19.5): our part is reset with the peer's code (§3.5)."""
        state = self.find(QuicFrameType.STOP_SENDING, streamId)
        if state is not None and state.stopCode is None:
            state.stopCode = errorCode
            self.reset(state, errorCode)
            self.touched[state] = None

    def onConsumed(self, state: StreamState, size: int) -> None:
        """The application took `size` bytes: credit for the stream and the connection, in steps of half a window."""
        state.consumed += size
        if (
            state.consumed + state.window.size - state.granted >= state.window.size // 2
            and state.receiving.finalSize is None
            and not state.receiving.discarding
        ):
            state.grantDue = True
            self.due[state] = None
        self._consumed += size
        self.bytesDelivered += size
        self._hold(state)

    def pause(self, state: StreamState, isPaused: bool) -> None:
        """
        The stream's reader takes nothing for now, or goes on. What waits for a paused reader isn't counted against the
        session's window, or a few who don't read would stop all others; each has its own window, and memory a budget.
        """
        state.isPaused = isPaused
        self._hold(state)

    def _hold(self, state: StreamState) -> None:
        held = state.receiving.highest - state.consumed if state.isPaused else 0
        if held != state.held:
            self._held += held - state.held
            state.held = held
        if self._credit - self.maxData >= self._window.size // 2:
            self.maxDataDue = True

    @property
    def _credit(self) -> int:
        """What MAX_DATA should be."""
        return self._consumed + (0 if self.isMemoryShort else self._held) + self._window.size

    def grantStreamData(self, state: StreamState, now: float, rtt: float) -> int:
        """The number for a MAX_STREAM_DATA frame."""
        state.window.onGranted(state.consumed, now, rtt, not self.isMemoryShort)
        state.granted = max(state.granted, state.consumed + state.window.size)
        state.grantDue = False
        return state.granted

    def grantData(self, now: float, rtt: float) -> int:
        """The number for a MAX_DATA frame."""
        self._window.onGranted(self._consumed, now, rtt, not self.isMemoryShort)
        self.maxData = max(self.maxData, self._credit)
        self.maxDataDue = False
        return self.maxData

    # Sending

    def queue(self, state: StreamState) -> None:
        """
        Serve a stream that has something to send. One with little to say goes before those in mid-transfer; when that
        has come to `QUANTUM` bytes, all that wait have their turn first, or many such streams would stop the others.
        """
        if state.isQueued or not state.sending.hasWork(self.peerMaxData - self.dataSent):
            if state.sending.unsentBytes and self.dataSent >= self.peerMaxData:
                self._starved[state] = None
            return
        state.isQueued = True
        if state.sending.unsentBytes <= SHORT and state.turn <= self._round:
            self.sendable.appendleft(state)
        else:
            self.sendable.append(state)

    def cut(self, state: StreamState, size: int, count: int) -> Segment | None:
        """Take the next segment of the stream at the head of the queue, and put it at the end if there is more."""
        before = state.sending.sent
        segment = state.sending.cut(size, count, self.peerMaxData - self.dataSent)
        self.served[state] = None
        sent = state.sending.sent - before
        self.dataSent += sent
        self._round = max(self._round, state.turn)
        state.taken += sent
        if state.taken >= QUANTUM:
            state.turn, state.taken = self._round + 1, 0
        state.isQueued = False
        if state.sending.hasWork(self.peerMaxData - self.dataSent):
            state.isQueued = True
            self.sendable.append(state)
        elif state.sending.unsentBytes and self.dataSent >= self.peerMaxData:
            self._starved[state] = None
        return segment

    def reset(self, state: StreamState, errorCode: int) -> None:
        """End our part with RESET_STREAM."""
        if state.sending.reset(errorCode):
            self.due[state] = None

    def stop(self, state: StreamState, errorCode: int) -> None:
        """Ask the peer to end its part (STOP_SENDING), and drop what it sends until then."""
        if not state.receiving.isFinished and not state.receiving.discarding:
            state.stopDue = errorCode
            self.due[state] = None
        unconsumed = state.receiving.highest - state.consumed
        state.receiving.stop()
        self.onConsumed(state, unconsumed)

    def onResetDelivered(self, state: StreamState, isAcknowledged: bool) -> None:
        """A RESET_STREAM of ours has arrived, or was lost."""
        if isAcknowledged:
            state.sending.resetAcknowledged = True
            self.touched[state] = None
            self.discardIfOver(state)
        else:
            state.sending.resetDue = True
            self.due[state] = None

    def onMaxData(self, maximum: int) -> None:
        """A MAX_DATA frame (§19.9)."""
        if maximum > self.peerMaxData:
            self.peerMaxData = maximum
            starved, self._starved = self._starved, {}
            for state in starved:
                self.queue(state)

    def onMaxStreamData(self, streamId: int, maximum: int) -> None:
        """A MAX_STREAM_DATA frame (§19.10)."""
        state = self.find(QuicFrameType.MAX_STREAM_DATA, streamId)
        if state is not None and maximum > state.sending.limit:
            state.sending.limit = maximum
            self.queue(state)
