"""Targets that are told where visitors come from: nginx and Twisted, by both versions of the PROXY protocol."""

import socket
from http.client import HTTPConnection
from pathlib import Path
from typing import Literal

from twisted.internet.address import IPv4Address
from twisted.internet.defer import execute
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.protocols.haproxy._wrapper import HAProxyWrappingFactory
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.listener.store import SqlitePortStore
from socketwarp.listener.wishes import PortOptions, PortSpec
from socketwarp.wire.proxy import formatProxyHeader

from .processes import PATIENCE, TunnelCase, freePort

NGINX = """
daemon off;
master_process off;
pid nginx.pid;
error_log stderr notice;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path temp; proxy_temp_path temp; fastcgi_temp_path temp; uwsgi_temp_path temp; scgi_temp_path temp;
    server {{
        listen 127.0.0.1:{port} proxy_protocol;
        return 200 "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port";
    }}
}}
"""
VERSIONS: tuple[Literal[1], Literal[2]] = (1, 2)


class NginxTests(TunnelCase):
    """Through real processes."""

    def setUp(self) -> None:
        super().setUp()
        self.environment["PATH"] += ":/usr/sbin"  # where Debian has it
        self.nginxPort = freePort()
        (self.directory / "nginx.conf").write_text(NGINX.format(port=self.nginxPort))
        # As an unprivileged user, nginx has no other place for what it writes before it has read its settings.
        nginx = self.run_("nginx", "nginx", "-p", str(self.directory), "-c", "nginx.conf", "-e", "stderr")
        nginx.waitFor("OS: ")

    def wish(self, *versions: Literal[1, 2]) -> list[int]:
        """Ports with these versions, wished before the listener is there."""
        store = SqlitePortStore(Path(self.directory / "state"), execute)
        store.load()
        ports = [freePort() for _ in versions]
        for port, version in zip(ports, versions, strict=True):
            options = PortOptions(proxyProtocol=version)
            spec = PortSpec(port, "uid-1", "127.0.0.1", self.nginxPort, "127.0.0.1", options=options)
            self.successResultOf(store.put(spec))
        self.successResultOf(store.close())
        return ports

    def test_nginxKnowsTheVisitorsAddress(self) -> None:
        ports = self.wish(*VERSIONS)
        self.startBoth()
        for port in ports:
            connection = HTTPConnection("127.0.0.1", port, PATIENCE)
            self.addCleanup(connection.close)
            connection.connect()
            visitor: socket.socket = connection.sock
            host, number = visitor.getsockname()
            connection.request("GET", "/")
            answer = connection.getresponse().read().decode()
            self.assertEqual(f"{host} {number} 127.0.0.1 {port}", answer)
            connection.close()
        self.assertEnds(self.connector, self.listener)


class Target(Protocol):
    """Keeps what it hears, and from whom."""

    received = b""
    peer: IAddress | None = None

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        assert self.transport is not None
        self.peer = self.transport.getPeer()


class OneTarget(Factory):
    """Has one, for one connection."""

    noisy = False

    def __init__(self) -> None:
        self.target = Target()

    def buildProtocol(self, address: IAddress | None) -> Protocol:
        return self.target


class TwistedTests(SynchronousTestCase):
    """What Twisted reads from the headers."""

    def test_twistedKnowsTheVisitorsAddress(self) -> None:
        for version in VERSIONS:
            factory = OneTarget()
            protocol = HAProxyWrappingFactory(factory).buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
            assert protocol is not None
            protocol.makeConnection(StringTransport())
            header = formatProxyHeader(version, ("198.51.100.7", 50000), ("203.0.113.1", 18080))
            protocol.dataReceived(header + b"hello")  # Twisted wants the header's beginning in one piece
            self.assertEqual(IPv4Address("TCP", "198.51.100.7", 50000), factory.target.peer)
            self.assertEqual(b"hello", factory.target.received)
