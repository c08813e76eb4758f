"""What the connector's tests share: a reactor with a resolver, and TCP that goes nowhere until it is told to."""

from collections.abc import Callable, Sequence

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IHostnameResolver, IHostResolution, IResolutionReceiver
from zope.interface import implementer

from socketwarp.interfaces import Address, ITcpProtocol
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


class FakeDial:
    """One dial, that waits for the test to say how it goes."""

    def __init__(
        self, reactor: FakeReactor, address: Address, timeout: float, made: Callable[[], ITcpProtocol]
    ) -> None:
        self.place = address
        self.timeout = timeout
        self.stopped = False
        self.done: Deferred[None] = Deferred(self._stop)
        self._made = made
        self._reactor = reactor

    def succeeds(self) -> FakeSocket:
        """The target accepts; the result plays it."""
        remote = connect(self._reactor, self._made())
        self.done.callback(None)
        return remote

    def fails(self, error: Exception) -> None:
        """It doesn't."""
        self.done.errback(error)

    def _stop(self, done: Deferred[None]) -> None:
        self.stopped = True


class TargetReactor(FakeReactor):
    """A `FakeReactor` that also resolves and dials."""

    def __init__(self) -> None:
        super().__init__()
        self.nameResolver = FakeResolver()
        self.dials: list[FakeDial] = []

    def addReader(self, reader: object) -> None:
        """What watches the network has no socket to play."""

    def removeReader(self, reader: object) -> None:
        """As well."""

    def dial(self, address: Address, timeout: float, made: Callable[[], ITcpProtocol]) -> Deferred[None]:
        """As `socketwarp.tcp.dial.dial`."""
        self.dials.append(FakeDial(self, address, timeout, made))
        return self.dials[-1].done
