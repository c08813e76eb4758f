"""Who is connected."""

from typing import Any

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.errors import (
    Code,
    ConnectorAway,
    LimitReached,
    NoSuchSession,
    SessionLost,
    VerifierFault,
    VerifierRefused,
)
from socketwarp.listener import connectors, waiting
from socketwarp.listener.connectors import Terms
from tests.listener.rig import Rig, failureOf


class AdmissionTests(SynchronousTestCase):
    """A session becomes a connector when the verifier has named it."""

    def setUp(self) -> None:
        self.rig = Rig()

    def assertNobody(self) -> None:
        self.assertRaises(NoSuchSession, self.rig.connectors.current, "uid-1")
        self.assertEqual([], list(self.rig.connectors))

    def test_aVerifiedSessionCarriesItsUid(self) -> None:
        session = self.rig.connected("uid-1")
        self.assertIs(session, self.rig.connectors.current("uid-1").session)
        self.assertEqual(["uid-1"], [connector.identity.uid for connector in self.rig.connectors])
        (told,) = self.rig.told("connector.connected")
        self.assertEqual(("uid-1", "session-1", "192.0.2.1:40000"), (told["uid"], told["session"], told["peer"]))

    def test_theLogSaysWhatCarriesASession(self) -> None:
        with capturedLogs() as logs:
            self.rig.connected("uid-1")
        text = "connector uid-1 connected from 192.0.2.1:40000 (session-1, hq-29 over quic)"
        self.assertIn(text, [formatEvent(each) for each in logs])

    def test_theVerifierIsAskedForTheCertificateThatAuthenticatedTheSession(self) -> None:
        session = self.rig.session(leaf="somebody")
        self.rig.connectors.admit(session)
        self.assertIs(session.peerLeaf, self.rig.verifier.asked[0][0])

    def test_untilTheAnswerThereIsNoConnector(self) -> None:
        self.rig.connectors.admit(self.rig.session())
        self.assertNobody()

    def test_aRefusalClosesTheSessionWithItsReason(self) -> None:
        session = self.rig.session()
        self.rig.connectors.admit(session)
        self.rig.verifier.fail(VerifierRefused("User Not Found"))
        self.assertEqual((Code.DENIED, "User Not Found"), session.closedWith)
        self.assertNobody()
        self.assertEqual("User Not Found", self.rig.told("connector.refused")[0]["reason"])

    def test_whatTlsRefusesIsToldToo(self) -> None:
        refused = self.rig.connectors.turnedAway
        refused("session-1", ("192.0.2.1", 40000), SessionLost("the certificate has expired", 0x12D))
        refused("session-2", ("192.0.2.1", 40001), SessionLost("unknown CA", 0x130, fromPeer=True))
        ours, its = self.rig.told("connector.refused")
        self.assertEqual(("session-1", "192.0.2.1:40000"), (ours["session"], ours["peer"]))
        self.assertEqual("TLS refused it: the certificate has expired", ours["reason"])
        self.assertEqual("it ended the handshake: unknown CA", its["reason"])

    def test_aFaultOfTheVerifierRefusesToo(self) -> None:
        session = self.rig.session()
        self.rig.connectors.admit(session)
        self.rig.verifier.fail(VerifierFault("no answer within 5 s"))
        self.assertEqual((Code.VERIFIER_FAULT, "no answer within 5 s"), session.closedWith)
        self.assertNobody()

    def test_anUnexpectedFailureRefusesWithoutTellingThePeerAboutIt(self) -> None:
        session = self.rig.session()
        self.rig.connectors.admit(session)
        self.rig.verifier.fail(ZeroDivisionError("secret"))
        assert session.closedWith is not None
        self.assertEqual(Code.VERIFIER_FAULT, session.closedWith[0])
        self.assertNotIn("secret", session.closedWith[1])
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.assertNobody()

    def test_anAnswerThatIsNoneRefusesToo(self) -> None:
        session = self.rig.session()
        self.rig.connectors.admit(session)
        nobody: Any = None  # Any: what a verifier must not answer
        self.rig.verifier.asked.pop()[1].callback(nobody)
        assert session.closedWith is not None
        self.assertEqual(Code.INTERNAL, session.closedWith[0])
        self.assertEqual(1, len(self.flushLoggedErrors(AttributeError)))
        self.assertNobody()

    def test_aSessionThatDiesMeanwhileTakesItsQuestionBack(self) -> None:
        session = self.rig.session()
        self.rig.connectors.admit(session)
        session.lose(SessionLost("timed out"))
        self.assertEqual(1, self.rig.verifier.cancelled)
        self.assertEqual([], self.rig.told("connector.refused"))
        self.assertNobody()

    def test_aSessionThatIsClosingWhenTheAnswerComesIsNotAdmitted(self) -> None:
        session = self.rig.session()
        self.rig.connectors.admit(session)
        session.isOpen = False
        self.rig.verifier.answer("uid-1")
        self.assertNobody()

    def test_thereIsALimitToThoseWhoWaitForTheVerifier(self) -> None:
        self.patch(connectors, "VERIFYING_LIMIT", 1)
        first, second, third = (self.rig.session() for _ in range(3))
        self.rig.connectors.admit(first)
        self.rig.connectors.admit(second)
        assert second.closedWith is not None
        self.assertEqual(Code.LIMIT, second.closedWith[0])
        self.rig.verifier.answer("uid-1")
        self.rig.connectors.admit(third)
        self.assertIsNone(third.closedWith)

    def test_aLostSessionIsNoConnectorAnyMore(self) -> None:
        session = self.rig.connected()
        self.rig.reactor.advance(7)
        session.lose(SessionLost("timed out"))
        self.assertNobody()
        (told,) = self.rig.told("connector.lost")
        self.assertEqual((7, "timed out"), (told["seconds"], told["reason"]))

    def test_aClosingSessionGetsNoVisitors(self) -> None:
        session = self.rig.connected()
        session.isOpen = False
        self.assertRaises(NoSuchSession, self.rig.connectors.current, "uid-1")

    def test_ipv6AddressesAreToldInBrackets(self) -> None:
        session = self.rig.session()
        session.peerAddress = ("2001:db8::1", 1234)
        self.rig.connectors.admit(session)
        self.rig.verifier.answer("uid-1")
        self.assertEqual("[2001:db8::1]:1234", self.rig.told("connector.connected")[0]["peer"])


class TakeoverTests(SynchronousTestCase):
    """The same uid again."""

    def setUp(self) -> None:
        self.rig = Rig()
        self.older = self.rig.connected("uid-1", "older")

    def test_theNewcomerWinsOnceVerified(self) -> None:
        newcomer = self.rig.session("newcomer")
        self.rig.connectors.admit(newcomer)
        self.assertIs(self.older, self.rig.connectors.current("uid-1").session)
        self.rig.verifier.answer("uid-1")
        self.assertIs(newcomer, self.rig.connectors.current("uid-1").session)
        assert self.older.closedWith is not None
        self.assertEqual(Code.SUPERSEDED, self.older.closedWith[0])
        self.assertIn("took over", self.older.closedWith[1])
        self.assertEqual("newcomer", self.rig.told("connector.superseded")[0]["newcomer"])

    def test_theOlderOnesEndDoesNotTakeTheNewcomerAlong(self) -> None:
        newcomer = self.rig.connected("uid-1", "newcomer")
        self.rig.settle()
        self.assertIs(newcomer, self.rig.connectors.current("uid-1").session)
        self.assertEqual(["older"], [told["session"] for told in self.rig.told("connector.lost")])

    def test_aNewcomerThatIsRefusedChangesNothing(self) -> None:
        self.rig.connectors.admit(self.rig.session("newcomer"))
        self.rig.verifier.fail(VerifierRefused("revoked"))
        self.assertIs(self.older, self.rig.connectors.current("uid-1").session)
        self.assertIsNone(self.older.closedWith)

    def test_anotherUidIsNobodysNewcomer(self) -> None:
        self.rig.connected("uid-2", "other")
        self.assertIsNone(self.older.closedWith)


class WaitingTests(SynchronousTestCase):
    """Those who wait for a connector."""

    def setUp(self) -> None:
        self.rig = Rig()

    def test_aConnectorThatIsThereIsGivenAtOnce(self) -> None:
        session = self.rig.connected()
        self.assertIs(session, self.successResultOf(self.rig.connectors.whenConnected("uid-1")).session)

    def test_allWhoWaitGetTheConnectorThatComes(self) -> None:
        first, second = (self.rig.connectors.whenConnected("uid-1") for _ in range(2))
        other = self.rig.connectors.whenConnected("uid-2")
        session = self.rig.connected("uid-1")
        self.assertIs(session, self.successResultOf(first).session)
        self.assertIs(session, self.successResultOf(second).session)
        self.assertNoResult(other)

    def test_whoAsksWhoIsThereDoesNotTakeAnybodysTurn(self) -> None:
        self.rig.connectors._terms = Terms(sharedUids=frozenset({"uid-1"}))
        sessions = [self.rig.connected(name=name) for name in "ab"]
        chosen = []
        for _ in range(4):
            serving = self.rig.connectors.serving("uid-1")
            self.assertEqual(sessions, [each.session for each in serving])
            chosen.append(self.rig.connectors.current("uid-1").session)
        self.assertEqual(sessions + sessions, chosen)

    def test_nobodyWaitsForAConnectorOfAListenerThatStops(self) -> None:
        """Those who do are told so, and those who come then; who is being verified isn't admitted any more."""
        early = self.rig.connectors.whenConnected("uid-1")
        session = self.rig.session()
        self.rig.connectors.admit(session)
        self.rig.connectors.drain("the listener stops", 30.0)
        for each in (early, self.rig.connectors.whenConnected("uid-1")):
            self.assertIsInstance(failureOf(each), ConnectorAway)
        self.assertEqual((Code.SHUTDOWN, "the listener stops"), session.closedWith)
        self.rig.settle()
        self.assertEqual([], self.rig.verifier.asked)
        self.assertEqual([], list(self.rig.connectors))

    def test_whoGivesUpMakesRoomForOthers(self) -> None:
        self.patch(waiting, "WAITING_LIMIT", 2)
        first, second = (self.rig.connectors.whenConnected("uid-1") for _ in range(2))
        self.assertIsInstance(failureOf(self.rig.connectors.whenConnected("uid-1")), LimitReached)
        first.addErrback(lambda _: None).cancel()
        self.assertNoResult(self.rig.connectors.whenConnected("uid-1"))
        self.assertNoResult(second)


class StopTests(SynchronousTestCase):
    """The listener stops."""

    def test_allSessionsAreClosedAndWaitedFor(self) -> None:
        rig = Rig()
        verified, asking = rig.connected(), rig.session()
        rig.connectors.admit(asking)
        closed = rig.connectors.closeAll("the listener stops")
        self.assertEqual((Code.SHUTDOWN, "the listener stops"), verified.closedWith)
        self.assertEqual((Code.SHUTDOWN, "the listener stops"), asking.closedWith)
        self.assertNoResult(closed)
        rig.settle()
        self.successResultOf(closed)
        self.assertEqual([], rig.reactor.getDelayedCalls())

    def test_whoComesBackIsTurnedAway(self) -> None:
        rig = Rig()
        rig.connectors.closeAll("the listener stops")
        session = rig.session()
        rig.connectors.admit(session)
        self.assertEqual((Code.SHUTDOWN, "the listener stops"), session.closedWith)
        self.assertEqual([], rig.verifier.asked)
