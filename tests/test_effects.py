"""
Every setting has an effect: its value reaches what uses it, by whichever way it was given.

Each setting has an entry in a table here: a value, and who must be given it. Both ends are made and begun by their taps
with the setting and without it; what they were made of is compared. A new setting without an entry fails.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from shutil import copy
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from socketwarp import connector_tap, listener_tap, process
from socketwarp.connector import service as connector
from socketwarp.identity.pem import SettingFile
from socketwarp.listener import service as listener
from socketwarp.listener import verifier
from socketwarp.listener.api import make
from socketwarp.listener.connectors import Connectors
from socketwarp.listener.ports import Ports
from socketwarp.quic.endpoint import QuicServer
from socketwarp.settings import CommonSettings, ConnectorSettings, ListenerSettings, load, settingsOf
from socketwarp.tls import client as tls
from socketwarp.tls.server import TlsServer
from tests.certs import Authority, pem, writeFile
from tests.connector.fakes import TargetReactor
from tests.test_taps import TapTests

TOKENS = f'[[token]]\nname = "x"\nrole = "read"\nsha256 = "{"0" * 64}"\n'.encode()


@attrs.frozen
class Effect:
    """
    What a setting does.

    :ivar text: a value that isn't the default; ``{}`` is the directory of the test's files.
    :ivar users: who is given it: functions, classes and methods, see `EffectTests.setUp`.
    :ivar beside: other settings that it needs; they are there in both runs.
    """

    text: str
    users: tuple[str, ...]
    beside: Mapping[str, str] = attrs.field(factory=dict)

    @classmethod
    def on(cls, text: str, *users: str, **beside: str) -> "Effect":
        """In fewer words."""
        return cls(text, users, beside)


COMMON = {
    "logLevel": Effect.on("debug", "limitLog"),
    "logFormat": Effect.on("json", "limitLog"),
    "crlPaths": Effect.on("{}/other.crl", "loadCredentials", "FileWatch"),
    "crlExpired": Effect.on("warn", "loadCredentials"),
    "pollSeconds": Effect.on("7.5", "FileWatch"),
    "idleTimeout": Effect.on("77.5", "TransportSettings"),
    "keepAlive": Effect.on("7.5", "TransportSettings"),
    "handshakeTimeout": Effect.on("7.5", "TransportSettings"),
    "streamWindow": Effect.on("123456", "TransportSettings"),
    "sessionWindow": Effect.on("1234567", "TransportSettings"),
    "socketBuffer": Effect.on("123456", "TransportSettings"),
    "streamLimit": Effect.on("123", "TransportSettings"),
    "memoryBudget": Effect.on("123456789", "MemoryBudget"),
    "certPath": Effect.on("{}/other.crt", "loadCredentials", "FileWatch"),
    "keyPath": Effect.on("{}/other.key", "loadCredentials", "FileWatch"),
    "caPath": Effect.on("{}/other-ca.crt", "loadCredentials", "FileWatch"),
}
#: A connector that uses TLS only.
BY_TLS = {"SWC_CARRIER": "tls"}
#: The API's TLS, and what the SCEP server is called with, which need more than one setting to be there at all.
TLS = {"APIS_CERT_PATH": "{}/end.crt", "APIS_KEY_PATH": "{}/end.key"}
HTTPS = {"SWL_SCEP_URL": "https://127.0.0.1/verify"}
SHOWN = {"SWL_SCEP_CERT_PATH": "{}/end.crt", "SWL_SCEP_KEY_PATH": "{}/end.key"}
LISTENER = COMMON | {
    "idleTimeout": Effect.on("77.5", "TransportSettings", "TlsSettings", "Terms"),
    "keepAlive": Effect.on("7.5", "TransportSettings", "TlsSettings", "Terms"),
    "handshakeTimeout": Effect.on("7.5", "TransportSettings", "TlsSettings"),
    "streamLimit": Effect.on("123", "TransportSettings", "TlsSettings"),
    "drainSeconds": Effect.on("7.5", "drain", "stop"),
    "address": Effect.on("127.0.0.7", "listen"),
    "port": Effect.on("1234", "listen"),
    "tlsPort": Effect.on("1234", "listen"),
    "scepUrl": Effect.on("http://127.0.0.7/verify", "ScepVerifier"),
    "scepCaPath": Effect.on("{}/other-ca.crt", "scepAgent", "FileWatch", **HTTPS),
    "scepCertPath": Effect.on("{}/other.crt", "scepAgent", "FileWatch", **(HTTPS | SHOWN)),
    "scepKeyPath": Effect.on("{}/other.key", "scepAgent", "FileWatch", **(HTTPS | SHOWN)),
    "scepCacheSeconds": Effect.on("7.5", "ScepVerifier"),
    "uidSource": Effect.on("dns:.example.net", "uidSource", SWL_VERIFIER="local"),
    "accessPath": Effect.on("{}/access", "watchedAccess", SWL_VERIFIER="local"),
    "recheckSeconds": Effect.on("77.5", "RecheckPolicy"),
    "recheckGrace": Effect.on("77.5", "RecheckPolicy"),
    "stateDir": Effect.on("{}/other", "SqlitePortStore", "AuditLog"),
    "sharedUids": Effect.on("office", "Terms"),
    "parkSeconds": Effect.on("7.5", "Limits"),
    "allowPorts": Effect.on("18000-18099", "Ports"),
    "policyPath": Effect.on("{}/policy", "loadPolicy", "FileWatch"),
    "apiAddress": Effect.on("127.0.0.7", "listenTCP"),
    "apiPort": Effect.on("1234", "listenTCP"),
    "apiCertPath": Effect.on("{}/other.crt", "loadTls", "FileWatch", **TLS),
    "apiKeyPath": Effect.on("{}/other.key", "loadTls", "FileWatch", **TLS),
    "apiClientCaPath": Effect.on("{}/other-ca.crt", "loadTls", "FileWatch", **TLS),
    "apiCrlPaths": Effect.on("{}/other.crl", "loadTls", "FileWatch", APIS_CLIENT_CA_PATH="{}/other-ca.crt", **TLS),
    "apiTokensPath": Effect.on("{}/tokens", "loadTokens", "FileWatch"),
    "apiHosts": Effect.on("api.example.net", "Gate"),
}
CONNECTOR = COMMON | {
    "drainSeconds": Effect.on("7.5", "_drain"),
    "stateDir": Effect.on("{}/other", "Remembered"),
    "serverName": Effect.on("127.0.0.7", "_makeLink", "connect"),
    "port": Effect.on("1234", "connect"),
    "quicRetry": Effect.on("77.5", "trialBackoff"),
    "tlsPort": Effect.on("1234", "Attempts", **BY_TLS),
    "serverNames": Effect.on("127.0.0.7:1234", "_makeLink"),
    "allowTargets": Effect.on("10.0.0.0/8:22", "Policy"),
    "policyPath": Effect.on("{}/targets", "loadTargets", "FileWatch"),
    "dialTimeout": Effect.on("7.5", "Targets"),
    "dialLimit": Effect.on("123", "IncomingStreams"),
    "backoffBase": Effect.on("7.5", "Backoff"),
    "backoffCap": Effect.on("77.5", "Backoff"),
    "stableSeconds": Effect.on("77.5", "Link"),
}
#: The files of an end itself.
NEEDED = {"CERT": "end.crt", "KEY": "end.key", "CA": "ca.crt"}
#: Those that aren't a value for somebody, but decide: each has a test of its own.
DECISIONS = {"verifier", "apiUnauthenticated", "carrier", "proxy", "noProxy"}
TABLES: tuple[tuple[Any, type[CommonSettings], dict[str, Effect]], ...] = (  # Any: a module
    (listener_tap, ListenerSettings, LISTENER),
    (connector_tap, ConnectorSettings, CONNECTOR),
)


def texts(values: Iterable[object]) -> Iterator[str]:
    """What is in there, however it is wrapped, as text."""
    for value in values:
        if isinstance(value, tuple | list | frozenset):
            yield from texts(value)
        else:
            yield str(value.path) if isinstance(value, SettingFile) else str(value)


class EffectTests(TapTests):
    """
    Both ends with one setting changed.

    :ivar given: what each user was given since the last `begin`; ``begun``: how many ends were begun.
    """

    begun = 0

    def setUp(self) -> None:
        super().setUp()
        self.given: dict[str, list[object]] = {}
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.writeFiles(str(self.directory))
        for carrier in (QuicServer, TlsServer):
            self.patch(carrier, "listen", lambda server, interface, port: None)
            self.patch(carrier, "address", ("0.0.0.0", 11443))
        self.patch(connector, "connect", lambda *arguments: Deferred())
        self.patch(tls, "connect", self.connectTls)
        self.patch(connector, "dialSocket", lambda *arguments: Deferred())
        self.patch(connector, "dialThrough", lambda *arguments: Deferred())
        self.patch(connector, "Poll", lambda reactor: reactor)
        self.patch(make, "Gate", self.gate)
        for owner, names in (
            (process, "limitLog"),
            (listener, "loadCredentials FileWatch Terms TransportSettings RecheckPolicy SqlitePortStore MemoryBudget"),
            (listener, "Limits Ports loadPolicy AuditLog TlsSettings"),
            (verifier, "FileWatch scepAgent ScepVerifier LocalVerifier uidSource watchedAccess"),
            (make, "FileWatch loadTls loadTokens"),
            (QuicServer, "listen"),
            (TlsServer, "listen"),
            (Connectors, "drain"),
            (Ports, "stop"),
            (
                connector,
                "loadCredentials FileWatch TransportSettings MemoryBudget Policy loadTargets Targets IncomingStreams",
            ),
            (connector, "Backoff Link connect TlsSettings Attempts Remembered trialBackoff dialSocket dialThrough"),
            (connector.ConnectorService, "_makeLink _drain"),
        ):
            for name in names.split():
                self.watch(owner, name)

    def writeFiles(self, directory: str) -> None:
        """What paths lead to, some of it twice."""
        authority = Authority()
        paths = authority.server().write(directory)
        for source, name in ((paths.cert, "other.crt"), (paths.key, "other.key"), (paths.ca, "other-ca.crt")):
            copy(source, self.directory / name)
        for name, data in (
            ("tokens", TOKENS),
            ("policy", b"[[visitor]]"),
            ("access", b"allow uid-1"),
            ("targets", b"[[target]]\nhosts = ['*']"),
            ("other.crl", pem(authority.crl())),
        ):
            writeFile(directory, name, data)

    def watch(self, owner: Any, name: str) -> None:  # Any: a module or a class
        """Note what somebody is given."""
        original = getattr(owner, name)

        def noting(*arguments: object, **named: object) -> object:
            self.given.setdefault(name, []).extend((*arguments, *named.values()))
            return original(*arguments, **named)

        self.patch(owner, name, noting)

    def gate(self, tokens: object, names: Any) -> object:  # Any: a function
        """The API's gate, which is given names by a function."""
        self.given["Gate"] = list(names())
        return None

    def begin(self, tap: Any, environment: Mapping[str, str]) -> None:  # Any: a module
        """Make an end, start it as far as it goes without the network, and stop it."""
        self.given = {}
        self.reactor.tcpServers.clear()
        os.environ.clear()
        os.environ.update(self.environment(tap, environment))
        options = tap.Options()
        options.parseOptions([])
        if tap is listener_tap:
            [service] = tap.makeService(options, self.reactor)
            service.privilegedStartService()
            self.given["listenTCP"] = list(self.reactor.tcpServers)
        else:
            [service] = tap.makeService(options, TargetReactor())
            service.startService()
        service.stopService()

    def environment(self, tap: Any, changes: Mapping[str, str]) -> dict[str, str]:  # Any: as above
        """What an end needs, and the changes."""
        prefix = "SWL" if tap is listener_tap else "SWC"
        self.begun += 1  # nobody waits until an end has let go of its state
        needed = {f"{prefix}_{name}_PATH": f"{{}}/{file}" for name, file in NEEDED.items()}
        needed |= {"SWC_SERVER_NAME": "127.0.0.1", f"{prefix}_STATE_DIR": f"{{}}/state{self.begun}", **changes}
        return {name: text.format(self.directory) for name, text in needed.items()}

    def test_everySettingHasAnEntry(self) -> None:
        """Whoever adds a setting says here what it does; whoever removes one, removes it here."""
        for _, kind, table in TABLES:
            self.assertEqual(set(settingsOf(kind)), set(table) | (DECISIONS & set(settingsOf(kind))))

    def test_everyValueReachesWhatUsesIt(self) -> None:
        """It is there with the setting, and isn't there without."""
        for tap, kind, table in TABLES:
            for field, effect in table.items():
                variable = settingsOf(kind)[field].environment
                self.begin(tap, effect.beside)
                without = self.given
                self.begin(tap, {**effect.beside, variable: effect.text})
                value = getattr(load(kind, {}, os.environ), field)
                for user in effect.users:
                    wanted = set(texts([value]))
                    self.assertTrue(wanted, variable)
                    self.assertFalse(wanted & set(texts(without.get(user, ()))), f"{variable}: {user}, left out")
                    self.assertLessEqual(wanted, set(texts(self.given.get(user, ()))), f"{variable}: {user}, given")

    def test_everyWayOfGivingItIsTheSame(self) -> None:
        """A flag, a variable and a line of a settings file."""
        for tap, kind, table in TABLES:
            for field, effect in table.items():
                names = settingsOf(kind)[field]
                text = effect.text.format(self.directory)
                others = self.environment(tap, effect.beside)
                file = self.directory / "settings.toml"
                isText = str in names.kind.native or list in names.kind.native
                file.write_text(f"{names.key} = {text!r}\n" if isText else f"{names.key} = {text}\n")
                byVariable = load(kind, {}, {**others, names.environment: text})
                others.pop(names.environment, None)
                self.assertEqual(byVariable, load(kind, {names.flag: text}, others))
                self.assertEqual(byVariable, load(kind, {"config": str(file)}, others))

    def test_theVerifierIsTheOneThatIsNamed(self) -> None:
        for name, made in (("local", "LocalVerifier"), ("scep", "ScepVerifier")):
            self.begin(listener_tap, {"SWL_VERIFIER": name})
            self.assertEqual({made}, {"LocalVerifier", "ScepVerifier"} & set(self.given))

    def test_theApiListensForEverybodyOnlyWhenToldSo(self) -> None:
        self.begin(listener_tap, {"APIS_ADDRS": "0.0.0.0", "APIS_ALLOW_UNAUTHENTICATED": "1"})
        self.assertIn("0.0.0.0", set(texts(self.given["listenTCP"])))
        status, _ = self.fails(lambda: self.begin(listener_tap, {"APIS_ADDRS": "0.0.0.0"}))
        self.assertEqual(78, status)

    def connectTls(self, poll: object, clock: object, dial: Callable[[], object], *others: object) -> Deferred[object]:
        """The carrier TLS, which makes a connection at least."""
        self.given["connectTls"] = list(others)
        dial()
        return Deferred()

    def dials(self, **environment: str) -> set[str]:
        """Which of the two ways to a TCP connection a connector goes."""
        self.begin(connector_tap, environment)
        return {"dialSocket", "dialThrough"} & set(self.given)

    def test_theCarrierIsTheOneThatIsNamed(self) -> None:
        """Alone; ``auto`` begins with QUIC."""
        for name, used in (("quic", {"connect"}), ("tls", {"connectTls"}), ("auto", {"connect"})):
            self.begin(connector_tap, {"SWC_CARRIER": name})
            self.assertEqual(used, {"connect", "connectTls"} & set(self.given), name)
            self.assertEqual(2 if name == "auto" else 1, len(self.attemptsMade()), name)

    def attemptsMade(self) -> list[object]:
        """By how many carriers attempts may be made."""
        return [each for each in self.given["Attempts"] if isinstance(each, int)]

    def test_theTransportOfTlsIsTold(self) -> None:
        for variable, value in (
            ("SWC_IDLE_SECONDS", 77.5),
            ("SWC_KEEPALIVE_SECONDS", 7.5),
            ("SWC_HANDSHAKE_SECONDS", 8.5),
            ("SWC_STREAM_LIMIT", 123),
        ):
            self.begin(connector_tap, {**BY_TLS, variable: str(value)})
            self.assertIn(value, self.given["TlsSettings"], variable)

    def test_theProxyIsOnTheWay(self) -> None:
        """With who we are there; it, and not the listener, is connected to, by TLS alone."""
        self.assertEqual({"dialThrough"}, self.dials(SWC_PROXY="http://me:x@127.0.0.7:3128"))
        self.assertEqual(("127.0.0.7", 3128), self.given["dialThrough"][2])
        self.assertEqual([("127.0.0.1", 11443), "me:x"], self.given["dialThrough"][3:5])
        self.assertNotIn("connect", self.given)

    def test_whoIsExemptIsReachedWithoutIt(self) -> None:
        proxy = {"SWC_PROXY": "http://127.0.0.7:3128", **BY_TLS}
        self.assertEqual({"dialSocket"}, self.dials(SWC_NO_PROXY="127.0.0.0/8", **proxy))
        self.assertEqual({"dialThrough"}, self.dials(SWC_NO_PROXY="127.0.0.2", **proxy))

    def test_aSecretIsInAFileOrTheEnvironment(self) -> None:
        """Never on a command line: its option names a file, as does its second variable."""
        secrets = [names for _, kind, _ in TABLES for names in settingsOf(kind).values() if names.secret]
        self.assertEqual(["proxy-file"], [names.flag for names in secrets])
        file = self.directory / "secret"
        file.write_text("http://me:x@127.0.0.7:3128\n")
        others = self.environment(connector_tap, {})
        given = load(ConnectorSettings, {}, {**others, "SWC_PROXY": "http://me:x@127.0.0.7:3128"})
        self.assertEqual(given, load(ConnectorSettings, {"proxy-file": str(file)}, others))
        self.assertEqual(given, load(ConnectorSettings, {}, {**others, "SWC_PROXY_FILE": str(file)}))
