"""Sessions that follow one another, and ends that leave: real processes, and visitors who shall not notice."""

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from signal import SIGHUP, SIGKILL, SIGTERM

from tests.certs import Authority

from .processes import PATIENCE, OverTls, Process, TunnelCase, readToEnd, receive

#: Bytes of a transfer that others happen during, and the pause between its pieces: some 3 seconds.
PIECE, PIECES = os.urandom(64 << 10), 96


class SessionCase(TunnelCase):
    """A listener, a connector, a port and a transfer through it."""

    def setUp(self) -> None:
        super().setUp()
        self.startBoth()
        self.server = self.listen()
        self.port = self.entrance(self.server)
        self.threads = ThreadPoolExecutor(4)
        self.addCleanup(self.threads.shutdown)

    def transfer(self) -> tuple[Callable[[], None], "Future[str]"]:
        """A transfer that has begun: what ends it, and the checksum of what arrives."""
        visitor, target = self.pair(self.server, self.port)
        for _ in range(PIECES):
            visitor.sendall(PIECE)

        def finish() -> None:
            for _ in range(PIECES):
                visitor.sendall(PIECE)
            visitor.shutdown(socket.SHUT_WR)
            self.assertEqual(b"", receive(visitor, 1))

        def arrive() -> str:
            checksum = hashlib.sha256()
            while piece := target.recv(1 << 20):
                checksum.update(piece)
            target.close()
            return checksum.hexdigest()

        return finish, self.threads.submit(arrive)

    def slowTarget(self) -> Callable[[], int]:
        """
        A target that has said all it has to say, and a visitor who has sent everything and gone, while not all of it
        has been taken: what takes the rest, and counts all bytes.
        """
        visitor, target = self.pair(self.server, self.port)
        target.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, len(PIECE))
        target.shutdown(socket.SHUT_WR)

        def send() -> None:
            with visitor:
                for _ in range(PIECES):
                    visitor.sendall(PIECE)
                visitor.shutdown(socket.SHUT_WR)
                self.assertEqual(b"", receive(visitor, 1))

        sent, taken = self.threads.submit(send), 0
        while json.loads(self.call("GET", "/v1/connections")[1])["connections"]:
            taken += len(receive(target, len(PIECE)))
        sent.result(PATIENCE)

        def finish() -> int:
            rest = readToEnd(target)
            assert isinstance(rest, bytes), rest
            target.close()
            return taken + len(rest)

        return finish

    def assertWhole(self, transfer: "Future[str]") -> None:
        """All bytes have arrived."""
        self.assertEqual(hashlib.sha256(PIECE * (2 * PIECES)).hexdigest(), transfer.result(PATIENCE))


class TakeoverTests(SessionCase):
    """Two connectors with one uid."""

    def test_theNewerTakesThePortsAndTheOlderStaysAway(self) -> None:
        visitor, target = self.pair(self.server, self.port)
        older = self.connector
        self.startConnector()
        self.listener.waitFor("connector uid-1", "gives way")
        self.listener.waitFor("connector uid-1 connected")
        self.assertEcho(self.server, self.port)
        self.assertEqual(("reset", "reset"), (readToEnd(visitor), readToEnd(target)))
        older.waitFor("another connector with our uid took over", "next attempt in 1.0 s")
        # When it asks again, the newer one is still there, and stays.
        older.waitFor("another connector that took over the uid uid-1 is still here", "next attempt")
        self.listener.waitFor("refused", "another connector that took over the uid uid-1 is still here")
        self.assertEcho(self.server, self.port)
        self.assertEnds(self.connector)
        older.waitFor("connected to")
        self.assertEcho(self.server, self.port)

    def test_whoSharesAUidIsThereBesideTheOthers(self) -> None:
        self.assertEnds(self.connector, self.listener)
        self.environment["SWL_SHARED_UIDS"] = "uid-1"
        self.startBoth()
        first = self.connector
        self.startConnector()
        self.listener.waitFor("connector uid-1 connected")
        pairs = [self.pair(self.server, self.port) for _ in range(4)]
        first.end(SIGKILL)
        for connection in (connection for pair in pairs for connection in pair):
            connection.close()
        self.assertEnds(self.connector)
        carried = self.connector.lines
        self.assertEqual(2, sum("bytes in" in line for line in carried), carried)


class StreamLimitTests(SessionCase):
    """A connector that takes two visitors at a time."""

    def startBoth(self) -> None:
        """With the limit."""
        self.environment["SWC_STREAM_LIMIT"] = "2"
        super().startBoth()

    def test_whoComesAtTheLimitWaitsAndIsServedWhenAnotherLeaves(self) -> None:
        (visitor, target), _ = [self.pair(self.server, self.port) for _ in range(2)]
        patient = self.visit(self.port)
        self.assertEqual("reset", readToEnd(patient))
        self.listener.waitFor("refused", "took no further stream within")
        patient = self.visit(self.port)
        patient.sendall(b"hello")
        visitor.close()
        target.close()
        self.assertEqual(b"hello", receive(self.accept(self.server), 5))


class DrainTests(SessionCase):
    """SIGTERM while a transfer runs."""

    def startBoth(self) -> None:
        """Unless the test says so, the time for draining doesn't end before the test does."""
        self.environment = {"SWL_DRAIN_SECONDS": "600", "SWC_DRAIN_SECONDS": "600", **self.environment}
        super().startBoth()

    def drained(self, process: Process, sign: str) -> None:
        finish, transfer = self.transfer()
        process.send(SIGTERM)
        self.connector.waitFor(sign) if process is self.listener else self.listener.waitFor(sign)
        finish()
        self.assertWhole(transfer)
        self.assertEqual((0, []), (process.wait(), process.stderr))

    def test_aListenerLetsItFinish(self) -> None:
        self.drained(self.listener, "the listener stops (goaway)")
        self.assertRaises(ConnectionRefusedError, self.visit, self.port)

    def test_meanwhileTheApiShowsWhoIsThereAndEndsThem(self) -> None:
        visitor, target = self.pair(self.server, self.port)
        self.listener.send(SIGTERM)
        self.connector.waitFor("the listener stops (goaway)")
        status, text = self.call("GET", "/ready")
        self.assertEqual((503, "the listener stops"), (status, json.loads(text)["reasons"][0]))
        status, text = self.call("PUT", "/v1/ports/0", {"uid": "uid-1", "target_host": "127.0.0.1", "target_port": 80})
        self.assertEqual((503, "port-closed"), (status, json.loads(text)["code"]))
        status, text = self.call("GET", "/v1/connections")
        (connection,) = json.loads(text)["connections"]
        self.assertEqual(200, self.call("DELETE", f"/v1/connections/{connection['id']}")[0])
        self.assertEqual(("reset", "reset"), (readToEnd(visitor), readToEnd(target)))
        self.assertEqual((0, []), (self.listener.wait(), self.listener.stderr))

    def test_aConnectorLetsItFinish(self) -> None:
        self.drained(self.connector, "takes no more visitors (shutdown)")

    def test_whatATargetIsSlowToTakeOutlastsTheListener(self) -> None:
        finish = self.slowTarget()
        self.listener.send(SIGTERM)
        self.connector.waitFor("the listener stops (goaway)")
        self.assertEqual(PIECES * len(PIECE), finish())
        self.assertEqual((0, []), (self.listener.wait(), self.listener.stderr))

    def test_whatATargetIsSlowToTakeOutlastsTheSessionOfItsConnector(self) -> None:
        finish = self.slowTarget()
        self.connector.send(SIGTERM)
        self.listener.waitFor("takes no more visitors (shutdown)")
        self.assertEqual(PIECES * len(PIECE), finish())
        self.assertEqual((0, []), (self.connector.wait(), self.connector.stderr))

    def test_theTimeForThatHasAnEnd(self) -> None:
        self.assertEnds(self.connector, self.listener)
        self.environment |= {"SWL_DRAIN_SECONDS": "0.5", "SWC_DRAIN_SECONDS": "0.5"}
        self.startBoth()
        visitor, _ = self.pair(self.server, self.port)
        self.assertEnds(self.connector)
        self.assertEqual("reset", readToEnd(visitor))
        self.startConnector()
        self.listener.waitFor("connector uid-1 connected")
        visitor, _ = self.pair(self.server, self.port)
        self.assertEnds(self.listener)
        self.assertEqual("reset", readToEnd(visitor))

    def test_aSecondSignalEndsAConnectorAtOnce(self) -> None:
        self.pair(self.server, self.port)
        self.connector.send()
        self.listener.waitFor("takes no more visitors (shutdown)")
        self.assertEqual(0, self.connector.end())

    def test_aSecondSignalEndsAListenerAtOnce(self) -> None:
        self.pair(self.server, self.port)
        self.listener.send()
        self.connector.waitFor("the listener stops (goaway)")
        self.assertEqual(0, self.listener.end())


class RenewalTests(SessionCase):
    """A new certificate while visitors are there."""

    def test_nothingIsLost(self) -> None:
        finish, transfer = self.transfer()
        self.authority.issue("uid-1").write(str(self.directory), "client")
        self.connector.send(SIGHUP)
        self.listener.waitFor("connector uid-1: session", "follows")
        self.assertEcho(self.server, self.port)
        finish()
        self.assertWhole(transfer)
        self.listener.waitFor("connector uid-1 lost", "newer session")
        self.assertEcho(self.server, self.port)
        self.assertEnds(self.connector, self.listener)

    def test_whatATargetIsSlowToTakeIsNotLost(self) -> None:
        finish = self.slowTarget()
        self.authority.issue("uid-1").write(str(self.directory), "client")
        self.connector.send(SIGHUP)
        self.listener.waitFor("connector uid-1: session", "follows")
        self.assertEcho(self.server, self.port)
        self.assertEqual(PIECES * len(PIECE), finish())
        self.listener.waitFor("connector uid-1 lost", "newer session")

    def test_aCertificateThatTheListenerRefusesChangesNothing(self) -> None:
        visitor, target = self.pair(self.server, self.port)
        Authority().issue("uid-1").write(str(self.directory), "other")
        for kind in ("crt", "key"):
            shutil.copy(self.directory / f"other.{kind}", self.directory / f"client.{kind}")
        self.connector.send(SIGHUP)
        self.connector.waitFor("isn't signed by a CA that is trusted there", "next attempt")
        visitor.sendall(b"still")
        self.assertEqual(b"still", receive(target, 5))
        self.assertEcho(self.server, self.port)


class ListenersTests(SessionCase):
    """One connector, two listeners."""

    def setUp(self) -> None:
        super().setUp()
        self.first, udp = self.listener, self.settings["service_port"]
        self.environmentOfFirst = self.environment
        self.environment = {**self.environment, "SWL_PORT": "0", "APIS_PORT": "0", "SWL_STATE_DIR": "second"}
        self.startListener()
        self.assertEnds(self.connector)
        self.settings["server_names"] = [f"localhost:{self.settings['service_port']}"]
        self.settings["service_port"] = udp
        self.startConnector()
        for listener in (self.first, self.listener):
            listener.waitFor("connector uid-1 connected")
        self.second = self.entrance(self.server)

    def test_oneListenerIsReplacedWhileTheOtherServes(self) -> None:
        self.assertEcho(self.server, self.port)
        self.assertEcho(self.server, self.second)
        self.assertEnds(self.first)
        self.assertEcho(self.server, self.second)

    def test_oneListenerDiesAndIsBackWhileTheOthersVisitorsStay(self) -> None:
        visitor, target = self.pair(self.server, self.second)
        lost, _ = self.pair(self.server, self.port)
        self.first.end(SIGKILL)
        self.assertEqual("reset", readToEnd(lost))
        self.assertEcho(self.server, self.second)
        self.environment = self.environmentOfFirst
        self.startListener()
        self.listener.waitFor("connector uid-1 connected")
        self.assertEcho(self.server, self.port)
        self.assertEcho(self.server, self.second)
        for source, sink in ((visitor, target), (target, visitor)):
            source.sendall(b"still")
            self.assertEqual(b"still", receive(sink, 5))


class TakeoverOverTlsTests(OverTls, TakeoverTests):
    """The same over TLS."""


class StreamLimitOverTlsTests(OverTls, StreamLimitTests):
    """The same over TLS."""


class DrainOverTlsTests(OverTls, DrainTests):
    """The same over TLS."""


class RenewalOverTlsTests(OverTls, RenewalTests):
    """The same over TLS."""


class ListenersOverTlsTests(OverTls, ListenersTests):
    """The same over TLS."""
