import os

import attrs
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.identity import chains
from socketwarp.identity.checkup import Files, Finding, _checkMode, checkFiles
from socketwarp.interfaces import Role
from tests.certs import DAY, Authority, Issued, newKey, pem, selfSigned, writeFile


class Checkup(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.mkdir(self.directory)
        self.authority = Authority("Root")
        self.use(self.authority.server())

    def use(self, issued: Issued, role: Role = "server") -> None:
        paths = issued.write(self.directory)
        os.chmod(paths.key, 0o600)
        self.files = Files(role, paths.cert, paths.key, paths.ca)

    def findings(self, level: str) -> list[Finding]:
        return [each for each in checkFiles(self.files) if each.level == level]

    def problem(self, *parts: str, level: str = "problem") -> None:
        """There is one finding of that level, it has these parts, and a way to mend it."""
        (found,) = self.findings(level)
        for part in parts:
            self.assertIn(part, found.text)
        self.assertTrue(found.remedy)

    def test_good_files_of_either_end_are_fine(self) -> None:
        for issued, role in ((self.authority.server(), "server"), (self.authority.issue(), "client")):
            self.use(issued, "server" if role == "server" else "client")
            self.assertEqual({each.level for each in checkFiles(self.files)}, {"fine"})

    def test_the_names_that_connectors_may_use_are_told(self) -> None:
        self.assertIn("DNS:localhost, IP:127.0.0.1", self.findings("fine")[-1].text)

    def test_files_that_cant_be_used_are_the_first_and_only_problem(self) -> None:
        os.unlink(self.files.cert)
        (found,) = checkFiles(self.files)
        self.assertEqual(found.level, "problem")
        self.assertIn("SWL_CERT_PATH", found.text)

    def test_an_expired_certificate(self) -> None:
        self.use(self.authority.issue(san=("a.example",), notBefore=-2 * DAY, notAfter=-DAY))
        self.problem("expired")

    def test_a_certificate_for_the_other_end(self) -> None:
        self.use(self.authority.issue(eku=("client",), san=("a.example",)))
        self.problem("lacks serverAuth")

    def test_an_authority_as_an_end(self) -> None:
        self.use(self.authority.issue(ca=True, san=("a.example",)))
        self.problem("CA:TRUE")

    def test_a_listener_without_a_name(self) -> None:
        self.use(self.authority.issue(san=("urn:x",)))
        self.problem("no host name")

    def test_a_certificate_that_ends_soon(self) -> None:
        self.use(self.authority.issue(notAfter=3 * DAY), "client")
        self.problem("ends in 2 days", level="warning")

    def test_a_ca_file_of_somebody_else_may_be_right(self) -> None:
        writeFile(self.directory, "ca.crt", pem(Authority("Another").cert))
        self.problem("isn't signed by our CA file", "CN=Root", level="warning")

    def test_without_its_issuer_our_certificate_is_looked_at_all_the_same(self) -> None:
        weak = newKey("rsa")
        self.patch(chains, "MIN_RSA_BITS", 4096)
        for issued, text in (
            (self.authority.issue(san=("a.example",), notBefore=-2 * DAY, notAfter=-DAY), "expired"),
            (self.authority.issue(san=("a.example",), notBefore=DAY, notAfter=2 * DAY), "not valid yet"),
            (self.authority.issue(eku=("client",), san=("a.example",)), "lacks serverAuth"),
            (self.authority.issue(ku=("key_encipherment",), san=("a.example",)), "lacks digitalSignature"),
            (self.authority.issue(ca=True, san=("a.example",)), "CA:TRUE"),
            (self.authority.issue(key=weak, san=("a.example",)), "2048 bits"),
        ):
            self.use(issued)
            writeFile(self.directory, "ca.crt", pem(Authority("Another").cert))
            self.problem(text)

    def test_without_its_issuer_our_certificate_may_still_end_soon(self) -> None:
        self.use(self.authority.issue(notAfter=3 * DAY), "client")
        writeFile(self.directory, "ca.crt", pem(Authority("Another").cert))
        self.assertIn("ends in 2 days", self.findings("warning")[-1].text)

    def test_an_exchanged_certificate_of_our_own_is_fine_but_for_the_warning(self) -> None:
        self.use(selfSigned("swc-1", eku=("client",)), "client")
        writeFile(self.directory, "ca.crt", pem(selfSigned("listener", eku=("server",)).cert))
        self.problem("lacks its issuer CN=swc-1", level="warning")
        self.assertEqual(self.findings("problem"), [])

    def test_a_key_that_others_may_read(self) -> None:
        os.chmod(self.files.key, 0o644)
        self.problem("private key", level="warning")

    def test_a_key_of_root_that_its_group_may_read_is_fine(self) -> None:
        for owner, findings in ((0, 0), (1000, 1)):
            found = os.stat_result((0o100640, 0, 0, 1, owner, 0, 0, 0, 0, 0))
            self.patch(os, "stat", lambda path, found=found: found)
            self.assertEqual(findings, len(list(_checkMode("x.key"))))

    def test_roots_out_of_their_time(self) -> None:
        late = Authority("Late")
        for before, after, text in ((-2 * DAY, -DAY, "ended on"), (DAY, 2 * DAY, "begins only on")):
            root = late._sign(late.subject, late.key, ca=True, notBefore=before, notAfter=after)
            writeFile(self.directory, "ca.crt", pem(self.authority.cert, root))
            self.problem(text)

    def test_an_outdated_revocation_list(self) -> None:
        other = Authority("Another")
        writeFile(self.directory, "ca.crt", pem(self.authority.cert, other.cert))
        crls = pem(self.authority.crl(), other.crl(lastUpdate=-2 * DAY, nextUpdate=-DAY))
        path = writeFile(self.directory, "list.crl", crls)
        self.files = attrs.evolve(self.files, crls=[path])
        self.problem("revocation list of CN=Another")
        self.files = attrs.evolve(self.files, crlExpired="warn")
        self.problem("revocation list of CN=Another", level="warning")

    def test_our_own_revoked_certificate(self) -> None:
        own = self.authority.server()
        self.use(own)
        path = writeFile(self.directory, "list.crl", pem(self.authority.crl(own)))
        self.files = attrs.evolve(self.files, crls=[path])
        self.problem("revoked")
