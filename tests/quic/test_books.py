"""
What a connection counts, added up anew from what it holds, after every step of an application over bad networks.

`test_differential` sees what comes out; a byte counted twice, or never given back, comes out only when a window has
shrunk to nothing.
"""

from itertools import pairwise
from typing import Any

from hypothesis import HealthCheck, given, settings
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.quic.engine import Engine
from socketwarp.quic.flight import Bundle, Flight, Segment
from socketwarp.quic.streams import StreamState

from .test_differential import Run, Step, networks, steps


def segments(engine: Engine) -> list[tuple[StreamState, Segment]]:
    """What is in flight, of which stream."""
    found: list[Any] = []
    for run in engine.recovery._sent[engine.oneRtt]:
        if isinstance(run, Flight):
            found.append((run.stream, run.segment))
        elif isinstance(run, Bundle):
            found += run._parts
    return found


class BookTests(SynchronousTestCase):
    def checkRecovery(self, engine: Engine) -> None:
        recovery, space = engine.recovery, engine.oneRtt
        runs = list(recovery._sent[space])
        self.assertEqual(sum(run.size for run in runs if run.isInFlight), recovery.bytes_in_flight)
        self.assertEqual(
            sum(run.last - run.first + 1 for run in runs if run.isAckEliciting), space.ack_eliciting_in_flight
        )
        self.assertTrue(all(one.last < other.first for one, other in pairwise(runs)))
        for run in runs:
            if isinstance(run, Flight):
                count = run.segment.packets(run.packetSize)
                self.assertEqual(run.last - run.first + 1, count)
                self.assertEqual(run.size, len(run.segment.data) + count * run.overhead)

    def checkStreams(self, engine: Engine, known: set[StreamState]) -> None:
        """`known`: all streams that there have ever been."""
        streams = engine.streams
        self.assertEqual(sum(state.sending.sent for state in known), streams.dataSent)
        self.assertEqual(sum(state.receiving.highest for state in known), streams._received)
        self.assertEqual(sum(state.consumed for state in known), streams._consumed)
        self.assertEqual(sum(state.held for state in known), streams._held)
        self.assertTrue(streams.dataSent <= streams.peerMaxData and streams._received <= streams.maxData)
        flying = segments(engine)
        credit = streams.peerMaxData - streams.dataSent
        for state in known:
            sending = state.sending
            if sending.resetCode is None:
                lost = sum(len(each.data) for each in sending._lost or ())
                inFlight = sum(len(each.data) for owner, each in flying if owner is state)
                self.assertEqual(inFlight + lost, sending.unacknowledged)
                self.assertEqual(sending.sent, sending.unacknowledged + sending.acknowledged)
            self.assertTrue(sending.sent <= sending.limit and state.receiving.highest <= state.granted)
            self.assertEqual(state.isQueued, state in streams.sendable)
            if sending.hasWork(credit):
                self.assertTrue(state.isQueued, "nobody will ever send it")
            elif sending.unsentBytes and sending.sent < sending.limit:
                self.assertTrue(state.isQueued or state in streams._starved, "nobody will hear of more credit")

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(steps, networks)
    def test_countsAreWhatTheyCount(self, plan: list[Step], network: dict[str, Any]) -> None:
        run = Run("both", network)
        known: dict[Engine, set[StreamState]] = {}

        def check() -> None:
            for engine in (run.pump.client, run.pump.server):
                assert isinstance(engine, Engine)
                mine = known.setdefault(engine, set())
                mine |= set(engine.streams.states.values())
                mine |= set(engine.streams.touched)
                self.checkRecovery(engine)
                self.checkStreams(engine, mine)

        read = run.pump.onStep

        def step() -> None:
            check()
            read()
            check()

        run.pump.onStep = step
        for each in (Step("open", True, 0, 0), Step("open", False, 0, 0), *plan):
            run.do(each)
            check()
        run.end()
        for engine, states in known.items():
            self.assertEqual((0, {}, {}), (engine.recovery.bytes_in_flight, engine.streams.states, engine.streams.due))
            self.assertEqual(sum(state.receiving.highest for state in states), engine.streams._consumed)
