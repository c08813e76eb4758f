"""
The same application does the same things over the same bad network, once on an `Engine` and once on plain aioquic; the
peer is plain aioquic both times, or an `Engine` the one time and plain aioquic the other. What is delivered, how
streams end and how connections stand must be the same.
"""

import random
from typing import Any, Literal

import attrs
from aioquic.quic.connection import QuicConnection
from aioquic.tls import Epoch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.quic.windows import Limits

from ..pump import CLIENT, Path, Pump, newClient, newServer
from .apps import App, apps

LIMITS = Limits(streamWindow=20_000, sessionWindow=2_000_000, streams=128)
FIELDS: dict[str, Any] = {"max_data": LIMITS.sessionWindow, "max_stream_data": LIMITS.streamWindow}
SOURCE = random.Random(9).randbytes(200_000)

MTUS = (1200, 1500, 9000)


@attrs.frozen
class Step:
    """
    One thing that an application does.

    :ivar isClient: whose application; ``stream`` counts all streams opened so far, modulo.
    :ivar size: bytes to write, or tenths of milliseconds to let pass, or what chooses the path's MTU.
    """

    action: Literal["open", "write", "finish", "reset", "stop", "wait", "deaf", "hear", "move", "keys", "resize"]
    isClient: bool
    stream: int
    size: int


steps = st.lists(
    st.builds(
        Step,
        st.sampled_from(
            [
                "open",
                "open",
                "write",
                "write",
                "write",
                "finish",
                "finish",
                "reset",
                "stop",
                "wait",
                "wait",
                "deaf",
                "hear",
                "move",
                "keys",
                "resize",
            ]
        ),
        st.booleans(),
        st.integers(0, 7),
        st.sampled_from([0, 1, 7, 1150, 1200, 5000, 20_000, 40_000, 60_000]),
    ),
    min_size=6,
    max_size=40,
)
networks: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    delay=st.sampled_from([0.0005, 0.01, 0.05]),
    loss=st.sampled_from([0.0, 0.0, 0.02, 0.15]),
    duplication=st.sampled_from([0.0, 0.05]),
    jitter=st.sampled_from([0.0, 0.002, 0.04]),
    seed=st.integers(0, 1000),
    mtu=st.sampled_from(MTUS),
)


@attrs.frozen
class Half:
    """How one direction of a stream ended: by FIN with these bytes, or given up by somebody."""

    end: Literal["fin", "aborted"]
    data: bytes = attrs.field(repr=lambda data: str(len(data)))


class Run:
    """One run; `ours` is the side that has the engine, ``both`` or ``none``."""

    def __init__(self, ours: str, network: dict[str, Any]) -> None:
        client = newClient(ours in ("client", "both"), LIMITS, **FIELDS)
        self.pump = Pump(client, newServer(client, ours in ("server", "both"), LIMITS, **FIELDS), Path())
        self.pump.connect()
        self.pump.path = Path(**network)
        self.client, self.server = apps(self.pump)
        self.streams: list[int] = []
        self.written: dict[tuple[int, bool], bytearray] = {}
        self.finished: set[tuple[int, bool]] = set()
        self.aborted: set[tuple[int, bool]] = set()

    def app(self, isClient: bool) -> App:
        return self.client if isClient else self.server

    def do(self, step: Step) -> None:
        if step.action == "wait":
            self.pump.run(step.size / 10_000)
        elif step.action == "move":
            self.move((CLIENT[0], 41_000 + step.size % 50))
        elif step.action == "resize":
            self.pump.path.mtu = MTUS[step.size % len(MTUS)]
        elif step.action == "keys":
            self.updateKeys(self.pump.client if step.isClient else self.pump.server)
        elif step.action == "open":
            number = self.app(step.isClient).open()
            self.streams.append(number)
            self.written |= {(number, True): bytearray(), (number, False): bytearray()}
            self.write(number, step.isClient, 1)
            assert self.pump.run(30, lambda: bool(self.app(not step.isClient).received[number])), "it never opened"
        elif self.streams:
            self.doOnStream(step, self.streams[step.stream % len(self.streams)])

    def move(self, address: tuple[str, int]) -> None:
        """
        The client is somewhere else from now on, in mid-transfer.

        It sends PING until it is found, as a session's keep-alive does: aioquic's server gives up when the one answer
        to its one challenge is lost. And no keys are updated meanwhile: after an update, aioquic reads nothing under
        the old ones.
        """
        self.pump.clientAddress = address
        for _ in range(20):
            self.pump.client.send_ping(0)
            if self.pump.run(1, lambda: self.isFoundAt(address)):
                return
        raise AssertionError("the client got lost")

    def isFoundAt(self, address: tuple[str, int]) -> bool:
        path = self.pump.server._network_paths[0]
        return path.addr == address and path.is_validated

    def updateKeys(self, connection: QuicConnection) -> None:
        """An update, and the acknowledgement that must come before the next one (RFC 9001 §6.1)."""
        ends = [each._cryptos[Epoch.ONE_RTT] for each in (self.pump.client, self.pump.server)]
        phase = 1 - ends[0].send.key_phase
        connection.request_key_update()
        connection.send_ping(0)
        assert self.pump.run(30, lambda: all(each.send.key_phase == phase for each in ends)), "no update"
        self.pump.run(1)

    def doOnStream(self, step: Step, number: int) -> None:
        app, direction = self.app(step.isClient), (number, step.isClient)
        if step.action == "write" and direction not in self.finished | self.aborted:
            self.write(number, step.isClient, step.size)
        elif step.action == "finish" and direction not in self.aborted:
            self.finished.add(direction)
            app.finish(number)
        elif step.action == "reset" and direction not in self.finished | self.aborted:
            self.aborted.add(direction)
            app.reset(number, 5)
        elif step.action == "stop" and (number, not step.isClient) not in self.finished | self.aborted:
            self.aborted.add((number, not step.isClient))
            app.stop(number, 6)
        elif step.action == "deaf":
            app.unread.add(number)
        elif step.action == "hear":
            app.unread.discard(number)

    def write(self, number: int, isClient: bool, size: int) -> None:
        written = self.written[number, isClient]
        data = SOURCE[number * 13 + len(written) :][:size]
        self.app(isClient).write(number, data)
        written += data

    def end(self) -> dict[tuple[int, bool], Half]:
        """Finish what is open, hear everything, and wait until all has arrived."""
        for app in (self.client, self.server):
            app.unread.clear()
        for number, isClient in self.written:
            if (number, isClient) not in self.finished | self.aborted:
                self.finished.add((number, isClient))
                self.app(isClient).finish(number)
        self.pump.path.loss = min(self.pump.path.loss, 0.05)
        done = self.pump.run(
            200, lambda: all(number in self.app(not isClient).ended for number, isClient in self.finished)
        )
        assert done, "it never ended"
        self.pump.run(20)
        return {direction: self.half(*direction) for direction in self.written}

    def half(self, number: int, isClient: bool) -> Half:
        reader = self.app(not isClient)
        got, written = bytes(reader.received[number]), bytes(self.written[number, isClient])
        if (number, isClient) in self.finished:
            assert number not in reader.resets
            return Half("fin", got)
        assert written.startswith(got), "bytes that were never written"
        if (number, isClient) in self.aborted and number in reader.ended:
            assert got == written, "a clean end before the last byte"
        return Half("aborted", b"")


class DifferentialTests(SynchronousTestCase):
    def compare(self, ours: str, plan: list[Step], network: dict[str, Any]) -> None:
        results = []
        for side in (ours, "none"):
            run = Run(side, network)
            for step in (Step("open", True, 0, 0), Step("open", False, 0, 0), *plan):
                run.do(step)
            results.append(run.end())
            for connection in (run.pump.client, run.pump.server):
                self.assertIsNone(connection._close_event, side)
            for direction in run.finished:
                self.assertEqual(bytes(run.written[direction]), results[-1][direction].data)
        self.assertEqual(results[1], results[0])

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(steps, networks)
    def test_aServerOfOursDoesAsAioquicWould(self, plan: list[Step], network: dict[str, Any]) -> None:
        self.compare("server", plan, network)

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(steps, networks)
    def test_aClientOfOursDoesAsAioquicWould(self, plan: list[Step], network: dict[str, Any]) -> None:
        self.compare("client", plan, network)

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(steps, networks)
    def test_twoOfOursDoAsTwoOfAioquicsWould(self, plan: list[Step], network: dict[str, Any]) -> None:
        """Here whole flights are opened as one run, which only we send as `receive` expects them."""
        self.compare("both", plan, network)
