"""One event stream."""

from typing import cast

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.listener import events
from socketwarp.listener.events import Event, Events
from socketwarp.throttle import QUIET_SECONDS
from tests.manual import eventFields


class EventTests(SynchronousTestCase):
    """Told once, heard by all."""

    def setUp(self) -> None:
        self.events = Events(lambda: 12.5)

    def emit(self, port: int = 80) -> Event:
        self.events.emit("port.closed", port=port, uid="uid-1", ended=2, reason="as it was asked to")
        return self.events.since(0)[-1]

    def test_anEventHasNumberTimeNameAndFields(self) -> None:
        self.assertEqual(
            Event(1, 12.5, "port.closed", {"port": 80, "uid": "uid-1", "ended": 2, "reason": "as it was asked to"}),
            self.emit(),
        )
        self.assertEqual(2, self.emit().number)

    def test_anUnknownNameIsAnError(self) -> None:
        self.assertRaises(KeyError, self.events.emit, "port.painted", colour="red")

    def test_itIsLoggedAsASentenceWithItsFields(self) -> None:
        logged: list[LogEvent] = []
        observer = cast(ILogObserver, logged.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.emit()
        self.assertEqual("port 80 closed for uid-1, as it was asked to; 2 connections ended", formatEvent(logged[0]))
        self.assertEqual(
            ("port.closed", 80, LogLevel.info), tuple(logged[0][key] for key in ("event", "port", "log_level"))
        )

    def test_laterReadersGetWhatTheyMissed(self) -> None:
        for port in (1, 2, 3):
            self.emit(port)
        self.assertEqual([2, 3], [event.fields["port"] for event in self.events.since(1)])

    def test_onlySoManyAreRemembered(self) -> None:
        for port in range(events.REMEMBERED + 1):
            self.emit(port)
        self.assertEqual((events.REMEMBERED, 2), (len(self.events.since(0)), self.events.since(0)[0].number))

    def refuse(self) -> None:
        self.events.emit("api.refused", who="", peer="", method="", path="", code="", reason="")

    def test_whatStrangersCanCauseIsToldSoOftenAndNoMore(self) -> None:
        now = 0.0
        self.events = Events(lambda: now)
        counted: list[str] = []
        self.events.count(lambda name, fields: counted.append(name))
        _, burst = events.LIMITS["api.refused"]
        for _ in range(1000):
            self.refuse()
        self.assertEqual((burst, 1000), (self.events.last, len(counted)))
        now = QUIET_SECONDS
        self.refuse()
        summary, last = self.events.since(int(burst))
        self.assertEqual({"name": "api.refused", "count": 1000 - burst}, summary.fields)
        self.assertEqual("api.refused", last.name)

    def test_aSummaryIsNoSecondFlood(self) -> None:
        """Nor a warning, if what it sums up is none."""
        now = 0.0
        self.events = Events(lambda: now)
        names: list[str] = []
        self.events.subscribe(lambda event: names.append(event.name))
        rate, burst = events.LIMITS["visitor.ended"]
        for _ in range(int(burst + 60 * 2 * rate)):
            now += 0.5 / rate
            self.events.emit("visitor.ended", **dict.fromkeys(eventFields("api.rst")["visitor.ended"], ""))
        self.assertLessEqual(names.count("events.suppressed"), 60 / QUIET_SECONDS)
        self.assertIn("events.suppressed", names)
        self.assertEqual(LogLevel.info, events.EVENTS["events.suppressed"][0])

    def test_thatIsWhoeverComesToAPortOfOurs(self) -> None:
        """Without having shown who it is."""
        fields = eventFields("api.rst")
        for name in ("connector.refused", "visitor.connected", "visitor.refused", "visitor.ended", "api.refused"):
            self.events = Events(lambda: 0.0)
            for _ in range(1001):
                self.events.emit(name, **dict.fromkeys(fields[name], ""))
            self.assertLessEqual(self.events.last, 1000, name)

    def test_othersAreToldAllTheSame(self) -> None:
        for _ in range(1000):
            self.refuse()
        self.emit()
        self.assertEqual("port.closed", self.events.since(0)[-1].name)

    def test_subscribersHearUntilTheyLeave(self) -> None:
        heard: list[Event] = []
        leave = self.events.subscribe(heard.append)
        first = self.emit()
        leave()
        self.emit()
        self.assertEqual([first], heard)

    def test_oneReadersFaultIsNotTheOthers(self) -> None:
        def fail(event: Event) -> None:
            raise ZeroDivisionError

        heard: list[Event] = []
        self.events.subscribe(fail)
        self.events.subscribe(heard.append)
        self.emit()
        self.assertEqual(1, len(heard))
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
