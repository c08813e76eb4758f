"""The SCEP verifier over loopback sockets: what only a real connection can do to it."""

from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred, maybeDeferred
from twisted.trial.unittest import TestCase

from socketwarp.errors import VerifierFault, VerifierRefused
from socketwarp.identity import scep
from socketwarp.identity.http import webAgent
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
