"""`socketwarp gencert` and `socketwarp enrol` as processes, and what openssl makes of their files."""

import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import TestCase

from socketwarp.identity.certificates import loadCredentials

SOCKETWARP = str(Path(sys.executable).parent / "socketwarp")
#: Seconds until a process that hangs fails its test.
PATIENCE = 60


class CertificateTools(TestCase):
    """Blocking: there is nothing else for the reactor to do."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()

    def run_(self, *command: str, status: int = 0) -> str:
        done = subprocess.run(command, cwd=self.directory, capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        return done.stdout + done.stderr


class Gencert(CertificateTools):
    def test_openssl_accepts_what_the_private_authority_has_signed(self) -> None:
        for arguments in ("ca", "listener --host web.example --host 192.0.2.1", "connector --cn swc-1"):
            self.run_(SOCKETWARP, "gencert", *arguments.split(), "--key-type", "ec")
        verify = ("openssl", "verify", "-x509_strict", "-CAfile", "ca.crt", "-purpose")
        self.run_(*verify, "sslserver", "-verify_hostname", "web.example", "server.crt")
        self.run_(*verify, "sslserver", "-verify_ip", "192.0.2.1", "server.crt")
        self.run_(*verify, "sslclient", "client.crt")
        self.assertIn("unsuitable", self.run_(*verify, "sslclient", "server.crt", status=2))
        self.run_("openssl", "pkey", "-in", "client.key", "-noout", "-check")

    def test_the_one_step_form_is_self_signed_rsa_4096_with_this_hosts_names(self) -> None:
        self.run_(SOCKETWARP, "gencert", "--serverCert", "s.crt", "--serverKey", "s.key", "--cn", "web")
        text = self.run_("openssl", "x509", "-in", "s.crt", "-noout", "-text")
        for part in (
            "Public-Key: (4096 bit)",
            "Issuer: CN = web",
            "Subject: CN = web",
            "CA:TRUE",
            "Digital Signature, Key Encipherment, Certificate Sign",
            "TLS Web Server Authentication",
            "DNS:localhost",
            "IP Address:127.0.0.1",
        ):
            self.assertIn(part, text)
        self.run_("openssl", "verify", "-CAfile", "s.crt", "-verify_hostname", "localhost", "s.crt")
        self.assertEqual(os.stat(self.directory / "s.key").st_mode & 0o777, 0o600)
        self.assertIn(
            "--force", self.run_(SOCKETWARP, "gencert", "--serverCert", "s.crt", "--serverKey", "s.key", status=78)
        )


class Enrol(CertificateTools):
    def setUp(self) -> None:
        super().setUp()
        (self.directory / "secret").write_text("open5esame\n")
        command = [sys.executable, "-m", "tests.scepserver", "--port", "0", "--ca", str(self.directory / "scep.crt")]
        self.server = subprocess.Popen(
            [*command, "--client", "swc-1=open5esame"],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(self.server.wait)
        self.addCleanup(self.server.terminate)
        assert self.server.stdout is not None
        self.addCleanup(self.server.stdout.close)
        self.url = self.server.stdout.readline().split()[-1] + "/scep"

    def enrol(self, *options: str, uid: str = "swc-1", url: str = "", status: int = 0) -> str:
        asked = ("--url", url or self.url, "--uid", uid, "--secret-file", "secret", "--out", "own")
        return self.run_(SOCKETWARP, "enrol", *asked, *options, status=status)

    def test_a_secret_gets_a_pair_that_openssl_and_the_connector_take(self) -> None:
        self.enrol("--dns", "swc-1.example")
        self.run_("openssl", "verify", "-CAfile", "scep.crt", "-verify_hostname", "swc-1.example", "own/client.crt")
        own = self.directory / "own"
        loadCredentials(own / "client.crt", own / "client.key", own / "ca.crt", role="client")
        self.assertIn("new secret", self.enrol("--renew", status=77))

    def test_failures_are_one_line_and_their_status(self) -> None:
        self.assertIn("swc-2", self.enrol(uid="swc-2", status=77))
        output = self.enrol(url="http://127.0.0.1:1/scep", status=69)
        self.assertIn("no connection", output)
        self.assertEqual(output.count("\n"), 1)
