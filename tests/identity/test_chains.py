from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import cast
from unittest import mock

import attrs
from cryptography import x509
from cryptography.x509.oid import ObjectIdentifier
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.errors import CertificateRejected, VerifierFault
from socketwarp.identity import chains
from socketwarp.identity.certificates import Credentials
from socketwarp.interfaces import Role
from tests.certs import (
    DAY,
    MATRIX,
    Authority,
    Case,
    Issued,
    commonName,
    credentials,
    newKey,
    selfSigned,
    world,
)


def capturedLog(test: SynchronousTestCase) -> list[LogEvent]:
    """All log events of the rest of the test."""
    events: list[LogEvent] = []
    observer = cast(ILogObserver, events.append)  # cast: any callable is one, but mypy asks for the declaration
    globalLogPublisher.addObserver(observer)
    test.addCleanup(globalLogPublisher.removeObserver, observer)
    return events


class CertificateMatrix(SynchronousTestCase):
    """Every row of ACCEPTANCE.md's table; the methods are made from it below."""

    def check(self, case: Case) -> None:
        presented = case.make(world())
        checking = world().checking(case.role)
        chain = presented.chain if presented else ()
        if case.alert is None:
            checking.checkPeer(chain, case.role, case.serverName)
            return
        rejected = self.assertRaises(CertificateRejected, checking.checkPeer, chain, case.role, case.serverName)
        self.assertEqual(rejected.alert, case.alert)
        self.assertNotIn("\n", str(rejected))


def _row(case: Case) -> Callable[[CertificateMatrix], None]:
    return lambda self: self.check(case)


for _case in MATRIX:
    setattr(CertificateMatrix, "test_" + "".join(c if c.isalnum() else "_" for c in _case.name), _row(_case))


class Peers(SynchronousTestCase):
    def setUp(self) -> None:
        self.authority = Authority("Root")
        self.own = self.authority.server()

    def refused(self, checking: Credentials, peer: Issued, role: Role = "client", name: str | None = None) -> int:
        return int(self.assertRaises(CertificateRejected, checking.checkPeer, peer.chain, role, name).alert)

    def test_two_parties_may_exchange_self_signed_certificates(self) -> None:
        listener, connector = selfSigned("listener", san=("localhost",)), selfSigned("swc-1")
        credentials(listener, connector).checkPeer(connector.chain, "client", None)
        credentials(connector, listener).checkPeer(listener.chain, "server", "localhost")

    def test_a_self_signed_root_that_is_no_authority_is_its_own_leaf_too(self) -> None:
        peer = selfSigned("swc-1", ca=False)
        credentials(self.own, peer).checkPeer(peer.chain, "client", None)

    def test_an_expired_trusted_leaf_is_refused_like_any_other(self) -> None:
        authority = Authority("swc-1")
        issued = authority.issue("swc-1", key=authority.key, notBefore=-2 * DAY, notAfter=-DAY)
        checking = credentials(self.own, [issued.cert])
        self.assertEqual(self.refused(checking, attrs.evolve(issued, chain=(issued.cert,))), chains.CERTIFICATE_EXPIRED)

    def test_an_exchanged_certificate_is_still_limited_to_its_usage(self) -> None:
        peer = selfSigned("swc-1", eku=("server",))
        self.assertEqual(self.refused(credentials(self.own, peer), peer), chains.UNSUPPORTED_CERTIFICATE)

    def test_any_of_several_roots_will_do(self) -> None:
        other = Authority("Another root")
        checking = credentials(self.own, [self.authority.cert, other.cert])
        checking.checkPeer(other.issue().chain, "client", None)
        checking.checkPeer(self.authority.issue().chain, "client", None)

    def test_a_root_renewed_with_its_old_key_stands_beside_the_old_one(self) -> None:
        renewed = self.authority._sign(self.authority.subject, self.authority.key, ca=True)
        for roots in ([self.authority.cert, renewed], [renewed], [renewed, renewed]):
            credentials(self.own, roots).checkPeer(self.authority.issue().chain, "client", None)

    def test_an_intermediate_that_completes_chains_is_not_an_end_itself(self) -> None:
        middle = self.authority.intermediate()
        checking = credentials(self.own, [self.authority.cert, middle.cert])
        peer = Issued(middle.cert, middle.key, middle.path, middle.root)
        self.assertEqual(self.refused(checking, peer), chains.BAD_CERTIFICATE)

    def test_an_intermediate_of_the_ca_file_completes_a_chain_that_lacks_it(self) -> None:
        middle = self.authority.intermediate()
        leaf = middle.issue()
        checking = credentials(self.own, [self.authority.cert, middle.cert])
        checking.checkPeer((leaf.cert,), "client", None)

    def test_an_intermediate_alone_in_the_ca_file_is_trusted_and_its_root_is_not(self) -> None:
        middle = self.authority.intermediate()
        checking = credentials(self.own, [middle.cert])
        checking.checkPeer((middle.issue().cert,), "client", None)
        self.assertEqual(self.refused(checking, self.authority.issue()), chains.UNKNOWN_CA)

    def test_an_intermediate_is_missing_from_the_chain(self) -> None:
        leaf = self.authority.intermediate().issue()
        checking = credentials(self.own, self.authority)
        self.assertEqual(self.refused(checking, attrs.evolve(leaf, chain=(leaf.cert,))), chains.UNKNOWN_CA)

    def test_small_rsa_keys_are_refused(self) -> None:
        with mock.patch.object(chains, "MIN_RSA_BITS", 4096):  # making a small key takes longer than this
            checking = credentials(self.own, self.authority)
            peer = self.authority.issue(key=newKey("rsa"))
            self.assertEqual(self.refused(checking, peer), chains.BAD_CERTIFICATE)

    def test_signatures_over_broken_hashes_are_refused(self) -> None:
        peer = self.authority.issue()
        weak = (type(peer.cert.signature_hash_algorithm),)
        with mock.patch.object(chains, "_WEAK_HASHES", weak):  # cryptography no longer signs with SHA-1
            self.assertEqual(self.refused(credentials(self.own, self.authority), peer), chains.BAD_CERTIFICATE)

    def test_an_extension_that_cant_be_parsed_is_a_bad_certificate(self) -> None:
        # A subject alternative name: the DNS name FF, which OpenSSL takes.
        nonsense = x509.UnrecognizedExtension(ObjectIdentifier("2.5.29.17"), b"\x30\x03\x82\x01\xff")
        peer = self.authority.issue(extensions=[nonsense])
        alert = self.refused(credentials(self.own, self.authority), peer, "server", "localhost")
        self.assertEqual(alert, chains.BAD_CERTIFICATE)

    def test_an_unknown_critical_extension_is_a_bad_certificate(self) -> None:
        unknown = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00")
        peer = self.authority.issue(extensions=[unknown])
        self.assertEqual(self.refused(credentials(self.own, self.authority), peer), chains.BAD_CERTIFICATE)

    def test_the_reason_never_carries_control_characters_from_the_certificate(self) -> None:
        peer = Authority("Evil").issue("a\r\nb\x1b[31m\u202e" + "x" * 500)
        checking = credentials(self.own, self.authority)
        rejected = self.assertRaises(CertificateRejected, checking.checkPeer, peer.chain, "client", None)
        self.assertTrue(str(rejected).isprintable())
        self.assertLess(len(str(rejected)), 400)

    def test_a_wildcard_name_covers_one_label(self) -> None:
        listener = self.authority.server("*.example.com")
        checking = credentials(self.authority.issue(), self.authority)
        checking.checkPeer(listener.chain, "server", "a.example.com")
        self.assertEqual(self.refused(checking, listener, "server", "a.b.example.com"), chains.BAD_CERTIFICATE)

    def test_an_address_must_be_in_the_certificate_as_an_address(self) -> None:
        listener = self.authority.server("127.0.0.2")
        checking = credentials(self.authority.issue(), self.authority)
        checking.checkPeer(listener.chain, "server", "127.0.0.2")
        self.assertEqual(self.refused(checking, listener, "server", "127.0.0.1"), chains.BAD_CERTIFICATE)


class Revocation(SynchronousTestCase):
    def setUp(self) -> None:
        self.authority = Authority("Root")
        self.own, self.peer = self.authority.server(), self.authority.issue()

    def alert(self, *crls: x509.CertificateRevocationList, peer: Issued | None = None) -> int:
        checking = credentials(self.own, self.authority, crls)
        chain = (peer or self.peer).chain
        return int(self.assertRaises(CertificateRejected, checking.checkPeer, chain, "client", None).alert)

    def test_a_list_that_names_others_lets_the_peer_pass(self) -> None:
        crl = self.authority.crl(self.authority.issue())
        credentials(self.own, self.authority, [crl]).checkPeer(self.peer.chain, "client", None)

    def test_an_expired_list_refuses_by_default(self) -> None:
        crl = self.authority.crl(lastUpdate=-2 * DAY, nextUpdate=-DAY)
        self.assertEqual(self.alert(crl), chains.BAD_CERTIFICATE)

    def test_an_expired_list_is_used_with_a_warning_when_told_so(self) -> None:
        events = capturedLog(self)
        crl = self.authority.crl(self.authority.issue(), lastUpdate=-2 * DAY, nextUpdate=-DAY)
        credentials(self.own, self.authority, [crl], "warn").checkPeer(self.peer.chain, "client", None)
        self.assertEqual([event["issuer"] for event in events], ["CN=Root"])

    def test_an_expired_list_is_warned_of_once_a_minute_and_each_list_for_itself(self) -> None:
        """Anybody can begin handshakes."""
        events = capturedLog(self)
        other = Authority("Other")
        crls = [each.crl(lastUpdate=-2 * DAY, nextUpdate=-DAY) for each in (self.authority, other)]
        checking = credentials(self.own, self.authority, crls, "warn")
        for seconds in (0.0, 1.0, chains.WARNING_SECONDS + 1.0):
            with mock.patch.object(chains, "datetime") as clock:
                clock.now.return_value = datetime.now(UTC) + timedelta(seconds=seconds)
                for _ in range(3):
                    checking.checkPeer(self.peer.chain, "client", None)
        self.assertEqual(["CN=Root", "CN=Other"] * 2, [event["issuer"] for event in events])

    def test_an_expired_list_still_revokes_when_only_warned_of(self) -> None:
        crl = self.authority.crl(self.peer, lastUpdate=-2 * DAY, nextUpdate=-DAY)
        checking = credentials(self.own, self.authority, [crl], "warn")
        rejected = self.assertRaises(CertificateRejected, checking.checkPeer, self.peer.chain, "client", None)
        self.assertEqual(rejected.alert, chains.CERTIFICATE_REVOKED)

    def test_warning_of_lists_doesnt_excuse_an_expired_certificate(self) -> None:
        peer = self.authority.issue(notBefore=-2 * DAY, notAfter=-DAY)
        checking = credentials(self.own, self.authority, [self.authority.crl()], "warn")
        rejected = self.assertRaises(CertificateRejected, checking.checkPeer, peer.chain, "client", None)
        self.assertEqual(rejected.alert, chains.CERTIFICATE_EXPIRED)

    def test_with_lists_of_others_only_the_peer_is_refused(self) -> None:
        self.assertEqual(self.alert(Authority("Another").crl()), chains.BAD_CERTIFICATE)

    def test_a_list_that_somebody_else_signed_counts_for_nothing(self) -> None:
        self.assertEqual(self.alert(Authority("Root").crl()), chains.BAD_CERTIFICATE)

    def test_a_revoked_intermediate_takes_its_leaves_with_it(self) -> None:
        middle = self.authority.intermediate()
        alert = self.alert(self.authority.crl(middle.cert), middle.crl(), peer=middle.issue())
        self.assertEqual(alert, chains.CERTIFICATE_REVOKED)

    def test_a_revoked_intermediate_counts_even_when_it_stands_in_the_ca_file(self) -> None:
        middle = self.authority.intermediate()
        crls = [self.authority.crl(middle.cert), middle.crl()]
        checking = credentials(self.own, [self.authority.cert, middle.cert], crls)
        rejected = self.assertRaises(CertificateRejected, checking.checkPeer, middle.issue().chain, "client", None)
        self.assertEqual(rejected.alert, chains.CERTIFICATE_REVOKED)

    def test_an_intermediates_issuer_need_not_have_a_list(self) -> None:
        middle = self.authority.intermediate()
        credentials(self.own, self.authority, [middle.crl()]).checkPeer(middle.issue().chain, "client", None)

    def test_standing_notices_revocation_and_the_end_of_life(self) -> None:
        checking = credentials(self.own, self.authority, [self.authority.crl(self.peer)])
        revoked = self.assertRaises(CertificateRejected, checking.checkStanding, self.peer.cert)
        self.assertEqual(revoked.alert, chains.CERTIFICATE_REVOKED)
        old = self.authority.issue(notBefore=-2 * DAY, notAfter=-DAY)
        expired = self.assertRaises(CertificateRejected, checking.checkStanding, old.cert)
        self.assertEqual(expired.alert, chains.CERTIFICATE_EXPIRED)
        checking.checkStanding(self.authority.issue().cert)

    def test_a_running_chain_ends_with_anything_in_it_and_waits_for_lists(self) -> None:
        middle = self.authority.intermediate()
        chain, crls = middle.issue().chain, [self.authority.crl(), middle.crl()]
        credentials(self.own, self.authority, crls).checkRunning(chain, "client")
        late = middle.crl(lastUpdate=-2 * DAY, nextUpdate=-DAY)
        for trusted, lists in (
            (self.authority, [self.authority.crl(middle.cert), middle.crl()]),
            (self.authority, [self.authority.crl(middle.cert), late]),
            (Authority("Another"), crls),
        ):
            checking = credentials(self.own, trusted, lists)
            self.assertRaises(CertificateRejected, checking.checkRunning, chain, "client")
        for lists in ([self.authority.crl()], [self.authority.crl(), late]):
            checking = credentials(self.own, self.authority, lists)
            self.assertRaises(VerifierFault, checking.checkRunning, chain, "client")

    def test_an_empty_subject_is_named_as_such(self) -> None:
        peer = Authority("Another").issue(subject=x509.Name([]))
        checking = credentials(self.own, self.authority)
        rejected = self.assertRaises(CertificateRejected, checking.checkPeer, peer.chain, "client", None)
        self.assertIn("(no name)", str(rejected))
        self.assertEqual(commonName(), x509.Name([]))
