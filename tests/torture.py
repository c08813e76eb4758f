"""The long fault tests: ``make torture``. What they repeat is run a few times by ``make test``, too."""

from tests.integration.crowds import CrowdCase
from tests.integration.kills import KillCase


class KillTests(KillCase):
    """The listener dies under load."""

    def test_afterAHundredKillsAllWishedPortsAreOpenAndNoOthers(self) -> None:
        for seed in range(100):
            self.kill(seed)
        self.assertLess(0, self.carried)


class QuicCrowdTests(CrowdCase):
    """Many visitors and strangers, over QUIC."""

    def test_tenThousandIdleConnections(self) -> None:
        self.stayIdle(10_000)

    def test_aHundredThousandVisitorsLeaveNothingBehind(self) -> None:
        self.leaveNothing(100_000, 5000)

    def test_aMillionDatagramsOfStrangersDoNoHarm(self) -> None:
        self.hearNoise(1_000_000, 20_000)


class TlsCrowdTests(CrowdCase):
    """The same over TLS."""

    carrier = "tls"

    def test_aHundredThousandVisitorsLeaveNothingBehind(self) -> None:
        self.leaveNothing(100_000, 5000)
