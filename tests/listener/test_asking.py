"""Does it work, and if not, who says no."""

import json
from collections.abc import Callable
from ipaddress import IPv4Network
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from socketwarp.errors import Code, TargetDenied, TargetTimedOut
from socketwarp.interfaces import IStream, IStreamReceiver, Piece
from socketwarp.listener.api import asking
from socketwarp.listener.probe import Probed, _Listening
from socketwarp.listener.visitors import Limits
from socketwarp.listener.wishes import PortLimits, PortSpec
from socketwarp.rules.policy import parsePolicy
from socketwarp.settings import PortRange
from socketwarp.wire.dialect import DIALECTS, Dialled
from socketwarp.wire.preamble import Preamble
from tests.listener.client import Client
from tests.listener.rig import Rig

JSON = Any  # Any: whatever the API says


@implementer(IStreamReceiver)
class Target:
    """A connector and its target behind a stream: `answer` is called with each preamble and stream."""

    def __init__(self, alpn: str, stream: IStream, answer: "Callable[[Preamble, IStream], None]") -> None:
        self.received = bytearray()
        self.reason: Failure | None = None
        self._parser = DIALECTS[alpn].preambleParser()
        self._parsed = False
        self._stream = stream
        self._answer = answer
        stream.start(self)

    def piecesReceived(self, pieces: list[Piece]) -> None:
        if not self._parsed:
            taken = self._parser.feed(pieces)
            if taken is None:
                return
            self._parsed = True
            preamble, pieces = taken
            self._answer(preamble, self._stream)
        self.received += b"".join(pieces)

    def readConnectionLost(self) -> None: ...

    def writeConnectionLost(self, errorCode: int) -> None: ...

    def connectionLost(self, reason: Failure) -> None:
        self.reason = reason


class AskingTestCase(SynchronousTestCase):
    """A listener with one connector, and a client of its API."""

    def setUp(self) -> None:
        self.rig = Rig()
        self.session = self.rig.connected("uid-1")
        self.client = Client(self.rig)
        self.targets: list[Target] = []

    def connector(self, alpn: str, answer: Callable[[Preamble, IStream], None]) -> None:
        """Behave as a connector of that protocol does."""
        self.session.protocol = alpn
        self.session.other.acceptStreams(lambda stream: self.targets.append(Target(alpn, stream, answer)))

    def dialling(self, *said: bytes) -> Callable[[Preamble, IStream], None]:
        """It dials, and the target says something."""
        dialled = DIALECTS[self.session.protocol].formatDialled(Dialled("10.0.0.5:80"))
        return lambda preamble, stream: stream.writeSequence([dialled, *said])

    def ask(self, path: str, body: dict[str, object], seconds: float = 0.0) -> tuple[int, JSON]:
        transport = self.begin(path, body)
        self.rig.settle()
        self.rig.reactor.advance(seconds)
        self.rig.settle()
        self.client.transport = transport
        status, _, text = self.client.answer()
        return status, json.loads(text)

    def begin(self, path: str, body: dict[str, object]) -> StringTransportWithDisconnection:
        self.client.connect()
        data = json.dumps(body).encode()
        self.client.send(f"POST {path} HTTP/1.1\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        return self.client.transport

    def probe(self, seconds: float = 0.0, /, **changed: object) -> tuple[int, JSON]:
        return self.ask("/v1/probe", {"uid": "uid-1", "host": "db", "port": 5432} | changed, seconds)


class ProbeTests(AskingTestCase):
    """A real stream to a target."""

    def setUp(self) -> None:
        super().setUp()
        self.session.protocol = "socketwarp/1"

    def test_aTargetThatIsDialled(self) -> None:
        asked: list[Preamble] = []

        def answer(preamble: Preamble, stream: IStream) -> None:
            asked.append(preamble)
            self.rig.reactor.callLater(0.25, self.dialling(), preamble, stream)

        self.connector("socketwarp/1", answer)
        status, probed = self.probe(0.25)
        self.assertEqual((200, "dialled", "10.0.0.5:80"), (status, probed["outcome"], probed["dialled"]))
        self.assertEqual((0, 0.25, None), tuple(probed[f"{step}_seconds"] for step in ("stream", "dial", "byte")))
        (preamble,) = asked
        self.assertEqual(("db", 5432, None), (preamble.host, preamble.port, preamble.visitor))

    def test_resolvingAndConnectingAreTimedByThemselves(self) -> None:
        asked: list[Preamble] = []

        def answer(preamble: Preamble, stream: IStream) -> None:
            asked.append(preamble)
            stream.write(DIALECTS["socketwarp/1"].formatDialled(Dialled("10.0.0.5:80", 0.25, 0.5)))

        self.connector("socketwarp/1", answer)
        probed = self.probe()[1]
        self.assertEqual((0.25, 0.5), (probed["resolve_seconds"], probed["connect_seconds"]))
        self.assertTrue(asked[0].isTimed)

    def test_anOlderConnectorDoesNotSayIt(self) -> None:
        self.connector("socketwarp/1", self.dialling())
        probed = self.probe()[1]
        self.assertEqual(
            ("dialled", None, None), (probed["outcome"], probed["resolve_seconds"], probed["connect_seconds"])
        )

    def test_aTargetThatTimedOutAtTheConnectorHasFailed(self) -> None:
        def answer(preamble: Preamble, stream: IStream) -> None:
            refusal = DIALECTS["socketwarp/1"].formatRefusal(TargetTimedOut("it didn't answer"))
            self.rig.reactor.callLater(2, stream.write, refusal)

        self.connector("socketwarp/1", answer)
        probed = self.probe(2, send="x")[1]
        self.assertEqual(("timed-out", 2), (probed["outcome"], probed["dial_seconds"]))

    def test_aTargetThatAnswers(self) -> None:
        self.connector("socketwarp/1", self.dialling(b"HTTP/1.1 200", b" OK\xff"))
        _, probed = self.probe(send="GET / HTTP/1.0\r\n\r\n")
        self.assertEqual(("answered", "HTTP/1.1 200 OK\\xff"), (probed["outcome"], probed["received"]))
        self.assertEqual(b"GET / HTTP/1.0\r\n\r\n", self.targets[0].received)

    def test_ofALongAnswerTheBeginningIsKept(self) -> None:
        self.connector("socketwarp/1", self.dialling(b"x" * 2000))
        self.assertEqual("x" * 1024, self.probe(send="x")[1]["received"])

    def test_aTargetThatEndsWithoutAWord(self) -> None:
        def answer(preamble: Preamble, stream: IStream) -> None:
            self.dialling()(preamble, stream)
            stream.loseWriteConnection()

        self.connector("socketwarp/1", answer)
        self.assertEqual("closed", self.probe(send="x")[1]["outcome"])

    def test_aTargetThatSaysNothing(self) -> None:
        self.connector("socketwarp/1", self.dialling())
        _, probed = self.probe(10, send="x")
        self.assertEqual(("dialled", None), (probed["outcome"], probed["byte_seconds"]))

    def test_aTargetThatIsRefused(self) -> None:
        def answer(preamble: Preamble, stream: IStream) -> None:
            stream.write(DIALECTS["socketwarp/1"].formatRefusal(TargetDenied("not among SWC_ALLOW_TARGETS")))

        self.connector("socketwarp/1", answer)
        status, probed = self.probe()
        self.assertEqual((200, "denied", "not among SWC_ALLOW_TARGETS"), (status, probed["outcome"], probed["reason"]))

    def test_aConnectorThatDoesNotAnswer(self) -> None:
        self.connector("socketwarp/1", lambda preamble, stream: None)
        _, probed = self.probe(2, seconds=2)
        self.assertEqual("timed-out", probed["outcome"])

    def test_aConnectorThatTakesNoStream(self) -> None:
        self.session.streamLimit = 0
        _, probed = self.probe(10)
        self.assertEqual(("limit", None), (probed["outcome"], probed["stream_seconds"]))

    def test_anAnswerThatIsNone(self) -> None:
        self.connector("socketwarp/1", lambda preamble, stream: stream.write(b"\0\2{]"))
        self.assertEqual("malformed-preamble", self.probe()[1]["outcome"])

    def test_theOriginalsProtocolOnlyHasBytes(self) -> None:
        self.connector("hq-29", lambda preamble, stream: stream.write(b"SSH-2.0"))
        _, probed = self.probe()
        self.assertEqual(
            ("answered", "SSH-2.0", None), tuple(probed[name] for name in ("outcome", "received", "dialled"))
        )

    def test_whereSilenceTellsNothing(self) -> None:
        self.connector("hq-29", lambda preamble, stream: None)
        self.assertEqual(("unknown", None), tuple(self.probe(10)[1][name] for name in ("outcome", "reason")))

    def test_andAResetIsAFailure(self) -> None:
        self.connector("hq-29", lambda preamble, stream: stream.abort(Code.ABORTED))
        self.assertEqual("stream-reset", self.probe()[1]["outcome"])

    def test_nothingOfItStays(self) -> None:
        self.connector("socketwarp/1", self.dialling())
        self.probe()
        self.rig.settle()
        self.assertEqual({}, self.session.streams)
        self.assertEqual((0, 0), (self.client.api.probing, next(iter(self.rig.connectors)).visitors))

    def test_norOfOneWhoseCallerLeaves(self) -> None:
        self.connector("socketwarp/1", lambda preamble, stream: None)
        transport = self.begin("/v1/probe", {"uid": "uid-1", "host": "db", "port": 1})
        self.rig.settle()
        transport.loseConnection()
        self.rig.settle()
        self.assertEqual(({}, 0), (self.session.streams, self.client.api.probing))

    def test_thereIsALimitToThem(self) -> None:
        self.patch(asking, "PROBE_LIMIT", 1)
        self.connector("socketwarp/1", lambda preamble, stream: None)
        self.begin("/v1/probe", {"uid": "uid-1", "host": "db", "port": 1})
        self.assertEqual((503, "limit"), (lambda answer: (answer[0], answer[1]["code"]))(self.probe()))

    def test_anAbsentConnectorIsNotFound(self) -> None:
        self.assertEqual(404, self.probe(uid="uid-2")[0])

    def test_itIsInTheAuditLog(self) -> None:
        self.connector("socketwarp/1", self.dialling())
        self.probe()
        (told,) = self.rig.told("api.changed")
        self.assertEqual(
            ("probe", "uid-1 db 5432", "dialled"), tuple(told[name] for name in ("action", "subject", "outcome"))
        )

    def test_whatListensIsAReceiver(self) -> None:
        verifyObject(IStreamReceiver, _Listening(self.rig.reactor, Probed(), DIALECTS["hq-29"], False))


class ExplainTests(AskingTestCase):
    """Every question on a visitor's way."""

    def setUp(self) -> None:
        super().setUp()
        self.wish()

    def wish(self, **limits: Any) -> None:  # Any: fields of PortLimits
        spec = PortSpec(18080, "uid-1", "db", 5432, limits=PortLimits(**limits))
        if self.rig.ports.specs():
            self.successResultOf(self.rig.ports.change(spec))
        else:
            self.successResultOf(self.rig.ports.desire(spec))

    def explain(self, **changed: object) -> tuple[bool | None, dict[str, JSON]]:
        """The answer, and the steps by their questions."""
        status, told = self.ask("/v1/explain", {"port": 18080, "source": "192.0.2.1"} | changed)
        self.assertEqual((200, "db:5432"), (status, told["target"]))
        return told["allowed"], {step["question"]: step for step in told["steps"]}

    def test_whatOnlyTheConnectorKnowsIsNotGuessed(self) -> None:
        allowed, steps = self.explain()
        self.assertIsNone(allowed)
        self.assertEqual(["target"], [name for name, step in steps.items() if step["allowed"] is not True])

    def test_theConnectorIsAskedByDialling(self) -> None:
        self.session.protocol = "socketwarp/1"
        self.connector("socketwarp/1", self.dialling())
        allowed, steps = self.explain(dial=True)
        self.assertEqual((True, "connector"), (allowed, steps["target"]["end"]))
        self.assertIn("10.0.0.5:80", steps["target"]["rule"])

    def test_aSilentConnectorIsHereAndWaitedFor(self) -> None:
        self.session.isSilent = True
        step = self.explain()[1]["connector"]
        self.assertTrue(step["allowed"])
        self.assertIn("but silent; a visitor waits", step["rule"])

    def test_andItsRefusalIsExplained(self) -> None:
        def answer(preamble: Preamble, stream: IStream) -> None:
            stream.write(DIALECTS["socketwarp/1"].formatRefusal(TargetDenied("not among SWC_ALLOW_TARGETS")))

        self.connector("socketwarp/1", answer)
        allowed, steps = self.explain(dial=True)
        self.assertEqual((False, "denied: not among SWC_ALLOW_TARGETS"), (allowed, steps["target"]["rule"]))

    def test_whoeverSaysNoIsNamed(self) -> None:
        office = parsePolicy("[[visitor]]\nsources = ['10.0.0.0/8']").visitor[0].sources
        self.rig.visit(18080)
        self.rig.settle()
        for prepare, question, words in (
            (lambda: self.wish(sources=office), "port-sources", "10.0.0.0/8"),
            (lambda: self.enforce("[[visitor]]\nsources = ['10.0.0.0/8']"), "policy-visitor", "no [[visitor]] rule"),
            (lambda: self.enforce("[[port]]\nuids = ['x']"), "policy-port", "no [[port]] rule"),
            (lambda: self.allow(PortRange(1, 2), PortRange(9, 9)), "allow-ports", "SWL_ALLOW_PORTS: 1-2, 9"),
            (lambda: self.pause("4 bytes of memory are used up"), "accepting", "for now: 4 bytes of memory"),
            (lambda: self.limit(Limits(perPort=1)), "limit-port", "1 of 1 visitors are here, which is every port's"),
            (lambda: self.limit(Limits(total=1)), "limit-total", "1 of 1 visitors of all ports"),
            (lambda: self.wish(atOnce=1), "port-at-once", "1 of 1 visitors are here"),
            (lambda: self.session.close(0, ""), "connector", "no connector of uid-1"),
        ):
            self.enforce("")
            self.allow()
            self.pause("")
            self.limit(Limits())
            self.wish()
            prepare()
            allowed, steps = self.explain()
            self.assertEqual((False, False), (allowed, steps[question]["allowed"]), question)
            self.assertIn(words, steps[question]["rule"])

    def allow(self, *ranges: PortRange) -> None:
        self.rig.ports.allowed = ranges

    def pause(self, reason: str) -> None:
        self.rig.lobby.pausedBy = lambda: reason

    def limit(self, limits: Limits) -> None:
        self.rig.lobby.limits = limits

    def test_whoIsAwayIsNotAsked(self) -> None:
        self.session.close(0, "")
        allowed, steps = self.explain(dial=True)
        self.assertEqual((False, None), (allowed, steps["target"]["allowed"]))
        self.assertEqual("nobody is here to be asked", steps["target"]["rule"])

    def test_aPortThatIsNotBoundOrIsClosing(self) -> None:
        step = self.explain()[1]["open"]
        self.assertEqual((True, "it is bound to 0.0.0.0"), (step["allowed"], step["rule"]))
        entry = self.rig.ports.entry(18080)
        self.successResultOf(Deferred.fromCoroutine(entry.unbind("another program has it")))
        step = self.explain()[1]["open"]
        self.assertEqual((False, "another program has it"), (step["allowed"], step["rule"]))
        self.successResultOf(self.rig.ports.stopListening())
        step = self.explain()[1]["open"]
        self.assertEqual((False, True), (step["allowed"], "it is being closed" in step["rule"]))

    def test_aVisitorsAddressIsReadAsAPortReadsIt(self) -> None:
        self.wish(sources=parsePolicy("[[visitor]]\nsources = ['192.0.2.0/24']").visitor[0].sources)
        for source in ("192.0.2.1", "::ffff:192.0.2.1", "::FFFF:C000:201"):
            self.assertTrue(self.explain(source=source)[1]["port-sources"]["allowed"], source)
        self.assertFalse(self.explain(source="fe80::1%eth0")[1]["port-sources"]["allowed"])

    def test_aLongListIsCut(self) -> None:
        self.wish(sources=tuple(IPv4Network(f"10.0.{each}.0/24") for each in range(200)))
        self.assertRegex(self.explain()[1]["port-sources"]["rule"], r"10\.0\.9\.0/24 and 190 more$")

    def enforce(self, rules: str) -> None:
        self.rig.lobby.policy = parsePolicy(rules)

    def test_aRateIsNotKnownBefore(self) -> None:
        self.enforce("[[rate]]\nconnections_per_second = 3")
        step = self.explain()[1]["policy-rate"]
        self.assertEqual((None, "3 connections a second, says the policy"), (step["allowed"], step["rule"]))

    def test_nobodyIsLetIn(self) -> None:
        self.wish(total=5)
        self.explain()
        self.assertEqual((0, []), (self.rig.ports.entry(18080).used, self.rig.told("visitor.connected")))

    def test_whatIsNoAddressOrPort(self) -> None:
        for changed, status in (({"source": "x"}, 400), ({"source": 1}, 400), ({"port": 1}, 404)):
            self.assertEqual(status, self.ask("/v1/explain", {"port": 18080, "source": "::1"} | changed)[0])
