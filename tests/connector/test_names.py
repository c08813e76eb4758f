"""Names to addresses."""

from ipaddress import ip_address

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.connector.names import place, resolve
from tests.connector.fakes import FakeResolver


class Resolving(SynchronousTestCase):
    """One question, all answers."""

    def setUp(self) -> None:
        self.resolver = FakeResolver()

    def test_addressesNeedNoResolver(self) -> None:
        """They are their own answer."""
        found = self.successResultOf(resolve(self.resolver, "::1", 80, "TCP"))
        self.assertEqual((found, self.resolver.asked), ([ip_address("::1")], []))

    def test_orderIsKeptAndRepetitionIsNot(self) -> None:
        """The resolver knows the host's preference (RFC 6724); getaddrinfo may repeat itself."""
        self.resolver.table["name"] = ["2001:db8::1", "192.0.2.1", "2001:db8::1"]
        found = self.successResultOf(resolve(self.resolver, "name", 80, "UDP"))
        self.assertEqual(list(map(str, found)), ["2001:db8::1", "192.0.2.1"])
        self.assertEqual(self.resolver.asked, [("name", 80, "UDP")])

    def test_unknownNamesHaveNoAddress(self) -> None:
        """That is an answer, too."""
        self.assertEqual(self.successResultOf(resolve(self.resolver, "unknown", 80, "TCP")), [])

    def test_impossibleNamesAreNotAsked(self) -> None:
        """The resolver would fail where nobody hears it."""
        for name in ("a" * 64, "a..b", "."):
            self.assertEqual(self.successResultOf(resolve(self.resolver, name, 80, "TCP")), [])
        self.assertEqual(self.resolver.asked, [])

    def test_lateAnswersAreDropped(self) -> None:
        """Whoever has given up hears nothing more."""
        self.resolver.table["slow"] = None
        answer = resolve(self.resolver, "slow", 80, "TCP")
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.resolver.answer(self.resolver.unanswered[0], ["192.0.2.1"])


class Places(SynchronousTestCase):
    """Host and port for people."""

    def test_bracketsForIpv6(self) -> None:
        """And for nothing else."""
        self.assertEqual([place("::1", 80), place("name", 80), place(ip_address("fe80::1"), 1)],
                         ["[::1]:80", "name:80", "[fe80::1]:1"])  # fmt: skip
