"""
Two QUIC connections in memory, time as a number: what one sends, the other receives, through a path that can lose,
reorder, duplicate and delay.

A plain aioquic connection can stand on either side, so that ours is tested against what it must speak with.
"""

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from heapq import heappop, heappush
from typing import Any

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import END_STATES, QuicConnection

from socketwarp.quic.batch import Batch
from socketwarp.quic.engine import Engine
from socketwarp.quic.gate import CheckPeer
from socketwarp.quic.windows import Limits

from .certs import Issued, credentials, pem, world

CLIENT = ("2001:db8::1", 40000)
SERVER = ("2001:db8::2", 11443)
PROTOCOLS = ["hq-29"]

# aioquic tells the standard library's logging about every peer that misbehaves, which is what many tests are about.
logging.getLogger("quic").setLevel(logging.CRITICAL)

#: The virtual time at which every run begins, in seconds.
START = 1000.0


class Path:
    """
    What lies between, in both directions: ``delay`` seconds, and for each datagram the chances of being lost, being
    sent twice, and being held back by up to ``jitter`` seconds more. Seeded: the same run happens twice.

    :ivar mtu: what is larger is lost, as with DF set.
    """

    def __init__(
        self,
        delay: float = 0.001,
        loss: float = 0.0,
        duplication: float = 0.0,
        jitter: float = 0.0,
        seed: int = 0,
        mtu: int = 65535,
    ) -> None:
        self.delay, self.loss, self.duplication, self.jitter, self.mtu = delay, loss, duplication, jitter, mtu
        self._random = random.Random(seed)

    def arrivals(self, now: float, size: int) -> Iterator[float]:
        """When a datagram of `size` bytes sent at `now` arrives: not at all, once, or twice."""
        if size > self.mtu or (self.loss and self._random.random() < self.loss):
            return
        yield now + self.delay + (self._random.random() * self.jitter if self.jitter else 0.0)
        if self.duplication and self._random.random() < self.duplication:
            yield now + self.delay + self._random.random() * self.jitter


def datagramsOf(connection: QuicConnection, now: float) -> list[tuple[bytes, Any]]:
    """Everything that `connection` wants to send at `now`: datagrams and where to."""
    if not isinstance(connection, Engine):
        if not connection._network_paths or (connection._close_at is None and not connection._is_client):
            return []
        return connection.datagrams_to_send(now)
    datagrams: list[tuple[bytes, Any]] = []
    while transmissions := list(connection.transmit(now)):
        for pieces, segmentSize, address in transmissions:
            data = b"".join(pieces)
            datagrams += [(data[i : i + segmentSize], address) for i in range(0, len(data), segmentSize)]
    return datagrams


def batchesOf(datagrams: Sequence[bytes]) -> Iterator[Batch]:
    """As UDP_GRO joins what arrives together: a batch goes on while sizes are the same, and ends with a shorter one."""
    start = 0
    for index, datagram in enumerate(datagrams):
        size, following = len(datagrams[start]), datagrams[index + 1 : index + 2]
        if not following or len(datagram) < size or len(following[0]) > size:
            yield Batch(memoryview(bytearray().join(datagrams[start : index + 1])), size)
            start = index + 1


def give(connection: QuicConnection, datagrams: list[bytes], address: Any, now: float) -> None:
    """Have `connection` receive datagrams that arrive together."""
    if isinstance(connection, Engine):
        for batch in batchesOf(datagrams):
            connection.receive(batch, address, now)
    else:
        for datagram in datagrams:
            connection.receive_datagram(datagram, address, now)


class Pump:
    """
    Moves datagrams between `client` and `server` until nothing happens any more, or time is up.

    :ivar clientAddress: where the client is; what is sent to where it was before is lost.
    :ivar sent: bytes that each side has sent.
    :ivar events: what each side's `next_event` has said.
    :ivar tap: sees each datagram that is sent.
    :ivar onStep: called whenever something may have arrived: where an application reads.
    """

    def __init__(self, client: QuicConnection, server: QuicConnection, path: Path | None = None) -> None:
        self.client, self.server = client, server
        self.path = path or Path()
        self.now = START
        self.clientAddress = CLIENT
        self.sent = {client: 0, server: 0}
        self.events: dict[QuicConnection, list[Any]] = {client: [], server: []}
        self.tap: Callable[[QuicConnection, bytes], None] = lambda sender, datagram: None
        self.onStep: Callable[[], None] = lambda: None
        self._flight: list[tuple[float, int, QuicConnection, bytes, Any]] = []
        self._sequence = 0

    def connect(self) -> None:
        """Begin the handshake and go on until both sides have confirmed it, or nothing more happens."""
        self.client.connect(SERVER, self.now)
        self.run(10, lambda: self.client._handshake_confirmed and self.server._handshake_confirmed)
        self.run(3 * self.path.delay + self.path.jitter)

    def run(self, seconds: float = 30.0, until: Callable[[], bool] = lambda: False) -> bool:
        """Go on for at most `seconds`, until nothing is in flight and no timer is due within them, or `until()`."""
        deadline = self.now + seconds
        while True:
            self.onStep()
            self._collect()
            if until():
                return True
            times = [time for time in map(self._timerOf, (self.client, self.server)) if time is not None]
            if self._flight:
                times.append(self._flight[0][0])
            when = min(times, default=deadline)
            if when >= deadline:
                self.now = deadline
                return until()
            # A little later than asked for: when rounding deceives it, aioquic's recovery asks for the same moment.
            self.now = max(self.now, when) + 1e-6
            for connection in (self.client, self.server):
                timer = self._timerOf(connection)
                if timer is not None and timer <= self.now:
                    if isinstance(connection, Engine):
                        connection.onTimer(self.now)
                    else:
                        connection.handle_timer(self.now)
            self._deliver()

    @staticmethod
    def _timerOf(connection: QuicConnection) -> float | None:
        if isinstance(connection, Engine):
            return connection.nextTimer()
        return None if connection._close_at is None else connection.get_timer()

    def _collect(self) -> None:
        for connection in (self.client, self.server):
            while (event := connection.next_event()) is not None:
                self.events[connection].append(event)
            for datagram, address in datagramsOf(connection, self.now):
                self.sent[connection] += len(datagram)
                self.tap(connection, datagram)
                source = self.clientAddress if connection is self.client else address
                for when in self.path.arrivals(self.now, len(datagram)):
                    self._sequence += 1
                    heappush(self._flight, (when, self._sequence, connection, datagram, source))

    def _deliver(self) -> None:
        """Give what has arrived, in runs from one address. A packet to an address that the client has left is lost."""
        batches: dict[tuple[QuicConnection, Any], list[bytes]] = {}
        while self._flight and self._flight[0][0] <= self.now:
            _, _, sender, datagram, address = heappop(self._flight)
            if sender is self.client:
                batches.setdefault((self.server, address), []).append(datagram)
            elif address == self.clientAddress:
                batches.setdefault((self.client, SERVER), []).append(datagram)
        for (receiver, address), datagrams in batches.items():
            give(receiver, datagrams, address, self.now)


def accept(chain: object) -> None:
    """A check of the peer that lets everybody in."""


@cache
def _issued() -> tuple[Issued, Issued]:
    authority = world().authority
    return authority.issue("swc-1"), authority.server()


def fieldsOf(issued: Issued | None) -> dict[str, Any]:
    """`issued` as a `QuicConfiguration` has it."""
    if issued is None:
        return {}
    leaf, *intermediates = issued.chain
    return {"certificate": leaf, "certificate_chain": intermediates, "private_key": issued.key}


def configuration(isClient: bool, **fields: Any) -> QuicConfiguration:
    """A configuration with proper certificates; `fields` are those of `QuicConfiguration`."""
    standard: dict[str, Any] = {
        "alpn_protocols": PROTOCOLS,
        "max_datagram_size": 1200,
        "cadata": pem(world().authority.cert),
        **fieldsOf(_issued()[0 if isClient else 1]),
    }
    if isClient:
        standard["server_name"] = "localhost"
    return QuicConfiguration(is_client=isClient, **{**standard, **fields})


def newClient(
    isOurs: bool = True, limits: Limits | None = None, checkPeer: CheckPeer = accept, **fields: Any
) -> QuicConnection:
    """A client, ours or plain aioquic's."""
    if isOurs:
        return Engine(configuration(True, **fields), checkPeer, limits or Limits())
    return QuicConnection(configuration=configuration(True, **fields))


def newServer(
    client: QuicConnection,
    isOurs: bool = True,
    limits: Limits | None = None,
    checkPeer: CheckPeer = accept,
    **fields: Any,
) -> QuicConnection:
    """A server for `client`, ours or plain aioquic's."""
    original = client.original_destination_connection_id
    if isOurs:
        return Engine(
            configuration(False, **fields), checkPeer, limits or Limits(), original_destination_connection_id=original
        )
    return QuicConnection(configuration=configuration(False, **fields), original_destination_connection_id=original)


def pair(ours: str = "both", limits: Limits | None = None, path: Path | None = None, **fields: Any) -> Pump:
    """
    A connected pump.

    :param ours: which side is an `Engine`: ``both``, ``client`` or ``server``; the other is plain aioquic.
    """
    client = newClient(ours != "server", limits, **fields)
    pump = Pump(client, newServer(client, ours != "client", limits, **fields), path)
    pump.connect()
    return pump


__all__ = ["CLIENT", "END_STATES", "SERVER", "Pump", "credentials"]
