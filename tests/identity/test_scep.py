from typing import cast
from urllib.parse import quote, quote_plus

from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer
from zope.interface.verify import verifyObject

from socketwarp.errors import CertificateRejected, ConfigurationError, VerifierFault, VerifierRefused
from socketwarp.identity.chains import Standing, standsAnyway
from socketwarp.identity.http import Answer
from socketwarp.identity.scep import MAX_REMEMBERED, ScepVerifier, decision, headerValue, scepAgent
from socketwarp.interfaces import Identity, IVerifier
from tests.certs import DAY, Authority, Issued, pem
from tests.scepenrol import Dropped
from tests.scepserver import Behaviour, FakeScep, verifyAnswer

URL = "http://scep.example:3000/api/cert/verify"
#: A leaf for tests that don't reach the server.
LEAF = Authority("Another").issue().cert


@implementer(IAgent)
class _Agent:
    """Counts calls on their way to the fake server, and can hold them back or refuse them."""

    def __init__(self, state: FakeScep) -> None:
        self._real = RequestTraversalAgent(state.resource())
        self.flush = self._real.flush
        self.calls = 0
        self.refuse = False
        self.held: list[Deferred[IResponse]] | None = None

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        self.calls += 1
        if self.refuse:
            return fail(ConnectionRefusedError())
        if self.held is not None:
            waiting: Deferred[IResponse] = Deferred()
            self.held.append(waiting)
            return waiting
        return cast("Deferred[IResponse]", self._real.request(method, uri, headers, bodyProducer))  # treq is untyped


def _fallen(leaf: x509.Certificate) -> None:
    raise CertificateRejected("CN=swc-1: certificate revoked", 44)


class ScepTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = FakeScep()
        self.client = self.server.issue("swc-1")
        self.agent, self.clock = _Agent(self.server), Clock()
        self.verifier = self.makeVerifier()

    def makeVerifier(self, **options: float) -> ScepVerifier:
        clock = cast(IReactorTime, self.clock)
        return ScepVerifier(URL, self.agent, clock, **options)  # type: ignore[arg-type]  # numbers by keyword

    def outcome(self, asked: Deferred[Identity], seconds: float = 5.0) -> Identity | Exception:
        """What comes of it within `seconds`, retries included."""
        results: list[Identity | Exception] = []
        asked.addCallbacks(results.append, lambda failure: results.append(failure.value))
        for _ in range(round(seconds * 8)):
            self.agent.flush()
            if results:
                break
            self.clock.advance(0.125)
        self.assertEqual(len(results), 1, "no decision in time")
        return results[0]

    def verify(self, leaf: x509.Certificate | Issued) -> Identity | Exception:
        return self.outcome(self.verifier.verify(leaf.cert if isinstance(leaf, Issued) else leaf))

    def assertAdmitted(self, leaf: x509.Certificate | Issued, uid: str) -> Identity:
        found = self.verify(leaf)
        assert isinstance(found, Identity), found
        self.assertEqual(found.uid, uid)
        return found

    def assertRefused(self, leaf: x509.Certificate | Issued, text: str) -> None:
        error = self.verify(leaf)
        self.assertIsInstance(error, VerifierRefused)
        self.assertIn(text, str(error))

    def assertFault(self, leaf: x509.Certificate | Issued, text: str) -> None:
        error = self.verify(leaf)
        self.assertIsInstance(error, VerifierFault)
        self.assertIn(text, str(error))


class Decisions(ScepTestCase):
    def test_it_is_a_verifier(self) -> None:
        self.assertTrue(verifyObject(IVerifier, self.verifier))

    def test_a_good_certificate_is_admitted_with_its_attributes(self) -> None:
        self.server.add("swc-1", site="north")
        found = self.assertAdmitted(self.client, "swc-1")
        self.assertEqual(found.attributes, {"site": "north"})
        self.assertIs(found.leaf, self.client.cert)

    def test_another_ca_is_refused(self) -> None:
        self.assertRefused(Authority("Another").issue("swc-1"), "Failed to verify certificate")

    def test_an_expired_certificate_is_refused(self) -> None:
        old = self.server.authority.issue("swc-1", notBefore=-2 * DAY, notAfter=-DAY)
        self.assertRefused(old, "Certificate is expired")

    def test_a_revoked_certificate_is_refused(self) -> None:
        self.server.revoked.add(self.client.cert.serial_number)
        self.assertRefused(self.client, "Certificate is revoked")

    def test_an_unknown_client_is_refused(self) -> None:
        del self.server.clients["swc-1"]
        self.assertRefused(self.client, "User Not Found")

    def test_a_database_that_is_down_is_a_fault(self) -> None:
        self.server.behaviour = Behaviour.DATABASE
        self.assertFault(self.client, "500: Failed to get RCs")

    def test_a_wrong_path_is_a_fault(self) -> None:
        self.verifier = ScepVerifier(URL + "/", self.agent, cast(IReactorTime, self.clock))
        self.assertFault(self.client, "404: no reason given")

    def test_a_connection_closed_without_an_answer_is_a_fault(self) -> None:
        self.server.behaviour = Behaviour.CLOSE
        self.assertFault(self.client, "no whole answer")

    def test_half_an_answer_is_a_fault(self) -> None:
        self.server.behaviour = Behaviour.HALF
        self.assertFault(self.client, "no whole answer")

    def test_a_server_that_says_nothing_is_a_fault_after_five_seconds(self) -> None:
        self.server.behaviour = Behaviour.SLOW
        self.assertFault(self.client, "no decision within 5 s")
        self.assertAlmostEqual(self.clock.seconds(), 5.0)

    def test_a_server_that_stops_in_the_middle_is_a_fault_after_five_seconds(self) -> None:
        self.server.behaviour = Behaviour.STALL
        self.assertFault(self.client, "no decision within 5 s")

    def test_a_huge_answer_is_a_fault(self) -> None:
        self.server.behaviour = Behaviour.HUGE
        self.assertFault(self.client, "more than 65536 bytes")

    def test_a_redirect_is_a_fault_and_is_not_followed(self) -> None:
        self.server.behaviour = Behaviour.REDIRECT
        self.assertFault(self.client, "answered 302")
        self.assertEqual(self.agent.calls, self.server.asked)

    def test_a_wrong_type_is_a_fault(self) -> None:
        self.server.behaviour = Behaviour.WRONG_TYPE
        self.assertFault(self.client, "text/html")

    def test_no_json_is_a_fault(self) -> None:
        self.server.behaviour = Behaviour.NONSENSE
        self.assertFault(self.client, "no JSON")

    def test_wrong_json_is_a_fault(self) -> None:
        self.server.behaviour = Behaviour.WRONG_JSON
        for body in (
            "null",
            "[]",
            '"swc-1"',
            "{}",
            '{"uid": null}',
            '{"uid": ""}',
            '{"uid": ["swc-1"]}',
            '{"uid": "swc-1\\n"}',
            '{"uid": " swc-1"}',
            '{"uid": "\\ud800"}',
            '{"uid": "' + "x" * 300 + '"}',
            '{"uid": "swc-1", "attributes": []}',
            '{"uid": "swc-1"',
            "[" * 60_000,
        ):
            self.server.wrongJson = body
            self.assertIsInstance(self.verify(self.client), VerifierFault, body)

    def test_an_unreachable_server_is_a_fault(self) -> None:
        self.agent.refuse = True
        self.assertFault(self.client, "no connection")

    @given(st.integers(100, 599), st.sampled_from(["application/json", "", "text/html"]), st.binary(max_size=64))
    def test_only_a_2xx_with_a_uid_ever_admits(self, status: int, contentType: str, body: bytes) -> None:
        try:
            decided = decision(Answer(status, contentType, body), LEAF)
        except VerifierFault:
            self.assertNotEqual(status, 401)
            return
        self.assertTrue(isinstance(decided, str) if status == 401 else b"uid" in body)


class Manners(ScepTestCase):
    def test_a_fault_is_asked_about_again_and_may_turn_out_well(self) -> None:
        self.server.behaviour = Behaviour.CLOSE
        asked = self.verifier.verify(self.client.cert)
        self.agent.flush()
        self.server.behaviour = Behaviour.PROPER
        found = self.outcome(asked)
        assert isinstance(found, Identity), found
        self.assertEqual(self.agent.calls, 2)

    def test_a_fault_is_asked_about_three_times_and_no_more(self) -> None:
        self.agent.refuse = True
        self.verify(self.client)
        self.assertEqual(self.agent.calls, 3)

    def test_a_decision_is_not_asked_for_again(self) -> None:
        self.server.revoked.add(self.client.cert.serial_number)
        self.verify(self.client)
        self.assertEqual(self.agent.calls, 1)

    def test_decisions_are_remembered_for_a_moment(self) -> None:
        for leaf in (self.client.cert, LEAF):
            first, second = self.verify(leaf), self.verify(leaf)
            self.assertEqual((type(first), str(first)), (type(second), str(second)))
        self.assertEqual(self.agent.calls, 2)
        self.clock.advance(3.0)
        self.verify(self.client)
        self.assertEqual(self.agent.calls, 3)

    def test_faults_are_not_remembered(self) -> None:
        self.server.behaviour = Behaviour.NONSENSE
        self.verify(self.client)
        self.server.behaviour = Behaviour.PROPER
        self.assertAdmitted(self.client, "swc-1")

    def test_remembering_can_be_turned_off(self) -> None:
        self.verifier = self.makeVerifier(cacheSeconds=0)
        self.verify(self.client)
        self.server.revoked.add(self.client.cert.serial_number)
        self.assertRefused(self.client, "revoked")

    def test_what_is_remembered_is_bounded(self) -> None:
        for number in range(MAX_REMEMBERED + 10):
            self.verifier._remember(str(number), "refused")
        self.assertEqual(len(self.verifier._remembered), MAX_REMEMBERED)
        self.clock.advance(3.0)
        self.verifier._remember("last", "refused")
        self.assertEqual(list(self.verifier._remembered), ["last"])

    def test_calls_at_a_time_are_limited_and_so_are_those_that_wait(self) -> None:
        self.agent.held = []
        self.verifier = self.makeVerifier(maxCalls=2, maxWaiting=3)
        asked = [self.verifier.verify(self.server.issue(f"swc-{each}").cert) for each in range(5)]
        self.assertEqual(self.agent.calls, 2)
        error = self.failureResultOf(self.verifier.verify(self.client.cert), VerifierFault).value
        self.assertIn("3 certificates wait", str(error))
        self.clock.advance(5.0)
        for each in asked:
            self.failureResultOf(each, VerifierFault)

    def test_who_asks_about_one_certificate_at_a_time_shares_a_call(self) -> None:
        self.server.behaviour = Behaviour.SLOW
        asked = [self.verifier.verify(self.client.cert) for _ in range(500)]
        self.assertEqual(self.agent.calls, 1)
        asked.pop(0).addErrback(lambda failure: None)
        asked[0].cancel()
        self.failureResultOf(asked.pop(0), VerifierFault)
        self.clock.advance(5.0)
        for each in asked:
            self.failureResultOf(each, VerifierFault)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.server.behaviour = Behaviour.PROPER
        self.assertAdmitted(self.client, "swc-1")
        self.assertEqual(self.agent.calls, 2)

    def test_a_shared_call_goes_on_for_the_others_and_ends_with_the_last(self) -> None:
        self.agent.held = []
        first, second = self.verifier.verify(self.client.cert), self.verifier.verify(self.client.cert)
        first.cancel()
        self.failureResultOf(first, VerifierFault)
        self.assertFalse(self.agent.held[0].called)
        second.cancel()
        self.failureResultOf(second, VerifierFault)
        self.assertTrue(self.agent.held[0].called)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopping_gives_every_question_up_and_leaves_no_timer(self) -> None:
        self.server.behaviour = Behaviour.SLOW
        asked = self.verifier.verify(self.client.cert)
        self.agent.flush()
        self.verifier.stop()
        self.failureResultOf(asked, VerifierFault)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.failureResultOf(self.verifier.verify(self.client.cert), VerifierFault)
        self.assertEqual(self.agent.calls, 1)

    def test_stopping_between_two_attempts_ends_them(self) -> None:
        self.agent.refuse = True
        asked = self.verifier.verify(self.client.cert)
        self.verifier.stop()
        self.failureResultOf(asked, VerifierFault)
        self.assertEqual((self.agent.calls, self.clock.getDelayedCalls()), (1, []))

    def test_stopping_in_the_middle_of_an_answer_drops_it(self) -> None:
        self.server.behaviour = Behaviour.STALL
        asked = self.verifier.verify(self.client.cert)
        self.agent.flush()
        self.verifier.stop()
        self.agent.flush()
        self.failureResultOf(asked, VerifierFault)


class TheFake(SynchronousTestCase):
    """The fake server answers as SCEP.md's table says, so that tests against it mean something."""

    def setUp(self) -> None:
        self.server = FakeScep()
        self.leaf = self.server.issue("swc-1").cert

    def answer(self, *headers: str) -> tuple[int, bytes]:
        found = verifyAnswer(self.server, headers)
        return found.status, found.body

    def dropped(self, header: str) -> None:
        self.assertRaises(Dropped, self.answer, header)

    def test_only_the_first_block_counts(self) -> None:
        ca = self.server.authority.cert
        self.assertEqual(self.answer(quote(pem(self.leaf, ca), safe=""))[0], 200)
        self.assertEqual(self.answer(quote(pem(ca, self.leaf), safe=""))[0], 401)
        self.assertEqual(self.answer(quote(pem(self.leaf).replace(b"\n", b"\r\n"), safe=""))[0], 200)

    def test_what_it_cant_decode_closes_the_connection(self) -> None:
        for header in (quote_plus(pem(self.leaf)), "nonsense", "", pem(self.leaf).decode().replace("\n", " ")):
            self.dropped(header)

    def test_headers_that_arent_one_certificate(self) -> None:
        good = headerValue(self.leaf)
        self.assertEqual(self.answer(), (500, b'{"message": "No Certificate"}'))
        self.assertEqual(self.answer(good, good), (500, b'{"message": "No Certificate"}'))
        self.assertEqual(self.answer("%ZZ"), (500, b'{"message": "Decode header failed"}'))
        nonsense = quote("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", safe="")
        self.assertEqual(self.answer(nonsense), (500, b'{"message": "Parse Certificate failed"}'))

    def test_the_header_has_no_byte_that_a_proxy_might_touch(self) -> None:
        self.assertRegex(headerValue(self.leaf), r"\A[A-Za-z0-9%._~-]+\Z")


class OurOwnKnowledge(ScepTestCase):
    """What our revocation lists say counts before the server's word, and whatever is remembered of it."""

    def test_a_certificate_that_we_know_to_be_revoked_is_refused_without_asking(self) -> None:
        verifier = ScepVerifier(URL, self.agent, cast(IReactorTime, self.clock), standing=_fallen)
        refused = self.outcome(verifier.verify(self.client.cert))
        self.assertIsInstance(refused, VerifierRefused)
        self.assertEqual((str(refused), self.agent.calls), ("CN=swc-1: certificate revoked", 0))

    def test_a_remembered_admission_doesnt_help_it(self) -> None:
        standing: list[Standing] = [standsAnyway]
        verifier = ScepVerifier(
            URL, self.agent, cast(IReactorTime, self.clock), standing=lambda leaf: standing[0](leaf)
        )
        self.assertIsInstance(self.outcome(verifier.verify(self.client.cert)), Identity)
        standing[0] = _fallen
        self.assertIsInstance(self.outcome(verifier.verify(self.client.cert)), VerifierRefused)


class TheAgentOfTheSettings(SynchronousTestCase):
    def test_an_error_names_the_setting(self) -> None:
        for at, name in enumerate(("SWL_SCEP_CA_PATH", "SWL_SCEP_CERT_PATH", "SWL_SCEP_KEY_PATH")):
            paths = [None, None, None, "/nowhere", None, None, None][3 - at : 6 - at]
            error = self.assertRaises(ConfigurationError, scepAgent, MemoryReactor(), *paths)
            self.assertIn(name, str(error))

    def test_without_files_the_systems_roots_are_trusted(self) -> None:
        verifyObject(IAgent, scepAgent(MemoryReactor(), None, None, None))
