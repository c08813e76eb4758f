"""The API that the settings ask for, and the files that it reads."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.protocols.tls import TLSMemoryBIOFactory

from ...identity.watch import FileWatch
from ...rules.tokens import Token, loadTokens
from ...settings import ListenerSettings
from ..connectors import Connectors
from ..events import Events
from ..ports import Ports
from .access import Gate
from .app import Api
from .server import ApiServer, makeSite
from .tls import CurrentContext, ServerTls, loadTls


def makeApi(
    settings: ListenerSettings,
    reactor: Any,  # Any: no interface names all that is used of it
    connectors: Connectors,
    ports: Ports,
    events: Events,
    auditFault: Callable[[], str | None] = lambda: None,
) -> tuple[ApiServer, list[FileWatch[Any]]]:  # Any: each watch has a type of its own
    """
    Make the API's server, which isn't listening.

    :param auditFault: says why changes can't be noted, if so.
    :return: and the watches of its files; the caller starts and stops them.
    :raises errors.ConfigurationError: a file that the settings name can't be used.
    """
    files: list[FileWatch[Any]] = []  # Any: as above
    tls = _watchTls(settings, reactor)
    tokens = _watchTokens(settings, reactor)
    files += [each for each in (tls, tokens) if each is not None]

    def names() -> Sequence[str]:
        return (*settings.apiHosts, *(tls.current.names if tls is not None else ()))

    gate = Gate(None if tokens is None else lambda: tokens.current, names)
    api = Api(reactor, connectors, ports, events, gate, auditFault)
    site = makeSite(api)
    if tls is None:
        return ApiServer(api, site), files
    contexts = CurrentContext(tls.current)
    server = ApiServer(api, TLSMemoryBIOFactory(contexts, False, site, reactor), isTls=True)

    def renew(fresh: ServerTls) -> None:
        changed = fresh.callers != contexts.current.callers
        contexts.current = fresh
        if changed:
            server.closeAll()  # a connection that stays would be a way in for who is revoked by now

    tls.changed = renew
    return server, files


def _watchTls(settings: ListenerSettings, reactor: Any) -> FileWatch[ServerTls] | None:  # Any: as above
    cert, key, clients = settings.apiCertPath, settings.apiKeyPath, settings.apiClientCaPath
    if cert is None or key is None:
        return None
    lists = settings.apiCrlPaths
    paths = [cert, key, *([] if clients is None else [clients]), *lists]
    load = partial(loadTls, cert, key, clients, lists, settings.crlExpired)
    return FileWatch(reactor, paths, load, interval=settings.pollSeconds)


def _watchTokens(settings: ListenerSettings, reactor: Any) -> FileWatch[tuple[Token, ...]] | None:  # Any: as above
    path = settings.apiTokensPath
    if path is None:
        return None
    return FileWatch(reactor, [path], partial(loadTokens, path), interval=settings.pollSeconds)
