"""The verifier that the settings ask for, and the files that it reads."""

from typing import Any

from cryptography import x509
from twisted.web.iweb import IAgent

from ..identity.certificates import Credentials
from ..identity.chains import Standing
from ..identity.local import LocalVerifier, watchedAccess
from ..identity.names import uidSource
from ..identity.pem import SettingFile
from ..identity.scep import ScepVerifier, scepAgent
from ..identity.watch import FileWatch
from ..interfaces import IVerifier
from ..settings import ListenerSettings


def makeVerifier(
    settings: ListenerSettings,
    credentials: FileWatch[Credentials],
    reactor: Any,  # Any: no interface names all that is used of it
) -> tuple[IVerifier, list[FileWatch[Any]]]:  # Any: each watch has a type of its own
    """
    Make the verifier. Whichever it is, the revocation lists of `credentials` count in each of its decisions.

    :return: and the watches of its own files; the caller starts and stops them.
    :raises errors.ConfigurationError: a file that the settings name can't be used.
    """

    def standing(leaf: x509.Certificate) -> None:
        credentials.check()  # so that a new revocation list counts at the next question, not only at the next look
        credentials.current.checkStanding(leaf)

    return (_local if settings.verifier == "local" else _scep)(settings, standing, reactor)


def _local(
    settings: ListenerSettings, standing: Standing, reactor: Any
) -> tuple[IVerifier, list[FileWatch[Any]]]:  # Any: as above
    source = uidSource(settings.uidSource)
    if settings.accessPath is None:
        return LocalVerifier(source, standing), []
    access = watchedAccess(reactor, SettingFile("SWL_ACCESS_PATH", settings.accessPath), settings.pollSeconds)
    return LocalVerifier(source, standing, access), [access]


def _scep(
    settings: ListenerSettings, standing: Standing, reactor: Any
) -> tuple[IVerifier, list[FileWatch[Any]]]:  # Any: as above
    paths = settings.scepCaPath, settings.scepCertPath, settings.scepKeyPath
    named = [path for path in paths if path is not None]
    agent: FileWatch[IAgent] = FileWatch(
        reactor, named, lambda: scepAgent(reactor, *paths), interval=settings.pollSeconds
    )
    verifier = ScepVerifier(
        settings.scepUrl,
        agent.current,
        reactor,
        # Remembered longer than that, a revocation would be noticed late.
        cacheSeconds=min(settings.scepCacheSeconds, settings.recheckSeconds / 2),
        standing=standing,
    )

    def renew(fresh: IAgent) -> None:
        verifier.agent = fresh

    agent.changed = renew
    return verifier, [agent]
