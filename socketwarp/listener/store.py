"""
What survives a restart, kept in SQLite: the wishes for open ports, and which uids aren't let in for a time.

One row for each wished port and denied uid. Every change is committed to the disk (WAL, synchronous FULL) before its
Deferred fires. A database that can't be trusted stops the listener from starting: to start with no ports would look
like success while every visitor is turned away. That is why a new database gets its name only when it is complete; one
that is there and empty has lost what it held.
"""

import fcntl
import os
import sqlite3
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

import attrs
import cattrs
from cattrs.preconf.json import make_converter
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from ..errors import ConfigurationError, StoreUnavailable
from .wishes import PortLimits, PortOptions, PortSpec, Source

#: The database's name in the state directory.
FILE_NAME = "listener.sqlite3"

#: One step for each schema version, from an empty database on; ``PRAGMA user_version`` counts the steps done.
MIGRATIONS = (
    "CREATE TABLE ports (port INTEGER PRIMARY KEY, wish TEXT NOT NULL)",
    """
    ALTER TABLE ports RENAME TO ports_1;
    CREATE TABLE ports (
        port INTEGER PRIMARY KEY,
        bind_address TEXT NOT NULL,
        uid TEXT NOT NULL,
        target_host TEXT NOT NULL,
        target_port INTEGER NOT NULL,
        limits TEXT NOT NULL,
        options TEXT NOT NULL,
        used INTEGER NOT NULL
    );
    INSERT INTO ports
        SELECT port, json_extract(wish, '$.bindAddress'), json_extract(wish, '$.uid'),
            json_extract(wish, '$.targetHost'), json_extract(wish, '$.targetPort'), '{}', '{}', 0
        FROM ports_1;
    DROP TABLE ports_1
    """,
    "CREATE TABLE denied (uid TEXT PRIMARY KEY, until REAL NOT NULL)",
)

#: Seconds to wait for another process that holds the database, before giving up.
BUSY_SECONDS = 5.0


@attrs.frozen
class Kept:
    """
    A wish as it is kept.

    :ivar used: how many visitors the port has accepted while there was a limit to their total.
    """

    spec: PortSpec
    used: int = 0


class IPortStore(Interface):
    """Where wishes and denials are kept."""

    def load() -> list[Kept]:
        """
        All wishes, by port. Called once, before the reactor runs.

        :raises errors.ConfigurationError: when what is stored can't be trusted.
        """

    def put(spec: PortSpec, used: int = 0) -> "Deferred[None]":  # noqa: N805 - zope interfaces have no self
        """
        Keep a wish, in place of an older one for its port; fires once it is on the disk.

        Fails with `errors.StoreUnavailable`, nothing changed.
        """

    def count(port: int, used: int) -> "Deferred[None]":  # noqa: N805 - see above
        """Note how many visitors a port has accepted, if it is wished still; fires, or fails, as `put` does."""

    def remove(port: int) -> "Deferred[None]":  # noqa: N805 - see above
        """Forget the wish for a port; fires, or fails, as `put` does."""

    def denied() -> dict[str, float]:
        """Until when uids aren't let in, POSIX seconds, as it was when `load` was called."""

    def deny(uid: str, until: float, now: float) -> "Deferred[None]":  # noqa: N805 - see above
        """
        Keep until when a uid isn't let in, and forget those whose time is over; fires, or fails, as `put` does.

        :param until: POSIX seconds, as `now`; no later than that: the uid is let in again.
        """

    def fault() -> str | None:
        """Why changes can't be kept, if the last one couldn't; whether they can by now is tried for the next call."""

    def close() -> "Deferred[None]":
        """Finish what was begun and let go of the file."""


#: Calls a function with its arguments away from the reactor's thread, one call at a time, in the order given.
RunInThread = Callable[..., Deferred[None]]

_converter = make_converter(forbid_extra_keys=True)
_converter.register_structure_hook_func(lambda kind: kind == Source, lambda value, _: ip_network(value))
for _network in (IPv4Network, IPv6Network):
    _converter.register_unstructure_hook(_network, str)


def _open(path: Path) -> tuple[sqlite3.Connection, list[Kept], dict[str, float]]:
    """The database, and the wishes and denials in it."""
    if not path.exists():
        _make(path)
    # The connection is used by one thread at a time: here before the reactor runs, then by RunInThread's only.
    connection = _connect(path)
    try:
        _check(connection)
        _migrate(connection)
        return connection, _wishes(connection), _denied(connection)
    except BaseException:
        connection.close()
        raise


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)


def _make(path: Path) -> None:
    """A new database without wishes, complete or not there at all."""
    log = path.with_name(path.name + "-wal")
    if log.exists():
        raise sqlite3.DatabaseError(f"it is gone, though its log {log} is there")
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    unfinished.touch(0o600)  # SQLite gives its logs the same
    connection = _connect(unfinished)
    try:
        _migrate(connection)
    finally:
        connection.close()
    os.replace(unfinished, path)


def _wishes(connection: sqlite3.Connection) -> list[Kept]:
    rows = connection.execute(
        "SELECT port, uid, target_host, target_port, bind_address, limits, options, used FROM ports ORDER BY port"
    )
    return [_kept(*row) for row in rows]


def _denied(connection: sqlite3.Connection) -> dict[str, float]:
    return {str(uid): float(until) for uid, until in connection.execute("SELECT uid, until FROM denied")}


def _kept(
    port: int, uid: str, host: str, targetPort: int, bindAddress: str, limits: str, options: str, used: int
) -> Kept:
    read = _converter.loads(limits, PortLimits), _converter.loads(options, PortOptions)
    return Kept(PortSpec(port, uid, host, targetPort, bindAddress, *read), used)


def _check(connection: sqlite3.Connection) -> None:
    """:raises sqlite3.DatabaseError: the file is damaged, empty, or not for us."""
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        raise sqlite3.DatabaseError("it is empty")
    if version > len(MIGRATIONS):
        raise sqlite3.DatabaseError(f"it was written by a newer release (schema {version})")


def _migrate(connection: sqlite3.Connection) -> None:
    """Configure and migrate. The pragmas are SQLite's own: https://sqlite.org/pragma.html"""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for number, step in enumerate(MIGRATIONS[version:], version + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {step}; PRAGMA user_version = {number}; COMMIT")


def _isDamage(error: Exception) -> bool:
    """
    Whether a database, and not the way to it, is to blame. To SQLite, a table that isn't there and JSON that can't be
    read are errors of operation.
    """
    return not isinstance(error, OSError | sqlite3.OperationalError) or (
        isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_ERROR
    )


@implementer(IPortStore)
@attrs.define(eq=False)
class SqlitePortStore:
    """An SQLite database in a directory, both made when they aren't there."""

    _directory: Path
    _inThread: RunInThread
    _connection: sqlite3.Connection | None = attrs.field(default=None, init=False)
    _denied: dict[str, float] = attrs.field(factory=dict, init=False)
    _held: int | None = attrs.field(default=None, init=False)  # a descriptor of the directory
    _fault: str | None = attrs.field(default=None, init=False)
    _isTried: bool = attrs.field(default=False, init=False)

    _log = Logger()

    @property
    def path(self) -> Path:
        """The database's file."""
        return self._directory / FILE_NAME

    def load(self) -> list[Kept]:
        """
        Open the database; see `IPortStore.load`.

        :raises errors.ConfigurationError: the directory can't be used, another listener uses it, or the database is
            damaged or too new.
        """
        try:
            self._hold()
            self._connection, wishes, self._denied = _open(self.path)
            return wishes
        except (sqlite3.Error, OSError, ValueError, TypeError, AttributeError, cattrs.BaseValidationError) as error:
            self._letGo()
            if _isDamage(error):
                raise ConfigurationError(
                    f"SWL_STATE_DIR: the database {self.path} can't be trusted ({error}): put a backup in its place, "
                    "or move it and its -wal file away to start with no open ports"
                ) from error
            reason = error.strerror if isinstance(error, OSError) else error
            raise ConfigurationError(
                f"SWL_STATE_DIR: {self.path} can't be opened ({reason}): name a directory that we may write to"
            ) from error

    def _hold(self) -> None:
        """Have the directory for this process alone, until it ends: two listeners would undo each other's changes."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._held = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._letGo()
            raise ConfigurationError(
                f"SWL_STATE_DIR: another listener uses {self._directory}: end it, or name a directory of this one's own"
            ) from None

    def put(self, spec: PortSpec, used: int = 0) -> Deferred[None]:
        """See `IPortStore.put`."""
        return self._change(
            "INSERT OR REPLACE INTO ports VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            spec.port,
            spec.bindAddress,
            spec.uid,
            spec.targetHost,
            spec.targetPort,
            _converter.dumps(spec.limits),
            _converter.dumps(spec.options),
            used,
        )

    def count(self, port: int, used: int) -> Deferred[None]:
        """See `IPortStore.count`."""
        return self._change("UPDATE ports SET used = ? WHERE port = ?", used, port)

    def remove(self, port: int) -> Deferred[None]:
        """See `IPortStore.remove`."""
        return self._change("DELETE FROM ports WHERE port = ?", port)

    def denied(self) -> dict[str, float]:
        """See `IPortStore.denied`."""
        return self._denied

    def deny(self, uid: str, until: float, now: float) -> Deferred[None]:
        """See `IPortStore.deny`."""
        kept = self._change("INSERT OR REPLACE INTO denied VALUES (?, ?)", uid, until)
        return kept.addCallback(lambda _: self._change("DELETE FROM denied WHERE until <= ?", now))

    def fault(self) -> str | None:
        """See `IPortStore.fault`."""
        if self._fault is not None and not self._isTried:
            self._isTried = True
            # The number that is there: a change like any other, to the disk.
            trial = self._change(f"PRAGMA user_version = {len(MIGRATIONS)}")
            trial.addErrback(lambda failure: failure.trap(StoreUnavailable)).addBoth(self._tried)
        return self._fault

    def _tried(self, _: object) -> None:
        self._isTried = False

    def close(self) -> Deferred[None]:
        """See `IPortStore.close`."""
        return self._inThread(self._close)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._letGo()

    def _letGo(self) -> None:
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def _change(self, statement: str, *values: int | float | str) -> Deferred[None]:
        return self._inThread(self._execute, statement, values).addCallbacks(self._kept, self._notKept)

    def _kept(self, _: None) -> None:
        if self._fault is not None:
            self._log.info("{path} can be written again", path=str(self.path))
            self._fault = None

    def _notKept(self, failure: Failure) -> Failure:
        if failure.check(StoreUnavailable):
            if self._fault is None:
                self._log.error("{error}", error=failure.getErrorMessage())
            self._fault = failure.getErrorMessage()
        return failure

    def _execute(self, statement: str, values: tuple[int | float | str, ...]) -> None:
        try:
            if self._connection is None:
                raise sqlite3.ProgrammingError("it is closed")
            # Without an isolation level, each statement is a transaction of its own and committed when this returns.
            self._connection.execute(statement, values)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"{self.path} can't be written ({error}), and so nothing is changed") from error
