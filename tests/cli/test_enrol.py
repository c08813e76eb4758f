import json
import os
from collections.abc import Callable, Coroutine
from typing import Any, cast
from unittest import mock

from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IAgent

from socketwarp.cli._reactor import runOnReactor
from socketwarp.cli.main import commands
from socketwarp.identity.certificates import loadCredentials
from socketwarp.identity.describe import alternativeNames, fingerprintOf
from tests.certs import Authority, newKey, writeFile
from tests.scepserver import FakeScep

SECRET = "open5esame"
URL = "http://scep.example:3000/scep"


class Enrol(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = FakeScep()
        self.server.add("swc-1", SECRET)
        self.directory = self.mktemp()
        agent = RequestTraversalAgent(self.server.resource())

        def inMemory(work: Callable[[Any], Coroutine[Deferred[Any], Any, object]]) -> object:
            result = ensureDeferred(work(Clock()))
            agent.flush()
            return _valueOf(result)

        for function, stand in (("runOnReactor", inMemory), ("webAgent", lambda reactor, ca: cast(IAgent, agent))):
            patched = mock.patch(f"socketwarp.cli.enrol.{function}", stand)
            patched.start()
            self.addCleanup(patched.stop)
        key = mock.patch.object(rsa, "generate_private_key", return_value=newKey("rsa"))
        key.start()
        self.addCleanup(key.stop)

    def run_(
        self, *arguments: str, status: int = 0, typed: str = SECRET + "\n", url: str = URL, uid: str = "swc-1"
    ) -> Result:
        options = ["enrol", "--url", url, "--uid", uid, "--out", self.directory, *arguments]
        result = CliRunner().invoke(commands, options, input=typed)
        self.assertEqual(result.exit_code, status, result.output)
        return result

    def file(self, content: bytes) -> str:
        os.mkdir(directory := self.mktemp())
        return writeFile(directory, "secret", content)

    def load(self) -> None:
        cert, key, ca = (os.path.join(self.directory, name) for name in ("client.crt", "client.key", "ca.crt"))
        loadCredentials(cert, key, ca, role="client")

    def test_a_secret_from_a_file_gets_a_pair(self) -> None:
        output = self.run_("--secret-file", "-").output
        self.load()
        self.assertIn("CN=swc-1", output)
        self.assertNotIn(SECRET, output)

    def test_json_says_what_was_got(self) -> None:
        told = json.loads(self.run_("--secret-file", "-", "--json").stdout)
        self.assertEqual(os.path.join(self.directory, "client.key"), told["key"])
        self.assertIn("CN=swc-1", told["subject"])
        self.assertEqual(fingerprintOf(self.server.authority.cert), told["ca_sha256"])

    def test_a_stranger_to_the_server_is_told_its_fingerprint(self) -> None:
        fingerprint = fingerprintOf(self.server.authority.cert)
        self.assertIn(fingerprint, self.run_("--secret-file", "-").output)

    def test_a_known_fingerprint_is_not_repeated(self) -> None:
        fingerprint = fingerprintOf(self.server.authority.cert)
        colons = ":".join(fingerprint[at : at + 2] for at in range(0, 64, 2)).upper()
        output = self.run_("--secret-file", "-", "--ca-fingerprint", f"SHA256:{colons}".lower()).output
        self.assertNotIn("compare", output)

    def test_without_a_file_the_secret_is_asked_for_and_not_shown(self) -> None:
        self.assertNotIn(SECRET, self.run_().output)
        self.load()

    def test_the_environment_may_hold_the_secret(self) -> None:
        with mock.patch.dict(os.environ, {"SOCKETWARP_SECRET": SECRET}):
            self.run_(typed="")
        self.load()

    def test_the_environment_may_name_a_file_with_the_secret(self) -> None:
        file = self.file(f"{SECRET}\n".encode())
        with mock.patch.dict(os.environ, {"SOCKETWARP_SECRET_FILE": file}):
            self.run_(typed="")
        self.load()

    def test_an_option_goes_before_a_variable(self) -> None:
        for name, value, option in (
            ("SOCKETWARP_SECRET_FILE", self.file(b"wrong"), ("--secret", SECRET)),
            ("SOCKETWARP_SECRET", "wrong", ("--secret-file", "-")),
        ):
            self.server.add("swc-1", SECRET)
            with mock.patch.dict(os.environ, {name: value}):
                self.run_(*option, "--renew")

    def test_the_secret_and_its_file_from_one_place_are_one_too_many(self) -> None:
        file = self.file(SECRET.encode())
        self.run_("--secret", SECRET, "--secret-file", file, status=2)
        with mock.patch.dict(os.environ, {"SOCKETWARP_SECRET": SECRET, "SOCKETWARP_SECRET_FILE": file}):
            self.run_(status=2)

    def test_existing_files_are_replaced_only_by_a_renewal_with_a_new_secret(self) -> None:
        self.run_("--secret-file", "-")
        self.assertIn("--renew", self.run_("--secret-file", "-", status=78).output)
        self.assertIn("new secret", self.run_("--secret-file", "-", "--renew", status=77).output)
        self.load()
        self.server.add("swc-1", "another")
        self.run_("--secret-file", "-", "--renew", typed="another\n")
        self.load()

    def test_a_name_with_other_letters_is_asked_for_in_ascii(self) -> None:
        self.run_("--secret-file", "-", "--dns", "ü.example")
        with open(os.path.join(self.directory, "client.crt"), "rb") as file:
            names = alternativeNames(x509.load_pem_x509_certificate(file.read()))
        self.assertEqual([each.value for each in names], ["xn--tda.example"])

    def test_a_secret_that_is_no_text_is_named(self) -> None:
        os.mkdir(self.directory)
        path = writeFile(self.directory, "secret", b"\xff\xfe")
        self.assertIn(path, self.run_("--secret-file", path, status=78).output)

    def test_a_directory_that_cant_be_made_is_named(self) -> None:
        writeFile(".", self.directory, b"a file")
        below = os.path.join(self.directory, "below")
        self.assertIn(below, self.run_("--secret-file", "-", "--out", below, status=78).output)

    def test_an_unknown_uid_exits_with_no_permission(self) -> None:
        self.assertIn("swc-2", self.run_("--secret-file", "-", uid="swc-2", status=77).output)
        self.assertEqual(os.listdir(self.directory), [])

    def test_a_server_that_was_replaced_is_not_believed(self) -> None:
        self.run_("--secret-file", "-")
        self.server.authority = Authority("Another", keyType="rsa")
        self.server.add("swc-1", "another")
        output = self.run_("--secret-file", "-", "--renew", typed="another\n", status=77).output
        self.assertIn("isn't the one in ca.crt", output)

    def test_wrong_options_are_named(self) -> None:
        self.assertIn("--url", self.run_(status=78, url="ftp://x").output)
        for uid in ("a\nb", "x" * 65, "a\\b"):
            self.assertIn("--uid", self.run_(status=78, uid=uid).output)
        for name in ("", "a b", "192.0.2.1 ", "ü" * 70):
            self.assertIn("host", self.run_("--secret-file", "-", "--dns", name, status=78).output)
        self.assertFalse(os.path.exists(os.path.join(self.directory, "client.key")))
        self.assertIn("--ca-fingerprint", self.run_("--ca-fingerprint", "12", status=78).output)
        self.assertIn("the secret must have", self.run_("--secret-file", "-", status=78, typed="\n").output)


def _valueOf(result: Deferred[object]) -> object:
    """The value, or its error raised."""
    outcome: list[object] = []
    errors: list[BaseException] = []
    result.addCallbacks(outcome.append, lambda failure: errors.append(failure.value))
    if errors:
        raise errors[0]
    return outcome[0]


class OnTheReactor(SynchronousTestCase):
    """`runOnReactor`, with `react` replaced by what it does, since trial's own reactor runs already."""

    def run_(self, work: Callable[[Any], Coroutine[Deferred[Any], Any, int]]) -> int:
        def react(main: Callable[[Any], Coroutine[Deferred[Any], Any, None]]) -> None:
            self.successResultOf(ensureDeferred(main(Clock())))
            raise SystemExit(0)

        with mock.patch("socketwarp.cli._reactor.react", react):
            return runOnReactor(work)

    def test_the_result_comes_back(self) -> None:
        async def work(reactor: Any) -> int:
            return 7

        self.assertEqual(self.run_(work), 7)

    def test_an_error_comes_back_as_itself(self) -> None:
        async def work(reactor: Any) -> int:
            raise ValueError("no")

        self.assertRaises(ValueError, self.run_, work)

    def test_an_end_by_a_signal_ends_the_command(self) -> None:
        def react(main: object) -> None:
            raise SystemExit(130)

        with mock.patch("socketwarp.cli._reactor.react", react):
            ended: Callable[..., object] = runOnReactor
            self.assertEqual(self.assertRaises(SystemExit, ended, None).code, 130)
