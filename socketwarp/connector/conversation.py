"""A session with a listener, and what is said beside its streams: the connector's end of the control stream."""

from collections.abc import Callable

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from ..control import ControlStream
from ..errors import Code, SessionLost, SessionRefused, SocketwarpError
from ..interfaces import ISession
from ..wire.dialect import DIALECTS
from ..wire.messages import PING, Finished, Goaway, Hello, Message, Ping, Pong, Refused, Welcome

#: Seconds within which a listener must answer hello: its verifier has 5.
WELCOME_SECONDS = 15.0
#: Seconds between an answer and the next ping.
PING_SECONDS = 10.0
#: Seconds that an answer may take; then the session is doubted.
PONG_SECONDS = 5.0
#: Seconds, and pings, of a rehearsal: as many as leave a listener's limit for hello some room.
REHEARSAL_SECONDS = 3


def _ignore(*_: object) -> None:
    """Until somebody wants to know."""


@attrs.define(eq=False)
class Conversation:
    """
    A session of ours.

    :ivar welcome: what the listener said when it admitted us; `None` when it can't say anything (``hq-29``).
    :ivar wentAway: called when the listener opens no more streams in it.
    :ivar fellSilent: called when a ping isn't answered, though the session isn't lost.
    """

    session: ISession
    _clock: IReactorTime
    welcome: Welcome | None = attrs.field(default=None, init=False)
    wentAway: Callable[[Goaway], None] = attrs.field(default=_ignore, init=False)
    fellSilent: Callable[[], None] = attrs.field(default=_ignore, init=False)
    _control: ControlStream | None = attrs.field(default=None, init=False)
    _answer: "Deferred[Conversation]" = attrs.field(init=False)
    _isOpened: bool = attrs.field(default=False, init=False)
    _number: int = attrs.field(default=0, init=False)
    _isAsking: bool = attrs.field(default=False, init=False)
    _running: int = attrs.field(default=0, init=False)
    _isFinished: bool = attrs.field(default=False, init=False)
    _farewell: str = attrs.field(default="its connections are over", init=False)
    _call: IDelayedCall | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._answer = Deferred(lambda _: self.session.close(Code.NO_ERROR, "the connector gave up"))
        self.session.whenClosed().addCallback(self._lost)

    @property
    def uid(self) -> str | None:
        """Who we are to the listener; `None` until it has said so, which it can't in ``hq-29``."""
        return None if self.welcome is None else self.welcome.uid

    @property
    def canTalk(self) -> bool:
        """Whether there is a control stream."""
        return self._control is not None

    def say(self, message: Message) -> None:
        """Tell the listener, if it can hear."""
        if isinstance(message, Goaway):
            self._farewell = message.text
        if self._control is not None:
            self._control.send(message)

    def open(self, hello: Hello) -> "Deferred[Conversation]":
        """
        Introduce ourselves. Fires with this once the listener has admitted us; fails with `errors.SessionRefused` when
        it doesn't, and with `errors.SessionLost`. Cancelling closes the session.
        """
        self._isOpened = True
        if not DIALECTS[self.session.protocol].hasControl:
            self._answer.callback(self)
            return self._answer
        opening = Deferred.fromCoroutine(self._introduce(hello))
        opening.addErrback(self._fail)
        self._setCall(WELCOME_SECONDS, self._unwelcomed)
        return self._answer

    async def _introduce(self, hello: Hello) -> None:
        await self._openControl()
        self.say(hello)

    async def _openControl(self) -> None:
        if self._control is None:
            stream = await self.session.openStream()
            self._control = ControlStream(stream, self._received, self._broken)

    def _unwelcomed(self) -> None:
        late = SessionLost(f"the listener didn't answer hello within {WELCOME_SECONDS:g} s", Code.TIMED_OUT)
        self._fail(Failure(late))
        self.session.close(Code.TIMED_OUT, str(late))

    def rehearse(self) -> "Deferred[Conversation]":
        """
        Before `open`: see whether this session holds, by pings for `REHEARSAL_SECONDS`, which a listener answers before
        hello, too (but waits for that no longer than 5 seconds). Fires with this; fails with `errors.SessionLost`, and
        the session is closed. Cancelling closes the session.
        """
        return Deferred.fromCoroutine(self._rehearse())

    async def _rehearse(self) -> "Conversation":
        try:
            if not DIALECTS[self.session.protocol].hasControl:
                raise SessionLost(f"the listener speaks no more than {self.session.protocol}")
            await self._openControl()
            for _ in range(REHEARSAL_SECONDS):
                self._isAsking = True
                self._number += 1
                self.say(Ping(self._number))
                await deferLater(self._clock, 1.0)
                if self._isAsking or not self.session.isOpen:
                    raise SessionLost("pings aren't answered within a second", Code.TIMED_OUT)
        except BaseException:
            self.session.close(Code.NO_ERROR, "it was only a try")
            raise
        return self

    def _fail(self, failure: Failure) -> None:
        if self._isOpened and not self._answer.called:
            self._answer.errback(failure)

    def _received(self, message: Message) -> None:
        match message:
            case Refused():
                self._refused(message)
            case Welcome():
                self._welcomed(message)
            case Goaway() if self.welcome is not None:
                self._farewell = message.text or self._farewell
                self.wentAway(message)
            case Finished():
                self._isFinished = True
                self._closeEmpty()
            case Pong() if message.number == self._number and self._isAsking:
                self._isAsking = False
                if self.welcome is not None:
                    self._setCall(PING_SECONDS, self.probe)

    def _welcomed(self, welcome: Welcome) -> None:
        if self._answer.called:
            return
        self.welcome = welcome
        self._stopCall()
        self.session.sessionId = welcome.session  # one name in both ends' logs
        self.session.admitted(welcome.ticket, welcome.lanes)
        if PING in welcome.features:
            self._setCall(PING_SECONDS, self.probe)
        self._answer.callback(self)

    def _refused(self, refused: Refused) -> None:
        self._fail(Failure(SessionRefused(refused.text, refused.reason, refused.retryAfter)))
        self.session.close(Code.NO_ERROR, "refused")

    def _broken(self, error: SocketwarpError) -> None:
        self.session.close(Code.MALFORMED, str(error))

    def _lost(self, error: SessionLost) -> None:
        self._stopCall()
        self._fail(Failure(error))

    # -- streams

    def streamBegan(self) -> None:
        """One of its streams is served; `streamEnded` follows."""
        self._running += 1

    def streamEnded(self) -> None:
        """Nothing of it is left, here or on its way to the target."""
        self._running -= 1
        self._closeEmpty()

    def _closeEmpty(self) -> None:
        """The listener's part is over: the session ends with the last stream, since it alone may hold bytes still."""
        if self._isFinished and not self._running:
            self.session.close(Code.NO_ERROR, self._farewell)

    # -- pings

    def probe(self) -> None:
        """Ask whether the listener is there, unless a question is open; who doesn't answer has fallen silent."""
        if self.welcome is None or PING not in self.welcome.features or self._isAsking:
            return
        self._isAsking = True
        self._number += 1
        self.say(Ping(self._number))
        self._setCall(PONG_SECONDS, self._unanswered)

    def _unanswered(self) -> None:
        self._call = None
        self.fellSilent()

    def _setCall(self, seconds: float, action: Callable[[], None]) -> None:
        self._stopCall()
        if self.session.isOpen:
            self._call = self._clock.callLater(seconds, action)

    def _stopCall(self) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None
