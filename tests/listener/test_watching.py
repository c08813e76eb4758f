"""Looking on: readiness, figures, and events as they happen."""

import json
import re
from functools import partial
from typing import Any

from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.interfaces import SessionStatistics
from socketwarp.listener.api import watching
from socketwarp.listener.api.access import Gate
from socketwarp.listener.api.server import IDLE_SECONDS
from socketwarp.listener.api.stream import HEARTBEAT_SECONDS
from socketwarp.listener.events import REMEMBERED
from socketwarp.listener.wishes import PortSpec
from socketwarp.rules.tokens import READ, Token
from socketwarp.settings import PortRange
from tests.listener.client import Client
from tests.listener.rig import Rig
from tests.listener.test_access import digest


class WatchTestCase(SynchronousTestCase):
    """A listener with a port, and a client of its API."""

    def setUp(self) -> None:
        self.rig = Rig()
        self.tokens: tuple[Token, ...] = (Token("all", digest("all"), READ),)
        self.client = Client(self.rig, Gate(lambda: self.tokens))
        self.wish(18080)

    def wish(self, port: int, uid: str = "uid-1") -> None:
        self.successResultOf(self.rig.ports.desire(PortSpec(port, uid, "x", 80)))

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], str]:
        return self.client.call("GET", path, Authorization="Bearer all", **headers)


class ReadyTests(WatchTestCase):
    """Whether every wished port is open to visitors."""

    def ready(self) -> tuple[int, Any]:  # Any: JSON
        status, _, text = self.get("/ready")
        return status, json.loads(text)

    def test_itIs(self) -> None:
        self.assertEqual((200, {"ready": True, "reasons": []}), self.ready())

    def test_notWhileAPortIsUnbound(self) -> None:
        self.rig.sockets.bound.clear()
        self.rig.sockets.taken.add(18080)
        ports = self.rig.makePorts()
        ports.load()
        ports.restore()
        self.client = Client(self.rig, Gate(lambda: self.tokens))
        self.client.api.ports = ports
        status, told = self.ready()
        self.assertEqual((503, False), (status, told["ready"]))
        self.assertIn("port 18080 is unbound: port 18080 can't be opened", told["reasons"][0])

    def test_notWhileAPortIsDrained(self) -> None:
        self.rig.connected("uid-1")
        self.rig.visit(18080)
        self.rig.settle()
        self.rig.ports.withdraw(18080, 60)
        self.assertEqual((503, ["port 18080 is draining"]), self.reasons())

    def test_notWhileTheListenerStops(self) -> None:
        self.rig.connected("uid-1")
        self.rig.visit(18080)
        self.rig.settle()
        self.rig.ports.stop(60)
        self.assertEqual((503, ["the listener stops", "port 18080 is draining"]), self.reasons())

    def test_notWhileWishesCanNotBeKept(self) -> None:
        self.rig.store.broken = True
        self.assertEqual((503, ["the disk is full"]), self.reasons())

    def test_notWhileNoVisitorIsAccepted(self) -> None:
        self.rig.lobby.pausedBy = lambda: "no more coffee"
        self.assertEqual((503, ["no port accepts visitors for now: no more coffee"]), self.reasons())

    def reasons(self) -> tuple[int, list[str]]:
        status, told = self.ready()
        return status, told["reasons"]


class MetricsTests(WatchTestCase):
    """Figures for Prometheus."""

    def figures(self) -> dict[str, float]:
        """Every sample, by its name and labels."""
        status, headers, text = self.get("/metrics")
        self.assertEqual(200, status)
        self.assertIn("text/plain", headers["content-type"])
        lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}

    def test_visitorsAndTheirBytesAreCounted(self) -> None:
        session = self.rig.connected("uid-1")
        visitor = self.rig.visit(18080)
        self.rig.settle()
        visitor.remoteSends(b"hello")
        self.rig.settle()
        during = self.figures()
        self.assertEqual(1, during['socketwarp_port_connections{port="18080",uid="uid-1"}'])
        self.assertEqual(1, during['socketwarp_connections_total{port="18080"}'])
        visitor.remoteResets()
        self.rig.settle()
        session.close(0, "")
        self.rig.settle()
        self.rig.visit(18080)
        self.rig.reactor.advance(5)
        self.rig.settle()
        after = self.figures()
        self.assertEqual(5, after['socketwarp_connection_bytes_total{direction="in",port="18080"}'])
        self.assertEqual(1, after["socketwarp_connection_seconds_count"])
        self.assertEqual(1, after['socketwarp_connections_refused_total{code="connector-away",port="18080"}'])
        self.assertEqual(1, after['socketwarp_events_total{event="connector.lost"}'])

    def test_sessionsAreAskedForTheirFigures(self) -> None:
        session = self.rig.connected("uid-1")
        self.patch(session, "statistics", lambda: SessionStatistics(10, 20, 0.25, 3, 1200, 4))
        figures = self.figures()
        named = 'session="session-1",uid="uid-1"'
        for name, value in (
            (f"socketwarp_session_rtt_seconds{{{named}}}", 0.25),
            (f"socketwarp_session_packets_lost_total{{{named}}}", 3),
            (f'socketwarp_session_bytes_total{{direction="in",{named}}}', 10),
            (f'socketwarp_session_bytes_total{{direction="out",{named}}}', 20),
            ('socketwarp_sessions{carrier="quic",protocol="hq-29"}', 1),
        ):
            self.assertEqual(value, figures[name])

    def test_aPauseShows(self) -> None:
        for reason, value in (("", 0), ("no more coffee", 1)):
            self.rig.lobby.pausedBy = partial(str, reason)
            self.assertEqual(value, self.figures()["socketwarp_accepting_paused"])

    def test_aClosedPortLeavesNoSeries(self) -> None:
        self.rig.visit(18080)
        self.rig.reactor.advance(5)
        self.rig.settle()
        self.assertIn('port="18080"', str(self.figures()))
        self.successResultOf(self.rig.ports.withdraw(18080))
        self.assertNotIn('port="18080"', str(self.figures()))

    def test_whatIsNotToldIsCountedAllTheSame(self) -> None:
        for _ in range(5000):
            self.rig.events.emit("api.refused", who="", peer="", method="", path="", code="", reason="")
        self.assertEqual(5000, self.figures()['socketwarp_events_total{event="api.refused"}'])


class EventTests(WatchTestCase):
    """Server-sent events."""

    def follow(self, token: str = "all", query: str = "", /, **headers: str) -> StringTransport:
        """A caller who follows; the transport holds what it has been told."""
        self.client.connect()
        given = {"Host": "localhost", "Authorization": f"Bearer {token}"} | headers
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in given.items()]
        self.client.send("\r\n".join([f"GET /v1/events{query} HTTP/1.0", *lines, "", ""]).encode())
        return self.client.transport

    def told(self, transport: StringTransport) -> list[tuple[str, str, Any]]:  # Any: JSON
        """Id, name and data of the events that have come."""
        frames = transport.value().decode().split("\n\n")
        matches = [re.fullmatch("(?:id: (.*)\n)?event: (.*)\ndata: (.*)", frame) for frame in frames]
        return [(each[1], each[2], json.loads(each[3])) for each in matches if each]

    def test_whatHappensIsTold(self) -> None:
        following = self.follow()
        self.assertIn(b"text/event-stream", following.value())
        self.wish(18081)
        ((name, event, data),) = self.told(following)
        self.assertEqual((f"{self.rig.events.life}-2", "port.opened"), (name, event))
        self.assertEqual((18081, "uid-1", "port.opened"), (data["port"], data["uid"], data["event"]))

    def test_whoComesAgainMissesNothing(self) -> None:
        following = self.follow()
        self.wish(18081)
        last = self.told(following)[-1][0]
        self.client.transport.loseConnection()
        self.wish(18082)
        self.wish(18083)
        again = self.follow(Last_Event_ID=last)
        self.wish(18084)
        self.assertEqual([18082, 18083, 18084], [data["port"] for _, _, data in self.told(again)])

    def test_everythingThatIsRememberedWhenAskedFor(self) -> None:
        self.assertEqual([18080], [data["port"] for _, _, data in self.told(self.follow("all", "?since=0"))])

    def test_anotherLifeOfTheProcessIsAllNews(self) -> None:
        for last in ("00000000-7", "00000000-0"):
            self.assertEqual(1, len(self.told(self.follow(Last_Event_ID=last))))

    def test_anIdFromTheFutureIsNow(self) -> None:
        following = self.follow(Last_Event_ID=f"{self.rig.events.life}-99")
        self.wish(18081)
        self.assertEqual([18081], [data["port"] for _, _, data in self.told(following)])

    def test_whatIsNoIdIsRefused(self) -> None:
        for last in ("x", "7", "-1", "0-0", f"{self.rig.events.life}-"):
            self.assertIn(b" 400 ", self.follow(Last_Event_ID=last).value(), last)

    def test_whatHasBeenForgottenIsSaidToBeMissing(self) -> None:
        for _ in range(REMEMBERED + 5):
            self.rig.events.emit("port.resumed")
        (missing, *rest) = self.told(self.follow("all", f"?since={self.rig.events.life}-1"))
        self.assertEqual((None, "events.missed", {"count": 5}), missing)
        self.assertEqual(REMEMBERED, len(rest))

    def test_aSlowReaderIsPausedAndMissesNothing(self) -> None:
        following = self.follow()
        producer: Any = following.producer  # Any: HTTP's own
        producer.pauseProducing()
        self.wish(18081)
        self.rig.reactor.advance(HEARTBEAT_SECONDS)
        self.assertEqual([], self.told(following))
        self.assertNotIn(b": still here", following.value())
        producer.resumeProducing()
        self.assertEqual([18081], [data["port"] for _, _, data in self.told(following)])

    def test_whoAsksForTheHeadOnlyHasAllOfIt(self) -> None:
        status, headers, text = self.client.call("HEAD", "/v1/events", Authorization="Bearer all")
        self.assertEqual((200, "text/event-stream", ""), (status, headers["content-type"], text))
        self.client.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.assertEqual((200, "ok"), self.client.answer()[::2])
        self.assertEqual(set(), self.client.api.streams)

    def test_signsOfLifeKeepItOpen(self) -> None:
        following = self.follow()
        for _ in range(10):
            self.rig.reactor.advance(HEARTBEAT_SECONDS)
        self.assertGreater(10 * HEARTBEAT_SECONDS, IDLE_SECONDS)
        self.assertEqual(10, following.value().count(b": still here\n\n"))

    def test_aTokenThatIsTakenAwayEndsIt(self) -> None:
        following = self.follow()
        self.tokens = ()
        self.rig.reactor.advance(HEARTBEAT_SECONDS)
        self.wish(18081)
        self.assertEqual([], self.told(following))
        self.assertFalse(self.client.transport.connected)
        self.assertEqual(set(), self.client.api.streams)

    def test_whoLeavesIsForgotten(self) -> None:
        before = len(self.rig.reactor.getDelayedCalls())
        self.follow()
        self.assertEqual(1, len(self.client.api.streams))
        self.client.transport.loseConnection()
        self.assertEqual(set(), self.client.api.streams)
        self.wish(18081)
        self.assertEqual(before, len(self.rig.reactor.getDelayedCalls()))

    def test_whenTheListenerStopsNobodyFollows(self) -> None:
        following = self.follow()
        self.client.server.closeAll()
        self.assertEqual(set(), self.client.api.streams)
        self.rig.reactor.advance(0)
        self.assertFalse(self.client.transport.connected)
        self.wish(18081)
        self.assertEqual([], self.told(following))

    def test_thereIsALimitToThem(self) -> None:
        self.patch(watching, "STREAM_LIMIT", 1)
        self.follow()
        self.assertIn(b" 503 ", self.follow().value())

    def test_onlyWhatTheCallerHasToDoWithIsTold(self) -> None:
        self.tokens = (
            Token("ports", digest("ports"), READ, (PortRange(18081, 18081),)),
            Token("uids", digest("uids"), READ, (), ("office-*",)),
            Token("both", digest("both"), READ, (PortRange(18081, 18081),), ("office-*",)),
        )
        ports, uids = self.follow("ports"), self.follow("uids")
        both = self.follow("both")
        self.rig.connected("office-1", "session-3")
        self.wish(18081)
        self.wish(18082, "office-1")
        self.rig.events.emit("port.resumed")
        self.assertEqual([18081], [data["port"] for _, _, data in self.told(ports)])
        self.assertEqual([None, 18082], [data.get("port") for _, _, data in self.told(uids)])
        self.assertEqual(["connector.connected"], [name for _, name, _ in self.told(both)])
