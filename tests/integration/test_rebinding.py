"""The connector's address changes while a transfer runs: a NAT has forgotten it."""

import random
import select
import socket
from concurrent.futures import ThreadPoolExecutor
from threading import Thread

from .processes import PATIENCE, Address, TunnelCase, readToEnd

#: What goes each way.
THERE, BACK = (random.Random(seed).randbytes(4 << 20) for seed in (1, 2))
#: The relay's source port changes whenever so many more bytes have gone from the connector to the listener.
PORT_BYTES = 1 << 20
#: Receive buffer of the relay's sockets, bytes; the system may give less.
BUFFER = 4 << 20


class Relay:
    """
    A NAT between one connector and its listener.

    :ivar port: where the connector finds it.
    :ivar ports: those that the listener has been sent from, so far.
    """

    def __init__(self, listener: Address, moves: int) -> None:
        """:param moves: how often the port that the listener is sent from changes."""
        self._listener = listener
        self._front = bound()
        self.port = self._front.getsockname()[1]
        self.ports: list[int] = []
        self._connector: Address | None = None
        self._left = 0
        self._moves = moves
        self._back = self._front
        self._move()
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def _move(self) -> None:
        older, self._back = self._back, bound()
        if older is not self._front:
            older.close()
        self.ports.append(self._back.getsockname()[1])
        self._left = PORT_BYTES

    def _run(self) -> None:
        while True:
            # One at a time: what comes of it may close the other.
            for readable in select.select([self._front, self._back], [], [])[0][:1]:
                datagram, sender = readable.recvfrom(1 << 16)
                if readable is self._back:
                    if self._connector is not None:
                        self._front.sendto(datagram, self._connector)
                elif not datagram:
                    return
                else:
                    self._connector = sender
                    self._forward(datagram)

    def _forward(self, datagram: bytes) -> None:
        self._back.sendto(datagram, self._listener)
        self._left -= len(datagram)
        if self._left <= 0 and len(self.ports) <= self._moves:
            self._move()

    def stop(self) -> None:
        """Carry no more: an empty datagram says so."""
        self._back.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join(PATIENCE)
        self._front.close()
        self._back.close()


def bound() -> socket.socket:
    """A UDP socket with a port that the system chose."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    made.bind(("127.0.0.1", 0))
    return made


class RebindingTests(TunnelCase):
    """Real processes, and a relay between them."""

    def test_twoNewPortsInMidTransferCostNeitherAByteNorTheSession(self) -> None:
        self.startListener()
        service = self.settings["service_port"]
        assert isinstance(service, int)
        relay = Relay(("127.0.0.1", service), moves=2)
        self.addCleanup(relay.stop)
        self.settings["service_port"] = relay.port
        self.startConnector()
        self.listener.waitFor("connector uid-1 connected")
        server = self.listen()
        visitor, target = self.pair(server, self.entrance(server))
        with ThreadPoolExecutor(4) as threads:
            for end, sent in ((visitor, THERE), (target, BACK)):
                threads.submit(say, end, sent)
            received = [threads.submit(readToEnd, end) for end in (target, visitor)]
            self.assertEqual(
                [True, True],
                [each.result(PATIENCE) == sent for each, sent in zip(received, (THERE, BACK), strict=True)],
            )
        self.assertEqual(3, len(set(relay.ports)))
        self.assertEcho(server, self.entrance(server))
        said = "".join(self.listener.lines)
        self.assertEqual((1, 0), (said.count("connector uid-1 connected"), said.count("connector uid-1 lost")))
        self.assertEnds(self.connector, self.listener)


def say(end: socket.socket, sent: bytes) -> None:
    """All of it, and FIN."""
    end.sendall(sent)
    end.shutdown(socket.SHUT_WR)
