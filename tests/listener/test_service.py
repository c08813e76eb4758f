"""The listener as one service."""

from pathlib import Path
from time import time
from typing import Any

import attrs
from twisted.application.service import IService
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.testing import MemoryReactorClock
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from socketwarp.errors import (
    AddressUnavailable,
    CertificateRejected,
    Code,
    ConfigurationError,
    PortDenied,
    PortUnavailable,
)
from socketwarp.identity.local import LocalVerifier
from socketwarp.identity.scep import ScepVerifier
from socketwarp.interfaces import Address, IReloadable, IStateful
from socketwarp.listener import service as listening
from socketwarp.listener.api import Api, ApiServer, makeSite
from socketwarp.listener.audit import AuditLog
from socketwarp.listener.connectors import Connectors, Terms
from socketwarp.listener.service import ListenerService, makeListener
from socketwarp.listener.store import Kept
from socketwarp.listener.wishes import PortSpec
from socketwarp.memory import LOOK_SECONDS
from socketwarp.settings import ListenerSettings, parsePortRanges
from tests.certs import Authority, pem, writeFile
from tests.fakes import sessionPair
from tests.listener.rig import Rig
from tests.tls.rig import Rig as TlsRig


class FakeQuic:
    """A QUIC server that only remembers."""

    def __init__(self, done: list[str]) -> None:
        self.done = done
        self.address: Address = ("0.0.0.0", 0)

    def listen(self, interface: str, port: int) -> None:
        self.done.append("quic listens")
        self.address = (interface, port)

    def stop(self) -> Deferred[None]:
        self.done.append("quic stops")
        return succeed(None)


class FakeTls(FakeQuic):
    """The same, for the other carrier; somebody else may have its port."""

    busy = False

    def listen(self, interface: str, port: int) -> None:
        if self.busy:
            raise PortUnavailable(f"port {port} can't be opened on {interface}: in use")
        self.done.append(f"tls listens at {port}")
        self.address = (interface, port)

    def stop(self) -> Deferred[None]:
        self.done.append("tls stops")
        return succeed(None)


class FakeThreads(ThreadPool):
    """Threads that only remember."""

    def __init__(self, done: list[str]) -> None:
        super().__init__(0, 1)
        self.done = done

    def start(self) -> None:
        self.done.append("threads start")

    def stop(self) -> None:
        self.done.append("threads stop")


@attrs.define
class FakeWatch:
    """A watch that only remembers."""

    done: list[str]

    def start(self) -> None:
        self.done.append("watch starts")

    def stop(self) -> None:
        self.done.append("watch stops")


class BusyReactor(MemoryReactorClock):
    """Somebody else has the API's port."""

    def listenTCP(self, port: int, factory: object, backlog: int = 50, interface: str = "") -> IListeningPort:
        raise CannotListenError(interface, port, OSError(98, "Address already in use"))


class ServiceTests(SynchronousTestCase):
    """Start and stop, in their order."""

    def setUp(self) -> None:
        self.rig = Rig()
        self.done: list[str] = []
        self.settings = ListenerSettings(port=11443, apiPort=8080)
        self.service = self.makeService(MemoryReactorClock())

    def makeService(self, reactor: Any, tls: Any = None) -> ListenerService:  # Any: as makeListener's; a fake
        watch: Any = FakeWatch(self.done)  # Any: a fake, by shape
        quic: Any = FakeQuic(self.done)  # Any: the same
        rig, threads = self.rig, FakeThreads(self.done)
        api = Api(rig.reactor, rig.connectors, rig.ports, rig.events)
        server = ApiServer(api, makeSite(api))
        audit = AuditLog(Path(self.mktemp()), rig.events)
        ends = rig.verifier, rig.connectors, quic, tls
        return ListenerService(self.settings, reactor, [watch], *ends, rig.ports, rig.store, threads, server, audit)

    def test_itIsAService(self) -> None:
        for interface in (IService, IReloadable, IStateful):
            self.assertTrue(verifyObject(interface, self.service))

    def test_socketsComeFirst(self) -> None:
        """Behind what is kept on the disk, which may be opened before."""
        self.service.openState()
        self.assertEqual([], self.done)
        self.service.privilegedStartService()
        self.assertEqual(["quic listens"], self.done)
        self.assertEqual(("0.0.0.0", 11443), self.service.quicAddress)
        self.service.startService()
        self.assertEqual(["quic listens", "threads start", "watch starts"], self.done)

    def test_withoutPrivilegesTheSocketsComeWithTheRest(self) -> None:
        self.service.startService()
        self.assertEqual(["quic listens", "threads start", "watch starts"], self.done)
        self.assertTrue(self.service.running)

    def test_storedPortsAreOpenAgain(self) -> None:
        self.rig.store.disk = {18080: PortSpec(18080, "uid-1", "x", 80)}
        self.service.startService()
        self.assertIn(18080, self.rig.sockets.bound)

    def test_aTakenApiPortIsNamedAndNothingStaysOpen(self) -> None:
        error = self.assertRaises(AddressUnavailable, self.makeService(BusyReactor()).startService)
        self.assertIn("APIS_PORT: the API can't listen on 127.0.0.1 port 8080 (Address already in use)", str(error))
        self.assertIn("8080", str(error))
        self.assertEqual(["quic listens", "quic stops"], self.done)

    def test_aTakenPortForConnectorsIsNamed(self) -> None:
        def listen(interface: str, port: int) -> None:
            raise AddressUnavailable(f"UDP {interface} port {port} can't be bound")

        self.service._quic.listen = listen  # type: ignore[method-assign]  # a port that somebody has
        error = self.assertRaises(AddressUnavailable, self.service.startService)
        self.assertIn("SWL_PORT: UDP 0.0.0.0 port 11443", str(error))

    def serviceWithTls(self, tlsPort: Any, busy: bool = False) -> ListenerService:  # Any: as in the settings
        self.settings = ListenerSettings(port=11443, apiPort=8080, tlsPort=tlsPort)
        tls = FakeTls(self.done)
        tls.busy = busy
        return self.makeService(MemoryReactorClock(), tls)

    def test_theTlsPortIsThatOfQuicOrOneOfItsOwn(self) -> None:
        for tlsPort, number in (("same", 11443), (4433, 4433)):
            del self.done[:]
            service = self.serviceWithTls(tlsPort)
            service.privilegedStartService()
            self.assertEqual(["quic listens", f"tls listens at {number}"], self.done)
            self.assertEqual(("0.0.0.0", number), service.tlsAddress)

    def test_anyPortIsOneThatBothCarriersCanHave(self) -> None:
        self.patch(listening, "freeForBoth", lambda address: 4711)
        service = self.serviceWithTls("same")
        service._settings = attrs.evolve(service._settings, port=0)
        service.privilegedStartService()
        self.assertEqual((4711, 4711), (service.quicAddress[1], (service.tlsAddress or ("", 0))[1]))
        service = self.makeService(MemoryReactorClock())
        service._settings = attrs.evolve(service._settings, port=0)
        service.privilegedStartService()
        self.assertEqual(0, service.quicAddress[1])

    def test_withoutTlsThereIsNoAddress(self) -> None:
        self.service.privilegedStartService()
        self.assertIsNone(self.service.tlsAddress)

    def test_aPortThatIsTakenIsMissedOnlyWhenItWasAskedFor(self) -> None:
        """A host that uses the TCP port of QUIC's number for something else has always been able to."""
        self.serviceWithTls("same", busy=True).startService()
        self.assertIn("threads start", self.done)
        del self.done[:]
        service = self.serviceWithTls(4433, busy=True)
        error = self.assertRaises(AddressUnavailable, service.startService)
        self.assertIn("SWL_TLS_PORT: port 4433", str(error))
        self.assertEqual(["quic listens", "quic stops"], self.done)

    def test_anEntryPortOfThatNumberGoesBefore(self) -> None:
        self.rig.store.disk = {11443: PortSpec(11443, "uid-1", "x", 80)}
        self.serviceWithTls("same").startService()
        self.assertNotIn("tls listens at 11443", self.done)
        self.assertIn(11443, self.rig.sockets.bound)

    def test_itStopsWithTheOtherCarrier(self) -> None:
        service = self.serviceWithTls("same")
        service.startService()
        del self.done[:]
        self.successResultOf(service.stopService())
        self.assertEqual(["watch stops", "tls stops", "quic stops", "threads stop"], self.done)

    def test_withAStoreThatCannotBeTrustedNothingIsOpened(self) -> None:
        def load() -> list[Kept]:
            raise ConfigurationError("damaged")

        self.rig.store.load = load  # type: ignore[method-assign]  # a store that fails
        self.assertRaises(ConfigurationError, self.service.privilegedStartService)
        self.assertRaises(ConfigurationError, self.service.startService)
        self.assertEqual([], self.done)
        self.assertFalse(self.service.running)

    def test_itStopsOnceVisitorsAndSessionsAreGone(self) -> None:
        self.service.startService()
        session = self.rig.connected()
        self.successResultOf(self.rig.ports.desire(PortSpec(18080, "uid-1", "x", 80)))
        visitor = self.rig.visit(18080)
        self.rig.settle()
        del self.done[:]
        self.patch(self.service._api, "stopListening", lambda: self.done.append("API stops"))
        stopping = self.service.stopService()
        self.assertEqual({}, self.rig.sockets.bound)
        self.assertEqual([], self.done)
        self.assertIsNone(session.closedWith)
        self.rig.reactor.advance(self.settings.drainSeconds)
        self.rig.settle()
        self.successResultOf(stopping)
        self.assertTrue(visitor.sawReset)
        self.assertEqual((Code.SHUTDOWN, "the listener stops"), session.closedWith)
        self.assertEqual(["watch stops", "API stops", "quic stops", "threads stop"], self.done)
        self.assertTrue(self.rig.verifier.isStopped)
        self.assertEqual([], self.rig.reactor.getDelayedCalls())

    def test_visitorsWhoWaitForAConnectorDoNotHoldItUp(self) -> None:
        self.service.startService()
        self.successResultOf(self.rig.ports.desire(PortSpec(18080, "uid-1", "x", 80)))
        visitor = self.rig.visit(18080)
        self.rig.settle()
        stopping = self.service.stopService()
        self.rig.settle()
        self.assertTrue(visitor.sawReset)
        self.successResultOf(stopping)

    def test_portsAreClosedBeforeConnectorsHearOfIt(self) -> None:
        """Or a visitor could come in between, and wait for nobody."""
        self.service.startService()
        self.successResultOf(self.rig.ports.desire(PortSpec(18080, "uid-1", "x", 80)))
        bound: list[int] = []
        self.patch(Connectors, "drain", lambda *_: bound.append(len(self.rig.sockets.bound)))
        self.service.stopService()
        self.assertEqual([0], bound)


class MakeListenerTests(SynchronousTestCase):
    """From the settings to the service."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        paths = Authority().issue("localhost", eku=("server",)).write(str(self.directory))
        self.settings = ListenerSettings(
            certPath=Path(paths.cert), keyPath=Path(paths.key), caPath=Path(paths.ca), stateDir=self.directory / "state"
        )

    def make(self, **changed: Any) -> ListenerService:  # Any: fields of ListenerSettings
        service = makeListener(attrs.evolve(self.settings, **changed), MemoryReactorClock())
        assert isinstance(service, ListenerService)
        return service

    def test_nothingIsOpenedYet(self) -> None:
        self.make()
        self.assertFalse((self.directory / "state").exists())

    def test_theVerifierIsTheOneOfTheSettings(self) -> None:
        self.assertIsInstance(self.make().connectors._verifier, ScepVerifier)
        self.assertIsInstance(self.make(verifier="local").connectors._verifier, LocalVerifier)

    def test_sessionsAreVerifiedAgainAsOftenAsTheSettingsSay(self) -> None:
        policy = self.make(recheckSeconds=7, recheckGrace=0).connectors._policy
        self.assertEqual((7, 0), (policy.seconds, policy.grace))

    def test_connectorsAreHereOnTheTermsOfTheSettings(self) -> None:
        service = self.make(keepAlive=7.0, idleTimeout=21.0, sharedUids=("uid-1",), parkSeconds=2.0)
        self.assertEqual(Terms(7.0, 21.0, frozenset({"uid-1"})), service.connectors._terms)
        self.assertEqual(2.0, service.ports._lobby.limits.parkSeconds)

    def test_visitorsWaitOutsideWhileMemoryIsUsedUp(self) -> None:
        """And the events say which setting that is."""
        reactor = MemoryReactorClock()
        service = makeListener(attrs.evolve(self.settings, memoryBudget=20_000_000), reactor)
        assert isinstance(service, ListenerService)
        events = service.ports._lobby.events
        session, _ = sessionPair(reactor)
        service._quic._onSession(session)
        session.buffered = 20_000_000
        reactor.advance(LOOK_SECONDS)
        reason = service.ports.pausedBy
        session.buffered = 0
        reactor.advance(LOOK_SECONDS)
        paused, resumed = (event for event in events.since(0) if event.name.startswith("port."))
        self.assertEqual(("port.paused", "port.resumed"), (paused.name, resumed.name))
        self.assertEqual("20000000 bytes of memory are used up (SWL_MEMORY_BUDGET)", paused.fields["reason"])
        self.assertEqual((paused.fields["reason"], ""), (reason, service.ports.pausedBy))

    def test_whatIsSaidAsPosixTimeIsTheSystemsClocks(self) -> None:
        """Of events, and of those who are denied; the reactor's passes evenly."""
        service = makeListener(self.settings, MemoryReactorClock(), lambda: 17.0)
        assert isinstance(service, ListenerService)
        self.assertEqual((17.0, 17.0), (service.ports._lobby.events.now(), service.connectors.denials._now()))
        events = self.make().ports._lobby.events
        self.assertLess(abs(events.now() - time()), 3600)

    def test_theApiAsksTheAuditLogWhetherItCanBeWritten(self) -> None:
        service = self.make()
        self.assertEqual(service._audit.fault, service._apiServer._api.auditFault)

    def test_visitorsWhoWaitForALaneAreOwedADescriptor(self) -> None:
        """Over all sessions, until they have it."""
        service = makeListener(self.settings, MemoryReactorClock())
        assert isinstance(service, ListenerService) and service._tls is not None
        tls = TlsRig()
        self.addCleanup(tls.release)
        service._tls._open = tls.server._open
        owed = service._tls._listen.__self__.owed  # type: ignore[attr-defined]  # a method of Descriptors
        opened = [session.openStream() for session in (tls.pair()[0], tls.pair()[0]) for _ in range(20)]
        free = sum(stream.called for stream in opened)
        self.assertEqual((40 - free, 40 - free), (tls.server.waiting, owed()))
        self.assertGreater(owed(), 0)
        tls.run()
        self.assertEqual(0, owed())

    def test_bothDialectsAreOffered(self) -> None:
        self.assertEqual(["socketwarp/1", "hq-29"], self.make()._quic._protocols)

    def test_entryPortsAreThoseOfTheSettings(self) -> None:
        self.assertTrue(self.make().ports.mayOpen(1))
        ports = self.make(allowPorts=parsePortRanges("8080,18000-18099")).ports
        self.assertEqual([True, True, False], [ports.mayOpen(port) for port in (8080, 18050, 18100)])

    def test_theTransportIsTheOneOfTheSettings(self) -> None:
        changed = {"idleTimeout": 11.0, "keepAlive": 3.0, "handshakeTimeout": 4.0}
        sizes = {"streamWindow": 65536, "sessionWindow": 131072, "streamLimit": 12, "socketBuffer": 65536}
        transport = self.make(**changed, **sizes)._quic._settings
        self.assertEqual(changed | sizes, {name: getattr(transport, name) for name in changed | sizes})

    def test_tlsIsSpokenAsTheSettingsSayOrNot(self) -> None:
        changed = {"idleTimeout": 11.0, "keepAlive": 3.0, "handshakeTimeout": 4.0, "streamLimit": 12}
        tls = self.make(**changed)._tls
        assert tls is not None
        self.assertEqual(changed, attrs.asdict(tls._settings))
        self.assertIsNone(self.make(tlsPort="off")._tls)

    def test_newCertificatesAreForNewSessions(self) -> None:
        service = self.make()
        fresh = Authority().issue("localhost", eku=("server",))
        fresh.write(str(self.directory))
        service.reload()
        self.assertEqual(fresh.cert, service._quic.credentials.chain[0])
        assert service._tls is not None
        self.assertEqual(fresh.cert, service._tls.credentials.chain[0])

    def test_aReloadLooksAtTheVerifiersFilesToo(self) -> None:
        access = Path(writeFile(str(self.directory), "access", b"deny uid-1"))
        service = self.make(verifier="local", accessPath=access)
        writeFile(str(self.directory), "access", b"deny uid-2")
        service.reload()
        self.assertEqual({"uid-2"}, service._files[1].current.denied)

    def test_revocationListsAreThoseOfTheSettings(self) -> None:
        authority = Authority()
        authority.server().write(str(self.directory))
        revoked = authority.issue("uid-1")
        path = Path(writeFile(str(self.directory), "list.crl", pem(authority.crl(revoked))))
        credentials = self.make(crlPaths=(path,))._files[0].current
        error = self.assertRaises(CertificateRejected, credentials.checkPeer, revoked.chain, "client", None)
        self.assertEqual(44, error.alert)
        credentials.checkPeer(authority.issue("uid-2").chain, "client", None)

    def test_thePolicyIsTheOneOfItsFile(self) -> None:
        path = self.directory / "policy.toml"
        path.write_text("[[port]]\nuids = ['a']")
        service = self.make(policyPath=path)
        spec = PortSpec(18080, "b", "x", 80)
        self.assertRaises(PortDenied, service.ports.check, spec)
        path.write_text("[[port]]\nuids = ['a', 'b']")
        service.reload()
        service.ports.check(spec)

    def test_aMissingFileIsAnErrorOfTheConfiguration(self) -> None:
        error = self.assertRaises(ConfigurationError, self.make, certPath=self.directory / "none.crt")
        self.assertIn("SWL_CERT_PATH", str(error))
