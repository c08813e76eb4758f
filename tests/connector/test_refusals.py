"""The reasons in words."""

from twisted.trial.unittest import SynchronousTestCase

from socketwarp.connector.refusals import explain
from socketwarp.errors import Code, SessionLost


class Explaining(SynchronousTestCase):
    """Who refused whom, why, and the other end's own words."""

    def test_alertsFromTheListenerAreAboutOurCertificate(self) -> None:
        """TLS alerts come as transport errors from 0x100 on."""
        line = explain(SessionLost("closed", 0x100 + 45, fromPeer=True))
        self.assertEqual(
            line,
            "the listener refused us: our certificate has expired or isn't valid yet (TLS alert 45): closed",
        )
        self.assertIn("isn't signed by a CA", explain(SessionLost("x", 0x130, fromPeer=True)))

    def test_alertsOfOursAreAboutTheListeners(self) -> None:
        """We checked it."""
        line = explain(SessionLost("names other.example.net", 0x100 + 42))
        self.assertIn("we refused the listener: its certificate isn't acceptable", line)
        self.assertIn("names other.example.net", line)

    def test_otherAlerts(self) -> None:
        """Known or not, the number is there."""
        self.assertIn("no common protocol (ALPN)", explain(SessionLost("x", 0x178, fromPeer=True)))
        self.assertEqual(explain(SessionLost("x", 0x1FF)), "we refused the listener: TLS failed (TLS alert 255): x")

    def test_codesOfOurs(self) -> None:
        """With the reason that the listener gave."""
        line = explain(SessionLost("User Not Found", Code.DENIED, fromPeer=True))
        self.assertEqual(line, "the listener's verifier refuses our certificate: User Not Found")
        self.assertIn("took over", explain(SessionLost("x", Code.SUPERSEDED, fromPeer=True)))

    def test_everythingElseSpeaksForItself(self) -> None:
        """Time-outs, transport errors, our own closes, the system's errors."""
        self.assertEqual(explain(SessionLost("nothing came for 60 s")), "nothing came for 60 s")
        self.assertEqual(explain(SessionLost("flow control", 0x3, fromPeer=False)), "flow control")
        self.assertEqual(explain(SessionLost("odd", 0x77, fromPeer=True)), "odd")
        self.assertEqual(explain(OSError("no route")), "no route")
        self.assertEqual(explain(OSError(113, "No route to host")), "No route to host")
        self.assertEqual(explain(ValueError()), "ValueError")
