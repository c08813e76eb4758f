"""QUIC where it gets through, TLS where it doesn't, and back again; also through a proxy from Debian."""

import random
import select
import socket
from concurrent.futures import ThreadPoolExecutor
from signal import SIGKILL
from threading import Thread

from .processes import PATIENCE, Address, Process, TunnelCase, freePort, readToEnd, receive
from .test_rebinding import bound

#: What goes each way while the carrier changes: more than all buffers on the way hold, though tcp_rmem may be 32 MiB.
THERE, BACK = (random.Random(seed).randbytes(96 << 20) for seed in (1, 2))
#: Bytes of the readers' own buffers.
SMALL = 1 << 18

TINYPROXY = """
Port {port}
Listen 127.0.0.1
Timeout 60
Allow 127.0.0.1
ConnectPort {allowed}
{authentication}
"""


class Firewall:
    """
    What UDP has to pass between connectors and their listener, each connector's socket with a port of its own.

    :ivar port: where the connector finds it.
    :ivar isOpen: whether it lets anything through.
    :ivar seen: datagrams from the connector so far.
    """

    def __init__(self, listener: Address) -> None:
        self._listener = listener
        self._front = bound()
        self.port = self._front.getsockname()[1]
        self.isOpen = False
        self.seen = 0
        self._backs: dict[Address, socket.socket] = {}
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            for readable in select.select([self._front, *self._backs.values()], [], [])[0]:
                datagram, sender = readable.recvfrom(1 << 16)
                if readable is not self._front:
                    [connector] = [each for each, back in self._backs.items() if back is readable]
                    if self.isOpen:
                        self._front.sendto(datagram, connector)
                elif not datagram:
                    return
                else:
                    self.seen += 1
                    if self.isOpen:
                        self._backOf(sender).sendto(datagram, self._listener)

    def _backOf(self, connector: Address) -> socket.socket:
        if connector not in self._backs:
            self._backs[connector] = bound()
        return self._backs[connector]

    def stop(self) -> None:
        """Carry no more: an empty datagram says so."""
        bell = bound()
        bell.sendto(b"", ("127.0.0.1", self.port))
        bell.close()
        self._thread.join(PATIENCE)
        for each in (self._front, *self._backs.values()):
            each.close()


class CarriersCase(TunnelCase):
    """
    A listener, and a connector that finds its UDP port behind a firewall, which is closed at first.

    :ivar firewall: the firewall.
    """

    def setUp(self) -> None:
        super().setUp()
        self.startListener()
        listener = ("127.0.0.1", int(str(self.settings["service_port"])))
        self.firewall = Firewall(listener)
        self.addCleanup(self.firewall.stop)
        self.settings |= {"service_port": self.firewall.port, "tls_port": listener[1]}
        self.target = self.listen()

    def startConnector(self) -> Process:
        """Start it, and know what it says."""
        self.connector = self.start("swconnector")
        return self.connector

    def connected(self, carrier: str) -> None:
        """The connector has a session by that carrier, which is of use."""
        self.connector.waitFor("connected to", f"over {carrier}")
        self.assertEcho(self.target, self.entrance(self.target))


class AutoTests(CarriersCase):
    """Whichever gets through."""

    def test_quicIsEnoughWhereItGetsThrough(self) -> None:
        self.firewall.isOpen = True
        self.startConnector()
        self.connected("quic")
        self.assertEnds(self.connector, self.listener)
        self.assertFalse([line for line in self.connector.lines if "tls" in line])

    def test_whereUdpIsBlockedItIsTlsAndAtTheNextStartAtOnce(self) -> None:
        self.startConnector()
        self.connected("tls")
        self.assertEnds(self.connector)
        seen = self.firewall.seen
        self.assertGreater(seen, 0)
        self.startConnector()
        self.connected("tls")
        self.assertEqual(seen, self.firewall.seen)
        self.assertEnds(self.connector, self.listener)

    def test_aVisitorOutlastsARestartOfTheListenerWhereUdpIsBlocked(self) -> None:
        """Visitors wait for 5 seconds, and a QUIC handshake takes 10 to fail."""
        self.startConnector()
        self.connector.waitFor("connected to", "over tls")
        port = self.entrance(self.target)
        self.assertEcho(self.target, port)
        seen = self.firewall.seen
        self.listener.end(SIGKILL)
        self.connector.waitFor("by tls: ", "Connection refused")
        self.startListener()
        self.assertEcho(self.target, port)
        self.assertGreater(self.firewall.seen, seen)
        self.assertEnds(self.connector, self.listener)

    def test_quicThatComesBackIsChangedOverToAndNoByteIsLost(self) -> None:
        """The connection that was there finishes by TLS, and the session with it; a new one goes by QUIC."""
        self.environment["SWC_QUIC_RETRY_SECONDS"] = "0.5"
        self.startConnector()
        self.connector.waitFor("connected to", "over tls")
        port = self.entrance(self.target)
        visitor, target = self.pair(self.target, port)
        for reading in (visitor, target):
            reading.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        with ThreadPoolExecutor(2) as threads:
            sending = [threads.submit(visitor.sendall, THERE), threads.submit(target.sendall, BACK)]
            received = [receive(target, len(THERE) // 4), receive(visitor, len(BACK) // 4)]
            self.firewall.isOpen = True
            self.connector.waitFor("quic gets through")
            self.connector.waitFor("connected to", "over quic")
            self.assertEqual([False, False], [each.done() for each in sending])
            for number, reader, data in ((0, target, THERE), (1, visitor, BACK)):
                received[number] += receive(reader, len(data) - len(received[number]))
            for each in sending:
                each.result(PATIENCE)
        self.assertEqual([True, True], [received[0] == THERE, received[1] == BACK])
        before = self.firewall.seen
        self.assertEcho(self.target, port)
        self.assertGreater(self.firewall.seen, before)
        for connection in (visitor, target):
            connection.shutdown(socket.SHUT_WR)
        self.assertEqual([b"", b""], [readToEnd(visitor), readToEnd(target)])
        self.assertEnds(self.connector, self.listener)

    def test_aSessionThatLosesUdpIsFollowedByOneOverTls(self) -> None:
        self.environment["SWC_IDLE_SECONDS"] = "1"
        self.firewall.isOpen = True
        self.startConnector()
        self.connected("quic")
        self.firewall.isOpen = False
        self.connected("tls")

    def test_whoComesIntoABlackHoleIsCarriedByTheNextSession(self) -> None:
        """Which is there long before the old one counts as lost."""
        self.firewall.isOpen = True
        self.startConnector()
        self.connected("quic")
        port = self.entrance(self.target)
        self.firewall.isOpen = False
        self.visit(port)  # the first one gives the listener something to wait for
        self.connector.waitFor("no answer in session")
        self.assertEcho(self.target, port)
        self.assertNotIn("connector uid-1 lost", "".join(self.listener.lines))

    def test_quicThatIsSwallowedAgainAndAgainIsNotTriedFirstAnyMore(self) -> None:
        """The firewall lets sessions begin, and no more."""
        self.environment["SWC_IDLE_SECONDS"] = "1"
        self.startConnector()
        for sign in ("nothing was heard from the other end", "tls is tried first from now on"):
            self.firewall.isOpen = True
            self.connector.waitFor("connected to", "over quic")
            self.firewall.isOpen = False
            self.connector.waitFor(sign)
        self.firewall.isOpen = True
        self.connected("tls")


class OneCarrierTests(CarriersCase):
    """Whatever gets through."""

    def test_tlsAlone(self) -> None:
        self.settings["carrier"] = "tls"
        self.firewall.isOpen = True
        self.startConnector()
        self.connected("tls")
        self.assertEqual(0, self.firewall.seen)
        self.assertEnds(self.connector, self.listener)

    def test_quicAlone(self) -> None:
        self.environment |= {"SWC_CARRIER": "quic", "SWC_HANDSHAKE_SECONDS": "4"}
        self.startConnector()
        self.connector.waitFor("the handshake took too long; next attempt")
        self.firewall.isOpen = True
        self.connected("quic")
        self.assertFalse([line for line in self.connector.lines if "tls" in line])


class ProxyTests(CarriersCase):
    """tinyproxy, which is the only way out."""

    def setUp(self) -> None:
        super().setUp()
        del self.environment["no_proxy"]
        # The connector never sees the listener's own port: only the proxy may go there.
        self.firewall.isOpen = True

    def startProxy(self, authentication: str = "", allowed: object = None) -> str:
        """Start one; where it is."""
        port = freePort()
        allowed = self.settings["tls_port"] if allowed is None else allowed
        text = TINYPROXY.format(port=port, allowed=allowed, authentication=authentication)
        (self.directory / "tinyproxy.conf").write_text(text)
        self.proxy = self.run_("tinyproxy", "tinyproxy", "-d", "-c", "tinyproxy.conf")
        self.proxy.waitFor("Accepting connections")
        return f"127.0.0.1:{port}"

    def test_throughAProxy(self) -> None:
        """That resolves the listener's name; nothing goes by UDP, though it could."""
        self.environment["HTTPS_PROXY"] = f"http://{self.startProxy()}"
        self.startConnector()
        self.connector.waitFor("is reached through the HTTP proxy", "tls only")
        self.connected("tls")
        self.proxy.waitFor(f"CONNECT localhost:{self.settings['tls_port']}")
        self.assertEqual(0, self.firewall.seen)
        self.assertEnds(self.connector, self.listener)

    def test_withUserAndPassword(self) -> None:
        """From a file, percent-encoded; no log has them."""
        place = self.startProxy("BasicAuth me sesame")
        (self.directory / "proxy").write_text(f"http://me:se%73ame@{place}\n")
        self.environment["SWC_PROXY_FILE"] = "proxy"
        self.startConnector()
        self.connected("tls")
        self.assertFalse([line for line in self.connector.lines if "ame@" in line or "sesame" in line])
        self.assertEnds(self.connector, self.listener)

    def test_withAWrongPassword(self) -> None:
        """To which tinyproxy says 401, and 407 to none at all."""
        place = self.startProxy("BasicAuth me sesame")
        for user, status in (("me:wrong@", 401), ("", 407)):
            self.environment["SWC_PROXY"] = f"http://{user}{place}"
            self.startConnector()
            sign = f"the proxy refuses the connection: {status}"
            self.connector.waitFor(sign, "check user and password in SWC_PROXY; next")
            self.assertFalse([line for line in self.connector.lines if "wrong" in line])
            self.assertEqual(0, self.connector.end())

    def test_aPortThatTheProxyDoesNotAllow(self) -> None:
        self.environment["SWC_PROXY"] = f"http://{self.startProxy(allowed=443)}"
        self.startConnector()
        self.connector.waitFor("the proxy refuses the connection: 403", "allow CONNECT")

    def test_aListenerThatTheProxyDoesNotReach(self) -> None:
        port = self.settings["tls_port"] = freePort()
        self.environment["SWC_PROXY"] = f"http://{self.startProxy(allowed=port)}"
        self.startConnector()
        self.connector.waitFor("the proxy refuses the connection: 5", "can't reach the listener")

    def test_whoIsExempt(self) -> None:
        self.environment |= {"https_proxy": f"http://{self.startProxy()}", "NO_PROXY": "example.net,localhost"}
        self.startConnector()
        self.connected("quic")
