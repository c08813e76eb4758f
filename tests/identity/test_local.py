import os

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from socketwarp.errors import ConfigurationError, VerifierRefused
from socketwarp.identity.describe import fingerprintOf
from socketwarp.identity.local import AccessRules, LocalVerifier, readAccessRules, watchedAccess
from socketwarp.identity.names import MAX_UID, checkedUid, uidSource
from socketwarp.identity.pem import SettingFile
from socketwarp.interfaces import IVerifier
from tests.certs import MATRIX, Authority, Case, Issued, credentials, world, writeFile


class LocalTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.authority = Authority("Root")

    def assertUid(self, verifier: LocalVerifier, peer: Issued, uid: str) -> None:
        found = self.successResultOf(verifier.verify(peer.cert))
        self.assertEqual((found.uid, found.leaf), (uid, peer.cert))

    def refusal(self, verifier: LocalVerifier, peer: Issued) -> str:
        return str(self.failureResultOf(verifier.verify(peer.cert), VerifierRefused).value)


class Names(LocalTestCase):
    def test_it_is_a_verifier(self) -> None:
        self.assertTrue(verifyObject(IVerifier, LocalVerifier()))

    def test_the_matrix_names_or_refuses_whom_tls_lets_through(self) -> None:
        for case in MATRIX:
            if case.alert is None and case.role == "client":
                self.checkRow(case)

    def checkRow(self, case: Case) -> None:
        presented = case.make(world())
        assert presented is not None
        if case.uid is None:
            self.refusal(LocalVerifier(), presented)
        else:
            self.assertUid(LocalVerifier(), presented, case.uid)

    def test_the_reason_says_what_is_wrong_with_the_name(self) -> None:
        self.assertIn("empty", self.refusal(LocalVerifier(), self.authority.issue("")))
        self.assertIn("control characters", self.refusal(LocalVerifier(), self.authority.issue("a\x00b")))
        self.assertIn("blank", self.refusal(LocalVerifier(), self.authority.issue(" swc-1")))
        self.assertTrue(self.refusal(LocalVerifier(), self.authority.issue("a\r\nb")).isprintable())

    def test_a_uid_may_come_from_a_uri(self) -> None:
        verifier = LocalVerifier(uidSource("uri:urn:example:connector:"))
        san = ("urn:example:connector:swc-7", "https://example/other", "name.example")
        self.assertUid(verifier, self.authority.issue("anything", san=san), "swc-7")
        self.assertIn("no URI", self.refusal(verifier, self.authority.issue("swc-7")))
        two = ("urn:example:connector:a", "urn:example:connector:b")
        self.assertIn("2 URI", self.refusal(verifier, self.authority.issue(san=two)))
        self.assertIn("empty", self.refusal(verifier, self.authority.issue(san=("urn:example:connector:",))))

    def test_a_uid_may_come_from_a_dns_name(self) -> None:
        verifier = LocalVerifier(uidSource("dns:connectors.example"))
        peer = self.authority.issue("anything", san=("SWC-7.connectors.example", "web.example"))
        self.assertUid(verifier, peer, "swc-7")
        self.assertIn("no DNS name", self.refusal(verifier, self.authority.issue(san=("swc-7.example",))))

    def test_another_source_is_a_mistake_in_the_settings(self) -> None:
        for text in ("", "cn:x", "uri:", "dns:", "email"):
            self.assertRaises(ConfigurationError, uidSource, text)

    def test_a_name_has_a_limit(self) -> None:
        self.assertEqual(checkedUid("x" * MAX_UID), "x" * MAX_UID)
        self.assertRaises(ValueError, checkedUid, "x" * (MAX_UID + 1))

    def test_a_recheck_sees_what_has_been_revoked_since(self) -> None:
        peer, own = self.authority.issue(), self.authority.server()
        inForce = credentials(own, self.authority)
        verifier = LocalVerifier(standing=lambda leaf: inForce.checkStanding(leaf))
        self.assertUid(verifier, peer, "swc-1")
        inForce = credentials(own, self.authority, [self.authority.crl(peer)])
        self.assertIn("revoked", self.refusal(verifier, peer))


class Access(LocalTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.directory = self.mktemp()
        os.mkdir(self.directory)
        self.peer, self.other = self.authority.issue("swc-1"), self.authority.issue("swc-2")

    def file(self, text: str) -> SettingFile:
        return SettingFile("SWL_ACCESS_FILE", writeFile(self.directory, "access", text.encode()))

    def verifier(self, text: str) -> LocalVerifier:
        return LocalVerifier(access=watchedAccess(Clock(), self.file(text)))

    def test_a_deny_refuses_one_and_leaves_the_others(self) -> None:
        verifier = self.verifier("deny swc-1  # left the company\n")
        self.assertIn("denied", self.refusal(verifier, self.peer))
        self.assertUid(verifier, self.other, "swc-2")

    def test_an_allow_refuses_everybody_else(self) -> None:
        verifier = self.verifier("\n# ours\nallow swc-1\n")
        self.assertUid(verifier, self.peer, "swc-1")
        self.assertIn("not allowed", self.refusal(verifier, self.other))

    def test_fingerprints_count_like_uids(self) -> None:
        digits = fingerprintOf(self.peer.cert)
        colons = ":".join(digits[at : at + 2] for at in range(0, 64, 2)).upper()
        for written in (f"sha256:{digits}", f"SHA256:{colons}"):
            self.assertIn("denied", self.refusal(self.verifier(f"deny {written}"), self.peer))

    def test_a_deny_counts_beside_an_allow(self) -> None:
        verifier = self.verifier(f"allow swc-1\ndeny sha256:{fingerprintOf(self.peer.cert)}")
        self.assertIn("denied", self.refusal(verifier, self.peer))

    def test_a_changed_file_counts_from_the_next_certificate_on(self) -> None:
        verifier = self.verifier("allow swc-1")
        self.file("deny swc-1")
        self.assertIn("denied", self.refusal(verifier, self.peer))

    def test_a_broken_change_leaves_the_old_rules_in_force(self) -> None:
        verifier = self.verifier("deny swc-1")
        self.file("dany swc-2")
        self.assertIn("denied", self.refusal(verifier, self.peer))

    def test_a_file_without_rules_is_a_mistake(self) -> None:
        error = str(self.assertRaises(ConfigurationError, readAccessRules, self.file("# nobody yet\n")))
        self.assertIn("no rule in it", error)

    def test_a_number_sign_within_a_uid_is_part_of_it(self) -> None:
        rules = readAccessRules(self.file("#a\ndeny a#b\nallow c #d\n  # e\n"))
        self.assertEqual(rules, AccessRules(frozenset({"c"}), frozenset({"a#b"})))

    def test_a_wrong_line_is_named(self) -> None:
        for text in ("allow a\nswc-1", "allow a\nallow", "allow a\npermit swc-1", "allow a\ndeny sha256:12"):
            error = str(self.assertRaises(ConfigurationError, readAccessRules, self.file(text)))
            self.assertIn("SWL_ACCESS_FILE", error)
            self.assertIn("line 2", error)

    def test_a_file_that_is_no_text_or_too_long_is_named(self) -> None:
        binary = SettingFile("SWL_ACCESS_FILE", writeFile(self.directory, "access", b"\xff\xfe"))
        self.assertIn("UTF-8", str(self.assertRaises(ConfigurationError, readAccessRules, binary)))
        long = self.file("#\n" * 100_001)
        self.assertIn("100001 lines", str(self.assertRaises(ConfigurationError, readAccessRules, long)))
