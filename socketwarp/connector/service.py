"""The connector, put together: the one module of this room that knows `quic`."""

import random
from functools import partial
from typing import Any

from twisted.application.service import IService, MultiService

from ..identity.certificates import loadCredentials
from ..quic.endpoint import TransportSettings, connect
from ..settings import ConnectorSettings
from ..wire.dialect import DIALECTS
from .attempt import Attempts
from .backoff import Backoff
from .link import Link
from .names import place
from .policy import Policy
from .streams import IncomingStreams
from .targets import Targets


def makeConnector(settings: ConnectorSettings, reactor: Any) -> IService:  # Any: time, UDP, TCP and nameResolver
    """
    Make the connector: a service that stays connected to the listener until it is stopped.

    :raises errors.ConfigurationError: when a certificate, key or CA file can't be used.
    """
    credentials = loadCredentials(
        str(settings.certPath),
        str(settings.keyPath),
        str(settings.caPath),
        tuple(map(str, settings.crlPaths)),
        crlExpired=settings.crlExpired,
        role="client",
    )
    transport = TransportSettings(
        idleTimeout=settings.idleTimeout,
        keepAlive=settings.keepAlive,
        handshakeTimeout=settings.handshakeTimeout,
        streamWindow=settings.streamWindow,
        sessionWindow=settings.sessionWindow,
        streamLimit=settings.streamLimit,
    )
    streams = IncomingStreams(
        Targets(Policy(settings.allowTargets), reactor, settings.dialTimeout), reactor, settings.dialLimit
    )
    toAddress = partial(
        connect,
        reactor,
        serverName=settings.serverName,
        credentials=credentials,
        protocols=tuple(DIALECTS),
        settings=transport,
    )
    connector = MultiService()
    link = Link(
        place(settings.serverName, settings.port),
        Attempts(settings.serverName, settings.port, reactor.nameResolver, reactor, toAddress),
        streams.serve,
        Backoff(settings.backoffBase, settings.backoffCap, random.random),
        settings.stableSeconds,
        reactor,
    )
    link.setServiceParent(connector)
    return connector
