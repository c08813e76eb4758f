"""What the streams of both carriers are towards who writes to them: Twisted's `IConsumer`, for push producers."""

from collections.abc import Sequence
from typing import cast

from twisted.internet.interfaces import IProducer, IPushProducer

from .interfaces import Piece


class Consumer:
    """The producer's side of an `IStream`, which sets `_isOver` when nothing more is taken."""

    __slots__ = ("_isOver", "_isProducerPaused", "_producer")

    def __init__(self) -> None:
        self._isOver = False
        self._isProducerPaused = False
        self._producer: IPushProducer | None = None

    def write(self, data: bytes) -> None:
        """Queue bytes for sending."""
        self.writeSequence((data,))

    def writeSequence(self, pieces: Sequence[Piece]) -> None:
        """See `IStream`."""
        raise NotImplementedError

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """
        See `IConsumer`; push producers only.

        :raises RuntimeError: there is one already.
        :raises ValueError: `streaming` is false.
        """
        if self._producer is not None:
            raise RuntimeError("a producer is registered already")
        if not streaming:
            raise ValueError("a stream takes push producers only")
        if self._isOver:
            producer.stopProducing()
        else:
            self._producer = cast(IPushProducer, producer)
            self._isProducerPaused = False

    def unregisterProducer(self) -> None:
        """See `IConsumer`."""
        self._producer = None

    def _pauseProducer(self) -> None:
        """Enough waits."""
        if self._producer is not None and not self._isProducerPaused:
            self._isProducerPaused = True
            self._producer.pauseProducing()

    def _resumeProducer(self) -> None:
        """There is room again."""
        if self._producer is not None and self._isProducerPaused:
            self._isProducerPaused = False
            self._producer.resumeProducing()

    def _dropProducer(self) -> None:
        """Nothing more is taken, which the producer needn't know: it must not wait."""
        producer, self._producer = self._producer, None
        if producer is not None and self._isProducerPaused:
            self._isProducerPaused = False
            producer.resumeProducing()
