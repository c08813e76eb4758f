"""
A TLS connection before it is a lane: the handshake, the check of who is there, the first frames; all within a time.

Both ends have one; what follows is the owner's to decide.
"""

from collections.abc import Callable, Sequence

from cryptography import x509
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from .contexts import chainOf
from .frames import Event, FrameParser, MalformedFrame
from .transport import TlsTransport


class Arrival:
    """
    A connection that is on its way to become a lane.

    :ivar transport: its transport, whose owner it is; ``parser``: what parses the bytes on it.
    """

    def __init__(
        self,
        transport: TlsTransport,
        clock: IReactorTime,
        timeout: float,
        secured: Callable[["Arrival"], None],
        arrived: Callable[["Arrival", list[Event]], None],
        failed: Callable[["Arrival", str], None],
    ) -> None:
        """
        :param timeout: seconds for all of it.
        :param secured: called when the handshake is over.
        :param arrived: called with the first frames, once.
        :param failed: called with the reason, once, when none of it comes true; the transport is gone then.
        """
        self.transport = transport
        self.parser = FrameParser()
        self._clock = clock
        self._secured = secured
        self._arrived = arrived
        self._failed = failed
        self._isDismissed = False
        self._isDone = False
        self._timer: IDelayedCall | None = clock.callLater(timeout, self._timedOut)
        transport.owner = self

    @property
    def chain(self) -> Sequence[x509.Certificate]:
        """What the peer's TLS has shown, once the handshake is over."""
        return chainOf(self.transport.connection)

    def secured(self) -> None:
        """See `transport.Owner`."""
        self._secured(self)

    def received(self, chunks: list[bytes]) -> None:
        """See `transport.Owner`."""
        if self._isDone or self._isDismissed:
            return
        try:
            events = self.parser.feed(chunks)
        except MalformedFrame as error:
            self.giveUp(f"no frames: {error}")
            return
        if events:
            self.finish()
            self._arrived(self, events)

    def drained(self) -> None:
        """See `transport.Owner`."""

    def lost(self, reason: str) -> None:
        """See `transport.Owner`."""
        self._fail(reason)

    def finish(self) -> None:
        """It has become something; the time doesn't matter any more."""
        self._isDone = True
        self._stopTimer()

    def dismiss(self, frame: bytes, seconds: float) -> None:
        """Say a last word and end it; `failed` is called when it is gone, which is so many seconds later at most."""
        self._isDismissed, self._isDone = True, False
        self._stopTimer()
        self._timer = self._clock.callLater(seconds, self._timedOut)
        self.transport.owner = self
        self.transport.write(frame)
        self.transport.flush()
        self.transport.close()

    def giveUp(self, reason: str) -> None:
        """End it; `failed` is called unless it has become something."""
        self.transport.abort()
        self._fail(reason)

    def _stopTimer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _timedOut(self) -> None:
        self._timer = None
        self.giveUp("dismissed" if self._isDismissed else "the handshake took too long")

    def _fail(self, reason: str) -> None:
        if not self._isDone:
            self.finish()
            self._failed(self, reason)
