"""The connector's settings: the original's settings.json, and ours beside it."""

# ruff: noqa: RUF009 (setting() is an attrs.field())

from pathlib import Path
from typing import ClassVar

import attrs

from ._fields import CommonSettings, setting
from ._kinds import HOST, LISTENERS, PATH, PORT, SECONDS, TARGETS, wholeNumber
from ._rules import ListenerName, TargetRule


@attrs.frozen(kw_only=True)
class ConnectorSettings(CommonSettings):
    """
    Everything a connector can be told.

    :ivar certPath: PEM file: our leaf, then its intermediates. ``keyPath``: the leaf's key. ``caPath``: the roots that
        sign the listener.
    :ivar serverName: the listener's name, resolved and checked against its certificate; ``port``: its QUIC (UDP) port.
    :ivar serverNames: further listeners, each of which gets a session of its own, for as long as we run.
    :ivar allowTargets: targets that may be dialled, and no others; empty: all but the built-in refusals.
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
    port: int = setting(PORT, "SWC_PORT", "port", "listener's QUIC (UDP) port", key="service_port", default=11443)
    serverNames: tuple[ListenerName, ...] = setting(
        LISTENERS, "SWC_SERVER_NAMES", "server-names", "further listeners, as host or host:port", default=()
    )
    allowTargets: tuple[TargetRule, ...] = setting(
        TARGETS,
        "SWC_ALLOW_TARGETS",
        "allow-targets",
        "targets that may be dialled (all but link-local and metadata addresses, unless given)",
        default=(),
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
