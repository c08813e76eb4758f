"""
What a link does when, without doing it: the state machine of `link`.

::

    idle --start--> connecting --attemptSucceeded--> connected
    connecting --attemptFailed--> pausing --pauseEnded, wake, renew--> connecting
    connected --sessionLost, wentAway--> pausing
    connected --renew--> renewing                        a second session, before the first is let go
    renewing --attemptSucceeded--> connected
    renewing --attemptFailed--> retrying --pauseEnded, wake, renew--> renewing
    renewing --sessionLost, wentAway--> connecting       the attempt goes on
    retrying --sessionLost, wentAway--> pausing          the pause goes on
    all of them --leave, stop--> stopping --finished--> idle

A session that gave way to another, or of which the listener went away, finishes its streams: it is retired, and no more
of the machine's concern. `IHands` does what is decided here.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

from automat import TypeMachineBuilder

from ..wire.messages import Goaway
from .conversation import Conversation


class Machine(Protocol):
    """What can happen to a link."""

    def start(self) -> None:
        """Connect, and stay connected."""

    def attemptSucceeded(self, conversation: Conversation) -> None:
        """There is a session."""

    def attemptFailed(self, error: BaseException) -> None:
        """No address of the listener gave a session."""

    def sessionLost(self, error: BaseException) -> None:
        """The current session is gone."""

    def wentAway(self, goaway: Goaway) -> None:
        """The listener opens no more streams in the current session."""

    def pauseEnded(self) -> None:
        """The time until the next attempt is over."""

    def renew(self) -> None:
        """The current session should be another: there is a new certificate, or the old session is silent."""

    def wake(self) -> None:
        """The network has changed: what didn't work may work now, and the other way round."""

    def leave(self, seconds: float) -> None:
        """Connect no more; streams may take so many seconds to finish."""

    def stop(self) -> None:
        """Give up everything."""

    def finished(self) -> None:
        """Nothing is left."""


class Hands(Protocol):
    """What the decisions are carried out with."""

    def connect(self, machine: Machine) -> None:
        """Begin an attempt; its end is told to the machine."""

    def adopt(self, machine: Machine, conversation: Conversation) -> None:
        """Make a session the current one; retire the one before, if there is one."""

    def pause(self, machine: Machine, error: BaseException) -> None:
        """Say what happened, and have the next attempt wait."""

    def endPause(self) -> None:
        """Wait no longer."""

    def retire(self, goaway: Goaway) -> BaseException:
        """The current session is current no more; the reason, as an error."""

    def probe(self) -> None:
        """Ask whether the current session is still of use."""

    def remember(self) -> None:
        """The attempt that is under way began too early: another one has to follow it."""

    def hurry(self) -> None:
        """The attempt that is under way need not be followed by a long pause."""

    def leave(self, seconds: float) -> None:
        """Give attempt and pause up, and tell the listener that we leave."""

    def close(self, machine: Machine) -> None:
        """Give attempt and pause up, and close all sessions; the machine is told when that has finished."""

    def discard(self, machine: Machine, conversation: Conversation) -> None:
        """A session came too late: close it."""


H = TypeVar("H", bound=Hands)


def build(hands: type[H]) -> Callable[[H], Machine]:
    """The maker of machines with such hands."""
    builder = TypeMachineBuilder(Machine, hands)
    idle = builder.state("idle")
    connecting = builder.state("connecting")
    pausing = builder.state("pausing")
    connected = builder.state("connected")
    renewing = builder.state("renewing")
    retrying = builder.state("retrying")
    stopping = builder.state("stopping")

    @idle.upon(Machine.start).to(connecting)
    @pausing.upon(Machine.pauseEnded).to(connecting)
    @connected.upon(Machine.renew).to(renewing)
    @retrying.upon(Machine.pauseEnded).to(renewing)
    def connect(machine: Machine, hands: H) -> None:
        hands.connect(machine)

    @pausing.upon(Machine.renew).to(connecting)
    @pausing.upon(Machine.wake).to(connecting)
    @retrying.upon(Machine.renew).to(renewing)
    @retrying.upon(Machine.wake).to(renewing)
    def connectNow(machine: Machine, hands: H) -> None:
        hands.endPause()
        hands.connect(machine)

    @connecting.upon(Machine.attemptSucceeded).to(connected)
    @renewing.upon(Machine.attemptSucceeded).to(connected)
    def adopt(machine: Machine, hands: H, conversation: Conversation) -> None:
        hands.adopt(machine, conversation)

    @connecting.upon(Machine.attemptFailed).to(pausing)
    @connected.upon(Machine.sessionLost).to(pausing)
    @renewing.upon(Machine.attemptFailed).to(retrying)
    def pause(machine: Machine, hands: H, error: BaseException) -> None:
        hands.pause(machine, error)

    @connected.upon(Machine.wentAway).to(pausing)
    def retireAndPause(machine: Machine, hands: H, goaway: Goaway) -> None:
        hands.pause(machine, hands.retire(goaway))

    @retrying.upon(Machine.wentAway).to(pausing)
    def retireAndPauseAnew(machine: Machine, hands: H, goaway: Goaway) -> None:
        hands.endPause()
        hands.pause(machine, hands.retire(goaway))

    @renewing.upon(Machine.wentAway).to(connecting)
    def retire(machine: Machine, hands: H, goaway: Goaway) -> None:
        hands.retire(goaway)

    renewing.upon(Machine.sessionLost).to(connecting).returns(None)
    retrying.upon(Machine.sessionLost).to(pausing).returns(None)

    @connecting.upon(Machine.renew).loop()
    @renewing.upon(Machine.renew).loop()
    def remember(machine: Machine, hands: H) -> None:
        hands.remember()

    @connecting.upon(Machine.wake).loop()
    @renewing.upon(Machine.wake).loop()
    def hurry(machine: Machine, hands: H) -> None:
        hands.hurry()

    @connected.upon(Machine.wake).loop()
    def probe(machine: Machine, hands: H) -> None:
        hands.probe()

    for state in (connecting, pausing, connected, renewing, retrying):
        state.upon(Machine.leave).to(stopping)(_leave)
        state.upon(Machine.stop).to(stopping)(_close)
    stopping.upon(Machine.leave).loop()(_leave)
    stopping.upon(Machine.stop).loop()(_close)

    @stopping.upon(Machine.attemptSucceeded).loop()
    def discard(machine: Machine, hands: H, conversation: Conversation) -> None:
        hands.discard(machine, conversation)

    stopping.upon(Machine.finished).to(idle).returns(None)
    for event in (Machine.renew, Machine.wake):
        idle.upon(event).loop().returns(None)
        stopping.upon(event).loop().returns(None)
    idle.upon(Machine.leave).loop().returns(None)
    idle.upon(Machine.finished).loop().returns(None)
    idle.upon(Machine.stop).loop().returns(None)
    stopping.upon(Machine.attemptFailed).loop().returns(None)
    stopping.upon(Machine.sessionLost).loop().returns(None)
    stopping.upon(Machine.wentAway).loop().returns(None)
    return builder.build()


def _leave(machine: Machine, hands: Hands, seconds: float) -> None:
    hands.leave(seconds)


def _close(machine: Machine, hands: Hands) -> None:
    hands.close(machine)
