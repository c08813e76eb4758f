"""
Stay connected to one listener, forever.

`lifecycle` decides; what it decided is carried out here.
"""

from collections.abc import Callable
from math import inf

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import Code, SessionLost, SessionRefused, UidTaken
from ..wire.messages import Goaway
from .backoff import Backoff
from .conversation import Conversation
from .events import tell
from .lifecycle import Machine, build
from .names import place
from .refusals import explain

#: Sessions that may finish their streams beside the current one; the oldest gives way. Each comes of a renewal.
RETIRED_LIMIT = 8
#: Seconds that pauses don't grow beyond while the listener restarts, and that jitter adds to a time it has named.
SHORT_PAUSE = 2.0
#: Seconds that a listener may take to be back once its drain is over.
RESTART_SECONDS = 30.0

#: Makes one attempt to get a session, and to be admitted; the argument says that the uid is taken from nobody. Its
#: Deferred can be cancelled.
Attempt = Callable[[bool], Deferred[Conversation]]


@attrs.define(eq=False)
class _Hands:
    """See `lifecycle.Hands`."""

    name: str
    clock: IReactorTime
    backoff: Backoff
    stableSeconds: float
    attempt: Attempt
    log: Logger
    current: Conversation | None = attrs.field(default=None, init=False)
    _latest: Conversation | None = attrs.field(default=None, init=False)
    isExiled: bool = attrs.field(default=False, init=False)
    _connectedAt: float = attrs.field(default=0.0, init=False)
    _expectedUntil: float = attrs.field(default=0.0, init=False)  # the listener stops, and is about to come back
    _retired: list[Conversation] = attrs.field(factory=list, init=False)
    _attempting: Deferred[None] | None = attrs.field(default=None, init=False)
    _call: IDelayedCall | None = attrs.field(default=None, init=False)
    _isStale: bool = attrs.field(default=False, init=False)
    _isHurried: bool = attrs.field(default=False, init=False)
    _isStopping: bool = attrs.field(default=False, init=False)
    _yields: bool = attrs.field(default=False, init=False)
    _waiters: list[tuple[Deferred[None], bool]] = attrs.field(factory=list, init=False)

    def _report(self, name: str, **fields: str | float | None) -> None:
        """Log an event about the latest session, which an attempt that fails may have followed."""
        latest = self._latest
        session = None if latest is None else latest.session.sessionId
        uid = None if latest is None else latest.uid
        tell(self.log, name, listener=self.name, uid=uid, session=session, **fields)

    # -- attempts

    def connect(self, machine: Machine) -> None:
        """See `lifecycle.Hands`."""
        self._isStale = self._isHurried = self._isStopping = self.isExiled = False
        attempting = self.attempt(self._yields)
        ended = attempting.addCallbacks(self._succeeded, self._failed, (machine,), errbackArgs=(machine,))
        self._attempting = None if ended.called else ended

    def _succeeded(self, conversation: Conversation, machine: Machine) -> None:
        self._attempting = None
        machine.attemptSucceeded(conversation)

    def _failed(self, failure: Failure, machine: Machine) -> None:
        self._attempting = None
        error = failure.value or SessionLost("the attempt failed")  # Twisted's types allow a Failure of nothing
        if not isinstance(error, SessionLost | OSError) and not self._isStopping:
            self.log.failure("{listener}: an unexpected error", failure, listener=self.name)
        machine.attemptFailed(error)
        self._checkEmpty(machine)

    def remember(self) -> None:
        """See `lifecycle.Hands`."""
        self._isStale = True

    def hurry(self) -> None:
        """See `lifecycle.Hands`."""
        self._isHurried = True

    # -- sessions

    def adopt(self, machine: Machine, conversation: Conversation) -> None:
        """See `lifecycle.Hands`."""
        older, self.current = self.current, conversation
        self._latest = conversation
        if older is not None:
            older.say(Goaway("renewed", 0.0, "the connector has a newer session"))
            self._retire(older)
        session = conversation.session
        self._connectedAt = self.clock.seconds()
        self._yields = False
        self._report(
            "session.connected",
            peer=place(*session.peerAddress),
            protocol=session.protocol,
            carrier=session.carrier,
        )
        conversation.wentAway = lambda goaway: self._wentAway(machine, conversation, goaway)
        conversation.fellSilent = lambda: self._fellSilent(machine, conversation)
        session.whenClosed().addCallback(self._lost, machine, conversation)
        if self._isStale:
            self.clock.callLater(0, machine.renew)

    def _wentAway(self, machine: Machine, conversation: Conversation, goaway: Goaway) -> None:
        if conversation is self.current:
            machine.wentAway(goaway)

    def _fellSilent(self, machine: Machine, conversation: Conversation) -> None:
        if conversation is self.current:
            self._report("session.silent")
            machine.renew()

    def _expect(self, seconds: float) -> None:
        """The listener has said that it stops, and that it may take so long."""
        self._expectedUntil = max(self._expectedUntil, self.clock.seconds() + seconds + RESTART_SECONDS)

    def _lost(self, error: SessionLost, machine: Machine, conversation: Conversation) -> None:
        if conversation is self.current:
            self._forget(error)
            machine.sessionLost(error)
        elif conversation in self._retired:
            self._retired.remove(conversation)
        self._checkEmpty(machine)

    def _forget(self, error: SessionLost) -> Conversation:
        """The current session is current no more; when it was stable, pauses are short again."""
        conversation, self.current = self.current, None
        assert conversation is not None, "there is no current session"
        lived = self.clock.seconds() - self._connectedAt
        self._report("session.lost", seconds=round(lived, 3), reason=explain(error))
        if lived >= self.stableSeconds:
            self.backoff.reset()
        return conversation

    def retire(self, goaway: Goaway) -> BaseException:
        """See `lifecycle.Hands`. A superseded session has no streams to finish."""
        isSuperseded = goaway.reason == UidTaken.code
        error = (
            SessionLost(goaway.text, Code.SUPERSEDED, True)
            if isSuperseded
            else SessionLost(f"{goaway.text or goaway.reason} (goaway)", fromPeer=True)
        )
        conversation = self._forget(error)
        self._retire(conversation)
        if isSuperseded:
            conversation.session.close(Code.SUPERSEDED, goaway.text)
        elif goaway.reason == "shutdown":
            self._expect(goaway.seconds)
        return error

    def _retire(self, conversation: Conversation) -> None:
        self._retired.append(conversation)
        for oldest in self._retired[:-RETIRED_LIMIT]:
            oldest.session.close(Code.LIMIT, "the connector has renewed itself too often since")

    def discard(self, machine: Machine, conversation: Conversation) -> None:
        """See `lifecycle.Hands`."""
        self._retired.append(conversation)
        conversation.session.whenClosed().addCallback(self._lost, machine, conversation)
        _close(conversation)

    def probe(self) -> None:
        """See `lifecycle.Hands`."""
        if self.current is not None:
            self.current.probe()

    # -- pauses

    def pause(self, machine: Machine, error: BaseException) -> None:
        """See `lifecycle.Hands`."""
        delay = self._delay(error)
        self._report("session.waiting", reason=explain(error), delay=delay)
        self._call = self.clock.callLater(delay, self._pauseEnded, machine)

    def _pauseEnded(self, machine: Machine) -> None:
        self._call = None
        machine.pauseEnded()

    def endPause(self) -> None:
        """See `lifecycle.Hands`."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _delay(self, error: BaseException) -> float:
        if self._isStale or self._isHurried:
            self.backoff.reset()
            return 0.0
        match error:
            case SessionLost(errorCode=Code.SUPERSEDED, fromPeer=True):
                return self._exile()
            case SessionRefused(reason=UidTaken.code) if self._yields:
                return self._exile()
            case SessionRefused(reason=UidTaken.code, retryAfter=float() as seconds):
                return seconds + self.backoff.next(SHORT_PAUSE)
            case SessionLost(errorCode=Code.SHUTDOWN, fromPeer=True):
                self._expect(0.0)
            case SessionRefused(retryAfter=None):
                # Never with this certificate, says the listener; but administrators change their minds.
                self.isExiled = True
                return self.backoff.longest()
            case SessionRefused(retryAfter=float() as seconds):
                return seconds + self.backoff.next()
        return self.backoff.next(SHORT_PAUSE if self.clock.seconds() < self._expectedUntil else inf)

    def _exile(self) -> float:
        """Another one has our uid: two that fight for it would leave neither in peace."""
        self._yields = self.isExiled = True
        return self.backoff.longest()

    # -- the end

    def leave(self, seconds: float) -> None:
        """See `lifecycle.Hands`."""
        self._giveUp()
        for conversation in self._all():
            conversation.say(Goaway("shutdown", seconds, "the connector is stopping"))

    def close(self, machine: Machine) -> None:
        """See `lifecycle.Hands`."""
        self._giveUp()
        for conversation in self._all():
            _close(conversation)
        self._checkEmpty(machine)

    def _giveUp(self) -> None:
        self._isStopping = True
        self.endPause()
        if self._attempting is not None:
            self._attempting.cancel()

    def _all(self) -> list[Conversation]:
        return [*self._retired, *([] if self.current is None else [self.current])]

    def whenEmpty(self, talking: bool) -> Deferred[None]:
        """Fires when no session is left, or, if `talking`, none in which the listener can be told that we leave."""
        waiter: Deferred[None] = Deferred()
        self._waiters.append((waiter, talking))
        self._tell()
        return waiter

    def _checkEmpty(self, machine: Machine) -> None:
        self._tell()
        if self._isStopping and self._attempting is None and not self._all():
            machine.finished()

    def _tell(self) -> None:
        left = self._all()
        for waiter, talking in self._waiters[:]:
            if self._attempting is None and not any(each.canTalk or not talking for each in left):
                self._waiters.remove((waiter, talking))
                waiter.callback(None)


def _close(conversation: Conversation) -> None:
    conversation.session.close(Code.SHUTDOWN, "the connector is stopping")


_makeMachine = build(_Hands)


class Link(Service):
    """
    One listener, and our session with it: a service that runs until it is stopped. Several listeners are several links.
    """

    def __init__(
        self, name: str, attempt: Attempt, backoff: Backoff, stableSeconds: float, clock: IReactorTime
    ) -> None:
        """
        :param name: the listener, for logs.
        :param stableSeconds: a session that lived as long makes the next pause short again, seconds.
        """
        log = Logger(namespace="socketwarp.connector.link")
        self._hands = _Hands(name, clock, backoff, stableSeconds, attempt, log)
        self._machine = _makeMachine(self._hands)

    def startService(self) -> None:
        """Connect, and stay connected."""
        super().startService()
        self._machine.start()

    def renew(self) -> None:
        """
        There is a new certificate: use it, and let the session with the old one finish its streams.

        A listener that speaks ``hq-29`` would take the new session for another connector; there, the certificate waits
        for the next session.
        """
        current = self._hands.current
        if current is None or current.canTalk:
            self._machine.renew()

    def wake(self) -> None:
        """The network has changed: don't wait any longer, unless the listener wants us to stay away."""
        if not self._hands.isExiled:
            self._hands.backoff.reset()
            self._machine.wake()

    def leave(self, seconds: float) -> Deferred[None]:
        """
        Connect no more, and tell the listener so. Fires when the sessions have ended in which it can be told: that is
        when their streams are over.
        """
        self._machine.leave(seconds)
        return self._hands.whenEmpty(talking=True)

    def stopService(self) -> Deferred[None]:
        """Close all sessions; fires when they are gone."""
        super().stopService()
        self._machine.stop()
        return self._hands.whenEmpty(talking=False)
