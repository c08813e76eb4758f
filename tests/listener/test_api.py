"""The HTTP calls, byte for byte through the server that the listener starts."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.listener.api import server
from socketwarp.listener.api.access import Gate
from socketwarp.listener.api.bodies import BODY_LIMIT
from socketwarp.listener.api.server import IDLE_SECONDS
from socketwarp.listener.wishes import PortSpec
from socketwarp.settings import PortRange
from tests.listener.client import Client
from tests.listener.rig import Rig

OPEN = {"uid": "uid-1", "port": 18080, "connect_address": "10.0.0.5", "connect_port": 80}


class ApiTestCase(SynchronousTestCase):
    """A listener with one connector, and a client of its API."""

    def setUp(self) -> None:
        self.rig = Rig()
        self.rig.connected("uid-1")
        self.client = Client(self.rig)

    def openPort(self, **changed: object) -> tuple[int, str]:
        status, _, text = self.client.call("POST", "/open", json.dumps(OPEN | changed).encode())
        return status, text


class OriginalCallTests(ApiTestCase):
    """The original's three calls, with the original's words."""

    def test_openOpensAPort(self) -> None:
        self.assertEqual((200, "TcpListener created successfully!"), self.openPort())
        self.assertEqual([PortSpec(18080, "uid-1", "10.0.0.5", 80)], self.rig.ports.specs())

    def test_openWaitsForTheDisk(self) -> None:
        self.rig.store.slow = True
        self.client.send(b"POST /open HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(json.dumps(OPEN)))
        self.client.send(json.dumps(OPEN).encode())
        self.assertEqual(b"", self.client.transport.value())
        self.rig.store.finish()
        self.assertEqual(200, self.client.answer()[0])

    def test_aClientThatLeavesMeanwhileUndoesNothing(self) -> None:
        self.rig.store.slow = True
        self.openPortAndLeave()
        self.rig.store.finish()
        self.assertEqual(
            ([18080], [18080]), ([each.port for each in self.rig.ports.specs()], list(self.rig.store.disk))
        )

    def openPortAndLeave(self) -> None:
        body = json.dumps(OPEN).encode()
        self.client.send(b"POST /open HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        self.client.transport.loseConnection()

    def test_openForAnAbsentUidSaysSo(self) -> None:
        self.assertEqual((500, "No QUIC connection exists for the specified UID."), self.openPort(uid="uid-2"))
        self.assertEqual([], self.rig.ports.specs())

    def test_openOfAnOpenPortSaysSo(self) -> None:
        self.openPort()
        self.assertEqual((500, "port 18080 is open already; close it first"), self.openPort())

    def test_openOfATakenPortSaysSo(self) -> None:
        self.rig.sockets.taken.add(18080)
        self.assertEqual((500, "port 18080 can't be opened on 0.0.0.0: in use"), self.openPort())

    def test_openOfAForbiddenPortIsForbidden(self) -> None:
        self.rig.ports.allowed = (PortRange(1, 2),)
        self.assertEqual(403, self.openPort()[0])

    def test_theContentTypeDoesNotMatter(self) -> None:
        for contentType in ("application/x-www-form-urlencoded", "text/plain", "application/json; charset=utf-8"):
            self.rig.ports.withdraw(18080).addErrback(lambda _: None)
            answer = self.client.call("POST", "/open", json.dumps(OPEN).encode(), Content_Type=contentType)
            self.assertEqual(200, answer[0], contentType)

    def test_listReturnsTheObjectsGivenToOpen(self) -> None:
        self.assertEqual("[]", self.client.call("GET", "/list")[2])
        self.openPort()
        self.openPort(port=18081, connect_address="[::1]")
        status, headers, text = self.client.call("GET", "/list")
        self.assertEqual((200, "application/json"), (status, headers["content-type"]))
        self.assertEqual([OPEN, OPEN | {"port": 18081, "connect_address": "[::1]"}], json.loads(text))

    def test_whileNobodyCallsNothingIsDone(self) -> None:
        before = list(self.rig.reactor.getDelayedCalls())
        self.client.server.doStart()
        self.addCleanup(self.client.server.doStop)
        self.assertEqual(before, self.rig.reactor.getDelayedCalls())

    def test_closeClosesAPort(self) -> None:
        self.openPort()
        status, headers, text = self.client.call("DELETE", "/close", b'{"port": 18080}')
        self.assertEqual((200, "Task 18080 canceled"), (status, text))
        self.assertEqual("text/plain; charset=utf-8", headers["content-type"])
        self.assertEqual([], self.rig.ports.specs())

    def test_closeOfAPortThatIsNotOpenIsNotFound(self) -> None:
        status, _, text = self.client.call("DELETE", "/close", b'{"port": 18080}')
        self.assertEqual((404, "Task 18080 not found"), (status, text))

    def test_whatIsOnlyToBeTriedIsNotDone(self) -> None:
        """These calls have no arguments, and pass over others than this one, as the original does."""
        self.openPort()
        close, open = json.dumps({"port": 18080}).encode(), json.dumps(OPEN | {"port": 18081}).encode()
        for method, path, body in (("DELETE", "/close", close), ("POST", "/open", open)):
            for value in ("0", "1"):
                self.assertEqual(400, self.client.call(method, f"{path}?dry_run={value}", body)[0], path)
        self.assertEqual([18080], [spec.port for spec in self.rig.ports.specs()])
        self.assertEqual(200, self.client.call("DELETE", "/close?x=1", close)[0])

    def test_healthzAnswers(self) -> None:
        self.assertEqual((200, "ok"), self.client.call("GET", "/healthz")[::2])


class BadRequestTests(ApiTestCase):
    """What isn't a call is answered with the reason."""

    def refusal(self, body: bytes) -> str:
        status, headers, text = self.client.call("POST", "/open", body)
        self.assertEqual((400, "text/plain; charset=utf-8"), (status, headers["content-type"]))
        self.assertEqual([], self.rig.ports.specs())
        return text

    def refusalOf(self, **changed: object) -> str:
        return self.refusal(json.dumps(OPEN | changed).encode())

    def test_whatIsNotJson(self) -> None:
        for body in (b"", b"port=1", b"\xff\xfe\xfd", b"[" * 60_000, b"1" * 5000):
            self.assertIn("the body is not", self.refusal(body))

    def test_whatIsNotAnObject(self) -> None:
        for body in (b"[]", b"null", b"1", b'"x"'):
            self.assertEqual("the body is not a JSON object", self.refusal(body))

    def test_aMissingFieldIsNamed(self) -> None:
        self.assertIn("uid", self.refusal(json.dumps({key: OPEN[key] for key in OPEN if key != "uid"}).encode()))

    def test_anUnknownFieldIsNamed(self) -> None:
        self.assertIn("colour", self.refusalOf(colour="red"))

    def test_aWrongTypeIsNotGuessedAt(self) -> None:
        notPorts: tuple[object, ...] = ("80", True, 80.0, None, [80], {})
        for value in notPorts:
            self.assertIn("connect_port", self.refusalOf(connect_port=value))
        notTexts: tuple[object, ...] = (1, None, ["uid-1"], "")
        for value in notTexts:
            self.assertIn("uid", self.refusalOf(uid=value))
            self.assertIn("connect_address", self.refusalOf(connect_address=value))

    def test_aPortOutOfRange(self) -> None:
        for value in (0, -1, 65536, 10**30):
            self.assertIn("a whole number from 1 to 65535", self.refusalOf(port=value))

    def test_anAddressThatCannotBeOne(self) -> None:
        for value in ("a|b", "a b", "x" * 300, "::zz", "a\0b"):
            self.assertIn("connect_address", self.refusalOf(connect_address=value))

    def test_everythingThatIsWrongIsSaidAtOnce(self) -> None:
        text = self.refusal(b'{"uid": 1, "port": "x"}')
        for name in ("uid", "port", "connect_address", "connect_port"):
            self.assertIn(name, text)

    def test_halfACharacterIsAnsweredToo(self) -> None:
        self.assertIn("\\ud800", self.refusal(b'{"\\ud800": 1}'))

    def test_anUnknownPathIsNotFound(self) -> None:
        for path in ("/", "/opn", "/open/", "/%ff", "/list/x"):
            self.assertIn(self.client.call("GET", path)[0], (400, 404), path)

    def test_aWrongMethodIsNotAllowed(self) -> None:
        for method, path, allowed in (("GET", "/open", "POST"), ("POST", "/close", "DELETE"), ("PUT", "/list", "GET")):
            status, headers, _ = self.client.call(method, path)
            self.assertEqual(405, status)
            self.assertIn(allowed, headers["allow"])

    def test_aHostThatCannotBeOne(self) -> None:
        self.assertEqual(400, self.client.call("GET", "/list", Host="..")[0])
        self.client.connect()
        self.client.send(b"GET /list HTTP/1.1\r\nHost: \xff\r\n\r\n")
        self.assertEqual(400, self.client.answer()[0])

    def test_aHeaderThatIsNoText(self) -> None:
        client = Client(self.rig, Gate(lambda: []))
        for name, method, path, status, asked in (
            ("Origin", "GET", "/list", 403, self.client),
            ("Authorization", "GET", "/list", 401, client),
            ("Last-Event-ID", "GET", "/v1/events", 400, self.client),
            ("If-Match", "PUT", "/v1/ports/18080", 412, self.client),
            ("If-None-Match", "PUT", "/v1/ports/18080", 201, self.client),
            ("Accept", "GET", "/metrics", 200, self.client),
        ):
            asked.connect()
            body = b'{"uid": "uid-1", "target_host": "x", "target_port": 80}'
            head = (
                f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{name}: Bearer \xff\xfe\r\nContent-Length: {len(body)}"
            )
            asked.send(head.encode("latin-1") + b"\r\n\r\n" + body)
            self.assertEqual(status, asked.answer()[0], name)

    @given(
        body=st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda v: st.dictionaries(st.sampled_from([*OPEN, "x"]), v),
        )
    )
    def test_noBodyIsAFaultOfOurs(self, body: object) -> None:
        rig = Rig()
        status, _, text = Client(rig).call("POST", "/open", json.dumps(body).encode())
        self.assertIn(
            (status, text if status == 500 else ""),
            ((400, ""), (500, "No QUIC connection exists for the specified UID.")),
        )


class LimitTests(ApiTestCase):
    """What a client can cost."""

    def test_aBodyThatIsTooLargeIsRefused(self) -> None:
        self.assertEqual(413, self.client.call("POST", "/open", b" " * (BODY_LIMIT + 1))[0])

    def test_aBodyAtTheLimitIsRead(self) -> None:
        body = json.dumps(OPEN).encode().ljust(BODY_LIMIT)
        self.assertEqual(200, self.client.call("POST", "/open", body)[0])

    def test_whatIsTooLargeIsNotKept(self) -> None:
        self.client.send(b"POST /open HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(100):
            self.client.send(b"10000\r\n" + b" " * 65536 + b"\r\n")
        channel: Any = self.client.channel.wrappedProtocol  # Any: twisted.web's private choice between versions of HTTP
        (request,) = channel._channel.requests
        self.assertEqual(BODY_LIMIT + 1, request.content.tell())
        self.client.send(b"0\r\n\r\n")
        self.assertEqual(413, self.client.answer()[0])

    def test_aSilentClientIsLeft(self) -> None:
        self.client.send(b"POST /open HTTP/1.1\r\n")
        self.rig.reactor.advance(IDLE_SECONDS - 1)
        self.assertTrue(self.client.transport.connected)
        self.rig.reactor.advance(2)
        self.assertFalse(self.client.transport.connected)

    def test_whoSpeaksTlsIsToldAtOnce(self) -> None:
        self.client.send(b"\x16\x03\x01\x02\x00\x01")
        self.assertIn(b" 400 ", self.client.transport.value())
        self.assertFalse(self.client.transport.connected)

    def test_bytesOfABodyAreNoHandshake(self) -> None:
        self.client.send(b"POST /open HTTP/1.1\r\nContent-Length: 1\r\n\r\n")
        self.client.send(b"\x16")
        self.assertIn("not JSON", self.client.answer()[2])

    def test_thereIsALimitToClients(self) -> None:
        self.patch(server, "CLIENT_LIMIT", 1)
        self.client.connect()
        self.assertFalse(self.client.transport.connected)

    def test_aClientThatLeavesMakesRoom(self) -> None:
        self.patch(server, "CLIENT_LIMIT", 1)
        self.client.transport.loseConnection()
        self.client.connect()
        self.assertTrue(self.client.transport.connected)

    def test_whenTheListenerStopsNoClientStays(self) -> None:
        gone = self.client.server.closeAll()
        self.rig.reactor.advance(0)
        self.assertFalse(self.client.transport.connected)
        self.successResultOf(gone)
        self.assertNotIn("_abort", str(self.rig.reactor.getDelayedCalls()))
        self.successResultOf(self.client.server.closeAll())

    def test_whoDoesNotGoIsCutOff(self) -> None:
        transport = self.client.transport
        self.patch(transport, "abortConnection", transport.loseConnection)
        self.patch(transport, "loseConnection", lambda: None)
        gone = self.client.server.closeAll()
        self.rig.reactor.advance(server.FAREWELL_SECONDS)
        self.successResultOf(gone)
        self.assertFalse(self.client.transport.connected)


class LogTests(ApiTestCase):
    """Whoever reaches the API can't fill the log."""

    def test_aCallIsALineForThoseWhoLookForFaults(self) -> None:
        with capturedLogs() as logged:
            self.client.call("GET", "/list")
            self.client.call("GET", "/" + "x" * 1000)
        self.assertEqual([LogLevel.debug], list({each["log_level"] for each in logged}))
        self.assertEqual(["GET /list 200", f"GET /{'x' * 199} 404"], [formatEvent(each) for each in logged])


class FaultTests(ApiTestCase):
    """A fault of ours is in the log, and not in the answer."""

    def test_theAnswerTellsNothing(self) -> None:
        self.patch(type(self.rig.ports), "specs", lambda ports: 1 / 0)
        status, _, text = self.client.call("GET", "/list")
        self.assertEqual((500, "an internal error; the listener's log says more"), (status, text))
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))

    def test_aFullDiskIsSaid(self) -> None:
        self.rig.store.broken = True
        self.assertEqual((500, "the disk is full"), self.openPort())
