"""The promises of every carrier, kept by QUIC: see `tests.carriers`."""

from functools import partial
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from ..carriers import Ends, SessionPromises, StreamPromises, runAnyOrder
from .net import NetworkCase


class _Maker(NetworkCase):
    """A `NetworkCase` that is no test itself."""

    def runTest(self) -> None:
        """Nothing."""


def makeEnds(loss: float = 0.0) -> Ends:
    """Over a network that loses this share of all datagrams, but for `Ends.wait` and what follows it."""
    case = _Maker("runTest")
    case.setUp()
    client, server = case.connect()
    case.network.run(1)
    chance = Random(1)
    case.network.passes = lambda port, datagram: chance.random() >= loss

    def settle() -> None:
        case.network.run(20 if loss else 1)

    def wait(seconds: float) -> None:
        if loss:
            case.network.passes = lambda port, datagram: True
        case.network.run(seconds)

    def cut() -> None:
        case.network.passes = lambda port, datagram: False

    def over() -> None:
        assert case.clock.getDelayedCalls() == [], case.clock.getDelayedCalls()
        assert case.server._sessions == {}

    return Ends(server, client, settle, wait, cut, over)


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

    def test_streamsInAnyOrderOverANetworkThatLosesATenth(self) -> None:
        runAnyOrder(partial(makeEnds, 0.1), 25)
