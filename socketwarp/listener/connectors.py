"""
Who is connected: sessions are admitted, carry visitors, give way and end.

A session is admitted when the verifier has named its uid, and by nothing else; `roster` decides what becomes of others
with the same uid. Open ports follow at once, because they ask `Connectors` for each visitor anew.
"""

from collections.abc import Iterator

import attrs
from twisted.internet.defer import CancelledError, Deferred, DeferredList, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..errors import (
    CertificateRejected,
    Code,
    ConnectorAway,
    ConnectorDenied,
    LimitReached,
    NoSuchSession,
    SessionLost,
    SocketwarpError,
    UidTaken,
    VerifierFault,
    VerifierRefused,
)
from ..interfaces import Address, Identity, ISession, IVerifier
from ..wire.messages import FINISHES, PING, YIELDS, Finished, Goaway, Hello, Message, Refused, Welcome
from .denials import Denials, deniedFor
from .events import Events, showAddress
from .greeting import Channel
from .recheck import CheckRunning, Recheck, RecheckPolicy, checkNothing
from .roster import Connector, Roster, Verdict
from .waiting import WaitingRoom

#: Sessions that may be unverified at one time. After an outage all connectors come back together; 500 at once are
#: expected, and the verifier answers within 5 s.
VERIFYING_LIMIT = 1024
#: Seconds that a connector has to hear why its session ends, and to end it itself, before we do.
FAREWELL_SECONDS = 0.5
#: Seconds after which a connector may ask again that was refused for a reason that passes.
RETRY_SECONDS = 5.0
#: Seconds that the streams of a session may take to finish after its connector has renewed itself: a day. Its
#: certificate is checked all the time, and ends it as well.
RENEWED_SECONDS = 86400.0


@attrs.frozen
class Terms:
    """
    On what terms connectors are here.

    :ivar keepAlive: seconds between two signs of life; ``idle``: without any, after which a session counts as lost.
    :ivar sharedUids: uids that several connectors may have at a time.
    """

    keepAlive: float = 50.0
    idle: float = 60.0
    sharedUids: frozenset[str] = frozenset()

    def areShared(self, identity: Identity) -> bool:
        """Whether others may have the uid as well: by our settings, or because the verifier says so."""
        return identity.uid in self.sharedUids or identity.attributes.get("shared") is True


@attrs.define(eq=False)
class Connectors:
    """
    The sessions, from their handshake to their end.

    :ivar denials: who isn't let in for a time.
    """

    _clock: IReactorTime
    _verifier: IVerifier
    _events: Events
    denials: Denials
    _policy: RecheckPolicy = attrs.field(factory=RecheckPolicy)
    _terms: Terms = attrs.field(factory=Terms)
    _checkRunning: CheckRunning = checkNothing
    _sessions: dict[ISession, Channel] = attrs.field(factory=dict, init=False)
    _verifying: set[ISession] = attrs.field(factory=set, init=False)
    _roster: Roster = attrs.field(factory=Roster, init=False)
    _waiting: WaitingRoom = attrs.field(factory=WaitingRoom, init=False)
    _stopping: str | None = attrs.field(default=None, init=False)

    _log = Logger()

    def __iter__(self) -> Iterator[Connector]:
        """The verified sessions of this moment."""
        return iter(tuple(self._roster))

    def serving(self, uid: str) -> tuple[Connector, ...]:
        """The connectors that may get visitors of a uid."""
        return self._roster.serving(uid)

    def current(self, uid: str) -> Connector:
        """
        The connector that gets the next visitor of a uid; among several it is another's turn afterwards.

        :raises errors.NoSuchSession: when there is none.
        """
        connector = self.find(uid)
        if connector is None:
            raise NoSuchSession(uid)
        return connector

    def find(self, uid: str) -> Connector | None:
        """The same, or `None`."""
        return self._roster.choose(uid, self._clock.seconds())

    def whenConnected(self, uid: str) -> Deferred[Connector]:
        """
        Fires with a connector of the uid as soon as there is one; waits without end, so put a time-out on it.

        Fails with `errors.LimitReached` when too many wait already, and with `errors.ConnectorAway` when none will come
        because the listener stops.
        """
        connector = self.find(uid)
        if connector is not None:
            return succeed(connector)
        return self._waiting.wait(uid) if self._stopping is None else fail(ConnectorAway(self._stopping))

    def whenHeard(self, uid: str) -> Deferred[Connector]:
        """
        Fires with a connector of the uid whose session isn't silent: one that is heard of again, or a new one. Waits
        without end, and fails, as `whenConnected`.
        """
        if self._stopping is not None:
            return fail(ConnectorAway(self._stopping))
        self._waiting.listen(self._clock, self._audible)
        return self._waiting.wait(uid)

    def _audible(self, uid: str) -> Connector | None:
        connector = self.find(uid)
        return None if connector is None or connector.session.isSilent else connector

    def left(self, connector: Connector) -> None:
        """A visitor has gone that the connector carried (`Connector.visitors`): perhaps the last one of a session."""
        connector.visitors -= 1
        if connector.isLeaving and not connector.visitors and connector.session.isOpen:
            self._closeEmpty(connector)

    def dismiss(self, uid: str) -> None:
        """End a uid's sessions, by an operator's wish."""
        left = self.denials.left(uid)
        code, text = (Code.DENIED, deniedFor(left)) if left else (Code.SHUTDOWN, "an operator ended it")
        for connector in self:
            if connector.uid == uid:
                self._farewell(connector.session, Goaway("dismissed", 0.0, text), code, text)

    # -- coming

    def admit(self, session: ISession) -> None:
        """
        Take a new session: hear its hello, ask the verifier whose it is, then carry visitors by it, or close it and say
        why.
        """
        if self._stopping is not None:
            session.close(Code.SHUTDOWN, self._stopping)
            return
        channel = Channel(session)
        self._sessions[session] = channel
        session.whenClosed().addCallback(lambda _: self._sessions.pop(session, None))
        if len(self._verifying) >= VERIFYING_LIMIT:
            self._refuse(session, LimitReached("too many connectors at this moment: try again later"))
            return
        self._verifying.add(session)
        admission = Deferred.fromCoroutine(self._admit(session, channel))
        admission.addBoth(lambda _: self._verifying.discard(session))
        # A session that dies meanwhile takes its question with it.
        session.whenClosed().addCallback(lambda _: admission.cancel())

    async def _admit(self, session: ISession, channel: Channel) -> None:
        try:
            await channel.open(self._clock)
            identity = await self._ask(session)
            if session.isOpen:
                self.denials.check(identity.uid)
                self._admitted(session, channel, identity)
        except SocketwarpError as error:
            if session.isOpen:  # else it died meanwhile, and its question was taken back
                self._refuse(session, error)
        except CancelledError:
            pass  # it was gone before it had said who it is
        except Exception:
            self._log.failure("admission failed")
            session.close(Code.INTERNAL, "a fault of the listener; its log says more")

    async def _ask(self, session: ISession) -> Identity:
        try:
            return await maybeDeferred(self._verifier.verify, session.peerLeaf)
        except SocketwarpError:
            raise
        except Exception:
            self._log.failure("the verifier failed")
            raise VerifierFault("the verifier failed; the listener's log says how") from None

    def turnedAway(self, sessionId: str, address: Address, error: SessionLost) -> None:
        """TLS made no session of a connection, because one end didn't accept the other: say so."""
        who = "it ended the handshake" if error.fromPeer else "TLS refused it"
        self._events.emit(
            "connector.refused",
            session=sessionId,
            peer=showAddress(address),
            subject=None,
            code=CertificateRejected.code,
            reason=f"{who}: {error}",
        )

    def _refuse(self, session: ISession, error: SocketwarpError) -> None:
        self._events.emit(
            "connector.refused",
            session=session.sessionId,
            peer=showAddress(session.peerAddress),
            subject=session.peerLeaf.subject.rfc4514_string(),
            code=error.code,
            reason=str(error),
        )
        self._farewell(session, Refused(error.code, str(error), _retryAfter(error)), error.streamCode, str(error))

    def _admitted(self, session: ISession, channel: Channel, identity: Identity) -> None:
        now = self._clock.seconds()
        hello = channel.hello
        connector = Connector(identity, session, self._events.now())
        if hello is not None:
            connector.instance, connector.yields = hello.instance, YIELDS in hello.features
            connector.finishes = FINISHES in hello.features
        verdict = self._roster.join(connector, self._terms.areShared(identity), now)
        self._welcome(connector, channel)
        self._heed(verdict, connector)
        self._events.emit(
            "connector.connected",
            uid=identity.uid,
            session=session.sessionId,
            peer=showAddress(session.peerAddress),
            protocol=session.protocol,
            carrier=session.carrier,
            software=_software(hello),
        )
        recheck = Recheck(
            self._clock, self._verifier, self._events, self._policy, identity, session, self._checkRunning
        )
        recheck.start()
        session.whenClosed().addCallback(self._lost, connector, recheck, now)
        self._waiting.serve(connector)

    def _welcome(self, connector: Connector, channel: Channel) -> None:
        if channel.hello is not None and PING in channel.hello.features:
            channel.pinged = lambda: self._heard(connector)
            self._heard(connector)
        channel.wentAway = lambda goaway: self._wentAway(connector, goaway)
        identity = connector.identity
        welcome = Welcome(
            identity.uid,
            connector.session.sessionId,
            self._terms.keepAlive,
            self._terms.idle,
            (PING,),
            int(identity.notAfter.timestamp()),
            connector.session.ticket,
            connector.session.laneLimit,
        )
        channel.say(welcome)

    def _heard(self, connector: Connector) -> None:
        connector.heardAt = self._clock.seconds()

    # -- going

    def _heed(self, verdict: Verdict, newcomer: Connector) -> None:
        for older in verdict.renewed:
            self._tell("connector.renewed", older, newcomer)
            self._dismiss(older, "renewed", RENEWED_SECONDS, "the connector has a newer session", Code.NO_ERROR)
        for older in verdict.superseded:
            self._tell("connector.superseded", older, newcomer)
            text = (
                f"another connector with the uid {older.uid} connected from "
                f"{showAddress(newcomer.session.peerAddress)} and took over"
            )
            self._farewell(older.session, Goaway(UidTaken.code, 0.0, text), Code.SUPERSEDED, text)
        for older in self._roster.surplus(newcomer.uid):
            older.session.close(Code.LIMIT, "the connector has renewed itself too often since")

    def _tell(self, event: str, older: Connector, newcomer: Connector) -> None:
        self._events.emit(
            event,
            uid=older.uid,
            session=older.session.sessionId,
            newcomer=newcomer.session.sessionId,
            peer=showAddress(newcomer.session.peerAddress),
        )

    def _wentAway(self, connector: Connector, goaway: Goaway) -> None:
        """The connector wants no more visitors."""
        connector.hasGone = True
        if not connector.isLeaving:
            self._events.emit(
                "connector.leaving",
                uid=connector.uid,
                session=connector.session.sessionId,
                reason=goaway.reason,
                visitors=connector.visitors,
            )
            self._retire(connector, goaway.seconds, goaway.text or goaway.reason, Code.NO_ERROR)

    def _dismiss(self, connector: Connector, reason: str, seconds: float, text: str, code: Code) -> None:
        """No more visitors for a connector; those who are there may finish."""
        self._sessions[connector.session].say(Goaway(reason, seconds, text))
        self._retire(connector, seconds, text, code)

    def _retire(self, connector: Connector, seconds: float, text: str, code: Code) -> None:
        self._roster.retire(connector)
        connector.farewell = (code, text)
        # A little later than was said: who ends its streams in time ends the session, too.
        self._closeLater(connector.session, seconds + FAREWELL_SECONDS, code, f"{text}, and {seconds:g} s are over")
        if not connector.visitors:
            self._closeEmpty(connector)

    def _closeLater(self, session: ISession, seconds: float, code: Code, text: str) -> None:
        end = self._clock.callLater(seconds, session.close, code, text)
        session.whenClosed().addCallback(lambda _: end.cancel() if end.active() else None)

    def _closeEmpty(self, connector: Connector) -> None:
        """
        A leaving session without visitors. The connector ends it, if it can: it may hold bytes that its targets are
        slow to take. Any other is told why first, unless it can't be, or goes by its own wish.
        """
        code, text = connector.farewell
        if connector.finishes and not connector.isSilent(self._clock.seconds()):
            self._sessions[connector.session].say(Finished())
        elif connector.hasGone:
            connector.session.close(code, text)
        else:
            self._closeSoon(connector.session, code, text)

    def _farewell(self, session: ISession, message: Message, code: Code, text: str) -> None:
        """The last word to a connector, and the end of its session, by itself or soon by us."""
        self._sessions[session].say(message)
        self._closeSoon(session, code, text)

    def _closeSoon(self, session: ISession, code: Code, text: str) -> None:
        if self._sessions[session].isThere:
            self._closeLater(session, FAREWELL_SECONDS, code, text)
        else:
            session.close(code, text)

    def _lost(self, reason: SessionLost, connector: Connector, recheck: Recheck, began: float) -> None:
        recheck.stop()
        self._roster.leave(connector)
        self._events.emit(
            "connector.lost",
            uid=connector.uid,
            session=connector.session.sessionId,
            seconds=round(self._clock.seconds() - began, 3),
            reason=str(reason),
        )

    def drain(self, reason: str, seconds: float) -> None:
        """
        Take no more sessions; those that are here get no more visitors, and end when theirs have gone. Nobody is left
        to wait for: visitors who do are told so.
        """
        self._stopping = reason
        for session in tuple(self._verifying):
            session.close(Code.SHUTDOWN, reason)
        for connector in self:
            if connector.isLeaving:  # and has more time than that, perhaps
                self._retire(connector, seconds, reason, Code.SHUTDOWN)
            else:
                self._dismiss(connector, "shutdown", seconds, reason, Code.SHUTDOWN)
        self._waiting.disappoint(ConnectorAway(reason))

    def closeAll(self, reason: str) -> Deferred[None]:
        """End every session, those not verified yet included, and take no more; fires once all are gone."""
        self._stopping = reason
        gone = self.whenGone()
        for session in tuple(self._sessions):
            session.close(Code.SHUTDOWN, reason)
        return gone

    def whenGone(self) -> Deferred[None]:
        """Fires once the sessions of this moment are gone; after `drain`, that takes no longer than its seconds."""
        return DeferredList([session.whenClosed() for session in self._sessions]).addCallback(lambda _: None)


def _software(hello: Hello | None) -> str | None:
    return None if hello is None else f"{hello.software}/{hello.version}"


def _retryAfter(error: SocketwarpError) -> float | None:
    """When another attempt makes sense, seconds; `None`: not with this certificate."""
    match error:
        case VerifierRefused():
            return None
        case UidTaken() | ConnectorDenied():
            return error.retryAfter
        case _:
            return RETRY_SECONDS
