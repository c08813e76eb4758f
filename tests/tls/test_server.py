"""The server under strangers: what isn't TLS, what is slow, too many of them."""

import socket
from typing import Any

from OpenSSL import SSL
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.errors import Code
from socketwarp.interfaces import Address
from socketwarp.tcp.poll import READABLE
from socketwarp.tls import server
from socketwarp.tls.contexts import ALPN, MAX_HANDSHAKE_CALLS, _watch
from socketwarp.tls.frames import Kind, formatFrame
from socketwarp.tls.server import LINES, MAX_FROM_SOURCE, _sourceOf
from socketwarp.tls.serving import ServingSession
from socketwarp.tls.session import TlsSettings

from ..certs import Issued, world
from ..tcp.fakes import socketPair
from .rig import Rig


def clientContext(issued: Issued) -> SSL.Context:
    """A client that isn't ours, with a certificate."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_alpn_protos([ALPN])
    context.use_certificate(issued.cert)
    context.use_privatekey(issued.key)  # type: ignore[arg-type]  # an EC key
    return context


class ServerCase(SynchronousTestCase):
    settings = TlsSettings()

    def setUp(self) -> None:
        self.rig = Rig(self.settings)
        self.addCleanup(self.rig.release)
        self.server = self.rig.server

    def knock(self, address: Address = ("192.0.2.7", 40000)) -> socket.socket:
        """A TCP connection that says nothing yet."""
        ours, remote = socketPair()
        remote.setblocking(False)
        self.addCleanup(remote.close)
        self.server.take(ours, address)
        return remote

    def isClosed(self, remote: socket.socket) -> bool:
        try:
            while remote.recv(65536):
                pass
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True


class StrangerTests(ServerCase):
    def test_whatIsNotTlsEndsAtOnce(self) -> None:
        for said in (b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-x\r\n", bytes(100), b"\x16\x03\x01\xff\xff" + bytes(100)):
            remote = self.knock()
            remote.send(said)
            self.rig.run()
            self.assertTrue(self.isClosed(remote), said)
        self.assertEqual(({}, {}), (self.server._arrivals, self.server._sources))
        self.assertEqual([], self.rig.clock.getDelayedCalls())
        self.assertEqual([], self.rig.refused)

    def test_whoSaysNothingIsGoneAfterItsTime(self) -> None:
        remote = self.knock()
        self.rig.wait(9.9)
        self.assertFalse(self.isClosed(remote))
        self.rig.wait(0.2)
        self.assertTrue(self.isClosed(remote))
        self.assertEqual(({}, []), (self.server._arrivals, self.rig.clock.getDelayedCalls()))

    def test_whoShakesHandsAndSaysNothingIsGoneAsWell(self) -> None:
        for said in (b"", formatFrame(Kind.SESSION)[:3]):
            stranger = self.rig.stranger(clientContext(world().authority.issue("swc-1")))
            self.rig.exchange(stranger, said)
            self.assertEqual(1, len(self.server._arrivals))
            self.rig.wait(10.1)
            self.assertEqual(({}, []), (self.server._arrivals, self.rig.sessions))

    def test_anotherFirstFrameIsRefused(self) -> None:
        for said in (formatFrame(Kind.OPEN, 1), formatFrame(Kind.PING, 1), b"\x11\0\0\1x"):
            reply = self.rig.strange(clientContext(world().authority.issue("swc-1")), said)
            self.assertEqual((Kind.CLOSE, Code.MALFORMED), (reply[0], int.from_bytes(reply[4:8])))
        self.rig.strange(clientContext(world().authority.issue("swc-1")), b"\xff" * 100)
        self.rig.wait(5)
        self.assertEqual(([], {}, []), (self.rig.sessions, self.server._arrivals, self.rig.clock.getDelayedCalls()))

    def test_fewUnfinishedForEachSource(self) -> None:
        first = [self.knock() for _ in range(MAX_FROM_SOURCE)]
        self.assertTrue(self.isClosed(self.knock()))
        self.assertFalse(self.isClosed(self.knock(("192.0.2.8", 1))))
        self.assertFalse(self.isClosed(first[0]))
        first[0].close()
        self.rig.run()
        self.assertFalse(self.isClosed(self.knock()))

    def test_aSourceIsAnAddressOrTheNetworkOfASubscriber(self) -> None:
        self.assertEqual("192.0.2.7", _sourceOf(("192.0.2.7", 1)))
        self.assertEqual("2001:db8::/64", _sourceOf(("2001:db8::1:2:3:4", 1)))
        self.assertEqual(_sourceOf(("2001:db8::1", 1)), _sourceOf(("2001:db8::ffff:2", 1)))

    def test_whenTooManyAreUnfinishedTheOldestGiveWay(self) -> None:
        """Silent ones from many addresses must not keep a connector out."""
        self.patch(server, "MAX_ARRIVALS", 4)
        silent = [self.knock((f"192.0.2.{number}", 1)) for number in range(4)]
        session, _ = self.rig.pair()
        self.assertTrue(session.isOpen)
        self.assertEqual([True] * 4, [self.isClosed(each) for each in silent])

    def test_aDismissedConnectionCountsUntilItIsGone(self) -> None:
        stranger = self.rig.stranger(SSL.Context(SSL.TLS_CLIENT_METHOD))
        self.rig.exchange(stranger, b"")
        self.assertEqual(1, len(self.server._arrivals))
        self.rig.wait(2.1)
        self.assertEqual(({}, []), (self.server._arrivals, self.rig.clock.getDelayedCalls()))
        stranger = self.rig.stranger(SSL.Context(SSL.TLS_CLIENT_METHOD))
        self.rig.exchange(stranger, b"")
        stranger.sock_shutdown(socket.SHUT_RDWR)
        self.rig.run()
        self.assertEqual(({}, []), (self.server._arrivals, self.rig.clock.getDelayedCalls()))

    def test_itSaysNowAndThenWhomItTurnsAway(self) -> None:
        told = self.enterLog()
        for _ in range(MAX_FROM_SOURCE + 50):
            self.knock()
        self.rig.wait(61)
        for _ in range(MAX_FROM_SOURCE + 1):
            self.knock()
        self.assertEqual([1, 50], [event["count"] for event in told if "turned away" in event["log_format"]])

    def enterLog(self) -> list[Any]:
        """What is logged from now on."""
        told: list[Any] = []
        observer: Any = told.append  # Any: what it is by its use
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        return told

    def test_soManyAreToldOfOneByOne(self) -> None:
        told = self.enterLog()
        for _ in range(int(LINES[1]) + 5):
            self.knock().send(b"GET / HTTP/1.1\r\n\r\n")
            self.rig.run()
        lines = [each for each in told if "came to nothing" in (each["log_format"] or "")]
        self.assertEqual((LINES[1], "192.0.2.7 port 40000"), (len(lines), lines[0]["peer"]))

    def test_aConnectionThatBreaksInItsFirstMomentLeavesNothing(self) -> None:
        def broken(*about: object) -> None:
            raise OSError(107, "not connected")

        self.patch(server, "TlsTransport", broken)
        self.assertTrue(self.isClosed(self.knock()))
        self.assertEqual(({}, {}, []), (self.server._arrivals, self.server._sources, self.rig.clock.getDelayedCalls()))

    def test_whoSendsHandshakeMessagesWithoutEndIsCutOff(self) -> None:
        """OpenSSL would take key updates in one call for as long as they come; it asks whether it may go on."""
        session, client = self.rig.pair()
        assert isinstance(session, ServingSession)
        connection = session.control.transport.connection
        while connection.get_app_data().calls < MAX_HANDSHAKE_CALLS:
            _watch(connection, SSL.SSL_CB_EXIT, 1)
        self.rig.run()
        self.assertTrue(session.isOpen)
        _watch(connection, SSL.SSL_CB_EXIT, 1)  # in the middle of a read
        session.control.transport.ready(READABLE)
        self.rig.run()
        self.assertFalse(session.isOpen)
        self.assertFalse(client.isOpen)
