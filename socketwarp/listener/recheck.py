"""
A running session is asked again whether it may go on.

A certificate can be withdrawn while its session lives for months, and so can those above it. So its chain is checked
against the roots and revocation lists of the moment, and the verifier is asked again, within every
`RecheckPolicy.seconds`; its refusal ends the session, and the connections of visitors with it. A fault of the verifier
doesn't, or its outage would be everybody's: the session goes on, loudly, for `RecheckPolicy.grace`. The certificate's
end of life ends it in any case.
"""

import math
import random
from collections.abc import Callable, Sequence

import attrs
from cryptography import x509
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import CertificateRejected, SocketwarpError, VerifierFault, VerifierRefused
from ..interfaces import Identity, ISession, IVerifier
from .events import Events

#: A wait is between these parts of its full length.
WAIT = (0.7, 0.9)

#: Checks the chain of a running session, the leaf first: raises `CertificateRejected` when it is no longer good, and
#: `VerifierFault` when nobody can say.
CheckRunning = Callable[[Sequence[x509.Certificate]], None]


def checkNothing(chain: Sequence[x509.Certificate]) -> None:
    """A `CheckRunning` for when roots and lists never change."""


@attrs.frozen
class RecheckPolicy:
    """
    :ivar seconds: the longest time until a withdrawn certificate ends its session. Each wait is a part of it, see
        `WAIT`, so that the answer comes within it, too, and sessions don't ask in step.
    :ivar grace: seconds a session may go on while the verifier can't answer; 0 ends it at the first fault.
    """

    seconds: float = 60.0
    grace: float = 900.0


@attrs.define(eq=False)
class Recheck:
    """The questions about one session."""

    _clock: IReactorTime
    _verifier: IVerifier
    _events: Events
    _policy: RecheckPolicy
    _identity: Identity
    _session: ISession
    _checkRunning: CheckRunning = checkNothing
    _random: Callable[[], float] = random.random
    _sure: float = attrs.field(default=0.0, init=False)
    _faults: int = attrs.field(default=0, init=False)
    _call: IDelayedCall | None = attrs.field(default=None, init=False)
    _asked: Deferred[None] | None = attrs.field(default=None, init=False)

    _log = Logger()

    def start(self) -> None:
        """Count from now: the session has just been verified."""
        self._sure = self._clock.seconds()
        self._schedule(self._policy.seconds)

    def stop(self) -> None:
        """Ask no more."""
        if self._call is not None:
            self._call.cancel()
            self._call = None
        if self._asked is not None:
            self._asked.cancel()

    def _schedule(self, seconds: float, latest: float = math.inf) -> None:
        """Ask after a part of `seconds`, at the latest after `latest` or at the certificate's end of life."""
        least, most = WAIT
        delay = seconds * (least + (most - least) * self._random())
        self._call = self._clock.callLater(max(0.0, min(delay, latest, self._lifeLeft())), self._ask)

    def _lifeLeft(self) -> float:
        return self._identity.notAfter.timestamp() - self._events.now()

    def _ask(self) -> None:
        self._call = None
        if self._lifeLeft() <= 0:
            self._end(VerifierRefused(f"the certificate of {self._identity.uid} has expired: renew it"))
            return
        asked = Deferred.fromCoroutine(self._verify())
        self._asked = asked.addCallbacks(self._answered, self._unanswered).addErrback(self._broken)
        if asked.called:
            self._asked = None

    async def _verify(self) -> Identity:
        doubt = None
        try:
            self._checkRunning(self._session.peerChain)
        except CertificateRejected as e:
            raise VerifierRefused(str(e)) from e
        except VerifierFault as e:
            doubt = e  # the verifier may know better than that: its refusal counts at once
        identity = await self._verifier.verify(self._session.peerLeaf)
        if doubt is not None:
            raise doubt
        return identity

    def _answered(self, identity: Identity) -> None:
        self._asked = None
        if not self._session.isOpen:
            return
        if identity.uid != self._identity.uid:
            self._end(VerifierRefused(f"the certificate of {self._identity.uid} now names {identity.uid}"))
            return
        if self._faults:
            self._tell("connector.verified")
        self._faults = 0
        self._sure = self._clock.seconds()
        self._schedule(self._policy.seconds)

    def _unanswered(self, failure: Failure) -> None:
        self._asked = None
        if not self._session.isOpen:
            return  # it ended meanwhile, and its question was taken back
        if isinstance(failure.value, VerifierRefused):
            self._end(failure.value)
            return
        if not isinstance(failure.value, SocketwarpError):
            self._log.failure("the verifier failed", failure)
        self._fault(failure.getErrorMessage())

    def _fault(self, reason: str) -> None:
        unsure = self._clock.seconds() - self._sure
        if unsure >= self._policy.grace:
            self._end(VerifierFault(f"not verified for {unsure:.0f} s, the grace is over: {reason}"))
            return
        self._tell("connector.unverified", reason=reason)
        # Asked again after 1, 2, 4 … seconds, never more seldom than without the fault, and at the end of the grace.
        self._faults += 1
        backOff = min(2.0 ** min(self._faults - 1, 16), self._policy.seconds)
        self._schedule(backOff, self._policy.grace - unsure)

    def _tell(self, name: str, **fields: str) -> None:
        seconds = round(self._clock.seconds() - self._sure, 3)
        self._events.emit(name, uid=self._identity.uid, session=self._session.sessionId, seconds=seconds, **fields)

    def _broken(self, failure: Failure) -> None:
        self._log.failure("a re-check failed", failure)
        self._end(VerifierFault("the re-check failed; the listener's log says how"))

    def _end(self, error: SocketwarpError) -> None:
        self._session.close(error.streamCode, str(error))
