"""A listener's insides in memory: a verifier that answers when told to, sockets and a store that are played."""

from collections.abc import Callable
from typing import Any

import attrs
from cryptography import x509
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.python.failure import Failure
from zope.interface import implementer

from socketwarp.errors import PortUnavailable, StoreUnavailable, VerifierFault
from socketwarp.interfaces import Identity, IVerifier, plainAddress
from socketwarp.listener.connectors import Connectors
from socketwarp.listener.denials import Denials
from socketwarp.listener.entries import Lobby
from socketwarp.listener.events import Event, Events
from socketwarp.listener.ports import Ports
from socketwarp.listener.recheck import RecheckPolicy
from socketwarp.listener.store import IPortStore, Kept
from socketwarp.listener.visitors import Limits
from socketwarp.listener.wishes import PortSpec
from socketwarp.tcp.port import Accept
from socketwarp.wire.preamble import HEADER_SIZE, Preamble, parsePreamble29
from tests.fake_tcp import FakeReactor, FakeSocket, connect
from tests.fakes import FakeSession, FakeStream, leafCertificate, sessionPair, settle
from tests.manual import eventFields


@implementer(IVerifier)
class FakeVerifier:
    """
    Answers when told to.

    :ivar asked: what has been asked and not been answered.
    :ivar automatic: when set, every question is answered at once by the certificate's common name.
    :ivar isStopped: nobody will ask again.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[x509.Certificate, Deferred[Identity]]] = []
        self.automatic = False
        self.isStopped = False
        self.cancelled = 0

    def verify(self, leaf: x509.Certificate) -> Deferred[Identity]:
        d: Deferred[Identity] = Deferred(self._cancel)
        self.asked.append((leaf, d))
        if self.automatic:
            self.answer(str(leaf.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value))
        return d

    def stop(self) -> None:
        self.isStopped = True
        for _, d in tuple(self.asked):
            d.cancel()

    def _cancel(self, d: Deferred[Identity]) -> None:
        self.cancelled += 1
        self.asked = [each for each in self.asked if each[1] is not d]
        d.errback(VerifierFault("the question was given up"))

    def answer(self, uid: str) -> None:
        """Name the uid behind the oldest question."""
        leaf, d = self.asked.pop(0)
        d.callback(Identity(uid, leaf))

    def fail(self, error: Exception) -> None:
        """Don't."""
        self.asked.pop(0)[1].errback(error)


@implementer(IPortStore)
class MemoryStore:
    """
    A store whose disk is a dictionary.

    :ivar used: visitors accepted, by port, of those that are counted. ``away``: uids that are denied, and until when.
    :ivar slow: changes wait until `finish`.
    :ivar broken: changes fail.
    """

    def __init__(self) -> None:
        self.disk: dict[int, PortSpec] = {}
        self.used: dict[int, int] = {}
        self.away: dict[str, float] = {}
        self.slow = False
        self.broken = False
        self._waiting: list[Callable[[], None]] = []

    @property
    def wishes(self) -> list[PortSpec]:
        """What is on the disk, by port."""
        return [self.disk[port] for port in sorted(self.disk)]

    def load(self) -> list[Kept]:
        return [Kept(spec, self.used.get(spec.port, 0)) for spec in self.wishes]

    def put(self, spec: PortSpec, used: int = 0) -> Deferred[None]:
        def put() -> None:
            self.disk[spec.port] = spec
            self.used[spec.port] = used

        return self._change(put)

    def count(self, port: int, used: int) -> Deferred[None]:
        return self._change(lambda: self.used.update({port: used} if port in self.disk else {}))

    def remove(self, port: int) -> Deferred[None]:
        return self._change(lambda: self.disk.pop(port, None))

    def denied(self) -> dict[str, float]:
        return dict(self.away)

    def deny(self, uid: str, until: float, now: float) -> Deferred[None]:
        return self._change(lambda: self.away.update({uid: until}))

    def fault(self) -> str | None:
        return "the disk is full" if self.broken else None

    def close(self) -> Deferred[None]:
        return succeed(None)

    def _change(self, change: Callable[[], object]) -> Deferred[None]:
        done: Deferred[None] = Deferred()

        def act() -> None:
            if self.broken:
                done.errback(StoreUnavailable("the disk is full"))
            else:
                change()
                done.callback(None)

        self._waiting.append(act)
        if not self.slow:
            self.finish()
        return done

    def finish(self) -> None:
        """Do what waits."""
        waiting, self._waiting = self._waiting, []
        for act in waiting:
            act()


@implementer(IListeningPort)
class FakeListening:
    """A listening socket: `accept` is asked for the protocols of what comes."""

    def __init__(self, sockets: "Sockets", accept: Accept, address: str, port: int) -> None:
        self.sockets = sockets
        self.accept = accept
        self.address = address
        self.port = port

    def startListening(self) -> None:
        """It is."""

    def stopListening(self) -> Deferred[None]:
        closed: Deferred[None] = Deferred()
        closed.addCallback(self._closed)
        self.sockets.closing.append(closed)
        if not self.sockets.slow:
            self.sockets.closing.remove(closed)
            closed.callback(None)
        return closed

    def _closed(self, _: None) -> None:
        del self.sockets.bound[self.port]

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", self.address, self.port)


@attrs.define
class Sockets:
    """
    The host's TCP ports.

    :ivar bound: by port.
    :ivar taken: ports of other programs.
    :ivar foreign: addresses that aren't this host's.
    :ivar slow: sockets are closed when `finish` is called.
    """

    bound: dict[int, FakeListening] = attrs.field(factory=dict)
    taken: set[int] = attrs.field(factory=set)
    foreign: set[str] = attrs.field(factory=set)
    slow: bool = False
    closing: list[Deferred[None]] = attrs.field(factory=list)

    def listen(self, accept: Accept, address: str, port: int) -> IListeningPort:
        if port in self.taken or port in self.bound or address in self.foreign:
            raise PortUnavailable(f"port {port} can't be opened on {address}: in use")
        self.bound[port] = FakeListening(self, accept, address, port)
        return self.bound[port]

    def finish(self) -> None:
        """Close what should be closed."""
        self.slow = False
        for closing in self.closing:
            closing.callback(None)


def checked(events: Events) -> Events:
    """Have it an error, and so a failure of the test, when an event has other fields than docs/api.rst says."""

    def check(event: Event) -> None:
        assert event.fields.keys() == eventFields("api.rst")[event.name], event

    events.subscribe(check)
    return events


class Rig:
    """Connectors and ports on a played host."""

    def __init__(self, limits: Limits | None = None, policy: RecheckPolicy | None = None) -> None:
        self.reactor = FakeReactor()
        self.verifier = FakeVerifier()
        self.sockets = Sockets()
        self.store = MemoryStore()
        self.events = checked(Events(self.reactor.seconds))
        self.denials = Denials(self.reactor.seconds, self.store)
        policy = policy or RecheckPolicy()
        self.connectors = Connectors(self.reactor, self.verifier, self.events, self.denials, policy)
        self.limits = limits or Limits()
        self.ports = self.makePorts()

    def makePorts(self, **settings: Any) -> Ports:  # Any: attributes of Ports
        """Ports on this host; called again, a listener that starts anew."""
        self.lobby = Lobby(self.reactor, self.sockets.listen, self.connectors, self.store, self.events, self.limits)
        return Ports(self.lobby, **settings)

    def settle(self) -> None:
        """Let everything happen that needs no time."""
        settle(self.reactor)

    def session(self, name: str = "session-1", leaf: str = "uid-1") -> FakeSession:
        """A session, our end; the other end is its `other`."""
        ours, _ = sessionPair(self.reactor)
        ours.sessionId = name
        ours.peerLeaf = leafCertificate(leaf)
        ours.peerChain = [ours.peerLeaf]
        return ours

    def connected(self, uid: str = "uid-1", name: str = "session-1") -> FakeSession:
        """A session that has been verified."""
        session = self.session(name)
        self.connectors.admit(session)
        self.verifier.answer(uid)
        return session

    def visit(self, port: int, host: str = "198.51.100.7") -> FakeSocket:
        """A visitor connects."""
        return connect(self.reactor, self.sockets.bound[port].accept(plainAddress((host, 50000))))

    def told(self, name: str) -> list[dict[str, object]]:
        """The fields of the events of that name."""
        return [dict(event.fields) for event in self.events.since(0) if event.name == name]


class Target:
    """What a connector does with a stream: reads the preamble, keeps the bytes."""

    def __init__(self, stream: FakeStream) -> None:
        self.stream = stream
        self.bytes = b""
        self.ended = False
        self.lost: Exception | None = None
        stream.start(self)  # type: ignore[arg-type]  # a receiver by shape

    def piecesReceived(self, pieces: list[Any]) -> None:  # Any: Piece
        self.bytes += b"".join(pieces)

    def readConnectionLost(self) -> None:
        self.ended = True

    def writeConnectionLost(self, errorCode: int) -> None:
        pass

    def connectionLost(self, reason: Any) -> None:  # Any: Failure
        self.lost = reason.value

    @property
    def preamble(self) -> Preamble:
        return parsePreamble29(self.bytes[:HEADER_SIZE])

    @property
    def payload(self) -> bytes:
        return self.bytes[HEADER_SIZE:]


def targets(session: FakeSession) -> list[Target]:
    """What will come out at the session's other end."""
    seen: list[Target] = []
    session.other.acceptStreams(lambda stream: seen.append(Target(stream)))  # type: ignore[arg-type]  # FakeStreams
    return seen


def failureOf(d: Deferred[Any]) -> Exception:  # Any: of whatever
    """What a Deferred has failed with."""
    caught: list[Failure] = []
    d.addErrback(caught.append)
    assert caught and isinstance(caught[0].value, Exception), "it has not failed"
    return caught[0].value
