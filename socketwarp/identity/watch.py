"""Hot reload: files are read again when they have changed, and a broken file can't replace the last good state."""

import os
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from ..errors import ConfigurationError
from .pem import FilePath

#: Seconds between two looks at the files.
POLL_SECONDS = 5.0

_log = Logger(namespace="socketwarp.identity")

_Loaded = TypeVar("_Loaded")
#: What stat says of one file: times of its content and of its inode (mode, owner), size, inode; `None` without one.
_State = tuple[int, int, int, int] | None


def _ignore(loaded: object) -> None:
    """The default for those who only read `FileWatch.current`."""


@attrs.define(eq=False)
class FileWatch(Generic[_Loaded]):
    """
    What `load` made of some files, kept fresh.

    Files are looked at every `interval` seconds once `start` was called, and whenever `check` is. When one of them has
    changed, all are loaded as a whole: good ones replace `current` and go to `changed`; broken ones (one half of a new
    pair, too, until the other is there) change nothing and are logged once for each change.

    :ivar changed: called with what was loaded anew. May be replaced.
    :ivar current: what was loaded last.
    :raises ConfigurationError: from the constructor, when the first load fails.
    """

    _clock: IReactorTime
    _paths: Sequence[FilePath]
    _load: Callable[[], _Loaded]
    changed: Callable[[_Loaded], None] = _ignore
    _interval: float = POLL_SECONDS
    current: _Loaded = attrs.field(init=False)
    _states: tuple[_State, ...] = attrs.field(init=False)
    _broken: bool = attrs.field(init=False, default=False)
    _polling: LoopingCall = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._states = self._look()  # before loading: what changes in between is seen by the next check
        self.current = self._load()
        self._polling = LoopingCall(self.check)
        self._polling.clock = self._clock

    def start(self) -> None:
        """Poll from now on."""
        self._polling.start(self._interval, now=False)

    def stop(self) -> None:
        """Poll no more."""
        if self._polling.running:
            self._polling.stop()

    def check(self, insist: bool = False) -> bool:
        """
        Look at the files now; whether new content is in use. Never raises.

        :param insist: complain again of broken files that haven't changed since the last complaint (SIGHUP).
        """
        states = self._look()
        if states == self._states and not (insist and self._broken):
            return False
        self._states = states
        try:
            loaded = self._load()
            self._broken = False
        except ConfigurationError as e:
            self._broken = True
            _log.error("changed files can't be used, the old ones stay in force: {error}", error=str(e))
            return False
        except Exception:  # a fault of ours, which mustn't end the looking
            self._broken = True
            _log.failure("reading changed files failed, the old ones stay in force: {paths}", paths=self._names)
            return False
        self.current = loaded
        _log.info("changed files are in force: {paths}", paths=self._names)
        with _log.failuresHandled("telling about changed files"):
            self.changed(loaded)
        return True

    @property
    def _names(self) -> str:
        return ", ".join(str(path) for path in self._paths)

    def _look(self) -> tuple[_State, ...]:
        return tuple(_stateOf(path) for path in self._paths)


def _stateOf(path: FilePath) -> _State:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
