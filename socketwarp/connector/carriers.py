"""
Which carrier takes us to a listener, when it may be QUIC or TLS: a state machine that takes the time and what happens,
and does its work through two functions that connect.

What worked last is tried first, QUIC before anything has. The other is tried beside it when there is no answer within
`HEAD_START` seconds, and at once when it fails; the first session wins. What worked last and isn't answered is repeated
every second while the other runs: a listener that is restarted refuses TLS at once, and where UDP is blocked QUIC would
only wait.

While TLS carries us, QUIC is tried again and again, with pauses that grow. When such a session holds, it is taken over
to, as to a new certificate: the session by TLS finishes its streams. QUIC that gives sessions but loses them young and
in silence, again and again, is what a firewall does that lets only a beginning through: then TLS is what works.
"""

from collections.abc import Callable
from typing import Literal

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import Code, SessionLost, SocketwarpError
from ..interfaces import ISession
from .backoff import Backoff
from .conversation import Conversation
from .events import tell
from .race import Race
from .refusals import explain, isAlert
from .remembered import Remembered

Carrier = Literal["quic", "tls"]
#: Seconds after which the other carrier is tried beside the first: QUIC sends its first packet again after one
#: (RFC 9002 §6.2.2), and then a bad path has its time to answer.
HEAD_START = 3.0
#: Seconds below which a session that is lost in silence counts against its carrier, not against the network's luck.
YOUNG_SECONDS = 300.0
#: So many of those in a row, none of QUIC's having lived longer meanwhile, and QUIC isn't tried first any more.
BLACK_HOLES = 2
#: The longest pause between tries of QUIC beside TLS, seconds, unless the first is to be longer.
TRIAL_CAP = 3600.0


def trialBackoff(base: float, random: Callable[[], float]) -> Backoff:
    """
    The pauses between tries of QUIC beside TLS; up to half of each is taken off by chance.

    :param base: the first, seconds.
    """
    return Backoff(base, max(base, TRIAL_CAP), lambda: 0.5 + random() / 2)


class Carriers:
    """
    The ways to one listener. Called, it makes an attempt, and fires with a session that nothing was said in but pings.

    :ivar changeOver: called when the next attempt would give a better session than the current one.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        connects: dict[Carrier, Callable[[], Deferred[ISession]]],
        remembered: Remembered,
        backoff: Backoff,
        clock: IReactorTime,
    ) -> None:
        """
        :param name: the listener.
        :param connects: make a session, or fail with `errors.SessionLost` or `OSError`; they can be cancelled.
        :param backoff: see `trialBackoff`.
        """
        self.changeOver: Callable[[], None] = lambda: None
        self._name = name
        self._connects = connects
        self._remembered = remembered
        self._backoff = backoff
        self._clock = clock
        self._first: Carrier = "tls" if remembered.get(name) == "tls" else "quic"
        self._current: ISession | None = None
        self._made: dict[ISession, float] = {}  # by QUIC, and when; those whose end hasn't been judged
        self._blackHoles = 0
        self._trialCall: IDelayedCall | None = None
        self._trial: Deferred[None] | None = None
        self._triedAt = clock.seconds()
        self._rehearsing: ISession | None = None
        self._held: Conversation | None = None
        self._isStopped = False

    def __call__(self) -> Deferred[Conversation]:
        """One attempt; fails with the reason that says most. Cancelling gives up."""
        for session in [*self._made]:
            if session.isOpen and session.isSilent:
                self._judge(session, isSilent=True)
        held, self._held = self._held, None
        if held is not None and held.session.isOpen:
            self._rehearsing = None
            self._use("quic", held.session)
            return succeed(held)
        return Deferred.fromCoroutine(self._attempt())

    async def _attempt(self) -> Conversation:
        errors: dict[Carrier, BaseException] = {}

        def connect(carrier: Carrier) -> Deferred[ISession]:
            def note(failure: Failure) -> Failure:
                errors[carrier] = failure.value or SessionLost("the attempt failed")
                return failure

            return self._connects[carrier]().addErrback(note)

        first = self._first

        def repeats(carrier: Carrier, error: BaseException) -> bool:
            return carrier == first and not _isAnswer(error)

        order: list[Carrier] = ["quic", "tls"] if first == "quic" else ["tls", "quic"]
        race = Race(order, HEAD_START, self._clock, connect, self._describe, _decides, repeats)
        try:
            carrier, session = await race.run()
        except (SessionLost, OSError):
            raise _verdict(errors) from None
        self._use(carrier, session)
        return Conversation(session, self._clock)

    def _describe(self, carrier: Carrier) -> str:
        return f"{self._name} by {carrier}"

    # -- what works

    def _use(self, carrier: Carrier, session: ISession) -> None:
        self._current = session
        self._prefer(carrier)
        if carrier == "tls":
            self._scheduleTrial()
        else:
            self._stopTrial()
            self._made[session] = self._clock.seconds()
            session.whenClosed().addCallback(self._ended, session)

    def _prefer(self, carrier: Carrier) -> None:
        self._first = carrier
        self._remembered.put(self._name, carrier)

    def _ended(self, error: SessionLost, session: ISession) -> None:
        """A session by QUIC is gone. No error code at all is the idle time-out's."""
        self._judge(session, not error.fromPeer and error.errorCode in (None, Code.TIMED_OUT))

    def _judge(self, session: ISession, isSilent: bool) -> None:
        madeAt = self._made.pop(session, None)
        if madeAt is None:
            return
        if self._clock.seconds() - madeAt >= YOUNG_SECONDS:
            self._blackHoles = 0
            self._backoff.reset()
        elif isSilent:
            self._blackHoles += 1
            if self._blackHoles >= BLACK_HOLES and self._first == "quic":
                tell(self._log, "carrier.distrusted", listener=self._name)
                self._prefer("tls")

    # -- QUIC again

    def wake(self) -> None:
        """The network has changed: QUIC may get through now. It is tried soon, if TLS carries us."""
        self._backoff.reset()
        if self._trialCall is not None:
            soon = max(0.0, self._triedAt + self._backoff.base - self._clock.seconds())
            if self._trialCall.getTime() > self._clock.seconds() + soon:
                self._trialCall.reset(soon)

    def _scheduleTrial(self) -> float:
        """Have QUIC tried again, if nobody is at it; in so many seconds."""
        if self._trialCall is None and self._trial is None and not self._isStopped:
            self._trialCall = self._clock.callLater(self._backoff.next(), self._try)
        return 0.0 if self._trialCall is None else self._trialCall.getTime() - self._clock.seconds()

    def _try(self) -> None:
        self._trialCall = None
        if self._current is None or not self._current.isOpen:
            return  # the next session by TLS says when to try again
        self._triedAt = self._clock.seconds()
        trial = Deferred.fromCoroutine(self._rehearse())
        ended = trial.addCallbacks(self._holds, self._doesNotHold)
        self._trial = None if ended.called else ended

    async def _rehearse(self) -> Conversation:
        self._rehearsing = await self._connects["quic"]()
        return await Conversation(self._rehearsing, self._clock).rehearse()

    def _holds(self, conversation: Conversation) -> None:
        self._trial = None
        tell(self._log, "carrier.held", listener=self._name)
        self._held = conversation
        conversation.session.whenClosed().addCallback(self._missed, conversation)
        self.changeOver()

    def _missed(self, error: SessionLost, conversation: Conversation) -> None:
        """A session is gone that was kept for an attempt; perhaps without ever having been asked for."""
        if self._held is conversation:
            self._held = None
            self._scheduleTrial()

    def _doesNotHold(self, failure: Failure) -> None:
        self._trial = None
        if self._isStopped or (self._current is not None and self._current.carrier == "quic"):
            return
        if not isinstance(failure.value, SocketwarpError | OSError):
            self._log.failure("{listener}: an unexpected error", failure, listener=self._name)
        reason = explain(failure.value or SessionLost("the attempt failed"))
        tell(self._log, "carrier.blocked", listener=self._name, reason=reason, delay=self._scheduleTrial())

    def _stopTrial(self) -> None:
        if self._trialCall is not None:
            self._trialCall.cancel()
            self._trialCall = None
        if self._trial is not None:
            self._trial.cancel()

    def stop(self) -> Deferred[None]:
        """Try no more; fires when nothing is left of it. Sessions that were given are the caller's."""
        self._isStopped = True
        self._stopTrial()
        held, self._held = self._held, None
        if held is not None:
            held.session.close(Code.NO_ERROR, "the connector is stopping")
        if self._rehearsing is None:
            return succeed(None)
        return self._rehearsing.whenClosed().addCallback(lambda _: None)


def _isAnswer(error: BaseException) -> bool:
    """Whether a failure shows that the listener is there, and is its last word, or ours, for now."""
    if not isinstance(error, SessionLost) or error.errorCode is None:
        return False
    return error.fromPeer or isAlert(error.errorCode)


def _decides(carrier: Carrier, error: BaseException) -> bool:
    """What a listener answers by QUIC it would answer by TLS. Not so the other way round: TLS can be intercepted."""
    return carrier == "quic" and _isAnswer(error)


def _verdict(errors: dict[Carrier, BaseException]) -> BaseException:
    """The reason of an attempt that failed: an answer, if there is one, else all there is to say."""
    answers = [error for error in errors.values() if _isAnswer(error)]
    words = (f"by {carrier}: {explain(error)}" for carrier, error in sorted(errors.items()))
    return answers[0] if answers else SessionLost("; ".join(words))
