"""The verifier of the settings: whose word counts, how long, and which files it reads."""

from pathlib import Path
from typing import Any

import attrs
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from socketwarp.errors import ConfigurationError, VerifierFault, VerifierRefused
from socketwarp.identity.certificates import Credentials, loadCredentials
from socketwarp.identity.local import LocalVerifier
from socketwarp.identity.scep import ScepVerifier
from socketwarp.identity.watch import FileWatch
from socketwarp.interfaces import IVerifier
from socketwarp.listener.verifier import makeVerifier
from socketwarp.settings import ListenerSettings
from tests.certs import Authority, pem, writeFile


class VerifierTests(SynchronousTestCase):
    """Made of settings and files."""

    def setUp(self) -> None:
        self.directory = self.mktemp()
        Path(self.directory).mkdir()
        self.authority = Authority()
        self.paths = self.authority.server().write(self.directory)
        self.peer = self.authority.issue("uid-1", san=("urn:uid:other-name",)).cert
        self.list = Path(writeFile(self.directory, "list.crl", pem(self.authority.crl())))
        self.settings = ListenerSettings(verifier="local", stateDir=Path(self.directory), crlPaths=(self.list,))
        self.reactor = MemoryReactorClock()
        self.credentials: FileWatch[Credentials] = FileWatch(
            self.reactor,
            [self.list],
            lambda: loadCredentials(self.paths.cert, self.paths.key, self.paths.ca, [self.list]),
        )

    def make(
        self, **changed: Any
    ) -> tuple[Any, list[FileWatch[Any]]]:  # Any: fields of ListenerSettings; either verifier
        verifier, files = makeVerifier(attrs.evolve(self.settings, **changed), self.credentials, self.reactor)
        verifyObject(IVerifier, verifier)
        return verifier, files

    def uid(self, verifier: IVerifier) -> str:
        uid: str = self.successResultOf(verifier.verify(self.peer)).uid
        return uid

    def path(self, name: str, text: str) -> Path:
        return Path(writeFile(self.directory, name, text.encode()))

    def test_theLocalOneNamesTheCommonName(self) -> None:
        verifier, files = self.make()
        self.assertIsInstance(verifier, LocalVerifier)
        self.assertEqual(("uid-1", []), (self.uid(verifier), files))

    def test_theUidIsWhereTheSettingsSay(self) -> None:
        self.assertEqual("other-name", self.uid(self.make(uidSource="uri:urn:uid:")[0]))

    def test_theAccessFileCountsAndIsWatched(self) -> None:
        verifier, (access,) = self.make(accessPath=self.path("access", "deny uid-1"))
        self.failureResultOf(verifier.verify(self.peer), VerifierRefused)
        self.path("access", "allow uid-1")
        self.assertTrue(access.check())
        self.assertEqual("uid-1", self.uid(verifier))

    def test_aBrokenAccessFileIsNamed(self) -> None:
        error = self.assertRaises(ConfigurationError, self.make, accessPath=self.path("access", "permit uid-1"))
        self.assertIn("SWL_ACCESS_PATH", str(error))

    def test_aNewRevocationListCountsAtTheNextQuestion(self) -> None:
        local, _ = self.make()
        scep, _ = self.make(verifier="scep")
        self.assertEqual("uid-1", self.uid(local))
        writeFile(self.directory, "list.crl", pem(self.authority.crl(self.peer)))
        for verifier in (local, scep):
            failure = self.failureResultOf(verifier.verify(self.peer), VerifierRefused)
            self.assertEqual("CN=uid-1: certificate revoked", failure.getErrorMessage())

    def test_decisionsOfTheScepServerAreRememberedForHalfARecheckAtMost(self) -> None:
        for recheck, cache, expected in ((60.0, 3.0, 3.0), (1.0, 3.0, 0.5), (60.0, 0.0, 0.0), (2.0, 60.0, 1.0)):
            verifier, _ = self.make(verifier="scep", recheckSeconds=recheck, scepCacheSeconds=cache)
            self.assertIsInstance(verifier, ScepVerifier)
            self.assertEqual(expected, verifier._cacheSeconds)

    def test_aNewScepCaIsTrustedFromThenOn(self) -> None:
        ca = Path(writeFile(self.directory, "scep-ca.crt", pem(Authority().cert)))
        verifier, (files,) = self.make(verifier="scep", scepUrl="https://scep.example/verify", scepCaPath=ca)
        before = verifier.agent
        writeFile(self.directory, "scep-ca.crt", pem(Authority().cert))
        self.assertTrue(files.check())
        self.assertIsNot(before, verifier.agent)
        self.assertIs(files.current, verifier.agent)

    def test_halfAPairForTheScepServerIsNamed(self) -> None:
        cert = Path(self.paths.cert)
        error = self.assertRaises(ConfigurationError, self.make, verifier="scep", scepCertPath=cert)
        self.assertIn("SWL_SCEP_CERT_PATH", str(error))

    def test_filesAreLookedAtAsOftenAsTheSettingsSay(self) -> None:
        _, (access,) = self.make(accessPath=self.path("access", "deny uid-1"), pollSeconds=2.0)
        access.start()
        self.path("access", "deny uid-2")
        self.reactor.advance(1.9)
        self.assertIn("uid-1", access.current.denied)
        self.reactor.advance(0.2)
        self.assertIn("uid-2", access.current.denied)
        access.stop()

    def test_aStoppedVerifierAsksNoMore(self) -> None:
        verifier, _ = self.make(verifier="scep")
        asked = verifier.verify(self.peer)
        verifier.stop()
        for question in (asked, verifier.verify(self.peer)):
            self.failureResultOf(question, VerifierFault)
        self.make()[0].stop()
