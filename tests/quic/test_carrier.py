"""The promises of every carrier, kept by QUIC: see `tests.carriers`."""

from twisted.trial.unittest import SynchronousTestCase

from ..carriers import Ends, SessionPromises, StreamPromises, runAnyOrder
from .net import NetworkCase


class _Maker(NetworkCase):
    """A `NetworkCase` that is no test itself."""

    def runTest(self) -> None:
        """Nothing."""


def makeEnds() -> Ends:
    case = _Maker("runTest")
    case.setUp()
    client, server = case.connect()
    case.network.run(1)

    def cut() -> None:
        case.network.passes = lambda port, datagram: False

    def over() -> None:
        assert case.clock.getDelayedCalls() == [], case.clock.getDelayedCalls()
        assert case.server._sessions == {}

    return Ends(server, client, lambda: settle(case), lambda seconds: wait(case, seconds), cut, over)


def settle(case: NetworkCase) -> None:
    """Everything arrives, and is acknowledged."""
    case.network.run(1)


def wait(case: NetworkCase, seconds: float) -> None:
    case.network.run(seconds)


class QuicSessionTests(SessionPromises, SynchronousTestCase):
    carrier = "quic"

    def newEnds(self) -> Ends:
        return makeEnds()


class QuicStreamTests(StreamPromises, SynchronousTestCase):
    carrier = "quic"

    def newEnds(self) -> Ends:
        return makeEnds()


class AnyOrderTests(SynchronousTestCase):
    def test_streamsInAnyOrder(self) -> None:
        runAnyOrder(makeEnds, 40)
