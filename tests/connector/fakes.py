"""What the connector's tests share: a reactor with a resolver, and TCP that goes nowhere until it is told to."""

from collections.abc import Sequence

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

from tests.fake_tcp import FakeReactor, FakeSocket, connect


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
