"""Lines of the log: Twisted's own, made with less work."""

import io
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    eventAsJSON,
    formatEventAsClassicLogText,
    jsonFileLogObserver,
    textFileLogObserver,
)
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.loglines import Limited, TextLines, isClassic

LEVELS = list(LogLevel.iterconstants())
FORMATS = (
    "plain",
    "",
    "{a} and {b}",
    "{b!r:>9}",
    "{missing}",
    "{call()}",
    "{a.nothing}",
    "{a",
    "two\nlines {a}\n",
    b"bytes {a}",
    None,
    5,
)


class TextLineTests(SynchronousTestCase):
    """What people read."""

    def event(self, **fields: Any) -> LogEvent:  # Any: whatever somebody logs
        return {"log_namespace": "room", "log_level": LogLevel.info, "log_time": 1e9, "call": lambda: "called"} | fields

    @given(
        st.lists(
            st.fixed_dictionaries(
                {
                    "log_format": st.sampled_from(FORMATS),
                    "log_level": st.sampled_from(LEVELS),
                    "log_time": st.one_of(st.none(), st.just(5), st.floats(0, 4e9, allow_nan=False)),
                    "a": st.one_of(st.text(), st.integers(), st.binary()),
                },
                optional={
                    "b": st.text(),
                    "log_system": st.sampled_from(("-", None, "HTTPChannel")),
                    "log_flattened": st.just({"a!s:": "flat"}),
                    "log_failure": st.builds(lambda: Failure(ValueError("no"))),
                },
            ),
            max_size=5,
        )
    )
    def test_theyAreTwisteds(self, events: list[dict[str, Any]]) -> None:
        lines = TextLines()
        for each in events:
            event = self.event(**each)
            self.assertEqual(formatEventAsClassicLogText(event), lines(event))

    def test_whatHasNoLevelOrNamespaceIsTwistedsToo(self) -> None:
        for name in ("log_level", "log_namespace", "log_time", "log_format"):
            event = self.event(log_format="{a}", a=1)
            del event[name]
            self.assertEqual(formatEventAsClassicLogText(event), TextLines()(event))

    def test_theTimeOfDayGoesOn(self) -> None:
        lines = TextLines()
        for when in (1e9, 1e9 + 0.9, 1e9 + 1, 1e9):
            event = self.event(log_format="{a}", a=1, log_time=when)
            self.assertEqual(formatEventAsClassicLogText(event), lines(event))

    def test_onlyTwistedsOwnLinesCountAsThose(self) -> None:
        self.assertTrue(isClassic(textFileLogObserver(io.StringIO())))
        self.assertFalse(isClassic(jsonFileLogObserver(io.StringIO())))
        self.assertFalse(isClassic(FileLogObserver(io.StringIO(), eventAsJSON)))
        self.assertFalse(isClassic(textFileLogObserver(io.StringIO(), timeFormat="%H")))


class LevelTests(SynchronousTestCase):
    """What the log leaves out."""

    def test_whatIsLessImportantOrHasNoLevelIsNotHeard(self) -> None:
        heard: list[LogEvent] = []
        observer = Limited(cast(ILogObserver, heard.append), LogLevel.warn)
        observer({})
        for level in LEVELS:
            observer({"log_level": level})
        self.assertEqual([LogLevel.warn, LogLevel.error, LogLevel.critical], [event["log_level"] for event in heard])
