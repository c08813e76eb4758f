"""Dialling. The sockets are real; the time and the polling are the test's."""

import errno
import resource
import socket
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.tcp.dial import dial, dialSocket
from socketwarp.tcp.poll import WRITABLE

from .fakes import Recorder, makePoll


class Distant(socket.socket):
    """A socket whose peer seems to be on another host: the kernel says later how it went."""

    _asked = False

    def connect_ex(self, address: Any) -> int:  # Any: as the socket's own
        if self._asked:
            return errno.EALREADY
        self._asked = True
        super().connect_ex(address)
        return errno.EINPROGRESS


class DialTests(SynchronousTestCase):
    """One address."""

    def setUp(self) -> None:
        self.poll, self.reactor = makePoll()
        self.clock = Clock()
        self.protocols: list[Recorder] = []

    def made(self) -> Recorder:
        self.protocols.append(Recorder())
        return self.protocols[-1]

    def dial(self, host: str, port: int) -> Deferred[None]:
        return dial(self.poll, self.clock, (host, port), 5.0, self.made)

    def server(self, family: socket.AddressFamily, host: str) -> socket.socket:
        server = socket.create_server((host, 0), family=family)
        self.addCleanup(server.close)
        return server

    def nothingIsLeft(self) -> None:
        self.assertEqual(([], []), (self.clock.getDelayedCalls(), self.reactor.readers))

    def test_aConnectionIsMadeAndItsProtocolHasIt(self) -> None:
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            server = self.server(family, host)
            self.successResultOf(self.dial(*server.getsockname()[:2]))
            remote, _ = server.accept()
            self.addCleanup(remote.close)
            remote.sendall(b"hello")
            self.poll.doRead()
            protocol = self.protocols[-1]
            self.assertEqual(b"hello", protocol.received)
            connection = protocol.tcp._socket  # type: ignore[attr-defined]  # the transport's
            self.assertTrue(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            protocol.tcp.abortConnection()
            self.nothingIsLeft()

    def test_whenTheProcessDiesTheTargetSeesAReset(self) -> None:
        """The kernel closes then what we have open, as this does."""
        server = self.server(socket.AF_INET, "127.0.0.1")
        self.successResultOf(self.dial(*server.getsockname()))
        remote, _ = server.accept()
        self.addCleanup(remote.close)
        self.protocols[-1].tcp.loseConnection()
        self.assertRaises(ConnectionResetError, remote.recv, 1)

    def test_aSocketIsHandedOver(self) -> None:
        """Connected, watched by nobody."""
        for kind in (socket.socket, Distant):
            self.patch(socket, "socket", kind)
            server = self.server(socket.AF_INET, "127.0.0.1")
            done = dialSocket(self.poll, self.clock, server.getsockname(), 5.0)
            if kind is Distant:
                self.poll.doRead()
            ours = self.successResultOf(done)
            self.addCleanup(ours.close)
            remote, _ = server.accept()
            self.addCleanup(remote.close)
            remote.sendall(b"hello")
            self.assertEqual((b"hello", False), (ours.recv(10), ours.getblocking()))
            self.assertTrue(ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            self.nothingIsLeft()

    def test_aSocketThatCanNotBeHad(self) -> None:
        """As for a protocol: refused, late, given up."""
        server = self.server(socket.AF_INET, "127.0.0.1")
        place = server.getsockname()
        server.close()
        self.failureResultOf(dialSocket(self.poll, self.clock, place, 5.0), ConnectionRefusedError)
        self.patch(socket, "socket", Distant)
        place = self.server(socket.AF_INET, "127.0.0.1").getsockname()
        late = dialSocket(self.poll, self.clock, place, 5.0)
        self.clock.advance(5.0)
        self.failureResultOf(late, TimeoutError)
        unwanted = dialSocket(self.poll, self.clock, place, 5.0)
        unwanted.cancel()
        self.failureResultOf(unwanted, CancelledError)
        self.nothingIsLeft()

    def test_aRefusalIsOne(self) -> None:
        server = self.server(socket.AF_INET, "127.0.0.1")
        place = server.getsockname()
        server.close()
        self.failureResultOf(self.dial(*place), ConnectionRefusedError)
        self.nothingIsLeft()

    def test_aTargetFurtherAwayIsConnectedLater(self) -> None:
        self.patch(socket, "socket", Distant)
        server = self.server(socket.AF_INET, "127.0.0.1")
        done = self.dial(*server.getsockname())
        self.assertNoResult(done)
        self.poll.doRead()
        self.successResultOf(done)
        self.protocols[0].tcp.abortConnection()
        self.nothingIsLeft()

    def test_aTargetFurtherAwayIsRefusedLater(self) -> None:
        self.patch(socket, "socket", Distant)
        server = self.server(socket.AF_INET, "127.0.0.1")
        place = server.getsockname()
        server.close()
        done = self.dial(*place)
        self.assertNoResult(done)
        self.poll.doRead()
        self.failureResultOf(done, ConnectionRefusedError)
        self.nothingIsLeft()

    def test_anAddressThatCanNotBeReachedFailsAtOnce(self) -> None:
        error = self.failureResultOf(self.dial("255.255.255.255", 80), OSError).value
        self.assertIn(error.errno, (errno.ENETUNREACH, errno.EACCES, errno.EPERM))
        self.nothingIsLeft()

    def silent(self) -> Deferred[None]:
        """A dial that isn't answered, because nobody polls."""
        self.patch(socket, "socket", Distant)
        return self.dial(*self.server(socket.AF_INET, "127.0.0.1").getsockname())

    def test_anAddressThatDoesNotAnswerIsGivenUpInTime(self) -> None:
        done = self.silent()
        self.clock.advance(4.9)
        self.assertNoResult(done)
        self.clock.advance(0.1)
        self.failureResultOf(done, TimeoutError)
        self.nothingIsLeft()

    def test_cancellingLeavesNothing(self) -> None:
        done = self.silent()
        [attempt] = self.poll._owners.values()
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.nothingIsLeft()
        attempt.ready(WRITABLE)
        self.assertEqual([], self.protocols)

    def test_aProtocolThatCanNotBeMadeFailsTheDial(self) -> None:
        done = dial(self.poll, self.clock, self.server(socket.AF_INET, "127.0.0.1").getsockname(), 5.0, lambda: 1 // 0)  # type: ignore[arg-type, return-value]  # to fail
        self.failureResultOf(done, ZeroDivisionError)
        self.nothingIsLeft()

    def test_aFailureOfWhoWaitsIsNotTheDials(self) -> None:
        self.patch(socket, "socket", Distant)
        done = self.dial(*self.server(socket.AF_INET, "127.0.0.1").getsockname())
        [attempt] = self.poll._owners.values()
        attempt.failed(Failure(ZeroDivisionError()))
        self.poll.doRead()
        self.successResultOf(done)
        self.protocols[0].tcp.abortConnection()

    def test_withoutDescriptorsTheDialFails(self) -> None:
        place = self.server(socket.AF_INET, "127.0.0.1").getsockname()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        error = self.failureResultOf(self.dial(*place), OSError).value
        self.assertEqual(errno.EMFILE, error.errno)
