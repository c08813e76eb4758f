"""
Both ends of this carrier in one process, on real sockets of loopback: the poll and the clock are turned by the test.

What one end sends on loopback is there when its system call returns, so nothing has to wait.
"""

import select
import socket
from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort

from socketwarp.errors import SessionLost
from socketwarp.interfaces import Address, ICredentials, ISession
from socketwarp.tcp.poll import Poll
from socketwarp.tcp.port import Take
from socketwarp.tls.client import connect
from socketwarp.tls.server import TlsServer
from socketwarp.tls.session import TlsSettings
from socketwarp.tls.transport import TlsTransport, describe

from ..certs import world
from ..fakes import settle
from ..tcp.fakes import ReaderList, socketPair

SETTINGS = TlsSettings()


class Narrow(socket.socket):
    """
    A socket that takes little at a time, and has no timers of its own as TCP's windows have: a local one, which looks
    like TCP.
    """

    def setsockopt(self, level: int, *arguments: Any) -> None:
        if level != socket.IPPROTO_TCP:
            super().setsockopt(level, *arguments)

    def getpeername(self) -> Address:
        return "127.0.0.1", 40000

    getsockname = getpeername


def narrowPair(size: int) -> tuple[socket.socket, socket.socket]:
    """Two ends of such a connection, with buffers of that many bytes, as far as the kernel does as it is told."""
    ends = [Narrow(socket.AF_UNIX, socket.SOCK_STREAM, fileno=each.detach()) for each in socket.socketpair()]
    for each in ends:
        each.setblocking(False)
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
    return ends[0], ends[1]


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
        buffer: int | None = None,
    ) -> None:
        """:param buffer: bytes that the sockets' buffers have, as far as the kernel does as it is told."""
        self.clock = self.reactor = ReaderList()
        self.poll = Poll(self.reactor)
        self._happens = select.poll()
        self._happens.register(self.poll, select.POLLIN)
        self.settings = settings
        self.clientSettings = clientSettings or settings
        self.sessions: list[ISession] = []
        self.refused: list[tuple[Address, SessionLost]] = []
        self.dialled: list[socket.socket] = []
        self.isDown = False
        self._buffer = buffer
        self._isCut = False
        self._strangers: list[SSL.Connection] = []
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
        ours, remote = socketPair() if self._buffer is None else narrowPair(self._buffer)
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
            if until() or self._isCut or not (self.reactor.readers and self._happens.poll(0)):
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

    def wait(self, seconds: float) -> None:
        """Time passes, from one call to the next."""
        end = self.clock.seconds() + seconds
        while True:
            self.run()
            times = [call.getTime() for call in self.clock.getDelayedCalls()]
            if not times or min(times) > end:
                break
            self.clock.advance(max(0.0, min(times) - self.clock.seconds()))
        self.clock.advance(max(0.0, end - self.clock.seconds()))
        self.run()

    def cut(self) -> None:
        """Nothing that is sent arrives any more."""
        self._isCut = True

    def over(self) -> None:
        """
        :raises AssertionError: something is left of a session.
        """
        self._isCut = False
        self.run()
        assert self.clock.getDelayedCalls() == [], self.clock.getDelayedCalls()
        assert self.reactor.readers == [], self.poll._owners
        assert not self.server._open and not self.server._sessions and not self.server._arrivals

    def release(self) -> None:
        """Close every socket; what is left of the sessions is of no use."""
        for owner in list(self.poll._owners.values()):
            if isinstance(owner, TlsTransport):
                owner.abort()
        self.poll._epoll.close()

    # Strangers: clients that aren't ours

    def stranger(self, context: SSL.Context) -> SSL.Connection:
        """A TLS client on a connection of its own, that hasn't said anything yet."""
        ours, remote = socketPair()
        remote.setblocking(False)
        self.server.take(ours, ("192.0.2.7", 40000))
        connection = SSL.Connection(context, remote)
        connection.set_connect_state()
        self._strangers.append(connection)  # or its socket would be closed
        return connection

    def exchange(self, connection: SSL.Connection, said: bytes) -> bytes:
        """Shake hands, say something, and hear all that comes in answer: plaintext, or why there is none."""
        heard = bytearray()
        isSecured = False
        for _ in range(20):
            try:
                if not isSecured:
                    connection.do_handshake()
                    isSecured = True
                    if said:
                        connection.send(said)
                heard += connection.recv(65536)
            except SSL.WantReadError:
                pass
            except SSL.Error as error:
                return bytes(heard) or describe(error).encode()
            self.run()
        return bytes(heard)

    def strange(self, context: SSL.Context, said: bytes) -> bytes:
        """What a stranger hears."""
        return self.exchange(self.stranger(context), said)
