"""
A listener that is killed again and again while ports are opened and closed and visitors come and go.

What the API has said is done must be there afterwards, and nothing else: only for calls that were under way at the
moment of the kill both outcomes are right.
"""

import json
import random
import socket
import socketserver
from contextlib import suppress
from http.client import HTTPException
from signal import SIGKILL
from threading import Condition, Event, Thread

import attrs

from .processes import PATIENCE, Address, TunnelCase, freePort, receive

#: Ports that are opened and closed; each belongs to one caller, so that what should be is never in doubt.
PORTS = 16
CALLERS = 4
VISITORS = 2
#: The listener is killed when so many calls have been answered, at least and at most.
CALLS = (1, 60)
PAYLOAD = bytes(range(256)) * 256

#: The body of ``POST /open``; `None` for a port that isn't open.
Wish = dict[str, object] | None


class _Echo(socketserver.BaseRequestHandler):
    """A target that says what it hears."""

    request: socket.socket

    def handle(self) -> None:
        with suppress(OSError):
            while data := self.request.recv(65536):
                self.request.sendall(data)


class _Targets(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256


@attrs.define(eq=False)
class Load:
    """
    What goes on while the listener lives.

    :ivar wishes: for each port, the states in which it may be; more than one only if a kill came in between.
    :ivar answered: how many calls have succeeded; ``refusals``: what became of the others.
    :ivar carried: how many visitors got their bytes back.
    """

    case: TunnelCase
    target: Address
    wishes: dict[int, list[Wish]]
    _over: Event = attrs.field(factory=Event, init=False)
    _changed: Condition = attrs.field(factory=Condition, init=False)
    answered: int = attrs.field(default=0, init=False)
    refusals: list[str] = attrs.field(factory=list, init=False)
    carried: int = attrs.field(default=0, init=False)
    _threads: list[Thread] = attrs.field(factory=list, init=False)

    def start(self, seed: int) -> None:
        """Let callers and visitors begin."""
        ports = sorted(self.wishes)
        for number in range(CALLERS):
            mine = ports[number::CALLERS]
            self._threads.append(Thread(target=self._call, args=(random.Random(f"{seed} {number}"), mine)))
        for number in range(VISITORS):
            self._threads.append(Thread(target=self._visit, args=(random.Random(f"{seed} {number}"), ports)))
        for thread in self._threads:
            thread.start()

    def waitFor(self, count: int) -> None:
        """Until so many calls have been answered."""
        with self._changed:
            self._changed.wait_for(lambda: self.answered >= count or bool(self.refusals), PATIENCE)
        if self.refusals or self.answered < count:
            raise AssertionError(f"{self.answered} of {count} calls were answered; {self.refusals}")

    def stop(self) -> None:
        """The listener is dead: everybody goes home."""
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _call(self, chance: random.Random, ports: list[int]) -> None:
        while not self._over.is_set():
            port = chance.choice(ports)
            (before,) = self.wishes[port]
            after: Wish = None
            if before is None:
                host = chance.choice(("127.0.0.1", "localhost"))
                after = {"uid": "uid-1", "port": port, "connect_address": host, "connect_port": self.target[1]}
            try:
                if after is None:
                    status, answer = self.case.call("DELETE", "/close", {"port": port})
                else:
                    status, answer = self.case.call("POST", "/open", after)
            except ConnectionRefusedError:
                return  # it was dead before it could hear
            except (OSError, HTTPException):
                self.wishes[port] = [before, after]
                return
            with self._changed:
                if status == 200:
                    self.wishes[port] = [after]
                    self.answered += 1
                else:
                    self.refusals.append(f"{before} to {after}: {status} {answer}")
                self._changed.notify_all()

    def _visit(self, chance: random.Random, ports: list[int]) -> None:
        while not self._over.is_set():
            with suppress(OSError), socket.create_connection(("127.0.0.1", chance.choice(ports)), PATIENCE) as visitor:
                data = PAYLOAD[: chance.randrange(1, len(PAYLOAD))]
                visitor.sendall(data)
                if receive(visitor, len(data)) == data:
                    self.carried += 1


class KillCase(TunnelCase):
    """A listener, a connector and a target; `kill` as often as you like."""

    def setUp(self) -> None:
        super().setUp()
        self.environment |= {"SWC_KEEPALIVE_SECONDS": "0.3", "SWL_LOG_LEVEL": "info"}
        targets = _Targets(("127.0.0.1", 0), _Echo)
        serving = Thread(target=targets.serve_forever, daemon=True)
        serving.start()
        self.addCleanup(targets.server_close)
        self.addCleanup(targets.shutdown)
        self.target: Address = ("127.0.0.1", targets.server_address[1])
        ports: set[int] = set()
        while len(ports) < PORTS + 2:
            ports.add(freePort())
        # Those of the listener itself, too: nobody must get one while it is down.
        self.environment |= {"SWL_PORT": str(ports.pop()), "APIS_PORT": str(ports.pop())}
        self.wishes: dict[int, list[Wish]] = {port: [None] for port in ports}
        self.carried = 0
        self.startBoth()

    def kill(self, seed: int) -> None:
        """Load the listener, kill it, start it again, compare."""
        load = Load(self, self.target, self.wishes)
        load.start(seed)
        try:
            load.waitFor(random.Random(seed).randint(*CALLS))
        finally:
            self.listener.send(SIGKILL)
            load.stop()
        self.listener.wait()
        self.processes.remove(self.listener)
        self.carried += load.carried
        self.startListener()
        self.compare()
        self.listener.waitFor("connector uid-1 connected")

    def compare(self) -> None:
        """What is listed and what can be connected to is what has been wished."""
        found: dict[int, Wish] = {wish["port"]: wish for wish in json.loads(self.call("GET", "/list")[1])}
        for port, states in self.wishes.items():
            wish = found.pop(port, None)
            self.assertIn(wish, states)
            self.assertEqual(wish is not None, isListening(port), port)
            self.wishes[port] = [wish]
        self.assertEqual({}, found, "nobody has wished for these")


def isListening(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
