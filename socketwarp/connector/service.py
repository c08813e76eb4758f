"""The connector, put together: the one module of this room that knows `quic`."""

import random
from functools import partial
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from zope.interface import implementer

from ..identity.certificates import Credentials, loadCredentials
from ..identity.watch import FileWatch
from ..interfaces import Address, IReloadable, ISession
from ..quic.endpoint import TransportSettings, connect
from ..settings import ConnectorSettings
from ..watches import Hangups
from ..wire.dialect import DIALECTS
from .attempt import Attempts
from .backoff import Backoff
from .link import Link
from .names import place
from .policy import Policy
from .streams import IncomingStreams
from .targets import Targets

#: What we offer: the dialects without a control stream, which this room doesn't speak yet.
PROTOCOLS = [alpn for alpn, dialect in DIALECTS.items() if not dialect.hasControl]


def makeConnector(
    settings: ConnectorSettings, reactor: Any
) -> IService:  # Any: no interface names all that is used of it
    """
    Make a connector that isn't started: a service that stays connected to the listener until it is stopped.

    :raises errors.ConfigurationError: when a file that the settings name can't be used.
    """
    paths = (settings.certPath, settings.keyPath, settings.caPath)
    load = partial(loadCredentials, *paths, settings.crlPaths, settings.crlExpired, role="client")
    return ConnectorService(
        settings, reactor, FileWatch(reactor, (*paths, *settings.crlPaths), load, interval=settings.pollSeconds)
    )


@implementer(IReloadable)
class ConnectorService(MultiService):
    """A connector: a link to its listener, and what serves the streams of its sessions."""

    def __init__(
        self,
        settings: ConnectorSettings,
        reactor: Any,  # Any: as above
        credentials: FileWatch[Credentials],
    ) -> None:
        super().__init__()
        self._settings = settings
        self._reactor = reactor
        self._credentials = credentials

    def startService(self) -> None:
        """Connect, and stay connected."""
        settings = self._settings
        self._hangups = Hangups(self._reactor)
        targets = Targets(Policy(settings.allowTargets), self._reactor, settings.dialTimeout)
        self._streams = IncomingStreams(targets, self._reactor, settings.dialLimit, self._hangups)
        link = Link(
            place(settings.serverName, settings.port),
            Attempts(settings.serverName, settings.port, self._reactor.nameResolver, self._reactor, self._connect),
            self._streams.serve,
            Backoff(settings.backoffBase, settings.backoffCap, random.random),
            settings.stableSeconds,
            self._reactor,
        )
        link.setServiceParent(self)
        self._credentials.start()
        super().startService()

    def stopService(self) -> Deferred[None]:
        """End session and connections; fires when all of it is gone."""
        return Deferred.fromCoroutine(self._stop())

    def reload(self) -> None:
        """See `IReloadable.reload`."""
        self._credentials.check(insist=True)

    async def _stop(self) -> None:
        self._credentials.stop()
        await maybeDeferred(super().stopService)
        await self._streams.whenIdle()
        self._hangups.close()

    def _connect(self, address: Address) -> Deferred[ISession]:
        """One QUIC connection to one address, with the certificate as it is now."""
        settings = self._settings
        transport = TransportSettings(
            idleTimeout=settings.idleTimeout,
            keepAlive=settings.keepAlive,
            handshakeTimeout=settings.handshakeTimeout,
            streamWindow=settings.streamWindow,
            sessionWindow=settings.sessionWindow,
            streamLimit=settings.streamLimit,
        )
        return connect(self._reactor, address, settings.serverName, self._credentials.current, PROTOCOLS, transport)
