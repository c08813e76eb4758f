"""`socketwarp gencert` and `socketwarp enrol` as processes, and what openssl makes of their files."""

import os
import sys

from socketwarp.identity.certificates import loadCredentials

from .processes import BIN, ROOT, ProcessCase

SOCKETWARP = str(BIN / "socketwarp")


class CertificateTools(ProcessCase):
    """Commands, in an empty directory."""

    def setUp(self) -> None:
        super().setUp()
        self.directory /= "empty"
        self.directory.mkdir()

    def do(self, *command: str, status: int = 0) -> str:
        """Run a command to its end; what it printed."""
        process = self.run_(command[0], *command)
        self.assertEqual(status, process.wait(), process.lines)
        self.assertNotIn("Traceback", "".join(process.stderr))
        return "".join(process.lines)


class Gencert(CertificateTools):
    def test_openssl_accepts_what_the_private_authority_has_signed(self) -> None:
        for arguments in ("ca", "listener --host web.example --host 192.0.2.1", "connector --cn swc-1"):
            self.do(SOCKETWARP, "gencert", *arguments.split(), "--key-type", "ec")
        verify = ("openssl", "verify", "-x509_strict", "-CAfile", "ca.crt", "-purpose")
        self.do(*verify, "sslserver", "-verify_hostname", "web.example", "server.crt")
        self.do(*verify, "sslserver", "-verify_ip", "192.0.2.1", "server.crt")
        self.do(*verify, "sslclient", "client.crt")
        self.assertIn("unsuitable", self.do(*verify, "sslclient", "server.crt", status=2))
        self.do("openssl", "pkey", "-in", "client.key", "-noout", "-check")

    def test_the_one_step_form_is_self_signed_rsa_4096_with_this_hosts_names(self) -> None:
        self.do(SOCKETWARP, "gencert", "--serverCert", "s.crt", "--serverKey", "s.key", "--cn", "web")
        text = self.do("openssl", "x509", "-in", "s.crt", "-noout", "-text")
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
        self.do("openssl", "verify", "-CAfile", "s.crt", "-verify_hostname", "localhost", "s.crt")
        self.assertEqual(os.stat(self.directory / "s.key").st_mode & 0o777, 0o600)
        self.assertIn(
            "--force", self.do(SOCKETWARP, "gencert", "--serverCert", "s.crt", "--serverKey", "s.key", status=78)
        )


class Enrol(CertificateTools):
    def setUp(self) -> None:
        super().setUp()
        (self.directory / "secret").write_text("open5esame\n")
        self.environment["PYTHONPATH"] = str(ROOT)
        command = (sys.executable, "-m", "tests.scepserver", "--port", "0", "--ca", "scep.crt")
        server = self.run_("scepserver", *command, "--client", "swc-1=open5esame")
        self.url = server.waitFor("SCEP server on").split()[-1] + "/scep"

    def enrol(self, *options: str, uid: str = "swc-1", url: str = "", status: int = 0) -> str:
        asked = ("--url", url or self.url, "--uid", uid, "--secret-file", "secret", "--out", "own")
        return self.do(SOCKETWARP, "enrol", *asked, *options, status=status)

    def test_a_secret_gets_a_pair_that_openssl_and_the_connector_take(self) -> None:
        self.enrol("--dns", "swc-1.example")
        self.do("openssl", "verify", "-CAfile", "scep.crt", "-verify_hostname", "swc-1.example", "own/client.crt")
        own = self.directory / "own"
        loadCredentials(own / "client.crt", own / "client.key", own / "ca.crt", role="client")
        self.assertIn("new secret", self.enrol("--renew", status=77))

    def test_failures_are_one_line_and_their_status(self) -> None:
        self.assertIn("swc-2", self.enrol(uid="swc-2", status=77))
        output = self.enrol(url="http://127.0.0.1:1/scep", status=69)
        self.assertIn("no connection", output)
        self.assertEqual(output.count("\n"), 1)
