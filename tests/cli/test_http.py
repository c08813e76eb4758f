import os
import ssl
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from socketwarp.cli._http import Failed, exitFor
from socketwarp.cli._options import makeApi
from socketwarp.errors import ConfigurationError
from tests.certs import Authority

from .rig import CliCase


class Failures(CliCase):
    def failure(self, status: int, *arguments: str) -> str:
        text = self.run_("list", *arguments, status=status).stderr
        self.assertEqual(1, text.count("\n"))
        return text

    def test_nobody_listens(self) -> None:
        self.planError(ConnectionRefusedError(111, "Connection refused"))
        self.assertIn("http://127.0.0.1:8080: no listener answers: Connection refused", self.failure(69))

    def test_nobody_answers_in_time(self) -> None:
        self.planError(TimeoutError("timed out"))
        self.assertIn("no answer in time", self.failure(69))

    def test_a_connection_that_ends_at_once(self) -> None:
        self.planned.append((b"", None))
        self.assertIn("does it speak https?", self.failure(69))

    def test_something_else_answers(self) -> None:
        for status, kind, body, exitStatus in (
            (200, "text/html", b"<html>", 1),
            (200, "application/json", b"{", 1),
            (200, "application/json", b"[" * 100_000, 1),
            (404, "text/html", b"", 1),
            (502, "text/html", b"bad gateway", 69),
            (400, "application/problem+json", b"[]", 1),
        ):
            self.planRaw(status, kind, body)
            self.assertIn("isn't a listener's API", self.failure(exitStatus))

    def test_an_answer_that_is_not_understood(self) -> None:
        self.planRaw(200, "application/json", b'{"a": 1}')
        self.assertIn("isn't understood", self.failure(1))

    def test_a_problem_ends_with_the_status_of_its_code(self) -> None:
        for status, code, exitStatus in (
            (403, "forbidden", 77),
            (403, "port-denied", 77),
            (403, "of-a-newer-listener", 77),
            (500, "of-a-newer-listener", 1),
            (500, "store-unavailable", 69),
            (503, "limit", 69),
            (409, "change-under-way", 1),
            (400, "bad-request", 2),
        ):
            self.planProblem(status, code, "so it is")
            self.assertEqual(f"socketwarp: so it is ({code})\n", self.failure(exitStatus))

    def test_a_problem_can_not_steer_a_terminal(self) -> None:
        self.planProblem(403, "forbidden", "\x1b[2J\nforged")
        self.assertNotIn("\x1b", self.failure(77))

    def test_outcomes_of_probes_have_statuses_too(self) -> None:
        self.assertEqual([1, 69, 1], [exitFor(each) for each in ("refused", "session-lost", "unheard-of")])


class Alerts(CliCase):
    """What TLS says, in words."""

    def failed(self, error: ssl.SSLError) -> tuple[str, int]:
        self.planError(error)
        api = makeApi("https://localhost", None, None, None, None)
        with mock.patch.object(ssl.SSLContext, "wrap_socket", lambda *_, **__: None):
            failed = self.assertRaises(Failed, api.call, "GET", "/")
        return str(failed), failed.exitCode

    def error(self, reason: str) -> ssl.SSLError:
        error = ssl.SSLError(1, f"[SSL: {reason}] something")
        error.reason = reason
        return error

    def test_no_certificate(self) -> None:
        text, status = self.failed(self.error("TLSV13_ALERT_CERTIFICATE_REQUIRED"))
        self.assertIn("it asks its callers for a certificate: give yours with --cert and --key", text)
        self.assertEqual(77, status)

    def test_a_certificate_that_is_not_taken(self) -> None:
        for reason, words in (
            ("TLSV1_ALERT_UNKNOWN_CA", "doesn't know the CA"),
            ("SSLV3_ALERT_CERTIFICATE_EXPIRED", "has expired"),
            ("SSLV3_ALERT_CERTIFICATE_REVOKED", "was revoked"),
        ):
            text, status = self.failed(self.error(reason))
            self.assertIn(words, text)
            self.assertEqual(77, status)

    def test_a_listener_that_is_not_believed(self) -> None:
        error = ssl.SSLCertVerificationError(1, "no")
        error.verify_message = "certificate is not valid for 'h'."
        text, status = self.failed(error)
        self.assertIn("isn't believed: certificate is not valid for 'h': is", text)
        self.assertEqual(77, status)

    def test_no_tls_at_all(self) -> None:
        text, status = self.failed(self.error("WRONG_VERSION_NUMBER"))
        self.assertIn("WRONG VERSION NUMBER: does it speak http only?", text)
        self.assertEqual(69, status)
        self.assertNotIn("?", self.failed(self.error("INTERNAL_ERROR"))[0])


class Options(SynchronousTestCase):
    """Where the API is, and who calls."""

    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.makedirs(self.directory)
        Authority().issue("caller").write(self.directory, "own")

    def path(self, name: str, text: str | None = None) -> str:
        path = os.path.join(self.directory, name)
        if text is not None:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        return path

    def test_tls_is_by_the_url(self) -> None:
        self.assertIsNone(makeApi("http://h:80", None, None, None, None).tls)
        own = (self.path("own.crt"), self.path("own.key"))
        tls = makeApi("https://h/base/", self.path("ca.crt"), *own, None).tls
        assert tls is not None
        self.assertEqual(1, len(tls.get_ca_certs()))

    def test_files_that_can_not_be_used_are_named(self) -> None:
        for ca, cert, key in (("none", None, None), (None, "none", "own.key"), (None, "own.crt", "ca.crt")):
            files = [None if name is None else self.path(name) for name in (ca, cert, key)]
            error = self.assertRaises(ConfigurationError, makeApi, "https://h", *files, None)
            self.assertIn(self.path(ca or cert or ""), str(error))
            self.assertNotRegex(str(error), r"_ssl|\[")

    def test_a_key_that_is_not_the_certificates(self) -> None:
        Authority().issue("other").writePair(self.directory, "other")
        files = [self.path(name) for name in ("own.crt", "other.key")]
        error = self.assertRaises(ConfigurationError, makeApi, "https://h", None, *files, None)
        self.assertTrue(str(error).endswith("can't be used: key values mismatch"), error)

    def test_a_token_is_all_that_its_file_holds(self) -> None:
        api = makeApi("http://localhost", None, None, None, self.path("token", "  secret\n"))
        self.assertEqual("secret", api.token)
        self.assertNotIn("secret", repr(api))
        for text in ("", "two words", "ü", "x" * 5000, "a\nb"):
            with self.assertRaises(ConfigurationError):
                makeApi("http://localhost", None, None, None, self.path("token", text))
        with self.assertRaises(ConfigurationError):
            makeApi("http://localhost", None, None, None, self.path("none"))


class Server(CliCase):
    """The options, before the command's name, behind it, and in the environment."""

    def used(self, *arguments: str, **environment: str) -> str:
        self.planError(ConnectionRefusedError(111, "Connection refused"))
        return self.run_(*arguments, status=69, **environment).stderr.split(": ")[1]

    def test_the_nearest_counts(self) -> None:
        self.assertEqual("http://127.0.0.1:8080", self.used("list"))
        self.assertEqual("http://a:1", self.used("list", SOCKETWARP_URL="http://a:1"))
        self.assertEqual("http://b:2", self.used("--url", "http://b:2", "list", SOCKETWARP_URL="http://a:1"))
        self.assertEqual(
            "http://c:3", self.used("--url", "http://b:2", "list", "--url", "http://c:3", SOCKETWARP_URL="http://a:1")
        )

    def test_the_environment_may_name_the_tokens_file(self) -> None:
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("secret")
        self.run_("list", SOCKETWARP_TOKEN_FILE=path)
        self.assertIn(b"\r\nAuthorization: Bearer secret\r\n", self.sent[0])

    def test_a_token_that_others_may_see_is_warned_of(self) -> None:
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("secret")
        for url, warns in (("http://[::1]", False), ("http://api.localhost", False), ("http://192.0.2.1", True)):
            self.planRaw(200, "application/json", b"[]")
            shown = self.run_("list", "--url", url, "--token-file", path).stderr
            self.assertEqual(warns, "others may see the token" in shown)
            self.assertNotIn("secret", shown)

    def test_a_base_path_is_kept(self) -> None:
        self.planRaw(200, "application/json", b"[]")
        self.run_("list", "--url", "http://h/base/")
        self.assertTrue(self.sent[0].startswith(b"GET /base/v1/ports "))

    def test_wrong_usage(self) -> None:
        for url in ("ftp://x", "x", "http://", "http://h:0", "http://h:x", "http://u@h", "http://h?q", "http://h/a b"):
            self.assertIn("a URL such as", self.run_("list", "--url", url, status=2).stderr)
        self.assertIn("go together", self.run_("list", "--cert", "x", status=2).stderr)
        self.assertIn("needs https", self.run_("list", "--ca", "x", status=2).stderr)

    def test_no_command_takes_the_token_itself(self) -> None:
        self.run_("list", "--token", "secret", status=2)
