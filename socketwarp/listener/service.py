"""
The listener as one service: what it is made of, in which order it starts, and in which it stops.

Start: the store, the sockets of connectors and API (they may need privileges), then the stored ports. Stop: the
visitors, then the API, through which they can be seen and ended meanwhile, then the sessions, the sockets and the
store; each only when what needs it is gone. The only module of this package that knows which carrier is in use.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import time
from typing import Any

import attrs
from cryptography import x509
from twisted.application.service import IService, Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from ..errors import AddressUnavailable, PortUnavailable
from ..identity.certificates import Credentials, loadCredentials
from ..identity.watch import FileWatch
from ..interfaces import Address, IReloadable, ISession, IStateful, IVerifier
from ..memory import MemoryBudget
from ..quic.endpoint import QuicServer, TransportSettings
from ..rules.policy import Policy, loadPolicy
from ..settings import ListenerSettings
from ..tcp.limit import raiseLimit
from ..tcp.poll import Poll
from ..tcp.port import freeForBoth
from ..tls.server import TlsServer
from ..tls.session import TlsSettings
from ..wire.dialect import DIALECTS
from .api import ApiServer, makeApi
from .audit import AuditLog
from .connectors import Connectors, Terms
from .denials import Denials
from .descriptors import Descriptors
from .entries import Lobby
from .events import Events, showAddress
from .ports import Ports
from .recheck import RecheckPolicy
from .store import IPortStore, SqlitePortStore
from .verifier import makeVerifier
from .visitors import Limits

#: Clients of the API that the kernel may keep waiting.
API_BACKLOG = 512


def makeListener(
    settings: ListenerSettings,
    reactor: Any,  # Any: no interface names all that is used of it
    now: Callable[[], float] = time,
) -> IService:
    """
    Make a listener that isn't started.

    :param now: POSIX time, in seconds; the reactor's may be off by what the system's clock has been set.

    :raises errors.ConfigurationError: a file that the settings name can't be used.
    """

    def renew(fresh: Credentials) -> None:
        quic.credentials = fresh
        if tls is not None:
            tls.credentials = fresh

    def checkRunning(chain: Sequence[x509.Certificate]) -> None:
        credentials.check()
        credentials.current.checkRunning(chain, "client")

    def admit(session: ISession) -> None:
        memory.watch(session)
        connectors.admit(session)

    paths = (settings.certPath, settings.keyPath, settings.caPath)
    load = partial(loadCredentials, *paths, settings.crlPaths, settings.crlExpired, role="server")
    credentials = FileWatch(reactor, (*paths, *settings.crlPaths), load, renew, settings.pollSeconds)
    verifier, files = makeVerifier(settings, credentials, reactor)
    events = Events(now)
    policy = RecheckPolicy(settings.recheckSeconds, settings.recheckGrace)
    terms = Terms(settings.keepAlive, settings.idleTimeout, frozenset(settings.sharedUids))
    threads = ThreadPool(1, 1, "store")  # one thread, so that changes are written in the order in which they are made
    store = SqlitePortStore(settings.stateDir, partial(deferToThreadPool, reactor, threads))
    denials = Denials(now, store)
    connectors = Connectors(reactor, verifier, events, denials, policy, terms, checkRunning)
    poll = Poll(reactor)
    quic = QuicServer(
        reactor, credentials.current, list(DIALECTS), _transport(settings), admit, connectors.turnedAway, poll.soon
    )
    descriptors = Descriptors(reactor, poll, events, raiseLimit())
    tls = None
    if settings.tlsPort != "off":
        ends = admit, connectors.turnedAway
        tls = TlsServer(poll, reactor, descriptors.listenFor, credentials.current, _tlsSettings(settings), *ends)
        descriptors.owed = partial(getattr, tls, "waiting")
    memory = _memoryBudget(settings, reactor, descriptors)
    limits = Limits(parkSeconds=settings.parkSeconds)
    lobby = Lobby(reactor, descriptors.listen, connectors, store, events, limits)
    lobby.pausedBy = lambda: descriptors.pausedBy
    ports = Ports(lobby, settings.allowPorts)
    if settings.policyPath is not None:
        files.append(_watchPolicy(settings.policyPath, ports, reactor, settings.pollSeconds))
    audit = AuditLog(settings.stateDir, events)
    server, apiFiles = makeApi(settings, reactor, connectors, ports, events, audit.fault)
    files = [credentials, *files, *apiFiles]
    return ListenerService(
        settings,
        reactor,
        files,
        verifier,
        connectors,
        quic,
        tls,
        ports,
        store,
        threads,
        server,
        audit,
    )


def _memoryBudget(settings: ListenerSettings, clock: IReactorTime, descriptors: Descriptors) -> MemoryBudget:
    """The budget that keeps visitors out once it is used up."""

    def full(isFull: bool) -> None:
        if isFull:
            descriptors.hold(f"{settings.memoryBudget} bytes of memory are used up (SWL_MEMORY_BUDGET)")
        else:
            descriptors.release()

    return MemoryBudget(clock, settings.memoryBudget, full)


def _watchPolicy(path: Path, ports: Ports, reactor: IReactorTime, interval: float) -> FileWatch[Policy]:
    """Have the rules of a file in force, and those that it is changed to."""
    watch = FileWatch(reactor, [path], partial(loadPolicy, path), ports.enforce, interval)
    ports.enforce(watch.current)
    return watch


def _transport(settings: ListenerSettings) -> TransportSettings:
    return TransportSettings(
        idleTimeout=settings.idleTimeout,
        keepAlive=settings.keepAlive,
        handshakeTimeout=settings.handshakeTimeout,
        streamWindow=settings.streamWindow,
        sessionWindow=settings.sessionWindow,
        streamLimit=settings.streamLimit,
        socketBuffer=settings.socketBuffer,
    )


def _tlsSettings(settings: ListenerSettings) -> TlsSettings:
    return TlsSettings(
        idleTimeout=settings.idleTimeout,
        keepAlive=settings.keepAlive,
        handshakeTimeout=settings.handshakeTimeout,
        streamLimit=settings.streamLimit,
    )


@implementer(IReloadable, IStateful)
@attrs.define(eq=False, slots=False)
class ListenerService(Service):
    """
    A listener.

    :ivar connectors: who is connected.
    :ivar ports: what is open.
    """

    _settings: ListenerSettings
    _reactor: Any  # Any: see makeListener
    _files: Sequence[FileWatch[Any]]  # Any: each watch has a type of its own
    _verifier: IVerifier
    connectors: Connectors
    _quic: QuicServer
    _tls: TlsServer | None
    ports: Ports
    _store: IPortStore
    _threads: ThreadPool
    _apiServer: ApiServer
    _audit: AuditLog
    _api: IListeningPort | None = attrs.field(default=None, init=False)
    _hasState: bool = attrs.field(default=False, init=False)

    _log = Logger()

    @property
    def quicAddress(self) -> Address:
        """Where connectors connect to; with the true port when the settings say 0."""
        return self._quic.address

    @property
    def tlsAddress(self) -> Address | None:
        """The same for connectors that can't use UDP; `None` when there is no such port."""
        return None if self._tls is None else self._tls.address

    @property
    def apiAddress(self) -> Address:
        """Where the API is; only while the service runs."""
        assert self._api is not None
        host = self._api.getHost()
        assert isinstance(host, IPv4Address | IPv6Address)
        return host.host, host.port

    def openState(self) -> None:
        """
        See `IStateful.openState`: the stored wishes and denials, and the audit log.

        :raises errors.ConfigurationError: the state directory can't be used, or what is in it can't be trusted.
        """
        self.ports.load()
        self.connectors.denials.load()
        self._audit.start()
        self._hasState = True

    def privilegedStartService(self) -> None:
        """
        Bind the sockets of the settings, whose ports may be privileged ones, after `openState` if nobody has called it.

        :raises errors.ConfigurationError: as there.
        :raises errors.AddressUnavailable: one of them can't be had.
        """
        if not self._hasState:
            self.openState()
        settings = self._settings
        try:
            self._quic.listen(settings.address, settings.port or self._anyPort())
        except AddressUnavailable as error:
            raise AddressUnavailable(
                f"SWL_ADDRS, SWL_PORT: {error}: name an address of this host, and a port that is free"
            ) from error
        try:
            self._listenApi()
            self._listenTls()
        except AddressUnavailable:
            self._quic.stop()
            if self._api is not None:
                self._api.stopListening()
            raise

    def _anyPort(self) -> int:
        """A port for connectors where any will do: one that is free for both carriers, if they are to share it."""
        shared = self._tls is not None and self._settings.tlsPort == "same"
        with suppress(OSError):  # whoever binds the address says so, and how
            return freeForBoth(self._settings.address) if shared else 0
        return 0

    def _listenTls(self) -> None:
        """
        Bind the TLS port. Without a number of its own it is a bonus: whoever has used that TCP port for something else,
        an entry port perhaps, goes on as before.
        """
        settings, tls = self._settings, self._tls
        if tls is None:
            return
        isBonus = isinstance(settings.tlsPort, str)
        port = self.quicAddress[1] if isinstance(settings.tlsPort, str) else settings.tlsPort
        try:
            if isBonus and port in [spec.port for spec in self.ports.specs()]:
                raise PortUnavailable(f"port {port} is an entry port")
            tls.listen(settings.address, port)
        except PortUnavailable as error:
            if not isBonus:
                raise AddressUnavailable(f"SWL_TLS_PORT: {error}: free that port, name another, or off") from error
            self._log.warn("no connectors over TLS: {error}; SWL_TLS_PORT names another port, or off", error=error)

    def _listenApi(self) -> None:
        settings = self._settings
        try:
            self._api = self._reactor.listenTCP(settings.apiPort, self._apiServer, API_BACKLOG, settings.apiAddress)
        except CannotListenError as error:
            raise AddressUnavailable(
                f"APIS_PORT: the API can't listen on {settings.apiAddress} port {settings.apiPort} "
                f"({error.socketError.strerror}): free that port or name another"
            ) from error

    def startService(self) -> None:
        """
        Take the stored wishes up again, after `privilegedStartService` if nobody has called it.

        :raises errors.AddressUnavailable: and `errors.ConfigurationError`, as there.
        """
        if self._api is None:
            self.privilegedStartService()
        self.ports.restore()
        self._threads.start()
        for file in self._files:
            file.start()
        super().startService()
        tls = self.tlsAddress
        self._log.info(
            f"listening for connectors at {{quic}}{'' if tls is None else ' and, over TLS, at {tls}'}, API at {{api}}",
            quic=showAddress(self.quicAddress),
            tls=None if tls is None else showAddress(tls),
            api=showAddress(self.apiAddress),
        )

    def stopService(self) -> Deferred[None]:
        """Stop; fires when visitors, sessions, sockets, files and threads are gone."""
        super().stopService()
        return ensureDeferred(self._stop())

    def reload(self) -> None:
        """See `IReloadable.reload`."""
        for file in self._files:
            file.check(insist=True)

    async def _stop(self) -> None:
        drain = self._settings.drainSeconds
        await self.ports.stopListening()  # first: a visitor who came later would find nobody
        self.connectors.drain("the listener stops", drain)
        await self.ports.stop(drain)
        await self.connectors.whenGone()
        for file in self._files:
            file.stop()
        if self._api is not None:
            await maybeDeferred(self._api.stopListening)
            await self._apiServer.closeAll()
        gone = self.connectors.closeAll("the listener stops")
        # Begun before the sessions are gone: their connectors come back at once.
        if self._tls is not None:
            await self._tls.stop()
        await self._quic.stop()
        await gone
        self._verifier.stop()
        await self._store.close()
        self._audit.stop()
        self._threads.stop()
