"""docs/api.rst says what the API does."""

import ast
import re
from pathlib import Path

from prometheus_client.metrics_core import Metric
from twisted.trial.unittest import SynchronousTestCase

from socketwarp import errors
from socketwarp.errors import SocketwarpError
from socketwarp.listener.api.app import ROUTES
from socketwarp.listener.api.openapi import document
from socketwarp.listener.api.problems import statusOf
from socketwarp.listener.events import EVENTS
from socketwarp.listener.metrics import Metrics
from tests.listener.rig import Rig
from tests.manual import DOCS, eventFields, rows

PAGE = "api.rst"
LISTENER = Path(__file__).parent.parent.parent / "socketwarp" / "listener"


class ManualTests(SynchronousTestCase):
    """Its tables."""

    def test_itHasEveryCallAndItsRole(self) -> None:
        documented = {(call, role) for call, role, _ in rows(PAGE, "call")}
        for route in ROUTES:
            pattern = f"{route.method} {re.sub('<[^>]+>', '[^/]+', route.path)}"
            found = {each for each in documented if re.fullmatch(pattern, each[0])}
            if route.path not in ("/open", "/list", "/close"):  # README.rst has them
                self.assertEqual({route.role or "(any)"}, {role for _, role in found}, pattern)
            documented -= found
        self.assertEqual(set(), documented)

    def test_everyChangeCanBeTriedFirst(self) -> None:
        changes = {route.path: route.arguments for route in ROUTES if route.method in ("PUT", "DELETE")}
        self.assertEqual({"/close"}, {path for path, arguments in changes.items() if "dry_run" not in arguments})

    def test_itSaysWhatEachNameMeans(self) -> None:
        """Of all arguments, headers and fields that the description has, but for the original's."""
        described = document()
        shapes = described["components"]["schemas"]
        names = {name for kind, shape in shapes.items() if kind != "OpenCall" for name in shape["properties"]}
        for operations in described["paths"].values():
            names |= {each["name"] for operation in operations.values() for each in operation["parameters"]}
        text = (DOCS / PAGE).read_text()
        self.assertEqual([], [name for name in sorted(names) if not re.search(f'["`]{name}["`=]|{name}=', text)])

    def test_itHasEveryCodeAndItsStatus(self) -> None:
        """Of all that the modules behind the calls raise."""
        raised: set[type[SocketwarpError]] = {SocketwarpError, errors.NoSuchSession}
        for path in (*(LISTENER / "api").glob("*.py"), LISTENER / "ports.py", LISTENER / "store.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                made = node.exc if isinstance(node, ast.Raise) else None
                name = getattr(getattr(made, "func", made), "id", "")
                kind = getattr(errors, name, None)
                if isinstance(kind, type) and issubclass(kind, SocketwarpError):
                    raised.add(kind)
        raised -= {errors.ConfigurationError}  # at the start only
        told = {(kind.code, statusOf(kind)) for kind in raised} | {("not-found", 404), ("method-not-allowed", 405)}
        self.assertEqual(told, {(code.strip("`"), int(status)) for code, status, _ in rows(PAGE, "code")})

    def test_itHasEveryEventAndWhatItsSentenceNeeds(self) -> None:
        """That each is told with these very fields is checked wherever a test has one told, see `Rig`."""
        documented = eventFields(PAGE)
        self.assertEqual(EVENTS.keys() | {"events.missed"}, documented.keys())
        for name, (_, sentence) in EVENTS.items():
            self.assertLessEqual(set(re.findall(r"{(\w+)}", sentence)), documented[name], name)

    def test_itHasEveryMetricAndItsLabels(self) -> None:
        rig = Rig()
        rig.connected()
        documented = {name.strip("`"): labels for name, labels, _ in rows(PAGE, "metric")}
        shown = {
            metric.name + ("_total" if metric.type == "counter" else ""): metric
            for metric in Metrics(rig.events, rig.connectors, rig.ports).registry.collect()
            if metric.name.startswith("socketwarp_")
        }
        self.assertEqual(shown.keys(), documented.keys())
        for name, metric in shown.items():
            for labels in self.labels(metric):
                self.assertEqual(labels, set(re.findall("``(\\w+)``", documented[name])), name)

    def labels(self, metric: Metric) -> list[set[str]]:
        return [set(sample.labels) - {"le"} for sample in metric.samples]
