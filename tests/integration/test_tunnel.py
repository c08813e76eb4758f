"""Visitors reach targets through a listener and a connector, each a process: bytes, endings, refusals, signals."""

import hashlib
import os
import socket
from concurrent.futures import ThreadPoolExecutor

from .processes import PATIENCE, Process, ProcessCase, TunnelCase, freePort, readToEnd, receive, reset

MUCH = 256 << 20
VISITORS = 200
#: Differs from any part of itself; what is sent in its place, or twice, changes the checksum.
BLOCK = os.urandom(1 << 20)


def sendMuch(connection: socket.socket, size: int = MUCH) -> str:
    """Many bytes and FIN; their checksum."""
    checksum = hashlib.sha256()
    for number in range(size // len(BLOCK)):
        piece = number.to_bytes(8, "big") + BLOCK[8:]
        checksum.update(piece)
        connection.sendall(piece)
    connection.shutdown(socket.SHUT_WR)
    return checksum.hexdigest()


class TunnelTests(TunnelCase):
    """A listener, and a connector that it knows."""

    def setUp(self) -> None:
        super().setUp()
        self.startBoth()


class BytesTests(TunnelTests):
    """What is sent arrives."""

    def test_whatAVisitorSendsReachesTheTargetAndTheAnswerComesBack(self) -> None:
        server = self.listen()
        self.assertEcho(server, self.entrance(server))

    def test_aTargetIsReachedByItsName(self) -> None:
        server = self.listen()
        self.assertEcho(server, self.entrance(server, "localhost"))

    def test_aTargetIsReachedByIpv6(self) -> None:
        server = self.listen("::1")
        self.assertEcho(server, self.entrance(server))

    def test_twoHundredVisitorsAtOnceGetTheirOwnBytes(self) -> None:
        server = self.listen()
        port = self.entrance(server)
        words = {number: b"%03d" % number + os.urandom(4093) for number in range(VISITORS)}
        visitors = {number: self.visit(port) for number in words}
        for number, visitor in visitors.items():
            visitor.sendall(words[number])
        targets = {int(receive(target, 3)): target for target in (self.accept(server) for _ in visitors)}
        self.assertEqual(words.keys(), targets.keys())
        for number, target in targets.items():
            self.assertEqual(words[number][3:], receive(target, 4093))
            target.sendall(words[number])
        for number, visitor in visitors.items():
            self.assertEqual(words[number], receive(visitor, 4096))

    def carriesMuch(self, up: bool) -> None:
        server = self.listen()
        visitor, target = self.pair(server, self.entrance(server))
        source, sink = (visitor, target) if up else (target, visitor)
        checksum, size = hashlib.sha256(), 0
        with ThreadPoolExecutor(1) as threads:
            sent = threads.submit(sendMuch, source)
            while piece := sink.recv(1 << 20):
                checksum.update(piece)
                size += len(piece)
            self.assertEqual((MUCH, sent.result(PATIENCE)), (size, checksum.hexdigest()))

    def test_muchThatAVisitorSendsArrivesUnchanged(self) -> None:
        self.carriesMuch(up=True)

    def test_muchThatATargetSendsArrivesUnchanged(self) -> None:
        self.carriesMuch(up=False)


class EndingsTests(TunnelTests):
    """FIN arrives as FIN, and RST as RST; whatever the dialect, so test_dialects has these tests, too."""

    def setUp(self) -> None:
        super().setUp()
        self.server = self.listen()
        self.visitor, self.target = self.pair(self.server, self.entrance(self.server))

    def test_aTargetThatAnswersOnlyAfterTheVisitorsFinIsHeard(self) -> None:
        self.finIsPassedOn(self.visitor, self.target)

    def test_aVisitorThatAnswersOnlyAfterTheTargetsFinIsHeard(self) -> None:
        self.finIsPassedOn(self.target, self.visitor)

    def finIsPassedOn(self, one: socket.socket, other: socket.socket) -> None:
        one.sendall(b"question")
        one.shutdown(socket.SHUT_WR)
        self.assertEqual(b"question", readToEnd(other))
        other.sendall(b"answer")
        other.shutdown(socket.SHUT_WR)
        self.assertEqual(b"answer", readToEnd(one))
        self.listener.waitFor("ended after", "13 bytes in, 11 out: finished" if one is self.visitor else "finished")

    def test_aVisitorsRstReachesTheTargetAsRst(self) -> None:
        reset(self.visitor)
        self.assertEqual("reset", readToEnd(self.target))
        self.connector.waitFor("connection 1-1", "the TCP connection of the other end broke")

    def test_aTargetsRstReachesTheVisitorAsRst(self) -> None:
        reset(self.target)
        self.assertEqual("reset", readToEnd(self.visitor))
        self.listener.waitFor("1-1", "the TCP connection of the other end broke")

    def test_aTargetThatRefusesIsAResetForTheVisitorAndNamedInTheConnectorsLog(self) -> None:
        nobody = freePort()
        self.assertEqual("reset", readToEnd(self.visit(self.openPort(("127.0.0.1", nobody)))))
        self.connector.waitFor(f"127.0.0.1:{nobody} refused the connection")
        self.assertEcho(self.server, self.entrance(self.server))

    def test_aNameWithoutAddressIsAResetForTheVisitorAndNamedInTheConnectorsLog(self) -> None:
        self.assertEqual("reset", readToEnd(self.visit(self.openPort(("nowhere.invalid", 80)))))
        self.connector.waitFor("nowhere.invalid has no address")

    def test_aClosedPortTakesNobodyAndEndsWhoIsThere(self) -> None:
        port = self.visitor.getpeername()[1]
        self.assertEqual((200, f"Task {port} canceled"), self.call("DELETE", "/close", {"port": port}))
        self.assertEqual("reset", readToEnd(self.visitor))
        self.assertEqual("reset", readToEnd(self.target))
        self.assertRaises(ConnectionRefusedError, self.visit, port)


class StopTests(TunnelTests):
    """SIGTERM."""

    def finish(self, visitor: socket.socket, target: socket.socket) -> None:
        """Last words, and FIN both ways."""
        visitor.sendall(b"last words")
        visitor.shutdown(socket.SHUT_WR)
        self.assertEqual(b"last words", readToEnd(target))
        target.close()
        self.assertEqual(b"", readToEnd(visitor))

    def test_sigtermEndsBothWithStatusZero(self) -> None:
        server = self.listen()
        self.entrance(server)
        self.assertEnds(self.connector, self.listener)

    def test_aStoppingListenerLetsItsVisitorsFinish(self) -> None:
        server = self.listen()
        visitor, target = self.pair(server, self.entrance(server))
        self.listener.send()
        self.finish(visitor, target)
        self.assertEqual(0, self.listener.wait())
        self.connector.waitFor("the listener stops")

    def test_theLastBytesArriveThoughTheListenerStops(self) -> None:
        server = self.listen()
        visitor, target = self.pair(server, self.entrance(server))
        target.shutdown(socket.SHUT_WR)
        self.assertEqual(b"", readToEnd(visitor))
        self.listener.send()
        with ThreadPoolExecutor(1) as threads:
            sent = threads.submit(sendMuch, visitor, 16 << 20)
            received = readToEnd(target)
            assert isinstance(received, bytes)
            self.assertEqual(sent.result(PATIENCE), hashlib.sha256(received).hexdigest())
        self.assertEqual(0, self.listener.wait())

    def test_aStoppingConnectorLetsItsVisitorsFinish(self) -> None:
        server = self.listen()
        visitor, target = self.pair(server, self.entrance(server))
        self.connector.send()
        self.listener.waitFor("takes no more visitors")
        self.finish(visitor, target)
        self.assertEqual(0, self.connector.wait())


class DrainTests(TunnelTests):
    """Who doesn't finish in time is reset."""

    def setUp(self) -> None:
        ProcessCase.setUp(self)
        self.environment |= {"SWL_DRAIN_SECONDS": "0.5", "SWC_DRAIN_SECONDS": "0.5"}
        self.startBoth()

    def isReset(self, stopping: Process) -> None:
        server = self.listen()
        visitor, target = self.pair(server, self.entrance(server))
        stopping.send()
        self.assertEqual(["reset", "reset"], [readToEnd(visitor), readToEnd(target)])
        self.assertEqual(0, stopping.wait())

    def test_aStoppingListenerResetsVisitorsThatStayTooLong(self) -> None:
        self.isReset(self.listener)

    def test_aStoppingConnectorResetsVisitorsThatStayTooLong(self) -> None:
        self.isReset(self.connector)
