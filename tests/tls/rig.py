"""
Both ends of this carrier in one process, on real sockets of loopback: the poll and the clock are turned by the test.

What one end sends on loopback is there when its system call returns, so nothing has to wait.
"""

import select
import socket
from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from socketwarp.errors import SessionLost
from socketwarp.interfaces import Address, ICredentials, ISession, IStreamReceiver, Piece
from socketwarp.tcp.poll import Poll
from socketwarp.tcp.port import Take
from socketwarp.tls.client import connect
from socketwarp.tls.server import TlsServer
from socketwarp.tls.session import TlsSettings

from ..certs import world
from ..fakes import settle
from ..tcp.fakes import ReaderList, socketPair

SETTINGS = TlsSettings()


@implementer(IStreamReceiver)
class Receiver:
    """
    Notes what a stream delivers.

    :ivar told: endings, in order: ``fin``, ``stop CODE``, and the last one's exception by its class.
    """

    def __init__(self) -> None:
        self.received = bytearray()
        self.told: list[str] = []
        self.lost: BaseException | None = None

    def piecesReceived(self, pieces: list[Piece]) -> None:
        assert pieces and all(pieces), "empty pieces"
        assert not self.told or self.told[-1].startswith("stop"), "bytes after the end"
        for piece in pieces:
            self.received += piece

    def readConnectionLost(self) -> None:
        self.told.append("fin")

    def writeConnectionLost(self, errorCode: int) -> None:
        self.told.append(f"stop {errorCode}")

    def connectionLost(self, reason: Failure) -> None:
        assert self.lost is None, "lost twice"
        self.lost = reason.value
        self.told.append(type(reason.value).__name__)


class Rig:
    """
    A server, and what connects to it.

    :ivar sessions: what the server has announced; ``refused``: whom it refused.
    :ivar dialled: the client's sockets, in the order of their making.
    """

    def __init__(
        self,
        settings: TlsSettings = SETTINGS,
        own: ICredentials | None = None,
        clientSettings: TlsSettings | None = None,
    ) -> None:
        self.clock = Clock()
        self.reactor = ReaderList()
        self.poll = Poll(self.reactor)  # type: ignore[arg-type]  # as much of a reactor as is needed
        self.settings = settings
        self.clientSettings = clientSettings or settings
        self.sessions: list[ISession] = []
        self.refused: list[tuple[Address, SessionLost]] = []
        self.dialled: list[socket.socket] = []
        self.isDown = False
        self.server = TlsServer(
            self.poll,
            self.clock,
            self._listen,
            own or world().checking("client"),
            settings,
            self.sessions.append,
            lambda session, address, error: self.refused.append((address, error)),
        )

    def _listen(self, take: Take, address: str, port: int) -> IListeningPort:
        raise AssertionError("tests bring the connections themselves")

    def dial(self) -> Deferred[socket.socket]:
        """A connection to the server."""
        if self.isDown:
            raise ConnectionRefusedError("nobody listens")
        ours, remote = socketPair()
        remote.setblocking(False)
        self.dialled.append(remote)
        self.server.take(ours, remote.getsockname()[:2])
        return succeed(remote)

    def connect(self, own: ICredentials | None = None, serverName: str = "localhost") -> "Deferred[ISession]":
        """A client's attempt."""
        return connect(
            self.poll, self.clock, self.dial, serverName, own or world().checking("server"), self.clientSettings
        )

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Turn poll and clock until nothing happens any more, without time passing."""
        for _ in range(100_000):
            settle(self.clock)
            if until() or not (self.reactor.readers and select.select([self.poll], [], [], 0)[0]):
                return
            self.poll.doRead()
        raise AssertionError("it doesn't come to rest")

    def pair(self) -> tuple[ISession, ISession]:
        """A session's ends, the server's first; the client has been admitted."""
        connected = self.connect()
        results: list[ISession] = []
        connected.addCallback(results.append)
        self.run()
        (client,) = results
        (server,) = self.sessions[-1:]
        client.admitted(server.ticket)
        self.run()
        return server, client
