"""
Who is connected: uid to session.

A session is admitted when the verifier has named its uid, and by nothing else. Of two sessions with one uid the later
one wins, once it is verified: the older is closed with a reason, and open ports follow, because they ask `Connectors`
for each visitor anew.
"""

from collections.abc import Iterator
from functools import partial

import attrs
from twisted.internet.defer import Deferred, DeferredList, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import CertificateRejected, Code, LimitReached, NoSuchSession, SessionLost, SocketwarpError, VerifierFault
from ..interfaces import Address, Identity, ISession, IVerifier
from .events import Events, showAddress
from .recheck import Recheck, RecheckPolicy

#: Sessions that may wait for the verifier's answer at one time. After an outage all connectors come back together;
#: 500 at once are expected, and the verifier answers within 5 s.
VERIFYING_LIMIT = 1024
#: Verified sessions at one time: one for each uid.
SESSION_LIMIT = 10_000
#: Visitors, over all uids, that may wait for a connector to come back.
WAITING_LIMIT = 4096


@attrs.frozen(eq=False)
class Connector:
    """
    A verified session.

    :ivar identity: whose it is.
    :ivar session: what carries its visitors.
    :ivar since: when it was admitted, in the clock's seconds.
    """

    identity: Identity
    session: ISession
    since: float


@attrs.define(eq=False)
class Connectors:
    """The sessions, from their handshake to their end."""

    _clock: IReactorTime
    _verifier: IVerifier
    _events: Events
    _policy: RecheckPolicy = attrs.field(factory=RecheckPolicy)
    _verifying: set[ISession] = attrs.field(factory=set, init=False)
    _byUid: dict[str, Connector] = attrs.field(factory=dict, init=False)
    _waiting: dict[str, dict[Deferred[ISession], None]] = attrs.field(factory=dict, init=False)
    _waitingCount: int = attrs.field(default=0, init=False)
    _stopping: str | None = attrs.field(default=None, init=False)

    _log = Logger()

    def __iter__(self) -> Iterator[Connector]:
        """The verified sessions of this moment."""
        return iter(tuple(self._byUid.values()))

    def current(self, uid: str) -> ISession:
        """
        The session that carries new visitors of a uid.

        :raises errors.NoSuchSession: when there is none.
        """
        connector = self._byUid.get(uid)
        if connector is None or not connector.session.isOpen:
            raise NoSuchSession
        return connector.session

    def whenConnected(self, uid: str) -> Deferred[ISession]:
        """
        Fires with the uid's session as soon as there is one; waits without end, so put a time-out on it.

        Fails with `errors.LimitReached` when too many wait already.
        """
        try:
            return succeed(self.current(uid))
        except NoSuchSession:
            return self._wait(uid)

    def _wait(self, uid: str) -> Deferred[ISession]:
        if self._waitingCount >= WAITING_LIMIT:
            return fail(LimitReached(f"{WAITING_LIMIT} visitors wait for their connectors already"))
        d: Deferred[ISession] = Deferred(partial(self._giveUp, uid))
        # A dictionary is a set that remembers the order: who came first is served first.
        self._waiting.setdefault(uid, {})[d] = None
        self._waitingCount += 1
        return d

    def _giveUp(self, uid: str, d: Deferred[ISession]) -> None:
        waiting = self._waiting[uid]
        del waiting[d]
        self._waitingCount -= 1
        if not waiting:
            del self._waiting[uid]

    def admit(self, session: ISession) -> None:
        """Take a new session: ask the verifier whose it is, then carry visitors by it, or close it and say why."""
        if self._stopping is not None:
            session.close(Code.SHUTDOWN, self._stopping)
            return
        if len(self._verifying) >= VERIFYING_LIMIT or len(self._byUid) >= SESSION_LIMIT:
            self._refuse(session, LimitReached("too many connectors at this moment: try again later"))
            return
        self._verifying.add(session)
        asked = maybeDeferred(self._verifier.verify, session.peerLeaf)
        asked.addCallbacks(partial(self._verified, session), partial(self._unverified, session))
        asked.addErrback(partial(self._broken, session))
        asked.addBoth(lambda _: self._verifying.discard(session))
        # A session that dies meanwhile takes its question with it.
        session.whenClosed().addCallback(lambda _: asked.cancel())

    def turnedAway(self, sessionId: str, address: Address, error: SessionLost) -> None:
        """TLS made no session of a connection, because one end didn't accept the other: say so."""
        who = "it ended the handshake" if error.fromPeer else "TLS refused it"
        self._events.emit(
            "connector.refused",
            session=sessionId,
            address=showAddress(address),
            subject=None,
            code=CertificateRejected.code,
            reason=f"{who}: {error}",
        )

    def _unverified(self, session: ISession, failure: Failure) -> None:
        if not session.isOpen:
            return  # it died meanwhile, and its question was taken back
        error = failure.value
        if not isinstance(error, SocketwarpError):
            self._log.failure("the verifier failed", failure)
            error = VerifierFault("the verifier failed; the listener's log says how")
        self._refuse(session, error)

    def _broken(self, session: ISession, failure: Failure) -> None:
        self._log.failure("admission failed", failure)
        session.close(Code.INTERNAL, "a fault of the listener; its log says more")

    def _refuse(self, session: ISession, error: SocketwarpError) -> None:
        self._events.emit(
            "connector.refused",
            session=session.sessionId,
            address=showAddress(session.peerAddress),
            subject=session.peerLeaf.subject.rfc4514_string(),
            code=error.code,
            reason=str(error),
        )
        session.close(error.streamCode, str(error))

    def _verified(self, session: ISession, identity: Identity) -> None:
        if not session.isOpen:
            return
        connector = Connector(identity, session, self._clock.seconds())
        older = self._byUid.get(identity.uid)
        self._byUid[identity.uid] = connector
        if older is not None:
            self._supersede(older, session)
        self._events.emit(
            "connector.connected",
            uid=identity.uid,
            session=session.sessionId,
            address=showAddress(session.peerAddress),
            protocol=session.protocol,
            carrier=session.carrier,
        )
        recheck = Recheck(self._clock, self._verifier, self._events, self._policy, identity, session)
        recheck.start()
        session.whenClosed().addCallback(partial(self._lost, connector, recheck))
        self._serve(identity.uid, session)

    def _supersede(self, older: Connector, newcomer: ISession) -> None:
        uid = older.identity.uid
        self._events.emit(
            "connector.superseded",
            uid=uid,
            session=older.session.sessionId,
            newcomer=newcomer.sessionId,
            address=showAddress(newcomer.peerAddress),
        )
        older.session.close(
            Code.SUPERSEDED,
            f"another connector with the uid {uid} connected from {showAddress(newcomer.peerAddress)} and took over",
        )

    def _serve(self, uid: str, session: ISession) -> None:
        waiting = self._waiting.pop(uid, {})
        self._waitingCount -= len(waiting)
        for d in waiting:
            d.callback(session)

    def _lost(self, connector: Connector, recheck: Recheck, reason: SessionLost) -> None:
        recheck.stop()
        uid = connector.identity.uid
        if self._byUid.get(uid) is connector:
            del self._byUid[uid]
        self._events.emit(
            "connector.lost",
            uid=uid,
            session=connector.session.sessionId,
            seconds=round(self._clock.seconds() - connector.since, 3),
            reason=str(reason),
        )

    def closeAll(self, reason: str) -> Deferred[None]:
        """End every session, those not verified yet included, and take no more; fires once all are gone."""
        self._stopping = reason
        sessions = [*self._verifying, *(connector.session for connector in self)]
        gone = [session.whenClosed() for session in sessions]
        for session in sessions:
            session.close(Code.SHUTDOWN, reason)
        return DeferredList(gone).addCallback(lambda _: None)
