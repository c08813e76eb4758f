"""What the tests of TCP share: a protocol that notes what it is told, and a poll that the test turns itself."""

import socket

from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from socketwarp.interfaces import ITcp, ITcpProtocol
from socketwarp.tcp.poll import Poll
from socketwarp.tcp.transport import resetUnlessFinished


@implementer(ITcpProtocol)
class Recorder:
    """
    A protocol.

    :ivar told: what it was told, by name; `lost` is why the connection is gone.
    """

    def __init__(self) -> None:
        self.received = bytearray()
        self.largest = 0
        self.told: list[str] = []
        self.lost: BaseException | None = None

    def makeConnection(self, transport: ITransport) -> None:
        self.tcp = ITcp(transport)
        self.connectionMade()

    def connectionMade(self) -> None:
        self.told.append("made")

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.largest = max(self.largest, len(data))

    def readConnectionLost(self) -> None:
        self.told.append("read ended")

    def writeConnectionLost(self) -> None:
        self.told.append("write ended")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.told.append("lost")
        self.lost = reason.value


class ReaderList(Clock):
    """As much of a reactor as a `Poll` needs: it knows who wants to read."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[object] = []
        self.addReader = self.readers.append
        self.removeReader = self.readers.remove


def makePoll() -> tuple[Poll, ReaderList]:
    """A poll on real sockets; the test calls its ``doRead``."""
    reactor = ReaderList()
    return Poll(reactor), reactor


def socketPair() -> tuple[socket.socket, socket.socket]:
    """Ours, which doesn't block, and the remote one. On loopback what one sends is there when ``send`` returns."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        remote = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    ours.setblocking(False)
    resetUnlessFinished(ours)
    return ours, remote


def reset(remote: socket.socket) -> None:
    """RST."""
    remote.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    remote.close()
