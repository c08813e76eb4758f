"""The connector's events are those of the manual."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from twisted.logger import Logger, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from socketwarp import connector
from socketwarp.connector.events import EVENTS, tell
from tests.manual import eventFields

PAGE = "operations.rst"
#: What `_Hands._report` adds.
OF_A_LINK = {"listener", "uid", "session"}


def told() -> Iterator[tuple[str, set[str]]]:
    """Every event that a module of the connector tells, with its fields."""
    for path in Path(*connector.__path__).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            names = [each.value for each in node.args if isinstance(each, ast.Constant)]
            fields = {each.arg for each in node.keywords if each.arg is not None}
            match node.func:
                case ast.Name(id="tell") if names:
                    yield str(names[0]), fields
                case ast.Attribute(attr="_report") if names:
                    yield str(names[0]), fields | OF_A_LINK
                case ast.Attribute(attr="info" | "warn" | "error"):
                    assert "event" not in fields, f"{path}: an event that EVENTS doesn't know"


class EventTests(SynchronousTestCase):
    """Names and fields that programs may rely on."""

    def test_theManualHasThemAll(self) -> None:
        self.assertEqual(EVENTS.keys(), eventFields(PAGE).keys())

    def test_eachIsToldWithTheFieldsOfTheManual(self) -> None:
        found = list(told())
        self.assertEqual(EVENTS.keys(), {name for name, _ in found})
        for name, fields in found:
            self.assertEqual(eventFields(PAGE)[name], fields, name)

    def test_sentencesAreMadeOfTheirFields(self) -> None:
        for name, (_, sentence) in EVENTS.items():
            self.assertLessEqual(set(re.findall(r"{(\w+)", sentence)), eventFields(PAGE)[name], name)

    def test_anEventIsALineWithItsName(self) -> None:
        with capturedLogs() as lines:
            tell(Logger(), "stream.refused", uid="uid-1", session="s-1", code="limit", reason="memory is used up")
        [line] = lines
        self.assertEqual(("stream.refused", "uid-1"), (line["event"], line["uid"]))
        self.assertEqual("session s-1: no connection for a stream: memory is used up (limit)", formatEvent(line))

    def test_anUnknownNameIsAnError(self) -> None:
        self.assertRaises(KeyError, tell, Logger(), "stream.painted")
