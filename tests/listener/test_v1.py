"""The calls under /v1: ports, connectors, connections."""

import json
from typing import Any

from twisted.internet.interfaces import IListeningPort
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.errors import Code, ConnectorDenied
from socketwarp.listener import denials
from socketwarp.listener.api.bodies import READ_ONLY, showWish, wishOf
from socketwarp.listener.denials import Denials
from socketwarp.listener.wishes import PortSpec
from socketwarp.settings import PortRange
from socketwarp.tcp.port import Accept
from tests.listener.client import Client
from tests.listener.rig import Rig

WISH = {"uid": "uid-1", "target_host": "10.0.0.5", "target_port": 80}


class V1TestCase(SynchronousTestCase):
    """A listener with one connector, and a client of its API."""

    def setUp(self) -> None:
        self.rig = Rig()
        self.session = self.rig.connected("uid-1")
        self.client = Client(self.rig)

    def put(self, port: int = 18080, query: str = "", /, **changed: object) -> tuple[int, Any]:  # Any: JSON
        return self.client.json("PUT", f"/v1/ports/{port}{query}", WISH | changed)

    def etag(self, port: int = 18080) -> str:
        return self.client.call("GET", f"/v1/ports/{port}")[1]["etag"]

    def code(self, answer: tuple[int, Any]) -> tuple[int, str]:  # Any: JSON
        """Status and code of a problem."""
        status, problem = answer
        self.assertEqual(status, problem["status"])
        return status, problem["code"]

    def changes(self) -> list[tuple[object, object, object]]:
        """What the audit log holds."""
        return [(each["action"], each["subject"], each["outcome"]) for each in self.rig.told("api.changed")]


class PortTests(V1TestCase):
    """Wishes."""

    def test_aPortIsWishedAndShown(self) -> None:
        status, port = self.put()
        self.assertEqual(201, status)
        self.assertEqual("open", port["state"])
        self.assertEqual([PortSpec(18080, "uid-1", "10.0.0.5", 80)], self.rig.ports.specs())
        self.assertEqual((200, port), self.client.json("GET", "/v1/ports/18080"))
        self.assertEqual((200, [port]), self.client.json("GET", "/v1/ports"))

    def test_anAbsentConnectorsPortIsParked(self) -> None:
        status, port = self.put(uid="uid-2")
        self.assertEqual((201, "parked"), (status, port["state"]))

    def test_theSameWishAgainChangesNothing(self) -> None:
        self.put()
        self.assertEqual(200, self.put()[0])
        self.assertEqual([("port.put", "18080", "done")], self.changes())

    def test_aWishIsChangedInItsPlace(self) -> None:
        self.put()
        visitor = self.rig.visit(18080)
        self.rig.settle()
        status, port = self.put(target_port=81)
        self.assertEqual((200, 81), (status, port["target_port"]))
        self.assertFalse(visitor.sawReset)
        (_, audit) = self.rig.told("api.changed")
        self.assertEqual(
            ("port.change", 80, 81),
            (audit["action"], audit["before"]["target_port"], audit["after"]["target_port"]),  # type: ignore[index]  # a field that is an object
        )

    def test_limitsAndOptionsAreReadAndShown(self) -> None:
        limits = {"total": 5, "at_once": 2, "idle_seconds": 30, "expires": None, "sources": ["10.0.0.0/8", "::1/128"]}
        status, port = self.put(limits=limits, options={"proxy_protocol": 2}, bind_address="127.0.0.1")
        self.assertEqual((201, limits, {"proxy_protocol": 2}), (status, port["limits"], port["options"]))
        (spec,) = self.rig.ports.specs()
        self.assertEqual(("127.0.0.1", 5, 2), (spec.bindAddress, spec.limits.total, spec.options.proxyProtocol))
        self.assertEqual(spec, wishOf(showWish(spec), 18080))

    def test_portZeroIsAnyFreeOne(self) -> None:
        self.rig.ports.allowed = (PortRange(18100, 18101),)
        status, headers, text = self.client.call("PUT", "/v1/ports/0", json.dumps(WISH).encode())
        port = json.loads(text)["port"]
        self.assertEqual((201, f"/v1/ports/{port}"), (status, headers["location"]))
        self.assertIn(port, (18100, 18101))

    def test_aRefusedWishIsInTheAuditLog(self) -> None:
        self.rig.ports.allowed = (PortRange(1, 2),)
        self.assertEqual((403, "port-denied"), self.code(self.put(18080)))
        self.assertEqual(1, len(self.changes()))

    def test_aDryRunChangesNothing(self) -> None:
        status, port = self.put(18080, "?dry_run=1")
        self.assertEqual((200, True), (status, port["dry_run"]))
        self.assertEqual(([], {}, []), (self.rig.ports.specs(), self.rig.sockets.bound, self.rig.store.wishes))
        self.rig.ports.allowed = (PortRange(1, 2),)
        self.assertEqual((403, "port-denied"), self.code(self.put(18080, "?dry_run=1")))
        self.assertEqual([], self.changes())

    def test_aDryRunHearsOfOtherPrograms(self) -> None:
        self.rig.sockets.taken.add(18080)
        self.rig.ports.allowed = (PortRange(18080, 18080),)
        for port in (18080, 0):
            self.assertEqual((409, "port-unavailable"), self.code(self.put(port, "?dry_run=1")))
        self.rig.sockets.taken.clear()
        for port in (18080, 0):
            self.assertEqual((200, True), (lambda got: (got[0], got[1]["dry_run"]))(self.put(port, "?dry_run=1")))
        self.assertEqual(({}, []), (self.rig.sockets.bound, self.rig.events.since(0)[1:]))  # but for the connector

    def test_aDryRunOfTheSameWishIsMarked(self) -> None:
        self.put()
        status, port = self.put(18080, "?dry_run=1")
        self.assertEqual((200, True, "open"), (status, port["dry_run"], port["state"]))

    def test_aDryRunOfAChangeTriesTheNewAddress(self) -> None:
        self.put(bind_address="127.0.0.1")
        tried: list[tuple[str, int]] = []
        listen = self.rig.lobby.listen

        def trying(accept: Accept, address: str, port: int) -> IListeningPort:
            tried.append((address, port))
            return listen(accept, address, port)

        self.rig.lobby.listen = trying
        self.rig.sockets.foreign.add("192.0.2.1")
        for address, expected, places in (
            ("127.0.0.1", 200, []),
            ("192.0.2.1", 409, [18080]),
            ("127.0.0.2", 409, [18080]),  # the played host has one socket for a number
            ("0.0.0.0", 200, [18080, 0]),
            ("::", 200, [18080, 0]),
            ("::1", 409, [18080]),
        ):
            tried.clear()
            status, _ = self.put(18080, "?dry_run=1", bind_address=address, target_port=81)
            self.assertEqual((expected, [(address, port) for port in places]), (status, tried), address)
        self.assertEqual({18080}, set(self.rig.sockets.bound))
        self.assertEqual("127.0.0.1", self.rig.sockets.bound[18080].address)
        self.assertEqual(80, self.rig.ports.entry(18080).spec.targetPort)

    def test_aDryRunWhileAnotherChangeIsUnderWay(self) -> None:
        self.client.api.changing.add(18080)
        self.assertEqual((409, "change-under-way"), self.code(self.put(18080, "?dry_run=1")))

    def test_aDryRunOfClosingWhatIsBeingClosed(self) -> None:
        self.put()
        self.rig.store.slow = True
        self.client.connect()
        self.client.send(b"DELETE /v1/ports/18080 HTTP/1.1\r\n\r\n")
        for query in ("", "?dry_run=1"):
            answer = self.client.json("DELETE", f"/v1/ports/18080{query}")
            self.assertEqual((404, "no-such-port"), self.code(answer))

    def test_whatGetGivesCanBePut(self) -> None:
        self.put(limits={"total": 5}, options={"proxy_protocol": 2})
        self.rig.visit(18080)
        port = self.client.json("GET", "/v1/ports/18080")[1]
        self.assertEqual(READ_ONLY, port.keys() - showWish(self.rig.ports.entry(18080).spec).keys())
        self.rig.visit(18080)
        self.assertEqual(200, self.client.json("PUT", "/v1/ports/18080", port)[0])
        self.assertEqual(["port.put"], [action for action, _, _ in self.changes()])
        self.assertEqual(81, self.client.json("PUT", "/v1/ports/18080", port | {"target_port": 81})[1]["target_port"])
        answer = self.client.json("PUT", "/v1/ports/18080", port | {"dry_run": True})
        self.assertEqual((400, "bad-request"), self.code(answer))

    def test_aMisspeltArgumentChangesNothing(self) -> None:
        for query in ("?dryrun=1", "?dry_run=yes", "?dry_run=1&dry_run=0", "?dry_run=%ff"):
            self.assertEqual((400, "bad-request"), self.code(self.put(18080, query)), query)
        self.assertEqual([], self.rig.ports.specs())

    def test_nothingIsFoundBehindAnotherPath(self) -> None:
        """Else what is checked by the path, such as the query's arguments, would not be."""
        body = json.dumps(WISH).encode()
        for path in ("//v1/ports/18080?dryrun=1", "/v1//ports/18080", "/v1/ports/18080/", "///v1/ports/18080"):
            self.assertEqual(404, self.client.call("PUT", path, body)[0], path)
        self.assertEqual([], self.rig.ports.specs())

    def test_whatIsNoPathIsAProblemAsWell(self) -> None:
        self.assertEqual((400, "bad-request"), self.code(self.client.json("GET", "/v1/ports/%ff")))

    def test_aWishThatMakesNoSenseIsExplained(self) -> None:
        for changed, name in (
            ({"uid": ""}, "uid"),
            ({"target_port": 0}, "target_port"),
            ({"target_port": "80"}, "target_port"),
            ({"bind_address": "localhost"}, "bind_address must be an IP address, and is 'localhost'"),
            ({"limits": {"expires": 1e13}}, "expires must be from 0 to 1000000000000, and is 10000000000000"),
            ({"limits": {"sources": "10.0.0.0/8"}}, "sources"),
            ({"limits": {"sources": ["10.0.0.1/8"]}}, "sources"),
            ({"limits": {"idle_seconds": 0}}, "idle_seconds"),
            ({"limits": {"at_once": True}}, "at_once"),
            ({"limits": {"total": 10**400}}, "too large"),
            ({"options": {"proxy_protocol": True}}, "proxy_protocol"),
            ({"options": {"proxy": 1}}, "proxy"),
            ({"port": 5}, "port"),
            ({"colour": "red"}, "colour"),
        ):
            status, problem = self.put(18080, **changed)
            self.assertEqual((400, "bad-request"), (status, problem["code"]), changed)
            self.assertIn(name, problem["detail"], changed)
        self.assertEqual([], self.rig.ports.specs())

    def test_anAddressIsWrittenInOneWay(self) -> None:
        _, first = self.put(18080, bind_address="0:0:0:0:0:0:0:1")
        _, same = self.put(18080, bind_address="::1")
        self.assertEqual(("::1", first), (first["bind_address"], same))

    def test_whatHasChangedSinceIsNotChanged(self) -> None:
        self.put()
        old = self.etag()
        self.put(target_port=81)
        body = json.dumps(WISH | {"target_port": 82}).encode()
        for method in ("PUT", "DELETE"):
            status, _, text = self.client.call(method, "/v1/ports/18080", body, If_Match=old)
            self.assertEqual((412, "precondition-failed"), self.code((status, json.loads(text))))
        self.assertEqual(200, self.client.call("PUT", "/v1/ports/18080", body, If_Match=f'"x", {self.etag()}')[0])
        self.assertEqual(200, self.client.call("DELETE", "/v1/ports/18080", If_Match="*")[0])

    def test_onlyANewPortWhenAskedSo(self) -> None:
        body = json.dumps(WISH).encode()
        self.assertEqual(201, self.client.call("PUT", "/v1/ports/18080", body, If_None_Match="*")[0])
        self.assertEqual(412, self.client.call("PUT", "/v1/ports/18080", body, If_None_Match="*")[0])
        self.assertEqual(412, self.client.call("PUT", "/v1/ports/18081", body, If_Match="*")[0])

    def test_whatIsNotToBeThereMayBeNamedInManyWays(self) -> None:
        """RFC 9110: weakly for If-None-Match, strongly for If-Match; and a header may come in several lines."""
        self.put()
        tag, body = self.etag(), json.dumps(WISH | {"target_port": 81}).encode()
        for headers in (f"If-None-Match: W/{tag}", f'If-None-Match: {tag}\r\nIf-None-Match: "x"', f"If-Match: W/{tag}"):
            self.client.connect()
            head = f"PUT /v1/ports/18080 HTTP/1.1\r\nContent-Length: {len(body)}\r\n{headers}\r\n\r\n"
            self.client.send(head.encode() + body)
            self.assertEqual(412, self.client.answer()[0], headers)

    def test_twoChangesAtATimeAreOne(self) -> None:
        self.put()
        self.rig.store.slow = True
        body = json.dumps(WISH | {"target_port": 81}).encode()
        self.client.connect()
        self.client.send(b"PUT /v1/ports/18080 HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        first = self.client.transport
        self.assertEqual((409, "change-under-way"), self.code(self.put(target_port=82)))
        self.rig.store.finish()
        self.assertIn(b" 200 ", first.value())
        self.rig.store.slow = False
        self.assertEqual(200, self.put(target_port=82)[0])

    def test_aTakenPortIsAConflict(self) -> None:
        self.rig.sockets.taken.add(18080)
        self.assertEqual((409, "port-unavailable"), self.code(self.put()))
        self.assertEqual([("port.put", "18080", "port-unavailable")], self.changes())

    def test_aPortIsClosed(self) -> None:
        self.put()
        visitor = self.rig.visit(18080)
        self.rig.settle()
        self.assertEqual(
            (200, {"port": 18080, "connections": 1, "dry_run": True}),
            self.client.json("DELETE", "/v1/ports/18080?dry_run=1"),
        )
        self.client.connect()
        self.client.send(b"DELETE /v1/ports/18080 HTTP/1.1\r\n\r\n")
        self.rig.settle()
        self.assertEqual({"port": 18080, "ended": 1}, json.loads(self.client.answer()[2]))
        self.assertTrue(visitor.sawReset)
        self.assertEqual((404, "no-such-port"), self.code(self.client.json("GET", "/v1/ports/18080")))
        self.assertEqual(("port.delete", "18080", "done"), self.changes()[-1])

    def test_aPortIsDrained(self) -> None:
        self.put()
        visitor = self.rig.visit(18080)
        self.rig.settle()
        self.client.connect()
        self.client.send(b"DELETE /v1/ports/18080?drain=5 HTTP/1.1\r\n\r\n")
        drained = self.client.transport
        self.assertEqual("draining", self.client.json("GET", "/v1/ports/18080")[1]["state"])
        for query in ("", "?dry_run=1"):  # it goes when its visitors have gone, whatever is wished meanwhile
            self.assertEqual((409, "change-under-way"), self.code(self.put(18080, query)))
        self.assertFalse(visitor.sawReset)
        self.rig.reactor.advance(5)
        self.rig.settle()
        self.assertIn(b'"ended": 1', drained.value())
        self.assertEqual([("port.delete", "18080", "begun"), ("port.delete", "18080", "done")], self.changes()[1:])

    def test_howLongToDrainIsANumberOfSeconds(self) -> None:
        self.put()
        for drain in ("x", "-1", "1e3", "inf", "99999999"):
            answer = self.client.json("DELETE", f"/v1/ports/18080?drain={drain}")
            self.assertEqual((400, "bad-request"), self.code(answer))

    def test_aCallerThatLeavesUndoesNothingAndIsInTheAuditLog(self) -> None:
        self.rig.store.slow = True
        body = json.dumps(WISH).encode()
        self.client.connect()
        self.client.send(b"PUT /v1/ports/18080 HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        self.client.transport.loseConnection()
        self.rig.store.finish()
        self.assertEqual([18080], [each.port for each in self.rig.ports.specs()])
        self.assertEqual([("port.put", "18080", "done")], self.changes())

    def test_whatIsNoPortAtAll(self) -> None:
        self.assertEqual((404, "no-such-port"), self.code(self.client.json("GET", "/v1/ports/65536")))
        status, problem = self.put(65536)
        self.assertEqual((400, "port must be from 0 to 65535, and is 65536 @ $"), (status, problem["detail"]))

    def test_whatIsNotThere(self) -> None:
        for path in ("/v1/ports/1", "/v1/ports/65536", "/v1/ports/x", "/v1/ports/", "/v1", "/v1/nothing"):
            status, problem = self.client.json("GET", path)
            self.assertEqual(404, status, path)
            self.assertIn(problem["code"], ("not-found", "no-such-port"))
        status, problem = self.client.json("POST", "/v1/ports")
        self.assertEqual((405, "method-not-allowed"), (status, problem["code"]))

    def test_anErrorIsAProblem(self) -> None:
        _, headers, text = self.client.call("GET", "/v1/ports/1")
        self.assertEqual("application/problem+json", headers["content-type"])
        problem = {"title": "Not Found", "status": 404, "detail": "port 1 isn't open", "code": "no-such-port"}
        self.assertEqual(problem, json.loads(text))


class ConnectorTests(V1TestCase):
    """Who is here."""

    def test_connectorsAreShownWithTheirPortsAndSessions(self) -> None:
        self.put()
        status, (connector,) = self.client.json("GET", "/v1/connectors")
        self.assertEqual((200, "uid-1", [18080]), (status, connector["uid"], connector["ports"]))
        (session,) = connector["sessions"]
        self.assertEqual(("session-1", "192.0.2.1:40000"), (session["session"], session["peer"]))
        self.assertEqual((200, connector), self.client.json("GET", "/v1/connectors/uid-1"))

    def test_aUidMayBeAUri(self) -> None:
        self.rig.connected("spiffe://example.net/a b", "session-2")
        status, connector = self.client.json("GET", "/v1/connectors/spiffe%3A%2F%2Fexample.net%2Fa%20b")
        self.assertEqual((200, "spiffe://example.net/a b"), (status, connector["uid"]))
        self.assertEqual(200, self.client.json("GET", "/v1/connectors/spiffe://example.net/a%20b")[0])

    def test_whoIsNotHereIsNotFound(self) -> None:
        for method in ("GET", "DELETE"):
            self.assertEqual((404, "no-such-connector"), self.code(self.client.json(method, "/v1/connectors/uid-2")))

    def test_aConnectorIsSentAwayAndMayComeBack(self) -> None:
        status, told = self.client.json("DELETE", "/v1/connectors/uid-1")
        self.assertEqual((200, 1), (status, told["sessions"]))
        self.assertEqual((Code.SHUTDOWN, "an operator ended it"), self.session.closedWith)
        self.rig.settle()
        self.assertIsNone(self.rig.connected("uid-1", "session-2").closedWith)

    def test_aConnectorIsDeniedForATime(self) -> None:
        self.assertEqual(200, self.client.json("DELETE", "/v1/connectors/uid-1?deny=60")[0])
        self.rig.reactor.advance(59)
        again = self.rig.connected("uid-1", "session-2")
        assert again.closedWith is not None
        self.assertEqual(Code.DENIED, again.closedWith[0])
        self.assertEqual("connector-denied", self.rig.told("connector.refused")[0]["code"])
        self.rig.reactor.advance(1)
        self.assertIsNone(self.rig.connected("uid-1", "session-3").closedWith)

    def test_whoIsAwayCanBeDeniedAndLetInAgain(self) -> None:
        self.assertEqual(200, self.client.json("DELETE", "/v1/connectors/uid-2?deny=60")[0])
        self.assertIsNotNone(self.rig.connected("uid-2", "session-2").closedWith)
        self.assertEqual(200, self.client.json("DELETE", "/v1/connectors/uid-2?deny=0")[0])
        self.assertIsNone(self.rig.connected("uid-2", "session-3").closedWith)

    def test_whoIsDeniedIsShownUntilItIsOver(self) -> None:
        self.assertEqual(200, self.client.json("DELETE", "/v1/connectors/uid-2?deny=60")[0])
        self.rig.reactor.advance(1)
        shown = {"uid": "uid-2", "ports": [], "sessions": [], "denied_until": "1970-01-01T00:01:00.000Z"}
        self.assertEqual((200, shown), self.client.json("GET", "/v1/connectors/uid-2"))
        here, denied = self.client.json("GET", "/v1/connectors")[1]
        self.assertEqual((("uid-1", None), shown), ((here["uid"], here["denied_until"]), denied))
        self.assertEqual((404, "no-such-connector"), self.code(self.client.json("DELETE", "/v1/connectors/uid-2")))
        self.rig.reactor.advance(59)
        self.assertEqual(404, self.client.json("GET", "/v1/connectors/uid-2")[0])

    def test_aRestartLetsNobodyInTooEarly(self) -> None:
        self.client.json("DELETE", "/v1/connectors/uid-1?deny=60")
        self.client.json("DELETE", "/v1/connectors/uid-2?deny=60")
        self.client.json("DELETE", "/v1/connectors/uid-2?deny=0")
        again = Denials(self.rig.reactor.seconds, self.rig.store)
        again.load()
        self.rig.reactor.advance(59)
        self.assertEqual(["uid-1"], again.current())
        self.assertRaises(ConnectorDenied, again.check, "uid-1")
        self.rig.reactor.advance(1)
        self.assertEqual([], again.current())

    def test_whatCannotBeKeptIsNotInForce(self) -> None:
        self.rig.store.broken = True
        answer = self.client.json("DELETE", "/v1/connectors/uid-1?deny=60")
        self.assertEqual((500, "store-unavailable"), self.code(answer))
        self.assertEqual((None, None), (self.rig.denials.until("uid-1"), self.session.closedWith))

    def test_tooManyAreNotDenied(self) -> None:
        self.patch(denials, "DENIED_LIMIT", 1)
        self.client.json("DELETE", "/v1/connectors/uid-2?deny=60")
        for query in ("?deny=60", "?deny=60&dry_run=1"):
            self.assertEqual((503, "limit"), self.code(self.client.json("DELETE", f"/v1/connectors/uid-1{query}")))
        self.assertEqual(200, self.client.json("DELETE", "/v1/connectors/uid-2?deny=90")[0])
        self.assertEqual(200, self.client.json("DELETE", "/v1/connectors/uid-1?deny=0")[0])

    def test_aDryRunSendsNobodyAway(self) -> None:
        status, told = self.client.json("DELETE", "/v1/connectors/uid-1?deny=60&dry_run=1")
        self.assertEqual((200, True, 60.0), (status, told["dry_run"], told["denied_seconds"]))
        self.assertEqual((None, []), (self.session.closedWith, self.rig.denials.current()))


class ConnectionTests(V1TestCase):
    """Who visits."""

    def setUp(self) -> None:
        super().setUp()
        self.put()
        self.visitor = self.rig.visit(18080)
        self.rig.settle()

    def test_visitorsAreShownWithTheirBytes(self) -> None:
        self.visitor.remoteSends(b"hello")
        self.rig.settle()
        status, listed = self.client.json("GET", "/v1/connections")
        (connection,) = listed["connections"]
        self.assertEqual((200, 1), (status, listed["total"]))
        self.assertEqual(
            (18080, "uid-1", "198.51.100.7:50000", "10.0.0.5:80", "session-1", 5),
            tuple(connection[name] for name in ("port", "uid", "peer", "target", "session", "bytes_in")),
        )

    def test_someOfThemWhenAskedFor(self) -> None:
        for query, count in (("port=18080", 1), ("port=1", 0), ("uid=uid-1", 1), ("uid=x", 0)):
            self.assertEqual(count, self.client.json("GET", f"/v1/connections?{query}")[1]["total"], query)
        self.rig.visit(18080)
        listed = self.client.json("GET", "/v1/connections?limit=1")[1]
        self.assertEqual((2, 1), (listed["total"], len(listed["connections"])))
        self.assertEqual((400, "bad-request"), self.code(self.client.json("GET", "/v1/connections?limit=0")))

    def test_aConnectionIsEnded(self) -> None:
        name = self.client.json("GET", "/v1/connections")[1]["connections"][0]["id"]
        self.assertTrue(self.client.json("DELETE", f"/v1/connections/{name}?dry_run=1")[1]["dry_run"])
        self.assertFalse(self.visitor.sawReset)
        self.assertEqual(200, self.client.json("DELETE", f"/v1/connections/{name}")[0])
        self.rig.settle()
        self.assertTrue(self.visitor.sawReset)
        self.assertEqual("port-closed", self.rig.told("visitor.ended")[0]["code"])
        self.assertEqual((404, "no-such-connection"), self.code(self.client.json("DELETE", f"/v1/connections/{name}")))
