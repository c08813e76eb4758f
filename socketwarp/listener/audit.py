"""
Who changed what: a file that no log level and no log rotation of somebody else's takes away.

One JSON object on each line, for each change through the API: when, who, from where, what, and what was there before
and after. It is an event like the others, and the log has its sentence, too.
"""

import json
from datetime import UTC, datetime
from pathlib import Path

import attrs
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
            self._file = LogFile(FILE_NAME, str(self._directory), FILE_BYTES, 0o600, FILES_KEPT)
        except OSError as error:
            raise ConfigurationError(
                f"SWL_STATE_DIR: {self.path} can't be written ({error}): name a directory that we may write to"
            ) from error
        self._events.subscribe(self._note)

    def stop(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _note(self, event: Event) -> None:
        if event.name == CHANGE and self._file is not None:
            time = datetime.fromtimestamp(event.time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            self._file.write(json.dumps({"time": time, **event.fields}) + "\n")
