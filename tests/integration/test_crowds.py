"""Many visitors and strangers at a time, and one after the other; ``make torture`` has more of them."""

from .crowds import CrowdCase


class QuicTests(CrowdCase):
    """Over QUIC."""

    def test_idleConnectionsCostLittle(self) -> None:
        self.stayIdle(2000)

    def test_visitorsLeaveNothingBehind(self) -> None:
        self.leaveNothing(2000, 4000)

    def test_strangersAreHeardWithoutHarm(self) -> None:
        self.hearNoise(20_000, 10_000)


class TlsTests(CrowdCase):
    """Over TLS."""

    carrier = "tls"

    def test_visitorsLeaveNothingBehind(self) -> None:
        self.leaveNothing(2000, 4000)
