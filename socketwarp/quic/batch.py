"""Datagrams of one size from one address, as UDP_GRO joins them, or as they follow one another (`datagrams`)."""

import struct


class Batch:
    """
    Datagrams one after the other.

    :ivar data: all of them; valid as long as the port's call lasts.
    :ivar size: bytes of each, but for the last, which may be shorter.
    """

    __slots__ = ("_destination", "data", "size")

    def __init__(self, data: memoryview, size: int) -> None:
        self.data = data
        self.size = size
        self._destination: bytes | None = None

    @property
    def isSingle(self) -> bool:
        """Whether it is one datagram."""
        return len(self.data) <= self.size

    def split(self, start: int = 0) -> list[memoryview]:
        """The datagrams, from this position on."""
        data, size = self.data, self.size
        return [data[each : each + size] for each in range(start, len(data), size)]

    def destination(self, idSize: int) -> bytes | None:
        """
        The connection id of `idSize` bytes, always as many, that all of them are for. `None` when they are for several,
        or have headers other than short ones (RFC 9000 §17.3).
        """
        if self._destination is None:
            self._destination = self._findDestination(idSize)
        return self._destination or None

    def _findDestination(self, idSize: int) -> bytes:
        data, size = self.data, self.size
        rest = size - 1 - idSize
        if rest < 0:
            return b""
        firsts = data[::size].tobytes()
        whole = len(data) // size * size
        ids = {each for (each,) in struct.iter_unpack(f"x{idSize}s{rest}x", data[:whole])}
        if whole < len(data):
            ids.add(bytes(data[whole + 1 : whole + 1 + idSize]))
        return ids.pop() if len(ids) == 1 and min(firsts) >= 0x40 and max(firsts) < 0x80 else b""
