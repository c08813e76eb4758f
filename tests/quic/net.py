"""
Endpoints on a network in memory: a `Clock` as reactor, ports that hand datagrams to each other, receivers that take
notes.

`Network.patch` puts it in the place of the UDP sockets of `socketwarp.quic.endpoint`.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from socketwarp.errors import SessionLost
from socketwarp.interfaces import ICredentials, ISession, IStream, IStreamReceiver, Piece
from socketwarp.quic import endpoint
from socketwarp.quic.batch import Batch
from socketwarp.quic.endpoint import QuicServer, TransportSettings
from socketwarp.quic.session import Session
from socketwarp.quic.stream import Stream
from socketwarp.quic.transmission import Transmission

from ..certs import credentials, world
from ..pump import PROTOCOLS

SERVER = ("192.0.2.1", 11443)
DELAY = 0.001


class Port:
    """
    Stands in for `DatagramPort`.

    :ivar isBlocked: set it, and what is sent waits, as on a socket that is full.
    :ivar mayWait: whether the handler has said that what comes may wait; set it to false, and see.
    """

    def __init__(self, network: "Network", handler: Any, bound: tuple[str, int]) -> None:
        self.network, self.handler, self.address = network, handler, bound
        self.isBlocked = self.mayWait = False
        self.isClosed = False
        self.sent = self.received = 0
        network.ports[bound] = self

    def send(self, transmission: Transmission) -> None:
        pieces, size, address = transmission
        data = b"".join(pieces)
        assert not self.isClosed
        for start in range(0, len(data), size):
            datagram = data[start : start + size]
            self.sent += len(datagram)
            if self.network.passes(self, datagram):
                self.network.carry(datagram, self.address, address[:2])

    def unblock(self) -> None:
        self.isBlocked = False
        self.handler.writable()

    def close(self) -> None:
        self.isClosed = True
        del self.network.ports[self.address]


class Network:
    """
    :ivar passes: which datagrams aren't lost.
    :ivar log: datagrams carried: from, to, bytes.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.clock.rightNow = 1000.0
        self.ports: dict[tuple[str, int], Port] = {}
        self.passes: Callable[[Port, bytes], bool] = lambda port, datagram: True
        self.log: list[tuple[Any, Any, bytes]] = []
        self._nextPort = 40_000

    def patch(self, case: SynchronousTestCase) -> None:
        case.patch(endpoint, "bind", self._bind)
        case.patch(endpoint, "DatagramPort", lambda reactor, handler, bound: Port(self, handler, bound))

    def _bind(self, interface: str, port: int, bufferSize: int) -> tuple[str, int]:
        if port:
            return SERVER[0], port
        self._nextPort += 1
        return "192.0.2.2", self._nextPort

    def carry(self, datagram: bytes, source: Any, destination: Any) -> None:
        self.log.append((source, destination, datagram))
        self.clock.callLater(DELAY, self._arrive, datagram, source, destination)

    def _arrive(self, datagram: bytes, source: Any, destination: Any) -> None:
        port = self.ports.get(destination)
        if port is not None:
            port.received += len(datagram)
            port.handler.batchReceived(Batch(memoryview(datagram), len(datagram)), source)
            port.mayWait |= port.handler.turnEnded()

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass from one call to the next, for so long or until `until()`."""
        end = self.clock.seconds() + seconds
        while not until():
            times = [call.getTime() for call in self.clock.getDelayedCalls()]
            if not times or min(times) > end:
                self.clock.advance(max(0.0, end - self.clock.seconds()))
                return until()
            self.clock.advance(max(0.0, min(times) - self.clock.seconds()))
        return True


@implementer(IStreamReceiver)
class Notes:
    """A receiver that notes what it is told. Starts the stream; `onPieces` is called with each delivery."""

    def __init__(self, stream: IStream, onPieces: Callable[[bytes], None] = lambda data: None) -> None:
        self.stream = stream
        self.data = bytearray()
        self.calls: list[Any] = []
        self.onPieces = onPieces
        stream.start(self)

    def piecesReceived(self, pieces: list[Piece]) -> None:
        assert pieces and all(len(piece) for piece in pieces)
        data = b"".join(pieces)
        self.data += data
        self.onPieces(data)

    def readConnectionLost(self) -> None:
        self.calls.append("fin")

    def writeConnectionLost(self, errorCode: int) -> None:
        self.calls.append(("stopped", errorCode))

    def connectionLost(self, reason: Failure) -> None:
        self.calls.append(reason.value)

    @property
    def lost(self) -> Any:
        """What `connectionLost` was told, if it was."""
        return next((each for each in self.calls if isinstance(each, Exception)), None)


class NetworkCase(SynchronousTestCase):
    """A server at `SERVER` and clients for it."""

    settings = TransportSettings()

    def newClock(self) -> Clock:
        """What stands in for the reactor."""
        return Clock()

    def setUp(self) -> None:
        self.network = Network(self.newClock())
        self.network.patch(self)
        self.clock = self.network.clock
        self.sessions: list[Session] = []
        self.refused: list[Any] = []
        self.server = self.newServer(world().checking("client"))
        self.server.listen("0.0.0.0", SERVER[1])

    def newServer(self, checking: ICredentials) -> QuicServer:
        return QuicServer(
            self.clock,  # type: ignore[arg-type]  # the ports that would add themselves as readers are ours
            checking,
            PROTOCOLS,
            self.settings,
            self.sessions.append,  # type: ignore[arg-type]  # they are Sessions
            lambda *about: self.refused.append(about),
        )

    @property
    def port(self) -> Port:
        return self.network.ports[SERVER]

    def connecting(
        self, own: ICredentials | None = None, settings: TransportSettings | None = None
    ) -> "Deferred[ISession]":
        authority = world().authority
        return endpoint.connect(
            self.clock,  # type: ignore[arg-type]  # as above
            SERVER,
            "localhost",
            own or credentials(authority.issue("swc-1"), authority),
            PROTOCOLS,
            settings or self.settings,
        )

    def connect(self, settings: TransportSettings | None = None) -> tuple[Session, Session]:
        """The client's and the server's session."""
        count = len(self.sessions)
        connecting = self.connecting(settings=settings)
        self.assertTrue(self.network.run(2, lambda: connecting.called and len(self.sessions) > count))
        client = self.successResultOf(connecting)
        assert isinstance(client, Session)
        return client, self.sessions[-1]

    def open(self, client: Session, server: Session) -> tuple[Stream, Stream]:
        """A stream that the server opens, and its other end."""
        accepted: list[Any] = []
        client.acceptStreams(accepted.append)
        stream = self.successResultOf(server.openStream())
        stream.write(b"!")
        self.assertTrue(self.network.run(2, lambda: bool(accepted)))
        assert isinstance(stream, Stream)
        return stream, accepted[0]

    def closedOf(self, session: ISession) -> list[SessionLost]:
        found: list[SessionLost] = []
        session.whenClosed().addCallback(found.append)
        return found
