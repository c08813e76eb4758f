"""Who may call, and what."""

import hmac
import json
import re
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.errors import ConfigurationError
from socketwarp.listener.api.access import Gate
from socketwarp.listener.api.app import ROUTES
from socketwarp.listener.wishes import PortSpec
from socketwarp.rules.tokens import OPERATE, READ, Token, loadTokens, parseTokens
from socketwarp.settings import PortRange
from tests.listener.client import Client
from tests.listener.rig import Rig

WISH = {"uid": "uid-1", "target_host": "10.0.0.5", "target_port": 80}
OPEN = {"uid": "uid-1", "port": 18080, "connect_address": "10.0.0.5", "connect_port": 80}


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


TOKENS = (
    Token("watcher", digest("read-it"), READ),
    Token("boss", digest("do-it"), OPERATE),
    Token("office", digest("mine"), OPERATE, (PortRange(18080, 18089),), ("office-*",)),
)
#: Every call, with the role that it needs; `None`: anybody.
CALLS: Sequence[tuple[str, str, object, str | None]] = (
    ("GET", "/healthz", None, None),
    ("GET", "/v1/openapi.json", None, None),
    ("GET", "/v1/events", None, READ),
    ("POST", "/open", OPEN, OPERATE),
    ("GET", "/list", None, READ),
    ("DELETE", "/close", {"port": 18080}, OPERATE),
    ("GET", "/ready", None, READ),
    ("GET", "/metrics", None, READ),
    ("GET", "/v1/ports", None, READ),
    ("GET", "/v1/ports/18080", None, READ),
    ("PUT", "/v1/ports/18080", WISH, OPERATE),
    ("DELETE", "/v1/ports/18080", None, OPERATE),
    ("GET", "/v1/connectors", None, READ),
    ("GET", "/v1/connectors/uid-1", None, READ),
    ("DELETE", "/v1/connectors/uid-1", None, OPERATE),
    ("GET", "/v1/connections", None, READ),
    ("DELETE", "/v1/connections/1-1", None, OPERATE),
    ("POST", "/v1/explain", {"port": 18080, "source": "192.0.2.1"}, READ),
    ("POST", "/v1/probe", {"uid": "nobody", "host": "x", "port": 80}, OPERATE),
)


class TokenTestCase(SynchronousTestCase):
    """A listener whose API asks for tokens."""

    def setUp(self) -> None:
        self.rig = Rig()
        self.rig.connected("uid-1")
        self.tokens: Sequence[Token] = TOKENS
        self.client = Client(self.rig, Gate(lambda: self.tokens))

    def call(self, method: str, path: str, token: str | None, body: object = None) -> tuple[int, str]:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        status, _, text = self.client.callJson(method, path, body, **headers)
        return status, text


class RoleTests(TokenTestCase):
    """Every call asks for its role."""

    def test_noCallIsForgottenHere(self) -> None:
        asked = set()
        for method, path, _, role in CALLS:
            fits = [
                route
                for route in ROUTES
                if route.method == method and re.fullmatch(re.sub("<[^>]+>", "[^/]+", route.path), path)
            ]
            self.assertEqual([role], [route.role for route in fits], path)
            asked.add(fits[0].handler)
        self.assertEqual({route.handler for route in ROUTES}, asked)

    def test_withoutATokenThereIsNothingButHealth(self) -> None:
        for method, path, body, role in CALLS:
            for token in (None, "", "x", digest("do-it")):
                expected = 200 if role is None else 401
                self.assertEqual(expected, self.call(method, path, token, body)[0], (path, token))
        self.assertEqual([], self.rig.ports.specs())

    def test_aReaderChangesNothing(self) -> None:
        for method, path, body, role in CALLS:
            status, text = self.call(method, path, "read-it", body)
            if role == OPERATE:
                self.assertEqual(403, status, path)
                self.assertIn("watcher has the role 'read'", text)
            else:
                self.assertNotIn(status, (401, 403), path)
        self.assertEqual([], self.rig.ports.specs())

    def test_norHasItAnythingDialled(self) -> None:
        body = {"port": 18080, "source": "192.0.2.1", "dial": True}
        self.assertEqual(403, self.call("POST", "/v1/explain", "read-it", body)[0])
        self.assertEqual(404, self.call("POST", "/v1/explain", "do-it", body)[0])

    def test_anOperatorDoesEverything(self) -> None:
        for method, path, body, _ in CALLS:
            self.assertNotIn(self.call(method, path, "do-it", body)[0], (401, 403), path)

    def test_whatAnAnswerAsksFor(self) -> None:
        status, headers, _ = self.client.call("GET", "/v1/ports")
        self.assertEqual((401, 'Bearer realm="socketwarp"'), (status, headers["www-authenticate"]))
        for form in ("Basic ZG8taXQ=", "do-it", "Bearer"):
            self.assertEqual(401, self.client.call("GET", "/v1/ports", Authorization=form)[0])
        self.assertEqual(200, self.client.call("GET", "/v1/ports", Authorization="bearer do-it")[0])

    def test_aTokenThatIsTakenAwayCountsNoMore(self) -> None:
        self.assertEqual(200, self.call("GET", "/v1/ports", "read-it")[0])
        self.tokens = TOKENS[1:]
        self.assertEqual(401, self.call("GET", "/v1/ports", "read-it")[0])

    def test_theTimeOfAComparisonTellsNothing(self) -> None:
        """Each token's digest is compared, to its end, whichever of them it is, or none."""
        compared: list[str] = []
        compare = hmac.compare_digest

        def comparing(kept: str, presented: str) -> bool:
            compared.append(kept)
            return compare(kept, presented)

        self.patch(hmac, "compare_digest", comparing)
        for token in ("read-it", "mine", "x"):
            compared.clear()
            self.call("GET", "/v1/ports", token)
            self.assertEqual([each.sha256 for each in TOKENS], compared, token)

    def test_whoIsTurnedAwayIsTold(self) -> None:
        self.call("GET", "/v1/ports", "x")
        self.call("DELETE", "/v1/ports/18080", "read-it")
        self.assertEqual(
            [
                ("anonymous", "GET", "/v1/ports", "unauthenticated"),
                ("watcher", "DELETE", "/v1/ports/18080", "forbidden"),
            ],
            [tuple(each[name] for name in ("who", "method", "path", "code")) for each in self.rig.told("api.refused")],
        )
        self.assertNotIn("'x'", str(self.rig.told("api.refused")))

    def test_theAuditLogNamesTheToken(self) -> None:
        self.call("PUT", "/v1/ports/18080", "do-it", WISH)
        (change,) = self.rig.told("api.changed")
        self.assertEqual(("boss", "127.0.0.1:50000", None), (change["who"], change["peer"], change["before"]))


class ScopeTests(TokenTestCase):
    """A token may have to do with some ports and uids only."""

    def setUp(self) -> None:
        super().setUp()
        self.rig.connected("office-1", "session-2")
        for port, uid in ((18080, "office-1"), (18081, "uid-1"), (18090, "office-1")):
            self.successResultOf(self.rig.ports.desire(PortSpec(port, uid, "x", 80)))

    def test_onlyThatIsSeen(self) -> None:
        for path, name in (("/v1/ports", "18080"), ("/list", "18080")):
            status, text = self.call("GET", path, "mine")
            self.assertEqual(200, status)
            self.assertIn(name, text)
            self.assertNotIn("18081", text, path)
        connectors = json.loads(self.call("GET", "/v1/connectors", "mine")[1])
        self.assertEqual([("office-1", [18080])], [(each["uid"], each["ports"]) for each in connectors])
        self.rig.visit(18081)
        self.rig.visit(18090)
        self.assertIn('"total": 0', self.call("GET", "/v1/connections", "mine")[1])
        self.assertEqual(403, self.call("GET", "/metrics", "mine")[0])

    def test_onlyThatIsTouched(self) -> None:
        mine = {"uid": "office-2", "target_host": "x", "target_port": 80}
        self.assertEqual(201, self.call("PUT", "/v1/ports/18082", "mine", mine)[0])
        for method, path, body in (
            ("PUT", "/v1/ports/18083", WISH),
            ("PUT", "/v1/ports/18090", mine),
            ("PUT", "/v1/ports/18081", mine),
            ("PUT", "/v1/ports/0", mine),
            ("GET", "/v1/ports/18081", None),
            ("DELETE", "/v1/ports/18081", None),
            ("DELETE", "/v1/connectors/uid-1", None),
            ("GET", "/v1/connectors/uid-1", None),
            ("POST", "/open", OPEN | {"port": 18083}),
            ("POST", "/open", OPEN | {"uid": "office-1", "port": 18091}),
            ("DELETE", "/close", {"port": 18081}),
        ):
            status, text = self.call(method, path, "mine", body)
            self.assertEqual(403, status, (method, path, body))
            self.assertTrue("uid-1" in path or "uid-1" not in text, text)  # whose a port is, isn't said
        self.assertEqual(4, len(self.rig.ports.specs()))

    def test_whoOnlyHasPortsHasNoConnectors(self) -> None:
        self.tokens = (Token("ports", digest("p"), OPERATE, (PortRange(18080, 18080),)),)
        for method, path, body in (
            ("GET", "/v1/connectors", None),
            ("GET", "/v1/connectors/office-1", None),
            ("DELETE", "/v1/connectors/office-1", None),
            ("POST", "/v1/probe", {"uid": "office-1", "host": "x", "port": 80}),
        ):
            self.assertEqual(403, self.call(method, path, "p", body)[0], path)

    def test_anyFreePortIsNobodysOwn(self) -> None:
        body = {"uid": "office-2", "target_host": "x", "target_port": 80}
        self.assertIn("any free port: name one of its own", self.call("PUT", "/v1/ports/0", "mine", body)[1])


class SiteTests(SynchronousTestCase):
    """Pages of others don't lead a browser to us."""

    def setUp(self) -> None:
        self.rig = Rig()
        self.client = Client(self.rig, Gate(hosts=lambda: ("api.example.net", "*.example.org")))

    def status(self, host: str, **headers: str) -> int:
        return self.client.call("GET", "/list", Host=host, **headers)[0]

    def test_ourNames(self) -> None:
        for host in (
            *("localhost", "LOCALHOST:8080", "127.0.0.1:8080", "[::1]:8080", "192.0.2.1", "listener", "listener:80"),
            *("a.localhost", "api.example.net", "API.example.net.:8080", "a.example.org"),
        ):
            self.assertEqual(200, self.status(host), host)

    def test_othersNames(self) -> None:
        for host in (
            "evil.example",
            "127.0.0.1.evil.example",
            "example.org",
            "a.b.example.org",
            "localhost.evil.example",
        ):
            self.assertEqual(403, self.status(host), host)
        self.assertEqual(5, len(self.rig.told("api.refused")))

    def test_scriptsOfOtherPages(self) -> None:
        self.assertEqual(200, self.status("localhost:8080", Origin="http://localhost:8080"))
        for origin in ("http://evil.example", "null", "http://localhost:8081", "http://localhost", "://", "http://[x"):
            self.assertEqual(403, self.status("localhost:8080", Origin=origin), origin)

    def test_whatIsNoBrowserNeedsNoHost(self) -> None:
        self.client.connect()
        self.client.send(b"GET /list HTTP/1.0\r\n\r\n")
        self.assertEqual(200, self.client.answer()[0])


class TokenFileTests(SynchronousTestCase):
    """Tokens come from a file."""

    def test_theFile(self) -> None:
        text = f"""
            [[token]]
            name = "office"
            sha256 = "{digest("mine").upper()}"
            role = "operate"
            ports = ["18080-18089"]
            uids = ["office-*"]
            [[token]]
            name = "watcher"
            sha256 = "{digest("read-it")}"
            role = "read"
        """
        self.assertEqual((TOKENS[2], TOKENS[0]), parseTokens(text))

    def test_whatIsWrongWithItIsSaid(self) -> None:
        token = {"name": '"x"', "sha256": f'"{digest("x")}"', "role": '"read"'}

        def written(**changed: str | None) -> str:
            held = {name: value for name, value in (token | changed).items() if value is not None}
            return "[[token]]\n" + "\n".join(f"{name} = {value}" for name, value in held.items()) + "\n"

        for text, words in (
            ("", "a required field is missing @ $.token"),
            ("token = 1", "a list"),
            ("token = [1]", "$.token[0]"),
            ("colour = 1", "colour"),
            ("[[token]", "Expected"),
            (written(name=None), "name"),
            (written(name='""'), "name"),
            (written(sha256='"12"'), "64"),
            (written(role='"root"'), "role"),
            (written(ports="[]"), "ports"),
            (written(ports='["x"]'), "'x'"),
            (written(ports="18080"), "ports"),
            (written(uids="[]"), "uids"),
            (written(colour='"red"'), "colour"),
            (written() + written(), "same name"),
        ):
            error = self.assertRaises(ValueError, parseTokens, text)
            self.assertIn(words, str(error), text)

    def test_theErrorNamesTheSettingAndTheFile(self) -> None:
        path = Path(self.mktemp())
        for content in (None, b"\xff", b" " * 2**21):
            if content is not None:
                path.write_bytes(content)
            error = self.assertRaises(ConfigurationError, loadTokens, path)
            self.assertIn("APIS_TOKENS_FILE", str(error))
            self.assertIn(str(path), str(error))

    @given(st.text())
    def test_anyTextIsTokensOrAnError(self, text: str) -> None:
        try:
            parseTokens(text)
        except ValueError as error:
            self.assertTrue(str(error))
