"""What can't be used is refused with a line that says why: settings and files, ports, calls of the API, preambles."""

import asyncio
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import HandshakeCompleted, QuicEvent, StreamDataReceived, StreamReset

from .processes import PATIENCE, TWIST, TWISTD, Process, ProcessCase, TunnelCase, freePort

EX_UNAVAILABLE = 69
EX_CONFIG = 78


class RefusalCase(ProcessCase):
    """Ends that can't start, under twistd and twist in turn."""

    def setUp(self) -> None:
        super().setUp()
        self.runners = cycle((TWISTD, TWIST))

    def assertRefuses(self, status: int, plugin: str, *words: str, flags: Sequence[str] = ()) -> None:
        """That exit status, one line with those words, on stderr and nowhere else, and no pid file left behind."""
        process = self.start(plugin, *flags, runner=next(self.runners))
        self.assertEqual((status, 1), (process.wait(), len(process.stderr)), f"{words}: {process.stderr}")
        for word in (plugin, *words):
            self.assertIn(word, process.stderr[0])
        self.assertEqual(1, sum(words[-1] in line for line in process.lines), process.lines)
        self.assertEqual([], list(self.directory.glob("*.pid")))

    @contextmanager
    def occupied(self, kind: socket.SocketKind) -> Iterator[str]:
        """A port that somebody else has."""
        with socket.socket(socket.AF_INET, kind) as holder:
            holder.bind(("127.0.0.1", 0))
            if kind == socket.SOCK_STREAM:
                holder.listen()
            yield str(holder.getsockname()[1])

    def assertListenerRefuses(self, variable: str, value: str, *words: str, status: int = EX_CONFIG) -> None:
        before = dict(self.environment)
        self.environment[variable] = value
        self.assertRefuses(status, "swlistener", variable, *words)
        self.environment = before

    def assertConnectorRefuses(self, key: str, value: object, *words: str) -> None:
        before = dict(self.settings)
        self.settings[key] = value
        self.assertRefuses(EX_CONFIG, "swconnector", key, *words)
        self.settings = before


class ConfigurationCase(RefusalCase):
    """78, before anything is opened: neither of the listener's ports could be had, and nobody noticed."""

    def setUp(self) -> None:
        super().setUp()
        for variable, kind in (("SWL_PORT", socket.SOCK_DGRAM), ("APIS_PORT", socket.SOCK_STREAM)):
            held = self.occupied(kind)
            self.environment[variable] = held.__enter__()
            self.addCleanup(held.__exit__, None, None, None)

    def assertRefuses(self, status: int, plugin: str, *words: str, flags: Sequence[str] = ()) -> None:
        super().assertRefuses(status, plugin, *words, flags=flags)
        self.assertFalse((self.directory / "state").exists())


class SettingsTests(ConfigurationCase):
    """What is said in the environment, on the command line and in settings.json."""

    def test_aNumberOutOfItsRangeOrNoNumberAtAll(self) -> None:
        self.assertListenerRefuses("SWL_PORT", "65536", "'65536' is not a port number from 0 to 65535")
        self.assertListenerRefuses("APIS_PORT", "http", "'http' is not a port number")
        self.assertListenerRefuses("SWL_RECHECK_SECONDS", "soon", "'soon'")
        self.assertListenerRefuses("SWL_STREAM_WINDOW", "-1", "'-1'")
        for _ in (TWISTD, TWIST):
            self.assertRefuses(EX_CONFIG, "swlistener", "'abc' is not a port number", flags=["--port=abc"])

    def test_flagsThatNobodyKnows(self) -> None:
        for plugin in ("swlistener", "swconnector"):
            for _ in (TWISTD, TWIST):
                self.assertRefuses(EX_CONFIG, plugin, "--prot not recognized", flags=["--prot=1"])

    def test_aWordThatIsNoneOfThoseAllowed(self) -> None:
        self.assertListenerRefuses("SWL_VERIFIER", "nobody", "'nobody'", "scep", "local")
        self.assertListenerRefuses("SWL_LOG_LEVEL", "loud", "one of error, warn, info, debug")
        self.assertListenerRefuses("SWL_SCEP_URL", "127.0.0.1:3000", "'127.0.0.1:3000'")

    def test_keysThatNobodyKnows(self) -> None:
        self.assertConnectorRefuses("service_prot", 11443, "'service_prot' is no setting", "service_port")

    def test_valuesOfTheWrongType(self) -> None:
        self.assertConnectorRefuses("server_name", 7, "7 must be text")
        self.assertConnectorRefuses("service_port", [11443], "[11443] must be")
        self.assertConnectorRefuses("client_cert_path", None, "null must be")

    def test_settingsThatAreMissing(self) -> None:
        del self.settings["server_name"]
        self.assertRefuses(EX_CONFIG, "swconnector", "server_name", "SWC_SERVER_NAME", "settings.json")

    def test_anEndStartedInTheWrongDirectory(self) -> None:
        elsewhere = self.directory / "elsewhere"
        elsewhere.mkdir()
        for runner in (TWISTD, TWIST):
            process = Process("swconnector", (*runner, "swconnector"), elsewhere, self.environment)
            self.addCleanup(process.clear)
            self.assertEqual((EX_CONFIG, 1), (process.wait(), len(process.stderr)), process.stderr)
            self.assertIn(f"{elsewhere}/settings.json doesn't exist", process.stderr[0])
            self.assertIn("SWC_SETTINGS", process.stderr[0])

    def test_aSettingsFileThatIsNone(self) -> None:
        (self.directory / "other.json").write_text("{'server_name': 'localhost'}")
        for path, word in (("other.json", "not JSON"), ("nowhere.json", "no such file"), (".", "can't be read")):
            self.environment["SWC_SETTINGS"] = path
            self.assertRefuses(EX_CONFIG, "swconnector", path, word)


class FilesTests(ConfigurationCase):
    """What the settings name."""

    def test_filesThatAreMissingUnreadableOrSomethingElse(self) -> None:
        (self.directory / "notes.txt").write_text("not a certificate\n")
        for variable, path in (("SWL_CERT_PATH", "nowhere.pem"), ("SWL_KEY_PATH", "."), ("SWL_CA_PATH", "notes.txt")):
            self.assertListenerRefuses(variable, path, path)
        for key in ("client_cert_path", "client_key_path", "ca_cert_path"):
            self.settings[key], before = "nowhere.pem", self.settings[key]
            self.assertRefuses(EX_CONFIG, "swconnector", "nowhere.pem")
            self.settings[key] = before

    def test_aKeyThatDoesNotMatchItsCertificate(self) -> None:
        self.assertListenerRefuses("SWL_KEY_PATH", "client.key", "client.key", "server.crt")
        self.settings["client_key_path"] = "server.key"
        self.assertRefuses(EX_CONFIG, "swconnector", "server.key", "client.crt")

    def test_aStateDirectoryThatIsAFileOrCannotBeMade(self) -> None:
        (self.directory / "notes.txt").write_text("not a directory\n")
        for _ in (TWISTD, TWIST):
            self.assertListenerRefuses("SWL_STATE_DIR", "notes.txt", "notes.txt")
            self.assertListenerRefuses("SWL_STATE_DIR", "/proc/x", "/proc/x")

    def test_aStoreThatCannotBeTrusted(self) -> None:
        (self.directory / "kept").mkdir()
        (self.directory / "kept" / "listener.sqlite3").write_bytes(b"garbage " * 1000)
        for _ in (TWISTD, TWIST):
            self.assertListenerRefuses("SWL_STATE_DIR", "kept", "can't be trusted")


class OccupiedTests(RefusalCase):
    """69."""

    def test_aPortThatSomebodyElseHas(self) -> None:
        for variable, kind in (("SWL_PORT", socket.SOCK_DGRAM), ("APIS_PORT", socket.SOCK_STREAM)):
            with self.occupied(kind) as port:
                for _ in (TWISTD, TWIST):
                    self.assertListenerRefuses(variable, port, port, "in use", status=EX_UNAVAILABLE)

    def test_anAddressThatIsNotOurs(self) -> None:
        self.assertListenerRefuses("SWL_ADDRS", "192.0.2.1", "192.0.2.1", status=EX_UNAVAILABLE)


class ApiTests(TunnelCase):
    """400 with the reason, and nothing has changed."""

    def setUp(self) -> None:
        super().setUp()
        self.startBoth()
        self.good = {"uid": "uid-1", "port": freePort(), "connect_address": "127.0.0.1", "connect_port": 1}

    def assertBad(self, body: object, word: str, path: str = "/open", method: str = "POST") -> None:
        status, text = self.call(method, path, body)
        self.assertEqual((400, True), (status, word in text), f"{body!r}: {status} {text}")
        self.assertEqual((200, "[]"), self.call("GET", "/list"))

    def test_bodiesThatAreNotTheObjectAskedFor(self) -> None:
        for body, word in (("", "JSON"), ("{", "JSON"), ("[]", "object"), ("7", "object"), ("null", "object")):
            self.assertBad(body, word)
            self.assertBad(body, word, "/close", "DELETE")

    def test_fieldsThatAreMissingUnknownOrWrong(self) -> None:
        for name in self.good:
            self.assertBad({key: value for key, value in self.good.items() if key != name}, name)
        self.assertBad(self.good | {"prot": 1}, "prot")
        for name, value in (
            ("uid", 1),
            ("uid", ""),
            ("port", 0),
            ("port", 65536),
            ("port", "18080"),
            ("port", 1.5),
            ("port", True),
            ("connect_address", ""),
            ("connect_address", "a|b"),
            ("connect_port", -1),
        ):
            self.assertBad(self.good | {name: value}, name)
        self.assertBad({"port": None}, "port", "/close", "DELETE")

    def test_whatCannotBeDoneIsNamed(self) -> None:
        absent = self.call("POST", "/open", self.good | {"uid": "uid-2"})
        self.assertEqual((500, "No QUIC connection exists for the specified UID."), absent)
        taken = self.call("POST", "/open", self.good | {"port": self.api[1]})
        self.assertEqual((500, True), (taken[0], str(self.api[1]) in taken[1]))
        port = self.good["port"]
        self.assertEqual((404, f"Task {port} not found"), self.call("DELETE", "/close", {"port": port}))
        self.assertEqual(404, self.call("GET", "/nowhere")[0])
        self.assertEqual(405, self.call("GET", "/open")[0])


class PreambleTests(TunnelCase):
    """A listener that sends nonsense: plain aioquic, in place of ours."""

    def test_aMalformedPreambleResetsItsStreamAndTheSessionLivesOn(self) -> None:
        server = self.listen()
        good = f"1-2|127.0.0.1:{server.getsockname()[1]}".encode().ljust(1024, b"\0")
        bad = (b"no preamble".ljust(1024, b"\0"), b"\xff" * 1024, b"1-1|a|b:1".ljust(1024, b"\0"), bytes(1024))
        events: list[QuicEvent] = []

        async def listen() -> None:
            arrived = asyncio.Event()

            class Listener(QuicConnectionProtocol):
                def quic_event_received(self, event: QuicEvent) -> None:
                    events.append(event)
                    if isinstance(event, HandshakeCompleted):
                        for preamble in (*bad, good):
                            stream = self._quic.get_next_available_stream_id()
                            self._quic.send_stream_data(stream, preamble)
                    if isinstance(event, StreamDataReceived):
                        arrived.set()

            configuration = QuicConfiguration(is_client=False, alpn_protocols=["hq-29"])
            configuration.load_cert_chain(self.directory / "server.crt", self.directory / "server.key")
            listener = await serve("127.0.0.1", 0, configuration=configuration, create_protocol=Listener)
            assert listener._transport is not None
            self.settings["service_port"] = listener._transport.get_extra_info("sockname")[1]
            self.startConnector()
            target = await asyncio.to_thread(self.accept, server)
            target.sendall(b"the session lives")
            await asyncio.wait_for(arrived.wait(), PATIENCE)
            listener.close()

        asyncio.run(listen())
        for _ in bad:
            self.connector.waitFor("no connection for a stream", "malformed-preamble")
        resets = {event.stream_id for event in events if isinstance(event, StreamReset)}
        self.assertEqual({1, 5, 9, 13}, resets)
