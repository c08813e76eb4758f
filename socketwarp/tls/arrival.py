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

    :ivar transport: its transport, once there is one; ``parser``: what parses the bytes on it.
    :param secured: called when the handshake is over.
    :param arrived: called with the first frames, once.
    :param failed: called with the reason, once, when none of it comes true; the transport is gone then.
    """

    transport: TlsTransport

    def __init__(
        self,
        clock: IReactorTime,
        timeout: float,
        secured: Callable[["Arrival"], None],
        arrived: Callable[["Arrival", list[Event]], None],
        failed: Callable[["Arrival", str], None],
    ) -> None:
        """:param timeout: seconds for all of it."""
        self.parser = FrameParser()
        self._secured = secured
        self._arrived = arrived
        self._failed = failed
        self._isDone = False
        self._timer: IDelayedCall | None = clock.callLater(timeout, self._timedOut)

    @property
    def chain(self) -> Sequence[x509.Certificate]:
        """What the peer's TLS has shown, once the handshake is over."""
        return chainOf(self.transport.connection)

    def secured(self) -> None:
        """See `transport.Owner`."""
        self._secured(self)

    def received(self, chunks: list[bytes]) -> None:
        """See `transport.Owner`."""
        if self._isDone:
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
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def giveUp(self, reason: str) -> None:
        """End it; `failed` is called unless it has become something."""
        self.transport.abort()
        self._fail(reason)

    def _timedOut(self) -> None:
        self._timer = None
        self.giveUp("the handshake took too long")

    def _fail(self, reason: str) -> None:
        if not self._isDone:
            self.finish()
            self._failed(self, reason)
