"""
Two QUIC connections in memory, time as a number: what one sends, the other receives, through a path that can lose,
reorder, duplicate and delay.

A plain aioquic connection can stand on either side, so that ours is tested against what it must speak with.
"""

import random
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from typing import Any

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from socketwarp.quic.engine import Engine
from socketwarp.quic.streams import Limits

CLIENT = ("2001:db8::1", 40000)
SERVER = ("2001:db8::2", 11443)


class Path:
    """
    What lies between, in both directions: ``delay`` seconds, and for each datagram the chances of being lost, being sent
    twice, and being held back by up to ``jitter`` seconds more. Seeded: the same run happens twice.
    """

    def __init__(
        self, delay: float = 0.001, loss: float = 0.0, duplication: float = 0.0, jitter: float = 0.0, seed: int = 0
    ) -> None:
        self.delay, self.loss, self.duplication, self.jitter = delay, loss, duplication, jitter
        self.mtu = 65535
        self._random = random.Random(seed)

    def arrivals(self, now: float, size: int) -> Iterator[float]:
        """When a datagram of `size` bytes sent at `now` arrives: not at all, once, or twice."""
        if size > self.mtu or (self.loss and self._random.random() < self.loss):
            return
        yield now + self.delay + (self._random.random() * self.jitter if self.jitter else 0.0)
        if self.duplication and self._random.random() < self.duplication:
            yield now + self.delay + self._random.random() * self.jitter


def datagramsOf(connection: QuicConnection, now: float) -> list[bytes]:
    """Everything `connection` wants to send at `now`, as datagrams."""
    if not isinstance(connection, Engine):
        if not connection._network_paths or connection._close_at is None and not connection._is_client:
            return []
        return [data for data, _ in connection.datagrams_to_send(now)]
    datagrams: list[bytes] = []
    while transmissions := connection.transmit(now):
        for pieces, segmentSize, _ in transmissions:
            data = b"".join(pieces)
            datagrams += [data[i : i + segmentSize] for i in range(0, len(data), segmentSize)]
    return datagrams


class Pump:
    """Moves datagrams between `client` and `server` until nothing happens any more, or time is up."""

    def __init__(self, client: QuicConnection, server: QuicConnection, path: Path | None = None) -> None:
        self.client, self.server = client, server
        self.path = path or Path()
        self.now = 1000.0
        self.sent = {client: 0, server: 0}
        self.events: dict[QuicConnection, list[Any]] = {client: [], server: []}
        self.tap: Callable[[QuicConnection, bytes], None] = lambda sender, datagram: None
        self._flight: list[tuple[float, int, QuicConnection, bytes]] = []
        self._sequence = 0

    def connect(self) -> None:
        """Begin the handshake and go on until both sides are done with it, or one gives up."""
        self.client.connect(SERVER, self.now)
        self.run()

    def run(self, seconds: float = 30.0, until: Callable[[], bool] = lambda: False) -> bool:
        """Go on for at most `seconds`, until nothing is in flight and no timer is due within them, or `until()`."""
        deadline = self.now + seconds
        while True:
            self._collect()
            if until():
                return True
            when = min([self._flight[0][0]] if self._flight else [deadline], default=deadline)
            timers = [t for t in map(self._timerOf, (self.client, self.server)) if t is not None]
            when = min([when, *timers])
            if when >= deadline and not (self._flight and self._flight[0][0] < deadline):
                return until()
            self.now = max(self.now, when)
            for connection in (self.client, self.server):
                timer = self._timerOf(connection)
                if timer is not None and timer <= self.now:
                    connection.handle_timer(self.now)
            self._deliver()

    @staticmethod
    def _timerOf(connection: QuicConnection) -> float | None:
        return None if connection._close_at is None else connection.get_timer()

    def _collect(self) -> None:
        for connection in (self.client, self.server):
            while (event := connection.next_event()) is not None:
                self.events[connection].append(event)
            for datagram in datagramsOf(connection, self.now):
                self.sent[connection] += len(datagram)
                self.tap(connection, datagram)
                for when in self.path.arrivals(self.now, len(datagram)):
                    self._sequence += 1
                    heappush(self._flight, (when, self._sequence, connection, datagram))

    def _deliver(self) -> None:
        batches: dict[QuicConnection, list[memoryview]] = {self.client: [], self.server: []}
        while self._flight and self._flight[0][0] <= self.now:
            _, _, sender, datagram = heappop(self._flight)
            receiver = self.server if sender is self.client else self.client
            batches[receiver].append(memoryview(datagram))
        for receiver, datagrams in batches.items():
            address = CLIENT if receiver is self.server else SERVER
            if isinstance(receiver, Engine):
                if datagrams:
                    receiver.receive(datagrams, address, self.now)
            else:
                for datagram in datagrams:
                    receiver.receive_datagram(bytes(datagram), address, self.now)


def accept(chain: object) -> None:
    """A check of the peer that lets everybody in."""


def engines(
    client: dict[str, Any],
    server: dict[str, Any],
    limits: Limits | None = None,
    checkPeer: Callable[[Any], None] = accept,
    datagramSize: int = 1200,
) -> tuple[Engine, Engine]:
    """A client and a server of ours; `client` and `server` are fields of their `QuicConfiguration`."""
    clientConfiguration = QuicConfiguration(is_client=True, max_datagram_size=datagramSize, **client)
    first = Engine(clientConfiguration, accept, limits or Limits())
    serverConfiguration = QuicConfiguration(is_client=False, max_datagram_size=datagramSize, **server)
    second = Engine(
        serverConfiguration,
        checkPeer,
        limits or Limits(),
        original_destination_connection_id=first.original_destination_connection_id,
    )
    return first, second
