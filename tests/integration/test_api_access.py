"""The API on loopback sockets: plain, TLS, mutual TLS, tokens; each with each role and call."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.web.client import ResponseNeverReceived
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent

from socketwarp.errors import ConfigurationError
from socketwarp.identity.http import fetch, webAgent
from socketwarp.identity.pem import SettingFile
from socketwarp.identity.watch import FileWatch
from socketwarp.listener.api import ApiServer, makeApi
from socketwarp.listener.wishes import PortSpec
from socketwarp.settings import ListenerSettings
from tests.certs import Authority, Issued, pem
from tests.listener.rig import Rig
from tests.listener.test_access import CALLS, digest

TOKENS = "".join(
    f'[[token]]\nname = "{name}r"\nsha256 = "{digest(name)}"\nrole = "{role}"\n{bounds}'
    for name, role, bounds in (
        ("read", "read", ""),
        ("operate", "operate", ""),
        ("bounded", "operate", 'ports = ["18080-18089"]\nuids = ["uid-*", "nobody"]\n'),
    )
)
OTHERS = {"uid": "other", "target_host": "x", "target_port": 80}
#: What a caller whose token is bounded has nothing to do with: figures of everything, and others' ports and uids.
FOREIGN: Sequence[tuple[str, str, object]] = (
    ("GET", "/metrics", None),
    ("GET", "/v1/ports/19000", None),
    ("PUT", "/v1/ports/19000", OTHERS),
    ("PUT", "/v1/ports/19001", OTHERS | {"uid": "uid-1"}),
    ("PUT", "/v1/ports/18081", OTHERS),
    ("PUT", "/v1/ports/0", OTHERS | {"uid": "uid-1"}),
    ("DELETE", "/v1/ports/19000", None),
    ("GET", "/v1/connectors/other", None),
    ("DELETE", "/v1/connectors/other?deny=60", None),
    ("POST", "/v1/explain", {"port": 19000, "source": "192.0.2.1"}),
    ("POST", "/v1/probe", {"uid": "other", "host": "x", "port": 80}),
    ("POST", "/open", {"uid": "other", "port": 18081, "connect_address": "x", "connect_port": 80}),
    ("DELETE", "/close", {"port": 19000}),
)


@attrs.frozen
class Showing:
    """What a caller shows: a certificate's name, a token, or nothing."""

    certificate: str | None = None
    token: str | None = None


#: Who comes in with which role, by what the listener asks for; `None`: not at all; ``bounded``: see `FOREIGN`.
MATRIX: Mapping[str, Sequence[tuple[Showing, str | None]]] = {
    "plain": ((Showing(), "operate"), (Showing(token="x"), "operate")),
    "plain+token": (
        (Showing(), None),
        (Showing(token="x"), None),
        (Showing(token="read"), "read"),
        (Showing(token="operate"), "operate"),
        (Showing(token="bounded"), "bounded"),
    ),
    "tls": ((Showing(), "operate"), (Showing("caller"), "operate")),
    "tls+token": (
        (Showing(), None),
        (Showing(token="x"), None),
        (Showing(token="read"), "read"),
        (Showing(token="operate"), "operate"),
        (Showing(token="bounded"), "bounded"),
    ),
    "mtls": ((Showing("caller"), "operate"), (Showing("caller", "x"), "operate")),
    "mtls+token": (
        (Showing("caller"), None),
        (Showing("caller", "x"), None),
        (Showing("caller", "read"), "read"),
        (Showing("caller", "operate"), "operate"),
        (Showing("caller", "bounded"), "bounded"),
    ),
}


class ApiTestCase(TestCase):
    """An API that listens."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.authority = Authority()
        self.write(self.authority.server("localhost"), "api")
        self.write(self.authority.issue("caller", eku=("client",)), "caller")
        self.write(Authority("Other CA").issue("stranger", eku=("client",)), "stranger")
        self.write(self.authority.issue("caller", eku=("client",)), "caller")  # which ca.crt is last
        (self.directory / "tokens.toml").write_text(TOKENS)
        self.rig = Rig()

    def write(self, issued: Issued, name: str) -> None:
        issued.write(str(self.directory), name)

    def settings(self, way: str) -> ListenerSettings:
        named: dict[str, Any] = {}  # Any: fields of ListenerSettings
        if "tls" in way:
            named |= {"apiCertPath": self.directory / "api.crt", "apiKeyPath": self.directory / "api.key"}
        if "mtls" in way:
            named["apiClientCaPath"] = self.directory / "ca.crt"
        if "token" in way:
            named["apiTokensPath"] = self.directory / "tokens.toml"
        return ListenerSettings(**named)

    def listen(self, way: str) -> tuple[str, list[FileWatch[Any]]]:  # Any: each watch has a type of its own
        """The API's URL, and its files."""
        server, files = makeApi(self.settings(way), reactor, self.rig.connectors, self.rig.ports, self.rig.events)
        # Any: Twisted doesn't say what the reactor can
        loop: Any = reactor
        port: IListeningPort = loop.listenTCP(0, server, interface="127.0.0.1")
        self.addCleanup(self.stop, port, server)
        host = port.getHost()
        assert isinstance(host, IPv4Address)
        return f"{'https' if 'tls' in way else 'http'}://localhost:{host.port}", files

    async def stop(self, port: IListeningPort, server: ApiServer) -> None:
        await maybeDeferred(port.stopListening)
        await server.closeAll()

    def agent(self, showing: Showing) -> IAgent:
        """A client with a certificate, or none."""
        files = [
            None if showing.certificate is None else SettingFile("x", self.directory / f"{showing.certificate}.{kind}")
            for kind in ("crt", "key")
        ]
        loop: Any = reactor  # Any: as above
        return webAgent(loop, SettingFile("x", self.directory / "ca.crt"), *files)

    async def status(self, url: str, method: str, path: str, body: object, showing: Showing) -> int:
        """The status of one call."""
        agent = self.agent(showing)
        headers = {} if showing.token is None else {"Authorization": f"Bearer {showing.token}"}
        data = None if body is None else json.dumps(body).encode()
        if path == "/v1/events":
            named = Headers({name: [value] for name, value in headers.items()})
            response = await agent.request(method.encode(), (url + path).encode(), named)
            leaving = Leaving()
            response.deliverBody(leaving)
            await leaving.gone
            return int(response.code)
        return (await fetch(agent, method.encode(), url + path, headers, data)).status

    async def refusal(self, url: str, showing: Showing) -> str:
        """What the alert says that ends the connection."""
        with self.assertRaises(ResponseNeverReceived) as caught:
            await self.status(url, "GET", "/v1/ports", None, showing)
        (reason,) = caught.exception.reasons
        self.assertIsInstance(reason.value, SSL.Error)
        return str(reason.value)


class Leaving(Protocol):
    """Hears nothing of an endless answer; `gone` fires when the connection is over."""

    def __init__(self) -> None:
        self.gone: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone.callback(None)


class MatrixTests(ApiTestCase):
    """Every way in, with every caller and every call."""

    async def check(self, way: str) -> None:
        url, _ = self.listen(way)
        await self.rig.ports.desire(PortSpec(19000, "other", "x", 80))
        for showing, role in MATRIX[way]:
            for method, path, body, needed in CALLS:
                status = await self.status(url, method, path, body, showing)
                if needed is None:
                    self.assertEqual(200, status, (way, showing, path))
                elif role is None:
                    self.assertEqual(401, status, (way, showing, path))
                elif (role == "read" and needed == "operate") or (role == "bounded" and path == "/metrics"):
                    self.assertEqual(403, status, (way, showing, path))
                else:
                    self.assertNotIn(status, (401, 403), (way, showing, path))
            for method, path, body in FOREIGN if role == "bounded" else ():
                self.assertEqual(403, await self.status(url, method, path, body, showing), (way, path, body))
        self.assertEqual([19000], [spec.port for spec in self.rig.ports.specs()])

    async def test_plain(self) -> None:
        await self.check("plain")

    async def test_plainAndToken(self) -> None:
        await self.check("plain+token")

    async def test_tls(self) -> None:
        await self.check("tls")

    async def test_tlsAndToken(self) -> None:
        await self.check("tls+token")

    async def test_mutualTls(self) -> None:
        await self.check("mtls")

    async def test_mutualTlsAndToken(self) -> None:
        await self.check("mtls+token")


class TlsTests(ApiTestCase):
    """What TLS decides before anything is heard."""

    async def test_withoutACertificateNobodyIsHeard(self) -> None:
        for way in ("mtls", "mtls+token"):
            url, _ = self.listen(way)
            self.assertIn("certificate required", await self.refusal(url, Showing(token="operate")))

    async def test_anotherCasCertificateIsRefused(self) -> None:
        url, _ = self.listen("mtls")
        self.assertIn("unknown ca", await self.refusal(url, Showing("stranger")))

    async def test_aServersCertificateIsNoCallers(self) -> None:
        url, _ = self.listen("mtls")
        self.assertIn("certificate", await self.refusal(url, Showing("api")))

    async def test_anExchangedCertificateVouchesForItselfOnly(self) -> None:
        """Its owner can sign others, whom nobody knows."""
        friend = Authority("friend")
        own = friend.issue(
            "friend", key=friend.key, ca=True, eku=("client",), ku=("digital_signature", "key_cert_sign")
        )
        self.write(own, "friend")
        self.write(friend.issue("boss", eku=("client",)), "boss")
        # Issued.write leaves a CA file behind; the one that counts has the certificate itself.
        (self.directory / "ca.crt").write_bytes(pem(self.authority.cert) + pem(own.cert))
        url, _ = self.listen("mtls")
        self.assertIn("alert", await self.refusal(url, Showing("boss")))
        self.assertEqual(200, await self.status(url, "GET", "/v1/ports", None, Showing("friend")))
        self.assertEqual(200, await self.status(url, "GET", "/v1/ports", None, Showing("caller")))

    async def test_theCertificateNamesTheCaller(self) -> None:
        url, _ = self.listen("mtls")
        await self.status(url, "PUT", "/v1/ports/18080", OTHERS, Showing("caller"))
        (change,) = self.rig.told("api.changed")
        self.assertEqual("caller", change["who"])

    async def test_theNamesInOurCertificateAreOurs(self) -> None:
        """Those of the one that is shown now."""
        self.write(self.authority.server("localhost", "api.example.net", "*.example.org"), "api")
        url, files = self.listen("tls")

        async def called(name: str) -> int:
            answer = await fetch(self.agent(Showing()), b"GET", f"{url}/v1/ports", {"Host": name})
            return answer.status

        for name, status in (("API.example.net:8080", 200), ("a.example.org", 200), ("www.example.net", 403)):
            self.assertEqual(status, await called(name), name)
        self.write(self.authority.server("localhost", "www.example.net"), "api")
        self.assertTrue(files[0].check())
        self.assertEqual((403, 200), (await called("api.example.net"), await called("www.example.net")))

    async def test_renewedFilesCountForTheNextConnection(self) -> None:
        url, files = self.listen("tls+token")
        other = Authority("New CA")
        self.write(other.server("localhost"), "api")
        (self.directory / "tokens.toml").write_text(TOKENS.replace(digest("read"), digest("new")))
        for file in files:
            self.assertTrue(file.check())
        self.assertEqual(200, await self.status(url, "GET", "/v1/ports", None, Showing(token="new")))
        self.assertEqual(401, await self.status(url, "GET", "/v1/ports", None, Showing(token="read")))

    async def test_aBrokenFileChangesNothing(self) -> None:
        url, files = self.listen("tls+token")
        for name in ("api.crt", "tokens.toml"):
            (self.directory / name).write_text("nothing")
        self.assertEqual([False, False], [file.check() for file in files])
        self.assertEqual(200, await self.status(url, "GET", "/v1/ports", None, Showing(token="read")))

    def test_aKeyOfAnotherCertificate(self) -> None:
        self.write(self.authority.server("localhost"), "other")
        settings = attrs.evolve(self.settings("tls"), apiKeyPath=self.directory / "other.key")
        error = self.assertRaises(
            ConfigurationError, makeApi, settings, reactor, self.rig.connectors, self.rig.ports, self.rig.events
        )
        self.assertIn("APIS_CERT_PATH", str(error))
        self.assertIn("isn't the one that APIS_KEY_PATH's key belongs to", str(error))
