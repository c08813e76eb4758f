"""QUIC or TLS: each thing that can happen, at its time."""

from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.connector.carriers import (
    BLACK_HOLES,
    HEAD_START,
    TRIAL_CAP,
    YOUNG_SECONDS,
    Carrier,
    Carriers,
    trialBackoff,
)
from socketwarp.connector.conversation import REHEARSAL_SECONDS, Conversation
from socketwarp.connector.race import REPEAT_SECONDS
from socketwarp.connector.remembered import Remembered
from socketwarp.errors import Code, SessionLost, SessionRefused
from socketwarp.interfaces import ISession
from tests.fakes import FakeSession, sessionPair, settle
from tests.talker import Talker

#: Seconds, the first pause before another try.
TRIAL_BASE = 60.0
#: TLS alert 44, as a session's error code.
REVOKED = 0x12C


class Silent(Remembered):
    """Remembers in memory only."""

    def __init__(self, carrier: str | None = None) -> None:
        self.written: list[str] = []
        self._carriers = {} if carrier is None else {"listener": carrier}

    def put(self, name: str, carrier: str) -> None:
        if self._carriers.get(name) != carrier:
            self._carriers[name] = carrier
            self.written.append(carrier)


class Network:
    """
    The ways to one listener, and who walks them.

    :ivar tried: the attempts at each carrier, as they were begun. ``changes``: how often a change over was asked for.
    :ivar talkers: the listener's ends of sessions that are rehearsed, or that were given.
    """

    def __init__(self, carrier: str | None = None, random: float = 0.0) -> None:
        self.clock = Clock()
        self.tried: list[tuple[Carrier, Deferred[ISession]]] = []
        self.changes = 0
        self.talkers: list[Talker] = []
        self.cancelled: list[Carrier] = []
        self.remembered = Silent(carrier)
        ways = {"quic": lambda: self.connect("quic"), "tls": lambda: self.connect("tls")}
        backoff = trialBackoff(TRIAL_BASE, lambda: random)
        self.carriers = Carriers("listener", ways, self.remembered, backoff, self.clock)  # type: ignore[arg-type]  # mypy infers str for the keys
        self.carriers.changeOver = self.changeOver

    def connect(self, carrier: Carrier) -> Deferred[ISession]:
        self.tried.append((carrier, Deferred(lambda _: self.cancelled.append(carrier))))
        return self.tried[-1][1]

    def changeOver(self) -> None:
        self.changes += 1

    @property
    def begun(self) -> list[Carrier]:
        """The carriers in the order in which they were tried."""
        return [carrier for carrier, _ in self.tried]

    def waiting(self, carrier: Carrier) -> Deferred[ISession] | None:
        """The last attempt by that carrier, if it waits for an answer."""
        open_ = [attempt for each, attempt in self.tried if each == carrier and not attempt.called]
        return open_[-1] if open_ else None

    def gives(self, carrier: Carrier, protocol: str = "socketwarp/1", isMute: bool = False) -> FakeSession:
        """The carrier makes a session, in which pings are answered or not; the result is our end of it."""
        listener, session = sessionPair(self.clock, protocol)
        session.carrier = listener.carrier = carrier
        self.talkers.append(Talker(listener))
        self.talkers[-1].isMute = isMute
        waiting = self.waiting(carrier)
        assert waiting is not None, f"nobody waits for {carrier}"
        waiting.callback(session)
        settle(self.clock)
        return session

    def fails(self, carrier: Carrier, error: Exception | None = None) -> None:
        waiting = self.waiting(carrier)
        assert waiting is not None, f"nobody waits for {carrier}"
        waiting.errback(error or SessionLost("the handshake took too long"))
        settle(self.clock)

    def wait(self, seconds: float) -> None:
        """In steps, so that what follows from each other does so."""
        end = self.clock.seconds() + seconds
        while calls := [call for call in self.clock.getDelayedCalls() if call.getTime() <= end]:
            self.clock.advance(max(0.0, min(call.getTime() for call in calls) - self.clock.seconds()))
            settle(self.clock)
        self.clock.advance(end - self.clock.seconds())


class CarriersCase(SynchronousTestCase):
    """What the cases share."""

    def setUp(self) -> None:
        self.net = Network()

    def on(self, carrier: Carrier, net: Network | None = None) -> FakeSession:
        """A session by that carrier, which has won its attempt."""
        net = net or self.net
        attempt = net.carriers()
        if net.waiting(carrier) is None:
            net.wait(HEAD_START)
        session = net.gives(carrier)
        conversation = self.successResultOf(attempt)
        self.assertIs(session, conversation.session)
        return session

    def giveUp(self, attempt: Deferred[Conversation]) -> None:
        """Cancel it."""
        attempt.cancel()
        self.failureResultOf(attempt, CancelledError)


class AttemptTests(CarriersCase):
    """One attempt."""

    def test_quicIsFirstAndAlone(self) -> None:
        """TLS isn't bothered while QUIC answers in time."""
        attempt = self.net.carriers()
        self.net.wait(HEAD_START - 0.1)
        session = self.net.gives("quic")
        self.assertIs(session, self.successResultOf(attempt).session)
        self.assertEqual((["quic"], []), (self.net.begun, self.net.clock.getDelayedCalls()))

    def test_withoutAnAnswerTlsIsTriedBesideIt(self) -> None:
        attempt = self.net.carriers()
        self.net.wait(HEAD_START - 0.1)
        self.assertEqual(["quic"], self.net.begun)
        self.net.wait(0.1)
        self.assertEqual((["quic", "tls"], []), (self.net.begun, self.net.cancelled))
        session = self.net.gives("tls")
        self.assertIs(session, self.successResultOf(attempt).session)
        self.assertEqual(["quic"], self.net.cancelled)

    def test_quicMayStillWin(self) -> None:
        attempt = self.net.carriers()
        self.net.wait(HEAD_START)
        session = self.net.gives("quic")
        self.assertIs(session, self.successResultOf(attempt).session)
        self.assertEqual(["tls"], self.net.cancelled)

    def test_quicThatFailsIsFollowedAtOnce(self) -> None:
        """No route, or a firewall that says so."""
        self.net.carriers()
        self.net.fails("quic", OSError(101, "Network is unreachable"))
        self.assertEqual(["quic", "tls"], self.net.begun)

    def test_aListenersAnswerByQuicIsAnAnswer(self) -> None:
        """By TLS it would say the same: a refusal of our certificate, ours of its own, or its stop."""
        for error in (
            SessionLost("revoked", REVOKED, fromPeer=True),
            SessionLost("unknown CA", 0x130),
            SessionLost("stopping", Code.SHUTDOWN, fromPeer=True),
        ):
            net = Network()
            attempt = net.carriers()
            net.fails("quic", error)
            self.assertIs(error, self.failureResultOf(attempt).value)
            self.assertEqual((["quic"], []), (net.begun, net.clock.getDelayedCalls()))

    def test_aLateAnswerByQuicEndsWhatIsBesideIt(self) -> None:
        attempt = self.net.carriers()
        self.net.wait(HEAD_START)
        self.net.fails("quic", SessionLost("revoked", REVOKED, fromPeer=True))
        self.assertEqual(REVOKED, self.failureResultOf(attempt, SessionLost).value.errorCode)
        self.assertEqual(["tls"], self.net.cancelled)

    def test_aFaultOfQuicsOwnIsNoAnswer(self) -> None:
        """Something that is no listener, and speaks another version."""
        self.net.carriers()
        self.net.fails("quic", SessionLost("no common version", 0x1))
        self.assertEqual(["quic", "tls"], self.net.begun)

    def test_aListenerWithoutTlsIsMetByQuic(self) -> None:
        """It is waited for, though TLS is refused: it may speak hq-29."""
        attempt = self.net.carriers()
        self.net.wait(HEAD_START)
        self.net.fails("tls", ConnectionRefusedError(111, "Connection refused"))
        self.assertNoResult(attempt)
        session = self.net.gives("quic", "hq-29")
        self.assertIs(session, self.successResultOf(attempt).session)
        self.net.carriers()
        self.assertEqual("quic", self.net.begun[-1])

    def test_whenNeitherAnswersBothReasonsAreTold(self) -> None:
        attempt = self.net.carriers()
        self.net.wait(HEAD_START)
        self.net.fails("tls", ConnectionRefusedError(111, "Connection refused"))
        self.net.fails("quic")
        error = self.failureResultOf(attempt, SessionLost).value
        self.assertEqual("by quic: the handshake took too long; by tls: Connection refused", str(error))
        self.assertIsNone(error.errorCode)

    def test_anAnswerSaysMoreThanSilence(self) -> None:
        attempt = self.net.carriers()
        self.net.wait(HEAD_START)
        self.net.fails("tls", SessionLost("revoked", REVOKED, fromPeer=True))
        self.assertNoResult(attempt)
        self.net.fails("quic")
        self.assertEqual(REVOKED, self.failureResultOf(attempt, SessionLost).value.errorCode)

    def test_aFaultOfOursEndsTheAttempt(self) -> None:
        attempt = self.net.carriers()
        self.net.fails("quic", ZeroDivisionError())
        self.failureResultOf(attempt, ZeroDivisionError)
        self.assertEqual(["quic"], self.net.begun)

    def test_cancellingGivesBothUp(self) -> None:
        attempt = self.net.carriers()
        self.net.wait(HEAD_START)
        self.giveUp(attempt)
        self.assertEqual({"quic", "tls"}, set(self.net.cancelled))
        self.assertEqual([], self.net.clock.getDelayedCalls())


class PreferenceTests(CarriersCase):
    """What is tried first."""

    def test_whatWorkedLast(self) -> None:
        """Now and at the next start; QUIC beside it after a while, or when it fails."""
        self.on("tls").lose(SessionLost("gone"))
        self.assertEqual(["tls"], self.net.remembered.written)
        for net in (self.net, Network("tls")):
            net.tried.clear()
            net.carriers()
            self.assertEqual(["tls"], net.begun)
            net.wait(HEAD_START)
            self.assertEqual(["tls", "quic"], net.begun)

    def test_whatIsRememberedAndFailsIsFollowedAtOnce(self) -> None:
        """And QUIC is first again once it has worked; whatever the reason was, TLS may have been intercepted."""
        for error in (ConnectionRefusedError(111, "Connection refused"), SessionLost("unknown CA", 0x130)):
            net = Network("tls")
            attempt = net.carriers()
            net.fails("tls", error)
            net.gives("quic")
            self.successResultOf(attempt)
            net.carriers()
            self.assertEqual((["tls", "quic", "quic"], ["quic"]), (net.begun, net.remembered.written))

    def test_whatWorkedLastIsRepeatedBesideTheOther(self) -> None:
        """A listener is restarted where UDP is blocked: QUIC isn't waited for in vain, however long that takes."""
        refused = ConnectionRefusedError(111, "Connection refused")
        net = Network("tls")
        attempt = net.carriers()
        net.fails("tls", refused)
        for _ in range(4):
            net.wait(REPEAT_SECONDS - 0.1)
            self.assertIsNone(net.waiting("tls"))
            net.wait(0.1)
            net.fails("tls", refused)
        net.wait(REPEAT_SECONDS)
        session = net.gives("tls")
        self.assertIs(session, self.successResultOf(attempt).session)
        self.assertEqual((["tls", "quic", *["tls"] * 5], ["quic"]), (net.begun, net.cancelled))

    def test_nothingIsRepeatedOnceTheOtherHasFailed(self) -> None:
        """The attempt is over, with or without a repetition that has begun."""
        for seconds, tried in ((REPEAT_SECONDS / 2, 2), (REPEAT_SECONDS, 3)):
            net = Network("tls")
            attempt = net.carriers()
            net.fails("tls", ConnectionRefusedError(111, "Connection refused"))
            net.wait(seconds)
            net.fails("quic")
            if net.waiting("tls"):
                self.assertNoResult(attempt)
                net.fails("tls")
            self.failureResultOf(attempt, SessionLost)
            self.assertEqual((tried, []), (len(net.tried), net.clock.getDelayedCalls()))

    def test_anAnswerIsNotRepeated(self) -> None:
        """Nor is what didn't work last."""
        net = Network("tls")
        net.carriers()
        net.fails("tls", SessionLost("unknown CA", 0x130))
        self.net.carriers()
        self.net.wait(HEAD_START)
        self.net.fails("tls", ConnectionRefusedError(111, "Connection refused"))
        for each in (net, self.net):
            self.assertEqual([], each.clock.getDelayedCalls())

    def test_givingUpEndsTheRepetitions(self) -> None:
        net = Network("tls")
        attempt = net.carriers()
        net.fails("tls", ConnectionRefusedError(111, "Connection refused"))
        self.giveUp(attempt)
        self.assertEqual([], net.clock.getDelayedCalls())

    def test_whatIsRememberedWronglyIsQuic(self) -> None:
        net = Network("pigeon")
        net.carriers()
        self.assertEqual(["quic"], net.begun)

    def test_itIsRememberedInAFile(self) -> None:
        """By its class; here it is seen that it fits."""
        directory = Path(self.mktemp()).absolute()
        Remembered(directory, ("listener",)).put("listener", "tls")
        self.assertEqual("tls", Remembered(directory, ("listener",)).get("listener"))

    def test_oneSessionThatFallsSilentIsBadLuck(self) -> None:
        self.on("quic").lose(SessionLost("nothing was heard"))
        self.net.carriers()
        self.assertEqual(["quic", "quic"], self.net.begun)

    def test_severalThatFallSilentYoungAreABlackHole(self) -> None:
        """A firewall that lets only a beginning through. QUIC is still there if TLS isn't."""
        for _ in range(BLACK_HOLES):
            session = self.on("quic")
            self.net.wait(60.0)
            session.lose(SessionLost("nothing was heard"))
        self.assertEqual(["quic", "tls"], self.net.remembered.written)
        self.net.tried.clear()
        attempt = self.net.carriers()
        self.assertEqual(["tls"], self.net.begun)
        self.net.fails("tls", ConnectionRefusedError(111, "Connection refused"))
        self.net.gives("quic", "hq-29")
        self.successResultOf(attempt)
        self.net.carriers()
        self.assertEqual("quic", self.net.begun[-1])

    def test_aSilenceThatAnAttemptIsMadeForCountsAtOnce(self) -> None:
        """The link asks for another session long before the idle time-out. It counts once."""
        first = self.on("quic")
        first.isSilent = True
        second = self.on("quic")
        first.lose(SessionLost("nothing was heard"))
        self.giveUp(self.net.carriers())
        self.assertEqual("quic", self.net.begun[-1])
        second.isSilent = True
        self.net.carriers()
        self.assertEqual("tls", self.net.begun[-1])

    def test_aHelloThatIsNotAnsweredIsASilence(self) -> None:
        """`Conversation` closes such a session."""
        for _ in range(BLACK_HOLES):
            self.on("quic").close(Code.TIMED_OUT, "the listener didn't answer hello")
            settle(self.net.clock)
        self.net.carriers()
        self.assertEqual("tls", self.net.begun[-1])

    def test_otherEndsAreNoSilence(self) -> None:
        """Neither the listener's, whatever it says, nor our own."""
        for code in (Code.SHUTDOWN, Code.TIMED_OUT, Code.TIMED_OUT, Code.SUPERSEDED):
            self.on("quic").other.close(code, "over")
            settle(self.net.clock)
            self.on("quic").close(Code.NO_ERROR, "over")
            settle(self.net.clock)
        self.net.carriers()
        self.assertEqual({"quic"}, set(self.net.begun))

    def test_aSessionThatLivedLongShowsThatQuicWorks(self) -> None:
        """However it ended; those before it don't count any more."""
        for _ in range(3):
            self.on("quic").lose(SessionLost("nothing was heard"))
            old = self.on("quic")
            self.net.wait(YOUNG_SECONDS)
            old.lose(SessionLost("nothing was heard"))
        self.net.carriers()
        self.assertEqual({"quic"}, set(self.net.begun))


class TrialTests(CarriersCase):
    """QUIC again, while TLS carries us."""

    def setUp(self) -> None:
        super().setUp()
        self.session = self.on("tls")
        self.net.tried.clear()

    def pause(self) -> float:
        """Seconds until the next try, which is begun."""
        [call] = self.net.clock.getDelayedCalls()
        delay = call.getTime() - self.net.clock.seconds()
        self.net.wait(delay)
        self.assertIsNotNone(self.net.waiting("quic"))
        return delay

    def test_theTriesGetRarer(self) -> None:
        """Half of each pause at least, all of it at most."""
        pauses = []
        for _ in range(8):
            pauses.append(self.pause())
            self.net.fails("quic")
        expected = [TRIAL_BASE * 2**number / 2 for number in range(6)] + [TRIAL_CAP / 2] * 2
        self.assertEqual(expected, pauses)
        self.assertEqual(({"quic"}, 0), (set(self.net.begun), self.net.changes))
        self.assertEqual(0.75 * TRIAL_BASE, trialBackoff(TRIAL_BASE, lambda: 0.5).next())
        self.assertEqual([TRIAL_CAP] * 2, [trialBackoff(2 * TRIAL_CAP, lambda: 0.0).next() for _ in range(2)])

    def test_eachFailureIsSaid(self) -> None:
        with capturedLogs() as events:
            self.pause()
            self.net.fails("quic")
        [event] = [event for event in events if event["log_level"] is LogLevel.info and "delay" in event]
        self.assertEqual(
            ("listener", "the handshake took too long", 60.0), tuple(event[k] for k in ("listener", "reason", "delay"))
        )

    def test_aSessionThatHoldsIsTakenOverTo(self) -> None:
        """The next attempt is given it, with no delay; and nothing is tried any more."""
        self.pause()
        session = self.net.gives("quic")
        self.net.wait(REHEARSAL_SECONDS - 0.1)
        self.assertEqual((0, REHEARSAL_SECONDS), (self.net.changes, self.net.talkers[-1].pings))
        self.net.wait(0.1)
        self.assertEqual(1, self.net.changes)
        conversation = self.successResultOf(self.net.carriers())
        self.assertIs(session, conversation.session)
        self.assertEqual((True, True), (session.isOpen, self.session.isOpen))
        self.assertEqual(["tls", "quic"], self.net.remembered.written)
        self.assertEqual((["quic"], []), (self.net.begun, self.net.clock.getDelayedCalls()))
        self.successResultOf(self.net.carriers.stop())
        self.assertTrue(session.isOpen)

    def test_aSessionThatDoesNotHoldIsNot(self) -> None:
        """Its pings aren't answered, the first or a later one; or it ends."""
        for isMute in (True, False):
            self.pause()
            session = self.net.gives("quic", isMute=isMute)
            self.net.talkers[-1].isMute = True
            self.net.wait(0.9 if isMute else 1.9)
            self.assertTrue(session.isOpen)
            self.net.wait(0.1)
            self.assertEqual((0, False), (self.net.changes, session.isOpen))
        self.pause()
        self.net.gives("quic").other.close(Code.SHUTDOWN, "stopping")
        self.net.wait(2.0)
        self.assertEqual(0, self.net.changes)
        self.pause()

    def test_aListenerThatSpeaksTooLittleByQuicIsLeftAlone(self) -> None:
        """To hq-29 the second session would be another connector."""
        self.pause()
        session = self.net.gives("quic", "hq-29")
        self.assertEqual((0, False), (self.net.changes, session.isOpen))
        self.pause()

    def test_aSessionThatNobodyAsksForIsForgotten(self) -> None:
        """The link is busy with an attempt that takes too long, and the listener gives up waiting for hello."""
        self.pause()
        session = self.net.gives("quic")
        self.net.wait(REHEARSAL_SECONDS)
        session.other.close(Code.TIMED_OUT, "no hello within 5 s")
        settle(self.net.clock)
        self.assertEqual(1, self.net.changes)
        self.net.tried.clear()
        self.giveUp(self.net.carriers())
        self.assertEqual(["tls"], self.net.begun)
        self.pause()

    def test_aSessionThatHasJustEndedIsNotGiven(self) -> None:
        self.pause()
        session = self.net.gives("quic")
        self.net.wait(REHEARSAL_SECONDS)
        session.isOpen = False
        self.net.carriers()
        self.assertEqual("tls", self.net.begun[-1])

    def test_withoutASessionNothingIsTried(self) -> None:
        """The attempts for the next one do that; the next by TLS has tries of its own."""
        self.session.lose(SessionLost("gone"))
        self.net.wait(TRIAL_CAP)
        self.assertEqual([], self.net.begun)
        self.on("tls")
        self.net.tried.clear()
        self.pause()

    def test_anotherSessionByTlsChangesNothing(self) -> None:
        """A new certificate, or one that fell silent."""
        self.net.wait(20.0)
        self.on("tls")
        self.assertEqual(10.0, self.pause())
        self.on("tls")
        self.net.fails("quic")
        self.pause()

    def test_aSessionByQuicThatAnAttemptGaveEndsTheTries(self) -> None:
        """One under way is given up."""
        self.pause()
        self.net.cancelled.clear()
        self.session.lose(SessionLost("gone"))
        attempt = self.net.carriers()
        self.net.fails("tls")
        self.net.gives("quic")
        self.successResultOf(attempt)
        self.assertEqual((["quic"], []), (self.net.cancelled, self.net.clock.getDelayedCalls()))

    def test_quicThatHeldAndThenFallsSilentHasNoSecondChance(self) -> None:
        """Until it has lived long: who comes from TLS has seen enough."""
        for _ in range(BLACK_HOLES):
            self.on("tls")
        net = Network()
        for _ in range(BLACK_HOLES):
            self.on("quic", net).lose(SessionLost("nothing was heard"))
        self.on("tls", net)
        net.wait(TRIAL_BASE)
        net.gives("quic")
        net.wait(REHEARSAL_SECONDS)
        self.successResultOf(net.carriers()).session.lose(SessionLost("nothing was heard"))  # type: ignore[attr-defined]  # a fake
        net.carriers()
        self.assertEqual("tls", net.begun[-1])

    def test_quicThatHasLivedLongIsTriedSoonAgain(self) -> None:
        """When it has gone nevertheless: what was tried in vain before is long ago."""
        for _ in range(4):
            self.pause()
            self.net.fails("quic")
        self.pause()
        self.net.gives("quic")
        self.net.wait(REHEARSAL_SECONDS)
        conversation = self.successResultOf(self.net.carriers())
        self.net.wait(YOUNG_SECONDS)
        assert isinstance(conversation.session, FakeSession)
        conversation.session.lose(SessionLost("nothing was heard"))
        self.on("tls")
        self.assertEqual(TRIAL_BASE / 2, self.pause())

    def test_aChangedNetworkIsAReasonToTrySoon(self) -> None:
        """And often again; but not more often than at first."""
        for _ in range(5):
            self.pause()
            self.net.fails("quic")
        self.net.wait(TRIAL_BASE - 10.0)
        self.net.carriers.wake()
        self.assertEqual(10.0, self.pause())
        self.net.carriers.wake()
        self.net.fails("quic")
        self.assertEqual(TRIAL_BASE / 2, self.pause())
        self.net.fails("quic")
        self.net.wait(5.0)
        self.net.carriers.wake()
        self.assertEqual(TRIAL_BASE - 5.0, self.pause())

    def test_aTryThatIsSoonAnywayIsNotPutOff(self) -> None:
        self.net.wait(20.0)
        self.net.carriers.wake()
        self.assertEqual(10.0, self.pause())

    def test_aFaultOfOursIsLoggedAndOutlived(self) -> None:
        self.pause()
        self.net.fails("quic", ZeroDivisionError())
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.pause()

    def test_stoppingLeavesNothing(self) -> None:
        """Waiting, trying, rehearsing or done."""
        for seconds in (0.0, TRIAL_BASE / 2, TRIAL_BASE / 2 + 1.0, TRIAL_BASE / 2 + REHEARSAL_SECONDS):
            net = Network()
            self.on("tls", net)
            net.wait(min(seconds, TRIAL_BASE / 2))
            session = net.gives("quic") if seconds > TRIAL_BASE / 2 else None
            net.wait(max(0.0, seconds - TRIAL_BASE / 2))
            stopped = net.carriers.stop()
            if session is not None:
                self.assertEqual((False, []), (session.isOpen, list(filter(None, [stopped.called]))))
            settle(net.clock)
            self.successResultOf(stopped)
            self.assertEqual([], net.clock.getDelayedCalls())


class AnyOrder(RuleBasedStateMachine):
    """Everything that can happen, in any order: somebody is always on the way to a session, or there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Network(random=0.5)
        self.attempt: Deferred[Conversation] | None = None
        self.sessions: list[FakeSession] = []
        self.current: FakeSession | None = None

    def ended(self, conversation: Conversation) -> None:
        session = conversation.session
        assert isinstance(session, FakeSession) and session.isOpen
        self.sessions.append(session)
        self.current = session
        self.attempt = None

    @precondition(lambda self: self.attempt is None)
    @rule()
    def connect(self) -> None:
        attempt = self.net.carriers()
        self.attempt = attempt
        attempt.addCallbacks(self.ended, lambda failure: self.lost(failure.value))

    def lost(self, error: BaseException) -> None:
        assert isinstance(error, SessionLost | OSError | CancelledError), error
        self.attempt = None

    @precondition(lambda self: self.net.waiting("quic"))
    @rule(protocol=st.sampled_from(["hq-29", "socketwarp/1"]), mute=st.booleans())
    def quicAnswers(self, protocol: str, mute: bool) -> None:
        self.net.gives("quic", protocol, mute)

    @precondition(lambda self: self.net.waiting("tls"))
    @rule()
    def tlsAnswers(self) -> None:
        self.net.gives("tls")

    @rule(
        carrier=st.sampled_from(["quic", "tls"]),
        error=st.sampled_from([SessionLost("x"), SessionLost("y", REVOKED, True), OSError("z")]),
    )
    def fail(self, carrier: Carrier, error: Exception) -> None:
        if self.net.waiting(carrier) is not None:
            self.net.fails(carrier, error)

    @precondition(lambda self: self.attempt)
    @rule()
    def giveUp(self) -> None:
        assert self.attempt is not None
        self.attempt.cancel()

    @precondition(lambda self: self.sessions)
    @rule(silent=st.booleans())
    def lose(self, silent: bool) -> None:
        session = self.sessions.pop()
        session.lose(SessionLost("x") if silent else SessionRefused("y", "z", None))

    @rule(seconds=st.sampled_from([0.5, HEAD_START, 60.0, 600.0]))
    def wait(self, seconds: float) -> None:
        self.net.wait(seconds)

    @rule()
    def wake(self) -> None:
        self.net.carriers.wake()

    @invariant()
    def whoWaitsIsWaitedFor(self) -> None:
        if self.attempt is not None:
            assert self.net.waiting("quic") or self.net.waiting("tls")

    @invariant()
    def quicIsTriedAgainWhileTlsCarries(self) -> None:
        if self.current is not None and self.current.isOpen and self.current.carrier == "tls" and not self.attempt:
            isHeld = self.net.carriers._held is not None
            assert self.net.clock.getDelayedCalls() or self.net.waiting("quic") or isHeld

    def teardown(self) -> None:
        if self.attempt is not None:
            self.attempt.cancel()
        stopped = self.net.carriers.stop()
        settle(self.net.clock)
        assert stopped.called
        self.net.wait(10.0)
        assert not self.net.clock.getDelayedCalls(), self.net.clock.getDelayedCalls()
        assert self.net.waiting("quic") is None and self.net.waiting("tls") is None


class AnyOrderTests(SynchronousTestCase):
    """The machine, run."""

    def test_anyOrder(self) -> None:
        run_state_machine_as_test(AnyOrder, settings=settings(max_examples=100, deadline=None))
