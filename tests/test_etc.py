"""What an operator copies from etc/ works as it is."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from shutil import which
from typing import Any

import click
from prometheus_client.metrics_core import Metric
from twisted.python.usage import Options
from twisted.trial.unittest import SynchronousTestCase

from socketwarp import connector_tap, listener_tap
from socketwarp.cli.main import commands
from socketwarp.errors import ConfigurationError
from socketwarp.listener.metrics import Metrics
from socketwarp.rules.policy import loadPolicy
from socketwarp.rules.targets import loadTargets
from socketwarp.rules.tokens import loadTokens
from socketwarp.settings import CommonSettings, ConnectorSettings, ListenerSettings, load, settingsOf
from tests.listener.rig import Rig

ETC = Path(__file__).parent.parent / "etc"
BIN = Path(sys.executable).parent
#: Where the units, the image and docs/operations.rst have everything.
INSTALLED, CONFIGURED = "/opt/socketwarp/bin", "/etc/socketwarp"
ENDS: dict[str, tuple[type[Options], type[CommonSettings]]] = {
    "swlistener": (listener_tap.Options, ListenerSettings),
    "swconnector": (connector_tap.Options, ConnectorSettings),
}


def variables(path: Path) -> dict[str, str]:
    """What an EnvironmentFile sets."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


#: Tenths of what systemd-analyze calls exposure. Network, and a group for the files, are part of it.
EXPOSURE = 18


class UnitTests(SynchronousTestCase):
    """systemd's units."""

    def unit(self, end: str) -> dict[str, str]:
        """The options of a unit's service; of those that are there twice, the last."""
        parser = ConfigParser(strict=False, interpolation=None, delimiters=("=",), comment_prefixes=("#",))
        parser.optionxform = str  # type: ignore[assignment, method-assign]  # names in the case they are in
        parser.read(ETC / "systemd" / f"{end}.service")
        return dict(parser["Service"])

    def test_systemdUnderstandsThem(self) -> None:
        """Every option, when there is a systemd to ask; what it thinks of other units of the host isn't ours."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        for end in ENDS:
            text = (ETC / "systemd" / f"{end}.service").read_text().replace(INSTALLED, str(BIN))
            (directory / f"{end}.service").write_text(text)
        units = [str(path) for path in directory.iterdir()]
        command = [which("systemd-analyze") or "true", "verify", *units]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        self.assertEqual([], [line for line in said.splitlines() if any(end in line for end in ENDS)])

    def test_whatTheyMayIsLittle(self) -> None:
        """By systemd's own measure: from 0 (nothing) to 100, when there is one to ask; an unhardened unit has 96."""
        for end in ENDS:
            unit = str(ETC / "systemd" / f"{end}.service")
            options = ("security", "--offline=true", f"--threshold={EXPOSURE}", unit)
            done = subprocess.run([which("systemd-analyze") or "true", *options], capture_output=True, text=True)
            self.assertEqual(0, done.returncode, done.stdout)

    def test_theyRunWhatIsInstalled(self) -> None:
        """A program that installation makes, with options that it has."""
        for end, (options, _) in ENDS.items():
            program, *words = shlex.split(self.unit(end)["ExecStart"])
            at = words.index(end)
            self.assertEqual((INSTALLED, "twistd"), (str(Path(program).parent), Path(program).name))
            self.assertTrue((BIN / "twistd").is_file())
            self.assertEqual(["--nodaemon", "--pidfile="], words[:at])
            given = options()
            given.parseOptions(words[at + 1 :])
            self.assertEqual(f"{CONFIGURED}/{end}.toml", given["config"])

    def test_theyWaitForUsAndWeTell(self) -> None:
        """Until it works, until connections have ended, and not again after settings that can't be used."""
        for end, (_, kind) in ENDS.items():
            unit = self.unit(end)
            self.assertEqual("notify", unit["Type"])
            self.assertGreater(int(unit["WatchdogSec"]), 2)
            settings = load(kind, {"config": str(ETC / f"{end}.toml")}, {})
            self.assertGreater(float(unit["TimeoutStopSec"]), settings.drainSeconds)
            self.assertEqual(ConfigurationError.exitCode, int(unit["RestartPreventExitStatus"]))

    def test_theyGiveAwayNoPrivileges(self) -> None:
        """But low ports, to the end that has ports."""
        for end, capabilities in (("swlistener", "CAP_NET_BIND_SERVICE"), ("swconnector", "")):
            unit = self.unit(end)
            self.assertEqual(capabilities, unit["CapabilityBoundingSet"])
            self.assertEqual(capabilities, unit.get("AmbientCapabilities", ""))
            self.assertEqual(("yes", "yes", "strict"), tuple(map(unit.get, PROTECTION)))
        self.assertEqual("socketwarp", self.unit("swlistener")["StateDirectory"])

    def test_theirVariablesAreSettings(self) -> None:
        for end, (_, kind) in ENDS.items():
            self.assertEqual(f"-{CONFIGURED}/{end}.env", self.unit(end)["EnvironmentFile"])
            found = variables(ETC / "systemd" / f"{end}.env")
            self.assertLess(set(found), {each.environment for each in settingsOf(kind).values()})
            load(kind, {"config": str(ETC / f"{end}.toml")}, found)


PROTECTION = ("DynamicUser", "NoNewPrivileges", "ProtectSystem")


class SampleTests(SynchronousTestCase):
    """Settings, rules and tokens."""

    def test_settingsAreReadAndNameInstalledFiles(self) -> None:
        for end, (_, kind) in ENDS.items():
            settings = load(kind, {"config": str(ETC / f"{end}.toml")}, {})
            paths = [settings.certPath, settings.keyPath, settings.caPath]  # type: ignore[attr-defined]  # both have them
            self.assertEqual({CONFIGURED}, {str(path.parent) for path in paths})

    def test_whatIsCommentedOutIsReadAsWell(self) -> None:
        """A line that somebody takes the # from mustn't be refused."""
        for end, (_, kind) in ENDS.items():
            text = re.sub(r"^# (?=\w+ = )", "", (ETC / f"{end}.toml").read_text(), flags=re.MULTILINE)
            held: dict[str, Any] = {}  # Any: whatever TOML holds
            for line in text.splitlines():
                held |= tomllib.loads(line)  # each by itself, since some are there twice
            self.assertEqual(set(), set(held) - {names.key for names in settingsOf(kind).values()})

    def test_rulesAndTokensAreRead(self) -> None:
        policy, tokens = loadPolicy(ETC / "policy.toml"), loadTokens(ETC / "tokens.toml")
        self.assertTrue(policy.port and policy.visitor and policy.rate)
        self.assertEqual({"read", "operate"}, {token.role for token in tokens})
        self.assertTrue(loadTargets(ETC / "targets.toml"))

    def test_theListenersSettingsNameTheOtherSamples(self) -> None:
        settings = load(ListenerSettings, {"config": str(ETC / "swlistener.toml")}, {})
        for path in (settings.policyPath, settings.apiTokensPath):
            assert path is not None
            self.assertTrue((ETC / path.name).is_file())


class ImageTests(SynchronousTestCase):
    """The Containerfile; nothing is built here."""

    def test_itCopiesWhatThereIs(self) -> None:
        """All that installation needs: the build's own files, and every package."""
        found = re.findall(r"^COPY (?!--)(.*) \S+$", (ETC / "Containerfile").read_text(), re.MULTILINE)
        copied = {name for line in found for name in line.split()}
        self.assertEqual([], [name for name in copied if not (ETC.parent / name).exists()])
        setup = ConfigParser()
        setup.read(ETC.parent / "setup.cfg")
        needed = {name.split(".")[0] for name in setup["options"]["packages"].split()}
        self.assertLessEqual(needed | {"setup.cfg", "pyproject.toml"}, copied)
        self.assertLessEqual({setup["metadata"]["long_description"].removeprefix("file: ")}, copied)

    def test_itRunsAnEnd(self) -> None:
        """The listener, unless another is named; by the program's own exec form, so that signals reach it."""
        text = (ETC / "Containerfile").read_text()
        words = [json.loads(re.findall(rf"^{name} (.*)$", text, re.MULTILINE)[-1]) for name in ("ENTRYPOINT", "CMD")]
        self.assertEqual([["twistd", "--nodaemon", "--pidfile="], ["swlistener"]], words)
        variables = set(re.findall(r"\b(?:SWL|SWC|APIS)_\w+", text))
        kinds = (ListenerSettings, ConnectorSettings)
        self.assertLessEqual(variables, {each.environment for kind in kinds for each in settingsOf(kind).values()})


class DashboardTests(SynchronousTestCase):
    """Grafana's."""

    def setUp(self) -> None:
        self.dashboard = json.loads((ETC / "grafana.json").read_text())

    def metrics(self) -> dict[str, Metric]:
        """What a listener shows, by the names of the samples."""
        rig = Rig()
        names: dict[str, Metric] = {}
        for metric in Metrics(rig.events, rig.connectors, rig.ports).registry.collect():
            for suffix in {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(metric.type, ("",)):
                names[metric.name + suffix] = metric
        return names

    def expressions(self) -> Iterator[str]:
        for panel in self.dashboard["panels"]:
            for target in panel["targets"]:
                yield target["expr"]
        for variable in self.dashboard["templating"]["list"]:
            yield variable["query"]

    def test_itAsksForMetricsThatThereAre(self) -> None:
        asked = {name for text in self.expressions() for name in re.findall(r"\b(?:socketwarp|process)_\w+", text)}
        self.assertLess({"socketwarp_sessions", "socketwarp_connections_total"}, asked)
        self.assertEqual(set(), asked - set(self.metrics()))

    def test_itShowsAllOfOurs(self) -> None:
        text = " ".join(self.expressions())
        ours = {metric.name for name, metric in self.metrics().items() if name.startswith("socketwarp_")}
        self.assertEqual([], [name for name in ours if name not in text])

    def test_panelsHaveAPlaceOfTheirOwn(self) -> None:
        places: set[tuple[int, int]] = set()
        for panel in self.dashboard["panels"]:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            self.assertFalse(cells & places, panel["title"])
            self.assertLessEqual(at["x"] + at["w"], 24)
            places |= cells
        self.assertEqual(len(self.dashboard["panels"]), len({panel["id"] for panel in self.dashboard["panels"]}))


class ManualTests(SynchronousTestCase):
    """docs/operations.rst: what it names is there."""

    def setUp(self) -> None:
        self.text = (ETC.parent / "docs" / "operations.rst").read_text()

    def test_symptomsAreWhatTheLogSays(self) -> None:
        """The terms of its lists of symptoms, as far as they are quoted, are in the code."""
        code = "".join(path.read_text() for path in (ETC.parent / "socketwarp").rglob("*.py"))
        terms = re.findall(r"^(?=\S)(.*)\n    \S", self.text.partition("Troubleshoot\n")[2], re.MULTILINE)
        quoted = [words for term in terms for words in re.findall(r"``([^`]+)``", term)]
        self.assertGreater(len(quoted), 12)
        self.assertEqual([], [words for words in quoted if words not in code])

    def test_settingsAndFilesAreNamedAsTheyAre(self) -> None:
        known = {name for _, kind in ENDS.values() for each in settingsOf(kind).values() for name in each.variables}
        for both in re.findall(r"…(_[A-Z_]+)", self.text):
            self.assertIn(f"SWL{both}", known)
        self.assertLessEqual(set(re.findall(r"\b(?:SWL|SWC|APIS)_[A-Z_]+", self.text)), known)
        files = set(re.findall(r"(?<![\w/])etc/[\w./]*\w", self.text))
        self.assertLess({"etc/policy.toml", "etc/grafana.json"}, files)
        self.assertEqual([], [name for name in files if not (ETC.parent / name).exists()])

    def test_itsFiguresAreMetrics(self) -> None:
        rig = Rig()
        names = {metric.name for metric in Metrics(rig.events, rig.connectors, rig.ports).registry.collect()}
        asked = {name.removesuffix("_total") for name in re.findall(r"\bsocketwarp_\w+", self.text)}
        self.assertTrue(asked)
        self.assertLessEqual(asked, names)

    def test_itsCommandsAreThere(self) -> None:
        """With the options that it gives them."""
        lines = self.text.replace("\\\n", " ").splitlines()
        inlined = re.findall(r"``(socketwarp [^`]+)``", self.text)
        called = [line.strip() for line in lines if line.strip().startswith("socketwarp ")] + inlined
        self.assertGreater(len(called), 15)
        for line in called:
            words = shlex.split(re.split(r" [>#]", line)[0])[1:]
            context = commands.make_context("socketwarp", list(words))
            while isinstance(command := context.command, click.Group):
                if not (given := [*context._protected_args, *context.args]) and command.invoke_without_command:
                    break  # a group that is a command as well: ``gencert --serverCert …``
                name, found, rest = command.resolve_command(context, given)
                assert found is not None
                context = found.make_context(name, rest, parent=context, resilient_parsing=not rest)
