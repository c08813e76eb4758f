"""A look at listeners by the TLS carrier: as the connector would connect, also through a proxy, but without hello."""

import socket
from functools import partial
from typing import Any

from ..errors import Code, SocketwarpError
from ..identity.certificates import Credentials
from ..interfaces import Address
from ..settings import ConnectorSettings, ListenerName
from ._reactor import runOnReactor

#: Seconds for a connection, for a proxy's answer, and for a handshake.
LOOK_SECONDS = 5.0
#: What the listener hears of it.
_REASON = "it was only a look"

#: By listener, why it can't be reached; `None` when it can.
Outcomes = dict[ListenerName, Exception | None]


def lookOverTls(settings: ConnectorSettings, trusted: Credentials) -> Outcomes:
    """Connect to each listener, one after the other."""

    async def look(reactor: Any) -> Outcomes:  # Any: see runOnReactor
        return {listener: await _look(reactor, settings, listener, trusted) for listener in settings.listeners}

    return runOnReactor(look)


async def _look(
    reactor: Any,  # Any: as above
    settings: ConnectorSettings,
    listener: ListenerName,
    trusted: Credentials,
) -> Exception | None:
    """Try its addresses, or those of the proxy on the way."""
    from ..tcp.connect import dialThrough  # only here: loading a carrier takes longer than most commands
    from ..tcp.dial import dialSocket
    from ..tcp.poll import Poll
    from ..tls.client import connect
    from ..tls.session import TlsSettings

    target, proxy = (listener.host, settings.portsOf(listener)[1]), settings.proxyOf(listener)
    host, port = target if proxy is None else (proxy.host, proxy.port)
    poll, limits = Poll(reactor), TlsSettings(handshakeTimeout=LOOK_SECONDS)
    outcome: Exception | None = None
    try:
        for address in _addresses(host, port):
            dial = partial(dialSocket, poll, reactor, address, LOOK_SECONDS)
            if proxy is not None:
                dial = partial(dialThrough, poll, reactor, address, target, proxy.credentials, LOOK_SECONDS)
            try:
                session = await connect(poll, reactor, dial, listener.host, trusted, limits)
            except (SocketwarpError, OSError) as error:
                outcome = error
                continue
            session.close(Code.NO_ERROR, _REASON)
            await session.whenClosed()
            return None
    except socket.gaierror as error:
        return OSError(f"{host!r} has no address: {error.strerror}")
    return outcome


def _addresses(host: str, port: int) -> list[Address]:
    """Each once."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((str(place[0]), int(place[1])) for *_, place in found))
