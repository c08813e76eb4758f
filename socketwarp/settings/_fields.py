"""What a field of a settings class knows about itself, and the fields that both ends share."""

# ruff: noqa: RUF009 (setting() is an attrs.field())

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, cast

import attrs

from ._kinds import PATH, PATHS, SECONDS, SECONDS_OR_NONE, Kind, choice, wholeNumber

T = TypeVar("T")
_METADATA = "socketwarp"


@attrs.frozen
class Setting:
    """
    The names of one setting.

    :ivar environment: the variable; one that starts with ``_`` gets the end's own prefix, ``SWL`` or ``SWC``.
    :ivar flag: the option of the plugin, without the dashes.
    :ivar key: the key in a settings file.
    :ivar secret: its value is never shown, and never given on a command line, where others can see it: the option, and
        the variable with ``_FILE`` behind its name, name a file that holds it.
    :ivar fallbacks: other programs' variables, which count when nobody has said it to us; one that is empty doesn't.
    :ivar defaultFrom: makes the default from the environment.
    """

    environment: str
    flag: str
    key: str
    help: str
    kind: Kind[Any]  # Any: settings of every type
    unit: str = ""
    secret: bool = False
    fallbacks: tuple[str, ...] = ()
    defaultFrom: Callable[[Mapping[str, str]], object] | None = None

    @property
    def variables(self) -> tuple[str, ...]:
        """Those that it is read from: its own, and that of a secret's file."""
        return (self.environment, f"{self.environment}_FILE") if self.secret else (self.environment,)


def setting(
    kind: Kind[T],
    environment: str,
    flag: str,
    help: str,
    *,
    default: object = attrs.NOTHING,
    key: str = "",
    unit: str = "",
    secret: bool = False,
    fallbacks: tuple[str, ...] = (),
    defaultFrom: Callable[[Mapping[str, str]], object] | None = None,
) -> T:
    """A field of a settings class; without a default it is required."""
    names = Setting(environment, flag, key or flag.replace("-", "_"), help, kind, unit, secret, fallbacks, defaultFrom)
    if defaultFrom is not None:
        default = attrs.Factory(lambda: defaultFrom(os.environ))
    return cast(T, attrs.field(default=default, converter=kind, metadata={_METADATA: names}))


def stateDirectory(environment: Mapping[str, str]) -> Path:
    """Systemd's state directory (the first, when there are several), else the XDG base directory's."""
    if systemd := environment.get("STATE_DIRECTORY"):
        return Path(systemd.split(":")[0])
    home = Path(environment.get("HOME") or "/")
    return Path(environment.get("XDG_STATE_HOME") or home / ".local/state") / "socketwarp"


#: Flow-control windows: at least one datagram's worth, at most what an end with one busy session can afford.
_WINDOW = wholeNumber("a number of bytes from 16384 to 1073741824", 2**14, 2**30)
#: At least what a few visitors take: a smaller number was meant as megabytes.
_BUDGET = wholeNumber("0 (none), or a number of bytes from 16777216 to 1099511627776", 2**24, 2**40, none=0)
#: The kernel's buffers of a UDP socket, each way: a datagram at least, a second of 8 Gbit/s at the most.
_SOCKET_BUFFER = wholeNumber("a number of bytes from 16384 to 1073741824", 2**14, 2**30)
_STREAMS = wholeNumber("a whole number from 1 to 1000000", 1, 1_000_000)
_LOG_LEVELS = choice("error", "warn", "info", "debug")


@attrs.frozen(kw_only=True)
class CommonSettings:
    """
    What both ends have: the log, the transport, and a place for what survives a restart. The numbers are PROTOCOL.md's.

    :ivar logFormat: ``text`` for people, ``json`` for programs: one object on each line.
    :ivar crlPaths: revocation lists (PEM or DER) for the other end's certificates; none: no check of revocation.
    :ivar crlExpired: what an outdated list does: ``refuse`` or ``warn``.
    :ivar pollSeconds: certificate, key, CA and list files are looked at this often, for changes, seconds.
    :ivar idleTimeout: a session without a packet from the peer ends after this, seconds.
    :ivar keepAlive: a silent session sends a PING after this, seconds, or after a third of the idle time: so soon hears
        a connector from a restarted listener that doesn't know it any more (PROTOCOL.md allows up to 50).
    :ivar handshakeTimeout: a handshake that takes longer is given up, seconds.
    :ivar streamWindow: bytes a peer may send on a stream before we have consumed them, at the most: the window begins
        with 256 KiB and follows the bandwidth-delay product.
    :ivar sessionWindow: the same for all streams of a session together, but for those whose reader is paused.
    :ivar socketBuffer: bytes that the kernel is asked to keep for the UDP socket, each way; it says in the log when it
        gives less.
    :ivar streamLimit: streams that a session may have at a time.
    :ivar memoryBudget: bytes that all sessions together may hold: buffers, and a share for each stream; from three
        quarters of it on less is read, when it is used up nobody is let in; 0: no budget.
    :ivar drainSeconds: how long running connections may take to finish when we are told to stop, seconds; 0: no time.
    """

    prefix: ClassVar[str]
    #: Where settings are read from when nobody says; `None`: no file.
    defaultFile: ClassVar[str | None] = None

    logLevel: str = setting(
        _LOG_LEVELS, "_LOG_LEVEL", "log-level", "least important messages that are logged", default="info"
    )
    logFormat: Literal["text", "json"] = setting(
        choice("text", "json"),
        "_LOG_FORMAT",
        "log-format",
        "text for people, or one JSON object on each line",
        default="text",
    )
    crlPaths: tuple[Path, ...] = setting(
        PATHS, "_CRL_PATHS", "crl-paths", "revocation lists for the other end's certificates", default=()
    )
    crlExpired: Literal["refuse", "warn"] = setting(
        choice("refuse", "warn"),
        "_CRL_EXPIRED",
        "crl-expired",
        "what an outdated revocation list does",
        default="refuse",
    )
    pollSeconds: float = setting(
        SECONDS, "_POLL_SECONDS", "poll-seconds", "changed files are looked for every", default=5.0, unit="seconds"
    )
    idleTimeout: float = setting(
        SECONDS, "_IDLE_SECONDS", "idle-seconds", "a silent session ends after", default=60.0, unit="seconds"
    )
    keepAlive: float = setting(
        SECONDS,
        "_KEEPALIVE_SECONDS",
        "keepalive-seconds",
        "a silent session sends a PING after",
        default=4.0,
        unit="seconds",
    )
    handshakeTimeout: float = setting(
        SECONDS, "_HANDSHAKE_SECONDS", "handshake-seconds", "longest handshake", default=10.0, unit="seconds"
    )
    streamWindow: int = setting(
        _WINDOW,
        "_STREAM_WINDOW",
        "stream-window",
        "flow-control window of a stream, at the most",
        default=2**24,
        unit="bytes",
    )
    sessionWindow: int = setting(
        _WINDOW,
        "_SESSION_WINDOW",
        "session-window",
        "flow-control window of a session, at the most",
        default=2**25,
        unit="bytes",
    )
    socketBuffer: int = setting(
        _SOCKET_BUFFER,
        "_SOCKET_BUFFER",
        "socket-buffer",
        "the kernel's buffers of the UDP socket, each way",
        default=2**22,
        unit="bytes",
    )
    streamLimit: int = setting(
        _STREAMS, "_STREAM_LIMIT", "stream-limit", "streams at a time in a session", default=10_000
    )
    memoryBudget: int = setting(
        _BUDGET, "_MEMORY_BUDGET", "memory-budget", "memory for all connections together", default=2**30, unit="bytes"
    )
    drainSeconds: float = setting(
        SECONDS_OR_NONE,
        "_DRAIN_SECONDS",
        "drain-seconds",
        "running connections may take to finish after SIGTERM",
        default=30.0,
        unit="seconds",
    )
    stateDir: Path = setting(
        PATH, "_STATE_DIR", "state-dir", "directory for what survives a restart", defaultFrom=stateDirectory
    )


def settingsOf(kind: type[CommonSettings]) -> dict[str, Setting]:
    """The settings of a settings class, by field name, with the end's prefix filled in."""
    found: dict[str, Setting] = {field.name: field.metadata[_METADATA] for field in attrs.fields(kind)}
    return {
        name: attrs.evolve(names, environment=kind.prefix + names.environment) if names.environment[0] == "_" else names
        for name, names in found.items()
    }
