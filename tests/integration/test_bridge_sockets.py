"""Bridges between real TCP connections: what arrives at the other end of the kernel."""

import socket
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from socketwarp.bridge import Bridge
from socketwarp.errors import PortUnavailable, SessionLost
from socketwarp.interfaces import Totals
from socketwarp.tcp.dial import dial
from socketwarp.tcp.poll import Poll
from socketwarp.tcp.port import IUsher, Port, bind, serve
from socketwarp.wire.cutting import Immediate

from ..fakes import HIGH_WATER, streamPair
from .processes import PATIENCE, readToEnd, reset

T = TypeVar("T")


reactor: Any = _reactor  # Any: Twisted's types know neither what it provides nor what addresses have

WINDOW = 1 << 20
MUCH = 32 << 20
PIECE = bytes(range(256)) * 4096


def thread(action: Callable[..., T], *arguments: object) -> Deferred[T]:
    """Do something that blocks."""
    return deferToThread(action, *arguments)


def sendMuch(remote: socket.socket) -> None:
    """`MUCH` bytes and FIN."""
    for _ in range(MUCH // len(PIECE)):
        remote.sendall(PIECE)
    remote.shutdown(socket.SHUT_WR)


def countPieces(remote: socket.socket) -> int:
    """Bytes up to FIN, as long as they are what `sendMuch` sends."""
    received = readToEnd(remote)
    assert received == PIECE * (len(received) // len(PIECE))
    return len(received)


@implementer(IUsher)
class Everybody:
    """Lets everybody in."""

    def room(self, descriptor: int) -> int:
        return 1

    def exhausted(self, error: OSError) -> None:
        raise error

    def closed(self, port: Port) -> None: ...


class Sockets(TestCase):
    """Base: a visitor that was accepted and a target that was dialled, joined by two bridges and a stream."""

    async def start(self) -> None:
        self.poll = Poll(reactor)
        self.over: tuple[Deferred[Totals], Deferred[Totals]] = Deferred(), Deferred()
        self.near, self.far = (Bridge(reactor, over.callback) for over in self.over)
        self.stream, self.farStream = streamPair(reactor, WINDOW)
        self.visitor = await self.accepted(self.near)
        self.target = await self.dialled(self.far)
        self.near.join(self.stream, Immediate(None), lambda _: None)
        self.far.join(self.farStream, Immediate(None), lambda _: None)

    async def accepted(self, bridge: Bridge) -> socket.socket:
        """The remote end of a connection that came to us."""
        listening = bind("127.0.0.1", 0)
        port = Port(self.poll, listening, serve(self.poll, listening, lambda address: bridge), Everybody())
        self.addCleanup(port.stopListening)
        return self.closing(await thread(socket.create_connection, ("127.0.0.1", port.getHost().port), PATIENCE))

    async def dialled(self, bridge: Bridge) -> socket.socket:
        """The remote end of a connection that we made."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(PATIENCE)
            await dial(self.poll, reactor, server.getsockname(), PATIENCE, lambda: bridge)
            remote, _ = await thread(server.accept)
        remote.settimeout(PATIENCE)
        return self.closing(remote)

    def closing(self, remote: socket.socket) -> socket.socket:
        self.addCleanup(remote.close)
        return remote

    async def turn(self) -> None:
        """Let the reactor run once."""
        turned: Deferred[None] = Deferred()
        reactor.callLater(0, turned.callback, None)
        await turned

    async def endings(self) -> tuple[Totals, Totals]:
        """Of the visitor's bridge and the target's."""
        near, far = self.over
        return await near, await far


class EndingsOnSocketsTests(Sockets):
    """The table of endings, from the visitor's side and from the target's."""

    async def pair(self, fromVisitor: bool) -> tuple[socket.socket, socket.socket]:
        await self.start()
        return (self.visitor, self.target) if fromVisitor else (self.target, self.visitor)

    async def finIsPassedOn(self, fromVisitor: bool) -> None:
        one, other = await self.pair(fromVisitor)
        one.sendall(b"question")
        one.shutdown(socket.SHUT_WR)
        self.assertEqual(b"question", await thread(readToEnd, other))
        other.sendall(b"answer after FIN")
        other.shutdown(socket.SHUT_WR)
        self.assertEqual(b"answer after FIN", await thread(readToEnd, one))
        self.assertEqual(["finished", "finished"], [totals.ending for totals in await self.endings()])

    async def test_aVisitorsFinArrivesAsFinAndTheAnswerStillComes(self) -> None:
        await self.finIsPassedOn(True)

    async def test_aTargetsFinArrivesAsFinAndTheAnswerStillComes(self) -> None:
        await self.finIsPassedOn(False)

    async def rstIsPassedOn(self, fromVisitor: bool) -> None:
        one, other = await self.pair(fromVisitor)
        one.sendall(b"something")
        self.assertEqual(b"something", await thread(other.recv, 100))
        reset(one)
        self.assertEqual("reset", await thread(readToEnd, other))
        self.assertEqual({"tcp-reset", "stream-reset"}, {totals.ending for totals in await self.endings()})

    async def test_aVisitorsRstArrivesAsRst(self) -> None:
        await self.rstIsPassedOn(True)

    async def test_aTargetsRstArrivesAsRst(self) -> None:
        await self.rstIsPassedOn(False)

    async def rstAfterFinIsPassedOn(self, fromVisitor: bool) -> None:
        one, other = await self.pair(fromVisitor)
        one.shutdown(socket.SHUT_WR)
        self.assertEqual(b"", await thread(other.recv, 100))
        reset(one)
        self.assertEqual({"tcp-reset", "stream-reset"}, {totals.ending for totals in await self.endings()})
        # On a connection whose FIN has been read, Linux says EPIPE for RST; without RST the first send would succeed.
        self.assertRaises(BrokenPipeError, other.sendall, b"too late")

    async def test_aVisitorsRstAfterItsFinArrivesAsRst(self) -> None:
        await self.rstAfterFinIsPassedOn(True)

    async def test_aTargetsRstAfterItsFinArrivesAsRst(self) -> None:
        await self.rstAfterFinIsPassedOn(False)

    async def rstOfAPausedConnectionIsPassedOn(self, fromVisitor: bool) -> None:
        one, other = await self.pair(fromVisitor)
        one.setblocking(False)
        stream = self.stream if fromVisitor else self.farStream
        while stream.buffered <= HIGH_WATER:  # until back-pressure has paused the connection
            try:
                one.send(PIECE)
            except BlockingIOError:
                await self.turn()
        reset(one)
        self.assertEqual({"tcp-reset", "stream-reset"}, {totals.ending for totals in await self.endings()})
        self.assertEqual("reset", await thread(readToEnd, other))

    async def test_theRstOfAPausedVisitorArrivesAsRst(self) -> None:
        await self.rstOfAPausedConnectionIsPassedOn(True)

    async def test_theRstOfAPausedTargetArrivesAsRst(self) -> None:
        await self.rstOfAPausedConnectionIsPassedOn(False)

    async def test_aLostSessionArrivesAsRstAtBothEnds(self) -> None:
        await self.start()
        for stream in (self.stream, self.farStream):
            stream.lose(SessionLost("the path is gone"))
        self.assertEqual("reset", await thread(readToEnd, self.visitor))
        self.assertEqual("reset", await thread(readToEnd, self.target))
        self.assertEqual(["session-lost"] * 2, [totals.ending for totals in await self.endings()])

    async def test_anOwnersAbortArrivesAsRstAtBothEnds(self) -> None:
        await self.start()
        self.near.abort(PortUnavailable("the port was closed"))
        self.assertEqual("reset", await thread(readToEnd, self.visitor))
        self.assertEqual("reset", await thread(readToEnd, self.target))

    async def test_aPeerThatStopsReadingArrivesAsRst(self) -> None:
        await self.start()
        self.stream.stopReading(1)
        self.assertEqual("reset", await thread(readToEnd, self.target))

    async def test_whatTheOriginalSentBeforeItEndedBothDirectionsArrivesWithFin(self) -> None:
        await self.start()
        self.far.abort = lambda error: None  # type: ignore[method-assign]  # its side is played by hand
        self.addCleanup(self.far._tcp.abortConnection)  # type: ignore[union-attr]  # it is there
        self.farStream.write(PIECE)
        self.farStream.loseWriteConnection()
        self.farStream.stopReading(0)
        self.visitor.sendall(b"nobody wants this any more")
        self.assertEqual(PIECE, await thread(readToEnd, self.visitor))
        self.visitor.shutdown(socket.SHUT_WR)
        self.assertEqual("finished", (await self.over[0]).ending)


class BulkOnSocketsTests(Sockets):
    """Much data."""

    async def test_muchDataArrivesUnchangedInBothDirectionsAtOnce(self) -> None:
        await self.start()
        waiting = [thread(sendMuch, self.visitor), thread(sendMuch, self.target)]
        counts = [thread(countPieces, self.visitor), thread(countPieces, self.target)]
        for sent in waiting:
            await sent
        self.assertEqual([MUCH, MUCH], [await count for count in counts])
        visitors, targets = await self.endings()
        self.assertEqual((Totals(MUCH, MUCH, None),) * 2, (visitors, targets))

    async def test_aReaderThatTakesNothingCostsWatermarksAndOneWindow(self) -> None:
        await self.start()
        sending = thread(sendMuch, self.visitor)
        held: list[int] = []
        carry = self.stream.deliver

        def measured() -> None:
            carry()
            queued = 0 if self.far._tcp is None else self.far._tcp._queued  # type: ignore[attr-defined]  # the transport's
            held.append(self.stream.buffered + self.farStream.waiting + queued)

        self.stream.deliver = measured  # type: ignore[method-assign]  # to look at every turn
        while self.stream.buffered <= HIGH_WATER:
            await self.turn()
        self.assertEqual(MUCH, await thread(countPieces, self.target))
        await sending
        self.target.shutdown(socket.SHUT_WR)
        await self.endings()
        self.assertLess(max(held), HIGH_WATER + 2 * WINDOW + 2 * 65536)
