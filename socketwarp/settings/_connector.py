"""The connector's settings: the original's settings.json, and ours beside it."""

# ruff: noqa: RUF009 (setting() is an attrs.field())

from pathlib import Path
from typing import ClassVar, Literal

import attrs

from ..errors import ConfigurationError
from ._fields import CommonSettings, setting
from ._kinds import (
    EXEMPT,
    HOST,
    LISTENERS,
    OPTIONAL_PATH,
    OPTIONAL_PORT,
    PATH,
    PORT,
    PROXY,
    SECONDS,
    TARGETS,
    choice,
    wholeNumber,
)
from ._proxy import Proxy, isExempt
from ._rules import ListenerName, TargetRule


@attrs.frozen(kw_only=True)
class ConnectorSettings(CommonSettings):
    """
    Everything a connector can be told.

    :ivar certPath: PEM file: our leaf, then its intermediates. ``keyPath``: the leaf's key. ``caPath``: the roots that
        sign the listener.
    :ivar serverName: the listener's name, resolved and checked against its certificate; ``port``: its port, of QUIC
        (UDP) and, unless ``tlsPort`` is another, of TLS (TCP).
    :ivar serverNames: further listeners, each of which gets a session of its own, for as long as we run.
    :ivar carrier: what carries sessions: ``quic``, ``tls``, or ``auto``: QUIC, and TLS where that doesn't get through.
    :ivar quicRetry: while TLS carries a session that QUIC might carry, that is tried again after this, seconds; the
        pauses grow to an hour.
    :ivar tlsPort: the TLS (TCP) port of the listeners that have no port of their own; `None`: the same number as
        ``port``.
    :ivar proxy: the HTTP proxy on the way to the listeners; `None`: none. Since UDP can't pass one, and whoever has
        one wants nothing to go round it, a listener behind it is reached by TLS only.
    :ivar noProxy: listeners that are reached without it, see `isExempt`.
    :ivar allowTargets: targets that may be dialled, and no others; empty: all but the built-in refusals.
    :ivar policyPath: a file with further rules about targets, which may change; `None`: no such file.
    :ivar dialTimeout: the longest time for reaching a target, all of its addresses together, seconds.
    :ivar dialLimit: dials that may be under way at a time; more are refused.
    :ivar backoffBase: the first pause between attempts, ``backoffCap``: the longest, seconds.
    :ivar stableSeconds: a session that lived as long as this makes the next pause short again, seconds.
    """

    prefix: ClassVar[str] = "SWC"
    defaultFile: ClassVar[str | None] = "settings.json"

    certPath: Path = setting(
        PATH, "SWC_CERT_PATH", "cert-path", "connector's certificate (PEM)", key="client_cert_path"
    )
    keyPath: Path = setting(PATH, "SWC_KEY_PATH", "key-path", "its private key (PEM)", key="client_key_path")
    caPath: Path = setting(PATH, "SWC_CA_PATH", "ca-path", "roots that sign the listener (PEM)", key="ca_cert_path")
    serverName: str = setting(HOST, "SWC_SERVER_NAME", "server-name", "listener's host name or address")
    port: int = setting(PORT, "SWC_PORT", "port", "listener's port", key="service_port", default=11443)
    serverNames: tuple[ListenerName, ...] = setting(
        LISTENERS, "SWC_SERVER_NAMES", "server-names", "further listeners, as host or host:port", default=()
    )
    carrier: Literal["quic", "tls", "auto"] = setting(
        choice("quic", "tls", "auto"),
        "SWC_CARRIER",
        "carrier",
        "what carries sessions: quic (UDP), tls (TCP), or auto: quic, and tls where that doesn't get through",
        default="auto",
    )
    quicRetry: float = setting(
        SECONDS,
        "SWC_QUIC_RETRY_SECONDS",
        "quic-retry-seconds",
        "first pause before QUIC is tried again while TLS carries",
        default=60.0,
        unit="seconds",
    )
    tlsPort: int | None = setting(
        OPTIONAL_PORT, "SWC_TLS_PORT", "tls-port", "listener's TLS (TCP) port, if it isn't its port", default=None
    )
    proxy: Proxy | None = setting(
        PROXY,
        "SWC_PROXY",
        "proxy-file",
        "URL of the HTTP proxy on the way to listeners",
        key="proxy",
        default=None,
        secret=True,
        fallbacks=("https_proxy", "HTTPS_PROXY"),
    )
    noProxy: tuple[str, ...] = setting(
        EXEMPT,
        "SWC_NO_PROXY",
        "no-proxy",
        "listeners that are reached without the proxy, as names and networks",
        default=(),
        fallbacks=("no_proxy", "NO_PROXY"),
    )
    allowTargets: tuple[TargetRule, ...] = setting(
        TARGETS,
        "SWC_ALLOW_TARGETS",
        "allow-targets",
        "targets that may be dialled (all but link-local and metadata addresses, unless given)",
        default=(),
    )
    policyPath: Path | None = setting(
        OPTIONAL_PATH,
        "SWC_POLICY_PATH",
        "policy-path",
        "rules about targets (TOML), beside those of allow-targets",
        default=None,
    )
    dialTimeout: float = setting(
        SECONDS, "SWC_DIAL_SECONDS", "dial-seconds", "longest time to reach a target", default=10.0, unit="seconds"
    )
    dialLimit: int = setting(
        wholeNumber("a whole number from 1 to 100000", 1, 100_000),
        "SWC_DIAL_LIMIT",
        "dial-limit",
        "dials under way at a time",
        default=1000,
    )
    backoffBase: float = setting(
        SECONDS, "SWC_BACKOFF_BASE_SECONDS", "backoff-base-seconds", "first pause", default=1.0, unit="seconds"
    )
    backoffCap: float = setting(
        SECONDS, "SWC_BACKOFF_CAP_SECONDS", "backoff-cap-seconds", "longest pause", default=60.0, unit="seconds"
    )
    stableSeconds: float = setting(
        SECONDS,
        "SWC_STABLE_SECONDS",
        "stable-seconds",
        "a session this old makes the next pause short again",
        default=30.0,
        unit="seconds",
    )

    def __attrs_post_init__(self) -> None:
        for listener in self.listeners:
            if self.carrier == "quic" and self.proxyOf(listener) is not None:
                raise ConfigurationError(
                    f"SWC_CARRIER: 'quic' can't pass the HTTP proxy (SWC_PROXY, HTTPS_PROXY) on the way to {listener}: "
                    "use tls or auto, or name the listener in SWC_NO_PROXY"
                )

    @property
    def listeners(self) -> tuple[ListenerName, ...]:
        """All of them, the first first."""
        return (ListenerName(self.serverName), *self.serverNames)

    def portsOf(self, listener: ListenerName) -> tuple[int, int]:
        """A listener's ports, of QUIC and of TLS; a port of its own is the number of both."""
        return listener.port or self.port, listener.port or self.tlsPort or self.port

    def proxyOf(self, listener: ListenerName) -> Proxy | None:
        """The proxy on the way to a listener."""
        exempt = isExempt(self.noProxy, listener.host, self.portsOf(listener)[1])
        return None if exempt else self.proxy
