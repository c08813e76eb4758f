"""
A listener and connectors in one memory: whatever happens to them, in the end the uid is served as it should be.

The carrier, the verifier and TCP are played; what decides on both sides is the real thing.
"""

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.connector.backoff import Backoff
from socketwarp.connector.conversation import Conversation
from socketwarp.connector.link import Link
from socketwarp.errors import SessionLost
from socketwarp.listener.connectors import Connectors, Terms
from socketwarp.wire.messages import PING, YIELDS, Hello
from tests.fakes import FakeSession, sessionPair
from tests.listener.rig import Rig

INSTANCES = ("a", "b", "c")
#: Seconds after which a superseded connector has asked again, whatever it was held up by.
LONG = 300


class World:
    """
    A listener, and connectors with one uid.

    :ivar links: the connectors that run.
    :ivar sessions: the connector's ends of all that there ever were.
    :ivar isUp: whether connectors reach the listener.
    """

    def __init__(self, isShared: bool) -> None:
        self.rig = Rig()
        self.rig.verifier.automatic = True
        terms = Terms(sharedUids=frozenset({"uid-1"}) if isShared else frozenset())
        self.connectors = Connectors(
            self.rig.reactor, self.rig.verifier, self.rig.events, self.rig.denials, terms=terms
        )
        self.links: dict[str, Link] = {}
        self.sessions: list[FakeSession] = []
        self.isUp = True
        self._generation = 0

    def start(self, instance: str) -> None:
        """A connector's process begins, with an instance id of its own."""
        self._generation += 1
        backoff = Backoff(1.0, 60.0, lambda: 0.5)
        attempt = self._attempts(f"{instance}{self._generation}")
        self.links[instance] = Link("listener", attempt, backoff, 30.0, self.rig.reactor)
        self.links[instance].startService()

    def _attempts(self, instance: str) -> Callable[[bool], Deferred[Conversation]]:
        def attempt(yields: bool) -> Deferred[Conversation]:
            if not self.isUp:
                return fail(SessionLost("nobody answers"))
            there, here = sessionPair(self.rig.reactor, "socketwarp/1")
            self.sessions.append(here)
            opened = Conversation(here, self.rig.reactor).open(
                Hello("socketwarp", "0", instance, 100, (PING, YIELDS) if yields else (PING,))
            )
            self.connectors.admit(there)
            return opened

        return attempt

    def stop(self, instance: str, drains: bool) -> None:
        """A connector is told to stop."""
        link = self.links.pop(instance)
        if drains:
            link.leave(30.0)
            self.rig.settle()
        stopped = link.stopService()
        self.rig.settle()
        assert stopped.called

    def wait(self, seconds: int) -> None:
        """Time passes, in steps small enough for answers to come in time."""
        for _ in range(seconds):
            self.rig.reactor.advance(1)
            self.rig.settle()

    @property
    def open(self) -> list[FakeSession]:
        """Sessions that neither end has given up."""
        return [session for session in self.sessions if session.isOpen and session.other.isOpen]

    @property
    def serving(self) -> list[FakeSession]:
        """The connector's ends of the sessions that would get visitors."""
        serving = [each.session for each in self.connectors if not each.isLeaving and each.session.isOpen]
        return [session for session in self.sessions if session.other in serving]


class AnyOrder(RuleBasedStateMachine):
    """Connectors start, stop, renew themselves and lose their sessions, at one end or at both."""

    isShared = False

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.isShared)

    @rule(instance=st.sampled_from(INSTANCES))
    def start(self, instance: str) -> None:
        if instance not in self.world.links:
            self.world.start(instance)
            self.world.rig.settle()

    @precondition(lambda self: self.world.links)
    @rule(data=st.data(), drains=st.booleans())
    def stop(self, data: st.DataObject, drains: bool) -> None:
        self.world.stop(data.draw(st.sampled_from(sorted(self.world.links))), drains)

    @precondition(lambda self: self.world.links)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        self.world.links[data.draw(st.sampled_from(sorted(self.world.links)))].renew()
        self.world.rig.settle()

    @precondition(lambda self: self.world.links)
    @rule(data=st.data())
    def wake(self, data: st.DataObject) -> None:
        self.world.links[data.draw(st.sampled_from(sorted(self.world.links)))].wake()
        self.world.rig.settle()

    @precondition(lambda self: self.world.open)
    @rule(data=st.data(), end=st.sampled_from(("listener", "connector", "both")))
    def lose(self, data: st.DataObject, end: str) -> None:
        """One end finds that the session is lost, or both do; the other will hear nothing of it."""
        session = data.draw(st.sampled_from(self.world.open))
        for lost, at in ((session, "connector"), (session.other, "listener")):
            if end in (at, "both"):
                lost.lose(SessionLost("timed out"))
        self.world.rig.settle()

    @rule(isUp=st.booleans())
    def network(self, isUp: bool) -> None:
        self.world.isUp = isUp

    @rule(seconds=st.sampled_from((1, 10, 70)))
    def wait(self, seconds: int) -> None:
        self.world.wait(seconds)

    @invariant()
    def aUidOfItsOwnHasOneWhoServes(self) -> None:
        assert self.isShared or len(self.world.serving) <= 1

    def teardown(self) -> None:
        """With a network and without further trouble the uid is served: by one, or, when it is shared, by all."""
        self.world.isUp = True
        self.world.wait(LONG)
        running = len(self.world.links)
        expected = running if self.isShared else min(running, 1)
        for session in self.world.sessions:  # what one end alone has lost ends by the carrier's idle time-out
            if not session.isOpen or not session.other.isOpen:
                session.lose(SessionLost("timed out"))
                session.other.lose(SessionLost("timed out"))
        self.world.rig.settle()
        serving = self.world.serving
        assert len(serving) == expected, (serving, running)
        self.world.wait(LONG)
        assert self.world.serving == serving, "somebody fights for the uid"
        for instance in tuple(self.world.links):
            self.world.stop(instance, True)
        self.world.connectors.closeAll("the test ends")
        self.world.rig.settle()
        assert self.world.rig.reactor.getDelayedCalls() == []


class AnyOrderShared(AnyOrder):
    """The same, with a uid that several may have."""

    isShared = True


class AnyOrderTests(SynchronousTestCase):
    """`AnyOrder`, run."""

    def test_aUidEndsWithOneConnectorThatServesIt(self) -> None:
        run_state_machine_as_test(AnyOrder, settings=settings(max_examples=40, stateful_step_count=20, deadline=None))

    def test_aSharedUidEndsWithAllItsConnectors(self) -> None:
        run_state_machine_as_test(
            AnyOrderShared, settings=settings(max_examples=40, stateful_step_count=20, deadline=None)
        )
