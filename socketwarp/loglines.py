"""
The log's lines for people, and which events become lines: what `twisted.logger` does, for a few calls instead of some
hundred. A busy tunnel's log is a line for each connection at each of its ends.
"""

from collections.abc import Iterable
from typing import TypeGuard

from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    formatEventAsClassicLogText,
    formatTime,
)
from zope.interface import implementer

#: What Twisted looks at first; an event with one of these is its own to format.
_SPECIAL = frozenset(("log_failure", "log_flattened", "log_system"))


class TextLines:
    """
    Makes the very lines of `formatEventAsClassicLogText`.

    The time of day is looked up once for each second, and fields are put in by `str.format_map`. What that can't do as
    Twisted would (calls in braces, failures, whatever raises) is left to Twisted.
    """

    def __init__(self) -> None:
        self._second = -1
        self._time = ""

    def __call__(self, event: LogEvent) -> str | None:
        """An event as a line, or `None` when there is nothing to say."""
        form, when = event.get("log_format"), event.get("log_time")
        level = event.get("log_level")
        if not isinstance(form, str) or not _isTime(when) or level is None or not _SPECIAL.isdisjoint(event):
            return formatEventAsClassicLogText(event)
        try:
            text = form.format_map(event)
        except Exception:
            return formatEventAsClassicLogText(event)
        if not text:
            return None
        if (second := int(when)) != self._second:
            self._second, self._time = second, formatTime(when)
        text = text.replace("\n", "\n\t")
        return f"{self._time} [{event.get('log_namespace', '-')}#{level.name}] {text}\n"


def isClassic(observer: FileLogObserver) -> bool:
    """Whether it writes the lines that `TextLines` makes; ``twist --log-format=json``, for one, has others."""
    example: LogEvent = {"log_format": "{a}", "a": 1, "log_time": 0.0, "log_level": LogLevel.info}
    return observer.formatEvent(example) == formatEventAsClassicLogText(example)


def _isTime(when: object) -> TypeGuard[float]:
    return type(when) is float


@implementer(ILogObserver)
class Limited:
    """An observer that hears only of events from a level on, and not of those without one."""

    def __init__(self, observer: ILogObserver, level: LogLevel) -> None:
        levels: Iterable[LogLevel] = LogLevel.iterconstants()
        self._observer = observer
        self._heard = frozenset(each for each in levels if each >= level)

    def __call__(self, event: LogEvent) -> None:
        """See `ILogObserver`."""
        if event.get("log_level") in self._heard:
            self._observer(event)
