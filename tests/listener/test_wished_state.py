"""Whatever happens to connectors, ports, visitors and the disk, in whatever order: what is wished is what there is."""

from ipaddress import IPv4Network

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.errors import NoSuchPort, SessionLost
from socketwarp.listener.recheck import RecheckPolicy
from socketwarp.listener.wishes import PortLimits, PortSpec
from socketwarp.settings import PortRange
from tests.fake_tcp import FakeSocket
from tests.fakes import FakeSession
from tests.listener.rig import Rig, Target, targets

UIDS = ("uid-1", "uid-2")
PORTS = (18080, 18081, 18082)
INSIDE, OUTSIDE = "198.51.100.7", "203.0.113.9"
SOURCES = (IPv4Network("198.51.100.0/24"),)
#: Seconds that a port is leased for, if it is.
TIMES = st.sampled_from((None, None, 4.0, 33.0))
LIMITS = st.builds(
    PortLimits,
    total=st.sampled_from((None, None, 1, 3)),
    atOnce=st.sampled_from((None, 2)),
    sources=st.sampled_from(((), SOURCES)),
)


@attrs.define
class Wish:
    """What has been wished for a port, and how many visitors it has had."""

    spec: PortSpec
    used: int = 0

    def refuses(self, host: str, here: int) -> bool:
        """Whether such a visitor may not come in, since `here` others are in."""
        limits = self.spec.limits
        isForeign = bool(limits.sources) and host == OUTSIDE
        return isForeign or (limits.atOnce is not None and here >= limits.atOnce)


class WishedState(RuleBasedStateMachine):
    """
    A listener, and a simple idea of what it should be.

    :ivar wished: by port.
    :ivar leaving: ports whose visitors may finish, with the time at which the last ones are ended.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig(policy=RecheckPolicy(seconds=1e6))  # no questions but those of newcomers
        self.rig.ports.allowed = (PortRange(PORTS[0], PORTS[-1]),)
        self.wished: dict[int, Wish] = {}
        self.leaving: dict[int, float | None] = {}
        self.sessions: dict[str, FakeSession] = {}
        self.seen: dict[str, list[Target]] = {}
        self.visitors: list[tuple[int, FakeSocket]] = []

    @property
    def now(self) -> float:
        """The time."""
        return self.rig.reactor.seconds()

    def here(self, port: int) -> list[FakeSocket]:
        """A port's visitors."""
        return [visitor for entry, visitor in self.visitors if entry == port and not visitor.closed]

    def isTaken(self, port: int) -> bool:
        """Whether a port can't be opened now."""
        return port in self.wished or port in self.leaving

    # -- connectors

    @rule(uid=st.sampled_from(UIDS))
    def connect(self, uid: str) -> None:
        """A connector comes, perhaps in place of another; one that takes over too often is turned away."""
        session = self.rig.session()
        seen = targets(session)
        self.rig.connectors.admit(session)
        self.rig.verifier.answer(uid)
        self.rig.settle()
        if session.isOpen:
            self.sessions[uid], self.seen[uid] = session, seen
        else:
            assert uid in self.sessions

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """A connector is lost."""
        uid = data.draw(st.sampled_from(sorted(self.sessions)))
        self.sessions.pop(uid).lose(SessionLost("timed out"))

    # -- ports

    @rule(port=st.sampled_from((*PORTS, 0)), uid=st.sampled_from(UIDS), limits=LIMITS, time=TIMES, broken=st.booleans())
    def open(self, port: int, uid: str, limits: PortLimits, time: float | None, broken: bool) -> None:
        """Somebody opens a port; the disk may fail."""
        limits = attrs.evolve(limits, expires=None if time is None else self.now + time)
        opened: list[object] = []
        self.rig.store.broken = broken
        self.rig.ports.desire(PortSpec(port, uid, "target", 80, limits=limits)).addBoth(opened.append)
        self.rig.settle()
        self.rig.store.broken = False
        found = opened[0]
        if isinstance(found, PortSpec):
            assert not self.isTaken(found.port) and port in (found.port, 0)
            self.wished[found.port] = Wish(found)
        else:
            assert broken or (self.isTaken(port) if port else all(map(self.isTaken, PORTS)))

    @rule(port=st.sampled_from(PORTS), uid=st.sampled_from(UIDS), limits=LIMITS, broken=st.booleans())
    def change(self, port: int, uid: str, limits: PortLimits, broken: bool) -> None:
        """Somebody changes a wish; the disk may fail."""
        spec = PortSpec(port, uid, "other", 81, limits=limits)
        changed: list[object] = []
        self.rig.store.broken = broken
        self.rig.ports.change(spec).addBoth(changed.append)
        self.rig.settle()
        self.rig.store.broken = False
        if isinstance(changed[0], PortSpec):
            self.wished[port].spec = spec
        else:
            wish = self.wished.get(port)
            assert broken or wish is None or limits.overBy(self.now, wish.used)

    @rule(port=st.sampled_from(PORTS), broken=st.booleans(), drain=st.sampled_from((0.0, 30.0)))
    def close(self, port: int, broken: bool, drain: float) -> None:
        """Somebody closes a port, and perhaps lets its visitors finish; the disk may fail."""
        closed: list[object] = []
        before = len(self.here(port))
        self.rig.store.broken = broken
        self.rig.ports.withdraw(port, drain).addBoth(closed.append)
        self.rig.settle()
        self.rig.store.broken = False
        if port in self.wished and broken:
            assert not isinstance(closed[0], int)
            return
        if not self.isTaken(port):
            assert closed[0].check(NoSuchPort)  # type: ignore[attr-defined]  # a Failure
            return
        self.wished.pop(port, None)
        ends = self.leaving.get(port)
        self.leaving[port] = self.now + drain if ends is None else min(ends, self.now + drain)
        assert closed == ([] if before and drain else [before])

    @rule(drain=st.sampled_from((0.0, 30.0)))
    def restart(self, drain: float) -> None:
        """The listener stops and starts again."""
        self.rig.ports.stop(drain)
        assert self.rig.sockets.bound == {}
        self.rig.reactor.advance(drain)
        self.rig.settle()
        assert not any(map(self.here, PORTS))
        self.rig.ports = self.rig.makePorts(allowed=self.rig.ports.allowed)
        self.rig.ports.load()
        self.rig.ports.restore()

    # -- visitors

    @precondition(lambda self: self.wished)
    @rule(data=st.data(), host=st.sampled_from((INSIDE, OUTSIDE)))
    def visit(self, data: st.DataObject, host: str) -> None:
        """A visitor comes, and reaches the uid's latest session, or is reset."""
        port = data.draw(st.sampled_from(sorted(self.wished)))
        wish = self.wished[port]
        uid = wish.spec.uid
        isRefused = wish.refuses(host, len(self.here(port)))
        before = len(self.seen.get(uid, ()))
        visitor = self.rig.visit(port, host)
        self.visitors.append((port, visitor))
        self.rig.settle()
        if isRefused:
            assert visitor.sawReset
            return
        wish.used += wish.spec.limits.total is not None
        if uid in self.sessions:
            assert len(self.seen[uid]) == before + 1
        else:
            self.rig.reactor.advance(5)
            self.rig.settle()
            assert visitor.sawReset

    @rule(data=st.data())
    @precondition(lambda self: any(map(self.here, PORTS)))
    def leave(self, data: st.DataObject) -> None:
        """A visitor goes."""
        here = [visitor for port in PORTS for visitor in self.here(port)]
        data.draw(st.sampled_from(here)).remoteResets()

    @rule(seconds=st.sampled_from((1.0, 10.0, 40.0)))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.rig.reactor.advance(seconds)

    # -- what must be

    @invariant()
    def theHostIsAsWished(self) -> None:
        """Bound, kept and listed are exactly the wishes whose lease isn't over."""
        self.rig.settle()
        for port, wish in list(self.wished.items()):
            if wish.spec.limits.overBy(self.now, wish.used):
                del self.wished[port]
                self.leaving[port] = wish.spec.limits.expires
        wishes = {port: wish.spec for port, wish in self.wished.items()}
        assert set(self.rig.sockets.bound) == set(wishes)
        assert {spec.port: spec for spec in self.rig.store.wishes} == wishes
        assert {spec.port: spec for spec in self.rig.ports.specs()} == wishes
        self.checkLeaving()

    def checkLeaving(self) -> None:
        """Who may finish does so in time, or is ended, and then the port can be opened again."""
        for port, end in list(self.leaving.items()):
            if end is not None and self.now >= end:
                assert not self.here(port)
            if not self.here(port):
                del self.leaving[port]

    def teardown(self) -> None:
        """Nothing is left behind."""
        self.rig.ports.stop(0)
        self.rig.reactor.advance(0)
        self.rig.connectors.closeAll("the test ends")
        self.rig.settle()
        assert self.rig.reactor.getDelayedCalls() == []


class WishedStateTests(SynchronousTestCase):
    """`WishedState`, run."""

    def test_anyOrderOfEventsEndsInTheWishedState(self) -> None:
        run_state_machine_as_test(
            WishedState, settings=settings(max_examples=60, stateful_step_count=30, deadline=None)
        )
