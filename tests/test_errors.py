"""The table of failures: what programs and other versions rely on."""

import re

from twisted.trial.unittest import SynchronousTestCase

from socketwarp import errors
from socketwarp.errors import (
    CertificateRejected,
    Code,
    NoSuchPort,
    NoSuchSession,
    PortDenied,
    SessionLost,
    SocketwarpError,
    StreamReset,
)


def allErrors() -> list[type[SocketwarpError]]:
    """Every class of the module."""
    found = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SocketwarpError)]
    assert len(found) > 10
    return found


class TableTests(SynchronousTestCase):
    """What holds for every error."""

    def test_codesAreKebabCaseAndMeanOneErrorEach(self) -> None:
        codes = [kind.code for kind in allErrors()]
        self.assertEqual([], [code for code in codes if not re.fullmatch("[a-z]+(-[a-z]+)*", code)])
        self.assertEqual(len(codes), len(set(codes)))

    def test_everyErrorHasAStatusAStreamCodeAndAnExitCodeOfAFailure(self) -> None:
        for kind in allErrors():
            self.assertTrue(400 <= kind.status < 600, kind)
            self.assertIsInstance(kind.streamCode, Code)
            self.assertNotEqual(Code.NO_ERROR, kind.streamCode, kind)
            self.assertTrue(0 < kind.exitCode < 128, kind)

    def test_everyErrorSaysWhatItIsAbout(self) -> None:
        self.assertEqual([], [kind for kind in allErrors() if not (kind.__doc__ or "").strip()])


class NumberTests(SynchronousTestCase):
    """Numbers on the wire keep their meaning for ever; docs/protocol.rst lists them."""

    def test_theStreamCodesAreThese(self) -> None:
        self.assertEqual(
            {
                "NO_ERROR": 0,
                "ABORTED": 1,
                "MALFORMED": 2,
                "DENIED": 3,
                "UNRESOLVED": 4,
                "REFUSED": 5,
                "UNREACHABLE": 6,
                "TIMED_OUT": 7,
                "LIMIT": 8,
                "SHUTDOWN": 9,
                "SUPERSEDED": 10,
                "VERIFIER_FAULT": 11,
                "INTERNAL": 12,
            },
            {code.name: int(code) for code in Code},
        )


class TextTests(SynchronousTestCase):
    """Errors that make their own text, or carry more than one."""

    def test_theOriginalsTextsAreKept(self) -> None:
        self.assertEqual("No QUIC connection exists for the specified UID.", NoSuchSession("x").originalText)
        self.assertEqual(("Task 18080 not found", 18080), (NoSuchPort(18080).originalText, NoSuchPort(18080).port))

    def test_peopleReadOurs(self) -> None:
        self.assertEqual("no connector with the uid x is here", str(NoSuchSession("x")))
        self.assertEqual("port 18080 isn't open", str(NoSuchPort(18080)))
        self.assertEqual("so", PortDenied("so").originalText)

    def test_aResetSaysItsCode(self) -> None:
        self.assertEqual("the stream was reset with code 0x1234", str(StreamReset(0x1234)))
        self.assertEqual("the stream was reset: refused", str(StreamReset(Code.REFUSED)))
        self.assertIn("the TCP connection of the other end broke", str(StreamReset(Code.ABORTED)))
        for code in Code:
            self.assertNotIn("0x", str(StreamReset(code)))
        self.assertEqual(("so", 5), (str(StreamReset(5, "so")), StreamReset(5, "so").errorCode))

    def test_aLostSessionSaysWhoClosedItAndHow(self) -> None:
        lost = SessionLost("closed", 9, fromPeer=True)
        self.assertEqual(("closed", 9, True), (str(lost), lost.errorCode, lost.fromPeer))
        self.assertIsNone(SessionLost("timed out").errorCode)

    def test_aRejectedCertificateCarriesItsAlert(self) -> None:
        self.assertEqual(44, CertificateRejected("revoked", 44).alert)
