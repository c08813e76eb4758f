"""Servers and clients: who is admitted, what is answered to whom, and that all of it goes away again."""

import gc
from os import urandom
from weakref import ref

from aioquic._buffer import Buffer
from aioquic.quic.packet import QuicPacketType, QuicProtocolVersion, pull_quic_header
from twisted.internet.defer import CancelledError

from socketwarp.errors import Code, SessionLost
from socketwarp.quic import admission, endpoint
from socketwarp.quic.admission import MAX_HANDSHAKES, RETRIES_PER_SECOND, RETRY_THRESHOLD
from socketwarp.quic.batch import Batch
from socketwarp.quic.endpoint import TransportSettings
from socketwarp.quic.engine import Engine

from ..certs import credentials, world
from ..pump import batchesOf, datagramsOf, newClient
from .net import SERVER, Network, NetworkCase, Notes, Port

STRANGER = ("198.51.100.7", 9999)


def firstDatagram() -> bytes:
    """A client's first datagram, 1,200 bytes."""
    client = newClient(False)
    client.connect(SERVER, 1000.0)
    ((datagram, _),) = datagramsOf(client, 1000.0)
    return datagram


class EndpointCase(NetworkCase):
    def strange(self, *datagrams: bytes, source: tuple[str, int] = STRANGER) -> list[bytes]:
        """What a stranger gets in answer, at once."""
        before = len(self.network.log)
        for batch in batchesOf(datagrams):
            self.port.handler.batchReceived(batch, source)
        self.port.handler.turnEnded()
        return [data for _, to, data in self.network.log[before:] if to == source]

    def unfinished(self) -> int:
        return len(self.server._sessions)


class ConnectTests(EndpointCase):
    def test_bothEndsHaveASessionWhenTheServerHasAcceptedTheClient(self) -> None:
        client, server = self.connect()
        ours, theirs = self.open(client, server)
        notes = Notes(ours)
        theirs.write(b"hello")
        self.network.run(1)
        self.assertEqual(b"hello", notes.data)
        self.assertEqual(SERVER, self.server.address)

    def test_aClientThatIsRefusedHearsWhy(self) -> None:
        expired = world().revoked
        connecting = self.connecting(credentials(expired, world().authority))
        self.network.run(1)
        error = self.failureResultOf(connecting, SessionLost).value
        self.assertEqual((0x100 + 44, True), (error.errorCode, error.fromPeer))
        self.assertIn("revoked", str(error))
        self.assertEqual([], self.sessions)
        ((_, address, told),) = self.refused
        self.assertEqual(("192.0.2.2", 0x100 + 44), (address[0], told.errorCode))
        self.network.run(5)
        self.assertEqual(({}, {}, [SERVER]), (self.server._sessions, self.server._routes, list(self.network.ports)))

    def test_aClientThatDoesNotTrustTheServerSaysSo(self) -> None:
        other = world().other
        connecting = self.connecting(credentials(other.issue("swc-1"), other))
        self.network.run(5)
        error = self.failureResultOf(connecting, SessionLost).value
        self.assertEqual((0x100 + 48, False), (error.errorCode, error.fromPeer))
        self.assertEqual(1, len(self.refused))
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_aClientGivesUpWhenNobodyAnswers(self) -> None:
        self.network.passes = lambda port, datagram: port is self.port
        connecting = self.connecting()
        self.network.run(9.9)
        self.assertNoResult(connecting)
        self.network.run(0.2)
        self.assertIsNone(self.failureResultOf(connecting, SessionLost).value.errorCode)
        self.assertEqual(([], [SERVER]), (self.clock.getDelayedCalls(), list(self.network.ports)))

    def test_cancellingGivesUp(self) -> None:
        connecting = self.connecting()
        self.clock.advance(0.0005)
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertEqual([SERVER], list(self.network.ports))
        self.network.run(15)
        self.assertEqual(([], [], {}), (self.sessions, self.clock.getDelayedCalls(), self.server._sessions))

    def test_whoGivesUpInTheHandshakeHasRefusedNobody(self) -> None:
        """It has seen the server's flight, and closes by the server's connection id; its own flight was lost."""
        self.network.passes = lambda port, datagram: port is self.port or not self.network.log
        connecting = self.connecting()
        self.network.run(0.1)
        self.assertNoResult(connecting)
        self.network.passes = lambda port, datagram: True
        ((session, _),) = self.server._sessions.items()
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.network.run(15)
        self.assertEqual((True, False), (self.successResultOf(session.whenClosed()).fromPeer, session.isEstablished))
        self.assertEqual([], self.refused)

    def test_newCredentialsCountForNewSessions(self) -> None:
        self.connect()
        self.server.credentials = credentials(world().other.server(), world().other)
        connecting = self.connecting()
        self.network.run(5)
        self.assertEqual(0x100 + 48, self.failureResultOf(connecting, SessionLost).value.errorCode)
        self.assertEqual((1, True), (len(self.sessions), self.sessions[0].isOpen))

    def test_ipv6AddressesAreGivenToTheSocketAsFourParts(self) -> None:
        bound = []

        def bind(network: Network, interface: str, port: int, size: int) -> tuple[str, int]:
            bound.append(interface)
            return interface, 1

        self.patch(Network, "_bind", bind)
        sent = []
        self.patch(Port, "send", lambda port, transmission: sent.append(transmission.address))
        self.network.patch(self)
        authority = world().authority
        connecting = endpoint.connect(
            self.clock,  # type: ignore[arg-type]  # see net
            ("2001:db8::1", 443),
            "localhost",
            credentials(authority.issue(), authority),
            ["hq-29"],
            TransportSettings(),
        )
        self.assertEqual((["::"], {("2001:db8::1", 443, 0, 0)}), (bound, set(sent)))
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)


class AdmissionTests(EndpointCase):
    def test_anAbandonedHandshakeIsGoneWithinTenSeconds(self) -> None:
        for _ in range(20):
            self.strange(firstDatagram())
        self.assertEqual(20, self.unfinished())
        self.network.run(10.1)
        self.assertEqual((0, {}), (self.unfinished(), self.server._routes))
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_itsMemoryIsFreeThenWithoutACollection(self) -> None:
        """Or strangers could fill the memory with what nobody looks for yet."""
        gc.disable()
        self.addCleanup(gc.enable)
        for _ in range(3):
            self.strange(firstDatagram())
        parts = [ref(each) for session in self.server._sessions for each in (session, session._engine)]
        self.assertEqual(6, len(parts))
        self.network.run(10.1)
        self.assertEqual([None] * 6, [each() for each in parts])

    def test_ofASessionThatIsOverOnlyItsEndIsKept(self) -> None:
        _, server = self.connect()
        gc.disable()
        self.addCleanup(gc.enable)
        parts = [ref(each) for each in (server._engine.tls, server._engine._oneRttKeys)]
        chain, address = server.peerChain, server.peerAddress
        server.close(0, "enough")
        self.network.run(5)
        self.assertEqual([None] * 2, [each() for each in parts])
        self.assertEqual((chain, address), (server.peerChain, server.peerAddress))
        self.assertEqual(0, server.statistics().pathMtu)
        self.successResultOf(server.whenClosed())

    def test_atMostThreeTimesWhatCameIsSentBeforeValidation(self) -> None:
        """RFC 9000 §8.1, over all its retransmissions."""
        answers = self.strange(firstDatagram())
        self.assertTrue(answers)
        self.network.run(10)
        total = sum(len(data) for _, to, data in self.network.log if to == STRANGER)
        self.assertLessEqual(total, 3 * 1200)

    def test_aboveAThresholdClientsMustShowThatTheirAddressIsTheirs(self) -> None:
        for _ in range(RETRY_THRESHOLD):
            self.strange(firstDatagram())
        (answer,) = self.strange(firstDatagram())
        header = pull_quic_header(Buffer(data=answer), host_cid_length=8)
        self.assertEqual(QuicPacketType.RETRY, header.packet_type)
        self.assertEqual(RETRY_THRESHOLD, self.unfinished())
        client, server = self.connect()
        self.assertEqual((True, True), (client.isOpen, server.isOpen))

    def test_soManyRetriesASecondAreGiven(self) -> None:
        self.patch(admission, "RETRY_THRESHOLD", 0)
        datagram = firstDatagram()
        for _ in range(RETRIES_PER_SECOND):
            self.assertEqual(1, len(self.strange(datagram)))
        self.assertEqual([], self.strange(datagram))
        self.clock.advance(1.5 / RETRIES_PER_SECOND)
        self.assertEqual(1, len(self.strange(datagram)))
        self.assertEqual([], self.strange(datagram))

    def test_sessionsThatAreEstablishedAreNotUnfinished(self) -> None:
        _, server = self.connect()
        self.strange(firstDatagram())
        self.assertEqual((2, 1), (len(self.server._sessions), len(self.server._unfinished)))
        server.close(0, "enough")
        self.network.run(10.1)
        self.assertEqual(({}, set()), (self.server._sessions, self.server._unfinished))

    def test_aTokenOfAnotherAddressOrOfNobodyIsDropped(self) -> None:
        for _ in range(RETRY_THRESHOLD):
            self.strange(firstDatagram())
        client = newClient(False)
        client.connect(SERVER, 1000.0)
        ((first, _),) = datagramsOf(client, 1000.0)
        (retry,) = self.strange(first)
        client.receive_datagram(retry, SERVER, 1000.0)
        ((second, _),) = datagramsOf(client, 1000.0)
        self.assertEqual([], self.strange(second, source=("198.51.100.8", 9999)))
        self.assertEqual(RETRY_THRESHOLD, self.unfinished())
        self.assertTrue(self.strange(second))
        self.assertEqual(RETRY_THRESHOLD + 1, self.unfinished())

    def test_aboveASecondThresholdNobodyIsHeard(self) -> None:
        self.patch(admission, "MAX_HANDSHAKES", RETRY_THRESHOLD)
        self.assertGreater(MAX_HANDSHAKES, RETRY_THRESHOLD)
        for _ in range(RETRY_THRESHOLD):
            self.strange(firstDatagram())
        self.assertEqual([], self.strange(firstDatagram()))

    def test_otherVersionsAreToldOursUnlessTheDatagramIsShort(self) -> None:
        first = firstDatagram()
        strange = first[:1] + b"\x1a\x2a\x3a\x4a" + first[5:]
        (answer,) = self.strange(strange)
        header = pull_quic_header(Buffer(data=answer), host_cid_length=8)
        self.assertEqual(
            (QuicPacketType.VERSION_NEGOTIATION, [QuicProtocolVersion.VERSION_1]),
            (header.packet_type, header.supported_versions),
        )
        self.assertEqual([], self.strange(strange[:1199]))
        self.assertEqual([], self.strange(first[:1] + bytes(4) + first[5:]))
        self.assertEqual(0, self.unfinished())

    def test_whatIsNoFirstDatagramIsDropped(self) -> None:
        first = firstDatagram()
        handshake = bytes((0xE0,)) + first[1:]
        # Of another version, too, when what should be a connection id is too long (a random one may be short enough).
        for datagram in (first[:1199], handshake, b"\xc0", b"\xc0\0\0\0\1\xff" + bytes(1300), b"\xc0" + b"\xa5" * 1300):
            self.assertEqual([], self.strange(datagram))
        self.assertEqual(0, self.unfinished())

    def test_randomDatagramsRaiseNothingAndLeaveNothing(self) -> None:
        for size in (1, 2, 5, 6, 7, 20, 21, 50, 1200, 1300):
            for _ in range(20):
                answers = self.strange(urandom(size))
                self.assertTrue(all(len(each) < size for each in answers))
        self.network.run(20)
        self.assertEqual({}, self.server._sessions)

    def test_datagramsOfManyInOneBufferReachTheirSessions(self) -> None:
        """What UDP_GRO brings may mix connection ids, known and new."""
        firsts = [firstDatagram() for _ in range(3)]
        self.strange(firsts[0], firsts[0], firsts[1], firsts[2], firsts[1])
        self.assertEqual(3, self.unfinished())


class RoutingTests(EndpointCase):
    def test_routesFollowTheConnectionIdsAndGoWithTheSession(self) -> None:
        client, server = self.connect()
        self.network.run(1)
        routes = [route for route, session in self.server._routes.items() if session is server]
        self.assertGreaterEqual(len(routes), 3)
        client._engine.change_connection_id()
        client._engine.send_ping(0)
        client.turn()
        self.network.run(1)
        self.assertNotEqual(routes, list(self.server._routes))
        ours, theirs = self.open(client, server)
        notes = Notes(ours)
        theirs.write(b"by another id")
        self.network.run(1)
        self.assertEqual(b"by another id", notes.data)
        client.close(0, "")
        self.network.run(5)
        self.assertEqual(({}, {}), (self.server._routes, self.server._sessions))
        self.server.addRoute(b"late", server)
        self.server.removeRoute(b"never")
        self.assertEqual({}, self.server._routes)

    def test_aClientThatMovesKeepsItsSession(self) -> None:
        client, server = self.connect()
        ours, theirs = self.open(client, server)
        notes = Notes(theirs)
        ours.write(bytes(500_000))
        self.network.run(0.01)
        port = self.network.ports[client._sender.address]  # type: ignore[attr-defined]  # a net.Port
        port.address = ("192.0.2.99", 777)
        self.network.ports[port.address] = port
        client._engine.send_ping(0)
        client.turn()
        self.network.run(5)
        self.assertEqual(500_001, len(notes.data))
        self.assertEqual(("192.0.2.99", 777), server.peerAddress)

    def test_aRestartedServerResetsSessionsThatItDoesNotKnow(self) -> None:
        """RFC 9000 §10.3: the client hears at its next packet, not after its idle time."""
        client, _ = self.connect()
        self.network.run(1)
        closed = self.closedOf(client)
        again = self.newServer(self.server.credentials)
        again._port = self.port  # type: ignore[assignment]  # see net
        self.port.handler = again
        client._engine.send_ping(0)
        client.turn()
        self.network.run(1)
        self.assertEqual(1, len(closed))

    def test_aFaultOfOursEndsOneSessionAndNotThePort(self) -> None:
        for name in ("turn", "receive"):
            _, faulty = self.connect()
            client, other = self.connect()

            faults = self.patch(faulty, name, lambda *arguments: 1 // 0)
            datagram = memoryview(b"\x40" + faulty._engine.host_cid + bytes(30))
            self.server._give(Batch(datagram, len(datagram)), ("192.0.2.2", 1))
            self.port.handler.turnEnded()
            faults.restore()
            self.port.handler.writable()
            self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
            self.assertEqual((False, True), (faulty.isOpen, other.isOpen))
            ours, theirs = self.open(client, other)
            notes = Notes(ours)
            theirs.write(b"hello")
            self.network.run(1)
            self.assertEqual(b"hello", notes.data)

    def test_aFaultOfOursEndsAClientsSessionToo(self) -> None:
        """So that it connects again; without its port it would wait until the session is silent."""
        for name in ("turn", "receive"):
            client, _ = self.connect()
            closed = self.closedOf(client)
            port = next(each for each in self.network.ports.values() if each is not self.port)
            faults = self.patch(client, name, lambda *arguments: 1 // 0)
            datagram = memoryview(b"\x40" + client._engine.host_cid + bytes(30))
            port.handler.batchReceived(Batch(datagram, len(datagram)), SERVER)
            port.handler.turnEnded()
            port.handler.writable()
            faults.restore()
            self.assertNotEqual([], self.flushLoggedErrors(ZeroDivisionError))
            self.network.run(5)
            self.assertEqual([Code.INTERNAL], [error.errorCode for error in closed])

    def test_whenTheSocketTakesMoreAllSessionsGoOn(self) -> None:
        client, server = self.connect()
        ours, theirs = self.open(client, server)
        notes = Notes(theirs)
        self.port.isBlocked = True
        ours.write(b"held back")
        self.network.run(0.5)
        self.assertEqual(b"!", notes.data)
        self.port.unblock()
        self.network.run(0.5)
        self.assertEqual(b"!held back", notes.data)
        port = self.network.ports[client._sender.address]  # type: ignore[attr-defined]  # a net.Port
        port.unblock()


class StopTests(EndpointCase):
    def test_stopFiresWhenTheLastSessionIsGone(self) -> None:
        client, _ = self.connect()
        closed = self.closedOf(client)
        stopped = self.server.stop()
        self.assertNoResult(stopped)
        self.network.run(5)
        self.assertIsNone(self.successResultOf(stopped))
        self.assertEqual((Code.SHUTDOWN, "the listener stops"), (closed[0].errorCode, str(closed[0])))
        self.assertEqual(({}, []), (self.network.ports, self.clock.getDelayedCalls()))

    def test_stopFiresAtOnceWithoutSessions(self) -> None:
        self.successResultOf(self.server.stop())
        self.assertEqual({}, self.network.ports)
        self.successResultOf(self.newServer(world().checking("client")).stop())

    def test_whileItStopsNobodyIsAdmitted(self) -> None:
        self.connect()
        stopped = self.server.stop()
        self.assertEqual([], self.strange(firstDatagram()))
        self.network.run(5)
        self.successResultOf(stopped)


class ManyTests(EndpointCase):
    def test_shortStreamsOneAfterTheOtherLeaveNothing(self) -> None:
        client, server = self.connect()
        accepted: list[Notes] = []

        def accept(stream: object) -> None:
            notes = Notes(stream)  # type: ignore[arg-type]  # an IStream
            notes.stream.loseWriteConnection()
            accepted.append(notes)

        client.acceptStreams(accept)
        for _ in range(300):
            stream = self.successResultOf(server.openStream())
            Notes(stream)
            stream.write(b"x")
            stream.loseWriteConnection()
            self.network.run(0.02)
        self.network.run(1)
        self.assertEqual(300, len(accepted))
        for session in (client, server):
            engine = session._engine
            assert isinstance(engine, Engine)
            self.assertEqual(
                ({}, {}, {}, {}, 0),
                (
                    engine.streams.states,
                    engine.streams.touched,
                    engine.streams.served,
                    engine.streams.due,
                    len(engine.streams.sendable),
                ),
            )
            # ACKs that nobody acknowledges are forgotten with the next packet that is acknowledged.
            self.assertLess(sum(map(len, engine.recovery._sent.values())), 5)
