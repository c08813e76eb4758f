"""
Events for one caller, as they happen: server-sent events (the HTML standard, §9.2).

Nothing is queued here. A caller who reads slowly is paused by Twisted's flow control, and goes on with what `Events`
remembers; what has been forgotten meanwhile is said to be missing.
"""

import json
import re
from collections.abc import Callable

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.web.server import Request
from zope.interface import implementer

from ...errors import BadRequest
from ..events import Event, Events, Field
from .access import Caller

#: Seconds between two signs of life, so that neither a proxy nor the caller takes silence for an end. Below the 30 s
#: after which some proxies give a silent connection up.
HEARTBEAT_SECONDS = 10.0
#: Callers who may follow events at a time; each event is written for each of them.
STREAM_LIMIT = 64
#: Seconds that a caller's browser waits before it comes again.
RETRY_SECONDS = 2.0


def resumeAt(events: Events, given: str | None) -> int:
    """
    The number of the last event that a caller has seen. One of another life of the process counts as none of this.

    :param given: an event's id, ``0`` for "none yet", or `None` for "from now on".
    :raises errors.BadRequest: when it isn't one.
    """
    if given is None:
        return events.last
    match = re.fullmatch(r"(?:([0-9a-f]{8})-)?(\d{1,15})", given, re.ASCII)
    if match is None or (match[1] is None and match[2] != "0"):
        raise BadRequest("Last-Event-ID, or since: the id of an event, or 0, is needed")
    return min(int(match[2]), events.last) if match[1] == events.life else 0


@implementer(IPushProducer)
@attrs.define(eq=False)
class EventStream:
    """One caller's view of events: those that it has to do with."""

    _clock: IReactorTime
    _events: Events
    _caller: Caller
    _request: Request
    _seen: int
    _isWelcome: Callable[[], bool]
    _paused: bool = attrs.field(default=False, init=False)
    _over: Deferred[None] = attrs.field(factory=Deferred, init=False)

    async def run(self) -> None:
        """Write events until the caller goes away, and klein cancels this; or until it isn't welcome any more."""
        self._setHead()
        if self._request.method == b"HEAD":
            return  # an answer without a body never has one that begins
        self._request.write(b"retry: %d\n\n" % (RETRY_SECONDS * 1000))
        self._request.registerProducer(self, True)
        leave = self._events.subscribe(lambda event: self._flow())
        heart = LoopingCall(self._beat)
        heart.clock = self._clock
        heart.start(HEARTBEAT_SECONDS, now=False)
        try:
            self._flow()
            await self._over
            self._request.unregisterProducer()
        finally:
            heart.stop()
            leave()

    def end(self) -> None:
        """Say no more."""
        if not self._over.called:
            self._over.callback(None)

    def _setHead(self) -> None:
        for name, value in (
            (b"Content-Type", b"text/event-stream"),
            (b"Cache-Control", b"no-store"),
            (b"X-Accel-Buffering", b"no"),
        ):
            self._request.setHeader(name, value)

    def _flow(self) -> None:
        for event in self._events.since(self._seen):
            if self._paused:
                return
            if event.number > self._seen + 1:
                self._missed(event.number - self._seen - 1)
            self._seen = event.number
            port, uid = event.fields.get("port"), event.fields.get("uid")
            if self._caller.sees(port if isinstance(port, int) else None, uid if isinstance(uid, str) else None):
                self._request.write(self._written(event))

    def _missed(self, count: int) -> None:
        """Events that nobody remembers any more; they have no id of their own."""
        self._request.write(_frame("events.missed", {"count": count}))

    def _written(self, event: Event) -> bytes:
        data = {"time": event.time, "event": event.name, **event.fields}
        return f"id: {self._events.life}-{event.number}\n".encode() + _frame(event.name, data)

    def _beat(self) -> None:
        if not self._isWelcome():
            self.end()
        elif not self._paused:
            self._request.write(b": still here\n\n")

    # IPushProducer

    def pauseProducing(self) -> None:
        """The caller reads too slowly."""
        self._paused = True

    def resumeProducing(self) -> None:
        """It has caught up."""
        self._paused = False
        self._flow()

    def stopProducing(self) -> None:
        """The caller is gone."""
        self._paused = True


def _frame(name: str, data: dict[str, Field]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
