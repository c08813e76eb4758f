"""TCP ports: they accept connections, as many as they are let, and give each to whom it is for."""

import errno
import socket
from collections.abc import Callable
from contextlib import suppress

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from ..interfaces import Address, ITcpProtocol, plainAddress
from .poll import QUIET, READABLE, IPoll, ISocketEvents
from .transport import TcpTransport, resetUnlessFinished

#: Connections that the kernel may keep waiting for `accept`, for each port; it cuts this at net.core.somaxconn.
BACKLOG = 1024
#: Connections accepted at a time, so that others have their turn.
ACCEPT_LIMIT = 64
#: What `accept` says when the machine or the process, and not the connection, is at its end.
EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


def bind(address: str, port: int) -> socket.socket:
    """
    A listening socket.

    :param address: to bind, IPv4 or IPv6.
    :raises OSError: the address or port can't be had.
    """
    flags = socket.AI_NUMERICHOST | socket.AI_PASSIVE
    family, kind, protocol, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=flags)[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is accepted inherits it
        listening.bind(place)
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


#: Numbers tried in search of one that is free; of a machine's 28,000 few are in use.
NUMBER_TRIES = 20


def freeForBoth(address: str) -> int:
    """
    A number that is free for TCP and UDP at this moment, or 0, where none was found.

    :param address: to be bound, IPv4 or IPv6.
    :raises OSError: the address can't be had.
    """
    for _ in range(NUMBER_TRIES):
        with bind(address, 0) as listening, socket.socket(listening.family, socket.SOCK_DGRAM) as datagrams:
            number: int = listening.getsockname()[1]
            with suppress(OSError):
                datagrams.bind((address, number))
                return number
    return 0


#: Makes the protocol of a connection that comes from an address.
Accept = Callable[[Address], ITcpProtocol]
#: Takes a connection that comes from an address: the socket, which doesn't block, is its own from then on.
Take = Callable[[socket.socket, Address], None]


def serve(poll: IPoll, listening: socket.socket, accept: Accept) -> Take:
    """Take the connections of a listening socket as transports of the protocols that `accept` makes."""
    resetUnlessFinished(listening)

    def take(connection: socket.socket, address: Address) -> None:
        TcpTransport(poll, connection, accept(address))

    return take


class IUsher(Interface):
    """Says how many may come in."""

    def room(descriptor: int) -> int:  # noqa: N805 - zope interfaces have no self
        """How many connections the listening socket of that number may accept now."""

    def exhausted(error: OSError) -> None:  # noqa: N805 - see above
        """No connection can be accepted, though some wait. Who doesn't pause the port is told again at once."""

    def closed(port: "Port") -> None:  # noqa: N805 - see above
        """It accepts no more."""


@implementer(IListeningPort, ISocketEvents)
class Port:
    """
    A listening socket.

    :ivar isOpen: false once it has been stopped.
    """

    _log = Logger()

    def __init__(self, poll: IPoll, listening: socket.socket, take: Take, usher: IUsher) -> None:
        """
        :param listening: see `bind`; it is the port's from now on.
        :param take: gets the connections.
        """
        self.isOpen = True
        self._poll = poll
        self._socket = listening
        self._take = take
        self._usher = usher
        self.startListening()

    def startListening(self) -> None:
        """Accept, again after `pause`."""
        self._poll.watch(self._socket.fileno(), self, READABLE)

    def pause(self) -> None:
        """Accept nobody for now; the kernel lets them wait."""
        self._poll.watch(self._socket.fileno(), self, QUIET)

    def stopListening(self) -> Deferred[None]:
        """Close it; those whom the kernel has let wait get RST. What this returns has fired."""
        if self.isOpen:
            self.isOpen = False
            number = self._socket.fileno()
            self._socket.close()
            self._poll.closed(number)
            self._usher.closed(self)
        return succeed(None)

    def fileno(self) -> int:
        """The socket's number."""
        return self._socket.fileno()

    def getHost(self) -> IPv4Address | IPv6Address:
        """See `IListeningPort`."""
        host, port = self._socket.getsockname()[:2]
        return (IPv6Address if ":" in host else IPv4Address)("TCP", host, port)

    def ready(self, events: int) -> None:
        """See `ISocketEvents`."""
        if not self.isOpen:
            return
        for _ in range(min(ACCEPT_LIMIT, self._usher.room(self._socket.fileno()))):
            try:
                connection, address = self._socket.accept()
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self._usher.exhausted(error)
                    return
                if isinstance(error, BlockingIOError):
                    return
                continue  # that one connection has failed: accept(2)
            self._give(connection, plainAddress(address))

    def _give(self, connection: socket.socket, address: Address) -> None:
        connection.setblocking(False)
        try:
            self._take(connection, address)
        except Exception:  # one connection's fault must not keep the others out
            self._log.failure("nobody takes a connection from {host}", host=address[0])
            connection.close()

    def failed(self, reason: Failure) -> None:
        """See `ISocketEvents`."""
