"""
Who changed what: a file that no log level and no log rotation of somebody else's takes away.

One JSON object on each line, for each change through the API: when, who, from where, what, and what was there before
and after. It is an event like the others, and the log has its sentence, too. For a change that couldn't be noted nobody
could account, so the API makes none while `AuditLog.fault` says that the file can't be written.
"""

import errno
import json
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import attrs
from twisted.logger import Logger
from twisted.python.logfile import LogFile

from ..errors import ConfigurationError
from .events import Event, Events

#: The file's name in the state directory; older ones have ``.1`` and so on behind it.
FILE_NAME = "audit.jsonl"
#: Bytes after which a new file is begun, and how many old ones are kept: some 300,000 changes.
FILE_BYTES = 10 * 2**20
FILES_KEPT = 10
#: What is noted.
CHANGE = "api.changed"


@attrs.define(eq=False)
class AuditLog:
    """The file, from `start` to `stop`."""

    _directory: Path
    _events: Events
    _file: LogFile | None = attrs.field(default=None, init=False)
    # Lines to be written: no more than there were calls under way when the file began to fail.
    _pending: deque[str] = attrs.field(factory=deque, init=False)
    _unsubscribe: Callable[[], None] = attrs.field(default=lambda: None, init=False)
    _fault: str | None = attrs.field(default=None, init=False)

    _log = Logger()

    @property
    def path(self) -> Path:
        """The file."""
        return self._directory / FILE_NAME

    def start(self) -> None:
        """
        Note changes from now on.

        :raises errors.ConfigurationError: the state directory can't be used.
        """
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = self._open()
        except OSError as error:
            raise ConfigurationError(
                f"SWL_STATE_DIR: {self.path} can't be written ({error.strerror}): name a directory that we may write to"
            ) from error
        self._unsubscribe = self._events.subscribe(self._note)

    def stop(self) -> None:
        """Let go of the file."""
        self._unsubscribe()
        self._unsubscribe = lambda: None
        for line in self._pending:
            self._log.error("not in the audit log {path}: {line}", path=str(self.path), line=line)
        self._pending.clear()
        self._close()

    def fault(self) -> str | None:
        """Why changes can't be noted, if so; what is still to be written is tried once more."""
        if self._pending:
            self._write()
        return self._fault

    def _open(self) -> LogFile:
        return LogFile(FILE_NAME, str(self._directory), FILE_BYTES, 0o600, FILES_KEPT)

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None and not file.closed:
            file.close()

    def _note(self, event: Event) -> None:
        if event.name == CHANGE:
            time = datetime.fromtimestamp(event.time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            self._pending.append(json.dumps({"time": time, **event.fields}))
            self._write()

    def _write(self) -> None:
        """Write what is to be written, as far as that works."""
        try:
            while self._pending:
                self._append(self._pending[0] + "\n")
                self._pending.popleft()
        except OSError as error:
            self._close()
            if self._fault is None:
                text = "{path} can't be written, and so nothing is changed: {error}"
                self._log.error(text, path=str(self.path), error=error.strerror)
            self._fault = f"the audit log {self.path} can't be written ({error.strerror})"
            return
        if self._fault is not None:
            self._log.info("{path} can be written again", path=str(self.path))
            self._fault = None

    def _append(self, line: str) -> None:
        """
        Write a line, whole or not at all.

        :raises OSError: it isn't in the file.
        """
        file = self._file = self._file or self._open()
        if file.shouldRotate():
            file.rotate()
        whole = file.size
        try:
            file.write(line)
            if os.stat(self.path).st_size != file.size:  # the disk was full before the line's end
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            with suppress(OSError):
                os.truncate(self.path, whole)
            raise
