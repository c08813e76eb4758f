"""Uids that an operator has sent away for a time: kept on the disk, so that a restart lets nobody in too early."""

from collections.abc import Callable

import attrs

from ..errors import ConnectorDenied, LimitReached
from .store import IPortStore

#: Uids that may be denied at a time.
DENIED_LIMIT = 1000


@attrs.define(eq=False)
class Denials:
    """
    Who isn't let in, and until when.

    :ivar now: the time, in POSIX seconds.
    """

    _now: Callable[[], float]
    _store: IPortStore
    _until: dict[str, float] = attrs.field(factory=dict, init=False)

    def load(self) -> None:
        """Take up what the store holds, after its own `load`."""
        self._until = self._store.denied()

    def current(self) -> list[str]:
        """The uids of this moment."""
        now = self._now()
        self._until = {uid: until for uid, until in self._until.items() if until > now}
        return list(self._until)

    def until(self, uid: str) -> float | None:
        """When a uid is let in again, POSIX seconds; `None`: it is."""
        until = self._until.get(uid, 0.0)
        return until if until > self._now() else None

    def left(self, uid: str) -> float:
        """For how many seconds a uid isn't let in; 0: it is."""
        return max(0.0, self._until.get(uid, 0.0) - self._now())

    def check(self, uid: str) -> None:
        """:raises errors.ConnectorDenied: while the uid isn't let in."""
        if left := self.left(uid):
            raise ConnectorDenied(deniedFor(left), left)

    def checkRoom(self, uid: str) -> None:
        """:raises errors.LimitReached: when others than this uid are as many as may be denied."""
        if len(set(self.current()) - {uid}) >= DENIED_LIMIT:
            raise LimitReached(f"{DENIED_LIMIT} uids are denied already: a policy is the place for so many")

    async def deny(self, uid: str, seconds: float) -> None:
        """
        Don't let a uid in for a time, from when that is on the disk.

        :param seconds: how long, from now; 0: it is let in again.
        :raises errors.LimitReached: see `checkRoom`. :raises errors.StoreUnavailable: nothing has changed.
        """
        if seconds:
            self.checkRoom(uid)
        now = self._now()
        await self._store.deny(uid, now + seconds, now)
        self._until[uid] = now + seconds


def deniedFor(seconds: float) -> str:
    """What a connector that isn't let in is told."""
    return f"an operator has sent this connector away for {seconds:.0f} s"
