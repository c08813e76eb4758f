"""
The receiving part of a stream (RFC 9000 §2.2, §3.2): frames in any order become pieces in order.

Knows bytes and offsets only. Memory is bounded by what flow control lets the peer send (checked before a frame gets
here), plus a bounded number of gaps: data beyond a gap is kept as it came, never as a buffer the size of the gap.
What is cut from a frame is copied, or a byte of it would keep the whole packet.
"""

from bisect import bisect_left, bisect_right

from aioquic.quic.stream import FinalSizeError

from ..interfaces import Piece

#: Separate runs of bytes held beyond the first gap. An honest path that loses every other packet of an 8 MiB window at
#: 1,200 bytes makes 3,500; one-byte frames at every other offset would make 500,000 for each MiB.
MAX_GAPS = 4096

#: Pieces below this many bytes are joined to the one before, so that one-byte frames don't cost an object each.
SMALL_PIECE = 512

#: A joined piece grows to this many bytes.
JOINED_PIECE = 16384


class TooManyGaps(Exception):
    """The peer's data has more than `MAX_GAPS` gaps; its session is closed (RFC 9000 §21.7, stream fragmentation)."""


def append(pieces: list[Piece], piece: Piece) -> None:
    """Add `piece` at the end, joining small ones so that memory stays close to the number of bytes held."""
    last = pieces[-1] if pieces else None
    if last is not None and len(piece) < SMALL_PIECE and len(last) < JOINED_PIECE:
        if isinstance(last, bytearray):
            last += piece
            return
        if len(last) < SMALL_PIECE:
            pieces[-1] = bytearray(last) + piece
            return
    pieces.append(piece)


def extend(pieces: list[Piece], more: list[Piece]) -> None:
    """Add `more` at the end, joining where they meet."""
    if more:
        append(pieces, more[0])
        pieces += more[1:]


class Run:
    """Contiguous bytes beyond a gap: ``start`` and ``stop`` are stream offsets, ``pieces`` what lies between."""

    __slots__ = ("pieces", "start", "stop")

    def __init__(self, start: int, piece: Piece) -> None:
        self.start = start
        self.stop = start + len(piece)
        self.pieces: list[Piece] = [piece]


class Reassembly:
    """
    One stream's incoming bytes.

    :ivar offset: everything below it is in order, delivered or in ``pieces``.
    :ivar highest: the highest offset seen, what flow control counts (RFC 9000 §4.1).
    :ivar finalSize: known once FIN or RESET_STREAM has come (RFC 9000 §4.5).
    :ivar pieces: in order, not yet taken.
    :ivar discarding: after `stop`: bytes are counted, not kept.
    """

    __slots__ = ("_runs", "discarding", "finalSize", "highest", "offset", "pieces", "resetCode")

    def __init__(self) -> None:
        self.offset = 0
        self.highest = 0
        self.finalSize: int | None = None
        self.resetCode: int | None = None
        self.pieces: list[Piece] = []
        self.discarding = False
        self._runs: list[Run] = []

    @property
    def isInOrder(self) -> bool:
        """Whether the next frame at ``offset`` can simply be appended."""
        return not self._runs and self.finalSize is None and not self.discarding

    @property
    def isFinished(self) -> bool:
        """Whether nothing more can come: all bytes up to the final size are there, or the stream was reset."""
        return self.resetCode is not None or (self.finalSize is not None and self.offset == self.finalSize)

    def receiveRun(self, offset: int, pieces: list[Piece], size: int, fin: bool) -> None:
        """
        Take STREAM frames that follow one another, see `receive`. Those that are next in order cost the same however
        many they are.
        """
        if self.isInOrder and offset == self.offset and size >= SMALL_PIECE * len(pieces):
            self.pieces += [piece for piece in pieces if piece]
            self.offset += size
            self._checkFinalSize(self.offset, fin)
            self.highest = self.offset
            return
        for piece in pieces[:-1]:
            self.receive(offset, piece, False)
            offset += len(piece)
        self.receive(offset, pieces[-1], fin)

    def receive(self, offset: int, data: Piece, fin: bool) -> None:
        """
        Take a STREAM frame's bytes at `offset`.

        :raises FinalSizeError: bytes beyond the final size, or another final size (RFC 9000 §4.5).
        :raises TooManyGaps: see there.
        """
        stop = offset + len(data)
        self._checkFinalSize(stop, fin)
        self.highest = max(self.highest, stop)
        if self.resetCode is not None:
            return
        if self.discarding:
            self.offset = self.highest
        elif offset <= self.offset:
            if stop > self.offset:
                self._advance(bytes(data[self.offset - offset :]) if offset < self.offset else data)
        elif data:
            self._insert(offset, data)

    def reset(self, finalSize: int, errorCode: int) -> None:
        """
        Take a RESET_STREAM frame. After the last byte and FIN have come it changes nothing (RFC 9000 §3.2).

        :raises FinalSizeError: `finalSize` contradicts what came before.
        """
        wasFinished = self.isFinished
        self._checkFinalSize(finalSize, True)
        self.highest = max(self.highest, finalSize)
        if not wasFinished:
            self.resetCode = errorCode
            self._runs.clear()

    def stop(self) -> None:
        """Keep nothing from now on (we sent STOP_SENDING)."""
        self.discarding = True
        self._runs.clear()
        self.pieces = []
        self.offset = self.highest

    def take(self) -> list[Piece]:
        """Hand over the pieces in order."""
        pieces, self.pieces = self.pieces, []
        return pieces

    def _checkFinalSize(self, stop: int, fin: bool) -> None:
        if self.finalSize is not None and (stop > self.finalSize or (fin and stop != self.finalSize)):
            raise FinalSizeError("data beyond the final size, or another final size")
        if fin:
            if stop < self.highest:
                raise FinalSizeError("final size below data that has come already")
            self.finalSize = stop

    def _advance(self, data: Piece) -> None:
        append(self.pieces, data)
        self.offset += len(data)
        while self._runs and self._runs[0].start <= self.offset:
            run = self._runs.pop(0)
            if run.stop > self.offset:
                extend(self.pieces, trim(run.pieces, self.offset - run.start))
                self.offset = run.stop

    def _insert(self, start: int, data: Piece) -> None:
        """Keep `data` beyond a gap: fill what is missing between the runs that it touches, then merge them."""
        runs = self._runs
        first = bisect_left(runs, start, key=lambda run: run.stop)
        last = bisect_right(runs, start + len(data), key=lambda run: run.start)
        touched = runs[first:last]
        if not touched:
            if len(runs) >= MAX_GAPS:
                raise TooManyGaps(f"more than {MAX_GAPS} gaps in a stream")
            runs.insert(first, Run(start, data))
            return
        below = touched[0].start - start
        merged = Run(start, bytes(data[:below])) if below > 0 else touched.pop(0)
        for run in touched:
            if merged.stop < run.start:
                append(merged.pieces, bytes(data[merged.stop - start : run.start - start]))
            extend(merged.pieces, run.pieces)
            merged.stop = run.stop
        if merged.stop < start + len(data):
            rest = data[merged.stop - start :]
            append(merged.pieces, rest if len(rest) == len(data) else bytes(rest))
            merged.stop = start + len(data)
        runs[first:last] = [merged]


def trim(pieces: list[Piece], count: int) -> list[Piece]:
    """`pieces` without their first `count` bytes."""
    for index, piece in enumerate(pieces):
        if count < len(piece):
            return [piece[count:], *pieces[index + 1 :]] if count else pieces[index:]
        count -= len(piece)
    return []
