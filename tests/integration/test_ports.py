"""Wishes on real processes: parked, leased, damaged; and visitors who vanish while nobody reads them."""

import select
import socket
from ipaddress import IPv4Network
from pathlib import Path
from time import time

import attrs
from twisted.internet.defer import execute

from socketwarp.listener.store import SqlitePortStore
from socketwarp.listener.wishes import PortLimits, PortSpec

from .processes import PATIENCE, TunnelCase, freePort, readToEnd, receive, reset


class WishCase(TunnelCase):
    """
    A wish on the disk before the listener is there.

    :ivar spec: the wish; ``server``: its target.
    """

    def setUp(self) -> None:
        super().setUp()
        self.server = self.listen()
        self.store = SqlitePortStore(Path(self.directory / "state"), execute)
        self.spec = PortSpec(freePort(), "uid-1", "127.0.0.1", self.server.getsockname()[1])

    def wish(self, **limits: object) -> None:
        """Keep it, with these limits."""
        self.store.load()
        self.successResultOf(self.store.put(attrs.evolve(self.spec, limits=PortLimits(**limits))))  # type: ignore[arg-type]  # fields of PortLimits
        self.successResultOf(self.store.close())

    def refusal(self) -> str:
        """What the listener says when it doesn't start."""
        listener = self.start("swlistener")
        self.assertEqual((78, 1), (listener.wait(), len(listener.stderr)))
        return listener.stderr[0]


class ParkedPortTests(WishCase):
    """A port whose connector is away."""

    def test_aVisitorWaitsForTheConnectorAndIsCarried(self) -> None:
        self.environment["SWL_PARK_SECONDS"] = str(PATIENCE)
        self.wish()
        self.startListener()
        visitor = self.visit(self.spec.port)
        visitor.sendall(b"early")
        self.startConnector()
        target = self.accept(self.server)
        self.assertEqual(b"early", receive(target, 5))
        visitor.close()
        target.close()
        self.assertEnds(self.connector, self.listener)

    def test_aVisitorWhoHasWaitedAsLongAsTheSettingSaysIsReset(self) -> None:
        self.environment["SWL_PARK_SECONDS"] = "0.2"
        self.wish()
        self.startListener()
        self.assertEqual("reset", readToEnd(self.visit(self.spec.port)))
        self.listener.waitFor("no connector of uid-1 came within 0.2 s")


class LeaseTests(WishCase):
    """A port that closes itself."""

    def test_afterItsLastVisitorHasGoneThePortSaysSoAndDoesNotComeBack(self) -> None:
        self.wish(total=2)
        self.startBoth()
        first, second = (self.pair(self.server, self.spec.port) for _ in range(2))
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", self.spec.port))
        for connection in (*first, *second):
            connection.close()
        self.listener.waitFor(f"port {self.spec.port} closed", "it was for 2 connections")
        self.assertEqual(0, self.listener.end())
        self.startListener()
        self.assertEqual((200, "[]"), self.call("GET", "/list"))

    def test_whatEndedWhileTheListenerWasAwayIsNotOpenedAgain(self) -> None:
        self.wish(expires=time() - 1)
        self.startListener()
        self.assertEqual((200, "[]"), self.call("GET", "/list"))
        self.listener.waitFor(f"port {self.spec.port} closed for uid-1, its time is over")
        self.assertEqual(0, self.listener.end())
        self.assertEqual([], self.store.load())
        self.successResultOf(self.store.close())

    def test_whoComesFromElsewhereIsReset(self) -> None:
        self.wish(sources=(IPv4Network("127.0.0.2"),))
        self.startBoth()
        try:
            ending = readToEnd(self.visit(self.spec.port))
        except ConnectionResetError:  # before connect() had looked
            ending = "reset"
        self.assertEqual("reset", ending)
        self.listener.waitFor("is not for visitors from 127.0.0.1")
        visitor = self.kept(socket.create_connection(("127.0.0.1", self.spec.port), PATIENCE, ("127.0.0.2", 0)))
        visitor.sendall(b"hello")
        self.assertEqual(b"hello", receive(self.accept(self.server), 5))


class DamageTests(WishCase):
    """A database that isn't what it was."""

    def test_theListenerDoesNotStartAndNamesTheFileAndTheRemedy(self) -> None:
        self.wish()
        whole = self.store.path.read_bytes()
        for damaged in (b"", b"garbage " * 1000, whole[:5000], whole[:4096] + b"\xa5" * (len(whole) - 4096)):
            self.store.path.write_bytes(damaged)
            refusal = self.refusal()
            for words in (str(self.store.path), "put a backup in its place"):
                self.assertIn(words, refusal)
            self.assertEqual(damaged, self.store.path.read_bytes())


class VanishedVisitorTests(TunnelCase):
    """RST while nobody reads."""

    def test_theTargetHearsOfItThoughItDoesNotReadEither(self) -> None:
        self.startBoth()
        server = self.listen()
        visitor, target = self.pair(server, self.entrance(server))
        visitor.settimeout(0.5)
        with self.assertRaises(TimeoutError):  # all windows are full, and nobody reads any more
            while True:
                visitor.sendall(bytes(1 << 16))
        reset(visitor)
        poll = select.poll()
        poll.register(target, 0)
        self.assertEqual(target.fileno(), poll.poll(PATIENCE * 1000)[0][0])
