"""
What listener and connector say to each other beside the visitors' bytes: the listener's end of the control stream.

A connector that speaks ``socketwarp/1`` introduces itself before anybody is asked who it is. One that speaks ``hq-29``
can't, and whatever is said to it goes nowhere.
"""

from collections.abc import Callable

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ..control import ControlStream
from ..errors import Code, HelloMissing, MalformedMessage, SocketwarpError
from ..interfaces import ISession, IStream
from ..wire.dialect import DIALECTS
from ..wire.messages import Goaway, Hello, Message

#: Seconds within which a connector must introduce itself (docs/protocol.rst).
HELLO_SECONDS = 5.0


def _ignore(*_: object) -> None:
    """Until somebody wants to know."""


@attrs.define(eq=False)
class Channel:
    """
    Our end of a session's control stream, or of none.

    :ivar hello: what the connector said of itself; `None` when it can't.
    :ivar wentAway: called when the connector wants no more streams; ``pinged``: when it asks whether we are there.
    """

    _session: ISession
    hello: Hello | None = None
    wentAway: Callable[[Goaway], None] = _ignore
    pinged: Callable[[], None] = _ignore
    _control: ControlStream | None = attrs.field(default=None, init=False)
    _introduced: "Deferred[Channel]" = attrs.field(factory=Deferred, init=False)

    @property
    def isThere(self) -> bool:
        """Whether the connector hears what is said."""
        return self._control is not None

    def say(self, message: Message) -> None:
        """Tell the connector, if it can hear."""
        if self._control is not None:
            self._control.send(message)

    def open(self, clock: IReactorTime) -> "Deferred[Channel]":
        """
        Wait for the control stream and its hello. Fires with this; fails with `errors.HelloMissing` when it takes too
        long. Cancelling gives up.
        """
        if not DIALECTS[self._session.protocol].hasControl:
            return succeed(self)
        self._session.acceptStreams(self._accept)
        missing = HelloMissing(f"no hello within {HELLO_SECONDS:g} s")
        return self._introduced.addTimeout(HELLO_SECONDS, clock, lambda *_: Failure(missing))

    def _accept(self, stream: IStream) -> None:
        if self._control is not None:
            stream.abort(Code.MALFORMED)  # a connector opens one stream and no other
        else:
            self._control = ControlStream(stream, self._received, self._broken, lambda: self.pinged())

    def _received(self, message: Message) -> None:
        if self.hello is None:
            self._introduce(message)
        elif isinstance(message, Hello):
            self._broken(MalformedMessage("the connector said hello twice"))
        elif isinstance(message, Goaway):
            self.wentAway(message)

    def _introduce(self, message: Message) -> None:
        if not isinstance(message, Hello):
            self._broken(MalformedMessage("the connector's first message is no hello"))
            return
        self.hello = message
        if not self._introduced.called:
            self._introduced.callback(self)

    def _broken(self, error: SocketwarpError) -> None:
        self._session.close(error.streamCode, str(error))
