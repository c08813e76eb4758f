"""
Open ports that survive a restart: wishes kept in SQLite.

One table, one row for each wished port, the wish as JSON. Every change is committed to the disk (WAL, synchronous FULL)
before its Deferred fires. A database that can't be trusted stops the listener from starting: to start with no ports
would look like success while every visitor is turned away.
"""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import attrs
import cattrs
from cattrs.preconf.json import make_converter
from twisted.internet.defer import Deferred
from zope.interface import Interface, implementer

from ..errors import ConfigurationError, StoreUnavailable
from .events import showAddress

#: The database's name in the state directory.
FILE_NAME = "listener.sqlite3"

#: One step for each schema version, from an empty database on; ``PRAGMA user_version`` counts the steps done.
MIGRATIONS = ("CREATE TABLE ports (port INTEGER PRIMARY KEY, wish TEXT NOT NULL)",)

#: Seconds to wait for another process that holds the database, before giving up.
BUSY_SECONDS = 5.0


@attrs.frozen
class PortSpec:
    """
    A wish: that this port be open.

    :ivar port: the TCP port visitors connect to.
    :ivar uid: whose connector carries them.
    :ivar targetHost: what the connector dials, as it was written by who asked: an address or a name.
    :ivar targetPort: the target's TCP port.
    :ivar bindAddress: the local address visitors connect to; ``0.0.0.0`` is every IPv4 address, ``::`` every IPv6 one.
    """

    port: int
    uid: str
    targetHost: str
    targetPort: int
    bindAddress: str = "0.0.0.0"

    @property
    def dialHost(self) -> str:
        """The target's host as the wire wants it: an IPv6 address without its brackets."""
        return self.targetHost.removeprefix("[").removesuffix("]")

    @property
    def target(self) -> str:
        """The target for people, ``host:port``."""
        return showAddress((self.dialHost, self.targetPort))


class IPortStore(Interface):
    """Where wishes are kept."""

    def load() -> list[PortSpec]:
        """
        All wishes, by port. Called once, before the reactor runs.

        :raises errors.ConfigurationError: when what is stored can't be trusted.
        """

    def put(spec: PortSpec) -> "Deferred[None]":  # noqa: N805 - zope interfaces have no self
        """
        Keep a wish, in place of an older one for its port; fires once it is on the disk.

        Fails with `errors.StoreUnavailable`, nothing changed.
        """

    def remove(port: int) -> "Deferred[None]":  # noqa: N805 - see above
        """Forget the wish for a port; fires, or fails, as `put` does."""

    def close() -> "Deferred[None]":
        """Finish what was begun and let go of the file."""


#: Calls a function with its arguments away from the reactor's thread, one call at a time, in the order given.
RunInThread = Callable[..., Deferred[None]]

_converter = make_converter(forbid_extra_keys=True)


def _open(path: Path) -> tuple[sqlite3.Connection, list[PortSpec]]:
    """The database, and the wishes in it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The connection is used by one thread at a time: here before the reactor runs, then by RunInThread's only.
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        _prepare(connection)
        return connection, _wishes(connection)
    except BaseException:
        connection.close()
        raise


def _wishes(connection: sqlite3.Connection) -> list[PortSpec]:
    rows = connection.execute("SELECT wish FROM ports ORDER BY port").fetchall()
    return [_converter.loads(wish, PortSpec) for (wish,) in rows]


def _prepare(connection: sqlite3.Connection) -> None:
    """Check, configure and migrate. The pragmas are SQLite's own: https://sqlite.org/pragma.html"""
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise sqlite3.DatabaseError(f"it was written by a newer release (schema {version})")
    for number, step in enumerate(MIGRATIONS[version:], version + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {step}; PRAGMA user_version = {number}; COMMIT")


@implementer(IPortStore)
@attrs.define(eq=False)
class SqlitePortStore:
    """Wishes in an SQLite database in a directory, both made when they aren't there."""

    _directory: Path
    _inThread: RunInThread
    _connection: sqlite3.Connection | None = attrs.field(default=None, init=False)

    @property
    def path(self) -> Path:
        """The database's file."""
        return self._directory / FILE_NAME

    def load(self) -> list[PortSpec]:
        """
        Open the database; see `IPortStore.load`.

        :raises errors.ConfigurationError: the directory can't be used, or the database is damaged or too new.
        """
        try:
            self._connection, wishes = _open(self.path)
            return wishes
        except (sqlite3.OperationalError, OSError) as error:
            raise ConfigurationError(
                f"SWL_STATE_DIR: {self.path} can't be opened ({error}): name a directory that we may write to"
            ) from error
        except (sqlite3.DatabaseError, ValueError, TypeError, AttributeError, cattrs.BaseValidationError) as error:
            raise ConfigurationError(
                f"SWL_STATE_DIR: the database {self.path} can't be trusted ({error}): put a backup in its place, "
                "or move it away to start with no open ports"
            ) from error

    def put(self, spec: PortSpec) -> Deferred[None]:
        """See `IPortStore.put`."""
        wish = _converter.dumps(spec)
        return self._inThread(self._change, "INSERT OR REPLACE INTO ports VALUES (?, ?)", spec.port, wish)

    def remove(self, port: int) -> Deferred[None]:
        """See `IPortStore.remove`."""
        return self._inThread(self._change, "DELETE FROM ports WHERE port = ?", port)

    def close(self) -> Deferred[None]:
        """See `IPortStore.close`."""
        return self._inThread(self._close)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _change(self, statement: str, *values: int | str) -> None:
        try:
            if self._connection is None:
                raise sqlite3.ProgrammingError("it is closed")
            # Without an isolation level, each statement is a transaction of its own and committed when this returns.
            self._connection.execute(statement, values)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"{self.path} can't be written ({error}): nothing was changed") from error
