"""
Stay connected to one listener, forever.

The state machine::

    idle --start--> connecting --attemptSucceeded--> connected
    connecting --attemptFailed--> pausing --pauseEnded--> connecting
    connected --sessionLost--> pausing
    connecting, connected --stop--> stopping --attemptFailed, sessionLost--> idle
    pausing --stop--> idle

It decides; `_Hands` does what it decided.
"""

from collections.abc import Callable
from typing import Protocol

import attrs
from automat import TypeMachineBuilder
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import Code, SessionLost
from ..interfaces import ISession
from .backoff import Backoff
from .names import place
from .refusals import explain


class _Machine(Protocol):
    """What can happen to a link."""

    def start(self) -> None:
        """Connect, and stay connected."""

    def stop(self) -> Deferred[None]:
        """Give up what is under way; fires when nothing is left of it."""

    def attemptSucceeded(self, session: ISession) -> None:
        """There is a session."""

    def attemptFailed(self, error: BaseException) -> None:
        """No address of the listener gave a session."""

    def sessionLost(self, error: BaseException) -> None:
        """The session is gone."""

    def pauseEnded(self) -> None:
        """The time until the next attempt is over."""


@attrs.define
class _Hands:
    """What the machine's decisions are carried out with."""

    name: str
    clock: IReactorTime
    backoff: Backoff
    stableSeconds: float
    attempt: Callable[[], Deferred[ISession]]
    serve: Callable[[ISession], None]
    log: Logger
    connectedAt: float | None = None
    stopWaiters: list[Deferred[None]] = attrs.Factory(list)

    def connect(self, machine: _Machine) -> Deferred[None]:
        """Begin an attempt, and tell the machine how it ends."""

        def failed(failure: Failure) -> None:
            error = failure.value or SessionLost("the attempt failed")  # Twisted's types allow a Failure of nothing
            if not isinstance(error, SessionLost | OSError) and not self.stopWaiters:
                self.log.failure("{listener}: an unexpected error", failure, listener=self.name)
            machine.attemptFailed(error)

        return self.attempt().addCallbacks(machine.attemptSucceeded, failed)

    def adopt(self, machine: _Machine, session: ISession) -> ISession:
        """Serve a new session, and tell the machine of its end."""
        self.connectedAt = self.clock.seconds()
        self.log.info(
            "{listener}: connected to {address} by {protocol}, session {session}",
            listener=self.name,
            address=place(*session.peerAddress),
            protocol=session.protocol,
            session=session.sessionId,
        )
        session.whenClosed().addCallback(machine.sessionLost)
        self.serve(session)
        return session

    def pause(self, machine: _Machine, error: BaseException) -> IDelayedCall:
        """Say what happened, and come back later."""
        delay = self._delay(error)
        self.log.warn(
            "{listener}: {why}; next attempt in {delay:.1f} s", listener=self.name, why=explain(error), delay=delay
        )
        return self.clock.callLater(delay, machine.pauseEnded)

    def _delay(self, error: BaseException) -> float:
        connectedAt, self.connectedAt = self.connectedAt, None
        if isinstance(error, SessionLost) and error.fromPeer and error.errorCode == Code.SUPERSEDED:
            return self.backoff.longest()  # two that fight for one uid would leave neither in peace
        if connectedAt is not None and self.clock.seconds() - connectedAt >= self.stableSeconds:
            self.backoff.reset()
        return self.backoff.next()

    def waitForStop(self) -> Deferred[None]:
        """A Deferred for one who waits for the end."""
        self.stopWaiters.append(Deferred())
        return self.stopWaiters[-1]

    def stopped(self) -> None:
        """Tell those who wait."""
        self.connectedAt = None
        waiters, self.stopWaiters = self.stopWaiters, []
        for waiter in waiters:
            waiter.callback(None)


def _close(session: ISession) -> None:
    session.close(Code.SHUTDOWN, "the connector is stopping")


def _build() -> Callable[[_Hands], _Machine]:
    builder = TypeMachineBuilder(_Machine, _Hands)

    def connect(machine: _Machine, hands: _Hands) -> Deferred[None]:
        return hands.connect(machine)

    def adopt(machine: _Machine, hands: _Hands, session: ISession) -> ISession:
        return hands.adopt(machine, session)

    def pause(machine: _Machine, hands: _Hands, error: BaseException) -> IDelayedCall:
        return hands.pause(machine, error)

    idle = builder.state("idle")
    connecting = builder.state("connecting", connect)
    connected = builder.state("connected", adopt)
    pausing = builder.state("pausing", pause)
    stopping = builder.state("stopping")

    idle.upon(_Machine.start).to(connecting).returns(None)
    connecting.upon(_Machine.attemptSucceeded).to(connected).returns(None)
    connecting.upon(_Machine.attemptFailed).to(pausing).returns(None)
    connected.upon(_Machine.sessionLost).to(pausing).returns(None)
    pausing.upon(_Machine.pauseEnded).to(connecting).returns(None)

    @idle.upon(_Machine.stop).loop()
    def stopIdle(machine: _Machine, hands: _Hands) -> Deferred[None]:
        return succeed(None)

    @connecting.upon(_Machine.stop).to(stopping)
    def stopConnecting(machine: _Machine, hands: _Hands, attempt: Deferred[None]) -> Deferred[None]:
        waiting = hands.waitForStop()
        attempt.cancel()
        return waiting

    @connected.upon(_Machine.stop).to(stopping)
    def stopConnected(machine: _Machine, hands: _Hands, session: ISession) -> Deferred[None]:
        waiting = hands.waitForStop()
        _close(session)
        return waiting

    @pausing.upon(_Machine.stop).to(idle)
    def stopPausing(machine: _Machine, hands: _Hands, call: IDelayedCall) -> Deferred[None]:
        call.cancel()
        return succeed(None)

    @stopping.upon(_Machine.stop).loop()
    def stopAgain(machine: _Machine, hands: _Hands) -> Deferred[None]:
        return hands.waitForStop()

    @stopping.upon(_Machine.attemptSucceeded).loop()
    def closeLateSession(machine: _Machine, hands: _Hands, session: ISession) -> None:
        """The attempt was faster than our giving it up."""
        session.whenClosed().addCallback(machine.sessionLost)
        _close(session)

    @stopping.upon(_Machine.attemptFailed).to(idle)
    @stopping.upon(_Machine.sessionLost).to(idle)
    def finish(machine: _Machine, hands: _Hands, error: BaseException) -> None:
        hands.stopped()

    return builder.build()


_makeMachine = _build()


class Link(Service):
    """
    One listener, and our session with it: a service that runs until it is stopped.

    Several listeners are several links. A session that is to outlive its place as the current one (renewal, goaway)
    is one more state here, and one more session that `stopService` waits for.
    """

    def __init__(
        self,
        name: str,
        attempt: Callable[[], Deferred[ISession]],
        serve: Callable[[ISession], None],
        backoff: Backoff,
        stableSeconds: float,
        clock: IReactorTime,
    ) -> None:
        """
        :param name: the listener, for logs.
        :param attempt: makes one attempt to get a session; its Deferred can be cancelled.
        :param serve: is given each session, at once.
        :param stableSeconds: a session that lived as long makes the next pause short again, seconds.
        """
        log = Logger(namespace="socketwarp.connector.link")
        self._machine = _makeMachine(_Hands(name, clock, backoff, stableSeconds, attempt, serve, log))

    def startService(self) -> None:
        """Connect, and stay connected."""
        super().startService()
        self._machine.start()

    def stopService(self) -> Deferred[None]:
        """Close the session; fires when it is gone."""
        super().stopService()
        return self._machine.stop()
