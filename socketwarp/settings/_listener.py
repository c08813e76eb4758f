"""The listener's settings: the original's environment variables, and ours beside them."""

# ruff: noqa: RUF009 (setting() is an attrs.field())

from ipaddress import ip_address
from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import urlsplit

import attrs

from ..errors import ConfigurationError
from ._fields import CommonSettings, setting
from ._kinds import (
    ADDRESS,
    OPTIONAL_PATH,
    PATH,
    PATHS,
    PORT,
    PORTS,
    SECONDS,
    SECONDS_OR_NONE,
    TLS_PORT,
    TRUTH,
    UID_SOURCE,
    URL,
    WORDS,
    choice,
)
from ._rules import PortRange

_CERTIFICATES = "../Certs_and_Key/test"


@attrs.frozen(kw_only=True)
class ListenerSettings(CommonSettings):
    """
    Everything a listener can be told.

    :ivar certPath: PEM file: our leaf, then its intermediates. ``keyPath``: the leaf's key. ``caPath``: the roots that
        sign connectors.
    :ivar address: where connectors come to; ``port``: the QUIC (UDP) port, 0 for any free one.
    :ivar tlsPort: the TLS (TCP) port, for connectors whose networks let no UDP through: 0 for any free one, ``same``:
        the number of ``port`` if it is free, ``off``: none.
    :ivar verifier: ``scep`` or ``local``.
    :ivar scepCaPath: roots of a https SCEP server; `None`: the system's. ``scepCertPath``, ``scepKeyPath``: what we
        show it of ourselves, both or none.
    :ivar scepCacheSeconds: the SCEP server isn't asked about a certificate again that it decided about so lately,
        seconds; at most half of ``recheckSeconds`` counts.
    :ivar uidSource: where the local verifier finds the uid: ``cn``, ``uri:PREFIX`` or ``dns:SUFFIX``.
    :ivar accessPath: whom the local verifier allows and denies; `None`: everybody with a certificate.
    :ivar recheckSeconds: a running session's certificate is verified again after this, seconds.
    :ivar recheckGrace: how long a session goes on while the verifier can't answer, seconds; 0: not at all.
    :ivar sharedUids: uids that several connectors may have at a time; visitors are spread over them.
    :ivar parkSeconds: how long a visitor waits for its connector to come back, seconds; 0: not at all.
    :ivar allowPorts: entry ports that may be opened; empty: every one.
    :ivar policyPath: rules about ports, visitors and rates; `None`: no such rules.
    :ivar apiCertPath: PEM file: the API's leaf, then its intermediates; `None`: no TLS. ``apiKeyPath``: the leaf's key.
    :ivar apiClientCaPath: roots that sign the API's callers, from whom TLS asks for a certificate then.
    :ivar apiCrlPaths: revocation lists (PEM or DER) for their certificates; ``crlExpired`` counts for these, too.
    :ivar apiTokensPath: tokens, of which every caller needs one then.
    :ivar apiHosts: names under which the API may be called, besides addresses, names without a dot and those in its
        certificate.
    :ivar apiUnauthenticated: the API may listen beyond loopback though it asks nobody who they are.
    """

    prefix: ClassVar[str] = "SWL"

    certPath: Path = setting(
        PATH, "SWL_CERT_PATH", "cert-path", "listener's certificate (PEM)", default=f"{_CERTIFICATES}/server.crt"
    )
    keyPath: Path = setting(
        PATH, "SWL_KEY_PATH", "key-path", "its private key (PEM)", default=f"{_CERTIFICATES}/server.key"
    )
    caPath: Path = setting(
        PATH, "SWL_CA_PATH", "ca-path", "roots that sign connectors (PEM)", default=f"{_CERTIFICATES}/ca.crt"
    )
    address: str = setting(ADDRESS, "SWL_ADDRS", "address", "address for connectors", default="0.0.0.0")
    port: int = setting(PORT, "SWL_PORT", "port", "QUIC (UDP) port", default=11443)
    tlsPort: int | Literal["same", "off"] = setting(
        TLS_PORT, "SWL_TLS_PORT", "tls-port", "TLS (TCP) port: a number, same (as SWL_PORT), or off", default="same"
    )
    verifier: Literal["scep", "local"] = setting(
        choice("scep", "local"), "SWL_VERIFIER", "verifier", "who says whose a certificate is", default="scep"
    )
    scepUrl: str = setting(
        URL,
        "SWL_SCEP_URL",
        "scep-url",
        "SCEP server's verify URL",
        default="http://127.0.0.1:3000/api/cert/verify",
    )
    scepCaPath: Path | None = setting(
        OPTIONAL_PATH, "SWL_SCEP_CA_PATH", "scep-ca-path", "roots that sign a https SCEP server (PEM)", default=None
    )
    scepCertPath: Path | None = setting(
        OPTIONAL_PATH, "SWL_SCEP_CERT_PATH", "scep-cert-path", "our certificate for the SCEP server (PEM)", default=None
    )
    scepKeyPath: Path | None = setting(
        OPTIONAL_PATH, "SWL_SCEP_KEY_PATH", "scep-key-path", "its private key (PEM)", default=None
    )
    scepCacheSeconds: float = setting(
        SECONDS_OR_NONE,
        "SWL_SCEP_CACHE_SECONDS",
        "scep-cache-seconds",
        "the SCEP server's decisions are remembered for, at most half of SWL_RECHECK_SECONDS",
        default=3.0,
        unit="seconds",
    )
    uidSource: str = setting(
        UID_SOURCE,
        "SWL_UID_SOURCE",
        "uid-source",
        "where the local verifier finds the uid: cn, uri:PREFIX or dns:SUFFIX",
        default="cn",
    )
    accessPath: Path | None = setting(
        OPTIONAL_PATH,
        "SWL_ACCESS_PATH",
        "access-path",
        "uids and fingerprints that the local verifier allows and denies",
        default=None,
    )
    recheckSeconds: float = setting(
        SECONDS,
        "SWL_RECHECK_SECONDS",
        "recheck-seconds",
        "a running session is verified again after",
        default=60.0,
        unit="seconds",
    )
    recheckGrace: float = setting(
        SECONDS_OR_NONE,
        "SWL_RECHECK_GRACE_SECONDS",
        "recheck-grace-seconds",
        "a running session goes on while the verifier can't answer for",
        default=900.0,
        unit="seconds",
    )
    sharedUids: tuple[str, ...] = setting(
        WORDS, "SWL_SHARED_UIDS", "shared-uids", "uids that several connectors may have at a time", default=()
    )
    parkSeconds: float = setting(
        SECONDS_OR_NONE,
        "SWL_PARK_SECONDS",
        "park-seconds",
        "a visitor waits for its connector to come back",
        default=5.0,
        unit="seconds",
    )
    allowPorts: tuple[PortRange, ...] = setting(
        PORTS, "SWL_ALLOW_PORTS", "allow-ports", "entry ports that may be opened (all, unless given)", default=()
    )
    policyPath: Path | None = setting(
        OPTIONAL_PATH, "SWL_POLICY_PATH", "policy-path", "rules about ports, visitors and rates (TOML)", default=None
    )
    apiAddress: str = setting(ADDRESS, "APIS_ADDRS", "api-address", "API address", default="127.0.0.1")
    apiPort: int = setting(PORT, "APIS_PORT", "api-port", "API port", default=8080)
    apiCertPath: Path | None = setting(
        OPTIONAL_PATH, "APIS_CERT_PATH", "api-cert-path", "the API's certificate (PEM)", default=None
    )
    apiKeyPath: Path | None = setting(
        OPTIONAL_PATH, "APIS_KEY_PATH", "api-key-path", "its private key (PEM)", default=None
    )
    apiClientCaPath: Path | None = setting(
        OPTIONAL_PATH,
        "APIS_CLIENT_CA_PATH",
        "api-client-ca-path",
        "roots that sign the API's callers, each of whom needs a certificate then (PEM)",
        default=None,
    )
    apiCrlPaths: tuple[Path, ...] = setting(
        PATHS, "APIS_CRL_PATHS", "api-crl-paths", "revocation lists for certificates of the API's callers", default=()
    )
    apiTokensPath: Path | None = setting(
        OPTIONAL_PATH,
        "APIS_TOKENS_FILE",
        "api-tokens-file",
        "tokens, of which each of the API's callers needs one then",
        default=None,
    )
    apiHosts: tuple[str, ...] = setting(
        WORDS,
        "APIS_HOSTS",
        "api-hosts",
        "further names under which the API may be called, besides those in its certificate",
        default=(),
    )
    apiUnauthenticated: bool = setting(
        TRUTH,
        "APIS_ALLOW_UNAUTHENTICATED",
        "api-allow-unauthenticated",
        "let the API listen beyond loopback though it has no authentication",
        default=False,
    )

    def __attrs_post_init__(self) -> None:
        checkApiAccess(self)
        checkVerifierSettings(self)


def checkApiAccess(settings: ListenerSettings) -> None:
    """
    Refuse an API that strangers could call: the one place that decides it.

    :raises errors.ConfigurationError: when the API would listen beyond loopback without TLS, or without asking callers
        who they are; and for settings of TLS that nobody would read.
    """
    checkApiTls(settings)
    if ip_address(settings.apiAddress).is_loopback or settings.apiUnauthenticated:
        return
    lacks = []
    if settings.apiCertPath is None:
        lacks.append("no TLS (APIS_CERT_PATH and APIS_KEY_PATH)")
    if settings.apiClientCaPath is None and settings.apiTokensPath is None:
        lacks.append("no authentication (APIS_CLIENT_CA_PATH or APIS_TOKENS_FILE)")
    if lacks:
        raise ConfigurationError(
            f"APIS_ADDRS (--api-address): {settings.apiAddress!r} would let strangers open ports, since the API has "
            f"{' and '.join(lacks)}: set these, or use 127.0.0.1 (or ::1), or set APIS_ALLOW_UNAUTHENTICATED=1 in a "
            "closed network"
        )


def checkApiTls(settings: ListenerSettings) -> None:
    """
    Refuse half of TLS.

    :raises errors.ConfigurationError: a certificate without its key, the other way round, or a client CA without both.
    """
    if (settings.apiCertPath is None) != (settings.apiKeyPath is None):
        raise ConfigurationError("APIS_CERT_PATH, APIS_KEY_PATH: a certificate and its key go together: set the other")
    if settings.apiClientCaPath is not None and settings.apiCertPath is None:
        raise ConfigurationError(
            f"APIS_CLIENT_CA_PATH: {str(settings.apiClientCaPath)!r} asks callers for certificates, which needs TLS: "
            "set APIS_CERT_PATH and APIS_KEY_PATH, too"
        )
    if settings.apiCrlPaths and settings.apiClientCaPath is None:
        named = ",".join(map(str, settings.apiCrlPaths))
        raise ConfigurationError(
            f"APIS_CRL_PATHS: {named!r} revokes nothing, since callers need no certificate: set "
            "APIS_CLIENT_CA_PATH, too"
        )


def checkVerifierSettings(settings: ListenerSettings) -> None:
    """
    Refuse what nobody would read, though somebody relies on it.

    :raises errors.ConfigurationError: a setting of the local verifier beside another, or a CA for calls without TLS.
    """
    if settings.verifier == "scep":
        for name, value in (("SWL_ACCESS_PATH", settings.accessPath), ("SWL_UID_SOURCE", settings.uidSource)):
            if value not in (None, "cn"):
                raise ConfigurationError(
                    f"{name}: {str(value)!r} is for the local verifier only: set SWL_VERIFIER=local, or leave it out"
                )
    if settings.scepCaPath is not None and urlsplit(settings.scepUrl).scheme != "https":
        raise ConfigurationError(
            f"SWL_SCEP_CA_PATH: {str(settings.scepCaPath)!r} checks nothing while SWL_SCEP_URL is "
            f"{settings.scepUrl!r}: use a https URL, or leave it out"
        )
