"""Parsing what arrives in pieces: as many bytes as are asked for, and the rest untouched."""

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from ..interfaces import Piece

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


class Parser(Protocol[T_co]):
    """A parser of what comes first on a stream."""

    def feed(self, pieces: Sequence[Piece]) -> tuple[T_co, list[Piece]] | None:
        """
        Take the next pieces.

        :return: `None` while more is needed; then, once, the result and the non-empty pieces that follow it.
        :raises errors.SocketwarpError: for bytes that can't be right; the parser is of no use afterwards.
        """


class Cutter:
    """Collects a known number of bytes. Holds at most that many; what is behind them isn't copied."""

    def __init__(self) -> None:
        self._held = bytearray()

    def cut(self, size: int, pieces: Sequence[Piece]) -> tuple[bytes, list[Piece]] | None:
        """The first `size` bytes of all pieces so far, and the pieces behind them; `None` while there are fewer."""
        if pieces and not self._held and len(pieces[0]) >= size:  # as it is nearly always
            return bytes(pieces[0][:size]), [rest for rest in (pieces[0][size:], *pieces[1:]) if rest]
        for index, piece in enumerate(pieces):
            missing = size - len(self._held)
            if len(piece) >= missing:
                self._held += piece[:missing]
                return self._take(), [rest for rest in (piece[missing:], *pieces[index + 1 :]) if rest]
            self._held += piece
        return (self._take(), []) if len(self._held) == size else None

    def _take(self) -> bytes:
        taken, self._held = bytes(self._held), bytearray()
        return taken


class Immediate(Generic[T]):
    """A parser of nothing: it has its result before the first byte."""

    def __init__(self, result: T) -> None:
        self._result = result

    def feed(self, pieces: Sequence[Piece]) -> tuple[T, list[Piece]]:
        """The result, and the pieces as they came."""
        return self._result, list(pieces)
