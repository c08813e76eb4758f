"""
Bridges over QUIC, on a network that loses, and TCP connections that end in any order: the state machine of
`tests.test_bridge` with the carrier's own streams.
"""

from collections.abc import Sequence
from random import Random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.errors import Code
from socketwarp.interfaces import Piece

from ..fake_tcp import FakeReactor, connect
from ..test_bridge import AnyOrder, Tunnel
from .net import NetworkCase

#: Seconds that a reader leaves between two reads, and without a byte after which nothing more comes: some probes of a
#: sender that backs off.
READ_SECONDS, STILL_SECONDS = 0.05, 8.0
#: After these the other end of a session knows of its end, even when nothing arrives: its idle time-out.
LOST_SECONDS = 65.0


class FirstByte:
    """Takes the byte off that made the stream known to the other end (see `wire.cutting.Parser`)."""

    def feed(self, pieces: Sequence[Piece]) -> tuple[None, list[Piece]] | None:
        """Bytes follow, or wait with it."""
        if not pieces:
            return None
        rest = pieces[0][1:]
        return None, [*([rest] if rest else []), *pieces[1:]]


class _Network(NetworkCase):
    """No test itself."""

    def runTest(self) -> None:
        """Nothing."""

    def newClock(self) -> Clock:
        return FakeReactor()


class LossyTunnel(Tunnel):
    """A `Tunnel` whose stream is QUIC's."""

    reactor: FakeReactor

    def __init__(self, loss: float, seed: int) -> None:
        case = _Network("runTest")
        case.setUp()
        self.network = case.network
        assert isinstance(case.clock, FakeReactor)
        self.reactor = case.clock
        self.client, self.server = case.connect()
        near, far = case.open(self.client, self.server)
        self.stream, self.farStream = near, far  # type: ignore[assignment]  # true ones
        self.makeBridges()
        chance = Random(seed)
        self.network.passes = lambda port, datagram: chance.random() >= loss

    def pump(self) -> None:
        still = 0.0
        while still < STILL_SECONDS:
            before = len(self.visitor.received) + len(self.target.received)
            self.network.run(READ_SECONDS)
            self.visitor.remoteReads()
            self.target.remoteReads()
            arrived = len(self.visitor.received) + len(self.target.received) > before
            still = 0.0 if arrived else still + READ_SECONDS
        if not self.server.isOpen:
            self.network.run(LOST_SECONDS)

    def leftovers(self) -> list[Any]:
        self.network.passes = lambda port, datagram: True
        self.network.run(READ_SECONDS)
        if self.server.isOpen:
            assert [each.statistics().streams for each in (self.client, self.server)] == [0, 0]
        self.server.close(Code.NO_ERROR, "")
        self.network.run(100)
        return super().leftovers()


class BridgedAnyOrder(AnyOrder):
    """See `AnyOrder`."""

    tunnel: LossyTunnel

    @initialize(loss=st.sampled_from([0.0, 0.03, 0.15]), seed=st.integers(0, 100))
    def begin(self, loss: float, seed: int) -> None:
        self.tunnel = LossyTunnel(loss, seed)
        self.tunnel.visitor = connect(self.tunnel.reactor, self.tunnel.near)
        self.sent = {"visitor": 0, "target": 0}
        self.finished: set[str] = set()
        self.broken = False
        self.nearJoined = self.farJoined = self.dialled = False

    @precondition(lambda self: not self.farJoined)
    @rule()
    def accept(self) -> None:
        self.farJoined = True
        self.tunnel.far.join(self.tunnel.farStream, FirstByte(), self.tunnel.parsed.append)

    @rule(turns=st.sampled_from([1, 2, 50]))
    def turn(self, turns: int) -> None:
        self.tunnel.network.run(turns * 0.003)

    @rule()
    def loseSession(self) -> None:
        self.tunnel.server.close(Code.NO_ERROR, "gone")
        self.broken = True


class BridgedTests(SynchronousTestCase):
    """`BridgedAnyOrder`, as a test."""

    def test_underLossAndInAnyOrderNothingIsLostInventedOrLeft(self) -> None:
        steps = settings(max_examples=100, stateful_step_count=40, deadline=None)
        run_state_machine_as_test(BridgedAnyOrder, settings=steps)
