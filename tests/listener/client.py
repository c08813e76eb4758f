"""A client of the API, byte for byte through the server that the listener starts."""

import json
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.testing import StringTransportWithDisconnection

from socketwarp.listener.api import Api, ApiServer, makeSite
from socketwarp.listener.api.access import Gate
from tests.listener.rig import Rig


class Client:
    """A connection to the API."""

    def __init__(self, rig: Rig, gate: Gate | None = None) -> None:
        self.api = Api(rig.reactor, rig.connectors, rig.ports, rig.events, gate or Gate())
        self.server = ApiServer(self.api, makeSite(self.api))
        self.connect()

    def connect(self) -> None:
        address = IPv4Address("TCP", "127.0.0.1", 50000)
        self.transport = StringTransportWithDisconnection(IPv4Address("TCP", "127.0.0.1", 8080), address)
        protocol = self.server.buildProtocol(address)
        if protocol is None:
            self.transport.connected = False
            return
        self.transport.protocol = self.channel = protocol
        self.channel.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        self.channel.dataReceived(data)

    def answer(self) -> tuple[int, dict[str, str], str]:
        """Status, headers and body of what has come."""
        head, _, body = self.transport.value().partition(b"\r\n\r\n")
        self.transport.clear()
        status, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return int(status.split()[1]), headers, body.decode()

    def call(self, method: str, path: str, body: bytes = b"", /, **headers: str) -> tuple[int, dict[str, str], str]:
        """One whole call on a connection of its own."""
        self.connect()
        lines = [f"{method} {path} HTTP/1.1", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in ({"Host": "localhost"} | headers).items()]
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        return self.answer()

    def callJson(
        self, method: str, path: str, value: object = None, /, **headers: str
    ) -> tuple[int, dict[str, str], str]:
        """The same with a body of JSON, or none."""
        return self.call(method, path, b"" if value is None else json.dumps(value).encode(), **headers)

    # Any: whatever the API says
    def json(self, method: str, path: str, value: object = None, /, **headers: str) -> tuple[int, Any]:
        """The same with JSON both ways: status and what came."""
        status, _, text = self.callJson(method, path, value, **headers)
        return status, json.loads(text)
