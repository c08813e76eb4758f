"""The SCEP verifier over loopback sockets: what only a real connection can do to it."""

import os
from collections.abc import Callable
from typing import Any, cast

from OpenSSL import crypto
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred
from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import deferLater
from twisted.internet.tcp import Client, Connection
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from socketwarp.errors import VerifierFault, VerifierRefused
from socketwarp.identity import scep
from socketwarp.identity.http import webAgent
from socketwarp.identity.pem import PrivateKey, SettingFile
from socketwarp.identity.scep import ScepVerifier
from tests.certs import Authority
from tests.scepserver import Behaviour, FakeScep, listen, urlOf

#: Fails closed, each in its own way; the silent ones are in the unit tests, where five seconds pass at once.
FAULTS = [
    Behaviour.CLOSE,
    Behaviour.HALF,
    Behaviour.HUGE,
    Behaviour.REDIRECT,
    Behaviour.WRONG_TYPE,
    Behaviour.WRONG_JSON,
    Behaviour.NONSENSE,
    Behaviour.DATABASE,
]


class ScepOverSockets(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.patch(scep, "RETRY_PAUSES", ())
        self.server = FakeScep()
        self.leaf = self.server.issue("swc-1").cert
        self.port = listen(reactor, self.server)
        self.addCleanup(self.port.stopListening)
        self.url = f"{urlOf(self.port)}/api/cert/verify"
        self.verifier = ScepVerifier(self.url, webAgent(reactor), reactor)
        self.addCleanup(self.verifier.stop)

    async def checkAll(self) -> None:
        for behaviour in FAULTS:
            self.server.behaviour = behaviour
            await self.assertFailure(self.verifier.verify(self.leaf), VerifierFault)
        self.server.behaviour = Behaviour.PROPER
        self.assertEqual((await self.verifier.verify(self.leaf)).uid, "swc-1")
        await self.assertFailure(self.verifier.verify(Authority("Another").issue().cert), VerifierRefused)

    def test_every_fault_refuses_and_a_server_that_recovers_admits(self) -> object:
        return ensureDeferred(self.checkAll())

    def test_stopping_drops_a_connection_that_is_silent(self) -> object:
        self.server.behaviour = Behaviour.SLOW
        asked = self.assertFailure(self.verifier.verify(self.leaf), VerifierFault)
        self.verifier.stop()
        return asked

    def test_a_server_that_is_not_there_is_a_fault(self) -> object:
        async def check() -> None:
            await maybeDeferred(self.port.stopListening)
            error = await self.assertFailure(self.verifier.verify(self.leaf), VerifierFault)
            self.assertIn("no connection", str(error))

        return ensureDeferred(check())


@implementer(IPullProducer)
class _Endless(Protocol):
    """Answers with headers that never end."""

    begin = b"HTTP/1.1 200 OK\r\n"
    transport: Connection | None
    more = b"X-More: and more\r\n" * 4000

    def __init__(self) -> None:
        self.gone: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(self.begin)
        self.transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        assert self.transport is not None
        self.transport.write(self.more)

    def stopProducing(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone.callback(None)


class _EndlessBody(_Endless):
    begin = b"HTTP/1.1 200 OK\r\n\r\n"


class _Half(_Endless):
    """Answers with half of what it promises, and reads no more: not even that the other end would like to go."""

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        self.transport.pauseProducing()


class GivenUpAnswers(TestCase):
    """A call that failed leaves no connection behind, whatever the server does."""

    timeout = 60

    def setUp(self) -> None:
        self.patch(scep, "RETRY_PAUSES", ())
        self.directory = self.mktemp()
        os.mkdir(self.directory)
        authority = Authority("Root")
        self.served = authority.server()
        self.ca = SettingFile("CA", self.served.write(self.directory).ca)
        self.leaf = authority.issue("swc-1").cert

    def serve(self, answers: Protocol, isTls: bool) -> str:
        factory: Any = Factory.forProtocol(lambda: answers)  # Any: its type has no name that reactors take
        if isTls:
            options = CertificateOptions(
                privateKey=crypto.PKey.from_cryptography_key(cast(PrivateKey, self.served.key)),
                certificate=crypto.X509.from_cryptography(self.served.cert),
            )
            port = reactor.listenSSL(0, factory, options, interface="127.0.0.1")  # type: ignore[attr-defined]  # IReactorSSL
        else:
            port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return f"http{'s' if isTls else ''}://127.0.0.1:{port.getHost().port}/"

    async def check(self, make: Callable[[], _Endless], isTls: bool, deadline: float, *parts: str) -> None:
        answers = make()
        verifier = ScepVerifier(self.serve(answers, isTls), webAgent(reactor, self.ca), reactor, deadline)
        error = await self.assertFailure(verifier.verify(self.leaf), VerifierFault)
        for part in parts:
            self.assertIn(part, str(error))
        await deferLater(reactor, 0)  # Twisted tells of the end in the next turn
        left = [*reactor.getReaders(), *reactor.getWriters()]
        self.assertEqual([], [each for each in left if isinstance(each, Client)])
        if isinstance(answers, _Half):
            assert answers.transport is not None
            answers.transport.abortConnection()
        await answers.gone

    def test_headers_without_end_are_cut_off(self) -> object:
        return ensureDeferred(self.check(_Endless, False, 30.0, "more than 131072 bytes"))

    def test_headers_without_end_over_tls_are_cut_off(self) -> object:
        return ensureDeferred(self.check(_Endless, True, 30.0, "more than 131072 bytes"))

    def test_a_body_without_end_over_tls_is_cut_off(self) -> object:
        return ensureDeferred(self.check(_EndlessBody, True, 30.0, "more than 65536 bytes"))

    def test_half_an_answer_is_given_up(self) -> object:
        return ensureDeferred(self.check(_Half, False, 0.5, "no decision within"))

    def test_half_an_answer_over_tls_is_given_up(self) -> object:
        return ensureDeferred(self.check(_Half, True, 0.5, "no decision within"))
