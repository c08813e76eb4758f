"""
An application on one end of a pair: the same few calls, whether an `Engine` or plain aioquic carries them.

What came in is kept by stream: bytes, endings, resets. An application on an `Engine` reads only the streams that it
wants to.
"""

from collections import defaultdict
from typing import Any, Protocol

from aioquic.buffer import encode_uint_var
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import StopSendingReceived, StreamDataReceived, StreamReset
from aioquic.tls import Epoch

from socketwarp.quic.engine import Engine
from socketwarp.quic.streams import StreamState

from ..pump import Pump


class App(Protocol):
    """What an application does, and what has happened to it."""

    received: defaultdict[int, bytearray]
    ended: set[int]
    resets: dict[int, int]
    stops: dict[int, int]
    unread: set[int]

    def open(self) -> int:
        """Open a stream; its number."""

    def write(self, streamId: int, data: bytes) -> None:
        """Write."""

    def finish(self, streamId: int) -> None:
        """FIN."""

    def reset(self, streamId: int, code: int) -> None:
        """RESET_STREAM."""

    def stop(self, streamId: int, code: int) -> None:
        """STOP_SENDING."""

    def read(self) -> None:
        """Take what has come in."""


class _Ours:
    def __init__(self, engine: Engine) -> None:
        self.streams = engine.streams
        self.known: dict[int, StreamState] = {}
        self.received: defaultdict[int, bytearray] = defaultdict(bytearray)
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.stops: dict[int, int] = {}
        self.unread: set[int] = set()

    def open(self) -> int:
        assert self.streams.canOpen
        state = self.streams.open()
        self.known[state.streamId] = state
        return state.streamId

    def write(self, streamId: int, data: bytes) -> None:
        self.known[streamId].sending.write(data)
        self.streams.queue(self.known[streamId])

    def finish(self, streamId: int) -> None:
        self.known[streamId].sending.finish()
        self.streams.queue(self.known[streamId])

    def reset(self, streamId: int, code: int) -> None:
        self.streams.reset(self.known[streamId], code)

    def stop(self, streamId: int, code: int) -> None:
        self.streams.stop(self.known[streamId], code)

    def read(self) -> None:
        touched, self.streams.touched = self.streams.touched, {}
        for state in touched:
            self.known[state.streamId] = state
            if state.streamId in self.unread:
                self.streams.touched[state] = None
            else:
                self._readStream(state)

    def _readStream(self, state: StreamState) -> None:
        receiving = state.receiving
        pieces = receiving.take()
        self.received[state.streamId] += b"".join(pieces)
        self.streams.onConsumed(state, sum(map(len, pieces)))
        if receiving.resetCode is not None:
            self.resets[state.streamId] = receiving.resetCode
        elif receiving.isFinished and not receiving.discarding:
            self.ended.add(state.streamId)
        if state.stopCode is not None:
            self.stops[state.streamId] = state.stopCode


class _Plain:
    def __init__(self, connection: QuicConnection, events: list[Any]) -> None:
        self.connection = connection
        self.events = events
        self.received: defaultdict[int, bytearray] = defaultdict(bytearray)
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.stops: dict[int, int] = {}
        self.unread: set[int] = set()
        self._over: set[int] = set()

    def open(self) -> int:
        streamId = self.connection.get_next_available_stream_id()
        self.connection.send_stream_data(streamId, b"")
        return streamId

    def write(self, streamId: int, data: bytes) -> None:
        if self._isWritable(streamId):
            self.connection.send_stream_data(streamId, data)

    def finish(self, streamId: int) -> None:
        if self._isWritable(streamId):
            self.connection.send_stream_data(streamId, b"", end_stream=True)
            self._over.add(streamId)

    def reset(self, streamId: int, code: int) -> None:
        stream = self.connection._streams.get(streamId)
        if stream is not None and not stream.sender.is_finished and streamId not in self.stops:
            self.connection.reset_stream(streamId, code)
            self._over.add(streamId)

    def stop(self, streamId: int, code: int) -> None:
        stream = self.connection._streams.get(streamId)
        if stream is not None and not stream.receiver.is_finished:
            self.connection.stop_stream(streamId, code)

    def _isWritable(self, streamId: int) -> bool:
        return streamId in self.connection._streams and streamId not in self._over and streamId not in self.stops

    def read(self) -> None:
        events, self.events[:] = list(self.events), []
        for event in events:
            if isinstance(event, StreamDataReceived):
                self.received[event.stream_id] += event.data
                if event.end_stream:
                    self.ended.add(event.stream_id)
            elif isinstance(event, StreamReset):
                self.resets[event.stream_id] = event.error_code
            elif isinstance(event, StopSendingReceived):
                self.stops[event.stream_id] = event.error_code


def appOf(pump: Pump, connection: QuicConnection) -> App:
    """The application on one end of a pump."""
    return _Ours(connection) if isinstance(connection, Engine) else _Plain(connection, pump.events[connection])


def apps(pump: Pump) -> tuple[App, App]:
    """The applications on the client and the server; both read whenever something may have come in."""
    client, server = appOf(pump, pump.client), appOf(pump, pump.server)

    def read() -> None:
        client.read()
        server.read()

    pump.onStep = read
    return client, server


def sealed(sender: QuicConnection, plain: bytes, first: int = 0x40, number: int | None = None) -> bytes:
    """A 1-RTT packet of these frames, as `sender` would send it; its next packet number unless another is given."""
    crypto = sender._cryptos[Epoch.ONE_RTT].send
    if number is None:
        number = sender._packet_number
        sender._packet_number += 1
    first |= crypto.key_phase << 2 | 3
    header = bytes((first,)) + sender._peer_cid.cid + (number & 0xFFFFFFFF).to_bytes(4)
    return crypto.encrypt_packet(header, plain, number)


def varint(*values: int) -> bytes:
    """Variable-length integers (RFC 9000 §16)."""
    return b"".join(encode_uint_var(value) for value in values)


def calls(thing: object, name: str) -> list[Any]:
    """The arguments of each call of that method, from now on."""
    found: list[Any] = []
    method = getattr(thing, name)

    def called(*arguments: Any, **named: Any) -> Any:  # Any: whatever the method takes and returns
        found.append(arguments)
        return method(*arguments, **named)

    setattr(thing, name, called)
    return found
