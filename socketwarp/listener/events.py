"""
One event stream: log lines, audit, server-sent events and metrics are all readers of it.

An event has a stable name and stable fields; `EVENTS` is the list of them all. It is logged through `twisted.logger`
with its fields, kept in a bounded memory for readers that come later, and handed to every subscriber.
"""

from collections import deque
from collections.abc import Callable, Mapping

import attrs
from twisted.logger import Logger, LogLevel

from ..interfaces import Address

#: What a field may be: anything JSON has a word for.
Field = str | int | float | bool | None

#: How many events are remembered for readers that come later. At some 500 bytes each: half a megabyte.
REMEMBERED = 1000

#: Every event: its level in the log and the sentence made of its fields.
EVENTS: Mapping[str, tuple[LogLevel, str]] = {
    "connector.connected": (LogLevel.info, "connector {uid} connected from {address} ({session}, {protocol})"),
    "connector.refused": (LogLevel.warn, "connector at {address} refused: {reason} ({session})"),
    "connector.superseded": (
        LogLevel.warn,
        "connector {uid}: session {session} gives way to {newcomer} from {address}",
    ),
    "connector.renewed": (LogLevel.info, "connector {uid}: session {newcomer} from {address} follows {session}"),
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
    "visitor.connected": (LogLevel.debug, "{connection}: {address} at port {port} to {uid}"),
    "visitor.refused": (LogLevel.warn, "{connection}: {address} at port {port} refused: {reason}"),
    "visitor.ended": (
        LogLevel.info,
        "{connection}: {address} at port {port} ended after {seconds} s, {bytesIn} bytes in, {bytesOut} out: {reason}",
    ),
}


def showAddress(address: Address) -> str:
    """An address for people: ``192.0.2.1:80``, ``[2001:db8::1]:80``."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@attrs.frozen
class Event:
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


@attrs.define(eq=False)
class Events:
    """
    Where events are told, and where they are heard.

    :ivar now: the time, in POSIX seconds.
    """

    now: Callable[[], float]
    _remembered: deque[Event] = attrs.field(factory=lambda: deque(maxlen=REMEMBERED), init=False)
    _subscribers: list[Callable[[Event], None]] = attrs.field(factory=list, init=False)
    _count: int = attrs.field(default=0, init=False)

    _log = Logger()

    def emit(self, name: str, **fields: Field) -> Event:
        """
        Tell everybody.

        :raises KeyError: when `EVENTS` has no such name.
        """
        level, sentence = EVENTS[name]
        self._count += 1
        event = Event(self._count, self.now(), name, fields)
        self._remembered.append(event)
        # The values are JSON scalars, but twisted.logger's own parameters are typed more narrowly than **kwargs.
        self._log.emit(level, sentence, event=name, **fields)
        for subscriber in tuple(self._subscribers):
            self._hand(event, subscriber)
        return event

    def _hand(self, event: Event, subscriber: Callable[[Event], None]) -> None:
        try:
            subscriber(event)
        except Exception:  # one reader's fault must not keep the others, or the work itself, from going on
            self._log.failure("a reader of events failed at {event}", event=event.name)

    def since(self, number: int) -> list[Event]:
        """What is remembered after the event of that number, oldest first; 0 for all."""
        return [event for event in self._remembered if event.number > number]

    def subscribe(self, receiver: Callable[[Event], None]) -> Callable[[], None]:
        """Call `receiver` with every event from now on, until what this returns is called."""
        self._subscribers.append(receiver)
        return lambda: self._subscribers.remove(receiver)
