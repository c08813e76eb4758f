"""The connector, put together: the one module of this room that knows `quic` and `tls`."""

import random
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from os import urandom
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ..identity.certificates import Credentials, loadCredentials
from ..identity.watch import FileWatch
from ..interfaces import Address, IReloadable, ISession
from ..memory import MemoryBudget
from ..quic.endpoint import TransportSettings, connect
from ..rules.targets import loadTargets
from ..settings import ConnectorSettings, ListenerName
from ..tcp.connect import dialThrough
from ..tcp.dial import dial, dialSocket
from ..tcp.limit import raiseLimit
from ..tcp.poll import Poll
from ..tls import client as tls
from ..tls.session import TlsSettings
from ..wire.dialect import DIALECTS
from ..wire.messages import FINISHES, PING, YIELDS, Hello
from .attempt import Attempts
from .backoff import Backoff
from .carriers import Carrier, Carriers, trialBackoff
from .conversation import Conversation
from .link import Link
from .names import place
from .network import NetworkWatch
from .policy import Policy
from .remembered import Remembered
from .streams import IncomingStreams
from .targets import Targets

#: What we offer, the preferred first.
PROTOCOLS = list(DIALECTS)
#: Seconds that the end of a session may take, of which we went away, once its streams are over: a round trip until the
#: listener has said that none are left, or has ended it itself.
FAREWELL_SECONDS = 1.0
#: Descriptors kept for everything that is neither a lane nor a target: files, the reactor's own, sessions being made.
RESERVE = 64


def makeConnector(
    settings: ConnectorSettings, reactor: Any
) -> IService:  # Any: no interface names all that is used of it
    """
    Make a connector that isn't started: a service that stays connected to the listener until it is stopped.

    :raises errors.ConfigurationError: when a file that the settings name can't be used.
    """
    paths = (settings.certPath, settings.keyPath, settings.caPath)
    load = partial(loadCredentials, *paths, settings.crlPaths, settings.crlExpired, role="client")

    def renew(fresh: Credentials) -> None:
        connector.renew()

    watch = FileWatch(reactor, (*paths, *settings.crlPaths), load, renew, settings.pollSeconds)
    connector = ConnectorService(settings, reactor, watch, _watchRules(settings, reactor), raiseLimit())
    return connector


def _watchRules(settings: ConnectorSettings, reactor: IReactorTime) -> FileWatch[Policy]:
    """What the settings allow to be dialled, and what their file of rules does."""
    path = settings.policyPath

    def read() -> Policy:
        return Policy((*settings.allowTargets, *(() if path is None else loadTargets(path))))

    return FileWatch(reactor, [] if path is None else [path], read, interval=settings.pollSeconds)


@implementer(IReloadable)
class ConnectorService(MultiService):
    """A connector: a link to each of its listeners, and what serves the streams of their sessions."""

    _log = Logger()

    def __init__(
        self,
        settings: ConnectorSettings,
        reactor: Any,  # Any: as above
        credentials: FileWatch[Credentials],
        rules: FileWatch[Policy],
        descriptorLimit: int,
    ) -> None:
        """:param descriptorLimit: how many the process may have open."""
        super().__init__()
        self._settings = settings
        self._reactor = reactor
        self._credentials = credentials
        self._rules = rules
        # A visitor over TLS takes two: the lane's, and the target's. Each listener has its share of them.
        lanes = (descriptorLimit - RESERVE) // 2 // len(settings.listeners)
        self._laneLimit = max(1, min(settings.streamLimit, lanes))
        self._instance = urandom(8).hex()
        self._poll = Poll(reactor)
        self._links: list[Link] = []
        self._carriers: list[Carriers] = []

    def startService(self) -> None:
        """Connect, and stay connected."""
        settings = self._settings
        dialOne = partial(dial, self._poll, self._reactor)
        targets = Targets(self._rules.current, self._reactor, dialOne, settings.dialTimeout)
        self._rules.changed = partial(setattr, targets, "policy")
        self._streams = IncomingStreams(targets, self._reactor, settings.dialLimit)
        self._memory = MemoryBudget(self._reactor, settings.memoryBudget, self._full)
        self._network = NetworkWatch(self._reactor, self._reactor, self._wake)
        listeners = {self._nameOf(listener): listener for listener in settings.listeners}
        remembered = Remembered(settings.stateDir, tuple(listeners))
        self._links = [self._makeLink(name, listener, remembered) for name, listener in listeners.items()]
        for link in self._links:
            link.setServiceParent(self)
        self._credentials.start()
        self._rules.start()
        self._network.start()
        super().startService()

    def _nameOf(self, listener: ListenerName) -> str:
        """What logs call it: its host, and the port where it is sought first."""
        quicPort, tlsPort = self._settings.portsOf(listener)
        return place(listener.host, quicPort if self._mayUseQuic(listener) else tlsPort)

    def _mayUseQuic(self, listener: ListenerName) -> bool:
        return self._settings.carrier != "tls" and self._settings.proxyOf(listener) is None

    def _makeLink(self, name: str, listener: ListenerName, remembered: Remembered) -> Link:
        settings, clock = self._settings, self._reactor
        ways = self._waysTo(listener)
        carriers: Carriers | None = None
        if len(ways) > 1:
            carriers = Carriers(name, ways, remembered, trialBackoff(settings.quicRetry, random.random), clock)
            self._carriers.append(carriers)
        link = Link(
            name,
            partial(self._converse, carriers or partial(self._attempt, *ways.values())),
            Backoff(settings.backoffBase, settings.backoffCap, random.random),
            settings.stableSeconds,
            clock,
        )
        if carriers is not None:
            carriers.changeOver = link.renew
        return link

    def _waysTo(self, listener: ListenerName) -> dict[Carrier, Callable[[], Deferred[ISession]]]:
        """How a listener may be reached: one attempt by each carrier."""
        settings, resolver, clock = self._settings, self._reactor.nameResolver, self._reactor
        quicPort, tlsPort = settings.portsOf(listener)
        proxy = settings.proxyOf(listener)
        ways: dict[Carrier, Callable[[], Deferred[ISession]]] = {}
        if self._mayUseQuic(listener):
            connect = partial(self._connectQuic, listener.host)
            ways["quic"] = Attempts(listener.host, quicPort, resolver, clock, connect)
        if settings.carrier != "quic":
            host, port = (listener.host, tlsPort) if proxy is None else (proxy.host, proxy.port)
            ways["tls"] = Attempts(host, port, resolver, clock, partial(self._connectTls, listener), "TCP")
        if proxy is not None:
            text = "{listener} is reached through the HTTP proxy {proxy}, and so by tls only"
            self._log.info(text, listener=str(listener), proxy=str(proxy))
        return ways

    def renew(self) -> None:
        """There is a new certificate: change over to it, and drop nobody."""
        for link in self._links:
            link.renew()

    def _wake(self) -> None:
        for carriers in self._carriers:
            carriers.wake()
        for link in self._links:
            link.wake()

    def stopService(self) -> Deferred[None]:
        """End session and connections; fires when all of it is gone."""
        return Deferred.fromCoroutine(self._stop())

    def reload(self) -> None:
        """See `IReloadable.reload`."""
        self._credentials.check(insist=True)
        self._rules.check(insist=True)

    def _full(self, isFull: bool) -> None:
        """Memory is used up, or no more."""
        self._streams.isFull = isFull
        if isFull:
            self._log.warn("{limit} bytes of memory are used up (SWC_MEMORY_BUDGET)", limit=self._memory.limit)
        else:
            self._log.info("new streams are served again")

    async def _stop(self) -> None:
        self._credentials.stop()
        self._rules.stop()
        self._network.stop()
        tries = DeferredList([carriers.stop() for carriers in self._carriers])
        if self._settings.drainSeconds:
            await self._drain(self._settings.drainSeconds)
        await maybeDeferred(super().stopService)
        await tries
        await self._streams.whenIdle()
        self._streams.preambles.stop()

    async def _drain(self, seconds: float) -> None:
        """
        Tell the listeners that we leave, and let connections finish. The listeners say when no streams are left,
        because they alone know of those that are on their way.
        """
        end = self._reactor.seconds() + seconds
        self._streams.leave()
        gone = DeferredList([link.leave(seconds) for link in self._links])
        await self._atMost(FAREWELL_SECONDS, gone)
        await self._atMost(end - self._reactor.seconds(), self._streams.whenIdle())
        await self._atMost(min(FAREWELL_SECONDS, end - self._reactor.seconds()), gone)

    async def _atMost(self, seconds: float, what: Deferred[Any]) -> None:  # Any: its result doesn't matter
        """Wait for `what`, but not longer; `what` isn't cancelled."""
        waiting: Deferred[None] = Deferred()
        timer = self._reactor.callLater(max(0.0, seconds), waiting.callback, None)

        def happened(result: object) -> object:
            if timer.active():
                timer.cancel()
                waiting.callback(None)
            return result

        what.addCallback(happened)
        await waiting

    def _attempt(self, attempts: Callable[[], Deferred[ISession]]) -> Deferred[Conversation]:
        """One attempt by the one carrier that there is."""
        return attempts().addCallback(Conversation, self._reactor)

    def _converse(self, attempts: Callable[[], Deferred[Conversation]], yields: bool) -> Deferred[Conversation]:
        """One attempt, until the listener has admitted us. Streams are served from the session's beginning on."""

        async def converse() -> Conversation:
            conversation = await attempts()
            self._memory.watch(conversation.session)
            self._streams.serve(conversation)
            features = (PING, FINISHES, YIELDS) if yields else (PING, FINISHES)
            hello = Hello("socketwarp", version("socketwarp"), self._instance, self._settings.streamLimit, features)
            return await conversation.open(hello)

        return Deferred.fromCoroutine(converse())

    def _connectQuic(self, serverName: str, address: Address) -> Deferred[ISession]:
        """One QUIC connection to one address, with the certificate as it is now."""
        settings = self._settings
        transport = TransportSettings(
            idleTimeout=settings.idleTimeout,
            keepAlive=settings.keepAlive,
            handshakeTimeout=settings.handshakeTimeout,
            streamWindow=settings.streamWindow,
            sessionWindow=settings.sessionWindow,
            streamLimit=settings.streamLimit,
            socketBuffer=settings.socketBuffer,
        )
        return connect(
            self._reactor, address, serverName, self._credentials.current, PROTOCOLS, transport, self._poll.soon
        )

    def _connectTls(self, listener: ListenerName, address: Address) -> Deferred[ISession]:
        """A session by TLS, to one address of the listener or of the proxy on the way."""
        settings, clock, timeout = self._settings, self._reactor, self._settings.handshakeTimeout
        proxy = settings.proxyOf(listener)
        if proxy is None:
            dialOne = partial(dialSocket, self._poll, clock, address, timeout)
        else:
            target = (listener.host, settings.portsOf(listener)[1])
            dialOne = partial(dialThrough, self._poll, clock, address, target, proxy.credentials, timeout)
        transport = TlsSettings(
            idleTimeout=settings.idleTimeout,
            keepAlive=settings.keepAlive,
            handshakeTimeout=settings.handshakeTimeout,
            streamLimit=self._laneLimit,
        )
        return tls.connect(self._poll, clock, dialOne, listener.host, self._credentials.current, transport)
