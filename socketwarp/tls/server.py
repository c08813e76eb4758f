"""
The listener's side of this carrier: it takes TCP connections, and makes sessions and lanes of those that are in order.

Half-open and slow handshakes are dropped after their time, and few for each source; what isn't TLS ends with its first
bytes.
"""

import socket
from collections.abc import Callable
from hmac import compare_digest
from ipaddress import ip_address, ip_network
from os import urandom

from cryptography.hazmat.primitives.hashes import SHA256
from OpenSSL import SSL
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.logger import Logger

from ..errors import Code, SessionLost
from ..interfaces import Address, ICredentials, ISession
from ..tcp.poll import IPoll
from ..tcp.port import Take
from ..throttle import Bucket
from .arrival import Arrival
from .contexts import CRYPTO_ERROR, Conduct, checkClient, serverContext
from .frames import Event, Frame, Kind, formatClose, formatFrame
from .lane import Lane
from .serving import ServingSession, digestOf
from .session import FAREWELL_SECONDS, TlsSettings
from .transport import TlsTransport

#: Connections that may be unfinished at a time: one costs a signature and, half open, some 30 KiB.
MAX_ARRIVALS = 1024
#: Of these from one source: an IPv4 address, or a /64 of IPv6. A connector makes 32 lanes at a time.
MAX_FROM_SOURCE = 128
#: Seconds between two lines of the log about connections that are turned away.
TELL_SECONDS = 60.0
#: Lines a second, and at once, about connections that come to nothing, for who looks for faults.
LINES = (10.0, 100.0)
#: Binds an address and a port, and gives what comes to the first argument; raises `errors.PortUnavailable`.
Listen = Callable[[Take, str, int], IListeningPort]


class TlsServer:
    """
    Accepts sessions.

    :param onSession: called with each session whose TLS is done, with a client certificate that `credentials` accepts.
    :param onRefused: called when a client's certificate is refused: an id, the client's address and the reason.
    """

    _log = Logger()

    def __init__(
        self,
        poll: IPoll,
        clock: IReactorTime,
        listen: Listen,
        credentials: ICredentials,
        settings: TlsSettings,
        onSession: Callable[[ISession], None],
        onRefused: Callable[[str, Address, SessionLost], None] = lambda session, address, error: None,
    ) -> None:
        self.credentials = credentials
        self._listen = listen
        self._poll = poll
        self._clock = clock
        self._settings = settings
        self._onSession = onSession
        self._onRefused = onRefused
        self._arrivals: dict[Arrival, Address] = {}
        self._sources: dict[str, int] = {}
        self._sessions: dict[bytes, ServingSession] = {}
        self._port: IListeningPort | None = None
        self._stopped: Deferred[None] | None = None
        self._turnedAway = 0
        self._toldAt = -TELL_SECONDS
        self._lines = Bucket(*LINES)
        self._open: set[ServingSession] = set()

    @property
    def credentials(self) -> ICredentials:
        """For connections from now on; may be replaced at any time."""
        return self._credentials

    @credentials.setter
    def credentials(self, credentials: ICredentials) -> None:
        self._credentials = credentials
        self._context: SSL.Context = serverContext(credentials)

    def listen(self, address: str, port: int) -> None:
        """
        Bind and begin.

        :raises errors.PortUnavailable: the address or port can't be had.
        """
        self._port = self._listen(self.take, address, port)

    @property
    def address(self) -> Address | None:
        """What the port is bound to; `None` while it isn't."""
        if self._port is None:
            return None
        host = self._port.getHost()
        assert isinstance(host, IPv4Address | IPv6Address)
        return host.host, host.port

    @property
    def waiting(self) -> int:
        """Visitors who wait for a lane, over all sessions."""
        return sum(session.waiting for session in self._open)

    def take(self, connection: socket.socket, address: Address) -> None:
        """Take a connection that was accepted; it is non-blocking."""
        source = _sourceOf(address)
        if self._sources.get(source, 0) >= MAX_FROM_SOURCE or self._stopped is not None:
            connection.close()
            self._turnAway(f"{MAX_FROM_SOURCE} connections from {source} are unfinished already")
            return
        if len(self._arrivals) >= MAX_ARRIVALS:
            # Whoever means it is done in a moment: those who wait longest are the least likely to.
            self._turnAway(f"{MAX_ARRIVALS} connections are unfinished, and the oldest give way")
            next(iter(self._arrivals)).giveUp("others came")
        try:
            transport = TlsTransport(self._poll, connection, self._context, Conduct())
        except OSError:
            connection.close()  # it is gone already
            return
        timeout = self._settings.handshakeTimeout
        arrival = Arrival(transport, self._clock, timeout, self._secured, self._arrived, self._failed)
        self._arrivals[arrival] = address
        self._sources[source] = self._sources.get(source, 0) + 1
        transport.start(isServer=True)

    def _turnAway(self, reason: str) -> None:
        """Say so, now and then."""
        self._turnedAway += 1
        now = self._clock.seconds()
        if now >= self._toldAt + TELL_SECONDS:
            self._log.warn(
                "connections over TLS are turned away: {reason}; {count} since this was said last",
                reason=reason,
                count=self._turnedAway,
            )
            self._toldAt, self._turnedAway = now, 0

    def stop(self) -> "Deferred[None]":
        """Close all sessions and connections; fires when the last session is gone."""
        self._stopped = Deferred()
        port, self._port = self._port, None
        if port is not None:
            port.stopListening()
        for arrival in list(self._arrivals):
            arrival.giveUp("the listener stops")
        for session in list(self._open):
            session.close(Code.SHUTDOWN, "the listener stops")
        self._finishIfEmpty()
        return self._stopped

    def _finishIfEmpty(self) -> None:
        if self._stopped is not None and not self._stopped.called and not self._open:
            self._stopped.callback(None)

    # What becomes of connections

    def _forget(self, arrival: Arrival) -> Address:
        address = self._arrivals.pop(arrival)
        source = _sourceOf(address)
        self._sources[source] -= 1
        if not self._sources[source]:
            del self._sources[source]
        return address

    def _failed(self, arrival: Arrival, reason: str) -> None:
        address = self._forget(arrival)
        if " alert " in reason:  # it speaks TLS, and refuses us
            error = SessionLost(f"{reason}; its log says why", fromPeer=True)
            self._onRefused(urandom(4).hex(), address, error)
        if self._lines.take(self._clock.seconds()):
            peer = f"{address[0]} port {address[1]}"
            self._log.debug("a connection of {peer} came to nothing: {reason}", peer=peer, reason=reason)

    def _secured(self, arrival: Arrival) -> None:
        rejection = checkClient(arrival.transport.connection, self._credentials)
        if rejection is not None:
            error = SessionLost(str(rejection), CRYPTO_ERROR + rejection.alert)
            address = arrival.transport.peerAddress
            self._dismiss(arrival, error.errorCode or 0, str(error))
            self._onRefused(urandom(4).hex(), address, error)

    def _dismiss(self, arrival: Arrival, errorCode: int, reason: str) -> None:
        """Say why, and end it; it counts as unfinished until it is gone."""
        arrival.dismiss(formatClose(errorCode, reason), FAREWELL_SECONDS)

    def _arrived(self, arrival: Arrival, events: list[Event]) -> None:
        first, *rest = events
        if isinstance(first, Frame) and first.kind is Kind.SESSION:
            self._begin(arrival, rest)
        elif isinstance(first, Frame) and first.kind is Kind.ATTACH:
            self._attach(arrival, first, rest)
        else:
            self._dismiss(arrival, Code.MALFORMED, "the first frame is neither SESSION nor ATTACH")

    def _begin(self, arrival: Arrival, rest: list[Event]) -> None:
        self._forget(arrival)
        transport = arrival.transport
        session = ServingSession(
            transport, arrival.parser, arrival.chain, self._clock, self._settings, self._sessionEnded
        )
        self._sessions[digestOf(session.secret)] = session
        self._open.add(session)
        session.whenClosed().addCallback(self._sessionGone, session)
        transport.write(formatFrame(Kind.ACCEPTED))
        transport.flush()
        self._onSession(session)
        session.begin(rest)

    def _attach(self, arrival: Arrival, frame: Frame, rest: list[Event]) -> None:
        """A lane of a session: the ticket says of which, and the certificate must be the session's, too."""
        session = self._sessions.get(digestOf(frame.data))
        leaf = arrival.chain[0].fingerprint(SHA256())
        if session is None or not compare_digest(leaf, session.peerLeaf.fingerprint(SHA256())):
            self._dismiss(arrival, Code.DENIED, "no session of this certificate has that ticket")
            return
        lane = Lane(session, frame.numbers[0], arrival.transport, arrival.parser)
        if not session.attach(lane):
            self._dismiss(arrival, Code.LIMIT, "the session has such a lane, or as many as it may have")
            return
        self._forget(arrival)
        lane.take(rest)

    def _sessionEnded(self, session: ServingSession) -> None:
        self._sessions.pop(digestOf(session.secret), None)

    def _sessionGone(self, error: SessionLost, session: ServingSession) -> None:
        self._open.discard(session)
        self._finishIfEmpty()


def _sourceOf(address: Address) -> str:
    """Whom a limit is for: an IPv4 address, or the /64 of an IPv6 address, which one subscriber has."""
    host = ip_address(address[0])
    return str(host) if host.version == 4 else str(ip_network((host, 64), strict=False))
