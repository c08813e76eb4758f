import os
from typing import Any, cast

from OpenSSL import crypto
from treq.testing import RequestTraversalAgent
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.error import ConnectingCancelledError, ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test.iosim import connectedServerAndClient
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import Agent
from twisted.web.iweb import IAgent, IPolicyForHTTPS
from twisted.web.resource import Resource
from twisted.web.server import Request
from zope.interface.verify import verifyObject

from socketwarp.errors import ConfigurationError
from socketwarp.identity.http import Answer, _Policy, explain, fetch, webAgent
from socketwarp.identity.pem import PrivateKey, SettingFile
from tests.certs import Authority, Issued, keyPem, newKey, writeFile


class _Echo(Resource):
    """Answers with what it was sent."""

    isLeaf = True

    def render(self, request: Request) -> bytes:
        assert request.content is not None
        request.setHeader("Content-Type", "Text/Plain; charset=utf-8")
        body: bytes = request.content.read()
        return request.method + b" " + request.uri + b" " + body


class Calls(SynchronousTestCase):
    def fetch(self, method: bytes, body: bytes | None = None, limit: int = 1000) -> Deferred[Answer]:
        agent = cast(IAgent, RequestTraversalAgent(_Echo()))
        return ensureDeferred(fetch(agent, method, "http://a.example/x?y=1", {"A": "b"}, body, limit))

    def test_an_answer_has_its_type_without_parameters(self) -> None:
        answer = self.successResultOf(self.fetch(b"GET"))
        self.assertEqual((answer.status, answer.contentType, answer.body), (200, "text/plain", b"GET /x?y=1 "))

    def test_a_body_is_sent_whole(self) -> None:
        answer = self.successResultOf(self.fetch(b"POST", b"\x00" * 500))
        self.assertEqual(answer.body, b"POST /x?y=1 " + b"\x00" * 500)

    def test_the_limit_counts_the_whole_body(self) -> None:
        self.successResultOf(self.fetch(b"POST", b"x" * 88, limit=100))
        error = self.failureResultOf(self.fetch(b"POST", b"x" * 89, limit=100)).value
        self.assertIn("more than 100 bytes", explain(error))

    def test_a_call_cancelled_while_it_connects_is_cancelled(self) -> None:
        reactor = MemoryReactorClock()
        asked = ensureDeferred(fetch(Agent(reactor), b"GET", "http://127.0.0.1/", {}))
        asked.cancel()
        self.failureResultOf(asked, CancelledError)

    def test_a_connection_attempt_that_was_given_up_counts_as_cancelled(self) -> None:
        class GivesUp:
            def request(self, *arguments: object) -> Deferred[object]:
                result: Deferred[object] = Deferred()
                result.errback(Failure(ConnectingCancelledError("somewhere")))
                return result

        self.failureResultOf(
            ensureDeferred(fetch(cast(IAgent, GivesUp()), b"GET", "http://a.example/", {})), CancelledError
        )

    def test_errors_are_explained_in_words(self) -> None:
        self.assertIn("no connection", explain(ConnectionRefusedError()))
        self.assertEqual(explain(KeyError()), "KeyError")
        self.assertEqual(explain(ValueError("a\nb")), "a\\nb")


class _Hello(Protocol):
    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"hello")


class _Heard(Protocol):
    data = b""

    def dataReceived(self, data: bytes) -> None:
        self.data += data


def _overTls(context: object, isClient: bool, protocol: Protocol, clock: Clock) -> Protocol:
    factory = Factory.forProtocol(lambda: protocol)
    # Any: TLSMemoryBIOFactory's context is one of two interfaces
    return cast(Protocol, TLSMemoryBIOFactory(cast(Any, context), isClient, factory, clock).buildProtocol(None))


class Tls(SynchronousTestCase):
    """The policy of `webAgent`, on real handshakes in memory."""

    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.mkdir(self.directory)
        self.authority = Authority("Root")
        self.paths = self.authority.issue("client").write(self.directory)
        self.cert, self.key = SettingFile("CERT", self.paths.cert), SettingFile("KEY", self.paths.key)
        self.ca = SettingFile("CA", self.paths.ca)

    def policy(self, ca: SettingFile | None, *own: SettingFile) -> _Policy:
        agent = webAgent(MemoryReactorClock(), ca, *own)
        return cast(_Policy, cast(Agent, agent)._endpointFactory.policy)

    def spoken(self, policy: _Policy, served: Issued) -> bytes:
        """What the server hears from a client that says hello as soon as it may."""
        options = CertificateOptions(
            privateKey=crypto.PKey.from_cryptography_key(cast(PrivateKey, served.key)),
            certificate=crypto.X509.from_cryptography(served.cert),
        )
        creator = policy.creatorForNetloc(b"localhost", 443)
        heard, clock = _Heard(), Clock()
        _, _, pump = connectedServerAndClient(
            lambda: _overTls(options, False, heard, clock), lambda: _overTls(creator, True, _Hello(), clock)
        )
        pump.flush()
        clock.advance(0)  # Twisted joins small writes of one turn
        pump.flush()
        return heard.data

    def test_it_is_a_policy(self) -> None:
        self.assertTrue(verifyObject(IPolicyForHTTPS, self.policy(None)))

    def test_a_server_of_our_ca_is_spoken_to(self) -> None:
        self.assertEqual(self.spoken(self.policy(self.ca), self.authority.server()), b"hello")

    def test_a_server_of_another_ca_is_not(self) -> None:
        self.assertEqual(self.spoken(self.policy(self.ca), Authority("Other").server()), b"")

    def test_a_server_with_another_name_is_not(self) -> None:
        self.assertEqual(self.spoken(self.policy(self.ca), self.authority.server("other.example")), b"")

    def test_without_a_ca_file_the_systems_roots_count(self) -> None:
        self.assertEqual(self.spoken(self.policy(None), self.authority.server()), b"")

    def test_our_certificate_is_shown_with_its_intermediates(self) -> None:
        middle = self.authority.intermediate().issue("client").write(self.directory)
        policy = self.policy(self.ca, SettingFile("CERT", middle.cert), SettingFile("KEY", middle.key))
        self.assertEqual(len(cast("list[object]", policy.own["extraCertChain"])), 1)
        self.assertEqual(self.spoken(policy, self.authority.server()), b"hello")

    def test_the_key_of_another_certificate_is_named(self) -> None:
        other = SettingFile("KEY", writeFile(self.directory, "other.key", keyPem(newKey())))
        error = self.assertRaises(ConfigurationError, webAgent, MemoryReactorClock(), self.ca, self.cert, other)
        self.assertIn("KEY", str(error))

    def test_a_certificate_without_its_key_is_a_mistake_in_the_settings(self) -> None:
        error = self.assertRaises(ConfigurationError, webAgent, MemoryReactorClock(), self.ca, self.cert)
        self.assertIn("go together", str(error))
