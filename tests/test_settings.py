"""Settings: where each comes from, what it may be, and the line that says what is wrong with it."""

import json
import os
from pathlib import Path
from typing import ClassVar

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.errors import ConfigurationError
from socketwarp.settings import (
    CommonSettings,
    ConnectorSettings,
    Effective,
    ListenerName,
    ListenerSettings,
    PortRange,
    Proxy,
    effective,
    load,
    parsePortRanges,
    parseTargetRules,
    settingsOf,
)
from socketwarp.settings._fields import setting
from socketwarp.settings._kinds import PROXY, WORDS, Kind
from socketwarp.settings._proxy import isExempt, parseExempt
from socketwarp.settings._rules import parseListeners

SETTINGS_JSON = {
    "client_cert_path": "swc.crt",
    "client_key_path": "swc.key",
    "ca_cert_path": "ca.crt",
    "server_name": "listener.example.net",
    "service_port": 11443,
}


class SettingsTests(SynchronousTestCase):
    """What the test cases share."""

    def file(self, content: object, name: str = "settings.json") -> str:
        """A settings file's path."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        path = directory / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(path)

    def connector(self, content: object = SETTINGS_JSON, **environment: str) -> ConnectorSettings:
        return load(ConnectorSettings, {}, {"SWC_SETTINGS": self.file(content), **environment})

    def refusal(self, content: object = SETTINGS_JSON, **environment: str) -> str:
        """The one line with which the connector's settings are refused."""
        with self.assertRaises(ConfigurationError) as caught:
            self.connector(content, **environment)
        return self.oneLine(caught.exception)

    def listenerRefusal(self, **environment: str) -> str:
        """The one line with which the listener's settings are refused."""
        with self.assertRaises(ConfigurationError) as caught:
            load(ListenerSettings, {}, environment)
        return self.oneLine(caught.exception)

    def oneLine(self, error: Exception) -> str:
        self.assertNotIn("\n", str(error))
        return str(error)


class TheOriginalsSettings(SettingsTests):
    """A replacement reads what the original read."""

    def test_listenerDefaults(self) -> None:
        """An empty environment gives the original's defaults, but for the API's address."""
        settings = load(ListenerSettings, {}, {})
        self.assertEqual(settings.certPath, Path("../Certs_and_Key/test/server.crt").absolute())
        self.assertEqual(settings.keyPath, Path("../Certs_and_Key/test/server.key").absolute())
        self.assertEqual(settings.caPath, Path("../Certs_and_Key/test/ca.crt").absolute())
        self.assertEqual((settings.address, settings.port), ("0.0.0.0", 11443))
        self.assertEqual((settings.apiAddress, settings.apiPort), ("127.0.0.1", 8080))
        self.assertEqual((settings.verifier, settings.scepUrl), ("scep", "http://127.0.0.1:3000/api/cert/verify"))
        self.assertEqual(settings.logLevel, "info")

    def test_listenerEnvironment(self) -> None:
        """Each of the original's variables is read."""
        settings = load(
            ListenerSettings,
            {},
            {
                "SWL_CERT_PATH": "/c",
                "SWL_KEY_PATH": "/k",
                "SWL_CA_PATH": "/a",
                "SWL_ADDRS": "::",
                "SWL_PORT": "0",
                "SWL_SCEP_URL": "https://scep.example.net/verify",
                "APIS_ADDRS": "::1",
                "APIS_PORT": "65535",
                "SWL_LOG_LEVEL": "WARN",
            },
        )
        self.assertEqual((settings.certPath, settings.keyPath, settings.caPath), (Path("/c"), Path("/k"), Path("/a")))
        self.assertEqual((settings.address, settings.port), ("::", 0))
        self.assertEqual((settings.apiAddress, settings.apiPort), ("::1", 65535))
        self.assertEqual((settings.scepUrl, settings.logLevel), ("https://scep.example.net/verify", "warn"))

    def test_settingsJson(self) -> None:
        """Each of the original's keys is read."""
        settings = self.connector()
        self.assertEqual(settings.certPath, Path("swc.crt").absolute())
        self.assertEqual(settings.keyPath, Path("swc.key").absolute())
        self.assertEqual(settings.caPath, Path("ca.crt").absolute())
        self.assertEqual((settings.serverName, settings.port), ("listener.example.net", 11443))

    def test_settingsJsonIsReadInTheWorkingDirectory(self) -> None:
        """Nobody needs to name it."""
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(Path(self.file(SETTINGS_JSON)).parent)
        self.assertEqual(load(ConnectorSettings, {}, {}).serverName, "listener.example.net")

    def test_noFileIsNeededWhenAllIsSaidElsewhere(self) -> None:
        """Without settings.json, environment and flags are enough."""
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.mkdir(directory := self.mktemp())
        os.chdir(directory)
        settings = load(
            ConnectorSettings,
            {"server-name": "192.0.2.1"},
            {"SWC_CERT_PATH": "/c", "SWC_KEY_PATH": "/k", "SWC_CA_PATH": "/a"},
        )
        self.assertEqual((settings.serverName, settings.port), ("192.0.2.1", 11443))
        with self.assertRaises(ConfigurationError) as caught:
            load(ConnectorSettings, {}, {})
        line = self.oneLine(caught.exception)
        self.assertIn("client_cert_path: not set", line)
        self.assertIn(
            f"{Path('settings.json').absolute()} doesn't exist: start in its directory, set SWC_SETTINGS", line
        )


class Precedence(SettingsTests):
    """Flag before environment before file before default, and each can say where it came from."""

    def test_order(self) -> None:
        """One setting given in all places, taken away from the strongest on."""
        environment = {"SWC_SETTINGS": self.file(SETTINGS_JSON | {"service_port": 3}), "SWC_PORT": "2"}
        self.assertEqual(load(ConnectorSettings, {"port": "1"}, environment).port, 1)
        self.assertEqual(load(ConnectorSettings, {"port": None}, environment).port, 2)
        del environment["SWC_PORT"]
        self.assertEqual(load(ConnectorSettings, {}, environment).port, 3)

    def test_theConfigFlagGoesBeforeItsVariable(self) -> None:
        """``--config`` names the file, whatever SWC_SETTINGS says."""
        flags = {"config": self.file(SETTINGS_JSON)}
        self.assertEqual(load(ConnectorSettings, flags, {"SWC_SETTINGS": "/nowhere"}).port, 11443)

    def test_toml(self) -> None:
        """A file whose name says so is TOML; it can hold every setting of either end."""
        path = self.file('port = 4433\nallow_ports = ["8080", "18000-18999"]\nidle_seconds = 30\n', "listener.toml")
        settings = load(ListenerSettings, {"config": path}, {})
        self.assertEqual(settings.port, 4433)
        self.assertEqual(settings.allowPorts, (PortRange(8080, 8080), PortRange(18000, 18999)))
        self.assertEqual(settings.idleTimeout, 30.0)

    def test_effectiveNamesTheSources(self) -> None:
        """Each setting with its value and where it came from, by the name that its source gives it."""
        path = self.file(SETTINGS_JSON)
        listed = effective(
            ConnectorSettings,
            {"dial-limit": "7"},
            {"SWC_SETTINGS": path, "SWC_ALLOW_TARGETS": "10.0.0.0/8:22 [2001:db8::/32]:80-81,*.example.net"},
        )
        self.assertIn(Effective("dialLimit", "--dial-limit", "7", "flag"), listed)
        self.assertIn(Effective("port", "service_port", "11443", path), listed)
        self.assertIn(Effective("dialTimeout", "SWC_DIAL_SECONDS", "10.0", "default"), listed)
        targets = "10.0.0.0/8:22,[2001:db8::/32]:80-81,*.example.net:*"
        self.assertIn(Effective("allowTargets", "SWC_ALLOW_TARGETS", targets, "environment"), listed)
        self.assertEqual(len(listed), len(attrs.fields(ConnectorSettings)))

    def test_everySettingHasItsOwnNames(self) -> None:
        """No two settings of an end share a variable, a flag or a key."""
        for kind in (ListenerSettings, ConnectorSettings):
            settings = settingsOf(kind).values()
            for name in ("environment", "flag", "key"):
                self.assertEqual(len({getattr(each, name) for each in settings}), len(settings))

    def test_secretsAreMasked(self) -> None:
        """Neither a listing nor an error shows a secret."""

        def parse(value: object) -> str:
            if value == "wrong":
                raise ValueError
            return str(value)

        @attrs.frozen(kw_only=True)
        class Secretive(CommonSettings):
            prefix: ClassVar[str] = "X"
            password: str = setting(Kind("a good one", (str,), parse), "X_PASSWORD", "password", "secret", secret=True)

        listed = effective(Secretive, {}, {"X_PASSWORD": "open sesame"})
        self.assertIn(Effective("password", "X_PASSWORD", "********", "environment"), listed)
        self.assertNotIn("sesame", str(listed))
        with self.assertRaises(ConfigurationError) as caught:
            load(Secretive, {}, {"X_PASSWORD": "wrong"})
        self.assertEqual(str(caught.exception), "X_PASSWORD: ******** is not a good one")

    def test_aSecretInThePlaceOfItsFileIsMasked(self) -> None:
        """A log is read by more people than a command line."""
        needed = {name: "x" for name in ("SWC_CERT_PATH", "SWC_KEY_PATH", "SWC_CA_PATH", "SWC_SERVER_NAME")}
        for flags, environment in (
            ({"proxy-file": "http://me:sesame@h:1"}, needed),
            ({}, needed | {"SWC_PROXY_FILE": "http://me:sesame@h:1"}),
        ):
            with self.assertRaises(ConfigurationError) as caught:
                load(ConnectorSettings, flags, environment)
            self.assertIn("******** is no file: put it into one", str(caught.exception))
            self.assertNotIn("sesame", str(caught.exception))


class BadSettings(SettingsTests):
    """One line: the setting by its user's name, the value, the remedy."""

    def test_ports(self) -> None:
        """Whole numbers from 0 to 65535, written plainly."""
        for text in ("abc", "-1", "65536", "1.5", "1_0", "٣", "0x10", "9" * 30):
            self.assertEqual(
                self.listenerRefusal(SWL_PORT=text), f"SWL_PORT: {text!r} is not a port number from 0 to 65535"
            )

    def test_durations(self) -> None:
        """Finite, and more than nothing."""
        for text in ("0", "-1", "nan", "inf", "soon"):
            line = self.listenerRefusal(SWL_IDLE_SECONDS=text)
            self.assertEqual(line, f"SWL_IDLE_SECONDS: {text!r} is not a number of seconds greater than 0")

    def test_durationsThatMayBeNothing(self) -> None:
        """0 is a duration there, and what is less isn't."""
        settings = load(ListenerSettings, {}, {"SWL_RECHECK_GRACE_SECONDS": "0", "SWL_SCEP_CACHE_SECONDS": "0"})
        self.assertEqual((settings.recheckGrace, settings.scepCacheSeconds), (0.0, 0.0))
        line = self.listenerRefusal(SWL_RECHECK_GRACE_SECONDS="-1")
        self.assertEqual(line, "SWL_RECHECK_GRACE_SECONDS: '-1' is not a number of seconds, 0 or more")

    def test_memory(self) -> None:
        """0 is no budget; what only megabytes could mean isn't one either."""
        self.assertEqual(2**30, load(ListenerSettings, {}, {}).memoryBudget)
        for budget in (0, 2**24, 2**40):
            self.assertEqual(budget, load(ListenerSettings, {}, {"SWL_MEMORY_BUDGET": str(budget)}).memoryBudget)
        for text in ("512", "1G", "-1", str(2**40 + 1)):
            self.assertEqual(
                self.listenerRefusal(SWL_MEMORY_BUDGET=text),
                f"SWL_MEMORY_BUDGET: {text!r} is not 0 (none), or a number of bytes from 16777216 to 1099511627776",
            )

    def test_addresses(self) -> None:
        """IP addresses, not names."""
        for text in ("localhost", "256.0.0.1", "[::]", "1.2.3.4:80"):
            self.assertIn(f"SWL_ADDRS: {text!r} is not an IP address", self.listenerRefusal(SWL_ADDRS=text))

    def test_choices(self) -> None:
        """Words that we know."""
        self.assertIn("one of scep, local", self.listenerRefusal(SWL_VERIFIER="none"))
        self.assertIn("one of error, warn, info, debug", self.listenerRefusal(SWL_LOG_LEVEL="loud"))

    def test_urls(self) -> None:
        """http or https, with a host, without a password."""
        for text in ("scep.example.net", "ftp://host/", "http://", "http://host:99999/", "http://host:0/"):
            self.assertIn("is not a http or https URL", self.listenerRefusal(SWL_SCEP_URL=text))
        self.assertIn("a password doesn't belong", self.listenerRefusal(SWL_SCEP_URL="http://me:secret@host/"))

    def test_emptyIsNotUnset(self) -> None:
        """A variable that is set to nothing is a mistake, and one that could open a door."""
        self.assertIn("SWC_ALLOW_TARGETS: '' is empty", self.refusal(SWC_ALLOW_TARGETS=""))
        self.assertIn("SWC_PORT: ' ' is empty", self.refusal(SWC_PORT=" "))
        self.assertIn('server_name: "" is empty', self.refusal(SETTINGS_JSON | {"server_name": ""}))

    def test_hosts(self) -> None:
        """A name or an address, nothing around it."""
        self.assertEqual(self.connector(SETTINGS_JSON | {"server_name": "[::1]"}).serverName, "::1")
        for text in ("a/b", "me@host", "two words", "x" * 254, "a\u200bb"):
            self.assertIn("without a port", self.refusal(SETTINGS_JSON | {"server_name": text}))

    def test_paths(self) -> None:
        """A path is absolute from the start, whatever directory the process changes to."""
        self.assertTrue(self.connector().certPath.is_absolute())
        self.assertIn("is not a path", self.refusal(SETTINGS_JSON | {"ca_cert_path": "a\0b"}))

    def test_listsOfPaths(self) -> None:
        """Separated by colons, or a list in a file."""
        self.assertEqual(self.connector(SWC_CRL_PATHS="/a:/b").crlPaths, (Path("/a"), Path("/b")))
        self.assertEqual(self.connector(SETTINGS_JSON | {"crl_paths": ["/a"]}).crlPaths, (Path("/a"),))
        self.assertIn("is not a list of paths", self.refusal(SWC_CRL_PATHS="/a::/b"))

    def test_truth(self) -> None:
        """1 or 0, and the words for them."""
        for text, truth in (("1", True), ("no", False), ("TRUE", True)):
            settings = load(ListenerSettings, {}, {"APIS_ALLOW_UNAUTHENTICATED": text})
            self.assertIs(settings.apiUnauthenticated, truth)
        self.assertIn("is not 1 (yes) or 0 (no)", self.listenerRefusal(APIS_ALLOW_UNAUTHENTICATED="maybe"))

    def test_flagsAreNamedAsFlags(self) -> None:
        """The user's own name for it."""
        with self.assertRaises(ConfigurationError) as caught:
            load(ListenerSettings, {"port": "x"}, {"SWL_PORT": "1"})
        self.assertEqual(str(caught.exception), "--port: 'x' is not a port number from 0 to 65535")


class BadFiles(SettingsTests):
    """What settings.json may hold."""

    def test_unknownKeys(self) -> None:
        """A misspelt key is an error, and the right ones are shown."""
        line = self.refusal(SETTINGS_JSON | {"sever_name": "x"})
        self.assertIn("'sever_name' is no setting", line)
        self.assertIn("server_name", line)

    def test_wrongTypes(self) -> None:
        """JSON has types, so text is no number and no number is text."""
        for key, value, words in (
            ("service_port", "11443", "a whole number"),
            ("service_port", True, "a whole number"),
            ("service_port", 1.0, "a whole number"),
            ("service_port", None, "a whole number"),
            ("server_name", 5, "text"),
            ("client_cert_path", ["a"], "text"),
            ("dial_seconds", "1", "a whole number or a number"),
            ("allow_targets", {"a": 1}, "text or a list"),
        ):
            line = self.refusal(SETTINGS_JSON | {key: value})
            self.assertIn(f"settings.json: {key}: {json.dumps(value)} must be {words}", line)

    def test_wrongValues(self) -> None:
        """The file, the key, the value and the remedy."""
        line = self.refusal(SETTINGS_JSON | {"service_port": 70000})
        self.assertTrue(line.endswith("settings.json: service_port: 70000 is not a port number from 0 to 65535"), line)

    def test_missingKeys(self) -> None:
        """What has no default must be there; the other ways of saying it are named."""
        line = self.refusal({key: value for key, value in SETTINGS_JSON.items() if key != "server_name"})
        self.assertIn("server_name: not set", line)
        self.assertIn("SWC_SERVER_NAME", line)
        self.assertIn("--server-name", line)

    def test_aKeyTwice(self) -> None:
        """Which of the two was meant, nobody knows; JSON and TOML alike."""
        twice = json.dumps(SETTINGS_JSON)[:-1] + ', "service_port": 443}'
        self.assertIn("settings.json: not JSON: 'service_port' is there more than once", self.refusal(twice))
        path = self.file("port = 1\nport = 2\n", "listener.toml")
        error = self.assertRaises(ConfigurationError, load, ListenerSettings, {"config": path}, {})
        self.assertIn("not TOML", str(error))

    def test_notJson(self) -> None:
        """The parser's own words say where."""
        self.assertIn("not JSON: Expecting", self.refusal('{"a": '))
        self.assertIn("must be one object", self.refusal("[]"))
        self.assertIn("not JSON", self.refusal("[" * 100_000))
        with self.assertRaises(ConfigurationError) as caught:
            load(ListenerSettings, {"config": self.file("a = ", "x.toml")}, {})
        self.assertIn("not TOML", self.oneLine(caught.exception))

    def test_notAFile(self) -> None:
        """Whoever names a file means it."""
        line = self.listenerRefusal(SWL_SETTINGS="/nowhere/at/all.json")
        self.assertEqual(line, "SWL_SETTINGS: '/nowhere/at/all.json': no such file: create it, or name another")
        self.assertIn("can't be read: Is a directory", self.listenerRefusal(SWL_SETTINGS="/"))
        self.assertEqual(
            "SWL_SETTINGS: '' is empty: name a file, or leave it out", self.listenerRefusal(SWL_SETTINGS="")
        )
        with self.assertRaises(ConfigurationError) as caught:
            load(ListenerSettings, {"config": "/nowhere"}, {})
        self.assertIn("--config: '/nowhere'", self.oneLine(caught.exception))

    def test_endlessFiles(self) -> None:
        """A device is not read to its end."""
        self.assertIn("this is no settings file", self.listenerRefusal(SWL_SETTINGS="/dev/zero"))


class TheApisAddress(SettingsTests):
    """An API without authentication stays on this host."""

    def test_loopbackIsFine(self) -> None:
        """All of it."""
        for address in ("127.0.0.1", "127.8.8.8", "::1"):
            self.assertEqual(load(ListenerSettings, {}, {"APIS_ADDRS": address}).apiAddress, address)

    def test_othersAreRefusedWithTheWaysOut(self) -> None:
        """Including the original's default."""
        for address in ("0.0.0.0", "::", "192.0.2.1"):
            line = self.listenerRefusal(APIS_ADDRS=address)
            for part in ("APIS_ADDRS", repr(address), "127.0.0.1", "APIS_ALLOW_UNAUTHENTICATED=1"):
                self.assertIn(part, line)

    def test_tlsAndAuthenticationTogetherAreFine(self) -> None:
        """Either kind of authentication."""
        tls = {"APIS_ADDRS": "0.0.0.0", "APIS_CERT_PATH": "api.crt", "APIS_KEY_PATH": "api.key"}
        for name in ("APIS_CLIENT_CA_PATH", "APIS_TOKENS_FILE"):
            self.assertEqual("0.0.0.0", load(ListenerSettings, {}, tls | {name: "x"}).apiAddress)
        self.assertIn("no authentication", self.listenerRefusal(**tls))
        line = self.listenerRefusal(APIS_ADDRS="0.0.0.0", APIS_TOKENS_FILE="x")
        self.assertIn("no TLS", line)
        self.assertNotIn("no authentication", line)

    def test_aVariableNamesTheFile(self) -> None:
        """TOML by its name, JSON else; the option goes before."""
        toml, other = Path(self.mktemp()).with_suffix(".toml"), self.file({"port": 2})
        toml.write_text("port = 1\n")
        for flags, port in (({}, 1), ({"config": other}, 2)):
            self.assertEqual(port, load(ListenerSettings, flags, {"SWL_SETTINGS": str(toml)}).port)

    def test_halfOfTlsIsRefused(self) -> None:
        """On loopback, too: somebody relies on it."""
        self.assertIn("go together", self.listenerRefusal(APIS_CERT_PATH="api.crt"))
        self.assertIn("go together", self.listenerRefusal(APIS_KEY_PATH="api.key"))
        self.assertIn("APIS_CLIENT_CA_PATH", self.listenerRefusal(APIS_CLIENT_CA_PATH="ca.crt"))
        self.assertIn("revokes nothing", self.listenerRefusal(APIS_CRL_PATHS="a.crl"))

    def test_theExplicitException(self) -> None:
        """Only by saying so."""
        environment = {"APIS_ADDRS": "0.0.0.0", "APIS_ALLOW_UNAUTHENTICATED": "1"}
        self.assertEqual(load(ListenerSettings, {}, environment).apiAddress, "0.0.0.0")


class TheStateDirectory(SettingsTests):
    """systemd's, else the XDG base directory's, unless it is set."""

    def test_order(self) -> None:
        """From the strongest on."""
        environment = {
            "SWL_STATE_DIR": "/set",
            "STATE_DIRECTORY": "/systemd:/second",
            "XDG_STATE_HOME": "/xdg",
            "HOME": "/home/me",
        }
        for name, expected in (
            ("SWL_STATE_DIR", "/set"),
            ("STATE_DIRECTORY", "/systemd"),
            ("XDG_STATE_HOME", "/xdg/socketwarp"),
            ("HOME", "/home/me/.local/state/socketwarp"),
        ):
            self.assertEqual(load(ListenerSettings, {}, environment).stateDir, Path(expected))
            del environment[name]

    def test_theConnectorsIsFoundTheSameWay(self) -> None:
        """It keeps something, too."""
        self.assertEqual(Path("/set"), self.connector(SWC_STATE_DIR="/set", STATE_DIRECTORY="/systemd").stateDir)
        self.assertEqual(Path("/systemd"), self.connector(STATE_DIRECTORY="/systemd").stateDir)

    def test_settingsMadeByHandHaveOneToo(self) -> None:
        """From the process's own environment."""
        self.patch(os, "environ", {"STATE_DIRECTORY": "/systemd"})
        self.assertEqual(ListenerSettings().stateDir, Path("/systemd"))


class TheCarriersSettings(SettingsTests):
    """What carries sessions, and what they pass."""

    def test_ports(self) -> None:
        """TLS has the number of QUIC unless it is told another; a listener's own is that of both."""
        own, other = ListenerName("a", 1), ListenerName("b")
        self.assertEqual([(1, 1), (11443, 11443)], [self.connector().portsOf(each) for each in (own, other)])
        settings = self.connector(SWC_TLS_PORT="443")
        self.assertEqual([(1, 1), (11443, 443)], [settings.portsOf(each) for each in (own, other)])
        self.assertIn("SWC_TLS_PORT: '0' is not a port number from 1", self.refusal(SWC_TLS_PORT="0"))

    def test_listeners(self) -> None:
        settings = self.connector(SWC_SERVER_NAMES="b:1")
        self.assertEqual((ListenerName("listener.example.net"), ListenerName("b", 1)), settings.listeners)

    def test_carriers(self) -> None:
        self.assertEqual("auto", self.connector().carrier)
        self.assertEqual("tls", self.connector(SWC_CARRIER="TLS").carrier)
        self.assertIn("one of quic, tls, auto", self.refusal(SWC_CARRIER="tcp"))

    def test_proxies(self) -> None:
        """Host and port, and who we are, percent-encoded."""
        for text, proxy in (
            ("http://proxy.example.net:3128", Proxy("proxy.example.net", 3128)),
            ("http://proxy/", Proxy("proxy", 80)),
            ("HTTP://[2001:db8::1]:8080", Proxy("2001:db8::1", 8080)),
            ("http://me@proxy:1", Proxy("proxy", 1, "me:")),
            ("http://d%5Cme:a%40b%3ac%25@proxy:1", Proxy("proxy", 1, "d\\me:a@b:c%")),
            ("http://me:gr%C3%BC%C3%9Fe@proxy:1", Proxy("proxy", 1, "me:gr\u00fc\u00dfe")),
        ):
            self.assertEqual(proxy, PROXY(text))
            self.assertNotIn("a@b", f"{PROXY(text)} {PROXY(text)!r}")
        self.assertEqual("http://[2001:db8::1]:80", str(Proxy("2001:db8::1", 80, "me:secret")))

    def test_whatIsNoProxy(self) -> None:
        """One line that shows no password."""
        for text, words in (
            ("https://me:sesame@proxy:1", "the scheme has to be http"),
            ("socks5://proxy:1080", "the scheme has to be http"),
            ("proxy:3128", "the scheme has to be http"),
            ("http://", "nothing but user"),
            ("http://proxy:0", "nothing but user"),
            ("http://me:sesame@proxy/path", "nothing but user"),
            ("http://proxy?x", "nothing but user"),
            ("http://proxy:99999", "host or port can't be read"),
            ("http://[x:1", "host or port can't be read"),
            ("http://:sesame@proxy", "a password without a user"),
            ("http://me:100%sesame@proxy", "written %25"),
            ("http://a%3Ab:sesame@proxy", "no colon"),
            ("http://me:sesame%0d%0aX:1@proxy", "control characters"),
            ("http://me:sesame%ff@proxy", "is not an HTTP proxy"),
        ):
            line = self.refusal(SWC_PROXY=text)
            self.assertIn(words, line)
            self.assertTrue(line.startswith("SWC_PROXY: ******** is not an HTTP proxy, such as"), line)
            self.assertNotIn("sesame", line)

    def test_fromAFile(self) -> None:
        """Whose name others may see; the URL is nowhere on a command line."""
        path = self.file("http://me:sesame@proxy:3128\n", "proxy")
        expected = Proxy("proxy", 3128, "me:sesame")
        self.assertEqual(expected, self.connector(SWC_PROXY_FILE=path).proxy)
        flags = {"proxy-file": path}
        environment = {"SWC_SETTINGS": self.file(SETTINGS_JSON), "SWC_PROXY": "http://other"}
        self.assertEqual(expected, load(ConnectorSettings, flags, environment).proxy)
        self.assertEqual(expected, self.connector(SETTINGS_JSON | {"proxy": "http://me:sesame@proxy:3128"}).proxy)
        listed = effective(ConnectorSettings, flags, environment)
        self.assertIn(Effective("proxy", "--proxy-file", "********", "flag"), listed)
        without = effective(ConnectorSettings, {}, {"SWC_SETTINGS": environment["SWC_SETTINGS"]})
        self.assertIn(Effective("proxy", "SWC_PROXY", "", "default"), without)

    def test_aFileThatHasNone(self) -> None:
        for content, words in (
            ("", "is empty: put an HTTP proxy"),
            ("ftp://sesame", ": ******** is not an HTTP proxy"),
        ):
            line = self.refusal(SWC_PROXY_FILE=self.file(content, "proxy"))
            self.assertTrue(line.startswith("SWC_PROXY_FILE: "), line)
            self.assertIn(words, line)
            self.assertNotIn("sesame", line)
        self.assertIn("can't be read: No such file", self.refusal(SWC_PROXY_FILE="/nowhere"))
        self.assertIn("can't be read: it is no text", self.refusal(SWC_PROXY_FILE=self.binary()))
        line = self.refusal(SWC_PROXY_FILE="/x", SWC_PROXY="http://proxy")
        self.assertEqual("SWC_PROXY, SWC_PROXY_FILE: both are set: leave one of them out", line)

    def binary(self) -> str:
        """A file's path."""
        path = self.file("", "proxy")
        Path(path).write_bytes(b"\xff")
        return path

    def test_otherProgramsVariables(self) -> None:
        """Count when nobody has told us, the smaller letters first; one that is empty doesn't."""
        both = {"https_proxy": "http://small:1", "HTTPS_PROXY": "http://large:1"}
        self.assertEqual(Proxy("small", 1), self.connector(**both).proxy)
        self.assertEqual(Proxy("large", 1), self.connector(**(both | {"https_proxy": " "})).proxy)
        self.assertEqual(Proxy("own", 80), self.connector(SWC_PROXY="http://own", **both).proxy)
        self.assertEqual(Proxy("own", 80), self.connector(SETTINGS_JSON | {"proxy": "http://own"}, **both).proxy)
        listed = effective(ConnectorSettings, {}, {"SWC_SETTINGS": self.file(SETTINGS_JSON), **both})
        self.assertIn(Effective("proxy", "https_proxy", "********", "environment"), listed)
        self.assertIn("HTTPS_PROXY: ******** is not", self.refusal(HTTPS_PROXY="socks5://me:sesame@proxy"))
        self.assertEqual(("a", ".b"), self.connector(NO_PROXY="a, .b").noProxy)
        self.assertEqual(("c",), self.connector(NO_PROXY="a", SWC_NO_PROXY="c").noProxy)

    def test_whoIsReachedWithoutIt(self) -> None:
        for exempt, host, isSo in (
            ("*", "a.example.net", True),
            ("example.net", "a.example.net", True),
            ("example.net", "EXAMPLE.net.", True),
            (".example.net", "example.net", True),
            ("*.example.net", "a.example.net", True),
            ("example.net", "anexample.net", False),
            ("other,example.net:443", "example.net", True),
            ("example.net:80", "example.net", False),
            ("192.0.2.1", "192.0.2.1", True),
            ("192.0.2.0/24", "192.0.2.9", True),
            ("192.0.2.1/24", "192.0.2.9", True),
            ("192.0.2.0/24", "198.51.100.1", False),
            ("192.0.2.1:443", "192.0.2.1", True),
            ("192.0.2.1:80", "192.0.2.1", False),
            ("2001:db8::/32", "2001:db8::1", True),
            ("[2001:db8::1]:443", "2001:db8::1", True),
            ("[2001:db8::1]", "2001:db8::1", True),
            ("2001:db8::1", "2001:db8::2", False),
            ("192.0.2.0/24", "example.net", False),
            ("example.net", "192.0.2.1", False),
            (".,:,/", "example.net", False),
            ("", "example.net", False),
        ):
            self.assertIs(isSo, isExempt(parseExempt(exempt), host, 443), (exempt, host))

    def test_aProxyIsForThoseListenersThatAreNotExempt(self) -> None:
        settings = self.connector(SWC_PROXY="http://proxy", SWC_SERVER_NAMES="b,c:1", SWC_NO_PROXY="b,c:2")
        proxy = Proxy("proxy", 80)
        self.assertEqual([proxy, None, proxy], [settings.proxyOf(each) for each in settings.listeners])

    def test_quicCanNotPassAProxy(self) -> None:
        """Unless no listener is behind it."""
        line = self.refusal(SWC_CARRIER="quic", SWC_PROXY="http://me:sesame@proxy")
        self.assertIn("SWC_CARRIER: 'quic' can't pass the HTTP proxy", line)
        self.assertIn("listener.example.net", line)
        self.assertNotIn("sesame", line)
        self.connector(SWC_CARRIER="quic", HTTPS_PROXY="http://proxy", NO_PROXY=".example.net")


class TheVerifiersSettings(SettingsTests):
    """What one verifier doesn't read is not accepted beside it."""

    def test_leftOut(self) -> None:
        """Nothing is trusted beyond the defaults, and a listing shows nothing for it."""
        settings = load(ListenerSettings, {}, {})
        self.assertEqual((settings.scepCaPath, settings.scepCertPath, settings.scepKeyPath), (None, None, None))
        self.assertEqual((settings.accessPath, settings.uidSource), (None, "cn"))
        self.assertEqual((settings.recheckSeconds, settings.recheckGrace, settings.scepCacheSeconds), (60, 900, 3))
        self.assertIn(Effective("accessPath", "SWL_ACCESS_PATH", "", "default"), effective(ListenerSettings, {}, {}))

    def test_theLocalVerifiers(self) -> None:
        """Each is read."""
        environment = {"SWL_VERIFIER": "local", "SWL_ACCESS_PATH": "/access", "SWL_UID_SOURCE": "uri:urn:uid:"}
        settings = load(ListenerSettings, {}, environment)
        self.assertEqual((settings.accessPath, settings.uidSource), (Path("/access"), "uri:urn:uid:"))

    def test_aDenyListThatNobodyReads(self) -> None:
        """Somebody would rely on it."""
        line = self.listenerRefusal(SWL_ACCESS_PATH="/access")
        self.assertIn("SWL_ACCESS_PATH: '/access' is for the local verifier only: set SWL_VERIFIER=local", line)
        self.assertIn("SWL_UID_SOURCE: 'dns:x'", self.listenerRefusal(SWL_UID_SOURCE="dns:x"))

    def test_uidSources(self) -> None:
        """Three kinds, and none without what it looks for."""
        for text in ("CN", "uri:", "dns", "email:x"):
            line = self.listenerRefusal(SWL_VERIFIER="local", SWL_UID_SOURCE=text)
            self.assertEqual(line, f"SWL_UID_SOURCE: {text!r} is not cn, uri:PREFIX or dns:SUFFIX")

    def test_theScepServers(self) -> None:
        """Each is read; a CA is for https."""
        url = {"SWL_SCEP_URL": "HTTPS://scep.example.net/verify"}
        paths = {"SWL_SCEP_CA_PATH": "/ca", "SWL_SCEP_CERT_PATH": "/c", "SWL_SCEP_KEY_PATH": "/k"}
        settings = load(ListenerSettings, {}, url | paths)
        found = (settings.scepCaPath, settings.scepCertPath, settings.scepKeyPath)
        self.assertEqual(found, (Path("/ca"), Path("/c"), Path("/k")))
        line = self.listenerRefusal(SWL_SCEP_CA_PATH="/ca")
        self.assertIn("SWL_SCEP_CA_PATH: '/ca' checks nothing while SWL_SCEP_URL is 'http://127.0.0.1", line)


class Rules(SettingsTests):
    """Ports and targets in rules."""

    def test_ports(self) -> None:
        """Numbers and ranges, both ends included."""
        first, second = parsePortRanges("80, 8000-8001")
        self.assertTrue(80 in first and 81 not in first)
        self.assertTrue(8000 in second and 8001 in second and 7999 not in second and 8002 not in second)

    def test_badPorts(self) -> None:
        """Nothing is guessed."""
        for text in ("0", "65536", "2-1", "-5", "5-", "a", "1-2-3"):
            self.assertIn(repr(text), self.listenerRefusal(SWL_ALLOW_PORTS=text))

    def test_badTargets(self) -> None:
        """Nothing is guessed; least of all what looks like an address."""
        for text in (
            "10.0.0.1/8",
            "10.0.0",
            "10.*",
            "a b:0",
            "host:http",
            "[host]:1",
            "::1]:80",
            "a?b",
            "-x",
            "[::1]:",
        ):
            self.assertIn("SWC_ALLOW_TARGETS: ", self.refusal(SWC_ALLOW_TARGETS=text))

    def test_tooMany(self) -> None:
        """Each rule is looked at for every connection."""
        self.assertIn("more than 1000", self.refusal(SWC_ALLOW_TARGETS="a," * 1001))

    def test_rulesAreReadAsTheyAreShown(self) -> None:
        """``str`` of a rule is a rule."""
        text = "10.0.0.0/8:22,10.1.1.1/32:*,[2001:db8::/32]:443,[::1/128]:*,*.example.net:8000-8999,*:80"
        rules = parseTargetRules("10.0.0.0/8:22 10.1.1.1 [2001:db8::/32]:443 ::1 *.Example.net.:8000-8999 *:80")
        self.assertEqual(",".join(map(str, rules)), text)
        self.assertEqual(parseTargetRules(text), rules)

    def test_listeners(self) -> None:
        """Names and addresses, with or without a port; an IPv6 address in brackets."""
        listeners = parseListeners("b.example.net, c.example.net:11444 192.0.2.1 [2001:db8::1] [2001:db8::1]:1")
        expected = [
            ("b.example.net", None),
            ("c.example.net", 11444),
            ("192.0.2.1", None),
            ("2001:db8::1", None),
            ("2001:db8::1", 1),
        ]
        self.assertEqual(expected, [(each.host, each.port) for each in listeners])
        self.assertEqual(listeners, parseListeners([str(each) for each in listeners]))
        for wrong in ("a:0", "a:65536", "a:b", "2001:db8::1", "[a]:1:1", "/", ",".join(["a"] * 17)):
            self.assertRaises(ValueError, parseListeners, wrong)

    def test_names(self) -> None:
        """Separated by commas; a uid may have spaces."""
        self.assertEqual(("uid-1", "an office"), WORDS("uid-1, an office"))
        self.assertEqual(("uid-1",), WORDS(["uid-1"]))
        for wrong in ("uid-1,", "", "a\nb"):
            self.assertRaises(ValueError, WORDS, wrong)

    @given(st.text())
    def test_anyText(self, text: str) -> None:
        """Either rules or a `ValueError`, and nothing else."""
        for parse in (parseTargetRules, parsePortRanges, parseListeners):
            try:
                rules = parse(text)
            except ValueError:
                continue
            self.assertEqual(parse(",".join(map(str, rules))), rules)
