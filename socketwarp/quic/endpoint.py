"""
QUIC endpoints: a server that routes datagrams to sessions by connection id, and a client, which is one session.

Whom the server talks to is decided by `admission`.
"""

import socket
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import QuicErrorCode
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from ..errors import Code, SessionLost
from ..interfaces import Address, ICredentials, ISession, Role
from .admission import CONNECTION_ID_SIZE, VERSIONS, Admission, Admitted
from .batch import Batch
from .datagrams import SOCKET_BUFFER, DatagramPort, Reactor, bind
from .engine import Engine
from .reset import ResetKey
from .session import Session, Soon
from .transmission import Transmission
from .windows import SESSION_LIMIT, SESSION_START, STREAM_LIMIT, STREAM_START, Limits

log = Logger()


@attrs.frozen
class TransportSettings:
    """
    How QUIC is spoken.

    :ivar idleTimeout: seconds of silence after which a session is given up; ``keepAlive``: seconds between PINGs at
        the most.
    :ivar handshakeTimeout: seconds.
    :ivar streamWindow: bytes that may wait unread on one stream at the most; ``sessionWindow``: on all streams of a
        session, but for those whose reader is paused. They begin smaller, see `windows`.
    :ivar streamLimit: streams that the peer may have open at a time.
    :ivar socketBuffer: bytes to ask the kernel for, each way.
    """

    idleTimeout: float = 60.0
    keepAlive: float = 4.0
    handshakeTimeout: float = 10.0
    streamWindow: int = STREAM_LIMIT
    sessionWindow: int = SESSION_LIMIT
    streamLimit: int = 10_000
    socketBuffer: int = SOCKET_BUFFER


def _configuration(
    credentials: ICredentials, protocols: Sequence[str], settings: TransportSettings, serverName: str | None
) -> QuicConfiguration:
    leaf, *intermediates = credentials.chain
    return QuicConfiguration(
        alpn_protocols=list(protocols),
        is_client=serverName is not None,
        idle_timeout=settings.idleTimeout,
        connection_id_length=CONNECTION_ID_SIZE,
        server_name=serverName,
        supported_versions=VERSIONS,
        certificate=leaf,
        certificate_chain=intermediates,
        private_key=credentials.privateKey,
        cadata=credentials.roots,
    )


def _engine(
    credentials: ICredentials,
    protocols: Sequence[str],
    settings: TransportSettings,
    serverName: str | None,
    **arguments: Any,  # Any: see Engine
) -> Engine:
    peer: Role = "client" if serverName is None else "server"
    return Engine(
        _configuration(credentials, protocols, settings, serverName),
        lambda chain: credentials.checkPeer(chain, peer, serverName),
        Limits(
            min(STREAM_START, settings.streamWindow),
            min(SESSION_START, settings.sessionWindow),
            settings.streamWindow,
            settings.sessionWindow,
            settings.streamLimit,
        ),
        **arguments,
    )


def _fault(session: Session, end: str) -> None:
    """A fault of ours ends this session. Nothing may pass, or the reactor would drop the port, and with it all."""
    log.failure("session {session}: a fault of ours", session=session.sessionId)
    with log.failuresHandled("session {session}: its end failed", session=session.sessionId):
        session.close(Code.INTERNAL, f"a fault of the {end}; its log says more")


class QuicServer:
    """
    A UDP port that accepts sessions.

    :ivar credentials: for sessions from now on; may be replaced at any time.
    :param onSession: called with each session whose TLS is done, with a client certificate that `credentials` accepts.
    :param soon: see `session.Session`.
    :param onRefused: called when one end refuses the other in the handshake: session id, the client's address and the
        reason. Only for clients whose address is validated, so that nobody can fill a log with invented ones.
    """

    def __init__(
        self,
        reactor: Reactor,
        credentials: ICredentials,
        protocols: Sequence[str],
        settings: TransportSettings,
        onSession: Callable[[ISession], None],
        onRefused: Callable[[str, Address, SessionLost], None] = lambda session, address, error: None,
        soon: Soon | None = None,
    ) -> None:
        self.credentials = credentials
        self._reactor = reactor
        self._protocols = protocols
        self._settings = settings
        self._onSession = onSession
        self._onRefused = onRefused
        self._soon = soon
        self._routes: dict[bytes, Session] = {}
        self._sessions: dict[Session, list[bytes]] = {}
        self._unfinished: set[Session] = set()  # their handshakes
        self._touched: dict[Session, None] = {}
        self._resetKey = ResetKey(credentials.privateKey)
        self._admission = Admission(self._resetKey)
        self._port: DatagramPort | None = None
        self._stopped: Deferred[None] | None = None

    def listen(self, interface: str, port: int) -> None:
        """
        Bind and begin.

        :raises AddressUnavailable: see `datagrams.bind`.
        """
        self._port = DatagramPort(self._reactor, self, bind(interface, port, self._settings.socketBuffer))

    @property
    def address(self) -> Address:
        """What the port is bound to."""
        assert self._port is not None, "not listening"
        return self._port.address[0], self._port.address[1]

    def stop(self) -> "Deferred[None]":
        """Close all sessions; fires when the last is gone and the socket closed."""
        self._stopped = Deferred()
        for session in list(self._sessions):
            session.close(Code.SHUTDOWN, "the listener stops")
        self._finishIfEmpty()
        return self._stopped

    def _finishIfEmpty(self) -> None:
        if self._stopped is not None and not self._stopped.called and not self._sessions:
            if self._port is not None:
                self._port.close()
            self._stopped.callback(None)

    def batchReceived(self, batch: Batch, address: Any) -> None:
        """See `datagrams.Handler`."""
        if batch.isSingle or batch.destination(CONNECTION_ID_SIZE):
            self._give(batch, address)
        else:
            for datagram in batch.split():
                self._give(Batch(datagram, len(datagram)), address)

    def _find(self, datagram: memoryview) -> Session | None:
        if datagram[0] & 0x80:
            size = datagram[5] if len(datagram) > 5 else 0
            return self._routes.get(bytes(datagram[6 : 6 + size]))
        return self._routes.get(bytes(datagram[1 : 1 + CONNECTION_ID_SIZE]))

    def _give(self, batch: Batch, address: Any) -> None:
        """Give datagrams for one connection id to its session, if there is one."""
        first = batch.data if batch.isSingle else batch.data[: batch.size]
        session = self._find(first) or self._admit(first, address)
        if session is not None:
            try:
                session.receive(batch, address)
            except Exception:
                _fault(session, "listener")
            self._touched[session] = None

    def turnEnded(self) -> bool:
        """See `datagrams.Handler`."""
        mayCoalesce = bool(self._touched)  # those that weren't heard of now aren't asked: 2 ms at the most
        while self._touched:
            session, _ = self._touched.popitem()
            self._turn(session)
            mayCoalesce &= session.mayCoalesce()
        return mayCoalesce

    def writable(self) -> None:
        """See `datagrams.Handler`."""
        for session in list(self._sessions):
            self._turn(session)

    def _turn(self, session: Session) -> None:
        try:
            session.turn()
        except Exception:
            _fault(session, "listener")

    def _admit(self, datagram: memoryview, address: Any) -> Session | None:
        """A session for a client's first datagram, if it is one and there is room."""
        assert self._port is not None
        if self._stopped is not None:
            return None
        decision = self._admission.decide(datagram, address, len(self._unfinished), self._reactor.seconds())
        if isinstance(decision, Admitted):
            return self._begin(decision, self._port)
        if decision is not None:
            self._port.send(Transmission([decision], len(decision), address))
        return None

    def _begin(self, admitted: Admitted, port: DatagramPort) -> Session:
        engine = _engine(
            self.credentials,
            self._protocols,
            self._settings,
            None,
            resetKey=self._resetKey,
            original_destination_connection_id=admitted.original,
            retry_source_connection_id=admitted.retrySource,
        )
        session = Session(
            engine,
            port,
            self,
            self._reactor,  # type: ignore[arg-type]  # a reactor provides IReactorTime
            self._settings.keepAlive,
            self._settings.handshakeTimeout,
            self._established,
            self._soon,
        )
        session.whenClosed().addCallback(self._refused, session, engine)
        self._sessions[session] = []
        self._unfinished.add(session)
        self.addRoute(admitted.destination, session)
        self.addRoute(engine.host_cid, session)
        return session

    def _established(self, session: Session) -> None:
        self._unfinished.discard(session)
        self._onSession(session)

    def _refused(self, error: SessionLost, session: Session, engine: Engine) -> None:
        # A client that gives up before 1-RTT says APPLICATION_ERROR (RFC 9000 §10.2.3); it has refused nobody.
        hasGivenUp = error.errorCode in (None, QuicErrorCode.APPLICATION_ERROR)
        if not hasGivenUp and engine.isRefusal and not session.isEstablished:
            self._onRefused(session.sessionId, session.peerAddress, error)

    def addRoute(self, connectionId: bytes, session: Session) -> None:
        """See `session.Routes`."""
        if session in self._sessions:
            self._routes[connectionId] = session
            self._sessions[session].append(connectionId)

    def removeRoute(self, connectionId: bytes) -> None:
        """See `session.Routes`."""
        session = self._routes.pop(connectionId, None)
        if session is not None:
            self._sessions[session].remove(connectionId)

    def sessionEnded(self, session: Session) -> None:
        """See `session.Routes`."""
        self._unfinished.discard(session)
        for connectionId in self._sessions.pop(session, []):
            self._routes.pop(connectionId, None)
        self._touched.pop(session, None)
        self._finishIfEmpty()


class _Client:
    """One session, and the UDP socket that is its own."""

    def __init__(
        self, reactor: Reactor, address: Address, engine: Engine, settings: TransportSettings, soon: Soon | None
    ) -> None:
        self._port = self._bind(reactor, address, settings)
        self._established: Deferred[ISession] = Deferred(self._giveUp)
        self._session = Session(
            engine,
            self._port,
            self,
            reactor,  # type: ignore[arg-type]  # a reactor provides IReactorTime
            settings.keepAlive,
            settings.handshakeTimeout,
            self._onEstablished,
            soon,
        )

    def _bind(self, reactor: Reactor, address: Address, settings: TransportSettings) -> DatagramPort:
        interface = "::" if socket.has_ipv6 and ":" in address[0] else "0.0.0.0"
        return DatagramPort(reactor, self, bind(interface, 0, settings.socketBuffer))

    def connect(self, engine: Engine, address: Address, now: float) -> "Deferred[ISession]":
        """Send the first datagram."""
        target: Any = (*address, 0, 0) if ":" in address[0] else address
        engine.connect(target, now)
        self._session.whenClosed().addCallback(self._onClosed)
        self._session.turn()
        return self._established

    def _onEstablished(self, session: Session) -> None:
        if not self._established.called:
            self._established.callback(session)

    def _giveUp(self, established: "Deferred[ISession]") -> None:
        established.errback(CancelledError())
        self._session.abandon("given up")

    def _onClosed(self, error: SessionLost) -> None:
        if not self._established.called:
            self._established.errback(error)

    def batchReceived(self, batch: Batch, address: Any) -> None:
        """See `datagrams.Handler`."""
        try:
            self._session.receive(batch, address)
        except Exception:
            _fault(self._session, "connector")

    def turnEnded(self) -> bool:
        """See `datagrams.Handler`."""
        self._turn()
        return self._session.mayCoalesce()

    def writable(self) -> None:
        """See `datagrams.Handler`."""
        self._turn()

    def _turn(self) -> None:
        try:
            self._session.turn()
        except Exception:
            _fault(self._session, "connector")

    def addRoute(self, connectionId: bytes, session: Session) -> None:
        """See `session.Routes`: everything that comes is for the one session."""

    def removeRoute(self, connectionId: bytes) -> None:
        """See `session.Routes`."""

    def sessionEnded(self, session: Session) -> None:
        """See `session.Routes`."""
        self._port.close()


def connect(
    reactor: Reactor,
    address: Address,
    serverName: str,
    credentials: ICredentials,
    protocols: Sequence[str],
    settings: TransportSettings,
    soon: Soon | None = None,
) -> "Deferred[ISession]":
    """
    Connect to a server.

    :param address: an IP address and a UDP port.
    :param serverName: what the server's certificate must be for, a name or an address.
    :param soon: see `session.Session`.
    :return: fires with the session when the server has accepted our certificate at the TLS level. Fails with
        `SessionLost`; its ``errorCode`` is 0x100 plus the TLS alert's number when TLS refused. Cancelling gives up.
    :raises AddressUnavailable: no UDP socket can be had.
    """
    engine = _engine(credentials, protocols, settings, serverName)
    return _Client(reactor, address, engine, settings, soon).connect(engine, address, reactor.seconds())
