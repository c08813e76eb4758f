"""What carried the last session to each listener, from one start to the next: a small file in the state directory."""

import json
from pathlib import Path
from typing import Any

from twisted.logger import Logger

from ..errors import ConfigurationError
from ..identity.files import Output, writeAll

#: The file's name; a listener may keep its things in the same directory.
NAME = "connector-carriers.json"
#: Bytes of it that are read: several times what the most listeners need.
MAXIMUM_FILE = 64 * 1024


class Remembered:
    """
    What worked last, by listener. Convenience, not state: a file that can't be read or written costs a few seconds at
    the next start.
    """

    _log = Logger()

    def __init__(self, directory: Path, names: tuple[str, ...]) -> None:
        """:param names: of our listeners; others are forgotten."""
        self._path = directory / NAME
        held = self._read()
        self._carriers = {name: held[name] for name in names if isinstance(held.get(name), str)}

    def _read(self) -> dict[str, Any]:  # Any: whatever somebody has put there
        try:
            with open(self._path, "rb") as file:
                held = json.loads(file.read(MAXIMUM_FILE))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            self._log.info("{path} is ignored: {error}", path=self._path, error=str(error))
            return {}
        return held if isinstance(held, dict) else {}

    def get(self, name: str) -> str | None:
        """What worked last with that listener, if anything did."""
        return self._carriers.get(name)

    def put(self, name: str, carrier: str) -> None:
        """That worked. Written at once, if it is news."""
        if self._carriers.get(name) == carrier:
            return
        self._carriers[name] = carrier
        data = json.dumps(self._carriers, indent=1).encode() + b"\n"
        try:
            writeAll([Output(self._path, data, 0o600)], force=True)
        except ConfigurationError as error:
            text = "what works is forgotten with this process: {error} (SWC_STATE_DIR)"
            self._log.warn(text, error=str(error))
