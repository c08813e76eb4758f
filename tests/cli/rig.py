"""The command, run in this process against a listener in memory, or against answers that a test has planned."""

import json
from collections.abc import Callable
from http.client import responses
from io import BytesIO
from typing import Any
from unittest import mock

from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.cli.main import commands
from socketwarp.listener.api.openapi import document
from socketwarp.listener.api.shapes import ANSWERS
from tests.listener.client import Client
from tests.listener.rig import Rig

#: What a connection gives: bytes, or an error when it is made or read.
Planned = bytes | BaseException
PROBED = {
    "outcome": "dialled",
    "reason": None,
    "dialled": "10.0.0.5:80",
    "session": "s1",
    "protocol": "socketwarp/1",
    "stream_seconds": 0.001,
    "dial_seconds": 1.5,
    "resolve_seconds": 0.25,
    "connect_seconds": 1.0,
    "byte_seconds": None,
    "received": "",
}


class _Reader(BytesIO):
    """What is read, and the error behind it."""

    def __init__(self, data: bytes, error: Exception | None) -> None:
        super().__init__(data)
        self._error = error

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        if not line and self._error is not None:
            raise self._error
        return line


class FakeSocket:
    """A connection to the API, whose answer is known once the request was sent."""

    def __init__(self, answer: Callable[[bytes], bytes], error: Exception | None = None) -> None:
        self._answer = answer
        self._error = error
        self._sent = b""

    def setsockopt(self, *_: object) -> None:
        pass

    def sendall(self, data: bytes) -> None:
        self._sent += data

    def makefile(self, mode: str) -> _Reader:
        return _Reader(self._answer(self._sent), self._error)

    def close(self) -> None:
        pass


class CliCase(SynchronousTestCase):
    """
    Commands.

    :ivar rig: a listener with the connector ``uid-1``. ``client``: a client of its API, which the command becomes.
    :ivar planned: what the next connections give, instead of that listener.
    :ivar sent: the requests, one for each connection.
    :ivar slept: how long the command paused, seconds.
    """

    def setUp(self) -> None:
        self.rig = Rig()
        self.rig.connected("uid-1")
        self.client = Client(self.rig)
        self.planned: list[tuple[Planned, Exception | None]] = []
        self.sent: list[bytes] = []
        self.slept: list[float] = []
        self.now = 1000.0
        for name, stand in (
            ("socket.create_connection", self._connect),
            ("time.sleep", self._sleep),
            ("time.monotonic", lambda: self.now),
        ):
            patched = mock.patch(name, stand)
            patched.start()
            self.addCleanup(patched.stop)

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def _connect(self, *_: object, **__: object) -> FakeSocket:
        if not self.planned:
            return FakeSocket(self._ask)
        answer, error = self.planned.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        given = answer

        def hear(sent: bytes) -> bytes:
            self.sent.append(sent)
            return given

        return FakeSocket(hear, error)

    def _ask(self, sent: bytes) -> bytes:
        self.sent.append(sent)
        self.client.connect()
        self.client.send(sent)
        self.rig.settle()
        answer: bytes = self.client.transport.value()
        return answer

    def plan(self, operation: str, value: object, status: int = 200) -> None:
        """The next connection gives this answer, which has to be one of those that the API describes."""
        schema = ANSWERS[operation][status] | {"components": document()["components"]}
        Draft202012Validator(schema).validate(value)
        self.planRaw(status, "application/json", json.dumps(value).encode())

    def planProblem(self, status: int, code: str, detail: str) -> None:
        """The next connection gives this problem."""
        problem = {"title": responses[status], "status": status, "detail": detail, "code": code}
        self.planRaw(status, "application/problem+json", json.dumps(problem).encode())

    def planRaw(self, status: int, contentType: str, body: bytes, error: Exception | None = None) -> None:
        """The next connection gives this, and its end, or an error."""
        length = b"" if error else b"Content-Length: %d\r\n" % len(body)
        head = f"HTTP/1.1 {status} {responses[status]}\r\nContent-Type: {contentType}\r\n".encode()
        self.planned.append((head + length + b"\r\n" + body, error))

    def planError(self, error: BaseException) -> None:
        """The next connection can't be made."""
        self.planned.append((error, None))

    def run_(self, *arguments: str, status: int = 0, **environment: str) -> Result:
        """Run the command."""
        result = CliRunner(env=environment).invoke(commands, arguments)
        self.assertEqual(status, result.exit_code, result.output)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def json(self, *arguments: str, status: int = 0) -> Any:  # Any: JSON
        """What a command prints with ``--json``."""
        return json.loads(self.run_(*arguments, "--json", status=status).stdout)

    def open(self, port: int = 18080, *options: str) -> None:
        """A port, opened by the command."""
        self.run_("open", str(port), "uid-1", "10.0.0.5:80", *options)
