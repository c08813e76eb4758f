"""
What an end needs of its process: options, exit statuses, the log's level, SIGTERM and SIGHUP, systemd. The taps build
on it.

Imports `settings`, `rules`, `notify` and `errors`. The reactor is a parameter here, too.
"""

import json
import os
import pwd
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, ClassVar, TypeVar

import attrs
from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorCore, IReactorFromThreads, IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    formatEvent,
    globalLogBeginner,
)
from twisted.python import usage
from twisted.python.util import runAsEffectiveUser

from . import heap
from .errors import ConfigurationError, SocketwarpError
from .interfaces import IReloadable, IStateful
from .loglines import Limited, TextLines, isClassic
from .notify import ServiceManager
from .rules.check import checkRuleFiles
from .settings import CommonSettings, Setting, effective, load, settingsOf
from .steady import keepSteady

S = TypeVar("S", bound=CommonSettings)
log = Logger()


def parametersOf(kind: type[CommonSettings]) -> list[list[str | None]]:
    """The ``optParameters`` of an end: one for each setting, and ``--config``."""
    default = kind.defaultFile or "none"
    file = f"Settings file, TOML (*.toml) or JSON. [{kind.prefix}_SETTINGS; default: {default}]"
    defaults = {field.name: field.default for field in attrs.fields(kind)}
    return [
        ["config", None, None, file],
        *([names.flag, None, None, _describe(names, defaults[name])] for name, names in settingsOf(kind).items()),
    ]


def _describe(names: Setting, default: object) -> str:
    """What an option is, where else it can be set, and what it is without, if that can be said in a word."""
    shown = f"; default: {default:g}" if isinstance(default, float) else ""
    if isinstance(default, str | int) and not isinstance(default, bool):
        shown = f"; default: {default}"
    unit = f" ({names.unit})" if names.unit else ""
    help = f"file with the {names.help}" if names.secret else names.help
    return f"{help[0].upper()}{help[1:]}{unit}. [{names.variables[-1]}{shown}]"


_STATUSES = """\
Signals and exit status:
  SIGTERM  stop, once connections have finished (--drain-seconds); again: at once
  SIGINT   the same (Ctrl-C)
  SIGHUP   look at certificates, keys, lists and rules now
   0  stopped, or told to print something
  69  an address or port can't be had
  78  a setting, or a file that it names, can't be used
"""


class EndOptions(usage.Options):
    """
    What the options of both ends have in common; each adds its `parametersOf`.

    :cvar endName: what the end is called, by twistd and on stderr.
    :cvar examples: how to call it, at the end of ``--help``; twistd would fill the lines of a ``longdesc``.
    """

    endName: ClassVar[str]
    examples: ClassVar[str]
    optFlags: ClassVar[list[list[str | None]]] = [
        [
            "check",
            None,
            "Check settings and files of rules, print what is in effect and where each comes from, then exit.",
        ]
    ]

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """
        Parse the command line; twistd would say what is wrong with it behind a page of help.

        :raises StartFailed: after one line on stderr, with status 78.
        """
        with exitOnError(self.endName):
            try:
                super().parseOptions(options)
            except usage.UsageError as error:
                raise ConfigurationError(f"{error}: see twistd {self.endName} --help") from None

    def getUsage(self, width: int | None = None) -> str:
        """What ``--help`` prints: the options, what the end does, what its exit statuses mean, and examples."""
        return f"{super().getUsage(width)}\n{_STATUSES}\n{self.examples}"

    def postOptions(self) -> None:
        """
        Write no pid file in the foreground, unless one is named: whoever runs ``twistd -n`` knows the process, the
        directory may not be writable, and both ends may be started in one.
        """
        if self.parent is not None and self.parent.get("nodaemon") and self.parent.get("pidfile") == "twistd.pid":
            self.parent["pidfile"] = ""


def makeEnd(
    kind: type[S],
    options: EndOptions,
    reactor: Any,  # Any: the whole reactor; no one interface names all that the two ends use
    make: Callable[[S, Any], IService],  # Any: see above
) -> "End":
    """
    Read the settings and make an end of them, before anything is opened.

    :param make: makes the end's service; raises `errors.SocketwarpError`.
    :raises StartFailed: after one line on stderr, with the error's exit code.
    :raises SystemExit: with 0, after ``--check``.
    """
    keepSteady(reactor)
    signal.signal(signal.SIGTERM, _exitNow)
    Factory.noisy = False  # or each call to the SCEP server and each open port would have two lines that say nothing
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what changes from now on is noticed once the end runs
    with exitOnError(options.endName):
        flags = {key: value for key, value in options.items() if key != "check"}
        if options["check"]:
            shown = effective(kind, flags, os.environ)
            checkRuleFiles(load(kind, flags, os.environ))
            for setting in shown:
                print(f"{setting.name}={setting.value}  ({setting.source})")
            raise SystemExit(0)
        settings = load(kind, flags, os.environ)
        limitLog(settings.logLevel, settings.logFormat)
        return End(options, make(settings, reactor), reactor)


class StartFailed(SystemExit, Exception):
    """
    Ends the process with an exit status, before it has begun its work.

    Also an `Exception`, because twistd removes its pid file, and tells the process that waits for the daemon, only for
    those; as a `SystemExit` it goes through to the interpreter without a traceback.
    """

    def __init__(self, line: str, status: int) -> None:
        super().__init__(status)
        self._line = line

    def __str__(self) -> str:
        return self._line


@contextmanager
def exitOnError(name: str, toLog: bool = False) -> Iterator[None]:
    """
    Turn an error of ours into one line on stderr and the exit status that belongs to it.

    The line goes to the process's own stderr: by the time a port is bound, twistd has turned ``sys.stderr`` into its
    log.

    :param toLog: the log gets the line, too: it is all that a daemon has.
    :raises StartFailed: with the error's ``exitCode``.
    """
    try:
        yield
    except SocketwarpError as error:
        line = " ".join(str(error).split())
        if toLog:
            log.error("{name}: {line}", name=name, line=line)
        print(f"{name}: {line}", file=sys.__stderr__, flush=True)
        raise StartFailed(line, error.exitCode) from None


def limitLog(level: str, form: str = "text") -> None:
    """
    Let the log, when it begins, leave out what is less important than `level`, and have the given form: ``text``, or
    ``json`` (see `jsonLine`) wherever it is written to a file or to stdout.

    twistd has no option for it, and makes its observer only after the service; so the one call by which twistd and
    twist alike begin the log is where the level can be put in without taking ``--logfile`` and ``--syslog`` away.
    """
    begin = globalLogBeginner.beginLoggingTo
    least = LogLevel.levelWithName(level)

    def beginFiltered(
        observers: Iterable[ILogObserver], *args: Any, **kwargs: Any
    ) -> None:  # Any: passed on as they are
        observers = list(observers)
        for observer in observers:
            if isinstance(observer, FileLogObserver):
                if form == "json":
                    observer.formatEvent = jsonLine
                elif isClassic(observer):
                    observer.formatEvent = TextLines()
        begin([Limited(observer, least) for observer in observers], *args, **kwargs)

    globalLogBeginner.beginLoggingTo = beginFiltered  # type: ignore[method-assign]  # see the docstring


#: Fields that Twisted's older log adds to what is logged.
_LEGACY = frozenset({"time", "message", "isError", "system", "failure", "why", "format", "printed"})


def jsonLine(event: LogEvent) -> str:
    """
    A log event as a line for programs: ``time`` (RFC 3339, UTC), ``level``, ``namespace``, ``message`` as people would
    read it, ``traceback`` of a failure, and the event's own fields by their names, ``event`` among them.
    """
    line = {name: value for name, value in event.items() if not name.startswith("log_") and name not in _LEGACY}
    time = datetime.fromtimestamp(event.get("log_time", 0.0), UTC).isoformat(timespec="milliseconds")
    level = event.get("log_level")
    line |= {
        "time": time.replace("+00:00", "Z"),
        "level": "info" if level is None else level.name,
        "namespace": event.get("log_namespace"),
        "message": formatEvent(event),
    }
    if (failure := event.get("log_failure")) is not None:
        line["traceback"] = failure.getTraceback()
    return json.dumps(line, default=str) + "\n"


def _exitNow(signum: int, frame: object) -> None:
    """SIGTERM before the reactor runs: nothing is open yet."""
    raise SystemExit(0)


class End(MultiService):
    """
    An end as twistd runs it: its errors at start become exit statuses, SIGTERM ends it with status 0, SIGHUP has it
    look at its files, and systemd hears how it is.
    """

    def __init__(self, options: EndOptions, service: IService, reactor: IReactorCore) -> None:
        super().__init__()
        self._endName = options.endName
        self._runner: Mapping[str, Any] = options.parent or {}  # Any: values of twistd's own options, or twist's
        # A terminal that shows both would show the line twice.
        isShown = self._runner.get("logfile") in (None, "-") and not self._runner.get("syslog")
        self._toLog = not (self._runner.get("nodaemon") and isShown)
        self._reactor = reactor
        self._stopping = False
        self._privileged = False
        self._manager = ServiceManager(os.environ, IReactorTime(reactor))
        service.setServiceParent(self)

    def privilegedStartService(self) -> None:
        """
        Open what is kept on the disk, then bind what needs privileges. twist doesn't call this, so `startService` does
        when nobody has.
        """
        self._privileged = True
        with exitOnError(self._endName, self._toLog):
            for service in self:
                if IStateful.providedBy(service):
                    self._asWhomWeBecome(IStateful(service).openState)
            super().privilegedStartService()

    def _asWhomWeBecome(self, work: Callable[[], None]) -> None:
        """Files made as root would be out of reach for the user whom ``twistd --uid`` soon makes of us."""
        uid, gid = self._runner.get("uid"), self._runner.get("gid")
        if os.geteuid() != 0 or (uid is None and gid is None):
            return work()
        uid = 0 if uid is None else uid
        runAsEffectiveUser(uid, pwd.getpwuid(uid).pw_gid if gid is None else gid, work)

    def startService(self) -> None:
        """
        Start. SIGTERM is ours from here on, also when the reactor begins: what it installs then is ours, too. So is
        SIGINT (Ctrl-C), unless it is ignored.
        """
        signal.signal(signal.SIGTERM, self._sigTerm)
        self._reactor.sigTerm = self._sigTerm  # type: ignore[attr-defined]  # ReactorBase's handler of that signal
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._sigTerm)  # the reactor leaves one there that isn't Python's own
        if not self._privileged:
            self.privilegedStartService()
        with exitOnError(self._endName, self._toLog):
            super().startService()
        signal.signal(signal.SIGHUP, self._sigHup)  # Twisted has no handler of its own
        heap.settle()
        self._manager.ready()

    def stopService(self) -> Deferred[None]:
        """Stop; fires when everything has."""
        self._manager.stopping()
        stopped: Deferred[object] = super().stopService()
        return stopped.addCallback(lambda _: self._manager.stopped())

    def _sigTerm(self, signum: int, frame: object) -> None:
        """
        Stop the reactor, which stops the services; when asked again, don't wait for them.

        Twisted's own handler ends the process by the signal, and service managers would see a failure.
        """
        if self._stopping:
            os._exit(0)
        self._stopping = True
        IReactorFromThreads(self._reactor).callFromThread(self._stop, signal.Signals(signum).name)

    def _stop(self, name: str) -> None:
        text = "{end}: told to stop ({signal}), once connections have finished (--drain-seconds); again: at once"
        log.info(text, end=self._endName, signal=name)
        self._reactor.stop()

    def _sigHup(self, signum: int, frame: object) -> None:
        IReactorFromThreads(self._reactor).callFromThread(self._reload)

    def _reload(self) -> None:
        log.info("{name}: told to look at its files (SIGHUP)", name=self._endName)
        for service in self:
            if IReloadable.providedBy(service):
                IReloadable(service).reload()
