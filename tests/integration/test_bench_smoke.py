"""The benchmark, gone through for a moment; ``make bench-smoke`` does so with every part."""

import contextlib
import json
import socket
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.figures import GOALS
from benchmarks.relay import DELAY, LONGEST, Direction
from benchmarks.report import Results, notes

ROOT = Path(__file__).parent.parent.parent
#: What needs nothing but this package: no sshd, no web server, no root.
TUNNELS = ("socketwarp", "socketwarp-tls")
PART = ("--smoke", "--network", "loopback", "--only", ",".join(("direct", *TUNNELS)), "--measure", "rtt,stream,idle")


class BenchSmokeTests(SynchronousTestCase):
    """``python -m benchmarks --smoke``."""

    def test_aSmokeRunMovesTheRightBytesAndGivesEveryFigure(self) -> None:
        """It says so, with status 0; how fast anything is doesn't matter."""
        output = Path(self.mktemp())
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks", *PART, "--output", str(output.absolute())],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)
        self.assertIn("Every part works.", done.stdout)
        samples = json.loads((output / "loopback.json").read_text())["samples"]
        for tunnel in TUNNELS:
            for figure in ("stream.in", "stream.out", "rtt.p50", "idle.memory", "start"):
                self.assertIn(figure, samples[tunnel])
        table = (output / "table.rst").read_text()
        self.assertIn("one stream in", table)
        self.assertIn("- socketwarp (TLS)\n     - memory of an idle connection\n     - ≤ 60 kB\n", table)

    def test_anUnknownNameIsRefusedWithThoseThatThereAre(self) -> None:
        """Rather than measuring something else for half an hour."""
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks", "--only", "sssh"], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        self.assertEqual(2, done.returncode)
        self.assertIn("socketwarp", done.stderr)


class GoalTests(SynchronousTestCase):
    """`benchmarks.figures.GOALS`."""

    def test_aGoalIsMeasuredByItsOwnTunnel(self) -> None:
        """And not by the other carrier's figures."""
        found = {"ssh": {"stream.in": 100.0}, "socketwarp": {"stream.in": 90.0}, "socketwarp-tls": {"stream.in": 130.0}}
        goals = [each for each in GOALS if (each.network, each.figure) == ("loopback", "stream.in")]
        self.assertEqual(
            [("socketwarp", 0.9, False), ("socketwarp-tls", 1.3, True)],
            [(each.tunnel, ratio, each.reached(ratio)) for each in goals if (ratio := each.ratio(found))],
        )


class NotesTests(SynchronousTestCase):
    """What stands below a table."""

    def test_whatANetworkLeavesOutIsSaid(self) -> None:
        """An empty cell, or a row that isn't there, has a reason."""
        results = Results("shaped", "a link", "2000-01-01", 1, 1.0, 1000, absent={"chisel": "chisel not found"})
        *_, absent, left = notes(results)
        self.assertEqual("Not measured: chisel: chisel not found.", absent)
        self.assertEqual(
            "Not taken on this network: 8 streams, new connections, HTTP requests, idle connections.", left
        )


class RelayTests(SynchronousTestCase):
    """`benchmarks.relay.Direction`, between sockets instead of devices."""

    def relay(self, loss: float) -> tuple[socket.socket, Direction, socket.socket]:
        """Where packets come from, what relays them, and where they go."""
        kind = socket.AF_UNIX, socket.SOCK_DGRAM
        ends = [*socket.socketpair(*kind), *socket.socketpair(*kind)]
        for each in ends:
            each.setblocking(False)
            self.addCleanup(each.close)
        return ends[0], Direction(ends[1].fileno(), ends[2].fileno(), loss, seed=1), ends[3]

    def test_aPacketGoesOnWhenItsDelayIsOver(self) -> None:
        """Not before; and the relay knows how long it may wait for that."""
        sender, direction, receiver = self.relay(loss=0)
        sender.send(b"packet")
        direction.take(100.0)
        self.assertAlmostEqual(DELAY / 2, direction.give(100.0 + DELAY / 2))
        self.assertRaises(BlockingIOError, receiver.recv, 100)
        direction.give(100.0 + DELAY)
        self.assertEqual(b"packet", receiver.recv(100))

    def fates(self) -> list[bool]:
        """Which packets of many arrive, when half of them are lost."""
        sender, direction, receiver = self.relay(loss=0.5)
        arrived = []
        for number in range(100):
            sender.send(b"packet")
            direction.take(number)
            direction.give(number + 0.5)
            try:
                arrived.append(bool(receiver.recv(100)))
            except BlockingIOError:
                arrived.append(False)
        return arrived

    def test_thePacketsThatAreLostAreTheSameInEveryRun(self) -> None:
        """About as many as there shall be."""
        self.assertEqual(self.fates(), self.fates())
        self.assertTrue(30 < sum(self.fates()) < 70)

    def test_soManyPacketsWaitAtMost(self) -> None:
        """Those beyond them are dropped, so that no sender fills the memory."""
        sender, direction, receiver = self.relay(loss=0)
        for second in range(LONGEST + 2):
            sender.send(str(second).encode())
            direction.take(second - DELAY)
        arrived = []
        with contextlib.suppress(BlockingIOError):
            for second in range(LONGEST + 2):
                direction.give(second)
                arrived.append(int(receiver.recv(100)))
        self.assertEqual(list(range(LONGEST)), arrived)
