import json
import os
import re
import socket
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, cast
from unittest import mock

from click.testing import CliRunner
from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IAgent

from socketwarp.cli.doctor import checkClock, checkFreePort, checkListenerAnswers
from socketwarp.cli.main import commands
from socketwarp.errors import (
    EX_CONFIG,
    EX_NOPERM,
    EX_UNAVAILABLE,
    CertificateRejected,
    ConfigurationError,
    ProxyFailed,
    SessionLost,
)
from socketwarp.settings import ConnectorSettings, ListenerName
from tests.certs import Authority, writeFile
from tests.scepserver import Behaviour, FakeScep

VERSION_NEGOTIATION = b"\x80" + bytes(4) + b"\x00\x00" + bytes.fromhex("00000001")


class _Socket:
    """A UDP socket whose other end answers as told: a datagram, `None` for nothing, or an error."""

    def __init__(self, answer: bytes | OSError | None) -> None:
        self._answer = answer
        self.sent: list[bytes] = []

    def __enter__(self) -> "_Socket":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def settimeout(self, seconds: float) -> None:
        pass

    def setsockopt(self, *_: int) -> None:
        pass

    def connect(self, address: object) -> None:
        pass

    def bind(self, address: object) -> None:
        if isinstance(self._answer, OSError):
            raise self._answer

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def recv(self, size: int) -> bytes:
        if isinstance(self._answer, OSError):
            raise self._answer
        if self._answer is None:
            raise TimeoutError
        return self._answer


class DoctorTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        authority = Authority("Root")
        paths = authority.server().write(self.directory, "server")
        own = authority.issue().write(self.directory, "client")
        for key in (paths.key, own.key):
            os.chmod(key, 0o600)
        self.environment = {
            "SWL_CERT_PATH": paths.cert,
            "SWL_KEY_PATH": paths.key,
            "SWL_CA_PATH": paths.ca,
            "SWL_VERIFIER": "local",
            "SWL_STATE_DIR": self.directory,
        }
        self.settings: dict[str, object] = {
            "client_cert_path": own.cert,
            "client_key_path": own.key,
            "ca_cert_path": own.ca,
            "server_name": "127.0.0.1",
            "carrier": "quic",
        }

    def run_(self, end: str, udp: _Socket, status: int = 0, *more: str) -> str:
        config = os.path.join(self.directory, "settings.json")
        with open(config, "w") as file:
            json.dump(self.settings, file)
        options = ["doctor", end, *(["--config", config] if end == "connector" else []), *more]
        with mock.patch.dict(os.environ, self.environment), mock.patch.object(socket, "socket", lambda *_: udp):
            result = CliRunner().invoke(commands, options)
        self.assertEqual(result.exit_code, status, result.output)
        return result.output


class Connector(DoctorTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.probed: list[str] = []
        self.outcome: Exception | None = None

        def probe(family: int, address: object, name: str, *others: object) -> None:
            self.probed.append(f"{name} {address}")
            if self.outcome is not None:
                raise self.outcome

        patched = mock.patch("socketwarp.quic.probe.probe", probe)
        patched.start()
        self.addCleanup(patched.stop)

    def test_every_listener_is_looked_at(self) -> None:
        self.settings["server_names"] = "127.0.0.2,127.0.0.3:7"
        self.run_("connector", _Socket(VERSION_NEGOTIATION))
        self.assertEqual(
            [f"127.0.0.{host} ('127.0.0.{host}', {port})" for host, port in ((1, 11443), (2, 11443), (3, 7))],
            self.probed,
        )

    def test_a_listener_that_shows_no_certificate(self) -> None:
        for self.outcome in (TimeoutError("no certificate within 5 s"), SessionLost("no ALPN")):
            output = self.run_("connector", _Socket(VERSION_NEGOTIATION), status=EX_UNAVAILABLE)
            self.assertIn(f"shows no certificate: {self.outcome}", output)

    def test_a_listener_that_we_would_refuse(self) -> None:
        for alert, remedy in ((48, "ca_cert_path"), (42, "server_name")):
            self.outcome = CertificateRejected("CN=other", alert)
            output = self.run_("connector", _Socket(VERSION_NEGOTIATION), status=EX_NOPERM)
            self.assertIn("we would refuse the listener at 127.0.0.1 port 11443 as 127.0.0.1: CN=other", output)
            self.assertIn(remedy, output)

    def test_all_is_well(self) -> None:
        udp = _Socket(VERSION_NEGOTIATION)
        output = self.run_("connector", udp)
        self.assertIn("has a good certificate for 127.0.0.1", output)
        self.assertIn("a QUIC server answers at 127.0.0.1 port 11443", output)
        self.assertIn("no problems found", output)
        self.assertEqual([len(each) for each in udp.sent], [1200])

    def test_json_lists_the_findings(self) -> None:
        findings = json.loads(self.run_("connector", _Socket(None), EX_UNAVAILABLE, "--json"))
        self.assertEqual(["problem"], [each["level"] for each in findings if each["level"] != "fine"])
        self.assertEqual({"level", "text", "remedy", "status"}, set(findings[0]))

    def test_a_silent_port(self) -> None:
        udp = _Socket(None)
        self.assertIn("no answer within 3 s", self.run_("connector", udp, status=EX_UNAVAILABLE))
        self.assertEqual(len(udp.sent), 3)

    def test_a_closed_port(self) -> None:
        output = self.run_(
            "connector", _Socket(ConnectionRefusedError(111, "Connection refused")), status=EX_UNAVAILABLE
        )
        self.assertIn("Connection refused", output)
        self.assertIn("1 problem found", output)

    def test_something_else_answers(self) -> None:
        self.assertIn("doesn't speak QUIC", self.run_("connector", _Socket(b"hello"), status=EX_UNAVAILABLE))

    def test_a_name_without_address(self) -> None:
        with mock.patch.object(socket, "getaddrinfo", side_effect=socket.gaierror(-2, "Name or service not known")):
            (found,) = checkListenerAnswers("nowhere.example", 1, None)
        self.assertEqual((found.level, "Name or service not known" in found.text), ("problem", True))

    def test_settings_that_cant_be_read(self) -> None:
        self.settings["service_port"] = "x"
        self.assertIn("service_port", self.run_("connector", _Socket(None), status=EX_CONFIG))

    def test_the_exit_status_is_the_highest_of_its_problems(self) -> None:
        """What is wrong here first: what a listener that doesn't answer would say, nobody knows."""
        self.settings["ca_cert_path"] = "nowhere"
        self.assertIn("2 problems found", self.run_("connector", _Socket(None), EX_CONFIG))
        statuses = [each["status"] for each in json.loads(self.run_("connector", _Socket(None), EX_CONFIG, "--json"))]
        self.assertEqual([0, EX_CONFIG, EX_UNAVAILABLE], statuses)


class BothCarriers(DoctorTestCase):
    """A connector that may use TLS, too; what comes of that is the test's."""

    def setUp(self) -> None:
        super().setUp()
        self.settings["carrier"] = "auto"
        self.byTls: Exception | None = None
        self.looks = 0
        for place, stand in (("quic.probe.probe", lambda *_: None), ("cli.doctor.lookOverTls", self.look)):
            patched = mock.patch(f"socketwarp.{place}", stand)
            patched.start()
            self.addCleanup(patched.stop)

    def look(self, settings: ConnectorSettings, trusted: object) -> dict[ListenerName, Exception | None]:
        self.looks += 1
        return dict.fromkeys(settings.listeners, self.byTls)

    def test_both_are_fine(self) -> None:
        output = self.run_("connector", _Socket(VERSION_NEGOTIATION))
        self.assertIn("fine     a listener lets us in by TLS at 127.0.0.1, TCP port 11443", output)
        self.assertNotIn("warning", output)

    def test_blocked_udp_is_no_problem_where_tls_gets_through(self) -> None:
        output = self.run_("connector", _Socket(None))
        self.assertIn("warning  no listener answers at UDP port 11443", output)
        self.assertIn("-> the session goes by TLS", output)

    def test_no_tls_is_no_problem_while_quic_gets_through(self) -> None:
        self.byTls = ConnectionRefusedError(111, "Connection refused")
        output = self.run_("connector", _Socket(VERSION_NEGOTIATION))
        self.assertRegex(output, "warning  no listener lets us in by TLS at .*11443: Connection refused\n")
        self.assertIn("-> nothing, while QUIC gets through: is TLS on there (SWL_TLS_PORT)", output)

    def test_a_refusal_is_one_by_whichever_carrier(self) -> None:
        self.byTls = SessionLost("the certificate has been revoked", 0x12C, True)
        output = self.run_("connector", _Socket(VERSION_NEGOTIATION), status=EX_NOPERM)
        self.assertIn("has been revoked", output)
        self.assertIn("-> see the listener's log", output)

    def test_neither_gets_through(self) -> None:
        self.byTls = SessionLost("the handshake took too long")
        self.run_("connector", _Socket(None), status=EX_UNAVAILABLE)

    def test_only_what_may_be_used_is_tried(self) -> None:
        for carrier, udp, looks in (("tls", None, 1), ("quic", VERSION_NEGOTIATION, 0)):
            self.looks, self.settings["carrier"] = 0, carrier
            output = self.run_("connector", _Socket(udp))
            self.assertEqual((looks, carrier == "quic"), (self.looks, "UDP" in output or "QUIC" in output))

    def test_behind_a_proxy_it_is_tls(self) -> None:
        self.settings |= {"proxy": "http://me:sesame@proxy:3128", "tls_port": 443}
        self.byTls = ProxyFailed("the proxy refuses the connection: 403 No")
        output = self.run_("connector", _Socket(None), status=EX_UNAVAILABLE)
        self.assertIn("TCP port 443, through http://proxy:3128: the proxy refuses the connection: 403 No", output)
        self.assertIn("SWC_NO_PROXY", output)
        self.assertFalse("sesame" in output or "UDP" in output)

    def test_files_that_cant_be_used_are_told_once(self) -> None:
        self.settings["client_key_path"] = "nowhere"
        output = self.run_("connector", _Socket(VERSION_NEGOTIATION), status=EX_CONFIG)
        self.assertEqual((0, 1), (self.looks, output.count("nowhere")))


class Listener(DoctorTestCase):
    def test_all_is_well(self) -> None:
        output = self.run_("listener", _Socket(None))
        for port in ("UDP port 11443 of 0.0.0.0", "TCP port 11443 of 0.0.0.0"):
            self.assertIn(f"fine     {port} is free; see that firewalls let it in", output)
        self.assertIn("fine     TCP port 8080 of 127.0.0.1 is free\n", output)
        self.assertIn("no problems found", output)

    def test_a_misspelt_variable_is_named(self) -> None:
        """Only those that look like this end's."""
        self.environment |= {"SWL_PROT": "1", "APIS_HOST": "h", "SWC_PROT": "1", "PATH": "/bin"}
        output = self.run_("listener", _Socket(None))
        named = re.findall("warning  (.*) is no setting, and not read", output)
        self.assertEqual(["APIS_HOST", "SWL_PROT"], named)
        output = self.run_("connector", _Socket(VERSION_NEGOTIATION), EX_UNAVAILABLE)
        self.assertIn("SWC_PROT is no setting", output)

    def test_a_taken_port_may_be_the_running_listener(self) -> None:
        output = self.run_("listener", _Socket(OSError(98, "Address already in use")))
        self.assertIn("no problems found", output)
        for port, setting in (
            ("UDP port 11443", "SWL_PORT"),
            ("TCP port 11443", "SWL_TLS_PORT"),
            ("TCP port 8080", "APIS_PORT"),
        ):
            self.assertRegex(output, rf"warning  {port} .* in use\n +-> right, if .*, or set {setting}\n")

    def test_the_tls_port_is_tried_if_there_is_one(self) -> None:
        for setting, ports in (("443", ["UDP port 11443", "TCP port 443"]), ("off", ["UDP port 11443"])):
            self.environment["SWL_TLS_PORT"] = setting
            output = self.run_("listener", _Socket(None))
            self.assertEqual([*ports, "TCP port 8080"], re.findall("(?:UDP|TCP) port [0-9]+", output))

    def test_a_low_port_may_be_had_by_the_unit(self) -> None:
        output = self.run_("listener", _Socket(PermissionError(13, "Permission denied")))
        self.assertIn("-> right, if the listener will run with CAP_NET_BIND_SERVICE", output)

    def test_an_address_of_another_host(self) -> None:
        output = self.run_("listener", _Socket(OSError(99, "Cannot assign requested address")), EX_UNAVAILABLE)
        self.assertEqual(2, output.count("-> set SWL_ADDRS to an address of this host"))
        self.assertIn("-> set APIS_ADDRS to an address of this host", output)

    def test_settings_that_cant_be_read(self) -> None:
        self.environment["SWL_PORT"] = "many"
        self.assertIn("SWL_PORT", self.run_("listener", _Socket(None), status=EX_CONFIG))

    def test_the_access_file_is_read(self) -> None:
        self.environment["SWL_ACCESS_PATH"] = writeFile(self.directory, "access", b"allow a\nallow b\ndeny c\n")
        self.assertIn("2 allowed, 1 denied, nobody else allowed", self.run_("listener", _Socket(None)))
        writeFile(self.directory, "access", b"deny c\n")
        self.assertIn("0 allowed, 1 denied, everybody else allowed", self.run_("listener", _Socket(None)))
        writeFile(self.directory, "access", b"permit a\n")
        self.assertIn("problem  SWL_ACCESS_PATH", self.run_("listener", _Socket(None), status=EX_CONFIG))

    def test_an_address_of_ipv6_is_tried_as_such(self) -> None:
        with mock.patch.object(socket, "socket") as made:
            checkFreePort("UDP", "::", 1, "SWL_PORT")
        made.assert_called_once_with(socket.AF_INET6, socket.SOCK_DGRAM)

    def test_every_file_of_the_apis_tls_is_read(self) -> None:
        files = ("APIS_CERT_PATH", "APIS_KEY_PATH", "APIS_CLIENT_CA_PATH", "APIS_CRL_PATHS")
        for name in files:
            self.environment[name] = writeFile(self.directory, name, b"nonsense")
        output = self.run_("listener", _Socket(None), EX_CONFIG)
        self.assertEqual([1, 1, 1, 1], [output.count(f"problem  {name}") for name in files], output)

    def test_every_file_of_rules_is_read(self) -> None:
        """And of each that can't be used, there is a problem."""
        files = ("SWL_POLICY_PATH", "SWL_ACCESS_PATH", "APIS_TOKENS_FILE")
        for name in files:
            self.environment[name] = writeFile(self.directory, name, b"nonsense")
        output = self.run_("listener", _Socket(None), EX_CONFIG)
        self.assertEqual([1, 1, 1], [output.count(f"problem  {name}") for name in files], output)
        self.settings["policy_path"] = writeFile(self.directory, "targets", b"nonsense")
        self.assertIn("problem  SWC_POLICY_PATH", self.run_("connector", _Socket(None), EX_CONFIG))


class ListenerWithScep(DoctorTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.environment["SWL_VERIFIER"] = "scep"
        self.server = FakeScep()
        agent = RequestTraversalAgent(self.server.resource())
        self.slow = False

        def inMemory(work: Callable[[Any], Coroutine[Deferred[Any], Any, object]]) -> object:
            clock = Clock()
            result = ensureDeferred(work(clock))
            agent.flush()
            clock.advance(5.0)
            outcome: list[object] = []
            errors: list[Exception] = []
            result.addCallbacks(outcome.append, lambda failure: errors.append(failure.value))
            if errors:
                raise errors[0]
            return outcome[0]

        self.scepAgent = mock.Mock(return_value=cast(IAgent, agent))
        for function, stand in (("runOnReactor", inMemory), ("scepAgent", self.scepAgent)):
            patched = mock.patch(f"socketwarp.cli.doctor.{function}", stand)
            patched.start()
            self.addCleanup(patched.stop)

    def test_a_refusal_shows_that_the_verifier_works(self) -> None:
        output = self.run_("listener", _Socket(None))
        self.assertIn("decides about certificates", output)
        self.assertIn("clock agrees", output)

    def test_it_is_asked_as_the_listener_would(self) -> None:
        paths = {"SWL_SCEP_CA_PATH": "/ca", "SWL_SCEP_CERT_PATH": "/cert", "SWL_SCEP_KEY_PATH": "/key"}
        self.environment |= paths | {"SWL_SCEP_URL": "https://scep.example/api/cert/verify"}
        self.run_("listener", _Socket(None))
        self.scepAgent.assert_called_once_with(mock.ANY, *(Path(each) for each in paths.values()))

    def test_files_for_the_call_that_cant_be_used(self) -> None:
        self.scepAgent.side_effect = ConfigurationError("SWL_SCEP_CA_PATH '/ca': there is no such file")
        self.assertIn("SWL_SCEP_CA_PATH", self.run_("listener", _Socket(None), status=EX_CONFIG))

    def test_a_fault_is_a_problem(self) -> None:
        for behaviour in (Behaviour.CLOSE, Behaviour.SLOW, Behaviour.REDIRECT):
            self.server.behaviour = behaviour
            self.assertIn("SWL_SCEP_URL", self.run_("listener", _Socket(None), status=EX_UNAVAILABLE))

    def test_files_that_cant_be_used_are_told_once(self) -> None:
        self.environment["SWL_CERT_PATH"] = "nowhere"
        self.assertEqual(self.run_("listener", _Socket(None), status=EX_CONFIG).count("SWL_CERT_PATH"), 1)


class Clocks(SynchronousTestCase):
    def test_five_minutes_are_tolerated_and_more_is_a_problem(self) -> None:
        now = datetime(2024, 2, 29, 12, tzinfo=UTC)
        for minutes, level in ((0, "fine"), (4, "fine"), (-4, "fine"), (6, "problem"), (-6, "problem")):
            date = format_datetime(now + timedelta(minutes=minutes), usegmt=True)
            self.assertEqual([each.level for each in checkClock(date, now)], [level])

    def test_a_date_that_names_no_zone_is_in_utc(self) -> None:
        now = datetime(2024, 2, 29, 12, tzinfo=UTC)
        self.assertEqual([each.level for each in checkClock("Thu, 29 Feb 2024 12:00:00 -0000", now)], ["fine"])

    def test_no_date_says_nothing(self) -> None:
        self.assertEqual(list(checkClock("", datetime.now(UTC))), [])
