"""
Who serves which uid: the decisions of `connectors`, without its input and output.

Of two connectors with one uid the newcomer wins, unless the uid is shared. A newcomer with the same instance id is the
same connector with a new session. Two that take a uid from each other again and again are slowed down: when one comes
back that was superseded, and does so often, the winner may keep the uid for a while, longer each time. One that nobody
has seen before isn't held up: it is a connector that was restarted, however often.
"""

from collections import deque
from collections.abc import Iterator

import attrs

from ..errors import Code, LimitReached, UidTaken
from ..interfaces import Identity, ISession

#: Verified sessions at one time, over all uids.
SESSION_LIMIT = 10_000
#: Sessions of one shared uid.
SHARED_LIMIT = 64
#: Sessions of one uid that may finish their streams beside those that serve; the oldest give way. Each is a renewal.
LEAVING_LIMIT = 8
#: Takeovers in a row, by connectors that were superseded before, that nobody is slowed down for: somebody moves them.
FREE_TAKEOVERS = 5
#: Instances, of those that were superseded, that are remembered of a uid: more than would fight for it.
REMEMBERED = 16
#: Seconds without a ping after which visitors are rather given to others: two of those after which ours send them.
SILENCE = 20.0
#: Seconds that a winner may keep its uid after the first takeover beyond these; doubled with each.
FIRST_HOLD = 1.0
#: Seconds it may keep it at most: the idle time-out, after which it is gone if it doesn't answer.
LONGEST_HOLD = 60.0
#: Seconds without a takeover after which the next is the first again; more than twice the pause of a connector that
#: has been superseded, so that two of those count as what they are.
CALM = 300.0


@attrs.define(eq=False)
class Connector:
    """
    A verified session.

    :ivar identity: whose it is.
    :ivar session: what carries its visitors.
    :ivar since: when it was admitted, POSIX seconds.
    :ivar instance: the connector's random id; `None` when it has none (``hq-29``).
    :ivar yields: it takes the uid from nobody; ``finishes``: it ends a session itself.
    :ivar visitors: how many it carries, or will in a moment.
    :ivar heardAt: when it sent a ping last; `None` when it may never send one.
    :ivar isLeaving: it gets no more visitors.
    :ivar hasGone: it wants no more itself, and need not hear why its session ends.
    :ivar chosen: rises with each choice of it.
    :ivar farewell: code and words for its end, once it is leaving.
    """

    identity: Identity
    session: ISession
    since: float
    instance: str | None = None
    yields: bool = False
    finishes: bool = False
    visitors: int = 0
    heardAt: float | None = None
    isLeaving: bool = False
    hasGone: bool = False
    chosen: int = 0
    farewell: tuple[Code, str] = (Code.NO_ERROR, "")

    def isSilent(self, now: float) -> bool:
        """Whether it should have been heard of."""
        return self.session.isSilent or (self.heardAt is not None and now - self.heardAt > SILENCE)

    @property
    def uid(self) -> str:
        """Whose it is."""
        return self.identity.uid


@attrs.define
class _Contest:
    """
    The takeovers of a uid.

    :ivar count: those in a row by connectors that came back; ``last``: when the last of all was.
    :ivar superseded: the instances that lost it; `None` is every connector without one (``hq-29``).
    """

    count: int = 0
    last: float = 0.0
    superseded: deque[str | None] = attrs.field(factory=lambda: deque(maxlen=REMEMBERED))

    def hold(self, now: float) -> float:
        """Seconds for which the winner of the last takeover may still keep the uid."""
        if now - self.last >= CALM:
            self.count = 0
        if self.count < FREE_TAKEOVERS:
            return 0.0
        longest = min(LONGEST_HOLD, FIRST_HOLD * 2.0 ** min(self.count - FREE_TAKEOVERS, 16))
        return max(0.0, self.last + longest - now)


@attrs.frozen
class Verdict:
    """
    What follows from a newcomer.

    :ivar renewed: sessions of the same connector: they take no more visitors, and finish.
    :ivar superseded: other connectors' sessions: they end.
    """

    renewed: tuple[Connector, ...] = ()
    superseded: tuple[Connector, ...] = ()


@attrs.define(eq=False)
class Roster:
    """The verified connectors. Time comes in as a number, in seconds."""

    _serving: dict[str, list[Connector]] = attrs.field(factory=dict, init=False)
    _leaving: dict[str, list[Connector]] = attrs.field(factory=dict, init=False)
    _contests: dict[str, _Contest] = attrs.field(factory=dict, init=False)
    _count: int = attrs.field(default=0, init=False)
    _choices: int = attrs.field(default=0, init=False)

    def __iter__(self) -> Iterator[Connector]:
        """All that are there at this moment, those that leave included."""
        for lists in (self._serving, self._leaving):
            for connectors in tuple(lists.values()):
                yield from tuple(connectors)

    def serving(self, uid: str) -> tuple[Connector, ...]:
        """Those that new visitors of a uid may be given to."""
        return tuple([each for each in self._serving.get(uid, ()) if each.session.isOpen])

    def choose(self, uid: str, now: float) -> Connector | None:
        """
        The one with the fewest visitors; of several, that which has waited longest for one. Who has fallen silent is
        chosen only when all have: its network is gone, perhaps.
        """
        serving = self.serving(uid)
        if len(serving) == 1:
            return serving[0]
        found = min(serving, key=lambda each: (each.isSilent(now), each.visitors, each.chosen), default=None)
        if found is not None:
            self._choices += 1
            found.chosen = self._choices
        return found

    def join(self, newcomer: Connector, isShared: bool, now: float) -> Verdict:
        """
        A connector has been verified: it serves its uid from now on, and the verdict's sessions don't any more.

        :raises errors.UidTaken: another one keeps the uid; nothing has changed.
        :raises errors.LimitReached: there is no room; nothing has changed.
        """
        there = self.serving(newcomer.uid)
        same = tuple(each for each in there if each.instance is not None and each.instance == newcomer.instance)
        others = () if isShared else tuple(each for each in there if each not in same)
        if self._count >= SESSION_LIMIT:
            raise LimitReached(f"{SESSION_LIMIT} connectors are here, and that is the limit")
        if len(there) - len(same) - len(others) >= SHARED_LIMIT:
            raise LimitReached(f"{SHARED_LIMIT} connectors share the uid {newcomer.uid}, and that is the limit")
        if others:
            self._takeOver(newcomer, others, now)
        for each in (*same, *others):
            self._serving[newcomer.uid].remove(each)
        self._serving.setdefault(newcomer.uid, []).append(newcomer)
        self._leaving.setdefault(newcomer.uid, []).extend((*same, *others))
        for each in (*same, *others):
            each.isLeaving = True
        self._count += 1
        return Verdict(same, others)

    def _takeOver(self, newcomer: Connector, others: tuple[Connector, ...], now: float) -> None:
        uid = newcomer.uid
        if newcomer.yields:
            raise UidTaken(f"another connector that took over the uid {uid} is still here", LONGEST_HOLD)
        contest = self._contests.setdefault(uid, _Contest())
        comesBack = newcomer.instance in contest.superseded
        hold = contest.hold(now)
        if hold and comesBack:
            raise UidTaken(
                f"{contest.count} takeovers of the uid {uid} one after the other: two connectors fight for it; "
                "end one of them, give it a certificate of its own, or let them share the uid",
                hold,
            )
        contest.count += comesBack
        contest.last = now
        contest.superseded.extend(each.instance for each in others)

    def retire(self, connector: Connector) -> None:
        """It gets no more visitors."""
        serving = self._serving.get(connector.uid, [])
        if connector in serving:
            serving.remove(connector)
            self._leaving.setdefault(connector.uid, []).append(connector)
        connector.isLeaving = True

    def surplus(self, uid: str) -> tuple[Connector, ...]:
        """Those that have been leaving the longest, beyond the limit: to be ended."""
        return tuple(self._leaving.get(uid, ())[:-LEAVING_LIMIT])

    def leave(self, connector: Connector) -> None:
        """Its session is gone."""
        uid = connector.uid
        for lists in (self._serving, self._leaving):
            connectors = lists.get(uid, [])
            if connector in connectors:
                connectors.remove(connector)
                self._count -= 1
            if not connectors:
                lists.pop(uid, None)
        if uid not in self._serving and uid not in self._leaving:
            self._contests.pop(uid, None)
