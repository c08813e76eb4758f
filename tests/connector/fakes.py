"""What the connector's tests share: a reactor with a resolver, and TCP that goes nowhere until it is told to."""

from collections.abc import Sequence
from typing import TypeVar

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IHostnameResolver,
    IHostResolution,
    IProtocol,
    IResolutionReceiver,
)
from twisted.internet.protocol import ClientFactory
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from zope.interface import implementer

from socketwarp.interfaces import IStream, IStreamReceiver, Piece
from socketwarp.wire.messages import Message, MessageParser, Ping, Pong, formatMessage
from tests.fake_tcp import FakeReactor, FakeSocket, connect
from tests.fakes import FakeSession

M = TypeVar("M", bound=Message)


@implementer(IHostnameResolver)
class FakeResolver:
    """
    A resolver with a table; a name that isn't there has no address, and one with `None` is never answered.

    :ivar asked: the names, in order.
    """

    def __init__(self) -> None:
        self.table: dict[str, Sequence[str] | None] = {}
        self.asked: list[tuple[str, int, str]] = []
        self.unanswered: list[IResolutionReceiver] = []

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        self.asked.append((hostName, portNumber, transportSemantics))
        addresses = self.table.get(hostName, ())
        if addresses is None:
            self.unanswered.append(resolutionReceiver)
        else:
            self.answer(resolutionReceiver, addresses)
        return IHostResolution(self)

    def __conform__(self, interface: object) -> object:
        return self

    def answer(self, receiver: IResolutionReceiver, addresses: Sequence[str]) -> None:
        """Give the addresses to one who asked."""
        for host in addresses:
            receiver.addressResolved((IPv6Address if ":" in host else IPv4Address)("TCP", host, 0))
        receiver.resolutionComplete()


@implementer(IConnector)
class FakeDial:
    """One ``connectTCP``, that waits for the test to say how it goes."""

    def __init__(self, reactor: Clock, host: str, port: int, factory: ClientFactory, timeout: float) -> None:
        self.place = (host, port)
        self.timeout = timeout
        self.stopped = False
        self._factory = factory
        self._reactor = reactor
        factory.doStart()
        factory.startedConnecting(self)

    def succeeds(self) -> FakeSocket:
        """The target accepts; the result plays it."""
        protocol = self._factory.buildProtocol(IPv4Address("TCP", *self.place))
        assert isinstance(self._reactor, FakeReactor)
        return connect(self._reactor, IProtocol(protocol))

    def fails(self, error: Exception) -> None:
        """It doesn't."""
        self._factory.clientConnectionFailed(self, Failure(error))

    def stopConnecting(self) -> None:
        self.stopped = True
        self.fails(RuntimeError("stopped"))

    def disconnect(self) -> None:
        raise NotImplementedError

    def connect(self) -> None:
        raise NotImplementedError

    def getDestination(self) -> IAddress:
        return IPv4Address("TCP", *self.place)


class TargetReactor(FakeReactor):
    """A `FakeReactor` that also resolves and dials."""

    def __init__(self) -> None:
        super().__init__()
        self.nameResolver = FakeResolver()
        self.dials: list[FakeDial] = []

    def addReader(self, reader: object) -> None:
        """The watch for hangups has no socket to play."""
        if isinstance(reader, Connection):
            super().addReader(reader)

    def connectTCP(self, host: str, port: int, factory: ClientFactory, timeout: float) -> IConnector:
        self.dials.append(FakeDial(self, host, port, factory, timeout))
        return self.dials[-1]


@implementer(IStreamReceiver)
class Listening:
    """
    The listener's end of a session: what it hears on the control stream, and what it says there.

    :ivar messages: what it has heard, but pings.
    :ivar isMute: it answers no pings.
    :ivar pings: how many it has heard.
    """

    def __init__(self, session: FakeSession) -> None:
        self.messages: list[Message] = []
        self.isMute = False
        self.pings = 0
        self._stream: IStream | None = None
        self._parser = MessageParser()
        session.acceptStreams(self._accept)

    def _accept(self, stream: IStream) -> None:
        self._stream = stream
        stream.start(self)

    def say(self, message: Message) -> None:
        """A message to the connector, if it has opened a control stream."""
        if self._stream is not None:
            self._stream.write(formatMessage(message))

    def heard(self, kind: type[M]) -> list[M]:
        """The messages of that kind."""
        return [message for message in self.messages if isinstance(message, kind)]

    def piecesReceived(self, pieces: list[Piece]) -> None:
        for message in self._parser.feed(pieces):
            if not isinstance(message, Ping):
                self.messages.append(message)
                continue
            self.pings += 1
            if not self.isMute:
                self.say(Pong(message.number))

    def readConnectionLost(self) -> None:
        """The connector has ended it."""

    def writeConnectionLost(self, errorCode: int) -> None:
        """The connector doesn't listen."""

    def connectionLost(self, reason: Failure) -> None:
        self._stream = None
