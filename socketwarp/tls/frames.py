"""
What lanes carry: frames of a kind, a length and a payload. Formatters and a parser; no I/O.

::

    1 byte      kind
    3 bytes     length of what follows, big-endian
    length      payload

docs/protocol.rst has the table. Numbers in payloads have 4 bytes, big-endian.
"""

from collections.abc import Sequence
from enum import IntEnum
from struct import Struct

import attrs

from ..interfaces import Piece

#: Bytes of a frame's header.
HEADER_SIZE = 4
#: Bytes that a DATA frame may have: what three bytes of length can say.
DATA_LIMIT = 2**24 - 1
#: Bytes of any other frame's payload: CLOSE has a code and a reason of 500 bytes.
PAYLOAD_LIMIT = 512
#: Bytes of DATA below which a piece is copied, rather than kept as a view of all that came with it.
SMALL_PIECE = 1024
#: Bytes of the secret that binds lanes to a session.
TICKET_SIZE = 16

_HEADER = Struct("!I")
_NUMBERS = {count: Struct(f"!{count}I") for count in (1, 2, 3)}


class Kind(IntEnum):
    """Kinds of frames; a number, once given, keeps its meaning."""

    #: First of a control lane, from the connector: a session should begin. Nothing.
    SESSION = 0x01
    #: First of a data lane, from the connector: a lane of that session. The ticket, the lane's number.
    ATTACH = 0x02
    #: From the listener: TLS and certificate are in order. Nothing.
    ACCEPTED = 0x03
    #: A stream begins on this lane. Its number.
    OPEN = 0x10
    #: Bytes of the lane's stream.
    DATA = 0x11
    #: No more of them. Nothing.
    FIN = 0x12
    #: No more of them, and what was said is not all. An error code.
    RESET = 0x13
    #: From the connector: both directions have ended, and all was read. The lane may carry another stream. Nothing.
    FREE = 0x14
    #: On the control lane: send no more bytes of a stream. Lane, stream, error code.
    STOP = 0x20
    #: On the control lane: a stream was given up in both directions. Lane, stream, error code.
    ABORT = 0x21
    #: On the control lane, from the listener: streams wait for lanes. How many lanes would do, counted from the
    #: session's beginning and with those that are gone, so that one that comes late asks for nothing twice.
    WANT = 0x22
    #: On the control lane: are you there? A number, which `PONG` repeats.
    PING = 0x23
    PONG = 0x24
    #: The session, or the lane that isn't one yet, ends. An error code, and the reason in UTF-8.
    CLOSE = 0x25


#: Bytes of each kind's payload; DATA has any number, CLOSE a code and a reason.
_SIZES: dict[int, int] = {
    Kind.SESSION: 0,
    Kind.ATTACH: TICKET_SIZE + 4,
    Kind.ACCEPTED: 0,
    Kind.OPEN: 4,
    Kind.FIN: 0,
    Kind.RESET: 4,
    Kind.FREE: 0,
    Kind.STOP: 12,
    Kind.ABORT: 12,
    Kind.WANT: 4,
    Kind.PING: 4,
    Kind.PONG: 4,
}


class MalformedFrame(Exception):
    """A lane brought what is no frame, or one that doesn't belong there: the session can't go on."""


@attrs.frozen
class Frame:
    """
    A frame that isn't DATA.

    :ivar numbers: what its payload says, see `Kind`.
    :ivar data: the ticket of ATTACH, the reason of CLOSE.
    """

    kind: Kind
    numbers: tuple[int, ...] = ()
    data: bytes = b""


#: What a parser finds: a frame, or the next bytes of DATA, however many frames they came in.
Event = Frame | list[Piece]


def formatFrame(kind: Kind, *numbers: int) -> bytes:
    """A frame with nothing but numbers in it."""
    payload = _NUMBERS[len(numbers)].pack(*numbers) if numbers else b""
    return _HEADER.pack(kind << 24 | len(payload)) + payload


def formatAttach(ticket: bytes, lane: int) -> bytes:
    """The first frame of a data lane."""
    return _HEADER.pack(Kind.ATTACH << 24 | TICKET_SIZE + 4) + ticket + _NUMBERS[1].pack(lane)


def formatClose(errorCode: int, reason: str) -> bytes:
    """The last frame; the reason is cut where there is no room for more."""
    text = reason.encode()[: PAYLOAD_LIMIT - 12].decode(errors="ignore").encode()
    return _HEADER.pack(Kind.CLOSE << 24 | 4 + len(text)) + _NUMBERS[1].pack(errorCode) + text


def dataHeader(size: int) -> bytes:
    """The header of a DATA frame of `size` bytes, which follow; at most `DATA_LIMIT`."""
    return _HEADER.pack(Kind.DATA << 24 | size)


class FrameParser:
    """Takes frames off a lane. Of DATA nothing is kept or copied, of all others at most a header and its payload."""

    def __init__(self) -> None:
        self._rest = b""  # the beginning of a frame that isn't DATA, or of any frame's header
        self._left = 0  # bytes of a DATA frame that haven't come yet

    def feed(self, chunks: Sequence[bytes]) -> list[Event]:
        """
        What is complete with the next chunks, in order. Bytes of DATA are complete as they come.

        :raises MalformedFrame: for an unknown kind or a length that isn't the kind's, before anything of it is kept.
            The parser is of no use afterwards.
        """
        events: list[Event] = []
        for chunk in chunks:
            if self._rest:
                chunk, self._rest = self._rest + chunk, b""
            at = 0
            while at < len(chunk):
                if self._left:
                    at = self._takeData(chunk, at, events)
                elif (after := self._takeFrame(chunk, at, events)) > at:
                    at = after
                else:
                    self._rest = chunk[at:]
                    break
        return events

    def _takeData(self, chunk: bytes, at: int, events: list[Event]) -> int:
        size = min(self._left, len(chunk) - at)
        self._left -= size
        if not events or not isinstance(events[-1], list):
            events.append([])
        pieces = events[-1]
        assert isinstance(pieces, list)
        if size < SMALL_PIECE:
            _addSmall(pieces, memoryview(chunk)[at : at + size])
        else:
            pieces.append(chunk if size == len(chunk) else memoryview(chunk)[at : at + size])
        return at + size

    def _takeFrame(self, chunk: bytes, at: int, events: list[Event]) -> int:
        """Where the next frame begins, behind the header for DATA; `at` when this one isn't complete."""
        begin = at + HEADER_SIZE
        if begin > len(chunk):
            return at
        header: int = _HEADER.unpack_from(chunk, at)[0]
        kind, size = header >> 24, header & DATA_LIMIT
        if kind == Kind.DATA:
            self._left = size
            return begin
        if _SIZES.get(kind) != size and not (kind == Kind.CLOSE and 4 <= size <= PAYLOAD_LIMIT):
            raise MalformedFrame(f"a frame of kind {kind:#04x} and {size} bytes")
        end = begin + size
        if end > len(chunk):
            return at
        events.append(_parse(Kind(kind), chunk[begin:end]))
        return end


def _addSmall(pieces: list[Piece], piece: memoryview) -> None:
    """Join small pieces: as objects they would be much larger than what is in them."""
    last = pieces[-1] if pieces else None
    if isinstance(last, bytearray):
        last += piece
    else:
        pieces.append(bytearray(piece))


def _parse(kind: Kind, payload: bytes) -> Frame:
    if kind is Kind.ATTACH:
        return Frame(kind, _NUMBERS[1].unpack(payload[TICKET_SIZE:]), payload[:TICKET_SIZE])
    if kind is Kind.CLOSE:
        return Frame(kind, _NUMBERS[1].unpack(payload[:4]), payload[4:])
    return Frame(kind, _NUMBERS[len(payload) // 4].unpack(payload) if payload else ())
