"""
A stream to a target, to see how far it gets: it is opened, dialled, written to and read from as a visitor's is, each
step with its time, and then given up.
"""

from collections.abc import Callable

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import Code, LimitReached, SessionLost, SocketwarpError, TargetTimedOut
from ..interfaces import IStream, IStreamReceiver, Piece
from ..wire.cutting import Parser
from ..wire.dialect import DIALECTS, Dialect, Dialled
from ..wire.preamble import Preamble
from .roster import Connector

#: Bytes of the target's answer that are kept.
KEPT_BYTES = 1024


@attrs.define
class Probed:
    """
    How far a probe got.

    :ivar outcome: ``answered`` (the target sent bytes), ``closed`` (it ended without any), ``dialled`` (it was reached
        and said nothing), ``unknown`` (it said nothing, and the connector's protocol doesn't tell whether it was
        reached), or an error's code.
    :ivar reason: of an error, for people.
    :ivar dialled: what the connector dialled, ``address:port``; empty when it doesn't say.
    :ivar streamSeconds: until there was a stream; ``dialSeconds``: until the connector said that it had dialled, or
        why not; ``byteSeconds``: until the target's first byte, or its end; `None` when it didn't come so far. Each
        counts from the step before.
    :ivar resolveSeconds: of the time until the connector said that it had dialled, what the target's name took;
        ``connectSeconds``: and what the TCP connection took. The rest is the way to the connector and back. `None` when
        it doesn't say.
    :ivar received: the target's first bytes.
    """

    outcome: str = "unknown"
    reason: str = ""
    dialled: str = ""
    streamSeconds: float | None = None
    dialSeconds: float | None = None
    resolveSeconds: float | None = None
    connectSeconds: float | None = None
    byteSeconds: float | None = None
    received: bytes = b""


async def probe(clock: IReactorTime, connector: Connector, preamble: Preamble, data: bytes, seconds: float) -> Probed:
    """
    Probe a target.

    :param preamble: names the target.
    :param data: what the target is sent; empty: nothing. Then, if the connector tells that it has dialled, that is all.
    :param seconds: for all steps together.
    """
    probed = Probed()
    dialect = DIALECTS[connector.session.protocol]
    began = clock.seconds()
    stream: IStream | None = None
    try:
        full = LimitReached(f"the connector of {connector.uid} took no further stream within {seconds:g} s")
        stream = await connector.session.openStream().addTimeout(seconds, clock, _late(full))
        probed.streamSeconds = clock.seconds() - began
        listening = _Listening(clock, probed, dialect, wantsBytes=bool(data))
        stream.write(dialect.formatPreamble(preamble) + data)
        stream.start(listening)
        left = max(0.0, seconds - probed.streamSeconds)
        late = TargetTimedOut(f"the connector of {connector.uid} didn't say within {seconds:g} s whether it dialled")
        await listening.done.addTimeout(left, clock, _late(late))
    except SocketwarpError as error:
        # Silence is no error of a target that was reached, and no news of one that nobody says was.
        silent = isinstance(error, TargetTimedOut) and (probed.outcome == "dialled" or not dialect.hasControl)
        if not silent:
            probed.outcome, probed.reason = error.code, str(error)
    finally:
        if stream is not None:
            stream.abort(Code.ABORTED)
    return probed


def _late(error: SocketwarpError) -> Callable[[object, float], Failure]:
    return lambda result, seconds: Failure(error)


@implementer(IStreamReceiver)
class _Listening:
    """
    Hears what comes.

    :ivar done: fires when all has come that is waited for; fails with an `errors.SocketwarpError`.
    """

    def __init__(self, clock: IReactorTime, probed: Probed, dialect: Dialect, wantsBytes: bool) -> None:
        self.done: Deferred[None] = Deferred()
        self._clock = clock
        self._probed = probed
        self._parser: Parser[Dialled] | None = dialect.answerParser()
        self._tells = dialect.hasControl  # whether the parser's result says anything
        self._wantsBytes = wantsBytes
        self._since = clock.seconds()

    def piecesReceived(self, pieces: list[Piece]) -> None:
        """The connector's answer, then the target's bytes."""
        if self._parser is not None:
            try:
                taken = self._parser.feed(pieces)
            except SocketwarpError as error:
                self._probed.dialSeconds = self._lap()
                self._end(error)
                return
            if taken is None:
                return
            dialled, pieces = taken
            self._parser = None
            if self._tells:
                self._reached(dialled)
        if pieces and not self._probed.received:
            self._probed.received = b"".join(pieces)[:KEPT_BYTES]
            self._heard("answered")

    def _reached(self, dialled: Dialled) -> None:
        probed = self._probed
        probed.outcome, probed.dialled, probed.dialSeconds = "dialled", dialled.address, self._lap()
        probed.resolveSeconds, probed.connectSeconds = dialled.resolveSeconds, dialled.connectSeconds
        if not self._wantsBytes:
            self._end(None)

    def _heard(self, outcome: str) -> None:
        if self._probed.byteSeconds is None:
            self._probed.outcome, self._probed.byteSeconds = outcome, self._lap()
        self._end(None)

    def _lap(self) -> float:
        before, self._since = self._since, self._clock.seconds()
        return self._since - before

    def _end(self, error: SocketwarpError | None) -> None:
        if self.done.called:
            return
        if error is None:
            self.done.callback(None)
        else:
            self.done.errback(error)

    def readConnectionLost(self) -> None:
        """The target's FIN."""
        self._heard("closed")

    def writeConnectionLost(self, errorCode: int) -> None:
        """The target reads no more, which says nothing of what it writes."""

    def connectionLost(self, reason: Failure) -> None:
        """The stream is over."""
        error = reason.value
        self._end(error if isinstance(error, SocketwarpError) else SessionLost(reason.getErrorMessage()))
