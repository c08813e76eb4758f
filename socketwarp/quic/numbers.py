"""Which packet numbers have been received (RFC 9000 §12.3): duplicates are dropped however late they come."""

from bisect import bisect_right


class ReceivedNumbers:
    """
    Packet numbers received in one space, as ascending disjoint ranges. What lies below the lowest range kept counts as
    received.

    aioquic's own window holds 128 numbers and drops what is reordered by more; a single flight has 64.
    """

    #: Ranges kept, here and in the acknowledgements we send (RFC 9000 §13.2.3).
    MAX_RANGES = 64

    __slots__ = ("_starts", "_stops")

    def __init__(self) -> None:
        self._starts: list[int] = [0]
        self._stops: list[int] = [0]

    def __contains__(self, number: int) -> bool:
        if number >= self._stops[-1]:
            return False
        index = bisect_right(self._starts, number) - 1
        return index < 0 or number < self._stops[index]

    def add(self, number: int, stop: int | None = None) -> None:
        """Note `number`, or the run up to before `stop`; none of them is contained yet."""
        starts, stops = self._starts, self._stops
        stop = number + 1 if stop is None else stop
        if number == stops[-1]:
            stops[-1] = stop
            return
        index = bisect_right(starts, number)
        joinsBelow = index > 0 and stops[index - 1] == number
        joinsAbove = index < len(starts) and starts[index] == stop
        if joinsBelow and joinsAbove:
            stops[index - 1] = stops.pop(index)
            del starts[index]
        elif joinsBelow:
            stops[index - 1] = stop
        elif joinsAbove:
            starts[index] = number
        else:
            starts.insert(index, number)
            stops.insert(index, stop)
            if len(starts) > self.MAX_RANGES:
                del starts[0], stops[0]
