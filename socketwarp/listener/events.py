"""
One event stream: log lines, audit, server-sent events and metrics are all readers of it.

An event has a stable name and stable fields; `EVENTS` is the list of them all. It is logged through `twisted.logger`
with its fields, kept in a bounded memory for readers that come later, and handed to every subscriber. What strangers
can cause is told so often and no more (`LIMITS`): what goes beyond is counted, by a number in a later event and for
those who only count.
"""

from collections import deque
from collections.abc import Callable, Mapping
from itertools import takewhile
from secrets import token_hex
from typing import NamedTuple

import attrs
from twisted.logger import Logger, LogLevel

from ..interfaces import Address
from ..throttle import Lines

#: What a field may be: anything JSON has a word for; an object is what something was before a change, or after it.
Field = str | int | float | bool | None | Mapping[str, object]

#: One for all: as an attribute of the class, it would be made anew for each event.
log = Logger(f"{__name__}.Events")

#: How many events are remembered for readers that come later. At some 500 bytes each: half a megabyte.
REMEMBERED = 1000

#: Every event: its level in the log and the sentence made of its fields.
EVENTS: Mapping[str, tuple[LogLevel, str]] = {
    "connector.connected": (
        LogLevel.info,
        "connector {uid} connected from {peer} ({session}, {protocol} over {carrier})",
    ),
    "connector.refused": (LogLevel.warn, "connector at {peer} refused: {reason} ({session})"),
    "connector.superseded": (
        LogLevel.warn,
        "connector {uid}: session {session} gives way to {newcomer} from {peer}",
    ),
    "connector.renewed": (LogLevel.info, "connector {uid}: session {newcomer} from {peer} follows {session}"),
    "connector.leaving": (
        LogLevel.info,
        "connector {uid}: session {session} takes no more visitors ({reason}); {visitors} are there",
    ),
    "connector.unverified": (LogLevel.warn, "connector {uid} keeps running unverified for {seconds} s: {reason}"),
    "connector.verified": (LogLevel.info, "connector {uid} is verified again, after {seconds} s"),
    "connector.lost": (LogLevel.info, "connector {uid} lost after {seconds} s: {reason} ({session})"),
    "port.opened": (LogLevel.info, "port {port} opened for {uid} to {target}"),
    "port.waiting": (LogLevel.error, "port {port} for {uid} is not open yet: {reason}"),
    "port.changed": (LogLevel.info, "port {port} leads for {uid} to {target} from now on"),
    "port.closed": (LogLevel.info, "port {port} closed for {uid}, {reason}; {ended} connections ended"),
    "port.paused": (LogLevel.warn, "accepting visitors is paused: {reason}"),
    "port.resumed": (LogLevel.info, "accepting visitors goes on"),
    "visitor.connected": (LogLevel.debug, "{connection}: {peer} at port {port} to {uid} ({session})"),
    "visitor.refused": (
        LogLevel.warn,
        "{connection}: {peer} at port {port} to {uid} refused: {reason} (session: {session})",
    ),
    "visitor.ended": (
        LogLevel.info,
        "{connection}: {peer} at port {port} to {uid} ended after {seconds} s, {bytes_in} bytes in, {bytes_out} out: "
        "{reason} ({session})",
    ),
    "api.changed": (LogLevel.info, "{who} at {peer}: {action} {subject}: {outcome}"),
    "api.refused": (LogLevel.warn, "API: {who} at {peer} refused {method} {path}: {reason}"),
    "events.suppressed": (LogLevel.info, "{count} more events {name} were not told one by one"),
}

#: How many events a second, and how many at once, of those that strangers can cause: from the internet, or by calling
#: the API. A refusal is worth a line only as long as somebody might read it; a connection's end is worth more.
LIMITS: Mapping[str, tuple[float, float]] = {
    "connector.refused": (10, 200),
    "visitor.connected": (100, 1000),
    "visitor.refused": (10, 200),
    "visitor.ended": (100, 1000),
    "api.refused": (10, 200),
}


def showAddress(address: Address) -> str:
    """An address for people: ``192.0.2.1:80``, ``[2001:db8::1]:80``."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Event(NamedTuple):
    """
    Something that happened.

    :ivar number: counts up from 1 in the life of the process.
    :ivar time: POSIX seconds.
    :ivar name: one of `EVENTS`.
    :ivar fields: what there is to say, by name.
    """

    number: int
    time: float
    name: str
    fields: Mapping[str, Field]


Receiver = Callable[[Event], None]


@attrs.define(eq=False)
class Events:
    """
    Where events are told, and where they are heard.

    :ivar now: the time, in POSIX seconds.
    :ivar life: a random name of this process's life, in which numbers count up.
    """

    now: Callable[[], float]
    life: str = attrs.field(factory=lambda: token_hex(4), init=False)
    _remembered: deque[Event] = attrs.field(factory=lambda: deque(maxlen=REMEMBERED), init=False)
    _subscribers: list[Receiver] = attrs.field(factory=list, init=False)
    _counters: list[Callable[[str, Mapping[str, Field]], None]] = attrs.field(factory=list, init=False)
    _count: int = attrs.field(default=0, init=False)
    _lines: Mapping[str, Lines] = attrs.field(init=False)

    @_lines.default
    def _makeLines(self) -> Mapping[str, Lines]:
        return {name: Lines(rate, burst) for name, (rate, burst) in LIMITS.items()}

    def emit(self, name: str, **fields: Field) -> None:
        """
        Tell everybody, or only count, if there were too many of that name lately.

        :raises KeyError: when `EVENTS` has no such name.
        """
        EVENTS[name]
        for counter in tuple(self._counters):
            try:
                counter(name, fields)
            except Exception:
                log.failure("a counter of events failed at {event}", event=name)
        now = self.now()
        untold = self._lines[name].take(now) if name in self._lines else 0
        if untold is None:
            return
        if untold:
            self._tell("events.suppressed", now, {"name": name, "count": untold})
        self._tell(name, now, fields)

    def _tell(self, name: str, now: float, fields: Mapping[str, Field]) -> None:
        level, sentence = EVENTS[name]
        self._count += 1
        event = Event(self._count, now, name, fields)
        self._remembered.append(event)
        log.emit(level, sentence, event=name, **fields)
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(event)
            except Exception:  # one reader's fault must not keep the others, or the work itself, from going on
                log.failure("a reader of events failed at {event}", event=name)

    def since(self, number: int) -> list[Event]:
        """What is remembered after the event of that number, oldest first; 0 for all."""
        later = list(takewhile(lambda event: event.number > number, reversed(self._remembered)))
        return later[::-1]

    @property
    def last(self) -> int:
        """The number of the latest event; 0 before the first."""
        return self._count

    def count(self, counter: Callable[[str, Mapping[str, Field]], None]) -> None:
        """Call `counter` with the name and fields of every event from now on, of those as well that aren't told."""
        self._counters.append(counter)

    def subscribe(self, receiver: Receiver) -> Callable[[], None]:
        """Call `receiver` with every event from now on, until what this returns is called."""
        self._subscribers.append(receiver)
        return lambda: self._subscribers.remove(receiver)
