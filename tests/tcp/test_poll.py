"""The sockets' own epoll set. The sockets are real, because the kernel does the work."""

import os
import socket
from collections.abc import Callable

from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.main import CONNECTION_DONE
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from socketwarp.coalescing import COALESCING_SECONDS
from socketwarp.tcp.poll import BROKEN, ENDED, FINISHED, QUIET, READABLE, WRITABLE, IPoll, ISocketEvents
from tests.fake_tcp import FakeReactor

from .fakes import makePoll, reset, socketPair


@implementer(ISocketEvents)
class Owner:
    """Notes what happens to its socket, and then acts."""

    def __init__(self, act: Callable[[], object] = lambda: None) -> None:
        self.events: list[int] = []
        self.failures: list[Failure] = []
        self._act = act

    def ready(self, events: int) -> None:
        self.events.append(events)
        self._act()

    def failed(self, reason: Failure) -> None:
        self.failures.append(reason)


class PollTests(SynchronousTestCase):
    """What is told, and to whom."""

    def setUp(self) -> None:
        self.poll, self.reactor = makePoll()
        self.ours, self.remote = socketPair()
        self.addCleanup(self.remote.close)
        self.addCleanup(self.ours.close)
        self.owner = Owner()

    def watch(self, events: int) -> None:
        self.poll.watch(self.ours.fileno(), self.owner, events)

    def test_itIsWhatItSays(self) -> None:
        verifyObject(IPoll, self.poll)
        verifyObject(IReadDescriptor, self.poll)
        verifyObject(IPoll, FakeReactor())
        verifyObject(ISocketEvents, self.owner)
        self.assertEqual("sockets", self.poll.logPrefix())
        self.assertGreater(self.poll.fileno(), 0)
        self.poll.connectionLost(Failure(CONNECTION_DONE))

    def test_whatIsToBeDoneSoonIsDoneOnceAllHaveBeenTold(self) -> None:
        """However many ask for it, and whatever one of them raises."""
        done: list[str] = []

        def fail() -> None:
            raise ValueError("soon")

        def act() -> None:
            self.poll.soon(fail)
            self.poll.soon(lambda: done.append("soon"))
            done.append("told")

        self.owner = Owner(act)
        self.watch(READABLE)
        self.remote.send(b"x")
        self.poll.doRead()
        self.assertEqual(["told", "soon"], done)
        self.assertEqual(1, len(self.flushLoggedErrors(ValueError)))
        self.assertEqual([], self.reactor.getDelayedCalls())

    def test_whatIsToBeDoneSoonWaitsForTheReactorWhenNobodyIsTold(self) -> None:
        done: list[str] = []
        self.poll.soon(lambda: done.append("soon"))
        self.assertEqual([], done)
        self.reactor.advance(0)
        self.assertEqual(["soon"], done)

    def test_itIsInTheReactorAsLongAsThereAreSockets(self) -> None:
        self.watch(READABLE)
        self.watch(WRITABLE)
        self.poll.watch(self.remote.fileno(), Owner(), QUIET)
        self.assertEqual([self.poll], self.reactor.readers)
        self.poll.forget(self.ours.fileno())
        self.assertEqual([self.poll], self.reactor.readers)
        self.poll.forget(self.remote.fileno())
        self.assertEqual([], self.reactor.readers)

    def test_whatWasClosedIsForgottenAndItsNumberIsFree(self) -> None:
        number = self.ours.fileno()
        self.watch(READABLE)
        self.ours.close()
        self.poll.closed(number)
        self.assertEqual([], self.reactor.readers)
        self.addCleanup(os.close, os.dup2(self.remote.fileno(), number))
        self.poll.watch(number, self.owner, WRITABLE)
        self.poll.doRead()
        self.assertTrue(self.owner.events[0] & WRITABLE)

    def test_onlyWhatIsWantedIsTold(self) -> None:
        self.watch(READABLE)
        self.poll.doRead()
        self.remote.sendall(b"something")
        self.poll.doRead()
        self.watch(WRITABLE)
        self.poll.doRead()
        self.assertEqual([READABLE, WRITABLE], self.owner.events)

    def test_aResetIsToldThoughNothingIsWanted(self) -> None:
        self.watch(QUIET)
        self.remote.sendall(b"something")
        self.poll.doRead()
        self.assertEqual([], self.owner.events)
        reset(self.remote)
        self.poll.doRead()
        self.assertTrue(self.owner.events[0] & BROKEN)

    def test_anOrderlyEndOfBothDirectionsIsToldOnceAndIsNoReset(self) -> None:
        self.watch(QUIET)
        self.remote.shutdown(socket.SHUT_WR)
        self.ours.shutdown(socket.SHUT_WR)
        self.poll.doRead()
        self.poll.doRead()
        self.assertEqual([ENDED], self.owner.events)

    def test_whatRestsIsToldOfAfterAMomentAndThenAsBefore(self) -> None:
        self.watch(READABLE)
        self.poll.rest(self.ours.fileno(), READABLE)
        self.remote.sendall(b"something")
        self.poll.doRead()
        self.assertEqual([], self.owner.events)
        self.reactor.advance(COALESCING_SECONDS)
        self.assertEqual([READABLE], self.owner.events)
        self.poll.doRead()
        self.assertEqual([READABLE] * 2, self.owner.events)
        self.assertEqual([], self.reactor.getDelayedCalls())

    def test_whatRestsIsToldEvenIfNothingHasCome(self) -> None:
        self.watch(READABLE)
        self.poll.rest(self.ours.fileno(), READABLE)
        self.reactor.advance(COALESCING_SECONDS)
        self.assertEqual([READABLE], self.owner.events)

    def test_whileItRestsAllElseIsTold(self) -> None:
        self.watch(READABLE | FINISHED | WRITABLE)
        self.poll.rest(self.ours.fileno(), READABLE | FINISHED | WRITABLE)
        self.remote.shutdown(socket.SHUT_WR)
        self.poll.doRead()
        self.assertEqual([WRITABLE], self.owner.events)
        self.poll.rest(self.ours.fileno(), READABLE)
        reset(self.remote)
        self.poll.doRead()
        self.assertTrue(self.owner.events[-1] & BROKEN)

    def test_manyRestTogether(self) -> None:
        other, otherRemote = socketPair()
        self.addCleanup(otherRemote.close)
        self.addCleanup(other.close)
        second = Owner()
        self.watch(READABLE)
        self.poll.watch(other.fileno(), second, READABLE)
        self.poll.rest(self.ours.fileno(), READABLE)
        self.reactor.advance(COALESCING_SECONDS / 2)
        self.poll.rest(other.fileno(), READABLE)
        self.assertEqual(1, len(self.reactor.getDelayedCalls()))
        self.reactor.advance(COALESCING_SECONDS / 2)
        self.assertEqual(([READABLE],) * 2, (self.owner.events, second.events))

    def test_watchingItAnewEndsTheRest(self) -> None:
        self.watch(READABLE)
        self.poll.rest(self.ours.fileno(), READABLE)
        self.watch(QUIET)
        self.remote.sendall(b"something")
        self.reactor.advance(COALESCING_SECONDS)
        self.poll.doRead()
        self.assertEqual([], self.owner.events)

    def test_whatIsGoneRestsNoMore(self) -> None:
        number = self.ours.fileno()
        self.watch(READABLE)
        self.poll.rest(number, READABLE)
        self.ours.close()
        self.poll.closed(number)
        self.reactor.advance(COALESCING_SECONDS)
        self.assertEqual([], self.owner.events)

    def test_oneMayCloseAnotherThatHasSomethingToo(self) -> None:
        other, otherRemote = socketPair()
        self.addCleanup(otherRemote.close)
        fds = {self.ours.fileno(), other.fileno()}
        newcomer = Owner()

        def closeBoth() -> None:
            for fd in fds & set(self.poll._owners):
                self.poll.forget(fd)
            other.close()
            # The kernel gives the lowest free number, so the newcomer's is the other's.
            third = socket.socket()
            self.addCleanup(third.close)
            self.poll.watch(third.fileno(), newcomer, READABLE)
            self.addCleanup(self.poll.forget, third.fileno())

        self.owner = Owner(closeBoth)
        self.watch(READABLE)
        second = Owner()
        self.poll.watch(other.fileno(), second, READABLE)
        for remote in (self.remote, otherRemote):
            remote.sendall(b"something")
        self.poll.doRead()
        self.assertEqual(([READABLE], [READABLE], []), (self.owner.events, second.events, newcomer.events))

    def test_anOwnerThatFailsIsToldAndTheOthersGoOn(self) -> None:
        self.owner = Owner(lambda: 1 // 0)
        self.watch(WRITABLE)
        other = Owner()
        self.poll.watch(self.remote.fileno(), other, WRITABLE)
        self.poll.doRead()
        self.assertEqual([WRITABLE], other.events)
        self.assertEqual(1, len(self.owner.failures))
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))

    def test_anOwnerWhoseEndFailsHarmsNobodyElse(self) -> None:
        """Neither those who are told after it, nor those who want something done soon."""
        done: list[str] = []

        class Broken(Owner):
            def failed(self, reason: Failure) -> None:
                raise ValueError("failed")

        self.owner = Broken(lambda: 1 // 0)
        self.watch(WRITABLE)
        other = Owner(lambda: self.poll.soon(lambda: done.append("soon")))
        self.poll.watch(self.remote.fileno(), other, WRITABLE)
        self.poll.doRead()
        self.assertEqual(([WRITABLE], ["soon"]), (other.events, done))
        self.assertEqual(1, len(self.flushLoggedErrors(ValueError)))
        self.flushLoggedErrors(ZeroDivisionError)
        self.poll.soon(lambda: done.append("later"))
        self.assertEqual(["soon"], done)
        self.reactor.advance(0)
        self.assertEqual(["soon", "later"], done)
