"""Running sessions are verified again."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.errors import CertificateRejected, Code, SessionLost, VerifierFault, VerifierRefused
from socketwarp.interfaces import Identity
from socketwarp.listener.recheck import Recheck, RecheckPolicy
from tests.fakes import leafCertificate
from tests.listener.rig import Rig


class RecheckTests(SynchronousTestCase):
    """Asked at least every 60 seconds; a grace of 100 seconds."""

    def setUp(self) -> None:
        self.rig = Rig(policy=RecheckPolicy(seconds=60, grace=100))
        self.session = self.rig.connected()

    def ask(self) -> None:
        """Let time pass until the verifier is asked."""
        for _ in range(61):
            if self.rig.verifier.asked:
                return
            self.rig.reactor.advance(1)
        self.fail("not asked within 61 s")

    def test_theVerifierIsAskedAgainAndAgain(self) -> None:
        for _ in range(3):
            before = self.rig.reactor.seconds()
            self.ask()
            self.assertTrue(42 <= self.rig.reactor.seconds() - before <= 55)
            self.rig.verifier.answer("uid-1")
        self.assertTrue(self.session.isOpen)

    def test_sessionsDontAskInStepAndTheAnswerComesWithinTheInterval(self) -> None:
        rig, waits = Rig(), []
        for chance in (0.0, 0.5, 1.0):
            session = rig.session()
            leaf = session.peerLeaf
            Recheck(
                rig.reactor,
                rig.verifier,
                rig.events,
                RecheckPolicy(60),
                Identity("uid-1", leaf),
                session,
                random=partial(float, chance),
            ).start()
            (call,) = rig.reactor.getDelayedCalls()
            waits.append(call.getTime() - rig.reactor.seconds())
            call.cancel()
        self.assertEqual([42, 48, 54], [round(wait, 6) for wait in waits])

    def test_aRefusalEndsTheSession(self) -> None:
        self.ask()
        self.rig.verifier.fail(VerifierRefused("Certificate is revoked"))
        self.assertEqual((Code.DENIED, "Certificate is revoked"), self.session.closedWith)

    def test_aFaultLetsItGoOnForTheGraceAndIsTold(self) -> None:
        self.ask()
        sure = 0.0
        while self.session.isOpen:
            self.rig.verifier.fail(VerifierFault("unreachable"))
            if self.session.isOpen:
                self.ask()
        self.assertEqual(Code.VERIFIER_FAULT, self.session.closedWith[0] if self.session.closedWith else None)
        self.assertTrue(100 <= self.rig.reactor.seconds() - sure <= 101)
        told = self.rig.told("connector.unverified")
        self.assertEqual(
            ("uid-1", "session-1", "unreachable"), tuple(told[0][each] for each in ("uid", "session", "reason"))
        )
        self.assertTrue(len(told) < 15, "asked with a back-off")
        self.assertEqual([], self.rig.told("connector.verified"))

    def test_theGraceIsNeitherShorterNorLongerThanTheSettingSays(self) -> None:
        for chance in (0.0, 1.0):
            rig, asked = Rig(), []
            session = rig.session()
            identity = Identity("uid-1", session.peerLeaf)
            policy = RecheckPolicy(60, 100)
            Recheck(
                rig.reactor, rig.verifier, rig.events, policy, identity, session, random=partial(float, chance)
            ).start()
            while session.isOpen:
                (call,) = rig.reactor.getDelayedCalls()
                rig.reactor.advance(call.getTime() - rig.reactor.seconds())
                asked.append(rig.reactor.seconds())
                rig.verifier.fail(VerifierFault("unreachable"))
            self.assertAlmostEqual(100, asked[-1], 3)

    def test_anAnswerAfterAFaultRenewsTheGrace(self) -> None:
        for _ in range(4):
            self.ask()
            self.rig.verifier.fail(VerifierFault("unreachable"))
            self.ask()
            self.rig.verifier.answer("uid-1")
        self.assertTrue(self.rig.reactor.seconds() > 150)
        self.assertTrue(self.session.isOpen)
        self.assertEqual(["uid-1"] * 4, [each["uid"] for each in self.rig.told("connector.verified")])

    def test_afterAFaultItIsAskedSoon(self) -> None:
        self.ask()
        self.rig.verifier.fail(VerifierFault("unreachable"))
        before = self.rig.reactor.seconds()
        self.ask()
        self.assertTrue(self.rig.reactor.seconds() - before <= 1)

    def test_aVerifierThatAnswersAtOnceIsAskedAgainToo(self) -> None:
        self.rig.verifier.automatic = True
        self.rig.reactor.pump([60.0] * 3)
        self.rig.verifier.automatic = False
        self.ask()
        self.assertTrue(self.session.isOpen)

    def test_anAnswerThatIsNoneEndsTheSession(self) -> None:
        self.ask()
        nobody: Any = None  # Any: what a verifier must not answer
        self.rig.verifier.asked.pop()[1].callback(nobody)
        self.assertFalse(self.session.isOpen)
        self.assertEqual(1, len(self.flushLoggedErrors(AttributeError)))

    def test_anUnexpectedFailureIsAFault(self) -> None:
        self.ask()
        self.rig.verifier.fail(ZeroDivisionError())
        self.assertTrue(self.session.isOpen)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))

    def test_withoutGraceTheFirstFaultEndsIt(self) -> None:
        self.rig = Rig(policy=RecheckPolicy(seconds=60, grace=0))
        self.session = self.rig.connected()
        self.ask()
        self.rig.verifier.fail(VerifierFault("unreachable"))
        self.assertFalse(self.session.isOpen)

    def test_aCertificateThatNamesAnotherUidEndsTheSession(self) -> None:
        self.ask()
        self.rig.verifier.answer("uid-2")
        self.assertEqual(
            (Code.DENIED, "the certificate of uid-1 now names uid-2"),
            self.session.closedWith,
        )

    def check(self, error: Exception) -> None:
        """From now on the check of running chains says so."""

        def checkRunning(chain: Sequence[x509.Certificate]) -> None:
            self.assertEqual(self.session.peerChain, chain)
            raise error

        self.rig = Rig(policy=RecheckPolicy(seconds=60, grace=100))
        self.rig.connectors._checkRunning = checkRunning
        self.session = self.rig.connected()

    def test_aChainThatIsNoLongerGoodEndsTheSessionWithoutAskingTheVerifier(self) -> None:
        self.check(CertificateRejected("CN=Sub CA: certificate revoked", 44))
        self.rig.reactor.advance(60)
        self.assertEqual((Code.DENIED, "CN=Sub CA: certificate revoked"), self.session.closedWith)
        self.assertEqual([], self.rig.verifier.asked)

    def test_aChainOfWhichNobodyCanSayIsAFaultUnlessTheVerifierRefuses(self) -> None:
        self.check(VerifierFault("CN=uid-1: CRL has expired"))
        self.ask()
        self.rig.verifier.answer("uid-1")
        self.assertTrue(self.session.isOpen)
        self.assertEqual("CN=uid-1: CRL has expired", self.rig.told("connector.unverified")[0]["reason"])
        self.ask()
        self.rig.verifier.fail(VerifierRefused("Certificate is revoked"))
        self.assertEqual((Code.DENIED, "Certificate is revoked"), self.session.closedWith)

    def test_theCertificatesEndOfLifeEndsTheSession(self) -> None:
        self.rig = Rig(policy=RecheckPolicy(seconds=60))
        self.rig.reactor.advance(leafCertificate("uid-1").not_valid_after_utc.timestamp() - 20)
        self.session = self.rig.connected()
        self.rig.reactor.advance(15)
        self.assertTrue(self.session.isOpen)
        self.rig.reactor.advance(15)
        assert self.session.closedWith is not None
        self.assertIn("expired", self.session.closedWith[1])

    def test_itsEndOfLifeIsPosixTimeWhateverTheReactorCounts(self) -> None:
        self.rig = Rig(policy=RecheckPolicy(seconds=60))
        end = leafCertificate("uid-1").not_valid_after_utc.timestamp()
        self.rig.events.now = lambda: end - 20 + self.rig.reactor.seconds()
        self.session = self.rig.connected()
        self.rig.reactor.advance(15)
        self.assertTrue(self.session.isOpen)
        self.rig.reactor.advance(15)
        assert self.session.closedWith is not None
        self.assertIn("expired", self.session.closedWith[1])

    def test_anAnswerForASessionThatIsClosingChangesNothing(self) -> None:
        self.ask()
        self.session.isOpen = False
        self.rig.verifier.answer("uid-2")
        self.assertIsNone(self.session.closedWith)
        self.assertEqual([], self.rig.reactor.getDelayedCalls())

    def test_aLostSessionIsNotAskedAbout(self) -> None:
        self.session.lose(SessionLost("timed out"))
        self.assertEqual([], self.rig.reactor.getDelayedCalls())

    def test_aSessionThatIsLostWhileAskedAboutTakesTheQuestionBack(self) -> None:
        self.ask()
        self.session.lose(SessionLost("timed out"))
        self.assertEqual(1, self.rig.verifier.cancelled)
        self.assertEqual([], self.rig.reactor.getDelayedCalls())
