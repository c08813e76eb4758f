"""The taps: options, exit statuses, the log's level and SIGTERM, without a process."""

import json
import os
import shlex
import signal
import sys
from collections.abc import Callable
from functools import partial
from io import StringIO
from itertools import permutations
from pathlib import Path
from typing import Any

from twisted.application.service import IService, IServiceMaker, MultiService, Service
from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogPublisher,
    capturedLogs,
    formatEvent,
    globalLogBeginner,
    textFileLogObserver,
)
from twisted.plugin import IPlugin, getPlugins
from twisted.python.usage import Options
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from socketwarp import connector_tap, listener_tap, process
from socketwarp.errors import AddressUnavailable, ConfigurationError
from socketwarp.interfaces import IReloadable, IStateful
from socketwarp.notify import ServiceManager
from socketwarp.process import End, StartFailed, limitLog
from socketwarp.settings import ConnectorSettings, ListenerSettings, settingsOf
from tests.certs import Authority


@implementer(IReactorFromThreads)
class MemoryReactor(MemoryReactorClock):
    """With what signal handlers use."""

    def callFromThread(self, callable: Callable[..., object], *args: object, **kwargs: object) -> None:
        self.callLater(0, callable, *args, **kwargs)


class TapTests(SynchronousTestCase):
    """What the test cases share: a process of our own to play with."""

    def setUp(self) -> None:
        self.stderr, self.stdout = StringIO(), StringIO()
        self.handlers: dict[int, Callable[[int, object], None]] = {}
        self.patch(sys, "__stderr__", self.stderr)
        self.patch(sys, "stdout", self.stdout)
        self.patch(os, "environ", {"HOME": "/home/me"})
        self.patch(signal, "signal", self.handlers.__setitem__)
        self.patch(signal, "getsignal", lambda signum: self.handlers.get(signum, signal.default_int_handler))
        self.patch(globalLogBeginner, "beginLoggingTo", lambda observers, *args, **kwargs: None)
        self.reactor = MemoryReactor()
        self.patch(Factory, "noisy", True)

    def fails(self, make: Callable[[], object]) -> tuple[int, str]:
        """The exit status, and what is on stderr."""
        with self.assertRaises(SystemExit) as caught:
            make()
        assert isinstance(caught.exception.code, int)
        return caught.exception.code, self.stderr.getvalue()


class Plugins(SynchronousTestCase):
    """What twistd and twist find."""

    def test_bothEnds(self) -> None:
        """Each leads to its tap."""
        makers = {maker.tapname: maker for maker in getPlugins(IServiceMaker)}
        for name, tap in (("swlistener", listener_tap), ("swconnector", connector_tap)):
            maker = makers[name]
            verifyObject(IServiceMaker, maker)
            verifyObject(IPlugin, maker)
            self.assertIs(maker.options, tap.Options)
            self.assertIs(maker.makeService, tap.makeService)


class OptionTests(TapTests):
    """Flags are made of the settings."""

    def test_eachSettingHasAFlag(self) -> None:
        """That takes a value, whatever the setting is."""
        for tap, kind in ((listener_tap, ListenerSettings), (connector_tap, ConnectorSettings)):
            for setting in settingsOf(kind).values():
                options = tap.Options()
                options.parseOptions([f"--{setting.flag}", "x"])
                self.assertEqual(options[setting.flag], "x")

    def test_helpNamesTheEnvironment(self) -> None:
        """And the unit, and the default, where there is one."""
        text = " ".join(str(listener_tap.Options()).split())
        self.assertIn("QUIC (UDP) port. [SWL_PORT; default: 11443]", text)
        self.assertIn("(seconds). [SWL_IDLE_SECONDS; default: 60]", text)
        for variable in ("APIS_HOSTS", "APIS_ALLOW_UNAUTHENTICATED", "SWL_STATE_DIR", "SWL_POLICY_PATH"):
            self.assertIn(f"[{variable}]", text)
        self.assertIn("[SWL_SETTINGS; default: none]", text)
        self.assertIn("[SWC_SETTINGS; default: settings.json]", " ".join(str(connector_tap.Options()).split()))

    def test_whatIsNoFlagIsOneLineAndStatus78(self) -> None:
        """As a bad value is, and without a page of help before it."""
        for given, words in ((["--prot", "1"], "option --prot not recognized"), (["x"], "Wrong number of arguments.")):
            self.stderr.truncate(0)
            self.stderr.seek(0)
            self.assertEqual(
                self.fails(partial(listener_tap.Options().parseOptions, given)),
                (78, f"swlistener: {words}: see twistd swlistener --help\n"),
            )

    def test_helpEndsWithExamplesThatCanBeRun(self) -> None:
        """On lines of their own, with options that there are."""
        for tap in (listener_tap, connector_tap):
            name = tap.Options.endName
            examples = str(tap.Options()).partition("Examples:\n")[2].replace("\\\n", "")
            calls = [line.partition(f" {name}")[2] for line in examples.splitlines() if f" {name}" in line]
            self.assertEqual(len(calls), 4)
            for call in calls:
                tap.Options().parseOptions(shlex.split(call))

    def test_noPidFileInTheForeground(self) -> None:
        """Unless somebody names one; a daemon keeps twistd's."""
        for nodaemon, given, expected in (
            (True, "twistd.pid", ""),
            (True, "/run/mine.pid", "/run/mine.pid"),
            (False, "twistd.pid", "twistd.pid"),
        ):
            options = listener_tap.Options()
            options.parent = Options()
            options.parent.update({"nodaemon": nodaemon, "pidfile": given})
            options.parseOptions([])
            self.assertEqual(options.parent["pidfile"], expected)


class Starting(TapTests):
    """Before anything is opened."""

    def make(self, tap: Any, *arguments: str) -> IService:  # Any: a module
        options = tap.Options()
        options.parseOptions(arguments)
        return IService(tap.makeService(options, self.reactor))

    def test_theReactorsTimePassesEvenly(self) -> None:
        """At both ends."""
        steady: list[object] = []
        self.patch(process, "keepSteady", steady.append)
        for tap in (listener_tap, connector_tap):
            self.fails(partial(self.make, tap, "--cert-path", "/nowhere"))
        self.assertEqual([self.reactor, self.reactor], steady)

    def test_aBadSettingIsOneLineAndStatus78(self) -> None:
        """For both ends."""
        self.assertEqual(
            self.fails(lambda: self.make(listener_tap, "--port", "x")),
            (78, "swlistener: --port: 'x' is not a port number from 0 to 65535\n"),
        )
        os.environ["SWC_SETTINGS"] = "/nowhere"
        status, line = self.fails(lambda: self.make(connector_tap))
        self.assertEqual(status, 78)
        self.assertTrue(
            line.endswith("swconnector: SWC_SETTINGS: '/nowhere': no such file: create it, or name another\n")
        )

    def test_aBadFileIsOneLineAndStatus78(self) -> None:
        """Named by its setting."""
        status, line = self.fails(lambda: self.make(listener_tap, "--key-path", "/nowhere.key"))
        self.assertEqual((status, line.count("\n")), (78, 1))
        self.assertIn("/nowhere.key", line)

    def test_check(self) -> None:
        """Shows the settings with their sources, and exits with 0; with bad ones, with 78."""
        self.assertEqual(self.fails(lambda: self.make(listener_tap, "--check", "--port", "1")), (0, ""))
        self.assertIn("--port=1  (flag)\n", self.stdout.getvalue())
        self.assertIn("SWL_VERIFIER=scep  (default)\n", self.stdout.getvalue())
        self.assertEqual(self.fails(lambda: self.make(listener_tap, "--check", "--port", "x"))[0], 78)
        code, line = self.fails(lambda: self.make(listener_tap, "--check", "--policy-path", "/dev/null/none"))
        self.assertEqual(78, code)
        self.assertIn("SWL_POLICY_PATH", line)

    def test_bothEndsAreMade(self) -> None:
        """And not started."""
        os.mkdir(directory := self.mktemp())
        authority = Authority()
        for tap, issued in ((listener_tap, authority.server()), (connector_tap, authority.issue("uid-1"))):
            paths = issued.write(directory)
            arguments = ["--cert-path", paths.cert, "--key-path", paths.key, "--ca-path", paths.ca]
            if tap is connector_tap:
                arguments += ["--server-name", "localhost"]
            verifyObject(IService, self.make(tap, *arguments))
        self.assertEqual((self.reactor.tcpServers, self.reactor.getDelayedCalls()), ([], []))
        self.assertFalse(Factory.noisy)

    def test_sigtermBeforeTheReactorRuns(self) -> None:
        """Ends the process with status 0, too."""
        self.fails(lambda: self.make(listener_tap, "--port", "x"))
        with self.assertRaises(SystemExit) as caught:
            self.handlers[signal.SIGTERM](signal.SIGTERM, None)
        self.assertEqual(caught.exception.code, 0)


class Failing(Service):
    """A service that can't start."""

    def __init__(self, privileged: Exception | None = None, unprivileged: Exception | None = None) -> None:
        self.errors = privileged, unprivileged
        self.calls: list[str] = []

    def privilegedStartService(self) -> None:
        self.calls.append("privileged")
        if self.errors[0] is not None:
            raise self.errors[0]

    def startService(self) -> None:
        self.calls.append("unprivileged")
        if self.errors[1] is not None:
            raise self.errors[1]


@implementer(IStateful)
class Stateful(Failing):
    """A service that keeps something on the disk."""

    def __init__(self, state: Exception | None = None) -> None:
        super().__init__()
        self.error = state

    def openState(self) -> None:
        self.calls.append("state")
        if self.error is not None:
            raise self.error


class Running(TapTests):
    """The service that twistd runs."""

    def test_anOccupiedPortIsOneLineAndStatus69(self) -> None:
        """Whenever it is bound."""
        error = AddressUnavailable("port 80:\nin use")
        for service in (Failing(privileged=error), Failing(unprivileged=error)):
            self.stderr.truncate(0)
            self.stderr.seek(0)
            end = End(listener_tap.Options(), service, self.reactor)
            self.assertEqual(self.fails(end.startService), (69, "swlistener: port 80: in use\n"))

    def test_twistdRemovesItsPidFile(self) -> None:
        """It does so for an `Exception`, and tells whoever waits for the daemon."""
        end = End(listener_tap.Options(), Failing(unprivileged=ConfigurationError("no")), self.reactor)
        error = self.assertRaises(StartFailed, end.startService)
        self.assertIsInstance(error, Exception)
        self.assertEqual((str(error), error.code), ("no", 78))

    def test_theLogHasTheLineUnlessTheTerminalHasIt(self) -> None:
        """A daemon has nothing else."""
        for options, isLogged in (
            ({"nodaemon": True, "logfile": None}, False),
            ({"nodaemon": True, "logfile": "-"}, False),
            ({"nodaemon": True, "logfile": "/var/log/mine.log"}, True),
            ({"nodaemon": True, "logfile": None, "syslog": True}, True),
            ({"nodaemon": False, "logfile": None}, True),
        ):
            logged: list[LogEvent] = []
            self.patch(process, "log", Logger(observer=logged.append))  # type: ignore[arg-type]  # a list will do
            end = End(self.runBy(options), Failing(unprivileged=ConfigurationError("no")), self.reactor)
            self.fails(end.startService)
            self.assertEqual([event["line"] for event in logged], ["no"] if isLogged else [])

    def runBy(self, options: dict[str, Any]) -> listener_tap.Options:  # Any: values of twistd's options
        """Options of ours below twistd's."""
        ours = listener_tap.Options()
        ours.parent = Options()
        ours.parent.update(options)
        return ours

    def test_whatIsOnTheDiskComesFirst(self) -> None:
        """Nothing listens when it can't be opened."""
        service = Stateful()
        End(listener_tap.Options(), service, self.reactor).privilegedStartService()
        self.assertEqual(service.calls, ["state", "privileged"])
        service = Stateful(state=ConfigurationError("no"))
        self.fails(End(listener_tap.Options(), service, self.reactor).privilegedStartService)
        self.assertEqual(service.calls, ["state"])

    def test_filesAreMadeAsTheUserWhomTwistdMakesOfUs(self) -> None:
        """Whom else could they belong to? Sockets are bound before that."""
        whose: list[tuple[int, int]] = []

        def run(uid: int, gid: int, work: Callable[[], None]) -> None:
            whose.append((uid, gid))
            work()

        self.patch(process, "runAsEffectiveUser", run)
        for user, asked, expected in (
            (0, {"uid": 1234, "gid": 5678}, [(1234, 5678)]),
            (0, {"uid": 0, "gid": None}, [(0, 0)]),
            (0, {"uid": None, "gid": 5678}, [(0, 5678)]),
            (0, {"uid": None, "gid": None}, []),
            (1000, {"uid": 1234, "gid": 5678}, []),
        ):
            whose.clear()
            self.patch(os, "geteuid", lambda user=user: user)
            service = Stateful()
            End(self.runBy(asked), service, self.reactor).privilegedStartService()
            self.assertEqual((whose, service.calls), (expected, ["state", "privileged"]))

    def test_otherErrorsAreTwistds(self) -> None:
        """A fault of ours is to be seen with its traceback."""
        end = End(listener_tap.Options(), Failing(unprivileged=ZeroDivisionError()), self.reactor)
        self.assertRaises(ZeroDivisionError, end.startService)

    def test_privilegesAreUsedOnce(self) -> None:
        """twistd asks for it, twist doesn't."""
        for withTwistd in (True, False):
            service = Failing()
            end = End(listener_tap.Options(), service, self.reactor)
            if withTwistd:
                end.privilegedStartService()
            end.startService()
            self.assertEqual(service.calls, ["privileged", "unprivileged"])

    def test_toldToStop(self) -> None:
        """The first signal stops the reactor, and says so; the second doesn't wait for what the first began."""
        for first, second in permutations((signal.SIGTERM, signal.SIGINT)):
            self.handlers.clear()
            self.reactor = MemoryReactor()
            exits: list[int] = []
            self.patch(os, "_exit", exits.append)
            stops: list[str] = []
            self.patch(self.reactor, "stop", partial(stops.append, "stop"))
            End(listener_tap.Options(), MultiService(), self.reactor).startService()
            with capturedLogs() as lines:
                self.handlers[first](first, None)
                self.reactor.advance(0)
            self.assertEqual((stops, exits), (["stop"], []))
            self.assertIn(f"told to stop ({first.name}), once connections have", formatEvent(lines[0]))
            self.handlers[second](second, None)
            self.assertEqual((stops, exits), (["stop"], [0]))

    def test_anInterruptThatIsIgnoredStaysSo(self) -> None:
        """Of a job in the background."""
        self.handlers[signal.SIGINT] = signal.SIG_IGN  # type: ignore[assignment]  # as the shell has set it
        End(listener_tap.Options(), MultiService(), self.reactor).startService()
        self.assertIs(signal.SIG_IGN, self.handlers[signal.SIGINT])

    def test_theReactorInstallsOurHandler(self) -> None:
        """There is no moment at which SIGTERM would end the process by the signal, as Twisted has it."""
        self.patch(ReactorBase, "installWaker", lambda reactor: None)
        reactor = ReactorBase()
        end = End(listener_tap.Options(), MultiService(), reactor)
        end.startService()
        self.handlers.clear()
        reactor.startRunning()
        self.assertEqual(self.handlers[signal.SIGTERM], end._sigTerm)

    def test_sighup(self) -> None:
        """Has what can reload look at its files, in the reactor's own time."""

        @implementer(IReloadable)
        class Reloadable(Service):
            reloads = 0

            def reload(self) -> None:
                self.reloads += 1

        service = Reloadable()
        end = End(listener_tap.Options(), service, self.reactor)
        Service().setServiceParent(end)
        end.startService()
        self.handlers[signal.SIGHUP](signal.SIGHUP, None)
        self.assertEqual(service.reloads, 0)
        self.reactor.advance(0)
        self.assertEqual(service.reloads, 1)

    def test_systemd(self) -> None:
        """Hears when the services have started, when they begin to stop, and nothing more once they have."""
        told: list[str] = []
        self.patch(ServiceManager, "_send", lambda manager, notification: told.append(notification))
        os.environ["WATCHDOG_USEC"] = "2000000"
        stopping: Deferred[None] = Deferred()

        class Slow(Service):
            def startService(self) -> None:
                told.append("started")

            def stopService(self) -> Deferred[None]:
                told.append("stops")
                return stopping

        end = End(listener_tap.Options(), Slow(), self.reactor)
        end.startService()
        self.assertEqual(told, ["started", "READY=1", "WATCHDOG=1"])
        stopped = end.stopService()
        self.reactor.advance(1)
        self.assertEqual(told[3:], ["STOPPING=1", "stops", "WATCHDOG=1"])
        stopping.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_systemdHearsNothingOfAFailedStart(self) -> None:
        """So that it sees the exit status, and nobody waits for a service that isn't there."""
        told: list[str] = []
        self.patch(ServiceManager, "_send", lambda manager, notification: told.append(notification))
        end = End(listener_tap.Options(), Failing(unprivileged=ConfigurationError("no")), self.reactor)
        self.fails(end.startService)
        self.assertEqual(told, [])

    def test_sighupBeforeTheStart(self) -> None:
        """Doesn't end the process, which would be the system's default."""
        options = listener_tap.Options()
        options.parseOptions(["--port", "x"])
        self.fails(lambda: listener_tap.makeService(options, self.reactor))
        self.assertIs(self.handlers[signal.SIGHUP], signal.SIG_IGN)


class LogLevels(TapTests):
    """The least important messages that are logged."""

    def logged(self, level: str) -> list[str]:
        """The levels that come through."""
        publisher, seen = LogPublisher(), []

        def begin(observers: list[ILogObserver]) -> None:
            for observer in observers:
                publisher.addObserver(observer)

        self.patch(globalLogBeginner, "beginLoggingTo", begin)
        limitLog(level)

        @implementer(ILogObserver)
        def observe(event: LogEvent) -> None:
            seen.append(event["log_level"].name)

        globalLogBeginner.beginLoggingTo([observe])
        for each in LogLevel.iterconstants():
            Logger(namespace="test", observer=publisher).emit(each, "x")
        return seen

    def test_json(self) -> None:
        """One object on each line, with the event's own fields; other observers are left as they are."""
        file, publisher = StringIO(), LogPublisher()
        self.patch(globalLogBeginner, "beginLoggingTo", lambda observers: publisher.addObserver(observers[0]))
        limitLog("info", "json")
        globalLogBeginner.beginLoggingTo([textFileLogObserver(file)])
        log = Logger(namespace="test", observer=publisher)
        log.info("{uid} is\nhere", uid="uid-1", event="connector.connected", target=Path("x"), isError=0, system="-")
        try:
            raise ZeroDivisionError("no")
        except ZeroDivisionError:
            log.failure("broken")
        first, second = (json.loads(line) for line in file.getvalue().splitlines())
        self.assertRegex(first.pop("time"), r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
        self.assertEqual(
            {
                "level": "info",
                "namespace": "test",
                "message": "uid-1 is\nhere",
                "uid": "uid-1",
                "event": "connector.connected",
                "target": "x",
            },
            first,
        )
        self.assertEqual(("critical", "broken"), (second["level"], second["message"]))
        self.assertIn("ZeroDivisionError: no", second["traceback"])

    def test_levels(self) -> None:
        """Each lets itself and what is worse through."""
        every = ["debug", "info", "warn", "error", "critical"]
        for number, level in enumerate(every[:4]):
            self.assertEqual(self.logged(level), every[number:])
